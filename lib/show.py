"""Renders rows for people and for programs: tables, JSON Lines, CSV, Markdown.

JSON is plumbing and stable; tables are porcelain and fit the terminal. Only Markdown loads a library to lay it out.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from tokenops import jsonl, show_layout
from tokenops.events import Event
from tokenops.show_layout import Column
from tokenops.show_terminal import Output, paint, plain, safe, safe_text, segments, shorten, text_width, width, wrap

__all__ = ["Column", "Output", "paint", "plain", "safe", "safe_text", "segments", "shorten", "text_width", "width", "wrap"]


_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\Z", re.ASCII)


def _csv_cell(text: str) -> str:
    """A cell that a spreadsheet takes for text or for a number, never for a formula."""
    shown = safe(text)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") and not _NUMBER.match(shown) else shown


def _csv_text(rows: Iterable[Iterable[str]]) -> str:
    import csv

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(_csv_cell, row) for row in rows)
    return out.getvalue()


def lines(rows: Iterable[Event], out: BinaryIO) -> None:
    """JSON Lines."""
    jsonl.write(rows, out)


def table(columns: Sequence[Column], shape: str, totals: bool = False, color: bool = False, fits: bool = True) -> str:
    """A table for a terminal (`table`), or in `markdown` or `csv`. The last row may be a total.

    `fits`: at a terminal, no line is longer than the terminal is wide.
    """
    titles = [safe(column.title) for column in columns]
    body = [list(map(safe, row)) for row in zip(*(column.cells for column in columns), strict=True)]
    if shape == "csv":
        return _csv_text([titles, *body])
    if shape == "markdown":
        import tabulate

        align = ["right" if column.number else "left" for column in columns]
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in body]
        return tabulate.tabulate(escaped, titles, tablefmt="github", disable_numparse=True, colalign=align) + "\n"
    return "\n".join(show_layout.lines(columns, width() if fits else None, totals, color)) + "\n"


def table_lines(columns: Sequence[Column], width: int) -> list[str]:
    """The heading and the rows of a table of at most so many columns, without a rule and notes, for a screen."""
    count = len(columns[0].cells)
    head, _, *rest = show_layout.lines(columns, width, False, True)
    return [head, *rest[:count]]


def records(rows: Iterable[Event], shape: str) -> str:
    """Records as exact `csv`, or in `markdown`: a column for each field, also of objects in them (`metrics.turns`).

    Lists are JSON. A field that a record lacks is empty.
    """
    flat = [dict(_fields(row, "")) for row in rows]
    names = [name for name in dict.fromkeys(name for row in flat for name in row) if name != "v"]
    cells = [[row.get(name, "") for row in flat] for name in names]
    if not flat:
        return ""
    return table([Column(name, column, number=False) for name, column in zip(names, cells, strict=True)], shape)


def _fields(row: Mapping[str, object], above: str) -> Iterator[tuple[str, str]]:
    """Name and text of each field of a record."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{above}{name}.")
        elif value is None or isinstance(value, str):
            yield f"{above}{name}", value or ""
        else:
            yield f"{above}{name}", jsonl.value_text(value)


def count(value: int) -> str:
    """A count with thousands separators; nothing for 0."""
    return f"{value:,}" if value else ""


def compact(value: float) -> str:
    """A number in at most five characters or so: 950, 1.2k, 34M, 2.5B."""
    size = abs(value)
    for limit, unit, suffix in ((999.5, 1.0, ""), (999.5e3, 1e3, "k"), (999.5e6, 1e6, "M"), (999.5e9, 1e9, "B")):
        if size < limit:
            return digits(value / unit) + suffix
    return f"{value / 1e12:.3g}T" if size < 1e15 else f"{value:.2g}"


def digits(value: float) -> str:
    """A number with about three significant digits: 0.012, 0.25, 1.2, 34.2, 950."""
    size = abs(value)
    decimals = 0 if size >= 99.95 or not size else 1 if size >= 0.995 else min(1 - math.floor(math.log10(size)), 12)
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


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
