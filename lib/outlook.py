"""What the coming hours or days are likely to cost: what the same ones of the last four weeks did.

Nothing cleverer is claimed. Over one user's six weeks of 2026, 77 % of the sums of the next five hours lay between p10 and
p90, and 81 % of those of the next 24 (docs/dashboard.md). With less than a week of past nothing is said.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tokenops import budgets, pricing, when
from tokenops.events import Event

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
