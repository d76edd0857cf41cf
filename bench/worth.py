"""Simulates accounts of which the worth of a percent is set, and measures what limit_worth.py makes of them.

    python bench/worth.py coverage|delays|alarms [--seeds N]

An account works on most days in a few sessions whose context grows. What a turn uses of the limit follows hidden weights of
token classes and families, not the list prices; the meter lags, rounds to whole percents, and is used elsewhere too. At two
days the vendor changes the size of the window.
"""

from __future__ import annotations

import argparse
import functools
import math
import pathlib
import random
import sys
from decimal import Decimal
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bin"))

from tokenops import limit_pieces, limit_windows, limit_worth, when
from tokenops.limit_carry import Spend
from tokenops.limit_pieces import Rise
from tokenops.limit_windows import MINUTE, Key, Reading

START = when.moment("2026-01-05T00:00:00Z")
FIVE = Key("anthropic", "", "five_hour", "")
WEEK = Key("anthropic", "", "weekly", "")
# Dollars a million tokens at list price: fresh input, cache reads, cache writes, output; and what the meter counts instead.
PRICES = {"opus": (5.0, 0.5, 6.25, 25.0), "sonnet": (3.0, 0.3, 3.75, 15.0)}
HIDDEN = {"opus": (5.0, 0.2, 6.0, 30.0), "sonnet": (2.4, 0.1, 3.0, 14.0)}


class Habits(NamedTuple):
    """How an account works, and what its meter does."""

    sessions: float = 3.0  # a day of work
    turns: float = 45.0  # a session
    sonnet: float = 0.3  # the share of sessions
    elsewhere: float = 0.6  # bursts a day
    polled: bool = False
    lag_turns: int = 1
    lag_ms: int = 0
    drift: float = 0.0  # how much the weights drift from day to day, unexplained
    trickle: float = 0.0  # percent an hour, always
    lost: float = 0.0  # the share of sessions whose turns are not in the log
    floor: bool = False  # percents are cut off, not rounded


class Account(NamedTuple):
    """What the log would hold, and the truth: at each day dollars per percent of the five-hour window."""

    readings: list[Reading]
    spends: list[Spend]
    usd_per_percent: list[float]
    changes: list[int]


class Turn(NamedTuple):
    """Milliseconds since the session began, dollars at list price, what the meter counts, and two parts of the dollars."""

    at: int
    usd: float
    counted: float
    reads: float
    output: float


class Use(NamedTuple):
    """Use of the limit at a moment; `turn` is None if the log does not hold it."""

    at: int
    percent: float
    turn: Turn | None
    model: str


def session(draw: random.Random, habits: Habits) -> tuple[str, list[Turn]]:
    """The model and the turns of a session."""
    model = "sonnet" if draw.random() < habits.sonnet else "opus"
    count = max(3, round(draw.lognormvariate(math.log(habits.turns), 0.6)))
    style = draw.lognormvariate(0, 0.4)  # how much it writes
    context, at, turns = 15_000.0, 0, []
    for _ in range(count):
        at += round(draw.lognormvariate(math.log(60_000), 0.8))
        new = draw.lognormvariate(math.log(1500), 1.0)
        output = style * draw.lognormvariate(math.log(600), 0.9)
        tokens = (draw.random() * 50, context, new, output)
        parts = [count * price / 1e6 for count, price in zip(tokens, PRICES[model], strict=True)]
        counted = sum(count * weight / 1e6 for count, weight in zip(tokens, HIDDEN[model], strict=True))
        turns.append(Turn(at, sum(parts), counted, parts[1], parts[3]))
        context = min(context + new + output, 180_000) if context < 170_000 else 30_000
    return model, turns


@functools.cache
def long_run(habits: Habits) -> float:
    """Dollars at list price for each dollar that the meter counts, over very many sessions."""
    draw = random.Random(99)
    every = [turn for _ in range(1000) for turn in session(draw, habits)[1]]
    return sum(turn.usd for turn in every) / sum(turn.counted for turn in every)


def account(seed: int, days: int, changes: dict[int, float], habits: Habits, size: float = 12.0) -> Account:
    """An account's log. `changes`: day -> by which the size of the window (counted dollars) is multiplied."""
    draw = random.Random(seed)
    ratio = long_run(habits)
    sizes, worths, drift = [], [], 0.0
    for day in range(days):
        size *= changes.get(day, 1.0)
        drift = 0.8 * drift + draw.gauss(0, habits.drift)
        sizes.append(size * math.exp(drift))
    for day in range(days):
        # What is measured is the mean since the vendor's last change: weights that drift are part of the truth.
        since = max((at for at in (0, *changes) if at <= day), default=0)
        worths.append(math.exp(sum(map(math.log, sizes[since : day + 1])) / (day + 1 - since)) * ratio / 100)
    events: list[Use] = []
    for day in range(days):
        midnight = START + day * when.DAY
        if draw.random() < (0.35 if day % 7 >= 5 else 0.92):
            for _ in range(max(1, min(7, round(draw.gauss(habits.sessions, 1.2))))):
                begin = midnight + round((7 + 14 * draw.random()) * 60) * MINUTE
                model, turns = session(draw, habits)
                logged = draw.random() >= habits.lost
                name = f"claude-{model}-5"
                events += [
                    Use(begin + turn.at, 100 * turn.counted / sizes[day], turn if logged else None, name) for turn in turns
                ]
        for _ in range(poisson(draw, habits.elsewhere)):
            begin = midnight + round(24 * 60 * draw.random()) * MINUTE
            whole, parts = draw.lognormvariate(math.log(6), 0.8), draw.randrange(3, 20)
            events += [
                Use(begin + round(part * draw.uniform(1, 4) * MINUTE), whole / parts, None, "") for part in range(parts)
            ]
        if habits.trickle:
            events += [Use(midnight + hour * when.DAY // 24, habits.trickle, None, "") for hour in range(24)]
    events.sort(key=lambda use: use.at)
    return Account(readings(events, habits), spends(events), worths, sorted(changes))


def poisson(draw: random.Random, mean: float) -> int:
    """A count with a mean."""
    count, product = 0, draw.random()
    while product > math.exp(-mean):
        count, product = count + 1, product * draw.random()
    return count


def spends(events: list[Use]) -> list[Spend]:
    """What the log holds of the turns."""
    return [
        Spend(at, "anthropic", "", model, Decimal(str(round(turn.usd, 6))), 1, turn.reads, turn.output)
        for at, _, turn, model in events
        if turn is not None
    ]


def readings(events: list[Use], habits: Habits) -> list[Reading]:
    """What the vendor says: after each local turn, or every 15 minutes."""
    result: list[Reading] = []
    reset, used = 0, 0.0
    late: list[tuple[int, float]] = []
    polls = START
    for at, percent, turn, _ in events:
        while habits.polled and polls <= at:
            if polls < reset:
                visible = used - sum(more for when_, more in late if when_ > polls - habits.lag_ms)
                result.append(_reading(polls, visible, reset, habits))
            polls += 15 * MINUTE
        if at >= reset:
            reset, used, late = at // (10 * MINUTE) * 10 * MINUTE + 300 * MINUTE, 0.0, []
        used += percent
        late.append((at, percent))
        if turn is not None and not habits.polled and used < 99:
            behind = sum(more for _, more in late[len(late) - habits.lag_turns :]) if habits.lag_turns else 0.0
            result.append(_reading(at, used - behind, reset, habits))
    return [reading for reading in result if reading.used < 1]


def _reading(at: int, used: float, reset: int, habits: Habits) -> Reading:
    percent = math.floor(used) if habits.floor else round(used)
    source = "vendor-usage-anthropic" if habits.polled else "proxy"
    return Reading(FIVE, 300, at, max(percent, 0) / 100, reset, "", source, "")


def rises(account: Account) -> list[Rise]:
    """The rises in an account's log."""
    return list(limit_pieces.rises(limit_windows.series(account.readings), account.spends))


def estimate(rises: list[Rise], day: int) -> limit_worth.Worth | None:
    """What is made of the rises of the last 120 days before a day."""
    end = START + day * when.DAY
    return limit_worth.worth([rise for rise in rises if end - 120 * when.DAY <= rise.at < end])


MADE_FOR = {
    "a reading with each turn": Habits(),
    "no use elsewhere": Habits(elsewhere=0.0),
    "much use elsewhere": Habits(elsewhere=1.5),
    "polled every 15 minutes": Habits(polled=True, lag_turns=0, lag_ms=3 * MINUTE),
}
OTHER = {
    "weights drift 3 % a day": Habits(drift=0.03),
    "a trickle elsewhere, two turns late": Habits(trickle=0.3, lag_turns=2),
    "15 % of sessions not logged, cut off": Habits(lost=0.15, floor=True),
    "all of it, polled, 8 minutes late": Habits(
        polled=True, lag_ms=8 * MINUTE, floor=True, drift=0.04, elsewhere=1.2, lag_turns=0
    ),
}


def coverage(number: int, habits: Habits, seeds: int) -> str:
    """How often the interval holds the truth, over accounts that change twice."""
    errors, inside = [], 0
    for seed in range(seeds):
        log = account(1000 * number + seed, 75, {25: 0.8, 50: 1.3}, habits)
        every = rises(log)
        for day in (20, 45, 75):
            result = estimate(every, day)
            if result is not None:
                low, middle, high = result.usd_per_percent
                true = log.usd_per_percent[day - 1]
                inside += low <= true <= high
                errors.append(abs(math.log(middle / true)))
    return f"{inside} of {len(errors)} ({inside / len(errors):.0%}), median error {sorted(errors)[len(errors) // 2]:.1%}"


def delays(number: int, habits: Habits, seeds: int) -> str:
    """How many days after a change of 20 % down or 25 % up it is reported, in accounts of 30 days before."""
    every = []
    for seed in range(seeds):
        log = account(70_000 + 1000 * number + seed, 45, {30: 0.8 if seed % 2 else 1.25}, habits)
        steps, seen = rises(log), 99
        for day in range(32, 45):
            result = estimate(steps, day)
            dates = [(change.at - START) // when.DAY for change in result.changes] if result else []
            if any(abs(date - 30) <= 4 for date in dates):
                seen = day - 30
                break
        every.append(seen)
    every.sort()
    within = sum(days <= 7 for days in every)
    return f"{within} of {len(every)} within 7 days, median {every[len(every) // 2]}"


def alarms(number: int, habits: Habits, seeds: int, days: int = 240, step: int = 3) -> str:
    """How many changes are reported in accounts without any, asked every few days."""
    count, years = 0, seeds * (days - 10) / 365
    for seed in range(seeds):
        steps = rises(account(50_000 + 1000 * number + seed, days, {}, habits))
        dates: list[int] = []
        for day in range(10, days + 1, step):
            result = estimate(steps, day)
            for change in result.changes if result else ():
                if all(abs(change.at - date) > 7 * when.DAY for date in dates):
                    dates.append(change.at)
        count += len(dates)
    return f"{count} in {years:.1f} years ({count / years:.1f} a year)"


MEASURES = {"coverage": coverage, "delays": delays, "alarms": alarms}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    for name, group in (("made for", MADE_FOR), ("not made for", OTHER)):
        for number, (title, habits) in enumerate(group.items()):
            print(f"{name}: {title}: {MEASURES[args.measure](number, habits, args.seeds)}", flush=True)


if __name__ == "__main__":
    main()
