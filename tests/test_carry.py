"""What local turns add to a reading: learned from made-up accounts whose rate is known, and from real ones."""

from __future__ import annotations

import csv
import datetime
import os
import pathlib
import random
import statistics
from decimal import Decimal
from typing import Any

import orjson
import pytest

from conftest import SHARED, Json, Run, objects
from tokenops import (
    config,
    events,
    headroom,
    jsonl,
    limit_budget,
    limit_carry,
    limit_log,
    limit_windows,
    pricing,
    store,
    when,
)
from tokenops.limit_carry import Piece, Rate, Spend
from tokenops.limit_windows import MINUTE, Key, Point, Reading, Series, Window

AT = when.moment("2026-11-21T09:30:00.000Z")
FIVE = Key("anthropic", "", "five_hour", "")
RULES = config.thresholds(config.Config({}, "", []))


def piece(rise: float, usd: float, family: str = "", resets: int = 1, key: Key = FIVE) -> Piece:
    return Piece(key, resets, AT, rise, usd, family)


def turn(
    at: int, usd: str | None = "1", model: str = "claude-opus-4-8", account: str = "", provider: str = "anthropic"
) -> Spend:
    return Spend(at, provider, account, model, None if usd is None else Decimal(usd))


def window(used: float | None = 0.4, seen: int = AT - 20 * MINUTE, key: Key = FIVE) -> headroom.State:
    return headroom.State(*key[:3], 300, key.scope, used, AT + 60 * MINUTE, seen, "", "proxy", "")


STEADY = {(FIVE, ""): Rate(0.01, 0.02, 0.04, 9)}


def test_a_rate_is_learned_from_the_accounts_own_past() -> None:
    draw = random.Random(4)
    found = [piece(0.02, 1 / draw.uniform(0.5, 1.5)) for _ in range(50)]
    (rate,) = limit_carry.rates(found).values()
    assert rate.p10 < rate.p50 < rate.p90 and rate.pieces == 50
    assert rate.p50 == pytest.approx(0.02, rel=0.25)
    assert 0.009 < rate.p10 < 0.016 and 0.023 < rate.p90 < 0.031


@pytest.mark.parametrize(
    ("what", "found", "known"),
    [
        ("too few", [piece(0.02, 1)] * 4, False),
        ("enough", [piece(0.02, 1)] * 5, True),
        ("rises of one percent are added up first", [piece(0.01, 1)] * 9, False),
        ("to two each", [piece(0.01, 1)] * 10, True),
        ("a piece of another window is not added", [piece(0.01, 1, resets=n) for n in range(10)], False),
        ("most of it was used elsewhere", [piece(0.02, 1)] * 5 + [piece(0.02, 0)] * 6, False),
        ("less than half was", [piece(0.02, 1)] * 5 + [piece(0.02, 0)] * 4, True),
    ],
)
def test_what_is_enough_to_learn_from(what: str, found: list[Piece], known: bool) -> None:
    assert bool(limit_carry.rates(found)) == known


def test_only_the_latest_rises_are_asked() -> None:
    assert limit_carry.rates([piece(0.02, 100)] * 500 + [piece(0.02, 1)] * limit_carry.MOST)[FIVE, ""].p10 == pytest.approx(
        0.02
    )


def test_a_models_own_rate() -> None:
    known = limit_carry.rates(
        [piece(0.02, 1, "opus")] * 5 + [piece(0.02, 0.5, "haiku")] * 5 + [piece(0.02, 1, "sonnet")] * 2
    )
    assert {family: round(rate.p50, 3) for (_, family), rate in known.items()} == {"": 0.02, "opus": 0.02, "haiku": 0.04}
    (made,) = limit_carry.carried_forward([window()], [turn(AT, "1", "claude-haiku-4-5")], known, AT)
    assert made.carry is not None and made.carry.p50 == pytest.approx(0.44)


def test_what_a_share_buys_is_what_it_bought() -> None:
    past = [piece(0.02, 1 + 0.5 * (number % 2))._replace(turns=10) for number in range(60)]
    room = limit_carry.room(past, 0.4)
    assert room is not None
    assert room.usd == pytest.approx((25, 25, 25)) and room.turns == pytest.approx((200, 200, 200))
    # Every third rise was elsewhere: a dollar less for each.
    shared = [piece(0.02, float(number % 3 > 0))._replace(turns=10 * (number % 3 > 0)) for number in range(60)]
    room = limit_carry.room(shared, 0.6)
    assert room is not None and room.usd == pytest.approx((20, 20, 20), rel=0.1)
    # A share larger than a third of the past is scaled up from that.
    room = limit_carry.room(past, 1.0)
    assert room is not None and room.usd[1] == pytest.approx(62.5)


@pytest.mark.parametrize(
    ("what", "past", "share"),
    [
        ("nothing is left", [piece(0.02, 1)] * 60, 0.0),
        ("few pieces", [piece(0.1, 1)] * 9, 0.5),
        ("little of the window", [piece(0.02, 1)] * 14, 0.5),
        ("most of it elsewhere", [*[piece(0.02, 1)] * 12, *[piece(0.02, 0)] * 90], 0.5),
        ("nothing", [], 0.5),
    ],
)
def test_where_the_past_cannot_tell_what_a_share_buys(what: str, past: list[Piece], share: float) -> None:
    assert limit_carry.room(past, share) is None


CASES: list[tuple[str, list[headroom.State], list[Spend], list[float | None]]] = [
    ("turns since the reading", [window()], [turn(AT), turn(AT)], [0.44]),
    ("turns before it are in it", [window()], [turn(AT - 30 * MINUTE)], [None]),
    ("nothing since", [window()], [], [None]),
    ("a window that is not known", [window(None)], [turn(AT)], [None]),
    ("another provider's", [window()], [turn(AT, provider="openai")], [None]),
    ("a turn without a price", [window()], [turn(AT), turn(AT, None)], [None]),
    ("a reading of the day before yesterday", [window(seen=AT - 2 * when.DAY)], [turn(AT)], [None]),
    ("whose turn, of two accounts", [window(key=FIVE._replace(account="a")), window(key=FIVE._replace(account="b"))], [turn(AT)], [None, None]),
    ("whose, if it is known", [window(key=FIVE._replace(account="a")), window(key=FIVE._replace(account="b"))], [turn(AT, account="a")], [0.42, None]),
    ("a window of other models", [window(key=FIVE._replace(scope="fable"))], [turn(AT)], [None]),
    ("a window of its models", [window(key=FIVE._replace(scope="opus"))], [turn(AT)], [0.42]),
    ("a quota of requests counts for all", [window(key=FIVE._replace(scope="chat"))], [turn(AT)], [0.42]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "found", "turns", "expected"), CASES, ids=[case[0] for case in CASES])
def test_carrying(what: str, found: list[headroom.State], turns: list[Spend], expected: list[float | None]) -> None:
    known = {(one.key, ""): STEADY[FIVE, ""] for one in found}
    made = limit_carry.carried_forward(found, turns, known, AT)
    assert [one.carry and pytest.approx(one.carry.p50) for one in made] == expected
    assert [one.used for one in made] == [one.used for one in found]


def test_nothing_learned_nothing_carried() -> None:
    assert limit_carry.carried_forward([window()], [turn(AT)], {}, AT) == [window()]


def test_what_is_carried_decides_but_stops_nobody_alone() -> None:
    def action(used: float, dollars: str) -> str:
        (made,) = limit_carry.carried_forward([window(used)], [turn(AT, dollars)], STEADY, AT)
        (told,) = limit_budget.budgets([made], AT, RULES)
        assert told["headroom_pct"] == round(100 * max(0.0, 1 - used - 0.02 * float(dollars)))
        assert "carried forward" in told["signal_quality"]["caveat"] and told["windows"][0]["used"] == used
        return str(told["recommended_action"])

    assert action(0.70, "2") == "continue"
    assert action(0.70, "6") == "slow_down"
    assert action(0.70, "14") == "slow_down"  # likely 98 %, but it may as well be 84 %
    assert action(0.70, "28") == "wait_for_reset"


def test_pieces_of_a_window() -> None:
    readings = tuple(Point(AT + n * MINUTE, used / 100) for n, used in enumerate((10, 11, 13, 13, 16, 17)))
    known = [Series(FIVE, (Window(AT + 99 * MINUTE, 300, readings),), False)]
    turns = [turn(AT + n * MINUTE, "0.5") for n in range(6)] + [turn(AT + 5 * MINUTE, "9", provider="openai")]
    found = [(round(one.rise, 3), one.usd, one.family) for one in limit_carry.pieces(known, turns)]
    assert found == [(0.03, 1.0, "opus"), (0.03, 1.0, "opus"), (0.01, 0.5, "opus")]
    unpriced = [*turns, turn(AT + 90_000, None)]
    unpriced.sort(key=lambda one: one.at)
    assert [round(one.rise, 3) for one in limit_carry.pieces(known, unpriced)] == [0.03, 0.01]


def a_turn(at: int, output: int, **more: Any) -> Json:
    about = {
        "provider": "anthropic",
        "model": "claude-opus-4-8",
        "client": "claude-code",
        "turns": 1,
        "output_tokens": output,
    }
    return {"v": 1, "ts": when.stamp(at), "id": f"msg_{at}_{output}", "kind": "turn", **about, **more}


def test_turns_added_up_cost_what_they_cost_one_by_one() -> None:
    catalogue, draw = pricing.load(), random.Random(9)
    models = ["claude-opus-4-8", "claude-haiku-4-5", "no-such-model"]
    turns = [a_turn(AT + draw.randrange(10 * MINUTE), draw.randrange(9999), model=draw.choice(models)) for _ in range(200)]
    turns[7] |= {"cost_usd": "1.5", "cost_source": "reported"}
    cuts = [AT + 3 * MINUTE, AT + 7 * MINUTE]
    alone = limit_carry.spends(turns, catalogue)
    together = limit_carry.spends_between([dict(one) for one in turns], catalogue, cuts)
    assert len(together) < 20

    def sums(found: list[Spend]) -> Any:
        made: dict[Any, list[Any]] = {}
        for one in found:
            slot = sum(one.at > cut for cut in cuts)
            held = made.setdefault((slot, one.model, one.usd is None), [0, Decimal(0)])
            held[0] += one.turns
            held[1] += one.usd or 0
        return made

    assert sums(together) == sums(alone)


def history(folder: str, days: int = 6) -> None:
    """Closed days on which a percent was 10,000 tokens of output ($0.25), and a reading of today with turns after it."""
    lines = []
    for day in range(1, days + 1):
        begin = AT - day * when.DAY
        for step in range(40):
            at = begin + step * 2 * MINUTE
            lines.append(a_turn(at + 1000, 10_000))
            lines.append(meter(at + MINUTE, (step + 1) / 100, begin + 280 * MINUTE))
    lines.append(meter(AT - 20 * MINUTE, 0.5, AT + 60 * MINUTE))
    lines += [a_turn(AT - 21 * MINUTE, 10_001), a_turn(AT - 19 * MINUTE, 10_002), a_turn(AT - 5 * MINUTE, 50_003)]
    store.append(folder, map(jsonl.line_of, lines))


def meter(at: int, used: float, resets: int) -> Json:
    about = {"window": "five_hour", "window_minutes": 300, "used": used, "resets_at": when.stamp(resets)}
    return events.meter("claude-code-statusline", "anthropic", when.stamp(at), **about)


def test_from_the_log_to_the_answer(tmp_path: pathlib.Path, run: Run) -> None:
    folder = str(tmp_path / "log")
    history(folder)
    env = {"TOKENOPS_HOME": folder, "TOKENOPS_NOW": when.stamp(AT)}
    assert limit_log.learn(folder, pricing.load(), AT) > 0
    assert limit_log.learn(folder, pricing.load(), AT) == 0
    (told,) = objects(run("tok-budget --json", env=env, status=None).stdout)
    carried = told["windows"][0]["carried"]
    assert carried["turns"] == 2 and carried["cost_usd"] == "1.500125"
    assert carried["used"]["p50"] == pytest.approx(0.56, abs=0.002) and told["headroom_pct"] == 43
    assert told["windows"][0]["used"] == 0.5
    assert told["headroom_usd"]["p50"] == pytest.approx(0.4375 / 0.04, rel=0.1) and told["headroom_turns"]["p50"] > 0
    assert "carried forward by 2 local turns" in told["signal_quality"]["caveat"]
    # Asking changes nothing, and asking again gives the same answer.
    before = {path: path.read_bytes() for path in pathlib.Path(folder, "events").iterdir()}
    answers = {
        orjson.dumps({**told, "as_of": ""})
        for _ in range(int(os.environ.get("TOKENOPS_CALLS", "20")))
        for told in objects(run("tok-budget --json", env=env, status=None).stdout)
    }
    assert len(answers) == 1
    assert {path: path.read_bytes() for path in pathlib.Path(folder, "events").iterdir()} == before


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data")
def test_real_accounts_are_carried_nearer_to_the_truth() -> None:
    """Half an hour ahead of a held reading, knowing the local turns of that time, walking forward; and the interval."""
    catalogue = pricing.load()
    rows = list(csv.DictReader((SHARED / "limits/codex_rate_limits.csv").open(newline="")))
    for user, better in (("user1", 0.6), ("user50", 0.65)):
        seen, turns = [], []
        for row in rows:
            if row["user"] == user and row["primary_pct"] and row["primary_window_min"] in ("299", "300"):
                at = int(datetime.datetime.fromisoformat(row["ts"]).timestamp() * 1000)
                resets = 1000 * int(row["primary_resets_at"] or 0) or at + 1000 * int(row["primary_resets_in_s"])
                seen.append(Reading(Key("openai", "", "five_hour", ""), 300, at, float(row["primary_pct"]) / 100, resets, "", "codex-jsonl", ""))  # fmt: skip
                counts = {name: int(float(row[field] or 0)) for name, field in (("input_tokens", "last_input"), ("cache_read_tokens", "last_cached"), ("output_tokens", "last_output"))}  # fmt: skip
                counts["input_tokens"] -= counts["cache_read_tokens"]
                model = row["model"].removesuffix("-spark")
                turns.append(
                    {"id": str(len(turns)), "ts": when.stamp(at), "provider": "openai", "model": model, "turns": 1, **counts}
                )
        spent = limit_carry.spends(turns, catalogue)
        known = limit_windows.series(seen)
        errors, held, covered = [], [], []
        past = list(limit_carry.pieces(known, spent))
        for one in known:
            for opened in one.windows:
                for first in opened.points[::5]:
                    later = [reading for reading in opened.points if first.at < reading.at <= first.at + 30 * MINUTE]
                    if not later:
                        continue
                    before = [p for p in past if p.at <= first.at]
                    now = window(first.used, first.at, one.key)._replace(resets_at=opened.resets_at)
                    (made,) = limit_carry.carried_forward(
                        [now], [s for s in spent if s.at <= later[-1].at], limit_carry.rates(before), later[-1].at
                    )
                    if made.carry is None:
                        continue
                    errors.append(abs(later[-1].used - made.carry.p50))
                    held.append(later[-1].used - first.used)
                    covered.append(made.carry.p10 - 0.01 <= later[-1].used <= made.carry.p90 + 0.01)
        assert len(errors) > 50
        assert statistics.mean(errors) <= better * statistics.mean(held)
        assert statistics.mean(covered) >= 0.75
