"""Where the proxy sends requests: the catalogue's table, changed and extended by the user's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenops import catalog, config, proxy
from tokenops.exchange import Upstream


class Wrong(ValueError):
    """A provider of the configuration that cannot be used."""


def presets() -> dict[str, Any]:
    """The catalogue's providers, by name."""
    found: dict[str, Any] = catalog.load("providers")["upstreams"]
    return found


def table(settings: config.Config) -> dict[str, Upstream]:
    """Every provider by name. Raises Wrong."""
    found = {name: proxy.upstream_of(name, about["url"], about.get("bills")) for name, about in presets().items()}
    given = settings.get("providers") or {}
    if not isinstance(given, Mapping):
        raise Wrong(f"{settings.path}: providers: expected names with URLs")
    for name, value in given.items():
        url = value.get("url", value.get("base_url")) if isinstance(value, Mapping) else value
        known = presets().get(name)
        try:
            found[str(name)] = proxy.upstream_of(checked(str(name)), str(url), known.get("bills") if known else None)
        except ValueError as error:
            raise Wrong(f"{settings.path}: providers: {error}") from None
    return found


def checked(name: str) -> str:
    """A name that can be the first segment of a path. Raises ValueError."""
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name in RESERVED:
        raise ValueError(f"{name!r} cannot be a provider's name; use letters, digits, - and _")
    return name


RESERVED = ("healthz", "readyz", "version", "dashboard", "api", "v1", "mcp")
