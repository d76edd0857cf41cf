"""OpenClaw's sessions: files, archived files, and rows of an agent's database."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import pytest
from test_read_pi import START, header, message

from conftest import Json, Run, lines, objects, put

SCHEMA = """
CREATE TABLE IF NOT EXISTS auth_profile_store (store_key TEXT PRIMARY KEY, store_json TEXT);
CREATE TABLE IF NOT EXISTS session_windows (session_id TEXT NOT NULL PRIMARY KEY, session_key TEXT, updated_at INTEGER);
CREATE TABLE IF NOT EXISTS transcript_events (session_id TEXT NOT NULL, seq INTEGER NOT NULL, event_json TEXT NOT NULL,
 created_at INTEGER NOT NULL, PRIMARY KEY (session_id, seq)) STRICT;
"""
SNAPSHOT = {
    "type": "custom",
    "customType": "model-snapshot",
    "timestamp": "2026-05-17T10:59:30.000Z",
    "data": {"timestamp": START, "provider": "openai", "modelId": "gpt-5.5"},
}
MIRROR = message(
    START + 5000,
    provider="openclaw",
    model="delivery-mirror",
    u_input=0,
    u_output=0,
    u_cacheRead=0,
    u_cacheWrite=0,
    u_totalTokens=0,
)


def path(home: pathlib.Path, name: str = "u1.jsonl", root: str = ".openclaw") -> pathlib.Path:
    return home / root / "agents/main/sessions" / name


def keep(home: pathlib.Path, session: str, *entries: Json, at: int = START) -> pathlib.Path:
    """Add lines of a session to the database."""
    store = home / ".openclaw/agents/main/agent/openclaw-agent.sqlite"
    store.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.executescript(SCHEMA)
        (first,) = connection.execute("SELECT count(*) FROM transcript_events WHERE session_id = ?", (session,)).fetchone()
        connection.executemany(
            "INSERT INTO transcript_events VALUES (?, ?, ?, ?)",
            [(session, first + n, json.dumps(one, separators=(",", ":")), at + n) for n, one in enumerate(entries)],
        )
        connection.commit()
    return store


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session in a file that grows and is archived, and two in a database that grows."""
    put(path(home), header(), SNAPSHOT, message(), MIRROR)
    yield
    with path(home).open("ab") as file:
        file.write(lines([message(START + 9000, "e2")]))
    yield
    path(home).rename(path(home, "u1.jsonl.reset.2026-05-18T04-00-00.000Z"))
    put(path(home), header("u3"), message(START + 20000))
    yield
    keep(home, "u5", header("u5"), message(START + 30000), message(START + 31000))
    yield
    keep(home, "u6", header("u6"), message(START + 40000), at=START + 600000)
    keep(home, "u5", message(START + 50000), at=START + 700000)
    yield


def found(run: Run, status: int = 0) -> list[Json]:
    return objects(run("tok-read openclaw", status=status).stdout)


def test_a_session_is_read_wherever_it_stands(run: Run, environment: dict[str, str]) -> None:
    """In a file, in an archived copy, in the database that took it over: the same turns."""
    home = pathlib.Path(environment["HOME"])
    session = [header(), message(), message(START + 9000)]
    put(path(home), *session)
    wanted = found(run)
    assert [event["session_id"] for event in wanted] == ["u1", "u1"] and wanted[0]["project"] == "orchard"
    for name in ("u1.jsonl.reset.2026-05-18T04-00-00.000Z", "u1.jsonl.deleted.2026-05-19T04-00-00.000Z"):
        put(path(home, name), *session)
        assert found(run) == wanted
    put(path(home, "u1.checkpoint.01234567-89ab-4def-8123-456789abcdef.jsonl"), *session)
    keep(home, "u1", *session)
    assert found(run) == wanted
    shutil.rmtree(home / ".openclaw/agents/main/sessions")
    assert found(run) == wanted


@pytest.mark.skipif(not shutil.which("zstd"), reason="the program zstd is not here")
def test_compressed_archives(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    home = pathlib.Path(environment["HOME"])
    plain = put(path(home, "u1.jsonl.reset.2026-05-18T04-00-00.000Z"), header(), message(), message(START + 9000))
    wanted = found(run)
    subprocess.run(["zstd", "-q", "--rm", plain], check=True)
    assert found(run) == wanted and len(wanted) == 2
    run("tok-sync")
    assert len(objects(run("tok-cat --kind turn").stdout)) == 2
    done = run("tok-read openclaw", env={"PATH": only(tmp_path, environment["PATH"])})
    assert b"1 ended sessions are compressed and not read; install zstd" in done.stderr
    put(plain.with_name(f"{plain.name}.zst"), b"no archive")
    assert b"cannot be unpacked" in run("tok-read openclaw", status=1).stderr


def only(folder: pathlib.Path, path: str) -> str:
    """A search path on which there is no zstd."""
    made = folder / "programs"
    made.mkdir()
    for name in ("bash", "env"):
        if where := shutil.which(name, path=path):
            (made / name).symlink_to(where)
    (made / "python3").write_text(f'#!{made}/bash\nexec {sys.executable} "$@"\n')  # a link would lose its environment
    (made / "python3").chmod(0o755)
    return f"{path.split(':', maxsplit=1)[0]}:{made}"


@pytest.mark.parametrize(
    ("entries", "turns"),
    [
        # Copies of what was sent to a channel.
        ([message(), MIRROR], 1),
        # Answers of Codex, which keeps all of them itself.
        ([message(idempotencyKey="codex-app-server:t1:final")], 0),
        ([message(idempotencyKey="telegram:7")], 1),
        # Usage beside the message.
        ([{"type": "message", "timestamp": "2026-05-17T11:00:00.000Z", "usage": {"input": 5}, "message": {"role": "assistant"}}], 1),
        ([SNAPSHOT], 0),
    ],
)  # fmt: skip
def test_which_lines_are_turns(entries: list[Json], turns: int, run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(path(home), header(), *entries)
    assert len(objects(run("tok-read openclaw", status=None).stdout)) == turns


def test_the_model_of_the_time(run: Run, environment: dict[str, str]) -> None:
    summary = {"type": "compaction", "timestamp": "2026-05-17T11:00:00.000Z", "summary": "x", "usage": {"input": 9}}
    home = pathlib.Path(environment["HOME"])
    put(path(home), header(), SNAPSHOT, summary)
    [event] = found(run)
    assert (event["model"], event["provider"]) == ("gpt-5.5", "openai")


def test_new_rows_know_their_session(run: Run, environment: dict[str, str]) -> None:
    """Its header stands in a row that was read long ago."""
    home = pathlib.Path(environment["HOME"])
    keep(home, "u5", header("u5"), message())
    run("tok-sync")
    keep(home, "u5", message(START + 60000), at=START + 9_000_000)
    run("tok-sync")
    kept = objects(run("tok-cat --kind turn").stdout)
    assert [event["project"] for event in kept] == ["orchard", "orchard"]


def test_rows_of_a_database_that_was_vacuumed(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    keep(home, "u4", header("u4"), message(START - 60000))
    keep(home, "u5", header("u5"), message())
    run("tok-sync")
    with contextlib.closing(sqlite3.connect(keep(home, "u5"))) as connection:
        connection.execute("DELETE FROM transcript_events WHERE session_id = 'u4'")
        connection.commit()
        connection.execute("VACUUM")
    keep(home, "u6", header("u6"), message(START + 60000), at=START + 60000)
    run("tok-sync")
    assert {event["session_id"] for event in objects(run("tok-cat").stdout)} == {"u4", "u5", "u6"}


def test_other_databases(run: Run, tmp_path: pathlib.Path) -> None:
    """One of a version that kept its sessions in files is silent, another program's is not."""
    store = keep(tmp_path, "u5")
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("DROP TABLE transcript_events")
        assert not run(f"tok-read openclaw --root {tmp_path}").stderr
        connection.execute("DROP TABLE auth_profile_store")
    assert b"not a known database of OpenClaw" in run(f"tok-read openclaw --root {tmp_path}", status=1).stderr


def test_a_bad_row_is_told_and_the_others_count(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    store = keep(home, "u5", header("u5"), message(), message(START + 1000, u_output=-1))
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("""INSERT INTO transcript_events VALUES ('u5', 9, '{"usage":', 5)""")
        connection.commit()
    done = run("tok-read openclaw", status=1)
    assert len(objects(done.stdout)) == 1
    assert b"openclaw-agent.sqlite:u5[2]: output is a negative number; expected a count; skipped" in done.stderr
    assert b"openclaw-agent.sqlite:u5[9]: not JSON" in done.stderr


def test_other_files_among_the_sessions_are_not_read(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(path(home), header(), message())
    put(path(home, "u1.trajectory.jsonl"), message(START + 9000))
    put(path(home, "sessions.json"), {"agent:main:main": {"sessionId": "u1", "usage": {"input": 7}}})
    assert len(found(run)) == 1


@pytest.mark.parametrize("root", [".openclaw", ".clawdbot", ".moltbot", ".moldbot"])
def test_the_places(root: str, run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    put(path(pathlib.Path(environment["HOME"]), root=root), header(), message())
    assert found(run)
    put(path(tmp_path / "away", root=root), header(), message(START + 1000))
    for variable in ("OPENCLAW_STATE_DIR", "OPENCLAW_DIR", "CLAWDBOT_STATE_DIR"):
        assert objects(run("tok-read openclaw", env={variable: str(tmp_path / "away" / root)}).stdout)


def test_pi_and_openclaw_are_told_apart(run: Run, tmp_path: pathlib.Path) -> None:
    one = put(path(tmp_path), header(), message())
    two = put(tmp_path / "copy.jsonl", header(), SNAPSHOT, message())
    three = put(tmp_path / "pi.jsonl", header(), message())
    clients = [objects(run(f"tok-read --root {each}").stdout)[0]["client"] for each in (one, two, three)]
    assert clients == ["openclaw", "openclaw", "pi"]
