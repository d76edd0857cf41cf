"""The newest Claude Code and Codex meet a limit at a vendor on loopback: they are warned, stopped, and resumed once after it.

The vendor answers 429 with the headers and bodies of the real ones (2026-11). `make clients` installs what is run here.
"""

from __future__ import annotations

import json
import pathlib
import time

import rig
from rig import Ledger, Step
from rig_clients import claude, codex, repository
from test_clients import needs
from upstream import Asked, Upstream, Writer, plain

from conftest import Json, Run, lines, objects, put
from tokenops import when

SECONDS = 6  # until the reset
FIVE, WEEK = 300, 10_080  # minutes


class Limit:
    """A vendor whose limit is used up after some answers, and resets some seconds later."""

    def __init__(self, vendor: Upstream, ledger: Ledger, answers: int) -> None:
        self.ledger, self.answers = ledger, answers
        self.refused = 0
        self.resets = 0
        vendor.script = self.answer

    async def answer(self, asked: Asked, writer: Writer) -> None:
        target = asked.head.target.decode().partition("?")[0]
        is_call = asked.head.method == b"POST" and target.endswith(("/messages", "/responses"))
        if is_call and len(self.ledger.charges) >= self.answers:
            self.resets = self.resets or int(time.time()) + SECONDS
            if time.time() < self.resets:
                self.refused += 1
                body, headers = self.claude() if target.endswith("/messages") else self.codex()
                return await plain(json.dumps(body).encode(), *headers.items(), status=429)(asked, writer)
        return await self.ledger.answer(asked, writer)

    def claude(self) -> tuple[Json, dict[str, str]]:
        message = "This request would exceed your account's rate limit. Please try again later."
        windows = {"5h": ("1.0", self.resets, "rejected"), "7d": ("0.4", self.resets + 300_000, "allowed")}
        unified = {"status": "rejected", "reset": self.resets, "representative-claim": "five_hour", "overage-status": "rejected",
                   "overage-disabled-reason": "org_level_disabled"}  # fmt: skip
        for name, (used, resets, status) in windows.items():
            unified |= {f"{name}-utilization": used, f"{name}-reset": resets, f"{name}-status": status}
        headers = {f"anthropic-ratelimit-unified-{name}": str(value) for name, value in unified.items()}
        body = {"type": "error", "error": {"type": "rate_limit_error", "message": message}}
        return body, headers | {"retry-after": str(SECONDS), "x-should-retry": "false"}

    def codex(self) -> tuple[Json, dict[str, str]]:
        error = {"type": "usage_limit_reached", "message": "The usage limit has been reached", "plan_type": "plus"}
        headers = {"x-codex-plan-type": "plus"}
        for slot, used, minutes, resets in (
            ("primary", 100, FIVE, self.resets),
            ("secondary", 40, WEEK, self.resets + 300_000),
        ):
            headers |= {f"x-codex-{slot}-used-percent": str(used), f"x-codex-{slot}-window-minutes": str(minutes)}
            headers[f"x-codex-{slot}-reset-at"] = str(resets)
        return {"error": error | {"resets_at": self.resets, "resets_in_seconds": SECONDS}}, headers


WITHIN = ["tok-run", "--resume", "--margin", "1", "--"]


def events_of(environment: dict[str, str]) -> list[str]:
    ledger = pathlib.Path(environment["TOKENOPS_HOME"]) / "runs.jsonl"
    assert "work" not in ledger.read_text() and "dangerously" not in ledger.read_text()
    return [line["event"] for line in objects(ledger.read_bytes())]


STEPS = ["called", "started", "ended", "waiting", "resumed", "ended"]


@needs("claude")
def test_claude_code_is_resumed_once(vendor: Upstream, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    where = repository(tmp_path / "app")
    count = Step("Bash", {"command": "seq 1 10", "description": "count"})
    ledger = rig.serve(vendor, {"work": (count, count, count, Step())})
    limit = Limit(vendor, ledger, 2)
    first, second = claude("[[work]]", [], environment, vendor, where, within=WITHIN, login="CLAUDE_CODE_OAUTH_TOKEN")
    assert (first["is_error"], first["session_id"]) == (True, second["session_id"])
    assert second["is_error"] is False and limit.refused == 1
    assert events_of(environment) == STEPS
    (transcript,) = pathlib.Path(environment["HOME"]).glob(f".claude/projects/*/{first['session_id']}.jsonl")
    assert "Continue where you left off." in transcript.read_text()


def reading(used: float, resets: int) -> Json:
    """A reading of the five-hour window, taken now."""
    now = when.stamp(int(time.time() * 1000))
    record: Json = {
        "v": 1,
        "ts": now,
        "kind": "meter",
        "id": f"meter:{used}",
        "source": "claude-statusline",
        "client": "claude-code",
    }
    record |= {"provider": "anthropic", "window": "five_hour", "window_minutes": FIVE, "used": used, "observed_at": now}
    return record | {"resets_at": when.stamp(1000 * resets)}


@needs("claude")
def test_claude_code_is_warned_and_stopped_inside_its_loop(
    vendor: Upstream, environment: dict[str, str], run: Run, tmp_path: pathlib.Path
) -> None:
    """It hears of the limit after a tool, is asked for a hand-off, and then its calls are denied; a failing call is noticed."""
    where, resets = repository(tmp_path / "app"), int(time.time()) + 4000
    rules = {"handoff_calls": 1, "loop_told": 1}
    put(
        pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml",
        {"guard": {"stop": True}, "thresholds": {"guard": rules}},
    )
    run("tok-guard install")
    run("tok-log append", lines([reading(0.82, resets)]))
    # Each step waits until what the hook started is known, as a step of a real agent takes longer than that.
    full = tmp_path / "full.jsonl"
    put(full, lines([reading(1.0, resets)]))
    known = "until ls $TOKENOPS_HOME/guard/*.sums >/dev/null 2>&1; do sleep 0.1; done"
    calls = [known, "exit 3", "exit 3", "true"]
    steps = [Step("Bash", {"command": call, "description": "x"}) for call in calls]
    last = [Step("Bash", {"command": f"echo {number}", "description": "x"}) for number in range(3)]
    append = Step("Bash", {"command": f"rm $TOKENOPS_HOME/guard/*.sums; tok-log append {full}", "description": "x"})
    wait = Step(
        "Bash", {"command": "until grep -qs 'level.:3' $TOKENOPS_HOME/guard/*.sums; do sleep 0.1; done", "description": "x"}
    )
    rig.serve(vendor, {"work": (*steps, append, wait, *last, Step())})
    claude("[[work]]", [], environment, vendor, where)
    bodies = [
        json.loads(asked.body) for asked in vendor.asked if asked.head.target.partition(b"?")[0].endswith(b"/messages")
    ]
    text = json.dumps(bodies[-1]["messages"])
    assert "5 h limit: 18% left" in text and "write a hand-off. (tok-guard)" in text
    assert "This very call has failed 1 time:" in text
    assert "Tools are stopped after 1 more call:" in text and "Tools are stopped: end here" in text
    results = [
        part for message in bodies[-1]["messages"] for part in rig.parts(message) if part.get("type") == "tool_result"
    ]
    denied = [part for part in results if "Tools are stopped: end here" in json.dumps(part)]
    # One call for the hand-off went through; the two after it were denied.
    assert len(results) == len(calls) + 5 and denied == results[-2:] and "tok-guard lift" in json.dumps(denied)


@needs("codex")
def test_codex_is_resumed_once(vendor: Upstream, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    where = repository(tmp_path / "app")
    count = Step("exec_command", {"cmd": "seq 1 10"})
    ledger = rig.serve(vendor, {"work": (count, count, count, Step())})
    limit = Limit(vendor, ledger, 2)
    thread = codex(["[[work]]"], ["--model", "gpt-5.4"], environment, vendor, where, within=WITHIN)
    (rollout,) = pathlib.Path(environment["HOME"]).glob(f".codex/sessions/*/*/*/*-{thread}.jsonl")
    assert "Continue where you left off." in rollout.read_text()
    assert limit.refused == 1 and events_of(environment) == STEPS
