"""Turns a vendor's statements about limits, in response headers and in quota events of a stream, into meter readings.

Only the names below are read, never credentials or cookies. An unreadable value drops only itself. Sources: the
vendors' API references, their open clients and recorded traffic, as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

from tokenops import events, light, untrusted, when
from tokenops.fields import MOST_MINUTES

SOURCE = "proxy"
# A larger share is no share: Claude Code has put the reset's epoch seconds there. Credits may be overdrawn some times.
MOST_USED = 10.0

Headers = Mapping[str, str]  # names in lower case

_UNIFIED = "anthropic-ratelimit-unified-"
# Slot -> window, minutes, scope.
_CLAIMS: dict[str, tuple[str, int | None, str | None]] = {
    "5h": ("five_hour", 300, None),
    "7d": ("weekly", 10_080, None),
    "7d_opus": ("weekly_opus", 10_080, "opus"),
    "7d_sonnet": ("weekly_sonnet", 10_080, "sonnet"),
    "7d_oi": ("weekly_fable", 10_080, "fable"),
    "overage": ("credits", None, None),
}
_CLAIMED = {
    "five_hour": "5h",
    "seven_day": "7d",
    "seven_day_opus": "7d_opus",
    "seven_day_sonnet": "7d_sonnet",
    "seven_day_overage_included": "7d_oi",
    "overage": "overage",
}
_CODEX = light.pattern(r"x-codex-(?:(.+)-)?(primary|secondary)-used-percent\Z")
_QUOTA = light.pattern(r"x-quota-snapshot-([a-z_]+)\Z")
_USAGE = light.pattern(r"x-usage-ratelimit-(session|weekly)\Z")
_DURATION = light.pattern(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?\Z")
_TOLD = light.pattern(r"(?:x-|anthropic-)?rate-?limit|x-codex-|x-quota-|x-usage-|anthropic-priority-")
# Vendors with a plain request limit that is not per minute.
_DAILY_REQUESTS = ("groq",)


def readings(provider: str, headers: Headers, ts: str, account: str = "") -> Iterator[events.Event]:
    """The meters of one answer's headers, seen at a time."""
    if not any(map(_TOLD.match, headers)):
        return
    fields = {"account": account or None}
    yield from _anthropic_plan(headers, ts, fields)
    yield from _codex_plan(headers, ts, fields)
    yield from _copilot(headers, ts, fields)
    yield from _api(provider, headers, ts, fields)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < 1e15 else None


def _moment(text: str | None) -> str | None:
    """A reset given in seconds (or milliseconds) since 1970, or as RFC 3339."""
    if not text:
        return None
    number = _number(text)
    try:
        return untrusted.moment(text if number is None else number)
    except events.BadRecord:
        return None


def fraction(value: float) -> float:
    """A share as a reading has it: at least 0, and more than 1 where more was used than there is."""
    return round(max(value, 0.0), 6)


def _anthropic_plan(headers: Headers, ts: str, fields: dict[str, Any]) -> Iterator[events.Event]:
    """A subscription's windows. Which of them there are depends on plan, model and moment."""
    overall = headers.get(f"{_UNIFIED}status")
    claim = _CLAIMED.get(headers.get(f"{_UNIFIED}representative-claim", ""))
    claimed = False
    for slot, (window, minutes, scope) in _CLAIMS.items():
        used = _number(headers.get(f"{_UNIFIED}{slot}-utilization"))
        used = None if used is None or used > MOST_USED else used
        status = headers.get(f"{_UNIFIED}{slot}-status") or (overall if slot == claim else None)
        if used is None and (status is None or slot == "overage"):
            continue
        claimed = claimed or (slot == claim and slot != "overage")  # refused for want of credits: the plan is used up, too
        resets = headers.get(f"{_UNIFIED}{slot}-reset") or (headers.get(f"{_UNIFIED}reset") if slot == claim else None)
        yield events.meter(
            SOURCE,
            "anthropic",
            ts,
            window=window,
            window_minutes=minutes,
            scope=scope,
            used=None if used is None else fraction(used),
            resets_at=_moment(resets),
            status=_word(status),
            **fields,
        )
    if overall == "rejected" and not claimed:
        resets = _moment(headers.get(f"{_UNIFIED}reset"))
        yield events.meter(SOURCE, "anthropic", ts, status="rejected", resets_at=resets, **fields)


def _word(text: str | None) -> str | None:
    return text if text and re.fullmatch(r"[a-z_]{1,40}", text) else None


def _codex_plan(headers: Headers, ts: str, fields: dict[str, Any]) -> Iterator[events.Event]:
    """A ChatGPT plan's windows, of each family of limits."""
    plan = untrusted.text(headers.get("x-codex-plan-type"), 40) or None
    reached = "rejected" if headers.get("x-codex-rate-limit-reached-type") else None
    for name in sorted(headers):
        match = _CODEX.match(name)
        used = _number(headers[name]) if match else None
        if match is None or used is None:
            continue
        stem = name.removesuffix("-used-percent")
        window = {
            "used_percent": used,
            "window_minutes": _number(headers.get(f"{stem}-window-minutes")),
            "reset_at": _number(headers.get(f"{stem}-reset-at")),
            "reset_after_seconds": _number(headers.get(f"{stem}-reset-after-seconds")),
        }
        yield from _codex_window(window, ts, match[1], plan, reached, fields)
    yield from _codex_credits(
        {name: headers.get(f"x-codex-credits-{name.replace('_', '-')}") for name in ("has_credits", "unlimited", "balance")},
        ts,
        fields,
    )


def _codex_window(
    window: untrusted.Raw,
    ts: str,
    scope: str | None,
    plan: str | None,
    status: str | None,
    fields: dict[str, Any],
    source: str = SOURCE,
) -> Iterator[events.Event]:
    used, minutes = real(window.get("used_percent")), real(window.get("window_minutes"))
    if used is None or used > 100 * MOST_USED or not minutes or not 1 <= minutes <= MOST_MINUTES:
        return
    at, after = real(window.get("reset_at")) or real(window.get("resets_at")), real(window.get("reset_after_seconds"))
    resets = _moment(str(at)) if at else None
    if resets is None and after is not None and 0 <= after < 1e9:
        resets = when.stamp(when.moment(ts) + int(after * 1000))
    yield events.meter(
        source,
        "openai",
        ts,
        window=when.window_name(minutes),
        window_minutes=int(minutes),
        scope=scope if scope != "codex" else None,
        used=fraction(used / 100),
        resets_at=resets,
        plan=plan,
        status=status,
        **fields,
    )


def real(value: object) -> float | None:
    """A number, None for anything else."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 else None


def _codex_credits(credits: untrusted.Raw, ts: str, fields: dict[str, Any], source: str = SOURCE) -> Iterator[events.Event]:
    """Paid credits, if there are any."""
    has, balance = str(credits.get("has_credits")).lower(), str(credits.get("balance") or "")
    if has in ("true", "1") and _number(balance) is not None:
        yield events.meter(source, "openai", ts, window="credits", balance=_number(balance), **fields)


# What Codex's app-server calls the fields of a window and of credits.
_APP_SERVER = {
    "used_percent": "usedPercent",
    "window_minutes": "windowDurationMins",
    "reset_at": "resetsAt",
    "has_credits": "hasCredits",
    "balance": "balance",
}


def app_server(snapshot: untrusted.Raw, source: str, ts: str, **fields: Any) -> Iterator[events.Event]:
    """The meters of one family of limits as Codex's app-server reports it: percent of 100, resets in seconds since 1970."""
    scope, plan = untrusted.text(snapshot.get("limitId"), 60), untrusted.text(snapshot.get("planType"), 40) or None
    reached = "rejected" if snapshot.get("rateLimitReachedType") else None
    for slot in ("primary", "secondary"):
        window = _in_our_names(untrusted.mapping(snapshot.get(slot)))
        yield from _codex_window(window, ts, scope or None, plan, reached, fields, source)
    yield from _codex_credits(_in_our_names(untrusted.mapping(snapshot.get("credits"))), ts, fields, source)


def _in_our_names(payload: untrusted.Raw) -> untrusted.Raw:
    return {name: payload.get(key) for name, key in _APP_SERVER.items()}


def quota_event(event: untrusted.Raw, ts: str, account: str = "") -> Iterator[events.Event]:
    """The meters of a `codex.rate_limits` event."""
    limits = untrusted.mapping(event.get("rate_limits"))
    name = untrusted.text(event.get("metered_limit_name")) or untrusted.text(event.get("limit_name"))
    plan = untrusted.text(event.get("plan_type"), 40) or None
    status = "rejected" if limits.get("limit_reached") is True and limits.get("allowed") is not True else None
    fields = {"account": account or None}
    for slot in ("primary", "secondary"):
        yield from _codex_window(untrusted.mapping(limits.get(slot)), ts, name or None, plan, status, fields)


def refusal(provider: str, status: int, error: untrusted.Raw, ts: str, account: str = "") -> Iterator[events.Event]:
    """The meter of an answer that reports in its body that a plan's limit is reached."""
    if status != 429 or error.get("type") != "usage_limit_reached":
        return
    at, within = real(error.get("resets_at")), real(error.get("resets_in_seconds"))
    resets = _moment(str(at)) if at else None
    if resets is None and within is not None and 0 <= within < 1e9:
        resets = when.stamp(when.moment(ts) + int(within * 1000))
    plan = untrusted.text(error.get("plan_type"), 40) or None
    yield events.meter(SOURCE, provider, ts, status="rejected", resets_at=resets, plan=plan, account=account or None)


def _copilot(headers: Headers, ts: str, fields: dict[str, Any]) -> Iterator[events.Event]:
    """A Copilot plan's quotas: percent that remain."""
    for name in sorted(headers):
        window: tuple[str, int | None, str | None]
        if quota := _QUOTA.match(name):
            window = ("monthly", 43_200, quota[1])
        elif limit := _USAGE.match(name):
            window = ("weekly", 10_080, None) if limit[1] == "weekly" else ("session", None, None)
        else:
            continue
        quotas = {key: values[-1] for key, values in parse_qs(headers[name]).items()}
        remains, entitled = _number(quotas.get("rem")), _number(quotas.get("ent"))
        if remains is None or entitled == -1 or (entitled == 0 and remains == 0):  # unlimited, and a placeholder
            continue
        used = fraction(1 - remains / 100)
        resets = _moment(quotas.get("rst"))
        length = {"window": window[0], "window_minutes": window[1], "scope": window[2]}
        yield events.meter(SOURCE, "github", ts, used=used, resets_at=resets, **length, **fields)


_PERIODS = (("month", 43_200), ("day", 1440), ("hour", 60), ("minute", 1), ("10-second", None))


def _api(provider: str, headers: Headers, ts: str, fields: dict[str, Any]) -> Iterator[events.Event]:
    """The rate limits of a metered key: what remains of how much, for a minute or a day."""
    for name in sorted(headers):
        if "-remaining" not in name or "ratelimit" not in name or name.startswith(_UNIFIED):
            continue
        limit = _number(headers.get(name.replace("-remaining", "-limit")))
        remains = _number(headers[name])
        if not limit or limit < 0 or remains is None:
            continue
        what = name.partition("ratelimit-")[2].replace("remaining", "").strip("-") or "requests"
        period = next(((word, minutes) for word, minutes in _PERIODS if what.endswith(word)), None)
        if period is not None:
            what = what.removesuffix(period[0]).strip("-") or "requests"
        else:
            daily = what == "requests" and provider in _DAILY_REQUESTS
            period = ("day", 1440) if daily else ("minute", 1)
        what = {"req": "requests"}.get(what, what).replace("-", "_")
        yield events.meter(
            SOURCE,
            provider,
            ts,
            window=f"{what}_per_{period[0].replace('-', '_')}",
            window_minutes=period[1],
            used=fraction(1 - remains / limit),
            resets_at=_reset(headers.get(name.replace("-remaining", "-reset")), ts),
            **fields,
        )


def _reset(text: str | None, ts: str) -> str | None:
    """A reset as a moment: RFC 3339, or a while from now such as 6m0s, 17.39s, 2ms or plain seconds."""
    if not text:
        return None
    if "T" in text:
        return _moment(text)
    number = _number(text)
    if number is None:
        match = _DURATION.match(text)
        if match is None or not any(match.groups()):
            return None
        days, hours, minutes, seconds, ms = (float(part or 0) for part in match.groups())
        number = ((days * 24 + hours) * 60 + minutes) * 60 + seconds + ms / 1000
    elif number > 1e9:
        return _moment(text)
    return when.stamp(when.moment(ts) + int(number * 1000)) if 0 <= number < 1e9 else None


# Anthropic's own report of a subscription: key -> window, minutes, scope. It comes from /api/oauth/usage, and is in the
# client's own cache of it.
FLAT = {
    "five_hour": ("five_hour", 300, None),
    "seven_day": ("weekly", 10_080, None),
    "seven_day_opus": ("weekly_opus", 10_080, "opus"),
    "seven_day_sonnet": ("weekly_sonnet", 10_080, "sonnet"),
    "seven_day_oauth_apps": ("weekly_oauth_apps", 10_080, "oauth_apps"),
}
_KINDS = {"session": ("five_hour", 300), "weekly_all": ("weekly", 10_080), "weekly_scoped": ("weekly", 10_080)}


def anthropic_usage(body: untrusted.Raw, source: str, observed_at: str, **fields: Any) -> Iterator[events.Event]:
    """The meters of Anthropic's report of a subscription: percent of 100, resets as RFC 3339 (or null: not begun).

    A window that is null or lacks its share is left out. Of a window given twice the fuller one counts.
    """
    meters: dict[tuple[str, str | None], dict[str, Any]] = {}
    for key, (window, minutes, scope) in FLAT.items():
        report = untrusted.mapping(body.get(key))
        _keep_fuller(
            meters, window, minutes, scope, report.get("utilization"), report.get("resets_at"), report.get("locked_reason")
        )
    for item in map(untrusted.mapping, untrusted.items(body.get("limits"))):
        kind = _KINDS.get(str(item.get("kind")))
        if kind is None:
            continue
        scope = _family(item) if item.get("kind") == "weekly_scoped" else None
        if item.get("kind") == "weekly_scoped" and scope is None:
            continue
        name = f"{kind[0]}_{scope}" if scope else kind[0]
        _keep_fuller(meters, name, kind[1], scope, item.get("percent"), item.get("resets_at"), None)
    for reading in meters.values():
        yield events.meter(source, "anthropic", observed_at, **reading, **fields)
    spend = untrusted.mapping(body.get("spend")) or untrusted.mapping(body.get("extra_usage"))
    percent = real(spend.get("percent", spend.get("utilization")))
    if percent is not None and (spend.get("enabled") is True or spend.get("is_enabled") is True):
        yield events.meter(source, "anthropic", observed_at, window="credits", used=fraction(percent / 100), **fields)


def reading_of_refusal(quota: untrusted.Raw) -> dict[str, Any]:
    """The window that a client's line says is used up, with its reset (epoch seconds), or the reset alone; else empty."""
    slot = _CLAIMED.get(str(quota.get("rateLimitType")))
    if quota.get("status") != "rejected":
        return {}
    resets = real(quota.get("resetsAt"))
    at = when.stamp(int(resets * 1000)) if resets is not None and 0 < resets < 1e10 else None
    if slot is None or slot == "overage":
        return {"resets_at": at} if at else {}
    return {**_window_of_slot(slot), "used": 1, "resets_at": at}


# The words of a client's line about a limit -> the slot of its window.
_WORDS = {"opus": "7d_opus", "sonnet": "7d_sonnet", "fable": "7d_oi", "weekly": "7d", "5-hour": "5h", "session": "5h"}


def window_in_words(text: str) -> dict[str, Any]:
    """The window that a client's line about a limit names; empty if it names none."""
    slot = next((slot for word, slot in _WORDS.items() if word in text.lower()), None)
    return _window_of_slot(slot) if slot else {}


def _window_of_slot(slot: str) -> dict[str, Any]:
    """The window of one of Anthropic's slots, such as 5h and 7d_opus."""
    window, minutes, scope = _CLAIMS[slot]
    return {"window": window, "window_minutes": minutes, "scope": scope}


def _family(item: untrusted.Raw) -> str | None:
    """The model family of a limit, in lower case; None if it is not named."""
    model = untrusted.mapping(untrusted.mapping(item.get("scope")).get("model"))
    word = re.sub(r"[^a-z0-9]+", "_", untrusted.text(model.get("display_name"), 40).lower()).strip("_")
    return word.removeprefix("claude_") or None


def _keep_fuller(
    meters: dict[tuple[str, str | None], dict[str, Any]],
    window: str,
    minutes: int,
    scope: str | None,
    percent: object,
    resets: object,
    locked: object,
) -> None:
    share = real(percent)
    if share is None or share > 100 * MOST_USED:
        return
    used = fraction(share / 100)
    before = meters.get((window, scope))
    if before is not None and before["used"] >= used:
        return
    at = _moment(resets if isinstance(resets, str) else str(resets)) if resets is not None else None
    meters[window, scope] = {"window": window, "window_minutes": minutes, "scope": scope, "used": used, "resets_at": at}
    if isinstance(locked, str) and locked:
        meters[window, scope]["status"] = "rejected"


def status_line(payload: untrusted.Raw, observed_at: str, **fields: Any) -> Iterator[events.Event]:
    """The meters of what Claude Code gives its status line: percent of 100, resets in seconds since 1970 or RFC 3339."""
    meters: dict[tuple[str, str | None], dict[str, Any]] = {}
    limits = untrusted.mapping(payload.get("rate_limits"))
    for key in ("five_hour", "seven_day"):
        window, minutes, scope = FLAT[key]
        report = untrusted.mapping(limits.get(key))
        _keep_fuller(meters, window, minutes, scope, report.get("used_percentage"), report.get("resets_at"), None)
    for reading in meters.values():
        yield events.meter("claude-code-statusline", "anthropic", observed_at, client="claude-code", **reading, **fields)
