"""Pairs our figures with claims of others (clients, routers, vendors), and finds prices that explain a difference.

A claim is somebody else's amount for usage that we have priced too. Four sorts are compared, each where both sides mean the
same requests: a turn's own claim (opencode, OpenRouter, ...); a session's total, per model (`claude -p`); a session's cost
so far, as Claude Code's status line tells it, per day; a vendor's report of usage and cost, per UTC day and model.

A row's difference is theirs less ours, and is the sum of its causes and of what stays unexplained, to the last digit.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from tokenops import coverage, events, pricing, statusline, when
from tokenops.events import Event

Key = tuple[str, ...]
VENDORS = {"vendor-usage-anthropic": "anthropic", "vendor-usage-openai": "openai"}
# Sessions are longer than spans: so far before one their turns are looked for.
BEFORE_MS = 14 * when.DAY


class Ask(NamedTuple):
    """What is compared: a span, in a zone, at some prices, and what plans cover (None: no plan is set)."""

    since: str
    until: str
    tz: datetime.tzinfo
    catalogue: pricing.Catalogue
    cover: coverage.Coverage | None


class Cause(NamedTuple):
    """Why some amount differs. Not `certain`: it fits, and nothing here can prove it."""

    name: str
    usd: Decimal
    why: str
    certain: bool = True

    def row(self) -> Event:
        """The same as part of a record."""
        made: Event = {"cause": self.name, "usd": pricing.plain(self.usd), "why": self.why}
        return made if self.certain else made | {"certain": False}


class Pair(NamedTuple):
    """One comparison. `model` "": all of the day; `ours` None: nothing of it has a price."""

    source: str
    day: str
    zone: str
    about: Mapping[str, str]  # client, provider, model, session_id, where they are known
    ours: Decimal | None
    theirs: Decimal | None  # None: they tell counts only, which have no price here
    causes: tuple[Cause, ...]
    counts: Mapping[str, int]
    basis: str = "reported"  # or "our prices": of theirs, where they tell counts only

    @property
    def difference(self) -> Decimal:
        """Theirs less ours."""
        return pricing.ZERO if self.theirs is None else self.theirs - (self.ours or pricing.ZERO)

    @property
    def unexplained(self) -> Decimal:
        """What no cause accounts for."""
        return self.difference - sum((one.usd for one in self.causes), pricing.ZERO)

    def row(self) -> Event:
        """The same as a record for programs."""
        made: Event = {"v": 1, "kind": "reconciliation", "with": self.source, "day": self.day, "tz": self.zone}
        made |= {name: value for name, value in self.about.items() if value} | dict(self.counts)
        for name, value in (("ours_usd", self.ours), ("theirs_usd", self.theirs)):
            made[name] = None if value is None else pricing.plain(value)
        if self.basis != "reported":
            made["theirs_basis"] = self.basis
        made |= {"difference_usd": pricing.plain(self.difference), "unexplained_usd": pricing.plain(self.unexplained)}
        return made | ({"causes": [one.row() for one in self.causes]} if self.causes else {})


class Books(NamedTuple):
    """Everything that is compared, taken apart in one pass."""

    turns: list[Event]
    totals: list[Event]  # of sessions, with their client's claim
    estimates: list[Event]  # of the status line
    reports: list[Event]  # of vendors
    first: str  # when the oldest turn began


def opened(records: Iterable[Event]) -> Books:
    """The books of some events."""
    books = Books([], [], [], [], "")
    first = ""
    for event in records:
        kind, covers = event.get("kind"), event.get("covers")
        if kind == "turn":
            books.turns.append(event)
            first = min(first or event["ts"], event["ts"])
        elif kind == "usage" and event.get("source") in VENDORS:
            books.reports.append(event)
        elif kind == "usage" and event.get("source") == statusline.SOURCE and "cost_usd" in event:
            books.estimates.append(event)
        elif kind == "usage" and covers == "session" and "cost_usd" in event:
            books.totals.append(event)
    return books._replace(first=first)


def day_of(ts: str, tz: datetime.tzinfo) -> str:
    """The local day of a moment."""
    return when.bucket(when.moment(ts), "day", tz)


def list_price(event: Event, catalogue: pricing.Catalogue) -> Decimal | None:
    """What an event costs at our prices, whatever it says itself; None where it has none."""
    rate = catalogue.rate_of(event)
    found = pricing.cost_of(rate, counted(event, rate)) if isinstance(rate, pricing.Rate) else rate
    return found.usd if isinstance(found, pricing.Cost) else None


def counted(event: Event, rate: pricing.Rate) -> Event:
    """The counts of an event; where each request costs a fee, its turns are requests."""
    if rate.request is not None and "requests" not in event and event.get("turns"):
        return {**event, "requests": event["turns"]}
    return event


def total(turns: Iterable[Event], catalogue: pricing.Catalogue) -> tuple[Decimal, int]:
    """What some turns cost at our prices, and how many of them have none."""
    usd, missing = pricing.ZERO, 0
    for turn in turns:
        found = list_price(turn, catalogue)
        usd, missing = (usd, missing + 1) if found is None else (pricing.add(usd, found), missing)
    return usd, missing


def counts_of(turns: Iterable[Event]) -> dict[str, int]:
    """Turns and tokens, by class."""
    found: dict[str, int] = {}
    for turn in turns:
        for name in ("turns", *events.TOKENS):
            if turn.get(name):
                found[name] = found.get(name, 0) + int(turn[name])
    return found


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
        usd = list_price(event, catalogue)
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
        if (usd := list_price(other, catalogue)) is not None:
            yield name, told, usd
    yield from _dated(event, catalogue)


def _dated(event: Event, catalogue: pricing.Catalogue) -> Iterator[tuple[str, str, Decimal]]:
    """The price before or after the one in force, or at another time of day."""
    found = catalogue.find(event.get("provider", ""), event.get("model", ""), event.get("request_model", ""))
    for row in found.rows if isinstance(found, pricing.Found) else ():
        begins = row.get("from", "") or "2020-01-01T00:00:00.000Z"
        usd = list_price({**event, "ts": begins}, catalogue)
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
