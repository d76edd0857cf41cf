"""All of a client's files -> its events, each once, in order of time.

Workers answer with turns in a compact form; they become records only on their way out, while the next command in the
pipe is already at work.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import orjson

from tokenops import events, jsonl, projects, read_claude_turns, read_clients, read_codex_threads, read_lines, workers

# (time, id, record or its line), or a turn of the usual shape as its reader keeps it; in order of time when sorted.
Entry = tuple[Any, ...]


class Batch:
    """What was read of one client."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.paths: dict[str, str] = {}  # project_id -> path
        self.rejected: list[tuple[str, str]] = []
        self.unread: list[tuple[str, int, str]] = []

    def take(self, answer: dict[str, Any]) -> None:
        """Add another worker's answer, or another client's batch."""
        self.paths |= answer["paths"]
        self.rejected += answer["rejected"]
        self.unread += answer["unread"]


def record(entry: Entry) -> events.Event:
    """The record of an entry."""
    if len(entry) == 3:
        event: events.Event = entry[2] if type(entry[2]) is dict else orjson.loads(entry[2])
        return event
    return read_claude_turns.expanded(entry)


def line(entry: Entry) -> bytes:
    """The line of an entry."""
    made: bytes = entry[2] if len(entry) == 3 and type(entry[2]) is bytes else jsonl.line_of(record(entry))
    return made


def gather(
    client: read_clients.Client,
    paths: Sequence[str],
    jobs: int | None = None,
    salt: bytes = b"",
    progress: Callable[[int], None] = lambda size: None,
) -> Batch:
    """One client's events. Raises workers.Died."""
    work = _SPECIAL.get(client.name)
    if work is None:
        reader = client.reader()
        found = workers.answers(lambda share, told: records(reader, share, {}, salt, told), paths, jobs, progress)
    else:
        found = workers.answers(lambda share, told: work(share, salt, told), paths, jobs, progress)
    batch = Batch()
    for answer in found:
        batch.take(answer)
    if client.name == "codex":
        _threads(batch, [packed for answer in found for packed in answer["threads"]], salt)
    elif len(found) == 1:
        batch.entries = found[0]["entries"]
    else:
        join(batch, found)
    return batch


def _claude(share: Iterable[str], salt: bytes, told: Callable[[int], None]) -> dict[str, Any]:
    rejected: list[tuple[str, str]] = []
    unread: list[tuple[str, int, str]] = []
    transcripts = read_claude_turns.Transcripts(lambda place, why: rejected.append((place, why)), salt)
    for path in share:
        cursor = read_lines.Cursor()
        try:
            transcripts.read(path, cursor)
        except OSError as error:
            unread.append((path, error.errno or 0, error.strerror or ""))
        told(cursor.offset)
    entries: list[Entry] = [*transcripts.turns(), *((e["ts"], e["id"], e) for e in transcripts.others())]
    entries.sort()
    return {"entries": entries, "paths": transcripts.places.paths, "rejected": rejected, "unread": unread}


def _codex(share: Iterable[str], salt: bytes, told: Callable[[int], None]) -> dict[str, Any]:
    rejected: list[tuple[str, str]] = []
    unread: list[tuple[str, int, str]] = []
    threads = []
    buffer = bytearray(read_lines.BLOCK)
    for path in share:
        thread, cursor = read_codex_threads.thread_of(path), read_lines.Cursor()
        try:
            read_codex_threads.read(path, thread, cursor, buffer, lambda place, why: rejected.append((place, why)))
        except OSError as error:
            unread.append((path, error.errno or 0, error.strerror or ""))
        told(cursor.offset)
        if thread.rows:
            threads.append(read_codex_threads.packed(thread))
    return {"threads": threads, "paths": {}, "rejected": rejected, "unread": unread}


_SPECIAL: dict[str, Callable[..., dict[str, Any]]] = {"claude": _claude, "codex": _codex}


def records(
    reader: ModuleType,
    share: Iterable[str],
    cursors: Mapping[str, read_lines.Cursor],
    salt: bytes,
    told: Callable[[int], None],
    growing: bool = False,
) -> dict[str, Any]:
    """What some files of a client with a reader of the common shape hold from their cursors on; moves the cursors.

    `growing`: they are read again when they have grown, so what is undecided may wait.
    """
    rejected: list[tuple[str, str]] = []
    unread: list[tuple[str, int, str]] = []
    places = projects.Places(salt)
    places.growing = growing
    found: dict[str, events.Event] = {}
    read: list[str] = []
    for path in share:
        cursor = cursors.get(path) or read_lines.Cursor()
        begun = cursor.offset
        try:
            keep(found, reader.read(path, cursor, places, lambda place, why: rejected.append((place, why))))
            read.append(path)
        except OSError as error:
            unread.append((path, error.errno or 0, error.strerror or ""))
        except events.Bad as error:
            rejected.append((path, str(error)))
            read.append(path)  # told once; again when it has changed
        except Exception as error:  # a defect of ours, or damage that nobody thought of: the other files go on
            rejected.append((path, f"cannot be read ({type(error).__name__}); please report it; skipped"))
        told(max(cursor.offset - begun, 0))
    entries = sorted((event["ts"], event["id"], event) for event in found.values())
    return {"entries": entries, "paths": places.paths, "rejected": rejected, "unread": unread, "read": read}


def streamed(
    lines: Iterable[bytes], given: Sequence[read_clients.Client], salt: bytes, now: Callable[[], str]
) -> tuple[Batch, bool]:
    """The events in the lines of standard input, and whether any was of one of these clients' formats.

    Each object goes to the format that it looks like, so formats may be mixed. `now` says the time of what says none.
    """
    batch, places = Batch(), projects.Places(salt)

    def reject(place: str, why: str) -> None:
        batch.rejected.append((place, why))

    def wanted(line: bytearray, at: int, stop: int) -> bool:
        return any(reader.WANTED(line, at, stop) for reader, _ in formats)

    formats = [(reader, reader.Stream(places, reject, now)) for reader in (client.reader() for client in given)]
    values = read_lines.Values("stdin", wanted, reject)
    found: dict[str, events.Event] = {}
    known = False
    for line in lines:
        for place, value in values.take(line):
            stream = next((stream for reader, stream in formats if reader.takes(value)), None)
            if stream is not None:
                known = True
                keep(found, stream.take(value, place))
    values.close()
    for _, stream in formats:
        keep(found, stream.rest())
    batch.entries = sorted((event["ts"], event["id"], event) for event in found.values())
    batch.paths = places.paths
    return batch, known


def keep(known: dict[str, events.Event], arrived: Iterable[events.Event]) -> None:
    """Add sightings to those that are known, each thing once."""
    for event in arrived:
        seen = known.get(event["id"])
        known[event["id"]] = events.join(seen, event) if seen else event


def _threads(batch: Batch, packed: list[dict[str, Any]], salt: bytes) -> None:
    """The events of all threads: forks are told from their parents only when all are known."""
    places = projects.Places(salt)
    found: dict[str, events.Event] = {}
    for thread, rows in read_codex_threads.owned([read_codex_threads.unpacked(one) for one in packed]):
        for event in read_codex_threads.events_of(thread, rows, places):
            seen = found.get(event["id"])
            found[event["id"]] = events.join(seen, event) if seen else event
    batch.paths = places.paths
    batch.entries = sorted((event["ts"], event["id"], event) for event in found.values())


def join(batch: Batch, answers: list[dict[str, Any]]) -> None:
    """One list of several workers' entries, a turn that two of them saw joined."""
    known: dict[str, Entry] = {}
    for answer in answers:
        for entry in answer["entries"]:
            seen = known.get(entry[1])
            if seen is None:
                known[entry[1]] = entry
            else:
                event = events.join(record(seen), record(entry))
                known[event["id"]] = (event["ts"], event["id"], event)
    batch.entries = sorted(known.values())


def _met(several: list[list[Entry]]) -> list[list[Entry]]:
    """The entries of several batches, each turn once: its client's log, stream and telemetry may all have seen it."""
    if len(several) < 2 or not any(_seen_twice(entry) for entries in several for entry in entries):
        return several
    pairs = events.Pairs()
    same: dict[str, str] = {}
    known: dict[str, Entry] = {}
    for entry in sorted(itertools.chain.from_iterable(several), key=lambda entry: entry[:2]):
        name: str = entry[1]
        name = same.get(name, name)
        if len(entry) == 3 and "alias" in entry[2] and name not in known:
            name = same[entry[1]] = pairs.first(entry[2])
        if name in known:
            event = events.join(record(known[name]), record(entry)) | {"id": name}
            known[name] = (event["ts"], name, event)
        else:
            known[name] = entry
    return [list(known.values())]


def _seen_twice(entry: Entry) -> bool:
    return len(entry) == 3 and entry[2].get("source") in ("claude-stream", "otel")


def ordered(
    batches: Iterable[Batch], salted: bool = True, since: str = "", until: str = "9", project: str | None = None
) -> Iterator[events.Event]:
    """The events of all batches in a span, in order of time, projects of one name told apart.

    Without a salt the hash of a project's path could be guessed, so it is left out.
    """
    batches = list(batches)
    paths: dict[str, str] = {}
    for batch in batches:
        paths |= batch.paths
    names = projects.labels(paths)
    wanted = {key for key, name in names.items() if project in (None, name, projects.label(paths[key]))}
    met = _met([batch.entries for batch in batches])
    entries = [entry for several in met for entry in several if since <= entry[0] < until]
    entries.sort()
    changed: dict[int, tuple[dict[str, Any], bool]] = {}

    def named(block: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        key = block.get("project_id", "")
        made = projects.relabelled(block, names)
        return (made if salted else {k: v for k, v in made.items() if k != "project_id"}), key in wanted

    for entry in entries:
        if len(entry) == 3:
            event, kept = named(entry[2])
            if kept or project is None:
                yield event
            continue
        block = entry[4]  # one attribution block serves all turns of its session
        found = changed.get(id(block))
        if found is None:
            found = changed[id(block)] = named(block)
        if found[1] or project is None:
            yield read_claude_turns.expanded((*entry[:4], found[0]))
