"""opencode: databases of 1.x and 2.x, and the files before them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import ROOT, Json, Run, objects, put
from tokenops import events, read_clients, read_lines, read_opencode, readers, store, sync
from tokenops.read_contract import Intake, Options

OPENCODE = read_clients.BY_NAME["opencode"]
T0 = 1_777_000_000_000
# Ids of sessions fall with time: the child was begun last, the original first.
ORIGINAL, FORK, CHILD = "ses_3f", "ses_3e", "ses_3d"
TOKENS = {"input": 900, "output": 120, "reasoning": 40, "cache": {"read": 7000, "write": 300}}

V1 = """
CREATE TABLE session (id TEXT PRIMARY KEY, project_id TEXT, parent_id TEXT, directory TEXT, title TEXT, version TEXT,
    time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL);
CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, time_created INTEGER NOT NULL,
    time_updated INTEGER NOT NULL, data TEXT NOT NULL);
CREATE TABLE part (id TEXT PRIMARY KEY, message_id TEXT NOT NULL, session_id TEXT NOT NULL,
    time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL, data TEXT NOT NULL);
CREATE INDEX message_session_time_created_id_idx ON message (session_id, time_created, id);
CREATE INDEX part_message_id_id_idx ON part (message_id, id);
"""
V2 = """
CREATE TABLE session_v2 (id TEXT PRIMARY KEY, project_id TEXT, parent_id TEXT, fork_session_id TEXT, fork_boundary TEXT,
    directory TEXT, title TEXT, version TEXT, time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL);
CREATE TABLE session_message (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, type TEXT NOT NULL, seq INTEGER NOT NULL,
    time_created INTEGER NOT NULL, time_updated INTEGER NOT NULL, data TEXT NOT NULL);
"""


def answer(at: int = 0, **given: Any) -> Json:
    """What 1.x writes of an answer; `...` leaves a key out."""
    said: Json = {
        "role": "assistant",
        "time": {"created": T0 + at, "completed": T0 + at + 4200},
        "parentID": "msg_u",
        "modelID": "claude-sonnet-4-6",
        "providerID": "anthropic",
        "mode": "build",
        "agent": "build",
        "path": {"cwd": "/home/ada/orchard", "root": "/"},
        "cost": 0,
        "tokens": TOKENS,
        "finish": "stop",
    }
    return {key: value for key, value in (said | given).items() if value is not ...}


def answer2(at: int = 0, **given: Any) -> Json:
    """What 2.x writes of an answer."""
    said: Json = {
        "agent": "build",
        "model": {"id": "claude-sonnet-4-6", "providerID": "anthropic", "variant": "default"},
        "content": [{"type": "text", "text": "secret words"}],
        "finish": "stop",
        "cost": 0,
        "tokens": TOKENS,
        "time": {"created": T0 + at, "completed": T0 + at + 4200},
    }
    return {key: value for key, value in (said | given).items() if value is not ...}


@contextlib.contextmanager
def opened(path: pathlib.Path, schema: str = "") -> Iterator[sqlite3.Connection]:
    """A database for writing, as opencode opens it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(schema)
        yield connection
        connection.commit()


def session(
    connection: sqlite3.Connection,
    name: str = ORIGINAL,
    directory: str = "/home/ada/orchard",
    parent: str | None = None,
    table: str = "session",
) -> None:
    connection.execute(
        f"INSERT INTO {table} (id, parent_id, directory, title, time_created, time_updated) VALUES (?, ?, ?, ?, ?, ?)",
        (name, parent, directory, "secret words", T0, T0),
    )


def message(
    connection: sqlite3.Connection, name: str, data: object, of: str = ORIGINAL, at: int = 0, updated: int | None = None
) -> None:
    """Write a message of 1.x, or write it over."""
    text = data if isinstance(data, (str, bytes)) else json.dumps(data, separators=(",", ":"))
    connection.execute(
        "INSERT INTO message VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data, "
        "time_updated = excluded.time_updated",
        (name, of, T0 + at, T0 + (at if updated is None else updated), text),
    )


def message2(
    connection: sqlite3.Connection, name: str, data: Json, of: str = ORIGINAL, at: int = 0, kind: str = "assistant"
) -> None:
    [(number,)] = connection.execute("SELECT count(*) FROM session_message")
    connection.execute(
        "INSERT INTO session_message VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data, "
        "time_updated = excluded.time_updated",
        (name, of, kind, number, T0 + at, T0 + at, json.dumps(data)),
    )


def step(connection: sqlite3.Connection, name: str, of: str, data: Json) -> None:
    connection.execute(
        "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)", (name, of, ORIGINAL, T0, T0, json.dumps(data, separators=(",", ":")))
    )


def step_finish(cost: float = 0, **tokens: int) -> Json:
    return {"reason": "tool-calls", "type": "step-finish", "tokens": TOKENS | tokens, "cost": cost}


def data_of(home: pathlib.Path) -> pathlib.Path:
    return home / ".local/share/opencode"


def steps(home: pathlib.Path) -> Iterator[None]:
    """A user of all versions: files, a database that grows, a fork, a subagent, the move to 2.x, and a fork there."""
    storage = data_of(home) / "storage"
    put(storage / "session/p1/ses_4a.json", {"id": "ses_4a", "directory": "/home/ada/mill", "title": "secret words"})
    put(storage / "message/ses_4a/msg_0.json", {"id": "msg_0", "sessionID": "ses_4a", "role": "user"})
    old = answer(-9000, finish=..., agent=..., tokens=TOKENS | {"output": 3})
    put(storage / "message/ses_4a/msg_1.json", {"id": "msg_1", "sessionID": "ses_4a", **old})
    put(storage / "part/msg_1/prt_1.json", step_finish(output=2))
    put(storage / "part/msg_1/prt_2.json", step_finish(output=3))
    with opened(data_of(home) / "opencode.db", V1) as connection:
        session(connection)
        message(connection, "msg_2", {"role": "user", "time": {"created": T0}, "agent": "build"})
        message(connection, "msg_3", answer())
        running = answer(5000, finish=..., tokens=dict.fromkeys(TOKENS, 0) | {"cache": {}}, time={"created": T0 + 5000})
        message(connection, "msg_4", running, at=5000)
    yield
    with opened(data_of(home) / "opencode.db") as connection:
        message(connection, "msg_4", answer(5000, finish="tool-calls", time={"created": T0 + 5000}), at=5000, updated=7000)
    yield
    with opened(data_of(home) / "opencode.db") as connection:
        message(connection, "msg_4", answer(5000, finish="tool-calls"), at=5000, updated=9000)
        session(connection, FORK)
        message(connection, "msg_7", answer(), FORK, updated=60_000)
        message(connection, "msg_8", answer(90_000), FORK, at=90_000)
        session(connection, CHILD, parent=ORIGINAL)
        message(connection, "msg_9", answer(95_000, cost=0.25), CHILD, at=95_000)
    yield
    with opened(data_of(home) / "opencode.db", V2) as connection:
        session(connection, table="session_v2")
        message2(connection, "msg_3", answer2(time={"created": T0, "completed": T0}))
        message2(connection, "msg_10", answer2(200_000, finish=..., tokens=..., time={"created": T0 + 200_000}), at=200_000)
        message2(connection, "msg_11", {"text": "secret words", "time": {"created": T0 + 200_000}}, kind="user")
    yield
    with opened(data_of(home) / "opencode.db") as connection:
        message2(connection, "msg_10", answer2(200_000), at=205_000)
        compaction = {"status": "completed", "model": {"id": "claude-haiku-4-5", "providerID": "anthropic"}}
        message2(connection, "msg_12", compaction | {"tokens": TOKENS, "time": {"created": T0 + 210_000}}, kind="compaction")
        session(connection, "ses_3c", table="session_v2")
        message2(connection, "evt_1_0", answer2(time={"created": T0, "completed": T0}), "ses_3c")
        message2(connection, "evt_1_1", answer2(200_000), "ses_3c")
    yield
    shutil.copy(data_of(home) / "opencode.db", data_of(home) / "opencode-nightly.db")


def found_in(home: pathlib.Path, run: Run, **options: Any) -> list[Json]:
    return objects(run("tok-read opencode", **options).stdout)


@pytest.fixture
def home(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"])


def test_each_turn_once_and_under_its_first_session(home: pathlib.Path, run: Run) -> None:
    for _ in steps(home):
        pass
    found = found_in(home, run)
    assert [(event["session_id"], event["ts"][11:19]) for event in found] == [
        ("ses_4a", "03:06:31"),
        ("ses_4a", "03:06:31"),
        (ORIGINAL, "03:06:40"),
        (ORIGINAL, "03:06:45"),
        (FORK, "03:08:10"),
        (CHILD, "03:08:15"),
        (ORIGINAL, "03:10:00"),
        (ORIGINAL, "03:10:10"),
    ]
    assert [event.get("sidechain", False) for event in found] == [False] * 5 + [True, False, False]
    assert [event.get("subagent") for event in found] == [None] * 5 + ["build", None, None]
    assert {event["project"] for event in found} == {"orchard", "mill"}
    assert [event["model"] for event in found] == ["claude-sonnet-4-6"] * 7 + ["claude-haiku-4-5"]
    assert [event.get("cost_usd", "") for event in found] == [""] * 5 + ["0.25", "", ""]
    assert {event["cost_source"] for event in found if "cost_source" in event} == {"client"}
    assert all(event["provider"] == "anthropic" for event in found)


COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


@pytest.mark.parametrize(
    ("tokens", "inside", "counts"),
    [
        # Reasoning beside the output: the total says so, or nothing does.
        (TOKENS | {"total": 8360}, True, (900, 7000, 300, 160, 40)),
        (TOKENS, False, (900, 7000, 300, 160, 40)),
        # Inside: the total says so, or the vendor's way of counting does.
        (TOKENS | {"total": 8320}, False, (900, 7000, 300, 120, 40)),
        (TOKENS, True, (900, 7000, 300, 120, 40)),
        # More than there is output cannot be inside.
        (TOKENS | {"reasoning": 200, "total": 8320}, False, (900, 7000, 300, 320, 200)),
        (TOKENS | {"reasoning": 200}, True, (900, 7000, 300, 320, 200)),
        # A total that fits neither says nothing.
        (TOKENS | {"total": 9999}, False, (900, 7000, 300, 160, 40)),
        ({"input": 5.0, "output": None, "cache": None}, False, (5, 0, 0, 0, 0)),
        ({"reasoning": 7}, False, (0, 0, 0, 7, 7)),
        ({"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}, "total": 0}, False, (0, 0, 0, 0, 0)),
    ],
)
def test_counts(tokens: Json, inside: bool, counts: tuple[int, ...]) -> None:
    found = read_opencode.counts_of(tokens, inside)
    assert tuple(found.get(name, 0) for name in COUNTS) == counts
    assert 0 not in found.values()
    if tokens.get("total") in (8360, 8320) and tokens["reasoning"] == 40:
        assert events.token_sum(found) == tokens["total"]


@pytest.mark.parametrize(
    "tokens", [{"input": -1}, {"output": "12"}, {"cache": {"read": 1.5}}, {"reasoning": True}, {"total": 900}]
)
def test_what_is_no_count(tokens: Json) -> None:
    with pytest.raises(events.BadRecord):
        read_opencode.counts_of(tokens)


@pytest.mark.parametrize(
    ("model", "data", "output"),
    [
        ("gpt-5", answer, 120),
        ("openai/gpt-5", answer, 120),
        ("gemini-3-pro", answer, 160),
        ("claude-sonnet-4-6", answer, 160),
        # 2.x takes reasoning out of the output before it writes either, and gives no total.
        ("gpt-5", answer2, 160),
    ],
)
def test_whose_reasoning_is_inside_where_no_total_tells(model: str, data: Any, output: int, tmp_path: pathlib.Path) -> None:
    with opened(tmp_path / "opencode.db", V1 + V2) as connection:
        if data is answer:
            message(connection, "msg_1", answer(modelID=model))
        else:
            message2(connection, "msg_1", answer2(model={"id": model, "providerID": "openai"}))
    [event] = events_of(tmp_path / "opencode.db")
    assert (event["output_tokens"], event["reasoning_tokens"]) == (output, 40)


def events_of(
    path: pathlib.Path, cursor: read_lines.Cursor | None = None, told: list[tuple[str, str]] | None = None
) -> list[Json]:
    """The events of a file; a rejected record fails, unless it is asked for."""

    def reject(place: str, why: str) -> None:
        assert told is not None, (place, why)
        told.append((place, why))

    return list(read_opencode.read(str(path), cursor or read_lines.Cursor(), Intake(Options(b"salt"), reject)))


NOTHING = {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}}
BEGUN = {"created": T0}


@pytest.mark.parametrize(
    ("data", "turns"),
    [
        (answer(time=BEGUN, finish=...), 0),  # still running, whatever it has counted so far
        (answer(time=BEGUN, finish=..., tokens=NOTHING), 0),
        (answer(time=BEGUN), 1),  # answered, its tools still run; or its client died
        (answer(finish=...), 1),
        (answer(time=BEGUN, finish=..., error={"name": "MessageAbortedError"}), 1),  # stopped after the answer
        (answer(finish=..., tokens=NOTHING, error={"name": "APIError"}), 0),  # failed before the first token
        (answer(tokens=NOTHING), 0),
        (answer(tokens=...), 0),
        (answer(role="user"), 0),
        (answer(summary=True, mode="compaction", agent="compaction"), 1),
    ],
)
def test_what_is_a_turn(data: Json, turns: int, tmp_path: pathlib.Path) -> None:
    with opened(tmp_path / "opencode.db", V1) as connection:
        message(connection, "msg_1", data)
    assert len(events_of(tmp_path / "opencode.db")) == turns
    path = put(tmp_path / "storage/message/ses_1/msg_1.json", {"id": "msg_1", "sessionID": "ses_1", **data})
    assert len(events_of(path)) == turns


@pytest.mark.parametrize(
    ("data", "kind", "turns"),
    [
        (answer2(), "assistant", 1),
        (answer2(finish=..., time=BEGUN), "assistant", 0),  # being tried again: the counts are those of the failure
        (answer2(finish="error", error={"type": "provider.error"}), "assistant", 1),
        (answer2(finish="error", tokens=..., error={"type": "provider.error"}), "assistant", 0),
        (answer2(status="completed", finish=..., time=BEGUN), "compaction", 1),
        (answer2(status="failed", finish=..., time=BEGUN, model=...), "compaction", 1),
        (answer2(status="running", finish=..., time=BEGUN, tokens=...), "compaction", 0),
        (answer2(), "user", 0),
    ],
)
def test_what_is_a_turn_since_2(data: Json, kind: str, turns: int, tmp_path: pathlib.Path) -> None:
    with opened(tmp_path / "opencode.db", V2) as connection:
        message2(connection, "msg_1", data, kind=kind)
    assert len(events_of(tmp_path / "opencode.db")) == turns


def test_a_turn_is_the_same_in_every_store(tmp_path: pathlib.Path) -> None:
    """A fork has new ids, and 2.x writes another end when it takes a message over."""
    old, new = tmp_path / "opencode.db", tmp_path / "opencode-next.db"
    with opened(old, V1) as connection:
        message(connection, "msg_1", answer())
        message(connection, "msg_2", answer(time=BEGUN), FORK)
    with opened(new, V1 + V2) as connection:
        message2(connection, "msg_1", answer2(time={"created": T0, "completed": T0 + 99}))
    path = put(tmp_path / "storage/message/ses_3f/msg_1.json", answer(agent=..., mode="build", time=BEGUN))
    assert len({event["id"] for event in (*events_of(old), *events_of(new), *events_of(path))}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"time": {"created": T0 + 1, "completed": T0 + 4200}},
        {"modelID": "claude-haiku-4-5"},
        {"providerID": "openrouter"},
        {"agent": "plan"},
        *({"tokens": TOKENS | {name: 41}} for name in ("input", "output", "reasoning")),
        {"tokens": TOKENS | {"cache": {"read": 7000, "write": 301}}},
    ],
)
def test_another_turn_is_another(other: Json, tmp_path: pathlib.Path) -> None:
    with opened(tmp_path / "opencode.db", V1) as connection:
        message(connection, "msg_1", answer())
        message(connection, "msg_2", answer(**other))
    assert len({event["id"] for event in events_of(tmp_path / "opencode.db")}) == 2


def test_masked_ids_change_nothing(home: pathlib.Path, run: Run) -> None:
    for at in range(3):
        data = answer(at * 1000, path={"cwd": "[redacted]", "root": "[redacted]"})
        put(data_of(home) / f"storage/message/REDACTED/msg_{at}.json", {"id": "REDACTED", "sessionID": "REDACTED", **data})
    found = found_in(home, run)
    assert len(found) == 3
    assert not any({"session_id", "project", "alias"} & event.keys() for event in found)


def test_what_2_took_over_is_told_by_1(tmp_path: pathlib.Path) -> None:
    """Only the old row has the total, which says that reasoning is part of the output."""
    path = tmp_path / "opencode.db"
    with opened(path, V1 + V2) as connection:
        message(connection, "msg_1", answer(tokens=TOKENS | {"total": 8320}))
        message2(connection, "msg_1", answer2(time={"created": T0, "completed": T0}))
    assert [event["output_tokens"] for event in events_of(path)] == [120]


@pytest.mark.parametrize("store", ["files", "database"])
def test_each_request_of_an_answer_that_took_several(store: str, tmp_path: pathlib.Path) -> None:
    """The answer itself tells the cost of all of them, and the counts of the last."""
    data = answer(finish=..., agent=..., cost=0.75, tokens=TOKENS | {"output": 13})
    parts = [step_finish(0.25, output=11), {"type": "text", "text": '"step-finish"'}, step_finish(0.5, output=13)]
    if store == "files":
        path = put(tmp_path / "storage/message/ses_1/msg_1.json", data)
        for number, part in enumerate(parts):
            put(tmp_path / f"storage/part/msg_1/prt_{number}.json", part)
        put(tmp_path / "storage/part/msg_1/prt_8.json", b"{torn")
        put(tmp_path / "storage/part/msg_1/prt_9.json", {"type": "step-finish", "snapshot": "x" * 3000})
    else:
        path = tmp_path / "opencode.db"
        with opened(path, V1) as connection:
            message(connection, "msg_1", data)
            for number, part in enumerate(parts):
                step(connection, f"prt_{number}", "msg_1", part)
    found = events_of(path)
    assert [(event["output_tokens"], event["cost_usd"]) for event in found] == [(51, "0.25"), (53, "0.5")]
    assert len({event["id"] for event in found}) == 2


def test_parts_without_an_index_are_not_looked_for(tmp_path: pathlib.Path) -> None:
    """All of them would be read for each answer."""
    path = tmp_path / "opencode.db"
    with opened(path, V1) as connection:
        connection.execute("DROP INDEX part_message_id_id_idx")
        message(connection, "msg_1", answer(finish=...))
        step(connection, "prt_1", "msg_1", step_finish(output=11))
    assert [event["output_tokens"] for event in events_of(path)] == [160]


def test_a_new_answer_is_one_request(tmp_path: pathlib.Path) -> None:
    """Its parts are not looked at."""
    path = tmp_path / "opencode.db"
    with opened(path, V1) as connection:
        message(connection, "msg_1", answer(cost=0.5))
        step(connection, "prt_1", "msg_1", step_finish(0.5, output=11))
    assert [event["output_tokens"] for event in events_of(path)] == [160]


def test_an_unfinished_answer_waits(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path, log = data_of(home) / "opencode.db", str(tmp_path / "log")
    with opened(path, V1) as connection:
        message(connection, "msg_1", answer(time=BEGUN, finish=..., tokens=NOTHING))
        message(connection, "msg_2", answer(900_000), at=900_000)

    def synced() -> list[int]:
        sync.run(log, [(OPENCODE, readers.files(OPENCODE, [str(path.parent)]))])
        return [json.loads(line)["output_tokens"] for line in store.scan(log)]

    assert synced() == [160]
    with opened(path) as connection:  # another answer was written later than this one ends
        message(connection, "msg_1", answer(), updated=899_999)
    assert synced() == [160, 160]


def test_only_what_is_new_is_read(tmp_path: pathlib.Path) -> None:
    path, cursor = tmp_path / "opencode.db", read_lines.Cursor()
    with opened(path, V1) as connection:
        for at in range(0, 1_000_000, 100_000):
            message(connection, f"msg_{at}", answer(at), at=at)
    assert len(events_of(path, cursor)) == 10
    assert len(events_of(path, cursor)) == 1  # the newest comes again
    with opened(path) as connection:
        message(connection, "msg_copied", answer(at=7), FORK, at=7)  # new, stamped long ago
    assert [event["ts"][-4:] for event in events_of(path, cursor)] == ["000Z", "007Z"]
    assert json.loads(json.dumps(cursor.state)) == cursor.state


def test_a_database_that_was_written_over_is_read_again(tmp_path: pathlib.Path) -> None:
    path, cursor = tmp_path / "opencode.db", read_lines.Cursor()
    with opened(path, V1) as connection:
        message(connection, "msg_1", answer(500_000), at=500_000)
    events_of(path, cursor)
    with opened(path) as connection:
        connection.execute("DELETE FROM message")
        for at in range(3):
            message(connection, f"msg_{at}", answer(at), at=at)
        connection.execute("UPDATE message SET rowid = rowid - 100")
    assert len(events_of(path, cursor)) == 3


def test_a_version_without_times_is_read_whole(tmp_path: pathlib.Path) -> None:
    path, cursor = tmp_path / "opencode.db", read_lines.Cursor()
    with opened(path, "CREATE TABLE message (id, session_id, data)") as connection:
        connection.execute("INSERT INTO message VALUES ('msg_1', 'ses_1', ?)", (json.dumps(answer()),))
    assert len(events_of(path, cursor)) == len(events_of(path, cursor)) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ('{"role":"assistant", torn', "data is not a JSON object; skipped"),
        ('["assistant"]', "data is a list"),
        (answer(tokens=TOKENS | {"input": -5}), "input is a negative number; expected a count; skipped"),
        (answer(time={"created": "soon", "completed": 1}), "time.created is a string; expected a time; skipped"),
    ],
)
def test_a_bad_row_is_told_and_skipped(data: Any, why: str, home: pathlib.Path, run: Run) -> None:
    with opened(data_of(home) / "opencode.db", V1) as connection:
        message(connection, "msg_1", data)
        message(connection, "msg_2", answer())
    done = run("tok-read opencode", status=1)
    assert len(objects(done.stdout)) == 1
    said = done.stderr.decode()
    assert "opencode.db:message[msg_1]: " in said and (why in said or "data is" in said)
    assert "torn" not in said and "soon" not in said


def test_half_a_surrogate_pair_counts(tmp_path: pathlib.Path) -> None:
    with opened(tmp_path / "opencode.db", V1) as connection:
        message(connection, "msg_1", json.dumps(answer(error="\ud83d")))
    assert len(events_of(tmp_path / "opencode.db")) == 1


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("", ""),  # its client has only just made it
        (V1 + V2, ""),
        (
            "CREATE TABLE sessions (id); CREATE TABLE messages (id, parts); CREATE TABLE goose_db_version (id)",
            "another product",
        ),
        ("CREATE TABLE thing (id)", "unknown version"),
        ("CREATE TABLE message (id, session_id, body)", "unknown version"),
    ],
)
def test_databases_without_messages(schema: str, said: str, home: pathlib.Path, run: Run) -> None:
    with opened(data_of(home) / "opencode.db", schema):
        pass
    done = run("tok-read opencode", status=1 if said else 0)
    assert not done.stdout
    assert said in done.stderr.decode() and len(done.stderr.splitlines()) == bool(said)


WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = " + sys.argv[2])
for line in sys.argv[3:]:
    connection.execute(line)
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def written(path: pathlib.Path, mode: str, *lines: str) -> Iterator[None]:
    """Another process that holds a database open, having said some lines of SQL to it."""
    command = [sys.executable, "-c", WRITER, str(path), mode, *lines]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        yield
        process.stdin.close()


def inserted(name: str, at: int) -> str:
    return f"INSERT INTO message VALUES ('{name}', '{ORIGINAL}', {T0 + at}, {T0 + at}, '{json.dumps(answer(at))}')"


def test_a_database_that_is_being_written(home: pathlib.Path, run: Run) -> None:
    """What was committed a moment ago stands beside the database; what was not is not yet there."""
    path = data_of(home) / "opencode.db"
    with opened(path, V1) as connection:
        message(connection, "msg_1", answer())
    with written(path, "WAL", inserted("msg_2", 1000), "BEGIN", inserted("msg_3", 2000)):
        assert os.stat(f"{path}-wal").st_size
        before = sorted(path.parent.iterdir())
        assert [event["ts"][17:19] for event in found_in(home, run)] == ["40", "41"]
        assert sorted(path.parent.iterdir()) == before


def test_a_locked_database_is_read_the_next_time(home: pathlib.Path, run: Run) -> None:
    path = data_of(home) / "opencode.db"
    with opened(path, V1) as connection:
        message(connection, "msg_1", answer())
    with written(path, "DELETE", "BEGIN EXCLUSIVE"):
        done = run("tok-read opencode", status=2)
        assert not done.stdout
        assert "locked by another program" in done.stderr.decode()
    assert len(found_in(home, run)) == 1


# All is imported before the user changes, who need not be able to read the interpreter's own files.
READER = """
import os, shutil, sqlite3, sys, tempfile
from tokenops import read_contract, read_lines, read_opencode
def count(path):
    return len(list(read_opencode.read(path, read_lines.Cursor(), read_contract.Intake(on_bad_line=print))))
count(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(os.access(os.path.dirname(sys.argv[2]), os.W_OK), count(sys.argv[2]))
"""


def test_a_folder_that_may_not_be_written() -> None:
    """A private copy is read of what is there, with what waits beside it."""
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        path, copy = pathlib.Path(top, "opencode.db"), pathlib.Path(top, "kept/opencode.db")
        with opened(path, V1) as connection:
            message(connection, "msg_1", answer())
        copy.parent.mkdir()
        with written(path, "WAL", inserted("msg_2", 1000)):
            for ending in ("", "-wal"):
                shutil.copy(f"{path}{ending}", f"{copy}{ending}")
        copy.parent.chmod(0o555)
        command = [sys.executable, "-c", READER, str(path), str(copy)]
        done = subprocess.run(command, env={"PYTHONPATH": str(ROOT / "bin")}, capture_output=True, check=False)
        copy.parent.chmod(0o755)
        assert done.stdout == b"False 2\n", done.stderr
        assert sorted(os.listdir(copy.parent)) == ["opencode.db", "opencode.db-wal"]


@pytest.mark.parametrize(
    ("environment_", "below"),
    [
        ({}, "home/.local/share/opencode"),
        ({}, "home/Library/Application Support/opencode"),
        ({"XDG_DATA_HOME": "xdg"}, "xdg/opencode"),
        ({"OPENCODE_DATA_DIR": "away"}, "away"),
        ({"OPENCODE_DATA_DIR": "nowhere, away"}, "away"),
    ],
)
def test_where_it_is(environment_: dict[str, str], below: str, run: Run, tmp_path: pathlib.Path) -> None:
    env = {name: ",".join(str(tmp_path / part.strip()) for part in value.split(",")) for name, value in environment_.items()}
    for number, name in enumerate(("opencode", "opencode-next", "opencode-my.channel", "opencode@2099200d")):
        with opened(tmp_path / below / f"{name}.db", V1) as connection:
            message(connection, "msg_1", answer(number))
    for name in ("other.db", "opencode.db.bak", "opencode.dbx"):
        put(tmp_path / below / name, b"no database")
    assert len(objects(run("tok-read opencode", env=env).stdout)) == 4


def test_the_place_of_a_session_is_known_from_its_message_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "opencode.db"
    with opened(path, V1) as connection:
        message(connection, "msg_1", answer())
        message(connection, "msg_2", answer(1, path={"cwd": "[trimmed]", "root": "/"}))
    assert [event.get("project") for event in events_of(path)] == ["orchard", None]


@pytest.mark.parametrize(
    ("provider", "model", "billed"),
    [
        ("opencode", "claude-opus-4-6", "opencode"),
        ("opencode-go", "glm-5.3", "opencode-go"),
        ("google-antigravity", "gemini-3.8-flash", "gemini"),
        ("github-copilot", "gpt-5.4", "github"),
        ("amazon-bedrock", "anthropic.claude-opus-4-6-v1:0", "bedrock"),
        ("openrouter", "anthropic/claude-opus-4.6", "openrouter"),
        ("my-own", "qwen3", "my-own"),
    ],
)
def test_who_bills(provider: str, model: str, billed: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "opencode.db"
    with opened(path, V1) as connection:
        message(connection, "msg_1", answer(providerID=provider, modelID=model))
    [event] = events_of(path)
    assert (event["provider"], event["model"]) == (billed, model)
    assert event.get("provider_inferred", False) == (provider == "google-antigravity")
