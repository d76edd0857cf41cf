"""Folds the record of a turn's context into the line of the turn, and takes it out again.

Both say the same of when and who, so the files of the log say that once: what the context says beside it stands last in the
turn's line, as `"context":{...}`, and there a parent that begins with `:` goes on from the turn's own id up to its last
colon. Whoever reads the log is given two records, to the byte those that were appended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from tokenops import jsonl, light

HEAD = b'{"v":1,"ts":"'
KIND = 47  # where the text of the kind begins
_TURN, _CONTEXT, _ID = b'turn","id":"', b'context","id":"context:', KIND + len(b'turn","id":"')
_FOLDED = b',"context":{'
_PARENT, _NEAR_PARENT, _VERSION = b'"parent":"', b'"parent":":', b',"version":"'
# Fields of the turn that its context has as well: read_context.attribution_of.
_BEFORE = ("source", "revision", "client", "project", "project_id", "machine", "user")
_AFTER = ("session_id", "sidechain")
_VALUE = r'(?:"(?:[^"\\]++|\\.)*+"|[0-9a-z]++)'


def _fields(*names: str) -> str:
    return "".join(f'(?:,"{name}":{_VALUE})?+' for name in names)


_SOURCE, _ACCOUNT, _AGENT = b',"source":"', b',"account":', b',"agent_id":"'
_SESSION, _SIDECHAIN = b',"session_id":"', b',"sidechain":true'
_BLOCK = light.pattern(
    f"{_fields('alias')}({_fields(*_BEFORE)}){_fields('account', 'agent_id', 'workflow_id')}({_fields(*_AFTER)})".encode()
)


def fold(lines: Iterable[bytes]) -> list[bytes]:
    """The lines of a file: each context in its turn's line if that is among them and nothing is lost by it."""
    lines = list(lines)
    contexts = {_name(line, _CONTEXT): line for line in lines if line.startswith(_CONTEXT, KIND)}
    if not contexts:
        return lines
    folded: dict[bytes, bytes] = {}
    for line in lines:
        if not line.startswith(_TURN, KIND):
            continue
        name = _name(line, _TURN)
        if (context := contexts.pop(name, None)) is not None:
            whole = _whole(line, context, name)
            if whole is not None:
                folded[line] = whole
                folded[context] = b""
    return [whole for line in lines if (whole := folded.pop(line, line))]


def _name(line: bytes, head: bytes) -> bytes:
    """The id in a line, as its bytes stand there; of a context that of its turn."""
    begin = KIND + len(head)
    return line[begin : line.find(b'"', begin)]


def _whole(turn: bytes, context: bytes, name: bytes) -> bytes | None:
    """A turn's line with its context in it; None if the two could not be had from that as they are."""
    head = _head(turn, name)
    own, is_there, version = context[len(head) : -2].partition(b',"turn":"%b"' % name)
    if near := name[: name.rfind(b":") + 1]:
        own = own.replace(_PARENT + near, _NEAR_PARENT, 1)
    own = own[1:] + version if own else version[1:]
    whole = b"".join((turn[:-2], _FOLDED, own, b"}}\n"))
    is_same = is_there and turn.endswith(b"}\n") and whole.rfind(_FOLDED) == len(turn) - 2
    return whole if is_same and _context(name, head, own) == context else None


def _head(turn: bytes, name: bytes) -> bytes:
    """What stands first in the line of a turn's context."""
    begin = _ID + len(name) + 1
    first = turn.find(_SOURCE, begin)
    second = turn.find(_AGENT, first)
    third = turn.find(_SESSION, second)
    if -1 in (first, second, third) or b"\\" in turn or turn.find(_ACCOUNT, first, second) >= 0:
        match = _BLOCK.match(turn, begin)
        return b"".join((turn[:KIND], _CONTEXT, name, b'"', *(match.groups() if match else ())))
    end = turn.find(b'"', third + len(_SESSION)) + 1  # nearly all turns: three times as fast
    if turn.startswith(_SIDECHAIN, end):
        end += len(_SIDECHAIN)
    return b"".join((turn[:KIND], _CONTEXT, name, b'"', turn[first:second], turn[third:end]))


def unfold(line: bytes, context: bool = True) -> Sequence[bytes]:
    """The lines of the records that stand in one line of a file: nearly always it, or a turn and its context.

    Without `context` a line of that kind gives none.
    """
    if not line.startswith(HEAD):
        return _unfold_any(line, context) if _FOLDED[1:-2] in line else (line,)
    if not line.startswith(_TURN, KIND):
        return (line,) if context or not line.startswith(_CONTEXT, KIND) else ()
    at = line.rfind(_FOLDED)
    if at < 0:
        return (line,)
    if not line.endswith(b"}}\n"):
        return _unfold_any(line, context)
    if line.rfind(HEAD, 0, at) > 0:  # behind a turn that was torn: the context is not that turn's
        return (line,)
    turn = line[:at] + b"}\n"
    if not context:
        return (turn,)
    name = _name(turn, _TURN)
    return turn, _context(name, _head(turn, name), line[at + len(_FOLDED) : -3])


def _context(name: bytes, head: bytes, own: bytes) -> bytes:
    """The line of a turn's context, from how it begins and what it says beside the turn."""
    at = own.find(_NEAR_PARENT)
    if at >= 0:
        own = b"".join((own[:at], _PARENT, name[: name.rfind(b":") + 1], own[at + len(_NEAR_PARENT) :]))
    end = own.rfind(_VERSION)
    if own.startswith(_VERSION[1:]):
        own, version = b"", b"," + own
    else:
        own, version = (b"," + own, b"") if end < 0 else (b"," + own[:end], own[end:])
    return b"".join((head, own if own != b"," else b"", b',"turn":"', name, b'"', version, b"}\n"))


def _unfold_any(line: bytes, context: bool) -> Sequence[bytes]:
    """As `unfold`, of a line that another program has rearranged."""
    try:
        record: Any = orjson.loads(line)
    except ValueError:
        return (line,)
    if type(record) is not dict:
        return (line,)
    if record.get("kind") == "context" and not context:
        return ()
    turn, *own = unfold_record(record)
    if not own:
        return (line,)
    return (jsonl.line_of(turn), *map(jsonl.line_of, own if context else ()))


def unfold_record(record: jsonl.Record) -> list[jsonl.Record]:
    """The records that stand in one object of a file: nearly always it, or a turn and its context."""
    own = record.get("context")
    if record.get("kind") != "turn" or type(own) is not dict:
        return [record]
    turn = {key: value for key, value in record.items() if key != "context"}
    name = str(turn.get("id"))
    parent = str(own.get("parent", ""))
    if parent.startswith(":"):
        own = {**own, "parent": name[: name.rfind(":") + 1] + parent[1:]}
    shared = {key: turn[key] for key in ("v", "ts", *_BEFORE, *_AFTER) if key in turn}
    return [turn, {**own, **shared, "kind": "context", "id": f"context:{name}", "turn": name}]
