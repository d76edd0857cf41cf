"""Reads and writes lines of JSON.

A bad line is reported to `on_bad_line(place, why)` and skipped; nothing else is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import orjson

Record = dict[str, Any]
# Called with the place (file:line) of a line that was skipped, and with the reason.
OnBadLine = Callable[[str, str], None]
BOM = b"\xef\xbb\xbf"

_SPACE = " \t\r\n"


def ignore_line(location: str, why: str) -> None:
    """Report nothing about a bad line, for callers whose lines another command reports."""


class Records:
    """The JSON objects of a stream of lines; `location` is the file and line of the one given last."""

    def __init__(self, stream: Iterable[bytes], name: str, on_bad_line: OnBadLine) -> None:
        self.stream, self.name, self.on_bad_line = stream, name, on_bad_line
        self.number = 0

    @property
    def location(self) -> str:
        """File and line, for messages."""
        return f"{self.name}:{self.number}"

    def __iter__(self) -> Iterator[Record]:
        loads = orjson.loads
        for line in self.stream:
            self.number += 1
            try:
                record = loads(line)
                if type(record) is dict:
                    yield record
                    continue
            except ValueError:
                pass
            records, why = objects(line)
            yield from records
            if why:
                self.on_bad_line(self.location, why)


def parse(line: bytes | bytearray, say: Callable[[str], None]) -> list[Record]:
    """The JSON objects of a line: one, or several that were glued together. `say` is called with why the rest is skipped."""
    try:
        value = orjson.loads(line)
        if type(value) is dict:
            return [value]
    except ValueError:
        pass
    records, why = objects(line)
    if why:
        say(why)
    return records


def objects(line: bytes | bytearray | memoryview) -> tuple[list[Record], str]:
    """The JSON objects of a line that the strict parser refused, and why the rest of it is skipped ("" if none is).

    Accepted: a byte order mark, blanks, several objects glued together, bytes that are not UTF-8 and halves of
    surrogate pairs inside strings (clients cut text in the middle of a character; the counts in the same line are good).
    """
    text = bytes(line).removeprefix(BOM).strip()
    if not text:
        return [], ""
    chars = text.decode(errors="replace")
    records: list[Record] = []
    at = 0
    while at < len(chars):
        try:
            value, end = DECODER.raw_decode(chars, at)
        except (ValueError, RecursionError) as error:
            return records, f"not JSON ({_reason(error)}, at byte {at} of {len(text)}); skipped"
        if not isinstance(value, dict):
            return records, f"expected a JSON object, found {type_name(value)}; skipped"
        records.append(_in_whole_characters(value) if _HALF in text or _HALF.upper() in text else value)
        at = end
        while at < len(chars) and chars[at] in _SPACE:
            at += 1
    return records, ""


_HALF = b"\\ud"  # begins the escape of half a surrogate pair


def _in_whole_characters(value: Record) -> Record:
    """The object with "?" in the place of each half of a surrogate pair, in names of fields too: no file can hold one."""
    try:
        whole: Record = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    except RecursionError:
        return value
    return whole


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(":")[0]


def type_name(value: object) -> str:
    """The type of a JSON value, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    names: dict[type, str] = {str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def value_name(value: object) -> str:
    """A value for a message: its type, and of a number what may be wrong with it. Never its content."""
    if type(value) in (int, float) and value < 0:  # type: ignore[operator]
        return "a negative number"
    if type(value) is float:
        return "a number with a fraction" if value % 1 else "a number that is too large" if value >= 1 << 53 else "a number"
    return "a number that is too large" if type(value) is int and value >= 1 << 53 else type_name(value)


def line_of(record: Record) -> bytes:
    """One line of JSON, with its newline."""
    try:
        # Adding the newline here copies: what orjson returns keeps its whole buffer, 4 KB for a line of 500 bytes.
        return orjson.dumps(record) + b"\n"
    except TypeError:  # half of a surrogate pair in a name: written as "?"
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"


def value_text(value: object) -> str:
    """A value as JSON text. Numbers are exact."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def write(records: Iterable[Record], out: BinaryIO) -> None:
    """Write records as lines."""
    for record in records:
        out.write(line_of(record))
