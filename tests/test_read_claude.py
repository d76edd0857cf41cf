"""Claude Code's transcripts: each merge rule, in every order of files, with one and with many workers."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import scripts
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, claude, examples, lines, objects, put, totals
from tokenops import joins, read_claude_turns, read_lines, read_records, status
from tokenops.read_contract import Intake

FOLDER = ".claude/projects/-home-ada-app"


def steps(home: pathlib.Path) -> Iterator[None]:
    """A session that works, and copies of it: resumed, in a subagent, masked; a limit that was reached."""
    script = scripts.Claude(start="2026-03-01T09:00:00")
    script.human("Why does the parser drop the last line? See src/parser.py")
    script.says("I will look.", "msg_1")
    script.does("Read", file_path="/home/ada/app/src/parser.py")
    first = put(home / FOLDER / "s1.jsonl", script.bytes())
    yield
    begun = len(script.lines)
    script.does("Bash", command="pytest -q", text="Exit code 1\n1 failed", error=True)
    script.does("Edit", file_path="/home/ada/app/src/parser.py", old_string="a", new_string="b")
    script.says("Done.", "msg_9")
    script.says("Done. Shall I commit it?", "msg_9")["message"]["usage"]["output_tokens"] = 812
    more = lines(script.lines[begun:])
    with first.open("ab") as file:
        file.write(more[:-500])
        file.flush()
        yield
        file.write(more[-500:])
    yield
    resumed = [{**line, "sessionId": "s2"} for line in script.lines]
    own = claude("msg_r", 41, "2026-03-01T10:00:00.000Z", sessionId="s2", uuid="u_r", u_speed="fast")
    put(home / FOLDER / "s2.jsonl", *resumed, own)
    side = claude(
        "msg_s",
        42,
        "2026-03-01T09:00:20.000Z",
        isSidechain=True,
        uuid="u_s",
        u_iterations=[item("advisor", 8, 2, model="claude-opus-5")],
    )
    put(home / FOLDER / "s1/subagents/agent-x.jsonl", claude("msg_9", 900, isSidechain=True, uuid="u_9"), side)
    yield
    limit = claude(
        None,
        0,
        "2026-03-01T11:00:00.000Z",
        m_model="<synthetic>",
        m_content="Claude AI usage limit reached|1772366400",
        uuid="u_l",
    )
    bare = claude(None, 5, "2026-03-01T11:00:01.000Z", requestId=..., uuid=...)
    with (home / FOLDER / "s2.jsonl").open("ab") as file:
        file.write(lines([limit, bare, bare]).rstrip(b"\n"))
    yield


def read(*files: bytes, folder: str = "/x/projects/-home-ada-app") -> tuple[list[Json], list[str]]:
    """Events and rejections of some transcripts, read in this order."""
    said: list[str] = []
    turns = read_claude_turns.Turns(Intake(on_bad_line=lambda place, why: said.append(f"{place}: {why}")))
    for number, data in enumerate(files):
        path = pathlib.Path(scratch(data, number, folder))
        turns.read(str(path), read_lines.Cursor())
    found = [read_records.turn_of(turn) for turn in turns.light_turns()] + list(turns.other_events())
    return sorted(found, key=lambda e: (e["ts"], e["id"])), said


@pytest.fixture(autouse=True)
def _scratch(tmp_path_factory: pytest.TempPathFactory) -> None:
    global base
    base = tmp_path_factory.mktemp("logs")


base: pathlib.Path


def scratch(data: bytes, number: int, folder: str) -> str:
    path = base / folder.lstrip("/") / f"f{number}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


PARTIAL = claude(output=1, ts="2026-03-01T09:00:01.120Z")
FINAL = claude(output=812, ts="2026-03-01T09:00:07.900Z")
RESUMED = claude(output=812, ts="2026-03-01T09:00:07.900Z", sessionId="s2", cwd="/home/ada/app/sub")
SIDE = claude(
    output=812,
    ts="2026-03-01T09:30:00.000Z",
    isSidechain=True,
    requestId="req_Z",
    u_cache_read_input_tokens=61_000,
    sessionId="s9",
)
LARGER_SIDE = claude(output=900, ts="2026-03-01T08:59:59.000Z", isSidechain=True, sessionId="s9")


@pytest.mark.parametrize("order", list(itertools.permutations((PARTIAL, FINAL, RESUMED, SIDE))))
def test_copies_are_one_turn_in_every_order(order: tuple[Json, ...]) -> None:
    for files in ([lines(order)], [lines([line]) for line in order], [lines(order[:2]), lines(order[2:])]):
        found, said = read(*files)
        assert not said
        (turn,) = found
        assert turn["ts"] == "2026-03-01T09:00:01.120Z"
        assert (turn["input_tokens"], turn["output_tokens"]) == (3, 812)
        assert (turn["cache_read_tokens"], turn["cache_write_1h_tokens"]) == (5000, 100)
        assert turn["session_id"] in ("s1", "s2")
        assert "sidechain" not in turn


@pytest.mark.parametrize("order", list(itertools.permutations((FINAL, LARGER_SIDE))))
def test_the_parent_wins_over_a_larger_side_chain_and_the_earliest_time_stays(order: tuple[Json, ...]) -> None:
    (turn,), _ = read(*(lines([line]) for line in order))
    assert (turn["output_tokens"], turn["session_id"], turn["ts"]) == (812, "s1", "2026-03-01T08:59:59.000Z")


def test_the_whole_line_with_the_largest_output_wins_not_the_maximum_of_each_field() -> None:
    big_prompt = claude(output=5, u_input_tokens=999, u_cache_read_input_tokens=70_000)
    (turn,), _ = read(lines([big_prompt, FINAL]))
    assert (turn["input_tokens"], turn["cache_read_tokens"], turn["output_tokens"]) == (3, 5000, 812)


def test_the_same_files_with_one_and_many_workers(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / FOLDER / "a.jsonl", PARTIAL, FINAL, claude("msg_2", 40))
    put(home / FOLDER / "b.jsonl", RESUMED, claude("msg_3", 41, sessionId="s2"))
    put(home / FOLDER / "s1/subagents/agent-x.jsonl", SIDE, claude("msg_4", 42, isSidechain=True))
    put(home / FOLDER / "s1/subagents/workflows/w/agent-y.jsonl", claude("msg_5", 43, isSidechain=True))
    put(home / FOLDER / "s1/subagents/workflows/w/journal.jsonl", claude("msg_6", 44))
    one = run("tok-read claude --jobs 1").stdout
    assert [event["id"] for event in objects(one)] == ["msg_2", "msg_3", "msg_4", "msg_5", "msg_1"]
    for jobs in range(2, 6):
        assert run(f"tok-read claude --jobs {jobs}").stdout == one


def test_ids_request_id_then_uuid_then_content() -> None:
    same = [claude(None, 5, uuid="u1"), claude(None, 9, uuid="u2")]
    (turn,), _ = read(lines(same))
    assert (turn["id"], turn["output_tokens"]) == ("req_1", 9)
    found, _ = read(lines([claude(None, 5, requestId=..., uuid="u1"), claude("", 9, requestId=..., uuid="u2")]))
    assert [turn["id"] for turn in found] == ["u1", "u2"]
    bare = claude(None, 5, requestId=..., uuid=...)
    once, _ = read(lines([bare]), lines([bare]))
    twice, _ = read(lines([bare, bare]))
    assert (len(once), len(twice)) == (1, 2)


@pytest.mark.parametrize("masked", ["REDACTED", "[trimmed for fixture]", "msg_REDACTED", "<id>", "* * *"])
def test_masked_ids_merge_nothing(masked: str) -> None:
    found, _ = read(lines([claude(masked, 5, requestId=masked, uuid="u1"), claude(masked, 9, requestId=masked, uuid="u2")]))
    assert [turn["output_tokens"] for turn in found] == [5, 9]


def test_rows_without_request_id_in_two_files_are_one() -> None:
    found, _ = read(lines([claude(output=5, requestId=...)]), lines([claude(output=9, requestId=...)]))
    assert [turn["output_tokens"] for turn in found] == [9]


CACHE = [
    ({"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60}, 100, (40, 60)),
    ({"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}, 100, (100, 0)),
    ({}, 100, (100, 0)),
    (None, 100, (100, 0)),
    # The sum counts on while the split stands: what is missing from the split is of the base class (recorded traffic).
    ({"ephemeral_1h_input_tokens": 60}, 100, (40, 60)),
    ({"ephemeral_5m_input_tokens": 3068, "ephemeral_1h_input_tokens": 0}, 3337, (3337, 0)),
    ({"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 8}, 10, (7, 8)),
    ({"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0}, 0, (7, 0)),
]


@pytest.mark.parametrize(("split", "flat", "expected"), CACHE)
def test_cache_writes(split: Json | None, flat: int, expected: tuple[int, int]) -> None:
    (turn,), _ = read(lines([claude(u_cache_creation=split, u_cache_creation_input_tokens=flat)]))
    assert (turn.get("cache_write_tokens", 0), turn.get("cache_write_1h_tokens", 0)) == expected


def test_tiers_geo_searches_and_thinking() -> None:
    line = claude(
        u_speed="fast",
        u_inference_geo="us",
        u_server_tool_use={"web_search_requests": 3, "web_fetch_requests": 1},
        u_output_tokens_details={"thinking_tokens": 4},
    )
    (turn,), _ = read(lines([line]))
    assert (turn["tier"], turn["geo"], turn["web_searches"], turn["reasoning_tokens"]) == ("fast", "us", 3, 4)
    plain = [("standard", "standard", "not_available"), (None, None, ""), ("standard", None, "global")]
    for speed, tier, geo in plain:
        (turn,), _ = read(lines([claude(u_speed=speed, u_service_tier=tier, u_inference_geo=geo)]))
        assert "tier" not in turn
        assert "geo" not in turn
    (turn,), _ = read(lines([claude(u_service_tier="priority")]))
    assert turn["tier"] == "priority"


def item(kind: str, sent: int, got: int, **more: Any) -> Json:
    return {
        "type": kind,
        "input_tokens": sent,
        "output_tokens": got,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
    } | more


def test_iterations_of_the_own_model_are_summed_and_those_of_another_are_turns() -> None:
    compaction = claude(
        u_input_tokens=220, u_cache_read_input_tokens=0, u_cache_creation_input_tokens=0, u_cache_creation=None, output=30
    )
    compaction["message"]["usage"]["iterations"] = [item("compaction", 55_196, 900), item("message", 220, 30)]
    (turn,), _ = read(lines([compaction]))
    assert (turn["input_tokens"], turn["output_tokens"]) == (55_416, 930)

    advised = claude(
        output=50, u_iterations=[item("message", 3, 50), item("advisor_message", 800, 60, model="claude-opus-5-5")]
    )
    first, second = read(lines([advised]))[0]
    assert (first["id"], first["model"], first["output_tokens"]) == ("msg_1", "claude-opus-4-6", 50)
    assert (second["id"], second["model"], second["input_tokens"], second["output_tokens"]) == (
        "msg_1#1",
        "claude-opus-5-5",
        800,
        60,
    )

    fallback = claude(m_model="claude-sonnet-5", output=9)
    fallback["message"]["usage"]["iterations"] = [
        item("message", 700, 3, model="claude-fable-5"),
        item("fallback_message", 5000, 9),
    ]
    found, _ = read(lines([claude(m_model="claude-fable-5", output=3), fallback, fallback]))
    assert [(turn["id"], turn["model"], turn["output_tokens"]) for turn in found] == [
        ("msg_1", "claude-sonnet-5", 9),
        ("msg_1#1", "claude-fable-5", 3),
    ]


def test_a_single_iteration_that_repeats_the_top_level_changes_nothing() -> None:
    usage = claude()["message"]["usage"]
    repeated = item(
        "message",
        usage["input_tokens"],
        usage["output_tokens"],
        cache_read_input_tokens=5000,
        cache_creation_input_tokens=100,
    )
    plain, _ = read(lines([claude()]))
    again, _ = read(lines([claude(u_iterations=[repeated])]))
    empty, _ = read(lines([claude(u_iterations=[])]))
    assert plain == again == empty


def test_synthetic_lines_and_empty_usage_are_no_turns() -> None:
    zero = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    nothing = [
        claude(m_model="<synthetic>", output=0),
        claude("msg_2", m_usage={}),
        claude("msg_3", m_usage=zero),
        claude("msg_4", type="user"),
        claude("msg_5", type="progress"),
    ]
    nothing[1]["message"]["note_tokens"] = 1
    found, said = read(lines(nothing))
    assert (found, said) == ([], [])


def test_limit_messages_are_meter_readings() -> None:
    def said(text: str, **more: Any) -> Json:
        return claude(m_model="<synthetic>", output=0, m_content=[{"type": "text", "text": text}], **more)

    found, _ = read(
        lines(
            [
                said("Claude AI usage limit reached|1772366400", isApiErrorMessage=True),
                said(
                    "You've hit your limit · resets Mar 2 at 6pm (Europe/Berlin)",
                    isApiErrorMessage=True,
                    ts="2026-03-01T10:00:00.000Z",
                ),
                said("5-hour limit reached ∙ resets 3pm", isApiErrorMessage=True, ts="2026-03-01T11:00:00.000Z"),
                said("API Error: 401", isApiErrorMessage=True, ts="2026-03-01T12:00:00.000Z"),
                said("The weekly limit is a topic of this talk", ts="2026-03-01T13:00:00.000Z"),
            ]
        )
    )
    assert [(e["kind"], e["status"], e.get("resets_at")) for e in found] == [
        ("meter", "rejected", "2026-03-01T12:00:00.000Z"),
        ("meter", "rejected", "2026-03-02T17:00:00.000Z"),
        ("meter", "rejected", None),
    ]


ODD = {
    "spaces": json.dumps(claude("msg_o")).encode(),
    "usage with a space before its colon": lines([claude("msg_o")]).replace(b'"usage":{', b'"usage" : {'),
    "crlf": lines([claude("msg_o")]).replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + lines([claude("msg_o")]),
    "microseconds": lines([claude("msg_o", ts="2026-03-01T09:00:00.000123Z")]),
    "nanoseconds and an offset": lines([claude("msg_o", ts="2026-03-01T10:00:00.000123456+01:00")]),
    "no fraction": lines([claude("msg_o", ts="2026-03-01T09:00:00Z")]),
    "null ids in a tool argument": lines(
        [
            claude(
                "msg_o",
                m_content=[{"type": "tool_use", "input": {"id": None, "model": None, "usage": {"output_tokens": 9}}}],
            )
        ]
    ),
    "a usage in a tool argument": lines(
        [
            claude(
                "msg_o",
                m_content=[
                    {"type": "tool_use", "input": {"usage": {"output_tokens": 9, "input_tokens": 1}, "pad": "x" * 500}}
                ],
            )
        ]
    ),
    "content first": lines(
        [
            claude(
                "msg_o",
                message={
                    "content": [{"text": "y" * 600}],
                    "id": "msg_o",
                    "model": "claude-opus-4-6",
                    "usage": claude()["message"]["usage"],
                },
            )
        ]
    ),
    "not UTF-8": lines([claude("msg_o")]).replace(b"xxx", b"\xff\xfe\xff", 1),
    "half a surrogate pair": lines([claude("msg_o")]).replace(b"xxxxxx", b"\\ud83d", 1),
    "floats": lines([claude("msg_o", 7.0, u_input_tokens=3.0)]),
    "a blank in the time": lines([claude("msg_o", timestamp="2026-03-01 09:00:00.000Z")]),
    "a comma in the time": lines([claude("msg_o", timestamp="2026-03-01T09:00:00,000Z")]),
    "a week in the time": lines([claude("msg_o", timestamp="2026-W09-7T09:00:00.000Z")]),
    "a nul in front": b"\0\0\0" + lines([claude("msg_o")]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_whole_lines_count(name: str) -> None:
    data = ODD[name] if ODD[name].endswith(b"\n") else ODD[name] + b"\n"
    found, said = read(lines([claude("msg_a")]) + data + lines([claude("msg_z")]))
    assert not said
    assert [turn["id"] for turn in found] == ["msg_a", "msg_o", "msg_z"]
    assert totals(found) == {"turns": 3, "input_tokens": 9, "cache_read_tokens": 15_000, "cache_write_tokens": 0} | {
        "cache_write_1h_tokens": 300,
        "output_tokens": 21,
    }
    assert {turn["ts"] for turn in found} == {"2026-03-01T09:00:00.000Z"}


def test_two_objects_glued_on_one_line_are_two() -> None:
    found, said = read(lines([claude("msg_a")]).rstrip() + lines([claude("msg_b")]) + lines([claude("msg_c")]))
    assert ([turn["id"] for turn in found], said) == (["msg_a", "msg_b", "msg_c"], [])


BAD = {
    "torn": (lines([claude("msg_x")])[:-40] + b"\n", "not JSON"),
    "torn before its usage": (b'{"type":"assistant","message":{"id":"msg_x","mod\n', "not JSON"),
    "no JSON at all": (b"hello\n", "not JSON"),
    "an array": (b"[1,2]\n", "expected a JSON object, found an array"),
    "a text for a count": (lines([claude("msg_x", "12")]), "usage.output_tokens is a string; expected a count"),
    "a negative count": (lines([claude("msg_x", -3)]), "usage.output_tokens is a negative number; expected a count"),
    "a fraction": (lines([claude("msg_x", 1.5)]), "usage.output_tokens is a number with a fraction; expected a count"),
    "true": (lines([claude("msg_x", u_input_tokens=True)]), "usage.input_tokens is"),
    "a bad split": (
        lines([claude("msg_x", u_cache_creation={"ephemeral_5m_input_tokens": "9"})]),
        "ephemeral_5m_input_tokens is a string",
    ),
    "iterations of numbers": (lines([claude("msg_x", u_iterations=[3])]), "usage.iterations holds a number"),
    "no time": (lines([claude("msg_x", timestamp=...)]), "timestamp is null; expected a time"),
    "a bad time": (lines([claude("msg_x", ts="yesterday")]), "timestamp is a string; expected a time"),
    "month 13": (lines([claude("msg_x", ts="2026-13-01T09:00:00.000Z")]), "timestamp is a string; expected a time"),
    "a number for a time": (lines([claude("msg_x", timestamp=5)]), "timestamp is a number; expected a time"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_rejected_one_by_one_with_their_place(name: str) -> None:
    data, why = BAD[name]
    found, said = read(lines([claude("msg_a")]) + data + lines([claude("msg_z")]))
    assert [turn["id"] for turn in found] == ["msg_a", "msg_z"]
    (sentence,) = said
    assert "f0.jsonl:2: " in sentence
    assert why in sentence


def test_a_bad_line_costs_its_message_nothing() -> None:
    for order in (
        [claude(output=5), claude(output=500, u_input_tokens="x")],
        [claude(output=500, u_input_tokens="x"), claude(output=5)],
    ):
        found, said = read(lines(order))
        assert ([turn["output_tokens"] for turn in found], len(said)) == ([5], 1)


def test_rejections_reach_stderr_with_status_1(run: Run, environment: dict[str, str]) -> None:
    path = put(pathlib.Path(environment["HOME"]) / FOLDER / "s1.jsonl", claude("msg_a"), b"garbage\n", claude("msg_b"))
    done = run("tok-read claude", status=1)
    assert len(objects(done.stdout)) == 2
    assert done.stderr.decode() == f"tok-read: {path}:2: not JSON (Expecting value, at byte 0 of 7); skipped\n"


def test_the_tail_of_a_growing_file(run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"]) / FOLDER / "s1.jsonl"
    whole = lines([claude("msg_b")])
    put(path, claude("msg_a"), whole[:-30])
    assert len(objects(run("tok-read claude").stdout)) == 1
    put(path, claude("msg_a"), whole.rstrip(b"\n"))
    assert len(objects(run("tok-read claude").stdout)) == 2


def test_a_line_of_a_hundred_megabytes() -> None:
    big = claude("msg_big", m_content=[{"type": "text", "text": "é" * 50_000_000}])
    found, said = read(lines([claude("msg_a")]) + lines([big]) + lines([claude("msg_z")]))
    assert ([turn["id"] for turn in found], said) == (["msg_a", "msg_big", "msg_z"], [])


def test_who_bills() -> None:
    named = [
        ("msg_1", "claude-opus-4-6", "anthropic", None),
        ("msg_bdrk_1", "claude-opus-4-6", "bedrock", None),
        ("msg_vrtx_1", "claude-opus-4-6", "vertex", None),
        ("msg_2", "gpt-5.5", "openai", True),
        ("msg_3", "somebody-else-7b", None, None),
    ]
    for identity, model, provider, inferred in named:
        (turn,), _ = read(lines([claude(identity, m_model=model)]))
        assert (turn.get("provider"), turn.get("provider_inferred")) == (provider, inferred)
    (turn,), _ = read(lines([claude(m_model=None)]))
    assert turn["model"] == "unknown"


def test_projects_and_sessions(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    home = pathlib.Path(environment["HOME"])
    root = home / ".claude/projects"
    put(root / "-home-ada-app/s1.jsonl", claude("msg_1"), claude("msg_2", cwd="/home/ada/app/deep/er"))
    put(root / "-home-bob-app/s2.jsonl", claude("msg_3", sessionId="s2", cwd="/home/bob/app"))
    put(root / "-home-ada-tool/s3.jsonl", claude("msg_4", sessionId=..., cwd=...))
    repository = tmp_path / "repo"
    (repository / ".git").mkdir(parents=True)
    (repository / "src").mkdir()
    worktree = tmp_path / "tree"
    worktree.mkdir()
    (worktree / ".git").write_text(f"gitdir: {repository}/.git/worktrees/tree\n")
    put(repository / ".git/worktrees/tree/gitdir", f"{worktree}/.git\n".encode())
    put(repository / ".git/worktrees/tree/commondir", b"../..\n")
    put(root / "-r/s4.jsonl", claude("msg_5", sessionId="s4", cwd=str(repository / "src")))
    put(root / "-t/s5.jsonl", claude("msg_6", sessionId="s5", cwd=str(worktree)))
    put(root / "-w/s6.jsonl", claude("msg_7", sessionId="s6", cwd=r"c:\Users\eve\site"))
    found = {event["id"]: event for event in objects(run("tok-read claude").stdout)}
    assert [found[f"msg_{n}"]["project"] for n in range(1, 8)] == [
        "ada/app",
        "ada/app",
        "bob/app",
        "-home-ada-tool",
        "repo",
        "repo",
        "site",
    ]
    assert found["msg_4"]["session_id"] == "s3"
    assert found["msg_3"]["agent_id"] == "claude-code:bob/app"
    assert found["msg_3"]["workflow_id"] == "claude-code:bob/app:s2"
    assert not any("project_id" in event for event in found.values())
    assert [e["id"] for e in objects(run("tok-read claude --project app").stdout)] == ["msg_1", "msg_2", "msg_3"]
    assert [e["id"] for e in objects(run("tok-read claude --project bob/app").stdout)] == ["msg_3"]


def test_salted_project_ids(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / FOLDER / "s1.jsonl", claude("msg_1"))
    put(pathlib.Path(environment["TOKENOPS_HOME"]) / "salt", b"pepper")
    (one,) = objects(run("tok-read claude").stdout)
    put(pathlib.Path(environment["TOKENOPS_HOME"]) / "salt", b"saffron")
    (other,) = objects(run("tok-read claude").stdout)
    assert len(one["project_id"]) == 12
    assert one["project_id"] != other["project_id"]


def test_places(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / ".config/claude/projects/-a/s.jsonl", claude("msg_1"))
    put(home / ".claude/projects/-a/s.jsonl", claude("msg_2"))
    put(tmp_path / "xdg/claude/projects/-a/s.jsonl", claude("msg_3"))
    put(tmp_path / "conf/projects/-a/s.jsonl", claude("msg_4"))
    put(tmp_path / "more/projects/-a/s.jsonl", claude("msg_5"))

    def ids(command: str, **env: str) -> list[str]:
        return [event["id"] for event in objects(run(command, env=env).stdout)]

    assert ids("tok-read claude") == ["msg_1", "msg_2"]
    assert ids("tok-read claude", XDG_CONFIG_HOME=str(tmp_path / "xdg")) == ["msg_2", "msg_3"]
    listed = f"{tmp_path}/conf, {tmp_path}/more/projects,{tmp_path}/none"
    assert ids("tok-read claude", CLAUDE_CONFIG_DIR=listed) == ["msg_4", "msg_5"]
    assert ids("tok-read claude --root conf --root more/projects --root conf") == ["msg_4", "msg_5"]
    assert ids("tok-read --root home") == ["msg_1", "msg_2"]
    assert ids("tok-read claude --root conf/projects/-a/s.jsonl") == ["msg_4"]
    done = run("tok-read claude", status=2, env={"CLAUDE_CONFIG_DIR": "/nowhere"})
    assert b"CLAUDE_CONFIG_DIR=/nowhere: no such directory" in done.stderr


def test_a_loop_of_links_ends(run: Run, environment: dict[str, str]) -> None:
    folder = pathlib.Path(environment["HOME"]) / FOLDER
    put(folder / "s1.jsonl", claude("msg_1"))
    (folder / "loop").symlink_to(folder)
    assert len(objects(run("tok-read claude").stdout)) == 1


SMALL = st.builds(
    claude,
    identity=st.sampled_from(["msg_1", "msg_2", None]),
    output=st.sampled_from([0, 1, 5, 5, 90]),
    ts=st.sampled_from(["2026-03-01T09:00:00.000Z", "2026-03-01T08:00:00.000Z", "2026-03-01T09:00:00.5Z"]),
    sessionId=st.sampled_from(["s1", "s2"]),
    isSidechain=st.booleans(),
    u_input_tokens=st.sampled_from([3, 3, 4]),
    u_speed=st.sampled_from(["standard", "standard", "fast"]),
    m_model=st.sampled_from(["claude-opus-4-6", "claude-opus-4-6", "claude-sonnet-5"]),
    u_iterations=st.sampled_from(
        [None, [], [item("message", 3, 5)], [item("advisor_message", 8, 2, model="claude-opus-5")]]
    ),
    requestId=st.sampled_from(["req_1", "req_2"]),
)


@examples(150)
@given(st.lists(SMALL, min_size=1, max_size=7), st.integers(1, 3), st.randoms(use_true_random=False))
def test_reading_together_equals_the_join_of_single_lines(given_lines: list[Json], count: int, rng: Any) -> None:
    single = [event for line in given_lines for event in read(lines([line]))[0]]
    expected = list(joins.join_all(single))
    shuffled = rng.sample(given_lines, len(given_lines))
    parts = [shuffled[n::count] for n in range(count)]
    found, _ = read(*(lines(part) for part in parts))
    assert found == expected


@examples(200)
@given(st.lists(st.one_of(st.binary(max_size=80), SMALL.map(lambda line: lines([line]).rstrip())), max_size=6))
def test_any_bytes_never_crash_and_never_change_another_line(parts: list[bytes]) -> None:
    data = b"\n".join([*parts, lines([claude("msg_last", 77)]).rstrip(), b""])
    found, _ = read(data)
    assert [event["output_tokens"] for event in found if event["id"] == "msg_last"] == [77]


NEW: Json = {"version": "2.1.332", "m_stop_reason": "end_turn"}


def test_a_line_says_which_window_is_used_up() -> None:
    quota = {"status": "rejected", "resetsAt": 1772470800, "rateLimitType": "seven_day_opus"}
    line = claude(
        m_model="<synthetic>", output=0, m_content="You've hit your limit", isApiErrorMessage=True, quotaLimits=quota
    )
    (meter,), _ = read(lines([line]))
    assert (meter["window"], meter["scope"], meter["used"]) == ("weekly_opus", "opus", 1)
    assert meter["resets_at"] == "2026-03-02T17:00:00.000Z"
    (meter,), _ = read(lines([line | {"quotaLimits": {"rateLimitType": "unheard_of", "status": "rejected"}}]))
    assert "window" not in meter


def test_a_turn_begins_when_its_request_was_sent() -> None:
    """Claude Code 2.1.332 writes down when; a copy in a fork has only its own time."""
    sent = {"type": "api-request", "id": "r1", "timestamp": "2026-03-01T08:59:58.120Z", "params": {"model": "m"}}
    line = claude("msg_1", requestRef="r1", **NEW)
    for files in (
        [lines([sent, line])],
        [lines([line | {"sessionId": "s2", "requestSessionId": "s1"}]), lines([sent, line])],
    ):
        for order in itertools.permutations(files):
            (turn,), said = read(*order)
            assert (turn["ts"], turn["session_id"], said) == ("2026-03-01T08:59:58.120Z", "s1", [])


@pytest.mark.parametrize("thinking", [0, 40])
def test_an_interrupted_answer_is_partial(thinking: int) -> None:
    """Its lines have no reason to stop, and the last one a mark. An old version writes such lines while an answer goes on."""
    details = {"thinking_tokens": thinking}
    cut = [
        claude("msg_1", 3, requestedModel="m", m_stop_reason=None, u_output_tokens_details=details, uuid=f"u{n}")
        for n in (1, 2)
    ]
    (turn,), _ = read(lines([cut[0], cut[1] | {"isAbortedMidStream": True}]))
    assert (turn["usage"], turn["output_tokens"]) == ("partial", 3)
    (turn,), _ = read(lines([{key: line[key] for key in line if key != "requestedModel"} for line in cut]))
    assert "usage" not in turn
    (turn,), _ = read(lines([claude("msg_1", u_output_tokens_details=details, **NEW)]))
    assert ("usage" in turn, turn.get("reasoning_tokens", 0)) == (False, thinking)


@pytest.mark.parametrize("fork", [{"requestSessionId": "s1"}, {"forkedFrom": {"sessionId": "s1", "messageUuid": "u1"}}])
@pytest.mark.parametrize("name", ["a9", "z9"])
def test_copies_belong_to_the_session_that_made_the_request(name: str, fork: Json) -> None:
    """Whichever of the two session ids is the larger."""
    line, own = claude("msg_1", **NEW), claude("msg_2", sessionId=name, ts="2026-03-01T11:00:00.000Z", **NEW)
    files = [lines([line]), lines([line | {"sessionId": name} | fork, own])]
    for order in itertools.permutations(files):
        assert {turn["id"]: turn["session_id"] for turn in read(*order)[0]} == {"msg_1": "s1", "msg_2": name}


def test_a_log_of_the_first_release_learns_who_made_a_copied_request(run: Run, environment: dict[str, str]) -> None:
    """0.1.0 gave a copy to the larger session id; what is read now replaces that, after a sync and after --backfill."""
    home = pathlib.Path(environment["HOME"])
    line = claude("msg_1", **NEW)
    put(home / FOLDER / "s1.jsonl", line)
    put(home / FOLDER / "z9.jsonl", line | {"sessionId": "z9", "requestSessionId": "s1"})
    (right,) = objects(run("tok-read").stdout)
    old = {key: value for key, value in right.items() if key != "revision"}
    old |= {"session_id": "z9", "workflow_id": right["workflow_id"].replace(":s1", ":z9")}
    run("tok-log append", lines([old]))
    for command in ("tok-sync", "tok-sync --backfill"):
        run(command)
        turns = [event for event in objects(run("tok-cat").stdout) if event["kind"] == "turn"]
        assert [turn["session_id"] for turn in turns] == ["s1"]


@pytest.mark.parametrize(("version", "warns"), [("2.1.80", True), ("2.1.197", False), ("2.1.332", False)])
def test_placeholder_counts_are_warned_of_only_where_a_version_writes_them(
    version: str, warns: bool, tmp_path: pathlib.Path
) -> None:
    put(tmp_path / FOLDER / "s1.jsonl", claude("msg_1", version=version))
    (row,) = [row for row in status.passive({}, str(tmp_path)) if row["source"] == "claude-code-jsonl"]
    assert ("caveat" in row) is warns


@pytest.mark.parametrize("place", ["Library/Application Support", ".config"])
def test_local_agent_sessions_of_claude_desktop_are_read(
    place: str, run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Each has a directory of its own. What lies beside it repeats its messages, with the counts of their beginning."""
    home = pathlib.Path(environment["HOME"])
    folder = home / place / "Claude/local-agent-mode-sessions"
    session = folder / "a/b/local_c"
    put(session / ".claude/projects/-sessions-c/s1.jsonl", claude("msg_1", 100))
    put(session / "audit.jsonl", claude("msg_1", 900, _audit_hmac="0"))
    for command in ("tok-read", f"tok-read claude --root '{folder}'", f"tok-read claude --root '{session}'"):
        assert [(turn["id"], turn["output_tokens"]) for turn in objects(run(command).stdout)] == [("msg_1", 100)]
    elsewhere = put(tmp_path / "own/projects/p/s2.jsonl", claude("msg_2")).parent.parent.parent
    turns = objects(run("tok-read", env={"CLAUDE_CONFIG_DIR": str(elsewhere)}).stdout)
    assert sorted(turn["id"] for turn in turns) == ["msg_1", "msg_2"]


def test_a_subagent_in_a_worktree_of_its_own_is_of_its_sessions_project(run: Run, environment: dict[str, str]) -> None:
    """Also where the worktree is gone, and for the counts of its work."""
    home = pathlib.Path(environment["HOME"])
    put(home / FOLDER / "s1.jsonl", claude("msg_1"))
    script = scripts.Claude(start="2026-03-01T09:05:00", cwd="/tmp/trees/app-7", isSidechain=True, agentId="x")
    script.human("Look around")
    script.says("I look.", "msg_2")
    for below in ("subagents/agent-x.jsonl", "subagents/workflows/wf_1/agent-y.jsonl"):
        path = home / FOLDER / "s1" / below
        put(path, script.bytes().replace(b"msg_2", f"msg_{path.stem}".encode()))
    run("tok-sync")
    for found in (objects(run("tok-read").stdout), objects(run("tok-cat").stdout)):
        assert {event["project"] for event in found} == {"app"}
        assert sum(event["kind"] == "turn" for event in found) == 3


@pytest.mark.parametrize("name", ["a9", "z9"])
def test_the_work_of_copied_prompts_belongs_to_the_session_that_did_it(
    name: str, run: Run, environment: dict[str, str]
) -> None:
    """Of a fork's copies only the answers name that session."""
    home = pathlib.Path(environment["HOME"])
    script = scripts.Claude(start="2026-03-01T09:00:00")
    script.human("Why does the parser drop the last line?")
    script.does("Bash", command="pytest -q")
    copies = [{**line, "sessionId": name} for line in script.lines]
    copies = [line | ({"requestSessionId": "s1"} if line["type"] == "assistant" else {}) for line in copies]
    fork = scripts.Claude(session=name, start="2026-03-01T11:00:00")
    fork.human("And now?")
    fork.says("Now it does not.")
    put(home / FOLDER / f"{name}.jsonl", *copies, *fork.lines)
    for _ in range(2):
        run("tok-sync")
        rounds = [event for event in objects(run("tok-cat").stdout) if event["kind"] == "work"]
        assert [event["session_id"] for event in rounds] == ["s1", name]
        put(home / FOLDER / "s1.jsonl", script.bytes())
