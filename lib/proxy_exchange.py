"""Counts one request and its answer as they pass, and returns the events for the log. No sockets; times are arguments.

Nothing of a prompt or an answer is kept. The proxy calls these methods after it has passed the bytes on, and none of them
raises: an exchange that cannot be counted is given up, and its turn is recorded as unknown, with the reason.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

from tokenops import (
    catalog,
    datadir,
    events,
    http1,
    price_names,
    pricing,
    projects,
    proxy_parts,
    proxy_request,
    untrusted,
    when,
    wire_body,
    wire_limits,
    wire_usage,
)
from tokenops.events import Event

SOURCE = "proxy"

# A request's body is parsed up to this size, and only if it is plain JSON: for names and for sizes of its parts.
MOST_BODY = 1 << 20


class Upstream(NamedTuple):
    """Where requests under one prefix go."""

    name: str  # the prefix
    host: str
    port: int
    tls: bool
    base: bytes  # path before the request's own
    bills: str  # provider in the record; "" if only the model says


Step = TypeVar("Step", bound=Callable[..., None])


def guard(method: Step) -> Step:
    """A step of counting: whatever it meets ends the counting of its exchange, and nothing else."""

    @functools.wraps(method)
    def step(exchange: Exchange, *args: object) -> None:
        if not exchange.lost:
            try:
                method(exchange, *args)
            except Exception as error:
                exchange.give_up(f"metering failed: {type(error).__name__}")

    return cast(Step, step)


class Tunnel:
    """What is under way in a tunnel, where answer follows answer."""

    def __init__(self) -> None:
        self.asked = False  # the client asked for an answer
        self.begun: dict[str, None] = {}  # the ids of the answers that have begun and not ended; "" for one without
        self.failures = 0


class Exchange:
    """One request and its answer."""

    chains: proxy_parts.Chains | None = None  # what requests are compared with, if they are

    def __init__(self, upstream: Upstream, head: http1.Request, path: bytes, now: int, number: int, salt: bytes) -> None:
        self.upstream, self.path, self.started, self.number, self.salt = upstream, path, now, number, salt
        self.method = head.method
        self.kind = proxy_request.kind_of(head.method, path.partition(b"?")[0], upstream.bills)
        self.headers = {low.decode(): value.decode("latin-1") for low, _, value in head.headers if low in proxy_request.READ}
        self.model = proxy_request.model_in(path)
        self.tags = proxy_request.tags_in(self.headers, {})
        self.status = 0
        self.first_at: int | None = None  # when the answer's first byte came
        self.error = ""
        most = wire_usage.MOST_RESULTS if self.kind == "fetched" else wire_usage.MOST_NAMES
        self.reading = wire_usage.Answer(self.biller, most)
        self.body: wire_body.Body | None = None
        self.lost = ""  # why counting was given up
        self.response_headers: dict[str, str] = {}
        self._content: wire_body.Kept | None = wire_body.Kept() if self.readable(0) else None
        self.payload: untrusted.Raw = {}  # the request's body, for as long as it is needed
        self.rerouted_to = ""  # the model that a rule put in the place of the client's
        self._parts: proxy_parts.Watch | None = None  # of the request's body
        self._body_session = ""  # the session that the request's body names
        self._recorded: set[str] = set()  # ids of turns
        self.tunnel: Tunnel | None = None

    @property
    def biller(self) -> str:
        """The provider whose limits count."""
        return self.upstream.bills or self.upstream.name

    def readable(self, length: int) -> bool:
        """Whether the request's body is parsed."""
        kind = self.headers.get("content-type", "")
        plain = "json" in kind and self.headers.get("content-encoding", "identity") == "identity"
        return self.kind == "new" and plain and length <= MOST_BODY

    def give_up(self, reason: str) -> None:
        """Count no more, and keep nothing."""
        self.lost, self._content, self.payload, self._parts = reason, None, {}, None
        self.reading.skip_part(reason, True)
        if self.body is not None:
            self.body.give_up(reason)

    @guard
    def request_data(self, data: bytes) -> None:
        """Take in a piece of the request's content."""
        if self._content is not None:
            self._content.add(data)
            if len(self._content.data) > MOST_BODY or not self._content.whole:
                self._content = None

    @guard
    def request_end(self, is_kept: bool = False) -> None:
        """The request is whole; `is_kept`: its content is needed until the answer begins."""
        content, self._content = self._content, None
        if content is None or not content.data:
            return
        try:
            payload = untrusted.mapping(untrusted.json_value(content.data))
        except events.BadRecord:
            return
        self.model = self.model or untrusted.text(payload.get("model")).removeprefix("models/")
        self._body_session = proxy_request.session_in(payload)
        self.tags = proxy_request.tags_in(self.headers, payload)
        if is_kept:
            self.payload = payload
        if self.chains is not None:
            self._parts = self.chains.watch(self.path, payload, len(content.data), self.salt)

    def request_parts(self) -> Iterator[None]:
        """Measure the parts of the request and compare them: the slices of the work."""
        if self._parts is None:
            return iter(())
        event = self._attribution()
        return self._parts.slices((self.upstream.name, event["client"], event.get("session_id", "")))

    def tokens_so_far(self) -> int:
        """How many tokens the answer says it cost, once it is whole; 0 if that is not known."""
        self._end_body()
        return 0 if self.lost else sum(events.token_sum(usage.counts) for usage in self.reading.usages())

    @guard
    def _end_body(self) -> None:
        if self.body is not None:
            self.body.finish()

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
        if (self.kind or head.status >= 400) and not self.lost:
            self.body = wire_body.Body(
                self.response_headers.get("content-type", ""),
                self.response_headers.get("content-encoding", ""),
                self.reading,
            )

    def tunnel_head(self, head: http1.Response) -> None:
        """Take in the head of an answer that opens a tunnel: messages follow, and no body."""
        self.response_head(head)
        self.body, self.tunnel = None, Tunnel()

    def response_data(self, data: bytes, now: int) -> Iterator[None] | None:
        """Take in a piece of the answer's content: the slices of the work, None if there is none."""
        if self.first_at is None:
            self.first_at = now
        return None if self.body is None or self.lost else self.body.slices(data)

    def vendor_message(self, value: Any, now: int) -> list[Event]:
        """Take in a WebSocket message from the vendor; returns the events of the answers that it ends."""
        message = untrusted.mapping(value)
        if self.tunnel is None or not message:
            return []
        if self.first_at is None:
            self.first_at = now
        self.reading.take(message)
        rows = list(self._quota(now))
        kind = untrusted.text(message.get("type"))
        name = untrusted.identity(untrusted.mapping(message.get("response")).get("id"))
        if kind in _BEGINS and len(self.tunnel.begun) < wire_usage.MOST_NAMES:
            self.tunnel.begun[name] = None
        elif kind in _ENDS or (self.reading.error and "." not in kind):
            rows += self._end_of_answer(message, kind, now)
            self.started, self.first_at = now, None
            if name in self.tunnel.begun:
                del self.tunnel.begun[name]
            elif kind != _TRANSCRIBED:
                self.tunnel.begun.clear()
        if kind not in _BEGINS:
            self.reading.error = ""  # whatever failed was this message's; a tool or a transcription ends no answer
        return rows

    def _end_of_answer(self, message: untrusted.Raw, kind: str, now: int) -> Iterator[Event]:
        """The events of an answer that a message in a tunnel ends, or refuses."""
        tunnel, usages = self.tunnel, self._usages_with_counts(self.reading.take_usages())
        yield from self._turns(usages, now)
        status = next((message[key] for key in ("status", "status_code") if type(message.get(key)) is int), 0)
        status = status if 100 <= status <= 599 else 0
        name = self.reading.error
        if tunnel is not None and not usages and name and (kind in _ENDS or status or tunnel.begun or tunnel.asked):
            tunnel.failures += 1
            yield self._failure(now, name, status, f"{self._own_id()}#{tunnel.failures}")
            tunnel.asked = False
        elif tunnel is not None and not usages and tunnel.asked and kind in _ENDS and kind != _TRANSCRIBED:
            identity = untrusted.identity(untrusted.mapping(message.get("response")).get("id"))
            reason = "no usage in the answer"
            yield self._turn(wire_usage.Usage(identity, self.reading.model, {}, state="unknown", reason=reason), 0, now)
        ts, account = when.stamp(now), self._account()
        yield from wire_limits.readings(self.biller, proxy_request.header_texts(message.get("headers")), ts, account)
        if self.reading.refused:
            yield from wire_limits.refusal(self.biller, status, self.reading.refused, ts, account)
            self.reading.refused = {}
        if tunnel is not None and kind in _ENDS and kind != _TRANSCRIBED:
            tunnel.asked = False

    @guard
    def client_message(self, value: Any, now: int) -> None:
        """Take in a WebSocket message from the client: it may name the model, and begins a turn."""
        message = untrusted.mapping(value)
        if untrusted.text(message.get("type")) == "response.create":
            self.started, self.first_at = now, None
            self.model = untrusted.text(message.get("model")) or self.model
            self.tags = proxy_request.tags_in(self.headers, message)
            if self.tunnel is not None:
                self.tunnel.asked = message.get("generate") is not False  # Codex warms its session up
        if setup := untrusted.mapping(message.get("setup")):
            self.model = untrusted.text(setup.get("model")).removeprefix("models/") or self.model

    def finish(self, now: int, error: str = "") -> list[Event]:
        """The events of the exchange; `error` names what cut it short. Raises nothing."""
        self.error = error
        self._end_body()
        try:
            return self._events(now, error)
        except Exception as fault:
            self.give_up(f"metering failed: {type(fault).__name__}")
        return [self._unknown_turn(now)] if self.kind == "new" else []

    def _unknown_turn(self, now: int) -> Event:
        """The least that can be said of a turn."""
        event: Event = {"v": events.VERSION, "ts": when.stamp(self.started), "kind": "turn", "id": self._own_id()}
        event |= {"source": SOURCE, "client": "unknown", "agent_id": "unknown", **self._biller(""), "model": "unknown"}
        event |= {"turns": 1, "usage": "unknown", "usage_reason": self.lost, "latency_ms": max(now - self.started, 0)}
        return events.arrange(event)

    def _events(self, now: int, error: str) -> list[Event]:
        ts, account, biller = when.stamp(now), self._account(), self.biller
        rows: list[Event] = []
        usages = self._usages_with_counts(self.reading.usages())
        failed = self.status >= 400 or (error and not self.status) or (self.reading.error and not usages and not self.lost)
        if self.tunnel is not None:
            rows += self._end_of_tunnel(self.tunnel, usages, now)
        elif failed and self.kind == "new":
            rows.append(self._failure(now, error or self.reading.error or f"status {self.status}", self.status))
        elif self.kind and not failed:
            rows += self._turns(usages or self._unknown(), now)
            rows += self._parts.records(rows) if self._parts is not None else []
            if self.rerouted_to:
                rows += [self._cheaper(turn) for turn in rows if turn["kind"] == "turn"]
        rows += wire_limits.readings(biller, self.response_headers, ts, account)
        rows += self._quota(now)
        if self.reading.refused:
            rows += wire_limits.refusal(biller, self.status, self.reading.refused, ts, account)
        return rows

    def _usages_with_counts(self, usages: list[wire_usage.Usage]) -> list[wire_usage.Usage]:
        """The usages of an answer; none if it is an error, and states no more than zeros."""
        return [] if self.reading.error and not any(usage.counts for usage in usages) else usages

    def _unknown(self) -> list[wire_usage.Usage]:
        """What is said of a turn without counts."""
        if self.kind != "new":
            return []
        reason = self.lost or (self.body.reason if self.body is not None else "")
        identity, model, tier = self.reading.id, self.reading.model, self.reading.tier
        return [wire_usage.Usage(identity, model, {}, tier, state="unknown", reason=reason)]

    def _end_of_tunnel(self, tunnel: Tunnel, usages: list[wire_usage.Usage], now: int) -> Iterator[Event]:
        """The events of what was under way in a tunnel when it ended."""
        yield from self._turns(usages, now)
        names = [name for name in tunnel.begun if not usages or (name and all(name != usage.id for usage in usages))]
        if self.lost and not usages and not names:
            names = [""]
        for number, name in enumerate(names):
            reason = self.lost or wire_usage.CUT_SHORT
            usage = wire_usage.Usage(name, self.reading.model, {}, state="unknown", reason=reason)
            yield self._turn(usage, number, now)
        if tunnel.asked and not usages and not names:
            yield self._failure(now, self.error or "no answer", 0)

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
            (
                name
                for key in proxy_request.SESSIONS
                if key in self.headers and (name := untrusted.identity(self.headers[key]))
            ),
            "",
        )
        session = session or self._body_session
        client = proxy_request.client_of(self.headers) or "unknown"
        if client != "kilo" and proxy_request.OPENCODE.match(session):
            client = "opencode"
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
        with contextlib.suppress(catalog.Malformed, OSError):  # prices that cannot be read: what was saved is not known
            catalogue = pricing.load(log_folder=datadir.log_folder())
            prices = [catalogue.rate_of({**turn, "model": self.model, "request_model": ""}), catalogue.rate_of(turn)]
            amounts = [pricing.cost_of(rate, turn) if isinstance(rate, pricing.Rate) else rate for rate in prices]
            if isinstance(amounts[0], pricing.Cost) and isinstance(amounts[1], pricing.Cost):
                event["saved_usd"] = pricing.plain(amounts[0].usd - amounts[1].usd)
        return event

    def _common(self, identity: str, now: int) -> Event:
        event: Event = {"v": events.VERSION, "ts": when.stamp(self.started), "kind": "turn", "id": identity}
        event |= self._attribution() | self.tags | {"status": self.status, "latency_ms": now - self.started}
        if self.first_at is not None:
            event["ttft_ms"] = self.first_at - self.started
        event["path"] = self.path.partition(b"?")[0].decode("latin-1")[:200]
        if sort := proxy_request.credential(self.headers):
            event["credential"] = sort
        return event

    def _own_id(self) -> str:
        return f"proxy:{self.started}:{self.number}"

    def _failure(self, now: int, error: str, status: int, identity: str = "") -> Event:
        """A request that failed."""
        event = self._common(identity or self._own_id(), now) | {
            "errors": 1,
            **self._biller(self.model),
            "model": self.model or "unknown",
            "error": error,
            "status": status,
        }
        if not status:
            del event["status"]
        return events.arrange(event)

    def _turns(self, usages: list[wire_usage.Usage], now: int) -> Iterator[Event]:
        """The turns that were not recorded yet."""
        for number, usage in enumerate(usages):
            if usage.id in self._recorded and usage.id:
                continue
            self._recorded.add(usage.id)
            if usage.id or self.kind == "new":
                yield self._turn(usage, number, now)
        if len(self._recorded) > _MOST_RECORDED:
            self._recorded.clear()

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
            state, reason = "partial", wire_usage.CUT_SHORT
        if state:
            event["usage"] = state
            event["usage_reason"] = reason or "unknown"
        if self.error or self.reading.error:
            event["error"] = self.error or self.reading.error
        session = event.get("session_id", "")
        if usage.counts and (event["client"] in events.NAMELESS or (session and event["client"] in proxy_request.ALIASED)):
            event["alias"] = events.alias_of(event["client"], session, usage.counts)
        return events.arrange(event)

    def _biller(self, model: str) -> Event:
        if self.upstream.bills:
            return {"provider": self.upstream.bills}
        inferred = price_names.provider_of(model)
        return {"provider": inferred, "provider_inferred": True} if inferred else {}


_BEGINS = frozenset(("response.created",))
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_ENDS = frozenset((*(f"response.{end}" for end in ("done", "completed", "incomplete", "failed")), _TRANSCRIBED))
# Of a tunnel so many ids are remembered; an answer is never named again much later.
_MOST_RECORDED = 10_000
