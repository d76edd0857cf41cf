"""Turns lines of Claude Code's transcripts into turns and meter readings, copies joined.

A transcript holds one line per content block of a response, each with the usage known so far, and copies of lines of
other sessions (resumed, forked, side questions). One turn is one `message.id`, in whatever files; `events` joins its
copies, so the order of files and the number of workers do not matter.

Claude Code writes placeholder input and output counts in many versions (anthropics/claude-code issues 10259 and 28197,
2026): the numbers are returned as recorded, never repaired.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson

from tokenops import (
    events,
    fields,
    joins,
    jsonl,
    price_names,
    read_claude_session,
    read_claude_sums,
    read_lines,
    read_records,
    regular,
    untrusted,
    when,
    wire_claude,
    wire_limits,
)
from tokenops.read_claude_session import NO_TAGS, Session, Tags
from tokenops.read_contract import Intake
from tokenops.read_records import Frame, Light

SOURCE, CLIENT = read_claude_session.SOURCE, read_claude_session.CLIENT

Raw = dict[str, Any]
fromisoformat = datetime.fromisoformat

# Written where a log was anonymised; joining on it would merge turns that have nothing in common.
_MASKED = re.compile(r"REDACTED|[\s\[\]<>*]")
# The id shows which cloud served a response: msg_bdrk_... Amazon Bedrock, msg_vrtx_... Google Vertex AI.
_CLOUDS = {"msg_bdrk_": "bedrock", "msg_vrtx_": "vertex", "gen-": "openrouter"}
# Lines without a message: when a request was sent, and the session's sums.
_NOTES = (b'api-request"', b'cost-state"')
_CUT_SHORT = b'"stop_reason":null,"stop_sequence":null,'
_FOUR = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def relevant(line: bytearray, at: int, stop: int) -> bool:
    """Whether a line could hold a turn.

    What comes before the first nested brace is at the top level, and quotes inside strings are escaped, so a type or
    role found there is the line's own. Four bytes in five are tool results, which end the test here.
    """
    brace = line.find(b"{", at + 1, stop)
    if brace < 0 or line[brace - 10 : brace + 15] == b'"message":{"role":"user",':
        return False
    kind = line.find(b'"type":"', at, brace)
    if kind >= 0 and line[kind + 8 : kind + 18] != b'assistant"':
        return line.startswith(_NOTES, kind + 8)
    return line.find(b'_tokens"', brace, stop) >= 0 or line.find(b'"cost-state"', at, brace) >= 0


def without_content(line: bytearray) -> bytearray:
    """The line without its message's content, which is most of it and holds nothing that is counted.

    Cut from `"content":[` to the last `"usage":{`, or to the mark of an answer that did not end. What is left parses only
    if both stood in the same object. If another `"usage"` lies between, or the message's id does not come before it,
    nothing is cut.
    """
    start = line.find(b'"content":[')
    stop = line.rfind(b'"usage":{')
    if (
        start < 0
        or stop - start < 400
        or line.find(b'"id":"', start - 160, start) < 0
        or line.find(b'"usage"', start, stop) >= 0
    ):
        return line
    if line.startswith(_CUT_SHORT, stop - len(_CUT_SHORT)):
        stop -= len(_CUT_SHORT)
    return line[:start] + line[stop:]


def light_counts(usage: Raw, model: str) -> tuple[int, ...] | None:
    """The counts of a usage object of the usual shape, in the order of a light turn's: nothing else would be counted.

    None, KeyError, TypeError or AttributeError if it has another shape.
    """
    sent, got = usage["input_tokens"], usage["output_tokens"]
    read, wrote = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    if not (type(sent) is int and type(got) is int and type(read) is int and type(wrote) is int):
        return None
    long = 0
    split = usage.get("cache_creation")
    if split is not None:
        short, long = split["ephemeral_5m_input_tokens"], split["ephemeral_1h_input_tokens"]
        if not (type(short) is int and type(long) is int):
            return None
        if short or long:
            wrote = max(short, wrote - long)
    thought = 0
    details = usage.get("output_tokens_details")
    if details is not None and type(thought := details["thinking_tokens"]) is not int:
        return None
    if not 0 <= sent | got | read | wrote | long | thought < fields.MOST:  # a power of 2; the bits of all at once
        return None  # which of them is below 0, or too large, is said elsewhere
    tools = usage.get("server_tool_use")
    if tools is not None and tools.get("web_search_requests"):
        return None
    iterations = usage.get("iterations")
    if iterations and not (
        len(iterations) == 1
        and iterations[0].get("model", model) == model
        and all(iterations[0].get(name) == usage[name] for name in _FOUR)
    ):
        return None
    return sent, read, wrote, long, thought, got


def identity(raw: Raw, message: Raw) -> str:
    """The first of message id, request id and line uuid that is there and not masked, or ""."""
    for value in (message.get("id"), raw.get("requestId"), raw.get("uuid")):
        if type(value) is str and value and not _MASKED.search(value):
            return value if len(value) <= events.LONGEST else fields.fit("session_id", value)
    return ""


def cloud_prefix(identifier: str) -> str:
    """The part of an id that shows which cloud served it, or ""."""
    return next((prefix for prefix in _CLOUDS if identifier.startswith(prefix)), "")


@functools.cache
def provider_of(model: str, prefix: str) -> dict[str, Any]:
    """Who bills, by the prefix of the identity; else by the model's name, and then marked as inferred."""
    if prefix:
        return {"provider": _CLOUDS[prefix]}
    if model.startswith("claude-"):
        return {"provider": "anthropic"}
    provider = price_names.provider_of(model)
    return {"provider": provider, "provider_inferred": True} if provider else {}


def is_interrupted(raw: Raw, message: Raw) -> bool:
    """Whether an answer was cut short, so that its counts are those of its beginning.

    Versions that name the requested model write an answer's lines when it has ended, so a line without a reason to stop is
    of one that did not end (2.1.332). Older ones write lines while it goes on.
    """
    if raw.get("isAbortedMidStream") is True:
        return True
    return message.get("stop_reason", "") is None and "requestedModel" in raw


def frame(usage: Raw, model: str, prefix: str = "", tags: Tags = NO_TAGS) -> Frame:
    """The fields of a turn beside its counts and its session; one object for each kind. Raises TypeError."""
    return _frame(model, prefix, usage.get("speed"), usage.get("service_tier"), usage.get("inference_geo"), tags)


@functools.lru_cache(4096)
def _frame(model: str, prefix: str, speed: object, tier: object, geo: object, tags: Tags) -> Frame:
    after: Raw = {}
    if served := "fast" if speed == "fast" else wire_claude.label_of(tier):
        after["tier"] = served
    if region := wire_claude.label_of(geo):
        after["geo"] = region
    after |= {name: tag for name, tag in zip(events.TAGS, tags, strict=False) if tag}
    return {**provider_of(model, prefix), "model": fields.fit("model", model), "turns": 1}, after


def usage_block(usage: Raw, model: str, counts: dict[str, int], identifier: str, tags: Tags = NO_TAGS) -> events.Event:
    """The fields of a record about tokens and their price, and its tags."""
    try:
        before, after = frame(usage, model, cloud_prefix(identifier), tags)
    except TypeError:
        raise events.BadRecord("usage.speed, service_tier or inference_geo is not text") from None
    return {**before, **counts, **after}


def turn(ts: str, identifier: str, attribution: Raw, block: events.Event) -> events.Event:
    """A record of kind turn."""
    return events.arrange({"v": events.VERSION, "ts": ts, "kind": "turn", "id": identifier, **attribution, **block})


# "Claude AI usage limit reached|1752345600" (2025), "You've hit your limit · resets Jul 23 at 6pm (Europe/Berlin)" (2026).
_REACHED = re.compile(r"limit reached\|(\d{9,13})\b")
_HIT = re.compile(r"\b(?:hit your|reached your|5-hour|weekly|session|usage|opus|sonnet)\b.{0,40}?\blimit\b", re.IGNORECASE)


_WITH_FINAL_COUNTS = (2, 1, 197)  # lines are written when an answer has ended (run on 2026-11-29)
_VERSIONS = re.compile(rb'"version":"(\d{1,6})\.(\d{1,6})\.(\d{1,6})"')
_HEAD = 1 << 16  # bytes of a transcript in which its version is looked for


def has_placeholders(path: str) -> bool:
    """Whether a transcript begins with lines of a version that writes placeholder counts, or of an unknown one."""
    try:
        with open(path, "rb", opener=regular.opener) as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    version = _VERSIONS.search(head)
    return version is None or tuple(map(int, version.groups())) < _WITH_FINAL_COUNTS


def limit_of(raw: Raw, message: Raw, ts: str) -> events.Event | None:
    """A meter reading, if a `<synthetic>` line reports that a limit was reached."""
    content = message.get("content")
    text = content if type(content) is str else ""
    if type(content) is list:
        text = " ".join(str(part.get("text", "")) for part in content if type(part) is dict)
    quota = raw.get("quotaLimits")
    if type(quota) is dict and raw.get("isApiErrorMessage") is True and (reading := wire_limits.reading_of_refusal(quota)):
        return events.meter(SOURCE, "anthropic", ts, client=CLIENT, status="rejected", **reading)
    reached, text = _REACHED.search(text), text[:200]
    is_transient = raw.get("apiErrorIsTransient") is True or "not your usage limit" in text  # the vendor is busy
    if not reached and not (raw.get("isApiErrorMessage") is True and not is_transient and _HIT.search(text)):
        return None
    try:
        resets = when.epoch(int(reached[1])) if reached else when.clock_time(text, ts)
    except ValueError:  # digits that are no time; the limit was reached all the same
        resets = None
    at, window = None if resets is None else when.stamp(resets), wire_limits.window_in_words(text)
    return events.meter(SOURCE, "anthropic", ts, client=CLIENT, resets_at=at, status="rejected", **window)


class Turns:
    """The turns of many transcripts, joined as they come.

    `light` keeps a turn as its line had it: nearly all copies are other lines of the same message in the same session,
    and dropping one of them costs a comparison. Whatever is less simple moves to `full` and goes through
    `joins.join`, with the same result (property test).
    """

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.light: dict[str, Light] = {}
        self.full: dict[str, list[events.Event]] = {}  # id -> the turn, and those of its other models
        self.meters: dict[str, events.Event] = {}
        self.sums: dict[str, Raw] = {}  # path -> see `read_claude_sums.Sums`
        self.buffer = bytearray(read_lines.BLOCK)
        self.stated: tuple[object, ...] = ()  # what the last line of the usual shape said beside its counts
        self.around: tuple[Frame, Raw] = (({}, {}), {})  # what was made of it
        # Of the file being read: the attribution, the requested model and the version of each message since the last sums.
        self.fresh: dict[str, tuple[Raw, object, object]] = {}

    def read(self, path: str, cursor: read_lines.Cursor) -> None:
        """Take in one file from its cursor on. Raises OSError."""
        session = Session(path, cursor, self.intake)
        take_usual, loads = self.take_usual, orjson.loads
        with open(path, "rb", buffering=0, opener=regular.opener) as file:
            for number, line in read_lines.lines(file, relevant, cursor, self.buffer):
                try:
                    raw = loads(without_content(line))
                    if take_usual(raw, session) if "message" in raw else self.take_note(raw, line, session):
                        continue
                except (ValueError, LookupError, TypeError, AttributeError):
                    pass
                self.take(line, f"{path}:{number}", session)
        self.close(session, cursor)

    def close(self, session: Session, cursor: read_lines.Cursor) -> None:
        """Keep what the next piece of a file goes on from. Raises OSError."""
        self._add_up(session)
        if session.close(cursor):
            self.sums[session.path] = session.sums.state

    def _add_up(self, session: Session) -> None:
        """Count the file's own turns since the last sums that it states."""
        for name, (attribution, requested, version) in self.fresh.items():
            if attribution.get("session_id") in session.copied or not read_claude_sums.is_summed(version):
                continue
            light = self.light.get(name)
            for n, event in enumerate([read_records.turn_of(light)] if light else self.full[name]):
                model = read_claude_sums.model_key(requested if requested and not n else event["model"])
                session.sums.add(event | {"session_id": attribution.get("session_id", "")}, model)
        self.fresh.clear()

    def take_note(self, raw: Raw, line: bytearray, session: Session) -> bool:
        """Take in a line without a message, if it is one that matters. Raises BadRecord."""
        kind = raw.get("type")
        if kind == "api-request":
            session.requests[untrusted.identity(raw.get("id"))] = untrusted.moment(raw.get("timestamp"))
        elif kind == "cost-state":
            self._add_up(session)
            session.take_sums(raw, line)
        else:
            return False
        return True

    def take_usual(self, raw: Raw, session: Session) -> bool:
        """Take in a line of the usual shape, if it is one; 99 in 100 are. LookupError and its like mean that it is not."""
        message = raw["message"]
        usage, name, model, ts = message["usage"], message["id"], message["model"], raw["timestamp"]
        if raw["type"] != "assistant" or len(name) > events.LONGEST or (counts := light_counts(usage, model)) is None:
            return False
        if len(ts) != 24 or ts[23] != "Z" or ts[10] != "T" or ts[19] != "." or ts[7] != "-" or ts[:2] != "20":
            return False
        fromisoformat(ts)  # ValueError if it is not a time
        if message.get("stop_reason", "") is None and is_interrupted(raw, message):
            return False
        if (request := raw.get("requestRef")) in session.requests:
            ts = session.requests[request]
        around, attribution = self.around_counts(raw, usage, model, session)
        seen = self.light.get(name)
        if seen is None:
            # An id such as msg_01AbC; others may be masked, or name a cloud.
            if name in self.full or not name.isidentifier() or name[8:9] == "_" or "REDACTED" in name or model[0] == "<":
                return False
            self.light[name] = (ts, name, counts, around, attribution, "")
            self.fresh[name] = (attribution, raw.get("requestedModel"), raw.get("version"))
            return True
        before, _, most, around_before, owner, _ = seen
        if owner is not attribution or around is not around_before:
            return False
        if counts[-1] < most[-1]:
            if ts < before:
                self.light[name] = (ts, name, most, around, owner, "")
            return True
        if counts[-1] == most[-1] and counts != most:
            return False
        if counts[-1] > most[-1] or ts < before:
            self.light[name] = (min(ts, before), name, counts, around, owner, "")
        return True

    def around_counts(self, raw: Raw, usage: Raw, model: str, session: Session) -> tuple[Frame, Raw]:
        """The frame and the attribution of a line's turn. Most lines say what the line before said.

        All is looked up at once, and without a loop, because every answer comes here.
        """
        get, state = raw.get, usage.get
        stated = (
            session,
            get("sessionId"),
            get("requestSessionId"),
            get("forkedFrom"),
            get("isSidechain"),
            model,
            state("speed"),
            state("service_tier"),
            state("inference_geo"),
            get("gitBranch"),
            get("perTurnEffort"),
            get("effort"),
            get("attributionAgent"),
            get("attributionSkill"),
            get("attributionPlugin"),
            get("attributionMcpServer"),
            get("attributionMcpTool"),
            get("agentId"),
        )
        if stated == self.stated:
            return self.around
        around, attribution = frame(usage, model, "", session.tags(raw)), session.attribution(raw)
        if attribution is session.last[2]:  # else a later line may name the session's directory
            self.stated, self.around = stated, (around, attribution)
        return around, attribution

    def take(self, line: bytearray, location: str, session: Session) -> None:
        """Take in a line of any shape."""

        def on_bad_line(why: str) -> None:
            self.intake.on_bad_line(location, why)

        for raw in jsonl.parse(line, on_bad_line):
            message = raw.get("message")
            try:
                if type(message) is dict and type(message.get("usage")) is dict:
                    if raw.get("type", "assistant") == "assistant":
                        self._take_turn(raw, message, session, line)
                else:
                    self.take_note(raw, line, session)
            except events.BadRecord as error:
                on_bad_line(f"{error}; skipped")

    def _take_turn(self, raw: Raw, message: Raw, session: Session, line: bytearray) -> None:
        try:
            ts = when.canonical(raw["timestamp"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise events.BadRecord(f"timestamp is {jsonl.value_name(raw.get('timestamp'))}; expected a time") from None
        ts = session.beginning(raw, ts)
        usage, model = message["usage"], message.get("model")
        if model == "<synthetic>":
            if (reading := limit_of(raw, message, ts)) is not None:
                self.meters[reading["id"]] = joins.join(self.meters.get(reading["id"], reading), reading)
            return
        if type(model) is not str or not model:
            model = "unknown"
        name = identity(raw, message) or session.content_id(line)
        parts = wire_claude.parts_of(usage, model)
        attribution, tags = session.attribution(raw), session.tags(raw)
        arriving = [
            turn(ts, f"{name}#{n}" if n else name, attribution, usage_block(usage, served, counts, name, tags))
            for n, (served, counts) in enumerate(parts)
        ]
        if was_interrupted := is_interrupted(raw, message):
            arriving[0] |= {"usage": "partial", "usage_reason": "the answer was interrupted"}
        if not (was_interrupted and session.is_in_no_sums(raw)):
            self.fresh[name] = (attribution, raw.get("requestedModel"), raw.get("version"))
        seen = self.full.get(name, [])
        if (light := self.light.pop(name, None)) is not None:
            seen = [read_records.turn_of(light)]
        self.full[name] = join_turns(seen, arriving)

    def light_turns(self) -> list[Light]:
        """The turns of the usual shape, without those that used nothing."""
        return [light for light in self.light.values() if any(light[2])]

    def other_events(self) -> Iterator[events.Event]:
        """The other turns, and the meter readings."""
        for several in self.full.values():
            yield from filter(has_usage, several)
        yield from self.meters.values()


def join_turns(seen: list[events.Event], arriving: list[events.Event]) -> list[events.Event]:
    """The turns of one message, its own model's first, from two sightings of it."""
    both = [joins.join(a, b) for a, b in zip(seen, arriving, strict=False)]
    longer = seen if len(seen) > len(arriving) else arriving
    return both + longer[len(both) :]


def has_usage(event: events.Event) -> bool:
    """Whether anything was used."""
    return any(name in event for name in _USED)


_USED = (*events.TOKENS, "web_searches")


def line_by_line(path: str, intake: Intake) -> Iterator[tuple[str, events.Event]]:
    """Location and event of each line that holds a turn or a limit, without joining copies. Raises OSError."""
    cursor, turns = read_lines.Cursor(), Turns(Intake(intake.options))
    session = Session(path, cursor, intake)
    with open(path, "rb", buffering=0, opener=regular.opener) as file:
        for number, line in read_lines.lines(file, relevant, cursor, turns.buffer):
            turns.take(line, "", session)
            yield from ((f"{path}:{number}", event) for event in turns.other_events())
            turns.full.clear()
            turns.meters.clear()
