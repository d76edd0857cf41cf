"""Fleets of machines in random order: whatever is written, synced, killed, moved or read twice, the log is that of one machine.

`make test` plays twenty such stories, `make soak` two hundred (TOKENOPS_ROUNDS).
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from machines import SSHD, Fleet, Sshd, rows, unstamped

from conftest import ROOT, ROUNDS, Json, Run, claude, codex_count, codex_meta, codex_model, lines, objects, put

STORIES = 20 * min(ROUNDS, 10)
MINUTE = 60


def stamp(minute: int) -> str:
    return f"2026-05-{1 + minute // 1440:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:00.000Z"


class Session:
    """A session of Claude Code or Codex: its file, and the lines that its client will write, torn anywhere."""

    def __init__(self, draw: random.Random, name: str) -> None:
        self.name, self.begin = name, draw.randrange(0, 5 * 1440)
        self.path, made = self.codex(draw) if draw.random() < 0.4 else self.claude(draw)
        self.content = lines(made)
        self.written = 0
        self.machines: list[str] = []  # on which it was, the present one last

    def claude(self, draw: random.Random) -> tuple[str, list[Json]]:
        made: list[Json] = []
        before = None
        for n in range(draw.randrange(2, 9)):
            at = self.begin + 7 * n
            asked = {
                "type": "user",
                "uuid": f"{self.name}u{n}",
                "parentUuid": before,
                "sessionId": self.name,
                "isSidechain": False,
            }
            made.append(
                asked
                | {"cwd": "/home/ada/app", "timestamp": stamp(at), "message": {"role": "user", "content": "go on " * n}}
            )
            for time_ in range(times := draw.choice((1, 1, 2, 3))):
                said = {"uuid": f"{self.name}a{n}.{time_}", "parentUuid": f"{self.name}u{n}", "sessionId": self.name}
                whole = time_ == times - 1
                made.append(
                    claude(
                        f"msg_{self.name}_{n}", 40 + n if whole else 1 + time_, ts=stamp(at + 1), requestId=f"r{n}", **said
                    )
                )
                before = said["uuid"]
        return f".claude/projects/-home-ada-app/{self.name}.jsonl", made

    def codex(self, draw: random.Random) -> tuple[str, list[Json]]:
        thread = f"019aa0c4-2c00-7000-8000-{draw.randrange(1 << 47):012x}"
        made = [codex_meta(thread, at=stamp(self.begin)), codex_model("gpt-5.4")]
        total = [0, 0, 0, 0]
        for n in range(draw.randrange(1, 8)):
            last = (100 + n, n, 10 + n, n % 3)
            total = [a + b for a, b in zip(total, last, strict=True)]
            made.append(codex_count((total[0], total[1], total[2], total[3]), last, ts=stamp(self.begin + 5 * n)))
        return f".codex/sessions/2026/05/01/rollout-2026-05-01T10-00-00-{thread}.jsonl", made


class Story:
    """Some machines, what happens to them, and what one machine would have read."""

    def __init__(self, seed: int, run: Run, fleet: Fleet, tmp_path: pathlib.Path, sshd: Sshd | None) -> None:
        self.draw, self.run, self.shared, self.sshd = random.Random(seed), run, tmp_path / "shared", sshd
        self.shared.mkdir()
        names = [f"m{n}" for n in range(5 if seed % 4 == 3 else 2)]
        self.draw.shuffle(names)
        self.machines = {name: fleet(name) for name in names}
        self.hub = names[0]
        self.alone = fleet("alone")
        self.sessions = [Session(self.draw, f"s{seed}x{n}") for n in range(self.draw.randrange(3, 7))]
        for session in self.sessions:
            session.machines.append(self.draw.choice(names))
        self.without = {name for name in names if name != self.hub and self.draw.random() < 0.3}  # TokenOps is not installed
        for name, env in self.machines.items():
            # Clocks are wrong by days, and what is written is dated by them.
            env["TOKENOPS_NOW"] = f"2026-06-{10 + self.draw.randrange(9):02d}T00:00:00Z"
            if sshd:
                sshd.lead_to(f"{name}-{seed}", env)
                put(pathlib.Path(env["HOME"]) / ".config/tokenops/config.yaml", {"sync": {"ssh_config": str(sshd.config)}})
        self.seed = seed

    def home(self, name: str) -> pathlib.Path:
        return pathlib.Path(self.machines[name]["HOME"])

    def write(self, whole: bool = False) -> None:
        """A client writes on, with an end anywhere in a line."""
        for session in self.sessions if whole else [self.draw.choice(self.sessions)]:
            left = len(session.content) - session.written
            size = left if whole else self.draw.randrange(left + 1)
            path = self.home(session.machines[-1]) / session.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(session.content[session.written : session.written + size])
            session.written += size
            at = time.time() - self.draw.randrange(5, 99999)
            os.utime(path, (at, at))

    def move(self) -> None:
        """A session's file is moved or copied to another machine, where it goes on."""
        session = self.draw.choice(self.sessions)
        to = self.draw.choice(list(self.machines))
        path = self.home(session.machines[-1]) / session.path
        if to == session.machines[-1] or not path.exists():
            return
        target = self.home(to) / session.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        if self.draw.random() < 0.7:
            path.unlink()
        session.machines.append(to)

    def command(self, name: str) -> tuple[str, dict[str, str]] | None:
        """Something that a machine does to its log; None if there is nothing."""
        env = self.machines[name]
        other = self.draw.choice([other for other in self.machines if other != name])
        theirs = self.machines[other]
        log, home = theirs["TOKENOPS_HOME"], theirs["HOME"]
        choices = [
            "tok-sync",
            f"tok-sync --to {self.shared}",
            f"tok-sync --from {self.shared}",
            "tok-log compact",
            "tok-sync --backfill",
        ]
        choices += [f"tok-sync --from {home} --machine {other}"] * 2
        if other not in self.without and (pathlib.Path(log) / "events").exists():
            choices += [f"tok-sync --from {log}"]
        if self.sshd:
            choices += [f"tok-sync --from ssh:{other}-{self.seed} --machine {other}"] * 2
        return self.draw.choice(choices), env

    def act(self) -> None:
        """One step of the story."""
        kind = self.draw.random()
        if kind < 0.3:
            self.write()
        elif kind < 0.38:
            self.move()
        elif kind < 0.42:  # a copy that a program for synchronising made
            if parts := sorted(self.shared.glob("*/*.gz")):
                part = self.draw.choice(parts)
                part.with_name(f"{part.name[:10]}.jsonl.sync-conflict-20260601-101010-ABCDEFG.gz").write_bytes(
                    part.read_bytes()
                )
        else:
            installed = [name for name in self.machines if name not in self.without]
            line, env = self.command(self.draw.choice(installed)) or ("", {})
            if self.draw.random() < 0.25:
                self.killed(line, env)
            else:
                self.run(line, env=env, status=None)

    def killed(self, line: str, env: dict[str, str]) -> None:
        """The same, ended at any moment."""
        name, *argv = line.split()
        command = [str(ROOT / "bin" / name), *argv]
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.draw.random() * 0.4)
            process.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """All is written and read: each machine publishes, and the hub pulls from each way that there is."""
        self.write(whole=True)
        for name, env in self.machines.items():
            if name not in self.without:
                self.run(f"tok-sync --to {self.shared}", env=env)
        hub = self.machines[self.hub]
        self.run(f"tok-sync --from {self.shared}", env=hub, status=None)
        for name in self.without:
            source = f"ssh:{name}-{self.seed}" if self.sshd else self.machines[name]["HOME"]
            done = self.run(f"tok-sync --from {source} --machine {name}", env=hub, status=None)
            assert done.returncode == 0 or b"holds no client's logs" in done.stderr, done.stderr
        for session in self.sessions:
            put(pathlib.Path(self.alone["HOME"]) / session.path, session.content)
        self.run("tok-sync", env=self.alone)

    def check(self) -> None:
        """The log is that of one machine, byte for byte; and each turn has the name of a machine that had its session."""
        hub = self.machines[self.hub]
        assert unstamped(self.run, hub) == unstamped(self.run, self.alone)
        held = {session.path.rpartition("-")[2].removesuffix(".jsonl"): session for session in self.sessions}
        held |= {session.name: session for session in self.sessions}
        count = 0
        for record in rows(self.run, "tok-cat", hub):
            session = held[record["session_id"].rpartition("-")[2]]
            assert record["machine"] in session.machines, record
            count += 1
        assert count
        assert self.run("tok-log verify", env=hub).stdout == b""
        assert not list(pathlib.Path(hub["TOKENOPS_HOME"]).rglob("incoming"))
        again = self.run(f"tok-sync --from {self.shared}", env=hub)
        assert [(row["events"], row["files_read"]) for row in objects(again.stdout)] == [(0, 0)]


@pytest.fixture
def ssh_if_here(request: pytest.FixtureRequest) -> Callable[[], Sshd | None]:
    return lambda: request.getfixturevalue("sshd") if SSHD and shutil.which("ssh") else None


@pytest.mark.parametrize("seed", range(STORIES))
def test_a_fleet_has_the_log_of_one_machine(
    seed: int, run: Run, fleet: Fleet, tmp_path: pathlib.Path, ssh_if_here: Callable[[], Sshd | None]
) -> None:
    story = Story(seed, run, fleet, tmp_path, ssh_if_here() if seed % 5 == 4 else None)
    for _ in range(12 if ROUNDS == 1 else 25):
        story.act()
    story.end()
    story.check()


def test_two_machines_see_one_home(run: Run, fleet: Fleet) -> None:
    """A home on a network disk: each turn once, whoever reads it first, with the name that sorts first."""
    one, two, here = fleet("one"), fleet("two"), fleet("here")
    two["HOME"] = one["HOME"]
    story = Session(random.Random(3), "s1")
    path = pathlib.Path(one["HOME"]) / story.path
    half = len(story.content) // 2
    put(path, story.content[:half])
    run("tok-sync", env=two)
    put(path, story.content)
    for env in (one, two, one):
        run("tok-sync", env=env)
    for env in (two, one, two):
        run(f"tok-sync --from {env['TOKENOPS_HOME']}", env=here)
    assert unstamped(run, here) == unstamped(run, one) == unstamped(run, two)
    assert {record["machine"] for record in rows(run, "tok-cat", here)} == {"one"}
