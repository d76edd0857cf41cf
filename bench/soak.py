"""Eight hours in ten minutes: proxy, sync, status line, MCP and dashboard together, under fifty times a heavy user's load.

    python bench/soak.py [--seconds 600] [--times 50] [--seed 1] [--keep] [--write]

Everything runs on this machine, below one temporary directory that is removed at the end (--keep: it stays): a vendor on
loopback, its clients through tok-proxy, clients that write transcripts, tok-sync every five seconds, status lines, tok-budget,
a host that talks to tok-mcp, open dashboards. Meanwhile clocks jump, processes are suspended and killed, and the disk is
full for a while. At the end all that was really spent is compared with what the log says (soak_checks.py).

The clock that all processes see runs so fast that eight hours pass (soak_clock.py); the log lies on a small disk of its own,
mounted where nobody else sees it (unshare), so that it can be filled. Linux only. --write puts the table into
docs/performance.md, if all held. It stops by itself, and ends only what it started.

Exit status: 0 all held; 1 something did not; 2 it could not be run here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import errno
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import soak_report
from soak_clients import Pen
from soak_clock import HOUR, Clock
from soak_ledger import Ledger, override
from soak_load import Load
from soak_parts import ROOT, Agent, Browser, Commands, Server, listening
from soak_wire import Vendor, Wire

Json = dict[str, Any]
# Four hours before midnight UTC; five hours on, clocks in Berlin are set back.
START = datetime.datetime(2026, 10, 24, 20, tzinfo=datetime.UTC)
ZONE = "Europe/Berlin"
PAST = ["2026-10-20", "2026-10-21", "2026-10-22", "2026-10-23"]
DISK_MB = 64


class Soak:
    """All parts of one run, below one directory."""

    def __init__(self, folder: pathlib.Path, chosen: argparse.Namespace) -> None:
        self.folder, self.seconds, self.times = folder, float(chosen.seconds), float(chosen.times)
        self.rng = random.Random(chosen.seed)
        self.clock = Clock(folder / "clock", int(START.timestamp() * 1000), round(8 * 3600 / self.seconds))
        self.home, self.disk = folder / "home", folder / "disk"
        self.log = self.disk / "log"
        self.ledger = Ledger(self.rng)
        self.env = self._environment()
        self.commands = Commands(self.env)
        self.ports = {name: free_port() for name in ("tok-proxy", "tok-dash")}
        self.servers = {name: self._server(name, "--port", str(port)) for name, port in self.ports.items()}
        self.servers["tok-mcp"] = self._server("tok-mcp")
        self.faults: list[str] = []
        self.wrong: list[str] = []
        self.filled: list[tuple[float, float]] = []
        self.begun = 0.0
        self.told = ""

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(self.folder / "tree/bin"), os.path.dirname(sys.executable), "/usr/bin", "/bin"))
        made = {"PATH": path, "HOME": str(self.home), "TZ": ZONE, "LC_ALL": "C.UTF-8", "TOKENOPS_HOME": str(self.log)}
        return made | {"XDG_CACHE_HOME": str(self.folder / "cache")} | self.clock.environment(self.folder / "tree/clock")

    def _server(self, name: str, *options: str) -> Server:
        line = [str(self.folder / "tree/bin" / name), *options]
        return Server(name, line, self.env, self.folder / f"{name}.err", piped=name == "tok-mcp")

    # Before.

    async def prepare(self) -> Load:
        """Configuration, some days of past, and all parts running."""
        self.log.mkdir(mode=0o700)
        vendor = Vendor(self.clock, self.rng)
        await vendor.start()
        config = self.home / ".config/tokenops/config.yaml"
        config.parent.mkdir(parents=True)
        there = f"http://127.0.0.1:{vendor.port}"
        providers = {"anthropic": there, "openai": there, "mistral": f"http://127.0.0.1:{free_port()}"}
        config.write_text(json.dumps({"providers": providers, "pricing": {"path": str(self.folder / "prices.yaml")}}))
        (self.folder / "prices.yaml").write_text(json.dumps(override()))
        past = b"".join(json.dumps(one).encode() + b"\n" for one in self.ledger.seeds(PAST, 2700))
        await self.commands.run("tok-log", "append", given=past)
        await self.commands.run("tok-sync", allowed=(0, 1))  # 1: there is nothing to be found yet
        for server in self.servers.values():
            await server.start()
        for port in self.ports.values():
            await listening(port)
        agent = Agent(self.servers["tok-mcp"])
        await agent.begin()
        await asyncio.sleep(1)
        for server in self.servers.values():
            server.sample(time.monotonic())
        pen = Pen(self.home, self.clock, self.rng)
        wire, browsers = Wire(self.ports["tok-proxy"]), await self.browsers()
        load = Load(self.ledger, pen, vendor, wire, self.commands, agent, browsers, self.times)
        load.shared = self.log / "statusline.json"
        return load

    async def browsers(self) -> list[Browser]:
        """One that followed a link and has a cookie, and one program that has the token."""
        port = self.ports["tok-dash"]
        link = (await self.commands.run("tok-dash", "url")).out.decode().strip()
        opened = Browser(port, {})
        _, answered, _ = await opened.get(link.partition(str(port))[2], html=True)
        cookie = answered.get("set-cookie", "").partition(";")[0]
        if not cookie:
            raise SystemExit("soak: the link that tok-dash url printed opened nothing")
        opened.secret = {"Cookie": cookie}
        return [opened, Browser(port, {"Authorization": f"Bearer {(self.log / 'dash.token').read_text().strip()}"})]

    # Meanwhile.

    def timeline(self) -> list[tuple[float, str, Callable[[], Awaitable[None]]]]:
        """What goes wrong, at which part of the run. Kills come early: what lives on then is watched for long."""
        every = tuple(self.servers)
        return [
            (0.03, "tok-proxy suspended", lambda: self.suspend(2, "tok-proxy")),
            (0.05, "clock set forward one hour", lambda: self.jump(1)),
            (0.07, "tok-proxy killed", lambda: self.again("tok-proxy", signal.SIGKILL)),
            (0.10, "tok-dash killed", lambda: self.again("tok-dash", signal.SIGKILL)),
            (0.12, "tok-proxy killed", lambda: self.again("tok-proxy", signal.SIGKILL)),
            (0.14, "tok-proxy restarted", lambda: self.again("tok-proxy", signal.SIGTERM)),
            (0.16, "tok-dash restarted", lambda: self.again("tok-dash", signal.SIGTERM)),
            (0.18, "tok-proxy killed", lambda: self.again("tok-proxy", signal.SIGKILL)),
            (0.30, "tok-dash suspended", lambda: self.suspend(3, "tok-dash")),
            (0.36, "tok-mcp suspended", lambda: self.suspend(3, "tok-mcp")),
            (0.42, "clock set back two hours, to before midnight", lambda: self.jump(-2)),
            (0.48, "disk full", self.full),
            (0.72, "all three suspended", lambda: self.suspend(2, *every)),
            (0.76, "clock set back two hours, over Berlin's change", lambda: self.jump(-2)),
            (0.84, "tok-proxy suspended", lambda: self.suspend(2, "tok-proxy")),
            (0.88, "clock set forward one hour", lambda: self.jump(1)),
        ]

    async def faults_in_turn(self) -> None:
        """The timeline, one after another."""
        for share, what, fault in self.timeline():
            await asyncio.sleep(max(0.0, self.begun + share * self.seconds - time.monotonic()))
            shown = datetime.datetime.fromtimestamp(self.clock.now() / 1000, datetime.UTC)
            self.faults.append(f"{time.monotonic() - self.begun:5.0f} s ({shown:%H:%M} UTC) {what}")
            print(f"soak: {self.faults[-1]}", file=sys.stderr, flush=True)
            await fault()

    async def jump(self, hours: int) -> None:
        self.clock.jump(hours * HOUR)

    async def suspend(self, seconds: float, *names: str) -> None:
        """Stop processes for some seconds, and see that they are."""
        begun = time.monotonic()
        for name in names:
            self.servers[name].signal(signal.SIGSTOP)
        await asyncio.sleep(0.2)
        for name in names:
            state = pathlib.Path(f"/proc/{self.servers[name].pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "T":
                self.wrong.append(f"{name} was not suspended: {state}")
        await asyncio.sleep(seconds)
        for name in names:
            self.servers[name].signal(signal.SIGCONT)
            self.servers[name].still.append((begun, time.monotonic()))

    async def again(self, name: str, number: int) -> None:
        status = await self.servers[name].again(number, self.ports[name])
        if status != (-number if number == signal.SIGKILL else 0):
            self.wrong.append(f"{name} ended with status {status} on signal {number}")

    async def full(self) -> None:
        """The disk is full for a fourteenth of the run; in the middle of that the clock goes over midnight."""
        ballast, begun, span = self.disk / "ballast", time.monotonic(), self.seconds / 14
        self.commands.excused = "the disk is full"
        refused, jumped = 0, False
        with ballast.open("ab", buffering=0) as file:
            while time.monotonic() < begun + span:
                refused += fill(file.fileno())
                if not jumped and time.monotonic() > begun + span / 2:
                    jumped = True
                    self.clock.jump(HOUR)
                await asyncio.sleep(0.05)
        if not refused:
            self.wrong.append("the disk never was full")
        ballast.unlink()
        self.filled.append((begun, time.monotonic()))
        self.faults.append(f"{time.monotonic() - self.begun:5.0f} s disk has space again")
        await asyncio.sleep(1)  # for commands that began before
        self.commands.excused = ""

    async def watch(self) -> None:
        """Look at the three servers twice a second."""
        while True:
            for server in self.servers.values():
                server.sample(time.monotonic())
            await asyncio.sleep(0.5)

    # All of it.

    async def run(self) -> int:
        """The soak; its exit status."""
        load = await self.prepare()
        print(f"soak: {self.seconds:.0f} s at {self.times:g} times a heavy user's load, in {self.folder}", file=sys.stderr)
        self.begun = time.monotonic()
        watching = asyncio.create_task(self.watch())
        faults = asyncio.create_task(self.faults_in_turn())
        try:
            await load.run(self.seconds)
            ran = time.monotonic() - self.begun
            await faults
            return await soak_report.told(self, load, ran)
        finally:
            watching.cancel()
            faults.cancel()
            await self.end()

    async def end(self) -> None:
        """End whatever still runs of what was started here."""
        self.commands.end()
        for server in self.servers.values():
            if server.process is not None and server.process.returncode is None:
                await server.end(signal.SIGKILL)


def fill(fd: int) -> int:
    """Write until nothing goes any more; how often the disk said that it is full."""
    for size in (1 << 20, 1 << 12, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, bytes(size))
    try:
        os.write(fd, b"\0")
    except OSError as error:
        return int(error.errno == errno.ENOSPC)
    return 0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def alone() -> None:
    """Go on in a mount namespace of our own: the small disk is nobody else's, and gone with us."""
    if os.environ.get("SOAK_ALONE"):
        return
    unshare = shutil.which("unshare")
    line = [unshare or "", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    if not unshare or subprocess.run([*line, "true"], check=False, capture_output=True).returncode:
        raise SystemExit("soak: unshare --mount is not allowed here, so that no disk can be filled; run it as root")
    os.environ["SOAK_ALONE"] = "1"
    os.execv(unshare, [*line, sys.executable, *sys.argv])


def main() -> int:
    parser = argparse.ArgumentParser(description="eight hours in ten minutes")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--times", type=float, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    if sys.platform != "linux" or chosen.seconds < 60:
        print("soak: it takes Linux, and 60 seconds at least", file=sys.stderr)
        return 2
    alone()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tokenops-soak-"))
    try:
        for name in ("home", "disk"):
            (folder / name).mkdir()
        # A copy: whoever edits a module in the next ten minutes would be measured too.
        for name in ("bin", "lib", "catalog", "bench/clock"):
            shutil.copytree(ROOT / name, folder / "tree" / pathlib.Path(name).name, symlinks=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "none", str(folder / "disk")], check=True)
        soak = Soak(folder, chosen)
        status = asyncio.run(soak.run())
        if chosen.write and not status:
            page = ROOT / "docs/performance.md"
            text = re.sub(
                r"(<!-- soak -->\n).*?(<!-- end -->)",
                lambda m: f"{m[1]}{soak.told}{m[2]}",
                page.read_text(),
                flags=re.DOTALL,
            )
            page.write_text(text)
        return status
    except KeyboardInterrupt:
        return 130
    finally:
        if chosen.keep:
            shutil.copytree(folder / "disk/log", folder / "log", dirs_exist_ok=True)
            print(f"soak: kept: {folder}", file=sys.stderr)
        subprocess.run(["umount", str(folder / "disk")], check=False, capture_output=True)
        if not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
