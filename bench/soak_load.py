"""What a heavy user does, many times over: turns, and all that is asked meanwhile.

A heavy user makes 2,700 turns in eight hours (docs/scaling.md; the busiest hour of one client in recorded logs had 192, so
this is 1.8 times that), of which three in five are Claude Code's; each such turn refreshes a status line. An agent asks
tok-mcp once a minute and tok-budget every five; a dashboard stays open and renews itself every 15 seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from soak_clients import Claude, Codex, Pen, Transcript
from soak_clock import HOUR
from soak_ledger import CLAUDE, GPT, Ledger
from soak_parts import Agent, Browser, Commands
from soak_wire import Plan, Vendor, Wire

Json = dict[str, Any]

HOURLY = {"turns": 2700 / 8, "statusline": 2700 / 8 * 0.6, "mcp": 60.0, "budget": 12.0, "dashboard": 240.0}
SYNC_S = 5.0
KINDS = {"claude": 40, "claude both": 20, "codex": 15, "codex both": 5, "sdk": 20}
HOWS = {"plain": 38, "stream": 30, "slow": 10, "leave": 8, "cut": 4, "error": 7, "dead": 3}
PATHS = {"/anthropic/v1/messages": CLAUDE, "/openai/v1/responses": GPT, "/openai/v1/chat/completions": GPT}
TOOLS = ("tokenops_session_budget", "tokenops_spend_summary", "tokenops_burn_rate", "tokenops_status")
PAGES = ("/dashboard", "/dashboard?since=7d", "/api/budget", "/api/spend/summary", "/api/sessions")


@dataclass
class Load:
    """All that is asked of the parts."""

    ledger: Ledger
    pen: Pen
    vendor: Vendor
    wire: Wire
    commands: Commands
    agent: Agent
    browsers: list[Browser]
    times: float
    stopping: bool = False
    done: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    claudes: list[Claude] = field(default_factory=list)
    codexes: list[Codex] = field(default_factory=list)
    leaving: list[Transcript] = field(default_factory=list)  # may be deleted once they were read
    deleted: int = 0
    shared: pathlib.Path = pathlib.Path()  # what the status lines share

    @property
    def rng(self) -> random.Random:
        return self.ledger.rng

    async def run(self, seconds: float) -> None:
        """Everything, for so long; what is under way then comes to its end."""
        jobs: list[tuple[str, Callable[[], Awaitable[None]], int]] = [("turns", self.turn, 60), ("mcp", self.ask_agent, 1)]
        jobs += [("budget", self.ask_budget, 2), ("dashboard", self.look, 2)]
        loops = [asyncio.create_task(self.paced(name, what, most)) for name, what, most in jobs]
        loops.append(asyncio.create_task(self.syncing()))
        self.lines: set[asyncio.Task[None]] = set()
        try:
            ended, _ = await asyncio.wait(loops, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            self.stopping = True
            for one in ended:
                one.result()
            await asyncio.gather(*loops, *self.lines)
        finally:
            for one in (*loops, *self.lines):
                one.cancel()

    async def paced(self, name: str, what: Callable[[], Awaitable[None]], most: int) -> None:
        """Do something as often as the load says, at most so many at once. Turns that are late are made up for."""
        rate, begun, count = HOURLY[name] * self.times / 3600, time.monotonic(), 0.0
        running: set[asyncio.Task[None]] = set()
        while not self.stopping:
            for one in [task for task in running if task.done()]:
                running.discard(one)
                one.result()
            due = (time.monotonic() - begun) * rate
            if due - count > 2 and name != "turns":
                count = due - 1
            if count < due and len(running) < most:
                count += 1
                self.done[name] = self.done.get(name, 0) + 1
                running.add(asyncio.ensure_future(what()))
            else:
                await asyncio.sleep(0.02)
        await asyncio.gather(*running)

    # Turns.

    async def turn(self) -> None:
        """One turn, of some client."""
        kind = self.rng.choices([*KINDS], [*KINDS.values()])[0]
        if kind == "sdk":
            await self.sdk()
            return
        made = await self.claude() if kind.startswith("claude") else await self.codex()
        made.busy = True
        try:
            await self.client(made, "both" in kind)
        finally:
            made.busy = False

    async def claude(self) -> Claude:
        """A session that is free; now and then one ends, and another begins or is resumed."""
        free = [one for one in self.claudes if not one.busy]
        if len(self.claudes) >= 8 and free:
            one = self.rng.choice(free)
            if one.turns < 25:
                return one
            self.claudes.remove(one)
            self.retire(one.file)
        resumed = self.rng.choice(free) if free and self.rng.random() < 0.25 else None
        self.claudes.append(Claude(self.pen, resumed))
        return self.claudes[-1]

    async def codex(self) -> Codex:
        """The same for threads; a fork answers later than a second after its beginning, as any model does."""
        free = [one for one in self.codexes if not one.busy]
        if len(self.codexes) >= 4 and free:
            one = self.rng.choice(free)
            if one.turns < 25:
                return one
            self.codexes.remove(one)
            self.retire(one.file)
        parent = self.rng.choice(free) if free and self.rng.random() < 0.4 else None
        made = Codex(self.pen, parent if parent is not None and parent.turns > 2 else None)
        made.busy = True
        self.codexes.append(made)
        await asyncio.sleep(2.0 / self.pen.clock.rate)
        return made

    def retire(self, file: Transcript) -> None:
        """What becomes of a session's file."""
        what = self.rng.choice(("move", "replace", "delete", "leave"))
        if what == "move":
            file.moved()
        elif what == "replace":
            file.replaced()
        elif what == "delete":
            self.leaving.append(file)

    async def client(self, session: Claude | Codex, both: bool) -> None:
        """A turn that a client writes down, after it passed the proxy or not."""
        turn = self.ledger.turn(session.client, session.id, session.model, session.context)
        turn.begun = self.pen.clock.now()
        claude = isinstance(session, Claude)
        turn.name = f"msg_soak{turn.number:07d}" if claude else f"resp_soak{turn.number:07d}"
        if both:
            path = "/anthropic/v1/messages" if claude else "/openai/v1/responses"
            headers = [f"X-Claude-Code-Session-Id: {session.id}", "User-Agent: claude-cli/2.1.80"]
            headers = headers if claude else [f"Session_id: {session.id}", "User-Agent: codex_cli_rs/0.169.0"]
            plan = self.vendor.plan(
                turn, self.rng.choice(("stream", "stream", "plain", "slow")), path, self.pen.text(300, 4000)
            )
            if await self.wire.ask(turn, plan, path, *headers) != "whole":
                turn.state = "maybe"
                return
            self.vendor.plans.pop(turn.number)
        await session.take(turn)
        turn.done = self.pen.clock.now()
        if isinstance(session, Claude):
            self.shown(session)

    async def sdk(self) -> None:
        """A turn that only the proxy sees."""
        path, begun = self.rng.choice([*PATHS]), time.monotonic()
        how = self.rng.choices([*HOWS], [*HOWS.values()])[0]
        turn = self.ledger.turn(
            "sdk", f"sdk-{len(self.ledger.turns)}", self.rng.choice(PATHS[path]), self.rng.randrange(90_000)
        )
        turn.begun, turn.name = self.pen.clock.now(), f"{'msg' if 'mess' in path else 'resp'}_soak{turn.number:07d}"
        if how == "dead":
            plan = Plan(b"{}", b"", [], 502)
            said = await self.wire.refused(
                turn, plan, "/mistral/v1/chat/completions", f"X-Tokenops-Session-Id: {turn.session}"
            )
        else:
            plan = self.vendor.plan(turn, how, path, self.pen.text(300, 4000))
            said = await self.wire.ask(turn, plan, path, f"X-Tokenops-Session-Id: {turn.session}")
        # Where the clock was set back meanwhile, the request may have begun at a time that is still to come.
        latest = turn.begun + int(1000 * (time.monotonic() - begun) * self.pen.clock.rate)
        turn.done = max(self.pen.clock.now(), latest)
        if said == "broken":
            turn.state = "maybe"
        elif said == "whole":
            turn.state = "error" if plan.status >= 400 else "whole"
        elif "messages" in path:
            turn.state = said
        else:
            turn.state = f"{said}, unknown"
        if said != "left":  # the vendor is still answering
            self.vendor.plans.pop(turn.number, None)

    # What is asked.

    def shown(self, session: Claude) -> None:
        """A status line is drawn anew, unless four are being drawn: Claude Code drops those that come too late."""
        if len(self.lines) >= 4:
            return
        self.done["statusline"] = self.done.get("statusline", 0) + 1
        task = asyncio.create_task(self.status_line(session))
        self.lines.add(task)
        task.add_done_callback(self.lines.discard)

    async def status_line(self, session: Claude) -> None:
        now, begun = self.pen.clock.now(), time.monotonic()
        window = {"used_percentage": now // 180_000 % 100, "resets_at": (now // 18_000_000 + 1) * 18_000}
        said: Json = {"session_id": session.id, "transcript_path": str(session.file.path), "cwd": "/home/ada/code"}
        said |= {
            "model": {"id": session.model, "display_name": session.model},
            "cost": {"total_cost_usd": session.turns / 7},
        }
        done = await self.commands.run(
            "tok-statusline", given=json.dumps(said | {"rate_limits": {"five_hour": window}}).encode()
        )
        if done.status == 0 and done.out.count(b"\n") != 1:
            self.wrong.append(f"tok-statusline printed {done.out!r}")
        shared = json.loads(self.shared.read_bytes()) if self.shared.exists() else {}
        ahead = shared.get("at", 0) - max(now, self.pen.clock.now())
        if ahead > HOUR and begun > self.pen.clock.jumped + 5 and not self.commands.excused:
            self.wrong.append(f"tok-statusline shows what was worked out {ahead / HOUR:.1f} h from now")

    async def ask_agent(self) -> None:
        await self.agent.call(TOOLS[self.agent.number % len(TOOLS)])

    async def ask_budget(self) -> None:
        await self.commands.run("tok-budget", "--json", allowed=(0, 3, 4, 5))

    async def look(self) -> None:
        """One of the open pages renews itself; now and then somebody tries a wrong token."""
        browser = self.rng.choice(self.browsers)
        with contextlib.suppress(ConnectionError, OSError):  # it is being started again
            if self.rng.random() < 0.01:
                status, _, _ = await browser.get("/api/budget", {"Authorization": "Bearer wrong"})
                if status not in (401, 429):
                    self.wrong.append(f"a wrong token was answered {status}")
            else:
                await browser.refresh(self.rng.choice(PAGES))

    async def syncing(self) -> None:
        """As cron does; one run in five is suspended, one in five killed."""
        await asyncio.sleep(2)  # until there is something to read
        while not self.stopping:
            begun = time.monotonic()
            took = (self.commands.times["tok-sync"] or [100.0])[-1] / 1000
            hurt = {1: suspended(self.rng, took), 3: killed(self.rng, took)}.get(self.done.get("sync", 0) % 5)
            done = await self.commands.run("tok-sync", hurt=hurt)
            self.done["sync"] = self.done.get("sync", 0) + 1
            if done.status == 0 and done.out and b'"unread":0' in done.out:
                for file in [one for one in self.leaving if one.touched < begun]:
                    file.path.unlink()
                    self.leaving.remove(file)
                    self.deleted += 1
            await asyncio.sleep(max(0.0, begun + SYNC_S - time.monotonic()) if not self.stopping else 0)


def suspended(rng: random.Random, took: float) -> Callable[[asyncio.subprocess.Process], Awaitable[None]]:
    """Stop a process somewhere in the middle, for seconds."""

    async def hurt(process: asyncio.subprocess.Process) -> None:
        await asyncio.sleep(rng.random() * took)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(1 + rng.random() * 2)
            process.send_signal(signal.SIGCONT)

    return hurt


def killed(rng: random.Random, took: float) -> Callable[[asyncio.subprocess.Process], Awaitable[None]]:
    """Kill a process somewhere in the middle."""

    async def hurt(process: asyncio.subprocess.Process) -> None:
        await asyncio.sleep(rng.random() * took)
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    return hurt
