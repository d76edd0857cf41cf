"""Cursor: exports of its dashboard, in the layouts it has had."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Run, objects, put
from tokenops import events, read_cursor, read_lines
from tokenops.read_contract import Intake

COLUMNS = "Input (w/ Cache Write),Input (w/o Cache Write),Cache Read,Output Tokens,Total Tokens"
NEW = f"Date,Cloud Agent ID,Automation ID,Kind,Model,Max Mode,{COLUMNS},Cost"
TEAM = f"Date,User,Cloud Agent ID,Automation ID,Kind,Model,Max Mode,{COLUMNS},Cost"
OLD = f"Date,Model,{COLUMNS},Cost,Cost to you"
# A row of an export of June 2026, and its counts: written to the cache, not written, read, output, total.
COUNTS = ("1615", "2", "187200", "1506", "190323")


def row(
    *counts: str, date: str = "2026-06-10T12:55:01.730Z", kind: str = "On-Demand", cost: str = "0.33", **given: Any
) -> str:
    cells = [date, "", "", kind, given.get("model", "gpt-5.5-medium"), "No", *(counts or COUNTS), cost]
    return ",".join(f'"{cell}"' for cell in cells)


def export(*rows: str, header: str = NEW, end: str = "\n") -> bytes:
    return end.join((header, *rows, "")).encode()


def place(home: pathlib.Path, name: str = "june.csv") -> pathlib.Path:
    return home / ".local/share/tokenops/cursor" / name


def steps(home: pathlib.Path) -> Iterator[None]:
    """An export, a later one that overlaps it, and the same file exported anew."""
    twice = row(date="2026-06-10T12:56:00.000Z")
    put(place(home), export(row(), twice, twice))
    yield
    put(
        place(home, "july.csv"),
        export(row(date="2026-07-01T00:00:00.000Z", kind="Included", cost="Included"), twice, twice, row()),
    )
    yield
    put(place(home), export(row(date="2026-06-11T00:00:00.000Z"), row(), twice, twice))
    yield


def read(home: pathlib.Path, content: bytes) -> tuple[list[events.Event], list[str]]:
    path, rejected = put(place(home), content), list[str]()
    found = read_cursor.read(
        str(path), read_lines.Cursor(), Intake(on_bad_line=lambda place, why: rejected.append(f"{place}: {why}"))
    )
    return list(found), [line.partition(".csv:")[2] for line in rejected]


KINDS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (COUNTS, (2, 187200, 1615, 1506)),
        (("0", "21174", "98521", "3728", "123423"), (21174, 98521, 0, 3728)),
        (("9541", "117382", "1383578", "13232", "1523733"), (117382, 1383578, 9541, 13232)),
        (("28,342", "775", "105,891", "21,282", "156,290"), (775, 105891, 28342, 21282)),
        (("", "10", "-", "5", "15"), (10, 0, 0, 5)),
    ],
)
def test_the_four_columns_are_disjoint(counts: tuple[str, ...], expected: tuple[int, ...], tmp_path: pathlib.Path) -> None:
    [turn], rejected = read(tmp_path, export(row(*counts)))
    assert tuple(turn.get(name, 0) for name in KINDS) == expected and not rejected
    assert events.token_sum(turn) == int(counts[-1].replace(",", ""))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        # An export that somebody made up: the first column would include the second.
        (row("1200", "1000", "5000", "300", "6500"), "the token columns add up to 7500, the total says 6500; skipped"),
        (row("1", "2", "3", "4", ""), "the token columns add up to 10, the total says 0; skipped"),
        (row("1.5", "2", "3", "4", "10"), "'input (w/ cache write)' is not a count; skipped"),
        (row("1,5", "2", "3", "4", "10"), "'input (w/ cache write)' is not a count; skipped"),
        (row("-1", "2", "3", "4", "8"), "'input (w/ cache write)' is not a count; skipped"),
        (row("", "", "", "", ""), "a request that was charged for, without token counts; skipped"),
        (row(date="secret"), "date is a string; expected a time; skipped"),
        ('"2026-06-10","secret"', "2 cells where 12 were expected; skipped"),
        (row().rpartition(",")[0], "11 cells where 12 were expected; skipped"),
        (row()[:-1], "a quote in the wrong place; skipped"),
    ],
)
def test_a_bad_row_leaves_the_others(line: str, why: str, tmp_path: pathlib.Path) -> None:
    found, rejected = read(tmp_path, export(row(), line, row(date="2026-06-11T00:00:00Z")))
    assert (len(found), rejected) == (2, [f"3: {why}"])
    assert "secret" not in "".join(rejected)


@pytest.mark.parametrize("kind", ["Errored, No Charge", "Aborted, Not Charged", "errored"])
def test_what_came_to_nothing_is_no_turn(kind: str, tmp_path: pathlib.Path) -> None:
    lines = (row(*[""] * 5, kind=kind, cost="Free"), row(*["0"] * 5, kind=kind, cost="Included"), row(kind=kind))
    assert read(tmp_path, export(*lines, row(*["0"] * 5, kind="Included", cost="-"))) == ([], [])


@pytest.mark.parametrize(
    ("kind", "cost", "expected"),
    [
        ("On-Demand", "0.33", "0.33"),
        ("On-Demand", "$1,234.50", "1234.5"),
        ("Usage-based", "$0.07", "0.07"),
        ("On-Demand", "NaN", None),
        ("On-Demand", "-", None),
        ("On-Demand", "0", None),
        ("On-Demand", "", None),
        # What the plan covers is unknown, not 0; the price beside it is what nobody paid.
        ("Included", "Included", None),
        ("Included", "0.12", None),
        ("Included in Business", "0.12", None),
        ("Free", "Free", None),
        ("User API Key", "0.12", None),
    ],
)
def test_costs(kind: str, cost: str, expected: str | None, tmp_path: pathlib.Path) -> None:
    [turn], rejected = read(tmp_path, export(row(kind=kind, cost=cost)))
    assert (turn.get("cost_usd"), turn.get("cost_source")) == (expected, "reported" if expected else None)
    assert not rejected


OLD_ROW = f"2026-06-10T12:55:01.730Z,gpt-5.5-medium,{','.join(COUNTS)},0.33,{{}}"
TEAM_ROW = row().replace('","', '","ada@example.com","', 1)


@pytest.mark.parametrize(
    ("content", "cost"),
    [
        (export(OLD_ROW.format("$0"), header=OLD), None),
        (export(OLD_ROW.format("$0.20"), header=OLD), "0.2"),
        (export(OLD_ROW.removesuffix(",{}"), header=OLD.removesuffix(",Cost to you")), "0.33"),
        (export(TEAM_ROW, header=TEAM), "0.33"),
        (b"\xef\xbb\xbf" + export(row(), end="\r\n"), "0.33"),
        (export(row(), header=",".join(f'"{name}"' for name in NEW.upper().split(","))), "0.33"),
        (export("", row(), "   ", ""), "0.33"),
        (export(row()).rstrip(), "0.33"),
    ],
)
def test_a_row_is_one_turn_in_every_layout(content: bytes, cost: str | None, tmp_path: pathlib.Path) -> None:
    [turn], rejected = read(tmp_path, content)
    [usual], _ = read(tmp_path, export(row()))
    assert turn["id"] == usual["id"] and not rejected
    assert (turn.get("cost_usd"), turn["provider"], turn["turns"]) == (cost, "openai", 1)
    assert not turn.keys() & {"session_id", "project"}
    assert "ada" not in str(turn), "whose row it is does not leave the export"


@pytest.mark.parametrize(
    ("date", "ts"),
    [
        ("2026-06-10T12:55:01.730Z", "2026-06-10T12:55:01.730Z"),
        ("2026-06-10 12:55:01", "2026-06-10T12:55:01.000Z"),
        ("2026-06-10T12:55:01+02:00", "2026-06-10T10:55:01.000Z"),
        ("2026-06-10", "2026-06-10T00:00:00.000Z"),
        # As a spreadsheet saves it, in this machine's zone.
        ("6/10/2026 14:55", "2026-06-10T12:55:00.000Z"),
        ("6/10/2026, 2:55:01 PM", "2026-06-10T12:55:01.000Z"),
        ("Jun 10, 2026, 02:55 PM", "2026-06-10T12:55:00.000Z"),
    ],
)
def test_when(date: str, ts: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert [turn["ts"] for turn in read(tmp_path, export(row(date=date)))[0]] == [ts]


def test_overlapping_exports_count_once(run: Run, environment: dict[str, str]) -> None:
    """Equal rows of one export are requests of their own, those of two exports the same ones."""
    for _ in steps(pathlib.Path(environment["HOME"])):
        run("tok-sync")
    for source in ("tok-read cursor", "tok-cat"):
        found = objects(run(source).stdout)
        assert len(found) == len({turn["id"] for turn in found}) == 5
        assert sorted(turn["id"].count(":") for turn in found) == [1, 1, 1, 1, 2]
    rows = objects(run("tok-read cursor | tok-rollup --by client").stdout)
    assert sum(row["turns"] for row in rows) == 5


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty; skipped"),
        (b"\n \n", "empty; skipped"),
        (b"Date,Model\n", "not a usage export of Cursor with token counts: no column 'input (w/o cache write)'; skipped"),
        (b'"Date\n', "not a usage export of Cursor with token counts: no column 'date'; skipped"),
    ],
)
def test_another_table_is_refused(content: bytes, why: str, run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "x.csv", content)
    assert run("tok-read cursor --root x.csv", status=1).stderr == f"tok-read: x.csv: {why}\n".encode()


def test_the_place_can_be_named(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "a/june.csv", export(row()))
    put(tmp_path / "a/family.csv", b"name,age\n")
    put(tmp_path / "a/deep/july.csv", export(row(date="2026-07-01T00:00:00Z")))
    put(tmp_path / "b.csv", export(row(date="2026-08-01T00:00:00Z")))
    named = run("tok-read cursor", env={"CURSOR_USAGE_DIR": f"{tmp_path}/a,{tmp_path}/b.csv"})
    assert [turn["ts"][:7] for turn in objects(named.stdout)] == ["2026-06", "2026-08"] and not named.stderr
    assert len(objects(run("tok-read --root b.csv").stdout)) == 1
    assert len(objects(run("tok-read cursor --root a").stdout)) == 1
