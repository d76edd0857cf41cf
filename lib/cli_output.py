"""Prints what a command has to say: its answer in the shape that was asked for, and messages and progress on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tokenops import session, show

if TYPE_CHECKING:
    import argparse

    from tokenops import cli_progress, jsonl, workers

# Pieces in which the streams are read and written.
BLOCK = 1 << 17
Rows = list[dict[str, Any]]
# Most rows of a table at a terminal, and fewest; what else stands on the screen: headings, sums, remarks and the prompt.
MOST_ROWS, FEWEST_ROWS, OTHER_LINES = 20, 5, 11
# So many skipped lines are named one by one.
SINGLY = 3
# Makes a text of rows, a shape, whether to colour, and whether to show every remark.
Table = Callable[[Rows, str, bool, bool], str]


class Command:
    """The command that this process runs at the moment: the name on its messages, and its file."""

    name = "tokenops"
    path = ""
    has_stdin = True  # whether the process was started with one
    progress: cli_progress.Line | None = None  # what it shows of long work
    verbose = False  # whether it was asked to show every remark and every skipped line
    unsaid: set[Diagnostics] = set()  # noqa: RUF012 - those with messages that are still to be printed


def say(text: str) -> None:
    """One line on stderr, under the command's name."""
    if Command.progress:
        Command.progress.erase()
    with contextlib.suppress(OSError, ValueError):
        line = f"{Command.name}: {show.safe(text)}"
        most = show.width() if sys.stderr.isatty() else None
        sys.stderr.write("".join(f"{part}\n" for part in show.wrap(line, most, "  ")))
        sys.stderr.flush()


def add_format(to: argparse.ArgumentParser) -> None:
    """The options of a reporter's output."""
    for name in ("json", "table", "csv", "markdown"):
        to.add_argument(f"--{name}", dest="format", action="store_const", const=name)
    to.add_argument("--color", choices=("auto", "always", "never"), default="auto")
    add_verbose(to)


def add_verbose(to: argparse.ArgumentParser) -> None:
    """The option that shows every remark below a table, and every line that was skipped."""
    to.add_argument("-v", "--verbose", action="store_true")


def add_strict(to: argparse.ArgumentParser) -> None:
    """The option that makes a missing price a failure."""
    to.add_argument("--strict", action="store_true")


def add_order(to: argparse.ArgumentParser) -> None:
    """The options that order rows and keep the first of them."""
    to.add_argument("--sort", metavar="FIELD", default="")
    to.add_argument("--top", metavar="N", type=positive)


def positive(text: str) -> int:
    """A whole number of at least 1, for an option."""
    import argparse

    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


def in_order(
    args: argparse.Namespace, rows: Rows, orders: show.Orders, usual: Callable[[Rows], Rows] = list, below: int | None = None
) -> tuple[Rows, Rows]:
    """Rows in the order of --sort, and those that --top leaves out. Raises session.BadRequest.

    Without either, tables are in the `usual` order and other shapes as the rows are. --top alone orders by the first of
    `orders`. `below`: at a terminal, a table without --top has as many rows as the screen holds, with so many lines of
    remarks below it, beyond the usual; None: it has all.
    """
    top = getattr(args, "top", None)
    name = args.sort or (next(iter(orders)) if top else "")
    try:
        if name:
            rows = show.by_order(rows, name, orders)
        elif shape(args) in ("table", "markdown"):
            rows = usual(rows)
    except ValueError as error:
        raise session.BadRequest(f"--sort {args.sort}: {error}") from None
    if below is not None and not top and shape(args) == "table" and sys.stdout.isatty():
        most = max(min(show.height() - OTHER_LINES - below, MOST_ROWS), FEWEST_ROWS)
        top = most if len(rows) > most + 1 else None  # a row that says "and 1 more" takes as much room
    return rows[:top], rows[top:] if top else []


@contextlib.contextmanager
def progress(what: str, kept: str = "", unit: str = "bytes") -> Iterator[workers.Progress]:
    """Shows how far the work of a block is, if stderr is a terminal: call it with the size of each part that is done.

    `kept`: what is there after Ctrl-C, as the end of a sentence.
    """
    from tokenops import workers

    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield workers.SILENT
        return
    from tokenops import cli_progress

    with cli_progress.line_for(Command.name, what, unit, kept) as Command.progress:
        yield Command.progress
    Command.progress = None


def shape(args: argparse.Namespace) -> str:
    """json, table, csv or markdown: the option, else a table at a terminal and JSON Lines in a pipe."""
    return args.format or ("table" if sys.stdout.isatty() else "json")


def color(args: argparse.Namespace) -> bool:
    """Whether to colour: --color, then NO_COLOR and TERM=dumb, then whether stdout is a terminal."""
    if args.color != "auto":
        return bool(args.color == "always")
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


def write(lines: Iterable[bytes]) -> None:
    """Write finished lines to stdout in large blocks, independent of Python's buffering."""
    out, pending, size = sys.stdout.buffer, [], 0
    for line in lines:
        pending.append(line)
        size += len(line)
        if size >= BLOCK:
            out.write(b"".join(pending))
            pending, size = [], 0
    out.write(b"".join(pending))


def write_rows(args: argparse.Namespace, rows: Rows, table: Table | None = None) -> None:
    """Records as JSON Lines, as CSV, or as a table, if there is one; nothing for an empty table."""
    if table is None or shape(args) == "json":
        show.lines(rows, sys.stdout.buffer)
    elif shape(args) == "csv":
        sys.stdout.write(show.records(rows, "csv"))
    elif rows:
        sys.stdout.write(table(rows, shape(args), color(args), args.verbose))


def write_report(args: argparse.Namespace, rows: Iterable[dict[str, Any]], text: str) -> None:
    """Records as JSON Lines, CSV or Markdown, or a text for people."""
    if shape(args) == "json":
        show.lines(rows, sys.stdout.buffer)
    elif shape(args) == "table":
        sys.stdout.write(text if text.endswith("\n") or not text else f"{text}\n")
    else:
        sys.stdout.write(show.records(rows, shape(args)))


class Diagnostics:
    """Prints everything but the answer on stderr, and determines the exit status.

    More than three skipped lines are one message, with the first of them as an example; -v prints each when it comes, and so
    does a command that goes on (`folds`: false).
    """

    def __init__(self, folds: bool = True) -> None:
        self.warnings = 0
        self.unreadable = 0
        self.folds = folds
        self.first: list[str] = []  # messages about the first lines that were skipped
        self.files: list[str] = []  # the file of each of them, and of those that followed
        self.bad_log_lines: list[str] = []
        self.reading: jsonl.Records | None = None

    def say(self, text: str) -> None:
        """Something to know, which changes no exit status."""
        say(text)

    def warn(self, text: str) -> None:
        """Something that makes the answer less than it could be."""
        self.report()
        self.warnings += 1
        say(text)

    def on_bad_line(self, location: str, why: str) -> None:
        """A line that was skipped."""
        file, _, number = location.rpartition(":")
        if Command.verbose or not self.folds or not number.isdecimal():
            self.warn(f"{location}: {why}")
            return
        self.warnings += 1
        self.files.append(file)
        if len(self.first) < SINGLY:
            self.first.append(f"{location}: {why}")
        Command.unsaid.add(self)

    def report(self) -> None:
        """Print what was held back to be one message."""
        Command.unsaid.discard(self)
        first, count, files = list(self.first), len(self.files), len(set(self.files))
        self.first.clear()
        self.files.clear()
        if count > SINGLY:
            many = f" in {files:,} files" if files > 1 else ""
            first = [f"{count:,} lines skipped{many}; -v lists them; the first is {first[0]}"]
        for text in first:
            say(text)

    def on_bad_log_line(self, location: str, why: str) -> None:
        """A line of our own log that was skipped; report_bad_log_lines counts them."""
        self.bad_log_lines.append(location)
        if Command.verbose:
            say(f"{location}: {why}")

    def report_bad_log_lines(self) -> None:
        """Warn of lines of the log that were skipped."""
        if self.bad_log_lines:
            count = show.plural(len(self.bad_log_lines), "line")
            self.warn(f"{self.bad_log_lines[0]}: {count} of the log could not be read; run tok-log verify")

    def on_bad_record(self, why: str) -> None:
        """The record that was read last is not used."""
        self.on_bad_line(self.reading.location if self.reading else "input", why)

    def on_unreadable(self, path: str, error: OSError) -> None:
        """A file that could not be read."""
        self.unreadable += 1
        say(f"{path}: {error.strerror}; {session.remedy(error)}")

    def status(self, warned: bool = False) -> int:
        """The exit status. `warned`: there was another reason for a warning."""
        self.report()
        return 2 if self.unreadable else 1 if self.warnings or warned else 0
