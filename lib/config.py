"""The user's configuration: `$XDG_CONFIG_HOME/tokenops/config.yaml`, and the environment before it.

Keys of the original TokenOps keep their names and meaning. An unknown key is a warning that names the nearest known one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tokenops import cards, catalog

Data = dict[str, Any]

# Known keys; {} below a key: its own keys are the user's (names of providers, clients, KPIs).
KNOWN: Data = {
    "pricing": {"path": None},
    "providers": {},
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
