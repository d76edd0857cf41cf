"""Records of the kind `context`: their join, what the log's doors accept, and that reports are the same without them."""

from __future__ import annotations

import gzip
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import OWNERS, Run, examples, joins_by_the_laws, lines, objects, put
from tokenops import events, fields, joins, jsonl, store, store_days, store_folded, store_upkeep

Json = dict[str, Any]

DAY, TS = "2026-03-01", "2026-03-01T09:00:00.000Z"
SIZES = st.dictionaries(st.sampled_from(["prompt", "result Read", "result Bash|npm test", "reply"]), st.integers(1, 3))
CONTEXT = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "ts": st.sampled_from([TS, "2026-03-01T09:00:01.000Z"]),
        "kind": st.just("context"),
        "id": st.just("context:msg_1"),
        "source": st.sampled_from(["claude-code-jsonl", "opencode"]),
        "turn": st.just("msg_1"),
    },
    optional={
        "revision": st.sampled_from([1, 2, 3]),
        "session_id": st.sampled_from(["s1", "s2"]),
        "sidechain": st.just(True),
        "chain": st.sampled_from(["a1", "a2"]),
        "parent": st.sampled_from(["msg_0", "msg_9"]),
        "event": st.just("compaction"),
        "miss": st.sampled_from(["tools_changed", "system_changed"]),
        "version": st.sampled_from(["2.1.9", "2.1.10"]),
        "entered": SIZES,
        "produced": SIZES,
        "parts": SIZES,
        "tools": SIZES,
        "prefix": st.integers(0, 2),
        "changed": st.sampled_from(["tool Bash", "message 3"]),
        **OWNERS,
    },
)


@examples(150)
@given(CONTEXT, CONTEXT, CONTEXT)
def test_join(a: Json, b: Json, c: Json) -> None:
    joins_by_the_laws(a, b, c)


def context(name: str = "msg_1", **more: Any) -> Json:
    base = {"v": 1, "ts": TS, "kind": "context", "id": f"context:{name}", "source": "claude-code-jsonl", "revision": 2}
    return events.arrange(base | {"client": "claude-code", "session_id": "s1", "turn": name} | more)


def turn(name: str = "msg_1", **more: Any) -> Json:
    base = {"v": 1, "ts": TS, "kind": "turn", "id": name, "source": "claude-code-jsonl", "revision": 2, "turns": 1}
    counts = {"provider": "anthropic", "model": "claude-opus-4-6", "input_tokens": 5, "output_tokens": 7}
    return events.arrange(base | {"client": "claude-code", "session_id": "s1"} | counts | more)


def test_an_answer_that_grows_and_a_copy_on_a_side_chain_join_into_the_whole_one() -> None:
    early = context(parent="msg_0", entered={"prompt": 9}, produced={"thinking": 4})
    late = context(parent="msg_0", entered={"prompt": 9}, produced={"thinking": 4, "reply": 6, "call Read": 2})
    copy = context(chain="a1", sidechain=True, entered={"prompt": 999}, session_id="s2")
    joined = joins.join(joins.join(copy, early), late)
    assert joined == events.arrange(late)


@pytest.mark.parametrize(
    "wrong",
    [
        {"entered": {"prompt": "the words of a prompt"}},
        {"entered": {"please delete the old orchard": 3}},
        {"produced": {"call Bash|rm -rf /home/ann/diary": 3}},
        {"produced": {"Prompt": 3}},
        {"entered": {"prompt": -1}},
        {"entered": {"result " + "x" * 129: 1}},
        {"entered": {"result Ünï": 1}},
        {"entered": {f"result {n} {'x' * 39}": 1 for n in range(90)}},
        {"text": "hello"},
        {"input_tokens": "many"},
    ],
)
def test_the_log_takes_no_text(wrong: Json) -> None:
    right = context(entered={"prompt": 1, "result mcp__srv__tool": 2, "result Bash|npm test": 3}, produced={"reply": 1})
    assert not fields.fault(right)
    assert fields.fault(right | wrong)


def test_reports_are_the_same_with_them_and_tok_cat_prints_them(
    run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Of an open day and of closed ones; a packed log too."""
    turns = [turn(f"msg_{n}", ts=f"2026-03-0{n}T10:00:00.000Z") for n in range(1, 5)]
    sizes = [context(event["id"], ts=event["ts"], entered={"prompt": 7}) for event in turns]
    path = put(tmp_path / "turns.jsonl", lines(turns))
    now = {"TOKENOPS_NOW": "2026-03-04T12:00:00Z"}
    without_as_of = '| sed \'s/,"as_of":"[^"]*"//\''  # when the log was written last
    reports = [f"tok-cost --log --since 2026-03-01 --json --by day {without_as_of}", "tok-cat | tok-rollup --by day"]
    run(f"tok-log import {path}", env=now)
    before = [run(report, env=now).stdout for report in reports]
    assert all(before)
    run("tok-log append -", given=lines(sizes), env=now)
    assert [run(report, env=now).stdout for report in reports] == before
    assert objects(run("tok-cat --kind context --since 2026-03-01", env=now).stdout) == sizes
    assert len(objects(run("tok-cat --since 2026-03-01", env=now).stdout)) == len(turns)
    assert len(objects(run("tok-cat --since 2026-03-01 --kind all", env=now).stdout)) == len(turns) + len(sizes)
    run("tok-log compact --gzip", env=now)
    assert [run(report, env=now).stdout for report in reports] == before
    assert objects(run("tok-cat --kind context --since 2026-03-01", env=now).stdout) == sizes


def test_compaction_joins_their_sightings(tmp_path: pathlib.Path) -> None:
    early, late = context(produced={"thinking": 4}), context(produced={"thinking": 4, "reply": 6})
    store.append(str(tmp_path), map(jsonl.line_of, [early, turn(), late, early]))
    assert [each.after for each in store_upkeep.compact(str(tmp_path), "2026-03-02", pack=True)] == [2]
    stored = gzip.decompress((tmp_path / "events" / f"{DAY}.jsonl.gz").read_bytes())
    assert [json.loads(part) for line in stored.splitlines(True) for part in store_folded.unfold(line)] == [turn(), late]
    assert [json.loads(line) for line in store.scan(str(tmp_path))] == [turn()]
    assert [json.loads(line) for line in store.scan(str(tmp_path), context=True)] == [late, turn()]
    assert store.new_lines(str(tmp_path), [jsonl.line_of(early)]) == ([], 0)


def test_open_days_pass_them_over_as_they_come(tmp_path: pathlib.Path) -> None:
    days = store_days.OpenDays(str(tmp_path))
    store.append(str(tmp_path), map(jsonl.line_of, [context(), turn()]))
    assert days.events(DAY) == [turn()]
    store.append(str(tmp_path), map(jsonl.line_of, [context("msg_2"), turn("msg_2")]))
    assert days.events(DAY) == [turn(), turn("msg_2")]
