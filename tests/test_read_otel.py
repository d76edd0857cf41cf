"""OpenTelemetry exports: a collector's files, pretty-printed ones, Gemini CLI's outfile."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, claude, codex_count, codex_meta, codex_model, lines, objects, put
from tokenops import events, read_clients, read_otel, sync_gather

AT = "2026-09-04T03:22:16.818Z"
NANO = "1788492136818000000"  # the same
BEGAN = "2026-09-04T03:22:14.818Z"
SECRET = "the words of the prompt"


def attribute(key: str, value: object) -> Json:
    """As OTLP's JSON writes it: whole numbers are texts."""
    kinds: dict[type, str] = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    return {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}


def listed(given: Json) -> list[Json]:
    return [attribute(key, value) for key, value in given.items() if value is not ...]


def logs(*records: Json, service: str = "claude-code") -> Json:
    resource = {"attributes": listed({"service.name": service, "host.arch": "arm64"})}
    return {
        "resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": "events"}, "logRecords": list(records)}]}]
    }


def record(body: str, at: str = NANO, **given: Any) -> Json:
    return {"timeUnixNano": at, "body": {"stringValue": body}, "attributes": listed(given)}


def request(name: str = "req_1", session: str = "s1", **given: Any) -> Json:
    """Claude Code's event of one request."""
    said = {"session.id": session, "event.name": "api_request", "event.timestamp": AT, "event.sequence": 7}
    said |= {"model": "claude-sonnet-5-5", "cost_usd": 0.0210788, "cost_usd_micros": 21079, "duration_ms": 2000}
    said |= {"input_tokens": 2, "output_tokens": 233, "cache_read_tokens": 23949, "cache_creation_tokens": 5582}
    said |= {"request_id": name, "speed": "normal", "query_source": "repl_main_thread", "user.email": "ada@example.org"}
    return record("claude_code.api_request", **(said | given))


def completed(session: str = "t1", at: str = AT, **given: Any) -> Json:
    """Codex's event of one request: some counts are texts, some are not."""
    said = {"event.name": "codex.sse_event", "event.kind": "response.completed", "event.timestamp": at}
    said |= {"conversation.id": session, "model": "gpt-6.1-sol", "slug": "gpt-6.1-sol", "auth_mode": "chatgpt"}
    said |= {"input_token_count": "9000", "output_token_count": "400", "cached_token_count": 6000}
    said |= {"reasoning_token_count": 150, "tool_token_count": "9400"}
    return record("", **(said | given))


def response(session: str = "g1", **given: Any) -> Json:
    """Gemini CLI's event of one request."""
    said = {"session.id": session, "event.name": "gemini_cli.api_response", "event.timestamp": AT, "model": "gemini-3-flash"}
    said |= {"duration_ms": 2000, "input_token_count": 15000, "output_token_count": 20, "cached_content_token_count": 11000}
    said |= {"thoughts_token_count": 900, "tool_token_count": 0, "total_token_count": 15920, "prompt_id": "p1"}
    said |= {"auth_type": "oauth-personal", "response_text": SECRET}
    return record("API response from gemini-3-flash.", **(said | given))


def plain(of: Json, **given: Any) -> Json:
    """The same as Gemini CLI writes it to a file itself."""
    said = {}
    for one in of["attributes"]:
        ((kind, value),) = one["value"].items()
        said[one["key"]] = int(value) if kind == "intValue" else value
    seconds, nano = divmod(int(of["timeUnixNano"]), 10**9)
    return {
        "hrTime": [seconds, nano],
        "resource": {"attributes": {"service.name": "gemini-cli"}},
        "attributes": said | given,
    }


def metric(*points: Json, delta: bool = True, name: str = "claude_code.token.usage") -> Json:
    counter = {"dataPoints": list(points), "aggregationTemporality": 1 if delta else 2, "isMonotonic": True}
    scope = {"metrics": [{"name": name, "unit": "tokens", "sum": counter}]}
    return {"resourceMetrics": [{"resource": {"attributes": []}, "scopeMetrics": [scope]}]}


def point(kind: str, count: object, minute: int = 1, begun: int = 0, session: str = "s1", **given: Any) -> Json:
    at, start = (str(int(NANO) + n * 60 * 10**9) for n in (minute, begun))
    said = {"session.id": session, "model": "claude-sonnet-5-5", "type": kind, "query_source": "main"}
    value = {"asInt": str(count)} if type(count) is int else {"asDouble": count}
    return {"attributes": listed(said | given), "startTimeUnixNano": start, "timeUnixNano": at} | value


def steps(home: pathlib.Path) -> Iterator[None]:
    """A collector's file that grows, with all three clients in it; Gemini CLI's own file; a document somebody kept."""
    path = home / "otel.jsonl"
    put(path, logs(request()))
    yield
    with path.open("ab") as file:
        file.write(lines([logs(completed(), completed(at="2026-09-04T03:23:00.000Z"), service="codex_cli_rs")]))
        file.flush()
        yield
        file.write(
            lines([metric(point("output", 233), point("cacheRead", 23949.0)), logs(response(), service="gemini-cli")])
        )
    yield
    own = home / "telemetry.log"
    for n in range(2):
        with own.open("ab") as file:
            for one in ({"hrTime": [1, 2], "attributes": {"event.name": "gemini_cli.user_prompt", "prompt": SECRET}},
                        plain(response("g2", duration_ms=100 + n))):  # fmt: skip
                file.write(json.dumps(one, indent=2).encode() + b"\n")
        yield
    put(home / "kept.json", json.dumps(logs(request("req_9", "s9")), indent=4).encode() + b"\n")
    yield


def read(tmp_path: pathlib.Path, *parts: Json | bytes, name: str = "otel.jsonl") -> list[events.Event]:
    path = put(tmp_path / name, *parts)
    batch = sync_gather.gather(read_clients.BY_NAME["otel"], [str(path)], 1)
    assert not batch.rejected and not batch.unread
    return list(sync_gather.in_order([batch]))


NAMES = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


def counts(event: events.Event) -> tuple[int, ...]:
    return tuple(event.get(name, 0) for name in NAMES)


def test_a_request_of_claude_code(tmp_path: pathlib.Path) -> None:
    (event,) = read(tmp_path, logs(request()))
    assert counts(event) == (2, 23949, 5582, 233, 0)
    assert (event["kind"], event["covers"], event["turns"]) == ("usage", "session", 1)
    assert (event["id"], event["session_id"]) == ("usage:claude-code:s1:req_1", "s1")
    assert (event["source"], event["client"], event["provider"]) == ("otel", "claude-code", "anthropic")
    assert (event["ts"], event["model"]) == (BEGAN, "claude-sonnet-5-5")  # when it began, not when it was told of
    assert (event["cost_usd"], event["cost_source"]) == ("0.0210788", "client")
    assert "tier" not in event


@pytest.mark.parametrize(
    "given",
    [
        request(speed="fast"),
        # Some versions send every attribute as a text.
        request(
            speed="fast", input_tokens="2", output_tokens="233", cache_read_tokens="23949", cache_creation_tokens="5582"
        ),
        {**request(speed="fast"), "body": {"stringValue": ""}},
        {**request(speed="fast", **{"event.name": ...}), "body": {}, "eventName": "claude_code.api_request"},
        {**request(speed="fast", **{"event.timestamp": ...})},
        {**request(speed="fast", **{"event.timestamp": ...}), "timeUnixNano": "0", "observedTimeUnixNano": NANO},
    ],
)
def test_shapes_of_one_request(given: Json, tmp_path: pathlib.Path) -> None:
    (event,) = read(tmp_path, logs(given))
    assert (counts(event), event["ts"], event["tier"]) == ((2, 23949, 5582, 233, 0), BEGAN, "fast")


def test_a_turn_of_codex(tmp_path: pathlib.Path) -> None:
    (event,) = read(tmp_path, logs(completed(), service="codex_cli_rs"))
    assert counts(event) == (3000, 6000, 0, 400, 150)  # cached inside input, reasoning inside output
    assert events.token_sum(event) == 9400
    assert (event["kind"], event["client"], event["session_id"]) == ("turn", "codex", "t1")
    assert (event["ts"], event["alias"]) == (AT, "codex:t1:3000:6000:0:400:150")


def test_a_turn_of_gemini(tmp_path: pathlib.Path) -> None:
    for given in (logs(response(), service="gemini-cli"), plain(response())):
        (event,) = read(tmp_path, given)
        assert counts(event) == (4000, 11000, 0, 920, 900)
        assert events.token_sum(event) == 15920
        assert (event["kind"], event["client"], event["provider"]) == ("turn", "gemini-cli", "gemini")
        assert (event["ts"], event["alias"]) == (BEGAN, "gemini-cli::4000:11000:0:920:900")
    (event,) = read(tmp_path, logs(response(auth_type="vertex-ai")))
    assert event["provider"] == "vertex"


@pytest.mark.parametrize(
    "given",
    [
        logs(record("claude_code.user_prompt", prompt=SECRET, **{"event.name": "user_prompt", "session.id": "s1"})),
        logs(request(**{"event.name": "api_error"}) | {"body": {"stringValue": "claude_code.api_error"}}),
        logs(request(), service="other") | {"resourceLogs": []},
        logs(request() | {"body": {"stringValue": "api_request"}}, service="another"),
        logs(completed(**{"event.kind": "response.output_item.done"})),
        logs(completed(input_token_count=...)),  # could not be read by Codex itself
        logs(completed(input_token_count=0, output_token_count=0, cached_token_count=0, reasoning_token_count=0)),
        metric(point("input", 9), name="claude_code.cost.usage"),
        metric(point("input", 0), point("other", 7)),
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "claude_code.llm_request", "attributes": []}]}]}]},
        {"resourceLogs": "?", "resourceMetrics": [None, {"scopeMetrics": [3]}], "note": "api_request"},
    ],
)
def test_what_is_no_request(given: Json, tmp_path: pathlib.Path) -> None:
    assert read(tmp_path, given) == []


def test_the_token_counter(tmp_path: pathlib.Path) -> None:
    """Deltas add up; of a running total the last counts; a process that began anew has its own."""
    deltas = [metric(point("output", 5), point("input", 2)), metric(point("output", 7, 2, 1))]
    found = read(tmp_path, *deltas, *deltas)  # exported twice
    assert sorted(map(counts, found)) == [(0, 0, 0, 5, 0), (0, 0, 0, 7, 0), (2, 0, 0, 0, 0)]
    assert {(event["kind"], event["source"], event["session_id"]) for event in found} == {("usage", "otel-metrics", "s1")}
    running = [metric(point("output", n, minute), delta=False) for minute, n in ((1, 5), (3, 30), (2, 12))]
    (event,) = read(tmp_path, *running)
    assert (counts(event), event["ts"]) == ((0, 0, 0, 30, 0), AT)
    found = read(tmp_path, *running, metric(point("output", 4, 9, 8), delta=False))
    assert sorted(event["output_tokens"] for event in found) == [4, 30]
    parts = [metric(point("output", 5, speed="fast"), point("output", 6), delta=False)]  # each its own series
    assert {event.get("tier"): event["output_tokens"] for event in read(tmp_path, *parts)} == {"fast": 5, None: 6}


def test_requests_and_their_sums_count_once(run: Run, tmp_path: pathlib.Path) -> None:
    """Whichever of the two is the more complete, and in one file or in several."""
    sums = [point("input", 2), point("output", 233), point("cacheRead", 23949), point("cacheCreation", 5582)]
    put(tmp_path / "logs.jsonl", logs(request()), logs(request("req_2", "s2"), request("req_3", "s2")))
    put(
        tmp_path / "metrics.jsonl",
        metric(*sums),
        metric(point("output", 233, session="s2"), point("output", 9, session="s3")),
    )
    for given in ("--root logs.jsonl --root metrics.jsonl", "--root metrics.jsonl --root logs.jsonl"):
        rows = objects(run(f"tok-read otel {given} | tok-rollup --by session").stdout)
        assert {row["session_id"]: row["output_tokens"] for row in rows} == {"s1": 233, "s2": 466, "s3": 9}
    assert rows[0]["turns"] == 1


def test_claude_codes_own_log_wins(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """Also where its counts are placeholders; a session that left no transcript is known from the export."""
    home = pathlib.Path(environment["HOME"])
    put(home / ".claude/projects/-home-ada-app/s1.jsonl", claude("m1", sessionId="s1", output=2))
    put(tmp_path / "otel.jsonl", logs(request(), request("req_2", "s2")))
    run("tok-sync claude; tok-sync otel --root otel.jsonl")
    for line in ("tok-cat", "tok-read claude otel --root $HOME --root otel.jsonl"):
        rows = objects(run(f"{line} | tok-rollup --by session").stdout)
        assert {row["session_id"]: row["output_tokens"] for row in rows} == {"s1": 2, "s2": 233}


def test_codex_and_gemini_meet_their_own_logs(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """In the log, in any order of the two, and in a pipe."""
    home = pathlib.Path(environment["HOME"])
    rollout = [codex_meta("t1"), codex_model("gpt-6.1-sol"), codex_count((9000, 6000, 400, 150), (9000, 6000, 400, 150))]
    put(home / ".codex/sessions/2026/05/02/rollout-2026-05-02T10-00-00-t1.jsonl", *rollout)
    chat = {"sessionId": "g1", "projectHash": "x", "startTime": AT}
    tokens = {"input": 15000, "output": 20, "cached": 11000, "thoughts": 900, "tool": 0, "total": 15920}
    message = {"id": "a", "timestamp": AT, "type": "gemini", "model": "gemini-3-flash", "tokens": tokens}
    put(home / ".gemini/tmp/slug/chats/session-1.jsonl", chat, message)
    # One request more than the logs know: a helper's, or one whose log is gone.
    at = "2026-05-02T10:00:09.500Z"
    more = logs(completed(at=at), completed("t2", at=at), response(), response(prompt_id="p2", output_token_count=21))
    put(tmp_path / "otel.jsonl", more)
    for line in (
        "tok-sync codex gemini; tok-sync otel --root otel.jsonl; tok-cat",
        "rm -r $TOKENOPS_HOME; tok-sync otel --root otel.jsonl; tok-sync codex gemini; tok-cat",
        "tok-read codex gemini otel --root $HOME --root otel.jsonl",
    ):
        found = [event for event in objects(run(line).stdout) if event["kind"] == "turn"]
        seen = sorted((event["client"], event["session_id"], event["output_tokens"], event["source"]) for event in found)
        assert seen == [
            ("codex", "t1", 400, "codex-jsonl"),
            ("codex", "t2", 400, "otel"),
            ("gemini-cli", "g1", 920, "gemini-cli"),
            ("gemini-cli", "g1", 921, "otel"),
        ], line


def test_an_export_repeated_is_one(tmp_path: pathlib.Path) -> None:
    given = [logs(request()), logs(completed()), logs(response())]
    assert len(read(tmp_path, *given, *given)) == 3
    nameless = logs(request(request_id=...))
    assert len(read(tmp_path, nameless, nameless)) == 1
    assert len(read(tmp_path, nameless, logs(request(request_id=..., **{"event.sequence": 8})))) == 2


def test_records_without_a_session_are_said_once(run: Run, tmp_path: pathlib.Path) -> None:
    nameless = point("output", 5, **{"session.id": ...})
    put(tmp_path / "otel.jsonl", metric(nameless, nameless, point("output", 6)), metric(nameless))
    done = run("tok-read otel --root otel.jsonl", status=1)
    assert [event["output_tokens"] for event in objects(done.stdout)] == [6]
    assert done.stderr.decode() == (
        "tok-read: otel.jsonl:1: no session.id, so its requests cannot be matched with its session's own log; "
        "set OTEL_METRICS_INCLUDE_SESSION_ID=true; all such records are skipped\n"
    )


def test_bad_records_lose_only_themselves(run: Run, tmp_path: pathlib.Path) -> None:
    put(
        tmp_path / "otel.jsonl",
        logs(request(output_tokens=-1), request("req_2")),
        logs(request("req_3", **{"event.timestamp": "whenever"})),
        b"2026-09-04 collector started\n\n{\n  torn\n",
        logs(completed()),
    )
    done = run("tok-read -v --root otel.jsonl", status=1)
    assert sorted(event["session_id"] for event in objects(done.stdout)) == ["s1", "t1"]
    assert done.stderr.decode().splitlines() == [
        "tok-read: otel.jsonl:1: output_tokens is a string; expected a count; skipped",
        "tok-read: otel.jsonl:2: event.timestamp is a string; expected a time; skipped",
        "tok-read: otel.jsonl:3: not JSON; it and later lines like it are skipped",
        "tok-read: otel.jsonl:5: a value that was never closed; skipped",
    ]


def test_no_words_in_events(run: Run, tmp_path: pathlib.Path) -> None:
    prompt = record("codex.user_prompt", prompt=SECRET, **{"event.name": "codex.user_prompt", "conversation.id": "t1"})
    put(tmp_path / "otel.jsonl", logs(request(prompt=SECRET), prompt, completed(), response()))
    done = run("tok-read --root otel.jsonl")
    assert len(objects(done.stdout)) == 3
    assert SECRET.encode() not in done.stdout and b"ada@example.org" not in done.stdout


def test_a_folder_of_rotated_files(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "otel/now.json", logs(request()))
    put(tmp_path / "otel/2026-09-04.json", logs(request("req_2", "s2")))
    put(tmp_path / "otel/other.json", logs(record("GET /"), service="shop"))
    assert len(objects(run("tok-read otel --root otel").stdout)) == 2
    assert objects(run("tok-sync otel --root otel").stdout)[0]["files"] == 2


def test_what_is_an_export() -> None:
    for line in (logs(), metric(), {"resourceSpans": []}, plain(response())):
        assert read_otel.takes(line)
    for other in (claude("m"), {"attributes": {}}, {"type": "result"}, {}):
        assert not read_otel.takes(other)
