"""Turns the JSON that Claude Code gives its status line into meter readings and one line of text.

The costly part (today's cost, the windows of the log) is computed by one process for all sessions, every few seconds; the
others print its result. Only the session's own transcript is imported.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tokenops import datadir, headroom, jsonl, limit_windows, show, store, untrusted, when, wire_limits
from tokenops.config import Unusable
from tokenops.events import Event
from tokenops.limit_windows import Reading

CACHE, LOCK = "statusline.json", "statusline.lock"
# The last values of each session, in a file and under a lock of their own, because sessions write them at any time.
SESSIONS, SESSIONS_LOCK = "statusline-sessions.json", "statusline-sessions.lock"
FRESH_MS = 5_000
SOURCE = "claude-code-statusline"
_KEPT_MS = 2 * when.DAY  # of sessions
_PATIENCE_S = 5.0  # with a lock: Claude Code waits for its line
FORMAT = "{model} | ${session} session | ${today} today | {window} {left} left, resets in {resets_in} | {action}"
_FIELD = re.compile(r"\{([a-z_]+)\}")


def last_summary(folder: str) -> dict[str, Any]:
    """What was computed last for all sessions; {} if nothing was."""
    summary = datadir.kept_json(os.path.join(folder, CACHE))
    return summary if isinstance(summary, dict) else {}


def write(folder: str, summary: Mapping[str, Any]) -> None:
    """Write what was computed for all sessions. Raises OSError."""
    datadir.keep_json(os.path.join(datadir.ensure_folder(folder), CACHE), summary)


def news(payload: untrusted.Raw, sessions: Mapping[str, Any], now: int) -> tuple[list[Event], dict[str, Any]]:
    """The new readings of a session, its cost if that changed, and the last values of all sessions.

    An idle session repeats old numbers, which must not count as fresh ones.
    """
    session = hashlib.blake2b(str(payload.get("session_id")).encode(), digest_size=8).hexdigest()
    previous = untrusted.mapping(sessions.get(session))
    readings = list(wire_limits.status_line(payload, when.stamp(now)))
    numbers = [[reading["window"], reading["used"], reading.get("resets_at")] for reading in readings]
    if numbers == previous.get("told"):
        readings = []
    cost = untrusted.usd(untrusted.mapping(payload.get("cost")).get("total_cost_usd"))
    before = untrusted.usd(previous.get("cost"))
    number = previous.get("run")
    run = (number if type(number) is int else 0) + bool(cost and before and Decimal(cost) < Decimal(before))
    estimates = estimate(payload, cost, run, now) if cost != before else []
    if not readings and not estimates:
        return [], dict(sessions)
    recent = {name: entry for name, entry in sessions.items() if untrusted.mapping(entry).get("at", 0) > now - _KEPT_MS}
    entry = {"at": now, "told": numbers or previous.get("told"), "cost": cost or before, "run": run}
    return [*readings, *estimates], {**recent, session: entry}


def estimate(payload: untrusted.Raw, cost: str, run: int, now: int) -> list[Event]:
    """Claude Code's own estimate of a session's cost so far, for tok-cost --reconcile; it is never added to anything.

    One record per day and session; the last one counts. A total that falls begins another run.
    """
    session, at = untrusted.identity(payload.get("session_id")), when.stamp(now)
    if not session or not cost:
        return []
    event: Event = {"v": 1, "ts": f"{at[:10]}T00:00:00.000Z", "kind": "usage"}
    event |= {"id": f"usage:{SOURCE}:{session}:{run}:{at[:10]}", "source": SOURCE, "client": "claude-code"}
    event |= {"session_id": session, "covers": "estimate", "cost_usd": cost, "cost_source": "client", "observed_at": at}
    return [event]


def record(folder: str, payload: untrusted.Raw, now: int) -> None:
    """Write a session's new readings to the log. Raises OSError."""
    path = os.path.join(folder, SESSIONS)
    if not news(payload, untrusted.mapping(datadir.kept_json(path)), now)[0]:
        return
    with datadir.lock(folder, SESSIONS_LOCK, patience=_PATIENCE_S):
        readings, sessions = news(payload, untrusted.mapping(datadir.kept_json(path)), now)
        store.append(folder, map(jsonl.line_of, readings), durable=False, patience=_PATIENCE_S)
        datadir.keep_json(path, sessions)


def fields(payload: untrusted.Raw, shared: Mapping[str, Any], now: int, rules: Mapping[str, Any]) -> dict[str, str]:
    """The values of a template's fields."""
    model = untrusted.mapping(payload.get("model"))
    name = untrusted.text(model.get("display_name")) or untrusted.text(model.get("id")) or "unknown model"
    cost = untrusted.mapping(payload.get("cost")).get("total_cost_usd")
    context = untrusted.mapping(payload.get("context_window")).get("used_percentage")
    readings = [*_shared_readings(shared), *limit_windows.readings_of(wire_limits.status_line(payload, when.stamp(now)))]
    states = headroom.states((reading for reading in readings if reading.key.provider == "anthropic"), now)
    bound = headroom.binding(states, untrusted.text(model.get("id")))
    accounts = sorted(headroom.by_account(states).items())
    judged = headroom.judge("anthropic", accounts[0][1] if accounts else [], now, rules, untrusted.text(model.get("id")))
    left = None if bound is None else bound.headroom
    return {
        "model": name,
        "session": f"{cost:.2f}" if isinstance(cost, (int, float)) else "?",
        "today": str(shared.get("today", "?")),
        "context": f"{context:.0f}%" if isinstance(context, (int, float)) else "?",
        "window": bound.window.replace("_", " ") if bound else "limits",
        "left": "unknown" if left is None else f"{left:.0%}",
        "resets_in": headroom.duration(bound.resets_at - now) if bound and bound.resets_at else "?",
        "action": judged.action.replace("_", " "),
        "project": os.path.basename(
            untrusted.path(untrusted.mapping(payload.get("workspace")).get("project_dir"))
            or untrusted.path(payload.get("cwd"))
        ),
    }


def _shared_readings(shared: Mapping[str, Any]) -> list[Reading]:
    try:
        return limit_windows.unpack(shared["keys"], shared["rows"])
    except (TypeError, LookupError, ValueError):
        return []


def line(template: str, values: Mapping[str, str]) -> str:
    """A template with its fields filled. It may colour the line; a field cannot. Raises Unusable for an unknown field."""
    if unknown := [name for name in _FIELD.findall(template) if name not in values]:
        raise Unusable("", f"{{{unknown[0]}}} is not a field", f"choose from {', '.join(values)}")
    return _FIELD.sub(lambda match: show.safe(values[match[1]]), template)


def summary(folder: str, now: int, today: str) -> dict[str, Any]:
    """What all sessions share: today's cost, and the latest reading of each window."""
    from tokenops import limit_log

    readings = [
        reading for reading in limit_log.readings(folder, now - 8 * when.DAY, now) if reading.key.provider == "anthropic"
    ]
    latest = {(reading.key, reading.observed_at, reading.used) for reading in headroom.states(readings, now)}
    keys, rows = limit_windows.pack(reading for reading in readings if (reading.key, reading.at, reading.used) in latest)
    return {"at": now, "today": today, "keys": keys, "rows": rows}
