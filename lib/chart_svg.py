"""Draws the parts that all SVG charts share: safe text, the style in light and dark, a gauge and a sparkline.

A chart stands alone: it fetches nothing and runs no script. Colours come from a small style sheet (`css`), which a page can
include once for all its charts. Colour is never the only sign: parts also have an order, patterns and labels.
"""

from __future__ import annotations

import functools
import html
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokenops import chart_text, show
from tokenops.chart_text import Value

# Stands for the chart's own name in references to its patterns; no label can hold it.
OWN = "\0"
_FONT = 'ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,Inter,"Helvetica Neue",Arial,sans-serif'
# Class -> property, colour in light, colour in dark. s: an area, l: a line; each differs from the next in lightness too,
# and the first four areas differ for colour-blind people as well (tests/test_charts.py).
# All areas and lines have a contrast of at least 3 to the background, all text of 4.5.
_COLOURS = (
    ("bg", "fill", "#ffffff", "#16181d"),
    ("ink", "fill", "#1d2129", "#e8eaee"),
    ("mute", "fill", "#5d6572", "#a0a8b5"),
    ("grid", "stroke", "#e7e9ee", "#2a2e37"),
    ("axis", "stroke", "#aab1bd", "#565d6a"),
    ("track", "fill", "#eceff3", "#2a2e37"),
    ("stripe", "stroke", "#c9ced8", "#4a505c"),
    ("s0", "fill", "#5a94dd", "#4a80c9"),
    ("s1", "fill", "#3b2a7a", "#cdb4f7"),
    ("s2", "fill", "#0a7d5a", "#1fa97c"),
    ("s3", "fill", "#e0661f", "#f59a4a"),
    ("s4", "fill", "#b0308a", "#e27fb5"),
    ("s5", "fill", "#7a7f89", "#8d94a1"),
    ("l0", "stroke", "#24508f", "#8db7f0"),
    ("l1", "stroke", "#c2521c", "#f08a55"),
    ("l2", "stroke", "#0b7a6b", "#2fb8a3"),
    ("l3", "stroke", "#7d4fa8", "#b78be0"),
    ("band", "fill", "#24508f", "#8db7f0"),
    ("wash", "fill", "#24508f", "#8db7f0"),
    ("good", "fill", "#1f8a5b", "#35b57d"),
    ("warn", "fill", "#b7791f", "#e2a93b"),
    ("bad", "fill", "#c23b3b", "#f06a6a"),
    ("weave", "stroke", "#ffffff", "#16181d"),
)
_PLAIN = (
    ("text", f"font:11px {_FONT};font-variant-numeric:tabular-nums"),
    (".h1", "font-size:15px;font-weight:600"),
    (".h2", "font-size:12px;font-weight:600"),
    (".big", "font-size:20px;font-weight:600"),
    (".end", "text-anchor:end"),
    (".mid", "text-anchor:middle"),
    (".grid,.axis,.stripe,.weave,.l0,.l1,.l2,.l3", "fill:none"),
    (".weave", "stroke-width:.8;opacity:.55"),
    (".grid,.axis,.s0,.s1,.s2,.s3,.s4,.s5,.bg", "shape-rendering:crispEdges"),
    (".l0,.l1,.l2,.l3", "stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round"),
    (".l1", "stroke-dasharray:6 4"),
    (".l2", "stroke-dasharray:1.5 4"),
    (".l3", "stroke-dasharray:9 4 1.5 4"),
    (".dot", "stroke-width:4;stroke-dasharray:none"),
    (".maybe", "stroke-dasharray:3 4"),
    (".part", "opacity:.5"),
    (".band", "opacity:.2"),
    (".wash", "opacity:.1"),
    (".hit", "fill:transparent"),
    (".hit:hover", "fill:#7f8ea333"),
)


def css() -> str:
    """The style of all charts, for a page that includes it once."""
    plain = "".join(f"{_selector(select)}{{{rule}}}" for select, rule in _PLAIN)
    light, dark = ("".join(f"{_selector('.' + row[0])}{{{row[1]}:{row[at]}}}" for row in _COLOURS) for at in (2, 3))
    return f"{plain}{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _selector(select: str) -> str:
    """A selector that applies in charts only."""
    return ",".join(f".tok {part}" for part in select.split(","))


def text(value: object) -> str:
    """A value as the content of an element or an attribute; what XML cannot hold, or what steers text, is written out."""
    return _xml_of(str(value))


@functools.lru_cache(4096)
def _xml_of(value: str) -> str:
    """A page is drawn again and again, and most of its words stay: this takes a tenth of the time of escaping them."""
    return html.escape(show.safe(value))


def short_label(value: object, most: int) -> str:
    """A label cut to so many characters."""
    label = " ".join(str(value).split())
    return label if len(label) <= most else f"{label[: most - 1]}\u2026"


def number(value: float) -> str:
    """A coordinate as text."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def word(x: float, y: float, value: object, kind: str = "ink") -> str:
    """A piece of text; `kind`: its classes."""
    return f'<text class="{kind}" x="{number(x)}" y="{number(y)}">{text(value)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, more: str = "") -> str:
    """A rectangle."""
    attributes = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}" height="{number(max(height, 0))}"'
    return f'<rect class="{kind}" {attributes}{more}/>'


def path(shape: str, kind: str) -> str:
    """A line or an area; "" without a shape."""
    return f'<path class="{kind}" d="{shape}"/>' if shape else ""


def document(width: int, height: int, title: str, desc: str, parts: Iterable[str], style: bool = True) -> str:
    """A whole chart. `style` False: the page includes `css` itself."""
    name = f"t{zlib.crc32(f'{title}{desc}{width}'.encode(errors='replace')):08x}"
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    labels = f'role="img" aria-labelledby="{name}-t" aria-describedby="{name}-d"'
    body = "".join(parts).replace(OWN, f"{name}-")
    sheet = f"<style>{css()}</style>" if style else ""
    defs = patterns(name) if f"url(#{name}" in body else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tok" {size} {labels}>'
        f'<title id="{name}-t">{text(title)}</title><desc id="{name}-d">{text(desc)}</desc>'
        f"{sheet}{defs}{body}</svg>\n"
    )


def patterns(name: str) -> str:
    """Stripes for what is unknown, and three weaves that tell parts of a stack apart without their colours."""
    weaves = {
        "gap": ("stripe", 6, "M0 6L6 0"),
        "w1": ("weave", 5, "M0 5L5 0"),
        "w3": ("weave", 4, "M0 2H4"),
        "w5": ("weave", 4, "M2 0V4"),
    }
    elements = (
        f'<pattern id="{name}-{key}" width="{size}" height="{size}" patternUnits="userSpaceOnUse">'
        f"{path(shape, kind)}</pattern>"
        for key, (kind, size, shape) in weaves.items()
    )
    return f"<defs>{''.join(elements)}</defs>"


class Gauge(NamedTuple):
    """How much of one limit is used, as a fraction (None: unknown), with its labels.

    `band`: how much may be used soon, from and to. `warn` and `critical`: the fractions at which the colour changes.
    """

    label: str
    used: Value
    detail: str = ""
    action: str = ""
    band: tuple[float, float] | None = None
    warn: float = 0.8
    critical: float = 0.97


def gauge(spec: Gauge, width: int = 360, style: bool = True) -> str:
    """A horizontal bar: how much of a limit is used, how much is left, and what may be used soon."""
    used = spec.used if chart_text.is_drawable(spec.used) else None
    left = (
        "unknown" if used is None else f"{int(max(1 - used, 0) * 100 + 1e-9)}% left"
    )  # as headroom_pct, never more than there is
    sentences = [f"{spec.label}: {left}" + ("" if used is None else f", {chart_text.percent(used)} used")]
    parts = [
        box(0, 0, width, 104, "bg"),
        word(16, 28, short_label(spec.label, (width - 130) // 7), "h2 ink"),
        word(width - 16, 30, left, "big end ink" if used is not None else "h2 end mute"),
        *_bar(spec, used, width - 32),
        word(16, 88, short_label(spec.detail, (width - 120) // 6), "mute"),
        word(width - 16, 88, short_label(spec.action, 18), "h2 end ink"),
    ]
    if spec.band and all(map(chart_text.is_drawable, spec.band)):
        low, high = map(chart_text.percent, spec.band)
        sentences.append(f"{low} to {high} used in an hour")
    sentences += [part for part in (spec.detail, spec.action) if part]
    return document(width, 104, sentences[0], "; ".join(sentences), parts, style)


def _bar(spec: Gauge, used: float | None, width: int) -> list[str]:
    """A gauge's bar, 14 high: what is used, what may be used soon, and marks at `warn` and `critical`."""
    parts = [box(16, 44, width, 14, "track", ' rx="4"')]
    if used is None:
        return [*parts, f'<rect fill="url(#{OWN}gap)" x="16" y="44" width="{width}" height="14" rx="4"/>']
    level = "bad" if used >= spec.critical else "warn" if used >= spec.warn else "good"
    if spec.band and all(map(chart_text.is_drawable, spec.band)):
        start, end = (16 + width * min(max(at, 0), 1) for at in (used, spec.band[1]))
        parts.append(box(start - 4, 44, end - start + 4, 14, f"{level} part", ' rx="4"'))
        parts.append(
            f'<rect fill="url(#{OWN}w1)" x="{number(start)}" y="44" width="{number(max(end - start, 0))}" height="14"/>'
        )
    if used > 0:
        parts.append(box(16, 44, max(width * min(used, 1), 4), 14, level, ' rx="4"'))
    marks = "".join(f"M{round(16 + width * min(max(at, 0), 1)) + 0.5} 61v5" for at in (spec.warn, spec.critical))
    return [*parts, path(marks, "axis")]


def sparkline(values: Sequence[Value], title: str, width: int = 120, height: int = 28, style: bool = True) -> str:
    """A line without axes, to stand in a text; a gap where the value is unknown, a dot on the last value."""
    drawn = [value for value in values if value is not None and chart_text.is_drawable(value)]
    low, high = min([0.0, *drawn]), max([0.0, *drawn])
    across = (width - 8) / max(len(values) - 1, 1)

    def point_of(at: int, value: float) -> tuple[float, float]:
        return 4 + at * across, height - 4 - chart_text.share(value, low, high) * (height - 8)

    points = [
        None if value is None or not chart_text.is_drawable(value) else point_of(at, value)
        for at, value in enumerate(values)
    ]
    last = next((point for point in reversed(points) if point), None)
    parts = [box(0, 0, width, height, "bg"), *line(points, "l0")]
    if last:
        parts.append(f'<circle class="good" cx="{number(last[0])}" cy="{number(last[1])}" r="2.5"/>')
    shown = ", ".join(
        "unknown" if value is None or not chart_text.is_drawable(value) else show.compact(value) for value in values
    )
    return document(width, height, title, shown or "no values", parts, style)


Point = tuple[float, float] | None


def line(points: Iterable[Point], kind: str) -> list[str]:
    """A line through points, with a gap where one is unknown; a point alone is a dot."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    shape = "".join("M" + "L".join(f"{number(x)} {number(y)}" for x, y in run) for run in runs if len(run) > 1)
    alone = "".join(f"M{number(run[0][0])} {number(run[0][1])}h.01" for run in runs if len(run) == 1)
    return [part for part in (path(shape, kind), path(alone, f"{kind} dot")) if part]
