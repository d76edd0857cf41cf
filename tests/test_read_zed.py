"""Zed: a database of threads, each a packed document with the sum of its requests."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, objects
from tokenops import events, read_lines, read_packed, read_zed
from tokenops.read_contract import Intake

OLD = """CREATE TABLE threads (id TEXT PRIMARY KEY, summary TEXT NOT NULL, updated_at TEXT NOT NULL, data_type TEXT NOT NULL,
    data BLOB NOT NULL)"""
NEW = [
    f"ALTER TABLE threads ADD COLUMN {name} TEXT"
    for name in ("parent_id", "folder_paths", "folder_paths_order", "created_at")
]
needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="the program zstd is not here")


@contextlib.contextmanager
def base(home: pathlib.Path, old: bool = False) -> Iterator[sqlite3.Connection]:
    """Zed's database in a home, made if it is not there."""
    path = home / ".local/share/zed/threads/threads.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'threads'").fetchone():
            for statement in [OLD, *([] if old else NEW)]:
                connection.execute(statement)
        yield connection
        connection.commit()


def usage(sent: int = 400, got: int = 60, read: int = 30, wrote: int = 5) -> Json:
    """As Zed writes it: without the counts that are 0."""
    named = {
        "input_tokens": sent,
        "output_tokens": got,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": wrote,
    }
    return {name: count for name, count in named.items() if count}


def document(cumulative: Json | None = None, requests: Any = None, **more: Any) -> Json:
    made: Json = {"version": "0.3.0", "title": "secret", "messages": [{"User": {"id": "u1", "content": "secret words"}}]}
    made |= {"cumulative_token_usage": usage() if cumulative is None else cumulative}
    made |= {"request_token_usage": {"u1": usage(90, 9, 0, 0)} if requests is None else requests}
    return made | {"model": {"provider": "zed.dev", "model": "claude-sonnet-4-5"}, "imported": False} | more


def packed(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True).stdout


def insert(connection: sqlite3.Connection, name: str, said: Json | bytes, kind: str = "json", **more: Any) -> None:
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    row: Json = {"id": name, "summary": "secret", "updated_at": "2026-05-01T12:30:00.123456+00:00", "data_type": kind}
    row |= {"data": packed(content) if kind == "zstd" else content, **more}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT OR REPLACE INTO threads ({names}) VALUES ({marks})", tuple(row.values()))


AT = {
    "created_at": "2026-05-01T12:00:00Z",
    "folder_paths": "/home/ada/orchard\n/home/ada/tools",
    "folder_paths_order": "0,1",
}


def steps(home: pathlib.Path) -> Iterator[None]:
    """A thread that grows and changes its model, a subagent, and a thread of an older version."""
    kind = "zstd" if shutil.which("zstd") else "json"
    with base(home) as connection:
        insert(connection, "t1", document(), kind, **AT)
    yield
    with base(home) as connection:
        grown = document(usage(900, 100, 60, 5), model={"provider": "openai", "model": "gpt-5.4"})
        insert(connection, "t1", grown, kind, **AT, updated_at="2026-05-02T08:00:00+00:00")
        child = document(usage(50, 7, 0, 0), subagent_context={"parent_thread_id": "t1", "depth": 1})
        insert(connection, "t2", child, kind, **AT, parent_id="t1", updated_at="2026-05-02T08:00:00.5+00:00")
    yield
    with base(home) as connection:
        insert(connection, "t3", document({}, [usage(90, 9, 0, 0), usage(50, 7, 0, 0)]), updated_at="2026-05-03T08:00:00Z")
        insert(connection, "t4", document({}, {}, imported=True), kind, **AT)
    yield


def read(home: pathlib.Path, cursor: read_lines.Cursor | None = None) -> tuple[list[events.Event], list[str]]:
    rejected: list[str] = []
    path = str(home / ".local/share/zed/threads/threads.db")
    found = read_zed.read(path, cursor or read_lines.Cursor(), Intake(on_bad_line=lambda place, why: rejected.append(why)))
    return list(found), rejected


@needs_zstd
def test_a_thread_is_one_total_that_grows(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    for _ in steps(home):
        run("tok-sync")
    found = {event["session_id"]: event for event in objects(run("tok-read zed").stdout)}
    assert set(found) == {"t1", "t2", "t3"}
    total = found["t1"]
    assert (total["kind"], total["covers"], total["id"]) == ("usage", "session", "usage:zed:t1")
    assert (total["ts"], total["observed_at"]) == ("2026-05-01T12:00:00.000Z", "2026-05-02T08:00:00.000Z")
    assert (total["model"], total["provider"], total["project"]) == ("gpt-5.4", "openai", "orchard")
    counts = [total[f"{name}_tokens"] for name in ("input", "cache_read", "cache_write", "output")]
    assert counts == [900, 60, 5, 100]
    assert found["t2"]["sidechain"] and "sidechain" not in total
    rows = objects(run("tok-cat | tok-rollup --by session").stdout)
    assert sorted(row["output_tokens"] for row in rows) == [7, 16, 100]
    assert b"secret" not in run("tok-cat").stdout


def test_without_a_sum_the_last_request_of_each_prompt_is_a_part(tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "t1", document({}, {"u1": usage(90, 9, 0, 0), "u2": usage(50, 7, 0, 0), "u3": None}))
    [total], _ = read(tmp_path)
    assert (total["input_tokens"], total["output_tokens"], total["usage"]) == (140, 16, "partial")


def test_a_database_of_an_older_version(tmp_path: pathlib.Path) -> None:
    with base(tmp_path, old=True) as connection:
        insert(connection, "t1", document())
    [total], _ = read(tmp_path)
    assert total["ts"] == "2026-05-01T12:30:00.123Z" and total["caveat"].startswith("the thread's start is not recorded")


@pytest.mark.parametrize(
    ("paths", "order", "folder"),
    [
        ("/a\n/b", "0,1", "/a"),
        ("/a\n/b", "1,0", "/b"),
        ("/a\n/b", "", "/a"),
        ("/a", None, "/a"),
        ("/a", "5, 0", "/a"),
        ("", "0", ""),
        (None, None, ""),
        (b"/a", 7, ""),
    ],
)
def test_the_first_folder_of_a_workspace(paths: Any, order: Any, folder: str) -> None:
    assert read_zed.folder_of(paths, order) == folder


@pytest.mark.parametrize(
    ("model", "name", "provider", "inferred"),
    [
        ({"provider": "zed.dev", "model": "claude-sonnet-4-5"}, "claude-sonnet-4-5", "anthropic", True),
        ({"provider": "x_ai", "model": "grok-4.6"}, "grok-4.6", "xai", None),
        ({"provider": "copilot_chat", "model": "gpt-5.4"}, "gpt-5.4", "github", None),
        ({"provider": "google", "model": "gemini-3-pro"}, "gemini-3-pro", "gemini", None),
        (None, "unknown", None, None),
        ({"provider": 7, "model": []}, "unknown", None, None),
    ],
)
def test_models(model: Any, name: str, provider: str | None, inferred: bool | None, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "t1", document(model=model))
    [total], _ = read(tmp_path)
    assert (total["model"], total.get("provider"), total.get("provider_inferred")) == (name, provider, inferred)


@needs_zstd
@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (b"no archive", "zstd", "cannot be unpacked (damaged, or not a zstd file); skipped"),
        (
            json.dumps(document({"input_tokens": "secret"})).encode(),
            "json",
            "input_tokens is a string; expected a count; skipped",
        ),
        (b"[1]", "json", "not JSON (line 1 column 1); skipped"),
        (b"{}", "brotli", "its data are of an unknown kind; skipped"),
        (7, "json", "its data are of an unknown kind; skipped"),
    ],
)
def test_a_broken_thread_leaves_the_others(data: Any, kind: str, why: str, tmp_path: pathlib.Path) -> None:
    with base(tmp_path) as connection:
        insert(connection, "bad", b"", data=data, data_type=kind)
        insert(connection, "good", document(), "zstd")
    found, rejected = read(tmp_path)
    assert [event["session_id"] for event in found] == ["good"]
    assert len(rejected) == 1 and (rejected[0] == why or why.startswith("not JSON"))


@needs_zstd
def test_a_thread_that_unpacks_to_too_much_is_rejected(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_zed, "_MOST", 4 << 20)
    with base(tmp_path) as connection:
        insert(connection, "large", json.dumps(document(title="\n" * 9_000_000)).encode(), "zstd")
    found, rejected = read(tmp_path)
    assert not found and rejected == ["unpacks to more than 4 MiB; skipped"]


@needs_zstd
def test_without_zstd_compressed_threads_wait(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with base(tmp_path) as connection:
        insert(connection, "t1", document(), "zstd")
        insert(connection, "t2", document())
    path, cursor = str(tmp_path / ".local/share/zed/threads/threads.db"), read_lines.Cursor()
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        if read_packed.can_unpack():
            pytest.skip("this Python unpacks zstd itself")
        assert [event["session_id"] for event in read_zed.read(path, cursor, Intake())] == ["t2"]
        assert [hint.partition(": ")[2][:55] for hint in read_zed.hints(str(tmp_path / ".local/share/zed/threads"))] == [
            "compressed threads are not read; install zstd (the prog"
        ]
    assert [event["session_id"] for event in read_zed.read(path, cursor, Intake())] == ["t1", "t2"]
    assert not list(read_zed.hints(str(tmp_path / ".local/share/zed/threads")))
    assert cursor.state["updated"] == "2026-05-01 12:30:00"


def test_a_time_in_the_future_hides_no_later_change(tmp_path: pathlib.Path) -> None:
    cursor = read_lines.Cursor()
    for number, at in enumerate(("2061-05-01T12:00:00Z", "9999-12-31T23:59:59Z", "never")):
        with base(tmp_path) as connection:
            insert(connection, f"t{number}", document(), **AT, updated_at=at)
            grown = document(usage(900 + number, 9, 0, 0))
            insert(connection, "grown", grown, **AT, updated_at=f"2026-05-02T08:00:0{number}Z")
        os.utime(tmp_path / ".local/share/zed/threads/threads.db", (1777708800 + number,) * 2)
        found = {event["session_id"]: event["input_tokens"] for event in read(tmp_path, cursor)[0]}
        assert found["grown"] == 900 + number
