"""Asks Anthropic: usage and cost of an organisation\'s API keys, and the windows of a Claude plan.

Sources: the API reference at platform.claude.com (2026-11) for the reports; several independent tools (2026) for the
windows, whose endpoints are undocumented. Percentages are of 100; costs are texts in cents.
"""

from __future__ import annotations

import re

from tokenops import etiquette, events, poll_reports, untrusted, when, wire_limits
from tokenops.etiquette import Ask, Request, Results, Trouble, WebSteps
from tokenops.poll_reports import Bucket, Report

PROVIDER = "anthropic"
_GROUPS = ("model", "workspace_id", "api_key_id", "service_tier", "inference_geo")
_TIERS = {"standard": "", "priority_on_demand": "priority", "flex_discount": "flex"}
_KNOWN = {"uncached_input_tokens", "cache_read_input_tokens", "cache_creation", "output_tokens", "server_tool_use"}


def admin_reports(ask: Ask, results: Results) -> WebSteps:
    """The reports of an organisation's API keys. Raises Trouble."""
    headers = ask.headers(x_api_key=ask.secret, anthropic_version="2023-06-01")
    yield from poll_reports.usage_and_costs(ask, results, _usage(ask, headers), _costs(ask, headers))


def _usage(ask: Ask, headers: dict[str, str]) -> Report:
    width = ask.options.get("bucket_width") or "1h"
    length, most = poll_reports.WIDTHS[width]
    mark = f"settled_{width}"
    query = [("starting_at", when.stamp(poll_reports.start_of(ask, length, mark))), ("bucket_width", width)]
    query += [("limit", "1" if ask.checking else str(most)), *(("group_by[]", name) for name in _GROUPS)]
    return Report(
        "/v1/organizations/usage_report/messages",
        tuple(query),
        headers,
        "anthropic-organization-id",
        lambda bucket: (bucket.get("starting_at"), bucket.get("ending_at")),
        lambda ask, row, bucket: usage_event(ask, row, bucket, width),
        mark,
        length,
    )


def usage_event(ask: Ask, row: untrusted.Raw, bucket: Bucket, width: str) -> events.Event | None:
    """A row of the usage report; None if nothing was used. Raises events.BadRecord."""
    if not row.keys() & _KNOWN:
        raise events.BadRecord("a row has no known count")
    wrote = untrusted.mapping(row.get("cache_creation"))
    counts = {
        "input_tokens": untrusted.count(row, "uncached_input_tokens"),
        "cache_read_tokens": untrusted.count(row, "cache_read_input_tokens"),
        "cache_write_tokens": untrusted.count(wrote, "ephemeral_5m_input_tokens"),
        "cache_write_1h_tokens": untrusted.count(wrote, "ephemeral_1h_input_tokens"),
        "output_tokens": untrusted.count(row, "output_tokens"),
        "web_searches": untrusted.count(untrusted.mapping(row.get("server_tool_use")), "web_search_requests"),
    }
    group, more = _group(row)
    return poll_reports.aggregate(ask, bucket, width, group, counts, **more)


def _group(row: untrusted.Raw) -> tuple[dict[str, str], dict[str, str]]:
    """What a row was grouped by: its identity, and the fields that say it."""
    tier, geo = untrusted.text(row.get("service_tier"), 40), untrusted.text(row.get("inference_geo"), 40)
    group = {
        "model": untrusted.text(row.get("model")),
        "key": untrusted.identity(row.get("api_key_id")),
        "workspace": untrusted.identity(row.get("workspace_id")),
        "tier": tier,
        "geo": geo,
    }
    return group, {"provider": PROVIDER, "tier": _TIERS.get(tier, tier), "geo": geo if geo in ("us", "eu") else ""}


def _costs(ask: Ask, headers: dict[str, str]) -> Report:
    query = [("starting_at", when.stamp(poll_reports.cost_start(ask))), ("bucket_width", "1d"), ("limit", "31")]
    query += [("group_by[]", "workspace_id"), ("group_by[]", "description")]
    return Report(
        "/v1/organizations/cost_report",
        tuple(query),
        headers,
        "anthropic-organization-id",
        lambda bucket: (bucket.get("starting_at"), bucket.get("ending_at")),
        cost_event,
    )


def cost_event(ask: Ask, row: untrusted.Raw, bucket: Bucket) -> events.Event | None:
    """A row of the cost report, which is of one workspace and description. Raises events.BadRecord."""
    if "amount" not in row:
        raise events.BadRecord("a row has no amount")
    if untrusted.text(row.get("currency")) not in ("", "USD"):
        raise events.BadRecord("an amount is not in USD")
    group, more = _group(row)
    group["description"] = untrusted.text(row.get("description")) or untrusted.text(row.get("cost_type"))
    return poll_reports.aggregate(
        ask, bucket, "1d", group, {}, cost_usd=poll_reports.usd(row["amount"], 100), cost_source="reported", **more
    )


_WINDOWS = {*wire_limits.FLAT, "limits", "spend", "extra_usage"}
# Of several organisations of one login, read the one with a plan that has limits; the API's own has none.
_CAPABILITIES = ("claude_max", "claude_pro", "chat")


def oauth_windows(ask: Ask, results: Results) -> WebSteps:
    """The windows of a plan, with the token of Claude Code. Raises Trouble."""
    headers = ask.headers(authorization=f"Bearer {ask.secret}", anthropic_beta="oauth-2025-04-20")
    answer = yield Request(f"{ask.url}/api/oauth/usage", headers)
    owner = untrusted.identity(answer.headers.get("anthropic-organization-id")) or ask.owner
    add_windows(ask, results, etiquette.object_of(answer, ask.now), owner, ask.plan)


def cookie_windows(ask: Ask, results: Results) -> WebSteps:
    """The windows of a plan, with the cookie of a browser. Raises Trouble."""
    headers = ask.headers(cookie=f"sessionKey={ask.secret}")
    name, plan = ask.options.get("org_id", ""), ""
    if not name:
        answer = yield Request(f"{ask.url}/api/organizations", headers)
        name, plan = organization_of(etiquette.value_of(answer, ask.now), results)
    if not re.fullmatch(r"[\w-]{1,100}", name, re.ASCII):
        raise Trouble(etiquette.CHANGED, "the organisation's id is not valid; set vendor_usage.anthropic_cookie.org_id")
    answer = yield Request(f"{ask.url}/api/organizations/{name}/usage", headers)
    add_windows(ask, results, etiquette.object_of(answer, ask.now), name, plan)


def organization_of(body: object, results: Results) -> tuple[str, str]:
    """Id and plan of the organisation to read. Raises Trouble."""
    entries = [entry for entry in map(untrusted.mapping, untrusted.items(body)) if untrusted.identity(entry.get("uuid"))]
    if not entries:
        raise etiquette.unknown_shape("no organisation with an id")
    ranked = []
    for entry in entries:
        can = set(map(str, untrusted.items(entry.get("capabilities"))))
        ranked.append((next((n for n, word in enumerate(_CAPABILITIES) if word in can), len(_CAPABILITIES)), entry))
    _, best = min(ranked, key=lambda pair: pair[0])
    uuid = untrusted.identity(best["uuid"])
    usable = sum(rank < len(_CAPABILITIES) for rank, _ in ranked)
    if usable > 1:
        results.notices.append(f"{usable} organisations have a plan; {uuid} is read; org_id in config.yaml chooses another")
    return uuid, untrusted.text(best.get("rate_limit_tier"), 60)


def add_windows(ask: Ask, results: Results, body: untrusted.Raw, owner: str, plan: str) -> None:
    """The readings of a plan's report. Raises Trouble if none of its fields is known."""
    if not body.keys() & _WINDOWS:
        raise etiquette.unknown_shape("no known window")
    details = {"account": ask.account(owner), "plan": plan or None}
    results.events += wire_limits.anthropic_usage(body, ask.source, when.stamp(ask.now), **details)
    if not results.events:
        results.notices.append("Anthropic reported no window for this account; its use is unknown, not 0")
