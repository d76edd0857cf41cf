"""Writers killed at any moment. `make test` kills a few, `make soak` two hundred of each (TOKENOPS_ROUNDS)."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from conftest import MOST, ROOT, Json, claude, lines, objects, put
from tokenops import store

ROUNDS = int(os.environ.get("TOKENOPS_ROUNDS", "6"))
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
    assert [event["kind"] for event in expected].count("turn") == 2 * 40 * ROUNDS
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
    held = [event["id"] for event in output(["tok-cat", "--kind", "turn"], environment)]
    assert sorted(held) == sorted([*(f"fast-{n}" for n in range(2000)), *(f"msg_s1_{n}" for n in range(60 * ROUNDS))])
    assert output(["tok-log", "verify"], environment) == []
    total = output(["tok-cost", "--log", "--by", "none", "--since", "2026-01-01"], environment)
    assert total[0]["turns"] == len(held)


# A call that fails (a full disk), or a kill, at each call that changes a file.

BIG = "x" * 40  # makes lines that are cut in the middle
DAYS = ("2026-11-01", "2026-11-02", "2026-11-03")


def turns_of(prefix: str) -> list[Json]:
    return [
        turn(f"{prefix}-{day}-{n}", n) | {"ts": f"{day}T{n:02d}:00:00.000Z", "session_id": BIG}
        for day in DAYS
        for n in range(4)
    ]


class Scene:
    """A log in the state before a command, and what is right after it."""

    def __init__(self, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
        self.environment, self.tmp_path = environment, tmp_path
        self.log = pathlib.Path(environment["TOKENOPS_HOME"])

    def run(
        self, command: list[str], given: bytes = b"", fault: tuple[int, str] = (0, "fail")
    ) -> subprocess.CompletedProcess[bytes]:
        faulty = [sys.executable, str(ROOT / "tests/faults.py"), str(fault[0]), fault[1], *command]
        return subprocess.run(faulty, env=self.environment, input=given, capture_output=True, check=False, timeout=MOST)

    def ids(self) -> list[str]:
        return sorted(event["id"] for event in output(["tok-cat"], self.environment, (0, 1)))

    def put_log(self, records: list[Json]) -> None:
        assert self.run(["tok-log", "append"], lines(records)).returncode == 0


def append_scene(scene: Scene) -> tuple[list[str], bytes]:
    scene.put_log(turns_of("old"))
    return ["tok-log", "append"], lines(turns_of("new"))


def import_scene(scene: Scene) -> tuple[list[str], bytes]:
    other = scene.tmp_path / "other"
    made = Scene(scene.environment | {"TOKENOPS_HOME": str(other)}, scene.tmp_path)
    made.put_log(turns_of("new"))
    put(other / "projects.json", {"abcdef012345": "/home/ada/app"})
    scene.put_log(turns_of("old"))
    return ["tok-log", "import", str(other)], b""


def sync_scene(scene: Scene) -> tuple[list[str], bytes]:
    records = [claude(f"msg_{day}_{n}", ts=f"{day}T0{n}:00:00.000Z") for day in DAYS for n in range(4)]
    put(pathlib.Path(scene.environment["HOME"]) / FOLDER / "s1.jsonl", *records)
    scene.put_log(turns_of("old"))
    return ["tok-sync"], b""


def compact_scene(scene: Scene) -> tuple[list[str], bytes]:
    scene.put_log(turns_of("old") + turns_of("old") + turns_of("new"))
    with (scene.log / f"events/{DAYS[1]}.jsonl").open("ab") as file:
        file.write(b'{"damaged":\n' + lines([turn("later", 3) | {"v": 2, "ts": f"{DAYS[1]}T03:00:00.000Z"}]))
    with (scene.log / f"events/{DAYS[0]}.jsonl").open("ab") as file:
        file.write(lines([turn("stranger", 3) | {"ts": f"{DAYS[2]}T03:00:00.000Z"}]))
    return ["tok-log", "compact", "--gzip"], b""


def prune_scene(scene: Scene) -> tuple[list[str], bytes]:
    scene.put_log(turns_of("old"))
    return ["tok-log", "prune", "--before", DAYS[2]], b""


def forget_scene(scene: Scene) -> tuple[list[str], bytes]:
    put(scene.log / "projects.json", {"abcdef012345": "/home/ada/app", "abcdef012346": "/home/ada/own"})
    mine = {"project": "app", "project_id": "abcdef012345", "client": "x"}
    own = {"project": "own", "project_id": "abcdef012346", "client": "x"}
    scene.put_log([event | own for event in turns_of("old")] + [event | mine for event in turns_of("gone")])
    assert scene.run(["tok-log", "compact", "--gzip"]).returncode == 0
    scene.put_log([event | mine for event in turns_of("late")])
    put(scene.log / f"rejected/{DAYS[0]}.txt", b'{"damaged":\n', b'{"project_id":"abcdef012345"\n')
    return ["tok-log", "forget", "--project", "app", "--yes"], b""


def ship_scene(scene: Scene) -> tuple[list[str], bytes]:
    scene.put_log(turns_of("old"))
    return ["tok-ship", str(scene.tmp_path / "shipped")], b""


SCENES = (append_scene, import_scene, sync_scene, compact_scene, prune_scene, forget_scene, ship_scene)


BOTH = [(scene, kind) for scene in SCENES for kind in ("fail", "kill")]


def content(path: pathlib.Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def whole(scene: Scene) -> dict[str, object]:
    """What must be the same in the end, whatever happened on the way. A torn line is moved to rejected/ as well."""
    files = [path for path in sorted(scene.tmp_path.glob("*/**/*.jsonl*")) if path.suffix in (".gz", ".jsonl")]
    rows = [row for path in files if "shipped" in path.parts for row in objects(content(path))]
    rejected = b"".join(path.read_bytes() for path in scene.log.glob("rejected/*.txt"))
    problems = output(["tok-log", "verify"], scene.environment, (0, 1))
    return {
        "ids": scene.ids(),
        "problems": sorted(one["problem"] for one in problems if "incomplete file" not in one["problem"]),
        "rejected": rejected.count(b'{"damaged":'),
        "shipped": sorted(str(row.get("id")) for row in rows),
        "paths": sorted(store.project_paths(str(scene.log)).values()),
        "newer": sum(content(path).count(b'"later"') for path in files if "events" in path.parts),
    }


def may_go(prepare: Callable[[Scene], tuple[list[str], bytes]], name: str) -> bool:
    """Whether a scene's command deletes a record."""
    if prepare is forget_scene:
        return name.startswith(("gone-", "late-"))
    return prepare is prune_scene and DAYS[2] not in name


# In `make test` each scene with one of them.
@pytest.mark.parametrize(("prepare", "kind"), BOTH if "TOKENOPS_ROUNDS" in os.environ else [*BOTH[::4], *BOTH[3::4]])
def test_no_call_that_fails_loses_or_doubles_anything(
    prepare: Callable[[Scene], tuple[list[str], bytes]], kind: str, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    environment["TOKENOPS_NOW"] = "2026-11-20T12:00:00Z"
    first = Scene(environment | {"TOKENOPS_HOME": str(tmp_path / "0/log"), "HOME": str(tmp_path / "0/home")}, tmp_path / "0")
    command, given = prepare(first)
    before = first.ids()
    done = first.run(command, given)
    assert done.returncode == 0, done.stderr
    expected, calls = whole(first), int(done.stderr.split()[-1])
    assert calls >= 2
    for number in range(1, calls + 1, max(1, 2 * calls // ROUNDS)):
        at = tmp_path / f"{number}"
        scene = Scene(environment | {"TOKENOPS_HOME": str(at / "log"), "HOME": str(at / "home")}, at)
        command, given = prepare(scene)
        done = scene.run(command, given, (number, kind))
        assert b"Traceback" not in done.stderr, (number, done.stderr)
        kept = set(scene.ids())
        acknowledged = {line.decode() for line in done.stdout.splitlines() if line.startswith(b"new-")}
        assert acknowledged <= kept, number
        assert set(before) - kept <= {name for name in before if may_go(prepare, name)}, number
        again = scene.run(command, given)
        assert again.returncode == 0, (number, again.stderr)
        found = whole(scene)
        assert found == expected, number
        shutil.rmtree(at)
