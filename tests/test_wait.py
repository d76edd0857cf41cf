"""Waiting for a limit: the verdict at each moment, and the command under a clock that the test sets."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soak_clock import Clock
from vendors import ORG, Api, Reply, plan

from conftest import MOST, Json, Run, eventually, examples, lines, objects, put
from tokenops import headroom, limit_wait, when

NOW = when.moment("2026-11-20T12:00:00.000Z")
HOUR, MINUTE = 3_600_000, 60_000


def window(used: float, resets: int | None, name: str = "five_hour", binds: bool = True, **more: Any) -> Json:
    row: Json = {"window": name, "used": used, "headroom": round(1 - used, 6), "binds": binds}
    row["action"] = headroom.WAIT if used >= 1 else headroom.CONTINUE
    return row | ({"resets_at": when.stamp(NOW + resets)} if resets is not None else {}) | more


def budget(*windows: Json, provider: str = "anthropic", **more: Any) -> Json:
    left = min((each["headroom"] for each in windows), default=None)
    action = headroom.WAIT if any(each["action"] == headroom.WAIT for each in windows) else headroom.CONTINUE
    row: Json = {"provider": provider, "headroom_pct": None if left is None else round(100 * left), "windows": list(windows)}
    return row | {"recommended_action": action, "binding_window": windows[0]["window"] if windows else None} | more


FULL, FREE = window(1.0, HOUR), window(0.4, HOUR)
CASES: list[tuple[str, list[Json], float, str, int | None]] = [
    ("room", [budget(FREE)], 0, limit_wait.ROOM, None),
    ("used up", [budget(FULL)], 0, limit_wait.WAITING, NOW + 5 * MINUTE),
    ("its reset is near", [budget(window(1.0, MINUTE))], 0, limit_wait.WAITING, NOW + 3 * MINUTE),
    ("less than is asked for", [budget(FREE)], 70, limit_wait.WAITING, NOW + 5 * MINUTE),
    ("as much as is asked for", [budget(FREE)], 60, limit_wait.ROOM, None),
    ("a reset that is far away", [budget(window(1.0, 100 * HOUR, "weekly"))], 0, limit_wait.TOO_LONG, None),
    ("two, the later one counts", [budget(FULL, window(1.0, 90 * HOUR, "weekly"))], 0, limit_wait.TOO_LONG, None),
    ("a reset that was, and no room", [budget(window(1.0, -HOUR))], 0, limit_wait.WAITING, NOW + 5 * MINUTE),
    ("no reset is known", [budget(window(1.0, None))], 0, limit_wait.WAITING, NOW + 5 * MINUTE),
    ("refused, without a window", [budget(recommended_action=headroom.WAIT)], 0, limit_wait.WAITING, NOW + 5 * MINUTE),
    ("nothing is known", [budget()], 0, limit_wait.UNKNOWN, None),
    ("no row", [], 0, limit_wait.UNKNOWN, None),
    ("another vendor's is unknown", [budget(FREE), budget(provider="openai")], 0, limit_wait.ROOM, None),
]


@pytest.mark.parametrize(("what", "rows", "least", "state", "wake"), CASES, ids=[case[0] for case in CASES])
def test_verdicts(what: str, rows: list[Json], least: float, state: str, wake: int | None) -> None:
    verdict = limit_wait.verdict(rows, NOW, least, NOW + 12 * HOUR, 2 * MINUTE)
    assert (verdict.state, verdict.wake or None) == (state, wake)


@examples(100)
@given(
    st.lists(
        st.tuples(st.sampled_from((0.2, 0.99, 1.0, 1.3)), st.one_of(st.none(), st.integers(-10 * HOUR, 200 * HOUR))),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 200 * HOUR),
)
def test_the_end_is_certain(windows: list[tuple[float, int | None]], at_most: int) -> None:
    """It wakes later than now and soon, never waits for a later reset than allowed, and sees room where there is some."""
    rows = [budget(*(window(used, resets, f"w{at}") for at, (used, resets) in enumerate(windows)))]
    verdict = limit_wait.verdict(rows, NOW, 0, NOW + at_most, 2 * MINUTE)
    full = [resets for used, resets in windows if used >= 1]
    assert (verdict.state == limit_wait.ROOM) == (not full)
    if verdict.state == limit_wait.WAITING:
        assert NOW < verdict.wake <= NOW + limit_wait.LOOK_MS
        assert verdict.resets_at is None or verdict.resets_at + 2 * MINUTE <= NOW + at_most
    if verdict.state == limit_wait.TOO_LONG:
        assert NOW + max(resets for resets in full if resets is not None) + 2 * MINUTE > NOW + at_most


def reading(used: float, at: str, resets: str = "2026-11-21T11:00:00.000Z") -> Json:
    record: Json = {"v": 1, "ts": at, "kind": "meter", "id": f"meter:{at}:{used}", "source": "claude-statusline"}
    record |= {"client": "claude-code", "provider": "anthropic", "window": "five_hour", "window_minutes": 300}
    return record | {"used": used, "resets_at": resets, "observed_at": at}


class Waiting:
    """tok-wait as a process under a clock of the test's."""

    def __init__(self, environment: dict[str, str], *options: str) -> None:
        self.process = subprocess.Popen(
            ["tok-wait", *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )

    def line(self) -> str:
        assert self.process.stderr
        return self.process.stderr.readline().decode()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=MOST)
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
def quick(environment: dict[str, str], tmp_path: pathlib.Path) -> Any:
    """A clock that goes on as usual, until the test sets it."""
    clock = Clock(tmp_path / "clock", when.moment("2026-11-21T09:30:00.000Z"), 1)
    environment |= clock.environment()
    yield clock
    clock.held.close()


def test_it_ends_after_the_reset(run: Run, environment: dict[str, str], quick: Clock) -> None:
    run("tok-log append", lines([reading(1.0, "2026-11-21T09:29:00.000Z")]))
    waiting = Waiting(environment, "--json")
    assert "waiting: 5 h limit of anthropic resets at 11:00, in 1h2" in waiting.line()
    quick.jump(93 * MINUTE)  # the machine slept
    status, out, err = waiting.end()
    (record,) = objects(out.encode())
    assert (status, record["state"], record["verified"]) == (0, "room", False)
    assert "no newer reading confirms it yet" in err


def test_a_window_that_is_given_back_ends_it_earlier(run: Run, environment: dict[str, str], quick: Clock) -> None:
    run("tok-log append", lines([reading(1.0, "2026-11-21T09:29:00.000Z")]))
    waiting = Waiting(environment)
    waiting.line()
    given_back = reading(0.1, "2026-11-21T09:31:00.000Z", "2026-11-21T14:31:00.000Z")
    run("tok-log append", lines([given_back]))
    quick.jump(6 * MINUTE)
    assert waiting.end()[0] == 0


def test_a_reset_that_moves_is_waited_for(run: Run, environment: dict[str, str], quick: Clock) -> None:
    run("tok-log append", lines([reading(1.0, "2026-11-21T09:29:00.000Z")]))
    waiting = Waiting(environment)
    waiting.line()
    run("tok-log append", lines([reading(1.0, "2026-11-21T09:31:00.000Z", "2026-11-21T12:00:00.000Z")]))
    quick.jump(6 * MINUTE)
    assert "resets at 12:00" in waiting.line()
    quick.jump(160 * MINUTE)
    assert waiting.end()[0] == 0


def test_the_vendor_is_asked_before_a_session_starts_again(
    run: Run, environment: dict[str, str], quick: Clock, api: Api
) -> None:
    """The reset is over and the vendor still refuses; then it says that there is room. tok-poll was enabled for it."""
    home = pathlib.Path(environment["HOME"])
    login = {"accessToken": "t", "refreshToken": "r", "expiresAt": NOW * 2, "scopes": ["user:inference", "user:profile"]}
    put(home / ".claude/.credentials.json", {"claudeAiOauth": login, "organizationUuid": ORG})
    source = {"enabled": True, "consented": "2026-11-21", "url": api.url}
    put(home / ".config/tokenops/config.yaml", {"vendor_usage": {"anthropic_oauth": source}})
    run("tok-log append", lines([reading(1.0, "2026-11-21T09:29:00.000Z")]))
    api.answer = lambda asked: Reply(plan(five=100.0))  # which resets at 12:00
    waiting = Waiting(environment, "--json")
    assert "11:00" in waiting.line()
    quick.jump(93 * MINUTE)
    assert "12:00" in waiting.line()
    assert len(api.asked) == 1
    api.answer = lambda asked: Reply(plan(five=3.0))
    quick.jump(60 * MINUTE)
    status, out, err = waiting.end()
    (record,) = objects(out.encode())
    assert (status, record["state"], record["verified"]) == (0, "room", True)
    assert "the vendor confirms it" in err and len(api.asked) == 2


def test_a_clock_that_is_set_back_makes_it_wait_and_not_fail(run: Run, environment: dict[str, str], quick: Clock) -> None:
    run("tok-log append", lines([reading(1.0, "2026-11-21T09:29:00.000Z")]))
    waiting = Waiting(environment)
    waiting.line()
    quick.jump(-30 * MINUTE)
    quick.jump(180 * MINUTE)
    assert waiting.end()[0] == 0


def test_what_is_not_waited_for(run: Run, environment: dict[str, str]) -> None:
    now = {"TOKENOPS_NOW": "2026-11-21T09:30:00Z"}
    assert "nothing to wait for; tok-budget says how to get one" in " ".join(
        run("tok-wait", env=now).stderr.decode().split()
    )
    assert "did you mean anthropic?" in run("tok-wait anthropc", env=now, status=2).stderr.decode()
    run("tok-log append", lines([reading(0.5, "2026-11-21T09:29:00.000Z")]))
    assert run("tok-wait", env=now).stderr == b""
    run("tok-log append", lines([reading(1.0, "2026-11-21T09:29:30.000Z")]))
    done = run("tok-wait --at-most 1 --json", env=now, status=75)
    assert "--at-most 2 waits for it" in done.stderr.decode()
    assert json.loads(done.stdout)["state"] == "too_long"
    other = reading(0.1, "2026-11-21T09:29:00.000Z") | {
        "provider": "openai",
        "client": "codex",
        "source": "codex-jsonl",
        "id": "m2",
    }
    run("tok-log append", lines([other]))
    assert "name what to wait for: anthropic, openai" in run("tok-wait", env=now, status=2).stderr.decode()
    assert run("tok-wait openai", env=now).stderr == b""
    assert "from 0 to 100" in run("tok-wait --until 120", env=now, status=2).stderr.decode()


def test_ctrl_c_ends_it(run: Run, environment: dict[str, str], quick: Clock) -> None:
    import signal

    run("tok-log append", lines([reading(1.0, "2026-11-21T09:29:00.000Z")]))
    waiting = Waiting(environment)
    waiting.line()
    waiting.process.send_signal(signal.SIGINT)
    assert eventually(lambda: waiting.process.poll() is not None)
    assert waiting.end()[0] in (130, -signal.SIGINT)
