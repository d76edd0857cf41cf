"""Files that come in another order than they were written: each request counts once, for the session that made it."""

from __future__ import annotations

import itertools
import json
import os
import pathlib

import pytest
from test_half_lines import imported, kept
from test_read_claude_sums import answer, fork, stated, times

from conftest import Run, codex_count, codex_meta, codex_model, objects, put
from tokenops import read_clients, store

CODEX, CLAUDE = read_clients.BY_NAME["codex"], read_clients.BY_NAME["claude"]
ONE, TWO, THREE = (1000, 0, 50, 0), (3000, 900, 150, 10), (7000, 1900, 450, 30)


def family(folder: pathlib.Path) -> list[pathlib.Path]:
    """A thread, a fork of it, and a fork of the fork; each begins with a copy of the one before."""
    first = [codex_model("gpt-5.5"), codex_count(ONE, ONE)]
    second = [codex_count(TWO, (2000, 900, 100, 10), "2026-05-02T11:00:09.000Z")]
    third = [codex_count(THREE, (4000, 1000, 300, 20), "2026-05-02T12:00:09.000Z")]
    return [
        put(folder / "rollout-0.jsonl", codex_meta("a"), *first),
        put(folder / "rollout-1.jsonl", codex_meta("b", forked_from_id="a"), *first, *second),
        put(folder / "rollout-2.jsonl", codex_meta("c", forked_from_id="b"), *first, *second, *third),
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_forks_of_forks_in_any_order(order: tuple[int, ...], tmp_path: pathlib.Path) -> None:
    paths = family(tmp_path)
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    for number in order:
        paths[number].write_bytes(contents[number])
        imported(tmp_path / "log", CODEX, [str(path) for path in paths if path.exists()])
    counted = {record["session_id"]: record["output_tokens"] for record in kept(tmp_path / "log").values()}
    assert counted == {"a": 50, "b": 100, "c": 300}
    assert len(kept(tmp_path / "log")) == 3


def test_a_new_thread_makes_nobody_read_its_relatives_again(tmp_path: pathlib.Path) -> None:
    paths = family(tmp_path)
    imported(tmp_path / "log", CODEX, [str(path) for path in paths[:2]])
    reader, states = CODEX.reader(), {"x": '{"thread":{"id":"b","parent":"a","lineage":[["a",true]]}}'}
    assert not set(reader.dependents([str(paths[2])], states))


@pytest.mark.parametrize("order", [("s1", "s2"), ("s2", "s1")])
def test_a_forks_sums_wait_for_its_source(order: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    folder, log = tmp_path / "projects/-home-ada-app", tmp_path / "log"
    first, own = answer("msg_1", 0), answer("msg_2", 60, "s2")
    contents = {
        "s1": [first, stated(counts=times(1, 70)), answer("msg_3", 90), stated(counts=times(2, 99))],
        "s2": [*fork("s1", first), own, stated("s2", counts=times(2, 75))],
    }
    for name in order:
        put(folder / f"{name}.jsonl", *contents[name])
        imported(log, CLAUDE, [str(path) for path in sorted(folder.iterdir())])
    records = [json.loads(line) for line in store.scan(str(log))]
    rest = {record["session_id"]: record["input_tokens"] for record in records if record.get("covers") == "remainder"}
    assert rest == {"s1": 99, "s2": 5}


def test_a_damaged_file_hides_no_other(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    family(home / ".codex/sessions/2026/05/02")
    put(home / ".codex/sessions/2026/05/02/rollout-9.jsonl.zst", b"(\xb5/\xfd torn")
    os.mkfifo(home / ".codex/sessions/2026/05/02/rollout-pipe.jsonl")
    (named,) = [event["id"] for event in objects(run("tok-read codex", status=1).stdout) if event["output_tokens"] == 300]
    assert b"rollout-2.jsonl:5" in run(f"tok-log explain {named}").stdout
    coach = run("tok-coach replies --json", status=None)
    assert (
        coach.returncode in (1, 2)
        and b"Traceback" not in coach.stderr
        and b"rollout-9.jsonl.zst: cannot be unpacked" in coach.stderr
    )
