"""Reads GitHub Copilot CLI's database, telemetry and session events, and returns turns and totals.

The three overlap. `session-store.db` has a row per call since 1.0.69 (July 2026): turns. Exported telemetry has a span
per call: turns, if the database lacks the call. A session's `events.jsonl` has sums per model when the program ends:
aggregates, which count if a session has no turn.

Up to 1.0.68 the sums were of one process, so those of a resumed session add up; since then they continue. The answers
in between show which applies. (GitHub's SDK for the CLI, the CLI's public issues, and published logs, as of November
2026.)
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from tokenops import (
    events,
    read_copilot_context,
    read_copilot_otel,
    read_lines,
    read_records,
    read_sqlite,
    regular,
    untrusted,
    when,
)
from tokenops.read_contract import FileReader, Intake
from tokenops.read_copilot_otel import CLIENT, SOURCE, Elsewhere

if TYPE_CHECKING:
    import sqlite3

_STORE = "session-store.db"
_CALLS = "assistant_usage_events"
_NEEDED = {"session_id", "input_tokens", "output_tokens", "created_at"}
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_USED = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "reasoningTokens")
_EVENTS = (b"session.start", b"session.resume", b"session.shutdown", b"assistant.message")
_RELEVANT = read_lines.containing(read_copilot_otel.RELEVANT, *(b'"%s"' % name for name in _EVENTS))
_QUICK = 1 << 18
_DAY_MS = 86_400_000
_SIMPLE = re.compile(r"[\w-]{1,100}\Z")
_SHUTDOWNS = 50  # of which it is remembered that they were seen

# Model -> requests, the counts of _USED, billionths of AI units.
Sums = dict[str, list[int]]


def files(home: str) -> Iterator[str]:
    """The database, the sessions' events and the telemetry of a Copilot directory.

    Or of one that holds only sessions, or only telemetry.
    """
    store, state, otel = (os.path.join(home, name) for name in (_STORE, "session-state", "otel"))
    if os.path.isfile(store):
        yield store
    if os.path.basename(os.path.normpath(home)) == "session-state":
        yield from _sessions(home)
        return
    yield from _sessions(state)
    whole = os.path.isfile(store) or os.path.isdir(state) or os.path.isdir(otel)
    for path in read_lines.walk(otel if whole else home):
        if path.endswith(".jsonl"):
            yield path


def _sessions(state: str) -> Iterator[str]:
    """The sessions' events: a folder for each session, in 2025 a file."""
    try:
        names = sorted(os.listdir(state))
    except OSError:
        return
    for name in names:
        path = os.path.join(state, name)
        if not name.endswith(".jsonl"):
            path = os.path.join(path, "events.jsonl")
        if os.path.isfile(path):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is the database, a session's events or telemetry."""
    if read_sqlite.is_database(path):
        return os.path.basename(path) == _STORE or _CALLS.encode() in head
    if read_copilot_otel.RELEVANT in head:
        return b"copilot" in head  # others export such telemetry too
    return b'"session.start"' in head or b'"session.shutdown"' in head


def hints(home: str) -> Iterator[str]:
    """What the user should know of sessions that hold no counts."""
    state = os.path.join(home, "session-state")
    sessions = list(_sessions(state))
    if sessions and not any(path not in sessions for path in files(home)) and not any(map(_ends_with_counts, sessions)):
        yield (
            f"{state}: these sessions hold no token counts; end them with /exit, update Copilot CLI (it keeps the counts "
            "of each call since 1.0.69), or send its requests through tok-proxy"
        )


def _ends_with_counts(path: str) -> bool:
    """Whether a session's events end with counts, as far as its last bytes show."""
    try:
        with open(path, "rb", opener=regular.opener) as file:
            file.seek(max(0, os.path.getsize(path) - _QUICK))
            return b'"modelMetrics":{"' in file.read()
    except OSError:
        return False


def _relevant(state: Mapping[str, Any], intake: Intake) -> read_lines.Relevant:
    """Whether a line could matter: the type of an event, at the beginning of its line, decides at once.

    Looking for a word instead reads through what the tools gave, most of the file, once for each word.
    """
    kinds = (*_EVENTS, read_copilot_context.USAGE) if intake.options.work else _EVENTS

    def relevant(line: bytearray, at: int, stop: int) -> bool:
        if line.startswith(b'{"type":"', at):
            kind = bytes(line[at + 9 : line.find(b'"', at + 9, stop)])
            if b"." in kind:  # those of telemetry have none
                return kind in kinds or ("context" in state and kind in read_copilot_context.MESSAGES)
        return _RELEVANT(line, at, stop)

    return relevant


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns and sums of one file from the cursor on. Raises OSError, BadRecord."""
    if read_sqlite.is_database(path):
        yield from _rows(path, cursor, intake)
        return
    lookup = _lookup(_home_of(path))
    for location, line in read_lines.records(path, cursor, _relevant(cursor.state, intake), intake.on_bad_line):
        intake.location = location
        try:
            if "attributes" in line:
                yield from read_copilot_otel.turns(line, cursor, intake, lookup)
                continue
            if intake.options.work:
                yield from read_copilot_context.records(line, cursor.state, intake)
            yield from _sums(path, line, cursor.state, intake)
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")


def _rows(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The calls that a database holds from the watermark on."""
    with read_sqlite.open_database(path) as connection:
        there = read_sqlite.columns(connection, _CALLS)
        if not there and read_sqlite.columns(connection, "sessions"):
            return  # of a version that kept no counts here
        if not there >= _NEEDED:
            raise events.BadRecord(
                f"not a known database of Copilot CLI: no table {_CALLS} with the expected columns; skipped"
            )
        roots = _roots(connection)
        since = cursor.state.get("row", 0)
        newest = connection.execute(f'SELECT max(rowid) FROM "{_CALLS}"').fetchone()[0] or 0
        since = since if since <= newest else 0  # else this is another database
        # A call is numbered among its session's equal ones, so those before it are read again.
        changed = f'rowid >= ? OR session_id IN (SELECT session_id FROM "{_CALLS}" WHERE rowid >= ?)'
        rows = connection.execute(f'SELECT rowid AS "row", * FROM "{_CALLS}" WHERE {changed} ORDER BY rowid', (since, since))
        seen: dict[str, int] = {}
        for row in rows:
            intake.location = f"{path}:{_CALLS}[{row['row']}]"
            try:
                event = _call(dict(row), roots, seen, intake)
            except events.BadRecord as error:
                if row["row"] >= since:
                    intake.on_bad_line(intake.location, f"{error}; skipped")
                continue
            if event and row["row"] >= since:
                yield event
        cursor.state = {"row": newest}


def _call(row: untrusted.Raw, roots: Mapping[Any, str], seen: dict[str, int], intake: Intake) -> events.Event | None:
    """The turn of a row; None if it used nothing. Raises BadRecord."""
    sent, answered, read, written, reasoning = (untrusted.count(row, name) for name in _TOKENS)
    counts = read_copilot_otel.counts_of(sent, answered, read, written, reasoning)
    if not counts:
        return None
    session = untrusted.identity(row["session_id"])
    name = untrusted.occurrence_name(seen, read_copilot_otel.name_of(session, sent, answered))
    begun, took = when.moment(untrusted.moment(row["created_at"], "created_at")), row.get("duration_ms")
    if isinstance(took, (int, float)) and 0 <= took < _DAY_MS:  # it is created when the answer has ended
        begun -= int(took)
    attribution = intake.attribution(SOURCE, CLIENT, roots.get(row["session_id"], ""), "", session)
    if row.get("parent_tool_call_id") or row.get("initiator") == "sub-agent":
        attribution["sidechain"] = True
    cost = untrusted.usd(read_copilot_otel.dollars(row.get("total_nano_aiu")))
    return read_records.turn(
        when.stamp(begun),
        name,
        attribution,
        untrusted.text(row.get("model")) or untrusted.text(row.get("copilot_usage_model")),
        counts,
        cost and "github-copilot",  # without its own bill, it may be a key of the user's own for another vendor
        session,
        cost_usd=cost,
        cost_source=cost and "reported",
        effort=untrusted.tag(row.get("reasoning_effort")),
    )


def _sums(path: str, line: untrusted.Raw, state: dict[str, Any], intake: Intake) -> Iterator[events.Event]:
    """What a session has used so far, if a line reports it. `state` is the session's. Raises BadRecord."""
    data = untrusted.mapping(line.get("data"))
    match line.get("type"):
        case "session.start":
            state.setdefault("session", untrusted.identity(data.get("sessionId")))
            state.setdefault("root", untrusted.path(untrusted.mapping(data.get("context")).get("cwd")))
            state.setdefault("start", untrusted.moment(data.get("startTime") or line.get("timestamp"), "startTime"))
        case "session.resume":
            state["spoken"] = 0  # what a crash lost is in no later sum
        case "assistant.message":
            state["spoken"] = state.get("spoken", 0) + untrusted.count(data, "outputTokens")
        case "session.shutdown":
            if _is_repeated(state.setdefault("shutdowns", []), untrusted.identity(line.get("id"))):
                return
            state.setdefault(
                "start", untrusted.moment(data.get("sessionStartTime") or line.get("timestamp"), "sessionStartTime")
            )
            _add(state, _sums_in(data))
            yield from _aggregates(path, line, state, intake)
            if any(
                "usage" not in untrusted.mapping(metrics) for metrics in untrusted.mapping(data.get("modelMetrics")).values()
            ):
                raise events.BadRecord("modelMetrics without token counts")


def _is_repeated(seen: list[str], name: str) -> bool:
    """Whether a shutdown was seen before; remembers it."""
    if name in seen:
        return True
    if name:
        seen.append(name)
        del seen[:-_SHUTDOWNS]
    return False


def _sums_in(data: untrusted.Raw) -> Sums:
    """A shutdown's sums. Raises BadRecord."""
    sums = {}
    for model, value in untrusted.mapping(data.get("modelMetrics")).items():
        metrics = untrusted.mapping(value)
        usage = untrusted.mapping(metrics.get("usage"))
        requests, nano = untrusted.count(untrusted.mapping(metrics.get("requests")), "count"), metrics.get("totalNanoAiu")
        billed = int(nano) if isinstance(nano, (int, float)) and 0 < nano < 1 << 62 else 0
        sums[untrusted.text(model)] = [requests, *(untrusted.count(usage, name) for name in _USED), billed]
    return sums


def _add(state: dict[str, Any], new: Sums) -> None:
    """Take in a shutdown's sums: they go on where the last stood, or begin again."""
    last: Sums = state.get("last", {})
    base: Sums = state.setdefault("base", {})
    grown = all(
        all(ours <= theirs for ours, theirs in zip(sums, new.get(model, [0] * len(sums)), strict=True))
        for model, sums in last.items()
    )
    answered = sum(sums[2] for sums in new.values()) - sum(sums[2] for sums in last.values())
    if not grown or answered < state.pop("spoken", 0):
        for model, sums in last.items():
            base[model] = _plus(base.get(model), sums)
    state["spoken"] = 0
    state["last"] = new


def _plus(some: list[int] | None, more: list[int]) -> list[int]:
    return [a + b for a, b in zip(some or [0] * len(more), more, strict=True)]


def _aggregates(path: str, line: untrusted.Raw, state: dict[str, Any], intake: Intake) -> Iterator[events.Event]:
    """All that a session has used, per model. Raises BadRecord."""
    at = untrusted.moment(line.get("timestamp"))
    above, name = os.path.split(path)
    session = state.get("session") or (os.path.basename(above) if name == "events.jsonl" else name.removesuffix(".jsonl"))
    attribution = intake.attribution(SOURCE, CLIENT, state.get("root", ""), "", session)
    for model in {**state["base"], **state["last"]}:
        requests, *used, nano = _plus(state["base"].get(model), state["last"].get(model) or [0] * 7)
        counts = read_copilot_otel.counts_of(*used)
        if not counts:
            continue
        cost = untrusted.usd(read_copilot_otel.dollars(nano))
        yield read_records.aggregate(
            state["start"],
            f"usage:copilot-cli:{session}:{model}",
            attribution,
            model,
            {"turns": requests, **counts},
            cost and "github-copilot",
            cost_usd=cost,
            cost_source=cost and "reported",
            observed_at=at,
        )


def _home_of(path: str) -> str:
    """The Copilot directory that a file of telemetry belongs to: the one around it, else the usual one."""
    above, inner, _ = path.rpartition("/otel/")
    return above if inner else os.environ.get("COPILOT_HOME") or os.path.expanduser("~/.copilot")


def _lookup(home: str) -> Callable[[str], Elsewhere]:
    """A function that looks a session up in the database and its events. The database is opened at the first call."""

    @functools.cache
    def sessions() -> dict[str, Elsewhere]:
        path = os.path.join(home, _STORE)
        try:
            return _sessions_in(path, read_sqlite.stamp(path))
        except (OSError, events.BadRecord):
            return {}

    @functools.cache
    def lookup(session: str) -> Elsewhere:
        entry = sessions().get(session, Elsewhere())
        return entry if entry.root else entry._replace(root=_first_directory(home, session))

    return lookup


@functools.lru_cache(4)
def _sessions_in(path: str, stamp: read_sqlite.Stamp) -> dict[str, Elsewhere]:
    """The sessions of a database, asked once for all files of telemetry. Raises OSError, BadRecord."""
    with read_sqlite.open_database(path) as connection:
        sessions = {session: Elsewhere(None, root) for session, root in _roots(connection).items()}
        first = f'rowid IN (SELECT min(rowid) FROM "{_CALLS}" GROUP BY session_id)'
        for row in read_sqlite.select(connection, _CALLS, "session_id", "created_at", where=first):
            since = when.moment(untrusted.moment(row["created_at"], "created_at"))
            sessions[row["session_id"]] = sessions.get(row["session_id"], Elsewhere())._replace(since=since)
        return sessions


def _roots(connection: sqlite3.Connection) -> dict[Any, str]:
    """The directory that each session works in."""
    if not read_sqlite.columns(connection, "sessions"):
        return {}
    return {row["id"]: untrusted.path(row["cwd"]) for row in read_sqlite.select(connection, "sessions", "id", "cwd")}


def _first_directory(home: str, session: str) -> str:
    """The directory that a session's events say it began in."""
    if not _SIMPLE.match(session):
        return ""
    try:
        with open(os.path.join(home, "session-state", session, "events.jsonl"), "rb", opener=regular.opener) as file:
            line = orjson.loads(file.readline(_QUICK))
    except (OSError, ValueError):
        return ""
    return untrusted.path(
        untrusted.mapping(untrusted.mapping(untrusted.mapping(line).get("data")).get("context")).get("cwd")
    )


READER = FileReader(SOURCE, CLIENT, files, claims, read, hints)
