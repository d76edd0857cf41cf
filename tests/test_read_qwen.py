"""Qwen Code: chats with and without telemetry, and their branches."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, lines, objects, put
from tokenops import events, read_qwen

# Two answers of a real chat, of 15675 tokens each in all: 26 of the 76 are thoughts.
USAGE = {
    "promptTokenCount": 15599,
    "candidatesTokenCount": 76,
    "thoughtsTokenCount": 26,
    "totalTokenCount": 15675,
    "cachedContentTokenCount": 15000,
}


def line(kind: str, identity: str, ts: str, session: str, **more: Any) -> Json:
    return {
        "uuid": identity,
        "parentUuid": None,
        "sessionId": session,
        "timestamp": ts,
        "type": kind,
        "cwd": "/home/ada/orchard",
        "version": "0.16.0",
        **more,
    }


def message(identity: str = "m1", ts: str = "2026-05-17T11:07:32.000Z", session: str = "s1", **given: Any) -> Json:
    usage = {**USAGE, **{key: value for key, value in given.items() if key.endswith("TokenCount")}}
    more = {key: value for key, value in given.items() if key not in usage}
    said = {"role": "model", "parts": [{"text": "x"}]}
    return line("assistant", identity, ts, session, model="qwen3-coder-plus", message=said, usageMetadata=usage, **more)


def answer(identity: str = "t1", ts: str = "2026-05-17T11:07:31.500Z", session: str = "s1", **given: Any) -> Json:
    event = {
        "event.name": "qwen-code.api_response",
        "event.timestamp": ts,
        "response_id": "chatcmpl-7",
        "model": "qwen3-coder-plus",
        "duration_ms": 2500,
        "input_token_count": 15599,
        "output_token_count": 76,
        "cached_content_token_count": 15000,
        "thoughts_token_count": 26,
        "total_token_count": 15675,
        "prompt_id": "p",
        "auth_type": "openai",
    }
    made = {"uiEvent": {key: value for key, value in (event | given).items() if value is not None}}
    return line("system", identity, ts, session, subtype="ui_telemetry", systemPayload=made)


def chat(home: pathlib.Path, name: str = "s1") -> pathlib.Path:
    return home / f".qwen/projects/-home-ada-orchard/chats/{name}.jsonl"


def steps(home: pathlib.Path) -> Iterator[None]:
    """A chat without telemetry, one with, with a subagent, and a branch of it."""
    put(chat(home, "old"), message("o1", session="old"), message("o2", "2026-05-17T11:08:00.000Z", "old"))
    yield
    put(chat(home), line("user", "u", "2026-05-17T11:07:20.000Z", "s1", message={"role": "user"}), answer())
    yield
    with chat(home).open("ab") as file:
        file.write(lines([message(), answer("t2", input_token_count=16000, total_token_count=16076)]))
        file.flush()
        yield
        aside = answer("t3", input_token_count=300, cached_content_token_count=0, total_token_count=376, subagent_name="a")
        file.write(lines([aside, message("m2", promptTokenCount=16000, totalTokenCount=16076)]))
    yield
    fork = {"forkedFrom": {"sessionId": "s1", "messageUuid": "t1"}}
    put(chat(home, "s2"), answer(session="s2") | fork, message(session="s2") | fork, answer("t9", session="s2"))
    yield


COUNTS = ("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        # prompt, candidates, total, cached, thoughts, tool: the total says that thoughts are inside.
        ((15599, 76, 15675, 15000, 26), (599, 15000, 76, 26)),
        # It says that they stand beside.
        ((15599, 50, 15675, 15000, 26), (599, 15000, 76, 26)),
        # It says that the cached part stands beside.
        ((599, 76, 15675, 15000, 26), (599, 15000, 76, 26)),
        ((599, 50, 15675, 15000, 26), (599, 15000, 76, 26)),
        # Prompts of tools, beside and inside.
        ((100, 10, 117, 0, 0, 7), (107, 0, 10, 0)),
        ((100, 10, 110, 0, 0, 7), (100, 0, 10, 0)),
        # No total, or one that nothing makes: inside where that can be.
        ((120, 30, 0, 20, 5), (100, 20, 30, 5)),
        ((120, 5, 999, 20, 30), (100, 20, 35, 30)),
        ((5, 30, 0, 20, 0), (5, 20, 30, 0)),
        ((0, 0, 0), (0, 0, 0, 0)),
    ],
)
def test_counts(given: tuple[int, ...], counts: tuple[int, ...]) -> None:
    found = read_qwen.counts_of(*given)
    assert tuple(found.get(name, 0) for name in COUNTS) == counts


def test_a_total_alone_is_no_count() -> None:
    with pytest.raises(events.BadRecord):
        read_qwen.counts_of(0, 0, 900)


def test_an_answer_and_its_message_are_one_turn(run: Run, environment: dict[str, str]) -> None:
    """It began when its request was sent."""
    put(chat(pathlib.Path(environment["HOME"])), answer(), message())
    [event] = objects(run("tok-read qwen").stdout)
    assert (event["id"], event["ts"]) == ("qwen:t1", "2026-05-17T11:07:29.000Z")
    assert (event["session_id"], event["project"], event["provider"]) == ("s1", "orchard", "alibaba")
    assert tuple(event[name] for name in COUNTS) == (599, 15000, 76, 26)


@pytest.mark.parametrize(
    ("records", "names"),
    [
        # Older chats have messages alone.
        ([message(), message("m2")], ["qwen:m1", "qwen:m2"]),
        # Two equal answers, two equal messages.
        ([answer(), message(), answer("t2"), message("m2")], ["qwen:t1", "qwen:t2"]),
        # Subagents and compression have no message here.
        ([answer(), message(), answer("t2", output_token_count=9), message("m2")], ["qwen:m2", "qwen:t1", "qwen:t2"]),
        # Telemetry whose counts were taken out: the message counts.
        (
            [answer(input_token_count=None, output_token_count=None, total_token_count=None, thoughts_token_count=None,
                    cached_content_token_count=None), message()], ["qwen:m1"],
        ),
        # A provider's own id is the one that the wire sees too.
        ([answer(response_id="chatcmpl-0123456789abcdef"), message()], ["chatcmpl-0123456789abcdef"]),
        ([line("system", "x", "2026-05-17T11:07:32.000Z", "s1", systemPayload={"uiEvent": {"event.name": "other"}})], []),
        ([message(promptTokenCount=0, candidatesTokenCount=0, thoughtsTokenCount=0, totalTokenCount=0,
                  cachedContentTokenCount=0)], []),
    ],
)  # fmt: skip
def test_which_lines_are_turns(records: list[Json], names: list[str], run: Run, environment: dict[str, str]) -> None:
    put(chat(pathlib.Path(environment["HOME"])), *records)
    found = objects(run("tok-read qwen", status=None).stdout)
    assert sorted(event["id"] for event in found) == names


def test_a_branch_counts_what_it_began_with_once(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    fork = {"forkedFrom": {"sessionId": "s1", "messageUuid": "t1"}}
    put(chat(home), answer(), message())
    put(chat(home, "s2"), answer(session="s2") | fork, message(session="s2") | fork, answer("t9", session="s2"))
    found = objects(run("tok-read qwen").stdout)
    assert {event["id"]: event["session_id"] for event in found} == {"qwen:t1": "s1", "qwen:t9": "s2"}


@pytest.mark.parametrize("own", [True, False])
def test_a_branch_of_a_branch(own: bool, run: Run, environment: dict[str, str]) -> None:
    """Each line names the chat that it was copied from last, and belongs to the one that wrote it."""
    home = pathlib.Path(environment["HOME"])

    def copies(source: list[Json], above: str, session: str) -> list[Json]:
        fork = {"sessionId": above}
        return [{**row, "sessionId": session, "forkedFrom": fork | {"messageUuid": row["uuid"]}} for row in source]

    first = [message("m1", "2026-05-17T11:00:00.000Z", "s9")]
    second = copies(first, "s9", "s5") + [message("m2", "2026-05-17T12:00:00.000Z", "s5")][:own]
    third = [*copies(second, "s5", "s1"), message("m3", "2026-05-17T13:00:00.000Z", "s1")]
    for name, rows in (("s9", first), ("s5", second), ("s1", third)):
        put(chat(home, name), *rows)
    expected = {"qwen:m1": "s9", "qwen:m2": "s5", "qwen:m3": "s1"}
    if not own:
        del expected["qwen:m2"]
    assert {event["id"]: event["session_id"] for event in objects(run("tok-read qwen").stdout)} == expected


def test_masked_ids_tell_nothing_apart(run: Run, environment: dict[str, str]) -> None:
    """The content does: when, what, how much."""
    home = pathlib.Path(environment["HOME"])
    put(chat(home), message("REDACTED"), message("REDACTED", "2026-05-17T11:08:00.000Z"), message("REDACTED"))
    assert len(objects(run("tok-read qwen").stdout)) == 2


def test_subagents_and_who_bills(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    given = {"subagent_name": "explore", "auth_type": "qwen-oauth", "model": "coder-model"}
    put(chat(home), answer("t1", **given), message("m2", isSidechain=True, promptTokenCount=1, cachedContentTokenCount=0))
    one, two = objects(run("tok-read qwen").stdout)
    assert one["sidechain"] and two["sidechain"]
    assert (one["subagent"], "subagent" in two) == ("explore", False)
    assert (one["provider"], one.get("provider_inferred")) == ("alibaba", None)


def test_the_branch_of_a_line(run: Run, environment: dict[str, str]) -> None:
    put(chat(pathlib.Path(environment["HOME"])), answer("t1") | {"gitBranch": "main"}, answer("t2", output_token_count=9))
    assert [turn.get("branch") for turn in objects(run("tok-read qwen").stdout)] == ["main", None]


def test_a_bad_line_is_told_and_the_others_count(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(chat(home), message(promptTokenCount=-1), message("m2"), message("m3", "yesterday"))
    done = run("tok-read qwen", status=1)
    assert len(objects(done.stdout)) == 1
    assert done.stderr.count(b"skipped") == 2 and b"yesterday" not in done.stderr


def test_transcripts_of_subagents_are_not_read(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(chat(home), answer(subagent_name="a"))
    put(chat(home).parent.parent / "subagents/s1/agent-1.jsonl", message("a1", isSidechain=True))
    assert len(objects(run("tok-read qwen").stdout)) == 1


@pytest.mark.parametrize("variable", ["QWEN_DATA_DIR", "QWEN_RUNTIME_DIR", "QWEN_HOME"])
def test_the_place_can_be_named(variable: str, run: Run, tmp_path: pathlib.Path) -> None:
    put(chat(tmp_path / "away"), message())
    assert objects(run("tok-read qwen", env={variable: str(tmp_path / "away/.qwen")}).stdout)
