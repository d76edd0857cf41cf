"""The newest Claude Code and Codex work for a vendor that keeps a ledger: what they state of each request sums up to it.

`make clients` installs what is run here.
"""

from __future__ import annotations

import json
import pathlib
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import pytest
import rig
import rig_matrix
from proxies import Proxy, Start
from rig import Charge, Ledger, Step
from rig_clients import claude, codex, git, repository
from rig_matrix import counted
from test_clients import needs
from upstream import Upstream

from conftest import MOST, Json, Run, objects, put
from tokenops import events

through_a_proxy = pytest.mark.parametrize("proxied", [False, True], ids=["passive", "through the proxy"])

MCP = {"mcp_server": "tiny", "mcp_tool": "tally"}
SCOUT = {"subagent": "scout"}
SKILL = {"skill": "measure"}
CLAUDE = {
    "work": (
        Step("Agent", {"description": "look", "prompt": "[[look]]", "subagent_type": "scout", "run_in_background": False}),
        Step("mcp__tiny__tally", {"word": "abc"}),
        Step("Skill", {"skill": "measure"}, labels=MCP),
        Step("Bash", {"command": "echo one", "description": "say one"}, labels=SKILL),
        Step("Skill", {"skill": "scales:weigh"}, labels=SKILL),
        Step(labels={"skill": "scales:weigh", "plugin": "scales"}),
    ),
    "look": (
        Step("Bash", {"command": "echo two", "description": "say two"}, labels=SCOUT),
        Step("mcp__tiny__tally", {"word": "abc"}, labels=SCOUT),
        Step(labels=SCOUT | MCP),
    ),
}

# Codex's older models call each tool; its newer ones write programs that do, and have other tools for other agents.
SPAWNED = {"subagent": "thread_spawn"}
CODEX = {
    "work": (
        Step("spawn_agent", {"message": "[[look]]"}, "multi_agent_v1"),
        Step("wait_agent", {"targets": ["AGENT"]}, "multi_agent_v1"),
        Step("tally", {"word": "abc"}, "mcp__tiny"),
        Step("exec_command", {"cmd": "echo one"}),
        Step(),
    ),
    "look": (Step("exec_command", {"cmd": "echo two"}, labels=SPAWNED), Step(labels=SPAWNED)),
    "program": (
        Step("spawn_agent", {"task_name": "look", "message": "[[look_on]]", "reasoning_effort": "medium"}, "collaboration"),
        Step("wait_agent", {"timeout_ms": 30000}, "collaboration"),
        Step("exec", "text((await tools.mcp__tiny__tally({word: 'abc'})).content[0].text);", "functions"),
        Step("exec", "text((await tools.exec_command({cmd: 'echo one'})).output);", "functions"),
        Step(),
    ),
    "look_on": (
        Step("exec", "text((await tools.exec_command({cmd: 'echo two'})).output);", "functions", SPAWNED),
        Step(labels=SPAWNED),
    ),
}


def agree(ledger: Ledger, run: Run, source: str, proxy: Proxy | None) -> None:
    """Each sum of ours is the ledger's, whatever it is summed up by."""
    charges = [(charge.model, charge.labels, +charge.counts) for charge in ledger.charges]
    assert not any("script" in labels for _, labels, _ in charges), "a client asked for what no script has"
    assert not ledger.outside and not [other for other in ledger.others if other.startswith("POST")]
    if proxy:
        seen = [turn for turn in proxy.events(len(charges)) if "errors" not in turn]
        proxy.process.terminate()
        proxy.process.wait(MOST)
        # A request states its effort, and Codex's its agent; the rest stands in the client's own files.
        stated = {"effort"} if source == "claude" else {"effort", "subagent"}
        alone = [(turn["model"], {tag: turn[tag] for tag in events.TAGS if tag in turn}, +counted(turn)) for turn in seen]
        wanted = [(model, {tag: labels[tag] for tag in stated & labels.keys()}, counts) for model, labels, counts in charges]
        assert sorted(map(repr_of, alone)) == sorted(map(repr_of, wanted))
    run(f"tok-sync {source}")
    log = objects(run("cat log/events/*.jsonl").stdout)
    assert len({event["source"] for event in log if event["kind"] == "turn"}) == (2 if proxy else 1)
    turns = [event for event in objects(run("tok-cat").stdout) if event["kind"] == "turn"]
    told = [(turn["model"], {tag: turn[tag] for tag in events.TAGS if tag in turn}, +counted(turn)) for turn in turns]
    assert sorted(map(repr_of, told)) == sorted(map(repr_of, charges))
    for tag in events.TAGS:
        for command in (f"tok-cost --log --since all --json --by {tag}", f"tok-cat | tok-rollup --by {tag}"):
            sums: dict[str, Counter[str]] = {}
            for row in objects(run(command).stdout):
                sums.setdefault(row.get(tag, "unmarked"), Counter(turns=0)).update(+counted(row) | {"turns": row["turns"]})
            assert sums == ledger.sums(tag), command
    found = {"requests": len(charges), "turns": len(turns), "missing": {}, "surplus": 0}
    client = next(row for row in rig_matrix.MATRIX if row.own and row.client.startswith(source))
    version = {"version": rig_matrix.version(client)}
    rig_matrix.keep(client, "proxy" if proxy else "passive", version | {"log": found, "proxy": found if proxy else None})


def contexts_agree(ledger: Ledger, run: Run, chains: int, unlogged: Sequence[Charge] = ()) -> None:
    """What entered each turn's context has the sizes that the vendor saw, and the causes sum up to its tokens.

    `unlogged`: what the client charges its session with and keeps no answer of.
    """
    log = objects(run("tok-cat --kind all").stdout)
    charges = {repr_of((charge.model, {}, +charge.counts)): charge for charge in ledger.charges}
    turns = {
        event["id"]: charges[repr_of((event["model"], {}, +counted(event)))] for event in log if event["kind"] == "turn"
    }
    contexts = [event for event in log if event["kind"] == "context"]
    assert len(turns) == len(charges) - len(unlogged)
    assert sorted(context["turn"] for context in contexts) == sorted(turns)
    assert len([context for context in contexts if "parent" not in context]) == chains
    for context in contexts:
        if "parent" in context and "event" not in context:
            sizes: Counter[str] = Counter()
            for cause, size in context["entered"].items():
                sizes["result" if cause.startswith("result ") else "image" if cause == "image" else "other"] += size
            seen = turns[context["turn"]].entered
            assert sizes["result"] == seen["result"], context
            assert 0 <= seen["other"] - sizes["other"] <= 4, context  # empty lines between texts of the client's own
    *rows, total = objects(run("tok-context --since all --json").stdout)
    whole = sum((charge.counts for charge in ledger.charges), Counter())
    prompt = whole.total() - whole["output"] - whole["reasoning"]
    for row in (total, {name: sum(row[name] for row in rows) for name in total if name.endswith("ing_tokens")}):
        assert row["entering_tokens"] + row["carrying_tokens"] + row["rewriting_tokens"] == prompt
        assert row["producing_tokens"] == whole["output"]
    causes = {row["cause"] for row in rows}
    assert "unexplained" not in causes and ("unlogged" in causes) == bool(unlogged)


def repr_of(turn: tuple[str, Json, Counter[str]]) -> str:
    model, labels, counts = turn
    return json.dumps([model, labels, counts], sort_keys=True)


@needs("claude")
@through_a_proxy
def test_claude_code(
    proxied: bool, start: Start, vendor: Upstream, environment: dict[str, str], run: Run, tmp_path: pathlib.Path
) -> None:
    ledger = rig.serve(vendor, CLAUDE)
    proxy = start({"anthropic": f"http://127.0.0.1:{vendor.port}"}) if proxied else None
    where = repository(tmp_path / "app")
    server = {"command": sys.executable, "args": [str(put(tmp_path / "server.py", rig.SERVER.encode()))]}
    put(tmp_path / "mcp.json", json.dumps({"mcpServers": {"tiny": server}}).encode())
    put(where / ".claude/skills/measure/SKILL.md", b"---\nname: measure\ndescription: Measures\n---\nMeasure it.\n")
    put(where / ".claude/agents/scout.md", b"---\nname: scout\ndescription: Looks\neffort: max\n---\nLook around.\n")
    put(tmp_path / "scales/.claude-plugin/plugin.json", b'{"name": "scales", "version": "1.0.0", "description": "Weighs"}')
    put(tmp_path / "scales/skills/weigh/SKILL.md", b"---\nname: weigh\ndescription: Weighs\n---\nWeigh it.\n")
    cost = Decimal(0)
    for effort, branch in (("low", "main"), ("high", "fix/scales")):
        git(where, "checkout", "--quiet", "-B", branch)
        ledger.labels = {"branch": branch}
        options = ["--effort", effort, "--mcp-config", str(tmp_path / "mcp.json"), "--plugin-dir", str(tmp_path / "scales")]
        [result] = claude("[[work]]", options, environment, vendor, where, proxy)
        cost += Decimal(str(result["total_cost_usd"]))
    assert len(ledger.charges) == 2 * sum(map(len, CLAUDE.values()))
    assert set(ledger.sums("effort")) == {"low", "high", "max"}
    agree(ledger, run, "claude", proxy)
    contexts_agree(ledger, run, chains=4)
    [row] = objects(run("tok-cost --log --since all --by none --json").stdout)
    assert abs(Decimal(row["cost_usd"]) - cost) < Decimal("1e-9")  # the client's own sum, in floating point


@needs("codex")
@through_a_proxy
def test_codex(
    proxied: bool, start: Start, vendor: Upstream, environment: dict[str, str], run: Run, tmp_path: pathlib.Path
) -> None:
    ledger = rig.serve(vendor, CODEX)
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"}) if proxied else None
    where = repository(tmp_path / "app")
    for effort, branch, model, prompt in (
        ("low", "main", "gpt-5.4", "work"),
        ("high", "fix/scales", "gpt-5.6-sol", "program"),
    ):
        git(where, "checkout", "--quiet", "-B", branch)
        ledger.labels = {"branch": branch}
        options = ["--model", model, "--config", f'model_reasoning_effort="{effort}"']
        codex([f"[[{prompt}]]"], options, environment, vendor, where, proxy)
    assert len(ledger.charges) == sum(map(len, CODEX.values()))
    assert set(ledger.sums("effort")) == {"low", "high", "medium"}
    agree(ledger, run, "codex", proxy)
    contexts_agree(ledger, run, chains=4)


def picture(width: int, height: int) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x10\x20\x30" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@needs("claude")
def test_claude_code_goes_on(vendor: Upstream, environment: dict[str, str], run: Run, tmp_path: pathlib.Path) -> None:
    """A session is resumed with a file, forked with an image, summed up, and resumed once more."""
    where = repository(tmp_path / "app")
    put(where / "CLAUDE.md", b"Be brief.\n")
    put(where / "a.txt", b"a line\n" * 200)
    count = Step("Bash", {"command": "seq 1 100", "description": "count"})
    look = Step("Read", {"file_path": str(put(where / "a.png", picture(300, 250)))})
    ledger = rig.serve(vendor, {"work": (count, count, Step()), "look": (look, Step())})
    session = claude("[[work]]", [], environment, vendor, where)[0]["session_id"]
    on = ["--resume", session]
    claude("[[work]] with @a.txt", on, environment, vendor, where)
    claude("[[look]]", [*on, "--fork-session"], environment, vendor, where)
    answers = len(ledger.charges)
    claude("/compact", on, environment, vendor, where)
    summaries = ledger.charges[answers:]
    claude("[[work]]", on, environment, vendor, where)
    run("tok-sync claude")
    contexts_agree(ledger, run, chains=1, unlogged=summaries)
    contexts = [event for event in objects(run("tok-cat --kind all").stdout) if event["kind"] == "context"]
    assert [context["entered"]["summary"] > 0 for context in contexts if "event" in context] == [True]
    assert [context["entered"]["image"] for context in contexts if "image" in context.get("entered", {})] == [300]
    assert len({context["session_id"] for context in contexts}) == 2


def program(command: str) -> Step:
    return Step("exec", f"text((await tools.exec_command({{cmd: '{command}'}})).output);", "functions")


THREADS = {
    "gpt-5.4": {
        "work": (Step("exec_command", {"cmd": "seq 1 100"}), Step()),
        "ask": (
            Step("spawn_agent", {"message": "[[look]]", "fork_context": True}, "multi_agent_v1"),
            Step("wait_agent", {"targets": ["AGENT"]}, "multi_agent_v1"),
            Step(),
        ),
        "look": (Step("exec_command", {"cmd": "seq 1 50"}), Step()),
    },
    "gpt-5.6-sol": {
        "work": (program("seq 1 100"), Step()),
        "ask": (
            Step("spawn_agent", {"task_name": "look", "message": "[[look]]"}, "collaboration"),
            Step("wait_agent", {"timeout_ms": 30000}, "collaboration"),
            Step(),
        ),
        "look": (program("seq 1 50"), Step()),
    },
}


@needs("codex")
@pytest.mark.parametrize("model", THREADS)
def test_codex_goes_on(model: str, vendor: Upstream, environment: dict[str, str], run: Run, tmp_path: pathlib.Path) -> None:
    """A thread is resumed twice; its agent begins with a copy of the conversation."""
    where = repository(tmp_path / "app")
    ledger = rig.serve(vendor, THREADS[model])
    options = ["--model", model]
    thread = codex(["[[work]]"], options, environment, vendor, where)
    codex(["resume", thread, "[[work]]"], options, environment, vendor, where)
    codex(["resume", thread, "[[ask]]"], options, environment, vendor, where)
    run("tok-sync codex")
    contexts_agree(ledger, run, chains=2)
