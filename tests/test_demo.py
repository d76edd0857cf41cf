"""Made-up data: something to look at, and never a part of anything real."""

from __future__ import annotations

import pathlib

import pytest

from conftest import ROOT, Json, Run, claude, objects, put
from tokenops import events, setup_demo, when

NOW = "2026-11-22T08:00:00Z"
ENV = {"TOKENOPS_NOW": NOW}
REPORTS = (
    "tok-cat",
    "tok-cost --log",
    "tok-cost --log --by model --since 60d",
    "tok-burn --log",
    "tok-budget",
    "tok-plan headroom",
    "tok-status",
    "tok-backtest --log",
    "tok-log verify",
)


@pytest.fixture
def log(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["TOKENOPS_HOME"])


def test_it_is_the_same_at_the_same_moment_and_holds_what_reports_need() -> None:
    now = when.moment(NOW)
    made = list(setup_demo.demo_records(now))
    assert made == list(setup_demo.demo_records(now))
    assert {event["source"] for event in made} == {"demo"}
    turns = [event for event in made if event["kind"] == "turn"]
    assert len({event["id"] for event in turns}) == len(turns) > 1000
    assert {event["client"] for event in turns} == {"claude-code", "codex"} and len({event["model"] for event in turns}) == 5
    assert all(event["project"].startswith("demo-") for event in turns)
    first, last = min(event["ts"] for event in made), max(event["ts"] for event in made)
    assert (
        when.stamp(now - 31 * when.DAY) < first < when.stamp(now - 28 * when.DAY) and when.stamp(now - when.DAY) < last < NOW
    )
    windows = {(event["provider"], event["window"]) for event in made if event["kind"] == "meter"}
    assert windows == {(who, window) for who in ("anthropic", "openai") for window in ("five_hour", "weekly")}
    assert all(0 < event["used"] <= 1 and event["resets_at"] > event["ts"] for event in made if event["kind"] == "meter")
    assert {key for event in made for key in event} <= events_fields()


def events_fields() -> set[str]:
    known = {"v", "ts", "kind", "id", *events.ATTRIBUTION, *events.USAGE}
    return known | {"window", "window_minutes", "used", "resets_at", "observed_at"} | {"counts", "times", *WORK, *CONTEXT}


CONTEXT = ("turn", "parent", "entered", "produced")
WORK = ("task", "event", "title", "branch", "saved_tokens", "by")


def test_each_report_has_something_to_show(run: Run, log: pathlib.Path, environment: dict[str, str]) -> None:
    run("tok-init --demo", env=ENV)
    look = {**ENV, "TOKENOPS_HOME": f"{log}/demo"}

    def rows(line: str) -> list[Json]:
        return objects(run(f"{line} --json", env=look, status=None).stdout)

    [card] = rows("tok-score")
    assert all(row["value"] is not None for row in card["kpis"].values()) and card["overall_grade"] in "ABCDF"
    waste = {row["finding"] for row in rows("tok-coach waste") if row["kind"] == "waste"}
    assert waste >= {"cache_expiry", "repeated_reads", "tool_result_floods"}
    tasks = rows("tok-task --metrics")
    assert len([row for row in tasks if row.get("title")]) == len(setup_demo.TASKS)
    assert {row["level"] for row in rows("tok-budget --spend")} and len(rows("tok-budget --spend")) == 2
    assert {row["plan_name"] for row in rows("tok-plan headroom")} == {"claude-pro", "gpt-plus"}
    assert all(row["signal_quality"]["level"] != "low" for row in rows("tok-budget")), "read a moment ago"
    session = rows("tok-cost --log --by session")[0]["session_id"]
    for line in (
        "tok-coach models",
        "tok-plan headroom",
        "tok-burn --log",
        f"tok-trace {session}",
        f"tok-context {session} --by tool",
        "tok-backtest --log",
    ):
        assert rows(line), line
    page = run("tok-dash --html - --since 30d", env=look).stdout.decode()
    for word in ("demo-orchard", "claude-opus-5-5", "Files read again", setup_demo.TASKS[-1]):
        assert word in page, word
    assert not (pathlib.Path(environment["HOME"]) / ".config").exists(), "its settings are its own"
    run("tok-plan set anthropic claude-team", env=look)
    assert b"claude-team" in (log / "demo/config.yaml").read_bytes()
    assert not (pathlib.Path(environment["HOME"]) / ".config").exists()


@pytest.mark.parametrize(
    ("home", "shown"), [("", "made-up data (tok-init --demo):"), ("docs/examples/home", "from the logs on this machine:")]
)
def test_what_make_demo_shows(home: str, shown: str, run: Run, environment: dict[str, str]) -> None:
    env = {"HOME": str(ROOT / home)} if home else {}
    out = run(f"sh {ROOT}/bench/demo.sh", env={**ENV, **env, "TOKENOPS_HOME": ""}).stdout.decode()
    assert out.splitlines()[0].endswith(shown) and "orchard" in out and "5 h limit" in out
    steps = out.partition("Next:\n")[2].splitlines()
    assert len(steps) == 3 and max(map(len, steps)) <= 88
    assert not (pathlib.Path(environment["HOME"]) / ".local").exists(), "nothing is left behind"


def test_it_can_be_looked_at(run: Run, log: pathlib.Path) -> None:
    [row] = objects(run("tok-init --demo", env=ENV).stdout)
    assert row["file"] == f"{log}/demo" and row["text"] == f"TOKENOPS_HOME={log}/demo tok-cost --log"
    done = run(row["text"], env=ENV)
    assert done.stderr == b"" and {one["project"] for one in objects(done.stdout)} >= {"demo-orchard", "demo-lighthouse"}
    assert not any("unpriced" in one for one in objects(done.stdout))
    look = {**ENV, "TOKENOPS_HOME": f"{log}/demo"}
    budgets = {one["provider"]: one for one in objects(run("tok-budget --json", env=look, status=None).stdout)}
    assert set(budgets) == {"anthropic", "openai"} and all(one["headroom_pct"] is not None for one in budgets.values())
    assert len(objects(run("tok-cat --kind all", env=look).stdout)) == row["records"]
    shown = run("tok-init --demo --table", env=ENV).stdout.decode()
    assert f"    TOKENOPS_HOME={log}/demo tok\n" in shown


def test_no_report_of_the_real_log_holds_any_of_it(run: Run, environment: dict[str, str], log: pathlib.Path) -> None:
    put(pathlib.Path(environment["HOME"]) / ".claude/projects/-a/s1.jsonl", claude("msg_1", ts="2026-11-21T12:00:00.000Z"))
    run("tok-sync")

    def said() -> dict[str, bytes]:
        return {line: run(line, env=ENV, status=None).stdout for line in REPORTS}

    said()  # what is worked out once and kept
    before = said()
    run("tok-init --demo", env=ENV)
    after = said()
    for line in REPORTS:
        assert (before[line].count(b"\n"), b"demo-" in after[line]) == (after[line].count(b"\n"), False), line
    assert after["tok-cat"] == before["tok-cat"] and b"msg_1" in before["tok-cat"]
    assert b'"source":"demo"' not in b"".join(after.values())


def test_nothing_real_gets_into_it(run: Run, environment: dict[str, str], log: pathlib.Path) -> None:
    run("tok-init --demo", env=ENV)
    put(pathlib.Path(environment["HOME"]) / ".claude/projects/-a/s1.jsonl", claude("msg_1"))
    look = {**ENV, "TOKENOPS_HOME": f"{log}/demo"}
    run("tok-sync", env=look, status=None)
    run("tok-cost --log --since 3650d", env=look)
    assert {event["source"] for event in objects(run("tok-cat", env=look).stdout)} == {"demo"}


def test_it_goes_without_a_trace(run: Run, environment: dict[str, str], log: pathlib.Path) -> None:
    put(pathlib.Path(environment["HOME"]) / ".claude/projects/-a/s1.jsonl", claude("msg_1"))
    run("tok-sync")
    before = {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}
    run("tok-init --demo", env=ENV)
    run("tok-init --demo", env=ENV)  # made anew, not twice
    assert run("tok-init --no-demo").stderr == b"tok-init: the demo data is removed\n"
    assert {path: path.read_bytes() for path in log.rglob("*") if path.is_file()} == before and not (log / "demo").exists()
    assert run("tok-init --no-demo").stderr == b"tok-init: there is no demo data\n"


def test_only_what_it_made_is_removed(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    mine = put(log / "demo/mine.txt", b"mine")
    for option in ("--demo", "--no-demo"):
        assert b"was not created by tok-init --demo; move it away" in run(f"tok-init {option}", env=ENV, status=2).stderr
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    (log / "demo").rmdir()
    run("tok-init --demo", env=ENV)
    done = run("tok-init --demo", env={**ENV, "TOKENOPS_HOME": f"{log}/demo"}, status=2)
    assert b"holds demo data itself; unset TOKENOPS_HOME" in done.stderr
    (log / "demo").rename(tmp_path / "elsewhere")
    (log / "demo").symlink_to(tmp_path / "elsewhere")
    assert b"was not created by" in run("tok-init --no-demo", status=2).stderr and (tmp_path / "elsewhere/events").is_dir()
