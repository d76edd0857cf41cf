"""A turn's context in the turn's line: two records go in and come out, to the byte, and nobody but the log's files sees it."""

from __future__ import annotations

import gzip
import json
import pathlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, objects
from tokenops import events, jsonl, read_context, store, store_files, store_folded, store_sessions

TS = "2026-11-01T12:00:00.000Z"
# Names of all kinds: of several parts, with characters that JSON escapes, with the very text that is searched for.
NAME = st.text("ab:0_/", min_size=1, max_size=12) | st.sampled_from(
    ("msg_1", "codex:t:0:1-2", 'a",context":{', 'q"\\', "ü\u2028:1")
)
TEXT = st.sampled_from(("claude-code", "p", 'a"b', "\\", '","context":{"parent":":x"}', "é", ""))
CAUSE = st.sampled_from(
    ("prompt", "version", "parent", "turn", "result Bash|git diff", "call mcp__a__b", "reply", "context")
)
SIZES = st.dictionaries(CAUSE, st.integers(0, 10**9), max_size=4)
BLOCK = dict.fromkeys(
    ("source", "client", "project", "project_id", "account", "agent_id", "workflow_id", "session_id"), TEXT
)
TURN = st.fixed_dictionaries(
    {"id": NAME},
    optional={
        **BLOCK,
        **dict.fromkeys(events.OWNER, TEXT),
        "alias": NAME,
        "revision": st.just(2),
        "sidechain": st.booleans(),
        "output_tokens": st.integers(0, 9),
        "branch": TEXT,
        "status": st.just(200),
    },
)
OWN = st.fixed_dictionaries(
    {},
    optional={
        "entered": SIZES,
        "produced": SIZES,
        "parts": SIZES,
        "parent": NAME,
        "chain": NAME,
        "event": st.just("compaction"),
        "miss": TEXT,
        "version": TEXT,
        "prefix": st.integers(0, 9),
    },
)


def pair(turn: Json, own: Json, other: Json | None = None) -> tuple[bytes, bytes]:
    """The lines of a turn and of its context."""
    head: Json = {"v": 1, "ts": TS}
    context = head | {"kind": "context", "id": f"context:{turn['id']}"} | read_context.attribution_of(turn) | own
    context |= {"turn": turn["id"]} | (other or {})
    whole = head | {"kind": "turn"} | turn
    return jsonl.line_of(events.arrange(whole)), jsonl.line_of(events.arrange(context))


PLAIN = {
    "id": "codex:thread:0:20-10",
    "source": "codex-jsonl",
    "client": "codex",
    "session_id": "thread",
    "output_tokens": 3,
}
SIZED = {"entered": {"prompt": 4}, "parent": "codex:thread:0:10-5", "produced": {"reply": 9}, "version": "1.2"}


@given(st.lists(st.tuples(TURN, OWN), max_size=4), st.randoms(use_true_random=False))
def test_what_goes_in_comes_out(pairs: list[tuple[Json, Json]], order: Any) -> None:
    written = [line for turn, own in pairs for line in pair(turn, own)]
    order.shuffle(written)
    folded = store_folded.fold(written)
    assert sorted(part for line in folded for part in store_folded.unfold(line)) == sorted(written)
    # Nor is a context given to those who do not ask for it, or a turn changed.
    turns = [part for line in folded for part in store_folded.unfold(line, context=False)]
    assert sorted(turns) == sorted(line for line in written if orjson.loads(line)["kind"] == "turn")


_SEEN = TURN.map(lambda turn: {k: v for k, v in turn.items() if k != "alias"} | {"id": f"m{len(turn['id']) % 5}"})


@given(
    st.lists(st.tuples(_SEEN, OWN, st.sampled_from("stu"), st.sampled_from(("", "2026-11-02T00:10:00.000Z"))), max_size=6),
    st.booleans(),
)
def test_a_sessions_records_are_those_of_the_whole_log(
    tmp_path_factory: Any, seen: list[tuple[Json, Json, str, str]], split: bool
) -> None:
    folder = str(tmp_path_factory.mktemp("log"))
    for turn, own, session, ts in seen:
        # A copy in another session is looked for on the same day only.
        written = pair(turn | {"session_id": session, "id": turn["id"] + ts[8:10]}, own)
        written = tuple(line.replace(TS.encode(), ts.encode()) for line in written) if ts else written
        for lines in [[line] for line in written] if split else [list(written)]:
            store.append(folder, lines)
    every = [orjson.loads(line) for _, day in store.records_by_day(folder, context=True) for line in day.lines.values()]
    for sessions in ({"s"}, {"s", "t"}):
        expected = [record for record in every if record.get("session_id") in sessions]
        found = store_sessions.of_sessions(folder, sessions)
        assert sorted(map(events.order_of, found)) == sorted(map(events.order_of, expected))


def test_one_line_is_left_of_two() -> None:
    turn, context = pair(PLAIN, SIZED)
    (line,) = store_folded.fold([context, turn])
    assert orjson.loads(line) == orjson.loads(turn) | {"context": {**SIZED, "parent": ":10-5"}}
    assert len(line) < len(turn) + len(context) / 2
    assert store_folded.unfold(line) == (turn, context)


@pytest.mark.parametrize(
    "other",
    [{"ts": "2026-11-01T12:00:01.000Z"}, {"project": "q"}, {"source": "proxy"}, {"turn": "another"}, {"account": "a"}],
    ids=lambda other: next(iter(other)),
)
def test_a_context_that_says_something_else_keeps_its_line(other: Json) -> None:
    written = pair(PLAIN, SIZED, other)
    assert store_folded.fold(written) == list(written)


@pytest.mark.parametrize("parent", [":10-5", "msg_1", ":", "codex:thread:0:"])
def test_any_parent_comes_back(parent: str) -> None:
    turn, context = pair(PLAIN, {**SIZED, "parent": parent})
    assert [part for line in store_folded.fold([turn, context]) for part in store_folded.unfold(line)] == [turn, context]


def rearranged(line: bytes) -> list[bytes]:
    """A line as other programs write the same object."""
    record = orjson.loads(line)
    return [
        orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE),  # jq -cS
        jsonl.line_of({"context": record["context"], **record}),
        jsonl.line_of(
            {
                "v": record["v"],
                "ts": record["ts"],
                "kind": "turn",
                "id": record["id"],
                "context": record["context"],
                **record,
            }
        ),
        json.dumps(record).encode() + b"\n",
    ]


def test_lines_that_another_program_rearranged_hold_both(run: Run, environment: dict[str, str]) -> None:
    turn, context = pair(PLAIN, SIZED)
    run("tok-log append", turn + context)
    path = pathlib.Path(environment["TOKENOPS_HOME"]) / "events/2026-11-01.jsonl"
    for line in rearranged(path.read_bytes()):
        path.write_bytes(line)
        assert objects(run("tok-cat").stdout) == [orjson.loads(turn)]
        assert objects(run("tok-cat --kind context").stdout) == [orjson.loads(context)]
        assert objects(run("tok-log verify").stdout) == []


def test_a_torn_line_is_a_torn_line(run: Run, environment: dict[str, str]) -> None:
    folder = pathlib.Path(environment["TOKENOPS_HOME"])
    turn, context = pair(PLAIN, SIZED)
    run("tok-log append", turn + context)
    path = folder / "events/2026-11-01.jsonl"
    (line,) = path.read_bytes().splitlines(keepends=True)
    for at in range(1, len(line) - 1):
        path.write_bytes(line[:at] + b"\n")
        assert list(store.scan(str(folder), context=True)) == []
    path.write_bytes(line[:-1])
    assert list(store.scan(str(folder), context=True)) == []
    run("tok-log append", turn)  # the next writer ends the line
    assert list(store.scan(str(folder), context=True)) == [context, turn]


def test_every_reader_of_the_log_is_given_two_records(run: Run, environment: dict[str, str]) -> None:
    folder = environment["TOKENOPS_HOME"]
    written = [line for number in range(3) for line in pair({**PLAIN, "id": f"m{number}"}, SIZED)]
    run("tok-log append", b"".join(written))
    path = pathlib.Path(folder) / "events/2026-11-01.jsonl"
    assert len(path.read_bytes().splitlines()) == 3
    (day,) = store_files.days(folder)
    every, turns = sorted(written), sorted(written[::2])
    assert sorted(store.scan(folder, context=True)) == every
    assert sorted(store.scan(folder)) == turns
    assert sorted(line for _, line in store.sightings(folder, day.name)) == every
    assert sorted(store_files.lines_with(day, b'"session_id":"thread"')) == every
    assert sorted(store_files.lines_with(day, b'"produced"')) == sorted(written[1::2])
    assert store.new_lines(folder, written) == ([], 0)
    assert [record["id"] for _, record in store.sightings_of(folder, "context:m1")] == ["context:m1"]
    assert run("tok-log verify").stdout == b""
    for number, taken in enumerate((f"import {folder}", f"import {path}", f"append {path}", f"append < {path}")):
        other = {"TOKENOPS_HOME": f"{folder}-{number}"}
        run(f"tok-log {taken}", env=other)
        assert sorted(store.scan(other["TOKENOPS_HOME"], context=True)) == every, taken
    assert run(f"tok-rollup --by model < {path}").stdout == run("tok-rollup --by model", b"".join(turns)).stdout


def test_compaction_folds_an_older_log_once(run: Run, environment: dict[str, str]) -> None:
    folder = pathlib.Path(environment["TOKENOPS_HOME"])
    written = [line for number in range(3) for line in pair({**PLAIN, "id": f"m{number}"}, SIZED)]
    run("tok-log append", written[0])
    path = folder / "events/2026-11-01.jsonl"
    path.write_bytes(b"".join(written))  # as it was written before contexts were folded
    before = run("tok-cat --kind turn,context").stdout
    assert objects(run("tok-log compact").stdout)[0]["before"] == 6
    assert len(path.read_bytes().splitlines()) == 3
    assert run("tok-cat --kind turn,context").stdout == before
    assert run("tok-log compact").stdout == b""
    run("tok-log compact --gzip")
    assert len(gzip.decompress((folder / "events/2026-11-01.jsonl.gz").read_bytes()).splitlines()) == 3
    assert run("tok-cat --kind turn,context").stdout == before
    assert run("tok-log compact --gzip").stdout == b""


def glued(turn: bytes) -> dict[str, bytes]:
    """What may stand before a line: what other programs and crashes leave there."""
    torn = turn[: len(turn) // 2]
    return {
        "a byte order mark": jsonl.BOM,
        "zeros": b"\0\0",
        "blanks": b"  ",
        "a whole record": turn[:-1],
        "a torn record": torn,
    }


@pytest.mark.parametrize("before", glued(b"{}"))
@pytest.mark.parametrize("verb", ["append -", "import FILE"])
def test_a_folded_line_is_taken_behind_whatever_its_parts_were(
    verb: str, before: str, run: Run, tmp_path: pathlib.Path, environment: dict[str, str]
) -> None:
    first, _ = pair({**PLAIN, "id": "codex:other:0:5-5"}, SIZED)
    turn, context = pair(PLAIN, SIZED)
    (line,) = store_folded.fold([turn, context])
    path = tmp_path / "lines.jsonl"
    path.write_bytes(glued(first)[before] + line)
    is_torn = before == "a torn record"
    run(f"tok-log {verb}".replace("FILE", str(path)), path.read_bytes(), status=1 if is_torn else 0)
    both = [turn, context, first] if before == "a whole record" else [turn, context]
    assert sorted(store.scan(environment["TOKENOPS_HOME"], context=True)) == sorted(both)


def test_a_context_is_never_given_to_a_turn_that_was_torn_before_it(run: Run, environment: dict[str, str]) -> None:
    first, _ = pair({**PLAIN, "id": "codex:other:0:5-5"}, SIZED)
    (line,) = store_folded.fold(pair(PLAIN, SIZED))
    run("tok-log append", first)
    path = pathlib.Path(environment["TOKENOPS_HOME"]) / "events/2026-11-01.jsonl"
    for at in range(1, len(first)):
        assert store_folded.unfold(first[:at] + line) == (first[:at] + line,), at
    path.write_bytes(first[:-9] + line)
    assert list(store.scan(environment["TOKENOPS_HOME"], context=True)) == []


def test_a_context_in_another_form_is_left_out_where_none_is_asked_for(run: Run, environment: dict[str, str]) -> None:
    turn, context = pair(PLAIN, SIZED)
    run("tok-log append", turn)
    path = pathlib.Path(environment["TOKENOPS_HOME"]) / "events/2026-11-01.jsonl"
    path.write_bytes(turn + orjson.dumps(orjson.loads(context), option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE))
    assert list(store.scan(environment["TOKENOPS_HOME"])) == [turn]
    assert objects(run("tok-cat").stdout) == [orjson.loads(turn)]
    assert objects(run("tok-cat --kind context").stdout) == [orjson.loads(context)]
