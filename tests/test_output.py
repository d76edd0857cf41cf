"""What is printed: no name from a log steers a terminal or begins a formula, CSV is exact, any terminal's encoding will do."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pathlib
import pty
import re
import subprocess

import pytest

from conftest import MOST, Json, Run, claude, lines, put
from tokenops import show

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
NAME = "\x1b]0;owned\x07\x1b[31m\x1b[1mX\x1b[0m\u202e\u009b1m\rx\ny\u2028\u200f"
NOW = {"TOKENOPS_NOW": "2026-11-21T12:00:00Z"}


def turn(**fields: object) -> Json:
    made = {"v": 1, "ts": "2026-11-21T09:00:00.000Z", "kind": "turn", "id": "t1", "turns": 1, "client": "codex"}
    return made | {"provider": "anthropic", "model": "claude-opus-4-6", "output_tokens": 1_234_567} | fields


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("日本 é 🙂 \u200d", "日本 é 🙂 \u200d"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\x7f\x9b\u202e\u2066\u2028", "\\x7f\\x9b\\u202e\\u2066\\u2028"),
        ("half \ud83c", "half \\ud83c"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert show.safe(text) == shown


def test_a_text_keeps_its_lines_and_our_own_styles_only() -> None:
    assert show.safe_text("a\n\tb\n") == "a\n\tb\n"
    head, red = show.paint("head", "bold"), show.paint("é", "bad")
    assert show.safe_text(f"{head}\nx {red} y\n") == "\x1b[1mhead\x1b[0m\nx \x1b[31mé\x1b[0m y\n"
    assert show.plain(f"{head} {red}") == "head é" and show.text_width(f"{head} {red}") == 6
    assert show.paint("x", "bad", color=False) == show.paint("x", "") == "x"
    for text in ("\x1b[1mraw\x1b[0m", head[:-1], head[1:], f"{head[:-1]}\n{head[-1]}", f"{head[0]}a{head[0]}b"):
        assert "\x1b" not in show.safe_text(text), text
    assert "\x1b" not in show.safe_text(show.paint(show.safe(red), "")) and show.safe(red) == "\\ufdd2é\\ufddf"
    assert show.safe("\U000e0041") == "\\U000e0041"


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=cmd()", "'=cmd()"),
        ("+1+2", "'+1+2"),
        ("-x", "'-x"),
        ("@a", "'@a"),
        ("-5", "-5"),
        ("+1.5e3", "+1.5e3"),
        ("a=b", "a=b"),
    ],
)
def test_no_cell_begins_a_formula(run: Run, name: str, cell: str) -> None:
    columns = [show.Column("name", [name], number=False), show.Column("=n", ["7"])]
    assert list(csv.reader(show.table(columns, "csv").splitlines())) == [["name", "'=n"], [cell, "7"]]
    cells = run("tok-cost --by project --csv", lines([turn(project=name)])).stdout.decode().splitlines()
    assert next(csv.DictReader(cells))["project"] == cell


def test_records_are_exact_and_have_a_column_for_each_field() -> None:
    rows = [
        {"v": 1, "kind": "a", "n": 1_234_567, "inner": {"x": 0.1, "y": None}, "list": ["é", 1], "on": True},
        {"kind": "b", "money": "3.100000000001"},
    ]
    assert list(csv.DictReader(show.records(rows, "csv").splitlines())) == [
        {"kind": "a", "n": "1234567", "inner.x": "0.1", "inner.y": "", "list": '["é",1]', "on": "true", "money": ""},
        {"kind": "b", "n": "", "inner.x": "", "inner.y": "", "list": "", "on": "", "money": "3.100000000001"},
    ]
    assert show.records([], "csv") == show.records([], "markdown") == ""


COMMANDS = [
    "tok-cost --log --table",
    "tok-cost --log --table --color always",
    "tok-cost --log --by model,session --markdown",
    "tok-cost --log --csv",
    "tok-task --metrics --table",
    "tok-task --markdown",
    "tok-burn --log --table",
    "tok-burn --log --anomalies --table",
    "tok-status --table",
    "tok-log verify --table",
    "tok-sync --table",
    "tok-coach waste --table",
    "tok-coach models --table",
    "tok-score --table",
    "tok-price explain t1 --table",
    "tok-log explain t1 --table",
    "tok-trace s1 --table",
    "tok-context s1 --table",
    "tok-context --since all --by tool --table",
    "tok-trace nosuch$'\\x1b[31m'",
    "tok-cost --log --by $'\\x1b[31m'",
    "tok-cost $'\\x1b[31m.jsonl'",
    "tok-read --root $'\\x1b[31m'",
    'tok-statusline --no-record <<< \'{"model":{"display_name":"\\u001b[31mX\\u009b"}}\'',
]


@pytest.fixture
def steering_log(run: Run, environment: dict[str, str]) -> None:
    """A log and clients' files whose names are full of control characters."""
    home = pathlib.Path(environment["HOME"])
    put(home / f".claude/projects/-x/{NAME.replace('/', '')[:40]}.jsonl", claude("msg_1", cwd=f"/home/ada/{NAME}"), b"{torn")
    names = {"project": NAME, "model": NAME, "agent_id": f"codex:{NAME}", "session_id": "s1", "branch": NAME}
    task = {"v": 1, "kind": "task", "event": "start", "ts": "2026-11-21T08:00:00.000Z", "id": "k1", "task": "k1"}
    folder = pathlib.Path(environment["TOKENOPS_HOME"]) / "events"
    put(folder / "2026-11-21.jsonl", turn(**names), task | {"client": "codex", "project": NAME, "title": NAME}, b"{torn")


@pytest.mark.usefixtures("steering_log")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_steers_a_terminal(run: Run, command: str) -> None:
    done = run(command, env=NOW, status=None)
    assert done.returncode in (0, 1, 2)
    assert done.stdout + done.stderr
    stdout = re.sub("\x1b\\[(?:1|2|31|32|33|36)m([^\x1b\n]*)\x1b\\[0m", r"\1", done.stdout.decode())
    assert STEERING.findall(stdout + done.stderr.decode()) == []
    assert b"Traceback" not in done.stderr


def test_the_template_of_a_status_line_may_have_colours_and_its_fields_may_not(run: Run) -> None:
    given = lines([{"model": {"display_name": "X\u009b\u202e"}}])
    done = run("tok-statusline --no-record --format $'\\x1b[32m{model}\\x1b[0m'", given)
    assert done.stdout.decode() == "\x1b[32mX\\x9b\\u202e\x1b[0m\n"


def test_what_a_terminal_cannot_show_is_a_question_mark(run: Run) -> None:
    given = lines([turn(project="日本")])
    done = run("tok-cost --table", given, env={"PYTHONIOENCODING": "latin-1"})
    assert b"??" in done.stdout and done.stderr == b""


EXACT = [
    "tok-status",
    "tok-init --detect",
    "tok-budget --spend",
    "tok-coach models",
    "tok-coach waste",
    "tok-coach prompts",
    "tok-trace s1",
    "tok-context s1",
    "tok-task --metrics",
    "tok-price show claude-opus-4-6",
    "tok-price list --provider groq",
    "tok-price explain t1",
    "tok-price lint",
    "tok-log verify",
    "tok-log explain t1",
    "tok-sync",
    "tok-score",
    "tok-guard status",
    "tok-poll status",
    "tok-provider list",
    "tok-burn --log",
    "tok-cost --log",
]


@pytest.mark.parametrize("command", EXACT)
def test_csv_is_one_table_of_exact_values(run: Run, environment: dict[str, str], command: str) -> None:
    """Every number of the JSON stands in the CSV as it is, and nothing but the rows is printed."""
    home = pathlib.Path(environment["HOME"])
    put(home / ".claude/projects/-x/s9.jsonl", claude("msg_1", output=1_234_567), claude("msg_2", cwd="/home/ada/a b"))
    task = {"v": 1, "kind": "task", "event": "start", "ts": "2026-11-21T08:00:00.000Z", "id": "k1", "task": "k1"}
    folder = pathlib.Path(environment["TOKENOPS_HOME"]) / "events"
    put(folder / "2026-11-21.jsonl", turn(session_id="s1"), task | {"title": "=t, of 1,234"}, b"{torn")
    run("tok-sync --json", env=NOW, status=None)
    table = run(f"{command} --csv", env=NOW, status=None).stdout.decode()
    rows = list(csv.reader(table.splitlines(keepends=True)))
    assert {len(row) for row in rows} <= {len(rows[0])} if rows else True
    values = [cell for row in rows[1:] for cell in row]
    assert not [cell for cell in values if re.fullmatch(r"\$[\d.,]+|\d{1,3}(,\d{3})+(\.\d+)?", cell)]
    listed = [json.loads(line) for line in run(f"{command} --json", env=NOW, status=None).stdout.splitlines()]
    amounts = {value for row in listed for name, value in row.items() if name == "cost_usd" and isinstance(value, str)}
    assert not rows or amounts <= {"0"} | set(values)


def at_a_terminal(line: str, environment: dict[str, str]) -> bytes:
    """What a line of shell prints, if its stdout is a terminal."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(["bash", "-c", line], stdin=subprocess.DEVNULL, stdout=theirs, env=environment)
    os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # a terminal without a writer ends with EIO
        while piece := os.read(ours, 1 << 16):
            output += piece
    os.close(ours)
    assert done.wait(MOST) in (0, 1)
    return output.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("command", ["tok-cat", "tok-cost --log --json --since 2026-11-01 --by project"])
def test_json_at_a_terminal_steers_nothing(run: Run, environment: dict[str, str], command: str) -> None:
    name = "\u009b31m\u202eab\u2028é\x7f"
    put(
        pathlib.Path(environment["HOME"]) / ".claude/projects/-x/s1.jsonl",
        claude("msg_9", model=name, at="2026-11-21T09:00:00.000Z"),
    )
    run("tok-log append", lines([turn(project=name, model=name)]))
    shown = at_a_terminal(command, environment | NOW).decode()
    assert not STEERING.search(shown) and "\\u009b31m\\u202eab\\u2028é\\u007f" in shown
    assert name in [value for line in shown.splitlines() for value in json.loads(line).values()]


def test_a_table_at_a_terminal_keeps_its_bold_lines(run: Run, environment: dict[str, str]) -> None:
    run("tok-log append", lines([turn(project="\u009bx é")]))
    shown = at_a_terminal("tok-cost --log --since 2026-11-01 --by project --color always", environment | NOW).decode()
    assert "\x1b[1m" in shown and "\\x9bx é" in shown and "\u009b" not in shown


@pytest.mark.parametrize("command", ["tok-cost --log", "tok-status", "tok-trace s", "tok-log explain msg_1"])
def test_a_name_with_an_end_of_line_begins_no_line(run: Run, environment: dict[str, str], command: str) -> None:
    name = "s\nFORGED\tx"
    line = claude("msg_1", sessionId=name, m_model=name)
    put(pathlib.Path(environment["HOME"]) / ".claude/projects/-home-ada-app/s0.jsonl", line)
    run("tok-sync", status=None)
    for shape in ("table", "markdown"):
        shown = run(f"{command} --{shape}", status=None, env={"TOKENOPS_NOW": "2026-03-01T12:00:00Z"}).stdout.decode()
        assert "s\\nFORGED\\tx" in shown and "\nFORGED" not in shown and "\t" not in shown, shown
