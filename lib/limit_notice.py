"""Decides what to tell a user about the windows of plans: each thing once per window, and what changed at a reset.

Pure: the rows of answers.budget and what was told before go in; notices and what to remember come out.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import headroom, limit_view, when
from tokenops.events import Event

THRESHOLD, FORECAST, RESET, EARLY, ROOM = "threshold", "forecast", "reset", "unexpected_reset", "room_again"
# Shares of a window at which a user is told.
SHARES = (0.8, 0.9, 1.0)
# A share that falls by so much was given back. Less may be a correction of the vendor's.
FALL = 0.05
# Windows whose resets differ by less are the same.
SAME_MS = 5 * 60_000


class Memory(NamedTuple):
    """What is remembered of a window: its reset (0: unknown), the last share used, and what was told."""

    resets_at: int = 0
    used: float = 0.0
    share: float = 0.0  # the highest of SHARES
    warned: bool = False  # of a cutoff that is likely
    out: bool = False  # there was no room

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was told, so that a reset is no news."""
        return not (self.share or self.warned or self.out)


def due(before: Mapping[str, Any], rows: Sequence[Event], now: int) -> tuple[list[tuple[str, Event]], dict[str, Any]]:
    """The notices that are due, each with its window's key in what to remember; that is kept until a window resets.

    A notice has: event, provider, account, window, used, resets_at, headroom_pct, recommended_action, text.
    """
    later = {key: entry for key, entry in before.items() if (memory := _memory(entry)) and memory.resets_at > now}
    news = []
    for row in rows:
        for window in row.get("windows", ()):
            key = "|".join((row["provider"], str(row.get("account", "")), window["window"], str(window.get("scope", ""))))
            memory = _memory(before.get(key)) or Memory()
            events, memory = _step(memory, row, window, now)
            news += [(key, _notice(event, row, window)) for event in events]
            later[key] = list(memory)
    return news, later


def _memory(entry: object) -> Memory | None:
    """What was remembered; None if it is damaged."""
    if not isinstance(entry, list) or len(entry) != len(Memory._fields):
        return None
    kinds = ((int,), (int, float), (int, float), (bool,), (bool,))
    return Memory(*entry) if all(type(value) in kind for value, kind in zip(entry, kinds, strict=True)) else None


def _step(memory: Memory, row: Event, window: Event, now: int) -> tuple[list[str], Memory]:
    """What is new of one window, and what to remember of it."""
    used = limit_view.share(window)
    resets = when.moment(window["resets_at"]) if window.get("resets_at") else 0
    is_out = window.get("action") == headroom.WAIT
    events: list[str] = []
    if used is None:  # it was reset since it was read
        if memory.resets_at and now >= memory.resets_at and not memory.is_quiet:
            return [ROOM if memory.out else RESET], Memory()
        return [], memory
    is_another = bool(memory.resets_at and resets) and abs(resets - memory.resets_at) >= SAME_MS
    is_back = used <= memory.used - FALL
    if is_another or is_back:
        if not memory.is_quiet and not is_out:
            came_early = memory.resets_at > now + SAME_MS
            events.append(ROOM if memory.out else EARLY if came_early else RESET)
        memory = Memory()
    share = max((share for share in SHARES if used >= share), default=0.0)
    if is_out and not memory.out:
        events.append(THRESHOLD)
        share = max(share, SHARES[-1])
    elif share > memory.share:
        events.append(THRESHOLD)
    warned = memory.warned
    is_likely = row["recommended_action"] == headroom.SLOW_DOWN and row.get("reason") != headroom.MOSTLY_USED
    if window.get("binds") and is_likely and not warned:
        if not events:
            events.append(FORECAST)
        warned = True
    return events, Memory(resets or memory.resets_at, used, max(share, memory.share), warned, memory.out or is_out)


_TEXTS = {
    FORECAST: "likely to run out before it resets",
    RESET: "was reset",
    EARLY: "was reset before its time",
    ROOM: "has room again",
}


def _notice(event: str, row: Event, window: Event) -> Event:
    used = limit_view.share(window)
    notice: Event = {"v": 1, "kind": "notice", "event": event, "provider": row["provider"], "account": row.get("account")}
    notice |= {"window": window["window"], "scope": window.get("scope"), "used": used, "resets_at": window.get("resets_at")}
    notice |= {"headroom_pct": row["headroom_pct"], "recommended_action": row["recommended_action"]}
    return {name: value for name, value in notice.items() if value is not None}


def text(notice: Event, now: int, tz: datetime.tzinfo) -> str:
    """A notice as a sentence for people."""
    name = f"{limit_view.account_name(notice)}, {limit_view.window_name(notice)}"
    share = f"{round(100 * notice['used'])}% used" if "used" in notice else "not read since"
    what = _TEXTS.get(notice["event"])
    is_news_of_reset = notice["event"] in (ROOM, RESET)
    resets = f"; resets {limit_view.moment(notice['resets_at'], now, tz)}" if "resets_at" in notice else ""
    return f"{name}: {f'{what}, {share}' if what else share}{'' if is_news_of_reset else resets}"
