"""Spending in every shape the dashboard shows, added up in one pass, and what the coming hours will likely cost.

Each record is summed once, in stretches between the moments that matter (the span's bounds, midnight, an hour ago, now);
what is shown is rolled up from those, and a rollup of rollups is exact.
"""

from __future__ import annotations

import datetime
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import budgets, burn, coverage, dash_cache, dash_query, dash_sums, events, pricing, rollup, store_days, when
from tokenops.dash_query import Ask, Span
from tokenops.dash_sums import Closed, Cut, Part, choices, dearest, priced, total_of
from tokenops.events import Event
from tokenops.plans import Binding
from tokenops.store_days import Files, Recent

WEEKS, LEAST_DAYS = 4, 7

METHOD = "climatology"

# The moment at which an hour or a day begins -> what it cost.
Costs = Mapping[int, Decimal]


def expected(costs: Costs, now: int, known: int, ahead: Sequence[tuple[int, int]], tz: datetime.tzinfo) -> list[Event]:
    """What each of some spans to come is likely to cost, as `{ts, until, cost_usd: {p10, p50, p90}, days}`.

    `costs` holds what is not 0, whole spans only; `known`: since when. A span of an hour is compared to the same hours, a
    longer one to days of its kind, working days or the others. Those with too little past are left out.
    """
    made = []
    for start, end in ahead:
        past = [costs.get(at, pricing.ZERO) for at in _alike(start, end, now, known, tz)]
        if len(past) >= LEAST_DAYS:
            made.append({"ts": when.stamp(start), "until": when.stamp(end), "cost_usd": quantiles(past), "days": len(past)})
    return made


def _alike(start: int, end: int, now: int, known: int, tz: datetime.tzinfo) -> list[int]:
    """When the spans of the past began that one to come is compared to."""
    found = []
    clock = when.local(start, tz)
    for days in range(1, 7 * WEEKS + 1):
        # The same time of the clock, whatever the clock was changed by in between.
        wall = clock.replace(tzinfo=None) - datetime.timedelta(days)
        at = when.moment(wall.replace(tzinfo=tz).astimezone(when.UTC).isoformat())
        alike = end - start <= HOUR_MS or (wall.weekday() < 5) == (clock.weekday() < 5)
        if alike and at >= known and at + (end - start) <= now:
            found.append(at)
    return found


def spent_at_midnight(costs: Costs, now: int, tz: datetime.tzinfo, spent: Decimal) -> Event | None:
    """What today is likely to have cost at its end, as tok-budget --spend says it of a daily budget."""
    limit = budgets.Limit("today", "daily", Decimal(1), None, 1.0, 1.0, {}, "equivalent")
    hours = [budgets.Hour(at, "", {}, usd, 0, 0) for at, usd in costs.items()]
    found = budgets.forecast(limit, hours, float(spent), 1.0, now, tz)
    if found is None:
        return None
    cost = {name: pricing.plain(Decimal(str(found[name])).quantize(Decimal("0.000001"))) for name in ("p10", "p50", "p90")}
    return {"until": when.stamp(budgets.end("daily", now, tz)), "cost_usd": cost, "days": found["learned_days"]}


def quantiles(past: Sequence[Decimal]) -> dict[str, Any]:
    """The points below which a tenth, half and nine tenths of some amounts lie, as decimal texts."""
    ordered = sorted(past)

    def point(share: Decimal) -> str:
        at = ordered[min(int(share * len(ordered)), len(ordered) - 1)]
        return pricing.plain(at.quantize(Decimal("0.000001")))

    return {"p10": point(Decimal("0.1")), "p50": point(Decimal("0.5")), "p90": point(Decimal("0.9"))}


HOUR_MS = 3_600_000
# How far ahead a chart looks, in its buckets.
AHEAD = {"hour": 6, "day": 3}
# Days, as one filter sees them, whose hours are kept; spans of which the sums of closed days are.
_MOST_DAYS, _MOST_SPANS = 500, 4


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


class Reader:
    """Reads the log of one folder; keeps what does not change between two answers."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.past = dash_cache.Past(folder)
        self.hours = Recent(_MOST_DAYS)
        self.open = dash_sums.Hours()
        self.spans = Recent(_MOST_SPANS)

    def spent(
        self, ask: Ask, now: int, tz: datetime.tzinfo, catalogue: pricing.Catalogue, bound: Sequence[Binding], files: Files
    ) -> Spent:
        """What was spent, under the plans that are bound. Raises dash_query.Bad, OSError."""
        about, wanted = dash_query.span(ask, now, tz), ask.wanted
        midnight, hour, opens = dash_query.midnight(now, tz), now - HOUR_MS, _opens(now)
        until = None if about.open else about.until
        cover = self.past.cover = coverage.Coverage(bound, tz) if bound else None
        by = (*dash_sums.BY, coverage.GROUP) if cover else dash_sums.BY
        plan = rollup.Plan(("hour", *by), tz, catalogue)
        daily = plan if about.unit == "hour" else plan._replace(by=("day", *by))
        first = min(about.since, midnight, hour, opens)
        timed = (about.unit, "project") if ask.stack == "project" else (about.unit,)
        done = self._closed(about, daily, timed, wanted, now, min(midnight, hour, opens), files)
        bounds = (about.since, done.since, done.until, about.until, midnight, hour, opens, now)
        records = self._records(about, plan, now, first, opens, done, files)
        cut = Cut(self.open.rolled(records, plan, bounds), plan, bounds)
        rows = cut.rows_of(about.since, until, wanted)
        sums = dash_sums.summed(done, rows, cut.usage_of(about.since, until, wanted), daily, timed)
        today = self._today(cut, midnight, wanted, plan)
        known = _known(min(filter(None, (done.first, cut.first)), default=""), first, files)
        names, bars = dash_sums.parts(sums.timed, about, plan, known, now, ask.stack)
        expected, at_midnight = self._outlook(cut, ask, now, plan, about, files, today)
        total = total_of(sums.small, plan)
        besides = [*cut.rows_of(about.since, until), *cut.usage_of(about.since, until)]
        return Spent(
            about,
            total,
            today,
            {name: dearest(sums.small, (name,), plan) for name in ("model", "project", "client")},
            sums.sessions,
            names,
            bars,
            sums.totals,
            burn.rate(cut.rows_of(hour, now, wanted), catalogue, min((now - known) // 60_000, 60)),
            expected,
            at_midnight,
            {name: sorted(values | done.choices.get(name, frozenset())) for name, values in choices(besides).items()},
            burn.basis(sums.small, {one.provider: one.plan for one in bound if one.since <= when.bucket(now, "day", tz)}),
            coverage.beside(total, cover, when.stamp(about.since), when.stamp(about.until), tz) if cover else [],
            done.empty and not besides,
        )

    def _today(self, cut: Cut, midnight: int, wanted: events.Filter, plan: rollup.Plan) -> Event:
        """What today cost, session totals included."""
        rows, usage = cut.rows_of(midnight, None, wanted), cut.usage_of(midnight, None, wanted)
        totals = dash_sums.standing(dash_sums.NONE, rows, usage, plan)
        return total_of([*rows, *rollup.rolled(totals, plan, lambda why: None)], plan)

    def _closed(
        self,
        about: Span,
        plan: rollup.Plan,
        timed: tuple[str, ...],
        wanted: events.Filter,
        now: int,
        last: int,
        files: Files,
    ) -> Closed:
        """The whole closed days of a span, up to a moment: kept as long as their files stay."""
        since = -(-about.since // when.DAY) * when.DAY
        until = min(about.until, last) // when.DAY * when.DAY
        if since >= until:
            return dash_sums.NONE._replace(since=about.since, until=about.since)
        begin, end = when.stamp(since), when.stamp(until)
        days = [(day, store_days.key_of(day, files)) for day in files if begin <= f"{day}T00:00:00.000Z" < end]
        bound = self.past.cover.bound if self.past.cover else []
        key = (days, store_days.projects_stamp(self.folder), plan.by, plan.catalogue.digest, bound)
        self.spans.begin()

        def add_up() -> Closed:
            records = self.past.records(plan, now, begin, end, files)
            return dash_sums.closed(records, plan, timed, wanted, (since, until))

        return self.spans.get((wanted, begin, end, timed, str(plan.tz)), key, add_up)

    def _records(
        self, about: Span, plan: rollup.Plan, now: int, first: int, opens: int, done: Closed, files: Files
    ) -> Iterator[Event]:
        """The records beside the closed days; where the span ends in a closed day, no sum of that day reaches beyond it."""
        pieces: list[tuple[int, int | None]] = [(first, done.since), (done.until, None)]
        if about.until <= opens:
            pieces[1:] = [(done.until, about.until), (opens, None)]
        for since, until in pieces:
            if until is None or since < until:
                last = "9" if until is None else when.stamp(until)
                yield from self.past.records(plan, now, when.stamp(since), last, files)

    def _outlook(
        self, cut: Cut, ask: Ask, now: int, plan: rollup.Plan, about: Span, files: Files, today: Event
    ) -> tuple[list[Event], Event | None]:
        """What is likely to come in the next buckets and until midnight, for a span that ends now."""
        tz = plan.tz
        if not about.open or about.unit not in AHEAD or not files:
            return [], None
        spent = self._hours(cut, ask, now, plan, files)
        known = when.moment(f"{min(files)}T00:00:00Z") + when.DAY  # of the first day there may be a part only
        at_midnight = spent_at_midnight(spent, now, tz, Decimal(today.get("cost_usd", "0")))
        if about.unit == "day":
            spent = _by_day(spent, tz)
        length = when.DAY if about.unit == "day" else HOUR_MS
        edges = dash_query.edges(now, now + (AHEAD[about.unit] + 1) * length, about.unit, tz)
        ahead = [pair for pair in itertools.pairwise(edges) if pair[0] >= now][: AHEAD[about.unit]]
        return expected(spent, now, known, ahead, tz), at_midnight

    def _hours(self, cut: Cut, ask: Ask, now: int, plan: rollup.Plan, files: Files) -> dict[int, Decimal]:
        """What each hour of the last weeks cost, where that is not 0."""
        hourly, opens = plan._replace(by=("hour",)), _opens(now)
        found = _by_hour(cut.rows_of(opens, now, ask.wanted), hourly)
        self.hours.begin()
        since, last = when.stamp(now - (7 * WEEKS + 1) * when.DAY)[:10], when.stamp(opens - 1)[:10]
        for day in (day for day in files if since <= day <= last):
            key = (store_days.key_of(day, files), plan.catalogue.digest)
            by_hour = functools.partial(self._day_by_hour, day, ask.wanted, hourly, files)
            # An hour of a zone may lie in two days.
            for at, cost in self.hours.get((day, ask.wanted, str(plan.tz)), key, by_hour).items():
                found[at] = pricing.add(found.get(at, pricing.ZERO), cost)
        return found

    def _day_by_hour(self, day: str, wanted: events.Filter, hourly: rollup.Plan, files: Files) -> dict[int, Decimal]:
        return _by_hour((row for row in self.past.rows(day, hourly, files) if wanted.takes(row)), hourly)


def _known(first: str, since: int, files: Files) -> int:
    """From when on the log knows all; after every moment where it holds nothing."""
    if files and min(files) < when.stamp(since)[:10]:
        return 0
    return when.moment(first) if first else when.moment("9999-01-01T00:00:00Z")


def _opens(now: int) -> int:
    """When the days begin of which no sums are kept."""
    return when.moment(f"{store_days.first_open(now)}T00:00:00Z")


def _by_hour(rows: Iterable[Event], plan: rollup.Plan) -> dict[int, Decimal]:
    turns = (row for row in rows if row["kind"] == "row")
    return {
        when.moment(row["bucket"]): Decimal(row["cost_usd"]) for row in priced(turns, ("hour",), plan) if "cost_usd" in row
    }


def _by_day(hours: Mapping[int, Decimal], tz: datetime.tzinfo) -> dict[int, Decimal]:
    days: dict[int, Decimal] = {}
    for at, cost in hours.items():
        day = dash_query.midnight(at, tz)
        days[day] = pricing.add(days.get(day, pricing.ZERO), cost)
    return days
