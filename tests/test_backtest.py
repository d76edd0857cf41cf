"""The replay: it looks at nothing that came later, counts rightly, and the forecasts are good enough."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import NamedTuple

import pytest
from users import START, series_of, user

from conftest import ROOT, ROUNDS, SHARED, Run, lines, needs_shared
from tokenops import catalog, events, headroom, limit_backtest, limit_forecast, limit_policy, limit_scores, when
from tokenops.limit_backtest import Cap, Case, Hour, Result
from tokenops.limit_windows import MINUTE, Key, Point, Series, Window


def replayed(*series: Series, every: int = 1) -> Result:
    return limit_backtest.replay(limit_backtest.pasts(series), every=every)


def skill_over(result: Result, horizon: int, method: str) -> float:
    cases = limit_scores.of_horizon(result, horizon)
    found = limit_scores.skill(limit_scores.errors(cases, limit_backtest.OURS), limit_scores.errors(cases, method), 2).value
    assert found is not None
    return found


def test_made_up_users_are_forecast_better_than_by_a_line() -> None:
    """Four of different paces, steadier than anybody's: a line is at its best, and who is busy now says little of later."""
    paces = ((1, 0.2, 0.5), (2, 0.5, 0.6), (3, 0.4, 0.3), (4, 0.9, 0.8))
    users = replayed(*(user(seed, 24, pace, rest) for seed, pace, rest in paces))
    for horizon in (30, 60, 120):
        assert skill_over(users, horizon, limit_backtest.LINE) >= 0.15
        assert skill_over(users, horizon, limit_backtest.START) >= 0.15
        for method in limit_backtest.FAIR:
            assert skill_over(users, horizon, method) >= -0.05, method
        for one in limit_scores.reliability(limit_scores.of_horizon(users, horizon)):  # chances are what they say
            assert one.number < 50 or abs(one.chance - one.frequency) <= 0.12, (horizon, one)
    covered = limit_scores.coverage(users.hours)
    assert covered is not None and 0.72 <= covered[0] <= 0.88
    ours, line = limit_scores.pinball(users.hours), limit_scores.pinball(users.hours, limit_backtest.LINE)
    assert ours is not None and line is not None and ours < line


def test_what_comes_later_changes_no_forecast_before() -> None:
    one = user(5, 12)
    other = one._replace(windows=(*one.windows[:8], *user(6, 12).windows[8:]))
    border = one.windows[7].points[-1].at
    seen = []
    for series in (one, other):
        result = replayed(series)
        seen.append({(case.at, case.horizon): case.p for case in result.cases if case.at + case.horizon * MINUTE < border})
    assert seen[0] == seen[1] and len(seen[0]) > 100


def window(number: int, *readings: tuple[int, int]) -> Window:
    begins = START + number * 300 * MINUTE
    return Window(begins + 300 * MINUTE, 300, tuple(Point(begins + m * MINUTE, u / 100) for m, u in readings))


def one_series(*given: Window, polled: bool = False) -> Series:
    return Series(Key("openai", "", "five_hour", ""), given, polled)


def test_outcomes() -> None:
    result = replayed(one_series(window(0, (10, 5), (30, 12), (95, 35)), window(1, (10, 1))))
    reached = {(case.at, case.horizon): dict(zip(case.caps, case.reached, strict=True)) for case in result.cases}
    first = START + 10 * MINUTE
    assert [reached[first, horizon][10] for horizon in (30, 60, 120)] == [True, True, True]
    assert [reached[first, horizon][30] for horizon in (30, 60, 120)] == [False, False, True]
    assert 10 not in reached[START + 30 * MINUTE, 30]  # reached already
    assert (START + 310 * MINUTE, 60) not in reached  # nothing is known of what came after the last reading


def test_a_pollers_silence_is_ignorance() -> None:
    polls = window(0, (15, 5), (30, 6), (45, 9), (200, 40), (285, 50)), window(1, (15, 1), (30, 2))
    seen = {(case.at - START) // MINUTE for case in replayed(one_series(*polls, polled=True)).cases if case.horizon == 60}
    assert 30 not in seen and 45 not in seen  # nobody asked for two hours
    assert 285 not in seen  # the last poll before the reset
    used = {(case.at - START) // MINUTE for case in replayed(one_series(*polls)).cases if case.horizon == 60}
    assert {30, 45, 285} <= used  # where readings come with use, silence is rest


def test_no_forecast_while_a_longer_window_stands_at_its_limit() -> None:
    short = one_series(window(0, (10, 5), (30, 12), (95, 35)), window(1, (10, 1), (40, 2)))
    week = Window(START + 5000 * MINUTE, 10_080, (Point(START + 20 * MINUTE, 1.0),))
    result = replayed(short, Series(Key("openai", "", "weekly", ""), (week,), False))
    assert {case.at for case in result.cases if case.block[0] == 0} == {START + 10 * MINUTE}


def case(block: int, p: float, came: bool, method: str = limit_backtest.OURS) -> Case:
    return Case(
        (0, block), 0, 60, (100,), (came,), {name: [p if name == method else 0.5] for name in limit_backtest.METHODS}
    )


def test_brier_and_skill() -> None:
    cases = [case(1, 0.8, True), case(1, 0.4, False), case(2, 0.1, False), case(3, 1.0, True)]
    ours, theirs = (limit_scores.errors(cases, method) for method in (limit_backtest.OURS, limit_backtest.LINE))
    assert limit_scores.mean(ours) == pytest.approx((0.04 + 0.16 + 0.01 + 0) / 4)
    found = limit_scores.skill(ours, theirs)
    assert found.value == pytest.approx(1 - 0.21 / 1.0)
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
    assert limit_scores.skill(ours, theirs) == found
    assert limit_scores.mean({}) is None and limit_scores.skill({}, {}).value is None


def test_reliability_pinball_and_coverage() -> None:
    (low, high) = limit_scores.reliability([case(1, 0.12, False), case(1, 0.18, True), case(2, 1.0, True)])
    assert (low.low, low.number, low.frequency) == (0.1, 2, 0.5) and low.chance == pytest.approx(0.15)
    assert (high.low, high.chance) == (0.9, 1.0)
    hours = [
        Hour((0, 1), 30.0, {limit_backtest.OURS: (20.0, 28.0, 32.0)}, 0.75, True),
        Hour((0, 2), 10.0, {limit_backtest.OURS: (10.0, 10.0, 12.0)}, 0.25, False),
    ]
    assert limit_scores.pinball(hours) == pytest.approx(((0.1 * 10 + 0.5 * 2 + 0.1 * 2) / 3 + 0.1 * 2 / 3) / 2)
    assert limit_scores.coverage(hours) == (0.5, 0.5)
    assert limit_scores.pinball([]) is None and limit_scores.coverage([]) is None


def test_alarms() -> None:
    def given(*chances: tuple[int, float]) -> tuple[tuple[int, float, float], ...]:
        return tuple((minute * MINUTE, p, p) for minute, p in chances)

    caps = [
        Cap((0, 1), 50, 100 * MINUTE, given((50, 0.4), (70, 0.6))),  # announced 50 minutes ahead
        Cap((0, 2), 50, 100 * MINUTE, given((50, 0.2), (95, 0.9))),  # too late
        Cap((0, 3), 50, 100 * MINUTE, given((95, 0.9))),  # nobody could have known
        Cap((0, 4), 50, None, given((50, 0.4))),  # false
        Cap((0, 5), 50, None, given((50, 0.1))),
    ]
    told = limit_scores.alarms(Result([], [], caps, 4, 0, 0))
    assert (told.reached, told.announced, told.false_alarms, told.false_per_cap_and_day) == (2, 1, 1, 0.25)
    assert told.lead_minutes == 50


def test_a_policy_is_scored_by_its_last_word_in_time_and_by_what_it_warned_of_for_nothing() -> None:
    def end(reached: int | None, *moments: tuple[int, bool]) -> limit_policy.End:
        said = tuple(limit_policy.Moment(minute * MINUTE, (warns, False, False, False)) for minute, warns in moments)
        return limit_policy.End(50, None if reached is None else reached * MINUTE, 300 * MINUTE, said)

    ends = [
        end(100, (50, False), (90, True), (99, False)),  # warned just in time
        end(100, (50, True), (80, False), (95, True)),  # taken back, and too late
        end(100, (95, True)),  # nobody could have known
        end(None, (200, True), (210, False), (250, True), (290, True)),  # 10 minutes, 20 of the 40, and 10 to the reset
        end(None, (200, False)),
    ]
    assert limit_policy.score(ends, limit_policy.ACTION, 2, 10) == (2, 1, 40 / 2 / 10)
    assert limit_policy.score(ends, limit_policy.SHARE, 2, 10) == (2, 2, 0)
    assert limit_policy.score([], limit_policy.ACTION, 0, 0) == (0, 0, None)


def weeks(*paces: float) -> Series:
    """Windows of a week, each with a pace of its own in percent an hour."""
    windows = []
    for number, pace in enumerate(paces):
        begins = START + number * 7 * when.DAY
        points = (Point(begins + hour * 60 * MINUTE, min(int(hour * pace), 100) / 100) for hour in range(1, 168))
        windows.append(Window(begins + 7 * when.DAY, 10_080, tuple(points)))
    return Series(Key("openai", "", "weekly", ""), tuple(windows), False)


@pytest.mark.parametrize("minutes", [300, 10_080])
def test_the_policy_that_is_replayed_is_the_action_that_is_printed(minutes: int) -> None:
    one = user(5, 12) if minutes == 300 else weeks(0.7, 0.4, 0.9)
    (past,) = limit_backtest.pasts([one])
    rules = {name: float(value) for name, value in catalog.load("thresholds")["budget"].items()}
    replay, printed = replayed(one), set()
    advised = {(moment.at, moment.warns[0]) for end in replay.ends if end.cap == 100 for moment in end.moments}
    for at, _ in advised:
        (window,) = (each for each in one.windows if each.resets_at - minutes * MINUTE < at <= each.resets_at)
        used = max(point.used for point in window.points if point.at <= at)
        forecast = limit_forecast.forecast(past.history, at)
        assert forecast is not None
        state = headroom.State("openai", "", one.key.window, minutes, "", used, window.resets_at, at, "", "", "")
        action = headroom.action(state, limit_forecast.record(forecast), rules, False, at).action
        printed.add((at, action != headroom.CONTINUE))
    assert printed == advised and {warns for _, warns in advised} == {True, False}


def test_numbers() -> None:
    assert limit_backtest.numbers("60,30,30") == (30, 60)
    for text in ("", "0", "-5", "1.5", "30,", "a"):
        assert limit_backtest.numbers(text) == ()


def meters(series: Series) -> bytes:
    return lines(
        events.meter(
            "codex-jsonl",
            series.key.provider,
            when.stamp(reading.at),
            window="five_hour",
            window_minutes=300,
            used=reading.used,
            resets_at=when.stamp(window.resets_at),
            account=series.key.account,
        )
        for window in series.windows
        for reading in window.points
    )


def test_command(run: Run) -> None:
    given = meters(user(1, 6)) + meters(user(2, 6))
    rows = [json.loads(line) for line in run("tok-backtest --horizon 60 --caps 20,50", given).stdout.splitlines()]
    assert {row["table"] for row in rows} == {"data", "brier", "reliability", "hour", "alarms", "policy"}
    assert rows[0]["accounts"] == 2 and {row["provider"] for row in rows} == {"openai"}
    assert {row["horizon_minutes"] for row in rows if row["table"] == "brier"} == {60}
    assert not any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.values())
    table = run("tok-backtest --table --provider openai --window five_hour", given).stdout.decode()
    assert table.startswith("openai five_hour: 2 accounts") and "since_start" in table
    assert run("tok-backtest --markdown", given).stdout.count(b"|---") >= 4
    for wrong in ("--horizon 0", "--caps x", "--csv", "--window"):
        assert run(f"tok-backtest {wrong}", given, status=2).stderr.startswith(b"tok-backtest: ")
    done = run("tok-backtest --provider nobody", given, status=1)
    assert (done.stdout, done.stderr.count(b"\n")) == (b"", 1)
    assert run("tok-backtest", given + b"{\n", status=1).stderr.startswith(b"tok-backtest: stdin:")


def test_command_on_the_log(run: Run) -> None:
    run("tok-log append >/dev/null", meters(user(1, 3)))
    rows = [json.loads(line) for line in run("tok-backtest --log").stdout.splitlines()]
    assert rows[0]["table"] == "data" and rows[0]["windows"] == 3


class Limits(NamedTuple):
    """What the forecasts of some users must reach, and what there is of them to score."""

    files: tuple[str, ...]
    window: str
    size: tuple[int, int, int]  # users, windows, readings that are kept
    horizons: tuple[int, ...]  # minutes
    line: float  # skill over a straight line and over the line since the window began
    fair: tuple[float, ...]  # skill over the best of the baselines that give chances, per horizon
    covered: tuple[float, float]  # share of the readings an hour ahead that lie within the middle 80 %
    off: float  # by how much the chances of fifty forecasts or more may miss what came
    announced: float  # share of the reached caps that were announced in time
    false: float  # false alarms per cap and day


CLAUDE = ("claude_oauth_usage.csv", "claude_rolling_tokens.csv")
REAL = {
    "claude": Limits(CLAUDE, "five_hour", (1, 169, 2879), (30, 60, 120), 0.30, (0.08, 0.12, 0.10), (0.75, 0.85), 0.10, 0.85, 0.25),
    # One bin misses 0.1: 76 forecasts of 0.345 at 120 minutes, of which 0.237 came true.
    "codex": Limits(("codex_rate_limits.csv",), "five_hour", (7, 40, 3956), (30, 60, 120), 0.30, (0.08, 0.08, 0.08), (0.75, 0.85), 0.11, 0.85, 0.2),
    # REGRESSION LIMITS, no aims: what is reached today for three users who came later. Forecasts may only get better than
    # this: they hardly beat how often it came before, and of a week they are too sure.
    "codex-later": Limits(("codex_rate_limits_2.csv",), "five_hour", (3, 83, 7881), (30, 60, 120), 0.42, (0.02, 0.035, 0.025), (0.75, 0.85), 0.055, 0.88, 0.40),
    "codex-later-week": Limits(("codex_rate_limits_2.csv",), "weekly", (3, 43, 14313), (1440, 2880), 0.53, (0.04, 0.04), (0.75, 0.85), 0.375, 0.25, 0.02),
}  # fmt: skip


@needs_shared
@pytest.mark.parametrize("name", REAL if ROUNDS > 1 else [*REAL][1:])  # the first takes half a minute
def test_real_users(name: str) -> None:
    limits = REAL[name]
    paths = [str(SHARED / "limits" / file) for file in limits.files]
    made = subprocess.run([sys.executable, str(ROOT / "bench/meters.py"), *paths], capture_output=True, check=True).stdout
    (group,) = limit_backtest.groups(series_of(map(json.loads, made.splitlines())), None, limits.window).values()
    spans = [window for past in group for window in past.series.windows]
    assert (len(group), len(spans), sum(len(window.points) for window in spans)) == limits.size
    result = limit_backtest.replay(group, limits.horizons)
    for horizon, fair in zip(limits.horizons, limits.fair, strict=True):
        assert skill_over(result, horizon, limit_backtest.LINE) >= limits.line
        assert skill_over(result, horizon, limit_backtest.START) >= limits.line
        assert min(skill_over(result, horizon, method) for method in limit_backtest.FAIR) >= fair
        for one in limit_scores.reliability(limit_scores.of_horizon(result, horizon)):
            assert one.number < 50 or abs(one.chance - one.frequency) <= limits.off, (horizon, one)
    covered = limit_scores.coverage(result.hours)
    assert covered is not None and limits.covered[0] <= covered[0] <= limits.covered[1]
    told = limit_scores.alarms(result)
    assert told.reached >= 14 and told.announced / told.reached >= limits.announced
    assert told.false_per_cap_and_day is not None and told.false_per_cap_and_day <= limits.false
