"""Where tests/cases.py runs a case: a copy of its folder, users with an empty HOME, and lines as clients write them.

Checks state each fault in a sentence: what came out, and what is right. They state nothing where everything is right.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

Json = dict[str, Any]
NOW = "2026-11-30T12:00:00Z"  # the present of every check; scripts of cases bring their own
SECONDS = 120  # how long one command may take on a machine that is busy with other things
COUNTS = ("input_tokens", "cache_read_tokens", "output_tokens")
# What may steer a terminal: control characters except the line's end and the tabulator, and bidirectional overrides.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class NotRun(Exception):
    """A case cannot run here; the text says why."""


class Ended(NamedTuple):
    """What a process left: its status (None: it had to be ended) and its output."""

    status: int | None
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        return self.stderr.decode(errors="replace")

    @property
    def records(self) -> list[Json]:
        """The objects in the output; `{}` for a line that is not JSON."""
        return [object_of(line) for line in self.stdout.splitlines() if line.strip()]


def object_of(line: bytes) -> Json:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a folder without its modes, so that the copy can be written to and removed."""
    for place, _, names in os.walk(source):
        below = target / os.path.relpath(place, source)
        below.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(os.path.join(place, name), below / name)


class Room:
    """The copy of one case's folder, a temporary directory around it, and the faults that a check stated."""

    def __init__(self, folder: pathlib.Path, work: pathlib.Path, root: pathlib.Path) -> None:
        self.work, self.root = work, root
        self.faults: list[str] = []
        self.users = 0
        self.folder = work / "cases" / folder.parent.name / folder.name
        copy(folder, self.folder)
        for path in folder.parent.iterdir():  # what the cases of a group share
            if path.is_file():
                shutil.copyfile(path, self.folder.parent / path.name)
        self.temporary = work / "tmp"
        self.temporary.mkdir()

    def fault(self, text: str) -> None:
        text = text.replace(str(self.work), "...")
        if text not in self.faults:
            self.faults.append(text)

    def check(self, right: bool, text: str) -> None:
        if not right:
            self.fault(text)

    def equal(self, what: str, came: object, right: object) -> None:
        self.check(came == right, f"{what}: {came}, right is {right}")

    def environment(self) -> dict[str, str]:
        """What every process gets: nothing of this process's environment but PATH, behind the commands of this checkout."""
        path = (str(self.root / "bin"), os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath))
        return {
            "PATH": os.pathsep.join(path),
            "TMPDIR": str(self.temporary),
            "TZ": "UTC",
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",  # no case needs a package registry
        }

    def user(self, home: str = "") -> User:
        """A user with a log of their own; `home`: a folder of the case, of which HOME is a copy."""
        self.users += 1
        user = User(self, self.work / f"user{self.users}")
        if home:
            copy(self.folder / home, user.home)
        return user

    def made_user(self) -> User:
        """A user whose HOME the case's make.sh makes."""
        user = self.user()
        made = subprocess.run(
            ["sh", "make.sh", str(user.home)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        if made.returncode:
            raise NotRun(
                f"make.sh ends with status {made.returncode}: {made.stderr.decode(errors='replace').strip()[-200:]}"
            )
        return user

    def script(self, name: str = "") -> Ended:
        """Runs the case's case.py or case.sh in an empty HOME."""
        name = name or ("case.py" if (self.folder / "case.py").exists() else "case.sh")
        command = [sys.executable if name.endswith(".py") else "sh", name]
        user = self.user()
        environment = self.environment() | {"HOME": str(user.home), "TOKENOPS_HOME": str(user.log)}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def rig(self) -> ModuleType:
        """The module that the proxy's cases share, with this room's path and temporary directory."""
        os.environ["PATH"], tempfile.tempdir = self.environment()["PATH"], str(self.temporary)
        sys.path.insert(0, str(self.folder.parent))
        return importlib.import_module("rig")


class User:
    """A HOME and a log; runs commands there."""

    def __init__(self, room: Room, place: pathlib.Path) -> None:
        self.room, self.home, self.log = room, place / "home", place / "log"
        self.home.mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        own = {"HOME": str(self.home), "TOKENOPS_HOME": str(self.log), "TOKENOPS_NOW": NOW}
        return self.room.environment() | own

    def run(
        self,
        *command: str,
        stdin: bytes = b"",
        cwd: pathlib.Path | None = None,
        seconds: float = SECONDS,
        env: dict[str, str] | None = None,
    ) -> Ended:
        """Runs one command. A traceback, or no end, is a fault in every case."""
        called = " ".join(command[:3])
        try:
            done = subprocess.run(
                command,
                check=False,
                input=stdin,
                cwd=cwd or self.home,
                env=self.environment() | (env or {}),
                capture_output=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as late:
            self.room.fault(f"{called} does not end within {seconds:.0f} s")
            return Ended(None, late.stdout or b"", late.stderr or b"")
        if b"Traceback" in done.stderr:
            self.room.fault(
                f"{called} ends in a traceback: {done.stderr.decode(errors='replace').strip().splitlines()[-1][:150]}"
            )
        return Ended(done.returncode, done.stdout, done.stderr)

    def pipe(self, *commands: list[str], env: dict[str, str] | None = None) -> Ended:
        """Runs commands one after another, each with the output of the one before; what the last one left."""
        ended = Ended(0, b"", b"")
        for command in commands:
            ended = self.run(*command, stdin=ended.stdout, env=env)
        return ended

    def put(self, name: str, *lines: str | Json) -> pathlib.Path:
        """Writes a file of lines below HOME."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return path

    def turns(self, *command: str) -> list[Json]:
        """The turns that a command prints (tok-cat: those of the log)."""
        command = command or ("tok-cat",)
        records = self.run(*command).records
        self.room.check(all(records), f"{' '.join(command)} prints a line that is not JSON")
        return [record for record in records if record.get("kind") == "turn"]


CHECKS: dict[str, Callable[[Room], None]] = {}


def check_of(*names: str) -> Callable[[Callable[[Room], None]], Callable[[Room], None]]:
    """Registers a check for cases."""

    def register(check: Callable[[Room], None]) -> Callable[[Room], None]:
        CHECKS.update(dict.fromkeys(names, check))
        return check

    return register


def counts(events: Iterable[Json]) -> list[tuple[int, ...]]:
    """Uncached input, cached input and output of each event, in order of size."""
    return sorted(tuple(event.get(name, 0) for name in COUNTS) for event in events)


def total(events: Iterable[Json]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*counts(events), strict=True)) or (0, 0, 0)


def no_steering(room: Room, what: str, *texts: str) -> None:
    characters = sorted({character for text in texts for character in STEERING.findall(text)})
    room.check(not characters, f"{what} passes on {', '.join(f'U+{ord(character):04X}' for character in characters)}")


def names_line(room: Room, what: str, ended: Ended, *places: str) -> None:
    """A line is rejected by file and line, with status 1."""
    for place in places:
        room.check(place in ended.err, f"{what} does not name {place} on stderr")
    room.equal(f"status of {what}", ended.status, 1)


# Records and lines as the cases have them

TURN = (
    '{"v":1,"ts":"TIME","kind":"turn","id":"ID","source":"test","provider":"anthropic","model":"claude-opus-4-6",'
    '"turns":1,"input_tokens":5,"output_tokens":7}'
)


def turn(name: str, time: str = "2026-11-20T09:00:00.000Z") -> str:
    return TURN.replace("TIME", time).replace("ID", name)


def nested_list(depth: int) -> str:
    return "[" * depth + "]" * depth


def claude_line(
    name: str, timestamp: str = '"2026-11-20T10:00:00.000Z"', cwd: str = "/home/ada/orchard", **more: Any
) -> str:
    """A line of Claude Code; `timestamp` is JSON."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 0, "output_tokens": 100}
    message = {"id": f"msg_01{name}", "type": "message", "role": "assistant", "model": "claude-opus-5-5", "content": []}
    line = {"type": "assistant", "uuid": name, "sessionId": "s1", "cwd": cwd, "timestamp": "TIME", "version": "2.1.80"}
    return json.dumps(line | {"message": message | {"usage": usage}} | more).replace('"TIME"', timestamp)


def codex_lines(*rows: str, cwd: str = "/home/ada/orchard", model: str = "gpt-6.1-sol") -> list[str]:
    """A rollout: its head, and `rows` behind it."""
    thread = "01a1f866-0d00-7000-8000-000000000001"
    meta = {"id": thread, "timestamp": "2026-11-20T10:00:00.000Z", "cwd": cwd, "cli_version": "0.150.0", "source": "cli"}
    begin = {"turn_id": "01a1f866-10e8-7000-8000-000000000011", "cwd": cwd, "model": model}
    head = (("session_meta", meta | {"model_provider": "openai"}), ("turn_context", begin))
    return [
        *(json.dumps({"timestamp": "2026-11-20T10:00:00.000Z", "type": kind, "payload": payload}) for kind, payload in head),
        *rows,
    ]


def codex_count(totals: int, last: int, timestamp: str = '"2026-11-20T10:00:05.000Z"', output: str = "10") -> str:
    """A `token_count` line: `totals` and `last` input tokens; `timestamp` and `output` are JSON."""

    def usage(tokens: int) -> Json:
        return {"input_tokens": tokens, "cached_input_tokens": 0, "output_tokens": "OUTPUT", "total_tokens": tokens}

    payload = {"type": "token_count", "info": {"total_token_usage": usage(totals), "last_token_usage": usage(last)}}
    line = {"timestamp": "TIME", "type": "event_msg", "payload": payload}
    return json.dumps(line).replace('"TIME"', timestamp).replace('"OUTPUT"', output)


ROLLOUT = ".codex/sessions/2026/11/20/rollout-2026-11-20T10-00-00-01a1f866-0d00-7000-8000-000000000001.jsonl"
GEMINI = ".gemini/tmp/orchard/chats/session-2026-11-20T10-00-aaaaaaaa.jsonl"


def gemini_lines(*times: str) -> list[Json]:
    """A chat of Gemini CLI with an answer at each time."""
    session = {"sessionId": "aaaaaaaa-1111-4111-8111-111111111111", "projectHash": "h", "kind": "main"}
    tokens = {"input": 10, "output": 100, "cached": 0, "thoughts": 0, "tool": 0, "total": 110}
    answer = {"type": "gemini", "content": "", "model": "gemini-3.1-pro-preview", "tokens": tokens}
    head = session | {"startTime": "2026-11-20T10:00:00.000Z", "lastUpdated": "2026-11-20T10:00:00.000Z"}
    return [head, *(answer | {"id": f"m{number}", "timestamp": time} for number, time in enumerate(times))]


def refused_at_the_doors(room: Room, bad: dict[str, str]) -> None:
    """append and import refuse each bad line, name it, and take in the good ones before and behind it."""
    for name, line in bad.items():
        text = f"{turn('before')}\n{line}\n{turn('behind')}\n"
        for verb in ("append", "import"):
            user = room.user()
            command = ["tok-log", verb, str(user.put("in.jsonl", text.rstrip("\n")))]
            ended = user.run(*command)
            room.equal(f"status of tok-log {verb} of {name}", ended.status, 1)
            room.check("in.jsonl:2" in ended.err, f"tok-log {verb} of {name} does not name in.jsonl:2")
            room.equal(
                f"in the log after tok-log {verb} of {name}", [event["id"] for event in user.turns()], ["before", "behind"]
            )


# Scripts of the cases


def script_status(room: Room) -> None:
    """A case.py whose status says whether it is right."""
    judge_status(room, room.script())


def judge_status(room: Room, ended: Ended) -> None:
    if ended.status != 0:
        lines = ended.out.strip().splitlines()
        verdict = (
            lines.pop() if lines and lines[-1].startswith("WRONG") else f"status {ended.status}: {ended.err.strip()[-200:]}"
        )
        room.fault(" | ".join([verdict, *(re.sub(r"\s+", " ", line) for line in lines)]))


def matches_in(room: Room, ended: Ended, pattern: str, what: str) -> list[re.Match[str]]:
    """The matches of a pattern in what a script printed; none is a fault."""
    matches = list(re.finditer(pattern, ended.out))
    last = (ended.err.strip() or ended.out.strip() or "nothing").splitlines()[-1]
    room.check(bool(matches), f"the script says nothing of {what}: {last[:200]}")
    return matches


def no_traceback(room: Room, ended: Ended) -> None:
    """The commands that a script of security/ ran are said to be ok; none ended in a traceback."""
    for command in re.findall(r"^traceback: (.*)$", ended.out, re.MULTILINE):
        room.fault(f"{command} ends in a traceback")
    for text in (ended.out, ended.err):
        if "Traceback" in text or "Error:" in text:
            lines = [line for line in text.strip().splitlines() if re.match(r"\S*Error\b", line)]
            room.fault(f"a traceback: {(lines or ['?'])[-1][:150]}")


def conversation(user: User, options: list[str], *requests: tuple[str, Json]) -> dict[int, Json]:
    """The answers of tok-mcp to requests, by their number from 1."""
    begin = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    messages: list[Json] = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": begin},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    messages += [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(requests, 1)
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["tok-mcp", *options], env=user.environment(), stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
            process.stdin.flush()
            answers: dict[int, Json] = {}
            for line in process.stdout:
                answer = json.loads(line)
                answers[answer.get("id", -1)] = answer
                if set(range(1, len(requests) + 1)) <= set(answers):
                    break
            return answers
        finally:
            timer.cancel()
            process.kill()


YEARS = {"the year 1": "0001-01-01T00:00:00.000Z", "the year 9999": "9999-12-31T23:59:59.999Z"}
