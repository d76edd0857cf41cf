"""The rig's vendor on each of its wires: what it answers is what its ledger says, and what tok-proxy reads of it."""

from __future__ import annotations

import json
import socket
from collections import Counter

import pytest
import rig
from proxies import Proxy, Start, ask, post
from rig_wires import Step
from upstream import Upstream

from conftest import MOST, Json, eventually

TOOLS: dict[str, Json] = {
    "messages": {"tools": [{"name": "bash", "input_schema": {"type": "object"}}], "max_tokens": 9},
    "responses": {"tools": [{"type": "function", "name": "bash", "parameters": {}}]},
    "chat": {"tools": [{"type": "function", "function": {"name": "bash", "parameters": {}}}]},
    "gemini": {"tools": [{"functionDeclarations": [{"name": "bash"}]}]},
}
PATHS = {
    "messages": "/anthropic/v1/messages",
    "responses": "/openai/v1/responses",
    "chat": "/openai/v1/chat/completions",
    "gemini": "/gemini/v1beta/models/m-1:{}enerateContent",
}
SCRIPTS = {
    "work": (Step("bash", {"command": "true"}, thought="Hm."), Step()),
    "limited": (Step(refused=429),),
    "cut": (Step(hangs=True),),
}


def conversation(wire: str, script: str, answered: bool) -> Json:
    """A request's messages: a prompt, and after it a call with its result if it is answered."""
    prompt = f"[[{script}]]"
    if wire == "gemini":
        call = {"role": "model", "parts": [{"functionCall": {"name": "bash", "args": {}}}]}
        result = {"role": "user", "parts": [{"functionResponse": {"name": "bash", "response": {"output": "abc"}}}]}
        return {"contents": [{"role": "user", "parts": [{"text": prompt}]}, *([call, result] if answered else [])]}
    if wire == "responses":
        items = [{"type": "function_call", "name": "bash"}, {"type": "function_call_output", "output": "abc"}]
        return {"input": [{"role": "user", "content": prompt}, *(items if answered else [])]}
    if wire == "chat":
        call = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "bash"}}]}
        result = {"role": "tool", "content": "abc", "tool_call_id": "a"}
    else:
        call = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "bash", "input": {}}]}
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "abc"}]}
    return {"messages": [{"role": "user", "content": prompt}, *([call, result] if answered else [])]}


def request(wire: str, script: str, streams: bool, answered: bool = False, tools: bool = True) -> bytes:
    body = {"model": "m-1", "stream": streams} | conversation(wire, script, answered) | (TOOLS[wire] if tools else {})
    if streams and wire == "chat":
        body["stream_options"] = {"include_usage": True}
    path = PATHS[wire].format("streamG" if streams else "g") + ("?alt=sse" if wire == "gemini" and streams else "")
    return post(path, json.dumps(body).encode(), "Connection: close")


@pytest.fixture
def both(start: Start, vendor: Upstream) -> tuple[rig.Ledger, Proxy]:
    ledger = rig.serve(vendor, SCRIPTS)
    return ledger, start(dict.fromkeys(("anthropic", "openai", "gemini"), f"http://127.0.0.1:{vendor.port}"))


def stated(event: Json) -> Counter[str]:
    return +Counter({name: event.get(f"{name}_tokens", 0) for name in rig.CLASSES})


@pytest.mark.parametrize("wire", PATHS)
def test_the_proxy_reads_of_each_wire_what_the_ledger_says(wire: str, both: tuple[rig.Ledger, Proxy]) -> None:
    ledger, proxy = both
    for streams in (True, False):
        answer = ask(proxy.port, request(wire, "work", streams))
        assert b"bash" in answer and b"Hm." in answer and b" 200 " in answer
        answer = ask(proxy.port, request(wire, "work", streams, answered=True))
        assert b"bash" not in answer and b"I go on." in answer
    assert [charge.entered for charge in ledger.charges[:1]] == [Counter(other=len("[[work]]"))]
    assert all(not charge.labels for charge in ledger.charges)
    turns = proxy.events(4)
    told = [(turn["model"], sorted(stated(turn).items())) for turn in turns]
    assert sorted(told) == sorted((charge.model, sorted((+charge.counts).items())) for charge in ledger.charges)
    assert not ledger.others and not ledger.outside


@pytest.mark.parametrize("wire", PATHS)
def test_a_request_is_refused_once_and_costs_nothing(wire: str, both: tuple[rig.Ledger, Proxy]) -> None:
    ledger, proxy = both
    answers = [ask(proxy.port, request(wire, "limited", True)) for _ in range(3)]
    assert [b" 429 " in answer[:40] for answer in answers] == [True, False, False]
    assert b"retry-after: 1" in answers[0] and len(ledger.charges) == 2


@pytest.mark.parametrize("wire", PATHS)
def test_a_stream_hangs_until_it_is_let_go(wire: str, both: tuple[rig.Ledger, Proxy]) -> None:
    ledger, proxy = both
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=MOST) as connection:
        connection.sendall(request(wire, "cut", True))
        connection.settimeout(MOST)
        seen = b""
        while b"I go on." not in seen:
            seen += connection.recv(1 << 16)
        assert eventually(lambda: ledger.hanging) == 1
    ledger.let_go = True  # the proxy would wait for what the vendor still says
    [turn] = proxy.events(1)
    assert turn["usage"] in ("partial", "unknown") and turn.get("output_tokens", 0) <= 1


@pytest.mark.parametrize("wire", PATHS)
def test_a_request_without_tools_is_none_of_a_script(wire: str, both: tuple[rig.Ledger, Proxy]) -> None:
    ledger, proxy = both
    ledger.bare = False
    assert b"bash" not in ask(proxy.port, request(wire, "work", False, tools=False))
    assert [charge.labels for charge in ledger.charges] == [{"script": "none"}]
