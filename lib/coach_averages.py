"""The user's own averages, and what comes of them: tokens, list price and time of a turn, a prompt, a token of context.

A projection is units times such an average. Both stand in the same output, rounded as they are used, so that every one can
be recomputed; what was not measured is null, never a constant. A month is the span's share of one, as `month_factor` says.
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


class Asked(NamedTuple):
    """A prompt, the one after it in its session, and the seconds between them and before the next was written."""

    heard: Utterance
    then: Utterance | None
    lasted: float | None
    waited: float | None


class Span(NamedTuple):
    """From when to when, in canonical times."""

    since: str
    until: str

    @property
    def days(self) -> float:
        """Its length, to four digits."""
        return round((when.moment(self.until) - when.moment(self.since)) / when.DAY, 4)

    @property
    def before(self) -> Span:
        """The span of the same length before it."""
        length = when.moment(self.until) - when.moment(self.since)
        return Span(when.stamp(when.moment(self.since) - length), self.since)


def money(turn: Event, catalogue: pricing.Catalogue) -> tuple[Decimal, Decimal] | None:
    """What a turn cost, and what of that its context did; None where it has no price."""
    rate = catalogue.rate_of(turn)
    cost = pricing.cost_of(rate, turn) if isinstance(rate, pricing.Rate) else rate
    if isinstance(cost, pricing.Unpriced):
        return (Decimal(turn["cost_usd"]), pricing.ZERO) if "cost_usd" in turn else None
    context = sum((amount for name, _, _, amount in cost.lines if name in events.CONTEXT), pricing.ZERO)
    return (Decimal(turn["cost_usd"]) if "cost_usd" in turn and turn.get("cost_source") != "client" else cost.usd), context


def turn_stats(
    turns: Sequence[Event], found: Sequence[Asked], span: Span, rules: Rules, catalogue: pricing.Catalogue
) -> Event:
    """The user's own averages, and the sums that they are made of."""
    paid = [money(turn, catalogue) for turn in turns]
    known = [one for one in paid if one is not None]
    total = sum((usd for usd, _ in known), pricing.ZERO)
    context = sum((part for _, part in known), pricing.ZERO)
    tokens = sum(map(events.token_sum, turns))
    sent = sum(events.context_size(turn) for turn, one in zip(turns, paid, strict=True) if one is not None)
    lasted = sorted(one.lasted for one in found if one.lasted is not None)
    waited = sorted(one.waited for one in found if one.waited is not None)
    enough = len(lasted) >= rules["least_measured"]
    priced = total if turns and len(known) == len(turns) else None
    made: Event = {"prompts": len(found), "turns": len(turns), "sessions": len({one.heard.session for one in found})}
    made |= {
        "tokens": tokens,
        "cost_usd": None if priced is None else pricing.plain(total),
        "unpriced_turns": len(turns) - len(known),
    }
    made["measured_pauses"] = len(lasted)
    made["per"] = {
        "turn": _per(tokens, priced, len(turns), statistics.median(waited) if enough else None),
        "prompt": _per(tokens, priced, len(found), statistics.median(lasted) if enough else None),
        "context_token": {
            "tokens": 1,
            "cost_usd": _share(context, sent, 12) if priced is not None and sent else None,
            "seconds": 0,
        },
    }
    made["span"] = {"since": span.since, "until": span.until, "days": span.days}
    made["month_factor"] = round(rules["month_days"] / span.days, 4) if span.days else None
    return made


def _per(tokens: int, usd: Decimal | None, count: int, seconds: float | None) -> Event:
    if not count:
        return {"tokens": None, "cost_usd": None, "seconds": None}
    return {
        "tokens": round(tokens / count),
        "cost_usd": None if usd is None else _share(usd, count, 6),
        "seconds": None if seconds is None else round(seconds, 1),
    }


def _share(amount: Decimal, count: int, digits: int) -> str:
    return pricing.plain((amount / count).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def projection(units: int | None, basis: str, stats: Event, why: str = "") -> Event:
    """Units times the user's own average of what one is, in the span and in a month."""
    per = stats["per"][basis]
    made: Event = {"basis": basis, "units": units}
    if units is None:
        return made | {"tokens": None, "cost_usd": None, "hours": None, "per_month": None, "unknown": why}
    made["tokens"] = None if per["tokens"] is None else units * per["tokens"]
    made["cost_usd"] = None if per["cost_usd"] is None else pricing.plain(Decimal(per["cost_usd"]) * units)
    made["hours"] = None if per["seconds"] is None else round(units * per["seconds"] / 3600, 2)
    factor = stats["month_factor"]
    made["per_month"] = None
    if factor is not None:
        made["per_month"] = {
            "tokens": None if made["tokens"] is None else round(made["tokens"] * factor),
            "cost_usd": None if made["cost_usd"] is None else _cents(Decimal(made["cost_usd"]) * Decimal(str(factor))),
            "hours": None if made["hours"] is None else round(made["hours"] * factor, 2),
        }
    return made


def _cents(amount: Decimal) -> str:
    return pricing.plain(amount.quantize(Decimal("0.0001"), ROUND_HALF_UP))
