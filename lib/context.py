"""The law of context: what each turn's prompt tokens are made of, by cause. Pure: turns and sizes in, shares out.

A chain is the path of one agent through its turns. Each turn has a state, the list of its prompt's segments (cause and
tokens, in the order of the prompt), which depends on its parent's state and on the turn alone. So rewinds and forks need
no rule of their own. docs/context.md explains the law with an example.

Whatever the records say, the causes of a turn add up to its recorded tokens, class by class.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import events, joins
from tokenops.events import Event

# How a cause's tokens were paid: read from a cache, sent for the first time, paid again, or written by the model.
CARRYING, ENTERING, REWRITING, PRODUCING = KINDS = ("carrying", "entering", "rewriting", "producing")
READ, INPUT, OUTPUT = "cache_read_tokens", "input_tokens", "output_tokens"
# The classes of a prompt, from its front.
CLASSES = (READ, "cache_write_1h_tokens", "cache_write_12h_tokens", "cache_write_tokens", INPUT)
# Causes that the law itself gives.
BASE, SUMMARY, UNEXPLAINED, REPLY, THINKING = "base", "summary", "unexplained", "reply", "thinking"
FEES, UNLOGGED = "fees", "unlogged"
COMPACTION = "compaction"

Counts = dict[str, int]
Sizes = Sequence[tuple[str, int]]
# A segment, linked to the one before it: what is before, cause, tokens.
Node = tuple[Any, str, int] | None


class Part(NamedTuple):
    """Tokens of one class that were paid in one way, by cause."""

    kind: str
    name: str
    tokens: Mapping[str, int]


class Shares(NamedTuple):
    """What one turn's tokens are shares of. `rewriting`: how many old prompt tokens no cache had, by class."""

    turn: Event
    record: Event | None
    parent: Event | None
    parts: list[Part]
    base: int  # the size of the front segment
    cleared: int  # tokens of tool results that the parent's prompt had and this one lacks

    @property
    def rewriting(self) -> Counts:
        """Prompt tokens that were paid again, by class."""
        return {part.name: sum(part.tokens.values()) for part in self.parts if part.kind == REWRITING}


class State(NamedTuple):
    """A turn's prompt: its last segment, its tokens by cause, its size, and sizes of what entered without being counted."""

    last: Node
    tokens: Counts
    size: int
    waiting: tuple[tuple[str, int], ...] = ()
    compacted: bool = False


_EMPTY = State(None, {}, 0)


def shares(turns: Mapping[str, Event], records: Mapping[str, Event], apart: int = 0) -> Iterator[Shares]:
    """What each turn's tokens are made of; ancestors come before their descendants.

    `turns` and `records` (of kind context) are by the turn's id. A parent that is not among the turns is no parent. `apart`:
    segments that enter with so many tokens or more have causes of their own, which name the turn (`segment_of`).
    """
    parents, chained = parents_of(turns, records), set(_turns_by_time_alone(turns, records))
    caching = {_cache_of(turn) for turn in turns.values() if any(turn.get(name) for name in CLASSES[:-1])}
    children: Counts = {}
    for above in parents.values():
        children[above] = children.get(above, 0) + 1
    states: dict[str, State | None] = {}
    for identity in _in_order(turns, parents):
        turn, record, parent = turns[identity], records.get(identity), parents.get(identity)
        before = None
        if parent is not None:
            before = states[parent]
            children[parent] -= 1
            if not children[parent]:
                del states[parent]
        ancestor = turns[parent] if parent is not None else None
        if before is None and not _is_placed(record) and identity not in chained:
            before = _EMPTY  # which turn it follows is unknown, so its prompt is growth that nothing explains
        share, state = _share(turn, record, ancestor, before, _cache_of(turn) in caching, apart)
        if children.get(identity):
            states[identity] = state
        yield share


# Between a cause and the id of the turn at which a segment of it entered.
_AT = "\n"


def _with_turn(cause: str, count: int, turn: Event, apart: int) -> tuple[str, int]:
    return (f"{cause}{_AT}{turn['id']}" if count >= apart else cause), count


def segment_of(cause: str) -> tuple[str, str]:
    """The cause of a segment that has one of its own, and the turn at which it entered, "" of all others."""
    name, _, turn = cause.partition(_AT)
    return name, turn


def _cache_of(turn: Event) -> tuple[Any, Any]:
    """What states cache counts, or does not: a provider in a session."""
    return turn.get("session_id"), turn.get("provider")


def parents_of(turns: Mapping[str, Event], records: Mapping[str, Event]) -> dict[str, str]:
    """The turn before each turn on its chain, of those that have one."""
    parents: dict[str, str] = {}
    last: dict[Any, str] = {}
    for identity, record in records.items():
        parent = record.get("parent")
        if parent is not None and parent in turns and identity in turns and parent != identity:
            parents[identity] = parent
    for identity in _turns_by_time_alone(turns, records):
        session = turns[identity].get("session_id")
        if session in last:
            parents[identity] = last[session]
        last[session] = identity
    return parents


def _by_time(turns: Mapping[str, Event]) -> list[str]:
    return sorted(turns, key=lambda identity: (turns[identity]["ts"], identity))


def _turns_by_time_alone(turns: Mapping[str, Event], records: Mapping[str, Event]) -> Iterator[str]:
    """The turns of main chains from before records were kept, which follow one another by time.

    Of a session with records these are only the turns before the first one. What comes later without a record is beside the
    chain: a request that only the proxy saw, or a part of an answer that another model gave (`msg_1#2`).
    """
    sessions: set[Any] = set()
    for identity in _by_time(turns):
        turn = turns[identity]
        if turn.get("sidechain"):
            continue
        if _is_placed(records.get(identity)):
            sessions.add(turn.get("session_id"))
        elif turn.get("turns") and "#" not in identity and turn.get("session_id") not in sessions:
            yield identity


def _is_placed(record: Event | None) -> bool:
    """Whether a record says where its turn stands on a chain. Of what only tok-proxy saw, nobody knows."""
    return record is not None and (record.get("source") != "proxy" or bool(record.keys() & _PLACE))


_PLACE = frozenset(("parent", "chain", "event", "entered", "produced"))


def _in_order(turns: Mapping[str, Event], parents: dict[str, str]) -> Iterator[str]:
    """The turns' ids by time, but each after its parent. Parents that form a circle are dropped from `parents`."""
    visited: set[str] = set()
    for first in _by_time(turns):
        path: list[str] = []
        identity: str | None = first
        while identity is not None and identity not in visited:
            visited.add(identity)
            path.append(identity)
            parent = parents.get(identity)
            if parent is not None and parent in path:
                del parents[identity]
                parent = None
            identity = parent
        yield from reversed(path)


def _share(
    turn: Event, record: Event | None, ancestor: Event | None, before: State | None, caching: bool, apart: int
) -> tuple[Shares, State | None]:
    """One turn's shares and its state, from its parent's state (None of the first turn of a chain)."""
    size = events.context_size(turn)
    compacted = (record is not None and record.get("event") == COMPACTION) or (before is not None and before.compacted)
    items = _items(record, before)
    old = cleared = 0
    if not size:  # its counts are unknown: the next turn grows by what entered at both
        state = before and before._replace(waiting=(*items, *_own(record)), compacted=compacted)
        return Shares(turn, record, ancestor, _output(turn, record), 0, 0), state
    if before is None:
        after = _grown(_EMPTY, ((BASE, size),))
    elif compacted:
        after = _grown(_EMPTY, ((SUMMARY, size),))
    elif size >= before.size:
        old = before.size
        grown = apportion(size - before.size, items) if items else [(UNEXPLAINED, size - before.size)]
        after = _grown(before, [_with_turn(cause, count, turn, apart) for cause, count in grown] if apart else grown)
    else:
        after, old, cleared = _fallen(before, size)
    parts = [*_prompt(turn, after, old, REWRITING if caching else CARRYING), *_output(turn, record)]
    state = after._replace(waiting=tuple(_own(record)))
    return Shares(turn, record, ancestor, parts, after.tokens.get(BASE, 0), cleared), state


# What stands between an answer and the next request, in the order of the prompt; other causes come with attachments.
_RANK = {REPLY: 0, "call": 1, "result": 2, "attachment": 3, "image": 3, SUMMARY: 4, "prompt": 5}


@functools.cache
def rank(cause: str) -> tuple[int, str]:
    """The order of segments inside one growth."""
    return _RANK.get(cause.partition(" ")[0], 3), cause


def _items(record: Event | None, before: State | None) -> list[tuple[str, int]]:
    """The sizes of what entered between the parent's request and this one. Thinking counts only if there is nothing else."""
    sizes: Counts = {}
    entered = record.get("entered", {}) if record is not None else {}
    for cause, size in (*(before.waiting if before is not None else ()), *entered.items()):
        if size > 0:
            sizes[cause] = sizes.get(cause, 0) + size
    if len(sizes) < 2:
        return list(sizes.items())
    items = [(cause, sizes[cause]) for cause in sorted(sizes, key=rank)]
    return [item for item in items if item[0] != THINKING] or items


def _own(record: Event | None) -> Sizes:
    return list(record.get("produced", {}).items()) if record is not None else []


def apportion(total: int, sizes: Sizes) -> list[tuple[str, int]]:
    """A whole number in whole shares by size (largest remainder; of equal ones, the first). The sizes are not all 0."""
    if len(sizes) == 1:
        return [(sizes[0][0], total)]
    whole = sum([size for _, size in sizes])
    parts = [divmod(total * size, whole) for _, size in sizes]
    rest = total - sum(part for part, _ in parts)
    result = [part for part, _ in parts]
    if rest:
        for at in sorted(range(len(parts)), key=lambda at: (-parts[at][1], at))[:rest]:
            result[at] += 1
    return [(cause, part) for (cause, _), part in zip(sizes, result, strict=True)]


def _grown(state: State, segments: Sizes) -> State:
    last, tokens = state.last, dict(state.tokens)
    size = state.size
    for cause, count in segments:
        if count:
            last = (last, cause, count)
            tokens[cause] = tokens.get(cause, 0) + count
            size += count
    return State(last, tokens, size)


def _segments(last: Node) -> list[tuple[str, int]]:
    """All segments, from the front."""
    result = []
    while last is not None:
        last, cause, count = last
        result.append((cause, count))
    result.reverse()
    return result


def _fallen(state: State, size: int) -> tuple[State, int, int]:
    """A smaller prompt: cleared tool results are gone, the oldest first. How much of it is old, and how much was cleared.

    If they do not explain it, half of the prompt or more is a compaction that nobody marked; else the end was cut.
    """
    fall = state.size - size
    segments = _segments(state.last)
    results = sum(count for cause, count in segments if cause.startswith("result "))
    if fall > results and size * 2 <= state.size:
        return _grown(_EMPTY, ((SUMMARY, size),)), 0, 0
    kept, gone = [], min(fall, results)
    for cause, count in segments:
        cleared = min(fall, count) if cause.startswith("result ") else 0
        fall -= cleared
        kept.append((cause, count - cleared))
    while fall:
        cause, count = kept.pop()
        kept.append((cause, count - min(fall, count)))
        fall -= min(fall, count)
        if not kept[-1][1]:
            kept.pop()
    return _grown(_EMPTY, kept), size, gone


def _prompt(turn: Event, state: State, old: int, kind: str) -> list[Part]:
    """The prompt's tokens by class: the classes fill the segments from the front; up to `old` they stood there before."""
    spans: list[tuple[str, str, int]] = []
    at = 0
    for name in CLASSES:
        count = turn.get(name, 0)
        if not count:
            continue
        for end in (old, at + count) if at < old < at + count and name != READ else (at + count,):
            spans.append((CARRYING if name == READ else kind if at < old else ENTERING, name, end - at))
            at = end
    parts = []
    node, left = state.last, dict(state.tokens)
    cause, rest = "", 0
    for way, name, count in reversed(spans[1:]):
        tokens: Counts = {}
        while count:
            if not rest:
                assert node is not None
                node, cause, rest = node
            piece = min(rest, count)
            rest -= piece
            count -= piece  # noqa: PLW2901
            tokens[cause] = tokens.get(cause, 0) + piece
        for name_, piece in tokens.items():
            if left[name_] == piece:
                del left[name_]
            else:
                left[name_] -= piece
        parts.append(Part(way, name, tokens))
    if spans:
        parts.append(Part(spans[0][0], spans[0][1], left))
    parts.reverse()
    return parts


def _output(turn: Event, record: Event | None) -> list[Part]:
    """The output's tokens: thinking as far as it is counted, the rest by size."""
    count = turn.get(OUTPUT, 0)
    if not count:
        return []
    sizes = [(cause, size) for cause, size in _own(record) if size > 0]
    if len(sizes) > 1:
        sizes.sort(key=lambda item: rank(item[0]))
    others = [item for item in sizes if item[0] != THINKING]
    thinking = min(turn.get("reasoning_tokens", 0), count)
    rest = count - thinking
    if not others:
        others = sizes if sizes and not thinking else [(REPLY, 1)]
    tokens: Counts = {THINKING: thinking} if thinking else {}
    for cause, part in apportion(rest, others):
        if part:
            tokens[cause] = tokens.get(cause, 0) + part
    return [Part(PRODUCING, OUTPUT, tokens)]


def shares_of_total(total: Event) -> Shares:
    """The shares of a session's total or remainder, whose requests left no line in a log."""
    parts = [
        Part(CARRYING if name == READ else ENTERING, name, {UNLOGGED: total[name]}) for name in CLASSES if total.get(name)
    ]
    if total.get(OUTPUT):
        parts.append(Part(PRODUCING, OUTPUT, {UNLOGGED: total[OUTPUT]}))
    return Shares(total, None, None, parts, 0, 0)


def by_turn(records: Iterable[Event]) -> dict[str, Event]:
    """Records of kind context by the id of their turn."""
    result: dict[str, Event] = {}
    for record in records:
        add(result, record)
    return result


def add(records: dict[str, Event], record: Event) -> None:
    """Add a record of kind context; client's log and tok-proxy may have named the same turn by different ids."""
    turn = record["turn"]
    other = records.get(turn)
    records[turn] = record if other is None or other == record else joins.join(other, {**record, "id": other["id"]})
