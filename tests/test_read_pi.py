"""pi's sessions: what their entries hold, forks, and who bills."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, lines, objects, put
from tokenops import events, read_pi

START = 1779015600000  # 2026-05-17T11:00:00Z


def header(session: str = "u1", ts: str = "2026-05-17T10:59:00.000Z", **more: Any) -> Json:
    return {"type": "session", "version": 3, "id": session, "timestamp": ts, "cwd": "/home/ada/orchard", **more}


def usage(**given: Any) -> Json:
    made = {"input": 120, "output": 30, "cacheRead": 4096, "cacheWrite": 700, "totalTokens": 4946}
    cost = {"input": 0.0006, "output": 0.00045, "cacheRead": 0.0004, "cacheWrite": 0.001, "total": 0.00245}
    return {**made, "cost": cost, **given}


def message(at: int | str = START, identity: str = "e1", **given: Any) -> Json:
    """An answer. Keys of `usage` start with u_."""
    counts = usage(**{key[2:]: value for key, value in given.items() if key.startswith("u_")})
    said = {
        "role": "assistant",
        "content": [{"type": "text", "text": "x"}],
        "api": "anthropic-messages",
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "usage": counts,
        "stopReason": "stop",
        "timestamp": at,
    } | {key: value for key, value in given.items() if not key.startswith("u_")}
    seconds = 8 + (at - START) // 1000 % 50 if isinstance(at, int) else 0
    written = f"2026-05-17T11:00:{seconds:02d}.000Z"
    return {"type": "message", "id": identity, "parentId": "e0", "timestamp": written, "message": said}


def session(home: pathlib.Path, name: str = "u1") -> pathlib.Path:
    return home / f".pi/agent/sessions/--home-ada-orchard--/2026-05-17T10-59-00-000Z_{name}.jsonl"


CHANGE = {
    "type": "model_change",
    "id": "c",
    "timestamp": "2026-05-17T11:00:20.000Z",
    "provider": "openai",
    "modelId": "gpt-5.5",
}
SUMMARY = {"type": "compaction", "id": "k", "timestamp": "2026-05-17T11:00:21.000Z", "summary": "x", "usage": usage()}


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session that grows and is condensed, and a fork of it."""
    put(session(home), header(), {"type": "message", "id": "e0", "message": {"role": "user", "content": "x"}}, message())
    yield
    with session(home).open("ab") as file:
        file.write(lines([message(START + 9000, "e2", responseId="resp_0123456789abcdef01234567", u_output=31)]))
        file.flush()
        yield
        file.write(lines([CHANGE, SUMMARY, message(START + 30000, "e3", responseId="7", u_reasoning=10)]))
    yield
    above = header("u2", "2026-05-17T11:30:00.000Z", parentSession=str(session(home)))
    put(session(home, "u2"), above, message(identity="n1"), message(START + 9000, "n2", u_output=32))
    yield


COUNTS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (usage(), (120, 4096, 700, 0, 30, 0)),
        # Reasoning is part of the output, and writes for an hour are part of the writes: the total says so.
        (usage(reasoning=10, cacheWrite1h=300), (120, 4096, 400, 300, 30, 10)),
        (usage(reasoning=10, totalTokens=4956), (120, 4096, 700, 0, 40, 10)),
        (usage(reasoning=50, totalTokens=0), (120, 4096, 700, 0, 80, 50)),
        # The API counted more cached input than it was sent.
        (usage(input=-76, totalTokens=4750), (0, 4020, 700, 0, 30, 0)),
        # As other hosts write it.
        ({"input_tokens": 5, "output_tokens": 6, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 8}, (5, 7, 8, 0, 6, 0)),
        ({"inputTokens": 5, "outputTokens": 6, "cache_read": 7, "cache_write": 8, "total": 26}, (5, 7, 8, 0, 6, 0)),
        (usage(input=0, output=0, cacheRead=0, cacheWrite=0, totalTokens=0), (0, 0, 0, 0, 0, 0)),
    ],
)  # fmt: skip
def test_counts(given: Json, counts: tuple[int, ...]) -> None:
    found = read_pi.counts_of(given)
    assert tuple(found.get(name, 0) for name in COUNTS) == counts
    if total := given.get("totalTokens"):
        assert sum(counts[:5]) == total


@pytest.mark.parametrize("given", [{"input": "12"}, {"output": -1}, {"cacheRead": 1.5}, {"totalTokens": 900}])
def test_what_is_no_count(given: Json) -> None:
    with pytest.raises(events.BadRecord):
        read_pi.counts_of(given)


def test_an_answer_is_a_turn(run: Run, environment: dict[str, str]) -> None:
    """Under the time it began, not the one it was written."""
    put(session(pathlib.Path(environment["HOME"])), header(), message())
    [event] = objects(run("tok-read pi").stdout)
    assert event["ts"] == "2026-05-17T11:00:00.000Z"
    assert (event["session_id"], event["project"], event["provider"]) == ("u1", "orchard", "anthropic")
    assert (event["cost_usd"], event["cost_source"]) == ("0.00245", "client")


@pytest.mark.parametrize(
    ("response", "name"),
    [
        ("msg_0123456789abcdefghijklmn", "msg_0123456789abcdefghijklmn"),
        ("gen-1779015600-0123456789abcdefghij", "gen-1779015600-0123456789abcdefghij"),
        ("chatcmpl-7", "pi:chatcmpl-7:"),
        ("[redacted]", "pi:"),
        (None, "pi:"),
    ],
)
def test_the_name_of_a_turn(response: str | None, name: str, run: Run, environment: dict[str, str]) -> None:
    put(session(pathlib.Path(environment["HOME"])), header(), message(responseId=response))
    [event] = objects(run("tok-read pi").stdout)
    assert event["id"].startswith(name) and (event["id"] == name) == (len(name) > 20)


def test_a_fork_counts_what_it_began_with_once(run: Run, environment: dict[str, str]) -> None:
    """Under the session that asked for it; ids of entries do not matter."""
    home = pathlib.Path(environment["HOME"])
    put(session(home), header(), message())
    above = header("u2", "2026-05-17T11:30:00.000Z", parentSession=str(session(home)))
    later = message(START + 3600000, "n2") | {"timestamp": "2026-05-17T12:00:08.000Z"}
    put(session(home, "u2"), above, message(identity="n1"), later)
    found = objects(run("tok-read pi").stdout)
    assert [event["session_id"] for event in found] == ["u1", "u2"]
    session(home).unlink()
    assert [event["session_id"] for event in objects(run("tok-read pi").stdout)] == ["u1", "u2"]


@pytest.mark.parametrize("gone", [set(), {"u1"}])
def test_a_fork_of_a_fork(gone: set[str], run: Run, environment: dict[str, str]) -> None:
    """Each answer belongs to the session that asked for it, however often it was copied."""
    home = pathlib.Path(environment["HOME"])

    def at(hour: int) -> Json:
        return message(START + (hour - 11) * 3600000, f"n{hour}") | {"timestamp": f"2026-05-17T{hour}:00:08.000Z"}

    put(session(home, "u1"), header(), at(11))
    put(session(home, "u2"), header("u2", "2026-05-17T11:30:00.000Z", parentSession=str(session(home))), at(11), at(12))
    # The parent's path may be of another machine: its file lies beside the fork's, or in a folder beside its folder.
    above = header("u3", "2026-05-17T12:30:00.000Z", parentSession="C:\\Users\\ada\\" + session(home, "u2").name)
    put(session(home, "u3"), above, at(11), at(12), at(13))
    for name in gone:
        session(home, name).unlink()
    assert [event["session_id"] for event in objects(run("tok-read pi").stdout)] == ["u1", "u2", "u3"]


def test_a_parent_in_the_folder_of_another_project(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(session(home), header(), message())
    beside = session(home).parent.parent / "--home-ada-lighthouse--"
    put(beside / "x_u2.jsonl", header("u2", "2026-05-17T11:30:00.000Z", parentSession=str(session(home))), message())
    above = header("u3", "2026-05-17T12:30:00.000Z", parentSession=f"/away/{beside.name}/x_u2.jsonl")
    put(session(home, "u3"), above, message())
    assert [event["session_id"] for event in objects(run("tok-read pi").stdout)] == ["u1"]


@pytest.mark.parametrize("reason", ["stop", "length", "toolUse", "aborted", "error"])
def test_an_interrupted_answer_is_partial(reason: str, run: Run, environment: dict[str, str]) -> None:
    """Its counts are those of its beginning: the output's come last."""
    put(session(pathlib.Path(environment["HOME"])), header(), message(stopReason=reason, u_output=1))
    [event] = objects(run("tok-read pi").stdout)
    why = {"aborted": "the answer was interrupted", "error": "the answer was interrupted"}.get(reason)
    assert (event.get("usage"), event.get("usage_reason")) == (why and "partial", why)


def test_the_model_is_the_served_one(run: Run, environment: dict[str, str]) -> None:
    """What condensed the history was done by the model of the time; a tool does not say its own."""
    nested = {"type": "message", "id": "t", "timestamp": "2026-05-17T11:00:40.000Z"}
    nested["message"] = {"role": "toolResult", "timestamp": START + 40000, "usage": usage(output=5, totalTokens=4921)}  # type: ignore[assignment]
    routed = message(model="auto", responseModel="claude-haiku-4-5", provider="openrouter")
    put(session(pathlib.Path(environment["HOME"])), header(), routed, CHANGE, SUMMARY, nested)
    shown = [(e["model"], e.get("request_model"), e.get("provider")) for e in objects(run("tok-read pi").stdout)]
    assert shown == [("claude-haiku-4-5", "auto", "openrouter"), ("gpt-5.5", None, "openai"), ("unknown", None, None)]


def test_answers_that_used_nothing_are_no_turns(run: Run, environment: dict[str, str]) -> None:
    failed = message(u_input=0, u_output=0, u_cacheRead=0, u_cacheWrite=0, u_totalTokens=0, stopReason="error")
    put(session(pathlib.Path(environment["HOME"])), header(), failed, message(START + 1000))
    assert len(objects(run("tok-read pi").stdout)) == 1


def test_a_bad_line_is_told_and_the_others_count(run: Run, environment: dict[str, str]) -> None:
    path = session(pathlib.Path(environment["HOME"]))
    put(path, header(ts="long ago"), message(u_output=-1), message(), message("soon"))
    done = run("tok-read pi", status=1)
    assert len(objects(done.stdout)) == 1 and done.stderr.count(b"skipped") == 3
    assert b"soon" not in done.stderr and b"ago" not in done.stderr


def test_a_session_without_its_header_is_named_by_its_file(run: Run, environment: dict[str, str]) -> None:
    put(session(pathlib.Path(environment["HOME"])), message())
    [event] = objects(run("tok-read pi").stdout)
    assert (event["session_id"], event["project"]) == ("u1", "home-ada-orchard")


@pytest.mark.parametrize(
    ("variable", "below"),
    [("PI_AGENT_DIR", ""), ("PI_CODING_AGENT_DIR", ""), ("PI_CODING_AGENT_SESSION_DIR", "sessions")],
)
def test_the_place_can_be_named(variable: str, below: str, run: Run, tmp_path: pathlib.Path) -> None:
    put(session(tmp_path / "away"), header(), message())
    assert objects(run("tok-read pi", env={variable: str(tmp_path / "away/.pi/agent" / below)}).stdout)
