"""Reads pi's sessions, and the same kind of lines in OpenClaw's, and returns turns.

A session is a file of entries: a header, messages, and the cost of condensing the history. A fork begins with a copy of
its parent's entries, and a newer format gives entries new ids, so a turn is named by its response, or by its start,
model and counts (pi source, docs/session-format.md and packages/ai/src/types.ts, as of November 2026).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tokenops import events, jsonl, read_context, read_lines, read_records, regular, untrusted
from tokenops.read_contract import FileReader, Intake

SOURCE = "pi"
CLIENT = "pi"

# Of the lines that matter: those for counts, and those that hold what entered the context.
_MARKS = ('"usage"', '"session"', '"model_change"', '"model-snapshot"')
_MESSAGES = ('"role"', '"compaction"', '"branch_summary"', '"custom_message"')
_HEADER = re.compile(rb'"type":\s*"session"\s*[,}]')
# OpenClaw's paths, and entries that pi does not have.
_OPENCLAW_PATH = re.compile(r"/agents/[^/]+/sessions/|\.jsonl\.(?:deleted|reset)\.")
_OPENCLAW = re.compile(rb'"model-snapshot"|"openclaw[":-]')
_COUNTS = {
    "input_tokens": ("input", "inputTokens", "input_tokens"),
    "cache_read_tokens": ("cacheRead", "cache_read", "cache_read_input_tokens"),
    "cache_write_tokens": ("cacheWrite", "cache_write", "cache_creation_input_tokens"),
    "cache_write_1h_tokens": ("cacheWrite1h",),
    "output_tokens": ("output", "outputTokens", "output_tokens"),
    "reasoning_tokens": ("reasoning",),
}
_TOTAL = ("totalTokens", "total", "total_tokens")
# Why an answer ended before its last count came: the counts are those of its beginning.
_CUT = ("aborted", "error")
_HEADER_BYTES = 1 << 16
_MOST_ANCESTORS = 20


class Product(NamedTuple):
    """The client of a session."""

    source: str
    client: str


PRODUCT = Product(SOURCE, CLIENT)


def marks(intake: Intake) -> tuple[str, ...]:
    """The texts of which a line that matters holds one."""
    return _MARKS + _MESSAGES if intake.options.work else _MARKS


def relevant(intake: Intake) -> read_lines.Relevant:
    """Whether a line matters."""
    return read_lines.containing(*(mark.encode() for mark in marks(intake)))


def files(home: str) -> Iterator[str]:
    """The sessions of pi's directory, or of a directory of sessions."""
    folder = os.path.join(home, "sessions")
    for path in read_lines.walk(folder if os.path.isdir(folder) else home):
        if path.endswith(".jsonl"):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a session of pi."""
    return is_session(head) and not is_openclaw(path, head)


def is_session(head: bytes) -> bool:
    """Whether a file begins as the sessions of both products do, or goes on as they do."""
    lines = head[:1] == b"{" or head.startswith(jsonl.BOM)
    return lines and (bool(_HEADER.search(head, 0, 4096)) or (b'"parentId"' in head and b'"cacheRead"' in head))


def is_openclaw(path: str, head: bytes) -> bool:
    """Whether a session is OpenClaw's."""
    return bool(_OPENCLAW_PATH.search(path) or _OPENCLAW.search(head))


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one session. Raises OSError."""
    stem = os.path.basename(path).removesuffix(".jsonl")
    folder = os.path.basename(os.path.dirname(path)).strip("-")
    for location, line in read_lines.records(path, cursor, relevant(intake), intake.on_bad_line):
        yield from turns(line, location, cursor.state, stem.partition("_")[2] or stem, folder, PRODUCT, intake)


def turns(
    line: untrusted.Raw,
    location: str,
    state: dict[str, Any],
    session: str,
    folder: str,
    product: Product,
    intake: Intake,
) -> Iterator[events.Event]:
    """The turn of a line, if it has one, and what entered before it. `session` and `folder` come from the file's path."""
    context = read_context.Line(state.setdefault("context", {}), product.client) if intake.options.work else None
    if context:
        _measure_input(line, context)
    try:
        _note(line, state, location)
        turn = _turn(line, state, session, folder, product, intake)
    except events.BadRecord as error:
        intake.on_bad_line(location, f"{error}; skipped")
        return
    if not turn:
        return
    intake.location = location
    yield turn
    if context and (message := untrusted.mapping(line.get("message"))):
        context.begin(turn["id"])
        _measure_output(message, context)
        yield context.record(turn)
        context.mark(untrusted.identity(line.get("id")))


def _turn(
    line: untrusted.Raw, state: dict[str, Any], session: str, folder: str, product: Product, intake: Intake
) -> events.Event:
    """The turn of a line; empty if it has none. Raises BadRecord."""
    message = untrusted.mapping(line.get("message"))
    usage = untrusted.mapping(message.get("usage")) or untrusted.mapping(line.get("usage"))
    counts = counts_of(usage)
    if not counts:
        return {}
    begun = message.get("timestamp")
    ts = untrusted.moment(line.get("timestamp") if begun is None else begun)
    written = untrusted.moment(line.get("timestamp") or begun)
    provider, requested = (message.get(key) for key in ("provider", "model"))
    if not message:  # what condensed the history: done by the model of the time
        provider, requested = state.get("model", ("", ""))
    answered = untrusted.text(message.get("responseModel")) or untrusted.text(requested)
    at = read_records.owner_of(written, state.get("lineage", ())) or session
    cut = message.get("stopReason") in _CUT
    cost = untrusted.usd(untrusted.mapping(usage.get("cost")).get("total"))
    return read_records.turn(
        ts,
        _name(message, product, ts, untrusted.text(provider), untrusted.text(requested), counts),
        intake.attribution(product.source, product.client, state.get("root", ""), folder, at),
        answered,
        counts,
        untrusted.text(provider),
        at,
        request_model=untrusted.text(requested) if untrusted.text(requested) != answered else "",
        cost_usd=cost,
        cost_source=cost and "client",
        usage="partial" if cut else "",
        usage_reason="the answer was interrupted" if cut else "",
    )


def _measure_input(line: untrusted.Raw, context: read_context.Line) -> None:
    """Take in what an entry gives to the model. Entries are a tree: after a step back, one follows an older entry."""
    above = untrusted.identity(line.get("parentId"))
    context.follow(above)
    match line.get("type"):
        case "compaction":
            context.condense(read_context.text_size(line.get("summary")))
        case "branch_summary":
            context.add_input(read_context.SUMMARY, read_context.text_size(line.get("summary")))
        case "custom_message":
            _add_content(line.get("content"), context)
        case "message":
            message = untrusted.mapping(line.get("message"))
            if message.get("role") == "user":
                context.mark(above)
            _add_message(message, context)


def _add_message(message: untrusted.Raw, context: read_context.Line) -> None:
    """Take in a message that is not the model's."""
    match message.get("role"):
        case "user" | "custom":
            _add_content(message.get("content"), context)
        case "toolResult":
            identity, name = untrusted.identity(message.get("toolCallId")), message.get("toolName")
            context.add_result(identity, name, _add_content(message.get("content"), context, ""))
        case "bashExecution" if message.get("excludeFromContext") is not True:  # the user ran it
            size = read_context.text_size(message.get("command")) + read_context.text_size(message.get("output"))
            context.add_input(read_context.PROMPT, size)
        case "branchSummary" | "compactionSummary":
            context.add_input(read_context.SUMMARY, read_context.text_size(message.get("summary")))


def _add_content(content: object, context: read_context.Line, cause: str = read_context.PROMPT) -> int:
    """Add images, and texts if there is a cause for them. Returns the size of the texts."""
    size = read_context.text_size(content)
    for block in map(untrusted.mapping, untrusted.items(content)):
        size += read_context.text_size(block.get("text"))
        if block.get("type") == "image":
            context.add_input(read_context.IMAGE, read_context.image_size(block.get("data")))
    if cause:
        context.add_input(cause, size)
    return size


def _measure_output(message: untrusted.Raw, context: read_context.Line) -> None:
    """Take in what the model wrote."""
    for block in map(untrusted.mapping, untrusted.items(message.get("content"))):
        context.add_output(read_context.REPLY, read_context.text_size(block.get("text")))
        context.add_output(read_context.THINKING, read_context.text_size(block.get("thinking")))
        if block.get("type") == "toolCall":
            context.add_call(block.get("name"), block.get("arguments"), identity=untrusted.identity(block.get("id")))


def _note(line: untrusted.Raw, state: dict[str, Any], location: str) -> None:
    """Keep what later entries need: the session's header, and the model of the time. Raises BadRecord."""
    match line.get("type"):
        case "session":
            state["root"] = untrusted.path(line.get("cwd"))
            begun = untrusted.moment(line.get("timestamp")) if line.get("timestamp") is not None else ""
            own = (untrusted.identity(line.get("id")), begun)
            state["lineage"] = [own, *_ancestors(line, location.rpartition(":")[0])]
        case "model_change":
            state["model"] = [untrusted.text(line.get("provider")), untrusted.text(line.get("modelId"))]
        case "custom" if line.get("customType") == "model-snapshot":
            source = untrusted.mapping(line.get("data"))
            state["model"] = [untrusted.text(source.get("provider")), untrusted.text(source.get("modelId"))]
        case "message":
            source = untrusted.mapping(line.get("message"))
            if source.get("role") == "assistant" and untrusted.text(source.get("model")):
                state["model"] = [untrusted.text(source.get("provider")), untrusted.text(source.get("model"))]


def _parent_of(header: untrusted.Raw) -> str:
    """The session that a session was forked from; "" if it was not."""
    parent = untrusted.path(header.get("parentSession")) or untrusted.text(header.get("parentSession"))
    stem = re.split(r"[\\/]", parent)[-1].removesuffix(".jsonl")
    return untrusted.identity(stem.partition("_")[2] or stem)


def _ancestors(header: untrusted.Raw, path: str) -> Iterator[tuple[str, str]]:
    """The session that a session was forked from, that one's source and so on; and when each began, "" if unknown.

    Only files of the same directory of sessions are opened: the header may name a path of another machine.
    """
    for _ in range(_MOST_ANCESTORS):
        name = _parent_of(header)
        if not name:
            return
        *_, folder, file = ["", *re.split(r"[\\/]", untrusted.path(header.get("parentSession")))]
        beside = os.path.dirname(path)
        folders = [beside] if folder in ("", ".", "..") else [beside, os.path.join(os.path.dirname(beside), folder)]
        candidates = (os.path.join(above, file) for above in folders if file.endswith(".jsonl"))
        path = next(filter(os.path.isfile, candidates), "")
        header = _header(path) if path else {}
        try:
            yield name, untrusted.moment(header.get("timestamp"))
        except events.BadRecord:
            yield name, ""
            return


def _header(path: str) -> untrusted.Raw:
    """The header of a session's file; empty if it has none."""
    try:
        with open(path, "rb", opener=regular.opener) as file:
            lines = jsonl.parse(file.readline(_HEADER_BYTES), lambda why: None)
    except OSError:
        return {}
    return next((line for line in lines if line.get("type") == "session"), {})


def _name(message: untrusted.Raw, product: Product, ts: str, provider: str, model: str, counts: dict[str, int]) -> str:
    """A turn's name: its response's, where no other has that; else made of its content."""
    response = message.get("responseId")
    if name := untrusted.response_id(response):
        return name
    if name := untrusted.identity(response):
        return f"{product.client}:{name}:{events.digest(ts, counts)}"
    return f"{product.client}:{events.digest(ts, provider, model, counts)}"


def counts_of(usage: untrusted.Raw) -> dict[str, int]:
    """The record's counts, which are apart in the source too; none for an answer that used nothing. Raises BadRecord.

    Reasoning is part of the output, unless the total shows otherwise; what is kept for an hour is part of the writes.
    Input below 0 is what is left where an API counted more cached input than it was sent: never more is cached than that.
    """
    sent = usage.get("input")
    over = -sent if type(sent) is int and sent < 0 else 0
    counts = {name: untrusted.count({**usage, "input": 0} if over else usage, *keys) for name, keys in _COUNTS.items()}
    counts["cache_read_tokens"] = max(counts["cache_read_tokens"] - over, 0)
    total = untrusted.count(usage, *_TOTAL)
    if total and not any(counts.values()):
        raise events.BadRecord("only a total is given, so input and output are unknown")
    kept = min(counts["cache_write_1h_tokens"], counts["cache_write_tokens"])
    counts["cache_write_1h_tokens"], counts["cache_write_tokens"] = kept, counts["cache_write_tokens"] - kept
    reasoning = counts["reasoning_tokens"]
    if reasoning > counts["output_tokens"] or total == sum(counts.values()):
        counts["output_tokens"] += reasoning
    return {name: count for name, count in counts.items() if count}


READER = FileReader(SOURCE, CLIENT, files, claims, read)
