"""A past replayed: at every moment a forecast from what was known then, beside the baselines', and what came.

Real cutoffs are few, so virtual caps of 10, 20, ... 100 % of the vendor's limit are forecast as well. Nothing is fitted on
what it is scored on: neither our method nor the error spreads of the baselines. `scores` makes figures of it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenops import limit_windows, when
from tokenops.limit_forecast import FEW, FORMULA_WEIGHT, HORIZONS, LATE_MS, LONGEST, MOST, Analogs, History, Now, quantiles
from tokenops.limit_windows import MINUTE, Series

CAPS = tuple(range(10, 101, 10))
OURS = "forecast"
# Yes or no; then with error spreads learned walk-forward.
LINE, START = "line_30", "since_start"
FAIR = ("line_30_spread", "line_60_spread", "climatology", "climatology_span", "persistence")
METHODS = (OURS, LINE, START, *FAIR)
# Whose points of the reading an hour ahead are compared.
POINTS = (OURS, LINE, "climatology_span", "persistence")
# A poller's silence of more than this is ignorance.
GAP_MS = 20 * MINUTE


class Case(NamedTuple):
    """One moment and horizon: what was left to each cap, whether it was reached, and what each method gave for it."""

    block: tuple[int, int]
    at: int
    horizon: int
    caps: tuple[int, ...]
    reached: tuple[bool, ...]
    p: dict[str, list[float]]


class Hour(NamedTuple):
    """The reading one hour ahead: what came, our middle 80 %, and the share of its randomised PIT inside of it."""

    block: tuple[int, int]
    came: float
    points: dict[str, tuple[float, float, float]]
    inside: float
    plain: bool


class Cap(NamedTuple):
    """One cap in one window: when it was reached (None: never), and the chances given of it before."""

    block: tuple[int, int]
    cap: int
    reached_at: int | None
    given: tuple[tuple[int, float, float], ...]  # at, p before the reset, p within an hour


class Result(NamedTuple):
    """All that was scored of a group of series."""

    cases: list[Case]
    hours: list[Hour]
    caps: list[Cap]
    days: int
    moments: int
    few: int


class Past(NamedTuple):
    """A series, and the same laid out for the replay."""

    series: Series
    history: History


def pasts(series: Sequence[Series]) -> list[Past]:
    """The series laid out for the replay."""
    return [Past(one, History(one, limit_windows.frozen_spans(one, series))) for one in series]


def groups(series: Sequence[Series], provider: str | None, window: str | None) -> dict[tuple[str, str], list[Past]]:
    """Provider and window -> its series. Without a window's name: all windows of a day or less."""
    found: dict[tuple[str, str], list[Past]] = {}
    for past in pasts(series):
        key = past.series.key
        wanted = past.history.minutes <= LONGEST if window is None else key.window == window
        if wanted and provider in (None, key.provider):
            found.setdefault((key.provider, key.window), []).append(past)
    return found


def numbers(text: str) -> tuple[int, ...]:
    """`30,60,120` -> its numbers in order; none where one of them is no whole number of at least 1."""
    parts = text.split(",")
    valid = all(part.isdecimal() and 0 < int(part) < 1_000_000 for part in parts)
    return tuple(sorted({int(part) for part in parts})) if valid else ()


def replay(group: Sequence[Past], horizons: Sequence[int] = HORIZONS, caps: Sequence[int] = CAPS, every: int = 1) -> Result:
    """Forecast at each moment (or at every n-th) of each series, those of a group being each other's other users."""
    result = Result([], [], [], 0, 0, 0)
    days = moments = few = 0
    for number, past in enumerate(group):
        others = [other.history for other in group if other is not past]
        replayed = _Replay(number, past, others, tuple(horizons), tuple(caps))
        few += replayed.run(result, every)
        result.caps.extend(replayed.ends())
        days += len({at // when.DAY for at in past.history.starts})
        moments += len(past.history.moments[::every])
    return result._replace(days=days, moments=moments, few=few)


class _Replay:
    """One series' moments, one after the other."""

    def __init__(
        self, number: int, past: Past, others: list[History], horizons: tuple[int, ...], caps: tuple[int, ...]
    ) -> None:
        self.number, self.past, self.others, self.horizons, self.caps = number, past, others, horizons, caps
        self.history = past.history
        self.lines = {minutes: Line(self.history, minutes) for minutes in (30, 60)}
        self.windows = {window.resets_at: window for window in past.series.windows}
        self.given: dict[tuple[int, int], list[tuple[int, float, float]]] = {}

    def run(self, result: Result, every: int) -> int:
        """Score the moments; how many of them had few data."""
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
        return few

    def _came(self, now: Now, span: int) -> tuple[int, float] | None:
        """Percent used `span` minutes later in the same window, with the span; None where nobody saw it.

        A poller sees nothing of the minutes between its last poll and the reset: its span ends with that poll.
        """
        readings = self.windows[now.resets_at].points
        end = now.at + span * MINUTE
        last = bisect.bisect_right(readings, end + LATE_MS, key=lambda one: one.at) - 1
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
            found = self._came(now, min(horizon, left))
            if found is None or not caps:
                continue
            span, came = found
            given = {OURS: analogs.reach(span, needs), **self._baselines(analogs, span, horizon, needs)}
            block = self.number, now.resets_at
            yield Case(block, now.at, horizon, caps, tuple(came >= cap for cap in caps), given)

    def _baselines(self, analogs: Analogs, span: int, horizon: int, needs: list[float]) -> dict[str, list[float]]:
        now, first = analogs.now, analogs.first
        pace = now.used / max(2**now.age - 15, 1)
        given = {
            LINE: [float(self.lines[30].slope(now) * span >= need) for need in needs],
            START: [float(pace * span >= need) for need in needs],
            "persistence": [0.0 for _ in needs],
        }
        for minutes, line in self.lines.items():
            given[f"line_{minutes}_spread"] = line.chances(now, first, span, needs)
        given["climatology"] = climatology(self.history, self.others, now.at, first, horizon, needs)
        given["climatology_span"] = climatology(self.history, self.others, now.at, first, span, needs)
        return given

    def _hour(self, analogs: Analogs, span: int) -> Iterator[Hour]:
        now = analogs.now
        seen = self._came(now, span)
        if seen is None:
            return
        span, came = seen
        rise = round(came - now.used)
        above, up = analogs.reach(span, (rise, rise + 1)) if rise else (1.0, analogs.reach(span, (1,))[0])
        low, high = 1 - above, 1 - up
        inside = (min(high, 0.9) - max(low, 0.1)) / (high - low) if high > low else float(0.1 <= low <= 0.9)
        found = quantiles(self.history, analogs, span)
        middle = found.p10 or 0.0, found.p50 or 0.0, found.p90 or 0.0
        straight = min(now.used + self.lines[30].slope(now) * span, 100.0)
        draws = sorted(_completed(self.history, now.at, analogs.first, span)) or [0.0]
        past = [now.used + draws[min(int(len(draws) * q), len(draws) - 1)] for q in (0.1, 0.5, 0.9)]
        points = {OURS: middle, LINE: (straight,) * 3, "climatology_span": (past[0], past[1], past[2])}
        points["persistence"] = (now.used,) * 3
        yield Hour((self.number, now.resets_at), came, points, max(inside, 0.0), middle[0] <= came <= middle[2])

    def _alarms(self, analogs: Analogs, left: int) -> None:
        now = analogs.now
        caps = [cap for cap in self.caps if cap > now.used]
        needs = [cap - now.used for cap in caps]
        before, hour = analogs.reach(left, needs), analogs.reach(min(60, left), needs)
        for cap, p, q in zip(caps, before, hour, strict=True):
            self.given.setdefault((now.resets_at, cap), []).append((now.at, p, q))

    def ends(self) -> Iterator[Cap]:
        """Each cap of each window that was forecast, with the moment at which it was reached."""
        for (resets_at, cap), given in self.given.items():
            readings = self.windows[resets_at].points
            at = next((one.at for one in readings if 100 * one.used >= cap), None)
            yield Cap((self.number, resets_at), cap, at, tuple(given))


class Line:
    """The last minutes in a straight line, with its own past errors for a spread."""

    def __init__(self, history: History, minutes: int) -> None:
        self.history, self.minutes = history, minutes
        self.slopes = [self.slope(state) for state in history.states]
        self._errors: dict[int, list[float]] = {}

    def slope(self, now: Now) -> float:
        """Percent a minute."""
        return (now.total - self.history.total(now.at - self.minutes * MINUTE)) / self.minutes

    def errors(self, span: int) -> list[float]:
        """What came less what the line said, in roots of what it said: at each moment of the past."""
        found = self._errors.get(span)
        if found is None:
            rises = self.history.rises(span)
            said = [slope * span for slope in self.slopes]
            found = [(rise - line) / math.sqrt(1 + line) for rise, line in zip(rises, said, strict=True)]
            self._errors[span] = found
        return found

    def chances(self, now: Now, first: int, span: int, needs: Sequence[float]) -> list[float]:
        """The chance of each rise; ten moments of a normal error of two roots stand in for a past."""
        left = self.errors(span)[first : max(self.history.over(now.at, span), first)]
        count, said, found = len(left), self.slope(now) * span, []
        for need in needs:
            far = (need - 0.5 - said) / math.sqrt(1 + said)
            left = [error for error in left if error >= far]
            found.append((len(left) + FORMULA_WEIGHT * 0.5 * math.erfc(far / math.sqrt(8))) / (count + FORMULA_WEIGHT))
        return found


def _completed(history: History, at: int, first: int, span: int) -> list[float]:
    """What was used in the spans that were over at a moment, from moment number `first` on."""
    return history.rises(span)[first : max(history.over(at, span), first)]


def climatology(
    history: History, others: Sequence[History], at: int, first: int, span: int, needs: Sequence[float]
) -> list[float]:
    """How often so much was used in such a span before, with ten moments' weight of the other users' pasts."""
    left = _completed(history, at, first, span)
    count, found = len(left), []
    other = [rise for one in others for rise in one.rises(span)[-MOST:]]
    weight, crowd = (FORMULA_WEIGHT if other else 0.0), len(other)
    for need in needs:
        left = [rise for rise in left if rise >= need]
        other = [rise for rise in other if rise >= need]
        theirs = len(other) / crowd if crowd else 0.0
        found.append((len(left) + weight * theirs) / (count + weight) if count + weight else 0.0)
    return found
