"""The parts of requests, as tok-proxy measures them: sizes and hashes, never text, and which part changed first."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxies import Proxy, ask, post
from test_readers import JSON
from upstream import Upstream, plain

from conftest import Json, examples
from tokenops import (
    context,
    context_breaks,
    context_report,
    events,
    fields,
    http1,
    joins,
    pricing,
    proxy_exchange,
    proxy_meter,
    proxy_parts,
    proxy_routes,
    wire_parts,
)

UPSTREAM = proxy_routes.upstream_of("anthropic", "http://127.0.0.1:9")
NOW = 1_795_000_000_000
SECRET = "the orchard key is under the third stone"


def size(value: Any) -> int:
    """Code points of canonical JSON, by another library."""
    return len(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def measured(payload: Json) -> wire_parts.Request:
    measure = wire_parts.Measure(payload, b"salt")
    for _ in measure.slices():
        pass
    return measure.request


def compared(*payloads: Json, session: str = "s1") -> list[proxy_parts.Change | None]:
    chains = proxy_parts.Chains()
    return [chains.compare(("anthropic", "claude-code", session), measured(each)) for each in payloads]


def tool(name: str, text: str = SECRET) -> Json:
    return {"name": name, "description": text, "input_schema": {"type": "object"}}


def user(*blocks: Any) -> Json:
    return {"role": "user", "content": [{"type": "text", "text": each} if type(each) is str else each for each in blocks]}


def assistant(text: str) -> Json:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "ü" * 300}
CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Read", "input": {"path": SECRET}}]}
ANTHROPIC: Json = {
    "model": "claude-opus-4-6",
    "tools": [tool("Bash"), tool("mcp__jira__find")],
    "system": [{"type": "text", "text": SECRET}, {"type": "text", "text": "be kind"}],
    "messages": [user(SECRET), CALL, user(RESULT)],
}
CHAT: Json = {
    "model": "gpt-5.4",
    "tools": [{"type": "function", "function": tool("Bash")}, {"type": "function", "function": tool("mcp__jira__find")}],
    "messages": [
        {"role": "system", "content": SECRET},
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": SECRET},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "t1", "function": {"name": "Read", "arguments": SECRET}}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "ü" * 300},
    ],
}
RESPONSES: Json = {
    "model": "gpt-5.4",
    "tools": [
        {"type": "function", "name": "Bash", "parameters": {}},
        {"type": "namespace", "name": "mcp__jira", "tools": [{"type": "function", "name": "find", "parameters": {}}]},
    ],
    "instructions": SECRET,
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": SECRET}]},
        {"type": "function_call", "name": "Read", "arguments": SECRET, "call_id": "t1"},
        {"type": "function_call_output", "call_id": "t1", "output": "ü" * 300},
    ],
}
GEMINI: Json = {
    "tools": [{"functionDeclarations": [tool("Bash"), tool("mcp__jira__find")]}],
    "systemInstruction": {"parts": [{"text": SECRET}]},
    "contents": [
        {"role": "user", "parts": [{"text": SECRET}]},
        {"role": "model", "parts": [{"functionCall": {"name": "Read", "args": {"path": SECRET}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "Read", "response": {"text": "ü" * 300}}}]},
    ],
}
SHAPES = {"anthropic": ANTHROPIC, "chat": CHAT, "responses": RESPONSES, "gemini": GEMINI}
shapes = pytest.mark.parametrize("payload", SHAPES.values(), ids=SHAPES)


@shapes
def test_every_vendors_shape_has_its_parts(payload: Json) -> None:
    request = measured(payload)
    assert [part.name for part in request.tools] == ["Bash", "mcp__jira__find"]
    assert len(request.messages) == 3
    names = ("tools", "system", "messages user", "messages assistant", "messages tool")
    assert set(request.sizes) == set(names)
    assert all(request.sizes[name] > 40 for name in names if name != "system" or payload is not RESPONSES)
    assert 300 < request.sizes["messages tool"] < 450  # code points, not bytes
    assert sum(request.sizes.values()) == sum(part.size for part in (*request.tools, *request.system, *request.messages))


def test_sizes_are_code_points_of_canonical_json() -> None:
    request = measured(ANTHROPIC)
    assert [part.size for part in request.tools] == [size(each) for each in ANTHROPIC["tools"]]
    assert request.sizes["system"] == sum(map(size, ANTHROPIC["system"]))
    assert [part.size for part in request.messages] == [size(each) for each in ANTHROPIC["messages"]]
    assert request.sizes["messages tool"] == size(RESULT)


def test_only_system_messages_at_the_front_are_the_system_prompt() -> None:
    request = measured({"messages": [{"role": "system", "content": "a"}, user("b"), {"role": "system", "content": "c"}]})
    assert [len(request.system), len(request.messages), request.first] == [1, 2, 2]
    assert request.sizes["messages system"] == request.sizes["system"]


def changed(payload: Json, change: Callable[[Json], object]) -> Json:
    other = copy.deepcopy(payload)
    change(other)
    return other


def set_tool(payload: Json, text: str) -> None:
    """Change the schema of the second tool."""
    tools = payload["tools"][0].get("functionDeclarations", payload["tools"])
    inner = tools[1].get("function") or tools[1].get("tools", [tools[1]])[0]
    inner["description"] = text


def set_system(payload: Json, text: str) -> None:
    """Change the end of the system prompt."""
    if "instructions" in payload:
        payload["instructions"] = text
    elif "systemInstruction" in payload:
        payload["systemInstruction"]["parts"][-1]["text"] = text
    elif "system" in payload:
        payload["system"][-1]["text"] = text
    else:
        payload["messages"][1]["content"] = text


def messages_of(payload: Json) -> list[Json]:
    value: list[Json] = payload[next(name for name in ("messages", "input", "contents") if name in payload)]
    return value


@shapes
def test_the_part_that_changed_is_named(payload: Json) -> None:
    name = "message 5" if payload is CHAT else "message 3"
    system = "system 1" if payload in (RESPONSES, GEMINI) else "system 2"
    first, after = compared(payload, changed(payload, lambda each: set_tool(each, "other")))
    assert first is None
    assert after == proxy_parts.Change(measured(payload).tools[0].size, "tool mcp__jira__find")
    after = compared(payload, changed(payload, lambda each: set_system(each, "other")))[1]
    assert after is not None
    assert after.part == system
    after = compared(payload, changed(payload, lambda each: messages_of(each).append(messages_of(each).pop() | {"x": 1})))[1]
    assert after is not None
    assert after.part == name


@shapes
def test_a_prompt_that_only_grows_is_not_changed(payload: Json) -> None:
    longer = changed(payload, lambda each: messages_of(each).append({"role": "user", "content": "more"}))
    whole = measured(payload)
    assert compared(payload, longer)[1] == proxy_parts.Change(sum(whole.sizes.values()), "")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda each: each["tools"].insert(0, tool("Agent")), "tool_added Agent"),
        (lambda each: each["tools"].append(tool("Write")), "tool_added Write"),
        (lambda each: each["tools"].pop(0), "tool_removed Bash"),
        (lambda each: each["tools"].pop(), "tool_removed mcp__jira__find"),
        (lambda each: each["tools"].reverse(), "tool_moved mcp__jira__find"),
        # Claude Code 2.1.332 sorts its tools anew when a server's come.
        (lambda each: each["tools"].reverse() or each["tools"].append(tool("mcp__a__b")), "tool_added mcp__a__b"),
        (lambda each: each["system"].pop(), "system 2"),
        (lambda each: each.update(tool_choice={"type": "any"}), "settings"),
        (lambda each: each["messages"].pop(), ""),
    ],
)
def test_ways_to_change(change: Callable[[Json], object], part: str) -> None:
    after = compared(ANTHROPIC, changed(ANTHROPIC, change))[1]
    assert after is not None
    assert after.part == part


def test_marks_for_the_cache_and_the_form_of_a_text_change_nothing() -> None:
    def mark(payload: Json) -> None:
        mark = {"cache_control": {"type": "ephemeral"}}
        payload["tools"][-1] |= mark
        payload["system"][0] |= mark
        payload["messages"][-1]["content"][-1] |= mark
        payload["messages"][0]["content"] = SECRET

    assert compared(ANTHROPIC, changed(ANTHROPIC, mark)) == compared(ANTHROPIC, ANTHROPIC)
    lines = ["x-anthropic-billing-header: cch=1;", "x-anthropic-billing-header: cch=2;"]
    both = [ANTHROPIC | {"system": [{"type": "text", "text": each}, *ANTHROPIC["system"]]} for each in lines]
    after = compared(*both)[1]
    assert after is not None
    assert after.part == ""


def test_each_conversation_of_a_session_is_compared_with_itself() -> None:
    """A subagent and a title are asked for in between; a resumed conversation is compared with its own last request."""
    side = {"model": "m", "system": "a title", "messages": [user("name this")]}
    agent = ANTHROPIC | {"system": "an agent", "messages": [user("look around")]}
    grown = ANTHROPIC | {"messages": [*ANTHROPIC["messages"], assistant("done"), user("go on")]}
    broken = changed(grown, lambda each: set_tool(each, "other"))
    result = compared(ANTHROPIC, side, agent, grown, agent, broken)
    parts = [each and each.part for each in result]
    assert parts == [None, None, None, "", "", "tool mcp__jira__find"]


def test_requests_without_a_session_that_begin_alike_are_no_conversation() -> None:
    examples = [user("2+2?"), assistant("4")]
    asked = [{"messages": [*examples, user(each)]} for each in ("3+3?", "4+4?")]
    assert compared(*asked, session="") == [None, None]
    rewritten = {"messages": [user("2+2? "), *examples[1:], user("3+3?")]}
    after = compared(asked[0], rewritten, session="")[1]
    assert after is not None
    assert after.part == "message 1"


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_parts, "_MOST_PARTS", 50)
    chains = proxy_parts.Chains()
    for number in range(200):
        asked = measured({"messages": [user(f"{number % 9} {each}") for each in range(1 + number % 7)]})
        chains.compare(("a", "b", f"s{number % 5}"), asked)
        known = [each for one in chains._requests.values() for each in one]
        assert sum(each.count for each in known) == chains._parts <= 50
    assert max(len(one) for one in chains._requests.values()) <= 8


# What goes into the log.


def sent(payload: Any) -> bytes:
    """A body that is long enough to be measured."""
    return json.dumps(payload).encode().ljust(wire_parts.LEAST)


def recorded(*payloads: Any, path: bytes = b"/v1/messages", headers: tuple[str, ...] = ()) -> list[list[Json]]:
    """The events of exchanges with one proxy, each answered with one usage."""
    chains = proxy_parts.Chains()
    result = []
    for number, payload in enumerate(payloads):
        body = payload if isinstance(payload, bytes) else sent(payload)
        fields = [http1.field(b"Content-Type", b"application/json"), http1.field(b"x-claude-code-session-id", b"s1")]
        made = proxy_exchange.Exchange(UPSTREAM, http1.Request(b"POST", path, (1, 1), fields), path, NOW, number, b"salt")
        made.chains = chains
        meter = proxy_meter.Meter(made)
        made.request_data(body)
        made.request_end()
        meter.take(made.request_parts(), 0)
        while meter.step():
            pass
        made.response_head(http1.Response(200, b"OK", (1, 1), [http1.field(b"Content-Type", b"application/json")]))
        answer = {"id": f"msg_{number:016}", "type": "message", "model": "claude-opus-4-6", "usage": {"input_tokens": 9}}
        meter.take(made.response_data(json.dumps(answer).encode(), NOW) or iter(()), 0)
        while meter.step():
            pass
        result.append(made.finish(NOW + 5))
    return result


def context_in(rows: list[Json]) -> Json:
    (event,) = (each for each in rows if each["kind"] == "context")
    return event


def test_the_record_of_a_request() -> None:
    other = changed(ANTHROPIC, lambda each: set_tool(each, "other"))
    first, same, third = map(context_in, recorded(ANTHROPIC, ANTHROPIC, other))
    assert first["id"] == "context:" + first["turn"] == "context:msg_0000000000000000"
    assert first["parts"] == measured(ANTHROPIC).sizes
    assert first["tools"] == {f"tool {each['name']}": size(each) for each in ANTHROPIC["tools"]}
    assert "prefix" not in first
    assert same["prefix"] == sum(first["parts"].values())
    assert "tools" not in same  # written down once
    assert same["toolset"] == first["toolset"] != third["toolset"]
    assert third["changed"] == "tool mcp__jira__find"
    assert third["tools"]["tool mcp__jira__find"] == size(other["tools"][1])
    assert not any(map(fields.fault, (first, same, third)))


@examples(150)
@given(st.sampled_from(sorted(SHAPES)), JSON, st.sampled_from(["tools", "system", "messages", "input", "contents", "text"]))
def test_any_value_in_any_place_costs_no_counts(shape: str, value: Json, place: str) -> None:
    for payload in (SHAPES[shape] | {place: value}, SHAPES[shape] | {place: [value]}, {place: [{"content": [value]}]}):
        for rows in recorded(payload, payload):
            assert [each["kind"] for each in rows][:1] == ["turn"]
            assert rows[0]["input_tokens"] == 9
            assert not any(map(fields.fault, rows))


@examples(100)
@given(st.sampled_from(sorted(SHAPES)), st.text(min_size=12, max_size=60))
def test_no_text_is_recorded(shape: str, secret: str) -> None:
    secret = f"sentinel {secret} sentinel"
    text = json.dumps(SHAPES[shape]).replace(json.dumps(SECRET)[1:-1], json.dumps(secret)[1:-1])
    payload = json.loads(text)
    for rows in recorded(payload, changed(payload, lambda each: set_tool(each, secret + "!"))):
        assert any(each["kind"] == "context" for each in rows)
        assert "sentinel" not in json.dumps(rows)


MANY = [{"name": f"mcp__server{number}__{'x' * 80}"} for number in range(8000)]


@pytest.mark.parametrize(
    "payload",
    [
        ANTHROPIC | {"tools": MANY},
        ANTHROPIC | {"tools": [{"name": "Bash"}] * 10_000},
        ANTHROPIC | {"tools": [tool(SECRET), tool("x" * 5000), tool('a"b\\'), {}, 7, None]},
        ANTHROPIC | {"messages": [user("hi")] * 9000},
        ANTHROPIC | {"system": [{"type": "text", "text": "x"}] * 9000},
        {"messages": "hi", "tools": "none", "system": 5},
        {"messages": {"role": "user"}, "tools": {"name": "x"}, "system": {"text": SECRET}},
        {"input": SECRET, "text": {"format": {"type": "json_schema"}}},
        {"messages": [user(json.loads("[" * 90 + "]" * 90))]},
    ],
    ids=lambda payload: str(payload)[:30],
)
def test_hostile_bodies_have_bounds(payload: Json) -> None:
    for rows in recorded(payload, payload):
        assert rows[0]["input_tokens"] == 9
        assert not any(map(fields.fault, rows))
        assert all(len(events.order_of(each)) < 6000 for each in rows)
        assert SECRET not in json.dumps(rows)
        assert [each["kind"] for each in rows] == ["turn", "context"]
    assert measured(payload).count <= 3 * wire_parts.MOST_PARTS


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 5000 + b"]" * 5000, b'{"messages":"\\ud800"}'])
def test_bodies_that_are_no_requests(body: bytes) -> None:
    (rows,) = recorded(body)
    assert [each["kind"] for each in rows] == ["turn"]
    assert rows[0]["input_tokens"] == 9


def test_paths_without_prompts_and_short_bodies_have_no_parts() -> None:
    for rows in (*recorded({"input": ["a", "b"]}, path=b"/v1/embeddings"), *recorded(b'{"messages":[{"role":"user"}]}')):
        assert [each["kind"] for each in rows] == ["turn"]


def test_images_count_by_the_formula() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 50_000}}
    result = {"type": "tool_result", "content": [image, {"type": "text", "text": "x"}]}
    sizes = measured({"messages": [user(image, "look"), user(result)]}).sizes
    assert sizes["images"] == 12_000
    assert sizes["messages tool"] < 100


def test_large_bodies_are_measured_in_slices() -> None:
    many = {"messages": [user("word " * 1000)] * 200}, {"messages": [user(*["x"] * 30_000)]}, {"tools": [{}] * 30_000}
    for payload, least in zip(many, (3, 200, 200), strict=True):
        assert sum(1 for _ in wire_parts.Measure(payload, b"").slices()) >= least


# Through a real proxy.


def answer(number: int, **counts: int) -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 20, **counts}
    return json.dumps({"id": f"msg_{number:016}", "type": "message", "model": "claude-opus-4-6", "usage": usage}).encode()


def test_a_proxy_names_the_part(proxy: Proxy, vendor: Upstream) -> None:
    bodies = [
        ANTHROPIC,
        changed(ANTHROPIC, lambda each: set_tool(each, "other")),
        changed(ANTHROPIC, lambda each: (set_tool(each, "other"), set_system(each, "other"))),
    ]
    for number, body in enumerate(bodies):
        vendor.script = plain(answer(number, cache_creation_input_tokens=5000))
        ask(
            proxy.port,
            post("/anthropic/v1/messages", sent(body), "x-claude-code-session-id: s1", "Connection: close"),
        )
    records = proxy.events(3, "context")
    assert [each.get("changed") for each in records] == [None, "tool mcp__jira__find", "system 2"]
    assert [each["turn"] for each in records] == [each["id"] for each in proxy.events(3)]
    stored = b"".join(path.read_bytes() for path in proxy.log.rglob("*.jsonl"))
    assert SECRET.encode() not in stored


# With the rest of the log.


def turn_of(number: int, **counts: int) -> Json:
    row: Json = {"v": 1, "ts": f"2026-11-21T09:0{number}:00.000Z", "kind": "turn", "id": f"msg_{number}", "source": "proxy"}
    row |= {"client": "x", "session_id": "s1", "provider": "anthropic", "model": "claude-opus-4-6", "turns": 1}
    return row | counts


def breaks_of(*seen: Json) -> list[context_breaks.Break]:
    """The breaks of turns that read 20,000 tokens once, and then nothing; `seen`: by the proxy, at the third."""
    turns = [
        turn_of(1, cache_write_tokens=20_000),
        turn_of(2, cache_read_tokens=20_000, cache_write_tokens=4_000),
        turn_of(3, cache_write_tokens=24_500),
    ]
    place = {"v": 1, "kind": "context", "source": "proxy", "session_id": "s1", "parts": {"tools": 9}}
    records = [
        place | {"id": f"context:msg_{number}", "ts": turns[number - 1]["ts"], "turn": f"msg_{number}"}
        for number in (1, 2, 3)
    ]
    for more in seen:
        records[2] |= more
    assert not any(map(fields.fault, records))
    return context_breaks.of_turns({each["id"]: each for each in turns}, context.by_turn(records), pricing.load())


@pytest.mark.parametrize(
    ("seen", "reason", "text"),
    [
        ({"prefix": 7, "changed": "tool mcp__jira__find"}, "tools_or_system", "tools changed: mcp__jira__find"),
        ({"prefix": 7, "changed": "tool_added Write"}, "tools_or_system", "tools changed: Write added"),
        ({"prefix": 7, "changed": "system 2"}, "tools_or_system", "system prompt changed"),
        ({"prefix": 7, "changed": "message 14"}, "message", "message 14 changed"),
        ({"prefix": 7, "changed": "settings"}, "settings", "settings of the request changed"),
        ({"prefix": 7}, "unchanged", "unchanged prompt, but not in the cache"),
        ({}, "unknown", "unknown"),
    ],
)
def test_a_break_names_the_part_and_its_cost(seen: Json, reason: str, text: str) -> None:
    (met,) = breaks_of(seen)
    assert (met.reason, met.tokens, met.part) == (reason, 24_000, seen.get("changed", ""))
    assert met.usd == Decimal("24000") * (Decimal("6.25") - Decimal("0.5")) / 1_000_000
    assert context_breaks.reason_text(met.reason, met.part) == text
    row = context_report.break_row(met)
    assert (row.get("part"), context_report.reason_text(row)) == (seen.get("changed"), text)


def test_what_a_client_logs_and_what_the_proxy_sees_join() -> None:
    passive = {"v": 1, "kind": "context", "id": "context:msg_3", "ts": "2026-11-21T09:03:00.000Z", "turn": "msg_3"}
    passive |= {"source": "claude-code-jsonl", "revision": 2, "client": "claude-code", "session_id": "s1"}
    passive |= {"parent": "msg_2", "entered": {"prompt": 9}, "produced": {"reply": 4}}
    seen = {"parts": {"tools": 9}, "tools": {"tool Bash": 9}, "toolset": "aa", "prefix": 7, "changed": "tool Bash"}
    wire = {**passive, **seen, "source": "proxy"}
    for name in ("revision", "parent", "entered", "produced"):
        del wire[name]
    both = joins.join(passive, wire)
    assert both == joins.join(wire, passive) == events.arrange(passive | seen)
    assert joins.join(both, wire) == joins.join(both, passive) == both
    renamed = wire | {"id": "context:resp_1"}  # the wire's own id of the same turn
    assert context.by_turn([passive, renamed])["msg_3"] == both
