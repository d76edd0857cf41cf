"""Answers under wrong names, that end early, or that fail, in the shapes of many vendors."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import brotli
import pytest
from proxies import Proxy, ask
from test_metering import UPGRADE, answered
from upstream import Upstream, raw

from conftest import Json
from tokenops import http1, proxy_exchange, proxy_request, proxy_routes, proxy_savings, wire_decode

SSE, NDJSON, JSON = "text/event-stream", "application/x-ndjson", "application/json"
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
RESPONSE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def events_of(*values: Any, end: str = "\n") -> bytes:
    """Server-sent events, one for each value; text is a line as it is."""
    lines = [value if isinstance(value, str) else f"data: {json.dumps(value)}" for value in values]
    return "".join(line + end + end for line in lines).encode()


def lines_of(*values: Any, end: str = "\n") -> bytes:
    return "".join(json.dumps(value) + end for value in values).encode()


def chunk(reason: str | None = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


def response(kind: str, status: str, usage: Json | None = None, **more: Any) -> Json:
    return {"type": kind, "response": {"id": "r", "model": "m", "status": status, "error": None, "usage": usage, **more}}


START = {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {"input_tokens": 10, "output_tokens": 1}}}
STOP = {"type": "message_stop"}


def delta(reason: str | None) -> Json:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5}}


def piece(reason: str = "", **more: Any) -> Json:
    candidate = {"content": {}} | ({"finishReason": reason} if reason else {})
    used = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    return {"candidates": [candidate], "usageMetadata": used, "modelVersion": "g", "responseId": "g", **more}


def line(done: bool, **more: Any) -> Json:
    return {"model": "l", "done": done, "prompt_eval_count": 10, "eval_count": 5, **more}


CHAT = (chunk(), chunk("stop"), {**chunk(), "choices": [], "usage": USED})
DOCUMENT = {"id": "c", "model": "m", "choices": [], "usage": USED}
PACKED = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}


NAMED_WRONGLY = [
    *[
        (kind, events_of(*CHAT, end=end))
        for kind in (JSON, NDJSON, "text/html", "text/plain", "")
        for end in ("\n", "\r\n", "\r")
    ],
    *[
        (kind, events_of(START, delta("end_turn")))
        for kind in ("application/stream+json", "Application/JSON, text/event-stream")
    ],
    *[(kind, json.dumps(DOCUMENT, indent=1).encode()) for kind in (SSE, NDJSON, "text/html", "text/json", "")],
    *[(kind, json.dumps([piece(), piece("STOP")], indent=2).encode()) for kind in (SSE, NDJSON, "text/plain")],
    *[(kind, lines_of(line(False), line(True), end=end)) for kind in (SSE, JSON, "text/plain") for end in ("\n", "\r\n")],
]


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize(("kind", "body"), NAMED_WRONGLY)
def test_a_wrong_type_hides_no_counts(kind: str, body: bytes, encoding: str) -> None:
    data = PACKED[encoding](body)
    [turn], _ = answered(kind, encoding, [data[at : at + 7] for at in range(0, len(data), 7)])
    assert (turn["input_tokens"], turn["output_tokens"], turn.get("usage")) == (10, 5, None)


def test_sound_and_pictures_are_not_read() -> None:
    for kind in ("audio/mpeg", "image/png", "video/mp4", "text/html", "application/pdf"):
        [turn], _ = answered(kind, "", [(b"<html> " if "html" in kind else b"ID3 ") + json.dumps(DOCUMENT).encode()])
        assert (turn["usage"], turn["usage_reason"]) == ("unknown", "binary")


ENCODED_ODDLY = [
    *[(name, "") for name in PACKED if name],
    ("gzip, gzip", "gzip gzip"),
    ("gzip, br", "gzip br"),
    ("br,deflate , identity", "br deflate"),
    ("gzip", "gzip gzip"),
    ("br", "gzip"),
    ("deflate", "gzip"),
    ("", "gzip"),
]


@pytest.mark.parametrize(("declared", "real"), ENCODED_ODDLY)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_first_bytes_are_believed_more_than_the_encoding(declared: str, real: str, size: int) -> None:
    for body in (events_of(*CHAT), json.dumps(DOCUMENT).encode()):
        data = body
        for name in real.split() if real else ():
            data = PACKED[name](data)
        [turn], _ = answered(SSE, declared, [data[at : at + size] for at in range(0, len(data), size)])
        assert (turn["input_tokens"], turn["output_tokens"]) == (10, 5)


def test_encodings_in_each_other_have_bounds() -> None:
    zeros = gzip.compress(bytes(64 << 20))
    for declared, data in {"gzip, gzip": gzip.compress(zeros), "gzip, br": brotli.compress(zeros)}.items():
        [turn], _ = answered(JSON, declared, [data])
        assert (turn["usage"], turn["usage_reason"]) == ("unknown", "too large to meter")
    nothing = gzip.compress(b"") * 2_000_000  # it unpacks to nothing, at length
    [turn], _ = answered(JSON, "gzip, gzip", [gzip.compress(nothing)])
    assert turn["usage_reason"] == "too large to meter"
    with pytest.raises(wire_decode.Undecodable, match="encoding gzip"):
        wire_decode.decoder("gzip, gzip, gzip, gzip")


BEGUN = [
    events_of(chunk(usage=USED)),
    events_of(chunk(usage=USED), chunk()),
    events_of(chunk(), {**chunk(), "choices": [], "usage": USED}, chunk()),
    events_of({"id": "c", "choices": [{"text": "x", "finish_reason": None}], "usage": USED}),
    events_of(response("response.created", "in_progress"), response("response.in_progress", "in_progress", RESPONSE)),
    events_of(response("response.queued", "queued", RESPONSE)),
    events_of(START),
    events_of(START, delta(None)),
    events_of(START, STOP),
    events_of(piece(), end="\r\n"),
    json.dumps([piece(), piece()]).encode(),
    json.dumps([piece(), piece()]).encode()[:-1],
    json.dumps([piece(), piece("STOP")]).encode()[:-30],
    events_of({"usageMetadata": {"promptTokenCount": 10, "totalTokenCount": 10}, "modelVersion": "g"}),
    events_of({"type": "interaction.start", "interaction": {"id": "i", "usage": {"total_input_tokens": 10}}}),
    lines_of(line(False)),
    lines_of(line(False), line(False), end="\r\n"),
]
WHOLE = [
    events_of(*CHAT),
    events_of({"id": "c", "choices": [{"text": "x", "finish_reason": "stop"}], "usage": USED}),
    events_of(response("response.in_progress", "in_progress"), response("response.completed", "completed", RESPONSE)),
    events_of(response("response.incomplete", "incomplete", RESPONSE)),
    events_of(START, delta("end_turn")),
    events_of(START, delta(None), STOP),
    events_of(piece(), piece("STOP")),
    events_of(piece("STOP"), {"usageMetadata": piece()["usageMetadata"], "modelVersion": "g", "responseId": "g"}),
    events_of({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 10}, "modelVersion": "g"}),
    lines_of(line(False), line(True)),
]


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("body", BEGUN)
def test_an_answer_without_its_end_is_partial(body: bytes, encoding: str) -> None:
    for kind in (SSE, JSON):
        [turn], _ = answered(kind, encoding, [PACKED[encoding](body)])
        assert (turn["usage"], turn["usage_reason"]) == ("partial", "the answer was cut short")
        assert turn["input_tokens"] == 10


@pytest.mark.parametrize("body", WHOLE)
def test_an_answer_with_its_end_is_exact(body: bytes) -> None:
    [turn], _ = answered(SSE, "", [body])
    assert (turn["turns"], turn["input_tokens"]) == (1, 10) and "usage" not in turn


FAULT = {"type": "server_error", "message": "a secret"}
FAILED = [
    ({"error": FAULT}, "server_error"),
    ({"error": "a secret"}, "error"),
    ({"error": FAULT, "usage": {"prompt_tokens": 0, "completion_tokens": 0}}, "server_error"),
    ({"object": "error", "message": "a secret", "type": "BadRequestError", "code": 400}, "BadRequestError"),
    ({"errors": [{"code": "boom", "message": "a secret"}]}, "boom"),
    ({"id": "c", "choices": [{"finish_reason": "error", "error": {"code": "boom"}, "message": {}}]}, "boom"),
    ({"id": "c", "choices": [{"finish_reason": "error", "delta": {}}]}, "error"),
    ({"error": {"code": 503, "status": "UNAVAILABLE"}}, "UNAVAILABLE"),
    ({"type": "error", "error": {"type": "overloaded_error"}}, "overloaded_error"),
    ({"type": "error", "code": "rate_limit_exceeded", "message": "a secret"}, "rate_limit_exceeded"),
    (response("response.failed", "failed"), "failed"),
    (response("response.failed", "failed", error={"code": "boom"}), "boom"),
    (response("response.done", "failed", status_details={"error": {"code": "boom"}}), "boom"),
    ({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "a secret"}}, "error"),
    ({"event_type": "stream-end", "response": {"generation_id": "g", "finish_reason": "ERROR_LIMIT"}}, "error"),
    ({"type": "conversation.response.error", "code": 500, "message": "a secret"}, "error"),
]


@pytest.mark.parametrize(("value", "name"), FAILED)
def test_an_answer_that_is_an_error_is_a_failed_request(value: Json, name: str) -> None:
    bodies = {JSON: json.dumps(value).encode(), SSE: events_of(": wait", value), NDJSON: lines_of(value)}
    for (kind, body), (encoding, pack) in zip([*bodies.items()] * 4, [*PACKED.items()] * 3, strict=True):
        [event], _ = answered(kind, encoding, [pack(body)])
        assert (event["errors"], event["error"]) == (1, name) and "turns" not in event
        assert "secret" not in json.dumps(event)


@pytest.mark.parametrize(
    "data", ['{"code": "boom", "message": "a secret"}', "a secret", "[]", "", json.dumps({"error": FAULT})]
)
def test_an_event_that_is_named_an_error_is_one(data: str) -> None:
    error = f"event: error\ndata: {data}\n\n".encode()
    [event], _ = answered(SSE, "", [error])
    assert event["errors"] == 1 and event["error"] in ("boom", "error", "server_error")
    [turn], _ = answered(SSE, "", [events_of(chunk(usage=USED)) + error])
    assert (turn["input_tokens"], turn["usage"]) == (10, "partial") and "broke off" in turn["usage_reason"]


def test_no_error_is_seen_where_there_is_none() -> None:
    for nothing in (None, "", {}, [], False):
        [turn], _ = answered(JSON, "", [json.dumps({**DOCUMENT, "error": nothing, "errors": []}).encode()])
        assert turn["input_tokens"] == 10 and "error" not in turn and "usage" not in turn


@pytest.mark.parametrize(("seconds", "state"), [(None, None), (0, None), ({}, None), (15, "partial"), (1.5, "partial")])
def test_seconds_of_sound_blank_no_counts(seconds: Any, state: str | None) -> None:
    body = {**DOCUMENT, "usage": {**USED, "prompt_audio_seconds": seconds}}
    for kind, data in ((JSON, json.dumps(body).encode()), (SSE, events_of(body))):
        [turn], _ = answered(kind, "", [data])
        assert (turn["input_tokens"], turn.get("usage")) == (10, state)


def test_mistral_answers_in_conversations_and_openai_stores_them() -> None:
    for path, provider, kind in (
        (b"/v1/conversations", "mistral", "new"),
        (b"/v1/conversations/conv_1", "mistral", "new"),
        (b"/v1/conversations", "openai", ""),
        (b"/v1/conversations/conv_1/messages", "mistral", "new"),
    ):
        assert proxy_request.kind_of(b"POST", path, provider) == kind
        assert proxy_request.kind_of(b"GET", path, provider) == ""
    upstream = proxy_routes.upstream_of("mistral", "http://127.0.0.1:9")
    head = http1.Request(b"POST", b"/v1/conversations", (1, 1), [])
    made = proxy_exchange.Exchange(upstream, head, b"/v1/conversations", 1, 1, b"")
    made.response_head(http1.Response(200, b"OK", (1, 1), [http1.field(b"Content-Type", b"text/event-stream")]))
    used = {"type": "conversation.response.done", "conversation_id": "c", "usage": USED}
    for _ in made.response_data(events_of(used), 2) or ():
        pass
    [turn] = made.finish(3)
    assert (turn["provider"], turn["input_tokens"], turn["output_tokens"]) == ("mistral", 10, 5)


def tunnel(*messages: Json, asks: bool = True) -> list[Json]:
    """The turns of a tunnel in which these messages come."""
    upstream = proxy_routes.upstream_of("openai", "http://127.0.0.1:9")
    made = proxy_exchange.Exchange(
        upstream, http1.Request(b"GET", b"/v1/responses", (1, 1), []), b"/v1/responses", 1, 1, b""
    )
    made.tunnel_head(http1.Response(101, b"", (1, 1), []))
    if asks:
        made.client_message({"type": "response.create", "model": "m"}, 2)
    found = [event for number, message in enumerate(messages) for event in made.vendor_message(message, 10 + number)]
    return [event for event in [*found, *made.finish(99)] if event["kind"] == "turn"]


CREATED, DONE = response("response.created", "in_progress"), response("response.completed", "completed", RESPONSE)


OVER_HTTP = ("message-end", "conversation.response.error")


@pytest.mark.parametrize(
    "value", [value for value, _ in FAILED if value.get("type") not in OVER_HTTP and "event_type" not in value]
)
def test_a_refusal_in_a_tunnel_is_one_failed_request(value: Json) -> None:
    for messages in ((value,), (CREATED, value)):
        [event] = tunnel(*messages)
        assert event["errors"] == 1 and "turns" not in event and "secret" not in json.dumps(event)
    refused, turn = tunnel(value, CREATED, DONE)
    assert refused["errors"] == 1 and (turn["input_tokens"], turn.get("error")) == (10, None)


def test_each_answer_in_a_tunnel_has_an_end_of_its_own() -> None:
    first, second = (response("response.created", "in_progress", id=name) for name in "ab")
    ended = {name: response("response.completed", "completed", RESPONSE, id=name) for name in "ab"}
    for lost, whole in ("ab", "ba"):
        found = {turn["id"]: turn.get("usage") for turn in tunnel(first, second, ended[whole])}
        assert found == {whole: None, lost: "unknown"}


def test_an_answer_in_a_tunnel_without_counts_is_unknown() -> None:
    for kind, status in (("completed", "completed"), ("incomplete", "incomplete"), ("done", "cancelled")):
        [turn] = tunnel(CREATED, response(f"response.{kind}", status))
        assert (turn["usage"], turn["usage_reason"]) == ("unknown", "no usage in the answer")
    assert not tunnel(response("response.completed", "completed"), asks=False)


def test_what_fails_beside_an_answer_in_a_tunnel_ends_nothing() -> None:
    beside = {"type": "conversation.item.input_audio_transcription.failed", "error": {"code": "boom"}}
    [turn] = tunnel(CREATED, beside, DONE)
    assert turn["input_tokens"] == 10 and "error" not in turn


def test_null_is_no_decision_about_usage() -> None:
    for options, asked in ((None, True), ({"include_usage": None}, True), ({"include_usage": False}, False), ([], False)):
        payload = {"model": "m", "stream": True, "stream_options": options}
        changed = proxy_savings.with_usage(b"/v1/chat/completions", json.dumps(payload).encode(), payload)
        assert (changed is not None) is asked
        assert changed is None or json.loads(changed)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("switch", [b"Upgrade: h2c\r\n", b""])
def test_a_switch_to_another_protocol_than_asked_for_is_no_answer(proxy: Proxy, vendor: Upstream, switch: bytes) -> None:
    vendor.script = raw(b"HTTP/1.1 101 Switching Protocols\r\n%bConnection: Upgrade\r\n\r\n" % switch)
    assert ask(proxy.port, UPGRADE).startswith(b"HTTP/1.1 502 ")
