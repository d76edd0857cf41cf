"""What entered the context of each turn of Codex's rollouts, as sizes."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

import pytest
from scripts import Codex, in_pieces, new_log

from conftest import Json, codex_count, put
from tokenops import readers, store, sync

FOLDER = ".codex/sessions/2026/06/01"


class Rollout(Codex):
    """A rollout with counts: of each response a count, or its own record and a count."""

    def __init__(self, start: str = "2026-06-01T09:00:00", **meta: Any) -> None:
        super().__init__(start, **meta)
        self.total = (0, 0, 0, 0)
        self.model()

    def model(self) -> None:
        self.line("turn_context", {"turn_id": self.name(), "cwd": "/home/ada/app", "model": "gpt-5.4"}, 0)

    def item(self, kind: str, **payload: Any) -> None:
        self.line("response_item", {"type": kind, **payload}, 1)

    def writes(self, text: str) -> None:
        self.item("message", role="assistant", content=[{"type": "output_text", "text": text}])

    def prompt(self, text: str) -> None:
        self.human(text)

    def calls(self, name: str, call: str, **arguments: Any) -> None:
        self.item("function_call", name=name, call_id=call, arguments=json.dumps(arguments))

    def counts(self, response: str = "", first: bool = False) -> None:
        """The end of a response; `first`: its count stands before its record."""
        last = (1000 + len(self.lines), 500, 20, 5)
        self.total = tuple(a + b for a, b in zip(self.total, last, strict=True))  # type: ignore[assignment]
        count = codex_count(self.total, last)["payload"]
        usage = codex_count(last, None)["payload"]["info"]["total_token_usage"]
        record = {"thread_id": self.thread, "turn_id": "u", "response_id": response, "usage": usage}
        both = [("token_usage_record", record), ("event_msg", count)] if response else [("event_msg", count)]
        for kind, payload in reversed(both) if first else both:
            self.line(kind, payload, 1)


def path_of(script: Codex) -> str:
    return f"{FOLDER}/rollout-2026-06-01T09-00-00-{script.thread}.jsonl"


def sources(root: pathlib.Path) -> list[Any]:
    return list(readers.with_files(["codex"], [str(root)], {}, str(root)))


def in_log(log: pathlib.Path) -> list[Json]:
    return [event for event in map(json.loads, store.scan(str(log), context=True)) if event["kind"] == "context"]


def read(tmp_path: pathlib.Path, *scripts: Codex) -> list[Json]:
    """The contexts of some rollouts, in order of time; each belongs to a turn."""
    for script in scripts:
        put(tmp_path / "home" / path_of(script), script.bytes())
    log = new_log(tmp_path)
    sync.run(str(log), sources(tmp_path / "home"), jobs=1)
    turns = {event["id"]: event for event in map(json.loads, store.scan(str(log))) if event["kind"] == "turn"}
    contexts = in_log(log)
    assert all(turns[event["turn"]]["ts"] == event["ts"] for event in contexts)
    return contexts


def brief(event: Json) -> Json:
    return {key: event[key] for key in ("chain", "event", "entered", "produced") if key in event}


@pytest.mark.parametrize("form", ["count", "record", "count first"])
def test_what_a_response_wrote_and_what_the_next_was_given(form: str, tmp_path: pathlib.Path) -> None:
    """Results may stand before the count of the response that made the calls, or after it."""
    script = Rollout()

    def counts(n: int) -> None:
        script.counts("" if form == "count" else f"resp_{n}abcdef", form == "count first")

    script.prompt("look at it")
    script.item("reasoning", summary=[], encrypted_content="x" * 500)
    script.calls("exec_command", "c1", cmd="cd /x && git diff secret")
    script.gives("c1", "four")
    script.item("function_call", name="look", namespace="mcp__srv", call_id="c2", arguments="{}")
    counts(1)
    script.gives("c2", "12")
    script.item("custom_tool_call", name="apply_patch", call_id="c3", input="*** patch ä")
    script.writes("so")
    counts(2)
    script.item("custom_tool_call_output", call_id="c3", output=[{"type": "input_text", "text": "ok!"}])
    script.prompt("on")
    script.item("message", role="developer", content=[{"type": "input_text", "text": "rules"}])
    script.writes("done")
    counts(3)
    first, second, third = read(tmp_path, script)
    call = len('{"cmd":"cd /x && git diff secret"}')
    assert brief(first) == {"produced": {"call exec_command|git diff": call, "call mcp__srv__look": 2}}
    entered = {"result exec_command|git diff": 4, "result mcp__srv__look": 2}
    assert brief(second) == {"entered": entered, "produced": {"call apply_patch": 11, "reply": 2}}
    assert brief(third) == {"entered": {"prompt": 7, "result apply_patch": 3}, "produced": {"reply": 4}}
    assert "parent" not in first and [second["parent"], third["parent"]] == [first["turn"], second["turn"]]
    assert [event.get("version") for event in (first, second, third)] == ["0.140.0", None, None]


def test_a_compaction(tmp_path: pathlib.Path) -> None:
    script = Rollout()
    script.prompt("look")
    script.writes("so")
    script.counts()
    script.calls("exec_command", "c1", cmd="ls")
    script.line("compacted", {"message": "", "replacement_history": [{"type": "message", "content": [{"text": "x" * 30}]}]})
    script.writes("on")
    script.counts()
    _, second = read(tmp_path, script)
    assert brief(second)["event"] == "compaction" and brief(second)["entered"]["summary"] >= 30


def test_a_forks_first_turn_names_the_copied_turn(tmp_path: pathlib.Path) -> None:
    parent = Rollout()
    parent.prompt("look")
    parent.writes("so")
    parent.counts()
    parent.prompt("on")
    parent.writes("done")
    parent.counts()
    child = Rollout("2026-06-03T09:00:00", forked_from_id=parent.thread, thread_source="user")
    child.lines = child.lines[:1] + [{**line, "timestamp": "2026-06-03T09:00:00.100Z"} for line in parent.lines[1:]]
    child.total = parent.total
    child.model()
    child.prompt("elsewhere")
    child.writes("yes")
    child.counts()
    contexts = read(tmp_path, child, parent)
    assert [event["session_id"] for event in contexts] == [parent.thread, parent.thread, child.thread]
    assert contexts[2]["parent"] == contexts[1]["turn"] and brief(contexts[2])["entered"] == {"prompt": 9}


def test_a_subagent_is_a_chain_of_its_own(tmp_path: pathlib.Path) -> None:
    spawn = {"subagent": {"thread_spawn": {"parent_thread_id": "01900000-0000-7000-8000-000000000009", "depth": 1}}}
    script = Rollout(source=spawn)
    script.prompt("look")
    script.writes("so")
    script.counts()
    script.writes("on")
    script.counts()
    first, second = read(tmp_path, script)
    assert first["chain"] == second["chain"] == script.thread and second["sidechain"] and second["parent"] == first["turn"]


def test_an_agents_answer_is_no_prompt(tmp_path: pathlib.Path) -> None:
    script = Rollout()
    script.prompt("ask")
    script.calls("wait_agent", "c1")
    script.counts()
    script.gives("c1", "it ended")
    script.item("agent_message", author="/lead/look", content=[{"type": "input_text", "text": "seen"}])
    script.writes("so")
    script.counts()
    assert brief(read(tmp_path, script)[1])["entered"] == {"attachment": 4, "result wait_agent": 8}


def test_what_a_subagent_inherits_is_where_its_chain_begins(tmp_path: pathlib.Path) -> None:
    """Codex 0.171 copies the parent's conversation into the subagent's file, without counts: the child wrote none of it."""
    spawn = {"subagent": {"thread_spawn": {"parent_thread_id": "01900000-0000-7000-8000-000000000009", "depth": 1}}}
    script = Rollout(source=spawn, subagent_history_start_ordinal=6)
    script.prompt("a prompt of the parent's")
    script.writes("the parent's")
    script.calls("spawn_agent", "c1", message="look")
    script.item("agent_message", author="/lead", content=[{"type": "input_text", "text": "look"}])
    script.writes("so")
    script.counts()
    script.prompt("more")
    script.writes("on")
    script.counts()
    for ordinal, line in enumerate(script.lines):
        line["ordinal"] = ordinal
    first, second = read(tmp_path, script)
    assert brief(first) == {"chain": script.thread, "produced": {"reply": 2}}
    assert brief(second) == {"chain": script.thread, "entered": {"prompt": 4}, "produced": {"reply": 2}}


def test_nothing_of_any_text_is_stored(tmp_path: pathlib.Path) -> None:
    secret = "sEcrEt"
    script = Rollout(cli_version=f"{secret} version")
    script.prompt(f"{secret} prompt")
    script.calls("exec_command", "c1", cmd=f"{secret}=1 {secret} ; npm run {secret}")
    script.calls(f"{secret} no tool", f"c2 {secret}"[:2], x=secret)
    script.counts()
    script.gives("c1", f"{secret} result")
    script.writes(f"{secret} reply")
    script.counts()
    assert len(read(tmp_path, script)) == 2
    assert secret.encode() not in b"".join(file.read_bytes() for file in (tmp_path / "log").rglob("*") if file.is_file())


def long_thread(rng: random.Random) -> Rollout:
    script = Rollout()
    for n in range(40):
        if rng.random() < 0.5:
            script.prompt(f"prompt number {n} " + "ä" * rng.randrange(9))
        for k in range(rng.randrange(3)):
            script.calls("exec_command", f"c{n}_{k}", cmd="git diff")
            if rng.random() < 0.5:
                script.gives(f"c{n}_{k}", "x" * rng.randrange(30))
        if rng.random() < 0.6:
            script.writes("y" * (n + 1))
        script.counts(f"resp_{n}abcdef" if n > 20 else "", rng.random() < 0.3)
        if n % 17 == 16:
            script.line("compacted", {"message": "the summary"})
    return script


@pytest.mark.parametrize("seed", range(6))
def test_any_pieces_of_a_file_give_what_the_whole_gives(seed: int, tmp_path: pathlib.Path) -> None:
    rng = random.Random(seed)
    script = long_thread(rng)
    content, path = script.bytes(), tmp_path / "home" / path_of(script)
    log, whole = in_pieces(rng, content, path, lambda: sources(tmp_path / "home"))
    assert in_log(log) == in_log(whole) and len(in_log(whole)) == 40
    again = sync.run(str(whole), sources(tmp_path / "home"), backfill=True)
    assert again and not any(outcome.contexts for outcome in again)
