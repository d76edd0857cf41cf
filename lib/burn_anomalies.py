"""Hours in which far more was spent than is usual for that hour of that weekday, and by what.

Usual is the middle of the same hours of the weeks before, give or take an hour, and the spread is the middle distance from
it: neither a holiday nor an earlier anomaly moves them. Below a floor nothing is unusual, and with less than two weeks of
past nothing is judged.
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
# So many spreads above the middle are an anomaly (a normal distribution reaches four in 1 of 30,000).
SCORE = 4.0
# The median distance from the median is this many standard deviations of a normal distribution.
MAD = 1.4826
# No spread is taken to be smaller than this share of the middle, and than this share of a usual working hour: hours that
# are always alike would make every other hour an anomaly.
LEAST_SHARE, LEAST_OF_HOUR = 0.25, 0.25
WHICH = ("project", "model", "session_id")


class Part(NamedTuple):
    """What one group of turns spent within an hour."""

    at: int
    fields: dict[str, str]
    tokens: int
    usd: float | None


def parts(folder: str, catalogue: pricing.Catalogue, now: int, tz: datetime.tzinfo, hours: int) -> list[Part]:
    """What was spent in the hours asked about and the weeks before, by project, model and session. Raises OSError."""
    since = now - hours * HOUR_MS - (WEEKS * 7 + 1) * when.DAY
    plan = rollup.Plan(("hour", "project", "model", "session"), tz, catalogue)
    found = []
    for row in costs.priced(store_summaries.rows(folder, plan, now, when.stamp(since)), catalogue):
        named = {name: str(row.get(name, "unknown")) for name in WHICH}
        usd = None if row.get("unpriced") else float(row.get("cost_usd", "0"))
        found.append(Part(when.moment(row["from"]) // HOUR_MS * HOUR_MS, named, events.token_sum(row), usd))
    return found


def found(given: Iterable[Part], now: int, tz: datetime.tzinfo, hours: int) -> tuple[list[Event], str]:
    """The anomalies of the last hours, oldest first, and why none could be looked for ("" if they were)."""
    held: dict[int, list[Part]] = {}
    for one in given:
        held.setdefault(one.at, []).append(one)
    last = now // HOUR_MS * HOUR_MS
    begins = last - hours * HOUR_MS
    first = min(held, default=last)
    if begins - first < FEWEST_DAYS * when.DAY:
        return [], f"the log goes back less than {FEWEST_DAYS} days before the hours asked about"
    spent = {at: sum(one.tokens for one in ones) for at, ones in held.items()}
    working = [value for at, value in spent.items() if at < begins and value]
    usual_hour = statistics.median(working) if working else 0.0
    made = []
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
            made.append(_row(at, held, spent[at], middle, score, len(past), past_of(at, first, begins, held)))
    return made, ""


def alike(at: int, first: int, before: int) -> list[int]:
    """The same hour of the same weekday in the weeks before, and the hours beside it, as far as the log goes back."""
    ones = [at - week * 7 * when.DAY + step * HOUR_MS for week in range(1, WEEKS + 1) for step in (-1, 0, 1)]
    return [one for one in ones if first <= one < before]


def past_of(at: int, first: int, before: int, held: Mapping[int, Sequence[Part]]) -> dict[tuple[str, str], float]:
    """What each project and model usually spent in such an hour."""
    hours = alike(at, first, before)
    sums: dict[tuple[str, str], float] = {}
    for hour in hours:
        for one in held.get(hour, ()):
            for name in WHICH[:2]:
                key = (name, one.fields[name])
                sums[key] = sums.get(key, 0.0) + one.tokens / len(hours)
    return sums


def _row(
    at: int,
    held: Mapping[int, Sequence[Part]],
    tokens: int,
    middle: float,
    score: float,
    hours: int,
    usual: Mapping[tuple[str, str], float],
) -> Event:
    ones = held[at]
    costs = [one.usd for one in ones]
    made: Event = {"v": 1, "kind": "anomaly", "ts": when.stamp(at), "tokens": tokens, "usual_tokens": round(middle)}
    made |= {"score": round(score, 1), "judged_by_hours": hours}
    known = [cost for cost in costs if cost is not None]
    made["cost_usd"] = None if len(known) < len(costs) else f"{sum(known):.6f}".rstrip("0").rstrip(".")
    made["because"] = [reason for name in WHICH if (reason := _reason(name, ones, tokens - middle, usual))]
    return made


def _reason(name: str, ones: Sequence[Part], excess: float, usual: Mapping[tuple[str, str], float]) -> Event | None:
    """The project, model or session that made most of what was more than usual; None where none made half."""
    sums: dict[str, int] = {}
    for one in ones:
        sums[one.fields[name]] = sums.get(one.fields[name], 0) + one.tokens
    more = {value: tokens - usual.get((name, value), 0.0) for value, tokens in sums.items()}
    most = max(more, key=lambda value: (more[value], value))
    if excess <= 0 or more[most] < excess / 2:
        return None
    return {"field": name, "value": most, "tokens": sums[most], "share_of_excess": round(min(more[most] / excess, 1.0), 2)}


def table(rows: Sequence[Event], tz: datetime.tzinfo, shape: str, color: bool) -> str:
    """Anomalies for people."""
    because = [", ".join(map(_said, row["because"])) for row in rows]
    columns = [
        show.Column("hour", [f"{when.local(when.moment(row['ts']), tz):%a %Y-%m-%d %H:00}" for row in rows], number=False),
        show.Column("tokens", [show.count(row["tokens"]) for row in rows]),
        show.Column("usual", [show.count(row["usual_tokens"]) for row in rows]),
        show.Column("list price", [show.money(row["cost_usd"]) or "unknown" for row in rows]),
        show.Column("mostly", because, number=False),
    ]
    return show.table(columns, shape, color=color)


def _said(reason: Event) -> str:
    return f"{reason['field'].removesuffix('_id')} {reason['value'][:30]}"
