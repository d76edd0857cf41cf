"""Runs tok-ship: sends what is new in batches and remembers what was acknowledged.

Rows are sent at least once and count once: a row's id makes copies harmless. A failed batch is retried with growing
pauses while patience lasts. A batch that the target rejects is halved until the bad rows are isolated; those are put
aside, and the rest is sent. One process ships to a target at a time.
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
from tokenops.ship_rows import Owner, Row
from tokenops.ship_targets import DayStore, Poster, Target

OnUnshippable = Callable[[str, str], None]  # id of a record, and why it is not sent
_STAY = frozenset(events.KINDS) - frozenset(ship_rows.KINDS)
# So many bad rows and no good one: it is not the rows.
_ALL_BAD = 32


class Runtime(NamedTuple):
    """What a run needs from outside: the clock, a pause in seconds, chance, and an HTTP POST."""

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
    owner: Owner
    since: str
    batch: int


class Outcome:
    """What a run has done so far."""

    def __init__(self) -> None:
        self.rows = self.batches = self.refused = 0
        self.trouble: Trouble | None = None


def poster(job: Job, box: Outbox, runtime: Runtime) -> Poster | None:
    """What sends rows to a target over HTTP; None for a target that holds days as files.

    Raises ValueError for a kind that is in `ship_targets.KINDS` and not here.
    """
    match job.target.kind:
        case "clickhouse":
            return ship_clickhouse.ClickHouse(job.target, runtime.send, runtime.clock)
        case "otlp":
            return ship_otlp.Otlp(job.target, runtime.send, runtime.clock, job.owner, box.folder)
        case "folder":
            return None
    raise ValueError(f"ship_targets.KINDS has a kind without a sender: {job.target.kind}")


def day_store(job: Job) -> DayStore:
    """What holds days as files."""
    return ship_folder.Folder(job.target.url, job.owner.machine, job.target.format, job.target.tags)


def rows_of(job: Job, lines: Iterable[bytes], at: int, on_unshippable: OnUnshippable) -> Iterator[Row]:
    """The rows of some lines of the log; kinds that are not shipped are left out."""
    for line in lines:
        record = orjson.loads(line)
        if (row := row_of(job, record, at, on_unshippable)) is not None:
            yield row


def row_of(job: Job, record: Event, at: int, on_unshippable: OnUnshippable) -> Row | None:
    """The row of a record. None for a kind that is not shipped, and, after `on_unshippable`, if it cannot be a row."""
    if record.get("kind") in _STAY:
        return None
    try:
        return ship_rows.row_of(record, job.catalogue, job.owner, at, job.target.tags)
    except (ship_rows.Unshippable, ValueError, ArithmeticError, TypeError, KeyError) as error:
        on_unshippable(str(record.get("id")), f"{error}; not shipped")
        return None


def mark(job: Job) -> str:
    """What decides how rows look besides the records: when it changes, all days are looked at again."""
    owner = job.owner
    parts = (job.catalogue.digest, owner.machine, owner.user, job.target.kind, job.target.format)
    return " ".join((*parts, *sorted(job.target.tags), *owner.names, str(owner.ships_names)))


def unsent_rows(job: Job, box: Outbox, part: Part, at: int, on_unshippable: OnUnshippable) -> list[tuple[Row, bytes]]:
    """The rows of a day that have not arrived yet, with their digests."""
    acknowledged = box.acknowledged_digests(part.day)
    rows = rows_of(job, part.lines, at, on_unshippable)
    same = (
        ship_rows.same_row(name, first, f"{part.day}T00:00:00.000Z", job.owner) for name, first in sorted(part.same.items())
    )
    digests = ((row, ship_outbox.digest(row)) for row in itertools.chain(rows, same))
    return [(row, digest) for row, digest in digests if digest not in acknowledged]


def run(
    job: Job,
    box: Outbox,
    runtime: Runtime,
    on_bad_line: jsonl.OnBadLine,
    on_unshippable: OnUnshippable,
    progress: Callable[[int], None],
) -> Outcome:
    """Ship what has not arrived yet of the log. Raises OSError, ship_folder.NoEngine."""
    outcome, post = Outcome(), poster(job, box, runtime)
    box.state = etiquette.after_request(box.state, runtime.clock())
    try:
        for part in ship_outbox.parts(job.log, box.days, job.since, on_bad_line):
            if post is None:
                _write_day(job, part, runtime, on_unshippable, outcome)
            else:
                _post_day(job, box, part, post, runtime, on_unshippable, outcome)
                post.add_day(part.day, rows_of(job, part.lines, runtime.clock(), lambda location, why: None))
            progress(sum(map(len, part.lines)))
            if part.files:
                box.days[part.day] = part.files
        if post is not None:
            retry(post.finish, runtime)
        box.state = etiquette.after_answer(box.state, runtime.clock(), {})
    except Trouble as trouble:
        outcome.trouble = trouble
        box.state = etiquette.after_trouble(box.state, runtime.clock(), trouble, job.target.fingerprint, {})
    finally:
        box.save()
    return outcome


def _write_day(job: Job, part: Part, runtime: Runtime, on_unshippable: OnUnshippable, outcome: Outcome) -> None:
    """Write the file of a day anew, with what it held."""
    store = day_store(job)
    before = store.read(part.day)
    lines = ship_folder.merged_lines(part.lines, part.same, before)
    rows = list(rows_of(job, lines, runtime.clock(), on_unshippable))
    if list(map(_content, rows)) == list(map(_content, before)):
        return
    store.write(part.day, rows)
    outcome.rows += len(rows)
    outcome.batches += 1


def _content(row: Row) -> bytes:
    """What a row says, whether it was made now or read from a file."""
    fields = {
        name: value
        for name, value in row.items()
        if value not in ("", 0, None, False) or (name == "used" and value is not None)
    }
    if fields.get("priced_from"):
        fields["priced_usd"] = row["priced_usd"]
    types: dict[str, Callable[[Any], object]] = {"money": Decimal, "real": float}
    return ship_rows.content_of({name: types.get(ship_rows.COLUMNS[name], _as_is)(value) for name, value in fields.items()})


def _as_is(value: object) -> object:
    return value


def _post_day(
    job: Job, box: Outbox, part: Part, post: Poster, runtime: Runtime, on_unshippable: OnUnshippable, outcome: Outcome
) -> None:
    """Send a day's rows over HTTP. Raises Trouble."""
    rows = unsent_rows(job, box, part, runtime.clock(), on_unshippable)
    for first in range(0, len(rows), job.batch):
        batch = rows[first : first + job.batch]
        refused = deliver_batch([row for row, _ in batch], post, runtime, outcome)
        if refused:
            box.add_refused(refused)
        box.add_acknowledged(part.day, [digest for _, digest in batch])


def stream(job: Job, records: Iterable[Event], runtime: Runtime, box: Outbox, on_unshippable: OnUnshippable) -> Outcome:
    """Ship these records instead of the log's. Nothing is remembered of them but what is refused."""
    outcome, post = Outcome(), poster(job, box, runtime)
    if post is None:
        days: dict[str, list[bytes]] = {}
        for record in records:
            if row_of(job, record, runtime.clock(), on_unshippable) is not None:
                days.setdefault(record["ts"][:10], []).append(jsonl.line_of(record))
        for day, lines in sorted(days.items()):
            _write_day(job, Part(day, "", lines, {}), runtime, on_unshippable, outcome)
        return outcome
    candidates = (row_of(job, record, runtime.clock(), on_unshippable) for record in records)
    rows = (row for row in candidates if row is not None)
    try:
        while batch := list(itertools.islice(rows, job.batch)):
            if refused := deliver_batch(batch, post, runtime, outcome):
                box.add_refused(refused)
    except Trouble as trouble:
        outcome.trouble = trouble
    return outcome


def deliver_batch(rows: list[Row], post: Poster, runtime: Runtime, outcome: Outcome) -> list[tuple[Row, str]]:
    """Deliver a batch; the rows of it that the target refuses, each with why. Raises Trouble."""
    try:
        retry(lambda: post.deliver(rows), runtime)
    except Trouble as trouble:
        if trouble.kind == ship_targets.PARTIAL:
            outcome.refused += len(rows)
            return [(row, trouble.why) for row in rows]
        if trouble.kind != ship_targets.BAD_ROWS:
            raise
        if len(rows) == 1:
            outcome.refused += 1
            if outcome.refused >= _ALL_BAD and not outcome.rows:
                why = f"{trouble.why} for every row: check the address and its tables"
                raise Trouble(etiquette.CHANGED, why) from None
            return [(rows[0], trouble.why)]
        half = len(rows) // 2
        return deliver_batch(rows[:half], post, runtime, outcome) + deliver_batch(rows[half:], post, runtime, outcome)
    outcome.rows += len(rows)
    outcome.batches += 1
    return []


def retry(send: Callable[[], None], runtime: Runtime) -> None:
    """Try until it works, is hopeless, or patience is over; waiting for answers counts. Raises Trouble."""
    waited = 0
    for tries in itertools.count():
        began = runtime.clock()
        try:
            send()
            return
        except Trouble as trouble:
            wait = ship_targets.pause_ms(tries, trouble, runtime.draw())
            waited += wait + max(runtime.clock() - began, 0)
            if ship_targets.hopeless(trouble) or waited > runtime.patience_ms:
                raise
            runtime.pause(wait / 1000)


def rows_to_send(
    job: Job, box: Outbox, records: Iterable[Event] | None, again: bool, at: int, on_unshippable: OnUnshippable
) -> list[Row]:
    """The rows that a run would send now."""
    if records is not None:
        return [row for row in (row_of(job, record, at, on_unshippable) for record in records) if row is not None]
    rows: list[Row] = []
    for part in ship_outbox.parts(job.log, box.days, job.since, lambda location, why: None):
        if job.target.kind == "folder" or again:
            rows += rows_of(job, part.lines, at, on_unshippable)
        else:
            rows += (row for row, _ in unsent_rows(job, box, part, at, on_unshippable))
    return rows


def reason_to_wait(box: Outbox, target: Target, runtime: Runtime) -> str:
    """Why a target is not asked now, or ""."""
    state = box.state = etiquette.with_clock_set_back(box.state, runtime.clock())
    due = etiquette.due(state, runtime.clock(), 0, target.fingerprint, 0, 0.0, force=True)
    if due.status == etiquette.STOPPED:
        return "it refused this credential; change it"
    return f"it is left alone for a while ({state.why})" if due.status == etiquette.WAITING else ""


def set_up(job: Job, box: Outbox, runtime: Runtime) -> int:
    """Create what a target needs; how many statements that took. Raises Trouble."""
    post = poster(job, box, runtime)
    return 0 if post is None else post.setup()
