"""Reads Qwen Code's chats and returns turns.

A chat is a file of lines. Since 2026 each answer of the API is a line of telemetry, including answers to subagents and
compressions of the history; its message follows, with the same counts. Older chats have only messages. A branch of a
chat begins with a copy of its lines under a new session, and each names the chat that it was copied from last. (Qwen
Code source, services/chatRecordingService.ts and sessionService.ts, telemetry/loggers.ts and
core/openaiContentGenerator/converter.ts, as of November 2026.)

Transcripts of subagents, in `subagents` beside the chats, are not read: the chat has their answers. So what entered the
context is measured of the chat's own messages only; of a subagent's answers it is known which follow each other.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from tokenops import events, jsonl, read_context, read_lines, read_records, read_sqlite, regular, untrusted, when
from tokenops.read_contract import FileReader, Intake

SOURCE = "qwen-code"
CLIENT = "qwen-code"

_RELEVANT = read_lines.containing(b'"usageMetadata"', b"qwen-code.api_response")
_WITH_MESSAGES = read_lines.containing(
    b'"usageMetadata"', b"qwen-code.api_response", b'"user"', b'"tool_result"', b'"chat_compression"', b'"rewind"'
)
_WAITING = 50  # answers that may still be followed by their message
_DAY_MS = 86_400_000
_MOST_ANCESTORS = 20
_NEVER = "9999"  # later than any time


def files(home: str) -> Iterator[str]:
    """The chats of a Qwen directory."""
    for path in read_lines.walk(os.path.join(home, "projects")):
        if path.endswith(".jsonl") and "/chats/" in path[len(home) :]:
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a chat."""
    return b'"sessionId"' in head and (b'"usageMetadata":{' in head or b'"qwen-code.api_response"' in head)


class Origin(NamedTuple):
    """What a chat's first lines say of it."""

    source: str = ""  # the session that it was forked from
    began: str = ""  # when it wrote its first line of its own; "" if it was not forked


def _session_of(line: untrusted.Raw, path: str) -> str:
    """The session that made a request. A fork names the chat that it copied, which may have copied the line itself."""
    stem = os.path.basename(path).removesuffix(".jsonl")
    session = untrusted.identity(untrusted.mapping(line.get("forkedFrom")).get("sessionId"))
    if not session:
        return untrusted.identity(line.get("sessionId")) or stem
    lineage: list[tuple[str, str]] = []
    while session and len(lineage) < _MOST_ANCESTORS:
        origin = _origin_in(os.path.dirname(path), session)
        lineage.append((session, origin.began))
        session = origin.source
    try:
        return read_records.owner_of(untrusted.moment(line.get("timestamp")), lineage)
    except events.BadRecord:
        return lineage[0][0]


def _origin_in(folder: str, session: str) -> Origin:
    """The origin of a chat in a folder; none if it is not there."""
    path = os.path.join(folder, f"{session}.jsonl")
    try:
        return _origin_of(path, read_sqlite.stamp(path)) if os.path.basename(session) == session else Origin()
    except OSError:
        return Origin()


@functools.lru_cache(64)
def _origin_of(path: str, stamp: read_sqlite.Stamp) -> Origin:
    """The origin of a chat: copied lines come first. Raises OSError."""
    source = ""
    with open(path, "rb", opener=regular.opener) as file:
        for data in file:
            for line in jsonl.parse(data, lambda why: None):
                above = untrusted.identity(untrusted.mapping(line.get("forkedFrom")).get("sessionId"))
                if not above:
                    return Origin(source, str(line.get("timestamp", ""))) if source else Origin()
                source = above
    return Origin(source, _NEVER)


class Answer(NamedTuple):
    """One answer in a line."""

    ts: str
    name: str  # the provider's, if there is one
    model: str
    provider: str
    subagent: bool
    kind: str  # of the subagent
    reported: list[int]  # prompt, candidates, total: what both lines of an answer have alike
    counts: dict[str, int]
    chain: str = ""  # the subagent's name for itself


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one chat, and the sizes of what entered before each. Raises OSError."""
    above, _, _ = path.rpartition("/chats/")
    folder = os.path.basename(above)
    chats = cursor.state.setdefault("context", {}) if intake.options.work else None
    relevant = _RELEVANT if chats is None else _WITH_MESSAGES
    for location, line in read_lines.records(path, cursor, relevant, intake.on_bad_line):
        if chats is not None:
            _measure_input(line, read_context.line_of(chats, "", CLIENT))
        try:
            answer = answer_of(line)
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        if answer is None:
            continue
        name = answer.name or "qwen:" + (
            untrusted.identity(line.get("uuid")) or events.digest(answer.ts, answer.model, answer.counts)
        )
        before = _answer_before(answer._replace(name=name), line, cursor.state.setdefault("waiting", []))
        if before is not None:
            if chats is None:
                continue  # its turn was given with its first line
            answer, name = answer._replace(ts=before.ts), before.name
        session = _session_of(line, path)
        attribution = intake.attribution(SOURCE, CLIENT, untrusted.path(line.get("cwd")), folder, session)
        if answer.subagent:
            attribution["sidechain"] = True
        turn = read_records.turn(
            answer.ts,
            name,
            attribution,
            answer.model,
            answer.counts,
            answer.provider,
            session,
            subagent=answer.kind,
            branch=untrusted.tag(line.get("gitBranch")),
        )
        intake.location = location
        if before is None:
            yield turn
        if chats is not None and name:
            yield from _records(line, answer, turn, chats)


def _records(line: untrusted.Raw, answer: Answer, turn: events.Event, chats: dict[str, Any]) -> Iterator[events.Event]:
    """The record of a turn: of the chat itself at its message, of a subagent at once, without sizes."""
    context = read_context.line_of(chats, answer.chain, CLIENT)
    if answer.chain:
        context.begin(turn["id"])
        yield context.record(turn, answer.chain)
    elif line.get("type") == "assistant" and not answer.subagent:
        context.begin(turn["id"])
        _measure_output(line, context)
        yield context.record(turn)
        context.mark(untrusted.identity(line.get("uuid")))


def _measure_input(line: untrusted.Raw, context: read_context.Line) -> None:
    """Take in what a line gives to the model: a prompt, a result, or a summary of what was before."""
    if line.get("isSidechain") is True:
        return
    above = untrusted.identity(line.get("parentUuid"))
    context.follow(above)
    if line.get("subtype") == "chat_compression":
        history = untrusted.items(untrusted.mapping(line.get("systemPayload")).get("compressedHistory"))
        context.condense(sum(read_context.text_size(part.get("text")) for content in history for part in _parts_of(content)))
    elif line.get("type") in ("user", "tool_result"):
        if line.get("type") == "user":
            context.mark(above)
        for part in _parts_of(line.get("message")):
            context.add_input(read_context.PROMPT, read_context.text_size(part.get("text")))
            if answer := untrusted.mapping(part.get("functionResponse")):
                identity = untrusted.identity(answer.get("id"))
                context.add_result(identity, answer.get("name"), read_context.leaves_size(answer.get("response")))
            for carrier in (part, *map(untrusted.mapping, untrusted.items(answer.get("parts")))):
                _add_file(untrusted.mapping(carrier.get("inlineData")), context)


def _add_file(file: untrusted.Raw, context: read_context.Line) -> None:
    """An image or a document, as the model is given it."""
    if untrusted.text(file.get("mimeType")).startswith("image/"):
        context.add_input(read_context.IMAGE, read_context.image_size(file.get("data")))
    elif file:
        context.add_input(read_context.ATTACHMENT, read_context.document_size(file.get("data")))


def _measure_output(line: untrusted.Raw, context: read_context.Line) -> None:
    """Take in what the model wrote."""
    for part in _parts_of(line.get("message")):
        cause = read_context.THINKING if part.get("thought") is True else read_context.REPLY
        context.add_output(cause, read_context.text_size(part.get("text")))
        if call := untrusted.mapping(part.get("functionCall")):
            context.add_call(call.get("name"), call.get("args"), identity=untrusted.identity(call.get("id")))


def _parts_of(content: object) -> Iterator[untrusted.Raw]:
    return map(untrusted.mapping, untrusted.items(untrusted.mapping(content).get("parts")))


def answer_of(line: untrusted.Raw) -> Answer | None:
    """The answer in a line; None if it has none, or no counts. Raises BadRecord."""
    if line.get("type") == "system":
        event = untrusted.mapping(untrusted.mapping(line.get("systemPayload")).get("uiEvent"))
        return _response(event, line) if event.get("event.name") == "qwen-code.api_response" else None
    usage = untrusted.mapping(line.get("usageMetadata"))
    names = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")
    reported = [untrusted.count(usage, name) for name in names]
    more = ("cachedContentTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")
    counts = counts_of(*reported, *(untrusted.count(usage, name) for name in more))
    if not counts:
        return None
    side = line.get("isSidechain") is True
    ts, model = untrusted.moment(line.get("timestamp")), untrusted.text(line.get("model"))
    return Answer(ts, "", model, "", side, "", reported, counts)


def _response(event: untrusted.Raw, line: untrusted.Raw) -> Answer | None:
    """The answer in a line of telemetry, which is written when the answer has ended. Raises BadRecord."""
    reported = [untrusted.count(event, f"{name}_token_count") for name in ("input", "output", "total")]
    counts = counts_of(
        *reported, *(untrusted.count(event, f"{name}_token_count") for name in ("cached_content", "thoughts", "tool"))
    )
    if not counts:
        return None
    ended, took = (
        when.moment(untrusted.moment(event.get("event.timestamp") or line.get("timestamp"))),
        event.get("duration_ms"),
    )
    if isinstance(took, (int, float)) and 0 <= took < _DAY_MS:
        ended -= int(took)
    return Answer(
        when.stamp(ended),
        untrusted.response_id(event.get("response_id")),
        untrusted.text(event.get("model")),
        "alibaba" if event.get("auth_type") == "qwen-oauth" else "",
        any(event.get(name) for name in ("subagent_name", "subagent_id")),
        untrusted.tag(event.get("subagent_name")),
        reported,
        counts,
        _chain_of(event),
    )


def _chain_of(event: untrusted.Raw) -> str:
    """The subagent that asked: its id, or the middle of `<session>#<subagent>#<number>`; "" if it was none."""
    _, _, named = untrusted.text(event.get("prompt_id")).partition("#")
    return read_context.label(event.get("subagent_id") or named.rpartition("#")[0]) if event.get("subagent_name") else ""


class Before(NamedTuple):
    """An answer that a line before gave."""

    name: str
    ts: str


def _answer_before(answer: Answer, line: untrusted.Raw, waiting: list[list[Any]]) -> Before | None:
    """The answer whose message a line is; remembers the answers that wait for theirs."""
    if line.get("type") == "system":
        waiting.append([*answer.reported, answer.name, answer.ts])
        del waiting[:-_WAITING]
        return None
    for number, entry in enumerate(waiting):
        if entry[:3] == answer.reported:
            del waiting[number]
            return Before(*entry[3:]) if len(entry) == 5 else Before("", answer.ts)  # kept by an older version
    return None


def counts_of(prompt: int, output: int, total: int, cached: int = 0, thoughts: int = 0, tool: int = 0) -> dict[str, Any]:
    """The record's disjoint counts. Raises BadRecord.

    Cached input is part of the prompt or not, thoughts are part of the output (as OpenAI's API counts) or not (as
    Gemini's does), prompts of tools likewise: the first combination that makes the total, else the first.
    """
    if not any((prompt, output, cached, thoughts, tool)) and total:
        raise events.BadRecord("only a total is given, so input and output are unknown")
    inputs = [prompt - cached + tool, prompt - cached] if cached <= prompt else []
    inputs += [prompt + tool, prompt]
    outputs = [output, output + thoughts] if thoughts <= output else [output + thoughts]
    pairs = [(sent, answered) for sent in inputs for answered in outputs]
    sent, answered = next((pair for pair in pairs if sum(pair) + cached == total), pairs[0])
    counts = {
        "input_tokens": sent,
        "cache_read_tokens": cached,
        "output_tokens": answered,
        "reasoning_tokens": thoughts,
    }
    return {name: count for name, count in counts.items() if count}


READER = FileReader(SOURCE, CLIENT, files, claims, read)
