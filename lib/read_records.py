"""Makes turns and totals from clients' values, and joins the copies from several files or workers.

A reader returns entries. An entry is a record with its time and id in front, or a light turn. Most turns have the same
few parts, so they travel as a tuple and become records only on output, while the next command in the pipe already
works.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from tokenops import events, fields, joins, jsonl, price_names
from tokenops.untrusted import Raw

# (time, id, record or its line), or a light turn; in order of time when sorted.
Entry = tuple[Any, ...]
# The fields of a turn before its counts (who, what) and after them (tier, geo).
Frame = tuple[dict[str, Any], dict[str, Any]]
# Time, id, counts in the order of LIGHT_COUNTS, the frame around them, the attribution block, and the second identity, "" if
# there is none. Turns share frames and attribution blocks.
Light = tuple[str, str, tuple[int, ...], Frame, dict[str, Any], str]
LIGHT_COUNTS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "output_tokens",
)


def turn(
    ts: str, identity: str, attribution: Raw, model: str, counts: Raw, provider: str = "", session: str = "", **more: Any
) -> events.Event:
    """A turn of a client. With `session`, it gets an alias that joins it with the wire's sighting if they share no id."""
    event: events.Event = {"v": events.VERSION, "ts": ts, "kind": "turn", "id": identity, **attribution}
    if session:
        event["alias"] = events.alias_of(str(attribution["client"]), session, dict(counts))
    event |= _billing(model, provider)
    event["turns"] = 1
    event |= _without_zeros(counts)
    event |= _without_zeros(more)
    return events.arrange(fields.fit_all(event))


def aggregate(
    ts: str, identity: str, attribution: Raw, model: str, counts: Raw, provider: str = "", **more: Any
) -> events.Event:
    """What a source adds up for a session instead of recording turns. `counts` may hold turns."""
    event: events.Event = {"v": events.VERSION, "ts": ts, "kind": "usage", "id": identity, **attribution}
    event |= {"covers": "session"} | _billing(model, provider) | _without_zeros(counts) | _without_zeros(more)
    return events.arrange(fields.fit_all(event))


def counts_beyond(counts: Raw, turns: Iterable[Raw]) -> dict[str, int]:
    """Counts without those of some turns; none is below 0. What is none is left out."""
    rest = dict(counts)
    for event in turns:
        rest = {name: max(0, count - event.get(name, 0)) for name, count in rest.items()}
    return _without_zeros(rest)


def counts_of(prompt: int, read_: int, written: int, output: int, reasoning: int = 0) -> dict[str, int]:
    """The record's disjoint counts, without zeros, from a prompt that includes what a cache gave and what went into one.

    Caches that hold more than the prompt are counted beside it.
    """
    cached = read_ + written
    counts = {
        "input_tokens": prompt - cached if prompt >= cached else prompt,
        "cache_read_tokens": read_,
        "cache_write_tokens": written,
        "output_tokens": output,
        "reasoning_tokens": min(reasoning, output),
    }
    return {name: count for name, count in counts.items() if count}


def owner_of(written: str, lineage: Sequence[Sequence[str]]) -> str:
    """The session that asked for an answer, which a fork of it may have copied; "" if there is no lineage.

    `lineage` has a name and a beginning ("" if unknown) for the session whose file holds the answer, the one that it was
    forked from, and so on. What was written before a session began is a copy.
    """
    at = 0
    while at + 1 < len(lineage) and written < lineage[at][1]:
        at += 1
    return lineage[at][0] if lineage else ""


@functools.lru_cache(4096)
def _billing(model: str, provider: str) -> events.Event:
    """The fields of who bills a model. Nobody changes them."""
    billing: events.Event = {"model": model or "unknown"}
    if biller := price_names.biller(provider):
        billing["provider"] = biller
    elif inferred := price_names.provider_of(model):
        billing |= {"provider": inferred, "provider_inferred": True}
    return billing


def _without_zeros(values: Raw) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def turn_of(light: Light) -> events.Event:
    """The record of a light turn."""
    ts, name, (sent, read, short, long, thought, got), (before, after), attribution, alias = light
    if alias:
        event: events.Event = {"v": events.VERSION, "ts": ts, "kind": "turn", "id": name, "alias": alias, **attribution}
        event |= before
    else:
        event = {"v": events.VERSION, "ts": ts, "kind": "turn", "id": name, **attribution, **before}
    if sent:
        event["input_tokens"] = sent
    if read:
        event["cache_read_tokens"] = read
    if short:
        event["cache_write_tokens"] = short
    if long:
        event["cache_write_1h_tokens"] = long
    if got:
        event["output_tokens"] = got
    if thought:
        event["reasoning_tokens"] = thought
    event |= after
    return event


def record(entry: Entry) -> events.Event:
    """The record of an entry."""
    if len(entry) == 3:
        event: events.Event = entry[2] if type(entry[2]) is dict else orjson.loads(entry[2])
        return event
    return turn_of(entry)


def line(entry: Entry) -> bytes:
    """The line of an entry."""
    if len(entry) == 3 and type(entry[2]) is bytes:
        return entry[2]
    return jsonl.line_of(record(entry))


def keep(seen: dict[str, events.Event], arriving: Iterable[events.Event]) -> None:
    """Add sightings to those seen before, each thing once."""
    for event in arriving:
        before = seen.get(event["id"])
        seen[event["id"]] = joins.join(before, event) if before else event


def keep_entries(seen: dict[str, Entry], arriving: Iterable[Entry]) -> None:
    """Add entries to those seen before, each thing once."""
    for entry in arriving:
        before = seen.setdefault(entry[1], entry)
        if before is not entry:
            event = joins.join(record(before), record(entry))
            seen[entry[1]] = (event["ts"], event["id"], event)


def alias_of(entry: Entry) -> str:
    """The second identity of an entry; "" if it has none."""
    if len(entry) == 3:
        return str(record(entry).get("alias", ""))
    return str(entry[5])


def merge(several: Iterable[list[Entry]]) -> list[Entry]:
    """One list of several sorted ones, things that two of them saw joined."""
    first, *others = several
    if not others:
        return first
    seen: dict[str, Entry] = {entry[1]: entry for entry in first}
    for entries in others:
        for entry in entries:
            before = seen.get(entry[1])
            if before is None:
                seen[entry[1]] = entry
            else:
                event = joins.join(record(before), record(entry))
                seen[event["id"]] = (event["ts"], event["id"], event)
    return by_time(list(seen.values()))


def by_time(entries: list[Entry]) -> list[Entry]:
    """Entries in order of time, then of id."""
    try:
        return sorted(entries)  # twice as fast as with a key
    except TypeError:  # two of one time and id, of which a record cannot be compared
        return sorted(entries, key=operator.itemgetter(0, 1))


def entries_of(several: Iterable[events.Event]) -> list[Entry]:
    """The entries of some events, in order of time."""
    return by_time([(event["ts"], event["id"], event) for event in several])
