"""Carries readings forward: estimates what local turns have used of a window since it was read.

A vendor's percentages are roughly proportional to its list prices, but no vendor publishes how many percent a dollar
is. So the rate is learned from each account's past: how far a window's reading rose, and what local turns cost
meanwhile. Use elsewhere makes these rates scatter, so the estimate is an 80 % interval. With few rates, or a turn
without a price, there is no estimate. Pure: lib/limit_log.py reads the turns.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import events, limit_windows, pricing, rollup, when
from tokenops.events import Event
from tokenops.headroom import Carry, State
from tokenops.limit_windows import Key, Point, Series

# A reading is a whole percent, so that a rise of less than two says little.
STEP = 0.02
# A rate needs so many rises, and is learned from so many of the latest.
FEWEST, MOST = 5, 60
# A family's own rate is learned from rises of which its turns cost at least this share.
MOSTLY = 0.9
# If more than this share of the rises came from elsewhere, local turns predict nothing.
ELSEWHERE = 0.5
# Older readings are not carried: too much may have happened elsewhere.
OLDEST_MS = when.DAY


class Spend(NamedTuple):
    """What turns cost, the first of them at a moment; account "": unknown; `usd` None: without a price.

    `reads`, `output`: the parts of it that were cache reads and output, if it was computed from list prices. `session`: of
    the first of the turns.
    """

    at: int
    provider: str
    account: str
    model: str
    usd: Decimal | None
    turns: int = 1
    reads: float = 0.0
    output: float = 0.0
    session: str = ""


class Piece(NamedTuple):
    """A rise of a window's reading up to a moment, and what local turns cost meanwhile, nearly all of one `family`."""

    key: Key
    resets_at: int
    at: int
    rise: float
    usd: float
    family: str
    turns: int = 0


class Room(NamedTuple):
    """What a share of a window has bought in the past: 10, 50 and 90 % points of dollars at list price, and of turns."""

    usd: tuple[float, float, float]
    turns: tuple[float, float, float]


class Rate(NamedTuple):
    """Share of a window per dollar at list price: the middle 80 % and the median of so many rises."""

    p10: float
    p50: float
    p90: float
    pieces: int


Rates = Mapping[tuple[Key, str], Rate]


# Turns -> what they cost.


def spends(turns: Iterable[Event], catalogue: pricing.Catalogue) -> list[Spend]:
    """The cost of each turn, in order of time."""
    return sorted((_spend(turn, catalogue) for turn in turns), key=_at)


def _spend(turn: Event, catalogue: pricing.Catalogue) -> Spend:
    usd, cost = _usd(turn, catalogue)
    model, session = turn.get("model", "").lower(), turn.get("session_id", "")
    spend = Spend(when.moment(turn["ts"]), *_payer(turn), model, usd, session=session)
    if cost is None:
        return spend
    reads, output = (sum(float(line[3]) for line in cost.lines if kind in line[0]) for kind in ("cache_read", "output"))
    return spend._replace(reads=reads, output=output)


def spends_between(turns: Iterable[Event], catalogue: pricing.Catalogue, cuts: Sequence[int]) -> list[Spend]:
    """The same, with turns of one model and rate between two cuts added up: pricing 2,000 one by one takes 30 ms."""
    stamps = [when.stamp(cut) for cut in sorted(cuts)]
    sums: dict[tuple[Any, ...], Event] = {}
    for turn in turns:
        rate = catalogue.rate_of(turn)
        alone = turn["id"] if "cost_usd" in turn or "usage" in turn else ""
        group = (bisect.bisect_left(stamps, turn["ts"]), *_payer(turn), turn.get("model"), id(rate), alone)
        total = sums.get(group)
        if total is None:
            sums[group] = turn
            continue
        for name in _COUNTED & turn.keys():
            total[name] = total.get(name, 0) + turn[name]
    every = (spends([turn], catalogue)[0]._replace(turns=turn.get("turns", 0)) for turn in sums.values())
    return sorted(every, key=_at)


_COUNTED = frozenset(events.SUMS)


def _at(spend: Spend) -> int:
    return spend.at


def _payer(turn: Event) -> tuple[str, str]:
    return turn.get("provider", ""), turn.get("account", "")


def _usd(turn: Event, catalogue: pricing.Catalogue) -> tuple[Decimal | None, pricing.Cost | None]:
    """What a turn cost, and line by line if it is priced from the catalogue."""
    if turn.get("usage") == "unknown":
        return None, None
    if turn.get("cost_source") == "reported":
        return Decimal(turn["cost_usd"]), None
    rate = catalogue.rate_of(turn)
    cost = pricing.cost_of(rate, turn) if isinstance(rate, pricing.Rate) else None
    if isinstance(cost, pricing.Cost):
        return cost.usd, cost
    return (Decimal(turn["cost_usd"]) if turn.get("cost_source") == rollup.CLIENT else None), None


def spends_of(spends: Sequence[Spend], key: Key, accounts: int) -> list[Spend]:
    """The spends that count in a window. One of unknown account belongs to the only account, if there is only one."""
    return [
        spend
        for spend in spends
        if spend.provider == key.provider
        and (spend.account == key.account if spend.account and key.account else accounts == 1)
        and limit_windows.applies(key.scope, spend.model)
    ]


def _accounts(keys: Iterable[Key], provider: str) -> int:
    return len({key.account for key in keys if key.provider == provider})


# Past windows and spends -> rates.


def pieces(series: Sequence[Series], spends: Sequence[Spend]) -> Iterator[Piece]:
    """The rises of past windows and what turns cost meanwhile, without rises in which a turn has no price.

    The last piece of a window may be smaller than the step: `joined_pieces` adds it to what comes after.
    """
    for each in series:
        counted = spends_of(spends, each.key, _accounts((other.key for other in series), each.key.provider))
        times = [spend.at for spend in counted]
        for window in each.windows:
            for start, end in _rises(window.points):
                between = counted[bisect.bisect_right(times, start.at) : bisect.bisect_right(times, end.at)]
                costs = [spend.usd for spend in between if spend.usd is not None]
                if len(costs) == len(between):
                    usd = float(sum(costs, Decimal(0)))
                    turns = sum(spend.turns for spend in between)
                    family = _main_family(between, usd)
                    yield Piece(each.key, window.resets_at, end.at, end.used - start.used, usd, family, turns)


def _rises(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    start = last = points[0]
    for last in points[1:]:
        if last.used - start.used >= STEP - 1e-9:
            yield start, last
            start = last
    if last is not start:
        yield start, last


def _main_family(spends: Iterable[Spend], usd: float) -> str:
    sums: dict[str, float] = {}
    for spend in spends:
        name = limit_windows.family(spend.model)
        sums[name] = sums.get(name, 0.0) + float(spend.usd or 0)
    return next((name for name, cost in sums.items() if usd and cost >= MOSTLY * usd), "")


def joined_pieces(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Pieces with those that are smaller than the step added to the next one of their window."""
    small: dict[tuple[Key, int], Piece] = {}
    for piece in pieces:
        before = small.pop((piece.key, piece.resets_at), None)
        joined = piece if before is None else _join(before, piece)
        if joined.rise >= STEP - 1e-9:
            yield joined
        else:
            small[piece.key, piece.resets_at] = joined


def _join(before: Piece, piece: Piece) -> Piece:
    family = before.family if before.family == piece.family or not piece.usd else "" if before.usd else piece.family
    usd, turns = before.usd + piece.usd, before.turns + piece.turns
    return piece._replace(rise=before.rise + piece.rise, usd=usd, family=family, turns=turns)


def rates(pieces: Iterable[Piece]) -> dict[tuple[Key, str], Rate]:
    """(key, family) -> its rate, "" for all families together; pieces in order of time. Unknown rates are left out."""
    groups: dict[tuple[Key, str], list[Piece]] = {}
    for piece in joined_pieces(pieces):
        groups.setdefault((piece.key, ""), []).append(piece)
        if piece.family:
            groups.setdefault((piece.key, piece.family), []).append(piece)
    every = {name: _rate(group[-MOST:]) for name, group in groups.items()}
    return {name: rate for name, rate in every.items() if rate is not None}


def _rate(pieces: Sequence[Piece]) -> Rate | None:
    paid = sorted((piece.rise / piece.usd, piece.usd) for piece in pieces if piece.usd > 0)
    elsewhere = sum(piece.rise for piece in pieces if not piece.usd)
    if len(paid) < FEWEST or elsewhere > ELSEWHERE * sum(piece.rise for piece in pieces):
        return None
    return Rate(_quantile(paid, 0.1), _quantile(paid, 0.5), _quantile(paid, 0.9), len(paid))


def _quantile(weighted: Sequence[tuple[float, float]], q: float) -> float:
    """A quantile of values with weights, in order of the values."""
    left = q * sum(weight for _, weight in weighted)
    for value, weight in weighted:
        left -= weight
        if left <= 0:
            return value
    return weighted[-1][0]


# Past pieces -> what a share buys.


def room(pieces: Sequence[Piece], share: float) -> Room | None:
    """What a share of a limit bought, wherever it was used in a row in the past; None if too little was used locally.

    `pieces`: of that limit, in order of time. Use elsewhere in between bought nothing, and will again.
    """
    rises = [piece.rise for piece in pieces]
    if share <= 0 or sum(bool(piece.usd) for piece in pieces) < 2 * FEWEST or sum(rises) < _PAST:
        return None
    size = min(share, sum(rises) / _RUNS)
    runs = [_run(pieces, start, size) for start in range(0, len(pieces), max(len(pieces) // _STARTS, 1))]
    whole = [run for run in runs if run is not None]
    # A long run averages what a short one does not: of runs that are shorter than the share, the spread is too wide.
    scale = share / size
    usd, turns = ([scale * run[at] for run in whole] for at in (0, 1))
    return Room(_points(usd), _points(turns)) if _even(usd, 0.5) else None


# A limit's past is long enough if so much of it was used; it is cut into at least so many runs, from at most so many starts.
_PAST, _RUNS, _STARTS = 0.3, 3, 200
# In simulated accounts the points of the past held 57 to 75 % of what followed; so much wider, 71 to 90 %, on average 81 %.
_WIDER = 1.4


def _run(pieces: Sequence[Piece], start: int, size: float) -> tuple[float, float] | None:
    """Dollars and turns of the pieces from one on, until so much of the window was used; None if the past ends before."""
    rise = usd = turns = 0.0
    for piece in pieces[start:]:
        part = min(1.0, (size - rise) / piece.rise) if piece.rise else 1.0
        rise, usd, turns = rise + part * piece.rise, usd + part * piece.usd, turns + part * piece.turns
        if rise >= size - 1e-9:
            return usd, turns
    return None


def _points(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10, 50 and 90 % points, wider than those of the past: runs overlap, and the future differs more."""
    low, middle, high = (_even(values, q) for q in (0.1, 0.5, 0.9))
    if not middle:
        return low, middle, high
    return middle * (low / middle) ** _WIDER, middle, middle * (high / middle) ** _WIDER


def _even(values: Sequence[float], q: float) -> float:
    return _quantile([(value, 1.0) for value in sorted(values)], q)


# States, spends and rates -> states carried forward.


def oldest(states: Iterable[State], now: int) -> int | None:
    """The moment of the oldest reading that is carried forward; None if none is."""
    return min((state.observed_at for state in states if _is_carried(state, now)), default=None)


def _is_carried(state: State, now: int) -> bool:
    return state.used is not None and state.observed_at > now - OLDEST_MS


def carried_forward(states: Sequence[State], spends: Sequence[Spend], rates: Rates, now: int) -> list[State]:
    """The states with what local turns have used since they were read; those for which that is unknown stay as they are."""
    keys = [state.key for state in states if _is_carried(state, now)]
    return [state._replace(carry=_carry(state, spends, rates, _accounts(keys, state.provider))) for state in states]


def _carry(state: State, spends: Sequence[Spend], rates: Rates, accounts: int) -> Carry | None:
    if state.used is None:
        return None
    since = [spend for spend in spends_of(spends, state.key, accounts) if spend.at > state.observed_at]
    if not since or not accounts:
        return None
    low = middle = high = 0.0
    fewest = MOST
    for spend in since:
        rate = rates.get((state.key, limit_windows.family(spend.model))) or rates.get((state.key, ""))
        if rate is None or spend.usd is None:
            return None
        usd = float(spend.usd)
        low, middle, high = low + usd * rate.p10, middle + usd * rate.p50, high + usd * rate.p90
        fewest = min(fewest, rate.pieces)
    cost = sum((spend.usd or Decimal(0) for spend in since), Decimal(0))
    shares = state.used + low, state.used + middle, state.used + high
    return Carry(sum(spend.turns for spend in since), pricing.plain(cost), *shares, fewest)
