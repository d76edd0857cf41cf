"""A log of ten million turns: the turns themselves, one after another, and what each command takes on such a log.

Three years of 1,095 days by two machines, 40 projects and 8 models. A day is made and written at a time.
The same arguments always give the same bytes.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import pathlib
import random

DAYS, TURNS_A_DAY = 1095, 9133
MACHINES = ("ada", "borg")
PROJECTS = 40
MODELS = (
    ("anthropic", "claude-opus-4-6"),
    ("anthropic", "claude-sonnet-4-6"),
    ("anthropic", "claude-opus-4-8"),
    ("anthropic", "claude-haiku-4-5"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-5.4-mini"),
    ("openai", "gpt-5.2"),
    ("openai", "gpt-5.3-codex"),
)
# How many sessions a day has. One turn in six is of a second, smaller model, as subagents are.
SESSIONS_A_DAY = 60
SHARE_OF_SECOND = 6
DAY_MS = 86_400_000
COMMANDS = (
    "tok-cost --log --since all --by month",
    "tok-cost --log --since all --by project",
    "tok-cost --log --since all --by session --top 5",
    "tok-sync",
    "tok",
    "tok-budget",
)
LINE = (
    '{"v":1,"ts":"%s%s","kind":"turn","id":"msg_%012d","source":"claude-code-jsonl","client":"claude-code","project":"%s",'
    '"agent_id":"claude-code:%s","workflow_id":"claude-code:%s:%s","session_id":"%s","machine":"%s","user":"ada",'
    '"provider":"%s","model":"%s","turns":1,"input_tokens":%d,"cache_read_tokens":%d,"cache_write_1h_tokens":%d,'
    '"output_tokens":%d}\n'
)


def write(events: pathlib.Path, now: str, days: int = DAYS, turns: int = TURNS_A_DAY) -> int:
    """Write the files of the days up to `now`, so many turns a day, as tok-log append leaves them; how many turns."""
    events.mkdir(parents=True, mode=0o700)
    events.parent.chmod(0o700)
    end = datetime.datetime.fromisoformat(now)
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        jobs = [
            pool.submit(_write_day, events, midnight - datetime.timedelta(days=days - 1 - day), end, day, turns)
            for day in range(days)
        ]
        return sum(job.result() for job in jobs)


def _write_day(events: pathlib.Path, begin: datetime.datetime, end: datetime.datetime, day: int, turns: int) -> int:
    lines = _day(random.Random(day), begin, end, day * turns, turns)
    path = events / f"{begin:%Y-%m-%d}.jsonl"
    path.write_text("".join(lines))
    path.chmod(0o600)
    return len(lines)


def session_name(day: int, number: int) -> str:
    """The session of that number on that day, counted from the first; its first digits are its own."""
    return f"{(day * SESSIONS_A_DAY + number) * 2654435761 % 2**32:08x}-0000-4000-8000-{day:06d}{number:06d}"


def _day(rng: random.Random, begin: datetime.datetime, end: datetime.datetime, first: int, turns: int) -> list[str]:
    """The lines of one day, until `end`. Sessions follow one another, two at a time on each machine."""
    day = first // turns
    sessions = []
    for number in range(SESSIONS_A_DAY):
        project = f"project-{rng.randrange(PROJECTS):02d}"
        sessions.append((session_name(day, number), project, MACHINES[number % 2], rng.choice(MODELS), MODELS[3]))
    step, at_once = DAY_MS // turns, 4
    lines = []
    spread, start, stop = rng.random, int(begin.timestamp() * 1000), int(end.timestamp() * 1000)
    for number in range(turns):
        at = start + number * step
        if at >= stop:
            break
        slot = number * (SESSIONS_A_DAY // at_once) // turns
        name, project, machine, usual, second = sessions[slot * at_once + int(spread() * at_once)]
        provider, model = second if number % SHARE_OF_SECOND == 0 else usual
        moment = datetime.datetime.fromtimestamp(at // 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        tokens = int(spread() * 2000) + 1, int(spread() * 200_000), int(spread() * 9000), int(spread() * 3000) + 1
        about = moment, f".{at % 1000:03d}Z", first + number, project, project, project, name, name, machine
        lines.append(LINE % (*about, provider, model, *tokens))
    return lines


def cells(wall: float, cpu: float, memory: float) -> list[str]:
    """Seconds on the clock and on the processors, and megabytes, as a table has them."""
    return [f"{wall:.2f} s", f"{cpu:.2f} s", f"{memory:.0f} MB"]
