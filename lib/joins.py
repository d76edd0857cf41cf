"""Joins two sightings of one thing into one record: commutative, associative and idempotent.

A turn is joined block by block: its time, its usage, its attribution and its tags, each the maximum of a total order,
so neither the order of files nor the number of workers matters. Each order begins with the reader's revision
(events.REVISIONS): what a newer revision reads from a client's file replaces what an older one read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from tokenops import events
from tokenops.events import TS_UNREVISED, USAGE_SIDECHAIN, USAGE_UNREVISED, Event

_USAGE, _ATTRIBUTION = frozenset(events.USAGE), frozenset(events.ATTRIBUTION)
_DECIDED = frozenset(
    (
        *(*events.USAGE, *events.ATTRIBUTION, *events.OWNER, "v", "ts", "kind", "id"),
        *(USAGE_SIDECHAIN, USAGE_UNREVISED, TS_UNREVISED),
    )
)
# What only the proxy knows, and the effort, which a request states as its client's log does. No reader's revision
# replaces it.
_OF_THE_WIRE = frozenset(("status", "error", "latency_ms", "ttft_ms", "path", "credential", "effort"))

_REVISED = frozenset(("source", "revision"))

# A client's own log names project and session; the proxy and the vendor's reports name less.
_WEAK_SOURCES = ("proxy", "vendor-", "otel")


def revision_of(event: Event) -> int:
    """The revision of the reader that gave a record, or a block with its source; 0 if its source has none.

    A revision that is newer than this program counts as the newest that it knows: it cannot tell what changed.
    """
    newest = events.REVISIONS.get(event.get("source", ""), 0)
    return min(event.get("revision", 1), newest) if newest else 0


def is_superseded(event: Event) -> bool:
    """Whether an older revision of a reader gave a record: a newer one may say something else about the same turn."""
    return revision_of(event) < events.REVISIONS.get(event.get("source", ""), 0)


def _version(a: Event, b: Event) -> int:
    """The version of two sightings; one that a damaged line lacks is the present one."""
    versions: list[int] = [event.get("v", events.VERSION) for event in (a, b)]
    return max(versions)


def join(a: Event, b: Event) -> Event:
    """One event from two sightings of the same thing.

    Associative, commutative and idempotent: each block is the maximum of a total order on its own content.
    """
    if a == b:
        return events.arrange(a)
    kind = a.get("kind")
    owner = _owner_of_both(a, b)
    if kind != "turn":
        other = _more(a, b) if kind == "work" else _fuller(a, b) if kind == "context" else _later(a, b)
        return events.arrange(other | owner) if owner else other
    usage = max(usage_of(a), usage_of(b), key=usage_rank)
    attribution = max(attribution_of(a), attribution_of(b), key=attribution_rank)
    began = _earlier(_time_of(a), _time_of(b))
    joined: Event = {"v": _version(a, b), "ts": began["ts"], "kind": "turn", **owner}
    joined |= attribution | {name: value for name, value in usage.items() if name in _USAGE}
    if revision_of(attribution):
        joined |= {name: True for name, block in ((USAGE_UNREVISED, usage), (TS_UNREVISED, began)) if not revision_of(block)}
    if usage.get("sidechain") and (USAGE_UNREVISED in joined or not joined.get("sidechain")):
        joined[USAGE_SIDECHAIN] = True
    newest = max(revision_of(a), revision_of(b))
    for key in (a.keys() | b.keys()) - _DECIDED | {"id"}:
        both = [event for event in (a, b) if key in event and (key in _OF_THE_WIRE or revision_of(event) == newest)]
        if both:
            joined[key] = max((event[key] for event in both), key=functools.partial(_tag_rank, key))
    return events.arrange(joined)


def _owner_of_both(a: Event, b: Event) -> Event:
    """The machine and the user of two sightings: of each the smallest name. No rank of a block looks at them."""
    names = {key: [event[key] for event in (a, b) if key in event] for key in events.OWNER}
    return {key: min(values, key=_bytes_of) for key, values in names.items() if values}


def _bytes_of(name: str) -> bytes:
    """A name's own bytes, by which other engines order text."""
    return name.encode(errors="surrogatepass")


def _without_owner(event: Event) -> Event:
    """What the ranks of whole records are made of; the time of one is the earlier of both, whichever is taken."""
    return {key: value for key, value in event.items() if key not in events.OWNER}


def _tag_rank(key: str, value: object) -> tuple[bool, bytes]:
    """The total order of the values of a tag: the largest, and of aliases one that names an older identity."""
    if key in events.TAGS and isinstance(value, str):
        return False, _bytes_of(value)
    return key == "alias" and not events.is_made_of_counts(str(value)), events.order_of(value)


def _origin_of(event: Event, unrevised: str) -> Event:
    """Source and revision of a block; nothing if a source without revisions gave it."""
    if unrevised in event or event.get("source") not in events.REVISIONS:
        return {}
    return {"source": event["source"], "revision": revision_of(event)}


def _time_of(event: Event) -> Event:
    return _origin_of(event, TS_UNREVISED) | {"ts": event["ts"]}


def _earlier(a: Event, b: Event) -> Event:
    """Of two times the earlier one, but first of those that no newer revision replaces: a total order."""
    standings = [revision_of(block) if is_superseded(block) else 10 for block in (a, b)]
    if standings[0] != standings[1]:
        return a if standings[0] > standings[1] else b
    if a["ts"] != b["ts"]:
        return min(a, b, key=lambda block: block["ts"])
    return max(a, b, key=revision_of)


def _is_weak(block: Event) -> bool:
    return str(block.get("source", "proxy")).startswith(_WEAK_SOURCES)


def usage_of(event: Event) -> Event:
    """The block of counts, model, tier and cost, on which a join decides as a whole, with its reader's revision."""
    block = {key: value for key, value in event.items() if key in _USAGE} | _origin_of(event, USAGE_UNREVISED)
    if event.get(USAGE_SIDECHAIN) or (event.get("sidechain") and not event.get(USAGE_UNREVISED)):
        block["sidechain"] = True
    return block


def usage_rank(block: Event) -> tuple[int, int, int, bool, bool, int, bool, int, int, bytes, int]:
    """The total order of usage blocks: the largest wins. USAGE_RANKS says what decided.

    What a newer revision replaces counts less than all but the counts that the wire does not know.
    """
    certainty = {"unknown": 0, "partial": 1}.get(block.get("usage", ""), 2)
    superseded = is_superseded(block)
    if superseded:
        standing = 1
    else:
        standing = 2 + certainty if certainty or revision_of(block) else 0
    content = {key: value for key, value in block.items() if key not in _REVISED}
    return (
        standing,
        revision_of(block) if superseded else 0,
        certainty,
        block.get("model", "unknown") != "unknown",
        not block.get("sidechain"),
        block.get("output_tokens", 0),
        "cost_usd" in block,
        events.token_sum(block),
        _told_apart(block),
        events.order_of(content),
        revision_of(block),
    )


def _told_apart(block: Event) -> int:
    """Tokens of which more is known than input or output: some logs keep cache writes inside the input, or no reasoning."""
    return sum(block.get(name, 0) for name in (*events.CONTEXT[1:], "reasoning_tokens"))


# Why the other sighting was taken, for each part of the sort key.
USAGE_RANKS = (
    "another copy is from a newer reader, or has known counts",
    "another copy is from a newer reader",
    "another copy has known counts",
    "another copy has a known model",
    "another copy is from the main chain",
    "another copy has the larger output",
    "another copy has a reported cost",
    "another copy has more tokens in all",
    "another copy tells more of the same tokens apart",
    "another copy sorts later by its bytes",
    "another copy is from a client's own log",
)


def attribution_of(event: Event) -> Event:
    """The block of client, project, session and account."""
    return {key: value for key, value in event.items() if key in _ATTRIBUTION}


def attribution_rank(block: Event) -> tuple[int, bool, bool, bytes]:
    """The total order of attribution blocks. ATTRIBUTION_RANKS says what decided."""
    return (revision_of(block), not block.get("sidechain"), not _is_weak(block), events.order_of(block))


ATTRIBUTION_RANKS = (
    "another copy is from a newer reader",
    "another copy is from the main chain",
    "another copy is from a client's own log",
    "another copy sorts later by its bytes",
)


def _later(a: Event, b: Event) -> Event:
    """The later of two readings of a meter or an aggregate, else the larger one; with the earlier time.

    A session's total only grows, so the larger is the later one: a copied file's time means nothing.
    """
    if revision_of(a) != revision_of(b):
        return max((a, b), key=revision_of)
    covers = a.get("covers"), b.get("covers")
    if events.REMAINDER in covers:
        return max((a, b), key=remainder_rank)
    seen = a.get("observed_at", ""), b.get("observed_at", "")
    if seen[0] != seen[1] and events.SESSION not in covers:  # nearly all readings of a meter
        best = a if seen[0] > seen[1] else b
    else:
        best = max((a, b), key=_later_rank)
    return {**best, "ts": min(a["ts"], b["ts"])}


def _later_rank(event: Event) -> tuple[int, str, int, bytes]:
    size = events.token_sum(event)
    grown = size if event.get("covers") == events.SESSION else -1
    return grown, event.get("observed_at", ""), size, events.order_of({**_without_owner(event), "ts": ""})


def remainder_rank(event: Event) -> tuple[bool, int, str, int, int, bytes]:
    """The total order of remainders: later sums win, and of the same sums the smaller rest, which knows more turns."""
    late = (revision_of(event), event["ts"], event.get("total_tokens", 0), -events.token_sum(event))
    return (event.get("covers") == events.REMAINDER, *late, events.order_of(_without_owner(event)))


def _more(a: Event, b: Event) -> Event:
    """Two readings of one round: the larger of each count, the earlier of each time, and the later of `last`."""
    if revision_of(a) != revision_of(b):
        return events.arrange(max((a, b), key=revision_of))
    joined: Event = {"v": _version(a, b), "ts": min(a["ts"], b["ts"]), "kind": "work"}
    joined["id"] = max(a["id"], b["id"], key=events.order_of)
    attribution = max(attribution_of(a), attribution_of(b), key=attribution_rank)
    joined |= attribution
    counts, times = (a.get("counts", {}), b.get("counts", {})), (a.get("times", {}), b.get("times", {}))
    joined["counts"] = {
        name: max(block.get(name, 0) for block in counts) for name in sorted(counts[0].keys() | counts[1].keys())
    }
    joined["times"] = {
        name: (max if name == "last" else min)(block[name] for block in times if name in block)
        for name in sorted(times[0].keys() | times[1].keys())
    }
    return events.arrange(joined)


# Where a turn stands, and what entered before it: decided on as a whole.
_POSITION = ("chain", "parent", "event", "entered")
# What tok-proxy saw of a turn's request: decided on as a whole. No reader's revision replaces it.
WIRE = ("parts", "tools", "toolset", "prefix", "changed")


def _fuller(a: Event, b: Event) -> Event:
    """Two sightings of the sizes of a turn: the position on the main chain, then the fuller one; of the output the most.

    An answer may be read before its last lines are written, so each cause of its output is a maximum.
    """
    wire = max(({name: event[name] for name in WIRE if name in event} for event in (a, b)), key=_wire_rank)
    if revision_of(a) != revision_of(b):
        newest = max((a, b), key=revision_of)
        return events.arrange({name: value for name, value in newest.items() if name not in WIRE} | wire)
    joined: Event = {
        "v": _version(a, b),
        "ts": min(a["ts"], b["ts"]),
        "kind": "context",
        **wire,
    }
    for name in ("id", "turn", "miss", "version"):
        values = [event[name] for event in (a, b) if name in event]
        if values:
            joined[name] = max(values, key=events.order_of)
    attribution = max(attribution_of(a), attribution_of(b), key=attribution_rank)
    position = max(({name: event[name] for name in _POSITION if name in event} for event in (a, b)), key=_position_rank)
    joined |= attribution | position
    outputs = [event["produced"] for event in (a, b) if "produced" in event]
    if outputs:
        names = sorted({name for block in outputs for name in block})
        joined["produced"] = {name: max(block.get(name, 0) for block in outputs) for name in names}
    return events.arrange(joined)


def _wire_rank(block: Event) -> tuple[bool, bool, bytes]:
    return "tools" in block, "parts" in block, events.order_of(block)


def _position_rank(block: Event) -> tuple[bool, bool, bool, int, bytes]:
    # Nothing at all is what the proxy says of the position.
    return (
        bool(block),
        "chain" not in block,
        "parent" in block,
        sum(block.get("entered", {}).values()),
        events.order_of(block),
    )


def join_all(records: Iterable[Event]) -> Iterator[Event]:
    """Each thing once, its sightings joined, in order of time. Reads everything first."""
    joined: dict[str, Event] = {}
    for event in records:
        other = joined.get(event["id"])
        joined[event["id"]] = event if other is None else join(other, event)
    return iter(sorted(joined.values(), key=lambda e: (e["ts"], e["id"])))
