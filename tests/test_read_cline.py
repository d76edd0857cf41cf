"""Cline: documents of messages that grow, beside a manifest; subagents, forks, and messages that get new names."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, objects, put
from tokenops import events, read_cline, read_lines
from tokenops.read_contract import Intake

SESSION = "1795993238886_h01n2"
AGENT = "agent_1795993239334_hv18as"
BEGAN = 1795993239000  # 2026-11-29T23:00:39Z


def user(ts: int | None) -> Json:
    return {"id": f"u{ts}", "role": "user", "content": "secret words", **({"ts": BEGAN + ts} if ts is not None else {})}


def answer(ts: int | None, sent: int = 21100, got: int = 210, read: int = 20065, wrote: int = 0, **more: Any) -> Json:
    said: Json = {"id": f"msg_{ts}", "role": "assistant", "content": [{"type": "text", "text": "secret"}]}
    said |= {"modelInfo": {"id": "claude-sonnet-4-6", "provider": "anthropic"}}
    said |= {"metrics": {"inputTokens": sent, "outputTokens": got, "cacheReadTokens": read, "cacheWriteTokens": wrote}}
    return said | ({"ts": BEGAN + ts} if ts is not None else {}) | more


def folder(home: pathlib.Path, session: str = SESSION) -> pathlib.Path:
    return home / ".cline/data/sessions" / session


def manifest(home: pathlib.Path, session: str = SESSION, **metadata: Any) -> pathlib.Path:
    kept: Json = {"version": 1, "session_id": session, "provider": "anthropic", "model": "claude-opus-4-6"}
    kept |= {"cwd": "/home/ada/orchard", "metadata": {"git": {"branch": "trunk"}, "title": "secret", **metadata}}
    return put(folder(home, session) / f"{session}.json", json.dumps(kept, indent=1).encode())


def messages(home: pathlib.Path, *said: Json, session: str = SESSION, stem: str = "", **more: Any) -> pathlib.Path:
    document = {"version": 1, "agent": "lead", "sessionId": session, **more, "messages": list(said)}
    return put(folder(home, session) / f"{stem or session}.messages.json", json.dumps(document, indent=1).encode())


def subagent(home: pathlib.Path, *said: Json, stem: str = AGENT, **more: Any) -> pathlib.Path:
    about = {"agent": "subagent", "sessionId": f"{SESSION}__{stem}", "origin": {"parentThreadId": SESSION}}
    document = {"version": 1, **about, **more, "messages": list(said)}
    return put(folder(home) / f"{stem}.messages.json", json.dumps(document).encode())


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session that grows, a subagent, and a fork whose messages got new names."""
    manifest(home)
    said = [user(100), answer(300)]
    messages(home, *said)
    yield
    subagent(home, user(320), answer(400, 21120, 212, 20078))
    said += [user(500), answer(600, 21160, 216, 20104, 30)]
    messages(home, *said)
    yield
    manifest(home, "fork_1", fork={"forkedFromSessionId": SESSION, "forkedAt": "2026-11-29T23:00:50.000Z"})
    copied = [{**message, "id": f"new_{number}"} for number, message in enumerate(said)]
    messages(home, *copied, user(20000), answer(21000, 900, 9, 0), session="fork_1")
    yield


def read(path: pathlib.Path) -> tuple[list[events.Event], list[str]]:
    rejected: list[str] = []
    found = read_cline.read(str(path), read_lines.Cursor(), Intake(on_bad_line=lambda place, why: rejected.append(why)))
    return list(found), rejected


COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


@pytest.mark.parametrize(
    ("metrics", "counts"),
    [
        # As a vendor on loopback counted it: 1035 new and 20065 cached tokens.
        ((21100, 210, 20065, 0), (1035, 20065, 0, 210, 0)),
        ((21100, 210, 20065, 800), (235, 20065, 800, 210, 0)),
        ((21100, 210, 0, 0), (21100, 0, 0, 210, 0)),
        # Less than what is said to be inside it: then that stands beside it.
        ((35, 210, 20065, 0), (35, 20065, 0, 210, 0)),
        ((0, 0, 0, 0), (0, 0, 0, 0, 0)),
    ],
)
def test_counts(metrics: tuple[int, ...], counts: tuple[int, ...]) -> None:
    names = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens")
    found = read_cline.counts_of(dict(zip(names, metrics, strict=True)))
    assert tuple(found.get(name, 0) for name in COUNTS) == counts


def test_reasoning_is_inside_the_output() -> None:
    found = read_cline.counts_of({"inputTokens": 5, "outputTokens": 80, "reasoningTokenCount": 30})
    assert (found["output_tokens"], found["reasoning_tokens"]) == (80, 30)


@pytest.mark.parametrize("name", ["inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"])
@pytest.mark.parametrize("value", ["9", -9, 1.5, True, [9]])
def test_what_is_no_count(name: str, value: Any) -> None:
    with pytest.raises(events.BadRecord, match=f"^{name} is "):
        read_cline.counts_of({"inputTokens": 5, name: value})


def test_a_session_its_subagent_and_its_fork(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    for _ in steps(home):
        run("tok-sync")
    turns = objects(run("tok-cat --kind turn").stdout)
    rows = [(turn["session_id"], turn.get("subagent"), turn.get("sidechain"), turn["output_tokens"]) for turn in turns]
    assert rows == [
        (SESSION, None, None, 210),
        (SESSION, "subagent", True, 212),
        (SESSION, None, None, 216),
        ("fork_1", None, None, 9),
    ]
    assert [turn["ts"][17:] for turn in turns] == ["39.100Z", "39.320Z", "39.500Z", "59.000Z"]
    assert {(turn["project"], turn["branch"], turn["provider"]) for turn in turns} == {("orchard", "trunk", "anthropic")}
    assert turns == objects(run("tok-read cline").stdout)
    assert b"secret" not in run("tok-cat").stdout


def test_a_fork_whose_source_is_gone_belongs_to_the_source_before_it_was_forked(tmp_path: pathlib.Path) -> None:
    manifest(tmp_path, "fork_1", fork={"forkedFromSessionId": SESSION, "forkedAt": "2026-11-29T23:00:50.000Z"})
    turns, _ = read(messages(tmp_path, user(100), answer(300), user(20000), answer(21000, 900), session="fork_1"))
    assert [turn["session_id"] for turn in turns] == [SESSION, "fork_1"]


def test_a_fork_elsewhere_leaves_its_sources_turns_in_their_project(tmp_path: pathlib.Path) -> None:
    manifest(tmp_path)
    path = manifest(tmp_path, "fork_1", fork={"forkedFromSessionId": SESSION, "forkedAt": "2026-11-29T23:00:50.000Z"})
    path.write_text(path.read_text().replace("/home/ada/orchard", "/home/ada/worktree").replace("trunk", "other"))
    turns, _ = read(messages(tmp_path, user(100), answer(300), user(20000), answer(21000, 900), session="fork_1"))
    assert [(turn["project"], turn["branch"]) for turn in turns] == [("orchard", "trunk"), ("worktree", "other")]


def test_forks_that_name_each_other_end(tmp_path: pathlib.Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        manifest(tmp_path, name, fork={"forkedFromSessionId": other, "forkedAt": "2026-11-29T23:59:00.000Z"})
    turns, _ = read(messages(tmp_path, answer(300), session="a"))
    assert len(turns) == 1


@pytest.mark.parametrize(
    ("stem", "about", "chain"),
    [
        (SESSION, {"agent": "lead", "sessionId": SESSION}, (SESSION, "", "")),
        (SESSION, {"sessionId": SESSION}, (SESSION, "", "")),
        (SESSION, {}, (SESSION, "", "")),
        (AGENT, {"agent": "subagent", "sessionId": f"{SESSION}__{AGENT}"}, (SESSION, "subagent", AGENT)),
        (AGENT, {"sessionId": f"{SESSION}__{AGENT}"}, (SESSION, "subagent", AGENT)),
        # Older files name the session of the whole.
        (AGENT, {"agent": "subagent", "sessionId": SESSION}, (SESSION, "subagent", AGENT)),
        ("ada__1", {"agent": "teammate", "sessionId": f"{SESSION}__teamtask__ada__1"}, (SESSION, "teammate", "ada__1")),
        # Copied elsewhere: the folder tells nothing.
        (AGENT, {"agent": "subagent", "sessionId": "s9__x", "origin": {"parentThreadId": "s9"}}, ("s9", "subagent", AGENT)),
        (AGENT, {"agent": "subagent", "sessionId": "s9__x"}, ("s9", "subagent", AGENT)),
    ],
)
def test_whose_messages_a_file_holds(stem: str, about: Json, chain: tuple[str, ...]) -> None:
    path = f"/home/ada/.cline/data/sessions/{SESSION}/{stem}.messages.json"
    assert read_cline.chain_of(path, about) == chain


def test_a_session_name_with_the_mark_of_subagents(tmp_path: pathlib.Path) -> None:
    """Cline draws the end of a session's name from letters, digits, - and _."""
    session = "1795993238886__ab_c"
    path = put(folder(tmp_path, session) / "agent_1.messages.json", b"")
    about = {"agent": "subagent", "sessionId": f"{session}__agent_1"}
    assert read_cline.chain_of(str(path), about) == (session, "subagent", "agent_1")


@pytest.mark.parametrize(
    ("info", "model", "provider", "inferred"),
    [
        ({"id": "gpt-5.4", "provider": "openai-native"}, "gpt-5.4", "openai", None),
        ({"id": "anthropic/claude-sonnet-4-6", "provider": "cline"}, "anthropic/claude-sonnet-4-6", "anthropic", True),
        ({"id": "grok-4.6", "provider": "openai-compatible"}, "grok-4.6", "xai", True),
        ({"id": "fake-1", "provider": "openai-compatible"}, "fake-1", None, None),
        # Without a model of its own, the session's first one.
        (None, "claude-opus-4-6", "anthropic", None),
        ({"id": 7, "provider": []}, "claude-opus-4-6", "anthropic", None),
    ],
)
def test_models(info: Any, model: str, provider: str | None, inferred: bool | None, tmp_path: pathlib.Path) -> None:
    manifest(tmp_path)
    [turn], _ = read(messages(tmp_path, answer(300, modelInfo=info)))
    assert (turn["model"], turn.get("provider"), turn.get("provider_inferred")) == (model, provider, inferred)


@pytest.mark.parametrize(("cost", "stated"), [(0.0110232, "0.0110232"), (0, None), (-1, None), ("NaN", None), (None, None)])
def test_a_cost_is_the_clients_estimate(cost: Any, stated: str | None, tmp_path: pathlib.Path) -> None:
    said = answer(300)
    said["metrics"]["cost"] = cost
    [turn], _ = read(messages(tmp_path, said))
    assert (turn.get("cost_usd"), turn.get("cost_source")) == (stated, stated and "client")


@pytest.mark.parametrize(
    ("before", "said", "began"),
    [
        (user(100), answer(300), "2026-11-29T23:00:39.100Z"),
        (user(100), answer(None), "2026-11-29T23:00:39.100Z"),
        (user(None), answer(300), "2026-11-29T23:00:39.300Z"),
        (user(400), answer(300), "2026-11-29T23:00:39.300Z"),
        (answer(100, metrics=None), answer(300), "2026-11-29T23:00:39.300Z"),
    ],
)
def test_a_turn_begins_with_what_was_sent(before: Json, said: Json, began: str, tmp_path: pathlib.Path) -> None:
    [turn], _ = read(messages(tmp_path, before, said))
    assert turn["ts"] == began


def test_what_is_no_turn(tmp_path: pathlib.Path) -> None:
    nothing = answer(1, 0, 0, 0)
    without = answer(2, metrics=None)
    damaged = [answer(3, metrics={"inputTokens": "secret"}), answer(None), {"role": "assistant", "metrics": 3}, None, 7, []]
    turns, rejected = read(messages(tmp_path, nothing, without, user(3), *damaged, answer(9)))
    assert [turn["ts"][17:] for turn in turns] == ["39.003Z", "39.009Z"]  # one without a time has that of what is before it
    assert "inputTokens is a string; expected a count; skipped" in rejected
    assert not any("secret" in why for why in rejected)


def test_one_broken_file_leaves_the_others(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(folder(home, "bad") / "bad.messages.json", b'{"version": 1, "sessionId": "bad", "messages": [{"role')
    put(folder(home, "list") / "list.messages.json", b"[1, 2]")
    messages(home, user(100), answer(300))
    done = run("tok-read cline", status=1)
    assert [turn["session_id"] for turn in objects(done.stdout)] == [SESSION]
    assert b"bad.messages.json: not JSON" in done.stderr and b"list.messages.json: " in done.stderr


@pytest.mark.parametrize(
    ("variable", "below"),
    [("CLINE_SESSION_DATA_DIR", ".cline/data/sessions"), ("CLINE_DATA_DIR", ".cline/data"), ("CLINE_DIR", ".cline")],
)
def test_the_place_can_be_named(variable: str, below: str, run: Run, tmp_path: pathlib.Path) -> None:
    messages(tmp_path / "away", user(100), answer(300))
    assert objects(run("tok-read cline", env={variable: str(tmp_path / "away" / below)}).stdout)
