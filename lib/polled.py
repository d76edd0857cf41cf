"""What is set, found and remembered of the sources that tok-poll asks, and what came of a run: for programs and people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import orjson

from tokenops import config, credentials, datadir, etiquette, events, poll_sources, readers, show, store, when
from tokenops.etiquette import State
from tokenops.poll_sources import Edge, Settings


def statuses(folder: str, given: config.Config, names: Iterable[str], edge: Edge) -> Iterator[events.Event]:
    """What is set, found and remembered of sources. Raises Wrong.

    Files that hold credentials are opened only where a source is enabled.
    """
    remembered, table = poll_sources.states(folder), poll_sources.known()
    count = _readings(folder, edge.clock())
    for name in names:
        if name in readers.SECTIONS:
            switched = readers.enabled(name, given.get("vendor_usage"))
            yield {"v": 1, "kind": "poller", "source": name, "enabled": switched, "read_by": "tok-sync"}
            continue
        set_, state = (
            poll_sources.settings(given, table.get(name) or poll_sources.named(name)),
            remembered.get(name, State()),
        )
        made: events.Event = {"v": 1, "kind": "poller", "source": name, "enabled": set_.enabled}
        made |= {"interval_s": set_.interval_ms // 1000, "gives": set_.poller.gives}
        if set_.enabled:
            made |= _enabled(folder, set_, state, edge)
        made |= {key: when.stamp(at) for key, at in (("last_success", state.ok_at), ("last_error_at", state.why_at)) if at}
        if state.why:
            made["last_error"] = state.why
        yield made | {"readings_24h": count.get(set_.poller.source, 0), "caveat": set_.poller.caveat}


def _enabled(folder: str, set_: Settings, state: State, edge: Edge) -> events.Event:
    """How an enabled source stands."""
    now, made = edge.clock(), events.Event()
    if set_.warnings:
        made["warnings"] = list(set_.warnings)
    if set_.poller.consent and not set_.consented:
        return made | {"status": poll_sources.UNCONSENTED}
    try:
        key = poll_sources.credential(set_, edge, datadir.salt(folder), now)
    except credentials.Missing as error:
        return made | {"status": error.status, "why": str(error)}
    made["credential"] = key.where
    if state.stopped and state.stopped == key.fingerprint:
        return made | {"status": etiquette.STOPPED}
    made["status"] = state.status or "never_asked"
    return made | {"next_due": when.stamp(max(etiquette.due_at(state, set_.interval_ms), now))}


def _readings(folder: str, now: int) -> dict[str, int]:
    """How many readings of each polled source the log holds that were taken in the last 24 hours."""
    since, found = when.stamp(now - when.DAY), dict[str, int]()
    for line in store.scan(folder, when.stamp(now - 3 * when.DAY), when.stamp(now + when.DAY)):
        if b'"source":"vendor-' in line[:400]:
            event = orjson.loads(line)
            if str(event.get("observed_at", event["ts"])) >= since:
                found[event["source"]] = found.get(event["source"], 0) + 1
    return found


def table(rows: list[events.Event], shape: str, color: bool) -> str:
    """Rows of `status` for people."""
    told = {"never_asked": "never asked", poll_sources.UNCONSENTED: "nobody agreed"}
    columns = [
        show.Column("source", [row["source"] for row in rows], number=False),
        show.Column("enabled", ["yes" if row["enabled"] else "no" for row in rows], number=False),
        show.Column("credential", [row.get("credential", "") for row in rows], number=False),
        show.Column("status", [_status(row, told) for row in rows], number=False),
        show.Column("last success", [_minute(row.get("last_success", "")) for row in rows], number=False),
        show.Column("next due", [_minute(row.get("next_due", "")) for row in rows], number=False),
        show.Column("readings, 24 h", [show.count(row.get("readings_24h", 0)) for row in rows]),
    ]
    said = [f"{row['source']}: {text}\n" for row in rows for text in (*row.get("warnings", ()), *_why(row))]
    if len(rows) == 1 and "caveat" in rows[0]:
        said.append(f"{rows[0]['caveat']}\n")
    return show.table(columns, shape, color=color) + ("" if shape == "csv" else "".join(said))


def _status(row: events.Event, told: Mapping[str, str]) -> str:
    if "read_by" in row:
        return f"read by {row['read_by']}"
    return told.get(row.get("status", ""), row.get("status", "").replace("_", " "))


def _why(row: events.Event) -> Iterator[str]:
    if "why" in row:
        yield row["why"]
    elif row["enabled"] and row.get("last_error"):
        yield f"{row['last_error']} ({_minute(row['last_error_at'])})"


def _minute(stamp: str) -> str:
    return f"{stamp[:16]}Z" if stamp else ""


def answers(rows: list[events.Event], shape: str, color: bool) -> str:
    """Rows of a run for people."""
    columns = [
        show.Column("source", [row["source"] for row in rows], number=False),
        show.Column("status", [row["status"].replace("_", " ") for row in rows], number=False),
        show.Column("asked", [show.count(row.get("asked", 0)) for row in rows]),
        show.Column("readings", [show.count(row.get("readings", 0)) for row in rows]),
        show.Column("new", [show.count(row.get("new", 0)) for row in rows]),
        show.Column("next due", [_minute(row.get("next_due", "")) for row in rows], number=False),
    ]
    said = [f"{row['source']}: {text}\n" for row in rows for text in _told(row)]
    return show.table(columns, shape, color=color) + ("" if shape == "csv" else "".join(said))


def _told(row: events.Event) -> Iterator[str]:
    if "why" in row:
        yield row["why"]
    if "todo" in row:
        yield row["todo"]
    yield from row.get("notices", ())
