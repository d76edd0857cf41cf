"""The catalogue's price files as texts: where they are read from, and what a finding about one of them says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import catalog, price_cards

Data = dict[str, Any]
Texts = Mapping[str, bytes]
REFUSED, HELD = "refused", "held"


class Fault(NamedTuple):
    """What is wrong with a row: refused (no price is like that), or held until a person has said why (`note:`)."""

    level: str
    place: str  # file:line
    provider: str
    model: str
    what: str

    def row(self) -> Data:
        """The same as a record for programs."""
        return {"v": 1, "kind": "price_fault"} | {name: value for name, value in self._asdict().items() if value}


class Book(NamedTuple):
    """One provider's file: its text, the data in it, and what compiling made of that."""

    name: str
    text: bytes
    raw: Data
    body: Data

    @property
    def provider(self) -> str:
        """Who bills."""
        return str(self.body["provider"])

    def place(self, *keys: str | int) -> str:
        """Where an entry stands, as file:line."""
        return f"{self.name}:{catalog.line_of(self.text, keys)}"

    def interval(self, model: str, begins: str) -> str:
        """Where the interval of a model stands that begins then."""
        given = next((name for name in self.raw.get("models") or {} if str(name).lower() == model), model)
        listed = (self.raw["models"].get(given) or {}).get("prices") or []
        starts = [price_cards.instant(one["from"]) if one.get("from") else "" for one in listed]
        at = starts.index(begins) if begins in starts else 0
        return self.place("models", given, "prices", at)

    def fault(self, level: str, model: str, begins: str, what: str) -> Fault:
        """A fault of one interval."""
        return Fault(level, self.interval(model, begins), self.provider, model, what)

    def rows(self) -> Iterator[tuple[str, Data, dict[str, Decimal]]]:
        """Each interval of each model, with its standard prices."""
        for model, card in self.body["models"].items():
            for interval in card:
                yield model, interval, rates_of(interval)


def rates_of(interval: Data) -> dict[str, Decimal]:
    """The standard prices of an interval that are numbers, or known to be the input's."""
    rates = interval["tiers"][""]["rates"]
    return {
        name: Decimal(rates["input"] if value == price_cards.SAME else value)
        for name, value in rates.items()
        if value is not None
    }


def texts(folder: str = catalog.FOLDER) -> dict[str, bytes]:
    """The files that prices are made of, by name; the built-in providers.yaml where the folder has none of its own."""
    found = catalog.sources("pricing/*.yaml", folder)
    return found | (catalog.sources("providers.yaml", folder) or catalog.sources("providers.yaml"))


def texts_at(folder: str, revision: str) -> dict[str, bytes] | None:
    """The same as they stood in a revision of git; None where git knows no such revision of the folder."""
    listed = _git(folder, "ls-tree", "-r", "--name-only", revision, "pricing", "providers.yaml")
    if not listed:
        return None
    return {name: _git(folder, "show", f"{revision}:./{name}") or b"" for name in listed.decode().splitlines()}


def _git(folder: str, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", os.path.realpath(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def books(given: Texts) -> tuple[list[Book], list[Fault]]:
    """The files that can be compiled, and why the others cannot."""
    made: list[Book] = []
    faults: list[Fault] = []
    for name, text in given.items():
        if not name.startswith("pricing"):
            continue
        try:
            raw = catalog.parse(text, name)
            made.append(Book(name, text, raw, price_cards.compile_file(raw)))
        except catalog.Malformed as error:
            place, _, why = str(error).partition(": ")
            faults.append(Fault(REFUSED, place, "", "", why))
        except price_cards.Wrong as wrong:
            line = catalog.line_of(text, wrong.place)
            where = ".".join(map(str, wrong.place))
            faults.append(Fault(REFUSED, f"{name}:{line}", "", "", f"{where + ': ' if where else ''}{wrong.why}"))
    return made, faults


def is_catalogue(folder: str) -> bool:
    """Whether a folder holds price files."""
    return os.path.isdir(os.path.join(folder, "pricing"))
