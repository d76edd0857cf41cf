"""Reads sessions of Kimi CLI and its successor Kimi Code and returns turns.

kimi-cli writes `sessions/<md5 of the working directory>/<session>/wire.jsonl`, with the step's counts in a status after
each step, and without the model. A subagent's events are in its parent's file too, wrapped (kimi-cli source,
wire/types.py, soul/kimisoul.py and subagents/store.py, as of November 2026).

kimi-code writes `sessions/<project>/<session>/agents/<agent>/wire.jsonl`, with a `usage.record` per request; its scope
says only whether the request was part of a turn or compacted the session (kimi-code source, agent/usage and
agent/compaction, as of November 2026). `step.end` repeats the counts.

Forks of a session copy its lines, so a turn's name does not contain the session.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson

from tokenops import events, read_kimi_context, read_lines, read_records, read_sqlite, untrusted
from tokenops.read_contract import FileReader, Intake

SOURCE = "kimi-cli"
CLIENT = "kimi-cli"

_RELEVANT = read_lines.containing(b'"StatusUpdate"', b'"StepBegin"', b'"usage.record"', b'"llm.request"')
_HASH = re.compile(r"[0-9a-f]{32}\Z")
_AGENTS = 50  # subagents at work at the same time
_NAMES = {
    "input_tokens": ("input_other", "inputOther"),
    "cache_read_tokens": ("input_cache_read", "inputCacheRead"),
    "cache_write_tokens": ("input_cache_creation", "inputCacheCreation"),
    "output_tokens": ("output",),
}


def files(home: str) -> Iterator[str]:
    """The sessions of a Kimi directory, those of subagents among them."""
    for path in read_lines.walk(os.path.join(home, "sessions")):
        if os.path.basename(path) == "wire.jsonl":
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a session."""
    return any(mark in head for mark in (b'"StatusUpdate"', b'"usage.record"')) or (
        os.path.basename(path) == "wire.jsonl" and b'"protocol_version"' in head
    )


class Location(NamedTuple):
    """A file's position among the sessions."""

    home: str
    group: str  # of the sessions of one working directory
    folder: str  # of the session
    sidechain: bool

    @property
    def session(self) -> str:
        """The session's name."""
        return os.path.basename(self.folder)


def location_of(path: str) -> Location:
    """A file's position, by its path."""
    home, _, below = path.rpartition("/sessions/")
    parts = below.split("/")
    if not home or len(parts) < 3:
        return Location("", "", os.path.dirname(path), False)
    agent = parts[3] if len(parts) > 4 and parts[2] in ("agents", "subagents") else "main"
    return Location(home, parts[0], os.path.join(home, "sessions", *parts[:2]), agent != "main")


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one session or subagent, and what entered before each. Raises OSError."""
    at = location_of(path)
    root, model, lineage = root_of(at), "", lineage_of(at)
    folder = at.group[:12] if _HASH.search(at.group) else at.group
    contexts = _contexts(path, cursor, intake, at)
    relevant = read_kimi_context.RELEVANT if contexts else _RELEVANT
    for location, line in read_lines.records(path, cursor, relevant, intake.on_bad_line):
        try:
            if contexts and (context := _measure(line, contexts, at)):
                yield context
            if "message" in line:
                model = model or model_of(at.home, os.path.dirname(path))
                turn = _step(line, cursor.state, at, model)
            else:
                turn = _record(line, cursor.state)
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        if turn is None:
            continue
        session = read_records.owner_of(turn.written, lineage)
        attribution = intake.attribution(SOURCE, CLIENT, root, folder, session)
        if turn.sidechain or at.sidechain:
            attribution["sidechain"] = True
        intake.location = location
        event = read_records.turn(turn.ts, turn.name, attribution, turn.model, turn.counts, "", session, effort=turn.effort)
        yield event
        if contexts and "message" in line:
            yield contexts.answer(event, _event_of(line).agent)
        elif contexts and line.get("usageScope") in (None, "turn"):
            if context := contexts.finish():
                yield context
            contexts.begin(event)


def _contexts(path: str, cursor: read_lines.Cursor, intake: Intake, at: Location) -> read_kimi_context.Contexts | None:
    """What measures a file's contexts, if the run asks for that."""
    if not intake.options.work:
        return None
    chain = os.path.basename(os.path.dirname(path)) if at.sidechain else ""
    return read_kimi_context.Contexts(cursor.state.setdefault("context", {}), CLIENT, chain)


def _measure(line: untrusted.Raw, contexts: read_kimi_context.Contexts, at: Location) -> events.Event:
    """Take in what a line holds. The record of a turn that it completes, else nothing. Raises BadRecord."""
    if "message" not in line or "type" in line:
        return contexts.take_line(line)
    wired = _event_of(line)
    if not _has_own_file(wired.agent, at):
        contexts.take_message(wired.message, wired.agent)
    return {}


class Turn(NamedTuple):
    """A request in a line."""

    ts: str
    written: str
    name: str
    model: str
    counts: dict[str, int]
    sidechain: bool = False
    effort: str = ""


def counts_of(usage: untrusted.Raw) -> dict[str, int]:
    """The record's counts, which are apart in the source too. Raises BadRecord."""
    counts = {name: untrusted.count(usage, *keys) for name, keys in _NAMES.items()}
    return {name: count for name, count in counts.items() if count}


def _step(line: untrusted.Raw, state: dict[str, Any], at: Location, model: str) -> Turn | None:
    """kimi-cli: the step that a status ends; notes when a step begins. Raises BadRecord."""
    message, agent = _event_of(line)
    if _has_own_file(agent, at):
        return None
    payload = untrusted.mapping(message.get("payload"))
    begun: dict[str, str] = state.setdefault("begun", {})
    match message.get("type"):
        case "StepBegin":
            begun[agent] = untrusted.moment(line.get("timestamp"))
            while len(begun) > _AGENTS:
                del begun[next(iter(begun))]
        case "StatusUpdate":
            counts = counts_of(untrusted.mapping(payload.get("token_usage")))
            if counts:
                written, answer = untrusted.moment(line.get("timestamp")), payload.get("message_id")
                answer_id = untrusted.identity(answer)
                name = untrusted.response_id(answer) or f"kimi:{answer_id or events.digest(written)}:{events.digest(counts)}"
                return Turn(begun.get(agent, written), written, name, model, counts, bool(agent))
    return None


class Wired(NamedTuple):
    """An event of kimi-cli, and the subagent that it is of."""

    message: untrusted.Raw
    agent: str = ""


def _event_of(line: untrusted.Raw) -> Wired:
    """The event in a line of kimi-cli. That of a subagent is wrapped."""
    message = untrusted.mapping(line.get("message"))
    if message.get("type") != "SubagentEvent":
        return Wired(message)
    payload = untrusted.mapping(message.get("payload"))
    agent = untrusted.identity(payload.get("agent_id")) or untrusted.identity(payload.get("task_tool_call_id")) or "?"
    return Wired(untrusted.mapping(payload.get("event")), agent)


def _has_own_file(agent: str, at: Location) -> bool:
    """Whether a subagent has a file of its own, which has its events too."""
    return bool(agent) and os.path.exists(os.path.join(at.folder, "subagents", agent, "wire.jsonl"))


def _record(line: untrusted.Raw, state: dict[str, Any]) -> Turn | None:
    """kimi-code: the request of a record; notes when a request is sent, and to which model. Raises BadRecord."""
    match line.get("type"):
        case "llm.request":
            model = untrusted.text(line.get("model"))
            state["request"] = {"time": untrusted.moment(line.get("time"), "time"), "model": model}
            if effort := untrusted.tag(line.get("thinkingEffort")):
                state["request"]["effort"] = effort
            if alias := untrusted.text(line.get("modelAlias")):
                names = state.setdefault("models", {})
                names[alias] = model
                while len(names) > _AGENTS:
                    del names[next(iter(names))]
        case "usage.record":
            counts = counts_of(untrusted.mapping(line.get("usage")))
            if counts:
                written, request = untrusted.moment(line.get("time"), "time"), state.get("request", {})
                model = untrusted.text(line.get("model"))
                model = state.get("models", {}).get(model) or model
                if not model or model.startswith("__"):  # a placeholder for the session's model
                    model = request.get("model", "")
                begun, effort = request.pop("time", written), request.pop("effort", "")
                name, model = f"kimi:{events.digest(written, counts)}", model.removeprefix("kimi-code/")
                return Turn(begun, written, name, model, counts, effort=effort)
    return None


def model_of(home: str, folder: str) -> str:
    """kimi-cli's default model, or the model that a subagent was started with; "" if neither is recorded."""
    config = _document(os.path.join(home, "config.toml")) or _document(os.path.join(home, "config.json"))
    started = untrusted.mapping(_document(os.path.join(folder, "meta.json")).get("launch_spec")).get("effective_model")
    name = untrusted.text(started) or untrusted.text(config.get("default_model"))
    model = untrusted.text(untrusted.mapping(untrusted.mapping(config.get("models")).get(name)).get("model")) or name
    return model.removeprefix("kimi-code/")


def lineage_of(at: Location) -> list[tuple[str, str]]:
    """A session, the one that it was forked from, and so on; and when each began, "" if unknown.

    A fork is a copy of the whole folder with a new beginning and the source's name in its state (kimi-code source,
    session/store/session-store.ts, as of November 2026).
    """
    lineage: list[tuple[str, str]] = []
    folder = at.folder
    while len(lineage) < _AGENTS:
        state = _document(os.path.join(folder, "state.json"))
        name, source = os.path.basename(folder), untrusted.identity(state.get("forkedFrom"))
        try:
            begun = untrusted.moment(state.get("createdAt")) if source else ""
        except events.BadRecord:
            begun = ""
        lineage.append((name, begun))
        if not source or os.path.basename(source) != source or source in (".", ".."):
            break
        folder = os.path.join(os.path.dirname(folder), source)
    return lineage


def root_of(at: Location) -> str:
    """The working directory of a session; "" if it is unknown."""
    state = _document(os.path.join(at.folder, "state.json"))
    candidates = (state.get("workDir"), state.get("cwd"), untrusted.mapping(state.get("custom")).get("cwd"))
    if root := next(filter(None, map(untrusted.path, candidates)), ""):
        return root
    hashed: dict[str, str] = _current(_roots_by_hash, os.path.join(at.home, "kimi.json"))
    indexed: dict[str, str] = _current(_roots_by_session, os.path.join(at.home, "session_index.jsonl"))
    return hashed.get(at.group.rpartition("_")[2]) or indexed.get(at.session, "")


def _document(path: str) -> dict[str, Any]:
    """The object in a small file; empty if there is none."""
    return _current(_parse, path)


def _current(read: Callable[[str, read_sqlite.Stamp], dict[str, Any]], path: str) -> dict[str, Any]:
    """What is read in a file, once for all sessions and again when it has changed; empty if there is no file.

    Read for each of 2,000 sessions, the index alone took 2.8 seconds.
    """
    try:
        return read(path, read_sqlite.stamp(path))
    except (OSError, ValueError):
        return {}


@functools.lru_cache(16)
def _parse(path: str, stamp: read_sqlite.Stamp) -> dict[str, Any]:
    """The object in a file. Raises OSError, ValueError."""
    data = read_lines.content(path)
    if not path.endswith(".toml"):
        return dict(untrusted.mapping(orjson.loads(data)))
    import tomllib

    return tomllib.loads(data.decode())


@functools.lru_cache(4)
def _roots_by_hash(path: str, stamp: read_sqlite.Stamp) -> dict[str, str]:
    """The working directories that kimi-cli knows, by the hash that names their sessions' folder."""
    roots = (
        untrusted.path(untrusted.mapping(entry).get("path")) for entry in untrusted.items(_document(path).get("work_dirs"))
    )
    return {hashlib.md5(root.encode(errors="replace"), usedforsecurity=False).hexdigest(): root for root in roots if root}


@functools.lru_cache(4)
def _roots_by_session(path: str, stamp: read_sqlite.Stamp) -> dict[str, str]:
    """The working directories in kimi-code's index, by session. Raises OSError."""
    roots = {}
    for _, line in read_lines.records(
        path, read_lines.Cursor(), read_lines.containing(b'"workDir"'), lambda location, why: None
    ):
        if root := untrusted.path(line.get("workDir")):
            roots[untrusted.text(line.get("sessionId"))] = root
    return roots


READER = FileReader(SOURCE, CLIENT, files, claims, read)
