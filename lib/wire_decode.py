"""Undoes content encodings piece by piece: gzip, deflate, and brotli and zstd if they can be had; also several at once.

What a decoder returns for one piece of input comes in pieces of at most PIECE bytes, however small the input was.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

# Reading so much takes a few milliseconds at most.
PIECE = 64 << 10

# What comes out of a decoder: at most so many times what went in, after an allowance. Real answers reach 30 times.
MOST_TIMES, ALLOWED = 100, 1 << 20
TOO_LARGE = "too large to meter"
# Of one answer so many encodings are undone; gateways that compress once more give two.
_MOST_ENCODINGS = 3

Decoder = Callable[[bytes], Iterator[bytes]]


class Undecodable(ValueError):
    """A content encoding that cannot be undone here."""


def decoder(encoding: str) -> Decoder:
    """What undoes a Content-Encoding, piece by piece. Raises Undecodable; the pieces raise it too."""
    names = [name.strip().lower() for name in encoding.split(",") if name.strip().lower() not in ("", "identity")]
    if len(names) > _MOST_ENCODINGS:
        raise Undecodable(f"encoding {encoding[:40]}")
    decode: Decoder = Sniffed(_pieces)
    for name in names:  # the last one was applied last
        decode = Both(Sniffed(_declared_decoder(name)), decode)
    return decode


def _declared_decoder(name: str) -> Decoder:
    if name in ("gzip", "x-gzip"):
        return _pieces  # gzip is seen by its first bytes
    if name == "deflate":
        return Inflate(0)
    if name == "br":
        return _brotli()
    if name == "zstd":
        return _zstd()
    raise Undecodable(f"encoding {name[:40]}")


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), PIECE):
        yield data[at : at + PIECE]


class Sniffed:
    """The declared decoder, unless the first bytes are plainly of another kind: vendors and gateways have been seen to
    send plain text as gzip, and gzip under no name or under another."""

    def __init__(self, declared: Decoder) -> None:
        self.declared = declared
        self.inner: Decoder | None = None
        self.first = b""

    def __call__(self, data: bytes) -> Iterator[bytes]:  # noqa: D102
        if self.inner is None:
            data = self.first = self.first + data
            if len(data) < _FIRST:
                return iter(())
            self.first = b""
            self.inner = self._decoder(data)
        return self.inner(data)

    def _decoder(self, first: bytes) -> Decoder:
        if first.startswith(b"\x1f\x8b\x08"):
            return Inflate(31)
        if first.startswith(b"\x28\xb5\x2f\xfd"):
            return _zstd()
        return _pieces if _TEXT.match(first) else self.declared


# So many bytes are looked at; shorter answers hold no counts.
_FIRST = 8
# No brotli and no deflate that holds anything begins like this.
_TEXT = re.compile(rb'\s*(?:\{\s*"|(?:data|event|id|retry)?:)')


class Both:
    """One decoder behind another. What comes out between them is bounded too, and a slice may give nothing."""

    def __init__(self, outer: Decoder, inner: Decoder) -> None:
        self.outer, self.inner = outer, inner
        self.came = self.between = 0  # bytes

    def __call__(self, data: bytes) -> Iterator[bytes]:  # noqa: D102
        self.came += len(data)
        for piece in self.outer(data):
            self.between += len(piece)
            if self.between > ALLOWED + MOST_TIMES * self.came:
                raise Undecodable(TOO_LARGE)
            inner = self.inner(piece)
            yield next(inner, b"")
            yield from inner


class Inflate:
    """gzip (31) of any number of members, or deflate (0) with or without a zlib head."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.stream = zlib.decompressobj(bits) if bits else None

    def __call__(self, data: bytes) -> Iterator[bytes]:  # noqa: D102
        if not data:
            return
        if self.stream is None:
            self.stream = zlib.decompressobj(15 if data[0] & 15 == 8 else -15)
        full = False
        while data or full:
            if self.stream.eof:
                if self.bits != 31 or data[:1] != b"\x1f":
                    return  # what follows the end is padding
                self.stream = zlib.decompressobj(31)
            try:
                piece = self.stream.decompress(data, PIECE)
            except zlib.error:
                raise Undecodable("damaged compressed data") from None
            yield piece
            full = len(piece) == PIECE  # there may be more, although all input was taken
            data = self.stream.unconsumed_tail or self.stream.unused_data


def _brotli() -> Decoder:
    try:
        import brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise Undecodable("encoding br") from None
    stream = brotli.Decompressor()
    if not hasattr(stream, "can_accept_more_data"):  # before 1.2 the size of the output has no bound
        raise Undecodable("encoding br")

    def decode(data: bytes) -> Iterator[bytes]:
        try:
            piece = stream.process(data, output_buffer_limit=PIECE)
            while piece:
                yield piece
                piece = b"" if stream.can_accept_more_data() else stream.process(b"", output_buffer_limit=PIECE)
        except brotli.error:
            raise Undecodable("damaged compressed data") from None

    return decode


def _zstd() -> Decoder:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        try:
            from backports import zstd  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError:
            raise Undecodable("encoding zstd") from None
    stream = zstd.ZstdDecompressor()

    def decode(data: bytes) -> Iterator[bytes]:
        try:
            while (data or not stream.needs_input) and not stream.eof:
                piece = stream.decompress(data, PIECE)
                data = b""
                if not piece:
                    return
                yield piece
        except zstd.ZstdError:
            raise Undecodable("damaged compressed data") from None

    return decode
