"""What vendors say of their limits in headers and in streams."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenops import fields, when, wire_limits

NOW = "2026-11-21T09:30:00.000Z"
RESET = "2026-11-21T12:00:00.000Z"
AT = str(when.moment(RESET) // 1000)
U = "anthropic-ratelimit-unified-"

CASES: list[tuple[str, dict[str, str], list[dict[str, Any]]]] = [
    # A Max plan: two windows, and the verdict stands with the window that decided it.
    (
        "anthropic",
        {
            f"{U}status": "allowed_warning",
            f"{U}representative-claim": "seven_day",
            f"{U}5h-utilization": "0.42",
            f"{U}5h-reset": AT,
            f"{U}7d-utilization": "1.01",
            f"{U}7d-reset": RESET,
            f"{U}5h-status": "allowed",
        },
        [
            {"window": "five_hour", "window_minutes": 300, "used": 0.42, "resets_at": RESET, "status": "allowed"},
            {"window": "weekly", "window_minutes": 10080, "used": 1.01, "resets_at": RESET, "status": "allowed_warning"},
        ],
    ),
    # -0.0 is nothing used; a value that is none drops itself; a window of one model has a scope.
    (
        "anthropic",
        {f"{U}5h-utilization": "-0.0", f"{U}7d-utilization": "x", f"{U}7d_oi-utilization": "0.5", f"{U}7d_oi-reset": "soon"},
        [
            {"window": "five_hour", "used": 0.0, "resets_at": None},
            {"window": "weekly_fable", "scope": "fable", "used": 0.5, "resets_at": None},
        ],
    ),
    # Rejected by a window that shows no share.
    (
        "anthropic",
        {f"{U}status": "rejected", f"{U}representative-claim": "five_hour", f"{U}reset": AT},
        [{"window": "five_hour", "status": "rejected", "resets_at": RESET, "used": None}],
    ),
    ("anthropic", {f"{U}status": "rejected", f"{U}reset": AT}, [{"window": None, "status": "rejected", "resets_at": RESET}]),
    # A 429 without these headers is no quota.
    ("anthropic", {"retry-after": "12"}, []),
    (
        "anthropic",
        {"anthropic-ratelimit-input-tokens-limit": "2000", "anthropic-ratelimit-input-tokens-remaining": "500",
         "anthropic-ratelimit-input-tokens-reset": RESET},
        [{"window": "input_tokens_per_minute", "window_minutes": 1, "used": 0.75, "resets_at": RESET}],
    ),
    # Codex: windows by their length, a second family, no empty window.
    (
        "openai",
        {
            "x-codex-primary-used-percent": "7.5",
            "x-codex-primary-window-minutes": "10080",
            "x-codex-primary-reset-at": AT + "000",
            "x-codex-secondary-used-percent": "0",
            "x-codex-secondary-window-minutes": "0",
            "x-codex-bengalfox-primary-used-percent": "30",
            "x-codex-bengalfox-primary-window-minutes": "299",
            "x-codex-bengalfox-primary-reset-after-seconds": "9000",
            "x-codex-plan-type": "plus",
        },
        [
            {"window": "five_hour", "scope": "bengalfox", "used": 0.3, "resets_at": RESET, "plan": "plus"},
            {"window": "weekly", "scope": None, "used": 0.075, "resets_at": RESET, "plan": "plus"},
        ],
    ),
    ("openai", {"x-codex-credits-has-credits": "true", "x-codex-credits-balance": "12.5"}, [{"window": "credits", "balance": 12.5}]),
    (
        "openai",
        {"x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "900", "x-ratelimit-reset-tokens": "2h30m0s",
         "x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "99", "x-ratelimit-reset-requests": "2ms"},
        [{"window": "requests_per_minute", "used": 0.01, "resets_at": "2026-11-21T09:30:00.002Z"},
         {"window": "tokens_per_minute", "used": 0.1, "resets_at": RESET}],
    ),
    ("xai", {"x-ratelimit-limit-requests": "480", "x-ratelimit-remaining-requests": "360"}, [{"window": "requests_per_minute", "used": 0.25}]),
    ("groq", {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "25"}, [{"window": "requests_per_day", "used": 0.75}]),
    (
        "mistral",
        {"x-ratelimit-limit-tokens-month": "10", "x-ratelimit-remaining-tokens-month": "4", "x-ratelimit-limit-req-10-second": "5",
         "x-ratelimit-remaining-req-10-second": "5"},
        [{"window": "requests_per_10_second", "used": 0.0}, {"window": "tokens_per_month", "used": 0.6, "window_minutes": 43200}],
    ),
    (
        "cerebras",
        {"x-ratelimit-limit-requests-day": "10", "x-ratelimit-remaining-requests-day": "9", "x-ratelimit-reset-requests-day": "9000.0"},
        [{"window": "requests_per_day", "used": 0.1, "resets_at": RESET}],
    ),
    ("together", {"x-ratelimit-limit": "6", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "1"}, [{"window": "requests_per_minute", "used": 0.5}]),
    # Copilot says what remains; -1 is unlimited, 0 of 0 a placeholder.
    (
        "github",
        {
            "x-quota-snapshot-premium_interactions": "ent=300&ov=0.0&ovPerm=false&rem=75.5&rst=2026-11-21T12%3A00%3A00Z",
            "x-quota-snapshot-chat": "ent=-1&ov=0.0&ovPerm=false&rem=100.0",
            "x-quota-snapshot-completions": "ent=0&rem=0",
            "x-usage-ratelimit-weekly": "rem=-5&rst=2026-11-21T12%3A00%3A00Z",
        },
        [
            {"window": "monthly", "scope": "premium_interactions", "used": 0.245, "resets_at": RESET},
            {"window": "weekly", "used": 1.05, "resets_at": RESET},
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "headers", "expected"), CASES)
def test_headers(provider: str, headers: dict[str, str], expected: list[dict[str, Any]]) -> None:
    found = list(wire_limits.readings(provider, headers, NOW))
    assert [{key: meter.get(key) for key in wanted} for meter, wanted in zip(found, expected, strict=True)] == expected
    for meter in found:
        assert not fields.fault(meter), fields.fault(meter)
        assert meter["source"] == "proxy"


def test_an_event_in_the_stream() -> None:
    event = {
        "type": "codex.rate_limits",
        "plan_type": "pro",
        "rate_limits": {
            "allowed": True,
            "limit_reached": False,
            "primary": {"used_percent": 12, "window_minutes": 300, "reset_at": int(AT)},
            "secondary": None,
        },
    }
    [meter] = wire_limits.quota_event(event, NOW)
    assert (meter["window"], meter["used"], meter["resets_at"], meter["plan"]) == ("five_hour", 0.12, RESET, "pro")
    assert "status" not in meter


def test_a_refusal_says_when_it_ends() -> None:
    [meter] = wire_limits.refusal(
        "openai", 429, {"type": "usage_limit_reached", "plan_type": "plus", "resets_in_seconds": 9000}, NOW
    )
    assert (meter["status"], meter["resets_at"], meter["plan"]) == ("rejected", RESET, "plus")
    assert not list(wire_limits.refusal("openai", 429, {"type": "rate_limit_exceeded"}, NOW))
    assert not list(wire_limits.refusal("openai", 200, {"type": "usage_limit_reached"}, NOW))


@given(st.dictionaries(st.sampled_from(sorted({name for _, headers, _ in CASES for name in headers})), st.text(max_size=12)))
def test_any_values(headers: dict[str, str]) -> None:
    for meter in wire_limits.readings("anthropic", headers, NOW):
        assert not fields.fault(meter)
