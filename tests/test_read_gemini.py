"""Gemini CLI: chats as documents and as lines."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, lines, objects, put
from tokenops import events, read_gemini

PROJECT = "/home/ada/orchard"
FOLDER = hashlib.sha256(PROJECT.encode()).hexdigest()


def message(identity: str = "m1", ts: str = "2026-05-17T11:07:32.000Z", **tokens: int) -> Json:
    given = {"input": 15000, "output": 20, "cached": 11000, "thoughts": 900, "tool": 0, "total": 15920} | tokens
    return {"id": identity, "timestamp": ts, "type": "gemini", "model": "gemini-3-flash-preview", "tokens": given}


def head(session: str = "s1") -> Json:
    start = "2026-05-17T11:00:00.000Z"
    return {"sessionId": session, "projectHash": FOLDER, "startTime": start, "lastUpdated": start, "kind": "main"}


def chat(home: pathlib.Path, name: str = "session-1.json") -> pathlib.Path:
    return home / ".gemini/tmp" / FOLDER / "chats" / name


def document(*messages: Json, session: str = "s1") -> bytes:
    return json.dumps(
        {**head(session), "messages": [{"id": "u", "type": "user", "content": "x"}, *messages]}, indent=2
    ).encode()


def steps(home: pathlib.Path) -> Iterator[None]:
    """One session as a document that is rewritten, another as lines, with a message that comes again."""
    put(chat(home), document(message("a")))
    put(home / ".gemini/trustedFolders.json", {PROJECT: "TRUST_FOLDER"})
    yield
    put(chat(home), document(message("a"), message("b", "2026-05-17T11:08:00.000Z", input=15001, total=15921)))
    yield
    path = chat(home, "session-2.jsonl")
    put(path, head("s2"))
    yield
    with path.open("ab") as file:
        file.write(lines([{"id": "u", "type": "user", "content": "x"}, message("c", output=3, total=15903)]))
        file.flush()
        yield
        file.write(
            lines(
                [{"$set": {"lastUpdated": "2026-05-17T12:00:00.000Z"}}, message("c"), message("d", thoughts=1, total=15021)]
            )
        )
    yield


COUNTS = ("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")


@pytest.mark.parametrize(
    ("tokens", "counts"),
    [
        # The total says that the cached part is inside the input.
        (
            {"input": 15000, "output": 20, "cached": 11000, "thoughts": 900, "tool": 0, "total": 15920},
            (4000, 11000, 920, 900),
        ),
        # The total says that it stands beside it.
        (
            {"input": 4000, "output": 20, "cached": 11000, "thoughts": 900, "tool": 0, "total": 15920},
            (4000, 11000, 920, 900),
        ),
        # No total: inside, as the API counts.
        ({"input": 120, "cached": 20, "output": 30, "thoughts": 5}, (100, 20, 35, 5)),
        # More cached than input cannot be inside.
        ({"input": 5, "cached": 20, "output": 30}, (5, 20, 30, 0)),
        # Prompts of tool use are billed as input.
        ({"input": 100, "output": 10, "tool": 7, "total": 117}, (107, 0, 10, 0)),
        ({"input": None, "output": 10.0}, (0, 0, 10, 0)),
    ],
)
def test_counts(tokens: Any, counts: tuple[int, ...]) -> None:
    found = read_gemini.counts_of(tokens)
    assert tuple(found.get(name, 0) for name in COUNTS) == counts
    if "total" in tokens:
        assert sum(counts[:3]) == tokens["total"]


@pytest.mark.parametrize("tokens", [{"input": -1}, {"output": "12"}, {"cached": 1.5}, {"total": 900}, {"input": 1 << 60}])
def test_what_is_no_count(tokens: Any) -> None:
    with pytest.raises(events.BadRecord):
        read_gemini.counts_of(tokens)


def test_a_session_in_both_formats_counts_once(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(chat(home), document(message("a"), message("b")))
    put(chat(home, "session-1.jsonl"), head(), message("a", output=1, total=15901), message("a"))
    found = objects(run("tok-read gemini").stdout)
    assert [event["id"] for event in found] == ["gemini:s1:a", "gemini:s1:b"]
    assert {event["output_tokens"] for event in found} == {920}


def test_zero_counts_are_no_turn(run: Run, environment: dict[str, str]) -> None:
    nothing = message("z", input=0, output=0, cached=0, thoughts=0, total=0)
    put(chat(pathlib.Path(environment["HOME"])), document(nothing, message("a")))
    assert len(objects(run("tok-read gemini").stdout)) == 1


def test_the_project_is_found_by_its_hash(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(chat(home), document(message("a")))
    assert objects(run("tok-read gemini").stdout)[0]["project"] == FOLDER[:12]
    put(home / ".gemini/projects.json", {"projects": {PROJECT: "orchard"}})
    assert objects(run("tok-read gemini").stdout)[0]["agent_id"] == "gemini-cli:orchard"


def test_the_project_is_found_by_its_mark(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / ".gemini/tmp/slug/chats/session-1.json", document(message("a")))
    put(home / ".gemini/tmp/slug/.project_root", b"/home/ada/lighthouse\n")
    assert objects(run("tok-read gemini").stdout)[0]["project"] == "lighthouse"


def test_a_log_of_prompts_is_said_to_hold_no_counts(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(
        home / ".gemini/tmp" / FOLDER / "logs.json",
        b'[{"sessionId":"s1","messageId":0,"type":"user","message":"secret words"}]',
    )
    done = run("tok-read gemini", status=None)
    assert not done.stdout
    assert "logs.json: this log of prompts holds no token counts" in done.stderr.decode()
    assert "secret" not in done.stderr.decode()
    put(chat(home), document(message("a")))
    assert not run("tok-read gemini").stderr


@pytest.mark.parametrize(
    ("variable", "below"), [("GEMINI_CLI_HOME", ""), ("GEMINI_CLI_HOME", ".gemini"), ("GEMINI_DATA_DIR", ".gemini")]
)
def test_the_place_can_be_named(variable: str, below: str, run: Run, tmp_path: pathlib.Path) -> None:
    put(chat(tmp_path / "away"), document(message("a")))
    assert objects(run("tok-read gemini", env={variable: str(tmp_path / "away" / below)}).stdout)


def test_a_subagents_chat_lies_in_a_folder_of_its_parents_session(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(chat(home), document(message("a")))
    below = chat(home).parent / "s1"
    put(below / "own.jsonl", {**head("own"), "kind": "subagent"}, message("b"))
    put(below / "older.json", document(message("c"), session="older"))
    put(chat(home, "session-flat.jsonl"), {**head("flat"), "kind": "subagent"}, message("d"))
    turns = {
        turn["id"]: (turn["session_id"], turn.get("sidechain", False)) for turn in objects(run("tok-read gemini").stdout)
    }
    assert turns == {
        "gemini:s1:a": ("s1", False),
        "gemini:own:b": ("s1", True),
        "gemini:older:c": ("s1", True),
        "gemini:flat:d": ("flat", True),
    }
    run("tok-sync")
    put(below / "own.jsonl", {**head("own"), "kind": "subagent"}, message("b"), message("e"))
    run("tok-sync")
    logged = {turn["id"]: turn.get("sidechain", False) for turn in objects(run("tok-cat").stdout) if turn["kind"] == "turn"}
    assert logged == {name: side for name, (_, side) in turns.items()} | {"gemini:own:e": True}
