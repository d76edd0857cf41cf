"""Draws the page's two charts over time: the cost with its forecast, and the tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tokenops import chart_panels, chart_text, costs, dash_html, dash_query, dash_sheet, dash_tables, events, when
from tokenops.chart_panels import Band, Bar, Bars, Line, Lines
from tokenops.chart_text import Value
from tokenops.dash_html import Hint, Html, tag
from tokenops.dash_query import STACKS
from tokenops.dash_sheet import Column, Sheet
from tokenops.dash_spend import Spent
from tokenops.dash_sums import Part
from tokenops.dash_view import View
from tokenops.events import Event

HEIGHT = 168
# A longer table is not readable.
MOST_HOURS = 50


def section(view: View, spent: Spent, live: bool) -> Html:
    """Both charts, and their numbers as a table. `live`: the reader can choose what bars are stacked of."""
    unit = spent.span.unit
    ends = [when.moment(span["until"]) for span in spent.expected]
    start = max(spent.span.since, spent.bars[0].start) if spent.bars else spent.span.since
    until = max([*ends, spent.bars[-1].end if spent.bars else spent.span.until])
    return tag(
        "section",
        _cost(view, spent, unit, (start, until)),
        _tokens(view, spent, unit, (start, until), live),
        _numbers(view, live),
        class_="pair charts",
        aria_label="Over time",
        id="charts",
    )


def _money(part: Part) -> Value:
    """What a bucket cost; unknown if the log does not reach back to it, or if nothing in it has a price."""
    if part.spent is None:
        return None
    return float(part.spent["cost_usd"]) if "cost_usd" in part.spent else None


def _cost(view: View, spent: Spent, unit: str, span: tuple[int, int]) -> Html:
    points: list[tuple[int, Value]] = []
    hints = []
    for part in spent.bars:
        value, end = _money(part), min(part.end, max(view.now, part.start))
        # A step for each bucket: nothing was spent between two of them. A partial bucket stands apart.
        step: list[tuple[int, Value]] = [(part.start, value), (end, value)]
        points += [(part.start, None), *step, (end, None)] if part.partial else step
        more = " so far" if part.partial and part.end > view.now else " of a part of it" if part.partial else ""
        hints.append(
            Hint(part.start, part.end, f"{_when(part.start, view, unit)}: {chart_panels.value_text(value, 'usd')}{more}")
        )
    band = []
    for hour in spent.expected:
        begin, end, cost = when.moment(hour["ts"]), when.moment(hour["until"]), hour["cost_usd"]
        low, middle, high = (float(cost[name]) for name in ("p10", "p50", "p90"))
        band += [Band(begin, low, middle, high), Band(end, low, middle, high)]
        likely = f"likely {chart_panels.value_text(low, 'usd')} to {chart_panels.value_text(high, 'usd')}"
        hints.append(Hint(begin, end, f"{_when(begin, view, unit)}: {likely}"))
    panel = Lines(f"Cost per {unit}", [Line("cost", points)], "usd", HEIGHT, band)
    label = f"Cost per {unit}, {dash_tables.span_name(view)}: {dash_tables.plain_money(spent.total)} in all"
    notes = [spent.basis]
    if spent.expected:
        days = min(hour["days"] for hour in spent.expected)
        what = "the same hours" if unit == "hour" else "days of the same kind"
        notes.append(f"forecast: the middle 80 % of {what} in {days} past days")
    unknown = [(part.start, part.end) for part in spent.bars if part.spent is None]
    gaps = [(unknown[0][0], unknown[-1][1])] if unknown else []
    chart = dash_html.chart("chart-cost", panel, span, view.tz, view.now, label, hints, gaps)
    head = tag("header", tag("h2", f"Cost per {unit}"), tag("p", "; ".join(notes), class_="sub"))
    return tag("figure", head, chart, class_="card chart", data_key="cost")


def _when(at: int, view: View, unit: str) -> str:
    """A bucket as it is named."""
    return dash_html.when_of(at, view.tz) if unit == "hour" else chart_text.day_name(at, view.tz)


def _tokens(view: View, spent: Spent, unit: str, span: tuple[int, int], live: bool) -> Html:
    bars = [Bar(part.start, part.end, None if part.spent is None else part.stack, part.partial) for part in spent.bars]
    panel = Bars(f"Tokens per {unit}", spent.names, bars, "", HEIGHT)
    sums = [sum(part.stack[at] for part in spent.bars) for at in range(len(spent.names))]
    label = f"Tokens per {unit} by {view.ask.stack}, {dash_tables.span_name(view)}: {sum(sums):,} in all"
    hints = [
        Hint(part.start, part.end, f"{_when(part.start, view, unit)}: {_token_text(part, spent.names, view)}")
        for part in spent.bars
    ]
    chart = dash_html.chart("chart-tokens", panel, span, view.tz, view.now, label, hints)
    legend = dash_html.legend("chart-tokens", spent.names, sums)
    head = tag("header", tag("h2", f"Tokens per {unit}"), _stacks(view) if live else None, legend)
    return tag("figure", head, chart, class_="card chart", data_key="tokens")


def _token_text(part: Part, names: Sequence[str], view: View) -> str:
    """The tokens of a bucket in words."""
    if part.spent is None:
        return "unknown"
    shares = [f"{name} {value:,}" for name, value in zip(names, part.stack, strict=True) if value]
    more = " so far" if part.partial and part.end > view.now else ""
    listed = f" ({', '.join(shares)})" if shares else ""
    return f"{sum(part.stack):,}{more}{listed}"


def _stacks(view: View) -> Html:
    """What bars are stacked of, for the reader to choose."""
    choices = [
        tag(
            "label",
            tag("input", type="radio", name="stack", value=stack, form="filters", checked=stack == view.ask.stack),
            tag("span", f"by {stack}"),
        )
        for stack in STACKS
    ]
    return tag("fieldset", tag("legend", "Stacked", class_="away"), *choices, class_="pills")


def numbers_sheet(view: View, is_short: bool = False) -> Sheet:
    """The charts as a table: the buckets in which something was spent. `is_short`: of many hours, their days."""
    spent = view.spent
    unit, bars = spent.span.unit, list(spent.bars)
    if is_short and unit == "hour" and len(bars) > MOST_HOURS:
        unit, bars = "day", _days(bars, view)
    rows: list[Event] = [
        {**part.spent, "start": when.stamp(part.start), "label": _bucket(part, view, unit), "stack": part.stack}
        for part in bars
        if part.spent is not None and events.token_sum(part.spent)
    ]
    columns = [
        Column("start", unit.capitalize(), lambda row: str(row["start"]), lambda row: row["label"]),
        *(_stack_column(at, name, view) for at, name in enumerate(spent.names)),
        dash_tables.tokens_column()._replace(cell=lambda row: dash_tables.count(events.token_sum(row)), kind="n"),
        dash_tables.cost_column("Cost"),
    ]
    return Sheet("numbers-table", "Tokens and cost over time", columns, rows, lambda row: str(row["start"]))


def _bucket(part: Part, view: View, unit: str) -> str:
    return f"{_when(part.start, view, unit)}{' so far' if part.partial and part.end > view.now else ''}"


def _stack_column(at: int, name: str, view: View) -> Column:
    """The tokens of a part of the bars."""

    def value(row: Event) -> int:
        return int(row["stack"][at])

    title = name.capitalize() if view.ask.stack == "class" else name
    return Column(f"tokens.{name}", title, value, lambda row: dash_tables.count(value(row)) if value(row) else "", "n")


def _numbers(view: View, live: bool) -> Html:
    """The charts as a table, and what they do not show."""
    spent = view.spent
    more = []
    if any(part.spent is None for part in spent.bars):
        more.append(tag("p", "Striped: the log does not reach back that far.", class_="sub"))
    if spent.totals:
        tokens = sum(map(events.token_sum, spent.totals))
        sessions = len({event.get("session_id") for event in spent.totals})
        text = f"In addition: {tokens:,} tokens of {sessions} sessions with an unknown hour; they are in no bar."
        more.append(tag("p", text, class_="sub"))
    table = dash_sheet.table(numbers_sheet(view, is_short=True), view.ask, live)
    link = dash_sheet.csv_link(numbers_sheet(view), view.ask, live)
    return tag("div", *more, tag("details", tag("summary", "Numbers"), link, table, id="numbers"), class_="below")


def _days(bars: Sequence[Part], view: View) -> list[Part]:
    """Hours added up by day."""
    days = []
    for day, several in itertools.groupby(bars, key=lambda part: dash_query.midnight(part.start, view.tz)):
        parts = list(several)
        known_rows = [part.spent for part in parts if part.spent is not None]
        spent = costs.total_of(known_rows) | {"unpriced": [part for row in known_rows for part in row.get("unpriced", ())]}
        stack = [sum(column) for column in zip(*(part.stack for part in parts), strict=True)]
        partial = any(part.partial for part in parts)
        days.append(Part(day, parts[-1].end, partial, spent if known_rows else None, stack))
    return days
