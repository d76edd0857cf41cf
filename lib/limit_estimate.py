"""Estimates before a session what share of a limit it will take, from the account's own past runs.

How much a session takes is hardly known before it: the spread of the past is most of the answer. Five views of the past are
averaged: all runs alike, the latest more, those after a like pause, and those with as much use in the day and in the hour
before. Each estimate is tried on the account's own past first (replay): where that was not better than the plain median and
the plain spread of all runs before, there is none. Pure. docs/forecast.md shows how it was tested.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenops import when
from tokenops.limit_forecast import LATE_MS, History
from tokenops.limit_runs import Run
from tokenops.limit_windows import MINUTE, Series

# The points that are given: the middle 80 % and the median.
POINTS = (0.1, 0.5, 0.9)
# Runs that an estimate is made from at least, replayed estimates that it is judged by at least, and runs that count at most.
LEAST, JUDGED, MOST = 5, 5, 200
# The latest runs count more: so many runs ago half as much.
HALF = 20.0
# What a run that is not alike counts still, where the one that is alike counts 1.
FLOOR = 0.1
OURS, MEDIAN, SPREAD = "estimate", "median", "spread"
METHODS = (OURS, MEDIAN, SPREAD)
CAPS = tuple(range(10, 101, 10))

Three = tuple[float, float, float]


class Moment(NamedTuple):
    """What is known before a run, as logarithms: the pause since the last one, and the use of the day and hour before."""

    pause: float
    day: float
    hour: float


class Chance(NamedTuple):
    """A cap of a replayed run: our chance that it is reached, that of all runs alike, and whether it was."""

    ours: float
    plain: float
    reached: bool


class Scored(NamedTuple):
    """A run that was estimated before it began. `loss`: pinball, by method; `is_shown`: whether it would have been shown."""

    at: int
    known_at: int
    percent: float
    points: dict[str, Three]
    loss: dict[str, float]
    is_shown: bool
    chances: tuple[Chance, ...]

    def is_inside(self, method: str) -> bool:
        """Whether the run took what the interval of a method says."""
        low, _, high = self.points[method]
        return low <= self.percent <= high


class Skill(NamedTuple):
    """How an estimate did on the past: the share of each baseline's loss that it avoided, and its coverage."""

    scored: int
    over_median: float
    over_spread: float
    coverage: float


class Estimate(NamedTuple):
    """What runs like it took, in percent of a limit, and the chance that the limit is reached before it is reset."""

    points: Three
    p_cutoff: float | None


class Past:
    """The past runs of one limit, in the order in which they were known to be over, with what was known before each."""

    def __init__(self, runs: Sequence[Run], series: Series) -> None:
        self.series = series
        self.runs = sorted(runs, key=lambda run: (run.known_at, run.end, run.start, run.session))
        self.known = [run.known_at for run in self.runs]
        self.history = History(series)
        self.moments = [self.moment(run.start) for run in self.runs]

    def over(self, at: int) -> int:
        """How many runs were known to be over at a moment."""
        return bisect.bisect_right(self.known, at)

    def moment(self, at: int) -> Moment:
        """What is known at a moment."""
        count = self.over(at)
        hours = (at - self.runs[count - 1].end) / (60 * MINUTE) if count else 24.0
        used = (self.history.total(at) - self.history.total(at - span) for span in (when.DAY, 60 * MINUTE))
        return Moment(math.log2(0.25 + hours), *(math.log2(0.5 + max(rise, 0.0)) for rise in used))

    def rise_within(self, run: Run, minutes: int) -> float:
        """How far the limit's reading rose during the first minutes of a run, whoever used it."""
        last = min(run.end + LATE_MS, run.start + minutes * MINUTE)
        return max(self.history.total(last) - self.history.total(run.start), 0.0)

    def open_at(self, at: int) -> tuple[float, int]:
        """The percent used at a moment and the minutes to the reset; of a new window, if none is open."""
        now = self.history.now(at)
        if now is None:
            return 0.0, self.history.minutes
        return now.used, max((now.resets_at - at) // MINUTE, 1)


def views(past: Past, at: int, first: int, count: int) -> list[list[float]]:
    """The weights of runs number `first` to `count` in each of the views of the past; each view adds up to 1."""
    now, moments = past.moment(at), past.moments[first:count]
    raw = [
        [1.0] * (count - first),
        [0.5 ** ((count - 1 - number) / HALF) for number in range(first, count)],
        [FLOOR + math.exp(-((now.pause - each.pause) ** 2) / 2) for each in moments],
        [FLOOR + math.exp(-((now.day - each.day) ** 2) / 2) for each in moments],
        [FLOOR + math.exp(-((now.hour - each.hour) ** 2) / 2) for each in moments],
    ]
    return [[weight / sum(view) for weight in view] for view in raw]


def quantiles(values: Sequence[float], weights: Sequence[float]) -> Three:
    """The three points of values with weights that add up to 1."""
    ordered = sorted(zip(values, weights, strict=True))
    low, middle, high = (_quantile(ordered, q) for q in POINTS)
    return low, middle, high


def _quantile(ordered: Sequence[tuple[float, float]], q: float) -> float:
    left = q - 1e-9
    for value, weight in ordered:
        left -= weight
        if left <= 0:
            return value
    return ordered[-1][0]


def points(past: Past, at: int) -> dict[str, Three] | None:
    """The points of each method at a moment, from the runs that were over by then; None if they are too few."""
    count = past.over(at)
    first = max(count - MOST, 0)
    if count - first < LEAST:
        return None
    values = [max(run.percent, 0.0) for run in past.runs[first:count]]
    each = [quantiles(values, view) for view in views(past, at, first, count)]
    low, middle, high = (sum(three[number] for three in each) / len(each) for number in range(len(POINTS)))
    median = each[0][1]
    return {OURS: (low, middle, high), MEDIAN: (median, median, median), SPREAD: each[0]}


def chances(past: Past, at: int, minutes: int, needs: Sequence[float]) -> list[tuple[float, float]]:
    """The chance that so many percent or more are used during a run, within some minutes: ours, and of all runs alike.

    Half a case more counts on either side, so no chance is 0 or 1.
    """
    count = past.over(at)
    first = max(count - MOST, 0)
    number = count - first
    every = views(past, at, first, count)
    mixed = [sum(weights) / len(every) for weights in zip(*every, strict=True)]
    rises = [past.rise_within(run, minutes) for run in past.runs[first:count]]
    result = []
    for need in needs:
        reached = [rise >= need for rise in rises]
        ours = number * sum(weight for weight, is_so in zip(mixed, reached, strict=True) if is_so)
        result.append(((ours + 0.5) / (number + 1), (sum(reached) + 0.5) / (number + 1)))
    return result


def loss(percent: float, three: Three) -> float:
    """The mean pinball loss of three points, in percent of the limit."""
    parts = (max(q * (percent - point), (q - 1) * (percent - point)) for q, point in zip(POINTS, three, strict=True))
    return sum(parts) / len(POINTS)


def replay(past: Past, caps: Sequence[int] = ()) -> list[Scored]:
    """Every run with enough runs before it, estimated with what was known when it began; in order of their starts.

    `caps`: percent of the limit for which chances are scored too.
    """
    result: list[Scored] = []
    for run in sorted(past.runs, key=lambda run: (run.start, run.end)):
        three = points(past, run.start)
        if three is None:
            continue
        percent = max(run.percent, 0.0)
        losses = {method: loss(percent, three[method]) for method in METHODS}
        shown = is_shown(skill([each for each in result if each.known_at <= run.start]))
        scored = tuple(_chances(past, run, caps)) if caps else ()
        result.append(Scored(run.start, run.known_at, percent, three, losses, shown, scored))
    return result


def _chances(past: Past, run: Run, caps: Sequence[int]) -> Iterator[Chance]:
    used, minutes = past.open_at(run.start)
    needs = [cap - used for cap in caps if cap > used]
    rise = past.rise_within(run, minutes)
    for need, (ours, plain) in zip(needs, chances(past, run.start, minutes, needs), strict=True):
        yield Chance(ours, plain, rise >= need)


def skill(scored: Sequence[Scored], method: str = OURS) -> Skill | None:
    """How the estimates of some runs did; None if they are too few to say."""
    if len(scored) < JUDGED:
        return None
    losses = {name: sum(each.loss[name] for each in scored) for name in METHODS}
    over = {name: 1 - losses[method] / losses[name] if losses[name] else 0.0 for name in (MEDIAN, SPREAD)}
    inside = sum(each.is_inside(method) for each in scored) / len(scored)
    return Skill(len(scored), over[MEDIAN], over[SPREAD], inside)


def is_shown(judged: Skill | None) -> bool:
    """Whether an estimate is shown: on the account's past it was better than the median, and no worse than the spread."""
    return judged is not None and judged.over_median > 0 and judged.over_spread >= 0


def estimate(past: Past, now: int, used: float | None, minutes: int | None) -> Estimate | None:
    """What a run that begins now will take of a limit.

    `used`: the share of the limit that is used, None if no window is open; `minutes`: to its reset. None with few runs.
    """
    three = points(past, now)
    if three is None:
        return None
    span = minutes if used is not None and minutes is not None else past.history.minutes
    ((ours, _),) = chances(past, now, span, [100 * (1 - (used or 0.0))])
    return Estimate(three[OURS], 1.0 if used is not None and used >= 1 else ours)
