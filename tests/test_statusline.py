"""The status line: what Claude Code tells it is recorded once, and one line is printed whatever happens."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
from typing import Any

from conftest import Json, Run, claude, objects, put

NOW = "2026-11-21T09:30:00.000Z"
ENV = {"TOKENOPS_NOW": NOW}


def given(five: float | None = 23.5, session: str = "s1", **more: Any) -> bytes:
    """What Claude Code writes to its status line."""
    said: Json = {
        "session_id": session,
        "model": {"id": "claude-opus-4-8", "display_name": "Opus 4.8"},
        "workspace": {"project_dir": "/home/ada/orchard"},
        "cost": {"total_cost_usd": 1.234},
        "context_window": {"used_percentage": 42},
        **more,
    }
    if five is not None:
        said["rate_limits"] = {"five_hour": {"used_percentage": five, "resets_at": 1_795_262_400}}
    return json.dumps(said).encode()


def meters(run: Run) -> list[Json]:
    return objects(run("tok-cat --kind meter").stdout)


def test_the_line(run: Run) -> None:
    assert run("tok-statusline", given(), env=ENV).stdout.decode() == (
        "Opus 4.8 | $1.23 session | $0.00 today | five hour 76% left, resets in 2h30m | continue\n"
    )
    [meter] = meters(run)
    assert (meter["source"], meter["window"], meter["used"], meter["provider"]) == (
        "claude-code-statusline",
        "five_hour",
        0.235,
        "anthropic",
    )
    [budget] = objects(run("tok-budget --json", env=ENV).stdout)
    assert (budget["headroom_pct"], budget["signal_quality"]["source"]) == (76, "statusline")


def test_a_repeated_number_is_not_fresh(run: Run) -> None:
    run("tok-statusline", given(), env=ENV)
    run("tok-statusline", given(), env={"TOKENOPS_NOW": "2026-11-21T10:30:00Z"})
    run("tok-statusline", given(30, "s2"), env={"TOKENOPS_NOW": "2026-11-21T10:31:00Z"})
    run("tok-statusline", given(), env={"TOKENOPS_NOW": "2026-11-21T10:40:00Z"})
    assert [(meter["used"], meter["observed_at"][11:16]) for meter in meters(run)] == [(0.235, "09:30"), (0.3, "10:31")]
    # An idle session shows what the busy one knows.
    assert "70% left" in run("tok-statusline", given(), env={"TOKENOPS_NOW": "2026-11-21T10:41:00Z"}).stdout.decode()


def test_asking_again_and_again_changes_nothing(run: Run) -> None:
    """One session's line, drawn as often as one works: one reading, one cost, one headroom."""
    lines = set()
    for _ in range(int(os.environ.get("TOKENOPS_CALLS", "20"))):
        lines.add(run("tok-statusline", given(), env=ENV).stdout)
    assert len(lines) == 1 and len(meters(run)) == 1
    [budget] = objects(run("tok-budget --json", env=ENV).stdout)
    assert budget["headroom_pct"] == 76


def test_before_the_first_answer_nothing_is_known(run: Run) -> None:
    shown = run("tok-statusline", given(None), env=ENV).stdout.decode()
    assert "limits unknown left" in shown and "0%" not in shown
    assert meters(run) == []


def test_a_template(run: Run) -> None:
    shown = run("tok-statusline --format '{project}: {context} of context, {action}'", given(85), env=ENV)
    assert shown.stdout == b"orchard: 42% of context, slow down\n"
    done = run("tok-statusline --format '{nothing}'", given(), env=ENV, status=2)
    assert "{nothing} is not a field; choose from model, session" in done.stderr.decode()


def test_the_users_own_line_stays(run: Run) -> None:
    own = "wc -c; echo second"
    assert run(f"tok-statusline --wrap '{own}'", given(), env=ENV).stdout.split() == [str(len(given())).encode(), b"second"]
    assert len(meters(run)) == 1
    assert run("tok-statusline --wrap 'echo mine' --format '{action}'", given(), env=ENV).stdout == b"mine\ncontinue\n"
    assert run("tok-statusline --wrap 'exit 3'", given(padding="x" * 300_000), env=ENV).stdout == b""


def test_a_wrapped_command_without_an_end_is_stopped(run: Run) -> None:
    """With its children, one of which keeps the pipe open; our own line stands in."""
    own = "echo mine; sleep 1000 & wait"
    done = run(f"tok-statusline --wrap '{own}' --no-record", given(), env=ENV)
    assert done.stdout.count(b"\n") == 1 and b"session" in done.stdout and b"did not end within 5 s" in done.stderr
    assert len(meters(run)) == 0


def test_it_takes_in_its_own_transcript(run: Run, environment: dict[str, str]) -> None:
    path = put(pathlib.Path(environment["HOME"]) / ".claude/projects/-a/s1.jsonl", claude("msg_1", 1000, NOW))
    put(pathlib.Path(environment["HOME"]) / ".claude/projects/-a/s2.jsonl", claude("msg_2", 1000, NOW))
    line = run(
        "tok-statusline", given(transcript_path=str(path)), env={"TOKENOPS_NOW": "2026-11-21T09:31:00Z"}
    ).stdout.decode()
    assert "$0.03 today" in line, line
    assert [event["id"] for event in objects(run("tok-cat --kind turn").stdout)] == ["msg_1"]
    assert len(objects(run("tok-sync; tok-cat --kind turn").stdout.partition(b"\n")[2] or b"")) >= 1
    assert {event["id"] for event in objects(run("tok-cat --kind turn").stdout)} == {"msg_1", "msg_2"}


def test_what_is_no_json(run: Run) -> None:
    for data in (b"", b"nonsense", b"[1]"):
        assert b"not a JSON object" in run("tok-statusline", data, status=2).stderr
    for odd in ({}, {"rate_limits": 7, "model": [], "cost": "x", "session_id": None}):
        assert run("tok-statusline", json.dumps(odd).encode(), env=ENV).stdout.endswith(b"continue\n")


def test_a_log_that_cannot_be_written_still_gives_a_line(run: Run, environment: dict[str, str]) -> None:
    put(pathlib.Path(environment["TOKENOPS_HOME"]), b"in the way")
    done = run("tok-statusline", given(), env=ENV)
    assert b"76% left" in done.stdout and b"nothing is recorded" in done.stderr


def test_sessions_at_once_forget_nothing_of_one_another(run: Run) -> None:
    """Each of twenty sessions says its number once, at the same time; none is recorded again when it repeats it."""
    sessions = [given(20 + n, f"s{n}") for n in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda said: run("tok-statusline", said, env=ENV), sessions))
    assert sorted(meter["used"] for meter in meters(run)) == [round((20 + n) / 100, 2) for n in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        later = {"TOKENOPS_NOW": "2026-11-21T10:00:00Z"}
        list(pool.map(lambda said: run("tok-statusline", said, env=later), sessions))
    assert {meter["observed_at"][11:16] for meter in meters(run)} == {"09:30"}


def test_twenty_at_once(run: Run) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        shown = list(pool.map(lambda n: run("tok-statusline", given(50, f"s{n}"), env=ENV).stdout, range(20)))
    assert all(b"50% left" in line for line in shown)
    assert {(meter["used"], meter["window"]) for meter in meters(run)} == {(0.5, "five_hour")}
