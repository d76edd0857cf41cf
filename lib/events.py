"""The record: its fields, its identity, and how two sightings of one thing become one.

An event is a mapping with the fields below; zero counts and unknown values are left out. The classes in TOKENS are
disjoint and add up; those in PARTS are parts of them and are never added again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

Event = dict[str, Any]

VERSION = 1


class Bad(ValueError):
    """A record of a client that has the shape of a turn and cannot be counted."""


KINDS = ("turn", "usage", "meter", "work", "task", "saving", "ping")

TOKENS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "cache_write_12h_tokens",
    "output_tokens",
)
PARTS = (
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_input_tokens",
    "image_output_tokens",
)
# Billed beside the tokens, per piece. Perplexity bills the pages it cites as tokens of a class of their own.
EXTRAS = ("citation_tokens", "web_searches", "requests")
SUMS = ("turns", "errors", *TOKENS, *PARTS, *EXTRAS)
CONTEXT = TOKENS[:-1]

# The blocks that a join decides on separately, in the order in which a record shows them.
ATTRIBUTION = (
    "source",
    "client",
    "project",
    "project_id",
    "account",
    "agent_id",
    "workflow_id",
    "session_id",
    "sidechain",
)
USAGE = (
    "provider",
    "provider_inferred",
    "model",
    "request_model",
    *SUMS,
    "search_context",
    "tier",
    "geo",
    "usage",
    "usage_reason",
    "covers",
    "cost_usd",
    "cost_source",
)
# Only in a joined record: the usage block came from a side chain, the attribution block did not.
USAGE_SIDECHAIN = "usage_sidechain"
_HEAD = ("v", "ts", "kind", "id", "alias")
_RANK = {name: rank for rank, name in enumerate((*_HEAD, *ATTRIBUTION, *USAGE))}
_USAGE, _ATTRIBUTION = frozenset(USAGE), frozenset(ATTRIBUTION)
_DECIDED = frozenset((*USAGE, *ATTRIBUTION, "v", "ts", "kind", "id", USAGE_SIDECHAIN))

# A client's own log knows project and session; the wire and the vendor's reports know less.
_WEAK_SOURCES = ("proxy", "vendor-", "otel")


def order_of(block: object) -> bytes:
    """A total order for what has none of its own: the canonical bytes."""
    return orjson.dumps(block, option=orjson.OPT_SORT_KEYS)


def token_sum(event: Event) -> int:
    """All billed tokens of a turn."""
    return sum(event.get(name, 0) for name in TOKENS)


def context_size(event: Event) -> int:
    """The prompt: what was sent, read from a cache or written to one."""
    return sum(event.get(name, 0) for name in CONTEXT)


def join(a: Event, b: Event) -> Event:
    """One event from two sightings of the same thing.

    Associative, commutative and idempotent: each block is the maximum of a total order on its own content.
    """
    if a.get("kind") != "turn":
        return _later(a, b)
    usage = max(_usage(a), _usage(b), key=_usage_rank)
    attribution = max(_attribution(a), _attribution(b), key=_attribution_rank)
    joined: Event = {"v": max(a["v"], b["v"]), "ts": min(a["ts"], b["ts"]), "kind": "turn", "id": _one(a, b, "id")}
    sidechain = usage.pop("sidechain", False)
    joined |= attribution | usage
    if sidechain and not joined.get("sidechain"):
        joined[USAGE_SIDECHAIN] = True
    for key in (a.keys() | b.keys()) - _DECIDED:
        joined[key] = _one(a, b, key)
    return arranged(joined)


def arranged(event: Event) -> Event:
    """The event with its keys in the one order that all records show them in."""
    last = len(_RANK)
    return {key: event[key] for key in sorted(event, key=lambda key: (_RANK.get(key, last), key))}


def _one(a: Event, b: Event, key: str) -> Any:
    """The value of a key that no block owns: the maximum by bytes of those present."""
    return max((event[key] for event in (a, b) if key in event), key=order_of)


def _usage(event: Event) -> Event:
    block = {key: value for key, value in event.items() if key in _USAGE}
    if event.get("sidechain") or event.get(USAGE_SIDECHAIN):
        block["sidechain"] = True
    return block


def _usage_rank(block: Event) -> tuple[int, bool, bool, int, bool, int, bytes]:
    known = {"unknown": 0, "partial": 1}.get(block.get("usage", ""), 2)
    return (
        known,
        block.get("model", "unknown") != "unknown",
        not block.get("sidechain"),
        block.get("output_tokens", 0),
        "cost_usd" in block,
        token_sum(block),
        order_of(block),
    )


def _attribution(event: Event) -> Event:
    return {key: value for key, value in event.items() if key in _ATTRIBUTION}


def _attribution_rank(block: Event) -> tuple[bool, bool, bytes]:
    weak = str(block.get("source", "proxy")).startswith(_WEAK_SOURCES)
    return (not block.get("sidechain"), not weak, order_of(block))


def _later(a: Event, b: Event) -> Event:
    """Of two readings of a meter or an aggregate, the later observed, else the larger; with the earliest time."""
    best = max((a, b), key=lambda e: (e.get("observed_at", ""), token_sum(e), order_of({**e, "ts": ""})))
    return {**best, "ts": min(a["ts"], b["ts"])}


def joined(events: Iterable[Event]) -> Iterator[Event]:
    """Each thing once, however often it was sighted, in order of time. Gathers."""
    known: dict[str, Event] = {}
    for event in events:
        seen = known.get(event["id"])
        known[event["id"]] = event if seen is None else join(seen, event)
    return iter(sorted(known.values(), key=lambda e: (e["ts"], e["id"])))


def meter(source: str, provider: str, observed_at: str, **reading: Any) -> Event:
    """A vendor's own reading of one limit window.

    `reading`: window, window_minutes, scope, used (a fraction), resets_at, status, account, plan, client. Readings
    equal in source, account, window, used and five-minute slot share an id, and the latest of them stays.
    """
    known = {key: value for key, value in reading.items() if value is not None}
    slot = observed_at[:15] + ("0" if observed_at[15] < "5" else "5")
    same = (source, provider, *(known.get(key) for key in ("account", "window", "scope", "used", "status")), slot)
    event: Event = {"v": VERSION, "ts": observed_at, "kind": "meter", "id": f"meter:{digest(*same)}", "source": source}
    return event | {"provider": provider} | known | {"observed_at": observed_at}


def alias_of(client: str, session: str, event: Event) -> str:
    """A second identity for a turn whose log and wire share no id: its session and its five counts."""
    counts = (event.get(name, 0) for name in _FIVE)
    return ":".join((client, session, *map(str, counts)))


_FIVE = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


def digest(*parts: object) -> str:
    """A short, stable name for some content: 96 bits in hexadecimal."""
    return hashlib.blake2b(order_of(parts), digest_size=12).hexdigest()
