"""What entered the context of each turn of Kimi CLI's and Kimi Code's sessions, as sizes."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from test_read_kimi import HEAD, START, cli, code, record, request, status, wire, wrapped

from conftest import Json, lines, put
from tokenops import readers, store, sync

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAu4AAAAB"  # 750 pixels wide, 1 high
COMMAND = {"command": "cd /x && git diff secret"}
SIZE = len('{"command":"cd /x && git diff secret"}')


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def call(name: str = "Shell") -> Json:
    return wire("ToolCall", type="function", id="c1", function={"name": name, "arguments": json.dumps(COMMAND, indent=1)})


def result(output: Any) -> Json:
    value = {"is_error": False, "output": output, "message": "ok", "display": [{"text": "secret"}]}
    return wire("ToolResult", tool_call_id="c1", return_value=value)


# A result may come before the status of the step that called for it, or after.
EARLY = [
    HEAD,
    wire("TurnBegin", user_input="look"),
    wire("StepBegin", n=1),
    wire("ContentPart", type="think", think="hmm!"),
    wire("ContentPart", **text("so")),
    call(),
    result("größe"),
    status("m1"),
    wire("StepBegin", START + 5, n=2),
    wire("ContentPart", **text("done")),
    status("m2", START + 6),
    wire("TurnBegin", user_input=[text("on"), {"type": "image_url", "image_url": {"url": PNG}}]),
    wire("StepBegin", START + 7, n=1),
    wire("ContentPart", **text("yes")),
    status("m3", START + 8),
]
LATE = [*EARLY[:6], EARLY[7], EARLY[6], *EARLY[8:]]


def loop(kind: str, **event: Any) -> Json:
    return {"type": "context.append_loop_event", "agentId": "main", "event": {"type": kind, **event}, "time": 1779015604000}


def part(value: str, kind: str = "text") -> Json:
    return loop("content.part", part={"type": kind, kind: value})


def prompt(*content: Json, origin: str = "user") -> Json:
    message = {"role": "user", "content": content, "toolCalls": [], "origin": {"kind": origin}}
    return {"type": "context.append_message", "agentId": "main", "message": message, "time": 1779015600000}


def used(second: int, **more: Any) -> list[Json]:
    """What stands between the beginning of a step and its texts."""
    at = 1779015600000 + 1000 * second
    return [loop("step.begin"), request(at - 500), record(at, output=181 + second, **more)]


CODE = [
    HEAD,
    {"type": "turn.prompt", "input": [text("look")], "origin": {"kind": "user"}, "time": 1779015600000},
    prompt(text("look")),
    *used(1),
    part("hmm!", "think"),
    part("so"),
    loop("tool.call", toolCallId="c1", name="Bash", args=COMMAND, display={"command": "secret"}),
    loop("tool.result", toolCallId="c1", result={"output": "größe"}),
    loop("step.end", finishReason="tool_use"),
    {"type": "agent.message.appended", "message": {"message": {"role": "assistant", "content": [text("secret")]}}},
    *used(2),
    part("done"),
    loop("step.end", finishReason="end_turn"),
    prompt(text("on"), {"type": "image_url", "imageUrl": {"url": PNG}}),
    prompt(text("remind"), origin="injection"),
    *used(3),
    part("yes"),
    loop("step.end", finishReason="end_turn"),
]
AGAIN = [*used(5), part("yes"), loop("step.end", finishReason="end_turn")]


def contexts(root: pathlib.Path, log: pathlib.Path) -> list[Json]:
    sync.run(str(log), list(readers.with_files(["kimi"], [], {}, str(root))))
    events = [json.loads(row) for row in store.scan(str(log), context=True)]
    assert b"secret" not in b"".join(file.read_bytes() for file in log.rglob("*") if file.is_file())
    found = [event for event in events if event["kind"] == "context"]
    assert sorted(event["turn"] for event in found) == sorted(event["id"] for event in events if event["kind"] == "turn")
    return found


def check(found: list[Json], tool: str, result: int, prompt: int) -> None:
    assert found[0]["produced"] == {f"call {tool}|git diff": SIZE, "reply": 2, "thinking": 4}
    assert found[1]["entered"] == {f"result {tool}|git diff": result}
    assert found[2]["entered"] == {"image": 3, "prompt": prompt} and found[2]["produced"] == {"reply": 3}
    assert [event.get("parent") for event in found[:3]] == [None, found[0]["turn"], found[1]["turn"]]


@pytest.mark.parametrize("rows", [EARLY, LATE], ids=["early", "late"])
@pytest.mark.parametrize("cut", range(1, len(EARLY)))
def test_a_session_of_kimi_cli_in_any_two_pieces(rows: list[Json], cut: int, tmp_path: pathlib.Path) -> None:
    pieces(cli(tmp_path), rows, cut, tmp_path)
    check(contexts(tmp_path, tmp_path / "log"), "Shell", 5 + len("ok"), 2)


@pytest.mark.parametrize("cut", range(1, len(CODE)))
def test_a_session_of_kimi_code_in_any_two_pieces(cut: int, tmp_path: pathlib.Path) -> None:
    pieces(code(tmp_path), CODE, cut, tmp_path)
    check(contexts(tmp_path, tmp_path / "log"), "Bash", 5, 2 + 6)


def pieces(path: pathlib.Path, rows: list[Json], cut: int, home: pathlib.Path) -> None:
    put(path, lines(rows[:cut]))
    sync.run(str(home / "log"), list(readers.with_files(["kimi"], [], {}, str(home))))
    put(path, lines(rows))


def test_subagents_are_chains_of_their_own(tmp_path: pathlib.Path) -> None:
    inside = [wrapped(row) for row in EARLY[2:8]]
    put(cli(tmp_path), lines([*EARLY[:7], *(row for row in inside if "StatusUpdate" not in str(row)),
                              wrapped(status("m9", START + 3, output=7)), *EARLY[7:]]))  # fmt: skip
    found = contexts(tmp_path, tmp_path / "log")
    main, aside = ([event for event in found if ("chain" in event) is side] for side in (False, True))
    check(main, "Shell", 5 + len("ok"), 2)
    assert [event["chain"] for event in aside] == ["a1"] and aside[0]["sidechain"]
    assert aside[0]["produced"] == main[0]["produced"]


def test_a_file_of_a_subagent_is_a_chain(tmp_path: pathlib.Path) -> None:
    put(code(tmp_path, agent="explore-1"), lines(CODE))
    found = contexts(tmp_path, tmp_path / "log")
    check(found, "Bash", 5, 2 + 6)
    assert {event["chain"] for event in found} == {"explore-1"}


CONDENSED = {"type": "context.apply_compaction", "summary": "short", "contextSummary": "in short", "compactedCount": 4}


@pytest.mark.parametrize(
    ("home", "rows", "parent", "entered", "event"),
    [
        (code, [*CODE, CONDENSED, prompt(text("more")), *AGAIN], 2, {"prompt": 4, "summary": 8}, "compaction"),
        (code, [*CODE, {"type": "context.undo", "count": 1}, prompt(text("more")), *AGAIN], 1, {"prompt": 4}, None),
        (code, [*CODE, {"type": "context.clear"}, prompt(text("more")), *AGAIN], None, None, None),
        (cli, [*EARLY, wire("StepBegin", START + 9), wire("CompactionBegin"), wire("CompactionEnd"),
               wire("ContentPart", **text("yes")), status("m4", START + 10)], 2, None, "compaction"),
    ],
    ids=["compaction", "undo", "clear", "compaction of kimi-cli"],
)  # fmt: skip
def test_what_changes_the_history(
    home: Callable[[pathlib.Path], pathlib.Path],
    rows: list[Json],
    parent: int | None,
    entered: Json | None,
    event: str | None,
    tmp_path: pathlib.Path,
) -> None:
    put(home(tmp_path), lines(rows))
    found = contexts(tmp_path, tmp_path / "log")
    assert found[3].get("parent") == (None if parent is None else found[parent]["turn"])
    assert (found[3].get("entered"), found[3].get("event")) == (entered, event)


def test_a_step_that_was_cut_off_has_its_sizes_when_the_next_begins(tmp_path: pathlib.Path) -> None:
    put(code(tmp_path), lines([*(row for row in CODE if row.get("event", {}).get("type") != "step.end"), loop("step.end")]))
    check(contexts(tmp_path, tmp_path / "log"), "Bash", 5, 2 + 6)


def test_a_compaction_of_kimi_code_is_no_turn_of_the_chain(tmp_path: pathlib.Path) -> None:
    put(code(tmp_path), lines([*CODE, record(1779015660000, scope="session", output=900)]))
    sync.run(str(tmp_path / "log"), list(readers.with_files(["kimi"], [], {}, str(tmp_path))))
    kinds = [json.loads(row)["kind"] for row in store.scan(str(tmp_path / "log"), context=True)]
    assert (kinds.count("turn"), kinds.count("context")) == (4, 3)
