"""What reporters print for people fits the terminal, keeps the answer, and says what is not in it."""

from __future__ import annotations

import csv
import io
import os
import pathlib
import pty
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from scripts import Claude
from test_main import called, clean

from conftest import MOST, ROOT, Json, lines, objects, put
from tokenops import show

__all__ = ["clean"]
NOW = "2026-11-21T12:00:00Z"
WIDE = "日本語のとても長い名前のプロジェクトで端末に入らない"
LONG = "a-project-with-a-name-that-is-longer-than-most-terminals-are-wide/and-a-second-part-of-that-name"
MODEL = "claude-sonnet-4-5-20250929"
# Ids of one second begin alike, as Codex makes them.
SESSIONS = (
    "019ed893-d2a6-7c30-a8b8-5a8a49cfa23e",
    "019ed893-d2a6-7d31-b9c9-6b9b50dfb34f",
    "5f2b1a60-0000-4000-8000-000000000001",
)
SAID = Callable[..., tuple[int, str, str]]


def turn(name: str, ts: str = "2026-11-20T09:00:00.000Z", **given: Any) -> Json:
    record: Json = {"v": 1, "ts": ts, "kind": "turn", "id": name, "provider": "anthropic", "model": MODEL, "turns": 1}
    return record | {"output_tokens": 100} | given


def log_of(folder: pathlib.Path) -> None:
    """A log of two days: names that are long and wide, enormous counts, a model without a price, limits, rounds, tasks."""
    for day, hours in (("2026-11-20", (8, 9, 10, 22)), ("2026-11-21", (8, 9, 10, 11))):
        records: list[Json] = []
        for at, hour in enumerate(hours):
            session, project = SESSIONS[at % 3], (WIDE, LONG, "app")[at % 3]
            labels = {"session_id": session, "project": project, "client": "claude-code", "source": "claude-code-jsonl"}
            labels |= {"agent_id": f"claude-code:{project}", "workflow_id": f"claude-code:{project}:{session}"}
            counts = {"cache_read_tokens": 123_456_789, "cache_write_1h_tokens": 2_345_678, "output_tokens": 1_234_567}
            for minute in (0, 7, 50):
                name, ts = f"{day}-{hour}-{minute}", f"{day}T{hour:02}:{minute:02}:00.000Z"
                model = "a-model-without-any-price-at-all" if minute == 7 and at == 0 else MODEL
                records.append(turn(name, ts=ts, model=model, **labels, **counts))
                done = {
                    "prompts": 1,
                    "tool_calls": 9,
                    "edits": 3,
                    "repeated_reads": 40,
                    "tool_results": 9,
                    "result_bytes": 9_000_000,
                }
                records.append({"v": 1, "ts": ts, "kind": "work", "id": f"w{name}", **labels, "counts": done, "times": {}})
            records += [
                {
                    "v": 1,
                    "ts": f"{day}T{hour:02}:30:00.000Z",
                    "kind": "meter",
                    "id": f"m{day}{hour}{window}",
                    "source": "statusline",
                    "provider": "anthropic",
                    "window": window,
                    "window_minutes": minutes,
                    "used": 0.1 * (at + 1),
                    "resets_at": ends,
                }
                for window, minutes, ends in (
                    ("five_hour", 300, f"{day}T23:00:00.000Z"),
                    ("weekly", 10080, "2026-11-24T00:00:00.000Z"),
                )
            ]
        start = {"event": "start", "title": f"mend the {LONG}", "project": LONG, "branch": f"feature/{LONG}"}
        records.append({"v": 1, "ts": f"{day}T07:00:00.000Z", "kind": "task", "id": f"t{day}", "task": f"t{day}", **start})
        put(folder / f"events/{day}.jsonl", *sorted(records, key=lambda record: str(record["ts"])))


@pytest.fixture
def home(clean: dict[str, str]) -> pathlib.Path:
    """The environment of a user with that log, a plan, budgets and a transcript."""
    home = pathlib.Path(clean["HOME"])
    log_of(pathlib.Path(clean["TOKENOPS_HOME"]))
    budgets = [
        {"name": f"all of {LONG}", "window": "daily", "limit_usd": 1e6},
        {"name": WIDE, "limit_tokens": 9_000_000_000},
    ]
    settings = {"plans": {"anthropic": "claude-max-5x"}, "budgets": budgets}
    put(home / ".config/tokenops/config.yaml", settings)
    talk = Claude(SESSIONS[2], "2026-11-20T09:00:00", cwd=f"/home/ada/{LONG}")
    for text in ("ok", "yes", "Look at the list of orders and say why it is empty", "fix it", "ok", "ok") * 3:
        talk.human(text)
        talk.says("I looked at the loader and found that the last line is dropped when the file has no newline. " * 3)
    put(home / f".claude/projects/-home-ada/{SESSIONS[2]}.jsonl", lines(talk.lines))
    return home


@pytest.fixture
def said(clean: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> SAID:
    """Status, stdout and stderr of a command that is called in this process."""

    def say(line: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        command, *argv = line.split()
        status, out, err = called(command, argv, monkeypatch)
        return status, out.decode(), err.decode()

    return say


# A command, and what has to be there at any width.
REPORTERS = [
    ("tok-cost --log --table", "price"),
    ("tok-cost --log --table --by session", "019ed893-d2a6-7c"),
    ("tok-cost --log --table --by agent,model,day --top 2 -v", "and "),
    ("tok-cost --log --table --reconcile", ""),
    ("tok-burn --log --table --hours 48", "price"),
    ("tok-budget --table", "weekly limit"),
    ("tok-budget --table -v", "used"),
    ("tok-budget --spend --table", "level"),
    ("tok-plan headroom --table", "price"),
    ("tok-plan catalog --table", "USD"),
    ("tok-status --table", "claude-code"),
    ("tok-trace 5f2b --table", "price"),
    ("tok-trace 5f2b --table --top 2", "more, $"),
    ("tok-task list --metrics --table", "price"),
    ("tok-task list --by branch --table", "price"),
    ("tok-score --by project --compare --table", "grade"),
    ("tok-coach waste --table", "price"),
    ("tok-coach models --table", "price"),
    ("tok-coach prompts --table", "price"),
    ("tok-coach replies --table", "style"),
    ("tok-price list --provider anthropic --table", "output"),
    ("tok-poll status --table", "status"),
    ("tok-sync --table", "events"),
    ("tok-provider list --table", "provider"),
    ("tok-backtest --log --table", ""),
]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("line", "answer"), REPORTERS, ids=[line for line, _ in REPORTERS])
def test_tables_fit_and_keep_the_answer(line: str, answer: str, said: SAID) -> None:
    for width in (60, 80, 120):
        _, out, err = said(line, COLUMNS=str(width))
        assert "Traceback" not in err
        pasted = [
            text for text in out.splitlines() if not text.startswith("    ")
        ]  # what is pasted into a shell stays whole
        assert max(map(show.text_width, pasted), default=0) <= width, max(pasted, key=show.text_width)
        assert answer in out, out


def rows_of(text: str) -> list[str]:
    """The first word of each row of a table."""
    body = text.split("---\n")[1:]
    return [line.split()[0] for part in body for line in part.splitlines() if not line.startswith("-")]


# Sonnet's output costs $15 per million.
SIZES = {"small": 100_000, "large": 10_000_000, "middle": 1_000_000}


@pytest.fixture
def sizes(clean: dict[str, str]) -> None:
    put(pathlib.Path("sizes.jsonl"), *(turn(name, project=name, output_tokens=tokens) for name, tokens in SIZES.items()))


@pytest.mark.usefixtures("sizes")
def test_a_table_begins_with_the_dearest_and_json_keeps_its_order(said: SAID) -> None:
    _, out, _ = said("tok-cost --table sizes.jsonl")
    assert rows_of(out)[:4] == ["large", "middle", "small", "total"]
    _, out, _ = said("tok-cost --json sizes.jsonl")
    assert [row["project"] for row in objects(out.encode())] == sorted(SIZES)


@pytest.mark.usefixtures("sizes")
def test_sort_and_top(said: SAID) -> None:
    _, out, _ = said("tok-cost --table --sort name --top 1 sizes.jsonl")
    assert rows_of(out)[0] == "large" and "and 2 more" in out and "$16.50" in out and "$166.50" in out
    _, out, _ = said("tok-cost --json --top 2 sizes.jsonl")
    assert [row["project"] for row in objects(out.encode())] == ["large", "middle"]
    _, out, _ = said("tok-cost --json --sort output_tokens sizes.jsonl")
    assert [row["project"] for row in objects(out.encode())] == ["large", "middle", "small"]
    status, _, err = said("tok-cost --table --sort prise sizes.jsonl")
    assert status == 2 and "did you mean price?" in err


@pytest.mark.usefixtures("clean")
def test_days_stay_in_order(said: SAID) -> None:
    put(pathlib.Path("days.jsonl"), *(turn(str(n), f"2026-11-2{n}T09:00:00.000Z", output_tokens=9 - n) for n in (2, 0, 1)))
    _, out, _ = said("tok-cost --table --by day days.jsonl")
    assert rows_of(out)[:3] == ["2026-11-20", "2026-11-21", "2026-11-22"]


@pytest.mark.usefixtures("home")
def test_a_session_is_shown_whole_however_long_ago_it_was(said: SAID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENOPS_NOW", "2028-02-01T12:00:00Z")
    for line in ("tok-cost --log", "tok-coach waste"):
        assert said(f"{line} --session {SESSIONS[2][:8]} --json")[1]
        assert not said(f"{line} --json")[1]


@pytest.mark.usefixtures("home")
def test_the_beginning_of_a_session_is_enough_for_every_command(said: SAID) -> None:
    short = SESSIONS[2][:8]
    assert short in said("tok-cost --log --by session --table")[1]
    for line in (
        f"tok-trace {short}",
        f"tok-cost --log --session {short} --by session",
        f"tok-cat --session {short} --kind turn",
    ):
        status, out, _ = said(f"{line} --json" if "tok-cat" not in line else line)
        assert status == 0 and objects(out.encode()), line
        assert {row["session_id"] for row in objects(out.encode()) if "session_id" in row} == {SESSIONS[2]}
    waste = objects(said(f"tok-coach waste --session {short} --json")[1].encode())
    assert {row["session_id"] for row in waste if row["kind"] == "finding"} == {SESSIONS[2]}
    status, _, err = said(f"tok-log explain {short}")
    assert status == 2 and f"is the session {SESSIONS[2]}" in err
    for line in ("tok-trace 019ed893", "tok-cost --log --session 019ed893"):
        status, _, err = said(line)
        assert status == 2 and all(session in err for session in SESSIONS[:2])
    assert "2026-11-20-8-50" in said("tok-log explain 2026-11-20-8-5 --table")[1]


@pytest.mark.usefixtures("clean")
def test_a_model_without_a_price_makes_a_marked_sum_and_a_failure_only_with_strict(said: SAID) -> None:
    put(pathlib.Path("e.jsonl"), turn("1", output_tokens=100_000), turn("2", model="no-such-model-9"))
    status, out, err = said("tok-cost --table --by none e.jsonl")
    assert (status, err) == (0, "") and "$1.50+" in out and "+ the sums lack 1 turn of models without a price" in out
    status, out, err = said("tok-cost --table --by model e.jsonl")
    assert "unknown" in out and "$1.50+" in out
    for line in (
        "tok-cost --json e.jsonl",
        "tok-cost --csv e.jsonl",
        "tok-rollup --merge e.jsonl",
        "tok-burn --json --hours 48 e.jsonl",
    ):
        status, _, err = said(line)
        assert status == 0 and "the sums lack 1 turn of models without a price: no-such-model-9" in err, line
        assert said(f"{line} --strict")[0] == 1, line


@pytest.mark.usefixtures("clean")
def test_csv_is_exact_and_complete(said: SAID) -> None:
    counts = {"cache_write_tokens": 1, "cache_write_1h_tokens": 2, "reasoning_tokens": 3, "output_tokens": 1_234_567}
    put(pathlib.Path("e.jsonl"), turn("1", project="\uff1dSUM(A1)", **counts))
    (row,) = csv.DictReader(io.StringIO(said("tok-cost --csv e.jsonl")[1]))
    assert {name: row[name] for name in counts} == {name: str(value) for name, value in counts.items()}
    assert (row["turns"], row["input_tokens"], row["tokens"], row["cost_usd"]) == ("1", "0", "1234570", "18.51852075")
    assert row["project"] == "'\uff1dSUM(A1)"
    (row, *_) = csv.DictReader(io.StringIO(said("tok-burn --csv --hours 1 e.jsonl", TOKENOPS_NOW="2026-11-20T10:00:00Z")[1]))
    assert row["tokens"] == "1234570" and row["cost_usd"] == "18.51852075"


@pytest.mark.parametrize("sign", "=+-@\uff1d\uff0b\uff0d\uff20")
def test_no_sign_of_a_formula_begins_a_cell(sign: str) -> None:
    assert show.records([{"name": f"{sign}1+1"}], "csv") == f"name\n'{sign}1+1\n"


@pytest.mark.usefixtures("clean")
def test_many_skipped_lines_are_one_message_with_an_example(said: SAID) -> None:
    torn = [put(pathlib.Path(f"{number:02}.jsonl"), b"{torn\n", turn(str(number))) for number in range(41)]
    names = " ".join(map(str, torn))
    status, out, err = said(f"tok-rollup {names}")
    assert status == 1 and sum(row["turns"] for row in objects(out.encode())) == 41
    assert err.startswith("tok-rollup: 41 lines skipped in 41 files; -v lists them; the first is 00.jsonl:1: ")
    assert err.count("\n") == 1
    assert said(f"tok-rollup -v {names}")[2].count("\n") == 41
    assert said(f"tok-rollup {torn[0]}")[2].startswith("tok-rollup: 00.jsonl:1: ")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "command", ["tok-cost --log", "tok-score", "tok-coach waste", "tok-coach models", "tok-coach prompts"]
)
def test_bad_lines_of_the_log_are_reported(command: str, said: SAID, clean: dict[str, str]) -> None:
    path = pathlib.Path(clean["TOKENOPS_HOME"]) / "events/2026-11-21.jsonl"
    path.write_bytes(b"{torn\n" + path.read_bytes())
    status, _, err = said(f"{command} --json")
    assert status == 1 and "1 line of the log could not be read; run tok-log verify" in err


def test_a_command_that_waits_for_input_says_so_in_lines_that_fit(environment: dict[str, str]) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [ROOT / "bin/tok-rollup"], stdin=follower, stdout=follower, stderr=follower, env=environment | {"COLUMNS": "40"}
    )
    os.write(leader, b"\x04")
    assert process.wait(MOST) == 0
    os.close(follower)
    seen = os.read(leader, 4096).decode().replace("^D\b\b", "").split("\r\n")
    os.close(leader)
    assert " ".join(map(str.strip, seen)).strip() == (
        "tok-rollup: reading standard input; end it with Ctrl-D, or give FILEs"
    )
    assert max(map(len, seen)) <= 40


def test_a_sentence_goes_on_in_the_next_line_and_a_name_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    name, why = "a-name-that-is-too-long", "tools or the system prompt of the request changed"
    columns = [show.Column("name", [name, "b"], False, 0), show.Column("why", [why, "no"], False, 0, prose=True)]
    shown = show.table(columns, "table").splitlines()
    assert max(map(len, shown)) <= 30
    at = shown[0].index("why")
    cells = [(line[:at].strip(), line[at:].strip()) for line in shown[2:]]
    assert [cell for cell, _ in cells] == ["a-name-that-is-…", "", "", "b"]
    assert " ".join(text for _, text in cells[:3]).startswith("tools or the system prompt")
    assert len(show.table_lines(columns, 30)) == 3  # on a screen, a row is a line
    monkeypatch.setenv("COLUMNS", "56")
    plan = "a-plan-of-thirty-letters-a-seat"
    both = [show.Column("plan", [plan], False, 0), show.Column("why", [why], False, 0, prose=True)]
    assert plan in show.table([*both, show.Column("usd", ["39"])], "table")
    monkeypatch.setenv("COLUMNS", "100")
    assert show.table(columns, "table").splitlines()[2].endswith(why)
    assert why in show.table(columns, "markdown") and why in show.table(columns, "csv")


def test_a_status_line_at_a_terminal_says_who_runs_it(environment: dict[str, str]) -> None:
    leader, follower = pty.openpty()
    done = subprocess.run(
        [ROOT / "bin/tok-statusline"], stdin=follower, capture_output=True, env=environment, timeout=MOST, check=False
    )
    os.close(follower)
    os.close(leader)
    assert done.returncode == 2 and b"tok-init sets it up" in done.stderr and done.stdout == b""


def test_remarks_are_at_most_four_lines_unless_all_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    remarks = ["the first", "the second, which is longer than the terminal is wide", "the first"]
    monkeypatch.setenv("COLUMNS", "40")
    assert show.notes([], "table", False, False) == ""
    assert show.notes(remarks, "table", False, False) == "the first (and 1 more; -v shows all)\n"
    assert show.notes(remarks[1:2], "table", False, False) == "the second, which is longer than the\n  terminal is wide\n"
    long = [f"{remarks[1]}, {'and longer than four of its lines, ' * 3}which is too long"]
    longer = show.notes(long, "table", False, False).splitlines()
    assert (
        len(longer) == 4 and longer[0] == "the second, which is longer than the" and longer[-1].endswith("… (-v shows all)")
    )
    assert max(map(len, longer)) <= 40 and len(show.notes(long, "table", False, True).splitlines()) > 4
    assert show.notes(remarks, "table", False, True).splitlines() == [
        "the first",
        "the second, which is longer than the",
        "  terminal is wide",
    ]
    assert show.notes(remarks, "markdown", False, False).count("\n") == 2


def test_short_ids_tell_ids_apart() -> None:
    ids = [*SESSIONS, "abc", "abcdefgh", "abcdefghi"]
    short = show.short_ids(ids)
    assert len(set(short.values())) == len(ids) and all(name.startswith(beginning) for name, beginning in short.items())
    assert short[SESSIONS[2]] == "5f2b1a60" and short[SESSIONS[0]] == "019ed893-d2a6-7c" and short["abc"] == "abc"


@pytest.mark.parametrize(
    ("values", "cells", "narrow"),
    [
        (["1234.5", "0.004", None, ""], ["$1,234.50", "<$0.01", "unknown", ""], ["$1.2k", "<$0.01", "unknown", ""]),
        (["0.012", "0.00042"], ["$0.01", "$0.00042"], ["$0.01", "$0.00042"]),
    ],
)
def test_amounts(values: list[str | None], cells: list[str], narrow: list[str]) -> None:
    column = show.amounts("list price", values)
    assert (column.cells, column.short) == (cells, narrow)
    assert show.amounts("x", ["1", None], [True, True]).cells == ["$1.00+", "unknown"]
