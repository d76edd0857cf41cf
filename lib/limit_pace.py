"""Computes how fast a window is used up, from the vendor's own readings; nothing is estimated from tokens.

A rise belongs to the span in which it was read. If it may have happened before (after a gap between polls, or before the
first reading), it belongs to no span, and that span is unknown. A span without a reading is unknown too.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenops import headroom, limit_belief, limit_windows, when
from tokenops.events import Event
from tokenops.limit_windows import MINUTE, Key, Point, Reading, Series, Window

# After a longer gap between polls the use in it is unknown.
SILENCE_MS = 20 * MINUTE
# Readings from so long before the span are used too, to recognise a repeated old number.
NEAR_MS = 6 * 60 * MINUTE
# The span of a pace: an hour, or a day for windows longer than a day.
HOUR_MS, LONG_MINUTES = 60 * MINUTE, 1440
STRAIGHT = "a straight line through recent use; tok-budget has a tested forecast"


class Pace(NamedTuple):
    """The share of a window used per hour, over the last `minutes`."""

    per_hour: float
    minutes: int


def rises(series: Series, edges: Sequence[int]) -> dict[int, float | None]:
    """Number of a span (from one edge to the next) -> the rise in it; None if the rise may belong elsewhere."""
    result: dict[int, float | None] = {}
    for number, window in enumerate(series.windows):
        is_continuous = bool(number) and not series.polled  # readings come with use, so a gap before means no use
        before = Point(window.starts_at, 0.0)
        for reading in window.points:
            at = bisect.bisect_right(edges, reading.at) - 1
            if 0 <= at < len(edges) - 1:
                near = before.at >= edges[at] or reading.at - before.at <= SILENCE_MS
                placed = is_continuous or near or reading.used == before.used
                sum_so_far = result.get(at, 0.0)
                result[at] = None if sum_so_far is None or not placed else sum_so_far + reading.used - before.used
            before, is_continuous = reading, not series.polled
    return result


def pace(series: Series, now: int) -> Pace | None:
    """How fast the open window was used recently; None with too few readings."""
    window = limit_windows.open_window(series, now)
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
    end, start = (last.at, base.at) if series.polled else (now, max(base.at, now - span))
    if end - start < span // 4:
        return None
    return Pace((last.used - base.used) * HOUR_MS / (end - start), (end - start) // MINUTE)


def _base(window: Window, readings: Sequence[Point], since: int) -> Point:
    """The use at a moment: the last reading before it, 0 if the window began later, else the first reading."""
    earlier = [reading for reading in readings if reading.at <= since]
    if earlier:
        return earlier[-1]
    return Point(window.starts_at, 0.0) if window.starts_at >= since else readings[0]


def paces(readings: Sequence[Reading], now: int) -> dict[Key, Pace]:
    """The pace of each limit that has one."""
    recent = limit_windows.series(_from_moment(readings, now - when.DAY - NEAR_MS))
    result = {series.key: pace(series, now) for series in recent}
    return {key: lately for key, lately in result.items() if lately}


class Limit(NamedTuple):
    """A window with readings: its state now, its rise in each span as far as known, and its readings."""

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
    """Each window with a reading within the edges, of a provider ("": all) and for a model ("": any)."""
    mine = (reading for reading in readings if provider in ("", reading.key.provider))
    believed = limit_belief.belief(mine, now)
    chosen = believed.readings
    recent = _from_moment(chosen, min(edges[0], now - when.DAY) - NEAR_MS)
    series_by_key = {each.key: each for each in limit_windows.series(recent)}
    result = []
    for state in headroom.states_of(believed, now):
        series = series_by_key.get(Key(state.provider, state.account, state.window, state.scope))
        rise = rises(series, edges) if series and (not model or headroom.applies(state, model)) else {}
        if series and rise:
            row = {"provider": state.provider} | headroom.row(state, now) | _lately(state, pace(series, now), now)
            placed = {at: round(value, 6) for at, value in rise.items() if value is not None}
            result.append(Limit(row, placed, _points(series, edges)))
    return result


def _from_moment(readings: Sequence[Reading], since: int) -> list[Reading]:
    """The readings since a moment, and of each limit the last one before it, for the use until then.

    Sorting 10,000 readings takes 40 ms, those of a day 3.
    """
    before: dict[Key, Reading] = {}
    for reading in readings:
        previous = before.get(reading.key)
        if reading.at < since and (previous is None or reading.at > previous.at):
            before[reading.key] = reading
    return [*before.values(), *(reading for reading in readings if reading.at >= since)]


def _points(series: Series, edges: Sequence[int]) -> list[tuple[int, float | None]]:
    """The readings within the edges, with a gap between two windows."""
    points: list[tuple[int, float | None]] = []
    for window in series.windows:
        inside: list[tuple[int, float | None]] = [(at, used) for at, used in window.points if edges[0] <= at < edges[-1]]
        if inside:
            points += [*([(inside[0][0], None)] if points else []), *inside]
    return points


def _lately(state: headroom.State, lately: Pace | None, now: int) -> dict[str, Any]:
    """The pace, and what follows from it if the window is open: whether and when it runs out before its reset."""
    if lately is None or state.used is None:
        return {"used_per_hour": None}
    row: dict[str, Any] = {"used_per_hour": round(lately.per_hour, 6), "pace_minutes": lately.minutes}
    if state.used < 1 and state.resets_at is not None and lately.per_hour > 0:
        left = round((1 - state.used) / lately.per_hour * HOUR_MS)
        straight: dict[str, Any] = {"runs_out_before_reset": now + left < state.resets_at}
        if straight["runs_out_before_reset"]:
            straight |= {"runs_out_at": when.stamp(now + left), "runs_out_in": when.duration(left)}
        row["at_this_pace"] = straight | {"note": STRAIGHT}
    return row
