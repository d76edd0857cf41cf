"""A session as a sequence: its turns in order, with context, cost and the gap before each."""

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
    rate: pricing.Rate | None
    usd: Decimal | None

    @property
    def fresh(self) -> int:
        """Prompt tokens that were not read from a cache."""
        return self.context - self.read


def steps(turns: Iterable[Event], catalogue: pricing.Catalogue) -> list[Step]:
    """The turns of one session, in order of time. Failed calls are left out."""
    made: list[Step] = []
    last: dict[bool, int] = {}
    for turn in sorted((one for one in turns if one.get("turns")), key=lambda one: (one["ts"], one["id"])):
        at, side = when.moment(turn["ts"]), bool(turn.get("sidechain"))
        context = events.context_size(turn)
        gap = at - last[side] if side in last else None
        last[side] = at
        rate = catalogue.rate_of(turn)
        priced = rate if isinstance(rate, pricing.Rate) else None
        made.append(Step(turn, at, side, context, turn.get("cache_read_tokens", 0), gap, priced, _usd(turn, priced)))
    return made


def _usd(turn: Event, rate: pricing.Rate | None) -> Decimal | None:
    if turn.get("cost_source") == "reported":
        return Decimal(turn["cost_usd"])
    cost = pricing.cost_of(rate, turn) if rate is not None else None
    return cost.usd if isinstance(cost, pricing.Cost) else None


def price(step: Step, **counts: int) -> Decimal | None:
    """What some counts would have cost in a turn; None where it has no price."""
    cost = pricing.cost_of(step.rate, counts) if step.rate is not None else None
    return cost.usd if isinstance(cost, pricing.Cost) else None
