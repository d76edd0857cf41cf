"""Caches data derived from single days of the log, on disk and in memory, while it is valid.

    summaries/KIND.FORMAT/DAY.json      a key in the first line, then one line for each part; may be deleted at any time

A kind names the data and what it depends on besides the log, such as the digest of the prices. The key says which files
of the log a day's data was made from, and how far they were read. Data under another key, and unreadable data, counts
as absent; data that cannot be written is computed again next time.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import gzip
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from tokenops import datadir, projects, regular, store, store_files, store_folded, when
from tokenops.events import Event
from tokenops.jsonl import ignore_line

V = TypeVar("V")
FOLDER = "summaries"
# So many bytes before where reading stopped, a whole record, tell whether a file has only grown.
_TAIL = 512
# New lines of a kind are kept once they are so many bytes: until then reading them again takes less than 3 ms.
SLACK = 1 << 17

Files = dict[str, list[int]]  # day -> size and inode of each of its files


def files_of(folder: str, first: str = "", last: str = "9") -> Files:
    """The size and inode of each day's files, of the days from `first` to `last`."""
    days = store_files.days(folder, first, last)
    return {day.name: [number for path in day.paths for number in _identity(path)] for day in days}


def _identity(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_ino


def stamps_of(folder: str) -> dict[str, str]:
    """The same for each day as text, with the modification times."""
    return {day.name: " ".join(filter(None, map(_stamp, day.paths))) for day in store_files.days(folder)}


def _stamp(path: str) -> str:
    try:
        stat = os.stat(path)
    except OSError:
        return ""
    return f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def projects_stamp(folder: str) -> str:
    """A text that changes when the names of projects may have changed."""
    return _stamp(store.projects_file(folder))


def changed_at(folder: str) -> dict[str, int]:
    """When the files of each day were last written, in nanoseconds."""
    return {day.name: max(map(_written_at, day.paths)) for day in store_files.days(folder)}


def _written_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def key_of(day: str, files: Files) -> list[list[int]]:
    """The key of data made from a day's records: its files and its neighbours'."""
    return [files.get(name, []) for name in near(day)]


def near(day: str) -> list[str]:
    """A day and its neighbours: a turn near midnight may have a sighting in the file before or after."""
    at, step = datetime.date.fromisoformat(day), datetime.timedelta(1)
    return [(at - step).isoformat(), day, (at + step).isoformat()]


def first_open(now: int) -> str:
    """The first day that is not closed: yesterday, whose last turns may still be sighted again today."""
    return when.stamp(now - when.DAY)[:10]


def midnight_after(day: str) -> str:
    """The moment at which a day of UTC ends."""
    return when.stamp(when.moment(f"{day}T00:00:00Z") + when.DAY)


def paths_of(folder: str, day: str) -> list[str]:
    """The files of all that is derived from a day, or from its month."""
    root, starts = os.path.join(folder, FOLDER), (day, f"{day[:7]}.")
    return [os.path.join(at, name) for at, _, names in os.walk(root) for name in names if name.startswith(starts)]


class Derived:
    """Data of one kind, a file for each day. `format` changes with its shape; `depends` names what else it is made from."""

    def __init__(self, folder: str, kind: str, format_: str, depends: str = "") -> None:
        self.root, self.kind, self.format = os.path.join(folder, FOLDER), kind, format_
        self.folder = os.path.join(self.root, ".".join(filter(None, (kind, format_, depends))))

    @classmethod
    def last(cls, folder: str, kind: str, format_: str) -> Derived | None:
        """The data of a kind and format that was kept last, whatever it depends on; None if there is none."""
        root, start = os.path.join(folder, FOLDER), f"{kind}.{format_}."
        with contextlib.suppress(OSError), os.scandir(root) as entries:
            names = sorted((entry.stat().st_mtime_ns, entry.name) for entry in entries if entry.name.startswith(start))
            if names:
                return cls(folder, kind, format_, names[-1][1].removeprefix(start))
        return None

    def load(self, day: str, is_valid: Callable[[Any], bool], part: int = 0) -> tuple[Any, Any] | None:
        """Key and part of a day's data, if the key is still valid; None if it is not, or nothing can be read."""
        try:
            with open(os.path.join(self.folder, f"{day}.json"), "rb", opener=regular.opener) as file:
                key = datadir.unseal(file.readline())
                if not is_valid(key):
                    return None
                for _ in range(part):
                    file.readline()
                return key, datadir.unseal(file.readline())
        except (OSError, ValueError):
            return None

    def save(self, day: str, key: Any, *parts: Any) -> None:
        """Keep a day's data, if there is room."""
        with contextlib.suppress(OSError):
            if not os.path.isdir(self.folder):
                datadir.ensure_folder(os.path.dirname(self.root))
                datadir.ensure_folder(self.root)
                datadir.ensure_folder(self.folder)
                self._remove(lambda name: name.split(".")[1:2] != [self.format])
            # All parts in one file, since making a file costs more than adding up a day.
            content = b"".join(datadir.seal(orjson.dumps(part)) for part in (key, *parts))
            datadir.replace(os.path.join(self.folder, f"{day}.json"), content, durable=False)

    def saved_at(self) -> dict[str, int]:
        """When each day's data was kept, in nanoseconds."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            return {entry.name[:10]: entry.stat().st_mtime_ns for entry in entries if entry.name.endswith(".json")}
        return {}

    def remove_others(self) -> None:
        """Remove data of this kind that was made with something else, such as yesterday's prices."""
        with contextlib.suppress(OSError):
            self._remove(lambda name: name != os.path.basename(self.folder))

    def _remove(self, is_old: Callable[[str], bool]) -> None:
        import shutil  # 3 ms, and seldom needed

        for name in os.listdir(self.root):
            # Folders of earlier versions have a name that begins with a number.
            if (name.split(".")[0] == self.kind and is_old(name)) or name[:1].isdigit():
                shutil.rmtree(os.path.join(self.root, name), ignore_errors=True)


class Recent:
    """A bounded cache: values by name, each for as long as its key stays the same. A server owns one and passes it down.

    Together they weigh at most `most`. The least recently used are dropped first, but none that the current pass has used:
    a pass that does not fit keeps its first values, instead of dropping each before it is needed again.
    """

    def __init__(self, most: int, weight: Callable[[Any], int] = lambda value: 1) -> None:
        self.most, self.weight = most, weight
        self.size, self.number = 0, 0
        self.values: dict[Hashable, tuple[object, Any, int]] = {}  # name -> key, value and the pass that used it

    def begin(self) -> None:
        """Start a new pass over the log."""
        self.number += 1

    def has(self, name: Hashable, key: object) -> bool:
        """Whether there is a value of a name, made under a key."""
        entry = self.values.get(name)
        return entry is not None and entry[0] == key

    def get(self, name: Hashable, key: object, make: Callable[[], V]) -> V:
        """The value of a name, if it was made under the same key; else that of `make`, which is kept if there is room."""
        entry = self.values.pop(name, None)
        if entry is not None and entry[0] == key:
            value: V = entry[1]
            self.values[name] = (key, value, self.number)  # what was used last stands last
            return value
        if entry is not None:
            self.size -= self.weight(entry[1])
        value = make()
        weight = self.weight(value)
        while self.values and self.size + weight > self.most:
            oldest, (_, other, number) = next(iter(self.values.items()))
            if number == self.number:
                break
            self.size -= self.weight(other)
            del self.values[oldest]
        if self.size + weight <= self.most:
            self.values[name] = (key, value, self.number)
            self.size += weight
        return value


class Position(NamedTuple):
    """How far a file of the log was read, and what stood before that place."""

    inode: int = 0
    offset: int = 0
    tail: str = ""


def lines_after(path: str, position: Position) -> tuple[Position, bytes] | None:
    """The whole lines of a file after a position, and the new position; None if the file has not only grown since.

    Raises OSError.
    """
    with open(path, "rb", buffering=0, opener=regular.opener) as file:
        stat = os.fstat(file.fileno())
        if position.offset and (stat.st_ino != position.inode or stat.st_size < position.offset):
            return None
        begin = max(position.offset - _TAIL, 0)
        file.seek(begin)
        data = file.read()
    tail, data = data[: position.offset - begin], data[position.offset - begin :]
    if tail.hex() != position.tail:
        return None
    if not path.endswith(".gz"):
        data = data[: data.rfind(b"\n") + 1]  # the last line may still be being written
    position = Position(stat.st_ino, position.offset + len(data), (tail + data)[-_TAIL:].hex())
    if path.endswith(".gz"):
        try:
            data = gzip.decompress(data) if data else data
        except store_files.DAMAGED:
            data = b""  # tok-log verify reports it
    return position, data


def sightings(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Identity and line of each record in some lines of the log, but for those of the kind `context`."""
    for whole in data.splitlines(keepends=True):
        for line in store_folded.unfold(whole, context=False):
            if (pair := store_files.identify(line)) is not None:
                yield pair


class Appended:
    """Reads of the files of a day what was appended since it was last asked."""

    def __init__(self, folder: str, day: str) -> None:
        self.folder, self.day = folder, day
        self.positions: dict[str, Position] = {}

    def lines(self) -> tuple[bool, bytes]:
        """Whether all is read anew, since the files have not only grown, and the new lines, some empty. Raises OSError."""
        paths = [path for day in store_files.days(self.folder, self.day, self.day) for path in day.paths]
        read = [lines_after(path, self.positions.get(path, Position())) for path in paths]
        is_anew = not self.positions or None in read or not self.positions.keys() <= set(paths)
        if is_anew:
            read = [lines_after(path, Position()) for path in paths]
        grown = {path: each for path, each in zip(paths, read, strict=True) if each is not None}
        self.positions = {path: position for path, (position, _) in grown.items()}
        return is_anew, b"\n".join(data for _, data in grown.values())


class OfKind(Generic[V]):
    """Values of the records of one kind, day by day, from each line that was appended; sightings are not joined.

    A day is read once, and after that only what was appended to it. `values` makes them of records; `pack` and `unpack`
    turn them into JSON and back.
    """

    def __init__(
        self,
        derived: Derived,
        record_kind: str,
        values: Callable[[Iterable[Event]], list[V]],
        pack: Callable[[list[V]], Any],
        unpack: Callable[[Any], list[V]],
    ) -> None:
        self.derived, self.record_kind = derived, record_kind
        self.values, self.pack, self.unpack = values, pack, unpack

    def between(self, folder: str, first: str, last: str, memory: Recent | None = None) -> Iterator[V]:
        """The values of the days from `first` to `last`. `memory` keeps those of days that do not change. Raises OSError."""
        if memory is not None:
            memory.begin()
        for day in store_files.days(folder, first, last):
            if memory is None:
                yield from self._of_day(day)
            else:
                stamps = [_stamp(path) for path in day.paths]
                yield from memory.get((self.derived.folder, day.name), stamps, functools.partial(self._of_day, day))

    def _of_day(self, day: store_files.Day) -> list[V]:
        """A day's values: those that were kept, and those of the lines since; all anew if its files have not only grown."""
        kept = self._load(day)
        grown = self._add(day, *kept) if kept is not None else None
        if grown is None:
            grown = self._add(day, {}, [])
        positions, values, size = grown or ({}, [], 0)
        if size > SLACK or (size and kept is None):
            key = {name: tuple(position) for name, position in positions.items()}
            self.derived.save(day.name, key, self.pack(values))
        return values

    def _add(
        self, day: store_files.Day, positions: dict[str, Position], values: list[V]
    ) -> tuple[dict[str, Position], list[V], int] | None:
        """The positions and values of a day with what its files hold since, and of how many bytes that is."""
        size = 0
        for path in day.paths:
            name = os.path.basename(path)
            read = lines_after(path, positions.get(name, Position()))
            if read is None:
                return None
            positions[name], data = read
            values += self.values(store_files.records_of_kind(data, self.record_kind))
            size += len(data)
        return positions, values, size

    def _load(self, day: store_files.Day) -> tuple[dict[str, Position], list[V]] | None:
        """What was kept of a day, if none of the files that it was made from is gone."""
        names = {os.path.basename(path) for path in day.paths}
        try:
            entry = self.derived.load(day.name, lambda key: key.keys() <= names)
            return entry and ({name: Position(*position) for name, position in entry[0].items()}, self.unpack(entry[1]))
        except (TypeError, LookupError, ValueError, AttributeError):
            return None


class OpenDays:
    """The records of the days that still grow, each once: as store.scan gives them, but read only as far as they are new.

    If nothing but the last day's file has grown, its new lines are added after all others, as a scan would add them.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.key: object = None
        self.position = Position()
        self.records: list[store.DayRecords] = []
        self.parsed: list[dict[str, tuple[bytes, Event]]] = []
        self.list: list[Event] | None = None  # of the last answer

    def events(self, first: str) -> list[Event]:
        """The records from a day on. Raises OSError."""
        days = store_files.days(self.folder, store.day_before(first))
        if not days:
            return []
        names = store.labels(self.folder)
        *others, growing = [path for day in days for path in day.paths]
        key = (first, names, growing, [(path, _stamp(path)) for path in others])
        grown = lines_after(growing, self.position) if key == self.key else None
        if grown is None:
            self._read(days, growing)
            self.key = key
        elif not grown[1] and self.list is not None:
            return self.list
        else:
            self.position, data = grown
            for pair in sightings(data):
                self._add(*pair)
        skipped = 1 if days[0].name < first else 0
        self.list = [event for number in range(skipped, len(self.records)) for event in self._events(number, names)]
        return self.list

    def _read(self, days: Sequence[store_files.Day], growing: str) -> None:
        """Read all; the position is that before reading, since what is read twice changes nothing."""
        position = lines_after(growing, Position())
        self.position = position[0] if position else Position()
        self.records, self.parsed = [], []
        previous = ""
        for day in days:
            if previous and not store.follows(previous, day.name):
                self._open()
            self._open()
            for identity, line in store.day_sightings(day, ignore_line, context=False):
                self._add(identity, line)
            previous = day.name

    def _open(self) -> None:
        self.records.append(store.DayRecords())
        self.parsed.append({})

    def _add(self, identity: str, line: bytes) -> None:
        """Add a sighting of the last day; one of a record of the day before is that day's."""
        records = self.records[-1]
        before = self.records[-2] if len(self.records) > 1 else None
        if before is not None and (identity in before or (identity not in records and before.awaits(line))):
            records = before
        records.add(identity, line)

    def _events(self, number: int, names: dict[str, str]) -> list[Event]:
        """The records of a day as events. Only those are parsed that are new or have changed."""
        parsed, lines = self.parsed[number], self.records[number].lines
        for identity in parsed.keys() - lines.keys():
            del parsed[identity]  # it stands under a newer identity now
        for identity, line in lines.items():
            entry = parsed.get(identity)
            if entry is None or entry[0] is not line:
                parsed[identity] = (line, projects.relabel(orjson.loads(line), names))
        return [event for _, event in parsed.values()]
