"""A user's own prices: a file to begin with, and what such a file does to what was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import catalog, pricing, show
from tokenops.events import Event

Data = dict[str, Any]


class RecordedName(NamedTuple):
    """What a price is looked up by, as turns recorded it."""

    provider: str
    model: str
    request_model: str


def template(unpriced: Iterable[tuple[str, str]] = ()) -> str:
    """A commented file of overrides, with a place for each model that has no price."""
    with open(os.path.join(catalog.FOLDER, "override.yaml"), encoding="utf-8") as file:
        text = file.read()
    wanted: dict[str, list[str]] = {}
    for provider, model in sorted(unpriced):
        wanted.setdefault(provider or "*", []).append(model)
    lines = ["  # Recorded, and without a price. Fill in what you pay, and take the # away:\n"] if wanted else []
    for provider, models in wanted.items():
        lines.append(f"  # {_quoted(provider)}:\n  #   models:\n")
        lines += [f'  #     {_quoted(name)}: {{prices: [{{input: "", cache_read: "", output: ""}}]}}\n' for name in models]
    return text + "".join(lines)


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def recorded_names(lines: Iterable[bytes]) -> dict[RecordedName, int]:
    """Under which names turns were recorded, and how many."""
    found: dict[RecordedName, int] = {}
    for line in lines:
        event = orjson.loads(line)
        if event.get("kind") == "turn" or event.get("covers") == "session":
            key = RecordedName(event.get("provider", ""), event.get("model", ""), event.get("request_model", ""))
            found[key] = found.get(key, 0) + event.get("turns", 0)
    return found


def unpriced_models(catalogue: pricing.Catalogue, known: Iterable[RecordedName]) -> set[tuple[str, str]]:
    """Provider and model of what has no price."""
    missing = (one for one in known if one.model and isinstance(catalogue.find(*one), pricing.Unpriced))
    return {(one.provider, one.model) for one in missing if one.model != "unknown"}


def rows(catalogue: pricing.Catalogue, known: Mapping[RecordedName, int]) -> Iterator[Data]:
    """A row for each entry of an override: what it replaces or adds, and the recorded models that it prices."""
    plain = pricing.load()
    priced = dict(_priced(catalogue, plain, known))
    for provider, body in catalogue.overrides.items():
        for model, card in body["models"].items():
            effect = "removes" if card is None else "adds"
            replaced = _built_in(plain, provider, model)
            if replaced and card is not None:
                effect = "replaces"
            made = _row(provider, model, effect, replaced, priced.get((provider, model), []))
            if card is not None:
                made["prices"] = [_interval(one) for one in card]
            yield made
        for alias, targets in body["aliases"].items():
            made = _row(provider, alias, "alias", _built_in(plain, provider, alias), priced.get((provider, alias), []))
            yield made | {"to": [target["to"] for target in targets]}


def _row(provider: str, model: str, effect: str, replaced: str, turned: list[Event]) -> Data:
    made: Data = {"v": 1, "kind": "override", "provider": provider, "model": model, "effect": effect}
    made |= {"replaces": replaced} if replaced else {}
    return made | {"recorded": turned, "turns": sum(one["turns"] for one in turned)}


def _interval(given: Data) -> Data:
    rates: Data = given["tiers"][""]["rates"]
    return {name: given[name] for name in ("from", "until") if given.get(name)} | rates


def _built_in(plain: pricing.Catalogue, provider: str, model: str) -> str:
    """The built-in row that an entry stands in front of; "" where there is none, or many may be meant."""
    found = plain.find(provider, model) if provider != "*" and "*" not in model else None
    return found.name if isinstance(found, pricing.Lookup) else ""


def _priced(
    catalogue: pricing.Catalogue, plain: pricing.Catalogue, known: Mapping[RecordedName, int]
) -> Iterator[tuple[tuple[str, str], list[Event]]]:
    """Provider and name of each entry that is used, and the recorded models that it prices."""
    used: dict[tuple[str, str], list[Event]] = {}
    for one, turns in sorted(known.items()):
        key = entry_of(catalogue, one)
        if key is not None:
            before = plain.find(*one)
            was = before.reason if isinstance(before, pricing.Unpriced) else before.name
            told = {name: value for name, value in one._asdict().items() if value} | {"turns": turns, "before": was}
            used.setdefault(key, []).append(told)
    yield from used.items()


def entry_of(catalogue: pricing.Catalogue, one: RecordedName) -> tuple[str, str] | None:
    """Which entry of the overrides a recorded name uses; None for none."""
    found = catalogue.find(*one)
    if isinstance(found, pricing.Lookup):
        kind, _, rest = found.name.partition("/")
        owner, _, name = rest.partition("/")
        return (owner, name) if kind == "override" else None
    words = found.reason.removesuffix(" is removed by your override").split(" ", 1)
    return (words[0], words[1]) if found.reason.endswith("your override") and len(words) == 2 else None


def table(rows: list[Data], shape: str, color: bool) -> str:
    """The rows for people."""
    columns = [show.Column(name, [row[name] for row in rows], number=False) for name in ("provider", "model", "effect")]
    columns.append(show.Column("in place of", [row.get("replaces", "") for row in rows], number=False))
    columns.append(show.Column("turns", [show.count(row["turns"]) for row in rows]))
    used = [", ".join(sorted({one["model"] for one in row["recorded"] if one.get("model")})) for row in rows]
    columns.append(show.Column("recorded models", used, number=False))
    return show.table(columns, shape, color=color)
