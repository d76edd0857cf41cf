"""Reads other programs' SQLite databases without disturbing them.

What was written a moment ago is in a file beside the database (-wal) until SQLite moves it. If a program holds the lock,
we wait a little. Nothing is ever written beside the database.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenops import events, regular, when

if TYPE_CHECKING:
    import sqlite3

_ENDINGS = (".db", ".sqlite", ".sqlite3", ".vscdb")
_WAIT_S = 2.0
_DAMAGED = "not a readable SQLite database (damaged, encrypted or truncated); skipped"


class Stamp(NamedTuple):
    """A file's state; two equal stamps mean that nothing was written in between."""

    inode: int
    size: int
    mtime: int


def is_database(path: str) -> bool:
    """Whether a file is read as a database."""
    return path.endswith(_ENDINGS)


def stamp(path: str) -> Stamp:
    """A file's stamp; a database's includes the write-ahead log beside it. Raises OSError."""
    status = os.stat(path)
    size, changed = status.st_size, status.st_mtime_ns
    if is_database(path):
        with contextlib.suppress(OSError):
            beside = os.stat(f"{path}-wal")
            size, changed = size + beside.st_size, max(changed, beside.st_mtime_ns)
    return Stamp(status.st_ino, size, changed)


def written_at(path: str) -> int:
    """When a database was last written, in milliseconds. Raises OSError.

    No row changed later. A row that says so was written while the clock was wrong: who read on from its time would pass
    over all changes until then.
    """
    return max(stamp(path).mtime // 1_000_000, 0)


def datetime_text(at: int) -> str:
    """A time in milliseconds as SQLite's own function `datetime` writes it."""
    return when.stamp(at)[:19].replace("T", " ")


@contextlib.contextmanager
def open_database(path: str) -> Iterator[sqlite3.Connection]:
    """A database for reading, its rows as mappings. Raises OSError, and BadRecord if it cannot be read."""
    import sqlite3

    os.stat(path)
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(_connect(path))
        except sqlite3.Error as error:
            if "locked" in str(error) or "busy" in str(error):
                raise OSError(errno.EBUSY, "locked by another program; run again when that has finished") from None
            raise events.BadRecord(_reason(error)) from None
        except UnicodeDecodeError:  # SQLite names the damage in its message, in the damaged bytes themselves
            raise events.BadRecord(_DAMAGED) from None


def _reason(error: Exception) -> str:
    """SQLite's error as a sentence for the user, without anything that is in a row."""
    message = str(error)
    if "not a database" in message or "malformed" in message or "encrypted" in message:
        return _DAMAGED
    return f"cannot be read as a database ({type(error).__name__}); skipped"


@contextlib.contextmanager
def _connect(path: str) -> Iterator[sqlite3.Connection]:
    import sqlite3

    with contextlib.ExitStack() as stack:
        # Opening a database in WAL mode creates files beside it. If the log is empty, the file alone is complete.
        options = "mode=ro&immutable=1" if _whole(path) else "mode=ro"
        try:
            connection = stack.enter_context(_connection(path, options))
        except sqlite3.OperationalError as error:
            if "unable to open" not in str(error) or not os.access(path, os.R_OK):
                raise
            # A folder that we may not write to, and a write-ahead log in it: read a private copy of both.
            import shutil  # with tempfile 3 ms, which reports need not wait for
            import tempfile

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            copy = os.path.join(folder, "copy.db")
            for ending in ("", "-wal"):
                shutil.copyfile(path + ending, copy + ending)
            connection = stack.enter_context(_connection(copy, "mode=rw"))
        yield connection


def _whole(path: str) -> bool:
    """Whether a database is in WAL mode and its log is empty."""
    with open(path, "rb", buffering=0, opener=regular.opener) as file:
        head = file.read(20)
    try:
        waiting = os.stat(f"{path}-wal").st_size
    except OSError:
        waiting = 0
    return head[18:20] == b"\2\2" and not waiting


@contextlib.contextmanager
def _connection(path: str, options: str) -> Iterator[sqlite3.Connection]:
    import sqlite3
    from urllib.parse import quote  # 3 ms that most runs need not wait for

    uri = f"file:{quote(os.path.abspath(path))}?{options}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_S)) as connection:
        connection.text_factory = lambda data: data.decode(errors="replace")
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA schema_version").fetchone()
        yield connection


def columns(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    """The names of a table's columns; none if there is no such table.

    Raises BadRecord for a view: its rows are computed, and need have no end.
    """
    kinds = connection.execute("SELECT type FROM sqlite_master WHERE name = ?", (table,)).fetchall()
    if any(row["type"] == "view" for row in kinds):
        raise events.BadRecord(f"{table} is a view where a table was expected; skipped")
    return frozenset(row["name"] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)))


def select(connection: sqlite3.Connection, table: str, *names: str, where: str = "1", values: tuple[Any, ...] = ()) -> Any:
    """Rows with the named columns, in order of row id; NULL for a column that this version of the table lacks."""
    there = columns(connection, table)
    selected = ", ".join(f'"{name}"' if name in there else f'NULL AS "{name}"' for name in names)
    return connection.execute(f'SELECT {selected} FROM "{table}" WHERE {where}', values)
