"""What was spent, in every shape that the dashboard shows: the rows of tok-cost and tok-burn, added up in one go.

Each record is summed once, in stretches between the moments that matter (the span's bounds, midnight, an hour ago, now);
what is shown is rolled up from those, and a rollup of rollups is exact.
"""

from __future__ import annotations

import bisect
import datetime
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import burn, coverage, dash_ask, dash_bars, dash_log, events, outlook, pricing, rollup, when
from tokenops.dash_ask import Ask, Span
from tokenops.dash_bars import Part, priced
from tokenops.events import Event
from tokenops.plans import Binding
from tokenops.summaries import Sizes

HOUR_MS = 3_600_000
# What is summed by, beside the hour or day and the price.
_BY = ("client", "project", "session")
# How far ahead a chart looks, in its buckets.
AHEAD = {"hour": 6, "day": 3}
# Days, as one filter sees them, whose hours are kept.
_MOST_DAYS = 500


class Spent(NamedTuple):
    """What was spent. Rows are those of tok-cost, the dearest first."""

    span: Span
    total: Event
    today: Event
    by: Mapping[str, Sequence[Event]]  # model, project, client
    sessions: Sequence[Event]
    names: Sequence[str]  # of what the bars are stacked of
    bars: Sequence[Part]
    totals: Sequence[Event]  # of sessions of which no hour is known: they are in no bar
    lately: Event | None  # the last hour, as tok-burn says it
    expected: Sequence[Event]
    at_midnight: Event | None
    choices: Mapping[str, Sequence[str]]
    basis: str
    worth: Sequence[Event]  # each plan that covered something, beside what it costs
    empty: bool  # there is no record in the span at all, whatever the filter


class Cut:
    """What some records add up to, by hour or day, client, project, session and price, cut at some moments."""

    def __init__(self, records: Iterable[Event], plan: rollup.Plan, bounds: Iterable[int]) -> None:
        self.plan = plan
        self.bounds = [when.stamp(at) for at in sorted(set(bounds))]
        self.first = ""
        self.usage: list[Event] = []
        sums = [rollup.Rollup(plan) for _ in range(len(self.bounds) + 1)]
        for record in records:
            kind = record.get("kind")
            if kind not in ("turn", "row", "usage"):
                continue
            ts = record["from"] if kind == "row" else record["ts"]
            if not self.first or ts < self.first:
                self.first = ts
            if kind == "usage":
                self.usage.append(record)
            else:
                sums[bisect.bisect_right(self.bounds, ts)].take(record, lambda why: None)
        self.rows = [list(one.rows()) for one in sums]

    def between(
        self, since: int, until: int | None = None, wanted: events.Filter = events.EVERY
    ) -> tuple[list[Event], list[Event]]:
        """The rows of a stretch from one of the moments to another (None: to the end), and the totals of sessions."""
        first = bisect.bisect_right(self.bounds, when.stamp(since))
        last = len(self.rows) if until is None else bisect.bisect_left(self.bounds, when.stamp(until)) + 1
        begin, end = when.stamp(since), "9" if until is None else when.stamp(until)
        rows = [row for stretch in self.rows[first:last] for row in stretch if wanted.takes(row)]
        usage = [one for one in self.usage if begin <= one["ts"] < end and wanted.takes(one)]
        if not usage:
            return rows, []
        sums = rollup.Rollup(self.plan)
        for record in (*rows, *usage):
            sums.take(record, lambda why: None)
        return rows, sums.totals()


class Reader:
    """Reads the log of one folder; keeps what does not change between two answers."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.past = dash_log.Past(folder)
        self.hours: dict[tuple[Any, ...], dict[int, Decimal]] = {}

    def spent(
        self, ask: Ask, now: int, tz: datetime.tzinfo, catalogue: pricing.Catalogue, bound: Sequence[Binding], sizes: Sizes
    ) -> Spent:
        """What was spent, under the plans that are bound. Raises dash_ask.Bad, OSError."""
        about, wanted = dash_ask.span(ask, now, tz), ask.wanted
        midnight, hour, opens = dash_ask.midnight(now, tz), now - HOUR_MS, _opens(now)
        until = None if about.open else about.until
        base = "hour" if about.unit == "hour" else "day"
        cover = self.past.cover = coverage.Coverage(bound, tz) if bound else None
        plan = rollup.Plan((base, *_BY, coverage.GROUP) if cover else (base, *_BY), tz, catalogue)
        first = min(about.since, midnight, hour, opens)
        cut = Cut(
            self._records(about, plan, now, first, opens, sizes),
            plan,
            (about.since, about.until, midnight, hour, opens, now),
        )
        rows, totals = cut.between(about.since, until, wanted)
        # Each step is coarser than the one before: a year has 15,000 rows, and none is summed more often than it must be.
        every = with_totals(rows, totals, plan)
        timed = coarser(rows, ("client", "project"), plan, about.unit)
        small = coarser(every if totals else timed, ("client", "project"), plan)
        total = total_of(small, plan)
        today = total_of(with_totals(*cut.between(midnight, None, wanted), plan), plan)
        known = _known(cut.first, first, sizes)
        names, bars = dash_bars.parts(timed, about, plan, known, now, ask.stack)
        expected, at_midnight = self._outlook(cut, ask, now, plan, about, sizes, today)
        anything = (rows, totals) if wanted == events.EVERY else cut.between(about.since, until)
        return Spent(
            about,
            total,
            today,
            {name: _dearest(small, (name,), plan) for name in ("model", "project", "client")},
            _dearest(every, ("session", "project", "client"), plan),
            names,
            bars,
            totals,
            burn.rate(cut.between(hour, now, wanted)[0], catalogue, min((now - known) // 60_000, 60)),
            expected,
            at_midnight,
            _choices(anything[0] + anything[1]),
            burn.basis(small, {one.provider: one.plan for one in bound if one.since <= when.bucket(now, "day", tz)}),
            coverage.beside(total, cover, when.stamp(about.since), when.stamp(about.until), tz) if cover else [],
            not any(anything),
        )

    def _records(self, about: Span, plan: rollup.Plan, now: int, first: int, opens: int, sizes: Sizes) -> Iterator[Event]:
        """The records that are needed; where the span ends in a closed day, no sum of that day reaches beyond it."""
        pieces = [(first, about.until), (opens, None)] if about.until <= opens else [(first, None)]
        for since, until in pieces:
            last = "9" if until is None else when.stamp(until)
            yield from self.past.records(plan, now, when.stamp(since), last, sizes)

    def _outlook(
        self, cut: Cut, ask: Ask, now: int, plan: rollup.Plan, about: Span, sizes: Sizes, today: Event
    ) -> tuple[list[Event], Event | None]:
        """What is likely to come in the next buckets and until midnight, for a span that ends now."""
        tz = plan.tz
        if not about.open or about.unit not in AHEAD or not sizes:
            return [], None
        spent = self._hours(cut, ask, now, plan, sizes)
        known = when.moment(f"{min(sizes)}T00:00:00Z") + when.DAY  # of the first day there may be a part only
        at_midnight = outlook.at_midnight(spent, now, tz, Decimal(today.get("cost_usd", "0")))
        if about.unit == "day":
            spent = _by_day(spent, tz)
        length = when.DAY if about.unit == "day" else HOUR_MS
        edges = dash_ask.edges(now, now + (AHEAD[about.unit] + 1) * length, about.unit, tz)
        ahead = [pair for pair in itertools.pairwise(edges) if pair[0] >= now][: AHEAD[about.unit]]
        return outlook.expected(spent, now, known, ahead, tz), at_midnight

    def _hours(self, cut: Cut, ask: Ask, now: int, plan: rollup.Plan, sizes: Sizes) -> dict[int, Decimal]:
        """What each hour of the last weeks cost, where that is not 0."""
        hourly, opens = plan._replace(by=("hour",)), _opens(now)
        if plan.unit != "hour":
            records = self.past.records(hourly, now, when.stamp(opens), "9", sizes)
            cut = Cut(records, plan._replace(by=("hour", *_BY)), (opens, now))
        found = _by_hour(cut.between(opens, now, ask.wanted)[0], hourly)
        if len(self.hours) > _MOST_DAYS:
            self.hours.clear()
        since, last = when.stamp(now - (7 * outlook.WEEKS + 1) * when.DAY)[:10], when.stamp(opens - 1)[:10]
        for day in (day for day in sizes if since <= day <= last):
            key = (day, str(dash_log.about(day, sizes)), ask.wanted, str(plan.tz), plan.catalogue.digest)
            if key not in self.hours:
                rows = (row for row in self.past.summed(day, hourly, sizes) if ask.wanted.takes(row))
                self.hours[key] = _by_hour(rows, hourly)
            for at, cost in self.hours[key].items():  # an hour of a zone may lie in two days
                found[at] = pricing.add(found.get(at, pricing.ZERO), cost)
        return found


def _known(first: str, since: int, sizes: Sizes) -> int:
    """From when on the log knows all; after every moment where it holds nothing."""
    if sizes and min(sizes) < when.stamp(since)[:10]:
        return 0
    return when.moment(first) if first else when.moment("9999-01-01T00:00:00Z")


def _opens(now: int) -> int:
    """When the days begin of which no sums are kept."""
    return when.moment(f"{dash_log.open_since(now)}T00:00:00Z")


def _by_hour(rows: Iterable[Event], plan: rollup.Plan) -> dict[int, Decimal]:
    turns = (row for row in rows if row["kind"] == "row")
    return {
        when.moment(row["bucket"]): Decimal(row["cost_usd"]) for row in priced(turns, ("hour",), plan) if "cost_usd" in row
    }


def _by_day(hours: Mapping[int, Decimal], tz: datetime.tzinfo) -> dict[int, Decimal]:
    days: dict[int, Decimal] = {}
    for at, cost in hours.items():
        day = dash_ask.midnight(at, tz)
        days[day] = pricing.add(days.get(day, pricing.ZERO), cost)
    return days


def with_totals(rows: Sequence[Event], totals: Sequence[Event], plan: rollup.Plan) -> list[Event]:
    """Rows, and the totals of sessions as rows."""
    return [*rows, *rollup.rolled(totals, plan, lambda why: None)]


def coarser(rows: Sequence[Event], by: tuple[str, ...], plan: rollup.Plan, unit: str = "") -> list[Event]:
    """Rows summed by less."""
    return rollup.rolled(rows, plan._replace(by=dash_bars.covered((unit, *by) if unit else by, plan)), lambda why: None)


def total_of(rows: Sequence[Event], plan: rollup.Plan) -> Event:
    """The one row of `tok-cost --by none`; an empty one where nothing was spent."""
    found = priced(rows, (), plan)
    return found[0] if found else {}


def _dearest(rows: Sequence[Event], by: tuple[str, ...], plan: rollup.Plan) -> list[Event]:
    return sorted(
        priced(rows, by, plan), key=lambda row: (Decimal(row.get("cost_usd", "0")), events.token_sum(row)), reverse=True
    )


def _choices(rows: Iterable[Event]) -> dict[str, list[str]]:
    """What the filters can be set to."""
    seen: dict[str, set[str]] = {"client": set(), "project": set(), "model": set()}
    for row in rows:
        for name, values in seen.items():
            if name in row:
                values.add(str(row[name]))
    return {name: sorted(values) for name, values in seen.items()}
