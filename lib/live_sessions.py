"""Keeps up with the log for tok-top: the sessions of the last days, each turn priced once, and sums by minute.

Only what is new in the log is read. Limits, and the total of today, are answered anew when the log has changed, at most
every ten seconds; an import that brings nothing new is repeated the later the longer it took.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import NamedTuple

from tokenops import (
    answers,
    cli,
    cli_dash,
    config,
    costs,
    datadir,
    events,
    price_installed,
    pricing,
    rollup,
    session,
    store_days,
    when,
    workers,
)
from tokenops.events import Event

MINUTE = 60_000
# The rate of a session is that of its last minutes.
RATE_MINUTES = 5
SLOT_MINUTES, SLOTS = 10, 144  # of the chart: 24 hours
# Seconds between two answers about limits, between two imports, and at most. An import that brings nothing may take 0.4
# percent of one processor.
LIMITS_S, IMPORT_S, IMPORT_MOST_S, IMPORT_SHARE = 10.0, 1.9, 15.0, 0.004
READY, LOADING, EMPTY = "ready", "loading", "empty"


class Row(NamedTuple):
    """One session. `usd`: what it cost, None if nothing of it has a price; `unpriced`: turns without one."""

    session: str
    client: str
    project: str
    branch: str
    model: str
    context: int
    per_minute: float
    usd: Decimal | None
    unpriced: int
    cache_hit: float | None
    turns: int
    began: int
    last: int


class Snapshot(NamedTuple):
    """Everything that tok-top shows at a moment. `slots`: (tokens, USD) of ten minutes each, the last one goes on."""

    now: int
    tz: datetime.tzinfo
    state: str
    rows: tuple[Row, ...] = ()
    budgets: tuple[Event, ...] = ()
    slots: tuple[tuple[int, Decimal], ...] = ()
    per_minute: float = 0.0
    hour: Decimal = Decimal(0)
    today: Event | None = None
    note: str = ""
    last_day: str = ""  # of the log, as YYYY-MM-DD in UTC


class Sums:
    """Counts and cost of some turns, to which turns are added and from which they are taken again."""

    __slots__ = ("prompt", "read", "tokens", "turns", "unpriced", "usd")

    def __init__(self) -> None:
        self.tokens = self.turns = self.unpriced = self.read = self.prompt = 0
        self.usd = Decimal(0)

    def add(self, turn: Turn, sign: int = 1) -> None:
        """Add a turn, or take it away (sign -1)."""
        self.tokens += sign * turn.tokens
        self.turns += sign
        self.read += sign * turn.read
        self.prompt += sign * turn.context
        if turn.usd is None:
            self.unpriced += sign
        else:
            self.usd = pricing.add(self.usd, turn.usd if sign > 0 else -turn.usd)


class Turn(NamedTuple):
    """A turn, priced."""

    event: Event
    at: int
    tokens: int
    context: int
    read: int
    usd: Decimal | None


class Running:
    """One session: its turns' sums, its tokens by minute, and its latest turn of the main chain."""

    def __init__(self) -> None:
        self.sums = Sums()
        self.minutes: dict[int, int] = {}
        self.began, self.last = 1 << 62, 0
        self.latest: Turn | None = None

    def add(self, turn: Turn, sign: int = 1) -> None:
        """Add a turn, or take it away (sign -1)."""
        self.sums.add(turn, sign)
        minute = turn.at // MINUTE
        self.minutes[minute] = self.minutes.get(minute, 0) + sign * turn.tokens
        if sign > 0:
            self.began, self.last = min(self.began, turn.at), max(self.last, turn.at)
            if self.latest is None or _rank(turn) >= _rank(self.latest):
                self.latest = turn


def _rank(turn: Turn) -> tuple[bool, int]:
    """Of two turns the later one of the main chain shows a session's model and context."""
    return not turn.event.get("sidechain"), turn.at


class Index:
    """The turns of the days that still grow, each priced once; what changed since is added or replaced."""

    def __init__(self, catalogue: pricing.Catalogue) -> None:
        self.grouping = rollup.Grouping((), datetime.UTC, catalogue)
        self.turns: dict[str, Turn] = {}
        self.sessions: dict[str, Running] = {}
        self.minutes: dict[int, Sums] = {}

    def take(self, records: Sequence[Event]) -> bool:
        """Bring the index up to the records, which are all that counts; whether anything changed."""
        changed, count = False, 0
        for event in records:
            if event["kind"] != "turn":
                continue
            count += 1
            before = self.turns.get(event["id"])
            if before is not None:
                if before.event is event or before.event == event:
                    continue
                self._count(before, -1)
            changed = True
            turn = self.turns[event["id"]] = self._turn(event)
            self._count(turn, 1)
        if count != len(self.turns):  # some stand under another id now, or their day is over
            self._forget({event["id"] for event in records if event["kind"] == "turn"})
            changed = True
        return changed

    def _forget(self, present: set[str]) -> None:
        for name in self.turns.keys() - present:
            self._count(self.turns.pop(name), -1)

    def _turn(self, event: Event) -> Turn:
        (row,) = costs.price_rows(rollup.roll_up([event], self.grouping, answers.ignore), self.grouping.catalogue) or [{}]
        usd = Decimal(row["cost_usd"]) if "cost_usd" in row else None
        size, read = events.context_size(event), event.get("cache_read_tokens", 0)
        return Turn(event, when.moment(event["ts"]), events.token_sum(event), size, read, usd)

    def _count(self, turn: Turn, sign: int) -> None:
        self.minutes.setdefault(turn.at // MINUTE, Sums()).add(turn, sign)
        name = turn.event.get("session_id")
        if name:
            running = self.sessions.setdefault(name, Running())
            running.add(turn, sign)
            if not running.sums.turns:
                del self.sessions[name]

    def rows(self, now: int, earlier: dict[str, Event]) -> tuple[Row, ...]:
        """A row per session. `earlier`: what sessions of closed days spent before."""
        return tuple(self._row(name, running, now, earlier.get(name, {})) for name, running in self.sessions.items())

    def _row(self, name: str, running: Running, now: int, before: Event) -> Row:
        sums, latest = running.sums, running.latest
        assert latest is not None
        event, minute = latest.event, now // MINUTE
        lately = sum(running.minutes.get(minute - back, 0) for back in range(RATE_MINUTES))
        prompt = sums.prompt + events.context_size(before)
        read = sums.read + before.get("cache_read_tokens", 0)
        usd = pricing.add(sums.usd, Decimal(before.get("cost_usd", "0")))
        has_price = sums.turns > sums.unpriced or "cost_usd" in before
        return Row(
            name,
            str(event.get("client", "")),
            str(event.get("project", "")),
            str(event.get("branch", "")),
            str(event.get("model", "unknown")),
            latest.context,
            lately / RATE_MINUTES,
            usd if has_price else None,
            sums.unpriced + sum(item["turns"] for item in before.get("unpriced", ())),
            read / prompt if prompt else None,
            sums.turns + before.get("turns", 0),
            min(running.began, when.moment(before["from"])) if "from" in before else running.began,
            running.last,
        )

    def slots(self, now: int) -> tuple[tuple[int, Decimal], ...]:
        """Tokens and USD of the last slots of ten minutes, the one that goes on last."""
        last = now // MINUTE // SLOT_MINUTES
        sums = {last - back: (0, Decimal(0)) for back in reversed(range(SLOTS))}
        for minute, each in self.minutes.items():
            slot = minute // SLOT_MINUTES
            if slot in sums:
                tokens, usd = sums[slot]
                sums[slot] = tokens + each.tokens, pricing.add(usd, each.usd)
        return tuple(sums.values())

    def lately(self, now: int, minutes: int) -> tuple[int, Decimal]:
        """Tokens and USD of the last minutes."""
        span = [self.minutes[at] for back in range(minutes) if (at := now // MINUTE - back) in self.minutes]
        return sum(each.tokens for each in span), sum((each.usd for each in span), Decimal(0))


class Quiet:
    """Diagnostics of a program that draws on the whole screen: the last line is shown in it."""

    def __init__(self) -> None:
        self.note = ""

    def say(self, text: str) -> None:
        """Something to know."""
        self.note = text

    def warn(self, text: str) -> None:
        """Something that makes the answer less than it could be."""

    def on_bad_line(self, location: str, why: str) -> None:
        """A line that was skipped; tok-sync and tok-log verify name them."""

    def on_unreadable(self, path: str, error: OSError) -> None:
        """A file that could not be read."""
        self.note = f"{path}: {error.strerror}"


class Live:
    """What tok-top shows, kept up to date. `clock`: seconds that only grow; `effort`: of processor time."""

    def __init__(
        self,
        folder: str,
        commands: str,
        clock: Callable[[], float] = time.monotonic,
        effort: Callable[[], float] = time.process_time,
    ) -> None:
        self.session, self.clock, self.effort = cli_dash.session(folder), clock, effort
        self.intake = cli_dash.Intake(folder, commands, is_silent=True)
        self.open_days = store_days.OpenDays(folder)
        self.quiet = Quiet()
        self.index: Index | None = None
        self.key: object = None  # what the log was made of when it was read last
        self.records: list[Event] = []
        self.inputs: object = None
        self.settings = config.Config({}, "", [])
        self.earlier: tuple[str, dict[str, Event]] = ("", {})
        self.next_import = self.next_limits = 0.0
        self.limits_key: object = None
        self.budgets: tuple[Event, ...] = ()
        self.today: Event | None = None
        self.parts_key: object = None
        self.parts: tuple[tuple[Row, ...], tuple[tuple[int, Decimal], ...], float, Decimal] = ((), (), 0.0, Decimal(0))

    def blank(self) -> Snapshot:
        """What is shown until the log was read."""
        return Snapshot(self.session.now(), when.zone(None), LOADING, note="reading the log")

    def refresh(self) -> Snapshot:
        """What is to be shown now, after what is new was imported. Raises Fault, OSError."""
        self._import()
        now, tz, folder = self.session.now(), when.zone(None), self.session.folder
        index = self._prepare(now)
        files = store_days.files_of(folder)
        first = store_days.first_open(now)
        key = (
            first,
            {day: files[day] for day in files if day >= store_days.near(first)[0]},
            store_days.projects_stamp(folder),
        )
        if key != self.key:
            self.records = self.open_days.events(first)
            index.take(self.records)
            self.key = key
        self._answer(now, tz, index, key)
        state = READY if files else LOADING if self._is_loading() else EMPTY
        parts = (self.key, now // MINUTE, self.earlier[0])
        if parts != self.parts_key:  # a few hundred sessions take some milliseconds, which an idle terminal need not spend
            self.parts_key = parts
            tokens, _ = index.lately(now, RATE_MINUTES)
            rows, slots = index.rows(now, self.earlier[1]), index.slots(now)
            self.parts = rows, slots, tokens / RATE_MINUTES, index.lately(now, 60)[1]
        rows, slots, rate, hour = self.parts
        return Snapshot(
            now, tz, state, rows, self.budgets, slots, rate, hour, self.today, self.quiet.note, max(files, default="")
        )

    def _is_loading(self) -> bool:
        return datadir.last_sync(self.session.folder) is None and not self.intake.first_is_over

    def _import(self) -> None:
        """Import what is new, unless an import that found nothing was too long for that."""
        if self.clock() < self.next_import:
            return
        folder = self.session.folder
        if datadir.last_sync(folder) is None:
            self.intake.before_answer(False)
            return
        begun, before = self.effort(), store_days.files_of(folder)
        self.quiet.note = ""
        try:
            session.catch_up(folder, os.environ, self.session.home, cli.settings, self.session.now, self.quiet, _no_progress)
        except session.Fault as fault:
            self.quiet.note = str(fault)
        pause = (self.effort() - begun) / IMPORT_SHARE if store_days.files_of(folder) == before else IMPORT_S
        self.next_import = self.clock() + min(max(pause, IMPORT_S), IMPORT_MOST_S)

    def _prepare(self, now: int) -> Index:
        """The index; a new one if prices or settings have changed, or a day is over."""
        path = config.path_of(os.environ, self.session.home)
        installed = price_installed.state_path(self.session.folder)
        inputs: list[object] = [_stamp(path), _stamp(config.pricing_path(self.settings, os.environ)), _stamp(installed)]
        inputs.append(store_days.first_open(now))
        if self.index is None or inputs != self.inputs:
            self.settings = self.session.settings()
            self.index = Index(self.session.catalogue())
            inputs[1] = _stamp(config.pricing_path(self.settings, os.environ))
            self.key = self.limits_key = self.parts_key = None
            self.next_limits = 0.0
            self.inputs = inputs
        return self.index

    def _answer(self, now: int, tz: datetime.tzinfo, index: Index, key: object) -> None:
        """Limits, today's total, and what sessions spent on closed days."""
        due = (key, now // MINUTE)
        if due == self.limits_key or self.clock() < self.next_limits:
            return
        catalogue = index.grouping.catalogue
        log = session.Log(self.session.folder, now, self.settings, lambda: catalogue, tz, "", self.session.memory)
        self.budgets = tuple(answers.budget(log).rows)
        since = when.stamp(when.parse_since("today", now, tz))
        self.today = answers.spend_of_records(self.records, catalogue, tz, (), since=since).total
        first = store_days.first_open(now)
        if self.earlier[0] != first:
            closed = answers.spend(log, ("session",), "", f"{first}T00:00:00.000Z")
            self.earlier = first, {row["session_id"]: row for row in closed.rows if "session_id" in row}
        self.limits_key, self.next_limits = due, self.clock() + LIMITS_S


def trace_lines(live: Live, name: str) -> list[str]:
    """A session turn by turn, as tok-trace prints it. Raises Fault."""
    from tokenops import answers_work, trace

    traced = answers_work.trace(live.session.log(fresh=False), name)
    return trace.table(traced.session, traced.steps, traced.findings, "table", True).rstrip("\n").split("\n")


def _no_progress(what: str, kept: str = "") -> AbstractContextManager[workers.Progress]:
    return contextlib.nullcontext(workers.SILENT)


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino
