"""Writes the events of exchanges to the log in a thread of its own, at most a third of a second behind.

That thread also counts ended exchanges. While the log cannot be written, events wait in memory, up to a limit; stderr
gets a line when this begins and when it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tokenops import jsonl, store, when
from tokenops.events import Event
from tokenops.proxy_exchange import Exchange

FLUSH_S = 0.3
_RETRY_S = 5.0
_MOST_WAITING = 200_000


class Ended(NamedTuple):
    """An exchange that is over: when, and what cut it short."""

    exchange: Exchange
    now: int
    error: str


class Writer:
    """Takes in events and exchanges that ended. All methods but `_write` and `_is_news` run in the loop's thread."""

    def __init__(self, folder: str, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.ended: list[Ended] = []
        self.events: list[Event] = []
        self.unwritten: list[bytes] = []  # only the thread's, while it is busy
        self.thread = ThreadPoolExecutor(1)
        self.busy: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.meters: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self.used: dict[tuple[Any, ...], tuple[float, str]] = {}
        self.failing = False
        self.dropped = 0  # while it could not be written

    def add(self, events: list[Event]) -> None:
        """Take in events."""
        self.events += events
        self._schedule()

    def finish(self, ended: Ended) -> None:
        """Take in an exchange."""
        self.ended.append(ended)
        self._schedule()

    def _schedule(self, seconds: float = FLUSH_S) -> None:
        if self.timer is None and self.busy is None:
            self.timer = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        self.timer = None
        ended, self.ended = self.ended, []
        events, self.events = self.events, []
        self.busy = asyncio.get_running_loop().run_in_executor(self.thread, self._write, ended, events)
        self.busy.add_done_callback(self._after_write)

    def _write(self, ended: list[Ended], events: list[Event]) -> None:
        """Count what ended, and write all there is. Raises OSError."""
        for exchange, now, error in ended:
            events += exchange.finish(now, error)
        self.unwritten += [jsonl.line_of(event) for event in events if event["kind"] != "meter" or self._is_news(event)]
        if self.unwritten:
            store.append(self.folder, self.unwritten)
            self.unwritten = []

    def _is_news(self, meter: Event) -> bool:
        """Whether a meter says something new. A metered key's limits per minute are news only if they bind."""
        key = tuple(meter.get(name) for name in ("provider", "account", "window", "scope"))
        reading = (meter.get("used"), meter.get("status"), meter.get("resets_at"), meter["ts"][:15])
        minutes = meter.get("window_minutes")
        if minutes is not None and minutes < 60 and meter.get("used", 0) < 0.8 and "status" not in meter:
            return False
        if self.meters.get(key) == reading:
            return False
        self.meters[key] = reading
        self.used[key] = (meter.get("used", 1.0 if meter.get("status") == "rejected" else 0.0), meter.get("resets_at", "9"))
        return True

    def headroom(self, provider: str) -> float | None:
        """The least headroom of a provider's windows that are not over, as the answers so far said; None if unknown."""
        now = when.stamp(time.time_ns() // 1_000_000)
        used = [share for key, (share, until) in list(self.used.items()) if key[0] == provider and until > now]
        return max(0.0, 1 - max(used)) if used else None

    def _after_write(self, done: asyncio.Future[None]) -> None:
        self.busy = None
        error = done.exception()
        if error is None:
            if self.failing:
                lost = f"the oldest {self.dropped:,} events did not fit into memory and are lost" if self.dropped else ""
                self.say(f"the log can be written again; {lost or 'nothing was lost'}")
            self.failing, self.dropped = False, 0
        else:
            self.dropped += max(len(self.unwritten) - _MOST_WAITING, 0)
            del self.unwritten[:-_MOST_WAITING]
            if not self.failing:
                self.say(f"{self.folder}: {error}; events are kept in memory until it can be written")
            self.failing = True
        if self.ended or self.events or self.unwritten:
            self._schedule(_RETRY_S if self.failing else FLUSH_S)

    async def close(self) -> None:
        """Write all that waits."""
        if self.timer is not None:
            self.timer.cancel()
        while self.busy is not None:
            await asyncio.wait([self.busy])
            await asyncio.sleep(0)
        if self.timer is not None:
            self.timer.cancel()
        try:
            self._write(self.ended, self.events)
        except OSError as error:
            self.say(f"{self.folder}: {error}; {len(self.unwritten)} events are lost")
        self.thread.shutdown()
