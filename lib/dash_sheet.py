"""Defines a table of the page once: its columns and rows, their order by the address, its HTML, and its exact CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from tokenops import dash_query, show
from tokenops.dash_html import Html, tag
from tokenops.dash_query import Ask
from tokenops.events import Event

# What a cell holds exactly: rows are sorted by it, and CSV holds it. None: unknown.
Exact = str | int | float | Decimal | None


class Column(NamedTuple):
    """A column: its name in addresses and in CSV, its heading, its exact value, its cell, and the class of its cells.

    Text in brackets in a heading gets its own line. A column without `cell` is in CSV only.
    """

    name: str
    title: str
    value: Callable[[Event], Exact]
    cell: Callable[[Event], object] | None = None
    kind: str = ""


class Sheet(NamedTuple):
    """A table. `rows` are in the usual order; `key` names a row, so that the script finds it; `most`: how many are shown."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Event]
    key: Callable[[Event], str]
    most: int = 0


# In which direction a column is sorted first, by whether its values are numbers.
_FIRST = {True: "down", False: "up"}


def in_order(sheet: Sheet, ask: Ask) -> Sequence[Event]:
    """The rows in the order that the address asks for; those without a value are last."""
    name, column, direction = _order(ask)
    by = next((each for each in sheet.columns if each.name == column), None) if name == sheet.name else None
    if by is None:
        return sheet.rows
    pairs = [(by.value(row), row) for row in sheet.rows]
    valued = [pair for pair in pairs if pair[0] not in (None, "")]
    valued.sort(key=lambda pair: _rank(pair[0]), reverse=direction == "down")
    return [row for _, row in (*valued, *(pair for pair in pairs if pair[0] in (None, "")))]


def _rank(value: Exact) -> tuple[bool, float | Decimal, str]:
    """Numbers by size and before texts, texts without regard to capitals."""
    if isinstance(value, str):
        return True, 0, value.casefold()
    return False, value or 0, ""


def _order(ask: Ask) -> tuple[str, str, str]:
    """The table that the address sorts, its column, and the direction."""
    name, _, rest = ask.sort.partition(".")
    column, _, direction = rest.partition(".")
    return name, column, direction


def table(sheet: Sheet, ask: Ask, live: bool) -> Html:
    """The table as HTML, which scrolls if it is too wide. `live`: its headings sort."""
    columns = [column for column in sheet.columns if column.cell is not None]
    rows = in_order(sheet, ask)
    most = dash_query.most_rows(ask, sheet.most)
    head = tag("tr", *(_heading(sheet, column, ask, live) for column in columns))
    body = [tag("tr", *_cells(columns, row), data_key=sheet.key(row)) for row in (rows[:most] if most else rows)]
    inner = tag("table", tag("caption", sheet.caption, class_="away"), tag("thead", head), tag("tbody", *body))
    return tag("div", inner, class_="scroll", id=sheet.name, tabindex=0, role="region", aria_label=sheet.caption)


def _cells(columns: Sequence[Column], row: Event) -> Iterator[Html]:
    for at, column in enumerate(columns):
        assert column.cell is not None
        element, scope = ("th", "row") if at == 0 else ("td", None)
        yield tag(element, column.cell(row), scope=scope, class_=column.kind or None)


def _heading(sheet: Sheet, column: Column, ask: Ask, live: bool) -> Html:
    """A heading; a click sorts by it, and the next one the other way round."""
    plain, bracket, more = column.title.partition(" (")
    words = (plain, tag("small", f" ({more}") if bracket else None)
    if not live or len(sheet.rows) < 2:
        return tag("th", *words, scope="col", class_=column.kind or None)
    name, by, direction = _order(ask)
    is_active = (name, by) == (sheet.name, column.name)
    first = _FIRST["n" in column.kind.split()]
    then = ({"down": "up", "up": "down"}[direction] if is_active else first) if direction in ("up", "down", "") else first
    link = tag("a", *words, href=dash_query.address(ask, sort=f"{sheet.name}.{column.name}.{then}"), class_="by")
    order = {"down": "descending", "up": "ascending"}[direction] if is_active else None
    return tag("th", link, scope="col", class_=column.kind or None, aria_sort=order)


def csv(sheet: Sheet, ask: Ask) -> str:
    """All rows in their order with exact values, escaped as the commands' CSV."""
    rows = in_order(sheet, ask)
    columns = [show.Column(column.name, [_text(column.value(row)) for row in rows]) for column in sheet.columns]
    return show.table(columns, "csv")


def _text(value: Exact) -> str:
    return "" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)


def csv_link(name: str, caption: str, ask: Ask, live: bool) -> Html | None:
    """The link to a table as CSV; none in a file of its own."""
    if not live:
        return None
    href = dash_query.address(ask, dash_query.CSV, table=name)
    return tag("a", "CSV", href=href, class_="get", download=f"{name}.csv", aria_label=f"{caption}, as CSV")


def more_link(sheet: Sheet, ask: Ask, live: bool) -> Html | None:
    """How many rows are not shown, and the link that shows them."""
    most = dash_query.most_rows(ask, sheet.most)
    if not most or len(sheet.rows) <= most:
        return None
    text = f"and {len(sheet.rows) - most:,} more"
    if not live:
        return tag("p", text, class_="sub")
    if most >= dash_query.MOST_ROWS:  # no page shows so many
        href = dash_query.address(ask, dash_query.CSV, table=sheet.name)
        return tag("p", tag("a", f"{text}, as CSV", href=href, download=f"{sheet.name}.csv"), class_="sub")
    href = f"{dash_query.address(ask, rows=str(dash_query.MOST_ROWS))}#{sheet.name}"
    return tag("p", tag("a", text, href=href, title=f"show up to {dash_query.MOST_ROWS} rows"), class_="sub")
