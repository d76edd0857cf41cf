"""Copilot CLI: the database, the sums of sessions, the telemetry, and what they say of the same call."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, lines, objects, put
from tokenops import events, read_copilot_otel

S1, S2, S3, S4 = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")
SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, cwd TEXT, repository TEXT, created_at TEXT);
CREATE TABLE IF NOT EXISTS assistant_usage_events (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,
 turn_index INTEGER, agent_id TEXT, parent_tool_call_id TEXT, model TEXT NOT NULL, copilot_usage_model TEXT,
 input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, cache_write_tokens INTEGER,
 reasoning_tokens INTEGER, total_nano_aiu INTEGER, request_multiplier REAL, duration_ms INTEGER, initiator TEXT,
 reasoning_effort TEXT, created_at TEXT);
"""


def row(session: str = S1, ts: str = "2026-07-20T09:00:10.000Z", **given: Any) -> Json:
    usual = {
        "session_id": session,
        "model": "claude-sonnet-4.6",
        "input_tokens": 22799,
        "output_tokens": 419,
        "cache_read_tokens": 13013,
        "cache_write_tokens": 9776,
        "reasoning_tokens": 100,
        "total_nano_aiu": 5_123_456_789,
        "duration_ms": 4000,
        "created_at": ts,
    }
    return usual | given


def keep(home: pathlib.Path, *rows: Json, cwd: str = "/home/ada/orchard") -> pathlib.Path:
    """Add rows to the database, and their sessions."""
    path = home / ".copilot/session-store.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
        for one in rows:
            connection.execute("INSERT OR IGNORE INTO sessions (id, cwd) VALUES (?, ?)", (one["session_id"], cwd))
            names = ", ".join(one)
            marks = ", ".join("?" * len(one))
            connection.execute(f"INSERT INTO assistant_usage_events ({names}) VALUES ({marks})", tuple(one.values()))
        connection.commit()
    return path


def span(trace: str = "t1", name: str = "s1", session: str = S4, ts: int = 1784538000, **given: Any) -> Json:
    """A chat span. Keys of its attributes are given with _ for their dots."""
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "claude-sonnet-4.6",
        "gen_ai.response.model": "claude-sonnet-4.6",
        "gen_ai.conversation.id": session,
        "gen_ai.response.id": f"r-{trace}-{name}",
        "gen_ai.usage.input_tokens": 22799,
        "gen_ai.usage.output_tokens": 419,
        "gen_ai.usage.cache_read.input_tokens": 13013,
        "gen_ai.usage.cache_creation.input_tokens": 9776,
        "gen_ai.usage.reasoning.output_tokens": 100,
        "github.copilot.nano_aiu": 5123456789.0,
    }
    said |= {key.replace("__", "."): value for key, value in given.items()}
    return {
        "type": "span",
        "traceId": trace,
        "spanId": name,
        "name": f"{said['gen_ai.operation.name']} claude-sonnet-4.6",
        "startTime": [ts, 5_000_000],
        "endTime": [ts + 4, 0],
        "attributes": {key: value for key, value in said.items() if value is not None},
    }


def log(event: str, trace: str = "t1", name: str = "s1", **given: Any) -> Json:
    made = span(trace, name, **given)
    made["attributes"] |= {"event.name": event}
    return {"hrTime": made["endTime"], "traceId": trace, "spanId": name, "attributes": made["attributes"], "_body": "x"}


def begun(session: str = S2, cwd: str = "/home/ada/orchard") -> Json:
    data = {"sessionId": session, "startTime": "2026-05-17T11:00:00.000Z", "context": {"cwd": cwd}}
    return {"type": "session.start", "id": "e1", "timestamp": "2026-05-17T11:00:01.000Z", "data": data}


def spoken(output: int, ts: str = "2026-05-17T11:01:00.000Z") -> Json:
    return {"type": "assistant.message", "id": "m", "timestamp": ts, "data": {"content": "x", "outputTokens": output}}


def ended(name: str, ts: str, *, model: str = "gpt-5.4-mini", requests: int = 1, nano: int = 0, **usage: int) -> Json:
    said: Json = {"requests": {"count": requests, "cost": 1}, "usage": usage}
    if nano:
        said["totalNanoAiu"] = nano
    data = {"shutdownType": "routine", "sessionStartTime": 1779015600000, "modelMetrics": {model: said}}
    return {"type": "session.shutdown", "id": name, "timestamp": ts, "data": data}


RESUMED = {"type": "session.resume", "id": "r", "timestamp": "2026-05-18T08:00:00.000Z", "data": {"context": {"cwd": "/x"}}}
FIRST = ended("d1", "2026-05-17T11:09:00.000Z", inputTokens=1000, outputTokens=50, cacheReadTokens=800, reasoningTokens=20)


def state(home: pathlib.Path, session: str = S2) -> pathlib.Path:
    return home / ".copilot/session-state" / session / "events.jsonl"


def steps(home: pathlib.Path) -> Iterator[None]:
    """A database that grows, a session that is resumed, one of the database, telemetry of old and new sessions."""
    keep(home, row(), row(ts="2026-07-20T09:01:00.000Z", input_tokens=23300, output_tokens=7))
    put(state(home), begun(), spoken(50), FIRST)
    yield
    twice = row(S3, "2026-07-21 10:00:00", parent_tool_call_id="call_1", cache_write_tokens=0)
    keep(home, twice, row(), twice, cwd="/home/ada/lighthouse")
    put(state(home, S1), begun(S1), ended("d1", "2026-07-20T09:05:00.000Z", inputTokens=46000, outputTokens=500))
    yield
    with state(home).open("ab") as file:
        file.write(lines([RESUMED, spoken(10), spoken(15)]))
        file.flush()
        yield
        file.write(lines([ended("d2", "2026-05-18T08:10:00.000Z", inputTokens=1200, outputTokens=60, requests=2)]))
    path = home / ".copilot/otel/2026/export.jsonl"
    put(path, span(), span("t2", "s2", session=S1))
    yield
    with path.open("ab") as file:
        inference = log("gen_ai.client.inference.operation.details", "t1", "s1")
        file.write(lines([inference, span("t1", "s9", gen_ai__operation__name="invoke_agent"), span("t1", "s3")]))
    yield


COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


def counted(event: Json) -> tuple[int, ...]:
    return tuple(event.get(name, 0) for name in COUNTS)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        # A span of a real export: input 22799, of which 13013 came from the cache and 9776 were written to it.
        ((22799, 419, 13013, 9776, 100), (10, 13013, 9776, 419, 100)),
        # A total that is the sum of all parts: they stand side by side.
        ((10, 419, 13013, 9776, 100, 23218), (10, 13013, 9776, 419, 100)),
        ((22799, 419, 13013, 9776, 0, 23218), (10, 13013, 9776, 419, 0)),
        # More cached than sent, more reasoning than output: beside.
        ((10, 5, 20, 0, 7), (10, 20, 0, 12, 7)),
        ((100, 0, 0, 0, 0), (100, 0, 0, 0, 0)),
        ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
    ],
)
def test_counts(given: tuple[int, ...], counts: tuple[int, ...]) -> None:
    assert counted(read_copilot_otel.counts_of(*given)) == counts


def test_a_total_alone_is_no_count() -> None:
    with pytest.raises(events.BadRecord):
        read_copilot_otel.counts_of(0, 0, 0, 0, 0, 900)


def test_a_row_is_a_turn_that_the_vendor_billed(run: Run, environment: dict[str, str]) -> None:
    keep(pathlib.Path(environment["HOME"]), row(), row(S2, "2026-07-20 09:00:10", total_nano_aiu=0, initiator="sub-agent"))
    one, two = sorted(objects(run("tok-read copilot").stdout), key=lambda event: event["session_id"])
    assert one["ts"] == two["ts"] == "2026-07-20T09:00:06.000Z"
    assert counted(one) == (10, 13013, 9776, 419, 100)
    assert (one["cost_usd"], one["cost_source"]) == ("0.05123456789", "reported")
    assert (one["project"], one["session_id"], one["provider"]) == ("orchard", S1, "github")
    assert "cost_usd" not in two and two["sidechain"] is True and two["provider"] == "anthropic"


def test_the_effort_of_a_call(run: Run, environment: dict[str, str]) -> None:
    keep(
        pathlib.Path(environment["HOME"]), row(reasoning_effort="high"), row(ts="2026-07-20T09:00:20.000Z", output_tokens=9)
    )
    assert [turn.get("effort") for turn in objects(run("tok-read copilot").stdout)] == ["high", None]


def test_equal_rows_are_turns_of_their_own(run: Run, environment: dict[str, str]) -> None:
    keep(pathlib.Path(environment["HOME"]), row(), row(), row(S2))
    assert len({event["id"] for event in objects(run("tok-read copilot").stdout)}) == 3


def test_a_bad_row_is_told_and_the_others_count(run: Run, environment: dict[str, str]) -> None:
    keep(pathlib.Path(environment["HOME"]), row(input_tokens=-1), row())
    done = run("tok-read copilot", status=1)
    assert len(objects(done.stdout)) == 1
    assert "assistant_usage_events[1]: input_tokens is a negative number; expected a count; skipped" in done.stderr.decode()


def test_a_database_of_an_older_version_is_silent_and_of_another_program_is_not(run: Run, tmp_path: pathlib.Path) -> None:
    path = keep(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE assistant_usage_events")
        assert not run(f"tok-read copilot --root {path}").stderr
        connection.execute("DROP TABLE sessions")
        connection.execute("CREATE TABLE notes (text TEXT)")
    assert b"not a known database of Copilot CLI" in run(f"tok-read copilot --root {path}", status=1).stderr


def test_a_database_that_was_replaced_is_read_again(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    keep(home, row(), row(S2))
    run("tok-sync")
    path = keep(home)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM assistant_usage_events")
        connection.execute("DELETE FROM sqlite_sequence")
        connection.commit()
    keep(home, row(S3))
    run("tok-sync")
    assert {event["session_id"] for event in objects(run("tok-cat").stdout)} == {S1, S2, S3}


# Sums of a session whose process ended, was resumed, and ended again.
USED = {"inputTokens": 1000, "outputTokens": 50, "cacheReadTokens": 800, "reasoningTokens": 20}
MORE = {"inputTokens": 1500, "outputTokens": 75, "cacheReadTokens": 800, "reasoningTokens": 20}


@pytest.mark.parametrize(
    ("between", "second", "counts"),
    [
        # Since 1.0.69 the sums go on: 25 tokens were answered between.
        ([RESUMED, spoken(25)], MORE, (700, 800, 0, 75, 20)),
        ([RESUMED], USED, (200, 800, 0, 50, 20)),
        # Before, they began again: 75 tokens were answered between.
        ([RESUMED, spoken(75)], MORE, (900, 1600, 0, 125, 40)),
        # Any count below what it was says so too.
        ([RESUMED], {**MORE, "cacheReadTokens": 700}, (1000, 1500, 0, 125, 40)),
        # Nobody says what was answered: what only grew goes on.
        ([], MORE, (700, 800, 0, 75, 20)),
        # What a crash lost is in no sum.
        ([RESUMED, spoken(900), RESUMED, spoken(25)], MORE, (700, 800, 0, 75, 20)),
    ],
)
def test_a_resumed_session(
    between: list[Json], second: Json, counts: tuple[int, ...], run: Run, tmp_path: pathlib.Path
) -> None:
    first = ended("d1", "2026-05-17T11:09:00.000Z", requests=2, **USED)
    put(state(tmp_path), begun(), spoken(50), first, *between, ended("d2", "2026-05-18T09:00:00.000Z", requests=3, **second))
    [event] = objects(run(f"tok-read copilot --root {tmp_path} | tok-rollup --by session").stdout)
    assert counted(event) == counts
    [event] = objects(run(f"tok-read copilot --root {tmp_path}").stdout)
    assert (event["kind"], event["ts"]) == ("usage", "2026-05-17T11:00:00.000Z")


def test_a_session_of_several_models_is_resumed_with_another(run: Run, tmp_path: pathlib.Path) -> None:
    """Up to 1.0.68: a model that the second process did not ask keeps its sums."""
    one = ended("d1", "2026-05-17T11:09:00.000Z", requests=2, nano=3_000_000_000, **USED)
    two = ended("d2", "2026-05-18T09:00:00.000Z", model="gpt-5.5", requests=3, inputTokens=10, outputTokens=4)
    put(state(tmp_path), begun(), spoken(50), one, RESUMED, spoken(4), two)
    found = {event["model"]: event for event in objects(run(f"tok-read copilot --root {tmp_path}").stdout)}
    assert {model: (event["turns"], event["output_tokens"]) for model, event in found.items()} == {
        "gpt-5.4-mini": (2, 50),
        "gpt-5.5": (3, 4),
    }
    assert found["gpt-5.4-mini"]["cost_usd"] == "0.03"


def test_a_shutdown_that_was_written_twice_counts_once(run: Run, tmp_path: pathlib.Path) -> None:
    put(state(tmp_path), begun(), spoken(50), FIRST, RESUMED, spoken(50), FIRST)
    [event] = objects(run(f"tok-read copilot --root {tmp_path}").stdout)
    assert event["output_tokens"] == 50


def test_sums_count_only_where_a_session_has_no_turn(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(state(home, S1), begun(S1), FIRST)
    put(state(home, S2), begun(S2), FIRST)
    keep(home, row(S1))
    rows = objects(run("tok-read copilot | tok-rollup --by session").stdout)
    assert {row["session_id"]: row["output_tokens"] for row in rows} == {S1: 419, S2: 50}


def test_sums_of_nothing_are_nothing_and_sums_without_counts_are_told(run: Run, tmp_path: pathlib.Path) -> None:
    put(state(tmp_path), begun(), ended("d1", "2026-05-17T11:09:00.000Z", inputTokens=0, outputTokens=0))
    assert not run(f"tok-read copilot --root {tmp_path}").stdout
    small = ended("d1", "2026-05-17T11:09:00.000Z")
    small["data"] |= {"modelMetrics": {"gpt-5-mini": {"requests": 2}}, "tokenDetails": {"gpt-5-mini": {"input": 5}}}
    put(state(tmp_path), begun(), small)
    done = run(f"tok-read copilot --root {tmp_path}", status=1)
    assert not done.stdout and b"events.jsonl:2: modelMetrics without token counts; skipped" in done.stderr


def test_sessions_without_counts_get_one_hint(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    for session in (S1, S2):
        put(state(home, session), begun(session), spoken(7))
    done = run("tok-read copilot", status=None)
    assert not done.stdout and done.stderr.count(b"hold no token counts") == 1
    put(state(home, S2), begun(), spoken(50), FIRST)
    assert not run("tok-read copilot").stderr


def exported(home: pathlib.Path, *records: Json) -> pathlib.Path:
    return put(home / ".copilot/otel/export.jsonl", *records)


INFERENCE = "gen_ai.client.inference.operation.details"
AGENT = "copilot_chat.agent.turn"


@pytest.mark.parametrize(
    ("records", "answers"),
    [
        ([span()], [419]),
        ([span(), span("t1", "s2", gen_ai__usage__output_tokens=105)], [105, 419]),
        # Equal calls are calls of their own; the same span again is not.
        ([span(), span("t1", "s2"), span()], [419, 419]),
        # The other kinds tell of calls that their trace has already.
        ([span(), log(INFERENCE), log(AGENT), span("t1", "s9", gen_ai__operation__name="invoke_agent")], [419]),
        ([log(INFERENCE), log(AGENT, gen_ai__usage__output_tokens=900)], [419]),
        # A log may come before its span: both have the name that their counts give them.
        ([log(INFERENCE), span()], [419]),
        # They share the response where the trace is not named.
        ([span(), log(INFERENCE, "", "s1", gen_ai__response__id="r-t1-s1", gen_ai__conversation__id=None)], [419]),
        # Nothing else is there: the summary counts.
        ([span("t1", "s9", gen_ai__operation__name="invoke_agent")], [419]),
        ([span(), log(AGENT, "t2", "s2", gen_ai__usage__output_tokens=106)], [106, 419]),
        ([log("session.start")], []),
        ([span(gen_ai__operation__name="execute_tool")], []),
    ],
)
def test_four_kinds_of_telemetry(records: list[Json], answers: list[int], run: Run, tmp_path: pathlib.Path) -> None:
    exported(tmp_path, *records)
    found = objects(run(f"tok-read copilot --root {tmp_path}").stdout)
    assert sorted(event["output_tokens"] for event in found) == answers


@pytest.mark.parametrize(
    ("given", "session"),
    [
        ({}, S4),
        ({"gen_ai__conversation__id": None, "copilot_chat__session_id": "a"}, "a"),
        ({"gen_ai__conversation__id": None, "github__copilot__interaction_id": "b"}, "b"),
        ({"gen_ai__conversation__id": None}, "r-t1-s1"),
        ({"gen_ai__conversation__id": None, "gen_ai__response__id": None}, "t1"),
    ],
)
def test_the_session_of_a_span(given: Json, session: str, run: Run, tmp_path: pathlib.Path) -> None:
    exported(tmp_path, span(**given))
    assert objects(run(f"tok-read copilot --root {tmp_path}").stdout)[0]["session_id"] == session


@pytest.mark.parametrize(
    ("time", "ts"),
    [
        ({"startTime": [1784538000, 5_000_000]}, "2026-07-20T09:00:00.005Z"),
        ({"endTime": [1784538004, 0]}, "2026-07-20T09:00:04.000Z"),
        ({"hrTime": 1784538004000}, "2026-07-20T09:00:04.000Z"),
        ({"timestamp": 1784538004000000000}, "2026-07-20T09:00:04.000Z"),
        ({"timestamp": "2026-07-20T09:00:04Z"}, "2026-07-20T09:00:04.000Z"),
    ],
)
def test_the_time_of_a_span(time: Json, ts: str, run: Run, tmp_path: pathlib.Path) -> None:
    made = {key: value for key, value in span().items() if not key.endswith("Time")}
    exported(tmp_path, made | time)
    assert objects(run(f"tok-read copilot --root {tmp_path}").stdout)[0]["ts"] == ts


def test_the_model_of_a_span_is_the_served_one(run: Run, tmp_path: pathlib.Path) -> None:
    exported(
        tmp_path,
        span(gen_ai__response__model="claude-haiku-4.5"),
        span("t1", "s2", gen_ai__request__model=None, gen_ai__response__model=None, gen_ai__usage__input_tokens=23000),
    )
    one, two = sorted(objects(run(f"tok-read copilot --root {tmp_path}").stdout), key=lambda event: event["input_tokens"])
    assert (one["model"], one["request_model"]) == ("claude-haiku-4.5", "claude-sonnet-4.6")
    assert two["model"] == "claude-haiku-4.5"


def test_a_call_in_database_and_telemetry_counts_once(run: Run, environment: dict[str, str]) -> None:
    """Spans sum up the calls of a subagent, so only what is older than a session's first row counts."""
    home = pathlib.Path(environment["HOME"])
    exported(home, span(session=S1), span("t1", "s2", S1, 1784538100, gen_ai__usage__output_tokens=900))
    assert len(objects(run("tok-read copilot").stdout)) == 2
    keep(home, row(ts="2026-07-20T09:00:04.250Z", duration_ms=4250))
    [event] = objects(run("tok-read copilot").stdout)
    assert event["output_tokens"] == 419 and event["project"] == "orchard"
    older = span("t0", "s0", S1, 1784537000, gen_ai__usage__output_tokens=103)
    exported(home, older, span(session=S1))
    assert sorted(event["output_tokens"] for event in objects(run("tok-read copilot").stdout)) == [103, 419]


def test_database_and_telemetry_name_a_call_alike(run: Run, environment: dict[str, str]) -> None:
    """Each alone, as when the telemetry was read before the database had the row."""
    home = pathlib.Path(environment["HOME"])
    path = exported(home, span(session=S1), span("t1", "s2", S1))
    spans = objects(run("tok-read copilot").stdout)
    path.unlink()
    keep(home, row(), row())
    assert [event["id"] for event in spans] == [event["id"] for event in objects(run("tok-read copilot").stdout)]


def test_telemetry_knows_its_project_by_the_sessions_events(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    exported(home, span())
    put(state(home, S4), begun(S4, "/home/ada/lighthouse"))
    assert objects(run("tok-read copilot").stdout)[0]["project"] == "lighthouse"


def test_the_places_can_be_named(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    keep(tmp_path / "away", row())
    assert objects(run("tok-read copilot", env={"COPILOT_HOME": str(tmp_path / "away/.copilot")}).stdout)
    away = put(tmp_path / "export.jsonl", span())
    assert objects(run("tok-read copilot", env={"COPILOT_OTEL_FILE_EXPORTER_PATH": str(away)}).stdout)
    keep(pathlib.Path(environment["HOME"]), row(S2))
    both = objects(run("tok-read copilot", env={"COPILOT_OTEL_FILE_EXPORTER_PATH": str(away)}).stdout)
    assert {event["session_id"] for event in both} == {S2, S4}
    run("tok-read copilot", env={"COPILOT_OTEL_FILE_EXPORTER_PATH": str(tmp_path / "not-yet.jsonl")})
    put(tmp_path / "2025/session-state/s7.jsonl", begun("s7"), FIRST)
    sessions = run(f"tok-read copilot --root {tmp_path}/2025/session-state")
    assert objects(sessions.stdout)[0]["session_id"] == "s7"
