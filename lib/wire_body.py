"""Splits the bytes of an HTTP answer into the objects in it, without sockets or a clock; any split gives the same.

Bodies are looked at as they pass and are never held whole: of a stream one event, of a document up to LIMIT, of a longer
one its two ends. The work is done in slices of a few milliseconds, and a body that unpacks to far more than what came is
given up: whoever feeds a body decides when the next slice is due.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tokenops import events, jsonl, untrusted, wire_decode, wire_usage

LIMIT = 4 << 20
_HEAD, _TAIL = 64 << 10, 256 << 10
# JSON that the strict parser refuses is read by a slower one, up to this size.
_MOST_REPAIRED = 1 << 20
# So many objects are read in one slice.
_SLICE = 32
_MOST_EVENTS = 500  # are searched for counts in one slice
# So many objects may state counts for each id that an answer may have; streams repeat their counts in every event.
_MOST_OBJECTS = 300
TOO_LARGE = wire_decode.TOO_LARGE

Take = Callable[[Any], None]


class Room:
    """The memory that all answers together may take while they are read; threads share it."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take so much of it (or give it back, if negative); whether there was enough."""
        with self.lock:
            if size > self.left:
                return False
            self.left -= size
            return True


MOST_OF_ALL = 32 << 20
_ROOM = Room(MOST_OF_ALL)
_STEP = 256 << 10  # is taken of it at once; what is smaller is not counted


class Kept:
    """Some bytes: all of them up to LIMIT and while there is room for all answers, then their beginning and their end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.head = b""
        self.whole = True
        self.booked = 0  # bytes of the room

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Add more."""
        self.data += data
        size = len(self.data)
        if self.whole:
            if size > self.booked + _STEP and not self._book(size):
                self.head, self.whole = bytes(self.data[:_HEAD]), False
                self._give_back()
                del self.data[:-_TAIL]
        elif size > 2 * _TAIL:
            del self.data[:-_TAIL]

    def _book(self, size: int) -> bool:
        if size > LIMIT or not _ROOM.take(size - self.booked):
            return False
        self.booked = size
        return True

    def _give_back(self) -> None:
        _ROOM.take(-self.booked)
        self.booked = 0

    def __del__(self) -> None:
        if self.booked:
            self._give_back()

    def objects(self, reading: wire_usage.Answer) -> Iterator[Any]:
        """The JSON values in what was kept."""
        if self.whole:
            yield from _values(bytes(self.data), reading)
        else:
            yield from _in_part(self.head, bytes(self.data), reading)


def _in_part(head: bytes, tail: bytes, reading: wire_usage.Answer) -> Iterator[Any]:
    """The usage in the two ends of a value; if there is none, the answer says why it is unknown."""
    values = list(wire_usage.in_part(head, tail))
    if not values:
        reading.skip_part(TOO_LARGE, False)
    yield from values


def _values(data: bytes, reading: wire_usage.Answer) -> Iterator[Any]:
    """The JSON values in some bytes: one, the elements of one array, or several values that were glued together."""
    data = data.strip().removeprefix(jsonl.BOM)
    if not data:
        return
    try:
        value = untrusted.json_value(data)
    except events.BadRecord as error:
        if str(error) == "not JSON" and len(data) <= _MOST_REPAIRED:
            yield from _elements(data) if data[:1] == b"[" else _loose_objects(data)
        elif str(error) == "too many values":  # long vectors, above all: the usage stands behind them
            yield from _in_part(data[:_HEAD], data[-_TAIL:], reading)
        else:
            reading.skip_part(f"an answer is {error}", wire_usage.TELLING.search(data) is not None)
        return
    if type(value) is list:
        yield from value
    else:
        yield value


def _loose_objects(data: bytes) -> Iterator[Any]:
    """The objects in bytes that are not quite JSON."""
    for value in jsonl.objects(data)[0]:
        if not untrusted.is_too_deep(value):
            yield value


_BLANKS = re.compile(r"[ \t\r\n,]*")


def _elements(data: bytes) -> Iterator[Any]:
    """The whole elements of an array that was cut off."""
    text = data[1:].decode(errors="replace")
    at = 0
    while (at := _end_of_blanks(text, at)) < len(text):
        try:
            value, at = jsonl.DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        if not untrusted.is_too_deep(value):
            yield value


def _end_of_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


class Lines:
    """Lines ended by LF, CRLF or a lone CR, as lines that are ended by LF."""

    def __init__(self) -> None:
        self.half = b""  # a CR that came last may be half of an end: it waits

    def __call__(self, data: bytes) -> bytes:
        """The same lines."""
        if self.half or b"\r" in data:
            data = self.half + data
            self.half = b"\r" if data.endswith(b"\r") else b""
            data = data[: len(data) - len(self.half)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data


_DATA = re.compile(rb"^data:[ \t]*(.*)$", re.MULTILINE)


class Sse:
    """Server-sent events; an event's data is parsed only if it could hold usage."""

    def __init__(self, reading: wire_usage.Answer) -> None:
        self.reading = reading
        self.lines = Lines()
        self.rest = Kept()  # of an event that is not whole
        self.events = 0

    def feed(self, data: bytes) -> Iterator[None]:
        """Take in more; stops after each slice of work."""
        data = self.lines(data)
        if rest := self.rest.data:
            # The blank line that ends the event may have begun in the piece before.
            end = 0 if rest.endswith(b"\n") and data.startswith(b"\n") else data.find(b"\n\n")
            if end < 0:
                self.rest.add(data)
                return
            self.rest.add(data[:end])
            data = data[end + 1 :]
            yield from self._end_event()
        last = data.rfind(b"\n\n")
        if last >= 0:
            block, data = data[:last], data[last + 2 :]
            if not self.events or wire_usage.TELLING.search(block):
                for number, event in enumerate(block.split(b"\n\n"), 1):
                    yield from self._event(event)
                    if number % _MOST_EVENTS == 0:
                        yield
        if data := data.lstrip(b"\n"):
            self.rest.add(data)

    def finish(self) -> None:
        """Take in the end: the last event may lack its blank line."""
        for _ in self._end_event():
            pass

    def _end_event(self) -> Iterator[None]:
        rest, self.rest = self.rest, Kept()
        if rest.whole:
            yield from self._event(bytes(rest.data))
        elif _DATA.search(rest.head):
            self.events += 1
            for value in _in_part(rest.head, bytes(rest.data), self.reading):
                self.reading.take(value)

    def _event(self, event: bytes) -> Iterator[None]:
        if self.events and not wire_usage.TELLING.search(event):
            return
        lines = _DATA.findall(event)
        if not lines:
            return
        self.events += 1
        data = lines[0] if len(lines) == 1 else b"\n".join(lines)
        values = _values(data, self.reading)
        yield from _read(_faults(values) if _FAULT.search(event) else values, self.reading)


_FAULT = re.compile(rb"^event:[ \t]*error\s*$", re.MULTILINE)


def _faults(values: Iterator[Any]) -> Iterator[Any]:
    """The data of an event that is named an error, as an object that says so; it may be text."""
    none = True
    for value in values:
        none = False
        telling = isinstance(value, dict) and ("error" in value or value.get("type") == "error")
        yield value if telling else {"error": value or True}
    if none:
        yield {"error": True}


def _read(values: Iterator[Any], reading: wire_usage.Answer) -> Iterator[None]:
    """Take in values; stops after each slice of work."""
    for value in values:
        reading.take(value)
        if reading.taken % _SLICE == 0:
            yield


class Ndjson:
    """One object per line."""

    def __init__(self, reading: wire_usage.Answer) -> None:
        self.reading = reading
        self.lines = Lines()
        self.rest = Kept()
        self.seen = False

    def feed(self, data: bytes) -> Iterator[None]:
        """Take in more; stops after each slice of work."""
        data = self.lines(data)
        last = data.rfind(b"\n")
        if last < 0:
            self.rest.add(data)
            return
        first, _, block = data[: last + 1].partition(b"\n")
        self.rest.add(first)
        yield from self._line(self.rest)
        self.rest = Kept()
        self.rest.add(data[last + 1 :])
        if not self.seen or wire_usage.TELLING.search(block):
            for line in block.split(b"\n"):
                if line and (not self.seen or wire_usage.TELLING.search(line)):
                    self.seen = True
                    yield from _read(_values(line, self.reading), self.reading)

    def finish(self) -> None:
        """Take in the end."""
        for _ in self._line(self.rest):
            pass
        self.rest = Kept()

    def _line(self, line: Kept) -> Iterator[None]:
        if line.data and (not self.seen or not line.whole or wire_usage.TELLING.search(line.data)):
            self.seen = True
            yield from _read(line.objects(self.reading), self.reading)


class Document:
    """One JSON value; also several, which some vendors send under the name of one."""

    def __init__(self, reading: wire_usage.Answer) -> None:
        self.reading = reading
        self.kept = Kept()

    def feed(self, data: bytes) -> Iterator[None]:
        """Take in more."""
        self.kept.add(data)
        return iter(())

    def finish(self) -> None:
        """Take in the end."""
        for value in self.kept.objects(self.reading):
            self.reading.take(value)
        self.kept = Kept()


class Nothing:
    """A body without usage: audio, images, pages."""

    def feed(self, data: bytes) -> Iterator[None]:
        """Take in more."""
        return iter(())

    def finish(self) -> None:
        """Take in the end."""


Framing = Sse | Ndjson | Document | Nothing


def framing(content_type: str, first: bytes, reading: wire_usage.Answer) -> Framing:
    """How a body is divided: by its first bytes, if they can be of one kind only, or by its declared type.

    Gateways send streams under the name of documents and of each other, and documents under that of streams or pages.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith(_BINARY):
        return Nothing()
    start = first.removeprefix(jsonl.BOM).lstrip(b" \t\r\n")
    if _SSE.match(start):
        return Sse(reading)
    if start[:1] in (b"{", b"["):
        return Ndjson(reading) if kind in _LINES and not _SPREAD.match(start) else Document(reading)
    if kind in _LINES:
        return Ndjson(reading)
    if kind == "text/event-stream":
        return Sse(reading)
    return Document(reading) if kind == "application/json" or kind.endswith("+json") else Nothing()


_BINARY = ("audio/", "image/", "video/", "font/", "multipart/")
_SPREAD = re.compile(rb"\[|\{\s*[\r\n]")  # one value over several lines
_LINES = (
    "application/x-ndjson",
    "application/ndjson",
    "application/x-jsonl",
    "application/jsonl",
    "application/stream+json",
)
_SSE = re.compile(rb"(?:data|event|id|retry)?:")


class Body:
    """The body of one answer as it passes. `reading` collects what it says; `reason`: why usage may be missing."""

    def __init__(self, content_type: str, encoding: str, reading: wire_usage.Answer) -> None:
        self.content_type, self.reading = content_type, reading
        self.reason = ""
        self.came = self.unpacked = 0  # bytes
        self.first = b""
        self.framing: Framing | None = None
        self.decode: wire_decode.Decoder | None = None
        try:
            self.decode = wire_decode.decoder(encoding)
        except wire_decode.Undecodable as error:
            self.reason = str(error)

    def give_up(self, reason: str) -> None:
        """Read no more, and keep nothing."""
        self.decode = self.framing = None
        self.first, self.reason = b"", reason

    def feed(self, data: bytes) -> None:
        """Take in bytes as they came, whatever it takes. Raises nothing."""
        for _ in self.slices(data):
            pass

    def slices(self, data: bytes) -> Iterator[None]:
        """Take in bytes as they came, in slices of work; stops between two of them. Raises nothing."""
        self.came += len(data)
        if self.decode is None:
            return
        try:
            for number, piece in enumerate(self.decode(data)):
                if number:
                    yield
                self.unpacked += len(piece)
                if self.unpacked > wire_decode.ALLOWED + wire_decode.MOST_TIMES * self.came:
                    self.give_up(TOO_LARGE)
                    return
                yield from self._piece(piece)
                if self.reading.taken > _MOST_OBJECTS * self.reading.most:
                    self.give_up(TOO_LARGE)
                    return
        except wire_decode.Undecodable as error:
            self.give_up(str(error))

    def _piece(self, piece: bytes) -> Iterator[None]:
        if self.framing is not None:
            return self.framing.feed(piece)
        self.first = (self.first + piece).lstrip()
        if len(self.first) < 8 and not self.first.endswith(b"\n"):
            return iter(())
        return self._begin()

    def _begin(self) -> Iterator[None]:
        self.framing = framing(self.content_type, self.first, self.reading)
        first, self.first = self.first.removeprefix(jsonl.BOM), b""
        return self.framing.feed(first)

    def finish(self) -> None:
        """The end of the body, whole or not."""
        if self.framing is None and self.first:
            for _ in self._begin():
                pass
        if self.framing is not None:
            self.framing.finish()
        if not self.reason and not self.reading.usages():
            binary = isinstance(self.framing, Nothing)
            self.reason = "binary" if binary else self.reading.refused_why or "no usage in the answer"
