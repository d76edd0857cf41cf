"""Runs a command whose n-th call that changes a file fails, or ends the process: for tests/test_crashes.py.

    python tests/faults.py N fail|kill COMMAND [ARGUMENT...]

A call that writes first writes half of its bytes. The last line of stderr says how many such calls there were; with N = 0
nothing fails.
"""

from __future__ import annotations

import errno
import os
import pathlib
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any

BIN = pathlib.Path(__file__).resolve().parent.parent / "bin"
CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "ftruncate", "utime")


class Faults:
    """Counts the calls, and lets one fail."""

    def __init__(self, number: int, kind: str) -> None:
        self.number, self.kind, self.count = number, kind, 0

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            changes = name != "open" or bool(args[1] & (os.O_CREAT | os.O_TRUNC))
            self.count += changes
            if changes and self.count == self.number:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                if self.kind == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*args, **options)

        return wrapped


def main(number: str, kind: str, command: str, *arguments: str) -> None:
    faults = Faults(int(number), kind)
    path = BIN / command
    sys.path.insert(0, str(BIN))
    for name in CALLS:
        setattr(os, name, faults.wrap(name, getattr(os, name)))
    leave = os._exit

    def end(status: int) -> None:
        sys.stderr.write(f"{faults.count}\n")
        sys.stderr.flush()
        leave(status)

    os._exit = end  # type: ignore[assignment]
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
