"""Reads usage exports of Cursor's dashboard and returns turns.

Cursor keeps no counts on disk. Its dashboard exports them as CSV, a row per request. The user puts the file in
$XDG_DATA_HOME/tokenops/cursor or names it. In exports of 2026 the four token columns are disjoint and add up to "Total
Tokens"; "Input (w/ Cache Write)" has the cache writes. A row never changes, so the same one in two exports is one turn;
two equal rows of one export are two.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator

from tokenops import events, jsonl, read_lines, read_records, regular, untrusted, when
from tokenops.read_contract import FileReader, Intake

SOURCE = "cursor-csv"
CLIENT = "cursor"

_TOKENS = {
    "input_tokens": "input (w/o cache write)",
    "cache_read_tokens": "cache read",
    "cache_write_tokens": "input (w/ cache write)",
    "output_tokens": "output tokens",
}
_TOTAL = "total tokens"
_NEEDED = ("date", "model", *_TOKENS.values(), _TOTAL)
_FREE = ("errored", "aborted")  # kinds of requests that came to nothing
_BILLED = ("", "on-demand", "usage-based")  # kinds that are charged; others are covered by the plan or by a key
_COUNT = re.compile(r"\d{1,3}(,\d{3})+\Z|\d{1,15}\Z")
_LOCAL = ("%m/%d/%Y, %I:%M:%S %p", "%m/%d/%Y, %I:%M %p", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M",
          "%b %d, %Y, %I:%M:%S %p", "%b %d, %Y, %I:%M %p")  # fmt: skip
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")

Row = dict[str, str]


def files(home: str) -> Iterator[str]:
    """The exports in a directory, not below it: people may name their downloads folder."""
    try:
        names = sorted(os.listdir(home))
    except OSError:
        return
    for path in (os.path.join(home, name) for name in names if name.lower().endswith(".csv")):
        try:
            with open(path, "rb", opener=regular.opener) as file:
                head = file.read(4096)
        except OSError:
            continue
        if claims(path, head):
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is an export."""
    header = head.split(b"\n", 1)[0].lower()
    return b"input (w/o cache write)" in header and b"date" in header


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one export. Raises OSError, BadRecord."""
    data = read_lines.content(path)
    cursor.offset = len(data)
    attribution = intake.attribution(SOURCE, CLIENT, "", "", "")
    seen: dict[str, int] = {}
    for location, row in rows(path, data, intake):
        try:
            counts = counts_of(row)
            if not counts:
                continue
            ts = time_of(row["date"])
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        model = untrusted.text(row["model"])
        name = untrusted.occurrence_name(seen, events.digest(ts, model, counts))
        intake.location = location
        yield read_records.turn(ts, f"cursor:{name}", attribution, model, counts, "cursor", **cost_of(row))


def rows(path: str, data: bytes, intake: Intake) -> Iterator[tuple[str, Row]]:
    """Place and cells of each row. Raises BadRecord.

    Line by line: no cell of an export has a line break, and a lost quote must not swallow the lines after it.
    """
    import csv

    header: list[str] = []
    for number, line in enumerate(data.removeprefix(jsonl.BOM).split(b"\n"), 1):
        text = line.decode(errors="replace").strip()
        if not text:
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([text], strict=True), [])]
        except csv.Error:
            cells = []
        if not header:
            header = [cell.lower() for cell in cells]
            if missing := [name for name in _NEEDED if name not in header]:
                raise events.BadRecord(f"not a usage export of Cursor with token counts: no column {missing[0]!r}; skipped")
        elif len(cells) != len(header):
            why = f"{len(cells)} cells where {len(header)} were expected" if cells else "a quote in the wrong place"
            intake.on_bad_line(f"{path}:{number}", f"{why}; skipped")
        else:
            yield f"{path}:{number}", dict(zip(header, cells, strict=True))
    if not header:
        raise events.BadRecord("empty; skipped")


def counts_of(row: Row) -> dict[str, int]:
    """The record's disjoint counts; none for a request that failed. Raises BadRecord."""
    kind = row.get("kind", "").lower()
    if any(word in kind for word in _FREE):
        return {}
    counts = {name: _count(row[column], column) for name, column in _TOKENS.items()}
    total = _count(row[_TOTAL], _TOTAL)
    if not total and not any(counts.values()):
        if cost_of(row):
            raise events.BadRecord("a request that was charged for, without token counts")
        return {}
    if sum(counts.values()) != total:
        raise events.BadRecord(f"the token columns add up to {sum(counts.values())}, the total says {total}")
    return {name: count for name, count in counts.items() if count}


def _count(cell: str, column: str) -> int:
    if cell in ("", "-"):
        return 0
    if not _COUNT.match(cell):
        raise events.BadRecord(f"{column!r} is not a count")
    return int(cell.replace(",", ""))


def cost_of(row: Row) -> dict[str, str]:
    """The fields of a cost, if Cursor charged it. Rows that a plan covers have a price too, which was not charged."""
    if row.get("kind", "").lower() not in _BILLED:
        return {}
    cost = untrusted.usd(re.sub(r"[$,\s]", "", row["cost to you"] if "cost to you" in row else row.get("cost", "")))
    return {"cost_usd": cost, "cost_source": "reported"} if cost else {}


def time_of(cell: str) -> str:
    """A row's time: in UTC as exported, or as a spreadsheet shows it, then in this machine's zone. Raises BadRecord."""
    if _DATE.match(cell):
        cell += "T00:00:00Z"
    try:
        return untrusted.moment(cell, "date")
    except events.BadRecord:
        for form in _LOCAL:
            try:
                local = datetime.datetime.strptime(cell, form).replace(tzinfo=when.zone(None))
                return when.stamp(when.moment(local.isoformat()))
            except (ValueError, OverflowError):
                continue
        raise


READER = FileReader(SOURCE, CLIENT, files, claims, read)
