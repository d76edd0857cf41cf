"""Decides which records about whole sessions count: those of sessions without turns, and what is beyond the turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

from tokenops import events, joins
from tokenops.events import Event

# Of the tokens of a row, those that a client's own sums hold beyond its turns: of requests that leave no line.
BEYOND = "remainder_tokens"


def is_counted(event: Event) -> bool:
    """Whether a record is about a whole session and may count: instead of its turns, or beyond them."""
    return event.get("kind") == "usage" and event.get("covers") in (events.SESSION, events.REMAINDER)


class Totals:
    """The records about whole sessions seen so far."""

    def __init__(self) -> None:
        self._aggregates: dict[str, Event] = {}
        self._remainders: dict[tuple[Any, ...], Event] = {}  # the latest per session and model

    def add(self, event: Event) -> None:
        """Add a record of which `is_counted` is true."""
        if event["covers"] == events.REMAINDER:
            key = (event.get("client"), event.get("session_id") or event["id"], event.get("model"))
            self._remainders[key] = max(self._remainders.get(key, event), event, key=joins.remainder_rank)
        else:
            earlier = self._aggregates.get(event["id"])
            self._aggregates[event["id"]] = joins.join(earlier, event) if earlier else event

    def take(self, sessions: Set[Any]) -> list[Event]:
        """Those that count beside the turns of some sessions. What is returned here is not returned again.

        A session's total has what is beyond its turns, so the two are never added.
        """
        standing = [event for event in _standing(self._aggregates.values()) if event.get("session_id") not in sessions]
        whole = {event.get("session_id") for event in standing}
        beyond = [{**event, BEYOND: events.token_sum(event)} for event in self._remainders.values()]
        self._aggregates.clear()
        self._remainders.clear()
        return standing + [event for event in beyond if event[BEYOND] and event.get("session_id") not in whole]


def _standing(aggregates: Iterable[Event]) -> Iterator[Event]:
    """For each session the aggregates of the source that counted most, since several sources count the same requests."""
    sessions: dict[Any, dict[str, list[Event]]] = {}
    for event in aggregates:
        session = event.get("session_id") or event["id"]
        sessions.setdefault(session, {}).setdefault(str(event.get("source")), []).append(event)
    for sources in sessions.values():
        yield from sources[min(sources, key=lambda name: (-sum(map(events.token_sum, sources[name])), name))]
