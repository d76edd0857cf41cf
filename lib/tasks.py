"""Tasks: pieces of work from a start to an end, the turns they took, and the git branch they belong to.

A task is two records, its start and its end; everything else is worked out from the turns and rounds in between. A turn
belongs to the task of its project or session that was opened last.
"""

from __future__ import annotations

import bisect
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from tokenops import costs, datadir, events, jsonl, pricing, projects, rollup, show, store, when
from tokenops.config import Unusable
from tokenops.events import Event


def head(path: str) -> tuple[str, str]:
    """Branch and commit of the work tree around a directory; "" each where there is none (or no git)."""
    return _said(path, "symbolic-ref", "--quiet", "--short", "HEAD"), _said(path, "rev-parse", "--quiet", "--verify", "HEAD")


def _said(path: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


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


def start(folder: str, directory: str, now: int, title: str, session: str = "") -> str:
    """Open a task of the project around a directory; its name. Raises Unusable, OSError."""
    if len(title) > events.LONGEST:
        raise Unusable("", f"the title has {len(title)} characters", f"{events.LONGEST} are kept: give a shorter one")
    about = _here(folder, directory, session)
    name = f"{when.stamp(now)[:10].replace('-', '')}-{os.urandom(3).hex()}"
    store.append(folder, [jsonl.line_of(begun(name, title, when.stamp(now), about, head(directory)))])
    return name


def finish(folder: str, directory: str, now: int, name: str = "") -> str:
    """End the task of that name, or the project's that was opened last; its name. Raises Unusable, OSError."""
    found = tasks(store.of_kind(folder, "task"))
    task = open_task(found, name, "" if name else _here(folder, directory)["project_id"])
    store.append(folder, [jsonl.line_of(ended(task, when.stamp(now)))])
    return task.name


def listed(
    folder: str, now: int, catalogue: Callable[[], pricing.Catalogue] | None = None, name: str = "", since: str = ""
) -> list[Event]:
    """Tasks opened since a moment, or the one of that name; with a catalogue what they took. Raises Unusable, OSError."""
    found = tasks(store.of_kind(folder, "task"))
    if name and name not in {one.name for one in found}:
        raise Unusable("", f"there is no task {name!r}", "tok-task list shows them")
    wanted = [one for one in found if one.started >= since and name in ("", one.name)]
    took: dict[str, Event] = {}
    if catalogue is not None and wanted:
        lines = store.scan(folder, min(one.started for one in wanted))
        took = measured(found, map(orjson.loads, lines), catalogue(), when.stamp(now))
    return [row(one, took.get(one.name)) for one in wanted]


def _here(folder: str, directory: str, session: str = "") -> dict[str, Any]:
    """The project around a directory."""
    places = projects.Places(datadir.salt(folder, make=True))
    about = places.attribution(SOURCE, "", directory, "", session)
    store.remember_projects(folder, places.paths)
    return about


def begun(name: str, title: str, ts: str, attribution: Mapping[str, Any], head: tuple[str, str]) -> Event:
    """The record of a start."""
    made: Event = {"v": events.VERSION, "ts": ts, "kind": "task", "id": f"task:{name}:start"}
    made |= {name: value for name, value in attribution.items() if name in _KEPT and value}
    made |= {"source": SOURCE, "task": name, "event": "start"}
    return made | {key: value for key, value in zip(("title", "branch", "commit"), (title, *head), strict=True) if value}


_KEPT = ("project", "project_id", "session_id")


def ended(task: Task, ts: str) -> Event:
    """The record of an end."""
    made: Event = {"v": events.VERSION, "ts": ts, "kind": "task", "id": f"task:{task.name}:done"}
    return made | {"source": SOURCE, "task": task.name, "event": "done"}


def tasks(records: Iterable[Event]) -> list[Task]:
    """The tasks that some records tell of, in order of their start. One that was ended twice ended first."""
    starts: dict[str, Event] = {}
    ends: dict[str, str] = {}
    for record in records:
        if record.get("kind") == "task" and record.get("task"):
            name = record["task"]
            if record.get("event") == "start":
                starts.setdefault(name, record)
            elif record.get("event") == "done":
                ends[name] = min(ends.get(name, "9"), record["ts"])
    found = [
        Task(
            name,
            get("title", ""),
            get("ts", ""),
            ends.get(name, ""),
            *(get(key, "") for key in (*_KEPT, "branch", "commit")),
        )
        for name, get in ((name, record.get) for name, record in starts.items())
    ]
    return sorted(found, key=lambda one: (one.started, one.name))


def open_task(found: Sequence[Task], name: str, project_id: str) -> Task:
    """The open task of that name, or the one of the project that was opened last. Raises Unusable."""
    mine = [one for one in found if not one.ended]
    if name:
        wanted = [one for one in found if one.name == name]
        if not wanted:
            raise Unusable("", f"there is no task {name!r}", "tok-task list shows them")
        if wanted[0].ended:
            raise Unusable("", f"the task {name} ended at {wanted[0].ended}", "tok-task list shows the open ones")
        return wanted[0]
    here = [one for one in mine if one.project_id == project_id]
    if not here:
        others = f"; open elsewhere: {', '.join(one.name for one in mine)}" if mine else ""
        raise Unusable("", f"no task of this project is open{others}", "tok-task start TITLE opens one")
    return here[-1]


class Owners:
    """Which task a record belongs to."""

    def __init__(self, found: Sequence[Task]) -> None:
        self.sessions: dict[str, list[Task]] = {}
        self.projects: dict[str, list[Task]] = {}
        for one in found:
            if one.session:
                self.sessions.setdefault(one.session, []).append(one)
            else:
                self.projects.setdefault(one.project_id, []).append(one)

    def of(self, record: Event) -> Task | None:
        """The task of a record's session or project that was opened last before it, and not ended."""
        ts = record["ts"]
        held = (self.sessions.get(record.get("session_id", "")), self.projects.get(record.get("project_id", "-")))
        found = [task for group in held if group for task in _open_at(group, ts)]
        return max(found, key=lambda task: (task.started, task.name), default=None)


def _open_at(group: list[Task], ts: str) -> list[Task]:
    """The task of a group that was opened last and is open at a moment, in a list."""
    for task in reversed(group[: bisect.bisect_right(group, ts, key=lambda one: one.started)]):
        if not task.ended or ts < task.ended:
            return [task]
    return []


def measured(found: Sequence[Task], records: Iterable[Event], catalogue: pricing.Catalogue, now: str) -> dict[str, Event]:
    """Name of a task -> its metrics, out of the turns and rounds of the log."""
    owners = Owners(found)
    sums: dict[str, rollup.Rollup] = {}
    rounds: dict[str, list[Event]] = {}
    for record in records:
        if record.get("kind") not in ("turn", "work"):
            continue
        task = owners.of(record)
        if task is None:
            continue
        if record["kind"] == "work":
            rounds.setdefault(task.name, []).append(record)
        else:
            sums.setdefault(task.name, rollup.Rollup(rollup.Plan((), when.UTC, catalogue))).add(record)
    made = {}
    for task in found:
        rows = costs.priced(sums[task.name].rows(), catalogue) if task.name in sums else []
        made[task.name] = _metrics(task, rows, rounds.get(task.name, []), now)
    return made


def _metrics(task: Task, rows: Sequence[Event], rounds: Sequence[Event], now: str) -> Event:
    """Keys: turns, tokens by class, cost_usd (absent where unknown), cost_per_turn_usd, duration_s, ttfuo_s or null."""
    total = costs.total_of(list(rows))
    made: Event = {"turns": total.get("turns", 0)} | {name: total.get(name, 0) for name in events.TOKENS}
    unpriced = [one for row in rows for one in row.get("unpriced", ())]
    if unpriced:
        made["unpriced"] = unpriced
    elif made["turns"]:
        made["cost_usd"] = total.get("cost_usd", "0")
        each = Decimal(made["cost_usd"]) / made["turns"]
        made["cost_per_turn_usd"] = pricing.plain(each.quantize(Decimal("0.000001")))
    end = task.ended or now
    made["duration_s"] = _seconds(task.started, end)
    first = first_use(rounds, task.started)
    made["ttfuo_s"] = None if first is None else _seconds(task.started, first)
    return made


def _seconds(start: str, end: str) -> int:
    return round((when.moment(end) - when.moment(start)) / 1000)


# What counts as useful, best first: where there is an edit or a command, an answer alone is not it.
_USES = (("edit", "command"), ("reply",))


def first_use(rounds: Sequence[Event], started: str) -> str | None:
    """When the first edit or command, or where there is none the first answer, came that was kept.

    A round was not kept if the next one of its session begins with a correction, or with the wish to have it again.
    """
    sessions: dict[str, list[Event]] = {}
    for one in sorted(rounds, key=lambda one: (one["ts"], one["id"])):
        if not one.get("sidechain"):
            sessions.setdefault(one.get("session_id", ""), []).append(one)
    kept = []
    for ones in sessions.values():
        for at, one in enumerate(ones):
            after = ones[at + 1]["counts"] if at + 1 < len(ones) else {}
            if not after.get("corrections") and not after.get("regenerations"):
                kept.append(one)
    for names in _USES:
        found: list[str] = [
            one["times"][name] for one in kept for name in names if one.get("times", {}).get(name, "") >= started
        ]
        if found:
            return min(found)
    return None


def row(task: Task, metrics: Event | None) -> Event:
    """A task as a record for programs."""
    made: Event = {"v": 1, "kind": "task", "task": task.name, "title": task.title, "project": task.project}
    made |= {"session_id": task.session, "branch": task.branch, "commit": task.commit, "started_at": task.started}
    made = {key: value for key, value in made.items() if value}
    made["ended_at"] = task.ended or None
    return made | ({"metrics": metrics} if metrics is not None else {})


def by_branch(rows: Sequence[Event]) -> list[Event]:
    """The metrics of tasks, added up by project and branch; those without a branch under null."""
    groups: dict[tuple[Any, Any], list[Event]] = {}
    for one in rows:
        groups.setdefault((one.get("project"), one.get("branch")), []).append(one["metrics"])
    made = []
    for (project, branch), found in sorted(groups.items(), key=lambda item: tuple(map(str, item[0]))):
        total: Event = {"v": 1, "kind": "branch", "project": project, "branch": branch, "tasks": len(found)}
        for name in ("turns", *events.TOKENS, "duration_s"):
            total[name] = sum(one[name] for one in found)
        if not any("unpriced" in one for one in found):
            total["cost_usd"] = pricing.plain(sum((Decimal(one.get("cost_usd", "0")) for one in found), Decimal(0)))
        made.append(total)
    return made


def table(rows: Sequence[Event], shape: str, color: bool) -> str:
    """Tasks, or branches, for people."""
    branches = bool(rows) and rows[0]["kind"] == "branch"
    told = [one if branches else one.get("metrics") or {} for one in rows]
    names = ("project", "branch") if branches else ("task", "title", "project", "branch", "started_at")
    columns = [show.Column(name.replace("_", " "), [_text(one.get(name)) for one in rows], number=False) for name in names]
    if not branches:
        columns.append(show.Column("ended at", [_text(one["ended_at"]) or "open" for one in rows], number=False))
    if any(told):
        cells: list[tuple[str, Callable[[Event], str]]] = [
            ("turns", lambda one: show.count(one.get("turns", 0))),
            ("prompt tokens", lambda one: show.count(sum(one.get(name, 0) for name in events.CONTEXT))),
            ("output", lambda one: show.count(one.get("output_tokens", 0))),
            ("list price", lambda one: show.money(one.get("cost_usd"))),
            ("took", lambda one: _while(one.get("duration_s"))),
        ]
        if not branches:
            cells.append(("first use", lambda one: _while(one.get("ttfuo_s"))))
        columns += [show.Column(title, [cell(one) for one in told]) for title, cell in cells]
    return show.table(columns, shape, color=color)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _while(seconds: int | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"
