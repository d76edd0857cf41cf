"""Takes files out of a tar stream that another machine sends: only those that were asked for, and nothing but files.

A link, a device, a path that leads elsewhere, a second file of a name, a sparse file and one that is too large are passed
over with a sentence. No more is kept in memory than a block and a name. The format is POSIX.1-1988 (ustar) with the long
names of POSIX.1-2001 (pax) and of GNU tar: https://www.gnu.org/software/tar/manual/html_node/Standard.html (2026-12-01).
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

_BLOCK = 512
_PIECE = 1 << 18
_MOST_NAME = 1 << 16  # of the headers that hold a long name
_MOST_REFUSALS = 200
_FILE, _LONG_NAME, _LONG_LINK, _PAX, _PAX_ALL = (b"0", b"7", b"\0"), b"L", b"K", b"x", b"g"
_KINDS = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a pipe",
    b"S": "a sparse file",
}

OnRefusal = Callable[[str, str], None]  # the name of a member, and why it is not taken


class Broken(ValueError):
    """The stream cannot be read further: a sentence that says why."""


class Member:
    """One file of the stream: its name, its size, and its bytes, which are read in order."""

    def __init__(self, stream: IO[bytes], name: str, size: int) -> None:
        self.name, self.size = name, size
        self._stream, self._left = stream, size

    def stream(self) -> io.BufferedReader:
        """What has not been read yet, as a file for reading."""
        return io.BufferedReader(_Raw(self.pieces()), _PIECE)

    def pieces(self) -> Iterator[bytes]:
        """What has not been read yet. Raises Broken."""
        while self._left:
            piece = self._stream.read(min(self._left, _PIECE))
            if not piece:
                raise Broken("it ended in the middle of a file")
            self._left -= len(piece)
            yield piece


class _Raw(io.RawIOBase):
    """Pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with the next bytes. Raises Broken."""
        self._rest = self._rest or next(self._pieces, b"")
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def members(stream: IO[bytes], most: Mapping[str, int], on_refusal: OnRefusal) -> Iterator[Member]:
    """The files of a stream that were asked for, each once. Raises Broken.

    `most`: the names that were asked for, and how many bytes each may have.
    """
    seen: set[str] = set()
    refusals = 0
    for member, kind, fault in _entries(stream):
        why = fault or _fault_of(member, kind, most, seen)
        if why:
            refusals += 1
            if refusals > _MOST_REFUSALS:
                raise Broken("it holds too much that was not asked for")
            on_refusal(member.name, why)
        else:
            seen.add(member.name)
            yield member
        for _ in member.pieces():
            pass
        _skip(stream, -member.size % _BLOCK)


def _fault_of(member: Member, kind: bytes, most: Mapping[str, int], seen: set[str]) -> str:
    """Why a member is not taken, as a sentence; "" if it is."""
    name = member.name
    if name.startswith("/"):
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path that leads out of the home directory"
    if kind not in _FILE:
        return f"{_KINDS.get(kind, 'not a file')}, expected a file"
    if name in seen:
        return "a second file of this name"
    if name not in most:
        return "it was not asked for"
    return f"larger than {most[name]:,} bytes" if member.size > most[name] else ""


def _entries(stream: IO[bytes]) -> Iterator[tuple[Member, bytes, str]]:
    """Each member, its kind, and a fault of its headers. The caller reads a member to its end and past its padding."""
    name, size, fault = "", -1, ""
    while (block := _read(stream, _BLOCK, "without its end")) != bytes(_BLOCK):
        kind, length = block[156:157], _number(block[124:136])
        if _checksum(block) != _number(block[148:156]):
            raise Broken("it is not a tar archive, or damaged")
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_ALL):
            if length > _MOST_NAME:
                raise Broken("a header of it is too large")
            data = _read(stream, length, "in a header")
            _skip(stream, -length % _BLOCK)
            if kind == _LONG_NAME:
                name = _text(data.partition(b"\0")[0])
            elif kind == _PAX:
                fields = _pax(data)
                name = _text(fields.get(b"path", b"")) or name
                size = _whole(fields[b"size"]) if b"size" in fields else size
                fault = "a sparse file, expected a file" if any(key.startswith(b"GNU.sparse") for key in fields) else fault
            continue
        yield Member(stream, _clean(name or _name(block)), length if size < 0 else size), kind, fault
        name, size, fault = "", -1, ""


def _name(block: bytes) -> str:
    """The name in a header; ustar splits a long one."""
    name, prefix = block[:100].partition(b"\0")[0], block[345:500].partition(b"\0")[0]
    return _text(prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name)


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _clean(name: str) -> str:
    """A name without `./`, if it is one that was asked for."""
    return posixpath.normpath(name) if name and ".." not in name.split("/") and not name.startswith("/") else name


def _number(field: bytes) -> int:
    """A number of a header. Raises Broken, also for one above eight gigabytes, which is written otherwise."""
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise Broken("a file of it is too large, or it is damaged")
    return int(digits, 8)


def _whole(value: bytes) -> int:
    if not value.isdigit() or len(value) > 15:
        raise Broken("a header of it is damaged")
    return int(value)


def _checksum(block: bytes) -> int:
    return sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")


def _pax(data: bytes) -> dict[bytes, bytes]:
    """The records of a header of POSIX.1-2001: `LENGTH KEY=VALUE\\n`. Raises Broken."""
    fields = {}
    while data:
        length, blank, _ = data[:12].partition(b" ")
        size = _whole(length)
        key, equals, value = data[len(length) + 1 : size].partition(b"=")
        if not blank or not equals or size > len(data) or not value.endswith(b"\n"):
            raise Broken("a header of it is damaged")
        fields[key] = value[:-1]
        data = data[size:]
    return fields


def _read(stream: IO[bytes], size: int, where: str) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise Broken(f"it ended {where}")
    return data


def _skip(stream: IO[bytes], size: int) -> None:
    _read(stream, size, "in the middle of a file")
