"""Droid: one settings file per session, whose counts grow."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, lines, objects, put
from tokenops import events, joins, read_droid, read_lines
from tokenops.read_contract import Intake

SESSION = "550e8400-e29b-41d4-a716-446655440000"
FOLDER = "-home-ada-orchard"


def settings(locked: str | None = "2026-03-16T09:30:00.000Z", **usage: Any) -> bytes:
    given = {
        "inputTokens": 1048,
        "outputTokens": 11,
        "cacheCreationTokens": 0,
        "cacheReadTokens": 10752,
        "thinkingTokens": 0,
    }
    made: Json = {"model": "claude-opus-4-6", "autonomyMode": "medium", "providerLock": "anthropic"}
    made |= {"tokenUsage": given | {"factoryCredits": 8713} | usage}
    return json.dumps(made | ({"providerLockTimestamp": locked} if locked else {}), indent=2).encode()


def talk(cwd: str | None = "/home/ada/orchard", ts: str | None = "2026-03-16T09:29:58.000Z") -> bytes:
    start: Json = {"type": "session_start", "id": SESSION, "title": "secret", **({"cwd": cwd} if cwd else {})}
    said = {"role": "user", "content": [{"type": "text", "text": "secret words"}]}
    return lines([start, {"type": "message", "id": "u1", **({"timestamp": ts} if ts else {}), "message": said}])


def place(home: pathlib.Path, name: str = SESSION) -> pathlib.Path:
    return home / ".factory/sessions" / FOLDER / f"{name}.settings.json"


def at(path: pathlib.Path, changed: int) -> pathlib.Path:
    os.utime(path, (changed, changed))
    return path


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session that grows and changes its model, and a subagent."""
    put(place(home).with_name(f"{SESSION}.jsonl"), talk())
    at(put(place(home), settings()), 1773653500)
    yield
    at(put(place(home), settings(outputTokens=500).replace(b"opus-4-6", b"sonnet-4-6")), 1773740000)
    yield
    child = json.loads(settings("2026-03-16T09:31:00.000Z")) | {
        "tags": [{"name": "exec"}, {"name": "subagent", "metadata": {"callingSessionId": SESSION}}]
    }
    at(put(place(home, "child"), child), 1773653600)
    yield


def read(path: pathlib.Path) -> tuple[list[events.Event], list[str]]:
    rejected: list[str] = []
    found = read_droid.read(str(path), read_lines.Cursor(), Intake(on_bad_line=lambda place, why: rejected.append(why)))
    return list(found), rejected


COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("custom:Model-A-0", "gpt-5.4"),
        ("custom:Model-A-1", "gpt-5.4-mini"),
        ("custom:claude-opus-4-8-2", "claude-opus-4-8"),
        ("custom:Model-A-3", "model-a-3"),  # it is no longer in the list
        ("gpt-5.5", "gpt-5.5"),
    ],
)
def test_a_users_own_model_is_looked_up_in_the_list_of_such_models(tmp_path: pathlib.Path, name: str, model: str) -> None:
    """Two models may have the same name on screen: their place in the list tells them apart (Droid 0.225.2)."""
    shown = (("gpt-5.4", "Model A"), ("gpt-5.4-mini", "Model A"), ("claude-opus-4-8", "claude-opus-4-8"))
    listed = [{"model": model, "displayName": display, "apiKey": "sk-x"} for model, display in shown]
    put(tmp_path / ".factory/settings.json", {"customModels": listed})
    path = put(place(tmp_path), settings().replace(b"claude-opus-4-6", name.encode()))
    [event], rejected = read(path)
    assert event["model"] == model and not rejected and "sk-x" not in json.dumps(event)


def test_a_list_of_own_models_that_is_broken_leaves_the_name(tmp_path: pathlib.Path) -> None:
    put(tmp_path / ".factory/settings.json", b'{"customModels": ["x", {"model": 7}')
    [event], rejected = read(put(place(tmp_path), settings().replace(b"claude-opus-4-6", b"custom:Model-A-0")))
    assert event["model"] == "model-a-0" and not rejected


@pytest.mark.parametrize(
    ("usage", "counts", "unsure"),
    [
        # Numbers of a live session of OpenAI's model: the client's own log said that 11800 were sent.
        ({"inputTokens": 1048, "outputTokens": 11, "cacheReadTokens": 10752}, (1048, 10752, 0, 11, 0), False),
        ({"inputTokens": 5, "outputTokens": 80, "cacheCreationTokens": 40, "thinkingTokens": 30}, (5, 0, 40, 80, 30), False),
        # More thinking than output cannot be inside.
        ({"inputTokens": 5, "outputTokens": 8, "thinkingTokens": 30}, (5, 0, 0, 38, 30), False),
        # The total decides.
        ({"inputTokens": 5, "outputTokens": 80, "thinkingTokens": 30, "totalTokens": 115}, (5, 0, 0, 110, 30), False),
        ({"inputTokens": 5, "outputTokens": 80, "thinkingTokens": 30, "totalTokens": 85}, (5, 0, 0, 80, 30), False),
        ({"inputTokens": 100, "outputTokens": 20, "cacheReadTokens": 40, "totalTokens": 120}, (60, 40, 0, 20, 0), False),
        ({"inputTokens": 100, "outputTokens": 20, "cacheReadTokens": 40, "totalTokens": 160}, (100, 40, 0, 20, 0), False),
        ({"inputTokens": 100, "outputTokens": 20, "cacheReadTokens": 40, "thinkingTokens": 9, "totalTokens": 129},
         (60, 40, 0, 29, 9), False),
        ({"inputTokens": 30, "outputTokens": 20, "cacheReadTokens": 40, "totalTokens": 50}, (30, 40, 0, 20, 0), True),
        ({"inputTokens": 100, "outputTokens": 20, "totalTokens": 999}, (100, 0, 0, 20, 0), True),
        ({"inputTokens": 0, "outputTokens": 0, "factoryCredits": 3}, (0, 0, 0, 0, 0), False),
    ],
)  # fmt: skip
def test_counts(usage: Json, counts: tuple[int, ...], unsure: bool) -> None:
    found = read_droid.counts_of(usage)
    assert tuple(found.get(name, 0) for name in COUNTS) == counts
    assert bool(read_droid.unsure(usage, found)) == unsure
    if "totalTokens" in usage and not unsure:
        assert events.token_sum(found) == usage["totalTokens"]


@pytest.mark.parametrize(
    "usage", [{"totalTokens": 9}, {"inputTokens": "9"}, {"outputTokens": -9}, {"thinkingTokens": 1e300}]
)
def test_what_is_no_count(usage: Json) -> None:
    with pytest.raises(events.BadRecord):
        read_droid.counts_of(usage)


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ("claude-opus-4-6", "claude-opus-4-6"),
        ("custom:gpt-6-astra-[gw]-0", "gpt-6-astra"),
        ("custom:gpt-5.4-fast-[gw]-17", "gpt-5.4-fast"),
        ("custom:qwen3:30b-[Ollama]-0", "qwen3:30b"),
        ("custom:Claude Opus 4.5 [Anthropic]", "claude-opus-4.5"),
        ("custom:claude-opus-4.5[1m]", "claude-opus-4.5"),
        ("custom:Union-Alpha-Free-0", "union-alpha-free-0"),
        (None, ""),
        ({"id": 3}, ""),
    ],
)
def test_models(given: Any, model: str) -> None:
    assert read_droid.model_of(given) == model


@pytest.mark.parametrize(
    ("said", "model"),
    [
        ("<system-reminder>\nModel: gpt-5.1-codex\nMore", "gpt-5.1-codex"),
        ("Model: secret-thing and then Model: claude-opus-4-6", "claude-opus-4-6"),
        ("Model: secret", "unknown"),
        ("no word of it", "unknown"),
    ],
)
def test_a_model_that_only_the_transcript_names(said: str, model: str, tmp_path: pathlib.Path) -> None:
    """Only names of families that are known: a prompt may say "Model:" too."""
    path = put(place(tmp_path), settings().replace(b'"claude-opus-4-6"', b'""'))
    put(path.with_name(f"{SESSION}.jsonl"), talk(), {"type": "message", "message": {"content": said}})
    [total], _ = read(path)
    assert total["model"] == model


def test_a_session_is_one_total_that_grows(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    for _ in steps(home):
        run("tok-sync")
    found = {event["session_id"]: event for event in objects(run("tok-read droid").stdout)}
    assert set(found) == {SESSION, "child"}
    total = found[SESSION]
    assert (total["kind"], total["covers"], total["id"]) == ("usage", "session", f"usage:droid:{SESSION}")
    assert (total["ts"], total["observed_at"]) == ("2026-03-16T09:29:58.000Z", "2026-03-17T09:33:20.000Z")
    assert (total["model"], total["provider"], total["provider_inferred"]) == ("claude-sonnet-4-6", "anthropic", True)
    assert (total["project"], total["output_tokens"], "cost_usd" in total) == ("orchard", 500, False)
    assert found["child"]["sidechain"] and found["child"]["project"] == FOLDER
    rows = objects(run("tok-cat | tok-rollup --by session").stdout)
    assert sorted(row["output_tokens"] for row in rows) == [11, 500]


@pytest.mark.parametrize(
    ("locked", "transcript", "ts", "caveat"),
    [
        ("2026-03-16T09:30:00Z", talk(), "2026-03-16T09:29:58.000Z", False),
        # A provider that is locked later does not move the session.
        ("2026-03-18T00:00:00Z", talk(), "2026-03-16T09:29:58.000Z", False),
        ("2026-03-16T09:30:00Z", None, "2026-03-16T09:30:00.000Z", False),
        ("soon", talk(), "2026-03-16T09:29:58.000Z", False),
        (None, talk(ts="2026-03-16T10:29:58+01:00"), "2026-03-16T09:29:58.000Z", False),
        (None, talk(ts=None), "2026-03-20T00:00:00.000Z", True),
        (None, b"\xff\xfe no JSON", "2026-03-20T00:00:00.000Z", True),
        (None, None, "2026-03-20T00:00:00.000Z", True),
    ],
)
def test_when(locked: str | None, transcript: bytes | None, ts: str, caveat: bool, tmp_path: pathlib.Path) -> None:
    path = at(put(place(tmp_path), settings(locked)), 1773964800)
    if transcript is not None:
        put(path.with_name(f"{SESSION}.jsonl"), transcript)
    [total], _ = read(path)
    assert (total["ts"], total["observed_at"]) == (ts, "2026-03-20T00:00:00.000Z")
    assert total.get("caveat") == (
        "the session's start is not recorded: dated by the last change of its file" if caveat else None
    )


SUM = {"inputTokens": 900, "outputTokens": 90}


@pytest.mark.parametrize(
    ("more", "sent", "why"),
    [
        ({"inclusiveTokenUsage": SUM, "childInclusiveTokenUsageBySessionId": {"c": SUM}}, 1048, ""),
        ({"tokenUsage": None, "inclusiveTokenUsage": SUM}, 900, ""),
        (
            {"tokenUsage": None, "inclusiveTokenUsage": SUM, "childInclusiveTokenUsageBySessionId": {"c": SUM}},
            0,
            "subagents",
        ),
        ({"tokenUsage": None}, 0, ""),
        ({"tokenUsage": [3]}, 0, ""),
    ],
)
def test_the_sum_with_subagents_is_not_the_sessions(more: Json, sent: int, why: str, tmp_path: pathlib.Path) -> None:
    path = put(place(tmp_path), json.loads(settings()) | more)
    if why:
        with pytest.raises(events.BadRecord, match=why):
            read(path)
    else:
        assert sum(event["input_tokens"] for event in read(path)[0]) == sent


def test_one_bad_file_leaves_the_others(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(place(home, "a"), settings(inputTokens="secret"))
    put(place(home, "b"), b'{"model":')
    put(place(home, "c"), settings())
    done = run("tok-read droid", status=1)
    assert [event["session_id"] for event in objects(done.stdout)] == ["c"]
    assert b"a.settings.json: inputTokens is a string; expected a count" in done.stderr
    assert b"b.settings.json: not JSON" in done.stderr and b"secret" not in done.stderr


@pytest.mark.parametrize(("variable", "below"), [("DROID_SESSIONS_DIR", ".factory/sessions"), ("FACTORY_HOME_OVERRIDE", "")])
def test_the_place_can_be_named(variable: str, below: str, run: Run, tmp_path: pathlib.Path) -> None:
    put(place(tmp_path / "away"), settings())
    assert objects(run("tok-read droid", env={variable: str(tmp_path / "away" / below)}).stdout)


def test_of_two_copies_the_larger_counts_whatever_their_files_times() -> None:
    """A backup that was copied today is older than the session's own file."""
    own = {"v": 1, "ts": "2026-03-16T09:00:00.000Z", "kind": "usage", "id": "usage:droid:s1", "covers": "session"}
    own |= {"observed_at": "2026-03-16T10:00:00.000Z", "input_tokens": 90}
    backup = own | {"observed_at": "2026-11-29T10:00:00.000Z", "input_tokens": 40}
    assert joins.join(own, backup)["input_tokens"] == joins.join(backup, own)["input_tokens"] == 90
