"""TokenOps: count, price and forecast what AI coding agents spend.

A flat package of pure functions behind the commands in bin/. Modules import downwards only; docs/architecture.md shows
the order.
"""

# The part of `signal` in C: the rest takes 5 ms to import, in which Ctrl-C would print a traceback.
import _signal as signal  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
import os
import sys

__version__ = "0.1.0"


def end_silently_at_interrupt() -> None:
    """Let Ctrl-C end this process at once and without a traceback, unless its caller chose otherwise (nohup, `&`)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if os.path.basename(getattr(sys, "argv", [""])[0]).startswith("tok"):
    end_silently_at_interrupt()  # also while a command still imports; other programs that import us keep their handler
