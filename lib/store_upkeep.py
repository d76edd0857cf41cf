"""Verifies the log, rewrites its days with sightings joined, and packs or drops old days.

Every function holds the lock while it changes a file; a crash at any point leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import orjson

from tokenops import (
    config,
    datadir,
    events,
    fields,
    joins,
    machines,
    projects,
    regular,
    store,
    store_cursors,
    store_days,
    store_files,
    store_folded,
    store_projects,
    store_rules,
    when,
)
from tokenops.events import Event
from tokenops.jsonl import ignore_line

_TEMPORARY = re.compile(r"(.+)\.\d+\Z")


class Finding(NamedTuple):
    """A problem in the log: where, what, and what to do."""

    location: str
    problem: str
    remedy: str

    def row(self) -> Event:
        """The same as a record for programs."""
        return {"v": 1, "kind": "finding", "place": self.location, "problem": self.problem, "remedy": self.remedy}


class Compacted(NamedTuple):
    """A day that was rewritten: its records before and after, and the lines that were not records."""

    day: str
    before: int
    after: int
    rejected: int


def compact(folder: str, today: str, pack: bool = False) -> Iterator[Compacted]:
    """Rewrite each day that is not as it should be: in order, its sightings joined, contexts folded. Raises OSError.

    `pack` gzips the days before `today`. Records of another day go there, lines that are not records to rejected/;
    nothing is thrown away, and a day with a damaged archive is left alone.
    """
    for name in store.days(folder):
        strangers = frozenset(line for _, line in store.sightings(folder, name) if store_files.day_of(line) != name)
        store.append(folder, strangers)
        with datadir.lock(folder):
            for day in store_files.days(folder, name, name):
                compacted = _compact_day(folder, day, pack and name < today, strangers)
                if compacted is not None:
                    yield compacted
    with datadir.lock(folder):
        for path in _leftovers(folder):
            os.unlink(path)


def adopt(folder: str, owner: machines.Owner, dry: bool = False) -> Iterator[tuple[str, int]]:
    """Stamp each record that names no machine; the days with such records, and how many. Raises OSError.

    A day is rewritten, as `compact` does it, only if it has one; each is whole at every moment, so an adoption that was
    interrupted goes on when it is run again, and a second one finds nothing.
    """
    for name in store.days(folder):
        with datadir.lock(folder):
            for day in store_files.days(folder, name, name):
                if count := _count_without_machine(day):
                    if not dry:
                        _compact_day(folder, day, day.paths[0].endswith(".gz"), frozenset(), owner)
                    yield name, count


def _count_without_machine(day: store_files.Day) -> int:
    """How many records of a day name no machine in any sighting of that day."""
    records = store.DayRecords()
    for pair in store.day_sightings(day, ignore_line):
        records.add(*pair)
    return sum(not machines.is_stamped(line) for line in records.lines.values())


def _compact_day(
    folder: str, day: store_files.Day, packed: bool, strangers: frozenset[bytes], owner: machines.Owner = machines.NOBODY
) -> Compacted | None:
    """Rewrite a day; records without a machine get the `owner`. None if it stays as it is."""
    records, count = store.DayRecords(), 0
    rejected: list[bytes] = []
    newer: list[bytes] = []  # records of a later version, which stay for the program that can read them
    broken: list[str] = []
    for _, line in store_files.lines(day, lambda place, why: broken.append(place), tail=True):
        pair = store_files.identify(line)
        if pair is None:
            if line.strip():
                (newer if store_files.is_newer(line) else rejected).append(line.rstrip(b"\n") + b"\n")
            continue
        count += 1
        if pair[1] not in strangers:
            records.add(*pair)
    path = store_files.path_of(folder, day.name, packed)
    lines = sorted(machines.stamp_all(records.lines.values(), owner))
    content = b"".join([*store_folded.fold(lines), *dict.fromkeys(newer)])
    if broken or (not rejected and day.paths == (path,) and content == b"".join(store_files.whole_lines(day))):
        return None
    if rejected:
        reject_file = os.path.join(datadir.ensure_folder(_reject_folder(folder)), f"{day.name}.txt")
        before = _content(reject_file)
        there = frozenset(before.splitlines(keepends=True))  # since a run that was killed after this step
        datadir.replace(reject_file, before + b"".join(line for line in rejected if line not in there))
    datadir.replace(path, gzip.compress(content, 6, mtime=0) if packed else content)
    for old in day.paths:  # what replaces them is on the disk by now, under its name
        if old != path:
            os.unlink(old)
    return Compacted(day.name, count, len(records.lines), len(rejected))


def retire(folder: str, lines: Iterable[bytes], wrong: frozenset[str]) -> None:
    """Take out of the log what a reader, which gave these lines, does not say any more. Raises OSError.

    That is a record with one of the `wrong` identities, and what an older revision of the reader stored on another day than
    that on which the same turn begins now. On the same day the join replaces it.
    """
    homes: dict[str, str] = {}
    sources = set()
    for line in lines:
        event = orjson.loads(line)
        sources.add(event.get("source"))
        for name in (event["id"], event["alias"] if events.names_older(event) else event["id"]):
            homes[name] = event["ts"][:10]

    def is_retired(name: str, line: bytes) -> bool:
        if name not in wrong and homes.get(name, store_files.day_of(line)) == store_files.day_of(line):
            return False
        event = orjson.loads(line)
        return event.get("source") in sources and (name in wrong or joins.is_superseded(event)) and "status" not in event

    for name in store.days(folder):
        with datadir.lock(folder):
            for day in store_files.days(folder, name, name):
                _rewrite_day(day, is_retired)


def _rewrite_day(day: store_files.Day, is_retired: Callable[[str, bytes], bool]) -> None:
    """Write the files of a day without some records."""
    for path in day.paths:
        damaged: list[tuple[str, str]] = []
        file = store_files.Day(day.name, (path,))
        lines = [line for _, line in store_files.lines(file, lambda *place: damaged.append(place), tail=True)]  # noqa: B023
        left = [line for line in lines if (pair := store_files.identify(line)) is None or not is_retired(*pair)]
        if len(left) < len(lines) and not damaged:
            content = b"".join(store_folded.fold(left))
            datadir.replace(path, gzip.compress(content, 6, mtime=0) if path.endswith(".gz") else content)


def _reject_folder(folder: str) -> str:
    """Where lines are kept that are not records."""
    return os.path.join(folder, "rejected")


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", opener=regular.opener) as file:
            return file.read()
    except FileNotFoundError:
        return b""


def prune(folder: str, before: str, dry: bool = False) -> list[tuple[str, int]]:
    """Delete the days before a date, and their summaries; which, with their bytes. Raises OSError."""
    pruned = []
    with datadir.lock(folder) if not dry else contextlib.nullcontext():
        for day in store_files.days(folder):
            if day.name < before:
                pruned.append((day.name, sum(os.path.getsize(path) for path in day.paths)))
                for path in () if dry else (*day.paths, *store_days.paths_of(folder, day.name)):
                    os.unlink(path)
    return pruned


def verify(folder: str, now: int) -> Iterator[Finding]:
    """All problems of the log."""
    if not os.path.isdir(folder):
        yield Finding(folder, "there is no log", "run tok-sync")
        return
    yield from _permissions(folder)
    yield from _names(folder)
    yield from _small_files(folder)
    tomorrow = when.stamp(now + when.DAY)[:10]
    ids = False
    for listed in store_files.days(folder):
        if listed.name > tomorrow:
            yield Finding(
                listed.paths[0],
                "a day in the future",
                "correct this machine's clock, then move the file away",
            )
        with datadir.lock(folder):  # a line that a writer has not finished yet must not be reported as torn
            for day in store_files.days(folder, listed.name, listed.name):
                yield from _day(day)
                ids = True
    if not ids and store_cursors.load(folder):
        yield Finding(folder, "the log is empty, but the clients' files are marked as read", "run tok-sync --backfill")


def verify_days(folder: str, names: Iterable[str], memory: store_days.Recent | None = None) -> Iterator[Finding]:
    """The problems of some days. `memory` keeps those of days that do not change. Raises OSError."""
    stamps = store_days.stamps_of(folder) if memory is not None else {}

    def problems(name: str) -> list[Finding]:
        with datadir.lock(folder):
            return [problem for day in store_files.days(folder, name, name) for problem in _day(day)]

    for name in names:
        read = functools.partial(problems, name)
        yield from memory.get(("problems", name), stamps.get(name), read) if memory is not None else read()


def lax_folders(folder: str) -> Iterator[Finding]:
    """The log's directories into which other users may put files, and so links in the place of ours."""
    for path in (folder, store_files.folder_of(folder)):
        if datadir.writable_by_others(path):
            mode = stat.S_IMODE(os.stat(path).st_mode)
            yield Finding(path, f"mode {mode:04o}: others may put files and links into it", f"chmod 700 {path}")


def _permissions(folder: str) -> Iterator[Finding]:
    """Directories are for their owner only (0700), files too (0600)."""
    for root, _, names in os.walk(folder):
        for path in (root, *(os.path.join(root, name) for name in names)):
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if status.st_uid != os.geteuid():
                yield Finding(path, "belongs to another user", f"chown it to user {os.geteuid()}")
            elif not stat.S_ISLNK(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077:
                right = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
                yield Finding(path, f"mode {stat.S_IMODE(status.st_mode):04o}: others may read it", f"chmod {right:o} it")
            elif not os.access(path, os.R_OK):
                yield Finding(path, "cannot be read", "change its permissions")


def _leftovers(folder: str) -> list[str]:
    """Files that a crash left half-written beside the one they were to replace, more than a minute ago."""
    leftovers = []
    for at in (folder, store_files.folder_of(folder), _reject_folder(folder)):
        with contextlib.suppress(OSError), os.scandir(at) as entries:
            leftovers += [
                entry.path for entry in entries if _TEMPORARY.match(entry.name) and time.time() - entry.stat().st_mtime > 60
            ]
    return sorted(leftovers)


def _names(folder: str) -> Iterator[Finding]:
    for leftover in _leftovers(folder):
        yield Finding(leftover, "an incomplete file, left by a crash", "run tok-log compact, which removes it")
    at = store_files.folder_of(folder)
    day_paths = {path for day in store_files.days(folder) for path in day.paths}
    for name in sorted(os.listdir(at)) if os.path.isdir(at) else ():
        path = os.path.join(at, name)
        if path not in day_paths and not _TEMPORARY.match(name):
            yield Finding(
                path,
                "not a day of the log: it is not read",
                "name it like 2026-11-21.jsonl, or run tok-log import on it and delete it",
            )


def _small_files(folder: str) -> Iterator[Finding]:
    cursors, content = os.path.join(folder, store_cursors.CURSORS), store_cursors.content(folder)
    if os.path.exists(cursors) and content is None:
        yield Finding(cursors, "damaged", "run tok-sync, which reads every file again")
    yield from _rules(folder)
    path, paths = store_projects.projects_file(folder), store_projects.project_paths(folder)
    entries = datadir.read_json(path)
    if os.path.exists(path) and not isinstance(entries, dict):
        yield Finding(path, "not JSON", "delete it; the next tok-sync writes it again")
    elif isinstance(entries, dict) and len(paths) < len(entries):
        count = len(entries) - len(paths)
        yield Finding(path, f"{count} of its entries are not the id and the path of a project", "delete it; run tok-sync")
    if not paths:
        return
    salt = datadir.salt(folder)
    if not salt:
        yield Finding(os.path.join(folder, "salt"), "missing or empty", _SALT)
    elif not any(projects.hash_path(path, salt) == key for key, path in paths.items()):
        yield Finding(os.path.join(folder, "salt"), "is not the salt that the log's projects were hashed with", _SALT)


def _rules(folder: str) -> Iterator[Finding]:
    path = os.path.join(folder, store_rules.FILE)
    try:
        rules = store_rules.load(folder).rules
    except config.Unusable as error:
        yield Finding(path, error.why, error.remedy)
        return
    for rule in rules:
        if not rule.done:
            yield Finding(
                path, f"rule {rule.number} was interrupted", "run the same tok-log forget again, which finishes it"
            )


_SALT = "restore it from a backup; without it the same project gets a second project_id"


def _day(day: store_files.Day) -> Iterator[Finding]:
    """The problems of one day's files."""
    broken: list[Finding] = []
    seen: dict[str, str] = {}
    for location, line in store_files.lines(
        day, lambda location, why: broken.append(Finding(location, *why.split("; ", 1))), tail=True
    ):
        if not line.endswith(b"\n"):
            yield Finding(
                location,
                "a torn line, left by a crash",
                "only that line is lost; run tok-log compact to move it to rejected/",
            )
        elif line.strip():
            yield from _line(location, line, day.name, seen)
    yield from broken


def _line(location: str, line: bytes, day: str, seen: dict[str, str]) -> Iterator[Finding]:
    """What is wrong with one line. A line in the usual form is a record as the log accepts it: a tenth of the work."""
    match = store_files.match_usual(line)
    if match is not None and store_files.day_of(line) == day:
        identity, kind = match[1].decode(), store_files.kind_of(line).decode()
        if seen.setdefault(identity, kind) != kind:
            yield _second(location, seen[identity])
        return
    if why := store_files.damage_of(line):
        if store_files.is_newer(line):
            yield Finding(location, why, "it is skipped, and kept; upgrade TokenOps")
        else:
            yield Finding(location, why, "it is skipped; run tok-log compact to move it to rejected/")
        return
    record = orjson.loads(line)
    if why := fields.fault(record):
        yield Finding(location, why, "it is counted as it is; restore the file if it was edited")
    if record["ts"][:10] != day:
        yield Finding(
            location,
            f"its time {record['ts'][:24]} is not of that day",
            f"run tok-log compact, which moves it to {record['ts'][:10]}.jsonl",
        )
    if seen.setdefault(record["id"], record["kind"]) != record["kind"]:
        yield _second(location, seen[record["id"]])


def _second(location: str, kind: str) -> Finding:
    return Finding(location, f"another record of kind {kind} has its id", "find the program that writes both")
