"""Readings -> windows -> an action: the rules of reading vendors' meters, as cases and as properties."""

from __future__ import annotations

import ast
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT, Json, Run, lines, objects, put
from tokenops import (
    catalog,
    config,
    events,
    headroom,
    limit_budget,
    limit_windows,
    poll_sources,
    read_clients,
    statusline,
    when,
    wire_limits,
)

NOW = "2026-11-21T09:30:00.000Z"
AT = when.moment(NOW)
RULES = config.thresholds(config.Config({}, "", []))


def meter(used: float | None = 0.4, seen: int = -5, resets: int | None = 120, source: str = "proxy", **given: Any) -> Json:
    """A reading seen so many minutes from now, whose window is reset so many minutes from now."""
    about: Json = {"window": "five_hour", "window_minutes": 300, **given}
    provider = about.pop("provider", "anthropic")
    at = None if resets is None else when.stamp(AT + resets * 60_000)
    return events.meter(source, provider, when.stamp(AT + seen * 60_000), used=used, resets_at=at, **about)


WEEK: Json = {"window": "weekly", "window_minutes": 10_080}


def state(*readings: Json) -> list[tuple[str, str, float | None]]:
    return [(one.window, one.scope, one.used) for one in headroom.states(limit_windows.readings_of(readings), AT)]


CASES: list[tuple[str, list[Json], list[tuple[str, str, float | None]]]] = [
    ("nothing is known", [], []),
    ("one reading", [meter(0.4)], [("five_hour", "", 0.4)]),
    ("an absent window is not shown as 0", [meter(0.7, **WEEK)], [("weekly", "", 0.7)]),
    ("the newest counts", [meter(0.4, -50), meter(0.6, -5)], [("five_hour", "", 0.6)]),
    ("whatever the order", [meter(0.6, -5), meter(0.4, -50)], [("five_hour", "", 0.6)]),
    ("an idle session repeats an old number", [meter(0.6, -20), meter(0.4, -1, source="claude-code-statusline")], [("five_hour", "", 0.6)]),
    ("after its reset a number is void", [meter(0.9, -200, -10)], [("five_hour", "", None)]),
    ("and the next window is not guessed", [meter(0.9, -200, -10), meter(0.1, -3, 290)], [("five_hour", "", 0.1)]),
    ("a window that was told late does not come back", [meter(0.1, -9, 290), meter(0.9, -3, -10)], [("five_hour", "", 0.1)]),
    ("resets jitter by seconds", [meter(0.5, -30, 120), events.meter("proxy", "anthropic", when.stamp(AT - 1000), window="five_hour",
      window_minutes=300, used=0.55, resets_at=when.stamp(AT + 120 * 60_000 + 47_000))], [("five_hour", "", 0.55)]),
    ("two accounts are two", [meter(0.4, account="a"), meter(0.8, account="b")], [("five_hour", "", 0.4), ("five_hour", "", 0.8)]),
    ("a window of one model", [meter(0.2, **WEEK), meter(0.9, window="weekly_fable", window_minutes=10_080, scope="fable")],
     [("weekly", "", 0.2), ("weekly_fable", "fable", 0.9)]),
    ("more than all", [meter(1.05)], [("five_hour", "", 1.05)]),
    ("a window without a reset lasts its length", [meter(0.5, -301, None)], [("five_hour", "", None)]),
    ("and no longer", [meter(0.5, -299, None)], [("five_hour", "", 0.5)]),
    ("a refusal without a share is full", [meter(None, status="rejected")], [("five_hour", "", 1.0)]),
    ("limits by the minute are no plan's", [meter(0.9, window="tokens_per_minute", window_minutes=1)], []),
    ("nor by the day", [meter(0.9, window="requests_per_day", window_minutes=1440)], []),
    ("a reading of the future is not believed", [meter(0.9, 60)], []),
    ("a window of 299 minutes", [meter(0.3, window="five_hour", window_minutes=299)], [("five_hour", "", 0.3)]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "readings", "expected"), CASES, ids=[case[0] for case in CASES])
def test_windows(what: str, readings: list[Json], expected: list[tuple[str, str, float | None]]) -> None:
    assert state(*readings) == expected


READINGS = st.lists(
    st.builds(
        meter,
        st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.2]),
        st.integers(-600, 30),
        st.sampled_from([None, -30, 5, 90, 290]),
        st.sampled_from(["proxy", "codex-jsonl"]),
        account=st.sampled_from(["a", "b"]),
    ),
    max_size=8,
)


@given(READINGS, st.randoms(use_true_random=False))
def test_the_order_in_which_readings_are_found_changes_nothing(readings: list[Json], chance: Any) -> None:
    mixed = list(readings)
    chance.shuffle(mixed)
    assert headroom.states(limit_windows.readings_of(mixed), AT) == headroom.states(limit_windows.readings_of(readings), AT)


@given(READINGS)
def test_nothing_is_said_that_was_not_read(readings: list[Json]) -> None:
    told = {(one["account"], one["used"]) for one in readings}
    for one in headroom.states(limit_windows.readings_of(readings), AT):
        assert one.used is None or (one.account, one.used) in told
        assert one.resets_at is None or one.used is None or one.resets_at > AT


@given(READINGS)
def test_a_repeated_reading_changes_no_number(readings: list[Json]) -> None:
    assert [one.used for one in headroom.states(limit_windows.readings_of(readings * 2), AT)] == [
        one.used for one in headroom.states(limit_windows.readings_of(readings), AT)
    ]


def test_the_catalogue_names_sources_that_exist() -> None:
    limits = catalog.load("limits")
    sources = {client.source for client in read_clients.CLIENTS} | {
        poller.source for poller in poll_sources.pollers().values()
    }
    assert {*limits["signals"], *limits["delayed"]} <= sources | {wire_limits.SOURCE, statusline.SOURCE}
    assert all(limits["next_actions"].values()) and "other" in limits["next_actions"]
    assert limit_windows.families("anthropic") and not limit_windows.families("nobody")
    assert [limit_windows.family(model) for model in ("claude-opus-4-8", "gpt-5.4")] == ["opus", "gpt-5.4"]


def test_judging_opens_no_file_and_asks_no_clock() -> None:
    """On the way from readings to an action only limit_log reads the log; what judges gets plain values."""
    pure = ("headroom", "limit_windows", "limit_carry", "limit_forecast", "limit_pace", "limit_backtest", "limit_scores")
    touching = ("store", "datadir", "session", "os", "time", "random")
    found = {
        name: [target for target in imported_by(name) if target.partition("_")[0] in touching]
        for name in (*pure, "limit_plans")
    }
    assert {name: targets for name, targets in found.items() if targets} == {
        "limit_plans": ["store", "store_summaries", "store_days"],  # the month's spending; a server's memory
        "limit_forecast": ["store_days"],  # the type of a server's memory
        "limit_scores": ["random"],  # seeded
    }


def imported_by(name: str) -> list[str]:
    tree = ast.parse((ROOT / f"lib/{name}.py").read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module == "tokenops"):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(str(node.module).removeprefix("tokenops."))
    return found


# The six rules of reading meters, each for any readings.


@given(READINGS)
def test_missing_is_unknown_never_nothing(readings: list[Json]) -> None:
    kept = [one for one in readings if one["used"] > 0]
    silent = [{key: value for key, value in one.items() if key != "used"} for one in readings]
    assert all(one.used != 0 for one in headroom.states(limit_windows.readings_of(kept), AT))
    assert headroom.states(limit_windows.readings_of(silent), AT) == []
    (told,) = limit_budget.budgets([], AT, RULES, providers=["anthropic"])
    assert (told["headroom_pct"], told["recommended_action"], told["windows"]) == (None, "continue", [])


@given(READINGS, st.sampled_from(["primary", "secondary", "five_hour", "weekly", "codex_other"]))
def test_a_window_is_what_its_length_says_whatever_its_name(readings: list[Json], name: str) -> None:
    renamed = [{**one, "window": name} for one in readings]
    assert headroom.states(limit_windows.readings_of(renamed), AT) == headroom.states(
        limit_windows.readings_of(readings), AT
    )


@given(READINGS, st.integers(-600, 600))
def test_a_reading_holds_until_its_own_reset(readings: list[Json], minutes: int) -> None:
    now = AT + minutes * 60_000
    for one in headroom.states(limit_windows.readings_of(readings), now):
        assert (one.used is None) or one.resets_at is None or one.resets_at > now


@given(READINGS, st.sampled_from([0.0, 0.3, 0.8]), st.sampled_from([-5, 0]))
def test_the_newest_counts_and_within_a_window_the_highest(readings: list[Json], used: float, seen: int) -> None:
    """Of the window that is reset last the highest number counts, and none is lowered by a later one."""
    mine = [one for one in readings if one["account"] == "a" and one.get("resets_at")]
    mine = [one for one in mine if when.moment(one["resets_at"]) - 300 * 60_000 <= when.moment(one["observed_at"]) <= AT]
    last = max((one["resets_at"] for one in mine), default="")
    if last <= NOW:
        return
    highest = max(one["used"] for one in mine if one["resets_at"] == last)
    added = {**mine[0], "resets_at": last, "used": used, "observed_at": when.stamp(AT + seen * 60_000)}
    (one,) = headroom.states(limit_windows.readings_of([*mine, added]), AT)
    assert one.used == max(highest, used)


SCOPES = st.sampled_from(["", "opus", "fable"])


@given(st.lists(st.tuples(st.floats(0, 1.2), SCOPES, st.sampled_from(["", "rejected"])), min_size=1), SCOPES)
def test_the_most_used_of_those_that_apply_binds(given: list[tuple[float, str, str]], model: str) -> None:
    found = [
        headroom.State("anthropic", "", f"w{n}", 300, scope, used, AT + 1, AT, status, "proxy", "")
        for n, (used, scope, status) in enumerate(given)
    ]
    bound = headroom.binding(found, model and f"claude-{model}-5")
    mine = [one for one in found if one.scope in ("", model)]
    if not mine:
        assert bound is None
    else:
        assert bound in mine
        refused = [one for one in mine if one.status == "rejected"]
        assert bound.used == max(one.used for one in refused or mine)  # type: ignore[type-var,union-attr]


@given(READINGS)
def test_accounts_are_never_mixed(readings: list[Json]) -> None:
    apart = [
        one
        for name in ("a", "b")
        for one in headroom.states(limit_windows.readings_of(one for one in readings if one["account"] == name), AT)
    ]
    assert headroom.states(limit_windows.readings_of(readings), AT) == apart
    for told in limit_budget.budgets(apart, AT, RULES):
        assert {one["account"] for one in told["windows"]} == {told["account"]}


def budget(*readings: Json, model: str = "", **given: Any) -> Json:
    [made] = limit_budget.budgets(headroom.states(limit_windows.readings_of(readings), AT), AT, RULES, model, **given)
    return made


ACTIONS = [
    ([meter(0.4)], "", None, "continue"),
    ([meter(0.79)], "", None, "continue"),
    ([meter(0.85)], "", None, "slow_down"),
    ([meter(0.98)], "", None, "wait_for_reset"),
    ([meter(0.5, status="rejected")], "", None, "wait_for_reset"),
    # The forecast decides where there is one, in both directions.
    ([meter(0.5)], "", 0.6, "slow_down"),
    ([meter(0.9)], "", 0.01, "continue"),
    ([meter(0.9)], "", 0.95, "wait_for_reset"),
    ([meter(0.5)], "", 0.95, "slow_down"),
    # Only a window of one family can be stepped around.
    ([meter(0.2, **WEEK), meter(0.99, window="weekly_fable", window_minutes=10_080, scope="fable")], "claude-fable-5", None, "switch_model"),
    ([meter(0.2, **WEEK), meter(0.99, window="weekly_fable", window_minutes=10_080, scope="fable")], "claude-opus-4-8", None, "continue"),
    ([meter(0.99, **WEEK), meter(0.99, window="weekly_fable", window_minutes=10_080, scope="fable")], "claude-fable-5", None, "wait_for_reset"),
]  # fmt: skip


@pytest.mark.parametrize(("readings", "model", "p", "expected"), ACTIONS)
def test_actions(readings: list[Json], model: str, p: float | None, expected: str) -> None:
    forecasts = {("anthropic", "", "five_hour", ""): {"p_within_minutes": {"60": p}}} if p is not None else {}
    made = budget(*readings, model=model, forecasts=forecasts)
    assert made["recommended_action"] == expected
    assert ("switch_to" in made) == (expected == "switch_model")


def test_a_forecast_from_few_data_decides_nothing() -> None:
    forecast = {"p_within_minutes": {"60": 0.001}, "few_data": True}
    made = budget(meter(0.85), forecasts={("anthropic", "", "five_hour", ""): forecast})
    assert made["recommended_action"] == "slow_down" and made["forecast"] == forecast


def test_the_answer_has_the_shape_that_agents_know() -> None:
    made = budget(meter(0.4, resets=101), meter(0.7, **WEEK, resets=4000))
    assert (made["headroom_pct"], made["window_resets_in"], made["binding_window"]) == (30, "2d18h", "weekly")
    assert made["recommended_action"] == "continue"
    assert made["signal_quality"] == {
        "level": "high",
        "source": "proxy_traffic",
        "caveat": "read 5 minutes ago; use since then, or elsewhere on the account, is not included",
    }
    assert made["windows"][0]["resets_in"] == "1h41m"


def test_nothing_known_is_said_with_what_to_do(run: Run) -> None:
    run("tok-plan set anthropic claude-max-20x")
    [made] = objects(run("tok-budget").stdout)
    assert made["headroom_pct"] is None and made["window_resets_in"] is None
    assert made["recommended_action"] == "continue"
    assert (made["signal_quality"]["level"], made["signal_quality"]["source"]) == ("low", "mcp_tool_pings")
    assert any("tok-statusline" in text or "tok-proxy" in text for text in made["next_actions"])
    run("tok-budget --require-signal", status=1)
    assert run("tok-budget -q").stdout == b""


def filled(environment: dict[str, str], *readings: Json) -> None:
    day = NOW[:10]
    put(pathlib.Path(environment["TOKENOPS_HOME"]) / f"events/{day}.jsonl", lines(readings))


def test_the_command(run: Run, environment: dict[str, str]) -> None:
    filled(environment, meter(0.85), meter(0.3, provider="openai", source="codex-jsonl"))
    env = {"TOKENOPS_NOW": NOW}
    done = run("tok-budget --json", env=env, status=3)
    rows = {row["provider"]: row for row in objects(done.stdout)}
    assert (rows["anthropic"]["recommended_action"], rows["openai"]["recommended_action"]) == ("slow_down", "continue")
    assert rows["openai"]["signal_quality"]["source"] == "client_files"
    run("tok-budget -q anthropic && echo go", env=env, status=3)
    assert run("tok-budget -q openai && echo go", env=env).stdout == b"go\n"
    shown = run("tok-budget --table", env=env, status=3).stdout.decode()
    assert "85% used" in shown and "slow down" in shown and "30% used" in shown


def test_the_users_own_thresholds(run: Run, environment: dict[str, str]) -> None:
    filled(environment, meter(0.6))
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    put(path, json.dumps({"thresholds": {"budget": {"slow_down": 0.5}}}).encode())
    run("tok-budget -q", env={"TOKENOPS_NOW": NOW}, status=3)
    put(path, json.dumps({"thresholds": {"budget": {"slow_down": "much"}}}).encode())
    assert b"is not a number" in run("tok-budget -q", status=2).stderr


def test_asking_changes_nothing(run: Run, environment: dict[str, str]) -> None:
    filled(environment, meter(0.6), meter(0.2, **WEEK))
    env = {"TOKENOPS_NOW": NOW}
    first = objects(run("tok-budget --json", env=env).stdout)
    run("for n in 1 2 3 4 5 6 7 8 9 10; do tok-budget -q; done", env=env)
    again = objects(run("tok-budget --json", env=env).stdout)
    assert [{**row, "as_of": ""} for row in again] == [{**row, "as_of": ""} for row in first]


def test_a_gzipped_day_is_read_too(run: Run, environment: dict[str, str]) -> None:
    filled(environment, meter(0.6))
    run("tok-log compact", status=None, env={"TOKENOPS_NOW": "2026-12-01T00:00:00Z"})
    run("gzip events/*.jsonl", status=None)
    [made] = objects(run("tok-budget --json", env={"TOKENOPS_NOW": NOW}).stdout)
    assert made["headroom_pct"] == 40


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.2, "0 minutes"), (1.2, "1 minute"), (2, "2 minutes"), (119.4, "119 minutes"), (119.6, "2 hours"), (300, "5 hours")],
)
def test_the_age_of_a_reading_in_words(minutes: float, text: str) -> None:
    assert headroom.age_text(minutes) == text
