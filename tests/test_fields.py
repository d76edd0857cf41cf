"""Every field of a record, with every absurd value: refused at the door, skipped in the log, fatal nowhere."""

from __future__ import annotations

import json
import pathlib
import re
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROUNDS, Json, Run, examples, lines, objects, put
from tokenops import events, fields, jsonl, store_files

DAY = "2026-11-20"
TS = f"{DAY}T09:00:00.000Z"
NOW = {"TOKENOPS_NOW": f"{DAY}T12:00:00Z"}

BASE: Json = {"v": 1, "ts": TS, "source": "claude-code-jsonl", "client": "claude-code", "project": "orchard"}
BASE |= {"project_id": "abcdef012345", "agent_id": "claude-code:orchard", "workflow_id": "claude-code:orchard:s"}
BASE |= {"session_id": "s", "provider": "anthropic", "model": "claude-opus-4-6"}
# A record of each kind with the fields that it usually has.
RECORDS: dict[str, Json] = {
    "turn": BASE | {"turns": 1, "input_tokens": 5, "output_tokens": 7, "latency_ms": 20, "status": 200},
    "usage": BASE | {"covers": "account", "output_tokens": 7, "until": TS, "observed_at": TS, "cost_usd": "1.5"},
    "meter": BASE | {"window": "weekly", "window_minutes": 10080, "used": 0.5, "resets_at": f"{DAY}T20:00:00.000Z"},
    "work": BASE | {"counts": {"prompts": 1, "bash_calls": 2}, "times": {"first": TS, "last": TS}},
    "context": BASE
    | {"turn": "t1", "parent": "t0", "entered": {"prompt": 3, "result Bash|npm test": 2}, "produced": {"reply": 1}},
    "task": BASE | {"task": "20261120-aaaaaa", "event": "start", "title": "prune the orchard"},
    "saving": BASE | {"saved_tokens": 12, "by": "read_guard"},
    "ping": BASE | {"tool": "tokenops_status"},
}
RECORDS["meter"]["observed_at"] = TS

# Values as JSON: of another type, out of range, or nested.
VALUES = {
    "null": "null",
    "true": "true",
    "false": "false",
    "zero": "0",
    "minus one": "-1",
    "a fraction": "0.5",
    "one as a float": "1.0",
    "2^53": str(1 << 53),
    "2^63": str(1 << 63),
    "2^64": str(1 << 64),
    "10^30": "1" + "0" * 30,
    "10^400": "1" + "0" * 400,
    "1e30": "1e30",
    "1e308": "1e308",
    "-1e308": "-1e308",
    "no text": '""',
    "a word": '"x"',
    "a count as text": '"7"',
    "NaN as text": '"NaN"',
    "an amount": '"1e9"',
    "a date": f'"{DAY}"',
    "the year 1": '"0001-01-01T00:00:00.000Z"',
    "the year 1 without padding": '"1-01-01T00:00:00.000Z"',
    "the year 9999": '"9999-12-31T23:59:59.999Z"',
    "no day": '"2026-02-30T00:00:00.000Z"',
    "hour 24": f'"{DAY}T24:00:00.000Z"',
    "a path": '"../../../xT12:00:00.000Z"',
    "an array": "[]",
    "an array of text": '["x"]',
    "an object": "{}",
    "an object of text": '{"x":"y"}',
    "an object of absurd counts": '{"prompts":1e400,"x":-1}'.replace("1e400", "1" + "0" * 400),
    "an object of times": '{"first":"0001-01-01T00:00:00.000Z"}',
    "a nested array": "[" * 300 + "]" * 300,
    "a nested object": '{"a":' * 1010 + "1" + "}" * 1010,
    "a control character": '"\\u0000\\u001b]0;x"',
    "half a character": '"\\ud800"',
    "a long text": json.dumps("x" * 5000),
}


def line_with(kind: str, key: str, value: str, name: str) -> bytes:
    """A record of a kind in which a field has another value, given as JSON."""
    record = RECORDS[kind] | {"kind": kind, "id": name} | {key: "VALUE"}
    return orjson.dumps(events.arrange(record)).replace(b'"VALUE"', value.encode()) + b"\n"


def absurd_lines() -> list[bytes]:
    """Every kind, each of its fields, every value; in `make test` every eleventh."""
    every = [
        line_with(kind, key, value, f"{kind}-{key}-{number}")
        for kind in events.KINDS
        for key in fields.TABLE[kind]
        for number, value in enumerate(VALUES.values())
    ]
    return every if ROUNDS > 1 else every[::11]


GOOD = [
    events.arrange(RECORDS["turn"] | {"kind": "turn", "id": f"good-{n}", "project": "good", "session_id": f"good-{n}"})
    for n in range(3)
]
# What reads the log, or some records, and has to live with what is there.
COMMANDS = [
    "tok-cat",
    "tok-cat --project good",
    "tok-cost --log --since 2026-11-01",
    "tok-cost --log --since 2026-11-01 --by day,model --table",
    "tok-cost --log --since 2026-11-01 --by session --csv",
    "tok-cost --log --since 2026-11-01 --reconcile",
    "tok-burn --log",
    "tok-burn --log --anomalies",
    "tok-budget",
    "tok-budget --spend",
    "tok-plan",
    "tok-backtest",
    "tok-status --json",
    "tok-score --since 2026-11-01",
    "tok-task list",
    "tok-task show 20261120-aaaaaa",
    "tok-trace s",
    "tok-context s",
    "tok-coach waste",
    "tok-coach prompts",
    "tok-coach models",
    "tok-dash --html - --since 2026-11-01",
    "tok-ship ./out",
    "tok-poll status",
    "tok-guard stats",
    "echo {} | tok-statusline",
    "tok-sync",
]


def test_what_the_door_refuses_is_named_and_what_it_accepts_ends_no_command(run: Run) -> None:
    odd = absurd_lines()
    given = lines(GOOD[:1]) + b"".join(odd) + lines(GOOD[1:])
    done = run("tok-log append -v", given, status=1)
    assert b"Traceback" not in done.stderr
    refused = {int(line.split(b":")[2]) for line in done.stderr.splitlines()}
    assert len(refused) + len(done.stdout.splitlines()) == len(odd) + len(GOOD)
    assert not refused & {1, len(odd) + 2, len(odd) + 3}
    said = done.stderr.decode()
    assert not re.search(r"\[\[|x{40}|read_guard|\]0;|-1\b|1e30|0{20}", said)  # no value is quoted
    ends_no_command(run)
    problems = {problem["problem"] for problem in objects(run("tok-log verify", status=None, env=NOW).stdout)}
    assert all(problem.endswith("has its id") for problem in problems), problems


def test_what_the_log_holds_already_is_skipped_with_its_place(run: Run, environment: dict[str, str]) -> None:
    odd = absurd_lines()
    day = pathlib.Path(environment["TOKENOPS_HOME"]) / f"events/{DAY}.jsonl"
    run("tok-log append", lines(GOOD[:1]))
    with day.open("ab") as file:
        file.write(b"".join(odd) + lines(GOOD[1:]))
    unsound = {number for number, line in enumerate(odd, 2) if store_files.record_of(line) is None}
    assert len(unsound) > 0.75 * len(odd)
    first = f"tok-cat: {day}:{min(unsound)}: {len(unsound):,} lines of the log could not be read; run tok-log verify\n"
    assert run("tok-cat --kind all", status=1, env=NOW).stderr.decode() == first
    problems = objects(run("tok-log verify", status=1, env=NOW).stdout)
    skipped = {int(one["place"].rpartition(":")[2]) for one in problems if one["remedy"].startswith("it is skipped")}
    assert skipped == unsound
    ends_no_command(run)
    run("tok-log compact", env=NOW)
    assert run("tok-cat --kind all", env=NOW).stderr == b""
    assert {"good-0", "good-1", "good-2"} <= {event["id"] for event in objects(run("tok-cat", env=NOW).stdout)}
    ends_no_command(run)


def ends_no_command(run: Run) -> None:
    for command in COMMANDS:
        done = run(command, status=None, env=NOW)
        assert b"Traceback" not in done.stderr, (command, done.stderr[-800:])
        assert done.returncode <= (10 if command == "tok-budget" else 2), (command, done.returncode, done.stderr[-800:])
    rows = objects(run("tok-cost --log --since 2026-11-01 --project good --by none", status=None, env=NOW).stdout)
    assert [(row["turns"], row["output_tokens"], Decimal(row["cost_usd"]) > 0) for row in rows] == [(3, 21, True)]


@pytest.mark.parametrize("kind", events.KINDS)
@pytest.mark.parametrize("name", VALUES)
def test_a_line_that_is_matched_is_one_that_parsing_accepts(kind: str, name: str) -> None:
    """Readers believe a line that has the usual form, so the form must not admit what the table does not."""
    for key in fields.TABLE[kind]:
        line = line_with(kind, key, VALUES[name], "x")
        if store_files.match_usual(line) is not None:
            assert fields.fault(orjson.loads(line)) == "", line[:200]


def parsed(line: bytes) -> list[tuple[str, Json]]:
    """What `parse` gives of a line beside a sound one of its kind, which it always gives, as it stands."""
    good = jsonl.line_of(events.arrange(RECORDS["turn"] | {"kind": "turn", "id": "good"}))
    results = list(store_files.parse([good, line]))
    assert results[0] == ("good", good, orjson.loads(good))
    for _, usual, record in results:
        assert orjson.loads(usual) == record
        assert record["kind"] not in events.KINDS or store_files.header(usual)[:2] == (record["ts"], record["kind"])
        assert store_files.has_alias(usual) == ("alias" in record)
    return [(identity, record) for identity, _, record in results[1:]]


@pytest.mark.parametrize("kind", events.KINDS)
@pytest.mark.parametrize("name", VALUES)
def test_lines_that_are_parsed_together_are_those_that_are_identified(kind: str, name: str) -> None:
    for key in fields.TABLE[kind]:
        line = line_with(kind, key, VALUES[name], "x")
        pair = store_files.identify(line)
        assert parsed(line) == ([] if pair is None else [(pair[0], orjson.loads(pair[1]))]), line[:200]


@pytest.mark.parametrize(
    "line",
    [
        b'{"v":1,"kind":"turn","ts":"%b","id":"x"}\n',
        b'{"v":1,"ts":"2026-11-20T10:00:00.000Z","kind":"turn","id":"x","ts":"%b"}\n',
        b'{"v":1,"ts":"%b","kind":"turn","id":"x","source":"proxy","alias":"y"}\n',
        b'{"v":1,"ts":"%b","kind":"turn","id":"x","alias":"y"}\n',
        b'{"v":1,"ts":"%b","kind":"turn","id":"x","later":[1]}\n',
        b'{"v":1,"ts":"%b","kind":["turn"],"id":"x"}\n',
        b'["turn"]\n',
        b"\n",
    ],
)
def test_a_line_in_another_order_is_parsed_as_it_is_identified(line: bytes) -> None:
    line = line.replace(b"%b", TS.encode())
    pair = store_files.identify(line)
    assert parsed(line) == ([] if pair is None else [(pair[0], orjson.loads(pair[1]))])


@pytest.mark.parametrize("kind", ["turn", "meter", "work", "context"])
def test_the_usual_record_has_the_usual_form(kind: str) -> None:
    line = jsonl.line_of(events.arrange(RECORDS[kind] | {"kind": kind, "id": "x"}))
    assert store_files.match_usual(line) is not None
    assert store_files.identify(line) == ("x", line)


@examples(300)
@given(st.sampled_from(["turn", "meter", "work", "context"]), st.data())
def test_one_damaged_byte_is_never_believed(kind: str, data: st.DataObject) -> None:
    line = bytearray(jsonl.line_of(events.arrange(RECORDS[kind] | {"kind": kind, "id": "größe"})))
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    pair = store_files.identify(bytes(line))
    assert parsed(bytes(line)) == ([] if pair is None else [(pair[0], orjson.loads(pair[1]))])
    if pair is not None:
        record = orjson.loads(pair[1])
        assert fields.damage(record) == "" and record["id"] == pair[0]
    else:
        assert store_files.damage_of(bytes(line))


MARKER = "please rewrite my diary"


@pytest.mark.parametrize("verb", ["append", "import"])
def test_no_text_of_a_refused_line_is_printed(
    verb: str, run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """A client may put a prompt anywhere: as a value of any field, inside of it, or as a field's name."""
    shapes: list[object] = [MARKER * 40, [MARKER], {MARKER: 1}, {"a": MARKER}]
    odd = [RECORDS["turn"] | {"kind": "turn", "id": "x", key: shape} for key in fields.TABLE["turn"] for shape in shapes]
    odd += [RECORDS["turn"] | {"kind": "turn", "id": "x", MARKER: 1}, {"kind": MARKER}, {MARKER: MARKER}, [MARKER]]  # type: ignore[list-item]
    broken = f'{{"v":1,"ts":"{TS}","kind":"turn","id":"{MARKER}\n{MARKER}\n["{MARKER}"]\n"{MARKER}"\n'.encode()
    path = tmp_path / "odd.jsonl"
    path.write_bytes(lines(odd) + broken)
    done = run(f"tok-log {verb} -v {path}", status=1)
    assert done.stderr.count(b"\n") >= len(odd) + 3
    assert b"diary" not in done.stderr and b"rewrite" not in done.stderr
    log = pathlib.Path(environment["TOKENOPS_HOME"])
    assert MARKER.encode() not in b"".join(file.read_bytes() for file in log.rglob("*") if file.is_file())


@pytest.mark.parametrize("depth", [65, 300, 1010, 20_000])
def test_a_setting_that_is_nested_deep_is_named(depth: int, run: Run, environment: dict[str, str]) -> None:
    for text in ("[" * depth + "]" * depth, "{a: " * depth + "1" + "}" * depth):
        put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", f"thresholds: {text}\n".encode())
        done = run("tok-cost --log", status=2)
        assert b"Traceback" not in done.stderr and b"config.yaml" in done.stderr and b"nest" in done.stderr


@pytest.mark.parametrize(("key", "most"), [("model", 200), ("project", 255), ("id", 600), ("session_id", 200)])
def test_a_long_name_is_cut_to_what_the_log_takes(key: str, most: int) -> None:
    cut = fields.fit(key, "n" * 5000)
    assert len(cut) == most and fields.fit(key, cut) == cut
    assert fields.fault(RECORDS["turn"] | {"kind": "turn", "id": "x", key: cut}) == ""
    apart = fields.fit(key, "n" * 4999 + "m") != cut
    assert apart is (key in ("id", "session_id"))


def test_the_schema_says_what_the_door_does() -> None:
    branches = fields.schema()["oneOf"]
    assert [branch["properties"]["kind"]["const"] for branch in branches] == list(events.KINDS)
    assert all(value for branch in branches for value in branch["properties"].values())
