"""Measure how much of one core tok-top takes: idle, and with many sessions at work.

    python bench/top_load.py [--sessions 50] [--seconds 60] [--files 400]

Makes a home (below a temporary directory) with FILES transcripts of the last two days and the readings of the demo's
limits, shows tok-top in a pseudo-terminal of 120x40, and adds up its processor time from /proc, as a share of the seconds
that passed: with nothing new, and with SESSIONS transcripts that get a turn every ten seconds each, some hundred lines of
text a turn. bench/run.py writes the result into docs/performance.md.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import os
import pathlib
import pty
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
SESSIONS, SECONDS, FILES = 50, 60.0, 400
SETTLED_S = 8.0  # the first seconds, with the import of what was written before, are not measured
PAUSE_S = 10.0  # between two turns of a session
TURNS = 40  # of each transcript that is there before
TICK = os.sysconf("SC_CLK_TCK")


class Share(NamedTuple):
    """The share of one core, in percent, over so many seconds, and the resident memory in MB."""

    percent: float
    seconds: float
    megabytes: float


def turn(session: int, number: int, at: float) -> bytes:
    """A turn of Claude Code: a prompt, and an answer in two lines."""
    stamp = (
        datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(at * 1000) % 1000:03d}Z"
    )
    usage = {
        "input_tokens": 4,
        "cache_creation_input_tokens": 900,
        "cache_read_input_tokens": 40_000 + 900 * number,
        "cache_creation": {"ephemeral_5m_input_tokens": 900, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 350,
        "service_tier": "standard",
    }
    head: dict[str, Any] = {
        "isSidechain": False,
        "cwd": f"/home/ada/project-{session % 12}",
        "sessionId": f"s-{session:04d}",
    }
    head |= {"version": "2.1.80", "timestamp": stamp, "userType": "external"}
    lines = [head | {"type": "user", "uuid": f"u-{session}-{number}", "message": {"role": "user", "content": "x" * 4000}}]
    for part in range(2):
        message = {"model": "claude-opus-4-6", "id": f"msg_{session}_{number}", "type": "message", "role": "assistant"}
        message |= {"content": [{"type": "text", "text": "y" * 1500}], "stop_reason": None, "usage": usage}
        more = {"type": "assistant", "uuid": f"a-{session}-{number}-{part}", "requestId": f"req_{session}_{number}"}
        lines.append(head | more | {"message": message})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def path_of(home: pathlib.Path, session: int) -> pathlib.Path:
    """The transcript of a session."""
    return home / f".claude/projects/-home-ada-project-{session % 12}/s-{session:04d}.jsonl"


def make_home(home: pathlib.Path, files: int, rng: random.Random) -> dict[str, str]:
    """A home with transcripts of the last two days, imported, and readings of limits; its environment."""
    now = time.time()
    for session in range(files):
        path = path_of(home, session)
        path.parent.mkdir(parents=True, exist_ok=True)
        start = now - rng.uniform(1800, 40 * 3600)
        path.write_bytes(b"".join(turn(session, number, start + 40 * number) for number in range(TURNS)))
    search = os.pathsep.join((str(ROOT / "bin"), os.path.dirname(sys.executable), "/usr/bin", "/bin"))
    env = {"PATH": search, "HOME": str(home), "TZ": "UTC", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
    env |= {"XDG_CACHE_HOME": str(home / ".cache"), "TOKENOPS_HOME": str(home / "log")}
    readings = "tok-init --demo > /dev/null && TOKENOPS_HOME=log/demo tok-cat --kind meter | tok-log append > /dev/null"
    for command in (readings, "tok-sync > /dev/null", "tok-cost --log --json > /dev/null"):
        subprocess.run(["bash", "-c", command], env=env, cwd=home, check=True)
    return env


def processor_s(pid: int) -> float:
    """The processor time of a process and of its children that have ended, in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def measure(env: dict[str, str], home: pathlib.Path, sessions: int, seconds: float) -> Share:
    """What tok-top takes while so many sessions work."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(ROOT / "bin/tok-top", ["tok-top"], env)
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        due = [(time.monotonic() + PAUSE_S * n / max(sessions, 1), n) for n in range(sessions)]
        number, begun, used = TURNS, 0.0, 0.0
        until = time.monotonic() + SETTLED_S
        while True:
            now = time.monotonic()
            if not begun and now >= until:
                begun, used, until = now, processor_s(pid), now + seconds
            elif begun and now >= until:
                break
            for at, session in [entry for entry in due if entry[0] <= now]:
                due.remove((at, session))
                due.append((at + PAUSE_S, session))
                number += 1
                with open(path_of(home, session), "ab") as file:
                    file.write(turn(session, number, time.time()))
            wait = min([until, *(at for at, _ in due)]) - time.monotonic()
            if select.select([terminal], [], [], max(wait, 0.0))[0]:
                os.read(terminal, 1 << 16)
        resident = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        return Share(100 * (processor_s(pid) - used) / (now - begun), now - begun, resident)
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        os.close(terminal)


def shares(sessions: int, seconds: float, files: int) -> dict[str, Share]:
    """What tok-top takes when nothing is new, and while sessions work."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="top-load-"))
    try:
        env = make_home(home, files, random.Random(7))
        return {
            "nothing new": measure(env, home, 0, seconds),
            f"{sessions} sessions at work": measure(env, home, sessions, seconds),
        }
    finally:
        shutil.rmtree(home)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--files", type=int, default=FILES)
    args = parser.parse_args()
    for name, share in shares(args.sessions, args.seconds, args.files).items():
        print(f"{name}: {share.percent:.2f} % of one core over {share.seconds:.0f} s, {share.megabytes:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
