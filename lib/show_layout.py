"""Lays a table out for a terminal: numbers abbreviated, texts cut and columns left out until it fits.

A row takes one line, except that sentences (`prose`) go on below: cut, they say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tokenops import light
from tokenops.show_terminal import paint, safe, shorten, shorten_apart, text_width, wrap


class Column(NamedTuple):
    """A table's column: heading, cells, and whether they are numbers.

    `rank`: 0 for what a table is useless without; of the others, the highest is left out first. `short` and `heading`: the
    cells and the title once more, abbreviated, for a narrow terminal. `styles`: a style of `paint` for each cell, or "".
    `prose`: the cells are sentences, which go on in further lines, where a name would be cut.
    """

    title: str
    cells: Sequence[str]
    number: bool = True
    rank: int = 1
    short: Sequence[str] = ()
    styles: Sequence[str] = ()
    heading: str = ""
    prose: bool = False


GAP = "  "
# A text may be cut to this many columns before a column is left out, and to the second where nothing else helps.
LEAST, VERY_LEAST = 16, 6
# A sentence takes at most so many lines.
MOST_LINES = 3
# A number; what stands behind its digits: decimals, and the + of a sum that is not complete.
_DECIMAL = light.pattern(r"[-+<]?\$?[\d,]+((?:\.\d+)?\+?)", re.ASCII)


class _Laid(NamedTuple):
    """A column whose title and cells are what is printed, and its width."""

    column: Column
    title: str
    cells: list[str]
    width: int


def _laid(column: Column, short: bool = False) -> _Laid:
    cells = list(map(safe, column.short if short and column.short else column.cells))
    title = safe(column.heading if short and column.heading else column.title)
    if column.number:
        cells = _decimals_aligned(cells)
    return _Laid(column, title, cells, max(map(text_width, [title, *cells])))


def _decimals_aligned(cells: list[str]) -> list[str]:
    """Numbers with blanks behind them, so that decimal points stand below one another when they end at the right."""
    matches = [_DECIMAL.fullmatch(cell) for cell in cells]
    most = max((len(match[1] or "") for match in matches if match), default=0)
    return [cell + " " * (most - len(match[1] or "")) if match else cell for cell, match in zip(cells, matches, strict=True)]


def _total(parts: Sequence[_Laid]) -> int:
    return sum(part.width for part in parts) + len(GAP) * (len(parts) - 1)


def _narrow(parts: list[_Laid], width: int, least: int) -> list[_Laid]:
    """Columns of text made narrower, the widest first, until all fit or none is wider than `least`.

    Sentences first: they go on in further lines, where a name is cut.
    """
    while (excess := _total(parts) - width) > 0:
        texts = [at for at, part in enumerate(parts) if not part.column.number and part.width > least]
        texts = [at for at in texts if parts[at].column.prose] or texts
        if not texts:
            break
        by_width = sorted(texts, key=lambda at: -parts[at].width)
        widest = parts[by_width[0]].width
        next_width = parts[by_width[1]].width if len(by_width) > 1 else 0
        to = max(least, widest - excess, min(next_width, widest - 1))
        at = by_width[0]
        parts[at] = parts[at]._replace(width=to)
    return parts


def fit(columns: Sequence[Column], width: int | None) -> tuple[list[_Laid], list[str]]:
    """The columns as they are printed, and the titles of those that are left out. `width`: None if there is no limit.

    A column without any text is none, unless the table needs it.
    """
    columns = [column for column in columns if column.rank == 0 or any(column.cells)] or list(columns)
    parts = [_laid(column) for column in columns]
    if width is None or _total(parts) <= width:
        return parts, []
    parts = [_laid(column, short=column.rank > 0 or not column.number) for column in columns]
    dropped: list[str] = []
    while _total(_narrow(list(parts), width, LEAST)) > width:
        rank = max((part.column.rank for part in parts), default=0)
        if rank == 0:
            break
        last = max(at for at, part in enumerate(parts) if part.column.rank == rank)
        dropped.append(parts.pop(last).column.title)
    # What was left out made room: full numbers come back where they fit.
    full = [_laid(part.column) for part in parts]
    if _total(full) <= width:
        return full, dropped
    if _total(_narrow(list(parts), width, VERY_LEAST)) > width:
        parts = [_laid(part.column, short=True) for part in parts]
    return _narrow(_narrow(parts, width, LEAST), width, VERY_LEAST), dropped


def lines(columns: Sequence[Column], width: int | None, totals: bool, color: bool) -> list[str]:
    """The lines of a table, with last ones that name the columns left out. The last row may be a total."""
    parts, dropped = fit(columns, width)
    parts = [
        part if part.column.number or part.column.prose else part._replace(cells=shorten_apart(part.cells, part.width))
        for part in parts
    ]
    rows = len(columns[0].cells) if columns else 0
    rule = GAP.join("-" * part.width for part in parts)
    out = [paint(_line([part.title for part in parts], parts), "bold", color), rule]
    for row in range(rows):
        cells = [part.cells[row] for part in parts]
        if totals and rows > 1 and row == rows - 1:
            out += [rule, paint(_line(cells, parts), "bold", color)]
        else:
            styles = [part.column.styles[row] if color and part.column.styles else "" for part in parts]
            out += [_line(each, parts, styles) for each in _row_lines(cells, parts)]
    if dropped:
        out += [paint(line, "dim", color) for line in wrap(f"left out: {', '.join(dropped)} (--csv has all)", width)]
    return out


def _row_lines(cells: Sequence[str], parts: Sequence[_Laid]) -> list[list[str]]:
    """The cells of a row, line by line: sentences that are too long go on in the next."""
    by_cell = []
    for cell, part in zip(cells, parts, strict=True):
        texts = wrap(cell, part.width) if part.column.prose else [cell]
        by_cell.append([*texts[: MOST_LINES - 1], " ".join(texts[MOST_LINES - 1 :])] if len(texts) > MOST_LINES else texts)
    count = max(map(len, by_cell), default=1) or 1
    return [[texts[at] if at < len(texts) else "" for texts in by_cell] for at in range(count)]


def _line(cells: Sequence[str], parts: Sequence[_Laid], styles: Sequence[str] = ()) -> str:
    shown = []
    for at, (cell, part) in enumerate(zip(cells, parts, strict=True)):
        text = shorten(cell, part.width)
        blanks = " " * (part.width - text_width(text))
        painted = paint(text, styles[at] if styles else "")
        shown.append(blanks + painted if part.column.number else painted + blanks)
    return GAP.join(shown).rstrip()
