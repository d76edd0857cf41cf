"""Compares our prices with another table's: each price of each model at the moments that matter.

Our prices come from `pricing`, with names, windows and steps, theirs from `price_tables`. The moments are the day on which
the table was read, and the days before and after each change of a price; if a price depends on the time of day, also a
weekday's peak and a weekend.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tokenops import price_cards, price_tables, pricing, when
from tokenops.price_tables import Data, Table

AGREED, DIFFERS, MISSING, ONLY_OURS = "agreed", "differs", "missing", "only_ours"
STEP = "above"  # the key of where a step of the prompt's length begins
_NOON, _PEAK, _DAY = "T12:00:00.000Z", "T02:00:00.000Z", slice(10)
_HALF = when.DAY // 2


class Finding(NamedTuple):
    """One comparison. `field` is "" if a model as a whole is missing; `at`: the first moment with this result."""

    verdict: str
    table: Table
    provider: str
    model: str
    field: str
    at: str
    ours: str
    theirs: str
    row: Data | None  # theirs
    lookup: pricing.Lookup | None  # ours


class Comparison(NamedTuple):
    """The comparison with one table: the differences, and how many prices agree."""

    table: Table
    findings: list[Finding]
    agreed: int
    models: int


def compare(catalogue: pricing.Catalogue, table: Table) -> Comparison:
    """Compare the catalogue with a table."""
    findings: list[Finding] = []
    agreed = models = 0
    for provider in sorted(catalogue.providers):
        listed_by_us = _names(catalogue, provider)
        listed = [row["id"] for row in table.models.get(provider, ())]
        for name in dict.fromkeys((*listed_by_us, *listed)):
            row, answer = price_tables.find(table, provider, name), catalogue.find(provider, name)
            ours = answer if isinstance(answer, pricing.Lookup) else None
            if row is None or ours is None:
                verdict = ONLY_OURS if row is None else MISSING
                findings.append(Finding(verdict, table, provider, name, "", table.details["captured"], "", "", row, ours))
                continue
            models += 1
            count, differing = _compare_model(Finding(DIFFERS, table, provider, name, "", "", "", "", row, ours))
            agreed += count
            findings += differing
    return Comparison(table, findings, agreed, models)


def _names(catalogue: pricing.Catalogue, provider: str) -> list[str]:
    body = catalogue.providers[provider]
    return [name for name in (*body["models"], *body["aliases"]) if not name.startswith("<")]


def _compare_model(blank: Finding) -> tuple[int, list[Finding]]:
    """How many prices of one model agree, and the differences, each pair of values once."""
    assert blank.row is not None and blank.lookup is not None
    seen: dict[tuple[str, str, str], Finding] = {}
    agreed: set[str] = set()
    engine = Engine(blank.lookup)
    for number, at in enumerate(_moments(blank)):
        rates = price_tables.rates_at(blank.row, at)
        for field, theirs in rates.items():
            ours = engine.price(field, at)
            if _same(engine, field, ours, rates, at):
                agreed.add(field)
                continue
            finding = blank._replace(verdict=DIFFERS if ours else MISSING, field=field, at=at, ours=ours, theirs=theirs)
            seen.setdefault((field, ours, theirs), finding)
        ours, theirs = round_steps(engine.steps(at)), round_steps(_steps(rates))
        if ours and ours != theirs:
            seen.setdefault((STEP, ours, theirs), blank._replace(field=STEP, at=at, ours=ours, theirs=theirs))
        for field, ours in engine.apart(at) if number == 0 else ():
            if field not in rates:
                seen[field, ours, ""] = blank._replace(verdict=ONLY_OURS, field=field, at=at, ours=ours)
    return len(agreed), list(seen.values())


def _steps(rates: Mapping[str, str]) -> str:
    return ",".join(sorted({key.partition(">")[2] for key in rates if ">" in key and "/" not in key}, key=int))


def round_steps(steps: str) -> str:
    """Steps in whole thousands: from 200,000 tokens on is the same as above 199,999."""
    return ",".join(dict.fromkeys(str(round(int(step), -3)) for step in steps.split(",") if step))


def _same(engine: Engine, field: str, ours: str, rates: Mapping[str, str], at: str) -> bool:
    """Whether two prices are the same; also if they bill a part at the price of its class, and we list no price for it."""
    theirs, whole = rates[field], WHOLE.get(class_of(field))
    if ours == theirs:
        return True
    if ours or whole is None:
        return False
    other = field.replace(class_of(field), whole)
    return theirs in (engine.price(other, at), rates.get(other))


WHOLE = {
    "reasoning": "output",
    "audio_input": "input",
    "image_input": "input",
    "audio_output": "output",
    "image_output": "output",
    "cache_read": "input",
}


def class_of(field: str) -> str:
    """The class of a key."""
    return field.rpartition("/")[2].partition(">")[0]


def _moments(finding: Finding) -> Iterator[str]:
    """The moments of comparison: the day of the table first."""
    assert finding.row is not None and finding.lookup is not None
    captured = str(finding.table.details["captured"])
    yield captured + _NOON
    if any(row["tiers"][""]["windows"] for row in finding.lookup.rows) or any(
        "windows" in price for price in finding.row["prices"]
    ):
        for day in (3, 6):
            yield _weekday(captured, day) + _PEAK
    if finding.table.source == "litellm":
        return  # it has no prices for other days
    for change in sorted(
        {*price_tables.moments(finding.row), *(row["from"] for row in finding.lookup.rows if row.get("from"))}
    ):
        for step in (-_HALF, _HALF):
            yield when.stamp(when.moment(change) + step)[_DAY] + _NOON


def _weekday(day: str, number: int) -> str:
    """The last day, up to a given one, with this number in the week."""
    at = when.moment(f"{day}T00:00:00Z")
    while when.local(at, when.UTC).isoweekday() != number:
        at -= when.DAY
    return when.stamp(at)[_DAY]


class Engine:
    """Our prices of one model, by the keys of a table."""

    def __init__(self, lookup: pricing.Lookup) -> None:
        self.lookup = lookup
        self._cards: dict[tuple[str, str, str], pricing.Card] = {}

    def rate(self, tier: str, geo: str, size: int, at: str, context: str = "") -> pricing.Rate | None:
        """The rate of a request; None if there is none."""
        key = (tier, geo, context)
        if key not in self._cards:
            self._cards[key] = pricing.card_of(self.lookup, tier, geo, context)
        card = self._cards[key]
        chosen = card.choose(at, size) if card.only is None else card.only
        return chosen if isinstance(chosen, pricing.Rate) else None

    def price(self, field: str, at: str) -> str:
        """Our price for a key of a table, "" if there is none."""
        tier, _, rest = field.rpartition("/")
        name, _, step = rest.partition(">")
        kind, _, part = name.partition(".")
        rate = self.rate(tier, part if kind == "geo" else "", int(step or -1) + 1, at, part if kind == "request" else "")
        if rate is None:
            return ""
        if kind == "geo":
            return rate.factor
        if kind in price_cards.FEES:
            return (rate.web_search if kind == "web_search" else rate.request) or ""
        value = rate.rates.get(name)
        return plain((rate.rates["input"] if value == price_cards.SAME else value) or "")

    def apart(self, at: str) -> Iterator[tuple[str, str]]:
        """The classes that have their own price here, and those prices."""
        rate = self.rate("", "", 0, at)
        for name, value in rate.rates.items() if rate else ():
            whole = WHOLE.get(name, "")
            if value not in (None, price_cards.SAME, "0", rate.rates.get(whole) if rate else "") and whole:
                yield name, plain(str(value))

    def steps(self, at: str) -> str:
        """Where the steps of the prompt's length begin."""
        for row in self.lookup.rows:
            if row.get("from", "") <= at < row.get("until", "9"):
                return ",".join(str(step["tokens"]) for step in row["tiers"][""]["above"])
        return ""


@functools.lru_cache(4096)
def plain(text: str) -> str:
    """A price without trailing zeros."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def counts(findings: Iterable[Finding]) -> dict[str, Any]:
    """How many findings there are of each verdict."""
    totals = {DIFFERS: 0, MISSING: 0, ONLY_OURS: 0}
    for finding in findings:
        totals[finding.verdict] += 1
    return totals
