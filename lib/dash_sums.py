"""Sums records for the dashboard between moments; closed days are summed once.

A rollup of rollups is exact: what does not change is rolled up once, and new records are added to it.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import operator
import types
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from tokenops import burn_chart, costs, dash_query, events, pricing, rollup, when
from tokenops.dash_query import Span
from tokenops.events import Event
from tokenops.store_days import Recent

CLASSES, OTHER = burn_chart.PARTS, "other"
# How many names of a stack have a part of their own; the others share one.
MOST_NAMES = 5


# By bucket: the tokens of each class, and what they cost. What is billed otherwise is a class without tokens.
ByClass = Mapping[str, tuple[Sequence[int], Sequence[Decimal]]]


class Part(NamedTuple):
    """A bar: from when to when, whether all of it, and what was spent (a row of tok-cost); None if unknown.

    `stack`: the tokens of each name that bars are stacked of; `costs`: what they cost.
    """

    start: int
    end: int
    partial: bool
    spent: Event | None
    stack: Sequence[int]
    costs: Sequence[Decimal]


def price_by(rows: Iterable[Event], by: tuple[str, ...], plan: rollup.Grouping) -> list[Event]:
    """The rows of tok-cost by some fields, out of finer ones."""
    return costs.price_rows(
        rollup.roll_up(rows, plan._replace(by=with_coverage(by, plan)), lambda why: None), plan.catalogue
    )


def with_coverage(by: tuple[str, ...], plan: rollup.Grouping) -> tuple[str, ...]:
    """Fields to sum by, with what covers a turn, if that is known."""
    return (*by, rollup.COVERED) if rollup.COVERED in plan.by else by


def parts(bars_of: Bars, span: Span, complete_since: int, now: int, stack: str) -> tuple[list[str], list[Part]]:
    """The names of what bars are stacked of, and the bars. `complete_since`: since when the log knows all."""
    plan = bars_of.plan
    spent = {row["bucket"]: row for row in bars_of.rows_by((span.unit,))}
    names, shares, amounts = (
        _by_class(bars_of.class_sums(span.unit))
        if stack == "class"
        else _by_name(bars_of.rows_by((span.unit, stack)), stack)
    )
    bars, no_tokens, no_costs = [], [0] * len(names), [pricing.ZERO] * len(names)
    for start, end in itertools.pairwise(dash_query.edges(span.since, span.until, span.unit, plan.tz)):
        label = when.bucket(start, span.unit, plan.tz)
        row = spent.get(label)
        if row is None and end > complete_since:
            row = {"by": [span.unit], "bucket": label, "cost_usd": "0"}
        partial = row is not None and (start < max(span.since, complete_since) or end > min(span.until, now))
        bars.append(Part(start, end, partial, row, shares.get(label, no_tokens), amounts.get(label, no_costs)))
    return names, bars


# The names that bars are stacked of; by bucket the tokens of each, and what they cost.
Stacks = tuple[list[str], dict[str, list[int]], dict[str, list[Decimal]]]


def class_sums(rows: Sequence[Event], unit: str, plan: rollup.Grouping, before: ByClass | None = None) -> ByClass:
    """The sums of rows by class, added to some from `before`."""
    sums = {bucket: (list(counts), list(usd)) for bucket, (counts, usd) in (before or {}).items()}
    for row in coarser(rows, (unit,), plan):
        counts, usd = sums.setdefault(row["bucket"], ([0] * (len(CLASSES) + 1), [pricing.ZERO] * (len(CLASSES) + 1)))
        for at, fields in enumerate(CLASSES.values()):
            counts[at] += sum(row.get(field, 0) for field in fields)
        for name, amount in burn_chart.class_costs(row, plan.catalogue):
            at = _CLASS_AT[name]
            usd[at] = pricing.add(usd[at], amount)
    return sums


_CLASS_AT = {name: at for at, name in enumerate((*CLASSES, OTHER))}


def _by_class(sums: ByClass) -> Stacks:
    """Bars by class of tokens."""
    names = list(CLASSES)
    if any(usd[-1] for _, usd in sums.values()):
        names.append(OTHER)
    count = len(names)
    tokens = {bucket: list(counts[:count]) for bucket, (counts, _) in sums.items()}
    return names, tokens, {bucket: list(usd[:count]) for bucket, (_, usd) in sums.items()}


def _by_name(priced: Sequence[Event], stack: str) -> Stacks:
    """Bars by those names that cost most, the others as one."""
    sums: dict[str, Rank] = {}
    for row in priced:
        name, (usd, tokens) = costs.label_of(row, stack), _rank(row)
        before = sums.get(name, (pricing.ZERO, 0))
        sums[name] = (pricing.add(before[0], usd), before[1] + tokens)
    order = sorted(sums, key=lambda name: (-sums[name][0], -sums[name][1], name))
    names = order if len(order) <= MOST_NAMES + 1 else [*order[:MOST_NAMES], f"{len(order) - MOST_NAMES} others"]
    positions = {name: min(at, len(names) - 1) for at, name in enumerate(order)}
    counts: dict[str, list[int]] = {}
    amounts: dict[str, list[Decimal]] = {}
    for row in priced:
        at, (usd, tokens) = positions[costs.label_of(row, stack)], _rank(row)
        counts.setdefault(row["bucket"], [0] * len(names))[at] += tokens
        share = amounts.setdefault(row["bucket"], [pricing.ZERO] * len(names))
        share[at] = pricing.add(share[at], usd)
    return names, counts, amounts


# What is summed by, in addition to the hour or day and the price.
BY = ("client", "project", "session", *events.OWNER)
_RANKED, _SMALL = ("session", "project", "client"), ("client", "project")


class Cut:
    """What some records add up to, by hour or day, client, project, session and price, cut at some moments."""

    def __init__(self, records: Iterable[Event], plan: rollup.Grouping, bounds: Iterable[int]) -> None:
        self.plan = plan
        self.bounds = [when.stamp(at) for at in sorted(set(bounds))]
        self.first = ""
        self.usage: list[Event] = []
        sums = [rollup.Rollup(plan) for _ in range(len(self.bounds) + 1)]
        for record in records:
            kind = record.get("kind")
            if kind not in ("turn", "row") and not rollup.is_counted(record):
                continue
            ts = record["from"] if kind == "row" else record["ts"]
            if not self.first or ts < self.first:
                self.first = ts
            if kind == "usage":
                self.usage.append(record)
            else:
                sums[bisect.bisect_right(self.bounds, ts)].take(record, lambda why: None)
        self.rows = [list(part.rows()) for part in sums]

    def rows_of(self, since: int, until: int | None = None, only: events.Filter = events.EVERY) -> list[Event]:
        """The rows of a stretch from one of the moments to another (None: to the end)."""
        first = bisect.bisect_right(self.bounds, when.stamp(since))
        last = len(self.rows) if until is None else bisect.bisect_left(self.bounds, when.stamp(until)) + 1
        return [row for stretch in self.rows[first:last] for row in stretch if only.takes(row)]

    def usage_of(self, since: int, until: int | None = None, only: events.Filter = events.EVERY) -> list[Event]:
        """What sources report of whole sessions instead of turns, in a stretch."""
        begin, end = when.stamp(since), "9" if until is None else when.stamp(until)
        return [total for total in self.usage if begin <= total["ts"] < end and only.takes(total)]


Rank = tuple[Decimal, int]  # cost and tokens


class Hours:
    """The sums of the hours of open days; in memory until their events change."""

    # Fewer events are as soon summed as rows.
    FEW = 20
    # Two days are open, and a span, like the one before it, may begin and end in closed ones.
    MOST = 8 * 24

    def __init__(self) -> None:
        self.recent = Recent(self.MOST)

    def whole_hours(
        self, records: Iterable[Event], plan: rollup.Grouping, bounds: Iterable[int]
    ) -> tuple[dict[str, list[Event]], list[Event]]:
        """The rows of each hour (UTC) in which none of the moments lies, and all other records.

        The rows of an hour are the same list as in the last answer, unless its events have changed.
        """
        key = (plan.by, str(plan.tz), plan.catalogue.digest)
        divided = {when.stamp(at)[:13] for at in bounds}
        hours: dict[str, list[Event]] = {}
        others = []
        for record in records:
            if record.get("kind") == "turn":
                hours.setdefault(record["ts"][:13], []).append(record)
            else:
                others.append(record)
        self.recent.begin()
        whole = {}
        for hour, turns in hours.items():
            if hour in divided or len(turns) < self.FEW:
                others += turns
            else:
                roll_up = functools.partial(rollup.roll_up, turns, plan, lambda why: None)
                whole[hour] = self.recent.get(hour, (key, turns), roll_up)
        return whole, others

    def rows(self, records: Iterable[Event], plan: rollup.Grouping, bounds: Iterable[int]) -> list[Event]:
        """The records, with the turns of an hour (UTC) as rows unless one of the moments is in it."""
        whole, others = self.whole_hours(records, plan, bounds)
        return [*others, *(row for rows in whole.values() for row in rows)]


class Closed(NamedTuple):
    """What the whole closed days of a span add up to, as a filter lets it through.

    `sessions`: the rows of each session; `ranked`: the rows of tok-cost by session, project and client, with their ranks;
    `timed`: rows by what the bars are made of; `small`: rows by client and project; `usage`: totals of whole sessions.
    `by_class`: sums of `timed` by class, if bars are not by name; `choices`: what the filters can be set to, whatever they
    are set to; `empty`: nothing is there, whatever they are set to. `priced`: what `Bars.rows_by` worked out of `timed`.
    """

    since: int
    until: int
    first: str = ""
    sessions: Mapping[object, Sequence[Event]] = {}
    ranked: Sequence[tuple[Rank, Event]] = ()
    timed: Sequence[Event] = ()
    small: Sequence[Event] = ()
    usage: Sequence[Event] = ()
    by_class: ByClass = types.MappingProxyType({})
    choices: Mapping[str, frozenset[str]] = {}
    empty: bool = True
    priced: Memo | None = None


# Fields -> the priced rows by them.
Memo = dict[tuple[str, ...], list[Event]]
NONE = Closed(0, 0)


def closed_days(
    records: Iterable[Event], plan: rollup.Grouping, timed: tuple[str, ...], only: events.Filter, span: tuple[int, int]
) -> Closed:
    """What the records of some whole closed days add up to."""
    cut = Cut(records, plan, ())
    every = [*cut.rows[0], *cut.usage]
    rows = [row for row in cut.rows[0] if only.takes(row)]
    sessions: dict[object, list[Event]] = {}
    for row in rows:
        sessions.setdefault(row.get("session_id"), []).append(row)
    usage = [record for record in cut.usage if only.takes(record)]
    ranked, small = [(_rank(row), row) for row in dearest(rows, _RANKED, plan)], coarser(rows, _SMALL, plan)
    of_bars = coarser(rows, timed, plan)
    by_class = class_sums(of_bars, timed[0], plan) if len(timed) == 1 else {}
    return Closed(*span, cut.first, sessions, ranked, of_bars, small, usage, by_class, choices(every), not every, {})


def with_rows(
    done: Closed, rows: Sequence[Event], plan: rollup.Grouping, timed: tuple[str, ...], only: events.Filter
) -> Closed:
    """What closed days and more rows add up to, such as those of hours that are over. `timed`: as in `closed_days`."""
    if not rows:
        return done
    taken = [row for row in rows if only.takes(row)]
    sessions = dict(done.sessions)
    for row in taken:
        name = row.get("session_id")
        sessions[name] = [*sessions.get(name, ()), row]
    more = choices(rows)
    return done._replace(
        first=min(filter(None, (done.first, *(row["from"] for row in rows)))),
        sessions=sessions,
        ranked=_ranking(done, taken, plan),
        timed=coarser([*done.timed, *taken], timed, plan),
        small=coarser([*done.small, *taken], _SMALL, plan),
        by_class=class_sums(taken, timed[0], plan, done.by_class) if len(timed) == 1 else {},
        choices={name: done.choices.get(name, frozenset()) | values for name, values in more.items()},
        empty=False,
        priced={},
    )


class Moments(NamedTuple):
    """The hours of UTC with the moments that divide the hours of a log, as texts."""

    since: str  # of the span
    until: str  # of the span; later than any hour if it goes on
    midnight: str
    opens: str  # where the open days begin
    now: str


class Quiet(NamedTuple):
    """What the hours without news add up to.

    `done`: with the closed days, those in the span; `today`: those since midnight; `costs`: what each since the open days
    began cost, by its start; `first`: when the first record began; `made_of`: what must live as long, since it is told
    apart by its place in memory.
    """

    done: Closed
    today: Closed
    costs: Mapping[int, Decimal]
    first: str
    made_of: tuple[object, ...]


class Bars(NamedTuple):
    """What the bars of a span are made of: the closed days, and the rows of the rest of it."""

    done: Closed
    rows: Sequence[Event]
    plan: rollup.Grouping

    def rows_by(self, by: tuple[str, ...]) -> list[Event]:
        """The rows of tok-cost by a unit of time and more. A bucket that nothing was added to is not priced again."""
        memo = {} if self.done.priced is None else self.done.priced
        if by not in memo:
            memo[by] = price_by(self.done.timed, by, self.plan)
        if not self.rows:
            return memo[by]
        fresh = coarser(self.rows, by, self.plan)
        grown = {row["bucket"] for row in fresh}
        again = [row for row in self.done.timed if row["bucket"] in grown]
        return [*(row for row in memo[by] if row["bucket"] not in grown), *price_by([*again, *fresh], by, self.plan)]

    def class_sums(self, unit: str) -> ByClass:
        """The sums by class of tokens."""
        before = self.done.by_class or class_sums(self.done.timed, unit, self.plan)
        return class_sums(self.rows, unit, self.plan, before)


class Sums(NamedTuple):
    """The sums of a span. `totals`: of sessions with an unknown hour; they are in the sums, but in no bar."""

    done: Closed
    fresh: Sequence[Event]  # rows by client and project, of what is not in `done`
    sessions: Sequence[Event]  # the rows of tok-cost, the most expensive first
    totals: Sequence[Event]
    plan: rollup.Grouping

    @property
    def by_price(self) -> list[Event]:
        """Rows of all by price alone."""
        memo = {} if self.done.priced is None else self.done.priced
        if _BY_PRICE not in memo:
            memo[_BY_PRICE] = coarser(self.done.small, (), self.plan)
        return [*memo[_BY_PRICE], *self.fresh]

    def dearest(self, name: str) -> list[Event]:
        """The rows of tok-cost by model, project or client, the most expensive first. Only what grew is priced again."""
        memo = {} if self.done.priced is None else self.done.priced
        if (name, _SORTED) not in memo:
            memo[name, _SORTED] = dearest(self.done.small, (name,), self.plan)
        grown = {row.get(name) for row in self.fresh}
        again = [row for row in self.done.small if row.get(name) in grown]
        rows = [row for row in memo[name, _SORTED] if row.get(name) not in grown]
        rows += price_by([*again, *self.fresh], (name,), self.plan)
        rows.sort(key=lambda row: (name not in row, str(row.get(name))))  # as tok-cost has those that cost the same
        return sorted(rows, key=_rank, reverse=True)


# Names of what is kept in `Closed.priced`, beside those of Bars.
_BY_PRICE, _SORTED = ("by price",), "sorted"


def span_sums(done: Closed, rows: Sequence[Event], usage: Sequence[Event], plan: rollup.Grouping) -> Sums:
    """The sums of a span: those of its closed days, and the rows and session totals of the rest of it."""
    totals = standing(done, rows, usage, plan)
    besides = rollup.roll_up(totals, plan, lambda why: None)
    fresh = coarser([*rows, *besides], _SMALL, plan)
    return Sums(done, fresh, [row for _, row in _ranking(done, [*rows, *besides], plan)], totals, plan)


def standing(done: Closed, rows: Sequence[Event], usage: Sequence[Event], plan: rollup.Grouping) -> list[Event]:
    """The session totals that count: those of sessions without turns."""
    reported = [*done.usage, *usage]
    if not reported:
        return []
    names = {total.get("session_id") for total in reported}
    sums = rollup.Rollup(plan)
    for record in itertools.chain((row for name in names for row in done.sessions.get(name, ())), rows, reported):
        sums.take(record, lambda why: None)
    return sums.totals()


def _ranking(done: Closed, rows: Sequence[Event], plan: rollup.Grouping) -> Sequence[tuple[Rank, Event]]:
    """The sessions, the most expensive first. Sessions of closed days are priced again only if they went on."""
    if not rows:
        return done.ranked
    again = {row.get("session_id") for row in rows}
    earlier = [row for name in again for row in done.sessions.get(name, ())]
    fresh = sorted(((_rank(row), row) for row in price_by([*earlier, *rows], _RANKED, plan)), key=operator.itemgetter(0))
    ranked = list(done.ranked)
    for row in price_by(earlier, _RANKED, plan):
        rank = _rank(row)
        at = bisect.bisect_left(ranked, _down((rank, row)), key=_down)
        while ranked[at][1].get("session_id") != row.get("session_id"):
            at += 1  # another one that cost as much
        del ranked[at]
    for item in fresh:  # a year has thousands of others, which are in order
        bisect.insort_left(ranked, item, key=_down)
    return ranked


def _down(item: tuple[Rank, Event]) -> Rank:
    """What puts the greatest first."""
    (usd, tokens), _ = item
    return -usd, -tokens


def _rank(row: Event) -> Rank:
    return Decimal(row.get("cost_usd", "0")), events.token_sum(row)


def coarser(rows: Sequence[Event], by: tuple[str, ...], plan: rollup.Grouping) -> list[Event]:
    """Rows summed by less."""
    return rollup.roll_up(rows, plan._replace(by=with_coverage(by, plan)), lambda why: None)


def total_of(rows: Sequence[Event], plan: rollup.Grouping) -> Event:
    """The one row of `tok-cost --by none`; an empty one if nothing was spent."""
    totals = price_by(rows, (), plan)
    return totals[0] if totals else {}


def dearest(rows: Sequence[Event], by: tuple[str, ...], plan: rollup.Grouping) -> list[Event]:
    """The rows of tok-cost by some fields, the most expensive first."""
    return sorted(price_by(rows, by, plan), key=_rank, reverse=True)


def choices(rows: Iterable[Event]) -> dict[str, frozenset[str]]:
    """What the filters can be set to."""
    seen: dict[str, set[str]] = {name: set() for name in dash_query.FILTERS}
    for row in rows:
        for name, values in seen.items():
            if name in row or name in events.OWNER:
                values.add(str(row.get(name, events.UNKNOWN)))
    return {name: frozenset(values) for name, values in seen.items()}
