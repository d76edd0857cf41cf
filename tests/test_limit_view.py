"""Limits at a terminal: bars, forecast and action in words, local times; every state fits, and agrees with the record."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from screens import Terminal

from conftest import Json, Run, examples, lines, objects, put
from tokenops import config, events, headroom, jsonl, limit_budget, limit_view, limit_windows, show, store, when

NOW = "2026-11-21T09:30:00.000Z"
AT = when.moment(NOW)
RULES = config.thresholds(config.Config({}, "", []))
BERLIN = when.zone("Europe/Berlin")
WEEK: Json = {"window": "weekly", "window_minutes": 10_080}
FORECAST: Json = {
    "p_cutoff": 0.3,
    "p_within_minutes": {"60": 0.02},
    "used_in_an_hour": {"p10": 0.61, "p50": 0.7, "p90": 0.88},
    "few_data": False,
}
FIVE = limit_windows.Key("anthropic", "", "five_hour", "")


def meter(used: float, resets: int | None = 120, provider: str = "anthropic", **more: Any) -> Json:
    """A reading five minutes ago of a window that is reset so many minutes from now."""
    spec = {"window": "five_hour", "window_minutes": 300, **more}
    at = None if resets is None else when.stamp(AT + resets * 60_000)
    return events.meter("proxy", provider, when.stamp(AT - 300_000), used=used, resets_at=at, **spec)


def rows(*readings: Json, model: str = "", **more: Any) -> list[Json]:
    return limit_budget.budgets(headroom.states(limit_windows.readings_of(readings), AT), AT, RULES, model, **more)


def text(budgets: list[Json], width: int = 80, **more: Any) -> str:
    return "\n".join(limit_view.lines(budgets, width, False, AT, BERLIN, **more))


def test_an_account_at_a_terminal() -> None:
    budgets = rows(meter(0.62), meter(0.18, 4000, **WEEK), forecasts={FIVE: FORECAST})
    assert text(budgets, plans={"anthropic": "Claude Max 20x"}) == (
        "Anthropic, Claude Max 20x\n"
        "  continue: the 5 h limit has room\n"
        "  5 h limit     ██████████████▉▒▒▒▒▒▒░░░  62% used, resets 12:30, in 2h00m\n"
        "                30% likely to run out before its reset; in an hour 61 to 88%\n"
        "                used (80% likely)\n"
        "  weekly limit  ████▍░░░░░░░░░░░░░░░░░░░  18% used, resets Tue 05:10, in 2d18h\n"
        "  read 5 minutes ago; use since then, or elsewhere on the account, is not\n"
        "  included"
    )


def test_a_line_for_each_window() -> None:
    likely = FORECAST | {"p_cutoff": 0.8, "cutoff_at": {"p50": when.stamp(AT + 70 * 60_000)}}
    budgets = rows(meter(0.62), meter(0.18, 4000, **WEEK), forecasts={FIVE: likely})
    assert limit_view.brief(budgets, 80, False, AT, BERLIN) == [
        "Anthropic 5 h     ██████████████▉▒▒▒▒▒▒░░░  62%  likely out by 11:40",
        "Anthropic weekly  ████▍░░░░░░░░░░░░░░░░░░░  18%  resets Tue 05:10",
    ]
    calm = rows(meter(0.62), forecasts={FIVE: FORECAST | {"p_cutoff": 0.01}})
    assert limit_view.brief(calm, 60, False, AT, BERLIN)[0].endswith(" 62%  lasts until reset 12:30")
    assert limit_view.brief(rows(providers=["openai"]), 60, False, AT, BERLIN) == ["OpenAI: no reading yet"]


FABLE: Json = {**WEEK, "window": "weekly_fable", "scope": "fable"}
WORDS = [
    ([meter(0.4)], "", None, "continue: the 5 h limit has room"),
    ([meter(0.85)], "", None, "slow down: 85% of the 5 h limit is used"),
    ([meter(0.98)], "", None, "wait for reset at 12:30: the 5 h limit is used up (98%)"),
    ([meter(1.04)], "", None, "wait for reset at 12:30: the 5 h limit is used up (104%)"),
    ([meter(0.98, None)], "", None, "wait for reset: the 5 h limit is used up (98%)"),
    ([meter(0.5, status="rejected")], "", None, "the vendor refused a request, the 5 h limit is used up"),
    ([meter(0.5)], "", 0.6, "slow down: the 5 h limit is 60% likely to run out within the hour"),
    ([meter(0.9)], "", 0.999, "wait for reset at 12:30: the 5 h limit is over 99% likely to run out within the hour"),
    ([meter(0.2, **WEEK), meter(0.99, **FABLE)], "claude-fable-5", None,
     "switch model to opus, which has room: the weekly limit, fable is used up (99%)"),
    ([meter(0.5, -10)], "", None, "continue: not known now; the last reading is old: 50% of the 5 h limit, 5 min ago"),
]  # fmt: skip


@pytest.mark.parametrize(("readings", "model", "p", "words"), WORDS)
def test_the_action_and_its_reason(readings: list[Json], model: str, p: float | None, words: str) -> None:
    forecasts = {FIVE: FORECAST | {"p_within_minutes": {"60": p}}} if p is not None else {}
    (row,) = rows(*readings, model=model, forecasts=forecasts)
    assert words in limit_view.action_text(row, AT, BERLIN)


def test_a_window_that_runs_out_days_before_its_reset_has_words() -> None:
    (row,) = rows(meter(0.5), forecasts={FIVE: FORECAST | {"p_cutoff": 0.9}})
    early = row | {"reason": headroom.LIKELY_EARLY, "recommended_action": headroom.SLOW_DOWN}
    assert limit_view.action_text(early, AT, BERLIN) == "slow down: the 5 h limit is 90% likely to run out early"


def test_a_reading_from_long_ago_is_shown_as_old(run: Run, environment: dict[str, str]) -> None:
    """Longer ago than what limits are judged by: still more than nothing, if a plan of that provider is set."""
    read, window = AT - 70 * when.DAY, {"window": "five_hour", "window_minutes": 300}
    old = events.meter("proxy", "anthropic", when.stamp(read), used=0.61, resets_at=when.stamp(read + 60_000), **window)
    store.append(environment["TOKENOPS_HOME"], [jsonl.line_of(old)])
    env = {"TOKENOPS_NOW": when.stamp(AT)}
    assert objects(run("tok-budget --json", env=env).stdout) == []
    run("tok-plan set anthropic claude-pro")
    (row,) = objects(run("tok-budget --json", env=env).stdout)
    (old,) = row["windows"]
    assert (old["used"], old["last_used"], row["headroom_pct"], row["binding_window"]) == (None, 0.61, None, None)
    shown = run("tok-budget --table", env=env).stdout.decode()
    assert "not known now; the last reading is old: 61% of the 5 h limit, 70 d ago" in " ".join(shown.split())
    assert "old: 61% 70 d ago" in shown and "nothing is known" not in shown
    assert "the last, 61% of five_hour, was on" in run("tok-plan headroom --json", env=env).stdout.decode()


def test_room_in_another_plan_is_named() -> None:
    shown = text(rows(meter(0.98), meter(0.2, 600, "openai", **WEEK)), 100)
    assert "room elsewhere: OpenAI (weekly limit 20% used)" in shown and shown.count("elsewhere:") == 1
    assert "room elsewhere" not in text(rows(meter(0.98), meter(0.9, 600, "openai", **WEEK)))


@pytest.mark.parametrize(
    ("window", "name"),
    [
        ({"window": "five_hour"}, "5 h limit"),
        ({"window": "weekly_opus", "scope": "opus"}, "weekly limit, opus"),
        ({"window": "monthly", "scope": "premium_interactions"}, "monthly limit, premium interactions"),
        ({"window": "90_minutes"}, "90 min limit"),
        ({"window": "credits"}, "credits"),
    ],
)
def test_windows_have_names_for_people(window: Json, name: str) -> None:
    assert limit_view.window_name(window) == name


@pytest.mark.parametrize(
    ("minutes", "shown"), [(90, "12:00"), (14 * 60, "Sun 00:30"), (6 * 1440, "Fri 10:30"), (7 * 1440, "Sat 28 Nov")]
)
def test_times_are_local_and_name_their_day(minutes: int, shown: str) -> None:
    assert limit_view.moment(when.stamp(AT + minutes * 60_000), AT, BERLIN) == shown


READINGS = st.lists(
    st.builds(
        meter,
        st.sampled_from([0.0, 0.004, 0.235, 0.5, 0.799, 0.97, 1.2]) | st.floats(0, 1.3),
        st.sampled_from([None, -30, 5, 290, 9000]),
        st.sampled_from(["anthropic", "openai", "日本語の提供者" * 3]),
        window=st.sampled_from(["five_hour", "weekly"]),
        window_minutes=st.sampled_from([300, 10_080]),
        scope=st.sampled_from(["", "opus", "名前" * 20]),
        status=st.sampled_from(["", "rejected"]),
        account=st.sampled_from(["", "0123456789abcdef"]),
    ),
    max_size=6,
)
CHANCES = st.sampled_from([0.0, 0.004, 0.2, 0.5, 0.95, 1.0])


@examples(150)
@given(READINGS, CHANCES, CHANCES, st.booleans(), st.sampled_from(["", "claude-opus-4-8"]), st.integers(40, 130))
def test_every_state_fits_and_says_what_the_record_says(
    readings: list[Json], p: float, soon: float, few: bool, model: str, width: int
) -> None:
    forecast = FORECAST | {"p_cutoff": p, "p_within_minutes": {"60": soon}, "few_data": few}
    states = headroom.states(limit_windows.readings_of(readings), AT)
    bound = [headroom.binding(group, model) for group in headroom.by_account(states).values()]
    forecasts = {state.key: forecast for state in bound if state}
    budgets = limit_budget.budgets(states, AT, RULES, model, forecasts, ["anthropic"])
    for shown in (
        limit_view.lines(budgets, width, True, AT, datetime.UTC),
        limit_view.brief(budgets, width, True, AT, datetime.UTC),
    ):
        assert max(map(show.text_width, shown)) <= width
    for row in budgets:
        window = limit_view.binding(row)
        assert (window is None) == (row["headroom_pct"] is None) == (row["reason"] == headroom.UNKNOWN)
        if window is not None:
            used = limit_view.percent(window, row)
            assert used is not None and max(100 - used, 0) == row["headroom_pct"]
            assert window["action"] == row["recommended_action"]
        action = str(row["recommended_action"]).replace("_", " ")
        assert limit_view.action_text(row, AT, datetime.UTC).startswith(action)
    urgent = limit_view.urgent(budgets)
    assert urgent and headroom.STYLES[urgent["recommended_action"]] in ("good", "warn", "bad")


def test_the_command_shows_it(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["TOKENOPS_HOME"])
    put(home / f"events/{NOW[:10]}.jsonl", lines([meter(0.85), meter(0.3, 600, "openai", **WEEK)]))
    run("tok-plan set anthropic claude-max-20x")
    shown = run("tok-budget --table", env={"TOKENOPS_NOW": NOW}, status=3).stdout.decode()
    assert "Anthropic, Claude Ultra (until October 2026 Max 20x)\n  slow down: 85% of the 5 h limit is used\n" in shown
    assert "room elsewhere: OpenAI (weekly limit 30% used)" in shown


def test_watching_shows_news_until_it_is_interrupted(run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["TOKENOPS_HOME"]) / f"events/{NOW[:10]}.jsonl"
    put(path, lines([meter(0.5), meter(0.3, 600, "openai", **WEEK)]))
    env = environment | {"TOKENOPS_NOW": NOW}
    with Terminal(["tok-budget", "--watch", "0.2"], env, 60, 12) as terminal:
        terminal.until(lambda text: "tok-budget at 09:30:00, every 0.2 s; Ctrl-C ends" in text and "50% used" in text)
        with open(path, "ab") as file:
            file.write(lines([meter(0.85)]))
        terminal.until(lambda text: "slow down: 85% of the 5 h limit is used" in text and "50% used" not in text)
        terminal.press("\x03")
        assert terminal.end() == -2 and "Traceback" not in terminal.screen.text
    assert b"needs a terminal" in run("tok-budget --watch", status=2).stderr
