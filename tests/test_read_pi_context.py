"""What entered the context of each turn of pi's sessions and of OpenClaw's, as sizes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from test_read_pi import header, session, usage

from conftest import Json, lines, put
from tokenops import readers, store, sync

PNG = "iVBORw0KGgoAAAANSUhEUgAAAu4AAAAB"  # 750 pixels wide, 1 high


def entry(kind: str, identity: str, above: str | None, second: int, **more: Any) -> Json:
    return {"type": kind, "id": identity, "parentId": above, "timestamp": f"2026-05-17T11:00:{second:02d}.000Z", **more}


def message(identity: str, above: str | None, second: int, role: str, content: Any, **more: Any) -> Json:
    return entry("message", identity, above, second, message={"role": role, "content": content, **more})


def answer(identity: str, above: str, second: int, *content: Json) -> Json:
    counts = usage(input=120 + second, totalTokens=4946 + second)
    more = {"provider": "anthropic", "model": "claude-sonnet-4-5", "usage": counts, "stopReason": "stop"}
    return message(identity, above, second, "assistant", content, **more)


def text(value: str) -> Json:
    return {"type": "text", "text": value}


CALL = {"type": "toolCall", "id": "c1", "name": "bash", "arguments": {"command": "cd /x && git diff secret"}}
ENTRIES = [
    entry("model_change", "c0", None, 1, provider="anthropic", modelId="claude-sonnet-4-5"),
    message("e0", "c0", 1, "user", [text("look")]),
    answer("e1", "e0", 2, {"type": "thinking", "thinking": "hmm!"}, text("so"), CALL),
    message("e2", "e1", 3, "toolResult", [text("größe")], toolCallId="c1", toolName="bash", details={"x": "secret"}),
    answer("e3", "e2", 4, text("done")),
    entry("custom_message", "e4", "e3", 5, customType="x", content="aside", display=True),
    entry("custom", "e5", "e4", 6, customType="x", data={"usage": "secret"}),
    message("e6", "e5", 7, "bashExecution", None, command="ls", output="a b", exitCode=0),
    message("e7", "e6", 8, "bashExecution", None, command="ls", output="secret", excludeFromContext=True),
    message("e8", "e7", 9, "user", [text("on"), {"type": "image", "data": PNG, "mimeType": "image/png"}]),
    answer("e9", "e8", 10, text("yes")),
]


def contexts(root: pathlib.Path, log: pathlib.Path, client: str = "pi") -> list[Json]:
    sync.run(str(log), list(readers.with_files([client], [], {}, str(root))))
    events = [json.loads(row) for row in store.scan(str(log), context=True)]
    assert b"secret" not in b"".join(file.read_bytes() for file in log.rglob("*") if file.is_file())
    found = [event for event in events if event["kind"] == "context"]
    assert sorted(event["turn"] for event in found) == sorted(event["id"] for event in events if event["kind"] == "turn")
    return found


def check(found: list[Json]) -> None:
    size = len('{"command":"cd /x && git diff secret"}')
    assert found[0]["produced"] == {"call bash|git diff": size, "reply": 2, "thinking": 4}
    assert found[1]["entered"] == {"result bash|git diff": 5}
    assert found[2]["entered"] == {"image": 3, "prompt": 5 + 5 + 2} and found[2]["produced"] == {"reply": 3}
    assert [event.get("parent") for event in found[:3]] == [None, found[0]["turn"], found[1]["turn"]]


@pytest.mark.parametrize("cut", range(len(ENTRIES) + 1))
def test_a_session_in_any_two_pieces(cut: int, tmp_path: pathlib.Path) -> None:
    every = [header(), *ENTRIES]
    put(session(tmp_path), lines(every[:cut]))
    sync.run(str(tmp_path / "log"), list(readers.with_files(["pi"], [], {}, str(tmp_path))))
    put(session(tmp_path), lines(every))
    check(contexts(tmp_path, tmp_path / "log"))


def test_a_session_of_openclaw(tmp_path: pathlib.Path) -> None:
    put(tmp_path / ".openclaw/agents/main/sessions/u1.jsonl", lines([header(), *ENTRIES]))
    found = contexts(tmp_path, tmp_path / "log", "openclaw")
    check(found)
    assert {event["client"] for event in found} == {"openclaw"}


def test_a_compaction_leaves_a_summary(tmp_path: pathlib.Path) -> None:
    """What the summary itself cost is a turn on no chain."""
    condensed = entry("compaction", "k", "e9", 11, summary="in short", firstKeptEntryId="e8", tokensBefore=5000)
    more = [message("n1", "k", 12, "user", "more"), answer("n2", "n1", 13, text("yes"))]
    put(session(tmp_path), lines([header(), *ENTRIES, condensed, *more]))
    found = contexts(tmp_path, tmp_path / "log")
    check(found)
    assert (found[3]["event"], found[3]["entered"]) == ("compaction", {"prompt": 4, "summary": 8})
    assert found[3]["parent"] == found[2]["turn"] and "event" not in found[2]


@pytest.mark.parametrize(("above", "parent"), [("e7", 1), ("e1", 0), ("c0", None)])
def test_a_step_back_goes_on_from_an_older_turn(above: str, parent: int | None, tmp_path: pathlib.Path) -> None:
    branch = [message("n1", above, 12, "user", "again"), answer("n2", "n1", 13, text("yes"))]
    put(session(tmp_path), lines([header(), *ENTRIES, *branch]))
    found = contexts(tmp_path, tmp_path / "log")
    check(found)
    assert found[3].get("parent") == (None if parent is None else found[parent]["turn"])
    assert found[3].get("entered") == (None if parent is None else {"prompt": 5})


def test_a_fork_goes_on_from_its_copy(tmp_path: pathlib.Path) -> None:
    put(session(tmp_path), lines([header(), *ENTRIES]))
    fork = header("u2", "2026-05-17T11:00:30.000Z", parentSession=str(session(tmp_path)))
    own = [message("n1", "e9", 40, "user", "more"), answer("n2", "n1", 41, text("yes"))]
    put(session(tmp_path, "u2"), lines([fork, *ENTRIES, *own]))
    found = contexts(tmp_path, tmp_path / "log")
    check(found)
    assert [event["session_id"] for event in found] == ["u1", "u1", "u1", "u2"]
    assert (found[3]["parent"], found[3]["entered"]) == (found[2]["turn"], {"prompt": 4})
