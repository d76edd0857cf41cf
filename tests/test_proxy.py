"""The proxy between real sockets: what passes, what is counted, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from typing import Any

import pytest
from answers import ANSWERS
from proxies import EVENTS, USAGE, Proxy, Start, ask, post, received
from upstream import Asked, Gate, Upstream, Writer, chunk, head, plain, raw, silence, stream

from conftest import MOST, eventually, objects
from tokenops import proxy_writer


def test_a_turn_is_written_down(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = plain(USAGE, ("x-request-id", "r1"))
    answer = ask(proxy.port, post("/openai/v1/chat/completions", b'{"model":"gpt-5.4"}', "X-Tokenops-Session-Id: s1",
                                  "X-Tokenops-Project: orchard", "User-Agent: OpenAI/Python 2.54.0", "Authorization: Bearer sk-1",
                                  "Connection: close"))  # fmt: skip
    assert answer.endswith(USAGE) and b"x-request-id: r1" in answer
    [turn] = proxy.events(1)
    assert turn["id"] == "chatcmpl-1"
    assert (turn["input_tokens"], turn["cache_read_tokens"], turn["output_tokens"]) == (10, 5, 7)
    assert (turn["provider"], turn["model"], turn["request_model"]) == ("openai", "gpt-5.4-2026-03-05", "gpt-5.4")
    assert (turn["client"], turn["session_id"], turn["agent_id"]) == ("openai", "s1", "openai:orchard")
    assert (turn["source"], turn["status"], turn["path"], turn["credential"]) == (
        "proxy",
        200,
        "/v1/chat/completions",
        "api_key",
    )
    [asked] = vendor.asked
    assert asked.head.target == b"/v1/chat/completions"
    assert asked.header("host") == f"127.0.0.1:{vendor.port}"
    assert asked.header("authorization") == "Bearer sk-1"
    assert not any(name.startswith(b"x-tokenops") for name, _, _ in asked.head.headers)


@pytest.mark.parametrize(
    ("agent", "header", "client"),
    [
        ("Kilo-Code/7.7.7 ai-sdk/provider-utils/4.0.27", "X-Session-Affinity: ses_dcdb1cd26ffe57ozv6ms1xgCTm", "kilo"),
        ("ai-sdk/provider-utils/4.0.27", "X-Session-Affinity: ses_dcdb1cd26ffe57ozv6ms1xgCTm", "opencode"),
        ("python-httpx/0.28.1", "x-affinity: e854d1ee-54bc-af62-82d3-959c7bdd83cf", "mistral-vibe"),
        ("grok-shell/1.0.41 (linux; x86_64)", "x-grok-session-id: 01a23277-eefb-7ad3-aab9-f730b0485614", "grok-build"),
    ],
)
def test_a_request_is_named_as_in_its_clients_log(
    proxy: Proxy, vendor: Upstream, agent: str, header: str, client: str
) -> None:
    """By client and session, so that the log's sighting of it and the proxy's are one, or the log's total gives way to it."""
    vendor.script = plain(USAGE)
    ask(
        proxy.port,
        post("/openai/v1/chat/completions", b'{"model":"gpt-5.4"}', header, f"User-Agent: {agent}", "Connection: close"),
    )
    [turn] = proxy.events(1)
    session = header.partition(": ")[2]
    assert (turn["client"], turn["session_id"]) == (client, session)
    assert turn.get("alias") == (None if client == "grok-build" else f"{client}:{session}:10:5:0:7:0")


def test_a_stream_passes_as_it_comes(proxy: Proxy, vendor: Upstream) -> None:
    """The vendor says nothing more until its first event has arrived, and then for a fifth of a second."""
    rest = Gate()
    vendor.script = stream(*EVENTS, gate=rest)
    with proxy.connect() as connection:
        connection.sendall(post("/openai/v1/chat/completions"))
        assert received(connection, EVENTS[0] + b"\r\n").endswith(EVENTS[0] + b"\r\n")
        time.sleep(0.2)
        rest.open()
        assert received(connection, b"0\r\n\r\n").endswith(b"0\r\n\r\n")
    [turn] = proxy.events(1)
    assert (turn["id"], turn["input_tokens"], turn["output_tokens"]) == ("chatcmpl-2", 15, 7)
    assert turn["latency_ms"] - turn["ttft_ms"] >= 199


def test_answers_of_all_vendors_pass_and_are_counted(proxy: Proxy, vendor: Upstream) -> None:
    """Bytes and headers as they were, packed or not; the tunnel's are another test."""
    given = [answer for answer in ANSWERS if answer.body]
    for number, answer in enumerate(given):
        body = gzip.compress(answer.body) if number % 3 == 0 else answer.body
        headers = [("Content-Type", answer.kind), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        if number % 3 == 0:
            headers.append(("Content-Encoding", "gzip"))
        vendor.script = plain(body, *headers, status=answer.status)
        got, _, content = ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close")).partition(
            b"\r\n\r\n"
        )
        assert content == body
        assert got.count(b"Set-Cookie") == 2 and f" {answer.status} ".encode() in got
    found = proxy.events(len(given))
    assert len([event for event in found if "errors" in event]) == sum(answer.status >= 400 for answer in given) > 1
    sent = sum(answer.usage[0] for answer in given if answer.usage)
    assert sum(event.get(name, 0) for event in found for name in INPUT) == sent


INPUT = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")


@pytest.mark.parametrize(
    ("target", "method", "body", "count"),
    [
        ("/anthropic/v1/messages/count_tokens", "POST", b'{"input_tokens": 14}', 0),
        ("/openai/v1/models", "GET", b'{"data":[]}', 0),
        ("/openai/v1/batches/batch_1", "GET", b'{"id":"batch_1","usage":{"input_tokens":5,"output_tokens":5}}', 0),
        ("/openai/v1/responses/resp_1", "GET", b'{"id":"resp_1","object":"response","usage":{"input_tokens":5,"output_tokens":5}}', 1),
        ("/openai/v1/embeddings", "POST", b'{"object":"list","model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}', 1),
        ("/gemini/v1beta/models/g:countTokens", "POST", b'{"totalTokens":7}', 0),
        ("/gemini/v1beta/models/gemini-3-flash:generateContent?key=AIzaSECRET", "POST",
         b'{"responseId":"r1","usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2,"totalTokenCount":7}}', 1),
        ("/ollama/api/tags", "GET", b'{"models":[]}', 0),
        ("/anthropic", "HEAD", b"", 0),
    ],
)  # fmt: skip
def test_what_is_counted(target: str, method: str, body: bytes, count: int, proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = plain(body)
    data = post(target, b"{}", "Connection: close").replace(b"POST", method.encode(), 1)
    assert ask(proxy.port, data).startswith(b"HTTP/1.1 200")
    proxy.process.terminate()
    proxy.process.wait(MOST)
    found = proxy.events()
    assert len(found) == count
    assert "SECRET" not in json.dumps(found)


def test_the_same_answer_fetched_twice_counts_once(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = plain(
        b'{"id":"resp_1","object":"response","model":"gpt-5.4","usage":{"input_tokens":5,"output_tokens":5}}'
    )
    ask(proxy.port, post("/openai/v1/responses", b"{}", "Connection: close"))
    for _ in range(3):
        ask(proxy.port, b"GET /openai/v1/responses/resp_1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert {turn["id"] for turn in proxy.events(4)} == {"resp_1"}


def test_no_usage_is_unknown_and_says_why(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = stream(EVENTS[0], EVENTS[2])
    ask(proxy.port, post("/openai/v1/chat/completions", b'{"stream":true}', "Connection: close"))
    [turn] = proxy.events(1)
    assert (turn["usage"], turn["usage_reason"], turn["turns"]) == ("unknown", "no usage in the answer", 1)
    assert "output_tokens" not in turn


def test_ids_that_repeat_are_not_believed(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = plain(USAGE)
    for _ in range(3):
        ask(proxy.port, post("/ollama/v1/chat/completions", b"{}", "Connection: close"))
    found = proxy.events(3)
    assert len({turn["id"] for turn in found}) == 3


def test_errors_are_events_without_turns(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = plain(b'{"type":"error","error":{"type":"rate_limit_error","message":"secret words"}}', status=429)
    assert b" 429 " in ask(proxy.port, post("/anthropic/v1/messages", b'{"model":"claude-x"}', "Connection: close"))
    [event] = proxy.events(1)
    assert (event["errors"], event["error"], event["status"], event["model"]) == (1, "rate_limit_error", 429, "claude-x")
    assert "turns" not in event and "secret" not in json.dumps(event)


def test_limits_are_written_once_while_they_stay(proxy: Proxy, vendor: Upstream) -> None:
    unified = "anthropic-ratelimit-unified-"
    headers = (
        (f"{unified}5h-utilization", "0.25"),
        (f"{unified}5h-reset", "1795300000"),
        ("anthropic-organization-id", "org-secret"),
    )
    vendor.script = plain(b'{"id":"msg_1","type":"message","usage":{"input_tokens":1,"output_tokens":1}}', *headers)
    for _ in range(3):
        ask(proxy.port, post("/anthropic/v1/messages", b"{}", "Connection: close"))
    proxy.events(3)
    [meter] = proxy.events(1, "meter")
    assert (meter["window"], meter["used"], meter["provider"]) == ("five_hour", 0.25, "anthropic")
    assert len(meter["account"]) == 12 and "org-secret" not in json.dumps(meter)


# Framing, and who may come.

REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET /nobody/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"CONNECT api.openai.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"TRACE /openai/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"GET /openai/v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    (b"GET http://evil.example/openai/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
    (b"GET /openai/ HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n", 403),
    (b"GET /openai/ HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403),
    (b"POST /openai/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /openai/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"GET /openai/ HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    (b"garbage\r\n\r\n", 400),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_what_is_refused(data: bytes, status: int, proxy: Proxy, vendor: Upstream) -> None:
    answer = ask(proxy.port, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    said = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert said["error"] and said["hint"]
    assert not vendor.asked


def test_its_own_endpoints(proxy: Proxy) -> None:
    for path in ("/healthz", "/readyz", "/version"):
        answer = ask(proxy.port, f"GET {path} HTTP/1.1\r\nHost: [::1]:7878\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200") and json.loads(answer.partition(b"\r\n\r\n")[2])
    assert b" 405 " in ask(proxy.port, b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


def test_pipelined_requests_are_answered_in_order(proxy: Proxy, vendor: Upstream) -> None:
    async def script(asked: Asked, writer: Writer) -> None:
        await asyncio.sleep(0.05 if asked.body == b"1" else 0)
        await plain(asked.body)(asked, writer)

    vendor.script = script
    data = b"".join(post("/openai/v1/x", body) for body in (b"1", b"2")) + post("/openai/v1/x", b"3", "Connection: close")
    answer = ask(proxy.port, data)
    assert [part[-1:] for part in answer.split(b"HTTP/1.1 200")[1:]] == [b"1", b"2", b"3"]
    assert vendor.connections == 1


def test_http10(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = stream(*EVENTS)
    answer = ask(proxy.port, b"POST /openai/v1/x HTTP/1.0\r\nContent-Length: 2\r\nHost: localhost\r\n\r\n{}")
    assert answer.endswith(b"\r\n\r\n" + b"".join(EVENTS))
    assert b"hunked" not in answer


def test_expect_and_provisional_answers(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = plain(b"{}")
    with proxy.connect() as connection:
        request, _, body = post("/openai/v1/x", b'{"a":1}', "Expect: 100-continue").partition(b"\r\n\r\n")
        connection.sendall(request + b"\r\n\r\n")
        assert received(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert received(connection, b"{}").endswith(b"{}")
    assert vendor.asked[0].body == b'{"a":1}'
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    vendor.script = raw(hints + head(200, ("Content-Length", "2")) + b"{}", close=False)
    assert ask(proxy.port, post("/openai/v1/x", b"{}", "Connection: close")).startswith(hints)


@pytest.mark.parametrize(
    "given",
    [
        head(204),
        head(304, ("Content-Length", "10"), ("ETag", "x")),
        head(200, ("Content-Length", "0")),
        head(200, ("Transfer-Encoding", "chunked"), ("Trailer", "T")) + chunk(b"abc") + b"0\r\nT: 1\r\n\r\n",
    ],
)
def test_bodies_that_are_none_and_trailers(given: bytes, proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = raw(given, close=False)
    with proxy.connect() as connection:
        for _ in range(2):
            connection.sendall(post("/openai/v1/x"))
            assert received(connection, given[-12:]) == given
    assert vendor.connections == 1


def test_an_answer_that_ends_with_its_connection(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = raw(head(200, ("Content-Type", "application/json")) + USAGE)
    assert ask(proxy.port, post("/openai/v1/x")).endswith(USAGE)
    assert proxy.events(1)[0]["output_tokens"] == 7


# What breaks.


def test_nobody_there(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        proxy = start({"openai": f"http://127.0.0.1:{taken.getsockname()[1]}"})
        answer = ask(proxy.port, post("/openai/v1/responses", b'{"model":"gpt-5.4"}'))
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"openai: cannot connect" in answer
    [event] = proxy.events(1)
    assert (event["errors"], event["error"], event["model"]) == (1, "unreachable", "gpt-5.4")


@pytest.mark.parametrize(
    ("given", "status", "error"),
    [
        (b"", 502, "no answer"),
        (b"HTTP/1.1 20", 502, "no answer"),
        (b"nonsense\r\n\r\n", 502, "no answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 502, "no answer"),
    ],
)
def test_an_upstream_that_says_nothing_sensible(
    given: bytes, status: int, error: str, proxy: Proxy, vendor: Upstream
) -> None:
    vendor.script = raw(given)
    assert ask(proxy.port, post("/openai/v1/x")).startswith(b"HTTP/1.1 %d " % status)
    assert proxy.events(1)[0]["error"] == error


@pytest.mark.parametrize(
    "given",
    [
        head(200, ("Content-Length", "500")) + USAGE,
        head(200, ("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")) + chunk(EVENTS[0]),
        head(200, ("Transfer-Encoding", "chunked")) + b"zz\r\n",
    ],
)
def test_an_answer_cut_short_is_seen_to_be_one(given: bytes, proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = raw(given)
    answer = ask(proxy.port, post("/openai/v1/x"))
    assert not answer.endswith(b"0\r\n\r\n")
    [turn] = proxy.events(1)
    assert turn["error"] in ("truncated", "malformed answer")
    assert turn.get("usage") in ("partial", "unknown")


def test_a_client_that_leaves_cancels_its_request(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = stream(*EVENTS[:1] * 500, pause=0.02)
    with proxy.connect() as connection:
        connection.sendall(post("/openai/v1/x"))
        received(connection, EVENTS[0] + b"\r\n")
    eventually(lambda: vendor.cut)
    assert vendor.cut == 1
    assert proxy.events(1)[0]["error"] == "client left"


def test_a_client_that_leaves_before_the_answer_cancels_too(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = silence
    with proxy.connect() as connection:
        connection.sendall(post("/openai/v1/x"))
        eventually(lambda: vendor.asked)
    eventually(lambda: vendor.cut)
    assert vendor.cut == 1


def test_a_client_that_only_stops_sending_gets_its_answer(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = stream(*EVENTS, pause=0.1)
    with proxy.connect() as connection:
        connection.sendall(post("/openai/v1/x"))
        eventually(lambda: vendor.asked)  # its answer must begin within a second from then on
        connection.shutdown(socket.SHUT_WR)
        assert received(connection).endswith(b"0\r\n\r\n")


def test_an_early_answer_to_a_body_that_is_still_sent(start: Start) -> None:
    """The answer arrives whole, although the rest of the body has nowhere to go."""
    answered = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = start({"openai": f"http://127.0.0.1:{server.getsockname()[1]}"})

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                got = b""
                while b"\r\n\r\n" not in got:
                    got += connection.recv(65536)
                connection.sendall(head(413, ("Content-Length", "2")) + b"{}")
                answered.wait(MOST)

        thread = threading.Thread(target=serve)
        thread.start()
        with proxy.connect() as connection:
            connection.sendall(
                b"POST /openai/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 50_000
            )
            answer = received(connection, b"{}")
            answered.set()
            assert b" 413 " in answer and b"Connection: close" in answer
        thread.join()


def test_a_request_head_that_never_ends_is_given_up(start: Start, vendor: Upstream) -> None:
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"}, "--head-timeout", "1")
    with proxy.connect() as slow, proxy.connect() as idle:
        until = time.monotonic() + MOST
        slow.sendall(b"GET /openai/x HTTP/1.1\r\nHost: lo")
        while not select.select([slow], [], [], 0.1)[0]:  # one byte at a time does not buy more time
            assert time.monotonic() < until
            slow.sendall(b"o")
        assert b" 408 " in received(slow)
        vendor.script = plain(b"{}")
        idle.sendall(post("/openai/x"))  # who has said nothing yet may take longer
        assert b" 200 " in received(idle, b"{}")


@pytest.mark.parametrize("chunked", [False, True])
def test_64_mib_up_and_down(chunked: bool, proxy: Proxy, vendor: Upstream) -> None:
    size = 64 << 20
    piece = random.Random(1).randbytes(1 << 16)
    up, down = hashlib.sha256(), hashlib.sha256()

    async def script(asked: Asked, writer: Writer) -> None:
        up.update(asked.body)
        if chunked:
            writer.write(head(200, ("Content-Type", "application/octet-stream"), ("Transfer-Encoding", "chunked")))
        else:
            writer.write(head(200, ("Content-Type", "application/octet-stream"), ("Content-Length", str(size))))
        for _ in range(size // len(piece)):
            writer.write(chunk(piece) if chunked else piece)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")

    vendor.script = script
    with proxy.connect() as connection:
        kind = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        connection.sendall(
            f"POST /openai/v1/files HTTP/1.1\r\nHost: localhost\r\n{kind}\r\nConnection: close\r\n\r\n".encode()
        )

        def send() -> None:
            for _ in range(size // len(piece)):
                connection.sendall(chunk(piece) if chunked else piece)
            if chunked:
                connection.sendall(b"0\r\n\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        answer = received(connection)
        sender.join()
    _, _, body = answer.partition(b"\r\n\r\n")
    if chunked:
        from tokenops import http1

        body = b"".join(http1.Body(http1.CHUNKED).feed(body).data)
    expected = hashlib.sha256()
    for _ in range(size // len(piece)):
        expected.update(piece)
    down.update(body)
    assert up.digest() == down.digest() == expected.digest()
    status = pathlib.Path(f"/proc/{proxy.process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    assert peak < 80 * 1024, f"{peak} KiB"


def test_a_slow_reader_holds_the_vendor_back(proxy: Proxy, vendor: Upstream) -> None:
    """Not even half of 64 MiB leaves the vendor before the client reads; then all of it arrives."""
    sent = 0

    async def script(asked: Asked, writer: Writer) -> None:
        nonlocal sent
        writer.write(head(200, ("Content-Type", "application/octet-stream"), ("Content-Length", str(64 << 20))))
        for _ in range(1024):
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    vendor.script = script
    with proxy.connect() as connection:
        connection.sendall(post("/openai/v1/x", b"{}", "Connection: close"))
        seen = [-1]
        while len(seen) < 100 or seen[-100] != seen[-1] or not sent:  # until nothing has moved for half a second
            seen.append(sent)
            time.sleep(0.005)
        assert sent < 32 << 20
        assert len(received(connection).partition(b"\r\n\r\n")[2]) == 64 << 20


def test_a_thousand_streams_at_once_are_not_mixed_up(proxy: Proxy, vendor: Upstream) -> None:
    count = int(os.environ.get("TOKENOPS_STREAMS", "300"))

    async def script(asked: Asked, writer: Writer) -> None:
        name = json.loads(asked.body)["n"]
        events = [b'data: {"id":"c%d","choices":[],"pad":"%d"}\n\n' % (name, n) for n in range(8)]
        events.append(
            b'data: {"id":"c%d","model":"m","usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n'
            % (name, name + 1, name + 2)
        )
        await stream(*events, pause=0.05)(asked, writer)

    vendor.script = script

    async def one(name: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(post("/openai/v1/chat/completions", b'{"n":%d}' % name, "Connection: close"))
        data = await asyncio.wait_for(reader.read(), MOST)
        assert data.count(b'"id":"c%d"' % name) == 9 and data.endswith(b"0\r\n\r\n")
        writer.close()

    async def main() -> None:
        await asyncio.gather(*(one(name) for name in range(count)))

    asyncio.run(main())
    found = {turn["id"]: (turn["input_tokens"], turn["output_tokens"]) for turn in proxy.events(count)}
    assert found == {f"c{name}": (name + 1, name + 2) for name in range(count)}


def test_nothing_is_leaked(proxy: Proxy, vendor: Upstream) -> None:
    before = proxy.descriptors()
    vendor.script = plain(USAGE)
    for data, _ in REFUSED * 3:
        ask(proxy.port, data)
    for given in (b"", b"nonsense\r\n\r\n", head(200, ("Content-Length", "500")) + b"x"):
        vendor.script = raw(given)
        for _ in range(20):
            ask(proxy.port, post("/openai/v1/x"))
    vendor.script = stream(*EVENTS * 50, pause=0.01)
    for _ in range(20):
        with proxy.connect() as connection:
            connection.sendall(post("/openai/v1/x"))
            received(connection, b"\r\n", most=0.02)
    eventually(lambda: proxy.descriptors() <= before + 3)


def listens(proxy: Proxy) -> bool:
    """Whether it takes new connections."""
    try:
        proxy.connect().close()
    except ConnectionError:
        return False
    return True


def test_the_end_waits_for_what_is_under_way(proxy: Proxy, vendor: Upstream) -> None:
    rest = Gate()
    vendor.script = stream(*EVENTS, gate=rest)
    with proxy.connect() as connection:
        connection.sendall(post("/openai/v1/chat/completions"))
        received(connection, EVENTS[0] + b"\r\n")
        proxy.process.send_signal(signal.SIGTERM)
        eventually(lambda: not listens(proxy))
        rest.open()
        assert received(connection).endswith(b"0\r\n\r\n")
    assert proxy.process.wait(MOST) == 0
    assert proxy.events()[0]["output_tokens"] == 7


def test_kill_loses_at_most_the_last_second(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = plain(USAGE.replace(b"chatcmpl-1", b"ID"))
    """What is written is written by itself, and no end of the process is needed for it."""
    assert proxy_writer.FLUSH_S < 1
    for _ in range(50):
        ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close"))
    eventually(lambda: sum(turn["turns"] for turn in proxy.events()) == 50)
    proxy.process.kill()
    proxy.process.wait()
    assert sum(turn["turns"] for turn in proxy.events()) == 50


SENTINEL = "sk-SENTINEL-do-not-write"


def test_keys_are_nowhere(proxy: Proxy, vendor: Upstream, tmp_path: pathlib.Path) -> None:
    headers = (f"Authorization: Bearer {SENTINEL}", f"x-api-key: {SENTINEL}", f"Cookie: a={SENTINEL}", "Connection: close")
    for script in (
        plain(USAGE),
        plain(b'{"error":{"type":"x"}}', status=401),
        raw(b""),
        raw(b"nonsense\r\n\r\n"),
        stream(*EVENTS),
    ):
        vendor.script = script
        answer = ask(
            proxy.port, post(f"/gemini/v1beta/models/g:generateContent?key={SENTINEL}", b'{"k":"SENTINEL"}', *headers)
        )
        assert b"SENTINEL" not in answer
    assert b"SENTINEL" not in ask(proxy.port, post(f"/nobody/x?key={SENTINEL}", b"{}", *headers))
    assert b"SENTINEL" not in ask(
        proxy.port, b"GET /openai/x HTTP/1.1\r\nHost: h\r\nAuthorization : " + SENTINEL.encode() + b"\r\n\r\n"
    )
    proxy.process.terminate()
    proxy.process.wait(MOST)
    assert proxy.process.stderr is not None
    assert b"SENTINEL" not in proxy.process.stderr.read()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"SENTINEL" not in path.read_bytes(), path


def test_compressed_answers_stay_compressed(proxy: Proxy, vendor: Upstream) -> None:
    packed = gzip.compress(b"".join(EVENTS))
    vendor.script = stream(packed[:30], packed[30:], headers=(("Content-Encoding", "gzip"),))
    answer = ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close"))
    assert packed[30:] in answer and b"Content-Encoding: gzip" in answer
    assert proxy.events(1)[0]["output_tokens"] == 7


def test_a_body_that_is_no_json_passes(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = plain(USAGE)
    body = b"\x28\xb5\x2f\xfd" + random.Random(9).randbytes(300)
    ask(proxy.port, post("/openai/v1/responses", body, "Content-Encoding: zstd", "Connection: close"))
    ask(proxy.port, post("/openai/v1/responses", body, "Connection: close"))
    assert [asked.body for asked in vendor.asked] == [body, body]
    assert len(proxy.events(2)) == 2


def frame(message: Any, masked: bool) -> bytes:
    """A WebSocket text frame."""
    data = json.dumps(message).encode()
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
    if not masked:
        return b"\x81" + size + data
    key = b"abcd"
    return b"\x81" + bytes([size[0] | 128]) + size[1:] + key + bytes(byte ^ key[n % 4] for n, byte in enumerate(data))


def test_a_websocket_is_a_tunnel_and_is_metered(proxy: Proxy, vendor: Upstream) -> None:
    got: list[bytes] = []

    async def script(asked: Asked, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        reader = writer.reader  # type: ignore[attr-defined]
        for number in (1, 2):
            got.append(await reader.read(1 << 16))
            for event in (
                {"type": "codex.rate_limits", "rate_limits": {"primary": {"used_percent": 10 * number, "window_minutes": 300}}},
                {"type": "response.created", "response": {"id": f"resp_{number}", "usage": None}},
                {"type": "response.completed", "response": {"id": f"resp_{number}", "model": "gpt-5.4", "usage": {
                    "input_tokens": 10 * number, "output_tokens": number, "total_tokens": 11 * number}}},
            ):  # fmt: skip
                data = frame(event, False)
                writer.write(data[:9])
                await writer.drain()
                writer.write(data[9:])
                await writer.drain()

    vendor.script = script
    with proxy.connect() as connection:
        connection.sendall(
            b"GET /openai/v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Extensions: permessage-deflate\r\nsession_id: t1\r\nUser-Agent: codex_cli_rs/1\r\n\r\n"
        )
        assert received(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        for _ in range(2):
            connection.sendall(frame({"type": "response.create", "model": "gpt-5.4", "input": "x" * 300}, True))
            received(connection, b"}}}")
        assert len(proxy.events(2)) == 2  # while the tunnel stands
    assert vendor.asked[0].header("upgrade") == "websocket" and vendor.asked[0].header("sec-websocket-extensions") is None
    assert got[0] == frame({"type": "response.create", "model": "gpt-5.4", "input": "x" * 300}, True)
    found = proxy.events(2)
    assert [(turn["id"], turn["input_tokens"], turn["output_tokens"]) for turn in found] == [
        ("resp_1", 10, 1),
        ("resp_2", 20, 2),
    ]
    assert found[0]["client"] == "codex" and found[0]["alias"] == "codex:t1:10:0:0:1:0"
    assert [meter["used"] for meter in proxy.events(2, "meter")] == [0.1, 0.2]


def test_a_full_disk_keeps_events_until_there_is_room(start: Start, vendor: Upstream, environment: dict[str, str]) -> None:
    log = pathlib.Path(environment["TOKENOPS_HOME"])
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"})
    (log / "events").rmdir() if (log / "events").exists() else None
    (log / "events").write_text("in the way")
    vendor.script = plain(USAGE)
    ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close"))
    assert proxy.process.stderr is not None
    lines = iter(proxy.process.stderr.readline, b"")
    assert next(line for line in lines if b"not to its vendor" not in line).count(b"events are kept in memory") == 1
    (log / "events").unlink()
    proxy.process.terminate()
    proxy.process.wait(MOST)
    assert len(proxy.events()) == 1


def test_requests_one_after_another(proxy: Proxy, vendor: Upstream) -> None:
    count = int(os.environ.get("TOKENOPS_REQUESTS", "1000"))

    async def script(asked: Asked, writer: Writer) -> None:
        name = json.loads(asked.body)["n"]
        body = b'{"id":"c%d","model":"m","usage":{"prompt_tokens":%d,"completion_tokens":1}}' % (name, name + 1)
        await plain(body)(asked, writer)

    vendor.script = script
    with proxy.connect() as connection:
        for name in range(count):
            connection.sendall(post("/openai/v1/chat/completions", b'{"n":%d}' % name))
            assert b'"id":"c%d"' % name in received(connection, b"}}")
    assert vendor.connections == 1
    found = {turn["id"]: turn["input_tokens"] for turn in proxy.events(count)}
    assert found == {f"c{name}": name + 1 for name in range(count)}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="it needs openssl to make a certificate")
def test_tls_is_verified(start: Start, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-keyout",
        "key.pem",
    ]
    subprocess.run(
        [*made, "-out", "cert.pem", "-addext", "subjectAltName=DNS:localhost"], cwd=tmp_path, check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Upstream()
    server.tls = context
    server.script = plain(USAGE)
    with server.running():
        stranger = start({"openai": f"https://localhost:{server.port}"})
        answer = ask(stranger.port, post("/openai/v1/x"))
        assert b" 502 " in answer and b"TLS failed" in answer and not server.asked
        environment["SSL_CERT_FILE"] = str(tmp_path / "cert.pem")
        trusting = start({"openai": f"https://localhost:{server.port}"})
        assert ask(trusting.port, post("/openai/v1/chat/completions", b"{}", "Connection: close")).endswith(USAGE)
        assert ask(start({"openai": f"https://127.0.0.1:{server.port}"}).port, post("/openai/v1/x")).startswith(
            b"HTTP/1.1 502"
        )


def test_status_says_how_to_get_what_is_unknown(proxy: Proxy, vendor: Upstream, environment: dict[str, str]) -> None:
    vendor.script = stream(EVENTS[0], EVENTS[2])
    ask(proxy.port, post("/openai/v1/chat/completions", b'{"stream":true}', "Connection: close"))
    vendor.script = plain(USAGE)
    ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close"))
    proxy.events(2)
    done = subprocess.run(["tok-status", "--json"], env=environment, capture_output=True, check=True)
    [row] = objects(done.stdout)[0]["proxy"]
    assert (row["provider"], row["turns"], row["unknown"]) == ("openai", 2, {"no usage in the answer": 1})
    assert "include_usage" in row["advice"][0]
    shown = subprocess.run(["tok-status", "--table"], env=environment, capture_output=True, check=True).stdout.decode()
    assert "by proxy" in shown and "openai: 1 answer, no usage in the answer" in shown
