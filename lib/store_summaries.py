"""Adds up closed days once and keeps the sums, so that a year of turns is reported in a third of a second.

A summary is the rollup of a day's turns by session, and by session and quarter of an hour. It is kept while the day's
files and the prices stay the same (store_days).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

import orjson

from tokenops import events, pricing, projects, store, store_days, store_files, store_months, when, workers
from tokenops.events import Event
from tokenops.jsonl import OnBadLine, ignore_line
from tokenops.store_days import Derived, Files, Recent

if TYPE_CHECKING:
    from tokenops import coverage, rollup

# What decides whether a plan covers a turn is among them (coverage).
BY = ("client", "project", "project_id", "agent", "workflow", "session", "account", "credential", *events.OWNER)
FORMAT = 8
# Rows by tags are many: they are kept apart, for reports that ask for a tag.
_TAGS = frozenset(events.TAGS)
# Days that are added up in one go: one more is read on either side.
_AT_ONCE = 32
_WORK = b'work"'
# What a day is asked for: its sessions; its totals, or its quarters if it lies in several buckets; or the same by tags.
_SESSIONS, _TOTALS, _QUARTERS, _TOTALS_BY_TAG, _QUARTERS_BY_TAG = range(5)
Parts = tuple[Event, Event, Event, Event, Event]
_NOTHING: Event = {"rows": [], "usage": []}
_EMPTY: Parts = ({"sessions": []}, _NOTHING, _NOTHING, _NOTHING, _NOTHING)


def rows(
    folder: str,
    grouping: rollup.Grouping,
    now: int,
    since: str = "",
    until: str = "9",
    only: events.Filter = events.EVERY,
    on_bad_line: OnBadLine = ignore_line,
    cover: coverage.Coverage | None = None,
    past: Past | None = None,
) -> list[Event]:
    """The rows of a span of the log, exactly as rolling up its events gives them; with what covers them, if asked for.

    `past`: what a server keeps of the log between its answers.
    """
    from tokenops import coverage, rollup

    if cover is not None:
        grouping = grouping._replace(by=(*grouping.by, coverage.GROUP))
    sums = rollup.Rollup(grouping)
    edges, usage = cover.edges if cover else (), list[Event]()
    months = _Months(folder, grouping, now, (since, until), only, edges, on_bad_line, past)
    others = records(folder, grouping, now, since, until, on_bad_line, edges, past, months.days)
    for record in itertools.chain(others, months.records(usage)):
        if record["kind"] == "usage":
            usage.append(record)
        if only.takes(record):
            sums.add(cover.mark(record) if cover else record)
    return list(sums.rows())


class _Months:
    """The whole months of a span that a report can be made of; no days if it needs sessions, tags or shorter units."""

    def __init__(
        self,
        folder: str,
        grouping: rollup.Grouping,
        now: int,
        span: tuple[str, str],
        only: events.Filter,
        edges: Sequence[str],
        on_bad_line: OnBadLine,
        past: Past | None,
    ) -> None:
        self.folder, self.grouping, self.on_bad_line, self.past = folder, grouping, on_bad_line, past
        self.months: list[store_months.Month] = []
        if store_months.are_enough(grouping.by, only):
            self.files = store_days.files_of(folder)
            self.months = store_months.whole_months(self.files, store_days.first_open(now), *span, edges)
        self.by_project = store_months.need_projects(grouping.by, only)
        self.days = frozenset(day for month in self.months for day in month.days)

    def records(self, usage: Sequence[Event]) -> Iterator[Event]:
        """What the months add up from. `usage`: the records about whole sessions in the rest of the span."""
        if not self.months:
            return
        names, args = store.labels(self.folder), (self.grouping, self.files, self.on_bad_line)
        kept = _months(self.folder, *args)
        several = [*usage, *(record for month in self.months for record in kept.usage(month))]
        totalled = {record.get("session_id") for record in several if record.get("covers") == events.SESSION}
        for month in self.months:
            if totalled and (None in totalled or not totalled.isdisjoint(kept.sessions(month))):
                rows: Iterable[Event] = (record for day in month.days for record in day_rows(self.folder, day, *args))
            else:
                rows = itertools.chain(self._rows(month, kept), kept.usage(month))
            for record in rows:
                yield projects.relabel(record, names)

    def _rows(self, month: store_months.Month, kept: store_months.Months) -> Iterator[Event]:
        """The rows of a month, in the unit that was asked for."""
        unit, zone = self.grouping.unit, when.zone_name(self.grouping.tz)
        key = kept.key(month), self.grouping.catalogue.digest
        read = functools.partial(kept.rows, month, self.by_project)
        for row in self.past.closed.get((month.name, self.by_project), key, read) if self.past else read():
            yield {**row, "by": [*row["by"], unit], "bucket": month.name, "tz": zone} if unit else row


def _months(folder: str, grouping: rollup.Grouping, files: Files, on_bad_line: OnBadLine) -> store_months.Months:
    by_session = grouping._replace(by=())

    def read(day: str) -> Iterator[Event]:
        return day_rows(folder, day, by_session, files, on_bad_line)

    return store_months.Months(folder, grouping.catalogue, files, read)


def records(
    folder: str,
    grouping: rollup.Grouping,
    now: int,
    since: str = "",
    until: str = "9",
    on_bad_line: OnBadLine = ignore_line,
    edges: Sequence[str] = (),
    past: Past | None = None,
    without: Set[str] = frozenset(),
) -> Iterator[Event]:
    """What a span of the log adds up from: rows of the closed days, in the plan's unit, and the events of the others.

    A closed day that one of the `edges` divides is given in quarters; so is, with `past`, an hour of other days.
    The days `without` are left out.
    """
    names = store.labels(folder)
    first_open = store_days.first_open(now)
    files = store_days.files_of(folder)
    spans: list[tuple[str, str]] = []  # what has no summary, in stretches
    is_open = False
    for day in files:
        begins, ends = f"{day}T00:00:00.000Z", store_days.midnight_after(day)
        if ends <= since or begins >= until or day in without:
            continue
        if day < first_open and since <= begins and ends <= until:
            is_divided = any(begins < boundary < ends for boundary in edges)
            args = folder, day, grouping, files, on_bad_line, is_divided
            for record in day_rows(*args) if past is None else past.day_rows(*args):
                yield projects.relabel(record, names)
        elif past is not None:
            if day < first_open or not is_open:  # the open ones are read together
                yield from past.hours(day, first_open, grouping, files, max(since, begins), until)
            is_open = is_open or day >= first_open
        elif spans and spans[-1][1] == begins:
            spans[-1] = (spans[-1][0], min(until, ends))
        else:
            spans.append((max(since, begins), min(until, ends)))
    for first, last in spans:
        for line in store.scan(folder, first, last, on_bad_line):
            yield projects.relabel(orjson.loads(line), names)


class Past:
    """What a server keeps of a log between answers: rows of closed days, events of open ones, and rows of their hours.

    `records` gives the same sums with it as without it. Use one thread only.
    """

    # At about a kilobyte each.
    MOST_ROWS, MOST_EVENTS = 40_000, 20_000
    # Two days are open, and a span may begin and end within closed ones; each is kept with and without tags.
    MOST_HOURS = 200
    # Fewer events are as soon summed as rows.
    FEW = 20

    def __init__(self, folder: str) -> None:
        self.folder, self.open_days = folder, store_days.OpenDays(folder)
        self.closed, self.events, self.sums = (
            Recent(self.MOST_ROWS, len),
            Recent(self.MOST_EVENTS, len),
            Recent(self.MOST_HOURS),
        )

    def day_rows(
        self, folder: str, day: str, grouping: rollup.Grouping, files: Files, on_bad_line: OnBadLine, is_divided: bool
    ) -> list[Event]:
        """The same as the function of that name."""
        read = functools.partial(day_rows, folder, day, grouping, files, on_bad_line, is_divided)
        name = day, grouping.unit, str(grouping.tz), _TAGS.isdisjoint(grouping.by), is_divided
        return self.closed.get(name, (store_days.key_of(day, files), grouping.catalogue.digest), lambda: list(read()))

    def hours(
        self, day: str, first_open: str, grouping: rollup.Grouping, files: Files, since: str, until: str
    ) -> Iterator[Event]:
        """What a part of a closed day, or of all open days, adds up from: rows of whole hours, and single events."""
        if day >= first_open:
            records = self.open_days.events(first_open)
        else:
            until = min(until, store_days.midnight_after(day))
            key = (store_days.key_of(day, files), store_days.projects_stamp(self.folder))
            records = self.events.get(day, key, functools.partial(self._events, day))
        turns: dict[str, list[Event]] = {}
        for event in records:
            if event["kind"] == "turn":
                turns.setdefault(event["ts"][:13], []).append(event)
            elif since <= event["ts"] < until:
                yield event
        for hour, group in turns.items():
            if len(group) >= self.FEW and since <= f"{hour}:00:00.000Z" and f"{hour}:59:59.999Z" < until:
                yield from self._hour_rows(hour, group, grouping)
            else:
                yield from (event for event in group if since <= event["ts"] < until)

    def _hour_rows(self, hour: str, turns: list[Event], grouping: rollup.Grouping) -> list[Event]:
        """The rows of an hour's turns by quarter, and by all that a summary is by."""
        from tokenops import rollup

        tags = () if _TAGS.isdisjoint(grouping.by) else events.TAGS
        finest = rollup.Grouping((*BY, *tags, when.QUARTER), when.UTC, grouping.catalogue)
        roll_up = functools.partial(rollup.roll_up, turns, finest, lambda why: None)
        return self.sums.get((hour, tags), (turns, grouping.catalogue.digest), roll_up)

    def _events(self, day: str) -> list[Event]:
        names = store.labels(self.folder)
        lines = store.scan(self.folder, f"{day}T00:00:00.000Z", store_days.midnight_after(day))
        return [projects.relabel(orjson.loads(line), names) for line in lines]


def day_rows(
    folder: str,
    day: str,
    grouping: rollup.Grouping,
    files: Files,
    on_bad_line: OnBadLine = ignore_line,
    is_divided: bool = False,
) -> Iterator[Event]:
    """A closed day's rows in the unit that was asked for, and its session totals that stand for turns."""
    unit = grouping.unit
    part, label = _QUARTERS if is_divided else _TOTALS, ""
    if unit:
        buckets = when.Buckets(unit, grouping.tz)
        label, last = buckets.label_of(f"{day}T00:00:00.000Z"), buckets.label_of(f"{day}T23:59:59.999Z")
        part = _TOTALS if label == last and not is_divided else _QUARTERS
    if not _TAGS.isdisjoint(grouping.by):
        part += _TOTALS_BY_TAG - _TOTALS
    key = store_days.key_of(day, files)
    entry = _store(folder, grouping.catalogue).load(day, lambda other: other == key, part)
    summary = entry[1] if entry else make(folder, [day], grouping.catalogue, files, on_bad_line).get(day, _EMPTY)[part]
    for row in summary["rows"]:
        if part in (_TOTALS, _TOTALS_BY_TAG) and unit:
            row |= {"by": [*row["by"], unit], "bucket": label, "tz": when.zone_name(grouping.tz)}
        yield row
    yield from summary["usage"]


def make(
    folder: str,
    days: Sequence[str],
    catalogue: pricing.Catalogue,
    files: Files,
    on_bad_line: OnBadLine = ignore_line,
    progress: Callable[[int], None] = workers.SILENT,
) -> dict[str, Parts]:
    """Keep the summaries of closed days that follow one another, if there is room; the last of them is given."""
    derived = _store(folder, catalogue)
    last: dict[str, Parts] = {}
    empty = dict.fromkeys(days)
    for day, parts in _summaries(folder, days, catalogue, on_bad_line):
        derived.save(day, store_days.key_of(day, files), *parts)
        progress(sum(files.get(day, ())[::2]))
        empty.pop(day, None)
        last = {day: parts}
    for day in empty:
        derived.save(day, store_days.key_of(day, files), *_EMPTY)
    return last


def _store(folder: str, catalogue: pricing.Catalogue) -> Derived:
    return Derived(folder, "sums", f"{FORMAT}-{events.VERSION}", catalogue.digest)


def _summaries(
    folder: str, days: Sequence[str], catalogue: pricing.Catalogue, on_bad_line: OnBadLine
) -> Iterator[tuple[str, Parts]]:
    """The summary of each of some days that follow one another, read in one go."""
    day = ""
    lines: list[bytes] = []
    for line in store.scan(folder, f"{days[0]}T00:00:00.000Z", store_days.midnight_after(days[-1]), on_bad_line):
        if (line_day := store_files.day_of(line)) != day:
            if day:
                yield day, _summary(lines, catalogue)
            day, lines = line_day, []
        lines.append(line)
    if day:
        yield day, _summary(lines, catalogue)


def _summary(lines: list[bytes], catalogue: pricing.Catalogue) -> Parts:
    from tokenops import rollup

    sums = rollup.Rollup(rollup.Grouping((*BY, *events.TAGS, when.QUARTER), when.UTC, catalogue))
    usage = []
    for line in lines:
        if line.startswith(_WORK, store_files.KIND):
            continue  # has nothing to add up
        event = orjson.loads(line)
        if event["kind"] == "turn":
            sums.add(event)
        elif event["kind"] == "usage":
            usage.append(event)
    finest = list(sums.rows())
    quarters = _coarser(finest, (*BY, when.QUARTER), catalogue)
    several = (
        _coarser(quarters, BY, catalogue),
        quarters,
        _coarser(finest, (*BY, *events.TAGS), catalogue),
        finest,
    )
    totals, of_quarters, by_tag, finest_by_tag = ({"rows": rows, "usage": usage} for rows in several)
    names = {"sessions": sorted({row.get("session_id", "") for row in (*totals["rows"], *usage)})}
    return names, totals, of_quarters, by_tag, finest_by_tag


def _coarser(rows: list[Event], by: tuple[str, ...], catalogue: pricing.Catalogue) -> list[Event]:
    from tokenops import rollup

    return rollup.roll_up(rows, rollup.Grouping(by, when.UTC, catalogue), lambda why: None)


class Sessions(NamedTuple):
    """The closed days on which each session has turns or totals, and the days of which that is not known."""

    days: dict[str, list[str]]
    others: frozenset[str]

    def __len__(self) -> int:
        return len(self.days)

    def days_of(self, prefix: str) -> frozenset[str]:
        """The days to read for the sessions that begin with a text, none if no closed day has one; with their neighbours."""
        closed = {day for name, days in self.days.items() if name.startswith(prefix) for day in days}
        return self.others | {other for day in closed for other in store_days.near(day)}


def sessions(folder: str, catalogue: pricing.Catalogue, now: int, files: Files) -> Sessions:
    """On which days each session is in the log, from the summaries that are there. None is made."""
    derived, first_open = _store(folder, catalogue), store_days.first_open(now)
    days: dict[str, list[str]] = {}
    others = set()
    for day in files:
        key = store_days.key_of(day, files)
        entry = derived.load(day, lambda other, key=key: other == key, _SESSIONS) if day < first_open else None  # type: ignore[misc]
        if entry is None:
            others.add(day)
            continue
        for name in entry[1]["sessions"]:
            days.setdefault(name, []).append(day)
    return Sessions(days, frozenset(others))


def refresh(folder: str, catalogue: pricing.Catalogue, now: int, progress: workers.Progress = workers.SILENT) -> int:
    """Make the summaries of closed days that are missing or older than the day's files; how many."""
    derived, first_open = _store(folder, catalogue), store_days.first_open(now)
    saved, changed = derived.saved_at(), store_days.changed_at(folder)
    stale = [
        day
        for day in changed
        if day < first_open and saved.get(day, 0) <= max(changed.get(other, 0) for other in store_days.near(day))
    ]
    files = store_days.files_of(folder)
    runs = {run[at]: run[at : at + _AT_ONCE] for run in _runs(stale) for at in range(0, len(run), _AT_ONCE)}

    def work(share: Iterable[str], on_bytes: Callable[[int], None]) -> None:
        for first in share:
            make(folder, runs[first], catalogue, files, ignore_line, on_bytes)

    sizes = {first: sum(sum(files[day][::2]) for day in run) for first, run in runs.items()}
    progress.expect(sum(sizes.values()))
    workers.answers(work, sizes, workers.worthwhile(sum(sizes.values())), progress)
    if stale and not saved:
        derived.remove_others()
    _refresh_months(folder, catalogue, files, first_open, bool(stale))
    return len(stale)


def _refresh_months(folder: str, catalogue: pricing.Catalogue, files: Files, first_open: str, is_changed: bool) -> None:
    """Make the sums of months that are missing or older than their days."""
    derived = store_months.derived_months(folder, catalogue)
    saved = derived.saved_at()
    if not is_changed and saved:
        return
    from tokenops import rollup

    kept = _months(folder, rollup.Grouping((), when.UTC, catalogue), files, ignore_line)
    kept.refresh(store_months.whole_months(files, first_open, "", "9"))
    if not saved:
        derived.remove_others()


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
