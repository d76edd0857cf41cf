"""Shows how far long work is, on one line of the terminal that stderr is: its share, its size, and the time left.

The line appears after half a second, changes at most ten times a second, and is erased at the end. Ctrl-C still ends the
process at once; if the work leaves something behind, a line says first what is kept.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from tokenops import chart_text, show, workers

_AFTER_S, _EVERY_S = 0.5, 0.1
_BAR = 16
_USUAL = 80  # columns, of a terminal that does not say how many it has
# A terminal that is narrower shows no bar.
_NARROW = 60


class Line(workers.Progress):
    """A line about one piece of work. `name`: of the command."""

    wants_total = True

    def __init__(self, name: str, what: str, unit: str) -> None:
        self.title, self.unit = f"{name}: {what}", unit
        self.done = self.total = 0
        self.begin = time.monotonic()
        self.due = self.begin + _AFTER_S
        self.shown = 0  # columns on the terminal

    def expect(self, size: int) -> None:
        """So much more is to be done."""
        self.total += size
        self._draw()

    def __call__(self, size: int) -> None:
        """So much more is done."""
        self.done += size
        self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + _EVERY_S
        columns = _columns()
        bar = columns >= _NARROW and "utf" in (sys.stderr.encoding or "").lower()
        line = text(self.title, self.done, self.total, now - self.begin, self.unit, bar)[: columns - 1]
        _write(f"\r{line}{' ' * (self.shown - len(line))}")
        self.shown = len(line)

    def erase(self) -> None:
        """Leave the terminal's line as empty as it was."""
        if self.shown:
            _write(f"\r{' ' * self.shown}\r")
            self.shown = 0


def _columns() -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL
    return _USUAL


def _write(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line)
        sys.stderr.flush()


def text(title: str, done: int, total: int, seconds: float, unit: str, bar: bool) -> str:
    """The line: `reading  ████░░░░  25 %  1.0 of 4.0 GB  12 s left`; without a total, only how much is done."""
    if total <= 0:
        return f"{show.safe(title)}  {_size(done, unit)}"
    share = min(done / total, 1.0)
    parts = [show.safe(title), *([chart_text.gauge(share, _BAR)] if bar else []), f"{int(100 * share):2} %"]
    parts.append(f"{_size(min(done, total), unit)} of {_size(total, unit)}")
    if share:
        parts.append(f"{_time(seconds * (1 - share) / share)} left")
    return "  ".join(parts)


def _size(count: int, unit: str) -> str:
    if unit != "bytes":
        return f"{count:,} {unit}" if unit else f"{count:,}"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _time(seconds: float) -> str:
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def line_for(name: str, what: str, unit: str, kept: str) -> Iterator[Line]:
    """A line for the work that the block does. `kept`: what is there after Ctrl-C, as the end of a sentence."""
    line = Line(name, what, unit)
    owner, before = os.getpid(), signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> Any:
        if os.getpid() == owner:  # each of its workers gets the signal too
            line.erase()
            if kept:
                _write(f"{name}: interrupted; {kept}\n")
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)

    takes_over = before is signal.SIG_DFL  # else the command has a way of its own to end
    with contextlib.suppress(ValueError):  # not in the main thread
        if takes_over:
            signal.signal(signal.SIGINT, stop)
    try:
        yield line
    finally:
        line.erase()
        with contextlib.suppress(ValueError):
            if takes_over:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
