"""Holds what a client's connection keeps in each of its states, and says what it may have done.

Only data, and what follows from it; which state comes when is the table's business, in `proxy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from tokenops import http1, proxy_heads, proxy_savings, proxy_websocket
from tokenops.events import Event
from tokenops.proxy_exchange import Exchange, Upstream


class Effects(Protocol):
    """What a connection has done for it: by the sockets, the clock, the site and the log."""

    def now(self) -> int:
        """Milliseconds since 1970."""
        ...

    def send_to_client(self, data: bytes) -> None:
        """Send to the client."""

    def close_client(self) -> None:
        """Close once all is sent; go on reading a little, or a reset would destroy the answer (RFC 9112 9.6)."""

    def abort_client(self) -> None:
        """Cut the connection, so that a truncated answer is seen to be one."""

    def connect(self, upstream: Upstream) -> None:
        """Find or make a connection; `upstream_ready` or `upstream_failed` follows, at once or later."""

    def send_to_upstream(self, data: bytes) -> None:
        """Send to the upstream, once it is ready."""

    def release(self, reusable: bool) -> None:
        """Give the upstream's connection back, or give up making one."""

    def ask_site(self, head: http1.Request) -> None:
        """Have the site answer, elsewhere; `site_answered` follows."""

    def record(self, events: list[Event]) -> None:
        """Write these to the log."""

    def finish(self, exchange: Exchange, now: int, error: str) -> None:
        """Write what `exchange.finish(now, error)` returns to the log, some time soon: the client does not wait for it."""


@dataclass(slots=True, eq=False)
class Call:
    """A request that is passed on, from its head to the end of its answer."""

    exchange: Exchange
    head: http1.Request
    body: http1.Body
    target: bytes  # what the upstream is asked for
    keeps: bool  # whether the client's connection may stay
    key: bytes = b""  # under which the cache keeps the answer; empty: it does not
    without_usage: bool = False  # the client did not ask for the usage in the answer's stream, so it is left out


@dataclass(slots=True, eq=False)
class Idle:
    """Nothing is under way."""

    uploading: ClassVar[bool] = False


@dataclass(slots=True, eq=False)
class AtSite:
    """What decides how the site's answer is sent. The request's body is never read: after one the connection closes."""

    method: bytes
    body: http1.Body
    keeps: bool

    @property
    def uploading(self) -> bool:
        """Whether the rest of the request's body is still to come."""
        return not self.body.done


@dataclass(slots=True, eq=False)
class Calling:
    """What all states of a call keep."""

    call: Call

    @property
    def uploading(self) -> bool:
        """Whether the rest of the request's body is still to come."""
        return not self.call.body.done


@dataclass(slots=True, eq=False)
class Collecting(Calling):
    """The request's body so far."""

    content: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False)
class Connecting(Calling):
    """What the upstream will be sent first."""

    unsent: list[bytes]


@dataclass(slots=True, eq=False)
class Waiting(Calling):
    """What came from the upstream of a head that is not whole."""

    buffer: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False)
class Answering(Calling):
    """The answer's head, how far its body is, and how it is passed on."""

    head: http1.Response
    body: http1.Body
    passage: str
    reusable: bool  # the upstream's connection
    filter: proxy_savings.WithoutUsage | None
    copy: bytearray | None  # for the cache

    def changed(self, piece: http1.Piece) -> bytes:
        """What the client is sent for a piece of an answer that does not pass untouched."""
        parts = piece.data
        if self.filter is not None:
            parts = [self.filter.feed(b"".join(parts))]
            if piece.done:
                parts.append(self.filter.finish())
        if self.passage == proxy_heads.CONTENT:
            return b"".join(parts)
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]
        return b"".join([*chunks, b"0\r\n\r\n"] if piece.done else chunks)


@dataclass(slots=True, eq=False)
class Tunnel(Calling):
    """The frames of both directions, so that their messages can be counted."""

    from_client: proxy_websocket.Frames = field(default_factory=proxy_websocket.Frames)
    from_upstream: proxy_websocket.Frames = field(default_factory=proxy_websocket.Frames)


@dataclass(slots=True, eq=False)
class Closed:
    """Nothing is kept."""

    uploading: ClassVar[bool] = False


Phase = Idle | AtSite | Collecting | Connecting | Waiting | Answering | Tunnel | Closed
