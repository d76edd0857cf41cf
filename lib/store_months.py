"""Keeps the sums of whole months of closed days, so that a report over years does not read each day's sessions.

The sums of a month are those of its days but the first and the last: these may lie in another month of the reader's zone.
Turns are added up without their session, unless the session also has a total of its own that may count instead of them
(rollup_totals). The names of the month's sessions are kept beside them, for totals that stand elsewhere in the log.
A month is valid while the files of its days and the prices stay the same (store_days).
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tokenops import events, pricing, store_days, when
from tokenops.events import Event
from tokenops.store_days import Derived, Files

# What turns of a month are added up by: what a summary of a day has, but for the session and what is named after it.
BY = ("client", "project", "project_id", "agent", "account", "credential", *events.OWNER)
_OF_PROJECT = ("project", "project_id", "agent")
_WITHOUT_PROJECT = tuple(name for name in BY if name not in _OF_PROJECT)
# Reports by these are made of months.
_FIELDS = frozenset((*BY, "provider", "model", "month", "covered"))
FORMAT = 2
_USAGE, _TOTALS, _ROWS, _SESSIONS = range(4)
# Of fewer days with records, the sums of the days are as soon read.
LEAST_DAYS = 4


class Month(NamedTuple):
    """The days of a month that are added up together, of those that have records; and the span that they stand for."""

    name: str
    days: tuple[str, ...]
    begins: str
    ends: str


def whole_months(files: Files, first_open: str, since: str, until: str, edges: Sequence[str] = ()) -> list[Month]:
    """The months whose inner days are closed, lie within a span, and are not divided by one of the `edges`."""
    months = []
    for name, days in itertools.groupby(sorted(files), key=lambda day: day[:7]):
        month = _month(name, tuple(days))
        is_closed = month.ends[:10] < first_open and since <= month.begins and month.ends <= until
        if (
            is_closed
            and len(month.days) >= LEAST_DAYS
            and not any(month.begins < boundary < month.ends for boundary in edges)
        ):
            months.append(month)
    return months


def _month(name: str, days: tuple[str, ...]) -> Month:
    second = datetime.date.fromisoformat(f"{name}-02")
    last = (second + datetime.timedelta(31)).replace(day=1) - datetime.timedelta(1)
    inner = tuple(day for day in days if second.isoformat() <= day < last.isoformat())
    return Month(name, inner, f"{second}T00:00:00.000Z", f"{last}T00:00:00.000Z")


def are_enough(by: Iterable[str], only: events.Filter) -> bool:
    """Whether a report by some fields, of what a filter takes, can be made of months."""
    return only.session is None and only.kinds is None and _FIELDS.issuperset(by)


def need_projects(by: Iterable[str], only: events.Filter) -> bool:
    """Whether such a report needs rows by project: of 40 projects, there are 40 times as many."""
    return only.project is not None or not set(_OF_PROJECT).isdisjoint(by)


def derived_months(folder: str, catalogue: pricing.Catalogue) -> Derived:
    """Where the months of a log are kept, at some prices."""
    return Derived(folder, "months", f"{FORMAT}-{events.VERSION}", catalogue.digest)


class Months:
    """The months of one log, at some prices. `read` gives a day's rows by session and its records about whole sessions."""

    def __init__(
        self, folder: str, catalogue: pricing.Catalogue, files: Files, read: Callable[[str], Iterable[Event]]
    ) -> None:
        self.derived = derived_months(folder, catalogue)
        self.catalogue, self.files, self.read = catalogue, files, read

    def usage(self, month: Month) -> list[Event]:
        """The records about whole sessions."""
        usage: list[Event] = self._part(month, _USAGE)
        return usage

    def rows(self, month: Month, by_project: bool) -> list[Event]:
        """The rows of the turns, by month (of any zone)."""
        rows: list[Event] = self._part(month, _ROWS if by_project else _TOTALS)
        return rows

    def sessions(self, month: Month) -> frozenset[str]:
        """The names of the sessions whose turns are in rows without a session; "" for none."""
        return frozenset(self._part(month, _SESSIONS))

    def refresh(self, months: Iterable[Month]) -> None:
        """Make the sums that are missing or no longer valid."""
        for month in months:
            self._part(month, _USAGE)

    def _part(self, month: Month, part: int) -> list[Any]:
        key = self.key(month)
        entry = self.derived.load(month.name, lambda other: other == key, part)
        if entry is not None:
            kept: list[Any] = entry[1]
            return kept
        parts = self._add_up(month)
        self.derived.save(month.name, key, *parts)
        return parts[part]

    def key(self, month: Month) -> list[list[str | int]]:
        """What the sums of a month are made of: its files, and those of the days before and after."""
        first, last = store_days.near(month.begins[:10])[0], month.ends[:10]
        return [[day, *self.files[day]] for day in sorted(self.files) if first <= day <= last]

    def _add_up(self, month: Month) -> tuple[list[Event], list[Event], list[Event], list[str]]:
        records = [record for day in month.days for record in self.read(day)]
        usage = [record for record in records if record["kind"] == "usage"]
        totalled = {record.get("session_id") for record in usage if record.get("covers") == events.SESSION}
        apart: list[Event] = []
        together: list[Event] = []
        for row in (record for record in records if record["kind"] == "row"):
            (apart if row.get("session_id") in totalled else together).append(row)
        names = sorted({row.get("session_id", "") for row in together})
        by_session = self._rows(apart, (*BY, "workflow", "session"))
        totals, rows = ([*self._rows(together, by), *by_session] for by in (_WITHOUT_PROJECT, BY))
        return usage, totals, rows, names

    def _rows(self, rows: list[Event], by: tuple[str, ...]) -> list[Event]:
        from tokenops import rollup

        return rollup.roll_up(rows, rollup.Grouping(by, when.UTC, self.catalogue), lambda why: None)
