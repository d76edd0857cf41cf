"""Joins the sightings of one day's records: of a client's log, of the wire, and of what others shared of the same turns."""

from __future__ import annotations

import orjson

from tokenops import events, joins, jsonl, store_files
from tokenops.events import Event


class DayRecords:
    """The records of one day, sightings joined as they come."""

    def __init__(self) -> None:
        self.lines: dict[str, bytes] = {}
        self.same: dict[str, str] = {}  # identity -> that of the record that it is another sighting of
        self.older: set[str] = set()  # identities that older revisions of a reader gave
        self.planes: dict[str, str] = {}  # identity -> how it was seen, of those that have an alias
        self.pairs = events.Pairs()
        # Public ids of the records that the log has itself; None until somebody's public record comes.
        self.own: set[str] | None = None

    def add(self, identity: str, line: bytes) -> None:
        """Add a sighting."""
        if identity.startswith(events.PUBLIC):
            self._add_public(identity, line)
            return
        if self.own is not None:
            self._hide_public(identity, line)
        name = self.name_of(identity)
        other = self.lines.get(name)
        if other == line:
            return
        if store_files.has_alias(line):
            event = orjson.loads(line)
            is_older_here = events.names_older(event) and event["alias"] in self
            if other is None and not is_older_here:
                name = self._pair(identity, event)
            if events.names_older(event):
                name = self._rename(event, name)
            other = self.lines.get(name)
        self.lines[name] = line if other is None else _line_of_both(name, other, line)

    def _add_public(self, identity: str, line: bytes) -> None:
        """Add what somebody shared, if the log has not the record itself."""
        event = orjson.loads(line) if store_files.has_alias(line) else {}
        if not self.own_ids().isdisjoint((identity, event.get("alias", ""))):
            return
        name = self._rename(event, self.name_of(identity)) if event else self.name_of(identity)
        other = self.lines.get(name)
        self.lines[name] = line if other is None or other == line else _line_of_both(name, other, line)

    def _hide_public(self, identity: str, line: bytes) -> None:
        """Take out the public record of a record that the log has itself."""
        names = _public_ids(identity, line)
        self.own_ids().update(names)
        for name in names:
            self.lines.pop(self.name_of(name), None)

    def own_ids(self) -> set[str]:
        """The public ids of the records here that are the log's own."""
        if self.own is None:
            self.own = {events.public_id(name) for name in self.same if not name.startswith(events.PUBLIC)}
            for identity, line in self.lines.items():
                if not identity.startswith(events.PUBLIC):
                    self.own.update(_public_ids(identity, line))
        return self.own

    def name_of(self, identity: str) -> str:
        """The identity under which a record stands here."""
        while (other := self.same.get(identity)) is not None:
            identity = other
        return identity

    def _rename(self, event: Event, name: str) -> str:
        """Let the record of a turn stand under a sighting's own identity, which replaces its alias; that identity."""
        own: str = event["id"]
        for older in {name, self.name_of(event["alias"])} - {own}:
            if own in self.same and self.name_of(own) == older:
                del self.same[own]
            self.same[older] = own
            self.older.add(older)
            if (line := self.lines.pop(older, None)) is not None:
                other = self.lines.get(own)
                self.lines[own] = line if other is None else _line_of_both(own, other, line)
        return own

    def add_line(self, line: bytes) -> None:
        """Add a sighting, if the line is a record."""
        if (pair := store_files.identify(line)) is not None:
            self.add(*pair)

    def awaits(self, line: bytes) -> bool:
        """Whether a sighting of another plane waits here to be paired with this one."""
        return bool(self.pairs.waiting) and store_files.has_alias(line) and self.pairs.awaits(orjson.loads(line))

    def items_from(self, begin: str) -> list[tuple[str, bytes]]:
        """Identity and line of each record that began at a time or later."""
        first = begin.encode()
        return [item for item in self.lines.items() if item[1][store_files.TS] >= first]

    def _pair(self, identity: str, event: Event) -> str:
        """The identity of the log's record if this is the wire's of the same turn, or the other way round.

        Log and wire share no id for some clients; an alias of session and counts pairs one sighting of each plane.
        """
        self.planes[identity] = events.plane_of(event)
        first = self.name_of(self.pairs.first(event))
        if first != identity:
            self.same[identity] = first
        return first

    def __contains__(self, identity: str) -> bool:
        if identity in self.lines or identity in self.same:
            return True
        if identity.startswith(events.PUBLIC):
            return identity in self.own_ids()
        return self.own is not None and self.name_of(events.public_id(identity)) in self.lines


def _line_of_both(name: str, line: bytes, other: bytes) -> bytes:
    """The record of two sightings, as a line."""
    return jsonl.line_of(joins.join(orjson.loads(line), orjson.loads(other)) | {"id": name})


def _public_ids(identity: str, line: bytes) -> list[str]:
    """The ids that public records of a record may have: of its identity, and of an older one."""
    names = [events.public_id(identity)]
    if store_files.has_alias(line) and events.names_older(event := orjson.loads(line)):
        names.append(events.public_id(event["alias"]))
    return names
