"""TokenOps: count, price and forecast what AI coding agents spend.

A flat package of pure functions behind the commands in bin/. Modules import downwards only; docs/architecture.md shows
the order.
"""

# The part of `signal` in C: the rest takes 5 ms to import, in which Ctrl-C would print a traceback.
import _signal as signal  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
import gc
import os
import sys
import types
from typing import Any

__version__ = "0.1.0"


def end_silently_at_interrupt() -> None:
    """Let Ctrl-C end this process at once and without a traceback, unless its caller chose otherwise (nohup, `&`)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Inspect(types.ModuleType):
    """Stands for the module `inspect` until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks of a module
            raise AttributeError(name)
        if sys.modules.get("inspect") is self:
            del sys.modules["inspect"]
        import inspect

        self.__dict__.update(vars(inspect))
        return getattr(inspect, name)


# A command; other programs that import us keep their handler and their garbage collector.
if os.path.basename(getattr(sys, "argv", [""])[0]).startswith("tok"):
    end_silently_at_interrupt()  # also while a command still imports
    # orjson imports dataclasses, which imports inspect: 6 ms of each start, and most commands use nothing of it.
    sys.modules.setdefault("inspect", _Inspect("inspect"))
    gc.disable()  # collections while modules are imported take 3 ms and find nothing; cli.run decides for the command
