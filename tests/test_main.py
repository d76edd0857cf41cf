"""A command is a function of its arguments: called as one, and run as a process, it prints and returns the same."""

from __future__ import annotations

import io
import os
import pathlib
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator

import pytest

from conftest import MOST, ROOT
from tokenops import cli

COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("tok*") if path.is_file())
# What each command does not accept, and what it is called with to read an empty input or an empty log.
BAD_VALUES = {
    "tok": ["csot"],
    "tok-backtest": ["--horizon", "soon"],
    "tok-budget": ["--color", "pink"],
    "tok-burn": ["--hours", "0"],
    "tok-cat": ["--kind", "thought"],
    "tok-coach": ["everything"],
    "tok-context": ["--by", "mood"],
    "tok-cost": ["--by", "taste"],
    "tok-dash": ["--port", "x"],
    "tok-guard": ["--mode", "strict"],
    "tok-init": ["--host", "emacs"],
    "tok-log": ["burn"],
    "tok-mcp": ["--tools", "tokenops_budgt"],
    "tok-plan": ["set", "anthropic", "claude-pr"],
    "tok-poll": ["--timeout", "soon"],
    "tok-price": ["guess"],
    "tok-provider": ["set", "anthropic", "not an address"],
    "tok-proxy": ["--port", "x"],
    "tok-read": ["--since", "someday"],
    "tok-rollup": ["--tz", "Mars/Olympus"],
    "tok-run": ["--most", "none", "--", "true"],
    "tok-score": ["--by", "mood"],
    "tok-ship": ["nowhere"],
    "tok-status": ["--color", "pink"],
    "tok-statusline": ["--format"],
    "tok-sync": ["claud"],
    "tok-task": ["forget"],
    "tok-top": ["--sort", "taste"],
    "tok-trace": ["no-such-session"],
    "tok-wait": ["--until", "120"],
}
EMPTY_INPUT = {
    **{name: [] for name in COMMANDS},
    "tok": ["blocks"],
    "tok-coach": ["waste"],
    "tok-dash": ["url"],
    "tok-guard": ["hook"],
    "tok-init": ["--detect"],
    "tok-log": ["append"],
    "tok-price": ["override", "init"],
    "tok-proxy": ["--port", "99999"],  # it reads no input: a port that does not exist ends it
    "tok-read": ["-"],
}
CASES = [
    pytest.param(command, argv, id=f"{command} {kind}")
    for command in COMMANDS
    for kind, argv in (
        ("help", ["--help"]),
        ("version", ["--version"]),
        ("unknown option", ["--no-such-option"]),
        ("bad value", BAD_VALUES[command]),
        ("empty input", EMPTY_INPUT[command]),
    )
]


@pytest.fixture
def clean(environment: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An environment for both, with a clock that stands still; this process gets its own back afterwards."""
    environment["TOKENOPS_NOW"] = "2026-11-21T12:00:00Z"
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    time.tzset()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)}
    yield environment
    for number, handler in handlers.items():
        signal.signal(number, handler)
    monkeypatch.undo()
    time.tzset()


def called(command: str, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, bytes, bytes]:
    """Status, stdout and stderr of a command's main, called in this process. What sys.argv holds is not its business."""
    path = ROOT / "bin" / command
    module = types.ModuleType("command")
    module.__file__ = str(path)
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    standard_input = os.dup(0)
    with monkeypatch.context() as patch, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        patch.setattr(sys, "argv", ["another-program", "--help", "--version"])
        for name, stream in zip(("stdin", "stdout", "stderr"), (nothing, *streams), strict=True):
            patch.setattr(sys, name, stream)
        try:
            status = cli.status_of(module.main, argv)
        finally:
            os.dup2(standard_input, 0)
            os.close(standard_input)
    out, err = (stream.buffer.getvalue() for stream in streams)  # type: ignore[attr-defined]
    return status, out, err


@pytest.mark.parametrize(("command", "argv"), CASES)
def test_the_function_and_the_process_give_the_same(
    command: str, argv: list[str], clean: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run(
        [ROOT / "bin" / command, *argv], stdin=subprocess.DEVNULL, capture_output=True, env=clean, timeout=MOST, check=False
    )
    assert called(command, argv, monkeypatch) == (done.returncode, done.stdout, done.stderr)
    expected = (
        0 if argv in (["--help"], ["--version"]) else 2 if argv in (["--no-such-option"], BAD_VALUES[command]) else None
    )
    assert expected in (None, done.returncode)
    assert b"Traceback" not in done.stderr
