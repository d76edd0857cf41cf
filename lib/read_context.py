"""Measures what enters the context of each turn, for all readers: sizes by cause, and the record of kind `context`.

A size is a number of Unicode code points. Of a text nothing else is kept, and of a tool's call its name; of a shell command
also program and subcommand, if both are in catalog/commands.yaml.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Mapping
from typing import Any

import orjson

from tokenops import events, fields, work
from tokenops.events import Event

Raw = dict[str, Any]
Sizes = dict[str, int]

PROMPT, REPLY, THINKING, SUMMARY, ATTACHMENT, IMAGE = "prompt", "reply", "thinking", "summary", "attachment", "image"
CALL, RESULT, OTHER = "call", "result", "other"
COMPACTION = "compaction"
_MOST_AGENTS = 50  # at work at the same time
# Of one map. The smallest beyond are added to `call other` or `result other`.
MOST_CAUSES, _MOST_BYTES = 40, 3000
_TOOL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,119}\Z")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}\Z")
_KEPT = ("source", "revision", "client", "project", "project_id", *events.OWNER, "session_id", "sidechain")

# An image counts 3 code points for each token that Anthropic's documentation gives it: width x height / 750, at most 1,600
# (https://docs.anthropic.com/en/docs/build-with-claude/vision, read 2026-11-30).
_PIXELS, _MOST_TOKENS, _PER_TOKEN = 750, 1600, 3
# A document such as a PDF is text and pictures, of which its bytes are no measure; one code point for so many bytes.
_DOCUMENT_BYTES = 8


def text_size(value: object) -> int:
    """The size of a text; 0 of what is none."""
    return len(value) if type(value) is str else 0


# All bytes of a character but its first one, and backslashes.
_UNCOUNTED = bytes((*range(0x80, 0xC0), 0x5C))
# An escape of which more than its backslash is no character.
_LONG_ESCAPE = re.compile(rb"\\[\\u]").search


def code_points(text: bytearray) -> int:
    """The code points of the inside of a JSON string, less than 0 if it is not sound.

    Of what is usual, counting bytes takes half the time of parsing.
    """
    if _LONG_ESCAPE(text):
        try:
            return len(orjson.loads(b'"' + text + b'"'))
        except ValueError:
            return -1
    return len(text.translate(None, _UNCOUNTED))


def json_size(value: object) -> int:
    """The size of a value as canonical JSON: sorted keys, no blanks, no escapes that need not be."""
    try:
        data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):  # half characters, or numbers beyond 64 bits
        import json

        return len(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str))
    return len(data) if data.isascii() else len(data.decode())


def leaves_size(value: object) -> int:
    """The size of all texts inside of a value."""
    if type(value) is str:
        return len(value)
    if isinstance(value, dict):
        return sum(map(leaves_size, value.values()))
    return sum(map(leaves_size, value)) if isinstance(value, list) else 0


def image_size(data: object) -> int:
    """The size that an image counts for, from its bytes in base64: by its pixels if they can be read, else the most."""
    width, height = pixels(data) if type(data) is str else (0, 0)
    tokens = min(-(-width * height // _PIXELS), _MOST_TOKENS) or _MOST_TOKENS
    return tokens * _PER_TOKEN


def pixels(data: str) -> tuple[int, int]:
    """Width and height of a PNG, GIF, WebP or JPEG in base64; zeros if they cannot be read."""
    try:
        head = base64.b64decode(data.rpartition("base64,")[2][:65536] if data[:5] == "data:" else data[:65536])
    except ValueError:
        return 0, 0
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head[:4] == b"GIF8":
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head[:4] == b"RIFF" and head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    at = 2
    while head[:2] == b"\xff\xd8" and at + 9 <= len(head) and head[at] == 0xFF:
        if 0xC0 <= head[at + 1] <= 0xCF and head[at + 1] not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return 0, 0


def document_size(data: object) -> int:
    """The size that a document counts for, from its bytes in base64."""
    return len(data) * 3 // 4 // _DOCUMENT_BYTES if type(data) is str else 0


def add(sizes: Sizes, cause: str, size: int) -> None:
    """Add to the size of a cause."""
    if size:
        sizes[cause] = sizes.get(cause, 0) + size


def call_cause(client: str, name: object, arguments: object) -> str:
    """The cause of a tool's call: its name, and of a shell's command program and subcommand."""
    if type(name) is not str:
        return f"{CALL} {OTHER}"
    cause, is_command = _cause_of(client, name)
    if not is_command:
        return cause
    return f"{cause}|{work.command_name(arguments if isinstance(arguments, (dict, str)) else '')}"


def file_cause(client: str, name: object, arguments: object) -> str:
    """The cause of a tool's call with the file that it reads or writes; for what is shown and never stored."""
    cause, _ = _cause_of(client, name if type(name) is str else "")
    if isinstance(arguments, dict):
        for key in ("file_path", "notebook_path", "path"):
            if type(path := arguments.get(key)) is str:
                return f"{cause}|{path}"
    return cause


def program_cause(client: str, name: object, arguments: object) -> str:
    """The cause of a tool's call with the program that it runs, also one that is in no list; never stored."""
    cause = call_cause(client, name, arguments)
    if cause.endswith(f"|{OTHER}") and isinstance(arguments, (dict, str)):
        return f"{cause.removesuffix(OTHER)}{work.program(arguments) or OTHER}"
    return cause


@functools.lru_cache(1024)
def _cause_of(client: str, name: str) -> tuple[str, bool]:
    """The cause of a tool's call, and whether it runs shell commands."""
    cause = f"{CALL} {name if _TOOL.match(name) else OTHER}"
    return cause, work.tools(client).get(name) == "command"


@functools.lru_cache(1024)
def result_cause(cause: str) -> str:
    """The cause of the result of a call."""
    return RESULT + cause[len(CALL) :] if cause.startswith(f"{CALL} ") else f"{RESULT} {OTHER}"


def label(value: object) -> str:
    """A short name of the client's, such as a version or a reason; "" if it is none."""
    return _label(value) if type(value) is str else ""


@functools.lru_cache(256)
def _label(value: str) -> str:
    return value if _LABEL.match(value) else ""


def fit_causes(sizes: Sizes) -> Sizes:
    """Sizes in order of cause, of which the smallest join others if there are too many."""
    if len(sizes) < 2:
        return sizes
    if len(sizes) <= MOST_CAUSES and sum(map(len, sizes)) + 24 * len(sizes) <= _MOST_BYTES:
        return dict(sorted(sizes.items()))
    first = sorted(sizes, key=lambda cause: (-sizes[cause], cause))
    kept: Sizes = {}
    size = 0
    for cause in first:
        size += len(cause) + 24
        if len(kept) >= MOST_CAUSES - 2 or size > _MOST_BYTES - 200:
            verb = cause.partition(" ")[0]
            cause_of_rest = f"{verb} {OTHER}" if verb in (CALL, RESULT) else f"{RESULT} {OTHER}"
            add(kept, cause_of_rest, sizes[cause])
        else:
            add(kept, cause, sizes[cause])
    return dict(sorted(kept.items()))


def attribution_of(turn: Mapping[str, Any]) -> Event:
    """What a context says of who: the turn's block without the names that are made of its others."""
    return {name: turn[name] for name in _KEPT if name in turn}


def record(
    ts: str,
    turn: str,
    attribution: Event,
    parent: str,
    entered: Sizes,
    produced: Sizes,
    chain: str = "",
    happened: str = "",
    miss: str = "",
    version: str = "",
) -> Event:
    """The record of a turn's context. `attribution` is in the order of the record.

    Without a parent, what entered is left out: all of it is the base of the chain.
    """
    event: Event = {"v": events.VERSION, "ts": ts, "kind": "context", "id": fields.fit("id", f"context:{turn}")}
    event |= attribution
    if chain:
        event["chain"] = fields.fit("chain", chain)
    if parent and entered:
        event["entered"] = fit_causes(entered)
    if happened:
        event["event"] = happened
    if miss:
        event["miss"] = miss
    if parent:
        event["parent"] = fields.fit("parent", parent)
    if produced:
        event["produced"] = fit_causes(produced)
    event["turn"] = fields.fit("turn", turn)
    if version:
        event["version"] = version
    return event


class Line:
    """The contexts of a chat, message by message. All that lasts is in `state`, plain data for a cursor.

    A message of the model may come several times, each time fuller. The results of its calls stand beside these, or come
    later by the call's name. A chat may go on from an older message.
    """

    MOST_CALLS, MOST_MARKS = 100, 64  # calls that wait for their results, messages that a chat may go on from

    def __init__(self, state: Raw, client: str) -> None:
        self.state, self.client = state, client

    def add_input(self, cause: str, size: int) -> None:
        """What the model is given with its next message."""
        add(self.state.setdefault("given", {}), cause, size)

    def begin(self, name: str) -> None:
        """A message of the model."""
        state = self.state
        if state.get("name") != name:
            entered = state.pop("given", {})
            for cause, size in state.pop("results", {}).items():
                add(entered, cause, size)
            state.update(name=name, entered=entered, parent=state.pop("turn", "") or state.get("parent", ""))
            state["event"] = state.pop("happened", "")
        state.update(produced={}, results={})

    def add_output(self, cause: str, size: int) -> None:
        """What the message holds."""
        add(self.state["produced"], cause, size)

    def add_call(self, name: object, arguments: object, result: int = 0, identity: str = "") -> None:
        """A call of a tool in the message, and the size of its result, or the name by which that comes later."""
        cause = call_cause(self.client, name, arguments)
        add(self.state["produced"], cause, json_size(arguments))
        add(self.state["results"], result_cause(cause), result)
        if identity:
            _remember(self.state.setdefault("calls", {}), identity, result_cause(cause), self.MOST_CALLS)

    def add_result(self, identity: str, name: object, size: int) -> None:
        """The result of an earlier call of a tool."""
        cause = self.state.get("calls", {}).pop(identity, "") or result_cause(call_cause(self.client, name, ""))
        self.add_input(cause, size)

    def condense(self, size: int) -> None:
        """A summary of some size took the place of what was there."""
        self.state.update(given={}, results={}, happened=COMPACTION)
        self.add_input(SUMMARY, size)

    def mark(self, name: str) -> None:
        """Remember a line after which the chat may go on."""
        if name:
            _remember(self.state.setdefault("marks", {}), name, self.state.get("turn", ""), self.MOST_MARKS)

    def follow(self, name: str) -> None:
        """A line that stands after another. If that is an older one, the chat goes on from there."""
        turn = self.state.get("marks", {}).get(name)
        if turn is not None and turn != self.state.get("turn", ""):
            self.restart(turn)

    def restart(self, turn: str) -> None:
        """Go on from a turn; from nothing without one."""
        self.state.update(turn=turn, parent="", given={}, results={}, calls={})
        self.state.pop("happened", None)

    def record(self, turn: Event, chain: str = "") -> Event:
        """The record of the message's turn."""
        state = self.state
        state["turn"] = turn["id"]
        sizes = state["parent"], state["entered"], state["produced"]
        return record(turn["ts"], turn["id"], attribution_of(turn), *sizes, chain, state.get("event", ""))


def line_of(lines: dict[str, Raw], agent: str, client: str) -> Line:
    """The chat of an agent, of several whose events are in one file. That of the main one, "", is always kept."""
    state = lines.pop(agent, {})
    lines[agent] = state  # the last
    while len(lines) > _MOST_AGENTS:
        del lines[next(name for name in lines if name)]
    return Line(state, client)


def _remember(names: dict[str, str], name: str, value: str, most: int) -> None:
    """Keep a name as the last of the most that are kept."""
    names.pop(name, None)
    names[name] = value
    while len(names) > most:
        del names[next(iter(names))]
