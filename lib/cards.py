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
from collections.abc import Iterator, Mapping
from typing import Any

from tokenops import when
from tokenops.catalog import Malformed

Data = dict[str, Any]

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
TIERS = ("batch", "flex", "priority", "fast", "ultrafast")

_INTERVAL = {*CLASSES, *FEES, "from", "until", "above", "windows", "tiers", "geo", "src", "confidence", "note", "scheduled"}
_MODEL = {"prices", "aliases", "tiers", "geo", "retired", "note", "remove", *FEES}
_FILE = {
    "schema",
    "provider",
    "currency",
    "unit",
    "page",
    "sources",
    "defaults",
    "models",
    "aliases",
    "unpriced",
    "holidays",
}
_PRICE = re.compile(r"\d{1,7}(?:\.\d{1,12})?\Z")
_EXACT = decimal.Context(prec=60, traps=[decimal.Inexact, decimal.InvalidOperation])


def compile_provider(data: Data, name: str) -> Data:
    """One provider's cards: {"provider", "models": {id: [interval]}, "aliases", "unpriced", "sources"}. Raises Malformed."""
    _known(data, _FILE, name)
    provider = data.get("provider")
    if not isinstance(provider, str):
        raise Malformed(f"{name}: `provider` is missing; name who bills")
    defaults = data.get("defaults") or {}
    models: Data = {}
    aliases: Data = {}
    for model, given in (data.get("models") or {}).items():
        place = f"{name}: {model}"
        models[str(model).lower()] = compile_model(given, defaults, place)
        for alias in given.get("aliases") or ():
            aliases[str(alias).lower()] = [{"to": str(model).lower()}]
    for alias, targets in (data.get("aliases") or {}).items():
        aliases[str(alias).lower()] = [_target(target, f"{name}: {alias}") for target in targets]
    return {
        "provider": provider,
        "models": models,
        "aliases": aliases,
        "unpriced": {str(k).lower(): str(v) for k, v in (data.get("unpriced") or {}).items()},
        "sources": data.get("sources") or {},
        "holidays": data.get("holidays") or {},
    }


def _target(given: Data, place: str) -> Data:
    _known(given, {"to", "from", "until", "note", "src"}, place)
    return {key: _instant(value, place) if key in ("from", "until") else value for key, value in given.items()}


def compile_model(given: Data, defaults: Data, place: str) -> list[Data]:
    """One model's intervals, in order of time. Raises Malformed."""
    if not isinstance(given, dict):
        raise Malformed(f"{place}: expected keys such as `prices`, found {given!r}")
    _known(given, _MODEL, place)
    listed = given.get("prices")
    if not isinstance(listed, list) or not listed:
        raise Malformed(f"{place}: `prices` must be a list of intervals")
    intervals = [_interval(one, given, defaults, place) for one in listed]
    intervals.sort(key=lambda one: one.get("from", ""))
    for earlier, later in itertools.pairwise(intervals):
        if earlier.get("until", "9") > later.get("from", ""):
            raise Malformed(
                f"{place}: intervals overlap at {later.get('from', 'the beginning')}; give the earlier one an `until`"
            )
    return intervals


def _interval(given: Data, model: Data, defaults: Data, place: str) -> Data:
    _known(given, _INTERVAL, place)
    made: Data = {key: _instant(given[key], place) for key in ("from", "until") if given.get(key)}
    if made.get("from", "") >= made.get("until", "9"):
        raise Malformed(f"{place}: `until` is not after `from`")
    base: Data = {"rates": _rates(given, place), "above": _above(given, place), "windows": _windows(given, place)}
    if not isinstance(base["rates"].get("input"), str):
        raise Malformed(f"{place}: `input` is missing; every interval needs it")
    tiers = {**(defaults.get("tiers") or {}), **(model.get("tiers") or {}), **(given.get("tiers") or {})}
    made["tiers"] = {"": base}
    for tier, spec in tiers.items():
        if spec is not None:
            scaled = _scaled(base, spec, f"{place}: {tier}")
            for name in (tier, *(spec.get("aliases") or ())):
                made["tiers"][name] = scaled
    geo = {**(defaults.get("geo") or {}), **(model.get("geo") or {}), **(given.get("geo") or {})}
    made["geo"] = {key: price(value, f"{place}: geo {key}") for key, value in geo.items() if value is not None}
    for fee in FEES:
        value = given.get(fee, model.get(fee, defaults.get(fee)))
        if isinstance(value, dict):
            _known(value, set(CONTEXTS), f"{place}: {fee}")
            made[fee] = {size: price(cost, f"{place}: {fee}") for size, cost in value.items()}
        elif value is not None:
            made[fee] = price(value, f"{place}: {fee}")
    for key in ("src", "confidence", "note", "scheduled"):
        if key in given:
            made[key] = given[key]
    return made


def _rates(given: Data, place: str) -> Data:
    rates: Data = {}
    for name in CLASSES:
        if name in given:
            value = given[name]
            rates[name] = value if value is None or value == SAME else price(value, f"{place}: {name}")
    return rates


def _above(given: Data, place: str) -> list[Data]:
    made = []
    for step in given.get("above") or ():
        _known(step, {*CLASSES, "op", "tokens"}, f"{place}: above")
        if step.get("op") not in ("gt", "ge") or not isinstance(step.get("tokens"), int):
            raise Malformed(f"{place}: `above` needs `op: gt` or `ge`, and `tokens`")
        made.append({"op": step["op"], "tokens": step["tokens"], "rates": _rates(step, place)})
    if [step["tokens"] for step in made] != sorted({step["tokens"] for step in made}):
        raise Malformed(f"{place}: `above` steps are not ascending")
    return made


def _windows(given: Data, place: str) -> list[Data]:
    made = []
    for window in given.get("windows") or ():
        _known(window, {*CLASSES, "name", "tz", "days", "hours", "except", "from", "until"}, f"{place}: windows")
        try:
            when.zone(window.get("tz", "UTC"))
        except ValueError as error:
            raise Malformed(f"{place}: {error}") from None
        made.append(
            {
                "name": window.get("name", "window"),
                "tz": window.get("tz", "UTC"),
                "days": window.get("days") or [1, 2, 3, 4, 5, 6, 7],
                "hours": [_hours(span, place) for span in window.get("hours") or ["00:00-24:00"]],
                "except": window.get("except", ""),
                "rates": _rates(window, place),
            }
            | {key: _instant(window[key], place) for key in ("from", "until") if window.get(key)}
        )
    return made


def _hours(span: object, place: str) -> list[int]:
    found = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", str(span))
    if not found:
        raise Malformed(f'{place}: hours {span!r}; write "09:00-12:00"')
    a, b, c, d = map(int, found.groups())
    return [a * 60 + b, c * 60 + d]


def _scaled(base: Data, spec: Data, place: str) -> Data:
    """A tier's rates: the base's by a factor, then classes with a price of their own, or kept at `standard`."""
    _known(spec, {*CLASSES, "factor", "aliases", "above"}, place)
    factor = spec.get("factor")

    def scaled(rates: Data) -> Data:
        made: Data = {}
        for name in CLASSES:
            if name in spec and spec[name] != "standard":
                own = spec[name]
                made[name] = own if own in (None, SAME) else price(own, f"{place}: {name}")
            elif name in rates:
                value = rates[name]
                if value in (None, SAME) or name in spec:
                    made[name] = value
                else:
                    made[name] = None if factor is None else times(value, price(factor, place))
        return made

    own_steps = spec.get("above")
    if own_steps == "standard":
        above = base["above"]
    elif isinstance(own_steps, list):
        above = _above(spec, place)
    else:
        above = [{**step, "rates": scaled_step(step["rates"], spec, place)} for step in base["above"]]
    windows = [{**window, "rates": scaled_step(window["rates"], spec, place)} for window in base["windows"]]
    return {"rates": scaled(base["rates"]), "above": above, "windows": windows}


def scaled_step(rates: Data, spec: Data, place: str) -> Data:
    """The rates of a context tier or time window under a tier: by its factor, kept classes kept."""
    factor = spec.get("factor")
    made: Data = {}
    for name, value in rates.items():
        if spec.get(name) == "standard" or value == SAME:
            made[name] = value
        elif factor is not None and value is not None:
            made[name] = times(value, price(factor, place))
        else:
            made[name] = None
    return made


def price(value: object, place: str) -> str:
    """A price or factor as exact text. Raises Malformed."""
    text = str(value)
    if isinstance(value, bool) or not _PRICE.match(text):
        raise Malformed(f'{place}: {value!r} is no price; write a decimal number of USD such as "2.50"')
    return text


def times(a: str, b: str) -> str:
    """An exact product."""
    return format(_EXACT.multiply(decimal.Decimal(a), decimal.Decimal(b)).normalize(_EXACT), "f")


def _instant(value: object, place: str) -> str:
    try:
        return when.canonical(str(value))
    except ValueError:
        raise Malformed(f"{place}: {value!r} is no time; write 2026-10-07T00:00:00Z") from None


def _known(given: Mapping[str, object], keys: set[str], place: str) -> None:
    if not isinstance(given, dict):
        raise Malformed(f"{place}: expected keys, found {given!r}")
    for key in given:
        if key not in keys:
            raise Malformed(f"{place}: unknown key {key!r}; nearest is {nearest(str(key), keys)!r}")


def nearest(word: str, known: set[str]) -> str:
    """The known word most like another."""
    import difflib

    found = difflib.get_close_matches(word, sorted(known), 1, 0)
    return found[0] if found else ""


def every_price(model: list[Data]) -> Iterator[tuple[str, str]]:
    """Class and price of everything a card holds, for checks over a whole catalogue."""
    for interval in model:
        for rates in interval["tiers"].values():
            for block in (rates, *rates["above"], *rates["windows"]):
                for name, value in block["rates"].items():
                    if value not in (None, SAME):
                        yield name, value
