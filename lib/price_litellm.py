"""LiteLLM's price map -> a table of `price_tables`. Prices there are USD per token, as JSON numbers.

Source: model_prices_and_context_window_backup.json of the package litellm 1.109.1 (2026-11), MIT.
"""

from __future__ import annotations

import decimal
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from tokenops.price_tables import Data, Unusable

LITELLM_PACKAGE, LITELLM_FILE = "litellm", "litellm/model_prices_and_context_window_backup.json"
# Its providers -> ours. A name may stand there with its provider before it.
LITELLM_PROVIDERS = {
    name: name for name in ("anthropic", "openai", "gemini", "mistral", "groq", "deepseek", "xai", "perplexity")
}
LITELLM_PROVIDERS |= {
    "cerebras": "cerebras",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "text-completion-openai": "openai",
}

_LITELLM_CLASSES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_image_token": "image_output",
    "citation_cost_per_token": "citation",
}
_KEY = re.compile(
    rf"({'|'.join(sorted(_LITELLM_CLASSES, key=len, reverse=True))})"
    r"(?:_above_(\d+)k_tokens)?(?:_(batches|flex|priority|ultrafast))?\Z"
)
_GEO = re.compile(r"regional_processing_uplift_multiplier_(us|eu)\Z")
# Binary noise such as 12.137931034482756 or 0.19999999999999998: no price has so many digits.
_DIGITS = decimal.Context(prec=12)


def litellm_models(data: bytes) -> tuple[dict[str, list[Data]], dict[str, int]]:
    """Provider -> models, and how many rows were left out, by reason. Raises Unusable."""
    try:
        given = json.loads(data, parse_float=Decimal)
    except ValueError as error:
        raise Unusable(f"{LITELLM_FILE}: {error}; the package has another shape now") from None
    found: dict[str, dict[str, Data]] = {}
    left: dict[str, int] = {}
    for key, row in given.items() if isinstance(given, dict) else ():
        about = row if isinstance(row, dict) else {}
        provider = LITELLM_PROVIDERS.get(about.get("litellm_provider", ""))
        if provider is None:
            continue
        made = _litellm_model(key.removeprefix(f"{provider}/").lower(), provider, about)
        if made is None:
            left["no price per token"] = left.get("no price per token", 0) + 1
        elif made["id"] not in found.setdefault(provider, {}) or key.startswith(f"{provider}/"):
            found[provider][made["id"]] = made
    return {provider: [rows[name] for name in sorted(rows)] for provider, rows in found.items()}, left


def _litellm_model(name: str, provider: str, about: Mapping[str, Any]) -> Data | None:
    rates = dict(_litellm_rates(about))
    if not any(key.rpartition("/")[2].partition(">")[0] in ("input", "output") for key in rates):
        return None
    rates |= dict(_fees(about, provider))
    made: Data = {"id": name, "mode": about.get("mode", "")}
    if day := about.get("deprecation_date"):
        made["retires"] = day
    prices: list[Data] = [{"rates": rates}]
    if quiet := about.get("off_peak_pricing"):
        cheaper = {**rates, **dict(_litellm_rates(quiet))}
        prices.append({"windows": [_window(one) for one in quiet["windows"]], "rates": cheaper})
    return made | {"prices": prices}


def _litellm_rates(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Class, tier and step of each price of a token."""
    for key, value in about.items():
        if match := _KEY.match(key):
            tier = {"batches": "batch"}.get(match[3], match[3])
            step = f">{int(match[2]) * 1000}" if match[2] else ""
            yield f"{tier + '/' if tier else ''}{_LITELLM_CLASSES[match[1]]}{step}", _text(value, 6)
        elif (match := _GEO.match(key)) is not None:
            yield f"geo.{match[1]}", _text(value, 0)
    for name, factor in (about.get("provider_specific_entry") or {}).items():
        if name in ("us", "eu"):
            yield f"geo.{name}", _text(factor, 0)
        elif name == "fast":
            yield from (
                (f"fast/{_LITELLM_CLASSES[key]}", _text(about[key] * factor, 6)) for key in about if key in _LITELLM_CLASSES
            )


def _fees(about: Mapping[str, Any], provider: str) -> Iterator[tuple[str, str]]:
    """What a search costs, per thousand; Perplexity's own models bill it with every request."""
    sizes = about.get("search_context_cost_per_query") or {}
    costs = {key.removeprefix("search_context_size_"): _text(value, 3) for key, value in sizes.items()}
    fee = "request" if provider == "perplexity" else "web_search"
    if len(set(costs.values())) == 1:
        yield fee, next(iter(costs.values()))
    else:
        yield from ((f"{fee}.{size}", cost) for size, cost in costs.items())


def _window(given: Mapping[str, Any]) -> Data:
    hours = given["hours_utc"]
    spans = [span.split("-") for span in (hours if isinstance(hours, list) else [hours])]
    return {"hours": [[first, "24:00" if last == "00:00" else last] for first, last in spans], "days": given["weekdays"]}


def _text(value: Decimal | int, shift: int) -> str:
    """A number as a price, moved by so many places. Raises Unusable."""
    try:
        amount = _DIGITS.create_decimal(Decimal(value).scaleb(shift)).normalize()
    except (ArithmeticError, TypeError, ValueError):
        raise Unusable(f"{LITELLM_FILE}: {value!r} is no price; the package has another shape now") from None
    return format(amount, "f")
