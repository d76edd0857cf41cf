"""Reads Crush's databases and returns a session's requests and its cost, without tokens.

Crush keeps a database per project (`.crush/crush.db`) and lists the projects in `projects.json`. A session's `cost` is the
sum of what Crush itself works out for each request, with the requests of its subagents and of its title; a subagent's
session has its own part of it again. The session's `prompt_tokens` and `completion_tokens` are those of its last request
only, so its tokens are unknown. Each answer is a message. (Crush's source, internal/agent/agent.go and coordinator.go,
internal/projects and internal/db, as of November 2026.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tokenops import events, read_lines, read_records, read_sqlite, untrusted
from tokenops.read_contract import FileReader, Intake

if TYPE_CHECKING:
    import sqlite3

SOURCE = "crush"
CLIENT = "crush"

_NAME, _PROJECTS, _FOLDER = "crush.db", "projects.json", ".crush"
_SESSION = ("id", "parent_session_id", "cost", "created_at", "updated_at")
_UNKNOWN = {"usage": "unknown", "usage_reason": "only the last request's tokens are recorded"}


def files(home: str) -> Iterator[str]:
    """The databases of the projects that a data directory lists, or the one in a project's own folder."""
    folders = [home]
    try:
        listed = read_lines.document(os.path.join(home, _PROJECTS), read_lines.Cursor()).get("projects")
    except (OSError, events.BadRecord):
        listed = None
    for project in map(untrusted.mapping, untrusted.items(listed)):
        root, folder = untrusted.path(project.get("path")), untrusted.path(project.get("data_dir"))
        if root or os.path.isabs(folder):
            folders.append(os.path.join(root, folder or _FOLDER))
    for path in dict.fromkeys(os.path.join(folder, _NAME) for folder in folders):
        if os.path.isfile(path):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is Crush's database."""
    named = os.path.basename(path) == _NAME or (b"summary_message_id" in head and b"completion_tokens" in head)
    return named and head.startswith(b"SQLite format 3\0")


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The totals of the sessions that changed. Raises OSError, BadRecord."""
    folder, name = os.path.split(os.path.dirname(os.path.abspath(path)))
    root = folder if name == _FOLDER else ""
    with read_sqlite.open_database(path) as connection:
        if not set(_SESSION) <= read_sqlite.columns(connection, "sessions"):
            raise events.BadRecord("not a Crush database: it has no table of sessions with costs; skipped")
        since = _resume(connection, cursor, read_sqlite.written_at(path))
        answers = _answers(connection)
        where = "COALESCE(parent_session_id, '') = '' AND (updated_at >= ? OR typeof(updated_at) <> 'integer')"
        for record in read_sqlite.select(connection, "sessions", *_SESSION, where=where, values=(since,)):
            row = dict(record)
            location = f"{path}:{untrusted.identity(row['id']) or 'a session'}"
            try:
                total = _total(row, answers.get(row["id"], 0), root, intake)
            except events.BadRecord as error:
                intake.on_bad_line(location, f"{error}; skipped")
                continue
            if total:
                intake.location = location
                yield total


def _resume(connection: sqlite3.Connection, cursor: read_lines.Cursor, written: int) -> int:
    """From what time of change to read, 0 for all; the cursor is moved to the latest there is, but not after `written`."""
    mark = cursor.state.get("updated", 0)
    latest = connection.execute("SELECT MAX(updated_at) FROM sessions WHERE typeof(updated_at) = 'integer'").fetchone()[0]
    cursor.state["updated"] = min(latest, written // 1000) if type(latest) is int else 0
    return mark if type(mark) is int and mark <= cursor.state["updated"] else 0  # else it is not the database that it was


def _answers(connection: sqlite3.Connection) -> dict[object, int]:
    """How many answers each session without a parent has, with those of its subagents."""
    if not {"session_id", "role"} <= read_sqlite.columns(connection, "messages"):
        return {}
    parents = dict(connection.execute("SELECT id, parent_session_id FROM sessions").fetchall())
    tops: dict[object, object] = {}
    counts: dict[object, int] = {}
    query = "SELECT session_id, COUNT(*) FROM messages WHERE role = 'assistant' GROUP BY session_id"
    for session, count in connection.execute(query):
        top = _top(session, parents, tops)
        counts[top] = counts.get(top, 0) + count
    return counts


def _top(session: object, parents: Mapping[object, object], tops: dict[object, object]) -> object:
    """The session above one that has no parent. `tops`: those that are known, to which all on the way are added."""
    chain = {session: None}  # it, its parent, and so on
    name = session
    while name not in tops and (parent := parents.get(name)) not in (None, "") and parent not in chain:
        chain[parent] = None
        name = parent
    top = tops.get(name, name)
    tops.update(dict.fromkeys(chain, top))
    return top


def _total(row: untrusted.Raw, answers: int, root: str, intake: Intake) -> events.Event | None:
    """What is known of a session, if it asked for anything. Raises BadRecord."""
    name = untrusted.identity(row["id"])
    if not name:
        raise events.BadRecord("a session without a name")
    cost = untrusted.usd(row["cost"])
    if not answers and not cost:
        return None
    stated = {"cost_usd": cost, "cost_source": "client"} if cost else {}
    return read_records.aggregate(
        untrusted.moment(row["created_at"], "created_at"),
        f"usage:{CLIENT}:{name}",
        intake.attribution(SOURCE, CLIENT, root, "", name),
        "",
        {"turns": answers},
        observed_at=untrusted.moment(row["updated_at"], "updated_at"),
        **_UNKNOWN,
        **stated,
    )


READER = FileReader(SOURCE, CLIENT, files, claims, read)
