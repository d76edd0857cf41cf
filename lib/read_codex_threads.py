"""Reads Codex's rollouts into threads, and decides which thread owns each counted row.

A rollout's `token_count` lines carry the thread's cumulative totals. A line with changed totals is a turn; one with the
same totals is a repetition. A fork or a spawned child begins with a copy of its parent's lines under new times: each
turn has one owner, the thread that produced it, whatever file holds a copy.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from dataclasses import dataclass, field
from typing import Any

from tokenops import events, fields, jsonl, read_codex_totals, read_lines, read_packed, regular, untrusted, when
from tokenops.read_codex_totals import Totals
from tokenops.read_contract import Intake

SOURCE = "codex-jsonl"
CLIENT = "codex"

Raw = dict[str, Any]

_MASKED = re.compile(r"[\s\[\]<>*]|REDACTED")
_FILE_UUID = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.jsonl(?:\.zst)?\Z")
# A copied row is written with the file; no model answers within a second of a thread's start.
BURST_MS = 1000
# A record and its token_count are written together if the response called no tools; then either may come first.
PAIRED_MS = 5000
# So many records wait for a token_count: those of tools that were aborted get none.
MOST_PENDING = 8
# How a line with an item of the conversation begins, but for its time.
_STAMP, _ITEM = b'{"timestamp":"', b'","type":"response_item",'
_HEAD = 1 << 18  # bytes, in which the first line of a rollout ends


def relevant(line: bytearray, at: int, stop: int) -> bool:
    """Whether a line could matter: its type, if it comes before the first nested brace, decides at once."""
    if is_item(line, at):
        return False
    brace = line.find(b"{", at + 1, stop)
    if brace < 0:
        return False
    kind = _type_in(line[at:brace])
    if kind is None:
        return True
    if kind != b"event_msg":
        return kind in (b"token_usage_record", b"session_meta", b"turn_context")
    inner = line.find(b"{", brace + 1, stop)
    kind = _type_in(line[brace : inner if inner >= 0 else stop])
    return kind is None or kind in (b"token_count", b"thread_settings_applied", b"task_started")


def is_item(line: bytearray, at: int) -> bool:
    """Whether a line is an item of the conversation, in the usual order of keys, as most lines are."""
    return line.startswith(_ITEM, at + 38) and line.startswith(_STAMP, at) and line.find(b"{", at + 1, at + 38) < 0


def _type_in(head: bytearray) -> bytes | None:
    start = head.find(b'"type":"')
    return bytes(head[start + 8 : head.find(b'"', start + 8)]) if start >= 0 else None


@dataclass
class Row:
    """A response, or a line that moved the totals: a turn of its own if it has counts."""

    ts: str
    epoch: int
    totals: Totals
    counts: Raw
    model: str
    tier: str
    limits: Raw | None
    replayed: bool | None  # None: the file alone does not say
    line: int
    owner: str = ""  # of a copy, the thread that produced it, if turn ids or the record show it
    response: str = ""  # the vendor's id of the response, of a record
    paired: bool = False  # of a record: epoch and totals are those of its token_count
    beyond: bool = False  # the counts are what the totals moved beyond the last request
    effort: str = ""
    context: Raw | None = None  # what it was given and what it wrote, see read_codex_context


@dataclass
class Thread:
    """One rollout, as far as it was read. All of it is parser state, kept with the cursor."""

    id: str
    parent: str = ""
    spawned: bool = False
    sidechain: bool = False
    human: bool = True
    began: int = 0
    cwd: str = ""
    provider: str = ""
    model: str = ""
    tier: str = ""
    effort: str = ""
    branch: str = ""  # where the thread began
    subagent: str = ""  # its role, or how it was spawned
    last: Totals | None = None
    epoch: int = 0
    named: bool = False  # the first session_meta was read
    own: bool = True  # what is read now is this thread's own, and no copy
    separated: bool = False  # turn ids, or a row of its own, showed where the copies end
    started: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    line: int = 0  # the one being read
    waiting: int = 0  # of the rows, how many were given out without a model before
    lineage: list[tuple[str, bool]] = field(default_factory=list)  # from the parent on, and whether a person began it
    owner: str = ""  # of the turn that is read now, if it is a copy
    burst: bool = False  # of an unsettled thread: rows that were written with the file were given out
    recorded: bool = False  # a record was read
    pending: list[Row] = field(default_factory=list)  # records whose token_count was not read yet, the last of them
    sizes: Raw = field(default_factory=dict)  # of the items since the last response, see read_codex_context
    previous: str = ""  # the identity of the last turn with a context
    lone: tuple[str, int, Totals, Totals] | None = None  # time, epoch, totals and usage of the last count without a record

    def is_settled(self) -> bool:
        """Whether all further rows are known to be this thread's own."""
        return self.own and (self.separated or not self.parent)

    def settle(self) -> None:
        """A row of its own was found: copies come first, so all further rows are its own."""
        self.own = self.separated = True

    def give_out(self) -> None:
        """Forget the rows, which became events. Those without a model wait: once it is named they are given out again."""
        if not self.is_settled():
            self.burst = self.burst or any(in_burst(self, row) for row in self.rows[:1])
        self.rows = [row for row in self.rows if not row.model]
        self.waiting = len(self.rows)

    def ancestors(self) -> list[str]:
        """The threads that this one was forked from, as far as its file names them, the nearest first."""
        return [self.parent, *(name for name, _ in self.lineage if name != self.parent)] if self.parent else []

    def take(self, raw: Raw) -> None:
        """Take in one line. Raises BadRecord."""
        payload = raw.get("payload")
        if type(payload) is not dict:
            return
        kind = raw.get("type")
        if kind == "session_meta":
            self._meta(payload, raw)
        elif kind == "turn_context":
            self._turn(payload)
            self.effort = untrusted.tag(payload.get("effort"))
        elif kind == "token_usage_record":
            self._record(payload, raw)
        elif kind == "event_msg":
            inner = payload.get("type")
            if inner == "token_count":
                self._count(payload, raw)
            elif inner == "thread_settings_applied":
                settings = payload.get("thread_settings")
                if type(settings) is dict:
                    self.tier = tier_of(settings.get("service_tier"))
            elif inner == "task_started" and type(payload.get("turn_id")) is str:
                self.started.append(payload["turn_id"])

    def _meta(self, payload: Raw, raw: Raw) -> None:
        thread_id, source, role = payload.get("id"), payload.get("source"), payload.get("thread_source")
        valid_id = thread_id if type(thread_id) is str and not _MASKED.search(thread_id) else ""
        sidechain = (type(source) is dict and "subagent" in source) or role in ("subagent", "guardian_review")
        human = role == "user" and not sidechain
        if self.named:
            if not self.own and valid_id and valid_id not in (self.id, *(name for name, _ in self.lineage)):
                self.lineage.append((valid_id, human))  # the copy of an ancestor's first line
            return
        self.named = True
        self.id = valid_id or self.id
        kind = untrusted.mapping(source).get("subagent")
        spawn = untrusted.mapping(untrusted.mapping(kind).get("thread_spawn"))
        candidates = [payload.get("forked_from_id"), payload.get("parent_thread_id"), spawn.get("parent_thread_id")]
        self.parent = next((c for c in candidates if type(c) is str and c and not _MASKED.search(c) and c != self.id), "")
        self.spawned = not payload.get("forked_from_id")
        self.sidechain, self.human = sidechain, human
        self.subagent = _subagent_of(payload.get("agent_role"), kind)
        self.branch = untrusted.tag(untrusted.mapping(payload.get("git")).get("branch"))
        self.own = not self.parent
        self.cwd = text_of(payload.get("cwd"))
        self.provider = fields.fit("provider", text_of(payload.get("model_provider")))
        try:
            self.began = when.moment(raw.get("timestamp") or payload.get("timestamp") or "")
        except (ValueError, TypeError, AttributeError):
            self.began = 0

    def _turn(self, payload: Raw) -> None:
        if not self.own:
            turn = payload.get("turn_id")
            late = self._began_in(turn, self.id, self.human)
            if late is not None:
                self.separated = True
                self.own = late
            self.owner = next((name for name, human in self.lineage if self._began_in(turn, name, human)), "")
        model = payload.get("model")
        if type(model) is str and model and not _MASKED.search(model):
            if not self.model:
                for row in (*self.rows, *self.pending):
                    row.model = model
            self.model = model
        if not self.cwd:
            self.cwd = text_of(payload.get("cwd"))

    def _began_in(self, turn: object, thread: str, human: bool) -> bool | None:
        """Whether a turn began in a thread, or one forked from it, by their ids; None if the ids hold no time."""
        at, born = untrusted.uuid_ms(turn), untrusted.uuid_ms(thread)
        if at is None or born is None:
            return None
        return at > born or (at == born and (human or turn in self.started))

    def _count(self, payload: Raw, raw: Raw) -> None:
        info = payload.get("info")
        if type(info) is not dict:
            return
        total, last = (
            read_codex_totals.totals_of(info.get("total_token_usage")),
            read_codex_totals.totals_of(info.get("last_token_usage")),
        )
        before, epoch = self.last, self.epoch
        if (counted := self._new_usage(total, last)) is None:
            return
        try:
            ts = _time_of(raw)
        except events.BadRecord:
            self.last, self.epoch = before, epoch
            raise
        model = info.get("model")
        if type(model) is str and model and not self.model:
            self._turn({"model": model})
        limits = payload.get("rate_limits")
        assert self.last is not None
        moved = read_codex_totals.subtract(self.last, before) if before and epoch == self.epoch else counted
        row = self._row(ts, {} if self.recorded else read_codex_totals.counts_of(counted))
        row.limits = limits if type(limits) is dict else None
        self.rows.append(row)
        if self.recorded:
            self._pair(row, counted, moved)
        elif moved != counted and any(beyond := read_codex_totals.subtract(moved, counted)):
            self.rows.append(self._row(ts, read_codex_totals.counts_of(beyond), beyond=True))
        if not self.pending:
            self.lone = ts, self.epoch, self.last, counted
        self.pending = []

    def _row(self, ts: str, counts: Raw, **more: Any) -> Row:
        """A row of the line that is read now."""
        replayed = False if self.is_settled() else (True if self.separated else None)
        owner = self.owner if replayed else ""
        head = ts, self.epoch, self.last or read_codex_totals.NOTHING, counts, self.model, self.tier
        return Row(*head, None, replayed, self.line, owner, effort=self.effort, **more)

    def _record(self, payload: Raw, raw: Raw) -> None:
        """Take in what one response used."""
        used = read_codex_totals.totals_of(payload.get("usage"))
        if used is None or not any(used):
            return
        ts = _time_of(raw)
        thread, response = text_of(payload.get("thread_id")), untrusted.identity(payload.get("response_id"))
        if thread == self.id:
            self.settle()  # nothing behind a record of its own is a copy
        row = self._row(ts, read_codex_totals.counts_of(used))
        row.tier = tier_of(payload.get("service_tier")) or row.tier
        if thread and thread != self.id and not _MASKED.search(thread):
            row.owner, row.replayed = thread, True
        row.response = self._response_name(response, row.owner or self.id, ts, used)
        if self.lone and self.lone[3] == used and abs(when.moment(ts) - when.moment(self.lone[0])) <= PAIRED_MS:
            before, row.epoch, row.totals, _ = self.lone  # its count stands before it
            row.ts = min(before, ts)
            row.paired, self.lone = True, None
            for other in self.rows:
                if (other.epoch, other.totals, other.response) == (row.epoch, row.totals, "") and not other.beyond:
                    other.counts = {}
        else:
            self.pending = [*self.pending[1 - MOST_PENDING :], row]
        self.recorded = True
        self.rows.append(row)

    def _response_name(self, response: str, owner: str, ts: str, used: Totals) -> str:
        """The identity of a response: the vendor's id if it is unique. A local server counts its responses."""
        if response and (self.provider == "openai" or untrusted.response_id(response)):
            return response
        return f"codex:{owner}:{response or events.digest(ts, used)}"

    def _pair(self, count: Row, last: Totals, moved: Totals) -> None:
        """Find the record of a token_count: its turn had the identity that the count's totals make."""
        if not self.pending:
            return
        by_counts = [
            row for used in (last, moved) for row in self.pending if row.counts == read_codex_totals.counts_of(used)
        ]
        row = (by_counts or self.pending[-1:])[0]
        row.epoch, row.totals, row.paired = count.epoch, count.totals, True
        if not any(other is row for other in self.rows):
            self.rows.append(row)  # it was given out before

    def _new_usage(self, total: Totals | None, last: Totals | None) -> Totals | None:
        """What a token_count adds, or None; moves the totals."""
        before = self.last
        if total is None:
            if last is None or not any(last):
                return None
            self.last = read_codex_totals.add(before, last) if before else last
            return last
        if not any(total) or total == before:
            return None
        if before is None:
            self.last = total
            return (last if any(last) else None) if last is not None else total
        if any(now < then for now, then in zip(total, before, strict=True)):
            spent, had = total[0] + total[2], before[0] + before[2]
            recent = last[0] + last[2] if last is not None else 0
            if spent * 100 >= had * 98 or (last is not None and spent + 2 * recent >= had):
                return None  # an older total, written late
            self.epoch += 1
            self.last = total
            return last if last is not None and any(last) else None
        self.last = total
        if last is not None:
            return last if any(last) else None
        return read_codex_totals.subtract(total, before)


def _time_of(raw: Raw) -> str:
    """When a line was written. Raises BadRecord."""
    try:
        return when.canonical(raw["timestamp"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise events.BadRecord(f"timestamp is {jsonl.value_name(raw.get('timestamp'))}; expected a time") from None


def text_of(value: object) -> str:
    """A string, or "" for anything else and for what was masked."""
    return value if type(value) is str and not value.startswith("[") else ""


def _subagent_of(role: object, kind: object) -> str:
    """The role of a spawned agent, else how it was spawned: "review", {"thread_spawn": {...}}, {"other": "guardian"}."""
    name, more = next(iter(kind.items()), ("", "")) if type(kind) is dict else (kind, "")
    inside = more.get("agent_role") if type(more) is dict else more
    return untrusted.tag(role) or untrusted.tag(inside) or untrusted.tag(name)


def tier_of(value: object) -> str:
    """The served tier, "" for the ordinary one."""
    return value if type(value) is str and value in ("priority", "fast", "flex", "batch", "ultrafast") else ""


def thread_of(path: str) -> Thread:
    """An unread rollout, named after its file until its first line names it."""
    match = _FILE_UUID.search(path)
    return Thread(match[1] if match else os.path.basename(path).removesuffix(read_packed.SUFFIX).removesuffix(".jsonl"))


def id_in(path: str) -> str:
    """The id of a rollout's thread: the one in its first line, else the one in its name."""
    thread = thread_of(path)
    if not path.endswith(read_packed.SUFFIX):
        with contextlib.suppress(OSError, events.BadRecord), open_rollout(path) as file:
            for raw in jsonl.parse(file.read(_HEAD).partition(b"\n")[0], lambda why: None):
                thread.take(raw)
    return thread.id


def open_rollout(path: str) -> io.RawIOBase:
    """A rollout, unpacked if it is compressed (since 0.137 those of more than seven days ago may be). Raises OSError."""
    if path.endswith(read_packed.SUFFIX):
        return read_packed.Unpacked(path)
    return open(path, "rb", buffering=0, opener=regular.opener)


def read(path: str, thread: Thread, cursor: read_lines.Cursor, buffer: bytearray, intake: Intake) -> None:
    """Take in one rollout from the cursor on. Raises OSError, and BadRecord if it cannot be unpacked."""
    with open_rollout(path) as file:
        for number, line in read_lines.lines(file, relevant, cursor, buffer):

            def on_bad_line(why: str, number: int = number) -> None:
                intake.on_bad_line(f"{path}:{number}", why)

            thread.line = number
            for raw in jsonl.parse(line, on_bad_line):
                try:
                    thread.take(raw)
                except events.BadRecord as error:
                    on_bad_line(f"{error}; skipped")


def as_data(thread: Thread) -> dict[str, Any]:
    """A thread as plain data: parser state for a cursor, or a worker's answer."""
    data = {**vars(thread), **{name: [tuple(vars(row).values()) for row in vars(thread)[name]] for name in _ROWS}}
    data["told"] = data.pop("separated")  # the name of 0.1.0, whose cursors are in use
    return {name: value for name, value in data.items() if value or name not in _SINCE}


_ROWS = ("rows", "pending")
# Fields that 0.1.0 does not know: they are left out if they are empty.
_SINCE = ("burst", "recorded", "pending", "lone", "effort", "branch", "subagent", "sizes", "previous")


def from_data(data: dict[str, Any]) -> Thread:
    """The thread that `as_data` made this of."""
    rows = {
        name: [Row(ts, epoch, read_codex_totals.of_cursor(totals), *rest) for ts, epoch, totals, *rest in data.get(name, ())]
        for name in _ROWS
    }
    fields = {**data, **rows, "last": read_codex_totals.of_cursor(data["last"]) if data["last"] else None}
    if lone := data.get("lone"):
        fields["lone"] = (lone[0], lone[1], read_codex_totals.of_cursor(lone[2]), read_codex_totals.of_cursor(lone[3]))
    return Thread(separated=fields.pop("told"), **fields)


def in_burst(thread: Thread, row: Row) -> bool:
    """Whether a row was written with the file, as copies are."""
    return when.moment(row.ts) - thread.began < BURST_MS
