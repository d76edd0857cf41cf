"""Finds the rate of a turn by provider, model and time, and works out exact money from counts and a rate.

A turn without a price is unpriced with a reason; it never counts as $0 or at another model's price. Cost is
proportional to every count, so pricing a sum equals summing prices, to the last digit.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import catalog, price_cards, price_installed, price_names, regular, when

Data = dict[str, Any]

# Every sum of token counts times a price fits; an inexact result would raise.
_EXACT = decimal.Context(prec=60, traps=[decimal.Inexact, decimal.InvalidOperation])
ZERO = Decimal(0)
NO_RATE = "!"

_CLASS_OF = {
    "input_tokens": "input",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "cache_write_1h_tokens": "cache_write_1h",
    "cache_write_12h_tokens": "cache_write_12h",
    "output_tokens": "output",
}
# Parts of another class that may have a price of their own.
_PARTS = {
    "reasoning_tokens": ("reasoning", "output"),
    "audio_input_tokens": ("audio_input", "input"),
    "image_input_tokens": ("image_input", "input"),
    "audio_output_tokens": ("audio_output", "output"),
    "image_output_tokens": ("image_output", "output"),
}


# The fields that decide a price.
KEPT = ("provider", "model", "tier", "geo", "search_context")
Priced = tuple[str | None, ...]


class Unpriced(NamedTuple):
    """No price, and why."""

    reason: str

    @property
    def name(self) -> str:
        """A name for the reason, as each rate has one, so that rows with different reasons stay apart."""
        return NO_RATE + self.reason


class Rate(NamedTuple):
    """One price row in force, for a tier and a geo."""

    name: str  # provider/model@from>context~window, unique within a catalogue
    rates: Mapping[str, str | None]  # class -> USD per million tokens; None: not published
    factor: str  # of the geo
    web_search: str | None  # USD per thousand
    request: str | None  # USD per thousand, of the search context
    notes: tuple[str, ...]
    source: tuple[str, ...]
    confidence: str
    captured: str = ""  # the latest day on which a source was read; "" if none is dated


class Cost(NamedTuple):
    """An exact amount, line by line."""

    usd: Decimal
    lines: tuple[tuple[str, int, str, Decimal], ...]  # class, count, USD per million (or thousand), amount
    notes: tuple[str, ...]


class Card(NamedTuple):
    """The rates of one model, tier and geo: each by name, and a function that chooses one."""

    choose: Callable[[str, int], Rate | Unpriced]
    only: Rate | Unpriced | None  # if there is nothing to choose
    sized: bool  # whether the length of the prompt matters
    by_name: Mapping[str, Rate]

    def rate_of(self, event: Data) -> Rate | Unpriced:
        """The rate of one event (its size decides the context tier), or of one row (which names its rate)."""
        get = event.get
        kind = get("kind")
        if kind == "row":
            name = get("rate", "")
            rate = self.by_name.get(name)
            return rate or Unpriced(get("unpriced", f"the rate {name!r} is not in this catalogue; roll up again"))
        if self.only is not None:
            return self.only
        if not self.sized or kind == "usage":  # an aggregate does not say how long each prompt was: the base rate
            return self.choose(event["ts"], 0)
        size = (
            get("input_tokens", 0)
            + get("cache_read_tokens", 0)
            + get("cache_write_tokens", 0)
            + get("cache_write_1h_tokens", 0)
            + get("cache_write_12h_tokens", 0)
        )
        return self.choose(event["ts"], size)


class Catalogue:
    """The compiled catalogue, and a cache of what was looked up in it."""

    def __init__(self, data: Data, digest: str) -> None:
        self.providers = price_cards.Providers(data["providers"])
        self.clouds: dict[str, list[str]] = data["clouds"]
        self.multiplexers: list[str] = data["multiplexers"]
        self.reasons: dict[str, str] = data["reasons"]
        self.overrides: Data = data["overrides"]
        self.digest = digest
        # The fields that decide a turn's price; the requested model only if an override could name it.
        self.kept = (*KEPT, "request_model") if self.overrides else KEPT
        self._cards: dict[Priced, Card] = {}

    def card(self, event: Data) -> Card:
        """The prices of an event's model, tier, geo and search context."""
        priced = tuple([event.get(name) for name in self.kept])
        card = self._cards.get(priced)
        if card is None:
            card = self._cards[priced] = self._card(dict(zip(self.kept, priced, strict=True)))
        return card

    def rate_of(self, event: Data) -> Rate | Unpriced:
        """The rate of one event or row."""
        return self.card(event).rate_of(event)

    def _card(self, fields: Mapping[str, str | None]) -> Card:
        lookup = self.find(fields["provider"] or "", fields["model"] or "", fields.get("request_model") or "")
        if isinstance(lookup, Unpriced):
            return _fixed_card(lookup)
        return card_of(lookup, fields["tier"] or "", fields["geo"] or "", fields["search_context"] or "")

    def find(self, provider: str, model: str, request_model: str = "") -> Lookup | Unpriced:
        """The price rows that a model's name means, or why there are none. Overrides come first."""
        for name in filter(None, (request_model, model)):
            if (lookup := self._overridden(provider, name)) is not None:
                return lookup
        if not model or model == "unknown":
            return Unpriced("the client recorded no model")
        if not provider:
            return Unpriced(self.reasons.get(model) or f"no provider is known for {model!r}; add an override")
        for reading in price_names.readings(model):
            if reading.free:
                if provider in self.multiplexers:
                    return Lookup(f"{provider}/{model}", [_FREE], reading, {}, {})
                continue
            for name in self.clouds.get(provider, [provider]):
                owner = self.providers.get(name)
                if owner is None:
                    continue
                if (rows := rows_of(owner, reading.model)) is not None:
                    if provider in self.clouds and not reading.region:
                        reading = reading._replace(notes=(*reading.notes, _NO_REGION))  # noqa: PLW2901
                    return Lookup(f"{name}/{reading.model}", rows, reading, owner["sources"], owner["holidays"])
                if reason := owner["unpriced"].get(reading.model):
                    return Unpriced(reason)
        if provider in self.reasons:
            return Unpriced(self.reasons[provider])
        if provider not in self.providers and provider not in self.clouds:
            return Unpriced(f"no prices are known for {provider}; add an override")
        return Unpriced(f"no price is known for {model!r} at {provider}")

    def _overridden(self, provider: str, name: str) -> Lookup | Unpriced | None:
        """The user's own row: the name verbatim, then the longest prefix that ends in `*`, then what the name means."""
        spelling = name.strip().lower()
        for owner in (provider, "*"):
            body = self.overrides.get(owner)
            if body is None:
                continue
            prefixes = (key for key in body["models"] if key.endswith("*") and spelling.startswith(key[:-1]))
            meant = (reading.model for reading in price_names.readings(name))
            for key in (spelling, *sorted(prefixes, key=len, reverse=True), *meant):
                if key in body["models"] and body["models"][key] is None:
                    return Unpriced(f"{owner} {key} is removed by your override")
                if (rows := rows_of(body, key)) is None:
                    rows = self._alias(owner, body["aliases"].get(key, ()))
                if rows is not None:
                    return Lookup(
                        f"override/{owner}/{key}", rows, price_names.Reading(spelling), body["sources"], body["holidays"]
                    )
        return None

    def _alias(self, provider: str, targets: Iterable[Data]) -> list[Data] | None:
        """The built-in rows that an override's alias leads to, of the same provider or of those that a cloud resells."""
        intervals: list[Data] = []
        for target in targets:
            for name in self.clouds.get(provider, [provider]):
                rows = rows_of(self.providers.get(name, _NOBODY), target["to"]) or ()
                intervals += _within_span(rows, target)
        return intervals or None


def rows_of(owner: Data, model: str) -> list[Data] | None:
    """A provider's intervals for a model or alias of exactly that name; None if there is neither."""
    rows: list[Data] | None = owner["models"].get(model)
    if rows is None and model in owner["aliases"]:
        rows = []
        for target in owner["aliases"][model]:
            rows += _within_span(owner["models"].get(target["to"]) or (), target)
        return rows or None
    return rows


def _within_span(rows: Iterable[Data], target: Data) -> Iterator[Data]:
    """The parts of some intervals that lie within an alias's interval."""
    for row in rows:
        begins = max(row.get("from", ""), target.get("from", ""))
        ends = min(row.get("until", "9"), target.get("until", "9"))
        if begins < ends:
            yield {**row, "from": begins, "until": ends}


_NO_REGION = "the region was not recorded: assumed global processing"
_NOBODY: Data = {"models": {}, "aliases": {}}


class Lookup(NamedTuple):
    """A model's price rows, and how its name led to them."""

    name: str
    rows: list[Data]
    reading: price_names.Reading
    sources: Data
    holidays: Data


_FREE: Data = {"tiers": {"": {"rates": dict.fromkeys(price_cards.CLASSES, "0"), "above": [], "windows": []}}, "geo": {}}


def _fixed_card(rate: Rate | Unpriced) -> Card:
    return Card(lambda ts, size: rate, rate, False, {})


def card_of(lookup: Lookup, tier: str, geo: str, search_context: str) -> Card:
    """All rates of a model for one tier, geo and search context."""
    tier = tier or lookup.reading.tier
    # A cloud's name says where the request stayed; unless it may go anywhere, that has a price of its own.
    region = lookup.reading.region
    regional = price_cards.REGIONAL if region not in ("", "global") else ""
    geo = region if region == price_names.GOVCLOUD else geo or regional
    intervals: list[Interval] = []
    by_name: dict[str, Rate] = {}
    sized = False
    for row in lookup.rows:
        interval = _interval(lookup, row, tier, geo, search_context)
        intervals.append(interval)
        by_name |= {rate.name: rate for rate in interval.rates}
        sized = sized or interval.sized
    if len(intervals) == 1 and intervals[0].choose is None and (intervals[0].begins, intervals[0].ends) == ("", "9"):
        return _fixed_card(intervals[0].base)._replace(by_name=by_name)

    def choose(ts: str, size: int) -> Rate | Unpriced:
        for begins, ends, base, inner, *_ in intervals:
            if begins <= ts < ends:
                return base if inner is None else inner(ts, size)
        return Unpriced(f"no price is known for {lookup.name} on {ts[:10]}")

    return Card(choose, None, sized, by_name)


class Interval(NamedTuple):
    """One interval of a card: its base rate, and how to choose another, if there are others."""

    begins: str
    ends: str
    base: Rate | Unpriced
    choose: Callable[[str, int], Rate] | None = None
    sized: bool = False
    rates: tuple[Rate, ...] = ()


def _interval(lookup: Lookup, row: Data, tier: str, geo: str, search_context: str) -> Interval:
    """One interval of a card, with a function that chooses among its rates."""
    span = (row.get("from", ""), row.get("until", "9"))
    if tier not in row["tiers"]:
        return Interval(*span, Unpriced(f"{lookup.name} has no published price in tier {tier}"))
    if geo and geo not in row["geo"]:
        return Interval(*span, Unpriced(f"{lookup.name} has no published price for {geo} processing"))
    block = row["tiers"][tier]
    base = _base_rate(lookup, row, row["geo"][geo] if geo else "1", search_context)._replace(rates=block["rates"])

    def variant(suffix: str, rates: Data) -> Rate:
        return base._replace(name=base.name + suffix, rates={**block["rates"], **rates})

    steps = [
        (step["tokens"] + (step["op"] == "gt"), variant(f">{step['tokens']}", step["rates"])) for step in block["above"]
    ]
    windows = [
        (_window_test(window, lookup.holidays), variant(f"~{window['name']}", window["rates"]))
        for window in block["windows"]
    ]

    def choose(ts: str, size: int) -> Rate:
        for is_inside, rate in windows:
            if is_inside(ts):
                return rate
        chosen = base
        for least, rate in steps:
            if size >= least:
                chosen = rate
        return chosen

    rates = (base, *(rate for _, rate in steps), *(rate for _, rate in windows))
    return Interval(*span, base, choose if len(rates) > 1 else None, bool(steps), rates)


def _base_rate(lookup: Lookup, row: Data, factor: str, search_context: str) -> Rate:
    """A rate with everything that the rates of an interval share: all but the token prices."""
    request, notes = row.get("request"), lookup.reading.notes
    if isinstance(request, dict):
        if search_context not in request:
            notes += ("the search context was not recorded: assumed low",)
        request = request.get(search_context, request["low"])
    keys = row.get("src", ())
    sources = [lookup.sources.get(key, {}) for key in keys]
    urls = tuple(str(source.get("url", key)) for key, source in zip(keys, sources, strict=True))
    captured = max((str(source.get("captured", "")) for source in sources), default="")
    name = lookup.name + (f"@{row['from'][:16]}" if row.get("from") else "")
    return Rate(name, {}, factor, row.get("web_search"), request, notes, urls, row.get("confidence", ""), captured)


def _window_test(window: Data, holidays: Data) -> Callable[[str], bool]:
    """A function that tests whether a time lies in a weekly window, in the window's own zone."""
    tz = when.zone(window["tz"])
    free = {str(day) for day in holidays.get(window["except"], ())}
    begins, ends = window.get("from", ""), window.get("until", "9")
    answers: dict[str, bool] = {}

    def inside(ts: str) -> bool:
        if not begins <= ts < ends:
            return False
        key = ts[:16]
        answer = answers.get(key)
        if answer is None:
            at = when.local(when.moment(ts), tz)
            minute = at.hour * 60 + at.minute
            answer = answers[key] = (
                at.isoweekday() in window["days"]
                and f"{at:%Y-%m-%d}" not in free
                and any(first <= minute < last for first, last in window["hours"])
            )
        return answer

    return inside


def cost_of(rate: Rate, counts: Mapping[str, Any]) -> Cost | Unpriced:
    """What some counts cost at a rate. The counts may be of one turn or of many."""
    lines: list[tuple[str, int, str, Decimal]] = []
    notes = list(rate.notes)
    rates = rate.rates
    left = {name: counts.get(name, 0) for name in _CLASS_OF}
    priced: list[tuple[str, int, str]] = []
    for part, (name, whole) in _PARTS.items():
        count, price = counts.get(part, 0), rates.get(name)
        if count and price is not None:
            field = f"{whole}_tokens"
            left[field] -= min(count, left[field])
            priced.append((part, count, rates["input"] or "0" if price == price_cards.SAME else price))
    for field, name in _CLASS_OF.items():
        count = left[field]
        if not count:
            continue
        price = rates.get(name)
        if price is None:
            if name == "output":
                return Unpriced(f"{rate.name} has no price for output")
            notes.append(f"no price is published for {name}: billed as input")
        if price is None or price == price_cards.SAME:
            price = rates["input"] or "0"
        priced.append((field, count, price))
    if citations := counts.get("citation_tokens", 0):
        priced.append(("citation_tokens", citations, rates.get("citation") or rates["input"] or "0"))
    for field, count, price in priced:
        each = _EXACT.multiply(Decimal(price), Decimal(rate.factor))
        lines.append((field, count, plain(each), _EXACT.multiply(each, Decimal(count)).scaleb(-6, _EXACT)))
    for field, fee in (("web_searches", rate.web_search), ("requests", rate.request)):
        count = counts.get(field, 0)
        if count and fee is not None:
            lines.append((field, count, fee, _EXACT.multiply(Decimal(fee), Decimal(count)).scaleb(-3, _EXACT)))
        elif count and field == "web_searches":
            notes.append("no price is published for web searches: not billed")
    total = ZERO
    for *_, amount in lines:
        total = _EXACT.add(total, amount)
    return Cost(total, tuple(lines), tuple(dict.fromkeys(notes)))


_CACHED = ("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")


def saved_by_cache(rate: Rate, counts: Mapping[str, Any]) -> Decimal | None:
    """How much more the same prompts would have cost without a cache; negative if cache writes cost more than reads saved.

    None if no cache was used. A class without a price of its own is billed as input, and saves nothing.
    """
    total, used = ZERO, False
    whole = Decimal(rate.rates["input"] or "0")
    for field in _CACHED:
        count = counts.get(field, 0)
        price = rate.rates.get(_CLASS_OF[field])
        used = used or count > 0
        if count and price not in (None, price_cards.SAME):
            each = _EXACT.multiply(_EXACT.subtract(whole, Decimal(price)), Decimal(rate.factor))
            total = _EXACT.add(total, _EXACT.multiply(each, Decimal(count)).scaleb(-6, _EXACT))
    return total if used else None


def plain(amount: Decimal) -> str:
    """An amount as text without exponent or trailing zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def add(a: Decimal, b: Decimal) -> Decimal:
    """An exact sum."""
    return _EXACT.add(a, b)


def due_changes(catalogue: Catalogue, now: str) -> Iterator[tuple[str, str, str]]:
    """Provider, model and day of each scheduled price change that has begun and was not confirmed since."""
    for provider, body in sorted(catalogue.providers.items()):
        for model, rows in body["models"].items():
            yield from ((provider, model, row["from"][:10]) for row in rows if row.get("scheduled") and row["from"] <= now)


def load(override: str = "", log_folder: str = "") -> Catalogue:
    """The built-in catalogue, what tok-price update installed, and overrides. Raises catalog.Malformed, OSError."""
    sources = catalog.sources("pricing/*.yaml") | catalog.sources("providers.yaml")
    sources |= price_installed.texts(log_folder) if log_folder else {}  # its providers replace those before them
    if override:
        with open(override, "rb", opener=regular.opener) as file:
            sources[override] = file.read()
    return Catalogue(
        *catalog.compile_sources("pricing", sources, lambda parsed: price_cards.compile_catalogue(parsed, sources, override))
    )


def from_texts(sources: Mapping[str, bytes]) -> Catalogue:
    """A catalogue of some files' texts (name -> text), of which one is providers.yaml. Raises catalog.Malformed."""
    parsed = {name: catalog.parse(text, name) for name, text in sources.items()}
    return Catalogue(price_cards.compile_catalogue(parsed, sources, ""), "")
