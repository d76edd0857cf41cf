"""Moments, zones, buckets: 23- and 25-hour days, quarter-hour offsets, and the text forms of --since."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenops import when

BERLIN = when.zone("Europe/Berlin")
KATHMANDU = when.zone("Asia/Kathmandu")
NEWFOUNDLAND = when.zone("America/St_Johns")


@given(st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2200, 1, 1), timezones=st.just(when.UTC)))
def test_a_moment_survives_its_text(at: datetime.datetime) -> None:
    ms = when.moment(at.isoformat())
    assert when.moment(when.stamp(ms)) == ms
    assert when.canonical(at.isoformat()) == when.stamp(ms)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T09:00:00Z", "2026-03-01T09:00:00.000Z"),
        ("2026-03-01T10:00:00.9+01:00", "2026-03-01T09:00:00.900Z"),
        ("2026-03-01 09:00:00.123456789Z", "2026-03-01T09:00:00.123Z"),
        ("2026-03-01T09:00:00", "2026-03-01T09:00:00.000Z"),
        ("2026-03-01 09:00:00.000Z", "2026-03-01T09:00:00.000Z"),
        ("2026-03-01T09:00:00,000Z", "2026-03-01T09:00:00.000Z"),
        ("2026-W09-7T09:00:00.000Z", "2026-03-01T09:00:00.000Z"),
        ("2026-03-01T09:00:00-03:30", "2026-03-01T12:30:00.000Z"),
    ],
)
def test_canonical(text: str, expected: str) -> None:
    assert when.canonical(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30T00:00:00Z", "2026-03-01T09:00:00.000X", "1234567890"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        when.canonical(text)


BUCKETS = [
    # the spring day has 23 hours, the autumn day 25, and its hour 2 comes twice
    ("2026-03-28T23:00:00.000Z", BERLIN, "day", "2026-03-29"),
    ("2026-03-29T21:59:59.999Z", BERLIN, "day", "2026-03-29"),
    ("2026-03-29T22:00:00.000Z", BERLIN, "day", "2026-03-30"),
    ("2026-03-29T01:30:00.000Z", BERLIN, "hour", "2026-03-29T03:00+02:00"),
    ("2026-10-25T00:30:00.000Z", BERLIN, "hour", "2026-10-25T02:00+02:00"),
    ("2026-10-25T01:30:00.000Z", BERLIN, "hour", "2026-10-25T02:00+01:00"),
    ("2026-10-25T22:59:59.999Z", BERLIN, "day", "2026-10-25"),
    ("2026-11-21T18:14:59.999Z", KATHMANDU, "day", "2026-11-21"),
    ("2026-11-21T18:15:00.000Z", KATHMANDU, "day", "2026-11-22"),
    ("2026-11-21T18:15:00.000Z", KATHMANDU, "hour", "2026-11-22T00:00+05:45"),
    ("2026-01-01T03:29:59.999Z", NEWFOUNDLAND, "month", "2025-12"),
    ("2026-01-01T03:30:00.000Z", NEWFOUNDLAND, "month", "2026-01"),
    ("2026-11-16T00:00:00.000Z", when.UTC, "week", "2026-W47"),
    ("2027-01-03T23:59:59.999Z", when.UTC, "week", "2026-W53"),
]


@pytest.mark.parametrize(("text", "tz", "unit", "expected"), BUCKETS)
def test_buckets(text: str, tz: datetime.tzinfo, unit: str, expected: str) -> None:
    assert when.bucket(when.moment(text), unit, tz) == expected
    assert when.Buckets(unit, tz).label_of(text) == expected


@given(
    st.integers(1_760_000_000_000, 1_800_000_000_000),
    st.sampled_from(when.UNITS),
    st.sampled_from([BERLIN, KATHMANDU, NEWFOUNDLAND, when.zone("Australia/Lord_Howe"), when.UTC]),
)
def test_remembered_hours_change_nothing(ms: int, unit: str, tz: datetime.tzinfo) -> None:
    buckets = when.Buckets(unit, tz)
    for near in (ms, ms + 60_000, ms - 3_000_000, ms):
        assert buckets.label_of(when.stamp(near)) == when.bucket(near, unit, tz)


@given(st.integers(1_760_000_000_000, 1_800_000_000_000), st.sampled_from([BERLIN, KATHMANDU, when.UTC]))
def test_a_coarser_bucket_holds_the_finer_one(ms: int, tz: datetime.tzinfo) -> None:
    for fine, coarse in (
        ("hour", "day"),
        ("hour", "week"),
        ("hour", "month"),
        ("day", "week"),
        ("day", "month"),
        ("week", "week"),
    ):
        assert when.coarser_label(when.bucket(ms, fine, tz), fine, coarse) == when.bucket(ms, coarse, tz)


def test_a_week_is_no_part_of_a_month() -> None:
    for fine, coarse in (("week", "month"), ("month", "week"), ("day", "hour"), ("month", "day")):
        with pytest.raises(ValueError, match="cannot be rolled up"):
            when.coarser_label("2026-W47", fine, coarse)


NOW = when.moment("2026-11-22T10:00:00.000Z")
SPANS = [
    ("since", "7d", "2026-11-15T10:00:00.000Z"),
    ("since", "24h", "2026-11-21T10:00:00.000Z"),
    ("since", "90m", "2026-11-22T08:30:00.000Z"),
    ("since", "2w", "2026-11-08T10:00:00.000Z"),
    ("since", "today", "2026-11-21T23:00:00.000Z"),
    ("since", "yesterday", "2026-11-20T23:00:00.000Z"),
    ("since", "2026-03-29", "2026-03-28T23:00:00.000Z"),
    ("until", "2026-03-29", "2026-03-29T22:00:00.000Z"),
    ("until", "today", "2026-11-22T23:00:00.000Z"),
    ("since", "2026-11-01T09:30", "2026-11-01T08:30:00.000Z"),
    ("until", "2026-11-01T09:30:00Z", "2026-11-01T09:30:00.000Z"),
]


@pytest.mark.parametrize(("bound", "text", "expected"), SPANS)
def test_spans(bound: str, text: str, expected: str) -> None:
    assert when.stamp(getattr(when, f"parse_{bound}")(text, NOW, BERLIN)) == expected


@pytest.mark.parametrize("text", ["", "7", "d7", "2026-13-01", "soon", "7y", "-7d"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid time: use 7d"):
        when.parse_since(text, NOW, BERLIN)


def test_zones() -> None:
    assert when.zone_name(BERLIN) == "Europe/Berlin"
    assert when.zone("utc") is when.UTC
    assert when.zone("EST5EDT") is not None
    for name in ("Mars/Olympus", "../etc/passwd", "Europe"):
        with pytest.raises(ValueError, match="unknown zone"):
            when.zone(name)


def test_windows_are_told_by_their_length() -> None:
    named = {
        299: "five_hour",
        300: "five_hour",
        10_079: "weekly",
        10_080: "weekly",
        43_200: "monthly",
        1440: "daily",
        200: "200_minutes",
    }
    assert {minutes: when.window_name(minutes) for minutes in named} == named


def test_unix_times_in_seconds_and_milliseconds() -> None:
    assert when.epoch(1_772_366_400) == when.epoch(1_772_366_400_000) == when.moment("2026-03-01T12:00:00Z")
    for value in (0, -5, 10**17):
        with pytest.raises((ValueError, OverflowError)):
            when.epoch(value)
