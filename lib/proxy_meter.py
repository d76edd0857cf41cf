"""Counts beside the passage: in slices of a few milliseconds, the first at once, the others when there is time.

Whatever a slice meets ends the counting of its own exchange; the bytes have passed already.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tokenops import wire_body
from tokenops.proxy_exchange import Exchange

# So many bytes of one exchange may wait to be counted, and so many of all exchanges.
MOST_WAITING, MOST_OF_ALL = 4 << 20, 32 << 20


class Meter:
    """What is left to count of one exchange, in order."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.work: collections.deque[tuple[Iterator[None], int]] = collections.deque()
        self.waiting = 0  # bytes
        self.ended: Ended | None = None  # what is due once all is counted

    def take(self, slices: Iterator[None], size: int) -> bool:
        """Count what came; whether some of it is left and nobody knows yet."""
        if not self.work and not self._advance(slices):
            return False
        self.work.append((slices, size))
        self.waiting += size
        if self.waiting > MOST_WAITING:
            self.drop(wire_body.TOO_LARGE)
        return len(self.work) == 1

    def step(self) -> bool:
        """Do one slice of the work; whether there is more."""
        if self.work and not self._advance(self.work[0][0]):
            _, size = self.work.popleft()
            self.waiting -= size
        return bool(self.work)

    def drop(self, reason: str) -> None:
        """Count no more of this exchange."""
        self.exchange.give_up(reason)
        self.work.clear()
        self.waiting = 0

    def _advance(self, slices: Iterator[None]) -> bool:
        """Do the next slice; whether there is more."""
        if self.exchange.lost:
            return False
        try:
            next(slices)
        except StopIteration:
            return False
        except Exception as error:
            self.exchange.give_up(f"metering failed: {type(error).__name__}")
            return False
        return True


class Ended(NamedTuple):
    """An exchange that is over: when, and what cut it short."""

    exchange: Exchange
    now: int
    error: str


class Backlog:
    """The exchanges of which something is left to count: one slice of one of them at a time.

    `later` calls a function when others have had their turn; `done` takes an exchange that is over and counted.
    """

    def __init__(self, later: Callable[[Callable[[], None]], object], done: Callable[[Ended], None]) -> None:
        self.later, self.done = later, done
        self.meters: collections.deque[Meter] = collections.deque()

    def add(self, meter: Meter) -> None:
        """Count the rest of this one, too."""
        self.meters.append(meter)
        if sum(each.waiting for each in self.meters) > MOST_OF_ALL:
            meter.drop(wire_body.TOO_LARGE)
        if len(self.meters) == 1:
            self.later(self._turn)

    def end(self, meter: Meter, ended: Ended) -> None:
        """An exchange is over; what is left of it is still counted."""
        if meter.work:
            meter.ended = ended
        else:
            self.done(ended)

    def _turn(self) -> None:
        self._slice()
        if self.meters:
            self.later(self._turn)

    def _slice(self) -> None:
        meter = self.meters.popleft()
        if meter.step():
            self.meters.append(meter)
        elif meter.ended is not None:
            self.done(meter.ended)

    def finish(self) -> None:
        """Count all that is left, at the end."""
        while self.meters:
            self._slice()
