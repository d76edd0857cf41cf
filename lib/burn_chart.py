"""Draws tok-burn's chart as SVG: tokens and money per bucket by class, and each limit as its vendor reported it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from tokenops import burn, burn_buckets, chart_panels, chart_svg, chart_text, costs, pricing, when
from tokenops.burn import Burn
from tokenops.burn_buckets import HOUR_MS, Span, Taken
from tokenops.chart_panels import Across, Bar, Bars, Frame, Line, Lines, Panel, shown
from tokenops.chart_svg import box, clipped, path, word
from tokenops.events import Event

LEFT, RIGHT = 52, 58
# Points of a line that the description tells; nobody listens to a thousand.
MOST_TOLD = 48


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

    parts = [word(16, 28, clipped(title, width // 9), "h1 ink")]
    if subtitle:
        parts.append(word(16, 46, clipped(subtitle, width // 6), "mute"))
    top = 60 if subtitle else 44
    moments = chart_text.times(start, end, tz, max((right - left) // 64, 2))
    for panel in shows:
        rows, legend = chart_panels.legend(panel, top + 14, width)
        ceiling = top + 28 + 17 * rows
        low, high = chart_panels.scale(panel)
        frame = Frame(left, right, ceiling, ceiling + panel.height, low, high)
        parts += [
            word(16, top + 14, clipped(panel.heading, width // 7), "h2 ink"),
            *legend,
            *_grid(frame, panel, x, moments),
        ]
        if isinstance(panel, Bars):
            parts += chart_panels.bars(frame, panel, x, _saying(panel, tz))
        else:
            parts += chart_panels.lines(frame, panel, x)
        top = frame.floor + 14
    parts += _axis(moments, x, top + 4, tz)
    said = ". ".join(filter(None, [subtitle, *(one for panel in shows for one in _numbers(panel, tz))]))
    height = top + (20 if _days_only(moments) else 34)
    return chart_svg.document(width, height, title, said, [box(0, 0, width, height, "bg"), *parts], style)


def _grid(frame: Frame, panel: Panel, x: Across, moments: list[tuple[int, bool]]) -> Iterator[str]:
    """Lines at round values with their labels, and at midnights."""
    marks = [
        mark
        for mark in chart_text.ticks(frame.low, frame.high, chart_panels.steps(panel))
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
        if day or (n == 0 and not any(one for _, one in moments)):
            yield word(x(at), top + 14, chart_text.day_name(at, tz), "mid ink")


def _days_only(moments: list[tuple[int, bool]]) -> bool:
    return len(moments) > 1 and all(day for _, day in moments)


def _numbers(panel: Panel, tz: datetime.tzinfo) -> Iterator[str]:
    """A panel in words."""
    if isinstance(panel, Bars):
        said = [_total(bar, panel, tz) for bar in panel.bars if any(chart_panels.heights(bar))]
        said += [f"{_when(start, tz)} to {_when(end, tz)} unknown" for start, end in chart_panels.unknown(panel.bars)]
        yield f"{panel.heading}: " + "; ".join([*said, "all others 0" if said else "all 0" if panel.bars else "no values"])
        return
    for one in panel.lines:
        told = [(at, value) for at, value in one.points if value is not None]
        told = [*told[:: len(told) // MOST_TOLD + 1], *told[-1:]]
        said = [f"{_when(at, tz)} {shown(value, panel.unit)}" for at, value in dict.fromkeys(told)]
        yield f"{panel.heading}, {one.name}: " + ("; ".join(said) or "no values")
    for band in panel.band:
        low, middle, high = (shown(value, panel.unit) for value in band[1:])
        yield f"{panel.heading}, expected {_when(band.at, tz)}: {low} to {high}, middle {middle}"


def _saying(panel: Bars, tz: datetime.tzinfo) -> Callable[[Bar], str]:
    return lambda bar: _said(bar, panel, tz)


def _said(bar: Bar, panel: Bars, tz: datetime.tzinfo) -> str:
    """A bar in words."""
    if bar.values is None:
        return f"{_when(bar.start, tz)}: unknown"
    said = [f"{name} {shown(value, panel.unit)}" for name, value in zip(panel.names, bar.values, strict=False) if value != 0]
    return f"{_total(bar, panel, tz)}" + (f" ({', '.join(said)})" if len(said) > 1 else "")


def _total(bar: Bar, panel: Bars, tz: datetime.tzinfo) -> str:
    return f"{_when(bar.start, tz)}: {shown(sum(chart_panels.heights(bar)), panel.unit)}" + (
        " so far" if bar.partial else ""
    )


def _when(at: int, tz: datetime.tzinfo) -> str:
    return f"{chart_text.day_name(at, tz)} {chart_text.clock(at, tz)}"


# What a bar is made of, from below, and the fields of each part.
# What a bar is made of, from below, and the fields of each part.
PARTS = {
    "cache read": ("cache_read_tokens",),
    "cache write": costs.WRITES,
    "input": ("input_tokens",),
    "output": ("output_tokens",),
}


def picture(found: Burn) -> str:
    """The chart as SVG."""
    asked, total = found.ask.span, found.total
    per = {"15min": "quarter of an hour"}.get(asked.by, asked.by)
    money = _by_class(asked, found.found, found.catalogue)
    names = [*PARTS, *(["other"] if any("other" in one for one in money.values()) else [])]
    spent, priced = [], []
    for at, (start, end, partial, sums) in enumerate(found.buckets):
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
    panels += [Lines(f"{one.name}, used", [Line(one.name, one.points)], "percent", 72, top=1.0) for one in found.limits]
    return chart(_title(asked), (asked.edges[0], asked.edges[-1]), asked.tz, panels, _subtitle(asked, total))


def _title(asked: Span) -> str:
    hours = round((asked.now - asked.edges[0]) / HOUR_MS)
    return f"Spent in the last {hours} hours" if hours <= 48 else f"Spent in the last {round(hours / 24)} days"


def _subtitle(asked: Span, total: Event) -> str:
    said = [f"{burn.amount(total['tokens'])} tokens{burn.dollars(total['cost_usd'])}"]
    if total["now"]:
        said.append(f"now {burn.rate_text(total['now'])}")
    return "; ".join([*said, f"{when.local(asked.now, asked.tz):%Y-%m-%d %H:%M}, {when.zone_name(asked.tz)}"])


def _by_class(asked: Span, found: Taken, catalogue: pricing.Catalogue) -> dict[int, dict[str, Decimal]]:
    """Number of a bucket -> what its parts cost; "other": billed per request, or stated by the vendor as a whole."""
    sums: dict[int, dict[str, Decimal]] = {}
    for row in found.rows:
        if (number := burn_buckets.number(row, asked)) < 0:
            continue
        held = sums.setdefault(number, {})
        for name, amount in _amounts(row, catalogue):
            held[name] = held.get(name, pricing.ZERO) + amount
    return sums


def _amounts(row: Event, catalogue: pricing.Catalogue) -> Iterator[tuple[str, Decimal]]:
    if "cost_usd" in row:
        yield "other", Decimal(row["cost_usd"])
        return
    rate = catalogue.rate_of(row)
    cost = pricing.cost_of(rate, row) if isinstance(rate, pricing.Rate) else rate
    for field, _, _, amount in cost.lines if isinstance(cost, pricing.Cost) else ():
        yield next((name for name, fields in PARTS.items() if field in fields), _part(field)), amount


def _part(field: str) -> str:
    """The class that a part of it, billed at its own price, belongs to."""
    return "output" if "output" in field or field == "reasoning_tokens" else "input" if "input" in field else "other"
