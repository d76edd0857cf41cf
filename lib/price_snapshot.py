"""Reads the prices of genai-prices and LiteLLM from their packages without running their code.

Source: genai_prices/data.py of the package genai-prices 0.2.3 (2026-11), MIT. Prices are per million (`_mtok`) or per
thousand (`_kcount`); the last price with a fulfilled constraint counts.
"""

from __future__ import annotations

import ast
import base64
import csv
import decimal
import glob
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import programs, when
from tokenops.price_tables import Data, SnapshotError

GENAI_PACKAGE, GENAI_FILE = "genai-prices", "genai_prices/data.py"
GENAI_PROVIDERS = {name: name for name in ("anthropic", "openai", "mistral", "groq", "deepseek", "perplexity", "cerebras")}
GENAI_PROVIDERS |= {"google": "gemini", "x-ai": "xai", "cohere": "cohere"}
GENAI_PROVIDERS |= {"moonshotai": "moonshot", "zai": "zai", "minimax": "minimax"}
GENAI_PROVIDERS |= {"openrouter": "openrouter", "together": "together", "fireworks": "fireworks", "github-copilot": "github"}

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
    """Provider -> models, and how many were left out, by reason. Raises SnapshotError."""
    models: dict[str, list[Data]] = {}
    left: dict[str, int] = {}
    try:
        for provider in _providers(data):
            name = GENAI_PROVIDERS.get(provider["id"])
            for model in provider["models"] if name else ():
                row = _genai_model(model)
                if any("input" in price["rates"] for price in row["prices"]):
                    models.setdefault(str(name), []).append(row)
                else:
                    left["no price per token"] = left.get("no price per token", 0) + 1
    except (SyntaxError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotError(f"{GENAI_FILE}: {type(error).__name__}: {error}; the package's format has changed") from None
    return models, left


def _providers(data: bytes) -> list[Data]:
    for statement in ast.parse(data).body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "providers" and statement.value:
            providers: list[Data] = _plain(statement.value)
            return providers
    raise ValueError("it defines no `providers`")


def _plain(node: ast.expr) -> Any:
    """The value of an expression: constants, lists, and constructors as a dict of their arguments."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [_plain(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        return {_plain(key): _plain(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        args = [_plain(element) for element in node.args]
        if name == "Decimal":
            return str(args[0])
        if name == "datetime.date":
            return when.stamp(when.moment("{:04d}-{:02d}-{:02d}T00:00:00Z".format(*args)))
        if name == "datetime.time":
            return "{:02d}:{:02d}".format(*args)
        return {"": name} | {str(element.arg): _plain(element.value) for element in node.keywords}
    raise ValueError(f"line {node.lineno} contains code that is not data")


def _genai_model(model: Data) -> Data:
    prices = model.get("prices") or []
    entries = [{"prices": prices}] if isinstance(prices, dict) else prices
    row: Data = {"id": model["id"].lower(), "match": _clause(model["match"])}
    if model.get("deprecated"):
        row["deprecated"] = True
    row["prices"] = [_entry(entry) for entry in entries] or [{"rates": {}}]
    if tiers := list(_tiers(model.get("price_variants") or ())):
        row["tiers"] = tiers
    return row


# Before the names of Fireworks' models and of its faster or regional ways to them.
_FIREWORKS_PATH = "accounts/fireworks/(?:models|routers)/"


def _name(text: str) -> str:
    """A model's name as `price_names` reads it: small letters, without the path of Fireworks."""
    return re.sub(_FIREWORKS_PATH, "", text.lower())


def _clause(clause: Data) -> Data:
    field = _CLAUSES[clause[""]]
    value = _name(clause[field]) if field == "equals" else clause[field]
    return {field.rstrip("_"): [_clause(part) for part in value] if isinstance(value, list) else value}


def _entry(entry: Data, tier: str = "") -> Data:
    price: Data = {"rates": dict(_genai_rates(entry["prices"], tier))}
    constraint = entry.get("constraint")
    if constraint and constraint[""] == "StartDateConstraint":
        return {"from": constraint["start_date"]} | price
    if constraint and constraint[""] == "TimeOfDateConstraint":
        return {"windows": [{"hours": [[constraint["start_time"], constraint["end_time"]]]}]} | price
    if constraint:
        raise ValueError(f"a price holds under {constraint['']}, which is not known")
    return price


def _tiers(variants: Iterable[Data]) -> Iterator[Data]:
    """The prices of a tier, if nothing else decides."""
    for variant in variants:
        conditions = list(variant["when"].items())
        if len(conditions) == 1 and conditions[0][1] in _TIERS.get(conditions[0][0], ()):
            yield _entry(variant, f"{conditions[0][1]}/")


def _genai_rates(prices: Data, tier: str) -> Iterator[tuple[str, str]]:
    for key, value in prices.items():
        name = _GENAI_CLASSES.get(key)
        if name is None or value is None:
            continue
        if isinstance(value, dict):
            yield f"{tier}{name}", value["base"]
            yield from ((f"{tier}{name}>{step['start']}", step["price"]) for step in value["tiers"])
        else:
            yield f"{tier}{name}", value


LITELLM_PACKAGE, LITELLM_FILE = "litellm", "litellm/model_prices_and_context_window_backup.json"
# Its providers -> ours. Its model names may begin with the provider.
LITELLM_PROVIDERS = {
    name: name for name in ("anthropic", "openai", "gemini", "mistral", "groq", "deepseek", "xai", "perplexity")
}
LITELLM_PROVIDERS |= {
    "cerebras": "cerebras",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "text-completion-openai": "openai",
    "dashscope": "alibaba",
    "moonshot": "moonshot",
    "zai": "zai",
    "minimax": "minimax",
    "xiaomi_mimo": "xiaomi",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "vercel_ai_gateway": "vercel",
    "github_copilot": "github",
    "opencode_go": "opencode-go",
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
    """Provider -> models, and how many rows were left out, by reason. Raises SnapshotError."""
    try:
        table = json.loads(data, parse_float=Decimal)
    except ValueError as error:
        raise SnapshotError(f"{LITELLM_FILE}: {error}; the package's format has changed") from None
    models: dict[str, dict[str, Data]] = {}
    left: dict[str, int] = {}
    for key, row in table.items() if isinstance(table, dict) else ():
        details = row if isinstance(row, dict) else {}
        owner = details.get("litellm_provider", "")
        provider = LITELLM_PROVIDERS.get(owner)
        if provider is None:
            continue
        name = _name(key.removeprefix(f"{owner if key.startswith(f'{owner}/') else provider}/"))
        compiled = _litellm_model(name, provider, details)
        if compiled is None:
            left["no price per token"] = left.get("no price per token", 0) + 1
        elif compiled["id"] not in models.setdefault(provider, {}) or key.startswith((f"{provider}/", f"{owner}/")):
            models[provider][compiled["id"]] = compiled
    return {provider: [rows[name] for name in sorted(rows)] for provider, rows in models.items()}, left


def _litellm_model(name: str, provider: str, details: Mapping[str, Any]) -> Data | None:
    rates = dict(_litellm_rates(details))
    if not any(key.rpartition("/")[2].partition(">")[0] in ("input", "output") for key in rates):
        return None
    rates |= dict(_fees(details, provider))
    row: Data = {"id": name, "mode": details.get("mode", "")}
    if day := details.get("deprecation_date"):
        row["retires"] = day
    prices: list[Data] = [{"rates": rates}]
    if quiet := details.get("off_peak_pricing"):
        cheaper = {**rates, **dict(_litellm_rates(quiet))}
        prices.append({"windows": [_window(window) for window in quiet["windows"]], "rates": cheaper})
    return row | {"prices": prices}


def _litellm_rates(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Class, tier and step of each price of a token."""
    for key, value in details.items():
        if match := _KEY.match(key):
            tier = {"batches": "batch"}.get(match[3], match[3])
            step = f">{int(match[2]) * 1000}" if match[2] else ""
            yield f"{tier + '/' if tier else ''}{_LITELLM_CLASSES[match[1]]}{step}", _text(value, 6)
        elif (match := _GEO.match(key)) is not None:
            yield f"geo.{match[1]}", _text(value, 0)
    yield from _steps(details.get("tiered_pricing") or ())
    for name, factor in (details.get("provider_specific_entry") or {}).items():
        if name in ("us", "eu"):
            yield f"geo.{name}", _text(factor, 0)
        elif name == "fast":
            yield from (
                (f"fast/{_LITELLM_CLASSES[key]}", _text(details[key] * factor, 6))
                for key in details
                if key in _LITELLM_CLASSES
            )


def _steps(ranges: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Prices that depend on the length of the prompt: the first range is the base, each later one a step at its start."""
    for part in ranges:
        start = int(part["range"][0])
        step = f">{start}" if start else ""
        yield from (
            (f"{_LITELLM_CLASSES[key]}{step}", _text(value, 6)) for key, value in part.items() if key in _LITELLM_CLASSES
        )


def _fees(details: Mapping[str, Any], provider: str) -> Iterator[tuple[str, str]]:
    """What a search costs, per thousand; Perplexity's own models bill it with every request."""
    sizes = details.get("search_context_cost_per_query") or {}
    costs = {key.removeprefix("search_context_size_"): _text(value, 3) for key, value in sizes.items()}
    fee = "request" if provider == "perplexity" else "web_search"
    if len(set(costs.values())) == 1:
        yield fee, next(iter(costs.values()))
    else:
        yield from ((f"{fee}.{size}", cost) for size, cost in costs.items())


def _window(window: Mapping[str, Any]) -> Data:
    hours = window["hours_utc"]
    spans = [span.split("-") for span in (hours if isinstance(hours, list) else [hours])]
    return {"hours": [[first, "24:00" if last == "00:00" else last] for first, last in spans], "days": window["weekdays"]}


def _text(value: Decimal | int, shift: int) -> str:
    """A number as a price, moved by so many places. Raises SnapshotError."""
    try:
        amount = _DIGITS.create_decimal(Decimal(value).scaleb(shift)).normalize()
    except (ArithmeticError, TypeError, ValueError):
        raise SnapshotError(f"{LITELLM_FILE}: {value!r} is not a price; the package's format has changed") from None
    return format(amount, "f")


class Engine(NamedTuple):
    """The file of an engine's prices, and the function that reads it."""

    source: str
    package: str
    file: str
    models: Callable[[bytes], tuple[dict[str, list[Data]], dict[str, int]]]


ENGINES = (
    Engine("litellm", LITELLM_PACKAGE, LITELLM_FILE, litellm_models),
    Engine("genai", GENAI_PACKAGE, GENAI_FILE, genai_models),
)
# pip has its own timeout; this one ends a pip that hangs.
_PATIENCE_S = 600


def download(engine: Engine, folder: str) -> str:
    """The newest wheel of an engine's package, in a folder. Raises SnapshotError."""
    command = [
        sys.executable,
        "-I",  # no module of the working directory, nor of PYTHONPATH, is run in pip's place
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        folder,
        engine.package,
    ]
    try:
        ended = programs.run([*command, "--quiet", "--disable-pip-version-check"], _PATIENCE_S, folder)
    except OSError as error:
        raise SnapshotError(f"pip download {engine.package}: {error.strerror}; check Python's pip and the network") from None
    wheels = glob.glob(os.path.join(glob.escape(folder), f"{engine.package.replace('-', '_')}-*.whl"))
    if ended.status or not wheels:
        reasons = ended.err.decode(errors="replace").strip().splitlines()[-1:] or ["no wheel came"]
        raise SnapshotError(f"pip download {engine.package}: {reasons[0]}; check the network and pip's settings")
    return wheels[0]


def reduce(engine: Engine, wheel: str, captured: str) -> tuple[Data, dict[str, list[Data]]]:
    """The details of a wheel, and its models. Raises SnapshotError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = _verified_file(archive, engine.file)
            license_ = _license(archive)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise SnapshotError(f"{os.path.basename(wheel)}: {error}; it is not a wheel of {engine.package}") from None
    models, left_out = engine.models(data)
    details: Data = {"package": engine.package, "version": os.path.basename(wheel).split("-")[1], "captured": captured}
    details |= {"file": engine.file, "file_sha256": hashlib.sha256(data).hexdigest(), "license": license_}
    return details | {"left_out": left_out}, models


def _verified_file(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of a wheel, if its checksum is the one that the wheel records. Raises SnapshotError, KeyError."""
    data = archive.read(name)
    listed = next((member for member in archive.namelist() if member.endswith(".dist-info/RECORD")), "")
    rows = csv.reader(io.StringIO(archive.read(listed).decode()))
    recorded = next((row[1] for row in rows if row and row[0] == name), "")
    checksum = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    if recorded != f"sha256={checksum}":
        raise SnapshotError(f"{name}: its checksum is not the one in the wheel's RECORD; download it again")
    return data


def _license(archive: zipfile.ZipFile) -> str:
    """MIT, as the wheel's own licence says. Raises SnapshotError: another licence has to be reviewed first."""
    names = [name for name in archive.namelist() if ".dist-info/" in name and "LICENSE" in name.upper()]
    if any("Permission is hereby granted, free of charge" in archive.read(name).decode(errors="replace") for name in names):
        return "MIT"
    raise SnapshotError("the package's licence is no longer MIT; review it before its data is kept here")


def fetch(captured: str) -> list[tuple[Engine, Data, dict[str, list[Data]]]]:
    """All engines' newest prices, downloaded into a temporary folder. Raises SnapshotError."""
    with tempfile.TemporaryDirectory(prefix="tok-price-") as folder:
        return [(engine, *reduce(engine, download(engine, folder), captured)) for engine in ENGINES]
