"""Codex rollouts: moved totals decide what is new, and each turn has one owner."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import scripts
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, codex_count, codex_meta, codex_model, examples, lines, objects, put, totals
from tokenops import read_codex, read_codex_owners, read_codex_threads, read_lines, read_records
from tokenops.read_contract import Intake

A = (9000, 6000, 400, 150)
B = (21_500, 15_200, 1320, 610)
AB = (12_500, 9200, 920, 460)


def add(a: tuple[int, ...], b: tuple[int, ...]) -> Any:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def steps(home: pathlib.Path) -> Iterator[None]:
    """A thread that works and whose model is named late, a fork of it and a fork of that, and a fork of one that is gone."""
    folder = home / ".codex/sessions/2026/06/01"
    script = scripts.Codex()
    limits = {"primary": {"used_percent": 12.5, "window_minutes": 300, "resets_at": 1_780_308_000}}

    def count(number: int, **payload: Any) -> None:
        total: Any = tuple(number * x for x in OWN)
        script.line("event_msg", codex_count(total, OWN, **payload)["payload"])

    count(1)
    parent = put(folder / f"rollout-a-{script.thread}.jsonl", script.bytes())
    yield
    script.turn()
    script.human("Why does the parser drop the last line? See src/parser.py")
    script.runs("pytest -q", "1 failed", 1)
    count(2, rate_limits=limits)
    put(parent, script.bytes()[:-200])
    yield
    put(parent, script.bytes())
    yield
    before = list(script.lines)
    for name, cut in (("b", len(before)), ("c", len(before) - 1)):
        fork = scripts.Codex(f"2026-06-01T1{cut - len(before) + 1}:00:00", forked_from_id=script.thread)
        copies = [{**line, "timestamp": fork.lines[0]["timestamp"]} for line in before[1:cut]]
        fork.lines += copies
        path = put(folder / f"rollout-{name}-{fork.thread}.jsonl", fork.bytes())
        yield
        fork.turn()
        fork.human("now the other one")
        fork.runs("rm -rf build")
        fork.line("event_msg", codex_count((5000, 0, 300, 0), (3000, 0, 200, 0), rate_limits=limits)["payload"])
        put(path, fork.bytes())
        yield
    lost = child("c9", own_row())
    for cut in (3, 4, 5):
        put(folder / "rollout-d.jsonl", *lost[:cut])
        yield


@pytest.fixture
def sessions(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"]) / ".codex/sessions/2026/05/02"


def turns(run: Run, options: str = "", **given: Any) -> list[Json]:
    return [event for event in objects(run(f"tok-read codex {options}", **given).stdout) if event["kind"] == "turn"]


def at_second(rows: list[Json]) -> list[Json]:
    """The same rows, a second apart."""
    return [{**row, "timestamp": f"2026-05-02T10:00:{n:02d}.000Z"} for n, row in enumerate(rows)]


def counts(events: list[Json]) -> list[tuple[int, int, int, int]]:
    names = ("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")
    return [tuple(event.get(name, 0) for name in names) for event in events]  # type: ignore[misc]


def test_two_turns_and_two_repetitions_are_two(run: Run, sessions: pathlib.Path) -> None:
    put(
        sessions / "rollout-a.jsonl",
        codex_meta("t1"),
        codex_model("gpt-5.5"),
        codex_count(A, A),
        codex_count(A, A, "2026-05-02T10:00:40.000Z"),
        codex_count(B, AB, "2026-05-02T10:01:00.000Z"),
        codex_count(B, AB, "2026-05-02T10:05:00.000Z"),
    )
    first, second = turns(run)
    assert counts([first, second]) == [(3000, 6000, 400, 150), (3300, 9200, 920, 460)]
    assert (first["id"], first["model"], first["provider"]) == ("codex:t1:0:9000-6000-400-150", "gpt-5.5", "openai")
    assert (first["session_id"], first["agent_id"], first["workflow_id"]) == ("t1", "codex:app", "codex:app:t1")
    assert first["alias"] == "codex:t1:3000:6000:0:400:150"
    assert second["ts"] == "2026-05-02T10:01:00.000Z"


CASES: dict[str, tuple[list[Json], list[tuple[int, int, int, int]]]] = {
    "resumed: the first total is old, the last is new": ([codex_count(B, A)], [(3000, 6000, 400, 150)]),
    "an older total written late": (
        [codex_count(B, B), codex_count((21_400, 15_100, 1310, 600), A), codex_count(add(B, A), A)],
        [(6300, 15_200, 1320, 610), (3000, 6000, 400, 150)],
    ),
    "a reset": (
        [codex_count((900_000, 800_000, 9000, 100), A), codex_count(A, A), codex_count(B, AB)],
        [(3000, 6000, 400, 150), (3000, 6000, 400, 150), (3300, 9200, 920, 460)],
    ),
    "zeros after a compaction": (
        [codex_count(A, A), codex_count((0, 0, 0, 0), (0, 0, 0, 0)), codex_count(A, (0, 0, 0, 0)), codex_count(B, AB)],
        [(3000, 6000, 400, 150), (3300, 9200, 920, 460)],
    ),
    "no info": ([codex_count(None, None), codex_count(A, A)], [(3000, 6000, 400, 150)]),
    "only totals": (
        [codex_count(A, None), codex_count(A, None), codex_count(B, None)],
        [(3000, 6000, 400, 150), (3300, 9200, 920, 460)],
    ),
    "only totals, regressed": (
        [codex_count((900_000, 0, 0, 0), None), codex_count(A, None), codex_count(B, None)],
        [(900_000, 0, 0, 0), (3300, 9200, 920, 460)],
    ),
    "only the last": ([codex_count(None, A), codex_count(None, AB)], [(3000, 6000, 400, 150), (3300, 9200, 920, 460)]),
    "more cached than sent": ([codex_count((10, 20, 5, 9), (10, 20, 5, 9))], [(0, 10, 5, 5)]),
    "the totals moved beyond the last: the rest is a turn of its own": (
        [codex_count(A, A), codex_count(add(B, B), AB)],
        [(3000, 6000, 400, 150), (3300, 9200, 920, 460), (6300, 15_200, 1320, 610)],
    ),
    "an old shape": (
        [
            {
                "timestamp": "2026-05-02T10:00:09.000Z",
                "type": "event_msg",
                "payload": {"type": "token_count", "info": {"prompt": 9}},
            }
        ],
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_new(name: str, run: Run, sessions: pathlib.Path) -> None:
    rows, expected = CASES[name]
    put(sessions / "rollout-a.jsonl", codex_meta("t1"), codex_model("gpt-5.5"), *at_second(rows))
    found = turns(run)
    assert counts(found) == expected
    assert len({event["id"] for event in found}) == len(expected)


def test_the_model_is_filled_back_and_never_invented(run: Run, sessions: pathlib.Path) -> None:
    put(sessions / "rollout-a.jsonl", codex_meta("t1"), codex_count(A, A), codex_model("gpt-5.5"), codex_count(B, AB))
    put(sessions / "rollout-b.jsonl", codex_meta("t2", model_provider=None), codex_count(A, A))
    put(sessions / "rollout-c.jsonl", codex_meta("t3", model_provider="aide"), codex_model("aide-gpt-5"), codex_count(A, A))
    found = {(event["session_id"], event["output_tokens"]): event for event in turns(run)}
    assert found["t1", 400]["model"] == found["t1", 920]["model"] == "gpt-5.5"
    assert found["t2", 400]["model"] == "unknown"
    assert "provider" not in found["t2", 400]
    assert found["t3", 400]["provider"] == "aide"


def test_a_masked_model_is_none(run: Run, sessions: pathlib.Path) -> None:
    put(sessions / "rollout-a.jsonl", codex_meta("t1"), codex_model("gpt-5.5"), codex_model("[trimmed]"), codex_count(A, A))
    assert [event["model"] for event in turns(run)] == ["gpt-5.5"]


def test_the_served_tier_comes_from_the_thread_settings(run: Run, sessions: pathlib.Path) -> None:
    def settings_line(tier: str | None) -> Json:
        payload = {"type": "thread_settings_applied", "thread_settings": {"service_tier": tier}}
        return {"timestamp": "2026-05-02T10:00:01.000Z", "type": "event_msg", "payload": payload}

    rows, expected = [], []
    total: Any = (0, 0, 0, 0)
    for tier in ("default", "priority", None, "fast", "flex", "auto"):
        total = add(total, A)
        rows += [settings_line(tier), codex_count(total, A)]
        expected.append(tier if tier in ("priority", "fast", "flex") else None)
    put(sessions / "rollout-a.jsonl", codex_meta("t1"), codex_model("gpt-5.5"), *at_second(rows))
    found = turns(run)
    assert [event.get("tier") for event in found] == expected


def test_limits_of_counted_rows_are_readings(run: Run, sessions: pathlib.Path) -> None:
    now = {
        "primary": {"used_percent": 12.5, "window_minutes": 300, "resets_at": 1_777_730_000},
        "secondary": None,
        "plan_type": "plus",
    }
    weekly_first = {
        "primary": {"used_percent": 101, "window_minutes": 10_080, "resets_at": 1_778_200_000},
        "limit_id": "codex_x",
    }
    in_seconds = {"primary": {"used_percent": 2.0, "window_minutes": 299, "resets_in_seconds": 600}}
    flat = {
        "primary_used_percent": 0.0,
        "primary_window_minutes": 299,
        "secondary_used_percent": 7.0,
        "secondary_window_minutes": 10_079,
    }
    total: Any = (0, 0, 0, 0)
    rows = []
    for limits in (now, weekly_first, in_seconds, flat, {"primary": None, "limit_id": "premium"}):
        total = add(total, A)
        rows += [
            codex_count(total, A, rate_limits=limits),
            codex_count(total, A, rate_limits={"primary": {"used_percent": 99, "window_minutes": 300}}),
        ]
    put(sessions / "rollout-a.jsonl", codex_meta("t1"), codex_model("gpt-5.5"), *rows)
    found = [e for e in objects(run("tok-read codex").stdout) if e["kind"] == "meter"]
    read = sorted((e["window"], e["used"], e.get("resets_at"), e.get("scope"), e.get("plan")) for e in found)
    assert read == [
        ("five_hour", 0.0, None, None, None),
        ("five_hour", 0.02, "2026-05-02T10:10:09.000Z", None, None),
        ("five_hour", 0.125, "2026-05-02T13:53:20.000Z", None, "plus"),
        ("weekly", 0.07, None, None, None),
        ("weekly", 1.01, "2026-05-08T00:26:40.000Z", "codex_x", None),
    ]


PARENT = [codex_count(A, A, "2026-05-02T10:00:09.000Z"), codex_count(B, AB, "2026-05-02T10:01:00.000Z")]
OWN = (1000, 0, 50, 0)
COPY = "2026-05-02T11:00:00.100Z"


def child(name: str, *own: Json, **meta: Any) -> list[Json]:
    """A fork of p1: its parent's lines under new times, then its own."""
    copies = [{**row, "timestamp": COPY} for row in PARENT]
    return [
        codex_meta(name, forked_from_id="p1", at="2026-05-02T11:00:00.000Z", **meta),
        codex_model("gpt-5.5"),
        *copies,
        *own,
    ]


def own_row(n: int = 1) -> Json:
    return codex_count(add(B, tuple(n * x for x in OWN)), OWN, f"2026-05-02T11:0{n}:30.000Z")


def test_a_parent_and_sixteen_children_count_it_once(run: Run, sessions: pathlib.Path) -> None:
    put(sessions / "rollout-p.jsonl", codex_meta("p1"), codex_model("gpt-5.5"), *PARENT)
    for n in range(16):
        put(sessions / f"rollout-c{n:02d}.jsonl", *child(f"c{n}", own_row()))
    found = turns(run)
    assert len(found) == 2 + 16
    assert totals(found)["output_tokens"] == 400 + 920 + 16 * 50
    assert {event["session_id"] for event in found} == {"p1", *(f"c{n}" for n in range(16))}
    assert min(event["ts"] for event in found) == "2026-05-02T10:00:09.000Z"


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_the_order_of_files_does_not_matter(order: tuple[str, ...], run: Run, sessions: pathlib.Path) -> None:
    files = {
        "a": [codex_meta("p1"), codex_model("gpt-5.5"), *PARENT],
        "b": child("c1", own_row()),
        "c": [
            codex_meta("g1", forked_from_id="c1", at="2026-05-02T12:00:00.000Z"),
            codex_model("gpt-5.5"),
            *({**row, "timestamp": "2026-05-02T12:00:00.200Z"} for row in [*PARENT, own_row()]),
            codex_count(add(add(B, OWN), OWN), OWN, "2026-05-02T12:30:00.000Z"),
        ],
    }
    for place, name in enumerate(order):
        put(sessions / f"rollout-{place}.jsonl", *files[name])
    found = turns(run)
    assert [event["session_id"] for event in found] == ["p1", "p1", "c1", "g1"]
    for jobs in (2, 3):
        assert turns(run, options=f"--jobs {jobs}") == found


def test_siblings_of_a_missing_parent_count_its_turns_once(run: Run, sessions: pathlib.Path) -> None:
    put(sessions / "rollout-b.jsonl", *child("c1", own_row()))
    put(sessions / "rollout-c.jsonl", *child("c2", own_row()))
    found = turns(run)
    assert sorted(event["id"] for event in found) == [
        "codex:c1:0:22500-15200-1370-610",
        "codex:c2:0:22500-15200-1370-610",
        "codex:p1:0:21500-15200-1320-610",
        "codex:p1:0:9000-6000-400-150",
    ]


def generations(count: int, told: bool) -> list[tuple[str, list[Json]]]:
    """Threads of which each is forked from the one before and makes a turn; `told`: turns have ids that hold a time."""
    made: list[tuple[str, list[Json]]] = []
    total: Any = (0, 0, 0, 0)
    for n in range(count):
        born, at = f"019aa0c4-{n:x}000-7000-8000-00000000c0de", f"2026-05-02T1{n}:00:00.000Z"
        parent = {"forked_from_id": made[-1][0]} if made else {}
        total = add(total, OWN)
        copies = [{**row, "timestamp": at} for row in made[-1][1]] if made else []
        turn = {"turn_id": f"019aa0c4-{n:x}800-7000-8000-000000000001"} if told else {}
        own = [codex_model("gpt-5.5", **turn), codex_count(total, OWN, f"2026-05-02T1{n}:30:00.000Z")]
        made.append((born, [codex_meta(born, at=at, **parent), *copies, *own]))
    return made


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("gone", [set(some) for n in range(4) for some in itertools.combinations(range(4), n)])
def test_forks_of_forks_whose_files_are_gone(gone: set[int], told: bool, run: Run, sessions: pathlib.Path) -> None:
    threads = generations(4, told)
    for n, (name, rows) in enumerate(threads):
        if n not in gone:
            put(sessions / f"rollout-{n}-{name}.jsonl", *rows)
    found = turns(run)
    last = max(set(range(4)) - gone)
    owners = [name for name, _ in threads[: last + 1]]
    if told or not any({n, n + 1} <= gone for n in range(last)):
        assert [event["session_id"] for event in found] == owners
    assert len({event["id"] for event in found}) == len(owners)  # in any case each once


@pytest.mark.parametrize("told", [True, False])
def test_a_fork_of_a_fork_after_its_parent_was_read_and_deleted(told: bool, run: Run, sessions: pathlib.Path) -> None:
    threads = generations(3, told)
    paths = [sessions / f"rollout-{n}-{name}.jsonl" for n, (name, _) in enumerate(threads)]
    for path, (_, rows) in zip(paths[:2], threads[:2], strict=True):
        put(path, *rows)
    run("tok-sync")
    paths[1].unlink()
    put(paths[2], *threads[2][1])
    run("tok-sync")
    found = objects(run("tok-cat --kind turn").stdout)
    assert [event["session_id"] for event in found] == [name for name, _ in threads]


def test_turn_ids_end_the_copy_exactly(run: Run, sessions: pathlib.Path) -> None:
    born = "019aa0c4-2c00-7000-8000-00000000c0de"
    before, after = "019aa0c4-0000-7000-8000-000000000001", "019aa0c4-9999-7000-8000-000000000002"
    rows = [
        codex_meta(
            born,
            parent_thread_id="p1",
            thread_source="subagent",
            source={"subagent": {"thread_spawn": {"parent_thread_id": "p1"}}},
        )
    ]
    rows += [codex_model("gpt-5.5", turn_id=before), codex_count(A, A, COPY)]
    rows += [codex_model("gpt-5.5", turn_id=after), codex_count(add(A, OWN), OWN, "2026-05-02T11:00:09.000Z")]
    put(sessions / f"rollout-2026-{born}.jsonl", *rows)
    copied, own = turns(run)
    assert (copied["id"], own["id"]) == ("codex:p1:0:9000-6000-400-150", f"codex:{born}:0:10000-6000-450-150")
    assert own["sidechain"] is True
    assert copied["session_id"] == "p1"


def test_a_spawned_child_that_copies_nothing_owns_its_turns(run: Run, sessions: pathlib.Path) -> None:
    for n in range(3):  # the same prompt, the same counts, three turns
        put(
            sessions / f"rollout-{n}.jsonl",
            codex_meta(f"c{n}", parent_thread_id="p1"),
            codex_model("gpt-5.5"),
            codex_count(A, A),
        )
    assert len(turns(run)) == 3


def test_copied_limits_are_no_fresh_readings(run: Run, sessions: pathlib.Path) -> None:
    limits = {"primary": {"used_percent": 50, "window_minutes": 300, "resets_at": 1_777_730_000}}
    row = codex_count(A, A, rate_limits=limits)
    put(sessions / "rollout-p.jsonl", codex_meta("p1"), codex_model("gpt-5.5"), row)
    put(
        sessions / "rollout-c.jsonl",
        codex_meta("c1", forked_from_id="p1"),
        codex_model("gpt-5.5"),
        {**row, "timestamp": COPY},
    )
    found = [event for event in objects(run("tok-read codex").stdout) if event["kind"] == "meter"]
    assert [event["observed_at"] for event in found] == ["2026-05-02T10:00:09.000Z"]


@given(
    st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 2), st.sampled_from((None, 60)), st.sampled_from((300, 10_080))),
        min_size=1,
        max_size=12,
    )
)
def test_readings_are_those_of_each_row(rows: list[tuple[int, int, int | None, int]]) -> None:
    thread = read_codex_threads.Thread("t1", provider="openai", own=True)
    for second, used, left, minutes in rows:
        window = {"used_percent": used, "window_minutes": minutes, "resets_in_seconds": left}
        limits = {"limit_id": "codex", "primary": window, "secondary": {**window, "window_minutes": 43_200}}
        raw = codex_count((len(thread.rows) + 1, 0, 1, 0), (1, 0, 1, 0), rate_limits=limits)
        thread.take(raw | {"timestamp": f"2026-05-02T10:{second // 60:02d}:{second % 60:02d}.000Z"})
    one_by_one: dict[str, Json] = {}
    for row in thread.rows:
        assert row.limits is not None
        read_records.keep(one_by_one, read_codex.meters_of(row.limits, row.ts, "openai"))
    seen: dict[str, read_records.Entry] = {}
    owned = [read_codex_owners.Owned(row, str(n), "t1", True) for n, row in enumerate(thread.rows)]
    read_records.keep_entries(seen, read_codex.entries_of(thread, owned, Intake()))
    found = [read_records.record(entry) for entry in seen.values()]
    assert {event["id"]: event for event in found if event["kind"] == "meter"} == one_by_one


def test_archived_and_active_copies_are_one(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"]) / ".codex"
    rows = [codex_meta("t1"), codex_model("gpt-5.5"), *PARENT]
    put(home / "sessions/2026/05/02/rollout-a.jsonl", *rows)
    put(home / "archived_sessions/rollout-a.jsonl", *rows[:-1])
    assert len(turns(run)) == 2


def test_codex_home_lists(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "one/sessions/rollout-a.jsonl", codex_meta("t1"), codex_model("gpt-5.5"), codex_count(A, A))
    put(tmp_path / "two/archived_sessions/rollout-b.jsonl", codex_meta("t2"), codex_model("gpt-5.5"), codex_count(A, A))
    found = turns(run, env={"CODEX_HOME": f"{tmp_path}/one, {tmp_path}/two"})
    assert [event["session_id"] for event in found] == ["t1", "t2"]


def test_unnamed_threads_are_named_after_their_file(run: Run, sessions: pathlib.Path) -> None:
    name = "0196f0aa-0000-7000-8000-00000000000a"
    put(sessions / f"rollout-2026-05-02T10-00-00-{name}.jsonl", codex_model("gpt-5.5", cwd="/w/site"), codex_count(A, A))
    (found,) = turns(run)
    assert (found["session_id"], found["project"]) == (name, "site")


def test_bad_rows_are_rejected_alone(run: Run, sessions: pathlib.Path) -> None:
    bad = codex_count(B, AB)
    bad["payload"]["info"]["last_token_usage"]["input_tokens"] = "many"
    late = codex_count(add(B, B), B, "someday")
    path = put(
        sessions / "rollout-a.jsonl",
        codex_meta("t1"),
        codex_model("gpt-5.5"),
        codex_count(A, A),
        bad,
        b"{torn\n",
        late,
        codex_count(add(B, A), A),
    )
    done = run("tok-read codex", status=1)
    # The totals hold what the bad row used.
    kept = counts([e for e in objects(done.stdout) if e["kind"] == "turn"])
    assert sorted(kept) == [(3000, 6000, 400, 150)] * 2 + [(3300, 9200, 920, 460)]
    said = done.stderr.decode().splitlines()
    assert [line.split(": ")[1] for line in said] == [f"{path}:{n}" for n in (4, 5, 6)]


ROW = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))


@examples(40)
@given(st.lists(st.tuples(st.none() | ROW, st.none() | ROW), max_size=8), st.lists(st.binary(max_size=30), max_size=3))
def test_any_rows_never_crash_and_never_count_below_zero(tmp_path_factory: Any, rows: list[Any], noise: list[bytes]) -> None:
    path = put(
        tmp_path_factory.mktemp("r") / "rollout-x.jsonl",
        codex_meta("t1"),
        *(codex_count(*row) for row in rows),
        *(n + b"\n" for n in noise),
    )
    thread = read_codex_threads.thread_of(str(path))
    read_codex_threads.read(str(path), thread, read_lines.Cursor(), bytearray(64), Intake())
    assert read_codex_threads.from_data(read_codex_threads.as_data(thread)) == thread
    for row in thread.rows:
        assert all(value > 0 for value in row.counts.values())


def test_lines_helper_is_compact() -> None:
    assert lines([{"a": 1}]) == b'{"a":1}\n'


def test_what_was_written_to_a_cache_is_inside_the_input(run: Run, tmp_path: pathlib.Path) -> None:
    """Since 0.140; where only the totals say it, it is their difference."""
    first, second = codex_count((1000, 200, 50, 10), (1000, 200, 50, 10)), codex_count((3000, 1000, 90, 10), None)
    first["payload"]["info"]["total_token_usage"]["cache_write_input_tokens"] = 300
    first["payload"]["info"]["last_token_usage"]["cache_write_input_tokens"] = 300
    second["payload"]["info"]["total_token_usage"]["cache_write_input_tokens"] = 700
    path = put(tmp_path / "sessions/rollout-1.jsonl", codex_meta("t1"), codex_model("gpt-6.1"), first, second)
    one, two = objects(run(f"tok-read codex --root {path}").stdout)
    assert (one["input_tokens"], one["cache_read_tokens"], one["cache_write_tokens"], one["output_tokens"]) == (
        500,
        200,
        300,
        50,
    )
    assert (two["input_tokens"], two["cache_read_tokens"], two["cache_write_tokens"], two["output_tokens"]) == (
        800,
        800,
        400,
        40,
    )
    assert one["id"] == "codex:t1:0:1000-200-50-10" and one["alias"] == "codex:t1:800:200:0:50:10"
