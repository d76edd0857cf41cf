"""A vendor on loopback, for tests of the proxy: it keeps what it was sent and answers what it was told to."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from conftest import MOST
from tokenops import http1


class Asked(NamedTuple):
    """A request as it arrived."""

    head: http1.Request
    body: bytes

    def header(self, name: str) -> str | None:
        """The only value of a header."""
        found = http1.values(self.head.headers, name.encode())
        return found[0].decode() if found else None


Writer = asyncio.StreamWriter
Script = Callable[[Asked, Writer], Awaitable[None]]


async def head_of(reader: asyncio.StreamReader) -> http1.Request:
    """The next request's head."""
    return http1.request(await reader.readuntil(b"\r\n\r\n"))


async def body_of(head: http1.Request, reader: asyncio.StreamReader) -> bytes:
    """A request's content."""
    body, found, rest = http1.Body(*http1.request_body(head)), [], b""
    while not body.done:
        rest = await reader.read(1 << 20)
        assert rest, "the request ended early"
        found += body.feed(rest).data
    return b"".join(found)


class Gate:
    """What an answer waits for until the test opens it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.open = self._open.set

    async def passed(self) -> None:
        """Return once it is open."""
        while not self._open.is_set():
            await asyncio.sleep(0.002)


class Upstream:
    """The server; `script(asked, writer)` answers each request."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.cut = 0  # connections that the other side ended in the middle of an answer
        self.script: Script = plain(b"{}")
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self.loop = asyncio.new_event_loop()
        self.tasks: set[asyncio.Task[Any]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                head = await head_of(reader)
                if http1.items(head.headers, b"expect"):
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                asked = Asked(head, await body_of(head, reader))
                self.asked.append(asked)
                watch = asyncio.create_task(self._watch(reader)) if not http1.items(head.headers, b"upgrade") else None
                try:
                    writer.reader = reader  # type: ignore[attr-defined]
                    await self.script(asked, writer)
                    await writer.drain()
                finally:
                    if watch is not None:
                        watch.cancel()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, AssertionError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        while not reader.at_eof() and reader.exception() is None:
            await asyncio.sleep(0.005)
        self.cut += 1

    @contextmanager
    def running(self) -> Iterator[Upstream]:
        """Serve on a free port."""
        ready = threading.Event()

        async def main() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, ssl=self.tls)
            self.port = server.sockets[0].getsockname()[1]
            self.stop = asyncio.Event()
            ready.set()
            await self.stop.wait()
            server.close()
            for task in list(self.tasks):
                task.cancel()
            await asyncio.sleep(0.01)

        thread = threading.Thread(target=lambda: self.loop.run_until_complete(main()), daemon=True)
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            self.loop.call_soon_threadsafe(self.stop.set)
            thread.join(MOST)


def head(status: int = 200, *headers: tuple[str, str]) -> bytes:
    """A response's head."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode()


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def plain(body: bytes, *headers: tuple[str, str], status: int = 200) -> Script:
    """An answer with a length."""
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers = (("Content-Type", "application/json"), *headers)

    async def script(asked: Asked, writer: Writer) -> None:
        given = b"" if asked.head.method == b"HEAD" else body
        writer.write(head(status, *headers, ("Content-Length", str(len(body)))) + given)

    return script


def stream(
    *events: bytes,
    pause: float = 0.002,
    kind: str = "text/event-stream",
    headers: tuple[tuple[str, str], ...] = (),
    gate: Gate | None = None,
) -> Script:
    """An answer in chunks, one event each; all after the first behind a gate."""

    async def script(asked: Asked, writer: Writer) -> None:
        writer.write(head(200, ("Content-Type", kind), ("Transfer-Encoding", "chunked"), *headers))
        for event in events:
            writer.write(chunk(event))
            await writer.drain()
            await asyncio.sleep(pause)
            if gate is not None:
                await gate.passed()
        writer.write(b"0\r\n\r\n")

    return script


async def silence(asked: Asked, writer: Writer) -> None:
    """No answer, ever."""
    await asyncio.Event().wait()


def raw(data: bytes, close: bool = True) -> Script:
    """These bytes, whatever they are."""

    async def script(asked: Asked, writer: Writer) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return script
