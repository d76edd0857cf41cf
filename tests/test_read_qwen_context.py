"""What entered the context of each turn of Qwen Code's chats, as sizes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from test_read_qwen import answer, chat, line, message

from conftest import Json, lines, put
from tokenops import readers, store, sync

PNG = "iVBORw0KGgoAAAANSUhEUgAAAu4AAAAB"  # 750 pixels wide, 1 high


def at(minute: int) -> str:
    return f"2026-05-17T11:{minute:02d}:00.000Z"


def said(minute: int, *parts: Json, above: str = "", **more: Any) -> list[Json]:
    """An answer's telemetry and its message."""
    size = 15600 + minute
    counts = {"input_token_count": size, "total_token_count": size + 76, "response_id": None}
    usage = {"promptTokenCount": size, "totalTokenCount": size + 76}
    told = message(f"m{minute}", at(minute), **usage) | {"message": {"role": "model", "parts": parts}} | more
    return [answer(f"t{minute}", at(minute), **counts), told]


def prompt(identity: str, text: str, above: str | None = None, **part: Any) -> Json:
    content = {"role": "user", "parts": [{"text": text}, *([part] if part else [])]}
    return line("user", identity, at(0), "s1", message=content) | {"parentUuid": above}


def result(name: str, output: str) -> Json:
    response = {"functionResponse": {"id": "c1", "name": name, "response": {"output": output}}}
    shown = {"callId": "c1", "status": "success", "resultDisplay": "secret"}
    return line("tool_result", "r", at(0), "s1", message={"role": "user", "parts": [response]}, toolCallResult=shown)


def aside(number: int) -> Json:
    """An answer to a subagent, whose texts are not in the chat."""
    counts = {"input_token_count": 300 * number, "total_token_count": 300 * number + 76, "cached_content_token_count": 0}
    return answer(f"a{number}", at(2 * number), subagent_name="a", prompt_id=f"s1#a-x1#{number}", **counts)


COMMAND = {"command": "cd /x && git diff secret", "is_background": False}
CALL = {"functionCall": {"id": "c1", "name": "run_shell_command", "args": COMMAND}}
MESSAGES = [
    prompt("u1", "look"),
    *said(1, {"text": "hmm!", "thought": True}, {"text": "so"}, CALL),
    result("run_shell_command", "größe"),
    aside(1),
    *said(3, {"text": "done"}),
    aside(2),
    prompt("u2", "on", "m3", inlineData={"mimeType": "image/png", "data": PNG}),
    *said(4, {"text": "yes"}),
]


def contexts(root: pathlib.Path, log: pathlib.Path) -> list[Json]:
    sync.run(str(log), list(readers.with_files(["qwen"], [], {}, str(root))))
    events = [json.loads(row) for row in store.scan(str(log), context=True)]
    assert b"secret" not in b"".join(file.read_bytes() for file in log.rglob("*") if file.is_file())
    found = [event for event in events if event["kind"] == "context"]
    assert sorted(event["turn"] for event in found) == sorted(event["id"] for event in events if event["kind"] == "turn")
    side = [event for event in found if "chain" in event]
    assert [(event["chain"], event.get("parent"), event["sidechain"]) for event in side] == [
        ("a-x1", None, True),
        ("a-x1", side[0]["turn"], True),
    ]
    return [event for event in found if "chain" not in event]


def check(found: list[Json]) -> None:
    size = len('{"command":"cd /x && git diff secret","is_background":false}')
    assert found[0]["produced"] == {"call run_shell_command|git diff": size, "reply": 2, "thinking": 4}
    assert found[1]["entered"] == {"result run_shell_command|git diff": 5}
    assert found[2]["entered"] == {"image": 3, "prompt": 2} and found[2]["produced"] == {"reply": 3}
    assert [event.get("parent") for event in found[:3]] == [None, found[0]["turn"], found[1]["turn"]]


@pytest.mark.parametrize("cut", range(len(MESSAGES)))
def test_a_chat_in_any_two_pieces(cut: int, tmp_path: pathlib.Path) -> None:
    put(chat(tmp_path), lines(MESSAGES[:cut]))
    sync.run(str(tmp_path / "log"), list(readers.with_files(["qwen"], [], {}, str(tmp_path))))
    put(chat(tmp_path), lines(MESSAGES))
    check(contexts(tmp_path, tmp_path / "log"))


def test_a_chat_without_telemetry(tmp_path: pathlib.Path) -> None:
    put(chat(tmp_path), lines([row for row in MESSAGES if not row["uuid"].startswith("t")]))
    check(contexts(tmp_path, tmp_path / "log"))


def test_a_summary_takes_the_place_of_what_was_there(tmp_path: pathlib.Path) -> None:
    history = [{"role": "user", "parts": [{"text": "in short"}]}, {"role": "model", "parts": [{"text": "ok"}]}]
    condensed = line("system", "k", at(5), "s1", subtype="chat_compression", systemPayload={"compressedHistory": history})
    put(chat(tmp_path), lines([*MESSAGES, condensed, prompt("u3", "more"), *said(6, {"text": "yes"})]))
    found = contexts(tmp_path, tmp_path / "log")
    check(found)
    assert (found[3]["event"], found[3]["entered"]) == ("compaction", {"prompt": 4, "summary": 10})
    assert "event" not in found[2]


def test_a_rewind_goes_on_from_an_older_turn(tmp_path: pathlib.Path) -> None:
    back = line("system", "w", at(5), "s1", subtype="rewind", systemPayload={"truncatedCount": 2}) | {"parentUuid": "m3"}
    put(chat(tmp_path), lines([*MESSAGES, back, prompt("u3", "again", "w"), *said(6, {"text": "yes"})]))
    found = contexts(tmp_path, tmp_path / "log")
    check(found)
    assert (found[3]["parent"], found[3]["entered"]) == (found[1]["turn"], {"prompt": 5})


def test_a_branch_of_a_chat_goes_on_from_its_copy(tmp_path: pathlib.Path) -> None:
    put(chat(tmp_path), lines(MESSAGES))
    copies = [{**row, "sessionId": "s2", "forkedFrom": {"sessionId": "s1", "messageUuid": row["uuid"]}} for row in MESSAGES]
    own = [row | {"sessionId": "s2"} for row in (prompt("u3", "more"), *said(6, {"text": "yes"}))]
    put(chat(tmp_path, "s2"), lines([*copies, *own]))
    found = contexts(tmp_path, tmp_path / "log")
    check(found)
    assert [event["session_id"] for event in found] == ["s1", "s1", "s1", "s2"]
    assert (found[3]["parent"], found[3]["entered"]) == (found[2]["turn"], {"prompt": 4})
