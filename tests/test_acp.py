"""tok-read acp between an editor and a made agent: bytes, status, signals and ends as without it, and the counts in the log."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import MOST, ROOT, Json, Run, eventually, objects, put
from tokenops import datadir

AGENT = ROOT / "tests/fake_acp.py"
COUNTS = {"input_tokens": 50, "cache_read_tokens": 40, "cache_write_tokens": 10, "output_tokens": 11}

Open = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def tap(environment: dict[str, str], tmp_path: pathlib.Path) -> Iterator[Open]:
    """Starts tok-read acp with an agent; all that it started ends with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.Popen[bytes]:
        command = [str(ROOT / "bin/tok-read"), "acp", *options, "--", sys.executable, str(AGENT), *words]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True, **streams)
        running.append(process)
        return process

    yield start
    for process in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def line(identity: int, method: str, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "method": method, "params": params}).encode() + b"\n"


def opening(folder: pathlib.Path) -> bytes:
    return line(0, "initialize", protocolVersion=1) + line(1, "session/new", cwd=str(folder), mcpServers=[])


def prompt(identity: int, text: str = "a secret") -> bytes:
    return line(identity, "session/prompt", sessionId="made-1", prompt=[{"type": "text", "text": text}])


def answer(process: subprocess.Popen[bytes], identity: int) -> Json:
    """The answer to a request; what comes before it is read."""
    assert process.stdout is not None
    for each in iter(process.stdout.readline, b""):
        message: Json = json.loads(each)
        if message.get("id") == identity:
            return message
    raise AssertionError(f"the agent ended before it answered {identity}")


def send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def totals(run: Run) -> list[Json]:
    return [event for event in objects(run("tok-cat").stdout) if event.get("source") == "acp"]


def test_what_prompts_used_is_in_the_log_and_no_text_is(
    tap: Open, run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    environment["TOKENOPS_MACHINE"] = "laptop"
    process = tap("plain")
    printed, wrong = process.communicate(opening(tmp_path) + prompt(2) + prompt(3), timeout=MOST)
    assert process.returncode == 0 and wrong == b"made agent at work\n"
    assert [message.get("id") for message in objects(printed)] == [0, 1, None, 2, None, 3]
    rows = totals(run)
    assert [row["kind"] for row in rows] == ["usage", "usage"] and len({row["id"] for row in rows}) == 2
    for row in rows:
        assert {name: row[name] for name in COUNTS} == COUNTS and row["covers"] == "session"
        assert (row["client"], row["model"], row["session_id"]) == ("made-agent", "m-1", "made-1")
        assert (row["project"], row["machine"]) == (tmp_path.name, "laptop") and "cost_usd" not in row
    everything = b"".join(path.read_bytes() for path in (tmp_path / "log").rglob("*") if path.is_file())
    assert b"made-agent" in everything and b"secret" not in everything


def test_bytes_pass_at_once_before_their_line_ends(tap: Open) -> None:
    process = tap("echo")
    assert process.stdout is not None
    for part in (b'{"half', b' of a line", \xff\x00', b"\n", b"\n"):
        send(process, part)
        got = b""
        while len(got) < len(part):
            got += os.read(process.stdout.fileno(), len(part) - len(got))
        assert got == part
    assert process.stdin is not None
    process.stdin.close()
    assert process.stdout.read() == b"" and process.wait(MOST) == 0


def test_any_bytes_pass_unchanged_and_in_order(tap: Open) -> None:
    chance = random.Random(7)
    data = b"".join(
        chance.choice((b'{"id":', b'"', b"\\", b"\n", b"\r\n", b"\0", chance.randbytes(chance.randint(0, 3000))))
        for _ in range(3000)
    )
    process = tap("echo")
    printed, wrong = process.communicate(data, timeout=MOST)
    assert printed == data and not wrong and process.returncode == 0


def test_a_long_line_passes_without_being_held(tap: Open, run: Run, tmp_path: pathlib.Path) -> None:
    """Both ways: a prompt of 100 MB, and an answer of as many. The process keeps within a few MB beyond what it needs idle."""
    size = 100 << 20
    process = tap("floods")
    send(process, opening(tmp_path))
    answer(process, 1)
    idle = memory(process.pid)
    head, _, tail = prompt(2, str(size)).rpartition(b'"}]')
    data = b'"}], "ignored": "'.join((head, b"y" * size))
    writer = threading.Thread(target=send, args=(process, data + b'"' + tail.partition(b"}]")[2] + b"}}\n"), daemon=True)
    writer.start()
    assert answer(process, 2)["result"]["stopReason"] == "end_turn"
    writer.join(MOST)
    assert memory(process.pid) - idle < 24 << 20
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(MOST) == 0 and len(totals(run)) == 1


def memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) << 10


def test_who_does_not_read_stops_who_writes(tap: Open, tmp_path: pathlib.Path) -> None:
    process = tap("echo")
    assert process.stdin is not None and process.stdout is not None
    os.set_blocking(process.stdin.fileno(), False)
    passed, quiet = 0, 0
    while quiet < 20:  # nobody reads: the pipes fill, and then nothing more is taken
        try:
            passed += os.write(process.stdin.fileno(), b"x" * 65536)
            quiet = 0
        except BlockingIOError:
            quiet += not select.select([], [process.stdin], [], 0.1)[1]
        assert passed < 4 << 20
    os.set_blocking(process.stdin.fileno(), True)
    process.stdin.close()
    assert len(process.stdout.read()) == passed and process.wait(MOST) == 0


def test_status_of_the_agent_is_passed_on(tap: Open) -> None:
    process = tap("status")
    process.communicate(b"", timeout=MOST)
    assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_agent_and_its_end_is_ours(tap: Open, number: int, tmp_path: pathlib.Path) -> None:
    process = tap("waits")
    send(process, opening(tmp_path))
    answer(process, 1)
    process.send_signal(number)
    _, wrong = process.communicate(timeout=MOST)
    assert process.returncode == -number and f"signal {int(number)}\n".encode() in wrong


def test_an_agent_that_dies_in_a_prompt_leaves_an_unknown_one(tap: Open, run: Run, tmp_path: pathlib.Path) -> None:
    process = tap("dies")
    send(process, opening(tmp_path) + prompt(2))
    answer(process, 2)
    send(process, prompt(3))
    process.communicate(timeout=MOST)
    assert process.returncode == -signal.SIGKILL
    assert [row.get("usage") for row in totals(run)] == [None, "unknown"]


def test_each_side_learns_that_the_other_is_gone(tap: Open, tmp_path: pathlib.Path) -> None:
    process = tap("deaf")
    assert process.stdin is not None and process.stdout is not None
    send(process, opening(tmp_path) + prompt(2))
    answer(process, 2)

    def is_refused() -> bool:
        try:
            send(process, b"x" * 65536)
        except BrokenPipeError:
            return True
        return False

    eventually(is_refused)  # the agent does not read any more
    process.stdout.close()  # and now nobody reads what it writes: it ends by that, with a traceback
    assert process.wait(MOST) != 0


def test_what_an_agent_leaves_behind_is_not_waited_for(tap: Open, tmp_path: pathlib.Path) -> None:
    process = tap("leaves")
    printed = []
    assert process.stdin is not None and process.stdout is not None
    send(process, opening(tmp_path))
    process.stdin.close()
    while b"the last" not in b"".join(printed):
        printed.append(process.stdout.readline())
    assert process.wait(MOST) == 0


def test_records_go_to_a_file_where_one_is_named(tap: Open, run: Run, tmp_path: pathlib.Path) -> None:
    process = tap("plain", options=("--events", "events.jsonl"))
    process.communicate(opening(tmp_path) + prompt(2), timeout=MOST)
    [row] = objects((tmp_path / "events.jsonl").read_bytes())
    assert {name: row[name] for name in COUNTS} == COUNTS and not totals(run)
    assert objects(run("tok-cost --json events.jsonl").stdout)[0]["output_tokens"] == 11


@pytest.mark.parametrize("options", [(), ("--events", "none/at/all.jsonl")])
def test_an_agent_goes_on_where_nothing_can_be_written(tap: Open, options: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    put(tmp_path / "log", b"a file where the log's folder would be")
    process = tap("plain", options=options)
    printed, wrong = process.communicate(opening(tmp_path) + prompt(2) + prompt(3), timeout=MOST)
    assert process.returncode == 0 and len(objects(printed)) == 6
    assert b"what 2 prompts used could not be written and is lost" in wrong and b"Traceback" not in wrong


def test_a_log_that_is_locked_is_written_by_the_next_sync(tap: Open, run: Run, tmp_path: pathlib.Path) -> None:
    with datadir.lock(datadir.ensure_folder(str(tmp_path / "log"))):
        process = tap("plain")
        _, wrong = process.communicate(opening(tmp_path) + prompt(2), timeout=MOST)
        assert process.returncode == 0 and not totals(run)
    assert b"for the next tok-sync" in wrong
    run("tok-sync", status=None)
    assert len(totals(run)) == 1 and not list((tmp_path / "log/waiting").iterdir())


def test_a_session_that_has_turns_counts_by_them(tap: Open, run: Run, tmp_path: pathlib.Path) -> None:
    """The rule of two sources: a total counts only if no source has the session's turns."""
    tap("plain").communicate(opening(tmp_path) + prompt(2), timeout=MOST)
    [row] = objects(run("tok-cost --log --json --by session").stdout)
    assert row["output_tokens"] == 11
    turn = {"v": 1, "ts": "2026-11-21T09:00:00.000Z", "kind": "turn", "id": "made:1", "source": "proxy", "client": "made-agent",
            "session_id": "made-1", "model": "m-1", "turns": 1, "output_tokens": 12}  # fmt: skip
    run("tok-log append", json.dumps(turn).encode() + b"\n")
    rows = objects(run("tok-cost --log --json --by session --since all").stdout)
    assert [row["output_tokens"] for row in rows] == [12]


@pytest.mark.parametrize(
    "words",
    [
        "acp",
        "acp --",
        "acp --events",
        "acp --no-such -- true",
        "acp claude -- true",
        "acp --follow -- true",
        "claude --events x",
        "--events x",
    ],
)
def test_a_wrong_call_is_refused_in_a_sentence(run: Run, words: str) -> None:
    done = run(f"tok-read {words}", status=2)
    assert done.stderr.startswith(b"tok-read: ") and done.stderr.count(b"\n") == 1 and not done.stdout


def test_a_program_that_is_not_there_is_named(run: Run) -> None:
    done = run("tok-read acp -- no-such-agent", status=2)
    assert done.stderr == b"tok-read: no-such-agent: no such program on the PATH; check its name\n"


def test_few_descriptors_are_enough(tap: Open, tmp_path: pathlib.Path) -> None:
    """Nothing is opened per message."""
    limit = (40, 40)
    process = tap("plain", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit))
    talk = opening(tmp_path) + b"".join(prompt(number) for number in range(2, 202))
    printed, wrong = process.communicate(talk, timeout=MOST)
    assert process.returncode == 0 and len(objects(printed)) == 402 and wrong == b"made agent at work\n"
