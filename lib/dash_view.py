"""Gathers everything that the dashboard shows at one moment; a part that fails is `{error, hint}`.

Use one thread only: values that do not change stay in memory between answers.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import time
from collections.abc import Callable, Container, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import (
    __version__,
    answers,
    answers_context,
    answers_work,
    dash_cache,
    dash_query,
    datadir,
    plans,
    pricing,
    readers,
    store_days,
    when,
)
from tokenops.answers_context import Causes
from tokenops.answers_work import Trace
from tokenops.dash_cache import Tasks
from tokenops.dash_query import Ask
from tokenops.dash_spend import Reader, Spent
from tokenops.events import Event
from tokenops.session import BadRequest, Fault, Log, NotFound, Session
from tokenops.store_days import Files, Recent

# A log that was not synced for so long is out of date.
STALE_MS = 15 * 60_000
LOADING, EMPTY, READY = "loading", "empty", "ready"
RHYTHM, LIMITS = "rhythm", "limits"
# Hours of the week and a calendar say nothing of a shorter span.
LEAST_RHYTHM_MS = 3 * when.DAY


class View(NamedTuple):
    """What is shown. `as_of`: when the log was last synced, "" if never; `parts`: what other modules add, by name.

    `since`: the start of the span in words, also if the address leaves it to the page.
    """

    ask: Ask
    since: str
    now: int
    tz: datetime.tzinfo
    as_of: str
    state: str
    demo: bool
    spent: Spent
    budgets: list[Event] | Event
    plans: Mapping[str, str]  # provider -> the names of its plans for people
    rules: Mapping[str, float]
    tasks: list[Event]
    last_day: str  # of the log
    parts: Mapping[str, Event]
    version: str = __version__
    drawn: dict[str, Any] | None = None  # sections of the page that another page of the same numbers need not draw again


class Numbers(NamedTuple):
    """What a view shows beside the slow parts, which is the same until the log, a setting or the minute is another.

    `exact`: what is asked for, with the span that the page chose; `drawn`: see View.
    """

    since: str
    exact: Ask
    spent: Spent
    budgets: list[Event] | Event
    plans: Mapping[str, str]
    rules: Mapping[str, float]
    tasks: list[Event]
    drawn: dict[str, Any]


class Story(NamedTuple):
    """What the page of a session shows, or with `explained` that of one of its turns. Otherwise as View."""

    ask: Ask
    now: int
    tz: datetime.tzinfo
    as_of: str
    state: str
    demo: bool
    trace: Trace
    explained: Event | None
    causes: Causes | None = None  # what filled the context; on the page of a session only
    version: str = __version__


Page = View | Story


def is_stale(page: Page) -> bool:
    """Whether the log is behind. Nothing is imported into demo data."""
    return bool(page.as_of) and not page.demo and page.now - when.moment(page.as_of) > STALE_MS


# A slow part: of the log and what the address asks for; None if it must be called again, since there is more to read.
Part = Callable[[Session, Ask], Event | None]
# A slow part is computed after an answer, not for it, and so seldom that it takes a 300th of the time.
SELDOM = 300
# Of how many spans and filters a slow part is remembered.
MOST_ASKS = 8
PENDING: Event = {"pending": True}


class Slow:
    """A slow part: the page shows its last value, and `renew` is called when there is time.

    `by_span`: each span has its own.
    """

    def __init__(self, part: Part, clock: Callable[[], float], by_span: bool) -> None:
        self.part, self.clock, self.by_span = part, clock, by_span
        self.values: dict[Ask, tuple[Event, str, float]] = {}  # value, its key, and when it may be computed again
        self.ask, self.turn, self.is_pending = Ask(), 0, False

    def value(self, session: Session, key: str, ask: Ask, is_patient: bool) -> Event:
        """The last value; PENDING if there is none, unless the caller is patient."""
        self.ask = self._ask(ask)
        if self.ask not in self.values and is_patient:
            while not self._renew(session, key):
                pass
        self.is_pending = self.ask not in self.values
        return PENDING if self.is_pending else self.values[self.ask][0]

    def renew(self, session: Session, key: str) -> bool:
        """Compute it again if its inputs have changed and it was not computed recently; whether that is finished."""
        before = self.values.get(self.ask)
        if before is not None and (before[1] == key or self.clock() < before[2]):
            return True
        is_finished = self._renew(session, key)
        self.is_pending = self.is_pending and not is_finished
        self.turn += is_finished and (before is None or before[0] != self.values[self.ask][0])
        return is_finished

    def _renew(self, session: Session, key: str) -> bool:
        begun, seldom = self.clock(), SELDOM
        try:
            value = self.part(session, self.ask)
        except (Fault, OSError) as fault:
            # What was wrong may be over soon, as another program's lock: it is tried again with the next answer.
            value, key, seldom = {"error": str(fault), "hint": "run tok-status to see what is wrong"}, "", 1
        if value is None:
            return False
        self.values.pop(self.ask, None)
        self.values[self.ask] = value, key, self.clock() + seldom * (self.clock() - begun)
        while len(self.values) > MOST_ASKS:
            del self.values[next(iter(self.values))]
        return True

    def _ask(self, ask: Ask) -> Ask:
        """What of an address the part depends on."""
        span = {"since": ask.since, "until": ask.until} if self.by_span else {}
        return Ask(**{name: getattr(ask, name) for name in dash_query.FILTERS}, **span)


class Gatherer:
    """Gathers views of one log. `files`: what answers are made from beside the log.

    `parts`: slow parts; `of_no_span`: those of them that are the same for each span.
    """

    def __init__(
        self,
        session: Session,
        files: Callable[[], list[str]],
        parts: Mapping[str, Part] | None = None,
        clock: Callable[[], float] = time.monotonic,
        of_no_span: Container[str] = (),
    ) -> None:
        self.session, self.files = session, files
        self.reader = Reader(session.folder, session.past)
        every = {**(parts or {}), RHYTHM: self.rhythm, LIMITS: self.limits}
        self.parts = {name: Slow(part, clock, name not in of_no_span) for name, part in every.items()}
        self.tried = False  # whether the first import of the clients' logs has ended
        self.tasks = Tasks(session.folder)
        self.numbers = Recent(MOST_ASKS)

    def renew(self, name: str) -> bool:
        """Compute a slow part again, if that is due; whether that is finished."""
        key = dash_cache.state(self.session.folder, store_days.files_of(self.session.folder), self.files())
        return self.parts[name].renew(self.session, key)

    def pending(self) -> str:
        """The name of a slow part that the last page lacks, "" if it lacks none."""
        return next((name for name, part in self.parts.items() if part.is_pending), "")

    def rhythm(self, session: Session, ask: Ask) -> Event | None:
        """What the days of a span cost, and its hours of the week (day from Monday, hour): a slow part."""
        files, now, tz = store_days.files_of(session.folder), session.now(), when.zone(None)
        span = dash_query.span(ask, now, tz)
        if span.until - span.since < LEAST_RHYTHM_MS:
            return {"week": {}, "days": {}}
        hours = self.reader.hours_of(ask, now, tz, session.catalogue(), files)
        if hours is None:
            return None
        week: dict[tuple[int, int], Decimal] = {}
        days: dict[datetime.date, Decimal] = {}
        for at, usd in hours.items():
            local = when.local(at, tz)
            hour, day = (local.weekday(), local.hour), local.date()
            week[hour] = pricing.add(week.get(hour, pricing.ZERO), usd)
            days[day] = pricing.add(days.get(day, pricing.ZERO), usd)
        return {"week": week, "days": days}

    def limits(self, session: Session, ask: Ask) -> Event:
        """How much of each limit was used over time in a span: a slow part."""
        log = session.log(fresh=False)._replace(memory=session.memory)
        span = dash_query.span(ask, log.now, log.tz)
        return {"series": answers.limit_history(log, span.since, span.until)}

    def state(self, files: Files) -> str:
        """A name for everything that answers are made from, the minute included."""
        minute = self.session.now() // 60_000
        turns = [part.turn for part in self.parts.values()]
        text = f"{dash_cache.state(self.session.folder, files, self.files())} {minute} {turns} {self.tried} {__version__}"
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def page(self, ask: Ask, files: Files | None = None, is_patient: bool = False) -> Page:
        """What is to be shown. Raises session.Fault, OSError."""
        return self.story(ask) if ask.session else self.view(ask, files, is_patient)

    def _log(self) -> Log:
        """The log now."""
        session, synced = self.session, datadir.last_sync(self.session.folder)
        as_of, catalogue = "" if synced is None else when.stamp(synced), session.catalogue()
        return Log(
            session.folder,
            session.now(),
            session.settings(),
            lambda: catalogue,
            when.zone(None),
            as_of,
            session.memory,
            session.past,
        )

    def story(self, ask: Ask) -> Story:
        """A session turn by turn, or one of its turns. Raises session.Fault, OSError."""
        log = self._log()
        try:
            trace = answers_work.trace(log, ask.session)
        except BadRequest as fault:
            raise NotFound(str(fault)) from None
        explained = causes = None
        if not ask.turn:
            causes = answers_context.causes(log, answers_context.Query(trace.session, by_turn=True))
        else:
            sources = readers.with_files((), (), self.session.environment, self.session.home) if ask.files else ()
            explained = answers_work.explanation(log, trace, ask.turn, sources)
            if explained is None:
                raise NotFound(f"this session has no turn {ask.turn[:80]!r}")
        return Story(ask, log.now, log.tz, log.as_of, READY, datadir.is_demo(log.folder), trace, explained, causes)

    def view(self, ask: Ask, files: Files | None = None, is_patient: bool = False) -> View:
        """What was spent in a span. `is_patient`: slow parts are waited for. Raises session.Fault, OSError."""
        session, log = self.session, self._log()
        files = store_days.files_of(session.folder) if files is None else files
        state = READY if files else EMPTY if log.as_of or self.tried else LOADING
        key = dash_cache.state(session.folder, files, self.files())
        # The slow parts are renewed between two answers, and then the numbers are those of the last one.
        self.numbers.begin()
        of_minute = key, log.now // 60_000, str(log.tz), log.catalogue().digest
        it = self.numbers.get(ask, of_minute, functools.partial(self._numbers, ask, log, files))
        more = {name: part.value(session, key, it.exact, is_patient) for name, part in self.parts.items()} if files else {}
        demo, last = datadir.is_demo(session.folder), max(files, default="")
        head = ask, it.since, log.now, log.tz, log.as_of, state, demo
        return View(*head, it.spent, it.budgets, it.plans, it.rules, it.tasks, last, more, drawn=it.drawn)

    def _numbers(self, ask: Ask, log: Log, files: Files) -> Numbers:
        """All but the slow parts. Raises session.Fault, OSError."""
        now, tz, catalogue = log.now, log.tz, log.catalogue()
        bound, names, budgets, rules = self._plans(log)
        since = ask.since or dash_query.opening(self.reader.latest(now, tz, catalogue, files), now, tz)
        # All begins with the first day that the log has.
        exact = ask._replace(since=since if since != "all" else min([*files, when.bucket(now, "day", tz)]))
        spent = self.reader.read(exact, now, tz, catalogue, bound, files)
        tasks = self.tasks.rows(now, catalogue, files) if files else []
        return Numbers(since, exact, spent, budgets, names, rules, tasks, {})

    def _plans(self, log: Log) -> tuple[list[plans.Binding], dict[str, str], list[Event] | Event, Mapping[str, float]]:
        """The plans that are bound, their names for people, what is left of them, and the thresholds."""
        try:
            budget = answers.budget(log)
        except Fault as fault:
            unusable: Any = {"error": str(fault), "hint": f"correct it in {log.settings.path}"}
            return [], {}, unusable, {}
        return budget.bound, budget.plan_names(log), budget.rows, budget.thresholds["budget"]
