"""Stands between an editor and its agent: passes bytes on in both directions, and writes down what each prompt used.

Two threads pass bytes, a third writes. Whatever fails in the counting or the writing, the bytes go on.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tokenops import cli_child, cli_output, datadir, jsonl, machines, projects, read_acp, session, show, store, store_waiting

if TYPE_CHECKING:
    import subprocess

_PIECE = 1 << 16  # bytes that pass at once, which is what a pipe holds
_LOOK_S = 0.05  # how often what an agent that has ended left in its pipe is looked for
# So many prompts wait to be written, and so long at the end: an editor that ends the agent does not wait for long.
_MOST_WAITING, _PATIENCE_S, _RETRY_S = 1000, 2.0, 5.0


def run(command: Sequence[str], path: str) -> int:
    """Run an agent to its end; its exit status. `path`: a file for the records, "" for the log. Raises Fault."""
    gc.enable()  # it may run for days
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the agent learns that nobody reads, as it would without us
    tap = Tap(read_acp.Meter(tuple(command)), Writer(datadir.log_folder(), path))
    child = cli_child.child(command, tap.attend, piped=True)
    tap.finish()
    if child.code < 0:
        _end_by(-child.code)
    return child.status


def _end_by(number: int) -> None:
    """End as the agent did, by the same signal; a core is the agent's to leave."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(number, signal.SIG_DFL)
    sys.stderr.flush()
    os.kill(os.getpid(), number)


class Tap:
    """The two directions of one agent."""

    def __init__(self, meter: read_acp.Meter, writer: Writer) -> None:
        self.meter, self.writer = meter, writer
        self.to_agent, self.from_agent = read_acp.Lines(), read_acp.Lines()
        self.counting = threading.Lock()  # of the meter
        self.passing = threading.Lock()  # of a piece on its way to the editor
        self.is_counting = True

    def attend(self, process: subprocess.Popen[bytes]) -> None:
        """Begin to pass bytes."""
        self.process = process
        self.answers = threading.Thread(target=self._pass_answers, daemon=True)
        self.writer.thread.start()
        self.answers.start()
        threading.Thread(target=self._pass_requests, daemon=True).start()

    def finish(self) -> None:
        """Pass on what the agent wrote before it ended, and write down what is left.

        A program that the agent left running may hold the pipe open. It is not waited for.
        """
        output = self.process.stdout
        while self.answers.is_alive():
            self.answers.join(_LOOK_S)
            with self.passing:
                if output is None or output.closed or not select.select([output], [], [], 0)[0]:
                    break
        self._count(lambda: self.meter.rest(now()))
        self.writer.close()

    def _pass_requests(self) -> None:
        """From the editor to the agent. A request is noted before it passes: its answer may come at once."""
        agent = self.process.stdin
        assert agent is not None
        while piece := _read(0):
            self._count(functools.partial(self._requests, piece))
            if not _write(agent.fileno(), piece):
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the editor learns that nobody reads
                break
        agent.close()

    def _pass_answers(self) -> None:
        """From the agent to the editor."""
        output = self.process.stdout
        assert output is not None
        while True:
            select.select([output], [], [])
            with self.passing:
                piece = _read(output.fileno())
                if piece and not _write(1, piece):
                    output.close()  # the agent learns that nobody reads
                    return
            if not piece:
                return
            self._count(functools.partial(self._answers, piece))

    def _requests(self, piece: bytes) -> Iterable[read_acp.Prompt]:
        for line in self.to_agent.feed(piece):
            self.meter.request(line, now())
        return ()

    def _answers(self, piece: bytes) -> Iterable[read_acp.Prompt]:
        return [prompt for line in self.from_agent.feed(piece) for prompt in self.meter.answer(line, now())]

    def _count(self, step: Callable[[], Iterable[read_acp.Prompt]]) -> None:
        """Do a step of the counting. After a failure nothing is counted any more, and the bytes go on."""
        with self.counting:
            if not self.is_counting:
                return
            try:
                for prompt in step():
                    self.writer.add(prompt)
            except Exception as error:
                self.is_counting = False
                cli_output.say(f"counting failed ({type(error).__name__}), so the rest is not counted; please report it")


class Writer:
    """Writes records of prompts in a thread of its own: into the log, or into a file. `path`: that file, "" for the log."""

    def __init__(self, folder: str, path: str) -> None:
        self.folder, self.path = folder, path
        self.prompts: queue.Queue[read_acp.Prompt | None] = queue.Queue(_MOST_WAITING)
        self.unwritten: list[read_acp.Prompt] = []
        self.lost = 0
        self.is_failing = self.is_closing = False
        self.projects: projects.ProjectResolver | None = None
        self.owner: machines.Owner | None = None  # of all records
        self.thread = threading.Thread(target=self._run, daemon=True)

    def add(self, prompt: read_acp.Prompt) -> None:
        """Take in a prompt."""
        try:
            self.prompts.put_nowait(prompt)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Write what is left, or keep it beside the log."""
        self.is_closing = True
        with contextlib.suppress(queue.Full):
            self.prompts.put_nowait(None)
        self.thread.join(2 * _PATIENCE_S)
        if self.unwritten:
            self._give_up()
        if self.lost:
            cli_output.say(f"what {show.plural(self.lost, 'prompt')} used did not fit in memory and is lost")

    def _run(self) -> None:
        while not self.is_closing or not self.prompts.empty():
            with contextlib.suppress(queue.Empty):
                prompt = self.prompts.get(timeout=_RETRY_S if self.unwritten else None)
                if prompt is not None:
                    self._write(prompt)
                    continue
            self._write(None)

    def _write(self, prompt: read_acp.Prompt | None) -> None:
        """Write a prompt, and what could not be written before."""
        self.unwritten += [prompt] if prompt is not None else []
        try:
            if self.unwritten:
                self._append(self._lines())
                self.unwritten = []
            self.is_failing = False
        except OSError as error:
            if not self.is_failing:
                cli_output.say(f"{self.path or self.folder}: {error.strerror}; the agent goes on, and this is tried again")
            self.is_failing = True
            self.lost += max(len(self.unwritten) - _MOST_WAITING, 0)
            del self.unwritten[:-_MOST_WAITING]

    def _lines(self) -> list[bytes]:
        """The records of what is not written yet, as lines. Raises OSError."""
        if self.projects is None:
            salt = datadir.salt(self.folder, make=True, patience=_PATIENCE_S)
            self.projects = projects.ProjectResolver(salt, store.project_paths(self.folder))
        return list(self._records(self.projects))

    def _records(self, resolver: projects.ProjectResolver) -> Iterator[bytes]:
        """The same. Without the salt of the log, projects have no names that nobody could guess, and are left out."""
        for prompt in self.unwritten:
            root = prompt.root if resolver.salt else ""
            attribution = resolver.attribution(read_acp.SOURCE, prompt.client, root, "", prompt.session)
            yield from map(jsonl.line_of, read_acp.totals(prompt, attribution))

    def _append(self, lines: list[bytes]) -> None:
        """Write lines. Raises OSError."""
        if self.path:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                datadir.write(fd, b"".join(lines), durable=False)
            finally:
                os.close(fd)
            return
        if self.owner is None:
            self.owner = _owner()
        store.append(self.folder, lines, patience=_PATIENCE_S, owner=self.owner)
        if self.projects is not None:
            store.remember_projects(self.folder, self.projects.paths, patience=_PATIENCE_S)

    def _give_up(self) -> None:
        """At the end: keep beside the log what could not be written."""
        count = len(self.unwritten)
        try:
            if self.path:
                raise OSError
            store_waiting.keep(self.folder, self._records(self.projects or projects.ProjectResolver(b"")))
            cli_output.say(
                f"what {show.plural(count, 'prompt')} used is in {store_waiting.FOLDER}/ of the log, for the next tok-sync"
            )
        except OSError:
            cli_output.say(f"what {show.plural(count, 'prompt')} used could not be written and is lost")


def _owner() -> machines.Owner:
    """The machine and the user of what passes here; nobody if the settings cannot be used."""
    try:
        return machines.here_if_usable(session.settings(os.environ, os.path.expanduser("~")), os.environ)
    except (session.Fault, ValueError, OSError):
        return machines.NOBODY


def now() -> int:
    """The present moment, in milliseconds."""
    return time.time_ns() // 1_000_000


def _read(fd: int) -> bytes:
    """What comes next; nothing at the end."""
    while True:
        try:
            return os.read(fd, _PIECE)
        except BlockingIOError:  # who has the other end made it so
            select.select([fd], [], [])
        except OSError:
            return b""


def _write(fd: int, data: bytes) -> bool:
    """Write all of it; False if nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:
            return False
    return True
