"""Subtracts the turns that the log has from what clients' own sums hold beyond the turns that a run read.

A request may have passed tok-proxy without a line in a transcript, or its client has removed the line since it was read.
Both are turns of the log, so the rest of the session's sums is smaller by them. Reads the log; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from tokenops import events, jsonl, read_records, store, when
from tokenops.events import Event

_REMAINDER = f'"covers":"{events.REMAINDER}"'.encode()
_COUNTS = frozenset(events.SUMS)
_SESSION_MS = 30 * when.DAY  # clients keep a session's log for so long, unless they are told otherwise
_BILLING = ("model", "provider", "provider_inferred")


def without_wire(folder: str, lines: list[bytes]) -> list[bytes]:
    """Lines to store; what is beyond a session's turns without the requests that the proxy saw, which are turns of the log.

    A request that leaves no line in a transcript passes the proxy as any other does.
    """
    for at, line in enumerate(lines):
        if _REMAINDER in line:
            rest = orjson.loads(line)
            identities = {orjson.loads(other)["id"] for other in lines if rest["session_id"].encode() in other}
            since = when.stamp(when.moment(rest["ts"]) - _SESSION_MS)
            for turn in store.with_value(folder, "session_id", rest["session_id"], since):
                is_wire_only = turn["kind"] == "turn" and turn.get("source") == "proxy" and turn["id"] not in identities
                if (
                    is_wire_only
                    and turn["ts"] <= rest["ts"]
                    and rest["model"] in (turn.get("model"), turn.get("request_model"))
                ):
                    for name in _COUNTS & turn.keys() & rest.keys():
                        rest[name] = max(0, rest[name] - turn[name])
            lines[at] = jsonl.line_of({name: value for name, value in rest.items() if value or name not in _COUNTS})
    return lines


def beyond_turns(folder: str, lines: list[bytes]) -> list[bytes]:
    """Lines to store of a reader with `whole_sums`: of each session its total if it has no turn, else what is beyond them.

    The turns are those of the lines and of the log, whether or not their client still has them.
    """
    records = [orjson.loads(line) for line in lines]
    sums: dict[str, list[Event]] = {}
    turns: dict[str, dict[str, Event]] = {}
    for record in records:
        if record.get("covers") in (events.SESSION, events.REMAINDER):
            sums.setdefault(record["session_id"], []).append(record)
        elif record["kind"] == "turn" and "session_id" in record:
            turns.setdefault(record["session_id"], {})[record["id"]] = record
    changed = {
        id(record): replacement
        for session, of_session in sums.items()
        for record, replacement in _records_to_store(folder, session, of_session, turns.get(session, {}))
    }
    result = []
    for line, record in zip(lines, records, strict=True):
        replacement = changed.get(id(record), record)
        if replacement:
            result.append(line if replacement is record else jsonl.line_of(replacement))
    return result


def _records_to_store(
    folder: str, session: str, sums: list[Event], turns: dict[str, Event]
) -> Iterator[tuple[Event, Event | None]]:
    """For each record about a whole session the one to store, if it is one."""
    since = when.stamp(when.moment(min(record["ts"] for record in sums)) - when.DAY)
    logged = [record for record in store.with_value(folder, "session_id", session, since) if _is_of(record, sums[0])]
    turns = {record["id"]: record for record in logged if record["kind"] == "turn"} | turns
    earlier = [record for record in logged if record.get("covers") == events.REMAINDER]
    own = {turn.get("alias") for turn in turns.values() if turn.get("source") != "proxy"} - {None}
    counted = [turn for turn in turns.values() if turn.get("source") != "proxy" or turn.get("alias") not in own]
    for record in sums:
        if record["covers"] == events.SESSION:
            yield record, None if turns else record
            continue
        fields = {name: value for name, value in record.items() if name not in _COUNTS}
        counts = {name: value for name, value in record.items() if name in _COUNTS}
        rest = fields | read_records.counts_beyond(counts, (turn for turn in counted if turn["ts"] <= record["ts"]))
        if earlier:  # of one model all the time, because only the latest of a session and model counts
            rest = {name: value for name, value in rest.items() if name not in _BILLING}
            rest |= {name: earlier[0][name] for name in _BILLING if name in earlier[0]}
        is_news = events.token_sum(rest) if turns else False
        yield record, events.arrange(rest) if is_news or any(map(events.token_sum, earlier)) else None


def _is_of(record: Event, other: Event) -> bool:
    """Whether a record is of the session that another is of, and not of another client's session of that name."""
    return all(record.get(name) == other[name] for name in ("session_id", "client"))
