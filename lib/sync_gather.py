"""Reads a client's files into events, each once, in order of time, from their start or from the cursors of `sync`.

Workers share the files. Each returns entries, which become records only on output (see `read_records`).
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import events, joins, light, projects, read_lines, read_records, read_sqlite, regular, workers
from tokenops.read_clients import Client
from tokenops.read_contract import Files, Intake, Options, Reader, Share
from tokenops.read_lines import Cursor
from tokenops.read_records import Entry

_HEAD, _TAIL = 1 << 12, 1 << 12


class Position(NamedTuple):
    """Where the reading of a file ended."""

    offset: int
    number: int  # of the lines before it
    state: dict[str, Any]  # the parser's
    head: str  # hashes of the file's first bytes and of those before the offset: is it still the same file?
    tail: str


class Batch:
    """What was read of one client."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.paths: dict[str, str] = {}  # project_id -> path
        self.rejected: list[tuple[str, str]] = []
        self.unread: list[tuple[str, int, str]] = []
        self.positions: dict[str, Position] = {}
        self.wrong: frozenset[str] = frozenset()  # see Settled
        self.again = False


def gather(
    client: Client,
    paths: Iterable[str],
    jobs: int | None = None,
    salt: bytes = b"",
    progress: workers.Progress = workers.SILENT,
    roots: Mapping[str, str] | None = None,
) -> Batch:
    """All events of some files of a client. `roots`: paths of projects that earlier runs kept. Raises workers.WorkerDied."""
    return read(client.reader(), {path: Cursor() for path in paths}, Options(salt, roots=roots or {}), jobs, progress)


class Task(NamedTuple):
    """What a worker reads at once: a file, or a part of one, from a cursor on."""

    path: str
    cursor: Cursor
    size: int


def read(
    reader: Reader,
    cursors: Mapping[str, Cursor],
    options: Options,
    jobs: int | None = None,
    progress: workers.Progress = workers.SILENT,
    files: Files | None = None,
) -> Batch:
    """What some files of a client hold from their cursors on. `files`: all of the client's. Raises workers.WorkerDied."""
    files = files or Files(list(cursors), lambda path: {})
    files = files._replace(whole=frozenset(path for path, cursor in cursors.items() if not cursor.offset))
    sizes = {path: size_of(path) for path in cursors}
    jobs = workers.worthwhile(sum(sizes.values())) if jobs is None else jobs
    tasks = dict(itertools.chain.from_iterable(_tasks(reader, path, cursors[path], sizes[path], jobs) for path in cursors))
    work = functools.partial(_share, reader, tasks, options)
    shares = workers.answers(work, {name: task.size for name, task in tasks.items()}, jobs, progress)
    batch, intake = Batch(), Intake(options)
    ends: dict[str, list[Position]] = {}
    for share in shares:
        batch.paths |= share["paths"]
        batch.rejected += share["rejected"]
        batch.unread += share["unread"]
        for path, fields in share["positions"]:
            ends.setdefault(path, []).append(Position(*fields))
    parts = Counter(task.path for task in tasks.values())
    batch.positions = {path: several[0] for path, several in ends.items() if len(several) == parts[path]}
    settled = reader.settle(shares, files, intake)
    batch.entries, batch.wrong, batch.again = settled.entries, settled.wrong, settled.again
    batch.paths |= intake.projects.paths
    for path in settled.states.keys() & batch.positions.keys():
        batch.positions[path].state.update(settled.states[path])
    return batch


def size_of(path: str) -> int:
    """The bytes of a file; 0 if it cannot be looked at."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _tasks(reader: Reader, path: str, cursor: Cursor, size: int, jobs: int) -> Iterator[tuple[str, Task]]:
    """The tasks that a file is for so many workers, by name."""
    cursors = reader.ranges(path, cursor, jobs) if jobs > 1 else (cursor,)
    for number, part in enumerate(cursors):
        yield (f"{path}\0{number}" if number else path), Task(path, part, size // len(cursors))


def _share(
    reader: Reader, tasks: Mapping[str, Task], options: Options, names: Iterable[str], progress: Callable[[int], None]
) -> Share:
    """What one worker reads. A file that cannot be read stops no other."""
    rejected: list[tuple[str, str]] = []
    unread: list[tuple[str, int, str]] = []
    positions: list[tuple[str, tuple[Any, ...]]] = []
    intake = Intake(options, lambda location, why: rejected.append((location, why)))
    parser = reader.parser(intake)
    for name in names:
        path, cursor, _ = tasks[name]
        begin = cursor.offset
        try:
            try:
                parser.read(path, cursor)
            except events.BadRecord as error:
                rejected.append((path, str(error)))  # once; again when the file has changed
            if options.resumable:
                end = (cursor.offset, cursor.number, cursor.state, *marks(path, cursor.offset))
                positions.append((path, end))
        except OSError as error:
            unread.append((path, error.errno or 0, error.strerror or ""))
        except Exception as error:  # a defect of ours, or unexpected damage: the other files go on
            rejected.append((path, f"cannot be read ({type(error).__name__}); please report it; skipped"))
        progress(max(cursor.offset - begin, 0))
    return {
        "entries": read_records.by_time(list(parser.entries())),
        "parts": parser.parts(),
        "positions": positions,
        "paths": intake.projects.paths,
        "rejected": rejected,
        "unread": unread,
    }


def marks(path: str, offset: int) -> tuple[str, str]:
    """Hashes of the first bytes of a file and of those before an offset. A database changes anywhere and has none."""
    if read_sqlite.is_database(path):
        return "", ""
    with open(path, "rb", buffering=0, opener=regular.opener) as file:
        head = file.read(min(_HEAD, offset))
        file.seek(max(0, offset - _TAIL))
        tail = file.read(min(_TAIL, offset))
    return _hash(head), _hash(tail)


def _hash(data: bytes) -> str:
    return light.blake2b(data, digest_size=8).hexdigest()


def read_stream(
    lines: Iterable[bytes], clients: Sequence[Client], salt: bytes, now: Callable[[], str]
) -> tuple[Batch, bool]:
    """The events in the lines of standard input, and whether any was of one of these clients' formats.

    Each object goes to the format that recognises it, so formats may be mixed. `now` gives the time of an object that has
    none.
    """
    batch = Batch()
    intake = Intake(Options(salt), lambda location, why: batch.rejected.append((location, why)))
    formats = [(reader.stream, reader.stream.open(intake, now)) for client in clients if (reader := client.reader()).stream]

    def relevant(line: bytearray, at: int, stop: int) -> bool:
        return any(form.relevant(line, at, stop) for form, _ in formats)

    values = read_lines.Values("stdin", relevant, intake.on_bad_line)
    seen: dict[str, events.Event] = {}
    recognised = False
    for line in lines:
        for location, value in values.take(line):
            stream = next((stream for form, stream in formats if form.takes(value)), None)
            if stream is not None:
                recognised = True
                read_records.keep(seen, stream.take(value, location))
    values.close()
    for _, stream in formats:
        read_records.keep(seen, stream.rest())
    batch.entries = read_records.entries_of(seen.values())
    batch.paths = intake.projects.paths
    return batch, recognised


def _join_sources(batches: list[list[Entry]]) -> list[list[Entry]]:
    """The entries of several batches, each turn once: its client's log, stream and telemetry may all hold it."""
    if len(batches) < 2 or not any(_is_second_source(entry) for entries in batches for entry in entries):
        return batches
    pairs = events.Pairs()
    same: dict[str, str] = {}
    seen: dict[str, Entry] = {}
    for entry in read_records.by_time(list(itertools.chain.from_iterable(batches))):
        name: str = entry[1]
        name = same.get(name, name)
        if name not in seen and read_records.alias_of(entry):
            name = same[entry[1]] = pairs.first(read_records.record(entry))
        if name in seen:
            event = joins.join(read_records.record(seen[name]), read_records.record(entry)) | {"id": name}
            seen[name] = (event["ts"], name, event)
        else:
            seen[name] = entry
    return [list(seen.values())]


def _is_second_source(entry: Entry) -> bool:
    """Whether a turn comes from a source that sees what a client's own log sees."""
    return len(entry) == 3 and entry[2].get("source") in ("claude-stream", "otel")


def in_order(
    batches: Iterable[Batch], salted: bool = True, since: str = "", until: str = "9", project: str | None = None
) -> Iterator[events.Event]:
    """The events of all batches in a span, in order of time, with projects of one name distinguished.

    Without a salt the hash of a project's path could be guessed, so it is left out.
    """
    batches = list(batches)
    paths: dict[str, str] = {}
    for batch in batches:
        paths |= batch.paths
    names = projects.labels(paths)
    chosen = {key for key, name in names.items() if project in (None, name, projects.label(paths[key]))}
    entries = [entry for several in _join_sources([batch.entries for batch in batches]) for entry in several]
    entries = read_records.by_time([entry for entry in entries if since <= entry[0] < until])
    blocks: dict[int, tuple[dict[str, Any], bool]] = {}

    def with_label(block: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        key = block.get("project_id", "")
        changed = projects.relabel(block, names)
        if not salted:
            changed = changed.copy()
            changed.pop("project_id", None)
        return changed, key in chosen

    for entry in entries:
        if len(entry) == 3:
            event, is_chosen = with_label(read_records.record(entry))
            if is_chosen or project is None:
                yield event
            continue
        shared = blocks.get(id(entry[4]))  # one attribution block serves all turns of its session
        if shared is None:
            shared = blocks[id(entry[4])] = with_label(entry[4])
        if shared[1] or project is None:
            yield read_records.turn_of((*entry[:4], shared[0], entry[5]))
