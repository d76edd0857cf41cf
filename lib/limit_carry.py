"""What local turns have used since a meter was read: a reading carried forward, with how uncertain that is.

A vendor's percentages weigh turns much as its list prices do, but nobody says how many percent a dollar is. So each
account's own past is asked: while a window's reading rose by so much, local turns cost so much. What was used elsewhere
makes those shares scatter, and the scatter is told. Where there are few, or a turn has no price, nothing is carried.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from tokenops import events, limit_meters, limit_windows, pricing, rollup, store, store_days, when
from tokenops.events import Event
from tokenops.headroom import Carried, Window
from tokenops.limit_windows import Key, Reading, Series
from tokenops.store_days import Derived, Files

# A reading is a whole percent, so that a rise of less than two says little.
STEP = 0.02
# So many rises are needed, and so many of the latest are asked.
FEWEST, MOST = 5, 60
# A model's own rate is learned from rises of which it cost nearly all.
MOSTLY = 0.9
# Where more than this of what was used was used elsewhere, local turns tell nothing.
ELSEWHERE = 0.5
# Readings older than this are not carried: too much may have happened elsewhere.
OLDEST_MS = when.DAY
# Days that are learned from.
DAYS = 14
_FORMAT = 2


class Spent(NamedTuple):
    """What turns cost, the first of them at a moment; account "": unknown; `usd` None: there is no price."""

    at: int
    provider: str
    account: str
    model: str
    usd: Decimal | None
    turns: int = 1


class Piece(NamedTuple):
    """How far a window's reading rose until a moment, and what local turns cost meanwhile, nearly all of one `family`."""

    key: Key
    resets_at: int
    at: int
    rise: float
    usd: float
    family: str


class Rate(NamedTuple):
    """Share of a window per dollar at list price: the middle 80 % of the past, and of how many rises."""

    p10: float
    p50: float
    p90: float
    pieces: int


Rates = Mapping[tuple[Key, str], Rate]


def spent(turns: Iterable[Event], catalogue: pricing.Catalogue) -> list[Spent]:
    """Each turn with what it cost, in order of time."""
    made = (
        Spent(when.moment(turn["ts"]), *_whose(turn), turn.get("model", "").lower(), _usd(turn, catalogue)) for turn in turns
    )
    return sorted(made, key=lambda one: one.at)


def spent_between(turns: Iterable[Event], catalogue: pricing.Catalogue, cuts: Sequence[int]) -> list[Spent]:
    """The same, turns of one model and rate between two cuts added up: pricing two thousand one by one takes 30 ms."""
    stamps = [when.stamp(cut) for cut in sorted(cuts)]
    sums: dict[tuple[Any, ...], Event] = {}
    for turn in turns:
        rate = catalogue.rate_of(turn)
        alone = turn["id"] if "cost_usd" in turn or "usage" in turn else ""
        group = (bisect.bisect_left(stamps, turn["ts"]), *_whose(turn), turn.get("model"), id(rate), alone)
        known = sums.get(group)
        if known is None:
            sums[group] = turn
            continue
        for name in _COUNTED & turn.keys():
            known[name] = known.get(name, 0) + turn[name]
    found = (spent([turn], catalogue)[0]._replace(turns=turn.get("turns", 0)) for turn in sums.values())
    return sorted(found, key=lambda one: one.at)


_COUNTED = frozenset(events.SUMS)


def _whose(turn: Event) -> tuple[str, str]:
    return turn.get("provider", ""), turn.get("account", "")


def _usd(turn: Event, catalogue: pricing.Catalogue) -> Decimal | None:
    if turn.get("usage") == "unknown":
        return None
    if turn.get("cost_source") == "reported":
        return Decimal(turn["cost_usd"])
    rate = catalogue.rate_of(turn)
    cost = pricing.cost_of(rate, turn) if isinstance(rate, pricing.Rate) else None
    if isinstance(cost, pricing.Cost):
        return cost.usd
    return Decimal(turn["cost_usd"]) if turn.get("cost_source") == rollup.CLIENT else None


def _theirs(turns: Sequence[Spent], key: Key, accounts: int) -> list[Spent]:
    """The turns that count in a window. One of unknown account belongs to the only account there is."""
    return [
        turn
        for turn in turns
        if turn.provider == key.provider
        and (turn.account == key.account if turn.account and key.account else accounts == 1)
        and limit_windows.applies(key.scope, turn.model)
    ]


def _accounts(keys: Iterable[Key], provider: str) -> int:
    return len({key.account for key in keys if key.provider == provider})


def pieces(known: Sequence[Series], turns: Sequence[Spent]) -> Iterator[Piece]:
    """The rises of some windows and what turns cost meanwhile; those with turns that have no price are left out.

    The last of a window may be smaller than the step: `merged` adds it to what comes after.
    """
    for one in known:
        theirs = _theirs(turns, one.key, _accounts((other.key for other in known), one.key.provider))
        times = [turn.at for turn in theirs]
        for window in one.windows:
            for start, end in _rises(window.readings):
                between = theirs[bisect.bisect_right(times, start.at) : bisect.bisect_right(times, end.at)]
                costs = [turn.usd for turn in between if turn.usd is not None]
                if len(costs) == len(between):
                    usd = float(sum(costs, Decimal(0)))
                    yield Piece(one.key, window.resets_at, end.at, end.used - start.used, usd, _mostly(between, usd))


def _rises(readings: Sequence[Reading]) -> Iterator[tuple[Reading, Reading]]:
    start = last = readings[0]
    for last in readings[1:]:
        if last.used - start.used >= STEP - 1e-9:
            yield start, last
            start = last
    if last is not start:
        yield start, last


def _mostly(turns: Iterable[Spent], usd: float) -> str:
    sums: dict[str, float] = {}
    for turn in turns:
        name = limit_windows.family(turn.model)
        sums[name] = sums.get(name, 0.0) + float(turn.usd or 0)
    return next((name for name, cost in sums.items() if usd and cost >= MOSTLY * usd), "")


def merged(found: Iterable[Piece]) -> Iterator[Piece]:
    """Small pieces of one window added to those that follow them."""
    held: dict[tuple[Key, int], Piece] = {}
    for one in found:
        before = held.pop((one.key, one.resets_at), None)
        if before is not None:
            same = before.family if before.family == one.family or not one.usd else one.family if not before.usd else ""
            one = one._replace(rise=before.rise + one.rise, usd=before.usd + one.usd, family=same)  # noqa: PLW2901
        if one.rise >= STEP - 1e-9:
            yield one
        else:
            held[one.key, one.resets_at] = one


def rates(found: Iterable[Piece]) -> dict[tuple[Key, str], Rate]:
    """(key, family) -> its rate, "" for all families together; pieces in order of time. Those unknown are left out."""
    groups: dict[tuple[Key, str], list[Piece]] = {}
    for one in merged(found):
        groups.setdefault((one.key, ""), []).append(one)
        if one.family:
            groups.setdefault((one.key, one.family), []).append(one)
    made = {name: _rate(ones[-MOST:]) for name, ones in groups.items()}
    return {name: rate for name, rate in made.items() if rate is not None}


def _rate(found: Sequence[Piece]) -> Rate | None:
    paid = sorted((one.rise / one.usd, one.usd) for one in found if one.usd > 0)
    elsewhere = sum(one.rise for one in found if not one.usd)
    if len(paid) < FEWEST or elsewhere > ELSEWHERE * sum(one.rise for one in found):
        return None
    return Rate(_quantile(paid, 0.1), _quantile(paid, 0.5), _quantile(paid, 0.9), len(paid))


def _quantile(weighted: Sequence[tuple[float, float]], q: float) -> float:
    """Of values with weights, in order."""
    left = q * sum(weight for _, weight in weighted)
    for value, weight in weighted:
        left -= weight
        if left <= 0:
            return value
    return weighted[-1][0]


def carried(found: Iterable[Window], turns: Sequence[Spent], known: Rates, now: int) -> list[Window]:
    """Windows with what local turns added since they were read; those of which that is not known stay as they are."""
    ones = list(found)
    keys = [one.key for one in ones if one.used is not None and one.observed_at > now - OLDEST_MS]
    return [one._replace(carried=_added(one, turns, known, _accounts(keys, one.provider))) for one in ones]


def _added(one: Window, turns: Sequence[Spent], known: Rates, accounts: int) -> Carried | None:
    if one.used is None:
        return None
    since = [turn for turn in _theirs(turns, one.key, accounts) if turn.at > one.observed_at]
    if not since or not accounts:
        return None
    low = middle = high = 0.0
    fewest = MOST
    for turn in since:
        rate = known.get((one.key, limit_windows.family(turn.model))) or known.get((one.key, ""))
        if rate is None or turn.usd is None:
            return None
        usd = float(turn.usd)
        low, middle, high = low + usd * rate.p10, middle + usd * rate.p50, high + usd * rate.p90
        fewest = min(fewest, rate.pieces)
    cost = sum((turn.usd or Decimal(0) for turn in since), Decimal(0))
    shares = one.used + low, one.used + middle, one.used + high
    return Carried(sum(turn.turns for turn in since), pricing.plain(cost), *shares, fewest)


def turns_since(folder: str, since: int, now: int) -> Iterator[Event]:
    """The turns of the log that began after a moment. Raises OSError."""
    return store.records_after(folder, "turn", when.stamp(since), when.stamp(now)[:10])


def learned(folder: str, catalogue: pricing.Catalogue, now: int) -> Rates:
    """What the last closed days tell, as far as it was worked out (refresh)."""
    derived, files = _derived(folder, catalogue), store_days.files_of(folder)
    pieces_by_day = (_load(derived, day, files) for day in _closed(files, now))
    return rates(piece for pieces in pieces_by_day for piece in pieces or ())


def refresh(folder: str, catalogue: pricing.Catalogue, now: int) -> int:
    """Work out what the last closed days tell, where that is not done; of how many."""
    derived, files = _derived(folder, catalogue), store_days.files_of(folder)
    missing = [day for day in _closed(files, now) if _load(derived, day, files) is None]
    for day in missing:
        packed = [[list(key), *rest] for key, *rest in _of_day(folder, catalogue, day)]
        derived.save(day, store_days.key_of(day, files), packed)
    return len(missing)


def _closed(files: Files, now: int) -> list[str]:
    first, last = when.stamp(now - DAYS * when.DAY)[:10], store_days.first_open(now)
    return [day for day in files if first <= day < last]


def _of_day(folder: str, catalogue: pricing.Catalogue, day: str) -> list[Piece]:
    begin = when.moment(f"{day}T00:00:00Z")
    known = limit_windows.series(limit_meters.readings(folder, begin, begin + when.DAY - 1))
    if not any(len(window.readings) > 1 for one in known for window in one.windows):
        return []
    lines = store.scan(folder, when.stamp(begin), when.stamp(begin + when.DAY))
    turns = (event for event in map(orjson.loads, lines) if event["kind"] == "turn")
    return list(pieces(known, spent(turns, catalogue)))


def _derived(folder: str, catalogue: pricing.Catalogue) -> Derived:
    return Derived(folder, "carry", f"{_FORMAT}-{events.VERSION}", catalogue.digest)


def _load(derived: Derived, day: str, files: Files) -> list[Piece] | None:
    key = store_days.key_of(day, files)
    entry = derived.load(day, lambda other: other == key)
    try:
        return [Piece(Key(*key), *rest) for key, *rest in entry[1]] if entry else None
    except (TypeError, LookupError, ValueError):
        return None
