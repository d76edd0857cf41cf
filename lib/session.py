"""Imports what is new and reads the settings, prices and plans that every answer needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import datetime

    from tokenops import config, coverage, machines, pricing, store_days, store_summaries, sync, sync_gather, workers

# A log that was synced so recently is new enough.
RECENT_MS = 2000
# How many seconds a report waits for a writer of the log before it shows what the log holds.
PATIENCE_S = 5.0


class Fault(Exception):
    """An expected failure, in one sentence with its remedy. A command prints it and ends with status 2."""


class BadRequest(Fault):
    """A question that must be put differently: a value that is not understood, or not a choice."""


class NotFound(BadRequest):
    """Something that was asked for by name and is not in the log."""


class Diagnostics(Protocol):
    """Where the lines go that are not the answer."""

    def say(self, text: str) -> None:
        """Something to know, which changes no exit status."""

    def warn(self, text: str) -> None:
        """Something that makes the answer less than it could be."""

    def on_bad_line(self, location: str, why: str) -> None:
        """A line that was skipped."""

    def on_unreadable(self, path: str, error: OSError) -> None:
        """A file that could not be read."""


class Progress(Protocol):
    """Shows how far some work is while a block runs; `kept` is what Ctrl-C leaves, as the end of a sentence."""

    def __call__(self, what: str, kept: str = "") -> AbstractContextManager[workers.Progress]:
        """What to tell of the work."""
        ...


# What Ctrl-C leaves of an import.
KEPT = "what was imported so far is kept, and the next run goes on from there"
_FIRST = ("reading the clients' logs for the first time", KEPT)
_NEXT = ("importing what is new", "")


class Log(NamedTuple):
    """The log at a moment, with everything else that an answer depends on."""

    folder: str
    now: int
    settings: config.Config
    catalogue: Callable[[], pricing.Catalogue]  # reads the prices, and raises Fault
    tz: datetime.tzinfo
    as_of: str = ""  # when it was last synced, "" if never
    memory: store_days.Recent | None = None  # the session's
    past: store_summaries.Past | None = None  # the session's


class Session(NamedTuple):
    """What a server answers from. Each function reads again at each call, so that a change counts; they raise Fault."""

    folder: str
    environment: Mapping[str, str]
    home: str
    now: Callable[[], int]
    settings: Callable[[], config.Config]
    catalogue: Callable[[], pricing.Catalogue]
    catch_up: Callable[[], str]  # imports what is new; when the log was last synced, "" if never
    memory: store_days.Recent | None = None  # the readings of days that have not changed (limit_log.memory)
    past: store_summaries.Past | None = None  # the sums of days and hours that have not changed

    def owner(self) -> machines.Owner:
        """The machine and the user that events of this machine are of. Raises Fault."""
        return owner(self.settings(), self.environment)

    def log(self, fresh: bool = True) -> Log:
        """The log now; with what is new imported, unless that is not needed. Raises Fault."""
        from tokenops import when

        as_of = self.catch_up() if fresh else ""
        return Log(self.folder, self.now(), self.settings(), self.catalogue, when.zone(None), as_of, self.memory, self.past)


def settings(environment: Mapping[str, str], home: str) -> config.Config:
    """The user's configuration. Raises Fault."""
    from tokenops import catalog, config

    try:
        return config.load(environment, home)
    except catalog.Malformed as error:
        raise Fault(str(error)) from None


def catalogue(settings: config.Config, environment: Mapping[str, str]) -> pricing.Catalogue:
    """The prices: built in, with what tok-price update installed and the user's own. Raises Fault."""
    from tokenops import catalog, config, datadir, pricing

    try:
        return pricing.load(config.pricing_path(settings, environment), datadir.log_folder())
    except catalog.Malformed as error:
        raise Fault(str(error)) from None
    except OSError as error:
        raise Fault(f"{error.filename}: {error.strerror}; {remedy(error)} (pricing.path, TOKENOPS_PRICING_PATH)") from None


def owner(settings: config.Config, environment: Mapping[str, str]) -> machines.Owner:
    """The machine and the user that events of this machine are of. Raises Fault for names that cannot be."""
    from tokenops import config, machines

    try:
        return machines.here(settings, environment)
    except config.Unusable as error:
        raise Fault(str(error)) from None


def plan_coverage(settings: config.Config, tz: datetime.tzinfo) -> coverage.Coverage | None:
    """What the user's plans cover; None if no plan is set. Raises Fault for a plan that does not exist."""
    if not settings.get("plans"):
        return None
    from tokenops import config, plans

    try:
        bound = plans.bindings(settings)
    except config.Unusable as error:
        raise Fault(str(error)) from None
    from tokenops import coverage

    return coverage.Coverage(bound, tz)


def catch_up(
    folder: str,
    environment: Mapping[str, str],
    home: str,
    settings: Callable[[], config.Config],
    now: Callable[[], int],
    diagnostics: Diagnostics,
    progress: Progress,
) -> str:
    """Import what is new in the clients' logs; when the log was last synced, "" if never. Raises Fault.

    Skipped if a process did so within two seconds, and bounded by 50 ms. Only the first time everything is read, however
    long it takes: without it there would be no answer.
    """
    import time

    from tokenops import datadir, when

    last = datadir.last_sync(folder)
    # Where the clock was set back, the last time is still to come.
    if last is not None and 0 <= time.time_ns() // 1_000_000 - last < RECENT_MS:
        return when.stamp(last)
    from tokenops import readers, sync, workers

    # 8 MiB are parsed in 20 ms on one processor. While the clock stands still, no time is too long.
    until = float("inf") if environment.get("TOKENOPS_NOW") else time.monotonic() + 0.03
    budget = None if last is None else sync.Budget(8 << 20, until)
    outcomes = None
    try:
        config = settings()
        own, jobs = owner(config, environment), 1 if budget else None
        sources = readers.with_files((), (), environment, home, diagnostics.warn, config.get("vendor_usage"))
        with progress(*(_FIRST if budget is None else _NEXT)) as reading:
            outcomes = sync.run(folder, sources, jobs=jobs, progress=reading, budget=budget, patience=PATIENCE_S, owner=own)
    except (readers.NotFound, workers.WorkerDied) as error:
        raise Fault(str(error)) from None
    except OSError as error:
        diagnostics.say(f"{error.filename or folder}: {error.strerror}; {remedy(error)}; what the log holds is shown")
    report(outcomes or (), diagnostics)
    if left := sum(outcome.left for outcome in outcomes or ()):
        diagnostics.say(f"{left / 2**20:,.0f} MiB of the clients' logs are not imported yet; run tok-sync")
    synced = datadir.last_sync(folder)
    if synced is None:
        return ""
    return when.stamp(synced if synced == last else now())


def report(batches: Iterable[sync.Outcome | sync_gather.Batch], diagnostics: Diagnostics) -> None:
    """Report the lines that were rejected, and the files that could not be read."""
    import errno

    from tokenops import readers

    for batch in batches:
        for location, why in batch.rejected:
            diagnostics.on_bad_line(location, why)
        for path, number, reason in batch.unread:
            if number == errno.ENOENT:
                continue  # clients move and delete files between our listing and our reading
            if number in readers.ODD:
                diagnostics.on_bad_line(path, f"{reason}; it is not read")
            else:
                diagnostics.on_unreadable(path, OSError(number, reason))


def remedy(error: OSError) -> str:
    """What to do about an error of the operating system."""
    import errno

    return {
        errno.ENOSPC: "make room and run it again",
        errno.EACCES: "change its permissions, or run as its owner",
        errno.EPERM: "change its permissions, or run as its owner",
        errno.ENOENT: "check the path",
        errno.EBADF: "open its output",
        errno.EISDIR: "name a file",
        errno.ELOOP: "it is a link, and nothing is written through one; remove it",
        errno.ETIMEDOUT: "wait until that process ends, or end it, then run this again",
    }.get(error.errno or 0, "see the path and the disk")
