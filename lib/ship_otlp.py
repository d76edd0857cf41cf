"""Sends rows to an OpenTelemetry receiver (OTLP/HTTP JSON): a log record per row, and their sums as metrics.

Names are those of the semantic conventions for generative AI (development status; gen-ai-metrics.md and
gen-ai-token-metrics.md, read 2026-11); other names are tokenops.*. The conventions count cached tokens as input, so
gen_ai.usage.input_tokens is our input, cache_read and cache_write together.

A receiver keeps whatever it gets, so metrics are cumulative: a repeated export sends the same sums. They are sums of
each day's turns, stored by day, so they remain when days are pruned. A log record that was sent twice (the
acknowledgement was lost) has the same tokenops.id.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson

from tokenops import datadir, pricing, ship_targets, untrusted, when
from tokenops.etiquette import Trouble
from tokenops.fields import MONEY
from tokenops.ship_rows import Owner, Row
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
    "subagent": "gen_ai.agent.name",
    "effort": "gen_ai.request.reasoning.level",
    "branch": "vcs.ref.head.name",
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


def otlp_value(value: object) -> Json:
    """A value of OTLP JSON; whole numbers are text there."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": pricing.plain(value) if isinstance(value, Decimal) else str(value)}


def attributes(fields: Json) -> list[Json]:
    """Names and values as OTLP writes them."""
    return [{"key": key, "value": otlp_value(value)} for key, value in fields.items()]


def resource(machine: str, user: str) -> Json:
    """Whose records some are, as both signals describe it."""
    fields = {"service.name": "tokenops", "service.instance.id": machine, "tokenops.machine": machine}
    return {"attributes": attributes(fields | ({"tokenops.user": user} if user else {}))}


def prompt_tokens(row: Row) -> int:
    """The prompt's tokens, cached ones included."""
    return int(sum(row.get(name, 0) for name in ("input_tokens", "cache_read_tokens", *_WRITES)))


def call_attributes(row: Row) -> Json:
    """The attributes of a request's operation, provider and models."""
    fields: Json = {"gen_ai.operation.name": "chat"}
    if provider := row.get("provider"):
        fields["gen_ai.provider.name"] = _PROVIDERS.get(provider, provider)
    if model := row.get("request_model") or row.get("model"):
        fields["gen_ai.request.model"] = model
    return fields


def record(row: Row, now: int) -> Json:
    """The log record of a row."""
    fields: Json = {"tokenops.kind": row["kind"], "tokenops.id": row["id"]}
    if row["kind"] in ("turn", "usage"):
        fields |= call_attributes(row) | {"gen_ai.usage.input_tokens": prompt_tokens(row)}
        if writes := sum(row.get(name, 0) for name in _WRITES):
            fields["gen_ai.usage.cache_creation.input_tokens"] = writes
    for name, value in row.items():
        if name not in _KEPT_OUT:
            fields[f"tokenops.{name}"] = value
            if name in _NAMED and row["kind"] == "turn":
                fields[_NAMED[name]] = value
    name = "gen_ai.client.inference.operation.details" if row["kind"] == "turn" else f"tokenops.{row['kind']}"
    return {
        "timeUnixNano": _nanos(when.moment(row["ts"])),
        "observedTimeUnixNano": _nanos(now),
        "severityNumber": 9,
        "severityText": "INFO",
        "eventName": name,
        "body": {"stringValue": name},
        "attributes": attributes(fields),
    }


def _nanos(ms: int) -> str:
    return str(ms * 1_000_000)


class Otlp:
    """An OpenTelemetry receiver (ship_targets.Poster)."""

    def __init__(self, target: Target, send: ship_targets.Send, clock: Callable[[], int], owner: Owner, folder: str) -> None:
        self.target, self.send, self.clock, self.owner = target, send, clock, owner
        self.totals = Totals(folder)

    def setup(self) -> int:
        """Nothing: a receiver needs none."""
        return 0

    def deliver(self, rows: list[Row]) -> None:
        """Send rows as log records. Raises Trouble."""
        now = self.clock()
        by_owner: dict[tuple[str, str], list[Json]] = {}
        for row in rows:
            by_owner.setdefault((row["machine"], row["user"]), []).append(record(row, now))
        logs = [
            {"resource": resource(*names), "scopeLogs": [{"scope": {"name": "tokenops"}, "logRecords": records}]}
            for names, records in by_owner.items()
        ]
        self._post("logs", {"resourceLogs": logs})

    def add_day(self, day: str, rows: Iterable[Row]) -> None:
        """Keep the sums of a day's turns."""
        self.totals.set_day(day, rows)

    def finish(self) -> None:
        """Send the sums of all days. Raises Trouble, OSError."""
        self.totals.save()
        export = metrics_of(self.totals, self.owner, self.clock())
        if export is not None:
            self._post("metrics", export)

    def _post(self, signal: str, export: Json) -> None:
        """Send an export to where a signal goes: below the base, as the protocol says. Raises Trouble."""
        parts = urlsplit(self.target.url)
        base = parts.path.rstrip("/").removesuffix("/v1/logs").removesuffix("/v1/metrics").removesuffix("/v1")
        url = urlunsplit((parts.scheme, parts.netloc, f"{base}/v1/{signal}", parts.query, ""))
        headers = {"content-type": "application/json", **self.target.headers}
        answer = ship_targets.check_answer(self.send(url, headers, orjson.dumps(export)), self.clock())
        try:
            partial = untrusted.mapping(untrusted.mapping(untrusted.json_value(answer.body or b"{}")).get("partialSuccess"))
        except ValueError:
            return
        texts = [untrusted.identity(partial[name]) for name in partial if name.startswith("rejected")]
        counts = [int(text) for text in texts if text.isdigit() and len(text) < 16]
        if any(counts):
            raise Trouble(ship_targets.PARTIAL, f"it rejected {sum(counts)} of these and does not say which")


def _is_totals(value: object) -> bool:
    """Whether a value read from a file has the form of `Totals.days`."""
    days = value.values() if type(value) is dict else (None,)
    return all(
        type(day) is dict
        and all(type(key) is str and key[:1] == "[" and type(sums) is dict and _is_sums(sums) for key, sums in day.items())
        for day in days
    )


def _is_sums(sums: Json) -> bool:
    names = [*_COUNTERS, *(name for name in sums if name.endswith("_seen"))]
    histograms = sums.get("histograms")
    return (
        all(type(sums.get(name)) is int for name in names)
        and MONEY.holds(sums.get("usd"))
        and type(histograms) is dict
        and all(type(counts) is list and len(counts) == len(BOUNDS) + 1 for counts in histograms.values())
        and all(type(count) is int for counts in histograms.values() for count in counts)
    )


class Totals:
    """Sums of the turns of each day that were shipped, per provider and model."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, TOTALS)
        kept = datadir.read_json(self.path)
        self.days: dict[str, dict[str, Json]] = kept if _is_totals(kept) else {}

    def set_day(self, day: str, rows: Iterable[Row]) -> None:
        """Replace the sums of a day by those of all its turns."""
        series: dict[str, Json] = {}
        for row in rows:
            if row["kind"] != "turn":
                continue
            key = orjson.dumps([call_attributes(row), row.get("model", "")]).decode()
            at = series.setdefault(key, dict.fromkeys(_COUNTERS, 0) | {"usd": "0", "histograms": {}})
            sums = {"input": prompt_tokens(row), "output": row.get("output_tokens", 0), "turns": row.get("turns", 0)}
            sums |= {"cache_read": row.get("cache_read_tokens", 0), "reasoning": row.get("reasoning_tokens", 0)}
            sums["cache_write"] = sum(row.get(name, 0) for name in _WRITES)
            for name, count in sums.items():
                at[name] += count
            at["usd"] = pricing.plain(pricing.add(Decimal(at["usd"]), row.get("priced_usd", pricing.ZERO)))
            if row.get("turns") and not row.get("usage"):  # unknown counts are not observations
                for name in ("input", "output"):
                    at["histograms"].setdefault(name, [0] * (len(BOUNDS) + 1))[bisect.bisect_left(BOUNDS, sums[name])] += 1
                    at[f"{name}_seen"] = at.get(f"{name}_seen", 0) + sums[name]
        self.days[day] = series

    def save(self) -> None:
        """Write them to the disk. Raises OSError."""
        datadir.ensure_folder(os.path.dirname(os.path.dirname(self.path)))
        datadir.ensure_folder(os.path.dirname(self.path))
        datadir.replace(self.path, orjson.dumps(self.days), durable=False)

    def series(self) -> dict[str, Json]:
        """The sums of all days."""
        series: dict[str, Json] = {}
        for day in self.days.values():
            for key, sums in day.items():
                series[key] = _add(series[key], sums) if key in series else sums
        return series


def _add(a: Json, b: Json) -> Json:
    """Two sums of one series, added."""
    total: Json = {name: a.get(name, 0) + b.get(name, 0) for name in (*_COUNTERS, "input_seen", "output_seen")}
    total["usd"] = pricing.plain(pricing.add(Decimal(a["usd"]), Decimal(b["usd"])))
    empty = [0] * (len(BOUNDS) + 1)
    both = [(name, a["histograms"].get(name, empty), b["histograms"].get(name, empty)) for name in ("input", "output")]
    total["histograms"] = {name: [x + y for x, y in zip(left, right, strict=True)] for name, left, right in both}
    return total


def metrics_of(totals: Totals, owner: Owner, now: int) -> Json | None:
    """An export of the sums; None if nothing was shipped yet."""
    if not totals.days:
        return None
    span = {"startTimeUnixNano": _nanos(when.moment(f"{min(totals.days)}T00:00:00Z")), "timeUnixNano": _nanos(now)}
    series = [(_models(key), sums) for key, sums in sorted(totals.series().items())]
    metrics = [_counter(name, span, series) for name in _COUNTERS]
    metrics.append(_metric("tokenops.cost", "USD", "sum", _money(span, series)))
    metrics.append(_metric("gen_ai.client.token.usage", "{token}", "histogram", _buckets(span, series)))
    scope = {"scope": {"name": "tokenops"}, "metrics": metrics}
    return {"resourceMetrics": [{"resource": resource(owner.machine, owner.user), "scopeMetrics": [scope]}]}


Series = list[tuple[Json, Json]]  # attributes, and their sums


def _models(key: str) -> Json:
    fields, model = orjson.loads(key)
    return {**fields, "gen_ai.response.model": model} if model else dict(fields)


def _metric(name: str, unit: str, kind: str, points: Iterator[Json]) -> Json:
    data: Json = {"aggregationTemporality": 2, "dataPoints": list(points)}
    if kind == "sum":
        data["isMonotonic"] = True
    return {"name": name, "unit": unit, kind: data}


def _counter(name: str, span: Json, series: Series) -> Json:
    title, unit = _COUNTERS[name]
    more = {"gen_ai.token.modality": "unknown"} if unit == "{token}" else {}
    points = ({**span, "attributes": attributes(fields | more), "asInt": str(sums[name])} for fields, sums in series)
    return _metric(title, unit, "sum", points)


def _money(span: Json, series: Series) -> Iterator[Json]:
    for fields, sums in series:
        yield {**span, "attributes": attributes(fields), "asDouble": float(sums["usd"])}


def _buckets(span: Json, series: Series) -> Iterator[Json]:
    for fields, sums in series:
        for name, buckets in sums["histograms"].items():
            yield {
                **span,
                "attributes": attributes(fields | {"gen_ai.token.type": name}),
                "count": str(sum(buckets)),
                "sum": float(sums[f"{name}_seen"]),
                "bucketCounts": [str(count) for count in buckets],
                "explicitBounds": [float(bound) for bound in BOUNDS],
            }
