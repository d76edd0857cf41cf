"""What `claude -p` prints: streams of lines, arrays, results alone."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, claude, lines, objects, put
from tokenops import events, read_claude_stream, read_clients, sync_gather

SONNET, HAIKU = "claude-sonnet-4-6", "claude-haiku-4-5-20251001"
OLD, NEW = "2.1.195", "2.1.283"  # a resumed process begins at zero; goes on from the totals before it
AT = "2026-09-04T03:22:16.818Z"


def init(session: str = "s1", version: str = OLD, **given: Any) -> Json:
    line = {"type": "system", "subtype": "init", "cwd": "/home/ada/orchard", "session_id": session, "model": SONNET}
    return line | {"claude_code_version": version, "uuid": f"i-{session}"} | given


def usage(sent: int = 2, wrote: int = 6354, read: int = 15934, got: int = 1, **given: Any) -> Json:
    split = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": wrote}
    counts = {"input_tokens": sent, "cache_creation_input_tokens": wrote, "cache_read_input_tokens": read}
    return counts | {"cache_creation": split, "output_tokens": got, "service_tier": "standard"} | given


def said(name: str, session: str = "s1", model: str = SONNET, at: str | None = AT, **given: Any) -> Json:
    """An assistant line; keys that begin with u_ are the usage's."""
    counts = usage(**{key[2:]: value for key, value in given.items() if key.startswith("u_")})
    message = {"model": model, "id": name, "role": "assistant", "content": [{"type": "text", "text": "the answer"}]}
    line = {"type": "assistant", "message": message | {"usage": counts}, "parent_tool_use_id": None, "session_id": session}
    line |= {"timestamp": at} if at else {}
    return line | {key: value for key, value in given.items() if not key.startswith("u_")}


def used(sent: int = 2, wrote: int = 6354, read: int = 15934, got: int = 4, **given: Any) -> Json:
    """One model's entry in modelUsage."""
    counts = {"inputTokens": sent, "outputTokens": got, "cacheReadInputTokens": read, "cacheCreationInputTokens": wrote}
    return counts | {"webSearchRequests": 0, "costUSD": 0.0429702, "contextWindow": 200000} | given


def result(models: Json | None = None, session: str = "s1", name: str = "r1", **given: Any) -> Json:
    line = {"type": "result", "subtype": "success", "result": "the answer", "session_id": session, "uuid": name}
    line |= {"total_cost_usd": 0.0435512, "usage": usage(got=4), "duration_ms": 1425, "num_turns": 1}
    return line | {"modelUsage": {SONNET: used()} if models is None else models} | given


def streamed(name: str, got: int, session: str = "s1", at: str = AT, **more: Any) -> list[Json]:
    """A message with --include-partial-messages: its beginning, its end, and its line, which knows no better."""

    def event(**given: Any) -> Json:
        return {"type": "stream_event", "event": given, "session_id": session, "parent_tool_use_id": None, "timestamp": at}

    message = {"id": name, "model": SONNET, "role": "assistant", "content": [], "usage": usage(**more)}
    flat = {key: value for key, value in usage(**more).items() if key != "cache_creation"}
    return [
        event(type="message_start", message=message),
        event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "the answer"}),
        said(name, session, at=at, **{f"u_{key}": value for key, value in more.items()}),
        event(type="message_delta", delta={"stop_reason": "end_turn"}, usage=flat | {"output_tokens": got}),
        event(type="message_stop"),
    ]


def steps(home: pathlib.Path) -> Iterator[None]:
    """A stream whose messages add up to its result; an array whose messages do not; a result that grows."""
    path = home / "run.jsonl"
    put(path, init())
    yield
    with path.open("ab") as file:
        file.write(lines(streamed("msg_a", 4)))
        file.flush()
        yield
        file.write(lines([result(), init("s2"), *streamed("msg_b", 9, "s2", wrote=19)]))
        file.write(lines([result({SONNET: used(wrote=19, got=9)}, "s2", "r2")]))
    yield
    whole = [init("s3"), said("msg_c", "s3"), result({SONNET: used(), HAIKU: used(511, 0, 0, 14)}, "s3", "r3")]
    put(home / "array.json", json.dumps(whole).encode())
    yield
    put(home / "pretty.json", json.dumps(result(session="s4", name="r4", timestamp=AT), indent=2).encode() + b"\n")
    yield


def read(tmp_path: pathlib.Path, *parts: Json | bytes, name: str = "run.jsonl") -> list[events.Event]:
    """All events of one file."""
    path = put(tmp_path / name, *parts)
    batch = sync_gather.gather(read_clients.BY_NAME["claude-stream"], [str(path)], 1)
    assert not batch.rejected and not batch.unread
    return list(sync_gather.in_order([batch]))


def counts(found: list[events.Event]) -> list[tuple[Any, ...]]:
    """Kind, model, turns and tokens, in order of model."""
    names = ("turns", "input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens")
    made = ((event["kind"], event["model"], *(event.get(name, 0) for name in names)) for event in found)
    return sorted(made)


MESSAGE = (2, 15934, 0, 6354)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        # Without a result the messages are all there is.
        ([init(), said("m1"), said("m1", u_got=3)], [("turn", SONNET, 1, *MESSAGE, 3)]),
        # The result knows the output; the messages know the cache's classes.
        ([init(), said("m1"), result()], [("usage", SONNET, 1, *MESSAGE, 4)]),
        # They agree: turns.
        ([init(), *streamed("m1", 4), result()], [("turn", SONNET, 1, *MESSAGE, 4)]),
        # They agree but for a model that no message was of.
        (
            [init(), *streamed("m1", 4), result({SONNET: used(), HAIKU: used(511, 0, 0, 14)})],
            [("usage", HAIKU, 0, 511, 0, 0, 0, 14), ("usage", SONNET, 1, *MESSAGE, 4)],
        ),
        # A subagent's messages are in the totals too.
        (
            [
                init(),
                *streamed("m1", 4),
                said("m2", model=HAIKU, parent_tool_use_id="toolu_1", u_sent=9, u_wrote=0, u_read=0, u_got=7),
                result({SONNET: used(), HAIKU: used(9, 0, 0, 7)}),
            ],
            [("turn", HAIKU, 1, 9, 0, 0, 0, 7), ("turn", SONNET, 1, *MESSAGE, 4)],
        ),
        # The long context is the same model.
        ([init(), *streamed("m1", 4), result({f"{SONNET}[1m]": used()})], [("turn", SONNET, 1, *MESSAGE, 4)]),
        # A result alone: its own usage says which cache was written to.
        ([result()], [("usage", SONNET, 0, *MESSAGE, 4)]),
        # What a process used grows from result to result; the last one says it all.
        (
            [init(), said("m1"), result(), init(), said("m2"), result({SONNET: used(4, 12708, 31868, 9)}, name="r2")],
            [("usage", SONNET, 2, 4, 31868, 0, 12708, 9)],
        ),
        # A second process of an older version begins at zero.
        (
            [init(), said("m1"), result(), init(), said("m2", u_wrote=19), result({SONNET: used(2, 19, 15934, 5)}, name="r2")],
            [("usage", SONNET, 1, 2, 15934, 0, 19, 5), ("usage", SONNET, 1, *MESSAGE, 4)],
        ),
        # ... also where each of its counts is the larger.
        (
            [init(), said("m1"), result(), init(), said("m2", u_sent=3, u_wrote=6400, u_read=30000),
             result({SONNET: used(3, 6400, 30000, 5)}, name="r2")],
            [("usage", SONNET, 1, *MESSAGE, 4), ("usage", SONNET, 1, 3, 30000, 0, 6400, 5)],
        ),
        # The same of results alone: what one result's own usage says must have been added.
        (
            [result(), result({SONNET: used(4, 12708, 31868, 9)}, name="r2")],
            [("usage", SONNET, 0, 4, 31868, 0, 12708, 9)],
        ),
        ([result(), result(name="r2")], [("usage", SONNET, 0, *MESSAGE, 4)] * 2),
        # A stream that was kept twice.
        ([init(), said("m1"), result()] * 2, [("usage", SONNET, 1, *MESSAGE, 4)]),
        # Cut off in the second turn: what is known of it is added.
        ([init(), said("m1"), result(), said("m2")], [("usage", SONNET, 2, 4, 31868, 0, 12708, 5)]),
        # A crash may state zeros.
        ([init(), said("m1"), result({SONNET: used(0, 0, 0, 0)}, usage=usage(0, 0, 0, 0))], [("turn", SONNET, 1, *MESSAGE, 1)]),
        # Versions of 2025 said the main loop's counts alone.
        ([init(), said("m1"), result({}, modelUsage=None)], [("turn", SONNET, 1, *MESSAGE, 1)]),
        ([init(), result({}, modelUsage=None)], [("usage", SONNET, 0, *MESSAGE, 4)]),
        # Notices of limits are no answers.
        ([init(), said("m1", model="<synthetic>")], []),
        # The transcript's own lines are no stream.
        ([claude("m1")], []),
    ],
)  # fmt: skip
def test_what_a_stream_comes_to(given: list[Json], wanted: list[Any], tmp_path: pathlib.Path) -> None:
    assert counts(read(tmp_path, *given)) == wanted


def test_parts_make_the_total(tmp_path: pathlib.Path) -> None:
    for given in ([init(), said("m1"), result()], [init(), *streamed("m1", 4), result()], [result()]):
        entry = used()
        stated = sum(value for key, value in entry.items() if key.endswith("Tokens"))
        assert sum(map(events.token_sum, read(tmp_path, *given))) == stated


def test_a_resumed_process_of_a_newer_version_goes_on(tmp_path: pathlib.Path) -> None:
    first = put(tmp_path / "1.jsonl", init(version=NEW), said("m1"), result())
    second = put(tmp_path / "2.jsonl", init(version=NEW), said("m2"), result({SONNET: used(4, 12708, 31868, 9)}, name="r2"))
    batch = sync_gather.gather(read_clients.BY_NAME["claude-stream"], [str(second), str(first)], 1)
    (event,) = sync_gather.in_order([batch])
    assert (event["id"], event["output_tokens"]) == (f"usage:claude-code:s1:{SONNET}", 9)
    for path in (first, second):
        path.write_text(path.read_text().replace(NEW, OLD))
    batch = sync_gather.gather(read_clients.BY_NAME["claude-stream"], [str(second), str(first)], 1)
    assert sorted(event["output_tokens"] for event in sync_gather.in_order([batch])) == [4, 9]
    # Without the line that says the version, what the results hold tells.
    put(first, result({SONNET: used(costBasis="list")}))
    put(second, result({SONNET: used(4, 12708, 31868, 9, costBasis="list")}, name="r2"))
    batch = sync_gather.gather(read_clients.BY_NAME["claude-stream"], [str(first), str(second)], 1)
    assert [event["output_tokens"] for event in sync_gather.in_order([batch])] == [9]


def test_a_resumed_process_whose_messages_say_all_has_turns(tmp_path: pathlib.Path) -> None:
    """Else its totals, which hold the turns of the process before it, would stand beside those."""
    second = {SONNET: used(4, 12708, 31868, 9)}
    paths = [
        put(tmp_path / "1.jsonl", init(version=NEW), *streamed("m1", 4), result()),
        put(tmp_path / "2.jsonl", init(version=NEW), *streamed("m2", 5), result(second, name="r2")),
    ]
    batch = sync_gather.gather(read_clients.BY_NAME["claude-stream"], list(map(str, paths)), 1)
    assert [(event["id"], event["output_tokens"]) for event in sync_gather.in_order([batch])] == [("m1", 4), ("m2", 5)]
    # A message whose end is not known, or a helper of another model in a first process: the totals.
    found = read(tmp_path, init(version=NEW), *streamed("m2", 5), said("m3"), result(second))
    assert {event["kind"] for event in found} == {"usage"}
    found = read(tmp_path, init(version=NEW), *streamed("m1", 4), result({SONNET: used(), HAIKU: used(511, 0, 0, 14)}))
    assert {event["kind"] for event in found} == {"usage"}


def test_a_turn_is_the_transcripts_own(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """The stream has the output that the transcript lacks, the transcript the earlier time."""
    home = pathlib.Path(environment["HOME"])
    early = claude("m1", sessionId="s1", cwd="/home/ada/orchard", ts="2026-09-04T03:22:15.000Z", u_output_tokens=1)
    put(home / ".claude/projects/-home-ada-orchard/s1.jsonl", early)
    put(tmp_path / "run.jsonl", init(), *streamed("m1", 4), result())
    run("tok-sync claude; tok-sync claude-stream --root run.jsonl")
    for line in ("tok-cat", "tok-read claude claude-stream --root $HOME --root run.jsonl"):
        (turn,) = [each for each in objects(run(line).stdout) if each["kind"] == "turn"]
        assert (turn["id"], turn["ts"], turn["output_tokens"]) == ("m1", "2026-09-04T03:22:15.000Z", 4)
        assert (turn["project"], turn["cache_write_1h_tokens"]) == ("orchard", 6354)
    put(tmp_path / "run.jsonl", init(), *streamed("m1", 4, at=early["timestamp"]), result())
    assert len(objects(run("tok-read claude claude-stream --root $HOME --root run.jsonl").stdout)) == 1


def test_totals_yield_to_the_transcripts_turns(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / ".claude/projects/-home-ada-orchard/s1.jsonl", claude("m1", sessionId="s1", output=2))
    put(tmp_path / "run.jsonl", init(), said("m1"), result())
    put(tmp_path / "other.jsonl", init("s2"), said("m2", "s2"), result(session="s2", name="r2"))
    made = run("tok-read claude claude-stream --root $HOME --root run.jsonl --root other.jsonl")
    rows = objects(run("tok-rollup --by session", made.stdout).stdout)
    assert {row["session_id"]: row["output_tokens"] for row in rows} == {"s1": 2, "s2": 4}


def test_costs_are_the_clients_estimate(tmp_path: pathlib.Path) -> None:
    models = {SONNET: used(thinkingTokens=3), HAIKU: used(511, 0, 0, 14, costBasis="unknown", webSearchRequests=2)}
    haiku, sonnet = read(tmp_path, init(), said("m1"), result(models))
    assert (sonnet["cost_usd"], sonnet["cost_source"], sonnet["reasoning_tokens"]) == ("0.0429702", "client", 3)
    assert "cost_usd" not in haiku and haiku["web_searches"] == 2
    assert (sonnet["provider"], sonnet["project"], sonnet["covers"]) == ("anthropic", "orchard", "session")


@pytest.mark.parametrize(
    ("given", "tier"),
    [
        ([init(), said("m1", u_speed="fast"), result()], "fast"),
        ([init(), said("m1", u_speed="fast"), said("m2"), result()], None),
        ([result(usage=usage(got=4, speed="fast"))], "fast"),
        ([result({SONNET: used(), HAIKU: used()}, usage=usage(got=4, speed="fast"))], None),
    ],
)
def test_a_tier_is_said_where_all_was_served_so(given: list[Json], tier: str | None, tmp_path: pathlib.Path) -> None:
    assert {event.get("tier") for event in read(tmp_path, *given)} == {tier}


def test_who_bills(tmp_path: pathlib.Path) -> None:
    (event,) = read(tmp_path, result({SONNET: used(provider="bedrock")}))
    assert event["provider"] == "bedrock"
    (event,) = read(tmp_path, result({"gpt-oss": used()}))
    assert event["model"] == "gpt-oss" and event.get("provider") != "anthropic"
    (event,) = read(tmp_path, init(), said("msg_bdrk_1"))
    assert event["provider"] == "bedrock"


def test_times(tmp_path: pathlib.Path) -> None:
    """A line's own, else when the file was written: constant however often it is read."""
    path = put(tmp_path / "run.jsonl", init(), said("m1", at=None), said("m2"))
    os.utime(path, (1_790_000_000, 1_790_000_000))
    batch = sync_gather.gather(read_clients.BY_NAME["claude-stream"], [str(path)], 1)
    assert [event["ts"] for event in sync_gather.in_order([batch])] == [AT, "2026-09-21T14:13:20.000Z"]


def test_subagents_are_side_chains(tmp_path: pathlib.Path) -> None:
    own, side = read(tmp_path, init(), said("m1"), said("m2", parent_tool_use_id="toolu_1"))
    assert "sidechain" not in own and side["sidechain"] is True


def test_an_advisor_is_a_turn_of_its_own(tmp_path: pathlib.Path) -> None:
    advice = {"type": "advisor_message", "model": HAIKU, "input_tokens": 40, "output_tokens": 6}
    found = read(tmp_path, init(), said("m1", u_iterations=[{"type": "message", **usage()}, advice]))
    assert {event["id"]: event["model"] for event in found} == {"m1": SONNET, "m1#1": HAIKU}


def test_messages_without_an_id_count_each(tmp_path: pathlib.Path) -> None:
    nameless = said("REDACTED")
    found = read(tmp_path, init(), nameless, nameless)
    assert len({event["id"] for event in found}) == 2
    named = nameless | {"request_id": "req_1"}
    assert [event["id"] for event in read(tmp_path, init(), named, named)] == ["req_1"]


def test_bad_lines_lose_only_themselves(run: Run, tmp_path: pathlib.Path) -> None:
    broken = said("m2", u_read=-1)
    odd = result(session="s2") | {"modelUsage": {SONNET: used(sent=1 << 60)}}
    put(tmp_path / "run.jsonl", init(), said("m1"), b"Execution error\nand more of it\n", broken, odd, said("m3", "s2"))
    done = run("tok-read claude-stream --root run.jsonl", status=1)
    assert [event["id"] for event in objects(done.stdout)] == ["m1", "m3"]
    where = f"tok-read: {'run.jsonl'}:"
    assert done.stderr.decode().splitlines() == [
        f"{where}3: not JSON; it and later lines like it are skipped",
        f"{where}5: usage.cache_read_input_tokens is a negative number; expected a count; skipped",
        f"{where}6: inputTokens is a number that is too large; expected a count; skipped",
    ]


def test_a_stream_that_is_still_written_waits_for_its_result(run: Run, tmp_path: pathlib.Path) -> None:
    path = put(tmp_path / "run.jsonl", init(), said("m1"))
    done = run("tok-sync claude-stream --root run.jsonl", status=1)
    assert "run.jsonl:2: this session has no result line yet, so it is not imported" in done.stderr.decode()
    assert objects(done.stdout)[0]["events"] == 0
    with path.open("ab") as file:
        file.write(lines([result()]))
    assert objects(run("tok-sync claude-stream --root run.jsonl").stdout)[0]["events"] == 1
    assert counts(objects(run("tok-cat").stdout)) == [("usage", SONNET, 1, *MESSAGE, 4)]
    # One that was cut off is taken in by name.
    put(path, init("s2"), said("m2", "s2"))
    assert run("tok-sync claude-stream --root run.jsonl", status=1).stderr
    run("tok-read claude-stream --root run.jsonl | tok-log append >/dev/null")
    assert "m2" in {event["id"] for event in objects(run("tok-cat").stdout)}


def test_a_folder_of_streams(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "runs/a.jsonl", init(), *streamed("m1", 4), result())
    put(tmp_path / "runs/notes.txt", b"no stream\n")
    assert len(objects(run("tok-read claude-stream --root runs").stdout)) == 1
    assert b"holds no client's logs" in run("tok-read --root runs", status=2).stderr


def test_what_is_a_line_of_a_stream() -> None:
    for line in (init(), said("m"), result(), *streamed("m", 1)):
        assert read_claude_stream.takes(line)
    for other in (claude("m"), {"type": "result"}, {"type": "item.completed", "session_id": "s"}, {}):
        assert not read_claude_stream.takes(other)


def test_no_words_in_events(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "run.jsonl", init(), *streamed("m1", 4), result(), b'{"type":"assistant","torn":"the answer\n')
    done = run("tok-read claude-stream --root run.jsonl", status=1)
    assert b"the answer" not in done.stdout + done.stderr


def test_a_result_states_the_classes_of_cache_writes(run: Run) -> None:
    """Also where several models wrote; `usage` beside it has the main one's only."""
    models = {
        SONNET: used(got=900, wrote=300, cacheCreationEphemeral1hInputTokens=100, cacheCreationEphemeral5mInputTokens=200),
        HAIKU: used(got=9, wrote=50, cacheCreationEphemeral1hInputTokens=0, cacheCreationEphemeral5mInputTokens=50),
    }
    found = objects(run("tok-read -", lines([init(), said("msg_1"), result(models)])).stdout)
    written = {event["model"]: (event.get("cache_write_tokens"), event.get("cache_write_1h_tokens")) for event in found}
    assert written == {SONNET: (200, 100), HAIKU: (50, None)}


@pytest.mark.parametrize("model", ["claude-x", "grok-4.5"])
def test_grok_builds_stream_is_not_claude_codes(model: str, run: Run) -> None:
    tools = ["run_terminal_command", "read_file", "search_replace", "spawn_subagent"]
    grok = {key: value for key, value in init(model=model, tools=tools).items() if key != "claude_code_version"}
    for more in ({SONNET: used()}, {model: used(got=900)}):
        stream = [grok, said("msg_1", model=model, at=None), result(more)]
        for event in objects(run("tok-read -", lines(stream)).stdout):
            assert (event["client"], event["agent_id"]) == ("grok-build", "grok-build:orchard")
            assert event.get("provider") == ("xai" if event["model"].startswith("grok") else None)
