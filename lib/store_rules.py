"""Keeps what `tok-log forget` removed, as rules that every record is checked against before it is stored.

    forgotten.json      the rules: times, names of clients, salted hashes of projects, sessions and turns; no other text

A rule forgets what began before a moment. What happens later is stored, also in a forgotten project.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from tokenops import config, datadir, events, fields, projects, store_files
from tokenops.events import Event

FILE = "forgotten.json"
_VERSION = 1
# Records about whole sessions, which hold the turns of it that were forgotten.
_TOTALS = (events.SESSION, events.REMAINDER)
_COVERS = b'"covers":"'


class Rule(NamedTuple):
    """What one `tok-log forget` removed. All conditions that are not empty must hold; `until` always."""

    number: int
    at: str  # when it was made
    until: str  # what began before this moment is forgotten
    before: str = ""  # the same, if the user named it
    client: str = ""
    projects: tuple[str, ...] = ()  # their ids, and hashes of their names
    session: str = ""  # its hash
    turns: tuple[str, ...] = ()  # hashes of the ids of that session's turns: other sessions may hold copies
    sessions: tuple[str, ...] = ()  # hashes of the sessions that had such turns: their totals are not stored
    removed: int = 0  # turns
    tokens: int = 0
    done: bool = False  # whether all of it was taken out; if not, a crash came between

    def is_same(self, other: Rule) -> bool:
        """Whether two rules have the same conditions, so that one of them is enough."""
        same = (self.before, self.client, self.session) == (other.before, other.client, other.session)
        is_project = bool(self.projects) == bool(other.projects)
        return same and is_project and (not self.projects or not {*self.projects}.isdisjoint(other.projects))

    def is_of_time_only(self) -> bool:
        """Whether a rule forgets all records before its moment."""
        return not (self.client or self.projects or self.session)

    def with_older(self, other: Rule) -> Rule:
        """This rule and an older one with the same conditions as one, under the older number."""
        return self._replace(
            number=other.number,
            until=max(self.until, other.until),
            projects=_both(self.projects, other.projects),
            turns=_both(self.turns, other.turns),
            sessions=_both(self.sessions, other.sessions),
            removed=self.removed + other.removed if other.done else max(self.removed, other.removed),
            tokens=self.tokens + other.tokens if other.done else max(self.tokens, other.tokens),
        )


def _both(some: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*some, *others}))


class Rules:
    """Decides which records are forgotten. False if there is no rule.

    `totals`: whether totals are that are read after their session's turns went. Those that the log has hold none of these.
    """

    def __init__(self, rules: Sequence[Rule], salt: bytes, totals: bool = True) -> None:
        self.rules, self.salt, self.totals = rules, salt, totals
        self._last = max((rule.until for rule in rules), default="").encode()
        self._parts = [(rule, frozenset(rule.projects), frozenset(rule.turns), frozenset(rule.sessions)) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self.rules)

    def hash(self, name: str) -> str:
        """The hash by which a rule names a session, a turn, or a project without an id."""
        return projects.hash_path(name, self.salt)

    def project_of(self, record: Mapping[str, Any]) -> str:
        """How a rule names a record's project; "" for a record without one."""
        if key := record.get("project_id"):
            return str(key)
        name = record.get("project")
        return self.hash(f"project {name}") if name else ""

    def forgets_line(self, line: bytes) -> bool:
        """Whether a record's line is forgotten. The lines of what is new are not parsed."""
        if line[store_files.TS] >= self._last and not (self.totals and _COVERS in line):
            return False
        try:
            record = orjson.loads(line)
        except ValueError:
            return False
        return type(record) is dict and self.forgets(record)

    def forgets(self, record: Event) -> bool:
        """Whether a record is forgotten."""
        return self.rule_of(record) is not None

    def rule_of(self, record: Event) -> Rule | None:
        """The first rule by which a record is forgotten."""
        ts, session = str(record.get("ts", "")), str(record.get("session_id") or "")
        project = self.project_of(record)
        is_total = self.totals and record.get("kind") == "usage" and record.get("covers") in _TOTALS
        for rule, named, turns, sessions in self._parts:
            if is_total and session and sessions and self.hash(session) in sessions:
                return rule
            if ts >= rule.until:
                continue
            if turns and self._turn_of(record) in turns:
                return rule
            if rule.client and record.get("client") != rule.client:
                continue
            if rule.session and (not session or self.hash(session) != rule.session):
                continue
            # What has no project is of its session's, as a request that tok-proxy saw.
            if named and not (project in named if project else session and self.hash(session) in sessions):
                continue
            return rule
        return None

    def _turn_of(self, record: Event) -> str:
        """The hash of the turn that a record is, or is about."""
        name = record.get("turn") if record.get("kind") == "context" else record.get("id")
        return self.hash(str(name))


def load(folder: str) -> Rules:
    """The rules of a log. Raises config.Unusable if the file is damaged, OSError."""
    path = os.path.join(folder, FILE)
    content = datadir.content_of(path)
    if content is None:
        return Rules((), b"")
    try:
        data = datadir.unseal(content)
        if data["v"] != _VERSION:
            raise ValueError
        rules = tuple(_rule_of(entry) for entry in data["rules"])
    except (ValueError, TypeError, KeyError):
        raise config.Unusable(
            path, "is damaged", "restore it from a backup; if you delete it, what was forgotten may come back"
        ) from None
    return Rules(rules, datadir.first_salt(folder) if rules else b"")


def readable(folder: str) -> Rules:
    """The same; no rules if the file is damaged, for writers of what happens now. Raises OSError."""
    try:
        return load(folder)
    except config.Unusable:
        return Rules((), b"")


def _rule_of(entry: Any) -> Rule:
    """A rule of the file. Raises ValueError, TypeError, KeyError."""
    values: dict[str, Any] = {}
    for name, default in (Rule._field_defaults | {"number": 0, "at": "", "until": ""}).items():
        value = entry.get(name, default)
        if type(default) is tuple:
            if type(value) is not list and value != ():
                raise TypeError(name)
            value = tuple(map(str, value))
        elif type(value) is not type(default):
            raise TypeError(name)
        values[name] = value
    if not fields.is_time(values["until"]):
        raise ValueError("until")
    return Rule(**values)


def save(folder: str, rules: Iterable[Rule]) -> None:
    """Keep the rules; without any there is no file. The caller holds the lock. Raises OSError."""
    path = os.path.join(folder, FILE)
    entries = [{name: value for name, value in rule._asdict().items() if value} for rule in rules]
    if entries:
        datadir.keep_json(path, {"v": _VERSION, "rules": entries}, durable=True)
    elif os.path.exists(path):
        os.unlink(path)
        datadir.flush(folder)


def add(folder: str, rule: Rule) -> Rule:
    """Keep a rule, as one with an older rule of the same conditions; the rule with its number. Raises Unusable, OSError."""
    with datadir.lock(folder):
        rules = list(load(folder).rules)
        for at, other in enumerate(rules):
            if rule.is_same(other):
                rules[at] = rule.with_older(other)
                save(folder, rules)
                return rules[at]
        rules.append(rule._replace(number=max((other.number for other in rules), default=0) + 1))
        save(folder, rules)
        return rules[-1]


def finish(folder: str, rule: Rule) -> None:
    """Note that all that a rule forgets was taken out. Raises Unusable, OSError."""
    with datadir.lock(folder):
        save(folder, [other._replace(done=other.done or other.number == rule.number) for other in load(folder).rules])


def remove(folder: str, number: int) -> Rule | None:
    """Lift a rule; None if there is none of that number. Raises Unusable, OSError."""
    with datadir.lock(folder):
        rules = load(folder).rules
        lifted = next((rule for rule in rules if rule.number == number), None)
        if lifted is not None:
            save(folder, (rule for rule in rules if rule is not lifted))
        return lifted


def without_forgotten(folder: str, lines_by_day: Mapping[str, list[bytes]]) -> dict[str, list[bytes]]:
    """What the rules leave of lines by their days, for every writer. The caller holds the lock. Raises OSError."""
    rules = readable(folder)
    if not rules:
        return dict(lines_by_day)
    kept = {day: [line for line in lines if not rules.forgets_line(line)] for day, lines in lines_by_day.items()}
    return {day: lines for day, lines in kept.items() if lines}


def unforgotten_paths(folder: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Of the paths of another log's projects those that this log was not told to forget. Raises OSError."""
    named = {key for rule in readable(folder).rules for key in rule.projects}
    return {key: path for key, path in paths.items() if key not in named}


class Kept(NamedTuple):
    """What the rules leave of some lines, how many are forgotten, and the projects that only those name."""

    lines: list[bytes]
    forgotten: int
    projects: frozenset[str]


def remaining(folder: str, lines: list[bytes], dry: bool = False) -> Kept:
    """What the rules leave of the lines that were read from clients' files in one go. Raises Unusable, OSError.

    A session of which a turn is forgotten here is remembered, except in a `dry` run: its total holds that turn.
    """
    rules = load(folder)
    if not rules:
        return Kept(lines, 0, frozenset())
    kept: list[bytes] = []
    forgotten: list[tuple[Rule, Event]] = []
    for line in lines:
        event = orjson.loads(line) if rules.forgets_line(line) else None
        rule = rules.rule_of(event) if event else None
        if event is None or rule is None:
            kept.append(line)
        else:
            forgotten.append((rule, event))
    if not forgotten:
        return Kept(lines, 0, frozenset())
    if not dry and _remember_sessions(folder, rules, forgotten):
        rules = load(folder)
        kept = [line for line in kept if not rules.forgets_line(line)]
    names = {str(event["project_id"]) for _, event in forgotten if event.get("project_id")}
    return Kept(kept, len(lines) - len(kept), frozenset(name for name in names if not _is_named(name, kept)))


def _is_named(project: str, lines: list[bytes]) -> bool:
    needle = f'"project_id":"{project}"'.encode()
    return any(needle in line for line in lines)


def _remember_sessions(folder: str, rules: Rules, forgotten: Iterable[tuple[Rule, Event]]) -> bool:
    """Add the sessions of forgotten turns to their rules; whether there were new ones. Raises Unusable, OSError."""
    fresh: dict[int, set[str]] = {}
    for rule, event in forgotten:
        if event["kind"] == "turn" and event.get("session_id"):
            fresh.setdefault(rule.number, set()).add(rules.hash(str(event["session_id"])))
    fresh = {rule.number: new for rule in rules.rules if (new := fresh.get(rule.number, set()) - {*rule.sessions})}
    if not fresh:
        return False
    with datadir.lock(folder):
        changed = [
            rule._replace(sessions=tuple(sorted({*rule.sessions, *fresh.get(rule.number, ())})))
            for rule in load(folder).rules
        ]
        save(folder, changed)
    return True
