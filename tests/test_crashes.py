"""Writers killed at any moment. `make test` kills a few, `make soak` two hundred of each (TOKENOPS_ROUNDS)."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest

from conftest import MOST, ROOT, Json, claude, lines, objects

pytestmark = pytest.mark.once

ROUNDS = int(os.environ.get("TOKENOPS_ROUNDS", "12"))
FOLDER = ".claude/projects/-home-ada-app"


def turn(name: str, hour: int) -> Json:
    base: Json = {
        "v": 1,
        "ts": f"2026-11-01T{hour:02d}:00:00.000Z",
        "kind": "turn",
        "id": name,
        "source": "test",
        "turns": 1,
    }
    return base | {"provider": "anthropic", "model": "claude-opus-4-6", "output_tokens": 7}


def start(command: list[str], env: dict[str, str], **streams: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([str(ROOT / "bin" / command[0]), *command[1:]], env=env, **streams)  # type: ignore[call-overload,no-any-return]


def output(command: list[str], env: dict[str, str], status: tuple[int, ...] = (0,)) -> list[Json]:
    done = subprocess.run([str(ROOT / "bin" / command[0]), *command[1:]], env=env, capture_output=True, check=False)
    assert done.returncode in status, done.stderr
    return objects(done.stdout)


def test_one_of_four_writers_is_killed(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """Every id that was printed is in the log, once."""
    rng = random.Random(4)
    acknowledged: list[str] = []
    for number in range(ROUNDS):
        writers = []
        for writer in range(4):
            # Many small batches, each acknowledged by itself.
            given = tmp_path / f"given-{writer}"
            given.write_bytes(lines(turn(f"{number}-{writer}-{n}", n % 24) for n in range(400)))
            feed = subprocess.Popen(
                ["sh", "-c", f'while read -r line; do echo "$line"; done < {given}'], stdout=subprocess.PIPE
            )
            acks = (tmp_path / f"acks-{writer}").open("wb")
            writers.append(
                (start(["tok-log", "append"], environment, stdin=feed.stdout.fileno(), stdout=acks.fileno()), feed)
            )  # type: ignore[union-attr]
        victim = rng.randrange(4)
        time.sleep(0.05 + rng.random() * 0.12)
        writers[victim][0].send_signal(signal.SIGKILL)
        for process, feed in writers:
            process.wait(MOST)
            assert feed.stdout
            feed.stdout.close()
            feed.wait(MOST)
        for writer in range(4):
            text = (tmp_path / f"acks-{writer}").read_text()
            whole = text[: text.rfind("\n") + 1].split()
            assert len(whole) == 400 or writer == victim
            acknowledged += whole
    held = [event["id"] for event in output(["tok-cat"], environment, (0, 1))]
    assert len(held) == len(set(held))
    assert set(acknowledged) <= set(held)
    output(["tok-log", "compact"], environment)
    assert output(["tok-log", "verify"], environment) == []
    assert sorted(event["id"] for event in output(["tok-cat"], environment)) == sorted(held)


def written(path: pathlib.Path, session: str, rounds: int) -> int:
    """A client that appends to its transcripts, in lines cut anywhere, for a while; its process id."""
    child = os.fork()
    if child:
        return child
    rng = random.Random(session)
    with path.open("ab", buffering=0) as file:
        for n in range(rounds):
            made = lines(
                [
                    claude(f"msg_{session}_{n}", output, sessionId=session, ts=f"2026-03-{1 + n % 28:02d}T09:00:00.000Z")
                    for output in (1, 9, 40)
                ]
            )
            while made:
                cut = rng.randrange(1, len(made) + 1)
                file.write(made[:cut])
                made = made[cut:]
            if n % 10 == 0:
                time.sleep(0.002)
    os._exit(0)


def test_sync_is_killed_while_a_client_writes(environment: dict[str, str]) -> None:
    rng = random.Random(5)
    folder = pathlib.Path(environment["HOME"]) / FOLDER
    folder.mkdir(parents=True)
    clients = [written(folder / f"{name}.jsonl", name, 40 * ROUNDS) for name in ("s1", "s2")]
    for _ in range(ROUNDS):
        process = start(["tok-sync"], environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.13)
        process.send_signal(signal.SIGKILL)
        process.wait(MOST)
    for client in clients:
        os.waitpid(client, 0)
    output(["tok-sync"], environment)
    clean = environment | {"TOKENOPS_HOME": environment["TOKENOPS_HOME"] + "-clean"}
    salt = pathlib.Path(clean["TOKENOPS_HOME"]) / "salt"
    salt.parent.mkdir(mode=0o700)
    salt.write_bytes((pathlib.Path(environment["TOKENOPS_HOME"]) / "salt").read_bytes())
    output(["tok-sync"], clean)
    expected = output(["tok-cat"], clean)
    assert len(expected) == 2 * 40 * ROUNDS
    found = output(["tok-cat"], environment, (0, 1))
    assert sorted(json.dumps(event) for event in found) == sorted(json.dumps(event) for event in expected)


def test_two_syncs_a_fast_writer_and_compaction_at_once(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    folder = pathlib.Path(environment["HOME"]) / FOLDER
    folder.mkdir(parents=True)
    client = written(folder / "s1.jsonl", "s1", 60 * ROUNDS)
    given = tmp_path / "given"
    given.write_bytes(lines(turn(f"fast-{n}", n % 24) for n in range(2000)))
    feed = subprocess.Popen(["sh", "-c", f'while read -r line; do echo "$line"; done < {given}'], stdout=subprocess.PIPE)
    assert feed.stdout
    writer = start(["tok-log", "append"], environment, stdin=feed.stdout.fileno(), stdout=subprocess.DEVNULL)
    quiet = {"stdout": subprocess.DEVNULL}
    for number in range(ROUNDS):
        running = [start(["tok-sync"], environment, **quiet), start(["tok-sync"], environment, **quiet)]
        running.append(start(["tok-log", "compact", *(["--gzip"] if number % 2 else [])], environment, **quiet))
        for process in running:
            assert process.wait(MOST) == 0
    os.waitpid(client, 0)
    assert writer.wait(MOST) == 0
    feed.stdout.close()
    feed.wait(MOST)
    output(["tok-sync"], environment)
    held = [event["id"] for event in output(["tok-cat"], environment)]
    assert sorted(held) == sorted([*(f"fast-{n}" for n in range(2000)), *(f"msg_s1_{n}" for n in range(60 * ROUNDS))])
    assert output(["tok-log", "verify"], environment) == []
    total = output(["tok-cost", "--log", "--by", "none", "--since", "2026-01-01"], environment)
    assert total[0]["turns"] == len(held)
