"""Opens and ends tasks, and measures them: the turns between start and end, and the git branch.

A task is two records, its start and its end; everything else comes from the turns and rounds in between. A turn belongs
to the latest open task of its project or session.
"""

from __future__ import annotations

import bisect
import datetime
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from tokenops import costs, datadir, events, fields, jsonl, machines, pricing, programs, projects, rollup, show, store, when
from tokenops.config import Unusable
from tokenops.events import Event


def head(path: str) -> tuple[str, str]:
    """Branch and commit of the work tree around a directory; "" each if there is none (or no git)."""
    return _git(path, "symbolic-ref", "--quiet", "--short", "HEAD"), _git(path, "rev-parse", "--quiet", "--verify", "HEAD")


def _git(path: str, *arguments: str) -> str:
    try:
        ended = programs.run(["git", "-C", path, *arguments], 5)
    except OSError:
        return ""
    return ended.out.decode(errors="replace").strip() if ended.status == 0 else ""


SOURCE = "tok-task"


class Task(NamedTuple):
    """A task. Moments are canonical times; `ended` "" while it is open; `session` "": any of its project."""

    name: str
    title: str
    started: str
    ended: str
    project: str
    project_id: str
    session: str
    branch: str
    commit: str


def start(
    folder: str, directory: str, now: int, title: str, session: str = "", owner: machines.Owner = machines.NOBODY
) -> str:
    """Open a task of the project around a directory, and return its name. Raises Unusable, OSError."""
    if len(title) > events.LONGEST:
        raise Unusable("", f"the title has {len(title)} characters", f"give a title of at most {events.LONGEST} characters")
    attribution = project_of(folder, directory, session)
    name = f"{when.stamp(now)[:10].replace('-', '')}-{os.urandom(3).hex()}"
    record = start_record(name, title, when.stamp(now), attribution, head(directory))
    store.append(folder, [jsonl.line_of(record)], owner=owner)
    return name


def finish(folder: str, directory: str, now: int, name: str = "", owner: machines.Owner = machines.NOBODY) -> str:
    """End the task of that name, or the project's latest, and return its name. Raises Unusable, OSError."""
    tasks = tasks_of(store.of_kind(folder, "task"))
    task = open_task(tasks, name, "" if name else project_of(folder, directory)["project_id"])
    store.append(folder, [jsonl.line_of(end_record(task, when.stamp(now)))], owner=owner)
    return task.name


def open_name(folder: str, directory: str) -> str:
    """The name of the project's latest open task, "" if none is open. Raises OSError."""
    tasks = tasks_of(store.of_kind(folder, "task"))
    try:
        return open_task(tasks, "", project_of(folder, directory)["project_id"]).name if tasks else ""
    except Unusable:
        return ""


def rows(
    folder: str, now: int, catalogue: Callable[[], pricing.Catalogue] | None = None, name: str = "", since: str = ""
) -> list[Event]:
    """Tasks opened since a moment, or the one of that name; with a catalogue their metrics. Raises Unusable, OSError."""
    tasks = tasks_of(store.of_kind(folder, "task"))
    if name and name not in {task.name for task in tasks}:
        raise _no_task(name, tasks)
    chosen = [task for task in tasks if task.started >= since and name in ("", task.name)]
    took: dict[str, Event] = {}
    if catalogue is not None and chosen:
        lines = store.scan(folder, min(task.started for task in chosen))
        took = metrics(tasks, map(orjson.loads, lines), catalogue(), when.stamp(now))
    return [row(task, took.get(task.name)) for task in chosen]


def _no_task(name: str, tasks: Iterable[Task]) -> Unusable:
    hint = show.meant(name, {task.name for task in tasks})
    return Unusable("", f"there is no task {name!r}{hint}", "tok-task list shows them")


def project_of(folder: str, directory: str, session: str = "") -> dict[str, Any]:
    """The project around a directory."""
    resolver = projects.ProjectResolver(datadir.salt(folder, make=True))
    attribution = resolver.attribution(SOURCE, "", directory, "", session)
    store.remember_projects(folder, resolver.paths)
    return attribution


def start_record(name: str, title: str, ts: str, attribution: Mapping[str, Any], head: tuple[str, str]) -> Event:
    """The record of a start."""
    record: Event = {"v": events.VERSION, "ts": ts, "kind": "task", "id": f"task:{name}:start"}
    record |= {name: value for name, value in attribution.items() if name in _KEPT and value}
    record |= {"source": SOURCE, "task": name, "event": "start"}
    record |= {key: value for key, value in zip(("title", "branch", "commit"), (title, *head), strict=True) if value}
    return fields.fit_all(record)


_KEPT = ("project", "project_id", "session_id")


def end_record(task: Task, ts: str) -> Event:
    """The record of an end."""
    record: Event = {"v": events.VERSION, "ts": ts, "kind": "task", "id": f"task:{task.name}:done"}
    return record | {"source": SOURCE, "task": task.name, "event": "done"}


def tasks_of(records: Iterable[Event]) -> list[Task]:
    """The tasks in some records, in order of their start. The first end of a task counts."""
    starts: dict[str, Event] = {}
    ends: dict[str, str] = {}
    for record in records:
        if record.get("kind") == "task" and record.get("task"):
            name = record["task"]
            if record.get("event") == "start":
                starts.setdefault(name, record)
            elif record.get("event") == "done":
                ends[name] = min(ends.get(name, "9"), record["ts"])
    tasks = [
        Task(
            name,
            get("title", ""),
            get("ts", ""),
            ends.get(name, ""),
            *(get(key, "") for key in (*_KEPT, "branch", "commit")),
        )
        for name, get in ((name, record.get) for name, record in starts.items())
    ]
    return sorted(tasks, key=lambda task: (task.started, task.name))


def open_task(tasks: Sequence[Task], name: str, project_id: str) -> Task:
    """The open task of that name, or the latest one of the project. Raises Unusable."""
    mine = [task for task in tasks if not task.ended]
    if name:
        named = [task for task in tasks if task.name == name]
        if not named:
            raise _no_task(name, tasks)
        if named[0].ended:
            raise Unusable("", f"the task {name} ended at {named[0].ended}", "tok-task list shows the open ones")
        return named[0]
    here = [task for task in mine if task.project_id == project_id]
    if not here:
        others = f"; open elsewhere: {', '.join(task.name for task in mine)}" if mine else ""
        raise Unusable("", f"no task of this project is open{others}", "tok-task start TITLE opens one")
    return here[-1]


class Owners:
    """Finds the task that a record belongs to."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.sessions: dict[str, list[Task]] = {}
        self.projects: dict[str, list[Task]] = {}
        for task in tasks:
            if task.session:
                self.sessions.setdefault(task.session, []).append(task)
            else:
                self.projects.setdefault(task.project_id, []).append(task)

    def owner(self, record: Event) -> Task | None:
        """The latest task of a record's session or project that was open at its time."""
        ts = record["ts"]
        groups = (self.sessions.get(record.get("session_id", "")), self.projects.get(record.get("project_id", "-")))
        candidates = [task for group in groups if group for task in _open_at(group, ts)]
        return max(candidates, key=lambda task: (task.started, task.name), default=None)


def _open_at(group: list[Task], ts: str) -> list[Task]:
    """The latest task of a group that is open at a moment, in a list."""
    for task in reversed(group[: bisect.bisect_right(group, ts, key=lambda task: task.started)]):
        if not task.ended or ts < task.ended:
            return [task]
    return []


def metrics(tasks: Sequence[Task], records: Iterable[Event], catalogue: pricing.Catalogue, now: str) -> dict[str, Event]:
    """Name of a task -> its metrics, from the turns and rounds of the log."""
    owners = Owners(tasks)
    sums: dict[str, rollup.Rollup] = {}
    rounds: dict[str, list[Event]] = {}
    for record in records:
        if record.get("kind") not in ("turn", "work"):
            continue
        task = owners.owner(record)
        if task is None:
            continue
        if record["kind"] == "work":
            rounds.setdefault(task.name, []).append(record)
        else:
            sums.setdefault(task.name, rollup.Rollup(rollup.Grouping((), when.UTC, catalogue))).add(record)
    result = {}
    for task in tasks:
        rows = costs.price_rows(sums[task.name].rows(), catalogue) if task.name in sums else []
        result[task.name] = _metrics(task, rows, rounds.get(task.name, []), now)
    return result


def _metrics(task: Task, rows: Sequence[Event], rounds: Sequence[Event], now: str) -> Event:
    """Those of `values_of`, and cost_per_turn_usd, duration_s, ttfuo_s or null."""
    values = values_of(rows)
    priced_turns = values["turns"] - sum(part.get("turns", 0) for part in values.get("unpriced", ()))
    if "cost_usd" in values and priced_turns > 0:
        each = Decimal(values["cost_usd"]) / priced_turns
        values["cost_per_turn_usd"] = pricing.plain(each.quantize(Decimal("0.000001")))
    end = task.ended or now
    values["duration_s"] = _seconds(task.started, end)
    first = first_use(rounds, task.started)
    values["ttfuo_s"] = None if first is None else _seconds(task.started, first)
    return values


def _seconds(start: str, end: str) -> int:
    return round((when.moment(end) - when.moment(start)) / 1000)


# What counts as first use, best first: an answer counts only if there is no edit and no command.
_USES = (("edit", "command"), ("reply",))


def first_use(rounds: Sequence[Event], started: str) -> str | None:
    """When the first edit or command came (or, without any, the first answer) that the user kept.

    A round was not kept if the next one of its session begins with a correction or asks for the same again.
    """
    sessions: dict[str, list[Event]] = {}
    for round_ in sorted(rounds, key=lambda round_: (round_["ts"], round_["id"])):
        if not round_.get("sidechain"):
            sessions.setdefault(round_.get("session_id", ""), []).append(round_)
    kept = []
    for rounds_of_session in sessions.values():
        for at, round_ in enumerate(rounds_of_session):
            after = rounds_of_session[at + 1]["counts"] if at + 1 < len(rounds_of_session) else {}
            if not after.get("corrections") and not after.get("regenerations"):
                kept.append(round_)
    for names in _USES:
        moments: list[str] = [
            round_["times"][name] for round_ in kept for name in names if round_.get("times", {}).get(name, "") >= started
        ]
        if moments:
            return min(moments)
    return None


def row(task: Task, metrics: Event | None) -> Event:
    """A task as a record for programs."""
    record: Event = {"v": 1, "kind": "task", "task": task.name, "title": task.title, "project": task.project}
    record |= {"session_id": task.session, "branch": task.branch, "commit": task.commit, "started_at": task.started}
    record = {key: value for key, value in record.items() if value}
    record["ended_at"] = task.ended or None
    return record | ({"metrics": metrics} if metrics is not None else {})


def by_branch(rows: Sequence[Event]) -> list[Event]:
    """The metrics of tasks, added up by project and branch; those without a branch under null."""
    groups: dict[tuple[Any, Any], list[Event]] = {}
    for row in rows:
        groups.setdefault((row.get("project"), row.get("branch")), []).append(row["metrics"])
    totals = []
    for (project, branch), group in sorted(groups.items(), key=lambda item: tuple(map(str, item[0]))):
        total: Event = {"v": 1, "kind": "branch", "project": project, "branch": branch, "tasks": len(group)}
        total |= add_values(group) | {"duration_s": sum(row["duration_s"] for row in group)}
        totals.append(total)
    return totals


def values_of(rows: Sequence[Event]) -> Event:
    """Keys: turns, tokens by class, cost_usd (of what has a price; absent if nothing has one), unpriced."""
    total = costs.total_of(list(rows))
    values: Event = {"turns": total.get("turns", 0)} | {name: total.get(name, 0) for name in events.TOKENS}
    if unpriced := [part for row in rows for part in row.get("unpriced", ())]:
        values["unpriced"] = unpriced
    if any("cost_usd" in row for row in rows):
        values["cost_usd"] = total.get("cost_usd", "0")
    return values


def add_values(parts: Sequence[Event]) -> Event:
    """The sum of several values, as `values_of` gives them."""
    total: Event = {name: sum(part.get(name, 0) for part in parts) for name in ("turns", *events.TOKENS)}
    if unpriced := [part for values in parts for part in values.get("unpriced", ())]:
        total["unpriced"] = unpriced
    if not unpriced or any("cost_usd" in part for part in parts):
        total["cost_usd"] = pricing.plain(sum((Decimal(part.get("cost_usd", "0")) for part in parts), Decimal(0)))
    return total


# What tasks, or branches, can be ordered by.
ORDERS: show.Orders = {
    "price": lambda row: None if "cost_usd" not in _values(row) else Decimal(_values(row)["cost_usd"]),
    "tokens": lambda row: events.token_sum(_values(row)),
    "turns": lambda row: _values(row).get("turns"),
    "took": lambda row: _values(row).get("duration_s"),
    "started": lambda row: when.moment(row["started_at"]) if "started_at" in row else None,
    "name": lambda row: row.get("task") or row.get("branch"),
}


def _cost(rows: Iterable[Event]) -> str | None:
    """What some tasks cost; None if nothing has a price."""
    amounts = [Decimal(_values(row)["cost_usd"]) for row in rows if "cost_usd" in _values(row)]
    return pricing.plain(sum(amounts, Decimal(0))) if amounts else None


def dearest(rows: Sequence[Event]) -> list[Event]:
    """Tasks or branches, the dearest first."""
    return show.by_order(rows, "price", ORDERS)


def _values(row: Event) -> Event:
    """The metrics of a task or branch."""
    return row if row["kind"] == "branch" else row.get("metrics") or {}


def table(
    rows: Sequence[Event],
    shape: str,
    color: bool,
    verbose: bool = False,
    rest: Sequence[Event] = (),
    tz: datetime.tzinfo | None = None,
) -> str:
    """Tasks, or branches, for people. `rest`: those that are only counted below."""
    branches = bool(rows) and rows[0]["kind"] == "branch"
    values = list(map(_values, rows))

    def texts(name: str, rank: int) -> show.Column:
        return show.Column(name, [str(row.get(name) or "") for row in rows], False, rank)

    names = (("project", 1), ("branch", 0)) if branches else (("task", 0), ("title", 1), ("project", 3), ("branch", 4))
    columns = [texts(*name) for name in names]
    if not branches:
        zone, moments = tz or when.zone(None), [when.moment(row["started_at"]) for row in rows]
        year = max(moments, default=0)
        columns.append(show.Column("started", [when.short_time(at, zone, year) for at in moments], False, 3))
        ends = [row["ended_at"] and when.short_time(when.moment(row["ended_at"]), zone, year) for row in rows]
        columns.append(show.Column("ended", [end or "open" for end in ends], False, 2))
    if any(values):
        prices = [row.get("cost_usd") or (None if row.get("unpriced") else "") for row in values]
        columns += [
            show.counts("turns", [row.get("turns", 0) for row in values], 4),
            show.counts("prompt tokens", [sum(row.get(name, 0) for name in events.CONTEXT) for row in values], 6, "prompt"),
            show.counts("output", [row.get("output_tokens", 0) for row in values], 6),
            show.counts("tokens", list(map(events.token_sum, values)), 2),
            show.amounts("list price", prices, ["unpriced" in row for row in values], heading="price"),
            show.Column("took", [_while(row.get("duration_s")) for row in values], rank=2),
        ]
        if not branches:
            columns.append(show.Column("first use", [_while(row.get("ttfuo_s")) for row in values], rank=5))
    others = [show.more(len(rest), _cost(rest))] if rest else []
    lacking = [f"+ {note}" for note in costs.unpriced_notes(values, verbose)]
    laid = show.table(columns, shape, color=color) + show.notes(others, shape, color, verbose=True)
    return laid + show.notes(lacking, shape, color, verbose)


def _while(seconds: int | None) -> str:
    return "unknown" if seconds is None else when.duration(1000 * seconds, seconds=True)
