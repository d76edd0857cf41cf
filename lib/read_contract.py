"""Defines what the reader of a client offers, and builds one from functions if a client's files stand alone.

A reader lists a client's files and gives each worker a parser. The parser reads whole files, each from its cursor on,
and takes everything from a file in that one pass: turns, totals, meter readings, counts of work. What can only be
decided when all files are known (which of two threads owns a turn that both hold) is left to `settle`, which runs once,
in the parent process.

Workers are other processes, so a parser returns plain data, and little of it: see `read_records.Light`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict

from tokenops import events, jsonl, projects, read_lines, read_records
from tokenops.events import Event
from tokenops.read_lines import Cursor
from tokenops.read_records import Entry
from tokenops.untrusted import Raw

if TYPE_CHECKING:
    from tokenops import work

OnBadLine = jsonl.OnBadLine  # (location, sentence): a line, a row or a file that was skipped, and why
Sighting = tuple[str, Event, str]  # location, event, and why it does not count ("" if it does)


class Options(NamedTuple):
    """What a run asks of a parser."""

    salt: bytes = b""  # of the hashes of paths and texts
    resumable: bool = False  # files are read on when they have grown, so what is undecided may wait
    work: bool = False  # count what each prompt set off, if the reader can
    roots: Mapping[str, str] = {}  # paths of projects that earlier runs kept, see `projects.ProjectResolver`
    listen: work.Listener | None = None  # gets each prompt and reply, if work is counted
    whole_sums: bool = False  # see Reader.whole_sums; sync subtracts the turns of its log


class Intake:
    """What a parser shares with the engine: the options, the callback for bad lines, and the projects of the files."""

    def __init__(self, options: Options | None = None, on_bad_line: OnBadLine = lambda location, why: None) -> None:
        self.options, self.on_bad_line = options or Options(), on_bad_line
        self.projects = projects.ProjectResolver(self.options.salt, self.options.roots)
        self.attribution = self.projects.attribution
        self.location = ""  # of the event given last, for `sightings`


class Parser(Protocol):
    """Reads some of a client's files, in one process."""

    def read(self, path: str, cursor: Cursor, /) -> None:
        """Read one file from its cursor on, and move the cursor. Raises OSError, and BadRecord if it is not a log."""

    def entries(self) -> Iterable[Entry]:
        """What was read, each thing once."""
        ...

    def parts(self) -> dict[str, Any]:
        """Per file, plain data that `settle` needs. Most readers need none."""
        return {}


class Share(TypedDict):
    """What one worker answers: plain data, because it crosses a pipe."""

    entries: list[Entry]  # in order of time
    parts: dict[str, Any]
    positions: list[tuple[str, tuple[Any, ...]]]  # path and fields of sync_gather.Position, if the run is resumable
    paths: dict[str, str]  # project_id -> path
    rejected: list[tuple[str, str]]
    unread: list[tuple[str, int, str]]


class Files(NamedTuple):
    """A client's files in a run, as `settle` may need them."""

    paths: Sequence[str]  # all of them, read in this run or not
    state: Callable[[str], Raw]  # the parser's state that an earlier run kept for a file; empty if there is none
    whole: frozenset[str] = frozenset()  # those read in this run from their first byte on


class Settled(NamedTuple):
    """All events of a run, and what the parsers go on from."""

    entries: list[Entry]  # in order of time
    states: Mapping[str, Raw]  # per file, what to add to the parser's state at its cursor
    wrong: frozenset[str] = frozenset()  # identities that an earlier run may have given to turns of these files
    again: bool = False  # whether an earlier run may have read some of it under another name


class Stream(Protocol):
    """Reads objects one by one, wherever they come from."""

    def take(self, value: Raw, location: str, /) -> Iterator[Event]:
        """The events that an object completes."""
        ...

    def rest(self) -> Iterator[Event]:
        """The events that only the end decides."""
        ...


class StreamFormat(NamedTuple):
    """How the objects of a format are recognised and read."""

    relevant: read_lines.Relevant  # could a line matter?
    takes: Callable[[Raw], bool]  # is an object one of this format?
    open: Callable[[Intake, Callable[[], str]], Stream]  # the second: the time of an object that has none


class Reader(Protocol):
    """The reader of one client: what `read_clients.CLIENTS` names, and all that sync knows of a client.

    The methods with a body here suit clients with files that stand alone.
    """

    source: str  # as in the record
    client: str  # as in the record
    append_only: bool = False  # whether files only grow, so that nothing behind a cursor was read before
    in_pieces: bool = True  # whether the first run may read some of the files, write their events, and then read others
    stream: StreamFormat | None = None  # how the format is read from standard input, if it is
    # Whether the client removes turns that it has written. A remainder that sync reads is then all that a session used.
    whole_sums: bool = False

    def files(self, folder: str, /) -> Iterable[str]:
        """The files of one of the client's directories."""
        ...

    def claims(self, path: str, head: bytes, /) -> bool:
        """Whether a file is one of this client's, by its name and first bytes."""
        ...

    def hints(self, folder: str, /) -> Iterable[str]:
        """Sentences for the user about files that hold no counts or cannot be read."""
        return ()

    def lacks(self, paths: Sequence[str], /) -> bool:
        """Whether the caveat in the client's row of the table is true of some of these files."""
        return True

    def ranges(self, path: str, cursor: Cursor, count: int, /) -> Sequence[Cursor]:
        """Cursors of at most `count` parts of a file, for as many workers; together they read what the one cursor would.

        Each ends in the state from which the file is read on. Most files are one part.
        """
        return (cursor,)

    def dependents(self, first: Iterable[str], states: Mapping[str, str], /) -> Iterable[str]:
        """Files that were read before and mean something else now that other files are read for the `first` time.

        `states`: the parser's state of each that was read before, as compact JSON. They are read again.
        """
        return ()

    def parser(self, intake: Intake, /) -> Parser:
        """A parser for one worker."""
        ...

    def settle(self, shares: list[Share], files: Files, intake: Intake, /) -> Settled:
        """All events, from what the workers answered."""
        return Settled(read_records.merge(share["entries"] for share in shares), {})

    def sightings(self, paths: Iterable[str], identity: str, intake: Intake, /) -> Iterator[Sighting]:
        """Where some files hold an event. A file that cannot be read holds none."""
        ...


Ranges = Callable[[str, Cursor, int], Sequence[Cursor]]  # see Reader.ranges
Read = Callable[[str, Cursor, Intake], Iterable[Event]]  # the events of a file from its cursor on. Raises OSError, BadRecord


class FileReader(Reader):
    """A reader of files that stand alone, made from functions."""

    def __init__(
        self,
        source: str,
        client: str,
        files: Callable[[str], Iterable[str]],
        claims: Callable[[str, bytes], bool],
        read: Read,
        hints: Callable[[str], Iterable[str]] = lambda folder: (),
        stream: StreamFormat | None = None,
        ranges: Ranges = lambda path, cursor, count: (cursor,),
    ) -> None:
        self.source, self.client, self.stream = source, client, stream
        self._files, self._claims, self._read, self._hints, self._ranges = files, claims, read, hints, ranges

    def files(self, folder: str, /) -> Iterable[str]:
        """The files of one of the client's directories."""
        return self._files(folder)

    def claims(self, path: str, head: bytes, /) -> bool:
        """Whether a file is one of this client's, by its name and first bytes."""
        return self._claims(path, head)

    def hints(self, folder: str, /) -> Iterable[str]:
        """Sentences for the user about files that hold no counts or cannot be read."""
        return self._hints(folder)

    def ranges(self, path: str, cursor: Cursor, count: int, /) -> Sequence[Cursor]:
        """Cursors of at most `count` parts of a file, for as many workers."""
        return self._ranges(path, cursor, count)

    def parser(self, intake: Intake, /) -> Parser:
        """A parser for one worker."""
        return FileParser(self._read, intake)

    def sightings(self, paths: Iterable[str], identity: str, intake: Intake, /) -> Iterator[Sighting]:
        """Where some files hold an event. A file that cannot be read holds none."""
        for path in paths:
            intake.location = path
            try:
                for event in self._read(path, Cursor(), intake):
                    if event["id"] == identity:
                        yield intake.location, event, ""
            except (OSError, events.BadRecord):
                continue


class FileParser(Parser):
    """Reads files one by one, and joins what several of them saw."""

    def __init__(self, read: Read, intake: Intake) -> None:
        self._read, self._intake = read, intake
        self._events: dict[str, Event] = {}

    def read(self, path: str, cursor: Cursor, /) -> None:
        """Take in one file from its cursor on. Raises OSError, BadRecord."""
        read_records.keep(self._events, self._read(path, cursor, self._intake))

    def entries(self) -> Iterator[Entry]:
        """What was read, each thing once."""
        return ((event["ts"], event["id"], event) for event in self._events.values())
