"""Undoes content encodings piece by piece: gzip, deflate, and brotli and zstd if they can be had.

What a decoder returns for one piece of input comes in pieces of at most PIECE bytes, however small the input was.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

# Reading so much takes a few milliseconds at most.
PIECE = 64 << 10

Decoder = Callable[[bytes], Iterator[bytes]]


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
        if not self.begun:
            data = self.first = self.first + data
            if len(data) < 3 and b"\x1f\x8b\x08".startswith(data):
                return
            self.begun, self.first = True, b""
            if data.startswith(b"\x1f\x8b\x08"):
                self.inner = Inflate(31)
        if self.inner is not None:
            yield from self.inner(data)
        elif len(data) <= PIECE:
            yield data
        else:
            for at in range(0, len(data), PIECE):
                yield data[at : at + PIECE]


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
