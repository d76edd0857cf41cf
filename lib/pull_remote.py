"""Pulls what is new from another machine that is reached with ssh, docker or wsl.

If TokenOps has a log there, its changed days are read as they come. Else the clients' files are: those that look otherwise
than the last time are copied to a private directory, batch by batch, which the readers read and which is then removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, NamedTuple

import orjson

from tokenops import (
    datadir,
    pull_files,
    pull_home,
    pull_log,
    pull_sources,
    pull_tar,
    read_clients,
    readers,
    store,
    store_cursors,
    store_parts,
    store_rules,
    sync,
    sync_origin,
    untrusted,
)
from tokenops.pull_commands import Far, Listed, Listing
from tokenops.read_clients import Client

# What lies in the private directory at most, in one batch and in all, and of one file.
BATCH, MOST_INCOMING, MOST_FILE = 256 << 20, 2 << 30, 2 << 30
_FREE = 512 << 20  # what must stay free on the disk
_MOST_PROJECTS = 8 << 20
_STATE = "listed.json"
_HEAD = 1 << 16  # of a new file, in which the names of others are looked for
_MOST_ROUNDS = 8
_MOST_MESSAGES = 20
_WORD = re.compile(rb"[A-Za-z0-9_-]{8,200}")

OnProblem = Callable[[str], None]
Files = Mapping[str, Listed]


def run(
    target: pull_log.Target,
    source: pull_sources.Source,
    settings: pull_sources.Settings,
    incoming: str,
    on_problem: OnProblem,
) -> list[sync.Outcome] | None:
    """Pull what is new; None if another run is at it. Raises OSError, pull_tar.Broken, WorkerDied."""
    far = Far(source, settings)
    listing = far.listing()
    if listing.odd:
        on_problem(f"{source.text}: the names of {listing.odd} files hold a line end or a backslash; they are not read")
    if listing.is_log:
        return [_take_log(target, far, listing, on_problem)]
    return _Home(target, source, far, listing, incoming, on_problem).read()


# A log.


def _take_log(target: pull_log.Target, far: Far, listing: Listing, on_problem: OnProblem) -> sync.Outcome:
    """Add what is new in the days of a log on another machine."""
    kept = pull_log.Files(target)
    days = {name: file for name, file in listing.files.items() if store_parts.is_day_of_log(name)}
    kept.forget_others(days)
    changed = [name for name, file in days.items() if not kept.is_as_then(name, file.size, file.changed)]
    chosen = {**dict.fromkeys(changed, MOST_FILE), store_parts.PROJECTS: _MOST_PROJECTS}
    if store_parts.PROJECTS not in listing.files:
        del chosen[store_parts.PROJECTS]
    totals, rejected = pull_log.Totals(), list[tuple[str, str]]()
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(far.archive(sorted(chosen), is_log=True)) if changed else None
        for member in _members(stream, chosen, on_problem) if stream else ():
            if member.name == store_parts.PROJECTS:
                _remember_projects(target, b"".join(member.pieces()))
                continue
            file = store_parts.DayFile(member.name, member.name, member.size, days[member.name].changed)
            messages = pull_log.Messages(file.name)
            taken = store_parts.take(target.log, member.stream(), file, None, messages.add, target.dry)
            is_settled = days[member.name] == Listed(member.size, file.changed)
            kept.keep(file.name, store_parts.Progress(member.size, file.changed if is_settled else 0))
            totals.add(file, None, taken)
            rejected += messages.all()
    return totals.outcome(len(days), rejected, [])


def _remember_projects(target: pull_log.Target, data: bytes) -> None:
    """Keep the paths of the projects of another log; what is not one is left out."""
    with contextlib.suppress(ValueError):
        paths = untrusted.mapping(orjson.loads(data))
        if not target.dry:
            store.remember_projects(target.log, store_rules.unforgotten_paths(target.log, paths))


def _members(stream: IO[bytes], most: Mapping[str, int], on_problem: OnProblem) -> Iterator[pull_tar.Member]:
    """The files of a stream that were asked for; what else is in it is reported, the first of it by name."""
    refusals = 0

    def on_refusal(name: str, why: str) -> None:
        nonlocal refusals
        refusals += 1
        if refusals <= _MOST_MESSAGES:
            on_problem(f"{name[:200]}: {why}; it is not taken")

    yield from pull_tar.members(stream, most, on_refusal)


# The clients' files.


class _Batch(NamedTuple):
    """Files that are read together: the logs of one client that look otherwise, and what its reader may look into."""

    client: Client
    names: tuple[str, ...]


class _Home:
    """The clients' files on another machine, in one run."""

    def __init__(
        self,
        target: pull_log.Target,
        source: pull_sources.Source,
        far: Far,
        listing: Listing,
        incoming: str,
        on_problem: OnProblem,
    ) -> None:
        self.target, self.source, self.far, self.on_problem = target, source, far, on_problem
        self.incoming = os.path.join(incoming, "home")
        self.files = {name: file for name, file in listing.files.items() if pull_files.clients_of(name)}
        self.state_path = os.path.join(target.folder, _STATE)
        state = untrusted.mapping(None if target.backfill else datadir.kept_json(self.state_path))
        entries = untrusted.mapping(state.get("files")) if state.get("reader") == pull_log.reader() else {}
        # One that was not settled then looks otherwise now, whatever it looks like.
        self.before = {name: Listed(*entry) for name, entry in entries.items() if _is_stamp(entry) and entry[2]}
        self.outcomes: dict[str, list[sync.Outcome]] = {}

    def read(self) -> list[sync.Outcome] | None:
        """Read what is new. Raises OSError, pull_tar.Broken, WorkerDied."""
        self.before = {name: file for name, file in self.before.items() if name in self.files}
        batches = list(self._batches())
        for is_database in (False, True):  # databases last, since they are looked at again afterwards
            of_kind = [batch for batch in batches if _has_database(batch) is is_database]
            for several in _transfers(of_kind, self.files):
                if not self._transfer(several):
                    return None
        return [sync.total(outcomes) for outcomes in self.outcomes.values()]

    def _batches(self) -> Iterator[_Batch]:
        """What is to be read, in order of clients and directories."""
        cursors = store_cursors.load(self.target.folder)
        for client in read_clients.CLIENTS:
            own = [name for name in self.files if client in pull_files.clients_of(name)]
            logs = sorted(name for name in own if pull_files.is_log(client, name))
            chosen = {name for name in logs if self.files[name] != self.before.get(name)}
            states = {name: file.state for name, file in cursors.get(client.source, {}).items()}
            chosen |= set(client.reader().dependents(sorted(chosen - states.keys()), states)) & set(logs)
            chosen |= {name for name in logs if _database_of(name) in map(_database_of, chosen)} if chosen else set()
            beside = pull_files.companions(chosen, set(own) - set(logs))
            whole = not client.reader().in_pieces
            for names in _cut_between_directories(sorted(chosen), self.files, MOST_INCOMING if whole else BATCH):
                yield _Batch(client, (*names, *sorted(pull_files.companions(names, beside))))

    def _transfer(self, batches: list[_Batch]) -> bool:
        """Copy some batches in one stream and read each when it is there; whether no other run is at it."""
        names = {name for batch in batches for name in batch.names}
        self._check_room(names)
        with self.far.archive(sorted(names), is_log=False) as stream:
            for member in _members(stream, dict.fromkeys(names, MOST_FILE), self.on_problem):
                self._copy(member)
        moving = self._moving(names)
        for batch in batches:
            self._add_named_logs(batch)
        for batch in batches:
            if not self._read(batch, moving):
                return False
        shutil.rmtree(self.incoming, ignore_errors=True)
        return True

    def _check_room(self, names: Iterable[str]) -> None:
        size = sum(self.files[name].size for name in names)
        if shutil.disk_usage(self.target.folder).free < size + _FREE:
            raise OSError(28, f"no room for copies of {size >> 20:,} MiB of client files", self.target.folder)

    def _copy(self, member: pull_tar.Member) -> None:
        """Make a private copy of a file. Raises OSError, pull_tar.Broken: what was begun is removed with the directory."""
        path = os.path.join(self.incoming, member.name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            for piece in member.pieces():
                datadir.write(fd, piece, durable=False)
            changed = self.files[member.name].changed
            os.utime(fd, ns=(changed, changed))
        finally:
            os.close(fd)

    def _moving(self, names: Iterable[str]) -> set[str]:
        """The databases that were written while they were copied: such a copy may be of two moments."""
        databases = {_database_of(name) for name in names} - {""}
        if not databases:
            return set()
        now = self.far.listing().files
        return {name for name in databases if not _is_alike(name, now, self.files) or self._log_shrank(name, now)}

    def _log_shrank(self, name: str, now: Files) -> bool:
        """Whether what is written ahead of a database was begun anew; that more was added to it does no harm."""
        name += pull_files.WAL
        return name in self.files and (name not in now or now[name].size < self.files[name].size)

    def _add_named_logs(self, batch: _Batch) -> None:
        """Copy the logs, too, that new ones of a batch name: what they were forked from. Raises OSError, pull_tar.Broken."""
        by_stem: dict[str, list[str]] = {}
        for name in self.files:
            if batch.client in pull_files.clients_of(name) and pull_files.is_log(batch.client, name):
                by_stem.setdefault(pull_files.stem(name), []).append(name)
        new = [name for name in batch.names if name not in self.before]
        for _ in range(_MOST_ROUNDS):
            words = {word for name in new for word in _words_in(os.path.join(self.incoming, name))}
            new = sorted(name for word in words & by_stem.keys() for name in by_stem[word] if not self._is_here(name))
            if not new or len(new) == len(self.files):
                return
            self._check_room(new)
            with self.far.archive(new, is_log=False) as stream:
                for member in _members(stream, dict.fromkeys(new, MOST_FILE), self.on_problem):
                    self._copy(member)

    def _is_here(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.incoming, name))

    def _read(self, batch: _Batch, moving: set[str]) -> bool:
        """Read the copies of a batch; whether no other run is at it."""
        client = batch.client
        here = {name for name in batch.names if self._is_here(name) and _database_of(name) not in moving}
        origin = sync_origin.Origin(self.target.folder, self.incoming, frozenset(self.files))
        folders = readers.directories_below(client, self.incoming) if os.path.isdir(self.incoming) else []
        relative = (os.path.relpath(path, self.incoming) for path in readers.files(client, folders, self.on_problem))
        cursors = store_cursors.load(self.target.folder).get(client.source, {})
        paths = dict.fromkeys(name for name in relative if _database_of(name) not in moving)
        paths |= dict.fromkeys(name for name in cursors if name in self.files)
        outcomes = pull_home.import_files(self.target, self.source, origin, [(client, [*map(origin.path, paths)])])
        if outcomes is None:
            return False
        self.outcomes.setdefault(client.source, []).extend(map(self._with_far_names, outcomes))
        for name in here:
            size = os.path.getsize(os.path.join(self.incoming, name))
            stamp = self.files[name]
            self.before[name] = stamp if size == stamp.size else stamp._replace(is_settled=False)
        for name in moving:
            self.on_problem(f"{self.source.text}: {name}: it was written while it was read; the next run reads it")
        if not self.target.dry:
            datadir.keep_json(self.state_path, {"v": 1, "reader": pull_log.reader(), "files": self.before})
        return True

    def _with_far_names(self, outcome: sync.Outcome) -> sync.Outcome:
        """An outcome whose messages name the files as the other machine does."""

        def name(path: str) -> str:
            return path.replace(self.incoming, f"{self.source.text}:~")

        rejected = [(name(location), why) for location, why in outcome.rejected]
        return outcome._replace(
            rejected=rejected, unread=[(name(path), number, why) for path, number, why in outcome.unread]
        )


def _is_alike(name: str, now: Files, before: Files) -> bool:
    """Whether a file looks the same in two lists."""
    return name in now and name in before and now[name][:2] == before[name][:2]


def _is_stamp(entry: object) -> bool:
    return type(entry) is list and tuple(map(type, entry)) == (int, int, bool)


def _database_of(name: str) -> str:
    """The database that a file is, or that it belongs to; "" for other files."""
    name = name.removesuffix(pull_files.WAL)
    return name if name.endswith((".db", ".sqlite")) else ""


def _has_database(batch: _Batch) -> bool:
    return any(map(_database_of, batch.names))


def _cut_between_directories(names: list[str], files: Files, most: int) -> Iterator[list[str]]:
    """Names in order, cut between directories where together they have more than so many bytes."""
    batch: list[str] = []
    size = 0
    for name in names:
        if batch and size > most and _group(name) != _group(batch[-1]):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += files[name].size
    if batch:
        yield batch


def _group(name: str) -> str:
    """What must not be cut: the files of one directory, and those of a session's own directory with it."""
    return "/".join(name.split("/")[:3])


def _transfers(batches: list[_Batch], files: Files) -> Iterator[list[_Batch]]:
    """Batches that are copied in one stream."""
    several: list[_Batch] = []
    size = 0
    for batch in batches:
        own = sum(files[name].size for name in batch.names)
        if several and size + own > BATCH:
            yield several
            several, size = [], 0
        several.append(batch)
        size += own
    if several:
        yield several


def _words_in(path: str) -> set[str]:
    """What may be names of other logs in the beginning of a file."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return {word.decode() for word in _WORD.findall(file.read(_HEAD))}
    return set()
