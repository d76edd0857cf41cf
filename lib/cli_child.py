"""Runs one program in this process's place: it gets the terminal, the signals, and streams as they are named."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from tokenops import programs, session, show

if TYPE_CHECKING:
    import subprocess

# Signals that end a program. Those of the terminal reach the agent by themselves.
_PASSED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


class Child(NamedTuple):
    """How a program ended."""

    code: int  # its exit status, or the negative number of the signal that ended it
    is_stopped: bool  # whether somebody ended it by a signal

    @property
    def status(self) -> int:
        """Its exit status as a shell gives it."""
        return 128 - self.code if self.code < 0 else self.code


def child(
    command: Sequence[str],
    attend: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    piped: bool = False,
) -> Child:
    """Run a program to its end, in this process group, and pass signals on to it. Raises Fault.

    `attend` gets the process once it runs. `piped`: its input and its output are pipes, not those of this process.
    """
    import subprocess

    name = command[0]
    path = os.path.abspath(name) if os.path.dirname(name) else name
    file = programs.path_of(path, os.environ.get("PATH"))
    if not file:
        raise session.Fault(f"{show.safe(name)}: no such program on the PATH; check its name")
    caught: list[int] = []  # signals
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if processes and not (number in _OF_TERMINAL and _has_terminal()):
            processes[0].send_signal(number)

    # A signal that our caller ignores (nohup, `&`) stays ignored, here and in the program. Others it gets as usual.
    before = {number: signal.getsignal(number) for number in _PASSED}
    passed = [number for number in _PASSED if before[number] is not signal.SIG_IGN]
    for number in passed:
        signal.signal(number, pass_on)
    pipe = subprocess.PIPE if piped else None
    try:
        process = subprocess.Popen(list(command), executable=file, stdin=pipe, stdout=pipe, bufsize=0)
        early = list(caught)
        processes.append(process)
        for caught_early in early:
            pass_on(caught_early, None)
        attend(process)
        code = process.wait()
    except OSError as error:
        raise session.Fault(f"{show.safe(name)}: {error.strerror}; {session.remedy(error)}") from None
    finally:
        for number in passed:
            signal.signal(number, before[number])
    return Child(code, bool(caught) or -code in _PASSED)


def _has_terminal() -> bool:
    """Whether this process group is the one that its terminal sends Ctrl-C to, so that the program gets it as well."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)
