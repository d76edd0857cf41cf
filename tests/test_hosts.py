"""Real hosts of tools: Claude Code asks its budget in mid-task, and the protocol's own inspector calls every tool.

`make clients` installs what is run here.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import uuid
from typing import Any

import jsonschema
import pytest
from proxies import Start
from test_clients import COMMANDS, command, named, needs
from upstream import Asked, Upstream, Writer, plain, stream

from conftest import MOST, Json, Run, objects, put
from tokenops import events, jsonl, tools, when

NAME = "mcp__tokenops__tokenops_session_budget"


def message(*content: Json, stop: str = "end_turn") -> list[bytes]:
    """A streamed answer of a model."""
    identity = f"msg_{uuid.uuid4().hex}"
    usage = {"input_tokens": 11, "output_tokens": 2}
    about = {"id": identity, "type": "message", "role": "assistant", "model": "claude-x", "content": [], "stop_reason": None}
    made: list[Json] = [{"type": "message_start", "message": about | {"usage": usage}}]
    for index, block in enumerate(content):
        if block["type"] == "tool_use":
            start, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        else:
            start, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
        made.append({"type": "content_block_start", "index": index, "content_block": start})
        made.append({"type": "content_block_delta", "index": index, "delta": delta})
        made.append({"type": "content_block_stop", "index": index})
    made.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage})
    return named(*made, {"type": "message_stop"})


async def model(asked: Asked, writer: Writer) -> None:
    """A model that asks for its budget, and then says what it was told."""
    if not asked.head.target.startswith(b"/v1/messages?"):
        await plain(b'{"error":{"type":"not_found_error","message":"no"}}', status=404)(asked, writer)
        return
    said = json.loads(asked.body)
    told = [
        part
        for turn in said["messages"]
        if isinstance(turn["content"], list)
        for part in turn["content"]
        if part["type"] == "tool_result"
    ]
    if not any(tool["name"] == NAME for tool in said.get("tools", ())):
        answer = message({"type": "text", "text": "no tool"})
    elif not told:
        answer = message(
            {"type": "tool_use", "id": "toolu_1", "name": NAME, "input": {"provider": "anthropic"}}, stop="tool_use"
        )
    else:
        answer = message({"type": "text", "text": f"told: {json.dumps(told[-1]['content'])}"})
    await stream(*answer)(asked, writer)


def known(run: Run) -> None:
    """A log that knows 63 % of a window are left."""
    now = when.moment("2026-11-21T09:30:00Z")
    about = {"window": "five_hour", "window_minutes": 300, "resets_at": when.stamp(now + 3_600_000)}
    run("tok-log append", jsonl.line_of(events.meter("proxy", "anthropic", when.stamp(now - 60_000), used=0.37, **about)))


@needs("claude")
def test_claude_code_asks_its_budget(
    start: Start, vendor: Upstream, environment: dict[str, str], tmp_path: pathlib.Path, run: Run
) -> None:
    vendor.script = model
    proxy = start({"anthropic": f"http://127.0.0.1:{vendor.port}"})
    known(run)
    hosts = put(tmp_path / "mcp.json", json.dumps({"mcpServers": {"tokenops": {"command": "tok-mcp"}}}).encode())
    printed = command("claude", ["-p", "how much is left?", "--output-format", "json", "--mcp-config", str(hosts), "--strict-mcp-config",
        "--allowedTools", NAME], environment, tmp_path, TOKENOPS_NOW="2026-11-21T09:30:00Z",
        ANTHROPIC_BASE_URL=f"http://127.0.0.1:{proxy.port}/anthropic", ANTHROPIC_API_KEY="sk-ant-x",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", DISABLE_AUTOUPDATER="1", IS_SANDBOX="1")  # fmt: skip
    answer = json.loads(printed)["result"]
    assert "headroom_pct" in answer and "63" in answer and "continue" in answer, answer
    pings = objects(run("tok-cat --kind ping").stdout)
    assert [one["tool"] for one in pings] == ["tokenops_session_budget"]


def inspected(environment: dict[str, str], *arguments: str) -> Any:
    """What the inspector's command line prints."""
    path = os.pathsep.join((str(COMMANDS), environment["PATH"], os.path.dirname(os.popen("command -v node").read().strip())))
    done = subprocess.run(
        [str(COMMANDS / "mcp-inspector"), "--cli", "tok-mcp", "--tools", "all", *arguments],
        env=environment | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=MOST,
        check=False,
    )
    assert done.returncode == 0, (done.stdout.decode()[-1500:], done.stderr.decode()[-1500:])
    return json.loads(done.stdout)


@needs("mcp-inspector")
def test_the_inspector_calls_every_tool(environment: dict[str, str], run: Run) -> None:
    known(run)
    turn = {
        "v": 1,
        "ts": "2026-11-21T09:29:00.000Z",
        "kind": "turn",
        "id": "a",
        "source": "proxy",
        "session_id": "s1",
        "turns": 1,
    }
    run("tok-log append", jsonl.line_of(turn | {"model": "claude-opus-4-8", "provider": "anthropic", "output_tokens": 5}))
    listed = {tool["name"]: tool for tool in inspected(environment, "--method", "tools/list")["tools"]}
    assert listed.keys() == tools.TOOLS.keys()
    for name, tool in tools.TOOLS.items():
        if not tool.changes and not tool.needs:
            answer = inspected(environment, "--method", "tools/call", "--tool-name", name)
            assert not answer.get("isError"), answer
            jsonschema.validate(answer["structuredContent"], listed[name]["outputSchema"])


@pytest.mark.skipif(
    not (COMMANDS / "mcp-inspector").exists(), reason="make clients installs the inspector where there is npm"
)
def test_the_inspector_reads_the_resources(environment: dict[str, str]) -> None:
    found = inspected(environment, "--method", "resources/list")["resources"]
    assert {one["uri"] for one in found} == set(tools.resources())
