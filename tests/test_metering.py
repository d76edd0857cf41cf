"""Counting never disturbs the passage: whatever an answer holds, its bytes go on, and its turn says why it was not counted."""

from __future__ import annotations

import gzip
import json
import random
import socket
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxies import EVENTS, USAGE, Proxy, ask, post, received
from test_readers import JSON
from upstream import Asked, Gate, Upstream, Writer, plain, raw, stream

from conftest import Json, examples, some_of
from tokenops import (
    etiquette,
    events,
    fields,
    http1,
    proxy_exchange,
    proxy_meter,
    proxy_phases,
    proxy_routes,
    untrusted,
    wire_body,
    wire_claude,
    wire_decode,
    wire_limits,
    wire_usage,
)

UPSTREAM = proxy_routes.upstream_of("openai", "http://127.0.0.1:9")
NOW = 1_795_000_000_000
MIB = 1 << 20


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def exchange(path: bytes = b"/v1/chat/completions", method: bytes = b"POST") -> proxy_exchange.Exchange:
    head = http1.Request(
        method, path, (1, 1), [http1.field(b"Host", b"h"), http1.field(b"Content-Type", b"application/json")]
    )
    return proxy_exchange.Exchange(UPSTREAM, head, path, NOW, 1, b"salt")


def answered(kind: str, encoding: str, pieces: list[bytes]) -> tuple[list[Json], proxy_meter.Meter]:
    """The events of an answer that comes in these pieces, counted at once."""
    made = exchange()
    meter = proxy_meter.Meter(made)
    fields = [http1.field(b"Content-Type", kind.encode()), http1.field(b"Content-Encoding", encoding.encode())]
    made.response_head(http1.Response(200, b"OK", (1, 1), fields))
    for piece in pieces:
        if (slices := made.response_data(piece, NOW)) is not None:
            meter.take(slices, len(piece))
        while meter.step():
            pass
    return made.finish(NOW + 5), meter


# Tags.


@pytest.mark.parametrize(
    ("body", "tags"),
    [
        ({"output_config": {"effort": "low"}}, {"effort": "low"}),
        ({"reasoning": {"effort": "xhigh"}}, {"effort": "xhigh"}),
        ({"reasoning_effort": "minimal"}, {"effort": "minimal"}),
        ({"reasoning": {"effort": None}, "output_config": 7, "reasoning_effort": ["high"]}, {}),
        ({"metadata": {"effort": "high"}}, {}),
    ],
)
def test_a_request_states_its_effort(body: Json, tags: Json) -> None:
    made = exchange()
    made.request_data(orjson.dumps({"model": "m", **body}))
    made.request_end()
    (event,) = made.finish(NOW + 5, "cut")
    assert {name: event[name] for name in events.TAGS if name in event} == tags
    assert not fields.fault(event)


@pytest.mark.parametrize(("header", "subagent"), [(b"review", "review"), (b"collab_spawn", "thread_spawn")])
def test_a_request_names_its_subagent_and_a_message_its_effort(header: bytes, subagent: str) -> None:
    """As Codex does, by the name that its rollouts have; each message in a tunnel stands for itself."""
    wanted = [http1.field(b"Host", b"h"), http1.field(b"x-openai-subagent", header)]
    head = http1.Request(b"GET", b"/v1/responses", (1, 1), wanted)
    made = proxy_exchange.Exchange(UPSTREAM, head, b"/v1/responses", NOW, 1, b"salt")
    made.tunnel_head(http1.Response(101, b"", (1, 1), []))
    found = []
    for number, more in enumerate(({"reasoning": {"effort": "high"}}, {})):
        made.client_message({"type": "response.create", "model": "gpt-5.4", **more}, NOW)
        answer = {"id": f"resp_{number}", "model": "gpt-5.4", "usage": {"input_tokens": 5, "output_tokens": 7}}
        found += made.vendor_message({"type": "response.completed", "response": answer}, NOW + 9)
    assert [(event.get("subagent"), event.get("effort")) for event in found] == [(subagent, "high"), (subagent, None)]


# Depth, types and counts.


@pytest.mark.parametrize("depth", [untrusted.DEEPEST, untrusted.DEEPEST + 1, 1000, 100_000])
def test_depth_has_a_bound(depth: int) -> None:
    data = nested(depth)
    if depth <= untrusted.DEEPEST:
        assert untrusted.json_value(data)
        return
    with pytest.raises(events.BadRecord, match=r"nested more than|too many|not JSON"):
        untrusted.json_value(data)


def test_the_number_of_values_has_a_bound() -> None:
    assert len(untrusted.json_value(b"[" + b"1," * 500_000 + b"1]")) == 500_001
    for data in (b"[" + b"{}," * 200_000 + b"1]", b"[" + b"1," * 900_000 + b"1]"):
        with pytest.raises(events.BadRecord, match="too many values"):
            untrusted.json_value(data)


SHAPES: list[tuple[str, bytes]] = [
    ("text/event-stream", b'data: {"id":"p","model":"m","type":%b,"usage":{"prompt_tokens":3}}\n\n'),
    ("application/x-ndjson", b'{"id":"p","model":"m","type":%b,"usage":{"prompt_tokens":3}}\n'),
    ("application/json", b'{"id":"p","model":"m","type":%b,"usage":{"prompt_tokens":3,"completion_tokens":4}}'),
    ("application/json", b'{"id":"p","usage":{"prompt_tokens":3,"prompt_tokens_details":%b}}'),
    ("application/json", b'[{"id":"p","usageMetadata":{"promptTokenCount":%b}},'),
]


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_what_is_nested_too_deeply_is_unknown_and_says_so(kind: str, shape: bytes) -> None:
    for depth in (150, 1000, 5000):
        [turn], _ = answered(kind, "", [shape % nested(depth)])
        assert (turn["usage"], turn["turns"]) == ("unknown", 1) and "input_tokens" not in turn
        assert "nested" in turn["usage_reason"] or "no usage" in turn["usage_reason"]


def test_counts_beside_what_is_not_read_are_partial() -> None:
    deep = b'data: {"type":%b,"usage":{"prompt_tokens":3}}\n\n' % nested(500)
    [turn], _ = answered("text/event-stream", "", [EVENTS[0], deep, EVENTS[1]])
    assert (turn["output_tokens"], turn["usage"]) == (7, "partial") and "nested" in turn["usage_reason"]
    harmless = b'data: {"type":%b}\n\n' % nested(500)  # holds no counts
    [turn], _ = answered("text/event-stream", "", [EVENTS[0], harmless, EVENTS[1]])
    assert turn["output_tokens"] == 7 and "usage" not in turn


@pytest.mark.parametrize("count", [2**64, 10**30, -1, 1 << 53, True, "7", 1.5, [], {}], ids=str)
def test_absurd_counts_are_no_counts(count: Any) -> None:
    for usage in (
        {"prompt_tokens": count, "completion_tokens": 2},
        {"input_tokens": 1, "cache_read_input_tokens": 0, "output_tokens": count},
        {"input_tokens": 1, "output_tokens": 2, "iterations": [{"type": "message", "output_tokens": count}]},
        {"inputTokens": 1, "outputTokens": count},
    ):
        reading = wire_usage.Answer("openai")
        reading.take({"id": "a", "type": "message", "usage": usage})
        for each in reading.usages():
            assert all(type(value) is int and 0 < value < 1 << 53 for value in each.counts.values()), usage
            if count in (2**64, 10**30, -1, 1 << 53, "7", 1.5):
                assert each.state == "unknown", usage
    if count in (2**64, -1, 1 << 53):
        with pytest.raises(events.BadRecord):
            wire_claude.counts_of({"input_tokens": count})


def test_sums_of_counts_stay_exact() -> None:
    parts = [{"type": "message", "output_tokens": (1 << 53) - 1}] * 3
    reading = wire_usage.Answer("anthropic")
    reading.take({"type": "message", "id": "a", "usage": {"input_tokens": 1, "output_tokens": 2, "iterations": parts}})
    assert [each.state for each in reading.usages()] == ["unknown"]


DEEP = st.sampled_from(
    [json.loads(nested(120)), json.loads(b'{"a":' * 120 + b"1" + b"}" * 120), 10**400, -(10**18), "x" * 300]
)
KEYS = (
    *("type", "event_type", "id", "responseId", "model", "modelVersion", "usage", "usageMetadata", "message", "response"),
    *("error", "session", "meta", "stats", "result", "choices", "candidates", "delta", "status", "headers", "rate_limits"),
    *("service_tier", "custom_id"),
)


@examples(300)
@given(members=st.dictionaries(st.sampled_from(KEYS), st.one_of(JSON, DEEP), max_size=6), kind=st.sampled_from(
    ["message_start", "message_delta", "response.completed", "response.failed", "error", "codex.rate_limits", None]))  # fmt: skip
def test_any_value_in_any_place(members: Json, kind: str | None) -> None:
    """Neither an answer's reading nor a tunnel's raises anything, and what comes of it is a valid record."""
    value = {**members, **({"type": kind} if kind else {})}
    reading = wire_usage.Answer("openai")
    reading.take(value)
    reading.usages()
    made = exchange(b"/v1/realtime", b"GET")
    made.tunnel_head(http1.Response(101, b"", (1, 1), []))
    made.client_message(value, NOW)
    rows = [*made.vendor_message(value, NOW), *made.finish(NOW)]
    assert [fields.fault(row) for row in rows if fields.fault(row)] == []


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
}
KINDS = ("text/event-stream", "application/json", "application/x-ndjson", "", "text/html", "application/stream+json")
PIECES = (
    b"data: ",
    b"\n\n",
    b"\r",
    b"{",
    b"}",
    b"[",
    b'"usage":{',
    b'"type":',
    b'"prompt_tokens":9,',
    b"\x1f\x8b\x08",
    b'"id":"',
    b'"error":',
)


@examples(300)
@given(chance=st.randoms(use_true_random=False), noise=st.binary(max_size=40), kind=st.sampled_from(KINDS))
def test_any_bytes_in_any_pieces(chance: random.Random, noise: bytes, kind: str) -> None:
    parts = [chance.choice((*PIECES, noise, nested(200), USAGE, *EVENTS)) for _ in range(chance.randint(1, 30))]
    encoding = chance.choice(list(PACK))
    data = PACK[encoding](b"".join(parts))
    if chance.random() < 0.3:
        data = data[: chance.randrange(len(data) + 1)] + noise
    pieces = []
    while data:
        size = chance.choice((1, 3, 20, 1000))
        pieces.append(data[:size])
        data = data[size:]
    rows, _ = answered(kind, encoding, pieces)
    assert rows and not any(map(fields.fault, rows))
    for row in rows:
        counted = any(row.get(name) for name in events.TOKENS)
        assert "errors" in row or counted or row.get("usage") or row.get("requests") is not None or not counted


def test_a_fault_of_the_counting_itself_is_unknown_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last resort: whatever raises, where nothing should."""

    def broken(*_: object) -> Iterator[None]:
        raise RecursionError

    monkeypatch.setattr(wire_body.Sse, "feed", broken)
    [turn], meter = answered("text/event-stream", "", EVENTS)
    assert (turn["usage"], turn["usage_reason"]) == ("unknown", "metering failed: RecursionError") and not meter.work
    monkeypatch.setattr(proxy_exchange.Exchange, "_attribution", broken)
    [turn], _ = answered("application/json", "", [USAGE])
    assert (turn["usage"], turn["model"]) == ("unknown", "unknown") and not fields.fault(turn)


def test_what_vendors_answer_to_pollers_has_the_same_bounds() -> None:
    """The reports that tok-poll asks for come through the same guard."""
    for body in (b'{"data":%b}' % nested(1000), b"[" + b"{}," * 200_000 + b"{}]"):
        with pytest.raises(etiquette.Trouble):
            etiquette.object_of(etiquette.Answer(200, {"content-type": "application/json"}, body), NOW)
    headers = {"x-codex-primary-used-percent": "5", "x-codex-primary-window-minutes": "1e14"}
    assert not list(wire_limits.readings("openai", headers, "2026-11-21T09:30:00.000Z"))


# Size and time.


UNPACKED, SSE, JSON_TYPE = 24 * MIB, "text/event-stream", "application/json"


def pings() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b'data: {"type":"ping"}\n\n' * 10_000) for _ in range(100)) + packer.flush()


# Type, encoding and bytes of answers that take a thousand times what came, or a long time; packed by the test that needs them.
BOMBS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "small events": (SSE, "gzip", pings),
    "lines without an event's end": (SSE, "gzip", lambda: gzip.compress(b"data:\n" * (UNPACKED // 6), 9)),
    "empty lines": (SSE, "gzip", lambda: gzip.compress(b"\n" * UNPACKED, 9)),
    "blanks": (JSON_TYPE, "gzip", lambda: gzip.compress(b" " * UNPACKED, 9)),
    "zeros": (JSON_TYPE, "gzip", lambda: gzip.compress(b"0" * UNPACKED, 9)),
    "deflate": (JSON_TYPE, "deflate", lambda: zlib.compress(b"[" * UNPACKED, 9)),
    "brotli": (SSE, "br", lambda: brotli.compress(b"data: x\n" * (UNPACKED // 8))),
    "members": (SSE, "gzip", lambda: gzip.compress(b"\n" * MIB, 9) * 24),
}


@pytest.mark.parametrize("name", some_of(BOMBS, 2))
def test_an_answer_that_unpacks_to_far_too_much_is_given_up(name: str) -> None:
    kind, encoding, packed = BOMBS[name]
    data = packed()
    tracemalloc.start()
    [turn], _ = answered(kind, encoding, [data[at : at + 65_536] for at in range(0, len(data), 65_536)])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (turn["usage"], turn["usage_reason"]) == ("unknown", wire_body.TOO_LARGE)
    assert most < 16 * MIB


PLAIN: dict[str, tuple[str, bytes]] = {
    "an event that never ends": ("text/event-stream", b"data:\n" * 11_000),
    "lone CR": ("text/event-stream", b"\r" * 65_536),
    "an event in one line": ("text/event-stream", b"data: " + b"x" * 65_530),
    "comments": ("text/event-stream", b":\n\n" * 21_000),
    "blanks": ("application/json", b" " * 65_536),
    "open arrays": ("application/json", b"[" * 65_536),
    "a line that never ends": ("application/x-ndjson", b"{" * 65_536),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_kept_of_an_answer_has_a_bound(name: str) -> None:
    """Sixteen megabytes as they come, not packed."""
    kind, piece = PLAIN[name]
    tracemalloc.start()
    # Half a megabyte of comments is 170,000 events, so fewer of them show as much.
    [turn], _ = answered(kind, "", [piece] * (8 if name == "comments" else 256))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert turn["usage"] == "unknown" and turn["usage_reason"] in (wire_body.TOO_LARGE, "no usage in the answer")
    assert most < 30 * MIB


def test_work_is_done_in_slices() -> None:
    """Between two stops at most 64 KiB come out of a decoder, and some dozens of objects are read."""
    event = b'data: {"usage":{"prompt_tokens":1,"completion_tokens":1},"choices":[]}\n\n'
    reading = wire_usage.Answer("openai")
    body = wire_body.Body("text/event-stream", "gzip", reading)
    unpacked, taken, stops = 0, 0, 0
    data = gzip.compress(event * 20_000)
    slices = body.slices(data)
    for _ in slices:
        assert body.unpacked - unpacked <= wire_decode.PIECE and reading.taken - taken <= 64
        unpacked, taken, stops = body.unpacked, reading.taken, stops + 1
    assert stops > 300 and reading.taken == 20_000


def test_frames_are_looked_at_in_slices() -> None:
    tunnel = proxy_phases.Tunnel(None)  # type: ignore[arg-type]
    stops = sum(1 for _ in tunnel.client_slices(b"\x89\x00" * 1000, NOW))  # pings
    assert 25 <= stops <= 40


def test_exchanges_take_turns_and_the_rest_is_given_up() -> None:
    later: list[Callable[[], None]] = []
    over: list[proxy_meter.Ended] = []
    backlog = proxy_meter.Backlog(later.append, over.append)
    meters = [proxy_meter.Meter(exchange()) for _ in range(2)]
    order: list[int] = []

    def work(name: int) -> Iterator[None]:
        for _ in range(3):
            order.append(name)
            yield

    for name, meter in enumerate(meters):
        assert meter.take(work(name), 10)
        backlog.add(meter)
        backlog.end(meter, proxy_meter.Ended(meter.exchange, NOW, ""))
    assert not over and len(later) == 1  # one slice each has been done, and one turn of the loop is asked for
    while later:
        later.pop(0)()
    assert order == [0, 1, 0, 1, 0, 1]
    assert [each.exchange for each in over] == [meter.exchange for meter in meters]
    endless = proxy_meter.Meter(exchange())

    def forever() -> Iterator[None]:
        while True:
            yield

    assert endless.take(forever(), 1)
    while not endless.exchange.lost:
        endless.take(forever(), MIB)
    assert endless.waiting == 0 and not endless.work and endless.exchange.lost == wire_body.TOO_LARGE
    [turn] = endless.exchange.finish(NOW)
    assert (turn["usage"], turn["usage_reason"]) == ("unknown", wire_body.TOO_LARGE)


def test_what_all_answers_keep_has_a_bound() -> None:
    held = [wire_body.Kept() for _ in range(40)]
    for _ in range(4 * 16):
        for kept in held:
            kept.add(b"x" * 65_536)
    assert sum(len(kept.data) for kept in held) < wire_body.MOST_OF_ALL + 40 * (768 << 10)
    assert any(kept.whole for kept in held) and not all(kept.whole for kept in held)
    held.clear()
    del kept
    again = wire_body.Kept()
    again.add(b"x" * (4 * MIB))
    assert again.whole


# With sockets.


def test_the_bytes_go_on_whatever_an_answer_says(proxy: Proxy, vendor: Upstream) -> None:
    deep = b'data: {"id":"p","model":"m","type":%b}\n\n' % nested(1000)
    words = [b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'] * 5
    vendor.script = stream(deep, *words)
    answer = ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close"))
    assert answer.count(b"word") == 5 and answer.endswith(b"0\r\n\r\n")
    vendor.script = plain(b'{"id":"x","model":"m","type":%b,"usage":{"prompt_tokens":3}}' % nested(1000))
    assert b'"prompt_tokens":3' in ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close"))
    vendor.script = plain(USAGE)
    assert ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close")).endswith(USAGE)
    turns = proxy.events(3)
    assert [turn.get("usage") for turn in turns] == ["unknown", "unknown", None]
    assert all("nested" in turn["usage_reason"] for turn in turns[:2])


def frame(message: bytes) -> bytes:
    size = bytes([len(message)]) if len(message) < 126 else b"\x7e" + len(message).to_bytes(2, "big")
    return b"\x81" + size + message


UPGRADE = b"GET /openai/v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def tunnelled(proxy: Proxy, vendor: Upstream, *messages: bytes) -> bytes:
    vendor.script = raw(SWITCH + b"".join(map(frame, messages)))
    return ask(proxy.port, UPGRADE)


def test_the_messages_go_on_whatever_they_say(proxy: Proxy, vendor: Upstream) -> None:
    done = b'{"type":"response.done","response":{"id":"resp_%d","model":"m","usage":{"input_tokens":5,"output_tokens":2}}}'
    odd = [
        b'{"type":{}}',
        b'{"type":[]}',
        b'{"type":%b}' % nested(1000),
        b'{"type":"error","error":%b}' % nested(90),
        b"[",
        b"7",
    ]
    answer = tunnelled(proxy, vendor, done % 1, *odd, done % 2, b'{"type":"after"}')
    assert answer.endswith(b'{"type":"after"}')
    assert [turn["id"] for turn in proxy.events(2)] == ["resp_1", "resp_2"]


def test_a_bomb_beside_others(proxy: Proxy, vendor: Upstream) -> None:
    """Others are answered while one answer is still being counted, and all are written."""
    kind, encoding, packed = BOMBS["small events"]
    data = packed()
    gate = Gate()

    async def script(asked: Asked, writer: Writer) -> None:
        if b"bomb" in asked.head.target:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (
                kind.encode(), encoding.encode(), len(data)))  # fmt: skip
            writer.write(data[:-1])
            await gate.passed()
            writer.write(data[-1:])
        else:
            await plain(USAGE.replace(b"chatcmpl-1", b"c%d" % len(vendor.asked)))(asked, writer)

    vendor.script = script
    with proxy.connect() as slow:
        slow.sendall(post("/openai/v1/bomb", b"{}", "Connection: close"))
        slow.recv(1000)
        for _ in range(20):
            assert ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close")).endswith(b"}}}")
        gate.open()
        assert received(slow).endswith(data[-1:])
    turns = proxy.events(21)
    reasons = [turn["usage_reason"] for turn in turns if turn.get("usage") == "unknown"]
    assert reasons == [wire_body.TOO_LARGE] and sum("output_tokens" in turn for turn in turns) == 20


def test_a_switch_that_nobody_asked_for_is_no_answer(proxy: Proxy, vendor: Upstream) -> None:
    vendor.script = raw(SWITCH, close=False)
    answer = ask(proxy.port, post("/openai/v1/chat/completions"))
    assert answer.startswith(b"HTTP/1.1 502 ") and b"nobody asked for" in answer
    assert proxy.events(1)[0]["errors"] == 1


def test_an_upload_waits_for_its_upstream(start: Callable[..., Proxy]) -> None:
    """Before there is a connection, little of a body is taken in."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        held = [socket.socket() for _ in range(4)]  # the listener's queue is full: no connection is made
        for each in held:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        proxy = start({"openai": f"http://127.0.0.1:{port}"})
        head = b"POST /openai/v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000000\r\n\r\n"
        with proxy.connect() as client:
            client.sendall(head)
            client.settimeout(1)
            sent = 0
            with pytest.raises(TimeoutError):
                while True:
                    sent += client.send(b"x" * MIB)
        assert sent < 32 * MIB  # what the system's own buffers hold
        for each in held:
            each.close()
