"""One run of tok-ship: what is new goes out in batches; what is acknowledged is remembered.

At least once on the way, and once in effect: a row's identity makes a copy harmless. A batch is tried again with growing
pauses while patience lasts. One that the target calls bad is halved until the bad rows stand alone; those are put aside,
and the rest goes on. One process ships to a target at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from tokenops import (
    etiquette,
    events,
    jsonl,
    pricing,
    ship_clickhouse,
    ship_folder,
    ship_otlp,
    ship_outbox,
    ship_rows,
    ship_targets,
)
from tokenops.etiquette import Trouble
from tokenops.events import Event
from tokenops.ship_outbox import Outbox, Part
from tokenops.ship_rows import Row, Who
from tokenops.ship_targets import Target

Reject = Callable[[str, str], None]
_STAY = frozenset(events.KINDS) - frozenset(ship_rows.KINDS)
# So many bad rows and no good one: it is not the rows.
_ALL_BAD = 32
# Where a batch goes: raises Trouble unless it is acknowledged.
Deliver = Callable[[list[Row]], None]


class Edge(NamedTuple):
    """The clock, chance and sockets of a run."""

    clock: Callable[[], int]
    pause: Callable[[float], None]
    draw: Callable[[], float]
    send: ship_targets.Send
    patience_ms: int


class Job(NamedTuple):
    """What is shipped how."""

    log: str
    target: Target
    catalogue: pricing.Catalogue
    who: Who
    since: str
    batch: int


class Outcome:
    """What came of a run so far."""

    def __init__(self) -> None:
        self.rows = self.batches = self.refused = self.tries = 0
        self.trouble: Trouble | None = None


def made(job: Job, lines: Iterable[bytes], at: int, reject: Reject) -> Iterator[Row]:
    """The rows of some lines of the log; kinds that are not shipped are left out."""
    for line in lines:
        record = orjson.loads(line)
        if (row := row_of(job, record, at, reject)) is not None:
            yield row


def row_of(job: Job, record: Event, at: int, reject: Reject) -> Row | None:
    """The row of a record; one that can be none is told to `reject`, one of a kind that never leaves is left out."""
    if record.get("kind") in _STAY:
        return None
    try:
        return ship_rows.row_of(record, job.catalogue, job.who, at)
    except (ship_rows.Unshippable, ValueError, ArithmeticError, TypeError, KeyError) as error:
        reject(str(record.get("id")), f"{error}; not shipped")
        return None


def mark(job: Job) -> str:
    """What decides how rows look besides the records: where it changes all days are looked at again."""
    return f"{job.catalogue.digest} {job.who.machine} {job.who.user} {job.target.kind} {job.target.format}"


def fresh(job: Job, box: Outbox, part: Part, at: int, reject: Reject) -> list[tuple[Row, bytes]]:
    """The rows of a day that have not arrived yet, with their digests."""
    known = box.known(part.day)
    rows = made(job, part.lines, at, reject)
    taken = (
        ship_rows.same_row(name, chosen, f"{part.day}T00:00:00.000Z", job.who) for name, chosen in sorted(part.same.items())
    )
    found = ((row, ship_outbox.digest(row)) for row in itertools.chain(rows, taken))
    return [(row, name) for row, name in found if name not in known]


def deliver_to(job: Job, edge: Edge) -> Deliver:
    """How a batch reaches a target over HTTP."""
    target = job.target
    if target.kind == "clickhouse":
        return lambda rows: ship_clickhouse.insert(target, edge.send, ship_clickhouse.body_of(rows), edge.clock())
    return lambda rows: ship_otlp.logs(target, edge.send, job.who, rows, edge.clock())


def run(job: Job, box: Outbox, edge: Edge, refuse: jsonl.OnBadLine, reject: Reject, told: Callable[[int], None]) -> Outcome:
    """Ship what of the log has not arrived yet. Raises OSError, ship_folder.NoEngine."""
    done = Outcome()
    box.state = etiquette.after_request(box.state, edge.clock())
    totals = ship_otlp.Totals(box.folder)
    try:
        for part in ship_outbox.parts(job.log, box.days, job.since, refuse):
            if job.target.kind == "folder":
                _filed(job, part, edge, reject, done)
            else:
                _posted(job, box, part, edge, reject, done)
            if job.target.kind == "otlp":
                totals.put(part.day, made(job, part.lines, edge.clock(), lambda place, why: None))
            told(sum(map(len, part.lines)))
            if part.files:
                box.days[part.day] = part.files
        if job.target.kind == "otlp":
            totals.save()
            persistently(lambda: ship_otlp.metrics(job.target, edge.send, totals, job.who, edge.clock()), edge, done)
        box.state = etiquette.after_answer(box.state, edge.clock(), {})
    except Trouble as trouble:
        done.trouble = trouble
        box.state = etiquette.after_trouble(box.state, edge.clock(), trouble, job.target.fingerprint, {})
    finally:
        box.save()
    return done


def _filed(job: Job, part: Part, edge: Edge, reject: Reject, done: Outcome) -> None:
    """A day of a folder: its file is written anew with what it held."""
    path = ship_folder.path_of(job.target.url, part.day, job.who.machine, job.target.format)
    before = ship_folder.read(path)
    lines = ship_folder.joined(part.lines, part.same, before)
    rows = list(made(job, lines, edge.clock(), reject))
    if list(map(_said, rows)) == list(map(_said, before)):
        return
    ship_folder.write(path, rows, job.target.format)
    done.rows += len(rows)
    done.batches += 1


def _said(row: Row) -> bytes:
    """What a row says, whether it was made now or read from a file."""
    made = {
        name: one for name, one in row.items() if one not in ("", 0, None, False) or (name == "used" and one is not None)
    }
    if made.get("priced_from"):
        made["priced_usd"] = row["priced_usd"]
    types: dict[str, Callable[[Any], object]] = {"money": Decimal, "real": float}
    return ship_rows.content_of({name: types.get(ship_rows.COLUMNS[name], _as_is)(one) for name, one in made.items()})


def _as_is(value: object) -> object:
    return value


def _posted(job: Job, box: Outbox, part: Part, edge: Edge, reject: Reject, done: Outcome) -> None:
    """A day's rows over HTTP. Raises Trouble."""
    rows = fresh(job, box, part, edge.clock(), reject)
    deliver = deliver_to(job, edge)
    for first in range(0, len(rows), job.batch):
        batch = rows[first : first + job.batch]
        bad = sent([row for row, _ in batch], deliver, edge, done)
        if bad:
            box.refused(bad)
        box.arrived(part.day, [name for _, name in batch])


def stream(job: Job, records: Iterable[Event], edge: Edge, box: Outbox, reject: Reject) -> Outcome:
    """Ship records that are given instead of the log's. Nothing is remembered of them but what is refused."""
    done = Outcome()
    if job.target.kind == "folder":
        days: dict[str, list[bytes]] = {}
        for record in records:
            if row_of(job, record, edge.clock(), reject) is not None:
                days.setdefault(record["ts"][:10], []).append(jsonl.line_of(record))
        for day, lines in sorted(days.items()):
            _filed(job, Part(day, "", lines, {}), edge, reject, done)
        return done
    rows = (row for row in (row_of(job, record, edge.clock(), reject) for record in records) if row is not None)
    deliver = deliver_to(job, edge)
    try:
        while batch := list(itertools.islice(rows, job.batch)):
            bad = sent(batch, deliver, edge, done)
            if bad:
                box.refused(bad)
    except Trouble as trouble:
        done.trouble = trouble
    return done


def sent(rows: list[Row], deliver: Deliver, edge: Edge, done: Outcome) -> list[tuple[Row, str]]:
    """Deliver a batch; the rows of it that the target refuses. Raises Trouble."""
    try:
        persistently(lambda: deliver(rows), edge, done)
    except Trouble as trouble:
        if trouble.kind == ship_targets.PARTIAL:
            done.refused += len(rows)
            return [(row, trouble.why) for row in rows]
        if trouble.kind != ship_targets.BAD:
            raise
        if len(rows) == 1:
            done.refused += 1
            if done.refused >= _ALL_BAD and not done.rows:
                raise Trouble(
                    etiquette.CHANGED, f"{trouble.why}, whatever it is sent: check the address and its tables"
                ) from None
            return [(rows[0], trouble.why)]
        half = len(rows) // 2
        return sent(rows[:half], deliver, edge, done) + sent(rows[half:], deliver, edge, done)
    done.rows += len(rows)
    done.batches += 1
    return []


def persistently(send: Callable[[], None], edge: Edge, done: Outcome) -> None:
    """Try until it works, is hopeless, or patience is over. Raises Trouble."""
    waited = 0
    for tries in itertools.count():
        done.tries += 1
        try:
            send()
            return
        except Trouble as trouble:
            wait = ship_targets.pause_ms(tries, trouble, edge.draw())
            waited += wait
            if ship_targets.hopeless(trouble) or waited > edge.patience_ms:
                raise
            edge.pause(wait / 1000)


def leaving(job: Job, box: Outbox, records: Iterable[Event] | None, again: bool, at: int, reject: Reject) -> list[Row]:
    """The rows that a run would send now."""
    if records is not None:
        return [row for row in (row_of(job, record, at, reject) for record in records) if row is not None]
    found: list[Row] = []
    for part in ship_outbox.parts(job.log, box.days, job.since, lambda place, why: None):
        if job.target.kind == "folder" or again:
            found += made(job, part.lines, at, reject)
        else:
            found += (row for row, _ in fresh(job, box, part, at, reject))
    return found


def left_alone(box: Outbox, target: Target, edge: Edge) -> str:
    """Why a target is not asked now, or ""."""
    state = box.state = etiquette.with_clock_set_back(box.state, edge.clock())
    due = etiquette.due(state, edge.clock(), 0, target.fingerprint, 0, 0.0, force=True)
    if due.status == etiquette.STOPPED:
        return "it refused this credential; give it another one"
    return f"it is left alone for a while ({state.why})" if due.status == etiquette.WAITING else ""


def set_up(target: Target, edge: Edge) -> int:
    """Make what a target needs; how many statements that took. Raises Trouble."""
    return ship_clickhouse.setup(target, edge.send, edge.clock()) if target.kind == "clickhouse" else 0
