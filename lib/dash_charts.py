"""Draws the page's two charts over time: the cost with its forecast, and the tokens."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from decimal import Decimal

from tokenops import (
    chart_panels,
    chart_text,
    costs,
    dash_html,
    dash_query,
    dash_sheet,
    dash_tables,
    events,
    pricing,
    show,
    when,
)
from tokenops.chart_panels import Band, Bar, Bars
from tokenops.dash_html import Hint, Html, tag
from tokenops.dash_sheet import Column, Sheet
from tokenops.dash_sums import Part
from tokenops.dash_view import View
from tokenops.events import Event

HEIGHT = 168
NUMBERS = "numbers-table"
# A longer table is not readable.
MOST_HOURS = 50


def section(view: View, live: bool) -> Html:
    """Both charts, and their numbers as a table. `live`: the reader can choose what bars are stacked of."""
    spent = view.spent
    ends = [when.moment(span["until"]) for span in spent.expected]
    start = max(spent.span.since, spent.bars[0].start) if spent.bars else spent.span.since
    until = max([*ends, spent.bars[-1].end if spent.bars else spent.span.until])
    return tag(
        "section",
        _cost(view, (start, until), live),
        _tokens(view, (start, until), live),
        _numbers(view, live),
        class_="pair charts",
        aria_label="Over time",
        id="charts",
    )


def _visible(view: View) -> list[bool]:
    """Which names of the bars are shown: all, or the class that the address names."""
    part = view.ask.part if view.ask.stack == "class" else ""
    return [part in ("", name) for name in view.spent.names]


def _cost(view: View, span: tuple[int, int], live: bool) -> Html:
    spent, unit, visible = view.spent, view.spent.span.unit, _visible(view)
    bars, hints = [], []
    for part in spent.bars:
        usd = [amount if shown else Decimal(0) for amount, shown in zip(part.costs, visible, strict=True)]
        is_priced = part.spent is not None and "cost_usd" in part.spent
        bars.append(Bar(part.start, part.end, list(map(float, usd)) if is_priced else None, part.partial))
        first, *shares = _cost_lines(part, usd, view)
        lines = (f"{_when(part.start, view, unit)}: {first}", *shares)
        hints.append(Hint(part.start, part.end, lines, _zoom(view, part, live)))
    for hour in spent.expected:
        begin, end = when.moment(hour["ts"]), when.moment(hour["until"])
        low, high = (chart_panels.value_text(float(hour["cost_usd"][name]), "usd") for name in ("p10", "p90"))
        hints.append(Hint(begin, end, (f"{_when(begin, view, unit)}: likely {low} to {high}",)))
    panel = Bars(f"Cost per {unit}", spent.names, bars, "usd", HEIGHT, _band(view) if all(visible) else ())
    label = (
        f"Cost per {unit} by {view.ask.stack}, {dash_tables.span_name(view)}: {dash_tables.plain_money(spent.total)} in all"
    )
    chart = dash_html.chart("chart-cost", panel, span, view.tz, view.now, label, hints)
    sums = [
        functools.reduce(pricing.add, (part.costs[at] for part in spent.bars), pricing.ZERO)
        for at in range(len(spent.names))
    ]
    words = [show.money(pricing.plain(usd)) if usd else "" for usd in sums]
    legend = dash_html.legend("chart-cost", spent.names, words, _links(view, live))
    notes = [spent.basis]
    if panel.band:
        days = min(hour["days"] for hour in spent.expected)
        what = "the same hours" if unit == "hour" else "days of the same kind"
        notes.append(f"forecast: the middle 80\u00a0% of {what} in {days} past days")
    sub = tag("p", "; ".join(notes), class_="sub")
    link = dash_sheet.csv_link(NUMBERS, f"{panel.heading} by {view.ask.stack}", view.ask, live)
    head = tag("header", tag("h2", f"Cost per {unit}"), link, _stacks(view) if live else None, legend, sub)
    return tag("figure", head, chart, class_="card chart", data_key="cost")


def _band(view: View) -> list[Band]:
    """What is likely to be spent."""
    band = []
    for hour in view.spent.expected:
        low, middle, high = (float(hour["cost_usd"][name]) for name in ("p10", "p50", "p90"))
        band += [Band(when.moment(hour[name]), low, middle, high) for name in ("ts", "until")]
    return band


def _cost_lines(part: Part, usd: Sequence[Decimal], view: View) -> list[str]:
    """The cost of a bucket in words, and that of each name if there are several."""
    if part.spent is None or "cost_usd" not in part.spent:
        return ["unknown"]
    names = zip(view.spent.names, usd, strict=True)
    shares = [f"{name} {show.money(pricing.plain(amount))}" for name, amount in names if amount]
    more = " so far" if part.partial and part.end > view.now else " of a part of it" if part.partial else ""
    total = (
        part.spent["cost_usd"] if all(_visible(view)) else pricing.plain(functools.reduce(pricing.add, usd, pricing.ZERO))
    )
    return [f"{show.money(total)}{more}", *(shares if len(shares) > 1 else ())]


def _zoom(view: View, part: Part, live: bool) -> str:
    """Where a click on a bar leads: to its days."""
    if not live or view.spent.span.unit == "hour" or part.spent is None or not events.token_sum(part.spent):
        return ""
    return dash_query.address(dash_query.bucket_ask(view.ask, part.start, part.end, view.tz), rows="")


def _links(view: View, live: bool) -> list[Html | None]:
    """What a click on a legend's name shows: only that name, or all again."""
    return [_link(view, name) if live else None for name in view.spent.names]


def _link(view: View, name: str) -> Html | None:
    field = "part" if view.ask.stack == "class" else view.ask.stack
    if field not in dash_query.Ask._fields:
        return None  # a tag, by which nothing is filtered
    if name.endswith(" others") or name == dash_tables.UNKNOWN:
        return None
    is_only = getattr(view.ask, field) == name
    title = f"all {'classes' if field == 'part' else field + 's'}" if is_only else f"only {name}"
    href = dash_query.address(view.ask, **{field: "" if is_only else name}, rows="")
    return tag("a", name, href=href, title=title, aria_current="true" if is_only else None)


def _when(at: int, view: View, unit: str) -> str:
    """A bucket as it is named."""
    return dash_html.when_of(at, view.tz) if unit == "hour" else chart_text.bucket_name(at, unit, view.tz)


def _tokens(view: View, span: tuple[int, int], live: bool) -> Html:
    spent, unit, visible = view.spent, view.spent.span.unit, _visible(view)
    bars, hints = [], []
    for part in spent.bars:
        counts = [count if shown else 0 for count, shown in zip(part.stack, visible, strict=True)]
        bars.append(Bar(part.start, part.end, None if part.spent is None else counts, part.partial))
        first, *shares = _token_lines(part, counts, view)
        lines = (f"{_when(part.start, view, unit)}: {first}", *shares)
        hints.append(Hint(part.start, part.end, lines, _zoom(view, part, live)))
    panel = Bars(f"Tokens per {unit}", spent.names, bars, "", HEIGHT)
    sums = [sum(part.stack[at] for part in spent.bars) for at in range(len(spent.names))]
    label = f"Tokens per {unit} by {view.ask.stack}, {dash_tables.span_name(view)}: {sum(sums):,} in all"
    chart = dash_html.chart("chart-tokens", panel, span, view.tz, view.now, label, hints)
    words = [show.compact(value) if value else "" for value in sums]
    legend = dash_html.legend("chart-tokens", spent.names, words, _links(view, live))
    link = dash_sheet.csv_link(NUMBERS, f"{panel.heading} by {view.ask.stack}", view.ask, live)
    head = tag("header", tag("h2", f"Tokens per {unit}"), link, legend)
    return tag("figure", head, chart, class_="card chart", data_key="tokens")


def _token_lines(part: Part, counts: Sequence[int], view: View) -> list[str]:
    """The tokens of a bucket in words, and those of each name."""
    if part.spent is None:
        return ["unknown"]
    shares = [f"{name} {value:,}" for name, value in zip(view.spent.names, counts, strict=True) if value]
    more = " so far" if part.partial and part.end > view.now else ""
    return [f"{sum(counts):,}{more}", *shares]


def _stacks(view: View) -> Html:
    """What bars are stacked of, for the reader to choose."""
    choices = [
        tag(
            "label",
            tag("input", type="radio", name="stack", value=stack, form="filters", checked=stack == view.ask.stack),
            tag("span", costs.TAG_NAMES.get(stack, stack)),
        )
        for stack in dash_query.stacks(view.ask, view.spent.choices)
    ]
    return tag("fieldset", tag("legend", "Stacked by", class_="away"), *choices, class_="pills")


def numbers_sheet(view: View, is_short: bool = False) -> Sheet:
    """The charts as a table: the buckets in which something was spent. `is_short`: of many hours, their days."""
    spent = view.spent
    unit, bars = spent.span.unit, list(spent.bars)
    if is_short and unit == "hour" and len(bars) > MOST_HOURS:
        unit, bars = "day", _days(bars, view)
    rows: list[Event] = [
        {**part.spent, "start": when.stamp(part.start), "label": _bucket(part, view, unit)}
        | {"stack": part.stack, "costs": part.costs}
        for part in bars
        if part.spent is not None and events.token_sum(part.spent)
    ]
    columns = [
        Column("start", unit.capitalize(), lambda row: str(row["start"]), lambda row: row["label"]),
        *(_stack_column(at, name, view) for at, name in enumerate(spent.names)),
        dash_tables.tokens_column()._replace(cell=lambda row: dash_tables.count(events.token_sum(row)), kind="n"),
        dash_tables.cost_column("Cost"),
        *(Column(f"cost_usd.{name}", name, functools.partial(_share, at)) for at, name in enumerate(spent.names)),
    ]
    return Sheet(NUMBERS, "Tokens and cost over time", columns, rows, lambda row: str(row["start"]))


def _share(at: int, row: Event) -> Decimal:
    """What one of the names cost in a bucket."""
    costs: Sequence[Decimal] = row["costs"]
    return costs[at]


def _bucket(part: Part, view: View, unit: str) -> str:
    return f"{_when(part.start, view, unit)}{' so far' if part.partial and part.end > view.now else ''}"


def _stack_column(at: int, name: str, view: View) -> Column:
    """The tokens of a part of the bars; on a phone there is room for their sums only."""

    def value(row: Event) -> int:
        return int(row["stack"][at])

    title = name.capitalize() if view.ask.stack == "class" else name
    return Column(f"tokens.{name}", title, value, lambda row: dash_tables.count(value(row)) if value(row) else "", "n some")


def _numbers(view: View, live: bool) -> Html:
    """The charts as a table, and what they do not show."""
    spent = view.spent
    more = []
    if any(part.spent is None for part in spent.bars):
        more.append(tag("p", "Striped: the log does not reach back that far.", class_="sub"))
    if any(part.partial for part in spent.bars):
        more.append(tag("p", "Pale: only a part of that time is over, or in the span.", class_="sub"))
    if spent.totals:
        tokens = sum(map(events.token_sum, spent.totals))
        sessions = len({event.get("session_id") for event in spent.totals})
        text = f"In addition: {tokens:,} tokens of {sessions} sessions with an unknown hour; they are in no bar."
        more.append(tag("p", text, class_="sub"))
    table = dash_sheet.table(numbers_sheet(view, is_short=True), view.ask, live)
    link = dash_sheet.csv_link(NUMBERS, "Tokens and cost over time", view.ask, live)
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
        usd = [functools.reduce(pricing.add, column) for column in zip(*(part.costs for part in parts), strict=True)]
        days.append(Part(day, parts[-1].end, partial, spent if known_rows else None, stack, usd))
    return days
