"""Takes in what is new in another log on this disk, or in the parts that machines have published to a folder.

How far each file was taken is kept per source. A file is read again if it looks otherwise than then: identity makes it
harmless that most of it was read before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from tokenops import datadir, events, pull_sealed, regular, store, store_parts, store_rules, sync, untrusted
from tokenops.store_parts import DayFile, Progress

SOURCE = "tokenops"  # in the rows of tok-sync
_FILES = "files.json"
_MOST_MESSAGES = 20  # about the lines of one file


class Target(NamedTuple):
    """Where events go: the log, the source's directory in it, and whether nothing is to be written.

    `backfill`: whether all is read again, also what looks as it did when it was taken.
    """

    log: str
    folder: str
    dry: bool = False
    backfill: bool = False


class Files:
    """How far each file of a source was taken."""

    def __init__(self, target: Target) -> None:
        self.target, self.path = target, os.path.join(target.folder, _FILES)
        content = untrusted.mapping(None if target.backfill else datadir.kept_json(self.path))
        entries = untrusted.mapping(content.get("files")) if content.get("reader") == reader() else {}
        self.files = {name: progress for name, entry in entries.items() if (progress := _progress(entry)) is not None}

    def get(self, name: str) -> Progress | None:
        """How far a file was taken; None if it is new."""
        return self.files.get(name)

    def is_as_then(self, name: str, size: int, changed: int) -> bool:
        """Whether a file looks as it did when it was taken last."""
        before = self.files.get(name)
        return before is not None and (before.size, before.changed) == (size, changed)

    def keep(self, name: str, progress: Progress) -> None:
        """Remember how far a file was taken, once its events are in the log. Raises OSError."""
        self.files[name] = progress
        self._save()

    def forget_others(self, names: Iterable[str]) -> None:
        """Forget files that are gone. Raises OSError."""
        there = set(names)
        if not self.files.keys() <= there:
            self.files = {name: progress for name, progress in self.files.items() if name in there}
            self._save()

    def _save(self) -> None:
        if not self.target.dry:
            datadir.keep_json(self.path, {"v": 1, "reader": reader(), "files": self.files})


def reader() -> str:
    """What decides which records are accepted: with another version all files are read again."""
    from tokenops import __version__

    return f"{__version__} {events.VERSION}"


def _progress(entry: object) -> Progress | None:
    if type(entry) is not list or tuple(map(type, entry)) != (int, int, int, str):
        return None
    return Progress(*entry)


def run(target: Target, path: str, own: str, keys: pull_sealed.Keys) -> list[sync.Outcome] | None:
    """Take in what is new in a folder of parts or in another log; None if the folder is neither.

    `own`: the id of this log's part, which is left out. Raises OSError.
    """
    parts = store_parts.parts_at(path)
    log = "" if parts else store_parts.log_at(path)
    if not parts and not log:
        return None
    files: list[DayFile] = []
    for folder, name in parts.items():
        if name != own:
            files += store_parts.day_files(folder, os.path.relpath(folder, path))
    if log and not os.path.samefile(log, target.log):
        files += store_parts.day_files(store_parts.events_of(log))
        if not target.dry:
            paths = store_rules.unforgotten_paths(target.log, store.project_paths(log))
            store.remember_projects(target.log, paths)
    return [take_all(target, files, lambda file: _day_stream(file, keys))]


@contextlib.contextmanager
def _day_stream(file: DayFile, keys: pull_sealed.Keys) -> Iterator[BinaryIO]:
    """A file of a day, decrypted if it is encrypted. Raises OSError."""
    with open(file.path, "rb", opener=regular.opener) as stream:
        if file.name.endswith(store_parts.SEALED):
            with pull_sealed.plain_file(stream, file.name, keys) as plain:
                yield plain
        else:
            yield stream


OpenDay = Callable[[DayFile], contextlib.AbstractContextManager[BinaryIO]]


def take_all(target: Target, files: list[DayFile], open_day: OpenDay) -> sync.Outcome:
    """Take in the files that look otherwise than when they were taken last. Raises OSError if the log cannot be written."""
    kept = Files(target)
    kept.forget_others(file.name for file in files)
    totals, rejected, unread = Totals(), list[tuple[str, str]](), list[tuple[str, int, str]]()
    for file in files:
        before = kept.get(file.name)
        if kept.is_as_then(file.name, file.size, file.changed):
            continue
        messages = Messages(file.name)
        with contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(open_day(file))
            except OSError as error:
                unread.append((file.path, error.errno or 0, error.strerror or ""))
                continue
            taken = store_parts.take(target.log, stream, file, before, messages.add, target.dry)
        kept.keep(file.name, taken.progress)
        totals.add(file, before, taken)
        rejected += messages.all()
    return totals.outcome(len(files), rejected, unread)


class Messages:
    """What is wrong with the lines of one file: the first of it, and how much there is."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0
        self.first: list[tuple[str, str]] = []

    def add(self, location: str, why: str) -> None:
        """A line that was skipped."""
        self.count += 1
        if len(self.first) < _MOST_MESSAGES:
            self.first.append((location, why))

    def all(self) -> list[tuple[str, str]]:
        """What to report."""
        more = self.count - len(self.first)
        return [*self.first, (self.name, f"{more:,} more lines were skipped")] if more else self.first


class Totals:
    """What a run did with the files of a log."""

    def __init__(self) -> None:
        self.read = self.bytes = self.completed = 0
        self.kinds: dict[str, int] = {}

    def add(self, file: DayFile, before: Progress | None, taken: store_parts.Taken) -> None:
        """A file was taken in."""
        begin = before.offset if before and before.offset <= taken.progress.offset else 0
        self.read += 1
        self.bytes += max(file.size - begin, 0)
        self.completed += taken.completed
        for kind, count in taken.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count

    def outcome(self, files: int, rejected: list[tuple[str, str]], unread: list[tuple[str, int, str]]) -> sync.Outcome:
        """What a run did."""
        rounds, contexts = self.kinds.get("work", 0), self.kinds.get("context", 0)
        news = sum(self.kinds.values()) - rounds - contexts
        counts = (files, self.read, self.bytes, 0, news, rounds, contexts, self.completed)
        return sync.Outcome(SOURCE, *counts, rejected, unread)
