"""Edits of a price file's text that leave everything else as it stands: an interval appended, a model or a source added.

Files are edited line by line in the catalogue's own layout (a key on each line); what is laid out otherwise is left to a
person. Whoever edits looks at the result with `price_lint` before it goes anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tokenops import price_cards

_ITEM = re.compile(r"( +)- ")
_KEY = re.compile(r" *(?:- )?([\w.]+): ?(.*)")
# What a new interval does not take over from the one before it.
_OWN = ("from", "until", "scheduled", "note", "correction", "src", "confidence")


class ByHand(ValueError):
    """An edit that only a person can make: a sentence."""


def appended(
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
        new.append(f"{inner}note: {quoted(note)}\n")
    return "".join([*lines[:first], *_closed(old, begins, indent), *new, *lines[last:]])


def _last_interval(lines: list[str], model: str) -> tuple[int, int]:
    """From which line to which a model's last interval stands."""
    at = _line_of(lines, f"  {_written(model)}:")
    end = next((n for n in range(at + 1, len(lines)) if re.match(r" {0,2}[^\s#]", lines[n])), len(lines))
    prices = next((n for n in range(at + 1, end) if lines[n].rstrip() == "    prices:"), end)
    items = [n for n in range(prices + 1, end) if _ITEM.match(lines[n]) and _ITEM.match(lines[n])[1] == "      "]  # type: ignore[index]
    if not items or "{" in lines[items[-1]].split("#")[0]:
        raise ByHand(f"{model}: its prices are laid out in another way; append the interval by hand")
    while end > items[-1] + 1 and not lines[end - 1].strip():
        end -= 1
    return items[-1], end


def _line_of(lines: list[str], start: str) -> int:
    found = [n for n, line in enumerate(lines) if line.rstrip() == start]
    if len(found) != 1:
        raise ByHand(f"{start.strip(' :')}: it stands {len(found)} times in the file; edit it by hand")
    return found[0]


def _written(name: str) -> str:
    """A name as the files write it."""
    return name if re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) else f'"{name}"'


def quoted(text: str) -> str:
    """A text as YAML, in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _flat(item: list[str]) -> list[str]:
    """The lines of an interval, its first key like the others."""
    return [item[0].replace("- ", "  ", 1), *item[1:]]


def _key(line: str) -> str:
    found = _KEY.match(line)
    return found[1] if found else ""


def _closed(old: list[str], until: str, indent: str) -> list[str]:
    """An interval's lines with an end."""
    flat = [line for line in _flat(old) if _key(line) != "until"]
    at = 1 if _key(flat[0]) == "from" else 0
    made = [*flat[:at], f"{indent}  until: {until}\n", *flat[at:]]
    made[0] = f"{indent}- {made[0].lstrip()}"
    return made


def _set(lines: list[str], field: str, value: str, inner: str) -> list[str]:
    """Lines with the price of a class, or of a class above a step, set."""
    name, _, step = field.partition(">")
    if not step:
        at = next((n for n, line in enumerate(lines) if _key(line) == name and line.startswith(f"{inner}{name}:")), None)
        new = f'{inner}{name}: "{value}"\n'
        if at is not None:
            return [*lines[:at], new, *lines[at + 1 :]]
        ranks = {one: n for n, one in enumerate(price_cards.CLASSES)}
        later = (
            n for n, line in enumerate(lines) if ranks.get(_key(line), 99) > ranks[name] and line.startswith(f"{inner}")
        )
        place = next(later, len(lines))
        return [*lines[:place], new, *lines[place:]]
    at = next((n for n, line in enumerate(lines) if f"tokens: {step}," in line and "{op:" in line), None)
    if at is None:
        raise ByHand(f"a step at {step} tokens is new here; add it by hand")
    found = re.search(rf'\b{name}: "[^"]*"', lines[at])
    line = (
        lines[at].replace(found[0], f'{name}: "{value}"') if found else lines[at].replace("}", f', {name}: "{value}"}}', 1)
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
    made = [f"  {_written(model)}:\n", *(f"    {line}\n" for line in more), "    prices:\n"]
    classes = [name for name in price_cards.CLASSES if name in rates]
    for at, name in enumerate(classes):
        value = rates[name] if rates[name] == price_cards.SAME else f'"{rates[name]}"'
        made.append(f"      {'-' if at == 0 else ' '} {name}: {value}\n")
    if steps:
        made.append("        above:\n")
    for tokens, prices in sorted(steps.items()):
        shown = "".join(f', {name}: "{prices[name]}"' for name in price_cards.CLASSES if name in prices)
        made.append(f"          - {{op: {op}, tokens: {tokens}{shown}}}\n")
    made += [f"        src: [{', '.join(src)}]\n", f"        confidence: {confidence}\n"]
    return "".join([*lines[:end], *made, *lines[end:]])


def with_source(text: str, key: str, url: str, captured: str, kind: str) -> str:
    """A file's text with one more source. Raises ByHand."""
    lines = text.splitlines(keepends=True)
    start = _line_of(lines, "sources:")
    if any(line.startswith(f"  {key}:") for line in lines):
        return text
    end = next(n for n in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[n]))
    line = f"  {key}: {{url: {quoted(url)}, captured: {captured}, kind: {quoted(kind)}}}\n"
    return "".join([*lines[:end], line, *lines[end:]])


def with_alias(text: str, alias: str, model: str) -> str:
    """A file's text with one more alias of a model. Raises ByHand."""
    lines = text.splitlines(keepends=True)
    start = _line_of(lines, "aliases:")
    end = next((n for n in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[n])), len(lines))
    return "".join([*lines[:end], f"  {_written(alias)}:\n", f"    - {{to: {_written(model)}}}\n", *lines[end:]])
