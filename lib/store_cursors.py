"""Reads and writes how far each source was read, and its parser's state there: the file cursors.json of the log."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import datadir

CURSORS = "cursors.json"
_VERSION = 1
_REVISION = re.compile(r'\{"revision":(\d+)')


class FileState(NamedTuple):
    """How far a file of a source was read, and how it looked then."""

    inode: int
    size: int
    mtime: int
    offset: int
    number: int
    head: str  # hashes of the first bytes and of those before the offset: is it still the same file?
    tail: str
    state: str  # as JSON: that of thousands of files is kept, and that of a few is looked at


def load(folder: str) -> dict[str, dict[str, FileState]]:
    """All cursors, by source and path. If they cannot be read there are none, and every file is read again."""
    data = datadir.read_json(os.path.join(folder, CURSORS))
    try:
        if data["v"] == _VERSION:
            return {
                source: {path: _file_state(fields) for path, fields in files.items()}
                for source, files in data["sources"].items()
            }
    except (TypeError, KeyError, AttributeError):
        pass
    return {}


def _file_state(fields: list[Any]) -> FileState:
    fields[-1] = state_text(fields[-1])
    return FileState(*fields)


def state_text(state: Any, revision: int = 0) -> str:
    """A parser's state as it is kept, its reader's revision first. Older versions kept it as it was."""
    if revision:
        state = {"revision": revision} | state | {"revision": revision}
    return state if type(state) is str else orjson.dumps(state).decode()


def revision_of(file: FileState) -> int:
    """The revision of the reader that read a file; 1 if it named none, as version 0.1.0. The state is not parsed."""
    match = _REVISION.match(file.state)
    return int(match[1]) if match else 1


def save(folder: str, cursors: Mapping[str, Mapping[str, FileState]]) -> None:
    """Keep all cursors. Raises OSError."""
    datadir.replace(os.path.join(folder, CURSORS), orjson.dumps({"v": _VERSION, "sources": cursors}, default=list))
