"""Reads OpenClaw's session files and databases and returns turns.

Until 2026.7.1 a session was a file of lines like pi's, below the agent it belongs to; since 2026.7.2 it is rows of that
agent's database, one line each. Sessions that end (every day, by default) become files, named `.jsonl.reset.<time>` or
`.jsonl.deleted.<time>` and since 2026 compressed: copies that count once, as in pi's forks. (OpenClaw source,
src/config/sessions/artifacts.ts, archive-compression.ts and src/state/openclaw-agent-schema.sql, as of November 2026.)

Of its Codex harness's answers only the last of several is copied here: Codex's own rollouts have them all.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from typing import Any

from tokenops import events, jsonl, read_lines, read_packed, read_pi, read_sqlite, untrusted
from tokenops.read_contract import FileReader, Intake

SOURCE = "openclaw"
CLIENT = "openclaw"

PRODUCT = read_pi.Product(SOURCE, CLIENT)
_STORE = "openclaw-agent.sqlite"
_LINES = "transcript_events"
_SESSION = re.compile(r"(.+?)(?:\.checkpoint\.[0-9a-f-]{36})?\.jsonl(?:\.(?:deleted|reset)\.[^/]+)?\Z")
_OVERLAP_MS = 60_000


def files(home: str) -> Iterator[str]:
    """The databases and the session files of all agents; compressed ones where they can be unpacked."""
    packed = read_packed.can_unpack()
    for path in _all(home):
        if packed or not path.endswith(read_packed.SUFFIX):
            yield path


def _all(home: str) -> Iterator[str]:
    agents = os.path.join(home, "agents")
    try:
        names = sorted(os.listdir(agents))
    except OSError:
        names = []
    for name in names:
        store = os.path.join(agents, name, "agent", _STORE)
        if os.path.isfile(store):
            yield store
    for folder in (*(os.path.join(agents, name, "sessions") for name in names), os.path.join(home, "sessions")):
        for path in read_lines.walk(folder):
            if _SESSION.match(path) and not path.endswith(".trajectory.jsonl"):
                yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is an agent's database or a session."""
    if read_sqlite.is_database(path):
        return os.path.basename(path) == _STORE or (_LINES.encode() in head and b"session_windows" in head)
    if path.endswith(read_packed.SUFFIX):
        return bool(_SESSION.match(path))
    return read_pi.is_session(head) and read_pi.is_openclaw(path, head)


def hints(home: str) -> Iterator[str]:
    """What the user should know of sessions that cannot be read."""
    packed = [path for path in _all(home) if path.endswith(read_packed.SUFFIX)]
    if packed and not read_packed.can_unpack():
        yield (
            f"{os.path.dirname(packed[0])}: {len(packed)} ended sessions are compressed and not read; {read_packed.ADVICE}"
        )


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one session, or those of an agent's database from the cursor on. Raises OSError, BadRecord."""
    if read_sqlite.is_database(path):
        return _rows(path, cursor, intake)
    return _file(path, cursor, intake)


def _file(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    named = _SESSION.match(os.path.basename(path))
    session = named[1] if named else os.path.basename(path)
    folder = agent_of(path)
    lines = (
        _packed_lines(path, cursor, intake)
        if path.endswith(read_packed.SUFFIX)
        else read_lines.records(path, cursor, read_pi.relevant(intake), intake.on_bad_line)
    )
    for location, line in lines:
        if not is_mirror(line):
            yield from read_pi.turns(line, location, cursor.state, session, folder, PRODUCT, intake)


def agent_of(path: str) -> str:
    """The agent that a file belongs to."""
    match = re.search(r"/agents/([^/]+)/[^/]+/[^/]+\Z", path)
    return match[1] if match else ""


def is_mirror(line: untrusted.Raw) -> bool:
    """Whether a line repeats an answer that Codex keeps itself."""
    key = untrusted.mapping(line.get("message")).get("idempotencyKey")
    return isinstance(key, str) and key.startswith("codex-app-server:")


def _rows(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns in the sessions with rows from the watermark on.

    A session is read from its beginning, which has its directory and its model. A row that is written over
    keeps its position and gets a new time.
    """
    with read_sqlite.open_database(path) as connection:
        there = read_sqlite.columns(connection, _LINES)
        if not there and read_sqlite.columns(connection, "auth_profile_store"):
            return  # of a version that kept its sessions in files
        if not there >= {"session_id", "seq", "event_json", "created_at"}:
            raise events.BadRecord(f"not a known database of OpenClaw: no table {_LINES} with the expected columns; skipped")
        newest = connection.execute(f'SELECT max(rowid), max(created_at) FROM "{_LINES}"').fetchone()
        row, at = (value if type(value) is int else 0 for value in newest)
        since = cursor.state.get("row", 0), cursor.state.get("at", 0)
        since = since if since[0] <= row else (0, 0)
        new = "(rowid >= ? OR created_at >= ?)"
        marks = " OR ".join(f"instr(event_json, '{mark}')" for mark in read_pi.marks(intake))
        rows = connection.execute(
            f"SELECT session_id, seq, event_json, {new} AS new FROM {_LINES} "
            f"WHERE session_id IN (SELECT session_id FROM {_LINES} WHERE {new}) AND ({marks}) ORDER BY session_id, seq",
            (*since, *since),
        )
        yield from _new_turns(path, rows, intake)
        cursor.state = {"row": row, "at": at - _OVERLAP_MS}


def _new_turns(path: str, rows: Any, intake: Intake) -> Iterator[events.Event]:
    """The new turns among rows that are in order of session and position."""
    folder, state, last = agent_of(path), dict[str, Any](), None
    quiet = Intake(intake.options)  # of the rows that were read before
    for session, seq, line, new in rows:
        state = state if session == last else {}
        last = session
        location = f"{path}:{untrusted.identity(session)}[{seq if type(seq) is int else ''}]"
        current = intake if new else quiet
        if not isinstance(line, str):
            current.on_bad_line(location, "no text; skipped")
            continue
        for entry in jsonl.parse(line.encode(errors="replace"), functools.partial(current.on_bad_line, location)):
            if not is_mirror(entry):
                turns = read_pi.turns(entry, location, state, untrusted.identity(session), folder, PRODUCT, current)
                yield from (event for event in turns if new)


def _packed_lines(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of each line of a compressed file, which never grows. Raises OSError, BadRecord.

    No line is given before all are known to be sound; only those that matter are kept until then.
    """
    cursor.offset, cursor.state = os.path.getsize(path), {}
    lines, relevant = enumerate(read_packed.lines(path), 1), read_pi.relevant(intake)
    for number, line in [item for item in lines if relevant(bytearray(item[1]), 0, len(item[1]))]:
        location = f"{path}:{number}"
        for entry in jsonl.parse(line, functools.partial(intake.on_bad_line, location)):
            yield location, entry


READER = FileReader(SOURCE, CLIENT, files, claims, read, hints)
