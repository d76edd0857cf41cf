"""Answers what filled a context: of a session, a project or a span, by cause, with its cache breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from tokenops import answers_work, events
from tokenops.answers import OPEN, ignore
from tokenops.session import Log

if TYPE_CHECKING:
    from tokenops.events import Event, Filter
    from tokenops.jsonl import OnBadLine

# The kinds of records that the answer is made of.
KINDS = ("turn", "context", "usage")


class Query(NamedTuple):
    """What is asked: a session (the beginning of its id), or a span; `by` is one of context_report.BY."""

    session: str = ""
    since: str = ""
    until: str = OPEN
    only: Filter = events.EVERY
    by: str = "cause"


class Causes(NamedTuple):
    """What filled the context: a row per cause, the dearest first, their total, and the cache breaks by time."""

    rows: list[Event]
    total: Event
    breaks: list[Event]


def causes(log: Log, query: Query, on_bad_line: OnBadLine = ignore) -> Causes:
    """What filled the context of a session, or of all turns of a span. Raises BadRequest, Fault."""
    from tokenops import context, context_breaks, context_costs, context_report

    chosen = _choice(log, query, on_bad_line)
    bill = context_costs.Bill(log.catalogue(), context_report.label_of(query.by))
    watch = context_breaks.Breaks(log.catalogue())
    turns, breaks = [], []
    for share in context.shares(chosen.turns, chosen.records):
        met = watch.at(share)
        if chosen.takes(share.turn):
            turns.append(share.turn)
            bill.add(share)
            breaks += [context_report.break_row(met)] if met is not None else []
    for rest in _rests(chosen, {turn.get("session_id") for turn in turns}):
        turns.append(rest)
        bill.add(context.shares_of_total(rest))
    rows, total = context_report.sums(bill, query.by, turns)
    total |= context_report.break_sums(breaks) | _labels(log, chosen, turns)
    return Causes(rows, total, sorted(breaks, key=lambda row: (row["ts"], row["turn"])))


def latest_session(log: Log, only: Filter = events.EVERY) -> str:
    """The session of the last turn that a filter takes; "" if there is none."""
    from tokenops import store, store_sessions

    return store_sessions.latest(log.folder, only, store.labels(log.folder))


def _labels(log: Log, chosen: Chosen, turns: list[Event]) -> Event:
    """What the total says of its turns: their sessions, their span, and as of when."""
    labels: Event = {"sessions": len({turn.get("session_id") for turn in turns})}
    if chosen.session and turns:
        last = max(turns, key=lambda turn: turn["ts"])
        labels |= {name: last[name] for name in ("session_id", "client", "project") if name in last}
    if turns:
        labels |= {"from": min(turn["ts"] for turn in turns), "to": max(turn["ts"] for turn in turns)}
    return labels | ({"as_of": log.as_of} if log.as_of else {})


class Chosen(NamedTuple):
    """Turns with all their ancestors, their records of kind context, totals of sessions, and which of them are asked for."""

    session: str
    turns: dict[str, Event]
    records: dict[str, Event]
    totals: list[Event]
    takes: Callable[[Event], bool]


def _rests(chosen: Chosen, sessions: set[str | None]) -> Iterator[Event]:
    """The totals of sessions that count beside the turns, as in all other sums."""
    from tokenops import rollup

    sums = rollup.Totals()
    for total in chosen.totals:
        if rollup.is_counted(total) and chosen.takes(total):
            sums.add(total)
    yield from sums.take(sessions)


def _choice(log: Log, query: Query, on_bad_line: OnBadLine) -> Chosen:
    from tokenops import store, store_sessions

    labels, session = store.labels(log.folder), ""
    if query.session:
        session, records = answers_work.session_records(log, query.session)
    else:
        records = store_sessions.of_span(log.folder, query.since, query.until, KINDS, on_bad_line)

    def takes(record: Event) -> bool:
        inside = record.get("session_id") == session if session else query.since <= record["ts"] < query.until
        return inside and query.only.takes(record)

    chosen = Chosen(session, {}, {}, [], takes)
    _add(chosen, records, labels)
    if not session and query.since:
        _add(chosen, _earlier(log, chosen, query.since), labels)
    _add(chosen, store_sessions.ancestors(log.folder, [*chosen.turns.values(), *chosen.records.values()]), labels)
    return chosen


def _add(chosen: Chosen, records: Iterable[Event], labels: Mapping[str, str]) -> None:
    from tokenops import projects

    for record in records:
        if record["kind"] == "turn":
            chosen.turns.setdefault(record["id"], projects.relabel(record, labels))
        elif record["kind"] == "context":
            chosen.records.setdefault(record["turn"], record)
        elif record["kind"] == "usage":
            chosen.totals.append(projects.relabel(record, labels))


def _missing(chosen: Chosen) -> dict[str, Event]:
    """Parent -> a turn that names it, of parents that were not read."""
    return {
        record["parent"]: chosen.turns[name]
        for name, record in chosen.records.items()
        if record.get("parent") and record["parent"] not in chosen.turns and name in chosen.turns
    }


def _earlier(log: Log, chosen: Chosen, since: str) -> list[Event]:
    """What the sessions of a span had before it, where a turn's parent lies there."""
    from tokenops import store_sessions

    sessions = {str(turn["session_id"]) for turn in _missing(chosen).values() if "session_id" in turn}
    if not sessions:
        return []
    days = answers_work.session_days(log)
    among = {day for session in sessions for day in days.days_of(session) if day <= since[:10]}
    records = store_sessions.of_sessions(log.folder, sessions, among)
    return [record for record in records if record["ts"] < since and record["kind"] != "usage"]
