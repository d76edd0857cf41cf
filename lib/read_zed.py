"""Reads the threads of Zed's own agent and returns a total per thread.

`threads.db` has a row per thread; its `data` is a JSON document, packed with zstd. `cumulative_token_usage` sums up all of
the thread's requests, and never falls when messages are taken back; `request_token_usage` has the last request of each
prompt only. A subagent is a thread of its own. Other programs' agents in Zed keep their own logs. (Zed's source,
crates/agent/src/db.rs and thread.rs, as of November 2026.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenops import events, jsonl, read_lines, read_packed, read_records, read_sqlite, untrusted
from tokenops.read_contract import FileReader, Intake

if TYPE_CHECKING:
    import sqlite3

SOURCE = "zed"
CLIENT = "zed"

_NAME = "threads.db"
_ROW = ("id", "updated_at", "created_at", "parent_id", "folder_paths", "folder_paths_order", "data_type", "data")
_MOST = 256 << 20  # of a thread, unpacked
_UNDATED = "the thread's start is not recorded: dated by its last change"


class Thread(NamedTuple):
    """What matters of a thread's document."""

    usage: untrusted.Raw
    is_whole: bool  # whether `usage` is of all requests
    model: str
    provider: str
    is_subagent: bool


def files(home: str) -> Iterator[str]:
    """The database of a folder of threads, or of Zed's folder above it."""
    for folder in (home, os.path.join(home, "threads")):
        path = os.path.join(folder, _NAME)
        if os.path.isfile(path):
            yield path
            return


def hints(home: str) -> Iterator[str]:
    """What the user should know of threads that cannot be read."""
    if not read_packed.can_unpack():
        for path in files(home):
            yield f"{path}: compressed threads are not read; {read_packed.ADVICE}"


def claims(path: str, head: bytes) -> bool:
    """Whether a file is Zed's database of threads."""
    named = os.path.basename(path) == _NAME or (b"data_type" in head and b"folder_paths" in head)
    return named and head.startswith(b"SQLite format 3\0")


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The totals of the threads that changed. Raises OSError, BadRecord."""
    with read_sqlite.open_database(path) as connection:
        if not {"id", "updated_at", "data_type", "data"} <= read_sqlite.columns(connection, "threads"):
            raise events.BadRecord("not a database of Zed's threads: it has no table of threads with their data; skipped")
        since = _resume(connection, cursor, read_sqlite.written_at(path))
        where = 'datetime("updated_at") IS NULL OR datetime("updated_at") >= ?' if since else "1"
        values = (since,) if since else ()
        can_unpack = read_packed.can_unpack()
        for record in read_sqlite.select(connection, "threads", *_ROW, where=where, values=values):
            row = dict(record)
            if row["data_type"] == "zstd" and not can_unpack:
                cursor.state["updated"] = since  # it is read again when it can be unpacked
                continue
            location = f"{path}:{untrusted.identity(row['id']) or 'a thread'}"
            try:
                total = _total(row, intake)
            except events.BadRecord as error:
                intake.on_bad_line(location, f"{str(error).removesuffix('; skipped')}; skipped")
                continue
            if total:
                intake.location = location
                yield total


def _resume(connection: sqlite3.Connection, cursor: read_lines.Cursor, written: int) -> str:
    """From what time of change to read, "" for all; the cursor is moved to the latest there is, but not after `written`."""
    mark = cursor.state.get("updated", "")
    latest = connection.execute("SELECT MAX(datetime(updated_at)) FROM threads").fetchone()[0]
    cursor.state["updated"] = min(untrusted.text(latest), read_sqlite.datetime_text(written))
    return mark if mark <= cursor.state["updated"] else ""  # else it is not the database that it was


def _total(row: dict[str, Any], intake: Intake) -> events.Event | None:
    """The total of a thread, if it used anything. Raises OSError, BadRecord."""
    name = untrusted.identity(row["id"])
    if not name:
        raise events.BadRecord("a thread without a name")
    thread = thread_of(_document(row["data_type"], row["data"]))
    counts = counts_of(thread.usage)
    if not counts:
        return None
    changed = untrusted.moment(row["updated_at"], "updated_at")
    began = untrusted.moment(row["created_at"], "created_at") if row["created_at"] else ""
    attribution = intake.attribution(SOURCE, CLIENT, folder_of(row["folder_paths"], row["folder_paths_order"]), "", name)
    if thread.is_subagent or untrusted.text(row["parent_id"]):
        attribution["sidechain"] = True
    partial = (
        {} if thread.is_whole else {"usage": "partial", "usage_reason": "only the last request of each prompt is recorded"}
    )
    return read_records.aggregate(
        began or changed,
        f"usage:{CLIENT}:{name}",
        attribution,
        thread.model,
        counts,
        thread.provider,
        observed_at=changed,
        caveat="" if began else _UNDATED,
        **partial,
    )


def folder_of(paths: object, order: object) -> str:
    """The first of a workspace's folders: they are kept in order of name, beside the position of each in the workspace."""
    folders = paths.split("\n") if isinstance(paths, str) else []
    positions = order.split(",") if isinstance(order, str) else []
    first = next((number for number, position in enumerate(positions) if position.strip() == "0"), 0)
    return untrusted.path(folders[first] if first < len(folders) else next(iter(folders), ""))


def _document(kind: object, data: object) -> untrusted.Raw:
    """A thread's document. Raises OSError, BadRecord."""
    content = data.encode(errors="replace") if isinstance(data, str) else data
    if not isinstance(content, bytes) or kind not in ("json", "zstd"):
        raise events.BadRecord("its data are of an unknown kind")
    if kind == "zstd":
        content = read_packed.unpack(content, _MOST)
    documents, why = jsonl.objects(content)
    if len(documents) != 1 or why:
        raise events.BadRecord(why or f"{len(documents)} objects where one was expected")
    return documents[0]


def thread_of(document: untrusted.Raw) -> Thread:
    """What matters of a thread's document. Raises BadRecord."""
    model = untrusted.mapping(document.get("model"))
    usage, is_whole = untrusted.mapping(document.get("cumulative_token_usage")), True
    if not counts_of(usage):
        requests = document.get("request_token_usage")
        several = list(requests.values()) if isinstance(requests, dict) else untrusted.items(requests)
        usage = _sum(untrusted.mapping(request) for request in several)
        is_whole = False
    return Thread(
        usage,
        is_whole,
        untrusted.text(model.get("model")),
        untrusted.text(model.get("provider")),
        bool(untrusted.mapping(document.get("subagent_context"))),
    )


_COUNTS = {
    "input_tokens": "input_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
    "output_tokens": "output_tokens",
}


def _sum(several: Iterator[untrusted.Raw]) -> dict[str, int]:
    total = dict.fromkeys(_COUNTS.values(), 0)
    for usage in several:
        for name in total:
            total[name] += untrusted.count(usage, name)
    return total


def counts_of(usage: untrusted.Raw) -> dict[str, int]:
    """The record's disjoint counts, which are Zed's too. Raises BadRecord."""
    counts = {name: untrusted.count(usage, key) for name, key in _COUNTS.items()}
    return {name: count for name, count in counts.items() if count}


READER = FileReader(SOURCE, CLIENT, files, claims, read, hints)
