"""Measures what entered the context of each turn in opencode's databases (1.2 and later; Kilo's are of the same kind).

A message is one request and its answer; its parts are texts, calls of tools with their results, and files. The rows of 2.0's
own table are not read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import orjson

from tokenops import read_context, read_sqlite, untrusted
from tokenops.events import Event
from tokenops.read_context import Sizes

if TYPE_CHECKING:
    import sqlite3

Raw = untrusted.Raw
_MOST_SESSIONS = 64  # of which the order of messages is remembered
_MOST_BACK = 200  # messages without counts between two answers


class Message(NamedTuple):
    """A message of a session: its id, its row's time, and its data."""

    name: str
    created: object
    data: Raw


class Contexts:
    """Finds the message before another, and the parts of both."""

    def __init__(self, connection: sqlite3.Connection, turn_of: Callable[[Message], str]) -> None:
        """`turn_of`: the identity of the turn that a message is; "" if it has no counts."""
        self.connection, self.turn_of = connection, turn_of
        self.orders: dict[str, tuple[list[str], dict[str, int]]] = {}

    def records(self, message: Message, session: str, turn: Event, is_child: bool) -> Iterator[Event]:
        """The record of a message's turn."""
        produced, _ = self._output(message.name, turn["client"])
        parent, entered, event = self._above(message, session, turn["client"])
        chain = read_context.label(session) if is_child else ""
        yield read_context.record(
            turn["ts"], turn["id"], read_context.attribution_of(turn), parent, entered, produced, chain, event
        )

    def _above(self, message: Message, session: str, client: str) -> tuple[str, Sizes, str]:
        """The turn before a message's, and what was sent since; "compaction" if that turn was the summary."""
        names, order = self._order(session)
        at = order.get(message.name, 0)
        entered: Sizes = {}
        for name in reversed(names[max(at - _MOST_BACK, 0) : at]):
            before = self._message(name)
            if before is None:
                continue
            if before.data.get("role") == "user":
                self._add_input(entered, name)
            elif turn := self.turn_of(before):
                written, results = self._output(name, client)
                if before.data.get("summary") is True:
                    read_context.add(entered, read_context.SUMMARY, written.get(read_context.REPLY, 0))
                    return turn, entered, read_context.COMPACTION
                for cause, size in results.items():
                    read_context.add(entered, cause, size)
                return turn, entered, ""
        return "", entered, ""

    def _order(self, session: str) -> tuple[list[str], dict[str, int]]:
        """The messages of a session, in order, and the place of each."""
        if session not in self.orders:
            if len(self.orders) >= _MOST_SESSIONS:
                del self.orders[next(iter(self.orders))]
            query = "SELECT id FROM message WHERE session_id = ? ORDER BY time_created, id"
            names = [row["id"] for row in self.connection.execute(query, (session,))]
            self.orders[session] = names, {name: at for at, name in enumerate(names)}
        return self.orders[session]

    def _message(self, name: str) -> Message | None:
        row = read_sqlite.select(
            self.connection, "message", "id", "time_created", "data", where="id = ?", values=(name,)
        ).fetchone()
        return Message(name, row["time_created"], _object(row["data"])) if row is not None else None

    def _parts(self, message: str) -> Iterator[Raw]:
        for row in self.connection.execute("SELECT data FROM part WHERE message_id = ? ORDER BY id", (message,)):
            if part := _object(row["data"]):
                yield part

    def _output(self, message: str, client: str) -> tuple[Sizes, Sizes]:
        """What a message wrote, and the results of its calls."""
        produced: Sizes = {}
        results: Sizes = {}
        for part in self._parts(message):
            kind = part.get("type")
            if kind == "text" and part.get("synthetic") is not True:
                read_context.add(produced, read_context.REPLY, read_context.text_size(part.get("text")))
            elif kind == "reasoning":
                read_context.add(produced, read_context.THINKING, read_context.text_size(part.get("text")))
            elif kind == "tool":
                state = untrusted.mapping(part.get("state"))
                cause = read_context.call_cause(client, part.get("tool"), state.get("input"))
                read_context.add(produced, cause, read_context.json_size(state.get("input")))
                size = read_context.text_size(state.get("output")) or read_context.text_size(state.get("error"))
                read_context.add(results, read_context.result_cause(cause), size)
                for file in untrusted.items(state.get("attachments")):
                    _add_file(results, untrusted.mapping(file))
        return produced, results

    def _add_input(self, entered: Sizes, message: str) -> None:
        """What a message of the user gave. Text that the client wrote for a file is marked as synthetic."""
        for part in self._parts(message):
            if part.get("type") == "text" and part.get("ignored") is not True:
                cause = read_context.ATTACHMENT if part.get("synthetic") is True else read_context.PROMPT
                read_context.add(entered, cause, read_context.text_size(part.get("text")))
            elif part.get("type") == "file":
                _add_file(entered, part)


def _add_file(sizes: Sizes, file: Raw) -> None:
    """An image; the text of other files stands in parts of its own."""
    if str(file.get("mime")).startswith("image/"):
        read_context.add(sizes, read_context.IMAGE, read_context.image_size(file.get("url")))


def _object(data: object) -> Raw:
    try:
        value = orjson.loads(data)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return {}
    return value if type(value) is dict else {}
