"""Tags: what clients themselves say that a turn was made for, or by, or on. Never guessed."""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, claude, codex_count, codex_meta, codex_model, examples, lines, objects, put
from tokenops import (
    costs,
    events,
    fields,
    joins,
    pricing,
    read_claude_turns,
    read_clients,
    read_lines,
    read_records,
    rollup,
    sync_gather,
    when,
)
from tokenops.read_contract import Files, Intake, Options

FOLDER = ".claude/projects/-home-ada-app"
NAMES = {
    "attributionAgent": "subagent",
    "attributionSkill": "skill",
    "attributionPlugin": "plugin",
    "attributionMcpServer": "mcp_server",
    "attributionMcpTool": "mcp_tool",
    "perTurnEffort": "effort",
    "gitBranch": "branch",
}


def tags_of(turn: Json) -> Json:
    return {name: turn[name] for name in events.TAGS if name in turn}


def read(source: str, *paths: pathlib.Path) -> dict[str, Json]:
    """The turns in some files, by identity."""
    reader = next(client.reader() for client in read_clients.CLIENTS if client.source == source)
    starts = {str(path): read_lines.Cursor() for path in paths}
    files = Files(list(starts), lambda path: {}, frozenset(starts))
    batch = sync_gather.read(reader, starts, Options(), 1, files=files)
    assert not batch.rejected
    turns = map(read_records.record, batch.entries)
    return {turn["id"]: turn for turn in turns if turn["kind"] == "turn"}


def claude_turn(path: pathlib.Path, *records: Json) -> Json:
    (turn,) = read("claude-code-jsonl", put(path, *records)).values()
    return turn


STATED = st.fixed_dictionaries(
    {}, optional={key: st.sampled_from(["a", "b", "", None, 7, "[trimmed]"]) for key in (*NAMES, "effort")}
)


@examples(150)
@given(st.lists(st.tuples(STATED, st.integers(1, 3), st.booleans()), min_size=1, max_size=3))
def test_both_ways_to_read_a_line_find_the_same_tags(tmp_path_factory: Any, copies: list[tuple[Json, int, bool]]) -> None:
    """A line of the usual shape is taken in by a faster way; with a fee in its usage it is not."""
    records = [
        claude("msg_1", output, isSidechain=side, agentId="x" if side else ..., **stated) for stated, output, side in copies
    ]
    path = tmp_path_factory.mktemp("logs") / FOLDER / "s1.jsonl"
    put(path, *records)
    turns = read_claude_turns.Turns(Intake())
    turns.read(str(path), read_lines.Cursor())
    (quick,) = [*map(read_records.turn_of, turns.light_turns()), *turns.other_events()]
    slow = list(turns_one_by_one(path))
    joined = slow[0]
    for other in slow[1:]:
        joined = joins.join(joined, other)
    assert list(quick.items()) == list(events.arrange(joined).items())
    assert not fields.fault(quick)


def turns_one_by_one(path: pathlib.Path) -> list[Json]:
    return [event for _, event in read_claude_turns.line_by_line(str(path), Intake())]


@pytest.mark.parametrize("key", NAMES)
def test_each_key_of_a_line_is_a_tag_and_an_absent_one_none(key: str, tmp_path: pathlib.Path) -> None:
    assert tags_of(claude_turn(tmp_path / "s1.jsonl", claude(**{key: "name"}))) == {NAMES[key]: "name"}
    assert tags_of(claude_turn(tmp_path / "s2.jsonl", claude())) == {}


@pytest.mark.parametrize("value", ["", None, 7, ["a"], "[redacted]", "<branch>", "a\x1b[31mb", "REDACTED_1"])
def test_what_is_no_name_is_no_tag(value: object, tmp_path: pathlib.Path) -> None:
    assert tags_of(claude_turn(tmp_path / "s1.jsonl", claude(gitBranch=value, attributionSkill=value))) == {}


def test_a_long_name_is_cut_to_what_the_log_takes(tmp_path: pathlib.Path) -> None:
    turn = claude_turn(tmp_path / "s1.jsonl", claude(gitBranch="b" * 900))
    assert tags_of(turn) == {"branch": "b" * events.LONGEST}
    assert not fields.fault(turn)
    assert fields.fault(turn | {"branch": "b" * 900}) == "branch has more than 200 characters; longer text is not stored"


def test_the_effort_of_the_request_counts_before_that_of_the_session(tmp_path: pathlib.Path) -> None:
    assert claude_turn(tmp_path / "s1.jsonl", claude(effort="high", perTurnEffort="low"))["effort"] == "low"
    assert claude_turn(tmp_path / "s2.jsonl", claude(effort="high"))["effort"] == "high"


@pytest.mark.parametrize("below", ["subagents/agent-x1.jsonl", "subagents/workflows/wf_1/agent-x1.jsonl"])
def test_the_kind_of_a_subagent_may_stand_beside_its_file(below: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / FOLDER / "s1" / below
    put(path.with_name("agent-x1.meta.json"), json.dumps({"agentType": "Explore", "description": "secret"}).encode())
    own = claude("msg_1", isSidechain=True, agentId="x1")
    assert tags_of(claude_turn(path, own)) == {"subagent": "Explore"}
    assert tags_of(claude_turn(path, own | {"attributionAgent": "Plan"})) == {"subagent": "Plan"}
    # Lines that were copied from elsewhere are not that subagent's.
    for other in ({"agentId": "x2"}, {"isSidechain": False}, {"agentId": None}):
        assert tags_of(claude_turn(path, own | other)) == {}


@pytest.mark.parametrize("beside", [b"", b"[]", b'{"agentType": 7}', b'{"agentType": "[x]"}', b"\xff{"])
def test_a_file_beside_it_that_says_nothing_tags_nothing(beside: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / FOLDER / "s1/subagents/agent-x1.jsonl"
    put(path.with_name("agent-x1.meta.json"), beside)
    assert tags_of(claude_turn(path, claude("msg_1", isSidechain=True, agentId="x1"))) == {}


def test_a_pipe_beside_it_makes_nobody_wait(tmp_path: pathlib.Path) -> None:
    import os

    path = put(tmp_path / FOLDER / "s1/subagents/agent-x1.jsonl", claude("msg_1", isSidechain=True, agentId="x1"))
    os.mkfifo(path.with_name("agent-x1.meta.json"))
    assert [tags_of(turn) for turn in read("claude-code-jsonl", path).values()] == [{}]


ROLES = [
    ({"source": "cli"}, ""),
    ({"source": {"subagent": "review"}, "thread_source": "subagent"}, "review"),
    ({"source": {"subagent": {"other": "guardian"}}}, "guardian"),
    ({"source": {"subagent": {"thread_spawn": {"parent_thread_id": "p", "depth": 1, "agent_role": "worker"}}}}, "worker"),
    ({"source": {"subagent": {"thread_spawn": {"parent_thread_id": "p", "depth": 1}}}}, "thread_spawn"),
    ({"source": {"subagent": {"thread_spawn": {"parent_thread_id": "p"}}}, "agent_role": "explorer"}, "explorer"),
    ({"source": {"subagent": 7}}, ""),
    ({"source": {"subagent": {}}}, ""),
]


@pytest.mark.parametrize(("meta", "subagent"), ROLES)
def test_codex_names_the_role_of_a_thread_or_how_it_was_spawned(meta: Json, subagent: str, tmp_path: pathlib.Path) -> None:
    path = put(tmp_path / "rollout-1.jsonl", codex_meta("t1", **meta), codex_model("m"), codex_count((9, 0, 1, 0), None))
    (turn,) = read("codex-jsonl", path).values()
    assert turn.get("subagent", "") == subagent


def test_codex_states_branch_and_effort(tmp_path: pathlib.Path) -> None:
    """The effort is that of each turn; `null` is none."""
    rollout = [codex_meta("t1", git={"branch": "fix/a", "commit_hash": "c0ffee"})]
    for number, effort in enumerate(["high", "low", None], 1):
        sums = (9 * number, 0, number, 0)
        rollout += [codex_model("m", effort=effort), codex_count(sums, None, f"2026-05-02T10:00:0{number}.000Z")]
    turns = read("codex-jsonl", put(tmp_path / "rollout-1.jsonl", *rollout)).values()
    assert [tags_of(turn) for turn in turns] == [
        {"effort": "high", "branch": "fix/a"},
        {"effort": "low", "branch": "fix/a"},
        {"branch": "fix/a"},
    ]


def test_a_codex_rollout_that_grows_keeps_its_tags(tmp_path: pathlib.Path) -> None:
    """What its first lines stated holds for those that are read later."""
    reader = next(client.reader() for client in read_clients.CLIENTS if client.source == "codex-jsonl")
    meta = codex_meta("t1", git={"branch": "b"}, source={"subagent": "review"})
    path = put(tmp_path / "rollout-1.jsonl", meta, codex_model("m", effort="high"), codex_count((9, 0, 1, 0), None))
    first = sync_gather.read(reader, {str(path): read_lines.Cursor()}, Options(resumable=True), 1)
    with path.open("ab") as file:
        file.write(lines([codex_count((19, 0, 2, 0), None, "2026-05-02T10:00:19.000Z")]))
    end = first.positions[str(path)]
    cursor = read_lines.Cursor(end.offset, end.number, json.loads(json.dumps(end.state)))
    (entry,) = sync_gather.read(reader, {str(path): cursor}, Options(resumable=True), 1).entries
    assert tags_of(read_records.record(entry)) == {"subagent": "review", "effort": "high", "branch": "b"}


def sighting(**given_keys: Any) -> Json:
    base = {
        "v": 1,
        "ts": "2026-03-01T09:00:00.000Z",
        "kind": "turn",
        "id": "x",
        "source": "claude-code-jsonl",
        "revision": 2,
    }
    return events.arrange(base | {"model": "m", "turns": 1, "output_tokens": 5} | given_keys)


def test_sightings_add_up_to_all_tags_in_any_order() -> None:
    """An old line of the log has none; the proxy knows the effort, and nothing else that a log says otherwise."""
    seen = [
        sighting(),
        sighting(branch="main", skill="review"),
        sighting(source="proxy", effort="high", subagent="x"),
    ]
    seen[2].pop("revision")
    for order in itertools.permutations(seen):
        (turn,) = joins.join_all(order)
        assert tags_of(turn) == {"skill": "review", "effort": "high", "branch": "main"}


CATALOGUE = pricing.load()


def spent(turns: list[Json], *by: str) -> list[Json]:
    return costs.rows(turns, rollup.Grouping(by, when.UTC, CATALOGUE), True, pytest.fail)


def turns_of(*given_keys: Json) -> list[Json]:
    base = {"client": "claude-code", "session_id": "s1", "provider": "anthropic", "model": "claude-opus-4-6"}
    return [sighting(id=f"t{number}", **base | keys) for number, keys in enumerate(given_keys)]


@examples(100)
@given(
    st.lists(st.fixed_dictionaries({}, optional={name: st.sampled_from(["a", "b"]) for name in events.TAGS}), min_size=1),
    st.lists(st.sampled_from((*events.TAGS, "project", "day")), min_size=1, max_size=3, unique=True),
)
def test_the_sums_by_any_tags_add_up(stated: list[Json], by: list[str]) -> None:
    """A turn counts once, whatever it has and lacks; a row lacks a field that its turns lack."""
    rows = spent(turns_of(*stated), *by)
    assert costs.total_of(rows)["turns"] == len(stated)
    assert costs.total_of(rows)["cost_usd"] == costs.total_of(spent(turns_of(*stated)))["cost_usd"]
    for name in set(by) & set(events.TAGS):
        assert {row.get(name) for row in rows} == {turn.get(name) for turn in stated}


SAYS = [  # the tag, what the turns state beside it, and the remark on those without it
    ("skill", [{"effort": "low"}, {}, {}, {"skill": "a"}], "33.3% of the unmarked turns had no skill; of the others it is"),
    ("mcp_server", [{"effort": "low"}], "unmarked turns had no MCP server"),
    ("branch", [{"client": "codex", "effort": "low"}], "unmarked turns had no branch"),
    ("skill", [{"client": "codex", "effort": "low"}], "the client, or its version, does not state the skill"),
    ("effort", [{}, {"effort": "low"}], "the client, or its version, does not state the effort"),
    ("skill", [{"skill": "a"}], None),
    ("project", [{}], None),
]


@pytest.mark.parametrize(("tag", "stated", "remark"), SAYS)
def test_a_remark_says_how_many_unmarked_turns_would_have_been_marked(tag: str, stated: list[Json], remark: str) -> None:
    rows = spent(turns_of(*stated), tag)
    notes = list(costs.tag_notes(rows))
    assert len(notes) == (remark is not None)
    assert all(remark in note for note in notes)
    if remark:
        assert "unmarked" in costs.table(rows, "table", False)


def test_a_table_and_json_of_the_log_by_tag(run: Run, environment: dict[str, str]) -> None:
    """Of closed days, from their summaries, and from a stream alike; JSON leaves out what is not stated."""
    stated = [{"gitBranch": "main", "effort": "high", "attributionSkill": "review"}, {"gitBranch": "main"}]
    home = pathlib.Path(environment["HOME"])
    records = [claude(f"msg_{number}", uuid=f"u{number}", **keys) for number, keys in enumerate(stated)]
    put(home / FOLDER / "s1.jsonl", *records)
    for _ in range(2):
        rows = objects(run("tok-cost --log --since all --by skill --json").stdout)
        assert [(row.get("skill"), row["turns"]) for row in rows] == [("review", 1), (None, 1)]
    rolled = objects(run("tok-read | tok-rollup --by branch,skill | tok-rollup --by branch --merge").stdout)
    assert [(row["branch"], row["turns"]) for row in rolled] == [("main", 2)]
    table = run("tok-cost --log --since all --by skill --table").stdout.decode()
    assert "\nnote: unmarked: the client, or its version, does not state the skill" in table
