"""Replays past readings: at every moment our forecast, the baselines' forecasts, and the outcome.

A forecast uses only what was known at its moment. Real cutoffs are few, so virtual caps of 10, 20, ... 100 % of the
vendor's limit are forecast too. Nothing is fitted on the data that it is scored on: neither our method nor the error
spreads of the baselines. limit_scores.py scores the result.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenops import limit_policy, limit_windows, when, workers
from tokenops.limit_forecast import FEW, FORMULA_WEIGHT, HORIZONS, LATE_MS, LONGEST, MOST, Analogs, History, Now, quantiles
from tokenops.limit_windows import MINUTE, Series

CAPS = tuple(range(10, 101, 10))
OURS = "forecast"
# Baselines that say yes or no; then those with error spreads, learned only from earlier moments.
LINE, START = "line_30", "since_start"
FAIR = ("line_30_spread", "line_60_spread", "climatology", "climatology_span", "persistence")
METHODS = (OURS, LINE, START, *FAIR)
# The methods whose forecasts of the reading an hour ahead are compared.
POINTS = (OURS, LINE, "climatology_span", "persistence")
# After a longer gap between polls the use is unknown.
GAP_MS = 20 * MINUTE


class Case(NamedTuple):
    """One moment and horizon: the caps above the reading, whether each was reached, and each method's chances."""

    block: tuple[int, int]
    at: int
    horizon: int
    caps: tuple[int, ...]
    reached: tuple[bool, ...]
    p: dict[str, list[float]]


class Hour(NamedTuple):
    """The reading one hour ahead (`used`), each method's 10, 50 and 90 % points, and the share of the PIT inside ours.

    The PIT is randomised. `plain`: whether the reading lies in our middle 80 %.
    """

    block: tuple[int, int]
    used: float
    points: dict[str, tuple[float, float, float]]
    inside: float
    plain: bool


class Cap(NamedTuple):
    """One cap in one window: when it was reached (None: never), and the chances that were forecast before."""

    block: tuple[int, int]
    cap: int
    reached_at: int | None
    chances: tuple[tuple[int, float, float], ...]  # at, p before the reset, p within an hour


class Result(NamedTuple):
    """Everything that was replayed of a group of series. `few`: moments with few data; `ends`: what rules had advised."""

    cases: list[Case]
    hours: list[Hour]
    caps: list[Cap]
    days: int
    moments: int
    few: int
    ends: tuple[limit_policy.End, ...] = ()


class Past(NamedTuple):
    """A series and its history, as forecasts need it."""

    series: Series
    history: History


def pasts(series: Sequence[Series]) -> list[Past]:
    """Each series with its history."""
    return [Past(each, History(each, limit_windows.frozen_spans(each, series))) for each in series]


def groups(series: Sequence[Series], provider: str | None, window: str | None) -> dict[tuple[str, str], list[Past]]:
    """Provider and window -> its series. Without a window's name: all windows of a day or less."""
    result: dict[tuple[str, str], list[Past]] = {}
    for past in pasts(series):
        key = past.series.key
        is_chosen = past.history.minutes <= LONGEST if window is None else key.window == window
        if is_chosen and provider in (None, key.provider):
            result.setdefault((key.provider, key.window), []).append(past)
    return result


def numbers(text: str) -> tuple[int, ...]:
    """`30,60,120` -> its numbers in order; none if one of them is not a whole number of at least 1."""
    parts = text.split(",")
    valid = all(part.isdecimal() and 0 < int(part) < 1_000_000 for part in parts)
    return tuple(sorted({int(part) for part in parts})) if valid else ()


def replay(
    group: Sequence[Past],
    horizons: Sequence[int] = HORIZONS,
    caps: Sequence[int] = CAPS,
    every: int = 1,
    progress: workers.Progress = workers.SILENT,
) -> Result:
    """Forecasts at each moment (or every n-th) of each series; the series of a group are each other's other users."""
    result = Result([], [], [], 0, 0, 0)
    days = moments = few = 0
    ends: list[limit_policy.End] = []
    for number, past in enumerate(group):
        others = [other.history for other in group if other is not past]
        replayed = _Replay(number, past, others, tuple(horizons), tuple(caps))
        few += replayed.run(result, every, progress)
        result.caps.extend(replayed.ends())
        ends.extend(replayed.watch.ends())
        days += len({at // when.DAY for at in past.history.starts})
        moments += len(past.history.moments[::every])
    return result._replace(days=days, moments=moments, few=few, ends=tuple(ends))


class _Replay:
    """Replays the moments of one series in order."""

    def __init__(
        self, number: int, past: Past, others: list[History], horizons: tuple[int, ...], caps: tuple[int, ...]
    ) -> None:
        self.number, self.past, self.others, self.horizons, self.caps = number, past, others, horizons, caps
        self.history = past.history
        self.lines = {minutes: Line(self.history, minutes) for minutes in (30, 60)}
        self.windows = {window.resets_at: window for window in past.series.windows}
        self.chances: dict[tuple[int, int], list[tuple[int, float, float]]] = {}
        self.watch = limit_policy.Watch(past.series, caps)

    def run(self, result: Result, every: int, progress: workers.Progress) -> int:
        """Add the moments to a result, and return how many of them had few data."""
        few = 0
        for i in self.history.moments[::every]:
            at = self.history.times[i]
            now = self.history.state(at, i)
            analogs = Analogs(self.history, now)
            left = max((now.resets_at - at) // MINUTE, 1)
            few += analogs.weight(left if analogs.long else min(60, left)) < FEW
            result.cases.extend(self._cases(analogs, left))
            result.hours.extend(self._hour(analogs, min(60, left)))
            self._alarms(analogs, left)
            self.watch.at(analogs, left, self.lines[30].slope(now))
            progress(1)
        return few

    def _outcome(self, now: Now, span: int) -> tuple[int, float] | None:
        """Percent used `span` minutes later in the same window, with the span; None if no reading shows it.

        The minutes between the last poll and the reset are unknown, so the span of a poller ends with that poll.
        """
        readings = self.windows[now.resets_at].points
        end = now.at + span * MINUTE
        last = bisect.bisect_right(readings, end + LATE_MS, key=lambda point: point.at) - 1
        seen, used = readings[last].at, max(100 * readings[last].used, now.used)
        if not self.history.polled:
            return (span, used) if end <= self.history.times[-1] else None
        if seen <= now.at:
            return None
        if end > now.resets_at - MINUTE and seen >= end - GAP_MS:
            return max(round((seen - now.at) / MINUTE), 1), used
        flat = last + 1 < len(readings) and 100 * readings[last + 1].used == used
        return (span, used) if seen >= end - GAP_MS or flat else None

    def _cases(self, analogs: Analogs, left: int) -> Iterator[Case]:
        now = analogs.now
        caps = tuple(cap for cap in self.caps if cap > now.used)
        needs = [cap - now.used for cap in caps]
        for horizon in self.horizons:
            outcome = self._outcome(now, min(horizon, left))
            if outcome is None or not caps:
                continue
            span, used = outcome
            chances = {OURS: analogs.reach(span, needs), **self._baselines(analogs, span, horizon, needs)}
            block = self.number, now.resets_at
            yield Case(block, now.at, horizon, caps, tuple(used >= cap for cap in caps), chances)

    def _baselines(self, analogs: Analogs, span: int, horizon: int, needs: list[float]) -> dict[str, list[float]]:
        now, first = analogs.now, analogs.first
        pace = now.used / max(2**now.age - 15, 1)
        chances = {
            LINE: [float(self.lines[30].slope(now) * span >= need) for need in needs],
            START: [float(pace * span >= need) for need in needs],
            "persistence": [0.0 for _ in needs],
        }
        for minutes, line in self.lines.items():
            chances[f"line_{minutes}_spread"] = line.chances(now, first, span, needs)
        chances["climatology"] = climatology(self.history, self.others, now.at, first, horizon, needs)
        chances["climatology_span"] = climatology(self.history, self.others, now.at, first, span, needs)
        return chances

    def _hour(self, analogs: Analogs, span: int) -> Iterator[Hour]:
        now = analogs.now
        outcome = self._outcome(now, span)
        if outcome is None:
            return
        span, used = outcome
        rise = round(used - now.used)
        above, up = analogs.reach(span, (rise, rise + 1)) if rise else (1.0, analogs.reach(span, (1,))[0])
        low, high = 1 - above, 1 - up
        inside = (min(high, 0.9) - max(low, 0.1)) / (high - low) if high > low else float(0.1 <= low <= 0.9)
        middle_80 = quantiles(self.history, analogs, span)
        middle = middle_80.p10 or 0.0, middle_80.p50 or 0.0, middle_80.p90 or 0.0
        straight = min(now.used + self.lines[30].slope(now) * span, 100.0)
        draws = sorted(_past_rises(self.history, now.at, analogs.first, span)) or [0.0]
        past = [now.used + draws[min(int(len(draws) * q), len(draws) - 1)] for q in (0.1, 0.5, 0.9)]
        points = {OURS: middle, LINE: (straight,) * 3, "climatology_span": (past[0], past[1], past[2])}
        points["persistence"] = (now.used,) * 3
        yield Hour((self.number, now.resets_at), used, points, max(inside, 0.0), middle[0] <= used <= middle[2])

    def _alarms(self, analogs: Analogs, left: int) -> None:
        now = analogs.now
        caps = [cap for cap in self.caps if cap > now.used]
        needs = [cap - now.used for cap in caps]
        before, hour = analogs.reach(left, needs), analogs.reach(min(60, left), needs)
        for cap, p, q in zip(caps, before, hour, strict=True):
            self.chances.setdefault((now.resets_at, cap), []).append((now.at, p, q))

    def ends(self) -> Iterator[Cap]:
        """Each cap of each window that was forecast, with the moment at which it was reached."""
        for (resets_at, cap), chances in self.chances.items():
            readings = self.windows[resets_at].points
            at = next((point.at for point in readings if 100 * point.used >= cap), None)
            yield Cap((self.number, resets_at), cap, at, tuple(chances))


class Line:
    """A straight line through the last minutes, with the spread of its own past errors."""

    def __init__(self, history: History, minutes: int) -> None:
        self.history, self.minutes = history, minutes
        self.slopes = [self.slope(state) for state in history.states]
        self._errors: dict[int, list[float]] = {}

    def slope(self, now: Now) -> float:
        """Percent a minute."""
        return (now.total - self.history.total(now.at - self.minutes * MINUTE)) / self.minutes

    def errors(self, span: int) -> list[float]:
        """The outcome minus the line's forecast, in square roots of the forecast, at each past moment."""
        errors = self._errors.get(span)
        if errors is None:
            rises = self.history.rises(span)
            predicted = [slope * span for slope in self.slopes]
            errors = [(rise - line) / math.sqrt(1 + line) for rise, line in zip(rises, predicted, strict=True)]
            self._errors[span] = errors
        return errors

    def chances(self, now: Now, first: int, span: int, needs: Sequence[float]) -> list[float]:
        """The chance of each rise; a normal error of two roots counts like ten past moments."""
        left = self.errors(span)[first : max(self.history.over(now.at, span), first)]
        count, predicted, result = len(left), self.slope(now) * span, []
        for need in needs:
            far = (need - 0.5 - predicted) / math.sqrt(1 + predicted)
            left = [error for error in left if error >= far]
            result.append((len(left) + FORMULA_WEIGHT * 0.5 * math.erfc(far / math.sqrt(8))) / (count + FORMULA_WEIGHT))
        return result


def _past_rises(history: History, at: int, first: int, span: int) -> list[float]:
    """The rises of the spans that were over at a moment, from moment number `first` on."""
    return history.rises(span)[first : max(history.over(at, span), first)]


def climatology(
    history: History, others: Sequence[History], at: int, first: int, span: int, needs: Sequence[float]
) -> list[float]:
    """How often a span of this length rose so much before; the other users' pasts count like ten moments."""
    left = _past_rises(history, at, first, span)
    count, chances = len(left), []
    other = [rise for other in others for rise in other.rises(span)[-MOST:]]
    weight, crowd = (FORMULA_WEIGHT if other else 0.0), len(other)
    for need in needs:
        left = [rise for rise in left if rise >= need]
        other = [rise for rise in other if rise >= need]
        theirs = len(other) / crowd if crowd else 0.0
        chances.append((len(left) + weight * theirs) / (count + weight) if count + weight else 0.0)
    return chances
