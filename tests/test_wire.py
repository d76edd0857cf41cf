"""What answers of twenty vendors say of usage, whatever way their bytes come in pieces."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import brotli
import pytest
import yaml
from answers import ANSWERS, Answer
from hypothesis import given
from hypothesis import strategies as st
from test_readers import JSON

from conftest import SHARED, Json, examples, needs_shared
from tokenops import fields, wire_body, wire_limits, wire_usage

WIRE = SHARED / "wire"
PROVIDERS = {"azure-openai": "openai", "huggingface-router": "hf", "local-openai-compat": "vllm"}
Sizes = Callable[[], int]


def fed(provider: str, kind: str, encoding: str, data: bytes, sizes: Sizes) -> tuple[wire_usage.Answer, wire_body.Body]:
    """An answer, fed in pieces."""
    reading = wire_usage.Answer(PROVIDERS.get(provider, provider))
    body = wire_body.Body(kind, encoding, reading)
    at = 0
    while at < len(data):
        size = sizes()
        body.feed(data[at : at + size])
        at += size
    body.finish()
    return reading, body


def sums(reading: wire_usage.Answer) -> Json | None:
    """The totals of everything found."""
    found = reading.usages()
    if not found or all(one.state == "unknown" for one in found):
        return None

    def total(*names: str) -> int:
        return sum(one.counts.get(name, 0) for one in found for name in names)

    written = ("cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")
    return {
        "input_total": total("input_tokens", "cache_read_tokens", *written),
        "cache_read": total("cache_read_tokens"),
        "cache_write": total(*written),
        "output_total": total("output_tokens"),
        "reasoning": total("reasoning_tokens"),
        "audio_in": total("audio_input_tokens"),
        "audio_out": total("audio_output_tokens"),
        "image_out": total("image_output_tokens"),
    }


def found_in(reading: wire_usage.Answer) -> tuple[int, ...] | None:
    """The same as tests/data/wire.yaml has it."""
    found = sums(reading)
    names = ("input_total", "cache_read", "cache_write", "output_total", "reasoning")
    return None if found is None else tuple(found[name] for name in names)


PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gzip.compress, "br": brotli.compress}


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{answer.provider}-{answer.kind or 'messages'}")
def test_answers(answer: Answer) -> None:
    """Whole, byte by byte and at random splits, packed and not."""
    if answer.messages:
        reading = wire_usage.Answer(answer.provider)
        for message in answer.messages:
            reading.take(message)
        assert found_in(reading) == answer.usage
        return
    chance = random.Random(7)
    splits: list[Sizes] = [lambda: 1 << 30, lambda: 1, *[lambda: chance.choice((1, 2, 3, 7, 64, 1000))] * 5]
    for (encoding, pack), sizes in itertools.product(PACKED.items(), splits):
        reading, body = fed(answer.provider, answer.kind, encoding, pack(answer.body), sizes)
        assert found_in(reading) == answer.usage, (answer.body, body.reason)
        if answer.cost:
            assert Decimal(reading.usages()[0].cost_usd) == Decimal(answer.cost)


def expected(row: Json) -> Json | None:
    """What a row of the recordings' index says, in our words."""
    given = row["usage"]
    if given is None:
        return None
    wanted = {
        name: given[name]
        for name in (
            "input_total",
            "cache_read",
            "cache_write",
            "output_total",
            "reasoning",
            "audio_in",
            "audio_out",
            "image_out",
        )
        if name in given
    }
    if all_of := given.get("billed_all_iterations"):
        wanted["input_total"] = all_of["input_uncached"] + all_of["cache_read"] + all_of["cache_write"]
        wanted |= {
            "output_total": all_of["output"],
            "cache_read": all_of["cache_read"],
            "cache_write": all_of["cache_write"],
        }
        wanted.pop("reasoning", None)
    if "billed_input" in given and given["billed_input"] != given.get("input_total"):  # Cohere bills units, not tokens
        wanted |= {"input_total": given["billed_input"], "cache_read": 0}
        wanted.pop("reasoning", None)
        if "billed_output" in given:
            wanted["output_total"] = given["billed_output"]
    return wanted


def recordings() -> dict[str, list[Json]]:
    """The rows of the index by provider, and of the realtime sessions their totals."""
    if not WIRE.is_dir():
        return {}
    found: dict[str, list[Json]] = {}
    for row in json.loads((WIRE / "INDEX.json").read_text()):
        found.setdefault(row["provider"], []).append(row)
    return found | {name: [] for name in REALTIME}


REALTIME = {
    "test_azure_ws_test_tool_call_round": (159, 64, 35),
    "test_google_ws_test_text_in_audio_out_turn": (1131, 0, 26),
    "test_google_ws_test_tool_call_round": (1267, 0, 103),
    "test_openai_ws_test_audio_in_server_vad_turn": (41, 0, 164),
    "test_openai_ws_test_tool_call_round": (166, 64, 35),
    "test_xai_ws_test_text_in_audio_out_turn": (5, 0, 42),
}


# A window that the headers of some vendors name.
LIMITED = {
    "anthropic": "input_tokens_per_minute",
    "openai": "tokens_per_minute",
    "mistral": "tokens_per_month",
    "groq": "requests_per_day",
    "xai": "requests_per_minute",
}


@needs_shared
@pytest.mark.parametrize("name", sorted(recordings()))
def test_recorded_answers(name: str) -> None:
    """What 20 vendors really sent, whole and at random splits, with what their headers say of limits."""
    chance, windows = random.Random(name), set()
    if name in REALTIME:
        check_session(name)
    for row in recordings()[name]:
        data = (WIRE / row["file"]).read_bytes()
        encoding = row["content_encoding"] if row["fidelity"].startswith("bytes") else None  # recorders undo it
        for sizes in (lambda: 1 << 30, lambda: chance.choice((1, 2, 3, 7, 64, 1000, 9000))):
            reading, _ = fed(row["provider"], row["content_type"] or "", encoding or "", data, sizes)
            check(row, reading)
    for path in (WIRE / name).glob("*.meta.json"):
        about = json.loads(path.read_text())
        headers = {key.lower(): values[-1] for key, values in (about["response"].get("headers") or {}).items() if values}
        for meter in wire_limits.readings(about["provider"], headers, "2026-11-21T09:30:00.000Z"):
            assert not fields.fault(meter) and 0 <= meter["used"] <= 1
            windows.add(meter["window"])
    assert LIMITED.get(name, "") in windows | {""}


def check(row: Json, reading: wire_usage.Answer) -> None:
    """A recorded answer says what its index says."""
    found, wanted = sums(reading), expected(row)
    if not wanted:
        assert row["usage"] is not None or found is None, (row["file"], found)
        return
    assert found is not None, row["file"]
    assert {name: found[name] for name in wanted} == wanted, row["file"]
    cost = row["usage"].get("cost_usd")
    if cost and not row["usage"].get("is_byok"):
        assert float(reading.usages()[0].cost_usd) == pytest.approx(cost, rel=1e-12)


def check_session(name: str) -> None:
    """A recorded realtime session adds up."""
    reading = wire_usage.Answer(name.split("_")[1])
    for message in yaml.safe_load((WIRE / "realtime" / f"{name}.yaml").read_text())["interactions"]:
        if message.get("direction") == "received" and isinstance(message.get("data"), dict):
            reading.take(message["data"])
    found = sums(reading)
    assert found is not None
    assert (found["input_total"], found["cache_read"], found["output_total"]) == REALTIME[name]
    assert all(one.model for one in reading.usages()) or "google" in name  # there only the client names it


# What no recording has, or only one of some vendor's: (vendor, content type, body, counts in the order of COUNTS)
COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
CASES: list[tuple[str, str, bytes, tuple[int, ...] | None]] = [
    # The last event lacks its blank line, its newline too.
    ("openai", "text/event-stream", b'data: {"id":"c1","choices":[]}\n\ndata: {"id":"c1","usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}', (5, 0, 0, 2, 0)),
    # A comment, an event without data, a lone CR as the end of a line, data in two lines, no blank after the colon.
    ("openai", "text/event-stream", b': wait\r\revent: x\rdata:{"id":"c1","usage":\rdata:{"prompt_tokens":5,"completion_tokens":2}}\r\r', (5, 0, 0, 2, 0)),
    # No include_usage: nothing is known.
    ("openai", "text/event-stream", b'data: {"id":"c1","model":"gpt-5","usage":null}\n\ndata: [DONE]\n\n', None),
    # Usage in each chunk and once more at the end is not added up.
    ("deepseek", "text/event-stream", b'data: {"id":"c","usage":{"prompt_tokens":5,"completion_tokens":1}}\n\ndata: {"id":"c","usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n', (5, 0, 0, 2, 0)),
    # A word in a text is no key.
    ("openai", "application/json", rb'{"id":"c","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}]}', None),
    # Blank lines that keep a connection alive, before the body (DeepSeek).
    ("deepseek", "application/json", b'\n\n\n  {"id":"c","usage":{"prompt_tokens":10,"completion_tokens":2,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":2}}', (2, 8, 0, 2, 0)),
    # 0 is a count, and absent is not.
    ("openai", "application/json", b'{"id":"c","usage":{"prompt_tokens":3,"completion_tokens":0,"total_tokens":3}}', (3, 0, 0, 0, 0)),
    # An OpenAI-like answer of a vendor that writes caches.
    ("litellm", "application/json", b'{"id":"c","usage":{"prompt_tokens":100,"completion_tokens":5,"cache_creation_input_tokens":20,"cache_read_input_tokens":70}}', (10, 70, 20, 5, 0)),
    ("openai", "application/json", b'{"id":"resp_1","object":"response","usage":{"input_tokens":100,"output_tokens":9,"total_tokens":109,"input_tokens_details":{"cached_tokens":60,"cache_write_tokens":30},"output_tokens_details":{"reasoning_tokens":4}}}', (10, 60, 30, 9, 4)),
    # More cached than prompt (Mistral): no count goes below 0.
    ("mistral", "application/json", b'{"id":"c","usage":{"prompt_tokens":10,"completion_tokens":2,"num_cached_tokens":64}}', (0, 10, 0, 2, 0)),
    # Anthropic through a third party: the start has the whole prompt, the end corrects it.
    ("anthropic", "text/event-stream", b'data: {"type":"message_start","message":{"id":"msg_1","model":"kimi-k2","usage":{"input_tokens":8834,"output_tokens":1}}}\n\ndata: {"type":"message_delta","usage":{"input_tokens":18,"cache_read_input_tokens":8831,"output_tokens":40}}\n\n', (18, 8831, 0, 40, 0)),
    # A stream that was cut before its end: what the start said is a placeholder.
    ("anthropic", "text/event-stream", b'data: {"type":"message_start","message":{"id":"msg_1","model":"claude-x","usage":{"input_tokens":8,"output_tokens":1}}}\n\n', (8, 0, 0, 1, 0)),
    ("anthropic", "application/json", b'{"input_tokens": 14}', None),
    ("lmstudio", "application/json", b'{"model_instance_id":"m","stats":{"input_tokens":8,"total_output_tokens":5,"reasoning_output_tokens":2}}', (8, 0, 0, 5, 2)),
    ("gemini", "application/json", b'[{"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4}}\r\n,\r\n{"responseId":"r","usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":3,"totalTokenCount":7}}', (4, 0, 0, 3, 0)),
    ("groq", "text/event-stream", b'data: {"id":"c","x_groq":{"id":"r","usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}}\n\n', (5, 0, 0, 2, 0)),
    ("bedrock", "application/json", b'{"usage":{"inputTokens":7,"outputTokens":2,"cacheReadInputTokens":50,"totalTokens":59}}', (7, 50, 0, 2, 0)),
    ("openai", "audio/mpeg", b"\xff\xfb" * 50, None),
    ("openai", "", b"<html>no</html>", None),
    ("openai", "application/json", b"", None),
    ("openai", "application/json", b'{"usage":{"prompt_tokens":-4,"completion_tokens":"x"}}', None),
    ("openai", "application/json", b'{"usage":{"prompt_tokens":tru', None),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "kind", "data", "counts"), CASES)
def test_built_answers(provider: str, kind: str, data: bytes, counts: tuple[int, ...] | None) -> None:
    for size in (len(data) or 1, 1, 3):
        reading = wire_usage.Answer(provider)
        body = wire_body.Body(kind, "", reading)
        for at in range(0, len(data), size):
            body.feed(data[at : at + size])
        body.finish()
        found = reading.usages()
        if counts is None:
            assert all(one.state == "unknown" for one in found)
            assert found or body.reason
        else:
            assert tuple(found[0].counts.get(name, 0) for name in COUNTS) == counts
            assert not body.reason


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "undeclared"])
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_encodings(encoding: str, size: int) -> None:
    events = b"".join(b'data: {"id":"c","n":%d}\n\n' % n for n in range(2000))
    data = events + b'data: {"id":"c","usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
    packed = {
        "gzip": lambda: gzip.compress(data[:100]) + gzip.compress(data[100:]),  # of two members
        "deflate": lambda: zlib.compress(data),
        "br": lambda: brotli.compress(data),
        "undeclared": lambda: gzip.compress(data),
    }[encoding]()
    reading = wire_usage.Answer("openai")
    body = wire_body.Body("text/event-stream", encoding if encoding != "undeclared" else "", reading)
    for at in range(0, len(packed), size):
        body.feed(packed[at : at + size])
    body.finish()
    assert reading.usages()[0].counts == {"input_tokens": 5, "output_tokens": 2}
    broken = wire_body.Body("text/event-stream", encoding if encoding != "undeclared" else "gzip", wire_usage.Answer())
    broken.feed(packed[:50] + b"\0\xff" * 40 + packed[90:])
    broken.finish()
    assert broken.reason


def test_an_encoding_that_is_not_known_here() -> None:
    body = wire_body.Body("application/json", "zzz", wire_usage.Answer())
    body.feed(b"anything")
    body.finish()
    assert body.reason == "encoding zzz"


@pytest.mark.parametrize("provider", ["openai-image", "gemini-array", "sse"])
def test_a_huge_answer_is_not_held(provider: str) -> None:
    """Forty megabytes of picture, and the usage behind it; in pieces of 64 KiB."""
    tail = b'"}],"usage":{"input_tokens":50,"output_tokens":4160,"total_tokens":4210}}'
    if provider == "gemini-array":
        tail = b'"}]}}],"usageMetadata":{"promptTokenCount":50,"candidatesTokenCount":4160,"totalTokenCount":4210}}]'
    head = b'{"id":"i1","model":"gpt-image-2","data":[{"b64_json":"'
    kind = "application/json"
    if provider == "sse":
        head, tail, kind = b"data: " + head, tail + b"\n\n", "text/event-stream"
    reading = wire_usage.Answer("gemini" if provider == "gemini-array" else "openai")
    body = wire_body.Body(kind, "", reading)
    tracemalloc.start()
    body.feed(head)
    for _ in range(640):
        body.feed(b"QUJD" * 16_384)
    body.feed(tail)
    body.finish()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30 << 20
    [found] = reading.usages()
    assert (found.model, found.counts) == ("gpt-image-2", {"input_tokens": 50, "output_tokens": 4160})


def test_errors_inside_an_answer_are_named_and_not_quoted() -> None:
    reading = wire_usage.Answer("anthropic")
    reading.take({"type": "error", "error": {"type": "overloaded_error", "message": "secret words"}})
    assert reading.error == "overloaded_error"
    reading = wire_usage.Answer("openrouter")
    reading.take({"id": "g", "error": {"code": 502, "message": "secret words"}, "choices": []})
    assert reading.error == "error"


@examples(300)
@given(value=JSON, provider=st.sampled_from(["openai", "anthropic", "gemini", "cohere", "xai"]))
def test_any_json_says_something_or_nothing(value: Any, provider: str) -> None:
    for shape in (value, {"usage": value}, {"type": "message_start", "message": {"usage": value}}, {"usageMetadata": value},
                  {"type": "response.completed", "response": {"usage": value}}, {"usage": {"prompt_tokens_details": value, "cost": value}}):  # fmt: skip
        reading = wire_usage.Answer(provider)
        reading.take(shape)
        for found in reading.usages():
            assert all(type(count) is int and count > 0 for count in found.counts.values())
