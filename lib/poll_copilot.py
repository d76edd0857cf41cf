"""Asks GitHub for the monthly quotas of a Copilot plan, at the endpoint of GitHub's own editors.

Undocumented; several independent tools saw these formats up to 2026-11. Percentages are the remainder, of 100, and
negative if more was used. A quota of 0 of 0 is a placeholder, not an empty one. An unlimited quota has no window,
unless it says that nothing is left (pooled organisations).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenops import etiquette, events, untrusted, when, wire_limits
from tokenops.etiquette import Ask, Request, Results, WebSteps

_KNOWN = {"quota_snapshots", "limited_user_quotas", "copilot_plan", "access_type_sku"}
_MONTH = {"window": "monthly", "window_minutes": 43_200}


def quotas(ask: Ask, results: Results) -> WebSteps:
    """The quotas of the account. Raises Trouble."""
    headers = ask.headers(authorization=f"token {ask.secret}", x_github_api_version="2025-04-01")
    body = etiquette.object_of((yield Request(f"{ask.url}/copilot_internal/user", headers)), ask.now)
    if not body.keys() & _KNOWN:
        raise etiquette.unknown_shape("no known quota")
    owner = untrusted.identity(body.get("login")) or ask.owner
    details = {"plan": untrusted.text(body.get("copilot_plan"), 60) or None, "account": ask.account(owner)}
    results.events += _snapshots(ask, body, details)
    results.events += _free_plan(ask, body, details)
    if not results.events:
        results.notices.append("GitHub reported no quota with a limit (unlimited, pooled or unknown): not 0")


def _snapshots(ask: Ask, body: untrusted.Raw, details: dict[str, Any]) -> Iterator[events.Event]:
    for name, value in sorted(untrusted.mapping(body.get("quota_snapshots")).items()):
        quota = untrusted.mapping(value)
        used = used_share(quota)
        if used is None or not untrusted.text(name, 60):
            continue
        resets = _first_time(quota.get("quota_reset_at"), body.get("quota_reset_date_utc"), body.get("quota_reset_date"))
        status = "rejected" if quota.get("has_quota") is False and used >= 1 else None
        observed_at = _taken_at(quota.get("timestamp_utc"), ask.now)
        yield events.meter(
            ask.source, "github", observed_at, scope=name, used=used, resets_at=resets, status=status, **_MONTH, **details
        )


def used_share(quota: untrusted.Raw) -> float | None:
    """The used share of a quota; None if it is unknown or there is no limit."""
    entitled, left = wire_limits.real(quota.get("entitlement")), wire_limits.real(quota.get("remaining"))
    if left is None:
        left = wire_limits.real(quota.get("quota_remaining"))
    percent = wire_limits.real(quota.get("percent_remaining"))
    if quota.get("unlimited") is True or (entitled is not None and entitled < 0):
        return 1.0 if quota.get("has_quota") is False else None
    if entitled == 0 and not left:
        return None
    if percent is not None:
        return wire_limits.fraction(1 - percent / 100)
    return wire_limits.fraction(1 - left / entitled) if entitled and left is not None else None


def _free_plan(ask: Ask, body: untrusted.Raw, details: dict[str, Any]) -> Iterator[events.Event]:
    """The quotas of the free plan as GitHub reported them until June 2026: what remains, and the whole."""
    whole = untrusted.mapping(body.get("monthly_quotas"))
    for name, value in sorted(untrusted.mapping(body.get("limited_user_quotas")).items()):
        left, entitled = wire_limits.real(value), wire_limits.real(whole.get(name))
        if left is not None and entitled and entitled > 0 and untrusted.text(name, 60):
            used, resets = wire_limits.fraction(1 - left / entitled), _first_time(body.get("limited_user_reset_date"))
            now = when.stamp(ask.now)
            yield events.meter(ask.source, "github", now, scope=name, used=used, resets_at=resets, **_MONTH, **details)


def _first_time(*candidates: object) -> str | None:
    """The first of some values that is a time."""
    for value in candidates:
        try:
            return untrusted.moment(value)
        except events.BadRecord:
            continue
    return None


def _taken_at(stamp: object, now: int) -> str:
    """When GitHub took the numbers: as it says, but not later than now."""
    taken = _first_time(stamp)
    return taken if taken is not None and taken <= when.stamp(now) else when.stamp(now)
