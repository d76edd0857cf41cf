"""Judgements on built histories: readings that change and agree are believed; a large number alone proves nothing.

Each history is tried with other clients, windows, moments and shares: what is right does not depend on them.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, examples, lines, put
from tokenops import (
    config,
    events,
    headroom,
    limit_belief,
    limit_budget,
    limit_windows,
    pricing,
    read_claude_turns,
    read_codex,
    statusline,
    when,
    wire_limits,
)

AT = when.moment("2026-11-24T09:00:00Z")
MINUTE, HOUR = 60_000, 3_600_000
RULES = config.thresholds(config.Config({}, "", []))
PROVIDERS = {"proxy": "anthropic", "codex-jsonl": "openai", "claude-code-statusline": "anthropic"}
LENGTHS = {"five_hour": 300, "weekly": 10_080}
SOURCES = st.sampled_from([*PROVIDERS])
WINDOWS = st.sampled_from([*LENGTHS])
STATUS_LINE = "claude-code-statusline"


def meter(
    used: float | None, at: float, resets: float | None, source: str = "proxy", window: str = "five_hour", **more: Any
) -> Json:
    """A reading `at` minutes from the start, of a window that is reset so many minutes after it."""
    spec: Json = {"provider": PROVIDERS.get(source, "anthropic"), "window_minutes": LENGTHS.get(window), **more}
    ends = None if resets is None else when.stamp(AT + round(resets * MINUTE))
    provider = spec.pop("provider")
    ts = when.stamp(AT + round(at * MINUTE))
    return events.meter(source, provider, ts, window=window or None, used=used, resets_at=ends, **spec)


def rows(readings: Iterable[Json], now: float, models: Any = "", **more: Any) -> list[Json]:
    """The rows of every account, `now` minutes from the start."""
    at = AT + round(now * MINUTE)
    believed = limit_belief.belief(limit_windows.readings_of(readings), at)
    states = headroom.states_of(believed, at)
    expected = limit_budget.forecasts(limit_budget.Limits(believed.readings, states), at)
    return limit_budget.budgets(states, at, RULES, models, expected, **more)


def row(readings: Iterable[Json], now: float, models: Any = "", **more: Any) -> Json:
    (only,) = rows(readings, now, models, **more)
    return only


def used_of(answer: Json, window: str) -> float:
    (only,) = (each["used"] for each in answer["windows"] if each["window"] == window)
    return float(only)


# Windows that were given back, moved, or begun anew.


@given(
    SOURCES,
    WINDOWS,
    st.sampled_from([0.8, 0.97, 0.98, 1.0]),
    st.lists(st.integers(0, 40), min_size=3, max_size=6, unique=True),
)
def test_quota_that_was_given_back(source: str, window: str, before: float, after: list[int]) -> None:
    """Several answers in a row that rise from a lower number are the new state, also with the same reset."""
    ends = LENGTHS[window] * 0.9
    step = ends / 10
    told = [meter(before, 0, ends, source, window)]
    told += [meter(used / 100, (2 + n) * step, ends, source, window) for n, used in enumerate(sorted(after))]
    answer = row(told, (2 + len(after)) * step)
    assert used_of(answer, window) == max(after) / 100
    assert answer["recommended_action"] in ("continue", "slow_down") and answer["reason"] != "used_up"


@given(st.sampled_from(["codex-jsonl", STATUS_LINE]), WINDOWS, st.integers(0, 80), st.integers(1, 6))
def test_one_lower_number_proves_nothing(source: str, window: str, lower: int, times: int) -> None:
    """An idle session wakes and shows what it heard last; a status line may do so again and again."""
    ends = LENGTHS[window] * 0.9
    count = times if source == STATUS_LINE else 1
    told = [meter(0.98, 0, ends, source, window), *(meter(lower / 100, 20 + n, ends, source, window) for n in range(count))]
    answer = row(told, 40)
    assert (used_of(answer, window), answer["recommended_action"]) == (0.98, "wait_for_reset")


@given(SOURCES, st.integers(24, 100), st.integers(20, 60))
def test_a_reset_that_moved_earlier(source: str, later: int, first: int) -> None:
    """Newer readings with an earlier reset and more use are as much news as a later reset."""
    week = {"window": "weekly"}
    told = [meter(first / 100, 0, (36 + later) * 60, source, **week)]
    told += [meter(used, hours * 60, 36 * 60, source, **week) for hours, used in ((2, 0.94), (3, 0.97), (4, 1.0))]
    answer = row(told, 241)
    assert (answer["headroom_pct"], answer["recommended_action"]) == (0, "wait_for_reset")
    # Of the window that was left, a repetition says nothing.
    again = [*told, meter(first / 100, 245, (36 + later) * 60, source, **week)]
    if source != "proxy":
        assert row(again, 250)["headroom_pct"] == 0


@given(SOURCES, WINDOWS, st.integers(0, 30))
def test_a_window_that_begins_anew_early(source: str, window: str, used: int) -> None:
    length = LENGTHS[window]
    told = [meter(0.99, 0, length * 0.3, source, window), meter(used / 100, 10, length, source, window)]
    assert used_of(row(told, 11), window) == used / 100
    late = [*told, meter(0.99, 20, length * 0.3, source, window)]  # an idle session still has the old window
    if source != "proxy":
        assert used_of(row(late, 21), window) == used / 100


@given(SOURCES, st.integers(0, 3), st.sampled_from([0.0, 0.3, 0.5]))
def test_one_bogus_number_among_three_that_agree(source: str, place: int, start: float) -> None:
    shares = [start + 0.01, start + 0.02, start + 0.03]
    shares.insert(place, 1.0)
    told = [meter(round(used, 2), 3 * n, 200, source) for n, used in enumerate(shares)]
    answer = row(told, 13)
    assert used_of(answer, "five_hour") == round(start + 0.03, 2)
    assert answer["recommended_action"] in ("continue", "slow_down")


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8, unique=True), st.randoms(use_true_random=False))
def test_use_that_only_rises_is_believed_at_once(shares: list[int], chance: Any) -> None:
    told = [meter(used / 100, 7 * n, 280) for n, used in enumerate(sorted(shares))]
    chance.shuffle(told)
    assert used_of(row(told, 60), "five_hour") == max(shares) / 100


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 250), st.sampled_from([260, 300, 500])), min_size=1, max_size=9),
    SOURCES,
)
def test_to_believe_twice_changes_nothing(told: list[tuple[int, int, int]], source: str) -> None:
    readings = limit_windows.readings_of(meter(used / 100, at, resets, source) for used, at, resets in told)
    at = AT + 255 * MINUTE
    once = limit_belief.belief(readings, at)
    assert limit_belief.belief(once.readings, at).readings == once.readings


# Nonsense and clocks.


@given(st.sampled_from([1, 1000, 0.01]), st.sampled_from(["five_hour", "seven_day"]), st.integers(0, 90))
def test_a_timestamp_is_no_percentage(scale: float, slot: str, true: int) -> None:
    """Claude Code has put the reset's seconds there. The reading is dropped, and the other window's is kept."""
    ends = (AT + 3 * HOUR) / 1000
    payload = {
        "rate_limits": {
            "five_hour": {"used_percentage": true, "resets_at": ends},
            "seven_day": {"used_percentage": true, "resets_at": ends},
        }
    }
    payload["rate_limits"][slot]["used_percentage"] = ends * scale
    told = list(wire_limits.status_line(payload, when.stamp(AT)))
    assert [each["used"] for each in told] == [true / 100]
    # One that an older version wrote to the log is not believed either.
    assert row([meter(true / 100, 0, 200), meter(ends * scale / 100, 1, 200)], 2)["windows"][0]["used"] == true / 100


@given(SOURCES, st.integers(7, 10_000))
def test_a_reading_dated_after_now_is_not_believed(source: str, ahead: int) -> None:
    assert used_of(row([meter(0.2, 0, 290, source), meter(1.0, ahead, 290 + ahead, source)], 1), "five_hour") == 0.2


# Refusals.


@given(st.integers(10, 280), SOURCES, st.integers(0, 60))
def test_a_refusal_without_a_window_counts_until_its_moment(ends: int, source: str, used: int) -> None:
    """Whatever else was read before; not beyond its moment, and not beyond a reading that shows room."""
    refused = meter(None, 5, ends, source, "", status="rejected")
    told = [meter(used / 100, 0, 290, source), refused]
    answer = row(told, 6)
    assert (answer["recommended_action"], answer["reason"], answer["headroom_pct"]) == ("wait_for_reset", "refused", 0)
    assert when.moment(answer["windows"][-1]["resets_at"]) == AT + ends * MINUTE
    assert row(told, ends + 1)["recommended_action"] == "continue" or ends >= 285
    later = [*told, meter(used / 100 + 0.01, 8, 290, source)]
    assert ends >= 285 or row(later, 9)["recommended_action"] == "continue"


@given(SOURCES, WINDOWS)
def test_a_refusal_is_about_the_window_with_its_reset(source: str, window: str) -> None:
    ends = LENGTHS[window] * 0.8
    answer = row([meter(0.42, 0, ends, source, window), meter(None, 5, ends, source, "", status="rejected")], 6)
    assert [(each["window"], each["used"], each["status"]) for each in answer["windows"]] == [(window, 1.0, "rejected")]
    assert answer["recommended_action"] == "wait_for_reset"


def test_a_refusal_that_names_no_moment() -> None:
    refused = meter(None, 5, None, "claude-code-jsonl", "", status="rejected")
    assert row([refused], 10)["recommended_action"] == "wait_for_reset"
    assert rows([refused], 5 + 301) == []  # no plan's window is shorter
    full = row([meter(0.95, 0, 200), meter(0.3, 0, 5000, window="weekly"), refused], 10)  # the one that is nearly used up
    assert (full["binding_window"], full["recommended_action"], full["window_resets_in"]) == (
        "five_hour",
        "wait_for_reset",
        "3h10m",
    )


def test_refusals_of_each_kind() -> None:
    """Headers, a body and a client's line all come to the same."""
    ts, ends = when.stamp(AT), (AT + 2 * HOUR) // 1000
    unified = {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": str(ends)}
    kinds = {
        "headers": list(wire_limits.readings("anthropic", unified, ts)),
        "credits, too": list(wire_limits.readings("anthropic", {**unified, "anthropic-ratelimit-unified-representative-claim": "overage"}, ts)),
        "body": list(wire_limits.refusal("openai", 429, {"type": "usage_limit_reached", "resets_at": ends}, ts)),
        "body, a while": list(wire_limits.refusal("openai", 429, {"type": "usage_limit_reached", "resets_in_seconds": 7200}, ts)),
        "a line": [events.meter("claude-code-jsonl", "anthropic", ts, status="rejected", **wire_limits.reading_of_refusal({"status": "rejected", "resetsAt": ends, "rateLimitType": "new_kind"}))],
    }  # fmt: skip
    for name, told in kinds.items():
        answer = row(told, 1)
        assert (answer["recommended_action"], answer["window_resets_in"]) == ("wait_for_reset", "1h59m"), name


def test_what_clients_write_of_a_limit() -> None:
    """Codex marks its windows, unless credits go on; a line of Claude Code names the family that is used up."""
    ts = when.stamp(AT)
    primary = {"used_percent": 100.0, "window_minutes": 300, "resets_at": (AT + 2 * HOUR) // 1000}
    limits: Json = {"primary": primary, "rate_limit_reached_type": "rate_limit_reached"}
    assert [each.get("status") for each in read_codex.meters_of(limits, ts, "openai")] == ["rejected"]
    going_on = limits | {"credits": {"has_credits": True, "balance": "5"}}
    assert [each.get("status") for each in read_codex.meters_of(going_on, ts, "openai")] == [None]
    for text, window, scope in (
        ("You've hit your Opus limit · resets 3pm (UTC)", "weekly_opus", "opus"),
        ("5-hour limit reached ∙ resets 3pm", "five_hour", None),
        ("You've hit your limit · resets 3pm (UTC)", None, None),
    ):
        told = read_claude_turns.limit_of({"isApiErrorMessage": True}, {"content": text}, ts)
        assert told is not None and (told.get("window"), told.get("scope"), told["status"]) == (window, scope, "rejected")
        expected = "continue" if scope else "wait_for_reset"  # another family may go on
        assert row([told], 1)["recommended_action"] == expected
    busy = "API Error: Server is temporarily limiting requests (not your usage limit)"  # Claude Code 2.1.332
    assert read_claude_turns.limit_of({"isApiErrorMessage": True}, {"content": busy}, ts) is None
    is_transient = {"isApiErrorMessage": True, "apiErrorIsTransient": True}
    assert read_claude_turns.limit_of(is_transient, {"content": "usage limit"}, ts) is None


# Plans and logins.


@given(st.sampled_from(["free", "go"]), st.sampled_from(["plus", "pro"]), st.integers(1, 30))
def test_a_window_of_the_plan_before_an_upgrade_never_binds(old: str, new: str, used: int) -> None:
    told = [meter(1.0, 0, 20_000, "codex-jsonl", "monthly", window_minutes=43_200, plan=old)]
    told += [meter(0.99, 0, 5000, "codex-jsonl", "weekly", plan=old)]
    told += [
        meter(used / 100, 10, 5000, "codex-jsonl", "weekly", plan=new),
        meter(used / 100, 10, 290, "codex-jsonl", plan=new),
    ]
    answer = row(told, 11)
    assert answer["recommended_action"] == "continue" and {each["window"] for each in answer["windows"]} == {
        "weekly",
        "five_hour",
    }
    late = [
        *told,
        meter(1.0, 12, 20_000, "codex-jsonl", "monthly", window_minutes=43_200, plan=old),
    ]  # a session one turn late
    assert row(late, 13)["recommended_action"] == "continue"


@given(st.integers(0, 50), st.integers(90, 99), SOURCES)
def test_two_logins_without_names(personal: int, work: int, source: str) -> None:
    """Told apart once both went on; before, the newest counts and the answer says that it may mix them."""

    def told(login: str, used: int, at: float) -> list[Json]:
        five, week = (240, 144 * 60) if login == "personal" else (120, 24 * 60)
        return [meter(used / 100, at, five, source), meter(used / 100, at, week, source, "weekly")]

    once = [*told("personal", personal, 0), *told("work", work, 20)]
    answer = row(once, 21)
    assert used_of(answer, "weekly") == work / 100
    assert answer["signal_quality"]["level"] == "low" and "another login" in answer["signal_quality"]["caveat"]
    both = rows([*once, *told("personal", personal + 1, 40), *told("work", work + 1, 45)], 46)
    assert [(each["account"], used_of(each, "weekly")) for each in both] == [
        ("login-1", (personal + 1) / 100),
        ("login-2", (work + 1) / 100),
    ]
    assert all("told apart by their resets" in each["signal_quality"]["caveat"] for each in both)
    # Each session's line shows its own.
    for login, used in (("personal", personal + 1), ("work", work + 1)):
        own = statusline.row_of(both, told(login, used, 46), AT + 46 * MINUTE, RULES)
        assert own is not None and used_of(own, "weekly") == used / 100
    alone = statusline.row_of([answer], told("personal", personal, 0), AT + 21 * MINUTE, RULES)
    assert alone is not None and used_of(alone, "weekly") == personal / 100


# Models and other plans.

FAMILIES = ("fable", "opus", "sonnet", "haiku")
SHARES = st.sampled_from([0.1, 0.6, 0.9, 1.0])


@given(st.sampled_from(FAMILIES), st.dictionaries(st.sampled_from(FAMILIES), SHARES), SHARES)
def test_a_switch_is_to_the_nearest_cheaper_family_with_room(family: str, others: dict[str, float], week: float) -> None:
    shares = others | {family: 1.0}
    told = [
        meter(used, 0, 5000, window=f"weekly_{name}", window_minutes=10_080, scope=name) for name, used in shares.items()
    ]
    answer = row([*told, meter(week, 0, 5000, window="weekly")], 1, f"claude-{family}-5")
    cheaper = FAMILIES[FAMILIES.index(family) + 1 :]
    room = [name for name in cheaper if max(shares.get(name, 0), week) <= 0.75]
    if week >= 0.97 or not room:
        assert answer["recommended_action"] == "wait_for_reset" and "switch_to" not in answer
    else:
        assert (answer["recommended_action"], answer["switch_to"]) == ("switch_model", room[0])


def log_of(folder: str, records: Iterable[Json]) -> None:
    by_day: dict[str, list[Json]] = {}
    for record in records:
        by_day.setdefault(record["ts"][:10], []).append(record)
    for day, each in by_day.items():
        put(pathlib.Path(folder) / f"events/{day}.jsonl", lines(each))


def turn(model: str, at: float, **more: Any) -> Json:
    ts = when.stamp(AT + round(at * MINUTE))
    event: Json = {
        "v": 1,
        "ts": ts,
        "kind": "turn",
        "id": f"msg_{at}{model}",
        "source": "claude-code-jsonl",
        "client": "claude-code",
    }
    return event | {"provider": "anthropic", "model": model, "turns": 1, "input_tokens": 5, "output_tokens": 9} | more


@pytest.mark.parametrize(
    ("turns", "action", "model"),
    [
        ([turn("claude-opus-5", -9)], "switch_model", "claude-opus-5"),
        ([turn("claude-opus-5", -9), turn("claude-sonnet-5", -3)], "continue", "claude-sonnet-5"),
        ([turn("claude-opus-5", -9), turn("claude-haiku-5", -3, sidechain=True)], "switch_model", "claude-opus-5"),
        ([turn("claude-sonnet-5", -9), turn("claude-opus-5", 600)], "continue", "claude-sonnet-5"),  # dated after now
        ([turn("claude-opus-5", -800)], "continue", None),
        ([], "continue", None),
    ],
)
def test_the_log_tells_which_model_is_called(
    turns: list[Json], action: str, model: str | None, tmp_path: pathlib.Path
) -> None:
    opus = meter(1.0, -10, 5000, window="weekly_opus", window_minutes=10_080, scope="opus")
    log_of(str(tmp_path), [opus, meter(0.3, -10, 5000, window="weekly"), *turns])
    (answer,) = limit_budget.budget_rows(str(tmp_path), AT, RULES, {}, pricing.load)
    assert (answer["recommended_action"], answer.get("model")) == (action, model)


@given(st.sampled_from([0.98, 1.0]), st.sampled_from([0.1, 0.3, 0.5, 0.78, 0.9]))
def test_room_in_another_plan(used: float, other: float) -> None:
    told = [meter(used, 0, 200), meter(other, 0, 5000, "codex-jsonl", "weekly", plan="pro")]
    here, there = rows(told, 1, plans={"openai": "gpt-pro"})
    assert here["recommended_action"] == "wait_for_reset" and "elsewhere" not in there
    if other < 0.75:
        room = {"client": "codex", "provider": "openai", "plan": "gpt-pro", "headroom": there["headroom_pct"] / 100}
        assert here["elsewhere"] == room
    else:
        assert "elsewhere" not in here


# The action follows the forecast.


def day(*readings: tuple[float, float], resets: float = 300) -> Json:
    return row([meter(used / 100, at, resets) for at, used in readings], readings[-1][0] + 1)


def test_a_first_day() -> None:
    calm = day((0, 1), (60, 20), (120, 41), (180, 62), (240, 78), (290, 82))
    assert calm["recommended_action"] == "continue" and calm["forecast"]["few_data"]
    fast = day((0, 2), (5, 17), (10, 33), (15, 49), (20, 64), (25, 79))
    assert (fast["recommended_action"], fast["reason"]) == ("slow_down", "likely_soon")
    assert day((0, 30), (100, 85))["recommended_action"] == "slow_down"


@examples(40)
@given(st.integers(2, 8), st.integers(0, 30), st.integers(5, 20))
def test_a_surge_is_believed_within_two_readings(per_minute: int, begin: int, scale: int) -> None:
    """After ten calm days, at least two percent a minute."""
    calm = [
        meter(minutes * 0.01 / scale, -when.DAY // MINUTE * n + minutes, -when.DAY // MINUTE * n + 300, "codex-jsonl")
        for n in range(1, 11)
        for minutes in range(0, 300, 15)
    ]
    now = [meter((begin + per_minute * 5 * n) / 100, 60 + 5 * n, 300, "codex-jsonl") for n in range(3)]
    answer = row([*calm, meter(begin / 100, 30, 300, "codex-jsonl"), *now], 71)
    rest = (100 - begin - per_minute * 10) / per_minute
    if rest < 30:
        assert answer["forecast"]["p_within_minutes"]["60"] >= 0.3 and answer["recommended_action"] != "continue"
    quiet = row([*calm, meter(begin / 100, 30, 300, "codex-jsonl"), now[0]], 61)
    assert quiet["recommended_action"] == "continue"


@given(st.sampled_from([20, 22, 24]), st.booleans())
def test_a_week_that_runs_out_early_is_said_days_before(per_day: int, is_five_hour_fuller: bool) -> None:
    week = 7 * 24 * 60

    def at_work(start: float, until: float) -> list[Json]:
        told, used = [], 0.0
        for minutes in range(0, round(until), 30):
            if 9 * 60 <= minutes % 1440 < 19 * 60:
                used += 2 * per_day / 1440 * 36
                told.append(meter(min(round(used), 100) / 100, start + minutes, start + week, "codex-jsonl", "weekly"))
        return told

    past = [each for n in (3, 2, 1) for each in at_work(-n * week, week)]
    told = [*past, *at_work(0, 2.8 * 1440)]
    if is_five_hour_fuller:
        told.append(meter(0.7, 2.8 * 1440 - 20, 2.8 * 1440 + 100, "codex-jsonl"))
    answer = row(told, 2.8 * 1440)
    (own,) = (each for each in answer["windows"] if each["window"] == "weekly")
    assert own["used"] < 0.8 and own["forecast"]["p_cutoff"] >= 0.5
    assert answer["recommended_action"] == "slow_down" and answer["binding_window"] == "weekly"
    assert any("the weekly limit runs out in" in text for text in answer["next_actions"])


READINGS = st.lists(
    st.builds(meter, st.sampled_from([0.0, 0.2, 0.5, 0.82, 0.96, 1.0]), st.integers(-400, 0), st.sampled_from([5, 25, 200, 290]), SOURCES, WINDOWS),
    min_size=1,
    max_size=12,
)  # fmt: skip


@given(READINGS)
def test_no_action_contradicts_the_forecast_beside_it(told: list[Json]) -> None:
    for answer in rows(told, 0):
        assert answer["recommended_action"] == next(
            (each["action"] for each in answer["windows"] if each.get("binds")), "continue"
        )
        for window in answer["windows"]:
            forecast = window.get("forecast")
            if forecast is None:
                continue
            if window["action"] == "continue":
                assert forecast["p_within_minutes"]["60"] < RULES["budget"]["p_slow_down"]
            if window["action"] == "slow_down" and not forecast["few_data"] and window["window"] == "five_hour":
                assert forecast["p_within_minutes"]["60"] >= RULES["budget"]["p_slow_down"]
        bound = next((each for each in answer["windows"] if each.get("binds")), None)
        if bound is not None:
            assert answer.get("forecast") == bound.get("forecast")
            assert all(_order(each["action"]) <= _order(bound["action"]) for each in answer["windows"] if "action" in each)


def _order(action: str) -> int:
    return list(headroom.STYLES).index(action)


@examples(30)
@given(READINGS)
def test_a_status_line_judges_as_tok_budget_does(told: list[Json]) -> None:
    """Also by readings that it does not record."""
    own = [each for each in told if each["provider"] == "anthropic"]
    with tempfile.TemporaryDirectory() as recorded, tempfile.TemporaryDirectory() as empty:
        log_of(recorded, told)
        log_of(empty, [each for each in told if each not in own])
        expected = limit_budget.budget_rows(recorded, AT, RULES, {}, pricing.load, "anthropic")
        shown = statusline.unrecorded_rows(empty, own, AT, RULES, "", pricing.load) if own else expected
    assert shown == expected


def test_a_forecast_follows_the_readings_that_are_believed() -> None:
    """Not those that were given back: one record holds one truth."""
    told = [meter(0.98, 0, 290), *(meter(used / 100, 60 + 10 * used, 290) for used in (0, 1, 2, 5))]
    answer = row(told, 115)
    assert answer["forecast"]["p_cutoff"] < 0.3 and answer["forecast"]["used_in_an_hour"]["p10"] < 0.2
