"""What follows `tok`: names of commands, words for spans, and the words and options of ccusage and the original."""

from __future__ import annotations

import datetime
import pathlib
import sys

import pytest

from conftest import ROOT, Run, claude, put
from tokenops import cli, cli_words

FOLDER = str(ROOT / "bin")
COST = ["--log", "--by"]


def now() -> datetime.datetime:
    return datetime.datetime(2026, 11, 25, 12)  # a Wednesday


def called(line: str) -> str:
    result = cli_words.call(line.split(), FOLDER, now)
    return " ".join((result.command, *result.argv)).strip()


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("", ""),
        ("--json", "--json"),
        ("cost --by day", "tok-cost --by day"),
        ("tok-cost --by day", "tok-cost --by day"),
        ("statusline", "tok-statusline"),
        ("help", "--help"),
        ("help cost", "tok-cost --help"),
        ("help daily", "tok-cost --help"),
        ("help limits", "tok-budget --help"),
        ("version", "--version"),
        ("limits openai", "tok-budget openai"),
        ("doctor --json", "tok-status --json"),
        ("commits main..HEAD", "tok-task commits main..HEAD"),
        ("prs", "tok-task prs"),
        ("waste --since 7d", "tok-coach waste --since 7d"),
        ("breaks --top 5", "tok-context --breaks --sort price --top 5"),
        ("tools", "tok-context"),
        ("help waste", "tok-coach --help"),
        ("live", "tok-top"),
        ("today", "tok-cost --log --today"),
        ("today --json", "tok-cost --log --today --json"),
        ("month --by model", "tok-cost --log --since this month --by model"),
        ("daily", "tok-cost --log --by day --since all"),
        ("daily --since 20261101 --until 20261130", "tok-cost --log --by day --since 20261101 --until 20261130"),
        ("daily --until=20261130", "tok-cost --log --by day --since all --until 20261130"),
        ("daily -s 20261101 -j", "tok-cost --log --by day --since 20261101 --json"),
        ("daily --breakdown", "tok-cost --log --by day,model --since all"),
        ("daily --instances --breakdown", "tok-cost --log --by day,project,model --since all"),
        ("daily -i -p app", "tok-cost --log --by day,project --since all --project app"),
        ("weekly --order asc", "tok-cost --log --by week --since all"),
        ("weekly --order desc", "tok-cost --log --by week --since all --sort ended"),
        ("monthly -z Asia/Tokyo --offline --compact", "tok-cost --log --by month --since all --tz Asia/Tokyo"),
        ("monthly --timezone=UTC --no-color", "tok-cost --log --by month --since all --tz UTC --color never"),
        ("monthly --mode calculate", "tok-cost --log --by month --since all"),
        ("daily --last 1", "tok-cost --log --by day --since 2026-11-25"),
        ("daily --last 3", "tok-cost --log --by day --since 2026-11-23"),
        ("weekly --last 2", "tok-cost --log --by week --since 2026-11-16"),
        ("monthly --last 12", "tok-cost --log --by month --since 2025-12-01"),
        ("models --since 7d", "tok-cost --log --by model --since 7d"),
        ("session", "tok-cost --log --by session --since all"),
        ("sessions --top 5", "tok-cost --log --by session --since all --top 5"),
        ("session 019f", "tok-trace 019f"),
        ("session --id 019f --json", "tok-trace 019f --json"),
        ("session -i 019f", "tok-trace 019f"),
        ("blocks", "blocks"),
        ("blocks -a", "blocks --active"),
        ("blocks --recent --json", "blocks --recent --json"),
        ("claude daily", "tok-cost --log --by day --since all --client claude-code"),
        ("codex", "tok-cost --log --by day --since all --client codex"),
        ("gemini monthly --json", "tok-cost --log --by month --since all --json --client gemini-cli"),
        ("claude blocks", "blocks --client claude-code"),
        ("serve", "tok-mcp"),
        ("spend", "tok-cost --log --since 7d"),
        ("spend --by model --top 5", "tok-cost --log --since 7d --by model --top 5"),
        ("replay 019f", "tok-trace 019f"),
        ("demo", "tok-init --demo"),
        ("plan set openai gpt-pro", "tok-plan set openai gpt-pro"),
        ("vendor-usage", "tok-poll status"),
        ("vendor-usage enable codex", "tok-poll enable codex"),
        ("vendor-usage backfill codex --hours 3", "tok-poll backfill codex --hours 3"),
        ("pricing show claude-opus-4-6", "tok-price show claude-opus-4-6"),
        ("pricing refresh --dry-run", "tok-price update --dry-run"),
        ("dashboard", "tok-dash url"),
        ("dashboard rotate-token", "tok-dash rotate-token"),
        ("scorecard", "tok-score"),
        ("glance", ""),
        ("yesterday", "tok-cost --log --since yesterday --until yesterday"),
        ("last week --by model", "tok-cost --log --since last week --until last week --by model"),
        ("this month", "tok-cost --log --since this month"),
        ("july", "tok-cost --log --since july --until july"),
        ("2026-07 --json", "tok-cost --log --since 2026-07 --until 2026-07 --json"),
        ("2026-07-03", "tok-cost --log --since 2026-07-03 --until 2026-07-03"),
        ("30d", "tok-cost --log --since 30d"),
        ("model", "tok-cost --log --by model"),
        ("project", "tok-cost --log --by project"),
    ],
)  # fmt: skip
def test_a_word_is_a_command_line_of_ours(line: str, ours: str) -> None:
    assert called(line) == ours


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("csot", "no command 'csot'; did you mean tok cost?"),
        ("dayly", "did you mean tok daily?"),
        ("statsu", "did you mean tok status?"),
        ("2026-13", "no command '2026-13'"),
        ("last wek", "no command 'last'"),
        ("xyzzy", "no command 'xyzzy'; tok help lists all"),
        ("x" * 500, "no command 'xxxx"),
        ("start", "tok-proxy --dash"),
        ("config show", "config.yaml"),
        ("pricing shwo", "did you mean show?"),
        ("vendor-usage enabel", "did you mean enable?"),
        ("audit", "tok-log explain"),
        ("claude budget", "write tok budget --client claude-code"),
        ("daily --mode display", "tok-cost --reconcile"),
        ("daily --order up", "choose from asc, desc"),
        ("daily --last 0", "must be a whole number"),
        ("daily --locale de", "dates are written as 2026-11-30"),
        ("daily --jq .x", "--json | jq"),
        ("blocks --live", "tok-dash"),
        ("blocks --token-limit max", "tok limits"),
        ("--plan max5", "tok-plan set max5"),
        ("--plan=pro", "tok-plan set"),
        ("--view daily", "tok daily"),
        ("--view realtime", "tok-top"),
        ("--timezone UTC", "--tz"),
        ("--daily", "a word, not an option: tok daily"),
        ("export", "--csv"),
        ("uninstall", "tok-init --undo"),
        ("usage", "tok limits"),
    ],
)
def test_what_means_nothing_here_is_answered_with_what_does(line: str, sentence: str) -> None:
    with pytest.raises(cli.Fault) as fault:
        called(line)
    assert sentence in str(fault.value) and "\n" not in str(fault.value)


def test_every_line_that_is_named_instead_exists() -> None:
    commands = {path.name for path in pathlib.Path(FOLDER).glob("tok-*")}
    words = [word.command for word in (*cli_words.WORDS.values(), *cli_words.THEIRS.values()) if word.command]
    assert set(words) <= commands
    texts = " ".join((*cli_words.INSTEAD.values(), *cli_words._REPLACED.values(), *cli_words._MONITOR.values()))
    named = {word.strip("();,:.") for word in texts.split() if word.startswith("tok-")}
    assert named - {"tok-top"} <= commands


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("tok-cost --from 2026-06-22", "write --since TIME"),
        ("tok-cost --week 2026-W26", "--since 2026-W26 --until 2026-W26"),
        ("tok-context --days 30", "--since 7d"),
        ("tok-init --days 30", "unrecognized arguments: --days"),
        ("tok-cost --since yesteday", "2026-W26"),
        ("tok-cost --by tool", "tok-context shows what each tool cost"),
        ("tok-cost today", "no file 'today'; to report a span: tok-cost --log --since today"),
        ("tok-cost last week", "--log --since 'last week'"),
        ("tok-cost lost.jsonl", "lost.jsonl: No such file"),
    ],
)
def test_a_span_or_a_field_that_is_named_otherwise_is_answered_with_the_option(run: Run, line: str, sentence: str) -> None:
    words = run(line, status=2).stderr.decode().split()
    assert sentence in " ".join(words)
    assert ("--since" in words) == ("--since" in sentence)


def test_a_file_that_is_named_like_a_span_is_read(run: Run, tmp_path: pathlib.Path) -> None:
    path = put(tmp_path / "today")
    assert b"no file" not in run(f"cd {path.parent} && tok-cost today", status=None).stderr


def test_a_command_runs_in_the_same_process_with_its_own_status(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "home/.claude/projects/-home-ada-app/s1.jsonl", claude())
    for words, command in (
        ("read", "tok-read"),
        ("cost --log --since all --json", "tok-cost --log --since all --json"),
        ("budget --require-signal -q", "tok-budget --require-signal -q"),
        ("cost --bye", "tok-cost --bye"),
        ("trace nobody", "tok-trace nobody"),
        ("rollup --by none", "tok-rollup --by none"),
    ):
        mine, theirs = (run(line, status=None) for line in (f"tok {words}", command))
        assert (mine.returncode, mine.stderr) == (theirs.returncode, theirs.stderr), words
        assert words.startswith("cost --log") or mine.stdout == theirs.stdout
    assert run("tok budget --require-signal -q", status=None).returncode == 1
    assert run("tok read | head -c 1; exit ${PIPESTATUS[0]}", status=None).stderr == b""


def test_no_second_interpreter_starts(run: Run) -> None:
    """With an empty path, `env python3` in the first line of a command would not find one."""
    done = run(f"PATH= {sys.executable} {ROOT}/bin/tok cost --version")
    assert done.stdout.startswith(b"tok-cost ")


def test_tok_works_through_a_link(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "linked").symlink_to(ROOT / "bin/tok")
    assert run("./linked cost --version").stdout.startswith(b"tok-cost ")
