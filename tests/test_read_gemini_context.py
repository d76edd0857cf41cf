"""What entered the context of each turn of Gemini CLI's chats, as sizes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from test_read_gemini import chat, document, head, message

from conftest import Json, lines, put
from tokenops import readers, store, sync


def user(text: Any) -> Json:
    return {"id": "u", "timestamp": "2026-05-17T11:00:00.000Z", "type": "user", "content": text}


def call(name: str, output: str, **args: Any) -> Json:
    response = {"functionResponse": {"id": "c", "name": name, "response": {"output": output}}}
    return {"id": "c", "name": name, "args": args, "result": [response], "status": "success", "resultDisplay": "secret"}


MESSAGES = [
    user([{"text": "look"}]),
    message("a", "2026-05-17T11:01:00.000Z", input=11000, total=11920)
    | {"content": "so", "thoughts": [{"subject": "x", "description": "hmm"}]}
    | {"toolCalls": [call("run_shell_command", "größe", command="cd /x && git diff secret")]},
    message("b", "2026-05-17T11:02:00.000Z", input=12000, total=12920) | {"content": "done"},
    {"id": "i", "type": "info", "content": "secret"},
    user("on"),
    message("c", "2026-05-17T11:03:00.000Z", input=13000, total=13920) | {"content": "yes"},
]


def contexts(root: pathlib.Path, log: pathlib.Path) -> list[Json]:
    sync.run(str(log), list(readers.with_files(["gemini"], [], {}, str(root))))
    events = [json.loads(line) for line in store.scan(str(log), context=True)]
    assert b"secret" not in b"".join(file.read_bytes() for file in log.rglob("*") if file.is_file())
    assert [event["turn"] for event in events if event["kind"] == "context"] == [
        event["id"] for event in events if event["kind"] == "turn"
    ]
    return [event for event in events if event["kind"] == "context"]


def check(found: list[Json]) -> None:
    size = len('{"command":"cd /x && git diff secret"}')
    assert found[0]["produced"] == {"call run_shell_command|git diff": size, "reply": 2, "thinking": 4}
    assert found[1]["entered"] == {"result run_shell_command|git diff": 5}
    assert found[2]["entered"] == {"prompt": 2} and found[2]["produced"] == {"reply": 3}
    assert [event.get("parent") for event in found] == [None, found[0]["turn"], found[1]["turn"]]


def test_a_document(tmp_path: pathlib.Path) -> None:
    put(chat(tmp_path), document(*MESSAGES))
    check(contexts(tmp_path, tmp_path / "log"))


@pytest.mark.parametrize("cut", range(1, 9))
def test_lines_in_which_a_message_comes_again_in_any_two_pieces(cut: int, tmp_path: pathlib.Path) -> None:
    early = [{**MESSAGES[1], "tokens": None, "toolCalls": []}, {**MESSAGES[1], "toolCalls": []}]
    every = [head("s2"), MESSAGES[0], *early, *MESSAGES[1:]]
    path = chat(tmp_path, "session-2.jsonl")
    put(path, lines(every[:cut]))
    sync.run(str(tmp_path / "log"), list(readers.with_files(["gemini"], [], {}, str(tmp_path))))
    put(path, lines(every))
    check(contexts(tmp_path, tmp_path / "log"))


def test_a_subagent_is_a_chain_of_its_own(tmp_path: pathlib.Path) -> None:
    put(chat(tmp_path, "s1/agent-1.jsonl"), lines([head("agent-1") | {"kind": "subagent"}, *MESSAGES]))
    found = contexts(tmp_path, tmp_path / "log")
    check(found)
    assert {event["chain"] for event in found} == {"agent-1"} and all(event["sidechain"] for event in found)
