"""Kilo: a database of opencode's kind, and the tasks before it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from test_read_opencode import BEGUN, V1, answer, message, opened, session

from conftest import Json, Run, objects, put
from tokenops import events, joins, read_clients, read_kilo, read_lines, readers
from tokenops.read_contract import Intake, Options

T4118, T4119 = 1_762_000_000_000, 1_763_000_000_000  # before and after the input began to hold the cache
EXTENSION = ".config/Code/User/globalStorage/kilocode.kilo-code"
SENT = """secret words
<environment_details>
# Current Workspace Directory (/home/ada/orchard) Files
src/secret.py

# Current Mode
<slug>code</slug>
<model>anthropic/claude-sonnet-4.5</model>
</environment_details>"""


def request(ts: object = T4119, text: object = None, **given: Any) -> Json:
    """A request as a task keeps it."""
    said = {
        "apiProtocol": "openai",
        "tokensIn": 8200,
        "tokensOut": 120,
        "cacheWrites": 300,
        "cacheReads": 7000,
        "cost": 0.02,
    }
    known = {key: value for key, value in (said | given).items() if value is not ...}
    return {"ts": ts, "type": "say", "say": "api_req_started", "text": json.dumps(known) if text is None else text}


def sent(ts: int = T4119 + 5, text: str = SENT) -> Json:
    """A prompt as a task keeps it, with what the client adds to it."""
    return {"role": "user", "ts": ts, "content": [{"type": "text", "text": "secret"}, {"type": "text", "text": text}]}


def task(home: pathlib.Path, *messages: Json, name: str = "0199a-1", prompts: list[Json] | None = None) -> pathlib.Path:
    folder = home / EXTENSION / "tasks" / name
    put(folder / "api_conversation_history.json", json.dumps([sent()] if prompts is None else prompts).encode())
    words = {"ts": T4119 - 1, "type": "say", "say": "text", "text": "secret words"}
    return put(folder / "ui_messages.json", json.dumps([words, *messages]).encode())


def steps(home: pathlib.Path) -> Iterator[None]:
    """A task that goes on, and then the database."""
    task(home, request(), request(T4119 + 60_000, "{}"))
    yield
    task(home, request(), request(T4119 + 60_000, tokensOut=7), request(T4119 + 90_000, tokensIn=..., tokensOut=...))
    put(home / ".kilocode/cli/global/tasks/0199b-2/ui_messages.json", json.dumps([request(T4118)]).encode())
    yield
    path = home / ".local/share/kilo/kilo.db"
    with opened(path, V1) as connection:
        session(connection)
        message(connection, "msg_1", answer(providerID="kilo", modelID="anthropic/claude-sonnet-4.5"))
        message(connection, "msg_2", answer(1000, time=BEGUN, finish=...), at=1000)
    yield
    with opened(path) as connection:
        message(connection, "msg_2", answer(1000), at=9000)
    yield


COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


@pytest.mark.parametrize(
    ("ts", "given", "counts"),
    [
        (T4119, {}, (900, 7000, 300, 120)),
        (T4119, {"apiProtocol": "anthropic"}, (900, 7000, 300, 120)),
        # Before, where Anthropic's protocol was spoken, what came from the cache stood beside the input.
        (T4118, {"apiProtocol": "anthropic"}, (8200, 7000, 300, 120)),
        (T4118, {}, (900, 7000, 300, 120)),
        (T4118, {"apiProtocol": ...}, (900, 7000, 300, 120)),
        # More from the cache than was sent cannot be part of it.
        (T4118, {"apiProtocol": ..., "tokensIn": 4}, (4, 7000, 300, 120)),
        (T4119, {"tokensIn": 7299}, (7299, 7000, 300, 120)),
        (T4119, {"cacheReads": ..., "cacheWrites": None}, (8200, 0, 0, 120)),
        (T4119, dict.fromkeys(("tokensIn", "tokensOut", "cacheReads", "cacheWrites"), 0), (0, 0, 0, 0)),
    ],
)
def test_counts(ts: int, given: Json, counts: tuple[int, ...], tmp_path: pathlib.Path) -> None:
    found = events_of(task(tmp_path, request(ts, **given)))
    assert [tuple(event.get(name, 0) for name in COUNTS) for event in found] == [counts] * (counts != (0, 0, 0, 0))


def events_of(path: pathlib.Path, told: list[tuple[str, str]] | None = None) -> list[Json]:
    def reject(place: str, why: str) -> None:
        assert told is not None, (place, why)
        told.append((place, why))

    return list(read_kilo.read(str(path), read_lines.Cursor(), Intake(Options(b"salt"), reject)))


def test_a_task(tmp_path: pathlib.Path) -> None:
    [event] = events_of(task(tmp_path, request()))
    assert event["ts"] == "2025-11-13T02:13:20.000Z"
    assert (event["session_id"], event["agent_id"]) == ("0199a-1", "kilo:orchard")
    assert (event["model"], event["provider"]) == ("anthropic/claude-sonnet-4.5", "anthropic")
    assert (event["cost_usd"], event["cost_source"]) == ("0.02", "client")
    assert "secret" not in json.dumps(event)


@pytest.mark.parametrize("text", ["{}", "", '{"request":"secret words"}', '{"apiProtocol":"anthropic"}'])
def test_a_request_without_an_answer_is_no_turn(text: str, tmp_path: pathlib.Path) -> None:
    told: list[tuple[str, str]] = []
    assert not events_of(task(tmp_path, request(text=text)), told)
    assert [why for _, why in told] == ["not JSON; skipped"] * (not text)


def test_a_copied_task_counts_once_and_an_answer_may_grow(tmp_path: pathlib.Path) -> None:
    cut = events_of(task(tmp_path, request(tokensOut=7, cost=0.01)))
    whole = events_of(task(tmp_path, request(), name="0199a-2"))
    other = events_of(task(tmp_path, request(T4119 + 1), name="0199a-3"))
    assert cut[0]["id"] == whole[0]["id"] != other[0]["id"]
    assert joins.join(cut[0], whole[0])["output_tokens"] == 120


@pytest.mark.parametrize("reason", ["user_cancelled", "streaming_failed"])
def test_a_stopped_request_is_partial_until_its_counts_are_complete(reason: str, tmp_path: pathlib.Path) -> None:
    """The extension goes on reading a stopped answer, and drops the reason when it has the counts."""
    [cut] = events_of(task(tmp_path, request(tokensOut=7, cancelReason=reason)))
    [whole] = events_of(task(tmp_path, request()))
    assert (cut["usage"], cut["usage_reason"]) == ("partial", "the answer was interrupted")
    joined = joins.join(cut, whole)
    assert "usage" not in joined and "usage_reason" not in joined and joined["output_tokens"] == 120


def test_each_request_has_the_model_that_is_named_after_it_began(tmp_path: pathlib.Path) -> None:
    prompts = [sent(T4119 + 5), sent(T4119 + 1005, "<model>gpt-5.4</model> <model>gpt-5.4-mini</model>")]
    prompts.append({"role": "assistant", "ts": T4119 + 1010, "content": "<model>no-model</model>"})
    path = task(tmp_path, *(request(T4119 + at) for at in (0, 1000, 2000)), prompts=prompts)
    assert [event["model"] for event in events_of(path)] == ["anthropic/claude-sonnet-4.5", "gpt-5.4-mini", "gpt-5.4-mini"]


@pytest.mark.parametrize("prompts", [b"", b"{}", b"[1, {}]", b'[{"role":"user","content":7}]', None])
def test_a_task_without_its_prompts(prompts: bytes | None, tmp_path: pathlib.Path) -> None:
    path = task(tmp_path, request())
    beside = path.with_name("api_conversation_history.json")
    beside.write_bytes(prompts) if prompts is not None else beside.unlink()
    [event] = events_of(path)
    assert event["model"] == "unknown" and "project" not in event


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (request(tokensIn="many"), "tokensIn is a string; expected a count; skipped"),
        (request(cost=-1, tokensOut=-1), "tokensOut is a negative number; expected a count; skipped"),
        (request("secret"), "ts is a string; expected a time; skipped"),
        (request(text='{"tokensIn":1,'), "not JSON; skipped"),
    ],
)
def test_a_bad_request_is_told_and_skipped(bad: Json, why: str, tmp_path: pathlib.Path) -> None:
    told: list[tuple[str, str]] = []
    path = task(tmp_path, bad, request(T4119 + 1))
    assert len(events_of(path, told)) == 1
    assert told == [(f"{path}:[1]", why)]


@pytest.mark.parametrize("data", [b"", b"{}", b"[{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_task(data: bytes, tmp_path: pathlib.Path) -> None:
    with pytest.raises(events.BadRecord, match="skipped"):
        events_of(put(tmp_path / "ui_messages.json", data))


@pytest.mark.parametrize(
    ("environment_", "below"),
    [
        ({}, ".local/share/kilo"),
        ({"XDG_DATA_HOME": "xdg"}, "../xdg/kilo"),
        ({"KILO_DATA_DIR": "away"}, "../away"),
    ],
)
def test_where_it_is(
    environment_: dict[str, str], below: str, environment: dict[str, str], run: Run, tmp_path: pathlib.Path
) -> None:
    with opened(pathlib.Path(environment["HOME"]) / below / "kilo.db", V1) as connection:
        message(connection, "msg_1", answer())
    env = {name: str(tmp_path / value) for name, value in environment_.items()}
    [event] = objects(run("tok-read kilo", env=env).stdout)
    assert (event["source"], event["client"], event["ts"][:10]) == ("kilo", "kilo", "2026-04-24")
    assert event["id"].startswith("kilo:") and event["model"] == "claude-sonnet-4-6"


@pytest.mark.parametrize(
    "place",
    [
        ".config/Code/User/globalStorage/kilocode.kilo-code",
        ".config/Code - Insiders/User/globalStorage/kilocode.kilo-code",
        ".config/Cursor/User/globalStorage/kilocode.kilo-code",
        "Library/Application Support/VSCodium/User/globalStorage/kilocode.kilo-code",
        ".vscode-server/data/User/globalStorage/kilocode.kilo-code",
        ".kilocode/cli/global",
    ],
)
def test_where_tasks_are(place: str, environment: dict[str, str], run: Run) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / place / "tasks/0199a-1/ui_messages.json", json.dumps([request()]).encode())
    put(home / place / "tasks/0199a-1/task_metadata.json", {"files": []})
    assert len(objects(run("tok-read kilo").stdout)) == 1
    assert len(objects(run(f"tok-read kilo --root '{home / place}'").stdout)) == 1


def test_a_folder_of_another_client_is_not_taken(tmp_path: pathlib.Path) -> None:
    put(tmp_path / "tasks/list.json", b"[]")
    assert not readers.directories_below(read_clients.BY_NAME["kilo"], str(tmp_path))
