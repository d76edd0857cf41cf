"""What passes between an editor and an agent is counted: every shape of the protocol, in any pieces, and no text is kept."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json
from tokenops import events, read_acp

USAGE = {"totalTokens": 6100, "inputTokens": 1000, "outputTokens": 90, "thoughtTokens": 10, "cachedReadTokens": 4000,
         "cachedWriteTokens": 1000}  # fmt: skip
COUNTS = {"input_tokens": 1000, "cache_read_tokens": 4000, "cache_write_tokens": 1000, "output_tokens": 100, "reasoning_tokens": 10}  # fmt: skip


def line(**message: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def ask(identity: object, method: str, **params: object) -> bytes:
    return line(id=identity, method=method, params=params)


def result(identity: object, **values: object) -> bytes:
    return line(id=identity, result=values)


def update(kind: str, **values: object) -> bytes:
    return line(method="session/update", params={"sessionId": "s-1", "update": {"sessionUpdate": kind, **values}})


OPENING: list[tuple[str, bytes]] = [
    (">", ask(0, "initialize", protocolVersion=1)),
    ("<", result(0, protocolVersion=1, agentInfo={"name": "made-agent", "version": "1"})),
    (">", ask(1, "session/new", cwd="/srv/app", mcpServers=[])),
    ("<", result(1, sessionId="s-1", models={"currentModelId": "m-1", "availableModels": []})),
]


def prompts(talk: Iterable[tuple[str, bytes]], meter: read_acp.Meter | None = None) -> list[read_acp.Prompt]:
    """The prompts of a talk, with those that its end leaves open."""
    meter = meter or read_acp.Meter()
    ways = {">": read_acp.Lines(), "<": read_acp.Lines()}
    ended: list[read_acp.Prompt] = []
    for now, (way, data) in enumerate(talk):
        for each in ways[way].feed(data):
            if way == ">":
                meter.request(each, now)
            else:
                ended += meter.answer(each, now)
    return [*ended, *meter.rest(99)]


def asked(*answer: bytes, identity: object = 2) -> list[tuple[str, bytes]]:
    text = [{"type": "text", "text": "a secret"}]
    return [(">", ask(identity, "session/prompt", sessionId="s-1", prompt=text)), *(("<", each) for each in answer)]


def test_a_prompt_is_a_total_with_disjoint_counts() -> None:
    [prompt] = prompts([*OPENING, *asked(result(2, stopReason="end_turn", usage=USAGE))])
    assert prompt == read_acp.Prompt(1, "made-agent", "s-1", "/srv/app", 4, 5, (("m-1", COUNTS),), "")
    [total] = read_acp.totals(prompt, {"source": "acp", "client": prompt.client, "session_id": "s-1"})
    assert total["kind"] == "usage" and total["covers"] == "session" and total["id"] == "usage:acp:s-1:4:1:m-1"
    assert {name: total[name] for name in COUNTS} == COUNTS and "secret" not in json.dumps(total)


@pytest.mark.parametrize(
    ("usage", "counts", "reason"),
    [
        (USAGE, COUNTS, ""),
        # Input with the caches in it, output with the reasoning in it, as vendors of OpenAI's kind count.
        (USAGE | {"inputTokens": 6000, "outputTokens": 100}, COUNTS, ""),
        (USAGE | {"inputTokens": 6000}, COUNTS, ""),
        (USAGE | {"outputTokens": 100}, COUNTS, ""),
        ({"totalTokens": 30, "inputTokens": 20, "outputTokens": 10}, {"input_tokens": 20, "output_tokens": 10}, ""),
        (USAGE | {"thoughtTokens": None, "outputTokens": 100}, {**COUNTS, "reasoning_tokens": 0}, ""),
        (USAGE | {"totalTokens": 7}, COUNTS, "the counts do not add up to the total beside them"),
    ],
)
def test_the_total_says_what_the_counts_include(usage: Json, counts: Json, reason: str) -> None:
    stated, why = read_acp.counts_of(usage)
    assert {name: count for name, count in stated.items() if count} == {
        name: count for name, count in counts.items() if count
    }
    assert why == reason


@pytest.mark.parametrize("method", ["load", "resume", "fork"])
def test_what_a_continued_session_used_before_is_not_counted_again(method: str) -> None:
    """Of an agent that adds up; the first answer's share is unknown where the session was begun in another process."""
    done = [
        {"stopReason": "end_turn", "usage": {"totalTokens": n, "inputTokens": n, "outputTokens": 0}} for n in (100, 150, 170)
    ]
    opening = [
        *named("copilot"),
        (">", ask(1, f"session/{method}", sessionId="s-1", cwd="/a")),
        ("<", result(1, sessionId="s-1")),
    ]
    talk = [
        *opening,
        *asked(result(2, **done[0])),
        *asked(result(3, **done[1]), identity=3),
        *opening,
        *asked(result(4, **done[2]), identity=4),
    ]
    first, second, third = prompts(talk)
    assert first.rows == () and "continued" in first.reason
    assert [each.rows[0][1] for each in (second, third)] == [{"input_tokens": 50}, {"input_tokens": 20}]


def test_a_count_that_is_none_is_not_taken_for_one() -> None:
    [prompt] = prompts([*OPENING, *asked(result(2, stopReason="end_turn", usage=USAGE | {"inputTokens": "many"}))])
    assert prompt.rows == () and "inputTokens" in prompt.reason
    with pytest.raises(events.BadRecord):
        read_acp.counts_of({"inputTokens": -1})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([result(2, stopReason="end_turn")], "the agent does not state what a prompt used"),
        ([result(2, stopReason="cancelled", usage=None)], "the agent does not state what a prompt used"),
        ([line(id=2, error={"code": -32603, "message": "no"})], "the agent answered with an error"),
        ([line(id=2, error={"code": -32000, "message": "log in first"})], None),
        ([line(id=2, error={"code": -32602, "message": "no such session"})], None),
        ([], "the agent ended before it answered"),
        ([result("2", stopReason="end_turn", usage=USAGE)], "the agent ended before it answered"),
        (
            [update("usage_update", used=5, size=9, cost={"amount": 1, "currency": "USD"})],
            "the agent ended before it answered",
        ),
    ],
)
def test_what_is_not_stated_is_unknown(answer: list[bytes], reason: str | None) -> None:
    ended = prompts([*OPENING, *asked(*answer)])
    assert [(prompt.rows, prompt.reason) for prompt in ended] == ([] if reason is None else [((), reason)])
    for prompt in ended:
        [total] = read_acp.totals(prompt, {"source": "acp", "client": "x"})
        assert total["usage"] == "unknown" and not events.token_sum(total)


def test_the_model_is_the_one_that_the_session_has() -> None:
    option = {"id": "model", "category": "model", "type": "select", "currentValue": "m-3", "options": []}
    done = {"stopReason": "end_turn", "usage": USAGE}
    talk = [
        *OPENING,
        (">", ask("a", "session/set_model", sessionId="s-1", modelId="m-2")),
        *asked(result("b", **done), identity="b"),  # the change is not confirmed yet
        ("<", result("a")),
        *asked(result("c", **done), identity="c"),
        ("<", update("config_option_update", configOptions=[option])),
        *asked(result("d", **done), identity="d"),
        (">", ask("e", "session/set_config_option", sessionId="s-1", configId="model", value="m-4")),
        ("<", result("e", configOptions=[option | {"currentValue": "m-4"}])),
        *asked(result("f", **done), identity="f"),
        (">", ask("g", "session/set_model", sessionId="s-1", modelId="m-5")),
        ("<", line(id="g", error={"code": -32602, "message": "no such model"})),
        *asked(result("h", **done), identity="h"),
    ]
    assert [prompt.rows[0][0] for prompt in prompts(talk)] == ["m-1", "m-2", "m-3", "m-4", "m-4"]


def test_sessions_are_opened_in_every_way_and_keep_their_directories() -> None:
    talk: list[tuple[str, bytes]] = []
    for number, (method, given_session, opened) in enumerate(
        [("new", "", "s-1"), ("load", "s-2", ""), ("resume", "s-3", ""), ("fork", "s-3", "s-4")]
    ):
        params = {"cwd": f"/srv/{number}"} | ({"sessionId": given_session} if given_session else {})
        name = opened or given_session
        talk += [
            (">", ask(number, f"session/{method}", **params)),
            ("<", result(number, **({"sessionId": opened} if opened else {}))),
            (">", ask(10 + number, "session/prompt", sessionId=name, prompt=[])),
        ]
    talk += [("<", result(10 + number, stopReason="end_turn", usage=USAGE)) for number in (3, 1, 0, 2)]
    ended = [(prompt.session, prompt.root) for prompt in prompts(talk)]
    assert ended == [("s-4", "/srv/3"), ("s-2", "/srv/1"), ("s-1", "/srv/0"), ("s-3", "/srv/2")]


def test_in_version_2_the_end_of_the_work_states_what_it_used() -> None:
    talk = [
        *OPENING,
        *asked(result(2, messageId="x")),
        ("<", update("state_update", state="running")),
        ("<", update("state_update", state="requires_action")),
        ("<", update("state_update", state="running")),
        ("<", update("state_update", state="idle", stopReason="end_turn", usage=USAGE)),
        ("<", update("state_update", state="idle", stopReason="end_turn", usage=USAGE)),  # again, which is no use
        ("<", update("state_update", state="running")),  # the agent goes on by itself
        ("<", update("state_update", state="idle", usage=USAGE)),
        ("<", update("state_update", state="running")),
    ]
    ended = prompts(talk)
    assert [prompt.rows for prompt in ended] == [(("m-1", COUNTS),), (("m-1", COUNTS),), ()]
    assert ended[0].began == 4 and ended[2].reason == "the agent ended before it answered"


def named(name: str) -> list[tuple[str, bytes]]:
    return [(">", ask(7, "initialize")), ("<", result(7, agentInfo={"name": name, "version": "1"}))]


def test_an_agent_that_states_its_last_request_is_not_whole() -> None:
    [prompt] = prompts([*OPENING, *named("OpenCode"), *asked(result(2, stopReason="end_turn", usage=USAGE))])
    [total] = read_acp.totals(prompt, {"source": "acp", "client": prompt.client})
    assert total["usage"] == "partial" and total["output_tokens"] == 100


def test_an_agent_that_adds_up_its_session_counts_what_is_new() -> None:
    sums = [{"totalTokens": 30, "inputTokens": 20, "outputTokens": 10}, {"totalTokens": 75, "inputTokens": 50, "outputTokens": 25},
            {"totalTokens": 6, "inputTokens": 4, "outputTokens": 2}]  # fmt: skip
    talk = [*OPENING, *named("Copilot")]
    for number, usage in enumerate(sums, 2):
        talk += asked(result(number, stopReason="end_turn", usage=usage), identity=number)
    rows = [prompt.rows[0][1] for prompt in prompts(talk)]
    assert rows == [
        {"input_tokens": 20, "output_tokens": 10},
        {"input_tokens": 30, "output_tokens": 15},
        {"input_tokens": 4, "output_tokens": 2},  # it began anew
    ]


def test_single_requests_are_added_up_where_the_agent_states_them_alone() -> None:
    def of(**usage: int) -> bytes:
        return update("agent_message_chunk", content={"type": "text", "text": ""}, _meta={"usage": usage})

    one = of(inputTokens=100, outputTokens=10, totalTokens=110, cachedReadTokens=60, thoughtTokens=4)
    talk = [
        *OPENING,
        ("<", one),  # an old one, shown again
        *asked(one, one, result(2, stopReason="end_turn")),
        *asked(one, result(3, stopReason="end_turn", usage=USAGE), identity=3),
        *asked(of(inputTokens=-1), result(4, stopReason="end_turn"), identity=4),
        *asked(result(5, stopReason="end_turn"), identity=5),
    ]
    first, second, third, last = prompts(talk)
    twice = {"input_tokens": 80, "cache_read_tokens": 120, "output_tokens": 20, "reasoning_tokens": 8}
    assert (first.rows, first.reason) == ((("m-1", twice),), "")
    assert second.rows == (("m-1", COUNTS),)
    assert third.rows == () and "inputTokens" in third.reason
    assert last.rows == () and last.reason == "the agent does not state what a prompt used"


def test_gemini_states_each_model_and_not_what_was_cached() -> None:
    rows = [
        {"model": name, "token_count": {"input_tokens": 100 * number, "output_tokens": number}}
        for number, name in enumerate("abc")
    ]
    [prompt] = prompts([*OPENING, *asked(result(2, stopReason="end_turn", _meta={"quota": {"model_usage": rows}}))])
    assert [(model, counts["input_tokens"]) for model, counts in prompt.rows] == [("a", 0), ("b", 100), ("c", 200)]
    totals = list(read_acp.totals(prompt, {"source": "acp", "client": "x"}))
    assert len({total["id"] for total in totals}) == 3 and {total["usage"] for total in totals} == {"partial"}


def test_grok_states_each_model_with_its_subagents() -> None:
    row = {"inputTokens": 68829, "outputTokens": 1293, "totalTokens": 70122, "cachedReadTokens": 41164, "cacheCreationTokens": 0,
           "reasoningTokens": 271, "modelCalls": 6}  # fmt: skip
    meta = {"usage": {**row, "modelUsage": {"g-1": row}, "numTurns": 4}, "inputTokens": 18428, "modelId": "g-1"}
    [prompt] = prompts([*OPENING, *asked(result(2, stopReason="end_turn", _meta=meta))])
    counts = {"input_tokens": 27665, "cache_read_tokens": 41164, "output_tokens": 1293, "reasoning_tokens": 271}
    assert (prompt.rows, prompt.reason) == ((("g-1", counts),), "")


NOISE: list[tuple[str, bytes]] = [
    ("<", update("agent_message_chunk", content={"type": "text", "text": 'a "secret" \\ \u20ac'})),
    ("<", ask(2, "session/request_permission", sessionId="s-1", options=[])),  # the agent's own request has its own numbers
    (">", result(2, outcome={"outcome": "selected", "optionId": "x"})),
    ("<", b"not JSON\n"),
    ("<", b"[]\n{}\n[1, null]\n\n\r\n"),
    (">", line(method="session/cancel", params={"sessionId": "s-1"})),
    ("<", ask(9, "fs/read_text_file", sessionId="s-1", path="/srv/app/a")),
    (">", result(9, content="x" * 300_000 + '\\"stopReason": "end_turn"')),
]
TALK = [
    *OPENING,
    *NOISE,
    *asked(*(data for way, data in NOISE if way == "<"), result(2, stopReason="end_turn", usage=USAGE)),
]


@given(st.lists(st.integers(1, 400), max_size=30))
def test_pieces_do_not_matter(sizes: list[int]) -> None:
    """The stream of each direction is cut anywhere; what is asked still comes before what is answered."""
    pieces: list[tuple[str, bytes]] = []
    for way, data in TALK:
        at = 0
        for size in sizes:
            pieces.append((way, data[at : at + size]))
            at += size
        pieces.append((way, data[at:]))
    whole, cut = prompts(TALK), prompts(pieces)
    assert [prompt[:4] + prompt[6:] for prompt in cut] == [prompt[:4] + prompt[6:] for prompt in whole] and len(whole) == 1


@given(st.text(st.sampled_from('ab"\\\u20ac\n{}[]:,'), max_size=60), st.integers(1, 9))
def test_long_texts_are_left_out_and_the_rest_stays(text: str, step: int) -> None:
    """A line that is long is still JSON when its long texts are gone; short ones are whole."""
    message = {"id": 7, "text": text, "long": text + "x" * 600_000 + text, text + "k": [text, {"n": 1.5}]}
    data = json.dumps(message).encode()
    lines = read_acp.Lines()
    got: list[bytes] = []
    for at in range(0, len(data), 60_000 * step + step):
        got += lines.feed(data[at : at + 60_000 * step + step])
    got += lines.feed(b"\n")
    assert [json.loads(each) for each in got] == [message | {"long": ""}]


def test_a_line_of_100_mb_is_counted_and_not_held() -> None:
    block = b"x" * (1 << 20)
    head = b'{"jsonrpc":"2.0","method":"session/prompt","params":{"prompt":[{"type":"image","data":"'
    talk: list[tuple[str, bytes]] = [
        *OPENING,
        (">", head),
        *[(">", block)] * 100,
        (">", b'"}],"sessionId":"s-1"},"id":5}\n'),
    ]
    talk.append(("<", result(5, stopReason="end_turn", usage=USAGE)))
    tracemalloc.start()
    [prompt] = prompts(talk)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert prompt.rows == (("m-1", COUNTS),) and most < 8 << 20


def test_a_line_that_is_too_long_without_texts_is_left_out() -> None:
    talk = [*OPENING, ("<", b"[" + b"1," * 2_000_000 + b"1]\n"), *asked(result(2, stopReason="end_turn", usage=USAGE))]
    assert len(prompts(talk)) == 1


def test_what_is_remembered_is_bounded() -> None:
    meter = read_acp.Meter()
    for number in range(3000):
        meter.request(ask(number, "session/prompt", sessionId=f"s-{number}", prompt=[]), number)
        list(
            meter.answer(
                line(
                    method="session/update", params={"sessionId": f"s-{number}", "update": {"sessionUpdate": "state_update"}}
                ),
                1,
            )
        )
    assert len(meter.open) == 1000 and len(meter.sessions) == 1000


@pytest.mark.parametrize(
    ("words", "name", "client"),
    [
        (("gemini", "--acp"), "", "gemini-cli"),
        (("npx", "-y", "@google/gemini-cli@0.61.0", "--acp"), "", "gemini-cli"),
        (("/opt/bin/qwen", "--acp"), "", "qwen-code"),
        (("made",), "", "unknown"),
        (("made",), "Gemini-CLI", "gemini-cli"),
        (("made",), "Another Agent", "another-agent"),
    ],
)
def test_the_client_is_the_one_whose_log_has_the_sessions(words: tuple[str, ...], name: str, client: str) -> None:
    meter = read_acp.Meter(words)
    meter.request(ask(0, "initialize"), 0)
    list(meter.answer(result(0, agentInfo={"name": name, "version": "1"} if name else None), 0))
    assert meter.client == client


@pytest.mark.parametrize(
    ("client", "choice", "billing"),
    [
        ("qwen-code", "$runtime|openai|gpt-5.4(openai)", ("gpt-5.4", "")),
        ("opencode", "anthropic/claude-opus-4-8", ("claude-opus-4-8", "anthropic")),
        ("opencode", "openrouter/anthropic/claude-opus-4-8", ("anthropic/claude-opus-4-8", "openrouter")),
        ("x", "anthropic/claude-opus-4-8", ("anthropic/claude-opus-4-8", "")),
        ("claude-code", "opus[1m]", ("opus", "")),
        *(("x", name, ("", "")) for name in ("", "default", "auto", "Auto", "auto-gemini-3")),
        ("x", "automodel-1", ("automodel-1", "")),
    ],
)
def test_a_choice_that_names_no_model_is_none(client: str, choice: str, billing: tuple[str, str]) -> None:
    assert read_acp.billing_of(client, choice) == billing
