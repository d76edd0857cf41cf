"""Pulling over a real ssh: another log, and a home without TokenOps; what was not asked for is not taken."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess

import homes
import pytest
import test_read_copilot
from machines import Fleet, Sshd, machine_of, needs_ssh, rows, session, turns, unstamped

from conftest import ROOT, Run, claude, eventually, put

pytestmark = needs_ssh


def configure(env: dict[str, str], sshd: Sshd, **more: object) -> None:
    put(pathlib.Path(env["HOME"]) / ".config/tokenops/config.yaml", {"sync": {"ssh_config": str(sshd.config), **more}})


def test_a_log_is_pulled_over_ssh(run: Run, fleet: Fleet, sshd: Sshd) -> None:
    there, here = fleet("there"), fleet("here")
    sshd.lead_to("box", there)
    configure(here, sshd)
    session(there, "s1", 0, 200)
    run("tok-sync", env=there)
    [row] = rows(run, "tok-sync --from ssh:box", here)
    assert (row["from"], row["source"], row["files_read"], row["events"]) == ("ssh:box", "tokenops", 3, 200)
    session(there, "s1", 200, 202)
    run("tok-sync", env=there)
    [row] = rows(run, "tok-sync --from ssh:box", here)
    assert row["events"] == 2
    assert set(machine_of(run, here).values()) == {"there"}
    assert unstamped(run, here) == unstamped(run, there)
    run("tok-log compact --gzip", env=there)
    assert rows(run, "tok-sync --from ssh:box", here)[0]["events"] == 0


def test_a_home_is_pulled_over_ssh(run: Run, fleet: Fleet, sshd: Sshd) -> None:
    there, here, other = fleet("there"), fleet("here"), fleet("other")
    sshd.lead_to("box", there)
    configure(here, sshd)
    shutil.copytree(ROOT / "docs/examples/home", there["HOME"], dirs_exist_ok=True)
    for path in pathlib.Path(there["HOME"]).rglob("*.jsonl"):
        os.utime(path, (1e9, 1e9))
    session(there, "s1", 0, 20)
    got = rows(run, "tok-sync --from ssh:box", here)
    assert {row["source"] for row in got} == {"claude-code-jsonl", "codex-jsonl"}
    assert set(machine_of(run, here).values()) == {"box"}
    run(f"tok-sync --from {there['HOME']}", env=other)
    assert unstamped(run, here) == unstamped(run, other)
    assert rows(run, "tok-sync --from ssh:box", here) == []
    session(there, "s1", 20, 23)
    [row] = rows(run, "tok-sync --from ssh:box", here)
    assert (row["source"], row["files_read"], row["events"]) == ("claude-code-jsonl", 1, 3)
    assert not list(pathlib.Path(here["TOKENOPS_HOME"]).rglob("incoming"))


SECRET = "sk-ant-SENTINEL-SENTINEL-SENTINEL"
# Where clients and others keep what must never leave a machine.
SECRETS = (
    ".claude/.credentials.json",
    ".claude/settings.json",
    ".claude/settings.local.json",
    ".claude.json",
    ".codex/auth.json",
    ".codex/config.toml",
    ".gemini/oauth_creds.json",
    ".gemini/settings.json",
    ".kimi/config.toml",
    ".kimi/config.json",
    ".factory/settings.json",
    ".factory/auth.json",
    ".local/share/opencode/auth.json",
    ".openclaw/openclaw.json",
    ".claude/projects/-home-ada-app/.env",
    ".claude/projects/-home-ada-app/credentials.jsonl",
    ".codex/sessions/auth.json",
    ".ssh/id_ed25519",
)


def test_no_credentials_are_asked_for(run: Run, fleet: Fleet, sshd: Sshd, tmp_path: pathlib.Path) -> None:
    """All that was sent is kept by a tar in the other machine's place; no file with a secret is among it, or stays here."""
    there, here = fleet("there"), fleet("here")
    tools, copy = tmp_path / "tools", tmp_path / "sent.tar"
    tools.mkdir()
    put(tools / "tar", f'#!/bin/sh\n/usr/bin/env -i PATH=/usr/bin:/bin tar "$@" | tee -a {copy}\n'.encode()).chmod(0o755)
    sshd.lead_to("box", there | {"PATH": f"{tools}:{there['PATH']}"})
    configure(here, sshd)
    session(there, "s1", 0, 5)
    for name in SECRETS:
        put(
            pathlib.Path(there["HOME"]) / name,
            {"apiKey": SECRET, "sessionId": "s1", "uuid": "u", "payload": 1, "timestamp": 1},
        )
    run("tok-sync --from ssh:box", env=here)
    assert len(turns(run, here)) == 5
    assert b"msg_s1_4" in copy.read_bytes()
    assert SECRET.encode() not in copy.read_bytes()
    held = [path for path in pathlib.Path(here["TOKENOPS_HOME"]).rglob("*") if path.is_file()]
    assert held
    assert [path for path in held if SECRET.encode() in path.read_bytes() or b"xxxxxxxx" in path.read_bytes()] == []


def test_what_was_not_asked_for(run: Run, fleet: Fleet, sshd: Sshd, tmp_path: pathlib.Path) -> None:
    """A machine that sends more than was asked for: links, paths that lead elsewhere, other clients' files."""
    there, here = fleet("there"), fleet("here")
    tools, extra = tmp_path / "tools", tmp_path / "extra"
    tools.mkdir()
    extra.mkdir()
    put(extra / "other.jsonl", claude("msg_other"))
    (extra / "link.jsonl").symlink_to("/etc/passwd")
    put(
        tools / "tar",
        "#!/bin/sh\nexport PATH=/usr/bin:/bin\n"
        f"tar -cPf - -C {extra} ../extra/other.jsonl {extra}/other.jsonl link.jsonl --transform s,link,.claude/projects/x/link, "
        "| head -c 2560\n"
        'tar "$@"\n'.encode(),
    ).chmod(0o755)
    sshd.lead_to("box", there | {"PATH": f"{tools}:{there['PATH']}"})
    configure(here, sshd)
    session(there, "s1", 0, 5)
    done = run("tok-sync --from ssh:box -v", env=here, status=None)
    text = done.stderr.decode()
    assert "an absolute path" in text
    assert "leads out of the home directory" in text
    assert "a link, expected a file" in text
    assert {turn["id"] for turn in turns(run, here)} == {f"msg_s1_{n}" for n in range(5)}
    assert not list(pathlib.Path(here["TOKENOPS_HOME"]).rglob("incoming"))


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("echo Last login: today", "its answer is not a list of files"),
        ("exit 3", "ended with status 3"),
        ("head -c 2000000 /dev/urandom", "its answer is not a list of files"),
    ],
)
def test_answers_that_are_none(run: Run, fleet: Fleet, sshd: Sshd, tmp_path: pathlib.Path, program: str, why: str) -> None:
    there, here = fleet("there"), fleet("here")
    put(tmp_path / "tools/sh", f"#!/bin/bash\n{program}\n".encode()).chmod(0o755)
    sshd.lead_to("box", there | {"PATH": f"{tmp_path}/tools:{there['PATH']}"})
    configure(here, sshd)
    done = run("tok-sync --from ssh:box", env=here, status=2)
    assert why in done.stderr.decode()


def test_an_archive_that_ends_early(run: Run, fleet: Fleet, sshd: Sshd, tmp_path: pathlib.Path) -> None:
    """Nothing is taken of the file that is cut off; the next run has all, once."""
    there, here, other = fleet("there"), fleet("here"), fleet("other")
    put(tmp_path / "tools/tar", b'#!/bin/sh\nPATH=/usr/bin:/bin tar "$@" | head -c 6000\n').chmod(0o755)
    sshd.lead_to("bad", there | {"PATH": f"{tmp_path}/tools:{there['PATH']}"})
    sshd.lead_to("good", there)
    configure(here, sshd)
    session(there, "s1", 0, 30)
    done = run("tok-sync --from ssh:bad", env=here, status=2)
    assert "it ended in the middle of a file" in done.stderr.decode()
    assert turns(run, here) == []
    assert not list(pathlib.Path(here["TOKENOPS_HOME"]).rglob("incoming"))
    run("tok-sync --from ssh:good", env=here)
    run(f"tok-sync --from {there['HOME']}", env=other)
    assert unstamped(run, here) == unstamped(run, other)


def test_a_machine_that_is_away_hinders_nothing(run: Run, fleet: Fleet, sshd: Sshd) -> None:
    """It is reported once, and again by who names it; what is here is imported all the same."""
    here = fleet("here")
    sshd.config.write_text(f"Host off\n  HostName 127.0.0.1\n  Port 1\n  UserKnownHostsFile {sshd.folder}/known\n")
    configure(here, sshd, **{"from": ["ssh:off"]})
    session(here, "s1", 0, 5)
    done = run("tok-sync", env=here)
    assert "ssh:off: " in done.stderr.decode()
    assert len(turns(run, here)) == 5
    session(here, "s1", 5, 6)
    done = run("tok-sync", env=here)
    assert done.stderr == b""
    assert len(turns(run, here)) == 6
    assert "refused" in run("tok-sync --from ssh:off", env=here, status=2).stderr.decode()


def test_a_machine_that_never_answers(run: Run, fleet: Fleet, sshd: Sshd, tmp_path: pathlib.Path) -> None:
    """Its time is limited, and so is that of a program that it runs."""
    there, here = fleet("there"), fleet("here")
    put(tmp_path / "tools/sh", b"#!/bin/bash\nsleep 120\n").chmod(0o755)
    sshd.lead_to("slow", there | {"PATH": f"{tmp_path}/tools:{there['PATH']}"})
    configure(here, sshd, **{"from": ["ssh:slow"], "timeout": 2})
    session(here, "s1", 0, 5)
    done = run("tok-sync", env=here)
    assert "ssh:slow: was not done within 2 s" in done.stderr.decode()
    assert len(turns(run, here)) == 5


def test_databases_over_ssh(run: Run, fleet: Fleet, sshd: Sshd) -> None:
    """A database and what was written ahead of it are read from private copies, which are removed."""
    there, here, other = fleet("there"), fleet("here"), fleet("other")
    sshd.lead_to("box", there)
    configure(here, sshd)
    home = pathlib.Path(there["HOME"])
    test_read_copilot.keep(home, *(test_read_copilot.row(ts=f"2026-06-20T09:0{n}:10.000Z") for n in range(3)))
    database = next(home.rglob("session-store.db"))
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("SELECT * FROM sessions").fetchall()  # else the last to close it takes in what was written ahead
        test_read_copilot.keep(home, test_read_copilot.row(ts="2026-06-20T09:09:10.000Z"))
        assert database.with_name("session-store.db-wal").stat().st_size
        for path in home.rglob("session-store.db*"):
            os.utime(path, (1e9, 1e9))
        [row] = rows(run, "tok-sync --from ssh:box", here)
        run(f"tok-sync --from {home}", env=other)
    assert row["events"] == 4
    assert unstamped(run, here) == unstamped(run, other)
    assert not list(pathlib.Path(here["TOKENOPS_HOME"]).rglob("*.db*"))


def test_forks_come_with_what_they_copied(run: Run, fleet: Fleet, sshd: Sshd, weeks: homes.Home) -> None:
    """Nine weeks in a home, of which half the files come later: the same log as from a home that this machine sees."""
    there, here, other = fleet("there"), fleet("here"), fleet("other")
    sshd.lead_to("box", there)
    configure(here, sshd)
    home = pathlib.Path(there["HOME"])
    shutil.copytree(weeks.root, home, dirs_exist_ok=True)
    paths = sorted(path for path in home.rglob("*") if path.is_file())
    draw = random.Random(7)
    for path in paths:
        os.utime(path, (1e9, 1e9))
    later = {path: path.with_name(f"{path.name}.later") for path in paths if draw.random() < 0.5}
    for path, hidden in later.items():
        path.rename(hidden)
    for _ in range(2):
        run("tok-sync --from ssh:box", env=here, status=None)
        run(f"tok-sync --from {home}", env=other, status=None)
        for path, hidden in later.items():
            if hidden.exists():
                hidden.rename(path)
    assert len(turns(run, here)) > 200
    assert unstamped(run, here) == unstamped(run, other)


def test_ssh_lends_nothing(run: Run, fleet: Fleet, sshd: Sshd, tmp_path: pathlib.Path) -> None:
    """Whatever ssh's own configuration says: no agent, no display, no ports, no questions."""
    there, here = fleet("there"), fleet("here")
    seen = tmp_path / "seen"
    put(tmp_path / "tools/sh", f'#!/bin/bash\nenv > {seen}\nexec /bin/sh "$@"\n'.encode()).chmod(0o755)
    sshd.lead_to("box", there | {"PATH": f"{tmp_path}/tools:{there['PATH']}"})
    with sshd.config.open("a") as file:
        file.write(
            "Host *\n  ForwardAgent yes\n  ForwardX11 yes\n  RemoteForward 0 127.0.0.1:1\n  RequestTTY force\n  BatchMode no\n"
        )
    configure(here, sshd)
    session(there, "s1", 0, 2)
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, check=True).stdout.decode()
    socket, number = re.findall(r"=([^;]+);", agent)
    try:
        run("tok-sync --from ssh:box", env=here | {"SSH_AUTH_SOCK": socket, "DISPLAY": ":7"})
    finally:
        os.kill(int(number), signal.SIGTERM)
    assert len(turns(run, here)) == 2
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert "HOME" in names
    assert not names & {"SSH_AUTH_SOCK", "DISPLAY", "SSH_TTY"}


def test_copies_that_a_killed_run_left(run: Run, fleet: Fleet, sshd: Sshd, tmp_path: pathlib.Path) -> None:
    """A run that is killed in the middle: its process for the source ends by itself, its copies go, and all comes later."""
    there, here = fleet("there"), fleet("here")
    put(tmp_path / "tools/tar", b'#!/bin/sh\nPATH=/usr/bin:/bin tar "$@" | head -c 5000\nexec sleep 120\n').chmod(0o755)
    sshd.lead_to("stuck", there | {"PATH": f"{tmp_path}/tools:{there['PATH']}"})
    sshd.lead_to("box", there)
    configure(here, sshd)
    session(there, "s1", 0, 4)
    session(there, "s2", 0, 40)
    log = pathlib.Path(here["TOKENOPS_HOME"])
    with subprocess.Popen(["tok-sync", "--from", "ssh:stuck"], env=here, executable=ROOT / "bin/tok-sync") as process:
        eventually(lambda: [path for path in log.rglob("incoming/**/*.jsonl") if path.stat().st_size])
        process.kill()
    eventually(lambda: not list(log.rglob("incoming")))
    run("tok-sync --from ssh:box", env=here)
    assert len(turns(run, here)) == 44
    [source] = log.glob("sources/ssh-box-*")
    put(source / "incoming/home/s.jsonl", b"x")  # of a machine that lost its power
    run("tok-sync --from ssh:box", env=here)
    assert not (source / "incoming").exists()
