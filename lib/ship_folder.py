"""A folder for DuckDB, Spark, Trino, BigQuery: one file per day and machine, `date=2026-11-21/MACHINE.jsonl.gz`.

A file is written whole and renamed, so a reader sees the old one or the new one, and a run that is repeated writes the
same file: nothing is there twice. What a file holds and the log does not any more (pruned days) stays. Object stores take
the folder as it is (`rclone sync`, `aws s3 sync`, a mounted bucket).
"""

from __future__ import annotations

import gzip
import importlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import orjson

from tokenops import datadir, jsonl, ship_rows, store
from tokenops.ship_rows import Row

_UNSAFE = re.compile(r"[^\w.-]")


class NoEngine(ValueError):
    """What the format needs is not installed."""


def path_of(folder: str, day: str, machine: str, form: str) -> str:
    """Where the rows of a day and machine lie."""
    name = _UNSAFE.sub("_", machine)
    return os.path.join(folder, f"date={day}", f"{name}.{'parquet' if form == 'parquet' else 'jsonl.gz'}")


def joined(lines: Iterable[bytes], same: Mapping[str, str], known: Iterable[Row]) -> Iterator[bytes]:
    """The records of a day: those that were shipped before and those of the log, each once, in order of time."""
    records = store.DayRecords()
    for row in known:
        name = same.get(row["id"], row["id"])
        records.add(name, jsonl.line_of(ship_rows.event_of(row) | {"id": name}))
    for line in lines:
        records.add_line(line)
    yield from sorted(records.lines.values())


def read(path: str) -> list[Row]:
    """The rows of a file; none where there is no file. Raises NoEngine, OSError, ValueError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return []
    if path.endswith(".parquet"):
        found: list[Row] = _parquet().read_table(io.BytesIO(data)).to_pylist()
        return found
    return [orjson.loads(line) for line in gzip.decompress(data).splitlines()]


def write(path: str, rows: list[Row], form: str) -> int:
    """Write a day's file whole; how many bytes. Raises NoEngine, OSError."""
    content = _table(rows) if form == "parquet" else gzip.compress(b"".join(map(ship_rows.line_of, rows)), 6, mtime=0)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    datadir.replace(path, content)
    return len(content)


def _parquet() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")  # optional: tokenops[parquet]
    except ImportError:
        raise NoEngine("Parquet needs pyarrow: install tokenops[parquet], or use format jsonl") from None


def _table(rows: list[Row]) -> bytes:
    """Rows as a Parquet file, every column in it; amounts are decimal(38, 18)."""
    parquet = _parquet()
    pyarrow = importlib.import_module("pyarrow")

    types = {
        "text": pyarrow.string(),
        "flag": pyarrow.bool_(),
        "count": pyarrow.int64(),
        "money": pyarrow.decimal128(38, ship_rows.SCALE),
        "real": pyarrow.float64(),
    }
    empty: dict[str, Any] = {"text": "", "flag": False, "count": 0, "money": Decimal(0), "real": None}
    columns = [
        pyarrow.array([row.get(name, empty[kind]) for row in rows], types[kind]) for name, kind in ship_rows.COLUMNS.items()
    ]
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_arrays(columns, list(ship_rows.COLUMNS)), out, compression="zstd")
    return out.getvalue()
