"""Unpacks zstd files piece by piece: with Python 3.14, with the extra `zstd`, or with the program zstd.

A file of a few bytes may unpack to any size, so no more than some MiB are unpacked at once, and the whole and each line
have a limit.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import IO, Any

from tokenops import events, programs, regular

SUFFIX = ".zst"
ADVICE = "install zstd (the program, Python 3.14, or pip install 'tokenops[zstd]')"
MOST = 8 << 30  # of a whole file, unpacked
MOST_LINE = 256 << 20
_PIECE = 1 << 20
# The package zstandard unpacks all it is given; four bytes may become 128 KiB.
_SIP = 1 << 10
_DAMAGED = "cannot be unpacked (damaged, or not a zstd file); skipped"


def can_unpack() -> bool:
    """Whether compressed files can be read here."""
    return _module() is not None or _program() != ""


def _module() -> Any:
    """A module that unpacks zstd, if there is one."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        try:
            from backports import zstd  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError:
            try:
                import zstandard as zstd  # type: ignore[import-not-found,no-redef,unused-ignore]
            except ImportError:
                return None
    return zstd


def _program() -> str:
    return programs.path_of("zstd", os.environ.get("PATH"))


def pieces(path: str) -> Iterator[bytes]:
    """The bytes in a zstd file. Raises OSError, and BadRecord if it is damaged or too large, at the latest at its end."""
    with open(path, "rb", opener=regular.opener) as file:
        yield from _pieces_of(file)


def unpack(data: bytes, most: int) -> bytes:
    """What is in the bytes of a zstd file. Raises OSError, and BadRecord if they are damaged or hold more than `most`."""
    import tempfile  # the program reads a file, which has no name

    parts, size = [], 0
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        for piece in _pieces_of(file):
            parts.append(piece)
            size += len(piece)
            if size > most:
                raise events.BadRecord(f"unpacks to more than {most >> 20} MiB; skipped")
    return b"".join(parts)


def _pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    module = _module()
    size = line = 0
    for piece in _by_program(file) if module is None else _by_module(file, module):
        size += len(piece)
        last = piece.rfind(b"\n") + 1
        line = len(piece) - last if last else line + len(piece)
        if size > MOST or line > MOST_LINE:
            raise events.BadRecord(f"unpacks to more than {MOST >> 30} GiB, or a line of it does; skipped")
        yield piece


def _by_program(file: IO[bytes]) -> Iterator[bytes]:
    import errno
    import subprocess  # costs 10 ms at start

    if not _program():
        raise FileNotFoundError(errno.ENOENT, "no absolute entry of PATH leads to zstd", str(file.name))

    with subprocess.Popen([_program(), "-dcq"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as to:
        try:
            while to.stdout and (piece := to.stdout.read1(_PIECE)):  # type: ignore[attr-defined]
                yield piece
        except GeneratorExit:
            to.kill()
            raise
    if to.returncode:
        raise events.BadRecord(_DAMAGED)


def _by_module(file: IO[bytes], module: Any) -> Iterator[bytes]:
    """With the interface of Python 3.14, or with that of zstandard, which cannot limit what it gives."""
    limited = not hasattr(module, "ZstdDecompressionReader")

    def new() -> Any:
        return module.ZstdDecompressor() if limited else module.ZstdDecompressor().decompressobj()

    stream, is_whole = new(), False
    data = b""
    while data or (data := file.read(_SIP)):
        if is_whole:
            stream = new()  # a file may be several frames
        try:
            piece = stream.decompress(data, _PIECE) if limited else stream.decompress(data)
            yield piece
            while limited and not stream.eof and not stream.needs_input:
                yield stream.decompress(b"", _PIECE)
        except module.ZstdError:
            raise events.BadRecord(_DAMAGED) from None
        is_whole = stream.eof
        data = stream.unused_data if is_whole else b""
    if not is_whole:
        raise events.BadRecord(_DAMAGED)


class Unpacked(io.RawIOBase):
    """A zstd file as a file of what is in it, to be read once from its beginning."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.pieces, self.rest = pieces(path), b""

    def readable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Only to where it is: the beginning. Raises OSError."""
        if offset or whence:
            raise io.UnsupportedOperation("a compressed file is read from its beginning")
        return 0

    def readinto(self, buffer: Any, /) -> int:
        """The next bytes. Raises OSError, BadRecord."""
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.rest = piece
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size

    def close(self) -> None:
        """Stop unpacking."""
        self.pieces.close()  # type: ignore[attr-defined]
        super().close()


def lines(path: str) -> Iterator[bytes]:
    """The lines in a zstd file. Raises OSError, BadRecord."""
    with io.BufferedReader(Unpacked(path), _PIECE) as file:
        yield from file
