"""Creates demo data to try the commands: thirty days of two clients, with limits, work, waste, tasks, plans and budgets.

The data is a separate log, in the directory `demo` below the real log, so no report of the real log includes it. Its
records have the source demo, tok-sync imports nothing there, and it has settings of its own.
"""

from __future__ import annotations

import os
import random
import shutil
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from tokenops import datadir, events, joins, jsonl, read_records, store, when
from tokenops.events import Event

SOURCE = "demo"
DAYS = 30
_SEED = 20261121
_MINUTE = 60_000


class NotDemo(ValueError):
    """A directory that does not hold demo data, or holds them where real data belong."""


class Persona(NamedTuple):
    """A client as somebody uses it. `cost` per thousand of output: of the five-hour and of the weekly limit."""

    client: str
    provider: str
    models: tuple[tuple[str, int], ...]  # with weights
    projects: tuple[str, ...]
    sessions: int  # a day
    cost: tuple[float, float]


PERSONAS = (
    Persona(
        "claude-code",
        "anthropic",
        (("claude-opus-5-5", 3), ("claude-sonnet-5-5", 5), ("claude-haiku-4-5-20251001", 2)),
        ("demo-orchard", "demo-lighthouse", "demo-harbour"),
        3,
        (0.015, 0.0028),
    ),
    Persona(
        "codex",
        "openai",
        (("gpt-6.1-sol", 4), ("gpt-6-luna", 1)),
        ("demo-orchard", "demo-ferry"),
        2,
        (0.02, 0.0035),
    ),
)


# Of the demo data: who pays for what, and how much there should be of it.
SETTINGS = """\
plans:
  anthropic: claude-pro
  openai: gpt-plus
budgets:
  - {name: this month, window: monthly, limit_usd: 60, basis: equivalent}
  - {name: demo-orchard, window: weekly, limit_usd: 5, basis: equivalent, project: demo-orchard}
"""
TASKS = (
    "Rename the loader", "Migrate the orders", "Flaky test of the harbour", "Faster start", "Search by name", "Dark colours",
)  # fmt: skip


def demo_records(now: int) -> Iterator[Event]:
    """Turns and readings of the thirty days before a moment. The same moment gives the same data."""
    for persona in PERSONAS:
        draw = random.Random(f"{_SEED} {persona.client}")
        sessions = list(_sessions(persona, draw, now))
        turns = [turn for session in sessions for turn in session]
        yield from _with_readings(persona, sorted(turns, key=lambda event: str(event["ts"])))
        for session in sessions:
            yield from _contexts(persona, session)
        for number, session in enumerate(filter(None, sessions)):
            yield from _rounds(persona, draw, session, wasteful=number % 4 == 3)
            if number % 5 == 2:
                yield _saving(persona, draw, session)
        if persona.client == "claude-code":
            yield from _tasks([session for session in sessions if session][-3 * len(TASKS) :: 3])


def _sessions(persona: Persona, draw: random.Random, now: int) -> Iterator[list[Event]]:
    """The turns of each session; the last one goes on at this moment."""
    first = now - DAYS * when.DAY
    for day in range(DAYS):
        weekend = (first // when.DAY + day + 4) % 7 < 2  # 1970 began on a Thursday
        for _ in range(draw.randint(0, 1) if weekend else draw.randint(1, persona.sessions)):
            start = first + (day + 1) * when.DAY - draw.randint(20, 10 * 60) * _MINUTE
            yield list(_session(persona, draw, _name(draw), start, now, draw.randint(6, 40)))
    yield list(_session(persona, draw, _name(draw), now - 40 * _MINUTE, now, 1000))


def _name(draw: random.Random) -> str:
    """A session's id, as clients make them."""
    return str(uuid.UUID(int=draw.getrandbits(128), version=4))


def _session(persona: Persona, draw: random.Random, session: str, start: int, now: int, length: int) -> Iterator[Event]:
    [model] = draw.choices([name for name, _ in persona.models], [weight for _, weight in persona.models])
    project = draw.choice(persona.projects)
    attribution = {
        "source": SOURCE,
        "client": persona.client,
        "project": project,
        "agent_id": f"{persona.client}:{project}",
        "workflow_id": f"{persona.client}:{project}:{session}",
        "session_id": session,
    }
    at, context, pause = start, draw.randint(9_000, 22_000), draw.randint(4, 60)
    for number in range(length):
        lost = number == pause and length < 1000  # a long break, after which the cache is gone
        at += 75 * _MINUTE if lost else draw.randint(_MINUTE // 4, 4 * _MINUTE)
        if at >= now:
            return
        fresh, output = draw.randint(200, 6_000), int(draw.lognormvariate(6, 0.9)) + 20
        counts = {
            "input_tokens": draw.randint(3, 900),
            "cache_read_tokens": context if number and not lost else 0,
            "output_tokens": output,
        }
        if persona.provider == "anthropic":
            counts["cache_write_tokens"] = fresh if number and not lost else context + fresh * lost
        else:
            counts["input_tokens"] += fresh + context * lost
        yield read_records.turn(when.stamp(at), f"{SOURCE}:{session}:{number}", attribution, model, counts, persona.provider)
        context += fresh + output


_KEPT = ("source", "client", "project", "agent_id", "workflow_id", "session_id")


def _record(kind: str, name: str, ts: str, turn: Event, **fields: object) -> Event:
    """A record about the session of a turn."""
    attribution = {key: turn[key] for key in _KEPT if key in turn}
    return {"v": events.VERSION, "ts": ts, "kind": kind, "id": f"{kind}:{SOURCE}:{name}"} | attribution | fields


def _rounds(persona: Persona, draw: random.Random, turns: list[Event], wasteful: bool) -> Iterator[Event]:
    """What each prompt of a session caused, in one to four turns."""
    at = 0
    while at < len(turns):
        part = turns[at : at + draw.randint(1, 4)]
        prompt = when.moment(part[0]["ts"]) - draw.randint(4, 40) * 1000
        reads, commands, edits = draw.randint(0, 4), draw.randint(0, 3), draw.randint(0, 2)
        calls = reads + commands + edits
        counts = {
            "prompts": 1,
            "prompt_chars": draw.randint(20, 400),
            "replies": len(part),
            "read_calls": reads,
            "command_calls": commands,
            "edit_calls": edits,
            "edits": edits,
            "tool_calls": calls,
            "tool_results": calls,
            "tool_failures": int(calls > 0 and draw.random() < 0.12),
            "result_bytes": calls * draw.randint(800, 6_000),
            "acknowledgements": int(draw.random() < 0.08),
            "corrections": int(draw.random() < 0.05),
            "destructive": int(commands > 0 and draw.random() < 0.02),
        }
        if wasteful:
            counts |= {
                "repeated_reads": reads,
                "retries": draw.randint(0, 1),
                "largest_result_bytes": draw.choice((9_000, 260_000)),
            }
        times = {"prompt": when.stamp(prompt), "reply": part[0]["ts"], "last": part[-1]["ts"]}
        name = f"{part[0]['session_id']}:{at}"
        counted = {key: value for key, value in counts.items() if value}
        yield _record("work", name, when.stamp(prompt), part[0], counts=counted, times=times)
        at += len(part)


def _saving(persona: Persona, draw: random.Random, turns: list[Event]) -> Event:
    """What the guard of repeated reads saved in a session."""
    last = turns[-1]
    return _record("saving", last["session_id"], last["ts"], last, saved_tokens=draw.randint(2_000, 30_000), by="read_guard")


def _tasks(sessions: list[list[Event]]) -> Iterator[Event]:
    """A task per session; the last one is still open."""
    for number, (title, turns) in enumerate(zip(TASKS, sessions, strict=False)):
        name, branch = f"demo-{number + 1}", title.lower().replace(" ", "-")
        begin = when.stamp(when.moment(turns[0]["ts"]) - 1000)
        yield _record("task", f"{name}:start", begin, turns[0], task=name, event="start", title=title, branch=branch)
        if number + 1 < len(TASKS):
            end = when.stamp(when.moment(turns[-1]["ts"]) + 1000)
            yield _record("task", f"{name}:done", end, turns[-1], task=name, event="done")


class _Limit:
    """A window that turns use up; the next turn after its end starts it again."""

    def __init__(self, name: str, minutes: int, cost: float) -> None:
        self.name, self.minutes, self.cost = name, minutes, cost
        self.ends, self.used = 0, 0.0

    def spend(self, at: int, output: int) -> bool:
        """Whether this took another percent."""
        if at >= self.ends:
            self.ends, self.used = at - at % _MINUTE + self.minutes * _MINUTE, 0.0
        before, self.used = self.used, min(self.used + output * self.cost / 1000, 1.0)
        return int(self.used * 100) > int(before * 100)


# What agents use, and how often: their sizes are drawn beside those of the turns.
_TOOLS = {
    "claude-code": {"Read": 6, "Bash|npm test": 3, "Bash|git diff": 1, "Edit": 3, "Grep": 2, "mcp__tracker__find": 1},
    "codex": {"exec_command|rg": 4, "exec_command|cargo test": 3, "exec_command|git status": 1, "apply_patch": 3},
}
# Characters of a token, in the demo as on average.
_PER_TOKEN = 3


def _contexts(persona: Persona, turns: list[Event]) -> Iterator[Event]:
    """The sizes of what entered the context at each turn of a session: results of tools and prompts, and its own output."""
    draw = random.Random(f"{_SEED} contexts {turns[0]['session_id'] if turns else ''}")
    tools = [name for name, weight in _TOOLS[persona.client].items() for _ in range(weight)]
    parent, tool = "", ""
    for turn in turns:
        size = _PER_TOKEN * (turn.get("cache_write_tokens", 0) or turn["input_tokens"])
        entered = {f"result {tool}": size - size // 9} if tool else {"prompt": max(size // 9, 1)}
        tool = draw.choice(tools) if draw.random() < 0.85 else ""
        own = _PER_TOKEN * turn["output_tokens"]
        produced = {"reply": own // 3, f"call {tool}": own - own // 3} if tool else {"reply": own}
        labels = {name: turn[name] for name in ("source", "client", "project", "agent_id", "workflow_id", "session_id")}
        record: Event = {
            "v": 1,
            "ts": turn["ts"],
            "kind": "context",
            "id": f"context:{turn['id']}",
            **labels,
            "turn": turn["id"],
        }
        record |= {"parent": parent} if parent else {}
        yield record | {"entered": entered, "produced": produced}
        parent = turn["id"]


def _with_readings(persona: Persona, turns: list[Event]) -> Iterator[Event]:
    """The turns, with readings of a five-hour and a weekly limit that they use."""
    limits = (_Limit("five_hour", 300, persona.cost[0]), _Limit("weekly", 10_080, persona.cost[1]))
    for event in turns:
        yield event
        for limit in limits:
            if limit.spend(when.moment(event["ts"]), event["output_tokens"]):
                reading = {"window": limit.name, "window_minutes": limit.minutes, "used": round(limit.used, 2)}
                reading["resets_at"] = when.stamp(limit.ends)
                yield events.meter(SOURCE, persona.provider, event["ts"], client=persona.client, **reading)


def write(folder: str, now: int) -> tuple[str, int]:
    """Create the data anew; returns their directory and the number of records. Raises NotDemo, OSError."""
    remove(folder)
    demo = datadir.demo_folder(folder)
    datadir.ensure_folder(datadir.ensure_folder(folder))
    os.mkdir(demo, mode=0o700)
    datadir.mark_demo(demo)
    datadir.replace(os.path.join(demo, "config.yaml"), SETTINGS.encode())
    count = store.append(demo, map(jsonl.line_of, joins.join_all(demo_records(now))))
    datadir.replace(os.path.join(demo, datadir.SYNCED), b"")
    os.utime(os.path.join(demo, datadir.SYNCED), (now / 1000, now / 1000))
    return demo, count


def remove(folder: str) -> bool:
    """Remove the data, and nothing else; returns whether there were any. Raises NotDemo, OSError."""
    if datadir.is_demo(folder):
        raise NotDemo(f"{folder} holds demo data itself; unset TOKENOPS_HOME")
    demo = datadir.demo_folder(folder)
    if not os.path.lexists(demo):
        return False
    if os.path.islink(demo) or not datadir.is_demo(demo):
        raise NotDemo(f"{demo} was not created by tok-init --demo; move it away")
    shutil.rmtree(demo)
    return True
