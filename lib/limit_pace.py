"""How fast a limit's window is used up, from the vendor's own readings; nothing is worked out from tokens.

A rise belongs to the span in which it was read. Where it may as well have happened before (a poller was silent, or
nobody had read the window yet) it belongs nowhere, and that span is unknown. A span without a reading is unknown too.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenops import headroom, limit_windows, when
from tokenops.events import Event
from tokenops.limit_windows import MINUTE, Key, Point, Reading, Series, Window

# A poller that was silent for longer leaves a hole.
SILENCE_MS = 20 * MINUTE
# What is looked at before the span, so that a repeated old number is known for one.
NEAR_MS = 6 * 60 * MINUTE
# What is looked back at for a pace: an hour, of windows longer than a day a whole day.
HOUR_MS, LONG_MINUTES = 60 * MINUTE, 1440
STRAIGHT = "a straight line through what was used lately; tok-budget has a forecast that was tested"


class Pace(NamedTuple):
    """What was used of a window per hour, over so many minutes up to now."""

    per_hour: float
    minutes: int


def rises(one: Series, edges: Sequence[int]) -> dict[int, float | None]:
    """Span (from each edge to the next, by number) -> the rise read in it; None where nobody can place it."""
    found: dict[int, float | None] = {}
    for number, window in enumerate(one.windows):
        known = bool(number) and not one.polled  # readings come with use, so that the silence before was rest
        before = Point(window.starts_at, 0.0)
        for reading in window.points:
            at = bisect.bisect_right(edges, reading.at) - 1
            if 0 <= at < len(edges) - 1:
                near = before.at >= edges[at] or reading.at - before.at <= SILENCE_MS
                placed = known or near or reading.used == before.used
                held = found.get(at, 0.0)
                found[at] = None if held is None or not placed else held + reading.used - before.used
            before, known = reading, not one.polled
    return found


def pace(one: Series, now: int) -> Pace | None:
    """How fast the open window was used lately; None where too little was read to say."""
    window = limit_windows.open_window(one, now)
    if window is None:
        return None
    span = when.DAY if window.minutes > LONG_MINUTES else HOUR_MS
    readings = [reading for reading in window.points if reading.at <= now]
    last = readings[-1]
    if last.at < now - span:
        return None
    base = _base(window, readings, now - span)
    if base is last:
        return None
    end, start = (last.at, base.at) if one.polled else (now, max(base.at, now - span))
    if end - start < span // 4:
        return None
    return Pace((last.used - base.used) * HOUR_MS / (end - start), (end - start) // MINUTE)


def _base(window: Window, readings: Sequence[Point], since: int) -> Point:
    """What was used at a moment: the reading before it, the window's beginning after it, else what was read first."""
    earlier = [reading for reading in readings if reading.at <= since]
    if earlier:
        return earlier[-1]
    return Point(window.starts_at, 0.0) if window.starts_at >= since else readings[0]


def paces(readings: Sequence[Reading], now: int) -> dict[Key, Pace]:
    """The pace of each limit that has one."""
    found = {one.key: pace(one, now) for one in limit_windows.series(_since(readings, now - when.DAY - NEAR_MS))}
    return {key: lately for key, lately in found.items() if lately}


class Limit(NamedTuple):
    """A window that was read: as it is now, what it rose by in each span where that is known, and its readings."""

    state: Event
    rises: dict[int, float]
    points: list[tuple[int, float | None]]

    @property
    def name(self) -> str:
        """The window's name for people."""
        account, scope = self.state.get("account", ""), self.state.get("scope", "")
        more = f" ({', '.join(filter(None, (scope, account)))})" if scope or account else ""
        return f"{self.state['provider']} {self.state['window']}{more}"


def limits(readings: Sequence[Reading], edges: Sequence[int], now: int, provider: str = "", model: str = "") -> list[Limit]:
    """Each window that was read within the edges, of a provider ("": of all) and for a model ("": for any)."""
    wanted = [one for one in readings if provider in ("", one.key.provider)]
    known = {one.key: one for one in limit_windows.series(_since(wanted, min(edges[0], now - when.DAY) - NEAR_MS))}
    found = []
    for state in headroom.states(wanted, now):
        series = known.get(Key(state.provider, state.account, state.window, state.scope))
        rise = rises(series, edges) if series and (not model or headroom.applies(state, model)) else {}
        if series and rise:
            row = {"provider": state.provider} | headroom.row(state, now) | _lately(state, pace(series, now), now)
            placed = {at: round(value, 6) for at, value in rise.items() if value is not None}
            found.append(Limit(row, placed, _points(series, edges)))
    return found


def _since(readings: Sequence[Reading], since: int) -> list[Reading]:
    """The readings of a span, and of each limit the last before it, which tells what was used until then.

    10,000 readings take 40 ms to put in order, those of a day 3.
    """
    before: dict[Key, Reading] = {}
    for one in readings:
        held = before.get(one.key)
        if one.at < since and (held is None or one.at > held.at):
            before[one.key] = one
    return [*before.values(), *(one for one in readings if one.at >= since)]


def _points(one: Series, edges: Sequence[int]) -> list[tuple[int, float | None]]:
    """The readings within the edges, with a hole between two windows."""
    found: list[tuple[int, float | None]] = []
    for window in one.windows:
        inside: list[tuple[int, float | None]] = [(at, used) for at, used in window.points if edges[0] <= at < edges[-1]]
        if inside:
            found += [*([(inside[0][0], None)] if found else []), *inside]
    return found


def _lately(state: headroom.State, lately: Pace | None, now: int) -> dict[str, Any]:
    """The pace, and where it leads where that means something: the window is open, and runs out before its reset."""
    if lately is None or state.used is None:
        return {"used_per_hour": None}
    found: dict[str, Any] = {"used_per_hour": round(lately.per_hour, 6), "pace_minutes": lately.minutes}
    if state.used < 1 and state.resets_at is not None and lately.per_hour > 0:
        left = round((1 - state.used) / lately.per_hour * HOUR_MS)
        told: dict[str, Any] = {"runs_out_before_reset": now + left < state.resets_at}
        if told["runs_out_before_reset"]:
            told |= {"runs_out_at": when.stamp(now + left), "runs_out_in": headroom.duration(left)}
        found["at_this_pace"] = told | {"note": STRAIGHT}
    return found
