"""Decides, while something waits for a limit, whether there is room again, and else until when to sleep.

Budget rows and the time in, a verdict out. The time is a wall clock's, asked anew each time, so that a machine that slept,
or a clock that was set, makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokenops import headroom, when
from tokenops.events import Event

ROOM, WAITING, TOO_LONG, UNKNOWN = "room", "wait", "too_long", "unknown"
# A vendor may give a window back, or move its reset: so often is looked for readings in between.
LOOK_MS = 5 * 60_000


class Verdict(NamedTuple):
    """What to do now. `wake`: when to look again (ms), while there is no room. `resets_at`: the latest reset waited for."""

    state: str
    provider: str = ""
    window: str = ""
    scope: str = ""
    headroom_pct: int | None = None
    resets_at: int | None = None
    wake: int = 0


def verdict(rows: Sequence[Event], now: int, least: float, at_most: int, margin: int) -> Verdict:
    """Whether each row has room. `least`: percent of a window that must be left; 0: more than nothing.

    `at_most`: give up if a reset is later than this moment. `margin`: so long after its reset a window is believed (ms).
    """
    if all(row["headroom_pct"] is None and row["recommended_action"] != headroom.WAIT for row in rows):
        return Verdict(UNKNOWN, rows[0]["provider"] if rows else "")
    waits = [(row, window) for row in rows for window in _full(row, least)]
    blocked = [row for row in rows if row["recommended_action"] == headroom.WAIT]
    if not waits and not blocked:
        worst = min((row for row in rows if row["headroom_pct"] is not None), key=lambda row: row["headroom_pct"])
        return Verdict(ROOM, worst["provider"], worst.get("binding_window") or "", headroom_pct=worst["headroom_pct"])
    resets = [(when.moment(window["resets_at"]), row, window) for row, window in waits if window.get("resets_at")]
    ahead = [each for each in resets if each[0] + margin > now]
    if not ahead:  # it has no reset, or one that is over and still no room: only a reading can tell
        row = waits[0][0] if waits else blocked[0]
        window = waits[0][1] if waits else {}
        name = window.get("window") or row.get("binding_window") or ""
        return Verdict(WAITING, row["provider"], name, window.get("scope", ""), row["headroom_pct"], None, now + LOOK_MS)
    at, row, window = max(ahead, key=lambda each: each[0])
    reset = row["provider"], window["window"], window.get("scope", ""), row["headroom_pct"], at
    if at + margin > at_most:
        return Verdict(TOO_LONG, *reset)
    return Verdict(WAITING, *reset, wake=min(at + margin, now + LOOK_MS))


def _full(row: Event, least: float) -> list[Event]:
    """The windows of a row that have too little left: those that bind, and those that one would wait for."""
    return [
        window
        for window in row.get("windows", ())
        if window.get("action") == headroom.WAIT
        or (window.get("headroom") is not None and 100 * window["headroom"] < least and window.get("binds"))
    ]


def text(verdict: Verdict, now: int, where: str) -> str:
    """What is waited for, in words. `where`: a local time for the reset."""
    limit = (
        f"{when.window_text(verdict.window, verdict.scope)} of {verdict.provider}" if verdict.window else verdict.provider
    )
    if verdict.resets_at is None:
        return f"{limit}: no room, and its reset is not known; looking every {LOOK_MS // 60_000} minutes"
    return f"{limit} resets at {where}, in {when.duration(max(verdict.resets_at - now, 0))}"


def countdown(ms: int) -> str:
    """How long it still is, for a line that changes: to the minute, and in the last minutes to the second."""
    return when.duration(ms) if ms >= 120_000 else f"{max(ms, 0) // 1000}s"


def hours_needed(verdict: Verdict, now: int, margin_s: float) -> int:
    """How many hours would be enough."""
    ahead = (verdict.resets_at or now) - now + margin_s * 1000
    return -(-int(ahead) // 3_600_000)
