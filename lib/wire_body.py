"""Splits the bytes of an HTTP answer into the objects in it, without sockets or a clock; any split gives the same.

Bodies are read as they pass and are never kept whole: only a line of a stream, a document up to LIMIT, or both ends of
a longer one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from tokenops import jsonl, wire_usage

LIMIT = 8 << 20
_HEAD, _TAIL = 64 << 10, 256 << 10

Decoder = Callable[[bytes], Iterator[bytes]]


class Kept:
    """Some bytes: all of them up to LIMIT, then their beginning and their end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.head = b""
        self.whole = True

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Add more."""
        self.data += data
        if len(self.data) > (LIMIT if self.whole else LIMIT // 4):
            if self.whole:
                self.head, self.whole = bytes(self.data[:_HEAD]), False
            del self.data[:-_TAIL]

    def objects(self) -> Iterator[Any]:
        """The JSON values in what was kept."""
        if not self.whole:
            yield from wire_usage.in_part(self.head, bytes(self.data))
            return
        data = bytes(self.data).strip().removeprefix(jsonl.BOM)
        if not data:
            return
        try:
            yield orjson.loads(data)
        except ValueError:
            if data[:1] == b"[":
                yield from _elements(data)
            else:
                yield from jsonl.objects(data)[0]


def _elements(data: bytes) -> Iterator[Any]:
    """The whole elements of an array that was cut off."""
    text = data[1:].decode(errors="replace")
    at = 0
    while at < len(text):
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            value, at = jsonl.DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value


class Lines:
    """Lines out of pieces; ended by LF, CRLF or a lone CR."""

    def __init__(self) -> None:
        self.rest = Kept()

    def feed(self, data: bytes) -> Iterator[Kept]:
        """The lines that are whole by now, without their ends."""
        if b"\r" in data or self.rest.data.endswith(b"\r"):
            # A CR that comes last may be half of an end: it waits.
            if self.rest.data.endswith(b"\r"):
                del self.rest.data[-1:]
                data = b"\r" + data
            half = b"\r" if data.endswith(b"\r") else b""
            data = data[: len(data) - len(half)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + half
        *whole, rest = data.split(b"\n")
        for part in whole:
            line, self.rest = self.rest, Kept()
            line.add(part)
            yield line
        if rest:
            self.rest.add(rest)


class Sse:
    """Server-sent events; an event's data is parsed only if it could hold usage."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self.take = take
        self.lines = Lines()
        self.data: list[Kept] = []
        self.events = 0

    def feed(self, data: bytes) -> None:
        """Take in more."""
        for line in self.lines.feed(data):
            self._line(line)

    def finish(self) -> None:
        """Take in the end: the last event may lack its blank line."""
        if self.lines.rest.data:
            line, self.lines.rest = self.lines.rest, Kept()
            if line.data.endswith(b"\r"):
                del line.data[-1:]
            self._line(line)
        self._event()

    def _line(self, line: Kept) -> None:
        if not line.data:
            self._event()
        elif line.data.startswith(b"data:") or (not line.whole and line.head.startswith(b"data:")):
            self.data.append(line)

    def _event(self) -> None:
        if not self.data:
            return
        data, self.data = self.data, []
        self.events += 1
        first = data[0]
        if len(data) == 1 and first.whole:
            text = bytes(first.data[5:]).strip()
        elif all(line.whole for line in data):
            text = b"\n".join(bytes(line.data[5:]).strip() for line in data)
        else:
            for value in wire_usage.in_part(first.head, bytes(data[-1].data)):
                self.take(value)
            return
        if self.events > 1 and not wire_usage.TELLING.search(text):
            return
        try:
            self.take(orjson.loads(text))
        except ValueError:
            for value in jsonl.objects(text)[0]:
                self.take(value)


class Ndjson:
    """One object per line."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self.take = take
        self.lines = Lines()
        self.seen = 0

    def feed(self, data: bytes) -> None:
        """Take in more."""
        for line in self.lines.feed(data):
            self._line(line)

    def finish(self) -> None:
        """Take in the end."""
        self._line(self.lines.rest)
        self.lines.rest = Kept()

    def _line(self, line: Kept) -> None:
        if line.data and (not self.seen or not line.whole or wire_usage.TELLING.search(line.data)):
            self.seen += 1
            for value in line.objects():
                self.take(value)


class Document:
    """One JSON value; also several, which some vendors send under the name of one."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self.take = take
        self.kept = Kept()

    def feed(self, data: bytes) -> None:
        """Take in more."""
        self.kept.add(data)

    def finish(self) -> None:
        """Take in the end."""
        for value in self.kept.objects():
            self.take(value)
        self.kept = Kept()


class Nothing:
    """A body without usage: audio, images, pages."""

    def feed(self, data: bytes) -> None:
        """Take in more."""

    def finish(self) -> None:
        """Take in the end."""


Framing = Sse | Ndjson | Document | Nothing


def framing(content_type: str, first: bytes, take: Callable[[Any], None]) -> Framing:
    """How a body is divided: by its declared type or, if that says nothing, by its first bytes."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return Sse(take)
    if kind in _LINES:
        return Ndjson(take)
    if kind == "application/json" or kind.endswith("+json"):
        return Document(take)
    if kind and kind not in ("text/plain", "application/octet-stream", "binary/octet-stream"):
        return Nothing()
    start = first.lstrip(b" \t\r\n\xef\xbb\xbf")
    if start[:1] in (b"{", b"["):
        return Document(take)
    return Sse(take) if _SSE.match(start) else Nothing()


_LINES = (
    "application/x-ndjson",
    "application/ndjson",
    "application/x-jsonl",
    "application/jsonl",
    "application/stream+json",
)
_SSE = re.compile(rb"(?:data|event|id|retry)?:")


class Undecodable(ValueError):
    """A content encoding that cannot be undone here."""


def decoder(encoding: str) -> Decoder:
    """What undoes a Content-Encoding, piece by piece. Raises Undecodable; the pieces raise it too."""
    names = [name.strip().lower() for name in encoding.split(",") if name.strip().lower() not in ("", "identity")]
    if len(names) > 1:
        raise Undecodable(f"encoding {encoding[:40]}")
    name = names[0] if names else ""
    if name in ("gzip", "x-gzip"):
        return Plain()
    if name == "deflate":
        return Inflate(0)
    if name == "br":
        return _brotli()
    if name == "zstd":
        return _zstd()
    if name:
        raise Undecodable(f"encoding {name[:40]}")
    return Plain()


class Plain:
    """gzip, declared or not, and none at all, declared gzip or not: the first bytes are believed, for vendors and
    gateways have been seen to send each under the name of the other."""

    def __init__(self) -> None:
        self.inner: Inflate | None = None
        self.begun = False
        self.first = b""

    def __call__(self, data: bytes) -> Iterator[bytes]:  # noqa: D102
        if self.begun:
            if self.inner is not None:
                yield from self.inner(data)
            else:
                yield data
            return
        self.first += data
        if len(self.first) < 3 and b"\x1f\x8b\x08".startswith(self.first):
            return
        self.begun = True
        if self.first.startswith(b"\x1f\x8b\x08"):
            self.inner = Inflate(31)
            yield from self.inner(self.first)
        else:
            yield self.first


class Inflate:
    """gzip (31) of any number of members, or deflate (0) with or without a zlib head. Gives pieces of bounded size."""

    PIECE = 1 << 20

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.stream = zlib.decompressobj(bits) if bits else None

    def __call__(self, data: bytes) -> Iterator[bytes]:  # noqa: D102
        if self.stream is None:
            if not data:
                return
            self.stream = zlib.decompressobj(15 if data[0] & 15 == 8 else -15)
        while data:
            if self.stream.eof:
                if self.bits != 31 or data[:1] != b"\x1f":
                    return  # what follows the end is padding
                self.stream = zlib.decompressobj(31)
            try:
                yield self.stream.decompress(data, self.PIECE)
            except zlib.error:
                raise Undecodable("damaged compressed data") from None
            data = self.stream.unconsumed_tail or self.stream.unused_data


def _brotli() -> Decoder:
    try:
        import brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise Undecodable("encoding br") from None
    stream = brotli.Decompressor()

    def decode(data: bytes) -> Iterator[bytes]:
        try:
            yield stream.process(data)
        except brotli.error:
            raise Undecodable("damaged compressed data") from None

    return decode


def _zstd() -> Decoder:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        raise Undecodable("encoding zstd") from None
    stream = zstd.ZstdDecompressor()

    def decode(data: bytes) -> Iterator[bytes]:
        try:
            if not stream.eof:
                yield stream.decompress(data)
        except zstd.ZstdError:
            raise Undecodable("damaged compressed data") from None

    return decode


class Body:
    """The body of one answer as it passes. `reading` collects what it says; `reason`: why usage may be missing."""

    def __init__(self, content_type: str, encoding: str, reading: wire_usage.Answer) -> None:
        self.content_type, self.reading = content_type, reading
        self.reason = ""
        self.size = 0
        self.first = b""
        self.framing: Framing | None = None
        self.decode: Decoder | None = None
        try:
            self.decode = decoder(encoding)
        except Undecodable as error:
            self.reason = str(error)

    def feed(self, data: bytes) -> None:
        """Take in bytes as they came. Raises nothing."""
        self.size += len(data)
        if self.decode is None:
            return
        try:
            for piece in self.decode(data):
                self._piece(piece)
        except Undecodable as error:
            self.decode, self.reason = None, str(error)

    def _piece(self, piece: bytes) -> None:
        if self.framing is None:
            self.first += piece
            if not self.first.strip() or (len(self.first) < 8 and not self.first.endswith(b"\n")):
                return
            self._begin()
        else:
            self.framing.feed(piece)

    def _begin(self) -> None:
        self.framing = framing(self.content_type, self.first, self.reading.take)
        first, self.first = self.first, b""
        self.framing.feed(first)

    def finish(self) -> None:
        """The end of the body, whole or not."""
        if self.framing is None and self.first:
            self._begin()
        if self.framing is not None:
            self.framing.finish()
        if not self.reason and not self.reading.usages():
            self.reason = "binary" if isinstance(self.framing, Nothing) else "no usage in the answer"
