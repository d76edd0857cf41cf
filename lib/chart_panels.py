"""Draws the panels of a chart over time: stacked bars or lines on one scale.

An unknown span is striped or a gap, never 0. An unfinished bar is pale. Each bar shows its numbers as a tooltip.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tokenops import chart_svg, chart_text, show
from tokenops.chart_svg import box, line, number, path, short_label, text, word
from tokenops.chart_text import Value

# Parts of a stack and lines of a panel that can be told apart.
MOST_PARTS, MOST_LINES = 6, 4


class Bar(NamedTuple):
    """The parts of one span of time, in the order of the names; None where nothing is known of it."""

    start: int
    end: int
    values: Sequence[Value] | None
    partial: bool = False


class Band(NamedTuple):
    """What is expected at a moment: between `low` and `high` (p10, p90) lie 80 %, `middle` is p50."""

    at: int
    low: float
    middle: float
    high: float


class Bars(NamedTuple):
    """Stacked bars, the first name at the bottom, and what is expected. Units: "", usd, percent (of fractions)."""

    heading: str
    names: Sequence[str]
    bars: Sequence[Bar]
    unit: str = ""
    height: int = 170
    band: Sequence[Band] = ()


class Line(NamedTuple):
    """Points in order of time; the line is interrupted at a value that is None."""

    name: str
    points: Sequence[tuple[int, Value]]


class Lines(NamedTuple):
    """Up to four lines on one scale, and what is expected of the first. `top`: the scale reaches at least that far."""

    heading: str
    lines: Sequence[Line]
    unit: str = ""
    height: int = 150
    band: Sequence[Band] = ()
    top: float = 0.0


Panel = Bars | Lines
Across = Callable[[int], float]
Say = Callable[[Bar], str]


class Frame(NamedTuple):
    """Where a panel lies, and where its scale begins and ends."""

    left: int
    right: int
    ceiling: int
    floor: int
    low: float
    high: float

    def y(self, value: float) -> float:
        """Where a value lies; what is beyond the scale lies at its end."""
        return self.floor - chart_text.share(value, self.low, self.high) * (self.floor - self.ceiling)


def value_text(value: Value, unit: str) -> str:
    """A value with its unit, for people."""
    if value is None or not chart_text.is_drawable(value):
        return "unknown"
    if unit == "usd":
        return f"${value:,.2f}" if abs(value) >= 0.01 or not value else f"${value:.2g}"
    return chart_text.percent(value) if unit == "percent" else f"{value:,.0f}" if abs(value) >= 100 else show.compact(value)


def tick(value: float, unit: str) -> str:
    """A value as an axis shows it."""
    return chart_text.percent(value) if unit == "percent" else f"{'$' if unit == 'usd' else ''}{show.compact(value)}"


def scale(panel: Panel) -> tuple[float, float]:
    """Where a panel's scale begins and ends: at round numbers, and at 0 unless something is below."""
    if isinstance(panel, Bars):
        values = [sum(heights(bar)) for bar in panel.bars]
        values += [band.high for band in panel.band if chart_text.is_drawable(band.high)]
    else:
        values = [
            value for line in panel.lines for _, value in line.points if value is not None and chart_text.is_drawable(value)
        ]
        values += [value for band in panel.band for value in band[1:] if chart_text.is_drawable(value)]
        values.append(panel.top if chart_text.is_drawable(panel.top) else 0.0)
    low, high = min([0.0, *values]), max([0.0, *values])
    marks = chart_text.ticks(low, high, tick_count(panel))
    # A limit is a round number of its own: a little more than 100 % must not halve the picture.
    return marks[0], max(high, 1.0) if panel.unit == "percent" and 1 <= high < 1.5 else marks[-1]


def tick_count(panel: Panel) -> int:
    """How many steps a panel's axis has room for."""
    return max(min(panel.height // 34, 5), 2)


def heights(bar: Bar) -> list[float]:
    """What can be drawn of a bar: an amount below 0 or unknown has no height."""
    values = bar.values or ()
    return [value if value is not None and chart_text.is_drawable(value) and value > 0 else 0.0 for value in values]


def bars(frame: Frame, panel: Bars, x: Across, say: Say | None = None) -> Iterator[str]:
    """One shape for each part, of finished and of unfinished bars; then the tooltips, if `say` makes any."""
    shapes: dict[tuple[int, bool], list[str]] = {}
    narrow = False
    for bar in panel.bars:
        left, right = round(x(bar.start)), round(x(bar.end))
        narrow = narrow or right - left < 8  # weaves in bars that narrow are noise
        right = max(right - (2 if right - left > 8 else 1 if right - left > 2 else 0), left + 1)
        below, total = frame.floor, 0.0
        for at, value in enumerate(heights(bar)):
            total += value
            above = min(round(frame.y(total)), below - (1 if value and below == frame.floor else 0))
            if above < below:
                shape = f"M{left} {below}V{above}H{right}V{below}z"
                shapes.setdefault((min(at, MOST_PARTS - 1), bar.partial), []).append(shape)
                below = above
    for (at, partial), pieces in sorted(shapes.items()):
        shape = "".join(pieces)
        yield path(shape, f"s{at} part" if partial else f"s{at}")
        if at % 2 and not narrow:
            yield f'<path fill="url(#{chart_svg.OWN}w{at})" d="{shape}"/>'
    for start, end in gaps(panel.bars):
        attributes = f'x="{round(x(start))}" y="{frame.ceiling}" width="{max(round(x(end)) - round(x(start)), 1)}"'
        yield f'<rect fill="url(#{chart_svg.OWN}gap)" {attributes} height="{panel.height}"/>'
    for bar in panel.bars if say else ():
        if say and (bar.values is None or any(heights(bar))):
            rectangle = box(x(bar.start), frame.ceiling, x(bar.end) - x(bar.start), panel.height, "hit")
            yield rectangle.replace("/>", f"><title>{text(say(bar))}</title></rect>")


def gaps(bars: Sequence[Bar]) -> list[tuple[int, int]]:
    """The spans without known values."""
    spans: list[tuple[int, int]] = []
    for bar in bars:
        if bar.values is None:
            if spans and spans[-1][1] == bar.start:
                spans[-1] = (spans[-1][0], bar.end)
            else:
                spans.append((bar.start, bar.end))
    return spans


def forecast_shapes(frame: Frame, bands: Sequence[Band], x: Across) -> Iterator[str]:
    """The range that is expected, and its middle."""
    drawable = [band for band in bands if all(map(chart_text.is_drawable, band[1:]))]
    if len(drawable) > 1:
        upper = [(x(band.at), frame.y(band.high)) for band in drawable]
        lower = [(x(band.at), frame.y(band.low)) for band in reversed(drawable)]
        yield path("M" + "L".join(f"{number(a)} {number(b)}" for a, b in (*upper, *lower)) + "z", "band")
        yield from line(((x(band.at), frame.y(band.middle)) for band in drawable), "l0 maybe")


def lines(frame: Frame, panel: Lines, x: Across, labels: bool = True) -> Iterator[str]:
    """The expected range, the lines above it, and with `labels` the last value of each at its right."""
    yield from forecast_shapes(frame, panel.band, x)
    ends: list[tuple[float, str]] = []
    for at, series in enumerate(panel.lines[:MOST_LINES]):
        drawable = [value is not None and chart_text.is_drawable(value) for _, value in series.points]
        points = [
            (x(moment), frame.y(value or 0.0)) if good else None
            for (moment, value), good in zip(series.points, drawable, strict=True)
        ]
        if len(panel.lines) == 1:
            yield from wash(points, frame.floor)
        yield from line(points, f"l{at}")
        if last := next((n for n in reversed(range(len(points))) if points[n]), None):
            ends.append((points[last][1], value_text(series.points[last][1], panel.unit)))  # type: ignore[index]
    taken = -99.0
    for y, label in sorted(ends) if labels else ():
        taken = max(y + 3.5, taken + 12)
        yield word(frame.right + 6, taken, short_label(label, 9), "h2 ink")


def wash(points: Sequence[chart_svg.Point], floor: int) -> Iterator[str]:
    """The area below the only line of a panel."""
    for drawable, run in itertools.groupby(points, key=lambda point: point is not None):
        area = [point for point in run if point]
        if drawable and len(area) > 1:
            yield path(
                f"M{number(area[0][0])} {floor}L" + "L".join(f"{number(a)} {number(b)}" for a, b in area) + f"V{floor}z",
                "wash",
            )


def legend(panel: Panel, y: int, width: int) -> tuple[int, list[str]]:
    """How many rows the legend takes below the heading's, and the legend; a single name has none."""
    if isinstance(panel, Bars):
        sums = [
            sum(heights(bar)[at : at + 1][0] for bar in panel.bars if bar.values and at < len(bar.values))
            for at in range(len(panel.names))
        ]
        names = [
            f"{short_label(name, 24)} {value_text(sum_, panel.unit) if panel.unit else show.compact(sum_)}"
            for name, sum_ in zip(panel.names, sums, strict=True)
        ]
    else:
        names = [short_label(line.name, 24) for line in panel.lines[:MOST_LINES]]
    if len(names) < 2:
        return 0, []
    left = 16 + 7 * len(short_label(panel.heading, width // 7)) + 20
    rows, left = (0, left) if left + sum(map(_wide, names)) <= width else (1, 16)
    parts = []
    for at, name in enumerate(names):
        if left > 16 and left + _wide(name) > width:
            rows, left = rows + 1, 16
        top = y + 17 * rows
        parts += [*_swatch(panel, at, left, top), word(left + 15, top, name, "mute")]
        left += _wide(name)
    return rows, parts


def _wide(name: str) -> int:
    """The width of a name in the legend. The font is unknown; 6.5 pixels a character is wide."""
    return 34 + round(6.5 * len(name))


def _swatch(panel: Panel, at: int, x: int, y: int) -> list[str]:
    if isinstance(panel, Lines):
        return [path(f"M{x} {y - 4}h12", f"l{at}")]
    part = min(at, MOST_PARTS - 1)
    weave = [f'<rect fill="url(#{chart_svg.OWN}w{part})" x="{x}" y="{y - 9}" width="10" height="10"/>'] if part % 2 else []
    return [box(x, y - 9, 10, 10, f"s{part}"), *weave]
