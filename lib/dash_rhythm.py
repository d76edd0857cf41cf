"""Draws when money is spent: a map of the hours of the week, and a calendar of days."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator, Sequence
from decimal import Decimal

from tokenops import dash_headroom, dash_html, dash_query, dash_sheet, dash_tables, pricing, show, when
from tokenops.dash_html import Html, tag
from tokenops.dash_query import Ask
from tokenops.dash_sheet import Column, Sheet
from tokenops.dash_view import LEAST_RHYTHM_MS, RHYTHM, View
from tokenops.events import Event

# Each level of colour has about as many cells as the others.
LEVELS = 4
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
CELL, GAP = 16, 2
# The most weeks that a calendar shows: older days are left out.
MOST_WEEKS = 53


def section(view: View, live: bool) -> Html | None:
    """Both pictures; None if there is nothing to show."""
    part, span = view.parts.get(RHYTHM), view.spent.span
    if part is None or part.get("days") == {} or span.until - span.since < LEAST_RHYTHM_MS:
        return None
    if "days" not in part:
        body = dash_headroom.pending() if "pending" in part else dash_headroom.notice(part)
        cards = [tag("div", tag("h2", "Hours of the week"), body, class_="card")]
    else:
        since, until = span.since, max(span.until - 1, span.since)
        first, last = when.local(since, view.tz).date(), when.local(until, view.tz).date()
        shown = view.ask, dash_tables.span_name(view), live
        cards = [
            _week(*shown, tuple(part["week"].items())),
            _calendar(*shown, tuple(part["days"].items()), first, last),
        ]
    return tag("section", *cards, class_="pair charts", id="rhythm", aria_label="When it was spent")


def _levels(values: Sequence[Decimal]) -> list[Decimal]:
    """From which amount on each level begins, above 0."""
    ordered = sorted(value for value in values if value)
    return [ordered[at * len(ordered) // LEVELS] for at in range(1, LEVELS)] if ordered else []


def _level(value: Decimal, levels: Sequence[Decimal]) -> int:
    return 0 if not value else 1 + sum(value >= level for level in levels)


# Pictures that stay the same while a part of the page does, and that take a tenth of the time of a year's page to draw.
_KEPT = 16


@functools.lru_cache(_KEPT)
def _week(ask: Ask, name: str, live: bool, amounts: tuple[tuple[tuple[int, int], Decimal], ...]) -> Html:
    sums = dict(amounts)
    levels, across = _levels(list(sums.values())), dash_html.WIDTH / 24
    cells = "".join(
        dash_html.cell(
            hour * across,
            day * CELL,
            across - 3,
            CELL - GAP,
            _level(sums.get((day, hour), pricing.ZERO), levels),
            f"{DAYS[day]} {hour:02d}:00: {_money(sums.get((day, hour), pricing.ZERO))}",
        )
        for day in range(7)
        for hour in range(24)
    )
    marks = [((hour + 0.5) / 24 * 100, f"{hour:02d}") for hour in range(0, 24, 3)]
    label = f"Cost by hour of the week, {name}"
    if sums:
        (day, hour), usd = max(sums.items(), key=lambda item: item[1])
        label += f": most on {DAYS[day]} at {hour:02d}:00, {_money(usd)}"
    picture = dash_html.grid("chart-week", cells, 7 * CELL, label, list(zip(DAYS, range(7), strict=True)), marks, CELL)
    link = dash_sheet.csv_link("week", "Cost by hour of the week", ask, live)
    note = tag("p", f"list price, {name}", class_="sub")
    head = tag("header", tag("h2", "Hours of the week"), link, note)
    return tag("figure", head, picture, class_="card chart", data_key="week")


@functools.lru_cache(_KEPT)
def _calendar(
    ask: Ask,
    name: str,
    live: bool,
    amounts: tuple[tuple[datetime.date, Decimal], ...],
    first: datetime.date,
    last: datetime.date,
) -> Html:
    sums = dict(amounts)
    first = max(first, last - datetime.timedelta(7 * MOST_WEEKS - 1))
    monday = first - datetime.timedelta(first.weekday())
    weeks = max((last - monday).days // 7 + 1, 5)
    levels, across = _levels(list(sums.values())), dash_html.WIDTH / weeks
    cells = []
    for number in range((last - first).days + 1):
        day = first + datetime.timedelta(number)
        usd, at = sums.get(day, pricing.ZERO), (day - monday).days
        go = dash_query.address(ask._replace(since=day.isoformat(), until=day.isoformat()), rows="") if live and usd else ""
        text = f"{DAYS[day.weekday()]} {day:%Y-%m-%d}: {_money(usd)}"
        cells.append(dash_html.cell(at // 7 * across, at % 7 * CELL, across - 3, CELL - GAP, _level(usd, levels), text, go))
    marks = list(_months(monday, weeks))
    label = f"Cost by day, {name}: {len(sums):,} days with usage"
    rows = [(DAYS[at], at) for at in (0, 2, 4, 6)]
    picture = dash_html.grid("chart-calendar", "".join(cells), 7 * CELL, label, rows, marks, CELL)
    link = dash_sheet.csv_link("calendar", "Cost by day", ask, live)
    head = tag("header", tag("h2", "Calendar"), link, tag("p", "list price by day; a click shows the day", class_="sub"))
    return tag("figure", head, picture, class_="card chart", data_key="calendar")


def _months(monday: datetime.date, weeks: int) -> Iterator[tuple[float, str]]:
    """Where each month begins, in percent, with the year at the first and at each January; not closer than readable."""
    last, year = -20.0, 0
    for week in range(weeks):
        day = monday + datetime.timedelta(7 * week + 6)
        share = (week + 0.5) / weeks * 100
        if (day.day <= 7 or week == 0) and share - last >= 12 and share < 96:
            yield share, f"{day:%b}{f' {day.year}' if day.year != year else ''}"
            last, year = share, day.year


def _money(usd: Decimal) -> str:
    return show.money(pricing.plain(usd))


def sheets(view: View) -> list[Sheet]:
    """Both pictures as tables, for CSV."""
    part = view.parts.get(RHYTHM, {})
    week: list[Event] = [
        {"day": DAYS[day], "hour": hour, "cost_usd": pricing.plain(usd)}
        for (day, hour), usd in sorted(part.get("week", {}).items())
    ]
    days: list[Event] = [
        {"day": day.isoformat(), "cost_usd": pricing.plain(usd)} for day, usd in sorted(part.get("days", {}).items())
    ]
    day = Column("day", "Day", lambda row: row["day"])
    hour, cost = Column("hour", "Hour", lambda row: row["hour"]), dash_tables.cost_column("Cost")
    return [
        Sheet("week", "Cost by hour of the week", (day, hour, cost), week, lambda row: f"{row['day']} {row['hour']}"),
        Sheet("calendar", "Cost by day", (day, cost), days, lambda row: str(row["day"])),
    ]
