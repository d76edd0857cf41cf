"""What entered the context of each turn of Amp's threads, as sizes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from test_read_amp import answer, entry, place, thread

from conftest import Json, put
from tokenops import readers, store, sync

PNG = "iVBORw0KGgoAAAANSUhEUgAAAu4AAAAB"  # 750 pixels wide, 1 high


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def other(number: int, *content: Json, role: str = "user") -> Json:
    return {"role": role, "messageId": number, "content": content, "meta": {"sentAt": 1767865810000 + number}}


def said(number: int, *content: Json, **usage: Any) -> Json:
    return answer(number, inputTokens=10 + number, totalInputTokens=12368 + number, **usage) | {"content": content}


COMMAND = {"cmd": "cd /x && git diff secret"}
CALL = {"type": "tool_use", "complete": True, "id": "toolu_1", "name": "Bash", "input": COMMAND}
RUN = {"status": "done", "result": {"output": "größe", "exitCode": 0}, "progress": {"output": "secret"}, "trackFiles": []}
RESULT = {"type": "tool_result", "toolUseID": "toolu_1", "run": RUN}
ASIDE = {"type": "manual_bash_invocation", "args": {"cmd": "ls"}, "toolRun": {"status": "done", "result": {"output": "a b"}}}
IMAGE = {"type": "image", "source": {"type": "base64", "mediaType": "image/png", "data": PNG}}
MESSAGES = [
    other(0, text("look")),
    said(1, {"type": "thinking", "thinking": "hmm!", "signature": "secret"}, text("so"), CALL),
    other(2, RESULT),
    said(3, text("done")),
    other(4, ASIDE, ASIDE | {"hidden": True}, role="info"),
    other(5, text("on"), IMAGE),
    said(6, text("yes")),
]


def contexts(home: pathlib.Path, content: bytes) -> list[Json]:
    put(place(home), content)
    sync.run(str(home / "log"), list(readers.with_files(["amp"], [], {}, str(home))))
    events = [json.loads(row) for row in store.scan(str(home / "log"), context=True)]
    assert b"secret" not in b"".join(file.read_bytes() for file in (home / "log").rglob("*") if file.is_file())
    found = [event for event in events if event["kind"] == "context"]
    return sorted(found, key=lambda event: str(event["turn"]))


def check(found: list[Json]) -> None:
    size = len('{"cmd":"cd /x && git diff secret"}')
    assert found[0]["produced"] == {"call Bash|git diff": size, "reply": 2, "thinking": 4}
    assert found[1]["entered"] == {"result Bash|git diff": 5}
    assert found[2]["entered"] == {"image": 3, "prompt": 2 + 3 + 2} and found[2]["produced"] == {"reply": 3}
    assert [event.get("parent") for event in found[:3]] == [None, found[0]["turn"], found[1]["turn"]]


def test_a_thread_that_grows(tmp_path: pathlib.Path) -> None:
    for number in range(len(MESSAGES)):
        contexts(tmp_path, thread(*MESSAGES[: number + 1]))
    check(contexts(tmp_path, thread(*MESSAGES)))


def test_counts_in_the_ledger(tmp_path: pathlib.Path) -> None:
    """What the ledger has besides is no turn of the chain."""
    old = [message | {"usage": {"cacheReadInputTokens": 7}} if "usage" in message else message for message in MESSAGES]
    names = [message["messageId"] for message in MESSAGES if "usage" in message]
    ledger = [entry(name, id=f"e{name}") for name in names] + [entry(9, id="e9", tokens={"input": 1, "output": 5})]
    found = contexts(tmp_path, thread(*old, ledger=ledger))
    assert len(found) == 3
    check(found)


def test_a_summary_takes_the_place_of_what_was_there(tmp_path: pathlib.Path) -> None:
    summary = other(7, {"type": "summary", "summary": {"type": "message", "summary": "in short"}}, role="info")
    found = contexts(tmp_path, thread(*MESSAGES, summary, other(8, text("more")), said(9, text("yes"))))
    check(found)
    assert (found[3]["event"], found[3]["entered"]) == ("compaction", {"prompt": 4, "summary": 8})
    assert found[3]["parent"] == found[2]["turn"]
