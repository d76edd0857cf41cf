"""Why somebody else's amount for the very same counts is another: told by pricing the counts in the other's likely way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from tokenops import claims, pricing
from tokenops.claims import Cause
from tokenops.events import Event

# Amounts of others are sums of binary floats: what differs by less than this share is the same.
_SAME = Decimal("1e-6")
_LEAST = Decimal("5e-7")
_WRITES = ("cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")


def compared(records: Sequence[Event], catalogue: pricing.Catalogue) -> tuple[Decimal | None, Decimal, tuple[Cause, ...]]:
    """Our sum and theirs of some records with a claim, and why they differ; causes of one name are added up."""
    ours, theirs, priced = pricing.ZERO, pricing.ZERO, False
    causes: dict[tuple[str, str, bool], Decimal] = {}
    for event in records:
        claim = Decimal(event["cost_usd"])
        theirs = pricing.add(theirs, claim)
        usd = claims.list_price(event, catalogue)
        if usd is not None:
            ours, priced = pricing.add(ours, usd), True
        if cause := why(event, usd, claim, catalogue):
            key = (cause.name, cause.why, cause.certain)
            causes[key] = pricing.add(causes.get(key, pricing.ZERO), cause.usd)
    made = tuple(Cause(name, usd, told, certain) for (name, told, certain), usd in causes.items() if usd)
    return ours if priced else None, theirs, made


def why(event: Event, ours: Decimal | None, theirs: Decimal, catalogue: pricing.Catalogue) -> Cause | None:
    """Why a claim is not what we say of the same record; None where it is, or where nobody knows."""
    if ours is None:
        rate = catalogue.rate_of(event)
        reason = rate.reason if isinstance(rate, pricing.Unpriced) else "it has no price for what was used"
        return Cause("unpriced", theirs, reason)
    difference = theirs - ours
    if not difference:
        return None
    if same(ours, theirs):
        return Cause("rounding", difference, "binary noise in the other's sum")
    for name, told, other in _variants(event, catalogue):
        if same(other, theirs):
            return Cause(name, difference, told)
    if event.get("kind") == "usage" and _may_vary(event, catalogue):
        told = "a session's total does not say how long each prompt was, nor when: it is priced at the base rate"
        return Cause("aggregate_only", difference, told, certain=False)
    return None


def same(a: Decimal, b: Decimal) -> bool:
    """Whether two amounts are one but for binary noise."""
    return abs(a - b) <= max(_LEAST, max(abs(a), abs(b)) * _SAME)


def _variants(event: Event, catalogue: pricing.Catalogue) -> Iterator[tuple[str, str, Decimal]]:
    """Other ways to price the same counts: a cause, a sentence, and what that would come to."""
    plain = {key: value for key, value in event.items() if key not in ("tier", "geo")}
    wrote = sum(event.get(name, 0) for name in _WRITES)
    sent, read = event.get("input_tokens", 0), event.get("cache_read_tokens", 0)
    others: list[tuple[str, str, Event]] = []
    if event.get("tier"):
        others.append(("tier", f"they bill the tier {event['tier']} at the standard price", {**event, "tier": ""}))
    if event.get("geo"):
        others.append(("tier", f"they leave out the surcharge of {event['geo']}", {**event, "geo": ""}))
    if event.get("tier") and event.get("geo"):
        others.append(("tier", "they leave out tier and surcharge", plain))
    others.append(("tier", "they bill the long prompt at the short one's price", {**event, "kind": "usage"}))
    if wrote > event.get("cache_write_tokens", 0):
        one = {name: value for name, value in event.items() if name not in _WRITES} | {"cache_write_tokens": wrote}
        others.append(("cache_class", "they bill long cache writes at the price of short ones", one))
    if read:
        whole = {**event, "input_tokens": sent + read, "cache_read_tokens": 0}
        others.append(("cache_class", "they bill what was read from a cache as fresh input", whole))
        others.append(
            (
                "cache_class",
                "they bill what was read from a cache a second time, as input",
                {**event, "input_tokens": sent + read},
            )
        )
        others.append(("cache_class", "they bill nothing for what was read from a cache", {**event, "cache_read_tokens": 0}))
    if thought := event.get("reasoning_tokens", 0):
        output = event.get("output_tokens", 0)
        others.append(("reasoning", "they bill reasoning a second time", {**event, "output_tokens": output + thought}))
        others.append(("reasoning", "they leave reasoning out", {**event, "output_tokens": max(output - thought, 0)}))
    if event.get("web_searches"):
        others.append(("fees", "they leave out the fees of searches", {**event, "web_searches": 0}))
    for name, told, other in others:
        if (usd := claims.list_price(other, catalogue)) is not None:
            yield name, told, usd
    yield from _dated(event, catalogue)


def _dated(event: Event, catalogue: pricing.Catalogue) -> Iterator[tuple[str, str, Decimal]]:
    """The price before or after the one in force, or at another time of day."""
    found = catalogue.find(event.get("provider", ""), event.get("model", ""), event.get("request_model", ""))
    for row in found.rows if isinstance(found, pricing.Found) else ():
        begins = row.get("from", "") or "2020-01-01T00:00:00.000Z"
        usd = claims.list_price({**event, "ts": begins}, catalogue)
        if usd is not None:
            yield "dated", f"they bill the price {_span(row)}", usd
        for window in row["tiers"][""]["windows"] if usd is not None else ():
            rates = {**row["tiers"][""]["rates"], **window["rates"]}
            rate = pricing.Rate("", rates, "1", row.get("web_search"), None, (), (), "")
            cost = pricing.cost_of(rate, event)
            if isinstance(cost, pricing.Cost):
                yield "time_of_day", f"they bill the price of the window {window['name']}", cost.usd


def _span(row: Event) -> str:
    begins, ends = row.get("from", "")[:10], row.get("until", "")[:10]
    return " ".join(filter(None, (f"from {begins}" if begins else "", f"until {ends}" if ends else ""))) or "of any day"


def _may_vary(event: Event, catalogue: pricing.Catalogue) -> bool:
    """Whether the price of an aggregate depends on what it does not say."""
    card = catalogue.card(event)
    return card.sized or len(card.by_name) > 1
