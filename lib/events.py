"""Defines the record: its fields and its identity. `joins` makes one record of two sightings of the same thing.

An event is a mapping with the fields below; zero counts and unknown values are left out. The classes in TOKENS are
disjoint and add up; those in PARTS are parts of them and are never added again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson

from tokenops import jsonl, when

Event = dict[str, Any]

VERSION = 1


class BadRecord(ValueError):
    """A record of a client that looks like a turn and cannot be counted."""


KINDS = ("turn", "usage", "meter", "work", "task", "saving", "ping")
SESSION, REMAINDER = "session", "remainder"  # what `usage` records cover that count

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
# Only in a joined record: the usage block came from a side chain, the attribution block did not; the usage, or the time,
# came from a source that has no revisions, the attribution from one that has.
USAGE_SIDECHAIN, USAGE_UNREVISED, TS_UNREVISED = "usage_sidechain", "usage_unrevised", "ts_unrevised"
_HEAD = ("v", "ts", "kind", "id", "alias")
_RANK = {name: rank for rank, name in enumerate((*_HEAD, *ATTRIBUTION, *USAGE))}

# The newest revision of each reader whose revisions count. Raise it when the reader gives a turn that the log may hold
# another time, identity, usage or attribution: what an earlier revision gave is then replaced. Version 0.1.0 wrote no
# revision, which is revision 1. Sources that are not listed have no revision, such as the proxy.
REVISIONS = {"claude-code-jsonl": 2, "codex-jsonl": 2}


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
    last = len(_RANK)
    return {key: event[key] for key in sorted(event, key=lambda key: (_RANK.get(key, last), key))}


def meter(source: str, provider: str, observed_at: str, **reading: Any) -> Event:
    """A vendor's own reading of one limit window.

    `reading`: window, window_minutes, scope, used (a fraction), resets_at, status, account, plan, client. Readings
    equal in source, account, window, used and five-minute slot share an id, and the latest of them stays.
    """
    fields = {key: value for key, value in reading.items() if value is not None}
    slot = observed_at[:15] + ("0" if observed_at[15] < "5" else "5")
    same = (source, provider, *(fields.get(key) for key in ("account", "window", "scope", "used", "status")), slot)
    event: Event = {"v": VERSION, "ts": observed_at, "kind": "meter", "id": f"meter:{digest(*same)}", "source": source}
    return event | {"provider": provider} | fields | {"observed_at": observed_at}


def alias_of(client: str, session: str, event: Event) -> str:
    """A second identity for a turn whose log and wire share no id: its session and its five counts."""
    if client in _NAMELESS:
        session = ""
    sent, read, wrote, got, thought = (event.get(name, 0) for name in _FIVE)
    if client == "codex":  # not every source of its turns counts cache writes apart from other input
        sent, wrote = sent + wrote, 0
    return ":".join((client, session, *map(str, (sent, read, wrote, got, thought))))


def names_older(event: Event) -> bool:
    """Whether a record's alias is the identity that an older revision of its reader gave the turn."""
    return event.get("revision", 1) > 1 and "alias" in event and not is_made_of_counts(event["alias"])


def is_made_of_counts(alias: str) -> bool:
    """Whether an alias is one of `alias_of`."""
    return bool(_COUNTED.search(alias))


_COUNTED = re.compile(r"(:\d+){5}\Z")  # how an alias of `alias_of` ends
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
_NAMELESS = ("gemini-cli",)
_FIVE = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


class Filter(NamedTuple):
    """Which records to take; None takes any."""

    kinds: tuple[str, ...] | None = None
    client: str | None = None
    project: str | None = None
    model: str | None = None
    session: str | None = None

    def takes(self, event: Event) -> bool:
        """Whether to take a record. A project matches by the name in reports or by its basename."""
        return (
            (self.kinds is None or event.get("kind") in self.kinds)
            and self.client in (None, event.get("client"))
            and self.model in (None, event.get("model"))
            and self.session in (None, event.get("session_id"))
            and (
                self.project is None or self.project in (event.get("project"), str(event.get("project")).rpartition("/")[2])
            )
        )


EVERY = Filter()


def digest(*parts: object) -> str:
    """A short, stable name for some content: 96 bits in hexadecimal."""
    return hashlib.blake2b(order_of(parts), digest_size=12).hexdigest()


_STRINGS = frozenset(
    (
        *(name for name in ATTRIBUTION if name not in ("revision", "sidechain")),
        "ts",
        "kind",
        "id",
        "alias",
        "provider",
        "model",
        "request_model",
        "search_context",
        "tier",
        "geo",
    )
)
# Further fields of each kind.
_MORE = {
    "turn": frozenset(
        ("status", "error", "latency_ms", "ttft_ms", USAGE_SIDECHAIN, USAGE_UNREVISED, TS_UNREVISED, "path", "credential")
    ),
    "usage": frozenset(("until", "observed_at", "bucket", "amount_usd", "caveat", "total_tokens")),
    "meter": frozenset(
        (
            "window",
            "window_minutes",
            "scope",
            "used",
            "resets_at",
            "status",
            "plan",
            "observed_at",
            "used_usd",
            "limit_usd",
            "balance_usd",
            "balance",
        )
    ),
    "work": frozenset(("counts", "times")),
    "task": frozenset(("task", "event", "title", "branch", "commit", "path")),
    "saving": frozenset(("saved_tokens", "saved_usd", "by", "path")),
    "ping": frozenset(("tool",)),
}
_COMMON = frozenset(_RANK)
# Longer than any name, shorter than most prompts. Identities are made of several names.
LONGEST = 200
_LONGER = {"project": 255, "id": 600, "alias": 600, "agent_id": 600, "workflow_id": 600}
_FLAGS = frozenset(("sidechain", "provider_inferred", USAGE_SIDECHAIN, USAGE_UNREVISED, TS_UNREVISED))


def schema() -> dict[str, Any]:
    """The record as a JSON Schema, a branch for each kind."""
    branches = []
    for kind in KINDS:
        names = sorted(_COMMON | _MORE[kind])
        fields: dict[str, Any] = {name: _type(name) for name in names} | {"v": {"const": VERSION}, "kind": {"const": kind}}
        need = {"required": ["v", "ts", "kind", "id"], "additionalProperties": False}
        branches.append({"type": "object", "properties": fields, **need})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "TokenOps event", "oneOf": branches}


def _type(name: str) -> dict[str, Any]:
    if name in SUMS or name == "revision":
        return {"type": "integer", "minimum": 0}
    if name in _FLAGS:
        return {"type": "boolean"}
    return {"type": "string", "maxLength": _LONGER.get(name, LONGEST)} if name in _STRINGS else {}


def fault(record: object) -> str:
    """Why the log does not take a record, in a sentence; "" if it does.

    Only known fields and short texts are taken, so that no prompt can enter the log.
    """
    if not isinstance(record, dict):
        return f"expected a JSON object, found {jsonl.type_name(record)}"
    kind = record.get("kind")
    if kind not in KINDS:
        return f"kind is {_short(kind)}; expected one of {', '.join(KINDS)}"
    if record.get("v") != VERSION:
        return f"v is {_short(record.get('v'))}; this program writes version {VERSION}"
    for key, value in record.items():
        if key not in _COMMON and key not in _MORE[kind]:
            return f"the field {_short(key)} is not known for kind {kind}; leave it out"
        if why := _wrong(key, value):
            return why
    for key in ("ts", "id"):
        if not record.get(key):
            return f"{key} is missing"
    return ""


_LABEL = re.compile(r"['\"\[\]{}\w.:+/-]{1,40}\Z")


def _short(value: object) -> str:
    """A value for a message; only the length of what may be a person's words."""
    text = repr(value)
    return text if _LABEL.match(text) else f"{jsonl.type_name(value)} of {len(text)} characters"


def _wrong(key: str, value: Any) -> str:
    """Why a field's value is not valid, "" if it is."""
    if key in _STRINGS and type(value) is not str:
        return f"{key} is {_short(value)}; expected text"
    if (key in SUMS or key == "revision") and (type(value) is not int or value < 0):
        return f"{key} is {_short(value)}; expected a count"
    if key in _FLAGS and type(value) is not bool:
        return f"{key} is {_short(value)}; expected true or false"
    if key == "ts" and _canonical(str(value)) != value:
        return f"ts is {_short(value)}; expected a time such as 2026-11-21T09:30:00.120Z"
    if key == "cost_usd" and (type(value) is not str or not _MONEY.match(value)):
        return f"cost_usd is {_short(value)}; expected a decimal number as text"
    most = _LONGER.get(key, LONGEST)
    if any(len(text) > most for text in _texts(value)):
        return f"{key} has more than {most} characters; longer text is not stored"
    if isinstance(value, (dict, list)) and (key in _COMMON or len(order_of(value)) > 20 * LONGEST):
        return f"{key} is too large, or is not a single value"
    if key in _OF_WORK and not (isinstance(value, dict) and all(map(_OF_WORK[key], value.values()))):
        return f"{key} has values of another type"
    return ""


# What the values of a round's fields are.
_OF_WORK: dict[str, Callable[[Any], bool]] = {
    "counts": lambda value: type(value) is int and value >= 0,
    "times": lambda value: type(value) is str and _canonical(value) == value,
}


def _texts(value: object) -> Iterator[str]:
    """The strings in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


_MONEY = re.compile(r"-?\d{1,12}(\.\d{1,18})?\Z")


def _canonical(text: str) -> str:
    try:
        return when.canonical(text)
    except (ValueError, OverflowError):
        return ""
