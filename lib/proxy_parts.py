"""Compares each request with the one before it in its conversation, and says which part of the prompt changed first.

A vendor's cache holds the front of a prompt: all behind the first part that differs is paid again. What is remembered are
names of tools, sizes and keyed hashes; what goes into the log are names and sizes. No sockets, no clock.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import NamedTuple

from tokenops import events, wire_parts
from tokenops.events import Event
from tokenops.untrusted import Raw
from tokenops.wire_parts import OTHER, Measure, Part, Request

# So many requests of one session are remembered, and so many parts of all: some 12 MB.
_OF_SESSION, _MOST_PARTS = 8, 100_000
_MOST_TABLES = 1000
# The sizes of tools in one record, as JSON: the smallest beyond that are one.
_MOST_BYTES = 3500

Session = tuple[str, str, str]  # the upstream, the client and its session; "" if the request names none


class Change(NamedTuple):
    """How a request differs from the one before it. `prefix`: the size of what is equal, from the front.

    `part` is the first part that differs: `tool NAME`, `tool_added NAME`, `tool_removed NAME`, `tool_moved NAME`,
    `system N`, `settings` or `message N`; "" if the whole request before is the front of this one.
    """

    prefix: int
    part: str


class Chains:
    """The last requests of each session."""

    def __init__(self) -> None:
        self._requests: collections.OrderedDict[Session, list[Request]] = collections.OrderedDict()
        self._parts = 0
        self._tables: collections.OrderedDict[tuple[str, str], None] = collections.OrderedDict()

    def watch(self, path: bytes, payload: Raw, size: int, key: bytes) -> Watch | None:
        """What measures a request and compares it; None if it has no such parts. `size`: of its body, in bytes."""
        is_long = size >= wire_parts.LEAST
        return Watch(self, payload, key) if is_long and wire_parts.has_parts(path.partition(b"?")[0]) else None

    def compare(self, session: Session, request: Request) -> Change | None:
        """The change from the request before in the same conversation, None if there is none; remembers this one."""
        requests = self._requests.setdefault(session, [])
        self._requests.move_to_end(session)
        before = _predecessor(requests, request)
        change = difference(before, request) if before is not None else None
        if before is not None and change is not None and change.part.startswith("message ") and not session[2]:
            # Requests without a session that only begin alike, such as with the same examples, are no conversation.
            at = int(change.part.removeprefix("message ")) - request.first
            rest = {part.digest for part in request.messages[at:]}
            if all(part.digest not in rest for part in before.messages[at:]):
                change = None
        self._remember(requests, before if change is not None and not change.part else None, request)
        return change

    def _remember(self, requests: list[Request], replaced: Request | None, request: Request) -> None:
        gone = [each for each in requests if each is replaced] or (requests[:1] if len(requests) >= _OF_SESSION else [])
        for each in gone:
            requests.remove(each)
            self._parts -= each.count
        requests.append(request)
        self._parts += request.count
        while self._parts > _MOST_PARTS and len(self._requests) > 1:
            _, oldest = self._requests.popitem(last=False)
            self._parts -= sum(each.count for each in oldest)
        while self._parts > _MOST_PARTS and len(requests) > 1:
            self._parts -= requests.pop(0).count

    def is_new(self, session: str, digest: str) -> bool:
        """Whether the sizes of a session's tools were not written down yet; from now on they were."""
        table = session, digest
        is_new = table not in self._tables
        self._tables[table] = None
        if len(self._tables) > _MOST_TABLES:
            self._tables.popitem(last=False)
        return is_new


class Watch:
    """Measures one request and compares it. Whatever it meets, the request's tokens are counted all the same."""

    def __init__(self, chains: Chains, payload: Raw, key: bytes) -> None:
        self._chains, self._measure = chains, Measure(payload, key)
        self._change: Change | None = None
        self._is_whole = False

    def slices(self, session: Session) -> Iterator[None]:
        """The slices of the work."""
        try:
            yield from self._measure.slices()
            self._change = self._chains.compare(session, self._measure.request)
            self._is_whole = True
        except Exception:  # what a vendor answers to such a body still counts
            self._is_whole = False

    def records(self, turns: list[Event]) -> list[Event]:
        """The record beside the first of some turns."""
        if not self._is_whole or not turns or not self._measure.request.sizes:
            return []
        request = self._measure.request
        is_new = self._chains.is_new(turns[0].get("session_id", ""), request.digest())
        return [record(turns[0], request, self._change, is_new)]


def _predecessor(requests: list[Request], request: Request) -> Request | None:
    """The request that has most in common with this one, and at least one message; of equals the latest."""
    messages = {part.digest for part in request.messages}
    digests = messages | {part.digest for part in (*request.tools, *request.system)}
    best, most = None, 0
    for other in requests:
        if any(part.digest in messages for part in other.messages):
            same = sum(part.size for part in (*other.tools, *other.system, *other.messages) if part.digest in digests)
            if same >= most:
                best, most = other, same
    return best


def difference(before: Request, after: Request) -> Change:
    """The first part of a request that differs from another one, in the order of a prompt."""
    prefix = 0
    for at, (old, new) in enumerate(_pairs(before.tools, after.tools)):
        if old is None or new is None or old.digest != new.digest:
            return Change(prefix, _tool_change(before, after, at))
        prefix += new.size
    for at, (old, new) in enumerate(_pairs(before.system, after.system), 1):
        if old is None or new is None or old.digest != new.digest:
            return Change(prefix, f"system {at}")
        prefix += new.size
    if before.settings.digest != after.settings.digest:
        return Change(prefix, "settings")
    prefix += after.settings.size
    for at, (old, new) in enumerate(zip(before.messages, after.messages, strict=False), after.first):
        if old.digest != new.digest:
            return Change(prefix, f"message {at}")
        prefix += new.size
    return Change(prefix, "")


def _pairs(before: list[Part], after: list[Part]) -> Iterator[tuple[Part | None, Part | None]]:
    for at in range(max(len(before), len(after))):
        yield before[at] if at < len(before) else None, after[at] if at < len(after) else None


def _tool_change(before: Request, after: Request, at: int) -> str:
    """What happened to the tools. A client sorts them anew when it adds one, so that others seem to have moved."""
    old, new = (parts[at].name if at < len(parts) else "" for parts in (before.tools, after.tools))
    if old == new:
        return f"tool {new}"
    names = [{part.name for part in parts} for parts in (before.tools, after.tools)]
    if added := next((part.name for part in after.tools[at:] if part.name not in names[0]), ""):
        return f"tool_added {added}"
    removed = next((part.name for part in before.tools[at:] if part.name not in names[1]), "")
    return f"tool_removed {removed}" if removed else f"tool_moved {new or old}"


def record(turn: Event, request: Request, change: Change | None, is_new: bool) -> Event:
    """The record of kind context that stands beside a turn. `is_new`: the sizes of the tools are in it."""
    event: Event = {name: turn[name] for name in ("v", "ts", *events.ATTRIBUTION) if name in turn}
    for name in ("agent_id", "workflow_id"):
        event.pop(name, None)
    event |= {"kind": "context", "id": f"context:{turn['id']}", "turn": turn["id"], "parts": dict(request.sizes)}
    if digest := request.digest():
        event["toolset"] = digest
        if is_new:
            event["tools"] = _sizes_of_tools(request.tools)
    if change is not None:
        event["prefix"] = change.prefix
        if change.part:
            event["changed"] = change.part
    return events.arrange(event)


def _sizes_of_tools(tools: list[Part]) -> dict[str, int]:
    """The size of each tool by name, as `tool NAME`; the smallest of many together as `tool other`."""
    sizes: dict[str, int] = {}
    left = _MOST_BYTES
    for part in sorted(tools, key=lambda part: (-part.size, part.name)):
        name = f"tool {part.name}"
        left -= 0 if name in sizes else len(name) + 12
        name = name if left > 0 else f"tool {OTHER}"
        sizes[name] = sizes.get(name, 0) + part.size
    return sizes
