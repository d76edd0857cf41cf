"""Edits JSON with comments in one place and leaves the rest of the text as it is.

People edit these files, so comments, trailing commas, the order of keys and all spaces must stay. The text is never
generated from data: a member is inserted, replaced or cut out between two positions, and the result is parsed to check
that nothing else changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

BOM = "\ufeff"  # some editors, PowerShell among them, begin a file with this byte order mark
_DEPTH = 200
# What stands between tokens: blanks, // to the end of the line, /* to */.
_BETWEEN = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_OTHER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")


class Malformed(ValueError):
    """A text that is not JSON: line and column are in the message."""


class Unchangeable(ValueError):
    """A text in which a value cannot be changed without changing something else."""


class Member(NamedTuple):
    """A key and its value; where the key begins."""

    key: str
    start: int
    value: Node


class Node(NamedTuple):
    """A value and its position in the text. Only objects have `members`."""

    start: int
    end: int
    data: Any
    members: tuple[Member, ...] | None = None


def is_empty(text: str) -> bool:
    """Whether a file holds nothing but blanks and a byte order mark."""
    return not text.removeprefix(BOM).strip()


def document(text: str) -> Node:
    """The value of a whole text. Raises Malformed."""
    start = _skip_blanks(text, len(BOM) if text.startswith(BOM) else 0)
    node = _value(text, start, 0)
    end = _skip_blanks(text, node.end)
    if end < len(text):
        raise _error_at(text, end, "text follows the value")
    return node


def _skip_blanks(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _error_at(text: str, at: int, why: str) -> Malformed:
    line = text.count("\n", 0, at) + 1
    return Malformed(f"line {line}, column {at - text.rfind(chr(10), 0, at)}: {why}")


def _value(text: str, at: int, depth: int) -> Node:
    if depth > _DEPTH:
        raise _error_at(text, at, f"nested more than {_DEPTH} deep")
    first = text[at : at + 1]
    if first == "{":
        return _object(text, at, depth)
    if first == "[":
        return _array(text, at, depth)
    match = (_STRING if first == '"' else _OTHER).match(text, at)
    if not match:
        raise _error_at(text, at, "expected a value" if first else "the text ends in the middle of a value")
    return Node(at, match.end(), _plain(text, match))


def _plain(text: str, match: re.Match[str]) -> Any:
    try:
        return json.loads(match[0])
    except ValueError:
        raise _error_at(text, match.start(), "a string with an escape that JSON does not have") from None


def _object(text: str, start: int, depth: int) -> Node:
    members = []
    at = _skip_blanks(text, start + 1)
    while text[at : at + 1] != "}":
        match = _STRING.match(text, at)
        if not match:
            raise _error_at(text, at, "expected a key in double quotes, or }")
        colon = _skip_blanks(text, match.end())
        if text[colon : colon + 1] != ":":
            raise _error_at(text, colon, "expected a colon")
        value = _value(text, _skip_blanks(text, colon + 1), depth + 1)
        members.append(Member(str(_plain(text, match)), at, value))
        at = _next_element(text, value.end, "}")
    return Node(start, at + 1, {member.key: member.value.data for member in members}, tuple(members))


def _array(text: str, start: int, depth: int) -> Node:
    items = []
    at = _skip_blanks(text, start + 1)
    while text[at : at + 1] != "]":
        value = _value(text, at, depth + 1)
        items.append(value.data)
        at = _next_element(text, value.end, "]")
    return Node(start, at + 1, items)


def _next_element(text: str, at: int, closing: str) -> int:
    """Where the next element or the closing bracket begins."""
    at = _skip_blanks(text, at)
    if text[at : at + 1] == ",":
        return _skip_blanks(text, at + 1)
    if text[at : at + 1] != closing:
        raise _error_at(text, at, f"expected a comma or {closing}")
    return at


def locate(node: Node, keys: Sequence[str]) -> tuple[Node, int]:
    """The value at a path of keys, or the last object on the way to it, and how many keys lead there.

    Raises Unchangeable if a value on the way is not an object, or a key appears twice.
    """
    for depth, key in enumerate(keys):
        if node.members is None:
            raise Unchangeable(f"holds no object{' at ' if depth else ''}{'.'.join(keys[:depth])}")
        same = [member for member in node.members if member.key == key]
        if len(same) > 1:
            raise Unchangeable(f"has {'.'.join(keys[: depth + 1])} twice")
        if not same:
            return node, depth
        node = same[0].value
    return node, len(keys)


def set_value(text: str, keys: Sequence[str], value: Any) -> str:
    """The text with the value at a path of keys set, and nothing else changed. Raises Malformed, Unchangeable."""
    if is_empty(text):
        newline = "\r\n" if "\r\n" in text else "\n"
        mark = BOM if text.startswith(BOM) else ""
        return mark + json.dumps(_nest(keys, value), indent=2, ensure_ascii=False).replace("\n", newline) + newline
    root = document(text)
    node, depth = locate(root, keys)
    if depth == len(keys) and node.data == value:
        return text
    if depth == len(keys):
        edited = (
            text[: node.start] + _format_value(text, value, _margin(text, node.start), _unit(text, root)) + text[node.end :]
        )
    elif node.members is None:
        raise Unchangeable(f"holds no object{' at ' if depth else ''}{'.'.join(keys[:depth])}")
    else:
        edited = _insert(text, root, node, keys[depth], _nest(keys[depth + 1 :], value))
    _agree(edited, _with(root.data, keys, value))
    return edited


def _nest(keys: Sequence[str], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _with(data: Any, keys: Sequence[str], value: Any) -> Any:
    if not keys:
        return value
    return {**data, keys[0]: _with(data.get(keys[0], {}), keys[1:], value)}


def _agree(edited: str, expected: Any) -> None:
    """Raise Unchangeable unless a text holds the expected data."""
    try:
        agrees = document(edited).data == expected
    except Malformed:
        agrees = False
    if not agrees:
        raise Unchangeable("cannot be edited without changing something else in it")


def _margin(text: str, at: int) -> str:
    """The indentation of a position's line."""
    blanks = re.compile(r"[ \t]*").match(text, text.rfind("\n", 0, at) + 1)
    return blanks[0] if blanks else ""


def _unit(text: str, root: Node) -> str:
    """By how much the file indents; "" if all is on one line."""
    if "\n" not in text[root.start : root.end]:
        return "" if root.members else "  "
    for member in root.members or ():
        if text[: member.start].rpartition("\n")[2].strip() == "":
            return _margin(text, member.start)[len(_margin(text, root.start)) :] or "  "
    return "  "


def _format_value(text: str, value: Any, margin: str, unit: str) -> str:
    """A value as text in the style of the file."""
    if not unit:
        return json.dumps(value, ensure_ascii=False)
    newline = "\r\n" if "\r\n" in text else "\n"
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", newline + margin)


def _insert(text: str, root: Node, node: Node, key: str, value: Any) -> str:
    """The text with a member at the end of an object."""
    unit = _unit(text, root)
    last = node.members[-1].value.end if node.members else node.start + 1
    closing = node.end - 1
    between = text[last:closing]
    after = last + _end_of_comments(between)  # behind the comments and the comma that follow the last member
    comma = "," if node.members and not _has_comma(between) else ""
    if not unit or (node.members and "\n" not in text[node.start : node.end]):
        blank = " " if node.members else ""
        member = f"{json.dumps(key, ensure_ascii=False)}: {_format_value(text, value, '', '')}"
        return f"{text[:last]}{comma}{text[last:after]}{blank}{member}{text[after:]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    base = _margin(text, closing if "\n" in between else node.start)
    margin = base + unit
    if node.members and text[: node.members[-1].start].rpartition("\n")[2].strip() == "":
        margin = _margin(text, node.members[-1].start)
    member = f"{json.dumps(key, ensure_ascii=False)}: {_format_value(text, value, margin, unit)}"
    rest = text[after:closing] if "\n" in text[after:closing] else newline + base
    return f"{text[:last]}{comma}{text[last:after]}{newline}{margin}{member}{rest}{text[closing:]}"


def _end_of_comments(between: str) -> int:
    """Where the last comment or comma of a stretch ends."""
    end = 0
    for match in re.finditer(rf"{_COMMENT.pattern}|,", between, re.DOTALL):
        end = match.end()
    return end


def _has_comma(between: str) -> bool:
    return "," in _COMMENT.sub("", between)


def remove_value(text: str, keys: Sequence[str], keep: int) -> str:
    """The text without the member at a path of keys, and without objects that this leaves empty, down to `keep` keys.

    Raises Malformed, Unchangeable.
    """
    root = document(text)
    _, depth = locate(root, keys)
    if depth < len(keys):
        return text
    data, cut = root.data, tuple(keys)
    for size in range(len(keys), keep, -1):
        if size < len(keys) and len(locate(root, keys[:size])[0].data) > 1:
            break
        cut = tuple(keys[:size])
    parent, _ = locate(root, cut[:-1])
    edited = _cut_out(text, parent, cut[-1])
    _agree(edited, _remove_key(data, cut))
    return edited


def _remove_key(data: Any, keys: Sequence[str]) -> Any:
    if len(keys) == 1:
        return {key: value for key, value in data.items() if key != keys[0]}
    return {key: _remove_key(value, keys[1:]) if key == keys[0] else value for key, value in data.items()}


def _cut_out(text: str, parent: Node, key: str) -> str:
    members = parent.members or ()
    number = next(n for n, other in enumerate(members) if other.key == key)
    member = members[number]
    end = _skip_blanks(text, member.value.end)
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
    return next(match.start() for match in re.finditer(rf"{_COMMENT.pattern}|,", between, re.DOTALL) if match[0] == ",")


def mask_strings(text: str, keys: Sequence[str], mask: str = "***") -> str:
    """The text to show: comments and string values hidden, except below a path of keys. Raises Malformed."""
    root = document(text)
    try:
        node, depth = locate(root, keys)
    except Unchangeable:
        node, depth = root, 0
    shown = range(node.start, node.end) if depth == len(keys) else range(0)
    pieces, at = [], 0
    for match in re.finditer(rf"{_COMMENT.pattern}|{_STRING.pattern}", text, re.DOTALL):
        hidden = match[0]
        if match.start() in shown:
            continue
        if not hidden.startswith('"'):
            hidden = f"// {mask}" if hidden.startswith("//") else f"/* {mask} */"
        elif text[_skip_blanks(text, match.end()) :][:1] != ":":
            hidden = f'"{mask}"'
        pieces += [text[at : match.start()], hidden]
        at = match.end()
    return "".join([*pieces, text[at:]])
