"""What an agent hears of its limits inside its loop, and what is stopped: warnings, stops, caps, fan-outs and loops."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import MOST, Json, Run, claude, eventually, examples, lines, objects, put
from tokenops import config, datadir, guard, guard_sums, guard_watch, headroom, when

NOW = when.moment("2026-11-21T16:00:00.000Z")
HOUR, MINUTE = 3_600_000, 60_000
RULES = config.thresholds(config.Config({}, "", []))["guard"]
SALT = b"salt"
WARNS = guard_watch.Settings(RULES)
STOPS = guard_watch.Settings(RULES | {"handoff_calls": 2}, stops=True)


def limit(level: int = guard_watch.FIRST, left: int = 18, resets: int = 70 * MINUTE, **more: Any) -> Json:
    row = {"name": "5 h limit", "level": level, "left_pct": left, "used_pct": 100 - left, "observed_at": NOW - MINUTE}
    return row | {"resets_at": NOW + resets} | more


def sums(*limits: Json, at: int = NOW - 5000, **more: Any) -> Json:
    return {"at": at, "limits": list(limits), "session": {"usd": 1.0, "tokens": 1}} | more


class Session:
    """A session's hooks, one after another."""

    def __init__(self, settings: guard_watch.Settings = WARNS) -> None:
        self.settings, self.memory = settings, None

    def hear(self, event: str, known: Json, tool: str = "Bash", now: int = NOW, **given: Any) -> str:
        """What the model reads; a denial begins with "deny:"."""
        payload = {
            "session_id": "s",
            "hook_event_name": event,
            "tool_name": tool,
            "tool_input": given or {"command": "make"},
        }
        heard = guard_watch.answer(
            payload, json.loads(json.dumps(self.memory)), known, self.settings, SALT, now, lambda: when.UTC
        )
        self.memory = heard.memory  # type: ignore[assignment]
        output = heard.answer.get("hookSpecificOutput", {})
        assert output.get("hookEventName", event) == event
        denied = f"deny: {output['permissionDecisionReason']}" if output.get("permissionDecision") == "deny" else ""
        assert not denied or event == "PreToolUse"
        return denied or output.get("additionalContext", "")


def test_a_warning_says_what_is_left_when_it_ends_and_what_to_do() -> None:
    text = Session().hear("UserPromptSubmit", sums(limit(out_at=NOW + 40 * MINUTE)))
    assert (
        text
        == "5 h limit: 18% left, likely out at 16:40, resets 17:10: finish this step, commit, write a hand-off. (tok-guard)"
    )
    assert "resets 23 Nov 16:00" in Session().hear("SessionStart", sums(limit(resets=48 * HOUR)))
    assert "sonnet has room" in Session().hear("PostToolUse", sums(limit(switch_to="sonnet")))


def test_once_per_level_and_window() -> None:
    talk, first, second, out = Session(), sums(limit()), sums(limit(guard_watch.SECOND, 9)), sums(limit(guard_watch.OUT, 0))
    heard = [bool(talk.hear(event, known)) for event, known in (
        ("SessionStart", first), ("UserPromptSubmit", first), ("PostToolUse", first), ("PreToolUse", second), ("PostToolUse", second),
        ("PostToolUse", first), ("PostToolUse", second), ("UserPromptSubmit", out), ("PostToolUse", out),
        ("PostToolUse", sums(limit(resets=70 * MINUTE + 4000))), ("PostToolUse", sums(limit(resets=6 * HOUR))),
    )]  # fmt: skip
    assert heard == [True, False, False, False, True, False, False, True, False, False, True]


SILENT: list[tuple[str, Json]] = [
    ("room", sums(limit(guard_watch.ROOM, 60))),
    ("nothing is known", {}),
    ("sums of an hour ago", sums(limit(), at=NOW - HOUR)),
    ("an old reading", sums(limit(observed_at=NOW - HOUR))),
    ("a window that is over", sums(limit(resets=-MINUTE))),
]


@pytest.mark.parametrize(("what", "known"), SILENT, ids=[case[0] for case in SILENT])
def test_silence(what: str, known: Json) -> None:
    assert Session(STOPS).hear("UserPromptSubmit", known) == Session(STOPS).hear("PreToolUse", known) == ""
    assert Session(guard_watch.Settings(RULES, warns=False)).hear("UserPromptSubmit", sums(limit())) == ""


def test_a_stop_asks_for_a_hand_off_then_denies_and_is_lifted() -> None:
    out, talk = sums(limit(guard_watch.OUT, 0)), Session(STOPS)
    assert [Session().hear("PreToolUse", out) for _ in range(5)] == [""] * 5, "off by default"
    assert (
        "stopped after 2 more calls" in (text := talk.hear("PreToolUse", out)) and "hand-off" in text and "deny" not in text
    )
    assert [talk.hear("PreToolUse", out) for _ in range(2)] == ["", ""]
    assert "deny: 5 h limit: 0% left, resets 17:10" in (text := talk.hear("PreToolUse", out)) and "tok-guard lift" in text
    assert talk.hear("UserPromptSubmit", out).startswith("5 h limit"), "a prompt is never lost"
    talk.settings = STOPS._replace(lifted_until=NOW + HOUR)
    assert talk.hear("PreToolUse", out) == ""
    talk.settings = STOPS._replace(lifted_until=NOW - 1)
    assert talk.hear("PreToolUse", out).startswith("deny")
    assert talk.hear("PreToolUse", sums(limit(guard_watch.FIRST))) == "", "there is room again"


CAPS: list[tuple[str, Json, str]] = [
    (
        "cap_session_usd",
        {"session": {"usd": 5.0, "tokens": 1}},
        "This session has used $5.00 at list price; the cap is $5.00",
    ),
    ("cap_session_tokens", {"session": {"usd": 1.0, "tokens": 5}}, "This session has used 5 tokens"),
    ("cap_task_usd", {"task": {"name": "T-1", "usd": 6.0, "tokens": 1}}, "This task has used $6.00"),
    ("cap_task_tokens", {"task": {"name": "T-1", "usd": 6.0, "tokens": 7}}, "This task has used 7 tokens"),
    ("cap_day_usd", {"day": {"usd": 7.0, "tokens": 1}}, "This day has used $7.00"),
    ("cap_day_tokens", {"day": {"usd": 7.0, "tokens": 9}}, "This day has used 9 tokens"),
    ("cap_window_percent", {"limits": [limit(guard_watch.ROOM, 90)]}, "the cap is 5% used"),
]


@pytest.mark.parametrize(("cap", "known", "why"), CAPS, ids=[case[0] for case in CAPS])
def test_caps(cap: str, known: Json, why: str) -> None:
    settings = guard_watch.Settings(RULES | {cap: 5.0, "handoff_calls": 0})
    talk, spent = Session(settings), sums() | known
    assert why in talk.hear("PreToolUse", spent)
    assert talk.hear("PreToolUse", spent).startswith(
        f"deny: {why}" if "limit" not in known and "percent" not in cap else "deny: 5 h"
    )
    assert Session(settings).hear("PreToolUse", sums()) == "", "below the cap"
    assert Session().hear("PreToolUse", spent) == "", "no cap"
    assert Session(settings).hear("PreToolUse", spent | {"at": NOW - HOUR}) == "", "old sums"
    assert Session(settings._replace(lifted_until=NOW + 1)).hear("PreToolUse", spent) == ""


def test_fan_outs() -> None:
    talk, known = Session(guard_watch.Settings(RULES | {"fanout_usd": 2.0})), sums(subagent_usd=0.6)
    assert [talk.hear("PreToolUse", known, "Agent", prompt="x") for _ in range(3)] == [""] * 3
    text = talk.hear("PreToolUse", known, "Agent", prompt="x")
    assert (
        "deny: 4 subagents since the last prompt, at about $0.60 each in this project, are $2.40" in text and "lift" in text
    )
    assert talk.hear("PreToolUse", known, "Read") == ""
    talk.hear("UserPromptSubmit", known)
    assert talk.hear("PreToolUse", known, "Task", prompt="x") == ""
    script = "await Promise.all(files.map(f => agent(f))); agent('a'); agent ('b'); agent('c')"
    assert "deny: 5 subagents" in talk.hear("PreToolUse", known, "Workflow", script=script)
    assert talk.hear("PreToolUse", sums(), "Workflow", script=script) == "", "what one costs is not known"
    assert Session().hear("PreToolUse", sums(subagent_usd=99.0), "Agent") == "", "no cap"


def test_loops() -> None:
    talk = Session(guard_watch.Settings(RULES | {"loop_told": 2, "loop_stop": 3}))
    heard = []
    for _ in range(4):
        heard.append(talk.hear("PreToolUse", {}, command="make x")[:4])
        talk.hear("PostToolUseFailure", {}, command="make x")
    assert heard == ["", "", "This", "deny"]
    assert talk.hear("PreToolUse", {}, command="make y") == ""
    talk.hear("PostToolUse", {}, command="make x")
    assert talk.hear("PreToolUse", {}, command="make x") == ""
    assert "make" not in json.dumps(talk.memory)
    for number in range(500):
        talk.hear("PostToolUseFailure", {}, command=str(number))
    assert len(talk.memory["failures"]) <= 200  # type: ignore[index]


ANY = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["hook_event_name", "tool_name", "tool_input", "at", "limits", "level", "resets_at", "observed_at", "session", "usd", "levels", "failures", "planned", "calls_left"]), inner, max_size=6), max_leaves=20)  # fmt: skip


@examples(200)
@given(ANY, ANY, st.sampled_from(["PreToolUse", "PostToolUse", "UserPromptSubmit", "PostToolUseFailure"]))
def test_any_memory_and_any_event(memory: Any, payload: Any, event: str) -> None:
    given = (payload if isinstance(payload, dict) else {}) | {"hook_event_name": event}
    heard = guard_watch.answer(given, memory, {}, STOPS, SALT, NOW, lambda: when.UTC)
    assert guard_watch.memory_of(heard.memory) == heard.memory


def row(left: int, action: str = headroom.CONTINUE, **more: Any) -> Json:
    window = {"window": "five_hour", "binds": True, "resets_at": when.stamp(NOW + HOUR)}
    return {"provider": "anthropic", "headroom_pct": left, "recommended_action": action, "windows": [window],
            "signal_quality": {"level": "high"}, "observed_at": when.stamp(NOW)} | more  # fmt: skip


def test_levels_of_a_window() -> None:
    for left, action, level in (
        (60, headroom.CONTINUE, guard_watch.ROOM),
        (60, headroom.SLOW_DOWN, guard_watch.FIRST),
        (25, headroom.CONTINUE, guard_watch.FIRST),
        (10, headroom.CONTINUE, guard_watch.SECOND),
        (3, headroom.WAIT, guard_watch.OUT),
        (3, headroom.SWITCH_MODEL, guard_watch.OUT),
    ):
        [limit] = guard_sums.limits([row(left, action), row(1) | {"provider": "openai"}], RULES)
        assert (limit["level"], limit["left_pct"], limit["name"]) == (level, left, "5 h limit")
    assert guard_sums.limits([row(1), row(2)], RULES) == [], "two accounts: nobody can tell whose this session is"
    assert guard_sums.limits([row(1, signal_quality={"level": "low"})], RULES) == []
    expected = {"cutoff_at": {"p50": when.stamp(NOW + MINUTE)}}
    assert guard_sums.limits([row(9, headroom.SLOW_DOWN, forecast=expected)], RULES)[0]["out_at"] == NOW + MINUTE
    assert "out_at" not in guard_sums.limits([row(60, forecast=expected)], RULES)[0]


# The hook as a process.


def reading(used: float, at: str = "2026-11-21T15:59:00.000Z") -> Json:
    record: Json = {"v": 1, "ts": at, "kind": "meter", "id": f"meter:{at}:{used}", "source": "claude-statusline"}
    record |= {"client": "claude-code", "provider": "anthropic", "window": "five_hour", "window_minutes": 300}
    return record | {"used": used, "resets_at": "2026-11-21T17:10:00.000Z", "observed_at": at}


class Hooks:
    """Hooks of one session, at a moment that stands still."""

    def __init__(self, environment: dict[str, str], home: pathlib.Path) -> None:
        self.environment = environment | {"TOKENOPS_NOW": when.stamp(NOW)}
        self.folder = environment["TOKENOPS_HOME"]
        self.transcript = put(
            home / ".claude/projects/-app/s1.jsonl", claude("msg_1", sessionId="s1", ts="2026-11-21T15:50:00.000Z")
        )

    def ask(self, event: str, **given: Any) -> Json:
        payload = {"session_id": "s1", "hook_event_name": event, "cwd": "/", "transcript_path": str(self.transcript)} | given
        done = subprocess.run(
            ["tok-guard", "hook"], input=json.dumps(payload).encode(), env=self.environment, capture_output=True, check=True,
            timeout=MOST,
        )  # fmt: skip
        assert done.stderr == b""
        output: Json = json.loads(done.stdout)["hookSpecificOutput"] if done.stdout else {}
        return output

    def cap(self, **rules: float) -> None:
        settings = {"thresholds": {"guard": rules}, "guard": {"warn": False}}
        put(pathlib.Path(self.environment["HOME"]) / ".config/tokenops/config.yaml", settings)

    def sums(self) -> Json:
        """The sums, once the process that a hook started has kept them."""
        assert eventually(lambda: "session" in guard.sums(self.folder, "s1"))
        return dict(guard.sums(self.folder, "s1"))


@pytest.fixture
def hooks(environment: dict[str, str]) -> Hooks:
    return Hooks(environment, pathlib.Path(environment["HOME"]))


def test_a_hook_starts_what_the_next_one_knows(hooks: Hooks, run: Run) -> None:
    run("tok-log append", lines([reading(0.82)]))
    assert hooks.ask("SessionStart", source="startup") == {}
    known = hooks.sums()
    assert known["session"] is None and known["limits"][0]["left_pct"] == 18
    text = hooks.ask("UserPromptSubmit", prompt="go on")["additionalContext"]
    assert text.startswith("5 h limit: 18% left, ") and text.endswith("write a hand-off. (tok-guard)")
    assert hooks.ask("PostToolUse", tool_name="Bash", tool_input={"command": "x"}) == {}
    names = {path.name for path in pathlib.Path(hooks.folder, "guard").iterdir()}
    assert all(pathlib.Path(hooks.folder, "guard", name).stat().st_mode & 0o777 == 0o600 for name in names)
    # A session that begins hears it at once, for it is the same account's.
    assert hooks.ask("SessionStart", session_id="s2", source="startup")["additionalContext"].startswith(
        "5 h limit: 18% left"
    )


def test_a_cap_and_its_lift(hooks: Hooks, run: Run) -> None:
    hooks.cap(cap_session_usd=0.000001, handoff_calls=0)
    call = {"tool_name": "Bash", "tool_input": {"command": "x"}}
    assert hooks.ask("PreToolUse", **call) == {}
    hooks.sums()
    assert "hand-off" in hooks.ask("PreToolUse", **call)["additionalContext"]
    assert hooks.ask("PreToolUse", **call)["permissionDecision"] == "deny"
    [status] = objects(run("tok-guard lift --for 2 --json", env=hooks.environment).stdout)
    assert status["lifted_until"] == "2026-11-21T18:00:00.000Z"
    assert hooks.ask("PreToolUse", **call) == {}
    assert "--for goes with lift" in run("tok-guard status --for 2", status=2).stderr.decode()
    [counts] = objects(run("tok-guard stats --json").stdout)
    assert counts["sessions"] == 1


def test_subagents_of_workflows_count(hooks: Hooks, run: Run) -> None:
    """Two subagents, one of them of a workflow: they are part of the session's cost, and of what one costs here."""
    hooks.cap(fanout_usd=50)
    inside = hooks.transcript.with_suffix("") / "subagents"
    for name, number in (("agent-a", 2), ("workflows/wf_1/agent-b", 3)):
        line = claude(f"msg_{number}", sessionId="s1", ts="2026-11-21T15:51:00.000Z", isSidechain=True, agentId=name[-1])
        put(inside / f"{name}.jsonl", line)
    hooks.ask("UserPromptSubmit", prompt="go on")
    known = hooks.sums()
    [total] = objects(run("tok-cost --log --since all --by none --json").stdout)
    assert Decimal(str(known["session"]["usd"])) == Decimal(total["cost_usd"]).quantize(
        Decimal(str(known["session"]["usd"]))
    )
    assert abs(known["subagent_usd"] - known["session"]["usd"] / 3) < 1e-9


def test_an_open_task_is_summed_up(hooks: Hooks, run: Run, tmp_path: pathlib.Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    put(hooks.transcript, claude("msg_1", sessionId="s1", cwd=str(work), ts="2026-11-21T15:50:00.000Z"))
    run(f"cd {work} && tok-task start Port", env={"TOKENOPS_NOW": "2026-11-21T15:40:00Z"})
    hooks.cap(cap_task_usd=50, cap_day_usd=50, cap_session_usd=50)
    hooks.ask("UserPromptSubmit", prompt="go on", cwd=str(work))
    task = hooks.sums()["task"]
    assert task["name"] and task["usd"] == hooks.sums()["session"]["usd"] == hooks.sums()["day"]["usd"] > 0


def test_whatever_fails_the_agent_goes_on(hooks: Hooks) -> None:
    folder = pathlib.Path(hooks.folder)
    call = {"tool_name": "Bash", "tool_input": {"command": "x"}}
    for content in (b"", b"{", b"[1]", b"\xff" * 99, b'{"at":"x","limits":[5]}'):
        put(folder / "guard/lifted.json", content)
        put(pathlib.Path(guard.sums_path(hooks.folder, "s1")), content)
        assert hooks.ask("PreToolUse", **call) == {}
    for value in ({"at": "x", "limits": 5}, {"at": NOW, "limits": [{"level": "x"}], "session": {"usd": "x"}}):
        datadir.keep_json(guard.sums_path(hooks.folder, "s1"), value)
        payload = json.dumps({"session_id": "s1", "hook_event_name": "PreToolUse", **call}).encode()
        done = subprocess.run(["tok-guard", "hook"], input=payload, env=hooks.environment, capture_output=True, check=True)
        assert done.stdout == b"" and b"Traceback" not in done.stderr
    assert os.path.isdir(folder)
