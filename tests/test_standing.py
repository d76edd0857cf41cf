"""Where the user stands: the answer behind `tok`, the 5-hour windows, and why an answer is empty."""

from __future__ import annotations

import json
import os
import pathlib
from decimal import Decimal

import pytest

from conftest import Json, Run, claude, lines, objects, put

NOW = "2026-11-25T12:00:00Z"


def turn(number: int, ts: str, **more: object) -> Json:
    base = {"v": 1, "ts": ts, "kind": "turn", "id": f"t{number}", "turns": 1, "source": "test", "client": "codex"}
    base |= {"provider": "openai", "model": "gpt-6.1-sol", "project": "app", "session_id": f"s{number % 3}aaaaaaaa"}
    return base | {"input_tokens": 1000, "output_tokens": 100 * number} | more


def meter(ts: str, used: float, resets_at: str, window: str = "five_hour", minutes: int = 300) -> Json:
    row = {"v": 1, "ts": ts, "kind": "meter", "id": f"m{ts}{window}", "source": "codex-jsonl", "provider": "openai"}
    return row | {"window": window, "window_minutes": minutes, "used": used, "resets_at": resets_at, "observed_at": ts}


@pytest.fixture
def told(run: Run, environment: dict[str, str]) -> Run:
    """Commands at that moment, on a log with three days of usage and readings of one window."""
    environment["TOKENOPS_NOW"] = NOW
    turns = [
        turn(1, "2026-10-30T10:00:00.000Z"),
        turn(2, "2026-11-24T10:00:00.000Z", project="orchard"),
        turn(3, "2026-11-25T09:00:00.000Z"),
        turn(4, "2026-11-25T10:30:00.000Z"),
        turn(5, "2026-11-25T11:00:00.000Z", model="never-heard-of"),
    ]
    meters = [
        meter("2026-11-25T09:30:00.000Z", 0.2, "2026-11-25T15:00:00.000Z"),
        meter("2026-11-25T11:30:00.000Z", 0.6, "2026-11-25T15:00:00.000Z"),
        meter("2026-11-24T11:00:00.000Z", 0.1, "2026-11-24T13:00:00.000Z"),
    ]
    run("tok-log append", lines([*turns, *meters]))
    return run


def test_the_spans_agree_with_the_cost_report(told: Run) -> None:
    answer = json.loads(told("tok --json").stdout)
    assert (answer["kind"], answer["state"]) == ("standing", "current")
    today, month = answer["spans"]
    assert (today["name"], month["name"]) == ("today", "this month")
    for span, options in ((today, "--today"), (month, "")):
        rows = objects(told(f"tok-cost --log --by none --json {options}").stdout)
        assert span["cost_usd"] == rows[0]["cost_usd"] and span["turns"] == rows[0]["turns"]
        assert span["unpriced_turns"] == 1
    assert sum(Decimal(row.get("cost_usd", "0")) for row in answer["projects"]) == Decimal(month["cost_usd"])
    assert sum(Decimal(row.get("cost_usd", "0")) for row in answer["sessions"]) == Decimal(month["cost_usd"])
    costs = [Decimal(row.get("cost_usd", "0")) for row in answer["sessions"]]
    assert costs == sorted(costs, reverse=True)
    assert answer["listed_of"] == {"projects": 2, "sessions": 3}
    assert answer["sessions"][0]["project"] == "app" and answer["sessions"][0]["client"] == "codex"


def test_the_limits_are_those_of_the_budget(told: Run) -> None:
    answer = json.loads(told("tok --json").stdout)
    rows = objects(told("tok-budget --json", status=None).stdout)
    assert answer["limits"] == [{**row, "as_of": answer["limits"][0]["as_of"]} for row in rows]
    screen = told("tok --table", env={"COLUMNS": "80"}).stdout.decode()
    assert "OpenAI 5 h" in screen and " 60%" in screen and "resets 15:00" in screen.replace("at ", "")


def test_old_usage_is_shown_and_said_to_be_old(told: Run) -> None:
    answer = json.loads(told("tok --json", env={"TOKENOPS_NOW": "2027-03-03T12:00:00Z"}).stdout)
    assert answer["state"] == "old"
    assert [span["name"] for span in answer["spans"]] == ["2026-11-25", "2026-11"]
    assert [span["turns"] for span in answer["spans"]] == [3, 4]
    screen = told("tok --table", env={"TOKENOPS_NOW": "2027-03-03T12:00:00Z"}).stdout.decode()
    assert "No usage this month. The last was on 2026-11-25" in screen and "November 2026" in screen


def test_without_usage_it_shows_where_it_looked(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    (home / ".codex/sessions").mkdir(parents=True)
    run("tok-init --demo")
    demo = f"{environment['TOKENOPS_HOME']}/demo"
    assert json.loads(run("tok --json").stdout)["next"]["do"] == f"TOKENOPS_HOME={demo} tok"
    run("tok-init --no-demo")
    answer = json.loads(run("tok --json").stdout)
    assert answer["state"] == "empty" and answer["next"]["do"] == "tok init --demo"
    looked = {row["client"]: row for row in answer["looked_for"]}
    assert looked["codex"]["existing"] == [str(home / ".codex")] and not looked["claude-code"]["existing"]
    assert str(home / ".claude") in looked["claude-code"]["places"]
    other = json.loads(run("tok --json", env={"CODEX_HOME": "/nowhere"}).stdout)
    assert {row["client"]: row for row in other["looked_for"]}["codex"]["places"] == ["/nowhere"]


@pytest.mark.parametrize(
    ("plan", "do"),
    [("", "tok models"), ("never-heard-of", "tok models")],
)
def test_the_next_step(plan: str, do: str, told: Run) -> None:
    assert json.loads(told("tok --json").stdout)["next"]["do"] == do


def test_the_next_step_without_and_with_a_plan(run: Run, environment: dict[str, str]) -> None:
    environment["TOKENOPS_NOW"] = NOW
    run("tok-log append", lines([turn(3, "2026-11-25T09:00:00.000Z")]))
    assert json.loads(run("tok --json").stdout)["next"]["do"] == "tok init"
    run("tok-plan set openai gpt-pro --from 2026-11-01")
    answer = json.loads(run("tok --json").stdout)
    assert answer["next"]["do"] == "tok limits"  # no reading of the plan's limits
    assert answer["plans"][0]["covered_usd"] == answer["spans"][1]["cost_usd"]
    assert "ChatGPT Pro was worth" in run("tok --table").stdout.decode()
    run("tok-log append", lines([meter("2026-11-25T11:00:00.000Z", 0.1, "2026-11-25T15:00:00.000Z")]))
    assert json.loads(run("tok --json").stdout)["next"]["do"] == "tok trace s0aaaaaa"


# Five-hour windows.


def test_blocks_are_the_windows_that_were_read(told: Run) -> None:
    rows = objects(told("tok blocks --json").stdout)
    assert [(row["from"], row["to"], row["used"], row["is_active"], row["turns"]) for row in rows] == [
        ("2026-11-24T08:00:00.000Z", "2026-11-24T13:00:00.000Z", 0.1, False, 1),
        ("2026-11-25T10:00:00.000Z", "2026-11-25T15:00:00.000Z", 0.6, True, 2),
    ]
    assert "unpriced" in rows[1] and "unpriced" not in rows[0]
    [row] = objects(told("tok-cost --log --by none --since 2026-11-24 --until 2026-11-24").stdout)
    assert rows[0]["cost_usd"] == row["cost_usd"]
    assert len(objects(told("tok blocks --active --json").stdout)) == 1
    assert len(objects(told("tok blocks --json --since 2026-11-25").stdout)) == 1
    assert objects(told("tok claude blocks --json").stdout)[1]["turns"] == 0
    assert "15:00 open" in told("tok blocks --table").stdout.decode()


def test_without_a_window_blocks_say_why(told: Run, environment: dict[str, str]) -> None:
    done = told("tok blocks", env={"TOKENOPS_NOW": "2026-12-20T12:00:00Z"})
    assert done.stdout == b"" and b"the last was read on 2026-11-25: tok blocks --since 2026-11-25" in done.stderr
    done = told("tok blocks --active", env={"TOKENOPS_NOW": "2026-11-25T16:00:00Z"})
    assert b"no 5-hour window is open" in done.stderr
    done = told("tok blocks", env={"TOKENOPS_HOME": environment["TOKENOPS_HOME"] + "-other"})
    assert b"only the vendor knows when one begins" in done.stderr


# Empty is never silent.


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("tok-cost --log --client cdoex", "no client 'cdoex'; did you mean codex?"),
        ("tok-cost --log --project Orch", "no project 'Orch'; did you mean orchard?"),
        ("tok-cost --log --model gpt-6", "no model 'gpt-6'; did you mean gpt-6.1-sol?"),
        ("tok-cost --log --client zzz --since 2026-11-25T11:30:00Z", "the last usage of all was on 2026-11-25"),
        (
            "tok-cost --log --since 2026-11-25T11:30:00Z",
            "no usage in this span; the last was on 2026-11-25; use --since 2026-11-25",
        ),
        (
            "tok-cost --log --project orchard --today",
            "no usage in this span that the filters take; the last was on 2026-11-24",
        ),
        ("tok-cost --log --project orchard --model never-heard-of", "each value exists, but not together"),
        ("tok-burn --log --client cdoex", "no client 'cdoex'; did you mean codex?"),
        ("tok-burn --log --hours 1 --project orchard", "that the filters take; the last was on 2026-11-24"),
        ("tok-burn --log --provider opnai", "no provider 'opnai'; did you mean openai?"),
        ("tok-score --client cdoex", "no client 'cdoex'; did you mean codex?"),
        ("tok-coach waste --project ap", "no project 'ap'; did you mean app?"),
        ("tok-coach models --since 2026-11-25T11:30:00Z", "no usage in this span"),
        ("tok-cat --client cdoex", "no client 'cdoex'; did you mean codex?"),
        ("tok-cat --since 2027-01-01", "no usage in this span; the last was on 2026-11-25"),
        ("tok-cat --kind task", "no record of this kind in this span"),
        ("tok-cat | tok-cost --client cdoex", "no client 'cdoex'; did you mean codex?"),
        ("tok-cat | tok-cost --since 2027-01-01", "none of the 5 records is in this span"),
        ("tok-cost < /dev/null", "the input holds no usage"),
        ("tok-task list --since 2026-11-25", "no task in this span; tok-task start TITLE opens one"),
        ("tok-task show x", "there is no task 'x'"),
        ("tok-trace s0aaab", "did you mean s0aaaaaa?"),
        ("tok-cost --log --session s9aaaaaaaa", "did you mean"),
        ("tok-budget opnai", "no provider 'opnai'; did you mean openai?"),
        ("tok-cost --log --client cdoex --since 2026-11-25T11:30:00Z", "did you mean codex? The last usage of all was on"),
        ("tok-cost --log --client zzz --since 2026-11-25T11:30:00Z", "'zzz'; there is only codex; the last usage"),
        ("tok-budget --model gtp-5", "no model 'gtp-5' is known; did you mean gpt-5"),
        ("tok-plan catalog opnai", "no plan of opnai is known; did you mean openai?"),
        ("tok-plan headroom opnai", "no plan of opnai is set: tok-plan set opnai PLAN; did you mean openai?"),
        ("tok-provider list opnai", "no provider 'opnai'; did you mean openai?"),
        ("tok-backtest --provider opnai", "no readings of such a window; did you mean openai?"),
    ],
)
def test_an_empty_answer_says_why(line: str, sentence: str, told: Run) -> None:
    done = told(line, status=None)
    assert sentence in done.stderr.decode(), done.stderr.decode()
    assert done.stderr.count(b"\n") == 1 and b"Traceback" not in done.stderr
    assert done.returncode in (0, 1, 2)


def test_an_answer_that_is_not_empty_says_nothing(told: Run) -> None:
    for line in ("tok-cost --log --project orchard", "tok-burn --log", "tok-cat --client codex", "tok-score", "tok blocks"):
        assert b"no " not in told(line, status=None).stderr.replace(b"models without", b""), line


def test_the_log_alone_is_read_where_a_log_is_empty(run: Run) -> None:
    for line in ("tok-cost --log", "tok-burn --log", "tok-score", "tok-cat"):
        assert b"the log holds no usage; tok-status shows" in run(line, status=None).stderr, line


@pytest.mark.parametrize("name", ["claude", "claude-code"])
def test_clients_have_one_set_of_names(name: str, run: Run, environment: dict[str, str]) -> None:
    put(pathlib.Path(environment["HOME"]) / ".claude/projects/-home-ada-app/s1.jsonl", claude())
    assert len(objects(run(f"tok-read {name}").stdout)) == 1
    run(f"tok-sync {name}")
    [row] = objects(run(f"tok-cost --log --since all --client {name}").stdout)
    assert row["turns"] == 1
    assert len(objects(run(f"tok-cat --kind turn --client {name}").stdout)) == 1


def test_the_whole_log(told: Run) -> None:
    [row] = objects(told("tok-cost --log --by none --since all").stdout)
    assert row["turns"] == 5
    heading = told("tok-cost --log --by none --since all --table").stdout.decode().splitlines()[0]
    assert heading.startswith("30 Oct 10:00 to now")
    assert os.environ.get("XDG_CACHE_HOME")


def test_agents_are_told_why_an_answer_is_empty(told: Run, environment: dict[str, str]) -> None:
    def ask(tool: str, **args: str) -> str:
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": args}}
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        done = told("tok-mcp --tools all", lines([first, ready, call]))
        return str(objects(done.stdout)[-1]["result"]["content"][0]["text"])

    assert "no client 'cdoex'; did you mean codex?" in ask("tokenops_spend_summary", client="cdoex")
    assert "the last was on 2026-11-24; use since 2026-11-24" in ask("tokenops_spend_by", project="orchard", since="today")
    assert "5" in ask("tokenops_spend_summary", since="all")


def test_sessions_whose_ids_begin_alike_are_told_apart(run: Run, environment: dict[str, str]) -> None:
    environment["TOKENOPS_NOW"] = NOW
    names = ["claude-code-0001", "claude-code-0002", "codex-5"]
    turns = [turn(n, "2026-11-25T09:00:00.000Z", session_id=name) for n, name in enumerate(names)]
    run("tok-log append", lines(turns))
    answer = json.loads(run("tok --json").stdout)
    assert {row["session_id"]: row["short_id"] for row in answer["sessions"]} == {
        **{name: name for name in names[:2]},
        "codex-5": "codex-5",
    }
    shown = run("tok --table").stdout.decode()
    assert "claude-code-0001" in shown and "claude-code-0002" in shown
    assert run(f"tok trace {answer['sessions'][0]['short_id']} --json").stdout


@pytest.mark.parametrize(
    "line",
    ["score", "coach prompts", "coach replies", "coach waste", "coach models", "cost --log --reconcile"],
)
def test_every_report_takes_the_whole_log(line: str, told: Run) -> None:
    for span in ("--since all", "--since all --until 2026-11-24"):
        done = told(f"tok {line} {span} --json", status=None)
        assert done.returncode in (0, 1) and b"Traceback" not in done.stderr, done.stderr
