"""Finds hours with far more use than usual for that hour of that weekday, and what caused most of it.

The usual value is the median of the same and neighbouring hours in the weeks before, and the spread is the median
distance from it, so holidays and earlier anomalies move neither. Low use is never unusual. With less than two weeks of
history no hour is judged.
"""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tokenops import costs, events, pricing, rollup, show, store_summaries, when
from tokenops.events import Event

HOUR_MS = 3_600_000
WEEKS, FEWEST_DAYS = 4, 14
# An hour this many spreads above the median is an anomaly (a normal distribution exceeds four in 1 of 30,000).
SCORE = 4.0
# The median distance from the median is this many standard deviations of a normal distribution.
MAD = 1.4826
# The spread is at least this share of the median, and at least this share of a usual working hour: if past hours are all
# alike, any other hour would be an anomaly.
LEAST_SHARE, LEAST_OF_HOUR = 0.25, 0.25
WHICH = ("project", "model", "session_id")


class Part(NamedTuple):
    """What one project, model and session used in an hour."""

    at: int
    fields: dict[str, str]
    tokens: int
    usd: float | None


def parts(folder: str, catalogue: pricing.Catalogue, now: int, tz: datetime.tzinfo, hours: int) -> list[Part]:
    """The use of the last `hours` and of the weeks before them, by project, model and session. Raises OSError."""
    since = now - hours * HOUR_MS - (WEEKS * 7 + 1) * when.DAY
    grouping = rollup.Grouping(("hour", "project", "model", "session"), tz, catalogue)
    parts = []
    for row in costs.price_rows(store_summaries.rows(folder, grouping, now, when.stamp(since)), catalogue):
        named = {name: str(row.get(name, "unknown")) for name in WHICH}
        usd = float(row["cost_usd"]) if "cost_usd" in row else None if row.get("unpriced") else 0.0
        parts.append(Part(when.moment(row["from"]) // HOUR_MS * HOUR_MS, named, events.token_sum(row), usd))
    return parts


def anomalies(parts: Iterable[Part], now: int, tz: datetime.tzinfo, hours: int) -> tuple[list[Event], str]:
    """The anomalies of the last hours, oldest first, and why none could be judged ("" if they were)."""
    by_hour: dict[int, list[Part]] = {}
    for part in parts:
        by_hour.setdefault(part.at, []).append(part)
    last = now // HOUR_MS * HOUR_MS
    begins = last - hours * HOUR_MS
    first = min(by_hour, default=last)
    if begins - first < FEWEST_DAYS * when.DAY:
        return [], f"the log begins less than {FEWEST_DAYS} days before these hours"
    spent = {at: sum(part.tokens for part in parts_of_hour) for at, parts_of_hour in by_hour.items()}
    working = [value for at, value in spent.items() if at < begins and value]
    usual_hour = statistics.median(working) if working else 0.0
    rows = []
    for at in range(begins, last, HOUR_MS):
        past = [spent.get(other, 0) for other in alike(at, first, begins)]
        if len(past) < 2:
            continue
        exact = [spent.get(at - week * 7 * when.DAY, 0) for week in range(1, WEEKS + 1) if at - week * 7 * when.DAY >= first]
        middle = max(statistics.median(past), statistics.median(exact) if exact else 0)  # a job runs at one hour only
        spread = MAD * statistics.median(abs(value - middle) for value in past)
        spread = max(spread, LEAST_SHARE * middle, LEAST_OF_HOUR * usual_hour)
        score = (spent.get(at, 0) - middle) / spread if spread else 0.0
        if score >= SCORE:
            rows.append(_row(at, by_hour, spent[at], middle, score, len(past), past_of(at, first, begins, by_hour)))
    return rows, ""


def alike(at: int, first: int, before: int) -> list[int]:
    """The same hour of the same weekday in the weeks before, and the hours beside it, as far back as the log reaches."""
    hours = [at - week * 7 * when.DAY + step * HOUR_MS for week in range(1, WEEKS + 1) for step in (-1, 0, 1)]
    return [hour for hour in hours if first <= hour < before]


def past_of(at: int, first: int, before: int, by_hour: Mapping[int, Sequence[Part]]) -> dict[tuple[str, str], float]:
    """What each project and model used on average in such an hour."""
    hours = alike(at, first, before)
    sums: dict[tuple[str, str], float] = {}
    for hour in hours:
        for part in by_hour.get(hour, ()):
            for name in WHICH[:2]:
                key = (name, part.fields[name])
                sums[key] = sums.get(key, 0.0) + part.tokens / len(hours)
    return sums


def _row(
    at: int,
    by_hour: Mapping[int, Sequence[Part]],
    tokens: int,
    middle: float,
    score: float,
    hours: int,
    usual: Mapping[tuple[str, str], float],
) -> Event:
    parts = by_hour[at]
    costs = [part.usd for part in parts]
    row: Event = {"v": 1, "kind": "anomaly", "ts": when.stamp(at), "tokens": tokens, "usual_tokens": round(middle)}
    row |= {"score": round(score, 1), "judged_by_hours": hours}
    known_costs = [cost for cost in costs if cost is not None]
    row["cost_usd"] = f"{sum(known_costs):.6f}".rstrip("0").rstrip(".") if known_costs else None
    if len(known_costs) < len(costs):
        row["unpriced_tokens"] = sum(part.tokens for part in parts if part.usd is None)
    row["because"] = [reason for name in WHICH if (reason := _reason(name, parts, tokens - middle, usual))]
    return row


def _reason(name: str, parts: Sequence[Part], excess: float, usual: Mapping[tuple[str, str], float]) -> Event | None:
    """The project, model or session that caused most of the excess; None if none caused half of it."""
    sums: dict[str, int] = {}
    for part in parts:
        sums[part.fields[name]] = sums.get(part.fields[name], 0) + part.tokens
    more = {value: tokens - usual.get((name, value), 0.0) for value, tokens in sums.items()}
    most = max(more, key=lambda value: (more[value], value))
    if excess <= 0 or more[most] < excess / 2:
        return None
    return {"field": name, "value": most, "tokens": sums[most], "share_of_excess": round(min(more[most] / excess, 1.0), 2)}


def table(rows: Sequence[Event], tz: datetime.tzinfo, shape: str, color: bool, verbose: bool = False) -> str:
    """Anomalies for people."""
    because = [", ".join(map(_reason_text, row["because"])) for row in rows]
    hours = [when.moment(row["ts"]) for row in rows]
    columns = [
        show.Column("hour", [f"{when.local(at, tz):%a} {when.short_time(at, tz, max(hours))}" for at in hours], False, 0),
        show.counts("tokens", [row["tokens"] for row in rows], 1),
        show.counts("usual", [row["usual_tokens"] for row in rows], 1),
        show.amounts("list price", [row["cost_usd"] for row in rows], ["unpriced_tokens" in row for row in rows]),
        show.Column("mostly", because, False, 1),
    ]
    return show.table(columns, shape, color=color)


def _reason_text(reason: Event) -> str:
    return f"{reason['field'].removesuffix('_id')} {_value(reason)}"


def _value(reason: Event) -> str:
    value = str(reason["value"])
    return value[:8] if reason["field"] == "session_id" else value
