"""Reads the log for a server that asks often; closed days stay in memory until their files change.

The result equals that of `store_summaries`, to the last digit; only reading is saved.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator

import orjson

from tokenops import (
    coverage,
    datadir,
    events,
    joins,
    pricing,
    projects,
    rollup,
    store,
    store_days,
    store_summaries,
    tasks,
    when,
)
from tokenops.events import Event
from tokenops.store_days import Files, Recent
from tokenops.tasks import Task

TAGS = frozenset(events.TAGS)
# The most rows and turns in memory, at about a kilobyte each; beyond that days are read again.
MOST_KEPT = 60_000


def state(folder: str, days: Files, files: Iterable[str]) -> str:
    """A name for all that answers are made of: the log's days, its small files, and `files` such as the configuration."""
    stamps = [[path, _stamp(path)] for path in (os.path.join(folder, datadir.DEMO), *filter(None, files))]
    is_known = datadir.last_sync(folder) is not None
    content = orjson.dumps([days, store_days.projects_stamp(folder), stamps, is_known])
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_mtime_ns, status.st_size, status.st_ino]


class Past:
    """The records that the days of a log add up from; with `cover`, each names the plan that covers it.

    The edges of what plans cover are midnights of the reader's zone: no row of an hour or a day lies across one.
    """

    cover: coverage.Coverage | None = None

    def __init__(self, folder: str, open_days: store_days.OpenDays) -> None:
        self.folder = folder
        self.recent = Recent(MOST_KEPT, len)
        self.open_days = open_days

    def records(self, plan: rollup.Grouping, now: int, since: str, until: str, files: Files) -> Iterator[Event]:
        """What a span adds up from: rows of closed days in the plan's unit, and the events of others."""
        first_open, projects_stamp = store_days.first_open(now), store_days.projects_stamp(self.folder)
        mark, bound = (self.cover.mark, self.cover.bound) if self.cover else (_as_is, [])
        is_open = False
        self.recent.begin()
        for day in files:
            if day < since[:10]:
                continue
            begins, ends = f"{day}T00:00:00.000Z", store_days.midnight_after(day)
            if begins >= until:
                break
            if day >= first_open:
                is_open = True
                continue
            key = (store_days.key_of(day, files), projects_stamp, plan.catalogue.digest, bound)
            if since <= begins and ends <= until:
                read = functools.partial(_read_marked, mark, self.rows, day, plan, files)
                by_tag = not TAGS.isdisjoint(plan.by)
                yield from self.recent.get((day, plan.unit, str(plan.tz), by_tag), key, read)
            else:
                read = functools.partial(_read_marked, mark, self._events, day)
                yield from _in_span(self.recent.get((day, ""), key, read), since, until)
        if is_open:  # always from the same day on: what was read of them stays
            yield from map(mark, _in_span(self.open_days.events(first_open), since, until))

    def rows(self, day: str, plan: rollup.Grouping, files: Files) -> Iterator[Event]:
        """The rows of a closed day, in the plan's unit or quarters of an hour, and its session totals."""
        names = store.labels(self.folder)
        for record in store_summaries.day_rows(self.folder, day, plan, files):
            yield projects.relabel(record, names)

    def _events(self, day: str) -> Iterator[Event]:
        """The events of a day."""
        names = store.labels(self.folder)
        for line in store.scan(self.folder, f"{day}T00:00:00.000Z", store_days.midnight_after(day)):
            yield projects.relabel(orjson.loads(line), names)


def _as_is(record: Event) -> Event:
    return record


def _read_marked(mark: Callable[[Event], Event], read: Callable[..., Iterable[Event]], *args: object) -> list[Event]:
    """What a function reads, each record marked with what covers it."""
    return list(map(mark, read(*args)))


def _in_span(records: Iterable[Event], since: str, until: str) -> Iterator[Event]:
    return (event for event in records if since <= event["ts"] < until)


SINCE_MS = 30 * when.DAY
MOST = 8


class Tasks:
    """The tasks of one log."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.recent = Recent(MOST_KEPT, lambda records: 1 + len(records))
        self.took = Recent(MOST)

    def rows(self, now: int, catalogue: pricing.Catalogue, files: Files) -> list[Event]:
        """The newest tasks that were opened in the last thirty days, with what they took, the newest first."""
        every = tasks.tasks_of(self._records(files))
        shown = [task for task in every if task.started >= when.stamp(now - SINCE_MS)][-MOST:]
        self.took.begin()
        return [tasks.row(task, self._took(task, every, now, catalogue, files)) for task in reversed(shown)]

    def _records(self, files: Files) -> Iterator[Event]:
        """The records of tasks, each once."""
        records: dict[str, Event] = {}
        self.recent.begin()
        for day, identity in files.items():
            for record in self.recent.get(day, identity, functools.partial(self._of_day, day)):
                other = records.get(record["id"])
                records[record["id"]] = joins.join(other, record) if other else record
        return iter(records.values())

    def _of_day(self, day: str) -> list[Event]:
        return list(store.of_kind(self.folder, "task", f"{day}T00:00:00.000Z", day))

    def _took(self, task: Task, all_tasks: list[Task], now: int, catalogue: pricing.Catalogue, files: Files) -> Event:
        """What a task took."""
        until = task.ended or when.stamp(now)
        # An open task may grow every second: it is measured once a minute.
        last_day = until[:10] if task.ended else store_days.first_open(now)
        states = [store_days.key_of(day, files) for day in files if task.started[:10] <= day <= last_day]
        open_for = "" if task.ended else until[:16]
        others = [
            (other.name, other.started, other.ended) for other in all_tasks if not other.ended or other.ended > task.started
        ]
        key = (states, open_for, others, catalogue.digest)
        return self.took.get(task.name, key, functools.partial(self._metrics, task, all_tasks, now, catalogue))

    def _metrics(self, task: Task, all_tasks: list[Task], now: int, catalogue: pricing.Catalogue) -> Event:
        records = map(orjson.loads, store.scan(self.folder, task.started, task.ended or "9"))
        return tasks.metrics(all_tasks, records, catalogue, when.stamp(now))[task.name]
