"""The data of genai-prices -> a table of `price_tables`. It is Python there: read as a text, and never run.

Source: genai_prices/data.py of the package genai-prices 0.2.3 (2026-11), MIT. Prices are per million (`_mtok`) or per
thousand (`_kcount`); of several prices the last counts whose constraint holds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Any

from tokenops import when
from tokenops.price_tables import Data, Unusable

GENAI_PACKAGE, GENAI_FILE = "genai-prices", "genai_prices/data.py"
GENAI_PROVIDERS = {name: name for name in ("anthropic", "openai", "mistral", "groq", "deepseek", "perplexity", "cerebras")}
GENAI_PROVIDERS |= {"google": "gemini", "x-ai": "xai", "cohere": "cohere"}

_GENAI_CLASSES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "output_citation_mtok": "citation",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
    "web_searches_kcount": "web_search",
    "requests_kcount": "request",
}
_TIERS = {"processing": ("batch",), "service_tier": ("flex", "priority", "fast"), "speed": ("fast",)}
_CLAUSES = {
    "ClauseEquals": "equals",
    "ClauseStartsWith": "starts_with",
    "ClauseEndsWith": "ends_with",
    "ClauseContains": "contains",
    "ClauseRegex": "regex",
    "ClauseOr": "or_",
    "ClauseAnd": "and_",
}


def genai_models(data: bytes) -> tuple[dict[str, list[Data]], dict[str, int]]:
    """Provider -> models, and how many were left out, by reason. Raises Unusable."""
    found: dict[str, list[Data]] = {}
    left: dict[str, int] = {}
    try:
        for provider in _providers(data):
            name = GENAI_PROVIDERS.get(provider["id"])
            for model in provider["models"] if name else ():
                made = _genai_model(model)
                if any("input" in one["rates"] for one in made["prices"]):
                    found.setdefault(str(name), []).append(made)
                else:
                    left["no price per token"] = left.get("no price per token", 0) + 1
    except (SyntaxError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unusable(f"{GENAI_FILE}: {type(error).__name__}: {error}; the package has another shape now") from None
    return found, left


def _providers(data: bytes) -> list[Data]:
    for statement in ast.parse(data).body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "providers" and statement.value:
            given: list[Data] = _plain(statement.value)
            return given
    raise ValueError("it defines no `providers`")


def _plain(node: ast.expr) -> Any:
    """The value that an expression writes down: constants, lists, and constructors as what they are given."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [_plain(one) for one in node.elts]
    if isinstance(node, ast.Dict):
        return {_plain(key): _plain(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        given = [_plain(one) for one in node.args]
        if name == "Decimal":
            return str(given[0])
        if name == "datetime.date":
            return when.stamp(when.moment("{:04d}-{:02d}-{:02d}T00:00:00Z".format(*given)))
        if name == "datetime.time":
            return "{:02d}:{:02d}".format(*given)
        return {"": name} | {str(one.arg): _plain(one.value) for one in node.keywords}
    raise ValueError(f"line {node.lineno} holds something else than data")


def _genai_model(given: Data) -> Data:
    prices = given.get("prices") or []
    entries = [{"prices": prices}] if isinstance(prices, dict) else prices
    made: Data = {"id": given["id"].lower(), "match": _clause(given["match"])}
    if given.get("deprecated"):
        made["deprecated"] = True
    made["prices"] = [_entry(one) for one in entries] or [{"rates": {}}]
    if tiers := list(_tiers(given.get("price_variants") or ())):
        made["tiers"] = tiers
    return made


def _clause(given: Data) -> Data:
    field = _CLAUSES[given[""]]
    value = given[field]
    return {field.rstrip("_"): [_clause(one) for one in value] if isinstance(value, list) else value}


def _entry(given: Data, tier: str = "") -> Data:
    made: Data = {"rates": dict(_genai_rates(given["prices"], tier))}
    constraint = given.get("constraint")
    if constraint and constraint[""] == "StartDateConstraint":
        return {"from": constraint["start_date"]} | made
    if constraint and constraint[""] == "TimeOfDateConstraint":
        return {"windows": [{"hours": [[constraint["start_time"], constraint["end_time"]]]}]} | made
    if constraint:
        raise ValueError(f"a price holds under {constraint['']}, which is not known")
    return made


def _tiers(variants: Iterable[Data]) -> Iterator[Data]:
    """The prices of a tier, where it alone decides."""
    for variant in variants:
        asked = list(variant["when"].items())
        if len(asked) == 1 and asked[0][1] in _TIERS.get(asked[0][0], ()):
            yield _entry(variant, f"{asked[0][1]}/")


def _genai_rates(given: Data, tier: str) -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        name = _GENAI_CLASSES.get(key)
        if name is None or value is None:
            continue
        if isinstance(value, dict):
            yield f"{tier}{name}", value["base"]
            yield from ((f"{tier}{name}>{step['start']}", step["price"]) for step in value["tiers"])
        else:
            yield f"{tier}{name}", value
