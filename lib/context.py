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

from tokenops import joins
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
    waiting: Sizes = ()
    compacted: bool = False


_EMPTY = State(None, {}, 0)


def shares(turns: Mapping[str, Event], records: Mapping[str, Event], apart: int = 0) -> Iterator[Shares]:
    """What each turn's tokens are made of; ancestors come before their descendants.

    `turns` and `records` (of kind context) are by the turn's id. A parent that is not among the turns is no parent. `apart`:
    segments that enter with so many tokens or more have causes of their own, which name the turn (`segment_of`).
    """
    by_time = _by_time(turns)
    chained = _turns_by_time_alone(by_time, turns, records)
    parents, caching = _parents_of(turns, records, chained), _caching(turns)
    alone = set(chained)
    children: Counts = {}
    for above in parents.values():
        children[above] = children.get(above, 0) + 1
    states: dict[str, State | None] = {}
    for identity in _in_order(by_time, parents):
        turn, record, parent = turns[identity], records.get(identity), parents.get(identity)
        before = ancestor = None
        if parent is not None:
            before, ancestor = states[parent], turns[parent]
            children[parent] -= 1
            if not children[parent]:
                del states[parent]
        if before is None and not _is_placed(record) and identity not in alone:
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


def _caching(turns: Mapping[str, Event]) -> set[tuple[Any, Any]]:
    """Those that state cache counts."""
    caching: set[tuple[Any, Any]] = set()
    for turn in turns.values():
        cache = _cache_of(turn)
        if cache not in caching and any(turn.get(name) for name in CLASSES[:-1]):
            caching.add(cache)
    return caching


def parents_of(turns: Mapping[str, Event], records: Mapping[str, Event]) -> dict[str, str]:
    """The turn before each turn on its chain, of those that have one."""
    return _parents_of(turns, records, _turns_by_time_alone(_by_time(turns), turns, records))


def _parents_of(turns: Mapping[str, Event], records: Mapping[str, Event], chained: list[str]) -> dict[str, str]:
    parents: dict[str, str] = {}
    last: dict[Any, str] = {}
    for identity, record in records.items():
        parent = record.get("parent")
        if parent is not None and parent in turns and identity in turns and parent != identity:
            parents[identity] = parent
    for identity in chained:
        session = turns[identity].get("session_id")
        if session in last:
            parents[identity] = last[session]
        last[session] = identity
    return parents


def _by_time(turns: Mapping[str, Event]) -> list[str]:
    return sorted(turns, key=lambda identity: (turns[identity]["ts"], identity))


def _turns_by_time_alone(by_time: list[str], turns: Mapping[str, Event], records: Mapping[str, Event]) -> list[str]:
    """The turns of main chains from before records were kept, which follow one another by time.

    Of a session with records these are only the turns before the first one. What comes later without a record is beside the
    chain: a request that only the proxy saw, or a part of an answer that another model gave (`msg_1#2`).
    """
    chained: list[str] = []
    sessions: set[Any] = set()
    for identity in by_time:
        turn = turns[identity]
        if turn.get("session_id") in sessions or turn.get("sidechain"):
            continue
        if _is_placed(records.get(identity)):
            sessions.add(turn.get("session_id"))
        elif turn.get("turns") and "#" not in identity:
            chained.append(identity)
    return chained


def _is_placed(record: Event | None) -> bool:
    """Whether a record says where its turn stands on a chain. Of what only tok-proxy saw, nobody knows."""
    return record is not None and (record.get("source") != "proxy" or bool(record.keys() & _PLACE))


_PLACE = frozenset(("parent", "chain", "event", "entered", "produced"))


def _in_order(by_time: list[str], parents: dict[str, str]) -> Iterator[str]:
    """The turns' ids by time, but each after its parent. Parents that form a circle are dropped from `parents`."""
    visited: set[str] = set()
    for first in by_time:
        above = parents.get(first)
        if (above is None or above in visited) and first not in visited:  # nearly all
            visited.add(first)
            yield first
            continue
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
    counts = [(name, turn[name]) for name in CLASSES if turn.get(name)]
    size = sum([count for _, count in counts])
    own = tuple(record["produced"].items()) if record is not None and "produced" in record else ()
    compacted = (record is not None and record.get("event") == COMPACTION) or (before is not None and before.compacted)
    old = cleared = 0
    if not size:  # its counts are unknown: the next turn grows by what entered at both
        state = before and before._replace(waiting=(*_items(record, before), *own), compacted=compacted)
        return Shares(turn, record, ancestor, _output(turn, own), 0, 0), state
    if before is None:
        after = _grown(_EMPTY, ((BASE, size),), own)
    elif compacted:
        after = _grown(_EMPTY, ((SUMMARY, size),), own)
    elif size >= before.size:
        old = before.size
        grown = apportion(size - old, _items(record, before) or _UNEXPLAINED)
        after = _grown(before, [_with_turn(cause, count, turn, apart) for cause, count in grown] if apart else grown, own)
    else:
        after, old, cleared = _fallen(before, size, own)
    parts = _prompt(counts, after, old, REWRITING if caching else CARRYING)
    parts += _output(turn, own)
    return Shares(turn, record, ancestor, parts, after.tokens.get(BASE, 0), cleared), after


_UNEXPLAINED = ((UNEXPLAINED, 1),)


# What stands between an answer and the next request, in the order of the prompt; other causes come with attachments.
_RANK = {REPLY: 0, "call": 1, "result": 2, "attachment": 3, "image": 3, SUMMARY: 4, "prompt": 5}


@functools.cache
def rank(cause: str) -> tuple[int, str]:
    """The order of segments inside one growth."""
    return _RANK.get(cause.partition(" ")[0], 3), cause


def _items(record: Event | None, before: State | None) -> list[tuple[str, int]]:
    """The sizes of what entered between the parent's request and this one. Thinking counts only if there is nothing else."""
    sizes: Counts = {}
    for cause, size in before.waiting if before is not None else ():
        if size > 0:
            sizes[cause] = sizes.get(cause, 0) + size
    for cause, size in record["entered"].items() if record is not None and "entered" in record else ():
        if size > 0:
            sizes[cause] = sizes.get(cause, 0) + size
    if len(sizes) > 1:
        sizes.pop(THINKING, None)
    if len(sizes) < 2:
        return list(sizes.items())
    return [(cause, sizes[cause]) for cause in sorted(sizes, key=rank)]


def apportion(total: int, sizes: Sizes) -> list[tuple[str, int]]:
    """A whole number in whole shares by size (largest remainder; of equal ones, the first). The sizes are not all 0."""
    if len(sizes) == 1:
        return [(sizes[0][0], total)]
    whole = sum([size for _, size in sizes])
    result = [(cause, total * size // whole) for cause, size in sizes]
    rest = total - sum([part for _, part in result])
    lefts = [total * size % whole for _, size in sizes] if rest else []
    for _ in range(rest):
        at = lefts.index(max(lefts))
        lefts[at] = -1
        cause, part = result[at]
        result[at] = cause, part + 1
    return result


def _grown(state: State, segments: Sizes, waiting: Sizes) -> State:
    """A prompt with more segments at its end; and what its answer makes wait."""
    last, tokens = state.last, state.tokens.copy()
    size = state.size
    for cause, count in segments:
        if count:
            last = (last, cause, count)
            tokens[cause] = tokens.get(cause, 0) + count
            size += count
    return State(last, tokens, size, waiting)


def _segments(last: Node) -> list[tuple[str, int]]:
    """All segments, from the front."""
    result = []
    while last is not None:
        last, cause, count = last
        result.append((cause, count))
    result.reverse()
    return result


def _fallen(state: State, size: int, waiting: Sizes) -> tuple[State, int, int]:
    """A smaller prompt: cleared tool results are gone, the oldest first. How much of it is old, and how much was cleared.

    If they do not explain it, half of the prompt or more is a compaction that nobody marked; else the end was cut.
    """
    fall = state.size - size
    segments = _segments(state.last)
    results = sum(count for cause, count in segments if cause.startswith("result "))
    if fall > results and size * 2 <= state.size:
        return _grown(_EMPTY, ((SUMMARY, size),), waiting), 0, 0
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
    return _grown(_EMPTY, kept, waiting), size, gone


def _prompt(counts: Sizes, state: State, old: int, kind: str) -> list[Part]:
    """The prompt's tokens by class: the classes fill the segments from the front; up to `old` they stood there before."""
    spans: list[tuple[str, str, int]] = []
    at = 0
    for name, count in counts:
        end = at + count
        if name == READ:
            spans.append((CARRYING, name, count))
        elif at < old < end:
            spans += (kind, name, old - at), (ENTERING, name, end - old)
        else:
            spans.append((kind if at < old else ENTERING, name, count))
        at = end
    parts = []
    node, left = state.last, state.tokens.copy()
    cause, rest = "", 0
    for way, name, count in reversed(spans[1:]):
        tokens: Counts = {}
        while count:
            if not rest:
                assert node is not None
                node, cause, rest = node
            piece = count if count < rest else rest
            rest -= piece
            count -= piece  # noqa: PLW2901
            tokens[cause] = tokens.get(cause, 0) + piece
            if left[cause] == piece:
                del left[cause]
            else:
                left[cause] -= piece
        parts.append(Part(way, name, tokens))
    parts.append(Part(spans[0][0], spans[0][1], left))
    parts.reverse()
    return parts


def _output(turn: Event, produced: Sizes) -> list[Part]:
    """The output's tokens: thinking as far as it is counted, the rest by size."""
    count = turn.get(OUTPUT, 0)
    if not count:
        return []
    sizes = [item for item in produced if item[1] > 0]
    others = [item for item in sizes if item[0] != THINKING]
    thinking = min(turn.get("reasoning_tokens", 0), count)
    if not others:
        others = sizes if sizes and not thinking else [(REPLY, 1)]
    elif len(others) > 1:
        others.sort(key=lambda item: rank(item[0]))
    tokens: Counts = {THINKING: thinking} if thinking else {}
    for cause, part in apportion(count - thinking, others):
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
