"""Divides a span into buckets of time and adds up what was spent in each.

A bucket without use is 0 if the log reaches back that far, and unknown if not.
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

# The values of --by -> the unit of time.
BY = {"15min": when.QUARTER, "hour": "hour", "day": "day"}
MOST_HOURS = 168
HOUR_MS, QUARTER_MS = 3_600_000, 900_000
_LENGTH = len("2026-11-21T09:30:00.120Z")
# The length of the two days that the trend compares.
DAY_HOURS = 24


class Span(NamedTuple):
    """The buckets of a report, from edge to edge; the last may not be over."""

    edges: tuple[int, ...]
    now: int
    by: str
    tz: datetime.tzinfo

    @property
    def hour(self) -> int:
        """The last whole hour of the clock."""
        return begin(self.now, when.Buckets("hour", self.tz))

    @property
    def log_since(self) -> str:
        """Where the log is read from: two whole days back at least, at a midnight of UTC, as summaries are kept."""
        first = min(self.edges[0], self.hour - 2 * DAY_HOURS * HOUR_MS)
        return when.stamp(first // when.DAY * when.DAY)

    @property
    def unit(self) -> str:
        """The unit that is added up: an hour, or a quarter of one if the buckets are that small."""
        return when.QUARTER if self.by == "15min" else "hour"


def span(now: int, hours: int, by: str, tz: datetime.tzinfo) -> Span:
    """The buckets of the last `hours`: the complete ones, and the one that has begun since."""
    return Span(edges(now - hours * HOUR_MS, now, BY[by], tz), now, by, tz)


def edges(since: int, until: int, unit: str, tz: datetime.tzinfo) -> tuple[int, ...]:
    """Where the buckets that hold a span begin, and where the last one ends."""
    buckets = when.Buckets(unit, tz)
    at = begin(since, buckets)
    moments, local = [at], when.local(at, tz)
    while moments[-1] < until:
        following = when.local(at + 4 * QUARTER_MS, tz)
        if unit == "hour" and not local.minute and following.utcoffset() == local.utcoffset():
            at += 4 * QUARTER_MS  # a whole hour, in which the clock is not changed
        else:
            label = buckets.label_of(when.stamp(at))
            while buckets.label_of(when.stamp(at)) == label:
                at += QUARTER_MS
            following = when.local(at, tz)
        local = following
        moments.append(at)
    return tuple(moments)


def begin(at: int, buckets: when.Buckets) -> int:
    """The first moment of the bucket that holds a moment; all begin on a quarter of an hour."""
    at -= at % QUARTER_MS
    label = buckets.label_of(when.stamp(at))
    while buckets.label_of(when.stamp(at - QUARTER_MS)) == label:
        at -= QUARTER_MS
    return at


class Sums(NamedTuple):
    """What was spent: rows by unit, rows of the last hour, session totals, readings, and the first time ("": none)."""

    rows: list[Event]
    recent: list[Event]
    totals: list[Event]
    first: str
    meters: list[Event]


def sums_of(
    records: Iterable[Event],
    span: Span,
    catalogue: pricing.Catalogue,
    takes: Callable[[Event], bool] | None,
    on_bad_record: Callable[[str], None],
) -> Sums:
    """The sums of events and of summaries' rows, of those that `takes` accepts (None: all).

    Pings and an account's own reports do not count.
    """
    sums = rollup.Rollup(rollup.Grouping((span.unit,), span.tz, catalogue))
    lately = rollup.Rollup(rollup.Grouping((), span.tz, catalogue))
    hour_ago, since, now = (when.stamp(at) for at in (span.now - HOUR_MS, span.edges[0], span.now))
    first, meters = "", []
    for record in records:
        kind = record.get("kind")
        if kind == "meter":
            meters.append(record)
        if kind not in ("turn", "row", "usage"):
            continue
        ts = _time(record, "from" if kind == "row" else "ts")
        if not ts:
            on_bad_record(f"not a record of kind {kind}: its time is not valid; skipped")
            continue
        if record.get("ts") != ts and kind != "row":
            record = {**record, "ts": ts}  # noqa: PLW2901 (another form of the time would fall in another hour)
        first = min(first or ts, ts)
        if ts < now and (kind != "usage" or ts >= since) and (takes is None or takes(record)):
            sums.take(record, on_bad_record)
            if ts >= hour_ago and kind == "turn":
                lately.take(record, lambda why: None)
    totals = sums.totals()
    return Sums(list(sums.rows()), list(lately.rows()), totals, first, meters)


def _time(record: Event, name: str) -> str:
    """A record's time in its canonical form; "" if it has none."""
    ts = str(record.get(name, ""))
    if len(ts) == _LENGTH and ts[-1] == "Z":
        return ts
    try:
        return when.canonical(ts)
    except (ValueError, OverflowError):
        return ""


class Bucket(NamedTuple):
    """What was spent in a span of time; `spent` None: unknown."""

    start: int
    end: int
    partial: bool
    spent: Event | None


def buckets(span: Span, sums: Sums, catalogue: pricing.Catalogue, complete: tuple[int, int]) -> list[Bucket]:
    """What was spent in each bucket. `complete`: from when to when the log holds everything."""
    numbered = ({**row, "bucket": number(row, span)} for row in sums.rows)
    priced = {row["bucket"]: row for row in costs.price_rows(numbered, catalogue)}
    result = []
    for at, (start, end) in enumerate(itertools.pairwise(span.edges)):
        spent = priced.get(at)
        if spent is None and complete[0] < min(end, span.now) and complete[1] > start:
            spent = {"by": [], "cost_usd": "0"}
        partial = spent is not None and (end > span.now or start < complete[0] or end > complete[1])
        result.append(Bucket(start, end, partial, spent))
    return result


def number(row: Event, span: Span) -> int:
    """The number of the bucket in which a row lies; -1: before the first."""
    return bisect.bisect_right(span.edges, moment(row, span)) - 1


def moment(row: Event, span: Span) -> int:
    """When a row's unit of time begins."""
    return _moment(f"{row['bucket']}:00Z" if span.unit == when.QUARTER else row["bucket"])


@functools.lru_cache(4096)
def _moment(label: str) -> int:
    return when.moment(label)
