"""Asks Cursor how much of a plan its billing cycle has used, at the endpoint of Cursor's own dashboard.

Undocumented; several independent tools saw these formats up to 2026-11. Percentages are of 100 (0.36 means 0.36 %) and
may exceed it. Money is in cents; its ratio is not the percentage that the dashboard shows, so it counts only if no
percentage is given.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

from tokenops import etiquette, events, untrusted, when, wire_limits
from tokenops.etiquette import Ask, Request, Results, Trouble, WebSteps

_KNOWN = {"individualUsage", "teamUsage", "billingCycleEnd", "membershipType"}
# Pool -> its field. The total binds; the pools are shown beside it.
_POOLS = (("", "totalPercentUsed"), ("auto", "autoPercentUsed"), ("api", "apiPercentUsed"))


def summary(ask: Ask, results: Results) -> WebSteps:
    """The windows of the account. Raises Trouble."""
    owner, token, value = session_of(ask.secret, ask.options.get("user_id", ""))
    claims = _claims(token)
    if (ends := wire_limits.real(claims.get("exp"))) is not None and ends * 1000 <= ask.now:
        raise Trouble(etiquette.REFUSED, "the cookie has expired; log in to cursor.com and store the new one")
    headers = ask.headers(cookie=f"WorkosCursorSessionToken={value}")
    body = etiquette.object_of((yield Request(f"{ask.url}/api/usage-summary", headers)), ask.now)
    if not body.keys() & _KNOWN:
        raise etiquette.unknown_shape("no known usage")
    details = {
        "account": ask.account(owner or untrusted.identity(claims.get("sub")).rpartition("|")[2]),
        "plan": untrusted.text(body.get("membershipType"), 60) or None,
    }
    results.events += _windows(ask, body, details)
    if not results.events:
        results.notices.append("Cursor reported no limit for this plan (unlimited or unknown); its use is unknown, not 0")


def session_of(cookie: str, user_id: str) -> tuple[str, str, str]:
    """User and token of a cookie, which may hold the token alone; and the cookie as it is sent."""
    owner, separator, token = unquote(cookie).partition("::")
    if separator:
        return owner, token, cookie.replace("::", "%3A%3A")
    return user_id, cookie, f"{quote(user_id)}%3A%3A{cookie}" if user_id else cookie


def _claims(token: str) -> untrusted.Raw:
    """The claims of a token: when it expires, and its owner."""
    part = token.split(".")[1] if re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]*", token) else ""
    try:
        return untrusted.mapping(untrusted.json_value(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))
    except ValueError:
        return {}


def _windows(ask: Ask, body: untrusted.Raw, details: dict[str, Any]) -> Iterator[events.Event]:
    mine, team = untrusted.mapping(body.get("individualUsage")), untrusted.mapping(body.get("teamUsage"))
    cycle = _cycle(body)
    shares: dict[tuple[str, str], float] = {}  # by window and scope
    if body.get("isUnlimited") is not True:
        plan = untrusted.mapping(mine.get("plan"))
        for scope, name in _POOLS if plan.get("enabled") is not False else ():
            if (percent := wire_limits.real(plan.get(name))) is not None:
                shares["", scope] = wire_limits.fraction(percent / 100)
        whole = (untrusted.mapping(mine.get("overall")), plan)
        if not shares and (used := next((ratio for ratio in map(_ratio, whole) if ratio is not None), None)) is not None:
            shares["", ""] = used
        if (used := _ratio(untrusted.mapping(team.get("pooled")))) is not None:
            shares["", "team"] = used
    for scope, side in (("", mine), ("team", team)):
        if (used := _ratio(untrusted.mapping(side.get("onDemand")))) is not None:
            shares["credits", scope] = used
    for (window, scope), used in shares.items():
        length = {"window": window} if window else {"window": cycle[0], "window_minutes": cycle[1]}
        reading = {**length, "scope": scope or None, "used": used, "resets_at": cycle[2]}
        yield events.meter(ask.source, "cursor", when.stamp(ask.now), **reading, **details)


def _ratio(budget: untrusted.Raw) -> float | None:
    """The used share of a budget in cents; None if it is switched off or has no limit."""
    used, limit = wire_limits.real(budget.get("used")), wire_limits.real(budget.get("limit"))
    if budget.get("enabled") is False or used is None or not limit or limit < 0:
        return None
    return wire_limits.fraction(used / limit)


def _cycle(body: untrusted.Raw) -> tuple[str, int | None, str | None]:
    """Name, minutes and end of the billing cycle: a month is one, whether it has 28 days or 31."""
    try:
        begins, ends = (when.moment(untrusted.moment(body.get(f"billingCycle{name}"))) for name in ("Start", "End"))
    except events.BadRecord:
        return "monthly", 43_200, _end(body)
    days = (ends - begins) / when.DAY
    if 27 < days < 32:
        return "monthly", 43_200, when.stamp(ends)
    return (when.window_name(days * 1440), int(days * 1440), when.stamp(ends)) if days > 0 else ("monthly", 43_200, None)


def _end(body: untrusted.Raw) -> str | None:
    try:
        return untrusted.moment(body.get("billingCycleEnd"))
    except events.BadRecord:
        return None
