"""Runs the proxy: accepts clients, carries out what `proxy` decides, keeps time limits, and shuts down cleanly.

Every accepted connection begins as a `ClientSide`; connections to upstreams are made in `proxy_upstreams`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tokenops import http1, proxy, proxy_routes
from tokenops.events import Event
from tokenops.proxy_exchange import Upstream
from tokenops.proxy_meter import Backlog, Ended, Meter
from tokenops.proxy_phases import Closed, Idle, Tunnel
from tokenops.proxy_room import ACCEPTED_AT_ONCE, SHORT_IDLE_S, Room
from tokenops.proxy_states import State
from tokenops.proxy_upstreams import HIGH, Link, Unreachable, Upstreams, clock, read_less
from tokenops.proxy_writer import Writer

IDLE_S = 300.0
GRACE_S = 1.0  # for an answer to begin after the client said that it will send no more
LINGER_S = 2.0
# Why nothing is read from a client for now: it sends its next requests before it has its answer, or its upstream is full.
AHEAD, UPSTREAM_FULL = "ahead", "upstream full"
PAUSE_S = 0.003  # between two slices of counting, which take one millisecond
REST_S = 0.7  # a browser asks for a page and what belongs to it within less
NEXT_S = 0.1  # between two pieces of the site's spare work, while nobody asks


class ClientSide(asyncio.Protocol):
    """A client's connection. It is the `Effects` of its `proxy.Connection`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection = proxy.Connection(self, server.settings)
        self.connection.draining = server.draining
        self.transport: asyncio.Transport
        self.link: Link | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.pauses: set[str] = set()  # why nothing is read from the client
        self.touched = clock()
        self.offset = 0  # of the wall clock to the one that only goes forward, in milliseconds
        self.timer: asyncio.TimerHandle | None = None
        self.lingering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(HIGH)
        read_less(transport)
        if not self.server.room.has_place(self.server.clients):
            self.lingering = True
            self.server.room.turn_away(transport)
            return
        self.server.clients.add(self)

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        if self.lingering:
            return
        if not self.connection.idle or not self.connection.inbox:  # the time for a head runs from its first byte
            self.touched = clock()
        self.connection.client_data(data)
        self.settle()

    def eof_received(self) -> bool:
        """The client will send no more; most have left."""
        if self.connection.idle or self.connection.state is State.TUNNEL:
            return False
        self.connection.draining = True  # no more requests will come
        if self.connection.state is not State.ANSWERING:
            self.timer = asyncio.get_running_loop().call_later(GRACE_S, self._abort_unanswered)
        return True

    def _abort_unanswered(self) -> None:
        if not self.connection.idle and self.connection.state is not State.ANSWERING:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client's end."""
        self.server.clients.discard(self)
        if self.timer is not None:
            self.timer.cancel()
        self.connection.client_gone()
        if self.connecting is not None:
            self.connecting.cancel()

    def pause_writing(self) -> None:
        """The client takes no more for now."""
        if self.link is not None:
            self.link.transport.pause_reading()

    def resume_writing(self) -> None:
        """It takes more."""
        if self.link is not None and not self.link.transport.is_closing():
            self.link.transport.resume_reading()

    def pause(self, on: bool, reason: str) -> None:
        """Stop or resume reading from the client for one reason; it is read while there is none."""
        if on == (reason in self.pauses):
            return
        (self.pauses.add if on else self.pauses.discard)(reason)
        if self.transport.is_closing():
            return
        if self.pauses:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def settle(self) -> None:
        """After each step: hold back a client that is ahead."""
        full = self.connection.full
        if full is not (AHEAD in self.pauses):
            self.pause(full, AHEAD)

    # From its upstream.

    def upstream_data(self, data: bytes) -> None:
        """The upstream sent something."""
        self.connection.upstream_data(data)
        self.settle()

    def upstream_gone(self) -> None:
        """The upstream's connection ended."""
        self.link = None
        self.connection.upstream_gone()
        self.settle()

    def upstream_full(self, full: bool) -> None:
        """Whether the upstream takes no more for now."""
        self.pause(full, UPSTREAM_FULL)

    # What its connection has done.

    def now(self) -> int:
        """Milliseconds since 1970, by a clock that is not set while an exchange is under way: what it took stays true.

        A tunnel may live for days, through a machine's sleep, so there the wall clock counts.
        """
        ticks = time.monotonic_ns() // 1_000_000
        if isinstance(self.connection.phase, (Idle, Tunnel, Closed)):
            self.offset = time.time_ns() // 1_000_000 - ticks
        return ticks + self.offset

    def send_to_client(self, data: bytes) -> None:
        """Send to the client."""
        self.touched = clock()
        self.transport.write(data)

    def close_client(self) -> None:
        """Close once all is sent."""
        if self.transport.is_closing():
            return
        self.lingering = True
        try:
            self.transport.write_eof()
        except OSError:  # the client is gone already
            self.transport.close()
        else:
            self.timer = asyncio.get_running_loop().call_later(LINGER_S, self.transport.close)

    def abort_client(self) -> None:
        """Cut the connection."""
        # What was passed on so far is still delivered; then a close without the answer's end.
        self.lingering = True
        self.transport.close()

    def connect(self, upstream: Upstream) -> None:
        """Find or make a connection."""
        if (link := self.server.upstreams.take(upstream)) is not None:
            self._join(link)
        else:
            self.connecting = asyncio.get_running_loop().create_task(self._connect(upstream))

    def _join(self, link: Link) -> None:
        self.link, link.user = link, self
        self.connection.upstream_ready()

    async def _connect(self, upstream: Upstream) -> None:
        try:
            link = await self.server.upstreams.connect(upstream)
        except Unreachable as error:
            self.connecting = None
            self.connection.upstream_failed(error.status, error.why)
        else:
            self.connecting = None
            self._join(link)
        self.settle()

    def send_to_upstream(self, data: bytes) -> None:
        """Send to the upstream."""
        if self.link is not None:
            self.link.transport.write(data)

    def release(self, reusable: bool) -> None:
        """Done with the upstream's connection."""
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
        self.pause(False, UPSTREAM_FULL)
        link, self.link = self.link, None
        if link is not None:
            self.server.upstreams.give_back(link, reusable)

    def record(self, events: list[Event]) -> None:
        """Write these to the log."""
        self.server.writer.add(events)

    def catch_up(self, meter: Meter) -> None:
        """Count the rest."""
        self.server.backlog.add(meter)

    def finish(self, meter: Meter, now: int, error: str) -> None:
        """Write what this gives to the log, soon."""
        self.server.backlog.end(meter, Ended(meter.exchange, now, error))

    def ask_site(self, head: http1.Request) -> None:
        """Have the site answer in its own thread; the proxy continues meanwhile."""
        self.server.ask_site(head).add_done_callback(self._site_done)

    def _site_done(self, done: Future[proxy_routes.Reply]) -> None:
        """In the site's thread: back to the loop."""
        loop = self.server.loop
        if loop is not None and not done.cancelled():
            with contextlib.suppress(RuntimeError):  # it is closing
                loop.call_soon_threadsafe(self._reply, done)

    def _reply(self, done: Future[proxy_routes.Reply]) -> None:
        self.server.calm()
        error = done.exception()
        if error is not None:
            self.server.say(f"the dashboard could not answer: {type(error).__name__}: {error}; run tok-status")
        reply = done.result() if error is None else proxy_routes.Reply(500, [], b"")
        if reply.wait_ms:
            self.timer = asyncio.get_running_loop().call_later(reply.wait_ms / 1000, self._send, reply)
        else:
            self._send(reply)

    def _send(self, reply: proxy_routes.Reply) -> None:
        if not self.transport.is_closing():
            self.connection.site_answered(reply)
            self.settle()


class Server:
    """The proxy at work."""

    def __init__(self, settings: proxy_routes.Settings, writer: Writer, head_s: float, say: Callable[[str], None]) -> None:
        self.settings, self.writer, self.head_s, self.say = settings, writer, head_s, say
        self.site_thread = ThreadPoolExecutor(1)
        self.resting: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.clients: set[ClientSide] = set()
        self.room = Room(say)
        self.upstreams = Upstreams()
        self.backlog = Backlog(self._later, writer.finish)
        self.draining = False

    def _later(self, call: Callable[[], None]) -> None:
        """Call a function when others have had their turn: two thirds of the time are theirs."""
        if self.loop is not None:
            self.loop.call_later(PAUSE_S, call)

    def ask_site(self, head: http1.Request) -> Future[proxy_routes.Reply]:
        """The site's answer to a request, once it is there; what there may be time for later waits."""
        if self.settings.site is None:
            raise RuntimeError("no site is served")
        self._stop_resting()
        return self.site_thread.submit(self.settings.site.answer, head)

    def _stop_resting(self) -> None:
        if self.resting is not None:
            self.resting.cancel()

    def calm(self, wait: float = REST_S) -> None:
        """An answer of the site is there: if no other request follows soon, there is time."""
        self._stop_resting()
        if self.loop is not None and self.settings.site is not None:
            self.resting = self.loop.call_later(wait, self.rest)

    def rest(self) -> None:
        """Let the site do one piece of spare work."""
        if self.settings.site is not None:
            self.site_thread.submit(self.settings.site.rest).add_done_callback(self._after_rest)

    def _after_rest(self, done: Future[bool]) -> None:
        loop, error = self.loop, None if done.cancelled() else done.exception()
        if error is not None:
            self.say(f"{type(error).__name__}: {error}; the dashboard shows older numbers")
        elif loop is not None and not done.cancelled() and done.result():
            with contextlib.suppress(RuntimeError):  # it is closing
                loop.call_soon_threadsafe(self.calm, NEXT_S)

    def sweep(self) -> None:
        """Close what has waited too long."""
        now = clock()
        self.upstreams.sweep()
        for client in list(self.clients):
            connection = client.connection
            waited = now - client.touched
            if connection.state is State.CLOSED or client.lingering:
                continue
            if connection.idle and connection.inbox and waited > self.head_s:
                connection.timed_out()
            elif connection.idle and waited > (IDLE_S if len(self.clients) < self.room.many else SHORT_IDLE_S):
                client.transport.close()
            elif connection.phase.uploading and not client.pauses and waited > IDLE_S:
                connection.client_gone()
                client.transport.abort()

    async def keep_sweeping(self) -> None:
        """Sweep now and then, for ever."""
        while True:
            await asyncio.sleep(min(2, self.head_s))
            self.sweep()

    def drain(self) -> None:
        """Take no more requests; let those under way end."""
        self.draining = True
        self.upstreams.drain()
        for client in list(self.clients):
            client.connection.draining = True
            if client.connection.idle:
                client.transport.close()


async def _listen(loop: asyncio.AbstractEventLoop, server: Server, host: str, port: int) -> asyncio.Server:
    """Accept clients; many may wait to be accepted, and few are accepted at once. Raises OSError."""
    loop.set_exception_handler(server.room.on_fault)
    listener = await loop.create_server(lambda: ClientSide(server), host, port, backlog=ACCEPTED_AT_ONCE)
    for bound in listener.sockets:
        with socket.socket(fileno=os.dup(bound.fileno())) as same:
            same.listen(2048)
    return listener


async def serve(
    settings: proxy_routes.Settings,
    folder: str,
    host: str,
    port: int,
    grace: float,
    head_s: float,
    say: Callable[[str], None],
    ready: Callable[[int], None],
) -> None:
    """Serve until a signal; then let requests under way end, for at most `grace` seconds. Raises OSError."""
    loop = asyncio.get_running_loop()
    writer = Writer(folder, say, settings.owner)
    server = Server(settings._replace(headroom=writer.headroom), writer, head_s, say)
    server.loop = loop
    listener = await _listen(loop, server, host, port)
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    ready(listener.sockets[0].getsockname()[1])
    server.rest()
    if settings.upstreams:
        writer.start()
    sweeper = loop.create_task(server.keep_sweeping())
    try:
        await signals.get()
        listener.close()
        server.drain()
        until = loop.time() + grace
        while server.clients and loop.time() < until and signals.empty():
            await asyncio.sleep(0.02)
        for client in list(server.clients):
            client.transport.abort()
        await asyncio.sleep(0)
    finally:
        sweeper.cancel()
        server.loop = None
        server.backlog.finish()
        server.site_thread.shutdown(wait=False, cancel_futures=True)
        await writer.close()


def steady() -> Callable[[], float]:
    """A clock that begins with the real time, and is never set."""
    start = time.time() - time.monotonic()
    return lambda: start + time.monotonic()


def run(*args: Any) -> None:
    """Run `serve` to its end."""
    sys.setswitchinterval(0.0003)  # the writer's thread must not delay answers
    asyncio.run(serve(*args))
