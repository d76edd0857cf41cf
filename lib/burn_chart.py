"""Draws tok-burn's chart as SVG: tokens and money per bucket by class, and each limit as its vendor reported it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from tokenops import burn, burn_buckets, chart_panels, chart_svg, chart_text, costs, pricing, when
from tokenops.burn import Burn
from tokenops.burn_buckets import HOUR_MS, Span, Sums
from tokenops.chart_panels import Across, Bar, Bars, Frame, Line, Lines, Panel, value_text
from tokenops.chart_svg import box, path, short_label, word
from tokenops.events import Event

LEFT, RIGHT = 52, 58
# Points of a line that the description has at most; nobody listens to a thousand.
MOST_POINTS = 48


def chart(
    title: str,
    span: tuple[int, int],
    tz: datetime.tzinfo,
    shows: Sequence[Panel],
    subtitle: str = "",
    width: int = 760,
    style: bool = True,
) -> str:
    """Panels over one span of time (milliseconds), wide enough for their labels (320 at least)."""
    start, end = span[0], max(span[1], span[0] + 1)
    left, right = LEFT, width - RIGHT

    def x(at: int) -> float:
        return left + (right - left) * (min(max(at, start), end) - start) / (end - start)

    parts = [word(16, 28, short_label(title, width // 9), "h1 ink")]
    if subtitle:
        parts.append(word(16, 46, short_label(subtitle, width // 6), "mute"))
    top = 60 if subtitle else 44
    moments = chart_text.times(start, end, tz, max((right - left) // 64, 2))
    for panel in shows:
        rows, legend = chart_panels.legend(panel, top + 14, width)
        ceiling = top + 28 + 17 * rows
        low, high = chart_panels.scale(panel)
        frame = Frame(left, right, ceiling, ceiling + panel.height, low, high)
        parts += [
            word(16, top + 14, short_label(panel.heading, width // 7), "h2 ink"),
            *legend,
            *_grid(frame, panel, x, moments),
        ]
        if isinstance(panel, Bars):
            parts += chart_panels.bars(frame, panel, x, _tooltips(panel, tz))
        else:
            parts += chart_panels.lines(frame, panel, x)
        top = frame.floor + 14
    parts += _axis(moments, x, top + 4, tz)
    sentences = ". ".join(filter(None, [subtitle, *(text for panel in shows for text in _numbers(panel, tz))]))
    height = top + (20 if _days_only(moments) else 34)
    return chart_svg.document(width, height, title, sentences, [box(0, 0, width, height, "bg"), *parts], style)


def _grid(frame: Frame, panel: Panel, x: Across, moments: list[tuple[int, bool]]) -> Iterator[str]:
    """Lines at round values with their labels, and at midnights."""
    marks = [
        mark
        for mark in chart_text.ticks(frame.low, frame.high, chart_panels.tick_count(panel))
        if mark <= frame.high * (1 + 1e-9)
    ]
    rows = [round(frame.y(mark)) + 0.5 for mark in marks]
    yield path("".join(f"M{frame.left} {y}H{frame.right}" for y, mark in zip(rows, marks, strict=True) if mark), "grid")
    yield path("".join(f"M{round(x(at)) + 0.5} {frame.ceiling}V{frame.floor}" for at, day in moments if day), "grid")
    yield path(f"M{frame.left} {round(frame.y(max(frame.low, 0.0))) + 0.5}H{frame.right}", "axis")
    for y, mark in zip(rows, marks, strict=True):
        yield word(frame.left - 8, y + 3.5, chart_panels.tick(mark, panel.unit), "end mute")


def _axis(moments: list[tuple[int, bool]], x: Across, top: int, tz: datetime.tzinfo) -> Iterator[str]:
    """Times of day, and below them the days."""
    for n, (at, day) in enumerate(moments):
        if _days_only(moments):
            yield word(x(at), top, chart_text.day_name(at, tz), "mid mute")
            continue
        yield word(x(at), top, chart_text.clock(at, tz), "mid mute")
        if day or (n == 0 and not any(midnight for _, midnight in moments)):
            yield word(x(at), top + 14, chart_text.day_name(at, tz), "mid ink")


def _days_only(moments: list[tuple[int, bool]]) -> bool:
    return len(moments) > 1 and all(day for _, day in moments)


def _numbers(panel: Panel, tz: datetime.tzinfo) -> Iterator[str]:
    """A panel in words."""
    if isinstance(panel, Bars):
        values = [_total(bar, panel, tz) for bar in panel.bars if any(chart_panels.heights(bar))]
        values += [f"{_when(start, tz)} to {_when(end, tz)} unknown" for start, end in chart_panels.gaps(panel.bars)]
        yield f"{panel.heading}: " + "; ".join(
            [*values, "all others 0" if values else "all 0" if panel.bars else "no values"]
        )
        return
    for line in panel.lines:
        points = [(at, value) for at, value in line.points if value is not None]
        points = [*points[:: len(points) // MOST_POINTS + 1], *points[-1:]]
        values = [f"{_when(at, tz)} {value_text(value, panel.unit)}" for at, value in dict.fromkeys(points)]
        yield f"{panel.heading}, {line.name}: " + ("; ".join(values) or "no values")
    for band in panel.band:
        low, middle, high = (value_text(value, panel.unit) for value in band[1:])
        yield f"{panel.heading}, expected {_when(band.at, tz)}: {low} to {high}, middle {middle}"


def _tooltips(panel: Bars, tz: datetime.tzinfo) -> Callable[[Bar], str]:
    return lambda bar: _bar_text(bar, panel, tz)


def _bar_text(bar: Bar, panel: Bars, tz: datetime.tzinfo) -> str:
    """A bar in words."""
    if bar.values is None:
        return f"{_when(bar.start, tz)}: unknown"
    parts = [
        f"{name} {value_text(value, panel.unit)}" for name, value in zip(panel.names, bar.values, strict=False) if value != 0
    ]
    return f"{_total(bar, panel, tz)}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")


def _total(bar: Bar, panel: Bars, tz: datetime.tzinfo) -> str:
    return f"{_when(bar.start, tz)}: {value_text(sum(chart_panels.heights(bar)), panel.unit)}" + (
        " so far" if bar.partial else ""
    )


def _when(at: int, tz: datetime.tzinfo) -> str:
    return f"{chart_text.day_name(at, tz)} {chart_text.clock(at, tz)}"


# The parts of a bar, from below, and the fields that add up to each.
PARTS = {
    "cache read": ("cache_read_tokens",),
    "cache write": costs.WRITES,
    "input": ("input_tokens",),
    "output": ("output_tokens",),
}


def picture(burned: Burn) -> str:
    """The chart as SVG."""
    span, total = burned.query.span, burned.total
    per = {"15min": "quarter of an hour"}.get(span.by, span.by)
    money = _by_class(span, burned.sums, burned.catalogue)
    names = [*PARTS, *(["other"] if any("other" in amounts for amounts in money.values()) else [])]
    spent, priced = [], []
    for at, (start, end, partial, sums) in enumerate(burned.buckets):
        parts = None if sums is None else [sum(sums.get(field, 0) for field in fields) for fields in PARTS.values()]
        spent.append(Bar(start, end, parts, partial))
        costing = (
            None if sums is None or "cost_usd" not in sums else [float(money.get(at, {}).get(name, 0)) for name in names]
        )
        priced.append(Bar(start, end, costing, partial))
    panels: list[Bars | Lines] = [
        Bars(f"Tokens per {per}", tuple(PARTS), spent),
        Bars(f"L{total['cost_basis'][1:]} per {per}", names, priced, "usd", 120),
    ]
    panels += [
        Lines(f"{limit.name}, used", [Line(limit.name, limit.points)], "percent", 72, top=1.0) for limit in burned.limits
    ]
    return chart(_title(span), (span.edges[0], span.edges[-1]), span.tz, panels, _subtitle(span, total))


def _title(span: Span) -> str:
    hours = round((span.now - span.edges[0]) / HOUR_MS)
    return f"Spent in the last {hours} hours" if hours <= 48 else f"Spent in the last {round(hours / 24)} days"


def _subtitle(span: Span, total: Event) -> str:
    parts = [f"{burn.amount(total['tokens'])} tokens{burn.dollars(total['cost_usd'])}"]
    if total["now"]:
        parts.append(f"now {burn.rate_text(total['now'])}")
    return "; ".join([*parts, f"{when.local(span.now, span.tz):%Y-%m-%d %H:%M}, {when.zone_name(span.tz)}"])


def _by_class(span: Span, sums: Sums, catalogue: pricing.Catalogue) -> dict[int, dict[str, Decimal]]:
    """Number of a bucket -> what its parts cost; "other": billed per request, or reported by the vendor as one amount."""
    by_bucket: dict[int, dict[str, Decimal]] = {}
    for row in sums.rows:
        if (number := burn_buckets.number(row, span)) < 0:
            continue
        amounts = by_bucket.setdefault(number, {})
        for name, amount in class_costs(row, catalogue):
            amounts[name] = amounts.get(name, pricing.ZERO) + amount
    return by_bucket


def class_costs(row: Event, catalogue: pricing.Catalogue) -> Iterator[tuple[str, Decimal]]:
    """What a row of one price cost, by part; "other": what is billed per request, or reported as one amount."""
    if "cost_usd" in row:
        yield "other", Decimal(row["cost_usd"])
        return
    rate = catalogue.rate_of(row)
    cost = pricing.cost_of(rate, row) if isinstance(rate, pricing.Rate) else rate
    for field, _, _, amount in cost.lines if isinstance(cost, pricing.Cost) else ():
        yield next((name for name, fields in PARTS.items() if field in fields), _part(field)), amount


def _part(field: str) -> str:
    """The class of tokens that a field with a price of its own belongs to."""
    return "output" if "output" in field or field == "reasoning_tokens" else "input" if "input" in field else "other"
