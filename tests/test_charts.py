"""Charts: what is drawn is what is known, in a terminal and as SVG that stands alone."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import examples
from tokenops import burn_chart, chart_panels, chart_svg, chart_text, dash_html, show, when
from tokenops.chart_panels import Band, Bar, Bars, Line, Lines

NAN, INF = math.nan, math.inf
HOUR = 3_600_000
START = when.moment("2026-11-20T21:00:00Z")
BERLIN = when.zone("Europe/Berlin")
SVG = "{http://www.w3.org/2000/svg}"
# Nothing that runs, nothing that is fetched, no style that a content policy would refuse.
ALLOWED = {"svg", "title", "desc", "style", "defs", "pattern", "text", "rect", "path", "circle"}
ATTRIBUTES = {
    *("class", "id", "role", "aria-labelledby", "aria-describedby", "width", "height", "viewBox", "patternUnits"),
    *("x", "y", "d", "rx", "r", "cx", "cy", "fill"),
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([0, 0], "▁▁"),
        ([0, 1, 7], "▁▂█"),
        # 0 is the lowest block, and a little is not 0; unknown is neither.
        ([0, 0.001, 1000], "▁▂█"),
        ([None, 5, NAN, 10, INF], "·▅·█·"),
        ([None], "·"),
        ([-5, 0, 5], "▁▅█"),
        ([5], "█"),
        ([1e308, -1e308], "··"),
        ([1e299, -1e299, 0], "█▁▅"),
        # The least and the largest numbers that there are.
        ([5e-324], "█"),
        ([0, 5e-324, 1e-323, 5e-324], "▁▅█▅"),
        ([-5e-324, 0], "▁█"),
        ([5e-324, 1e300], "▂█"),
        ([-1e300, 1e300, 5e-324], "▁█▅"),
    ],
)
def test_sparklines(values: list[chart_text.Value], expected: str) -> None:
    assert chart_text.sparkline(values) == expected


@pytest.mark.parametrize(
    ("fraction", "width", "expected"),
    [
        (0, 4, "░░░░"),
        (1, 4, "████"),
        (0.5, 4, "██░░"),
        (0.28125, 4, "█▏░░"),
        # A little is not nothing, and nearly all is not all.
        (0.0001, 4, "▏░░░"),
        (0.9999, 4, "███▉"),
        (1.7, 4, "████"),
        (-3, 4, "░░░░"),
        (None, 4, "····"),
        (NAN, 4, "····"),
        (INF, 4, "····"),
        (0.5, 0, ""),
    ],
)
def test_gauges_in_a_terminal(fraction: chart_text.Value, width: int, expected: str) -> None:
    assert chart_text.gauge(fraction, width) == expected


EDGES = [5e-324, -5e-324, 1e-323, 1e-310, 2.2250738585072014e-308, 1e-300, 1e299, -1e300, 1e300, 1e300 * (1 - 2**-53)]
VALUES = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**18), 10**18) | st.sampled_from(EDGES)


@given(st.lists(VALUES, max_size=30))
def test_one_character_for_each_value_and_unknown_is_never_a_block(values: list[chart_text.Value]) -> None:
    line = chart_text.sparkline(values)
    assert len(line) == len(values)
    for character, value in zip(line, values, strict=True):
        assert (character == chart_text.UNKNOWN) == (value is None or not chart_text.is_drawable(value))
        if value == 0 and not any(other is not None and chart_text.is_drawable(other) and other < 0 for other in values):
            assert character == "▁"


@given(VALUES, st.integers(0, 60))
def test_a_gauge_is_as_wide_as_it_was_asked_for(fraction: chart_text.Value, width: int) -> None:
    assert len(chart_text.gauge(fraction, width)) == width


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"), (7, "7"), (950, "950"), (999.4, "999"), (999.6, "1k"), (1234, "1.2k"), (34_200_000, "34.2M"), (2.5e9, "2.5B"),
        (1e12, "1T"), (0.25, "0.25"), (0.012, "0.012"), (-1500, "-1.5k"), (100, "100"), (1e20, "1e+20"), (200_000, "200k"),
    ],
)  # fmt: skip
def test_short_numbers(value: float, expected: str) -> None:
    assert show.compact(value) == expected


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (0, 7.3, 4, [0, 2, 4, 6, 8]),
        (0, 1, 2, [0, 0.5, 1]),
        (0, 0, 4, [0, 0.5, 1]),
        (-3, 9, 4, [-5, 0, 5, 10]),
        (0, 130, 3, [0, 50, 100, 150]),
    ],
)
def test_ticks_are_round(low: float, high: float, count: int, expected: list[float]) -> None:
    assert chart_text.ticks(low, high, count) == expected


@example(0.0, 5e-324, 4)
@example(5e-324, 5e-324, 2)
@example(1e300, 1e300, 5)
@example(1e300 * (1 - 2**-53), 1e300, 5)
@example(-1e300, 1e300, 3)
@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.integers(2, 9))
def test_ticks_hold_the_values_between_them(one: float, other: float, count: int) -> None:
    low, high = sorted((one, other))
    marks = chart_text.ticks(low, high, count)
    width = marks[1] - marks[0]
    assert 2 <= len(marks) <= count + 3
    assert marks[0] <= low + width * 1e-6 and marks[-1] >= high - width * 1e-6
    assert all(later > earlier for earlier, later in pairwise(marks))


def test_steps_are_1_2_or_5() -> None:
    for tenth in range(1, 400):
        found = chart_text.tick_step(tenth / 10, 4)
        assert f"{found:e}"[0] in "125" and found * 4 >= tenth / 10 - 1e-9 > found / 2.6


def clock(ticks: list[tuple[int, bool]], zone: str) -> list[str]:
    return [chart_text.clock(at, when.zone(zone)) for at, _ in ticks]


def test_ticks_of_time_are_round_where_the_reader_is() -> None:
    assert clock(chart_text.times(START, START + 6 * HOUR, BERLIN, 6), "Europe/Berlin") == [
        "22:00", "23:00", "00:00", "01:00", "02:00", "03:00", "04:00"]  # fmt: skip
    # In Kathmandu the same moments are not round.
    assert clock(chart_text.times(START, START + 4 * HOUR, when.zone("Asia/Kathmandu"), 4), "Asia/Kathmandu") == [
        "03:00", "04:00", "05:00", "06:00"]  # fmt: skip
    days = chart_text.times(START, START + 170 * HOUR, BERLIN, 8)
    assert all(day and chart_text.clock(at, BERLIN) == "00:00" for at, day in days) and len(days) == 8
    weeks = chart_text.times(START, START + 60 * when.DAY, BERLIN, 9)
    assert [chart_text.day_name(at, BERLIN) for at, _ in weeks[:2]] == ["Mon 23 Nov", "Mon 30 Nov"]
    year = chart_text.times(START, START + 366 * when.DAY, BERLIN, 6)
    assert [chart_text.day_name(at, BERLIN)[4:] for at, _ in year] == ["1 Jan", "1 Apr", "1 Jul", "1 Oct"]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", ["01:00", "03:00"]), ("2026-10-25", ["01:00", "02:00", "03:00"])])
def test_a_change_of_the_clock_neither_repeats_nor_invents_an_hour(day: str, hours: list[str]) -> None:
    start = when.moment(f"{day}T00:00:00+01:00" if "03" in day else f"{day}T01:00:00+02:00")
    found = chart_text.times(start, when.moment(f"{day}T03:30:00+{'02' if '-03-' in day else '01'}:00"), BERLIN, 6)
    shown = [chart_text.clock(at, BERLIN) for at, _ in found if chart_text.clock(at, BERLIN).endswith(":00")]
    assert [hour for hour in shown if hour != "00:00"] == hours
    assert all(later > earlier for (earlier, _), (later, _) in pairwise(found))


@given(
    st.integers(0, 4_000_000_000_000),
    st.integers(1, 10**11),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
)
def test_times_ascend_within_their_span_and_are_few(start: int, length: int, zone: str) -> None:
    found = chart_text.times(start, start + length, when.zone(zone), 8)
    assert len(found) <= 14
    assert all(start <= at <= start + length for at, _ in found)
    assert [at for at, _ in found] == sorted({at for at, _ in found})


def parsed(text: str) -> ET.Element:
    """A chart as XML, with what every chart must have."""
    root = ET.fromstring(text)
    text.encode()
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    assert title is not None and desc is not None
    assert root.get("aria-labelledby") == title.get("id") and root.get("aria-describedby") == desc.get("id")
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= ALLOWED
    assert "@import" not in chart_svg.css() and "url" not in chart_svg.css()
    names = {element.get("id") for element in root.iter()}
    for name, value in (pair for element in root.iter() for pair in element.attrib.items()):
        assert name in ATTRIBUTES and not ((name not in ("class", "role", "id")) and re.search(r"nan|inf", value)), (
            name,
            value,
        )
        if name == "fill":
            assert re.fullmatch(r"url\(#(.*)\)", value)[1] in names  # type: ignore[index]
    return root


LABELS = st.text(max_size=60) | st.sampled_from(
    ["<script>alert(1)</script>", "a & b", '"]]>', "\x00\x1b[31m", "\ud800", "url(#x)", "\u202eabc"]
)
STACKS = st.lists(st.builds(Bar, st.integers(START - HOUR, START + 9 * HOUR), st.integers(START, START + 10 * HOUR),
                            st.none() | st.lists(VALUES, max_size=8), st.booleans()), max_size=8)  # fmt: skip
POINTS = st.lists(st.tuples(st.integers(START - HOUR, START + 9 * HOUR), VALUES), max_size=8)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
PANELS = st.one_of(
    st.builds(
        Bars, LABELS, st.lists(LABELS, max_size=8), STACKS, st.sampled_from(["", "usd", "percent"]), st.integers(1, 200)
    ),
    st.builds(
        Lines,
        LABELS,
        st.lists(st.builds(Line, LABELS, POINTS), max_size=6),
        st.sampled_from(["", "usd", "percent"]),
        st.integers(1, 200),
        st.lists(st.builds(Band, st.integers(START, START + 9 * HOUR), NUMBERS, NUMBERS, NUMBERS), max_size=4),
    ),
)


@examples(50)
@given(LABELS, st.lists(PANELS, max_size=3), LABELS, st.integers(0, 20 * HOUR), st.integers(320, 1600))
def test_any_chart_is_well_formed(
    title: str, shows: list[chart_panels.Panel], subtitle: str, length: int, width: int
) -> None:
    parsed(burn_chart.chart(title, (START, START + length), BERLIN, shows, subtitle, width))


@given(LABELS, VALUES, LABELS, LABELS, st.none() | st.tuples(NUMBERS, NUMBERS), st.integers(200, 900))
def test_any_gauge_is_well_formed(
    label: str, used: chart_text.Value, detail: str, action: str, band: tuple[float, float] | None, width: int
) -> None:
    root = parsed(chart_svg.gauge(chart_svg.Gauge(label, used, detail, action, band), width))
    known = used is not None and chart_text.is_drawable(used)
    assert ("unknown" in [text.text for text in root.iter(f"{SVG}text")]) == (
        not known or "unknown" in (label, detail, action)
    )


@given(st.lists(VALUES, max_size=20), LABELS)
def test_any_sparkline_is_well_formed(values: list[chart_text.Value], title: str) -> None:
    parsed(chart_svg.sparkline(values, title))


# Values of one size: what a float can hardly hold, what it can hardly tell apart, and all of it in one chart.
RANGES = st.one_of(
    st.lists(st.integers(0, 9).map(lambda n: n * 5e-324), min_size=1, max_size=12),
    st.lists(st.floats(0, 2.3e-308), min_size=1, max_size=12),
    st.lists(st.floats(1e290, 1e300), min_size=1, max_size=12),
    st.lists(st.integers(0, 9).map(lambda n: 1e300 * (1 - n * 2**-53)), min_size=1, max_size=12),
    st.builds(lambda value, count: [value] * count, st.floats(-1e300, 1e300), st.integers(1, 12)),
    st.lists(st.floats(-1e300, 1e300) | st.sampled_from(EDGES) | st.just(0.0), min_size=1, max_size=12),
).flatmap(lambda values: st.sampled_from([values, [-value for value in values]]))


def in_order(values: list[float], heights: list[float]) -> bool:
    """Whether what is drawn higher is larger, and what is equal is drawn alike."""
    pairs = sorted(zip(values, heights, strict=True))
    return all(b >= a if one < other else a == b for (one, a), (other, b) in pairwise(pairs))


@given(RANGES)
def test_a_sparkline_of_any_range_keeps_the_order(values: list[float]) -> None:
    heights = ["▁▂▃▄▅▆▇█".index(block) for block in chart_text.sparkline(values)]
    assert in_order(values, heights)
    low, high = min([0.0, *values]), max([0.0, *values])
    for value, height in zip(values, heights, strict=True):
        assert (height == 0) == (value == low) and (height == 7 or value < high or low == high)


@given(RANGES)
def test_an_svg_sparkline_of_any_range_keeps_the_order(values: list[float]) -> None:
    made = chart_svg.sparkline(values, "x", height=104)
    parsed(made)
    points = re.findall(r"[ML]([\d.]+) ([\d.]+)", re.findall(r'class="l0(?: dot)?" d="([^"]*)"', made)[0])
    assert len(points) == len(values)
    heights = [100 - float(y) for _, y in points]
    assert in_order(values, heights) and all(0 <= height <= 96 for height in heights)
    ends = {min([0.0, *values]): 0, max([0.0, *values]): 96}
    assert len(ends) == 1 or all(height == ends.get(value, height) for value, height in zip(values, heights, strict=True))


@given(RANGES, st.sampled_from(["", "usd", "percent"]))
def test_a_chart_of_any_range_keeps_the_order_and_stays_in_its_frame(values: list[float], unit: str) -> None:
    panel = Lines("x", [Line("y", [(START + n * HOUR, value) for n, value in enumerate(values)])], unit)
    low, high = chart_panels.scale(panel)
    slack = (high - low) * 1e-6
    assert low < high and low <= min([0.0, *values]) + slack and high >= max([0.0, *values]) - slack
    frame = chart_panels.Frame(0, 1000, 10, 160, low, high)
    heights = [160 - frame.y(value) for value in values]
    assert in_order(values, heights) and all(0 <= height <= 150 for height in heights)
    stacks = Bars(
        "x", ("y",), [Bar(START + n * HOUR, START + (n + 1) * HOUR, (value,)) for n, value in enumerate(values)], unit
    )
    parsed(burn_chart.chart("x", (START, START + 12 * HOUR), BERLIN, [panel, stacks]))
    inline = dash_html.chart("a", stacks, (START, START + 12 * HOUR), BERLIN, START, "x")
    ET.fromstring(str(inline).replace("<svg", f'<svg xmlns="{SVG[1:-1]}"'))
    for shape in re.findall(r'<path class="s0" d="([^"]*)"', str(inline)):
        for below, above in re.findall(r"M\d+ (\d+)V(\d+)", shape):
            assert dash_html.TOP <= int(above) < int(below) <= dash_html.TOP + stacks.height


@given(RANGES)
def test_a_gauge_of_any_range_is_drawn(values: list[float]) -> None:
    for value in values:
        assert len(chart_text.gauge(value, 20)) == 20
        parsed(chart_svg.gauge(chart_svg.Gauge("x", value, band=(value, max(values)))))
        shown = str(dash_html.bar([(0.0, value, "s1")], [value]))
        assert not re.search(r"nan|inf|-\d", shown)


def bars(*values: tuple[float, ...] | None, partial: bool = False) -> Bars:
    made = [
        Bar(START + n * HOUR, START + (n + 1) * HOUR, value, partial and n == len(values) - 1)
        for n, value in enumerate(values)
    ]
    return Bars("Tokens per hour", ("read", "<written>"), made)


def chart(*shows: chart_panels.Panel, hours: int = 4, **given: object) -> str:
    return burn_chart.chart("A chart", (START, START + hours * HOUR), BERLIN, shows, **given)  # type: ignore[arg-type]


def test_the_description_tells_the_numbers() -> None:
    desc = parsed(chart(bars((1000, 234), None, (0, 0), (5, 0), partial=True))).findtext(f"{SVG}desc") or ""
    assert "Fri 20 Nov 22:00: 1,234" in desc
    assert "Fri 20 Nov 23:00 to Sat 21 Nov 00:00 unknown" in desc
    assert "Sat 21 Nov 01:00: 5 so far" in desc and "all others 0" in desc
    line = Lines("Used", [Line("weekly", [(START, 0.1), (START + HOUR, None), (START + 2 * HOUR, 0.42)])], "percent")
    desc = parsed(chart(line)).findtext(f"{SVG}desc") or ""
    assert "Used, weekly: Fri 20 Nov 22:00 10%; Sat 21 Nov 00:00 42%" in desc


def test_heights_are_the_values() -> None:
    made = chart(bars((100, 300), (200, 0), (0, 0)))
    root = parsed(made)
    assert [
        element.get("d", "").count("M") for element in root.iter(f"{SVG}path") if element.get("class") in ("s0", "s1")
    ] == [2, 1]
    floor = 58 - 14 + 28 + 170  # the panel's, without a subtitle
    heights = {name: [int(low) - int(high) for low, high in re.findall(r"M\d+ (\d+)V(\d+)", shape)]
               for name, shape in re.findall(r'<path class="(s\d)" d="([^"]*)"', made)}  # fmt: skip
    assert floor == 242 and heights == {"s0": [round(170 / 4), round(170 / 2)], "s1": [round(170 * 3 / 4)]}


def test_what_is_unknown_is_striped_and_what_is_not_over_is_pale() -> None:
    made = chart(bars(None, None, (5, 1), (5, 1), partial=True))
    assert made.count('fill="url(#t') - len(re.findall(r"-w1\)", made)) == 1
    assert 'class="s0 part"' in made and "so far" in made
    assert "url(" not in chart(Lines("x", [Line("y", [(START, 1.0)])]))


def test_a_line_is_interrupted_where_nothing_is_known() -> None:
    points = [(START, 1.0), (START + HOUR, 2.0), (START + 2 * HOUR, None), (START + 3 * HOUR, 2.0), (START + 4 * HOUR, 1.0)]
    (shape,) = re.findall(r'<path class="l0" d="([^"]*)"', chart(Lines("x", [Line("y", points)])))
    assert shape.count("M") == 2
    (dot,) = re.findall(r'<path class="l0 dot" d="([^"]*)"', chart(Lines("x", [Line("y", points[:1])])))
    assert dot.startswith("M")


def test_a_forecast_is_a_band_with_its_middle() -> None:
    band = [Band(START + n * HOUR, 1.0, 2.0 + n, 3.0 + 2 * n) for n in range(3)]
    made = chart(Lines("USD per hour", [Line("cost", [(START, 2.0)])], "usd", band=band))
    assert made.count('class="band"') == 1 and made.count('class="l0 maybe"') == 1
    assert "expected Sat 21 Nov 00:00: $1.00 to $7.00, middle $4.00" in made


def test_parts_and_lines_can_be_told_apart_without_colour() -> None:
    made = chart(
        bars((100, 300), (200, 50)), Lines("x", [Line(name, [(START, 1.0), (START + HOUR, 2.0)]) for name in "abc"])
    )
    assert re.search(r'fill="url\(#t\w+-w1\)"', made)
    dashes = re.findall(r"\.tok \.l\d\{stroke-dasharray:([^}]*)", chart_svg.css())
    assert len(set(dashes)) == 3
    assert all(name in made for name in (">read 300<", ">&lt;written&gt; 350<", ">a<", ">b<", ">c<"))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# How people see colours who lack one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1), in linear RGB.
SIGHTS = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def as_seen(colour: str, sight: str) -> tuple[float, float, float]:
    """A colour in CIELAB, as somebody sees it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    red, green, blue = (min(max(sum(a * b for a, b in zip(row, linear, strict=True)), 0.0), 1.0) for row in SIGHTS[sight])
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    a, b, c = (value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116 for value in (x, y, z))
    return 116 * b - 16, 500 * (a - b), 200 * (b - c)


@pytest.mark.parametrize("at", [2, 3], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_classes_of_tokens_are_told_apart_by_everybody(sight: str, at: int) -> None:
    colours = {str(row[0]): str(row[at]) for row in chart_svg._COLOURS}
    for one, other in combinations(("s0", "s1", "s2", "s3"), 2):
        assert math.dist(as_seen(colours[one], sight), as_seen(colours[other], sight)) > 16, (one, other)


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_all_can_be_read_on_their_background_in_light_and_dark() -> None:
    """WCAG 2.2: 4.5 for text, 3 for what has a meaning."""
    light, dark = chart_svg.css().split("@media")
    for sheet in (light, dark):
        colours = dict(re.findall(r"\.tok \.(\w+)\{(?:fill|stroke):(#\w{6})\}", sheet))
        assert len(colours) > 20
        for name, colour in colours.items():
            least = 4.5 if name in ("ink", "mute") else 3 if re.fullmatch(r"[sl]\d|good|warn|bad", name) else 1
            assert contrast(colour, colours["bg"]) >= least, (name, colour, contrast(colour, colours["bg"]))


def test_a_page_may_have_the_style_once() -> None:
    assert "<style" not in chart(bars((1, 2)), style=False) and "<style" in chart(bars((1, 2)))
    assert all(
        rule.startswith((".tok ", "@media", "}"))
        for rule in re.findall(r"[^{}]*(?=\{)", chart_svg.css().replace("}}", "}"))
        if rule.strip()
    )


def test_two_charts_of_one_page_have_names_of_their_own() -> None:
    one, other = (re.findall(r'id="([^"]*)"', chart(bars((n, 2), (3, 4)))) for n in (1, 9))
    assert not set(one) & set(other)


def test_a_gauge_says_what_is_left_and_never_more() -> None:
    for used, shown in ((0.42, "58% left"), (0.004, "99% left"), (1.02, "0% left"), (0.999, "0% left"), (None, "unknown")):
        assert f">{shown}</text>" in chart_svg.gauge(chart_svg.Gauge("weekly", used))
    made = chart_svg.gauge(chart_svg.Gauge("weekly", 0.5, "resets in 2d", "continue", (0.6, 0.8)))
    assert "60% to 80% used in an hour; resets in 2d; continue" in made
    assert re.search(r'<rect class="good part" x="[^"]*" y="44" width="102.4"', made)
