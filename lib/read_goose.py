"""Reads goose's session database and returns turns, or a total for an old session.

`sessions.db` keeps each session's sums (`accumulated_*`) and, since schema 15 (2026), every request in `usage_ledger`.
A session begun since then is returned as turns, and what its sums hold beyond them as a remainder; an older one as a
total. By goose's source (session_manager.rs and
token_usage.rs, November 2026) the input includes cache reads and writes; the cache columns came with schema 14, so an
older total does not separate them. For Gemini, older versions left the thoughts out of the output but not out of the
total.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenops import events, jsonl, price_names, read_lines, read_records, read_sqlite, untrusted
from tokenops.read_contract import FileReader, Intake

if TYPE_CHECKING:
    import sqlite3

SOURCE = "goose"
CLIENT = "goose"

_NAME = "sessions.db"
# These run another client, and its own log has the turns.
_DRIVEN = frozenset(("claude-code", "claude-acp", "codex", "codex-acp", "gemini-cli", "copilot-acp", "amp-acp", "pi-acp"))
_KINDS = ("input", "output", "total", "cache_read", "cache_write")
_ACCUMULATED, _LAST = "accumulated_", ""
_SESSION = (
    *("id", "session_type", "working_dir", "created_at", "updated_at", "provider_name", "model_config_json"),
    *(f"{prefix}{kind}_tokens" for prefix in (_ACCUMULATED, _LAST) for kind in _KINDS),
    "accumulated_cost",
)
_REQUEST = ("id", "created_timestamp", "model", *(f"{kind}_tokens" for kind in _KINDS), "cost", "cost_source")


class Counts(NamedTuple):
    """The record's disjoint counts, and what is not known of them."""

    counts: dict[str, int]
    unsure: str = ""

    def more(self) -> dict[str, str]:
        """The fields that say so."""
        return {"usage": "partial", "usage_reason": self.unsure} if self.unsure else {}


def files(home: str) -> Iterator[str]:
    """The database of a sessions directory, or of the directory above it."""
    for folder in (home, os.path.join(home, "sessions")):
        path = os.path.join(folder, _NAME)
        if os.path.isfile(path):
            yield path
            return


def claims(path: str, head: bytes) -> bool:
    """Whether a file is goose's database."""
    named = os.path.basename(path) == _NAME or b"accumulated_input_tokens" in head
    return named and head.startswith(b"SQLite format 3\0")


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns and totals that are new in a database. Raises OSError, BadRecord."""
    with read_sqlite.open_database(path) as connection:
        columns = read_sqlite.columns(connection, "sessions")
        if not {"id", "created_at"} <= columns or "total_tokens" not in columns:
            raise events.BadRecord("not a goose database: it has no table of sessions with token counts; skipped")
        earlier: dict[str, str] = cursor.state.get("beyond", {})
        since = _resume(connection, cursor, "updated_at" in columns, read_sqlite.written_at(path))
        cursor.state["beyond"] = earlier
        where = 'datetime("updated_at") IS NULL OR datetime("updated_at") >= ?' if since[0] else "1"
        ledgers = _ledgers(connection)
        for record in read_sqlite.select(
            connection, "sessions", *_SESSION, where=where, values=(since[0],) if since[0] else ()
        ).fetchall():
            row = dict(record)
            location = f"{path}:{untrusted.identity(row['id']) or 'a session'}"
            try:
                session = _Session(row, intake)
            except events.BadRecord as error:
                intake.on_bad_line(location, f"{error}; skipped")
                continue
            if untrusted.text(row["provider_name"]) in _DRIVEN:
                continue
            if row["id"] in ledgers:
                bounds = (row["id"], since[1])
                requests = read_sqlite.select(
                    connection,
                    "usage_ledger",
                    *_REQUEST,
                    where="session_id = ? AND id > ? ORDER BY id",
                    values=bounds,
                )
                yield from session.turns(map(dict, requests), location)
                yield from session.remainder(ledgers[row["id"]], earlier, location)
            else:
                yield from session.total(location)


def _resume(connection: sqlite3.Connection, cursor: read_lines.Cursor, dated: bool, written: int) -> tuple[str, int]:
    """From what time of change and after which request to read; the cursor is moved to the latest there are.

    No time after `written` is kept.
    """
    time, request = cursor.state.get("updated", ""), cursor.state.get("request", 0)
    latest = connection.execute("SELECT MAX(datetime(updated_at)) FROM sessions").fetchone()[0] if dated else None
    kept = {"id", "session_id"} <= read_sqlite.columns(connection, "usage_ledger")
    last = connection.execute("SELECT MAX(id) FROM usage_ledger").fetchone()[0] if kept else 0
    updated = min(untrusted.text(latest), read_sqlite.datetime_text(written))
    cursor.state |= {"updated": updated, "request": last if type(last) is int else 0}
    if time > cursor.state["updated"] or request > cursor.state["request"]:
        return "", 0  # not the database that it was
    return time, request


def _ledgers(connection: sqlite3.Connection) -> dict[Any, untrusted.Raw]:
    """The sessions with all of their requests in the ledger, and its sums.

    `carried_forward` sums up the requests from before there was a ledger.
    """
    columns = read_sqlite.columns(connection, "usage_ledger")
    if not {"id", "session_id", "input_tokens", "output_tokens", "total_tokens", "cost_source"} <= columns:
        return {}
    whole = "COALESCE(total_tokens, COALESCE(input_tokens, 0) + COALESCE(output_tokens, 0))"
    amounts = {kind: f"{kind}_tokens" if f"{kind}_tokens" in columns else "0" for kind in _KINDS} | {"total": whole}
    sums = ", ".join(f"TOTAL({amount}) AS {kind}_tokens" for kind, amount in amounts.items())
    carried = "TOTAL(cost_source = 'carried_forward')"
    rows = connection.execute(f"SELECT session_id, {sums}, {carried} AS carried FROM usage_ledger GROUP BY session_id")
    return {row["session_id"]: dict(row) for row in rows if not row["carried"]}


class _Session:
    """One session, and how its rows become records."""

    def __init__(self, row: untrusted.Raw, intake: Intake) -> None:
        self.row, self.intake = row, intake
        self.name = untrusted.identity(row["id"])
        if not self.name:
            raise events.BadRecord("a session without a name")
        self.began = untrusted.moment(row["created_at"], "created_at")
        # A session's name is its date and a counter of its database; with the second of its start it is unique.
        self.key = f"{self.name}@{self.began[:19]}"
        self.provider = untrusted.text(row["provider_name"])
        self.attribution = intake.attribution(SOURCE, CLIENT, untrusted.path(row["working_dir"]), "", self.name)
        if row["session_type"] == "sub_agent":
            self.attribution["sidechain"] = True

    def turns(self, requests: Iterator[untrusted.Raw], location: str) -> Iterator[events.Event]:
        """Its requests."""
        for request in requests:
            at = f"{location}:usage_ledger:{untrusted.identity(request['id'])}"
            try:
                model = untrusted.text(request["model"])
                usage = counts_of(request, "", model)
                if not usage.counts:
                    continue
                ts = untrusted.moment(request["created_timestamp"], "created_timestamp")
            except events.BadRecord as error:
                self.intake.on_bad_line(at, f"{error}; skipped")
                continue
            vendor = request["cost_source"] == "provider_reported"
            self.intake.location = at
            yield read_records.turn(
                ts,
                f"goose:{self.key}:{untrusted.identity(request['id'])}",
                self.attribution,
                model,
                usage.counts,
                self.provider,
                self.name,
                **usage.more(),
                **_cost(request["cost"], "reported" if vendor else "client"),
            )

    def remainder(self, ledger: untrusted.Raw, earlier: dict[str, str], location: str) -> Iterator[events.Event]:
        """What its sums hold beyond its requests, noted in `earlier` with its model; no counts if that is gone again."""
        try:
            sums = {kind: untrusted.count(self.row, f"{_ACCUMULATED}{kind}_tokens") for kind in _KINDS}
            rest = {f"{kind}_tokens": max(0, sums[kind] - int(ledger[f"{kind}_tokens"])) for kind in _KINDS}
            model = earlier.get(self.key) or model_of(self.row["model_config_json"])
            usage = counts_of(rest, "", model) if rest["total_tokens"] else Counts({})
            changed = untrusted.moment(self.row["updated_at"] or self.row["created_at"], "updated_at")
        except events.BadRecord as error:
            self.intake.on_bad_line(location, f"{error}; skipped")
            return
        if not usage.counts and self.key not in earlier:
            return
        earlier[self.key] = model
        self.intake.location = location
        yield read_records.aggregate(
            changed,
            f"remainder:goose:{self.key}:{model}:{changed}",
            self.attribution,
            model,
            usage.counts,
            self.provider,
            covers=events.REMAINDER,
            total_tokens=sums["total"],
            **usage.more(),
        )

    def total(self, location: str) -> Iterator[events.Event]:
        """Its sum, if it used anything."""
        row = self.row
        model = model_of(row["model_config_json"])
        prefix = _ACCUMULATED if any(row[f"{_ACCUMULATED}{kind}_tokens"] for kind in _KINDS[:3]) else _LAST
        try:
            usage = counts_of(row, prefix, model)
            changed = untrusted.moment(row["updated_at"], "updated_at") if row["updated_at"] is not None else self.began
        except events.BadRecord as error:
            self.intake.on_bad_line(location, f"{error}; skipped")
            return
        if not usage.counts:
            return
        if prefix == _LAST:
            usage = usage._replace(unsure="only the last request's counts are recorded")
        elif row["accumulated_cache_read_tokens"] is None and row["accumulated_cache_write_tokens"] is None:
            usage = usage._replace(unsure=usage.unsure or "cached input is not separated from other input")
        self.intake.location = location
        yield read_records.aggregate(
            self.began,
            f"usage:goose:{self.key}",
            self.attribution,
            model,
            usage.counts,
            self.provider,
            observed_at=changed,
            **usage.more(),
            **_cost(row["accumulated_cost"], "client"),
        )


def _cost(amount: object, source: str) -> dict[str, str]:
    cost = untrusted.usd(amount)
    return {"cost_usd": cost, "cost_source": source} if cost else {}


def model_of(config: object) -> str:
    """The model in a session's configuration; "" if there is none."""
    if type(config) is not str:
        return ""
    documents, _ = jsonl.objects(config.encode(errors="replace"))
    return untrusted.text(documents[0].get("model_name")) if documents else ""


def counts_of(row: untrusted.Raw, prefix: str, model: str) -> Counts:
    """The record's disjoint counts. Raises BadRecord."""
    sent, output, total, read, written = (untrusted.count(row, f"{prefix}{kind}_tokens") for kind in _KINDS)
    if not sent and not output:
        if total:
            raise events.BadRecord("only a total is given, so input and output are unknown")
        return Counts({})
    kept, rest, thoughts, unsure = read + written, total - sent - output, 0, ""
    if kept > sent or 0 < kept == rest:
        rest -= kept  # cached input beside the rest
    else:
        sent -= kept
    if rest > 0 and price_names.provider_of(model) == "gemini":
        thoughts = rest
    elif rest > 0:
        unsure = "a part of the reported total is neither input nor output"
    counts = {
        "input_tokens": sent,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": output + thoughts,
        "reasoning_tokens": thoughts,
    }
    return Counts({name: count for name, count in counts.items() if count}, unsure)


READER = FileReader(SOURCE, CLIENT, files, claims, read)
