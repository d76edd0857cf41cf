"""Meter readings -> the windows that they are of, with what each is known to have used and when.

The rules: a window is told by its length and its reset, never by a slot's name; resets less than five minutes apart are
one reset; inside a window use only grows; a reading is void after its own reset; a number that a source only repeats
says nothing new; and what is missing is unknown, never 0.
"""

from __future__ import annotations

import bisect
import datetime
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenops import catalog, when
from tokenops.events import Event

MINUTE = 60_000
# Vendors compute a reset anew for each answer, and it jitters by seconds; 2,700 readings of one user differ by 2 s.
JITTER_MS = 5 * MINUTE
# Where a meter names a window and not its length.
_MINUTES = {"hourly": 60, "five_hour": 300, "daily": 1440, "weekly": 10_080, "monthly": 43_200}
# A month of 31 days is called one of 30.
_LONGEST = 1.04
# What is shorter is a metered key's rate, and no plan's window.
_SHORTEST = 60


class Key(NamedTuple):
    """Whose window it is, and which: `scope` is the family of models that it limits, "" for all."""

    provider: str
    account: str
    window: str
    scope: str


def applies(scope: str, model: str) -> bool:
    """Whether a limit of a scope counts for a model: one without a scope does, and that of the model's own family."""
    if not scope or scope in catalog.load("limits")["every_model"]:
        return True
    return scope.lower().replace("_", "-") in model.lower().replace("_", "-")


def family(model: str) -> str:
    """The models that are weighed alike: those of a family of the catalogue, others each by itself."""
    return next((name for names in catalog.load("limits")["families"].values() for name in names if name in model), model)


class Reading(NamedTuple):
    """What was used (a fraction, may exceed 1) at a moment; never less than a moment before."""

    at: int
    used: float


class Window(NamedTuple):
    """One period of a limit, its readings in order of time."""

    resets_at: int
    minutes: int
    readings: tuple[Reading, ...]

    @property
    def starts_at(self) -> int:
        """When the period began."""
        return self.resets_at - self.minutes * MINUTE

    @property
    def used(self) -> float:
        """What was used when it was read last."""
        return self.readings[-1].used


class Series(NamedTuple):
    """All windows of one limit, in order of their resets.

    `polled`: somebody asked at intervals, so that a gap is ignorance. Otherwise readings come with use, and a gap is rest.
    """

    key: Key
    windows: tuple[Window, ...]
    polled: bool


class Seen(NamedTuple):
    """A vendor's reading of one limit at a moment. `minutes`: the window's length, 0 where nobody says (credits)."""

    key: Key
    minutes: int
    at: int
    used: float
    resets_at: int | None
    status: str
    source: str
    plan: str


def seen(meters: Iterable[Event]) -> list[Seen]:
    """What meters say of plans' windows. A refusal is a window used up; limits by the minute are no plan's."""
    return [found for found in map(_seen, meters) if found is not None]


def owned(readings: list[Seen]) -> list[Seen]:
    """Readings of sources that name no account, each given to the account whose window is reset at the same moment.

    Status lines, rollouts and headers of some vendors name none; resets tell accounts apart. Of a provider with one
    account only, whose reset was met once, all are its.
    """
    named: dict[str, dict[tuple[str, str, int], str]] = {}
    for one in readings:
        if one.key.account and one.resets_at is not None:
            slots = named.setdefault(one.key.provider, {})
            for slot in (one.resets_at // JITTER_MS + step for step in (-1, 0, 1)):
                slots[one.key.window, one.key.scope, slot] = one.key.account
    if not named:
        return readings
    matched = [_owner(one, named) for one in readings]
    only = {}
    for provider, slots in named.items():
        accounts = set(slots.values())
        if len(accounts) == 1 and any(
            owner and not one.key.account and one.key.provider == provider
            for one, owner in zip(readings, matched, strict=True)
        ):
            only[provider] = accounts.pop()
    return [
        one if one.key.account else one._replace(key=one.key._replace(account=owner or only.get(one.key.provider, "")))
        for one, owner in zip(readings, matched, strict=True)
    ]


def _owner(one: Seen, named: dict[str, dict[tuple[str, str, int], str]]) -> str:
    if one.key.account or one.resets_at is None:
        return one.key.account
    slots = named.get(one.key.provider, {})
    return slots.get((one.key.window, one.key.scope, one.resets_at // JITTER_MS), "")


def series(readings: Iterable[Seen]) -> list[Series]:
    """The series of each provider, account, window and scope, in order of their keys."""
    held: dict[Key, list[Seen]] = {}
    for reading in readings:
        if reading.minutes:
            held.setdefault(reading.key, []).append(reading)
    found = (_series(key, ones[-1].minutes, sorted(ones, key=_order)) for key, ones in sorted(held.items()))
    return [one for one in found if one.windows]


def _order(reading: Seen) -> tuple[int, float, int, str]:
    return reading.at, reading.used, reading.resets_at or 0, reading.source


def _seen(meter: Event) -> Seen | None:
    """A reading; None for what says nothing of a plan's window."""
    used, status = meter.get("used"), _text(meter, "status")
    if used is None and status == "rejected":
        used = 1.0
    if meter.get("kind") != "meter" or used is None or not _real(used) or used < 0:
        return None
    try:
        named = _named(str(meter.get("window") or ""), meter.get("window_minutes"))
        at = _moment(meter.get("observed_at") or meter["ts"])
        resets = _moment(meter["resets_at"]) if meter.get("resets_at") else None
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError):
        return None
    if named is None:
        return None
    if resets is not None and named[1] and resets - at > _LONGEST * named[1] * MINUTE + JITTER_MS:
        resets = None  # no window is reset later than its length from now: the moment cannot be right
    key = Key(_text(meter, "provider"), _text(meter, "account"), named[0], _text(meter, "scope"))
    return Seen(key, named[1], at, float(used), resets, status, _text(meter, "source"), _text(meter, "plan"))


@functools.lru_cache(256)
def _named(named: str, given: object) -> tuple[str, int] | None:
    """A window's name and minutes, by its length: primary is whatever its length says. None: it is no plan's.

    A window of credits may have no length.
    """
    minutes = given if isinstance(given, (int, float)) and _real(given) else _MINUTES.get(named, 0)
    if (not named and not minutes) or "_per_" in named:
        return None
    if not minutes:
        return named, 0
    if minutes < _SHORTEST:
        return None
    length = when.window_name(minutes)
    return named if named.startswith(f"{length}_") else length, _MINUTES.get(length, round(minutes))


def _moment(text: str) -> int:
    """Milliseconds of a time; of a canonical one, as all in the log are, six times as fast as any."""
    if len(text) == 24 and text[23] == "Z":
        return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)
    return when.moment(text)


def _text(meter: Event, name: str) -> str:
    return str(meter.get(name) or "")


def _real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _series(key: Key, minutes: int, seen: list[Seen]) -> Series:
    """The windows of one limit from its readings in order of time."""
    known = [one for one in _news(seen) if one.resets_at is not None and one.at < one.resets_at]
    canonical = resets(one.resets_at for one in known if one.resets_at is not None)
    within: dict[int, list[Seen]] = {at: [] for at in sorted(set(canonical.values()))}
    for one in known:
        within[canonical[one.resets_at or 0]].append(one)
    for one in seen:
        if one.resets_at is None:
            _fit(one, minutes, within)
    windows = tuple(Window(at, minutes, tuple(rising(ones))) for at, ones in within.items())
    return Series(key, windows, bool(seen) and all(one.source.startswith("vendor-") for one in seen))


def resets(moments: Iterable[int]) -> dict[int, int]:
    """Each reset -> the one moment by which all less than five minutes from the first of them are known."""
    groups: list[list[int]] = []
    for at in sorted(moments):
        if not groups or at - groups[-1][0] >= JITTER_MS:
            groups.append([])
        groups[-1].append(at)
    return {at: group[len(group) // 2] for group in groups for at in group}


def _news(seen: list[Seen]) -> Iterator[Seen]:
    """The readings without a source's repetitions of its last answer.

    A run of equal numbers that goes on after its own reset was repeated from its first on: an idle session, or a poller
    whose requests failed (a month of one user's polls holds two such nights). A status line repeats its session's last.
    """
    by_source: dict[str, list[Seen]] = {}
    for one in seen:
        by_source.setdefault(one.source, []).append(one)
    for source, ones in sorted(by_source.items()):
        for _, same in itertools.groupby(ones, key=lambda one: (one.used, (one.resets_at or 0) // JITTER_MS)):
            run = list(same)
            stale = run[0].resets_at is not None and run[-1].at > run[0].resets_at + MINUTE
            yield from run[:1] if stale or "statusline" in source else run


def _fit(one: Seen, minutes: int, within: dict[int, list[Seen]]) -> None:
    """Put a reading without a reset where it can be: in the only window open then, not below what that had used."""
    opened = [at for at in within if at - minutes * MINUTE <= one.at < at]
    if len(opened) == 1:
        before = [other.used for other in within[opened[0]] if other.at <= one.at]
        if before and one.used >= max(before):
            within[opened[0]].append(one)


def rising(seen: Iterable[Seen]) -> Iterator[Reading]:
    """The readings of a window in order of time: of one moment the highest, and none that is below an earlier one."""
    top = -1.0
    for at, same in itertools.groupby(sorted(seen, key=_order), key=lambda one: one.at):
        used = max(one.used for one in same)
        if used >= top:
            top = used
            yield Reading(at, used)


def opened(one: Series, now: int) -> Window | None:
    """The window read last that is open; None where all have reset: what the next has used is unknown."""
    best: tuple[int, Window] | None = None
    for window in one.windows:
        if window.starts_at - JITTER_MS <= now < window.resets_at and window.readings[0].at <= now:
            last = window.readings[bisect.bisect_right(window.readings, now, key=lambda reading: reading.at) - 1].at
            if best is None or last >= best[0]:
                best = last, window
    return best[1] if best else None


def frozen(one: Series, others: Sequence[Series]) -> list[tuple[int, int]]:
    """The spans in which a longer window of the same account stood at its limit, so that this one could not move."""
    spans = []
    length = one.windows[0].minutes
    for other in others:
        if other.key[:2] == one.key[:2] and other.key.scope in ("", one.key.scope):
            for window in other.windows:
                if window.minutes > length and window.used >= 1:
                    spans.append((next(at for at, used in window.readings if used >= 1), window.resets_at))
    return sorted(spans)
