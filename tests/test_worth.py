"""What a percent of a window is worth: from accounts of which it is set, with lag, rounding, use elsewhere, and changes."""

from __future__ import annotations

import math
import random
from decimal import Decimal

import pytest
import worth_accounts

from conftest import Run, objects
from tokenops import limit_percent, limit_pieces, limit_weights, limit_windows, limit_worth, when
from tokenops.limit_carry import Spend
from tokenops.limit_pieces import Piece, Rise
from tokenops.limit_windows import MINUTE, Key, Reading

bench = worth_accounts.worth

AT = when.moment("2026-11-21T00:00:00.000Z")
FIVE = Key("anthropic", "", "five_hour", "")
RESETS = AT + 300 * MINUTE


def readings(*points: tuple[float, float], key: Key = FIVE, source: str = "proxy") -> list[Reading]:
    """Readings (minute, percent) of one window."""
    return [Reading(key, 300, AT + round(at * MINUTE), used / 100, RESETS, "", source, "") for at, used in points]


def turn(minute: float, usd: str | None = "1", model: str = "claude-opus-5") -> Spend:
    return Spend(AT + round(minute * MINUTE), "anthropic", "", model, None if usd is None else Decimal(usd))


def rises(points: list[Reading], turns: list[Spend]) -> list[Rise]:
    return list(limit_pieces.rises(limit_windows.series(points), turns))


def test_a_rise_holds_what_turns_cost_under_each_lag() -> None:
    turns = [turn(1), turn(9, "2"), turn(19.5, "4")]
    first, second = rises(readings((5, 10), (10, 12), (15, 12), (20, 15)), turns)
    assert (first.percent, second.percent) == (pytest.approx(2), pytest.approx(3))
    # no lag; a turn late; two minutes late; five minutes late
    assert first.usd == (2, 1, 0, 1)
    assert second.usd == (4, 2, 2, 2)
    assert (first.before, first.last, second.before, second.last) == (None, 2, 2, 4)
    assert (first.turns, first.families) == (1, {"opus": (2, 0, 0)})


@pytest.mark.parametrize(
    ("what", "points", "turns", "percents", "quiet", "unpriced"),
    [
        ("joined to three percent", [(0, 1), (1, 2), (2, 3), (3, 4)], [0.5, 1.5, 2.5], [3], 0, 0),
        ("what is less stays out", [(0, 1), (1, 2), (2, 3)], [0.5, 1.5], [], 0, 0),
        ("a rise without a turn is use elsewhere", [(0, 1), (1, 5), (2, 9), (3, 13)], [0.5, 2.5], [4, 4], 4, 0),
        ("a full window shows no more", [(0, 92), (1, 96), (2, 100), (3, 105)], [0.5, 1.5, 2.5], [4], 0, 0),
        ("a turn without a price", [(0, 1), (1, 5), (2, 9)], [0.5, -1.5], [4], 0, 4),
        ("a reading that did not rise", [(0, 1), (1, 1), (2, 5)], [0.5, 1.5], [4], 0, 0),
    ],
)
def test_pieces(
    what: str,
    points: list[tuple[float, float]],
    turns: list[float],
    percents: list[float],
    quiet: float,
    unpriced: float,
) -> None:
    local = [turn(abs(at), "1" if at > 0 else None) for at in turns]
    cut = limit_pieces.cut_pieces(rises(readings(*points), local), 0, 0.0, 3.0)
    # The first reading of a window is half a step before the next rise on average.
    expected = [percent - 0.5 * (at == 0) for at, percent in enumerate(percents)]
    assert [piece.percent for piece in cut.pieces] == pytest.approx(expected)
    assert (cut.quiet, cut.unpriced) == (pytest.approx(quiet), pytest.approx(unpriced))


@pytest.mark.parametrize(("percents", "step"), [((1, 2, 9), 1.0), ((1, 2.5, 9), 0.1), ((1, 2.53, 9), 0.01)])
def test_readings_may_be_finer_than_whole_percents(percents: tuple[float, ...], step: float) -> None:
    points = readings(*((float(at), percent) for at, percent in enumerate(percents)))
    assert {rise.step for rise in rises(points, [turn(0.5)])} == {step}


def test_packed_rises_are_the_same() -> None:
    every = rises(readings((0, 1), (1, 5), (2, 9)), [turn(0.5), turn(1.5, None)])
    assert limit_pieces.unpack(jsonl_again(limit_pieces.pack(every))) == every


def jsonl_again(value: list[list[object]]) -> list[list[object]]:
    import orjson

    again: list[list[object]] = orjson.loads(orjson.dumps(value))
    return again


def steady(days: int, usd: float, change: tuple[int, float] = (99, 1.0), scatter: float = 0.1, seed: int = 1) -> list[Rise]:
    """Rises of four percent, eight a day, at so many dollars a percent; from a day on times a factor."""
    draw = random.Random(seed)
    result = []
    for day in range(days):
        worth = usd * (change[1] if day >= change[0] else 1.0)
        for number in range(8):
            at = AT + day * when.DAY + number * 10 * MINUTE
            cost = 4 * worth * draw.lognormvariate(0, scatter)
            costs = (cost,) * len(limit_pieces.LAGS)
            result.append(
                Rise(
                    FIVE,
                    300,
                    at + MINUTE,
                    at - 10 * MINUTE,
                    at,
                    4.0,
                    costs,
                    0.01,
                    0.01,
                    1.0,
                    3,
                    {"opus": (cost, 0.3 * cost, 0.2 * cost)},
                )
            )
    return result


def test_a_steady_account() -> None:
    worth = limit_worth.worth(steady(20, 0.5))
    assert worth is not None
    low, middle, high = worth.usd_per_percent
    assert low < 0.5 < high and high / low < 1.1 and middle == pytest.approx(0.5, rel=0.03)
    assert (worth.pieces, worth.days, worth.changes) == (160, 20, [])
    assert worth.unseen_share < 0.03 and 0.02 < worth.least_change < 0.2


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_change_is_dated(factor: float) -> None:
    worth = limit_worth.worth(steady(24, 0.5, (14, factor)))
    assert worth is not None
    (change,) = worth.changes
    assert change.at == AT + 14 * when.DAY
    assert change.factor.p10 < factor < change.factor.p90
    assert worth.usd_per_percent.p50 == pytest.approx(0.5 * factor, rel=0.04) and worth.days == 10


def test_weights_of_classes_are_learned_from_pieces_that_differ() -> None:
    """Cache reads count a quarter of their price, output twice, haiku half."""
    draw = random.Random(5)
    pieces = []
    for number in range(300):
        reads, output, haiku = draw.uniform(0.1, 0.8), draw.uniform(0.05, 0.2), draw.random() < 0.4
        parts = {"haiku" if haiku else "opus": (1.0, reads, output)}
        counted = ((1 - reads - output) + 0.25 * reads + 2 * output) * (0.5 if haiku else 1.0)
        percent = 4 * counted * draw.lognormvariate(0, 0.1) * (3 if draw.random() < 0.1 else 1)
        pieces.append(Piece(AT + number * when.DAY // 12, percent, 0.2, 1.0, "", parts))
    weights = limit_weights.weights(pieces)
    sure = weights.sure()
    assert weights.main == "opus" and set(sure) == {"cache_read", "output", "haiku"}
    for name, true in (("cache_read", 0.25), ("output", 2.0), ("haiku", 0.5)):
        low, middle, high = sure[name]
        assert low < middle < high and middle == pytest.approx(true, rel=0.35)
    assert limit_weights.weights(pieces[:10]) == limit_weights.PRICES


def test_few_pieces_say_nothing() -> None:
    assert limit_worth.worth(steady(1, 0.5)[: limit_worth.FEWEST - 1]) is None
    assert limit_worth.worth([]) is None
    assert limit_worth.worth(steady(5, 0.5), "haiku") is None


def test_simulated_accounts() -> None:
    """The bench's simulator in small: the interval holds the truth, and changes are where they were made."""
    inside, errors = 0, []
    every = list((bench.MADE_FOR | bench.OTHER).values())
    for seed, habits in enumerate((every[0], every[2], every[6])):
        account = bench.account(seed, 34, {20: 0.8}, habits)
        steps = bench.rises(account)
        for day in (20, 34):
            worth = bench.estimate(steps, day)
            assert worth is not None
            true = account.usd_per_percent[day - 1]
            inside += worth.usd_per_percent.p10 <= true <= worth.usd_per_percent.p90
            errors.append(abs(math.log(worth.usd_per_percent.p50 / true)))
            dates = [(change.at - bench.START) // when.DAY for change in worth.changes]
            assert len(dates) == (day > 20) and all(abs(date - 20) <= 3 for date in dates)
    assert inside >= 3 and max(errors) < 0.1


# Rows and words.


def test_rows_and_sentences() -> None:
    (row,) = limit_percent.rows(steady(24, 0.5, (14, 0.8)), AT)
    assert {"provider", "window", "usd_per_percent", "pieces", "unseen_share", "changes"} <= row.keys()
    assert row["window_usd"]["p50"] == pytest.approx(100 * row["usd_per_percent"]["p50"], rel=0.001)
    assert limit_percent.sentence(row) == "5 h limit: since 5 Dec a percent buys 19% less (80% likely: 15 to 23%)"
    (other,) = limit_percent.rows(steady(20, 0.5), AT)
    assert limit_percent.sentence(other).startswith("5 h limit: unchanged since 21 Nov; a change of ")


def test_a_limit_that_cannot_be_told_is_null_with_a_reason() -> None:
    few = steady(1, 0.5)[:3]
    unpriced = [rise._replace(usd=None) for rise in few]
    elsewhere = [rise._replace(usd=(0.0,) * len(limit_pieces.LAGS)) for rise in few]
    notes = []
    for group in (few, unpriced, elsewhere):
        (row,) = limit_percent.rows(group, AT)
        assert row["usd_per_percent"] is None and "window_usd" not in row
        notes.append(row["note"])
    assert ["too few" in notes[0], "price" in notes[1], "elsewhere" in notes[2]] == [True] * 3
    assert "unknown" in limit_percent.table([row], "table", False)


def aged(group: list[Rise], window: str, minutes: int, days: int = 0, scope: str = "") -> list[Rise]:
    """The same rises of another window, so many days earlier."""
    key, earlier = Key("anthropic", "", window, scope), days * when.DAY
    return [rise._replace(key=key, minutes=minutes, at=rise.at - earlier, before=None) for rise in group]


@pytest.mark.parametrize(
    ("what", "others", "expected"),
    [
        ("alone", [], {"five_hour": "no_longer_limit"}),
        ("a week", [("weekly", 10_080, 0, "")], {"five_hour": "a_longer_limit", "weekly": ""}),
        (
            "a week of one family",
            [("weekly", 10_080, 0, ""), ("weekly_fable", 10_080, 0, "fable")],
            {"five_hour": "a_longer_limit", "weekly": "", "weekly_fable": ""},
        ),
        ("a former plan", [("weekly", 10_080, 60, "")], {"five_hour": "no_longer_limit", "weekly": "no_recent_rise"}),
    ],
)
def test_a_month_is_given_where_the_limit_bounds_it_and_else_says_why(
    what: str, others: list[tuple[str, int, int, str]], expected: dict[str, str]
) -> None:
    group = steady(20, 0.5)
    every = group + [rise for window, minutes, days, scope in others for rise in aged(group, window, minutes, days, scope)]
    rows = limit_percent.rows(sorted(every, key=lambda rise: rise.at), AT + 20 * when.DAY)
    assert {row["window"]: row.get("no_month", "") for row in rows} == expected
    text = limit_percent.table(rows, "markdown", False)
    for row in rows:
        cells = next(
            line for line in text.splitlines() if line.startswith("|") and f"${row['window_usd']['p50']:.2f}" in line
        )
        assert ("month_usd" in row) == ("no_month" not in row)
        if "month_usd" in row:
            times = row["month_usd"]["p50"] / row["window_usd"]["p50"]
            assert times == pytest.approx(365.25 / 12 / 7, rel=0.001) and "| -" not in cells
    assert text.count("a month is") == 1
    assert text.count(" - |") == sum(map(bool, expected.values()))
    assert " - " not in limit_percent.table(rows, "csv", False)


def test_families_of_models_have_rows_of_their_own() -> None:
    haiku = [
        rise._replace(families={"haiku": (1.0, 0.0, 0.0)}, at=rise.at + 400 * MINUTE) for rise in steady(10, 0.2, seed=2)
    ]
    mixed = sorted([*steady(10, 0.5), *haiku], key=lambda rise: rise.at)
    every = limit_percent.rows(mixed, AT, limit_percent.FIELDS)
    assert {row["model"]: round(row["usd_per_percent"]["p50"], 1) for row in every} == {"haiku": 0.2, "opus": 0.5}


def test_the_command(run: Run) -> None:
    account, log, end = worth_accounts.account(3, 12)
    now = {"TOKENOPS_NOW": when.stamp(end)}
    run("tok-plan worth", status=1, env=now)
    run("tok-log append >/dev/null", log)
    done = run("tok-plan worth", env=now)
    (row,) = objects(done.stdout)
    assert (row["provider"], row["window"], row["kind"]) == ("anthropic", "five_hour", "plan_worth")
    assert row["usd_per_percent"]["p50"] == pytest.approx(account.usd_per_percent[-1], rel=0.15)
    again = run("tok-plan worth anthropic --by window", env=now)  # from what was kept of closed days
    assert [{**each, "as_of": ""} for each in objects(again.stdout)] == [{**row, "as_of": ""}]
    families = objects(run("tok-plan worth --by window,model", env=now).stdout)
    assert {row["model"] for row in families} <= {"opus", "sonnet"} and families
    assert "whole window" in run("tok-plan worth --table", env=now).stdout.decode()
    wrong = run("tok-plan worth --by day", status=2, env=now)
    assert b"--by day: expected window or model" in wrong.stderr
    run("tok-plan worth openai", status=1, env=now)
