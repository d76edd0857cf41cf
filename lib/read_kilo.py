"""Reads Kilo's databases and tasks and returns turns.

The CLI, and the extension since 7, keep them in a database of opencode's kind (`kilo.db`). Earlier, the extension and
the CLI kept a folder per task; of its files `ui_messages.json` has the counts of each request, and
`api_conversation_history.json` names the model and the directory sent with the prompt. Nothing else is read there.
(Kilo Code source, src/core/task/Task.ts and src/shared/cost.ts, as of 4.119, November 2025.)
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterator
from typing import Any

import orjson

from tokenops import events, jsonl, read_lines, read_opencode, read_records, read_sqlite, untrusted
from tokenops.read_contract import FileReader, Intake

SOURCE = "kilo"
CLIENT = "kilo"

PRODUCT = read_opencode.Product(SOURCE, CLIENT)

_TASK = "ui_messages.json"
_SENT = "api_conversation_history.json"
_MODEL = re.compile(r"<model>([\w./:@+-]{1,120})</model>", re.ASCII)
_DIRECTORY = re.compile(r"^# Current (?:Workspace|Working) Directory \(([^\n]{1,1000}?)\) Files", re.MULTILINE)
# Since 4.119 the input holds what came from the cache, whoever answered.
_WHOLE_SINCE = "2025-11-12T00:00:00.000Z"


def files(home: str) -> Iterator[str]:
    """The databases and the tasks of a data directory."""
    yield from read_opencode.databases(home, "kilo")
    for path in read_lines.walk(os.path.join(home, "tasks")):
        if os.path.basename(path) == _TASK:
            yield path


def claims(path: str, head: bytes) -> bool:
    """Whether a file is one of Kilo's databases or tasks."""
    if read_sqlite.is_database(path):
        return os.path.basename(path).startswith("kilo") and head.startswith(b"SQLite format 3\0")
    return os.path.basename(path) == _TASK and head.lstrip().startswith(b"[")


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of a database from the cursor on, or those of one task. Raises OSError, BadRecord."""
    if read_sqlite.is_database(path):
        return read_opencode.rows(path, cursor, intake, PRODUCT)
    return _task(path, cursor, intake)


def _task(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one task. Raises OSError, BadRecord."""
    folder = os.path.dirname(path)
    sent = Sent(os.path.join(folder, _SENT))  # first: what it keeps is small, and both files are large
    try:
        messages = _array(path, cursor)
    except events.BadRecord as error:
        raise events.BadRecord(f"{error}; skipped") from None
    session = untrusted.identity(os.path.basename(folder))
    for number, message in enumerate(messages):
        if untrusted.mapping(message).get("say") != "api_req_started":
            continue
        location = f"{path}:[{number}]"
        try:
            request = _object(message.get("text"))
            ts = untrusted.moment(message.get("ts"), "ts")
            counts = counts_of(request, ts)
        except events.BadRecord as error:
            intake.on_bad_line(location, f"{error}; skipped")
            continue
        if not counts:  # not yet answered, or never
            continue
        intake.location = location
        cost = untrusted.usd(request.get("cost"))
        # What a request sent is known from its first count on, and is the same in a copy of the task.
        prompt_counts = (untrusted.count(request, name) for name in ("tokensIn", "cacheReads", "cacheWrites"))
        yield read_records.turn(
            ts,
            f"{CLIENT}:{events.digest(ts, *prompt_counts)}",
            intake.attribution(SOURCE, CLIENT, sent.directory, "", session),
            sent.model(message["ts"]),
            counts,
            "",
            session,
            cost_usd=cost,
            cost_source=cost and "client",
            **_unsure(request),
        )


def _unsure(request: untrusted.Raw) -> dict[str, str]:
    """What to say of a request that was stopped: its counts are those of that moment. Completed counts lose the reason."""
    if not untrusted.text(request.get("cancelReason")):
        return {}
    return {"usage": "partial", "usage_reason": "the answer was interrupted"}


def counts_of(request: untrusted.Raw, ts: str) -> dict[str, int]:
    """The record's disjoint counts. Raises BadRecord.

    What came from the cache is part of the input since 4.119; before that, not where Anthropic's protocol was spoken.
    """
    sent, output = untrusted.count(request, "tokensIn"), untrusted.count(request, "tokensOut")
    written, read_ = untrusted.count(request, "cacheWrites"), untrusted.count(request, "cacheReads")
    apart = sent < written + read_ or (request.get("apiProtocol") == "anthropic" and ts < _WHOLE_SINCE)
    counts = {
        "input_tokens": sent if apart else sent - written - read_,
        "cache_read_tokens": read_,
        "cache_write_tokens": written,
        "output_tokens": output,
    }
    return {name: count for name, count in counts.items() if count}


class Sent:
    """What is recorded beside the prompts of a task: the directory, and the model of each prompt."""

    def __init__(self, path: str) -> None:
        self.directory = ""
        self.models: list[tuple[float, str]] = []
        try:
            entries = _array(path, read_lines.Cursor())
        except (OSError, events.BadRecord):
            return
        for entry in map(untrusted.mapping, entries):
            if entry.get("role") == "user":
                self._take(entry)
        self.models.sort()

    def _take(self, entry: untrusted.Raw) -> None:
        content = entry.get("content")
        for block in [{"text": content}] if isinstance(content, str) else map(untrusted.mapping, untrusted.items(content)):
            text = block.get("text")
            if not isinstance(text, str):
                continue
            if not self.directory and (directory := _DIRECTORY.search(text)):
                self.directory = untrusted.path(directory[1])
            if (models := _MODEL.findall(text)) and type(entry.get("ts")) in (int, float):
                self.models.append((entry["ts"], models[-1]))

    def model(self, ts: Any) -> str:
        """The model of a request: what it sends is kept a moment after it has begun."""
        if not self.models or type(ts) not in (int, float):
            return ""
        at = bisect.bisect_left(self.models, (ts, ""))
        return self.models[min(at, len(self.models) - 1)][1]


def _array(path: str, cursor: read_lines.Cursor) -> list[Any]:
    """The array in a file that its client rewrites as a whole. Raises OSError, BadRecord."""
    data = read_lines.content(path)
    cursor.offset = len(data)
    value = _json(data)
    if not isinstance(value, list):
        raise events.BadRecord(f"expected a JSON array, found {jsonl.type_name(value)}")
    return value


def _object(text: object) -> untrusted.Raw:
    """The object in a text. Raises BadRecord."""
    return untrusted.mapping(_json(text.encode(errors="replace"))) if isinstance(text, str) else {}


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    try:
        return jsonl.DECODER.decode(data.removeprefix(jsonl.BOM).decode(errors="replace"))
    except (ValueError, RecursionError):
        raise events.BadRecord("not JSON") from None


READER = FileReader(SOURCE, CLIENT, files, claims, read, ranges=read_opencode.ranges)
