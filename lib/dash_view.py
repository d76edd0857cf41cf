"""Gathers everything that the dashboard shows at one moment; a part that fails is `{error, hint}`.

Use one thread only: values that do not change stay in memory between answers.
"""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tokenops import __version__, answers, answers_work, dash_cache, datadir, plans, readers, store_days, when
from tokenops.answers_work import Trace
from tokenops.dash_cache import Tasks
from tokenops.dash_query import Ask
from tokenops.dash_spend import Reader, Spent
from tokenops.events import Event
from tokenops.session import BadRequest, Fault, Log, NotFound, Session
from tokenops.store_days import Files

# A log that was not synced for so long is out of date.
STALE_MS = 15 * 60_000
LOADING, EMPTY, READY = "loading", "empty", "ready"


class View(NamedTuple):
    """What is shown. `as_of`: when the log was last synced, "" if never; `parts`: what other modules add, by name."""

    ask: Ask
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
    version: str = __version__


Page = View | Story


def is_stale(page: Page) -> bool:
    """Whether the log is behind."""
    return bool(page.as_of) and page.now - when.moment(page.as_of) > STALE_MS


Part = Callable[[Session], Event]
# A slow part is computed after an answer, not for it, and so seldom that it takes a 300th of the time.
SELDOM = 300


class Slow:
    """A slow part: the page shows its last value, and `renew` is called when there is time."""

    def __init__(self, tell: Part, clock: Callable[[], float]) -> None:
        self.tell, self.clock = tell, clock
        self.known: Event | None = None
        self.key, self.after, self.turn = "", 0.0, 0

    def value(self, session: Session, key: str) -> Event:
        """The last value; computed now if there is none."""
        if self.known is None:
            self._renew(session, key)
        assert self.known is not None
        return self.known

    def renew(self, session: Session, key: str) -> None:
        """Compute it again if its inputs have changed and it was not computed recently."""
        if key != self.key and self.clock() >= self.after:
            before = self.known
            self._renew(session, key)
            self.turn += before is not None and before != self.known

    def _renew(self, session: Session, key: str) -> None:
        begun = self.clock()
        try:
            self.known = self.tell(session)
        except Fault as fault:
            self.known = {"error": str(fault), "hint": "run tok-status to see what is wrong"}
        ended = self.clock()
        self.key, self.after = key, ended + SELDOM * (ended - begun)


class Gatherer:
    """Gathers views of one log. `files`: what answers are made from beside the log; `parts`: slow parts."""

    def __init__(
        self,
        session: Session,
        files: Callable[[], list[str]],
        parts: Mapping[str, Part] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session, self.files = session, files
        self.parts = {name: Slow(part, clock) for name, part in (parts or {}).items()}
        self.reader = Reader(session.folder)
        self.tried = False  # whether the first import of the clients' logs has ended
        self.tasks = Tasks(session.folder)

    def renew(self, name: str) -> None:
        """Compute a slow part again, if that is due."""
        key = dash_cache.state(self.session.folder, store_days.files_of(self.session.folder), self.files())
        self.parts[name].renew(self.session, key)

    def state(self, files: Files) -> str:
        """A name for everything that answers are made from, the minute included."""
        minute = self.session.now() // 60_000
        turns = [part.turn for part in self.parts.values()]
        text = f"{dash_cache.state(self.session.folder, files, self.files())} {minute} {turns} {self.tried} {__version__}"
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def page(self, ask: Ask, files: Files | None = None) -> Page:
        """What is to be shown. Raises session.Fault, OSError."""
        return self.story(ask) if ask.session else self.view(ask, files)

    def _log(self) -> Log:
        """The log now."""
        session, synced = self.session, datadir.last_sync(self.session.folder)
        as_of, catalogue = "" if synced is None else when.stamp(synced), session.catalogue()
        return Log(
            session.folder, session.now(), session.settings(), lambda: catalogue, when.zone(None), as_of, session.memory
        )

    def story(self, ask: Ask) -> Story:
        """A session turn by turn, or one of its turns. Raises session.Fault, OSError."""
        log = self._log()
        try:
            trace = answers_work.trace(log, ask.session)
        except BadRequest as fault:
            raise NotFound(str(fault)) from None
        explained = None
        if ask.turn:
            sources = readers.with_files((), (), self.session.environment, self.session.home) if ask.files else ()
            explained = answers_work.explanation(log, trace, ask.turn, sources)
            if explained is None:
                raise NotFound(f"this session has no turn {ask.turn[:80]!r}")
        return Story(ask, log.now, log.tz, log.as_of, READY, datadir.is_demo(log.folder), trace, explained)

    def view(self, ask: Ask, files: Files | None = None) -> View:
        """What was spent in a span. Raises session.Fault, OSError."""
        session, log = self.session, self._log()
        now, tz, catalogue = log.now, log.tz, log.catalogue()
        files = store_days.files_of(session.folder) if files is None else files
        state = READY if files else EMPTY if log.as_of or self.tried else LOADING
        bound, names, budgets, rules = self._plans(log)
        spent = self.reader.read(ask, now, tz, catalogue, bound, files)
        tasks = self.tasks.rows(now, catalogue, files) if files else []
        key = dash_cache.state(session.folder, files, self.files())
        more = {name: part.value(session, key) for name, part in self.parts.items()} if files else {}
        last = max(files, default="")
        demo = datadir.is_demo(session.folder)
        return View(ask, now, tz, log.as_of, state, demo, spent, budgets, names, rules, tasks, last, more)

    def _plans(self, log: Log) -> tuple[list[plans.Binding], dict[str, str], list[Event] | Event, Mapping[str, float]]:
        """The plans that are bound, their names for people, what is left of them, and the thresholds."""
        try:
            budget = answers.budget(log)
        except Fault as fault:
            unusable: Any = {"error": str(fault), "hint": f"correct it in {log.settings.path}"}
            return [], {}, unusable, {}
        return budget.bound, budget.plan_names(log), budget.rows, budget.thresholds["budget"]
