"""What the vendors' own answers say: units, absences, placeholders, pages."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vendors import (
    NOW,
    ORG,
    ORGANIZATIONS,
    Json,
    analytics_model,
    analytics_page,
    analytics_row,
    cost_row,
    cursor,
    openai_page,
    openai_usage_row,
    openrouter,
    plan,
    quota,
    snapshot,
    token,
    usage_page,
    usage_row,
)
from vendors import copilot as copilot_body

from tokenops import (
    etiquette,
    events,
    fields,
    headroom,
    joins,
    limit_windows,
    poll_analytics,
    poll_anthropic,
    poll_codex,
    poll_copilot,
    poll_cursor,
    poll_openai,
    poll_openrouter,
    projects,
    when,
)
from tokenops.etiquette import Answer, Ask, Request, Results, Trouble

RULES = {"settle_minutes": 60, "first_hours": 24, "cost_minutes": 60, "passive_minutes": 30}
STAMP = when.stamp(NOW)
HOUR = 3_600_000


def ask(**given: Any) -> Ask:
    usual: dict[str, Any] = {"source": "vendor-usage-x", "url": "https://x", "secret": "sentinel-secret", "now": NOW}
    usual |= {"version": "1", "salt": b"salt", "options": {}, "rules": RULES, "marks": {}}
    return Ask(**usual | given)


def told(steps: Any, *bodies: Any, headers: dict[str, str] | None = None, **given: Any) -> tuple[Results, list[Any]]:
    """What a poller makes of answers given one after the other, and what it asked for."""
    left, asked, found = list(bodies), [], Results()

    def answer(request: Any) -> Any:
        asked.append(request)
        if not isinstance(request, Request):
            return left.pop(0) if request.id is not None else {}
        body = left.pop(0)
        if isinstance(body, Answer):
            return body
        return Answer(200, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode())

    etiquette.run_steps(steps(ask(**given), found), answer)
    for event in found.events:
        assert not fields.fault(event), fields.fault(event)
        assert "sentinel" not in json.dumps(event)
    return found, asked


def meters(found: Results) -> list[tuple[Any, ...]]:
    return [(one["window"], one.get("scope"), one.get("used"), one.get("resets_at", "")[:16]) for one in found.events]


# Codex: percent of 100, epoch seconds; windows are told by their length, whatever their slot.
FIVE, WEEK = ("five_hour", None, 0.42, "2026-11-21T12:00"), ("weekly", None, 0.05, "2026-11-25T04:00")
WEEKLY_FIRST = {"usedPercent": 5, "windowDurationMins": 10_080, "resetsAt": 1_795_579_200}
CODEX: list[tuple[str, Json, list[tuple[Any, ...]]]] = [
    ("both", {"rateLimits": snapshot()}, [FIVE, WEEK]),
    ("by id, told twice", {"rateLimits": snapshot(), "rateLimitsByLimitId": {"codex": snapshot()}}, [FIVE, WEEK]),
    ("the weekly window first", {"rateLimits": snapshot(primary=WEEKLY_FIRST, secondary=None)}, [WEEK]),
    ("no window", {"rateLimits": snapshot(primary=None, secondary=None)}, []),
    ("no share", {"rateLimits": snapshot(primary={"windowDurationMins": 300}, secondary=None)}, []),
    ("no length", {"rateLimits": snapshot(primary={"usedPercent": 9}, secondary=None)}, []),
    ("1 is 1 %", {"rateLimits": snapshot(primary={"usedPercent": 1, "windowDurationMins": 299}, secondary=None)}, [("five_hour", None, 0.01, "")]),
    ("another family", {"rateLimits": snapshot(), "rateLimitsByLimitId": {"codex_other": snapshot("codex_other", secondary=None)}}, [("five_hour", "codex_other", 0.42, "2026-11-21T12:00"), FIVE, WEEK]),
    ("credits", {"rateLimits": snapshot(primary=None, secondary=None, credits={"hasCredits": True, "unlimited": False, "balance": "5.39"})}, [("credits", None, None, "")]),
    ("no credits", {"rateLimits": snapshot(primary=None, secondary=None, credits={"hasCredits": False, "balance": "0"})}, []),
]  # fmt: skip


@pytest.mark.parametrize(("what", "result", "expected"), CODEX, ids=[case[0] for case in CODEX])
def test_codex(what: str, result: Json, expected: list[tuple[Any, ...]]) -> None:
    found, asked = told(poll_codex.app_server, {"id": 1, "result": {}}, {"id": 2, "result": result})
    assert meters(found) == expected
    assert [one.method for one in asked] == ["initialize", "initialized", "account/rateLimits/read"]
    assert asked[0].params["clientInfo"]["name"] == "tokenops"
    assert bool(found.notices) == (not expected)


def test_codex_reached() -> None:
    reached = {"rateLimits": snapshot(rateLimitReachedType="workspace_member_usage_limit_reached")}
    found, _ = told(poll_codex.app_server, {"result": {}}, {"result": reached})
    assert {(one["status"], one["plan"], one["client"], one["provider"]) for one in found.events} == {
        ("rejected", "plus", "codex", "openai")
    }


@pytest.mark.parametrize(
    ("error", "kind", "why"),
    [
        (
            {"code": -32600, "message": "chatgpt authentication required to read rate limits"},
            etiquette.REFUSED,
            "an API key",
        ),
        (
            {"code": -32600, "message": "codex account authentication required to read rate limits"},
            etiquette.REFUSED,
            "codex login",
        ),
        ({"code": -32601, "message": "Method not found"}, etiquette.CHANGED, "update it"),
        ({"code": -32603, "message": "sentinel-words"}, etiquette.FAILING, "offline"),
        ("sentinel-words", etiquette.FAILING, "offline"),
    ],
)
def test_codex_errors(error: Any, kind: str, why: str) -> None:
    with pytest.raises(Trouble) as caught:
        told(poll_codex.app_server, {"result": {}}, {"id": 2, "error": error})
    assert caught.value.kind == kind and why in caught.value.why and "sentinel" not in caught.value.why


# A Claude plan: percent of 100, RFC 3339 or null; 42 is 42 %, 0.5 is half a percent.
ANTHROPIC: list[tuple[str, Json, list[tuple[Any, ...]]]] = [
    ("all", plan(), [("five_hour", None, 0.42, "2026-11-21T12:00"), ("weekly", None, 0.07, "2026-11-25T04:00"), ("weekly_fable", "fable", 0.33, "2026-11-25T04:00")]),
    ("no five-hour window", plan(five=None, limits=[]), [("weekly", None, 0.07, "2026-11-25T04:00")]),
    ("half a percent", plan(five=0.5, weekly=None, limits=[]), [("five_hour", None, 0.005, "2026-11-21T12:00")]),
    ("more than all", plan(five=105.0, weekly=None, limits=[]), [("five_hour", None, 1.05, "2026-11-21T12:00")]),
    ("not begun", {"five_hour": {"utilization": 0.0, "resets_at": None}}, [("five_hour", None, 0.0, "")]),
    ("nulls", {"five_hour": None, "seven_day": {"utilization": None, "resets_at": None}}, []),
    ("credits", {"spend": {"percent": 50, "enabled": True}}, [("credits", None, 0.5, "")]),
    ("half of it", {"five_hour": {"utilization": "lots"}, "seven_day": {"utilization": 3}}, [("weekly", None, 0.03, "")]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "body", "expected"), ANTHROPIC, ids=[case[0] for case in ANTHROPIC])
def test_a_claude_plan(what: str, body: Json, expected: list[tuple[Any, ...]]) -> None:
    found, asked = told(poll_anthropic.oauth_windows, body, owner=ORG, plan="default_claude_max_5x")
    assert meters(found) == expected
    assert bool(found.notices) == (not expected)
    assert asked[0].headers["authorization"] == "Bearer sentinel-secret"
    assert asked[0].headers["user-agent"] == "tokenops/1"
    by_cookie, _ = told(poll_anthropic.cookie_windows, ORGANIZATIONS, body)
    assert meters(by_cookie) == expected


def test_an_account_is_the_same_whoever_tells_of_it() -> None:
    account = projects.hash_path(ORG, b"salt")  # as tok-proxy makes it of the header anthropic-organization-id
    for found in (
        told(poll_anthropic.oauth_windows, plan(), owner=ORG)[0],
        told(poll_anthropic.oauth_windows, plan(), headers={"anthropic-organization-id": ORG}, owner="another")[0],
        told(poll_anthropic.cookie_windows, ORGANIZATIONS, plan())[0],
        told(poll_anthropic.cookie_windows, plan(), options={"org_id": ORG})[0],
    ):
        assert {one["account"] for one in found.events} == {account}
        assert ORG not in json.dumps(found.events)


def test_which_organisation() -> None:
    found, asked = told(poll_anthropic.cookie_windows, ORGANIZATIONS, plan())
    assert [one.url for one in asked] == ["https://x/api/organizations", f"https://x/api/organizations/{ORG}/usage"]
    assert asked[0].headers["cookie"] == "sessionKey=sentinel-secret"
    assert found.events[0]["plan"] == "default_claude_max_5x" and not found.notices
    chat = {"uuid": "cccc-3", "name": "team", "capabilities": ["chat"]}
    found, asked = told(poll_anthropic.cookie_windows, [chat, *ORGANIZATIONS], plan())
    assert ORG in asked[1].url and "2 organisations have a plan" in found.notices[0] and ORG in found.notices[0]
    found, asked = told(poll_anthropic.cookie_windows, plan(), options={"org_id": "cccc-3"})
    assert [one.url for one in asked] == ["https://x/api/organizations/cccc-3/usage"]
    with pytest.raises(Trouble, match="org_id"):
        told(poll_anthropic.cookie_windows, plan(), options={"org_id": "../../x"})
    with pytest.raises(Trouble, match="no organisation"):
        told(poll_anthropic.cookie_windows, [])


UNLIMITED = {"entitlement": 0, "remaining": 0, "quota_remaining": 0.0, "percent_remaining": 100.0, "unlimited": True}
# Copilot: percent that remains, of 100, negative when more was used; 0 of 0 is a placeholder.
COPILOT: list[tuple[str, Json, float | None]] = [
    ("three quarters left", {}, 0.245),
    ("more than all", {"percent_remaining": -0.3333}, 1.003333),
    ("nothing left", {"percent_remaining": 0.0, "remaining": 0}, 1.0),
    ("unlimited", UNLIMITED, None),
    ("unlimited by entitlement", {"entitlement": -1, "remaining": -1}, None),
    ("unlimited, and nothing left of the pool", UNLIMITED | {"has_quota": False}, 1.0),
    ("a placeholder", {"entitlement": 0, "remaining": 0, "percent_remaining": 0.0}, None),
    ("a placeholder without quota", {"entitlement": 0, "remaining": 0, "percent_remaining": 0.0, "has_quota": False}, None),
    ("a placeholder that is full", {"entitlement": 0, "remaining": 0, "percent_remaining": 100.0}, None),
    ("no percent", {"percent_remaining": None, "remaining": 75}, 0.75),
    ("nothing but the percent", {"entitlement": None, "remaining": None, "quota_remaining": None}, 0.245),
    ("nothing", {"entitlement": 300, "remaining": None, "quota_remaining": None, "percent_remaining": None}, None),
    ("texts", {"entitlement": "300", "remaining": "75", "quota_remaining": None, "percent_remaining": "25"}, None),
]


@pytest.mark.parametrize(("what", "given", "used"), COPILOT, ids=[case[0] for case in COPILOT])
def test_copilot(what: str, given: Json, used: float | None) -> None:
    found, asked = told(poll_copilot.quotas, copilot_body(quota("premium_interactions", **given)))
    expected = [] if used is None else [("monthly", "premium_interactions", used, "2026-12-01T00:00")]
    assert meters(found) == expected
    assert asked[0].headers["authorization"] == "token sentinel-secret"
    assert bool(found.notices) == (used is None)


def test_copilot_of_a_usual_account() -> None:
    found, _ = told(poll_copilot.quotas, copilot_body())
    assert meters(found) == [("monthly", "premium_interactions", 0.245, "2026-12-01T00:00")]
    (one,) = found.events
    assert one["observed_at"] == "2026-11-21T09:29:58.229Z"  # when GitHub says that it was
    assert one["plan"] == "individual_pro" and one["account"] == projects.hash_path("ada", b"salt")
    (bound,) = headroom.states(limit_windows.readings_of(found.events), NOW)
    assert headroom.binding([bound]) == bound  # it counts for every model
    assert bound.headroom == pytest.approx(0.755)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"quota_reset_date_utc": None, "quota_reset_date": "2026-12-01"}, "2026-12-01T00:00"),
        ({"quota_reset_date_utc": None, "quota_reset_date": "2026-12-01T00:00:00Z"}, "2026-12-01T00:00"),
        ({"quota_reset_date_utc": "soon", "quota_reset_date": None}, ""),
    ],
)
def test_copilot_resets(body: Json, expected: str) -> None:
    found, _ = told(poll_copilot.quotas, copilot_body(quota("chat", quota_reset_at=0), **body))
    assert [one[3] for one in meters(found)] == [expected]


def test_copilot_free_until_june() -> None:
    body = {"login": "ada", "copilot_plan": "free", "limited_user_reset_date": "2026-12-01"}
    body |= {"limited_user_quotas": {"chat": 10, "completions": 1500}, "monthly_quotas": {"chat": 50, "completions": 2000}}
    found, _ = told(poll_copilot.quotas, body)
    assert meters(found) == [
        ("monthly", "chat", 0.8, "2026-12-01T00:00"),
        ("monthly", "completions", 0.25, "2026-12-01T00:00"),
    ]


# Cursor: percent of 100, where 0.36 is 0.36 %; cents only where no percentage is given.
END = "2026-12-02T10:00"
CURSOR: list[tuple[str, Json, list[tuple[Any, ...]]]] = [
    ("pools", cursor(), [("monthly", None, 0.0036, END), ("monthly", "auto", 0.002, END), ("monthly", "api", 0.0052, END)]),
    ("more than all", cursor({"totalPercentUsed": 103.5}), [("monthly", None, 1.035, END)]),
    ("one percent", cursor({"totalPercentUsed": 1}), [("monthly", None, 0.01, END)]),
    ("only cents", cursor({"enabled": True, "used": 3035, "limit": 40_000}), [("monthly", None, 0.075875, END)]),
    ("no limit", cursor({"enabled": True, "used": 3035, "limit": None}), []),
    ("limit 0", cursor({"enabled": True, "used": 0, "limit": 0}), []),
    ("nulls", cursor({"totalPercentUsed": None, "autoPercentUsed": None}), []),
    ("off", cursor({"enabled": False, "totalPercentUsed": 50}), []),
    ("unlimited", cursor(isUnlimited=True), []),
    ("a seat with a cap", cursor(individualUsage={"overall": {"used": 7500, "limit": 10_000}}), [("monthly", None, 0.75, END)]),
    ("a team's pool", cursor(individualUsage={}, teamUsage={"pooled": {"used": 1, "limit": 4}}), [("monthly", "team", 0.25, END)]),
    ("on demand", cursor({}, individualUsage={"onDemand": {"enabled": True, "used": 500, "limit": 2000}}), [("credits", None, 0.25, END)]),
    ("on demand, off", cursor({}, individualUsage={"onDemand": {"enabled": False, "used": 500, "limit": 2000}}), []),
    ("no cycle", cursor({"totalPercentUsed": 5}, billingCycleStart=None, billingCycleEnd="?"), [("monthly", None, 0.05, "")]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "body", "expected"), CURSOR, ids=[case[0] for case in CURSOR])
def test_cursor(what: str, body: Json, expected: list[tuple[Any, ...]]) -> None:
    found, asked = told(poll_cursor.summary, body, secret=f"user_01%3A%3A{token(NOW // 1000 + 60)}")
    assert meters(found) == expected
    assert {one["account"] for one in found.events} <= {projects.hash_path("user_01", b"salt")}
    assert asked[0].headers["cookie"].startswith("WorkosCursorSessionToken=user_01%3A%3AeyJ")


def test_cursor_cookies() -> None:
    jwt = token(NOW // 1000 + 60)
    for secret, options, sent in (
        (f"user_01::{jwt}", {}, f"user_01%3A%3A{jwt}"),
        (jwt, {"user_id": "user_01"}, f"user_01%3A%3A{jwt}"),
        (jwt, {}, jwt),
        ("opaque", {}, "opaque"),
    ):
        _, asked = told(poll_cursor.summary, cursor(), secret=secret, options=options)
        assert asked[0].headers["cookie"] == f"WorkosCursorSessionToken={sent}"
    with pytest.raises(Trouble, match="expired") as caught:
        told(poll_cursor.summary, cursor(), secret=token(NOW // 1000 - 1))
    assert caught.value.kind == etiquette.REFUSED


def test_a_short_month_is_a_month() -> None:
    body = cursor({"totalPercentUsed": 5}, billingCycleStart="2026-02-01T00:00:00Z", billingCycleEnd="2026-03-01T00:00:00Z")
    found, _ = told(poll_cursor.summary, body, secret="x")
    assert [(one.key.window, one.minutes) for one in limit_windows.readings_of(found.events)] == [("monthly", 43_200)]


# OpenRouter: dollars; the reset is a period's name.
OPENROUTER: list[tuple[str, Json, list[tuple[Any, ...]]]] = [
    ("a month's budget", {}, [("monthly", None, 0.255, "2026-12-01T00:00")]),
    ("a week's", {"limit_reset": "weekly"}, [("weekly", None, 0.255, "2026-11-23T00:00")]),
    ("a day's", {"limit_reset": "daily"}, [("daily", None, 0.255, "2026-11-22T00:00")]),
    ("for good", {"limit_reset": None}, [("credits", None, 0.255, "")]),
    ("no budget", {"limit": None, "limit_remaining": None}, []),
    ("overdrawn", {"limit_remaining": -5}, [("monthly", None, 1.05, "2026-12-01T00:00")]),
    ("a budget of nothing", {"limit": 0, "limit_remaining": 0}, [("monthly", None, 1.0, "2026-12-01T00:00")]),
    ("no remainder", {"limit_remaining": None}, []),
]


@pytest.mark.parametrize(("what", "data", "expected"), OPENROUTER, ids=[case[0] for case in OPENROUTER])
def test_openrouter(what: str, data: Json, expected: list[tuple[Any, ...]]) -> None:
    found, _ = told(poll_openrouter.key_budget, openrouter(**data))
    assert meters(found) == [*expected, ("daily", "free", 0.01, "2026-11-22T00:00")]
    assert "au7" not in json.dumps(found.events)
    if expected and what == "a month's budget":
        assert (found.events[0]["used_usd"], found.events[0]["limit_usd"]) == ("25.5", "100")
    (nothing, _) = told(poll_openrouter.key_budget, {"data": {"usage": 0}})
    assert not nothing.events and nothing.notices


SHAPES = [
    (poll_anthropic.oauth_windows, ()),
    (poll_anthropic.admin_reports, ()),
    (poll_analytics.user_reports, ()),
    (poll_anthropic.cookie_windows, (ORGANIZATIONS,)),
    (poll_openai.admin_reports, ()),
    (poll_openrouter.key_budget, ()),
    (poll_copilot.quotas, ()),
    (poll_cursor.summary, ()),
]


@pytest.mark.parametrize(("steps", "before"), SHAPES)
@pytest.mark.parametrize("body", [{}, {"hello": "sentinel"}, {"data": "sentinel"}, {"five": 5}])
def test_a_changed_shape_is_said(steps: Any, before: tuple[Any, ...], body: Json) -> None:
    with pytest.raises(Trouble) as caught:
        told(steps, *before, body)
    assert caught.value.kind == etiquette.CHANGED
    assert "unknown format" in caught.value.why and "sentinel" not in caught.value.why


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
NAMES = st.sampled_from(
    [
        "five_hour",
        "limits",
        "spend",
        "data",
        "quota_snapshots",
        "limited_user_quotas",
        "monthly_quotas",
        "individualUsage",
        "teamUsage",
        "billingCycleEnd",
        "rateLimits",
        "rateLimitsByLimitId",
        "limit",
        "limit_remaining",
        "has_more",
        "next_page",
    ]
)
KEYS = NAMES | st.sampled_from(["results", "plan", "used", "utilization", "percent_remaining", "starting_at", "start_time"])
DEEP = st.recursive(
    JSON, lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=2), max_leaves=12
)


@pytest.mark.parametrize(("steps", "before"), [*SHAPES, (poll_codex.app_server, ({"result": {}},))])
@given(body=st.dictionaries(NAMES, DEEP, max_size=5))
def test_any_json_is_read_or_refused(steps: Any, before: tuple[Any, ...], body: Json) -> None:
    """No answer makes a poller fall, and what it gives the log takes."""
    given_ = [{"result": body}] if steps is poll_codex.app_server else [body] * 5
    found = Results()

    def answer(request: Any) -> Any:
        if isinstance(request, Request):
            return Answer(200, {}, json.dumps(left.pop(0) if left else body, allow_nan=True).encode())
        return (left.pop(0) if left else body) if request.id is not None else {}

    left = [*before, *given_]
    with contextlib.suppress(Trouble):
        etiquette.run_steps(steps(ask(), found), answer)
    for event in found.events:
        assert not fields.fault(event), (event, fields.fault(event))


# The reports of what keys used.
EIGHT, NINE, TEN = "2026-11-21T08:00:00Z", "2026-11-21T09:00:00Z", "2026-11-21T10:00:00Z"
NO_COSTS = {"cost_at": NOW}


def test_a_row_of_anthropics_report() -> None:
    body = usage_page(
        (EIGHT, NINE, [usage_row(), usage_row(None, output_tokens=0, uncached_input_tokens=0)]), (NINE, TEN, [])
    )
    found, asked = told(poll_anthropic.admin_reports, body, headers={"anthropic-organization-id": ORG}, marks=NO_COSTS)
    one, other = found.events
    assert {key: one[key] for key in one if key not in ("id", "account")} == {
        "v": 1,
        "ts": "2026-11-21T08:00:00.000Z",
        "kind": "usage",
        "source": "vendor-usage-x",
        "agent_id": "vendor-usage-x",
        "workflow_id": "vendor-usage-x:k=apikey_01Rj:w=wrkspc_01Jw",
        "provider": "anthropic",
        "model": "claude-opus-5-5",
        "input_tokens": 1009,
        "cache_read_tokens": 20_011,
        "cache_write_tokens": 307,
        "cache_write_1h_tokens": 409,
        "output_tokens": 503,
        "web_searches": 3,
        "covers": "account",
        "bucket": "1h",
        "until": "2026-11-21T09:00:00.000Z",
        "observed_at": STAMP,
    }
    assert one["account"] == projects.hash_path(ORG, b"salt")
    assert "model" not in other and other["cache_write_tokens"] == 307  # only writes to a cache: still usage
    assert ("limit", "168") in [tuple(part.split("=")) for part in asked[0].url.split("?")[1].split("&")]
    assert asked[0].headers["x-api-key"] == "sentinel-secret" and asked[0].headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize(
    ("row", "tier", "geo"),
    [
        ({}, None, None),
        ({"service_tier": "batch", "inference_geo": "us"}, "batch", "us"),
        ({"service_tier": "priority_on_demand", "inference_geo": "global"}, "priority", None),
        ({"service_tier": None, "inference_geo": None}, None, None),
    ],
)
def test_tiers(row: Json, tier: str | None, geo: str | None) -> None:
    found, _ = told(poll_anthropic.admin_reports, usage_page((EIGHT, NINE, [usage_row(**row)])), marks=NO_COSTS)
    assert [(one.get("tier"), one.get("geo")) for one in found.events] == [(tier, geo)]


def test_three_pages_are_three_requests_and_no_more() -> None:
    pages = [
        usage_page(("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z", [usage_row()]), next_page="p2"),
        usage_page(("2026-11-20T11:00:00Z", "2026-11-20T12:00:00Z", [usage_row()]), next_page="p3"),
        usage_page((EIGHT, NINE, [usage_row()]), (NINE, TEN, [usage_row(output_tokens=7)])),
    ]
    found, asked = told(poll_anthropic.admin_reports, *pages, marks=NO_COSTS)
    assert ["page=" + name in one.url for one, name in zip(asked, ("p1", "p2", "p3"), strict=True)] == [False, True, True]
    assert len({one["id"] for one in found.events}) == 4
    assert found.marks == {"settled_1h": when.moment(EIGHT)}  # the hour to nine is not yet an hour over


def test_a_page_that_fails_loses_nothing_of_those_before() -> None:
    first = usage_page(("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z", [usage_row()]), next_page="p2")
    found = Results()
    left = [Answer(200, {}, json.dumps(first).encode()), Answer(429, {"retry-after": "7"}, b"")]
    with pytest.raises(Trouble) as caught:
        etiquette.run_steps(poll_anthropic.admin_reports(ask(marks=NO_COSTS), found), lambda request: left.pop(0))
    assert caught.value.kind == etiquette.LIMITED and caught.value.retry_ms == 7000
    assert len(found.events) == 1 and found.marks == {"settled_1h": when.moment("2026-11-20T11:00:00Z")}


def test_pages_that_lead_nowhere_end() -> None:
    for page in ("p1", "", None):
        body = usage_page((EIGHT, NINE, [usage_row()]), next_page="p1") | {"next_page": page}
        with pytest.raises(Trouble, match="names none"):
            told(poll_anthropic.admin_reports, body, body, body, marks=NO_COSTS)


@pytest.mark.parametrize(
    ("marks", "since", "checking", "expected"),
    [
        ({}, None, False, "2026-11-20T09:00:00.000Z"),
        ({"settled_1h": when.moment("2026-11-21T05:00:00Z")}, None, False, "2026-11-21T05:00:00.000Z"),
        ({"settled_1h": when.moment("2026-11-01T05:00:00Z")}, None, False, "2026-11-01T05:00:00.000Z"),
        ({"settled_1h": NOW + 99 * HOUR}, None, False, "2026-11-21T08:00:00.000Z"),  # a clock that was set back
        ({"settled_1h": NOW}, NOW - 200 * HOUR, False, "2026-11-13T01:00:00.000Z"),
        ({"settled_1h": NOW}, None, True, "2026-11-21T09:00:00.000Z"),
    ],
)
def test_from_when_on_is_read(marks: dict[str, int], since: int | None, checking: bool, expected: str) -> None:
    empty = usage_page()
    found, asked = told(poll_anthropic.admin_reports, empty, empty, marks=marks, since=since, checking=checking)
    assert f"starting_at={expected.replace(':', '%3A')}&" in asked[0].url
    assert len(asked) == (1 if checking else 2)
    if since is not None or checking:
        assert "settled_1h" not in found.marks


def test_rows_that_cannot_be_read_are_said() -> None:
    body = usage_page(
        (EIGHT, NINE, [usage_row(), usage_row(output_tokens="many"), usage_row(output_tokens=-1)]), ("?", NINE, [])
    )
    found, _ = told(poll_anthropic.admin_reports, body, marks=NO_COSTS)
    assert len(found.events) == 1
    assert found.notices == ["3 of 4 rows could not be read: output_tokens is a string; expected a count"]
    with pytest.raises(Trouble, match="unknown format"):
        told(poll_anthropic.admin_reports, usage_page((EIGHT, NINE, [{"tokens_in": 5}])), marks=NO_COSTS)


def test_costs_are_cents() -> None:
    page = usage_page(("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", [cost_row(), cost_row("0.5", model=None, description="Web Search Usage", token_type=None), cost_row("0"), cost_row("9", currency="EUR")]))  # fmt: skip
    found, asked = told(poll_anthropic.admin_reports, usage_page(), page)
    assert [(one["cost_usd"], one["cost_source"], one.get("model"), one["bucket"]) for one in found.events] == [
        ("1.2345", "reported", "claude-opus-5-5", "1d"),
        ("0.005", "reported", None, "1d"),
    ]
    assert "/v1/organizations/cost_report?starting_at=2026-11-20T00%3A00%3A00.000Z" in asked[1].url
    assert found.notices == ["1 of 4 rows could not be read: an amount is not in USD"]
    assert found.marks["cost_at"] == NOW


def test_costs_are_read_once_an_hour_and_their_failure_is_no_failure() -> None:
    assert len(told(poll_anthropic.admin_reports, usage_page(), marks={"cost_at": NOW - HOUR + 1})[1]) == 1
    assert len(told(poll_anthropic.admin_reports, usage_page(), usage_page(), marks={"cost_at": NOW - HOUR})[1]) == 2
    assert len(told(poll_anthropic.admin_reports, usage_page(), usage_page(), marks={"cost_at": NOW + HOUR})[1]) == 2
    found, _ = told(poll_anthropic.admin_reports, usage_page(), Answer(403, {}, b"{}"))
    assert "the cost report could not be read" in found.notices[0] and "cost_at" not in found.marks


# OpenAI: what was cached and written is inside input_tokens.
OPENAI: list[tuple[str, Json, Json]] = [
    ("cached", {}, {"turns": 5, "input_tokens": 200, "cache_read_tokens": 800, "output_tokens": 503}),
    (
        "written",
        {"input_cache_write_tokens": 50, "input_cache_write_12h_tokens": 30},
        {"turns": 5, "input_tokens": 120, "cache_read_tokens": 800, "cache_write_tokens": 50, "cache_write_12h_tokens": 30, "output_tokens": 503},
    ),
    ("stated", {"input_uncached_tokens": 150}, {"turns": 5, "input_tokens": 150, "cache_read_tokens": 800, "output_tokens": 503}),
    (
        "audio",
        {"input_audio_tokens": 100, "input_cached_audio_tokens": 20, "output_audio_tokens": 3},
        {"turns": 5, "input_tokens": 200, "cache_read_tokens": 800, "output_tokens": 503, "audio_input_tokens": 120, "audio_output_tokens": 3},
    ),
    ("audio beside it, as until 2026", {"input_audio_tokens": 5000}, {"turns": 5, "input_tokens": 200, "cache_read_tokens": 800, "output_tokens": 503}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "row", "expected"), OPENAI, ids=[case[0] for case in OPENAI])
def test_openai(what: str, row: Json, expected: Json) -> None:
    found, asked = told(
        poll_openai.admin_reports,
        openai_page([openai_usage_row(**row)]),
        headers={"openai-organization": "org-abc"},
        marks=NO_COSTS,
    )
    (one,) = found.events
    assert {key: one[key] for key in (*events.SUMS,) if key in one} == expected
    assert (one["ts"], one["until"]) == ("2026-11-21T08:00:00.000Z", "2026-11-21T09:00:00.000Z")
    assert one["workflow_id"] == "vendor-usage-x:k=key_abc:w=proj_abc" and "tier" not in one
    assert one["account"] == projects.hash_path("org-abc", b"salt")
    assert asked[0].headers["authorization"] == "Bearer sentinel-secret"


def test_openai_tiers_costs_and_contradictions() -> None:
    rows = [openai_usage_row(batch=True), openai_usage_row(service_tier="flex"), openai_usage_row(input_cached_tokens=1001)]
    cost = {"amount": {"value": "0.0612", "currency": "usd"}, "line_item": "gpt-6.1-sol, input", "project_id": "proj_abc"}
    found, asked = told(poll_openai.admin_reports, openai_page(rows), openai_page([cost], 1_795_132_800, 86_400))
    assert [one.get("tier") for one in found.events] == ["batch", "flex", None]
    assert found.events[2]["cost_usd"] == "0.0612" and found.events[2]["workflow_id"] == "vendor-usage-x:w=proj_abc"
    assert found.notices == ["1 of 3 rows could not be read: input_cached_tokens is more than input_tokens"]
    assert "/v1/organization/costs?start_time=1795132800&" in asked[1].url


def test_a_bucket_read_again_counts_once_and_the_later_reading_wins() -> None:
    first, _ = told(poll_anthropic.admin_reports, usage_page((NINE, TEN, [usage_row(output_tokens=5)])), marks=NO_COSTS)
    later, _ = told(
        poll_anthropic.admin_reports,
        usage_page((NINE, TEN, [usage_row(output_tokens=9)])),
        marks=NO_COSTS,
        now=NOW + 300_000,
    )
    (a,), (b,) = first.events, later.events
    assert a["id"] == b["id"] and joins.join(a, b) == joins.join(b, a)
    assert joins.join(a, b)["output_tokens"] == 9
    assert len({one["id"] for one in told(poll_anthropic.admin_reports, usage_page((NINE, TEN, [usage_row(), usage_row(service_tier="batch"), usage_row(workspace_id=None), usage_row(api_key_id=None), usage_row("m2")])), marks=NO_COSTS)[0].events}) == 5  # fmt: skip


# Claude Code's use per user and day: one request per day, users as hashes, estimates in cents.
DAYS = {"settled_1d": NOW // when.DAY * when.DAY - when.DAY}


def test_a_day_of_claude_codes_users() -> None:
    ada = analytics_row(analytics_model(), analytics_model("claude-haiku-4-5", 0.5, cache_read=0))
    again = analytics_row(analytics_model(cents=14.25, input=1), terminal_type="vscode")
    key = analytics_row(analytics_model(), actor={"type": "api_actor", "api_key_name": "sentinel key"})
    pages = [analytics_page(), analytics_page(ada, key, next_page="p2"), analytics_page(again)]
    found, asked = told(poll_analytics.user_reports, *pages, marks=DAYS)
    assert [one.url.partition("?")[2] for one in asked] == [
        "starting_at=2026-11-20&limit=1000",
        "starting_at=2026-11-21&limit=1000",
        "starting_at=2026-11-21&limit=1000&page=p2",
    ]
    assert asked[0].headers["x-api-key"] == "sentinel-secret"
    user = projects.hash_path("user_actor ada@sentinel.example", b"salt")
    mine = [one for one in found.events if one["workflow_id"] == f"vendor-usage-x:u={user}"]
    counts = {one["model"]: one for one in mine if "cost_usd" not in one}
    costs = {one["model"]: one["cost_usd"] for one in mine if "cost_usd" in one}
    assert costs == {"claude-opus-5-5": "2.0025", "claude-haiku-4-5": "0.005"}
    opus = counts["claude-opus-5-5"]
    assert {name: opus[name] for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")} == {
        "input_tokens": 1010, "cache_read_tokens": 40_022, "cache_write_tokens": 1432, "output_tokens": 1006,
    }  # fmt: skip
    assert (opus["covers"], opus["client"], opus["provider"], opus["bucket"], opus["ts"], opus["until"]) == (
        "account", "claude-code", "anthropic", "1d", "2026-11-21T00:00:00.000Z", "2026-11-22T00:00:00.000Z",
    )  # fmt: skip
    assert opus["account"] == projects.hash_path(ORG, b"salt") and "cache_read_tokens" not in counts["claude-haiku-4-5"]
    assert len({one["id"] for one in found.events}) == len(found.events) == 6
    assert len({one["workflow_id"] for one in found.events}) == 2


def test_a_later_reading_of_a_day_of_users_replaces_the_earlier() -> None:
    first, _ = told(
        poll_analytics.user_reports, analytics_page(), analytics_page(analytics_row(analytics_model())), marks=DAYS
    )
    assert first.marks["settled_1d"] == DAYS["settled_1d"] + when.DAY  # yesterday ended more than an hour ago
    row = analytics_row(analytics_model(cents=200, output=600))
    later, asked = told(poll_analytics.user_reports, analytics_page(row), marks=first.marks, now=NOW + HOUR)
    assert len(asked) == 1
    joined = list(joins.join_all([*first.events, *later.events]))
    assert [one.get("output_tokens", one.get("cost_usd")) for one in sorted(joined, key=lambda one: "cost_usd" in one)] == [
        600,
        "2",
    ]
    back, asked = told(poll_analytics.user_reports, *[analytics_page()] * 4, since=NOW - 3 * when.DAY)
    assert len(asked) == 4 and back.marks == {}
    checked, asked = told(poll_analytics.user_reports, analytics_page(row, next_page="p2"), checking=True)
    assert len(asked) == 1 and "limit=1" in asked[0].url and len(checked.events) == 2


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"model": "x"}, "no known count"),
        (analytics_model(output=-5), "output"),
        (analytics_model() | {"estimated_cost": {"currency": "EUR", "amount": 5}}, "not in USD"),
        (analytics_model() | {"estimated_cost": {"currency": "USD", "amount": "x"}}, "not a number"),
    ],
)
def test_rows_of_users_that_cannot_be_read_are_said(model: Json, why: str) -> None:
    page = analytics_page(analytics_row(model, analytics_model("claude-haiku-4-5")))
    found, _ = told(poll_analytics.user_reports, analytics_page(), page, marks=DAYS)
    assert {one["model"] for one in found.events} == {"claude-haiku-4-5"} and why in found.notices[0]
    with pytest.raises(Trouble, match="unknown format"):
        told(poll_analytics.user_reports, analytics_page(analytics_row(model)), marks=DAYS)
    with pytest.raises(Trouble, match="names none"):
        told(poll_analytics.user_reports, analytics_page() | {"has_more": True}, marks=DAYS)
