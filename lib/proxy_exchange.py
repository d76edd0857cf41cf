"""One request and its answer, as they pass -> the events of the log. No sockets, no clock: times are arguments.

Nothing of a prompt or an answer is kept; of the headers only those named here are looked at.
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

# A request's body is looked into up to this size, and only if it is plain JSON: for its model, nothing else.
MOST_BODY = 1 << 20


class Upstream(NamedTuple):
    """Where requests under one prefix go."""

    name: str  # the prefix
    host: str
    port: int
    tls: bool
    base: bytes  # path before the request's own
    bills: str  # provider in the record; "" where the model tells


# What costs nothing, repeats what was said, or is no request to a model. (Vendors' API references, November 2026.)
_FREE = re.compile(
    rb"count_tokens|:countTokens|/input_tokens\b|/tokenize|/detokenize|/messages/batches|/batches\b|/batch/|:batchGenerate|"
    rb"/cachedContents|/files\b|/fileSearchStores|/vector_stores|/models?(?:/[^/:]*)?\Z|/tcp_warming|:predictLongRunning|"
    rb"/assistants\b|/threads(?:/[^/]+)?(?:/messages.*)?\Z|/conversations(?:/[^/]+)?\Z|/fine[_-]tuning|/uploads?\b|/oauth|/cancel\Z|"
    rb"/responses/[^/]+/(?:cancel|input_items)|/api/(?:tags|show|pull|push|ps|version|create|copy|delete|blobs)|telemetry|/wham/"
)
# What fetches an answer made before: the answer's own id says which, so it is the same turn.
_FETCHED = re.compile(rb"/responses/(?:resp_|[^/]+\Z)|/batches/[^/]+/results\Z|/files/[^/]+/content\Z")


def metered(method: bytes, path: bytes) -> str:
    """Whether an answer is counted: "made" here, "fetched" (it counts once, by its id), or "" not at all."""
    if method == b"GET" and _FETCHED.search(path):
        return "fetched"
    if method != b"POST" or _FREE.search(path):
        return ""
    return "made"


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


@functools.cache
def caller(agent: str) -> str:
    """The client that a User-Agent names; "" where there is none."""
    word = re.split(r"[/ (]", agent.strip(), maxsplit=1)[0].lower()
    known = catalog.load("providers")["callers"]
    return str(known.get(word) or untrusted.text(re.sub(r"[^a-z0-9._-]+", "-", word).strip("-"), 40))


def credential(headers: dict[str, str]) -> str:
    """Which sort of key a request carries, told by its form alone: a plan's login, or a metered key."""
    token = headers.get("authorization", "").removeprefix("Bearer ").strip()
    if token.startswith(("sk-ant-oat", "eyJ", "gho_", "ghu_", "ya29.")):
        return "oauth"
    if token or any(name in headers for name in ("x-api-key", "api-key", "x-goog-api-key")):
        return "api_key"
    return ""


class Exchange:
    """One request and its answer."""

    def __init__(self, upstream: Upstream, head: http1.Request, path: bytes, now: int, number: int, salt: bytes) -> None:
        self.upstream, self.path, self.began, self.number, self.salt = upstream, path, now, number, salt
        self.method = head.method
        self.kind = metered(head.method, path.partition(b"?")[0])
        self.headers = {low.decode("latin-1"): value.decode("latin-1") for low, _, value in head.headers}
        self.model = _model_in(path)
        self.status = 0
        self.first: int | None = None
        self.error = ""
        self.reading = wire_usage.Answer(upstream.bills or upstream.name)
        self.body: wire_body.Body | None = None
        self.answered: dict[str, str] = {}
        self._asked: bytearray | None = bytearray() if self.readable(0) else None
        self.said: untrusted.Raw = {}  # the request's body, for as long as it is needed
        self.routed = ""  # the model that a rule put in the place of the one asked for
        self._named = ""  # the session, as the request's body says
        self._given: set[str] = set()

    @property
    def biller(self) -> str:
        """Whose meters count."""
        return self.upstream.bills or self.upstream.name

    def readable(self, length: int) -> bool:
        """Whether the request's body may be looked into."""
        kind = self.headers.get("content-type", "")
        plain = "json" in kind and self.headers.get("content-encoding", "identity") == "identity"
        return self.kind == "made" and plain and length <= MOST_BODY

    def asked(self, data: bytes) -> None:
        """Take in a piece of the request's content."""
        if self._asked is not None:
            self._asked += data
            if len(self._asked) > MOST_BODY:
                self._asked = None

    def asked_all(self) -> None:
        """The request is whole."""
        if self._asked:
            try:
                said = orjson.loads(self._asked)
            except ValueError:
                said = None
            self.said = untrusted.mapping(said)
            self.model = self.model or untrusted.text(self.said.get("model")).removeprefix("models/")
            self._named = _session_in(self.said)
        self._asked = None

    def tokens_so_far(self) -> int:
        """How many tokens the answer says it cost, once it is whole."""
        if self.body is not None:
            self.body.finish()
        return sum(events.token_sum(one.counts) for one in self.reading.usages())

    def saving(self, by: str, tokens: int) -> Event:
        """The event of an answer that cost nothing."""
        event: Event = {
            "v": events.VERSION,
            "ts": when.stamp(self.began),
            "kind": "saving",
            "id": f"saving:{self.began}:{self.number}",
        }
        event |= self._attribution() | self._biller(self.model) | {"model": self.model or "unknown", "by": by}
        event["path"] = self.path.partition(b"?")[0].decode("latin-1")[:200]
        return event | ({"saved_tokens": tokens} if tokens else {})

    def answers(self, head: http1.Response) -> None:
        """The head of the answer."""
        self.said = {}
        self.status = head.status
        self.answered = {low.decode("latin-1"): value.decode("latin-1") for low, _, value in head.headers}
        if self.kind or head.status >= 400:
            self.body = wire_body.Body(
                self.answered.get("content-type", ""), self.answered.get("content-encoding", ""), self.reading
            )

    def answer(self, data: bytes, now: int) -> None:
        """Take in a piece of the answer's content."""
        if self.first is None:
            self.first = now
        if self.body is not None:
            self.body.feed(data)

    def message(self, value: Any, now: int) -> Iterator[Event]:
        """Take in a WebSocket message from the vendor; the turns that it ends."""
        if self.first is None:
            self.first = now
        self.reading.take(value)
        if self.reading.limits:
            yield from self._quota(now)
        if isinstance(value, dict) and value.get("type") in _ENDS:
            yield from self._turns(now)
            self.began, self.first = now, None

    def asked_message(self, value: Any, now: int) -> None:
        """Take in a WebSocket message from the client: it may name the model, and begins a turn."""
        said = untrusted.mapping(value)
        if said.get("type") == "response.create":
            self.began, self.first = now, None
            self.model = untrusted.text(said.get("model")) or self.model
        if setup := untrusted.mapping(said.get("setup")):
            self.model = untrusted.text(setup.get("model")).removeprefix("models/") or self.model

    def finish(self, now: int, error: str = "") -> list[Event]:
        """The events of the exchange; `error` names what cut it short."""
        self.error = error
        if self.body is not None:
            self.body.finish()
        ts = when.stamp(now)
        account = self._account()
        found: list[Event] = []
        if self.status >= 400 or (error and not self.status):
            found += self._failed(now)
        elif self.kind:
            found += self._turns(now)
            if self.routed:
                found += [self._cheaper(turn) for turn in found if turn["kind"] == "turn"]
        found += wire_limits.readings(self.upstream.bills or self.upstream.name, self.answered, ts, account)
        found += self._quota(now)
        if self.reading.refused:
            found += wire_limits.refusal(
                self.upstream.bills or self.upstream.name, self.status, self.reading.refused, ts, account
            )
        return found

    def _quota(self, now: int) -> Iterator[Event]:
        """The meters of the quota events that came in the stream."""
        said, self.reading.limits = self.reading.limits, []
        for event in said:
            yield from wire_limits.quota_event(event, when.stamp(now), self._account())

    def _account(self) -> str:
        name = self.answered.get("anthropic-organization-id") or self.answered.get("openai-organization")
        name = name or self.headers.get("chatgpt-account-id", "")
        return projects.hashed(name, self.salt) if name else ""

    def _attribution(self) -> Event:
        session = next(
            (name for key in _SESSIONS if key in self.headers and (name := untrusted.identity(self.headers[key]))), ""
        )
        session = session or self._named
        # opencode leaves its name out of requests to some vendors; its sessions' names are of a form of their own.
        client = "opencode" if _OPENCODE.match(session) else caller(self.headers.get("user-agent", "")) or "unknown"
        project = untrusted.text(self.headers.get("x-tokenops-project"), 100)
        agent = f"{client}:{project}" if project else client
        found: Event = {"source": SOURCE, "client": client}
        if project:
            found["project"] = project
        if account := self._account():
            found["account"] = account
        found["agent_id"] = untrusted.identity(self.headers.get("x-tokenops-agent-id")) or agent
        workflow = untrusted.identity(self.headers.get("x-tokenops-workflow-id"))
        if workflow or session:
            found["workflow_id"] = workflow or f"{found['agent_id']}:{session}"
        if session:
            found["session_id"] = session
        return found

    def _cheaper(self, turn: Event) -> Event:
        """What the user's rule saved on a turn: the price of the model that was asked for, less that of the one used."""
        saved = self.saving("routing", 0) | {
            "id": f"saving:{turn['id']}",
            "model": turn["model"],
            "request_model": self.model,
        }
        catalogue = pricing.load("")
        then = catalogue.rate_of({**turn, "model": self.model, "request_model": ""})
        now = catalogue.rate_of(turn)
        if isinstance(then, pricing.Rate) and isinstance(now, pricing.Rate):
            before, after = pricing.cost_of(then, turn), pricing.cost_of(now, turn)
            if isinstance(before, pricing.Cost) and isinstance(after, pricing.Cost):
                saved["saved_usd"] = pricing.plain(before.usd - after.usd)
        return saved

    def _common(self, identity: str, now: int) -> Event:
        event: Event = {"v": events.VERSION, "ts": when.stamp(self.began), "kind": "turn", "id": identity}
        event |= self._attribution() | {"status": self.status, "latency_ms": now - self.began}
        if self.first is not None:
            event["ttft_ms"] = self.first - self.began
        event["path"] = self.path.partition(b"?")[0].decode("latin-1")[:200]
        if sort := credential(self.headers):
            event["credential"] = sort
        return event

    def _made_up(self) -> str:
        return f"proxy:{self.began}:{self.number}"

    def _failed(self, now: int) -> Iterator[Event]:
        if self.kind != "made":
            return
        event = self._common(self._made_up(), now) | {
            "errors": 1,
            **self._biller(self.model),
            "model": self.model or "unknown",
        }
        event["error"] = self.error or self.reading.error or f"status {self.status}"
        if not self.status:
            del event["status"]
        yield events.arranged(event)

    def _turns(self, now: int) -> Iterator[Event]:
        """The turns that were not given yet."""
        found = self.reading.usages()
        if not found and self.kind == "made":
            reason = self.body.reason if self.body is not None else ""
            found = [
                wire_usage.Usage(self.reading.id, self.reading.model, {}, self.reading.tier, state="unknown", reason=reason)
            ]
        for number, one in enumerate(found):
            if one.id in self._given and one.id:
                continue
            self._given.add(one.id)
            if one.id or self.kind == "made":
                yield self._turn(one, number, now)

    def _turn(self, one: wire_usage.Usage, number: int, now: int) -> Event:
        unique = one.id and self.upstream.name not in catalog.load("providers")["repeated_ids"]
        event = self._common(one.id if unique else f"{self._made_up()}{f'#{number}' if number else ''}", now)
        model = one.model or self.model or "unknown"
        event |= self._biller(model) | {"model": model, "turns": 1, **one.counts}
        if self.model and self.model != model:
            event["request_model"] = self.model
        for name in ("tier", "geo", "search_context"):
            if said := getattr(one, name):
                event[name] = said
        if "tier" not in event and (tier := wire_usage.tier_of(self.answered.get("x-gemini-service-tier"))):
            event["tier"] = tier
        if one.cost_usd:
            event |= {"cost_usd": one.cost_usd, "cost_source": one.cost_source}
        state, reason = one.state, one.reason
        if self.error and not state:
            state, reason = "partial", "the answer was cut short"
        if state:
            event["usage"] = state
            event["usage_reason"] = reason or "unknown"
        if self.error or self.reading.error:
            event["error"] = self.error or self.reading.error
        session = event.get("session_id", "")
        if one.counts and (event["client"] == "gemini-cli" or (session and event["client"] in _ALIASED)):
            event["alias"] = events.alias_of(event["client"], session, one.counts)
        return events.arranged(event)

    def _biller(self, model: str) -> Event:
        if self.upstream.bills:
            return {"provider": self.upstream.bills}
        inferred = price_names.provider_of(model)
        return {"provider": inferred, "provider_inferred": True} if inferred else {}


_OPENCODE = re.compile(r"ses_[0-9a-f]{12}[0-9A-Za-z]{14}\Z")
_CLAUDE = re.compile(r"_session_([0-9a-f-]{36})\Z")


def _session_in(said: untrusted.Raw) -> str:
    """The session that a request's body names, as Codex, opencode and Claude Code do for the vendor's cache."""
    if name := untrusted.identity(said.get("prompt_cache_key")):
        return name
    found = _CLAUDE.search(untrusted.text(untrusted.mapping(said.get("metadata")).get("user_id"), 400))
    return found[1] if found else ""


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
    """The model that a path names (Gemini, Azure, Bedrock); "" where it names none."""
    found = _IN_PATH.search(path)
    return untrusted.text(next(filter(None, found.groups())).decode("latin-1")) if found else ""
