"""A vendor on loopback, and what clients ask of it through the proxy: each byte is known before it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from soak_clock import HOUR, Clock
from soak_ledger import Turn
from soak_parts import Took

Json = dict[str, Any]
# Connections that wait for the next request.
MOST_IDLE = 8


@dataclass
class Plan:
    """One answer: its status, and its pieces as they stand on the wire, each after a pause."""

    request: bytes
    head: bytes
    pieces: list[tuple[float, bytes]]
    status: int = 200
    cut: int = 0  # after so many pieces the vendor fails; 0: never
    leave: int = 0  # after so many pieces the client leaves
    arrived: float = 0.0
    began: float = 0.0

    @property
    def body(self) -> bytes:
        """All of the answer's content, its framing included."""
        return b"".join(data for _, data in self.pieces)


def compact(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def framed(data: bytes) -> bytes:
    """A chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Vendor:
    """Answers each request as its plan says, by the number in its header."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self.clock, self.rng = clock, rng
        self.plans: dict[int, Plan] = {}
        self.wrong: list[str] = []
        self.port = 0

    async def start(self) -> asyncio.Server:
        """Listen on any free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                body = await reader.readexactly(int(fields[b"content-length"]))
                plan = self.plans[int(fields[b"x-soak"])]
                plan.arrived = time.perf_counter()
                if body != plan.request:
                    self.wrong.append(f"request {int(fields[b'x-soak'])} arrived changed")
                writer.write(plan.head)
                for number, (pause, data) in enumerate(plan.pieces, 1):
                    if pause:
                        await asyncio.sleep(pause)
                    if number == 1:
                        plan.began = time.perf_counter()
                    writer.write(data)
                    await writer.drain()
                    if number == plan.cut:
                        writer.close()
                        return
        writer.close()

    def plan(self, turn: Turn, how: str, path: str, text: str) -> Plan:
        """The answer to a turn. `how`: plain, stream, slow, leave, cut or error."""
        kind = "anthropic" if "/messages" in path else "responses" if "/responses" in path else "chat"
        request = compact({"model": turn.model, "stream": how not in ("plain", "error"), "messages": [text]})
        if how == "error":
            status = self.rng.choice((429, 500, 529))
            said = compact({"type": "error", "error": {"type": "overloaded_error", "message": "later"}})
            made = Plan(request, self._head(status, "application/json", len(said), kind), [(0, said)], status)
        elif how == "plain":
            said = compact({"anthropic": _message, "responses": _response, "chat": _chat}[kind](turn, text, turn.counts))
            made = Plan(request, self._head(200, "application/json", len(said), kind), [(0.01, said)])
        else:
            events = {"anthropic": _messages, "responses": _responses, "chat": _chats}[kind](turn, text)
            pause = 0.4 if how == "slow" else 0.01
            pieces = [(pause, framed(event)) for event in events]
            made = Plan(request, self._head(200, "text/event-stream", -1, kind), [*pieces, (0, b"0\r\n\r\n")])
            made.cut, made.leave = (3, 0) if how == "cut" else (0, 3) if how == "leave" else (0, 0)
        self.plans[turn.number] = made
        return made

    def _head(self, status: int, content: str, length: int, kind: str) -> bytes:
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content}", "X-Request-Id: r"]
        lines.append(f"Content-Length: {length}" if length >= 0 else "Transfer-Encoding: chunked")
        if kind == "anthropic":
            now = self.clock.now()
            reset = (now // (5 * HOUR) + 1) * 5 * HOUR
            used = now % (5 * HOUR) / (5 * HOUR)
            lines += [
                f"anthropic-ratelimit-unified-5h-utilization: {used:.2f}",
                "anthropic-ratelimit-unified-status: allowed",
            ]
            lines += [f"anthropic-ratelimit-unified-5h-reset: {reset // 1000}"]
            lines += ["anthropic-ratelimit-unified-representative-claim: five_hour"]
        return "\r\n".join([*lines, "", ""]).encode()


def claude_usage(counts: Json, output: int) -> Json:
    """A Messages answer's usage."""
    base, hour = counts.get("cache_write_tokens", 0), counts.get("cache_write_1h_tokens", 0)
    made: Json = {"input_tokens": counts.get("input_tokens", 0), "cache_creation_input_tokens": base + hour}
    made |= {"cache_read_input_tokens": counts.get("cache_read_tokens", 0), "output_tokens": output}
    made["cache_creation"] = {"ephemeral_5m_input_tokens": base, "ephemeral_1h_input_tokens": hour}
    return made | {"service_tier": "standard"}


def gpt_usage(counts: Json, sent: str, got: str) -> Json:
    """A usage of OpenAI's: cached tokens stand inside the input."""
    cached, fresh, output = (counts.get(name, 0) for name in ("cache_read_tokens", "input_tokens", "output_tokens"))
    made: Json = {sent: fresh + cached, got: output, "total_tokens": fresh + cached + output}
    return made | {f"{sent}_details": {"cached_tokens": cached}}


def _message(turn: Turn, text: str, counts: Json) -> Json:
    made: Json = {"id": turn.name, "type": "message", "role": "assistant", "model": turn.model}
    content = [{"type": "text", "text": text}] if text else []
    return made | {"content": content, "usage": claude_usage(counts, counts.get("output_tokens", 0) if text else 1)}


def _messages(turn: Turn, text: str) -> list[bytes]:
    events: list[Json] = [{"type": "message_start", "message": _message(turn, "", turn.counts)}]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}} for part in _parts(text)
    ]
    events += [{"type": "message_delta", "delta": {}, "usage": {"output_tokens": turn.counts["output_tokens"]}}]
    events += [{"type": "message_stop"}]
    return [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), compact(event)) for event in events]


def _response(turn: Turn, text: str, counts: Json | None) -> Json:
    usage = None if counts is None else gpt_usage(counts, "input_tokens", "output_tokens")
    made: Json = {"id": turn.name, "object": "response", "status": "completed", "model": turn.model, "output": [text]}
    return made | {"usage": usage}


def _responses(turn: Turn, text: str) -> list[bytes]:
    events: list[Json] = [{"type": "response.created", "response": _response(turn, "", None)}]
    events += [{"type": "response.output_text.delta", "delta": part} for part in _parts(text)]
    events += [{"type": "response.completed", "response": _response(turn, text, turn.counts)}]
    return [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), compact(event)) for event in events]


def _chat(turn: Turn, text: str, counts: Json) -> Json:
    made: Json = {"id": turn.name, "object": "chat.completion", "model": turn.model}
    return made | {
        "choices": [{"message": {"content": text}}],
        "usage": gpt_usage(counts, "prompt_tokens", "completion_tokens"),
    }


def _chats(turn: Turn, text: str) -> list[bytes]:
    head: Json = {"id": turn.name, "object": "chat.completion.chunk", "model": turn.model}
    events = [head | {"choices": [{"index": 0, "delta": {"content": part}}]} for part in _parts(text)]
    events += [head | {"choices": [], "usage": gpt_usage(turn.counts, "prompt_tokens", "completion_tokens")}]
    return [*(b"data: %b\n\n" % compact(event) for event in events), b"data: [DONE]\n\n"]


def _parts(text: str) -> list[str]:
    """Six at least, so that a stream that is cut short after three events has told no final counts."""
    step = max(len(text) // 6, 1)
    return [text[at : at + step] for at in range(0, len(text), step)]


@dataclass
class Wire:
    """Clients of the proxy: keep-alive connections, each for one request at a time."""

    port: int
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    added: list[Took] = field(default_factory=list)
    asked: int = 0
    compared: int = 0  # bytes of answers

    async def ask(self, turn: Turn, plan: Plan, path: str, *headers: str) -> str:
        """Send a request and read its answer. whole; cut, left: as planned; broken: by somebody else."""
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"X-Soak: {turn.number}"]
        head = "\r\n".join([*lines, *headers, f"Content-Length: {len(plan.request)}", "", ""]).encode()
        reader, writer = await self._connection()
        self.asked += 1
        turn.wired, turn.from_s = True, time.monotonic()
        try:
            sent = time.perf_counter()
            writer.write(head + plan.request)
            return await self._answer(turn, plan, sent, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()
            return "broken"
        finally:
            turn.until_s = time.monotonic()

    async def refused(self, turn: Turn, plan: Plan, path: str, *headers: str) -> str:
        """Ask for a provider that cannot be reached: the proxy says so itself."""
        reader, writer = await self._connection()
        turn.wired, turn.from_s = True, time.monotonic()
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "Connection: close", *headers]
        try:
            writer.write("\r\n".join([*lines, f"Content-Length: {len(plan.request)}", "", ""]).encode() + plan.request)
            got = await reader.read()
            if got and not got.startswith(b"HTTP/1.1 502 "):
                self.wrong.append(f"request {turn.number}: no 502: {got[:60]!r}")
            return "whole" if got else "broken"
        except ConnectionError:
            return "broken"
        finally:
            turn.until_s = time.monotonic()
            writer.close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        until = time.monotonic() + 60
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
                writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return reader, writer
            except OSError:  # it is being started again
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)

    async def _answer(
        self, turn: Turn, plan: Plan, sent: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> str:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != b"%d" % plan.status or b"X-Request-Id: r\r\n" not in head:
            self.wrong.append(f"request {turn.number}: another answer: {head[:60]!r}")
        whole = plan.body
        ends = len(b"".join(data for _, data in plan.pieces[: plan.cut or plan.leave or None]))
        got = bytearray()
        while len(got) < ends:
            data = await reader.read(1 << 18)
            if not data:
                break
            if not got and plan.began:
                self.added.append(Took(time.monotonic(), 1000 * (plan.arrived - sent + time.perf_counter() - plan.began)))
            got += data
        self.compared += len(got)
        if bytes(got) != whole[: len(got)]:
            self.wrong.append(f"answer {turn.number} arrived changed")
        if plan.leave:
            writer.transport.abort()
            return "left"
        if plan.cut:
            rest = await reader.read(1 << 18)
            writer.close()
            return "cut" if len(got) >= ends and not rest else "broken"
        if len(got) < ends:
            writer.close()
            return "broken"
        if len(self.idle) < MOST_IDLE:
            self.idle.append((reader, writer))
        else:
            writer.close()
        return "whole"

    def close(self) -> None:
        """Leave."""
        while self.idle:
            self.idle.pop()[1].close()
