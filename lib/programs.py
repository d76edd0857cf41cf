"""Finds and runs other programs, but never one that lies in the working directory.

A repository or an unpacked archive may hold a file called `git`. An empty or relative entry of PATH leads to it, so only
the absolute entries count, here and in the programs that are run.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess


class Ended(NamedTuple):
    """How a program ended: its exit status, and the bytes of its two streams."""

    status: int
    out: bytes
    err: bytes


def safe_path(path: str | None) -> str:
    """The absolute entries of a PATH; the system's own for None, and for a PATH without any."""
    entries = [entry for entry in (path or "").split(os.pathsep) if os.path.isabs(entry)]
    return os.pathsep.join(entries) or os.pathsep.join(filter(os.path.isabs, os.defpath.split(os.pathsep)))


def path_of(name: str, path: str | None) -> str:
    """The absolute path of a program that a PATH leads to; "" if there is none, or for a relative path."""
    if os.path.dirname(name):
        candidates = [name] if os.path.isabs(name) else []
    else:
        candidates = [os.path.join(folder, name) for folder in safe_path(path).split(os.pathsep)]
    return next((file for file in candidates if os.path.isfile(file) and os.access(file, os.X_OK)), "")


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables for a program of ours to run with: with a safe PATH. git fetches nothing that is missing."""
    return {**variables, "PATH": safe_path(variables.get("PATH")), "GIT_NO_LAZY_FETCH": "1"}


def run(command: list[str], seconds: float, folder: str | None = None, text: bytes = b"") -> Ended:
    """Run a program to its end; `text` is its input. Raises OSError, also if it is not there or not in time."""
    import subprocess  # costs 10 ms at start

    file = path_of(command[0], os.environ.get("PATH"))
    if not file:
        raise FileNotFoundError(errno.ENOENT, "no such program on the PATH", command[0])
    try:
        with _surviving_closed_pipes():
            done = subprocess.run(
                [file, *command[1:]],
                input=text,
                capture_output=True,
                timeout=seconds,
                check=False,
                cwd=folder,
                env=environment(os.environ),
            )
    except subprocess.TimeoutExpired:
        raise TimeoutError(errno.ETIMEDOUT, f"did not end within {seconds:g} s", command[0]) from None
    return Ended(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def _surviving_closed_pipes() -> Iterator[None]:
    """A program may end before it has read all of its input: that ends it, and not us. It gets the usual signals itself."""
    import signal

    try:
        before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    except ValueError:  # another thread than the main one: servers ignore the signal anyway
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)


@contextlib.contextmanager
def process_of(
    command: list[str], source: int | IO[bytes] | None = None, errors: int | IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs while the block does, and is ended with it; its output is a pipe.

    `source` and `errors`: its standard input and error, none if not given. Raises OSError, also if it is not there.
    """
    import subprocess

    file = path_of(command[0], os.environ.get("PATH"))
    if not file:
        raise FileNotFoundError(errno.ENOENT, "no such program on the PATH", command[0])
    nothing = subprocess.DEVNULL
    with subprocess.Popen(
        [file, *command[1:]],
        stdin=nothing if source is None else source,
        stdout=subprocess.PIPE,
        stderr=nothing if errors is None else errors,
        env=environment(os.environ),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def run_shell(command: str, text: bytes, seconds: float) -> tuple[bytes, int | None]:
    """What a shell command of the user prints, and its exit status. After some seconds it is ended with its children: None.

    `text` is its standard input; it need not read it.
    """
    import signal
    import subprocess

    with (
        _surviving_closed_pipes(),
        subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PATH": safe_path(os.environ.get("PATH"))},
        ) as process,
    ):
        try:
            return process.communicate(text, seconds)[0], process.returncode
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return b"", None
