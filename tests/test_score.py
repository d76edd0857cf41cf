"""The scorecard: each number from what it says it is from, and no grade where there is too little."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, objects, put
from tokenops import config, jsonl, scorecard, store, when

AT = when.moment("2026-11-21T09:00:00.000Z")
NOW = {"TOKENOPS_NOW": "2026-11-21T12:00:00Z"}
RULES = config.thresholds(config.Config({}, "", []))["score"]


def stamp(minutes: float) -> str:
    return when.stamp(AT + round(minutes * 60_000))


def work(minutes: float, session: str = "s", side: bool = False, times: Json | None = None, **counts: int) -> Json:
    about: Json = {"kind": "work", "id": f"work:{session}:{minutes}:{side}", "client": "claude-code", "project": "p"}
    about |= {"session_id": session} | ({"sidechain": True} if side else {})
    return {
        "v": 1,
        "ts": stamp(minutes),
        **about,
        "counts": counts,
        "times": {key: stamp(value) for key, value in (times or {}).items()},
    }


def row(cost: str = "1", turns: int = 30, **more: Any) -> Json:
    return {"turns": turns, "cost_usd": cost, "project": "p", "session_id": "s", "input_tokens": 100, **more}


def value(
    name: str, rows: list[Json] | None = None, rounds: list[Json] | None = None, savings: list[Json] | None = None
) -> Any:
    found = scorecard.measures(rows or [], rounds or [], savings or [], RULES)[name]
    return None if found.value is None else round(found.value, 3), found.observations


CASES: list[tuple[str, Json, tuple[float | None, int]]] = [
    ("chr", {"rows": [row(cache_read_tokens=800, cache_write_tokens=50, cache_write_1h_tokens=50)]}, (80.0, 30)),
    ("chr", {"rows": []}, (None, 0)),
    ("sac", {"rows": [row("3"), row("1", project=None)]}, (75.0, 60)),
    ("sac", {"rows": [row("3"), row("1", session_id="")]}, (75.0, 60)),
    ("sac", {"rows": [{**row(), "cost_usd": "0"}]}, (None, 0)),
    ("teu", {"rows": [row()], "savings": []}, (None, 0)),
    ("teu", {"rows": [row()], "savings": [{"saved_tokens": 100}]}, (50.0, 30)),
    ("cgr", {"rounds": [work(1, prompts=10, acknowledgements=2)]}, (20.0, 10)),
    ("cgr", {"rounds": [work(n, prompts=1, continuations=1) for n in range(6)] + [work(9, "t", prompts=4, acknowledgements=1)]}, (25.0, 4)),
    ("cgr", {"rounds": [work(n, prompts=1, continuations=1, acknowledgements=1) for n in range(29)] + [work(99, "t", prompts=5, acknowledgements=1)]}, (20.0, 5)),
    ("cgr", {"rounds": [work(n, prompts=1, continuations=1, acknowledgements=1) for n in range(5)] + [work(9, "t", prompts=5)]}, (50.0, 10)),
    ("cgr", {"rounds": [work(n, prompts=1, continuations=1) for n in range(5)] + [work(9, "t", prompts=5, acknowledgements=1)]}, (10.0, 10)),
    ("rgr", {"rounds": [work(1, prompts=20, corrections=1, regenerations=2)]}, (15.0, 20)),
    ("tcs", {"rounds": [work(1, tool_results=110, tool_failures=10, tool_denials=6, tool_cancels=4)]}, (90.0, 100)),
    ("tcs", {"rounds": [work(1, tool_results=4, tool_denials=4)]}, (None, 0)),
    ("dar", {"rounds": [work(1, command_calls=200, read_calls=900, destructive=1)]}, (0.5, 200)),
    ("dar", {"rounds": [work(1, read_calls=900)]}, (None, 0)),
    ("fvt", {"rounds": [work(0, times={"prompt": 0, "reply": 1, "edit": 2})]}, (60.0, 1)),
    ("fvt", {"rounds": [work(0, times={"prompt": 0}), work(3, times={"prompt": 3, "command": 4})]}, (240.0, 1)),
    ("fvt", {"rounds": [work(0, times={"prompt": 5, "reply": 1})]}, (None, 0)),
    ("fvt", {"rounds": [work(0, "a", times={"prompt": 0, "reply": 1}), work(0, "b", times={"prompt": 0, "reply": 3}), work(0, "b", True, times={"prompt": 0, "reply": 0})]}, (120.0, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "expected"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_each_number(name: str, given: Json, expected: tuple[float | None, int]) -> None:
    assert value(name, **given) == expected


GRADES = [("chr", 90, "A"), ("chr", 89.99, "B"), ("chr", 50, "C"), ("chr", 49.9, "F"), ("fvt", 60, "A"), ("fvt", 61, "B"), ("fvt", 901, "F"), ("dar", 0.5, "A"), ("dar", 5.01, "F"), ("cgr", 10, "A"), ("tcs", 70, "C"), ("rgr", 20, "C"), ("teu", 5, "C"), ("sac", 69, "C")]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "unit", "parts", "shape", "text"),
    [
        ("tcs", "%", (982, 1021), "table", "982 / 1,021"),
        ("sac", "%", (17.390662, 17.4), "table", "$17.39 / $17.40"),
        ("sac", "%", (17.390662, 17.4), "csv", "17.390662 / 17.4"),
        ("fvt", "s", (476, 23), "table", "median of 23 sessions"),  # no quotient: 476 / 23 is another number
        ("fvt", "s", (0, 0), "table", ""),
    ],
)
def test_what_a_number_came_from_has_its_unit(
    name: str, unit: str, parts: tuple[float, float], shape: str, text: str
) -> None:
    kpi = {"unit": unit, "numerator": parts[0], "denominator": parts[1]}
    assert scorecard.ratio_text(name, kpi, shape) == text


def test_every_kpi_has_thresholds() -> None:
    assert [kpi.name for kpi in scorecard.KPIS if f"{kpi.name}_a" not in RULES or kpi.least not in RULES] == []


@pytest.mark.parametrize(("name", "found", "letter"), GRADES)
def test_grades(name: str, found: float, letter: str) -> None:
    (kpi,) = (one for one in scorecard.KPIS if one.name == name)
    assert scorecard.grade(kpi, found, RULES) == letter
    assert scorecard.grade(kpi, found, {**RULES, f"{name}_d": 0 if not kpi.lower else 10**6}) == (
        letter if letter != "F" else "D"
    )


OVERALL = [
    ("", None),
    ("AA", None),
    ("AAA", "A"),
    ("AAAF", "A"),
    ("AABF", "B"),
    ("AFF", "F"),
    ("ABCDF", "C"),
    ("AB--", None),
]


@pytest.mark.parametrize(("grades", "expected"), OVERALL)
def test_the_overall_grade(grades: str, expected: str | None) -> None:
    assert scorecard.overall(None if one == "-" else one for one in grades) == expected


def test_few_observations_make_no_grade() -> None:
    found = scorecard.graded_card(scorecard.measures([row(turns=19, cache_read_tokens=900)], [], [], RULES), RULES)["kpis"]
    assert (found["chr"]["value"], found["chr"]["grade"]) == (90.0, None) and "a grade needs 20" in found["chr"]["why"]
    assert found["teu"]["value"] is None and "tok-guard install" in found["teu"]["why"]


def test_nothing_at_all_is_eight_times_unknown() -> None:
    card = scorecard.graded_card(scorecard.measures([], [], [], RULES), RULES)
    assert card["overall_grade"] is None and len(card["kpis"]) == 8
    assert all(kpi["value"] is None and kpi["grade"] is None and kpi["why"] for kpi in card["kpis"].values())


COUNTS = st.fixed_dictionaries(
    {"prompts": st.integers(1, 50), "acknowledgements": st.integers(0, 9), "corrections": st.integers(0, 9)}
)


@given(st.lists(st.tuples(COUNTS, st.sampled_from("abc")), max_size=12))
def test_numerators_and_denominators_of_groups_add_up(given: list[tuple[dict[str, int], str]]) -> None:
    rounds = [work(n, session=name, **counts) | {"project": name} for n, (counts, name) in enumerate(given)]
    whole = scorecard.measures([], rounds, [], RULES)
    parts = [scorecard.measures([], [one for one in rounds if one["project"] == name], [], RULES) for name in "abc"]
    for name in ("cgr", "rgr"):
        assert whole[name].denominator == sum(part[name].denominator for part in parts)
        assert whole[name].numerator == sum(part[name].numerator for part in parts)


def turn(minutes: float, number: int, project: str = "p") -> Json:
    about = {
        "kind": "turn",
        "id": f"msg_{number}",
        "source": "claude-code-jsonl",
        "client": "claude-code",
        "project": project,
    }
    about |= {
        "agent_id": f"claude-code:{project}",
        "session_id": f"s-{project}",
        "provider": "anthropic",
        "model": "claude-opus-4-8",
    }
    return {
        "v": 1,
        "ts": stamp(minutes),
        **about,
        "turns": 1,
        "input_tokens": 10,
        "cache_read_tokens": 90,
        "output_tokens": 5,
    }


def test_from_the_log(run: Run, environment: dict[str, str]) -> None:
    folder = environment["TOKENOPS_HOME"]
    rounds = [work(n, prompts=1, acknowledgements=int(n % 4 == 0), command_calls=3, tool_results=3, times={"prompt": n, "reply": n + 0.5}) for n in range(40)]  # fmt: skip
    earlier = [{**one, "ts": when.stamp(when.moment(one["ts"]) - 8 * when.DAY), "id": f"{one['id']}-", "counts": {"prompts": 1, "acknowledgements": 1}} for one in rounds]  # fmt: skip
    store.append(
        folder,
        map(
            jsonl.line_of, [*(turn(n, n) for n in range(30)), *(turn(n, 100 + n, "q") for n in range(5)), *rounds, *earlier]
        ),
    )
    (card,) = objects(run("tok-score --json", env=NOW).stdout)
    found = {name: (kpi["value"], kpi["grade"]) for name, kpi in card["kpis"].items()}
    assert found["chr"] == (90.0, "A") and found["sac"] == (100.0, "A") and found["cgr"] == (25.0, "C")
    assert (
        found["tcs"] == (100.0, "A")
        and found["dar"] == (0.0, "A")
        and found["fvt"] == (30.0, None)
        and found["teu"] == (None, None)
    )
    assert card["overall_grade"] == "A"
    (card,) = objects(run("tok-score --compare --json", env=NOW).stdout)
    gate = card["kpis"]["cgr"]
    assert (gate["before"]["value"], gate["change"], gate["better_than_before"]) == (100.0, -75.0, True)
    assert card["kpis"]["chr"]["before"]["value"] is None and "change" not in card["kpis"]["chr"]
    cards = {card["group"]: card for card in objects(run("tok-score --by project --json", env=NOW).stdout)}
    assert cards["q"]["kpis"]["chr"]["grade"] is None and cards["p"]["kpis"]["chr"]["observations"] == 30
    weeks = [card["group"] for card in objects(run("tok-score --by week --since 30d --json", env=NOW).stdout)]
    assert len(weeks) == 2 and weeks == sorted(weeks)
    shown = run("tok-score --table", env=NOW).stdout.decode()
    assert "overall: A" in shown and "needs something that saves tokens" in shown
    put(
        pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml",
        b"thresholds:\n  score:\n    chr_a: 95\n    chr_b: 92\n",
    )
    (card,) = objects(run("tok-score --json", env=NOW).stdout)
    assert card["kpis"]["chr"]["grade"] == "C" and card["kpis"]["chr"]["thresholds"]["A"] == 95


def test_an_empty_log(run: Run) -> None:
    (card,) = objects(run("tok-score --json", env=NOW).stdout)
    assert card["overall_grade"] is None and all(kpi["value"] is None for kpi in card["kpis"].values())
    done = run("tok-score --by project", env=NOW)
    assert done.stdout == b"" and b"the log holds no usage" in done.stderr


def test_a_rejected_threshold(run: Run, environment: dict[str, str]) -> None:
    put(
        pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml",
        json.dumps({"thresholds": {"score": {"chr_a": "high"}}}).encode(),
    )
    assert b"thresholds.score.chr_a: 'high' is not a number" in run("tok-score", status=2).stderr
