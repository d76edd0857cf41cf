"""Changes settings of Claude Code that tok-coach setup names, through the journal of tok-init."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenops import setup_changes
from tokenops.coach_setup import Advice, Applied
from tokenops.setup_changes import Change

SUBJECT = "coach"


def changes(every: Iterable[Advice]) -> Iterator[Change]:
    """The changes that some advice names, each key once."""
    keys = set()
    for advice in every:
        if advice.key and (place := (advice.path, advice.key)) not in keys:
            keys.add(place)
            yield Change(SUBJECT, "claude-code", advice.remedy, advice.path, "json", advice.key, advice.value)


def applied(folder: str) -> list[Applied]:
    """The settings that were changed this way and stand. Raises Unchangeable."""
    entries = setup_changes.manifest(folder)
    return [
        Applied(".".join(map(str, entry["place"])), str(entry["set"]), entry["at"])
        for entry in entries
        if entry.get("subject") == SUBJECT and isinstance(entry.get("at"), str) and "set" in entry
    ]
