"""Budgets of the user's own: what counts, when a level is told, and what the forecast rests on."""

from __future__ import annotations

import json
import pathlib
import random
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, objects, put
from tokenops import budgets, config, jsonl, store, when
from tokenops.budgets import Budget, Hour

UTC = when.zone("UTC")
NOW = when.moment("2026-11-18T12:30:00.000Z")  # a Wednesday
DAY = when.DAY


def settings(*budgets: Json, **more: Any) -> config.Config:
    return config.Config({"budgets": list(budgets), **more}, "config.yaml", [])


def limit(**given: Any) -> Budget:
    (made,) = budgets.from_settings(
        settings({"name": "b", "window": "daily", **({"limit_usd": 10} if "limit_tokens" not in given else {}), **given})
    )
    return made


def hour(days: float, usd: float = 1, tokens: int = 1000, unpriced: int = 0, **fields: str) -> Hour:
    """What was spent so many days from now."""
    named = {"project": "p", "provider": "openai", "agent_id": "a", "workflow_id": "w"} | fields
    return Hour(NOW + round(days * DAY), named["provider"], named, Decimal(str(usd)), tokens, unpriced)


def row(one: Budget, found: list[Hour], **more: Any) -> Json:
    (made,) = budgets.rows([one], found, settings(**more), NOW, UTC)
    return made


PERIODS = [
    ("daily", "2026-11-18", "2026-11-19"),
    ("weekly", "2026-11-16", "2026-11-23"),
    ("monthly", "2026-11-01", "2026-12-01"),
]


@pytest.mark.parametrize(("window", "since", "until"), PERIODS)
@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Kathmandu"])
def test_periods(window: str, since: str, until: str, zone: str) -> None:
    tz = when.zone(zone)
    assert budgets.begin(window, NOW, tz) == when.parse_since(since, NOW, tz)
    assert budgets.end(window, NOW, tz) == when.parse_since(until, NOW, tz)


def test_a_month_of_31_days_and_a_change_of_clocks() -> None:
    berlin, at = when.zone("Europe/Berlin"), when.moment("2026-10-25T10:00:00Z")
    assert budgets.end("daily", at, berlin) - budgets.begin("daily", at, berlin) == 25 * 3_600_000
    assert budgets.end("monthly", at, berlin) == when.parse_since("2026-11-01", at, berlin)


COUNTED: list[tuple[str, Json, Json, str]] = [
    ("what is within the period", {}, {}, "3"),
    ("of one project", {"project": "q"}, {}, "1"),
    ("of one provider", {"provider": "anthropic"}, {}, "2"),
    ("of one agent", {"agent_id": "z"}, {}, "1"),
    ("of one workflow", {"workflow_id": "none"}, {}, "0"),
    ("what a plan covers is left out", {}, {"plans": {"anthropic": "claude-max-20x"}}, "1"),
    ("unless all is asked for", {"basis": "equivalent"}, {"plans": {"anthropic": "claude-max-20x"}}, "3"),
    ("a plan that begins tomorrow covers nothing yet", {}, {"plans": {"anthropic": [{"plan": "claude-max-20x", "from": "2026-11-19"}]}}, "3"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "given", "more", "used"), COUNTED, ids=[case[0] for case in COUNTED])
def test_what_counts(what: str, given: Json, more: Json, used: str) -> None:
    found = [
        hour(-0.1),
        hour(-0.2, project="q", provider="anthropic"),
        hour(-0.3, provider="anthropic", agent_id="z"),
        hour(-0.6, 99),
        hour(-9, 99),
    ]
    assert row(limit(**given), found, **more)["used_usd"] == used


def test_tokens_count_whoever_pays() -> None:
    made = row(
        limit(limit_tokens=4000), [hour(-0.1), hour(-0.2, provider="anthropic")], plans={"anthropic": "claude-max-20x"}
    )
    assert (made["used_tokens"], made["share"]) == (2000, 0.5)


def test_what_has_no_price_is_said() -> None:
    made = row(limit(), [hour(-0.1, 2), hour(-0.2, 0, unpriced=7)])
    assert (made["used_usd"], made["unpriced_turns"]) == ("2", 7)


LEVELS = [(7.4, "ok"), (7.5, "warn"), (9.5, "critical"), (9.99, "critical"), (10, "over"), (25, "over")]


@pytest.mark.parametrize(("used", "level"), LEVELS)
def test_levels(used: float, level: str) -> None:
    assert row(limit(), [hour(-0.1, used)])["level"] == level


def past(usd: float, days: int = 28, weekends: float = 0.0, at: float = 0.3) -> list[Hour]:
    """So much on each weekday of the past, `at` days after noon, and so much on its weekends."""
    made = []
    for number in range(1, days + 1):
        weekend = when.local(NOW - number * DAY, UTC).weekday() > 4
        made.append(hour(-number + at, weekends if weekend else usd))
    return made


def test_a_steady_past_is_foreseen() -> None:
    """Of a week Wednesday's evening, Thursday and Friday are to come: $4 each day at 19:42; Monday and Tuesday are spent."""
    made = row(limit(window="weekly", limit_usd=20), past(4))
    assert made["used_usd"] == "8" and made["forecast"] == {
        "p10": 20.0,
        "p50": 20.0,
        "p90": 20.0,
        "p_exceed": 1.0,
        "learned_days": 28,
    }
    assert made["level"] == "warn", "it is likely to be exceeded"
    assert row(limit(window="weekly", limit_usd=30), past(4))["level"] == "ok"


def test_weekends_are_not_weekdays() -> None:
    made = row(limit(window="weekly", limit_usd=100), past(4, weekends=40))
    assert made["forecast"]["p50"] == 100.0


def test_what_is_usually_over_by_now_is_not_expected_again() -> None:
    made = row(limit(), past(4, at=-0.2))
    assert made["forecast"]["p90"] == 0.0


def test_too_little_past_is_no_forecast() -> None:
    assert row(limit(), past(4, days=6))["forecast"] is None
    assert row(limit(), [])["forecast"] is None
    assert row(limit(), past(4, days=7))["forecast"]["learned_days"] == 7


@given(st.integers(0, 10**6))
def test_the_interval_holds_what_comes_most_of_the_time(seed: int) -> None:
    draw = random.Random(seed)
    made = row(limit(window="weekly", limit_usd=1), [hour(-n + 0.3, draw.lognormvariate(1, 0.7)) for n in range(1, 29)])
    assert made["forecast"]["p10"] <= made["forecast"]["p50"] <= made["forecast"]["p90"]
    assert row(limit(window="weekly", limit_usd=1), []) == row(limit(window="weekly", limit_usd=1), [])


def told(level: str, share: float, since: str = "a", p: float | None = None) -> Json:
    return {"name": "b", "from": since, "level": level, "share": share, "forecast": None if p is None else {"p_exceed": p}}


TOLD: list[tuple[str, list[Json], list[str]]] = [
    ("once each", [told("ok", 0.5), told("warn", 0.76), told("warn", 0.8), told("critical", 0.96), told("over", 1.0), told("over", 1.2)], ["warn", "critical", "over"]),
    ("the highest at once", [told("over", 1.5)], ["over"]),
    ("a new period begins anew", [told("warn", 0.76), told("ok", 0.0, "b"), told("warn", 0.8, "b")], ["warn", "warn"]),
    ("a little below is still told", [told("warn", 0.76), told("ok", 0.74), told("warn", 0.75)], ["warn"]),
    ("clearly below is not", [told("warn", 0.76), told("ok", 0.69), told("warn", 0.75)], ["warn", "warn"]),
    ("a forecast that wavers is told once", [told("warn", 0.2, p=0.51), told("ok", 0.2, p=0.49), told("warn", 0.2, p=0.52)], ["warn"]),
    ("one that turned is not", [told("warn", 0.2, p=0.51), told("ok", 0.2, p=0.1), told("warn", 0.2, p=0.52)], ["warn", "warn"]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "rows", "expected"), TOLD, ids=[case[0] for case in TOLD])
def test_what_is_told(what: str, rows: list[Json], expected: list[str]) -> None:
    state: Json = {}
    said = []
    for one in rows:
        news, state = budgets.due(json.loads(json.dumps(state)), [one], {"b": limit()})
        said += [new["level"] for new in news]
    assert said == expected


@pytest.mark.parametrize(
    "state", [{}, {"b": None}, {"b": {"from": "a", "rank": 99}}, {"b": {"from": "a", "rank": "x"}}, {"b": [1]}]
)
def test_a_broken_memory_tells_once_more(state: Json) -> None:
    assert len(budgets.due(state, [told("warn", 0.8)], {"b": limit()})[0]) == 1


WRONG = [
    ({"limit": 3}, "unknown key 'limit'"),
    ({}, "give limit_usd or limit_tokens"),
    ({"limit_usd": 1, "limit_tokens": 1}, "give limit_usd or limit_tokens"),
    ({"limit_usd": "much"}, "limit_usd is 'much'; expected a number above 0"),
    ({"limit_usd": -1}, "expected a number above 0"),
    ({"limit_usd": 1, "window": "hourly"}, "window is one of daily, weekly, monthly"),
    ({"limit_usd": 1, "basis": "all"}, "basis one of spend, equivalent"),
    ({"limit_usd": 1, "warn_at": 0.9, "crit_at": 0.8}, "the first not above the second"),
    (7, "expected {name, window, limit_usd}"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_what_is_wrong_is_said_with_its_place(given: Any, said: str) -> None:
    with pytest.raises(config.Unusable) as error:
        budgets.from_settings(settings({"limit_usd": 1}, given))
    assert "config.yaml: budgets, the 2nd" in str(error.value) and said in str(error.value)


def configured(environment: dict[str, str], *budgets: Json) -> None:
    put(
        pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml",
        yaml.safe_dump({"budgets": list(budgets)}).encode(),
    )


def turn(number: int, minutes: int, output: int) -> Json:
    about = {"kind": "turn", "id": f"msg_{number}", "source": "claude-code-jsonl", "client": "claude-code", "project": "p"}
    about |= {"session_id": "s", "agent_id": "claude-code:p", "provider": "anthropic", "model": "claude-opus-4-8"}
    return {"v": 1, "ts": when.stamp(NOW - minutes * 60_000), **about, "turns": 1, "output_tokens": output}


def test_from_the_log(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    env = {"TOKENOPS_NOW": when.stamp(NOW)}
    done = run("tok-budget --spend --json", env=env)
    assert done.stdout == b"" and b"no budget is set" in done.stderr
    store.append(
        environment["TOKENOPS_HOME"], [jsonl.line_of(turn(1, 30, 160_000)), jsonl.line_of(turn(2, 9000, 10**6))]
    )  # $4 today
    configured(
        environment,
        {"name": "today", "window": "daily", "limit_usd": 5},
        {"name": "all", "limit_tokens": 10**7, "project": "p"},
    )
    first, second = objects(run("tok-budget --spend --json", env=env, status=3).stdout)
    assert (first["used_usd"], first["level"], second["used_tokens"], second["level"]) == ("4", "warn", 1_160_000, "ok")
    (cost,) = objects(run("tok-cost --log --by none --since 2026-11-18", env=env).stdout)
    assert cost["cost_usd"] == first["used_usd"]
    notify = "tok-budget --spend -q --notify 'jq -r .name >> told.txt'"
    for _ in range(3):
        run(notify, env=env, status=3)
    store.append(environment["TOKENOPS_HOME"], [jsonl.line_of(turn(3, 20, 60_000))])
    run(notify, env=env, status=5)
    assert (tmp_path / "told.txt").read_text() == "today\ntoday\n"
    failing = "tok-budget --spend -q --notify 'echo tried >> tries.txt; false'"
    configured(environment, {"name": "other", "window": "daily", "limit_usd": 5})
    for _ in range(2):
        assert b"it runs again for other the next time" in run(failing, env=env, status=5).stderr
    assert (tmp_path / "tries.txt").read_text() == "tried\ntried\n"
    assert b"over" in run("tok-budget --spend --table", env=env, status=5).stdout
    run("tok-plan set anthropic claude-max-20x")
    assert objects(run("tok-budget --spend --json", env=env).stdout)[0]["used_usd"] == "0"


def test_a_wrong_budget_is_a_sentence(run: Run, environment: dict[str, str]) -> None:
    configured(environment, {"limit_usd": "much"})
    assert b"budgets, the 1st: limit_usd is 'much'" in run("tok-budget --spend", status=2).stderr
