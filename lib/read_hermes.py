"""Reads Hermes Agent's session database and returns a total per session and model.

`state.db` keeps each session's sums in `sessions` and, since schema 20 (2026), each model's in `session_model_usage`.
Only the latter has calls beside the conversation (titles, vision, compression); a voice chat's are in both. By Hermes
Agent's source (hermes_state_usage.py and usage_pricing.py, November 2026) the input has no cached part, the output has
the reasoning, and of the costs only the actual one is a vendor's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenops import events, jsonl, read_lines, read_records, read_sqlite, untrusted
from tokenops.read_contract import FileReader, Intake

if TYPE_CHECKING:
    import sqlite3

SOURCE = "hermes"
CLIENT = "hermes"

_NAME = "state.db"
_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "api_call_count")
_COSTS = ("actual_cost_usd", "estimated_cost_usd")
_ROUTE = ("model", "billing_provider")
_SESSION = (
    *("id", "source", "model_config", "started_at", "ended_at", "last_activity_at", "cwd", "git_repo_root"),
    *(*_ROUTE, *_COUNTS, *_COSTS),
)
_SHARE = (*_ROUTE, "task", *_COUNTS, *_COSTS, "last_seen")
_IN_SUMS = ("", "voice_chat")  # tasks with calls that the session's sums include
_NOBODY = ("custom", "auto", "local", "unknown")
# Sessions say when they were last active once a minute, and counts are written a little later.
_MARGIN_S = 3600.0

Share = dict[str, Any]  # counts and costs of some calls, under the database's names


class Route(NamedTuple):
    """Who answered, and for which task beside the conversation."""

    model: str
    provider: str
    task: str = ""


def files(home: str) -> Iterator[str]:
    """The databases of a Hermes home: the usual profile's, then the named ones'."""
    folders = [home]
    profiles = os.path.join(home, "profiles")
    if os.path.isdir(profiles):
        folders += [os.path.join(profiles, name) for name in sorted(os.listdir(profiles))]
    for folder in folders:
        path = os.path.join(folder, _NAME)
        if os.path.isfile(path):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is Hermes Agent's database."""
    named = os.path.basename(path) == _NAME or (b"estimated_cost_usd" in head and b"system_prompt" in head)
    return named and head.startswith(b"SQLite format 3\0")


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The totals of the sessions that changed. Raises OSError, BadRecord."""
    with read_sqlite.open_database(path) as connection:
        if not {"id", "started_at", "input_tokens", "output_tokens"} <= read_sqlite.columns(connection, "sessions"):
            raise events.BadRecord("not a Hermes Agent database: it has no table of sessions with token counts; skipped")
        where, values = _query_changed(connection, cursor, read_sqlite.written_at(path))
        for row in read_sqlite.select(connection, "sessions", *_SESSION, where=where, values=values).fetchall():
            location = f"{path}:{untrusted.identity(row['id']) or 'a session'}"
            try:
                several = list(totals(dict(row), _shares(connection, row["id"]), intake))
            except events.BadRecord as error:
                intake.on_bad_line(location, f"{error}; skipped")
                continue
            intake.location = location
            yield from several


def _query_changed(connection: sqlite3.Connection, cursor: read_lines.Cursor, written: int) -> tuple[str, tuple[Any, ...]]:
    """Which sessions to read; the cursor is moved to the latest change there is, but not after `written`."""
    there = read_sqlite.columns(connection, "sessions")
    times = [name for name in ("last_activity_at", "ended_at") if name in there]
    shared = {"session_id", "last_seen"} <= read_sqlite.columns(connection, "session_model_usage")
    latest = [_latest(connection, "sessions", name) for name in (*times, "started_at")]
    if shared:
        latest.append(_latest(connection, "session_model_usage", "last_seen"))
    mark, cursor.state = cursor.state.get("seen", 0.0), {"seen": min(max(latest), written / 1000)}
    if not times or not mark or mark > cursor.state["seen"]:
        return "1", ()
    since = mark - _MARGIN_S
    tests = [" AND ".join(f'"{name}" IS NULL' for name in times), *(f'"{name}" >= ?' for name in times)]
    if shared:
        tests.append("id IN (SELECT session_id FROM session_model_usage WHERE last_seen >= ?)")
    return " OR ".join(tests), (since,) * (len(tests) - 1)


def _latest(connection: sqlite3.Connection, table: str, column: str) -> float:
    """The latest time in a column of unix seconds; damage left out."""
    query = f'SELECT MAX("{column}") FROM "{table}" WHERE "{column}" BETWEEN 0 AND 100000000000'
    return float(connection.execute(query).fetchone()[0] or 0)


def _shares(connection: sqlite3.Connection, session: object) -> list[untrusted.Raw]:
    """What each model took of a session, in order of time; none where the database does not say."""
    if not {"session_id", "model", "first_seen"} <= read_sqlite.columns(connection, "session_model_usage"):
        return []
    where = "session_id = ? ORDER BY first_seen, model, billing_provider"
    return [
        dict(row) for row in read_sqlite.select(connection, "session_model_usage", *_SHARE, where=where, values=(session,))
    ]


def totals(session: untrusted.Raw, rows: list[untrusted.Raw], intake: Intake) -> Iterator[events.Event]:
    """The totals of one session. Raises BadRecord.

    The first has no model in its identity: a session that does not say what each model took is one record, whatever
    model it goes on with.
    """
    name = untrusted.identity(session["id"])
    if not name:
        raise events.BadRecord("a session without a name")
    began = untrusted.moment(session["started_at"], "started_at")
    root = untrusted.path(session["cwd"]) or untrusted.path(session["git_repo_root"])
    attribution = intake.attribution(SOURCE, CLIENT, root, "", name)
    if is_subagent(session):
        attribution["sidechain"] = True
    times = (session["last_activity_at"], session["ended_at"], *(row["last_seen"] for row in rows))
    changed = max(began, *map(_moment, times))
    for number, (route, share) in enumerate(shares_of(session, rows).items()):
        counts = counts_of(share)
        ending = f":{route.model}@{route.provider}" + (f"+{route.task}" if route.task else "") if number else ""
        if counts.keys() - {"turns"}:
            yield read_records.aggregate(
                began,
                f"usage:hermes:{name}{ending}",
                attribution,
                route.model,
                counts,
                "" if route.provider in _NOBODY else route.provider,
                observed_at=changed,
                **cost_of(share),
            )


def shares_of(session: untrusted.Raw, rows: list[untrusted.Raw]) -> dict[Route, Share]:
    """What each route took, the conversation's first one before all others. Raises BadRecord.

    The session's sums may be ahead of its routes': what those leave over is the first one's.
    """
    whole, shares = _share(session), dict[Route, Share]()
    for row in rows:
        task = untrusted.text(row["task"])
        route, share = _route(row)._replace(task="" if task in _IN_SUMS else task), _share(row)
        before = shares.get(route)
        shares[route] = {key: before[key] + share[key] for key in share} if before else share
    talks = [route for route in shares if not route.task]
    first = talks[0] if talks else _route(session)
    least = shares.pop(first, dict.fromkeys(whole, 0))
    rest = {key: max(whole[key] - sum(shares[route][key] for route in talks[1:]), least[key]) for key in whole}
    return {first: rest, **shares}


def _route(row: untrusted.Raw) -> Route:
    return Route(untrusted.text(row["model"]), untrusted.text(row["billing_provider"]))


def _share(row: untrusted.Raw) -> Share:
    return {name: untrusted.count(row, name) for name in _COUNTS} | {
        name: Decimal(untrusted.usd(row[name]) or 0) for name in _COSTS
    }


def counts_of(share: Share) -> dict[str, int]:
    """The record's disjoint counts."""
    output, reasoning = share["output_tokens"], share["reasoning_tokens"]
    counts = {
        "turns": share["api_call_count"],
        "input_tokens": share["input_tokens"],
        "cache_read_tokens": share["cache_read_tokens"],
        "cache_write_tokens": share["cache_write_tokens"],
        "output_tokens": output if reasoning <= output else output + reasoning,  # more than the whole cannot be inside
        "reasoning_tokens": reasoning,
    }
    return {name: count for name, count in counts.items() if count}


def cost_of(share: Share) -> dict[str, str]:
    """The fields of a cost: the vendor's if there is one, else the client's own estimate."""
    for name, source in zip(_COSTS, ("reported", "client"), strict=True):
        if cost := untrusted.usd(share[name]):
            return {"cost_usd": cost, "cost_source": source}
    return {}


def is_subagent(session: untrusted.Raw) -> bool:
    """Whether another session called this one."""
    config = session["model_config"]
    if session["source"] == "subagent":
        return True
    if type(config) is not str or "_delegate_from" not in config:
        return False
    documents, _ = jsonl.objects(config.encode(errors="replace"))
    return bool(documents and documents[0].get("_delegate_from"))


def _moment(value: object) -> str:
    try:
        return untrusted.moment(value)
    except events.BadRecord:
        return ""


READER = FileReader(SOURCE, CLIENT, files, claims, read)
