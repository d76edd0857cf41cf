"""Sorts meter readings into the windows that they belong to, each with its use over time.

- A window is recognised by its length and its reset, never by a slot's name.
- Resets less than five minutes apart are one reset.
- Within a window use only grows; a reading is invalid after its own reset; a repeated number is not new.
- A missing value is unknown, never 0.
"""

from __future__ import annotations

import bisect
import datetime
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tokenops import catalog, when, wire_limits
from tokenops.events import Event

MINUTE = 60_000
# Vendors compute the reset again for each answer, so it varies by seconds: 2,700 readings of one user differ by 2 s.
JITTER_MS = 5 * MINUTE
# The minutes of a window whose meter gives its name and not its length.
_MINUTES = {"hourly": 60, "five_hour": 300, "daily": 1440, "weekly": 10_080, "monthly": 43_200}
# A month of 31 days counts as one of 30.
_LONGEST = 1.04
# A shorter window is the rate limit of an API key, not a plan's.
_SHORTEST = 60
# The window of a refusal that names none.
PLAN = "plan"


class Key(NamedTuple):
    """Whose window it is, and which: `scope` is the family of models that it limits, "" for all."""

    provider: str
    account: str
    window: str
    scope: str


def applies(scope: str, model: str) -> bool:
    """Whether a limit of a scope counts for a model: one without a scope does, and one of the model's own family."""
    if not scope or scope in catalog.load("limits")["every_model"]:
        return True
    return scope.lower().replace("_", "-") in model.lower().replace("_", "-")


def families(provider: str) -> Sequence[str]:
    """The families of models that a provider limits by themselves, as the catalogue lists them."""
    names: Sequence[str] = catalog.load("limits")["families"].get(provider, ())
    return names


def family(model: str) -> str:
    """The family of a model, whose turns are all weighed alike; a model without one is its own family."""
    return next((name for names in catalog.load("limits")["families"].values() for name in names if name in model), model)


class Point(NamedTuple):
    """The share that is used at a moment (may exceed 1); never less than at an earlier moment."""

    at: int
    used: float


class Window(NamedTuple):
    """One period of a limit, with its use in order of time."""

    resets_at: int
    minutes: int
    points: tuple[Point, ...]

    @property
    def starts_at(self) -> int:
        """When the period began."""
        return self.resets_at - self.minutes * MINUTE


class Series(NamedTuple):
    """All windows of one limit, in order of their resets.

    `polled`: the readings were taken at intervals, so a gap means that use is unknown. Otherwise they come with use, and a
    gap means no use.
    """

    key: Key
    windows: tuple[Window, ...]
    polled: bool


class Reading(NamedTuple):
    """A vendor's reading of one limit at a moment. `minutes`: the window's length, 0 if it has none (credits)."""

    key: Key
    minutes: int
    at: int
    used: float
    resets_at: int | None
    status: str
    source: str
    plan: str


def readings_of(meters: Iterable[Event]) -> list[Reading]:
    """The readings of plans' windows among meters. A refusal means a used-up window; rate limits per minute are left out."""
    return [reading for reading in map(_reading, meters) if reading is not None]


def with_accounts(readings: list[Reading]) -> list[Reading]:
    """Readings without an account, each assigned to the account whose window is reset at the same moment.

    Status lines, rollouts and the headers of some vendors name no account; resets distinguish accounts. If a provider has
    only one account and one of its resets matches, all readings are assigned to it.
    """
    named: dict[str, dict[tuple[str, str, int], str]] = {}
    for reading in readings:
        if reading.key.account and reading.resets_at is not None:
            slots = named.setdefault(reading.key.provider, {})
            for slot in (reading.resets_at // JITTER_MS + step for step in (-1, 0, 1)):
                slots[reading.key.window, reading.key.scope, slot] = reading.key.account
                slots[PLAN, "", slot] = reading.key.account
    if not named:
        return readings
    matched = [_owner(reading, named) for reading in readings]
    only = {}
    for provider, slots in named.items():
        accounts = set(slots.values())
        unnamed = [
            (reading.key.window, owner)
            for reading, owner in zip(readings, matched, strict=True)
            if reading.key.provider == provider and not reading.key.account
        ]
        if len(accounts) == 1 and (any(owner for _, owner in unnamed) or all(window == PLAN for window, _ in unnamed)):
            only[provider] = accounts.pop()
    return [
        reading if reading.key.account else _of_account(reading, owner or only.get(reading.key.provider, ""))
        for reading, owner in zip(readings, matched, strict=True)
    ]


def _of_account(reading: Reading, account: str) -> Reading:
    return reading._replace(key=reading.key._replace(account=account))


def _owner(reading: Reading, named: dict[str, dict[tuple[str, str, int], str]]) -> str:
    if reading.key.account or reading.resets_at is None:
        return reading.key.account
    slots = named.get(reading.key.provider, {})
    return slots.get((reading.key.window, reading.key.scope, reading.resets_at // JITTER_MS), "")


def series(readings: Iterable[Reading]) -> list[Series]:
    """The series of each provider, account, window and scope, in order of their keys."""
    by_key: dict[Key, list[Reading]] = {}
    for reading in readings:
        if reading.minutes:
            by_key.setdefault(reading.key, []).append(reading)
    every = (_series(key, group[-1].minutes, sorted(group, key=_order)) for key, group in sorted(by_key.items()))
    return [each for each in every if each.windows]


def _order(reading: Reading) -> tuple[int, float, int, str]:
    return reading.at, reading.used, reading.resets_at or 0, reading.source


def _reading(meter: Event) -> Reading | None:
    """The reading of a meter; None if it is not about a plan's window."""
    used, status = meter.get("used"), _text(meter, "status")
    if used is None and status == "rejected":
        used = 1.0
    if meter.get("kind") != "meter" or used is None or not _real(used) or not 0 <= used <= wire_limits.MOST_USED:
        return None
    try:
        named = _window_name(str(meter.get("window") or ""), meter.get("window_minutes"))
        at = _moment(meter.get("observed_at") or meter["ts"])
        resets = _moment(meter["resets_at"]) if meter.get("resets_at") else None
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError):
        return None
    if named is None and status == "rejected" and not meter.get("window") and not meter.get("window_minutes"):
        named = PLAN, 0
    if named is None:
        return None
    name, minutes = named
    if resets is not None and minutes and resets - at > _LONGEST * minutes * MINUTE + JITTER_MS:
        resets = None  # no window is reset later than its length from now: this moment cannot be right
    key = Key(_text(meter, "provider"), _text(meter, "account"), name, _text(meter, "scope"))
    return Reading(key, minutes, at, float(used), resets, status, _text(meter, "source"), _text(meter, "plan"))


@functools.lru_cache(256)
def _window_name(name: str, stated: object) -> tuple[str, int] | None:
    """A window's name and minutes. Its length decides, also for a slot such as `primary`. None: not a plan's window.

    A window of credits may have no length.
    """
    minutes = stated if isinstance(stated, (int, float)) and _real(stated) else _MINUTES.get(name, 0)
    if (not name and not minutes) or "_per_" in name:
        return None
    if not minutes:
        return name, 0
    if minutes < _SHORTEST:
        return None
    length = when.window_name(minutes)
    return name if name.startswith(f"{length}_") else length, _MINUTES.get(length, round(minutes))


def _moment(text: str) -> int:
    """Milliseconds of a time; six times as fast for a canonical one, as all in the log are."""
    if len(text) == 24 and text[23] == "Z":
        return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)
    return when.moment(text)


def _text(meter: Event, name: str) -> str:
    return str(meter.get(name) or "")


def _real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _series(key: Key, minutes: int, readings: list[Reading]) -> Series:
    """The windows of one limit from its readings in order of time."""
    fresh = [reading for reading in _news(readings) if reading.resets_at is not None and reading.at < reading.resets_at]
    canonical = canonical_resets(reading.resets_at for reading in fresh if reading.resets_at is not None)
    by_reset: dict[int, list[Reading]] = {at: [] for at in sorted(set(canonical.values()))}
    for reading in fresh:
        by_reset[canonical[reading.resets_at or 0]].append(reading)
    for reading in readings:
        if reading.resets_at is None:
            _fit(reading, minutes, by_reset)
    windows = tuple(Window(at, minutes, tuple(rising_points(group))) for at, group in by_reset.items())
    return Series(key, windows, bool(readings) and all(reading.source.startswith("vendor-") for reading in readings))


def canonical_resets(moments: Iterable[int]) -> dict[int, int]:
    """Each reset -> the one moment that stands for all resets less than five minutes after the first of them."""
    groups: list[list[int]] = []
    for at in sorted(moments):
        if not groups or at - groups[-1][0] >= JITTER_MS:
            groups.append([])
        groups[-1].append(at)
    return {at: group[len(group) // 2] for group in groups for at in group}


def _news(readings: list[Reading]) -> Iterator[Reading]:
    """The readings without a source's repetitions of its last answer.

    A run of equal numbers that continues after its own reset is a repetition from its first number on: an idle session, or
    a poller whose requests failed (two nights in a month of one user's polls). A status line repeats its last reading.
    """
    by_source: dict[str, list[Reading]] = {}
    for reading in readings:
        by_source.setdefault(reading.source, []).append(reading)
    for source, group in sorted(by_source.items()):
        for _, same in itertools.groupby(group, key=lambda reading: (reading.used, (reading.resets_at or 0) // JITTER_MS)):
            run = list(same)
            stale = run[0].resets_at is not None and run[-1].at > run[0].resets_at + MINUTE
            yield from run[:1] if stale or "statusline" in source else run


def _fit(reading: Reading, minutes: int, by_reset: dict[int, list[Reading]]) -> None:
    """Add a reading without a reset to the only window that was open then, unless it is below the use known by then."""
    opened = [at for at in by_reset if at - minutes * MINUTE <= reading.at < at]
    if len(opened) == 1:
        before = [earlier.used for earlier in by_reset[opened[0]] if earlier.at <= reading.at]
        if before and reading.used >= max(before):
            by_reset[opened[0]].append(reading)


def rising_points(readings: Iterable[Reading]) -> Iterator[Point]:
    """The use of a window in order of time: the highest reading of each moment, without any below an earlier one."""
    top = -1.0
    for at, same in itertools.groupby(sorted(readings, key=_order), key=lambda reading: reading.at):
        used = max(reading.used for reading in same)
        if used >= top:
            top = used
            yield Point(at, used)


def open_window(series: Series, now: int) -> Window | None:
    """The open window that was read last; None if all have been reset, since the use of the next one is unknown."""
    best: tuple[int, Window] | None = None
    for window in series.windows:
        if window.starts_at - JITTER_MS <= now < window.resets_at and window.points[0].at <= now:
            last = window.points[bisect.bisect_right(window.points, now, key=lambda reading: reading.at) - 1].at
            if best is None or last >= best[0]:
                best = last, window
    return best[1] if best else None


def frozen_spans(series: Series, others: Sequence[Series]) -> list[tuple[int, int]]:
    """The spans in which a longer window of the same account was used up, so that this one could not move."""
    spans = []
    length = series.windows[0].minutes
    for other in others:
        if other.key[:2] == series.key[:2] and other.key.scope in ("", series.key.scope):
            for window in other.windows:
                if window.minutes > length and window.points[-1].used >= 1:
                    spans.append((next(at for at, used in window.points if used >= 1), window.resets_at))
    return sorted(spans)


Rows = list[list[Any]]


def pack(readings: Iterable[Reading]) -> tuple[Rows, Rows]:
    """Readings as JSON: what they share, and of each the number of that, moment, share and reset; each reading once."""
    keys: dict[tuple[Any, ...], int] = {}
    rows = dict.fromkeys(
        (
            keys.setdefault((*reading.key, reading.minutes, reading.status, reading.source, reading.plan), len(keys)),
            reading.at,
            reading.used,
            reading.resets_at,
        )
        for reading in readings
    )
    return [list(key) for key in keys], [list(row) for row in rows]


def unpack(keys: Rows, rows: Rows) -> list[Reading]:
    """The readings that were packed. Raises TypeError, ValueError, IndexError."""
    shared = [(Key(*key[:4]), *key[4:]) for key in keys]
    readings = []
    for number, at, used, resets_at in rows:
        key, minutes, status, source, plan = shared[number]
        readings.append(Reading(key, minutes, at, used, resets_at, status, source, plan))
    return readings
