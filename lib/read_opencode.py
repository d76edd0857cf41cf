"""Reads opencode's databases and message files and returns turns.

Sessions are kept in SQLite since 1.2 (`opencode.db`, one more per release channel): tables message, part and session, and
since 2.0 session_message and session_v2 beside them. Older versions kept a file per message below `storage/`.

A fork copies its parent's messages under new ids, the move to a newer store copies all of them, and published logs have
their ids masked. So a turn is named by its content: when it began, who answered, and its counts. Its end is left out: a
message has its counts before its tools have run, and 2.0 changes the end when it takes over a message of 1.x. (opencode
source as of September 2026: session/session.ts, core/session/projector.ts and core/database/v1-migration.ts.)
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tokenops import events, jsonl, price_names, read_lines, read_opencode_context, read_records, read_sqlite, untrusted
from tokenops.read_contract import FileReader, Intake

if TYPE_CHECKING:
    import sqlite3

SOURCE = "opencode"
CLIENT = "opencode"

# Processes that write at the same time commit in any order: rows stamped so shortly before the newest are read again.
_OVERLAP_MS = 60_000
_STEP = "step-finish"
_STEP_BYTES = 2000  # of the file of such a part; those of tool calls are larger


class Product(NamedTuple):
    """Who keeps a store of this kind."""

    source: str
    client: str


PRODUCT = Product(SOURCE, CLIENT)


def files(home: str) -> Iterator[str]:
    """The databases and the messages of a data directory."""
    yield from databases(home, "opencode")
    folder = os.path.join(home, "storage", "message")
    for session in _names_in(folder):
        at = os.path.join(folder, session)
        for name in _names_in(at):
            if name.endswith(".json"):
                yield os.path.join(at, name)


def databases(home: str, name: str) -> Iterator[str]:
    """The databases of a data directory: the main one, and those of release channels."""
    for entry in _names_in(home):
        if entry.startswith(name) and entry.endswith(".db"):
            yield os.path.join(home, entry)


def _names_in(folder: str) -> list[str]:
    """The names in a directory, in order; none if there is no such directory."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def claims(path: str, head: bytes) -> bool:
    """Whether a file is one of opencode's databases or messages."""
    if read_sqlite.is_database(path):
        return os.path.basename(path).startswith("opencode") and head.startswith(b"SQLite format 3\0")
    return os.path.basename(os.path.dirname(os.path.dirname(path))) == "message" and b'"sessionID"' in head


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of a database from the cursor on, or those of one message. Raises OSError, BadRecord."""
    if read_sqlite.is_database(path):
        return rows(path, cursor, intake, PRODUCT)
    return _document(path, cursor, intake)


class Session(NamedTuple):
    """Where a message belongs."""

    id: str = ""
    directory: str = ""
    child: bool = False  # of another session, which started it as a subagent


class TurnMaker:
    """Makes turns from answers, whichever store holds them."""

    def __init__(self, product: Product, intake: Intake) -> None:
        self.product, self.intake = product, intake
        self._attributions: dict[tuple[Session, str], dict[str, Any]] = {}

    def turns(self, answer: untrusted.Raw, steps: list[Any], session: Session, created: object) -> Iterator[events.Event]:
        """The turns that an answer is: one, or its `steps`, of which older versions keep only the last in the answer.

        Raises BadRecord.
        """
        model_object = untrusted.mapping(answer.get("model"))
        model = untrusted.text(answer.get("modelID") or model_object.get("id"))
        provider = untrusted.text(answer.get("providerID") or model_object.get("providerID"))
        agent = untrusted.text(answer.get("agent")) or untrusted.text(answer.get("mode"))
        begun = untrusted.mapping(answer.get("time")).get("created")
        ts = untrusted.moment(created if begun is None else begun, "time.created")
        inside = "role" in answer and price_names.provider_of(model) == "openai"
        for step in steps or (answer,):
            tokens = untrusted.mapping(step.get("tokens"))
            recorded = _counts_in(tokens)
            counts = _disjoint(recorded, untrusted.count(tokens, "total"), inside)
            if not counts:
                continue
            cost = untrusted.usd(step.get("cost"))
            yield read_records.turn(
                ts,
                f"{self.product.client}:{events.digest(ts, provider, model, *recorded, agent)}",
                self._attribution(
                    session, session.directory or untrusted.path(untrusted.mapping(answer.get("path")).get("cwd"))
                ),
                model,
                counts,
                provider,
                session.id,
                cost_usd=cost,
                cost_source=cost and "client",
                subagent=untrusted.tag(agent) if session.child else "",
            )

    def _attribution(self, session: Session, root: str) -> dict[str, Any]:
        cached = self._attributions.get((session, root))
        if cached is None:
            cached = self.intake.attribution(self.product.source, self.product.client, root, "", session.id)
            if session.child:
                cached["sidechain"] = True
            self._attributions[session, root] = cached
        return cached


def is_finished(answer: untrusted.Raw) -> bool:
    """Whether an answer will not change any more, or only in when it ended."""
    if answer.get("status") in ("completed", "failed"):  # of a compaction
        return True
    return any(answer.get(key) is not None for key in ("finish", "error")) or bool(
        untrusted.mapping(answer.get("time")).get("completed")
    )


Recorded = tuple[int, int, int, int, int]  # input, output, reasoning, cache reads, cache writes


def _counts_in(tokens: untrusted.Raw) -> Recorded:
    """The counts as they are recorded. Raises BadRecord."""
    cache = untrusted.mapping(tokens.get("cache"))
    return (
        untrusted.count(tokens, "input"),
        untrusted.count(tokens, "output"),
        untrusted.count(tokens, "reasoning"),
        untrusted.count(cache, "read"),
        untrusted.count(cache, "write"),
    )


def counts_of(tokens: untrusted.Raw, inside: bool = False) -> dict[str, int]:
    """The record's disjoint counts. Raises BadRecord.

    The input does not include what came from the cache, for any provider. The output does not include reasoning since April
    2026; before that, both were kept as the provider gave them. A total shows which it is; without one `inside` decides.
    """
    return _disjoint(_counts_in(tokens), untrusted.count(tokens, "total"), inside)


def _disjoint(recorded: Recorded, total: int, inside: bool) -> dict[str, int]:
    sent, output, reasoning, read, written = recorded
    if not any(recorded):
        if total:
            raise events.BadRecord("only a total is given, so input and output are unknown")
        return {}
    if total:
        inside = total == sent + output + read + written
    counts = {
        "input_tokens": sent,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": output if inside and reasoning <= output else output + reasoning,
        "reasoning_tokens": reasoning,
    }
    return {name: count for name, count in counts.items() if count}


def _many_steps(answer: untrusted.Raw) -> bool:
    """Whether an answer may have taken several requests and record only the last, as versions without `finish` did."""
    return answer.get("finish") is None and any(_counts_in(untrusted.mapping(answer.get("tokens"))))


# Databases.


def rows(path: str, cursor: read_lines.Cursor, intake: Intake, product: Product) -> Iterator[events.Event]:
    """The turns in a database of opencode's kind that changed since the cursor. Raises OSError, BadRecord."""
    with read_sqlite.open_database(path) as connection:
        store, maker = _Store(connection), TurnMaker(product, intake)
        contexts = store.contexts(maker) if intake.options.work else None
        parts = cursor.state.pop("part", {})
        for table in store.tables:
            where, values, mark = store.query_changed(table, cursor.state.get(table))
            if table in parts:
                where, values, mark = parts[table]
            for row in store.answers(table, where, values):
                location = f"{path}:{table}[{untrusted.text(row['id'])}]"
                try:
                    answer = _parse(row["data"])
                    if not is_finished(answer) or (table == "message" and answer.get("role") != "assistant"):
                        continue
                    steps = store.steps(row["id"]) if table == "message" and _many_steps(answer) else []
                    turns = list(maker.turns(answer, steps, store.session(row["session_id"]), row["time_created"]))
                except events.BadRecord as error:
                    intake.on_bad_line(location, f"{error}; skipped")
                    continue
                intake.location = location
                yield from turns
                if contexts is not None and table == "message" and len(turns) == 1:
                    message = read_opencode_context.Message(row["id"], row["time_created"], answer)
                    yield from contexts.records(message, row["session_id"], turns[0], store.session(row["session_id"]).child)
            cursor.state[table] = mark


def ranges(path: str, cursor: read_lines.Cursor, count: int) -> Sequence[read_lines.Cursor]:
    """Parts of a database that was never read, each with as many rows of each table; the last has the rows to come, too."""
    if cursor.state or not read_sqlite.is_database(path):
        return (cursor,)
    try:
        with read_sqlite.open_database(path) as connection:
            store = _Store(connection)
            marks = {table: store.query_changed(table, None)[2] for table in store.tables}
    except (OSError, events.BadRecord):
        return (cursor,)  # its reading says so
    if not all(marks.values()):
        return (cursor,)  # of a version without marks
    parts: list[dict[str, Any]] = [{} for _ in range(count)]
    for table, mark in marks.items():
        bounds = [mark[1] * number // count for number in range(1, count)]
        inner = [("(rowid > ? AND rowid <= ?)", pair) for pair in itertools.pairwise(bounds)]
        conditions = [("rowid <= ?", (bounds[0],)), *inner, ("rowid > ?", (bounds[-1],))]
        for part, (where, values) in zip(parts, conditions, strict=True):
            part[table] = (where, values, mark)
    return [read_lines.Cursor(state={"part": part}) for part in parts]


class _Store:
    """One database, whichever version wrote it. Raises BadRecord if it is not one of opencode's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.columns = {
            name: read_sqlite.columns(connection, name)
            for name in ("message", "session_message", "part", "session", "session_v2")
        }
        self.tables = [name for name in ("message", "session_message") if "data" in self.columns[name]]
        if not self.tables:
            self._raise_unknown()
        self._sessions: dict[object, Session] = {}
        self._homes = [name for name in ("session", "session_v2") if {"id", "directory"} <= self.columns[name]]
        self._stepped = {"id", "message_id", "data"} <= self.columns["part"] and self._has_index()

    def _raise_unknown(self) -> None:
        """Raise what is wrong; a database without tables was only just created."""
        there = {row["name"] for row in self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if {"sessions", "messages"} <= there:
            raise events.BadRecord(
                "the database of another product, which had the same name (tables sessions, messages); "
                "it holds no counts per request; skipped"
            )
        if there:
            raise events.BadRecord("unknown version: no table message or session_message with a column data; skipped")

    def query_changed(self, table: str, before: Any) -> tuple[str, tuple[int, ...], list[int]]:
        """What to select of a table, and the mark to keep until the next time: its newest update and last row."""
        if "time_updated" not in self.columns[table]:
            return "1", (), []
        [newest, last] = self.connection.execute(f'SELECT max(time_updated), max(rowid) FROM "{table}"').fetchone()
        mark = [value if type(value) is int else 0 for value in (newest, last)]
        if not before or before[0] > mark[0]:  # there is no mark, or the database is not the one it was
            return "1", (), mark
        return "(time_updated >= ? OR rowid > ?)", (before[0] - _OVERLAP_MS, before[1]), mark

    def answers(self, table: str, where: str, values: tuple[int, ...]) -> Any:
        """The rows of a table that may be answers."""
        if table == "message":
            where = f"""instr(data, '"assistant"') AND {where}"""
        else:
            where = f"type IN ('assistant', 'compaction') AND {where}"
            if {"id", "session_id", "time_created"} <= self.columns["message"]:
                # A row that 2.0 took over holds less than the row of 1.x that stays beside it.
                same = " AND ".join(f'old.{name} = "{table}".{name}' for name in ("id", "session_id", "time_created"))
                where += f" AND NOT EXISTS (SELECT 1 FROM message AS old WHERE {same})"
        return read_sqlite.select(
            self.connection, table, "id", "session_id", "time_created", "data", where=where, values=values
        )

    def session(self, name: object) -> Session:
        """A session by the name that its messages give it."""
        if name not in self._sessions:
            self._sessions[name] = self._session(name)
        return self._sessions[name]

    def _session(self, name: object) -> Session:
        for table in self._homes:
            row = read_sqlite.select(
                self.connection, table, "directory", "parent_id", where="id = ?", values=(name,)
            ).fetchone()
            if row is not None:
                return Session(untrusted.identity(name), untrusted.path(row["directory"]), bool(row["parent_id"]))
        return Session(untrusted.identity(name))

    def _has_index(self) -> bool:
        """Whether the parts of a message are found without reading all parts, which may be gigabytes."""
        return self._searches("SELECT data FROM part WHERE message_id = ''")

    def _searches(self, query: str) -> bool:
        """Whether an index answers a query."""
        plan = self.connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
        return any(str(row["detail"]).startswith("SEARCH") for row in plan)

    def contexts(self, maker: TurnMaker) -> read_opencode_context.Contexts | None:
        """What measures contexts; None if it would have to read whole tables for each turn."""

        def turn_of(message: read_opencode_context.Message) -> str:
            answer = message.data
            if not is_finished(answer) or answer.get("role") != "assistant":
                return ""
            try:
                steps = self.steps(message.name) if _many_steps(answer) else []
                *_, last = ["", *(turn["id"] for turn in maker.turns(answer, steps, Session(), message.created))]
            except events.BadRecord:
                return ""
            return str(last)

        columns = {"id", "session_id", "time_created"} <= self.columns["message"]
        is_quick = self._stepped and columns and self._searches("SELECT id FROM message WHERE session_id = ''")
        return read_opencode_context.Contexts(self.connection, turn_of) if is_quick else None

    def steps(self, message: object) -> list[Any]:
        """The requests that an answer took, if its parts record them."""
        if not self._stepped:
            return []
        query = "SELECT data FROM part WHERE message_id = ? AND instr(data, ?) ORDER BY id"
        rows = self.connection.execute(query, (message, f'"{_STEP}"'))
        return [part for part in (_parse(row["data"]) for row in rows) if part.get("type") == _STEP]


def _parse(data: object) -> untrusted.Raw:
    """The object in a column. Raises BadRecord."""
    try:
        value = orjson.loads(data)  # type: ignore[arg-type]
    except ValueError:
        values, why = jsonl.objects(data if isinstance(data, bytes) else str(data).encode())
        if len(values) != 1 or why:
            raise events.BadRecord("data is not a JSON object") from None
        value = values[0]
    if not isinstance(value, dict):
        raise events.BadRecord(f"data is {jsonl.type_name(value)}; expected a JSON object")
    return value


# Files.


def _document(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one message. Raises OSError, BadRecord."""
    answer = read_lines.document(path, cursor)
    if answer.get("role") != "assistant" or not is_finished(answer):
        return
    folder, name = os.path.split(path)
    above, session = os.path.split(folder)
    storage = os.path.dirname(above)
    try:
        steps = _step_files(os.path.join(storage, "part", name.removesuffix(".json"))) if _many_steps(answer) else []
        turns = list(TurnMaker(PRODUCT, intake).turns(answer, steps, _session_file(storage, session), None))
    except events.BadRecord as error:
        intake.on_bad_line(path, f"{error}; skipped")
        return
    intake.location = path
    yield from turns


def _step_files(folder: str) -> list[Any]:
    """The requests that an answer took, if its parts record them."""
    steps = []
    for name in _names_in(folder):
        path = os.path.join(folder, name)
        try:
            if os.stat(path).st_size < _STEP_BYTES:
                part = read_lines.document(path, read_lines.Cursor())
                if part.get("type") == _STEP:
                    steps.append(part)
        except (OSError, events.BadRecord):
            continue
    return steps


@functools.cache
def _session_file(storage: str, session: str) -> Session:
    """A session by the name of the folder of its messages; its file is in the folder of its project."""
    folder = os.path.join(storage, "session")
    for project in _names_in(folder):
        try:
            document = read_lines.document(os.path.join(folder, project, f"{session}.json"), read_lines.Cursor())
        except (OSError, events.BadRecord):
            continue
        return Session(
            untrusted.identity(session), untrusted.path(document.get("directory")), bool(document.get("parentID"))
        )
    return Session(untrusted.identity(session))


READER = FileReader(SOURCE, CLIENT, files, claims, read, ranges=ranges)
