"""A home directory as four clients would leave it after some weeks of work, and what they used: written down while it is made.

Everything that real logs do is in it: messages written several times while they stream, resumed copies of sessions, files of
subagents, threads that were forked and repeat their parent's lines, totals that stand still, torn lines, idle hours after
which a cache has expired, and prompts and commands of all sorts. The same every time.
"""

from __future__ import annotations

import collections
import datetime
import json
import pathlib
import random
from typing import Any

import pytest
import test_read_copilot
import test_read_gemini
from scripts import Claude, Codex

from conftest import Json, codex_count, put

NOW = "2026-07-07T12:00:00.000Z"
SESSIONS, THREADS = 22, 9
PROJECTS = ("orchard", "lighthouse", "app", "harbour")
MODELS = ("claude-opus-4-6", "claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5-20251001")
PROMPTS = (
    "Rename load_page to fetch_page in src/loader.py and in its tests, and keep the old name as an alias",
    "Why is the list of orders empty when the month has no entry? Look at src/orders.py first",
    "Write a migration that adds the column seen_at to the table pages, null by default",
    "no, that is the wrong file, I meant the one in lib",
    "ok",
    "yes, go on",
    "The test test_empty_page fails since yesterday, find out why before you change anything",
    "Add a flag --quiet to cli.py that leaves out everything but errors, with a test",
    "fix it",
    "Explain how the scheduler chooses between two jobs of the same priority",
    "Replace the loop in src/merge.py by heapq.merge and show the timing before and after",
    "revert that, it broke the import",
)
REPLIES = (
    "I looked at the loader and found that the last line is dropped when the file has no newline at its end. The fix is in place.",
    "The tests pass now. I have left the old name where others import it, and said so in the changelog.",
    "There are two ways to do this. The first one keeps the table as it is, and the second one is faster. Shall I take the first?",
    "The reason is that the month is compared as a text, so that 10 comes before 9. I will turn it into a number.",
)
COMMANDS = (
    "make test",
    "git status",
    "pytest -q tests/test_loader.py",
    "ls src",
    "rm -rf build",
    "git push --force origin main",
)
CLASSES = ("turns", "input", "cache_read", "cache_write", "cache_write_1h", "output", "reasoning")
# Client -> model -> counts.
Truth = dict[str, dict[str, collections.Counter[str]]]


class Home:
    """The home, and the truth about it."""

    def __init__(self, root: pathlib.Path, forks: bool = True) -> None:
        self.root, self.draw, self.forks = root, random.Random(5), forks
        self.truth: Truth = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
        self.begin = datetime.datetime(2026, 5, 1, 8)
        for number in range(SESSIONS):
            self.session(number)
        for number in range(THREADS):
            self.thread(number)
        self.chats()
        self.calls()

    def used(self, client: str, model: str, *counts: int) -> None:
        """A turn: input, cache read, cache write, cache write for an hour, output, reasoning."""
        self.truth[client][model].update(dict(zip(CLASSES, (1, *counts), strict=True)))

    def day(self, number: int, of: int) -> str:
        """When the n-th session begins: spread over nine weeks."""
        minutes = number * 66 * 1440 // of + self.draw.randrange(600)
        return (self.begin + datetime.timedelta(minutes=minutes)).isoformat()

    # Claude Code.

    def session(self, number: int) -> None:
        """A transcript, every fourth with a subagent and every fifth with a resumed copy of its first half."""
        project = PROJECTS[number % len(PROJECTS)]
        script = Claude(f"5e55{number:04x}-0000-4000-8000-00000000c0de", self.day(number, SESSIONS), f"/home/ada/{project}")
        folder = self.root / f".claude/projects/-home-ada-{project}"
        talk = Talk(self, script, MODELS[number % len(MODELS)], hour=number % 3 == 0)
        for _ in range(self.draw.randrange(5, 12)):
            talk.round()
        torn = b'{"type":"assistant","message":{"id":"msg_torn","usage":{"output_tok\n' if number % 7 == 0 else b""
        put(folder / f"{script.session}.jsonl", script.bytes(), torn)
        if number % 4 == 0:
            side = Claude(script.session, script.now.isoformat(), script.cwd, isSidechain=True, agentId=f"a{number:06x}")
            side.number = 1000  # no line is called like one of the session's own
            other = Talk(self, side, "claude-haiku-4-5-20251001", name=f"side{number}")
            side.human("Look into src/deep.py and say what it does")
            other.answer("Read", file_path="src/deep.py")
            other.answer()
            put(folder / script.session / f"subagents/agent-a{number:06x}.jsonl", side.bytes())
        if number % 5 == 0 and self.forks:
            copied = [dict(line, sessionId=f"copy{number:04x}") for line in script.lines[: len(script.lines) // 2]]
            put(folder / f"copy{number:04x}.jsonl", *copied)

    # Codex.

    def thread(self, number: int) -> None:
        """A rollout, every third with a fork that repeats all of it before it goes on."""
        script = Codex(self.day(number, THREADS), cwd=f"/home/ada/{PROJECTS[number % 3]}")
        script.number = 100 * number
        total = [0, 0, 0, 0]
        used = self.draw.randrange(5, 30)
        for _ in range(self.draw.randrange(3, 8)):
            script.turn()
            script.human(self.draw.choice(PROMPTS))
            script.runs(self.draw.choice(COMMANDS), code=self.draw.choice((0, 0, 0, 1)))
            used += self.draw.randrange(1, 6)
            self.count(script, total, used, moves=True)
            if self.draw.random() < 0.4:
                self.count(script, total, used, moves=False)
            script.says(self.draw.choice(REPLIES))
        path = self.rollout(script)
        if number % 3 == 0 and self.forks:
            script.now += datetime.timedelta(hours=3)
            fork = Codex(script.now.isoformat(), cwd=f"/home/ada/{PROJECTS[number % 3]}", forked_from_id=script.thread)
            fork.number = 100 * number + 50
            stamp = fork.lines[0]["timestamp"]
            fork.lines += [{**line, "timestamp": stamp} for line in map(json.loads, path.read_bytes().splitlines()[1:])]
            fork.turn()
            fork.human("go on from here, please")
            self.count(fork, total, used, moves=True)
            self.rollout(fork)

    def count(self, script: Codex, total: list[int], used: int, moves: bool) -> None:
        """A line of counts with the limits of the plan; the totals move, or they stand where they are."""
        fresh = self.draw.randrange(200, 3000)
        last = [fresh + total[0] // 2, total[0] // 2, self.draw.randrange(40, 900), self.draw.randrange(0, 40)]
        if moves:
            total[:] = [a + b for a, b in zip(total, last, strict=True)]
            self.used("codex", "gpt-5.4", last[0] - last[1], last[1], 0, 0, last[2], last[3])
        made = codex_count(tuple(total), tuple(last))  # type: ignore[arg-type]
        end = int(script.now.replace(tzinfo=datetime.UTC, hour=0, minute=0, second=0).timestamp()) + 86_400
        window = {"used_percent": float(used), "window_minutes": 300, "resets_at": end}
        script.line(
            "event_msg", made["payload"] | {"rate_limits": {"primary": window, "secondary": None, "plan_type": "pro"}}
        )

    def rollout(self, script: Codex) -> pathlib.Path:
        """Write a rollout where Codex puts it."""
        day = script.lines[0]["timestamp"]
        name = f"rollout-{day[:19].replace(':', '-')}-{script.thread}.jsonl"
        return put(self.root / ".codex/sessions" / day[:10].replace("-", "/") / name, script.bytes())

    # Gemini CLI, and Copilot CLI.

    def chats(self) -> None:
        """Two sessions of Gemini CLI: what is cached stands inside the input, thoughts beside the output."""
        for chat in range(2):
            made = []
            for number in range(6):
                sent, got, cached, thought = (
                    self.draw.randrange(*span) for span in ((9000, 9999), (10, 90), (0, 8000), (0, 700))
                )
                tokens = {"input": sent, "output": got, "cached": cached, "thoughts": thought, "total": sent + got + thought}
                made.append(test_read_gemini.message(f"m{chat}-{number}", f"2026-06-1{chat}T11:0{number}:32.000Z", **tokens))
                self.used("gemini-cli", "gemini-3-flash-preview", sent - cached, cached, 0, 0, got + thought, thought)
            path = test_read_gemini.chat(self.root, f"session-{chat}.json")
            put(path, test_read_gemini.document(*made, session=f"g{chat}"))
        put(self.root / ".gemini/trustedFolders.json", {test_read_gemini.PROJECT: "TRUST_FOLDER"})

    def calls(self) -> None:
        """A session of Copilot CLI: both parts of the cache stand inside the input."""
        rows = []
        for number in range(7):
            read, wrote, fresh, got = (self.draw.randrange(1, most) for most in (9000, 2000, 300, 800))
            counts = {"cache_read_tokens": read, "cache_write_tokens": wrote, "input_tokens": read + wrote + fresh}
            counts |= {"output_tokens": got, "reasoning_tokens": 0, "total_nano_aiu": 0}
            rows.append(test_read_copilot.row(ts=f"2026-06-20T09:0{number}:10.000Z", **counts))
            self.used("copilot-cli", "claude-sonnet-4.6", fresh, read, wrote, 0, got, 0)
        test_read_copilot.keep(self.root, *rows)


class Talk:
    """A conversation with Claude Code, and its cache: what was sent is read again, unless too much time has passed."""

    def __init__(self, home: Home, script: Claude, model: str, hour: bool = False, name: str = "") -> None:
        self.home, self.script, self.model, self.hour = home, script, model, hour
        self.name = name or script.session[4:8]
        self.context = self.number = 0
        self.last = script.now

    def round(self) -> None:
        """A prompt, tools, and a reply; now and then after a long pause."""
        draw, script = self.home.draw, self.script
        script.human(draw.choice(PROMPTS), seconds=draw.choice((30, 60, 90, 900, 5400)))
        for _ in range(draw.randrange(0, 4)):
            tool = draw.choice(("Read", "Read", "Bash", "Edit"))
            given: dict[str, Any] = {"file_path": f"/home/ada/src/{draw.choice('abc')}.py"}
            call = self.answer(tool, **({"command": draw.choice(COMMANDS)} if tool == "Bash" else given))
            script.result(call, "x" * draw.randrange(20, 400), error=draw.random() < 0.15)
        self.answer()

    def answer(self, tool: str = "", **given: Any) -> str:
        """A message, written one to three times while it streams; the call's id, if it calls a tool."""
        draw, script = self.home.draw, self.script
        script.now += datetime.timedelta(seconds=draw.randrange(3, 40))
        pause, self.last = (script.now - self.last).total_seconds(), script.now
        fresh, grown, output = draw.randrange(1, 20), draw.randrange(100, 4000), draw.randrange(20, 1500)
        kept = self.context if pause <= (3600 if self.hour else 300) else 0
        wrote = self.context - kept + grown
        self.context += grown
        self.number += 1
        call = f"toolu_{self.name}_{self.number}"
        reply: Json = {"type": "text", "text": draw.choice(REPLIES)}
        if tool:
            reply = {"type": "tool_use", "id": call, "name": tool, "input": given}
        times = draw.choice((1, 1, 2, 3))
        for time in range(times):
            whole = time == times - 1
            usage = {"input_tokens": fresh, "cache_read_input_tokens": kept, "cache_creation_input_tokens": wrote}
            usage |= {"output_tokens": output if whole else 1 + time, "service_tier": "standard"}
            five = {
                "ephemeral_5m_input_tokens": 0 if self.hour else wrote,
                "ephemeral_1h_input_tokens": wrote if self.hour else 0,
            }
            body: Json = {
                "model": self.model,
                "id": f"msg_{self.name}_{self.number}",
                "type": "message",
                "role": "assistant",
            }
            body |= {"content": [reply] if whole else [{"type": "thinking", "thinking": ""}], "stop_reason": None}
            body["usage"] = usage | {"cache_creation": five}
            script.line(1, type="assistant", message=body, requestId=f"req_{self.name}_{self.number}")
        wrote_5m, wrote_1h = (0, wrote) if self.hour else (wrote, 0)
        self.home.used("claude-code", self.model, fresh, kept, wrote_5m, wrote_1h, output, 0)
        return call


@pytest.fixture(scope="session")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home after nine weeks of work, and the truth about it. Nobody changes it."""
    return Home(tmp_path_factory.mktemp("weeks"))
