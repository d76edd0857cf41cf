"""Remembers which rows of the log a target has acknowledged, and finds those that it has not.

    ship/TARGET/state.json       files of each day as they were when all of it had arrived; when to try again
    ship/TARGET/2026-11-21       a short digest of each row of that day that the target has acknowledged
    ship/TARGET/refused.jsonl    rows that the target always refuses

A position in a file cannot be the cursor: compaction rewrites days, archives replace them, late events are added to old
ones. So a day is read again if its files have changed since it was finished, and its unacknowledged rows are sent. A
digest is written after the acknowledgement. A crash between them sends a row twice, which its identity makes harmless.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

from tokenops import datadir, etiquette, events, light, regular, ship_rows, store, store_days, untrusted
from tokenops.jsonl import OnBadLine
from tokenops.ship_rows import Row

FOLDER = "ship"
REFUSED = "refused.jsonl"
_STATE = "state.json"
# Sums that hold days which are pruned by now.
_KEPT = ("metrics.json",)
# A million rows of one day share a digest with odds of one to 10^12.
_DIGEST = 10
# Raise it when rows are made otherwise: all days are looked at again.
_FORMAT = "2"

Days = dict[str, str]


class Part(NamedTuple):
    """The records of one day to look at, as lines, and the ids that are copies (id -> the id that counts)."""

    day: str
    files: str  # stamps of the day's files when they were read; "" if only a part of the day is wanted
    lines: list[bytes]
    same: dict[str, str]


def digest(row: Row) -> bytes:
    """A short digest of a row's content."""
    return light.blake2b(ship_rows.content_of(row), digest_size=_DIGEST).digest()


def parts(log: str, finished: Days, since: str, on_bad_line: OnBadLine) -> Iterator[Part]:
    """The days whose files have changed since they were finished, in order.

    A record may be in the files of the day after its own, so the day before a changed one is read, too.
    """
    now = store_days.stamps_of(log)
    changed = {name for name, files in now.items() if files != finished.get(name)}
    affected = {name for name in now if name in changed or store.day_after(name) in changed}
    for first, last in _stretches(sorted(name for name in affected if name >= since[:10])):
        for name, records in store.records_by_day(log, store.day_before(first), store.day_after(last), on_bad_line):
            if first <= name <= last:
                whole = not since.startswith(name) or since[10:] in ("", "T00:00:00.000Z")
                yield _part(name, now.get(name, "") if whole else "", records, since)


def _part(name: str, files: str, records: store.DayRecords, since: str) -> Part:
    same = {name: first for name, first in _same(records).items() if not name.startswith(events.PUBLIC)}
    own = [item for item in records.items_from(since) if not item[0].startswith(events.PUBLIC)]  # others ship theirs
    lines = [_with_id(line, same[id_]) if id_ in same else line for id_, line in own]
    return Part(name, files, sorted(lines), same)


def _with_id(line: bytes, name: str) -> bytes:
    return orjson.dumps({**orjson.loads(line), "id": name}) + b"\n"


def _same(records: store.DayRecords) -> dict[str, str]:
    """Of the ids that one turn has on several planes all but one, and that one.

    Always that of the client's own log if it has one, the one of its newest reader, else by name: machines that saw a turn's
    sightings in another order must not take out each other's.
    """
    members: dict[str, list[str]] = {}
    for other in records.same:
        first = records.name_of(other)
        members.setdefault(first, [first]).append(other)

    def order(name: str) -> tuple[bool, int, str]:
        return name in records.older, events.PLANES.index(records.planes.get(name, "log")), name

    same: dict[str, str] = {}
    for names in members.values():
        chosen = min(names, key=order)
        same |= {name: chosen for name in names if name != chosen}
    return same


def _stretches(days: Iterable[str]) -> Iterator[tuple[str, str]]:
    """First and last of each run of days that follow each other."""
    first = last = ""
    for day in days:
        if last and store.follows(last, day):
            last = day
            continue
        if first:
            yield first, last
        first = last = day
    if first:
        yield first, last


class Outbox:
    """The memory of one target."""

    def __init__(self, log: str, name: str, mark: str) -> None:
        """`mark`: what else decides how rows look (prices, their owner); when it changes, all days are looked at."""
        self.log, self.folder = log, os.path.join(log, FOLDER, name)
        state = untrusted.mapping(datadir.read_json(os.path.join(self.folder, _STATE)))
        self.mark = light.blake2b(f"{_FORMAT} {mark}".encode(), digest_size=9).hexdigest()
        days = untrusted.mapping(state.get("days")) if state.get("mark") == self.mark else {}
        self.days: Days = {key: value for key, value in days.items() if isinstance(value, str)}
        self.state = etiquette.state_of(state.get("state"))
        self._cached: tuple[str, set[bytes]] = ("", set())

    def forget(self) -> None:
        """Forget everything, as if nothing had been sent yet. Raises OSError."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name not in _KEPT:
                    os.unlink(entry.path)
        self.days, self.state, self._cached = {}, etiquette.State(), ("", set())

    def _ensure_folder(self) -> str:
        """The folder, for its owner only, and the one above it too."""
        datadir.ensure_folder(os.path.join(datadir.ensure_folder(self.log), FOLDER))
        return datadir.ensure_folder(self.folder)

    def acknowledged_digests(self, day: str) -> set[bytes]:
        """The digests of a day's rows that have arrived."""
        if self._cached[0] != day:
            data = b""
            with (
                contextlib.suppress(FileNotFoundError),
                open(os.path.join(self.folder, day), "rb", opener=regular.opener) as file,
            ):
                data = file.read()
            whole = len(data) - len(data) % _DIGEST
            self._cached = (day, {data[at : at + _DIGEST] for at in range(0, whole, _DIGEST)})
        return self._cached[1]

    def add_acknowledged(self, day: str, digests: list[bytes]) -> None:
        """Remember that rows of a day have arrived. Raises OSError."""
        path = os.path.join(self._ensure_folder(), day)
        fd = regular.opener(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            torn = os.fstat(fd).st_size % _DIGEST  # by a crash; its row is sent again
            if torn:
                os.ftruncate(fd, os.fstat(fd).st_size - torn)
            datadir.write(fd, b"".join(digests), durable=False)
        finally:
            os.close(fd)
        self.acknowledged_digests(day).update(digests)

    def add_refused(self, rows: list[tuple[Row, str]]) -> None:
        """Keep rows that the target does not take, each with why. Raises OSError."""
        path = os.path.join(self._ensure_folder(), REFUSED)
        fd = regular.opener(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            lines = (orjson.dumps({"why": why, "row": orjson.loads(ship_rows.line_of(row))}) + b"\n" for row, why in rows)
            datadir.write(fd, b"".join(lines), durable=False)
        finally:
            os.close(fd)

    def save(self) -> None:
        """Write which days are finished, and when to try again. Raises OSError."""
        self._ensure_folder()
        content = {"mark": self.mark, "days": self.days, "state": self.state._asdict()}
        datadir.replace(os.path.join(self.folder, _STATE), orjson.dumps(content), durable=False)
