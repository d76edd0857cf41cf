"""Decides what goes where and when on one client's connection: a state machine without sockets or a clock.

A connection is in one `State` at a time, and `proxy_states` holds every way from one state to another. Data of one state
lives in that state's class in `proxy_phases`; `Effects` there has the sockets and the clock. Bytes of bodies pass as they
came, framing included, and are counted only after they have passed, by `proxy_meter`.

Where a new rule goes: access, `proxy_routes.refusal`; when a client waits, `Connection.full`; valid answers of upstreams,
`Connection._response_heads`; what is counted and what that may cost, `proxy_exchange`; the proxy's own answers,
`Connection._send_error`; a new phase of a connection, a state and its rows in the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenops import http1, proxy_phases, proxy_routes, proxy_savings
from tokenops.proxy_exchange import Exchange
from tokenops.proxy_meter import Meter
from tokenops.proxy_phases import Answering, AtSite, Call, Calling, Closed, Collecting, Connecting, Idle, Tunnel, Waiting
from tokenops.proxy_states import TRANSITIONS, IllegalTransition, State, Trigger

_STATE_OF = {state.value: state for state in State}
_IDLE, _CLOSED = Idle(), Closed()
_MOST_UNSENT = 256 << 10  # so many bytes are taken in before there is a connection to the upstream


def _as_one(parts: list[bytes]) -> bytes:
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Connection:
    """One client's connection."""

    def __init__(self, effects: proxy_phases.Effects, settings: proxy_routes.Settings) -> None:
        self.effects, self.settings = effects, settings
        self.inbox = bytearray()  # what the client sent and is not processed yet
        self.draining = False  # the answer at hand is the last
        self.state: State = State.IDLE
        self.phase: proxy_phases.Phase = _IDLE

    def move(self, trigger: Trigger, phase: proxy_phases.Phase) -> None:
        """The only way from one state to another. Raises IllegalTransition."""
        state = _STATE_OF[type(phase)]
        if TRANSITIONS.get((self.state, trigger)) is not state:
            raise IllegalTransition(self.state, trigger.value)
        self.state, self.phase = state, phase

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return isinstance(self.phase, (Idle, Closed))

    @property
    def full(self) -> bool:
        """Whether the client should not send more for now: it is ahead by a request."""
        if isinstance(self.phase, Connecting) and self.phase.size > _MOST_UNSENT:
            return True
        if len(self.inbox) <= http1.MOST_HEAD:
            return False
        return isinstance(self.phase, AtSite) or not (self.idle or self.phase.uploading)

    # From the client.

    def client_data(self, data: bytes) -> None:
        """The client sent something."""
        match self.phase:
            case Tunnel() as phase:
                self._tunnel_up(phase, data)
            case phase if not isinstance(phase, Closed):
                self.inbox += data
                self._go_on()

    def timed_out(self) -> None:
        """The head of a request has been coming for too long."""
        self._send_error(408, "the request's head took too long", "send the head in one go")

    def client_gone(self) -> None:
        """The client left: so does its request."""
        match self.phase:
            case Calling(call=call):
                self._end(Trigger.CLIENT_LEFT, call, "client left")
            case Idle() | AtSite():
                self.move(Trigger.CLIENT_LEFT, _CLOSED)

    def _go_on(self) -> None:
        """Process what the client sent, as far as possible now."""
        while self.inbox:
            phase = self.phase
            if isinstance(phase, Calling) and phase.uploading:
                self._request_body(phase)
            elif not isinstance(phase, Idle) or not self._next_request():
                return

    def _next_request(self) -> bool:
        """Begin the next request; whether its head was whole."""
        try:
            del self.inbox[: http1.leading_blank(self.inbox)]
            end = http1.find_head(self.inbox)
            if end < 0:
                return False
            head = http1.request(bytes(self.inbox[:end]))
            body = http1.Body(*http1.request_body(head))
        except http1.BadMessage as error:
            self._send_error(error.status, str(error), "send a plain HTTP/1.1 request")
            return False
        del self.inbox[:end]
        self._begin(head, body)
        return True

    def _begin(self, head: http1.Request, body: http1.Body) -> None:
        settings, path = self.settings, proxy_routes.path_of(head.target)
        keeps = http1.keeps_open(head.version, head.headers) and not self.draining
        if settings.site is not None and settings.site.owns(path):
            self.move(Trigger.SITE_REQUEST, AtSite(head.method, body, keeps))
            self.effects.ask_site(head)
        elif (refusal := proxy_routes.refusal(head, self._hosts(head.method, path))) is not None:
            self._send_error(*refusal, head.method)
        elif (route := proxy_routes.route(head.target, settings.upstreams)) is not None:
            upstream, path, target = route
            exchange = Exchange(upstream, head, path, self.effects.now(), settings.number(), settings.salt)
            exchange.chains = settings.chains
            self._call(Call(exchange, Meter(exchange), head, body, target, keeps))
        elif (own := settings.local(head.method, path)) is not None:
            status, kind, content = own
            self._answer(status, [http1.field(b"Content-Type", kind)], content, keeps and body.done, head.method)
        else:
            self._send_error(*proxy_routes.unknown(settings.upstreams), head.method)

    def _hosts(self, method: bytes, path: bytes) -> frozenset[str]:
        """The names that a request may call this server by."""
        own = self.settings.local(method, path) is not None
        return self.settings.hosts | {proxy_routes.OWN_NAME} if own else self.settings.hosts

    def _call(self, call: Call) -> None:
        """Pass a request on, at once or after its body was looked at."""
        if call.body.done:
            call.exchange.request_end()
        elif self.settings.options.any and call.body.kind == http1.LENGTH and call.exchange.readable(call.body.left):
            self.move(Trigger.COLLECT, Collecting(call))
            return
        self._connect(Trigger.REQUEST, call, call.head)

    def _connect(self, trigger: Trigger, call: Call, head: http1.Request, body: bytes = b"") -> None:
        upstream = call.exchange.upstream
        first = proxy_routes.to_upstream(head, call.target, upstream)
        self.move(trigger, Connecting(call, [first, body] if body else [first], len(body)))
        self.effects.connect(upstream)

    def _request_body(self, phase: Calling) -> None:
        """Pass on what is there of the request's body: first the bytes, then their meaning."""
        call, data = phase.call, bytes(self.inbox)
        try:
            piece = call.body.feed(data)
        except http1.BadMessage as error:
            self._end(Trigger.BAD_BODY, call, "malformed request body")
            if isinstance(phase, Answering):
                self.effects.abort_client()  # a refusal would be taken for a part of the answer
            else:
                self._last_words(error.status, str(error), "send a plain HTTP/1.1 request")
            return
        self.inbox[:] = data[piece.used :]
        match phase:
            case Collecting():
                phase.content += data[: piece.used]
            case Connecting():
                phase.unsent.append(data[: piece.used])
                phase.size += piece.used
            case _ if piece.used:
                self.effects.send_to_upstream(data[: piece.used])
        if piece.data:
            call.exchange.request_data(_as_one(piece.data))
        if piece.done:
            call.exchange.request_end(isinstance(phase, Collecting))
            if isinstance(phase, Collecting):
                self._after_collecting(phase)
            self._count(call, call.exchange.request_parts(), 0)

    def _after_collecting(self, phase: Collecting) -> None:
        """Send the request as it came or as the user's settings change it, or answer from the cache."""
        call, exchange, settings, body = phase.call, phase.call.exchange, self.settings, bytes(phase.content)
        if settings.cache is not None:
            call.key, entry = settings.cache.find(exchange, call.head, body, self.effects.now())
            if entry is not None:
                self._cache_hit(call, entry)
                return
        share = settings.headroom(exchange.biller) if settings.options.rules else None
        changes = proxy_savings.changes(settings.options, exchange, call.head, body, share)
        exchange.rerouted_to, call.without_usage = changes.model, changes.without_usage
        self._connect(Trigger.COLLECTED, call, changes.head, changes.body)

    def _needs_care(self, call: Call) -> bool:
        """Whether a browser may show the answer, beside the dashboard or not."""
        return self.settings.site is not None or proxy_routes.is_browser(call.head)

    def _cache_hit(self, call: Call, entry: proxy_savings.Entry) -> None:
        keeps = call.keeps and not self.draining
        head = proxy_routes.harmless(entry.head) if self._needs_care(call) else entry.head
        self.effects.send_to_client(proxy_routes.from_cache(head, len(entry.body), keeps) + entry.body)
        self.move(Trigger.CACHE_HIT, _IDLE)
        self.effects.record([call.exchange.saving("cache", entry.tokens)])
        if not keeps:
            self._close()

    # From the upstream.

    def upstream_ready(self) -> None:
        """A connection to the upstream is there."""
        match self.phase:
            case Connecting(call=call, unsent=unsent):
                self.move(Trigger.CONNECTED, Waiting(call))
                for data in unsent:
                    self.effects.send_to_upstream(data)
            case _:
                raise IllegalTransition(self.state, Trigger.CONNECTED.value)

    def upstream_failed(self, status: int, why: str) -> None:
        """No connection to the upstream could be made."""
        match self.phase:
            case Connecting(call=call):
                self._no_answer(Trigger.UNREACHABLE, call, "timeout" if status == 504 else "unreachable", status, why)
            case _:
                raise IllegalTransition(self.state, Trigger.UNREACHABLE.value)

    def upstream_data(self, data: bytes) -> None:
        """The upstream sent something."""
        match self.phase:
            case Answering() as phase:
                self._response_body(phase, data)
            case Waiting() as phase:
                phase.buffer += data
                self._response_heads(phase)
            case Tunnel() as phase:
                self._tunnel_down(phase, data)
            case _:
                raise IllegalTransition(self.state, "its upstream sent something")

    def upstream_gone(self) -> None:
        """The upstream's connection ended."""
        match self.phase:
            case Waiting(call=call):
                self._no_answer(Trigger.NO_ANSWER, call, "no answer", 502, "the provider closed the connection")
            case Answering() as phase:
                phase.reusable = False
                if phase.body.end():
                    self._end_answer(phase)
                else:
                    self._end(Trigger.ANSWER_CUT, phase.call, "truncated")
                    self.effects.abort_client()
            case Tunnel(call=call):
                self._end(Trigger.TUNNEL_ENDS, call, "")
                self.effects.close_client()
            case _:
                raise IllegalTransition(self.state, "its upstream left")

    def _response_heads(self, phase: Waiting) -> None:
        """Pass on the heads that are whole: provisional ones, then the answer's own."""
        call = phase.call
        while self.phase is phase:
            try:
                end = http1.find_head(phase.buffer)
                if end < 0:
                    return
                raw = bytes(phase.buffer[:end])
                head = http1.response(raw)
                body = http1.Body(*http1.response_body(call.head.method, head))
            except http1.BadMessage as error:
                self._no_answer(Trigger.NO_ANSWER, call, "no answer", 502, f"the answer is not valid HTTP/1.1: {error}")
                return
            del phase.buffer[:end]
            sides = (call.head, head)  # a switch is asked for, and to what was asked for
            if head.status == 101 and any(b"websocket" not in http1.items(side.headers, b"upgrade") for side in sides):
                why = "it switched to another protocol, which nobody asked for"
                self._no_answer(Trigger.NO_ANSWER, call, "no answer", 502, why)
            elif head.status == 101:
                self._switch(phase, raw, head)
            elif head.status >= 200:
                self._begin_answer(phase, head, body)
            elif call.head.version >= (1, 1):
                self.effects.send_to_client(raw)

    def _begin_answer(self, phase: Waiting, head: http1.Response, body: http1.Body) -> None:
        call, ends = phase.call, body.kind != http1.CLOSE
        call.exchange.response_head(head)
        changed = call.without_usage and head.status == 200 and proxy_routes.is_stream(head)
        filtered = proxy_savings.WithoutUsage() if changed else None
        passage = proxy_routes.passage_of(call.head.version, body.kind, changed)
        call.keeps &= ends and passage != proxy_routes.CONTENT and call.body.done and not self.draining
        reusable = ends and http1.keeps_open(head.version, head.headers)
        copy = bytearray() if call.key and head.status == 200 and ends else None
        answering = Answering(call, head, body, passage, reusable, filtered, copy)
        self.move(Trigger.ANSWER_BEGINS, answering)
        shown = proxy_routes.harmless(head) if self._needs_care(call) else head
        self.effects.send_to_client(proxy_routes.to_client(shown, passage, call.keeps, call.head.version))
        if phase.buffer or body.done:
            self._response_body(answering, bytes(phase.buffer))

    def _response_body(self, phase: Answering, data: bytes) -> None:
        """Pass on what is there of the answer's body: first the bytes, then their meaning."""
        try:
            piece = phase.body.feed(data)
        except http1.BadMessage:
            self._end(Trigger.ANSWER_CUT, phase.call, "malformed answer")
            self.effects.abort_client()  # only a cut connection can say that the answer is not whole
            return
        if passed := data[: piece.used] if phase.passage == proxy_routes.UNTOUCHED else phase.transform(piece):
            self.effects.send_to_client(passed)
        content = _as_one(piece.data)
        if content and (slices := phase.call.exchange.response_data(content, self.effects.now())) is not None:
            self._count(phase.call, slices, len(content))
        if phase.copy is not None:
            phase.copy += content
            if len(phase.copy) > self.settings.options.entry_bytes:
                phase.copy = None
        if piece.done:
            phase.reusable &= piece.used == len(data)  # else it says more than it should
            self._end_answer(phase)

    def _end_answer(self, phase: Answering) -> None:
        call, now = phase.call, self.effects.now()
        if phase.copy is not None and self.settings.cache is not None and not call.meter.work:
            self.settings.cache.add(call.key, phase.head, bytes(phase.copy), call.exchange.tokens_so_far(), now)
        self.move(Trigger.ANSWER_ENDS, _IDLE)
        self.effects.release(phase.reusable and call.body.done)
        self.effects.finish(call.meter, now, "")
        if call.keeps and call.body.done and not self.draining:
            self._go_on()
        else:
            self._close()

    def _no_answer(self, trigger: Trigger, call: Call, error: str, status: int, why: str) -> None:
        name = call.exchange.upstream.name
        self._end(trigger, call, error)
        self._last_words(
            status, f"{name}: {why}", f"check that {name} is up and that tok-provider list shows the right address"
        )

    def _end(self, trigger: Trigger, call: Call, error: str) -> None:
        """A call ends before its answer does."""
        now = self.effects.now()
        self.move(trigger, _CLOSED)
        self.effects.release(False)
        self.effects.finish(call.meter, now, error)

    def _count(self, call: Call, slices: Iterator[None], size: int) -> None:
        """Count what has passed: the first slice now, the rest while others pass."""
        if call.meter.take(slices, size):
            self.effects.catch_up(call.meter)

    # A tunnel.

    def _switch(self, phase: Waiting, raw: bytes, head: http1.Response) -> None:
        phase.call.exchange.tunnel_head(head)
        tunnel = Tunnel(phase.call)
        self.move(Trigger.SWITCHED, tunnel)
        self.effects.send_to_client(raw)
        if phase.buffer:
            self._tunnel_down(tunnel, bytes(phase.buffer))
        if self.inbox:
            rest, self.inbox = bytes(self.inbox), bytearray()
            self._tunnel_up(tunnel, rest)

    def _tunnel_up(self, phase: Tunnel, data: bytes) -> None:
        self.effects.send_to_upstream(data)
        self._count(phase.call, phase.client_slices(data, self.effects.now()), len(data))

    def _tunnel_down(self, phase: Tunnel, data: bytes) -> None:
        self.effects.send_to_client(data)
        slices = phase.upstream_slices(data, self.effects.now(), self.effects.record)
        self._count(phase.call, slices, len(data))

    # The proxy's own answers.

    def site_answered(self, reply: proxy_routes.Reply) -> None:
        """The site's answer is there; a client that has left does not get it."""
        match self.phase:
            case AtSite(method, body, keeps):
                self.move(Trigger.SITE_ANSWER, _IDLE)
                self._answer(reply.status, reply.headers, reply.body, keeps and body.done, method)
                self._go_on()
            case Closed():
                return
            case _:
                raise IllegalTransition(self.state, Trigger.SITE_ANSWER.value)

    def _answer(self, status: int, fields: http1.Headers, content: bytes, keeps: bool, method: bytes) -> None:
        keeps = keeps and not self.draining
        self.effects.send_to_client(proxy_routes.own_answer(status, fields, content, keeps, method))
        if not keeps:
            self._close()

    def _send_error(self, status: int, error: str, hint: str, method: bytes = b"") -> None:
        """Answer a request that goes nowhere, and close."""
        self.move(Trigger.LAST_ANSWER, _CLOSED)
        self._last_words(status, error, hint, method)

    def _close(self) -> None:
        self.move(Trigger.LAST_ANSWER, _CLOSED)
        self.inbox.clear()
        self.effects.close_client()

    def _last_words(self, status: int, error: str, hint: str, method: bytes = b"") -> None:
        """Tell the client what is wrong; the connection is closed already, but for this."""
        self.effects.send_to_client(proxy_routes.error_answer(status, error, hint, method))
        self.effects.close_client()
