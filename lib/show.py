"""Renders rows for people and for programs: tables, JSON Lines, CSV, Markdown.

JSON is plumbing and stable; tables are porcelain. Only tables load the library that lays them out (48 ms).

Names in logs come from whatever was cloned and whatever a gateway answered: none of them may steer a terminal, begin a row
or be a spreadsheet's formula.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, TextIO

from tokenops import jsonl
from tokenops.events import Event


class Column(NamedTuple):
    """A table's column: heading, cells, and whether they are numbers."""

    title: str
    cells: Sequence[str]
    number: bool = True


# Control characters (C0, DEL, C1), line and paragraph separators, marks that turn the direction of text, half characters.
_STEERING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_STEERS = re.compile(f"[{_STEERING}]")
_STEERS_IN_TEXT = re.compile(f"(?![\n\t])[{_STEERING}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BOLD_LINE = re.compile(r"(?m)^\x1b\[1m([^\n]*)\x1b\[0m$")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def safe(text: str) -> str:
    """A name or a sentence with every character that could steer a terminal written out, as `\\x1b` or `\\n`."""
    return text if text.isascii() and text.isprintable() else _STEERS.sub(_escape, text)


def safe_text(text: str) -> str:
    """A text of several lines, as `safe` makes it; ends of lines, tabs and the bold lines of `table` stay."""
    if "\x1b" not in text:
        return _STEERS_IN_TEXT.sub(_escape, text)
    parts = _BOLD_LINE.split(text)  # every second part is what stands in a bold line
    parts = [_STEERS_IN_TEXT.sub(_escape, part) for part in parts]
    return "".join(f"\x1b[1m{part}\x1b[0m" if at % 2 else part for at, part in enumerate(parts))


# What JSON may hold raw in a string: all that steers but C0, of which a table's bold lines and line ends are made.
_STEERS_IN_JSON = re.compile(f"(?![\\x00-\\x1f\\ud800-\\udfff])[{_STEERING}]")


class _Terminal(io.BufferedWriter):
    """The bytes of a terminal's stdout: in JSON, `\\u009b` stands for a character that could steer it."""

    def write(self, data: Any, /) -> int:
        """Write whole lines, or a text that `Output` made safe."""
        text = bytes(data).decode(errors="surrogateescape")
        safe_json = _STEERS_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
        super().write(safe_json.encode(errors="surrogateescape"))
        return len(data)


class Output(io.TextIOWrapper):
    """Stdout for text: nothing that is printed steers the terminal, and "?" stands for what its encoding lacks."""

    def __init__(self, stream: TextIO) -> None:
        assert isinstance(stream, io.TextIOWrapper)
        encoding, by_line, at_terminal = stream.encoding, stream.line_buffering, stream.isatty()
        buffer: BinaryIO = stream.detach()
        if at_terminal:
            buffer = _Terminal(buffer.detach() if isinstance(buffer, io.BufferedWriter) else buffer)
        super().__init__(buffer, encoding, "replace", line_buffering=by_line)

    def write(self, text: str, /) -> int:
        """Write a text."""
        return super().write(safe_text(text))


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


def table(columns: Sequence[Column], shape: str, totals: bool = False, color: bool = False) -> str:
    """A table for a terminal (`table`), or in `markdown` or `csv`. The last row may be a total."""
    titles = [safe(column.title) for column in columns]
    body = [list(map(safe, row)) for row in zip(*(column.cells for column in columns), strict=True)]
    if shape == "csv":
        return _csv_text([titles, *body])
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
