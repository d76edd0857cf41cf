"""Reads whole lines and JSON values from files that other programs are still writing.

One growing buffer, and no copy of lines that cannot matter: four bytes in five of real logs.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import errno
import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from tokenops import events, jsonl, regular

BLOCK = 1 << 20
LONGEST_LINE = 512 << 20  # lines of 300 MB were found, and a file without line ends may have any size
_BLANK = b" \t\r\0"

# (buffer, start, stop) -> could this line matter? It starts with { and ends with }; saying yes costs only time.
Relevant = Callable[[bytearray, int, int], bool]


class Cursor:
    """How far a file was read: the byte after the last whole line, the number of lines before it, the parser's state."""

    def __init__(self, offset: int = 0, number: int = 0, state: dict[str, Any] | None = None) -> None:
        self.offset, self.number = offset, number
        self.state: dict[str, Any] = {} if state is None else state


def lines(file: io.RawIOBase, relevant: Relevant, cursor: Cursor, buffer: bytearray) -> Iterator[tuple[int, bytearray]]:
    """Number and bytes of each line from the cursor on that is `relevant`, or that is not `{...}` at all.

    The unterminated tail comes last, if it looks whole; the cursor stays before it, in the state it had there. `buffer`
    is scratch space that may be used again for the next file.
    """
    file.seek(cursor.offset)
    start = filled = 0
    find = buffer.find
    while True:
        if filled == len(buffer):
            if filled - start >= LONGEST_LINE:
                yield cursor.number + 1, bytearray(jsonl.too_long(LONGEST_LINE))
                if not _skip_line(file, cursor, filled - start):
                    return
                start = filled = 0
            filled = _make_room(buffer, start, filled)
            start = 0
        with memoryview(buffer) as view, view[filled:] as free:
            got = file.readinto(free)
        if not got:
            break
        last = buffer.rfind(b"\n", filled, filled + got) + 1
        filled += got
        number = cursor.number
        at = start
        while at < last:
            stop = find(b"\n", at, last)
            number += 1
            if buffer[at] == 123 and buffer[stop - 1] == 125:
                if relevant(buffer, at, stop):
                    yield number, buffer[at:stop]
            elif stop > at and (odd := _odd(buffer[at:stop], relevant)):
                yield number, odd
            at = stop + 1
        if last:
            cursor.offset += last - start
            cursor.number = number
            start = last
    tail = buffer[start:filled].strip(_BLANK)
    if tail.startswith(b"{") and tail.endswith(b"}") and relevant(tail, 0, len(tail)) and not jsonl.is_half(tail):
        state = copy.deepcopy(cursor.state)
        yield cursor.number + 1, tail
        cursor.state = state


def _skip_line(file: io.RawIOBase, cursor: Cursor, size: int) -> bool:
    """Move behind a line of which so many bytes were read; False if it has no end yet: the cursor stays before it."""
    size_of_file = os.fstat(file.fileno()).st_size
    at = cursor.offset + size
    while at < size_of_file and (block := file.read(BLOCK)):
        end = block.find(b"\n")
        if end >= 0:
            cursor.offset, cursor.number = at + end + 1, cursor.number + 1
            file.seek(cursor.offset)
            return True
        at += len(block)
    return False


def _make_room(buffer: bytearray, start: int, filled: int) -> int:
    """Move what is not yet a line to the front, or grow for a line longer than the buffer; what is filled then."""
    if start:
        buffer[: filled - start] = buffer[start:filled]
    else:
        buffer.extend(bytes(len(buffer)))
    return filled - start


def _odd(line: bytearray, relevant: Relevant) -> bytearray | None:
    """A line with blanks around it, or one that is not `{...}`; None if it cannot matter."""
    line = line.strip(_BLANK)
    if not line or (line.startswith(b"{") and line.endswith(b"}") and not relevant(line, 0, len(line))):
        return None
    return line


def records(
    path: str, cursor: Cursor, relevant: Relevant, on_bad_line: jsonl.OnBadLine
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Location (file:line) and object of each relevant line of a file from the cursor on. Raises OSError."""
    with open(path, "rb", buffering=0, opener=regular.opener) as file:
        for number, line in lines(file, relevant, cursor, bytearray(BLOCK)):
            location = f"{path}:{number}"
            for raw in jsonl.parse(line, functools.partial(on_bad_line, location)):
                yield location, raw


def containing(*needles: bytes) -> Relevant:
    """Whether a line contains one of some texts."""

    def relevant(line: bytearray, at: int, stop: int) -> bool:
        return any(line.find(needle, at, stop) >= 0 for needle in needles)

    return relevant


class Values:
    """JSON objects out of lines: one to a line, one over several lines, or several in an array of either kind.

    A value over several lines opens and closes in the first column, as pretty printers write it. Lines that are not JSON
    are reported once for each run of them: what a program prints beside its stream is often a page long.
    """

    MOST = 64 << 20  # of a value over several lines

    def __init__(self, name: str, relevant: Relevant, on_bad_line: jsonl.OnBadLine, number: int = 0) -> None:
        self.name, self.relevant, self.on_bad_line = name, relevant, on_bad_line
        self.number = self.first = number  # the line read last, and the one that the value in it began with
        self.size = 0
        self.open_lines: list[bytes] = []  # of a value that is not whole yet
        self.reported = False

    def take(self, line: bytes) -> list[tuple[str, dict[str, Any]]]:
        """Location and object of each that a line completes."""
        self.number += 1
        bare = line.strip(_BLANK + b"\n").removeprefix(jsonl.BOM)
        if self.open_lines and line[:1] not in (b"{", b"["):
            return self._continue(line, bare)
        self.close()
        self.first = self.number
        if bare in (b"{", b"[") and line.removeprefix(jsonl.BOM)[:1] == bare:
            self.open_lines, self.size = [bare], 0
            return []
        if bare[:1] + bare[-1:] in (b"{}", b"[]"):
            self.reported = False
            return self._objects_in(bytearray(bare))
        if bare and not self.reported:
            self.reported = True
            self._report(jsonl.why_too_long(bare) or "not JSON; it and later lines like it are skipped")
        return []

    def close(self) -> None:
        """A value that is still open when the next one begins, or at the end, is dropped."""
        if self.open_lines:
            self.open_lines = []
            self._report("a value that was never closed; skipped")

    def _continue(self, line: bytes, bare: bytes) -> list[tuple[str, dict[str, Any]]]:
        self.open_lines.append(line)
        self.size += len(line)
        if self.size > self.MOST:
            self.close()
        elif line[:1] in (b"}", b"]") and bare in (b"}", b"]"):
            data, self.open_lines = bytearray(b"".join(self.open_lines)), []
            self.reported = False
            return self._objects_in(data)
        return []

    def _objects_in(self, data: bytearray) -> list[tuple[str, dict[str, Any]]]:
        if not self.relevant(data, 0, len(data)):
            return []
        location = f"{self.name}:{self.first}"
        if data[:1] == b"{":
            return [(location, value) for value in jsonl.parse(data, self._report)]
        wrapped = jsonl.parse(b'{"":' + data + b"}", self._report)
        items = wrapped[0].get("") if wrapped else None
        return [
            (f"{location}[{n}]", item)
            for n, item in enumerate(items if isinstance(items, list) else ())
            if isinstance(item, dict)
        ]

    def _report(self, why: str) -> None:
        self.on_bad_line(f"{self.name}:{self.first}", why)


def values(
    path: str, cursor: Cursor, relevant: Relevant, on_bad_line: jsonl.OnBadLine
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Location and object of each JSON object in a file from the cursor on, however it is laid out. Raises OSError.

    A value that is not whole yet is left for the next time; the unterminated last line counts if it looks whole.
    """
    reader = Values(path, relevant, on_bad_line, cursor.number)
    at = cursor.offset
    with open(path, "rb", opener=regular.opener) as file:
        file.seek(at)
        while line := file.readline(LONGEST_LINE):
            at += len(line)
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                on_bad_line(f"{path}:{reader.number + 1}", "a line of more than 512 MiB; skipped, with all that follows")
                return
            if line.endswith(b"\n"):
                yield from reader.take(line)
                if not reader.open_lines:
                    cursor.offset, cursor.number = at, reader.number
            elif _is_whole(line, bool(reader.open_lines)):
                state = copy.deepcopy(cursor.state)
                yield from reader.take(line)
                cursor.state = state


def _is_whole(tail: bytes, continues: bool) -> bool:
    """Whether a last line without its end looks like a value, or like the end of one over several lines."""
    tail = tail.strip(_BLANK)
    return tail[-1:] in (b"}", b"]") and (continues or (tail[:1] in (b"{", b"[") and not jsonl.is_half(tail)))


def document(path: str, cursor: Cursor) -> dict[str, Any]:
    """The object in a file that its client rewrites as a whole. Raises OSError, and BadRecord if there is none."""
    data = content(path)
    cursor.offset = len(data)
    if not data.strip(_BLANK + b"\n"):
        raise events.BadRecord("empty; skipped")
    try:
        value = orjson.loads(data)
    except ValueError:
        objects, why = jsonl.objects(data)
        if len(objects) != 1 or why:
            raise events.BadRecord(why or f"{len(objects)} objects where one was expected; skipped") from None
        value = objects[0]
    if not isinstance(value, dict):
        raise events.BadRecord(f"expected a JSON object, found {jsonl.type_name(value)}; skipped")
    return value


MOST_DOCUMENT = 512 << 20  # of a file that is read as a whole


def content(path: str) -> bytes:
    """The bytes of a file that is read as a whole. Raises OSError, and BadRecord if it is too large."""
    with open(path, "rb", opener=regular.opener) as file:
        data = file.read(MOST_DOCUMENT + 1)
    if len(data) > MOST_DOCUMENT:
        raise events.BadRecord(f"larger than {MOST_DOCUMENT >> 20} MiB; skipped")
    return data


HEAD = 1 << 18  # of a file, by which it is known


def files_claimed(folder: str, claims: Callable[[str, bytes], bool]) -> Iterator[str]:
    """The files below a folder that a reader knows by their look. Raises nothing."""
    for path in walk(folder):
        head = b""
        with contextlib.suppress(OSError), open(path, "rb", opener=regular.opener) as file:
            head = file.read(HEAD)
        if claims(path, head):
            yield path


# Errors of what only looks like a file: a link to itself, a pipe, a socket. The files beside it are read.
ODD = frozenset((errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENOTCONN, errno.ESTALE))
_UNLISTED: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("unlisted", default=None)
MOST_ENTRIES = 2_000_000  # below a folder; a link to the root of a disk leads to more


@contextlib.contextmanager
def listing_problems() -> Iterator[dict[str, str]]:
    """The folders that `walk` cannot list while the block runs, with the reason."""
    problems: dict[str, str] = {}
    token = _UNLISTED.set(problems)
    try:
        yield problems
    finally:
        _UNLISTED.reset(token)


def note_unlisted(folder: str, why: str) -> None:
    """A folder that could not be listed, for `listing_problems`."""
    problems = _UNLISTED.get()
    if problems is not None:
        problems[folder] = why


def walk(folder: str) -> Iterator[str]:
    """All files below a folder, in order of name, and what only looks like one. Raises nothing.

    Links are followed, each directory once, but not out of the folder to one that holds it or to the system's tables of
    processes and devices. A pipe, or a link that leads to itself, is given as a file: whoever opens it reports it.
    """
    above, seen, entries_left = _folders_above(folder), set[tuple[int, int]](), MOST_ENTRIES
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            status = os.stat(current)
            identity = status.st_dev, status.st_ino
            if identity in seen:
                continue
            if current != folder and (identity in above or status.st_dev in _system_devices()):
                note_unlisted(current, "a link out of the folder")
                continue
            seen.add(identity)
            with os.scandir(current) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue  # removed since it was listed, or never there
        except OSError as error:
            note_unlisted(current, error.strerror or "cannot be listed")
            continue
        entries_left -= len(inside)
        if entries_left < 0:
            note_unlisted(current, f"more than {MOST_ENTRIES:,} entries below {folder}")
            return
        try:
            waiting += [entry.path for entry in reversed(inside) if entry.is_dir()]
            paths = [entry.path for entry in inside if entry.is_file() or _is_odd(entry)]
        except OSError:  # of one entry: a link to itself, or into a folder that may not be entered
            folders, paths = _sorted_out(inside)
            waiting += reversed(folders)
        yield from paths


def _is_odd(entry: os.DirEntry[str]) -> bool:
    """Whether what is not a file is neither a folder nor a link to nothing. Raises OSError."""
    return not entry.is_dir() and os.path.exists(entry.path)


def _sorted_out(inside: Sequence[os.DirEntry[str]]) -> tuple[list[str], list[str]]:
    """The paths of folders, and of all else; each entry is looked at by itself."""
    folders: list[str] = []
    others: list[str] = []
    for entry in inside:
        try:
            if entry.is_dir():
                folders.append(entry.path)
            elif entry.is_file() or _is_odd(entry):
                others.append(entry.path)
        except OSError:
            others.append(entry.path)
    return folders, others


def _folders_above(folder: str) -> set[tuple[int, int]]:
    """Device and inode of each folder that holds this one."""
    above: set[tuple[int, int]] = set()
    at = os.path.realpath(folder)
    while at != (at := os.path.dirname(at)):
        with contextlib.suppress(OSError):
            status = os.stat(at)
            above.add((status.st_dev, status.st_ino))
    return above


@functools.cache
def _system_devices() -> frozenset[int]:
    """The devices of what the kernel shows as files."""
    devices = set()
    for path in ("/proc", "/sys", "/dev"):
        with contextlib.suppress(OSError):
            devices.add(os.stat(path).st_dev)
    return frozenset(devices) - {os.stat("/").st_dev}
