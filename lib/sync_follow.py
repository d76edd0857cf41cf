"""Turns as they happen: each once, when its client has finished writing it.

Claude Code writes a line per content block, with the output counted so far; a turn is given out when its session has
gone on to another, or has been quiet for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenops import events, read_clients, store_cursors, sync, sync_gather
from tokenops.events import Event

QUIET_MS = 10_000

Found = Callable[[], Iterable[tuple[read_clients.Client, list[str]]]]


class Follower:
    """What was read so far, and the turns that may still grow."""

    def __init__(self, found: Found, salt: bytes) -> None:
        self.found, self.salt = found, salt
        self.cursors: dict[str, dict[str, store_cursors.Held]] = {}
        self.paths: dict[str, str] = {}
        self.waiting: dict[str, tuple[Event, int]] = {}  # id -> turn, and when it last grew
        self.given: set[int] = set()
        self.rejected: list[tuple[str, str]] = []
        self.told: set[tuple[str, str]] = set()

    def poll(self, now: int) -> list[Event]:
        """The events that are finished by now, in order of time. Raises OSError, readers.NotFound, workers.Died."""
        newest: dict[str, str] = {}
        for client, paths in self.found():
            new = sync.source(client, paths, self.cursors.get(client.source, {}), self.salt, None, lambda size: None)
            self.cursors[client.source] = new.after
            self.paths |= new.batch.paths
            self.rejected += [one for one in new.batch.rejected if one not in self.told]
            self.told.update(new.batch.rejected)
            for event in map(sync_gather.record, new.batch.entries):
                self._take(event, now)
        for event, _ in self.waiting.values():
            session = event.get("session_id", "")
            newest[session] = max(newest.get(session, ""), event["ts"])
        done = [
            event
            for event, grown in self.waiting.values()
            if event["kind"] != "turn" or event["ts"] < newest[event.get("session_id", "")] or now - grown >= QUIET_MS
        ]
        for event in done:
            del self.waiting[event["id"]]
            self.given.add(hash(event["id"]))
        return sorted(done, key=lambda event: (event["ts"], event["id"]))

    def _take(self, event: Event, now: int) -> None:
        if hash(event["id"]) in self.given:
            return
        known = self.waiting.get(event["id"])
        joined = events.join(known[0], event) if known else event
        if known is None or joined != known[0]:
            self.waiting[event["id"]] = (joined, now)
