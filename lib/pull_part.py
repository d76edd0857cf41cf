"""Publishes this machine's part of the log to a folder that other machines read, a packed file for each day.

A machine writes to a directory of its own there, so that no file has two writers, whatever copies the folder around. New
events of a day are added at the end of its file; a day that was compacted, and every encrypted one, is replaced as a whole.
"""

from __future__ import annotations

import gzip
import os
import re
import secrets
from collections.abc import Container, Iterator
from typing import NamedTuple

from tokenops import datadir, events, jsonl, light, machines, pull_sealed, store_days, store_parts, store_rules, untrusted

_IDENTITY = "part.json"  # the id of this log's part, in the log
_FOLDER = "published"
_ID = re.compile(r"[0-9a-f]{16}\Z")


class Published(NamedTuple):
    """What a run did: days looked at and written, and lines that were added."""

    folder: str
    days: int
    written: int
    lines: int


class _Day(NamedTuple):
    """A day as it was published: the log's files then, how far they were read, and the file in the folder."""

    stamp: str
    size: int
    changed: int
    offset: int
    digest: str
    there: int  # bytes of the published file, and its modification time
    there_changed: int

    def progress(self) -> store_parts.Progress:
        """How far the log's file was read."""
        return store_parts.Progress(self.size, self.changed, self.offset, self.digest)


def identity(log: str, make: bool = False) -> str:
    """The id of this log's part; "" if there is none yet. Raises OSError when making it."""
    path = os.path.join(log, _IDENTITY)
    name = untrusted.text(untrusted.mapping(datadir.read_json(path)).get("part"))
    if _ID.match(name) or not make:
        return name if _ID.match(name) else ""
    with datadir.lock(log):
        if not identity(log):
            datadir.replace(path, jsonl.line_of({"v": 1, "part": secrets.token_hex(8)}))
    return identity(log)


class Part:
    """The part of this log in one folder, and what is known of it."""

    def __init__(self, log: str, to: str, machine: str, keys: pull_sealed.Keys) -> None:
        self.log, self.keys, self.id = log, keys, identity(log, make=True)
        name = light.blake2b(os.path.realpath(to).encode(errors="replace"), digest_size=6).hexdigest()
        self.state_path = os.path.join(log, _FOLDER, f"{name}.json")
        state = untrusted.mapping(datadir.kept_json(self.state_path))
        self.how = " ".join([f"{program} {recipient}" for program, recipient in keys.encrypt.items()])
        self.names = list(
            dict.fromkeys([*machines.names_of(log), *map(str, untrusted.items(state.get("machines"))), machine])
        )
        self.folder = self._folder(to, machine)
        self.rules = untrusted.text(state.get("rules"), 1 << 16)  # what had been forgotten when this was last looked at
        entries = untrusted.mapping(state.get("days")) if state.get("how") == self.how and state.get("id") == self.id else {}
        self.days = {day: _day(entry) for day, entry in entries.items()}

    def _folder(self, to: str, machine: str) -> str:
        """Where the part is: where it was, if the machine was renamed since. Raises OSError."""
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", machine).strip("-.") or "machine"
        usual = os.path.join(to, f"{slug[:60]}-{self.id[:8]}")
        if not os.path.isdir(to):
            os.mkdir(to, 0o700)  # the directory above it must exist: a disk may not be mounted
        folder = next((path for path, name in store_parts.parts_at(to).items() if name == self.id and path != to), usual)
        if os.path.islink(folder):
            raise OSError(40, "it is a link, and nothing is written through one; remove it", folder)
        datadir.ensure_folder(folder)
        mark = jsonl.line_of({"v": 1, "kind": "part", "part": self.id, "machines": self.names})
        if datadir.content_of(os.path.join(folder, store_parts.MARK)) != mark:
            datadir.replace(os.path.join(folder, store_parts.MARK), mark)
        return folder

    def publish(self) -> Published:
        """Write what is new. Raises OSError."""
        stamps = store_days.stamps_of(self.log)
        written = lines = 0
        for day, stamp in stamps.items():
            before = self.days.get(day)
            path = os.path.join(self.folder, f"{day}.jsonl.gz{self.keys.ending()}")
            there = _there(path)
            is_as_then = before is not None and there == (before.there, before.there_changed)
            if before and before.stamp == stamp and is_as_then:
                continue
            added = self._publish_day(day, path, stamp, before if is_as_then and any(there) else None)
            written, lines = written + 1, lines + added
            self._keep()
        self._forget(stamps)
        return Published(self.folder, len(stamps), written, lines)

    def _publish_day(self, day: str, path: str, stamp: str, before: _Day | None) -> int:
        own = store_parts.own_day(self.log, day, None if self.how or before is None else before.progress(), self.names)
        if own.is_damaged and os.path.lexists(path):  # it holds more than the log now; tok-log verify reports the damage
            self.days[day] = _Day(stamp, *own.progress, *_there(path))
            return 0
        packed = gzip.compress(b"".join(own.lines), 6, mtime=0) if own.lines else b""
        if own.is_whole and packed:
            datadir.replace(path, pull_sealed.seal(packed, self.keys) if self.how else packed)
        elif packed:
            _append(path, packed)
        elif own.is_whole and os.path.lexists(path):
            os.unlink(path)  # all of it was forgotten
        for other in self._other_forms(day, path) if packed or own.is_whole else ():
            os.unlink(other)
        self.days[day] = _Day(stamp, *own.progress, *_there(path))
        return len(own.lines)

    def _forget(self, days: Container[str]) -> None:
        """Take what the log was told to forget out of copies, and out of days that it has no more. Raises OSError."""
        rules = store_rules.readable(self.log)
        key = light.blake2b(events.order_of(list(map(list, rules.rules))), digest_size=16).hexdigest() if rules else ""
        if key != self.rules:
            for file in store_parts.day_files(self.folder):
                # What publish() wrote of a day that is here is right; a copy beside it may be of before.
                if file.name[:10] not in days or file.name != f"{file.name[:10]}.jsonl.gz{self.keys.ending()}":
                    store_parts.take_out(file, rules)
            self.rules = key
            self._keep()

    def _other_forms(self, day: str, path: str) -> Iterator[str]:
        """Files of a day from before it was encrypted, or the other way round."""
        for ending in ("", *store_parts.SEALED):
            other = os.path.join(self.folder, f"{day}.jsonl.gz{ending}")
            if other != path and os.path.lexists(other):
                yield other

    def _keep(self) -> None:
        datadir.ensure_folder(os.path.dirname(self.state_path))
        state = {"v": 1, "id": self.id, "machines": self.names, "how": self.how, "days": self.days, "rules": self.rules}
        datadir.keep_json(self.state_path, state)


def _day(entry: object) -> _Day | None:
    types = (str, int, int, int, str, int, int)
    return _Day(*entry) if type(entry) is list and tuple(map(type, entry)) == types else None


def _there(path: str) -> tuple[int, int]:
    """Size and modification time of a published file; 0 if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _append(path: str, content: bytes) -> None:
    """Add to a published file. If that fails, or a crash cuts it off, the next run writes the day anew. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        datadir.write(fd, content, durable=True)
    finally:
        os.close(fd)


def publish(log: str, to: str, machine: str, keys: pull_sealed.Keys) -> Published | None:
    """Publish this machine's part to a folder; None if another run is at it. Raises OSError."""
    datadir.ensure_folder(os.path.join(datadir.ensure_folder(log), _FOLDER))
    with datadir.lock(os.path.join(log, _FOLDER), wait=False) as mine:
        return Part(log, to, machine, keys).publish() if mine else None
