"""Where the proxy sends requests: the catalogue's table, changed and extended by the user's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenops import catalog, config, proxy, show
from tokenops.config import Unusable
from tokenops.proxy_exchange import Upstream


def presets() -> dict[str, Any]:
    """The catalogue's providers, by name."""
    found: dict[str, Any] = catalog.load("providers")["upstreams"]
    return found


def table(settings: config.Config) -> dict[str, Upstream]:
    """Every provider by name. Raises Unusable."""
    found = {name: proxy.upstream_of(name, about["url"], about.get("bills")) for name, about in presets().items()}
    given = settings.get("providers") or {}
    if not isinstance(given, Mapping):
        raise Unusable(f"{settings.path}: providers", "expected names with URLs")
    for name, value in given.items():
        url = value.get("url", value.get("base_url")) if isinstance(value, Mapping) else value
        known = presets().get(name)
        try:
            found[str(name)] = proxy.upstream_of(checked(str(name)), str(url), known.get("bills") if known else None)
        except ValueError as error:
            raise Unusable(f"{settings.path}: providers", str(error)) from None
    return found


def rows(settings: config.Config) -> list[dict[str, Any]]:
    """A row for each provider, for `tok-provider list`. Raises Unusable."""
    given = settings.get("providers") or {}
    found = []
    for name, upstream in sorted(table(settings).items()):
        scheme = "https" if upstream.tls else "http"
        port = "" if upstream.port == (443 if upstream.tls else 80) else f":{upstream.port}"
        row = {"v": 1, "kind": "provider", "provider": name, "path": f"/{name}/"}
        row |= {
            "url": f"{scheme}://{upstream.host}{port}{upstream.base.decode()}",
            "set_by": "config" if name in given else "built-in",
        }
        found.append(row)
    return found


def shown(rows: list[dict[str, Any]], shape: str, color: bool) -> str:
    """The rows for people."""
    names = ("provider", "path", "url", "set_by")
    columns = [show.Column(name.replace("_", " "), [row[name] for row in rows], number=False) for name in names]
    return show.table(columns, shape, color=color)


def environment(settings: config.Config, base: str) -> str:
    """Lines for a shell, and for clients that read no variable. Raises Unusable."""
    known = table(settings)
    lines = ['# The variables that SDKs and clients read; eval "$(tok-provider env)" sets them.\n']
    for name, about in presets().items():
        if "env" in about and name in known:
            lines.append(f"export {about['env']}={base}/{name}{about['path']}\n")
    return "".join(lines) + _CLIENTS.replace("BASE", base)


# Verified with the clients named in docs/proxy.md, November 2026.
_CLIENTS = """
# Claude Code; its login passes through untouched:
#   alias claude='ANTHROPIC_BASE_URL=BASE/anthropic claude'
# Codex with an API key, and with a ChatGPT login (~/.codex/config.toml):
#   openai_base_url = "BASE/openai/v1"
#   chatgpt_base_url = "BASE/chatgpt"
# opencode (opencode.json); unlike others it wants /v1 for Anthropic too:
#   {"provider": {"anthropic": {"options": {"baseURL": "BASE/anthropic/v1"}},
#                 "openai": {"options": {"baseURL": "BASE/openai/v1"}}}}
# Mistral's SDK reads no variable:      Mistral(server_url="BASE/mistral")
# Whatever speaks OpenAI's language:    OpenAI(base_url="BASE/NAME/v1"), NAME being deepseek, xai, perplexity, openrouter,
#                                       vercel, litellm, lmstudio, ...
# A provider that is not listed: tok-provider set NAME URL, or openrouter, which serves most models.
"""


def upstream(name: str, url: str) -> Upstream:
    """One provider. Raises ValueError."""
    return proxy.upstream_of(checked(name), url)


def checked(name: str) -> str:
    """A name that can be the first segment of a path. Raises ValueError."""
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name in RESERVED:
        raise ValueError(f"{name!r} cannot be a provider's name; use letters, digits, - and _")
    return name


RESERVED = ("healthz", "readyz", "version", "dashboard", "api", "v1", "mcp")
