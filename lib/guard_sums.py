"""Works out what hooks judge by, in a process beside the agent: windows with their levels, and sums of what was used.

The result is one small file per session, which a hook reads in a tenth of a millisecond; nothing here is as fast as that.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tokenops import datadir, events, guard, guard_watch, headroom, untrusted, when
from tokenops.events import Event

if TYPE_CHECKING:
    from tokenops.pricing import Catalogue

Json = dict[str, Any]

PROVIDER = "anthropic"  # of Claude Code's plans
# So many sessions of a project, the last ones, tell what a subagent costs there.
_SESSIONS = 5


def limits(rows: Iterable[Event], rules: Mapping[str, float]) -> list[Json]:
    """The window that binds, as guard_watch reads it. None if several accounts are known: nobody can tell whose it is."""
    mine = [row for row in rows if row["provider"] == PROVIDER and row["headroom_pct"] is not None]
    if len(mine) != 1 or mine[0]["signal_quality"]["level"] == "low":
        return []
    (row,) = mine
    window = next((window for window in row["windows"] if window.get("binds")), None)
    if window is None:
        return []
    limit: Json = {"name": when.window_text(window["window"], window.get("scope", "")), "level": _level(row, rules)}
    limit |= {"left_pct": row["headroom_pct"], "used_pct": 100 - row["headroom_pct"]}
    limit["observed_at"] = when.moment(row["observed_at"])
    if window.get("resets_at"):
        limit["resets_at"] = when.moment(window["resets_at"])
    out = untrusted.mapping(untrusted.mapping(row.get("forecast")).get("cutoff_at")).get("p50")
    if out and row["recommended_action"] != headroom.CONTINUE:
        limit["out_at"] = when.moment(out)
    return [limit | ({"switch_to": row["switch_to"]} if row.get("switch_to") else {})]


def _level(row: Event, rules: Mapping[str, float]) -> int:
    left, what = row["headroom_pct"] / 100, row["recommended_action"]
    if what in (headroom.WAIT, headroom.SWITCH_MODEL):
        return guard_watch.OUT
    if left <= rules["second_left"]:
        return guard_watch.SECOND
    return guard_watch.FIRST if left <= rules["first_left"] or what == headroom.SLOW_DOWN else guard_watch.ROOM


def sum_of(total: Mapping[str, Any], name: str = "") -> Json:
    """A sum of money and tokens, from a total of priced rows. A sum with turns that have no price is a minimum."""
    row: Json = {"usd": float(total.get("cost_usd", "0")), "tokens": events.token_sum(dict(total))}
    return row | ({"name": name} if name else {})


def subagent_usd(folder: str, transcript: str, catalogue: Catalogue, now: int) -> float | None:
    """What a subagent costs in a project, on average of its last sessions with any; None if there are none.

    Subagents of workflows count, which have folders of their own. Raises OSError.
    """
    project = os.path.dirname(transcript)
    pattern = os.path.join(glob.escape(project), "*", "subagents", "**", "agent-*.jsonl")
    sessions: dict[str, list[str]] = {}
    for path in glob.glob(pattern, recursive=True):
        sessions.setdefault(path[len(project) + 1 :].split(os.sep)[0], []).append(path)
    latest = sorted(sessions, key=lambda name: max(map(_mtime, sessions[name])))[-_SESSIONS:]
    count = sum(len(sessions[name]) for name in latest)
    usd = sum((_cost(folder, name, catalogue, now) for name in latest), Decimal(0))
    return float(usd / count) if count and usd else None


def _cost(folder: str, session: str, catalogue: Catalogue, now: int) -> Decimal:
    total, _ = guard.session_total(folder, session, ("claude", ""), catalogue, now, subagents=True)
    return Decimal(total.get("cost_usd", "0"))


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


# The file of a session.


def keep(folder: str, session: str, sums: Mapping[str, Any]) -> None:
    """Keep sums for a session's hooks, and the account's for other sessions'. Raises OSError."""
    datadir.ensure_folder(os.path.join(folder, "guard"))
    datadir.keep_json(guard.sums_path(folder, session), dict(sums))
    datadir.keep_json(guard.sums_path(folder, ""), {name: sums[name] for name in ("at", "limits", "day")})
