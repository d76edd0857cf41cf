"""Draws charts for a terminal, and computes the scales that all charts share: round steps, short numbers, times.

An unknown value (None, or a number that is not finite) is a dot or a gap, never 0.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Iterator

from tokenops import show, when

MINUTE = 60_000
UNKNOWN = "\u00b7"  # a dot in the middle of the line
_BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"  # one eighth to a whole, from below
_EIGHTHS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"  # none to seven eighths, from the left
_FULL, _BAND, _TRACK = "\u2588", "\u2592", "\u2591"
# Nothing that is measured here is larger, and sums of larger values would not be finite.
_MOST = 1e300

Value = float | None


def is_drawable(value: Value) -> bool:
    """Whether a value can be drawn."""
    return value is not None and math.isfinite(value) and abs(value) <= _MOST


def sparkline(values: Iterable[Value]) -> str:
    """One character per value, from the least (or 0) to the largest; 0 is the lowest block, and nothing else is."""
    every = list(values)
    drawn = [value for value in every if value is not None and is_drawable(value)]
    low, high = min([0.0, *drawn]), max([0.0, *drawn])
    return "".join(_block(value, low, high) if value is not None and is_drawable(value) else UNKNOWN for value in every)


def _block(value: float, low: float, high: float) -> str:
    return _BLOCKS[0] if value <= low else _BLOCKS[min(max(math.ceil(share(value, low, high) * 7), 1), 7)]


def share(value: float, low: float, high: float) -> float:
    """How far a value lies from `low` to `high`: 0 at or below `low`, and for an empty range; 1 at or above `high`.

    The difference of two known values is finite, and above 0 if they differ at all; halves of them need not differ.
    """
    if value <= low or not high > low:
        return 0.0
    return 1.0 if value >= high else (value - low) / (high - low)


def gauge(fraction: Value, width: int = 20) -> str:
    """A bar that is filled to a fraction, to the eighth of a character; dots if the fraction is unknown.

    A fraction above 0 never shows as empty, nor one below 1 as full.
    """
    return "".join(gauge_parts(fraction, width))


def gauge_parts(fraction: Value, width: int, ahead: Value = None) -> tuple[str, str, str]:
    """A gauge in three parts: what is filled, a band from there to the fraction `ahead`, and the rest."""
    if fraction is None or not is_drawable(fraction):
        return "", "", UNKNOWN * width
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    if 0 < fraction < 1 and width:
        eighths = min(max(eighths, 1), width * 8 - 1)
    full, part = divmod(eighths, 8)
    bar = _FULL * full + (_EIGHTHS[part] if part else "")
    end = 0 if ahead is None or not is_drawable(ahead) else round(min(max(ahead, 0.0), 1.0) * width)
    band = _BAND * max(end - len(bar), 0)
    return bar, band, _TRACK * (width - len(bar) - len(band))


def percent(fraction: float) -> str:
    """A share for people: 42%; below 1 % with two digits: 0.4%, 0.042%."""
    share = 100 * fraction
    return f"{show.digits(share)}%" if 0 < abs(share) < 0.995 else f"{share:.0f}%"


def tick_step(span: float, count: int) -> float:
    """The least of 1, 2 or 5 times a power of ten that cuts a span into at most `count` pieces."""
    if not (math.isfinite(span) and span > 1e-12):
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    return next((m * power for m in (1, 2, 5, 10) if m * power * count >= span * (1 - 1e-9)), 10 * power)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, at most about `count` steps.

    A range that is empty, or too narrow for marks that a float could tell apart, is widened upwards.
    """
    alike = 1e-9 * max(abs(low), abs(high))
    if not high > low:
        high = low + max(1.0, alike)
    elif high - low < alike:
        high = low + alike
    width = tick_step(high - low, count)
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    return [at * width for at in range(first, max(last, first + 1) + 1)]


_CLOCK_MINUTES = (5, 10, 15, 30, 60, 120, 180, 360, 720)  # minutes
_DAYS = (1, 2, 7, 14)
_MONTHS = (1, 3, 6, 12, 24, 60, 120)


def times(start: int, end: int, tz: datetime.tzinfo, count: int = 8) -> list[tuple[int, bool]]:
    """Moments of round local time in a span, at most about `count`, and whether each begins a day."""
    span = max(end - start, 1)
    for minutes in _CLOCK_MINUTES:
        if span / (minutes * MINUTE) <= count:
            return [(at, midnight) for at, midnight in _clock(start, end, tz, minutes)]
    for days in _DAYS:
        if span / (days * when.DAY) <= count:
            return [(at, True) for at in _days(start, end, tz, days)]
    months = next((n for n in _MONTHS if span / (n * 30.4 * when.DAY) <= count), max(int(span / count / 30 / when.DAY), 1))
    return [(at, True) for at in _months(start, end, tz, months)]


def _clock(start: int, end: int, tz: datetime.tzinfo, minutes: int) -> Iterator[tuple[int, bool]]:
    """Moments of the local clock, `minutes` apart; an hour that a change of the clock skips is left out."""
    first, last = when.local(start, tz).date(), when.local(end, tz).date()
    seen = start - 1
    for number in range((last - first).days + 1):
        day = first + datetime.timedelta(number)
        for at in range(0, 1440, minutes):
            wall = datetime.datetime(day.year, day.month, day.day, at // 60, at % 60, tzinfo=tz)
            moment = _moment(wall)
            if seen < moment <= end:
                seen = moment
                yield moment, at == 0


def _days(start: int, end: int, tz: datetime.tzinfo, days: int) -> Iterator[int]:
    """Midnights, `days` apart; weeks begin on Monday."""
    first, last = when.local(start, tz).date(), when.local(end, tz).date()
    for number in range((last - first).days + 1):
        day = first + datetime.timedelta(number)
        moment = _moment(datetime.datetime(day.year, day.month, day.day, tzinfo=tz))
        if (day.toordinal() - 1) % days == 0 and start <= moment <= end:
            yield moment


def _months(start: int, end: int, tz: datetime.tzinfo, months: int) -> Iterator[int]:
    first, last = when.local(start, tz), when.local(end, tz)
    for number in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        if number % months == 0:
            moment = _moment(datetime.datetime(number // 12, number % 12 + 1, 1, tzinfo=tz))
            if start <= moment <= end:
                yield moment


def _moment(wall: datetime.datetime) -> int:
    return when.moment(wall.astimezone(when.UTC).isoformat())


def day_name(at: int, tz: datetime.tzinfo) -> str:
    """A day as an axis names it: Tue 18 Nov."""
    local = when.local(at, tz)
    return f"{_WEEKDAYS[local.weekday()]} {local.day} {_NAMES[local.month - 1]}"


def bucket_name(at: int, unit: str, tz: datetime.tzinfo) -> str:
    """A day, week or month as charts name it: Tue 18 Nov, week of 17 Nov 2025, Nov 2025."""
    local = when.local(at, tz)
    if unit == "month":
        return f"{_NAMES[local.month - 1]} {local.year}"
    return f"week of {local.day} {_NAMES[local.month - 1]} {local.year}" if unit == "week" else day_name(at, tz)


def clock(at: int, tz: datetime.tzinfo) -> str:
    """The local time of day: 14:30."""
    return f"{when.local(at, tz):%H:%M}"


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
