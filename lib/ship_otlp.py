"""OpenTelemetry: rows as OTLP/HTTP JSON, a log record each, and what they come to as metrics.

Names are those of the semantic conventions for generative AI (development status; gen-ai-metrics.md and
gen-ai-token-metrics.md, read 2026-11); what those do not name is called tokenops.*. The conventions count cached tokens as
input, so gen_ai.usage.input_tokens is our input, cache_read and cache_write together.

A receiver keeps whatever it is sent, so metrics are cumulative: a repeated export says the same sums again. They are the
sums of each day's turns, kept by day, so that they stay when the log's days are pruned. A log record that was sent twice
(the acknowledgement was lost) has the same tokenops.id.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson

from tokenops import datadir, pricing, ship_targets, untrusted, when
from tokenops.etiquette import Trouble
from tokenops.ship_rows import Row, Who
from tokenops.ship_targets import Target

TOTALS = "metrics.json"
# The conventions' bucket boundaries of gen_ai.client.token.usage.
BOUNDS = [4**power for power in range(14)]
_WRITES = ("cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")
_PROVIDERS = {
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}
# Columns that the conventions name.
_NAMED = {
    "id": "gen_ai.response.id",
    "session_id": "gen_ai.conversation.id",
    "model": "gen_ai.response.model",
    "output_tokens": "gen_ai.usage.output_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "error": "error.type",
}
_KEPT_OUT = ("ts", "kind", "machine", "user", "usage_rank", "attribution_rank", "price_rank")
_COUNTERS = {
    "input": ("gen_ai.client.inference.usage.input_tokens", "{token}"),
    "output": ("gen_ai.client.inference.usage.output_tokens", "{token}"),
    "cache_read": ("gen_ai.client.inference.usage.cache_read.input_tokens", "{token}"),
    "cache_write": ("gen_ai.client.inference.usage.cache_write.input_tokens", "{token}"),
    "reasoning": ("gen_ai.client.inference.usage.reasoning.output_tokens", "{token}"),
    "turns": ("tokenops.turns", "{turn}"),
}

Json = dict[str, Any]


def value(given: object) -> Json:
    """A value of OTLP JSON; whole numbers are text there."""
    if isinstance(given, bool):
        return {"boolValue": given}
    if isinstance(given, int):
        return {"intValue": str(given)}
    if isinstance(given, float):
        return {"doubleValue": given}
    return {"stringValue": pricing.plain(given) if isinstance(given, Decimal) else str(given)}


def attributes(given: Json) -> list[Json]:
    """Names and values as OTLP writes them."""
    return [{"key": key, "value": value(one)} for key, one in given.items()]


def resource(who: Who) -> Json:
    """Who sends: what both signals say of it."""
    return {
        "attributes": attributes(
            {"service.name": "tokenops", "service.instance.id": who.machine, "tokenops.machine": who.machine}
            | {"tokenops.user": who.user}
        )
    }


def prompt(row: Row) -> int:
    """The prompt's tokens, cached ones included."""
    return int(sum(row.get(name, 0) for name in ("input_tokens", "cache_read_tokens", *_WRITES)))


def about(row: Row) -> Json:
    """The attributes of a request's operation, provider and models."""
    found: Json = {"gen_ai.operation.name": "chat"}
    if provider := row.get("provider"):
        found["gen_ai.provider.name"] = _PROVIDERS.get(provider, provider)
    if model := row.get("request_model") or row.get("model"):
        found["gen_ai.request.model"] = model
    return found


def record(row: Row, now: int) -> Json:
    """The log record of a row."""
    said: Json = {"tokenops.kind": row["kind"], "tokenops.id": row["id"]}
    if row["kind"] in ("turn", "usage"):
        said |= about(row) | {"gen_ai.usage.input_tokens": prompt(row)}
        if writes := sum(row.get(name, 0) for name in _WRITES):
            said["gen_ai.usage.cache_creation.input_tokens"] = writes
    for name, one in row.items():
        if name not in _KEPT_OUT:
            said[f"tokenops.{name}"] = one
            if name in _NAMED and row["kind"] == "turn":
                said[_NAMED[name]] = one
    name = "gen_ai.client.inference.operation.details" if row["kind"] == "turn" else f"tokenops.{row['kind']}"
    return {
        "timeUnixNano": _nanos(when.moment(row["ts"])),
        "observedTimeUnixNano": _nanos(now),
        "severityNumber": 9,
        "severityText": "INFO",
        "eventName": name,
        "body": {"stringValue": name},
        "attributes": attributes(said),
    }


def _nanos(ms: int) -> str:
    return str(ms * 1_000_000)


def logs_of(rows: list[Row], who: Who, now: int) -> Json:
    """An export of some rows."""
    records = [record(row, now) for row in rows]
    scope = {"scope": {"name": "tokenops"}, "logRecords": records}
    return {"resourceLogs": [{"resource": resource(who), "scopeLogs": [scope]}]}


def address(target: Target, signal: str) -> str:
    """Where a signal goes: below the base, as the protocol says."""
    parts = urlsplit(target.url)
    base = parts.path.rstrip("/").removesuffix("/v1/logs").removesuffix("/v1/metrics").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, f"{base}/v1/{signal}", parts.query, ""))


def post(target: Target, send: ship_targets.Send, signal: str, export: Json, now: int) -> None:
    """Send an export; when this returns it is acknowledged. Raises Trouble."""
    headers = {"content-type": "application/json", **target.headers}
    answer = ship_targets.checked(send(address(target, signal), headers, orjson.dumps(export)), now)
    try:
        said = untrusted.mapping(untrusted.mapping(orjson.loads(answer.body or b"{}")).get("partialSuccess"))
    except ValueError:
        return
    counts = [int(said[name]) for name in said if name.startswith("rejected") and str(said[name]).isdigit()]
    if any(counts):
        raise Trouble(ship_targets.PARTIAL, f"it rejected {sum(counts)} of these and does not say which")


def logs(target: Target, send: ship_targets.Send, who: Who, rows: list[Row], now: int) -> None:
    """Send rows as log records. Raises Trouble."""
    post(target, send, "logs", logs_of(rows, who, now), now)


class Totals:
    """Sums of the turns of each day that were shipped, per provider and model."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, TOTALS)
        self.days: dict[str, dict[str, Json]] = datadir.read_json(self.path) or {}

    def put(self, day: str, rows: Iterable[Row]) -> None:
        """The turns of a day, all of them."""
        found: dict[str, Json] = {}
        for row in rows:
            if row["kind"] != "turn":
                continue
            key = orjson.dumps([about(row), row.get("model", "")]).decode()
            at = found.setdefault(key, dict.fromkeys(_COUNTERS, 0) | {"usd": "0", "histograms": {}})
            sums = {"input": prompt(row), "output": row.get("output_tokens", 0), "turns": row.get("turns", 0)}
            sums |= {"cache_read": row.get("cache_read_tokens", 0), "reasoning": row.get("reasoning_tokens", 0)}
            sums["cache_write"] = sum(row.get(name, 0) for name in _WRITES)
            for name, count in sums.items():
                at[name] += count
            at["usd"] = pricing.plain(pricing.add(Decimal(at["usd"]), row.get("priced_usd", pricing.ZERO)))
            if row.get("turns") and not row.get("usage"):  # what is unknown is no observation
                for name in ("input", "output"):
                    at["histograms"].setdefault(name, [0] * (len(BOUNDS) + 1))[bisect.bisect_left(BOUNDS, sums[name])] += 1
                    at[f"{name}_seen"] = at.get(f"{name}_seen", 0) + sums[name]
        self.days[day] = found

    def save(self) -> None:
        """Write them down. Raises OSError."""
        datadir.ensure_folder(os.path.dirname(os.path.dirname(self.path)))
        datadir.ensure_folder(os.path.dirname(self.path))
        datadir.replace(self.path, orjson.dumps(self.days), durable=False)

    def series(self) -> dict[str, Json]:
        """The sums of all days."""
        found: dict[str, Json] = {}
        for day in self.days.values():
            for key, one in day.items():
                found[key] = _added(found[key], one) if key in found else one
        return found


def _added(a: Json, b: Json) -> Json:
    """Two sums of one series, added."""
    made: Json = {name: a.get(name, 0) + b.get(name, 0) for name in (*_COUNTERS, "input_seen", "output_seen")}
    made["usd"] = pricing.plain(pricing.add(Decimal(a["usd"]), Decimal(b["usd"])))
    empty = [0] * (len(BOUNDS) + 1)
    both = [(name, a["histograms"].get(name, empty), b["histograms"].get(name, empty)) for name in ("input", "output")]
    made["histograms"] = {name: [x + y for x, y in zip(one, other, strict=True)] for name, one, other in both}
    return made


def metrics_of(totals: Totals, who: Who, now: int) -> Json | None:
    """An export of the sums; None where nothing was shipped yet."""
    if not totals.days:
        return None
    span = {"startTimeUnixNano": _nanos(when.moment(f"{min(totals.days)}T00:00:00Z")), "timeUnixNano": _nanos(now)}
    found = [(_models(key), one) for key, one in sorted(totals.series().items())]
    metrics = [_counter(name, span, found) for name in _COUNTERS]
    metrics.append(_metric("tokenops.cost", "USD", "sum", _money(span, found)))
    metrics.append(_metric("gen_ai.client.token.usage", "{token}", "histogram", _observed(span, found)))
    scope = {"scope": {"name": "tokenops"}, "metrics": metrics}
    return {"resourceMetrics": [{"resource": resource(who), "scopeMetrics": [scope]}]}


Found = list[tuple[Json, Json]]


def _models(key: str) -> Json:
    said, model = orjson.loads(key)
    return {**said, "gen_ai.response.model": model} if model else dict(said)


def _metric(name: str, unit: str, kind: str, points: Iterator[Json]) -> Json:
    about: Json = {"aggregationTemporality": 2, "dataPoints": list(points)}
    if kind == "sum":
        about["isMonotonic"] = True
    return {"name": name, "unit": unit, kind: about}


def _counter(name: str, span: Json, found: Found) -> Json:
    title, unit = _COUNTERS[name]
    more = {"gen_ai.token.modality": "unknown"} if unit == "{token}" else {}
    points = ({**span, "attributes": attributes(said | more), "asInt": str(one[name])} for said, one in found)
    return _metric(title, unit, "sum", points)


def _money(span: Json, found: Found) -> Iterator[Json]:
    for said, one in found:
        yield {**span, "attributes": attributes(said), "asDouble": float(one["usd"])}


def _observed(span: Json, found: Found) -> Iterator[Json]:
    for said, one in found:
        for name, buckets in one["histograms"].items():
            yield {
                **span,
                "attributes": attributes(said | {"gen_ai.token.type": name}),
                "count": str(sum(buckets)),
                "sum": float(one[f"{name}_seen"]),
                "bucketCounts": [str(count) for count in buckets],
                "explicitBounds": [float(bound) for bound in BOUNDS],
            }


def metrics(target: Target, send: ship_targets.Send, totals: Totals, who: Who, now: int) -> None:
    """Send the sums. Raises Trouble."""
    export = metrics_of(totals, who, now)
    if export is not None:
        post(target, send, "metrics", export, now)
