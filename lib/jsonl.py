"""Reads and writes lines of JSON.

A bad line is reported to `on_bad_line(place, why)` and skipped; nothing else is lost.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import orjson

from tokenops import light

Record = dict[str, Any]
# Called with the place (file:line) of a line that was skipped, and with the reason.
OnBadLine = Callable[[str, str], None]
BOM = b"\xef\xbb\xbf"

# Between records: blanks, and what a crash or another program left there, the zeros of a lost block or a byte order mark.
_BETWEEN = " \t\r\n\0\ufeff"


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
    surrogate pairs inside strings (clients cut text in the middle of a character; the counts in the same line are good),
    and whole objects behind a torn one: a client that was killed while it wrote left a line without its end.
    """
    text = bytes(line).removeprefix(BOM).strip(b" \t\r\n\0")
    if not text:
        return [], ""
    if why := why_too_long(text):
        return [], why
    chars = text.decode(errors="replace")
    records: list[Record] = []
    at: int | None = 0
    fault = ""
    while at is not None:
        at, why = _take_objects(chars, at, records)
        fault = fault or why
    return records, f"{fault}; skipped" if fault else ""


_TOO_LONG = b"a line of more than "
LONGEST_INPUT = 64 << 20  # of a line of standard input or of an operand; a record has some hundred bytes


def too_long(limit: int) -> bytes:
    """Stands for a line of more than `limit` bytes, which is not kept in memory."""
    return b"%b%d MiB" % (_TOO_LONG, limit >> 20)


def why_too_long(line: bytes) -> str:
    """Why what `too_long` gave is skipped; "" for every other line."""
    return f"{line.decode(errors='replace')}; skipped" if line.startswith(_TOO_LONG) and len(line) < 40 else ""


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream; `too_long` in the place of one above LONGEST_INPUT."""
    read = functools.partial(stream.readline, LONGEST_INPUT)
    for line in iter(read, b""):
        if len(line) < LONGEST_INPUT or line.endswith(b"\n"):
            yield line
            continue
        while (rest := read()) and not rest.endswith(b"\n"):
            pass
        yield too_long(LONGEST_INPUT)


def batches(pieces: Iterable[bytes], name: str) -> Iterator[list[tuple[str, bytes]]]:
    """Locations and whole lines in pieces of a stream, as soon as a piece ends them; bounded as `bounded_lines`."""
    number, size = 0, 0
    begun: list[bytes] = []  # the pieces of a line that has not ended, and their size

    def whole(end: bytes) -> bytes:
        return too_long(LONGEST_INPUT) if size + len(end) > LONGEST_INPUT else b"".join((*begun, end))

    for piece in pieces:
        *lines, end = piece.split(b"\n")
        if lines:
            lines[0] = whole(lines[0])
            yield [(f"{name}:{at}", line) for at, line in enumerate(lines, number + 1)]
            number += len(lines)
            begun, size = [], 0
        size += len(end)
        begun = [*begun, end] if size <= LONGEST_INPUT else []
    if (last := whole(b"")).strip():
        yield [(f"{name}:{number + 1}", last)]


_TO_THE_NEXT = light.pattern(rf"[^{{{_BETWEEN}]{{0,8}}[{_BETWEEN}]*")  # the rest of a torn word, and what follows it
_FIRST_KEY = light.pattern(r'\{"[^"\\]{1,60}"')


def _take_objects(chars: str, at: int, records: list[Record]) -> tuple[int | None, str]:
    """Add the objects from an index on; where to go on behind one that is torn, if anywhere, and why that one is skipped."""
    while at < len(chars):
        try:
            value, end = DECODER.raw_decode(chars, at)
        except json.JSONDecodeError as error:
            return _beginning(chars, at, error.pos), f"not JSON ({_reason(error)}, at byte {at} of {len(chars)})"
        except (ValueError, RecursionError) as error:
            return None, f"not JSON ({_reason(error)}, at byte {at} of {len(chars)})"
        if not isinstance(value, dict):
            return None, f"expected a JSON object, found {type_name(value)}"
        records.append(_in_whole_characters(value) if _HALF in chars or _HALF.upper() in chars else value)
        at = end
        at = _next_text(chars, at)
    return None, ""


def _next_text(chars: str, at: int) -> int:
    while at < len(chars) and chars[at] in _BETWEEN:
        at += 1
    return at


def is_half(line: bytes | bytearray) -> bool:
    """Whether a text is the beginning of an object, which ends before a fault: its writer is not done yet."""
    chars = bytes(line).decode(errors="replace").strip(_BETWEEN)
    try:
        DECODER.raw_decode(chars)
    except json.JSONDecodeError as error:
        return chars.startswith("{") and (error.pos >= len(chars) or error.msg.startswith("Unterminated string"))
    except (ValueError, RecursionError):
        pass
    return False


def _beginning(chars: str, at: int, fault: int) -> int | None:
    """Where a whole object begins behind one that was torn, from the index at which the parser failed; None if nowhere.

    The text of the whole one ends a string, a number or a word of the torn one, or is a fault by itself. If it stands where
    a value may stand, the parser fails behind it: then it must begin with the same key as the torn one.
    """
    key = _FIRST_KEY.match(chars, at)
    near = at
    while key and (near := chars.find(key[0], near + 1, fault)) >= 0:
        with contextlib.suppress(ValueError, RecursionError):
            if DECODER.raw_decode(chars, near)[1] == fault:
                return near
    if not chars.startswith("{", at):
        return None
    stop = _TO_THE_NEXT.match(chars, fault).end() + 8  # type: ignore[union-attr]
    return next((near for near in range(max(fault - 2, at + 1), stop) if chars.startswith('{"', near)), None)


_HALF = "\\ud"  # begins the escape of half a surrogate pair


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


def data_of(value: object) -> bytes:
    """A value as JSON; half of a surrogate pair in a name becomes "?"."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="replace")


def line_of(record: Record) -> bytes:
    """One line of JSON, with its newline."""
    # Adding the newline here copies: what orjson returns keeps its whole buffer, 4 KB for a line of 500 bytes.
    return data_of(record) + b"\n"


def value_text(value: object) -> str:
    """A value as JSON text. Numbers are exact."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def write(records: Iterable[Record], out: BinaryIO) -> None:
    """Write records as lines."""
    for record in records:
        out.write(line_of(record))
