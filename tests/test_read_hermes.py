"""Hermes Agent: sums per session, and per model since schema 20."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, objects
from tokenops import events, read_hermes, read_lines
from tokenops.read_contract import Intake

KINDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "api_call_count")
SUMS = ", ".join(f"{kind} INTEGER DEFAULT 0" for kind in KINDS)
COSTS = "estimated_cost_usd REAL, actual_cost_usd REAL, cost_status TEXT"
OLD = f"""CREATE TABLE sessions (id TEXT PRIMARY KEY, source TEXT NOT NULL, model TEXT, model_config TEXT, system_prompt TEXT,
    parent_session_id TEXT, started_at REAL NOT NULL, ended_at REAL, {SUMS}, billing_provider TEXT, {COSTS}, title TEXT)"""
NEW = (
    "ALTER TABLE sessions ADD COLUMN cwd TEXT",
    "ALTER TABLE sessions ADD COLUMN last_activity_at REAL",
    f"""CREATE TABLE session_model_usage (session_id TEXT NOT NULL, model TEXT NOT NULL, billing_provider TEXT DEFAULT '',
        billing_base_url TEXT NOT NULL DEFAULT '', task TEXT DEFAULT '', {SUMS}, {COSTS}, first_seen REAL, last_seen REAL)""",
)
BEGAN = 1772618400.5  # 2026-03-04T10:00:00.500Z
Share = tuple[str, str, str, tuple[int, ...]]


@contextlib.contextmanager
def base(home: pathlib.Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """Hermes' database in a home, made if it is not there."""
    path = home / ".hermes/state.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sessions'").fetchone():
            connection.execute(OLD)
        for statement in statements:
            connection.execute(statement)
        yield connection
        connection.commit()


def insert(connection: sqlite3.Connection, table: str, **row: Any) -> None:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


def session(name: str = "s1", counts: tuple[int, ...] = (900, 90, 5000, 100, 40, 3), **more: Any) -> Json:
    made: Json = {
        "id": name,
        "source": "cli",
        "model": "claude-opus-4-6",
        "billing_provider": "anthropic",
        "title": "secret",
    }
    return made | {"started_at": BEGAN} | dict(zip(KINDS, counts, strict=True)) | more


def share(model: str, counts: tuple[int, ...], **more: Any) -> Json:
    made: Json = {"session_id": "s1", "model": model, "billing_provider": "anthropic", "first_seen": BEGAN}
    return made | {"last_seen": BEGAN + 60} | dict(zip(KINDS, counts, strict=True)) | more


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session of an older version that goes on in a newer one, with another model; and a subagent."""
    with base(home) as connection:
        insert(connection, "sessions", **session())
    yield
    with base(home, *NEW) as connection:
        insert(connection, "session_model_usage", **share("claude-opus-4-6", (900, 90, 5000, 100, 40, 3)))
    yield
    with base(home) as connection:
        later = {"last_activity_at": BEGAN + 90000, "model": "gpt-5.4", "cwd": "/home/ada/orchard"}
        insert(connection, "sessions", **session(counts=(1600, 97, 5000, 100, 41, 4), **later))
        other = {"billing_provider": "openai-codex", "first_seen": BEGAN + 90000, "last_seen": BEGAN + 90001}
        insert(connection, "session_model_usage", **share("gpt-5.4", (700, 7, 0, 0, 1, 1), **other))
        connection.commit()
        yield
        title = {"task": "title_generation", "last_seen": BEGAN + 90060}
        insert(connection, "session_model_usage", **share("claude-haiku-4-5", (11, 2, 0, 0, 0, 1), **title))
        child = {"source": "subagent", "parent_session_id": "s1", "last_activity_at": BEGAN + 90002}
        insert(connection, "sessions", **session("s2", **child))
    yield


def read(home: pathlib.Path, cursor: read_lines.Cursor | None = None) -> tuple[dict[str, events.Event], list[str]]:
    rejected: list[str] = []
    path = home / ".hermes/state.db"
    take = lambda place, why: rejected.append(f"{place.rpartition('/')[2]}: {why}")  # noqa: E731
    found = read_hermes.read(str(path), cursor or read_lines.Cursor(), Intake(on_bad_line=take))
    return {event["id"].removeprefix("usage:hermes:"): event for event in found}, rejected


def counted(event: Json) -> tuple[int, ...]:
    return tuple(event.get("turns" if kind == "api_call_count" else kind, 0) for kind in KINDS)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((900, 90, 5000, 100, 40, 3), (900, 90, 5000, 100, 40, 3)),
        ((900, 90, 0, 0, 90, 1), (900, 90, 0, 0, 90, 1)),
        # More reasoning than output cannot be inside.
        ((900, 10, 0, 0, 90, 1), (900, 100, 0, 0, 90, 1)),
        ((900, 10, None, None, None, None), (900, 10, 0, 0, 0, 0)),
    ],
)
def test_counts(counts: tuple[int, ...], expected: tuple[int, ...], tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "sessions", **session(counts=counts))
    found, rejected = read(tmp_path)
    assert counted(found["s1"]) == expected and not rejected
    assert (found["s1"]["ts"], found["s1"]["covers"]) == ("2026-03-04T10:00:00.500Z", "session")


@pytest.mark.parametrize(
    ("whole", "shares", "expected"),
    [
        # What each model took is all there is.
        ((16, 17, 0, 0, 0, 4), [share("a", (9, 10, 0, 0, 0, 3)), share("b", (7, 7, 0, 0, 0, 1), first_seen=BEGAN + 1)],
         {"s1": ("a", (9, 10, 0, 0, 0, 3)), "s1:b@anthropic": ("b", (7, 7, 0, 0, 0, 1))}),
        # The session's sums are ahead: the rest is the first model's.
        ((26, 17, 5, 0, 0, 4), [share("a", (9, 10, 0, 0, 0, 3)), share("b", (7, 7, 0, 0, 0, 1), first_seen=BEGAN + 1)],
         {"s1": ("a", (19, 10, 5, 0, 0, 3)), "s1:b@anthropic": ("b", (7, 7, 0, 0, 0, 1))}),
        # They began anew with the gateway: what the models took stays.
        ((1, 1, 0, 0, 0, 1), [share("a", (9, 10, 0, 0, 0, 3))], {"s1": ("a", (9, 10, 0, 0, 0, 3))}),
        # A title is in no sum of the session, a voice chat is.
        ((12, 11, 0, 0, 0, 4), [share("a", (9, 10, 0, 0, 0, 3)), share("t", (2, 1, 0, 0, 0, 1), task="title_generation"),
                                share("v", (3, 1, 0, 0, 0, 1), task="voice_chat", first_seen=BEGAN + 9)],
         {"s1": ("a", (9, 10, 0, 0, 0, 3)), "s1:v@anthropic": ("v", (3, 1, 0, 0, 0, 1)),
          "s1:t@anthropic+title_generation": ("t", (2, 1, 0, 0, 0, 1))}),
        # One model at two addresses of one vendor is one, at two vendors two.
        ((16, 17, 0, 0, 0, 4), [share("a", (9, 10, 0, 0, 0, 3), billing_base_url="x"), share("a", (7, 7, 0, 0, 0, 1))],
         {"s1": ("a", (16, 17, 0, 0, 0, 4))}),
        ((16, 17, 0, 0, 0, 4), [share("a", (9, 10, 0, 0, 0, 3)), share("a", (7, 7, 0, 0, 0, 1), billing_provider="nous")],
         {"s1": ("a", (9, 10, 0, 0, 0, 3)), "s1:a@nous": ("a", (7, 7, 0, 0, 0, 1))}),
        # Nothing but a title.
        ((0, 0, 0, 0, 0, 0), [share("t", (2, 1, 0, 0, 0, 1), task="title_generation")],
         {"s1:t@anthropic+title_generation": ("t", (2, 1, 0, 0, 0, 1))}),
        ((0, 0, 0, 0, 0, 2), [], {}),
    ],
)  # fmt: skip
def test_what_each_model_took(whole: tuple[int, ...], shares: list[Json], expected: Json, tmp_path: pathlib.Path) -> None:
    with base(tmp_path, *NEW) as connection:
        insert(connection, "sessions", **session(counts=whole))
        for row in shares:
            insert(connection, "session_model_usage", **row)
    found, rejected = read(tmp_path)
    assert {key: (event["model"], counted(event)) for key, event in found.items()} == expected and not rejected


def test_a_session_that_changes_its_model_counts_once(run: Run, environment: dict[str, str]) -> None:
    """Before there were shares the whole was one model's: its record gives way to what is known later."""
    for _ in steps(pathlib.Path(environment["HOME"])):
        run("tok-sync")
    for source in ("tok-read hermes", "tok-cat"):
        rows = objects(run(f"{source} | tok-rollup --by session,model").stdout)
        assert {(row["session_id"], row["model"], row["output_tokens"], row["turns"]) for row in rows} == {
            ("s1", "claude-opus-4-6", 90, 3), ("s1", "gpt-5.4", 7, 1), ("s1", "claude-haiku-4-5", 2, 1), ("s2", "claude-opus-4-6", 90, 3),
        }  # fmt: skip
    found = {event["id"]: event for event in objects(run("tok-read hermes").stdout)}
    assert found["usage:hermes:s2"]["sidechain"] and "sidechain" not in found["usage:hermes:s1"]
    assert found["usage:hermes:s1"]["observed_at"] == "2026-03-05T11:01:00.500Z"
    assert found["usage:hermes:s1"]["project"] == "orchard"
    assert found["usage:hermes:s1:gpt-5.4@openai-codex"]["provider"] == "openai"


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({"actual_cost_usd": 0.25, "estimated_cost_usd": 0.5}, ("0.25", "reported")),
        ({"actual_cost_usd": 0.0, "estimated_cost_usd": 0.5}, ("0.5", "client")),
        ({"actual_cost_usd": None, "estimated_cost_usd": 0.0, "cost_status": "included"}, (None, None)),
        ({"actual_cost_usd": -1.0, "estimated_cost_usd": "free"}, (None, None)),
        ({"estimated_cost_usd": float("inf")}, (None, None)),
    ],
)
def test_costs(costs: Json, expected: tuple[str | None, str | None], tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "sessions", **session(**costs))
    [total] = read(tmp_path)[0].values()
    assert (total.get("cost_usd"), total.get("cost_source")) == expected


def test_costs_are_shared_out(tmp_path: pathlib.Path) -> None:
    with base(tmp_path, *NEW) as connection:
        insert(connection, "sessions", **session(counts=(16, 17, 0, 0, 0, 4), estimated_cost_usd=0.3))
        insert(connection, "session_model_usage", **share("a", (9, 10, 0, 0, 0, 3), estimated_cost_usd=0.1))
        insert(
            connection, "session_model_usage", **share("b", (7, 7, 0, 0, 0, 1), first_seen=BEGAN + 1, estimated_cost_usd=0.1)
        )
    assert [total["cost_usd"] for total in read(tmp_path)[0].values()] == ["0.2", "0.1"]


@pytest.mark.parametrize(("told", "provider"), [("openai-codex", "openai"), ("nous", "nous"), ("custom", None), ("", None)])
def test_providers(told: str, provider: str | None, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "sessions", **session(billing_provider=told, model="hermes-5-lamp"))
    assert read(tmp_path)[0]["s1"].get("provider") == provider


@pytest.mark.parametrize(
    ("more", "sidechain"),
    [
        ({"source": "subagent"}, True),
        ({"model_config": json.dumps({"_delegate_from": "s0"})}, True),
        ({"model_config": json.dumps({"_branched_from": "s0"}), "parent_session_id": "s0"}, False),
        ({"model_config": "{_delegate_from"}, False),
        ({"model_config": b"\xff"}, False),
    ],
)
def test_subagents(more: Json, sidechain: bool, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "sessions", **session(**more))
    assert read(tmp_path)[0]["s1"].get("sidechain", False) == sidechain


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (session(counts=(-1, 0, 0, 0, 0, 0)), "input_tokens is a negative number; expected a count"),
        (session(started_at="soon"), "started_at is a string; expected a time"),
        (session("<id>"), "a session without a name"),
        (session(counts=(0, 0, 0, 0, 0, 0)), ""),
    ],
)
def test_what_is_no_total(row: Json, why: str, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "sessions", **row)
        insert(connection, "sessions", **session("s9"))
    found, rejected = read(tmp_path)
    assert list(found) == ["s9"]
    assert [line.partition(": ")[2] for line in rejected] == ([f"{why}; skipped"] if why else [])


def test_only_what_changed_is_read_again(tmp_path: pathlib.Path) -> None:
    cursor = read_lines.Cursor()
    with base(tmp_path, *NEW) as connection:
        insert(connection, "sessions", **session("old", ended_at=BEGAN + 9))
        insert(connection, "sessions", **session("titled", ended_at=BEGAN + 9))
        insert(connection, "sessions", **session("open"))
        insert(connection, "sessions", **session("s1", last_activity_at=BEGAN + 90000))
    assert set(read(tmp_path, cursor)[0]) == {"old", "titled", "open", "s1"}
    state = json.loads(json.dumps(cursor.state))
    with base(tmp_path) as connection:
        title = share("t", (2, 1, 0, 0, 0, 1), session_id="titled", task="title_generation", last_seen=BEGAN + 90001)
        insert(connection, "session_model_usage", **title)
    found = read(tmp_path, read_lines.Cursor(state=state))[0]
    assert set(found) == {"titled", "titled:t@anthropic+title_generation", "open", "s1"}
    with base(tmp_path) as connection:  # a database that was put back is read from its beginning
        connection.execute("DELETE FROM sessions WHERE id = 's1'")
        connection.execute("DELETE FROM session_model_usage")
    assert set(read(tmp_path, read_lines.Cursor(state=state))[0]) == {"old", "titled", "open"}


def test_every_profile_is_read(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    for name, place in (("s1", home), ("s2", home / "x")):
        with base(place) as connection:
            insert(connection, "sessions", **session(name))
    (home / ".hermes/profiles").mkdir()
    (home / "x/.hermes").rename(home / ".hermes/profiles/work")
    assert {event["session_id"] for event in objects(run("tok-read hermes").stdout)} == {"s1", "s2"}
    again = run("tok-read hermes", env={"HOME": "/nowhere", "HERMES_HOME": str(home / ".hermes/profiles/work")})
    assert [event["session_id"] for event in objects(again.stdout)] == ["s2"]


def test_another_database_is_refused(run: Run, tmp_path: pathlib.Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("CREATE TABLE things (id TEXT)")
        connection.commit()
    done = run("tok-read hermes --root state.db", status=1)
    assert done.stderr == (
        b"tok-read: state.db: not a Hermes Agent database: it has no table of sessions with token counts; skipped\n"
    )


def test_a_damaged_database_is_told(run: Run, tmp_path: pathlib.Path) -> None:
    """SQLite quotes the damage in its message, which is then no text."""
    with base(tmp_path):
        pass
    path = tmp_path / ".hermes/state.db"
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE sessions (id", b"CREATE \x80ABLE sessions (id"))
    done = run(f"tok-read hermes --root {path}", status=1)
    assert b"not a readable SQLite database (damaged, encrypted or truncated); skipped" in done.stderr


def test_a_time_in_the_future_hides_no_later_change(tmp_path: pathlib.Path) -> None:
    cursor = read_lines.Cursor()
    for number, at in enumerate((10**9, 90 * 10**9, 10**18)):
        with base(tmp_path, *(() if number else NEW)) as connection:
            insert(connection, "sessions", **session(f"s{number}", last_activity_at=BEGAN + at))
            connection.execute("DELETE FROM sessions WHERE id = 'grown'")
            grown = session("grown", (900 + number, 90, 0, 0, 0, 3), last_activity_at=BEGAN + 1000 * (number + 1))
            insert(connection, "sessions", **grown)
        os.utime(tmp_path / ".hermes/state.db", (BEGAN + 1000 * (number + 1),) * 2)
        assert read(tmp_path, cursor)[0]["grown"]["input_tokens"] == 900 + number
