"""When windows open and what lapses (tok-plan next), and how plans would have served (tok-plan fit)."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import worth_accounts

from conftest import Json, Run, objects
from tokenops import catalog, headroom, limit_fit, limit_next, limit_percent, plans, when
from tokenops.limit_fit import LEARNED, MULTIPLE, PUBLISHED, Cutoffs, Size, Use
from tokenops.limit_windows import MINUTE, Key, Reading
from tokenops.limit_worth import Change, Interval

NOW = "2026-11-21T09:30:00.000Z"
AT = when.moment(NOW)
HOUR = 60 * MINUTE
UTC = when.zone("UTC")
FIVE, WEEK = Key("anthropic", "", "five_hour", ""), Key("anthropic", "", "weekly", "")
ALL = plans.all_plans()


def reading(key: Key, hours_ago: float, used: float, resets_in: float) -> Reading:
    minutes = 300 if key is FIVE else 10_080
    return Reading(key, minutes, AT - round(hours_ago * HOUR), used, AT + round(resets_in * HOUR), "", "proxy", "")


def rows(*readings: Reading) -> list[Json]:
    past = limit_next.Past(sorted(readings, key=lambda each: each.at), {}, AT, UTC)
    return limit_next.rows(headroom.states(past.readings, AT), past)


def words(row: Json) -> list[str]:
    return [sentence.strip() for sentence in limit_next.sentences(row, AT, UTC)]


def test_an_open_window_and_those_after_it() -> None:
    (row,) = rows(reading(FIVE, 1.0, 0.2, 2.5), reading(FIVE, 0.0, 0.3, 2.5))
    assert (row["state"], row["used"], row["pace"]) == ("open", 0.3, "recent")
    assert row["likely_at_reset"] == pytest.approx(0.55) and row["lapses"] == pytest.approx(0.45)
    assert [span["opens_at"][11:16] for span in row["then"]] == ["12:00", "17:00", "22:00"]
    assert words(row) == [
        "30% used; resets 12:00, in 2h30m",
        "at its recent pace 55% is used by then: 45% lapses",
        "then, if work goes on: 12:00 to 17:00, 17:00 to 22:00, 22:00 to Sun 03:00",
    ]


def test_a_window_that_runs_out_lapses_nothing() -> None:
    (row,) = rows(reading(FIVE, 1.0, 0.3, 2.5), reading(FIVE, 0.0, 0.7, 2.5))
    assert row["lapses"] == 0 and row["runs_out_at"] == "2026-11-21T10:15:00.000Z"
    assert words(row)[1] == "at its recent pace it runs out at 10:15"


def test_a_week_goes_on_at_its_usual_pace() -> None:
    before = [reading(WEEK, 24 * day, (10 - day) / 20, -12) for day in range(10, 3, -1)]
    now = [reading(WEEK, 24 * day, (3 - day) / 20, 156) for day in (2, 1, 0)]
    (row,) = rows(*before, *now)
    # 0.3 of the last window and 0.15 of this one in ten days.
    assert row["pace"] == "usual" and row["used_per_hour"] == pytest.approx(0.45 / 240, rel=0.01)
    assert row["then"] == []


def test_a_window_that_is_not_open() -> None:
    (row,) = rows(reading(FIVE, 8.0, 0.3, -4))
    assert row["state"] == "closed" and "lapses" not in row
    assert words(row)[0] == "no window is open; one that opens now, with a request, resets 14:30"


def test_banked_resets_expire() -> None:
    days = [limit_next.expiry("openai", day) for day in ("2026-11-01", "2026-10-01")]
    (row,) = limit_next.banked_rows({"openai": days}, AT)
    assert row["expires_at"] == "2026-12-01T00:00:00.000Z" and row["expires_in"] == "9d14h"
    assert words(row) == ["expires Tue 1 Dec, in 9d14h, and lapses then"]


# Plans.


@pytest.mark.parametrize(
    ("what", "hours", "windows", "expected"),
    [
        ("room for all", [0, 1, 2], [(300, 3)], Cutoffs(0, 0)),
        ("the fourth turn waits for the reset", [0, 1, 2, 3], [(300, 3)], Cutoffs(1, 2)),
        ("what waits counts in the next window", [0, 0, 0, 0, 0, 0, 0], [(300, 3)], Cutoffs(2, 10)),
        ("a window opens with a turn", [0, 6, 7, 8, 9], [(300, 3)], Cutoffs(1, 2)),
        ("the longer window holds too", [0, 6, 12, 18], [(300, 3), (1440, 2)], Cutoffs(1, 12)),
        ("a turn that is larger than the window", [0, 6], [(300, 0.5)], Cutoffs(0, 0)),
    ],
)
def test_replay(what: str, hours: list[int], windows: list[tuple[int, float]], expected: Cutoffs) -> None:
    assert limit_fit.replay([Use(AT + hour * HOUR, 1.0) for hour in hours], windows) == expected


def size(usd: float, wide: float = 1.0) -> Size:
    return Size(Interval(usd / wide, usd, usd * wide), LEARNED)


def test_sizes_are_learned_multiplied_or_published() -> None:
    learned = {("claude-pro", "five_hour"): size(10.0), ("claude-pro", "weekly"): size(60.0)}
    assert {name: each.source for name, each in limit_fit.sizes(ALL["claude-pro"], learned, ALL).items()} == {
        "five_hour": LEARNED, "weekly": LEARNED}  # fmt: skip
    larger = limit_fit.sizes(ALL["claude-max-5x"], learned, ALL)
    assert set(larger) == {"five_hour"} and larger["five_hour"].usd.p50 == 50
    ultra = limit_fit.sizes(ALL["claude-max-20x"], learned, ALL)
    assert (ultra["weekly"].usd.p50, ultra["weekly"].source) == (600, MULTIPLE)
    copilot = limit_fit.sizes(ALL["copilot-pro"], {}, ALL)
    assert (copilot["monthly"].usd.p50, copilot["monthly"].source) == (15, PUBLISHED)
    assert limit_fit.sizes(ALL["gpt-plus"], learned, ALL) == {}


def month(usd: float) -> list[Use]:
    """Twenty days with eight hours of work at so many dollars an hour."""
    return [Use(AT - day * when.DAY + hour * HOUR, usd) for day in range(28, 0, -1) if day % 7 > 1 for hour in range(8)]


def fit(uses: list[Use], learned: Any) -> dict[str, Json]:
    offered = [plan for plan in plans.current_plans() if plan.provider == "anthropic"]
    return {row["plan"]: row for row in limit_fit.rows("anthropic", offered, uses, learned, ALL, "claude-pro", AT)}


@pytest.mark.parametrize(
    ("usd", "wide", "verdict", "recommended", "sure"),
    [
        (0.5, 1.1, "fits", "claude-pro", True),
        (1.4, 1.3, "fits", "claude-pro", False),  # the smallest size that is likely would not do
        (6.0, 1.1, "too_small", "claude-max-20x", False),  # nobody knows Max's week
    ],
)
def test_a_recommendation_with_its_doubt(usd: float, wide: float, verdict: str, recommended: str, sure: bool) -> None:
    learned = {("claude-pro", "five_hour"): size(8.0, wide), ("claude-pro", "weekly"): size(70.0, wide)}
    every = fit(month(usd), learned)
    assert every["claude-pro"]["verdict"] == verdict and every["claude-pro"]["current"]
    assert every["claude-max-5x"]["verdict"] == "cannot_tell" and "weekly" in every["claude-max-5x"]["note"]
    assert [(name, row["sure"]) for name, row in every.items() if row.get("recommended")] == [(recommended, sure)]
    cutoffs = every["claude-pro"]["cutoffs"]
    assert cutoffs["p10"] <= cutoffs["p50"] <= cutoffs["p90"]


def test_what_cannot_be_told() -> None:
    every = fit(month(1.0)[:16], {("claude-pro", "five_hour"): size(8.0), ("claude-pro", "weekly"): size(70.0)})
    assert "days of use" in every["claude-pro"]["note"]
    assert all(row["verdict"] == "cannot_tell" for row in fit(month(1.0), {}).values())
    text = limit_fit.table(list(fit(month(1.0), {}).values()), "table", False)
    assert "cannot tell which plan fits" in text


def test_what_the_vendor_announced_stands_beside_a_change() -> None:
    (entry, *_) = [each for each in catalog.load("plans")["announced"]["anthropic"] if float(each["factor"]) < 1]
    at = when.moment(f"{entry['from']}T00:00:00Z") + when.DAY
    row = limit_percent._change(WEEK, Change(at, Interval(0.78, 0.83, 0.89)))
    assert row["announced"] == {"from": "2026-09-14", "factor": 0.83}
    (text,) = limit_percent._changes([row])
    assert text == "since 15 Sep a percent buys 17% less (80% likely: 11 to 22%; the vendor announced -17% from 14 Sep)"
    assert "announced" not in limit_percent._change(WEEK, Change(at + 30 * when.DAY, Interval(0.78, 0.83, 0.89)))


def test_the_commands(run: Run, environment: dict[str, str]) -> None:
    days = 10
    account = worth_accounts.account(4, days)
    now = {"TOKENOPS_NOW": when.stamp(account.end)}
    run("tok-plan next", status=1, env=now)
    run("tok-plan fit", status=1, env=now)
    run("tok-log append >/dev/null", account.log)
    run("tok-plan set anthropic claude-pro", env=now)
    assert [row["window"] for row in objects(run("tok-plan next", env=now).stdout)] == ["five_hour"]
    every = objects(run("tok-plan fit", env=now).stdout)
    assert {row["plan"]: row["verdict"] for row in every}["claude-pro"] == "cannot_tell"  # its week was never read
    assert "cannot tell" in run("tok-plan fit --table", env=now).stdout.decode()
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    with path.open("a") as file:
        file.write(f"banked_resets: {{openai: [{when.stamp(account.end)[:10]}]}}\n")
    assert "banked reset" in run("tok-plan next --table", env=now).stdout.decode()
    path.write_text("banked_resets: {openai: [{expires: 2099-01-02}]}\n")
    assert objects(run("tok-plan next", env=now).stdout)[-1]["expires_at"] == "2099-01-02T00:00:00.000Z"
    path.write_text("banked_resets: {openai: [{ends: 2099-01-02}]}\n")
    assert b"expires: 2026-12-20" in run("tok-plan next", status=2, env=now).stderr
    path.write_text("banked_resets: {openai: [soon]}\n")
    assert b"expected days" in run("tok-plan next", status=2, env=now).stderr
    path.write_text("banked_resets: {anthropic: [2026-11-20]}\n")
    assert b"has no banked resets" in run("tok-plan next", status=2, env=now).stderr
