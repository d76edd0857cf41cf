"""Decides what goes where and when on one client's connection: a state machine without sockets or a clock.

A connection is in one `State` at a time. `TRANSITIONS` holds every way from one state to another and what triggers it; any
other raises IllegalTransition. Data of one state lives in that state's class in `proxy_phases`; `Effects` there has the
sockets and the clock. Bytes of bodies pass as they came, framing included, and are counted only after they have passed.

Where a new rule goes: access, `proxy_routes.refusal`; when a client waits, `Connection.full`; valid answers of upstreams,
`Connection._response_heads`; what is counted and what that may cost, `proxy_exchange`; the proxy's own answers,
`Connection._send_error`; a new phase of a connection, a state and its rows in the table.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from tokenops import http1, proxy_phases, proxy_routes, proxy_savings
from tokenops.proxy_exchange import Exchange
from tokenops.proxy_phases import Answering, AtSite, Call, Calling, Closed, Collecting, Connecting, Idle, Tunnel, Waiting


class State(enum.Enum):
    """Where a client's connection stands. A state's value is the class of what is kept in it."""

    __hash__ = object.__hash__  # a fifth of what Enum's own takes; two are looked up at each step

    IDLE = Idle  # between requests; the next one's head may have begun
    AT_SITE = AtSite  # the dashboard makes the answer, in a thread of its own
    COLLECTING = Collecting  # a request's body is read to its end first, because a setting may change it
    CONNECTING = Connecting  # the request waits for a connection to its upstream
    WAITING = Waiting  # for the head of the answer; the request's body may still be passing
    ANSWERING = Answering  # the answer's body passes; the request's may still be passing, too
    TUNNEL = Tunnel  # bytes pass both ways until one side ends
    CLOSED = Closed  # nothing more is read or sent


class Trigger(enum.Enum):
    """What takes a connection from one state to another."""

    __hash__ = object.__hash__

    SITE_REQUEST = "a request for the site came"
    SITE_ANSWER = "the site's answer was sent"
    COLLECT = "a request came whose body is read first"
    REQUEST = "a request came that is sent on at once"
    COLLECTED = "the request's body is whole"
    CACHE_HIT = "the answer was sent from the cache"
    CONNECTED = "a connection to the upstream is there"
    UNREACHABLE = "no connection to the upstream could be made"
    ANSWER_BEGINS = "the head of the answer came"
    SWITCHED = "the upstream switched to another protocol (101)"
    NO_ANSWER = "the upstream left before it answered, or sent no HTTP"
    ANSWER_ENDS = "the answer is whole"
    ANSWER_CUT = "the upstream left, or broke the framing, within the answer"
    TUNNEL_ENDS = "the upstream ended the tunnel"
    BAD_BODY = "the framing of the request's body is broken"
    LAST_ANSWER = "an answer was sent after which the connection closes"
    CLIENT_LEFT = "the client ended its connection"


TRANSITIONS: Mapping[tuple[State, Trigger], State] = {
    (State.IDLE, Trigger.SITE_REQUEST): State.AT_SITE,
    (State.IDLE, Trigger.COLLECT): State.COLLECTING,
    (State.IDLE, Trigger.REQUEST): State.CONNECTING,
    (State.IDLE, Trigger.LAST_ANSWER): State.CLOSED,
    (State.IDLE, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.AT_SITE, Trigger.SITE_ANSWER): State.IDLE,
    (State.AT_SITE, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.COLLECTING, Trigger.COLLECTED): State.CONNECTING,
    (State.COLLECTING, Trigger.CACHE_HIT): State.IDLE,
    (State.COLLECTING, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.CONNECTING, Trigger.CONNECTED): State.WAITING,
    (State.CONNECTING, Trigger.UNREACHABLE): State.CLOSED,
    (State.CONNECTING, Trigger.BAD_BODY): State.CLOSED,
    (State.CONNECTING, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.WAITING, Trigger.ANSWER_BEGINS): State.ANSWERING,
    (State.WAITING, Trigger.SWITCHED): State.TUNNEL,
    (State.WAITING, Trigger.NO_ANSWER): State.CLOSED,
    (State.WAITING, Trigger.BAD_BODY): State.CLOSED,
    (State.WAITING, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.ANSWERING, Trigger.ANSWER_ENDS): State.IDLE,
    (State.ANSWERING, Trigger.ANSWER_CUT): State.CLOSED,
    (State.ANSWERING, Trigger.BAD_BODY): State.CLOSED,
    (State.ANSWERING, Trigger.CLIENT_LEFT): State.CLOSED,
    (State.TUNNEL, Trigger.TUNNEL_ENDS): State.CLOSED,
    (State.TUNNEL, Trigger.CLIENT_LEFT): State.CLOSED,
}


_STATE_OF = {state.value: state for state in State}
_IDLE, _CLOSED = Idle(), Closed()


class IllegalTransition(RuntimeError):
    """A step that is not in `TRANSITIONS`: a fault of the caller, or of this module."""

    def __init__(self, state: State, what: str) -> None:
        super().__init__(f"the connection is {state.name}, and {what}")


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
        elif (refusal := proxy_routes.refusal(head, settings.hosts)) is not None:
            self._send_error(*refusal, head.method)
        elif (route := proxy_routes.route(head.target, settings.upstreams)) is not None:
            upstream, path, target = route
            exchange = Exchange(upstream, head, path, self.effects.now(), settings.number(), settings.salt)
            self._call(Call(exchange, head, body, target, keeps))
        elif (own := settings.local(head.method, path)) is not None:
            status, kind, content = own
            self._answer(status, [http1.field(b"Content-Type", kind)], content, keeps and body.done, head.method)
        else:
            self._send_error(*proxy_routes.unknown(settings.upstreams), head.method)

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
        self.move(trigger, Connecting(call, [first, body] if body else [first]))
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
            case _ if piece.used:
                self.effects.send_to_upstream(data[: piece.used])
        for part in piece.data:
            call.exchange.request_data(part)
        if piece.done:
            call.exchange.request_end()
            if isinstance(phase, Collecting):
                self._after_collecting(phase)

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

    def _cache_hit(self, call: Call, entry: proxy_savings.Entry) -> None:
        keeps = call.keeps and not self.draining
        self.effects.send_to_client(proxy_routes.from_cache(entry.head, len(entry.body), keeps) + entry.body)
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
            if head.status == 101:
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
        self.effects.send_to_client(proxy_routes.to_client(head, passage, call.keeps, call.head.version))
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
        for part in piece.data:
            phase.call.exchange.response_data(part, self.effects.now())
        if phase.copy is not None:
            phase.copy += b"".join(piece.data)
            if len(phase.copy) > self.settings.options.entry_bytes:
                phase.copy = None
        if piece.done:
            phase.reusable &= piece.used == len(data)  # else it says more than it should
            self._end_answer(phase)

    def _end_answer(self, phase: Answering) -> None:
        call, now = phase.call, self.effects.now()
        if phase.copy is not None and self.settings.cache is not None:
            self.settings.cache.add(call.key, phase.head, bytes(phase.copy), call.exchange.tokens_so_far(), now)
        self.move(Trigger.ANSWER_ENDS, _IDLE)
        self.effects.release(phase.reusable and call.body.done)
        self.effects.finish(call.exchange, now, "")
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
        self.effects.finish(call.exchange, now, error)

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
        for value in phase.from_client.feed(data):
            phase.call.exchange.client_message(value, self.effects.now())

    def _tunnel_down(self, phase: Tunnel, data: bytes) -> None:
        self.effects.send_to_client(data)
        for value in phase.from_upstream.feed(data):
            if events := list(phase.call.exchange.vendor_message(value, self.effects.now())):
                self.effects.record(events)

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
