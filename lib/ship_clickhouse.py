"""Sends rows to ClickHouse over HTTP, as JSONEachRow, and reads its errors. The tables are in catalog/clickhouse.sql.

Works from 18.16 (Debian 12) on. That version needs decimals as bare numbers, and uses a column's default only if the
INSERT does not list the column, so `arrived` is not listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tokenops import catalog, etiquette, ship_rows, ship_targets
from tokenops.etiquette import Answer, Trouble
from tokenops.ship_rows import Row
from tokenops.ship_targets import Target

TABLE = "tokenops_events"
_CODE = re.compile(rb"Code: (\d+)")
# Codes of ClickHouse's ErrorCodes.cpp (names are stable since 2017; read 2026-11): the content of a row is at fault.
_BAD_CONTENT = frozenset((6, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 130, 131, 349, 407, 441))
_REMEDIES = {
    16: "a column is missing: run tok-ship TARGET --setup",
    47: "a column is missing: run tok-ship TARGET --setup",
    60: f"the table {TABLE} is missing: run tok-ship TARGET --setup",
    81: "the database does not exist: create it, or correct ?database= in the address",
    192: "the user does not exist: correct user in ship.targets",
    193: "the password is wrong: correct password in ship.targets",
    194: "a password is needed: set password in ship.targets",
    497: "this user may not write there: GRANT INSERT, or another user",
    516: "user or password is wrong: correct them in ship.targets",
}
# What ADD COLUMN answers if the column is there: versions before 19.1 do not know IF NOT EXISTS.
_THERE = frozenset((15, 44))
_BUSY = frozenset((159, 202, 209, 210, 241, 242, 252))  # too slow, too many, out of memory, read only, too many parts


class ClickHouse:
    """A ClickHouse server (ship_targets.Poster)."""

    def __init__(self, target: Target, send: ship_targets.Send, clock: Callable[[], int]) -> None:
        self.target, self.send, self.clock = target, send, clock

    def setup(self) -> int:
        """Create missing tables and columns, and the views anew; how many statements that took. Raises Trouble."""
        count = 0
        for statement in statements(_schema()):
            self._post("", statement.encode(), _THERE if statement.startswith("ALTER") else frozenset())
            count += 1
        return count

    def deliver(self, rows: list[Row]) -> None:
        """Insert rows; when this returns they are acknowledged. Raises Trouble."""
        query = f"INSERT INTO {TABLE} ({', '.join(ship_rows.columns(self.target.tags))}) FORMAT JSONEachRow"
        self._post(query, b"".join(ship_rows.line_of(row, bare=True) for row in rows))

    def add_day(self, day: str, rows: Iterable[Row]) -> None:
        """Nothing: the rows are all there is."""

    def finish(self) -> None:
        """Nothing: the rows are all there is."""

    def _post(self, query: str, body: bytes, harmless: Collection[int] = ()) -> None:
        """Run a query with what is sent. `harmless`: codes of errors that change nothing. Raises Trouble."""
        parts = urlsplit(self.target.url)
        fields = [*parse_qsl(parts.query), ("query", query)]
        url = urlunsplit((parts.scheme, parts.netloc, parts.path or "/", urlencode(fields), ""))
        answer = self.send(url, self.target.headers, body)
        if _code(answer.headers, answer.body) not in harmless:
            check_answer(answer, self.clock())


def check_answer(answer: Answer, now: int) -> Answer:
    """An answer that acknowledges; an error may come with status 200 once sending has begun. Raises Trouble."""
    code = _code(answer.headers, answer.body)
    if not code:
        return ship_targets.check_answer(answer, now)
    if code in _BAD_CONTENT:
        raise Trouble(ship_targets.BAD_ROWS, f"ClickHouse rejected it (code {code})")
    if code in _REMEDIES:
        raise Trouble(etiquette.REFUSED if code in (192, 193, 194, 497, 516) else etiquette.CHANGED, _REMEDIES[code])
    if code in _BUSY:
        raise Trouble(
            etiquette.FAILING, f"ClickHouse is busy or full (code {code})", etiquette.retry_ms(answer.headers, now)
        )
    raise Trouble(etiquette.FAILING, f"ClickHouse failed (code {code}); its own log says why")


def _code(headers: Mapping[str, str], body: bytes) -> int:
    stated = headers.get("x-clickhouse-exception-code", "")
    if stated.isdigit():
        return int(stated)
    match = _CODE.search(body[:4096]) if b"DB::" in body[:4096] else None
    return int(match[1]) if match else 0


def _schema() -> str:
    """The part of clickhouse.sql that --setup runs."""
    with open(os.path.join(catalog.FOLDER, "clickhouse.sql"), encoding="utf-8") as file:
        return file.read().partition("-- == queries ==")[0]


def statements(text: str) -> Iterator[str]:
    """The statements of some SQL, without their comments."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    for part in bare.split(";\n"):
        if part.strip().rstrip(";"):
            yield part.strip().rstrip(";")
