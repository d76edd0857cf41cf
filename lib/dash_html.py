"""Makes HTML that is escaped by default, and charts that stretch with the page.

The browser stretches bars and lines, which are drawn 1000 units wide. Numbers and times beside them keep their type
size, so a chart is as readable at 380 pixels as at 1600. Nothing needs a script or an inline style.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenops import chart_panels, chart_svg, chart_text
from tokenops.chart_panels import Bars, Frame, Panel
from tokenops.chart_svg import path

_VOID = frozenset(("meta", "link", "input", "br", "hr", "img"))

Value = str | float | bool | None


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as HTML: unchanged if it is HTML already, else escaped; what could steer the text around it is written out."""
    return value if isinstance(value, Html) else Html(chart_svg.text(value))


def join(*parts: object) -> Html:
    """Parts, one after another; None is nothing."""
    return Html("".join(text(part) for part in parts if part is not None))


def tag(element: str, /, *inner: object, **attributes: Value) -> Html:
    """An element. `class_` is class, `data_x` is data-x; True is an attribute without a value, None and False are none."""
    shown = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None and value is not False)
    if element in _VOID:
        return Html(f"<{element}{shown}>")
    return Html(f"<{element}{shown}>{join(*inner)}</{element}>")


def _attribute(key: str, value: Value) -> str:
    shown = key.rstrip("_").replace("_", "-")
    return f" {shown}" if value is True else f' {shown}="{text(str(value))}"'


WIDTH, TOP, LEFT = 1000, 8, 46
# How many times of the clock have room below a narrow, a middling and a wide chart; and how near to its edges, in percent,
# half of one has.
ROOM = (("narrow", 4, 11), ("middling", 7, 6), ("wide", 12, 4))


class Hint(NamedTuple):
    """What the pointer shows from one place of a chart to another, and the address that a click there leads to.

    `lines`: names of parts may have commas and brackets in them, so nothing else divides the text.
    """

    start: int
    end: int
    lines: Sequence[str]
    href: str = ""


def chart(
    name: str,
    panel: Panel,
    span: tuple[int, int],
    tz: datetime.tzinfo,
    now: int,
    label: str,
    hints: Sequence[Hint] = (),
    unknown: Sequence[tuple[int, int]] = (),
    is_numbered: bool = False,
    marks: Sequence[int] = (),
    flags: Sequence[tuple[int, int]] = (),
) -> Html:
    """A chart without its heading. `name`: unique in the page; `label`: a description for screen readers.

    `unknown`: spans without data; `is_numbered`: across are numbers of turns, and not moments; `marks`:
    moments with a line from top to bottom; `flags`: spans with a flag above them.
    """
    start, end = span[0], max(span[1], span[0] + 1)

    def x(at: int) -> float:
        return WIDTH * (min(max(at, start), end) - start) / (end - start)

    low, high = chart_panels.scale(panel)
    frame = Frame(0, WIDTH, TOP, TOP + panel.height, low, high)
    steps = [mark for mark in chart_text.ticks(low, high, chart_panels.tick_count(panel)) if mark <= high * (1 + 1e-9)]
    rows = [(round(frame.y(mark)) + 0.5, mark) for mark in steps]
    shapes = [path("".join(f"M0 {y}H{WIDTH}" for y, mark in rows if mark), "grid")]
    shapes.append(path(f"M0 {round(frame.y(max(low, 0.0))) + 0.5}H{WIDTH}", "axis"))
    shapes.append(path("".join(f"M{chart_svg.number(x(mark))} {TOP}V{frame.floor}" for mark in marks), "axis reset"))
    shapes += _contents(panel, frame, x, unknown)
    shapes += [_flag(frame, x(first), x(last)) for first, last in flags]
    shapes += [_hit(frame, x(hint.start), x(hint.end), hint) for hint in hints]
    if start < now < end:
        shapes.append(path(f"M{chart_svg.number(x(now))} {TOP}V{frame.floor}", "axis now"))
    below = _numbers(start, end, x) if is_numbered else _xs(start, end, tz, x)
    return tag("div", _ys(panel, rows, frame.floor + 2), _area(name, label, frame.floor + 2, shapes), below, class_="plot")


def _area(name: str, label: str, height: int, shapes: Sequence[str]) -> Html:
    """The part of a chart that is stretched."""
    size = f'viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" height="{height}"'
    body = "".join(shapes).replace(chart_svg.OWN, f"{name}-")
    return Html(
        f'<svg class="tok area" id="{name}" {size} role="img" aria-label="{chart_svg.text(label)}">'
        f"{chart_svg.patterns(name)}{body}</svg>"
    )


def _contents(panel: Panel, frame: Frame, x: chart_panels.Across, unknown: Sequence[tuple[int, int]]) -> Iterator[str]:
    """The bars or lines, and stripes where nothing is known."""
    if isinstance(panel, Bars):
        yield from chart_panels.bars(frame, panel, x)
        yield from chart_panels.forecast_shapes(frame, panel.band, x)
        return
    for first, last in unknown:
        position = f'x="{round(x(first))}" width="{max(round(x(last)) - round(x(first)), 1)}"'
        yield f'<rect fill="url(#{chart_svg.OWN}gap)" {position} y="{TOP}" height="{panel.height}"/>'
    yield from chart_panels.lines(frame, panel, x, labels=False)


def _ys(panel: Panel, rows: Sequence[tuple[float, float]], height: int) -> Html:
    """The values of the lines behind a chart."""
    words = "".join(chart_svg.word(LEFT - 8, y + 3.5, chart_panels.tick(mark, panel.unit), "end mute") for y, mark in rows)
    return Html(f'<svg class="tok ys" width="{LEFT}" height="{height}" aria-hidden="true">{words}</svg>')


def _xs(start: int, end: int, tz: datetime.tzinfo, x: chart_panels.Across) -> Html:
    """Times below a chart: three sets, of which the page shows the one that has room."""
    groups = []
    for room, count, margin in ROOM:
        moments = chart_text.times(start, end, tz, count)
        days_only = len(moments) > 1 and all(day for _, day in moments)
        words = []
        for at, day in moments:
            share = x(at) / WIDTH * 100
            where = "mid" if margin < share < 100 - margin else "end" if share > 50 else "start"
            name = _day(at, tz, room, end - start)
            first, second = (name, "") if days_only else (chart_text.clock(at, tz), name)
            words.append(f'<text class="{where} mute" x="{chart_svg.number(share)}%" y="13">{chart_svg.text(first)}</text>')
            if second and (day or ((at, day) == moments[0] and not any(is_day for _, is_day in moments))):
                words.append(
                    f'<text class="{where} ink" x="{chart_svg.number(share)}%" y="27">{chart_svg.text(second)}</text>'
                )
        groups.append(f'<g class="{room}">{"".join(words)}</g>')
    return Html(f'<svg class="tok xs" width="100%" height="32" aria-hidden="true">{"".join(groups)}</svg>')


# A span of more days is one of months, and each of its names has a year.
_YEAR_MS = 200 * 86_400_000


def _day(at: int, tz: datetime.tzinfo, room: str, length: int) -> str:
    """A day below a chart."""
    if length > _YEAR_MS:
        return chart_text.bucket_name(at, "month", tz)
    name = chart_text.day_name(at, tz)
    return name if room != "narrow" else name.partition(" ")[2]


def _numbers(start: int, end: int, x: chart_panels.Across) -> Html:
    """Round numbers below a chart, each in the middle of its bar."""
    marks = [round(mark) for mark in chart_text.ticks(start, end - 1, 6) if start <= mark < end]
    words = "".join(
        f'<text class="mid mute" x="{chart_svg.number((x(mark) + x(mark + 1)) / 2 / WIDTH * 100)}%" y="13">{mark:,}</text>'
        for mark in dict.fromkeys(marks)
    )
    return Html(f'<svg class="tok xs" width="100%" height="18" aria-hidden="true">{words}</svg>')


def _flag(frame: Frame, left: float, right: float) -> str:
    """A mark at the top of a span, with a line down its beginning. However narrow the span is, it can be seen."""
    pole = path(f"M{chart_svg.number(left)} {frame.ceiling}V{frame.floor}", "axis flag")
    return chart_svg.box(left, frame.ceiling, max(right - left - 1, 8), 6, "bad flag") + pole


def _hit(frame: Frame, left: float, right: float, hint: Hint) -> str:
    go = f' data-go="{text(hint.href)}"' if hint.href else ""
    box = chart_svg.box(left, frame.ceiling, right - left, frame.floor - frame.ceiling, "hit", go)
    shown = "\n".join(map(chart_svg.text, hint.lines))
    return box.replace("/>", f"><title>{shown}</title></rect>")


def when_of(at: int, tz: datetime.tzinfo) -> str:
    """A moment as charts write it."""
    return f"{chart_text.day_name(at, tz)} {chart_text.clock(at, tz)}"


def legend(
    name: str, names: Sequence[str], sums: Sequence[str] = (), links: Sequence[Html | None] = (), flags: str = ""
) -> Html:
    """The names of the parts of bars, with their sums and links. `name`: the chart whose patterns it shows.

    A part with the sum "" is left out. `flags`: what flags mean, if there are any.
    """
    items = []
    for at, label in enumerate(names):
        if sums and not sums[at]:
            continue
        part = min(at, chart_panels.MOST_PARTS - 1)
        weave = f'<rect fill="url(#{name}-w{part})" width="11" height="11"/>' if part % 2 else ""
        swatch = Html(
            f'<svg class="tok key" width="11" height="11" aria-hidden="true">'
            f'<rect class="s{part}" width="11" height="11"/>{weave}</svg>'
        )
        shown = (links[at] if links else None) or tag("span", label)
        items.append(tag("li", swatch, shown, " ", tag("b", sums[at]) if sums else None))
    if flags:
        shape = '<rect class="bad" width="11" height="6"/><path class="axis flag" d="M.5 0V11"/>'
        swatch = Html(f'<svg class="tok key" width="11" height="11" aria-hidden="true">{shape}</svg>')
        items.append(tag("li", swatch, tag("span", flags)))
    return tag("ul", *items, class_="legend")


def spark(values: Sequence[float | None]) -> Html:
    """A line as wide as its place, without axes or labels: a gap where a value is unknown."""
    drawn = [value for value in values if value is not None and chart_text.is_drawable(value)]
    high, across = max([0.0, *drawn]), WIDTH / max(len(values) - 1, 1)
    points = [
        None
        if value is None or not chart_text.is_drawable(value)
        else (at * across, 25 - 22 * chart_text.share(value, 0, high))
        for at, value in enumerate(values)
    ]
    shapes = "".join((*chart_panels.wash(points, 26), *chart_svg.line(points, "l0")))
    size = f'viewBox="0 0 {WIDTH} 27" preserveAspectRatio="none" height="27"'
    return Html(f'<svg class="tok spark" {size} aria-hidden="true">{shapes}</svg>')


def cell(left: float, top: float, width: float, height: float, level: int, hint: str, href: str = "") -> str:
    """A cell of a grid, in one of five colours."""
    go = f' data-go="{text(href)}"' if href else ""
    box = chart_svg.box(left, top, width, height, f"hit c{level}", go)
    return box.replace("/>", f"><title>{chart_svg.text(hint)}</title></rect>")


def grid(
    name: str,
    cells: str,
    height: int,
    label: str,
    rows: Sequence[tuple[str, int]],
    columns: Sequence[tuple[float, str]],
    step: int,
) -> Html:
    """A grid as wide as its place. `rows`: names with their numbers; `columns`: names with where they stand, in percent."""
    size = f'viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" height="{height}"'
    main = Html(f'<svg class="tok area" id="{name}" {size} role="img" aria-label="{chart_svg.text(label)}">{cells}</svg>')
    words = "".join(chart_svg.word(LEFT - 8, at * step + step - 5, row, "end mute") for row, at in rows)
    ys = Html(f'<svg class="tok ys" width="{LEFT}" height="{height}" aria-hidden="true">{words}</svg>')
    below = "".join(
        f'<text class="mid mute" x="{chart_svg.number(at)}%" y="13">{chart_svg.text(column)}</text>'
        for at, column in columns
    )
    xs = Html(f'<svg class="tok xs" width="100%" height="18" aria-hidden="true">{below}</svg>')
    return tag("div", ys, main, xs, class_="plot")


def bar(
    shares: Sequence[tuple[float, float, str]], marks: Sequence[float] = (), unknown: str = "", height: int = 10
) -> Html:
    """A bar as wide as its place, of pieces (from, to, class) in fractions, marks below; `unknown`: a pattern's name."""
    track = f'width="100%" height="{height}" rx="{height // 3}"'
    parts = [f'<rect class="track" {track}/>']
    if unknown:
        parts.append(f'<rect fill="url(#{unknown})" {track}/>')
    for begin, end, kind in shares:
        first, last = min(max(begin, 0.0), 1.0), min(max(end, 0.0), 1.0)
        if last > first:
            position = f'x="{100 * first:.2f}%" width="{100 * (last - first):.2f}%"'
            parts.append(f'<rect class="{kind}" {position} height="{height}" rx="{0 if first else height // 3}"/>')
    for mark in marks:
        parts.append(f'<rect class="mark" x="{100 * min(max(0.0, mark), 1.0):.2f}%" y="{height + 1}" width="1" height="4"/>')
    full = height + (6 if marks or unknown else 0)
    return Html(f'<svg class="tok bar" width="100%" height="{full}" aria-hidden="true">{"".join(parts)}</svg>')
