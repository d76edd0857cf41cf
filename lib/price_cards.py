"""Compiles rate cards, from catalog/pricing and a user's overrides, to the form that `pricing` looks up.

A card is a model's list of intervals `[from, until)`. Relative values (a tier's factor, a provider's default) are
computed here, in exact decimals, so a lookup multiplies only by a geo factor.

Three values are special: null, not published (billed at the input rate, with a note); `same_as_input`, no discount; and
"0", free.
"""

from __future__ import annotations

import decimal
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from tokenops import catalog, show, when
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
# Applies if the model's name at a cloud says that the request stayed in a region.
REGIONAL = "regional"

# `correction` tells tok-price lint that a wrong past price was corrected.
_SAID = ("src", "confidence", "note", "scheduled", "correction")
_INTERVAL = (*CLASSES, *FEES, "from", "until", "above", "windows", "tiers", "geo", *_SAID)
_MODEL = ("prices", "aliases", "tiers", "geo", "retired", "note", *FEES)
_BODY = ("sources", "defaults", "models", "aliases", "unpriced", "holidays", "page")
_FILE = ("schema", "provider", "currency", "unit", *_BODY)
_OVERRIDE = ("schema", "currency", "unit", "providers")
_DEFAULTS = ("tiers", "geo", *FEES)
_PRICE = re.compile(r"\d{1,7}(?:\.\d{1,12})?\Z")
_EXACT = decimal.Context(prec=60, traps=[decimal.Inexact, decimal.InvalidOperation])


class Providers(Mapping[str, Data]):
    """Provider -> its cards, read when they are first asked for: most turns are of one or two of nineteen providers."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._bodies: dict[str, Data] = {}

    def __getitem__(self, name: str) -> Data:
        if name not in self._bodies:
            self._bodies[name] = orjson.loads(self._texts[name])
        body: Data = self._bodies[name]
        return body

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def compile_catalogue(parsed: Data, sources: Mapping[str, bytes], override: str) -> Data:
    """The catalogue as plain data, from files (name -> data) of which one is providers.yaml. Raises catalog.Malformed."""
    compiled = {}
    for name, data in parsed.items():
        try:
            if name == override:
                compiled[name] = compile_override(data)
            elif name != "providers.yaml":
                compiled[name] = compile_file(data)
        except Unusable as error:
            installed = name != override and not name.startswith("pricing")
            back = "; or go back with tok-price update --back" if installed else ""
            raise catalog.Malformed(f"{name}:{catalog.line_of(sources[name], error.keys)}: {error}{back}") from None
    overrides = compiled.pop(override, {})
    providers = parsed["providers.yaml"]
    return {
        "providers": {data["provider"]: orjson.dumps(data).decode() for data in compiled.values()},
        "clouds": providers["clouds"],
        "multiplexers": providers["multiplexers"],
        "reasons": {name: f"{name} sets its own prices; add an override" for name in providers["multiplexers"]}
        | providers.get("reasons", {}),
        "overrides": overrides,
    }


def compile_file(data: object) -> Data:
    """A file of the catalogue: one provider's cards. Raises Unusable."""
    document = _mapping(data, (), _FILE)
    provider = document.get("provider")
    if not isinstance(provider, str) or not provider:
        raise Unusable((), "`provider` is missing", "name who bills")
    _unit(document)
    return {"provider": provider, **_body(document, (), removable=False)}


def compile_override(data: object) -> dict[str, Data]:
    """A file of overrides: provider -> its cards; a model that was removed has none. Raises Unusable."""
    document = _mapping(data, (), _OVERRIDE)
    _unit(document)
    providers = _mapping({} if document.get("providers") is None else document["providers"], ("providers",))
    return {
        str(name).lower(): _body(_mapping(body, ("providers", name), _BODY), ("providers", name), removable=True)
        for name, body in providers.items()
    }


def _unit(document: Data) -> None:
    for key, only in (("currency", "USD"), ("unit", "per_million_tokens")):
        if document.get(key, only) != only:
            raise Unusable((key,), f"{document[key]!r} is not supported", "give prices in USD per million tokens")


def _body(body: Data, path: Place, removable: bool) -> Data:
    defaults = _mapping(body.get("defaults") or {}, (*path, "defaults"), _DEFAULTS)
    models: Data = {}
    aliases: Data = {}
    retired: Data = {}
    for model, card in _mapping(body.get("models") or {}, (*path, "models")).items():
        entry_path = (*path, "models", model)
        name = str(model).lower()
        if removable and isinstance(card, dict) and card.get("remove") is True:
            _mapping(card, entry_path, ("remove", "note"))
            models[name] = None
            continue
        models[name] = _card(_mapping(card, entry_path, _MODEL), defaults, entry_path)
        if "retired" in card:
            retired[name] = str(card["retired"])
        for alias in _list(card.get("aliases"), (*entry_path, "aliases")):
            aliases[str(alias).lower()] = [{"to": name}]
    for alias, targets in _mapping(body.get("aliases") or {}, (*path, "aliases")).items():
        entry_path = (*path, "aliases", alias)
        aliases[str(alias).lower()] = [
            _target(target, (*entry_path, n)) for n, target in enumerate(_list(targets, entry_path))
        ]
    return {
        "models": models,
        "aliases": aliases,
        "unpriced": {str(k).lower(): str(v) for k, v in _mapping(body.get("unpriced") or {}, (*path, "unpriced")).items()},
        "sources": body.get("sources") or {},
        "holidays": body.get("holidays") or {},
        "page": str(body.get("page") or ""),
        "retired": retired,
    }


def _target(entry: object, path: Place) -> Data:
    target = _mapping(entry, path, ("to", "from", "until", "note", "src"))
    if not isinstance(target.get("to"), str):
        raise Unusable(path, "`to` is missing", "name the model that the alias means")
    return {key: instant(value, (*path, key)) if key in ("from", "until") else value for key, value in target.items()} | {
        "to": target["to"].lower()
    }


def _card(card: Data, defaults: Data, path: Place) -> list[Data]:
    """One model's intervals, in order of time."""
    listed = _list(card.get("prices"), (*path, "prices"))
    if not listed:
        raise Unusable(path, "`prices` is missing", "give a list with at least one interval")
    intervals = []
    for n, interval in enumerate(listed):
        interval_path = (*path, "prices", n)
        intervals.append(_interval(_mapping(interval, interval_path, _INTERVAL), card, defaults, interval_path))
    intervals.sort(key=lambda interval: interval.get("from", ""))
    for earlier, later in itertools.pairwise(intervals):
        if earlier.get("until", "9") > later.get("from", ""):
            raise Unusable(
                (*path, "prices"),
                f"two intervals overlap at {later.get('from', 'the beginning')}; give the earlier an `until`",
            )
    return intervals


def _interval(row: Data, model: Data, defaults: Data, path: Place) -> Data:
    interval: Data = {key: instant(row[key], (*path, key)) for key in ("from", "until") if row.get(key)}
    if interval.get("from", "") >= interval.get("until", "9"):
        raise Unusable((*path, "until"), "`until` is not after `from`", "swap them")
    base: Data = {"rates": _rates(row, path), "above": _above(row, path), "windows": _windows(row, path)}
    if not isinstance(base["rates"].get("input"), str):
        raise Unusable(path, "`input` is missing", "every interval needs a price for it")
    interval["tiers"] = {"": base}
    for tier, spec in _together("tiers", defaults, model, row, path).items():
        entry_path = (*path, "tiers", tier)
        scaled = _scale(base, _mapping(spec, entry_path, (*CLASSES, "factor", "aliases", "above")), entry_path)
        for name in (tier, *_list(spec.get("aliases"), (*entry_path, "aliases"))):
            interval["tiers"][name] = scaled
    interval["geo"] = {
        key: price(value, (*path, "geo", key)) for key, value in _together("geo", defaults, model, row, path).items()
    }
    for fee in FEES:
        value = row.get(fee, model.get(fee, defaults.get(fee)))
        entry_path = (*path, fee)
        if isinstance(value, dict):
            interval[fee] = {
                size: price(cost, (*entry_path, size)) for size, cost in _mapping(value, entry_path, CONTEXTS).items()
            }
            if "low" not in interval[fee]:
                raise Unusable(
                    entry_path, "`low` is missing", "it is what a request without a recorded search context costs"
                )
        elif value is not None:
            interval[fee] = price(value, entry_path)
    return interval | {key: row[key] for key in _SAID if key in row}


def _together(key: str, defaults: Data, model: Data, interval: Data, path: Place) -> Data:
    """A provider's defaults, then the model's, then the interval's own; null removes one."""
    merged: Data = {}
    for block in (defaults, model, interval):
        merged |= _mapping(block.get(key) or {}, (*path, key))
    return {name: value for name, value in merged.items() if value is not None}


def _rates(row: Data, path: Place) -> Data:
    listed = {name: row[name] for name in CLASSES if name in row}
    return {name: value if value in (None, SAME) else price(value, (*path, name)) for name, value in listed.items()}


def _above(row: Data, path: Place) -> list[Data]:
    steps = []
    for n, entry in enumerate(_list(row.get("above"), (*path, "above"))):
        step_path = (*path, "above", n)
        step = _mapping(entry, step_path, (*CLASSES, "op", "tokens"))
        if step.get("op") not in ("gt", "ge") or not isinstance(step.get("tokens"), int):
            raise Unusable(step_path, "`above` needs `op: gt` or `op: ge`, and `tokens`, a whole number")
        steps.append({"op": step["op"], "tokens": step["tokens"], "rates": _rates(step, step_path)})
    if [step["tokens"] for step in steps] != sorted({step["tokens"] for step in steps}):
        raise Unusable((*path, "above"), "the steps of `above` are not ascending", "sort them by `tokens`")
    return steps


def _windows(row: Data, path: Place) -> list[Data]:
    windows = []
    for n, entry in enumerate(_list(row.get("windows"), (*path, "windows"))):
        window_path = (*path, "windows", n)
        window = _mapping(entry, window_path, (*CLASSES, "name", "tz", "days", "hours", "except", "from", "until"))
        try:
            when.zone(window.get("tz", "UTC"))
        except ValueError as error:
            raise Unusable((*window_path, "tz"), str(error)) from None
        days = _list(window.get("days"), (*window_path, "days")) or [1, 2, 3, 4, 5, 6, 7]
        if not set(days) <= {1, 2, 3, 4, 5, 6, 7}:
            raise Unusable((*window_path, "days"), "days are numbers from 1 (Monday) to 7")
        windows.append(
            {
                "name": window.get("name", f"window{n}"),
                "tz": window.get("tz", "UTC"),
                "days": days,
                "hours": [
                    _hours(span, (*window_path, "hours"))
                    for span in _list(window.get("hours"), window_path) or ["00:00-24:00"]
                ],
                "except": window.get("except", ""),
                "rates": _rates(window, window_path),
            }
            | {key: instant(window[key], (*window_path, key)) for key in ("from", "until") if window.get(key)}
        )
    return windows


def _hours(span: object, path: Place) -> list[int]:
    """First and last minute of the day, of `09:00-12:00`."""
    match = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", str(span))
    if match:
        a, b, c, d = map(int, match.groups())
        if 0 <= a * 60 + b < c * 60 + d <= 24 * 60:
            return [a * 60 + b, c * 60 + d]
    raise Unusable(path, f"{span!r} is not a span of hours", 'write "09:00-12:00"')


def _scale(base: Data, spec: Data, path: Place) -> Data:
    """A tier's rates: the base's by a factor, but a class with a price of its own has that, or keeps the `standard` one."""
    factor = None if spec.get("factor") is None else price(spec["factor"], (*path, "factor"))

    def scale_rates(rates: Data, own: bool) -> Data:
        scaled_rates: Data = {}
        for name in CLASSES:
            if own and name in spec and spec[name] != "standard":
                scaled_rates[name] = spec[name] if spec[name] in (None, SAME) else price(spec[name], (*path, name))
            elif name in rates:
                value = rates[name]
                if value in (None, SAME) or spec.get(name) == "standard":
                    scaled_rates[name] = value
                else:
                    scaled_rates[name] = None if factor is None else times(value, factor)
        return scaled_rates

    steps = spec.get("above")
    if steps == "standard":
        above = base["above"]
    elif isinstance(steps, list):
        above = _above(spec, path)
    else:
        above = [{**step, "rates": scale_rates(step["rates"], own=False)} for step in base["above"]]
    windows = [{**window, "rates": scale_rates(window["rates"], own=False)} for window in base["windows"]]
    return {"rates": scale_rates(base["rates"], own=True), "above": above, "windows": windows}


def price(value: object, path: Place) -> str:
    """A price or factor as exact text. Raises Unusable."""
    text = str(value)
    if isinstance(value, bool) or not _PRICE.match(text):
        raise Unusable(path, f"{value!r} is not a price", 'write a decimal number of USD such as "2.50"')
    return text


def times(a: str, b: str) -> str:
    """An exact product."""
    return format(_EXACT.multiply(decimal.Decimal(a), decimal.Decimal(b)).normalize(_EXACT), "f")


def instant(value: object, path: Place = ()) -> str:
    """A time in the form that the catalogue compares. Raises Unusable."""
    try:
        return when.canonical(str(value))
    except ValueError:
        raise Unusable(path, f"{value!r} is not a time", "write 2026-10-07T00:00:00Z") from None


def _mapping(value: object, path: Place, keys: Iterable[str] | None = None) -> Data:
    """A mapping, whose keys are all known. Raises Unusable."""
    if not isinstance(value, dict):
        raise Unusable(path, f"expected keys and values, found {value!r}")
    if keys is not None:
        expected = list(keys)
        for key in value:
            if key not in expected:
                nearest = show.nearest(str(key), expected)
                raise Unusable((*path, key), f"unknown key {key!r}", f"the nearest known is {nearest!r}")
    return value


def _list(value: object, path: Place) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unusable(path, f"expected a list, found {value!r}")
    return value


def every_price(card: list[Data]) -> Iterator[tuple[str, str]]:
    """Class and price of everything in a card, for checks of a whole catalogue."""
    for interval in card:
        for rates in interval["tiers"].values():
            for block in (rates, *rates["above"], *rates["windows"]):
                for name, value in block["rates"].items():
                    if value not in (None, SAME):
                        yield name, value
