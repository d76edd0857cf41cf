"""That commands which the tests start quickly are what bash would start."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
from starter import PATH, Starter, understood

from conftest import MOST, Run

PLAIN = {"PATH": PATH, "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tok-cost", [["tok-cost"]]),
        ("tok cost --by 'day, month'", [["tok", "cost", "--by", "day, month"]]),
        ('tok-task start "it\'s $ 5"', None),
        ("tok-task start 'it is $5 (or so)'", [["tok-task", "start", "it is $5 (or so)"]]),
        ("tok-read claude | tok-rollup --by agent|tok-cost", [["tok-read", "claude"], ["tok-rollup", "--by", "agent"], ["tok-cost"]]),
        *((line, None) for line in (
            "tok-cost *.jsonl", "tok-cost; tok-cost", "tok-cost && tok-cost", "tok-cost || tok-cost", "tok-cost > out", "tok-cost <&-",
            "A=b tok-cost", "tok-cost | head -1", "tok-cost 'x", "tok-cost &", "tok-cost ~/log", "tok-cost $HOME", "tok-cost\ntok-cost",
            "tok-nothing", "", "| tok-cost", "tok-cost a\\ b",
        )),
    ],
)  # fmt: skip
def test_which_lines_are_taken_apart(line: str, words: list[list[str]] | None) -> None:
    stages = understood(line, PLAIN)
    assert (stages and [stage.argv for stage in stages]) == words


@pytest.mark.parametrize(
    "more", [{"PYTHONPATH": "x"}, {"LANG": "C"}, {"LC_ALL": "C"}, {"LD_PRELOAD": "x"}, {"PATH": "/bin"}]
)
def test_what_changes_the_start_is_left_to_bash(more: dict[str, str]) -> None:
    assert understood("tok-cost", PLAIN | more) is None


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("tok-cost --help", b""),
        ("tok-cost --no-such", b""),
        ("tok-cost --json", b'{"v":1}\n'),
        ("tok-rollup --by day | tok-cost --table", b"no JSON\n" * 3),
        ("tok-cat - | tok-rollup | tok-cost --json", b""),
        ("tok-log path", b""),
    ],
)
def test_it_is_what_bash_says(
    line: str, given: bytes, run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Status and both streams. A command that ends early leaves input unread, and that is no fault."""
    bash = ["bash", "-o", "pipefail", "-c", line]
    plain = subprocess.run(bash, input=given, capture_output=True, cwd=tmp_path, env=environment, timeout=MOST, check=False)
    quick = run(line, given, status=None)
    assert (quick.returncode, quick.stdout, quick.stderr) == (plain.returncode, plain.stdout, plain.stderr)


def test_one_that_takes_too_long_is_ended(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    starter, stages = Starter(), understood("tok-proxy --port 0", environment)
    assert stages
    with pytest.raises(TimeoutError):
        starter.run(stages, b"", str(tmp_path), environment, 0.5)
    starter.close()
