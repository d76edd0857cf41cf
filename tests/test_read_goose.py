"""goose: sessions with sums, and a ledger of requests since schema 15."""

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
from tokenops import events, read_goose, read_lines
from tokenops.read_contract import Intake

TOKENS = ", ".join(f"{kind}_tokens INTEGER" for kind in ("total", "input", "output"))
CACHE = ", ".join(f"{kind}_tokens INTEGER" for kind in ("cache_read", "cache_write"))
SUMS = f"{TOKENS}, {', '.join(f'accumulated_{part}' for part in TOKENS.split(', '))}"
OLD = f"""CREATE TABLE sessions (id TEXT PRIMARY KEY, name TEXT, session_type TEXT NOT NULL DEFAULT 'user',
    working_dir TEXT NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    {SUMS}, provider_name TEXT, model_config_json TEXT)"""
NEW = (
    "ALTER TABLE sessions ADD COLUMN accumulated_cost REAL",
    *(f"ALTER TABLE sessions ADD COLUMN {part}" for part in CACHE.split(", ")),
    *(f"ALTER TABLE sessions ADD COLUMN accumulated_{part}" for part in CACHE.split(", ")),
    f"""CREATE TABLE usage_ledger (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, created_timestamp INTEGER,
        model TEXT, {TOKENS}, {CACHE}, cost REAL, cost_source TEXT, is_compaction INTEGER DEFAULT 0)""",
)


@contextlib.contextmanager
def base(home: pathlib.Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """goose's database in a home, made if it is not there."""
    path = home / ".local/share/goose/sessions/sessions.db"
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


def session(name: str = "20260304_1", sent: int | None = 900, output: int | None = 90, **more: Any) -> Json:
    made: Json = {"id": name, "name": "secret", "working_dir": "/home/ada/orchard", "created_at": "2026-03-04 10:00:00"}
    made |= {"updated_at": "2026-03-04 10:05:00", "provider_name": "anthropic"}
    made |= {"model_config_json": json.dumps({"model_name": "claude-opus-4-6", "context_limit": None})}
    total = (sent or 0) + (output or 0)
    return (
        made
        | {"accumulated_input_tokens": sent, "accumulated_output_tokens": output, "accumulated_total_tokens": total}
        | more
    )


def request(sent: int = 900, output: int = 90, **more: Any) -> Json:
    made: Json = {"session_id": "20260304_1", "created_timestamp": 1772618410, "model": "claude-opus-4-6-20260205"}
    return made | {"input_tokens": sent, "output_tokens": output, "total_tokens": sent + output} | more


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session of an older version that goes on in a newer one, and one of the newer version from its first request."""
    with base(home) as connection:
        insert(connection, "sessions", **session())
    yield
    with base(home, *NEW) as connection:
        yield
        after = {"accumulated_cache_read_tokens": 800, "updated_at": "2026-03-05 08:00:01"}
        insert(connection, "sessions", **session(sent=1900, output=100, **after))
        insert(connection, "usage_ledger", **request(cost_source="carried_forward", model=None))
        insert(connection, "usage_ledger", **request(1000, 10, cache_read_tokens=800, created_timestamp=1772697600))
        connection.commit()
        yield
        new = {"created_at": "2026-03-05 09:00:00", "updated_at": "2026-03-05 09:00:09", "session_type": "sub_agent"}
        insert(connection, "sessions", **session("20260305_1", 500, 50, **new))
        insert(connection, "usage_ledger", **request(500, 50, session_id="20260305_1", cost=0.5, cost_source="estimated"))
    yield
    with base(home) as connection:
        later = new | {"updated_at": "2026-03-05 09:01:00", "accumulated_cache_write_tokens": 300}
        insert(connection, "sessions", **session("20260305_1", 1200, 57, **later))
        insert(connection, "usage_ledger", **request(700, 7, session_id="20260305_1", cache_write_tokens=300))
    yield


def read(home: pathlib.Path, cursor: read_lines.Cursor | None = None) -> tuple[list[events.Event], list[str]]:
    rejected: list[str] = []
    path = home / ".local/share/goose/sessions/sessions.db"
    take = lambda place, why: rejected.append(f"{place.rpartition('/')[2]}: {why}")  # noqa: E731
    return list(read_goose.read(str(path), cursor or read_lines.Cursor(), Intake(on_bad_line=take))), rejected


COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
KINDS = ("input", "output", "total", "cache_read", "cache_write")


@pytest.mark.parametrize(
    ("model", "given", "counts", "unsure"),
    [
        ("claude-opus-4-6", (6010, 50, 6060, 5000, 1000), (10, 5000, 1000, 50, 0), False),
        ("gpt-5.4", (900, 90, 990, None, None), (900, 0, 0, 90, 0), False),
        # Older versions left Gemini's thoughts out of the output, not out of the total.
        ("gemini-3-pro", (900, 90, 1490, 0, None), (900, 0, 0, 590, 500), False),
        # With others what is left over may be anything.
        ("claude-opus-4-6", (900, 90, 1490, None, None), (900, 0, 0, 90, 0), True),
        # What is left over is the cached part: then it stood beside the input.
        ("claude-opus-4-6", (900, 90, 1490, 400, 100), (900, 400, 100, 90, 0), False),
        ("gpt-5.4", (100, 90, 190, 400, None), (100, 400, 0, 90, 0), False),
        ("gpt-5.4", (900, None, None, None, None), (900, 0, 0, 0, 0), False),
        ("gpt-5.4", (None, None, None, None, None), (0, 0, 0, 0, 0), False),
    ],
)
def test_counts(model: str, given: tuple[int, ...], counts: tuple[int, ...], unsure: bool) -> None:
    row = {f"{kind}_tokens": value for kind, value in zip(KINDS, given, strict=True)}
    found = read_goose.counts_of(row, "", model)
    assert tuple(found.counts.get(name, 0) for name in COUNTS) == counts
    assert bool(found.unsure) == unsure
    if given[2] and not unsure and given[3:] != (400, None):
        assert events.token_sum(found.counts) == given[2]


@pytest.mark.parametrize("given", [(None, None, 9, None, None), ("9", 1, 10, 0, 0), (9, -1, 8, 0, 0), (b"x", 1, 1, 1, 1)])
def test_what_is_no_count(given: tuple[Any, ...]) -> None:
    with pytest.raises(events.BadRecord):
        read_goose.counts_of({f"{kind}_tokens": value for kind, value in zip(KINDS, given, strict=True)}, "", "m")


def test_requests_are_turns(tmp_path: pathlib.Path) -> None:
    with base(tmp_path, *NEW) as connection:
        insert(connection, "sessions", **session(sent=7010, output=140, accumulated_cost=9.5))
        told = {"cache_read_tokens": 5000, "cache_write_tokens": 1000, "cost": 0.25, "cost_source": "provider_reported"}
        insert(connection, "usage_ledger", **request(6010, 50, **told))
        insert(connection, "usage_ledger", **request(1000, 90, cost=0.125, cost_source="estimated", is_compaction=1))
    found, rejected = read(tmp_path)
    assert not rejected and [turn["kind"] for turn in found] == ["turn", "turn"]
    assert [turn["id"] for turn in found] == [f"goose:20260304_1@2026-03-04T10:00:00:{number}" for number in (1, 2)]
    assert [tuple(turn.get(name, 0) for name in COUNTS) for turn in found] == [(10, 5000, 1000, 50, 0), (1000, 0, 0, 90, 0)]
    assert [(turn["cost_usd"], turn["cost_source"]) for turn in found] == [("0.25", "reported"), ("0.125", "client")]
    assert {(turn["model"], turn["provider"], turn["project"], turn["ts"]) for turn in found} == {
        ("claude-opus-4-6-20260205", "anthropic", "orchard", "2026-03-04T10:00:10.000Z")
    }


def test_a_session_begun_before_the_ledger_is_one_total(tmp_path: pathlib.Path) -> None:
    with base(tmp_path, *NEW) as connection:
        insert(
            connection, "sessions", **session(sent=1900, output=100, accumulated_cache_read_tokens=800, accumulated_cost=0.5)
        )
        insert(connection, "usage_ledger", **request(cost_source="carried_forward", model=None))
        insert(connection, "usage_ledger", **request(1000, 10, cache_read_tokens=800))
    [total], rejected = read(tmp_path)
    assert not rejected
    assert (total["kind"], total["id"]) == ("usage", "usage:goose:20260304_1@2026-03-04T10:00:00")
    assert tuple(total.get(name, 0) for name in COUNTS) == (1100, 800, 0, 100, 0)
    assert (total["ts"], total["observed_at"]) == ("2026-03-04T10:00:00.000Z", "2026-03-04T10:05:00.000Z")
    assert (total["cost_usd"], total["cost_source"], "usage" in total) == ("0.5", "client", False)


def test_what_the_sums_hold_beyond_the_requests(run: Run, environment: dict[str, str]) -> None:
    """It is added to the requests, once, and taken back if the ledger has it later."""
    home = pathlib.Path(environment["HOME"])

    def tokens() -> tuple[int, ...]:
        names = (*COUNTS[:4], "turns", "remainder_tokens")
        rows = [objects(run(f"{source} | tok-rollup --by session").stdout) for source in ("tok-read goose", "tok-cat")]
        read, logged = (tuple(sum(row.get(name, 0) for row in several) for name in names) for several in rows)
        assert read == logged
        return logged

    with base(home, *NEW) as connection:
        insert(connection, "sessions", **session())
        insert(connection, "usage_ledger", **request())
    run("tok-sync")
    assert tokens() == (900, 0, 0, 90, 1, 0)
    with base(home) as connection:
        more = {"accumulated_cache_read_tokens": 300, "updated_at": "2026-03-04 11:00:00"}
        insert(connection, "sessions", **session(sent=1400, output=100, **more))
    run("tok-sync")
    assert tokens() == (1100, 300, 0, 100, 1, 510)
    with base(home) as connection:
        insert(connection, "sessions", **session(sent=1600, output=120, **more | {"updated_at": "2026-03-04 12:00:00"}))
        insert(connection, "usage_ledger", **request(200, 20))
    run("tok-sync")
    assert tokens() == (1300, 300, 0, 120, 2, 510)
    with base(home) as connection:
        insert(connection, "sessions", **session(sent=1600, output=120, **more | {"updated_at": "2026-03-04 13:00:00"}))
        insert(connection, "usage_ledger", **request(500, 10, cache_read_tokens=300))
    run("tok-sync")
    assert tokens() == (1300, 300, 0, 120, 3, 0)


@pytest.mark.parametrize(
    ("row", "counts", "why"),
    [
        (session(), (900, 90), "cached input is not separated from other input"),
        (session(accumulated_total_tokens=5000), (900, 90), "a part of the reported total is neither input nor output"),
        # Never summed: what stands there is the last request.
        (session(sent=None, output=None, input_tokens=30, output_tokens=3, total_tokens=33), (30, 3),
         "only the last request's counts are recorded"),
    ],
)  # fmt: skip
def test_what_an_older_total_does_not_tell(row: Json, counts: tuple[int, int], why: str, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "sessions", **row)
    [total], _ = read(tmp_path)
    assert (total["input_tokens"], total["output_tokens"]) == counts
    assert (total["usage"], total["usage_reason"]) == ("partial", why)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            session(sent=None, output=None, accumulated_total_tokens=9),
            "only a total is given, so input and output are unknown",
        ),
        (session(sent=-1), "accumulated_input_tokens is a negative number; expected a count"),
        (session(created_at="long ago"), "created_at is a string; expected a time"),
        (session("[redacted]"), "a session without a name"),
        (session(sent=0, output=0), ""),
        (session(provider_name="claude-code"), ""),  # its transcript has the turns
    ],
)
def test_what_is_no_total(row: Json, why: str, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "sessions", **row)
        insert(connection, "sessions", **session("20260304_2"))
    found, rejected = read(tmp_path)
    assert [total["session_id"] for total in found] == ["20260304_2"]
    assert [line.partition(": ")[2] for line in rejected] == ([f"{why}; skipped"] if why else [])


@pytest.mark.parametrize(
    ("created", "ts"),
    [
        ("2026-03-04 10:00:00", "2026-03-04T10:00:00.000Z"),
        ("2026-03-04T11:00:00.5+01:00", "2026-03-04T10:00:00.500Z"),
        (1772618400, "2026-03-04T10:00:00.000Z"),
        (1772618400123, "2026-03-04T10:00:00.123Z"),
    ],
)
def test_when(created: Any, ts: str, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "sessions", **session(created_at=created))
    assert [total["ts"] for total in read(tmp_path)[0]] == [ts]


def test_only_what_changed_is_read_again(tmp_path: pathlib.Path) -> None:
    cursor = read_lines.Cursor()
    with base(tmp_path, *NEW) as connection:
        insert(connection, "sessions", **session("20260304_9", updated_at="2026-03-04 09:00:00"))
        insert(connection, "sessions", **session(updated_at="2026-03-04 10:00:00"))
        insert(connection, "usage_ledger", **request())
    assert len(read(tmp_path, cursor)[0]) == 2
    with base(tmp_path) as connection:
        insert(connection, "sessions", **session(sent=1000, output=100, updated_at="2026-03-04 11:00:00"))
        insert(connection, "usage_ledger", **request(100, 10))
    [turn], _ = read(tmp_path, read_lines.Cursor(state=json.loads(json.dumps(cursor.state))))
    assert turn["id"].endswith(":2")
    with base(tmp_path) as connection:  # a database that was put back is read from its beginning
        connection.execute("DELETE FROM usage_ledger WHERE id = 2")
        insert(connection, "sessions", **session(updated_at="2026-03-04 10:00:00"))
    assert len(read(tmp_path, read_lines.Cursor(state={"updated": "2026-03-04 11:00:00", "request": 2}))[0]) == 2


def test_another_database_is_refused(run: Run, tmp_path: pathlib.Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        connection.execute("CREATE TABLE sessions (id TEXT)")
        connection.commit()
    done = run("tok-read goose --root sessions.db", status=1)
    assert done.stderr == (
        b"tok-read: sessions.db: not a goose database: it has no table of sessions with token counts; skipped\n"
    )


@pytest.mark.parametrize("below", ["", "data/sessions"])
def test_the_place_can_be_named(below: str, run: Run, tmp_path: pathlib.Path) -> None:
    with base(tmp_path / "x") as connection:
        insert(connection, "sessions", **session())
    (tmp_path / "away/data").mkdir(parents=True)
    (tmp_path / "x/.local/share/goose/sessions").rename(tmp_path / "away/data/sessions")
    assert objects(run("tok-read goose", env={"GOOSE_PATH_ROOT": str(tmp_path / "away" / below)}).stdout)


def test_turns_and_totals_add_up_once(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    for _ in steps(home):
        run("tok-sync")
    for source in ("tok-read goose", "tok-cat"):
        rows = objects(run(f"{source} | tok-rollup --by session").stdout)
        assert {row["session_id"]: row["output_tokens"] for row in rows} == {"20260304_1": 100, "20260305_1": 57}


def test_a_time_in_the_future_hides_no_later_change(tmp_path: pathlib.Path) -> None:
    cursor = read_lines.Cursor()
    for number, at in enumerate(("2061-05-01 12:00:00", "9999-12-31 23:59:59", "never")):
        with base(tmp_path) as connection:
            insert(connection, "sessions", **session(f"s{number}", updated_at=at))
            connection.execute("DELETE FROM sessions WHERE id = 'grown'")
            insert(connection, "sessions", **session("grown", 900 + number, updated_at=f"2026-05-02 08:00:0{number}"))
        os.utime(tmp_path / ".local/share/goose/sessions/sessions.db", (1777708800 + number,) * 2)
        found = {event["session_id"]: event["input_tokens"] for event in read(tmp_path, cursor)[0]}
        assert found["grown"] == 900 + number
