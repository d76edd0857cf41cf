"""Forecasts whether and when a window runs out before it resets, from the user's own past.

An analog is a past moment when the user was about as busy and about as far into a window. The use after it is one
sample of the use to come. With few analogs the user's whole past counts too; without a past, a formula. Percentages are
summed across windows, so a past span may cross a reset.

Pure: no clock, no files, no third party. docs/forecast.md shows how it was tested.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tokenops import limit_windows, when
from tokenops.events import Event
from tokenops.limit_windows import MINUTE, Key, Series

if TYPE_CHECKING:
    from tokenops.store_days import Recent

HORIZONS = (30, 60, 120)
# Past moments that count: a week of a user who never rests, or some months of an ordinary one.
MOST = 2000
# Readings of one forecast: so many take 20 ms.
READINGS = 10_000
# One moment for each five minutes.
SLOT_MS = 5 * MINUTE
# A poll that comes so late still counts as on time.
LATE_MS = 150_000
# The width of "similar": in busyness (doublings of recent use) and in doublings of the window's age.
NEAR_BUSY, NEAR_AGE, WIDE = 0.6, 1.0, 2.0
# The weight of the formula against the whole past, and of the whole past against the analogs, in moments.
FORMULA_WEIGHT, PAST_WEIGHT = 10.0, 10.0
# The weight of the formula against the whole past in windows longer than a day, in moments; the days whose use it takes.
LONG_WEIGHT, LATELY_DAYS = 20.0, 3
# There the pace of the last two hours goes on for two more in so many cases.
LONG_GOES_ON, HOURS_MS = 0.4, 120 * MINUTE
# A busier analog than now is scaled down by the root of the ratio, a calmer one up; at most fourfold.
SCALED, SCALED_MOST = 0.5, 4.0
FEW = 10.0
# A surge: two readings within so many minutes rise faster than twice the fastest half hour of the past, at least; four times
# as fast it counts fully. It goes on at its pace, wrong by a factor of two every third time, in so many cases.
SURGE_MINUTES, SURGE_LEAST, SURGE_LOW, SURGE_FROM, SURGE_GOES_ON = 45, 5, 5.0, 2.0, 0.85
# Longer windows move too slowly for the use of the last half hour to matter.
LONGEST = 1440


class Quantiles(NamedTuple):
    """Three points of a distribution; None if the cap is not reached before the reset in so many cases."""

    p10: float | None
    p50: float | None
    p90: float | None


class Forecast(NamedTuple):
    """The forecast of a window. Percent are of the vendor's limit, moments are in milliseconds.

    `p_within`: minutes -> chance that the cap is reached within them and before the reset. `used_in_an_hour` is an 80 %
    interval with its middle, at the reset where that comes sooner; `weight` the sum of the analogs' weights: with less
    than ten there are few data.
    """

    at: int
    used: float
    cap: float
    resets_at: int
    p_cutoff: float
    p_within: dict[int, float]
    cutoff_at: Quantiles
    used_in_an_hour: Quantiles
    weight: float
    few_data: bool
    method: str


class Now(NamedTuple):
    """The state of a window at a moment."""

    at: int
    used: float
    total: float
    resets_at: int
    busy: float
    age: float
    pace: float = 0.0


class History:
    """A series as forecasts need it: readings in order of time, and one moment for each five minutes.

    Nothing later than the moment of a forecast is used, so a whole past can be replayed on one History. `frozen`: spans in
    which a longer window was used up (limit_windows.frozen_spans): nothing is forecast or learned in them.
    """

    def __init__(self, series: Series, frozen: Sequence[tuple[int, int]] = (), most: int | None = None) -> None:
        self.frozen = frozen
        self.minutes = series.windows[0].minutes if series.windows else 0
        self.polled = series.polled
        rows = sorted(
            (reading.at, window.resets_at, 100 * reading.used) for window in series.windows for reading in window[2]
        )
        self.times: list[int] = []
        self.totals: list[float] = []
        self.used: list[float] = []
        self.resets: list[int] = []
        reached: dict[int, float] = {}
        total = 0.0
        for at, resets_at, used in rows[-most:] if most else rows:
            # The first reading of a window shows use since its beginning; when that of the very first one was is unknown.
            total += used - reached.get(resets_at, 0.0 if reached else used)
            reached[resets_at] = used
            self.times.append(at)
            self.totals.append(total)
            self.used.append(used)
            self.resets.append(resets_at)
        self.moments = self._moments()
        self.starts = [self.times[i] for i in self.moments]
        self._rises: dict[int, list[float]] = {}

    def _moments(self) -> list[int]:
        """The last reading of each five minutes; in windows of more than a day, of correspondingly longer slots."""
        slot = SLOT_MS * (self.minutes // 300 if self.minutes > LONGEST else 1)
        slots = {at // slot: i for i, at in enumerate(self.times) if not self.stands(at)}
        return list(slots.values())

    def stands(self, at: int) -> bool:
        """Whether a longer window is used up, so that this one cannot move."""
        return any(start <= at < end for start, end in self.frozen)

    @functools.cached_property
    def states(self) -> list[Now]:
        """What was known at each moment."""
        return [self.state(self.times[i], i) for i in self.moments]

    def total(self, at: int) -> float:
        """Percent used up to a moment, summed over all windows."""
        i = bisect.bisect_right(self.times, at) - 1
        return self.totals[i] if i >= 0 else self.totals[0]

    def state(self, at: int, i: int) -> Now:
        """What is known at a moment, the reading before it being number i."""
        total = self.totals[i]
        lately = [total - self.total(at - minutes * MINUTE) for minutes in (30, 60, 120)]
        busy = math.log2(0.5 + lately[0] + 0.3 * lately[1] + 0.1 * lately[2])
        age = max(at - (self.resets[i] - self.minutes * MINUTE), 0) / MINUTE
        return Now(at, self.used[i], total, self.resets[i], busy, math.log2(15 + age), self.pace(at, i))

    def pace(self, at: int, i: int) -> float:
        """Percent a minute over the last two readings, if both rose lately; 0 otherwise: one rise may be a correction."""
        before = i - 2
        if before < 0 or self.resets[before] != self.resets[i]:
            return 0.0
        minutes = (at - self.times[before]) / MINUTE
        if minutes > SURGE_MINUTES or not self.totals[before] < self.totals[i - 1] < self.totals[i]:
            return 0.0
        return (self.totals[i] - self.totals[before]) / max(minutes, SURGE_LEAST)

    def now(self, at: int) -> Now | None:
        """The state at a moment; None before the first reading, after the reset of the window read last, and frozen."""
        i = bisect.bisect_right(self.times, at) - 1
        return self.state(at, i) if i >= 0 and at < self.resets[i] and not self.stands(at) else None

    def per_day(self, now: Now) -> float:
        """Percent a day over the last days; of a younger series since its first window began."""
        since = now.at - LATELY_DAYS * when.DAY
        if self.times[0] <= since:
            return (now.total - self.total(since)) / LATELY_DAYS
        days = (now.at - self.resets[0] + self.minutes * MINUTE) / when.DAY
        return (now.total + self.used[0]) / min(max(days, 0.5), LATELY_DAYS)

    def rises(self, span: int) -> list[float]:
        """The rise in the `span` minutes after each moment. The caller leaves out the spans that are not over."""
        rises = self._rises.get(span)
        if rises is None:
            later, times, totals, length = span * MINUTE + LATE_MS, self.times, self.totals, len(self.times)
            rises = []
            for i in self.moments:
                end = bisect.bisect_right(times, times[i] + later, i, length)
                rises.append(totals[end - 1] - totals[i])
            self._rises[span] = rises
        return rises

    def over(self, at: int, span: int) -> int:
        """How many moments' spans were over at a moment."""
        return bisect.bisect_right(self.starts, at - span * MINUTE - LATE_MS)


class Analogs:
    """The past as seen from one moment: the weight of each past moment, and the scale of its use."""

    def __init__(self, history: History, now: Now) -> None:
        self.history, self.now = history, now
        end = history.over(now.at, 0)
        self.first = max(end - MOST, 0)
        self.long, self.surge = history.minutes > LONGEST, 0.0
        if self.long:
            self.near = self.wide = self.scale = [1.0] * (end - self.first)
            return
        self.surge = self._surge()
        exp, busy, age = math.exp, now.busy, now.age
        self.near, self.wide, self.scale = [], [], []
        for state in history.states[self.first : end]:
            more = busy - state.busy
            far = (more / NEAR_BUSY) ** 2, (age - state.age) ** 2 / NEAR_AGE**2
            self.near.append(exp(-(far[0] + far[1]) / 2))
            self.wide.append(exp(-(far[0] * NEAR_BUSY**2 + far[1] * NEAR_AGE**2) / (2 * WIDE**2)))
            self.scale.append(min(max(2.0 ** (SCALED * more), 1 / SCALED_MOST), SCALED_MOST))

    def _surge(self) -> float:
        """How much the pace of the last readings counts, 0 to 1: nothing like it happened before, so the past is silent."""
        if not self.now.pace:
            return 0.0
        most = max(self.history.rises(30)[self.first : self.first + self._count(30)], default=0.0)
        return min(max(math.log2(30 * self.now.pace / (SURGE_FROM * max(most, SURGE_LOW))), 0.0), 1.0)

    def weight(self, span: int) -> float:
        """How much past there is for a span."""
        count = self._count(span)
        return self._thin(span, count) * sum(self.near[:count])

    def _count(self, span: int) -> int:
        """How many moments' spans are over."""
        return max(self.history.over(self.now.at, span) - self.first, 0)

    def _thin(self, span: int, count: int) -> float:
        """The weight per moment: in long windows neighbouring spans overlap, so together they count as those that do not."""
        if not self.long or not count:
            return 1.0
        starts = self.history.starts
        return min((starts[self.first + count - 1] - starts[self.first]) / MINUTE / span / count, 1.0)

    def reach(self, span: int, needs: Sequence[float]) -> list[float]:
        """The chance that so many percent or more are used within `span` minutes, for each of `needs` (ascending)."""
        count = self._count(span)
        near, wide = sum(self.near[:count]), sum(self.wide[:count])
        rises = self.history.rises(span)[self.first : self.first + count]
        left = [
            (rise * scale + 0.5, a, b)
            for rise, a, b, scale in zip(rises, self.near, self.wide, self.scale, strict=False)
            if rise
        ]
        lately = self.now.total - self.history.total(self.now.at - HOURS_MS) if self.long else 0.0
        chances = []
        for need in needs:
            if need <= 0:
                chances.append(1.0)
                continue
            left = [rise for rise in left if rise[0] >= need]
            before = self.formula(span, need)
            if self.long:
                chance = (sum(rise[1] for rise in left) + LONG_WEIGHT * before) / (count + LONG_WEIGHT)
                at_once = lately / HOURS_MS * min(span * MINUTE, HOURS_MS)
                chances.append(max(chance, LONG_GOES_ON * _lognormal(at_once, need)) if lately else chance)
                continue
            past = (sum(rise[2] for rise in left) + FORMULA_WEIGHT * before) / (wide + FORMULA_WEIGHT)
            chance = (sum(rise[1] for rise in left) + PAST_WEIGHT * past) / (near + PAST_WEIGHT)
            chances.append(max(chance, self.surge * self._goes_on(span, need)) if self.surge else chance)
        return chances

    def _goes_on(self, span: int, need: float) -> float:
        """The chance if the surge goes on."""
        return SURGE_GOES_ON * _lognormal(self.now.pace * span, need)

    def formula(self, span: int, need: float) -> float:
        """The chance without any past."""
        if self.long:
            return long_formula(self.history.per_day(self.now), span, need)
        return formula(self.now.busy, self.now.age, span, need)


def formula(busy: float, age: float, span: int, need: float) -> float:
    """The chance of using `need` percent in `span` minutes: fitted to some twenty users, each left out once (2026-11)."""
    far = math.log(max(need - 0.5, 0.25))
    x = 2.035 + 0.367 * busy + 0.758 * math.log(max(span, 1) / 60) - 0.454 * far - 0.211 * far * far - 0.194 * age
    return 1 / (1 + math.exp(-x))


def long_formula(per_day: float, span: int, need: float) -> float:
    """The same for windows longer than a day, from the use of the last days: fitted to eight users, each left out once."""
    far = math.log(max(need - 0.5, 0.25))
    x = 0.951 - 0.207 * far - 0.297 * far * far + 1.671 * math.log(max(span, 1) / 1440) + 0.344 * math.log(1 + per_day)
    return 1 / (1 + math.exp(-x))


def _lognormal(middle: float, need: float) -> float:
    """The chance of at least `need`, where the middle is wrong by a factor of two or more every third time."""
    return 0.5 * math.erfc(math.log(need / max(middle, 1e-6)) / (math.log(2) * math.sqrt(2)))


def quantiles(history: History, analogs: Analogs, span: int) -> Quantiles:
    """The middle 80 % of the use after `span` minutes, in percent of the vendor's limit."""
    now = analogs.now
    most = 1 + max(100 - math.floor(now.used), 0)
    chances = analogs.reach(span, range(1, most + 1))
    # The least whole rise with at most 1 - q above it.
    rises = [next((rise for rise, p in enumerate(chances) if p <= 1 - q), most) for q in (0.1, 0.5, 0.9)]
    return Quantiles(*(min(now.used + rise, max(100.0, now.used)) for rise in rises))


def forecast(
    history: History, now_ms: int, horizons: Sequence[int] = HORIZONS, cap: float = 100.0, since: float = 0.0
) -> Forecast | None:
    """The forecast at a moment; None if no window is open then, or it has no reading.

    `cap`: percent of the vendor's limit at which work stops, which may be below 100. `since`: percent used since the
    last reading, if that is known.
    """
    now = history.now(now_ms)
    if now is None:
        return None
    now = now._replace(used=now.used + since)
    analogs = Analogs(history, now)
    left = max((now.resets_at - now_ms) // MINUTE, 1)
    chance = Chances(analogs, left, cap - now.used)
    hour = min(60, left)
    weight = analogs.weight(left if analogs.long else hour)
    return Forecast(
        now_ms,
        now.used,
        cap,
        now.resets_at,
        chance(left),
        {minutes: chance(min(minutes, left)) for minutes in horizons},
        _cutoff(chance, now_ms, left),
        quantiles(history, analogs, hour),
        weight,
        weight < FEW,
        "climatology" if analogs.long else "analog",
    )


def forecasts(
    series: Sequence[Series],
    now_ms: int,
    since_reading: Mapping[Key, float] | None = None,
    memory: Recent | None = None,
) -> dict[Key, Event]:
    """The forecast of each open window as a record, from the series of the last weeks.

    `since_reading`: only these windows, each with the share that was used since its last reading. `memory` keeps the past
    of each window until there is another reading: half of the work, and the moment of the forecast does not change it.
    """
    result = {}
    for each in series:
        if since_reading is None or each.key in since_reading:
            since = 100 * since_reading[each.key] if since_reading else 0.0
            expected = forecast(_history(each, series, memory), now_ms, since=since)
            if expected is not None:
                result[each.key] = record(expected)
    return result


def _history(each: Series, series: Sequence[Series], memory: Recent | None) -> History:
    """The past of one window among others."""
    frozen = limit_windows.frozen_spans(each, series)
    if memory is None:
        return History(each, frozen, READINGS)
    return memory.get(("history", each.key), (each, frozen), lambda: [History(each, frozen, READINGS)])[0]


def record(expected: Forecast) -> Event:
    """A forecast as JSON shows it: fractions of the vendor's limit, moments as texts, unknown values left out."""
    row: Event = {
        "p_cutoff": round(expected.p_cutoff, 4),
        "p_within_minutes": {str(minutes): round(p, 4) for minutes, p in expected.p_within.items()},
    }
    cutoff = {name: when.stamp(int(at)) for name, at in expected.cutoff_at._asdict().items() if at is not None}
    if cutoff:
        row["cutoff_at"] = cutoff
    row["used_in_an_hour"] = {
        name: round(used / 100, 4) for name, used in expected.used_in_an_hour._asdict().items() if used is not None
    }
    return row | {
        "weight": round(expected.weight, 1),
        "few_data": expected.few_data,
        "method": expected.method,
        "as_of": when.stamp(expected.at),
    }


class Chances:
    """Minutes -> chance that the cap is reached within them; never less for more."""

    def __init__(self, analogs: Analogs, left: int, need: float) -> None:
        self.analogs, self.need = analogs, need
        self.known: dict[int, float] = {}
        self(left)

    def __call__(self, span: int) -> float:
        """The chance for so many minutes."""
        if self.need <= 0:
            return 1.0
        if span not in self.known:
            (p,) = self.analogs.reach(span, (self.need,))
            lower = [q for at, q in self.known.items() if at < span]
            upper = [q for at, q in self.known.items() if at > span]
            self.known[span] = min(max([p, *lower]), *upper, 1.0)
        return self.known[span]


def _cutoff(chance: Chances, now_ms: int, left: int) -> Quantiles:
    """When the cap is reached in the earliest tenth, in half and in nine tenths of the possible outcomes."""
    spans = sorted({max(left * part // 8, 1) for part in range(1, 9)})
    if chance(left) < 0.1:
        return Quantiles(None, None, None)
    points = [(0, 1.0 if chance.need <= 0 else 0.0), *((span, chance(span)) for span in spans)]
    return Quantiles(*(crossing(points, q, now_ms) for q in (0.1, 0.5, 0.9)))


def crossing(points: Sequence[tuple[int, float]], q: float, now_ms: int) -> float | None:
    """The moment (ms) at which a rising curve (minutes from now, chance) reaches q, on straight lines between its points."""
    if points[0][1] >= q:
        return now_ms
    for (start, low), (end, high) in itertools.pairwise(points):
        if high >= q:
            return now_ms + round((start + (end - start) * (q - low) / (high - low)) * MINUTE)
    return None
