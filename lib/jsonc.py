"""JSON with comments, changed in one place and left alone everywhere else.

Hosts keep their settings in files that people edit: comments, trailing commas, the order of keys and every blank are
theirs. So the text is never written anew from data: a member is inserted, replaced or cut out between two positions, and
the result is parsed again and must be what was wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_DEPTH = 200
# What stands between tokens: blanks, // to the end of the line, /* to */.
_BETWEEN = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_OTHER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")


class Malformed(ValueError):
    """A text that is no JSON: line and column are in the message."""


class Unchangeable(ValueError):
    """A text in which a place cannot be changed without losing something."""


class Member(NamedTuple):
    """A key and its value; where the key begins."""

    key: str
    start: int
    value: Node


class Node(NamedTuple):
    """A value and the text it takes up. `members` of an object only."""

    start: int
    end: int
    data: Any
    members: tuple[Member, ...] | None = None


def document(text: str) -> Node:
    """The value that a text holds. Raises Malformed."""
    start = _skipped(text, 0)
    node = _value(text, start, 0)
    end = _skipped(text, node.end)
    if end < len(text):
        raise _malformed(text, end, "something follows the value")
    return node


def _skipped(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _malformed(text: str, at: int, why: str) -> Malformed:
    line = text.count("\n", 0, at) + 1
    return Malformed(f"line {line}, column {at - text.rfind(chr(10), 0, at)}: {why}")


def _value(text: str, at: int, depth: int) -> Node:
    if depth > _DEPTH:
        raise _malformed(text, at, f"nested more than {_DEPTH} deep")
    first = text[at : at + 1]
    if first == "{":
        return _object(text, at, depth)
    if first == "[":
        return _array(text, at, depth)
    found = (_STRING if first == '"' else _OTHER).match(text, at)
    if not found:
        raise _malformed(text, at, "expected a value" if first else "the text ends in the middle of a value")
    return Node(at, found.end(), _plain(text, found))


def _plain(text: str, found: re.Match[str]) -> Any:
    try:
        return json.loads(found[0])
    except ValueError:
        raise _malformed(text, found.start(), "a string with an escape that JSON does not have") from None


def _object(text: str, start: int, depth: int) -> Node:
    members = []
    at = _skipped(text, start + 1)
    while text[at : at + 1] != "}":
        found = _STRING.match(text, at)
        if not found:
            raise _malformed(text, at, "expected a key in double quotes, or }")
        colon = _skipped(text, found.end())
        if text[colon : colon + 1] != ":":
            raise _malformed(text, colon, "expected a colon")
        value = _value(text, _skipped(text, colon + 1), depth + 1)
        members.append(Member(str(_plain(text, found)), at, value))
        at = _separated(text, value.end, "}")
    return Node(start, at + 1, {one.key: one.value.data for one in members}, tuple(members))


def _array(text: str, start: int, depth: int) -> Node:
    items = []
    at = _skipped(text, start + 1)
    while text[at : at + 1] != "]":
        value = _value(text, at, depth + 1)
        items.append(value.data)
        at = _separated(text, value.end, "]")
    return Node(start, at + 1, items)


def _separated(text: str, at: int, closing: str) -> int:
    """Where the next element or the closing bracket begins."""
    at = _skipped(text, at)
    if text[at : at + 1] == ",":
        return _skipped(text, at + 1)
    if text[at : at + 1] != closing:
        raise _malformed(text, at, f"expected a comma or {closing}")
    return at


def locate(node: Node, place: Sequence[str]) -> tuple[Node, int]:
    """The value at a place, or the last object on the way to it, and how many keys of the place lead there.

    Raises Unchangeable where the way leads through something that is no object, or a key stands twice.
    """
    for depth, key in enumerate(place):
        if node.members is None:
            raise Unchangeable(f"holds no object{' at ' if depth else ''}{'.'.join(place[:depth])}")
        same = [one for one in node.members if one.key == key]
        if len(same) > 1:
            raise Unchangeable(f"has {'.'.join(place[: depth + 1])} twice")
        if not same:
            return node, depth
        node = same[0].value
    return node, len(place)


def set_value(text: str, place: Sequence[str], value: Any) -> str:
    """The text with the value set at a place, and nothing else changed. Raises Malformed, Unchangeable."""
    if not text.strip():
        newline = "\r\n" if "\r\n" in text else "\n"
        return json.dumps(_nested(place, value), indent=2, ensure_ascii=False).replace("\n", newline) + newline
    root = document(text)
    node, depth = locate(root, place)
    if depth == len(place) and node.data == value:
        return text
    if depth == len(place):
        made = text[: node.start] + _written(text, value, _margin(text, node.start), _unit(text, root)) + text[node.end :]
    elif node.members is None:
        raise Unchangeable(f"holds no object{' at ' if depth else ''}{'.'.join(place[:depth])}")
    else:
        made = _inserted(text, root, node, place[depth], _nested(place[depth + 1 :], value))
    _agree(made, _with(root.data, place, value))
    return made


def _nested(place: Sequence[str], value: Any) -> Any:
    for key in reversed(place):
        value = {key: value}
    return value


def _with(data: Any, place: Sequence[str], value: Any) -> Any:
    if not place:
        return value
    return {**data, place[0]: _with(data.get(place[0], {}), place[1:], value)}


def _agree(made: str, wanted: Any) -> None:
    """Raises Unchangeable unless a text says what it should."""
    try:
        agrees = document(made).data == wanted
    except Malformed:
        agrees = False
    if not agrees:
        raise Unchangeable("cannot be changed without losing what else is in it")


def _margin(text: str, at: int) -> str:
    """The blanks at the beginning of a position's line."""
    found = re.compile(r"[ \t]*").match(text, text.rfind("\n", 0, at) + 1)
    return found[0] if found else ""


def _unit(text: str, root: Node) -> str:
    """By how much the file indents; "" where all stands in one line."""
    if "\n" not in text[root.start : root.end]:
        return "" if root.members else "  "
    for member in root.members or ():
        if text[: member.start].rpartition("\n")[2].strip() == "":
            return _margin(text, member.start)[len(_margin(text, root.start)) :] or "  "
    return "  "


def _written(text: str, value: Any, margin: str, unit: str) -> str:
    """A value as text in the manner of the file."""
    if not unit:
        return json.dumps(value, ensure_ascii=False)
    newline = "\r\n" if "\r\n" in text else "\n"
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", newline + margin)


def _inserted(text: str, root: Node, node: Node, key: str, value: Any) -> str:
    """The text with a member at the end of an object."""
    unit = _unit(text, root)
    last = node.members[-1].value.end if node.members else node.start + 1
    closing = node.end - 1
    between = text[last:closing]
    after = last + _told(between)  # behind the comments and the comma that follow the last member
    comma = "," if node.members and not _has_comma(between) else ""
    if not unit or (node.members and "\n" not in text[node.start : node.end]):
        blank = " " if node.members else ""
        member = f"{json.dumps(key, ensure_ascii=False)}: {_written(text, value, '', '')}"
        return f"{text[:last]}{comma}{text[last:after]}{blank}{member}{text[after:]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    base = _margin(text, closing if "\n" in between else node.start)
    margin = base + unit
    if node.members and text[: node.members[-1].start].rpartition("\n")[2].strip() == "":
        margin = _margin(text, node.members[-1].start)
    member = f"{json.dumps(key, ensure_ascii=False)}: {_written(text, value, margin, unit)}"
    rest = text[after:closing] if "\n" in text[after:closing] else newline + base
    return f"{text[:last]}{comma}{text[last:after]}{newline}{margin}{member}{rest}{text[closing:]}"


def _told(between: str) -> int:
    """Where the last comment or comma of a stretch ends."""
    end = 0
    for found in re.finditer(rf"{_COMMENT.pattern}|,", between, re.DOTALL):
        end = found.end()
    return end


def _has_comma(between: str) -> bool:
    return "," in _COMMENT.sub("", between)


def remove_value(text: str, place: Sequence[str], keep: int) -> str:
    """The text without the member at a place, and without the objects above it that this leaves empty, down to `keep` keys.

    Raises Malformed, Unchangeable.
    """
    root = document(text)
    _, depth = locate(root, place)
    if depth < len(place):
        return text
    wanted, cut = root.data, tuple(place)
    for size in range(len(place), keep, -1):
        if size < len(place) and len(locate(root, place[:size])[0].data) > 1:
            break
        cut = tuple(place[:size])
    parent, _ = locate(root, cut[:-1])
    made = _removed(text, parent, cut[-1])
    _agree(made, _taken(wanted, cut))
    return made


def _taken(data: Any, place: Sequence[str]) -> Any:
    if len(place) == 1:
        return {key: value for key, value in data.items() if key != place[0]}
    return {key: _taken(value, place[1:]) if key == place[0] else value for key, value in data.items()}


def _removed(text: str, parent: Node, key: str) -> str:
    members = parent.members or ()
    number = next(n for n, one in enumerate(members) if one.key == key)
    member = members[number]
    end = _skipped(text, member.value.end)
    if text[end : end + 1] == ",":  # its own comma goes with it
        end += 1
    else:
        end = member.value.end
        if number:  # it was the last: the comma before it goes
            before = members[number - 1].value.end
            at = before + _comma_at(text[before : member.start])
            text = text[:at] + text[at + 1 :]
            member, end = member._replace(start=member.start - 1), end - 1
    start = len(text[: member.start].rstrip(" \t\r\n"))
    if number == 0 and len(members) > 1:  # the blanks before the first member now stand before the second
        return text[: member.start] + text[end:].lstrip(" \t\r\n")
    if len(members) == 1 and not _COMMENT.search(text[parent.start + 1 : member.start] + text[end : parent.end - 2]):
        return text[: parent.start + 1] + text[end:].lstrip(" \t\r\n")
    return text[:start] + text[end:]


def _comma_at(between: str) -> int:
    """Where the comma of a stretch stands, outside of comments."""
    return next(found.start() for found in re.finditer(rf"{_COMMENT.pattern}|,", between, re.DOTALL) if found[0] == ",")


def mask_strings(text: str, place: Sequence[str], mask: str = "***") -> str:
    """The text with comments and all strings that are values hidden, but those at a place. For showing; raises Malformed."""
    root = document(text)
    try:
        node, depth = locate(root, place)
    except Unchangeable:
        node, depth = root, 0
    shown = range(node.start, node.end) if depth == len(place) else range(0)
    pieces, at = [], 0
    for found in re.finditer(rf"{_COMMENT.pattern}|{_STRING.pattern}", text, re.DOTALL):
        hidden = found[0]
        if found.start() in shown:
            continue
        if not hidden.startswith('"'):
            hidden = f"// {mask}" if hidden.startswith("//") else f"/* {mask} */"
        elif text[_skipped(text, found.end()) :][:1] != ":":
            hidden = f'"{mask}"'
        pieces += [text[at : found.start()], hidden]
        at = found.end()
    return "".join([*pieces, text[at:]])
