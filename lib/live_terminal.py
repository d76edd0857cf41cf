"""Shows tok-top's screen in a terminal with curses: reads keys, draws lines, and restores the terminal however it ends.

All else is in `live_sessions` (what is shown) and `live_screen` (how it looks and what a key does).
"""

from __future__ import annotations

import contextlib
import locale
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from tokenops import session, show

if TYPE_CHECKING:
    import curses

    from tokenops import live_sessions
    from tokenops.live_screen import View

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PAUSED_S = 3600.0
_COLORS = {"good": "GREEN", "warn": "YELLOW", "bad": "RED", "accent": "CYAN"}
# What stands for bars, charts and marks where the encoding of the terminal lacks them.
_PLAIN = dict(zip("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉░▒·…", "_.--==#########.+..", strict=True))


class Ended(BaseException):
    """A signal that ends the program; its number is the argument."""


def check() -> None:
    """Raise Fault if this terminal cannot show a screen."""
    instead = "in a pipe or a script, use tok-cost --by session --since today, or tok-budget"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise session.Fault(f"standard input and output are not a terminal; {instead}")
    if os.environ.get("TERM", "dumb") in ("", "dumb"):
        raise session.Fault(f"TERM is {os.environ.get('TERM', 'not set')}, which cannot show a screen; {instead}")
    try:
        import curses
    except ImportError:
        raise session.Fault(
            "this Python has no curses (on Windows, use WSL or pip install windows-curses); tok-budget --watch works without"
        ) from None
    try:
        curses.setupterm(fd=sys.stdout.fileno())
    except curses.error as error:
        raise session.Fault(f"TERM is {os.environ['TERM']}: {error}; set TERM to xterm-256color, for example") from None


def run(live: live_sessions.Live, opened: Callable[[str], list[str]], view: View, every: float) -> int:
    """Show the screen until the user quits; the number of the signal that ended it, else 0."""
    import curses

    for name in ("", "C.UTF-8"):  # ssh may bring the name of a locale that is not installed here
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            break
    sys.__stdout__ = sys.stdout  # type: ignore[misc,assignment]  # curses asks the old one, whose buffer show.Output took
    curses.set_escdelay(25)

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        curses.wrapper(lambda window: _Screen(window, live, opened, view, every).loop())
    except Ended as ended:
        return int(ended.args[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


class _Screen:
    """The loop: refresh when it is time, draw, wait for a key."""

    def __init__(
        self,
        window: curses.window,
        live: live_sessions.Live,
        opened: Callable[[str], list[str]],
        view: View,
        every: float,
    ) -> None:
        self.window, self.live, self.opened, self.view, self.every = window, live, opened, view, every
        self.styles = dict(_styles())
        self.encoding = locale.nl_langinfo(locale.CODESET) or "ascii"  # as curses has it
        self.plain: dict[int, str] = {} if "utf" in self.encoding.lower() else str.maketrans(_PLAIN)
        self.keys = dict(_keys())
        self.snapshot = live.blank()

    def loop(self) -> None:
        """Run until a key or a signal ends it."""
        self._draw()
        due = 0.0
        while True:
            if not self.view.is_paused and time.monotonic() >= due:
                self._refresh()
                due = time.monotonic() + self.every
            self._draw()
            key = self._key(_PAUSED_S if self.view.is_paused else max(due - time.monotonic(), 0.0))
            if key and self._act(key):
                return

    def _refresh(self) -> None:
        try:
            self.snapshot = self.live.refresh()
        except session.Fault as fault:
            self.snapshot = self.snapshot._replace(note=str(fault))
        except OSError as error:
            self.snapshot = self.snapshot._replace(note=f"{error.filename or 'the log'}: {error.strerror}")
        if self.snapshot.note:
            self.view = self.view._replace(note=self.snapshot.note)

    def _act(self, key: str) -> bool:
        """Do what a key asks for; whether that is to quit."""
        from tokenops import live_screen

        height = self.window.getmaxyx()[0]
        was_paused = self.view.is_paused
        self.view, effect = live_screen.press(self.view, key, self.snapshot, height)
        if effect == live_screen.OPEN:
            try:
                text = tuple(self.opened(self.view.selected))
                self.view = self.view._replace(mode=live_screen.TRACE, text=text, top=0)
            except session.Fault as fault:
                self.view = self.view._replace(note=str(fault))
        if was_paused and not self.view.is_paused:
            self._refresh()
        return effect == live_screen.QUIT

    def _key(self, seconds: float) -> str:
        """The next key; "" if none comes in time."""
        import curses

        self.window.timeout(min(int(seconds * 1000) + 1, 1 << 30))
        try:
            key = self.window.get_wch()
        except curses.error:
            if not os.isatty(0):
                raise Ended(signal.SIGHUP) from None  # the terminal is gone
            return ""
        if key == "\x0c":
            self.window.redrawwin()
            return ""
        return self.keys.get(key, key if isinstance(key, str) else "")

    def _draw(self) -> None:
        """Draw the screen; curses sends only what changed."""
        import curses

        from tokenops import live_screen

        height, width = self.window.getmaxyx()
        self.window.erase()
        for y, line in enumerate(live_screen.lines(self.snapshot, self.view, width, height)):
            x = 0
            for style, piece in show.segments(line):
                text = piece.translate(self.plain).encode(self.encoding, "replace").decode(self.encoding)
                with contextlib.suppress(curses.error):  # the cursor cannot go beyond the last cell
                    self.window.addstr(y, x, text, self.styles.get(style, 0))
                x += show.text_width(piece)
        self.window.refresh()


def _styles() -> Iterator[tuple[str, int]]:
    """What curses knows each style by."""
    import curses

    with contextlib.suppress(curses.error):
        curses.curs_set(0)
    yield from (("bold", curses.A_BOLD), ("dim", curses.A_DIM), ("reverse", curses.A_REVERSE))
    if os.environ.get("NO_COLOR") or not curses.has_colors():
        return
    curses.use_default_colors()
    for number, (style, name) in enumerate(_COLORS.items(), 1):
        curses.init_pair(number, getattr(curses, f"COLOR_{name}"), -1)
        yield style, curses.color_pair(number)


def _keys() -> Iterator[tuple[int | str, str]]:
    """What each key is called."""
    import curses

    yield from (("\n", "enter"), ("\r", "enter"), ("\x1b", "escape"), ("\x7f", "backspace"), ("\b", "backspace"))
    for name, key in (
        ("UP", "up"),
        ("DOWN", "down"),
        ("PPAGE", "pgup"),
        ("NPAGE", "pgdn"),
        ("HOME", "home"),
        ("END", "end"),
        ("ENTER", "enter"),
        ("BACKSPACE", "backspace"),
    ):
        yield getattr(curses, f"KEY_{name}"), key
