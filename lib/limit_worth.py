"""Estimates what one percent of a window is worth in dollars at list price, and since when it is worth more or less.

Each piece (limit_pieces.py) says how many percent some dollars bought. Most pieces scatter around one value; some hold use
from elsewhere too and rise too far; a few hold turns that did not count. So each piece has a likelihood on a grid of values,
a mixture of the three. The likelihoods of a day are added up, and sums of days give the value of any span, its interval,
and how much better two values fit than one: a change. Days scatter more than their pieces say, because what a dollar buys
depends on what it was spent on; that is measured and widens everything. Pure.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tokenops import limit_pieces, limit_weights, when
from tokenops.limit_pieces import Piece, Rise

# The grid: logarithms of percent per dollar around the middle, in steps of two percent.
STEP, REACH = 0.02, 60
_SIZE = 2 * REACH + 1
# The scatter of pieces, and how many of them hold use from elsewhere: what fits best is chosen.
_SCATTERS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55)
_ELSEWHERE = (0.02, 0.1, 0.25, 0.45)
# Few pieces hold turns that did not count. How far, as logarithms, both kinds lie from the others.
_UNCOUNTED, _FAR, _NEAR = 0.04, 0.7, 0.35
# A piece rises so many percent at least.
LEAST = 3.0
# A change is believed if two values fit so much better than one, with so many days of use on both sides.
BELIEVED, FEWEST_DAYS = 16.0, 2
# Days of use in a week.
_WEEK = 5
# A change is told if it is at least so large, as a logarithm, at the near end of its interval: weights of an account's work
# wander by some percent within weeks without any change by the vendor.
LEAST_CHANGE = 0.11
# So many days in a row are compared with those before; how many comparisons count as much as what single days say; and with
# how few comparisons a number of days says nothing.
_BLOCKS, _DOUBT, _FEW = (3, 6), 3, 5
# Several days scatter at most so many times as much as single days.
_MOST = 12.0
# The error of the method itself, as a logarithm: which pieces count as local use alone is never certain.
OWN = 0.015
# The value is unknown with fewer pieces.
FEWEST = 8


class Interval(NamedTuple):
    """The middle 80 % and the median."""

    p10: float
    p50: float
    p90: float


class Change(NamedTuple):
    """A moment at which the worth of a percent changed, by a factor."""

    at: int
    factor: Interval


class Worth(NamedTuple):
    """What one percent is worth now, and what else is known of it.

    `least_change`: the smallest change, as a share, that would have been seen after a week like the last ones; `since`: when
    the present value began; `weights`: of classes of tokens and families of models, relative to fresh input of the `main`
    family at its price, as far as the data can tell.
    """

    usd_per_percent: Interval
    pieces: int
    days: int
    unseen_share: float
    changes: list[Change]
    least_change: float
    since: int
    weights: Mapping[str, tuple[float, float, float]]
    main: str


Grid = list[float]


def worth(rises: Sequence[Rise], family: str = "") -> Worth | None:
    """The worth of one percent of one limit, from its rises in order of time; None with few pieces.

    `family`: only pieces that are nearly all of this family of models.
    """
    lag, per_usd = _lag(rises)
    if not per_usd:
        return None
    cut = limit_pieces.cut_pieces(rises, lag, per_usd, LEAST)
    pieces = [piece for piece in cut.pieces if piece.usd > 0 and family in ("", piece.family)]
    if len(pieces) < FEWEST:
        return None
    weights = limit_weights.weights(pieces)
    days = _Days(pieces, weights)
    spans = days.spans()
    first, last = spans[-1], len(days.names)
    changes = [days.change(*three) for three in zip(spans, spans[1:], [*spans[2:], last], strict=False)]
    unseen = (cut.quiet + days.excess(spans)) / max(cut.quiet + sum(piece.percent for piece in pieces), 1e-9)
    return Worth(
        usd_per_percent=days.value(first, last),
        pieces=sum(days.counts[first:]),
        days=last - first,
        unseen_share=min(unseen, 1.0),
        changes=changes,
        least_change=days.least_change(first),
        since=pieces[sum(days.counts[:first])].at,
        weights=weights.sure(),
        main=weights.main,
    )


def _lag(rises: Sequence[Rise]) -> tuple[int, float]:
    """The lag under which pieces scatter least, and how many percent a dollar is then, roughly."""
    best = (math.inf, 0, 0.0)
    for lag in range(len(limit_pieces.LAGS)):
        logs = sorted(
            math.log(piece.percent / piece.usd)
            for piece in limit_pieces.cut_pieces(rises, lag, 0.0, LEAST).pieces
            if piece.usd > 0
        )
        if logs:
            # Use from elsewhere raises some: the lower half shows the scatter of the others.
            spread = _quantile(logs, 0.5) - _quantile(logs, 0.2)
            best = min(best, (spread * (1.0 if lag == 0 else 1.15), lag, math.exp(_quantile(logs, 0.4))))
    return best[1], best[2]


def _quantile(values: Sequence[float], q: float) -> float:
    at = q * (len(values) - 1)
    low = int(at)
    return values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low])


# The likelihood of pieces on the grid.


class _Mixture:
    """The logarithm of a piece's likelihood, by its distance from the value, with a table for each width."""

    def __init__(self, scatter: float, elsewhere: float) -> None:
        self.scatter, self.elsewhere = scatter, elsewhere
        self.tables: dict[int, list[float]] = {}

    def parts(self, distance: float, width: float) -> tuple[float, float, float]:
        """Local use alone; use from elsewhere; turns that did not count."""
        z = distance / width
        clean = math.exp(-z * z / 2) / (width * math.sqrt(2 * math.pi))
        above = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        return (
            (1 - self.elsewhere - _UNCOUNTED) * clean,
            self.elsewhere * above * math.exp(-max(distance, 0.0) / _FAR) / _FAR,
            _UNCOUNTED * (1 - above) * math.exp(min(distance, 0.0) / _NEAR) / _NEAR,
        )

    def width(self, piece: Piece) -> float:
        """The scatter with the error of the readings."""
        return math.hypot(self.scatter, piece.error / piece.percent)

    def row(self, distance: float, piece: Piece) -> list[float]:
        """The logarithms on the grid of a piece that lies so far from its middle."""
        width = max(round(self.width(piece) / 0.02), 1)
        table = self.tables.get(width)
        if table is None:
            cells = range(-3 * REACH, 3 * REACH + 1)
            table = [math.log(sum(self.parts(-cell * STEP, width * 0.02)) + 1e-4) for cell in cells]
            self.tables[width] = table
        shift = max(-2 * REACH, min(2 * REACH, round(distance / STEP)))
        return table[2 * REACH - shift : 2 * REACH - shift + _SIZE]


class _Days:
    """The pieces of each day of use, with their likelihoods added up from the first day on."""

    def __init__(self, pieces: Sequence[Piece], weights: limit_weights.Weights = limit_weights.PRICES) -> None:
        costs = [weights.of_piece(piece) for piece in pieces]
        # So that a value is of dollars at list price, spent as they were on average.
        mean = sum(costs) / sum(piece.usd for piece in pieces)
        self.logs = [math.log(piece.percent / cost * mean) for piece, cost in zip(pieces, costs, strict=True)]
        self.middle = _quantile(sorted(self.logs), 0.4)
        self.pieces = pieces
        groups = [(day, len(list(group))) for day, group in itertools.groupby(pieces, lambda piece: piece.at // when.DAY)]
        self.names, self.counts = [day for day, _ in groups], [count for _, count in groups]
        self.starts = [0, *itertools.accumulate(self.counts)]
        self.mixture, self.sums = self._best()
        self.factor = self._overdispersion()

    def _best(self) -> tuple[_Mixture, list[Grid]]:
        """The mixture that fits best if the value may differ from week to week, and the sums of its likelihoods."""
        tried: dict[tuple[int, int], tuple[float, _Mixture, list[Grid]]] = {}

        def fit(at: tuple[int, int]) -> float:
            if at not in tried:
                mixture = _Mixture(_SCATTERS[at[0]], _ELSEWHERE[at[1]])
                sums = self._sums(mixture)
                cuts = [*range(0, len(self.names), 5), len(self.names)]
                value = sum(max(_minus(sums[end], sums[start])) for start, end in itertools.pairwise(cuts))
                tried[at] = value, mixture, sums
            return tried[at][0]

        best, before = (3, 1), None
        while best != before:  # uphill, a step at a time: there is a single summit
            before = best
            steps = [(best[0] + a, best[1] + b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            valid = [at for at in steps if 0 <= at[0] < len(_SCATTERS) and 0 <= at[1] < len(_ELSEWHERE)]
            best = max([best, *valid], key=fit)
        return tried[best][1:]

    def _sums(self, mixture: _Mixture) -> list[Grid]:
        total = [0.0] * _SIZE
        sums = [total]
        for start, end in itertools.pairwise(self.starts):
            for at in range(start, end):
                row = mixture.row(self.logs[at] - self.middle, self.pieces[at])
                total = [a + b for a, b in zip(total, row, strict=True)]
            sums.append(total)
        return sums

    def _sum(self, first: int, last: int) -> Grid:
        return _minus(self.sums[last], self.sums[first])

    def _overdispersion(self) -> float:
        """How much more days scatter than their pieces say, whether from day to day or over several days.

        Days are compared with the other days near them, and several days in a row with those before. The largest of the
        latter differences are left out, and they widen no more than so far: a change of the worth itself is no scatter.
        """
        near = self._near()
        return min(max(near, *(self._far(size, near) for size in _BLOCKS)), _MOST * near)

    def _near(self) -> float:
        squares = information = 0.0
        for first in range(0, len(self.names), 4):
            last = min(first + 4, len(self.names))
            if last - first > 1:
                at = _peak(self._sum(first, last))
                here = [_slopes(self._sum(day, day + 1), at) for day in range(first, last)]
                squares += sum(slope**2 for slope, _ in here) * (last - first) / (last - first - 1)
                information += sum(curve for _, curve in here)
        return max(1.0, squares / information) if information > 0 else 2.0

    def _far(self, size: int, near: float) -> float:
        blocks = [
            self._sum(first, first + size) for first in range(len(self.names) % size, len(self.names) - size + 1, size)
        ]
        peaks = [(at, _slopes(block, at)[1]) for block in blocks for at in [_peak(block)]]
        ratios = sorted(
            ((a - b) * STEP) ** 2 / (1 / more + 1 / curve)
            for (a, more), (b, curve) in itertools.pairwise(peaks)
            if more > 0 and curve > 0
        )
        if len(ratios) < _FEW:
            return near
        kept = ratios[: len(ratios) - math.ceil(len(ratios) / 4)]
        # Without their largest quarter, squares of a normal scatter are 0.37 on average.
        return (sum(kept) / 0.37 + _DOUBT * near) / (len(kept) + _DOUBT)

    def spans(self) -> list[int]:
        """The first days of the spans between which the value changed."""
        cuts = [0, *sorted(self._cuts(0, len(self.names)))]
        at = 1
        while at < len(cuts):  # a cut is believed only if the spans beside it, as they are now, still differ
            end = cuts[at + 1] if at + 1 < len(cuts) else len(self.names)
            three = cuts[at - 1], cuts[at], end
            if self._gain(*three) < BELIEVED or _nearest(self.change(*three).factor) < LEAST_CHANGE:
                del cuts[at]
                at = 1
            else:
                at += 1
        return cuts

    def _gain(self, first: int, cut: int, last: int) -> float:
        parts = max(self._sum(first, cut)) + max(self._sum(cut, last))
        return 2 * (parts - max(self._sum(first, last))) / self.factor

    def _cuts(self, first: int, last: int) -> list[int]:
        best = max(
            ((self._gain(first, cut, last), cut) for cut in range(first + FEWEST_DAYS, last - FEWEST_DAYS + 1)),
            default=(0.0, 0),
        )
        if best[0] < BELIEVED:
            return []
        return [*self._cuts(first, best[1]), best[1], *self._cuts(best[1], last)]

    def _posterior(self, first: int, last: int) -> tuple[float, float]:
        """Mean and standard error of the logarithm of percent per dollar in a span of days."""
        grid = self._sum(first, last)
        top = max(grid)
        weights = [math.exp((value - top) / self.factor) for value in grid]
        whole = sum(weights)
        mean = sum(weight * at for at, weight in enumerate(weights)) / whole
        variance = sum(weight * (at - mean) ** 2 for at, weight in enumerate(weights)) / whole
        return self.middle + (mean - REACH) * STEP, math.hypot(math.sqrt(variance) * STEP, OWN)

    def value(self, first: int, last: int) -> Interval:
        """Dollars per percent in a span of days."""
        mean, error = self._posterior(first, last)
        reach = _reach(last - first) * error
        return Interval(math.exp(-mean - reach), math.exp(-mean), math.exp(-mean + reach))

    def change(self, first: int, cut: int, last: int) -> Change:
        """By how much the worth changed at a day."""
        (before, a), (after, b) = self._posterior(first, cut), self._posterior(cut, last)
        middle, reach = before - after, _reach(min(cut - first, last - cut)) * math.hypot(a, b)
        factor = Interval(math.exp(middle - reach), math.exp(middle), math.exp(middle + reach))
        return Change(self.names[cut] * when.DAY, factor)

    def least_change(self, first: int) -> float:
        """The smallest share by which a week could differ from the span before it and be seen."""
        days = len(self.names) - first
        _, error = self._posterior(first, len(self.names))
        a_day = math.sqrt(max(error**2 - OWN**2, 0.0) * days)
        errors = a_day * math.sqrt(1 / _WEEK + 1 / max(days, _WEEK))
        near = LEAST_CHANGE + _reach(_WEEK) * math.hypot(errors, OWN * math.sqrt(2))
        return math.exp(max(math.sqrt(BELIEVED) * errors, near)) - 1

    def excess(self, spans: Sequence[int]) -> float:
        """How many percent the pieces rose beyond what their turns explain, as far as use elsewhere is likelier."""
        total = 0.0
        for first, last in itertools.pairwise([*spans, len(self.names)]):
            middle, _ = self._posterior(first, last)
            for at in range(self.starts[first], self.starts[last]):
                piece = self.pieces[at]
                distance = self.logs[at] - middle
                parts = self.mixture.parts(distance, self.mixture.width(piece))
                if distance > 0:
                    total += parts[1] / (sum(parts) + 1e-12) * piece.percent * (1 - math.exp(-distance))
        return total


def _nearest(factor: Interval) -> float:
    """How far a factor is from 1 at the near end of its interval, as a logarithm; negative if 1 lies inside."""
    return max(math.log(factor.p10), -math.log(factor.p90))


def _reach(days: int) -> float:
    """How many standard errors the middle 80 % reach, if that error rests on so many days (Student's t)."""
    return {1: 3.08, 2: 1.89, 3: 1.64, 4: 1.53, 5: 1.48, 6: 1.44, 7: 1.41}.get(days, 1.28 + 0.8 / days)


def _minus(a: Grid, b: Grid) -> Grid:
    return [x - y for x, y in zip(a, b, strict=True)]


def _peak(grid: Grid) -> int:
    return max(range(1, len(grid) - 1), key=grid.__getitem__)


def _slopes(grid: Grid, at: int) -> tuple[float, float]:
    """First derivative, and the second with its sign turned, at a point of the grid; over several steps, as it is rough."""
    wide = min(3, at, len(grid) - 1 - at)
    low, middle, high = grid[at - wide], grid[at], grid[at + wide]
    return (high - low) / (2 * wide * STEP), -(high - 2 * middle + low) / (wide * STEP) ** 2
