"""Tasks: every turn is of one task at most, and what a task took is what its turns took."""

from __future__ import annotations

import pathlib
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, objects
from tokenops import jsonl, pricing, store, tasks, when
from tokenops.tasks import Owners, Task

AT = when.moment("2026-11-21T09:00:00.000Z")


def stamp(minutes: float) -> str:
    return when.stamp(AT + round(minutes * 60_000))


def task(name: str, start: float, end: float | None = None, project: str = "p", session: str = "") -> Task:
    return Task(name, "", stamp(start), "" if end is None else stamp(end), project, project, session, "", "")


def turn(at: float, project: str = "p", session: str = "s", number: int = 0, **more: Any) -> Json:
    about = {"kind": "turn", "id": f"msg_{at}_{number}", "project": project, "project_id": project, "session_id": session}
    about |= {"provider": "anthropic", "model": "claude-opus-4-8", "client": "claude-code", "source": "claude-code-jsonl"}
    return {"v": 1, "ts": stamp(at), **about, "turns": 1, "output_tokens": 1000, "cache_read_tokens": 20_000, **more}


def work(at: float, counts: Json | None = None, session: str = "s", **times: float) -> Json:
    about = {"kind": "work", "id": f"work:{session}:{at}", "project_id": "p", "session_id": session}
    return {
        "v": 1,
        "ts": stamp(at),
        **about,
        "counts": counts or {},
        "times": {key: stamp(value) for key, value in times.items()},
    }


OWNERS: list[tuple[str, list[Task], Json, str | None]] = [
    ("before the start", [task("a", 10)], turn(9), None),
    ("within", [task("a", 10, 20)], turn(10), "a"),
    ("at the end", [task("a", 10, 20)], turn(20), None),
    ("of another project", [task("a", 10)], turn(15, "q"), None),
    ("the one opened last", [task("a", 10), task("b", 12)], turn(15), "b"),
    ("and after its end the other", [task("a", 10), task("b", 12, 14)], turn(15), "a"),
    ("of the session only", [task("a", 10, session="s"), task("b", 5)], turn(15, session="t"), "b"),
    ("session or project, whichever was opened last", [task("a", 10, session="s"), task("b", 12)], turn(15), "b"),
    ("a turn of no project", [task("a", 10)], {**turn(15), "project_id": ""}, None),
]


@pytest.mark.parametrize(("what", "found", "record", "owner"), OWNERS, ids=[case[0] for case in OWNERS])
def test_whose_a_turn_is(what: str, found: list[Task], record: Json, owner: str | None) -> None:
    mine = Owners(found).owner(record)
    assert (mine and mine.name) == owner


SPANS = st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(1, 60), st.sampled_from("pq"), st.sampled_from(["", "s", "t"])), max_size=8)  # fmt: skip
TURNS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from("pqr"), st.sampled_from("stu")), max_size=30)


@given(SPANS, TURNS)
def test_no_turn_is_counted_twice_and_none_outside_its_task(spans: Any, given: Any) -> None:
    found = sorted(
        (task(f"t{n}", start, None if length is None else start + length, project, session) for n, (start, length, project, session) in enumerate(spans)),
        key=lambda one: (one.started, one.name),
    )  # fmt: skip
    turns = [turn(at, project, session, n) for n, (at, project, session) in enumerate(given)]
    took = tasks.metrics(found, turns, pricing.load(), stamp(999))
    owned = [one for record in turns if (one := Owners(found).owner(record))]
    assert sum(one["turns"] for one in took.values()) == len(owned) <= len(turns)
    for one in found:
        mine = [record for record in turns if Owners(found).owner(record) == one]
        assert took[one.name]["turns"] == len(mine)
        assert all(record["ts"] >= one.started and (not one.ended or record["ts"] < one.ended) for record in mine)


FIRST: list[tuple[str, list[Json], float | None]] = [
    ("nothing is known", [], None),
    ("an edit", [work(10, edit=13, reply=11)], 13),
    ("a command before the edit", [work(10, edit=13, command=12)], 12),
    ("only answers", [work(10, reply=11), work(15, reply=16)], 11),
    ("an edit that was corrected", [work(10, edit=11), work(15, {"corrections": 1}, edit=17)], 17),
    ("an answer that was asked for again", [work(10, reply=11), work(15, {"regenerations": 1}, reply=18)], 18),
    ("another session's correction changes nothing", [work(10, edit=11), work(15, {"corrections": 1}, "t", edit=17)], 11),
    ("what came before the task", [work(1, edit=2), work(10, reply=11)], 11),
    ("a subagent's work", [{**work(10, edit=11), "sidechain": True}, work(12, edit=14)], 14),
]


@pytest.mark.parametrize(("what", "rounds", "expected"), FIRST, ids=[case[0] for case in FIRST])
def test_the_first_useful_output(what: str, rounds: list[Json], expected: float | None) -> None:
    assert tasks.first_use(rounds, stamp(9)) == (None if expected is None else stamp(expected))


def repository(path: pathlib.Path, branch: str) -> None:
    for arguments in (["init", "-q", "-b", branch], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]):  # fmt: skip
        subprocess.run(["git", *arguments], cwd=path, check=True)


def test_from_start_to_end(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    folder = environment["TOKENOPS_HOME"]
    repository(tmp_path, "mend-it")
    name = run("tok-task start mend the cutoff test", env={"TOKENOPS_NOW": stamp(0)}).stdout.decode().strip()
    (opened,) = objects(run("tok-task list --json").stdout)
    assert (opened["task"], opened["title"], opened["branch"], opened["ended_at"]) == (
        name,
        "mend the cutoff test",
        "mend-it",
        None,
    )
    assert len(opened["commit"]) == 40 and opened["project"] == tmp_path.name
    (record,) = objects(run("tok-cat --kind task").stdout)
    mine = record["project_id"]
    store.append(
        folder,
        map(
            jsonl.line_of,
            [turn(5, mine), turn(9, mine), turn(30, mine), turn(6, "other"), work(4, edit=7) | {"project_id": mine}],
        ),
    )
    assert run("tok-task done", env={"TOKENOPS_NOW": stamp(20)}).stdout.decode().strip() == name
    (told,) = objects(run(f"tok-task show {name} --json").stdout)
    took = told["metrics"]
    assert (took["turns"], took["output_tokens"], took["duration_s"], took["ttfuo_s"]) == (2, 2000, 1200, 420)
    assert (took["cost_usd"], took["cost_per_turn_usd"]) == ("0.07", "0.035")
    (branch,) = objects(run("tok-task list --by branch --json").stdout)
    assert (branch["branch"], branch["tasks"], branch["cost_usd"]) == ("mend-it", 1, "0.07")
    shown = run("tok-task --metrics --table").stdout.decode()
    assert "mend the cutoff test" in shown and "$0.07" in shown and "20m" in shown and "7m" in shown


def test_several_open_at_once(run: Run, tmp_path: pathlib.Path) -> None:
    first, second = (
        run(f"tok-task start {title}", env={"TOKENOPS_NOW": stamp(at)}).stdout.decode().strip()
        for at, title in ((0, "a"), (1, "b"))
    )
    assert run("tok-task done", env={"TOKENOPS_NOW": stamp(2)}).stdout.decode().strip() == second
    assert b"ended at" in run(f"tok-task done {second}", status=2).stderr
    (tmp_path / "elsewhere/.git").mkdir(parents=True)
    assert f"open elsewhere: {first}" in run("cd elsewhere && tok-task done", status=2).stderr.decode()
    run(f"cd elsewhere && tok-task done {first}")
    assert b"no task of this project is open" in run("tok-task done", status=2).stderr
    assert all(one["ended_at"] for one in objects(run("tok-task --json").stdout))


def test_what_is_wrong(run: Run, environment: dict[str, str]) -> None:
    assert b"no task in this span" in run("tok-task", status=1).stderr
    assert b"there is no task 'x'" in run("tok-task done x", status=2).stderr
    assert b"there is no task 'x'" in run("tok-task show x", status=2).stderr
    assert b"name one task" in run("tok-task show", status=2).stderr
    assert b"at most 200 characters" in run(f"tok-task start {'x' * 201}", status=2).stderr
    assert b"--since" in run("tok-task list --since soon", status=2).stderr
    assert not pathlib.Path(environment["TOKENOPS_HOME"], "events").exists()


def test_a_model_without_a_price_does_not_blank_the_cost_of_the_others(run: Run, environment: dict[str, str]) -> None:
    """One turn of four has no price: the cost is that of three, per turn too, and the model is named."""
    name = run("tok-task start x", env={"TOKENOPS_NOW": stamp(0)}).stdout.decode().strip()
    (record,) = objects(run("tok-cat --kind task").stdout)
    priced = [turn(minute, record["project_id"]) for minute in (1, 2, 3)]
    store.append(environment["TOKENOPS_HOME"], map(jsonl.line_of, priced))
    (before,) = objects(run(f"tok-task show {name} --json").stdout)
    unknown = turn(4, record["project_id"], model="no-such-model")
    store.append(environment["TOKENOPS_HOME"], [jsonl.line_of(unknown)])
    (after,) = objects(run(f"tok-task show {name} --json").stdout)
    for field in ("cost_usd", "cost_per_turn_usd"):
        assert after["metrics"][field] == before["metrics"][field]
    assert after["metrics"]["turns"] == 4 and after["metrics"]["unpriced"][0]["turns"] == 1


def test_an_unpriced_model_makes_no_cost(run: Run, environment: dict[str, str]) -> None:
    name = run("tok-task start x", env={"TOKENOPS_NOW": stamp(0)}).stdout.decode().strip()
    (record,) = objects(run("tok-cat --kind task").stdout)
    unknown = turn(1, record["project_id"], model="no-such-model")
    store.append(environment["TOKENOPS_HOME"], [jsonl.line_of(unknown)])
    (told,) = objects(run(f"tok-task show {name} --json").stdout)
    assert "cost_usd" not in told["metrics"] and told["metrics"]["unpriced"][0]["model"] == "no-such-model"
    assert told["metrics"]["ttfuo_s"] is None
