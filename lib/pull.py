"""Pulls what is new from the sources of other machines, each in a process of its own with a limit of time.

A source that is away, slow or damaged hinders neither this machine's own import nor another source. It is reported when
that begins.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from tokenops import (
    config,
    datadir,
    pull_home,
    pull_log,
    pull_part,
    pull_remote,
    pull_sealed,
    pull_sources,
    pull_tar,
    readers,
    sync,
    workers,
)
from tokenops.pull_sources import Settings, Source

parse, settings = pull_sources.parse, pull_sources.settings

_LOCK = "lock"
# So long a process may take to end after its time is over, before it is ended.
_GRACE_S = 5.0
_INCOMING = "incoming"
AWAY, OK, BUSY = "away", "ok", "busy"


class Pulled(NamedTuple):
    """How a source went: `why` it is away, whether that is news, and what was read."""

    source: Source
    state: str
    why: str = ""
    is_news: bool = False
    outcomes: list[sync.Outcome] = []  # noqa: RUF012 - of a tuple that nobody changes
    problems: list[str] = []  # noqa: RUF012


class Run(NamedTuple):
    """What a run does alike at every source."""

    log: str
    settings: Settings
    now: Callable[[], str]  # as the record writes it
    backfill: bool = False
    dry: bool = False


def run(how: Run, sources: tuple[Source, ...]) -> Iterator[Pulled]:
    """Pull from each source in turn. Raises OSError if the log cannot be written."""
    if datadir.is_demo(how.log):
        return
    for source in sources:
        folder = pull_sources.folder_of(how.log, source)
        datadir.ensure_folder(how.log)
        datadir.ensure_folder(os.path.dirname(folder))
        datadir.ensure_folder(folder)
        with datadir.lock(folder, _LOCK, wait=False) as mine:
            if not mine:
                yield Pulled(source, BUSY, "another tok-sync is reading it")
                continue
            incoming = os.path.join(folder, _INCOMING)
            shutil.rmtree(incoming, ignore_errors=True)  # of a run that was killed
            try:
                state, why, outcomes, problems = _in_process(how, source, incoming)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
            is_news = False if how.dry or state == BUSY else pull_sources.note(how.log, source, how.now(), why, problems)
            yield Pulled(source, state, why, is_news, outcomes, problems)


Answer = tuple[str, str, list[sync.Outcome], list[str]]


def _in_process(how: Run, source: Source, incoming: str) -> Answer:
    """Pull from a source in another process, which is ended when its time is over."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        _answer(how, source, incoming, theirs)
    os.close(theirs)
    try:
        data = _read(ours, time.monotonic() + how.settings.seconds + _GRACE_S)
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        # One that waits for a disk that does not answer ends when that does; nobody waits for it.
        for _ in range(20):
            if os.waitpid(child, os.WNOHANG)[0]:
                break
            time.sleep(0.01)
    if data is None:
        return AWAY, f"did not answer within {how.settings.seconds:g} s", [], []
    try:
        state, why, outcomes, problems = marshal.loads(data)
    except (ValueError, EOFError, TypeError):
        return AWAY, "the process that read it ended early; please report it", [], []
    return state, why, [sync.Outcome(*outcome) for outcome in outcomes], problems


def _read(fd: int, until: float) -> bytes | None:
    """All that comes from a pipe; None if it is still open at a time."""
    pieces: list[bytes] = []
    while select.select([fd], [], [], max(until - time.monotonic(), 0))[0]:
        piece = os.read(fd, 1 << 16)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
    return None


class _TooLate(OSError):
    """The source's time is over."""


def _answer(how: Run, source: Source, incoming: str, to: int) -> NoReturn:
    """In the other process: pull, and send how it went."""
    until, parent = time.monotonic() + how.settings.seconds, os.getppid()

    def on_alarm(*_: Any) -> None:
        if time.monotonic() > until or os.getppid() != parent:  # or the process that waits for it was killed
            raise _TooLate

    try:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the copies are removed also if nobody waits for the answer
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
        answer = _answer_of(how, source, incoming)
        signal.setitimer(signal.ITIMER_REAL, 0)
        state, why, outcomes, problems = answer
        with open(to, "wb") as file:
            file.write(marshal.dumps((state, why, [tuple(outcome) for outcome in outcomes], problems)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(incoming, ignore_errors=True)
        os._exit(0)


def _answer_of(how: Run, source: Source, incoming: str) -> Answer:
    problems: list[str] = []
    try:
        outcomes = _outcomes(how, source, incoming, problems.append)
    except _TooLate:
        return AWAY, f"was not done within {how.settings.seconds:g} s; the next run goes on from there", [], problems
    except (readers.NotFound, config.Unusable, pull_tar.Broken) as error:
        return AWAY, str(error), [], problems
    except workers.WorkerDied as error:
        return AWAY, str(error), [], problems
    except OSError as error:
        location = f"{error.filename}: " if error.filename and error.filename != source.target else ""
        return AWAY, f"{location}{error.strerror or error}; check the path and whether it is mounted", [], problems
    except Exception as error:  # a defect of ours, or unexpected damage: the other sources go on
        return AWAY, f"cannot be read ({type(error).__name__}); please report it", [], problems
    return (BUSY, "another tok-sync is reading it", [], problems) if outcomes is None else (OK, "", outcomes, problems)


def _outcomes(how: Run, source: Source, incoming: str, on_problem: Callable[[str], None]) -> list[sync.Outcome] | None:
    target = pull_log.Target(how.log, pull_sources.folder_of(how.log, source), how.dry, how.backfill)
    if source.kind != "folder":
        return pull_remote.run(target, source, how.settings, incoming, on_problem)
    os.listdir(source.target)  # says why it cannot be read
    keys = pull_sealed.Keys(how.settings.encrypt, how.settings.decrypt)
    outcomes = pull_log.run(target, source.target, pull_part.identity(how.log), keys)
    return pull_home.run(target, source, on_problem) if outcomes is None else outcomes


def publish(how: Run, to: str, machine: str) -> tuple[list[dict[str, Any]], str]:
    """Publish this machine's part to a folder: a row of what was done, and why it could not be done if that is news.

    Raises OSError if the log cannot be written.
    """
    target = Source("to", to, machine, f"sync.to: {to}")
    why, done = "", None
    try:
        done = pull_part.publish(how.log, to, machine, pull_sealed.Keys(how.settings.encrypt))
    except OSError as error:
        why = f"{error.filename or to}: {error.strerror or error}"
    is_news = pull_sources.note(how.log, target, how.now(), why)
    if done is None:
        return [], f"{why}; nothing is published" if why and is_news else ""
    counts = {"days": done.days, "days_written": done.written, "lines": done.lines}
    return [{"v": 1, "kind": "published", "to": done.folder, **counts}], ""
