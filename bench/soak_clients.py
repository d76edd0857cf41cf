"""Clients that write transcripts as Claude Code and Codex do: lines cut anywhere, copies, files moved, replaced and deleted."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import pathlib
import random
import time
from typing import Any

import make_logs
from soak_clock import Clock
from soak_ledger import Turn
from soak_wire import claude_usage, gpt_usage

Json = dict[str, Any]


class Pen:
    """What all transcripts are made with: a home, chance, code-like text, and the injected clock."""

    def __init__(self, home: pathlib.Path, clock: Clock, rng: random.Random) -> None:
        self.home, self.clock, self.rng = home, clock, rng
        self.pool = json.loads('"' + "\\n".join(make_logs.text_pool(random.Random(1))) + '"')

    def text(self, low: int, high: int) -> str:
        """So much text."""
        size = self.rng.randrange(low, high)
        at = self.rng.randrange(len(self.pool) - size)
        return str(self.pool[at : at + size])

    def result(self) -> str:
        """A tool's result, as long as real ones are."""
        sizes = [(200, 1500), (1500, 6000), (6000, 24_000), (24_000, 80_000)]
        return self.text(*self.rng.choices(sizes, [50, 30, 17, 3])[0])

    def uuid(self) -> str:
        made = f"{self.rng.getrandbits(128):032x}"
        return f"{made[:8]}-{made[8:12]}-4{made[13:16]}-8{made[17:20]}-{made[20:]}"

    def stamp(self) -> tuple[int, str]:
        """The present moment, as a number and as clients write it."""
        now = self.clock.now()
        at = datetime.datetime.fromtimestamp(now // 1000, datetime.UTC)
        return now, f"{at:%Y-%m-%dT%H:%M:%S}.{now % 1000:03d}Z"


class Transcript:
    """A file that grows. `lines`: what stands in it, whole; `touched`: when it was written last."""

    def __init__(self, pen: Pen, path: pathlib.Path, copied: list[bytes]) -> None:
        self.pen, self.path = pen, path
        self.lines: list[bytes] = []
        self.touched = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        if copied:
            self._append(b"".join(copied))
            self.lines += copied

    def _append(self, data: bytes) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        self.touched = time.monotonic()

    async def write(self, record: Json) -> None:
        """A line, in pieces cut anywhere; now and then a reader has time to see half of it."""
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        rng, rest = self.pen.rng, line
        while rest:
            cut = rng.randrange(1, len(rest) + 1) if rng.random() < 0.3 else len(rest)
            self._append(rest[:cut])
            rest = rest[cut:]
            if rest:
                await asyncio.sleep(rng.random() * 0.3 if rng.random() < 0.2 else 0)
        self.lines.append(line)

    def moved(self) -> None:
        """The same file by another name."""
        place = self.path.with_name(f"{self.path.stem}-{self.pen.rng.getrandbits(16):04x}.jsonl")
        if not self.path.name.startswith("rollout-"):  # a rollout's name is its thread's
            os.rename(self.path, place)
            self.path = place

    def replaced(self) -> None:
        """Written anew and put in the old one's place."""
        beside = self.path.with_suffix(".tmp")
        beside.write_bytes(b"".join(self.lines))
        os.replace(beside, self.path)
        self.touched = time.monotonic()


class Claude:
    """A session of Claude Code. One that is resumed begins with a copy of another's lines."""

    client = "claude-code"

    def __init__(self, pen: Pen, resumed: Claude | None) -> None:
        self.pen, self.id, self.project = pen, pen.uuid(), f"project-{pen.rng.randrange(12):02d}"
        self.model = pen.rng.choices(("claude-opus-4-6", "claude-haiku-4-5"), [3, 1])[0]
        self.turns, self.context, self.busy = 0, pen.rng.randrange(9000, 20_000), False
        copied = resumed.file.lines[: len(resumed.file.lines) // 2] if resumed else []
        folder = pen.home / f".claude/projects/-home-ada-code-{self.project}"
        self.file: Transcript = Transcript(pen, folder / f"{self.id}.jsonl", copied)
        self.write = self.file.write

    def _line(self, kind: str, message: Json, **more: Any) -> tuple[int, Json]:
        now, stamp = self.pen.stamp()
        line: Json = {"parentUuid": self.pen.uuid(), "isSidechain": False, "userType": "external"}
        line |= {"cwd": f"/home/ada/code/{self.project}", "sessionId": self.id, "version": "2.1.80", "gitBranch": "main"}
        return now, line | {"message": message, **more, "type": kind, "uuid": self.pen.uuid(), "timestamp": stamp}

    async def take(self, turn: Turn) -> None:
        """Write a turn down: prompt, the message as it streams, tool results, snapshots."""
        rng, pen = self.pen.rng, self.pen
        if rng.random() < 0.12 or not self.turns:
            await self.write(self._line("user", {"role": "user", "content": pen.text(30, 400)})[1])
        tool, count = f"toolu_{rng.getrandbits(90):022x}", rng.choice(make_logs.REPEATS)
        for number in range(count):
            last = number == count - 1
            output = turn.counts["output_tokens"] if last else min(rng.randrange(1, 9), turn.counts["output_tokens"])
            block: Json = {"type": "text", "text": pen.text(60, 900)}
            if last:
                block = {"type": "tool_use", "id": tool, "name": "Bash", "input": {"command": pen.text(60, 900)}}
            message: Json = {
                "model": turn.model,
                "id": turn.name,
                "type": "message",
                "role": "assistant",
                "content": [block],
            }
            message |= {"stop_reason": "tool_use" if last else None, "usage": claude_usage(turn.counts, output)}
            now, line = self._line("assistant", message, requestId=f"req_{turn.number}")
            await self.write(line)
            turn.told = min(turn.told or now, now)
        turn.logged = True
        await self._results(tool)
        self.turns += 1
        self.context = min(self.context + 4000, 180_000)

    async def _results(self, tool: str) -> None:
        while True:
            content = self.pen.result()
            result = {"tool_use_id": tool, "type": "tool_result", "content": content}
            await self.write(
                self._line("user", {"role": "user", "content": [result]}, toolUseResult={"stdout": content[:99]})[1]
            )
            if self.pen.rng.random() > 0.58:
                return
            snapshot = {"trackedFileBackups": {}, "timestamp": self.pen.stamp()[1]}
            await self.write({"type": "file-history-snapshot", "messageId": self.pen.uuid(), "snapshot": snapshot})


class Codex:
    """A thread of Codex. Its counts grow from line to line; a fork begins with its parent's lines, under new times."""

    client = "codex"

    def __init__(self, pen: Pen, parent: Codex | None) -> None:
        self.pen, self.id, self.model = pen, pen.uuid(), pen.rng.choice(("gpt-5.4", "gpt-5.4-mini"))
        self.turns, self.context, self.busy = 0, pen.rng.randrange(9000, 20_000), False
        if parent is not None:
            self.model = parent.model
            # Not to be deleted before its fork was read, too: docs/oddities.md says what is counted then.
            parent.file.touched = time.monotonic()
        self.totals = dict.fromkeys(("input", "cached", "output"), 0)
        _, at = pen.stamp()
        name = f".codex/sessions/{at[:10].replace('-', '/')}/rollout-{at[:19].replace(':', '-')}-{self.id}.jsonl"
        meta: Json = {"id": self.id, "timestamp": at, "cwd": "/home/ada/code/threads", "originator": "codex_cli_rs"}
        meta |= {"source": "cli", "model_provider": "openai", "base_instructions": {"text": pen.text(9000, 12_000)}}
        copied = []
        if parent is not None:
            meta["forked_from_id"] = parent.id
            earlier = [json.loads(line) for line in parent.file.lines[: len(parent.file.lines) // 2]]
            copied = [{**line, "timestamp": at} for line in earlier]
            infos = [one["payload"]["info"] for one in copied if one["payload"].get("type") == "token_count"]
            if infos:
                said = infos[-1]["total_token_usage"]
                self.totals = {
                    "input": said["input_tokens"],
                    "cached": said["cached_input_tokens"],
                    "output": said["output_tokens"],
                }
        head = [{"timestamp": at, "type": "session_meta", "payload": meta}, *copied]
        if parent is not None:  # it goes on as a thread of its own
            head.append(self._context(at))
        lines = [json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in head]
        self.file: Transcript = Transcript(pen, pen.home / name, lines)
        self.write = self.file.write

    def _context(self, at: str) -> Json:
        return {
            "timestamp": at,
            "type": "turn_context",
            "payload": {"turn_id": "t", "model": self.model, "cwd": "/home/ada/code"},
        }

    async def take(self, turn: Turn) -> None:
        """Write a turn down: reasoning, a call, its output, and the counts, at times twice."""
        pen, rng = self.pen, self.pen.rng
        if not self.turns:
            await self.write(self._context(pen.stamp()[1]))
        items: list[Json] = [{"type": "reasoning", "summary": [], "encrypted_content": f"{rng.getrandbits(4000):01000x}"}]
        items += [{"type": "function_call", "name": "exec_command", "arguments": pen.text(90, 400), "call_id": "c"}]
        items += [{"type": "function_call_output", "call_id": "c", "output": pen.result()}]
        for item in items:
            await self.write({"timestamp": pen.stamp()[1], "type": "response_item", "payload": item})
        said = gpt_usage(turn.counts, "input", "output")
        last = {"input": said["input"], "cached": said["input_details"]["cached_tokens"], "output": said["output"]}
        self.totals = {name: self.totals[name] + n for name, n in last.items()}
        used = {"used_percent": self.pen.clock.now() // 600_000 % 100, "window_minutes": 300}
        used["resets_at"] = (self.pen.clock.now() // 18_000_000 + 1) * 18_000
        count = {"type": "token_count", "info": {"total_token_usage": _used(self.totals), "last_token_usage": _used(last)}}
        count["rate_limits"] = {"limit_id": "codex", "primary": used, "secondary": None, "plan_type": "plus"}
        for _ in range(1 + (rng.random() < 0.4)):
            now, stamp = pen.stamp()
            await self.write({"timestamp": stamp, "type": "event_msg", "payload": count})
            turn.told = turn.told or now
        turn.logged = True
        self.turns += 1
        self.context = min(self.context + 4000, 180_000)


def _used(counts: Json) -> Json:
    made = {"input_tokens": counts["input"], "cached_input_tokens": counts["cached"], "output_tokens": counts["output"]}
    return made | {"reasoning_output_tokens": 0, "total_tokens": counts["input"] + counts["output"]}
