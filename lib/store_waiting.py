"""Keeps records that could not be written to the log, in files beside it, until somebody can."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable

from tokenops import datadir, fields, jsonl, machines, regular, store

FOLDER = "waiting"  # in the log's


def keep(folder: str, lines: Iterable[bytes]) -> None:
    """Put lines into a file beside the log. Raises OSError."""
    own = datadir.ensure_folder(os.path.join(datadir.ensure_folder(folder), FOLDER))
    datadir.replace(os.path.join(own, f"{time.time_ns()}-{os.getpid()}.jsonl"), b"".join(lines))


def take(folder: str, patience: float = datadir.PATIENCE_S, owner: machines.Owner = machines.NOBODY) -> None:
    """Write to the log what an earlier time could not, as what its `owner` saw. Raises OSError."""
    own = os.path.join(folder, FOLDER)
    try:
        names = sorted(name for name in os.listdir(own) if name.endswith(".jsonl"))
    except OSError:
        names = []
    for name in names:
        path = os.path.join(own, name)
        with open(path, "rb", opener=regular.opener) as file:
            records = [record for line in file for record in jsonl.parse(line, lambda why: None)]
        lines = [jsonl.line_of(record) for record in records if not fields.fault(record)]
        store.append(folder, lines, patience=patience, owner=owner)
        with contextlib.suppress(FileNotFoundError):  # another process was as fast
            os.unlink(path)
