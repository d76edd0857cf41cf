"""Sums of closed days, so that a year of a million turns answers in a third of a second.

A summary holds what rolling up the day's turns gives: by session, and by session and quarter of an hour. It is keyed by
the sizes of the files it was made from and by the catalogue, so it is never stale; it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import orjson

from tokenops import coverage, datadir, events, projects, rollup, store, when, workers
from tokenops.events import Event

# What decides whether a plan covers a turn is among them (coverage).
BY = ("client", "project", "project_id", "agent", "workflow", "session", "account", "credential")
FORMAT = 3
# Days that are added up in one go: one more is read on either side.
_AT_ONCE = 32
_ROUND = b'"kind":"work"'
Refuse = Callable[[str, str], None]
Sizes = dict[str, list[int]]
# What a day is asked for: its totals, or its quarters where it lies in several buckets.
TOTALS, QUARTERS = "totals", "quarters"


def rows(
    folder: str,
    plan: rollup.Plan,
    now: int,
    since: str = "",
    until: str = "9",
    wanted: events.Filter = events.EVERY,
    refuse: Refuse = lambda place, why: None,
    cover: coverage.Coverage | None = None,
) -> list[Event]:
    """The rows of a span of the log, exactly as rolling up its events gives them; with what covers them, if asked for."""
    if cover is not None:
        plan = plan._replace(by=(*plan.by, coverage.GROUP))
    sums = rollup.Rollup(plan)
    for record in records(folder, plan, now, since, until, refuse, cover.edges if cover else ()):
        if wanted.takes(record):
            sums.add(cover.marked(record) if cover else record)
    return list(sums.rows())


def records(
    folder: str,
    plan: rollup.Plan,
    now: int,
    since: str = "",
    until: str = "9",
    refuse: Refuse = lambda place, why: None,
    edges: Sequence[str] = (),
) -> Iterator[Event]:
    """What a span of the log adds up from: rows of the closed days, in the plan's unit, and the events of the others.

    A closed day that one of the `edges` divides is given in quarters.
    """
    names = store.labels(folder)
    closed = closed_before(now)
    sizes = sizes_of(folder)
    spans: list[tuple[str, str]] = []  # what has no summary, in stretches
    for day in store.days(folder):
        begins, ends = f"{day.name}T00:00:00.000Z", midnight_after(day.name)
        if ends <= since or begins >= until:
            continue
        if day.name < closed and since <= begins and ends <= until:
            for record in summed(folder, day.name, plan, sizes, refuse, any(begins < edge < ends for edge in edges)):
                yield projects.relabelled(record, names)
        elif spans and spans[-1][1] == begins:
            spans[-1] = (spans[-1][0], min(until, ends))
        else:
            spans.append((max(since, begins), min(until, ends)))
    for first, last in spans:
        for line in store.scan(folder, first, last, refuse):
            yield projects.relabelled(orjson.loads(line), names)


def closed_before(now: int) -> str:
    """The first day that is not closed: yesterday, whose last turns may still be sighted again today."""
    return when.stamp(now - when.DAY)[:10]


def midnight_after(day: str) -> str:
    """The moment at which a day of UTC ends."""
    return when.stamp(when.moment(f"{day}T00:00:00Z") + when.DAY)


def summed(folder: str, day: str, plan: rollup.Plan, sizes: Sizes, refuse: Refuse, divided: bool = False) -> Iterator[Event]:
    """A closed day's rows in the unit that was asked for, and its session totals that stand for turns."""
    unit = plan.unit
    kind, label = QUARTERS if divided else TOTALS, ""
    if unit:
        buckets = when.Buckets(unit, plan.tz)
        label, last = buckets.of(f"{day}T00:00:00.000Z"), buckets.of(f"{day}T23:59:59.999Z")
        kind = TOTALS if label == last and not divided else QUARTERS
    made = kept(folder, day, kind, plan.catalogue, sizes)
    if made is None:
        both = make(folder, [day], plan.catalogue, sizes, refuse).get(day, _EMPTY)
        made = both[(TOTALS, QUARTERS).index(kind)]
    for row in made["rows"]:
        if kind == TOTALS and unit:
            row |= {"by": [*row["by"], unit], "bucket": label, "tz": when.zone_name(plan.tz)}
        yield row
    yield from made["usage"]


def of_days(folder: str, names: Sequence[str], catalogue: Any, refuse: Refuse) -> Iterator[tuple[str, Event, Event]]:
    """The totals and the quarters of each of some days that follow one another, read in one go."""
    day = ""
    held: list[bytes] = []
    for line in store.scan(folder, f"{names[0]}T00:00:00.000Z", midnight_after(names[-1]), refuse):
        if (begun := store.day_of(line)) != day:
            if day:
                yield day, *_summary(held, catalogue)
            day, held = begun, []
        held.append(line)
    if day:
        yield day, *_summary(held, catalogue)


def _summary(lines: list[bytes], catalogue: Any) -> tuple[Event, Event]:
    quarters = rollup.Rollup(rollup.Plan((*BY, when.QUARTER), when.UTC, catalogue))
    usage = []
    for line in lines:
        if line.startswith(_ROUND, store.KIND):
            continue  # of which nothing is added up here
        event = orjson.loads(line)
        if event["kind"] == "turn":
            quarters.add(event)
        elif event["kind"] == "usage":
            usage.append(event)
    rows = list(quarters.rows())
    totals = rollup.rolled(rows, rollup.Plan(BY, when.UTC, catalogue), lambda why: None)
    return {"rows": totals, "usage": usage}, {"rows": rows, "usage": usage}


def make(
    folder: str,
    names: Sequence[str],
    catalogue: Any,
    sizes: Sizes,
    refuse: Refuse,
    told: Callable[[int], None] = lambda size: None,
) -> dict[str, tuple[Event, Event]]:
    """Keep the summaries of closed days that follow one another, where there is room; the last of them is given."""
    last: dict[str, tuple[Event, Event]] = {}
    made = dict.fromkeys(names, _EMPTY)
    for name, *both in of_days(folder, names, catalogue, refuse):
        made[name] = (both[0], both[1])
        _keep(folder, name, made[name], catalogue, sizes)
        told(sum(sizes.get(name, ())[::2]))
        last = {name: made.pop(name)}
    for name, empty in made.items():
        _keep(folder, name, empty, catalogue, sizes)
    return last


_EMPTY: tuple[Event, Event] = ({"rows": [], "usage": []}, {"rows": [], "usage": []})


def _keep(folder: str, day: str, both: tuple[Event, Event], catalogue: Any, sizes: Sizes) -> None:
    at = _folder(folder, catalogue)
    with contextlib.suppress(OSError):
        datadir.made(os.path.dirname(at))
        datadir.made(at)
        key = {"key": _key(day, sizes)}
        # Both in one file, the totals in its first line: making a file costs more than adding up a day.
        datadir.replace(os.path.join(at, f"{day}.json"), b"\n".join(orjson.dumps(key | one) for one in both), durable=False)


def _folder(folder: str, catalogue: Any) -> str:
    """A catalogue's own: where prices change, all summaries are made anew."""
    return os.path.join(folder, "summaries", f"{FORMAT}.{events.VERSION}.{catalogue.digest}")


def kept(folder: str, day: str, kind: str, catalogue: Any, sizes: Sizes) -> Event | None:
    """A summary that was kept, if it still says what the log says."""
    try:
        with open(os.path.join(_folder(folder, catalogue), f"{day}.json"), "rb") as file:
            totals = file.readline()
            found = orjson.loads(totals if kind == TOTALS else file.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("key") == _key(day, sizes) else None


def refresh(folder: str, catalogue: Any, now: int, told: Callable[[int], None] = lambda size: None) -> int:
    """Make the summaries of closed days that are missing or older than the day's files; how many."""
    at, closed = _folder(folder, catalogue), closed_before(now)
    try:
        held = {entry.name[:10]: entry.stat().st_mtime_ns for entry in os.scandir(at) if entry.name.endswith(".json")}
    except FileNotFoundError:
        held = {}
    sizes = sizes_of(folder)
    changed = {day.name: max(_mtime(path) for path in day.paths) for day in store.days(folder)}
    stale = [
        name for name in changed if name < closed and held.get(name, 0) <= max(changed.get(other, 0) for other in near(name))
    ]
    runs = {run[at]: run[at : at + _AT_ONCE] for run in _runs(stale) for at in range(0, len(run), _AT_ONCE)}

    def work(share: Iterable[str], say: Callable[[int], None]) -> None:
        for first in share:
            make(folder, runs[first], catalogue, sizes, lambda place, why: None, say)

    size = sum(sum(sizes[name][::2]) for name in stale)
    workers.answers(work, list(runs), workers.processors() if size >= workers.WORTHWHILE else 1, told)
    if stale and not held:
        for old in os.listdir(os.path.dirname(at)):
            if old != os.path.basename(at):
                shutil.rmtree(os.path.join(os.path.dirname(at), old), ignore_errors=True)
    return len(stale)


def _runs(days: Iterable[str]) -> Iterator[list[str]]:
    """Days that follow one another, together."""
    run: list[str] = []
    for day in days:
        if run and not store.follows(run[-1], day):
            yield run
            run = []
        run.append(day)
    if run:
        yield run


def sizes_of(folder: str) -> Sizes:
    """Day -> sizes and inodes of its files."""
    return {day.name: [number for path in day.paths for number in _about(path)] for day in store.days(folder)}


def _about(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_ino


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def near(day: str) -> list[str]:
    """A day and its neighbours: a turn near midnight may have a sighting in the file before or after."""
    at, step = datetime.date.fromisoformat(day), datetime.timedelta(1)
    return [(at - step).isoformat(), day, (at + step).isoformat()]


def _key(day: str, sizes: Sizes) -> list[list[int]]:
    """What a summary was made from."""
    return [sizes.get(name, []) for name in near(day)]
