"""Reads the journals of Mistral Vibe's sessions and returns turns.

A session is a folder `unified/<session>` with a journal in segments and `meta.json`. A request's result is a line
`action_result` with its `usage`: `input_tokens` includes what came from the cache. The same counts stand again in
`core_input`, and as sums in `projection_delta`. Results have no time; the input before a result, which set it off, has
one. No line names a model: `meta.json` has the session's. (Seen in Mistral Vibe 3.0.2 on 2026-11-29; times as other
readers of these journals know them, November 2026.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from tokenops import events, read_lines, read_records, untrusted, when
from tokenops.read_contract import FileReader, Intake

SOURCE = "mistral-vibe"
CLIENT = "mistral-vibe"

_SESSIONS = os.path.join("logs", "session")
_RELEVANT = read_lines.containing(b'"action_result"', b'"core_input"')


class Session(NamedTuple):
    """What is kept beside a session's journal."""

    name: str = ""
    root: str = ""
    branch: str = ""
    model: str = ""
    began: str = ""
    parent: str = ""
    children: tuple[str, ...] = ()


def files(home: str) -> Iterator[str]:
    """The segments of the journals of a Vibe home, of its folder of sessions, or of one session."""
    candidates = (os.path.join(home, _SESSIONS, "unified"), os.path.join(home, "unified"), home)
    for path in read_lines.walk(next(filter(os.path.isdir, candidates), home)):
        if _is_segment(path):
            yield path


def _is_segment(path: str) -> bool:
    return path.endswith(".jsonl") and os.path.basename(os.path.dirname(path)) == "journal"


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a segment of a journal."""
    return path.endswith(".jsonl") and b'"recovery_journal_record_version"' in head


def hints(home: str) -> Iterator[str]:
    """What to know of sessions that were kept in another form."""
    folder = os.path.join(home, _SESSIONS)
    try:
        older = sum(name.startswith("session_") for name in os.listdir(folder))
    except OSError:
        return
    if older:
        yield f"{folder}: {older} sessions of Mistral Vibe before version 3 are not read: they keep no requests"


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one segment from the cursor on. Raises OSError."""
    folder = os.path.dirname(os.path.dirname(path))
    session = meta(folder)
    name = session.name or os.path.basename(folder)
    attribution = intake.attribution(SOURCE, CLIENT, session.root, "", name)
    if session.parent and name in meta(os.path.join(os.path.dirname(folder), session.parent)).children:
        attribution["sidechain"] = True
    for location, line in read_lines.records(path, cursor, _RELEVANT, intake.on_bad_line):
        payload = untrusted.mapping(line.get("payload"))
        if line.get("type") == "core_input":
            cursor.state["sent"] = _time_of(payload) or cursor.state.get("sent", "")
        if line.get("type") != "action_result":
            continue
        result = untrusted.mapping(payload.get("result"))
        try:
            counts = counts_of(untrusted.mapping(untrusted.mapping(result.get("result")).get("usage")))
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        if not counts:  # of a tool, or of a request that failed
            continue
        action = untrusted.identity(payload.get("action_id")) or untrusted.identity(result.get("action_id"))
        intake.location = location
        yield read_records.turn(
            cursor.state.get("sent") or session.began or _file_time(path),
            f"{CLIENT}:{name}:{action or untrusted.identity(line.get('sequence')) or events.digest(counts)}",
            attribution,
            session.model,
            counts,
            "",
            name,
            branch=session.branch,
        )


def counts_of(usage: untrusted.Raw) -> dict[str, int]:
    """The record's disjoint counts; none for what is no request. Raises BadRecord."""
    sent, output = untrusted.count(usage, "input_tokens"), untrusted.count(usage, "output_tokens")
    read_ = untrusted.count(usage, "cached_input_tokens")
    if not sent and not output and untrusted.count(usage, "total_tokens"):
        raise events.BadRecord("only a total is given, so input and output are unknown")
    counts = {
        "input_tokens": sent - read_ if sent >= read_ else sent,  # more than the whole is beside it
        "cache_read_tokens": read_,
        "output_tokens": output,
    }
    return {name: count for name, count in counts.items() if count}


def meta(folder: str) -> Session:
    """What is kept beside a session's journal; nothing if that is missing or damaged."""
    try:
        value = read_lines.document(os.path.join(folder, "meta.json"), read_lines.Cursor())
    except (OSError, events.BadRecord):
        return Session()
    config, parent = untrusted.mapping(value.get("config")), untrusted.identity(value.get("parent_session_id"))
    try:
        began = untrusted.moment(value.get("start_time"), "start_time")
    except events.BadRecord:
        began = ""
    children = untrusted.items(value.get("child_sessions"))
    return Session(
        untrusted.identity(value.get("session_id")),
        untrusted.path(untrusted.mapping(value.get("environment")).get("working_directory"))
        or untrusted.path(value.get("origin_directory")),
        untrusted.tag(value.get("git_branch")),
        untrusted.text(config.get("model_name")) or untrusted.text(config.get("active_model")),
        began,
        parent if os.path.basename(parent) == parent else "",
        tuple(untrusted.identity(untrusted.mapping(child).get("session_id") or child) for child in children),
    )


def _time_of(payload: untrusted.Raw) -> str:
    """The time of an input; "" if it has none."""
    determinism = untrusted.mapping(untrusted.mapping(payload.get("input")).get("determinism"))
    try:
        return untrusted.moment(determinism.get("time_unix_ms"))
    except events.BadRecord:
        return ""


def _file_time(path: str) -> str:
    return when.stamp(max(os.stat(path).st_mtime_ns // 1_000_000, 0))


READER = FileReader(SOURCE, CLIENT, files, claims, read, hints)
