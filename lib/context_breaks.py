"""Finds cache breaks: turns at which prompt tokens that a cache had held were paid again, what that cost, and why.

The reason is what the records show, never a guess: several may hold, and the first in the order of `REASONS` is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import catalog, context, events, pricing, when
from tokenops.context import Counts, Shares
from tokenops.events import Event


class Break(NamedTuple):
    """One cache break. `usd`: what was paid beyond the price of reading the tokens from a cache; None if unknown.

    `gap`: milliseconds since the chain's last turn. `stated`: the client's own reason, "" if it gave none. `part`: the
    first part of the request that had changed, if tok-proxy saw it (see `reason_text`).
    """

    turn: Event
    tokens: int
    usd: Decimal | None
    reason: str
    gap: int
    stated: str
    part: str = ""


# Reason -> what it is called.
REASONS = {
    "compaction": "compacted",
    "model": "model switched",
    "tools_or_system": "tools or system prompt changed",
    "idle": "expired in a pause",
    "effort": "effort switched",
    "cleared_results": "tool results cleared",
    "settings": "settings of the request changed",
    "message": "an earlier message changed",
    "version": "new client version",
    "client": "client's own reason",
    "unchanged": "unchanged prompt, but not in the cache",
    "unknown": "unknown",
}
# What the vendor's own reasons mean.
_STATED = {"model_changed": "model", "system_changed": "tools_or_system", "tools_changed": "tools_or_system"}
_HOUR = 60


def of_turns(turns: Mapping[str, Event], records: Mapping[str, Event], catalogue: pricing.Catalogue) -> list[Break]:
    """The cache breaks at some turns, in order of time. `turns` and `records` are as in `context.shares`."""
    sessions = _suspects(turns, records)
    some = {name: turn for name, turn in turns.items() if turn.get("session_id") in sessions}
    breaks = Breaks(catalogue).watch(context.shares(some, records))
    return sorted(breaks, key=lambda each: (each.turn["ts"], each.turn["id"]))


def _suspects(turns: Mapping[str, Event], records: Mapping[str, Event]) -> set[str | None]:
    """The sessions of turns at which a cache may have broken, and of their ancestors. Most sessions have none.

    Only sizes are compared, in a tenth of the time that the shares of all turns take.
    """
    least, parents = catalog.load("caches")["break_tokens"], context.parents_of(turns, records)
    sizes = {name: events.context_size(turn) for name, turn in turns.items()}
    sessions: set[str | None] = set()
    checked: set[str] = set()
    for name, parent in parents.items():
        before, passed = parent, {name}
        while not sizes[before] and before in parents and before not in passed:  # without counts: the one before it
            passed.add(before)
            before = parents[before]
        lost = min(sizes[before], sizes[name]) - turns[name].get(context.READ, 0)
        if lost < least and records.get(name, {}).get("event") != context.COMPACTION:
            continue
        above: str | None = name
        while above is not None and above not in checked:
            checked.add(above)
            sessions.add(turns[above].get("session_id"))
            above = parents.get(above)
    return sessions


class _Chain(NamedTuple):
    """What is remembered of a chain at a turn: how long its cache lives in minutes, and its client's version."""

    minutes: int
    version: str
    base: int


class Breaks:
    """Watches shares, in the order of `context.shares`, and gives the break that each turn is, if it is one."""

    def __init__(self, catalogue: pricing.Catalogue) -> None:
        self._catalogue = catalogue
        rules = catalog.load("caches")
        self._least, self._lives, self._shortest = rules["break_tokens"], rules["minutes"], rules["least"]
        self._chains: dict[str, _Chain] = {}
        self._last: dict[Any, str] = {}  # when the last turn of a chain began, which read its cache

    def watch(self, every: Iterable[Shares]) -> Iterator[Break]:
        """The breaks among some shares."""
        for share in every:
            if (met := self.at(share)) is not None:
                yield met

    def at(self, share: Shares) -> Break | None:
        """The break at a turn, or None."""
        turn, record, parent = share.turn, share.record or {}, share.parent
        before = self._chains.get(parent["id"]) if parent is not None else None
        at, chain = turn["ts"], (turn.get("session_id"), record.get("chain"), bool(turn.get("sidechain")))
        last = self._last.get(chain, "")
        if parent is not None and parent["ts"] > last:
            last = parent["ts"]
        self._last[chain] = at if at > last else last
        minutes, version, base = self._minutes(turn), record.get("version", ""), share.base
        if before is not None:
            minutes, version, base = max(minutes, before.minutes), version or before.version, base or before.base
        self._chains[turn["id"]] = _Chain(minutes, version, base)
        if parent is None or before is None:
            return None
        compacted = record.get("event") == context.COMPACTION
        lost = self._lost_at_compaction(share, before) if compacted else share.rewriting
        tokens = sum(lost.values())
        if tokens < self._least:
            return None
        gap = max(when.moment(at) - when.moment(last), 0)
        reason = _reason(share, before, gap, compacted, version)
        part = str(record.get("changed", ""))
        return Break(turn, tokens, self._extra(turn, lost), reason, gap, str(record.get("miss") or ""), part)

    def _minutes(self, turn: Event) -> int:
        """How long the vendor keeps what a turn has written to its cache."""
        if turn.get("cache_write_12h_tokens"):
            return 12 * _HOUR
        if turn.get("cache_write_1h_tokens"):
            return _HOUR
        minutes: int = self._lives.get(turn.get("provider", ""), self._shortest)
        return minutes

    def _lost_at_compaction(self, share: Shares, before: _Chain) -> Counts:
        """What of the base no cache had after a compaction, by class."""
        left = min(before.base, sum(share.turn.get(name, 0) for name in context.CLASSES))
        left -= share.turn.get(context.READ, 0)
        lost: Counts = {}
        for name in context.CLASSES[1:]:
            if left > 0 and share.turn.get(name):
                lost[name] = min(left, share.turn[name])
                left -= lost[name]
        return lost

    def _extra(self, turn: Event, lost: Mapping[str, int]) -> Decimal | None:
        rate = self._catalogue.rate_of(turn)
        if not isinstance(rate, pricing.Rate):
            return None
        paid, read = pricing.cost_of(rate, lost), pricing.cost_of(rate, {context.READ: sum(lost.values())})
        if not isinstance(paid, pricing.Cost) or not isinstance(read, pricing.Cost):
            return None
        return max(pricing.add(paid.usd, read.usd.copy_negate()), pricing.ZERO)


def _reason(share: Shares, before: _Chain, gap: int, compacted: bool, version: str) -> str:
    """Why a cache broke."""
    turn, parent, record = share.turn, share.parent or {}, share.record or {}
    stated = str(record.get("miss") or "")
    read, part = turn.get(context.READ, 0), str(record.get("changed", "")).partition(" ")[0]
    is_same = not part and "prefix" in record  # tok-proxy saw that the request begins with all of the one before
    holds = {
        "compaction": compacted,
        "model": _differs(turn, parent, "model") or _STATED.get(stated) == "model",
        "tools_or_system": _STATED.get(stated) == "tools_or_system" or part == "system" or part.startswith("tool"),
        "idle": gap > before.minutes * 60_000,
        "effort": _differs(turn, parent, "effort"),
        "cleared_results": bool(share.cleared),
        "settings": part == "settings",
        "message": part == "message",
        "version": bool(before.version) and version != before.version and not is_same,
        "client": bool(stated),
        "unchanged": is_same,
    }
    reason = next((name for name, is_so in holds.items() if is_so), "")
    # A part of the base was still read, so the cache was there: what stands behind it in the base has changed.
    return reason or ("tools_or_system" if 0 < read < before.base else "unknown")


def _differs(turn: Event, parent: Event, name: str) -> bool:
    return name in turn and name in parent and turn[name] != parent[name]


_TOOLS = {"tool": "{}", "tool_added": "{} added", "tool_removed": "{} removed", "tool_moved": "{} moved"}


def reason_text(reason: str, part: str = "", stated: str = "") -> str:
    """Why a cache broke, in plain words: with the part that changed, or what the client stated, as far as known."""
    kind = part.partition(" ")[0]
    if reason == ("tools_or_system" if kind == "system" or kind in _TOOLS else kind):
        return part_in_words(part)
    return REASONS[reason] + (f" ({stated})" if stated else "")


def part_in_words(part: str) -> str:
    """The first part of a request that changed, in plain words: tools changed: Bash; message 14 changed."""
    kind, _, name = part.partition(" ")
    if kind in _TOOLS:
        return f"tools changed: {_TOOLS[kind].format(name)}"
    return {"system": "system prompt changed", "settings": REASONS["settings"]}.get(kind, f"{part} changed")
