"""Asks OpenRouter for the budget of a key and the day's requests to free models.

Source: openrouter.ai/docs/api (2026-11). Amounts are dollars; a budget restarts at midnight UTC, on Mondays, or on the first
of the month; `null` means no limit. `rate_limit` has no meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tokenops import etiquette, events, poll_reports, untrusted, when, wire_limits
from tokenops.etiquette import Ask, Request, Results, WebSteps

_PERIODS = {"daily": ("daily", 1440), "weekly": ("weekly", 10_080), "monthly": ("monthly", 43_200)}


def key_budget(ask: Ask, results: Results) -> WebSteps:
    """The readings of a key. Raises Trouble."""
    headers = ask.headers(authorization=f"Bearer {ask.secret}")
    data = untrusted.mapping(etiquette.object_of((yield Request(f"{ask.url}/api/v1/key", headers)), ask.now).get("data"))
    if not data.keys() & {"limit", "limit_remaining", "usage", "free_model_daily_requests"}:
        raise etiquette.unknown_shape("no known budget")
    details = {"account": ask.account(untrusted.text(data.get("label")) or untrusted.identity(data.get("creator_user_id")))}
    results.events += [*_budget(ask, data, details), *_free(ask, data, details)]
    if not results.events:
        results.notices.append("this key has no budget; only the account's credit can run out")


def _budget(ask: Ask, data: untrusted.Raw, details: dict[str, Any]) -> Iterator[events.Event]:
    limit, left = wire_limits.real(data.get("limit")), wire_limits.real(data.get("limit_remaining"))
    if limit is None or limit < 0 or left is None or (limit == 0 and left > 0):
        return
    used = wire_limits.fraction(1 - left / limit) if limit else 1.0
    window, minutes = _PERIODS.get(untrusted.text(data.get("limit_reset")), ("credits", None))
    spent = Decimal(str(limit)) - Decimal(str(left))
    yield events.meter(
        ask.source,
        "openrouter",
        when.stamp(ask.now),
        window=window,
        window_minutes=minutes,
        used=used,
        resets_at=next_reset(window, ask.now),
        limit_usd=poll_reports.usd(limit) or "0",
        used_usd=poll_reports.usd(spent) or "0",
        **details,
    )


def next_reset(window: str, now: int) -> str | None:
    """When a budget of that period begins anew: the next midnight UTC, Monday, first of a month."""
    import datetime

    today = when.local(now, when.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = datetime.timedelta(days=1)
    if window == "daily":
        return when.canonical((today + day).isoformat())
    if window == "weekly":
        return when.canonical((today + day * (7 - today.weekday())).isoformat())
    if window == "monthly":
        return when.canonical((today.replace(day=28) + 4 * day).replace(day=1).isoformat())
    return None


def _free(ask: Ask, data: untrusted.Raw, details: dict[str, Any]) -> Iterator[events.Event]:
    """The day's requests to models that cost nothing."""
    requests = untrusted.mapping(data.get("free_model_daily_requests"))
    used, limit = wire_limits.real(requests.get("used")), wire_limits.real(requests.get("limit"))
    if used is not None and limit and limit > 0:
        reading = {"window": "daily", "window_minutes": 1440, "scope": "free", "used": wire_limits.fraction(used / limit)}
        resets = next_reset("daily", ask.now)
        yield events.meter(ask.source, "openrouter", when.stamp(ask.now), resets_at=resets, **reading, **details)
