"""State files: whatever stands in them, no command ends in a traceback, no number changes, and links are never followed."""

from __future__ import annotations

import json
import pathlib
import random
import stat
import subprocess
import time

import pytest

from conftest import MOST, ROOT, ROUNDS, Json, Run, claude, lines, objects, put
from tokenops import datadir, store

NOW = {"TOKENOPS_NOW": "2026-11-20T12:00:00Z"}
CONFIG = b"budgets:\n  - {name: day, window: daily, limit_usd: 1}\n"
TRANSCRIPT = ".claude/projects/-home-ada-app/s1.jsonl"
LINES = [
    claude(f"msg_{day}_{n}", ts=f"2026-11-{day:02d}T0{n}:00:00.000Z", requestId=f"r{day}{n}", uuid=f"u{day}{n}")
    for day in (1, 2, 19, 20)
    for n in range(4)
]
STATUS = json.dumps({"session_id": "s1", "model": {"id": "claude-opus-4-6"}, "cost": {"total_cost_usd": 0.5}})
HOOK = json.dumps(
    {"hook_event_name": "PostToolUse", "session_id": "s1", "tool_name": "Read", "tool_input": {"file_path": "/x"}}
)
# Each writes a state, or reads one.
COMMANDS = (
    "tok-sync",
    "tok-cost --log --since 2026-10-01 --by none --json",
    "tok-budget --spend --notify true",
    "tok-budget",
    f"echo '{STATUS}' | tok-statusline",
    f"echo '{HOOK}' | tok-guard hook",
    "tok-guard stats",
    "tok-ship ./shipped",
    "tok-dash url",
    "tok-dash --html - --since 2026-11-01",
    "tok-poll status",
    "tok-status --json",
    "tok-init --undo --dry-run",
    "tok-log verify",
    "tok-cat",
)
DEEP = b"[" * 300 + b"]" * 300
CONTENTS = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"null",
    b"5",
    b'"x"',
    b"\xff\xfe\x00",
    bytes(64),
    b'{"v":1}',
    b'{"v":1,"sources":5}',
    b'{"v":1,"sources":{"claude-code-jsonl":5}}',
    b'{"v":1,"sources":{"claude-code-jsonl":{"x":[1,2,3,4,5,"a","b","[]"]}}}',
    b'{"v":1,"changes":[{"path":5}]}',
    b'{"a":5,"abcdef012345":["x"]}',
    b'{"at":1,"today":[],"keys":[[1]],"rows":[[0,"x",[],{}]]}',
    b'{"at":"x","reads":{"k":{"ranges":[5]}},"counts":{"x":[]},"spared":[[]],"said":"x"}',
    b'{"day":{"from":5,"rank":[]}}',
    b'{"mark":5,"days":{"2026-11-01":[]},"state":[]}',
    b'{"2026-11-01":{"[]":5}}',
    b'{"a":1' + b"0" * 400 + b"}",
    DEEP,
    b'{"a":' * 1010 + b"1" + b"}" * 1010,
]


def state_files(log: pathlib.Path, cache: pathlib.Path) -> list[pathlib.Path]:
    """All that we keep beside the events, the salt and the secrets."""
    kept = [path for path in log.rglob("*") if path.is_file() and "events" not in path.parts and path.name != "salt"]
    return [path for path in kept if "lock" not in path.name] + [path for path in cache.rglob("*") if path.is_file()]


@pytest.fixture
def log(environment: dict[str, str], tmp_path: pathlib.Path) -> pathlib.Path:
    home = pathlib.Path(environment["HOME"])
    put(home / TRANSCRIPT, *LINES)
    put(home / ".config/tokenops/config.yaml", CONFIG)
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    environment |= NOW
    return pathlib.Path(environment["TOKENOPS_HOME"])


def cost(run: Run) -> list[Json]:
    rows = objects(run("tok-cost --log --since 2026-10-01 --by none --json", status=None).stdout)
    return [{name: row[name] for name in ("turns", "output_tokens", "cost_usd")} for row in rows]


def run_all(run: Run) -> None:
    for command in COMMANDS:
        done = run(command, status=None)
        assert b"Traceback" not in done.stderr, (command, done.stderr[-1000:])


def test_any_content_is_survived(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run_all(run)
    expected = cost(run)
    assert expected[0]["turns"] == 16
    for content in CONTENTS if ROUNDS > 1 else CONTENTS[1::6]:  # each runs all commands; `make soak` tries every one
        files = state_files(log, tmp_path / "cache")
        assert {"cursors.json", "projects.json", "statusline.json", "budgets.json"} <= {path.name for path in files}
        for path in files:
            path.write_bytes(content)
        run_all(run)
        assert cost(run) == expected, content[:40]


def test_damaged_bytes_change_no_number(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """One byte of each state is another: cursors and sums that are wrong would look right."""
    rng = random.Random(7)
    run_all(run)
    expected = cost(run)
    for _ in range(2 * ROUNDS):
        for path in state_files(log, tmp_path / "cache"):
            data = bytearray(path.read_bytes())
            if data:
                data[rng.randrange(len(data))] = rng.choice(b'0123456789{}[]",:x\xff')
                path.write_bytes(data)
        run_all(run)
        assert cost(run) == expected


def test_nothing_is_written_through_a_link(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Whoever may write into the directory plants links at the names that a writer will use, its process id included."""
    victim = put(tmp_path / "victim", b"mine")
    script = f"""
        mkdir -p {log}
        for name in projects.json cursors.json statusline.json salt; do ln -s {victim} {log}/$name.$$; done
        exec tok-sync
    """
    done = run(script)
    assert done.stderr == b""
    assert victim.read_bytes() == b"mine"
    assert json.loads((log / "projects.json").read_bytes())
    (log / "events").rename(tmp_path / "moved")
    (log / "events").mkdir()
    (log / "events/2026-11-20.jsonl").symlink_to(victim)
    done = run("tok-sync --backfill", status=2)
    assert b"2026-11-20.jsonl" in done.stderr and b"remove it" in done.stderr
    assert victim.read_bytes() == b"mine"


def test_the_mask_of_the_user_is_respected(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """All that is ours is private under the laxest mask, and no mode is wider than the mask allows."""
    run("umask 000; " + "; ".join(f"({command}) > /dev/null 2>&1" for command in COMMANDS) + "; true")
    for path in [log, *log.rglob("*"), *(tmp_path / "cache").rglob("*")]:
        if "shipped" not in path.parts:
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_directory_that_others_may_write_to_is_said(run: Run, log: pathlib.Path) -> None:
    run("tok-sync")
    log.chmod(0o777)
    (status_record,) = objects(run("tok-status --json", status=None).stdout)
    assert any("0777" in problem["error"] for problem in status_record["log"]["problems"])


def test_a_lock_that_is_never_released_is_not_waited_for_for_ever(
    run: Run, log: pathlib.Path, environment: dict[str, str]
) -> None:
    ping = lines([{"v": 1, "ts": "2026-11-20T09:00:00.000Z", "kind": "ping", "id": "p"}])
    run("tok-sync")
    with datadir.lock(str(log)):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="another process has held this lock"):
            store.append(str(log), [ping], patience=0.05)
        assert time.monotonic() - began < MOST
        process = subprocess.Popen([ROOT / "bin/tok-log", "append"], env=environment, stdin=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(ping)
        process.stdin.flush()
        process.terminate()
        assert process.wait(MOST) == -15
    with datadir.lock(str(log), wait=False) as mine:
        assert mine
