"""The vendors' readings in the log, found without reading the turns beside them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import orjson

from tokenops import events, store, when

_NEEDLE = b'"kind":"meter"'


def readings(folder: str, since: int, until: int) -> list[events.Event]:
    """Each meter reading of a span of milliseconds, once, in order of time. Raises OSError.

    A day of turns holds few readings: they are found by their name, and the lines between are never looked at.
    """
    first, last = when.stamp(since)[:10], when.stamp(until)[:10]
    known: dict[str, events.Event] = {}
    for day in store.days(folder, first, last):
        for path in day.paths:
            for line in _lines(path):
                try:
                    event = orjson.loads(line)
                except ValueError:
                    continue  # torn: tok-log verify says so
                seen = known.get(event["id"])
                known[event["id"]] = events.join(seen, event) if seen else event
    begin, end = when.stamp(since), when.stamp(until)
    return sorted((one for one in known.values() if begin <= one["ts"] <= end), key=lambda one: (one["ts"], one["id"]))


def _lines(path: str) -> Iterator[bytes]:
    """The lines of a day's file in which a reading stands."""
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        data = file.read()
    at = data.find(_NEEDLE)
    while at >= 0:
        start, stop = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
        if stop < 0:
            return  # still being written
        yield data[start:stop]
        at = data.find(_NEEDLE, stop)
