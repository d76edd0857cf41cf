"""What tok-init has other programs change: the crontab, Claude Code's servers, timers; and the shell's file, hooks, questions."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable

import pytest
from test_init_writes import PRO, init, states, talked, tree

from conftest import ROOT, Json, Run, objects, put
from tokenops import setup_questions, setup_texts

# Programs that keep what they are given in files of the test, and list how they were called.
CRONTAB = """#!/bin/sh
echo crontab "$@" >> "$CALLS"
case "$1" in
-l) [ -e "$TAB" ] && exec cat "$TAB"; echo "no crontab for ada" >&2; exit 1 ;;
-r) rm "$TAB" ;;
-) cat > "$TAB" ;;
esac
"""
CLAUDE = """#!/usr/bin/env python3
import json, os, sys
open(os.environ["CALLS"], "a").write(" ".join(["claude", *sys.argv[1:]]) + "\\n")
path = os.path.expanduser("~/.claude.json")
data = json.load(open(path))
if sys.argv[2] == "add":
    data.setdefault("mcpServers", {})[sys.argv[5]] = {"type": "stdio", "command": sys.argv[7], "args": [], "env": {}}
else:
    del data["mcpServers"][sys.argv[5]]
    data = {key: value for key, value in data.items() if value != {}}
open(path, "w").write(json.dumps(data) + "\\n")
"""
SYSTEMCTL = """#!/bin/sh
echo systemctl "$@" >> "$CALLS"
"""
FAILS = """#!/bin/sh
echo "you may not" >&2
exit 1
"""
LINES = "# mine\n5 * * * *  backup\n"


class Machine:
    """A home with Claude Code, and programs that are called for it."""

    def __init__(self, environment: dict[str, str], folder: pathlib.Path) -> None:
        self.home, self.programs, self.tab = pathlib.Path(environment["HOME"]), folder / "programs", folder / "tab"
        self.calls, self.log = folder / "calls", pathlib.Path(environment["TOKENOPS_HOME"])
        environment |= {"SHELL": "/bin/bash", "TAB": str(self.tab), "CALLS": str(self.calls)}
        # Nothing of this machine's own: only what a command of ours needs is on the path beside the test's programs.
        for name in ("bash", "sh", "env", "cat", "rm", "git", "uname"):
            self.program(name, f'#!/bin/sh\nexec {shutil.which(name)} "$@"\n')
        environment["PATH"] = os.pathsep.join((str(self.programs), *environment["PATH"].split(os.pathsep)[:2]))
        self.program("crontab", CRONTAB)
        self.program("claude", CLAUDE)
        put(self.home / ".claude.json", (json.dumps(PRO) + "\n").encode())
        put(self.home / ".bashrc", b"alias ll='ls -l'")
        (self.home / ".claude").mkdir()

    def program(self, name: str, text: str) -> None:
        put(self.programs / name, text.encode()).chmod(0o755)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(environment: dict[str, str], tmp_path: pathlib.Path) -> Machine:
    return Machine(environment, tmp_path)


@pytest.mark.parametrize("tab", [None, LINES, LINES.removesuffix("\n")])
def test_all_is_made_and_taken_back(tab: str | None, machine: Machine, run: Run) -> None:
    if tab is not None:
        put(machine.tab, tab.encode())
    before = tree(machine.home)
    rows = init(run, "--all")
    assert states(rows) == dict.fromkeys(("config.yaml", "settings.json", ".claude.json", "crontab:", ".bashrc"), "written")
    line = f"*/10 * * * *  TOKENOPS_HOME={machine.log} {ROOT}/bin/tok-sync >/dev/null"
    block = f"{setup_texts.FIRST}\n{line}\n{setup_texts.LAST}"
    assert machine.tab.read_text().removesuffix("\n") == (LINES if tab else "") + block
    assert (
        json.loads((machine.home / ".claude.json").read_text())["mcpServers"]["tokenops"]["command"] == f"{ROOT}/bin/tok-mcp"
    )
    settings = json.loads((machine.home / ".claude/settings.json").read_text())
    assert settings["hooks"]["PreToolUse"][0]["hooks"][0]["command"] == f"{ROOT}/bin/tok-guard hook"
    shell = (machine.home / ".bashrc").read_text()
    assert (
        shell.startswith(f"alias ll='ls -l'\n{setup_texts.FIRST}\nclaude() {{ if curl ") and "ANTHROPIC_BASE_URL=" in shell
    )
    assert not [row for row in rows if row["about"] in ("cron", "mcp")], "nothing of these is left to do"
    written = tree(machine.home, machine.log)
    assert states(init(run, "--all")) == {} and tree(machine.home, machine.log) == written
    assert all(row["done"] for row in init(run, "--undo"))
    assert tree(machine.home) == before and (machine.tab.read_text() if machine.tab.exists() else None) == tab
    assert "claude mcp remove --scope user tokenops" in machine.called()
    assert not list(machine.log.glob("*backup*"))


def test_yes_leaves_these_to_the_user(machine: Machine, run: Run) -> None:
    rows = init(run, "--yes")
    assert states(rows) == dict.fromkeys(("config.yaml", "settings.json"), "written")
    assert {row["about"] for row in rows} >= {"cron", "mcp"} and not machine.tab.exists()
    assert "hooks" not in json.loads((machine.home / ".claude/settings.json").read_text())
    assert not any(call.startswith("claude") for call in machine.called())


def test_a_dry_run_shows_and_changes_nothing(machine: Machine, run: Run) -> None:
    before = tree(machine.home)
    shown = run("tok-init --dry-run --table").stdout.decode()
    assert "+*/10 * * * *  " in shown and "$ claude mcp add --scope user tokenops -- " in shown and "+claude() {" in shown
    assert (
        "more lines" in shown and '"Stop"' not in shown and '"Stop"' in run("tok-init --dry-run --table -v").stdout.decode()
    )
    assert tree(machine.home) == before and not machine.tab.exists() and not machine.log.exists()
    init(run, "--all")
    places = [row["file"] for row in init(run, "--undo --dry-run")]
    assert places[0] == str(machine.home / ".bashrc") and "crontab:" in places and len(places) == 6
    assert machine.tab.exists() and init(run, "--undo")
    assert b"--dry-run shows changes" in run("tok-init --dry-run --demo", status=2).stderr


@pytest.mark.parametrize(
    ("program", "place", "says"),
    [
        ("crontab", "crontab:", "it cannot be read: crontab -l ended with 1 (you may not)"),
        ("claude", ".claude.json", "it was not changed: claude mcp add ended with 1 (you may not)"),
    ],
)
def test_a_program_that_fails(program: str, place: str, says: str, machine: Machine, run: Run) -> None:
    machine.program(program, FAILS)
    before = (machine.home / ".claude.json").read_bytes()
    rows = init(run, "--all", status=1)
    [row] = [row for row in rows if row["about"] == "change" and row["file"].endswith(place)]
    assert row["state"] == "refused" and row["note"].startswith(says)
    assert (machine.home / ".claude.json").read_bytes() == before or program != "claude"
    assert [row["file"].endswith(place) for row in init(run, "--undo")].count(True) == 0


def test_without_the_programs_there_are_lines_to_paste(machine: Machine, run: Run) -> None:
    for name in ("crontab", "claude"):
        (machine.programs / name).unlink()
    rows = init(run, "--all")
    assert set(states(rows)) == {"config.yaml", "settings.json", ".bashrc"}
    texts = {row["about"]: row["text"] for row in rows if row["about"] in ("cron", "mcp") and row.get("format") != "json"}
    assert texts["mcp"].startswith("claude mcp add --scope user tokenops -- ") and "tok-sync" in texts["cron"]


def test_somebody_edits_the_crontab_after_us(machine: Machine, run: Run) -> None:
    put(machine.tab, LINES.encode())
    init(run, "--all")
    machine.tab.write_text("0 0 * * *  mine\n" + machine.tab.read_text() + "1 1 * * *  mine too\n")
    rows = {row["file"]: row for row in init(run, "--undo")}
    assert rows["crontab:"]["done"] and "only our entry was removed" in rows["crontab:"]["note"]
    assert machine.tab.read_text() == f"0 0 * * *  mine\n{LINES}1 1 * * *  mine too\n"


def test_a_crontab_that_runs_it_already(machine: Machine, run: Run) -> None:
    put(machine.tab, b"*/5 * * * *  tok-sync\n")
    assert "crontab:" not in states(init(run, "--all")) and machine.tab.read_bytes() == b"*/5 * * * *  tok-sync\n"


def test_another_server_of_that_name_is_left_alone(machine: Machine, run: Run) -> None:
    init(run, "--all")
    path = machine.home / ".claude.json"
    path.write_text(path.read_text().replace(f"{ROOT}/bin/tok-mcp", "/else/tok-mcp"))
    row = next(row for row in init(run, "--undo", status=1) if row["file"] == str(path))
    assert not row["done"] and row["note"].endswith("run: claude mcp remove --scope user tokenops")


def test_a_timer_of_systemd(machine: Machine, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.program("systemctl", SYSTEMCTL)
    before = tree(machine.home)
    rows = [row for row in init(run, "--all --schedule systemd") if row["about"] == "change" and "every ten" in row["title"]]
    folder = machine.home / ".config/systemd/user"
    assert [row["file"] for row in rows] == [str(folder / "tokenops.service"), str(folder / "tokenops.timer")]
    assert f'ExecStart="{ROOT}/bin/tok-sync"\n' in (folder / "tokenops.service").read_text()
    started = ["systemctl --user daemon-reload", "systemctl --user enable --now tokenops.timer"]
    assert [call for call in machine.called() if call.startswith("systemctl")] == started
    assert states(init(run, "--all")) == {} and not machine.tab.exists(), "one schedule is enough"
    assert all(row["done"] for row in init(run, "--undo")) and tree(machine.home) == before
    stopped = ["systemctl --user disable --now tokenops.timer", "systemctl --user daemon-reload"]
    assert [call for call in machine.called() if call.startswith("systemctl")] == [*started, *stopped]


def test_a_timer_that_does_not_start_leaves_no_file(machine: Machine, run: Run) -> None:
    machine.program("systemctl", FAILS)
    rows = init(run, "--all --schedule systemd", status=1)
    assert {row["state"] for row in rows if row.get("file", "").endswith("tokenops.timer")} == {"refused"}
    assert not (machine.home / ".config/systemd/user/tokenops.timer").exists()


def test_a_read_only_home_is_left_alone(machine: Machine, run: Run) -> None:
    for path in (*machine.home.rglob("*"), machine.home):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree(machine.home)
    caps = "-dac_override,-dac_read_search"
    (machine.programs / "setpriv").symlink_to(shutil.which("setpriv") or "/nonexistent")
    prefix = f"setpriv --bounding-set {caps} --inh-caps {caps} " if os.geteuid() == 0 else ""
    done = run(f"{prefix}tok-init --all --json", status=1)
    assert {row["state"] for row in objects(done.stdout) if row["about"] == "change"} == {"refused"}
    assert tree(machine.home) == before and not machine.tab.exists()
    assert not any(call.startswith("claude") for call in machine.called())
    for path in (machine.home, *machine.home.rglob("*")):
        path.chmod(0o755)


def test_the_functions_use_the_proxy_only_while_it_runs(machine: Machine, run: Run) -> None:
    init(run, "--all")
    machine.program("claude", '#!/bin/sh\necho "$ANTHROPIC_BASE_URL" "$@"\n')
    for answers, seen in ((1, " a b\n"), (0, "http://127.0.0.1:7878/anthropic a b\n")):
        machine.program("curl", f"#!/bin/sh\nexit {answers}\n")
        for shell in ("bash", "sh"):
            done = subprocess.run(
                [shell, "-c", f". {machine.home}/.bashrc; claude a b"],
                env={"PATH": str(machine.programs)},
                capture_output=True,
                check=True,
            )
            assert done.stdout.decode() == seen


# At a terminal.


def answered(*lines: str) -> tuple[str, str]:
    """The value that a question gets for these lines, and what was shown."""
    question = setup_questions.Question(
        "x",
        "Which?",
        (setup_questions.Choice("a", "one"), setup_questions.Choice("b", "two\x1b"), setup_questions.Choice("", "none")),
        1,
    )
    left, shown = list(lines), []
    return setup_questions.ask(question, lambda: left.pop(0) if left else "", shown.append, color=False), "".join(shown)


@pytest.mark.parametrize(
    ("lines", "value"),
    [(["\n"], "b"), (["1\n"], "a"), ([" 3 \n"], ""), (["4\n", "0\n", "x\n", "1\n"], "a"), ([], ""), (["2"], "")],
)
def test_a_question(lines: list[str], value: str) -> None:
    answer, shown = answered(*lines)
    wrong = sum(not line.strip() or not 1 <= int(line) <= 3 for line in lines if line.strip().isdigit()) + ("x\n" in lines)
    assert shown.count("Write a number from 1 to 3.\n") == wrong
    assert answer == value and shown.startswith("Which?\n    1  one\n >  2  two\\x1b\n    3  none\nNumber, or Enter for 2: ")


def plan_row(**more: object) -> Json:
    said = [{"source": "~/.claude.json", "says": "x"}]
    return {"about": "plan", "provider": "anthropic", "confidence": "exact", "plans": ["claude-pro"], "said": said} | more


def test_which_plans_are_asked_for() -> None:
    sure = setup_questions.plan_question([plan_row(), plan_row(provider="openai", plans=["gpt-pro"])])
    assert sure is not None and [sure.choices[number].value for number in sure.usual] == ["claude-pro", "gpt-pro"]
    assert {choice.vendor for choice in sure.choices} == {"Anthropic", "OpenAI"} and len(sure.choices) > 6
    unknown = setup_questions.plan_question([plan_row(confidence="unknown", plans=["claude-pro", "claude-team"])])
    assert unknown is not None and unknown.usual == ()
    assert setup_questions.plan_question([plan_row(set="claude-pro"), plan_row(plans=[]), {"about": "key"}]) is None


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    ("lines", "plans", "wrong"),
    [
        (["\n"], ["claude-pro"], ""),
        (["0\n"], [], ""),
        ([], [], ""),
        (["2"], [], ""),
        (["2 7\n"], ["claude-max-5x", "gpt-pro"], ""),
        (["7, 2\n"], ["claude-max-5x", "gpt-pro"], ""),
        (["1 2\n", "2\n"], ["claude-max-5x"], "Choose one plan of Anthropic"),
        (["x\n", "99\n", "1\n"], ["claude-pro"], "Write numbers from 1 to "),
    ],
)
def test_plans_of_all_vendors_are_one_question(lines: list[str], plans: list[str], wrong: str, width: int) -> None:
    rows = [plan_row(), plan_row(provider="openai", confidence="unknown", plans=["gpt-plus"])]
    question = setup_questions.plan_question(rows)
    left, shown = list(lines), []
    assert question is not None
    assert setup_questions.ask_plans(question, lambda: left.pop(0) if left else "", shown.append, False, width) == plans
    text = "".join(shown)
    assert "> 1 Claude Pro, $" in text and "OpenAI " in text and wrong in text
    menu = text.partition("Numbers, such as")[0].splitlines()
    assert len(menu) < 20 and max(map(len, menu)) <= width


def test_three_questions_then_the_diffs_then_the_first_report(
    machine: Machine, environment: dict[str, str], run: Run
) -> None:
    seen, status = talked(environment, "a\n", line="tok-init")
    assert status == 0 and seen.count("or Enter for ") == 3 and seen.count("Write this ") == 1
    for part in ("Which plans do you have?", "every ten minutes?\n >  1  a line in your crontab", "Claude Code run?"):
        assert part in seen
    assert "claude-pro" in (machine.home / ".config/tokenops/config.yaml").read_text() and machine.tab.exists()
    settings = json.loads((machine.home / ".claude/settings.json").read_text())
    assert "statusLine" in settings and "hooks" not in settings, "Enter chooses the status line alone"
    steps = [step for step in seen.rpartition("Next:\n")[2].splitlines() if not step.startswith("    # ")]
    assert 1 <= len(steps) <= 3 and all(step.startswith("    tok-") for step in steps)
    again, _ = talked(environment, "n\n", line="tok-init")
    assert again.count("Number, or Enter for ") == 1, "only what Claude Code runs beside the status line"
    assert all(row["done"] for row in init(run, "--undo")) and not machine.tab.exists()


def test_nothing_is_written_at_the_end_of_input(machine: Machine, environment: dict[str, str]) -> None:
    before: Callable[[], object] = lambda: tree(machine.home)  # noqa: E731
    was = before()
    seen, status = talked(environment, line="tok-init")
    assert status == 0 and before() == was and not machine.tab.exists() and "declined: " in seen


def test_undo_names_the_hooks_that_it_did_not_write(machine: Machine, run: Run) -> None:
    run("tok-guard install")
    init(run, "--yes")
    said = run("tok-init --undo").stderr.decode()
    assert f"{machine.home}/.claude/settings.json still has hooks of tok-guard" in said and "tok-guard uninstall" in said
    run("tok-guard uninstall")
    init(run, "--all")
    assert "still has hooks" not in run("tok-init --undo").stderr.decode()
