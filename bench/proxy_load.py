"""A vendor and its clients on one core, for measuring proxies on the other.

    python bench/proxy_load.py serve PORT         the vendor
    python bench/proxy_load.py latency PORT PATH  p50 and p99 of requests one after another, in ms
    python bench/proxy_load.py events PORT PATH   the same for the events of streams, from the vendor's send to the client's
                                                  receipt
    python bench/proxy_load.py load PORT PATH     requests per second over 32 connections

Prints one JSON object. Loopback only; each ends by itself, the vendor when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time

PADDING = "x" * 1800
BODY = json.dumps({"model": "gpt-5.4", "messages": [{"role": "user", "content": PADDING}]}).encode()
STREAM = BODY.replace(b"{", b'{"stream": true, ', 1)
REQUESTS, EVENTS, SECONDS = 4000, 1500, 6.0


def request(path: str, body: bytes) -> bytes:
    """A request as an SDK sends it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
        "Content-Type: application/json\r\nAuthorization: Bearer sk-bench\r\nUser-Agent: OpenAI/Python 2.54.0\r\n"
        f"X-Stainless-Lang: python\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Vendor(asyncio.Protocol):
    """Answers at once: two kilobytes, or events a millisecond apart that say when they were sent."""

    number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            Vendor.number += 1
            if b'"stream": true' in body or b'"stream":true' in body:
                asyncio.get_running_loop().create_task(self.stream(Vendor.number))
            else:
                self.answer(Vendor.number)

    def answer(self, number: int) -> None:
        said = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": "gpt-5.4", "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": PADDING}}],
            "usage": {"prompt_tokens": 450, "completion_tokens": 450, "total_tokens": 900}}  # fmt: skip
        body = json.dumps(said).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: r\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        self.transport.write(head + body)  # type: ignore[attr-defined]

    async def stream(self, number: int) -> None:
        write = self.transport.write  # type: ignore[attr-defined]
        write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(EVENTS):
            await asyncio.sleep(0.001)
            said = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5.4", "choices": [
                {"index": 0, "delta": {"content": f"@{time.monotonic_ns()}@"}, "finish_reason": None}]}  # fmt: skip
            event = b"data: " + json.dumps(said).encode() + b"\n\n"
            write(b"%x\r\n%b\r\n" % (len(event), event))
        last = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-5.4","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\ndata: [DONE]\n\n'
        write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))


async def serve(port: int) -> None:
    """The vendor, until standard input closes."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Vendor, "127.0.0.1", port)
    await loop.run_in_executor(None, sys.stdin.read)


def connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def answered(connection: socket.socket) -> bytes:
    """One answer."""
    got = b""
    while (end := got.find(b"\r\n\r\n")) < 0:
        got += received(connection)
    head = got[:end].lower()
    assert b" 200" in got[:20], got[:400]
    if b"chunked" in head:
        while not got.endswith(b"0\r\n\r\n"):
            got += received(connection)
        return got
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(got) < end + 4 + length:
        got += received(connection)
    return got


def received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    assert data, "the connection ended"
    return data


def quantiles(taken: list[float]) -> dict[str, float]:
    taken.sort()
    return {"p50": taken[len(taken) // 2], "p99": taken[int(len(taken) * 0.99)]}


def latency(port: int, path: str, count: int = REQUESTS) -> dict[str, float]:
    """Requests one after another."""
    with connect(port) as connection:
        data = request(path, BODY)
        taken = []
        until = time.perf_counter() + SECONDS
        for number in range(count + count // 10):
            began = time.perf_counter()
            connection.sendall(data)
            answered(connection)
            if number >= count // 10 or (number >= 50 and began > until - SECONDS / 2):
                taken.append((time.perf_counter() - began) * 1000)
            if began > until:
                break
    return quantiles(taken)


def events(port: int, path: str) -> dict[str, float]:
    """How long each event was under way."""
    taken = []
    with connect(port) as connection:
        connection.sendall(request(path, STREAM))
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            data = received(connection)
            now = time.monotonic_ns()
            rest += data
            parts = rest.split(b"@")
            while len(parts) >= 3:
                taken.append((now - int(parts[1])) / 1e6)
                parts = parts[2:]
            rest = b"@".join(parts)
    return quantiles(taken)


async def load(port: int, path: str) -> dict[str, float]:
    """As many requests as there is time for."""
    data = request(path, BODY)
    done = 0
    until = time.perf_counter() + SECONDS

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            low = head.lower()
            if b"content-length:" in low:
                await reader.readexactly(int(low.split(b"content-length:")[1].split(b"\r\n")[0]))
            else:
                await reader.readuntil(b"0\r\n\r\n")
            done += 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(32)))
    return {"requests": done / (time.perf_counter() - began)}


if __name__ == "__main__":
    what, port, *rest = sys.argv[1:]
    if what == "serve":
        asyncio.run(serve(int(port)))
    else:
        path = rest[0]
        made = (
            asyncio.run(load(int(port), path))
            if what == "load"
            else {"latency": latency, "events": events}[what](int(port), path)
        )
        print(json.dumps(made))
