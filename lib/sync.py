"""Client files -> the log: every byte read once.

A cursor per file remembers how far it was read, and the parser's state there. Events are on the disk before the cursor
moves, so a crash makes us read again, and identity makes that harmless.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import orjson

from tokenops import (
    datadir,
    events,
    jsonl,
    projects,
    read_claude_turns,
    read_clients,
    read_codex_threads,
    read_lines,
    read_sqlite,
    show,
    store,
    store_cursors,
    sync_gather,
    workers,
)

LOCK = "sync.lock"
_HEAD, _TAIL = 256, 64
_ROUND = b'"kind":"work"'


class Outcome(NamedTuple):
    """What a run found at one source."""

    source: str
    files: int
    read: int
    bytes: int
    left: int  # bytes that the budget did not allow
    events: int
    rounds: int  # beside them: what was done, see `work`
    rejected: list[tuple[str, str]]
    unread: list[tuple[str, int, str]]


class Budget(NamedTuple):
    """How much a run may do: bytes to read, and the reading of the monotonic clock at which to begin nothing more."""

    bytes: int
    until: float


class Found(NamedTuple):
    """What is new in one client's files: events, the cursors after them, and how many files and bytes were read."""

    batch: sync_gather.Batch
    after: dict[str, store_cursors.Held]
    files: int = 0
    bytes: int = 0
    left: int = 0


class Todo(NamedTuple):
    """A file with something new, and where to go on."""

    path: str
    stamp: read_sqlite.Stamp
    cursor: read_lines.Cursor
    begun: int


Told = Callable[[int], None]


def changed(paths: Iterable[str], held: Mapping[str, store_cursors.Held]) -> list[Todo]:
    """The files that are not as they were. One that was replaced, cut or rotated is read from its beginning."""
    found = []
    moved: dict[int, store_cursors.Held] | None = None
    for path in paths:
        try:
            stamp = read_sqlite.stamp(path)
        except OSError:
            continue  # gone since it was listed
        known = held.get(path)
        if known is not None and (known.inode, known.size, known.mtime) == stamp:
            continue
        if known is None:
            moved = {one.inode: one for one in held.values()} if moved is None else moved
            known = moved.get(stamp.inode)
        if known is not None and known.inode == stamp.inode and _grown(path, stamp, known):
            cursor = read_lines.Cursor(known.offset, known.number, orjson.loads(known.state))
        else:
            cursor = read_lines.Cursor()
        found.append(Todo(path, stamp, cursor, cursor.offset))
    return found


def _grown(path: str, stamp: read_sqlite.Stamp, known: store_cursors.Held) -> bool:
    """Whether a file is what it was, and more. One that changed without growing was written over."""
    if read_sqlite.is_one(path):
        return True  # its pages change anywhere; the reader tells by the rows
    if stamp.size < known.offset or (stamp.size == known.size and stamp.mtime != known.mtime):
        return False
    try:
        return _marks(path, known.offset) == (known.head, known.tail)
    except OSError:
        return False


def _marks(path: str, offset: int) -> tuple[str, str]:
    """Hashes of the first bytes of a file and of those before an offset."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(min(_HEAD, offset))
        file.seek(max(0, offset - _TAIL))
        tail = file.read(min(_TAIL, offset))
    return _hash(head), _hash(tail)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def source(
    client: read_clients.Client,
    paths: list[str],
    held: dict[str, store_cursors.Held],
    salt: bytes,
    jobs: int | None,
    told: Told,
    budget: Budget | None = None,
    rounds: bool = False,
) -> Found:
    """What is new in one client's files; with a budget, in the newest of them. `rounds`: what was done in them, too."""
    new = changed(paths, held)
    chosen = affordable(new, budget.bytes) if budget else new
    todo = {one.path: one for one in chosen}
    here = set(paths)
    after = {path: one for path, one in held.items() if path in here or os.path.exists(path)}
    batch = sync_gather.Batch()
    left = sum(map(_size, new)) - sum(map(_size, chosen))
    if not todo:
        return Found(batch, after, left=left)
    if client.name in _SPECIAL:
        work = functools.partial(_SPECIAL[client.name], rounds)
    else:
        work = functools.partial(_common, client.reader())
    answers = workers.answers(lambda share, say: work(share, todo, salt, say), list(todo), jobs, told)
    read = 0
    for answer in answers:
        batch.take(answer)
        for path, (offset, number, state, head, tail) in answer["cursors"].items():
            after[path] = store_cursors.Held(*todo[path].stamp, offset, number, head, tail, store_cursors.state_text(state))
            read += max(offset - todo[path].begun, 0)
    if client.name == "codex":
        whole = {path for path, one in todo.items() if not one.begun}
        _settle_threads(batch, answers, after, paths, salt, whole)
    elif len(answers) == 1:
        batch.entries = answers[0]["entries"]
    else:
        sync_gather.join(batch, answers)
    return Found(batch, after, len(todo), read, left)


def _size(one: Todo) -> int:
    return max(one.stamp.size - one.begun, 0)


def affordable(new: list[Todo], most: int) -> list[Todo]:
    """The newest files that together have at most so many new bytes."""
    chosen = []
    for one in sorted(new, key=lambda one: -one.stamp.mtime):
        most -= _size(one)
        if most < 0:
            break
        chosen.append(one)
    return chosen


def _claude(rounds: bool, share: Iterable[str], todo: Mapping[str, Todo], salt: bytes, told: Told) -> dict[str, Any]:
    answer: dict[str, Any] = {"rejected": [], "unread": [], "cursors": {}}
    transcripts = read_claude_turns.Transcripts(lambda place, why: answer["rejected"].append((place, why)), salt)
    done: dict[str, events.Event] = {}

    def read(path: str, cursor: read_lines.Cursor) -> None:
        from tokenops import read_claude_work  # 7 ms that a run with nothing to read need not wait for

        sync_gather.keep(done, read_claude_work.read(transcripts, path, cursor))

    for path in share:
        _read(path, todo[path].cursor, read if rounds else transcripts.read, answer, told)
    entries: list[sync_gather.Entry] = [*transcripts.turns(), *((e["ts"], e["id"], e) for e in transcripts.others())]
    # As lines: another process takes them over twenty times faster than records.
    entries += [(event["ts"], event["id"], jsonl.line_of(event)) for event in done.values()]
    return answer | {"entries": sorted(entries), "paths": transcripts.places.paths}


def _common(reader: ModuleType, share: Iterable[str], todo: Mapping[str, Todo], salt: bytes, told: Told) -> dict[str, Any]:
    """What is new in the files of a client whose reader has the common shape."""
    cursors = {path: one.cursor for path, one in todo.items()}
    answer = sync_gather.records(reader, share, cursors, salt, told, growing=True)
    answer["cursors"] = {}
    for path in answer.pop("read"):
        cursor = cursors[path]
        if read_sqlite.is_one(path):
            marks, cursor.offset = ("", ""), todo[path].stamp.size
        else:
            try:
                marks = _marks(path, cursor.offset)
            except OSError:
                continue
        answer["cursors"][path] = (cursor.offset, cursor.number, cursor.state, *marks)
    return answer


def _read(
    path: str, cursor: read_lines.Cursor, read: Callable[[str, read_lines.Cursor], None], answer: dict[str, Any], told: Told
) -> bool:
    """Read one file from its cursor, and note where the cursor stands then."""
    begun = cursor.offset
    try:
        read(path, cursor)
        marks = _marks(path, cursor.offset)
    except OSError as error:
        answer["unread"].append((path, error.errno or 0, error.strerror or ""))
        return False
    answer["cursors"][path] = (cursor.offset, cursor.number, cursor.state, *marks)
    told(cursor.offset - begun)
    return True


def _codex(rounds: bool, share: Iterable[str], todo: Mapping[str, Todo], salt: bytes, told: Told) -> dict[str, Any]:
    answer: dict[str, Any] = {"rejected": [], "unread": [], "cursors": {}, "threads": {}, "paths": {}}
    buffer = bytearray(read_lines.BLOCK)
    places = projects.Places(salt)
    done: dict[str, events.Event] = {}

    def reject(place: str, why: str) -> None:
        answer["rejected"].append((place, why))

    for path in share:
        cursor = todo[path].cursor
        thread = read_codex_threads.unpacked(cursor.state["thread"]) if "thread" in cursor.state else read_codex_threads.thread_of(path)

        def read(path: str, cursor: read_lines.Cursor, thread: read_codex_threads.Thread = thread) -> None:
            if rounds:
                from tokenops import read_codex_work

                sync_gather.keep(done, read_codex_work.read(path, thread, cursor, buffer, reject, salt).records(places))
            else:
                read_codex_threads.read(path, thread, cursor, buffer, reject)

        if _read(path, cursor, read, answer, told):
            answer["threads"][path] = read_codex_threads.packed(thread)
    answer["paths"] = places.paths
    answer["entries"] = [(event["ts"], event["id"], event) for event in done.values()]
    return answer


_SPECIAL: dict[str, Callable[..., dict[str, Any]]] = {"claude": _claude, "codex": _codex}


def _settle_threads(
    batch: sync_gather.Batch,
    answers: list[dict[str, Any]],
    after: dict[str, store_cursors.Held],
    paths: list[str],
    salt: bytes,
    whole: set[str],
) -> None:
    """The events of new rows, told from copies of their ancestors' rows; and the state to go on from.

    Of a rollout that was not read `whole` only the new rows are known, so as an ancestor it is read again.
    """
    read = {path: read_codex_threads.unpacked(data) for answer in answers for path, data in answer["threads"].items()}
    states = {path: orjson.loads(one.state) for path, one in after.items()}
    named = {path: state["thread"]["id"] for path, state in states.items() if "thread" in state}
    by_id = {named.get(path) or read_codex_threads.thread_of(path).id: path for path in paths}
    kin = _ancestors([thread for thread in read.values() if not thread.settled()], by_id, whole)
    places = projects.Places(salt)
    found: dict[str, events.Event] = {}
    fresh = {id(thread) for thread in read.values()}
    for thread, rows in read_codex_threads.owned([*read.values(), *kin]):
        if id(thread) in fresh:
            old = {id(row) for row in thread.rows[: thread.waiting] if not row.model}
            for event in read_codex_threads.events_of(thread, [one for one in rows if id(one[0]) not in old], places):
                seen = found.get(event["id"])
                found[event["id"]] = events.join(seen, event) if seen else event
            if any(key.split(":", 2)[1] == thread.id for _, key in rows):
                thread.settle()
    for path, thread in read.items():
        # Rows without a model wait: once it is named they are written again, with it.
        thread.rows = [row for row in thread.rows if not row.model]
        thread.waiting = len(thread.rows)
        after[path] = after[path]._replace(
            state=store_cursors.state_text(states[path] | {"thread": read_codex_threads.packed(thread)})
        )
    batch.paths |= places.paths
    for answer in answers:
        sync_gather.keep(found, (event for _, _, event in answer["entries"]))
    batch.entries = sorted((event["ts"], event["id"], event) for event in found.values())


def _ancestors(threads: list[read_codex_threads.Thread], by_id: Mapping[str, str], known: set[str]) -> list[read_codex_threads.Thread]:
    """The rollouts of the parents, grandparents, ... of some threads, read whole."""
    found: dict[str, read_codex_threads.Thread] = {}

    def nearest(thread: read_codex_threads.Thread) -> list[str]:
        return [name for name in thread.ancestors() if name in by_id][:1]

    waiting = [name for thread in threads for name in nearest(thread)]
    buffer = bytearray(read_lines.BLOCK)
    while waiting:
        name = waiting.pop()
        path = by_id[name]
        if name in found or path in known:
            continue
        thread = found[name] = read_codex_threads.thread_of(path)
        try:
            read_codex_threads.read(path, thread, read_lines.Cursor(), buffer, lambda place, why: None)
        except OSError:
            continue
        waiting += nearest(thread)
    return list(found.values())


def run(
    folder: str,
    found: Iterable[tuple[read_clients.Client, list[str]]],
    backfill: bool = False,
    dry: bool = False,
    jobs: int | None = None,
    told: Callable[[str], Told] = lambda name: lambda size: None,
    budget: Budget | None = None,
    partial: bool = False,
) -> list[Outcome] | None:
    """Take in what is new at every source; None where another run is at work. Raises OSError, workers.Died.

    A `partial` run is given only some of the files: it does not count as a whole one. A log of made-up data takes nothing
    in.
    """
    if datadir.is_demo(folder):
        return []
    with datadir.locked(folder, LOCK, wait=False) as mine:
        if not mine:
            return None
        salt = datadir.salt(folder, make=not dry)
        cursors = store_cursors.load(folder)
        outcomes = []
        whole = not partial
        for client, paths in found:
            if budget and time.monotonic() > budget.until:
                whole = False
                break
            held = {} if backfill else cursors.get(client.source, {})
            new = source(client, paths, held, salt, jobs, told(client.name), budget, rounds=True)
            lines = [sync_gather.line(entry) for entry in new.batch.entries]
            if backfill or client.name not in _SPECIAL:  # documents are read as a whole whenever they change
                lines = store.unknown_to(folder, lines)
            if not dry:
                store.remember(folder, new.batch.paths)
                store.append(folder, lines)
                if new.after != held or backfill:
                    cursors[client.source] = new.after
                    store_cursors.save(folder, cursors)
            batch, rounds = new.batch, sum(line.find(_ROUND, 37, 60) > 0 for line in lines)
            counts = (len(paths), new.files, new.bytes, new.left, len(lines) - rounds, rounds)
            # Clients move and delete files between our listing and our reading; one that was moved is read the next time.
            unread = [one for one in batch.unread if one[1] != errno.ENOENT]
            outcomes.append(Outcome(client.source, *counts, batch.rejected, unread))
        if not dry and whole and not any(one.left for one in outcomes):
            _mark(folder)
        return outcomes


def _mark(folder: str) -> None:
    fd = os.open(os.path.join(folder, datadir.SYNCED), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.utime(fd)
    os.close(fd)


def shown(outcome: Outcome) -> events.Event:
    """An outcome as a record for programs."""
    return {
        "v": 1,
        "kind": "sync",
        "source": outcome.source,
        "files": outcome.files,
        "files_read": outcome.read,
        "files_unchanged": outcome.files - outcome.read,
        "bytes_read": outcome.bytes,
        "bytes_left": outcome.left,
        "events": outcome.events,
        "rounds": outcome.rounds,
        "rejected": len(outcome.rejected),
        "unread": len(outcome.unread),
    }


def table(rows: list[events.Event], shape: str, color: bool) -> str:
    """Outcomes for people."""
    names = ("files", "files_read", "files_unchanged", "bytes_read", "events", "rounds", "rejected", "unread")
    columns = [show.Column("source", [row["source"] for row in rows], number=False)]
    columns += [show.Column(name.replace("_", " "), [f"{row[name]:,}" for row in rows]) for name in names]
    return show.table(columns, shape, color=color)
