"""Reads other tools' price tables, reduced to what can be compared (catalog/snapshots).

A table holds models of the providers that have a file in catalog/pricing, and prices per token, search or request:

    {"id": "gpt-5.4", "prices": [{"rates": {"input": "2.5", "input>272000": "5", "batch/input": "1.25"}}]}

A key is a class of the rate cards, with the tier before it and the step of the prompt's length behind it; `web_search`
and `request` (per thousand) may end in `.low`, `.medium`, `.high`, and `geo.us` is a factor. Of the prices that apply
by `from` and `hours` (UTC, on `days`) the last counts. `tiers` add missing keys from a day on.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import catalog, regular, when

Data = dict[str, Any]
SOURCES = ("litellm", "genai")
FOLDER = "snapshots"
# If fewer of the previous snapshot's models are left than this share, the table's format has changed.
_LEAST_SHARE = 0.7
_PRICE = re.compile(r"\d{1,9}(\.\d{1,15})?\Z")
_HEAD = ("package", "version", "captured", "file", "file_sha256", "license", "models_sha256", "left_out")


class SnapshotError(ValueError):
    """A snapshot that cannot be used or made: a sentence with the remedy."""


class Table(NamedTuple):
    """One engine's prices. `models`: provider -> models in the engine's own order, which decides what a name means."""

    source: str
    details: Data
    models: dict[str, list[Data]]

    @property
    def name(self) -> str:
        """Package and version."""
        return f"{self.details['package']} {self.details['version']}"


def path_of(folder: str, source: str) -> str:
    """The path of a snapshot in a catalogue."""
    return os.path.join(folder, FOLDER, f"{source}.json")


def load(folder: str, source: str) -> Table:
    """A snapshot of a catalogue. Raises SnapshotError, OSError."""
    path = path_of(folder, source)
    with open(path, "rb", opener=regular.opener) as file:
        return read(file.read(), source, path)


def read(text: bytes, source: str, path: str) -> Table:
    """A snapshot's text. Raises SnapshotError."""
    details: Data = {}
    models: dict[str, list[Data]] = {}
    try:
        data = orjson.loads(text)
        details, models = {name: data[name] for name in _HEAD}, data["models"]
        checksum = digest(models)
        why = "" if checksum == details["models_sha256"] else "its models do not match its checksum"
    except (ValueError, KeyError, TypeError) as error:
        why = f"it is not a snapshot ({type(error).__name__})"
    if why:
        raise SnapshotError(f"{path}: {why}; restore it, or run tok-price snapshot")
    return Table(source, details, models)


def digest(models: Mapping[str, Any]) -> str:
    """The checksum of some models, whatever the layout of the file."""
    return hashlib.sha256(orjson.dumps(models, option=orjson.OPT_SORT_KEYS)).hexdigest()


def text_of(details: Data, models: Mapping[str, list[Data]]) -> bytes:
    """A snapshot as a file, a model on each line, so that a change is a line of a diff."""
    head = {name: details[name] for name in _HEAD if name in details} | {"models_sha256": digest(models)}
    lines = [orjson.dumps({name: head[name]})[1:-1] for name in _HEAD if name in head]
    parts = []
    for provider in sorted(models):
        rows = b",\n".join(map(orjson.dumps, models[provider]))
        parts.append(orjson.dumps(provider) + b":[\n" + rows + b"\n]")
    return b"{\n" + b",\n".join([*lines, b'"models":{\n' + b",\n".join(parts) + b"\n}"]) + b"\n}\n"


def faults(models: Mapping[str, list[Data]], before: Table | None) -> Iterator[str]:
    """Why some models cannot become a snapshot."""
    for provider, rows in models.items():
        for row in rows:
            for key, value in _values(row):
                if not _PRICE.match(value):
                    yield f"{provider} {row['id']}: {key} is {value!r}, which is not a price"
        if before is None:
            continue
        names = {row["id"] for row in before.models.get(provider, ())}
        if names and len(names & {row["id"] for row in rows}) < _LEAST_SHARE * len(names):
            yield f"{provider}: most of its models are gone"
    if before is not None and (gone := before.models.keys() - models.keys()):
        yield f"no model is left of {', '.join(sorted(gone))}"


def _values(row: Data) -> Iterator[tuple[str, str]]:
    for price in (*row["prices"], *row.get("tiers", ())):
        yield from price["rates"].items()


def changes(before: Table, models: Mapping[str, list[Data]]) -> Iterator[tuple[str, str, str]]:
    """The changes of a table: provider, model, and a few words."""
    for provider in sorted(before.models.keys() | models.keys()):
        old = {row["id"]: row for row in before.models.get(provider, ())}
        new = {row["id"]: row for row in models.get(provider, ())}
        for name in sorted(old.keys() | new.keys()):
            if name not in new:
                yield provider, name, "gone"
            elif name not in old:
                yield provider, name, "new"
            elif old[name] != new[name]:
                yield (
                    provider,
                    name,
                    ", ".join(_price_differences(dict(_values(old[name])), dict(_values(new[name])))) or "otherwise",
                )


def _price_differences(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key} {old.get(key, 'none')} -> {new.get(key, 'none')}"


def find(table: Table, provider: str, name: str) -> Data | None:
    """The model that the engine finds for a name; None if it finds none."""
    rows = table.models.get(provider, ())
    if table.source == "litellm":  # exact keys
        return next((row for row in rows if row["id"] == name), None)
    return next((row for row in rows if matches(row["match"], name)), None)


def matches(clause: Mapping[str, Any], name: str) -> bool:
    """Whether a name fulfils a clause of genai-prices."""
    ((kind, expected),) = clause.items()
    if kind in ("or", "and"):
        return (any if kind == "or" else all)(matches(part, name) for part in expected)
    if kind == "regex":
        return bool(_compile(expected).search(name))
    if kind == "equals":
        return bool(name == expected)
    if kind in ("starts_with", "ends_with"):
        return name.startswith(expected) if kind == "starts_with" else name.endswith(expected)
    return kind == "contains" and expected in name


@functools.cache
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def rates_at(row: Data, ts: str) -> dict[str, str]:
    """What a model costs at a moment, as its engine reads the table."""
    chosen: dict[str, str] = row["prices"][0]["rates"]
    for price in row["prices"]:
        if price.get("from", "") <= ts and _is_within(price, ts):
            chosen = price["rates"]
    rates = dict(chosen)
    for price in row.get("tiers", ()):
        if price.get("from", "") <= ts:
            rates = price["rates"] | rates
    return rates


def _is_within(price: Data, ts: str) -> bool:
    """Whether a moment lies in the hours of a price; a price without hours always applies."""
    spans = price.get("windows")
    if not spans:
        return True
    at = when.local(when.moment(ts), when.UTC)
    minute = f"{at:%H:%M}"
    return any(
        at.isoweekday() in span.get("days", range(1, 8)) and any(first <= minute < last for first, last in span["hours"])
        for span in spans
    )


def moments(row: Data) -> Iterator[str]:
    """The days on which a model's price changes, as the engine dates it."""
    for price in row["prices"]:
        if "from" in price:
            yield price["from"]


def tables(folder: str = catalog.FOLDER) -> list[Table]:
    """All snapshots of a catalogue. Raises SnapshotError, OSError."""
    return [load(folder, source) for source in SOURCES]
