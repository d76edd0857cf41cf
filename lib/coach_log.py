"""What tok-coach says, out of the log and, where texts matter, of the clients' transcripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from tokenops import (
    coach,
    coach_models,
    coach_replies,
    coach_transcripts,
    datadir,
    events,
    pricing,
    readers,
    store,
    trace,
    trace_waste,
)
from tokenops.coach_averages import Rules, Span
from tokenops.coach_transcripts import Talk
from tokenops.events import Event, Filter

# The clients whose transcripts tell who wrote what.
CLIENTS = ("claude-code", "codex")
Unread = Callable[[str, OSError], None]


def heard(
    folder: str,
    place: tuple[Mapping[str, str], str],
    kind: str,
    span: Span,
    wanted: Filter,
    note: Callable[[str], None] = lambda text: None,
    unread: Unread = lambda path, error: None,
    told: Callable[[int], None] = lambda size: None,
) -> Talk:
    """What was said in a span; `place`: the environment and the home directory. Raises readers.NotFound."""
    found = list(readers.found(coach_transcripts.CLIENTS, (), *place, note))
    return coach_transcripts.talk(found, kind, span, wanted, datadir.salt(folder), store.labels(folder), unread, told)


def logged(folder: str, since: str, until: str, wanted: Filter) -> Iterator[Event]:
    """Turns and rounds of the clients whose transcripts are read."""
    for line in store.cat(folder, since, until, wanted._replace(kinds=("turn", "work"))):
        record = orjson.loads(line)
        if record.get("client") in CLIENTS:
            yield record


def prompt_report(
    folder: str,
    talk: Talk,
    span: Span,
    wanted: Filter,
    rules: Rules,
    catalogue: pricing.Catalogue,
    by: str = "project",
    samples: int = 0,
) -> Event:
    """The report on what was asked."""
    records = logged(folder, span.before.since, span.until, wanted)
    return coach.report(talk, records, span, by, rules, catalogue, samples)


def reply_report(folder: str, talk: Talk, span: Span, wanted: Filter, rules: Rules) -> Event:
    """The report on what was answered."""
    turns = [record for record in logged(folder, span.since, span.until, wanted) if record["kind"] == "turn"]
    made: Event = {"v": 1, "kind": "coach", "report": "replies", "span": span._asdict() | {"days": span.days}}
    return made | coach_replies.report(talk, turns, rules)


def wasted(
    folder: str,
    span: Span,
    wanted: Filter,
    rules: Mapping[str, float],
    catalogue: pricing.Catalogue,
    given: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Event], list[Event]]:
    """The findings of a span's sessions added up by what they are, and each of them, dearest first."""
    lines = store.cat(folder, span.since, span.until, wanted._replace(kinds=("turn", "work")))
    found = trace.wasted(map(orjson.loads, lines), catalogue, rules, given)
    return trace_waste.summary(found), found


def models(
    folder: str, span: Span, wanted: Filter, rules: Mapping[str, float], catalogue: pricing.Catalogue, now: str
) -> list[Event]:
    """What a cheaper model of the same provider would have cost."""
    turns: Iterable[Event] = map(orjson.loads, store.cat(folder, span.since, span.until, wanted._replace(kinds=("turn",))))
    return coach_models.rows(turns, catalogue, rules, now)


def asked(given: Mapping[str, Any]) -> Filter:
    """The filter that arguments of these names mean."""
    return events.Filter(None, given.get("client"), given.get("project"), session=given.get("session"))
