"""Checks price files: values, origins and names that the catalogue refuses or holds until a person explains them.

Each check takes one provider's file and yields faults; the limits are in catalog/price_rules.yaml. Compiled prices are
checked, and reported with the line that they come from.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from tokenops import catalog, price_cards, price_causes, show
from tokenops.price_files import HELD, REFUSED, Book, Data, Fault, Texts, books

_CONFIDENCE = ("high", "medium", "low")
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z")


def origins(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Each row names its sources, and each source its page and the day on which it was read."""
    sources = book.body["sources"]
    for name, source in sources.items():
        captured = str(source.get("captured", ""))
        if not str(source.get("url", "")).startswith("https://") or not _DAY.match(captured) or not source.get("kind"):
            yield Fault(
                REFUSED, book.location("sources", name), book.provider, "", f"the source {name} needs url, captured and kind"
            )
        elif captured > today:
            what = f"the source {name} was read on {captured}, which is in the future"
            yield Fault(REFUSED, book.location("sources", name), book.provider, "", what)
    for model, interval, _ in book.rows():
        begins, keys = interval.get("from", ""), interval.get("src") or []
        if unknown := [key for key in keys if key not in sources]:
            yield book.fault(REFUSED, model, begins, f"no source {unknown[0]!r} is listed under `sources:`")
        if not keys:
            yield book.fault(REFUSED, model, begins, "`src` is missing; name the sources that say so")
        sure = interval.get("confidence")
        if sure not in _CONFIDENCE:
            yield book.fault(REFUSED, model, begins, f"confidence is {sure!r}; write {', '.join(_CONFIDENCE)}")
        if sure == "high" and len(keys) < 2 and not _by_vendor(sources, keys):
            what = "confidence is high with one source that is not the vendor's; write medium, or name a second"
            yield book.fault(HELD, model, begins, what)


def _by_vendor(sources: Data, keys: list[str]) -> bool:
    """Whether a source is the vendor's own: its page, its news or its client."""
    return any(str(sources.get(key, {}).get("kind", "")).startswith(("vendor", "what its")) for key in keys)


def names(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """A name has one row; an alias has targets that exist and follow one another."""
    body = book.body
    for model in body["models"]:
        if "*" in model:
            yield book.fault(REFUSED, model, "", "built-in names hold no `*`: list the names, or use an override")
        if model in body["aliases"] or model in body["unpriced"]:
            yield book.fault(REFUSED, model, "", "the name is also an alias, or is listed under `unpriced`")
    for alias, targets in body["aliases"].items():
        yield from (
            Fault(REFUSED, book.location("aliases", alias), book.provider, alias, why)
            for why in _alias(body, alias, targets)
        )
    for name in set(map(str, book.raw.get("models") or {})) | set(map(str, book.raw.get("aliases") or {})):
        if name != name.lower():
            yield Fault(REFUSED, book.location("models", name), book.provider, name, "write names in lower case")


def _alias(body: Data, alias: str, targets: list[Data]) -> Iterator[str]:
    if not targets:
        yield "the alias has no target"
    for target in targets:
        if target["to"] in body["aliases"]:
            yield f"{target['to']} is an alias itself; name the model that it means"
        elif target["to"] not in body["models"]:
            yield f"there is no model {target['to']!r}; the nearest is {show.nearest(target['to'], body['models'])!r}"
    for before, after in itertools.pairwise(targets):
        if before.get("until") != after.get("from"):
            ends, begins = before.get("until", "never")[:10], after.get("from", "the beginning")[:10]
            yield f"its targets do not follow one another: {before['to']} ends {ends}, {after['to']} begins {begins}"


def family(model: str) -> str:
    """A model's name without its version: claude-opus, gpt-mini, gemini-flash-lite."""
    words = re.split(r"[-/:.]", model)
    return "-".join(word for word in words if word and not re.search(r"\d", word)) or model


def siblings(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """A price is not many times that of its family, as it is in the wrong unit."""
    factor = Decimal(rules["limits"]["siblings"])
    groups: dict[tuple[str, str], list[tuple[str, Data, Decimal]]] = {}
    for model, interval, rates in book.rows():
        for name in ("input", "output"):
            if rates.get(name):
                groups.setdefault((family(model), name), []).append((model, interval, rates[name]))
    for (_, name), rows in groups.items():
        for model, interval, value in rows:
            others = [other for sibling, _, other in rows if sibling != model]
            ratio = value / statistics.median(others) if len(others) > 1 else Decimal(1)
            if not 1 / factor < ratio < factor:
                what = f"{name} is {ratio:.4g} times that of its family"
                slip = f", a slip of 10^{power}" if (power := price_causes.power_of_ten(ratio)) else ""
                yield book.fault(REFUSED, model, interval.get("from", ""), what + slip)


Rules = Mapping[str, Any]
Check = Callable[[Book, Rules, str], Iterator[Fault]]


def rules() -> Rules:
    """The limits of prices (catalog/price_rules.yaml)."""
    limits: Rules = catalog.load("price_rules")
    return limits


def faults(texts: Texts, rules: Rules, today: str) -> list[Fault]:
    """All problems of some price files on a day (YYYY-MM-DD)."""
    compiled, problems = books(texts)
    for book in compiled:
        for check in _CHECKS:
            problems += check(book, rules, today)
    return list(dict.fromkeys(problems))


def _limits(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Prices, fees and factors are within their limits."""
    for model, interval, rates in book.rows():
        begins = interval.get("from", "")
        for name, value in rates.items():
            least, most = map(Decimal, rules["limits"]["output" if name.endswith("output") else "input"])
            if value and not least <= value <= most:
                yield book.fault(REFUSED, model, begins, f"{name} is {value} per million; prices are {least} to {most}")
        for name, fee in _fees(interval):
            least, most = map(Decimal, rules["limits"][name])
            if Decimal(fee) and not least <= Decimal(fee) <= most:
                yield book.fault(REFUSED, model, begins, f"{name} is {fee} per thousand; fees are {least} to {most}")
        yield from _geos(book, rules, model, interval)


def _fees(interval: Data) -> Iterator[tuple[str, str]]:
    for name in price_cards.FEES:
        value = interval.get(name)
        yield from ((name, fee) for fee in (value.values() if isinstance(value, dict) else [value] if value else []))


def _geos(book: Book, rules: Rules, model: str, interval: Data) -> Iterator[Fault]:
    least, most = map(Decimal, rules["limits"]["geo"])
    for name, factor in interval["geo"].items():
        if name not in rules["geos"]:
            yield book.fault(
                REFUSED, model, interval.get("from", ""), f"{name!r} is not a known region; write {', '.join(rules['geos'])}"
            )
        elif not least <= Decimal(factor) <= most:
            what = f"the factor of {name} is {factor}; factors are {least} to {most}"
            yield book.fault(REFUSED, model, interval.get("from", ""), what)


def _order(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Classes whose prices have the same order at every vendor."""
    for model, interval, rates in book.rows():
        listed, begins = interval["tiers"][""]["rates"], interval.get("from", "")
        base, output = rates["input"], rates.get("output", Decimal(0))
        if listed.get("cache_read") not in (None, price_cards.SAME) and base and rates["cache_read"] >= base:
            what = f"cache_read is {rates['cache_read']}, input {base}; write same_as_input if there is no discount"
            yield book.fault(REFUSED, model, begins, what)
        if output and output < base:
            yield book.fault(REFUSED, model, begins, f"output is {output}, less than input {base}; they may be swapped")
        writes = [name for name in ("cache_write", "cache_write_1h", "cache_write_12h") if name in rates]
        for shorter, longer in zip(["input", *writes], writes, strict=False):
            if rates[longer] < rates[shorter]:
                what = f"{longer} is {rates[longer]}, less than {shorter} {rates[shorter]}; they may be swapped"
                if shorter != "input" or "note" not in interval:
                    yield book.fault(REFUSED if shorter != "input" else HELD, model, begins, what)
        if not base and "note" not in interval:
            yield book.fault(HELD, model, begins, "input is 0, which means free; say in `note:` why, or write ~")


def _family_ratios(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Ratios that a provider's prices always had, and classes that its models always have."""
    expected = rules["ratios"].get(book.provider, {})
    for model, interval, rates in book.rows():
        base = rates["input"]
        if "note" in interval or not base:
            continue
        begins = interval.get("from", "")
        listed = interval["tiers"][""]["rates"]
        for name in rules["requires"].get(book.provider, ()):
            if name not in listed:
                yield book.fault(HELD, model, begins, f"{name} is missing; every model of this provider has one")
        for name, usual in expected.items():
            if name not in rates or listed[name] == price_cards.SAME:
                continue
            ratio = rates[name] / base
            if not any(abs(ratio - Decimal(value)) <= Decimal("0.0005") for value in usual):
                what = f"{name} is {ratio:.4g} times input; at {book.provider} it was {', '.join(usual)} so far"
                yield book.fault(HELD, model, begins, f"{what}; say in `note:` where that is published")


def _steps(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Longer prompts: where the step is, and that they cost more."""
    op = rules["ops"].get(book.provider, rules["ops"]["*"])
    least, most = map(Decimal, rules["limits"]["step"])
    low, high = map(Decimal, rules["above"])
    for model, interval, rates in book.rows():
        begins = interval.get("from", "")
        for step in interval["tiers"][""]["above"]:
            if not least <= step["tokens"] <= most:
                what = f"a step at {step['tokens']:,} tokens; steps are at {least:,} to {most:,}"
                yield book.fault(REFUSED, model, begins, what)
            if step["op"] != op and "note" not in interval:
                yield book.fault(HELD, model, begins, f"the step is {step['op']}; at {book.provider} it is {op}")
            for name, value in step["rates"].items():
                if value in (None, price_cards.SAME) or not rates.get(name):
                    continue
                ratio = Decimal(value) / rates[name]
                if ratio < 1:
                    yield book.fault(REFUSED, model, begins, f"{name} is cheaper above {step['tokens']:,} tokens than below")
                elif not low <= ratio <= high and "note" not in interval:
                    what = f"{name} is {ratio:.4g} times as much above {step['tokens']:,} tokens; {low} to {high} is usual"
                    yield book.fault(HELD, model, begins, what)


def _tiers(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Tiers are cheaper or dearer than the standard one, as their kind requires."""
    for model, interval, rates in book.rows():
        begins = interval.get("from", "")
        for tier, block in interval["tiers"].items():
            if tier and tier not in rules["tiers"]:
                yield book.fault(
                    REFUSED, model, begins, f"{tier!r} is not a known tier; choose from {', '.join(rules['tiers'])}"
                )
                continue
            for name, value in block["rates"].items() if tier else ():
                if value in (None, price_cards.SAME) or not rates.get(name):
                    continue
                least, most = map(Decimal, rules["tiers"][tier])
                ratio = Decimal(value) / rates[name]
                if (tier in ("batch", "flex")) is (ratio > 1) and ratio != 1:
                    yield book.fault(
                        REFUSED, model, begins, f"{name} in tier {tier} is {ratio:.4g} times the standard price"
                    )
                elif not least <= ratio <= most and not (ratio == 1 and most == 1) and "note" not in interval:
                    what = f"{name} in tier {tier} is {ratio:.4g} times the standard price; {least} to {most} is usual"
                    yield book.fault(HELD, model, begins, what)


def _windows(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """Peak costs more, a discount less."""
    for model, interval, rates in book.rows():
        for window in interval["tiers"][""]["windows"]:
            for name, value in window["rates"].items():
                ratio = Decimal(value) / rates[name] if rates.get(name) and value not in (None, price_cards.SAME) else 0
                dearer = window["name"] == "peak"
                if ratio and (ratio <= 1 if dearer else ratio >= 1):
                    what = f"{name} in the window {window['name']} is {ratio:.4g} times the price outside of it"
                    yield book.fault(REFUSED, model, interval.get("from", ""), what)


def _times(book: Book, rules: Rules, today: str) -> Iterator[Fault]:
    """No gaps, no end without a reason, nothing scheduled that has begun."""
    for model, card in book.body["models"].items():
        for before, after in itertools.pairwise(card):
            if before.get("until") != after.get("from"):
                what = f"a gap: one interval ends {_day(before)}, the next begins on {after.get('from', '')[:10]}"
                yield book.fault(REFUSED, model, after.get("from", ""), what)
        last = card[-1]
        if "until" in last and model not in book.body["retired"]:
            what = f"the last interval ends {_day(last)}: append the price from then on, or say `retired:`"
            yield book.fault(REFUSED, model, last.get("from", ""), what)
        for interval in card:
            begins = interval.get("from", "")
            if interval.get("scheduled") and begins[:10] <= today:
                what = f"scheduled for {begins[:10]}, which has passed: check whether it happened, and remove `scheduled`"
                yield book.fault(HELD, model, begins, what)
            if begins[:10] > today and not interval.get("scheduled"):
                yield book.fault(HELD, model, begins, f"begins on {begins[:10]}, in the future, without `scheduled: true`")


def _day(interval: Data) -> str:
    return f"on {interval['until'][:10]}" if "until" in interval else "never"


_CHECKS: tuple[Check, ...] = (
    _limits,
    _order,
    _family_ratios,
    _steps,
    _tiers,
    _windows,
    _times,
    origins,
    names,
    siblings,
)
