"""Cuts past windows into pieces: how far the vendor's reading rose, and what local turns cost meanwhile.

A reading is a whole percent, so a piece goes from one moment at which the reading rose to another: there the true use is
just past a half. A meter lags, so the cost of a piece is computed for several lags. Pure: limit_worth.py weighs the pieces.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import limit_carry, limit_windows
from tokenops.limit_carry import Spend
from tokenops.limit_windows import MINUTE, Key, Point, Series

# How far a meter may be behind: so many turns, and so many milliseconds.
LAGS = ((0, 0), (1, 0), (0, 2 * MINUTE), (0, 5 * MINUTE))
# The steps in which vendors' readings come, in percent; the first that fits all readings of a limit.
_STEPS = (1.0, 0.1, 0.01)


Parts = tuple[float, float, float]


class Rise(NamedTuple):
    """A rise of a window's reading in percent, with what local turns cost meanwhile under each lag.

    `before`, `last`: what turns cost between the two readings at its beginning, and at its end, in which the reading rose;
    None at the first reading of a window, where the use may be anywhere within the step. `families`: family of models ->
    its cost, and how much of that were cache reads and output. `step`: of the readings. `usd`: None if a turn lacks a price.
    """

    key: Key
    minutes: int
    resets_at: int
    since: int
    at: int
    percent: float
    usd: tuple[float, ...] | None
    before: float | None
    last: float
    step: float
    turns: int
    families: Mapping[str, Parts]


def rises(series: Sequence[Series], spends: Sequence[Spend]) -> Iterator[Rise]:
    """The rises of each window of each series, in order of time. `spends`: in order of time."""
    for each in series:
        accounts = len({other.key.account for other in series if other.key.provider == each.key.provider})
        sums = _Sums(limit_carry.spends_of(spends, each.key, accounts))
        step = _step(point.used for window in each.windows for point in window.points)
        for window in each.windows:
            yield from _of_window(each.key, window, sums, step)


def _step(shares: Iterable[float]) -> float:
    percents = [100 * share for share in shares]
    fits = (step for step in _STEPS if all(abs(value / step - round(value / step)) < 1e-3 for value in percents))
    return next(fits, _STEPS[-1])


class _Sums:
    """Running sums of what turns cost, to be asked for spans."""

    def __init__(self, spends: Sequence[Spend]) -> None:
        self.spends = spends
        self.times = [spend.at for spend in spends]
        self.usd = [0.0, *itertools.accumulate(float(spend.usd or 0) for spend in spends)]
        self.unpriced = [0, *itertools.accumulate(spend.usd is None for spend in spends)]

    def count(self, at: int, lag: tuple[int, int] = LAGS[0]) -> int:
        """How many turns a reading at a moment shows, if the meter lags so."""
        return max(bisect.bisect_right(self.times, at - lag[1]) - lag[0], 0)

    def usd_between(self, start: int, end: int, lag: tuple[int, int] = LAGS[0]) -> float:
        """What turns between two readings cost."""
        return self.usd[self.count(end, lag)] - self.usd[self.count(start, lag)]


def _of_window(key: Key, window: limit_windows.Window, sums: _Sums, step: float) -> Iterator[Rise]:
    start, before = window.points[0], None
    previous = start
    for point in window.points[1:]:
        if point.used >= 1:  # a full window shows no more, whatever is used
            return
        if point.used > previous.used + 1e-9:
            last = sums.usd_between(previous.at, point.at)
            yield _rise(key, window, (start, point), (before, last), sums, step)
            start, before = point, last
        previous = point


def _rise(
    key: Key,
    window: limit_windows.Window,
    points: tuple[Point, Point],
    costs: tuple[float | None, float],
    sums: _Sums,
    step: float,
) -> Rise:
    start, end = points
    first, after = sums.count(start.at), sums.count(end.at)
    is_priced = sums.unpriced[after] == sums.unpriced[first]
    usd = tuple(sums.usd_between(start.at, end.at, lag) for lag in LAGS) if is_priced else None
    families: dict[str, Parts] = {}
    for spend in sums.spends[first:after]:
        _add(families, limit_windows.family(spend.model), (float(spend.usd or 0), spend.reads, spend.output))
    percent = 100 * (end.used - start.used)
    return Rise(key, window.minutes, window.resets_at, start.at, end.at, percent, usd, *costs, step, after - first, families)


def _add(families: dict[str, Parts], name: str, parts: Parts) -> None:
    usd, reads, output = families.get(name, (0.0, 0.0, 0.0))
    families[name] = usd + parts[0], reads + parts[1], output + parts[2]


def pack(rises: Iterable[Rise]) -> list[list[Any]]:
    """Rises as JSON."""
    return [[list(rise.key), *rise[1:-1], dict(rise.families)] for rise in rises]


def unpack(rows: Iterable[Sequence[Any]]) -> list[Rise]:
    """The rises that were packed. Raises TypeError, ValueError."""
    every = (Rise(Key(*row[0]), *row[1:]) for row in rows)
    return [
        rise._replace(
            usd=None if rise.usd is None else tuple(rise.usd),
            families={name: (usd, reads, output) for name, (usd, reads, output) in rise.families.items()},
        )
        for rise in every
    ]


class Piece(NamedTuple):
    """One or more rises of a window: percent, its standard error, dollars at list price, and the main family of models.

    `parts`: as the rises' families.
    """

    at: int
    percent: float
    error: float
    usd: float
    family: str
    parts: Mapping[str, Parts]


class Cut(NamedTuple):
    """The pieces of a limit, and the percents that rose without any local turn, in all and unpriced."""

    pieces: list[Piece]
    quiet: float
    unpriced: float
    total: float


def cut_pieces(rises: Iterable[Rise], lag: int, per_usd: float, least: float, main: float = 0.9) -> Cut:
    """The rises of one limit joined to pieces of at least `least` percent. `per_usd`: about how many percent a dollar is.

    A rise without a local turn was used elsewhere and belongs to no piece. `main`: the share that makes a family the main.
    """
    pieces: list[Piece] = []
    quiet = unpriced = total = 0.0
    chain: list[Rise] = []

    def close() -> None:
        if chain and sum(rise.percent for rise in chain) >= least - 1e-9:
            pieces.append(_join(chain, lag, per_usd, main))
        chain.clear()

    for rise in rises:
        total += rise.percent
        if chain and (rise.resets_at != chain[-1].resets_at or rise.since != chain[-1].at):
            close()
        if rise.usd is None:
            unpriced += rise.percent
            close()
        elif rise.usd[lag] <= 0:
            quiet += rise.percent
            close()
        else:
            chain.append(rise)
            if sum(each.percent for each in chain) >= least - 1e-9:
                close()
    return Cut(pieces, quiet, unpriced, total)


def _join(chain: Sequence[Rise], lag: int, per_usd: float, main: float) -> Piece:
    first, last = chain[0], chain[-1]
    # Where a reading rose, the use is past the half by what was used since the reading before: nothing, or up to a step.
    start = 0.5 * first.step if first.before is None else min(first.before * per_usd, first.step) / 2
    end = min(last.last * per_usd, last.step) / 2
    spread = first.step if first.before is None else 2 * start
    usd = sum(rise.usd[lag] for rise in chain if rise.usd is not None)
    parts: dict[str, Parts] = {}
    for rise in chain:
        for name, cost in rise.families.items():
            _add(parts, name, cost)
    whole = sum(cost for cost, *_ in parts.values())
    family = next((name for name, (cost, *_) in parts.items() if whole and cost >= main * whole), "")
    percent = sum(rise.percent for rise in chain) + end - start
    error = ((spread**2 + (2 * end) ** 2) / 12) ** 0.5
    return Piece(last.at, max(percent, 0.1), error, usd, family, parts)
