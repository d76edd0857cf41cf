"""What is soaked: long-running processes that are watched, stopped and started again, and commands that are run."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import statistics
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
Json = dict[str, Any]


class Sample(NamedTuple):
    """A process at one moment: descriptors, resident megabytes, threads, and lines that the log's open days hold."""

    at: float
    life: int
    descriptors: int
    resident: float
    threads: int


@dataclass
class Server:
    """A process that runs all the time."""

    name: str
    line: list[str]
    env: dict[str, str]
    errors: pathlib.Path
    piped: bool = False
    process: asyncio.subprocess.Process | None = None
    life: int = 0
    samples: list[Sample] = field(default_factory=list)
    down: list[tuple[float, float]] = field(default_factory=list)  # killed, up again
    still: list[tuple[float, float]] = field(default_factory=list)  # suspended or down, for whatever reason
    began: float = 0.0

    async def start(self) -> None:
        """Start it."""
        pipe = asyncio.subprocess.PIPE if self.piped else asyncio.subprocess.DEVNULL
        with self.errors.open("ab") as file:
            self.process = await asyncio.create_subprocess_exec(
                *self.line, env=self.env, stdin=pipe, stdout=pipe, stderr=file, limit=1 << 26
            )
        self.life, self.began = self.life + 1, time.monotonic()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def end(self, number: int, seconds: float = 60) -> int | None:
        """End it and wait; its status, None where it had to be killed."""
        if self.process is None:
            return None
        self.signal(signal.SIGCONT)
        self.signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.process.wait()
            return None

    async def again(self, number: int, port: int, pause: float = 0.3) -> int | None:
        """End it, and start it anew; the status it ended with."""
        begun = time.monotonic()
        status = await self.end(number)
        await asyncio.sleep(pause)
        await self.start()
        await listening(port)
        self.still.append((begun, time.monotonic()))
        if number == signal.SIGKILL:
            self.down.append(self.still[-1])
        return status

    def sample(self, now: float) -> None:
        """Look at it."""
        with contextlib.suppress(OSError, ValueError):
            text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
            found = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", text, re.MULTILINE))
            count = len(os.listdir(f"/proc/{self.pid}/fd"))
            self.samples.append(Sample(now, self.life, count, int(found["VmRSS"]) / 1024, int(found["Threads"])))


async def listening(port: int, seconds: float = 60) -> None:
    """Wait until somebody listens there."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise SystemExit(f"soak: nobody listens on port {port} after {seconds:.0f} s")


class Done(NamedTuple):
    """A command that ran."""

    status: int
    out: bytes
    err: str
    seconds: float


@dataclass
class Commands:
    """Runs commands, and keeps how they ended, what they said and how long they took."""

    env: dict[str, str]
    times: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    statuses: dict[str, collections.Counter[int]] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    said: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    running: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    excused: str = ""  # why commands may fail to write just now

    async def run(
        self, name: str, *args: str, given: bytes = b"", allowed: tuple[int, ...] = (0,), hurt: Any = None
    ) -> Done:
        """Run a command to its end. `hurt`: a coroutine function that does something to the process meanwhile."""
        excused = self.excused
        begun = time.perf_counter()
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            name, *args, env=self.env, stdin=pipe, stdout=pipe, stderr=pipe, limit=1 << 26
        )
        self.running[process.pid] = process
        hurting = asyncio.create_task(hurt(process)) if hurt else None
        try:
            out, err = await asyncio.wait_for(process.communicate(given), 180)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            self.wrong.append(f"{name}: took more than three minutes")
        finally:
            if hurting:
                await hurting
            self.running.pop(process.pid, None)
        done = Done(process.returncode or 0, out, err.decode(errors="replace"), time.perf_counter() - begun)
        if hurt is None:
            self.times[name].append(1000 * done.seconds)
        self._judge(name, done, allowed + ((-signal.SIGKILL,) if hurt else ()), excused or self.excused)
        return done

    def _judge(self, name: str, done: Done, allowed: tuple[int, ...], excused: str) -> None:
        self.statuses[name][done.status] += 1
        for line in done.err.splitlines():
            self.said[re.sub(r"[0-9a-f]{8}-[0-9a-f-]{20,}|\d+", "N", line)[:160]] += 1
        if traced(done.err) or traced(done.out.decode(errors="replace")):
            self.wrong.append(f"{name}: a traceback: {done.err[-300:]}")
        if done.status not in allowed and not (excused and done.status == 2 and "space" in done.err):
            self.wrong.append(f"{name}: status {done.status}: {done.err[-300:]}")

    def end(self) -> None:
        """End what still runs."""
        for process in list(self.running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()


def traced(text: str) -> bool:
    """Whether a program ended or went on with an error that nobody expected."""
    return "Traceback (most recent call last)" in text or "Exception ignored" in text


class Took(NamedTuple):
    """When something ended, and how many milliseconds it took."""

    at: float
    ms: float


def undisturbed(times: list[Took], still: list[tuple[float, float]]) -> list[float]:
    """The milliseconds of what did not wait for a process that was suspended, or being started."""
    return [one.ms for one in times if not any(one.at - one.ms / 1000 < b and one.at > a for a, b in still)]


@dataclass
class Agent:
    """A host that talks to tok-mcp."""

    server: Server
    number: int = 0
    times: list[Took] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)

    async def begin(self) -> None:
        """Shake hands."""
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        await self._ask("initialize", about)
        self._send({"method": "notifications/initialized"})

    def _send(self, message: Json) -> None:
        assert self.server.process and self.server.process.stdin
        self.server.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def _ask(self, method: str, params: Json) -> Json:
        assert self.server.process and self.server.process.stdout
        self.number += 1
        self._send({"id": self.number, "method": method, "params": params})
        while True:
            line = await self.server.process.stdout.readline()
            if not line:
                raise SystemExit("soak: tok-mcp ended; see its stderr")
            said: Json = json.loads(line)
            if said.get("id") == self.number:
                return said

    async def call(self, tool: str, **arguments: Any) -> Json:
        """A tool's structured answer."""
        begun = time.perf_counter()
        said = await self._ask("tools/call", {"name": tool, "arguments": arguments})
        self.times.append(Took(time.monotonic(), 1000 * (time.perf_counter() - begun)))
        result = said.get("result") or {}
        if "error" in said or result.get("isError") or traced(json.dumps(said)):
            self.failed.append((time.monotonic(), json.dumps(said)[:300]))
        return dict(result.get("structuredContent") or {})


@dataclass
class Browser:
    """Somebody who looks at the dashboard."""

    port: int
    secret: dict[str, str]  # a header
    tags: dict[str, str] = field(default_factory=dict)
    times: dict[int, list[Took]] = field(default_factory=lambda: collections.defaultdict(list))
    wrong: list[str] = field(default_factory=list)

    async def get(
        self, path: str, headers: dict[str, str] | None = None, html: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of an answer; raises ConnectionError, OSError where the server is gone."""
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        try:
            given = {"Host": f"127.0.0.1:{self.port}", "Accept": "text/html" if html else "application/json"}
            given |= {"Connection": "close"} | (self.secret if headers is None else headers)
            lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            got = await asyncio.wait_for(reader.read(), 120)
        finally:
            writer.close()
        head, _, body = got.partition(b"\r\n\r\n")
        if not head:
            raise ConnectionResetError("no answer")
        first, *rest = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        self.times[status].append(Took(time.monotonic(), 1000 * (time.perf_counter() - begun)))
        return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}, body

    async def refresh(self, path: str) -> None:
        """What an open page does: asks again for what it has."""
        tag = self.tags.get(path)
        headers = self.secret | ({"If-None-Match": tag} if tag else {})
        status, answered, body = await self.get(path, headers, html=path.startswith("/dashboard"))
        if status not in (200, 304) or (status == 200 and (not body or b"Traceback" in body)):
            self.wrong.append(f"{path}: {status} {body[:200]!r}")
        self.tags[path] = answered.get("etag", "")


def quantiles(times: list[float]) -> str:
    """p50 and p99 in milliseconds."""
    if not times:
        return "-"
    ordered = sorted(times)
    return f"{statistics.median(ordered):,.1f} / {ordered[int(len(ordered) * 0.99)]:,.1f} ms"
