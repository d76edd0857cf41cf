"""The proxy's sockets: an asyncio server, connections to upstreams and their pool, and the writer of events.

Everything that is decided is decided in `proxy`; here bytes and time come in and go out.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tokenops import http1, jsonl, proxy, proxy_exchange, store, when
from tokenops.events import Event
from tokenops.proxy_exchange import Upstream

CONNECT_S = 10.0
IDLE_S = 300.0
POOL_S = 20.0  # shorter than any vendor keeps an idle connection
GRACE_S = 1.0  # for an answer to begin after the client said that it will send no more
LINGER_S = 2.0
FLUSH_S = 0.3
REST_S = 0.7  # a browser asks for a page and what belongs to it within less
_HIGH = 256 << 10
_MOST_WAITING = 200_000


Ended = tuple[proxy_exchange.Exchange, int, str]


class Writer:
    """Exchanges that ended, on their way to the log: counted and written in a thread, at most FLUSH_S behind."""

    def __init__(self, folder: str, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.ended: list[Ended] = []
        self.found: list[Event] = []
        self.unwritten: list[bytes] = []  # only the thread's, while it is busy
        self.thread = ThreadPoolExecutor(1)
        self.busy: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.meters: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self.used: dict[tuple[Any, ...], tuple[float, str]] = {}
        self.failing = False
        self.dropped = 0  # while it could not be written

    def add(self, found: list[Event]) -> None:
        """Take in events."""
        self.found += found
        self._soon()

    def end(self, ended: Ended) -> None:
        """Take in an exchange."""
        self.ended.append(ended)
        self._soon()

    def _soon(self, seconds: float = FLUSH_S) -> None:
        if self.timer is None and self.busy is None:
            self.timer = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        self.timer = None
        ended, self.ended = self.ended, []
        found, self.found = self.found, []
        self.busy = asyncio.get_running_loop().run_in_executor(self.thread, self._write, ended, found)
        self.busy.add_done_callback(self._wrote)

    def _write(self, ended: list[Ended], found: list[Event]) -> None:
        """Count what ended, and write all there is. Raises OSError."""
        for one, now, error in ended:
            found += one.finish(now, error)
        self.unwritten += [jsonl.line_of(event) for event in found if event["kind"] != "meter" or self._news(event)]
        if self.unwritten:
            store.append(self.folder, self.unwritten)
            self.unwritten = []

    def _news(self, meter: Event) -> bool:
        """Whether a meter says something new. A metered key's limits per minute are news only where they bind."""
        key = tuple(meter.get(name) for name in ("provider", "account", "window", "scope"))
        said = (meter.get("used"), meter.get("status"), meter.get("resets_at"), meter["ts"][:15])
        minutes = meter.get("window_minutes")
        if minutes is not None and minutes < 60 and meter.get("used", 0) < 0.8 and "status" not in meter:
            return False
        if self.meters.get(key) == said:
            return False
        self.meters[key] = said
        self.used[key] = (meter.get("used", 1.0 if meter.get("status") == "rejected" else 0.0), meter.get("resets_at", "9"))
        return True

    def headroom(self, provider: str) -> float | None:
        """The least headroom of a provider's windows that are not over, as the answers so far said; None if unknown."""
        now = when.stamp(time.time_ns() // 1_000_000)
        used = [share for key, (share, until) in list(self.used.items()) if key[0] == provider and until > now]
        return max(0.0, 1 - max(used)) if used else None

    def _wrote(self, done: asyncio.Future[None]) -> None:
        self.busy = None
        error = done.exception()
        if error is None:
            if self.failing:
                lost = f"the oldest {self.dropped:,} events did not fit into memory and are lost" if self.dropped else ""
                self.say(f"the log can be written again; {lost or 'nothing was lost'}")
            self.failing, self.dropped = False, 0
        else:
            self.dropped += max(len(self.unwritten) - _MOST_WAITING, 0)
            del self.unwritten[:-_MOST_WAITING]
            if not self.failing:
                self.say(f"{self.folder}: {error}; events are kept in memory until it can be written")
            self.failing = True
        if self.ended or self.found or self.unwritten:
            self._soon(5 if self.failing else FLUSH_S)

    async def close(self) -> None:
        """Write all that waits."""
        if self.timer is not None:
            self.timer.cancel()
        while self.busy is not None:
            await asyncio.wait([self.busy])
            await asyncio.sleep(0)
        if self.timer is not None:
            self.timer.cancel()
        try:
            self._write(self.ended, self.found)
        except OSError as error:
            self.say(f"{self.folder}: {error}; {len(self.unwritten)} events are lost")
        self.thread.shutdown()


class Up(asyncio.Protocol):
    """A connection to an upstream; it serves one client at a time."""

    def __init__(self, server: Server, upstream: Upstream) -> None:
        self.server, self.upstream = server, upstream
        self.client: Client | None = None
        self.transport: asyncio.Transport
        self.until = 0.0  # in the pool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(_HIGH)

    def data_received(self, data: bytes) -> None:
        """The upstream sent something."""
        if (client := self.client) is None:
            self.transport.abort()  # nobody asked
        else:
            client.connection.upstream_data(data)
            client.settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """The upstream's end."""
        self.server.forget(self)
        if (client := self.client) is not None:
            self.client = None
            client.up = None
            client.connection.upstream_gone()
            client.settle()

    def pause_writing(self) -> None:
        """The upstream takes no more for now."""
        if self.client is not None:
            self.client.pause(True, "upload")

    def resume_writing(self) -> None:
        """It takes more."""
        if self.client is not None:
            self.client.pause(False, "upload")


class Client(asyncio.Protocol):
    """A client's connection. It is the `Out` of its `proxy.Connection`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection = proxy.Connection(self, server.settings)
        self.connection.draining = server.draining
        self.transport: asyncio.Transport
        self.up: Up | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.queued: list[bytes] = []
        self.reasons: set[str] = set()  # why nothing is read from the client
        self.touched = server.clock()
        self.offset = 0  # of the wall clock to the one that only goes forward, in milliseconds
        self.timer: asyncio.TimerHandle | None = None
        self.lingering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(_HIGH)
        self.server.clients.add(self)

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        if self.lingering:
            return
        if not self.connection.idle or not self.connection.inbox:  # a head's time runs from its first byte
            self.touched = self.server.clock()
        self.connection.client_data(data)
        self.settle()

    def eof_received(self) -> bool:
        """The client will send no more; most have left."""
        if self.connection.idle or self.connection.tunnel is not None:
            return False
        self.connection.draining = True  # nothing more will be asked
        if self.connection.answer_head is None:
            self.timer = asyncio.get_running_loop().call_later(GRACE_S, self._left)
        return True

    def _left(self) -> None:
        if not self.connection.idle and self.connection.answer_head is None:
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
        if self.up is not None:
            self.up.transport.pause_reading()

    def resume_writing(self) -> None:
        """It takes more."""
        if self.up is not None and not self.up.transport.is_closing():
            self.up.transport.resume_reading()

    def pause(self, on: bool, reason: str) -> None:
        """Read from the client only while there is no reason against it."""
        if on == (reason in self.reasons):
            return
        (self.reasons.add if on else self.reasons.discard)(reason)
        if self.transport.is_closing():
            return
        if self.reasons:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def settle(self) -> None:
        """After each step: hold back a client that is ahead."""
        self.pause(self.connection.full, "ahead")

    # What a connection may do.

    def now(self) -> int:
        """Milliseconds since 1970, by a clock that is not set while an exchange is under way: what it took stays true.

        A tunnel may live for days, through a machine's sleep, so there the wall clock counts.
        """
        ticks = time.monotonic_ns() // 1_000_000
        if self.connection.idle or self.connection.tunnel is not None:
            self.offset = time.time_ns() // 1_000_000 - ticks
        return ticks + self.offset

    def client(self, data: bytes) -> None:
        """Send to the client."""
        self.touched = self.server.clock()
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
        if (up := self.server.pooled(upstream)) is not None:
            self._joined(up)
        else:
            self.connecting = asyncio.get_running_loop().create_task(self._connect(upstream))

    def _joined(self, up: Up) -> None:
        self.up, up.client = up, self
        queued, self.queued = self.queued, []
        self.connection.upstream_ready()
        for data in queued:
            up.transport.write(data)
        self.pause(False, "connecting")

    async def _connect(self, upstream: Upstream) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                _, up = await asyncio.get_running_loop().create_connection(
                    lambda: Up(self.server, upstream),
                    upstream.host,
                    upstream.port,
                    ssl=self.server.tls() if upstream.tls else None,
                )
        except TimeoutError:
            self._failed(504, f"no connection within {CONNECT_S:g} s")
        except ssl.SSLError as error:
            self._failed(502, f"TLS failed: {error.reason or 'unknown reason'}")
        except OSError as error:
            self._failed(502, f"cannot connect: {error.strerror or 'name not found'}")
        else:
            self.connecting = None
            if self.connection.idle:
                up.transport.abort()
            else:
                self._joined(up)
                self.settle()

    def _failed(self, status: int, why: str) -> None:
        self.connecting = None
        self.connection.upstream_failed(status, why)
        self.settle()

    def upstream(self, data: bytes) -> None:
        """Send to the upstream."""
        if self.up is not None:
            self.up.transport.write(data)
        else:
            self.queued.append(data)

    def release(self, reusable: bool) -> None:
        """Done with the upstream's connection."""
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
        self.queued.clear()
        self.pause(False, "upload")
        up, self.up = self.up, None
        if up is not None:
            up.client = None
            if reusable and not up.transport.is_closing():
                up.transport.resume_reading()
                self.server.keep(up)
            else:
                up.transport.abort()

    def events(self, found: list[Event]) -> None:
        """Record these."""
        self.server.writer.add(found)

    def ask(self, head: http1.Request) -> None:
        """Have the site answer, in its thread: the proxy's own work goes on meanwhile."""
        site = self.server.settings.site
        assert site is not None
        self.server.busy()
        self.server.site_thread.submit(site.answer, head).add_done_callback(self._answered)

    def _answered(self, done: Future[proxy.Reply]) -> None:
        """In the site's thread: back to the loop."""
        loop = self.server.loop
        if loop is not None and not done.cancelled():
            with contextlib.suppress(RuntimeError):  # it is closing
                loop.call_soon_threadsafe(self._reply, done)

    def _reply(self, done: Future[proxy.Reply]) -> None:
        self.server.calm()
        error = done.exception()
        if error is not None:
            self.server.say(f"an answer failed: {type(error).__name__}: {error}; run tok-status to see what is wrong")
        reply = done.result() if error is None else proxy.Reply(500, [], b"")
        if reply.wait_ms:
            self.timer = asyncio.get_running_loop().call_later(reply.wait_ms / 1000, self._send, reply)
        else:
            self._send(reply)

    def _send(self, reply: proxy.Reply) -> None:
        if not self.transport.is_closing():
            self.connection.answered(reply)
            self.settle()

    def ended(self, one: proxy_exchange.Exchange, now: int, error: str) -> None:
        """Record what this gives, soon."""
        self.server.writer.end((one, now, error))


class Server:
    """The proxy at work."""

    def __init__(self, settings: proxy.Settings, writer: Writer, head_s: float, say: Callable[[str], None]) -> None:
        self.settings, self.writer, self.head_s, self.say = settings, writer, head_s, say
        self.site_thread = ThreadPoolExecutor(1)
        self.resting: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.clients: set[Client] = set()
        self.pool: dict[Upstream, list[Up]] = {}
        self.draining = False
        self._tls: ssl.SSLContext | None = None

    @staticmethod
    def clock() -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic()

    def tls(self) -> ssl.SSLContext:
        """How upstreams are verified: as everywhere on this machine."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if not self._tls.cert_store_stats()["x509_ca"]:
                with contextlib.suppress(ImportError):
                    import certifi

                    self._tls.load_verify_locations(certifi.where())
        return self._tls

    def busy(self) -> None:
        """A request for the site came: what there may be time for later waits."""
        if self.resting is not None:
            self.resting.cancel()

    def calm(self) -> None:
        """An answer of the site is there: if no other request follows soon, there is time."""
        self.busy()
        if self.loop is not None and self.settings.site is not None:
            self.resting = self.loop.call_later(REST_S, self.rest)

    def rest(self) -> None:
        """Let the site do one thing that nobody waits for."""
        if self.settings.site is not None:
            self.site_thread.submit(self.settings.site.rest).add_done_callback(self._rested)

    def _rested(self, done: Future[bool]) -> None:
        loop, error = self.loop, None if done.cancelled() else done.exception()
        if error is not None:
            self.say(f"{type(error).__name__}: {error}; the dashboard shows what it knew before")
        elif loop is not None and not done.cancelled() and done.result():
            with contextlib.suppress(RuntimeError):  # it is closing
                loop.call_soon_threadsafe(self.calm)

    def pooled(self, upstream: Upstream) -> Up | None:
        """An idle connection; the one used last, which is least likely to be stale."""
        waiting = self.pool.get(upstream, [])
        while waiting:
            up = waiting.pop()
            if not up.transport.is_closing() and self.clock() < up.until:
                return up
            up.transport.abort()
        return None

    def keep(self, up: Up) -> None:
        """An idle connection waits for the next request."""
        if self.draining:
            up.transport.abort()
            return
        up.until = self.clock() + POOL_S
        self.pool.setdefault(up.upstream, []).append(up)

    def forget(self, up: Up) -> None:
        """A connection is gone."""
        waiting = self.pool.get(up.upstream, [])
        if up in waiting:
            waiting.remove(up)

    def sweep(self) -> None:
        """Close what has waited too long."""
        now = self.clock()
        for waiting in self.pool.values():
            for up in [one for one in waiting if now >= one.until]:
                waiting.remove(up)
                up.transport.abort()
        for client in list(self.clients):
            connection = client.connection
            waited = now - client.touched
            if connection.closed or client.lingering:
                continue
            if connection.idle and connection.inbox and waited > self.head_s:
                connection.timed_out()
            elif connection.idle and waited > IDLE_S:
                client.transport.close()
            elif not connection.idle and not connection.asking.done and not client.reasons and waited > IDLE_S:
                connection.client_gone()
                client.transport.abort()

    def drain(self) -> None:
        """Take no more requests; let those under way end."""
        self.draining = True
        for waiting in self.pool.values():
            for up in waiting:
                up.transport.abort()
        self.pool.clear()
        for client in list(self.clients):
            client.connection.draining = True
            if client.connection.idle:
                client.transport.close()


async def serve(
    settings: proxy.Settings,
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
    writer = Writer(folder, say)
    server = Server(settings._replace(headroom=writer.headroom), writer, head_s, say)
    server.loop = loop
    listener = await loop.create_server(lambda: Client(server), host, port, backlog=2048)
    asked: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.put_nowait, number)
    ready(listener.sockets[0].getsockname()[1])
    server.rest()

    async def sweeping() -> None:
        while True:
            await asyncio.sleep(min(2, head_s))
            server.sweep()

    sweeper = loop.create_task(sweeping())
    try:
        await asked.get()
        listener.close()
        server.drain()
        until = loop.time() + grace
        while server.clients and loop.time() < until and asked.empty():
            await asyncio.sleep(0.02)
        for client in list(server.clients):
            client.transport.abort()
        await asyncio.sleep(0)
    finally:
        sweeper.cancel()
        server.loop = None
        server.site_thread.shutdown(wait=False, cancel_futures=True)
        await writer.close()


def steady() -> Callable[[], float]:
    """A clock that begins with the real time, and is never set."""
    begun = time.time() - time.monotonic()
    return lambda: begun + time.monotonic()


def run(*given: Any) -> None:
    """`serve` to its end."""
    sys.setswitchinterval(0.0003)  # the writer's thread must not hold answers up
    asyncio.run(serve(*given))
