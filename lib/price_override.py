"""Writes a template for a user's own prices, and shows what such a file changes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import catalog, pricing, show
from tokenops.events import Event

Data = dict[str, Any]


class RecordedName(NamedTuple):
    """The fields that a price is looked up by, as turns recorded them."""

    provider: str
    model: str
    request_model: str


def template(unpriced: Iterable[tuple[str, str]] = ()) -> str:
    """A commented file of overrides, with a place for each model that has no price."""
    with open(os.path.join(catalog.FOLDER, "override.yaml"), encoding="utf-8") as file:
        text = file.read()
    by_provider: dict[str, list[str]] = {}
    for provider, model in sorted(unpriced):
        by_provider.setdefault(provider or "*", []).append(model)
    lines = ["  # Recorded models without a price. Fill in what you pay, and remove the #:\n"] if by_provider else []
    for provider, models in by_provider.items():
        lines.append(f"  # {_quote(provider)}:\n  #   models:\n")
        lines += [f'  #     {_quote(name)}: {{prices: [{{input: "", cache_read: "", output: ""}}]}}\n' for name in models]
    return text + "".join(lines)


def _quote(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def recorded_names(lines: Iterable[bytes]) -> dict[RecordedName, int]:
    """The names that turns were recorded under, each with its number of turns."""
    turns: dict[RecordedName, int] = {}
    for line in lines:
        event = orjson.loads(line)
        if event.get("kind") == "turn" or event.get("covers") == "session":
            key = RecordedName(event.get("provider", ""), event.get("model", ""), event.get("request_model", ""))
            turns[key] = turns.get(key, 0) + event.get("turns", 0)
    return turns


def unpriced_models(catalogue: pricing.Catalogue, names: Iterable[RecordedName]) -> set[tuple[str, str]]:
    """Provider and model of each recorded name without a price."""
    missing = (name for name in names if name.model and isinstance(catalogue.find(*name), pricing.Unpriced))
    return {(name.provider, name.model) for name in missing if name.model != "unknown"}


def rows(catalogue: pricing.Catalogue, plain: pricing.Catalogue, turns: Mapping[RecordedName, int]) -> Iterator[Data]:
    """A row for each entry of an override: what it replaces or adds, and the recorded models that it prices.

    `plain` is the same catalogue without the override.
    """
    priced = dict(_priced_by_entry(catalogue, plain, turns))
    for provider, body in catalogue.overrides.items():
        for model, card in body["models"].items():
            effect = "removes" if card is None else "adds"
            replaced = _built_in(plain, provider, model)
            if replaced and card is not None:
                effect = "replaces"
            row = _row(provider, model, effect, replaced, priced.get((provider, model), []))
            if card is not None:
                row["prices"] = [_interval(interval) for interval in card]
            yield row
        for alias, targets in body["aliases"].items():
            row = _row(provider, alias, "alias", _built_in(plain, provider, alias), priced.get((provider, alias), []))
            yield row | {"to": [target["to"] for target in targets]}


def _row(provider: str, model: str, effect: str, replaced: str, turned: list[Event]) -> Data:
    row: Data = {"v": 1, "kind": "override", "provider": provider, "model": model, "effect": effect}
    row |= {"replaces": replaced} if replaced else {}
    return row | {"recorded": turned, "turns": sum(model_row["turns"] for model_row in turned)}


def _interval(compiled: Data) -> Data:
    rates: Data = compiled["tiers"][""]["rates"]
    return {name: compiled[name] for name in ("from", "until") if compiled.get(name)} | rates


def _built_in(plain: pricing.Catalogue, provider: str, model: str) -> str:
    """The built-in row that an entry replaces; "" if there is none, or the entry is a pattern."""
    lookup = plain.find(provider, model) if provider != "*" and "*" not in model else None
    return lookup.name if isinstance(lookup, pricing.Lookup) else ""


def _priced_by_entry(
    catalogue: pricing.Catalogue, plain: pricing.Catalogue, turns_by_name: Mapping[RecordedName, int]
) -> Iterator[tuple[tuple[str, str], list[Event]]]:
    """Provider and name of each entry that is used, and the recorded models that it prices."""
    used: dict[tuple[str, str], list[Event]] = {}
    for name, turns in sorted(turns_by_name.items()):
        key = entry_of(catalogue, name)
        if key is not None:
            before = plain.find(*name)
            was = before.reason if isinstance(before, pricing.Unpriced) else before.name
            entry = {name: value for name, value in name._asdict().items() if value} | {"turns": turns, "before": was}
            used.setdefault(key, []).append(entry)
    yield from used.items()


def entry_of(catalogue: pricing.Catalogue, name: RecordedName) -> tuple[str, str] | None:
    """The entry of the overrides that a recorded name uses; None if it uses none."""
    lookup = catalogue.find(*name)
    if isinstance(lookup, pricing.Lookup):
        kind, _, rest = lookup.name.partition("/")
        owner, _, model = rest.partition("/")
        return (owner, model) if kind == "override" else None
    words = lookup.reason.removesuffix(" is removed by your override").split(" ", 1)
    return (words[0], words[1]) if lookup.reason.endswith("your override") and len(words) == 2 else None


def table(rows: list[Data], shape: str, color: bool, verbose: bool = False) -> str:
    """The rows for people."""
    ranks = {"provider": 2, "model": 0, "effect": 0}
    columns = [show.Column(name, [row[name] for row in rows], False, ranks[name]) for name in ranks]
    columns.append(show.Column("in place of", [row.get("replaces", "") for row in rows], False, 3))
    columns.append(show.counts("turns", [row["turns"] for row in rows]))
    used = [", ".join(sorted({recorded["model"] for recorded in row["recorded"] if recorded.get("model")})) for row in rows]
    columns.append(show.Column("recorded models", used, False, 4))
    return show.table(columns, shape, color=color)
