"""Runs a command as a process: arguments, exit status, signals and streams.

Exit status: 0 done; 1 done with something to notice; 2 usage, unreadable input, cannot write. SIGPIPE and SIGINT end a
filter silently.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol

from tokenops import end_silently_at_interrupt, session, show
from tokenops.cli_output import (
    BLOCK,
    Command,
    Diagnostics,
    add_format,
    add_order,
    add_strict,
    add_verbose,
    color,
    in_order,
    positive,
    progress,
    say,
    shape,
    write,
    write_report,
    write_rows,
)

__all__ = [
    "BLOCK",
    "Command",
    "Diagnostics",
    "add_format",
    "add_order",
    "add_strict",
    "add_verbose",
    "color",
    "in_order",
    "positive",
    "progress",
    "say",
    "shape",
    "write",
    "write_report",
    "write_rows",
]

if TYPE_CHECKING:
    import argparse
    import datetime

    from tokenops import answers_absence, config, events, machines, pricing
    from tokenops import coverage as cover


Fault = session.Fault


class Main(Protocol):
    """A command's main: its exit status, of its arguments alone."""

    __code__: CodeType

    def __call__(self, argv: list[str], /) -> int:
        """Run with these arguments."""
        ...


def run(main: Main, filter_: bool = True) -> NoReturn:
    """Run a command with the process's arguments, and end the process with its status."""
    end_silently_at_interrupt()
    sys.stdout = sys.stdout and show.Output(sys.stdout)  # None if it is closed
    if sys.stdin is None:
        Command.has_stdin = False
        sys.stdin = open(os.devnull)  # noqa: SIM115 - it takes descriptor 0, so that no other file does
    if filter_:
        gc.disable()  # records have no reference cycles, and a collection would visit every one in memory
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    else:
        gc.enable()  # which `tokenops` turned off while modules were imported
    status = status_of(main, sys.argv[1:])
    # Not sys.exit: after a failed flush Python flushes again and prints the error, and freeing a gigabyte takes time.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def status_of(main: Main, argv: list[str]) -> int:
    """The exit status of a command that is called with these arguments. Its failures are printed on stderr."""
    Command.path = main.__code__.co_filename
    Command.name, Command.verbose = os.path.basename(Command.path), False
    try:
        return _status_of(main, argv)
    finally:
        for diagnostics in list(Command.unsaid):
            diagnostics.report()


def _status_of(main: Main, argv: list[str]) -> int:
    try:
        os.fstat(1)  # Python discards what is printed to a closed stdout
        status = main(argv)
        sys.stdout.flush()
    except Fault as fault:
        say(str(fault))
        return _flush(2)
    except SystemExit as end:
        return _flush(end.code if isinstance(end.code, int) else 2)
    except ValueError as error:
        if not _is_expected(error):
            raise
        say(str(error))
        return _flush(2)
    except MemoryError:
        say("out of memory; read a smaller span")
        return 2
    except OSError as error:
        say(f"{error.filename or 'cannot write'}: {error.strerror}; {session.remedy(error)}")
        return 2
    return status


def _is_expected(error: ValueError) -> bool:
    """Whether an error means a file or setting that cannot be used. Its text includes the remedy."""
    from tokenops import catalog, config

    return isinstance(error, (catalog.Malformed, config.Unusable, config.Unchangeable))


def _flush(status: int) -> int:
    """Flush stdout; the status, or 2 if that fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        say(f"cannot write: {error.strerror}; {session.remedy(error)}")
        return 2
    return status


def parser(doc: str | None, argv: list[str]) -> argparse.ArgumentParser:
    """A parser of a command's arguments. `doc`: its docstring, which is its manual and begins with its name.

    Answers --help and --version itself and raises SystemExit: argparse costs more time than either may take.
    """
    manual = (doc or "").strip()
    replaced = manual.startswith("exec' ")  # an installer put a line above the docstring, which took its place
    if not replaced:
        Command.name = manual.partition(" ")[0]
    if "-h" in argv or "--help" in argv:
        from tokenops.manual import complete, text_of

        if replaced:
            with open(Command.path, encoding="utf-8") as file:
                manual = text_of(file.read())
        sys.stdout.write(complete(manual) + "\n")
        raise SystemExit(0)
    if "--version" in argv:
        from tokenops import __version__

        sys.stdout.write(f"{Command.name} {__version__}\n")
        raise SystemExit(0)
    import argparse

    class Parser(argparse.ArgumentParser):
        def parse_args(self, *args: Any, **options: Any) -> Any:
            parsed = self.parse_intermixed_args(*args, **options)  # options may come between operands
            Command.verbose = getattr(parsed, "verbose", False)
            return parsed

        def error(self, message: str) -> NoReturn:
            head, _, rest = message.partition("unrecognized arguments: ")
            word = next((text.partition("=")[0] for text in rest.split() if text.startswith("-")), "")
            hint = _instead(word, self._option_string_actions) if word and not head else ""
            raise Fault(_with_manual(f"{message}{hint}"))

        def _check_value(self, action: argparse.Action, value: Any) -> None:
            if action.choices is not None and value not in action.choices:
                choices = list(map(str, action.choices))
                text = f"invalid choice: {value!r} (choose from {', '.join(choices)}){show.meant(str(value), choices)}"
                raise argparse.ArgumentError(action, text)

    # With a width argparse need not ask for it, for which it imports 2 ms of modules. Nothing that it formats is shown.
    formatter = functools.partial(argparse.HelpFormatter, width=80)
    return Parser(prog=Command.name, add_help=False, allow_abbrev=False, formatter_class=formatter)


# Options that people try for a span -> how it is named here.
_SPANS = {
    **dict.fromkeys(("--from", "--start", "--start-date", "--after"), "--since TIME"),
    **dict.fromkeys(("--to", "--end", "--end-date", "--before"), "--until TIME"),
    **dict.fromkeys(("--days", "--last"), "--since 7d"),
    **dict.fromkeys(("--week", "--weekly"), "--since 2026-W26 --until 2026-W26, or --since 'last week'"),
    **dict.fromkeys(("--month", "--monthly"), "--since 2026-06 --until 2026-06, or --since 'this month'"),
}


def _instead(word: str, options: Iterable[str]) -> str:
    """What to write instead of an unknown option; "" if nothing is like it."""
    if word in _SPANS and "--since" in options:
        return f": write {_SPANS[word]}"
    return show.meant(word, options)


def choice(word: str, choices: Iterable[str], what: str) -> str:
    """A word that must be one of some. Raises Fault."""
    if word in choices:
        return word
    hint = show.meant(word, choices) if word else ""
    raise Fault(_with_manual(f"{word or f'no {what}'}: choose from {', '.join(choices)}{hint}"))


def _with_manual(message: str) -> str:
    """A message about arguments, with where they are described."""
    return f"{message}{' See' if message.endswith('?') else '; see'} {Command.name} --help"


def add_span(to: argparse.ArgumentParser) -> None:
    """The options that mean the same in every command: --since, --until, --tz."""
    to.add_argument("--since", metavar="TIME")
    to.add_argument("--until", metavar="TIME")
    to.add_argument("--tz", metavar="ZONE")


def whole(text: str) -> int:
    """A whole number, for an option."""
    import argparse

    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds, for an option."""
    import argparse

    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds")
    return value


def zone(args: argparse.Namespace) -> datetime.tzinfo:
    """The zone of --tz, else the machine's. Raises Fault."""
    from tokenops import when

    try:
        return when.zone(args.tz)
    except ValueError as error:
        raise Fault(f"--tz: {error}") from None


def settings() -> config.Config:
    """The user's configuration. Raises Fault."""
    return session.settings(os.environ, os.path.expanduser("~"))


def configuration() -> config.Config:
    """The user's configuration. Warns of unknown keys. Raises Fault."""
    config = settings()
    for warning in config.warnings:
        say(warning)
    return config


def catalogue(settings: config.Config | None = None) -> pricing.Catalogue:
    """The prices: built in, with the user's own (of `settings`, where they were read before). Raises Fault."""
    return session.catalogue(settings or configuration(), os.environ)


def catch_up(diagnostics: Diagnostics) -> tuple[str, str]:
    """Import what is new; the log's directory, and when it was last synced ("" if never). Raises Fault."""
    from tokenops import datadir

    folder = datadir.log_folder()
    as_of = session.catch_up(folder, os.environ, os.path.expanduser("~"), settings, now, diagnostics, progress)
    diagnostics.report()
    return folder, as_of


def log(
    settings: config.Config, diagnostics: Diagnostics, tz: datetime.tzinfo | None = None, fresh: bool = True
) -> session.Log:
    """The log as it is now, after what is new was imported, unless that is not needed. Raises Fault."""
    from tokenops import datadir, when

    folder, as_of = catch_up(diagnostics) if fresh else (datadir.log_folder(), "")
    return session.Log(folder, now(), settings, functools.partial(catalogue, settings), tz or when.zone(None), as_of)


def owner(settings: config.Config | None = None) -> machines.Owner:
    """The machine and the user that events of this machine are of. Raises Fault."""
    return session.owner(settings or configuration(), os.environ)


def coverage(settings: config.Config, tz: datetime.tzinfo) -> cover.Coverage | None:
    """What the user's plans cover; None if no plan is set, or, with a message, if one does not exist."""
    try:
        return session.plan_coverage(settings, tz)
    except Fault as fault:
        say(str(fault))
        return None


def now() -> int:
    """The present moment, in milliseconds. TOKENOPS_NOW (an RFC 3339 time) sets it, for tests and examples."""
    text = os.environ.get("TOKENOPS_NOW")
    if text:
        from tokenops import when

        try:
            return when.moment(text)
        except ValueError:
            raise Fault(f"TOKENOPS_NOW: {text!r} is not a valid time; unset it") from None
    import time

    return time.time_ns() // 1_000_000


def today() -> str:
    """The present day of this machine's zone, as YYYY-MM-DD."""
    from tokenops import when

    return when.bucket(now(), "day", when.zone(None))


def span(args: argparse.Namespace, tz: datetime.tzinfo) -> tuple[str, str]:
    """First and last bound of --since and --until as canonical times, "" and answers.OPEN where open. Raises Fault."""
    from tokenops import answers

    return answers.bounds(args.since, args.until, now(), tz, "--")


def add_filter(to: argparse.ArgumentParser, *names: str) -> None:
    """The options that choose records and mean the same in every command; those of `names`, or the usual ones."""
    for name in names or ("client", "project", "model", "machine", "user"):
        to.add_argument(f"--{name}", metavar="NAME", type=client if name == "client" else str)


def filter_of(args: argparse.Namespace, kinds: tuple[str, ...] | None = None, session: str | None = None) -> events.Filter:
    """The filter that the options of `add_filter` make, with a session whose whole id is known."""
    from tokenops import events

    names = {name: value for name in ("client", "project", "model", *events.OWNER) if (value := getattr(args, name, None))}
    return events.Filter(kinds, session=session, **names)


def client(text: str) -> str:
    """A client's name as in records, for an option: `claude` is claude-code."""
    from tokenops import readers

    return readers.client_of(text)


def say_empty(
    log: session.Log,
    span: tuple[str, str],
    only: events.Filter,
    usage: answers_absence.Usage | None = None,
    provider: str = "",
    option: str = "--since",
    otherwise: str = "no usage in this span",
) -> None:
    """Say why there is nothing to show: of a span of the log, or of the records that `usage` watched.

    `otherwise`: what to say if there is usage in the span. The rest is as in answers_absence.
    """
    from tokenops import answers_absence

    if usage is not None:
        say(answers_absence.of_records(usage, only, log.tz))
    else:
        say(answers_absence.of_log(log, *span, only, provider, option) or otherwise)


def reads_log(args: argparse.Namespace) -> bool:
    """Whether a report command reads the log: with --log, or without operands at a terminal."""
    return bool(args.log) or (not args.files and sys.stdin.isatty())


def inputs(files: list[str], diagnostics: Diagnostics) -> Iterator[tuple[str, BinaryIO]]:
    """Name and stream of each FILE operand, or of stdin (`-`, or no operand). Warns of unreadable files and skips them."""
    for name in files or ["-"]:
        if name == "-":
            if not Command.has_stdin:
                raise Fault("stdin is closed; name a file")
            if sys.stdin.isatty():
                say("reading standard input; end it with Ctrl-D, or give FILEs")
            with open(0, "rb", buffering=BLOCK, closefd=False) as stream:
                yield "stdin", stream
            continue
        try:
            with open(name, "rb", buffering=BLOCK) as file:
                if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                    raise IsADirectoryError(21, os.strerror(21), name)
                yield name, file
        except OSError as error:
            diagnostics.on_unreadable(name, error)


def batches(files: list[str], diagnostics: Diagnostics) -> Iterator[list[tuple[str, bytes]]]:
    """Locations and whole lines of all inputs, as many at a time as are available, without waiting for a full buffer."""
    import functools

    from tokenops import jsonl

    for name, stream in inputs(files, diagnostics):
        yield from jsonl.batches(iter(functools.partial(os.read, stream.fileno(), BLOCK), b""), name)


def _refuse_span(files: list[str]) -> None:
    """Raise Fault if what stands for files names a span, as in `tok-cost last week`, and no such file exists."""
    if not files or any(map(os.path.lexists, files)) or any("/" in name or "." in name for name in files):
        return
    from tokenops import when

    text = " ".join(files)
    with contextlib.suppress(ValueError):
        when.parse_since(text, now(), when.zone(None))
        value = f"'{text}'" if " " in text else text
        raise Fault(f"no file {text!r}; to report a span: {Command.name} --log --since {value}")


def records(files: list[str], diagnostics: Diagnostics) -> Iterator[dict[str, Any]]:
    """The JSON objects of all inputs."""
    from tokenops import jsonl

    _refuse_span(files)
    for name, stream in inputs(files, diagnostics):
        try:
            diagnostics.reading = jsonl.Records(jsonl.bounded_lines(stream), name, diagnostics.on_bad_line)
            yield from diagnostics.reading
        except OSError as error:
            diagnostics.on_unreadable(name, error)
