"""Reads Codex's rollouts: turns and meter readings, and counts of work in the same pass.

A fork or a spawned child begins with a copy of its parent's lines, so a thread's own rows are known only when all
threads are read: parsers return threads, and `settle` makes the events.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from tokenops import (
    events,
    fields,
    price_names,
    read_codex_context,
    read_codex_owners,
    read_codex_threads,
    read_contract,
    read_lines,
    read_packed,
    read_records,
    untrusted,
    when,
    wire_limits,
)
from tokenops.events import Event
from tokenops.read_codex_owners import Owned
from tokenops.read_codex_threads import CLIENT, SOURCE, Raw, Thread
from tokenops.read_contract import Intake
from tokenops.read_lines import Cursor
from tokenops.read_records import Entry

COPY = "a fork's copy of its parent's row; the parent's row counts"


_PACKED = f".jsonl{read_packed.SUFFIX}"
_BEFORE = "before"  # of a thread as data: what it was before a last line without its end


class Rollouts(read_contract.Reader):
    """Rollouts only grow, and the events of one depend on others."""

    source, client = SOURCE, CLIENT
    append_only = True
    in_pieces = False  # a fork that is read before its parent gives out copies of the parent's turns

    def files(self, folder: str, /) -> Iterator[str]:
        """The rollouts of a Codex home: active sessions first, then archived ones; or of one of these folders."""
        unpacks: bool | None = None
        for path in _rollouts(folder):
            if path.endswith(read_packed.SUFFIX):
                if os.path.exists(path.removesuffix(read_packed.SUFFIX)):
                    continue  # Codex is about to remove one of them
                if unpacks is None:
                    unpacks = read_packed.can_unpack()
                if not unpacks:
                    continue
            yield path

    def hints(self, folder: str, /) -> Iterator[str]:
        """What the user should know of rollouts that cannot be read."""
        packed = [path for path in _rollouts(folder) if path.endswith(read_packed.SUFFIX)]
        if packed and not read_packed.can_unpack():
            yield (
                f"{os.path.dirname(packed[0])}: {len(packed)} rollouts are compressed (.zst) and not read; "
                f"{read_packed.ADVICE}"
            )

    def claims(self, path: str, head: bytes, /) -> bool:
        """Whether a file is a rollout."""
        if path.endswith(_PACKED):
            return os.path.basename(path).startswith("rollout-")
        kinds = (b'"session_meta"', b'"turn_context"', b'"event_msg"', b'"response_item"')
        return b'"payload"' in head and b'"timestamp"' in head and any(kind in head for kind in kinds)

    def dependents(self, first: Iterable[str], states: Mapping[str, str], /) -> set[str]:
        """The whole family of a thread whose file comes after those of its forks, which gave its turns to others."""
        family: set[str] = set()
        waiting: list[str] = []
        for name in map(read_codex_threads.id_in, first):
            marks = f'"parent":"{name}"', f'["{name}",'  # of the parent, and of other ancestors
            waiting += [name] if any(mark in state for state in states.values() for mark in marks) else []
        seen: set[str] = set()
        while waiting:
            seen.add(name := waiting.pop())
            for path in [path for path, state in states.items() if path not in family and f'"{name}"' in state]:
                family.add(path)
                thread = read_codex_threads.from_data(orjson.loads(states[path])["thread"])
                waiting += {thread.id, *thread.ancestors()} - seen
        return family

    def parser(self, intake: Intake, /) -> read_contract.Parser:
        """A parser for one worker."""
        return Parser(intake)

    def settle(
        self, shares: list[read_contract.Share], files: read_contract.Files, intake: Intake, /
    ) -> read_contract.Settled:
        """The events of new rows, without copies of their ancestors' rows; and the threads to go on from."""
        parts = {path: data for share in shares for path, data in share["parts"].items()}
        tails = {path: data.pop(_BEFORE) for path, data in parts.items() if _BEFORE in data}
        threads = {path: read_codex_threads.from_data(data) for path, data in parts.items()}
        kept = threads | {path: read_codex_threads.from_data(data) for path, data in tails.items()}
        kept_as = {id(thread): kept[path] for path, thread in threads.items()}
        seen: dict[str, Entry] = {}
        right: set[str] = set()
        wrong: set[str] = set()
        new = {id(thread) for thread in threads.values()}
        for thread, every in read_codex_owners.rows_with_owners([*threads.values(), *_ancestors(threads, files)]):
            right.update(name for row in every for name in (row.name, row.older_name()))
            wrong.update(name for row in every for name in row.other_names(thread))
            rows = [row for row in every if row.counted]
            if id(thread) in new:
                read_codex_context.link(thread, every, kept_as[id(thread)])
                before = {id(row) for row in thread.rows[: thread.waiting] if not row.model}
                rows_now = [row for row in rows if id(row.row) not in before]
                read_records.keep_entries(seen, entries_of(thread, rows_now, intake))
                for going_on in (thread, kept_as[id(thread)]):
                    if any(row.owner == thread.id and row.row.line <= going_on.line for row in rows):
                        going_on.settle()
        for thread in kept.values():
            thread.give_out()
        for share in shares:
            read_records.keep_entries(seen, share["entries"])
        states = {path: {"thread": read_codex_threads.as_data(thread)} for path, thread in kept.items()}
        return read_contract.Settled(
            read_records.by_time(list(seen.values())),
            states,
            frozenset(wrong - right),
            any(path.endswith(_PACKED) for path in threads),
        )

    def sightings(self, paths: Iterable[str], identity: str, intake: Intake, /) -> Iterator[read_contract.Sighting]:
        """Each row that is a turn, a fork's copies marked as such. A file that cannot be read holds none from there on."""
        buffer = bytearray(read_lines.BLOCK)
        path_of: dict[int, str] = {}
        threads: list[Thread] = []
        for path in paths:
            threads.append(read_codex_threads.thread_of(path))
            path_of[id(threads[-1])] = path
            with contextlib.suppress(OSError, events.BadRecord):
                read_codex_threads.read(path, threads[-1], Cursor(), buffer, intake)
        for thread, rows in read_codex_owners.rows_with_owners(threads):
            for owned in rows:
                for entry in entries_of(thread, [owned], intake):
                    if entry[1] == identity:
                        location = f"{path_of[id(thread)]}:{owned.row.line}"
                        yield location, read_records.record(entry), "" if owned.counted else COPY


def _rollouts(folder: str) -> Iterator[str]:
    names = ("sessions", "archived_sessions")
    inside = os.path.basename(os.path.normpath(folder)) in names
    for name in ("",) if inside else names:
        for path in read_lines.walk(os.path.join(folder, name)):
            if path.endswith((".jsonl", _PACKED)):
                yield path


class Parser(read_contract.Parser):
    """Reads rollouts into threads, and counts their work."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.buffer = bytearray(read_lines.BLOCK)
        self.threads: dict[str, Raw] = {}
        self.work: dict[str, Event] = {}

    def read(self, path: str, cursor: Cursor, /) -> None:
        """Take in one rollout from its cursor on. Raises OSError."""
        if path.endswith(_PACKED):  # it never grows, and its cursor counts the packed bytes
            cursor.offset, cursor.number, cursor.state = 0, 0, {}
        data = cursor.state.pop("thread", None)  # it comes back from `settle`
        thread = read_codex_threads.from_data(data) if data else read_codex_threads.thread_of(path)
        cursor.state["thread"] = thread  # a last line without its end is read again, by the thread that it was before
        try:
            self._read(path, thread, cursor)
        finally:
            before = cursor.state.pop("thread")
        self.threads[path] = read_codex_threads.as_data(thread)
        if before is not thread:
            self.threads[path][_BEFORE] = read_codex_threads.as_data(before)

    def _read(self, path: str, thread: Thread, cursor: Cursor) -> None:
        if self.intake.options.work:
            from tokenops import read_codex_work

            read_records.keep(self.work, read_codex_work.read(path, thread, cursor, self.buffer, self.intake))
        else:
            read_codex_threads.read(path, thread, cursor, self.buffer, self.intake)
        if path.endswith(_PACKED):
            cursor.offset = os.path.getsize(path)

    def entries(self) -> Iterator[read_records.Entry]:
        """The work."""
        return ((event["ts"], event["id"], event) for event in self.work.values())

    def parts(self) -> dict[str, Any]:
        """The threads."""
        return self.threads


def _ancestors(threads: dict[str, Thread], files: read_contract.Files) -> list[Thread]:
    """The rollouts of the ancestors of threads that may still hold copies, read whole.

    Those that this run read from their first byte are left out. Of others it knows only the new rows.
    """
    waiting = [thread for thread in threads.values() if not thread.is_settled()]
    if not waiting:
        return []
    pages: dict[str, list[str]] = {}
    for path in files.paths:
        pages.setdefault(_id_of(path, threads, files), []).append(path)
    ancestors: list[Thread] = []
    seen: set[str] = set()
    buffer, intake = bytearray(read_lines.BLOCK), Intake()
    while waiting:
        name = next((name for name in waiting.pop().ancestors() if name in pages), None)
        if name is None or name in seen:
            continue
        seen.add(name)
        for path in pages[name]:
            if path in files.whole:
                continue
            thread = read_codex_threads.thread_of(path)
            with contextlib.suppress(OSError, events.BadRecord):
                read_codex_threads.read(path, thread, Cursor(), buffer, intake)
                ancestors.append(thread)
                waiting.append(thread)
    return ancestors


def _id_of(path: str, threads: dict[str, Thread], files: read_contract.Files) -> str:
    """The id of a rollout's thread; the one in its file's name if it was never read."""
    if path in threads:
        return threads[path].id
    kept = files.state(path).get("thread")
    return str(kept["id"]) if kept else read_codex_threads.thread_of(path).id


def entries_of(thread: Thread, rows: Iterable[Owned], intake: Intake) -> Iterator[Entry]:
    """The turns and meter readings of a thread."""
    turns, readings = _Turns(thread, intake), _Readings(thread.provider or "openai")
    for owned in rows:
        row = owned.row
        if row.counts:
            turn = turns.light(owned)
            yield turn
            if row.context is not None:
                for event in read_codex_context.record(thread, owned, read_records.turn_of(turn)):
                    yield event["ts"], event["id"], event
        if row.limits and owned.owner == thread.id:
            readings.add(row.limits, row.ts)
    yield from readings.entries()


class _Turns:
    """Makes turns of a thread's rows. They share what is alike."""

    def __init__(self, thread: Thread, intake: Intake) -> None:
        self.thread, self.intake = thread, intake
        self.blocks: dict[str, Raw] = {}
        self.frames: dict[tuple[str, str, str, bool], read_records.Frame] = {}

    def light(self, owned: Owned) -> read_records.Light:
        """The turn of a row."""
        row = owned.row
        block = self.blocks.get(owned.owner)
        if block is None:
            block = self.blocks[owned.owner] = self._block(owned.owner)
        kind = row.model, row.tier, row.effort, owned.owner == self.thread.id
        frame = self.frames.get(kind)
        if frame is None:
            frame = self.frames[kind] = self._frame(*kind)
        alias = owned.older_name() if row.paired else events.alias_of(CLIENT, owned.owner, row.counts)
        count = row.counts.get
        counts = tuple([count(name, 0) for name in read_records.LIGHT_COUNTS])
        return row.ts, fields.fit("id", owned.name), counts, frame, block, fields.fit("alias", alias)

    def _block(self, owner: str) -> Raw:
        block = self.intake.attribution(SOURCE, CLIENT, self.thread.cwd, "", owner)
        return block | {"sidechain": True} if self.thread.sidechain else block

    def _frame(self, model: str, tier: str, effort: str, is_own: bool) -> read_records.Frame:
        thread = self.thread
        provider = thread.provider or price_names.provider_of(model)
        before: Raw = {"provider": provider} if provider else {}
        if provider and not thread.provider:
            before["provider_inferred"] = True
        before |= {"model": fields.fit("model", model or "unknown"), "turns": 1}
        tags = {"tier": tier, "subagent": thread.subagent if is_own else "", "effort": effort}
        tags["branch"] = thread.branch if is_own else ""
        return before, {name: tag for name, tag in tags.items() if tag}


class _Readings:
    """Collects meter readings. Most repeat an earlier one: of these the latest is made, with the time of the first."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        # What names a reading -> the last that has that name, which of its windows it is, and the first and last time.
        self.spans: dict[tuple[Any, ...], tuple[Raw, str, str, str]] = {}
        self.others: list[tuple[Raw, str, str]] = []

    def add(self, limits: Raw, ts: str) -> None:
        """Add what a row states."""
        five_minutes, has_credits = events.slot_of(ts), _has_credits(limits)
        for slot in _SLOTS:
            window = limits.get(slot)
            if type(window) is not dict:
                if f"{slot}_used_percent" in limits:
                    self.others.append((limits, slot, ts))
                continue
            used, minutes = window.get("used_percent"), window.get("window_minutes")
            names = limits.get("limit_id"), limits.get("rate_limit_reached_type"), has_credits
            key = five_minutes, slot, used, type(used), minutes, type(minutes), *names
            try:
                span = self.spans.get(key)
            except TypeError:  # an object where a number or a name was expected
                self.others.append((limits, slot, ts))
                continue
            if span is None:
                self.spans[key] = limits, slot, ts, ts
            elif ts > span[3]:
                self.spans[key] = limits, slot, span[2], ts
            else:
                self.others.append((limits, slot, ts))

    def entries(self) -> Iterator[Entry]:
        """The readings."""
        for limits, slot, first, last in self.spans.values():
            if (event := _meter_of(limits, slot, last, self.provider)) is not None:
                event["ts"] = first
                yield first, event["id"], event
        for limits, slot, ts in self.others:
            if (event := _meter_of(limits, slot, ts, self.provider)) is not None:
                yield ts, event["id"], event


_SLOTS = ("primary", "secondary")


def _has_credits(limits: Raw) -> bool:
    """Whether work goes on when a limit is reached."""
    return untrusted.mapping(limits.get("credits")).get("has_credits") is True


def meters_of(limits: Raw, ts: str, provider: str) -> Iterator[Event]:
    """The windows of one `rate_limits` object, of today's shape or of the flat one of 2025."""
    for slot in _SLOTS:
        if (event := _meter_of(limits, slot, ts, provider)) is not None:
            yield event


def _meter_of(limits: Raw, slot: str, ts: str, provider: str) -> Event | None:
    """One of the windows; None if it does not say how much of it is used."""
    window = limits.get(slot)
    if type(window) is not dict:
        window = {
            name: limits.get(f"{slot}_{name}")
            for name in ("used_percent", "window_minutes", "resets_at", "resets_in_seconds")
        }
    used, minutes = number(window.get("used_percent")), number(window.get("window_minutes"))
    if used is None or not 0 <= used <= 100 * wire_limits.MOST_USED or not minutes or not 0 < minutes <= fields.MOST_MINUTES:
        return None
    scope = untrusted.text(limits.get("limit_id"))
    is_reached = untrusted.text(limits.get("rate_limit_reached_type")) and not _has_credits(limits)
    return events.meter(
        SOURCE,
        provider,
        ts,
        client=CLIENT,
        window=when.window_name(minutes),
        window_minutes=minutes,
        scope=scope if scope and scope != "codex" else None,
        used=round(used / 100, 6),
        resets_at=_reset(window, ts),
        plan=untrusted.text(limits.get("plan_type")) or None,
        status="rejected" if is_reached else None,
    )


def _reset(window: Raw, ts: str) -> str | None:
    """When a window begins anew; None if it does not say, or names no time that can be."""
    at, in_seconds = number(window.get("resets_at")), number(window.get("resets_in_seconds"))
    try:
        if at:
            return when.stamp(when.epoch(at))
        return None if in_seconds is None else when.canonical(when.stamp(when.moment(ts) + int(in_seconds * 1000)))
    except (ValueError, OverflowError):
        return None


def number(value: object) -> int | float | None:
    """A number that a record can have, or None for anything else."""
    return value if type(value) in (int, float) and abs(value) < fields.MOST else None  # type: ignore[arg-type,return-value]


READER: read_contract.Reader = Rollouts()
