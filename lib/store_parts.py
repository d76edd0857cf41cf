"""Reads the days of other logs: of a log's directory, and of a folder to which machines publish their parts.

    FOLDER/laptop-5f2b1a60/part.json               whose part it is
    FOLDER/laptop-5f2b1a60/2026-11-21.jsonl.gz     the events of a day; only that machine writes it

Files there may be copies that a program for synchronising made of two versions, may be cut off, or may hold anything: each
line is checked as one of an import, and what is unpacked has bounds. Nothing is written here.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, cast

from tokenops import datadir, events, fields, jsonl, regular, store, store_files, store_folded, store_rules, untrusted
from tokenops.jsonl import OnBadLine

if TYPE_CHECKING:
    from io import BufferedReader

# Of a part, and of the folder of the days of a log.
MARK = "part.json"
FOLDER = os.path.basename(store_files.folder_of(""))
PROJECTS = os.path.basename(store.projects_file(""))
# The name of a day's file. Syncthing and Dropbox put a text of their own into the name of a copy.
_NAME = re.compile(r"\d{4}-\d\d-\d\d[^/]{0,150}\Z")
_ENDINGS = (".jsonl", ".gz", ".age", ".gpg")
SEALED = (".age", ".gpg")
# Of a day unpacked; a heavy user's has 20 MB.
MOST_DAY = 4 << 30
_BATCH = 20_000
_BLOCK = 1 << 17
_GZIP = b"\x1f\x8b"


class DayFile(NamedTuple):
    """A file of a day: its name below the folder, its path, and how it looked when it was listed."""

    name: str
    path: str
    size: int
    changed: int  # modification time in nanoseconds


class Progress(NamedTuple):
    """How far a file was taken in: how it looked then, and what it began with."""

    size: int
    changed: int
    offset: int = 0  # bytes of whole lines; 0 of a packed file
    digest: str = ""  # of these bytes


class Taken(NamedTuple):
    """What was taken in from a file: how many lines of each kind changed the log, how many of them completed a record."""

    kinds: dict[str, int]
    completed: int
    progress: Progress
    is_whole: bool  # whether it could be read to its end


def is_day(name: str) -> bool:
    """Whether a file's name is that of a day, or of a copy of one."""
    return bool(_NAME.match(name)) and ".jsonl" in name and name.endswith(_ENDINGS)


def is_day_of_log(name: str) -> bool:
    """Whether a path below a log's directory is that of a day."""
    folder, _, last = name.rpartition("/")
    return folder == FOLDER and is_day(last)


def log_at(path: str) -> str:
    """The directory of the log that a path leads to: the log's own, that of its events, or a home with one; "" if none."""
    path = os.path.normpath(path)
    above = os.path.dirname(path) if os.path.basename(path) == FOLDER else path
    for folder in (above, os.path.join(path, HOME_LOG)):
        if _days_in(os.path.join(folder, FOLDER)):
            return folder
    return ""


# Where a log lies in a home directory, if no variable says otherwise.
HOME_LOG = os.path.join(".local", "share", "tokenops")


def _days_in(folder: str) -> bool:
    try:
        return any(map(is_day, os.listdir(folder)))
    except OSError:
        return False


def parts_at(path: str) -> dict[str, str]:
    """The parts that machines have published to a folder, or the part that it is itself: folder -> its machine's id."""
    parts = {}
    for folder in (path, *sorted(os.path.join(path, name) for name in _names_in(path))):
        content = untrusted.mapping(datadir.read_json(os.path.join(folder, MARK)))
        if content.get("kind") == "part" and (name := untrusted.text(content.get("part"))):
            parts[folder] = name
    return parts


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def day_files(folder: str, name: str = "") -> list[DayFile]:
    """The files of days in a folder, in order. `name`: of the folder, before the names of its files. Raises OSError."""
    files = []
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if is_day(entry) and not os.path.islink(path) and os.path.isfile(path):
            status = os.stat(path)
            files.append(DayFile(os.path.join(name, entry), path, status.st_size, status.st_mtime_ns))
    return files


def events_of(folder: str) -> str:
    """Where the days of a log's directory lie."""
    return store_files.folder_of(folder)


def take(
    folder: str, file: IO[bytes], source: DayFile, before: Progress | None, on_bad_line: OnBadLine, dry: bool = False
) -> Taken:
    """Add to the log what a file of another one holds; read on behind what was taken before. Raises OSError.

    A file that ends too early gives its whole lines; the rest comes when it has changed. Newer records are left out with a
    message, since this program cannot check them.
    """
    kinds: dict[str, int] = {}
    completed, is_whole = 0, True
    reading = _Reading(file, before)

    def on_cut(why: str) -> None:
        nonlocal is_whole
        is_whole = False
        on_bad_line(source.name, why)

    for batch in _batches(reading.lines(on_cut)):
        accepted = [line for location, raw in batch for line in sound(raw, f"{source.name}:{location}", on_bad_line)]
        fresh, again = store.new_lines(folder, accepted)
        if not dry:
            store.append(folder, fresh)
        completed += again
        for line in fresh:
            kind = store.kind_of(line).decode()
            kinds[kind] = kinds.get(kind, 0) + 1
    return Taken(kinds, completed, Progress(source.size, source.changed, *reading.position()), is_whole)


class _Reading:
    """The whole lines of one file: those behind what was taken before, if its beginning is the same as then."""

    def __init__(self, file: IO[bytes], before: Progress | None) -> None:
        self.file, self.before = file, before
        self.digest = hashlib.blake2b(digest_size=16)
        self.offset = 0
        self.is_plain, self.is_resumed = True, False

    def lines(self, on_cut: Callable[[str], None]) -> Iterator[tuple[int, bytes]]:
        """Number and content of each line. `on_cut` gets why the rest of the file cannot be read."""
        if cast("BufferedReader", self.file).peek(len(_GZIP))[: len(_GZIP)] == _GZIP:
            self.is_plain = False
            yield from self._packed_lines(on_cut)
            return
        number = self._skip()
        for line in jsonl.bounded_lines(cast("BinaryIO", self.file)):
            number += 1
            if not line.endswith(b"\n") and not jsonl.why_too_long(line):
                return  # it is being written
            self.digest.update(line)
            self.offset += len(line)
            yield number, line

    def _skip(self) -> int:
        """Pass over what was taken before, if it is still there; how many lines that is."""
        left, number = self.before.offset if self.before else 0, 0
        if not left:
            return 0
        while left and (block := self.file.read(min(left, _BLOCK))):
            self.digest.update(block)
            number += block.count(b"\n")
            left -= len(block)
        if self.before and not left and self.digest.hexdigest() == self.before.digest:
            self.offset, self.is_resumed = self.before.offset, self.before.offset > 0
            return number
        self.file.seek(0)
        self.digest = hashlib.blake2b(digest_size=16)
        return 0

    def _packed_lines(self, on_cut: Callable[[str], None]) -> Iterator[tuple[int, bytes]]:
        size = number = 0
        try:
            with gzip.GzipFile(fileobj=self.file) as file:
                for line in jsonl.bounded_lines(cast("BinaryIO", file)):
                    number, size = number + 1, size + len(line)
                    if size > MOST_DAY:
                        on_cut(f"unpacks to more than {MOST_DAY >> 30} GiB; the rest is not read")
                        return
                    if line.endswith(b"\n") or jsonl.why_too_long(line):
                        yield number, line
        except store_files.DAMAGED:
            on_cut("a damaged or incomplete archive; its whole lines are read, the rest when it has changed")

    def position(self) -> tuple[int, str]:
        """How many bytes of whole lines were read, and their digest."""
        return (self.offset, self.digest.hexdigest()) if self.is_plain else (0, "")


def _batches(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    for line in lines:
        batch.append(line)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def sound(raw: bytes, location: str, on_bad_line: OnBadLine) -> Iterator[bytes]:
    """The records of one line that the log accepts, each as a line in the usual order; says why of every other."""
    if why := jsonl.why_too_long(raw):
        on_bad_line(location, why)
        return
    for line in store_folded.unfold(raw):
        if store_files.match_usual(line) is not None and not store_files.fault_of(line) and not _may_have_owner(line):
            yield line
        elif line.strip():
            yield from _sound_any(line, location, on_bad_line)


def _may_have_owner(line: bytes) -> bool:
    """Whether the usual form of a line says too little: the names of machines have rules of their own."""
    return any(store_files.has_field(line, name) for name in events.OWNER)


def _sound_any(line: bytes, location: str, on_bad_line: OnBadLine) -> Iterator[bytes]:
    for item in jsonl.parse(line, lambda why: on_bad_line(location, why)):
        for record in store.unfold_record(item):
            if store_files.is_newer(jsonl.line_of(record)):
                on_bad_line(location, "a record of a later version; skipped: upgrade TokenOps here, then pull again")
            elif why := fields.fault(record):
                on_bad_line(location, f"{why}; skipped")
            else:
                yield jsonl.line_of(events.arrange(record))


class OwnDay(NamedTuple):
    """What a day of this log holds for its part: lines, how far its file was read, whether that is the whole day.

    `is_damaged`: an archive of the day could not be read to its end; the lines are those before.
    """

    lines: list[bytes]
    progress: Progress
    is_whole: bool
    is_damaged: bool


def own_day(log: str, day: str, before: Progress | None, machines: Iterable[str]) -> OwnDay:
    """The lines of a day that are new since then, of records of these machines or of none. Raises OSError.

    All of the day if its file has not only grown since then, or is packed.
    """
    needles = [b'"machine":' + jsonl.data_of(name) for name in machines]
    lines: list[bytes] = []
    broken: list[str] = []
    progress, is_whole = Progress(0, 0), True
    for files in store_files.days(log, day, day):
        for path, raw in store_files.open_files(files):
            with raw:
                reading = _Reading(raw, before if files.paths == (path,) else None)
                read = [line for _, line in reading.lines(broken.append)]
                status = os.fstat(raw.fileno())
            is_whole = is_whole and not reading.is_resumed
            lines += [line for line in read if b'"machine":' not in line or any(needle in line for needle in needles)]
            progress = Progress(status.st_size, status.st_mtime_ns, *reading.position())
            if len(files.paths) > 1:
                progress = Progress(0, 0)
    return OwnDay(lines, progress, is_whole, bool(broken))


def take_out(source: DayFile, rules: store_rules.Rules) -> None:
    """Write a published day without what the log was told to forget. Raises OSError.

    An encrypted file cannot be read here: it is removed if the rules forget all that began on its day.
    """
    if source.name.endswith(SEALED):
        if any(rule.is_of_time_only() and source.name[:10] < rule.until[:10] for rule in rules.rules):
            os.unlink(source.path)
        return
    broken: list[str] = []
    kept: list[bytes] = []
    lines = 0
    with open(source.path, "rb", opener=regular.opener) as file:
        for _, line in _Reading(file, None).lines(broken.append):
            lines += 1
            if not any(map(rules.forgets, _records_in(line))):
                kept.append(line)
    if broken or len(kept) == lines:
        return
    if kept:
        datadir.replace(source.path, gzip.compress(b"".join(kept), 6, mtime=0))
    else:
        os.unlink(source.path)


def _records_in(line: bytes) -> Iterator[events.Event]:
    for item in jsonl.parse(line, _ignore):
        yield from store.unfold_record(item)


def _ignore(why: str) -> None:
    """What is not a record is not looked for in a published day."""
