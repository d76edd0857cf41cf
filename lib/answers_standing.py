"""Answers where the user stands: what today and this month cost, how much of each limit is used, and what cost most."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from tokenops import answers, datadir, events, show
from tokenops.session import Log

if TYPE_CHECKING:
    from tokenops.coverage import Coverage
    from tokenops.events import Event

    # When a window begins and ends, and its row.
    _Window = tuple[str, str, Event]

# How many projects and sessions are listed.
LISTED = 10
CURRENT, OLD, EMPTY = "current", "old", "empty"
_SUMS = ("turns", "cost_usd", "plan_covered_usd", "metered_usd", "cache_saved_usd")


class Standing(NamedTuple):
    """Where the user stands, in parts.

    `state`: current; old (no turn this month: the spans are the last month and day with any); empty. `spans`: the day and
    the month, a row each; `projects` and `sessions`: of the month, the most expensive first, and how many there are in all;
    `plans`: what each plan covered in the month; `budget`: the rows of answers.budget; `folders`: where each client's logs
    were looked for, if there is no data; `advice`: one next step, {what, do}.
    """

    state: str
    spans: list[Event]
    projects: list[Event]
    sessions: list[Event]
    listed_of: dict[str, int]
    plans: list[Event]
    budget: answers.Budget
    folders: list[Event]
    advice: dict[str, str]

    def record(self, log: Log) -> Event:
        """All of it as one object."""
        from tokenops import when

        row = {"v": 1, "kind": "standing", "state": self.state, "as_of": log.as_of or None, "tz": when.zone_name(log.tz)}
        row |= {"spans": self.spans, "limits": self.budget.rows, "plans": self.plans}
        row |= {"projects": self.projects, "sessions": self.sessions, "listed_of": self.listed_of}
        return row | {"looked_for": self.folders, "next": self.advice}


def standing(
    log: Log,
    environment: Mapping[str, str],
    home: str,
    cover: Coverage | None = None,
    on_bad_line: Callable[[str, str], None] = answers.ignore,
) -> Standing:
    """Where the user stands. Raises session.Fault and OSError."""
    from tokenops import when

    budget, state, day = answers.budget(log), CURRENT, when.bucket(log.now, "day", log.tz)
    month = _month(log, day, cover, on_bad_line)
    if not month.rows:
        last = last_day(log)
        state, day = (OLD, last) if last else (EMPTY, day)
        month = _month(log, day, cover, on_bad_line) if last else month
    since, until = _bounds(day, log)
    day_span = answers.spend(log, (), since, until, events.EVERY, cover, on_bad_line)
    projects, sessions = month.sums_by("project"), month.sums_by("session")
    short = show.short_ids(row["session_id"] for row in sessions if "session_id" in row)
    sessions = [{**row, "short_id": short[row["session_id"]]} if "session_id" in row else row for row in sessions]
    names = ("today", "this month") if state != OLD else (day, day[:7])
    spans = [_span(name, spent) for name, spent in zip(names, (day_span, month.spend), strict=True)]
    folders = list(_searched_folders(environment, home)) if state == EMPTY else []
    advice = _advice(log.folder, state, budget, spans, sessions)
    listed_of = {"projects": len(projects), "sessions": len(sessions)}
    return Standing(
        state,
        spans,
        projects[:LISTED],
        sessions[:LISTED],
        listed_of,
        month.spend.plan_value,
        budget,
        folders,
        advice,
    )


class _Month(NamedTuple):
    """A month by session, and its sums."""

    rows: list[Event]  # not priced
    spend: answers.Spend
    log: Log

    def sums_by(self, field: str) -> list[Event]:
        """What each project or session cost, the most expensive first."""
        spent = answers.spend_of_records(self.rows, self.log.catalogue(), self.log.tz, (field,))
        names = ("project", "session_id", "client", "from", "to", "turns", "cost_usd", "cost_source", "unpriced")
        named = (
            {name: row[name] for name in names if name in row} | {"tokens": events.token_sum(row)} for row in spent.rows
        )
        return answers.Spend(list(named), {}, [], "", "").dearest(len(spent.rows))


def _month(log: Log, day: str, cover: Coverage | None, on_bad_line: Callable[[str, str], None]) -> _Month:
    """The month of a day, until now or its end. The log is read once."""
    from tokenops import rollup, store_summaries

    since, until = _bounds(day[:7], log)
    grouping = rollup.Grouping(("session",), log.tz, log.catalogue())
    rows = store_summaries.rows(log.folder, grouping, log.now, since, until, events.EVERY, on_bad_line, cover)
    return _Month(rows, answers.spend_of_rows(rows, log, since, until, cover), log)


def _bounds(period: str, log: Log) -> tuple[str, str]:
    """The bounds of a day or month; the present one goes on."""
    from tokenops import when

    until = when.parse_until(period, log.now, log.tz)
    last = answers.OPEN if until > log.now else when.stamp(until)
    return when.stamp(when.parse_since(period, log.now, log.tz)), last


def _span(name: str, spent: answers.Spend) -> Event:
    """A span's sums: what it cost, what of it plans covered, and how many turns have no price."""
    row: Event = {"name": name, "since": spent.since, "until": spent.until, "turns": 0}
    row |= {field: spent.total[field] for field in _SUMS if field in spent.total}
    row["tokens"] = events.token_sum(spent.total)
    row["unpriced_turns"] = sum(item["turns"] for each in spent.rows for item in each.get("unpriced", ()))
    return row


def last_day(log: Log, only: events.Filter = events.EVERY) -> str:
    """The last local day with usage that a filter takes; "" if there is none."""
    from tokenops import rollup, store, store_days, store_summaries

    grouping = rollup.Grouping(("day",), log.tz, log.catalogue())
    for day in reversed(store.days(log.folder)):
        span = f"{day}T00:00:00.000Z", store_days.midnight_after(day)
        rows = store_summaries.rows(log.folder, grouping, log.now, *span, only)
        if days := [str(row["bucket"]) for row in rows if row.get("turns") or events.token_sum(row)]:
            return max(days)
    return ""


# A month of windows, and their readings.
_WINDOWS_MS = 35 * 86_400_000


class Blocks(NamedTuple):
    """Five-hour windows, a row each in order of time, and the day on which the last one of all was read ("": none)."""

    rows: list[Event]
    last_read: str


def blocks(log: Log, since: str = "", until: str = answers.OPEN, only: events.Filter = events.EVERY) -> Blocks:
    """The 5-hour windows that vendors' readings show, at most of the last 35 days, with what was used in each.

    Only the vendor knows when a window begins, so nothing is derived from turns alone.
    """
    from tokenops import limit_log, limit_windows, when

    readings = [
        reading
        for reading in limit_log.readings(log.folder, log.now - _WINDOWS_MS, log.now, log.memory)
        if reading.key.window == "five_hour"
    ]
    spans: dict[tuple[str, str], list[list[_Window]]] = {}
    rows: list[Event] = []
    for series in limit_windows.series(readings):
        windows: list[_Window] = []
        for window in series.windows:
            first, last = when.stamp(window.starts_at), when.stamp(window.resets_at)
            if last <= since or first >= until:
                continue
            row: Event = {"v": 1, "kind": "block", "provider": series.key.provider}
            row |= {"account": series.key.account} if series.key.account else {}
            row |= {"scope": series.key.scope} if series.key.scope else {}
            row |= {"from": first, "to": last, "is_active": window.starts_at <= log.now < window.resets_at}
            row |= {"used": window.points[-1].used, "observed_at": when.stamp(window.points[-1].at)}
            rows.append(row)
            windows.append((first, last, row))
        if windows:
            spans.setdefault((series.key.provider, series.key.account), []).append(windows)
    _add_use(log, spans, only)
    last_read = max((when.bucket(reading.at, "day", log.tz) for reading in readings), default="")
    return Blocks(sorted(rows, key=lambda row: (row["from"], row["provider"], str(row.get("account")))), last_read)


def _add_use(log: Log, spans: Mapping[tuple[str, str], list[list[_Window]]], only: events.Filter) -> None:
    """Add to the row of each window what the log holds of it: turns, tokens and cost.

    `spans`: for each provider and account the windows of each scope, in order of time.
    """
    import bisect

    import orjson

    from tokenops import projects, store

    every = [window for group in spans.values() for windows in group for window in windows]
    if not every:
        return
    accounts: dict[str, set[str]] = {}
    for provider, account in spans:
        accounts.setdefault(provider, set()).add(account)
    turns: dict[int, list[Event]] = {}
    names = store.labels(log.folder)
    for line in store.scan(log.folder, min(span[0] for span in every), max(span[1] for span in every)):
        if store.kind_of(line) != b"turn":
            continue
        event = projects.relabel(orjson.loads(line), names)
        owners = accounts.get(str(event.get("provider")), set())
        owner = str(event.get("account", "")) if len(owners) > 1 else next(iter(owners), "")
        for windows in spans.get((str(event.get("provider")), owner), ()):
            at = bisect.bisect_right(windows, event["ts"], key=lambda window: window[0]) - 1
            if at >= 0 and event["ts"] < windows[at][1] and only.takes(event):
                turns.setdefault(id(windows[at][2]), []).append(event)
    for _, _, row in every:
        spent = answers.spend_of_records(turns.get(id(row), []), log.catalogue(), log.tz, ())
        row |= {"turns": 0, "tokens": events.token_sum(spent.total)}
        row |= {name: spent.total[name] for name in ("turns", "cost_usd") if name in spent.total}
        if unpriced := [item for each in spent.rows for item in each.get("unpriced", ())]:
            row["unpriced"] = unpriced


def _searched_folders(environment: Mapping[str, str], home: str) -> Iterator[Event]:
    """Where each client's logs were looked for, and which of these folders exist."""
    import os

    from tokenops import read_clients, readers

    for client in read_clients.CLIENTS:
        if client.homes and client.gives.startswith(("turns", "a total per session")):
            folders = readers.usual_folders(client, environment, home)
            yield {
                "client": client.client,
                "places": folders,
                "existing": [path for path in folders if os.path.exists(path)],
            }


def _advice(folder: str, state: str, budget: answers.Budget, spans: list[Event], sessions: list[Event]) -> dict[str, str]:
    """The one step that helps most: what is the matter, and the command."""
    if state == EMPTY:
        if datadir.is_demo(demo := datadir.demo_folder(folder)):
            return {"what": "the demo data is in a log of its own", "do": f"TOKENOPS_HOME={shlex.quote(demo)} tok"}
        return {"what": "sample data shows every report", "do": "tok init --demo"}
    if unpriced := spans[-1]["unpriced_turns"]:
        return {"what": f"{unpriced:,} turns have no price and are in no cost", "do": "tok models"}
    if not budget.bound:
        return {"what": "no plan is set, so all usage counts as pay-per-token", "do": "tok init"}
    if any(row["recommended_action"] != "continue" for row in budget.rows):
        return {"what": "a limit is close", "do": "tok limits"}
    if silent := [row for row in budget.rows if row["headroom_pct"] is None and row["next_actions"]]:
        return {"what": f"no current reading of {silent[0]['provider']}'s limits", "do": "tok limits"}
    if sessions:
        return {
            "what": "the most expensive session, turn by turn",
            "do": f"tok trace {sessions[0].get('short_id', '')}",
        }
    return {"what": "what to change to use less", "do": "tok coach waste"}
