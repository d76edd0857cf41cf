"""Defines what a connection keeps in each of its states, and which effects it may request.

Only data, and what follows from it; the table in `proxy_states` says which state comes when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from tokenops import events, http1, proxy_routes, proxy_savings, untrusted
from tokenops.events import Event
from tokenops.proxy_exchange import Exchange, Upstream
from tokenops.proxy_meter import Meter

_MOST_MESSAGE = 8 << 20
_TEXT, _CONTINUED = 1, 0
_FRAMES = 32  # are looked at in one slice of work


class Frames:
    """The WebSocket frames of one direction of a tunnel (RFC 6455), and the JSON messages in them.

    Bytes are only looked at: nothing is changed or held back.
    """

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.message = bytearray()
        self.reading = False  # inside a text message
        self.skip = 0  # bytes of a frame that is not looked at
        self.lost = False  # a frame made no sense: nothing more is looked at
        self.refused = ""  # why the last message was not read

    def feed(self, data: bytes) -> Iterator[Any]:
        """The frames that are whole by now: the message that each ends, None if it ends none. Raises nothing."""
        if self.lost:
            return
        self.buffer += data
        while True:
            if self.skip:
                count = min(self.skip, len(self.buffer))
                del self.buffer[:count]
                self.skip -= count
                if self.skip:
                    return
            frame = self._head()
            if frame is None:
                return
            yield self._frame(*frame)

    def _head(self) -> tuple[int, bool, bool, int, bytes, int] | None:
        """Opcode, last, plain, size of the head, mask and length of the frame at hand; None if it is not whole yet."""
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        length, at = second & 127, 2
        if length >= 126:
            wide = 2 if length == 126 else 8
            if len(buffer) < at + wide:
                return None
            length = int.from_bytes(buffer[at : at + wide], "big")
            at += wide
        mask = b""
        if second & 128:
            if len(buffer) < at + 4:
                return None
            mask = bytes(buffer[at : at + 4])
            at += 4
        if length >> 62:
            self.lost = True
            self.buffer.clear()
            return None
        opcode = first & 15
        if opcode <= _TEXT and length + len(self.message) <= _MOST_MESSAGE and len(buffer) < at + length:
            return None  # a text is looked at as a whole
        return opcode, bool(first & 128), not first & 64, at, mask, length

    def _frame(self, opcode: int, last: bool, plain: bool, at: int, mask: bytes, length: int) -> Any:
        is_text = opcode == _TEXT or (opcode == _CONTINUED and self.reading)
        if not is_text or length + len(self.message) > _MOST_MESSAGE or not plain:
            del self.buffer[:at]
            self.skip = length
            if is_text:
                self.refused = "too large to meter" if plain else "compressed"
            if opcode <= 2:
                self.message.clear()
                self.reading = False
            return None
        content = bytes(self.buffer[at : at + length])
        del self.buffer[: at + length]
        if mask and content:
            # One operation on two long numbers, instead of one for each byte.
            key = (mask * (len(content) // 4 + 1))[: len(content)]
            content = (int.from_bytes(content, "big") ^ int.from_bytes(key, "big")).to_bytes(len(content), "big")
        self.message += content
        self.reading = not last
        if not last:
            return None
        message, self.message = self.message, bytearray()
        try:
            return untrusted.json_value(message)
        except events.BadRecord as error:
            self.refused = "" if str(error) == "not JSON" else str(error)
        return None


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

    def catch_up(self, meter: Meter) -> None:
        """Count what is left of an exchange, slice by slice, while others pass."""

    def finish(self, meter: Meter, now: int, error: str) -> None:
        """Write what the exchange's `finish(now, error)` returns to the log, once all is counted; nobody waits for it."""


@dataclass(slots=True, eq=False)
class Call:
    """A request that is passed on, from its head to the end of its answer."""

    exchange: Exchange
    meter: Meter
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
    size: int  # of it, in bytes


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

    def transform(self, piece: http1.Piece) -> bytes:
        """What the client is sent for a piece of an answer that does not pass untouched."""
        parts = piece.data
        if self.filter is not None:
            parts = [self.filter.feed(b"".join(parts))]
            if piece.done:
                parts.append(self.filter.finish())
        if self.passage == proxy_routes.CONTENT:
            return b"".join(parts)
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]
        return b"".join([*chunks, b"0\r\n\r\n"] if piece.done else chunks)


@dataclass(slots=True, eq=False)
class Tunnel(Calling):
    """The frames of both directions, so that their messages can be counted."""

    from_client: Frames = field(default_factory=Frames)
    from_upstream: Frames = field(default_factory=Frames)

    def client_slices(self, data: bytes, now: int) -> Iterator[None]:
        """Take in what the client sent, in slices of work."""
        for number, message in enumerate(self.from_client.feed(data), 1):
            if message is not None:
                self.call.exchange.client_message(message, now)
            if number % _FRAMES == 0:
                yield

    def upstream_slices(self, data: bytes, now: int, record: Callable[[list[Event]], None]) -> Iterator[None]:
        """Take in what the vendor sent, in slices of work; `record` gets the events of the answers that end."""
        frames, exchange = self.from_upstream, self.call.exchange
        for number, message in enumerate(frames.feed(data), 1):
            if frames.refused:
                exchange.reading.skip_part(f"a message is {frames.refused}", True)
                frames.refused = ""
            if message is not None and (events := exchange.vendor_message(message, now)):
                record(events)
            if number % _FRAMES == 0:
                yield


@dataclass(slots=True, eq=False)
class Closed:
    """Nothing is kept."""

    uploading: ClassVar[bool] = False


Phase = Idle | AtSite | Collecting | Connecting | Waiting | Answering | Tunnel | Closed
