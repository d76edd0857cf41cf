"""Caches for a server that reads the log again and again: closed days stay in memory as long as their files do.

What is given is what `summaries` gives, to the last digit; only the reading is saved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import orjson

from tokenops import coverage, datadir, events, pricing, projects, rollup, store, store_summaries, tasks, when
from tokenops.events import Event
from tokenops.store_summaries import Sizes
from tokenops.tasks import Task

# So many bytes before where reading stopped tell whether a file has only grown: a write that failed is taken back.
_MARK = 512

# Rows and turns that are kept, at about a kilobyte each; beyond that what is needed is read again.
MOST_KEPT = 60_000


def state(folder: str, sizes: Sizes, files: Iterable[str]) -> str:
    """A name for all that answers are made of: the log's days, its small files, and `files` such as the configuration."""
    small = [os.path.join(folder, name) for name in ("projects.json", datadir.DEMO)]
    about = [[path, _stamp(path)] for path in (*small, *filter(None, files))]
    known = datadir.synced(folder) is not None
    return hashlib.blake2b(orjson.dumps([sizes, about, known]), digest_size=12).hexdigest()


def _stamp(path: str) -> list[int]:
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def open_since(now: int) -> str:
    """The first day of which no sums are kept."""
    return store_summaries.closed_before(now)


def day_state(day: str, sizes: Sizes) -> list[list[int] | None]:
    """What a day's sums were made from: its files, and those of its neighbours."""
    return [sizes.get(name) for name in store_summaries.near(day)]


class Tail:
    """The records of the days that still grow, each once: as store.scan gives them, but read only as far as they are new.

    Where nothing but the last day's file has grown, its new lines are taken in after all others, as a scan would.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.key: list[Any] = []
        self.last = ("", 0, 0, b"")  # the file that may grow: its path, inode, how far it was read, and what stood there
        self.pools: list[store.Pool] = []
        self.parsed: list[dict[str, tuple[bytes, Event]]] = []

    def events(self, first: str, names: list[int]) -> list[Event]:
        """The records from a day on. `names`: stands for the names of projects. Raises OSError."""
        before = when.stamp(when.moment(f"{first}T00:00:00Z") - when.DAY)[:10]
        days = store.days(self.folder, before)
        *others, path = [path for day in days for path in day.paths]
        key = [names, first, path, [[one, _stamp(one)] for one in others]]
        fresh = self._grown(path) if key == self.key else None
        if fresh is None:
            self._read(days)
            self.key = key
        else:
            for name, line in fresh:
                self._add(name, line)
        labels = store.labels(self.folder)
        skipped = 1 if days[0].name < first else 0
        return [event for at in range(skipped, len(self.pools)) for event in self._parsed(at, labels)]

    def _grown(self, path: str) -> list[tuple[str, bytes]] | None:
        """Identity and line of what a file holds since it was read last; None where it did not only grow."""
        known, inode, offset, mark = self.last
        with open(path, "rb", buffering=0) as file:
            about = os.fstat(file.fileno())
            if (path, about.st_ino) != (known, inode) or about.st_size < offset or path.endswith(".gz"):
                return None
            file.seek(offset - len(mark))
            data = file.read()
        if not data.startswith(mark):
            return None
        data = data[: data.rfind(b"\n") + 1]
        self.last = (path, inode, offset + len(data) - len(mark), data[-_MARK:])
        data = data[len(mark) :]
        found = (store.identified(line) for line in data.splitlines(keepends=True))
        return [one for one in found if one is not None]

    def _read(self, days: Sequence[store.Day]) -> None:
        """Read all, the last day's file as far as it is whole now: what is read twice changes nothing."""
        path = days[-1].paths[-1]
        with open(path, "rb", buffering=0) as file:
            inode, data = os.fstat(file.fileno()).st_ino, file.read()
            whole = data[: data.rfind(b"\n") + 1]
        self.pools, self.parsed = [], []
        previous = ""
        for day in days:
            if previous and not store.follows(previous, day.name):
                self._open()
            self._open()
            for name, line in store.sightings(day, lambda place, why: None):
                self._add(name, line)
            previous = day.name
        self.last = (path, inode, len(whole), whole[-_MARK:])

    def _open(self) -> None:
        self.pools.append(store.Pool())
        self.parsed.append({})

    def _add(self, name: str, line: bytes) -> None:
        """Take in a sighting of the last day; one of a record of the day before is that day's."""
        pool = self.pools[-1]
        before = self.pools[-2] if len(self.pools) > 1 else None
        if before is not None and (name in before or (name not in pool and before.awaits(line))):
            pool = before
        pool.add(name, line)

    def _parsed(self, at: int, labels: dict[str, str]) -> list[Event]:
        held, lines = self.parsed[at], self.pools[at].lines
        for name, line in lines.items():
            known = held.get(name)
            if known is None or known[0] is not line:
                held[name] = (line, projects.relabelled(orjson.loads(line), labels))
        return [event for _, event in held.values()]


class Past:
    """What the days of a log add up from; with `cover`, each record says which plan covers it.

    The edges of what plans cover are midnights of the reader's zone: no row of an hour or a day lies across one.
    """

    cover: coverage.Coverage | None = None

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.kept: dict[Hashable, tuple[Any, list[Event]]] = {}
        self.tail = Tail(folder)

    def records(self, plan: rollup.Plan, now: int, since: str, until: str, sizes: Sizes) -> Iterator[Event]:
        """What a span adds up from: rows of closed days in the plan's unit, and the events of others."""
        closed, names = open_since(now), self.names()
        mark, bound = (self.cover.marked, self.cover.bound) if self.cover else (_unmarked, [])
        tail: list[str] = []
        self._forget()
        for day in sizes:
            if day < since[:10]:
                continue
            begins, ends = f"{day}T00:00:00.000Z", store_summaries.midnight_after(day)
            if begins >= until:
                break
            if day >= closed:
                tail.append(day)
                continue
            key = [day_state(day, sizes), names, plan.catalogue.digest, bound]
            if since <= begins and ends <= until:
                fresh = map(mark, self.summed(day, plan, sizes))
                yield from self._held((day, plan.unit, str(plan.tz)), key, fresh)
            else:
                yield from _between(self._held((day, ""), key, map(mark, self._events(day))), since, until)
        if tail:
            yield from map(mark, _between(self.tail.events(tail[0], names), since, until))

    def names(self) -> list[int]:
        """What stands for the names of projects."""
        return _stamp(os.path.join(self.folder, "projects.json"))

    def _held(self, name: Hashable, key: Any, fresh: Iterator[Event]) -> list[Event]:
        """What is kept under a name, if it is still true; else what `fresh` gives, which is only asked then."""
        found = self.kept.pop(name, None)
        rows = found[1] if found is not None and found[0] == key else list(fresh)
        self.kept[name] = (key, rows)  # what was used last stands last
        return rows

    def _forget(self) -> None:
        """Let go of what was used least lately."""
        size = sum(len(rows) for _, rows in self.kept.values())
        for name in list(self.kept):
            if size <= MOST_KEPT:
                return
            size -= len(self.kept.pop(name)[1])

    def summed(self, day: str, plan: rollup.Plan, sizes: Sizes) -> Iterator[Event]:
        """The rows of a closed day, in the plan's unit or quarters of an hour, and its session totals."""
        names = store.labels(self.folder)
        for record in store_summaries.summed(self.folder, day, plan, sizes, lambda place, why: None):
            yield projects.relabelled(record, names)

    def _events(self, day: str) -> Iterator[Event]:
        """The events of a day."""
        names = store.labels(self.folder)
        for line in store.scan(self.folder, f"{day}T00:00:00.000Z", store_summaries.midnight_after(day)):
            yield projects.relabelled(orjson.loads(line), names)


def _unmarked(record: Event) -> Event:
    return record


def _between(found: Iterable[Event], since: str, until: str) -> Iterator[Event]:
    return (event for event in found if since <= event["ts"] < until)


SINCE_MS = 30 * when.DAY
MOST = 8


class Tasks:
    """The tasks of one log."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.days: dict[str, tuple[list[int], list[Event]]] = {}
        self.took: dict[str, tuple[str, Event]] = {}

    def rows(self, now: int, catalogue: pricing.Catalogue, sizes: Sizes) -> list[Event]:
        """The newest tasks that were opened in the last thirty days, with what they took, the newest first."""
        found = tasks.tasks(self._records(sizes))
        shown = [one for one in found if one.started >= when.stamp(now - SINCE_MS)][-MOST:]
        self.took = {one.name: self._took(one, found, now, catalogue, sizes) for one in shown}
        return [tasks.row(one, self.took[one.name][1]) for one in reversed(shown)]

    def _records(self, sizes: Sizes) -> Iterator[Event]:
        """The records of tasks, each once."""
        known: dict[str, Event] = {}
        for day, about in sizes.items():
            held = self.days.get(day)
            if held is None or held[0] != about:
                found = list(store.of_kind(self.folder, "task", f"{day}T00:00:00.000Z", day))
                held = self.days[day] = (about, found)
            for record in held[1]:
                seen = known.get(record["id"])
                known[record["id"]] = events.join(seen, record) if seen else record
        for gone in self.days.keys() - sizes.keys():
            del self.days[gone]
        return iter(known.values())

    def _took(self, one: Task, found: list[Task], now: int, catalogue: pricing.Catalogue, sizes: Sizes) -> tuple[str, Event]:
        """What a task took, with a name for all that it was worked out from."""
        until = one.ended or when.stamp(now)
        # A task that is open may grow by the second: it is looked at once a minute.
        last_day = until[:10] if one.ended else open_since(now)
        about = [day_state(day, sizes) for day in sizes if one.started[:10] <= day <= last_day]
        open_for = "" if one.ended else until[:16]
        others = [
            (other.name, other.started, other.ended) for other in found if not other.ended or other.ended > one.started
        ]
        key = orjson.dumps([about, open_for, others, catalogue.digest]).decode()
        held = self.took.get(one.name)
        if held is not None and held[0] == key:
            return held
        last = one.ended or "9"
        records = map(orjson.loads, store.scan(self.folder, one.started, last))
        return key, tasks.measured(found, records, catalogue, when.stamp(now))[one.name]
