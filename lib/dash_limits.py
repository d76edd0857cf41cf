"""Draws how each limit was used over time, with its resets and what is likely to come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenops import chart_text, dash_headroom, dash_html, dash_sheet, dash_tables, limit_view, when
from tokenops.chart_panels import Band, Line, Lines
from tokenops.chart_text import Value
from tokenops.dash_html import Hint, Html, tag
from tokenops.dash_sheet import Column, Sheet
from tokenops.dash_view import LIMITS, View
from tokenops.events import Event
from tokenops.limit_windows import Series, Window

HEIGHT = 110
# More points than this cannot be told apart.
MOST_POINTS = 400
MOST_CHARTS = 6
TABLE = "limits-table"


def section(view: View, live: bool) -> Html | None:
    """A chart for each limit that was read in the span; None if there was none."""
    if "pending" in view.parts.get(LIMITS, {}):  # there may be none: only the script need know
        return tag("section", id="limits", data_pending=True, hidden=True)
    drawable = series_of(view)
    if not drawable:
        return None
    charts = [_chart(view, live, series, number) for number, series in enumerate(drawable[:MOST_CHARTS])]
    numbers = dash_tables.card(sheet(view), view, live, tag("h2", "Limits, window by window"))
    details = tag("details", tag("summary", "Numbers"), numbers, class_="below", id="limit-numbers")
    return tag("section", *charts, details, class_="pair charts even", id="limits", aria_label="Limits over time")


def series_of(view: View) -> list[Series]:
    """The limits that were read in the span."""
    every: list[Series] = view.parts.get(LIMITS, {}).get("series", [])
    return [series for series in every if any(window.points for window in series.windows)]


def _name(series: Series) -> str:
    row = {"window": series.key.window, "scope": series.key.scope}
    account = f", account {series.key.account[:8]}" if series.key.account else ""
    return f"{limit_view.vendor(series.key.provider)}, {dash_headroom.window_name(row)}{account}"


def _chart(view: View, live: bool, series: Series, number: int) -> Html:
    name = _name(series)
    since, until = view.spent.span.since, view.spent.span.until
    resets = [window.resets_at for window in series.windows if since < window.resets_at <= until]
    band = list(_band(view, series)) if view.spent.span.open else []
    end = max([until, *(point.at for point in band)])
    hints = [
        Hint(max(window.starts_at, since), min(window.resets_at, end), (_words(window, view),))
        for window in series.windows
        if window.points and window.starts_at < end and window.resets_at > since
    ]
    panel = Lines(f"{name}, used", [Line(name, _points(series, since, until))], "percent", HEIGHT, band, 1.0)
    label = f"{name}: used over time, {dash_tables.span_name(view)}; {len(resets)} resets"
    chart = dash_html.chart(f"chart-limit-{number}", panel, (since, end), view.tz, view.now, label, hints, marks=resets)
    notes = f"used; {len(resets):,} reset{'' if len(resets) == 1 else 's'}"
    notes += "; likely until the reset: the middle 80\u00a0%" if band else ""
    link = dash_sheet.csv_link(TABLE, f"{name}, window by window", view.ask, live)
    head = tag("header", tag("h2", name), link, tag("p", notes, class_="sub"))
    return tag("figure", head, chart, class_="card chart", data_key=f"limit {name}")


def _points(series: Series, since: int, until: int) -> list[tuple[int, Value]]:
    """The use over time, thinned out; a gap between two windows, of which nothing is known."""
    step = max((until - since) // MOST_POINTS, 1)
    points: list[tuple[int, Value]] = []
    for window in series.windows:
        last = -1
        for point in window.points:
            if not since <= point.at <= until:
                continue
            if points and point.at // step == last:
                points.pop()  # the later of two that are drawn at one place
            points.append((point.at, point.used))
            last = point.at // step
        if points:
            points.append((points[-1][0], None))
    return points


def _words(window: Window, view: View) -> str:
    """A window in words."""
    most = chart_text.percent(max(point.used for point in window.points))
    resets = dash_html.when_of(window.resets_at, view.tz)
    verb = "resets" if window.resets_at > view.now else "reset"
    return f"{most} used; {verb} {resets}"


def _band(view: View, series: Series) -> Iterator[Band]:
    """What is likely to be used until the window is reset, if it is the one that binds."""
    rows = view.budgets if isinstance(view.budgets, list) else []
    row = next((row for row in rows if (row["provider"], row.get("account", "")) == series.key[:2]), None)
    if row is None or row.get("binding_window") is None or "forecast" not in row:
        return
    reading = next(each for each in row["windows"] if each.get("binds"))
    names = (reading["window"].removesuffix(f"_{reading.get('scope', '')}"), reading.get("scope", ""))
    if names != (series.key.window, series.key.scope) or "resets_at" not in reading:
        return
    used, hour = dash_headroom.likely_use(reading), row["forecast"]["used_in_an_hour"]
    resets = when.moment(reading["resets_at"])
    cutoff = {name: when.moment(at) for name, at in row["forecast"].get("cutoff_at", {}).items() if at}
    yield Band(view.now, used, used, used)
    if {"p10", "p50", "p90"} <= cutoff.keys():
        for at in sorted({*(moment for moment in cutoff.values() if view.now < moment < resets), resets}):
            yield Band(at, *(_toward(used, view.now, cutoff[name], at) for name in ("p90", "p50", "p10")))
    elif {"p10", "p50", "p90"} <= hour.keys():
        yield Band(min(view.now + 3_600_000, resets), hour["p10"], hour["p50"], hour["p90"])


def _toward(used: float, now: int, cutoff: int, at: int) -> float:
    """How much is used at a moment, if a window runs out at another."""
    return min(used + (1 - used) * (at - now) / max(cutoff - now, 1), 1.0)


def sheet(view: View) -> Sheet:
    """Each window of each limit: when it was reset, and how much of it was used."""
    rows: list[Event] = [
        {
            "limit": _name(series),
            "provider": series.key.provider,
            "account": series.key.account,
            "window": series.key.window,
            "scope": series.key.scope,
            "resets_at": when.stamp(window.resets_at),
            "used": max(point.used for point in window.points),
            "readings": len(window.points),
        }
        for series in series_of(view)
        for window in reversed(series.windows)
        if window.points
    ]
    columns: Sequence[Column] = (
        Column("limit", "Limit", lambda row: row["limit"], lambda row: row["limit"]),
        *(Column(name, name, lambda row, name=name: row[name]) for name in ("provider", "account", "window", "scope")),  # type: ignore[misc]
        dash_tables.moment_column("resets_at", "Reset", "resets_at", view),
        Column("used", "Used", lambda row: row["used"], _share, "n"),
        Column(
            "readings", "Readings", lambda row: row["readings"], lambda row: dash_tables.count(row["readings"]), "n some"
        ),
    )
    return Sheet(TABLE, "Limits, window by window", columns, rows, _key, 20)


def _key(row: Event) -> str:
    return f"{row['limit']} {row['resets_at']}"


def _share(row: Event) -> Html:
    return tag("data", chart_text.percent(row["used"]), value=row["used"])
