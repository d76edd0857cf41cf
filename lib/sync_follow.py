"""Yields turns as they happen, each once, when its client has finished writing it.

Claude Code writes a line per content block, with the output counted so far; a turn is yielded when its session begins
another, or is quiet for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenops import joins, read_records, store_cursors, sync
from tokenops.events import Event
from tokenops.read_clients import Client
from tokenops.read_contract import Options

QUIET_MS = 10_000

Sources = Callable[[], Iterable[tuple[Client, list[str]]]]


class Follower:
    """What was read so far, and the turns that may still grow."""

    def __init__(self, sources: Sources, salt: bytes) -> None:
        self.sources, self.salt = sources, salt
        self.cursors: dict[str, dict[str, store_cursors.FileState]] = {}
        self.paths: dict[str, str] = {}
        self.waiting: dict[str, tuple[Event, int]] = {}  # id -> turn, and when it last grew
        self.printed: set[int] = set()  # hashes of ids
        self.rejected: list[tuple[str, str]] = []  # since somebody looked
        self.reported: set[tuple[str, str]] = set()

    def poll(self, now: int) -> list[Event]:
        """The events that are finished by now, in order of time. Raises OSError, readers.NotFound, workers.WorkerDied."""
        newest: dict[str, str] = {}
        for client, paths in self.sources():
            new = sync.news(client, paths, self.cursors.get(client.source, {}), Options(self.salt))
            self.cursors[client.source] = new.after
            self.paths |= new.batch.paths
            self.rejected += [reason for reason in new.batch.rejected if reason not in self.reported]
            self.reported.update(new.batch.rejected)
            for event in map(read_records.record, new.batch.entries):
                self._take(event, now)
        for event, _ in self.waiting.values():
            session = event.get("session_id", "")
            newest[session] = max(newest.get(session, ""), event["ts"])
        finished = [
            event
            for event, grown in self.waiting.values()
            if event["kind"] != "turn" or event["ts"] < newest[event.get("session_id", "")] or now - grown >= QUIET_MS
        ]
        for event in finished:
            del self.waiting[event["id"]]
            self.printed.add(hash(event["id"]))
        return sorted(finished, key=lambda event: (event["ts"], event["id"]))

    def _take(self, event: Event, now: int) -> None:
        if hash(event["id"]) in self.printed:
            return
        before = self.waiting.get(event["id"])
        joined = joins.join(before[0], event) if before else event
        if before is None or joined != before[0]:
            self.waiting[event["id"]] = (joined, now)
