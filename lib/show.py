"""Renders rows for people and for programs: tables, JSON Lines, CSV, Markdown.

JSON is plumbing and stable; tables are porcelain and fit the terminal. Only Markdown loads a library to lay it out.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from tokenops import jsonl, light, show_layout
from tokenops.events import Event
from tokenops.show_layout import Column
from tokenops.show_terminal import Output, height, paint, plain, safe, safe_text, segments, shorten, text_width, width, wrap

__all__ = [
    "Column",
    "Output",
    "height",
    "paint",
    "plain",
    "safe",
    "safe_text",
    "segments",
    "shorten",
    "text_width",
    "width",
    "wrap",
]


_NUMBER = light.pattern(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\Z", re.ASCII)


# With these a formula begins, also in their full width (U+FF1D and others), which spreadsheets in East Asia take for them.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def _csv_cell(text: str) -> str:
    """A cell that a spreadsheet takes for text or for a number, never for a formula."""
    shown = safe(text)
    return f"'{shown}" if shown.startswith(_FORMULA) and not _NUMBER.match(shown) else shown


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
    head, _, *rest = show_layout.lines([column._replace(prose=False) for column in columns], width, False, True)
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


# So many lines of a remark are shown without -v.
MOST_LINES = 4


def notes(texts: Iterable[str], shape: str, color: bool, verbose: bool) -> str:
    """Remarks below a table: the first, dim, and how many more `verbose` shows; in Markdown each.

    It takes at most MOST_LINES: that is enough for two sentences at 80 columns.
    """
    lines = list(dict.fromkeys(map(safe, texts)))
    if not lines or shape == "csv":
        return ""
    most = width() if shape == "table" else None
    if verbose or shape != "table":
        return "".join(f"{line}\n" for text in lines for line in wrap(text, most, "  "))
    more = f" (and {len(lines) - 1} more; -v shows all)" if len(lines) > 1 else ""
    shown = wrap(lines[0] + more, most, "  ")
    if most is not None and len(shown) > MOST_LINES:
        more = more or " (-v shows all)"
        texts = wrap(lines[0], most, "  ")
        last = "  " + " ".join(line.strip() for line in texts[MOST_LINES - 1 :])
        shown = [*texts[: MOST_LINES - 1], shorten(last, most - len(more)) + more]
    return "".join(paint(line, "dim", color) + "\n" for line in shown)


def counts(title: str, values: Sequence[int | None], rank: int = 1, heading: str = "") -> Column:
    """A column of counts; nothing for 0 and None."""
    cells, short = ([text(value) if value else "" for value in values] for text in (count, compact))
    return Column(title, cells, rank=rank, short=short, heading=heading)


def amounts(
    title: str, values: Sequence[str | None], partial: Sequence[bool] = (), rank: int = 0, heading: str = ""
) -> Column:
    """A column of exact amounts of USD; `partial`: which of them lack something, marked with a +. None is "unknown"."""
    marks = ["+" if lacks else "" for lacks in partial] or [""] * len(values)
    most = max((abs(float(value)) for value in values if value), default=0.0)
    cells, short = (
        [
            "unknown" if value is None else _amount(value, text, most >= 1) + mark
            for value, mark in zip(values, marks, strict=True)
        ]
        for text in (money, short_money)
    )
    return Column(title, cells, rank=rank, short=short, heading=heading)


def _amount(value: str | None, text: Callable[[str], str], to_the_cent: bool) -> str:
    if not value:
        return "unknown" if value is None else ""
    return "<$0.01" if to_the_cent and 0 < float(value) < 0.01 else text(value)


# What rows can be ordered by -> its value in a row.
Orders = Mapping[str, Callable[[Event], Any]]


def by_order(rows: Sequence[Event], name: str, orders: Orders) -> list[Event]:
    """Rows by one of `orders` or by a field: the greatest number first, texts from A to Z, those without it last.

    Raises ValueError.
    """
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    value_of = orders.get(key)
    if value_of is None and any(key in row for row in rows):
        value_of = functools.partial(_field, key)
    if value_of is None:
        near = nearest(key, orders)
        raise ValueError(f"no such column; did you mean {near}? There are {', '.join(orders)}")
    keyed = [(value_of(row), row) for row in rows]
    first = [pair for pair in keyed if pair[0] not in (None, "")]
    first.sort(key=lambda pair: pair[0], reverse=not all(isinstance(value, str) for value, _ in first))
    return [row for _, row in first] + [row for value, row in keyed if value in (None, "")]


def _field(name: str, row: Event) -> Any:
    """A field's value, to compare it with others'; amounts of money are texts in a record."""
    value = row.get(name)
    if name.endswith("_usd") and value is not None:
        from decimal import Decimal

        return Decimal(value)
    return value if value is None or isinstance(value, (int, float)) else str(value)


def more(rows: int, usd: str | None) -> str:
    """What a table leaves out: and 17 more, $3.10."""
    return f"and {rows:,} more" + (f", {money(usd)}" if usd else "")


def plural(number: int, noun: str) -> str:
    """A number of things: 1 turn, 1,200 turns."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


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


def short_money(text: str | None) -> str:
    """An amount of USD in few characters: $0.0042, $3.10, $310, $1.2k."""
    if not text:
        return ""
    amount = float(text)
    return money(text) if abs(amount) < 99.995 else f"${compact(amount)}" if amount > 0 else f"$-{compact(-amount)}"


def short_ids(ids: Iterable[str], least: int = 8) -> dict[str, str]:
    """Identifier -> its beginning, of at least so many characters and as many as no other of them begins with."""
    listed = sorted(set(ids))
    short = {}
    for at, name in enumerate(listed):
        near = [listed[other] for other in (at - 1, at + 1) if 0 <= other < len(listed)]
        length = least
        while any(other.startswith(name[:length]) for other in near) and length < len(name):
            length += 1
        short[name] = name[:length]
    return short


# A model's day, at the end of its name.
_DAY = light.pattern(r"-(?:\d{8}|\d{4}-\d\d-\d\d)\Z", re.ASCII)


def short_models(names: Iterable[str]) -> dict[str, str]:
    """Name of a model -> the same without the day at its end, where no other of them is left with that."""
    bare = {name: _DAY.sub("", name) for name in names}
    counts: dict[str, int] = {}
    for name in bare.values():
        counts[name] = counts.get(name, 0) + 1
    return {name: short if counts[short] == 1 else name for name, short in bare.items()}


def percent(part: int, whole: int) -> str:
    """A share with one digit; nothing if there is no whole."""
    return f"{100 * part / whole:.1f}%" if whole else ""


def short_text(text: str, most: int = 80) -> str:
    """A text that somebody gave, short enough for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def nearest(word: str, words: Iterable[str], likeness: float = 0.0) -> str:
    """The known word most like another, if it is at least so much like it (0 to 1); else ""."""
    import difflib  # takes 3 ms, and only a typing error needs it

    matches = difflib.get_close_matches(word, sorted(words), 1, likeness)
    return matches[0] if matches else ""


def meant(word: str, words: Iterable[str]) -> str:
    """`; did you mean X?`, for a word that is mistyped; "" if none is like it."""
    match = nearest(word, words, 0.7)
    return f"; did you mean {match}?" if match else ""
