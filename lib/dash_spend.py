"""Adds up spending in every way that the dashboard shows, and forecasts the coming hours.

Each record is summed once, in stretches between the moments that matter (the span's bounds, midnight, an hour ago,
now). What is shown is rolled up from these sums; a rollup of rollups is exact.
"""

from __future__ import annotations

import datetime
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import (
    budgets,
    burn,
    coverage,
    dash_cache,
    dash_query,
    dash_sums,
    events,
    pricing,
    rollup,
    store_days,
    store_summaries,
    when,
)
from tokenops.dash_query import Ask, Span
from tokenops.dash_sums import Closed, Cut, Moments, Part, Quiet, choices, price_by, total_of
from tokenops.events import Event
from tokenops.plans import Binding
from tokenops.store_days import Files, Recent

WEEKS, LEAST_DAYS = 4, 7

METHOD = "climatology"

# The moment at which an hour or a day begins -> what it cost.
Costs = Mapping[int, Decimal]


def outlook(
    costs: Costs, now: int, complete_since: int, ahead: Sequence[tuple[int, int]], tz: datetime.tzinfo
) -> list[Event]:
    """What each of some spans to come is likely to cost, as `{ts, until, cost_usd: {p10, p50, p90}, days}`.

    `costs` holds what is not 0, of whole spans only, and is complete from `complete_since` on. A span of an hour is compared
    to the same hours of other days, a longer one to days of its kind: working days or the others. Spans with too little past
    are left out.
    """
    rows = []
    for start, end in ahead:
        past = [costs.get(at, pricing.ZERO) for at in _alike(start, end, now, complete_since, tz)]
        if len(past) >= LEAST_DAYS:
            rows.append({"ts": when.stamp(start), "until": when.stamp(end), "cost_usd": quantiles(past), "days": len(past)})
    return rows


def _alike(start: int, end: int, now: int, complete_since: int, tz: datetime.tzinfo) -> list[int]:
    """When the spans of the past began that one to come is compared to."""
    begins = []
    clock = when.local(start, tz)
    for days in range(1, 7 * WEEKS + 1):
        # The same time of the clock, whatever the clock was changed by in between.
        wall = clock.replace(tzinfo=None) - datetime.timedelta(days)
        at = when.moment(wall.replace(tzinfo=tz).astimezone(when.UTC).isoformat())
        alike = end - start <= HOUR_MS or (wall.weekday() < 5) == (clock.weekday() < 5)
        if alike and at >= complete_since and at + (end - start) <= now:
            begins.append(at)
    return begins


def spent_at_midnight(costs: Costs, now: int, tz: datetime.tzinfo, spent: Decimal) -> Event | None:
    """What today is likely to cost by its end, as tok-budget --spend forecasts a daily budget."""
    limit = budgets.Budget("today", "daily", Decimal(1), None, 1.0, 1.0, {}, "equivalent")
    hours = [budgets.Hour(at, "", {}, usd, 0, 0) for at, usd in costs.items()]
    forecast = budgets.forecast(limit, hours, float(spent), 1.0, now, tz)
    if forecast is None:
        return None
    cost = {
        name: pricing.plain(Decimal(str(forecast[name])).quantize(Decimal("0.000001"))) for name in ("p10", "p50", "p90")
    }
    return {"until": when.stamp(budgets.end("daily", now, tz)), "cost_usd": cost, "days": forecast["learned_days"]}


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
# The most days, per filter, whose hours stay in memory; the most spans whose closed days do.
_MOST_DAYS, _MOST_SPANS = 1000, 8
# So many days are read by hour in one go, so that a request waits at most 50 ms for it.
AT_ONCE = 10


class Spent(NamedTuple):
    """What was spent. Rows are those of tok-cost, the most expensive first."""

    span: Span
    total: Event
    today: Event
    by: Mapping[str, Sequence[Event]]  # model, project, client
    sessions: Sequence[Event]
    names: Sequence[str]  # of what the bars are stacked of
    bars: Sequence[Part]
    totals: Sequence[Event]  # of sessions with an unknown hour: they are in no bar
    lately: Event | None  # the last hour, as in tok-burn
    expected: Sequence[Event]
    at_midnight: Event | None
    choices: Mapping[str, Sequence[str]]
    basis: str
    worth: Sequence[Event]  # each plan that covered something, with its price
    empty: bool  # there is no record in the span, whatever the filter
    before: Event | None  # the total of the span before, of the same length; None if the log does not reach back to it


class Reader:
    """Reads the log of one folder; keeps what does not change between two answers."""

    def __init__(self, folder: str, shared: store_summaries.Past | None = None) -> None:
        self.folder = folder
        self.past = dash_cache.Past(folder, shared.open_days if shared else store_days.OpenDays(folder))
        self.hours = Recent(_MOST_DAYS)
        self.open = dash_sums.Hours()
        self.spans = Recent(_MOST_SPANS)
        self.ends = Recent(_MOST_DAYS)
        self.quiet = Recent(_MOST_SPANS)

    def read(
        self, ask: Ask, now: int, tz: datetime.tzinfo, catalogue: pricing.Catalogue, bound: Sequence[Binding], files: Files
    ) -> Spent:
        """What was spent, under the plans that are bound. Raises dash_query.Bad, OSError."""
        span, only = dash_query.span(ask, now, tz), ask.only
        midnight, hour, opens = dash_query.midnight(now, tz), now - HOUR_MS, _opens(now)
        until = None if span.open else span.until
        cover = self.past.cover = coverage.Coverage(bound, tz) if bound else None
        tag = (ask.stack,) if ask.stack in events.TAGS else ()
        plan, daily = _groupings(span, tz, catalogue, cover, tag)
        first = min(span.since, midnight, hour, opens)
        timed = (span.unit, ask.stack) if ask.stack in ("project", "client", *events.OWNER, *tag) else (span.unit,)
        quiet, cut = self._sums(span, (plan, daily), timed, only, now, midnight, files)
        done = quiet.done
        rows, usage = cut.rows_of(span.since, until, only), cut.usage_of(span.since, until, only)
        sums = dash_sums.span_sums(done, rows, usage, daily)
        today = self._today(quiet.today, cut, midnight, only, plan)
        first_record = min(filter(None, (quiet.first, done.first, cut.first)), default="")
        complete_since = _complete_since(first_record, first, files)
        names, bars = dash_sums.parts(dash_sums.Bars(done, rows, daily), span, complete_since, now, ask.stack)
        expected, at_midnight = self._outlook((quiet.costs, cut), ask, now, plan, span, files, today)
        total, today_name = total_of(sums.by_price, plan), when.bucket(now, "day", tz)
        besides = [*cut.rows_of(span.since, until), *cut.usage_of(span.since, until)]
        return Spent(
            span,
            total,
            today,
            {name: sums.dearest(name) for name in ("model", "project", "client")},
            sums.sessions,
            names,
            bars,
            sums.totals,
            burn.rate(cut.rows_of(hour, now, only), catalogue, min((now - complete_since) // 60_000, 60)),
            expected,
            at_midnight,
            {name: sorted(values | done.choices.get(name, frozenset())) for name, values in choices(besides).items()},
            burn.basis(sums.by_price, {each.provider: each.plan for each in bound if each.since <= today_name}),
            coverage.plan_worth(total, cover, when.stamp(span.since), when.stamp(span.until), tz) if cover else [],
            done.empty and not besides,
            self._total_before(dash_query.span_before(ask, span, tz), daily, only, now, min(midnight, hour, opens), files),
        )

    def _sums(
        self,
        span: Span,
        plans: tuple[rollup.Grouping, rollup.Grouping],
        timed: tuple[str, ...],
        only: events.Filter,
        now: int,
        midnight: int,
        files: Files,
    ) -> tuple[Quiet, Cut]:
        """What the closed days of a span and the hours without news add up to, and the other records."""
        plan, daily = plans
        hour, opens = now - HOUR_MS, _opens(now)
        done = self._closed_days(span, daily, timed, only, now, min(midnight, hour, opens), files)
        bounds = (span.since, done.since, done.until, span.until, midnight, hour, opens, now)
        records = self._records(span, plan, now, min(span.since, midnight, hour, opens), opens, done, files)
        hours, others = self.open.whole_hours(records, plan, bounds)
        until = None if span.open else span.until
        moments = Moments(*(_hour_of(at) for at in (span.since, until, midnight, opens, now)))
        return self._quiet(hours, done, moments, plans, timed, only), Cut(others, plan, bounds)

    def _quiet(
        self,
        hours: Mapping[str, list[Event]],
        done: Closed,
        moments: Moments,
        plans: tuple[rollup.Grouping, rollup.Grouping],
        timed: tuple[str, ...],
        only: events.Filter,
    ) -> Quiet:
        """What the hours without news add up to; in memory until one of them changes, or another hour is over."""
        plan, daily = plans
        key = (moments, [(hour, id(rows)) for hour, rows in hours.items()], 0 if done.empty else id(done))

        def rows_of(since: str, until: str) -> list[Event]:
            return [row for hour, rows in hours.items() if since <= hour < until for row in rows]

        def add_up() -> Quiet:
            open_rows = [row for row in rows_of(moments.opens, moments.now) if only.takes(row)]
            return Quiet(
                dash_sums.with_rows(done, rows_of(moments.since, moments.until), daily, timed, only),
                dash_sums.with_rows(dash_sums.NONE, rows_of(moments.midnight, _LAST_HOUR), plan, timed, only),
                _by_hour(open_rows, plan._replace(by=("hour",))),
                min((row["from"] for rows in hours.values() for row in rows), default=""),
                (hours, done),
            )

        self.quiet.begin()
        return self.quiet.get((only, timed, plan.by, str(plan.tz), moments.until), key, add_up)

    def _total_before(
        self, span: Span, plan: rollup.Grouping, only: events.Filter, now: int, last: int, files: Files
    ) -> Event | None:
        """The total of a span that has ended; None if the log does not reach back to it."""
        if not files or when.moment(store_days.midnight_after(min(files))) > span.since:
            return None
        done = self._closed_days(span, plan, (span.unit,), only, now, last, files)
        pieces = [(since, until) for since, until in ((span.since, done.since), (done.until, span.until)) if since < until]
        records = (
            record
            for since, until in pieces
            for record in self.past.records(plan, now, when.stamp(since), when.stamp(until), files)
        )
        cut = Cut(self.open.rows(records, plan, (span.since, span.until)), plan, ())
        rows, usage = ([each for each in part if only.takes(each)] for part in (cut.rows[0], cut.usage))
        totals = rollup.roll_up(dash_sums.standing(done, rows, usage, plan), plan, lambda why: None)
        return total_of([*done.small, *rows, *totals], plan)

    def latest(self, now: int, tz: datetime.tzinfo, catalogue: pricing.Catalogue, files: Files) -> int:
        """When something was spent last, in milliseconds; 0 if nothing ever was."""
        plan, first_open = rollup.Grouping((), tz, catalogue), store_days.first_open(now)
        events_of = self.past.open_days.events(first_open) if max(files, default="") >= first_open else []
        if moments := [event["ts"] for event in events_of if event["kind"] == "turn" or rollup.is_counted(event)]:
            return when.moment(max(moments))
        for day in sorted((day for day in files if day < first_open), reverse=True):
            key = store_days.key_of(day, files), catalogue.digest
            last = self.ends.get(day, key, functools.partial(self._day_end, day, plan, files))
            if last:
                return when.moment(last)
        return 0

    def _day_end(self, day: str, plan: rollup.Grouping, files: Files) -> str:
        """When something was spent last on a closed day, "" for never."""
        return max(
            (row["to"] if row["kind"] == "row" else row["ts"] for row in self.past.rows(day, plan, files)), default=""
        )

    def hours_of(
        self, ask: Ask, now: int, tz: datetime.tzinfo, catalogue: pricing.Catalogue, files: Files
    ) -> dict[int, Decimal] | None:
        """What each hour that begins in a span cost, without those that cost 0. None: call again, there is more to read."""
        span, plan, opens = dash_query.span(ask, now, tz), rollup.Grouping(("hour",), tz, catalogue), _opens(now)
        first, last = when.stamp(span.since)[:10], when.stamp(min(span.until, opens) - 1)[:10]
        costs: dict[int, Decimal] = {}
        fresh = 0
        for day in (day for day in files if first <= day <= last):
            key = (store_days.key_of(day, files), plan.catalogue.digest)
            name = (day, ask.only, str(plan.tz))
            if not self.hours.has(name, key):
                fresh += 1
                if fresh > AT_ONCE:
                    return None
            by_hour = functools.partial(self._day_by_hour, day, ask.only, plan, files)
            for at, cost in self.hours.get(name, key, by_hour).items():
                costs[at] = pricing.add(costs.get(at, pricing.ZERO), cost)
        if span.until > opens:
            records = self.past.records(plan, now, when.stamp(opens), "9" if span.open else when.stamp(span.until), files)
            cut = Cut(records, plan, ())
            for at, cost in _by_hour((row for row in cut.rows[0] if ask.only.takes(row)), plan).items():
                costs[at] = pricing.add(costs.get(at, pricing.ZERO), cost)
        return {at: cost for at, cost in costs.items() if span.since <= at and (span.open or at < span.until)}

    def _today(self, done: Closed, cut: Cut, midnight: int, only: events.Filter, plan: rollup.Grouping) -> Event:
        """What today cost, session totals included. `done`: its hours without news."""
        rows, usage = cut.rows_of(midnight, None, only), cut.usage_of(midnight, None, only)
        totals = dash_sums.standing(done, rows, usage, plan)
        return total_of([*done.small, *rows, *rollup.roll_up(totals, plan, lambda why: None)], plan)

    def _closed_days(
        self,
        span: Span,
        plan: rollup.Grouping,
        timed: tuple[str, ...],
        only: events.Filter,
        now: int,
        last: int,
        files: Files,
    ) -> Closed:
        """The whole closed days of a span, up to a moment; in memory until their files change."""
        since = -(-span.since // when.DAY) * when.DAY
        until = min(span.until, last) // when.DAY * when.DAY
        if since >= until:
            return dash_sums.NONE._replace(since=span.since, until=span.since)
        begin, end = when.stamp(since), when.stamp(until)
        days = [(day, store_days.key_of(day, files)) for day in files if begin <= f"{day}T00:00:00.000Z" < end]
        bound = self.past.cover.bound if self.past.cover else []
        key = (days, store_days.projects_stamp(self.folder), plan.by, plan.catalogue.digest, bound)
        self.spans.begin()

        def add_up() -> Closed:
            records = self.past.records(plan, now, begin, end, files)
            return dash_sums.closed_days(records, plan, timed, only, (since, until))

        return self.spans.get((only, begin, end, timed, str(plan.tz)), key, add_up)

    def _records(
        self, span: Span, plan: rollup.Grouping, now: int, first: int, opens: int, done: Closed, files: Files
    ) -> Iterator[Event]:
        """The records outside the closed days. If the span ends within a closed day, no sum of it reaches further."""
        pieces: list[tuple[int, int | None]] = [(first, done.since), (done.until, None)]
        if span.until <= opens:
            pieces[1:] = [(done.until, span.until), (opens, None)]
        for since, until in pieces:
            if until is None or since < until:
                last = "9" if until is None else when.stamp(until)
                yield from self.past.records(plan, now, when.stamp(since), last, files)

    def _outlook(
        self,
        open_days: tuple[Costs, Cut],
        ask: Ask,
        now: int,
        plan: rollup.Grouping,
        span: Span,
        files: Files,
        today: Event,
    ) -> tuple[list[Event], Event | None]:
        """What is likely to come in the next buckets and until midnight, for a span that ends now.

        `open_days`: what each of their hours without news cost, and the other records.
        """
        tz = plan.tz
        if not span.open or span.unit not in AHEAD or not files:
            return [], None
        spent = self._hours(*open_days, ask, now, plan, files)
        complete_since = when.moment(f"{min(files)}T00:00:00Z") + when.DAY  # of the first day there may be a part only
        at_midnight = spent_at_midnight(spent, now, tz, Decimal(today.get("cost_usd", "0")))
        if span.unit == "day":
            spent = _by_day(spent, tz)
        length = when.DAY if span.unit == "day" else HOUR_MS
        edges = dash_query.edges(now, now + (AHEAD[span.unit] + 1) * length, span.unit, tz)
        ahead = [pair for pair in itertools.pairwise(edges) if pair[0] >= now][: AHEAD[span.unit]]
        return outlook(spent, now, complete_since, ahead, tz), at_midnight

    def _hours(self, quiet: Costs, cut: Cut, ask: Ask, now: int, plan: rollup.Grouping, files: Files) -> dict[int, Decimal]:
        """What each hour of the last weeks cost, without those that cost 0."""
        hourly, opens = plan._replace(by=("hour",)), _opens(now)
        costs = dict(quiet)
        for at, cost in _by_hour(cut.rows_of(opens, now, ask.only), hourly).items():
            costs[at] = pricing.add(costs.get(at, pricing.ZERO), cost)
        self.hours.begin()
        since, last = when.stamp(now - (7 * WEEKS + 1) * when.DAY)[:10], when.stamp(opens - 1)[:10]
        for day in (day for day in files if since <= day <= last):
            key = (store_days.key_of(day, files), plan.catalogue.digest)
            by_hour = functools.partial(self._day_by_hour, day, ask.only, hourly, files)
            # An hour of a zone may lie in two days.
            for at, cost in self.hours.get((day, ask.only, str(plan.tz)), key, by_hour).items():
                costs[at] = pricing.add(costs.get(at, pricing.ZERO), cost)
        return costs

    def _day_by_hour(self, day: str, only: events.Filter, hourly: rollup.Grouping, files: Files) -> dict[int, Decimal]:
        return _by_hour((row for row in self.past.rows(day, hourly, files) if only.takes(row)), hourly)


def _groupings(
    span: Span,
    tz: datetime.tzinfo,
    catalogue: pricing.Catalogue,
    cover: coverage.Coverage | None,
    tag: tuple[str, ...],
) -> tuple[rollup.Grouping, rollup.Grouping]:
    """By what records are summed: by hour, and in the closed days of a longer span by day; `tag`: if bars are by one."""
    by = (*dash_sums.BY, *tag, coverage.GROUP) if cover else (*dash_sums.BY, *tag)
    plan = rollup.Grouping(("hour", *by), tz, catalogue)
    return plan, plan if span.unit == "hour" else plan._replace(by=("day", *by))


def _complete_since(first: str, since: int, files: Files) -> int:
    """From when on the log is complete; later than any moment if it is empty."""
    if files and min(files) < when.stamp(since)[:10]:
        return 0
    return when.moment(first) if first else when.moment("9999-01-01T00:00:00Z")


# Later than any hour.
_LAST_HOUR = "9"


def _hour_of(at: int | None) -> str:
    """The hour of UTC that a moment is in, as text; `_LAST_HOUR` for None."""
    return _LAST_HOUR if at is None else when.stamp(at)[:13]


def _opens(now: int) -> int:
    """The start of the days without stored sums."""
    return when.moment(f"{store_days.first_open(now)}T00:00:00Z")


def _by_hour(rows: Iterable[Event], plan: rollup.Grouping) -> dict[int, Decimal]:
    turns = (row for row in rows if row["kind"] == "row")
    return {
        when.moment(row["bucket"]): Decimal(row["cost_usd"]) for row in price_by(turns, ("hour",), plan) if "cost_usd" in row
    }


def _by_day(hours: Mapping[int, Decimal], tz: datetime.tzinfo) -> dict[int, Decimal]:
    days: dict[int, Decimal] = {}
    for at, cost in hours.items():
        day = dash_query.midnight(at, tz)
        days[day] = pricing.add(days.get(day, pricing.ZERO), cost)
    return days
