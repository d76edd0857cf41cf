"""The proxy without sockets: whatever comes from either side, in whatever pieces, it neither fails nor loses its place."""

from __future__ import annotations

import itertools
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from proxies import EVENTS, USAGE, post
from test_http1 import BAD, GOOD
from upstream import chunk, head

from conftest import Json, examples
from tokenops import events, http1, proxy, proxy_exchange, proxy_savings

UPSTREAM = proxy.upstream_of("openai", "http://127.0.0.1:9/base")


NOTHING = proxy_savings.Options()


class Recorder:
    """An `Out` that keeps what it is told, and checks the order in which it is told."""

    def __init__(self, options: proxy_savings.Options = NOTHING) -> None:
        self.sent, self.asked = b"", b""
        self.closed = self.connected = self.wanted = False
        self.found: list[Json] = []
        cache = proxy_savings.Cache(options) if options.cache else None
        hosts = frozenset(("h", "127.0.0.1", "localhost"))
        numbers = itertools.count().__next__
        self.connection = proxy.Connection(
            self, proxy.Settings({b"openai": UPSTREAM}, hosts, b"salt", lambda method, path: None, numbers, options, cache)
        )

    def client(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def close_client(self) -> None:
        self.closed = True

    def abort_client(self) -> None:
        self.closed = True

    def connect(self, upstream: proxy.Upstream) -> None:
        assert not self.wanted and not self.connected
        self.wanted = True

    def upstream(self, data: bytes) -> None:
        assert self.connected
        self.asked += data

    def release(self, reusable: bool) -> None:
        self.wanted = self.connected = False

    def events(self, found: list[Json]) -> None:
        self.found += found

    def ended(self, one: proxy_exchange.Exchange, now: int, error: str) -> None:
        self.found += one.finish(now, error)

    def now(self) -> int:
        return 1_795_000_000_000

    def ready(self) -> None:
        if self.wanted:
            self.wanted, self.connected = False, True
            self.connection.upstream_ready()


REQUESTS = [
    post("/openai/v1/chat/completions"),
    post("/openai/v1/x", b"", "Expect: 100-continue"),
    *GOOD,
    *(one for one, _, _ in BAD if len(one) < 500),
]
ANSWERS = [
    head(200, ("Content-Length", str(len(USAGE)))) + USAGE,
    head(200, ("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")) + b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + head(204),
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x02{}\x88\x00",
    head(500, ("Content-Length", "2")) + b"{}",
    b"garbage\r\n\r\n",
]  # fmt: skip


@examples(300)
@given(chance=st.randoms(use_true_random=False), noise=st.binary(max_size=6))
def test_anything_from_either_side(chance: random.Random, noise: bytes) -> None:
    def piece(choices: list[bytes]) -> bytes:
        data = chance.choice(choices)
        at = chance.randrange(len(data) + 1)
        return chance.choice([data, data[:at], data[at:], data[:at] + noise + data[at:], noise])

    out = Recorder(proxy_savings.Options(cache=chance.random() < 0.3, include_usage=chance.random() < 0.3))
    for _ in range(chance.randint(1, 25)):
        what = chance.random()
        if what < 0.4 and not out.closed:
            out.connection.client_data(piece(REQUESTS))
        elif what < 0.6:
            out.ready()
        elif what < 0.9 and out.connected:
            out.connection.upstream_data(piece(ANSWERS))
        elif what < 0.94 and out.connected:
            out.connected = False
            out.connection.upstream_gone()
        elif what < 0.96 and out.wanted:
            out.wanted = False
            out.connection.upstream_failed(502, "cannot connect")
        elif what > 0.99 and not out.closed:
            out.closed = True
            out.connection.client_gone()
        assert out.connection.idle or out.wanted or out.connected or out.connection.held is not None
    for event in out.found:
        assert not events.fault(event), events.fault(event)


@examples(60)
@given(up=st.lists(st.integers(1, 90), max_size=12), down=st.lists(st.integers(1, 90), max_size=12))
def test_any_split_gives_the_same(up: list[int], down: list[int]) -> None:
    request, answer = post("/openai/v1/chat/completions", b'{"model":"gpt-5.4"}', "X-Tokenops-Session-Id: s"), ANSWERS[1]

    def passed(sizes_up: list[int], sizes_down: list[int]) -> tuple[Any, ...]:
        out = Recorder()
        for data, sizes, give in (
            (request, sizes_up, out.connection.client_data),
            (answer, sizes_down, out.connection.upstream_data),
        ):
            rest = data
            for size in [*sizes, len(data)]:
                if rest:
                    give(rest[:size])
                rest = rest[size:]
                out.ready()
        return out.sent, out.asked, out.found

    whole = passed([], [])
    assert passed(up, down) == whole
    assert whole[0] == answer and whole[1].startswith(b"POST /base/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:9\r\n")
    assert b"Tokenops" not in whole[1] and whole[2][0]["output_tokens"] == 7


def test_a_body_passes_while_it_comes() -> None:
    out = Recorder()
    out.connection.client_data(b"POST /openai/x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
    out.ready()
    assert out.asked.endswith(b"\r\n\r\n12345")
    out.connection.client_data(b"67890" + GOOD[0])
    assert out.asked.endswith(b"\r\n\r\n1234567890")
    assert not out.connection.full
    out.connection.client_data(b"x" * (http1.MOST_HEAD + 1))
    assert out.connection.full
