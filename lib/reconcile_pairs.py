"""Pairs our amounts with those of clients, routers and vendors, and finds prices that explain a difference.

Four kinds of amounts are compared, each if both sides mean the same requests:

- the cost that a turn came with (opencode, OpenRouter, ...);
- a session's total per model (`claude -p`);
- a session's cost so far per day, from Claude Code's status line;
- a vendor's report of usage and cost per UTC day and model.

A row's difference (theirs minus ours) is exactly the sum of its causes and the unexplained rest.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from tokenops import catalog, coverage, events, joins, pricing, rollup, statusline, when
from tokenops.events import Event

Key = tuple[str, ...]
# Sessions may begin before the span: their turns are read from so long before it.
BEFORE_MS = 14 * when.DAY


class Query(NamedTuple):
    """What to compare: a span, in a zone, at some prices, and what plans cover (None: no plan is set)."""

    since: str
    until: str
    tz: datetime.tzinfo
    catalogue: pricing.Catalogue
    cover: coverage.Coverage | None


class Cause(NamedTuple):
    """Why an amount differs. `certain` False: the cause fits, but nothing here proves it."""

    name: str
    usd: Decimal
    why: str
    certain: bool = True

    def row(self) -> Event:
        """The same as part of a record."""
        row: Event = {"cause": self.name, "usd": pricing.plain(self.usd), "why": self.why}
        return row if self.certain else row | {"certain": False}


class Pair(NamedTuple):
    """One comparison. Without a model: all of the day. `ours` None: nothing of it has a price."""

    source: str
    day: str
    zone: str
    labels: Mapping[str, str]  # client, provider, model, session_id, as far as they are known
    ours: Decimal | None
    theirs: Decimal | None  # None: they report counts only, which have no price here
    causes: tuple[Cause, ...]
    counts: Mapping[str, int]
    basis: str = "reported"  # or "our prices": their counts at our prices, if they report no amount

    @property
    def difference(self) -> Decimal:
        """Theirs less ours."""
        return pricing.ZERO if self.theirs is None else self.theirs - (self.ours or pricing.ZERO)

    @property
    def unexplained_usd(self) -> Decimal:
        """The part of the difference without a cause."""
        return self.difference - sum((cause.usd for cause in self.causes), pricing.ZERO)

    def row(self) -> Event:
        """The same as a record for programs."""
        row: Event = {"v": 1, "kind": "reconciliation", "with": self.source, "day": self.day, "tz": self.zone}
        row |= {name: value for name, value in self.labels.items() if value} | dict(self.counts)
        for name, value in (("ours_usd", self.ours), ("theirs_usd", self.theirs)):
            row[name] = None if value is None else pricing.plain(value)
        if self.basis != "reported":
            row["theirs_basis"] = self.basis
        row |= {"difference_usd": pricing.plain(self.difference), "unexplained_usd": pricing.plain(self.unexplained_usd)}
        return row | ({"causes": [cause.row() for cause in self.causes]} if self.causes else {})


class Books(NamedTuple):
    """All that is compared, by kind."""

    turns: list[Event]
    totals: list[Event]  # of sessions, with their client's amount
    estimates: list[Event]  # of the status line
    reports: list[Event]  # of vendors
    beyond: list[Event]  # what sessions used beyond their turns, the latest per session and model
    first: str  # when the oldest turn began

    @property
    def own(self) -> list[Event]:
        """What our log counts of sessions: their turns, and what is beyond them."""
        return [*self.turns, *self.beyond]


def vendors() -> dict[str, str]:
    """Source -> provider, of the vendors that report usage and cost per bucket of time."""
    pollers = catalog.load("pollers")["pollers"].values()
    return {poller["source"]: poller["provider"] for poller in pollers if "bucket_width" in poller.get("options", ())}


def books(records: Iterable[Event]) -> Books:
    """Events sorted by what they are compared as."""
    books = Books([], [], [], [], [], "")
    beyond: dict[tuple[object, ...], Event] = {}
    first, sources = "", vendors()
    for event in records:
        kind, covers = event.get("kind"), event.get("covers")
        if kind == "turn":
            books.turns.append(event)
            first = min(first or event["ts"], event["ts"])
        elif kind == "usage" and covers == events.REMAINDER:
            key = tuple(event.get(name) for name in ("client", "session_id", "model"))
            beyond[key] = max(beyond.get(key, event), event, key=joins.remainder_rank)
        elif kind == "usage" and event.get("source") in sources:
            books.reports.append(event)
        elif kind == "usage" and event.get("source") == statusline.SOURCE and "cost_usd" in event:
            books.estimates.append(event)
        elif kind == "usage" and covers == "session" and "cost_usd" in event:
            books.totals.append(event)
    return books._replace(first=first, beyond=list(beyond.values()))


def day_of(ts: str, tz: datetime.tzinfo) -> str:
    """The local day of a moment."""
    return when.bucket(when.moment(ts), "day", tz)


def list_price(event: Event, catalogue: pricing.Catalogue) -> Decimal | None:
    """The cost of an event at our prices, whatever cost it came with; None if it has no price here."""
    rate = catalogue.rate_of(event)
    cost = pricing.cost_of(rate, with_requests(event, rate)) if isinstance(rate, pricing.Rate) else rate
    return cost.usd if isinstance(cost, pricing.Cost) else None


def with_requests(event: Event, rate: pricing.Rate) -> Event:
    """The counts of an event, with its turns as requests if each request costs a fee."""
    if rate.request is not None and "requests" not in event and event.get("turns"):
        return {**event, "requests": event["turns"]}
    return event


def total(turns: Iterable[Event], catalogue: pricing.Catalogue) -> tuple[Decimal, int]:
    """The cost of some turns at our prices, and how many of them have no price."""
    usd, missing = pricing.ZERO, 0
    for turn in turns:
        cost = list_price(turn, catalogue)
        usd, missing = (usd, missing + 1) if cost is None else (pricing.add(usd, cost), missing)
    return usd, missing


def counts_of(turns: Iterable[Event]) -> dict[str, int]:
    """Turns and tokens, by class."""
    counts: dict[str, int] = {}
    for turn in turns:
        for name in ("turns", *events.TOKENS):
            if turn.get(name):
                counts[name] = counts.get(name, 0) + int(turn[name])
        if turn.get("covers") == events.REMAINDER:
            counts[rollup.BEYOND] = counts.get(rollup.BEYOND, 0) + events.token_sum(turn)
    return counts


# Others add up binary floats: amounts that differ by less than this share are equal.
_SAME = Decimal("1e-6")
_LEAST = Decimal("5e-7")
_WRITES = ("cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")


def comparison(records: Sequence[Event], catalogue: pricing.Catalogue) -> tuple[Decimal | None, Decimal, tuple[Cause, ...]]:
    """Our sum and theirs of records that came with a cost, and why they differ; equal causes are added up."""
    ours, theirs, priced = pricing.ZERO, pricing.ZERO, False
    causes: dict[tuple[str, str, bool], Decimal] = {}
    for event in records:
        stated = Decimal(event["cost_usd"])
        theirs = pricing.add(theirs, stated)
        usd = list_price(event, catalogue)
        if usd is not None:
            ours, priced = pricing.add(ours, usd), True
        if cause := why(event, usd, stated, catalogue):
            key = (cause.name, cause.why, cause.certain)
            causes[key] = pricing.add(causes.get(key, pricing.ZERO), cause.usd)
    summed = tuple(Cause(name, usd, reason, certain) for (name, reason, certain), usd in causes.items() if usd)
    return ours if priced else None, theirs, summed


def why(event: Event, ours: Decimal | None, theirs: Decimal, catalogue: pricing.Catalogue) -> Cause | None:
    """Why another's amount for a record differs from ours; None if it does not, or for no known reason."""
    if ours is None:
        rate = catalogue.rate_of(event)
        reason = rate.reason if isinstance(rate, pricing.Unpriced) else "part of the usage has no price"
        return Cause("unpriced", theirs, reason)
    difference = theirs - ours
    if not difference:
        return None
    if same(ours, theirs):
        return Cause("rounding", difference, "floating-point noise in the other figure")
    for name, reason, other in _variants(event, catalogue):
        if same(other, theirs):
            return Cause(name, difference, reason)
    if event.get("kind") == "usage" and _may_vary(event, catalogue):
        reason = "a session's total does not say how long each prompt was, nor when: it is priced at the base rate"
        return Cause("aggregate_only", difference, reason, certain=False)
    return None


def same(a: Decimal, b: Decimal) -> bool:
    """Whether two amounts are equal but for binary noise."""
    return abs(a - b) <= max(_LEAST, max(abs(a), abs(b)) * _SAME)


def _variants(event: Event, catalogue: pricing.Catalogue) -> Iterator[tuple[str, str, Decimal]]:
    """Other ways to price the same counts: the cause, a sentence, and the resulting cost."""
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
        short_writes = {name: value for name, value in event.items() if name not in _WRITES} | {"cache_write_tokens": wrote}
        others.append(("cache_class", "they bill long cache writes at the price of short ones", short_writes))
    if read:
        whole = {**event, "input_tokens": sent + read, "cache_read_tokens": 0}
        others.append(("cache_class", "they bill cache reads as fresh input", whole))
        others.append(
            (
                "cache_class",
                "they bill cache reads a second time, as input",
                {**event, "input_tokens": sent + read},
            )
        )
        others.append(("cache_class", "they bill nothing for cache reads", {**event, "cache_read_tokens": 0}))
    if thought := event.get("reasoning_tokens", 0):
        output = event.get("output_tokens", 0)
        others.append(("reasoning", "they bill reasoning a second time", {**event, "output_tokens": output + thought}))
        others.append(("reasoning", "they leave reasoning out", {**event, "output_tokens": max(output - thought, 0)}))
    if event.get("web_searches"):
        others.append(("fees", "they leave out the fees of searches", {**event, "web_searches": 0}))
    for name, reason, variant in others:
        if (usd := list_price(variant, catalogue)) is not None:
            yield name, reason, usd
    yield from _other_dates(event, catalogue)


def _other_dates(event: Event, catalogue: pricing.Catalogue) -> Iterator[tuple[str, str, Decimal]]:
    """The prices of other dates, and of other times of day."""
    match = catalogue.find(event.get("provider", ""), event.get("model", ""), event.get("request_model", ""))
    for row in match.rows if isinstance(match, pricing.Lookup) else ():
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
    """Whether the price depends on something that an aggregate does not state."""
    card = catalogue.card(event)
    return card.sized or len(card.by_name) > 1
