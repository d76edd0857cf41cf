"""Scores a replay: Brier score and skill, reliability, coverage and alarms, as records and tables.

The bootstrap draws whole windows, because the moments of one window share one outcome.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenops import limit_policy, show
from tokenops.events import Event
from tokenops.limit_backtest import METHODS, OURS, POINTS, Case, Hour, Result
from tokenops.limit_windows import MINUTE

# A chance this high is an alarm: a false alarm costs a look, a missed one the session.
ALARM = 0.3
# A cap counts if an alarm was possible: if there was a reading so many minutes before.
AHEAD = (10, 60)
REPEATS = 400

Sums = dict[tuple[int, int], tuple[float, int]]


def errors(cases: Iterable[Case], method: str) -> Sums:
    """Squared errors of a method by block: their sum and number."""
    sums: dict[tuple[int, int], tuple[float, int]] = {}
    for case in cases:
        total, count = sums.get(case.block, (0.0, 0))
        total += sum((p - reached) ** 2 for p, reached in zip(case.p[method], case.reached, strict=True))
        sums[case.block] = total, count + len(case.caps)
    return sums


def mean(sums: Sums) -> float | None:
    """The mean over all blocks."""
    count = sum(n for _, n in sums.values())
    return sum(total for total, _ in sums.values()) / count if count else None


class Skill(NamedTuple):
    """The share of a baseline's squared error that our forecast avoids, and the middle 90 % of the bootstrap."""

    value: float | None
    low: float | None
    high: float | None


def skill(ours: Sums, theirs: Sums, repeats: int = REPEATS) -> Skill:
    """The Brier skill. The draws are seeded, so equal input gives equal output."""
    blocks = sorted(ours)
    pairs = [(ours[block][0], theirs[block][0]) for block in blocks]
    whole = _saved_share(pairs)
    if whole is None or len(pairs) < 2:
        return Skill(whole, None, None)
    draw = random.Random(7)
    drawn = (_saved_share(draw.choices(pairs, k=len(pairs))) for _ in range(repeats))
    draws = sorted(draw_ for draw_ in drawn if draw_ is not None)
    return Skill(whole, draws[len(draws) // 20], draws[-1 - len(draws) // 20])


def _saved_share(pairs: Iterable[tuple[float, float]]) -> float | None:
    ours = theirs = 0.0
    for a, b in pairs:
        ours += a
        theirs += b
    return 1 - ours / theirs if theirs else None


class Bin(NamedTuple):
    """Forecasts with about the same chance: their number, their mean, and how often they came true."""

    low: float
    number: int
    chance: float
    frequency: float


def reliability(cases: Iterable[Case], method: str = OURS) -> list[Bin]:
    """Ten bins of chances; empty ones are left out."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    for case in cases:
        for p, reached in zip(case.p[method], case.reached, strict=True):
            bins[min(int(p * 10), 9)].append((p, reached))
    return [
        Bin(
            n / 10,
            len(forecasts),
            sum(p for p, _ in forecasts) / len(forecasts),
            sum(reached for _, reached in forecasts) / len(forecasts),
        )
        for n, forecasts in enumerate(bins)
        if forecasts
    ]


def pinball(hours: Sequence[Hour], method: str = OURS) -> float | None:
    """The mean loss of the 10, 50 and 90 % points of the reading an hour ahead, in percent of the limit."""
    if not hours:
        return None
    loss = 0.0
    for hour in hours:
        for q, point in zip((0.1, 0.5, 0.9), hour.points[method], strict=True):
            loss += max(q * (hour.used - point), (q - 1) * (hour.used - point)) / 3
    return loss / len(hours)


def coverage(hours: Sequence[Hour]) -> tuple[float, float] | None:
    """The share of outcomes inside the middle 80 %: by randomised PIT, and plainly (too high, as outcomes are whole)."""
    if not hours:
        return None
    return sum(hour.inside for hour in hours) / len(hours), sum(hour.plain for hour in hours) / len(hours)


class Alarms(NamedTuple):
    """Caps that were reached with a reading 10 to 60 minutes before, how many of them were announced, and false alarms."""

    reached: int
    announced: int
    lead_minutes: float | None
    false_alarms: int
    false_per_cap_and_day: float | None


def alarms(result: Result, alarm: float = ALARM, within_hour: bool = True) -> Alarms:
    """The alarms that a chance of at least `alarm` raises: the chance within an hour, or before the reset.

    Announced: there was an alarm at one of the readings 10 to 60 minutes before. False: raised, but never reached.
    """
    which = 2 if within_hour else 1
    reached = announced = false = 0
    leads = []
    for cap in result.caps:
        raised = [point[0] for point in cap.chances if point[which] >= alarm]
        if cap.reached_at is None:
            false += bool(raised)
            continue
        earliest, latest = (cap.reached_at - minutes * MINUTE for minutes in (AHEAD[1], AHEAD[0]))
        if any(earliest <= point[0] <= latest for point in cap.chances):
            reached += 1
            announced += any(earliest <= at <= latest for at in raised)
            leads += [(cap.reached_at - min(raised)) / MINUTE] if raised else []
    caps = len({cap.cap for cap in result.caps})
    leads.sort()
    each = false / caps / result.days if caps and result.days else None
    return Alarms(reached, announced, leads[len(leads) // 2] if leads else None, false, each)


def of_horizon(result: Result, horizon: int) -> list[Case]:
    """The cases of a horizon."""
    return [case for case in result.cases if case.horizon == horizon]


def rows(result: Result, labels: Event, horizons: Sequence[int]) -> Iterator[Event]:
    """All tables of a result as records: data, brier, reliability, hour, alarms, policy."""
    data = {"accounts": len({case.block[0] for case in result.cases}), "windows": len({case.block for case in result.cases})}
    yield labels | {"table": "data"} | data | {"moments": result.moments, "few_data": result.few, "days": result.days}
    for horizon in horizons:
        yield from _scores(of_horizon(result, horizon), labels | {"table": "brier", "horizon_minutes": horizon})
    for horizon in horizons:
        for bin_ in reliability(of_horizon(result, horizon)):
            row = labels | {"table": "reliability", "horizon_minutes": horizon, "from": bin_.low, "count": bin_.number}
            yield row | {"said": round(bin_.chance, 4), "came": round(bin_.frequency, 4)}
    yield from _hour(result.hours, labels | {"table": "hour"})
    for within_hour in (True, False):
        alarms_ = alarms(result, within_hour=within_hour)
        row = labels | {"table": "alarms", "alarm": ALARM, "p": "within 60 min" if within_hour else "before reset"}
        yield row | {name: _round(value) for name, value in alarms_._asdict().items()}
    caps = len({cap.cap for cap in result.caps})
    for rule in limit_policy.RULES:
        scored = limit_policy.score(result.ends, rule, result.days, caps)
        row = labels | {"table": "policy", "rule": rule}
        yield row | {name: _round(value) for name, value in scored._asdict().items()}


def _round(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else round(value, 5)


def _scores(cases: Sequence[Case], labels: Event) -> Iterator[Event]:
    sums = {method: errors(cases, method) for method in METHODS}
    for method in METHODS:
        row = labels | {"method": method, "moments": len(cases), "brier": _round(mean(sums[method]))}
        if method != OURS:
            names = ("skill", "skill_low", "skill_high")
            row |= dict(zip(names, map(_round, skill(sums[OURS], sums[method])), strict=True))
        yield row


def _hour(hours: Sequence[Hour], labels: Event) -> Iterator[Event]:
    covered = coverage(hours)
    for method in POINTS:
        row = labels | {"method": method, "moments": len(hours), "pinball": _round(pinball(hours, method))}
        if method == OURS and covered:
            row |= {"coverage": _round(covered[0]), "coverage_plain": _round(covered[1])}
        yield row


# Table -> what it is, and its columns: title, field, digits (None: text or a count).
_LAYOUT: dict[str, tuple[str, tuple[tuple[str, str, int | None], ...]]] = {
    "brier": (
        "Brier score (less is better), and the skill of the forecast over each baseline with its 90 % interval",
        (
            ("minutes", "horizon_minutes", None),
            ("method", "method", None),
            ("moments", "moments", None),
            ("Brier", "brier", 4),
            ("skill", "skill", 2),
            ("from", "skill_low", 2),
            ("to", "skill_high", 2),
        ),
    ),
    "reliability": (
        "Reliability: the chances forecast, and how often they came true",
        (
            ("minutes", "horizon_minutes", None),
            ("bin from", "from", 1),
            ("forecasts", "count", None),
            ("forecast", "said", 3),
            ("came true", "came", 3),
        ),
    ),
    "hour": (
        "The reading one hour ahead: pinball loss in percent of the limit, and the coverage of the 80 % interval (PIT)",
        (
            ("method", "method", None),
            ("moments", "moments", None),
            ("pinball", "pinball", 3),
            ("coverage", "coverage", 3),
            ("plain", "coverage_plain", 3),
        ),
    ),
    "alarms": (
        f"Alarms at p >= {ALARM}: of caps reached {AHEAD[0]} to {AHEAD[1]} min after a reading, and false ones",
        (
            ("p", "p", None),
            ("reached", "reached", None),
            ("announced", "announced", None),
            ("median lead, min", "lead_minutes", 0),
            ("false", "false_alarms", None),
            ("per cap and day", "false_per_cap_and_day", 2),
        ),
    ),
    "policy": (
        f"What tok-budget's action and other rules warn of: cutoffs without a warning {limit_policy.LEAD_MINUTES} min "
        "before, and minutes of warnings for nothing per cap and day",
        (
            ("rule", "rule", None),
            ("cutoffs", "cutoffs", None),
            ("without warning", "unwarned", None),
            ("for nothing, min", "slowed_minutes", 1),
        ),
    ),
}
_TEXT = ("method", "p", "rule")


def tables(rows: Sequence[Event], shape: str, color: bool = False, verbose: bool = False) -> str:
    """The tables of one result, as text."""
    data = next(row for row in rows if row["table"] == "data")
    head = f"{data['provider']} {data['window']}: {data['accounts']} accounts, {data['windows']} windows, "
    head += f"{data['moments']} moments on {data['days']} days; at {data['few_data']} of them few data"
    parts = [show.notes([head], shape, False, verbose=True)]
    for name, (title, columns) in _LAYOUT.items():
        chosen = [row for row in rows if row["table"] == name]
        laid = [
            show.Column(heading, [_cell(row.get(field), digits) for row in chosen], field not in _TEXT, at)
            for at, (heading, field, digits) in enumerate(columns)
        ]
        if chosen:
            parts.append(f"{show.notes([title], shape, False, verbose=True)}\n{show.table(laid, shape, color=color)}")
    return "\n".join(parts)


def _cell(value: object, digits: int | None) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f}" if digits is not None and isinstance(value, (int, float)) else str(value)
