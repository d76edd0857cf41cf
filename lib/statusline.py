"""Claude Code's status line: what it is given -> meter readings, and one line.

The costly part (today's cost, the windows of the log) is worked out by one process for all, every few seconds; the
others print what it found. Nothing here takes in any log but the session's own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from tokenops import datadir, headroom, jsonl, limit_windows, store, untrusted, when, wire_limits
from tokenops.config import Unusable
from tokenops.events import Event
from tokenops.limit_windows import Seen

CACHE, LOCK = "statusline.json", "statusline.lock"
# What each session said last, in a file of its own: sessions write it at any time, under its own lock.
SESSIONS, SESSIONS_LOCK = "statusline-sessions.json", "statusline-sessions.lock"
FRESH_MS = 5_000
SOURCE = "claude-code-statusline"
_KEPT_MS = 2 * when.DAY  # of sessions
FORMAT = "{model} | ${session} session | ${today} today | {window} {left} left, resets in {resets_in} | {action}"
_FIELD = re.compile(r"\{([a-z_]+)\}")


def cached(folder: str) -> dict[str, Any]:
    """What was worked out last; nothing where there is none."""
    found = datadir.read_json(os.path.join(folder, CACHE))
    return found if isinstance(found, dict) else {}


def keep(folder: str, found: Mapping[str, Any]) -> None:
    """Keep what was worked out. Raises OSError."""
    datadir.replace(os.path.join(datadir.ensure_folder(folder), CACHE), orjson.dumps(found), durable=False)


def news(said: untrusted.Raw, known: Mapping[str, Any], now: int) -> tuple[list[Event], dict[str, Any]]:
    """The readings that this session did not give before, its cost where that changed, and what is known of all sessions.

    An idle session's line repeats old numbers, which must not pass for fresh ones.
    """
    session = hashlib.blake2b(str(said.get("session_id")).encode(), digest_size=8).hexdigest()
    held = untrusted.mapping(known.get(session))
    readings = list(wire_limits.status_line(said, when.stamp(now)))
    told = [[one["window"], one["used"], one.get("resets_at")] for one in readings]
    if told == held.get("told"):
        readings = []
    cost = untrusted.usd(untrusted.mapping(said.get("cost")).get("total_cost_usd"))
    before = untrusted.usd(held.get("cost"))
    run = int(held.get("run") or 0) + bool(cost and before and Decimal(cost) < Decimal(before))
    claims = estimate(said, cost, run, now) if cost != before else []
    if not readings and not claims:
        return [], dict(known)
    old = {name: one for name, one in known.items() if untrusted.mapping(one).get("at", 0) > now - _KEPT_MS}
    entry = {"at": now, "told": told or held.get("told"), "cost": cost or before, "run": run}
    return [*readings, *claims], {**old, session: entry}


def estimate(said: untrusted.Raw, cost: str, run: int, now: int) -> list[Event]:
    """What Claude Code says that a session cost so far, as a claim to compare with: it is never added to anything.

    One record a day and session; of several readings the last counts. A total that falls begins another run.
    """
    session, at = untrusted.identity(said.get("session_id")), when.stamp(now)
    if not session or not cost:
        return []
    event: Event = {"v": 1, "ts": f"{at[:10]}T00:00:00.000Z", "kind": "usage"}
    event |= {"id": f"usage:{SOURCE}:{session}:{run}:{at[:10]}", "source": SOURCE, "client": "claude-code"}
    event |= {"session_id": session, "covers": "estimate", "cost_usd": cost, "cost_source": "client", "observed_at": at}
    return [event]


def record(folder: str, said: untrusted.Raw, now: int) -> None:
    """Write what a session says anew to the log. Raises OSError."""
    place = os.path.join(folder, SESSIONS)
    if not news(said, untrusted.mapping(datadir.read_json(place)), now)[0]:
        return
    with datadir.lock(folder, SESSIONS_LOCK):
        readings, sessions = news(said, untrusted.mapping(datadir.read_json(place)), now)
        store.append(folder, map(jsonl.line_of, readings), durable=False)
        datadir.replace(place, orjson.dumps(sessions), durable=False)


def fields(said: untrusted.Raw, found: Mapping[str, Any], now: int, rules: Mapping[str, Any]) -> dict[str, str]:
    """What a template may name."""
    model = untrusted.mapping(said.get("model"))
    name = untrusted.text(model.get("display_name")) or untrusted.text(model.get("id")) or "unknown model"
    cost = untrusted.mapping(said.get("cost")).get("total_cost_usd")
    context = untrusted.mapping(said.get("context_window")).get("used_percentage")
    told = [*_shared(found), *limit_windows.seen(wire_limits.status_line(said, when.stamp(now)))]
    known = headroom.windows((one for one in told if one.key.provider == "anthropic"), now)
    bound = headroom.binding(known, untrusted.text(model.get("id")))
    [budget] = headroom.budgets(known, now, rules, untrusted.text(model.get("id")), providers=("anthropic",))[:1]
    left = None if bound is None else bound.headroom
    return {
        "model": name,
        "session": f"{cost:.2f}" if isinstance(cost, (int, float)) else "?",
        "today": str(found.get("today", "?")),
        "context": f"{context:.0f}%" if isinstance(context, (int, float)) else "?",
        "window": bound.window.replace("_", " ") if bound else "limits",
        "left": "unknown" if left is None else f"{left:.0%}",
        "resets_in": headroom.duration(bound.resets_at - now) if bound and bound.resets_at else "?",
        "action": budget["recommended_action"].replace("_", " "),
        "project": os.path.basename(
            untrusted.path(untrusted.mapping(said.get("workspace")).get("project_dir")) or untrusted.path(said.get("cwd"))
        ),
    }


def _shared(found: Mapping[str, Any]) -> list[Seen]:
    from tokenops import limit_meters

    try:
        return limit_meters.seen_of(found["keys"], found["rows"])
    except (TypeError, LookupError, ValueError):
        return []


def line(template: str, values: Mapping[str, str]) -> str:
    """A template with its fields filled. Raises Unusable for a field that is none."""
    if wrong := [name for name in _FIELD.findall(template) if name not in values]:
        raise Unusable("", f"{{{wrong[0]}}} is no field", f"there are {', '.join(values)}")
    return _FIELD.sub(lambda found: values[found[1]], template)


def computed(folder: str, now: int, today: str) -> dict[str, Any]:
    """What all sessions share: today's cost, and the latest reading of each window."""
    from tokenops import limit_meters

    read = [one for one in limit_meters.readings(folder, now - 8 * when.DAY, now) if one.key.provider == "anthropic"]
    latest = {(one.key, one.observed_at, one.used) for one in headroom.windows(read, now)}
    keys, rows = limit_meters.rows_of(one for one in read if (one.key, one.at, one.used) in latest)
    return {"at": now, "today": today, "keys": keys, "rows": rows}
