"""Connects to upstreams and keeps idle connections for the next request.

A connection serves one client at a time.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from typing import Protocol

from tokenops import https
from tokenops.proxy_exchange import Upstream

CONNECT_S = 10.0
IDLE_S = 20.0  # shorter than any vendor keeps an idle connection
HIGH = 256 << 10  # so many bytes may wait to be written; then the other side is not read


def clock() -> float:
    """Seconds of a clock that only goes forward."""
    return time.monotonic()


def read_less(transport: asyncio.Transport) -> None:
    """Take in 64 KiB at once instead of 256: what is done with one piece holds up all other connections."""
    if hasattr(transport, "max_size"):
        transport.max_size = 64 << 10  # pyright: ignore[reportAttributeAccessIssue]


class Unreachable(OSError):
    """No connection could be made; `status` is what the client is answered."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class User(Protocol):
    """The client's side that a connection serves for now."""

    def upstream_data(self, data: bytes) -> None:
        """The upstream sent something."""

    def upstream_gone(self) -> None:
        """The connection ended."""

    def upstream_full(self, full: bool) -> None:
        """Whether the upstream takes no more for now."""


class Link(asyncio.Protocol):
    """A connection to an upstream."""

    def __init__(self, owner: Upstreams, upstream: Upstream) -> None:
        self.owner, self.upstream = owner, upstream
        self.user: User | None = None
        self.transport: asyncio.Transport
        self.until = 0.0  # while it is idle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(HIGH)
        read_less(transport)

    def data_received(self, data: bytes) -> None:
        """The upstream sent something."""
        if self.user is None:
            self.transport.abort()  # no request was sent
        else:
            self.user.upstream_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The upstream's end."""
        self.owner.forget(self)
        if (user := self.user) is not None:
            self.user = None
            user.upstream_gone()

    def pause_writing(self) -> None:
        """The upstream takes no more for now."""
        if self.user is not None:
            self.user.upstream_full(True)

    def resume_writing(self) -> None:
        """It takes more."""
        if self.user is not None:
            self.user.upstream_full(False)


class Upstreams:
    """The idle connections to upstreams."""

    def __init__(self) -> None:
        self.idle: dict[Upstream, list[Link]] = {}
        self.draining = False
        self._tls: ssl.SSLContext | None = None

    def take(self, upstream: Upstream) -> Link | None:
        """An idle connection; the one used last, which is least likely to be stale."""
        links = self.idle.get(upstream, [])
        while links:
            link = links.pop()
            if not link.transport.is_closing() and clock() < link.until:
                return link
            link.transport.abort()
        return None

    async def connect(self, upstream: Upstream) -> Link:
        """A new connection. Raises Unreachable."""
        try:
            async with asyncio.timeout(CONNECT_S):
                _, link = await asyncio.get_running_loop().create_connection(
                    lambda: Link(self, upstream),
                    upstream.host,
                    upstream.port,
                    ssl=self._context() if upstream.tls else None,
                )
                return link
        except TimeoutError:
            raise Unreachable(504, f"no connection within {CONNECT_S:g} s") from None
        except ssl.SSLError as error:
            raise Unreachable(502, f"TLS failed: {error.reason or 'unknown reason'}") from None
        except OSError as error:
            status = 503 if error.errno in (errno.EMFILE, errno.ENFILE) else 502
            raise Unreachable(status, f"cannot connect: {error.strerror or 'name not found'}") from None

    def _context(self) -> ssl.SSLContext:
        """How upstreams are verified: as everywhere on this machine."""
        if self._tls is None:
            self._tls = https.machine_context()
        return self._tls

    def give_back(self, link: Link, reusable: bool) -> None:
        """A connection has served its client: keep it for the next request, or end it."""
        link.user = None
        if not reusable or link.transport.is_closing() or self.draining:
            link.transport.abort()
            return
        link.transport.resume_reading()
        link.until = clock() + IDLE_S
        self.idle.setdefault(link.upstream, []).append(link)

    def forget(self, link: Link) -> None:
        """A connection is gone."""
        links = self.idle.get(link.upstream, [])
        if link in links:
            links.remove(link)

    def sweep(self) -> None:
        """End what has been idle for too long."""
        now = clock()
        for links in self.idle.values():
            for link in [link for link in links if now >= link.until]:
                links.remove(link)
                link.transport.abort()

    def drain(self) -> None:
        """End all that is idle, and keep no more."""
        self.draining = True
        for links in self.idle.values():
            for link in links:
                link.transport.abort()
        self.idle.clear()
