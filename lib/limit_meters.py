"""The vendors' readings in the log, found without reading the turns beside them.

What was found of a day is kept beside the summaries, with how far the day's files were read, so that the next call
parses only what is new. It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import datadir, limit_windows, store, when
from tokenops.limit_windows import Key, Seen

_NEEDLE = b'"kind":"meter"'
_FORMAT = 2
# What is new is kept once it is this long: until then parsing it again takes less than 3 ms.
_SLACK = 1 << 17
# So many bytes before where reading stopped, a whole record, tell whether a file is still the same.
_TAIL = 512

Rows = list[list[Any]]


class Read(NamedTuple):
    """How far a file was read."""

    inode: int
    offset: int
    tail: str


def readings(folder: str, since: int, until: int) -> list[Seen]:
    """The readings of plans' windows in a span of milliseconds. Raises OSError."""
    first, last = when.stamp(since)[:10], when.stamp(until)[:10]
    found = (one for day in store.days(folder, first, last) for one in _of_day(folder, day))
    return limit_windows.owned([one for one in found if since <= one.at <= until])


# What a day's files were, and the readings in them: a server asks again and again.
_days: dict[tuple[str, str], tuple[list[tuple[int, int, int]], list[Seen]]] = {}


def _of_day(folder: str, day: store.Day) -> list[Seen]:
    """A day's readings; those of a day that has not changed since this process read it."""
    about = [(one.st_ino, one.st_size, one.st_mtime_ns) for one in map(os.stat, day.paths)]
    held = _days.get((folder, day.name))
    if held is None or held[0] != about:
        held = _days[folder, day.name] = (about, _read_day(folder, day))
    return held[1]


def _read_day(folder: str, day: store.Day) -> list[Seen]:
    """A day's readings: those that were kept, and those of the lines since."""
    place = os.path.join(folder, "summaries", f"meters.{_FORMAT}", f"{day.name}.json")
    known, found = _kept(place, day)
    reads: dict[str, Read] = {}
    fresh = 0
    for path in day.paths:
        before = known.get(os.path.basename(path))
        read, data = _since(path, before.offset if before else 0)
        reads[os.path.basename(path)] = read
        fresh += len(data)
        found += limit_windows.seen(_meters(data))
    if fresh > _SLACK or (fresh and not known):
        _keep(place, reads, found)
    return found


def _kept(place: str, day: store.Day) -> tuple[dict[str, Read], list[Seen]]:
    """What was kept of a day, if its files have only grown since; nothing otherwise."""
    kept = datadir.read_json(place)
    try:
        reads = {name: Read(*read) for name, read in kept["files"].items()}
        if reads.keys() <= {os.path.basename(path) for path in day.paths} and all(
            _is_same(path, reads.get(os.path.basename(path))) for path in day.paths
        ):
            return reads, seen_of(kept["rows"], kept["keys"])
    except (TypeError, LookupError, ValueError, AttributeError, OSError):
        pass
    return {}, []


def _is_same(path: str, known: Read | None) -> bool:
    """Whether a file that was read is still there, longer at most."""
    if known is None:
        return True
    with open(path, "rb", buffering=0) as file:
        about = os.fstat(file.fileno())
        if about.st_ino != known.inode or about.st_size < known.offset:
            return False
        return os.pread(file.fileno(), _TAIL, max(known.offset - _TAIL, 0))[: known.offset].hex() == known.tail


def _since(path: str, offset: int) -> tuple[Read, bytes]:
    """The whole lines of a file from an offset on, and how far it was read then."""
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        data = file.read()
        if path.endswith(".gz"):
            end, data = offset + len(data), _unpacked(data)
        else:
            data = data[: data.rfind(b"\n") + 1]  # the last line may still be being written
            end = offset + len(data)
        tail = os.pread(file.fileno(), min(_TAIL, end), max(end - _TAIL, 0))
        return Read(os.fstat(file.fileno()).st_ino, end, tail.hex()), data


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""  # tok-log verify says so


def _meters(data: bytes) -> Iterator[dict[str, Any]]:
    """The lines in which a reading stands."""
    at = data.find(_NEEDLE)
    while at >= 0:
        start, stop = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
        if stop < 0:
            return
        with contextlib.suppress(ValueError):  # torn: tok-log verify says so
            yield orjson.loads(data[start:stop])
        at = data.find(_NEEDLE, stop)


def _keep(place: str, reads: Mapping[str, Read], found: Iterable[Seen]) -> None:
    keys, rows = rows_of(found)
    made = orjson.dumps({"files": {name: list(read) for name, read in reads.items()}, "keys": keys, "rows": rows})
    with contextlib.suppress(OSError):
        datadir.made(os.path.dirname(os.path.dirname(place)))
        datadir.made(os.path.dirname(place))
        datadir.replace(place, made, durable=False)


def rows_of(found: Iterable[Seen]) -> tuple[Rows, Rows]:
    """Readings as JSON: what they share, and each one's number there, moment, share and reset; repetitions left out."""
    keys: dict[tuple[Any, ...], int] = {}
    rows = dict.fromkeys(
        (
            keys.setdefault((*one.key, one.minutes, one.status, one.source, one.plan), len(keys)),
            one.at,
            one.used,
            one.resets_at,
        )
        for one in found
    )
    return [list(key) for key in keys], [list(row) for row in rows]


def seen_of(rows: Rows, keys: Rows) -> list[Seen]:
    """What rows_of gave, as readings. Raises TypeError, ValueError, IndexError."""
    shared = [(Key(*key[:4]), *key[4:]) for key in keys]
    made = []
    for number, at, used, resets_at in rows:
        key, minutes, status, source, plan = shared[number]
        made.append(Seen(key, minutes, at, used, resets_at, status, source, plan))
    return made
