"""The tasks of the dashboard: those of tok-task list --metrics, without reading the whole log each time.

What a closed day says of tasks is kept, and what a task took, as long as the days it lies in stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from tokenops import dash_log, events, pricing, store, tasks, when
from tokenops.events import Event
from tokenops.store_summaries import Sizes
from tokenops.tasks import Task

SINCE_MS = 30 * when.DAY
MOST = 8


class Tasks:
    """The tasks of one log."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.days: dict[str, tuple[list[int], list[Event]]] = {}
        self.took: dict[str, tuple[str, Event]] = {}

    def rows(self, now: int, catalogue: pricing.Catalogue, sizes: Sizes) -> list[Event]:
        """The newest tasks that were opened in the last thirty days, with what they took, the newest first."""
        found = tasks.tasks(self._records(sizes))
        shown = [one for one in found if one.started >= when.stamp(now - SINCE_MS)][-MOST:]
        self.took = {one.name: self._took(one, found, now, catalogue, sizes) for one in shown}
        return [tasks.row(one, self.took[one.name][1]) for one in reversed(shown)]

    def _records(self, sizes: Sizes) -> Iterator[Event]:
        """The records of tasks, each once."""
        known: dict[str, Event] = {}
        for day, about in sizes.items():
            held = self.days.get(day)
            if held is None or held[0] != about:
                found = list(store.of_kind(self.folder, "task", f"{day}T00:00:00.000Z", day))
                held = self.days[day] = (about, found)
            for record in held[1]:
                seen = known.get(record["id"])
                known[record["id"]] = events.join(seen, record) if seen else record
        for gone in self.days.keys() - sizes.keys():
            del self.days[gone]
        return iter(known.values())

    def _took(self, one: Task, found: list[Task], now: int, catalogue: pricing.Catalogue, sizes: Sizes) -> tuple[str, Event]:
        """What a task took, with a name for all that it was worked out from."""
        until = one.ended or when.stamp(now)
        # A task that is open may grow by the second: it is looked at once a minute.
        last_day = until[:10] if one.ended else dash_log.open_since(now)
        about = [dash_log.day_state(day, sizes) for day in sizes if one.started[:10] <= day <= last_day]
        open_for = "" if one.ended else until[:16]
        others = [
            (other.name, other.started, other.ended) for other in found if not other.ended or other.ended > one.started
        ]
        key = orjson.dumps([about, open_for, others, catalogue.digest]).decode()
        held = self.took.get(one.name)
        if held is not None and held[0] == key:
            return held
        last = one.ended or "9"
        records = map(orjson.loads, store.scan(self.folder, one.started, last))
        return key, tasks.measured(found, records, catalogue, when.stamp(now))[one.name]
