"""Finds the session that an agent's run was in, and whether a limit ended it, by the agent's own log.

Only what the agent itself wrote counts: Claude Code's line with `quotaLimits` or its words for a limit, Codex's
`usage_limit_exceeded`, opencode's APIError with the vendor's refusal. Whatever else ended a run is another failure.
What they wrote was seen in runs of the versions in catalog/agents.yaml, but for opencode's, which is as its source has it
(November 2026).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import read_claude_turns, read_lines, read_sqlite, untrusted, when
from tokenops.read_lines import Cursor

LIMIT, OTHER, UNREADABLE = "limit", "other", "unreadable"
ABSENT = "its log has no session that was written to"
# A file's time may be that of a coarser clock than ours.
_COARSE_MS = 2000


class Session(NamedTuple):
    """A session that was written to: its id, its file, and when it began (milliseconds)."""

    id: str
    path: str
    began: int


class Ending(NamedTuple):
    """How a run ended: limit, other or unreadable, and why. `extra`: the account may use more than its plan, for money."""

    state: str
    why: str = ""
    at: int = 0
    window: str = ""
    resets_at: int | None = None
    extra: bool = False


# Which session.


def session_of(agent: str, paths: Iterable[str], identity: str) -> Session | None:
    """A session of a known id. Raises OSError, BadRecord."""
    if agent == "opencode":
        return next((each for path in paths for each in _opencode_sessions(path, "", 0) if each.id == identity), None)
    names = (f"{identity}.jsonl",) if agent == "claude" else (f"-{identity}.jsonl",)
    path = next((path for path in paths if not _is_subagent(path) and path.endswith(names)), "")
    return Session(identity, path, 0) if path else None


def sessions_since(agent: str, paths: Iterable[str], folder: str, since: int) -> list[Session]:
    """The sessions of a folder that were written to since a moment; not those of subagents. Raises OSError, BadRecord."""
    readers = {"claude": _claude_sessions, "codex": _codex_sessions, "opencode": _opencode_sessions}
    result: list[Session] = []
    for path in paths:
        if not _is_subagent(path) and read_sqlite.stamp(path).mtime >= (since - _COARSE_MS) * 1_000_000:
            result += readers[agent](path, os.path.realpath(folder), since)
    return result


def _is_subagent(path: str) -> bool:
    return f"{os.sep}subagents{os.sep}" in path


def _records(path: str, *needles: bytes) -> Iterator[dict[str, Any]]:
    """The objects of the lines that hold one of some texts. Damaged lines are left out. Raises OSError."""
    relevant = read_lines.containing(*needles)
    for _, raw in read_lines.records(path, Cursor(), relevant, lambda location, why: None):
        yield raw


def _claude_sessions(path: str, folder: str, since: int) -> Iterator[Session]:
    first = next(_records(path, b'"cwd":"'), {})
    if os.path.realpath(untrusted.text(first.get("cwd"), 4096)) == folder:
        yield Session(os.path.basename(path).removesuffix(".jsonl"), path, _moment(first.get("timestamp")))


def _codex_sessions(path: str, folder: str, since: int) -> Iterator[Session]:
    meta = untrusted.mapping(next(_records(path, b'"session_meta"'), {}).get("payload"))
    is_root = not meta.get("parent_thread_id") and isinstance(meta.get("source", ""), str)
    if is_root and os.path.realpath(untrusted.text(meta.get("cwd"), 4096)) == folder:
        yield Session(untrusted.text(meta.get("id")), path, _moment(meta.get("timestamp")))


def _opencode_sessions(path: str, folder: str, since: int) -> Iterator[Session]:
    if not read_sqlite.is_database(path):
        return
    with read_sqlite.open_database(path) as connection:
        names = ("id", "directory", "parent_id", "time_created", "time_updated")
        for row in read_sqlite.select(connection, "session", *names):
            is_here = not folder or os.path.realpath(str(row["directory"])) == folder
            if is_here and not row["parent_id"] and int(row["time_updated"] or 0) >= since:
                yield Session(str(row["id"]), path, int(row["time_created"] or 0))


def _moment(value: object) -> int:
    """A time of a log in milliseconds; 0 for none."""
    try:
        return when.moment(untrusted.moment(value))
    except ValueError:
        return 0


# How it ended.


def ending(agent: str, session: Session, since: int) -> Ending:
    """How a run that was started at a moment ended in a session."""
    endings = {"claude": _claude_ending, "codex": _codex_ending, "opencode": _opencode_ending}
    try:
        return endings[agent](session, since)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Ending(UNREADABLE, f"{session.path}: {why}")


def _claude_ending(session: Session, since: int) -> Ending:
    """By the last line of an assistant, which Claude Code writes itself if no model could answer."""
    last: dict[str, Any] = {}
    for raw in _records(session.path, b'"type":"assistant"'):
        if raw.get("type") == "assistant" and _moment(raw.get("timestamp")) >= since:
            last = raw
    if not last:
        return Ending(OTHER, "no answer since the start")
    message, ts = untrusted.mapping(last.get("message")), untrusted.moment(last.get("timestamp"))
    meter = read_claude_turns.limit_of(last, dict(message), ts) if message.get("model") == "<synthetic>" else None
    if meter is None:
        return Ending(OTHER, untrusted.text(last.get("error"), 40) or "the last answer is whole", when.moment(ts))
    quota = untrusted.mapping(last.get("quotaLimits"))
    extra = quota.get("isUsingOverage") is True or quota.get("overageStatus") in ("allowed", "allowed_warning")
    resets = when.moment(meter["resets_at"]) if meter.get("resets_at") else None
    return Ending(LIMIT, "", when.moment(ts), meter.get("window") or "", resets, extra)


_ENDS = ("task_started", "task_complete", "turn_aborted", "error")


def _codex_ending(session: Session, since: int) -> Ending:
    """By the end of the last turn, and the limits that were read last."""
    last: Mapping[str, Any] = {}
    limits: Mapping[str, Any] = {}
    last_ts = 0
    for raw in _records(session.path, b'"event_msg"'):
        payload, at = untrusted.mapping(raw.get("payload")), _moment(raw.get("timestamp"))
        if payload.get("type") == "token_count":
            limits = untrusted.mapping(payload.get("rate_limits")) or limits
        elif payload.get("type") in _ENDS and at >= since:
            last, last_ts = payload, at
    error = untrusted.mapping(last.get("error")) if last.get("type") == "task_complete" else last
    if error.get("codex_error_info") != "usage_limit_exceeded":
        return Ending(OTHER, "its last turn met no limit", last_ts)
    full = [each for slot in ("primary", "secondary") if _is_full(each := untrusted.mapping(limits.get(slot)))]
    window = max(full, key=lambda each: untrusted.count(each, "resets_at"), default=dict[str, Any]())
    minutes, resets = untrusted.count(window, "window_minutes"), untrusted.count(window, "resets_at")
    credits = untrusted.mapping(limits.get("credits"))
    extra = credits.get("has_credits") is True or credits.get("unlimited") is True
    return Ending(LIMIT, "", last_ts, when.window_name(minutes) if minutes else "", resets * 1000 or None, extra)


def _is_full(window: Mapping[str, Any]) -> bool:
    used = window.get("used_percent")
    return isinstance(used, (int, float)) and used >= 100


def _opencode_ending(session: Session, since: int) -> Ending:
    """By the error of the last message. opencode waits itself as long as it can, so this is rare."""
    with read_sqlite.open_database(session.path) as connection:
        rows = read_sqlite.select(
            connection, "message", "data", "time_created", where="session_id = ? ORDER BY time_created", values=(session.id,)
        )
        messages = [
            (untrusted.mapping(untrusted.json_value(str(row["data"]).encode())), int(row["time_created"] or 0))
            for row in rows
        ]
    answers = [each for each in messages if each[0].get("role") == "assistant" and each[1] >= since]
    message, at = answers[-1] if answers else ({}, 0)
    error = untrusted.mapping(message.get("error"))
    data = untrusted.mapping(error.get("data"))
    headers = untrusted.mapping(data.get("responseHeaders"))
    body = str(data.get("responseBody") or "")[:4096]
    is_refused = headers.get("anthropic-ratelimit-unified-status") == "rejected" or "usage_limit_reached" in body
    if error.get("name") != "APIError" or data.get("statusCode") != 429 or not is_refused:
        return Ending(OTHER, "its last message met no limit", at)
    reset = untrusted.text(headers.get("anthropic-ratelimit-unified-reset"), 20) or _reset_in(body)
    resets = int(reset) * 1000 if reset.isdecimal() and 9 <= len(reset) <= 10 else None
    extra = headers.get("anthropic-ratelimit-unified-overage-status") in ("allowed", "allowed_warning")
    return Ending(LIMIT, "", at, "", resets, extra)


def _reset_in(body: str) -> str:
    """The reset that the body of a refusal names (seconds since 1970); "" if it names none."""
    try:
        document = untrusted.mapping(json.loads(body))
    except ValueError:
        return ""
    return str(untrusted.count(untrusted.mapping(document.get("error")), "resets_at") or "")


def which(sessions: Sequence[Session], is_new: bool, since: int) -> tuple[Session | None, str]:
    """The one session that a run was in, or why that is not certain. A new one began after the start."""
    own = [each for each in sessions if not is_new or each.began >= since - _COARSE_MS]
    if len(own) == 1:
        return own[0], ""
    if not own:
        return None, ABSENT
    return None, f"{len(own)} sessions were written to in this folder meanwhile, and the log does not say which was this one"


def is_left(agent: str, paths: Iterable[str], folder: str, mine: Session, at: int, until: int) -> bool:
    """Whether another session of the folder began between a refusal and the end of the run: a person went on in it."""
    others = sessions_since(agent, paths, folder, at)
    return any(each.id != mine.id and at <= each.began <= until for each in others)
