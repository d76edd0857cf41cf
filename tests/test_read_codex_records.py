"""Codex since 0.153: a record of each response counts; older rollouts: what the totals moved beyond the last request does."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import pytest

from conftest import Json, Run, codex_count, codex_meta, codex_model, objects, put, some_of
from tokenops import store_cursors

A, B = (9000, 6000, 400, 150), (12_500, 9200, 920, 460)
C, SEARCH = (60_000, 20_000, 300, 50), (900, 0, 100, 20)
NOTHING = (0, 0, 0, 0)
Counts = tuple[int, int, int, int]


def plus(*several: Counts) -> Counts:
    return tuple(map(sum, zip(*several, strict=True)))  # type: ignore[return-value]


def at(second: int) -> str:
    return f"2026-05-02T10:{second // 60:02d}:{second % 60:02d}.000Z"


def record(response: str, used: Counts, second: int = 8, thread: str = "t1", **payload: Any) -> Json:
    """What Codex writes when a response has ended."""
    usage = codex_count(used, None)["payload"]["info"]["total_token_usage"]
    given = {"thread_id": thread, "turn_id": "u1", "response_id": response, "usage": usage, **payload}
    return {"timestamp": at(second), "type": "token_usage_record", "payload": given}


def count(total: Counts, last: Counts, second: int = 9, **payload: Any) -> Json:
    return codex_count(total, last, at(second), **payload)


HEAD = [codex_meta("t1"), codex_model("gpt-6-astra")]
COMPACTED = {"timestamp": at(21), "type": "compacted", "payload": {"compaction_response_id": "resp_b"}}
# Name -> lines after the head, and per turn: id, second, and what was used (input with cached, cached, output, reasoning).
CASES: dict[str, tuple[list[Json], list[tuple[str, int, Counts]]]] = {
    "a response and its count": ([record("resp_a", A), count(A, A)], [("resp_a", 8, A)]),
    "the count comes first": ([count(A, A, 8), record("resp_a", A, 9)], [("resp_a", 8, A)]),
    "a compaction that no count counts": (
        [
            *(record("resp_a", A), count(A, A), record("resp_b", C, 20), COMPACTED, count(A, NOTHING, 22)),
            *(record("resp_c", B, 30), count(plus(A, B), B, 31)),
        ],
        [("resp_a", 8, A), ("resp_b", 20, C), ("resp_c", 30, B)],
    ),
    "an aborted tool": (
        [record("resp_a", A), count(A, A), record("resp_b", C, 20), record("resp_c", B, 30), count(plus(A, C, B), B, 31)],
        [("resp_a", 8, A), ("resp_b", 20, C), ("resp_c", 30, B)],
    ),
    "killed in a tool": ([record("resp_a", A)], [("resp_a", 8, A)]),
    "a tool that ran for an hour": ([record("resp_a", A), count(A, A, 3599)], [("resp_a", 8, A)]),
    "a search that the last usage leaves out": ([record("resp_a", C), count(C, SEARCH)], [("resp_a", 8, C)]),
    "a response with two records": ([record("resp_a", A), record("resp_a", A, 10), count(A, A)], [("resp_a", 8, A)]),
    "no count at all": (
        [record(f"resp_{n}", A, 10 + n) for n in range(12)],
        [(f"resp_{n}", 10 + n, A) for n in range(12)],
    ),
    "counts of an older version before the first record": (
        [count(A, A), count(plus(A, B), B, 20), record("resp_c", C, 40), count(plus(A, B, C), C, 41)],
        [("", 9, A), ("", 20, B), ("resp_c", 40, C)],
    ),
    "without records the totals moved beyond the last request": (
        [count(A, A), count(plus(A, C, B), B, 20)],
        [("", 9, A), ("", 20, B), ("", 20, C)],
    ),
    "nothing used": ([record("resp_a", NOTHING), record("resp_b", A, 9)], [("resp_b", 9, A)]),
}


@pytest.fixture
def folder(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"]) / ".codex/sessions/2026/05/02"


def turns(run: Run, command: str = "tok-read codex") -> list[Json]:
    return [event for event in objects(run(command).stdout) if event["kind"] == "turn"]


def used(event: Json) -> Counts:
    cached, output = event.get("cache_read_tokens", 0), event.get("output_tokens", 0)
    return event.get("input_tokens", 0) + cached, cached, output, event.get("reasoning_tokens", 0)


def described(events: list[Json], expected: list[tuple[str, int, Counts]]) -> list[tuple[str, str, Counts]]:
    named = {name for name, _, _ in expected}
    return sorted((event["id"] if event["id"] in named else "", event["ts"], used(event)) for event in events)


@pytest.mark.parametrize("name", CASES)
def test_what_counts(name: str, run: Run, folder: pathlib.Path) -> None:
    rows, expected = CASES[name]
    put(folder / "rollout-a.jsonl", *HEAD, *rows)
    assert described(turns(run), expected) == sorted((name, at(second), counts) for name, second, counts in expected)


@pytest.mark.parametrize("name", some_of(CASES, 3))
def test_a_rollout_that_is_read_as_it_grows_gives_the_same_log(
    name: str, run: Run, folder: pathlib.Path, environment: dict[str, str]
) -> None:
    lines = [*HEAD, *CASES[name][0]]
    path = folder / "rollout-a.jsonl"
    for length in range(1, len(lines) + 1):
        put(path, *lines[:length])
        run("tok-sync")
    run("tok-log compact")
    grown = run("tok-cat").stdout
    shutil.rmtree(environment["TOKENOPS_HOME"] + "/events")
    run("tok-sync --backfill")
    run("tok-log compact")
    assert run("tok-cat").stdout == grown
    events = [event for event in objects(grown) if event["kind"] == "turn"]
    assert described(events, CASES[name][1]) == [
        (name, at(second), counts) for name, second, counts in sorted((n, s, c) for n, s, c in CASES[name][1])
    ]


def test_a_turn_has_its_older_identity_as_alias(run: Run, folder: pathlib.Path) -> None:
    put(folder / "rollout-a.jsonl", *HEAD, *CASES["an aborted tool"][0])
    aliases = {event["id"]: event["alias"] for event in turns(run)}
    assert aliases["resp_a"] == "codex:t1:0:9000-6000-400-150"
    assert aliases["resp_c"] == "codex:t1:0:81500-35200-1620-660"
    assert aliases["resp_b"] == "codex:t1:40000:20000:0:300:50"  # it had none: what pairs it with the wire


def test_limits_are_still_read_from_counts(run: Run, folder: pathlib.Path) -> None:
    limits = {"primary": {"used_percent": 12.5, "window_minutes": 300, "resets_at": 1_777_730_000}}
    put(folder / "rollout-a.jsonl", *HEAD, record("resp_a", A), count(A, A, 50, rate_limits=limits))
    (meter,) = [event for event in objects(run("tok-read codex").stdout) if event["kind"] == "meter"]
    assert (meter["used"], meter["observed_at"]) == (0.125, at(50))


def test_a_local_servers_counter_names_one_turn_per_thread(run: Run, folder: pathlib.Path) -> None:
    for thread in ("t1", "t2"):
        head = [codex_meta(thread, model_provider="ollama"), codex_model("qwen")]
        put(folder / f"rollout-{thread}.jsonl", *head, record("resp_1", A, thread=thread))
    assert sorted(event["id"] for event in turns(run)) == ["codex:t1:resp_1", "codex:t2:resp_1"]


@pytest.mark.parametrize("parent", [True, False])
def test_copied_records_in_a_fork_are_the_turns_of_the_thread_that_they_name(
    parent: bool, run: Run, folder: pathlib.Path
) -> None:
    if parent:
        put(folder / "rollout-a.jsonl", *HEAD, record("resp_a", A), count(A, A))
    copies = [record("resp_a", A, 70), count(A, A, 70)]
    head = [codex_meta("t2", forked_from_id="t1", at=at(70)), codex_model("gpt-6-astra")]
    own = [record("resp_b", B, 90, "t2"), count(plus(A, B), B, 91)]
    put(folder / "rollout-b.jsonl", *head, *copies, *own)
    assert {(e["id"], e["session_id"], used(e)) for e in turns(run)} == {("resp_a", "t1", A), ("resp_b", "t2", B)}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_fork_of_a_thread_with_several_files_counts_none_of_them_again(
    at_once: bool, run: Run, folder: pathlib.Path
) -> None:
    """In whatever order the names of the pages sort, and whether the fork is there at the first sync or later."""
    pages = [[count(A, A, 10), count(plus(A, B), B, 20)], [count(plus(A, B, C), C, 30), count(plus(A, B, C, A), A, 40)]]
    put(folder / "rollout-z.jsonl", *HEAD, *pages[0])
    put(folder / "rollout-a.jsonl", *HEAD, *pages[1])
    if not at_once:
        run("tok-sync")
    copies = [{**row, "timestamp": at(70)} for page in pages for row in page]
    own = count(plus(A, B, C, A, B), B, 90)
    put(folder / "rollout-m.jsonl", codex_meta("t2", forked_from_id="t1", at=at(70)), codex_model("gpt-5.5"), *copies, own)
    run("tok-sync")
    counted = [event for event in objects(run("tok-cat").stdout) if event["kind"] == "turn"]
    assert sorted((e["session_id"], used(e)) for e in counted) == sorted(
        [("t1", A), ("t1", B), ("t1", C), ("t1", A), ("t2", B)]
    )


# What version 0.1.0 stored of the rollouts below: no revision, the time of the count, the last request's usage.
STORED: Json = {"v": 1, "kind": "turn", "source": "codex-jsonl", "client": "codex", "project": "app", "turns": 1}


def stored(name: str, ts: str, counts: Counts, session: str = "t1") -> Json:
    sent, cached, output, thought = counts
    given = {
        "input_tokens": sent - cached,
        "cache_read_tokens": cached,
        "output_tokens": output,
        "reasoning_tokens": thought,
    }
    alias = f"codex:{session}:{sent - cached}:{cached}:0:{output}:{thought}"
    return STORED | {"ts": ts, "id": name, "alias": alias, "session_id": session, "model": "gpt-6-astra"} | given


UPGRADES: dict[str, list[Json]] = {
    "the same day": [stored("codex:t1:0:9000-6000-400-150", at(9), A)],
    "the next day": [stored("codex:t1:0:9000-6000-400-150", "2026-05-03T00:20:00.000Z", A)],
    "after a weekend": [stored("codex:t1:0:9000-6000-400-150", "2026-05-05T09:00:00.000Z", A)],
    "what the last usage left out": [stored("codex:t1:0:81500-35200-1620-660", at(31), SEARCH)],
    "of another thread": [
        stored("codex:t1:0:34000-24400-2240-1070", at(91), B),
        stored("codex:t2:0:9000-6000-400-150", at(70), A),
    ],
    "nothing": [],
}


@pytest.mark.parametrize("again", ["tok-sync", "tok-sync --backfill"])
@pytest.mark.parametrize("name", UPGRADES)
def test_a_log_of_the_first_version_becomes_that_of_this_one(
    name: str, again: str, run: Run, folder: pathlib.Path, environment: dict[str, str]
) -> None:
    log = pathlib.Path(environment["TOKENOPS_HOME"])
    put(folder / "rollout-a.jsonl", *HEAD, *CASES["an aborted tool"][0])
    copy = {**count(A, A, 70), "timestamp": at(70)}
    own = [count(plus(A, B), B, 80), count(plus(A, B, B), B, 91)]
    put(folder / "rollout-b.jsonl", codex_meta("t2", forked_from_id="t1", at=at(70)), codex_model("gpt-5.5"), copy, *own)
    run("tok-sync")
    run("tok-log compact")
    fresh = run("tok-cat").stdout
    files = {path.name: path.read_bytes() for path in (log / "events").iterdir()}
    shutil.rmtree(log / "events")
    put(log / "events.jsonl", *UPGRADES[name])
    if UPGRADES[name]:
        run(f"tok-log append {log}/events.jsonl")
    write_as_first_version(log)
    run(again)
    assert run("tok-cat").stdout == fresh
    run("tok-log compact")
    assert {path.name: path.read_bytes() for path in (log / "events").iterdir() if path.stat().st_size} == files


def write_as_first_version(log: pathlib.Path) -> None:
    """Write the cursors as version 0.1.0 wrote them: without a checksum and the reader's revision."""
    cursors = store_cursors.content(str(log))
    assert cursors is not None
    for fields in cursors["sources"]["codex-jsonl"].values():
        state = json.loads(fields[-1])
        assert state.pop("revision") == 2
        fields[-1] = json.dumps(state)
    (log / "cursors.json").write_text(json.dumps(cursors))
