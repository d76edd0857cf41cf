"""Made-up users of a five-hour window, for what forecasts must do whatever the real data says."""

from __future__ import annotations

import random
from collections.abc import Iterable

from tokenops import events, limit_windows, when
from tokenops.limit_windows import MINUTE, Key, Point, Series, Window

START = when.moment("2026-11-02T00:00:00Z")


def series_of(meters: Iterable[events.Event]) -> list[Series]:
    """The series of some meters."""
    return limit_windows.series(limit_windows.readings_of(meters))


def user(seed: int, count: int = 60, pace: float = 0.4, rest: float = 0.5, step: int = 5, polled: bool = False) -> Series:
    """Somebody who works in stretches of about an hour, each at a pace of its own, and rests for `rest` of the time.

    `pace`: percent a minute while at work, at the median; readings every `step` minutes, at rest too where polled.
    """
    draw = random.Random(seed)
    made, busy, mine = [], False, pace
    for number in range(count):
        begins, readings, exact = START + number * 300 * MINUTE, [], 0.0
        for minute in range(step, 300, step):
            if draw.random() < step / 60:
                busy, mine = draw.random() >= rest, pace * draw.lognormvariate(0, 0.8)
            exact += step * mine * draw.uniform(0.4, 1.6) if busy else 0.0
            if busy or polled:
                readings.append(Point(begins + minute * MINUTE, min(int(exact), 100) / 100))
        if readings:
            made.append(Window(begins + 300 * MINUTE, 300, tuple(readings)))
    return Series(Key("openai", f"user{seed}", "five_hour", ""), tuple(made), polled)


def until(series: Series, now: int) -> Series:
    """What was known of a series at a moment."""
    known = []
    for window in series.windows:
        readings = tuple(reading for reading in window.points if reading.at <= now)
        if readings:
            known.append(window._replace(points=readings))
    return series._replace(windows=tuple(known))
