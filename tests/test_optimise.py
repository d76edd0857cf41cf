"""What the proxy may save: nothing by default, and nothing that changes a meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxies import EVENTS, USAGE, Proxy, Start, ask, post
from upstream import Upstream, plain, stream

from conftest import Json
from tokenops import config, http1, proxy_savings

RESET = "4070908800"  # in 2099: later than any clock on which this runs
ZERO = b'{"model":"gpt-5.4","temperature":0,"messages":[]}'


def begun(start: Start, vendor: Upstream, **options: Any) -> Proxy:
    """A proxy with something switched on."""
    url = f"http://127.0.0.1:{vendor.port}"
    return start({"openai": url, "anthropic": url}, proxy=options)


def test_the_same_question_is_answered_from_memory(start: Start, vendor: Upstream) -> None:
    proxy = begun(start, vendor, cache={"enabled": True})
    vendor.script = plain(USAGE, ("Set-Cookie", "a=1"), ("x-request-id", "r1"))

    def answer(body: bytes = ZERO, *headers: str, path: str = "/openai/v1/chat/completions") -> bytes:
        return ask(proxy.port, post(path, body, "Authorization: Bearer one", "Connection: close", *headers))

    first, again = answer(), answer()
    assert len(vendor.asked) == 1
    assert again.endswith(USAGE) and b"X-Tokenops-Cache-Status: hit" in again and b"x-request-id: r1" in again
    assert b"Set-Cookie" in first and b"Set-Cookie" not in again and b"Cache-Status" not in first
    [saving] = proxy.events(1, "saving")
    assert (saving["by"], saving["saved_tokens"], saving["model"]) == ("cache", 22, "gpt-5.4")
    assert len(proxy.events(1)) == 1  # and no second turn
    # Another caller, query, body, an answer that may differ, a wish of the client: each is a request of its own.
    for body, headers, path in (
        (ZERO, ("x-api-key: two",), "/openai/v1/chat/completions"),
        (ZERO, (), "/openai/v1/chat/completions?x=1"),
        (ZERO + b" ", (), "/openai/v1/chat/completions"),
        (ZERO.replace(b":0,", b":1,"), (), "/openai/v1/chat/completions"),
        (ZERO.replace(b":0,", b":1,"), (), "/openai/v1/chat/completions"),
        (ZERO, ("X-Tokenops-Cache: bypass",), "/openai/v1/chat/completions"),
        (ZERO, ("X-Tokenops-Cache: refresh",), "/openai/v1/chat/completions"),
    ):
        before = len(vendor.asked)
        answer(body, *headers, path=path)
        assert len(vendor.asked) == before + 1, (body, headers, path)
    vendor.script = stream(*EVENTS)
    body = ZERO.replace(b"{", b'{"stream":true,', 1)
    whole = http1.Body(http1.CHUNKED).feed(answer(body).partition(b"\r\n\r\n")[2]).data
    assert answer(body).partition(b"\r\n\r\n")[2] == b"".join(whole) == b"".join(EVENTS)


def test_errors_and_cut_answers_are_not_kept(start: Start, vendor: Upstream) -> None:
    proxy = begun(start, vendor, cache={"enabled": True})
    for status in (500, 429, 201):
        vendor.script = plain(b'{"error":{"type":"x"}}', status=status)
        ask(proxy.port, post("/openai/v1/chat/completions", ZERO, "Connection: close"))
    vendor.script = plain(USAGE)
    assert ask(proxy.port, post("/openai/v1/chat/completions", ZERO, "Connection: close")).endswith(USAGE)
    assert len(vendor.asked) == 4


def test_bounds(start: Start, vendor: Upstream) -> None:
    proxy = begun(start, vendor, cache={"enabled": True, "ttl_s": 3600, "entry_bytes": 1000})
    vendor.script = plain(USAGE)
    for _ in range(2):
        ask(proxy.port, post("/openai/v1/chat/completions", ZERO, "Connection: close"))
    assert len(vendor.asked) == 1
    vendor.script = plain(USAGE + b" " * 1000)
    for _ in range(2):
        ask(proxy.port, post("/openai/v1/embeddings", b'{"input":"x"}', "Connection: close"))
    assert len(vendor.asked) == 3


def test_what_is_old_or_too_much_is_forgotten() -> None:
    head = http1.Response(200, b"OK", (1, 1), [])
    cache = proxy_savings.Cache(proxy_savings.options({"cache": {"enabled": True, "ttl_s": 2, "entries": 2, "bytes": 25}}))
    cache.add(b"a", head, b"x" * 10, 1, 5_000)
    assert cache.get(b"a", 6_999) and not cache.get(b"a", 7_000)
    for name in (b"a", b"b"):
        cache.add(name, head, b"x" * 10, 1, 8_000)
    assert cache.get(b"a", 8_001)  # asked for last, so the other one goes
    cache.add(b"c", head, b"x" * 10, 1, 8_002)
    assert [bool(cache.get(name, 8_003)) for name in (b"a", b"b", b"c")] == [True, False, True]
    cache.add(b"d", head, b"x" * 20, 1, 8_004)
    assert [bool(cache.get(name, 8_005)) for name in (b"a", b"c", b"d")] == [False, False, True]


def test_another_model_where_little_is_left(start: Start, vendor: Upstream) -> None:
    rule = {"model": "claude-opus-*", "use": "claude-sonnet-4-6", "headroom_below": 0.2}
    proxy = begun(start, vendor, routes=[rule])
    unified = "anthropic-ratelimit-unified-5h-"
    body = b'{"x":{"model":"claude-opus-4-8"},  "model" : "claude-opus-4-8", "u":"\\u00e9"}'

    def send(used: str, model: bytes) -> None:
        headers = ((f"{unified}utilization", used), (f"{unified}reset", RESET))
        answer = b'{"id":"msg_%d","type":"message","model":"%b","usage":{"input_tokens":1000000,"output_tokens":0}}'
        vendor.script = plain(answer % (len(vendor.asked), model), *headers)
        ask(proxy.port, post("/anthropic/v1/messages", body, "Connection: close"))
        proxy.events(len(vendor.asked))

    send("0.5", b"claude-opus-4-8")  # nothing is known yet
    send("0.9", b"claude-opus-4-8")  # half is left
    send("0.9", b"claude-sonnet-4-6")
    assert [asked.body for asked in vendor.asked[:2]] == [body, body]
    assert vendor.asked[2].body == body.replace(b'"model" : "claude-opus-4-8"', b'"model" : "claude-sonnet-4-6"')
    turn = proxy.events(3)[2]
    assert (turn["model"], turn["request_model"]) == ("claude-sonnet-4-6", "claude-opus-4-8")
    [saving] = proxy.events(1, "saving")
    assert (saving["by"], saving["request_model"], saving["saved_usd"]) == ("routing", "claude-opus-4-8", "2")


@pytest.mark.parametrize(
    ("body", "used"),
    [
        (b'{"model":"a-1"}', b'{"model":"b"}'),
        (b'{"model":"a\\u002d1"}', b'{"model":"b"}'),
        (b'{"t":"\\"model\\":\\"a-1\\"","model":"a-1"}', b'{"t":"\\"model\\":\\"a-1\\"","model":"b"}'),
        (b'{"model":"c"}', None),
        (b'{"model":7}', None),
        (b"{}", None),
    ],
)
def test_only_the_models_name_changes(body: bytes, used: bytes | None) -> None:
    found = proxy_savings.reroute(body, json.loads(body), (proxy_savings.Rule("a-*", "b", None),), None)
    assert (found[0] if found else None) == used


def test_usage_is_asked_for_and_taken_out_again(start: Start, vendor: Upstream) -> None:
    proxy = begun(start, vendor, include_usage=True)
    vendor.script = stream(*EVENTS)
    answer = ask(
        proxy.port,
        post(
            "/openai/v1/chat/completions", b'{"model":"m","stream":true} ', "Accept-Encoding: gzip, br", "Connection: close"
        ),
    )
    assert json.loads(vendor.asked[0].body) == {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    assert vendor.asked[0].header("accept-encoding") is None
    body = b"".join(http1.Body(http1.CHUNKED).feed(answer.partition(b"\r\n\r\n")[2]).data)
    assert body == EVENTS[0] + EVENTS[2]
    assert proxy.events(1)[0]["output_tokens"] == 7
    # Who decided for himself, and what is no stream, is left alone.
    for body in (
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b'{"stream":true,"stream_options":{"include_usage":false}}',
        b'{"stream":true,"stream_options":"odd"}',
        b'{"stream":false}',
    ):
        answer = ask(proxy.port, post("/openai/v1/chat/completions", body, "Connection: close"))
        assert vendor.asked[-1].body == body and EVENTS[1] in answer
    # Options about something else are the client's; usage is asked for beside them.
    for options, sent in (("null", {}), ('{"include_obfuscation":false}', {"include_obfuscation": False})):
        body = b'{"stream":true,"messages":["stream_options"],"stream_options": %b }' % options.encode()
        answer = ask(proxy.port, post("/openai/v1/chat/completions", body, "Connection: close"))
        assert json.loads(vendor.asked[-1].body)["stream_options"] == sent | {"include_usage": True}
        assert EVENTS[1] not in answer and EVENTS[2] in answer
    assert (
        ask(proxy.port, post("/openai/v1/responses", b'{"stream":true}', "Connection: close"))
        and vendor.asked[-1].body == b'{"stream":true}'
    )


@given(st.lists(st.integers(1, 30)))
def test_the_filter_gives_the_same_at_any_split(sizes: list[int]) -> None:
    data = b"".join(
        [EVENTS[0], b": wait\r\n\r\n", EVENTS[1], b'data: {"choices":[],"usage":null}\n\n', EVENTS[2], b"data: tail"]
    )
    without, got, rest = proxy_savings.WithoutUsage(), b"", data
    for size in [*sizes, len(data)]:
        got += without.feed(rest[:size])
        rest = rest[size:]
    assert got + without.finish() == data.replace(EVENTS[1], b"")


@pytest.mark.parametrize(
    ("path", "body", "same"),
    [
        (b"/v1/chat/completions", {"temperature": 0}, True),
        (b"/v1/chat/completions", {"temperature": 0.0, "tools": [{"type": "function"}]}, True),
        (b"/v1/chat/completions", {}, False),
        (b"/v1/chat/completions", {"temperature": False}, False),
        (b"/v1/responses", {"temperature": 0, "tools": [{"type": "web_search"}]}, False),
        (b"/v1/responses", {"temperature": 0, "previous_response_id": "r"}, False),
        (b"/v1/embeddings", {}, True),
        (b"/v1beta/models/g:generateContent?key=x", {"generationConfig": {"temperature": 0}}, True),
        (b"/v1beta/models/g:embedContent", {}, True),
    ],
)
def test_what_is_deterministic(path: bytes, body: Json, same: bool) -> None:
    assert proxy_savings.deterministic(path, body) is same


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "expected keys and values"),
        ({"cache": 7}, "proxy.cache: expected"),
        ({"cache": {"ttl_s": 0}}, "proxy.cache.ttl_s: 0 is not a whole number"),
        ({"routes": [{"model": "a"}]}, "each needs `model`"),
        ({"routes": [{"model": "a", "use": "b", "headroom_below": 20}]}, "expected a fraction"),
    ],
)
def test_settings_that_make_no_sense(given: Any, says: str) -> None:
    with pytest.raises(config.Unusable, match=says):
        proxy_savings.options(given)
