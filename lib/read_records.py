"""Turns and aggregates as readers make them from foreign JSON."""

from __future__ import annotations

from typing import Any

from tokenops import events, price_names
from tokenops.untrusted import Raw


def turn(
    ts: str, identity: str, attribution: Raw, model: str, counts: Raw, provider: str = "", session: str = "", **more: Any
) -> events.Event:
    """A turn of a client. With its `session`, it gets an alias to meet the wire's sighting by, where no id is shared."""
    event: events.Event = {"v": events.VERSION, "ts": ts, "kind": "turn", "id": identity, **attribution}
    if session:
        event["alias"] = events.alias_of(str(attribution["client"]), session, dict(counts))
    return events.arranged(event | _billed(model, provider) | {"turns": 1} | _kept(counts) | _kept(more))


def aggregate(
    ts: str, identity: str, attribution: Raw, model: str, counts: Raw, provider: str = "", **more: Any
) -> events.Event:
    """What a source adds up for a session and does not say turn by turn. `counts` may hold turns."""
    event: events.Event = {"v": events.VERSION, "ts": ts, "kind": "usage", "id": identity, **attribution}
    return events.arranged(event | {"covers": "session"} | _billed(model, provider) | _kept(counts) | _kept(more))


def _billed(model: str, provider: str) -> events.Event:
    found: events.Event = {"model": model or "unknown"}
    if biller := price_names.biller(provider):
        found["provider"] = biller
    elif inferred := price_names.provider_of(model):
        found |= {"provider": inferred, "provider_inferred": True}
    return found


def _kept(values: Raw) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
