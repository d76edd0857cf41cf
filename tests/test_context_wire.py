"""tok-context --wire and --breaks on what a real tok-proxy recorded: the parts of requests, and what each change cost."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from proxies import Proxy, ask, post
from upstream import Upstream, plain

from conftest import Json, Run, lines, objects, put

SECRET = "the orchard key is under the third stone"
SERVERS = ("jira", "github")


def size(value: Any) -> int:
    return len(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def body(jira: str = SECRET, system: str = "be kind", more: int = 0) -> Json:
    """A request with two tools of each MCP server and one of the client's own."""
    names = ["Bash", *(f"mcp__{server}__{name}" for server in SERVERS for name in ("find", "open"))]
    texts = {"mcp__jira__find": jira}
    tools = [{"name": name, "description": texts.get(name, "x" * 300), "input_schema": {}} for name in names]
    messages: list[Json] = [{"role": "user", "content": SECRET * 9}]
    for number in range(more):
        messages += [{"role": "assistant", "content": f"answer {number}"}, {"role": "user", "content": f"go on {number}"}]
    blocks = [{"type": "text", "text": "You are a gardener."}, {"type": "text", "text": system}]
    return {"model": "claude-opus-4-6", "max_tokens": 9, "system": blocks, "tools": tools, "messages": messages}


# Bodies, and the vendor's counts: written to the cache, read from it.
REQUESTS = [
    (body(), 30_000, 0),
    (body(more=1), 1_000, 30_000),
    (body("find issues", more=2), 31_500, 0),
    (body("find issues", "be brief", more=3), 20_000, 12_000),
    (body("find issues", "be brief", more=4), 32_400, 0),
]


@pytest.fixture
def recorded(proxy: Proxy, vendor: Upstream) -> Proxy:
    """A session of which the proxy saw five requests."""
    for number, (payload, wrote, read) in enumerate(REQUESTS):
        usage = {
            "input_tokens": 0,
            "output_tokens": 9,
            "cache_creation_input_tokens": wrote,
            "cache_read_input_tokens": read,
        }
        answer = {"id": f"msg_{number:016}", "type": "message", "model": "claude-opus-4-6", "usage": usage}
        vendor.script = plain(json.dumps(answer).encode())
        head = ("x-claude-code-session-id: 5f2b-1", "User-Agent: claude-cli/2.1.332", "Connection: close")
        ask(proxy.port, post("/anthropic/v1/messages", json.dumps(payload).encode().ljust(2048), *head))
        proxy.events(number + 1, "context")
    return proxy


def test_a_changed_tool_and_a_changed_system_prompt_are_named_with_their_cost(recorded: Proxy, run: Run) -> None:
    breaks = objects(run("tok-context 5f2b --breaks --json").stdout)
    seen = [(row["reason"], row.get("part"), row["tokens"], row["cost_usd"]) for row in breaks]
    # Tokens that were written again at $6.25 instead of read at $0.50 a million.
    assert seen == [
        ("tools_or_system", "tool mcp__jira__find", 31_000, "0.17825"),
        ("tools_or_system", "system 2", 19_500, "0.112125"),
        ("unchanged", None, 32_000, "0.184"),
    ]
    table = run("tok-context 5f2b --breaks --table").stdout.decode()
    assert "tools changed: mcp__jira__find" in table
    assert "system prompt changed" in table
    assert "unchanged prompt, but not in the cache" in table
    total = objects(run("tok-context 5f2b --json").stdout)[-1]
    assert (total["cache_breaks"], total["break_usd"]) == (3, "0.474375")

    rows = objects(run("tok-context --wire").stdout)
    payload, wrote, _ = REQUESTS[-1]
    sizes = {tool["name"]: size(tool) for tool in payload["tools"]}
    servers = {row["server"]: (row["tools"], row["chars"]) for row in rows if "server" in row}
    assert servers == {name: (2, sizes[f"mcp__{name}__find"] + sizes[f"mcp__{name}__open"]) for name in SERVERS}
    *parts, total = rows
    assert [row["part"] for row in parts] == ["tools"] * 3 + ["system", "messages user", "messages assistant"]
    assert sum(row["chars"] for row in parts) == total["chars"]
    assert sum(row["estimated_tokens"] for row in parts) == total["prompt_tokens"] == wrote
    assert total["turn"] == "msg_0000000000000004"
    assert total["prefix"] == total["chars"] - grown()

    singly = objects(run("tok-context 5f2b --wire --by tool").stdout)
    assert {row["tool"]: row["chars"] for row in singly if "tool" in row} == sizes
    third = objects(run("tok-context --turn msg_0000000000000002").stdout)[-1]
    assert third["changed"] == "tool mcp__jira__find"
    shown = run("tok-context 5f2b --turn msg_0000000000000002 --table").stdout.decode()
    for words in ("tools of jira (MCP)", "tools changed: mcp__jira__find", "unchanged prompt"):
        assert words in shown
    assert run("tok-context --wire --by tool --top 2 --markdown").stdout.decode().count("\n|") >= 4
    for path in recorded.log.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def grown() -> int:
    """By how much the last request is larger than the one before."""
    added = REQUESTS[-1][0]["messages"][len(REQUESTS[-2][0]["messages"]) :]
    return sum(size({**each, "content": [{"type": "text", "text": each["content"]}]}) for each in added)


TURN = {"v": 1, "ts": "2026-11-21T09:00:00.000Z", "kind": "turn", "id": "m1", "source": "proxy", "client": "x", "turns": 1}
TURN |= {"session_id": "s1", "provider": "anthropic", "model": "claude-opus-4-6", "input_tokens": 90}


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("tok-context --wire", 0, "no request of the last 31 days passed tok-proxy"),
        ("tok-context s1 --wire", 0, "no request of session s1 passed tok-proxy"),
        ("tok-context s2 --wire", 2, "no session"),
        ("tok-context s1 --turn m1", 0, "no request of turn m1 passed tok-proxy"),
        ("tok-context s1 --wire --since 7d", 2, "--wire shows one request"),
    ],
)
def test_sessions_that_no_proxy_saw(line: str, status: int, words: str, run: Run, tmp_path: pathlib.Path) -> None:
    env = {"TOKENOPS_NOW": "2026-11-21T12:00:00Z"}
    run(f"tok-log import {put(tmp_path / 'turns.jsonl', lines([TURN]))}", env=env)
    result = run(line, env=env, status=status)
    assert words in result.stderr.decode()
    assert not result.stdout
