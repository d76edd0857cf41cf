"""How far each source was read, and the state of its parser there: the file cursors.json of the log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import (
    datadir,
)

CURSORS = "cursors.json"


_VERSION = 1


class Held(NamedTuple):
    """What is remembered of a file: as it was when it was last read, and how far."""

    inode: int
    size: int
    mtime: int
    offset: int
    number: int
    head: str  # hashes of the first bytes and of those before the offset: is it still the same file?
    tail: str
    state: str  # as JSON: that of thousands of files is kept, and that of a few is looked at


def load(folder: str) -> dict[str, dict[str, Held]]:
    """All cursors, by source and path. What cannot be read counts as none: then everything is read again."""
    data = datadir.read_json(os.path.join(folder, CURSORS))
    try:
        if data["v"] == _VERSION:
            return {
                source: {path: _held(fields) for path, fields in files.items()} for source, files in data["sources"].items()
            }
    except (TypeError, KeyError, AttributeError):
        pass
    return {}


def _held(fields: list[Any]) -> Held:
    fields[-1] = state_text(fields[-1])
    return Held(*fields)


def state_text(state: Any) -> str:
    """A parser's state as it is kept. Older versions kept it as it was."""
    return state if type(state) is str else orjson.dumps(state).decode()


def save(folder: str, cursors: Mapping[str, Mapping[str, Held]]) -> None:
    """Keep all cursors. Raises OSError."""
    datadir.replace(os.path.join(folder, CURSORS), orjson.dumps({"v": _VERSION, "sources": cursors}, default=list))
