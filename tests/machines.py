"""Several machines for tests: homes and logs of their own, and a real sshd on this machine's loopback that leads to each."""

from __future__ import annotations

import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from conftest import Json, Run, claude, eventually, lines, objects, put

FOLDER = ".claude/projects/-home-ada-app"
Fleet = Callable[[str], dict[str, str]]


@pytest.fixture
def fleet(environment: dict[str, str], tmp_path: pathlib.Path) -> Fleet:
    """The environment of each machine: a home and a log of its own, and one salt for all."""

    def machine(name: str) -> dict[str, str]:
        log = tmp_path / name / "log"
        log.mkdir(parents=True, exist_ok=True, mode=0o700)
        (tmp_path / name / "home").mkdir(exist_ok=True)
        if not (log / "salt").exists():
            (log / "salt").write_bytes(b"5a17" * 12)
            (log / "salt").chmod(0o600)
        own = {"HOME": str(tmp_path / name / "home"), "TOKENOPS_HOME": str(log), "TOKENOPS_MACHINE": name}
        return environment | own

    return machine


def session(env: dict[str, str], name: str, first: int, last: int, begun: int = 0) -> pathlib.Path:
    """A transcript of some turns, a quarter of an hour apart."""
    made = [
        claude(
            f"msg_{name}_{n}",
            10 + n,
            sessionId=name,
            ts=f"2026-03-{1 + n // 90:02d}T{n // 4 % 24:02d}:{n % 4 * 15:02d}:00.000Z",
            uuid=f"{name}{n}",
        )
        for n in range(first, last)
    ]
    path = pathlib.Path(env["HOME"]) / FOLDER / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(lines(made))
    before = time.time() - 60 + last / 100  # a file that was just changed may change again within the same second
    os.utime(path, (before, before))
    return path


def rows(run: Run, line: str, env: dict[str, str], status: int = 0) -> list[Json]:
    return objects(run(line, env=env, status=status).stdout)


def turns(run: Run, env: dict[str, str]) -> list[Json]:
    return [event for event in rows(run, "tok-cat", env) if event["kind"] == "turn"]


def machine_of(run: Run, env: dict[str, str]) -> dict[str, str]:
    return {turn["id"]: turn.get("machine", "") for turn in turns(run, env)}


def unstamped(run: Run, env: dict[str, str]) -> dict[str, bytes]:
    """The files of a log after compaction, without the names of machines."""
    run("tok-log compact", env=env)
    folder = pathlib.Path(env["TOKENOPS_HOME"]) / "events"
    found = {}
    for path in sorted(folder.iterdir()):
        records = [
            {key: value for key, value in record.items() if key != "machine"} for record in objects(path.read_bytes())
        ]
        found[path.name] = lines(records)
    return found


SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_ssh = pytest.mark.skipif(
    not SSHD or not shutil.which("ssh"),
    reason="there is no sshd here: apt-get install --no-install-recommends openssh-server",
)


class Sshd(NamedTuple):
    """A running sshd: its configuration for ssh, and the folder with its keys."""

    folder: pathlib.Path
    port: int

    @property
    def config(self) -> pathlib.Path:
        """The configuration for ssh, in which each machine is a host."""
        return self.folder / "config"

    def lead_to(self, name: str, env: dict[str, str], **more: str) -> None:
        """Let `ssh NAME` lead to a machine: a key that runs what is asked for in its home."""
        key = self.folder / f"key-{name}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        own = {"HOME": env["HOME"], "TOKENOPS_HOME": env["TOKENOPS_HOME"], "PATH": env["PATH"], **more}
        before = " ".join(f"{key}={value}" for key, value in own.items())
        command = f'cd {env["HOME"]} && env {before} sh -c \\"$SSH_ORIGINAL_COMMAND\\"'
        with (self.folder / "authorized").open("a") as file:
            file.write(f'restrict,command="{command}" {key.with_suffix(".pub").read_text()}')
        with self.config.open("a") as file:
            file.write(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\n  IdentityFile {key}\n"
                f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.folder}/known\n  StrictHostKeyChecking yes\n"
            )


@pytest.fixture
def sshd(tmp_path: pathlib.Path) -> Iterator[Sshd]:
    """An sshd of the test's own, as the user who runs it."""
    assert SSHD
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host")], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "authorized").touch(0o600)
    put(
        folder / "sshd_config",
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nAuthorizedKeysFile {folder}/authorized\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n"
        "PermitRootLogin prohibit-password\nMaxStartups 100\n".encode(),
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", 0o755, exist_ok=True)  # sshd wants it of root
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=errors)
    made = Sshd(folder, port)
    try:

        def answers() -> bool:
            assert process.poll() is None, (folder / "errors").read_text()
            with socket.socket() as to:
                return to.connect_ex(("127.0.0.1", port)) == 0

        eventually(answers)
        yield made
    finally:
        process.terminate()
        process.wait()
