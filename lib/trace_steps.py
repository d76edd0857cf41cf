"""Puts the turns of a session in order, with the context, the cost and the gap before each."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from tokenops import events, pricing, when
from tokenops.events import Event

WRITES = ("cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")


class Step(NamedTuple):
    """One turn of a session. `gap`: milliseconds since the turn before it in its chain (main or side), None of the first."""

    turn: Event
    at: int
    side: bool
    context: int
    read: int
    gap: int | None
    catalogue: pricing.Catalogue

    @property
    def rate(self) -> pricing.Rate | None:
        """The price in force; looked up only if a cost is needed."""
        rate = self.catalogue.rate_of(self.turn)
        return rate if isinstance(rate, pricing.Rate) else None

    @property
    def usd(self) -> Decimal | None:
        """What it cost; None if that is unknown."""
        if self.turn.get("cost_source") == "reported":
            return Decimal(self.turn["cost_usd"])
        return price(self, **{name: self.turn[name] for name in events.SUMS if name in self.turn})

    @property
    def fresh(self) -> int:
        """Prompt tokens that were not read from a cache."""
        return self.context - self.read


def steps(turns: Iterable[Event], catalogue: pricing.Catalogue) -> list[Step]:
    """The turns of one session, in order of time. Failed calls are left out."""
    steps: list[Step] = []
    last: dict[bool, int] = {}
    answered = (turn for turn in turns if turn.get("turns"))
    for turn in sorted(answered, key=lambda turn: (turn["ts"], turn["id"])):
        at, side = when.moment(turn["ts"]), bool(turn.get("sidechain"))
        context = events.context_size(turn)
        gap = at - last[side] if side in last else None
        last[side] = at
        steps.append(Step(turn, at, side, context, turn.get("cache_read_tokens", 0), gap, catalogue))
    return steps


def total_cost(steps: Iterable[Step]) -> Decimal | None:
    """The cost of some turns; None if one has no price. Turns of one rate are priced together, as in all other sums."""
    total = Decimal(0)
    groups: dict[int, tuple[Step, dict[str, int]]] = {}
    for step in steps:
        if step.turn.get("cost_source") == "reported":
            total = pricing.add(total, Decimal(step.turn["cost_usd"]))
            continue
        rate = step.rate
        if rate is None:
            return None
        _, sums = groups.setdefault(id(rate), (step, {}))
        for name in events.SUMS:
            if name in step.turn:
                sums[name] = sums.get(name, 0) + step.turn[name]
    for step, sums in groups.values():
        cost = price(step, **sums)
        if cost is None:
            return None
        total = pricing.add(total, cost)
    return total


def price(step: Step, **counts: int) -> Decimal | None:
    """The cost of some counts at the price of a turn; None if it has no price."""
    rate = step.rate
    cost = pricing.cost_of(rate, counts) if rate is not None else None
    return cost.usd if isinstance(cost, pricing.Cost) else None
