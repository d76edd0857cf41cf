"""The log: append-only JSON Lines by UTC day, and the only module that touches those files.

    events/2026-11-21.jsonl      a closed day may be gzipped; late events then go to a sibling .jsonl, and both are read
    lock                         held by every writer, so that a line is never torn by another

What `append` has returned for is on the disk. A torn line that a crash left is isolated by the next writer and skipped by
readers. The same turn may be written any number of times: readers join its sightings.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

import orjson

from tokenops import datadir, events, jsonl, projects, when
from tokenops.events import Event

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.jsonl(\.gz)?\Z")
# Every line that we write begins so, and the time follows; others are rearranged when they are read.
_HEAD = b'{"v":1,"ts":"'
_DAY = slice(13, 23)
_TS = slice(13, 37)
KIND = 39  # where the kind stands in a line that `sightings` or `scan` gives
_ID = b'"id":"'
_ALIAS = b'","alias":"'
# Days: the first run of a year, or an import.
_MANY = 64

Refuse = Callable[[str, str], None]


def folder_of(folder: str) -> str:
    """Where the days lie."""
    return os.path.join(folder, "events")


def append(folder: str, lines: Iterable[bytes], durable: bool = True) -> int:
    """Write finished lines to their days; how many. When this returns they are on the disk. Raises OSError.

    A day's lines are one write. Where a write fails the file is cut back to what it was, so that a full disk leaves no
    torn line behind; days before it may have been written, and writing them again does no harm.
    """
    days: dict[bytes, list[bytes]] = {}
    count = 0
    for line in lines:
        days.setdefault(line[_DAY], []).append(line)
        count += 1
    if not count:
        return 0
    at = datadir.made(folder_of(datadir.made(folder)))
    paths = {day: os.path.join(at, f"{day.decode(errors='replace')}.jsonl") for day in sorted(days)}
    if wrong := [day for day in days if not _NAME.match(os.path.basename(paths[day]))]:
        raise ValueError(f"{wrong[0]!r} is no day")
    with datadir.locked(folder):
        _write_days({path: days[day] for day, path in paths.items()}, durable)
        if durable:
            settle(at)
    return count


def _write_days(lines: Mapping[str, list[bytes]], durable: bool) -> None:
    """Write each file's lines. Where they are many, some at a time: a disk takes in several sooner than one by one."""

    def write(path: str) -> None:
        _write(path, b"".join(lines[path]), durable)

    if not durable or len(lines) < _MANY:
        for path in lines:
            write(path)
        return
    from concurrent.futures import ThreadPoolExecutor  # 10 ms that a few days are not worth

    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(write, lines):
            pass


def _write(path: str, content: bytes, durable: bool) -> None:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            content = b"\n" + content
        try:
            datadir.write(fd, content, durable)
        except OSError:
            os.ftruncate(fd, size)
            raise
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(fd)


def settle(folder: str) -> None:
    """Make new and renamed files of a folder last. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Day(NamedTuple):
    """One day's files, the gzipped one first."""

    name: str
    paths: tuple[str, ...]


def days(folder: str, first: str = "", last: str = "9") -> list[Day]:
    """The days of the log from `first` to `last` (as texts), in order."""
    found: dict[str, list[str]] = {}
    for name in _listed(folder_of(folder)):
        match = _NAME.match(name)
        if match and first <= match[1] <= last:
            found.setdefault(match[1], []).append(os.path.join(folder_of(folder), name))
    return [Day(name, tuple(found[name])) for name in sorted(found)]


def _listed(folder: str) -> list[str]:
    """The names in a folder, last first. A file that is renamed while a folder is listed may be missed, so ask again."""
    names: list[str] = []
    for _ in range(9):
        before, names = names, _names(folder)
        if names == before:
            break
    return names


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder), reverse=True)
    except FileNotFoundError:
        return []


def day_of(line: bytes) -> str:
    """The day of a record's line."""
    return line[_DAY].decode(errors="replace")


def day_lines(day: Day, refuse: Refuse, tail: bool = False) -> Iterator[tuple[str, bytes]]:
    """Place and content of each whole line of a day. A broken archive is refused, not fatal.

    A last line without its newline is being written, or was left by a crash: it is no line yet, and is given only where
    `tail` asks for it (then the caller holds the lock).
    """
    for path, raw in _opened(day):
        number = 0
        try:
            with raw, gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw as file:
                for line in file:
                    number += 1
                    if tail or line.endswith(b"\n"):
                        yield f"{path}:{number}", line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            refuse(f"{path}:{number + 1}", f"a broken archive ({error}); restore it, or run tok-sync --backfill")


def _opened(day: Day) -> list[tuple[str, BinaryIO]]:
    """The files of a day as they were at one moment; compaction may be moving lines from one to the other. Raises OSError.

    The caller closes them.
    """
    plain = f"{day.paths[0].removesuffix('.gz')}"
    for _ in range(99):
        held: list[tuple[str, BinaryIO]] = []
        for path in (f"{plain}.gz", plain):
            with contextlib.suppress(FileNotFoundError):
                held.append((path, open(path, "rb", buffering=1 << 17)))  # noqa: SIM115
        if [_inode(f"{plain}.gz"), _inode(plain)] == [_held(held, f"{plain}.gz"), _held(held, plain)]:
            return held
        for _, file in held:
            file.close()
    raise BlockingIOError(11, "is being rewritten again and again", plain)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _held(files: list[tuple[str, BinaryIO]], path: str) -> int:
    return next((os.fstat(file.fileno()).st_ino for name, file in files if name == path), 0)


def sightings(day: Day, refuse: Refuse, after: bytes = b"") -> Iterator[tuple[str, bytes]]:
    """Identity and line of each record of a day, a line that is no record refused; of those `after` a time, if given."""
    for place, line in day_lines(day, refuse):
        if after and line[_TS] <= after and line.startswith(_HEAD):
            continue
        found = identified(line)
        if found is not None:
            yield found
        elif line.strip():
            refuse(place, "no record; tok-log verify says more")


def identified(line: bytes) -> tuple[str, bytes] | None:
    """A record's identity, and its line with the keys in the usual order; None for what is no record."""
    start = line.find(_ID, 37, 80)
    if start > 0 and line.startswith(_HEAD) and line[23:24] == b"T" and line[36:38] == b'Z"' and line.endswith(b"}\n"):
        name = line[start + 6 : line.find(b'"', start + 6)]
        if b"\\" not in name:
            return name.decode(errors="replace"), line
    record = _record(line)
    return None if record is None else (record["id"], jsonl.line_of(events.arranged(record)))


def _record(line: bytes) -> Event | None:
    try:
        record = orjson.loads(line)
        if type(record) is dict and record.get("v") == 1 and when.canonical(record["ts"]) == record["ts"]:
            return record if type(record["id"]) is str and type(record["kind"]) is str else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        pass
    return None


class Pool:
    """The records of one day, sightings joined as they come."""

    def __init__(self) -> None:
        self.lines: dict[str, bytes] = {}
        self.same: dict[str, str] = {}  # identity -> that of the record it was found to be another sighting of
        self.planes: dict[str, str] = {}  # identity -> how it was seen, of those that have an alias
        self.pairs = events.Pairs()

    def add(self, name: str, line: bytes) -> None:
        """Take in a sighting."""
        name = self.same.get(name, name)
        known = self.lines.get(name)
        if known is None:
            if line.find(_ALIAS, 0, 400) >= 0:
                name = self._paired(name, line)
                known = self.lines.get(name)
            if known is None:
                self.lines[name] = line
                return
        if known != line:
            joined = events.join(orjson.loads(known), orjson.loads(line))
            joined["id"] = name
            self.lines[name] = jsonl.line_of(joined)

    def awaits(self, line: bytes) -> bool:
        """Whether a sighting of another plane waits here to be paired with this one."""
        return bool(self.pairs.waiting) and _ALIAS in line[:400] and self.pairs.awaits(orjson.loads(line))

    def _paired(self, name: str, line: bytes) -> str:
        """The identity of the log's record where this is the wire's of the same turn, or the other way round.

        Log and wire share no id for some clients; an alias of session and counts pairs one sighting of each plane.
        """
        event = orjson.loads(line)
        self.planes[name] = events.plane_of(event)
        first = self.pairs.first(event)
        if first != name:
            self.same[name] = first
        return first

    def __contains__(self, name: str) -> bool:
        return name in self.lines or name in self.same


def scan(folder: str, since: str = "", until: str = "9", refuse: Refuse = lambda place, why: None) -> Iterator[bytes]:
    """The records of a span, each once, in order of time, as lines. Files outside of it are not opened.

    A day more is opened on either side: a sighting before midnight and one after it are one turn, of the day before.
    """
    first = when.stamp(when.moment(since) - when.DAY)[:10] if since else ""
    last = when.stamp(when.moment(until) - 1 + when.DAY)[:10] if until != "9" else "9"
    begin, end = since.encode(), until.encode()
    for _, pool in pools(folder, first, last, refuse):
        yield from _spanned(pool, begin, end)


def pools(
    folder: str, first: str = "", last: str = "9", refuse: Refuse = lambda place, why: None
) -> Iterator[tuple[str, Pool]]:
    """The days from `first` to `last`, each with those sightings of its records that lie in the next day's files."""
    before, previous = Pool(), ""
    for day in days(folder, first, last):
        if previous and not follows(previous, day.name):
            yield previous, before
            before, previous = Pool(), ""
        pool = Pool()
        for name, line in sightings(day, refuse):
            held = before if name in before or (before.pairs.waiting and name not in pool and before.awaits(line)) else pool
            held.add(name, line)
        if previous:
            yield previous, before
        before, previous = pool, day.name
    if previous:
        yield previous, before


def follows(day: str, other: str) -> bool:
    """Whether one day is the day after another."""
    return when.stamp(when.moment(f"{day}T00:00:00Z") + when.DAY)[:10] == other


def _spanned(pool: Pool, begin: bytes, end: bytes) -> list[bytes]:
    return sorted(line for line in pool.lines.values() if begin <= line[_TS] < end)


def labels(folder: str) -> dict[str, str]:
    """project_id -> name, of the projects whose basename is not enough to tell them apart."""
    paths = datadir.read_json(os.path.join(folder, "projects.json")) or {}
    return {key: name for key, name in projects.labels(paths).items() if name != projects.label(paths[key])}


def remember(folder: str, paths: dict[str, str]) -> None:
    """Keep the paths of projects (by project_id), so that two of one name can be told apart. Raises OSError."""
    path = os.path.join(folder, "projects.json")
    known = datadir.read_json(path) or {}
    if not paths.items() <= known.items():
        with datadir.locked(folder):
            datadir.replace(path, orjson.dumps((datadir.read_json(path) or {}) | paths, option=orjson.OPT_SORT_KEYS))


def of_kind(folder: str, kind: str, since: str = "", last: str = "9") -> Iterator[Event]:
    """The records of a rare kind since a moment, up to a day, in order of their days, once each."""
    return (record for record in holding(folder, f'"kind":"{kind}"', since, last) if record["kind"] == kind)


def holding(folder: str, text: str, since: str = "", last: str = "9") -> Iterator[Event]:
    """The records since a moment in which some text stands, found without reading those between; sightings joined.

    Sightings of one record on two days are joined only where both hold the text.
    """
    known: dict[str, Event] = {}
    for day in days(folder, since[:10], last):
        for _, line in _holding(day, text.encode()):
            record = _record(line)
            if record is not None and record["ts"] >= since:
                seen = known.get(record["id"])
                known[record["id"]] = events.join(seen, record) if seen else record
    return iter(known.values())


def _holding(day: Day, needle: bytes) -> Iterator[tuple[str, bytes]]:
    """Place and content of the lines of a day in which some bytes stand."""
    for path, raw in _opened(day):
        with raw:
            data = raw.read()
        with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):  # tok-log verify says so
            data = gzip.decompress(data) if path.endswith(".gz") else data
            at = data.find(needle)
            while at >= 0:
                stop = data.find(b"\n", at)
                if stop >= 0:
                    yield path, data[data.rfind(b"\n", 0, at) + 1 : stop + 1]
                at = data.find(needle, stop) if stop >= 0 else -1


def cat(
    folder: str,
    since: str = "",
    until: str = "9",
    wanted: events.Filter = events.EVERY,
    refuse: Refuse = lambda place, why: None,
) -> Iterator[bytes]:
    """The records of a span that a filter takes, projects named apart, as lines."""
    names = labels(folder)
    keys = [f'"project_id":"{key}"'.encode() for key in names]
    every = wanted == events.EVERY
    for line in scan(folder, since, until, refuse):
        if every and not any(key in line for key in keys):
            yield line
            continue
        event = projects.relabelled(orjson.loads(line), names)
        if wanted.takes(event):
            yield jsonl.line_of(event)


def paths_of(path: str) -> dict[str, str]:
    """The projects (project_id -> path) that another log's directory knows; none for a file."""
    found = datadir.read_json(os.path.join(path, "projects.json")) if os.path.isdir(path) else None
    return found if isinstance(found, dict) else {}


def pieces(path: str, refuse: Refuse, most: int = 50_000) -> Iterator[list[tuple[str, bytes]]]:
    """Places and lines of a file of events, or of all days of another log's directory, so many at a time. Raises OSError."""
    held: list[tuple[str, bytes]] = []
    found = days(path) or days(os.path.dirname(os.path.normpath(path))) if os.path.isdir(path) else [Day("", (path,))]
    for day in found:
        for one in day_lines(day, refuse, tail=True):
            held.append(one)
            if len(held) == most:
                yield held
                held = []
    yield held


def unknown_to(folder: str, lines: Iterable[bytes]) -> list[bytes]:
    """Those of some lines that would change what the log says; each at most once."""
    given: dict[str, list[bytes]] = {}
    for line in dict.fromkeys(lines):
        given.setdefault(line[_DAY].decode(), []).append(line)
    fresh: list[bytes] = []
    wanted = set(given)
    for day in given:
        wanted |= {when.stamp(when.moment(f"{day}T00:00:00Z") + step)[:10] for step in (-when.DAY, when.DAY)}
    known: dict[str, Event] = {}
    asked = {orjson.loads(line)["id"] for day in given.values() for line in day}
    for held in days(folder):
        if held.name in wanted:
            for name, line in sightings(held, lambda place, why: None):
                if name not in asked:
                    continue
                event = orjson.loads(line)
                known[name] = events.join(known[name], event) if name in known else event
    for day in sorted(given):
        for line in given[day]:
            event = orjson.loads(line)
            seen = known.get(event["id"])
            joined = event if seen is None else events.join(seen, event)
            if joined != seen:
                known[event["id"]] = joined
                fresh.append(line)
    return fresh
