"""Write a home directory of synthetic Claude Code logs, for measurements.

    python bench/make_logs.py DIRECTORY [--mib 1024] [--seed 1]

File sizes follow a quantile curve published by another reader's benchmark (median 105 KB, 99 % below 5.4 MB, one of
87 MB at 1.2 GB). What the lines hold follows real logs: three lines in five carry no usage (prompts, tool results,
snapshots), a message is written 1.8 times on average while it streams, one session in twelve is a resumed copy of
another's beginning, one in eight has subagent files, and text is code-like, with escapes and multi-byte characters.
The same arguments always give the same bytes.
"""

from __future__ import annotations

import argparse
import bisect
import datetime
import json
import pathlib
import random
import zlib
from typing import IO

QUANTILES = [
    (0.0, 236),
    (0.5, 105_267),
    (0.75, 233_572),
    (0.9, 653_972),
    (0.95, 1_504_757),
    (0.99, 5_383_751),
    (1.0, 87_033_471),
]
MODELS = ["claude-opus-4-6", "claude-sonnet-4-6", "claude-opus-4-8", "claude-haiku-4-5-20251001", "claude-sonnet-5"]
# Lines per message in real logs: 44 % once, 42 % twice, 8 % three times, the rest more often.
REPEATS = [1] * 44 + [2] * 42 + [3] * 8 + [4] * 4 + [6] * 2
WORDS = [
    "def",
    "return",
    "self",
    "value",
    "index",
    "the",
    "of",
    "and",
    "to",
    "in",
    "path",
    "file",
    "test",
    "error",
    "result",
    "async",
    "await",
    "import",
    "from",
    "class",
    "None",
    "True",
    "für",
    "größer",
    "naïve",
    "日本語",
    "コメント",
    "→",
    "✓",
    "🚀",
    "const",
    "function",
    "export",
    "interface",
    "string",
    "number",
    "boolean",
    "undefined",
    "null",
]
START = datetime.datetime(2025, 12, 1, tzinfo=datetime.UTC)


def sizes(total: int) -> list[int]:
    """File sizes in bytes whose sum is about `total`, along the quantile curve, largest not first."""
    count = max(1, round(total / 2**20 / 1238.97 * 3142))
    points = [p for p, _ in QUANTILES]
    raw = []
    for i in range(count):
        p = (i + 0.5) / count
        k = max(1, bisect.bisect_left(points, p))
        (p0, s0), (p1, s1) = QUANTILES[k - 1], QUANTILES[k]
        raw.append(s0 + (s1 - s0) * (p - p0) / (p1 - p0))
    scale = total / sum(raw)
    scaled = [max(256, int(r * scale)) for r in raw]
    return [scaled[(i * (count - 1) + 17) % count] for i in range(count)]


def text_pool(rng: random.Random) -> list[str]:
    """Lines of code-like text, already escaped for JSON."""
    pool = []
    for _ in range(4000):
        words = rng.choices(WORDS, k=rng.randint(2, 14))
        line = " " * (4 * rng.randint(0, 4)) + " ".join(words)
        if rng.random() < 0.3:
            line += ' = \\"' + rng.choice(WORDS) + '\\";'
        if rng.random() < 0.002:  # so a tool result in ten has such escapes (real ones: one in fifteen)
            line += " \\\\d+\\t\\u001b[0m"
        pool.append(line)
    return pool


class Session:
    """The lines of one session file, produced until a byte budget is spent."""

    def __init__(self, rng: random.Random, pool: list[str], number: int, project: str) -> None:
        self.above = ""  # the uuid of the line before
        self.rng, self.pool, self.project = rng, pool, project
        self.id = (
            f"{rng.getrandbits(32):08x}-{number % 65536:04x}-4{rng.getrandbits(12):03x}-8000-{rng.getrandbits(48):012x}"
        )
        self.now = START + datetime.timedelta(seconds=rng.randint(0, 330 * 86400))
        self.model = rng.choice(MODELS)
        self.context = rng.randint(12_000, 20_000)
        self.sidechain = "false"
        self.agent = ""

    def text(self, low: int, high: int) -> str:
        """About low..high characters of escaped text."""
        want = self.rng.randint(low, high)
        count = max(1, want // 55)
        first = self.rng.randrange(len(self.pool))
        lines = self.pool[first : first + count]
        while len(lines) < count:
            lines = lines + self.pool[: count - len(lines)]
        return "\\n".join(lines)

    def head(self) -> str:
        uuid = f"{self.rng.getrandbits(32):08x}-5555-4444-8888-{self.rng.getrandbits(48):012x}"
        return (
            f'{{"parentUuid":"{self.above or uuid}","isSidechain":{self.sidechain},{self.agent}"userType":"external","cwd":"/home/ada/code/'
            f'{self.project}","sessionId":"{self.id}","version":"2.1.80","gitBranch":"main",'
        )

    def tail(self, kind: str) -> str:
        self.now += datetime.timedelta(milliseconds=self.rng.randint(300, 20_000))
        stamp = self.now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.now.microsecond // 1000:03d}Z"
        uuid = f"{self.rng.getrandbits(32):08x}-6666-4444-8888-{self.rng.getrandbits(48):012x}"
        self.above = uuid
        return f'"type":"{kind}","uuid":"{uuid}","timestamp":"{stamp}"'

    def prompt(self) -> str:
        return f'{self.head()}"message":{{"role":"user","content":"{self.text(30, 400)}"}},{self.tail("user")}}}\n'

    def tool_result(self, tool: str) -> str:
        size = self.rng.choices([(200, 1500), (1500, 6000), (6000, 24_000), (24_000, 80_000)], [50, 30, 17, 3])[0]
        content = self.text(*size)
        return (
            f'{self.head()}"message":{{"role":"user","content":[{{"tool_use_id":"{tool}","type":"tool_result","content":'
            f'"{content}"}}]}},{self.tail("user")},"toolUseResult":{{"stdout":"{content[:200].rpartition(" ")[0].rstrip(chr(92))}",'
            f'"stderr":"","interrupted":false}}}}\n'
        )

    def snapshot(self) -> str:
        return (
            f'{{"type":"file-history-snapshot","messageId":"{self.rng.getrandbits(64):016x}","snapshot":{{"trackedFileBackups":'
            f'{{}},"timestamp":"2026-01-01T00:00:00.000Z"}},"isSnapshotUpdate":false}}\n'
        )

    def answer(self) -> tuple[list[str], str]:
        """The lines of one message, output counts growing, and the id of its last tool call."""
        rng = self.rng
        message, request = f"msg_01{rng.getrandbits(100):025x}", f"req_011{rng.getrandbits(90):023x}"
        write, fresh, final = rng.randint(200, 6000), rng.randint(1, 12), rng.randint(40, 2500)
        tool = f"toolu_01{rng.getrandbits(90):022x}"
        lines, count = [], rng.choice(REPEATS)
        for k in range(count):
            last = k == count - 1
            if last:
                kind = rng.choice(["Read", "Bash", "Edit", "Grep"])
                given = self.text(60, 1600)
                block = f'{{"type":"tool_use","id":"{tool}","name":"{kind}","input":{{"command":"{given}"}},"caller":{{"type":"direct"}}}}'
            elif k == 0 and count > 2:
                block = (
                    f'{{"type":"thinking","thinking":"{self.text(100, 1500)}","signature":"{rng.getrandbits(1600):0400x}"}}'
                )
            else:
                block = f'{{"type":"text","text":"{self.text(60, 900)}"}}'
            output = final if last else rng.randint(1, 8)
            lines.append(
                f'{self.head()}"message":{{"model":"{self.model}","id":"{message}","type":"message","role":"assistant","content":['
                f'{block}],"stop_reason":{chr(34) + "tool_use" + chr(34) if last else "null"},"stop_sequence":null,"usage":{{'
                f'"input_tokens":{fresh},"cache_creation_input_tokens":{write},"cache_read_input_tokens":{self.context},'
                f'"cache_creation":{{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":{write}}},"output_tokens":{output},'
                f'"service_tier":"standard","inference_geo":"not_available"}}}},"requestId":"{request}",{self.tail("assistant")}}}\n'
            )
        self.context = min(self.context + write + final, 180_000)
        return lines, tool

    def lines(self, budget: int) -> list[bytes]:
        out: list[bytes] = []
        spent = 0
        while spent < budget:
            block = [self.prompt()] if self.rng.random() < 0.12 else []
            answers, tool = self.answer()
            block += answers
            block.append(self.tool_result(tool))
            # To three lines in five without usage.
            while self.rng.random() < 0.58:
                block.append(self.snapshot() if self.rng.random() < 0.5 else self.tool_result(tool))
            for line in block:
                data = line.encode()
                out.append(data)
                spent += len(data)
        return out


def write(home: pathlib.Path, total: int, seed: int) -> dict[str, int]:
    """Write the logs below home/.claude/projects; counts of files, lines and bytes."""
    rng = random.Random(seed)
    pool = text_pool(rng)
    done = {"files": 0, "lines": 0, "bytes": 0}

    def put(path: pathlib.Path, lines: list[bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = b"".join(lines)
        path.write_bytes(data)
        done["files"] += 1
        done["lines"] += len(lines)
        done["bytes"] += len(data)

    earlier: list[bytes] = []
    for i, size in enumerate(sizes(int(total * 0.95))):  # the last block of a file goes a little over
        project = f"project-{i % 128:03d}"
        folder = home / ".claude" / "projects" / f"-home-ada-code-{project}"
        session = Session(rng, pool, i, project)
        resumed = earlier if earlier and rng.random() < 1 / 12 else []
        resumed = resumed[: max(1, len(resumed) // 2)]
        copied = sum(map(len, resumed))
        if copied > size:
            resumed, copied = [], 0
        lines = session.lines(size - copied)
        put(folder / f"{session.id}.jsonl", resumed + lines)
        if size < 300_000:
            earlier = lines
        if rng.random() < 1 / 8:
            session.sidechain, session.agent = "true", f'"agentId":"a{rng.getrandbits(28):07x}",'
            put(folder / session.id / "subagents" / f"agent-a{i:06x}.jsonl", session.lines(size // 20))
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description="synthetic Claude Code logs")
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    print(write(chosen.directory, chosen.mib * 2**20, chosen.seed))


if __name__ == "__main__":
    main()


YEAR_MODELS = (
    ("anthropic", "claude-opus-4-6"),
    ("anthropic", "claude-haiku-4-5"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-5.4-mini"),
)


def write_year(out: IO[bytes], now: str, turns: int = 1_000_000, seed: int = 1) -> None:
    """Events of a year before `now`, as tok-read emits them."""
    rng = random.Random(seed)
    end = int(datetime.datetime.fromisoformat(now).timestamp() * 1000)
    step = 365 * 86_400_000 // turns
    for number in range(turns):
        at = end - (turns - number) * step
        moment = datetime.datetime.fromtimestamp(at / 1000, datetime.UTC)
        # Thirty sessions a day, two at a time, each of an hour and a half.
        session = f"{moment:%Y%m%d}-{(moment.hour * 60 + moment.minute) // 96 * 2 + rng.randrange(2):04d}"
        project = f"project-{hash_of(session) % 12}"
        provider, model = YEAR_MODELS[hash_of(session) % 4]
        agent = f"claude-code:{project}"
        out.write(
            b'{"v":1,"ts":"%s.%03dZ","kind":"turn","id":"msg_%012d","source":"claude-code-jsonl","client":"claude-code","project":"%s",'
            b'"agent_id":"%s","workflow_id":"%s:%s","session_id":"%s","provider":"%s","model":"%s","turns":1,"input_tokens":%d,'
            b'"cache_read_tokens":%d,"cache_write_1h_tokens":%d,"output_tokens":%d}\n'
            % (
                f"{moment:%Y-%m-%dT%H:%M:%S}".encode(), at % 1000, number, project.encode(), agent.encode(), agent.encode(),
                session.encode(), session.encode(), provider.encode(), model.encode(), rng.randrange(1, 2000),
                rng.randrange(200_000), rng.randrange(9000), rng.randrange(1, 3000),
            )
        )  # fmt: skip


# The session of `write_contexts` that is asked for.
LONGEST_SESSION = "10a65e55-0000-4000-8000-000000000000"
_TOOLS = ("Read", "Bash|npm test", "Bash|git diff", "Bash|other", "Edit", "Grep", "Glob", "Write", "mcp__hub__find")


def write_contexts(out: IO[bytes], now: str, days: int, turns: int, longest: int, seed: int = 1) -> None:
    """Turns of some days before `now`, so many a day, each with the sizes of what entered its context, as tok-read emits them.

    One session in the middle has `longest` turns.
    """
    rng = random.Random(seed)
    end = int(datetime.datetime.fromisoformat(now).timestamp() * 1000)
    for day in range(days):
        left = turns
        while left > 0:
            is_longest = day == days // 2 and left == turns
            count = min(longest if is_longest else rng.randrange(20, 150), left)
            name = LONGEST_SESSION if is_longest else f"{rng.getrandbits(32):08x}-0000-4000-8000-{rng.getrandbits(48):012x}"
            _write_session(out, rng, name, end - (days - day) * 86_400_000 + rng.randrange(6 * 3_600_000), count)
            left -= count


def _write_session(out: IO[bytes], rng: random.Random, name: str, at: int, count: int) -> None:
    project = f"project-{hash_of(name) % 12}"
    about = {"source": "claude-code-jsonl", "revision": 2, "client": "claude-code", "project": project}
    about |= {"agent_id": f"claude-code:{project}", "workflow_id": f"claude-code:{project}:{name}", "session_id": name}
    size, parent = rng.randrange(15_000, 25_000), ""
    for number in range(count):
        at += rng.randrange(3000, 60_000)
        ts = f"{datetime.datetime.fromtimestamp(at / 1000, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"
        identity, grown = f"msg_{rng.getrandbits(64):016x}", rng.randrange(50, 1500) if number else 0
        read, write = (size, grown) if number else (0, size)
        size = size + grown if size < 180_000 else 30_000
        usage = {
            "provider": "anthropic",
            "model": "claude-opus-4-8",
            "turns": 1,
            "input_tokens": 3,
            "cache_read_tokens": read,
        }
        usage |= {"cache_write_tokens": write, "output_tokens": rng.randrange(20, 900)}
        turn = {
            "v": 1,
            "ts": ts,
            "kind": "turn",
            "id": identity,
            **about,
            **{key: value for key, value in usage.items() if value},
        }
        entered = {f"result {rng.choice(_TOOLS)}": rng.randrange(10, 9000)}
        sizes = {
            "turn": identity,
            "entered": entered,
            "produced": {"reply": 300, f"call {rng.choice(_TOOLS)}": rng.randrange(20, 800)},
        }
        sizes |= {"parent": parent, "version": "2.1.300"} if parent else {"version": "2.1.300"}
        block = {key: value for key, value in about.items() if key not in ("agent_id", "workflow_id")}  # as readers write it
        record = {"v": 1, "ts": ts, "kind": "context", "id": f"context:{identity}", **block, **sizes}
        out.write(b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in (turn, record)))
        parent = identity


def write_meters(out: IO[bytes], now: str, count: int = 10_000, days: int = 35, seed: int = 1) -> None:
    """Readings of the days before `now`: two plans, each with a five-hour and a weekly window, nine hours a day."""
    rng = random.Random(seed)
    end = int(datetime.datetime.fromisoformat(now).timestamp() * 1000)
    plans = (("anthropic", "claude-code-statusline"), ("openai", "codex-jsonl"))
    each = count // 2 // len(plans) // days
    for provider, source in plans:
        for day in range(days):
            begin = end - (days - day - 1) * 86_400_000 - 9 * 3_600_000
            week = (begin // 86_400_000 // 7 + 1) * 7 * 86_400_000
            five, weekly, reset = 0.0, (begin // 86_400_000 % 7) * 0.1, begin + 5 * 3_600_000
            for number in range(each):
                at = begin + number * 9 * 3_600_000 // each
                if at >= reset:
                    five, reset = 0.0, at + 5 * 3_600_000
                five, weekly = min(five + rng.choice((0, 0, 0.01, 0.02)), 1), min(weekly + rng.choice((0, 0, 0.002)), 1)
                for window, minutes, used, resets in (("five_hour", 300, five, reset), ("weekly", 10_080, weekly, week)):
                    ts, ends = (datetime.datetime.fromtimestamp(x / 1000, datetime.UTC) for x in (at, resets))
                    out.write(
                        b'{"v":1,"ts":"%s.%03dZ","kind":"meter","id":"meter:%s:%s:%d","source":"%s","provider":"%s","window":"%s",'
                        b'"window_minutes":%d,"used":%.3f,"resets_at":"%s.000Z","observed_at":"%s.%03dZ"}\n'
                        % (
                            f"{ts:%Y-%m-%dT%H:%M:%S}".encode(), at % 1000, provider.encode(), window.encode(), at, source.encode(),
                            provider.encode(), window.encode(), minutes, used, f"{ends:%Y-%m-%dT%H:%M:%S}".encode(),
                            f"{ts:%Y-%m-%dT%H:%M:%S}".encode(), at % 1000,
                        )
                    )  # fmt: skip


def hash_of(text: str) -> int:
    """The same in every process."""
    return zlib.crc32(text.encode())
