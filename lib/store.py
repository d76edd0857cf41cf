"""Reads and writes the log: append-only JSON Lines by UTC day. Only the store family touches the log's files.

    events/2026-11-21.jsonl      a closed day may be gzipped; late events then go to a sibling .jsonl, and both are read
    lock                         held by every writer, so that a line is never torn by another
    projects.json                the paths of projects by project_id, never part of an event
    cursors.json, summaries/     see store_cursors, store_days

When `append` returns, its events are on disk. If a crash leaves a torn line, the next writer isolates it and readers
skip it. The same turn may be written any number of times: readers join its sightings.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

import orjson

from tokenops import (
    datadir,
    events,
    joins,
    jsonl,
    machines,
    projects,
    store_files,
    store_folded,
    store_projects,
    store_records,
    store_rules,
    when,
)
from tokenops.events import Event
from tokenops.jsonl import OnBadLine, ignore_line
from tokenops.store_files import Day

# For lines that this module returns: those of other writers have been rearranged by then.
Header, header = store_files.Header, store_files.header
kind_of, has_field = store_files.kind_of, store_files.has_field
# For what stands in a line of the log's files: it may be two records.
unfold_record = store_folded.unfold_record
labels, remember_projects = store_projects.labels, store_projects.remember_projects
project_paths, projects_file = store_projects.project_paths, store_projects.projects_file
DayRecords = store_records.DayRecords
# So many days are written at once by the first run over a year, or by an import.
_MANY_DAYS = 64


def append(
    folder: str,
    lines: Iterable[bytes],
    durable: bool = True,
    patience: float = datadir.PATIENCE_S,
    owner: machines.Owner = machines.NOBODY,
) -> int:
    """Write finished lines to their days; how many. When this returns they are on the disk. Raises OSError.

    Those that name no machine are stamped with their `owner`, whom a writer of what this machine saw gives. What the user
    told the log to forget is left out. A day's lines are one write. If a write fails, the file is cut back to what it was,
    so that a full disk leaves no torn line behind; days before it may have been written, and writing them again does no
    harm.
    """
    lines_by_day: dict[str, list[bytes]] = {}
    for line in machines.stamp_all(lines, owner):
        lines_by_day.setdefault(store_files.day_of(line), []).append(line)
    if not lines_by_day:
        return 0
    paths = {day: store_files.path_of(folder, day) for day in sorted(lines_by_day)}
    events_folder = datadir.ensure_folder(store_files.folder_of(datadir.ensure_folder(folder)))
    with datadir.lock(folder, patience=patience):
        lines_by_day = store_rules.without_forgotten(folder, lines_by_day)
        _write_days({path: lines_by_day[day] for day, path in paths.items() if day in lines_by_day}, durable)
        if durable:
            datadir.flush(events_folder)
    return sum(map(len, lines_by_day.values()))


def sound_lines(lines: Iterable[bytes], on_refusal: Callable[[str], None]) -> list[bytes]:
    """Those of some lines that the log accepts: nobody could report from a log with the others. Says why of each other."""
    sound = []
    for line in lines:
        if why := store_files.fault_of(line):
            on_refusal(why)
        else:
            sound.append(line)
    return sound


def _write_days(lines: Mapping[str, list[bytes]], durable: bool) -> None:
    """Write each file's lines. Many files are written several at a time, which a disk does faster."""

    def write(path: str) -> None:
        _write(path, b"".join(store_folded.fold(lines[path])), durable)

    if not durable or len(lines) < _MANY_DAYS:
        for path in lines:
            write(path)
        return
    from concurrent.futures import ThreadPoolExecutor  # the import takes 10 ms, which does not pay for a few days

    with ThreadPoolExecutor(8) as executor:
        for _ in executor.map(write, lines):
            pass


def _write(path: str, content: bytes, durable: bool) -> None:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            content = b"\n" + content
        try:
            datadir.write(fd, content, durable)
        except OSError:
            os.ftruncate(fd, size)
            raise
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(fd)


def days(folder: str, first: str = "", last: str = "9") -> list[str]:
    """The days that the log has files of, from `first` to `last` (as texts), in order."""
    return [day.name for day in store_files.days(folder, first, last)]


def size(folder: str) -> int:
    """How many bytes the log's events take. Raises OSError."""
    return sum(os.path.getsize(path) for day in store_files.days(folder) for path in day.paths)


def sightings(folder: str, day: str, context: bool = True) -> Iterator[tuple[str, bytes]]:
    """Identity and line of each record in the files of a day; a record may have several sightings."""
    for files in store_files.days(folder, day, day):
        yield from day_sightings(files, ignore_line, context=context)


def day_sightings(day: Day, on_bad_line: OnBadLine, after: bytes = b"", context: bool = True) -> Iterator[tuple[str, bytes]]:
    """Identity and line of each record of a day, those `after` a time only if one is given; other lines are reported.

    Without `context`, records of that kind are passed over: few ask for them, and there is one for each turn.
    """
    for location, line in store_files.lines(day, on_bad_line, context=context):
        if after and line[store_files.TS] <= after and line.startswith(store_files.HEAD):
            continue
        pair = store_files.identify(line)
        if pair is not None:
            yield pair
        elif line.strip():
            on_bad_line(location, f"{store_files.damage_of(line)}; skipped")


def sightings_of(folder: str, identity: str, among: Container[str] | None = None) -> Iterator[tuple[str, Event]]:
    """Place and content of each sighting of one record, by its own id, of all days or `among` some."""
    needle = orjson.dumps(identity)
    for day in store_files.days(folder):
        if among is not None and day.name not in among:
            continue
        for location, line in store_files.lines(day, ignore_line):
            if needle in line and (pair := store_files.identify(line)) and pair[0] == identity:
                yield location, orjson.loads(line)


def place_in_log(location: str) -> str:
    """A place as seen from the log's directory."""
    folder, name = os.path.split(location)
    return os.path.join(os.path.basename(folder), name)


def scan(
    folder: str, since: str = "", until: str = "9", on_bad_line: OnBadLine = ignore_line, context: bool = False
) -> Iterator[bytes]:
    """The records of a span, each once, in order of time, as lines. Files outside of it are not opened.

    Records of the kind `context` are among them only if asked for.
    A day more is opened on either side: a sighting before midnight and one after it are one turn, of the day before.
    """
    first = when.stamp(when.moment(since) - when.DAY)[:10] if since else ""
    last = when.stamp(when.moment(until) - 1 + when.DAY)[:10] if until != "9" else "9"
    begin, end = since.encode(), until.encode()
    for _, records in records_by_day(folder, first, last, on_bad_line, context):
        yield from sorted(line for line in records.lines.values() if begin <= line[store_files.TS] < end)


def has_turn_with(folder: str, name: str, first: str, last: str) -> bool:
    """Whether a turn in the files of the days from `first` to `last` may have a field, in any form. Raises OSError."""
    needle = f'"{name}"'.encode()
    days = store_files.days(folder, first, last)
    return any(b'"turn"' in line for day in days for line in store_files.lines_with(day, needle))


def records_by_day(
    folder: str,
    first: str = "",
    last: str = "9",
    on_bad_line: OnBadLine = ignore_line,
    context: bool = False,
    sightings: Callable[[Day], Iterable[tuple[str, bytes]]] | None = None,
    among: Container[str] | None = None,
) -> Iterator[tuple[str, DayRecords]]:
    """The days from `first` to `last`, each with those sightings of its records that lie in the next day's files.

    `sightings`: chooses those of a day; `among`: the days to read.
    """
    before, previous = DayRecords(), ""
    for day in store_files.days(folder, first, last):
        if among is not None and day.name not in among:
            continue
        if previous and not follows(previous, day.name):
            yield previous, before
            before, previous = DayRecords(), ""
        records = DayRecords()
        for identity, line in sightings(day) if sightings else day_sightings(day, on_bad_line, context=context):
            is_earlier = identity in before or (before.pairs.waiting and identity not in records and before.awaits(line))
            (before if is_earlier else records).add(identity, line)
        if previous:
            yield previous, before
        before, previous = records, day.name
    if previous:
        yield previous, before


def follows(day: str, other: str) -> bool:
    """Whether the second of two days is the day after the first."""
    return day_after(day) == other


def day_after(day: str) -> str:
    """The day after one."""
    return when.stamp(when.moment(f"{day}T00:00:00Z") + when.DAY)[:10]


def day_before(day: str) -> str:
    """The day before one."""
    return when.stamp(when.moment(f"{day}T00:00:00Z") - when.DAY)[:10]


def records_after(folder: str, kind: str, moment: str, last: str) -> Iterator[Event]:
    """The records of a kind that began after a moment, up to a day; sightings of one day are joined. Raises OSError.

    Faster than `scan`, since the lines before the moment are not parsed.
    """
    begin, kind_bytes = moment.encode(), kind.encode()
    for day in store_files.days(folder, moment[:10], last):
        records = DayRecords()
        for identity, line in day_sightings(day, ignore_line, begin, kind == "context"):
            if line[store_files.TS] > begin and store_files.kind_of(line) == kind_bytes:
                records.add(identity, line)
        yield from map(orjson.loads, records.lines.values())


def of_kind(folder: str, kind: str, since: str = "", last: str = "9") -> Iterator[Event]:
    """The records of a rare kind since a moment, up to a day, in order of their days, once each."""
    return (record for record in _with_text(folder, store_files.needle_of(kind), since, last) if record["kind"] == kind)


def with_value(
    folder: str, field: str, value: str, since: str = "", is_prefix: bool = False, among: Container[str] | None = None
) -> Iterator[Event]:
    """The records since a moment in which a field holds a text, or begins with it, at any depth; sightings joined.

    Sightings of one record on two days are joined only if both hold it. The other lines are not parsed, nor days read
    that are not `among` some.
    """
    needle = f'"{field}":{jsonl.data_of(value).decode()}'
    return _with_text(folder, needle[:-1] if is_prefix else needle, since, among=among)


def _with_text(
    folder: str, text: str, since: str = "", last: str = "9", among: Container[str] | None = None
) -> Iterator[Event]:
    """The records since a moment, up to a day, in which some text stands."""
    records: dict[str, Event] = {}
    for day in store_files.days(folder, since[:10], last):
        if among is not None and day.name not in among:
            continue
        for line in store_files.lines_with(day, text.encode()):
            record = store_files.record_of(line)
            if record is not None and record["ts"] >= since:
                other = records.get(record["id"])
                records[record["id"]] = joins.join(other, record) if other else record
    return iter(records.values())


def cat(
    folder: str,
    since: str = "",
    until: str = "9",
    only: events.Filter = events.EVERY,
    on_bad_line: OnBadLine = ignore_line,
    context: bool = True,
) -> Iterator[bytes]:
    """The records of a span that a filter takes, as lines; projects of one name have different names.

    `context`: also those of kind context.
    """
    names = labels(folder)
    keys = [f'"project_id":"{key}"'.encode() for key in names]
    every = only == events.EVERY
    wants_context = context if only.kinds is None else "context" in only.kinds
    for line in scan(folder, since, until, on_bad_line, wants_context):
        if every and not any(key in line for key in keys):
            yield line
            continue
        event = projects.relabel(orjson.loads(line), names)
        if only.takes(event):
            yield jsonl.line_of(event)


def batches(path: str, on_bad_line: OnBadLine, most: int = 50_000) -> Iterator[list[tuple[str, bytes]]]:
    """Places and lines of a file of events, or of all days of another log's directory, so many at a time. Raises OSError."""
    batch: list[tuple[str, bytes]] = []
    for day in _days_below(path) if os.path.isdir(path) else [Day("", (path,))]:
        for place_and_line in store_files.lines(day, on_bad_line, tail=True):
            batch.append(place_and_line)
            if len(batch) == most:
                yield batch
                batch = []
    yield batch


def _days_below(path: str) -> list[Day]:
    """The days of a log's directory, or of its directory of events."""
    return store_files.days(path) or store_files.days(os.path.dirname(os.path.normpath(path)))


def new_lines(folder: str, lines: Iterable[bytes], owner: machines.Owner = machines.NOBODY) -> tuple[list[bytes], int]:
    """Those of some lines that would change what the log says, each at most once; and how many add to a record in it.

    If they have an `owner`, those are stamped: with it if the log did not have the record, under its own or an older
    identity, else with what the log says of that, so that reading a file again changes no stamp.
    """
    sightings = [(line, orjson.loads(line)) for line in sorted(dict.fromkeys(lines), key=store_files.day_of)]
    near = {other for line, _ in sightings for other in _near(store_files.day_of(line))}
    identities = {name for _, event in sightings for name in (event["id"], _older_identity(event))}
    records: dict[str, Event] = {}
    for files in store_files.days(folder):
        for identity, line in day_sightings(files, ignore_line) if files.name in near else ():
            if identity in identities:
                _add(records, identity, orjson.loads(line))
    fresh: list[bytes] = []
    owners = {identity: machines.owner_of(record) for identity, record in records.items()}
    completed = 0
    for line, event in sightings:
        name = event["id"]
        if _add(records, name, event):
            its_owner = owners.get(name, owners.get(_older_identity(event), owner))
            fresh.append(machines.stamp(line, its_owner) if owner.machine else line)
            completed += name in owners
    return fresh, completed


@functools.lru_cache(1024)
def _near(day: str) -> tuple[str, str, str]:
    """A day with the days beside it: a sighting of one of its turns may lie there."""
    return day_before(day), day, day_after(day)


def _older_identity(event: Event) -> str:
    """The identity that a record of the same turn may have in the log; "" if there is no other."""
    return str(event["alias"]) if events.names_older(event) else str(event.get("turn", ""))


def _add(records: dict[str, Event], identity: str, event: Event) -> bool:
    """Join a sighting to the records; whether that changed one."""
    other = records.get(identity)
    joined = event if other is None else joins.join(other, event)
    records[identity] = joined
    return joined != other
