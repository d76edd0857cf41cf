"""The proxy without sockets: its table of states, walked; and whatever comes from either side, in whatever pieces, it
neither fails nor loses its place."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxies import EVENTS, USAGE, post
from test_http1 import BAD, GOOD
from upstream import chunk, head

from conftest import Json, examples
from tokenops import fields, http1, proxy, proxy_exchange, proxy_meter, proxy_phases, proxy_routes, proxy_savings
from tokenops.proxy_states import TRANSITIONS, IllegalTransition, State, Trigger

UPSTREAM = proxy_routes.upstream_of("openai", "http://127.0.0.1:9/base")
NOTHING = proxy_savings.Options()
CACHE = proxy_savings.Options(cache=True)


class Site:
    """A dashboard that owns one path."""

    def owns(self, path: bytes) -> bool:
        return path == b"/dashboard"

    def answer(self, head: http1.Request) -> proxy_routes.Reply:
        raise AssertionError("it is asked elsewhere")

    def rest(self) -> bool:
        return False


class Watched(proxy.Connection):
    """A connection whose steps can be looked at afterwards."""

    steps: list[tuple[State, Trigger, State]]

    def move(self, trigger: Trigger, phase: proxy_phases.Phase) -> None:
        before = self.state
        super().move(trigger, phase)
        self.__dict__.setdefault("steps", []).append((before, trigger, self.state))


class Recorder:
    """`Effects` that keep what they are told, and check the order in which they are told."""

    def __init__(self, options: proxy_savings.Options = NOTHING) -> None:
        self.sent, self.asked = b"", b""
        self.closed = self.cut = self.connected = self.wanted = False
        self.site_requests = 0
        self.events: list[Json] = []
        cache = proxy_savings.Cache(options) if options.cache else None
        hosts = frozenset(("h", "127.0.0.1", "localhost"))
        local = proxy_routes.Local("1.0", lambda: 0.0).answer
        numbers = itertools.count().__next__
        upstreams = {b"openai": UPSTREAM}
        self.connection = Watched(
            self, proxy_routes.Settings(upstreams, hosts, b"salt", local, numbers, options, cache, site=Site())
        )
        self.connection.steps = []

    def send_to_client(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def close_client(self) -> None:
        self.closed = True

    def abort_client(self) -> None:
        self.closed = self.cut = True

    def connect(self, upstream: proxy_exchange.Upstream) -> None:
        assert not self.wanted and not self.connected
        self.wanted = True

    def send_to_upstream(self, data: bytes) -> None:
        assert self.connected
        self.asked += data

    def release(self, reusable: bool) -> None:
        self.wanted = self.connected = False

    def record(self, events: list[Json]) -> None:
        self.events += events

    def catch_up(self, meter: proxy_meter.Meter) -> None:
        while meter.step():
            pass

    def finish(self, meter: proxy_meter.Meter, now: int, error: str) -> None:
        self.events += meter.exchange.finish(now, error)

    def ask_site(self, head: http1.Request) -> None:
        self.site_requests += 1

    def now(self) -> int:
        return 1_795_000_000_000

    # What happens to a connection.

    def client(self, data: bytes) -> Recorder:
        self.connection.client_data(data)
        return self

    def ready(self) -> Recorder:
        if self.wanted:
            self.wanted, self.connected = False, True
            self.connection.upstream_ready()
        return self

    def upstream(self, data: bytes) -> Recorder:
        self.connection.upstream_data(data)
        return self

    def upstream_gone(self) -> Recorder:
        self.connected = False
        self.connection.upstream_gone()
        return self

    def unreachable(self, status: int = 502) -> Recorder:
        self.wanted = False
        self.connection.upstream_failed(status, "cannot connect")
        return self

    def site_answers(self) -> Recorder:
        self.site_requests -= 1
        self.connection.site_answered(proxy_routes.Reply(200, [], b"page"))
        return self

    def client_leaves(self) -> Recorder:
        self.closed = True
        self.connection.client_gone()
        return self


ASK = post("/openai/v1/chat/completions")
EMBED = post("/openai/v1/embeddings", b'{"model":"e","input":"x"}')
CHUNKED = b"POST /openai/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
PARTLY = EMBED[:-5]
PAGE = b"GET /dashboard HTTP/1.1\r\nHost: h\r\n\r\n"
ANSWER = head(200, ("Content-Length", str(len(USAGE)))) + USAGE
STREAM = (
    head(200, ("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked"))
    + b"".join(map(chunk, EVENTS))
    + b"0\r\n\r\n"
)
UPGRADE = b"GET /openai/v1/realtime HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def connecting() -> Recorder:
    return Recorder().client(ASK)


def waiting() -> Recorder:
    return connecting().ready()


def answering() -> Recorder:
    return waiting().upstream(ANSWER[:-9])


def tunnel() -> Recorder:
    return Recorder().client(UPGRADE).ready().upstream(SWITCH)


def collecting() -> Recorder:
    return Recorder(CACHE).client(PARTLY)


# One way into each state,
STATES: dict[State, Callable[[], Recorder]] = {
    State.IDLE: Recorder,
    State.AT_SITE: lambda: Recorder().client(PAGE),
    State.COLLECTING: collecting,
    State.CONNECTING: connecting,
    State.WAITING: waiting,
    State.ANSWERING: answering,
    State.TUNNEL: tunnel,
    State.CLOSED: lambda: Recorder().client_leaves(),
}
# and a case for each row of the table.
WALK: dict[tuple[State, Trigger], Callable[[], Recorder]] = {
    (State.IDLE, Trigger.SITE_REQUEST): STATES[State.AT_SITE],
    (State.IDLE, Trigger.COLLECT): collecting,
    (State.IDLE, Trigger.REQUEST): connecting,
    (State.IDLE, Trigger.LAST_ANSWER): lambda: Recorder().client(b"garbage\r\n\r\n"),
    (State.IDLE, Trigger.CLIENT_LEFT): STATES[State.CLOSED],
    (State.AT_SITE, Trigger.SITE_ANSWER): lambda: Recorder().client(PAGE).site_answers(),
    (State.AT_SITE, Trigger.CLIENT_LEFT): lambda: Recorder().client(PAGE).client_leaves(),
    (State.COLLECTING, Trigger.COLLECTED): lambda: Recorder(CACHE).client(EMBED),
    (State.COLLECTING, Trigger.CACHE_HIT): lambda: Recorder(CACHE).client(EMBED).ready().upstream(ANSWER).client(EMBED),
    (State.COLLECTING, Trigger.CLIENT_LEFT): lambda: collecting().client_leaves(),
    (State.CONNECTING, Trigger.CONNECTED): waiting,
    (State.CONNECTING, Trigger.UNREACHABLE): lambda: connecting().unreachable(),
    (State.CONNECTING, Trigger.BAD_BODY): lambda: Recorder().client(CHUNKED + b"no size\r\n"),
    (State.CONNECTING, Trigger.CLIENT_LEFT): lambda: connecting().client_leaves(),
    (State.WAITING, Trigger.ANSWER_BEGINS): answering,
    (State.WAITING, Trigger.SWITCHED): tunnel,
    (State.WAITING, Trigger.NO_ANSWER): lambda: waiting().upstream_gone(),
    (State.WAITING, Trigger.BAD_BODY): lambda: Recorder().client(CHUNKED).ready().client(b"no size\r\n"),
    (State.WAITING, Trigger.CLIENT_LEFT): lambda: waiting().client_leaves(),
    (State.ANSWERING, Trigger.ANSWER_ENDS): lambda: waiting().upstream(ANSWER),
    (State.ANSWERING, Trigger.ANSWER_CUT): lambda: answering().upstream_gone(),
    (State.ANSWERING, Trigger.BAD_BODY): lambda: (
        Recorder().client(CHUNKED).ready().upstream(ANSWER[:-9]).client(b"no size\r\n")
    ),
    (State.ANSWERING, Trigger.CLIENT_LEFT): lambda: answering().client_leaves(),
    (State.TUNNEL, Trigger.TUNNEL_ENDS): lambda: tunnel().upstream_gone(),
    (State.TUNNEL, Trigger.CLIENT_LEFT): lambda: tunnel().client_leaves(),
}


@pytest.mark.parametrize(("state", "trigger"), TRANSITIONS, ids=lambda value: value.name)
def test_every_row_of_the_table_is_walked(state: State, trigger: Trigger) -> None:
    out = WALK[state, trigger]()
    assert (state, trigger, TRANSITIONS[state, trigger]) in out.connection.steps
    assert_in_table(out)


def test_the_walk_has_no_row_that_the_table_lacks() -> None:
    assert WALK.keys() == TRANSITIONS.keys()
    assert {trigger for _, trigger in WALK} == set(Trigger)
    assert {state for state, _ in WALK} | {State.CLOSED} == set(State) == STATES.keys()
    for state, arrive in STATES.items():
        assert arrive().connection.state is state


def assert_in_table(out: Recorder) -> None:
    """Each step is one of the table, and begins where the one before it ended."""
    state = State.IDLE
    for before, trigger, after in out.connection.steps:
        assert before is state and TRANSITIONS[before, trigger] is after
        state = after
    assert out.connection.state is state and type(out.connection.phase) is state.value
    if state is State.CLOSED:
        assert out.closed


@pytest.mark.parametrize("state", State, ids=lambda value: value.name)
def test_no_other_step_is_possible(state: State) -> None:
    call = connecting().connection.phase
    assert isinstance(call, proxy_phases.Connecting)
    phases: dict[type, proxy_phases.Phase] = {
        type(phase): phase for phase in (arrive().connection.phase for arrive in STATES.values())
    }
    for trigger, phase in itertools.product(Trigger, phases.values()):
        connection = STATES[state]().connection
        target = TRANSITIONS.get((state, trigger))
        if target is None or target.value is not type(phase):
            with pytest.raises(IllegalTransition, match=f"the connection is {state.name}, and {trigger.value[:20]}"):
                connection.move(trigger, phase)
            assert connection.state is state
        else:
            connection.move(trigger, phase)
            assert connection.state is target and connection.phase is phase


# News that can only come in some states: anywhere else it is a fault of whoever brings it.
NEWS: dict[str, tuple[Callable[[proxy.Connection], None], set[State]]] = {
    "ready": (lambda connection: connection.upstream_ready(), {State.CONNECTING}),
    "failed": (lambda connection: connection.upstream_failed(502, "x"), {State.CONNECTING}),
    "data": (lambda connection: connection.upstream_data(b"x"), {State.WAITING, State.ANSWERING, State.TUNNEL}),
    "gone": (lambda connection: connection.upstream_gone(), {State.WAITING, State.ANSWERING, State.TUNNEL}),
    "site": (
        lambda connection: connection.site_answered(proxy_routes.Reply(200, [], b"")),
        {State.AT_SITE, State.CLOSED},  # the site cannot know that the client has left
    ),
    "slow": (lambda connection: connection.timed_out(), {State.IDLE}),
}


@pytest.mark.parametrize("state", State, ids=lambda value: value.name)
@pytest.mark.parametrize("name", NEWS)
def test_news_at_the_wrong_time_is_an_error(name: str, state: State) -> None:
    bring, expected = NEWS[name]
    out = STATES[state]()
    out.connected = out.connected or state in expected
    if state in expected:
        bring(out.connection)
    else:
        with pytest.raises(IllegalTransition):
            bring(out.connection)


REQUESTS = [
    ASK,
    EMBED,
    PAGE,
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"no size\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /nobody HTTP/1.1\r\nHost: h\r\n\r\n",
    post("/openai/v1/chat/completions", b'{"stream":true,"temperature":0}'),
    post("/openai/v1/x", b"", "Expect: 100-continue"),
    *GOOD,
    *(one for one, _, _ in BAD if len(one) < 500),
]
ANSWERS = [
    ANSWER,
    STREAM,
    b"HTTP/1.1 100 Continue\r\n\r\n" + head(204),
    SWITCH + b"\x81\x02{}\x88\x00",
    head(500, ("Content-Length", "2")) + b"{}",
    head(200) + USAGE,
    b"garbage\r\n\r\n",
]


@examples(300)
@given(chance=st.randoms(use_true_random=False), noise=st.binary(max_size=6))
def test_anything_from_either_side(chance: random.Random, noise: bytes) -> None:
    def piece(choices: list[bytes]) -> bytes:
        data = chance.choice(choices)
        at = chance.randrange(len(data) + 1)
        return chance.choice([data, data, data[:at], data[at:], data[:at] + noise + data[at:], noise])

    out = Recorder(proxy_savings.Options(cache=chance.random() < 0.3, include_usage=chance.random() < 0.3))
    for _ in range(chance.randint(1, 25)):
        what = chance.random()
        if what < 0.4 and not out.closed:
            out.client(piece(REQUESTS))
        elif what < 0.6:
            out.ready()
        elif what < 0.87 and out.connected:
            out.upstream(piece(ANSWERS))
        elif what < 0.90 and out.connected:
            out.upstream_gone()
        elif what < 0.93 and out.site_requests:
            out.site_answers()
        elif what < 0.95 and out.wanted:
            out.unreachable(chance.choice((502, 504)))
        elif what > 0.99 and not out.closed:
            out.client_leaves()
        state = out.connection.state
        assert out.wanted is (state is State.CONNECTING)
        assert out.connected is (state in (State.WAITING, State.ANSWERING, State.TUNNEL))
    assert_in_table(out)
    for event in out.events:
        assert not fields.fault(event), fields.fault(event)


@examples(60)
@given(up=st.lists(st.integers(1, 90), max_size=12), down=st.lists(st.integers(1, 90), max_size=12))
def test_any_split_gives_the_same(up: list[int], down: list[int]) -> None:
    request = post("/openai/v1/chat/completions", b'{"model":"gpt-5.4"}', "X-Tokenops-Session-Id: s")

    def passed(sizes_up: list[int], sizes_down: list[int]) -> tuple[Any, ...]:
        out = Recorder()
        for data, sizes, give in (
            (request, sizes_up, out.connection.client_data),
            (STREAM, sizes_down, out.connection.upstream_data),
        ):
            rest = data
            for size in [*sizes, len(data)]:
                if rest:
                    give(rest[:size])
                rest = rest[size:]
                out.ready()
        return out.sent, out.asked, out.events, out.connection.steps

    whole = passed([], [])
    assert passed(up, down) == whole
    added = b"".join(
        b"%b: %b\r\n" % field[1:] for field in proxy_routes.harmless(http1.Response(200, b"", (1, 1), [])).headers
    )
    assert whole[0].replace(added, b"") == STREAM  # a site is served beside
    assert whole[1].startswith(b"POST /base/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:9\r\n")
    assert b"Tokenops" not in whole[1] and whole[2][0]["output_tokens"] == 7


def test_a_body_passes_while_it_comes() -> None:
    out = Recorder()
    out.client(b"POST /openai/x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345").ready()
    assert out.asked.endswith(b"\r\n\r\n12345")
    out.client(b"67890" + GOOD[0])
    assert out.asked.endswith(b"\r\n\r\n1234567890")
    assert not out.connection.full
    out.client(b"x" * (http1.MOST_HEAD + 1))
    assert out.connection.full


def test_bytes_for_the_upstream_wait_for_its_connection() -> None:
    out = Recorder().client(b"POST /openai/x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345").client(b"67890")
    assert out.asked == b"" and out.connection.state is State.CONNECTING
    assert out.ready().asked.endswith(b"\r\n\r\n1234567890")


def test_a_request_behind_an_answer_from_the_cache_is_answered_too() -> None:
    out = Recorder(CACHE).client(EMBED).ready().upstream(ANSWER)
    out.sent = b""
    out.client(EMBED + b"GET /version HTTP/1.1\r\nHost: h\r\n\r\n")
    assert out.sent.count(b"HTTP/1.1 200 ") == 2 and b'"version"' in out.sent


def test_a_bad_body_within_the_answer_cuts_it_and_puts_nothing_into_it() -> None:
    out = Recorder().client(CHUNKED).ready().upstream(ANSWER[:-9])
    before = out.sent
    out.client(b"no size\r\n")
    assert out.cut and out.sent == before
    assert [event["error"] for event in out.events] == ["malformed request body"]


@pytest.mark.parametrize("state", [State.CONNECTING, State.WAITING], ids=lambda value: value.name)
def test_a_bad_body_before_the_answer_is_refused(state: State) -> None:
    out = Recorder().client(CHUNKED)
    if state is State.WAITING:
        out.ready()
    out.client(b"no size\r\n")
    assert out.sent.startswith(b"HTTP/1.1 400 ") and out.closed and not out.cut
