"""The vendors' meters on loopback, for tests of tok-poll: real shapes, and everything that can go wrong with them."""

from __future__ import annotations

import base64
import gzip
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest

Json = dict[str, Any]
NOW = 1_795_253_400_000  # 2026-11-21T09:30:00Z
ORG = "0f3a5b1c-1111-4222-8333-944455556666"


class Asked(NamedTuple):
    """A request as it arrived."""

    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]


class Reply(NamedTuple):
    """What to answer."""

    body: Any = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    held: bool = False  # not before the test lets go
    endless: bool = False  # byte by byte, and never done


class Api:
    """The server. `answer` gives the reply to each request; what was asked is kept."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.let_go = threading.Event()
        self.answer: Callable[[Asked], Reply] = lambda asked: Reply(b"", 404)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = Asked(parts.path, parse_qsl(parts.query), {k.lower(): v for k, v in self.headers.items()})
                outer.asked.append(asked)
                reply = outer.answer(asked)
                if reply.held:
                    outer.let_go.wait()
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in (*reply.headers, ("Content-Length", str(1 << 20 if reply.endless else len(body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                while reply.endless and not outer.let_go.wait(0.2):
                    self.wfile.write(b" ")
                    self.wfile.flush()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that leaves early is what some cases are about

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
            self.url = f"https://localhost:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def gives(self, *replies: Reply) -> None:
        """Answer with these, one after the other, the last for ever."""
        left = list(replies)
        self.answer = lambda asked: left.pop(0) if len(left) > 1 else left[0]

    def close(self) -> None:
        """Stop."""
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.close()


def zipped(body: Any) -> Reply:
    """A reply that is compressed."""
    return Reply(gzip.compress(json.dumps(body).encode()), headers=(("Content-Encoding", "gzip"),))


def plan(five: Any = 42.0, weekly: Any = 7, **more: Any) -> Json:
    """Anthropic's report of a plan."""
    resets = {"five_hour": "2026-11-21T12:00:00.556309+00:00", "seven_day": "2026-11-25T04:00:00.000000+00:00"}
    given = {"five_hour": five, "seven_day": weekly}
    body: Json = {key: {"utilization": value, "resets_at": resets[key]} for key, value in given.items() if value is not None}
    fable = {
        "kind": "weekly_scoped",
        "group": "weekly",
        "percent": 33,
        "severity": "normal",
        "resets_at": "2026-11-25T04:00:00Z",
        "scope": {"model": {"id": None, "display_name": "Fable"}, "surface": None},
        "is_active": False,
    }
    return body | {"seven_day_opus": None, "tangelo": None, "limits": [fable]} | more


ORGANIZATIONS = [
    {"uuid": "aaaa-1", "name": "ada's api", "capabilities": ["api"]},
    {"uuid": ORG, "name": "ada@example.org's Organization", "capabilities": ["chat", "claude_max"], "rate_limit_tier": "default_claude_max_5x"},
]  # fmt: skip


def usage_row(model: str | None = "claude-opus-5-5", **more: Any) -> Json:
    """A row of Anthropic's usage report."""
    return {
        "uncached_input_tokens": 1009,
        "cache_read_input_tokens": 20_011,
        "cache_creation": {"ephemeral_5m_input_tokens": 307, "ephemeral_1h_input_tokens": 409},
        "output_tokens": 503,
        "server_tool_use": {"web_search_requests": 3},
        "api_key_id": "apikey_01Rj",
        "workspace_id": "wrkspc_01Jw",
        "model": model,
        "service_tier": "standard",
        "context_window": None,
        "inference_geo": "not_available",
    } | more


def usage_page(*buckets: tuple[str, str, list[Json]], next_page: str | None = None) -> Json:
    """A page of Anthropic's usage or cost report."""
    data = [{"starting_at": begins, "ending_at": ends, "results": rows} for begins, ends, rows in buckets]
    return {"data": data, "has_more": next_page is not None, "next_page": next_page}


def cost_row(amount: str = "123.45", **more: Any) -> Json:
    """A row of Anthropic's cost report: amounts in cents."""
    return {
        "currency": "USD",
        "amount": amount,
        "workspace_id": "wrkspc_01Jw",
        "description": "Claude Opus 5.5 Usage - Input Tokens",
        "cost_type": "tokens",
        "context_window": "0-200k",
        "model": "claude-opus-5-5",
        "service_tier": "standard",
        "token_type": "uncached_input_tokens",
    } | more


def anthropic_admin(asked: Asked) -> Reply:
    """An organisation with one hour's usage and one day's cost."""
    headers = (("anthropic-organization-id", ORG),)
    if asked.path.endswith("/cost_report"):
        return Reply(usage_page(("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", [cost_row()])), headers=headers)
    return Reply(usage_page(("2026-11-21T08:00:00Z", "2026-11-21T09:00:00Z", [usage_row()])), headers=headers)


def analytics_row(*models: Json, user: str = "ada@sentinel.example", **more: Any) -> Json:
    """A row of Anthropic's report of Claude Code: one user of one day."""
    return {
        "actor": {"type": "user_actor", "email_address": user},
        "date": "2026-11-21T00:00:00Z",
        "organization_id": ORG,
        "customer_type": "api",
        "terminal_type": "vscode",
        "subscription_type": None,
        "core_metrics": {"num_sessions": 5, "lines_of_code": {"added": 3, "removed": 1}, "commits_by_claude_code": 1},
        "tool_actions": {"edit_tool": {"accepted": 5, "rejected": 1}},
        "model_breakdown": list(models),
    } | more


def analytics_model(model: str = "claude-opus-5-5", cents: float = 186, **tokens: int) -> Json:
    """A model of such a row: tokens, and an estimate in cents."""
    given = {"input": 1009, "output": 503, "cache_read": 20_011, "cache_creation": 716} | tokens
    return {"model": model, "tokens": given, "estimated_cost": {"currency": "USD", "amount": cents}}


def analytics_page(*rows: Json, next_page: str | None = None) -> Json:
    """A page of it."""
    return {"data": list(rows), "has_more": next_page is not None, "next_page": next_page}


def analytics(asked: Asked) -> Reply:
    """An organisation with the same use on every day."""
    return Reply(analytics_page(analytics_row(analytics_model())))


def openai_usage_row(**more: Any) -> Json:
    """A row of OpenAI's usage report: cached and written inside input."""
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": 1000,
        "input_cached_tokens": 800,
        "output_tokens": 503,
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        "num_model_requests": 5,
        "project_id": "proj_abc",
        "user_id": None,
        "api_key_id": "key_abc",
        "model": "gpt-6.1-sol",
        "batch": False,
        "service_tier": "default",
    } | more


def openai_page(rows: list[Json], begins: int = 1_795_248_000, length: int = 3600, next_page: str | None = None) -> Json:
    """A page of OpenAI's usage or cost report."""
    bucket = {"object": "bucket", "start_time": begins, "end_time": begins + length, "results": rows}
    return {"object": "page", "data": [bucket], "has_more": next_page is not None, "next_page": next_page}


def openai_admin(asked: Asked) -> Reply:
    """An organisation with one hour's usage and one day's cost."""
    headers = (("openai-organization", "org-abc"),)
    if asked.path.endswith("/costs"):
        row = {"object": "organization.costs.result", "amount": {"value": 0.06, "currency": "usd"}, "line_item": "gpt-6.1-sol, input", "project_id": "proj_abc"}  # fmt: skip
        return Reply(openai_page([row], 1_795_132_800, 86_400), headers=headers)
    return Reply(openai_page([openai_usage_row()]), headers=headers)


def openrouter(**data: Any) -> Json:
    """What OpenRouter says of a key."""
    return {
        "data": {
            "label": "sk-or-v1-au7...890",
            "limit": 100,
            "limit_remaining": 74.5,
            "limit_reset": "monthly",
            "usage": 25.5,
            "usage_daily": 1.5,
            "usage_weekly": 9.5,
            "usage_monthly": 25.5,
            "byok_usage": 0,
            "is_free_tier": False,
            "free_model_daily_requests": {"used": 10, "limit": 1000, "remaining": 990},
            "rate_limit": {"interval": "10s", "note": "deprecated", "requests": -1},
        }
        | data
    }


def quota(name: str, **given: Any) -> Json:
    """One quota of a Copilot plan."""
    return {
        "entitlement": 300,
        "overage_count": 0,
        "overage_permitted": False,
        "percent_remaining": 75.5,
        "quota_id": name,
        "quota_remaining": 226.5,
        "remaining": 226,
        "unlimited": False,
        "has_quota": True,
        "timestamp_utc": "2026-11-21T09:29:58.229Z",
    } | given


def copilot(*quotas: Json, **more: Any) -> Json:
    """What GitHub says of a Copilot account."""
    unlimited = {"entitlement": 0, "percent_remaining": 100.0, "quota_remaining": 0.0, "remaining": 0, "unlimited": True}
    given = quotas or (quota("premium_interactions"), quota("chat", **unlimited), quota("completions", **unlimited))
    return {
        "login": "ada",
        "copilot_plan": "individual_pro",
        "access_type_sku": "plus_monthly_subscriber_quota",
        "chat_enabled": True,
        "quota_reset_date": "2026-12-01",
        "quota_reset_date_utc": "2026-12-01T00:00:00.000Z",
        "quota_snapshots": {one["quota_id"]: one for one in given},
    } | more


def cursor(plan: Json | None = None, **more: Any) -> Json:
    """What Cursor says of an account."""
    usual = {
        "enabled": True,
        "used": 1504,
        "limit": 7000,
        "remaining": 5496,
        "breakdown": {"included": 1504, "bonus": 0, "total": 1504},
        "autoPercentUsed": 0.2,
        "apiPercentUsed": 0.52,
        "totalPercentUsed": 0.36,
    }
    return {
        "billingCycleStart": "2026-11-02T10:00:00.000Z",
        "billingCycleEnd": "2026-12-02T10:00:00.000Z",
        "membershipType": "pro",
        "limitType": "user",
        "isUnlimited": False,
        "individualUsage": {
            "plan": usual if plan is None else plan,
            "onDemand": {"enabled": False, "used": 0, "limit": None},
        },
        "teamUsage": {},
    } | more


def token(exp: int, sub: str = "auth0|user_01ABC") -> str:
    """A token that says when it ends and whose it is, as Cursor's cookie holds one."""

    def part(value: Json) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256'})}.{part({'sub': sub, 'exp': exp})}.c2lnbmF0dXJl"


def snapshot(name: str | None = "codex", primary: Any = ..., secondary: Any = ..., **more: Any) -> Json:
    """A family of limits, as Codex's app-server tells it."""
    five = {"usedPercent": 42, "windowDurationMins": 300, "resetsAt": 1_795_262_400}
    week = {"usedPercent": 5, "windowDurationMins": 10_080, "resetsAt": 1_795_579_200}
    given = {"primary": five if primary is ... else primary, "secondary": week if secondary is ... else secondary}
    return {
        "limitId": name,
        "limitName": None,
        **given,
        "credits": None,
        "planType": "plus",
        "rateLimitReachedType": None,
    } | more


# What each source's endpoint answers when all is well.
def good(name: str) -> Callable[[Asked], Reply]:
    """The answers of a healthy vendor."""
    one = {
        "openrouter": openrouter(),
        "github-copilot": copilot(),
        "anthropic-oauth": plan(),
        "cursor": cursor(),
    }
    if name == "anthropic-admin":
        return anthropic_admin
    if name == "claude-code-analytics":
        return analytics
    if name == "openai-admin":
        return openai_admin
    if name == "anthropic-cookie":
        return lambda asked: Reply(plan() if asked.path.endswith("/usage") else ORGANIZATIONS)
    return lambda asked: Reply(one[name])
