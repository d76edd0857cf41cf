"""The status line: what Claude Code tells it is recorded once, and one line is printed whatever happens."""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from conftest import MOST, ROOT, Json, Run, claude, examples, lines, objects, put
from tokenops import cli, events, limit_view, statusline, when

NOW = "2026-11-21T09:30:00.000Z"
ENV = {"TOKENOPS_NOW": NOW}


def given(five: float | None = 23.5, session: str = "s1", **more: Any) -> bytes:
    """What Claude Code writes to its status line."""
    said: Json = {
        "session_id": session,
        "model": {"id": "claude-opus-4-8", "display_name": "Opus 4.8"},
        "workspace": {"project_dir": "/home/ada/orchard"},
        "cost": {"total_cost_usd": 1.234},
        "context_window": {"used_percentage": 42},
        **more,
    }
    if five is not None:
        said["rate_limits"] = {"five_hour": {"used_percentage": five, "resets_at": 1_795_262_400}}
    return json.dumps(said).encode()


def meters(run: Run) -> list[Json]:
    return objects(run("tok-cat --kind meter").stdout)


def test_the_line(run: Run) -> None:
    assert run("tok-statusline", given(), env=ENV).stdout.decode() == (
        "Opus 4.8 | 42% context | $1.23 session | $0.00 today | \x1b[32m5 h limit █▉░░░░░░ 24% used\x1b[0m, resets in 2h30m"
        " | \x1b[32mcontinue\x1b[0m\n"
    )
    [meter] = meters(run)
    assert (meter["source"], meter["window"], meter["used"], meter["provider"]) == (
        "claude-code-statusline",
        "five_hour",
        0.235,
        "anthropic",
    )
    [budget] = objects(run("tok-budget --json", env=ENV).stdout)
    assert (budget["headroom_pct"], budget["signal_quality"]["source"]) == (76, "statusline")


def test_a_repeated_number_is_not_fresh(run: Run) -> None:
    run("tok-statusline", given(), env=ENV)
    run("tok-statusline", given(), env={"TOKENOPS_NOW": "2026-11-21T10:30:00Z"})
    run("tok-statusline", given(30, "s2"), env={"TOKENOPS_NOW": "2026-11-21T10:31:00Z"})
    run("tok-statusline", given(), env={"TOKENOPS_NOW": "2026-11-21T10:40:00Z"})
    assert [(meter["used"], meter["observed_at"][11:16]) for meter in meters(run)] == [(0.235, "09:30"), (0.3, "10:31")]
    # An idle session shows what the busy one knows.
    assert "30% used" in run("tok-statusline", given(), env={"TOKENOPS_NOW": "2026-11-21T10:41:00Z"}).stdout.decode()


def test_asking_again_and_again_changes_nothing(run: Run) -> None:
    """One session's line, drawn as often as one works: one reading, one cost, one headroom."""
    lines = set()
    for _ in range(int(os.environ.get("TOKENOPS_CALLS", "20"))):
        lines.add(run("tok-statusline", given(), env=ENV).stdout)
    assert len(lines) == 1 and len(meters(run)) == 1
    [budget] = objects(run("tok-budget --json", env=ENV).stdout)
    assert budget["headroom_pct"] == 76


def test_before_the_first_answer_nothing_is_known(run: Run) -> None:
    shown = run("tok-statusline", given(None), env=ENV).stdout.decode()
    assert "limits ········ unknown used" in shown and "0%" not in shown
    assert meters(run) == []


def test_a_template(run: Run) -> None:
    shown = run("tok-statusline --format '{project}: {context} of context, {action}'", given(85), env=ENV)
    assert shown.stdout == b"orchard: 42% of context, slow down\n"
    done = run("tok-statusline --format '{nothing}'", given(), env=ENV, status=2)
    assert "{nothing} is not a field; choose from model, session" in done.stderr.decode()


def test_the_users_own_line_stays(run: Run) -> None:
    own = "wc -c; echo second"
    assert run(f"tok-statusline --wrap '{own}'", given(), env=ENV).stdout.split() == [str(len(given())).encode(), b"second"]
    assert len(meters(run)) == 1
    assert run("tok-statusline --wrap 'echo mine' --format '{action}'", given(), env=ENV).stdout == b"mine\ncontinue\n"
    assert run("tok-statusline --wrap 'exit 3'", given(padding="x" * 300_000), env=ENV).stdout == b""


def test_a_wrapped_command_without_an_end_is_stopped(run: Run) -> None:
    """With its children, one of which keeps the pipe open; our own line stands in."""
    own = "echo mine; sleep 1000 & wait"
    done = run(f"tok-statusline --wrap '{own}' --no-record", given(), env=ENV)
    assert done.stdout.count(b"\n") == 1 and b"session" in done.stdout and b"did not end within 5 s" in done.stderr
    assert len(meters(run)) == 0


def test_it_takes_in_its_own_transcript(run: Run, environment: dict[str, str]) -> None:
    path = put(pathlib.Path(environment["HOME"]) / ".claude/projects/-a/s1.jsonl", claude("msg_1", 1000, NOW))
    put(pathlib.Path(environment["HOME"]) / ".claude/projects/-a/s2.jsonl", claude("msg_2", 1000, NOW))
    line = run(
        "tok-statusline", given(transcript_path=str(path)), env={"TOKENOPS_NOW": "2026-11-21T09:31:00Z"}
    ).stdout.decode()
    assert "$0.03 today" in line, line
    assert [event["id"] for event in objects(run("tok-cat --kind turn").stdout)] == ["msg_1"]
    assert len(objects(run("tok-sync; tok-cat --kind turn").stdout.partition(b"\n")[2] or b"")) >= 1
    assert {event["id"] for event in objects(run("tok-cat --kind turn").stdout)} == {"msg_1", "msg_2"}


def test_what_is_no_json(run: Run) -> None:
    for data in (b"", b"nonsense", b"[1]"):
        assert b"not a JSON object" in run("tok-statusline", data, status=2).stderr
    for odd in ({}, {"rate_limits": 7, "model": [], "cost": "x", "session_id": None}):
        assert run("tok-statusline", json.dumps(odd).encode(), env=ENV).stdout.endswith(b"continue\n")  # without a colour


@pytest.mark.parametrize(
    "change", [(b"{", b"\xef\xbb\xbf{"), (b"/home/ada", b"/home/\\ud83c"), (b"/home/ada", b"/home/\xe9")]
)
def test_half_a_character_and_a_byte_order_mark(change: tuple[bytes, bytes], run: Run) -> None:
    done = run("tok-statusline --no-record", given().replace(*change, 1), env=ENV)
    assert b"Opus 4.8" in done.stdout and b"$1.23" in done.stdout and done.stderr == b""
    hook = given(hook_event_name="Stop").replace(*change, 1)
    assert run("tok-guard hook", hook, env=ENV).stderr == b""


def test_a_log_that_cannot_be_written_still_gives_a_line(run: Run, environment: dict[str, str]) -> None:
    put(pathlib.Path(environment["TOKENOPS_HOME"]), b"in the way")
    done = run("tok-statusline", given(), env=ENV)
    assert b"24% used" in done.stdout and b"nothing is recorded" in done.stderr


def test_sessions_at_once_forget_nothing_of_one_another(run: Run) -> None:
    """Each of twenty sessions says its number once, at the same time; none is recorded again when it repeats it."""
    sessions = [given(20 + n, f"s{n}") for n in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda said: run("tok-statusline", said, env=ENV), sessions))
    assert sorted(meter["used"] for meter in meters(run)) == [round((20 + n) / 100, 2) for n in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        later = {"TOKENOPS_NOW": "2026-11-21T10:00:00Z"}
        list(pool.map(lambda said: run("tok-statusline", said, env=later), sessions))
    assert {meter["observed_at"][11:16] for meter in meters(run)} == {"09:30"}


def test_twenty_at_once(run: Run) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        shown = list(pool.map(lambda n: run("tok-statusline", given(50, f"s{n}"), env=ENV).stdout, range(20)))
    assert all(b"50% used" in line for line in shown)
    assert {(meter["used"], meter["window"]) for meter in meters(run)} == {(0.5, "five_hour")}


# For other programs, and the same as tok-budget.

AT = when.moment(NOW)


def meter(used: float, resets: int = 120, provider: str = "anthropic", **more: Any) -> Json:
    """A reading five minutes ago of a window that is reset so many minutes from now."""
    spec: Json = {"window": "five_hour", "window_minutes": 300, **more}
    at = when.stamp(AT + resets * 60_000)
    return events.meter("proxy", provider, when.stamp(AT - 300_000), used=used, resets_at=at, **spec)


def write(folder: str, *records: Json) -> None:
    put(pathlib.Path(folder) / f"events/{NOW[:10]}.jsonl", lines(records))


LINES = [
    ("plain", "OpenAI 5 h ██████▊░ 85% resets 11:30 · $0.00 today"),
    ("tmux", "#[fg=yellow]OpenAI 5 h ██████▊░ 85% resets 11:30#[default] · $0.00 today"),
    ("polybar", "%{F#bf8700}OpenAI 5 h ██████▊░ 85% resets 11:30%{F-} · $0.00 today"),
    ("starship", "OpenAI 5 h ██████▊░ 85% resets 11:30 · USD 0.00 today"),
    ("xbar", "OpenAI 5 h ██████▊░ 85% resets 11:30 · $0.00 today | color=#bf8700 emojize=false"),
    ("swiftbar", "OpenAI 5 h ██████▊░ 85% resets 11:30 · $0.00 today | color=#bf8700 emojize=false symbolize=false"),
]


@pytest.mark.parametrize(("target", "line"), LINES)
def test_a_line_for_another_program(target: str, line: str, environment: dict[str, str]) -> None:
    """The most urgent limit of all plans. It reads no input: none comes here, and none ends."""
    write(environment["TOKENOPS_HOME"], meter(0.3), meter(0.85, provider="openai"))
    reader, writer = os.pipe()
    done = subprocess.run(
        [ROOT / "bin/tok-statusline", "--for", target],
        stdin=reader,
        capture_output=True,
        env=environment | ENV,
        timeout=MOST,
        check=True,
    )
    os.close(reader)
    os.close(writer)
    assert done.stdout.decode() == f"{line}\n"


def test_bars_that_take_json(run: Run, environment: dict[str, str]) -> None:
    write(environment["TOKENOPS_HOME"], meter(1.04))
    shown = json.loads(run("tok-statusline --for waybar", env=ENV).stdout)
    assert shown == {
        "text": "Anthropic 5 h ████████ 104% used up until 11:30 · $0.00 today",
        "tooltip": "Anthropic 5 h ████████ 104% used up until 11:30; wait for reset",
        "class": "bad",
        "percentage": 100,
    }
    shown = json.loads(run("tok-statusline --for i3blocks", env=ENV).stdout)
    assert (shown["short_text"], shown["color"]) == ("Anthropic 104%", "#cf222e")


def test_no_limit_is_known(run: Run) -> None:
    assert run("tok-statusline --for plain", env=ENV).stdout.decode() == "no limit known · $0.00 today\n"
    assert json.loads(run("tok-statusline --for waybar", env=ENV).stdout)["class"] == "unknown"
    assert b"leave --for out" in run("tok-statusline --for plain --wrap true", status=2).stderr


HOSTILE = "a#[fg=red]%{F#f00}|color=red$(id)`id`\\\\<b>\x1b[31m\n"


@pytest.mark.parametrize("target", sorted(statusline.TARGETS))
def test_a_name_cannot_steer_the_program(target: str) -> None:
    values = dict.fromkeys(("project", "provider", "used", "limit", "action"), HOSTILE)
    text = statusline.line("{project}", values, target, "good")
    assert "\n" not in text and "\x1b[31m" not in text
    unescaped = {"tmux": "a#[", "polybar": "%{F#f00", "xbar": "|color", "swiftbar": "|color", "waybar": "<b>"}
    assert unescaped.get(target, "\n") not in text
    if target == "starship":
        assert not set("$`\\") & set(text)


def test_the_colour_of_the_action(run: Run, environment: dict[str, str]) -> None:
    write(environment["TOKENOPS_HOME"], meter(0.98))
    line = "tok-statusline --for tmux --format '{color}{action}{end} {outlook}'"
    assert run(line, env=ENV).stdout == b"#[fg=red]wait for reset#[default] used up until 11:30\n"
    assert run(line, env=ENV | {"NO_COLOR": "1"}).stdout == b"wait for reset used up until 11:30\n"


READINGS = st.lists(
    st.builds(
        meter,
        st.sampled_from([0.0, 0.235, 0.5, 0.799, 0.85, 0.97, 1.2]),
        st.sampled_from([-30, 5, 290, 9000]),
        st.sampled_from(["anthropic", "openai"]),
        window=st.sampled_from(["five_hour", "weekly"]),
        window_minutes=st.sampled_from([300, 10_080]),
        scope=st.sampled_from(["", "opus"]),
        status=st.sampled_from(["", "rejected"]),
        account=st.sampled_from(["", "a", "b"]),
    ),
    max_size=5,
)
MODELS = st.sampled_from(["", "claude-opus-4-8", "claude-sonnet-5"])


def called(command: str, argv: list[str], given: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bytes]:
    """Status and stdout of a command, in this process."""
    path = ROOT / "bin" / command
    module = types.ModuleType("command")
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        patch.setattr(sys, "stdout", out)
        status = cli.status_of(module.main, argv)
    return status, out.buffer.getvalue()  # type: ignore[attr-defined]


STATUS = {"continue": 0, "slow_down": 3, "switch_model": 4, "wait_for_reset": 5}


@examples(60)
@drawn(READINGS, MODELS)
def test_it_agrees_with_tok_budget_in_every_state(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, readings: list[Json], model: str
) -> None:
    """The same action and the same share, for the session's model and for all plans."""
    with tempfile.TemporaryDirectory(dir=environment["HOME"]) as folder:
        for name, value in (environment | ENV | {"TOKENOPS_HOME": folder}).items():
            monkeypatch.setenv(name, value)
        write(folder, *readings)
        for payload, options, scope in (
            ({"model": {"id": model}}, [], ["anthropic", *(["--model", model] if model else [])]),
            ({}, ["--for", "plain"], []),
        ):
            _, told = called("tok-budget", ["--json", *scope], b"", monkeypatch)
            rows = objects(told)
            template = ["--format", "{action}, {used} used, {left} left, {provider}"]
            _, line = called("tok-statusline", [*options, *template], json.dumps(payload).encode(), monkeypatch)
            row = limit_view.urgent(rows)
            if row is None:
                assert line == b"continue, unknown used, unknown left, \n"
                continue
            left, bound = row["headroom_pct"], limit_view.binding(row)
            used = "unknown" if bound is None else f"{limit_view.percent(bound, row)}%"
            action = row["recommended_action"].replace("_", " ")
            shown = "unknown" if left is None else f"{left}%"
            assert line.decode() == f"{action}, {used} used, {shown} left, {limit_view.account_name(row)}\n"
            status, _ = called("tok-budget", ["-q", *scope], b"", monkeypatch)
            assert status == STATUS[row["recommended_action"]]


def test_a_new_reading_is_judged_at_once(run: Run) -> None:
    """Also within the seconds for which other sessions get the last result."""
    assert b"24% used" in run("tok-statusline", given(), env=ENV).stdout
    assert b"98% used\x1b[0m, resets in 2h30m | \x1b[31mwait for reset" in run("tok-statusline", given(98), env=ENV).stdout
    assert b"98% used" in run("tok-statusline", given(98, "s2"), env=ENV).stdout
    [budget] = objects(run("tok-budget --json", env=ENV, status=5).stdout)
    assert budget["headroom_pct"] == 2


def test_the_sessions_own_account_is_shown(run: Run, environment: dict[str, str]) -> None:
    """Two accounts of one vendor: the resets in the payload tell them apart."""
    write(environment["TOKENOPS_HOME"], meter(0.9, 60, account="a"), meter(0.3, 150, account="b"))
    line = run("tok-statusline --format '{provider} {used}'", given(35), env=ENV).stdout
    assert line == b"Anthropic b 35%\n"
