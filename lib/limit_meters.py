"""Reads the vendors' readings from the log, without reading the turns beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenops import limit_windows, store_days, when
from tokenops.limit_windows import Key, Seen
from tokenops.store_days import Recent

_FORMAT = "3"
# Readings that are kept in memory, at about 200 bytes each.
_MOST_KEPT = 200_000

Rows = list[list[Any]]


def memory() -> Recent:
    """A memory for `readings`. Whoever asks more than once owns one."""
    return Recent(_MOST_KEPT, lambda readings: 1 + len(readings))


def readings(folder: str, since: int, until: int, memory: Recent | None = None) -> list[Seen]:
    """The readings of plans' windows in a span of milliseconds. Raises OSError."""
    derived = store_days.Derived(folder, "meters", _FORMAT)
    meters = store_days.OfKind(derived, "meter", limit_windows.seen, rows_of, lambda packed: seen_of(*packed))
    first, last = when.stamp(since)[:10], when.stamp(until)[:10]
    return limit_windows.owned([one for one in meters.between(folder, first, last, memory) if since <= one.at <= until])


def rows_of(found: Iterable[Seen]) -> tuple[Rows, Rows]:
    """Readings as JSON: what they share, and each one's number there, moment, share and reset; repetitions left out."""
    keys: dict[tuple[Any, ...], int] = {}
    rows = dict.fromkeys(
        (
            keys.setdefault((*one.key, one.minutes, one.status, one.source, one.plan), len(keys)),
            one.at,
            one.used,
            one.resets_at,
        )
        for one in found
    )
    return [list(key) for key in keys], [list(row) for row in rows]


def seen_of(keys: Rows, rows: Rows) -> list[Seen]:
    """What rows_of gave, as readings. Raises TypeError, ValueError, IndexError."""
    shared = [(Key(*key[:4]), *key[4:]) for key in keys]
    made = []
    for number, at, used, resets_at in rows:
        key, minutes, status, source, plan = shared[number]
        made.append(Seen(key, minutes, at, used, resets_at, status, source, plan))
    return made
