"""Creates demo data to try the commands: thirty days of two clients, several models, and their plans' limits.

The data is a separate log, in the directory `demo` below the real log, so no report of the real log includes it. Its
records have the source demo, and tok-sync imports nothing there.
"""

from __future__ import annotations

import os
import random
import shutil
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


def folder_of(folder: str) -> str:
    """The directory of a log's demo data."""
    return os.path.join(folder, SOURCE)


def demo_records(now: int) -> Iterator[Event]:
    """Turns and readings of the thirty days before a moment. The same moment gives the same data."""
    for persona in PERSONAS:
        draw = random.Random(f"{_SEED} {persona.client}")
        yield from _with_readings(persona, sorted(_turns(persona, draw, now), key=lambda event: str(event["ts"])))


def _turns(persona: Persona, draw: random.Random, now: int) -> Iterator[Event]:
    first = now - DAYS * when.DAY
    for day in range(DAYS):
        weekend = (first // when.DAY + day + 4) % 7 < 2  # 1970 began on a Thursday
        for number in range(draw.randint(0, 1) if weekend else draw.randint(1, persona.sessions)):
            start = first + (day + 1) * when.DAY - draw.randint(20, 10 * 60) * _MINUTE
            yield from _session(persona, draw, f"{persona.client}-{day:02d}-{number}", start, now)


def _session(persona: Persona, draw: random.Random, session: str, start: int, now: int) -> Iterator[Event]:
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
    at, context = start, draw.randint(9_000, 22_000)
    for number in range(draw.randint(6, 40)):
        at += draw.randint(_MINUTE // 4, 4 * _MINUTE)
        if at >= now:
            return
        fresh, output = draw.randint(200, 6_000), int(draw.lognormvariate(6, 0.9)) + 20
        counts = {
            "input_tokens": draw.randint(3, 900),
            "cache_read_tokens": context if number else 0,
            "output_tokens": output,
        }
        if persona.provider == "anthropic":
            counts["cache_write_tokens"] = fresh if number else context
        else:
            counts["input_tokens"] += fresh
        yield read_records.turn(when.stamp(at), f"{SOURCE}:{session}:{number}", attribution, model, counts, persona.provider)
        context += fresh + output


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
    demo = folder_of(folder)
    datadir.ensure_folder(datadir.ensure_folder(folder))
    os.mkdir(demo, mode=0o700)
    datadir.mark_demo(demo)
    count = store.append(demo, map(jsonl.line_of, joins.join_all(demo_records(now))))
    datadir.replace(os.path.join(demo, datadir.SYNCED), b"")
    os.utime(os.path.join(demo, datadir.SYNCED), (now / 1000, now / 1000))
    return demo, count


def remove(folder: str) -> bool:
    """Remove the data, and nothing else; returns whether there were any. Raises NotDemo, OSError."""
    if datadir.is_demo(folder):
        raise NotDemo(f"{folder} holds demo data itself; unset TOKENOPS_HOME")
    demo = folder_of(folder)
    if not os.path.lexists(demo):
        return False
    if os.path.islink(demo) or not datadir.is_demo(demo):
        raise NotDemo(f"{demo} was not created by tok-init --demo; move it away")
    shutil.rmtree(demo)
    return True
