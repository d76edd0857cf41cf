"""Counts one request and its answer as they pass, and returns the events for the log. No sockets; times are arguments.

Nothing of a prompt or an answer is kept; of the headers only those named here are looked at. The proxy calls these methods
after it has passed the bytes on. What counting may cost, and what to do with an answer that costs too much, belongs here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from tokenops import (
    catalog,
    events,
    http1,
    price_names,
    pricing,
    projects,
    untrusted,
    when,
    wire_body,
    wire_limits,
    wire_usage,
)
from tokenops.events import Event

SOURCE = "proxy"

# A request's body is parsed up to this size, and only if it is plain JSON: for its model and session, nothing else.
MOST_BODY = 1 << 20


class Upstream(NamedTuple):
    """Where requests under one prefix go."""

    name: str  # the prefix
    host: str
    port: int
    tls: bool
    base: bytes  # path before the request's own
    bills: str  # provider in the record; "" if only the model says


# Paths that cost nothing, repeat an answer, or are not requests to a model. (Vendors' API references, November 2026.)
_FREE = re.compile(
    rb"count_tokens|:countTokens|/input_tokens\b|/tokenize|/detokenize|/messages/batches|/batches\b|/batch/|:batchGenerate|"
    rb"/cachedContents|/files\b|/fileSearchStores|/vector_stores|/models?(?:/[^/:]*)?\Z|/tcp_warming|:predictLongRunning|"
    rb"/assistants\b|/threads(?:/[^/]+)?(?:/messages.*)?\Z|/conversations(?:/[^/]+)?\Z|/fine[_-]tuning|/uploads?\b|/oauth|/cancel\Z|"
    rb"/responses/[^/]+/(?:cancel|input_items)|/api/(?:tags|show|pull|push|ps|version|create|copy|delete|blobs)|telemetry|/wham/"
)
# Paths that fetch an earlier answer: its own id says which, so it is the same turn.
_FETCHED = re.compile(rb"/responses/(?:resp_|[^/]+\Z)|/batches/[^/]+/results\Z|/files/[^/]+/content\Z")


@functools.lru_cache(maxsize=64)  # a client asks for few paths, and the search costs as much as parsing a head
def kind_of(method: bytes, path: bytes) -> str:
    """Whether an answer is counted: "new", "fetched" (it counts once, by its id), or "" not at all."""
    if method == b"GET" and _FETCHED.search(path):
        return "fetched"
    if method != b"POST" or _FREE.search(path):
        return ""
    return "new"


_SESSIONS = (
    "x-tokenops-session-id",
    "x-claude-code-session-id",
    "session_id",
    "session-id",
    "conversation_id",
    "thread-id",
    "x-opencode-session",
    "x-session-id",
    "x-session-affinity",
)
_ALIASED = ("codex", "opencode")
_KEYS = ("x-api-key", "api-key", "x-goog-api-key")
# The only headers of a request that are looked at.
_READ = frozenset(
    name.encode()
    for name in (
        *_SESSIONS,
        *_KEYS,
        "authorization",
        "chatgpt-account-id",
        "content-encoding",
        "content-type",
        "user-agent",
        "x-tokenops-agent-id",
        "x-tokenops-project",
        "x-tokenops-workflow-id",
    )
)


@functools.cache
def caller(agent: str) -> str:
    """The client that a User-Agent names; "" for none."""
    word = re.split(r"[/ (]", agent.strip(), maxsplit=1)[0].lower()
    callers = catalog.load("providers")["callers"]
    return str(callers.get(word) or untrusted.text(re.sub(r"[^a-z0-9._-]+", "-", word).strip("-"), 40))


def credential(headers: dict[str, str]) -> str:
    """The sort of key a request carries, by its form alone: a plan's login, or a metered key."""
    token = headers.get("authorization", "").removeprefix("Bearer ").strip()
    if token.startswith(("sk-ant-oat", "eyJ", "gho_", "ghu_", "ya29.")):
        return "oauth"
    if token or any(name in headers for name in _KEYS):
        return "api_key"
    return ""


class Exchange:
    """One request and its answer."""

    def __init__(self, upstream: Upstream, head: http1.Request, path: bytes, now: int, number: int, salt: bytes) -> None:
        self.upstream, self.path, self.started, self.number, self.salt = upstream, path, now, number, salt
        self.method = head.method
        self.kind = kind_of(head.method, path.partition(b"?")[0])
        self.headers = {low.decode(): value.decode("latin-1") for low, _, value in head.headers if low in _READ}
        self.model = _model_in(path)
        self.status = 0
        self.first_at: int | None = None  # when the answer's first byte came
        self.error = ""
        self.reading = wire_usage.Answer(self.biller)
        self.body: wire_body.Body | None = None
        self.response_headers: dict[str, str] = {}
        self._content: bytearray | None = bytearray() if self.readable(0) else None
        self.payload: untrusted.Raw = {}  # the request's body, for as long as it is needed
        self.rerouted_to = ""  # the model that a rule put in the place of the client's
        self._body_session = ""  # the session that the request's body names
        self._recorded: set[str] = set()  # ids of turns

    @property
    def biller(self) -> str:
        """The provider whose limits count."""
        return self.upstream.bills or self.upstream.name

    def readable(self, length: int) -> bool:
        """Whether the request's body is parsed."""
        kind = self.headers.get("content-type", "")
        plain = "json" in kind and self.headers.get("content-encoding", "identity") == "identity"
        return self.kind == "new" and plain and length <= MOST_BODY

    def request_data(self, data: bytes) -> None:
        """Take in a piece of the request's content."""
        if self._content is not None:
            self._content += data
            if len(self._content) > MOST_BODY:
                self._content = None

    def request_end(self) -> None:
        """The request is whole."""
        if self._content:
            try:
                payload = orjson.loads(self._content)
            except ValueError:
                payload = None
            self.payload = untrusted.mapping(payload)
            self.model = self.model or untrusted.text(self.payload.get("model")).removeprefix("models/")
            self._body_session = _session_in(self.payload)
        self._content = None

    def tokens_so_far(self) -> int:
        """How many tokens the answer says it cost, once it is whole."""
        if self.body is not None:
            self.body.finish()
        return sum(events.token_sum(usage.counts) for usage in self.reading.usages())

    def saving(self, by: str, tokens: int) -> Event:
        """The event of what was saved, and by what."""
        event: Event = {
            "v": events.VERSION,
            "ts": when.stamp(self.started),
            "kind": "saving",
            "id": f"saving:{self.started}:{self.number}",
        }
        event |= self._attribution() | self._biller(self.model) | {"model": self.model or "unknown", "by": by}
        event["path"] = self.path.partition(b"?")[0].decode("latin-1")[:200]
        return event | ({"saved_tokens": tokens} if tokens else {})

    def response_head(self, head: http1.Response) -> None:
        """Take in the head of the answer."""
        self.payload = {}
        self.status = head.status
        self.response_headers = {low.decode("latin-1"): value.decode("latin-1") for low, _, value in head.headers}
        if self.kind or head.status >= 400:
            self.body = wire_body.Body(
                self.response_headers.get("content-type", ""),
                self.response_headers.get("content-encoding", ""),
                self.reading,
            )

    def tunnel_head(self, head: http1.Response) -> None:
        """Take in the head of an answer that opens a tunnel: messages follow, and no body."""
        self.response_head(head)
        self.body = None

    def response_data(self, data: bytes, now: int) -> None:
        """Take in a piece of the answer's content."""
        if self.first_at is None:
            self.first_at = now
        if self.body is not None:
            self.body.feed(data)

    def vendor_message(self, value: Any, now: int) -> Iterator[Event]:
        """Take in a WebSocket message from the vendor; yields the turns that it ends."""
        if self.first_at is None:
            self.first_at = now
        self.reading.take(value)
        if self.reading.limits:
            yield from self._quota(now)
        if isinstance(value, dict) and value.get("type") in _ENDS:
            yield from self._turns(now)
            self.started, self.first_at = now, None

    def client_message(self, value: Any, now: int) -> None:
        """Take in a WebSocket message from the client: it may name the model, and begins a turn."""
        message = untrusted.mapping(value)
        if message.get("type") == "response.create":
            self.started, self.first_at = now, None
            self.model = untrusted.text(message.get("model")) or self.model
        if setup := untrusted.mapping(message.get("setup")):
            self.model = untrusted.text(setup.get("model")).removeprefix("models/") or self.model

    def finish(self, now: int, error: str = "") -> list[Event]:
        """The events of the exchange; `error` names what cut it short."""
        self.error = error
        if self.body is not None:
            self.body.finish()
        ts, account, biller = when.stamp(now), self._account(), self.biller
        rows: list[Event] = []
        if self.status >= 400 or (error and not self.status):
            rows += self._failure(now)
        elif self.kind:
            rows += self._turns(now)
            if self.rerouted_to:
                rows += [self._cheaper(turn) for turn in rows if turn["kind"] == "turn"]
        rows += wire_limits.readings(biller, self.response_headers, ts, account)
        rows += self._quota(now)
        if self.reading.refused:
            rows += wire_limits.refusal(biller, self.status, self.reading.refused, ts, account)
        return rows

    def _quota(self, now: int) -> Iterator[Event]:
        """The meters of the quota events that came in the stream."""
        limits, self.reading.limits = self.reading.limits, []
        for event in limits:
            yield from wire_limits.quota_event(event, when.stamp(now), self._account())

    def _account(self) -> str:
        name = self.response_headers.get("anthropic-organization-id") or self.response_headers.get("openai-organization")
        name = name or self.headers.get("chatgpt-account-id", "")
        return projects.hash_path(name, self.salt) if name else ""

    def _attribution(self) -> Event:
        session = next(
            (name for key in _SESSIONS if key in self.headers and (name := untrusted.identity(self.headers[key]))), ""
        )
        session = session or self._body_session
        # opencode leaves its name out of requests to some vendors; its sessions' names are of a form of their own.
        client = "opencode" if _OPENCODE.match(session) else caller(self.headers.get("user-agent", "")) or "unknown"
        project = untrusted.text(self.headers.get("x-tokenops-project"), 100)
        agent = f"{client}:{project}" if project else client
        event: Event = {"source": SOURCE, "client": client}
        if project:
            event["project"] = project
        if account := self._account():
            event["account"] = account
        event["agent_id"] = untrusted.identity(self.headers.get("x-tokenops-agent-id")) or agent
        workflow = untrusted.identity(self.headers.get("x-tokenops-workflow-id"))
        if workflow or session:
            event["workflow_id"] = workflow or f"{event['agent_id']}:{session}"
        if session:
            event["session_id"] = session
        return event

    def _cheaper(self, turn: Event) -> Event:
        """What the user's rule saved on a turn: the price of the model that the client named, less that of the one used."""
        event = self.saving("routing", 0) | {
            "id": f"saving:{turn['id']}",
            "model": turn["model"],
            "request_model": self.model,
        }
        catalogue = pricing.load("")
        instead = catalogue.rate_of({**turn, "model": self.model, "request_model": ""})
        used = catalogue.rate_of(turn)
        if isinstance(instead, pricing.Rate) and isinstance(used, pricing.Rate):
            before, after = pricing.cost_of(instead, turn), pricing.cost_of(used, turn)
            if isinstance(before, pricing.Cost) and isinstance(after, pricing.Cost):
                event["saved_usd"] = pricing.plain(before.usd - after.usd)
        return event

    def _common(self, identity: str, now: int) -> Event:
        event: Event = {"v": events.VERSION, "ts": when.stamp(self.started), "kind": "turn", "id": identity}
        event |= self._attribution() | {"status": self.status, "latency_ms": now - self.started}
        if self.first_at is not None:
            event["ttft_ms"] = self.first_at - self.started
        event["path"] = self.path.partition(b"?")[0].decode("latin-1")[:200]
        if sort := credential(self.headers):
            event["credential"] = sort
        return event

    def _own_id(self) -> str:
        return f"proxy:{self.started}:{self.number}"

    def _failure(self, now: int) -> Iterator[Event]:
        if self.kind != "new":
            return
        event = self._common(self._own_id(), now) | {
            "errors": 1,
            **self._biller(self.model),
            "model": self.model or "unknown",
        }
        event["error"] = self.error or self.reading.error or f"status {self.status}"
        if not self.status:
            del event["status"]
        yield events.arrange(event)

    def _turns(self, now: int) -> Iterator[Event]:
        """The turns that were not recorded yet."""
        usages = self.reading.usages()
        if not usages and self.kind == "new":
            reason = self.body.reason if self.body is not None else ""
            identity, model, tier = self.reading.id, self.reading.model, self.reading.tier
            usages = [wire_usage.Usage(identity, model, {}, tier, state="unknown", reason=reason)]
        for number, usage in enumerate(usages):
            if usage.id in self._recorded and usage.id:
                continue
            self._recorded.add(usage.id)
            if usage.id or self.kind == "new":
                yield self._turn(usage, number, now)

    def _turn(self, usage: wire_usage.Usage, number: int, now: int) -> Event:
        unique = usage.id and self.upstream.name not in catalog.load("providers")["repeated_ids"]
        event = self._common(usage.id if unique else f"{self._own_id()}{f'#{number}' if number else ''}", now)
        model = usage.model or self.model or "unknown"
        event |= self._biller(model) | {"model": model, "turns": 1, **usage.counts}
        if self.model and self.model != model:
            event["request_model"] = self.model
        for name in ("tier", "geo", "search_context"):
            if value := getattr(usage, name):
                event[name] = value
        if "tier" not in event and (tier := wire_usage.tier_of(self.response_headers.get("x-gemini-service-tier"))):
            event["tier"] = tier
        if usage.cost_usd:
            event |= {"cost_usd": usage.cost_usd, "cost_source": usage.cost_source}
        state, reason = usage.state, usage.reason
        if self.error and not state:
            state, reason = "partial", "the answer was cut short"
        if state:
            event["usage"] = state
            event["usage_reason"] = reason or "unknown"
        if self.error or self.reading.error:
            event["error"] = self.error or self.reading.error
        session = event.get("session_id", "")
        if usage.counts and (event["client"] == "gemini-cli" or (session and event["client"] in _ALIASED)):
            event["alias"] = events.alias_of(event["client"], session, usage.counts)
        return events.arrange(event)

    def _biller(self, model: str) -> Event:
        if self.upstream.bills:
            return {"provider": self.upstream.bills}
        inferred = price_names.provider_of(model)
        return {"provider": inferred, "provider_inferred": True} if inferred else {}


_OPENCODE = re.compile(r"ses_[0-9a-f]{12}[0-9A-Za-z]{14}\Z")
_CLAUDE = re.compile(r"_session_([0-9a-f-]{36})\Z")


def _session_in(payload: untrusted.Raw) -> str:
    """The session that a request's body names, as Codex, opencode and Claude Code do for the vendor's cache."""
    if name := untrusted.identity(payload.get("prompt_cache_key")):
        return name
    match = _CLAUDE.search(untrusted.text(untrusted.mapping(payload.get("metadata")).get("user_id"), 400))
    return match[1] if match else ""


_ENDS = frozenset(
    (
        "response.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "conversation.item.input_audio_transcription.completed",
    )
)
_IN_PATH = re.compile(rb"/models/([^/:?]+):|/deployments/([^/?]+)/|/model/([^/?]+)/(?:invoke|converse)")


def _model_in(path: bytes) -> str:
    """The model that a path names (Gemini, Azure, Bedrock); "" if it names none."""
    match = _IN_PATH.search(path)
    return untrusted.text(next(filter(None, match.groups())).decode("latin-1")) if match else ""
