"""Defines the record: its fields and its identity. `joins` makes one record of two sightings of the same thing.

An event is a mapping with the fields below; zero counts and unknown values are left out. The classes in TOKENS are
disjoint and add up; those in PARTS are parts of them and are never added again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from tokenops import light

Event = dict[str, Any]

VERSION = 1


class BadRecord(ValueError):
    """A record of a client that looks like a turn and cannot be counted."""


KINDS = ("turn", "usage", "meter", "work", "context", "task", "saving", "ping")
SESSION, REMAINDER = "session", "remainder"  # what `usage` records cover that count
# Of a name, in characters: longer than any, shorter than most prompts.
LONGEST = 200

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
# Billed in addition to tokens, per piece. Perplexity bills the pages it cites as tokens of their own class.
EXTRAS = ("citation_tokens", "web_searches", "requests")
SUMS = ("turns", "errors", *TOKENS, *PARTS, *EXTRAS)
CONTEXT = TOKENS[:-1]

# The blocks that a join decides on separately, in the order in which a record shows them.
ATTRIBUTION = (
    "source",
    "revision",
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
# What a client itself says that a turn was made for, or by, or on: each may be absent, none is ever guessed.
TAGS = ("subagent", "skill", "plugin", "mcp_server", "mcp_tool", "effort", "branch")
# Only in a joined record: the usage block came from a side chain, the attribution block did not; the usage, or the time,
# came from a source that has no revisions, the attribution from one that has.
USAGE_SIDECHAIN, USAGE_UNREVISED, TS_UNREVISED = "usage_sidechain", "usage_unrevised", "ts_unrevised"
# Where an event was first stored, and for whom (machines). A join keeps the smallest name of each; reports, and filters
# after them, call what no event names unknown.
OWNER, UNKNOWN = ("machine", "user"), "unknown"
_HEAD = ("v", "ts", "kind", "id", "alias")
_OWNER_AT = ATTRIBUTION.index("account")
_ORDER = (*_HEAD, *ATTRIBUTION[:_OWNER_AT], *OWNER, *ATTRIBUTION[_OWNER_AT:], *USAGE, *TAGS)
_RANK = {name: rank for rank, name in enumerate(_ORDER)}

# The newest revision of each reader whose revisions count. Raise it when the reader gives a turn that the log may hold
# another time, identity, usage or attribution: what an earlier revision gave is then replaced. Version 0.1.0 wrote no
# revision, which is revision 1. Sources that are not listed have no revision, such as the proxy.
REVISIONS = {
    "claude-code-jsonl": 2,
    "codex-jsonl": 2,
    **dict.fromkeys(("amp", "goose", "kilo", "kimi-cli", "openclaw", "pi", "qwen-code"), 2),
}


def order_of(block: object) -> bytes:
    """A sort key for any value: its canonical bytes."""
    return orjson.dumps(block, option=orjson.OPT_SORT_KEYS)


def token_sum(event: Event) -> int:
    """All billed tokens of a turn."""
    return sum(event.get(name, 0) for name in TOKENS)


def context_size(event: Event) -> int:
    """The prompt: what was sent, read from a cache or written to one."""
    return sum(event.get(name, 0) for name in CONTEXT)


def arrange(event: Event) -> Event:
    """The event with its keys in the order of the record."""
    return {key: event[key] for key in _order(tuple(event))}


def in_order(names: Iterable[str]) -> list[str]:
    """Names of fields in the order of the record: those outside of the blocks come last, by name."""
    last = len(_RANK)
    return sorted(names, key=lambda name: (_RANK.get(name, last), name))


@functools.lru_cache(1024)
def _order(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same for the names of one record: a million turns have a few dozen sets of them."""
    return tuple(in_order(names))


def meter(source: str, provider: str, observed_at: str, **reading: Any) -> Event:
    """A vendor's own reading of one limit window.

    `reading`: window, window_minutes, scope, used (a fraction), resets_at, status, account, plan, client. Readings
    equal in source, account, window, used and five-minute slot share an id, and the latest of them stays.
    """
    fields = {key: value for key, value in reading.items() if value is not None}
    same = [fields.get(key) for key in ("account", "window", "scope", "used", "status")]
    same = [source, provider, *same, slot_of(observed_at)]
    event: Event = {"v": VERSION, "ts": observed_at, "kind": "meter", "id": f"meter:{digest(*same)}", "source": source}
    return event | {"provider": provider} | fields | {"observed_at": observed_at}


def slot_of(observed_at: str) -> str:
    """The five minutes in which a reading was taken."""
    return observed_at[:15] + ("0" if observed_at[15] < "5" else "5")


def alias_of(client: str, session: str, event: Event) -> str:
    """A second identity for a turn whose log and wire share no id: its session and its five counts."""
    if client in NAMELESS:
        session = ""
    sent, read, wrote, got, thought = [event.get(name, 0) for name in _FIVE]
    if client == "codex":  # not every source of its turns counts cache writes apart from other input
        sent, wrote = sent + wrote, 0
    if client in ("kimi-cli", "mistral-vibe"):  # their logs do not have them
        thought = 0
    return f"{client}:{session}:{sent}:{read}:{wrote}:{got}:{thought}"


def names_older(event: Event) -> bool:
    """Whether a record's alias is another identity that the turn had: of an older revision of its reader, or in public."""
    if "alias" not in event:
        return False
    is_older = event.get("revision", 1) > 1 and not is_made_of_counts(event["alias"])
    return is_older or str(event["alias"]).startswith(PUBLIC)


def is_made_of_counts(alias: str) -> bool:
    """Whether an alias is one of `alias_of`."""
    return bool(_COUNTED.search(alias))


_COUNTED = light.pattern(r"(:\d+){5}\Z")  # how an alias of `alias_of` ends
PLANES = ("log", "wire", "export")


def plane_of(event: Event) -> str:
    """How a turn was seen: in a client's own log, on the wire, or in the client's telemetry."""
    source = event.get("source")
    return "wire" if source == "proxy" else "export" if source == "otel" else "log"


class Pairs:
    """Finds the sightings of one turn that share no id: one of each plane, with the same alias."""

    def __init__(self) -> None:
        # alias -> plane -> the turns that were not seen there yet
        self.waiting: dict[str, dict[str, list[str]]] = {}

    def first(self, event: Event) -> str:
        """The identity of the turn that a sighting is of: that of its first sighting."""
        plane, name = plane_of(event), str(event["id"])
        waiting = self.waiting.setdefault(_alias_in(event), {})
        if names := waiting.get(plane):
            return names.pop(0)
        for other in PLANES:
            if other != plane:
                waiting.setdefault(other, []).append(name)
        return name

    def awaits(self, event: Event) -> bool:
        """Whether a turn waits for a sighting of this kind."""
        return bool(self.waiting.get(_alias_in(event), {}).get(plane_of(event)))


def _alias_in(event: Event) -> str:
    """What a turn with an alias is paired by."""
    if names_older(event):
        return alias_of(str(event.get("client")), str(event.get("session_id")), event)
    return str(event["alias"])


# Clients whose requests do not name their session, so that only the counts identify a turn.
NAMELESS = ("gemini-cli", "copilot-cli")
_FIVE = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


class Filter(NamedTuple):
    """Which records to take; None takes any."""

    kinds: tuple[str, ...] | None = None
    client: str | None = None
    project: str | None = None
    model: str | None = None
    session: str | None = None
    machine: str | None = None
    user: str | None = None

    def takes(self, event: Event) -> bool:
        """Whether to take a record. A project matches by the name in reports or by its basename."""
        return (
            (self.kinds is None or event.get("kind") in self.kinds)
            and self.client in (None, event.get("client"))
            and self.model in (None, event.get("model"))
            and self.session in (None, event.get("session_id"))
            and self.machine in (None, event.get("machine", UNKNOWN))
            and self.user in (None, event.get("user", UNKNOWN))
            and (
                self.project is None or self.project in (event.get("project"), str(event.get("project")).rpartition("/")[2])
            )
        )


EVERY = Filter()

# Of a record that somebody shared: a hash of its identity in their log, which hides sessions' names (store_public).
PUBLIC = "public:"


def public_id(identity: str) -> str:
    """The identity of the public record of a record: the same in every log."""
    return f"{PUBLIC}{digest(identity)}"


def digest(*parts: object) -> str:
    """A short, stable name for some content: 96 bits in hexadecimal."""
    return light.blake2b(order_of(parts), digest_size=12).hexdigest()
