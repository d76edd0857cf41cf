"""Computes the user's own averages: tokens, list price and time of a turn, a prompt and a token of context.

A projection is a number of units times such an average. The output has both, rounded as used, so every projection can
be recomputed. An average that was not measured is null, never a constant. `month_factor` is a month divided by the
span.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from tokenops import events, pricing, when
from tokenops.events import Event
from tokenops.work import Utterance

Rules = Mapping[str, float]


class Prompt(NamedTuple):
    """A prompt and the one after it in its session. Seconds between the two, and from the last reply to the second."""

    utterance: Utterance
    following: Utterance | None
    lasted_s: float | None
    waited_s: float | None

    @property
    def key(self) -> tuple[str, str]:
        """Session and text, by which the prompts of a loop are recognised."""
        return self.utterance.session, self.utterance.text.strip().casefold()


class Span(NamedTuple):
    """A span of time, as canonical times."""

    since: str
    until: str

    @property
    def days(self) -> float:
        """Its length in days, to four digits."""
        return round((when.moment(self.until) - when.moment(self.since)) / when.DAY, 4)

    @property
    def previous(self) -> Span:
        """The span of the same length before it."""
        length = when.moment(self.until) - when.moment(self.since)
        return Span(when.stamp(when.moment(self.since) - length), self.since)


def money(turn: Event, catalogue: pricing.Catalogue) -> tuple[Decimal, Decimal] | None:
    """What a turn cost, and how much of that its context cost; None if it has no price."""
    rate = catalogue.rate_of(turn)
    cost = pricing.cost_of(rate, turn) if isinstance(rate, pricing.Rate) else rate
    if isinstance(cost, pricing.Unpriced):
        return (Decimal(turn["cost_usd"]), pricing.ZERO) if "cost_usd" in turn else None
    context = sum((amount for name, _, _, amount in cost.lines if name in events.CONTEXT), pricing.ZERO)
    return (Decimal(turn["cost_usd"]) if "cost_usd" in turn and turn.get("cost_source") != "client" else cost.usd), context


def turn_stats(
    turns: Sequence[Event], prompts: Sequence[Prompt], span: Span, rules: Rules, catalogue: pricing.Catalogue
) -> Event:
    """The user's own averages, and the sums that they are computed from."""
    paid = [money(turn, catalogue) for turn in turns]
    costs = [cost for cost in paid if cost is not None]
    total = sum((usd for usd, _ in costs), pricing.ZERO)
    context = sum((part for _, part in costs), pricing.ZERO)
    tokens = sum(map(events.token_sum, turns))
    sent = sum(events.context_size(turn) for turn, cost in zip(turns, paid, strict=True) if cost is not None)
    lasted = sorted(prompt.lasted_s for prompt in prompts if prompt.lasted_s is not None)
    waited = sorted(prompt.waited_s for prompt in prompts if prompt.waited_s is not None)
    enough = len(lasted) >= rules["least_measured"]
    priced = total if costs else None
    row: Event = {
        "prompts": len(prompts),
        "turns": len(turns),
        "sessions": len({prompt.utterance.session for prompt in prompts}),
    }
    row |= {
        "tokens": tokens,
        "cost_usd": None if priced is None else pricing.plain(total),
        "unpriced_turns": len(turns) - len(costs),
    }
    row["measured_pauses"] = len(lasted)
    row["per"] = {
        "turn": _per(tokens, priced, len(turns), len(costs), statistics.median(waited) if enough else None),
        "prompt": _per(tokens, priced, len(prompts), len(prompts), statistics.median(lasted) if enough else None),
        "context_token": {
            "tokens": 1,
            "cost_usd": _share(context, sent, 12) if priced is not None and sent else None,
            "seconds": 0,
        },
    }
    row["span"] = {"since": span.since, "until": span.until, "days": span.days}
    row["month_factor"] = round(rules["month_days"] / span.days, 4) if span.days else None
    return row


def _per(tokens: int, usd: Decimal | None, count: int, priced: int, seconds: float | None) -> Event:
    """Averages of some units, `priced` of which the cost is known."""
    if not count:
        return {"tokens": None, "cost_usd": None, "seconds": None}
    return {
        "tokens": round(tokens / count),
        "cost_usd": None if usd is None else _share(usd, priced, 6),
        "seconds": None if seconds is None else round(seconds, 1),
    }


def _share(amount: Decimal, count: int, digits: int) -> str:
    return pricing.plain((amount / count).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def projection(units: int | None, basis: str, stats: Event, why: str = "") -> Event:
    """Units times the user's own average of one unit, in the span and in a month. `why`: the reason for no units."""
    per = stats["per"][basis]
    row: Event = {"basis": basis, "units": units}
    if units is None:
        return row | {"tokens": None, "cost_usd": None, "hours": None, "per_month": None, "unknown": why}
    row["tokens"] = None if per["tokens"] is None else units * per["tokens"]
    row["cost_usd"] = None if per["cost_usd"] is None else pricing.plain(Decimal(per["cost_usd"]) * units)
    row["hours"] = None if per["seconds"] is None else round(units * per["seconds"] / 3600, 2)
    factor = stats["month_factor"]
    row["per_month"] = None
    if factor is not None:
        row["per_month"] = {
            "tokens": None if row["tokens"] is None else round(row["tokens"] * factor),
            "cost_usd": None if row["cost_usd"] is None else _cents(Decimal(row["cost_usd"]) * Decimal(str(factor))),
            "hours": None if row["hours"] is None else round(row["hours"] * factor, 2),
        }
    return row


def _cents(amount: Decimal) -> str:
    return pricing.plain(amount.quantize(Decimal("0.0001"), ROUND_HALF_UP))
