"""One client's connection to the proxy: what goes where, when. Neither sockets nor a clock: `Out` has both.

Bytes of bodies pass as they came, framing included; beside them an exchange is told what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import orjson

from tokenops import http1, proxy_exchange, proxy_savings, proxy_websocket, when
from tokenops.events import Event
from tokenops.proxy_exchange import Upstream


class Out(Protocol):
    """What a connection may do."""

    def client(self, data: bytes) -> None:
        """Send to the client."""

    def close_client(self) -> None:
        """Close once all is sent; go on reading a little, or a reset would destroy the answer (RFC 9112 9.6)."""

    def abort_client(self) -> None:
        """Cut the connection, so that a truncated answer is seen to be one."""

    def connect(self, upstream: Upstream) -> None:
        """Find or make a connection; `upstream_ready` or `upstream_failed` follows."""

    def upstream(self, data: bytes) -> None:
        """Send to the upstream."""

    def release(self, reusable: bool) -> None:
        """Done with the upstream's connection."""

    def events(self, found: list[Event]) -> None:
        """Record these."""

    def ask(self, head: http1.Request) -> None:
        """Have the site answer, elsewhere; `answered` follows."""

    def ended(self, one: proxy_exchange.Exchange, now: int, error: str) -> None:
        """Record what `one.finish(now, error)` gives, some time soon: the client need not wait for it."""

    def now(self) -> int:
        """Milliseconds since 1970."""
        ...


class Reply(NamedTuple):
    """An answer of the site: status, headers but for the connection's, content, and how long it is held back."""

    status: int
    headers: http1.Headers
    body: bytes
    wait_ms: int = 0


class Site(Protocol):
    """What is served beside the upstreams: the dashboard."""

    def owns(self, path: bytes) -> bool:
        """Whether a path is the site's to answer."""
        ...

    def answer(self, head: http1.Request) -> Reply:
        """The answer to a request."""
        ...

    def rest(self) -> bool:
        """Do one thing that there is time for while nobody asks; whether there is more."""
        ...


class Settings(NamedTuple):
    """What all connections share. `headroom` is the least that is known to be left at a provider, None if unknown."""

    upstreams: Mapping[bytes, Upstream]
    hosts: frozenset[str]  # names that a Host header may give
    salt: bytes
    local: Callable[[bytes, bytes], tuple[int, bytes, bytes] | None]  # method, path -> status, content type, body
    number: Callable[[], int]  # the next exchange's number
    options: proxy_savings.Options = proxy_savings.Options()
    cache: proxy_savings.Cache | None = None
    headroom: Callable[[str], float | None] = lambda provider: None
    site: Site | None = None


class Local:
    """The server's own endpoints, which anybody may ask."""

    def __init__(self, version: str, clock: Callable[[], float], name: str = "tok-proxy") -> None:
        self.version, self.clock, self.name = version, clock, name
        self.began = clock()
        self.draining = False

    def answer(self, method: bytes, path: bytes) -> tuple[int, bytes, bytes] | None:
        """Status, content type and body; None for a path that is none of them."""
        said: dict[str, Any]
        status = 200
        if path == b"/healthz":
            said = {
                "status": "ok",
                "started_at": when.stamp(int(self.began * 1000)),
                "uptime_s": int(self.clock() - self.began),
            }
        elif path == b"/readyz":
            status = 503 if self.draining else 200
            said = {"status": "draining" if self.draining else "ready"}
        elif path == b"/version":
            said = {"name": self.name, "version": self.version}
        else:
            return None
        if method not in (b"GET", b"HEAD"):
            return 405, b"application/json", orjson.dumps({"error": "only GET is answered here", "hint": "use GET"}) + b"\n"
        return status, b"application/json", orjson.dumps(said) + b"\n"


def upstream_of(name: str, url: str, bills: str | None = None) -> Upstream:
    """An upstream out of a URL. Raises ValueError with a sentence."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name}: {url!r} is no http or https URL")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{name}: an upstream's URL has a host and a path, nothing else")
    tls = parts.scheme == "https"
    try:
        port = parts.port or (443 if tls else 80)
    except ValueError:
        raise ValueError(f"{name}: {url!r} has no valid port") from None
    return Upstream(name, parts.hostname, port, tls, parts.path.rstrip("/").encode(), name if bills is None else bills)


class Connection:
    """One client's connection."""

    def __init__(self, out: Out, settings: Settings) -> None:
        self.out, self.settings = out, settings
        self.inbox = bytearray()
        self.exchange: proxy_exchange.Exchange | None = None
        self.draining = False  # close after the answer at hand
        self.closed = False
        self.waiting = False  # for the site's answer
        self._reset()

    def _reset(self) -> None:
        self.asking = http1.Body(http1.NONE)
        self.head: http1.Request | None = None
        self.keeps = True  # the client's connection
        self.ready = False  # the upstream's connection stands
        self.unsent: list[bytes] = []
        self.answer_head: http1.Response | None = None
        self.answering = http1.Body(http1.NONE)
        self.outbox = bytearray()  # of the upstream's head
        self.plain = False  # an HTTP/1.0 client gets chunks without their framing
        self.reusable = True  # the upstream's connection
        self.held: bytearray | None = None  # a request's body that is looked at before it is sent on
        self.key = b""  # of an answer that may be kept
        self.storing: bytearray | None = None
        self.without: proxy_savings.WithoutUsage | None = None
        self.tunnel: tuple[proxy_websocket.Frames, proxy_websocket.Frames] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self.exchange is None and not self.waiting

    @property
    def full(self) -> bool:
        """Whether the client should not send more for now: it is ahead by a request."""
        if self.waiting:
            return len(self.inbox) > http1.MOST_HEAD
        return self.exchange is not None and self.tunnel is None and self.asking.done and len(self.inbox) > http1.MOST_HEAD

    # From the client.

    def client_data(self, data: bytes) -> None:
        """The client sent something."""
        if self.closed:
            return
        if self.tunnel is not None:
            self._tunnelled(data, 0)
            return
        self.inbox += data
        self._go_on()

    def timed_out(self) -> None:
        """The head of a request has been coming for too long."""
        self._refuse(408, "the request's head did not come in time", "send requests in one go")

    def client_gone(self) -> None:
        """The client left: so does its request."""
        self.closed = True
        if self.exchange is not None:
            self._end("client left", False)

    def _go_on(self) -> None:
        while not self.closed:
            if self.exchange is not None:
                if not self.asking.done and self.inbox:
                    self._ask()
                return
            if self.waiting:
                return
            try:
                del self.inbox[: http1.skipped(self.inbox)]
                end = http1.find_head(self.inbox)
                if end < 0:
                    return
                head = http1.request(bytes(self.inbox[:end]))
                asking = http1.Body(*http1.request_body(head))
            except http1.Bad as error:
                self._refuse(error.status, str(error), "send a plain HTTP/1.1 request")
                return
            del self.inbox[:end]
            self._begin(head, asking)

    def _begin(self, head: http1.Request, asking: http1.Body) -> None:
        self.head, self.asking = head, asking
        self.keeps = http1.keeps_open(head.version, head.headers) and not self.draining
        target = head.target
        if (site := self.settings.site) is not None and site.owns(path_of(target)):
            self.waiting = True
            self.out.ask(head)
            return
        if (refusal := self._forbidden(head)) is not None:
            self._refuse(*refusal)
            return
        path = path_of(target)
        if not target.startswith(b"/"):
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        prefix, _, _ = target[1:].partition(b"?")[0].partition(b"/")
        upstream = self.settings.upstreams.get(prefix)
        if upstream is None:
            made = self.settings.local(head.method, path)
            if made is None:
                known = ", ".join(sorted(f"/{name.decode()}/" for name in self.settings.upstreams))
                self._refuse(404, "no provider under this path", f"begin the path with one of {known}")
            else:
                self._say(*made)
            return
        rest = target[1 + len(prefix) :]
        rest = rest if rest.startswith(b"/") else b"/" + rest
        # Some SDKs append the provider's own base path to any base URL that they are given.
        base = upstream.base if not rest.startswith(upstream.base + b"/") else b""
        self.exchange = proxy_exchange.Exchange(
            upstream, head, rest, self.out.now(), self.settings.number(), self.settings.salt
        )
        self.plain = head.version < (1, 1)
        self.target = base + rest
        if asking.done:
            self.exchange.asked_all()
        elif self.settings.options.any and asking.kind == http1.LENGTH and self.exchange.readable(asking.left):
            self.held = bytearray()
            return
        self._connect(head)

    def _connect(self, head: http1.Request) -> None:
        assert self.exchange is not None
        upstream = self.exchange.upstream
        self.out.connect(upstream)
        if self.exchange is not None:  # it may have failed at once
            self._send(b"%b %b HTTP/1.1" % (head.method, self.target), upstream, head)

    def _forbidden(self, head: http1.Request) -> tuple[int, str, str] | None:
        if head.method in (b"CONNECT", b"TRACE"):
            return 405, f"{head.method.decode()} is not done here", "use the proxy as a base URL, not as an HTTP proxy"
        hosts = [*http1.values(head.headers, b"host")]
        if not head.target.startswith((b"/", b"*")):
            hosts.append(head.target.partition(b"://")[2].partition(b"/")[0])
        for host in hosts:
            if _name_of(host) not in self.settings.hosts:
                return 403, "this Host is not the proxy's", "call it by 127.0.0.1 or localhost, or name the host with --host"
        for origin in http1.values(head.headers, b"origin"):
            if _name_of(origin.partition(b"://")[2]) not in self.settings.hosts:
                return (
                    403,
                    "requests of other sites' pages are not passed on",
                    "call the proxy from a program, not a web page",
                )
        return None

    def _send(self, line: bytes, upstream: Upstream, head: http1.Request) -> None:
        """The request's head to the upstream."""
        default = 443 if upstream.tls else 80
        name = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
        host = name if upstream.port == default else f"{name}:{upstream.port}"
        headers = [http1.field(b"Host", host.encode())]
        headers += [
            one for one in http1.end_to_end(head.headers) if one[0] != b"host" and not one[0].startswith(b"x-tokenops-")
        ]
        if b"websocket" in http1.items(head.headers, b"upgrade"):
            # Without the extension the frames are not compressed, and can be metered.
            headers = [one for one in headers if one[0] != b"sec-websocket-extensions"]
            headers += [http1.field(b"Connection", b"Upgrade"), http1.field(b"Upgrade", b"websocket")]
        self._up(http1.head_of(line, headers))

    def _up(self, data: bytes) -> None:
        if self.ready:
            self.out.upstream(data)
        else:
            self.unsent.append(data)

    def _ask(self) -> None:
        """Pass on what is there of the request's body."""
        assert self.exchange is not None
        data = bytes(self.inbox)
        try:
            piece = self.asking.feed(data)
        except http1.Bad as error:
            self._end("malformed request body", False)
            self._refuse(error.status, str(error), "send a plain HTTP/1.1 request")
            return
        self.inbox[:] = data[piece.used :]
        if self.held is None and piece.used:  # first the bytes, then what they say
            self._up(data[: piece.used])
        for part in piece.data:
            self.exchange.asked(part)
        if piece.done:
            self.exchange.asked_all()
        if self.held is not None:
            self.held += data[: piece.used]
            if piece.done:
                self._looked_at(bytes(self.held))

    def _looked_at(self, body: bytes) -> None:
        """A held request goes on, as it came or as the user's settings say; or its answer is there already."""
        assert self.exchange is not None and self.head is not None
        options, one, head = self.settings.options, self.exchange, self.head
        self.held = None
        said = one.said
        wish = next(iter(http1.values(head.headers, b"x-tokenops-cache")), b"").lower()
        if self.settings.cache is not None and wish != b"bypass" and proxy_savings.deterministic(one.path, said):
            self.key = proxy_savings.key_of(one.upstream.name, head, one.path, body)
            kept = self.settings.cache.get(self.key, self.out.now()) if wish != b"refresh" else None
            if kept is not None:
                self._again(kept)
                return
            self.storing = bytearray()
        sent = body
        if options.rules and (
            changed := proxy_savings.rerouted(sent, said, options.rules, self.settings.headroom(one.biller))
        ):
            sent, one.routed = changed
        if options.include_usage and (changed_body := proxy_savings.asking_for_usage(one.path, sent, said)) is not None:
            sent, self.without = changed_body, proxy_savings.WithoutUsage()
        if sent is not body:
            encoded = b"accept-encoding" if self.without is not None else b""
            headers = [entry for entry in head.headers if entry[0] not in (b"content-length", encoded)]
            head = head._replace(headers=[*headers, http1.field(b"Content-Length", b"%d" % len(sent))])
        self._connect(head)
        if self.exchange is not None:
            self._up(sent)

    def _again(self, kept: proxy_savings.Kept) -> None:
        """An answer that was kept."""
        assert self.exchange is not None
        one, self.exchange = self.exchange, None
        keeps = self.keeps and not self.draining
        headers = [*kept.head.headers, http1.field(b"Content-Length", b"%d" % len(kept.body))]
        headers.append(http1.field(b"X-Tokenops-Cache-Status", b"hit"))
        if not keeps:
            headers.append(http1.field(b"Connection", b"close"))
        self.out.client(http1.head_of(b"HTTP/1.1 200 " + kept.head.reason, headers) + kept.body)
        self.out.events([one.saving("cache", kept.tokens)])
        self._reset()
        if not keeps:
            self._close()

    # From the upstream.

    def upstream_ready(self) -> None:
        """The upstream's connection stands."""
        self.ready = True
        for data in self.unsent:
            self.out.upstream(data)
        self.unsent.clear()

    def upstream_failed(self, status: int, why: str) -> None:
        """No connection could be made."""
        self._broken(status, why)

    def upstream_data(self, data: bytes) -> None:
        """The upstream sent something."""
        if self.exchange is None:
            return
        if self.tunnel is not None:
            self._tunnelled(data, 1)
        elif self.answer_head is not None:
            self._answer(data)
        else:
            self.outbox += data
            self._heads()

    def upstream_gone(self, why: str = "the provider closed the connection") -> None:
        """The upstream's connection ended."""
        if self.exchange is None:
            return
        self.reusable = False
        if self.tunnel is not None:
            self._end("", True)
        elif self.answer_head is None:
            self._broken(502, why)
        elif self.answering.end():
            self._done()
        else:
            self._end("truncated", True)

    def _heads(self) -> None:
        """Pass on the heads that are whole: provisional ones, then the answer's own."""
        while self.exchange is not None and self.answer_head is None and self.tunnel is None:
            try:
                end = http1.find_head(self.outbox)
                if end < 0:
                    return
                head = http1.response(bytes(self.outbox[:end]))
                assert self.head is not None
                kind = http1.response_body(self.head.method, head)
            except http1.Bad as error:
                self._broken(502, f"the provider's answer is no HTTP/1.1: {error}")
                return
            raw = bytes(self.outbox[:end])
            del self.outbox[:end]
            if head.status == 101:
                self._upgrade(raw, head)
            elif head.status < 200:
                if self.head.version >= (1, 1):
                    self.out.client(raw)
            else:
                self._begin_answer(head, *kind)
                rest, self.outbox = bytes(self.outbox), bytearray()
                if self.exchange is not None and (rest or self.answering.done):
                    self._answer(rest)

    def _begin_answer(self, head: http1.Response, kind: str, length: int) -> None:
        assert self.exchange is not None
        self.answer_head, self.answering = head, http1.Body(kind, length)
        self.exchange.answers(head)
        self.reusable = http1.keeps_open(head.version, head.headers) and kind != http1.CLOSE
        if self.without is not None and (head.status != 200 or not _is_stream(head)):
            self.without = None
        if head.status != 200 or kind == http1.CLOSE:
            self.storing = None
        self.plain = (self.plain and kind == http1.CHUNKED) or (self.plain and self.without is not None)
        self.keeps = self.keeps and kind != http1.CLOSE and not self.plain and self.asking.done and not self.draining
        headers = http1.end_to_end(head.headers)
        if self.plain:
            headers = [one for one in headers if one[0] not in (b"transfer-encoding", b"content-length")]
        elif self.without is not None:
            headers = [one for one in headers if one[0] not in (b"transfer-encoding", b"content-length")]
            headers.append(http1.field(b"Transfer-Encoding", b"chunked"))
        if not self.keeps:
            headers.append(http1.field(b"Connection", b"close"))
        elif self.head is not None and self.head.version < (1, 1):
            headers.append(http1.field(b"Connection", b"keep-alive"))
        self.out.client(http1.head_of(b"HTTP/1.1 %d %b" % (head.status, head.reason), headers))

    def _answer(self, data: bytes) -> None:
        """Pass on what is there of the answer's body."""
        assert self.exchange is not None
        try:
            piece = self.answering.feed(data)
        except http1.Bad:
            self.reusable = False
            self._end("malformed answer", True)
            return
        # First the client's bytes, then what they say.
        if self.without is not None:
            self._filtered(self.without.feed(b"".join(piece.data)))
            if piece.done:
                self._filtered(self.without.finish())
                if not self.plain:
                    self.out.client(b"0\r\n\r\n")
        elif piece.used:
            self.out.client(b"".join(piece.data) if self.plain else data[: piece.used])
        now = self.out.now()
        for part in piece.data:
            self.exchange.answer(part, now)
        if self.storing is not None:
            self.storing += b"".join(piece.data)
            if len(self.storing) > self.settings.options.entry_bytes:
                self.storing = None
        if piece.done:
            if piece.used < len(data):
                self.reusable = False  # it says more than it should
            self._done()

    def _filtered(self, data: bytes) -> None:
        if data:
            self.out.client(data if self.plain else b"%x\r\n%b\r\n" % (len(data), data))

    def _done(self) -> None:
        """The answer is whole."""
        assert self.exchange is not None
        if self.storing is not None and self.settings.cache is not None and self.answer_head is not None:
            tokens = self.exchange.tokens_so_far()
            self.settings.cache.put(self.key, self.answer_head, bytes(self.storing), tokens, self.out.now())
        keeps, now = self.keeps and self.asking.done and not self.draining, self.out.now()
        ended, self.exchange = self.exchange, None
        self.out.release(self.reusable and self.asking.done)
        self.out.ended(ended, now, "")
        self._reset()
        if keeps:
            self._go_on()
        else:
            self._close()

    def _end(self, error: str, tell: bool) -> None:
        """The exchange ends before its answer does; where the answer has begun, only a cut connection can tell."""
        assert self.exchange is not None
        begun = self.answer_head is not None or self.tunnel is not None
        plain, now = self.tunnel is not None and not error, self.out.now()
        ended, self.exchange = self.exchange, None
        self.out.release(False)
        self.out.ended(ended, now, error)
        self._reset()
        if tell and begun:
            self.closed = True
            if plain:
                self.out.close_client()
            else:
                self.out.abort_client()

    def _broken(self, status: int, why: str) -> None:
        """There is no answer to pass on."""
        if self.exchange is None:
            return
        name = self.exchange.upstream.name
        self.reusable = False
        self._end("timeout" if status == 504 else "unreachable" if not self.ready else "no answer", False)
        if not self.closed:
            hint = f"see whether {name} is up, and what tok-provider list says of its address"
            self._refuse(status, f"{name}: {why}", hint)

    # A tunnel.

    def _upgrade(self, raw: bytes, head: http1.Response) -> None:
        assert self.exchange is not None
        self.exchange.answers(head)
        self.exchange.body = None
        self.tunnel = (proxy_websocket.Frames(), proxy_websocket.Frames())
        self.out.client(raw)
        rest, self.outbox = bytes(self.outbox), bytearray()
        if rest:
            self._tunnelled(rest, 1)
        if self.inbox:
            rest, self.inbox = bytes(self.inbox), bytearray()
            self._tunnelled(rest, 0)

    def _tunnelled(self, data: bytes, side: int) -> None:
        assert self.exchange is not None and self.tunnel is not None
        now = self.out.now()
        if side:
            self.out.client(data)
            for value in self.tunnel[1].feed(data):
                if found := list(self.exchange.message(value, now)):
                    self.out.events(found)
        else:
            self.out.upstream(data)
            for value in self.tunnel[0].feed(data):
                self.exchange.asked_message(value, now)

    # The proxy's own answers.

    def _refuse(self, status: int, error: str, hint: str) -> None:
        self.keeps = False
        self._say(status, b"application/json", orjson.dumps({"error": error, "hint": hint}) + b"\n")

    def answered(self, reply: Reply) -> None:
        """The site's answer is there."""
        self.waiting = False
        if not self.closed:
            self._send_own(reply.status, reply.headers, reply.body)
            self._go_on()

    def _say(self, status: int, kind: bytes, content: bytes) -> None:
        self._send_own(status, [http1.field(b"Content-Type", kind)], content)

    def _send_own(self, status: int, given: http1.Headers, content: bytes) -> None:
        keeps = self.keeps and self.asking.done and not self.draining
        headers = [*given]
        if status != 304:  # the length of what is not sent would be a guess
            headers.append(http1.field(b"Content-Length", b"%d" % len(content)))
        headers += [] if keeps else [http1.field(b"Connection", b"close")]
        head = http1.head_of(b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"")), headers)
        bare = status == 304 or (self.head is not None and self.head.method == b"HEAD")
        self.out.client(head if bare else head + content)
        self._reset()
        if not keeps:
            self._close()

    def _close(self) -> None:
        self.closed = True
        self.inbox.clear()
        self.out.close_client()


def path_of(target: bytes) -> bytes:
    """The path that a request names, as it stands; that of a whole address too."""
    if not target.startswith(b"/") and b"://" in target:
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return target.partition(b"?")[0]


def _is_stream(head: http1.Response) -> bool:
    """Whether an answer is a stream of events that is not compressed."""
    kind = next(iter(http1.values(head.headers, b"content-type")), b"")
    return kind.startswith(b"text/event-stream") and not http1.values(head.headers, b"content-encoding")


def _name_of(host: bytes) -> str:
    """The name in a Host: without its port and brackets, in lower case."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


_REASONS: dict[int, Any] = {
    200: b"OK",
    303: b"See Other",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
