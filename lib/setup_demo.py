"""Made-up data to try the commands on: thirty days of two clients, several models, and their plans' limits.

It lies in a directory of its own below the log's, `demo`, which is a log by itself: no report of the real log can hold
any of it, whatever the report. Its records say source demo, and tok-sync takes nothing in there.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from tokenops import datadir, events, jsonl, read_records, store, when
from tokenops.events import Event

SOURCE = "demo"
DAYS = 30
_SEED = 20261121
_MINUTE = 60_000


class Refused(ValueError):
    """A directory that is not what it should be."""


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
    """Where the made-up data of a log lies."""
    return os.path.join(folder, SOURCE)


def made_up(now: int) -> Iterator[Event]:
    """Turns and readings of the thirty days before a moment. The same moment gives the same data."""
    for persona in PERSONAS:
        draw = random.Random(f"{_SEED} {persona.client}")
        yield from _used(persona, sorted(_turns(persona, draw, now), key=lambda event: str(event["ts"])))


def _turns(persona: Persona, draw: random.Random, now: int) -> Iterator[Event]:
    first = now - DAYS * when.DAY
    for day in range(DAYS):
        weekend = (first // when.DAY + day + 4) % 7 < 2  # 1970 began on a Thursday
        for number in range(draw.randint(0, 1) if weekend else draw.randint(1, persona.sessions)):
            begun = first + (day + 1) * when.DAY - draw.randint(20, 10 * 60) * _MINUTE
            yield from _session(persona, draw, f"{persona.client}-{day:02d}-{number}", begun, now)


def _session(persona: Persona, draw: random.Random, session: str, begun: int, now: int) -> Iterator[Event]:
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
    at, context = begun, draw.randint(9_000, 22_000)
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
    """A window that turns use up; one that is over begins anew with the next turn."""

    def __init__(self, name: str, minutes: int, cost: float) -> None:
        self.name, self.minutes, self.cost = name, minutes, cost
        self.ends, self.used = 0, 0.0

    def spend(self, at: int, output: int) -> bool:
        """Whether this took another percent."""
        if at >= self.ends:
            self.ends, self.used = at - at % _MINUTE + self.minutes * _MINUTE, 0.0
        before, self.used = self.used, min(self.used + output * self.cost / 1000, 1.0)
        return int(self.used * 100) > int(before * 100)


def _used(persona: Persona, turns: list[Event]) -> Iterator[Event]:
    """The turns, and beside them readings of a five-hour and of a weekly limit that they use up."""
    limits = (_Limit("five_hour", 300, persona.cost[0]), _Limit("weekly", 10_080, persona.cost[1]))
    for event in turns:
        yield event
        for limit in limits:
            if limit.spend(when.moment(event["ts"]), event["output_tokens"]):
                reading = {"window": limit.name, "window_minutes": limit.minutes, "used": round(limit.used, 2)}
                reading["resets_at"] = when.stamp(limit.ends)
                yield events.meter(SOURCE, persona.provider, event["ts"], client=persona.client, **reading)


def write(folder: str, now: int) -> tuple[str, int]:
    """Make the data anew; where it lies, and how many records there are. Raises Refused, OSError."""
    remove(folder)
    place = folder_of(folder)
    datadir.ensure_folder(datadir.ensure_folder(folder))
    os.mkdir(place, mode=0o700)
    datadir.mark_demo(place)
    count = store.append(place, map(jsonl.line_of, events.join_all(made_up(now))))
    datadir.replace(os.path.join(place, datadir.SYNCED), b"")
    os.utime(os.path.join(place, datadir.SYNCED), (now / 1000, now / 1000))
    return place, count


def remove(folder: str) -> bool:
    """Remove the data, and nothing else; whether there was any. Raises Refused, OSError."""
    if datadir.is_demo(folder):
        raise Refused(f"{folder} holds made-up data itself; unset TOKENOPS_HOME")
    place = folder_of(folder)
    if not os.path.lexists(place):
        return False
    if os.path.islink(place) or not datadir.is_demo(place):
        raise Refused(f"{place} was not made by tok-init --demo; move it away")
    shutil.rmtree(place)
    return True
