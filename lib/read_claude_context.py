"""Measures what entered the context of each turn of one of Claude Code's transcripts, in the same pass as its turns.

Lines form a tree: each names the line before it (`parentUuid`). The way up from an answer to the answer before it passes
what was sent in between, whatever the order of the file: a rewind goes on from an older line, and subagents have trees of
their own. Results of calls belong to the answer that made the calls, because those of parallel calls are not on one way.

A transcript is read on where reading stopped. Then only the last lines are known; if one names an older line, the file is
read again up to there, so the records do not depend on the pieces in which a file was read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator
from typing import Any

import orjson

from tokenops import read_claude_turns, read_context, read_lines, regular
from tokenops.events import Event
from tokenops.read_context import Sizes

Raw = dict[str, Any]
loads = orjson.loads

KEY = "context"
_LAST = 3  # lines that are known where reading goes on
_LONGEST_UUID = 100
_NOTHING: Sizes = {}
_PARENT, _UUID, _CONTENT = b'{"parentUuid":"', b'"uuid":"', b'"content":"'
# How a line's only result ends before the line's own uuid, if its text comes last.
_TYPE, _ENDS = b'"type":"user",', (b'"}]},', b'","is_error":false}]},')
# Keys of attachments that the model is not given.
_UNSENT = frozenset({"addedNames", "addedTypes", "command", "commandMode", "displayPath", "durationMs", "exitCode"})
_UNSENT |= {"filePath", "filename", "hookEvent", "hookName", "model", "names", "origin", "path", "readdedNames"}
_UNSENT |= {"removedNames", "removedTypes", "source_uuid", "stderr", "stdout", "timestamp", "toolUseID", "type"}
# Attachments that the client keeps for itself.
_KEPT_BACK = frozenset(("hook_non_blocking_error", "batching_reminder_sent", "command_permissions", "dynamic_skill"))
_KEPT_BACK |= {"prompt_snapshot"}  # the system prompt and the tools, once more (Claude Code 2.1.332)

_TAGS = "<system-reminder>\n", "\n</system-reminder>"


class Turn:
    """One answer: where it stands, and the sizes of what entered before it, of what it wrote, and of its calls' results."""

    __slots__ = (
        "calls",
        "chain",
        "entered",
        "event",
        "miss",
        "name",
        "parent",
        "produced",
        "results",
        "root",
        "stated",
        "version",
    )

    def __init__(self, name: str, root: str) -> None:
        self.name, self.root = name, root
        self.parent = self.chain = self.event = self.miss = self.version = ""
        self.stated = ""  # the version, if it is another than the parent's
        self.entered: Sizes = {}
        self.produced: Sizes = {}
        self.results: Sizes = {}
        self.calls: dict[str, str] = {}  # id of a call -> its cause, of calls without a result so far


# The cause of a call, from the client, the tool's name and its input.
CauseOf = Callable[[str, object, object], str]
# Where a line stands: the answer above it, what was sent since, "compaction" if the context was summed up since then, and
# the first line of its tree.
Position = tuple[Turn | None, Sizes, str, str]
_FIELDS = frozenset(("parent", "chain", "event", "miss", "version", "stated", "entered", "produced", "results", "calls"))


class Contexts:
    """The contexts of one transcript, line by line."""

    def __init__(
        self, path: str, cursor: read_lines.Cursor, light: Container[str] = (), cause_of: CauseOf = read_context.call_cause
    ) -> None:
        self.path, self.begin, self.cause_of = path, cursor.offset, cause_of
        self.light = light  # names of turns of the usual shape
        self.turns: dict[str, Turn] = {}
        self.positions: dict[str, Position] = {}
        self.touched: dict[str, Turn] = {}
        self.earlier: Contexts | None = None  # of the lines before the cursor, once they were needed
        self._restore(cursor.state.get(KEY) or {})
        cursor.state[KEY] = self

    def __deepcopy__(self, memo: object) -> Raw:
        """What a copy of the parser's state holds: plain data."""
        return self.state()

    def close(self, cursor: read_lines.Cursor) -> None:
        """Keep with the cursor what the next piece of the file goes on from."""
        if cursor.state.get(KEY) is self:  # else that of before the last line, which has no end yet
            cursor.state[KEY] = self.state()

    def state(self) -> Raw:
        """The last lines and the turns above them, as plain data."""
        last = list(itertools.islice(reversed(self.positions.items()), _LAST))
        turns = {position[0].name: position[0] for _, position in last if position[0] is not None}
        plain = {}
        for name, turn in turns.items():
            fields = {field: value for field in _FIELDS if (value := getattr(turn, field))}
            plain[name] = fields | ({"root": turn.root} if turn.root else {})
        order = [None, *turns.values()]
        lines = [[uuid, order.index(turn), *_without_blanks(rest)] for uuid, (turn, *rest) in last]
        return {"turns": plain, "lines": lines[::-1]}

    def _restore(self, state: Raw) -> None:
        for name, fields in state.get("turns", {}).items():
            turn = self.turns[name] = Turn(name, fields.get("root", ""))
            for field in _FIELDS & fields.keys():
                value = fields[field]
                setattr(turn, field, dict(value) if isinstance(value, dict) else value)
        above = [None, *self.turns.values()]
        for uuid, turn, *rest in state.get("lines", ()):
            sizes, event, root = [*rest, _NOTHING, "", ""][: len(rest)] + [_NOTHING, "", ""][len(rest) :]
            self.positions[uuid] = above[turn], sizes, event, root

    # Bytes: lines that are not parsed as a whole ------------------------------------------------------------------------

    def pass_over(self, line: bytearray, at: int, stop: int) -> None:
        """A line that the model is not given, such as news of a hook: only where it stands matters."""
        uuid = line.rfind(_UUID, at, stop) + 8
        if line.startswith(_PARENT, at) and line[at + 51] == 34 and uuid > 8 and line[uuid + 36] == 34:
            name = line[uuid : uuid + 36].decode(errors="replace")
            if name not in self.positions:
                self.positions[name] = self._above(line[at + 15 : at + 51].decode(errors="replace"))
        elif uuid > 8:
            self.take_line(line[at:stop])

    def take_line(self, line: bytearray) -> None:
        """Take in a line of which nothing else is needed."""
        try:
            raw = loads(line)
        except ValueError:
            return
        if type(raw) is dict:
            self.take(raw)

    def take_result(self, line: bytearray, at: int, spans: tuple[int, int, int, int], call: str) -> None:
        """A call's result. `spans`: where the message, the call's id and the client's own copy begin, and the line's end."""
        message, called, end, stop = spans
        uuid = line.rfind(_UUID, message, end) + 8
        if not line.startswith(_PARENT, at) or line[at + 51] != 34 or uuid <= 8 or line[uuid + 36] != 34:
            self.take_line(line[at:stop])
            return
        name = line[uuid : uuid + 36].decode(errors="replace")
        if name in self.positions:
            return
        above = line[at + 15 : at + 51].decode(errors="replace")
        position = self.positions.get(above) or self._above(above)
        turn, _, event, _ = position
        size = _result_size(line, message, called, uuid - 8) if turn is not None and not event else -1
        if size < 0 or turn is None:
            self.take_line(line[at:stop])
            return
        cause = turn.calls.pop(call, "")
        if size:
            cause = read_context.result_cause(cause)
            turn.results[cause] = turn.results.get(cause, 0) + size
        self.positions[name] = position

    # Lines ----------------------------------------------------------------------------------------------------------------

    def take(self, raw: Raw) -> None:
        """Take in one line."""
        uuid, kind, message = raw.get("uuid"), raw.get("type"), raw.get("message")
        if type(uuid) is not str or len(uuid) > _LONGEST_UUID:
            uuid = ""
        elif uuid in self.positions and not (kind == "assistant" and type(message) is dict and self._is_new(message)):
            return  # a copy
        above = raw.get("parentUuid")
        if type(above) is str:
            position = self.positions.get(above) or self._above(above)
        else:
            position = self._first(raw, uuid)
        if kind == "assistant":
            position = self._answer(raw, message, position) if type(message) is dict else position
        elif kind == "attachment":
            position = self._attachment(raw, position)
        elif kind == "system":
            if raw.get("subtype") == "compact_boundary":
                position = self._compaction(raw, position)
        elif type(message) is dict and message.get("role", "user") == "user":
            position = self._user(raw, message, position)
        if uuid:
            self.positions[uuid] = position

    def _is_new(self, message: Raw) -> bool:
        """Whether a message is of an answer of which nothing was read."""
        return type(message.get("id")) is str and message["id"] not in self.turns

    def _first(self, raw: Raw, uuid: str) -> Position:
        """The position of the first line of a tree. A subagent without an id of its own is known by that line."""
        is_nameless = raw.get("isSidechain") is True and not read_context.label(raw.get("agentId"))
        return None, _NOTHING, "", read_context.label(uuid) if is_nameless else ""

    def _compaction(self, raw: Raw, position: Position) -> Position:
        """The position after the context was summed up: a new tree, which may name the line before it."""
        before = raw.get("logicalParentUuid")
        turn = self._above(before)[0] if type(before) is str else position[0]
        if turn is None and raw.get("isSidechain") is not True:
            last = (above for above, *_ in reversed(self.positions.values()) if above is not None and not above.chain)
            turn = next(last, None)
        return turn, _NOTHING, read_context.COMPACTION, position[3]

    def _above(self, uuid: str) -> Position:
        """The position of the line that another names; that of a first line if the file does not have it."""
        position = self.positions.get(uuid)
        if position is not None:
            return position
        if self.begin and self.earlier is None:
            self.earlier = contexts_before(self.path, self.begin)
        position = self.earlier.positions.get(uuid) if self.earlier else None
        if position is None:
            position = (None, _NOTHING, "", "")
        elif position[0] is not None:
            position = (self.turns.setdefault(position[0].name, position[0]), *position[1:])
        return position

    def _answer(self, raw: Raw, message: Raw, position: Position) -> Position:
        """A line of an answer; a message of the client's own in an answer's form is passed over."""
        name = message.get("id")
        if type(name) is not str or name not in self.light:
            name = read_claude_turns.identity(raw, message)
            if not name or type(message.get("usage")) is not dict or message.get("model") == "<synthetic>":
                return position
        turn = self.turns.get(name)
        if turn is None:
            turn = self.turns[name] = self._new_turn(name, raw, position)
        self.touched[name] = turn
        diagnostics = message.get("diagnostics")
        if type(diagnostics) is dict and type(reason := diagnostics.get("cache_miss_reason")) is dict:
            turn.miss = read_context.label(reason.get("type"))
        content = message.get("content")
        if type(content) is str:
            read_context.add(turn.produced, read_context.REPLY, len(content))
        for part in content if type(content) is list else ():
            if type(part) is dict:
                _add_output(turn, part, self.cause_of)
        return turn, _NOTHING, "", turn.root  # not kept in the turn: there is nobody to collect cycles

    def _new_turn(self, name: str, raw: Raw, position: Position) -> Turn:
        above, sent, event, root = position
        turn = Turn(name, root)
        if raw.get("isSidechain") is True:
            turn.chain = read_context.label(raw.get("agentId")) or root
        turn.version = turn.stated = read_context.label(raw.get("version"))
        if above is not None and above.chain == turn.chain:
            turn.parent, turn.event = above.name, event
            turn.stated = turn.version if turn.version != above.version else ""
            turn.entered = dict(sent)
            for cause, size in above.results.items() if not event else ():
                read_context.add(turn.entered, cause, size)
        return turn

    def _user(self, raw: Raw, message: Raw, position: Position) -> Position:
        content = message.get("content")
        if raw.get("isCompactSummary") is True:
            return position[0], {read_context.SUMMARY: _texts_size(content)}, read_context.COMPACTION, position[3]
        if raw.get("isVisibleInTranscriptOnly") is True:
            return position
        return self._with_content(position, content, read_context.PROMPT)

    def _with_content(self, position: Position, content: object, cause: str) -> Position:
        """The position after what was sent in the user's role: results of tools, images, and texts of a cause."""
        sent: Sizes = {}
        if type(content) is str:
            read_context.add(sent, cause, len(content))
        for part in content if type(content) is list else ():
            if type(part) is str:
                read_context.add(sent, cause, len(part))
            elif type(part) is dict:
                if part.get("type") == "tool_result" or "tool_use_id" in part:
                    self._add_result(position, part, sent)
                else:
                    _add_part(sent, part, cause)
        return _with(position, sent) if sent else position

    def _add_result(self, position: Position, part: Raw, sent: Sizes) -> None:
        """A tool's result: of the answer that made the call; after a compaction, or without that answer, of what is next."""
        turn, _, event, _ = position
        call = part.get("tool_use_id")
        cause = turn.calls.pop(call, "") if turn is not None and type(call) is str else ""
        cause = read_context.result_cause(cause)
        sizes = sent if turn is None or event else turn.results
        content = part.get("content")
        if type(content) is str:
            read_context.add(sizes, cause, len(content))
        for item in content if type(content) is list else ():
            if type(item) is dict:
                _add_part(sizes, item, cause)

    def _attachment(self, raw: Raw, position: Position) -> Position:
        attachment, rendered = raw.get("attachment"), raw.get("rendered")
        kind = attachment.get("type") if type(attachment) is dict else None
        if type(attachment) is not dict or type(kind) is not str or kind in _KEPT_BACK:
            return position
        cause = read_context.PROMPT if kind == "queued_command" else read_context.ATTACHMENT
        sent: Sizes = {}
        if type(rendered) is list:
            _add_rendered(sent, rendered, cause, raw.get("renderedRole") == "system")
        elif kind == "queued_command":
            return self._with_content(position, attachment.get("prompt"), cause)
        else:
            _add_attachment(sent, attachment)
        return _with(position, sent) if sent else position

    def records(self, turns: read_claude_turns.Turns) -> Iterator[Event]:
        """The records of the turns that this reading added to, as far as they are turns of the log."""
        blocks: dict[int, Event] = {}
        for name, turn in self.touched.items():
            light = turns.light.get(name)
            if light is not None:
                ts, block, used = light[0], light[4], any(light[2])
            elif several := turns.full.get(name):
                ts, block, used = several[0]["ts"], several[0], read_claude_turns.has_usage(several[0])
            else:
                continue
            if not used:
                continue
            attribution = blocks.get(id(block))
            if attribution is None:
                attribution = blocks[id(block)] = read_context.attribution_of(block)
            sizes = turn.parent, turn.entered, turn.produced
            yield read_context.record(ts, name, attribution, *sizes, turn.chain, turn.event, turn.miss, turn.stated)


def contexts_before(path: str, stop: float, cause_of: CauseOf = read_context.call_cause) -> Contexts:
    """The contexts of a transcript's lines before an offset. Raises OSError."""
    contexts = Contexts(path, read_lines.Cursor(), cause_of=cause_of)
    with open(path, "rb", opener=regular.opener) as file:
        while file.tell() < stop and (line := file.readline(read_lines.LONGEST_LINE)):
            if b'"uuid"' in line:
                contexts.take_line(bytearray(line))
    return contexts


def _without_blanks(values: list[Any]) -> list[Any]:
    """Values without those at the end that are empty."""
    while values and not values[-1]:
        values = values[:-1]
    return values


def _result_size(line: bytearray, message: int, call: int, stop: int) -> int:
    """The size of a line's only result, from its bytes; less than 0 if it has to be parsed. `stop`: where its uuid is."""
    if line.startswith(_TYPE, stop - 14):
        stop -= 14
    start = line.find(_CONTENT, message, stop) + 11
    end = stop - 5 if line.startswith(_ENDS[0], stop - 5) else stop - 22 if line.startswith(_ENDS[1], stop - 22) else -1
    if start <= call or end < start:
        return -1
    return read_context.code_points(line[start:end])


def _with(position: Position, sent: Sizes) -> Position:
    turn, before, event, root = position
    sizes = dict(before)
    for cause, size in sent.items():
        read_context.add(sizes, cause, size)
    return turn, sizes, event, root


def _add_output(turn: Turn, part: Raw, cause_of: CauseOf) -> None:
    """A part of an answer."""
    kind = part.get("type")
    if kind in ("tool_use", "server_tool_use"):
        cause = cause_of(read_claude_turns.CLIENT, part.get("name"), part.get("input"))
        if type(call := part.get("id")) is str and len(call) <= _LONGEST_UUID:
            turn.calls[call] = cause
        read_context.add(turn.produced, cause, read_context.json_size(part.get("input")))
    elif kind == "text":
        read_context.add(turn.produced, read_context.REPLY, read_context.text_size(part.get("text")))
    elif kind in ("thinking", "redacted_thinking"):
        text = part.get("thinking") or part.get("signature") or part.get("data")
        read_context.add(turn.produced, read_context.THINKING, read_context.text_size(text))
    elif "tool_use_id" in part:  # of a tool that the vendor runs: its result enters with the answer
        cause = read_context.result_cause(turn.calls.pop(str(part["tool_use_id"]), ""))
        read_context.add(turn.results, cause, read_context.leaves_size(part.get("content")))


def _add_part(sizes: Sizes, part: Raw, cause: str) -> None:
    """A part of a message in the user's role, or of a result: text, an image, a document."""
    kind, source = part.get("type"), part.get("source")
    data = source.get("data") if type(source) is dict else None
    if kind == "image":
        read_context.add(sizes, read_context.IMAGE, read_context.image_size(data))
    elif kind == "document":
        is_text = type(source) is dict and source.get("type") == "text"
        size = read_context.text_size(data) if is_text else read_context.document_size(data)
        read_context.add(sizes, read_context.ATTACHMENT, size)
    elif kind == "text":
        read_context.add(sizes, cause, read_context.text_size(part.get("text")))
    else:
        read_context.add(sizes, cause, read_context.leaves_size({key: part[key] for key in part if key != "type"}))


def _add_attachment(sizes: Sizes, value: object) -> None:
    """What the model is given of an attachment: its texts and images, at any depth, without names of the client's own."""
    if type(value) is str:
        read_context.add(sizes, read_context.ATTACHMENT, len(value))
    elif type(value) is list:
        for item in value:
            _add_attachment(sizes, item)
    elif type(value) is dict:
        for key, item in value.items():
            if key in ("base64", "data") and type(item) is str:
                read_context.add(sizes, read_context.IMAGE, read_context.image_size(item))
            elif key not in _UNSENT:
                _add_attachment(sizes, item)


def _add_rendered(sizes: Sizes, rendered: list[object], cause: str, is_system: bool) -> None:
    """An attachment as the model is given it (Claude Code 2.1.332). A message in the system's role has no tags around it."""
    for message in rendered:
        content = message.get("content") if type(message) is dict else None
        if type(content) is str:
            size = len(content.removeprefix(_TAGS[0]).removesuffix(_TAGS[1]) if is_system else content)
            read_context.add(sizes, cause, size)
        for part in content if type(content) is list else ():
            if type(part) is dict:
                _add_part(sizes, part, cause)


def _texts_size(content: object) -> int:
    return read_context.text_size(content) or read_context.leaves_size(
        [part.get("text") for part in content if type(part) is dict] if type(content) is list else []
    )
