"""What entered the context of each turn of Copilot CLI's sessions, as sizes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from test_read_copilot import begun, keep, row, state

from conftest import Json, lines, put
from tokenops import readers, store, sync

S = "0f3b6f0e-6a52-4a53-9d0b-7a3d3d1b2c11"


def stamp(second: int) -> str:
    return f"2026-07-20T09:00:{second:02d}.000Z"


def event(kind: str, second: int, **data: Any) -> Json:
    return {"type": kind, "data": data, "id": f"i{second}", "timestamp": stamp(second), "parentId": "p"}


def used(number: int, second: int, **more: Any) -> Json:
    counts = {"inputTokens": 1000 + number, "outputTokens": 40 + number, "duration": 1000, "apiCallId": f"a{number}"}
    return event("session.usage_record", second, usage={"initiator": "agent", **counts, **more})


def call(number: int, second: int, **more: Any) -> Json:
    """The database's row of a call."""
    counts = {"input_tokens": 1000 + number, "output_tokens": 40 + number, "cache_read_tokens": 0, "cache_write_tokens": 0}
    return row(S, stamp(second), duration_ms=1000, reasoning_tokens=0, **counts, **more)


def said(number: int, second: int, content: str, *calls: Json, **more: Any) -> Json:
    return event("assistant.message", second, content=content, toolRequests=calls, apiCallId=f"a{number}", **more)


def inside(one: Json) -> Json:
    """An event of a subagent."""
    return one | {"agentId": "4edcc66a"}


COMMAND = {"command": "cd /x && git diff secret"}
CALL = {"toolCallId": "c1", "name": "bash", "arguments": COMMAND, "intentionSummary": "secret"}
DONE = {"toolCallId": "c1", "success": True, "result": {"content": "größe", "detailedContent": "secret"}}
EVENTS = [
    begun(S),
    event("user.message", 1, content="look"),
    used(1, 3),
    said(1, 4, "so", CALL, reasoningText="hmm!"),
    event("tool.execution_start", 5, toolCallId="c1", toolName="bash", arguments=COMMAND),
    inside(event("user.message", 5, content="secret")),
    inside(used(7, 6, initiator="sub-agent")),
    inside(said(7, 7, "there", CALL | {"toolCallId": "c9"}, parentToolCallId="c1")),
    inside(event("tool.execution_complete", 8, toolCallId="c9", parentToolCallId="c1", result={"content": "small"})),
    inside(used(8, 8, initiator="sub-agent")),
    inside(said(8, 8, "found", parentToolCallId="c1")),
    event("tool.execution_complete", 9, **DONE),
    used(2, 10),
    said(2, 11, "done"),
    event("user.message", 12, content="on", transformedContent="now: on"),
    used(3, 13),
    said(3, 14, "yes"),
]
ROWS = [call(1, 3), call(7, 6, initiator="sub-agent"), call(8, 8, initiator="sub-agent"), call(2, 10), call(3, 13)]


def contexts(home: pathlib.Path) -> list[Json]:
    sync.run(str(home / "log"), list(readers.with_files(["copilot"], [], {}, str(home))))
    events = [json.loads(one) for one in store.scan(str(home / "log"), context=True)]
    assert b"secret" not in b"".join(file.read_bytes() for file in (home / "log").rglob("*") if file.is_file())
    turns = {one["id"]: one["ts"] for one in events if one["kind"] == "turn"}
    found = [one for one in events if one["kind"] == "context"]
    assert all(turns[one["turn"]] == one["ts"] for one in found)
    return sorted(found, key=lambda one: "chain" in one)


def check(found: list[Json]) -> None:
    size = len('{"command":"cd /x && git diff secret"}')
    assert found[0]["produced"] == {"call bash|git diff": size, "reply": 2, "thinking": 4}
    assert found[1]["entered"] == {"result bash|git diff": 5}
    assert found[2]["entered"] == {"prompt": len("now: on")} and found[2]["produced"] == {"reply": 3}
    assert [one.get("parent") for one in found[:3]] == [None, found[0]["turn"], found[1]["turn"]]


@pytest.mark.parametrize("cut", range(1, len(EVENTS)))
def test_a_session_in_any_two_pieces(cut: int, tmp_path: pathlib.Path) -> None:
    """Its events name the turns of the database."""
    keep(tmp_path, *ROWS)
    put(state(tmp_path, S), lines(EVENTS[:cut]))
    contexts(tmp_path)
    put(state(tmp_path, S), lines(EVENTS))
    found = contexts(tmp_path)
    check(found)
    aside = found[3:]
    assert [(one["chain"], one["sidechain"]) for one in aside] == [("4edcc66a", True)] * 2
    assert (aside[1]["parent"], aside[1]["entered"]) == (aside[0]["turn"], {"result bash|git diff": 5})


def test_a_compaction_leaves_a_summary(tmp_path: pathlib.Path) -> None:
    """The request that made it has no answer in the session."""
    keep(tmp_path, *ROWS, call(4, 15), call(5, 18))
    condensed = event("session.compaction_complete", 16, success=True, summaryContent="in short")
    failed = event("session.compaction_complete", 17, success=False)
    put(state(tmp_path, S), lines([*EVENTS, used(4, 15), condensed, failed, used(5, 18), said(5, 19, "yes")]))
    found = contexts(tmp_path)
    check(found)
    assert (found[3]["event"], found[3]["entered"]) == ("compaction", {"summary": 8})
    assert found[3]["parent"] == found[2]["turn"]


def test_equal_calls_are_turns_of_their_own(tmp_path: pathlib.Path) -> None:
    keep(tmp_path, *ROWS, call(3, 16))
    put(state(tmp_path, S), lines([*EVENTS, used(3, 16), said(3, 17, "again")]))
    found = contexts(tmp_path)
    assert found[3]["produced"] == {"reply": 5} and found[3]["parent"] == found[2]["turn"] != found[3]["turn"]


def test_events_without_usage_have_no_sizes(tmp_path: pathlib.Path) -> None:
    keep(tmp_path, *ROWS)
    put(state(tmp_path, S), lines([one for one in EVENTS if one["type"] != "session.usage_record"]))
    assert contexts(tmp_path) == []
