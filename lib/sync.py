"""Imports what is new in the clients' files into the log, so that every byte is read once.

A cursor per file remembers how far it was read, and the parser's state there. Events are on the disk before the cursor
moves, so after a crash lines are read again, and identity makes that harmless.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import orjson

from tokenops import (
    datadir,
    events,
    machines,
    read_records,
    read_sqlite,
    show,
    store,
    store_cursors,
    store_rules,
    store_waiting,
    sync_gather,
    sync_origin,
    sync_remainders,
    workers,
)
from tokenops.read_clients import Client
from tokenops.read_contract import Files, Options
from tokenops.read_lines import Cursor

LOCK = "sync.lock"


class Outcome(NamedTuple):
    """What a run did at one source."""

    source: str
    files: int
    read: int
    bytes: int
    left: int  # bytes that the budget did not allow
    events: int
    rounds: int  # beside them: what was done, see `work`
    contexts: int  # beside them: what entered the context of each turn
    completed: int  # of all these, those that add to a record that the log had, such as tags
    rejected: list[tuple[str, str]]
    unread: list[tuple[str, int, str]]


class Budget(NamedTuple):
    """How much a run may do: bytes to read, and the reading of the monotonic clock at which to begin nothing more."""

    bytes: int
    until: float
    whole: bool = False  # whether a file that is larger is read all the same, alone


class News(NamedTuple):
    """What is new in one client's files: events, the cursors after them, and how many files and bytes were read."""

    batch: sync_gather.Batch
    after: dict[str, store_cursors.FileState]
    files: int = 0
    bytes: int = 0
    left: int = 0
    again: bool = False  # some were read before by an older revision of the reader


class Todo(NamedTuple):
    """A file with something new, and where to go on."""

    path: str
    stamp: read_sqlite.Stamp
    cursor: Cursor
    begin: int
    again: bool = False  # an older revision of the reader read it before

    def size(self) -> int:
        """The bytes to read."""
        return max(self.stamp.size - self.begin, 0)


# What an unbounded run reads of a client's files before it writes to the log: all that an interruption can cost.
PIECE = 256 << 20

Unread = list[tuple[str, int, str]]  # path, errno, and what it means


def changed_files(
    paths: Iterable[str], cursors: Mapping[str, store_cursors.FileState], unread: Unread, revision: int = 0
) -> list[Todo]:
    """The files that are not as they were, or that an older revision of the reader read.

    One of these, or one that was replaced, cut or rotated, is read from its beginning. `unread` gets those that cannot be
    looked at.
    """
    todo = []
    by_inode: dict[int, store_cursors.FileState] | None = None
    for path in paths:
        try:
            stamp = read_sqlite.stamp(path)
        except OSError as error:
            if error.errno != errno.ENOENT:  # else it is gone since it was listed
                unread.append((path, error.errno or 0, error.strerror or ""))
            continue
        before = cursors.get(path)
        again = before is not None and store_cursors.revision_of(before) < revision
        if before is not None and not again and (before.inode, before.size, before.mtime) == stamp:
            continue
        if before is None:
            by_inode = {cursor.inode: cursor for cursor in cursors.values()} if by_inode is None else by_inode
            before = by_inode.get(stamp.inode)
            again = before is not None and store_cursors.revision_of(before) < revision
        if before is not None and not again and before.inode == stamp.inode and _has_grown(path, stamp, before):
            cursor = Cursor(before.offset, before.number, orjson.loads(before.state))
        else:
            cursor = Cursor()
        todo.append(Todo(path, stamp, cursor, cursor.offset, again))
    return todo


def _has_grown(path: str, stamp: read_sqlite.Stamp, before: store_cursors.FileState) -> bool:
    """Whether a file is what it was, and more. One that changed without growing was written over."""
    if read_sqlite.is_database(path):
        return True  # its pages change anywhere; the reader decides by the rows
    if stamp.size < before.offset or (stamp.size == before.size and stamp.mtime != before.mtime):
        return False
    try:
        return sync_gather.marks(path, before.offset) == (before.head, before.tail)
    except OSError:
        return False


def news(
    client: Client,
    paths: list[str],
    cursors: dict[str, store_cursors.FileState],
    options: Options,
    jobs: int | None = None,
    progress: workers.Progress = workers.SILENT,
    budget: Budget | None = None,
    tried: set[str] | None = None,
    exists: Callable[[str], bool] = os.path.exists,
) -> News:
    """What is new in one client's files; with a budget, in the newest of them. Raises workers.WorkerDied.

    `tried`: files that the run has read already, or could not read. Those that are read now are added. `exists`: whether
    the cursor of a file that is not among the paths is kept.
    """
    tried = set() if tried is None else tried
    revision, unread = events.REVISIONS.get(client.source, 0), Unread()
    new = [file for file in changed_files(paths, cursors, unread, revision) if file.path not in tried]
    if not tried:  # what later pieces of a run read was there when its first piece was
        new = _with_dependents(client, new, cursors)
    chosen = affordable(new, budget) if budget else new
    now = {file.path for file in chosen}
    todo = {file.path: file for file in new if file.path in now}
    tried.update(todo)
    here = set(paths)
    after = {path: cursor for path, cursor in cursors.items() if path in here or exists(path)}
    left = sum(map(Todo.size, new)) - sum(map(Todo.size, todo.values()))
    if not todo:
        batch = sync_gather.Batch()
        batch.unread = unread
        return News(batch, after, left=left)
    files = Files(paths, lambda path: orjson.loads(cursors[path].state) if path in cursors else {})
    starts = {path: file.cursor for path, file in todo.items()}
    batch = sync_gather.read(client.reader(), starts, options._replace(resumable=True), jobs, progress, files)
    batch.unread += unread
    size = 0
    for path, end in batch.positions.items():
        stamp, state = todo[path].stamp, store_cursors.state_text(end.state, revision)
        offset = stamp.size if read_sqlite.is_database(path) else end.offset
        after[path] = store_cursors.FileState(*stamp, offset, end.number, end.head, end.tail, state)
        size += max(offset - todo[path].begin, 0)
    return News(batch, after, len(todo), size, left, any(file.again for file in todo.values()))


def _with_dependents(client: Client, new: list[Todo], cursors: Mapping[str, store_cursors.FileState]) -> list[Todo]:
    """The files with something new, and those that say something else because a file that they depend on came later."""
    first = [file.path for file in new if file.path not in cursors]
    if not first or not cursors:
        return new
    again = set(client.reader().dependents(first, {path: file.state for path, file in cursors.items()}))
    todo = [file for file in new if file.path not in again]
    for path in sorted(again):
        with contextlib.suppress(OSError):
            todo.append(Todo(path, read_sqlite.stamp(path), Cursor(), 0, True))
    return todo


def affordable(new: list[Todo], budget: Budget) -> list[Todo]:
    """The newest files that together have at most so many new bytes."""
    chosen: list[Todo] = []
    most = budget.bytes
    for file in sorted(new, key=lambda file: -file.stamp.mtime):
        most -= file.size()
        if most < 0 and (chosen or not budget.whole):
            break
        chosen.append(file)
    return chosen


def unread_size(folder: str, sources: Iterable[tuple[Client, list[str]]], backfill: bool = False) -> int:
    """How many bytes a run has to read."""
    cursors = {} if backfill else store_cursors.load(folder)
    return sum(
        file.size()
        for client, paths in sources
        for file in changed_files(paths, cursors.get(client.source, {}), [], events.REVISIONS.get(client.source, 0))
    )


def run(
    folder: str,
    sources: Iterable[tuple[Client, list[str]]],
    backfill: bool = False,
    dry: bool = False,
    jobs: int | None = None,
    progress: workers.Progress = workers.SILENT,
    budget: Budget | None = None,
    partial: bool = False,
    patience: float = datadir.PATIENCE_S,
    owner: machines.Owner = machines.NOBODY,
    origin: sync_origin.Origin | None = None,
) -> list[Outcome] | None:
    """Import what is new at every source; None if another run is at work. Raises OSError, workers.WorkerDied.

    `sources`: clients and their files; of a `partial` run only some of these, so it does not count as a whole one. A log
    of made-up data imports nothing. `owner`: the machine and the user that events which the log does not have are of.
    `origin`: of another machine's files, which are `partial`.
    """
    if datadir.is_demo(folder):
        return []
    with datadir.lock(origin.folder if origin else folder, LOCK, wait=False) as mine:
        if not mine:
            return None
        options = Options(datadir.salt(folder, make=not dry), work=True, roots=store.project_paths(folder), whole_sums=True)
        cursors = origin.load() if origin else store_cursors.load(folder)
        how = _How(folder, cursors, options, backfill, dry, jobs, progress, patience, owner, origin)
        outcomes = []
        whole = not partial
        if progress.wants_total:
            sources = list(sources)
            progress.expect(unread_size(folder, sources, backfill))
        if not dry:
            if not origin:
                machines.remember(folder, owner)
            store_waiting.take(folder, patience, owner)
        for client, paths in sources:
            if budget and time.monotonic() > budget.until:
                whole = False
                break
            outcomes.append(_import(client, paths, how, budget))
        if not dry and whole and not any(outcome.left for outcome in outcomes):
            _mark_synced(folder)
        return outcomes


class _How(NamedTuple):
    """What a run does alike at every source."""

    folder: str
    cursors: dict[str, dict[str, store_cursors.FileState]]
    options: Options
    backfill: bool
    dry: bool
    jobs: int | None
    progress: workers.Progress
    patience: float
    owner: machines.Owner
    origin: sync_origin.Origin | None

    def exists(self, path: str) -> bool:
        """Whether a file exists where it was read."""
        return self.origin.exists(path) if self.origin else os.path.exists(path)

    def save_cursors(self) -> None:
        """Keep the cursors. Raises OSError."""
        if self.origin:
            self.origin.save(self.cursors)
        else:
            store_cursors.save(self.folder, self.cursors)


def _import(client: Client, paths: list[str], how: _How, budget: Budget | None) -> Outcome:
    """Import what is new at one source; without a budget in pieces, of which each is in the log before the next is read."""
    in_pieces = client.reader().in_pieces and not how.dry
    piece = budget or (Budget(PIECE, float("inf"), whole=True) if in_pieces else None)
    pieces: list[Outcome] = []
    tried: set[str] = set()
    earlier = how.cursors.get(client.source, {})
    # A backfill begins without cursors; until it has read a file again, the file keeps the one that it has.
    before = {} if how.backfill else earlier
    while not pieces or (piece is not budget and pieces[-1].left):
        new = news(client, paths, before, how.options, how.jobs, how.progress, piece, tried, how.exists)
        lines, completed = _write(client, new, how)
        if not how.dry and (new.after != before or how.backfill):
            kept = {path: cursor for path, cursor in earlier.items() if how.backfill and how.exists(path)}
            how.cursors[client.source] = kept | new.after
            how.save_cursors()
        before = new.after
        pieces.append(_outcome(client, len(paths), new, lines, completed))
    return total(pieces)


def _write(client: Client, new: News, how: _How) -> tuple[list[bytes], int]:
    """Write what is new to the log: the lines that change it, and how many of them add to a record. Raises OSError."""

    def on_refusal(why: str) -> None:
        new.batch.rejected.append((client.source, f"one of its records cannot be stored: {why}; skipped"))

    sound = store.sound_lines(map(read_records.line, new.batch.entries), on_refusal)
    counting = sync_remainders.beyond_turns if client.reader().whole_sums else sync_remainders.without_wire
    every = counting(how.folder, sound)
    lines, forgotten, named = store_rules.remaining(how.folder, every, how.dry)
    away = {path for key, path in new.batch.paths.items() if key in named}
    completed, owner = 0, how.owner
    again = how.backfill or new.again
    if how.origin:
        # The log may have it from somewhere else. Of two machines' names the smaller stays, whatever came first.
        lines, completed = store.new_lines(how.folder, list(machines.stamp_all(lines, owner)))
    # Documents are read whole when they change, and so are files of which something was forgotten.
    elif lines and (again or forgotten or new.batch.again or not client.reader().append_only):
        lines, completed = store.new_lines(how.folder, lines, how.owner)
        owner = machines.NOBODY
    if not how.dry:
        paths = {key: path for key, path in new.batch.paths.items() if path not in away}
        store.remember_projects(how.folder, paths, how.patience)
        store.append(how.folder, lines, patience=how.patience, owner=owner)
        if again and client.source in events.REVISIONS:
            from tokenops import store_upkeep  # needed after an upgrade only

            store_upkeep.retire(how.folder, every, new.batch.wrong)
    return lines, completed


def _outcome(client: Client, files: int, new: News, lines: list[bytes], completed: int) -> Outcome:
    """What a run did at one source: the lines are those that the log did not have, or that add to what it had."""
    kinds = collections.Counter(map(store.kind_of, lines))
    rounds, contexts = kinds[b"work"], kinds[b"context"]
    # Clients move and delete files between our listing and our reading; one that was moved is read the next time.
    unread = [file for file in new.batch.unread if file[1] != errno.ENOENT]
    counts = (files, new.files, new.bytes, new.left, len(lines) - rounds - contexts, rounds, contexts, completed)
    return Outcome(client.source, *counts, new.batch.rejected, unread)


def total(pieces: list[Outcome]) -> Outcome:
    """What a run did at one source in several pieces. Each of them looks at a file that cannot be read: it counts once."""
    return pieces[-1]._replace(
        read=sum(piece.read for piece in pieces),
        bytes=sum(piece.bytes for piece in pieces),
        events=sum(piece.events for piece in pieces),
        rounds=sum(piece.rounds for piece in pieces),
        contexts=sum(piece.contexts for piece in pieces),
        completed=sum(piece.completed for piece in pieces),
        rejected=[line for piece in pieces for line in piece.rejected],
        unread=list(dict.fromkeys(file for piece in pieces for file in piece.unread)),
    )


def _mark_synced(folder: str) -> None:
    fd = os.open(os.path.join(folder, datadir.SYNCED), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.utime(fd)
    finally:
        os.close(fd)


def as_record(outcome: Outcome, origin: str = "") -> events.Event:
    """An outcome as a record for programs. `origin`: the other machine that it was pulled from, as the user calls it."""
    return {
        "v": 1,
        "kind": "sync",
        "source": outcome.source,
        **({"from": origin} if origin else {}),
        "files": outcome.files,
        "files_read": outcome.read,
        "files_unchanged": outcome.files - outcome.read,
        "bytes_read": outcome.bytes,
        "bytes_left": outcome.left,
        "events": outcome.events,
        "rounds": outcome.rounds,
        "contexts": outcome.contexts,
        "completed": outcome.completed,
        "rejected": len(outcome.rejected),
        "unread": len(outcome.unread),
    }


_RANKS = {
    "files": 4,
    "files_read": 2,
    "files_unchanged": 6,
    "bytes_read": 5,
    "events": 0,
    "rounds": 3,
    "rejected": 1,
    "unread": 1,
}


def table(rows: list[events.Event], shape: str, color: bool, verbose: bool = False) -> str:
    """Outcomes for people; below them what was published."""
    published = [row for row in rows if row["kind"] != "sync"]
    rows = [row for row in rows if row["kind"] == "sync"]
    columns = [show.Column("source", [row["source"] for row in rows], False, 0)]
    if any("from" in row for row in rows):
        columns.append(show.Column("from", [row.get("from", "here") for row in rows], False, 0))
    for name, rank in _RANKS.items():
        values = [row[name] for row in rows]
        styles = ["bad" if value and name in ("rejected", "unread") else "" for value in values]
        cells, short = ([text(value) for value in values] for text in ("{:,}".format, show.compact))
        columns.append(show.Column(name.replace("_", " "), cells, True, rank, short, styles))
    notes = [
        f"published to {row['to']}: {show.plural(row['lines'], 'line')} of {show.plural(row['days'], 'day')}"
        for row in published
    ]
    return (show.table(columns, shape, color=color) if rows else "") + show.notes(notes, shape, color, verbose=True)
