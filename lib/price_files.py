"""Reads the catalogue's price files as text, finds the line of an entry, and adds lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import catalog, price_cards, programs
from tokenops.config import Unusable

Data = dict[str, Any]
Texts = Mapping[str, bytes]
REFUSED, HELD = "refused", "held"


class Fault(NamedTuple):
    """A problem of a row: refused (no price can be like that), or held until a person explains it (`note:`)."""

    level: str
    location: str  # file:line
    provider: str
    model: str
    what: str

    def row(self) -> Data:
        """The same as a record for programs."""
        names = ("level", "place", "provider", "model", "what")
        return {"v": 1, "kind": "price_fault"} | {name: value for name, value in zip(names, self, strict=True) if value}


class Book(NamedTuple):
    """One provider's file: its text, its data, and the compiled cards."""

    name: str
    text: bytes
    raw: Data
    body: Data

    @property
    def provider(self) -> str:
        """Who bills."""
        return str(self.body["provider"])

    def location(self, *keys: str | int) -> str:
        """The location of an entry, as file:line."""
        return f"{self.name}:{catalog.line_of(self.text, keys)}"

    def interval(self, model: str, begins: str) -> str:
        """The location of a model's interval, by its beginning."""
        spelling = next((name for name in self.raw.get("models") or {} if str(name).lower() == model), model)
        listed = (self.raw["models"].get(spelling) or {}).get("prices") or []
        starts = [price_cards.instant(row["from"]) if row.get("from") else "" for row in listed]
        at = starts.index(begins) if begins in starts else 0
        return self.location("models", spelling, "prices", at)

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
    """The files that prices are made of, by name; the built-in providers.yaml if the folder has none."""
    prices = catalog.sources("pricing/*.yaml", folder)
    return prices | (catalog.sources("providers.yaml", folder) or catalog.sources("providers.yaml"))


def texts_at(folder: str, revision: str) -> dict[str, bytes] | None:
    """The same files in a revision of git; None if git has no such revision of the folder."""
    listed = _git(folder, "ls-tree", "-r", "--name-only", revision, "pricing", "providers.yaml")
    if not listed:
        return None
    return {name: _git(folder, "show", f"{revision}:./{name}") or b"" for name in listed.decode().splitlines()}


def _git(folder: str, *arguments: str) -> bytes | None:
    try:
        ended = programs.run(["git", "-C", os.path.realpath(folder), *arguments], 20)
    except OSError:
        return None
    return ended.out if ended.status == 0 else None


def books(texts: Texts) -> tuple[list[Book], list[Fault]]:
    """The files that can be compiled, and the problems of the others."""
    compiled: list[Book] = []
    faults: list[Fault] = []
    for name, text in texts.items():
        if name == "providers.yaml":
            continue
        try:
            raw = catalog.parse(text, name)
            compiled.append(Book(name, text, raw, price_cards.compile_file(raw)))
        except catalog.Malformed as error:
            location, _, why = str(error).partition(": ")
            faults.append(Fault(REFUSED, location, "", "", why))
        except Unusable as error:
            line = catalog.line_of(text, error.keys)
            faults.append(Fault(REFUSED, f"{name}:{line}", "", "", f"{error}"))
    return compiled, faults


def is_catalogue(folder: str) -> bool:
    """Whether a folder holds price files."""
    return os.path.isdir(os.path.join(folder, "pricing"))


_ITEM = re.compile(r"( +)- ")
_KEY = re.compile(r" *(?:- )?([\w.]+): ?(.*)")
# Keys that a new interval does not copy from the one before it.
_OWN = ("from", "until", "scheduled", "note", "correction", "src", "confidence")


class ByHand(ValueError):
    """An edit that a person has to make: a sentence."""


def append_interval(
    text: str, model: str, begins: str, changes: Mapping[str, str], src: Sequence[str], confidence: str, note: str = ""
) -> str:
    """A file's text with a model's last interval closed and another one after it. Raises ByHand.

    `changes`: class -> price, or class>tokens -> price above a step that is there.
    """
    lines = text.splitlines(keepends=True)
    first, last = _last_interval(lines, model)
    old = lines[first:last]
    indent = " " * (len(old[0]) - len(old[0].lstrip()))
    inner = f"{indent}  "
    kept = [line for line in _flat(old) if _key(line) not in _OWN]
    for field, value in changes.items():
        kept = _set(kept, field, value, inner)
    new = [f"{indent}- from: {begins}\n", *kept, f"{inner}src: [{', '.join(src)}]\n", f"{inner}confidence: {confidence}\n"]
    if note:
        new.append(f"{inner}note: {quote(note)}\n")
    return "".join([*lines[:first], *_close_interval(old, begins, indent), *new, *lines[last:]])


def _last_interval(lines: list[str], model: str) -> tuple[int, int]:
    """First line and end of a model's last interval."""
    at = _line_of(lines, f"  {_yaml_name(model)}:")
    end = next((n for n in range(at + 1, len(lines)) if re.match(r" {0,2}[^\s#]", lines[n])), len(lines))
    prices = next((n for n in range(at + 1, end) if lines[n].rstrip() == "    prices:"), end)
    items = [n for n in range(prices + 1, end) if _ITEM.match(lines[n]) and _ITEM.match(lines[n])[1] == "      "]  # type: ignore[index]
    if not items or "{" in lines[items[-1]].split("#")[0]:
        raise ByHand(f"{model}: its prices are laid out in another way; append the interval by hand")
    while end > items[-1] + 1 and not lines[end - 1].strip():
        end -= 1
    return items[-1], end


def _line_of(lines: list[str], start: str) -> int:
    numbers = [n for n, line in enumerate(lines) if line.rstrip() == start]
    if len(numbers) != 1:
        raise ByHand(f"{start.strip(' :')}: it appears {len(numbers)} times in the file; edit it by hand")
    return numbers[0]


def _yaml_name(name: str) -> str:
    """A name in the form of the files."""
    return name if re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) else f'"{name}"'


def quote(text: str) -> str:
    """A text as YAML, in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _flat(item: list[str]) -> list[str]:
    """The lines of an interval, with the first key indented like the others."""
    return [item[0].replace("- ", "  ", 1), *item[1:]]


def _key(line: str) -> str:
    match = _KEY.match(line)
    return match[1] if match else ""


def _close_interval(old: list[str], until: str, indent: str) -> list[str]:
    """An interval's lines with an end."""
    flat = [line for line in _flat(old) if _key(line) != "until"]
    at = 1 if _key(flat[0]) == "from" else 0
    lines = [*flat[:at], f"{indent}  until: {until}\n", *flat[at:]]
    lines[0] = f"{indent}- {lines[0].lstrip()}"
    return lines


def _set(lines: list[str], field: str, value: str, inner: str) -> list[str]:
    """The lines with a new price of a class, or of a class above a step."""
    name, _, step = field.partition(">")
    if not step:
        at = next((n for n, line in enumerate(lines) if _key(line) == name and line.startswith(f"{inner}{name}:")), None)
        new = f'{inner}{name}: "{value}"\n'
        if at is not None:
            return [*lines[:at], new, *lines[at + 1 :]]
        ranks = {class_: n for n, class_ in enumerate(price_cards.CLASSES)}
        later = (
            n for n, line in enumerate(lines) if ranks.get(_key(line), 99) > ranks[name] and line.startswith(f"{inner}")
        )
        end = next(later, len(lines))
        return [*lines[:end], new, *lines[end:]]
    at = next((n for n, line in enumerate(lines) if f"tokens: {step}," in line and "{op:" in line), None)
    if at is None:
        raise ByHand(f"a step at {step} tokens is new here; add it by hand")
    match = re.search(rf'\b{name}: "[^"]*"', lines[at])
    line = (
        lines[at].replace(match[0], f'{name}: "{value}"') if match else lines[at].replace("}", f', {name}: "{value}"}}', 1)
    )
    return [*lines[:at], line, *lines[at + 1 :]]


def with_model(
    text: str,
    model: str,
    rates: Mapping[str, str],
    steps: Mapping[int, Mapping[str, str]],
    src: Sequence[str],
    confidence: str,
    more: Sequence[str] = (),
    op: str = "gt",
) -> str:
    """A file's text with a model at the end of `models:`. `more`: lines of the model's own keys. Raises ByHand."""
    lines = text.splitlines(keepends=True)
    start = _line_of(lines, "models:")
    end = next((n for n in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[n])), len(lines))
    new = [f"  {_yaml_name(model)}:\n", *(f"    {line}\n" for line in more), "    prices:\n"]
    classes = [name for name in price_cards.CLASSES if name in rates]
    for at, name in enumerate(classes):
        value = rates[name] if rates[name] == price_cards.SAME else f'"{rates[name]}"'
        new.append(f"      {'-' if at == 0 else ' '} {name}: {value}\n")
    if steps:
        new.append("        above:\n")
    for tokens, prices in sorted(steps.items()):
        shown = "".join(f', {name}: "{prices[name]}"' for name in price_cards.CLASSES if name in prices)
        new.append(f"          - {{op: {op}, tokens: {tokens}{shown}}}\n")
    new += [f"        src: [{', '.join(src)}]\n", f"        confidence: {confidence}\n"]
    return "".join([*lines[:end], *new, *lines[end:]])


def with_source(text: str, key: str, url: str, captured: str, kind: str) -> str:
    """A file's text with one more source. Raises ByHand."""
    lines = text.splitlines(keepends=True)
    start = _line_of(lines, "sources:")
    if any(line.startswith(f"  {key}:") for line in lines):
        return text
    end = next(n for n in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[n]))
    line = f"  {key}: {{url: {quote(url)}, captured: {captured}, kind: {quote(kind)}}}\n"
    return "".join([*lines[:end], line, *lines[end:]])


def with_alias(text: str, alias: str, model: str) -> str:
    """A file's text with one more alias of a model. Raises ByHand."""
    lines = text.splitlines(keepends=True)
    start = _line_of(lines, "aliases:")
    end = next((n for n in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[n])), len(lines))
    return "".join([*lines[:end], f"  {_yaml_name(alias)}:\n", f"    - {{to: {_yaml_name(model)}}}\n", *lines[end:]])
