"""Starts our commands as processes, quickly: each is forked from a process in which Python and the libraries are loaded.

A command that is started the plain way spends 80 of its 100 ms of processor on the interpreter and on importing, and the
tests start thousands. Here all is imported once; none of our modules asks for anything when it is imported, and there is no
circle of imports (test_house.py), so that who imports what first does not matter. What a plain start imports is tested in
test_packaging.py. The command is a process of its own with arguments, environment, directory and streams of its own, and
runs the same file.

`understood` takes a line of shell apart if it is nothing but commands of ours and pipes between them. Any other line is
bash's, and so is each whose environment changes how Python or the system's libraries start.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pathlib
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What commands import that is not ours.
LIBRARIES = (
    "_hashlib", "argparse", "ast", "base64", "bisect", "bz2", "codecs", "collections", "concurrent.futures", "contextlib",
    "copy", "csv", "dataclasses", "datetime", "dateutil.parser", "decimal", "difflib", "email.utils", "fcntl", "fractions", "getpass",
    "glob", "gzip", "hashlib", "heapq", "hmac", "inspect", "ipaddress", "itertools", "json", "locale", "lzma", "math",
    "multiprocessing.connection", "operator", "orjson", "pathlib", "platform", "queue", "random", "re", "reprlib",
    "secrets", "select", "selectors", "shlex", "shutil", "socket", "sqlite3", "ssl", "statistics", "string", "struct", "subprocess",
    "tabulate", "tempfile", "textwrap", "threading", "traceback", "types", "typing", "unicodedata", "urllib.parse", "uuid",
    "warnings", "weakref", "yaml", "zlib", "zoneinfo",
)  # fmt: skip
# Modules of ours that need larger libraries than these, each for one command.
LATER = ("__", "agent", "dash", "proxy", "tools")
# Our commands first, then the Python that runs the tests.
PATH = os.pathsep.join((str(ROOT / "bin"), os.path.dirname(sys.executable), "/usr/bin", "/bin"))
# Names in an environment that the command reads itself, after it started.
_STARTS = ("PYTHON", "LC_", "LANG", "LD_", "DYLD_", "GLIBC", "MALLOC", "BASH", "ENV", "OPENSSL", "FAKETIME")
_MEANS_MORE = frozenset("$`*?[]~<>&;(){}#!\n\\")


class Stage(NamedTuple):
    """One command of a pipeline."""

    script: str
    argv: list[str]


def understood(line: str, environment: Mapping[str, str]) -> list[Stage] | None:
    """The commands of a line, or None if bash has to run it."""
    starts = {name: value for name, value in environment.items() if name.startswith(_STARTS)}
    if starts != {"LC_ALL": "C.UTF-8"} or environment.get("PATH") != PATH:
        return None
    plain = shlex.shlex(line, posix=True, punctuation_chars="|")
    plain.whitespace_split, plain.commenters = True, ""
    if _MEANS_MORE & set(_unquoted(line)):
        return None
    try:
        words = list(plain)
    except ValueError:
        return None
    stages: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            stages.append([])
        elif set(word) == {"|"}:
            return None
        else:
            stages[-1].append(word)
    if not all(stage and stage[0].startswith("tok") and (ROOT / "bin" / stage[0]).is_file() for stage in stages):
        return None
    return [Stage(str(ROOT / "bin" / stage[0]), stage) for stage in stages]


def _unquoted(line: str) -> str:
    """A line without what stands between quotation marks; all of it if double ones hold what the shell replaces."""
    rest, quote = "", ""
    for character in line:
        if quote:
            if character == quote:
                quote = ""
            elif quote == '"' and character in "$`\\!":
                return line + character
        elif character in "'\"":
            quote = character
        else:
            rest += character
    return rest


class Starter:
    """A process that starts commands, one pipeline at a time."""

    def __init__(self) -> None:
        mine, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            )
        self._socket, self._answers = mine, mine.makefile("rb")

    def close(self) -> None:
        """End it; its commands have ended."""
        self._answers.close()
        self._socket.close()
        self._process.wait()

    def run(
        self, stages: list[Stage], given: bytes, folder: str, environment: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a pipeline to its end. The status is the last one that is not 0, as with bash's pipefail."""
        pipes = [os.pipe() for _ in range(3)]
        (inner, feed), (output, outward), (error, errors) = pipes
        order = json.dumps([stages, folder, dict(environment)]).encode() + b"\n"
        socket.send_fds(self._socket, [b"\n"], (inner, outward, errors))
        self._socket.sendall(order)
        for end in (inner, outward, errors):
            os.close(end)
        pids = json.loads(self._answers.readline())
        try:
            said = _converse(feed, given, (output, error), seconds)
        except TimeoutError:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
        statuses = json.loads(self._answers.readline())
        status = next((status for status in reversed(statuses) if status), 0)
        return subprocess.CompletedProcess([word for stage in stages for word in stage.argv], status, *said)


def _converse(feed: int, given: bytes, outputs: tuple[int, int], seconds: float) -> list[bytes]:
    """Write what is given into a pipe and read others to their end. Closes all of them."""
    until, rest = time.monotonic() + seconds, memoryview(given)
    pieces: dict[int, list[bytes]] = {output: [] for output in outputs}
    with selectors.DefaultSelector() as ready:
        os.set_blocking(feed, False)
        ready.register(feed, selectors.EVENT_WRITE)
        for output in outputs:
            ready.register(output, selectors.EVENT_READ)
        try:
            while ready.get_map():
                if time.monotonic() > until:
                    raise TimeoutError(f"a command took more than {seconds} s")
                for key, _ in ready.select(1):
                    if key.fd != feed:
                        if not (piece := os.read(key.fd, 65536)):
                            ready.unregister(key.fd)
                        pieces[key.fd].append(piece)
                        continue
                    with contextlib.suppress(BlockingIOError):
                        try:
                            rest = rest[os.write(feed, rest[:65536]) :] if rest else rest
                        except BrokenPipeError:
                            rest = rest[:0]
                    if not rest:
                        ready.unregister(feed)
                        os.close(feed)
                        feed = -1
        finally:
            for end in (feed, *outputs):
                if end >= 0:
                    os.close(end)
    return [b"".join(pieces[output]) for output in outputs]


def _serve(orders: socket.socket) -> None:
    """Start the pipelines that are asked for, until nobody can ask any more."""
    sys.path.insert(0, str(ROOT / "bin"))  # before an installed TokenOps
    ours = [f"tokenops.{path.stem}" for path in sorted((ROOT / "lib").glob("*.py")) if not path.stem.startswith(LATER)]
    for name in (*LIBRARIES, *ours):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a collection in a command touches none of these pages
    lines = orders.makefile("rb")
    while True:
        _, streams, _, _ = socket.recv_fds(orders, 1, 3)
        if not streams:
            return
        pids = _pipeline(*json.loads(lines.readline()), streams)
        orders.sendall(json.dumps(pids).encode() + b"\n")
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        # As bash says it.
        orders.sendall(json.dumps([128 - status if status < 0 else status for status in statuses]).encode() + b"\n")


def _pipeline(stages: list[Stage], folder: str, environment: dict[str, str], streams: list[int]) -> list[int]:
    pids = []
    inner, outward, errors = streams
    for number, stage in enumerate(stages):
        output, target = os.pipe() if number < len(stages) - 1 else (-1, outward)
        if not (pid := os.fork()):
            _become(Stage(*stage), folder, environment, (inner, target, errors))
        pids.append(pid)
        os.close(inner)
        os.close(target)
        inner = output
    os.close(errors)
    return pids


def _open_streams() -> None:
    """Open the standard streams anew, as Python does when it starts: what is behind them has changed."""
    was = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    for number, (name, old) in enumerate(was.items()):
        mode = "r" if name == "stdin" else "w"
        stream = open(number, mode, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        if name == "stderr":
            stream.reconfigure(line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _become(stage: Stage, folder: str, environment: dict[str, str], streams: tuple[int, int, int]) -> NoReturn:
    """Be the command, in a process that was forked for it."""
    status = 1
    try:
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        os.closerange(3, 256)
        _open_streams()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        sys.argv[:] = [stage.script, *stage.argv[1:]]
        sys.path[0] = os.path.dirname(stage.script)
        runpy.run_path(stage.script, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
