"""Crush: a database per project, whose sessions have a cost and the tokens of their last request."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, objects, put
from tokenops import events, read_crush, read_lines
from tokenops.read_contract import Intake

SCHEMA = (
    """CREATE TABLE sessions (id TEXT PRIMARY KEY, parent_session_id TEXT, title TEXT NOT NULL, message_count INTEGER DEFAULT 0,
    prompt_tokens INTEGER DEFAULT 0, completion_tokens INTEGER DEFAULT 0, cost REAL NOT NULL DEFAULT 0.0,
    updated_at INTEGER NOT NULL, created_at INTEGER NOT NULL, summary_message_id TEXT)""",
    """CREATE TABLE messages (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, role TEXT NOT NULL, parts BLOB, model TEXT,
    created_at INTEGER NOT NULL, provider TEXT)""",
)
BEGAN = 1777636800  # 2026-05-01T12:00:00Z


@contextlib.contextmanager
def base(home: pathlib.Path, project: str = "orchard", folder: str = ".crush") -> Iterator[sqlite3.Connection]:
    """The database of a project in a home, made and listed if it is not there."""
    root = home / "code" / project
    path = root / folder / "crush.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = home / ".local/share/crush/projects.json"
    known: list[Json] = json.loads(listed.read_text())["projects"] if listed.exists() else []
    mine = {"path": str(root), "data_dir": str(root / folder), "last_accessed": "2026-05-01T12:00:00Z"}
    put(listed, json.dumps({"projects": [mine, *(one for one in known if one["path"] != str(root))]}).encode())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sessions'").fetchone():
            for statement in SCHEMA:
                connection.execute(statement)
        yield connection
        connection.commit()


def session(connection: sqlite3.Connection, name: str, answers: int, cost: Any = 0.25, at: Any = 0, **more: Any) -> None:
    """A session with so many answers; its counts are those of the last one."""
    row: Json = {"id": name, "title": "secret", "prompt_tokens": 900, "completion_tokens": 90, "cost": cost}
    row |= {"created_at": BEGAN, "updated_at": BEGAN + at if isinstance(at, int) else at, **more}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT OR REPLACE INTO sessions ({names}) VALUES ({marks})", tuple(row.values()))
    for number in range(answers):
        for role in ("user", "assistant"):
            said = (
                f"{name}-{role}-{number}",
                name,
                role,
                '[{"type":"text","data":"secret"}]',
                "claude-x",
                BEGAN,
                "anthropic",
            )
            connection.execute("INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", said)


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session that grows, with a subagent, and a session of another project without a cost."""
    with base(home) as connection:
        session(connection, "s1", 1)
    yield
    with base(home) as connection:
        session(connection, "c1", 2, 0.5, 90, parent_session_id="s1")
        session(connection, "s1", 3, 1.25, 100)
    yield
    with base(home, "tools") as connection:
        session(connection, "s2", 2, 0, 50)
        session(connection, "s3", 0, 0, 60)
    yield


def read(home: pathlib.Path, cursor: read_lines.Cursor | None = None) -> tuple[list[events.Event], list[str]]:
    rejected: list[str] = []
    path = str(home / "code/orchard/.crush/crush.db")
    found = read_crush.read(path, cursor or read_lines.Cursor(), Intake(on_bad_line=lambda place, why: rejected.append(why)))
    return list(found), rejected


def test_a_session_has_a_cost_and_no_tokens(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    for _ in steps(home):
        run("tok-sync")
    found = {event["session_id"]: event for event in objects(run("tok-read crush").stdout)}
    assert set(found) == {"s1", "s2"}  # the subagent's cost is in its session's
    total = found["s1"]
    assert (total["kind"], total["covers"], total["usage"]) == ("usage", "session", "unknown")
    assert (total["turns"], total["cost_usd"], total["cost_source"]) == (5, "1.25", "client")
    assert (total["ts"], total["observed_at"]) == ("2026-05-01T12:00:00.000Z", "2026-05-01T12:01:40.000Z")
    assert total["project"] == "orchard" and not [name for name in total if name.endswith("_tokens")]
    assert (found["s2"]["turns"], "cost_usd" in found["s2"]) == (2, False)
    assert objects(run("tok-cat").stdout) == list(found.values())
    [row] = [
        row
        for row in objects(run("tok-cost --log --since 2026-05-01 --by project --json").stdout)
        if row.get("project") == "orchard"
    ]
    assert (row["cost_usd"], row["cost_source"]) == ("1.25", "client")
    assert b"secret" not in run("tok-cat").stdout


def test_a_project_may_keep_its_data_elsewhere(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    with base(home, folder="data") as connection:
        session(connection, "s1", 1)
    [total] = objects(run("tok-read crush").stdout)
    assert total["session_id"] == "s1" and "project" not in total
    assert objects(run(f"tok-read crush --root {home}/code/orchard/data").stdout)


@pytest.mark.parametrize(
    ("listed", "count"),
    [
        ({"projects": [{"path": "ROOT", "data_dir": "ROOT/.crush"}]}, 1),
        ({"projects": [{"path": "ROOT", "data_dir": ".crush"}]}, 1),
        ({"projects": [{"path": "ROOT"}]}, 1),
        ({"projects": [{"data_dir": "ROOT/.crush"}, {"path": "ROOT"}]}, 1),
        ({"projects": [{"data_dir": ".crush"}, None, 7, {"path": ["ROOT"]}]}, 0),
        ({"projects": {"path": "ROOT"}}, 0),
        ([], 0),
        ("no JSON", 0),
    ],
)
def test_which_projects_are_listed(listed: Any, count: int, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        session(connection, "s1", 1)
    text = listed if isinstance(listed, str) else json.dumps(listed)
    put(tmp_path / "list/projects.json", text.replace("ROOT", str(tmp_path / "code/orchard")).encode())
    assert len(list(read_crush.files(str(tmp_path / "list")))) == count


@pytest.mark.parametrize("cost", [0, -1, "secret", None, 1e12])
def test_what_is_no_cost(cost: Any, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        connection.execute("DROP TABLE sessions")
        connection.execute(SCHEMA[0].replace("cost REAL NOT NULL DEFAULT 0.0", "cost"))
        session(connection, "s1", 1, cost)
    [total], _ = read(tmp_path)
    assert "cost_usd" not in total and "cost_source" not in total


def test_a_bad_session_leaves_the_others(tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        session(connection, "bad", 1, at="soon")
        session(connection, "", 1)
        session(connection, "good", 1)
    found, rejected = read(tmp_path)
    assert [event["session_id"] for event in found] == ["good"]
    assert sorted(rejected) == ["a session without a name; skipped", "updated_at is a string; expected a time; skipped"]


def test_sessions_that_name_each_other_as_parents_end(tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        session(connection, "a", 1, parent_session_id="b")
        session(connection, "b", 1, parent_session_id="a")
        session(connection, "c", 1, parent_session_id="")
    found, _ = read(tmp_path)
    assert [(event["session_id"], event["turns"]) for event in found] == [("c", 1)]


@pytest.mark.parametrize("statement", ["DROP TABLE sessions", "ALTER TABLE sessions DROP COLUMN parent_session_id"])
def test_another_database_is_rejected(statement: str, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        connection.execute(statement)
    with pytest.raises(events.BadRecord, match="not a Crush database"):
        read(tmp_path)


def test_without_messages_only_sessions_with_a_cost_are_known(tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        session(connection, "s1", 1)
        session(connection, "s2", 1, 0)
        connection.execute("DROP TABLE messages")
    found, _ = read(tmp_path)
    assert [(event["session_id"], "turns" in event) for event in found] == [("s1", False)]


def test_the_place_can_be_named(run: Run, tmp_path: pathlib.Path) -> None:
    with base(tmp_path / "away") as connection:
        session(connection, "s1", 1)
    assert objects(run("tok-read crush", env={"CRUSH_GLOBAL_DATA": str(tmp_path / "away/.local/share/crush")}).stdout)


def test_a_time_in_the_future_hides_no_later_change(tmp_path: pathlib.Path) -> None:
    cursor = read_lines.Cursor()
    for number, at in enumerate((10**9, 10**14, 100, "never", 10**18)):
        with base(tmp_path) as connection:
            session(connection, f"s{number}", 1, at=at)
            session(connection, "grown", number + 1, at=1000 + number)
        os.utime(tmp_path / "code/orchard/.crush/crush.db", (BEGAN + 1000 + number,) * 2)
        found = {event["session_id"]: event.get("turns") for event in read(tmp_path, cursor)[0]}
        assert found["grown"] == number + 1


def test_a_long_chain_of_subagents_is_added_up_once(tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        for number in range(20_000):
            parent = f"s{number - 1}" if number else None
            connection.execute(
                "INSERT INTO sessions (id, title, parent_session_id, updated_at, created_at) VALUES (?, '', ?, ?, ?)",
                (f"s{number}", parent, BEGAN, BEGAN),
            )
            connection.execute(
                "INSERT INTO messages VALUES (?, ?, 'assistant', '', '', ?, '')", (f"m{number}", f"s{number}", BEGAN)
            )
    found, _ = read(tmp_path)
    assert [(event["session_id"], event["turns"]) for event in found] == [("s0", 20_000)]
