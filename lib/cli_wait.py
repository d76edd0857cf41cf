"""Waits at a terminal for a limit: sleeps by the clock on the wall, and asks the vendor before work goes on."""

from __future__ import annotations

import os
import sys
import time

from tokenops import cli, limit_wait, programs, show

NAP_S = 1.0
# How long tok-poll may take.
POLL_S = 120.0


def nap(verdict: limit_wait.Verdict, live: bool, color: bool = False) -> None:
    """Sleep until it is time to look again, by the clock on the wall; `live`: show how long it is, if a terminal can."""
    live = live and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    while (left := verdict.wake - cli.now()) > 0:
        if live and verdict.resets_at:
            ahead = show.paint(f"{limit_wait.countdown(verdict.resets_at - cli.now())} left; Ctrl-C ends", "dim", color)
            sys.stderr.write(f"\r\x1b[K{ahead}")
            sys.stderr.flush()
        time.sleep(min(left / 1000, NAP_S))
    if live:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def ask_vendor(provider: str) -> bool:
    """Have tok-poll ask the vendor, if the user enabled a source; whether it answered."""
    from tokenops import poll_sources

    settings = cli.settings()
    names = [
        name
        for name, poller in poll_sources.pollers().items()
        if poller.reads_limits
        and poller.provider == provider
        and settings.get("vendor_usage", poller.section, "enabled") is True
    ]
    if not names:
        return False
    folder = os.path.dirname(os.path.abspath(cli.Command.path))
    command = [sys.executable, os.path.join(folder, "tok-poll"), "--jitter", "0", *names]
    try:
        ended = programs.run(command, POLL_S)
    except OSError as error:
        cli.say(f"tok-poll: {error.strerror}")
        return False
    sys.stderr.write(ended.err.decode(errors="replace"))
    return ended.status == 0
