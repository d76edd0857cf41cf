"""Claims: what others say that usage cost, and what it costs at our prices.

A claim is somebody else's amount for usage that we have priced too. Four sorts are compared, each where both sides mean the
same requests: a turn's own claim (opencode, OpenRouter, ...); a session's total, per model (`claude -p`); a session's cost
so far, as Claude Code's status line tells it, per day; a vendor's report of usage and cost, per UTC day and model.

A row's difference is theirs less ours, and is the sum of its causes and of what stays unexplained, to the last digit.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
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
