"""Running an agent and resuming it after a limit: what a command line means, and ten kinds of failure with fake clients."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soak_clock import Clock

from conftest import MOST, ROOT, Json, Run, examples, lines, objects, put
from tokenops import catalog, headroom, limit_wait, run_agents, run_logs, run_rules, when

ID = "0b6a1f0e-3c0f-4a55-9d0c-2f1a6f4f9a01"
HOUR, MINUTE = 3_600_000, 60_000
NOW = when.moment("2026-11-21T09:30:00.000Z")

# What a command line means: its words; the session that it names, whether it begins one; and the command that resumes it
# ("-": not).
WORDS: list[tuple[str, str, bool, str]] = [
    ("claude", "", True, "claude P --resume S"),
    ("claude -p fix", "", True, "claude P -p --resume S"),
    ("claude fix --model opus -p --verbose", "", True, "claude P --model opus -p --verbose --resume S"),
    ("claude -p --allowedTools Read Edit", "", True, "claude P -p --allowedTools Read Edit --resume S"),
    ("claude -p fix --add-dir ../a ../b --output-format json", "", True, "claude P -p --add-dir ../a ../b --output-format json --resume S"),
    ("claude --permission-mode=plan fix", "", True, "claude P --permission-mode=plan --resume S"),
    (f"claude --session-id {ID} -p fix", ID, False, f"claude P -p --resume {ID}"),
    (f"claude --resume {ID} -p fix", ID, False, f"claude P -p --resume {ID}"),
    (f"claude -r {ID} --fork-session -p fix", "", False, "claude P -p --resume S"),
    ("claude --resume", "", False, "claude P --resume S"),
    ("claude --resume the-parser", "", False, "claude P --resume S"),
    ("claude -c -p fix", "", False, "claude P -p --resume S"),
    ("claude --file f1:a -p fix", "", True, "claude P -p --resume S"),
    ("claude -p -- --strange", "", True, "claude P -p --resume S"),
    ("claude --new-option fix", "", True, "-"),
    ("claude --new-option -p", "", True, "claude P --new-option -p --resume S"),
    ("claude --new-option=x fix", "", True, "claude P --new-option=x --resume S"),
    ("claude mcp list", "", True, "-"),
    ("claude --worktree -p fix", "", True, "-"),
    ("claude -p --no-session-persistence fix", "", True, "-"),
    ("codex", "", True, "codex resume S P"),
    ("codex fix", "", True, "codex resume S P"),
    ("codex exec fix", "", True, "codex exec resume S P"),
    ("codex e --json -m gpt-5.4 fix", "", True, "codex e --json -m gpt-5.4 resume S P"),
    ("codex -m gpt-5.4 exec -c a=b -i a.png fix", "", True, "codex exec -m gpt-5.4 -c a=b resume S P"),
    (f"codex exec --json resume {ID} fix", ID, False, f"codex exec --json resume {ID} P"),
    (f"codex exec resume --json {ID} fix", ID, False, f"codex exec --json resume {ID} P"),
    ("codex resume --last", "", False, "codex resume S P"),
    (f"codex fork {ID} fix", "", False, "codex resume S P"),
    ("codex exec --ephemeral fix", "", True, "-"),
    ("codex login", "", True, "-"),
    ("opencode run fix it -m a/b", "", True, "opencode run -m a/b -s S P"),
    ("opencode run -s ses_1 fix", "ses_1", False, "opencode run -s ses_1 P"),
    ("opencode ../app", "", True, "opencode ../app -s S --prompt P"),
    ("opencode run -c --fork fix", "", False, "opencode run -s S P"),
    ("gemini -p fix", "", True, "-"),
    ("aider fix", "", True, "-"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "session", "is_new", "again"), WORDS, ids=[case[0][:40] for case in WORDS])
def test_what_a_command_line_means(line: str, session: str, is_new: bool, again: str) -> None:
    start = run_agents.start_of(line.split())
    if again == "-":
        assert start.why_not
        return
    assert (start.session, start.is_new, start.why_not) == (session, is_new, "")
    assert run_agents.resume_command(start, session or "S", "P") == again.split()
    assert start.takes_id == (line.startswith("claude") and is_new)


def options_of(row: Json) -> st.SearchStrategy[list[str]]:
    words = st.sampled_from(["x", "a=b", "../c"])
    return st.one_of(
        st.sampled_from(row["flags"]).map(lambda name: [name]),
        st.tuples(st.sampled_from(row["values"]), words).map(list),
    )


@examples(200)
@given(st.data(), st.sampled_from(["claude", "codex", "opencode"]))
def test_a_resumed_command_has_the_rights_of_the_first_and_no_more(data: st.DataObject, agent: str) -> None:
    """Its options are those of the first command, in their order; and what is resumed is resumed in the same way again."""
    row = catalog.load("agents")[agent]
    mode = {"codex": ["exec"], "opencode": ["run"]}.get(agent, [])
    groups = data.draw(st.lists(options_of(row), max_size=5))
    options = [word for group in groups for word in group]
    start = run_agents.start_of([agent, *mode, *options, "a prompt"])
    again = run_agents.resume_command(start, ID, "P")
    assert list(start.options) == options and start.why_not == ""
    own = set(row["again"]) | {ID, "P", agent, *mode}
    assert [word for word in again if word.startswith("-") and word not in options and word not in own] == []
    assert not {word for word in again if "dangerous" in word or "permission" in word} - set(options)
    twice = run_agents.start_of(again)
    assert (twice.session, twice.options, twice.is_new) == (ID, start.options, False)


# The rules.


def refused(resets: int | None = HOUR, **more: object) -> run_logs.Ending:
    return run_logs.Ending(run_logs.LIMIT, "", NOW, "five_hour", None if resets is None else NOW + resets)._replace(**more)  # type: ignore[arg-type]


def row(left: int | None, at: int = NOW - MINUTE, action: str = headroom.CONTINUE, resets: int = HOUR) -> Json:
    window: Json = {"window": "five_hour", "headroom": None if left is None else left / 100, "binds": True, "action": action}
    window["resets_at"] = when.stamp(NOW + resets)
    return {"provider": "anthropic", "headroom_pct": left, "recommended_action": action, "observed_at": when.stamp(at),
            "binding_window": "five_hour", "windows": [window]}  # fmt: skip


RULES = run_rules.Rules()
OBJECTIONS: list[tuple[str, run_logs.Ending, list[int | None], int, str]] = [
    ("a limit", refused(), [], 0, ""),
    ("another failure", run_logs.Ending(run_logs.OTHER, "unknown"), [], 0, "did not end at a limit"),
    ("a log that cannot be read", run_logs.Ending(run_logs.UNREADABLE, "x"), [], 0, "cannot be read"),
    ("after another reset", refused(), [NOW - HOUR], 1, ""),
    ("the same reset", refused(), [NOW + HOUR + MINUTE], 1, "after this reset before"),
    ("no reset, twice", refused(None), [None], 1, "after this reset before"),
    ("no reset after one with a reset", refused(None), [NOW], 1, ""),
    ("too often", refused(), [], 5, "--most"),
]


@pytest.mark.parametrize(("what", "ending", "resets", "resumes", "why"), OBJECTIONS, ids=[case[0] for case in OBJECTIONS])
def test_objections(what: str, ending: run_logs.Ending, resets: list[int | None], resumes: int, why: str) -> None:
    answer = run_rules.objection(ending, resets, resumes, RULES)
    assert why in answer and bool(why) == bool(answer)


@examples(100)
@given(st.lists(st.one_of(st.none(), st.integers(0, 100 * HOUR)), max_size=30), st.integers(1, 9))
def test_never_more_often_than_allowed_and_once_per_reset(resets: list[int | None], most: int) -> None:
    used: list[int | None] = []
    for reset in resets:
        if run_rules.objection(refused()._replace(resets_at=reset), used, len(used), run_rules.Rules(most=most)):
            break
        used.append(reset)
    assert len(used) <= most
    assert not any(run_rules.is_same(a, b) for at, a in enumerate(used) for b in used[:at])


VERDICTS: list[tuple[str, run_logs.Ending, list[Json], int, str]] = [
    ("no reading: until the reset that was named", refused(), [], NOW, limit_wait.WAITING),
    ("within the margin", refused(), [], NOW + HOUR + MINUTE, limit_wait.WAITING),
    ("after it", refused(), [], NOW + HOUR + 2 * MINUTE, limit_wait.ROOM),
    ("an older reading shows room", refused(), [row(50)], NOW, limit_wait.WAITING),
    ("a newer one does", refused(), [row(50, NOW + 1)], NOW + 2, limit_wait.ROOM),
    ("the vendor still refuses", refused(), [row(0, NOW + HOUR, headroom.WAIT, 2 * HOUR)], NOW + HOUR + 3 * MINUTE, limit_wait.WAITING),
    ("no reset and no reading", refused(None), [], NOW + HOUR, limit_wait.UNKNOWN),
    ("no reset, a newer reading", refused(None), [row(50, NOW + 1)], NOW + 2, limit_wait.ROOM),
    ("no reset, an older reading", refused(None), [row(50)], NOW, limit_wait.UNKNOWN),
    ("too far away", refused(20 * HOUR), [], NOW, limit_wait.TOO_LONG),
]  # fmt: skip


@pytest.mark.parametrize(("what", "ending", "rows", "now", "state"), VERDICTS, ids=[case[0] for case in VERDICTS])
def test_verdicts(what: str, ending: run_logs.Ending, rows: list[Json], now: int, state: str) -> None:
    verdict = run_rules.verdict(ending, rows, now, NOW + 12 * HOUR, RULES)
    assert verdict.state == state
    if state == limit_wait.WAITING:
        assert now < verdict.wake <= now + limit_wait.LOOK_MS


def test_money() -> None:
    capped = RULES._replace(max_usd=Decimal(2))
    assert run_rules.objection_to_cost(run_rules.Cost(Decimal(9)), RULES) == ""
    assert run_rules.objection_to_cost(run_rules.Cost(Decimal("1.99")), capped) == ""
    assert "--max-usd is $2.00" in run_rules.objection_to_cost(run_rules.Cost(Decimal(2)), capped)
    assert "no price" in run_rules.objection_to_cost(run_rules.Cost(Decimal(0), 1), capped)
    paying = refused(extra=True)
    assert run_rules.objection_to_extra(refused(), [], RULES) == ""
    assert "--allow-extra" in run_rules.objection_to_extra(paying, [row(50)], RULES)
    assert run_rules.objection_to_extra(paying, [row(50, NOW + 1)], RULES) == ""
    assert run_rules.objection_to_extra(paying, [], RULES._replace(allow_extra=True)) == ""


def test_the_choice_before_the_start() -> None:
    full, none = row(0, action=headroom.WAIT), row(None)
    assert run_rules.roomiest([("a", row(20)), ("b", row(60))]) == "b"
    assert run_rules.roomiest([("a", full), ("b", None), ("c", row(1))]) == "c"
    assert run_rules.roomiest([("a", full), ("b", none)]) == "b"
    assert run_rules.roomiest([("a", None), ("b", None)]) == "a"


# The command, with fake clients under a clock that the test sets.


class Agents:
    """Fake clients first on the path, and what they were called with."""

    def __init__(self, environment: dict[str, str], clock: Clock, folder: pathlib.Path) -> None:
        self.environment, self.clock, self.folder = environment, clock, folder
        self.work = folder / "app"
        self.work.mkdir()
        for name in ("claude", "codex"):
            script = f"#!{sys.executable} -S\n{(ROOT / 'tests/fake_agent.py').read_text()}"
            script = script.replace(" -S\n", "\n", 1)  # the clock comes in by site
            put(folder / "fakes" / name, script.encode()).chmod(0o755)
        self.environment |= {
            "PATH": f"{folder / 'fakes'}{os.pathsep}{environment['PATH']}",
            "FAKE_PLAN": str(folder / "plan"),
            "FAKE_CALLS": str(folder / "calls"),
        }

    def plan(self, *steps: Json) -> None:
        put(self.folder / "plan", lines(list(steps)))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["tok-run", *words], env=self.environment, cwd=self.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str) -> tuple[int, str]:
        """Run to the end; while it waits, the clock jumps past the reset. The status, and what it says."""
        process = self.start(*words)
        timer = threading.Timer(MOST, process.kill)
        timer.start()
        said = ""
        assert process.stderr
        for line in process.stderr:
            said += line.decode()
            if b"waiting:" in line:
                self.clock.jump(75 * MINUTE)
        process.communicate(timeout=MOST)
        timer.cancel()
        return process.returncode, said

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [call["words"] for call in objects(path.read_bytes())] if path.exists() else []

    @property
    def ledger(self) -> list[Json]:
        return objects((pathlib.Path(self.environment["TOKENOPS_HOME"]) / "runs.jsonl").read_bytes())


@pytest.fixture
def agents(environment: dict[str, str], tmp_path: pathlib.Path) -> Iterator[Agents]:
    clock = Clock(tmp_path / "clock", NOW, 1)
    environment |= clock.environment()
    yield Agents(environment, clock, tmp_path)
    clock.held.close()


LIMIT: Json = {"end": "limit", "resets": HOUR}
DONE: Json = {"end": "done"}
CLAUDE, CODEX = ["claude", "-p", "secret words"], ["codex", "exec", "secret words"]


def test_the_very_session_is_resumed_once(agents: Agents) -> None:
    agents.plan(LIMIT, DONE)
    status, said = agents.run("--resume", "--prompt", "secret words", "--", *CLAUDE, "--model", "opus")
    assert status == 0, said
    first, second = agents.calls
    assert first[0] == "--session-id" and first[2:] == ["-p", "secret words", "--model", "opus"]
    assert second == ["secret words", "-p", "--model", "opus", "--resume", first[1]]
    assert "resets at 10:30" in said and "resuming the session, 1 of at most 5" in said
    assert [line["event"] for line in agents.ledger] == ["called", "started", "ended", "waiting", "resumed", "ended"]
    assert {line["session_id"] for line in agents.ledger if "session_id" in line} == {first[1]}
    text = (pathlib.Path(agents.environment["TOKENOPS_HOME"]) / "runs.jsonl").read_text()
    assert "secret" not in text and "opus" not in text
    assert stat.S_IMODE((pathlib.Path(agents.environment["TOKENOPS_HOME"]) / "runs.jsonl").stat().st_mode) == 0o600


def test_codex_is_known_by_the_session_that_began(agents: Agents) -> None:
    agents.plan(LIMIT, DONE)
    status, said = agents.run("--resume", "--", *CODEX, "--json")
    assert status == 0, said
    first, second = agents.calls
    (rollout,) = (pathlib.Path(agents.environment["HOME"]) / ".codex/sessions").rglob("*.jsonl")
    assert first == ["exec", "secret words", "--json"]
    assert second == ["exec", "--json", "resume", rollout.stem[-36:], run_agents.PROMPT]


def test_without_resume_it_says_when_the_limit_resets(agents: Agents) -> None:
    agents.plan({**LIMIT, "status": 7})
    assert agents.run("--", *CLAUDE) == (
        7,
        "tok-run: a limit ended it, which resets at 10:30; not resumed: --resume waits and resumes it\n",
    )
    assert agents.calls == [CLAUDE[1:]]


FAILURES: list[tuple[str, list[Json], list[str], int, int, str]] = [
    # What fails; the steps; the options; how many starts; the status; what is said.
    ("the vendor still refuses, with a new reset each time", [LIMIT], ["--most", "3"], 4, 1, "which is --most"),
    ("the same reset twice", [LIMIT, {**LIMIT, "resets": -16 * MINUTE}], [], 2, 1, "the vendor refused it again"),
    ("another failure", [{"end": "network", "status": 3}], [], 1, 3, ""),
    ("a busy vendor", [{"end": "transient"}], [], 1, 1, ""),
    ("the network is gone after the reset", [LIMIT, {"end": "network", "status": 3}], [], 2, 3, ""),
    ("it did not fail", [DONE], [], 1, 0, ""),
    ("a limit without a reset", [{"end": "limit", "resets": None}], ["--at-most", "1"], 1, 1, "and no reading shows room"),
    ("a log that is gone", [{**LIMIT, "removed": 1}], [], 1, 1, "its log has no session that was written to"),
    ("a reset that is too far away", [{**LIMIT, "resets": 40 * HOUR}], [], 1, 1, "--at-most 41 waits for it"),
    ("the account pays for more than its plan", [{**LIMIT, "overage": "allowed"}], [], 1, 1, "--allow-extra resumes it"),
    ("the session costs too much", [LIMIT], ["--max-usd", "0.000001"], 1, 1, "and --max-usd is $0.00"),
    ("its cost is not known", [{**LIMIT, "model": "no-such-model"}], ["--max-usd", "5"], 1, 1, "--max-usd cannot be kept"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "steps", "options", "starts", "status", "said"), FAILURES, ids=[case[0] for case in FAILURES]
)
def test_failures_of_claude_code(
    what: str, steps: list[Json], options: list[str], starts: int, status: int, said: str, agents: Agents
) -> None:
    agents.plan(*steps)
    answer = agents.run("--resume", *options, "--", *CLAUDE)
    assert (answer[0], len(agents.calls)) == (status, starts), answer[1]
    assert said in " ".join(answer[1].split()), answer[1]
    if not said:
        assert "not resumed" not in answer[1]
    assert len([line for line in agents.ledger if line["event"] == "resumed"]) == starts - 1


@pytest.mark.parametrize(
    ("what", "step", "said"),
    [
        ("two sessions of one folder", {**LIMIT, "another": 1}, "2 sessions were written to"),
        ("no session", {**LIMIT, "removed": 1}, "its log has no session that was written to"),
        ("credits", {**LIMIT, "credits": {"has_credits": True}}, "--allow-extra resumes it"),
        ("another failure", {"end": "network"}, ""),
    ],
)
def test_failures_of_codex(what: str, step: Json, said: str, agents: Agents) -> None:
    agents.plan(step)
    status, text = agents.run("--resume", "--", *CODEX)
    assert (status, len(agents.calls)) == (1, 1) and said in " ".join(text.split()), text


def test_an_account_that_pays_is_resumed_if_it_may(agents: Agents) -> None:
    agents.plan({**LIMIT, "overage": "allowed"}, DONE)
    assert agents.run("--resume", "--allow-extra", "--", *CLAUDE)[0] == 0
    assert len(agents.calls) == 2


def test_a_ledger_that_cannot_be_written_and_an_unknown_agent_run_all_the_same(agents: Agents) -> None:
    agents.plan(LIMIT)
    put(pathlib.Path(agents.environment["TOKENOPS_HOME"]) / "runs.jsonl/x", b"")
    status, said = agents.run("--resume", "--", *CLAUDE)
    assert (status, len(agents.calls)) == (1, 1) and "the ledger cannot be written" in said
    assert agents.run("--resume", "--", "sh", "-c", "exit 5")[0] == 5
    status, said = agents.run("--resume", "--", "no-such-agent")
    assert status == 2 and "no such program" in said


def test_ctrl_c_in_the_wait_ends_it(agents: Agents) -> None:
    agents.plan(LIMIT)
    process = agents.start("--resume", "--", *CLAUDE)
    assert process.stderr
    assert any(b"waiting:" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=MOST)
    assert (process.returncode, len(agents.calls)) == (130, 1)
    assert agents.ledger[-1]["event"] == "interrupted"


def test_killed_in_the_wait_nothing_is_resumed_and_the_reset_counts_for_the_next_run(agents: Agents) -> None:
    agents.plan(LIMIT, {**LIMIT, "resets": -16 * MINUTE})
    process = agents.start("--resume", "--", *CLAUDE)
    assert process.stderr
    assert any(b"waiting:" in line for line in process.stderr)
    process.kill()
    process.communicate(timeout=MOST)
    agents.clock.jump(75 * MINUTE)
    assert len(agents.calls) == 1
    session = agents.calls[0][1]
    # By hand with the same session: that is no resume of ours, so the reset may still be used once, and not twice.
    status, said = agents.run("--resume", "--", "claude", "-p", "secret words", "--resume", session)
    assert status == 1 and len(agents.calls) == 3 and "the vendor refused it again" in said


def test_a_clock_that_is_set_back_causes_no_more_starts(agents: Agents) -> None:
    agents.plan(LIMIT, DONE)
    process = agents.start("--resume", "--", *CLAUDE)
    assert process.stderr
    assert any(b"waiting:" in line for line in process.stderr)
    agents.clock.jump(-30 * MINUTE)
    agents.clock.jump(180 * MINUTE)
    process.communicate(timeout=MOST)
    assert (process.returncode, len(agents.calls)) == (0, 2)


def test_a_reset_that_moves_is_waited_for(agents: Agents, run: Run) -> None:
    agents.plan(LIMIT, DONE)
    process = agents.start("--resume", "--", *CLAUDE)
    assert process.stderr
    assert any(b"10:30" in line for line in process.stderr)
    moved = {"v": 1, "ts": "2026-11-21T09:34:00.000Z", "kind": "meter", "id": "m", "source": "claude-statusline", "client": "claude-code",
             "provider": "anthropic", "window": "five_hour", "window_minutes": 300, "used": 1.0, "resets_at": "2026-11-21T11:30:00.000Z",
             "observed_at": "2026-11-21T09:34:00.000Z"}  # fmt: skip
    run("tok-log append", lines([moved]))
    agents.clock.jump(6 * MINUTE)
    assert any(b"11:30" in line for line in process.stderr)
    assert len(agents.calls) == 1
    agents.clock.jump(2 * HOUR)
    process.communicate(timeout=MOST)
    assert (process.returncode, len(agents.calls)) == (0, 2)


def test_a_signal_reaches_the_agent_and_its_status_is_returned(agents: Agents) -> None:
    agents.plan({**LIMIT, "waits": 42})
    process = agents.start("--resume", "--", *CLAUDE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=MOST)
    assert (process.returncode, len(agents.calls)) == (42, 1), "it was interrupted, so it is not resumed"


def test_templates(agents: Agents, run: Run) -> None:
    agents.plan(DONE)
    config = {"run": {"commands": {"a": "claude -p", "b": ["codex", "exec"], "c": 5}}}
    put(pathlib.Path(agents.environment["HOME"]) / ".config/tokenops/config.yaml", config)
    full: Json = {"v": 1, "ts": "2026-11-21T09:29:00.000Z", "kind": "meter", "id": "m", "source": "claude-statusline", "client": "claude-code",
                  "provider": "anthropic", "window": "five_hour", "window_minutes": 300, "used": 1.0, "resets_at": "2026-11-21T11:30:00.000Z",
                  "observed_at": "2026-11-21T09:29:00.000Z"}  # fmt: skip
    assert "starting a" in agents.run("--any", "a,b", "--", "secret words")[1]
    run("tok-log append", lines([full]))
    assert "starting b" in agents.run("--any", "a,b", "--", "secret words")[1]
    assert agents.calls == [["-p", "secret words"], ["exec", "secret words"]]
    status, said = agents.run("--any", "c")
    assert status == 2 and "run.commands" in said
    assert agents.run("--any", "a,d", "--")[0] == 2
    assert agents.run()[0] == 2


# How a run ended, by lines that the real clients wrote (2026-12-01).


def transcript(path: pathlib.Path, *records: Json) -> run_logs.Session:
    return run_logs.Session(ID, str(put(path, lines(list(records)))), 0)


def test_endings_of_codex(tmp_path: pathlib.Path) -> None:
    def event(minute: int, **payload: object) -> Json:
        return {"timestamp": f"2026-11-21T09:{minute}:00.000Z", "type": "event_msg", "payload": payload}

    reached = {"message": "x", "codex_error_info": "usage_limit_exceeded"}
    primary = {"used_percent": 100.0, "window_minutes": 300, "resets_at": NOW // 1000 + 3600}
    secondary = {"used_percent": 100.0, "window_minutes": 10080, "resets_at": NOW // 1000 + 90000}
    counts = event(31, type="token_count", rate_limits={"primary": primary, "secondary": secondary, "credits": None})
    cases = [
        ([counts, event(32, type="task_complete", error=reached)], run_logs.LIMIT),
        ([counts, event(32, type="error", **reached)], run_logs.LIMIT),
        ([counts, event(32, type="task_complete", error=reached), event(33, type="task_started")], run_logs.OTHER),
        ([counts, event(32, type="task_complete", error=reached), event(33, type="turn_aborted")], run_logs.OTHER),
        ([counts, event(20, type="task_complete", error=reached)], run_logs.OTHER),
        ([counts, event(32, type="task_complete", error={"codex_error_info": {"http": 500}})], run_logs.OTHER),
        ([counts], run_logs.OTHER),
    ]
    for records, state in cases:
        ending = run_logs.ending("codex", transcript(tmp_path / "a.jsonl", *records), NOW)
        assert ending.state == state, records
        if state == run_logs.LIMIT:
            assert (ending.window, ending.resets_at, ending.extra) == ("weekly", NOW + 90_000_000, False)
    assert run_logs.ending("codex", run_logs.Session(ID, str(tmp_path / "none"), 0), NOW).state == run_logs.UNREADABLE


def test_endings_of_opencode(tmp_path: pathlib.Path) -> None:
    import sqlite3

    path = tmp_path / "opencode.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE session (id, directory, parent_id, time_created, time_updated)")
        connection.execute("CREATE TABLE message (id, session_id, time_created, data)")
        connection.execute("INSERT INTO session VALUES (?, ?, NULL, ?, ?)", ("ses_1", str(tmp_path), NOW, NOW + 5))
        connection.execute("INSERT INTO session VALUES (?, ?, ?, ?, ?)", ("ses_2", str(tmp_path), "ses_1", NOW, NOW + 5))
    (session,) = run_logs.sessions_since("opencode", [str(path)], str(tmp_path), NOW)
    assert session.id == "ses_1" and run_logs.session_of("opencode", [str(path)], "ses_1") == session
    headers = {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": str(NOW // 1000 + 60)}
    body = json.dumps({"error": {"type": "usage_limit_reached", "resets_at": NOW // 1000 + 60}})
    for data, state in (
        ({"statusCode": 429, "responseHeaders": headers}, run_logs.LIMIT),
        ({"statusCode": 429, "responseHeaders": {}, "responseBody": body}, run_logs.LIMIT),
        ({"statusCode": 429, "responseHeaders": {}, "responseBody": "slow down"}, run_logs.OTHER),
        ({"statusCode": 500, "responseHeaders": headers}, run_logs.OTHER),
    ):
        message = {"role": "assistant", "error": {"name": "APIError", "data": data}}
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM message")
            connection.execute("INSERT INTO message VALUES ('m', 'ses_1', ?, ?)", (NOW + 1, json.dumps(message)))
        ending = run_logs.ending("opencode", session, NOW)
        assert ending.state == state, data
        assert ending.resets_at == (NOW + MINUTE if state == run_logs.LIMIT else None)
