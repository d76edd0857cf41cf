"""Writes the events of exchanges to the log in a thread of its own, at most a third of a second behind.

What ended is counted there, too. While the log cannot be written, events wait in memory, up to a bound, and then in a file
beside the log; a line on stderr says when that begins, and one when it is over. What waits at the end goes into such a file
as well, and the next proxy writes it to the log.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tokenops import datadir, fields, jsonl, machines, store, store_waiting, when
from tokenops.events import Event
from tokenops.proxy_meter import Ended

FLUSH_S = 0.3
_RETRY_S = 5.0
# How long a batch waits for another process that holds the log's lock; no batch after it waits, until one was written.
_PATIENCE_S, _LOOK_S = 2.0, 0.02
# So many bytes of events wait in memory; then they go into a file.
_MOST_WAITING = 16 << 20
_MOST_METERS = 1000  # readings are remembered, to write down only what is new
WAITING = store_waiting.FOLDER


class Writer:
    """Takes in events and exchanges that ended. All methods but `_write` and `_is_news` run in the loop's thread."""

    def __init__(self, folder: str, say: Callable[[str], None], owner: machines.Owner = machines.NOBODY) -> None:
        self.folder, self.say, self.owner = folder, say, owner
        self.ended: list[Ended] = []
        self.events: list[Event] = []
        self.unwritten: list[bytes] = []  # only the thread's, while it is busy
        self.thread = ThreadPoolExecutor(1)
        self.busy: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.meters: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self.used: dict[tuple[Any, ...], tuple[float, str]] = {}
        self.failing = False
        self.lost = 0  # events that neither memory nor a file could hold
        self.spilled = False  # some events wait in files

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

    def _write(self, ended: list[Ended], rows: list[Event]) -> None:
        """Count what ended, and write all there is. Raises OSError."""
        for exchange, now, error in ended:
            rows += exchange.finish(now, error)
        self.unwritten += [jsonl.line_of(event) for event in rows if event["kind"] != "meter" or self._is_news(event)]
        if self.unwritten:
            self._await_lock()
            store.append(self.folder, self.unwritten, owner=self.owner)
            self.unwritten = []

    def _await_lock(self) -> None:
        """Wait a little for another process that writes. Raises OSError if it goes on for too long."""
        until = time.monotonic() + (0 if self.failing else _PATIENCE_S)
        while True:
            with datadir.lock(self.folder, wait=False) as is_free:
                if is_free:
                    return
            if time.monotonic() >= until:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the log's lock")
            time.sleep(_LOOK_S)

    def _spill(self) -> None:
        """Put what waits into a file beside the log. Raises OSError."""
        store_waiting.keep(self.folder, self.unwritten)
        self.unwritten, self.spilled = [], True

    def _take_spilled(self) -> None:
        """Write to the log what an earlier time could not. Raises OSError."""
        store_waiting.take(self.folder, owner=self.owner)
        self.spilled = False

    def _is_news(self, meter: Event) -> bool:
        """Whether a meter says something new. A metered key's limits per minute are news only if they bind."""
        if fields.fault(meter):
            return False
        key = tuple(meter.get(name) for name in ("provider", "account", "window", "scope"))
        reading = (meter.get("used"), meter.get("status"), meter.get("resets_at"), meter["ts"][:15])
        minutes = meter.get("window_minutes")
        if minutes is not None and minutes < 60 and meter.get("used", 0) < 0.8 and "status" not in meter:
            return False
        if self.meters.get(key) == reading:
            return False
        if len(self.meters) >= _MOST_METERS and key not in self.meters:  # names of windows are a vendor's, and foreign
            oldest = next(iter(self.meters))
            self.used.pop(oldest, None)
            del self.meters[oldest]
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
                lost = f"{self.lost:,} events did not fit anywhere and are lost" if self.lost else ""
                self.say(f"the log can be written again; {lost or 'nothing was lost'}")
            self.failing, self.lost = False, 0
            if self.spilled:
                self.busy = asyncio.get_running_loop().run_in_executor(self.thread, self._take_spilled)
                self.busy.add_done_callback(self._after_spilled)
                return
        else:
            if not self.failing:
                self.say(f"{self.folder}: {_reason(error)}; events are kept in memory, then in {WAITING}/, until it can")
            self.failing = True
            self._bound()
        if self.ended or self.events or self.unwritten:
            self._schedule(_RETRY_S if self.failing else FLUSH_S)

    def _after_spilled(self, done: asyncio.Future[None]) -> None:
        self.busy = None
        if (error := done.exception()) is not None:
            self.say(f"{os.path.join(self.folder, WAITING)}: {_reason(error)}; the next tok-proxy tries again")
            self.spilled = False
        if self.ended or self.events or self.unwritten:
            self._schedule()

    def _bound(self) -> None:
        """Keep no more in memory than may wait there."""
        if sum(map(len, self.unwritten)) <= _MOST_WAITING:
            return
        try:
            self._spill()
        except OSError:
            half = len(self.unwritten) // 2
            self.lost += half
            del self.unwritten[:half]

    def start(self) -> None:
        """Write what an earlier proxy could not."""
        self.spilled = True
        self._schedule()

    async def close(self) -> None:
        """Write all that waits, or put it into a file. It ends within seconds, whoever holds the log's lock."""
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
            count = len(self.unwritten)
            try:
                self._spill()
                self.say(
                    f"{self.folder}: {_reason(error)}; {count:,} events are in {WAITING}/, for the next tok-proxy to write"
                )
            except OSError:
                self.say(f"{self.folder}: {_reason(error)}; {count:,} events are lost")
        self.thread.shutdown()


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
