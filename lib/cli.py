"""The process edge: arguments, exit status, signals, and the two streams.

Exit status: 0 done; 1 done with something to notice; 2 usage, unreadable input, cannot write. SIGPIPE and SIGINT end a
filter silently, as they end any other.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

if TYPE_CHECKING:
    import argparse
    import datetime

    from tokenops import config, events, jsonl, pricing, rollup
    from tokenops import coverage as cover


# Pieces in which the streams are read and written.
BLOCK = 1 << 17
# What was taken in so recently is new enough.
RECENT_MS = 2000


class Fault(Exception):
    """An expected failure, in one sentence with its remedy. Ends the command with status 2."""


def program() -> str:
    """The command's name."""
    return os.path.basename(sys.argv[0])


def say(text: str) -> None:
    """One line on stderr, under the command's name."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{program()}: {text}\n")
        sys.stderr.flush()


def run(main: Callable[[list[str]], int], filter_: bool = True) -> NoReturn:
    """Run a command and leave the process with its status."""
    if filter_:
        gc.disable()  # records refer in no circles, and a collection walks through every one that is kept
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    status = 2
    try:
        os.fstat(1)
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except Fault as fault:
        say(str(fault))
        status = _flushed(2)
    except SystemExit as left:
        status = _flushed(left.code if isinstance(left.code, int) else 2)
    except MemoryError:
        say("out of memory; read a smaller span")
    except OSError as error:
        say(f"{error.filename or 'cannot write'}: {error.strerror}; {_remedy(error)}")
        status = 2
    # Not sys.exit: after a failed flush Python flushes again, and says so; and a gigabyte of events needs no freeing.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        say(f"cannot write: {error.strerror}; {_remedy(error)}")
        return 2
    return status


def _remedy(error: OSError) -> str:
    import errno

    return {
        errno.ENOSPC: "make room and run it again",
        errno.EACCES: "change its permissions, or run as its owner",
        errno.EPERM: "change its permissions, or run as its owner",
        errno.ENOENT: "check the path",
        errno.EBADF: "give it an open output",
        errno.EISDIR: "give it a file",
    }.get(error.errno or 0, "see the path and the disk")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the command's own docstring, and whose errors are one line."""
    manual = (doc or "").strip()
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        if manual.startswith("exec' "):  # what an installer put above the docstring took its place
            from tokenops.manual import text_of

            with open(sys.argv[0], encoding="utf-8") as file:
                manual = text_of(file.read()).strip()
        sys.stdout.write(manual + "\n")
        raise SystemExit(0)
    if "--version" in sys.argv[1:]:
        from tokenops import __version__

        sys.stdout.write(f"{program()} {__version__}\n")
        raise SystemExit(0)
    import argparse

    class Parser(argparse.ArgumentParser):
        def parse_args(self, *given: Any, **named: Any) -> Any:
            return self.parse_intermixed_args(*given, **named)  # options may stand between operands

        def error(self, message: str) -> NoReturn:
            raise Fault(f"{message}; see {program()} --help")

    return Parser(prog=program(), add_help=False, allow_abbrev=False)


def add_span(to: argparse.ArgumentParser) -> None:
    """The options that mean the same in every command: --since, --until, --tz."""
    to.add_argument("--since", metavar="TIME")
    to.add_argument("--until", metavar="TIME")
    to.add_argument("--tz", metavar="ZONE")


def add_format(to: argparse.ArgumentParser) -> None:
    """The options of a reporter's output."""
    for name in ("json", "table", "csv", "markdown"):
        to.add_argument(f"--{name}", dest="format", action="store_const", const=name)
    to.add_argument("--color", choices=("auto", "always", "never"), default="auto")


def positive(text: str) -> int:
    """A whole number of at least 1, for an option."""
    import argparse

    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def whole(text: str) -> int:
    """A whole number, for an option."""
    import argparse

    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds, for an option."""
    import argparse

    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int], None]]:
    """A function to tell of each stretch of bytes done; shows them on a terminal, and only there."""
    if not sys.stderr.isatty():
        yield lambda size: None
        return
    done = shown = 0

    def told(size: int) -> None:
        nonlocal done, shown
        done += size
        if done - shown >= 1 << 24:
            shown = done
            sys.stderr.write(f"\r{program()}: {what}: {done >> 20:,} MiB ")
            sys.stderr.flush()

    yield told
    if shown:
        sys.stderr.write("\r\x1b[K")


def shape(chosen: argparse.Namespace) -> str:
    """json, table, csv or markdown: as asked for, else a table on a terminal and JSON Lines in a pipe."""
    return chosen.format or ("table" if sys.stdout.isatty() else "json")


def color(chosen: argparse.Namespace) -> bool:
    """Whether to colour: --color, then NO_COLOR and TERM=dumb, then whether stdout is a terminal."""
    if chosen.color != "auto":
        return bool(chosen.color == "always")
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


def zone(chosen: argparse.Namespace) -> datetime.tzinfo:
    """The zone asked for, else the machine's. Raises Fault."""
    from tokenops import when

    try:
        return when.zone(chosen.tz)
    except ValueError as error:
        raise Fault(f"--tz: {error}") from None


def settings() -> config.Config:
    """The user's configuration. Raises Fault."""
    from tokenops import catalog, config

    try:
        return config.load(os.environ, os.path.expanduser("~"))
    except catalog.Malformed as error:
        raise Fault(str(error)) from None


def configuration() -> config.Config:
    """The user's configuration. Says what in it is not understood. Raises Fault."""
    found = settings()
    for warning in found.warnings:
        say(warning)
    return found


def catalogue(settings: config.Config | None = None) -> pricing.Catalogue:
    """The prices: built in, with the user's own (of `settings`, where they were read before). Raises Fault."""
    from tokenops import catalog, config, pricing

    try:
        return pricing.load(config.pricing_path(settings or configuration(), os.environ))
    except catalog.Malformed as error:
        raise Fault(str(error)) from None
    except OSError as error:
        raise Fault(f"{error.filename}: {error.strerror}; {_remedy(error)} (pricing.path, TOKENOPS_PRICING_PATH)") from None


def now() -> int:
    """The present moment, in milliseconds. TOKENOPS_NOW (an RFC 3339 time) sets it, for tests and examples."""
    given = os.environ.get("TOKENOPS_NOW")
    if given:
        from tokenops import when

        try:
            return when.moment(given)
        except ValueError:
            raise Fault(f"TOKENOPS_NOW: {given!r} is no time; unset it") from None
    import time

    return time.time_ns() // 1_000_000


def today() -> str:
    """The present day of this machine's zone, as YYYY-MM-DD."""
    from tokenops import when

    return when.bucket(now(), "day", when.zone(None))


def span(chosen: argparse.Namespace, tz: datetime.tzinfo) -> tuple[str, str]:
    """First and last bound of --since and --until as canonical times, "" and "9" where open. Raises Fault."""
    from tokenops import when

    bounds = ["", "9"]
    for at, (name, bound) in enumerate((("since", when.since), ("until", when.until))):
        given = getattr(chosen, name)
        if given is not None:
            try:
                bounds[at] = when.stamp(bound(given, now(), tz))
            except (ValueError, OverflowError) as error:
                raise Fault(f"--{name}: {error}") from None
    if bounds[0] >= bounds[1]:
        raise Fault("--since is not before --until; swap them")
    return bounds[0], bounds[1]


def write(lines: Iterable[bytes]) -> None:
    """Finished lines to stdout, in large pieces whatever Python thinks of buffering."""
    out, held, size = sys.stdout.buffer, [], 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= BLOCK:
            out.write(b"".join(held))
            held, size = [], 0
    out.write(b"".join(held))


def add_filter(to: argparse.ArgumentParser) -> None:
    """The options that choose records and mean the same in every command: --client, --project, --model."""
    for name in ("client", "project", "model"):
        to.add_argument(f"--{name}", metavar="NAME")


def own_log(chosen: argparse.Namespace) -> bool:
    """Whether a reporter is asked about the log: --log, or no operands at a terminal."""
    return bool(chosen.log) or (not chosen.files and sys.stdin is not None and sys.stdin.isatty())


def caught_up(notices: Notices) -> tuple[str, str]:
    """The log's directory, with what is new taken in, and as of when that is ("" if nobody knows).

    Skipped when somebody did so within two seconds, and bounded by 50 ms; only the first time all is read, however
    long it takes, since there would be no answer otherwise.
    """
    import time

    from tokenops import datadir, when

    folder = datadir.data()
    last = datadir.synced(folder)
    # Where the clock was set back, the last time is still to come.
    if last is not None and 0 <= time.time_ns() // 1_000_000 - last < RECENT_MS:
        return folder, when.stamp(last)
    from tokenops import readers, sync, workers

    # 8 MiB are parsed in 20 ms on one processor.
    budget = None if last is None else sync.Budget(8 << 20, time.monotonic() + 0.03)
    try:
        switched = settings().get("vendor_usage")
        found = readers.found((), (), os.environ, os.path.expanduser("~"), notices.note, switched)
        with progress("reading the clients' logs for the first time") as told:
            outcomes = sync.run(folder, found, jobs=1 if budget else None, told=lambda name: told, budget=budget)
    except (readers.NotFound, workers.Died) as error:
        raise Fault(str(error)) from None
    except OSError as error:
        say(f"{error.filename or folder}: {error.strerror}; {_remedy(error)}; showing what the log holds")
        outcomes = None
    for outcome in outcomes or ():
        for place, why in outcome.rejected:
            notices.reject(place, why)
        for path, number, reason in outcome.unread:
            notices.unread(path, OSError(number, reason))
    left = sum(outcome.left for outcome in outcomes or ())
    if left:
        say(f"{left / 2**20:,.0f} MiB of the clients' logs are not taken in yet; run tok-sync")
    last_now = datadir.synced(folder)
    if last_now is not None and last_now != last:
        return folder, when.stamp(now())
    return folder, "" if last_now is None else when.stamp(last_now)


def coverage(settings: config.Config, tz: datetime.tzinfo) -> cover.Coverage | None:
    """What the user's plans cover; None where none is set, or none that is known, which is said."""
    if not settings.get("plans"):
        return None
    from tokenops import plans

    try:
        bound = plans.bindings(settings)
    except config.Unusable as error:
        say(str(error))
        return None
    from tokenops import coverage as cover

    return cover.Coverage(bound, tz)


def from_log(
    chosen: argparse.Namespace,
    plan: rollup.Plan,
    wanted: events.Filter,
    notices: Notices,
    covered: cover.Coverage | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """The priced rows of a span of the log (default: this month), and a line that says span and moment."""
    from tokenops import costs, store_summaries, when

    folder, as_of = caught_up(notices)
    at = now()
    if chosen.since is None:
        chosen.since = f"{when.bucket(at, 'month', plan.tz)}-01"
    since, until = span(chosen, plan.tz)
    skipped: list[str] = []
    rolled = store_summaries.rows(folder, plan, at, since, until, wanted, lambda place, why: skipped.append(place), covered)
    if skipped:
        notices.reject(skipped[0], f"{len(skipped)} lines of the log could not be read; tok-log verify says why")
    rows = costs.priced(rolled, plan.catalogue)
    for row in rows:
        row["as_of"] = as_of
    first = when.local(when.moment(since), plan.tz)
    ends = f"to {chosen.until}" if chosen.until else "to now"
    seen = f"as of {when.local(when.moment(as_of), plan.tz):%H:%M:%S}" if as_of else "never synced"
    return rows, f"{first:%Y-%m-%d %H:%M} {ends}, {when.zone_name(plan.tz)}, {seen}\n\n"


def log_before(
    chosen: argparse.Namespace, tz: datetime.tzinfo, before: int, notices: Notices
) -> tuple[Iterator[events.Event], str, str]:
    """The events of a span of the log (default: this month) and of so many milliseconds before it, and the span."""
    import orjson

    from tokenops import store, when

    folder, _ = caught_up(notices)
    if chosen.since is None:
        chosen.since = f"{when.bucket(now(), 'month', tz)}-01"
    since, until = span(chosen, tz)
    first = when.stamp(when.moment(since) - before)
    last = until if until == "9" else when.stamp(when.moment(until) + when.DAY)
    skipped: list[str] = []
    lines = store.scan(folder, first, last, lambda place, why: skipped.append(place))
    return map(orjson.loads, lines), since, until


def spent_today(folder: str) -> str:
    """What the log says of today, in dollars at list price; "?" where something has no price."""
    from tokenops import costs, rollup, show, store_summaries, when

    tz = when.zone(None)
    plan = rollup.Plan((), tz, catalogue())
    at = now()
    since = when.stamp(when.since("today", at, tz))
    rows = costs.priced(store_summaries.rows(folder, plan, at, since, when.stamp(at)), plan.catalogue)
    total = costs.total_of(rows).get("cost_usd", "" if rows else "0")
    if not total or any(row.get("unpriced") for row in rows):
        return "?"
    return show.money(total).removeprefix("$")


class Notices:
    """Bad lines: said one by one, counted, and remembered for the exit status."""

    def __init__(self) -> None:
        self.rejected = 0
        self.unreadable = 0
        self.reading: jsonl.Records | None = None

    def reject(self, place: str, why: str) -> None:
        """A line that was skipped."""
        self.rejected += 1
        say(f"{place}: {why}")

    def note(self, text: str) -> None:
        """Something else to notice."""
        self.rejected += 1
        say(text)

    def refuse(self, why: str) -> None:
        """The record given last was no use."""
        self.reject(self.reading.place if self.reading else "input", why)

    def unread(self, place: str, error: OSError) -> None:
        """A file that could not be read."""
        self.unreadable += 1
        say(f"{place}: {error.strerror}; {_remedy(error)}")

    def status(self, noticed: bool = False) -> int:
        """The exit status that all this comes to."""
        return 2 if self.unreadable else 1 if self.rejected or noticed else 0


def inputs(files: list[str], notices: Notices) -> Iterator[tuple[str, BinaryIO]]:
    """Name and stream of each FILE operand, or of stdin (`-`, or none given). An unreadable one is noted and skipped."""
    for name in files or ["-"]:
        if name == "-":
            if sys.stdin is None:
                raise Fault("stdin is closed; name a file")
            with open(0, "rb", buffering=BLOCK, closefd=False) as stream:
                yield "stdin", stream
            continue
        try:
            with open(name, "rb", buffering=BLOCK) as file:
                if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                    raise IsADirectoryError(21, os.strerror(21), name)
                yield name, file
        except OSError as error:
            notices.unread(name, error)


def batches(files: list[str], notices: Notices) -> Iterator[list[tuple[str, bytes]]]:
    """Places and whole lines of all inputs, as many at a time as are there; nobody waits for a full buffer."""
    for name, stream in inputs(files, notices):
        number, rest = 0, b""
        while piece := os.read(stream.fileno(), BLOCK):
            *lines, rest = (rest + piece).split(b"\n")
            if lines:
                yield [(f"{name}:{at}", line) for at, line in enumerate(lines, number + 1)]
                number += len(lines)
        if rest.strip():
            yield [(f"{name}:{number + 1}", rest)]


def records(files: list[str], notices: Notices) -> Iterator[dict[str, Any]]:
    """The JSON objects of all inputs."""
    from tokenops import jsonl

    for name, stream in inputs(files, notices):
        try:
            notices.reading = jsonl.Records(stream, name, notices.reject)
            yield from notices.reading
        except OSError as error:
            notices.unread(name, error)
