"""Mistral Vibe: journals in segments, whose results have no time and no model of their own."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, objects, put
from tokenops import events, read_lines, read_vibe
from tokenops.read_contract import Intake

SESSION, CHILD = "6850ae96-67b4-321a-a2cf-eb3a690e43ae", "7777ae96-67b4-321a-a2cf-eb3a690e43ae"
BEGAN = 1795993766904  # 2026-11-29T23:09:26.904Z


def record(kind: str, payload: Json, number: int = 5) -> Json:
    envelope = {"recovery_journal_record_version": 1, "sequence": number, "type": kind}
    return envelope | {"record_sha256": "0" * 64, "payload": payload}


def result(action: str, sent: int = 21020, read: int = 20013, got: int = 202, **more: Any) -> Json:
    used = {"input_tokens": sent, "cached_input_tokens": read, "output_tokens": got, "total_tokens": sent + got, **more}
    answer = {"finish_reason": "tool_call", "parts": [{"type": "text", "text": "secret"}], "usage": used}
    inner = {"action_id": action, "type": "completion_succeeded", "result": answer}
    return record("action_result", {"action_id": action, "state": "succeeded", "result": inner})


def sent(at: int | None, echo: Json | None = None) -> Json:
    """An input, which may repeat a result."""
    clock = {"determinism": {"time_unix_ms": BEGAN + at}} if at is not None else {}
    return record("core_input", {"input": {**clock, "event": echo or {"type": "user", "text": "secret"}}})


def tool(action: str) -> Json:
    inner = {"action_id": action, "type": "tool_succeeded", "result": {"content": "secret"}}
    return record("action_result", {"action_id": action, "state": "succeeded", "result": inner})


def folder(home: pathlib.Path, session: str = SESSION) -> pathlib.Path:
    return home / ".vibe/logs/session/unified" / session


def meta(home: pathlib.Path, session: str = SESSION, **more: Any) -> None:
    kept: Json = {"session_id": session, "parent_session_id": None, "start_time": "2026-11-29T23:09:26.904000+00:00"}
    kept |= {"git_branch": "trunk", "environment": {"working_directory": "/home/ada/orchard"}, "child_sessions": []}
    kept |= {"config": {"active_model": "large", "model_name": "mistral-large-2512"}, "title": "secret"}
    put(folder(home, session) / "meta.json", json.dumps(kept | more, indent=1).encode())


def segment(home: pathlib.Path, *records: Json | bytes, session: str = SESSION, first: int = 1) -> pathlib.Path:
    return put(folder(home, session) / f"journal/{first:016d}.jsonl", *records)


def sums(home: pathlib.Path, number: int, sent: int, read: int, got: int, at: int, session: str = SESSION) -> pathlib.Path:
    """What a session used up to a time, as one of the two newest generations has it."""
    used = {"cachedInputTokens": read, "inputTokens": sent, "outputTokens": got, "totalTokens": sent + got}
    kept = {"id": session, "createdAt": BEGAN, "updatedAt": BEGAN + at, "preview": "secret", "tokenUsage": used}
    value = {
        "projection_state_version": 1,
        "session_id": session,
        "snapshot": {"session": kept},
        "snapshot_sequence": number,
    }
    return put(folder(home, session) / f"generations/{number:016d}/projection-state.json", json.dumps(value).encode())


def counted(*events_: Json) -> list[tuple[int, ...]]:
    names = ("input_tokens", "cache_read_tokens", "output_tokens")
    return [tuple(event.get(name, 0) for name in names) for event in events_]


def used(run: Run, command: str) -> tuple[int, ...]:
    """What a rollup has of all that a command gives."""
    rows = objects(run("tok-rollup --by client", run(command).stdout).stdout)
    [row] = counted(*rows)
    return row


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session that grows by lines and by a segment, and a subagent. One of their requests was removed before."""
    meta(home, child_sessions=[CHILD])
    sums(home, 43, 21020 + 21040 + 500, 20013 + 20026 + 400, 202 + 204 + 5, 4000)
    first = result("a1")
    said = [sent(100), first, sent(900, first["payload"]["result"])]
    segment(home, *said)
    yield
    said += [tool("t1"), sent(1000), result("a2", 21040, 20026, 204)]
    segment(home, *said)
    meta(home, CHILD, parent_session_id=SESSION)
    segment(home, sent(950), result("a1", 900, 0, 9), session=CHILD)
    yield
    segment(home, sent(5000), result("a3", 21060, 20039, 206), first=44)
    yield


def read(path: pathlib.Path) -> tuple[list[events.Event], list[str]]:
    rejected: list[str] = []
    found = read_vibe.read(str(path), read_lines.Cursor(), Intake(on_bad_line=lambda place, why: rejected.append(why)))
    return list(found), rejected


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ((21020, 20013, 202), (1007, 20013, 202)),
        ((21020, 0, 202), (21020, 0, 202)),
        ((7, 20013, 202), (7, 20013, 202)),  # less than what is said to be inside it
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_counts(usage: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    names = ("input_tokens", "cached_input_tokens", "output_tokens")
    found = read_vibe.counts_of(dict(zip(names, usage, strict=True)))
    assert tuple(found.get(name, 0) for name in ("input_tokens", "cache_read_tokens", "output_tokens")) == wanted


@pytest.mark.parametrize("usage", [{"input_tokens": "9"}, {"output_tokens": -9}, {"total_tokens": 9}])
def test_what_is_no_count(usage: Json) -> None:
    with pytest.raises(events.BadRecord):
        read_vibe.counts_of(usage)


@pytest.fixture
def home(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"])


def test_sums_of_a_session_without_turns_are_its_total(home: pathlib.Path, run: Run) -> None:
    meta(home)
    sums(home, 97, 69000, 27000, 1900, 50_000)
    sums(home, 105, 69266, 27596, 1962, 70_000)
    segment(home, tool("t1"), first=98)
    run("tok-sync")
    for command in ("tok-read vibe", "tok-cat"):
        [total] = objects(run(command).stdout)
        assert (total["kind"], total["covers"], total["ts"]) == ("usage", "session", "2026-11-29T23:09:26.904Z")
        assert (total["model"], total["branch"], total["project"]) == ("mistral-large-2512", "trunk", "orchard")
        assert counted(total) == [(41670, 27596, 1962)]
    assert b"secret" not in run("tok-cat").stdout


def test_what_sums_hold_beyond_the_turns_is_a_remainder(home: pathlib.Path, run: Run) -> None:
    """Turns after the sums are in none of them."""
    meta(home)
    sums(home, 43, 500 + 300, 400 + 100, 5 + 7, 4000)
    segment(home, sent(3000), result("a2", 300, 100, 7))
    segment(home, sent(5000), result("a3", 900, 0, 9), first=44)
    run("tok-sync")
    for command in ("tok-read vibe", "tok-cat"):
        [rest] = [event for event in objects(run(command).stdout) if event["kind"] == "usage"]
        assert (rest["covers"], rest["ts"], rest["total_tokens"]) == ("remainder", "2026-11-29T23:09:30.904Z", 812)
        assert counted(rest) == [(100, 400, 5)]
        assert used(run, command) == (300 - 100 + 900 + 100, 500, 21)


def test_sums_that_the_turns_make_up_add_nothing(home: pathlib.Path, run: Run) -> None:
    meta(home)
    segment(home, sent(100), result("a1", 300, 100, 7))
    sums(home, 5, 300, 100, 7, 4000)
    run("tok-sync")
    for command in ("tok-read vibe", "tok-cat"):
        assert [event["kind"] for event in objects(run(command).stdout)] == ["turn"]


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("read_after", [set(), {0}, {1}, {0, 2}, {1, 2}, {0, 1, 2, 3}])
def test_turns_count_once_whenever_vibe_removes_them(
    read_after: set[int], forgets: bool, home: pathlib.Path, run: Run, environment: dict[str, str]
) -> None:
    """Each prompt begins a segment, and only the two newest are kept, as are the sums."""
    meta(home)
    whole = [0, 0, 0]
    for number in range(5):
        counts = (1000 + number, 100 * number, 10 + number)
        segment(home, sent(number * 9000 + 100), result(f"a{number}", *counts), first=number * 10 + 1)
        whole = [before + count for before, count in zip(whole, counts, strict=True)]
        sums(home, number * 10 + 10, whole[0], whole[1], whole[2], number * 9000 + 4000)
        for kind in ("journal", "generations"):
            for old in sorted((folder(home) / kind).iterdir())[:-2]:
                old.unlink() if old.is_file() else shutil.rmtree(old)
        if number in read_after:
            run("tok-sync")
            if forgets:  # the cursors are gone, so all is read again
                (pathlib.Path(environment["TOKENOPS_HOME"]) / "cursors.json").unlink()
    run("tok-sync")
    right = (whole[0] - whole[1], whole[1], whole[2])
    assert used(run, "tok-cat") == used(run, "tok-read vibe") == right
    run("tok-sync --backfill")
    assert used(run, "tok-cat") == right


def test_a_session_that_was_a_total_and_goes_on_counts_once(home: pathlib.Path, run: Run) -> None:
    meta(home)
    segment(home, tool("t1"), first=88)
    sums(home, 97, 800, 500, 12, 4000)
    run("tok-sync")
    assert used(run, "tok-cat") == (300, 500, 12)
    segment(home, sent(9000), result("a9", 90, 0, 3), first=98)
    run("tok-sync")
    assert used(run, "tok-cat") == used(run, "tok-read vibe") == (390, 500, 15)
    meta(home, config={"model_name": "mistral-medium-2508"})
    sums(home, 120, 895, 500, 16, 12_000)
    run("tok-sync")
    assert used(run, "tok-cat") == (395, 500, 16)


def test_turns_that_come_after_their_sums_make_the_remainder_less(home: pathlib.Path, run: Run) -> None:
    """A segment that could not be read at first."""
    meta(home)
    sums(home, 43, 500 + 300, 400 + 100, 5 + 7, 4000)
    segment(home, sent(3500), result("a3", 500, 400, 5), first=30)
    run("tok-sync")
    segment(home, sent(3000), result("a2", 300, 100, 7))
    run("tok-sync")
    assert used(run, "tok-cat") == used(run, "tok-read vibe") == (300, 500, 12)


@pytest.mark.parametrize("amount", ["secret", -4, 1.5])
def test_bad_sums_are_named_and_lose_no_turn(amount: Any, home: pathlib.Path, run: Run) -> None:
    meta(home)
    segment(home, sent(100), result("a1"))
    path = sums(home, 5, amount, 0, 7, 4000) if amount != "secret" else put(
        folder(home) / "generations/0000000000000005/projection-state.json",
        b'{"projection_state_version": 1, "snapshot": {"session": {"tokenUsage": {"inputTokens": "secret"}}}}',
    )  # fmt: skip
    done = run("tok-read vibe", status=1)
    assert len(objects(done.stdout)) == 1
    assert f"{path}: inputTokens is".encode() in done.stderr and b"secret" not in done.stderr


def test_sums_that_are_not_known_yet_are_nothing(home: pathlib.Path, run: Run) -> None:
    meta(home)
    segment(home, tool("t1"))
    put(
        folder(home) / "generations/0000000000000005/projection-state.json",
        b'{"projection_state_version": 1, "snapshot": {"session": {"tokenUsage": null}}}',
    )
    assert not objects(run("tok-read vibe").stdout)


def test_requests_count_once(run: Run, environment: dict[str, str]) -> None:
    """A result stands in its own line and in the input that follows."""
    home = pathlib.Path(environment["HOME"])
    for _ in steps(home):
        run("tok-sync")
    turns = objects(run("tok-cat --kind turn").stdout)
    whole = objects(run("tok-read vibe").stdout)
    rows = [(turn["session_id"][:4], turn["ts"][17:], turn["output_tokens"], turn.get("sidechain")) for turn in turns]
    assert rows == [
        ("6850", "27.004Z", 202, None),
        ("7777", "27.854Z", 9, True),
        ("6850", "27.904Z", 204, None),
        ("6850", "31.904Z", 206, None),
    ]
    assert {(turn["project"], turn["branch"], turn["model"]) for turn in turns} == {
        ("orchard", "trunk", "mistral-large-2512")
    }
    assert {(turn["provider"], turn["provider_inferred"]) for turn in turns} == {("mistral", True)}
    assert turns == [event for event in whole if event["kind"] == "turn"]
    assert b"secret" not in run("tok-cat").stdout


@pytest.mark.parametrize(
    ("about", "input_at", "began"),
    [
        ({}, 100, "2026-11-29T23:09:27.004Z"),
        ({}, None, "2026-11-29T23:09:26.904Z"),
        ({"start_time": "soon"}, None, "2026-03-20T00:00:00.000Z"),
    ],
)
def test_when(about: Json, input_at: int | None, began: str, tmp_path: pathlib.Path) -> None:
    meta(tmp_path, **about)
    path = segment(tmp_path, sent(input_at), result("a1"))
    os.utime(path, (1773964800, 1773964800))
    [turn], _ = read(path)
    assert turn["ts"] == began


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"active_model": "large", "model_name": "mistral-large-2512"}, "mistral-large-2512"),
        ({"active_model": "devstral-2"}, "devstral-2"),
        ({"model_name": {"id": 3}}, "unknown"),
        (None, "unknown"),
    ],
)
def test_models(config: Any, model: str, tmp_path: pathlib.Path) -> None:
    meta(tmp_path, config=config)
    [turn], _ = read(segment(tmp_path, result("a1")))
    assert turn["model"] == model


@pytest.mark.parametrize(
    ("children", "marked"), [([CHILD], True), ([{"session_id": CHILD}], True), ([], False), (None, False), ("x", False)]
)
def test_only_a_session_that_its_parent_lists_is_a_side_chain(children: Any, marked: bool, tmp_path: pathlib.Path) -> None:
    """A session may name a parent for another reason."""
    meta(tmp_path, child_sessions=children)
    meta(tmp_path, CHILD, parent_session_id=SESSION)
    [turn], _ = read(segment(tmp_path, result("a1"), session=CHILD))
    assert turn.get("sidechain", False) == marked


def test_a_session_without_meta_is_named_by_its_folder(tmp_path: pathlib.Path) -> None:
    [turn], _ = read(segment(tmp_path, sent(100), result("a1")))
    assert (turn["session_id"], turn["model"], "project" in turn) == (SESSION, "unknown", False)


def test_bad_lines_leave_the_others(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    meta(home)
    path = segment(home, result("a1"), result("a2", output_tokens="secret"), b'{"type": "action_result", \n', result("a3"))
    done = run("tok-read vibe", status=1)
    assert len(objects(done.stdout)) == 2
    assert f"{path}:2: output_tokens is a string; expected a count; skipped".encode() in done.stderr
    assert f"{path}:3: not JSON".encode() in done.stderr and b"secret" not in done.stderr


def test_older_sessions_are_named(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    segment(home, result("a1"))
    put(home / ".vibe/logs/session/session_20261010_080000_abc/meta.json", b"{}")
    assert b"1 sessions of Mistral Vibe before version 3 are not read" in run("tok-read vibe").stderr


@pytest.mark.parametrize("below", [".vibe", ".vibe/logs/session", f".vibe/logs/session/unified/{SESSION}"])
def test_the_place_can_be_named(below: str, run: Run, tmp_path: pathlib.Path) -> None:
    segment(tmp_path / "away", result("a1"))
    assert objects(run("tok-read vibe", env={"VIBE_HOME": str(tmp_path / "away" / below)}).stdout)
