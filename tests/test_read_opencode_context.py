"""What entered the context of each turn in opencode's and Kilo's databases, as sizes."""

from __future__ import annotations

import base64
import json
import pathlib
import sqlite3
from typing import Any

import pytest
from test_read_opencode import CHILD, ORIGINAL, TOKENS, V1, answer, message, opened, session

from conftest import Json
from tokenops import readers, store, sync

STORES = [("opencode", ".local/share/opencode/opencode.db"), ("kilo", ".local/share/kilo/kilo.db")]


class Talk:
    """A session, message by message."""

    def __init__(self, connection: sqlite3.Connection, of: str = ORIGINAL) -> None:
        self.connection, self.of, self.at = connection, of, 0

    def part(self, data: Json) -> None:
        self.at += 1
        row = (f"prt_{self.of}_{self.at:04d}", self.name, self.of, self.at, self.at, json.dumps(data))
        self.connection.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)", row)

    def begin(self, data: Json) -> None:
        self.at += 1000
        self.name = f"msg_{self.of}_{self.at:06d}"
        message(self.connection, self.name, data, self.of, self.at)

    def asks(self, *parts: Json) -> None:
        self.begin({"role": "user", "time": {"created": self.at}})
        for part in parts:
            self.part(part)

    def answers(self, *parts: Json, **more: Any) -> None:
        self.begin(answer(self.at, tokens=TOKENS | {"input": 900 + self.at}, **more))
        for part in ({"type": "step-start"}, *parts, {"type": "step-finish", "tokens": TOKENS}):
            self.part(part)


def text(words: str, **more: Any) -> Json:
    return {"type": "text", "text": words, **more}


def tool(name: str, output: str, **given: Any) -> Json:
    return {"type": "tool", "tool": name, "callID": "c", "state": {"status": "completed", "input": given, "output": output}}


def contexts(root: pathlib.Path, log: str, client: str) -> list[Json]:
    sync.run(log, list(readers.with_files([client], [], {}, str(root))))
    events = [json.loads(line) for line in store.scan(log, context=True)]
    turns = {event["id"]: event for event in events if event["kind"] == "turn"}
    found = [event for event in events if event["kind"] == "context"]
    assert {event["turn"] for event in found} == turns.keys() and turns
    return sorted(found, key=lambda event: (event["session_id"] != ORIGINAL, event["ts"]))


def brief(event: Json) -> Json:
    return {key: event[key] for key in ("chain", "event", "entered", "produced") if key in event}


@pytest.mark.parametrize(("client", "place"), STORES)
def test_what_each_turn_was_given_and_wrote(client: str, place: str, tmp_path: pathlib.Path) -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (300).to_bytes(4, "big") + (250).to_bytes(4, "big")
    image = {"type": "file", "mime": "image/png", "url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}
    path, log = tmp_path / place, str(tmp_path / "log")
    with opened(path, V1) as connection:
        session(connection)
        session(connection, CHILD, parent=ORIGINAL)
        talk = Talk(connection)
        talk.asks(text("look at it"))
        talk.answers(
            text("so"), {"type": "reasoning", "text": "hmm"}, tool("bash", "größe", command="cd /x && npm test secret")
        )
        talk.answers(tool("read", "12345678", filePath="/x"))
        talk.asks(text("and"), text("the file's text", synthetic=True), image)
        talk.answers(text("done"))
    first, second, third = contexts(tmp_path, log, client)
    call = len('{"command":"cd /x && npm test secret"}')
    assert brief(first) == {"produced": {"call bash|npm test": call, "reply": 2, "thinking": 3}}
    assert brief(second) == {"entered": {"result bash|npm test": 5}, "produced": {"call read": 17}}
    assert brief(third) == {
        "entered": {"attachment": 15, "image": 300, "prompt": 3, "result read": 8},
        "produced": {"reply": 4},
    }
    assert [event.get("parent") for event in (first, second, third)] == [None, first["turn"], second["turn"]]
    with opened(path) as connection:  # what is new later names what was read before
        talk.connection = connection
        talk.answers(text("summed up"), summary=True)
        talk.asks(text("on"))
        talk.answers(text("yes"))
        child = Talk(connection, CHILD)
        child.at = 50_000
        child.asks(text("go"))
        child.answers(text("ok"))
    found = contexts(tmp_path, log, client)
    assert brief(found[4]) == {"event": "compaction", "entered": {"prompt": 2, "summary": 9}, "produced": {"reply": 3}}
    assert found[4]["parent"] == found[3]["turn"] and found[3]["parent"] == third["turn"]
    assert brief(found[5]) == {"chain": CHILD, "produced": {"reply": 2}}
    whole = str(tmp_path / "whole")
    assert [brief(event) for event in contexts(tmp_path, whole, client)] == [brief(event) for event in found]
    stored = b"".join(file.read_bytes() for file in pathlib.Path(log).rglob("*") if file.is_file())
    assert b"secret" not in stored and b"summed up" not in stored and b"look at" not in stored
