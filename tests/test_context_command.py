"""tok-context: a session, a span, a fork; by tool, command and server; its total is tok-cost's; the page's example."""

from __future__ import annotations

import pathlib
import re
from decimal import Decimal
from typing import Any

import pytest
from test_context import by_cause, chain, cost_by_cause, sizes, turn

from conftest import ROOT, Json, Run, lines, objects, put
from tokenops import answers, answers_context, config, context, context_report, events, pricing, session, show, when

CATALOGUE = pricing.load()
NOW = "2026-11-22T12:00:00.000Z"
KINDS = ("entering", "carrying", "rewriting", "producing")


def log_of(folder: pathlib.Path, *records: Json) -> session.Log:
    """A log that holds some records, each in its day's file."""
    days: dict[str, list[Json]] = {}
    for record in records:
        more = {"ts": when.stamp(when.moment("2026-11-21T09:00:00Z")), **record}
        days.setdefault(more["ts"][:10], []).append(events.arrange(more))
    for day, some in days.items():
        put(folder / f"events/{day}.jsonl", lines(some))
    return session.Log(str(folder), when.moment(NOW), config.Config({}, "", []), lambda: CATALOGUE, when.UTC)


def placed(record: Json, **more: Any) -> Json:
    """A record with the attribution that all of a session's records have."""
    about = {
        "source": "claude-code-jsonl",
        "client": "claude-code",
        "project": "api",
        "project_id": "p1",
        "session_id": "s1",
    }
    return {**about, **{key: value for key, value in record.items() if value is not None}, **more}


def story(name: str = "s1", minutes: float = 0, first_parent: str | None = None, **more: Any) -> list[Json]:
    """A session of three turns: a test run of 4,000 characters, an MCP tool, and a cache that breaks at the end."""
    a, b, c = (f"{name}{letter}" for letter in "abc")
    mcp = {"result mcp__hub__find": 500, "prompt": 100}
    rows = [
        (turn(a, minutes, 0, 10_000, 5, 100), {"parent": first_parent, "entered": {"prompt": 9}, "produced": {"call Bash|npm test": 90, "reply": 10}}),
        (turn(b, minutes + 1, 10_000, 2000, 5, 100), {"parent": a, "entered": {"result Bash|npm test": 4000}, "produced": {"call mcp__hub__find": 60}}),
        (turn(c, minutes + 9, 0, 12_500, 5, 100), {"parent": b, "entered": mcp, "produced": {"reply": 60}}),
    ]  # fmt: skip
    records = []
    for one, about in rows:
        records += [
            placed(one, session_id=name, **more),
            placed({**sizes(one["id"], **about), "ts": one["ts"]}, session_id=name),
        ]
    return records


def tokens(rows: list[Json]) -> int:
    return sum(row[f"{kind}_tokens"] for row in rows for kind in KINDS)


def sums(rows: list[Json]) -> Decimal:
    return sum((Decimal(row["cost_usd"] or 0) for row in rows), Decimal(0))


def spent(log: session.Log, **only: Any) -> Json:
    return answers.spend(log, (), "", answers.OPEN, events.Filter(**only)).total


def test_a_session_adds_up_to_what_tok_cost_says(tmp_path: pathlib.Path) -> None:
    log = log_of(tmp_path, *story(), *story("s2", 30, model="no-such-model"))
    result = answers_context.causes(log, answers_context.Query("s1"))
    cost = spent(log, session="s1")
    assert result.total["kind"] == "context_total" and {row["kind"] for row in result.rows} == {"context"}
    assert sums(result.rows) == Decimal(result.total["cost_usd"]) == Decimal(cost["cost_usd"])
    assert tokens(result.rows) == tokens([result.total]) == events.token_sum(cost)
    assert {name: result.total[name] for name in events.TOKENS if name in cost} == {
        name: cost[name] for name in events.TOKENS if name in cost
    }
    assert result.total["turns"] == 3 and result.total["project"] == "api"
    assert [row["cause"] for row in result.rows][:2] == ["base", "result Bash"]
    for row in [*result.rows, result.total]:
        assert Decimal(row["cost_usd"]) == sum(Decimal(row.get(f"{kind}_usd", 0)) for kind in KINDS)


BY: list[tuple[str, dict[str | None, set[str]]]] = [
    ("tool", {"Bash": {"Bash"}, "mcp__hub__find": {"mcp__hub__find"}, None: {"base", "prompt", "reply"}}),
    (
        "command",
        {"npm test": {"npm test"}, None: {"base", "prompt", "reply", "call mcp__hub__find", "result mcp__hub__find"}},
    ),
    ("server", {"hub": {"hub"}, None: {"base", "prompt", "reply", "call Bash", "result Bash"}}),
]


@pytest.mark.parametrize(("by", "names"), BY, ids=[by for by, _ in BY])
def test_rows_by_a_field(tmp_path: pathlib.Path, by: str, names: dict[str | None, set[str]]) -> None:
    log = log_of(tmp_path, *story())
    rows, total, *_ = answers_context.causes(log, answers_context.Query("s1", by=by))
    found: dict[str | None, set[str]] = {}
    for row in rows:
        found.setdefault(row[by], set()).add(row["cause"])
    assert found == names
    assert sums(rows) == Decimal(total["cost_usd"]) == Decimal(spent(log)["cost_usd"])


def test_calls_and_results_of_a_tool_are_its_row(tmp_path: pathlib.Path) -> None:
    log = log_of(tmp_path, *story())
    causes = {row["cause"]: row for row in answers_context.causes(log, answers_context.Query("s1")).rows}
    (bash,) = (
        row for row in answers_context.causes(log, answers_context.Query("s1", by="tool")).rows if row["tool"] == "Bash"
    )
    for kind in KINDS:
        assert bash[f"{kind}_tokens"] == sum(causes[f"{use} Bash"][f"{kind}_tokens"] for use in ("call", "result"))


def test_a_span_knows_what_was_before_it(tmp_path: pathlib.Path) -> None:
    """The second day's turns carry what the first day's had, and only they are counted."""
    late = [
        placed(turn("d", 60 * 15, 12_400, 600), ts="2026-11-22T00:10:00.000Z"),
        placed({**sizes("d", "s1c", entered={"prompt": 5}), "ts": "2026-11-22T00:10:00.000Z"}),
    ]
    log = log_of(tmp_path, *story(), *late)
    rows, total, *_ = answers_context.causes(log, answers_context.Query(since="2026-11-22T00:00:00.000Z"))
    cost = answers.spend(log, (), "2026-11-22T00:00:00.000Z").total
    assert total["turns"] == 1 and sums(rows) == Decimal(cost["cost_usd"])
    by_name = {row["cause"]: row for row in rows}
    assert by_name["base"]["carrying_tokens"] == 10_005 and by_name["base"]["entering_tokens"] == 0
    assert by_name["prompt"]["entering_tokens"] > 0


def test_a_fork_carries_what_another_session_had(tmp_path: pathlib.Path) -> None:
    fork = [
        placed(turn("f", 20, 12_000, 600), session_id="s9"),
        placed({**sizes("f", "s1b", entered={"prompt": 5}), "ts": turn("f", 20)["ts"]}, session_id="s9"),
    ]
    log = log_of(tmp_path, *story(), *fork)
    rows, total, *_ = answers_context.causes(log, answers_context.Query("s9"))
    by_name = {row["cause"]: row for row in rows}
    assert total["turns"] == 1 and total["session_id"] == "s9"
    assert by_name["base"]["carrying_tokens"] == 10_005 and by_name["result Bash"]["carrying_tokens"] > 1000
    assert sums(rows) == Decimal(spent(log, session="s9")["cost_usd"])


def test_the_wire_s_sighting_of_a_turn_has_the_sizes_of_the_log_s(tmp_path: pathlib.Path) -> None:
    """Log and wire share no id for Codex; what is known of the one is known of the other."""
    counts = {
        "input_tokens": 100,
        "output_tokens": 5,
        "turns": 1,
        "client": "codex",
        "session_id": "t1",
        "provider": "openai",
    }
    alias = events.alias_of("codex", "t1", counts)
    seen = {"v": 1, "kind": "turn", "ts": "2026-11-21T09:00:00.000Z", "model": "gpt-5.5", "alias": alias, **counts}
    wire, own = {**seen, "id": "resp_1", "source": "proxy"}, {**seen, "id": "codex:t1:1", "source": "codex-jsonl"}
    record = {**sizes("codex:t1:1", produced={"call shell": 5}), "ts": seen["ts"], "session_id": "t1", "client": "codex"}
    log = log_of(tmp_path, wire, own, record)
    rows, total, *_ = answers_context.causes(log, answers_context.Query("t1"))
    assert total["turns"] == 1
    assert {row["cause"]: row["producing_tokens"] for row in rows} == {"base": 0, "call shell": 5}


def test_cache_breaks_are_listed_and_summed(tmp_path: pathlib.Path) -> None:
    log = log_of(tmp_path, *story())
    _, total, breaks, _ = answers_context.causes(log, answers_context.Query("s1"))
    (row,) = breaks
    assert (row["kind"], row["reason"], row["turn"], row["gap_s"]) == ("cache_break", "idle", "s1c", 480.0)
    assert (total["cache_breaks"], total["break_tokens"], total["break_usd"]) == (1, row["tokens"], row["cost_usd"])
    assert row["tokens"] == total["rewriting_tokens"] - 5  # the input of the second turn was in no cache


def test_a_session_s_remainder_is_part_of_it(tmp_path: pathlib.Path) -> None:
    rest = {**turn("usage:r", 5, 500, 60, output=70), "kind": "usage", "covers": "remainder"}
    rest = {key: value for key, value in rest.items() if key != "turns"}
    log = log_of(tmp_path, *story(), placed(rest))
    rows, total, *_ = answers_context.causes(log, answers_context.Query("s1"))
    assert {row["cause"]: row["producing_tokens"] for row in rows}["unlogged"] == 70
    assert sums(rows) == Decimal(total["cost_usd"]) == Decimal(spent(log)["cost_usd"])


def test_filters_and_the_latest_session(tmp_path: pathlib.Path) -> None:
    log = log_of(tmp_path, *story(), *story("s2", 30, project="web", client="codex"))
    assert answers_context.latest_session(log) == "s2"
    assert answers_context.latest_session(log, events.Filter(project="api")) == "s1"
    assert answers_context.latest_session(log, events.Filter(project="none")) == ""
    for only in (events.Filter(project="web"), events.Filter(client="codex"), events.EVERY):
        rows, total, *_ = answers_context.causes(log, answers_context.Query(only=only))
        assert sums(rows) == Decimal(answers.spend(log, (), only=only).total["cost_usd"])
        assert total["sessions"] == (2 if only == events.EVERY else 1)


def test_segments_have_their_turn_and_what_they_cost_until_now(tmp_path: pathlib.Path) -> None:
    """The output of the tests entered at the second turn, and was written again at the third."""
    log = log_of(tmp_path, *story())
    rows, total, *_ = answers_context.causes(log, answers_context.Query("s1", by="segment"))
    (row,) = (row for row in rows if row["segment"] is not None)
    (by_cause_row,) = (
        row for row in answers_context.causes(log, answers_context.Query("s1")).rows if row["cause"] == "result Bash"
    )
    assert (row["cause"], row["command"], row["segment"], row["n"], row["in_context"]) == (
        "result Bash",
        "npm test",
        "s1b",
        2,
        True,
    )
    assert {name: row[name] for name in by_cause_row} == by_cause_row
    assert sums(rows) == Decimal(total["cost_usd"]) and tokens(rows) == tokens([total])
    (said, _) = context_report.sentences(context_report.Sums(rows, total))
    assert said.startswith("npm test (result Bash), turn 2: 2k tokens, cost $0.0") and said.endswith(
        "still sent with every turn."
    )


def test_a_segment_that_is_gone(tmp_path: pathlib.Path) -> None:
    last = [placed(turn("d", 20, 0, 3000)), placed({**sizes("d", "s1c", event="compaction"), "ts": turn("d", 20)["ts"]})]
    rows = answers_context.causes(log_of(tmp_path, *story(), *last), answers_context.Query("s1", by="segment")).rows
    assert [row["in_context"] for row in rows if row["segment"] is not None] == [False]


# The command.


@pytest.fixture
def stories(tmp_path: pathlib.Path) -> None:
    log_of(tmp_path / "log", *story("5f2b1a60"), *story("5f2c0000", 30, project="web"))


@pytest.mark.usefixtures("stories")
def test_what_the_command_prints(run: Run) -> None:
    env = {"TOKENOPS_NOW": NOW}
    latest = objects(run("tok-context", env=env).stdout)
    assert latest[-1]["kind"] == "context_total" and latest[-1]["session_id"] == "5f2c0000"
    named = objects(run("tok-context 5f2b --by tool --top 1", env=env).stdout)
    assert [row.get("tool", "-") for row in named] == [None, "-"] and named[-1]["session_id"] == "5f2b1a60"
    month = objects(run("tok context --project web", env=env).stdout)
    assert month[-1]["turns"] == 3 and "session_id" not in month[-1]
    breaks = objects(run("tok-context --since 7d --breaks", env=env).stdout)
    assert [row["kind"] for row in breaks] == ["cache_break"] * 2
    table = run("tok-context 5f2b --csv", env=env).stdout.decode().splitlines()
    assert table[0].startswith("kind,cause,") and table[-1].startswith("context_total,")


FAULTS = [
    ("tok-context 5f2", 2, "2 sessions begin with"),
    ("tok-context nosuch", 2, "no session"),
    ("tok-context 5f2b --since 7d", 2, "a session is shown whole"),
    ("tok-context --by mood", 2, "invalid choice"),
    ("tok-context --project nosuch", 0, "no project 'nosuch'"),
    ("tok-context --since 2026-11-22", 0, "no usage"),
]


@pytest.mark.usefixtures("stories")
@pytest.mark.parametrize(("command", "status", "message"), FAULTS)
def test_what_the_command_does_not_answer(run: Run, command: str, status: int, message: str) -> None:
    done = run(command, env={"TOKENOPS_NOW": NOW}, status=status)
    assert message in done.stderr.decode() and done.stdout == b""


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_and_says_it_in_words(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    log = log_of(tmp_path, *story())
    rows, total, breaks, _ = answers_context.causes(log, answers_context.Query("s1"))
    found = context_report.Sums(rows[:3], total)
    text = context_report.table(found, "table", False, rows[3:])
    assert max(map(show.text_width, text.splitlines())) <= width
    assert (
        ("result Bash" if width == 60 else "Bash results") in text
        and "total" in text
        and f"and {len(rows) - 3} more" in text
    )
    said = context_report.sentences(found)
    assert said[0].startswith("Bash results entered with 2k tokens and were carried 1 time: $0.0")
    assert said[1].startswith("1 cache break paid 12k tokens again, $0.0")
    assert "expired in a pause" in context_report.break_table(breaks, "table", False, when.UTC, log.now)


def test_breaks_are_summed_up_by_reason_the_most_expensive_first() -> None:
    rows = [{"reason": reason, "cost_usd": usd} for reason, usd in (("idle", "1"), ("unknown", "5"), ("idle", "2"))]
    said = " ".join(context_report.reasons_text(rows, "table", False).split())
    assert said.endswith(
        "3 cache breaks cost $8.00 more than reading them: unknown, $5.00 (1); expired in a pause, $3.00 (2)"
    )
    assert context_report.reasons_text(rows, "csv", False) == context_report.reasons_text(rows[:1], "table", False) == ""


# The client's own files, read on demand.

SECRET = "orchard-plans/harvest.txt"


def transcript(home: pathlib.Path) -> None:
    """A session of Claude Code that reads a file and runs a program that is in no list."""

    def line(uuid: str, above: str | None, second: int, message: Json) -> Json:
        kind = "assistant" if message["role"] == "assistant" else "user"
        about = {
            "sessionId": "5f2b1a60",
            "cwd": "/home/ada/api",
            "version": "2.1.300",
            "timestamp": f"2026-11-21T09:00:{second:02}.000Z",
        }
        return {"parentUuid": above, "uuid": uuid, "type": kind, **about, "message": message}

    def answer(name: str, written: int, *content: Json) -> Json:
        usage = {
            "input_tokens": 0,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": 1000 if name != "msg_1" else 0,
            "output_tokens": 20,
        }
        return {
            "id": name,
            "role": "assistant",
            "model": "claude-opus-4-8",
            "content": list(content),
            "usage": usage,
            "type": "message",
        }

    def result(call: str, text: str) -> Json:
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call, "content": text}]}

    read = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": f"/home/ada/{SECRET}"}}
    ran = {"type": "tool_use", "id": "toolu_2", "name": "Bash", "input": {"command": "cd x && ./harvester --all"}}
    put(
        home / ".claude/projects/-home-ada-api/5f2b1a60.jsonl",
        line("u1", None, 0, {"role": "user", "content": "look at the plans"}),
        line("u2", "u1", 1, answer("msg_1", 1000, read)),
        line("u3", "u2", 2, result("toolu_1", "x" * 900)),
        line("u4", "u3", 3, answer("msg_2", 300, ran)),
        line("u5", "u4", 4, result("toolu_2", "y" * 500)),
        line("u6", "u5", 5, answer("msg_3", 500, {"type": "text", "text": "done"})),
    )


def test_files_and_programs_are_shown_on_demand_and_never_stored(
    run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    transcript(pathlib.Path(environment["HOME"]))
    env = {"TOKENOPS_NOW": NOW}
    *stored, total = objects(run("tok-context 5f2b --by command", env=env).stdout)
    assert {row["command"] for row in stored} == {None, "other"}
    *files, of_files = objects(run("tok-context 5f2b --by file", env=env).stdout)
    (file,) = (row for row in files if row["file"] is not None)
    assert file["file"] == f"/home/ada/{SECRET}" and file["entering_tokens"] > 200
    *programs, of_programs = objects(run("tok-context 5f2b --by command --live", env=env).stdout)
    assert {row["command"] for row in programs} == {None, "harvester"}
    assert total["cost_usd"] == of_files["cost_usd"] == of_programs["cost_usd"]
    assert "harvest.txt" in run("tok-context 5f2b --by file --table", env=env).stdout.decode()
    written = b"".join(path.read_bytes() for path in (tmp_path / "log").rglob("*") if path.is_file())
    assert b"harvest" not in written and b"msg_3" in written
    (pathlib.Path(environment["HOME"]) / ".claude/projects/-home-ada-api/5f2b1a60.jsonl").unlink()
    assert b"are not here" in run("tok-context 5f2b --by file", env=env, status=2).stderr
    assert b"are of one session" in run("tok-context --since 7d --live", env=env, status=2).stderr


# The page.


def tables() -> list[list[list[str]]]:
    """The tables of the example in docs/context.md, without their heads."""
    page = (ROOT / "docs/context.md").read_text().partition("## An example")[2].partition("## Cache breaks")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    heads = [at for at, row in enumerate(rows) if row[0] in ("turn", "cause")]
    return [rows[heads[0] + 1 : heads[1]], rows[heads[1] + 1 :]]


def whole(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_example_of_the_page_is_what_the_law_says() -> None:
    """The turns of its first table give the sums of its second."""
    records: list[Json] = []
    for number, at, read, write, output, before, own in tables()[0]:
        minutes = int(at[3:])
        records.append(turn(number, minutes, whole(read), whole(write), 0, whole(output)))
        entered = {
            ("result Read" if "Read result" in before else "prompt"): whole(size)
            for size in re.findall(r"of ([\d,]+) characters", before)
        }
        produced = {"reply": whole(re.findall(r"([\d,]+) characters of reply", own)[0])}
        if calls := re.findall(r"([\d,]+) of a Read call", own):
            produced["call Read"] = whole(calls[0])
        parent = str(int(number) - 1) if number != "1" else None
        records.append(sizes(number, parent, entered=entered if parent else {}, produced=produced))
    shares = list(context.shares(*chain(*records)))
    assert all(by_cause(share) for share in shares)
    found = cost_by_cause(shares)
    for cause, entered_text, carried, rewritten, output, cost in tables()[1]:
        some = list(found.values()) if cause == "total" else [found.pop(cause)]
        mine = [sum(line.tokens.get(kind, 0) for line in some) for kind in KINDS]
        if cause != "total":
            assert mine == [whole(text) for text in (entered_text, carried, rewritten, output)], cause
            assert some[0].usd == Decimal(cost[1:])
    assert found == {}
    total = [sum(whole(row[at]) for row in tables()[1][:-1]) for at in range(1, 5)]
    assert total == [whole(text) for text in tables()[1][-1][1:5]]
    assert sum(Decimal(row[5][1:]) for row in tables()[1][:-1]) == Decimal(tables()[1][-1][5][1:])
