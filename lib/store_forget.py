"""Takes records out of the log for good, with all that names them in its other files, and keeps a rule against their return.

The rule is on the disk first, then the small files change, then the days, each a whole file at a time. A crash at any point
leaves the old file or the new one, and the same command again finishes.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import orjson

from tokenops import (
    datadir,
    events,
    jsonl,
    light,
    projects,
    store,
    store_cursors,
    store_days,
    store_files,
    store_folded,
    store_rules,
    when,
)
from tokenops.events import Event
from tokenops.jsonl import ignore_line
from tokenops.store_rules import Rule, Rules

_CONTEXT = "context:"  # an id of a context is this and the id of its turn
_PROJECT_ID = light.pattern(rb'"project_id":"([0-9a-f]+)"')
_PROJECT = light.pattern(rb'"project":("(?:[^"\\\\]|\\\\.)*+")(?:,"project_id":"([0-9a-f]+)")?')
_DAY = light.pattern(r"\d{4}-\d\d-\d\d")
_COVERS = b'"covers":"'
# Of what began earlier before a date than this, no client adds to a session's total after it.
_SESSION_MS = 31 * when.DAY
# Files beside the events that hold records, or rows of them.
_OTHERS = ("rejected/*.txt", "waiting/*.jsonl", "ship/*/refused.jsonl")


class NoMatch(ValueError):
    """Nothing in the log has a name: a sentence that lists what has."""


class Conditions(NamedTuple):
    """Which records to forget: all that are not empty must hold. `before`: a canonical time."""

    project: str = ""
    client: str = ""
    session: str = ""
    before: str = ""


class Named(NamedTuple):
    """What the log's files call that which is to be forgotten: texts that stand in its lines, and paths."""

    projects: frozenset[str] = frozenset()  # ids
    names: frozenset[str] = frozenset()  # names of projects
    sessions: frozenset[str] = frozenset()
    session: str = ""
    client: str = ""
    label: str = ""  # the project's name in reports

    def needles(self) -> list[bytes]:
        """Texts of which one stands in every line that names it; none if nothing is named."""
        if self.session:
            return [jsonl.data_of(self.session)]
        if self.projects or self.names:
            return [jsonl.data_of(name) for name in sorted(self.projects | self.names | self.sessions)]
        return [jsonl.data_of(self.client)] if self.client else []


class Plan(NamedTuple):
    """What a rule takes out of the log: ids of records, days whose files change, and how much that is."""

    rule: Rule
    named: Named
    gone: frozenset[str]
    replaced: dict[str, bytes]  # id of a sighting that goes -> the record of which other sightings stay
    days: tuple[str, ...]
    first: str  # the days on which the records began
    last: str
    began: int  # how many such days
    turns: int
    tokens: int
    records: int
    unnamed: frozenset[str]  # ids of projects that no record names afterwards


def named_by(folder: str, conditions: Conditions) -> Named:
    """What the log calls a project, a session and a client. Raises NoMatch, Unusable, OSError."""
    named = Named(client=conditions.client, session=conditions.session)
    if not conditions.project:
        return named
    labels, paths = store.labels(folder), store.project_paths(folder)
    shown: dict[str, set[tuple[str, str]]] = {}  # name in reports -> ids and own names
    for key, name in _projects(folder):
        shown.setdefault(labels.get(key, name), set()).add((key, name))
    for key, path in paths.items():
        shown.setdefault(labels.get(key) or projects.label(path), set()).add((key, projects.label(path)))
    chosen = {conditions.project} & shown.keys() or {
        label for label in shown if label.rpartition("/")[2] == conditions.project
    }
    if not chosen and (earlier := _ids_of_earlier(folder, conditions.project)):
        return named._replace(projects=earlier, label=conditions.project)
    if len(chosen) != 1:
        raise NoMatch(", ".join(sorted(chosen)))
    label = chosen.pop()
    pairs = shown[label]
    ids = {key for key, _ in pairs if key}
    at = {paths[key] for key in ids if key in paths}
    ids |= {key for key, path in paths.items() if path in at}  # of directories in it, such as worktrees
    names = {name for key, name in pairs if not key}
    sessions = _sessions_of(folder, ids, names, conditions)
    return named._replace(projects=frozenset(ids), names=frozenset(names), sessions=sessions, label=label)


def _ids_of_earlier(folder: str, label: str) -> frozenset[str]:
    """The ids of a project that a run before this one began to forget; none if there is no such project."""
    rules = store_rules.load(folder)
    return frozenset(key for rule in rules.rules for key in rule.projects if rules.hash(f"label {label}") in rule.projects)


def project_names(folder: str) -> list[str]:
    """The names of all projects of the log, as reports show them. Raises OSError."""
    labels = store.labels(folder)
    return sorted({labels.get(key, name) for key, name in _projects(folder)})


def _projects(folder: str) -> set[tuple[str, str]]:
    """The ids ("" if there is none) and the names of all projects in the log's files."""
    pairs: set[tuple[bytes, bytes]] = set()
    for day in store_files.days(folder):
        for line in store_files.whole_lines(day):
            pairs.update(_PROJECT.findall(line))
    return {(key.decode(), orjson.loads(name)) for name, key in pairs}


def _sessions_of(folder: str, ids: Iterable[str], names: Iterable[str], conditions: Conditions) -> frozenset[str]:
    """The sessions of some projects that the other conditions take: what tok-proxy saw of them names no project."""
    until = conditions.before or "9"
    needles = [f'"project_id":"{key}"'.encode() for key in ids] + [b'"project":' + jsonl.data_of(name) for name in names]
    sessions = set()
    for day in store_files.days(folder):
        for needle in needles:
            for line in store_files.lines_with(day, needle):
                record = next(map(store_files.record_of, store_folded.unfold(line, False)), None)
                if record is None or not record.get("session_id") or record["ts"] >= until:
                    continue
                if conditions.client in ("", record.get("client")) and conditions.session in ("", record["session_id"]):
                    sessions.add(str(record["session_id"]))
    return frozenset(sessions)


def plan(folder: str, conditions: Conditions, named: Named, now: str, add: Callable[[Event], object]) -> Plan:
    """What is to be taken out of the log; `add` gets each of the records. Changes no file. Raises OSError."""
    datadir.salt(folder, make=True)
    rules = Rules((), datadir.first_salt(folder))
    keys = [*named.projects, *(rules.hash(f"project {name}") for name in named.names)]
    keys += [rules.hash(f"label {named.label}")] if named.label else []
    rule = Rule(
        0,
        now,
        conditions.before or now,
        conditions.before,
        conditions.client,
        tuple(sorted(set(keys))),
        rules.hash(conditions.session) if conditions.session else "",
        sessions=tuple(sorted(map(rules.hash, named.sessions))),
    )
    search = _Search(folder, Rules((rule,), rules.salt, totals=False), named)
    search.run(add)
    rule = rule._replace(
        turns=tuple(sorted(map(rules.hash, search.turns))) if conditions.session else (),
        sessions=tuple(sorted({*rule.sessions, *map(rules.hash, search.sessions_to_keep(conditions))})),
        removed=len(search.turns),
        tokens=search.tokens,
    )
    began = sorted(search.began)
    return Plan(
        rule,
        named,
        frozenset(search.gone),
        search.replaced,
        tuple(sorted(search.days())),
        began[0] if began else "",
        began[-1] if began else "",
        len(began),
        len(search.turns),
        search.tokens,
        search.records,
        frozenset(search.gone_projects - search.kept_projects),
    )


class _Search:
    """Reads the whole log once and notes what a rule forgets."""

    def __init__(self, folder: str, rules: Rules, named: Named) -> None:
        self.folder, self.rules, self.needles = folder, rules, named.needles()
        self.gone: set[str] = set()
        self.replaced: dict[str, bytes] = {}
        self.touched: set[str] = set()  # ids of sightings that the rule forgets
        self.turns: set[str] = set()
        self.last_of: dict[str, str] = {}  # session -> when the last of its turns that go began
        self.totals: list[tuple[str, str, Event]] = []  # id, session and content of what stands for a whole session
        self.began: set[str] = set()
        self.files: set[str] = set()
        self.tokens = self.records = 0
        self.gone_projects: set[str] = set()
        self.kept_projects: set[str] = set()

    def run(self, add: Callable[[Event], object]) -> None:
        """Read the log."""
        for _, records in store.records_by_day(self.folder, context=True, sightings=self._sightings):
            same: dict[str, list[str]] = {}  # a record's id -> those of its other sightings
            for other in records.same:
                same.setdefault(records.name_of(other), []).append(other)
            turns_first = sorted(records.lines.items(), key=lambda item: item[0].startswith(_CONTEXT))
            for name, line in turns_first:
                self._take(name, line, add)
                self.gone.update(other for other in same.get(name, ()) if name in self.gone)
            here = {identity for identity in self.touched if identity in records}
            for identity in here - self.gone:
                self.replaced[identity] = records.lines[records.name_of(identity)]
            self.touched -= here
        for name, session, event in self.totals:
            if session in self.last_of and name not in self.gone:
                self._note(name, event, add)

    def _sightings(self, day: store_files.Day) -> Iterator[tuple[str, bytes]]:
        if self.needles and store_files.has_any(day, self.needles):
            self.files.add(day.name)
        for identity, line in store.day_sightings(day, ignore_line):
            if self._matches(line):
                self.touched.add(identity)
                self.files.add(day.name)
            yield identity, line

    def _matches(self, line: bytes) -> bool:
        return (not self.needles or any(needle in line for needle in self.needles)) and self.rules.forgets_line(line)

    def _take(self, name: str, line: bytes, add: Callable[[Event], object]) -> None:
        is_of_turn = name.startswith(_CONTEXT) and name.removeprefix(_CONTEXT) in self.gone
        if is_of_turn or self._matches(line):
            self._note(name, orjson.loads(line), add)
            return
        self.kept_projects.update(key.decode() for key in _PROJECT_ID.findall(line))
        if _COVERS in line:
            event = orjson.loads(line)
            if event.get("covers") == events.SESSION:
                self.totals.append((name, str(event.get("session_id", "")), event))

    def _note(self, name: str, event: Event, add: Callable[[Event], object]) -> None:
        self.gone.add(name)
        self.records += 1
        self.began.add(event["ts"][:10])
        if key := event.get("project_id"):
            self.gone_projects.add(str(key))
        if event["kind"] == "turn":
            self.turns.add(name)
            self.tokens += events.token_sum(event)
            if session := event.get("session_id"):
                self.last_of[str(session)] = max(self.last_of.get(str(session), ""), event["ts"])
        add(event)

    def days(self) -> set[str]:
        """The days whose files may change: a sighting may lie in the file of the day after, or before."""
        near = {other for day in self.began for other in store_days.near(day)} | self.files
        return near.intersection(store.days(self.folder))

    def sessions_to_keep(self, conditions: Conditions) -> set[str]:
        """The sessions whose totals may yet be read, with the turns in them that go."""
        if conditions.before and not (conditions.project or conditions.client or conditions.session):
            since = when.stamp(when.moment(conditions.before) - _SESSION_MS)
            return {session for session, last in self.last_of.items() if last >= since}
        return set(self.last_of)


def carry_out(folder: str, plan: Plan) -> tuple[Rule, list[str]]:
    """Keep the rule and take the records out; the rule, and files that are damaged and stay. Raises Unusable, OSError.

    The caller holds the lock of tok-sync, which keeps cursors and paths while it runs.
    """
    rule = store_rules.add(folder, plan.rule)
    rules = Rules((rule,), datadir.first_salt(folder), totals=False)
    at = {path for key, path in store.project_paths(folder).items() if key in plan.unnamed}
    _clean_others(folder, plan, rules)
    if not rule.before:
        texts = {*plan.named.sessions, *filter(None, [plan.named.session]), *at}
        store_cursors.remove_named(folder, texts | {re.sub(r"[^A-Za-z0-9]", "-", path) for path in at})
    _remove_projects(folder, at)
    _remove_sums(folder, plan.days)
    damaged: list[str] = []
    for name in plan.days:
        with datadir.lock(folder):
            for day in store_files.days(folder, name, name):
                for path in day.paths:
                    _rewrite(path, day.name, plan, rules, damaged)
    _remove_sums(folder, plan.days)
    if not damaged:
        store_rules.finish(folder, rule)
    return rule, damaged


def _remove_projects(folder: str, paths: set[str]) -> None:
    """Take the paths of projects out of the log's list. Raises OSError."""
    with datadir.lock(folder):
        before = store.project_paths(folder)
        after = {key: path for key, path in before.items() if path not in paths}
        if len(after) < len(before):
            datadir.replace(store.projects_file(folder), orjson.dumps(after, option=orjson.OPT_SORT_KEYS))


def _remove_sums(folder: str, days: Iterable[str]) -> None:
    for name in sorted({other for day in days for other in store_days.near(day)}):
        for path in store_days.paths_of(folder, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _rewrite(path: str, day: str, plan: Plan, rules: Rules, damaged: list[str]) -> None:
    """Write a day's file without what is forgotten. The caller holds the lock. Raises OSError."""
    broken: list[str] = []
    lines, left = [], []
    for _, line in store_files.lines(
        store_files.Day(day, (path,)), lambda location, why: broken.append(location), tail=True
    ):
        lines.append(line)
        pair = store_files.identify(line)
        if pair is None:
            if line.strip() and _names(line, day, plan, rules):
                continue
            left.append(line)
        elif pair[0] in plan.gone or pair[0].removeprefix(_CONTEXT) in plan.gone:
            continue
        elif rules.forgets_line(pair[1]):
            if (other := plan.replaced.get(pair[0])) is not None:
                left.append(other)
        else:
            left.append(line)
    damaged += broken
    if broken or left == lines:
        return
    content = b"".join(store_folded.fold(left))
    if content:
        datadir.replace(path, gzip.compress(content, 6, mtime=0) if path.endswith(".gz") else content)
    else:
        os.unlink(path)
        datadir.flush(os.path.dirname(path))


def _names(line: bytes, day: str, plan: Plan, rules: Rules) -> bool:
    """Whether a line that is not a record of the log is of what is forgotten, as far as can be seen."""
    try:
        record = orjson.loads(line)
    except ValueError:
        record = None
    rule = rules.rules[0]
    if type(record) is dict and type(record.get("ts")) is str:
        return any(map(rules.forgets, store_folded.unfold_record(record)))
    if rule.before and day >= rule.before[:10]:
        return False
    named = plan.named
    texts = [[named.session], [f'"{named.client}"'] if named.client else [], [*named.projects, *named.sessions]]
    texts[-1] += [f'"{name}"' for name in named.names]
    return all(any(text.encode() in line for text in some) for some in texts if any(some))


def _clean_others(folder: str, plan: Plan, rules: Rules) -> None:
    """Take lines of what is forgotten out of the files beside the events. Raises OSError."""
    for pattern in _OTHERS:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern))):
            day = os.path.basename(path)[:10]
            day = day if _DAY.fullmatch(day) else ""
            with datadir.lock(folder):
                lines = (datadir.content_of(path) or b"").splitlines(keepends=True)
                left = [line for line in lines if not _names(line, day, plan, rules)]
                if left and len(left) < len(lines):
                    datadir.replace(path, b"".join(left))
                elif lines and not left:
                    os.unlink(path)
