"""Asks OpenAI for the usage and cost of an organisation's API keys.

Source: the API reference at platform.openai.com (2026-11). There `input_tokens` includes cached input, cache writes,
audio and images; times are seconds since 1970, costs are dollars.
"""

from __future__ import annotations

from tokenops import events, poll_reports, untrusted
from tokenops.etiquette import Ask, Results, WebSteps
from tokenops.poll_reports import Bucket, Report

PROVIDER = "openai"
_GROUPS = ("model", "project_id", "api_key_id", "batch", "service_tier")
_KNOWN = {"input_tokens", "output_tokens", "input_cached_tokens", "num_model_requests"}


def admin_reports(ask: Ask, results: Results) -> WebSteps:
    """The reports of an organisation's API keys. Raises Trouble."""
    headers = ask.headers(authorization=f"Bearer {ask.secret}")
    yield from poll_reports.usage_and_costs(ask, results, _usage(ask, headers), _costs(ask, headers))


def _usage(ask: Ask, headers: dict[str, str]) -> Report:
    width = ask.options.get("bucket_width") or "1h"
    length, most = poll_reports.WIDTHS[width]
    mark = f"settled_{width}"
    query = [("start_time", str(poll_reports.start_of(ask, length, mark) // 1000)), ("bucket_width", width)]
    query += [("limit", "1" if ask.checking else str(most)), *(("group_by[]", name) for name in _GROUPS)]
    return Report(
        "/v1/organization/usage/completions",
        tuple(query),
        headers,
        "openai-organization",
        lambda bucket: (bucket.get("start_time"), bucket.get("end_time")),
        lambda ask, row, bucket: usage_event(ask, row, bucket, width),
        mark,
        length,
    )


def usage_event(ask: Ask, row: untrusted.Raw, bucket: Bucket, width: str) -> events.Event | None:
    """A row of the usage report; None if nothing was used. Raises events.BadRecord."""
    if not row.keys() & _KNOWN:
        raise events.BadRecord("a row has no known count")
    sent, read = untrusted.count(row, "input_tokens"), untrusted.count(row, "input_cached_tokens")
    wrote, wrote_12h = untrusted.count(row, "input_cache_write_tokens"), untrusted.count(row, "input_cache_write_12h_tokens")
    fresh = untrusted.count(row, "input_uncached_tokens") if row.get("input_uncached_tokens") is not None else None
    if fresh is None:
        fresh = sent - read - wrote - wrote_12h
    if fresh < 0:
        raise events.BadRecord("input_cached_tokens is more than input_tokens")
    counts = {
        "turns": untrusted.count(row, "num_model_requests"),
        "input_tokens": fresh,
        "cache_read_tokens": read,
        "cache_write_tokens": wrote,
        "cache_write_12h_tokens": wrote_12h,
        "output_tokens": untrusted.count(row, "output_tokens"),
    }
    tier = untrusted.text(row.get("service_tier"), 40)
    group = _group(row) | {"tier": tier, "batch": str(row.get("batch") is True)}
    served = "batch" if row.get("batch") is True else "" if tier in ("default", "standard", "auto") else tier
    return poll_reports.aggregate(ask, bucket, width, group, counts, provider=PROVIDER, tier=served, **_parts(row, counts))


def _parts(row: untrusted.Raw, counts: dict[str, int]) -> dict[str, int]:
    """Audio and images, if they are parts of the counts: in older answers they stood beside them."""
    sent = {
        f"{kind}_input_tokens": untrusted.count(row, f"input_{kind}_tokens")
        + untrusted.count(row, f"input_cached_{kind}_tokens")
        for kind in ("audio", "image")
    }
    if sum(sent.values()) > sum(value for name, value in counts.items() if name not in ("turns", "output_tokens")):
        sent = {}
    received = {f"{kind}_output_tokens": untrusted.count(row, f"output_{kind}_tokens") for kind in ("audio", "image")}
    return sent | (received if sum(received.values()) <= counts["output_tokens"] else {})


def _group(row: untrusted.Raw) -> dict[str, str]:
    return {
        "model": untrusted.text(row.get("model")),
        "key": untrusted.identity(row.get("api_key_id")),
        "workspace": untrusted.identity(row.get("project_id")),
    }


def _costs(ask: Ask, headers: dict[str, str]) -> Report:
    query = [("start_time", str(poll_reports.cost_start(ask) // 1000)), ("bucket_width", "1d"), ("limit", "180")]
    query += [("group_by[]", "line_item"), ("group_by[]", "project_id")]
    return Report(
        "/v1/organization/costs",
        tuple(query),
        headers,
        "openai-organization",
        lambda bucket: (bucket.get("start_time"), bucket.get("end_time")),
        cost_event,
    )


def cost_event(ask: Ask, row: untrusted.Raw, bucket: Bucket) -> events.Event | None:
    """A row of the cost report, which is of one project and line of the bill. Raises events.BadRecord."""
    amount = untrusted.mapping(row.get("amount"))
    if "value" not in amount:
        raise events.BadRecord("a row has no amount")
    if untrusted.text(amount.get("currency")).lower() not in ("", "usd"):
        raise events.BadRecord("an amount is not in USD")
    line = untrusted.text(row.get("line_item"))
    group = _group(row) | {"description": line}
    cost = poll_reports.usd(amount["value"])
    # "gpt-5.5-2026-04-23, cached input": the identity stays that of the line, the model is a field beside it.
    model = line.partition(", ")[0] if ", " in line and " " not in line.partition(", ")[0] else ""
    more = {"model": model} if model and not group["model"] else {}
    return poll_reports.aggregate(
        ask, bucket, "1d", group, {}, cost_usd=cost, cost_source="reported", provider=PROVIDER, **more
    )
