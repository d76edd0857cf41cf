"""Reads and writes how far each source was read, and its parser's state there: the file cursors.json of the log."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
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
    sources = (content(folder) or {}).get("sources")
    return {
        source: {path: state for path, fields in files.items() if (state := _file_state(fields)) is not None}
        for source, files in (sources.items() if type(sources) is dict else ())
        if type(files) is dict
    }


def content(folder: str) -> dict[str, Any] | None:
    """The content of the file; None if there is none, or it is damaged."""
    path = os.path.join(folder, CURSORS)
    data = datadir.kept_json(path)
    if data is None:
        data = datadir.read_json(path)  # of version 0.1.0, which wrote no checksum
    return data if type(data) is dict and data.get("v") == _VERSION else None


_TYPES = (int, int, int, int, int, str, str)


def _file_state(fields: Any) -> FileState | None:
    """The state of a file; None if that is not one, so that the file is read again."""
    if type(fields) is not list or len(fields) != len(_TYPES) + 1:
        return None
    if tuple(map(type, fields[:-1])) != _TYPES or not all(0 <= number < 1 << 64 for number in fields[:5]):
        return None
    try:
        text = state_text(fields[-1])
        return FileState._make([*fields[:-1], text]) if text[:1] == "{" and type(orjson.loads(text)) is dict else None
    except (TypeError, ValueError):
        return None


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
    datadir.keep_json(os.path.join(folder, CURSORS), {"v": _VERSION, "sources": cursors}, durable=True)


def remove_named(folder: str, texts: Collection[str]) -> None:
    """Remove the cursors of files in the paths of which one of some texts stands: they are read anew. Raises OSError.

    Of a file that is gone the parser's state may hold it, too.
    """
    cursors = load(folder)
    left = {
        source: {
            path: state
            for path, state in files.items()
            if not any(text in path or (text in state.state and not os.path.exists(path)) for text in texts)
        }
        for source, files in cursors.items()
    }
    if left != cursors:
        save(folder, left)
