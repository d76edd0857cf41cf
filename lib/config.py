"""The user's configuration: `$XDG_CONFIG_HOME/tokenops/config.yaml`, and the environment before it.

Keys of the original TokenOps keep their names and meaning. An unknown key is a warning that names the nearest known one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tokenops import cards, catalog, home

Data = dict[str, Any]

# Known keys; {} below a key: its own keys are the user's (names of providers, clients, KPIs).
KNOWN: Data = {
    "pricing": {"path": None},
    "providers": {},
    "plans": {},
    "thresholds": {},
    "proxy": {
        "cache": {"enabled": None, "ttl_s": None, "entries": None, "entry_bytes": None, "bytes": None},
        "include_usage": None,
        "routes": {},
    },
}
# Environment variables that come before the file.
ENVIRONMENT = {"TOKENOPS_PRICING_PATH": ("pricing", "path")}


class Config(NamedTuple):
    """What the file says, where it stands, and what in it is not understood."""

    data: Data
    path: str
    warnings: list[str]

    def get(self, *keys: str) -> Any:
        """The value below these keys, or None."""
        found: Any = self.data
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found


def path_of(environment: Mapping[str, str], home: str) -> str:
    """Where the file is looked for."""
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return os.path.join(base, "tokenops", "config.yaml")


def load(environment: Mapping[str, str], home: str) -> Config:
    """The configuration; empty where there is no file. Raises catalog.Malformed, OSError."""
    path = path_of(environment, home)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return Config({}, path, [])
    data, _ = catalog.compiled("config", {path: text}, lambda parsed: parsed[path])
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise catalog.Malformed(f"{path}:1: expected keys and values; see docs/config.md")
    return Config(data, path, [f"{path}:{catalog.line_of(text, place)}: {why}" for place, why in unknown(data, KNOWN, ())])


def unknown(data: Mapping[str, Any], known: Data, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys nobody knows, with their places and a sentence."""
    for key, value in data.items():
        if key not in known:
            nearest = cards.nearest(str(key), known)
            yield (*place, str(key)), f"unknown key {key!r} is ignored; the nearest known is {nearest!r}"
        elif known[key] and isinstance(value, dict):
            yield from unknown(value, known[key], (*place, key))


def pricing_path(config: Config, environment: Mapping[str, str]) -> str:
    """The file of the user's own prices, or ""; a path in the file is relative to it."""
    given = environment.get("TOKENOPS_PRICING_PATH")
    if given:
        return os.path.expanduser(given)
    given = config.get("pricing", "path")
    return os.path.join(os.path.dirname(config.path), os.path.expanduser(str(given))) if given else ""


class Unchangeable(ValueError):
    """A file that only a person can change without losing what else is in it."""


def change(config: Config, section: str, key: str, value: Any) -> None:
    """Set a key of a section in the file, or (None) take it out; what else is there stays as it is, comments too.

    Raises Unchangeable, OSError.
    """
    try:
        with open(config.path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    try:
        made = edited(text, section, key, value)
    except Unchangeable as error:
        raise Unchangeable(f"{config.path}: {error}") from None
    if made != text:
        os.makedirs(os.path.dirname(config.path), exist_ok=True)
        home.replace(config.path, made.encode())


def edited(text: str, section: str, key: str, value: Any) -> str:
    """A file's text with a key of a section set, or (None) taken out. Raises Unchangeable."""
    import yaml

    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    start = next((n for n, line in enumerate(lines) if re.match(rf"{section}\s*:\s*(?:#.*)?$", line)), None)
    try:
        given = yaml.safe_load(text) or {}
        wanted = dict(given.get(section) or {})
    except (yaml.YAMLError, AttributeError, ValueError):
        raise Unchangeable("is not understood; mend it first") from None
    wanted.pop(key, None)
    if value is not None:
        wanted[key] = value
    new = [f"  {key}: {json.dumps(value)}\n"] if value is not None else []
    if start is None:
        lines += [f"{section}:\n", *new] if new else []
    else:
        end = next((n for n in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[n])), len(lines))
        block = (re.match(r"([ ]+)[^\s#]", line) for line in lines[start + 1 : end])
        indent = next((found[1] for found in block if found), "  ")
        at = next((n for n in range(start + 1, end) if re.match(rf"\s+[\"']?{re.escape(key)}[\"']?\s*:", lines[n])), None)
        last = at + 1 if at is not None else end
        while at is not None and last < end and re.match(rf"{indent}\s+\S", lines[last]):
            last += 1  # what belongs to the old value
        lines[at if at is not None else end : last] = [indent + line.lstrip() for line in new]
    made = "".join(lines)
    try:
        agrees = (yaml.safe_load(made) or {}).get(section) or {}
    except (yaml.YAMLError, AttributeError):
        agrees = None
    if agrees != wanted:
        shown = f"{section}: {{{key}: {json.dumps(value)}}}" if value is not None else f"{section}.{key} away"
        raise Unchangeable(f"cannot be changed without losing what else is in it; write {shown} by hand")
    return made
