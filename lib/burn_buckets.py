"""Buckets of time, and what was spent in each.

A bucket in which nothing was spent is 0 only where the log goes back that far; before that it is unknown.
"""

from __future__ import annotations

import bisect
import datetime
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tokenops import costs, pricing, rollup, when
from tokenops.events import Event

# What --by takes -> the unit of time.
BY = {"15min": when.QUARTER, "hour": "hour", "day": "day"}
MOST_HOURS = 168
HOUR_MS, QUARTER_MS = 3_600_000, 900_000
_LENGTH = len("2026-11-21T09:30:00.120Z")
# What "the day before" is compared by.
DAY_HOURS = 24


class Span(NamedTuple):
    """What is asked: buckets from edge to edge, the last of which may not be over."""

    edges: tuple[int, ...]
    now: int
    by: str
    tz: datetime.tzinfo

    @property
    def hour(self) -> int:
        """The last whole hour of the clock."""
        return begin(self.now, when.Buckets("hour", self.tz))

    @property
    def since(self) -> str:
        """From when on the log is needed: two whole days, and whole days of UTC, which summaries hold."""
        first = min(self.edges[0], self.hour - 2 * DAY_HOURS * HOUR_MS)
        return when.stamp(first // when.DAY * when.DAY)

    @property
    def unit(self) -> str:
        """What is added up by: the hour, or less where less is asked for."""
        return when.QUARTER if self.by == "15min" else "hour"


def span(now: int, hours: int, by: str, tz: datetime.tzinfo) -> Span:
    """The buckets of the last so many hours, whole ones, and of what has begun since."""
    return Span(edges(now - hours * HOUR_MS, now, BY[by], tz), now, by, tz)


def edges(since: int, until: int, unit: str, tz: datetime.tzinfo) -> tuple[int, ...]:
    """Where the buckets that hold a span begin, and where the last one ends."""
    buckets = when.Buckets(unit, tz)
    at = begin(since, buckets)
    found = [at]
    while found[-1] < until:
        label = buckets.of(when.stamp(at))
        while buckets.of(when.stamp(at)) == label:
            at += QUARTER_MS
        found.append(at)
    return tuple(found)


def begin(at: int, buckets: when.Buckets) -> int:
    """The first moment of the bucket that holds a moment; all begin on a quarter of an hour."""
    at -= at % QUARTER_MS
    label = buckets.of(when.stamp(at))
    while buckets.of(when.stamp(at - QUARTER_MS)) == label:
        at -= QUARTER_MS
    return at


class Taken(NamedTuple):
    """What was spent: rows by the unit, those of the last hour, session totals, readings, and the first time ("": none)."""

    rows: list[Event]
    recent: list[Event]
    totals: list[Event]
    first: str
    meters: list[Event]


def taken(
    records: Iterable[Event],
    asked: Span,
    catalogue: pricing.Catalogue,
    wanted: Callable[[Event], bool] | None,
    refuse: Callable[[str], None],
) -> Taken:
    """Add up events and the rows of summaries, those that are `wanted` (None: all).

    Pings and what an account's reports sum up count nowhere.
    """
    sums = rollup.Rollup(rollup.Plan((asked.unit,), asked.tz, catalogue))
    lately = rollup.Rollup(rollup.Plan((), asked.tz, catalogue))
    hour_ago, since, now = (when.stamp(at) for at in (asked.now - HOUR_MS, asked.edges[0], asked.now))
    first, meters = "", []
    for record in records:
        kind = record.get("kind")
        if kind == "meter":
            meters.append(record)
        if kind not in ("turn", "row", "usage"):
            continue
        ts = _time(record, "from" if kind == "row" else "ts")
        if not ts:
            refuse(f"not a record of kind {kind}: its time is none; skipped")
            continue
        if record.get("ts") != ts and kind != "row":
            record = {**record, "ts": ts}  # noqa: PLW2901 (what is not canonical would lie in another hour)
        first = min(first or ts, ts)
        if ts < now and (kind != "usage" or ts >= since) and (wanted is None or wanted(record)):
            sums.take(record, refuse)
            if ts >= hour_ago and kind == "turn":
                lately.take(record, lambda why: None)
    totals = sums.totals()
    return Taken(list(sums.rows()), list(lately.rows()), totals, first, meters)


def _time(record: Event, name: str) -> str:
    """A record's time in its canonical form; "" where it has none."""
    ts = str(record.get(name, ""))
    if len(ts) == _LENGTH and ts[-1] == "Z":
        return ts
    try:
        return when.canonical(ts)
    except (ValueError, OverflowError):
        return ""


class Bucket(NamedTuple):
    """What was spent from a moment to another; `spent` None where nothing is known of it."""

    start: int
    end: int
    partial: bool
    spent: Event | None


def buckets(asked: Span, found: Taken, catalogue: pricing.Catalogue, known: tuple[int, int]) -> list[Bucket]:
    """What was spent in each bucket. `known`: from when to when the log knows all."""
    numbered = ({**row, "bucket": number(row, asked)} for row in found.rows)
    priced = {row["bucket"]: row for row in costs.priced(numbered, catalogue)}
    made = []
    for at, (start, end) in enumerate(itertools.pairwise(asked.edges)):
        spent = priced.get(at)
        if spent is None and known[0] < min(end, asked.now) and known[1] > start:
            spent = {"by": [], "cost_usd": "0"}
        partial = spent is not None and (end > asked.now or start < known[0] or end > known[1])
        made.append(Bucket(start, end, partial, spent))
    return made


def number(row: Event, asked: Span) -> int:
    """In which bucket a row lies; -1: before the first."""
    return bisect.bisect_right(asked.edges, moment(row, asked)) - 1


def moment(row: Event, asked: Span) -> int:
    """When a row's unit of time begins."""
    return _moment(f"{row['bucket']}:00Z" if asked.unit == when.QUARTER else row["bucket"])


@functools.lru_cache(4096)
def _moment(label: str) -> int:
    return when.moment(label)
