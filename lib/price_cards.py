"""Rate cards: the YAML of catalog/pricing and of a user's overrides -> the plain form that `pricing` looks up.

A card is a model's list of intervals `[from, until)`. Everything relative (a tier's factor, a default of the provider)
is worked out here, in exact decimals, so that looking a rate up multiplies nothing but a geo factor.

Three things differ: null, a price nobody published (billed at the input rate, and said so); `same_as_input`, known to
have no discount; and "0", free.
"""

from __future__ import annotations

import decimal
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tokenops import show, when
from tokenops.config import Unusable

Data = dict[str, Any]
Place = tuple[str | int, ...]  # the keys that lead to an entry of the file

CLASSES = (
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "cache_write_12h",
    "output",
    "reasoning",
    "citation",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
)
SAME = "same_as_input"
FEES = ("web_search", "request")
CONTEXTS = ("low", "medium", "high")
# Applies where a cloud's name says that the request stayed in a region.
REGIONAL = "regional"

# `correction` says to tok-price lint that a wrong price of the past was put right.
_SAID = ("src", "confidence", "note", "scheduled", "correction")
_INTERVAL = (*CLASSES, *FEES, "from", "until", "above", "windows", "tiers", "geo", *_SAID)
_MODEL = ("prices", "aliases", "tiers", "geo", "retired", "note", *FEES)
_BODY = ("sources", "defaults", "models", "aliases", "unpriced", "holidays", "page")
_FILE = ("schema", "provider", "currency", "unit", *_BODY)
_OVERRIDE = ("schema", "currency", "unit", "providers")
_DEFAULTS = ("tiers", "geo", *FEES)
_PRICE = re.compile(r"\d{1,7}(?:\.\d{1,12})?\Z")
_EXACT = decimal.Context(prec=60, traps=[decimal.Inexact, decimal.InvalidOperation])


def compile_file(data: object) -> Data:
    """A file of the catalogue: one provider's cards. Raises Unusable."""
    given = _mapping(data, (), _FILE)
    provider = given.get("provider")
    if not isinstance(provider, str) or not provider:
        raise Unusable((), "`provider` is missing", "name who bills")
    _unit(given)
    return {"provider": provider, **_body(given, (), removable=False)}


def compile_override(data: object) -> dict[str, Data]:
    """A file of overrides: provider -> its cards; a model that was removed has none. Raises Unusable."""
    given = _mapping(data, (), _OVERRIDE)
    _unit(given)
    providers = _mapping({} if given.get("providers") is None else given["providers"], ("providers",))
    return {
        str(name).lower(): _body(_mapping(body, ("providers", name), _BODY), ("providers", name), removable=True)
        for name, body in providers.items()
    }


def _unit(given: Data) -> None:
    for key, only in (("currency", "USD"), ("unit", "per_million_tokens")):
        if given.get(key, only) != only:
            raise Unusable((key,), f"{given[key]!r} is not supported", "give prices in USD per million tokens")


def _body(given: Data, place: Place, removable: bool) -> Data:
    defaults = _mapping(given.get("defaults") or {}, (*place, "defaults"), _DEFAULTS)
    models: Data = {}
    aliases: Data = {}
    retired: Data = {}
    for model, card in _mapping(given.get("models") or {}, (*place, "models")).items():
        at = (*place, "models", model)
        name = str(model).lower()
        if removable and isinstance(card, dict) and card.get("remove") is True:
            _mapping(card, at, ("remove", "note"))
            models[name] = None
            continue
        models[name] = _card(_mapping(card, at, _MODEL), defaults, at)
        if "retired" in card:
            retired[name] = str(card["retired"])
        for alias in _listed(card.get("aliases"), (*at, "aliases")):
            aliases[str(alias).lower()] = [{"to": name}]
    for alias, targets in _mapping(given.get("aliases") or {}, (*place, "aliases")).items():
        at = (*place, "aliases", alias)
        aliases[str(alias).lower()] = [_target(one, (*at, n)) for n, one in enumerate(_listed(targets, at))]
    return {
        "models": models,
        "aliases": aliases,
        "unpriced": {str(k).lower(): str(v) for k, v in _mapping(given.get("unpriced") or {}, (*place, "unpriced")).items()},
        "sources": given.get("sources") or {},
        "holidays": given.get("holidays") or {},
        "page": str(given.get("page") or ""),
        "retired": retired,
    }


def _target(given: object, place: Place) -> Data:
    target = _mapping(given, place, ("to", "from", "until", "note", "src"))
    if not isinstance(target.get("to"), str):
        raise Unusable(place, "`to` is missing", "name the model that the alias means")
    return {key: instant(value, (*place, key)) if key in ("from", "until") else value for key, value in target.items()} | {
        "to": target["to"].lower()
    }


def _card(given: Data, defaults: Data, place: Place) -> list[Data]:
    """One model's intervals, in order of time."""
    listed = _listed(given.get("prices"), (*place, "prices"))
    if not listed:
        raise Unusable(place, "`prices` is missing", "give a list with at least one interval")
    intervals = []
    for n, one in enumerate(listed):
        at = (*place, "prices", n)
        intervals.append(_interval(_mapping(one, at, _INTERVAL), given, defaults, at))
    intervals.sort(key=lambda one: one.get("from", ""))
    for earlier, later in itertools.pairwise(intervals):
        if earlier.get("until", "9") > later.get("from", ""):
            raise Unusable(
                (*place, "prices"),
                f"two intervals overlap at {later.get('from', 'the beginning')}; give the earlier an `until`",
            )
    return intervals


def _interval(given: Data, model: Data, defaults: Data, place: Place) -> Data:
    made: Data = {key: instant(given[key], (*place, key)) for key in ("from", "until") if given.get(key)}
    if made.get("from", "") >= made.get("until", "9"):
        raise Unusable((*place, "until"), "`until` is not after `from`", "swap them")
    base: Data = {"rates": _rates(given, place), "above": _above(given, place), "windows": _windows(given, place)}
    if not isinstance(base["rates"].get("input"), str):
        raise Unusable(place, "`input` is missing", "every interval needs a price for it")
    made["tiers"] = {"": base}
    for tier, spec in _together("tiers", defaults, model, given, place).items():
        at = (*place, "tiers", tier)
        scaled = _scaled(base, _mapping(spec, at, (*CLASSES, "factor", "aliases", "above")), at)
        for name in (tier, *_listed(spec.get("aliases"), (*at, "aliases"))):
            made["tiers"][name] = scaled
    made["geo"] = {
        key: price(value, (*place, "geo", key)) for key, value in _together("geo", defaults, model, given, place).items()
    }
    for fee in FEES:
        value = given.get(fee, model.get(fee, defaults.get(fee)))
        at = (*place, fee)
        if isinstance(value, dict):
            made[fee] = {size: price(cost, (*at, size)) for size, cost in _mapping(value, at, CONTEXTS).items()}
            if "low" not in made[fee]:
                raise Unusable(at, "`low` is missing", "it is what a request without a recorded search context costs")
        elif value is not None:
            made[fee] = price(value, at)
    return made | {key: given[key] for key in _SAID if key in given}


def _together(key: str, defaults: Data, model: Data, interval: Data, place: Place) -> Data:
    """A provider's defaults, then the model's, then the interval's own; null takes one away."""
    found: Data = {}
    for given in (defaults, model, interval):
        found |= _mapping(given.get(key) or {}, (*place, key))
    return {name: value for name, value in found.items() if value is not None}


def _rates(given: Data, place: Place) -> Data:
    listed = {name: given[name] for name in CLASSES if name in given}
    return {name: value if value in (None, SAME) else price(value, (*place, name)) for name, value in listed.items()}


def _above(given: Data, place: Place) -> list[Data]:
    made = []
    for n, one in enumerate(_listed(given.get("above"), (*place, "above"))):
        at = (*place, "above", n)
        step = _mapping(one, at, (*CLASSES, "op", "tokens"))
        if step.get("op") not in ("gt", "ge") or not isinstance(step.get("tokens"), int):
            raise Unusable(at, "`above` needs `op: gt` or `op: ge`, and `tokens`, a whole number")
        made.append({"op": step["op"], "tokens": step["tokens"], "rates": _rates(step, at)})
    if [step["tokens"] for step in made] != sorted({step["tokens"] for step in made}):
        raise Unusable((*place, "above"), "the steps of `above` are not ascending", "sort them by `tokens`")
    return made


def _windows(given: Data, place: Place) -> list[Data]:
    made = []
    for n, one in enumerate(_listed(given.get("windows"), (*place, "windows"))):
        at = (*place, "windows", n)
        window = _mapping(one, at, (*CLASSES, "name", "tz", "days", "hours", "except", "from", "until"))
        try:
            when.zone(window.get("tz", "UTC"))
        except ValueError as error:
            raise Unusable((*at, "tz"), str(error)) from None
        days = _listed(window.get("days"), (*at, "days")) or [1, 2, 3, 4, 5, 6, 7]
        if not set(days) <= {1, 2, 3, 4, 5, 6, 7}:
            raise Unusable((*at, "days"), "days are numbers from 1 (Monday) to 7")
        made.append(
            {
                "name": window.get("name", f"window{n}"),
                "tz": window.get("tz", "UTC"),
                "days": days,
                "hours": [_hours(span, (*at, "hours")) for span in _listed(window.get("hours"), at) or ["00:00-24:00"]],
                "except": window.get("except", ""),
                "rates": _rates(window, at),
            }
            | {key: instant(window[key], (*at, key)) for key in ("from", "until") if window.get(key)}
        )
    return made


def _hours(span: object, place: Place) -> list[int]:
    """First and last minute of the day, of `09:00-12:00`."""
    found = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", str(span))
    if found:
        a, b, c, d = map(int, found.groups())
        if 0 <= a * 60 + b < c * 60 + d <= 24 * 60:
            return [a * 60 + b, c * 60 + d]
    raise Unusable(place, f"{span!r} is no span of hours", 'write "09:00-12:00"')


def _scaled(base: Data, spec: Data, place: Place) -> Data:
    """A tier's rates: the base's by a factor, but a class with a price of its own has that, or keeps the `standard` one."""
    factor = None if spec.get("factor") is None else price(spec["factor"], (*place, "factor"))

    def scaled(rates: Data, own: bool) -> Data:
        made: Data = {}
        for name in CLASSES:
            if own and name in spec and spec[name] != "standard":
                made[name] = spec[name] if spec[name] in (None, SAME) else price(spec[name], (*place, name))
            elif name in rates:
                value = rates[name]
                if value in (None, SAME) or spec.get(name) == "standard":
                    made[name] = value
                else:
                    made[name] = None if factor is None else times(value, factor)
        return made

    steps = spec.get("above")
    if steps == "standard":
        above = base["above"]
    elif isinstance(steps, list):
        above = _above(spec, place)
    else:
        above = [{**step, "rates": scaled(step["rates"], own=False)} for step in base["above"]]
    windows = [{**window, "rates": scaled(window["rates"], own=False)} for window in base["windows"]]
    return {"rates": scaled(base["rates"], own=True), "above": above, "windows": windows}


def price(value: object, place: Place) -> str:
    """A price or factor as exact text. Raises Unusable."""
    text = str(value)
    if isinstance(value, bool) or not _PRICE.match(text):
        raise Unusable(place, f"{value!r} is no price", 'write a decimal number of USD such as "2.50"')
    return text


def times(a: str, b: str) -> str:
    """An exact product."""
    return format(_EXACT.multiply(decimal.Decimal(a), decimal.Decimal(b)).normalize(_EXACT), "f")


def instant(value: object, place: Place = ()) -> str:
    """A time as the catalogue compares it. Raises Unusable."""
    try:
        return when.canonical(str(value))
    except ValueError:
        raise Unusable(place, f"{value!r} is no time", "write 2026-10-07T00:00:00Z") from None


def _mapping(given: object, place: Place, keys: Iterable[str] | None = None) -> Data:
    """A mapping, whose keys are all known. Raises Unusable."""
    if not isinstance(given, dict):
        raise Unusable(place, f"expected keys and values, found {given!r}")
    if keys is not None:
        known = list(keys)
        for key in given:
            if key not in known:
                nearest = show.nearest(str(key), known)
                raise Unusable((*place, key), f"unknown key {key!r}", f"the nearest known is {nearest!r}")
    return given


def _listed(given: object, place: Place) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise Unusable(place, f"expected a list, found {given!r}")
    return given


def every_price(card: list[Data]) -> Iterator[tuple[str, str]]:
    """Class and price of everything a card holds, for checks over a whole catalogue."""
    for interval in card:
        for rates in interval["tiers"].values():
            for block in (rates, *rates["above"], *rates["windows"]):
                for name, value in block["rates"].items():
                    if value not in (None, SAME):
                        yield name, value
