"""Writes a folder for DuckDB, Spark, Trino or BigQuery, with one file per day and machine.

The files are date=2026-11-21/MACHINE.jsonl.gz, or .parquet.

A file is written whole and renamed, so a reader sees the old or the new one. A repeated run writes the same file, so
nothing is duplicated. Records of pruned days stay. Object stores take the folder as it is (`rclone sync`, `aws s3
sync`, a mounted bucket).
"""

from __future__ import annotations

import gzip
import importlib
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import orjson

from tokenops import datadir, jsonl, regular, ship_rows, store
from tokenops.ship_rows import Row

_UNSAFE = re.compile(r"[^\w.-]")


class NoEngine(ValueError):
    """What the format needs is not installed."""


class Folder:
    """A folder of one machine's files (ship_targets.DayStore)."""

    def __init__(self, path: str, machine: str, form: str, tags: Collection[str] = ()) -> None:
        self.path, self.form, self.columns = path, form, ship_rows.columns(tags)
        self.name = f"{_UNSAFE.sub('_', machine)}.{'parquet' if form == 'parquet' else 'jsonl.gz'}"

    def path_of(self, day: str) -> str:
        """The file of a day."""
        return os.path.join(self.path, f"date={day}", self.name)

    def read(self, day: str) -> list[Row]:
        """The rows of a day's file; none if there is no file. Raises NoEngine, OSError, ValueError."""
        try:
            with open(self.path_of(day), "rb", opener=regular.opener) as file:
                data = file.read()
        except FileNotFoundError:
            return []
        if self.form == "parquet":
            rows: list[Row] = _parquet().read_table(io.BytesIO(data)).to_pylist()
            return rows
        return [orjson.loads(line) for line in gzip.decompress(data).splitlines()]

    def write(self, day: str, rows: list[Row]) -> None:
        """Write a day's file whole. Raises NoEngine, OSError."""
        lines = b"".join(map(ship_rows.line_of, rows))
        content = _table(rows, self.columns) if self.form == "parquet" else gzip.compress(lines, 6, mtime=0)
        os.makedirs(os.path.dirname(self.path_of(day)), exist_ok=True)
        datadir.replace(self.path_of(day), content)


def merged_lines(lines: Iterable[bytes], same: Mapping[str, str], shipped: Iterable[Row]) -> Iterator[bytes]:
    """The records of a day: those that were shipped before and those of the log, each once, in order of time."""
    records = store.DayRecords()
    for row in shipped:
        name = same.get(row["id"], row["id"])
        records.add(name, jsonl.line_of(ship_rows.event_of(row) | {"id": name}))
    for line in lines:
        records.add_line(line)
    yield from sorted(records.lines.values())


def _parquet() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")  # optional: tokenops[parquet]
    except ImportError:
        raise NoEngine("Parquet needs pyarrow: install tokenops[parquet], or use format jsonl") from None


def _table(rows: list[Row], kinds: Mapping[str, str]) -> bytes:
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
    columns = [pyarrow.array([row.get(name, empty[kind]) for row in rows], types[kind]) for name, kind in kinds.items()]
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_arrays(columns, list(kinds)), out, compression="zstd")
    return out.getvalue()
