"""Parses a query of the dashboard (a span, a filter, an order, a session, a turn) and writes it as an address."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from tokenops import burn_buckets, events, readers, show, when
from tokenops.session import BadRequest

STACKS = ("class", "model", "project", "client", *events.OWNER, *events.TAGS)
# Those that the page does not offer, but that can be asked for.
_SELDOM = ("plugin", "mcp_tool")
CLASSES = ("cache read", "cache write", "input", "output", "other")
# Up to how many days a chart has a bar for each hour, day, week; beyond that for each month.
UNITS = ((8, "hour"), (100, "day"), (750, "week"))
# What the page opens with, if there is data in it: the shortest counts.
OPENING = ("today", "7d", "30d", "365d", "all")
# No log is older, and a chart of more would only be slow.
MOST_DAYS = 3660


class Ask(NamedTuple):
    """What a reader wants to see."""

    since: str = ""  # the shortest of OPENING with data
    until: str = ""
    client: str = ""
    project: str = ""
    model: str = ""
    machine: str = ""
    user: str = ""
    stack: str = "class"
    part: str = ""  # the only class of tokens that bars show
    sort: str = ""  # table.column.up or .down
    rows: str = ""  # how many rows a table shows at most
    session: str = ""  # the page of a session
    turn: str = ""  # the page of one of its turns
    files: str = ""  # "yes": with what the clients' files say of that turn

    @property
    def only(self) -> events.Filter:
        """The records that count."""
        client = readers.client_of(self.client) if self.client else None
        names = (self.project, self.model, None, self.machine, self.user)
        return events.Filter(None, client, *(name or None for name in names))


# What a page can be narrowed to, in the order in which it is shown.
FILTERS = ("client", "project", "model", *events.OWNER)


def with_several(ask: Ask, choices: Mapping[str, Sequence[str]]) -> list[str]:
    """The filters to show: machine and user only if there are several, or if one is chosen."""
    return [name for name in FILTERS if name not in events.OWNER or len(choices.get(name, ())) > 1 or getattr(ask, name)]


def stacks(ask: Ask, choices: Mapping[str, Sequence[str]]) -> list[str]:
    """What the page offers to stack bars of: machine and user only if there are several."""
    several = {*with_several(ask, choices), ask.stack}
    return [name for name in STACKS if name not in _SELDOM and (name not in events.OWNER or name in several)]


PAGE, CSV = "/dashboard", "/dashboard/table.csv"
# The most rows that a table shows.
MOST_ROWS = 500


def address(ask: Ask, path: str = PAGE, table: str = "", **changed: str) -> str:
    """The address of a page with something else asked; what is usual is left out. `table`: of a CSV file."""
    usual, asked_for = Ask()._asdict(), ask._asdict() | changed
    names = {name: value for name, value in asked_for.items() if value != usual[name]} | ({"table": table} if table else {})
    return f"{path}?{urlencode(names)}" if names else path


def most_rows(ask: Ask, usual: int) -> int:
    """How many rows a table shows, 0 for all of them."""
    return max(int(ask.rows), usual) if ask.rows and usual else usual


class Span(NamedTuple):
    """From when to when, in milliseconds; `open`: until now, and what other clocks wrote beyond it."""

    since: int
    until: int
    open: bool
    unit: str


def parse(query: Mapping[str, str]) -> Ask:
    """The question that an address asks. Raises BadRequest."""
    for name in query:
        if name not in Ask._fields:
            raise BadRequest(f"there is no parameter {name[:40]!r}; did you mean {show.nearest(name, Ask._fields)!r}?")
    ask = Ask(**{name: value for name, value in query.items() if value})
    if ask.stack not in STACKS:
        raise BadRequest(f"stack is {ask.stack[:40]!r}; choose from {', '.join(STACKS)}")
    if ask.part and ask.part not in CLASSES:
        raise BadRequest(f"part is {ask.part[:40]!r}; choose from {', '.join(CLASSES)}")
    if ask.sort and (ask.sort.count(".") != 2 or ask.sort.rpartition(".")[2] not in ("up", "down")):
        raise BadRequest(f"sort is {ask.sort[:40]!r}; write table.column.up or table.column.down")
    if ask.rows and not (ask.rows.isascii() and ask.rows.isdigit() and len(ask.rows) < 4 and 0 < int(ask.rows) <= MOST_ROWS):
        raise BadRequest(f"rows is {ask.rows[:40]!r}; give 1 to {MOST_ROWS}")
    if ask.files not in ("", "yes"):
        raise BadRequest(f"files is {ask.files[:40]!r}; write yes or leave it out")
    if ask.turn and not ask.session:
        raise BadRequest("a turn needs its session; add session=")
    return ask


def opening(latest: int, now: int, tz: datetime.tzinfo) -> str:
    """The shortest span that reaches back to a moment."""
    return next(text for text in OPENING if text == OPENING[-1] or when.parse_since(text, now, tz) <= latest)


def span(ask: Ask, now: int, tz: datetime.tzinfo) -> Span:
    """The span of a question. Raises BadRequest."""
    try:
        since = when.parse_since(ask.since, now, tz)
        until = when.parse_until(ask.until, now, tz) if ask.until else now
    except (ValueError, OverflowError) as error:
        raise BadRequest(str(error)) from None
    if since >= until:
        raise BadRequest(
            "since is not before until; swap them" if ask.until else f"{ask.since!r} is not before now; give 24h or 7d"
        )
    days = (until - since) / when.DAY
    if days > MOST_DAYS:
        raise BadRequest(f"{ask.since!r} is more than {MOST_DAYS // 366} years ago; give a later day")
    return Span(since, until, not ask.until, next((unit for most, unit in UNITS if days <= most), "month"))


def span_before(ask: Ask, span: Span, tz: datetime.tzinfo) -> Span:
    """The span of the same length before one; of today so far, that part of yesterday."""
    if ask.since == "today" and span.open:
        since = midnight(span.since - when.DAY // 2, tz)
        return Span(since, since + span.until - span.since, False, span.unit)
    return Span(2 * span.since - span.until, span.since, False, span.unit)


def bucket_ask(ask: Ask, start: int, end: int, tz: datetime.tzinfo) -> Ask:
    """What a click on the bar of some days asks for."""
    first, last = when.local(start, tz).date(), when.local(end - 1, tz).date()
    return ask._replace(since=first.isoformat(), until=last.isoformat())


def edges(since: int, until: int, unit: str, tz: datetime.tzinfo) -> list[int]:
    """The starts of the buckets of a span, and the end of the last one."""
    if unit == "hour":
        return list(burn_buckets.edges(since, until, unit, tz))
    day = when.local(since, tz).date()
    day -= datetime.timedelta({"day": 0, "week": day.weekday(), "month": day.day - 1}[unit])
    begins = [begin(day, tz)]
    while begins[-1] < until:
        day += datetime.timedelta({"day": 1, "week": 7, "month": 32}[unit])
        day = day.replace(day=1) if unit == "month" else day
        begins.append(begin(day, tz))
    return begins


def begin(day: datetime.date, tz: datetime.tzinfo) -> int:
    """The first moment of a local day."""
    return when.parse_since(day.isoformat(), 0, tz)


def midnight(at: int, tz: datetime.tzinfo) -> int:
    """The first moment of the local day of a moment."""
    return begin(when.local(at, tz).date(), tz)
