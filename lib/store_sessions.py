"""Finds sessions in the log without parsing the lines of others, and what a span holds, for answers about whole chains.

Each record is as a scan gives it. Records of kind context name turns by the ids under which these stand here, also where
two sightings of a turn had different ids.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping

import orjson

from tokenops import events, jsonl, projects, store, store_files, store_folded, when
from tokenops.events import Event
from tokenops.jsonl import OnBadLine, ignore_line
from tokenops.store_files import Day

_ID = b'"id":"'
_TURN = b'turn"'
_CONTEXT = b"context:"  # an id of a context is this and the id of its turn


def of_sessions(folder: str, sessions: Collection[str], among: Container[str] | None = None) -> list[Event]:
    """All records of some sessions, of all days or `among` some. Raises OSError."""
    every = _with_needles(folder, [b'"session_id":' + jsonl.data_of(name) for name in sessions], among)
    return [record for record in every if record.get("session_id") in sessions]


def beginning_with(folder: str, beginning: str, among: Container[str] | None = None) -> list[Event]:
    """All records of the sessions whose ids begin with a text, of all days or `among` some. Raises OSError."""
    every = _with_needles(folder, [b'"session_id":' + jsonl.data_of(beginning)[:-1]], among)
    return [record for record in every if record.get("session_id", "").startswith(beginning)]


class Unknown(ValueError):
    """No session matches a name."""


class Ambiguous(Unknown):
    """More than one session matches."""


def session(folder: str, name: str, among: Container[str] | None = None) -> tuple[str, list[Event]]:
    """The only session whose id begins with `name`, and its records; `among`: the days to read.

    Raises Unknown, Ambiguous, OSError.
    """
    by_session: dict[str, list[Event]] = {}
    for record in beginning_with(folder, name, among):
        by_session.setdefault(record["session_id"], []).append(record)
    if not by_session:
        raise Unknown(f"no session id begins with {name!r}; tok-cost --log --by session --since 365d lists them")
    if len(by_session) > 1 and name not in by_session:
        some = ", ".join([*sorted(by_session)[:6], *([f"and {len(by_session) - 6} more"] if len(by_session) > 6 else [])])
        raise Ambiguous(f"{len(by_session)} sessions begin with {name!r}: {some}; give more characters")
    chosen = name if name in by_session else next(iter(by_session))
    return chosen, by_session[chosen]


def of_span(
    folder: str, since: str, until: str, kinds: Collection[str], on_bad_line: OnBadLine = ignore_line
) -> list[Event]:
    """The records of some kinds that began in a span. Raises OSError."""
    first = when.stamp(when.moment(since) - when.DAY)[:10] if since else ""
    last = when.stamp(when.moment(until) - 1 + when.DAY)[:10] if until != "9" else "9"
    begin, end, named = since.encode(), until.encode(), {kind.encode() for kind in kinds}

    def record_of(line: bytes) -> Event | None:
        takes = begin <= line[store_files.TS] < end and store_files.kind_of(line) in named
        return orjson.loads(line) if takes else None

    return _events(store.records_by_day(folder, first, last, on_bad_line, context=True), record_of)


def _with_needles(folder: str, needles: list[bytes], among: Container[str] | None) -> list[Event]:
    if (records := _seen_once(folder, needles, among)) is not None:
        return records
    parsed: dict[bytes, Event] = {}
    days = store.records_by_day(folder, sightings=functools.partial(_sightings, needles, parsed), among=among)
    return _events(days, lambda line: parsed.pop(line, None) or orjson.loads(line))


def _seen_once(folder: str, needles: list[bytes], among: Container[str] | None) -> list[Event] | None:
    """The records in whose lines some bytes stand; None if one of them may have another sighting, or is not as usual.

    Most sessions are read in this way. It parses a line once, and need not look for what is to be joined.
    """
    lines: list[bytes] = []
    others: list[bytes] = []
    for day in store_files.days(folder):
        if (among is None or day.name in among) and store_files.has_any(day, needles):
            chosen, rest = _lines_and_others(day, needles)
            lines += chosen
            others += rest
    records = store_files.records_alone(lines)
    names = {record["id"].encode() for record in records or ()}
    is_alone = names.isdisjoint(others) and names.isdisjoint(map(_CONTEXT.__add__, others))
    return records if is_alone and records is not None and len(names) == len(records) else None


def _lines_and_others(day: Day, needles: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The lines of a day in which some bytes stand, and the ids in the others."""
    chosen, others = [], []
    for line in store_files.whole_lines(day):
        for needle in needles:
            if needle in line:
                chosen.append(line)
                break
        else:
            others.append(_name(line))
    return chosen, others


def _events(days: Iterable[tuple[str, store.DayRecords]], record_of: Callable[[bytes], Event | None]) -> list[Event]:
    result: list[Event] = []
    names: dict[str, str] = {}
    for _, day in days:
        names.update({name: day.name_of(name) for name in day.same})
        result.extend([record for line in day.lines.values() if (record := record_of(line)) is not None])
    if names:
        for record in result:
            for field in ("turn", "parent") if record["kind"] == "context" else ():
                if field in record:
                    record[field] = names.get(record[field], record[field])
    return result


def _sightings(needles: list[bytes], parsed: dict[bytes, Event], day: Day) -> Iterator[tuple[str, bytes]]:
    """The sightings of a day in which some bytes stand, and the others of the same records; each record into `parsed`.

    A copy of a turn may name another session.
    """
    if not store_files.has_any(day, needles):
        return  # nearly all days hold nothing of a session
    chosen, others = _lines_and_others(day, needles)
    parts = [part for line in chosen for part in store_folded.unfold(line)]
    names = {_name(part) for part in parts}
    if not names.isdisjoint(others) or not names.isdisjoint(map(_CONTEXT.__add__, others)):
        every = (part for line in store_files.whole_lines(day) for part in store_folded.unfold(line))
        parts = [part for part in every if _name(part) in names]
    for identity, line, record in store_files.parse(part for part in parts if part.endswith(b"\n")):
        parsed[line] = record
        yield identity, line


def _name(line: bytes) -> bytes:
    """The id in a line, as its bytes stand there."""
    at = line.find(_ID, store_files.KIND) + len(_ID)
    return line[at : line.find(b'"', at)]


# So many parents that lie in other sessions, or before a span, are looked for.
_FORKS = 20


def ancestors(folder: str, records: Iterable[Event], days: int = 31) -> list[Event]:
    """The records of the turns that others name as their parents and that are not among them, with their whole sessions.

    Forks and resumed sessions begin from a turn of another session. Of each the `days` before are read.
    """
    every = [record for record in records if record["kind"] in ("turn", "context")]
    result: list[Event] = []
    tried: set[str] = set()
    fresh = every
    while fresh:
        every = [*every, *fresh] if fresh is not every else every
        turns = {record["id"] for record in every if record["kind"] == "turn"}
        parents = {record["parent"]: record["ts"] for record in fresh if record["kind"] == "context" and "parent" in record}
        missing = [(name, ts) for name, ts in parents.items() if name not in turns and name not in tried]
        sessions: dict[str, set[str]] = {}
        for parent, ts in missing[: _FORKS - len(tried)]:
            tried.add(parent)
            near = set(store.days(folder, when.stamp(when.moment(ts) - days * when.DAY)[:10], ts[:10]))
            if session := _session_of(folder, parent, near):
                sessions.setdefault(session, set()).update(near)
        among = {day for near in sessions.values() for day in near}
        read = of_sessions(folder, sessions, among) if sessions else []
        ids = {record["id"] for record in every}
        fresh = [record for record in read if record["id"] not in ids and record["kind"] in ("turn", "context")]
        result += fresh
    return result


def _session_of(folder: str, identity: str, among: Container[str]) -> str:
    """The session of the turn with an id, on some days; "" if it is not there."""
    needle = _ID[:-1] + jsonl.data_of(identity)
    for day in store_files.days(folder):
        for line in store_files.lines_with(day, needle) if day.name in among else ():
            record = store_files.record_of(line)
            if record is not None and record["id"] == identity:
                return str(record.get("session_id", ""))
    return ""


def latest(folder: str, only: events.Filter, labels: Mapping[str, str]) -> str:
    """The session of the last turn that a filter takes; "" if there is none. Raises OSError."""
    for day in reversed(store_files.days(folder)):
        lines = (
            line
            for _, line in store_files.lines(day, ignore_line, context=False)
            if line.startswith(_TURN, store_files.KIND)
        )
        for line in sorted(lines, key=lambda line: line[store_files.TS], reverse=True):
            record = store_files.record_of(line)
            if record is not None and record.get("session_id") and only.takes(projects.relabel(record, labels)):
                return str(record["session_id"])
    return ""


# So many days with events are searched for a request that passed tok-proxy.
_WIRE_DAYS = 31


def latest_on_wire(folder: str) -> str:
    """The session of the last request of which tok-proxy recorded the parts; "" if there is none. Raises OSError."""
    for day in reversed(store_files.days(folder)[-_WIRE_DAYS:]):
        lines = [line for line in store_files.lines_with(day, b'"parts":{') if store_files.is_context(line)]
        for line in sorted(lines, key=lambda line: line[store_files.TS], reverse=True):
            if (pair := store_files.identify(line)) and (name := orjson.loads(pair[1]).get("session_id")):
                return str(name)
    return ""
