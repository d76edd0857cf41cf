"""Grok Build: a line per prompt, with sums by model; forks, subagents, and sessions that keep only their sums."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, objects, put
from tokenops import events, read_grok, read_lines
from tokenops.read_contract import Intake

SESSION, FORK, CHILD = "01a2298b-5366-77d1-8899-c7c85075b7bd", "01a2298b-ffff-77d1-8899-000000000001", "child-1"
CWD = "%2Fhome%2Fada%2Forchard"
BEGAN = 1795993326000  # 2026-11-29T23:02:06Z


def counts(sent: int = 42460, got: int = 446, read: int = 40299, wrote: int = 0, calls: int = 2, **more: Any) -> Json:
    found = {"inputTokens": sent, "outputTokens": got, "totalTokens": sent + got, "cachedReadTokens": read}
    return found | {"cacheCreationTokens": wrote, "reasoningTokens": 103, "modelCalls": calls, "apiDurationMs": 27} | more


def usage(*models: str, **more: Any) -> Json:
    """Of several models, each with as much."""
    one = counts()
    whole = {name: count * len(models or "1") for name, count in one.items()}
    return whole | {"modelUsage": dict.fromkeys(models or ("grok-4.6",), one), "numTurns": 2} | more


def completed(name: str, at: int, used: Json | None, session: str = SESSION, took: Any = 256) -> Json:
    update = {"sessionUpdate": "turn_completed", "prompt_id": name, "stop_reason": "end_turn", "elapsed_ms": took}
    update |= {"usage": used} if used is not None else {}
    meta = {"eventId": f"{session}-21", "agentTimestampMs": BEGAN + at}
    params = {"sessionId": session, "update": update, "_meta": meta}
    return {"timestamp": (BEGAN + at) // 1000, "method": "_x.ai/session/update", "params": params}


def chunk(text: str, session: str = SESSION) -> Json:
    update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    return {"timestamp": BEGAN // 1000, "method": "session/update", "params": {"sessionId": session, "update": update}}


def folder(home: pathlib.Path, session: str = SESSION) -> pathlib.Path:
    return home / ".grok/sessions" / CWD / session


def summary(home: pathlib.Path, session: str = SESSION, kind: str = "headless", **more: Any) -> None:
    kept: Json = {"info": {"id": session, "cwd": "/home/ada/orchard"}, "created_at": "2026-11-29T23:02:06.441699608Z"}
    kept |= {"current_model_id": "grok-4.6", "session_kind": kind, "generated_title": "secret", "head_branch": "trunk"}
    put(folder(home, session) / "summary.json", json.dumps(kept | more, indent=1).encode())


def updates(home: pathlib.Path, *said: Json, session: str = SESSION) -> pathlib.Path:
    return put(folder(home, session) / "updates.jsonl", *said)


def sums(home: pathlib.Path, *turns: Json, session: str = "older") -> pathlib.Path:
    return put(folder(home, session) / "usage.json", json.dumps({"sessionId": session, "turns": list(turns)}).encode())


def turn(number: int, at: str, **more: Any) -> Json:
    return {"turnNumber": number, "endedAt": at, "primaryModelId": "grok-4.6", **usage(**more)}


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session that grows, a fork of it, a subagent, and a session that keeps only its sums."""
    summary(home)
    said = [chunk('secret "turn_completed"'), completed("p1", 841, usage())]
    updates(home, *said)
    yield
    said += [chunk("secret"), completed("p2", 1887, usage("grok-4.6", "grok-4.6-mini"))]
    updates(home, *said)
    summary(home, CHILD, "subagent", parent_session_id=SESSION)
    updates(home, completed("c1", 1500, usage(), CHILD), session=CHILD)
    sums(home, turn(1, "2026-11-29T23:02:06.841072866+00:00"))
    yield
    summary(home, FORK, "fork", parent_session_id=SESSION, created_at="2026-11-29T23:03:00Z")
    updates(home, *said, completed("p3", 70_000, usage(), FORK), session=FORK)
    sums(
        home,
        turn(1, "2026-11-29T23:02:06.841072866+00:00"),
        turn(2, "2026-11-29T23:02:09.841072866+00:00"),
    )
    yield


def read(path: pathlib.Path) -> tuple[list[events.Event], list[str]]:
    rejected: list[str] = []
    found = read_grok.read(str(path), read_lines.Cursor(), Intake(on_bad_line=lambda place, why: rejected.append(why)))
    return list(found), rejected


COUNTS = ("turns", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (counts(), (2, 2161, 40299, 0, 446, 103)),
        (counts(wrote=161), (2, 2000, 40299, 161, 446, 103)),
        (counts(read=0), (2, 42460, 0, 0, 446, 103)),
        (counts(sent=61, read=40299), (2, 61, 40299, 0, 446, 103)),
        (counts(got=3), (2, 2161, 40299, 0, 3, 3)),
        ({}, (0, 0, 0, 0, 0, 0)),
    ],
)
def test_counts(row: Json, wanted: tuple[int, ...]) -> None:
    found = read_grok.counts_of(row)
    assert tuple(found.get(name, 0) for name in COUNTS) == wanted


def test_prompts_forks_and_subagents(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    for _ in steps(home):
        run("tok-sync")
    found = objects(run("tok-read grok").stdout)
    rows = [(event["session_id"], event["ts"][17:], event["model"], event["turns"]) for event in found]
    assert sorted(rows) == [
        (SESSION, "06.585Z", "grok-4.6", 2),
        (SESSION, "07.631Z", "grok-4.6", 2),
        (SESSION, "07.631Z", "grok-4.6-mini", 2),
        (FORK, "15.744Z", "grok-4.6", 2),
        ("older", "06.841Z", "grok-4.6", 2),
        ("older", "09.841Z", "grok-4.6", 2),
    ]
    assert {(event["kind"], event["covers"], event["client"]) for event in found} == {("usage", "session", "grok-build")}
    assert {(event["project"], event["provider"]) for event in found} == {("orchard", "xai")}
    whole = objects(run("tok-cat | tok-rollup --by client").stdout)
    assert [(row["model"], row["turns"], row["output_tokens"]) for row in whole] == [
        ("grok-4.6", 10, 5 * 446),
        ("grok-4.6-mini", 2, 446),
    ]
    assert b"secret" not in run("tok-cat").stdout


def test_a_stream_and_the_files_of_one_session_count_once(run: Run, environment: dict[str, str]) -> None:
    """The stream has each request, the files have the prompt's total: the requests count."""
    home = pathlib.Path(environment["HOME"])
    summary(home)
    updates(home, completed("p1", 841, usage()))
    tools = ["run_terminal_command", "spawn_subagent", "search_replace"]
    about = {"model": "grok-4.6", "cwd": "/home/ada/orchard", "tools": tools}
    said = {"id": "msg_1", "role": "assistant", "model": "grok-4.6", "stop_reason": "end_turn", "content": []}
    said["usage"] = {"input_tokens": 2161, "output_tokens": 446, "cache_read_input_tokens": 40299}
    stream = [
        {"type": "system", "subtype": "init", "session_id": SESSION, **about},
        {"type": "assistant", "session_id": SESSION, "message": said},
    ]
    put(home / "stream.jsonl", *stream)
    run("tok-sync")
    run(f"tok-read - < {home}/stream.jsonl | tok-log append")
    assert [row["output_tokens"] for row in objects(run("tok-cat | tok-rollup --by session").stdout)] == [446]


@pytest.mark.parametrize(
    ("used", "rows"),
    [
        (usage("a", "b"), [("a", 446), ("b", 446)]),
        # No row for a part of it, or for nothing: the session's model.
        (usage("a") | {"outputTokens": 500}, [("a", 446), ("grok-4.6", 54)]),
        (counts(), [("grok-4.6", 446)]),
        (counts(primaryModelId="grok-4"), [("grok-4", 446)]),
        (counts(modelUsage={"a": None, "b": 7}), [("grok-4.6", 446)]),
        (usage("a") | {"modelUsage": {"a": counts(0, 0, 0, calls=1)}}, [("grok-4.6", 446)]),
        ({"inputTokens": 0, "outputTokens": 0}, []),
    ],
)
def test_models(used: Json, rows: list[tuple[str, int]], tmp_path: pathlib.Path) -> None:
    summary(tmp_path)
    found, rejected = read(updates(tmp_path, completed("p1", 1, used)))
    assert [(event["model"], event["output_tokens"]) for event in found] == rows and not rejected


@pytest.mark.parametrize(("model", "provider"), [("grok-4.6", "xai"), ("claude-x", None), ("fake-1", None)])
def test_only_xai_bills_its_own_models(model: str, provider: str | None, tmp_path: pathlib.Path) -> None:
    [found], _ = read(updates(tmp_path, completed("p1", 1, usage(model))))
    assert found.get("provider") == provider


@pytest.mark.parametrize(
    ("more", "cost", "partial"),
    [
        ({"costUsdTicks": 318319000}, ("0.0318319", "reported"), False),
        ({"costUsdTicks": 318319000, "costIsPartial": True}, (None, None), False),
        ({"costUsdTicks": 0}, (None, None), False),
        ({"costUsdTicks": "9"}, (None, None), False),
        ({"costUsdTicks": 318319000, "usageIsIncomplete": True}, ("0.0318319", "reported"), True),
    ],
)
def test_costs_and_flags(more: Json, cost: tuple[Any, Any], partial: bool, tmp_path: pathlib.Path) -> None:
    [found], _ = read(updates(tmp_path, completed("p1", 1, counts(**more))))
    assert (found.get("cost_usd"), found.get("cost_source")) == cost
    assert found.get("usage") == ("partial" if partial else None)


@pytest.mark.parametrize(
    ("took", "began"),
    [(256, "06.585Z"), (0, "06.841Z"), (None, "06.841Z"), (-5, "06.841Z"), ("256", "06.841Z"), (10**14, "06.841Z")],
)
def test_when_a_prompt_began(took: Any, began: str, tmp_path: pathlib.Path) -> None:
    [found], rejected = read(updates(tmp_path, completed("p1", 841, usage(), took=took)))
    assert (found["ts"][17:], found["observed_at"][17:]) == (began, "06.841Z") and not rejected


def test_a_prompt_without_a_name_or_a_time_of_its_own(tmp_path: pathlib.Path) -> None:
    said = completed("", 841, usage())
    del said["params"]["_meta"]
    [found], _ = read(updates(tmp_path, said))
    assert found["id"] == f"usage:grok-build:{SESSION}:2026-11-29T23:02:06.000Z:grok-4.6"
    del said["timestamp"]
    found, rejected = read(updates(tmp_path, said))
    assert not found and rejected == ["timestamp is null; expected a time; skipped"]


def test_sums_beside_updates_are_not_read(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    updates(home, completed("p1", 841, usage()))
    sums(home, turn(1, "2026-11-29T23:02:06.841Z"), session=SESSION)
    assert len(objects(run("tok-read grok").stdout)) == 1


def test_without_a_summary_the_folder_names_the_project(tmp_path: pathlib.Path) -> None:
    [found], _ = read(updates(tmp_path, completed("p1", 841, usage())))
    assert (found["project"], found["session_id"]) == ("orchard", SESSION)


def test_bad_lines_leave_the_others(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    bad = completed("p2", 900, usage() | {"outputTokens": "secret"})
    path = updates(home, completed("p1", 841, usage()), bad, b'{"params": {"update": "turn_completed"\n')
    sums(home, {"turnNumber": 1, "endedAt": "secret", **usage()}, turn(2, "2026-11-29T23:02:09Z"))
    done = run("tok-read grok", status=1)
    assert len(objects(done.stdout)) == 2
    assert f"{path}:2: outputTokens is a string; expected a count; skipped".encode() in done.stderr
    assert b"usage.json:turns[0]: endedAt is a string; expected a time; skipped" in done.stderr
    assert b"secret" not in done.stderr


@pytest.mark.parametrize("below", [".grok", ".grok/sessions"])
def test_the_place_can_be_named(below: str, run: Run, tmp_path: pathlib.Path) -> None:
    updates(tmp_path / "away", completed("p1", 841, usage()))
    assert objects(run("tok-read grok", env={"GROK_HOME": str(tmp_path / "away" / below)}).stdout)


def test_what_a_prompt_used_beyond_its_models_counts_beside_their_rows(run: Run, environment: dict[str, str]) -> None:
    """The rest is the first model's, which has a row of its own."""
    used = usage(inputTokens=42960, outputTokens=450, primaryModelId="grok-4.6")
    updates(pathlib.Path(environment["HOME"]), completed("p1", 0, used))
    rows = objects(run("tok-read grok").stdout)
    assert len({row["id"] for row in rows}) == 2
    assert {row["model"] for row in rows} == {"grok-4.6"}
    assert (
        sum(row["input_tokens"] + row["cache_read_tokens"] for row in [{"cache_read_tokens": 0} | row for row in rows])
        == 42960
    )
    assert sum(row["output_tokens"] for row in rows) == 450
