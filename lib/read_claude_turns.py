"""Claude Code's transcripts -> events.

A transcript holds one line per content block of a response, each with the usage known so far, and copies of lines of
other sessions (resumed, forked, side questions). One turn is one `message.id`, wherever its copies stand; the join of
`events` decides between them, so the order of files and the number of workers do not matter.

Claude Code writes placeholder input and output counts in many versions (anthropics/claude-code issues 10259 and
28197, 2026): the numbers are given as recorded, never repaired.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import orjson

from tokenops import events, jsonl, price_names, projects, read_lines, when, wire_claude

SOURCE = "claude-code-jsonl"
CLIENT = "claude-code"

Raw = dict[str, Any]
fromisoformat = datetime.fromisoformat

# Written where a log was anonymised; joining on it would merge turns that have nothing in common.
_MASKED = re.compile(r"REDACTED|[\s\[\]<>*]")
# The id says which cloud served a response: msg_bdrk_... Amazon Bedrock, msg_vrtx_... Google Vertex AI.
_CLOUDS = {"msg_bdrk_": "bedrock", "msg_vrtx_": "vertex", "gen-": "openrouter"}


def files(config: str) -> Iterator[str]:
    """The transcripts of a configuration directory, or of its `projects` directory."""
    nested = os.path.join(config, "projects")
    for path in read_lines.walk(nested if os.path.isdir(nested) else config):
        # The journal of a workflow's subagents is no transcript.
        if path.endswith(".jsonl") and not (path.endswith("/journal.jsonl") and "/subagents/" in path):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a transcript."""
    return b'"sessionId"' in head and b'"uuid"' in head and b'"usageMetadata":{' not in head  # which Qwen Code has


def wanted(line: bytearray, at: int, stop: int) -> bool:
    """Whether a line could hold a turn.

    What comes before the first nested brace is at the top level, and quotes inside strings are escaped, so a type or
    role found there is the line's own. Four bytes in five are tool results, which end the test here.
    """
    brace = line.find(b"{", at + 1, stop)
    if brace < 0 or line[brace - 10 : brace + 15] == b'"message":{"role":"user",':
        return False
    kind = line.find(b'"type":"', at, brace)
    if kind >= 0 and line[kind + 8 : kind + 18] != b'assistant"':
        return False
    return line.find(b'_tokens"', brace, stop) >= 0


def without_content(line: bytearray) -> bytearray:
    """The line without its message's content, which is most of it and holds nothing that is counted.

    Cut from `"content":[` to the last `"usage":{`. What is left parses only if both stood in the same object; where
    another `"usage"` lies between, or the message's id does not stand before, nothing is cut.
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
    return line[:start] + line[stop:]


def plain(usage: Raw, model: str) -> tuple[int, ...] | None:
    """The counts of a usage object of the usual shape: five, and nothing else that would be counted apart.

    The order is that of PLAIN. None, KeyError, TypeError or AttributeError where it has another shape.
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
    if sent < 0 or got < 0 or read < 0 or wrote < 0 or long < 0 or usage.get("output_tokens_details") is not None:
        return None
    tools = usage.get("server_tool_use")
    if tools is not None and tools.get("web_search_requests"):
        return None
    listed = usage.get("iterations")
    if listed and not (
        len(listed) == 1
        and listed[0].get("model", model) == model
        and all(listed[0].get(name) == usage[name] for name in _FOUR)
    ):
        return None
    return sent, read, wrote, long, got


PLAIN = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens")
_FOUR = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def identity(raw: Raw, message: Raw) -> str:
    """The first of message id, request id and line uuid that is there and not masked, or ""."""
    for value in (message.get("id"), raw.get("requestId"), raw.get("uuid")):
        if type(value) is str and value and not _MASKED.search(value):
            return value
    return ""


def cloud_head(identifier: str) -> str:
    """The part of an id that says which cloud served it, or ""."""
    return next((prefix for prefix in _CLOUDS if identifier.startswith(prefix)), "")


@functools.cache
def provider_of(model: str, head: str) -> dict[str, Any]:
    """Who bills, from the head of the identity or else from the model's name, which is then said."""
    if head:
        return {"provider": _CLOUDS[head]}
    if model.startswith("claude-"):
        return {"provider": "anthropic"}
    provider = price_names.provider_of(model)
    return {"provider": provider, "provider_inferred": True} if provider else {}


Frame = tuple[Raw, Raw]
_frames: dict[tuple[object, ...], Frame] = {}
_last_frames: dict[str, tuple[object, object, object, Frame]] = {}


def frame(usage: Raw, model: str, head: str = "") -> Frame:
    """What a usage block says before its counts (who, what) and after them (tier, geo); one object for each sort."""
    key = (model, head, usage.get("speed"), usage.get("service_tier"), usage.get("inference_geo"))
    found = _frames.get(key)
    if found is None:
        *_, speed, tier, geo = key
        after: Raw = {}
        if served := "fast" if speed == "fast" else wire_claude.label_of(tier):
            after["tier"] = served
        if place := wire_claude.label_of(geo):
            after["geo"] = place
        found = _frames[key] = ({**provider_of(model, head), "model": model, "turns": 1}, after)
    return found


def usual_frame(usage: Raw, model: str) -> Frame:
    """The frame of a turn that no cloud served; nearly always that of the model's turn before it."""
    speed, tier, geo = usage.get("speed"), usage.get("service_tier"), usage.get("inference_geo")
    last = _last_frames.get(model)
    if last is not None and last[0] == speed and last[1] == tier and last[2] == geo:
        return last[3]
    found = frame(usage, model)
    _last_frames[model] = (speed, tier, geo, found)
    return found


def usage_block(usage: Raw, model: str, counts: dict[str, int], identifier: str) -> events.Event:
    """What a record says of tokens and their price."""
    try:
        before, after = frame(usage, model, cloud_head(identifier))
    except TypeError:
        raise events.Bad("usage.speed, service_tier or inference_geo is no text") from None
    return {**before, **counts, **after}


def turn(ts: str, identifier: str, attribution: Raw, block: events.Event) -> events.Event:
    """A record of kind turn."""
    return events.arranged({"v": events.VERSION, "ts": ts, "kind": "turn", "id": identifier, **attribution, **block})


# "Claude AI usage limit reached|1752345600" (2025), "You've hit your limit · resets Jul 23 at 6pm (Europe/Berlin)" (2026).
_REACHED = re.compile(r"limit reached\|(\d{9,13})\b")
_HIT = re.compile(r"\b(?:hit your|reached your|5-hour|weekly|session|usage|opus|sonnet)\b.{0,40}?\blimit\b", re.IGNORECASE)


def limit_of(raw: Raw, message: Raw, ts: str) -> events.Event | None:
    """A meter reading, where a `<synthetic>` line says that a limit was reached."""
    content = message.get("content")
    text = content if type(content) is str else ""
    if type(content) is list:
        text = " ".join(str(part.get("text", "")) for part in content if type(part) is dict)
    resets: int | None
    if reached := _REACHED.search(text):
        resets = when.epoch(int(reached[1]))
    elif raw.get("isApiErrorMessage") is True and _HIT.search(text[:200]):
        resets = when.clock_time(text[:200], ts)
    else:
        return None
    at = None if resets is None else when.stamp(resets)
    return events.meter(SOURCE, "anthropic", ts, client=CLIENT, resets_at=at, status="rejected")


# A turn of the usual shape: time, id, counts in the order of PLAIN, the frame around them, its attribution block.
Light = tuple[str, str, tuple[int, ...], Frame, Raw]


def expanded(light: Light) -> events.Event:
    """The record of a light turn."""
    ts, name, (sent, read, short, long, got), (before, after), attribution = light
    event: events.Event = {"v": events.VERSION, "ts": ts, "kind": "turn", "id": name, **attribution, **before}
    if sent:
        event["input_tokens"] = sent
    if read:
        event["cache_read_tokens"] = read
    if short:
        event["cache_write_tokens"] = short
    if long:
        event["cache_write_1h_tokens"] = long
    if got:
        event["output_tokens"] = got
    event |= after
    return event


class Transcripts:
    """The turns of many transcripts, joined as they come.

    `light` keeps a turn as its line had it: nearly all copies are other lines of the same message in the same session,
    and dropping one of them costs a comparison. Whatever is less simple moves to `full` and goes through
    `events.join`, with the same result (property test).
    """

    def __init__(self, reject: jsonl.Reject, salt: bytes = b"") -> None:
        self.reject = reject
        self.places = projects.Places(salt)
        self.light: dict[str, Light] = {}
        self.full: dict[str, list[events.Event]] = {}  # id -> the turn, and those of its other models
        self.meters: dict[str, events.Event] = {}
        self.buffer = bytearray(read_lines.BLOCK)

    def read(self, path: str, cursor: read_lines.Cursor) -> None:
        """Take in one file from its cursor on. Raises OSError."""
        session = Session(path, cursor, self.places)
        ordinary, loads = self.ordinary, orjson.loads
        with open(path, "rb", buffering=0) as file:
            for number, line in read_lines.lines(file, wanted, cursor, self.buffer):
                try:
                    if ordinary(loads(without_content(line)), session):
                        continue
                except (ValueError, LookupError, TypeError, AttributeError):
                    pass
                self.take_in(line, f"{path}:{number}", session)

    def ordinary(self, raw: Raw, session: Session) -> bool:
        """Take in a line of the usual shape, if it is one; 99 in 100 are. LookupError and its like mean that it is not."""
        message = raw["message"]
        usage, name, model, ts = message["usage"], message["id"], message["model"], raw["timestamp"]
        if raw["type"] != "assistant" or (counts := plain(usage, model)) is None:
            return False
        if len(ts) != 24 or ts[23] != "Z" or ts[10] != "T" or ts[19] != "." or ts[7] != "-" or not fromisoformat(ts):
            return False
        attribution = session.attribution(raw)
        known = self.light.get(name)
        if known is None:
            # An id such as msg_01AbC; others may be masked, or name a cloud.
            if name in self.full or not name.isidentifier() or name[8:9] == "_" or "REDACTED" in name or model[0] == "<":
                return False
            self.light[name] = (ts, name, counts, usual_frame(usage, model), attribution)
            return True
        before, _, most, around, whose = known
        if whose is not attribution:
            return False
        if counts[-1] < most[-1]:
            if ts < before:
                self.light[name] = (ts, name, most, around, whose)
            return True
        if usual_frame(usage, model) is not around or (counts[-1] == most[-1] and counts != most):
            return False
        if counts[-1] > most[-1] or ts < before:
            self.light[name] = (min(ts, before), name, counts, around, whose)
        return True

    def take_in(self, line: bytearray, place: str, session: Session) -> None:
        """Take in a line of any shape."""

        def say(why: str) -> None:
            self.reject(place, why)

        for raw in jsonl.parsed(line, say):
            message = raw.get("message")
            if type(message) is not dict or type(message.get("usage")) is not dict:
                continue
            if raw.get("type", "assistant") == "assistant":
                try:
                    self._take_turn(raw, message, session, line)
                except events.Bad as error:
                    say(f"{error}; skipped")

    def _take_turn(self, raw: Raw, message: Raw, session: Session, line: bytearray) -> None:
        try:
            ts = when.canonical(raw["timestamp"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise events.Bad(f"timestamp {str(raw.get('timestamp'))[:40]!r} is no time") from None
        usage, model = message["usage"], message.get("model")
        if model == "<synthetic>":
            if (reading := limit_of(raw, message, ts)) is not None:
                known_reading = self.meters.get(reading["id"], reading)
                self.meters[reading["id"]] = events.join(known_reading, reading)
            return
        if type(model) is not str or not model:
            model = "unknown"
        name = identity(raw, message) or session.content_id(line)
        parts = wire_claude.parts_of(usage, model)
        attribution = session.attribution(raw)
        arrived = [
            turn(ts, f"{name}#{n}" if n else name, attribution, usage_block(usage, served, counts, name))
            for n, (served, counts) in enumerate(parts)
        ]
        held = self.full.get(name, [])
        if (known := self.light.pop(name, None)) is not None:
            held = [expanded(known)]
        both = [events.join(a, b) for a, b in zip(held, arrived, strict=False)]
        longer = held if len(held) > len(arrived) else arrived
        self.full[name] = both + longer[len(both) :]

    def turns(self) -> list[Light]:
        """The turns of the usual shape. One that counted nothing is none."""
        return [known for known in self.light.values() if any(known[2])]

    def others(self) -> Iterator[events.Event]:
        """The other turns, and the meter readings."""
        for several in self.full.values():
            yield from filter(counted, several)
        yield from self.meters.values()


def counted(event: events.Event) -> bool:
    """Whether anything was spent."""
    return any(name in event for name in _SPENT)


_SPENT = (*events.TOKENS, "web_searches")


class Session:
    """One transcript: what its lines say of the session they belong to."""

    def __init__(self, path: str, cursor: read_lines.Cursor, places: projects.Places) -> None:
        self.folder = project_folder(path)
        self.stem = os.path.basename(path).removesuffix(".jsonl")
        self.places = places
        # Kept with the cursor: the first working directory of each session, and copies seen of lines without any id.
        self.roots: dict[str, str] = cursor.state.setdefault("roots", {})
        self.copies: dict[str, int] = cursor.state.setdefault("copies", {})
        self.known: dict[tuple[str, bool], Raw] = {}
        self.last: tuple[object, object, Raw] = (self, None, {})

    def attribution(self, raw: Raw) -> Raw:
        """The attribution block of a line; the same object for the same session and chain."""
        session, last = raw.get("sessionId"), self.last
        if session == last[0] and raw.get("isSidechain") is last[1]:
            return last[2]
        return self._attribution(raw)

    def _attribution(self, raw: Raw) -> Raw:
        session, cwd = raw.get("sessionId"), raw.get("cwd")
        if type(session) is not str or not session:
            session = self.stem
        key = (session, raw.get("isSidechain") is True)
        found = self.known.get(key)
        if found is None:
            root = self.roots.get(session, "")
            if not root and type(cwd) is str and cwd:
                # The folder's name is the first working directory with all punctuation made "-".
                root = self.roots[session] = projects.ancestor_encoded(cwd, self.folder) or cwd
            found = self.places.attribution(SOURCE, CLIENT, root, self.folder, session)
            if key[1]:
                found["sidechain"] = True
            if root:  # else a later line may name it
                self.known[key] = found
        if key in self.known:
            self.last = (raw.get("sessionId"), raw.get("isSidechain"), found)
        return found

    def content_id(self, line: bytearray) -> str:
        """An identity for a line without any: its content, and which occurrence of it in this file."""
        name = f"{CLIENT}:{events.digest(bytes(line).decode(errors='replace'))}"
        self.copies[name] = self.copies.get(name, 0) + 1
        return f"{name}:{self.copies[name]}"


def sightings(paths: Iterable[str], identity: str, places: projects.Places) -> Iterator[tuple[str, events.Event, str]]:
    """Place and event of each line that saw a turn. Raises OSError."""
    needle = identity.partition("#")[0].encode()
    for path in paths:
        with open(path, "rb") as file:
            if not identity.startswith(f"{CLIENT}:") and needle not in file.read():
                continue
        cursor = read_lines.Cursor()
        session = Session(path, cursor, places)
        alone = Transcripts(lambda place, why: None)
        with open(path, "rb", buffering=0) as raw:
            for number, line in read_lines.lines(raw, wanted, cursor, alone.buffer):
                alone.take_in(line, "", session)
                yield from ((f"{path}:{number}", event, "") for event in alone.others() if event["id"] == identity)
                alone.full.clear()


def project_folder(path: str) -> str:
    """The name of a transcript's folder below `projects`, or "" where it does not lie there."""
    _, found, rest = path.rpartition("/projects/")
    return rest.partition("/")[0] if found and "/" in rest else ""
