"""Reads Amp's threads and returns turns.

A thread is one JSON document. Until January 2026 `usageLedger.events` had its requests and the answers only their cache
counts; since then each answer has its own `usage`, and an older ledger stays beside them (Amp's thread files, as of
November 2026). A request is identified by its answer, so copies count once. `inputTokens` excludes cached input;
`totalInputTokens` is the sum. Amp bills in credits, which are not dollars and are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from tokenops import events, read_context, read_lines, read_records, untrusted
from tokenops.read_contract import FileReader, Intake

SOURCE = "amp"
CLIENT = "amp"

_CUT = ("cancelled", "running", "streaming", "error")  # states of an answer that did not end, or not yet
_CACHE = ("cacheCreationInputTokens", "cacheReadInputTokens")


class Request(NamedTuple):
    """One request, as its thread records it."""

    location: str
    name: str  # of the answer it ended in; "" if it has no name
    times: tuple[Any, ...]  # when it was, the best first
    models: tuple[Any, ...]
    tokens: untrusted.Raw
    cache: untrusted.Raw  # holds the cache counts if `tokens` does not
    cut: bool = False  # the answer did not end, so its counts are those of its beginning
    message: int = -1  # the number of the answer, if it came from this request


def files(home: str) -> Iterator[str]:
    """The threads of an Amp data directory, or of its `threads` directory."""
    nested = os.path.join(home, "threads")
    for path in read_lines.walk(nested if os.path.isdir(nested) else home):
        if _has_thread_name(path):
            yield path


def _has_thread_name(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith("T-") and name.endswith(".json")


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a thread."""
    return b'"usageLedger"' in head or (_has_thread_name(path) and b'"messages"' in head)


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one thread, then the sizes of what entered before each. Raises OSError, BadRecord."""
    thread = read_lines.document(path, cursor)
    if not thread.keys() & {"messages", "usageLedger"}:
        raise events.BadRecord("not an Amp thread: it has neither messages nor a usage ledger; skipped")
    session = untrusted.identity(thread.get("id")) or os.path.basename(path).removesuffix(".json")
    root, folder = root_of(thread)
    attribution = intake.attribution(SOURCE, CLIENT, root, folder, session)
    seen: dict[str, int] = {}
    turns: dict[int, events.Event] = {}  # by the number of the answer
    for request in requests(thread, path):
        try:
            counts = counts_of(request.tokens, request.cache)
            if not counts:
                continue
            ts = untrusted.moment(_first(request.times))
        except events.BadRecord as error:
            intake.on_bad_line(request.location, f"{error}; skipped")
            continue
        model = untrusted.text(_first(request.models))
        name = request.name or untrusted.occurrence_name(seen, events.digest(ts, model, counts))
        has_cache_counts = any(part.get(key) is not None for part in (request.tokens, request.cache) for key in _CACHE)
        reason = "" if has_cache_counts else "the cache counts are not recorded"
        if request.cut:
            reason = "the answer was interrupted"
        unknown = {"usage": "partial", "usage_reason": reason} if reason else {}
        intake.location = request.location
        turn = read_records.turn(ts, f"amp:{session}:{name}", attribution, model, counts, "amp", session, **unknown)
        turns[request.message] = turn
        yield turn
    if intake.options.work:
        yield from _contexts(untrusted.items(thread.get("messages")), turns)


def _contexts(messages: list[Any], turns: dict[int, events.Event]) -> Iterator[events.Event]:
    """The records of a thread's turns, by the number of the answer of each."""
    context = read_context.Line({}, CLIENT)
    for number, message in enumerate(map(untrusted.mapping, messages)):
        blocks = list(map(untrusted.mapping, untrusted.items(message.get("content"))))
        if message.get("role") != "assistant":
            for block in blocks:
                _add_input(block, context)
        elif turn := turns.get(number):
            context.begin(turn["id"])
            for block in blocks:
                context.add_output(read_context.REPLY, read_context.text_size(block.get("text")))
                context.add_output(read_context.THINKING, read_context.text_size(block.get("thinking")))
                if block.get("type") == "tool_use":
                    identity = untrusted.identity(block.get("id"))
                    context.add_call(block.get("name"), block.get("input"), identity=identity)
            yield context.record(turn)


def _add_input(block: untrusted.Raw, context: read_context.Line) -> None:
    """Take in a part of a message that is not the model's."""
    match block.get("type"):
        case "text":
            context.add_input(read_context.PROMPT, read_context.text_size(block.get("text")))
        case "tool_result":
            run = untrusted.mapping(block.get("run"))
            size = read_context.leaves_size(run.get("result")) + read_context.leaves_size(run.get("error"))
            context.add_result(untrusted.identity(block.get("toolUseID")), "", size)
        case "image":
            context.add_input(
                read_context.IMAGE, read_context.image_size(untrusted.mapping(block.get("source")).get("data"))
            )
        case "summary":
            summary = untrusted.mapping(block.get("summary"))
            context.condense(read_context.text_size(summary.get("summary")) or read_context.text_size(summary.get("text")))
        case "manual_bash_invocation" if block.get("hidden") is not True:  # the user ran it
            run = untrusted.mapping(block.get("toolRun"))
            size = read_context.leaves_size(block.get("args")) + read_context.leaves_size(run.get("result"))
            context.add_input(read_context.PROMPT, size)


def _first(values: tuple[Any, ...]) -> Any:
    return next((value for value in values if value is not None and value != ""), None)


def root_of(thread: untrusted.Raw) -> tuple[str, str]:
    """The directory that a thread was begun in, and its name for people."""
    initial = untrusted.mapping(untrusted.mapping(thread.get("env")).get("initial"))
    tree = untrusted.mapping(next(iter(untrusted.items(initial.get("trees"))), None))
    uri = untrusted.path(tree.get("uri"))
    if not uri.startswith("file:///"):
        return "", untrusted.text(tree.get("displayName"))
    from urllib.parse import unquote

    return untrusted.path(unquote(uri.removeprefix("file://"))), ""


def requests(thread: untrusted.Raw, path: str) -> Iterator[Request]:
    """The requests of a thread, each once: those of its answers, then what only the ledger has."""
    ledger: dict[str, list[Request]] = {}
    for number, item in enumerate(untrusted.items(untrusted.mapping(thread.get("usageLedger")).get("events"))):
        event = untrusted.mapping(item)
        name = untrusted.identity(event.get("id"))
        ledger.setdefault(untrusted.identity(event.get("toMessageId")), []).append(
            Request(
                f"{path}:usageLedger.events[{number}]",
                f"event:{name}" if name else "",
                (event.get("timestamp"),),
                (event.get("model"),),
                untrusted.mapping(event.get("tokens")),
                {},
            )
        )
    sent = thread.get("created")
    for number, item in enumerate(untrusted.items(thread.get("messages"))):
        message = untrusted.mapping(item)
        sent = _first((untrusted.mapping(message.get("meta")).get("sentAt"), sent))
        name = untrusted.identity(message.get("messageId"))
        entries = ledger.pop(name, []) if name else []
        for request in _requests_of(f"{path}:messages[{number}]", name, message, sent, entries):
            yield request._replace(message=number) if request.name == name else request
    for rest in ledger.values():
        yield from rest


def _requests_of(location: str, name: str, message: untrusted.Raw, sent: Any, entries: list[Request]) -> Iterator[Request]:
    """The request that an answer came from, and others that the ledger gives to the same answer.

    One without a time of its own was made when the message before it was sent.
    """
    usage = untrusted.mapping(message.get("usage"))
    own = any(usage.get(key) is not None for key in ("inputTokens", "outputTokens", "totalTokens"))
    cut = untrusted.text(untrusted.mapping(message.get("state")).get("type")) in _CUT
    mine = max(entries, key=lambda entry: _likeness(usage, entry.tokens), default=None)
    if own:
        times = (usage.get("timestamp"), *(mine.times if mine else ()), sent)
        yield Request(location, name, times, (usage.get("model"), *(mine.models if mine else ())), usage, {}, cut)
    elif mine:
        yield mine._replace(name=name, times=(*mine.times, sent), cache=usage)
    for entry in entries:
        if entry is not mine:
            yield entry


def _likeness(usage: untrusted.Raw, tokens: untrusted.Raw) -> tuple[bool, bool, int]:
    """How likely an entry of the ledger is the same request: equal counts first, else the largest answer."""
    output = tokens.get("output")
    alike = [tokens.get(name) == usage.get(f"{name}Tokens") is not None for name in ("output", "input")]
    return alike[0], alike[1], output if type(output) is int else 0


def counts_of(tokens: untrusted.Raw, cache: untrusted.Raw) -> dict[str, int]:
    """The record's disjoint counts; none for a request that used nothing. Raises BadRecord."""
    sent, output = untrusted.count(tokens, "inputTokens", "input"), untrusted.count(tokens, "outputTokens", "output")
    written, read = (untrusted.count(tokens, key) or untrusted.count(cache, key) for key in _CACHE)
    whole = untrusted.count(tokens, "totalInputTokens")
    if not any((sent, output, written, read)):
        if whole or untrusted.count(tokens, "totalTokens", "total"):
            raise events.BadRecord("only a total is given, so input and output are unknown")
        return {}
    if whole == sent >= written + read:  # then the cached part is inside
        sent -= written + read
    counts = {"input_tokens": sent, "cache_read_tokens": read, "cache_write_tokens": written, "output_tokens": output}
    return {name: count for name, count in counts.items() if count}


READER = FileReader(SOURCE, CLIENT, files, claims, read)
