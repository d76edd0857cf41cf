"""Reads from the log what limits are judged by: the vendors' readings, turns since then, and learned rates.

The limit family reads the log only through this module. store_days keeps data derived from a day.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from tokenops import events, limit_windows, store, store_days, when
from tokenops.limit_windows import Key, Reading, Series
from tokenops.store_days import Derived, Files, Recent

if TYPE_CHECKING:  # whoever needs only readings does not pay for prices
    from tokenops.limit_carry import Piece, Rates, Spend
    from tokenops.limit_pieces import Rise
    from tokenops.limit_runs import Part
    from tokenops.pricing import Catalogue

V = TypeVar("V")
_READINGS_FORMAT, _PIECES_FORMAT, _RISES_FORMAT, _RUNS_FORMAT = "4", 3, 1, 1
# Readings that are kept in memory, at about 200 bytes each.
_MOST_KEPT = 200_000
# How long ago a session was at work whose model may be called next; how far clocks may differ.
_AT_WORK_MS, _AHEAD_MS = when.DAY // 2, 5 * 60_000
# How many days rates are learned from, and the worth of a percent.
DAYS, WORTH_DAYS = 14, 120


def _ignore(*what: int) -> None:
    """The default for progress: nothing."""


def memory() -> Recent:
    """A memory for `readings`. Whoever asks more than once owns one."""
    return Recent(_MOST_KEPT, lambda readings: 1 + len(readings))


def readings(folder: str, since: int, until: int, memory: Recent | None = None) -> list[Reading]:
    """The readings of plans' windows in a span of milliseconds. Raises OSError."""
    derived = Derived(folder, "meters", _READINGS_FORMAT)
    meters = store_days.OfKind(derived, "meter", limit_windows.readings_of, limit_windows.pack, _unpack)
    first, last = when.stamp(since)[:10], when.stamp(until)[:10]
    every = meters.between(folder, first, last, memory)
    return limit_windows.with_accounts([reading for reading in every if since <= reading.at <= until])


def last_readings(folder: str, before: int, providers: Iterable[str], memory: Recent | None = None) -> list[Reading]:
    """The readings of the last day before a moment that has any, of each of some providers. Raises OSError."""
    missing, result = set(providers), []
    for day in reversed(store.days(folder, "", when.stamp(before)[:10])):
        if not missing:
            break
        begin = when.moment(f"{day}T00:00:00Z")
        of_day = readings(folder, begin, min(begin + when.DAY - 1, before), memory)
        result += [reading for reading in of_day if reading.key.provider in missing]
        missing -= {reading.key.provider for reading in of_day}
    return result


def _unpack(packed: Any) -> list[Reading]:
    return limit_windows.unpack(*packed)


def spends_since(
    folder: str,
    since: int,
    now: int,
    catalogue: Callable[[], Catalogue],
    cuts: Sequence[int],
    memory: Recent | None = None,
) -> tuple[list[Spend], Rates]:
    """What turns after a moment cost, and the learned rates. Turns between two `cuts` are added up.

    Raises OSError, and what `catalogue` raises: it is called only if there are such turns.
    """
    from tokenops import limit_carry

    ahead = when.stamp(now + _AHEAD_MS)  # a turn dated later, by a clock that was wrong, has not happened yet
    records = store.records_after(folder, "turn", when.stamp(since), ahead[:10])
    turns = [turn for turn in records if turn["ts"] <= ahead]
    if not turns:
        return [], {}
    prices = catalogue()
    return limit_carry.spends_between(turns, prices, cuts), rates(folder, prices, now, memory)


def spends_of_span(folder: str, catalogue: Catalogue, since: int, until: int) -> list[Spend]:
    """What each turn of a span of milliseconds cost, in order of time. Raises OSError."""
    from tokenops import limit_carry

    lines = store.scan(folder, when.stamp(since), when.stamp(until))
    turns = (event for event in map(orjson.loads, lines) if event["kind"] == "turn")
    return limit_carry.spends(turns, catalogue)


def last_models(folder: str, now: int, providers: Collection[str]) -> dict[str, str]:
    """Provider -> the model of its last turn of the main chain within half a day. Raises OSError."""
    last: dict[str, tuple[str, str]] = {}
    for turn in store.records_after(folder, "turn", when.stamp(now - _AT_WORK_MS), when.stamp(now)[:10]):
        provider, model = turn.get("provider", ""), turn.get("model", "")
        if provider in providers and model and not turn.get("sidechain") and turn["ts"] <= when.stamp(now + _AHEAD_MS):
            last[provider] = max(last.get(provider, ("", "")), (turn["ts"], model))
    return {provider: model for provider, (_, model) in last.items()}


def rates(folder: str, catalogue: Catalogue, now: int, memory: Recent | None = None) -> Rates:
    """What the last closed days taught, as far as `learn` has read them. `memory` keeps the pieces of each day."""
    from tokenops import limit_carry

    derived, files = _pieces_of_days(folder, catalogue), _files(folder, now)
    return limit_carry.rates(
        piece for day in _closed_days(files, now) for piece in _pieces_of_day(derived, day, files, memory) or ()
    )


def past_pieces(folder: str, now: int, memory: Recent | None = None) -> dict[Key, list[Piece]]:
    """What `learn` kept of each limit on the last closed days, in order of time, whatever prices it was computed with.

    The prices need not be loaded for it, which would take longer than all else of a budget.
    """
    derived = Derived.last(folder, "carry", f"{_PIECES_FORMAT}-{events.VERSION}")
    if derived is None:
        return {}
    result: dict[Key, list[Piece]] = {}
    files = _files(folder, now)
    for day in _closed_days(files, now):
        for piece in _pieces_of_day(derived, day, files, memory) or ():
            result.setdefault(piece.key, []).append(piece)
    return result


def _pieces_of_day(derived: Derived, day: str, files: Files, memory: Recent | None) -> list[Piece] | None:
    """What a day taught, None if it has not been read; of a day that has been, memory keeps it."""
    name, key = (derived.folder, day), store_days.key_of(day, files)
    if memory is None or not memory.has(name, key):
        pieces = _load(derived, day, files, _unpack_pieces)
        if memory is None or pieces is None:
            return pieces
        return memory.get(name, key, lambda: pieces)
    return memory.get(name, key, list)


def series(readings: list[Reading], memory: Recent | None = None) -> list[Series]:
    """The series of some readings. `memory` keeps those of the last readings, which are the same until a new one comes."""
    if memory is None:
        return limit_windows.series(readings)
    return memory.get("series", readings, lambda: limit_windows.series(readings))


def _files(folder: str, now: int) -> Files:
    """The files of the days that rates are learned from, and of their neighbours."""
    return store_days.files_of(folder, when.stamp(now - (DAYS + 1) * when.DAY)[:10], when.stamp(now)[:10])


def learn(folder: str, catalogue: Catalogue, now: int) -> int:
    """Learn from the last closed days that have not been read yet, and return how many. Raises OSError."""
    derived, files = _pieces_of_days(folder, catalogue), _files(folder, now)
    missing = [day for day in _closed_days(files, now) if _load(derived, day, files, _unpack_pieces) is None]
    for day in missing:
        packed = [[list(key), *rest] for key, *rest in _pieces(folder, catalogue, day)]
        derived.save(day, store_days.key_of(day, files), packed)
    return len(missing)


def _closed_days(files: Files, now: int) -> list[str]:
    first, last = when.stamp(now - DAYS * when.DAY)[:10], store_days.first_open(now)
    return [day for day in files if first <= day < last]


def _pieces(folder: str, catalogue: Catalogue, day: str) -> list[Piece]:
    from tokenops import limit_carry

    begin = when.moment(f"{day}T00:00:00Z")
    series = limit_windows.series(readings(folder, begin, begin + when.DAY - 1))
    if not any(len(window.points) > 1 for each in series for window in each.windows):
        return []
    lines = store.scan(folder, when.stamp(begin), when.stamp(begin + when.DAY))
    turns = (event for event in map(orjson.loads, lines) if event["kind"] == "turn")
    return list(limit_carry.pieces(series, limit_carry.spends(turns, catalogue)))


def _pieces_of_days(folder: str, catalogue: Catalogue) -> Derived:
    return Derived(folder, "carry", f"{_PIECES_FORMAT}-{events.VERSION}", catalogue.digest)


def _load(derived: Derived, day: str, files: Files, unpack: Callable[[Any], list[V]]) -> list[V] | None:
    """What was kept of a day; None if there is nothing, or its files have changed."""
    key = store_days.key_of(day, files)
    entry = derived.load(day, lambda other: other == key)
    try:
        return unpack(entry[1]) if entry else None
    except (TypeError, LookupError, ValueError):
        return None


def _unpack_pieces(values: Any) -> list[Piece]:
    from tokenops.limit_carry import Piece

    return [Piece(Key(*key), *rest) for key, *rest in values]


def rises(folder: str, catalogue: Catalogue, now: int, progress: Callable[[int, int], None] = _ignore) -> list[Rise]:
    """How far readings rose in the last WORTH_DAYS, and what local turns cost meanwhile, in order of time. Raises OSError.

    What closed days hold is kept. `progress` is called with how many of the days are done.
    """
    from tokenops import limit_pieces

    derived = Derived(folder, "worth", f"{_RISES_FORMAT}-{events.VERSION}", catalogue.digest)
    read = functools.partial(_rises_of_day, folder, catalogue, now=now)
    result = _by_day(
        folder, derived, now - WORTH_DAYS * when.DAY, now, read, limit_pieces.pack, limit_pieces.unpack, progress
    )
    return sorted(result, key=lambda rise: (rise.at, rise.key))


def _by_day(
    folder: str,
    derived: Derived,
    since: int,
    now: int,
    read: Callable[[str], list[V]],
    pack: Callable[[list[V]], Any],
    unpack: Callable[[Any], list[V]],
    progress: Callable[[int, int], None],
) -> list[V]:
    """What each day since a moment holds; of closed days what was kept, if their files have not changed. Raises OSError."""
    first = when.stamp(since)[:10]
    files = store_days.files_of(folder, when.stamp(since - when.DAY)[:10], when.stamp(now)[:10])
    days = [day for day in files if day >= first]
    result: list[V] = []
    for number, day in enumerate(days):
        values = _load(derived, day, files, unpack)
        if values is None:
            values = read(day)
            if day < store_days.first_open(now):
                derived.save(day, store_days.key_of(day, files), pack(values))
        result += values
        progress(number + 1, len(days))
    return result


def _rises_of_day(folder: str, catalogue: Catalogue, day: str, now: int) -> list[Rise]:
    """The rises that end on a day; where they begin the day before, its readings and turns count too."""
    from tokenops import limit_pieces

    begin = when.moment(f"{day}T00:00:00Z")
    end = min(begin + when.DAY, now + 1)
    series = limit_windows.series(readings(folder, begin - when.DAY, end - 1))
    if not any(point.at >= begin for each in series for window in each.windows for point in window.points[1:]):
        return []
    spends = spends_of_span(folder, catalogue, begin - when.DAY, end)
    return [rise for rise in limit_pieces.rises(series, spends) if rise.at >= begin]


def run_parts(
    folder: str, catalogue: Catalogue, since: int, now: int, progress: Callable[[int, int], None] = _ignore
) -> list[Part]:
    """The runs of sessions since a moment, in parts of a day, with how far readings rose with them. Raises OSError.

    What closed days hold is kept. `progress` is called with how many of the days are done.
    """
    from tokenops import limit_runs

    derived = Derived(folder, "runs", f"{_RUNS_FORMAT}-{events.VERSION}", catalogue.digest)
    read = functools.partial(_parts_of_day, folder, catalogue, now=now)
    return _with_names(folder, _by_day(folder, derived, since, now, read, limit_runs.pack, limit_runs.unpack, progress))


def _with_names(folder: str, parts: list[Part]) -> list[Part]:
    """The parts with the names that projects have in reports."""
    names = store.labels(folder)
    return [
        part._replace(labels=part.labels._replace(project=names.get(part.labels.project_id, part.labels.project)))
        for part in parts
    ]


def _parts_of_day(folder: str, catalogue: Catalogue, day: str, now: int) -> list[Part]:
    """The parts of a day; a reading of it may show what turns of the day before used."""
    from tokenops import limit_carry, limit_runs

    begin = when.moment(f"{day}T00:00:00Z")
    end = min(begin + when.DAY, now + 1)
    series = limit_windows.series(readings(folder, begin - when.DAY, end - 1))
    if not series:
        return []
    lines = store.scan(folder, when.stamp(begin - when.DAY), when.stamp(end))
    turns = [event for event in map(orjson.loads, lines) if event["kind"] == "turn"]
    return limit_runs.parts(turns, limit_carry.spends(turns, catalogue), series, begin)
