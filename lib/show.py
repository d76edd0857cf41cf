"""Renders rows for people and for programs: tables, JSON Lines, CSV, Markdown.

JSON is plumbing and stable; tables are porcelain. Only tables load the library that lays them out (48 ms).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple

from tokenops import jsonl
from tokenops.events import Event


class Column(NamedTuple):
    """A table's column: heading, cells, and whether they are numbers."""

    title: str
    cells: Sequence[str]
    number: bool = True


def lines(rows: Iterable[Event], out: BinaryIO) -> None:
    """JSON Lines."""
    jsonl.write(rows, out)


def table(columns: Sequence[Column], shape: str, totals: bool = False, color: bool = False) -> str:
    """A table for a terminal (`table`), or in `markdown` or `csv`. The last row may be a total."""
    titles = [column.title for column in columns]
    body = [list(row) for row in zip(*(column.cells for column in columns), strict=True)]
    if shape == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([titles, *body])
        return text.getvalue()
    import tabulate

    align = ["right" if column.number else "left" for column in columns]
    if shape == "markdown":
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in body]
        return tabulate.tabulate(escaped, titles, tablefmt="github", disable_numparse=True, colalign=align) + "\n"
    rows: list[object] = list(body)
    if totals and len(rows) > 1:
        rows.insert(len(rows) - 1, tabulate.SEPARATING_LINE)
    text_table = tabulate.tabulate(rows, titles, tablefmt="simple", disable_numparse=True, colalign=align)  # type: ignore[arg-type]
    if color:
        out = text_table.split("\n")
        out[0] = f"\x1b[1m{out[0]}\x1b[0m"
        if totals:
            out[-1] = f"\x1b[1m{out[-1]}\x1b[0m"
        text_table = "\n".join(out)
    return text_table + "\n"


def count(value: int) -> str:
    """A count with thousands separators; nothing for 0."""
    return f"{value:,}" if value else ""


def money(text: str | None) -> str:
    """An exact amount of USD to the cent, or to two significant digits if it is less."""
    if text is None:
        return ""
    from decimal import ROUND_HALF_UP, Decimal

    amount = Decimal(text)
    if amount and abs(amount) < Decimal("0.01"):
        digits = 1 - amount.adjusted()
        return f"${amount.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"
    return f"${amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,f}"


def percent(part: int, whole: int) -> str:
    """A share with one digit; nothing if there is no whole."""
    return f"{100 * part / whole:.1f}%" if whole else ""


def short_text(text: str, most: int = 80) -> str:
    """A text that somebody gave, short enough for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def nearest(word: str, words: Iterable[str]) -> str:
    """The known word most like another."""
    import difflib  # takes 3 ms, and only a typing error needs it

    matches = difflib.get_close_matches(word, sorted(words), 1, 0)
    return matches[0] if matches else ""
