"""Kimi CLI's and Kimi Code's sessions."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, lines, objects, put
from tokenops import events, read_kimi

PROJECT = "/home/ada/orchard"
GROUP = hashlib.md5(PROJECT.encode()).hexdigest()
START = 1779015600.25  # 2026-05-17T11:00:00.250Z


def wire(kind: str, at: float = START, **payload: Any) -> Json:
    return {"timestamp": at, "message": {"type": kind, "payload": payload}}


def status(answer: str | None = "m1", at: float = START + 4, **usage: Any) -> Json:
    given = {"input_other": 2155, "output": 181, "input_cache_read": 4096, "input_cache_creation": 100} | usage
    return wire("StatusUpdate", at, context_usage=0.02, token_usage=given, message_id=answer)


def wrapped(event: Json, agent: str = "a1") -> Json:
    payload = {"agent_id": agent, "event": event["message"]}
    return {"timestamp": event["timestamp"], "message": {"type": "SubagentEvent", "payload": payload}}


HEAD = {"type": "metadata", "protocol_version": "1.9"}
CONFIG = b'default_model = "kimi-code/k2"\n[models."kimi-code/k2"]\nprovider = "x"\nmodel = "kimi-k2.5"\n'


def cli(home: pathlib.Path, session: str = "s1", *below: str) -> pathlib.Path:
    return home.joinpath(".kimi/sessions", GROUP, session, *below, "wire.jsonl")


def code(home: pathlib.Path, session: str = "c1", agent: str = "main") -> pathlib.Path:
    return home / f".kimi-code/sessions/orchard-1/{session}/agents/{agent}/wire.jsonl"


def request(at: int = 1779015600000, model: str = "kimi-k3", alias: str = "kimi-code/k3") -> Json:
    return {"type": "llm.request", "model": model, "modelAlias": alias, "kind": "step", "time": at}


def record(at: int = 1779015604000, model: str | None = "kimi-code/k3", scope: str = "turn", **usage: Any) -> Json:
    given = {"inputOther": 2155, "output": 181, "inputCacheRead": 4096, "inputCacheCreation": 100} | usage
    return {"type": "usage.record", "model": model, "usage": given, "usageScope": scope, "time": at}


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session with subagents of either version, a fork of it; a session of Kimi Code with a subagent."""
    put(home / ".kimi/config.toml", CONFIG)
    put(home / ".kimi/kimi.json", {"work_dirs": [{"path": PROJECT, "kaos": "local"}]})
    put(cli(home), HEAD, wire("StepBegin", n=1), status())
    yield
    with cli(home).open("ab") as file:
        inside = wrapped(status("m3", START + 9, output=7))
        file.write(lines([wire("StepBegin", START + 6, n=2), wrapped(wire("StepBegin", START + 7, n=1)), inside]))
        file.flush()
        yield
        file.write(lines([status("m2", START + 12), status(None, START + 13)]))
    put(cli(home, "s1", "subagents", "a2"), HEAD, wire("StepBegin", START + 20, n=1), status("m4", START + 21))
    yield
    put(cli(home, "s2"), HEAD, wire("StepBegin", n=1), status(), wire("StepBegin", START + 60), status("m9", START + 61))
    yield
    step = {"type": "step.end", "usage": record()["usage"], "time": 1779015604001}
    put(code(home), HEAD | {"created_at": 1779015600000}, request(), record(), step)
    put(code(home).parent.parent.parent / "state.json", {"workDir": "/home/ada/lighthouse"})
    yield
    with code(home).open("ab") as file:
        compacted = record(1779015660000, "__default__", "session", output=900)
        file.write(lines([request(1779015650000), compacted, record(1779015670000, None)]))
    put(code(home, agent="explore"), HEAD, request(1779015700000), record(1779015704000))
    yield


COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


def found(run: Run, status: int = 0) -> list[Json]:
    return objects(run("tok-read kimi", status=status).stdout)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_other": 2155, "output": 181, "input_cache_read": 4096, "input_cache_creation": 100},
        {"inputOther": 2155, "output": 181, "inputCacheRead": 4096, "inputCacheCreation": 100},
    ],
)
def test_counts_are_apart(usage: Json) -> None:
    assert tuple(read_kimi.counts_of(usage)[name] for name in COUNTS) == (2155, 4096, 100, 181)


@pytest.mark.parametrize("usage", [{"output": -1}, {"inputOther": "12"}, {"input_other": 1.5}])
def test_what_is_no_count(usage: Json) -> None:
    with pytest.raises(events.BadRecord):
        read_kimi.counts_of(usage)


def test_each_status_is_a_step(run: Run, environment: dict[str, str]) -> None:
    """With its own counts, under the time it began and the model that is configured."""
    home = pathlib.Path(environment["HOME"])
    put(home / ".kimi/config.toml", CONFIG)
    put(home / ".kimi/kimi.json", {"work_dirs": [{"path": PROJECT, "kaos": "local"}]})
    put(cli(home), HEAD, wire("StepBegin", n=1), status(), wire("StepBegin", START + 6, n=2), status("m2", START + 9))
    one, two = found(run)
    assert (one["ts"], two["ts"]) == ("2026-05-17T11:00:00.250Z", "2026-05-17T11:00:06.250Z")
    assert (one["model"], one["provider"], one["project"], one["session_id"]) == ("kimi-k2.5", "moonshot", "orchard", "s1")
    assert one["output_tokens"] == two["output_tokens"] == 181


@pytest.mark.parametrize(
    ("records", "names"),
    [
        # A status may come again, as in the copy that a fork is.
        ([status(), status()], 1),
        ([status("chatcmpl-0123456789abcdef"), status("chatcmpl-0123456789abcdef")], 1),
        # Without an id, time and counts tell.
        ([status(None), status(None), status(None, START + 5)], 2),
        ([status("[redacted]"), status("[redacted]", START + 5)], 2),
        # Of the context alone; of nothing; and what is no status.
        ([wire("StatusUpdate", context_usage=0.1, token_usage=None)], 0),
        ([status(input_other=0, output=0, input_cache_read=0, input_cache_creation=0)], 0),
        ([wire("ContentPart", type="text", text='a "StatusUpdate"')], 0),
    ],
)
def test_which_lines_are_turns(records: list[Json], names: int, run: Run, environment: dict[str, str]) -> None:
    put(cli(pathlib.Path(environment["HOME"])), HEAD, *records)
    assert len(objects(run("tok-read kimi", status=None).stdout)) == names


def test_the_wires_id_is_the_providers(run: Run, environment: dict[str, str]) -> None:
    put(cli(pathlib.Path(environment["HOME"])), HEAD, status("chatcmpl-0123456789abcdef"))
    assert found(run)[0]["id"] == "chatcmpl-0123456789abcdef"


def test_a_subagent_counts_once(run: Run, environment: dict[str, str]) -> None:
    """Wrapped in its parent's file, unless it has a file of its own."""
    home = pathlib.Path(environment["HOME"])
    put(cli(home), HEAD, wire("StepBegin", n=1), wrapped(wire("StepBegin", START + 2)), wrapped(status("m3", START + 4)))
    [event] = found(run)
    assert (event["sidechain"], event["ts"]) == (True, "2026-05-17T11:00:02.250Z")
    put(cli(home, "s1", "subagents", "a1"), HEAD, wire("StepBegin", START + 1), status("m3", START + 4))
    put(cli(home, "s1", "subagents", "a1").parent / "meta.json", {"launch_spec": {"effective_model": "kimi-k2-thinking"}})
    [event] = found(run)
    assert (event["sidechain"], event["ts"], event["session_id"]) == (True, "2026-05-17T11:00:01.250Z", "s1")
    assert event["model"] == "kimi-k2-thinking"


def test_a_fork_counts_what_it_began_with_once(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(cli(home), HEAD, wire("StepBegin"), status())
    put(cli(home, "s2"), HEAD, wire("StepBegin"), status(), wire("StepBegin", START + 60), status("m9", START + 61))
    put(code(home), request(), record())
    put(code(home, "c2"), request(), record(), record(1779015700000))
    assert len(found(run)) == 4


def test_a_copied_request_belongs_to_the_session_that_made_it(run: Run, environment: dict[str, str]) -> None:
    """A fork is a copy of the folder; its state names the source and its own beginning. A fork of a fork likewise."""
    home = pathlib.Path(environment["HOME"])
    hour = 3_600_000
    rows, above = [], None
    for n, name in enumerate(("c5", "c9", "c1")):
        rows += [request(1779015600000 + n * hour), record(1779015604000 + n * hour, output=n + 1)]
        put(code(home, name), HEAD, *rows)
        put(code(home, name, "explore"), HEAD, record(1779015605000, output=900))
        state = {"createdAt": f"2026-05-17T{10 + n}:30:00.000Z"} | ({"forkedFrom": above} if above else {})
        put(code(home, name).parent.parent.parent / "state.json", state)
        above = name
    turns = found(run)
    assert {turn["output_tokens"]: turn["session_id"] for turn in turns} == {1: "c5", 900: "c5", 2: "c9", 3: "c1"}
    assert len(turns) == 4


@pytest.mark.parametrize(
    "state", [{"forkedFrom": "../c5", "createdAt": "2026-05-18"}, {"forkedFrom": "c1"}, {"forkedFrom": 5}]
)
def test_a_state_that_names_no_source(state: Json, run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(code(home), request(), record())
    put(code(home).parent.parent.parent / "state.json", state)
    assert [turn["session_id"] for turn in found(run)] == ["c1"]


def test_kimi_code_names_the_model_by_its_request(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    compaction = record(1779015660000, "__default__", "session", output=900)
    alone = record(1779015670000, "kimi-code/other", output=901)
    put(code(home), request(), record(), request(1779015650000, "kimi-k3-fast", "f"), compaction, alone)
    shown = [(event["ts"], event["model"], event["output_tokens"]) for event in found(run)]
    assert shown == [
        ("2026-05-17T11:00:00.000Z", "kimi-k3", 181),
        ("2026-05-17T11:00:50.000Z", "kimi-k3-fast", 900),
        ("2026-05-17T11:01:10.000Z", "other", 901),
    ]


def test_the_effort_is_that_of_the_request(run: Run, environment: dict[str, str]) -> None:
    other = request(1779015650000), record(1779015660000, output=900)
    put(code(pathlib.Path(environment["HOME"])), request() | {"thinkingEffort": "high"}, record(), *other)
    assert [event.get("effort") for event in found(run)] == ["high", None]


def test_what_repeats_a_record_is_no_turn(run: Run, environment: dict[str, str]) -> None:
    step = {"type": "step.end", "usage": record()["usage"], "time": 1779015604001}
    put(code(pathlib.Path(environment["HOME"])), request(), record(), step)
    assert len(found(run)) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sessions/orchard-1/c1/state.json", {"workDir": "/home/ada/lighthouse"}),
        ("sessions/orchard-1/c1/state.json", {"custom": {"cwd": "/home/ada/lighthouse"}}),
        ("session_index.jsonl", {"sessionId": "c1", "workDir": "/home/ada/lighthouse"}),
    ],
)
def test_kimi_code_knows_its_project(name: str, content: Json, run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(code(home, agent="explore"), record())
    assert found(run)[0]["project"] == "orchard-1"
    put(home / ".kimi-code" / name, content)
    [event] = found(run)
    assert (event["project"], event["sidechain"]) == ("lighthouse", True)


def test_a_session_without_configuration_has_no_model(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(cli(home), HEAD, status())
    put(home / ".kimi/config.toml", b"default_model = [broken")
    [event] = found(run)
    assert (event["model"], event["project"]) == ("unknown", GROUP[:12])
    put(home / ".kimi/config.json", b'{"default_model": "a", "models": {"a": {"model": "kimi-k2"}}}')
    assert found(run)[0]["model"] == "kimi-k2"


def test_a_bad_line_is_told_and_the_others_count(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(cli(home), HEAD, status(output=-1), status(), status("m2", 0.0))
    done = run("tok-read kimi", status=1)
    assert len(objects(done.stdout)) == 1 and done.stderr.count(b"skipped") == 2


def test_the_places_can_be_named(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """Each product has its variable; the other's home stays."""
    away = tmp_path / "away"
    put(cli(away), HEAD, status())
    put(code(pathlib.Path(environment["HOME"])), record())
    for variable, count in (("KIMI_DATA_DIR", 1), ("KIMI_SHARE_DIR", 2), ("KIMI_CODE_HOME", 1)):
        assert len(objects(run("tok-read kimi", env={variable: str(away / ".kimi")}).stdout)) == count
    done = run("tok-read kimi", env={"KIMI_SHARE_DIR": str(tmp_path / "none")}, status=None)
    assert b"no such directory; correct or unset the variable" in done.stderr
