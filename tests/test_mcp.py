"""The tools: what each gives is what its command gives, in both eras of the protocol, whatever the log holds."""

from __future__ import annotations

import io
import json
import os
import pathlib
import select
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import anyio
import jsonschema
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from conftest import MOST, Json, Run, objects
from tokenops import agent, config, events, jsonl, pricing, session, store, tools, when

NOW = "2026-11-21T09:30:00.000Z"
AT = when.moment(NOW)
ERAS = ("legacy", "auto")
SESSION = "tokenops_session_budget"


def turn(number: int, minutes: int, **more: Any) -> Json:
    about = {
        "kind": "turn",
        "id": f"msg_{number}",
        "source": "claude-code-jsonl",
        "client": "claude-code",
        "project": f"p{number % 3}",
    }
    about |= {"session_id": f"s{number % 5}", "provider": "anthropic", "model": "claude-opus-4-8", "turns": 1}
    counts = {"input_tokens": 10 + number, "cache_read_tokens": 5000, "output_tokens": 7 * number}
    return {"v": 1, "ts": when.stamp(AT - minutes * 60_000), **about, **counts, **more}


def meter(used: float, minutes: int = 5, account: str = "", resets: int = 60, **more: Any) -> Json:
    about: Json = {"window": "five_hour", "window_minutes": 300, "resets_at": when.stamp(AT + resets * 60_000), **more}
    seen = when.stamp(AT - minutes * 60_000)
    return events.meter("claude-code-statusline", "anthropic", seen, used=used, account=account or None, **about)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone of this process is that of the commands."""
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def folder(environment: dict[str, str]) -> str:
    store.append(environment["TOKENOPS_HOME"], [])
    return environment["TOKENOPS_HOME"]


def log(folder: str, *records: Json) -> None:
    store.append(folder, map(jsonl.line_of, records))


def desk(folder: str, environment: dict[str, str], settings: config.Config | None = None) -> tools.ToolCache:
    given = settings or config.load(environment, environment["HOME"])
    source = session.Session(folder, environment, environment["HOME"], lambda: AT, lambda: given, pricing.load, lambda: "")
    return tools.ToolCache(source)


def in_memory(
    folder: str, environment: dict[str, str], mode: Any, calls: Callable[[Client], Any], which: str = "all"
) -> list[str]:
    """Talk to the server in memory; the names of the tools that were called."""
    called: list[str] = []

    async def talk() -> None:
        async with Client(
            agent.server(tools.selection(which), desk(folder, environment), called.append), mode=mode
        ) as client:
            await calls(client)

    anyio.run(talk)
    return called


def over_stdio(environment: dict[str, str], calls: Callable[[Client], Any], *args: str, mode: Any = "auto") -> None:
    """Talk to the real process."""

    async def talk() -> None:
        given = StdioServerParameters(command="tok-mcp", args=list(args), env={**environment, "TOKENOPS_NOW": NOW})
        async with Client(stdio_client(given), mode=mode) as client:
            await calls(client)

    anyio.run(talk)


# Arguments for the tools that need some; a tool that changes things is tried apart.
NEEDED = {"tokenops_pricing_show": {"model": "claude-opus-5-5"}, "tokenops_workflow_trace": {"session": "s1"}, "tokenops_task_start": {"title": "mend it"}, "tokenops_task_done": {}, "tokenops_plan_set": {"provider": "anthropic", "plan": "claude-pro"}, "tokenops_provider_set": {"provider": "openai"}}  # fmt: skip


@pytest.mark.parametrize("mode", ERAS)
def test_every_tool_answers_what_its_schema_says(mode: str, folder: str, environment: dict[str, str]) -> None:
    log(folder, meter(0.4), *(turn(number, 9 * number) for number in range(1, 40)))

    async def calls(client: Client) -> None:
        listed = (await client.list_tools()).tools
        assert [tool.name for tool in listed] == list(tools.TOOLS)
        for tool in listed:
            jsonschema.Draft202012Validator.check_schema(tool.input_schema)
            assert tool.output_schema and tool.annotations and tool.description
            assert tool.annotations.read_only_hint is not tools.TOOLS[tool.name].changes
            answer = await client.call_tool(tool.name, NEEDED.get(tool.name, {}))
            assert not answer.is_error, answer.content
            jsonschema.validate(answer.structured_content, tool.output_schema)
            text, told = answer.content
            assert text.type == told.type == "text" and text.text.strip()
            assert json.loads(told.text) == answer.structured_content

    assert in_memory(folder, environment, mode, calls) == list(tools.TOOLS)


def test_status_says_what_the_doctor_says(folder: str, environment: dict[str, str], run: Run) -> None:
    log(folder, turn(1, 5))
    (told,) = objects(run("tok-status --json", env={"TOKENOPS_NOW": NOW}, status=None).stdout)
    found = desk(folder, environment).call(tools.TOOLS["tokenops_status"], {}).value
    assert {**found, "as_of": ""} == {**told, "as_of": ""}
    assert desk(folder, environment).call(tools.TOOLS["tokenops_data_sources"], {}).value["sources"] == told["sources"]


# What an agent sees of its budget in each state of the world: percent left, reset, action, level, source.
BUDGETS: list[tuple[str, list[Json], str, list[tuple[Any, ...]]]] = [
    ("no data", [], "", []),
    ("plan only", [], "claude-max-20x", [(None, None, "continue", "low", "mcp_tool_pings")]),
    ("stale", [meter(0.4, 280, resets=10)], "", [(60, "10m", "continue", "low", "statusline")]),
    ("void", [meter(0.4, 280, resets=-10)], "", [(None, None, "continue", "low", "mcp_tool_pings")]),
    ("fresh", [meter(0.4, 1)], "claude-max-20x", [(60, "1h00m", "continue", "high", "statusline")]),
    ("nearly", [meter(0.85, 1)], "", [(15, "1h00m", "slow_down", "high", "statusline")]),
    ("exhausted", [meter(1.0, 1)], "", [(0, "1h00m", "wait_for_reset", "high", "statusline")]),
    ("two accounts", [meter(0.4, 1, "a"), meter(0.9, 1, "b")], "", [(60, "1h00m", "continue", "high", "statusline"), (10, "1h00m", "slow_down", "high", "statusline")]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "records", "plan", "expected"), BUDGETS, ids=[case[0] for case in BUDGETS])
def test_session_budget(
    what: str,
    records: list[Json],
    plan: str,
    expected: list[tuple[Any, ...]],
    folder: str,
    environment: dict[str, str],
    run: Run,
) -> None:
    log(folder, *records)
    if plan:
        run(f"tok-plan set anthropic {plan}")
    answer = desk(folder, environment).call(tools.TOOLS[SESSION], {})
    told = [
        (
            row["headroom_pct"],
            row["window_resets_in"],
            row["recommended_action"],
            row["signal_quality"]["level"],
            row["signal_quality"]["source"],
        )
        for row in answer.value["budgets"]
    ]
    assert told == expected
    assert all(row["signal_quality"]["caveat"] for row in answer.value["budgets"])
    # A coloured gauge leads; unknown is no empty gauge.
    first = answer.text.split(" ")[0]
    colours = {"continue": "\U0001f7e9", "slow_down": "\U0001f7e8", "wait_for_reset": "\U0001f7e5"}
    if expected and expected[0][0] is None:
        assert set(first) == {"❔"}
    elif expected:
        full = max(round(expected[0][0] / 10), expected[0][2] != "continue")  # red at the end, not blank
        assert first.count(colours[expected[0][2]]) == full and len(first) == 10
    else:
        assert "tok-init --detect" in answer.text and answer.value["next_actions"] == ["tok-init --detect"]


WRONG = [
    ("tokenops_spend_summary", {"sinse": "7d"}, "no argument 'sinse'; did you mean 'since'?"),
    ("tokenops_status", {"x": 1}, "no argument 'x'; it takes none"),
    ("tokenops_spend_summary", {"since": 7}, "since is '7'; expected a string"),
    ("tokenops_spend_summary", {"since": "soon"}, "use 7d, 24h, today"),
    ("tokenops_spend_by", {"by": "colour"}, "no such field; choose from"),
    ("tokenops_top_consumers", {"limit": 99}, "limit is 99; give 1 to 50"),
    ("tokenops_top_consumers", {"limit": True}, "expected an integer"),
    ("tokenops_plan_set", {"plan": "claude-pro"}, "needs 'provider'"),
    ("tokenops_plan_set", {"provider": "anthropic", "plan": "claude-pra"}, "claude-pro"),
    ("tokenops_plan_set", {"provider": "openai", "plan": "claude-pro"}, "is a plan of anthropic"),
    ("tokenops_provider_set", {"provider": "openai", "url": "no address"}, "openai"),
    (
        "tokenops_provider_set",
        {"provider": "openai", "url": "https://a.example/;x"},
        "tok-provider set openai 'https://a.example/;x'",
    ),
    ("tokenops_provider_set", {"provider": "mine"}, "mine is not built in"),
]


@pytest.mark.parametrize("mode", ERAS)
def test_what_is_wrong_is_said_in_a_sentence(mode: str, folder: str, environment: dict[str, str]) -> None:
    async def calls(client: Client) -> None:
        for name, given, said in WRONG:
            answer = await client.call_tool(name, given)
            assert answer.is_error and said in answer.content[0].text, (name, given, answer.content)

    in_memory(folder, environment, mode, calls)
    assert not pathlib.Path(environment["HOME"], ".config").exists()


def test_a_whole_number_as_text_is_taken(folder: str, environment: dict[str, str]) -> None:
    log(folder, *(turn(number, number) for number in range(1, 9)))
    assert len(desk(folder, environment).call(tools.TOOLS["tokenops_top_consumers"], {"limit": "2"}).value["rows"]) == 2


def test_what_is_broken_is_no_crash(folder: str, environment: dict[str, str]) -> None:
    broken = config.Config({"thresholds": {"budget": {"slow_down": "often"}}, "plans": {"anthropic": 7}}, "here.yaml", [])
    for name in (SESSION, "tokenops_plan_list"):
        with pytest.raises(session.Fault, match=r"here\.yaml"):
            desk(folder, environment, broken).call(tools.TOOLS[name], {})


def test_setting_a_plan_is_seen_at_once(folder: str, environment: dict[str, str]) -> None:
    async def calls(client: Client) -> None:
        before = await client.call_tool("tokenops_plan_list", {})
        await client.call_tool("tokenops_plan_set", {"provider": "anthropic", "plan": "claude-max-5x"})
        after = await client.call_tool("tokenops_plan_list", {})
        assert before.structured_content == {"plans": []} and "claude-max-5x" in json.dumps(after.structured_content)

    over_stdio(environment, calls, "--tools", "plan_list,plan_set")


@pytest.mark.parametrize("mode", ERAS)
def test_the_real_process(mode: str, folder: str, environment: dict[str, str], run: Run) -> None:
    log(folder, meter(0.4))

    async def calls(client: Client) -> None:
        assert [tool.name.removeprefix("tokenops_") for tool in (await client.list_tools()).tools] == list(tools.DEFAULT)
        answer = await client.call_tool(SESSION, {})
        assert answer.structured_content and answer.structured_content["budgets"][0]["headroom_pct"] == 60
        found = {str(one.uri) for one in (await client.list_resources()).resources}
        assert found == set(tools.resources())
        plans = json.loads((await client.read_resource("tokenops://plans")).contents[0].text)  # type: ignore[union-attr]
        assert any(plan["plan"] == "claude-max-20x" for plan in plans["plans"])
        schema = json.loads((await client.read_resource("tokenops://schema/event")).contents[0].text)  # type: ignore[union-attr]
        jsonschema.validate(meter(0.4), schema)
        jsonschema.validate(turn(1, 2), schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**turn(1, 2), "prompt": "x"}, schema)

    over_stdio(environment, calls, mode=mode)
    pings = objects(run("tok-cat --kind ping").stdout)
    assert [(one["source"], one["tool"]) for one in pings] == [("mcp", SESSION)]
    assert run("tok-cost --log --since 30d --json", env={"TOKENOPS_NOW": NOW}).stdout == b""


def test_calls_change_no_number(folder: str, environment: dict[str, str], run: Run) -> None:
    log(folder, meter(0.4), *(turn(number, 9 * number) for number in range(1, 40)))
    asked = desk(folder, environment)
    asked.clock = lambda: next(ticks)
    ticks = iter(range(0, 10**6, 3))  # no answer is given twice
    names = [SESSION, "tokenops_spend_summary", "tokenops_data_sources"]
    first = {name: json.dumps(asked.call(tools.TOOLS[name], {}).value["rows" if name.endswith("summary") else "budgets" if name == SESSION else "sources"]) for name in names}  # fmt: skip
    cost = run("tok-cost --log --since 30d --json | jq -c 'del(.as_of)'", env={"TOKENOPS_NOW": NOW}).stdout
    for number in range(int(os.environ.get("TOKENOPS_CALLS", "240"))):
        name = names[number % 3]
        store.append(folder, [jsonl.line_of(tools.ping(name, AT + number, number))], durable=False)
        found = asked.call(tools.TOOLS[name], {}).value
        if name != "tokenops_data_sources":
            assert json.dumps(found["rows" if name.endswith("summary") else "budgets"]) == first[name]
        else:
            assert [row for row in found["sources"] if row["source"] != "mcp"] == json.loads(first[name])
    assert run("tok-cost --log --since 30d --json | jq -c 'del(.as_of)'", env={"TOKENOPS_NOW": NOW}).stdout == cost


def test_only_the_protocol_is_written_and_the_end_of_input_is_the_end(environment: dict[str, str]) -> None:
    asked = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "tokenops_status", "arguments": {}}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "tokenops_no_such", "arguments": {}}},
    ]  # fmt: skip
    with subprocess.Popen(
        ["tok-mcp"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"this is no JSON\n" + b"".join(json.dumps(one).encode() + b"\n" for one in asked))
        process.stdin.flush()
        heard = b""
        while heard.count(b"\n") < 3:
            assert select.select([process.stdout], [], [], MOST)[0]
            heard += os.read(process.stdout.fileno(), 1 << 16)
        rest = process.communicate(timeout=MOST)[0]
        said = [json.loads(line) for line in heard.splitlines()]
        assert process.returncode == 0
    assert {one.get("id") for one in said} >= {1, 2} and all(one["jsonrpc"] == "2.0" for one in said)
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())


def test_a_log_that_cannot_be_written_still_answers(environment: dict[str, str]) -> None:
    pathlib.Path(environment["TOKENOPS_HOME"]).write_text("in the way")

    async def calls(client: Client) -> None:
        answer = await client.call_tool("tokenops_plan_list", {})
        assert answer.structured_content == {"plans": []}

    over_stdio(environment, calls, "--tools", "plan_list")


def test_which_tools(run: Run) -> None:
    assert [tool.name for tool in tools.selection("tokenops_status, session_budget")] == ["tokenops_status", SESSION]
    assert b"there is no tool 'statis'; the nearest is 'tokenops_status'" in run("tok-mcp --tools statis", status=2).stderr
    assert b"name at least one tool" in run("tok-mcp --tools ,", status=2).stderr


def test_the_list_costs_little_context(folder: str, environment: dict[str, str]) -> None:
    """As a host gives it to a model: names, descriptions and schemas. Counted with the tokenizer of a current model."""
    bpe = pytest.importorskip("bpe_openai")
    found: list[Json] = []

    async def calls(client: Client) -> None:
        found.extend(
            tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in (await client.list_tools()).tools
        )

    in_memory(folder, environment, "auto", calls, "default")
    assert len(bpe.get_encoding("o200k_base").encode(json.dumps(found))) < 1500


def test_only_the_budget_is_always_shown(folder: str, environment: dict[str, str]) -> None:
    """A host that defers tools shows this one: its model must not have to search for it."""

    async def calls(client: Client) -> None:
        listed = (await client.list_tools()).tools
        assert {tool.name: tool.meta for tool in listed if tool.meta} == {SESSION: {"anthropic/alwaysLoad": True}}

    in_memory(folder, environment, "auto", calls)


BEGIN: list[Json] = [
    {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}},
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
]  # fmt: skip


def requests(*calls: tuple[str, Json]) -> bytes:
    """What a host sends: the handshake, then requests numbered from 1."""
    numbered = (
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(calls, 1)
    )
    return b"".join(json.dumps(message).encode() + b"\n" for message in (*BEGIN, *numbered))


@pytest.mark.parametrize("end", [b"\n", b""])
def test_what_was_read_is_answered_before_the_end(environment: dict[str, str], folder: str, end: bytes) -> None:
    """The whole input is there at once and ends, with or without an end of line: no answer is lost."""
    log(folder, meter(0.4), *(turn(number, number) for number in range(1, 200)))
    calls = [
        ("tools/list", {}),
        *(("tools/call", {"name": tool, "arguments": {}}) for tool in tools.TOOLS if tool not in NEEDED),
    ]
    done = subprocess.run(
        ["tok-mcp", "--tools", "all"],
        env=environment,
        input=requests(*calls).removesuffix(b"\n") + end,
        capture_output=True,
        timeout=MOST,
        check=False,
    )
    answers = {answer["id"]: answer for answer in map(json.loads, done.stdout.splitlines())}
    assert set(answers) == set(range(len(calls) + 1)) and done.returncode == 0 and not done.stderr
    assert all("result" in answer for answer in answers.values())


def test_a_request_that_is_cancelled_is_not_waited_for() -> None:
    pending = agent.Pending()
    pending.take({"id": 1, "method": "tools/call"})
    pending.take({"id": "1", "method": "tools/call"})
    pending.take({"method": "notifications/progress"})
    pending.take({"id": 9, "result": {}})  # an answer of the client's to a request of the server's
    assert pending.wait(0) == 2
    pending.answer({"id": 1, "method": "sampling/createMessage"})  # a request of the server's own
    assert pending.wait(0) == 2
    pending.answer({"id": 1, "error": {}})
    assert pending.wait(0) == 1
    pending.take({"method": "notifications/cancelled", "params": {"requestId": "1"}})
    assert pending.wait(0) == 0


def test_an_answer_that_never_comes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "LAST_ANSWERS_S", 0.01)
    read, write = os.pipe()
    os.write(write, requests(("tools/call", {})))
    os.close(write)
    unanswered: list[int] = []
    lines = agent.Input(read, agent.Pending(), unanswered.append, lambda why: None)
    assert io.BufferedReader(lines).read() == requests(("tools/call", {})) and unanswered == [2]


def test_the_first_interrupt_ends_it(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        ["tok-mcp"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(requests())
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(MOST) == -signal.SIGINT and process.stderr.read() == b""


HUGE = "y" * 100_000
HUGE_REQUESTS: list[tuple[str, Json]] = [
    ("tools/call", {"name": HUGE, "arguments": {}}),
    ("tools/call", {"name": "tokenops_status", "arguments": {HUGE: 1}}),
    ("tools/call", {"name": "tokenops_spend_summary", "arguments": {"since": HUGE}}),
    ("tools/call", {"name": "tokenops_top_consumers", "arguments": {"limit": HUGE}}),
    ("tools/call", {"name": "tokenops_top_consumers", "arguments": {"limit": int("9" * 4000)}}),
    ("tools/call", {"name": "tokenops_scorecard", "arguments": {"by": HUGE}}),
    ("tools/call", {"name": "tokenops_plan_set", "arguments": {"provider": HUGE, "plan": HUGE}}),
    ("tools/call", {"name": "tokenops_provider_set", "arguments": {"provider": "openai", "url": "https://" + HUGE}}),
    ("resources/read", {"uri": f"tokenops://{HUGE}"}),
    (HUGE, {}),
]


def test_huge_arguments_are_not_repeated(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["tok-mcp", "--tools", "all"],
        env=environment,
        input=requests(*HUGE_REQUESTS),
        capture_output=True,
        timeout=MOST,
        check=False,
    )
    answers = {answer["id"]: json.dumps(answer) for answer in map(json.loads, done.stdout.splitlines())}
    assert set(answers) == set(range(len(HUGE_REQUESTS) + 1)) and len(done.stderr) < 1000
    assert {number: len(answer) for number, answer in answers.items() if number and len(answer) > 1000} == {}


ODD_REQUESTS: list[tuple[bytes, int | str | None, int]] = [  # the line, the id of its answer, and the error's code
    (b'{"jsonrpc":"2.0","id":9,"method":"prompts/get","params":{"name":"none"}}', 9, -32602),
    (b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":[1]}', 9, -32602),
    (b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":"x"}', 9, -32602),
    (b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"\\ud800"}}', 9, -32700),
    (b'{"jsonrpc":"2.0","id":9,"method":"ping","params":{"x":NaN}}', 9, -32700),
    (b'{"jsonrpc":"2.0","id":9,"method":5}', 9, -32600),
    (b'{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}', None, -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, -32600),
    (b'[{"jsonrpc":"2.0","id":9,"method":"ping"}]', None, -32600),
    (b'{"jsonrpc":"2.0","id":"n","method":"ping","params":{"x":' + b"[" * 3000 + b"]" * 3000 + b"}}", "n", -32700),
]


def test_what_the_sdk_would_drop_is_answered_with_an_error(environment: dict[str, str]) -> None:
    sent = requests() + b"".join(line + b"\n" for line, _, _ in ODD_REQUESTS)
    sent += (
        b'hello\n[1]\n\n{"jsonrpc":"2.0","method":"x","params":[1]}\n\xef\xbb\xbf{"jsonrpc":"2.0","id":10,"method":"ping"}'
    )
    done = subprocess.run(["tok-mcp"], env=environment, input=sent, capture_output=True, timeout=MOST, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    refused = [(answer["id"], answer["error"]["code"]) for answer in answers if "error" in answer]
    assert refused == [(identity, code) for _, identity, code in ODD_REQUESTS]
    assert {answer["id"] for answer in answers if "result" in answer} == {0, 10}
    assert done.returncode == 0 and done.stderr == b""


def test_a_refusal_never_cuts_a_line() -> None:
    reading, writing = os.pipe()
    out = agent.Output(writing, agent.Pending())
    out.write(b'{"jsonrpc":')
    out.send_error((1, -32600, "no"))
    out.write(b'"2.0"}\n')
    first, second = os.read(reading, 1000).splitlines()
    assert json.loads(first) == {"jsonrpc": "2.0"} and json.loads(second)["id"] == 1
    os.close(reading)


def test_nobody_who_reads_is_no_traceback(environment: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        ["tok-mcp"], env=environment, input=requests(), stdout=writing, stderr=subprocess.PIPE, timeout=MOST, check=False
    )
    os.close(writing)
    assert done.returncode == 2 and done.stderr.startswith(b"tok-mcp: cannot write: Broken pipe")
    assert done.stderr.count(b"\n") == 1
