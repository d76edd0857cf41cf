"""Moments, zones, buckets: 23- and 25-hour days, quarter-hour offsets, and the text forms of --since."""

from __future__ import annotations

import datetime
import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenops import when

BERLIN = when.zone("Europe/Berlin")
KATHMANDU = when.zone("Asia/Kathmandu")
NEWFOUNDLAND = when.zone("America/St_Johns")


@given(st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2099, 12, 31), timezones=st.just(when.UTC)))
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


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2026-02-30T00:00:00Z", "2026-03-01T09:00:00.000X", "1234567890"),
        *("2026-3-1T9:00:00Z", "2026-03-01T9:00:00.0000Z"),  # without padding
        *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z", "0001-01-01T00:00:00+14:00"),  # "no time" of Go and .NET
        *("1999-12-31T23:59:59.999Z", "2100-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59-14:00"),
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        when.canonical(text)


@pytest.mark.parametrize("value", [0, -1, 1e9 - 1e8, 4_102_444_800, 4_102_444_800_000, 1e30])
def test_what_is_no_unix_time(value: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        when.epoch(value)


def test_a_year_has_four_digits() -> None:
    assert when.stamp(when.moment("0001-01-01T00:00:00Z")) == "0001-01-01T00:00:00.000Z"


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
    ("until", "20261120T103000", "2026-11-20T09:30:00.000Z"),
    # beyond the times of any record
    ("since", "0001-01-01", "2000-01-01T00:00:00.000Z"),
    ("until", "9999-12-31", "2099-12-31T23:59:59.999Z"),
]
# Text, and the local midnights at which that span begins and ends. Now is Sunday, 22 November 2026.
DAYS = [
    ("today", "2026-11-22", "2026-11-23"),
    ("yesterday", "2026-11-21", "2026-11-22"),
    ("2026-11-20", "2026-11-20", "2026-11-21"),
    ("20261120", "2026-11-20", "2026-11-21"),
    ("2026-W47-5", "2026-11-20", "2026-11-21"),
    ("2026W475", "2026-11-20", "2026-11-21"),
    ("2026-W47", "2026-11-16", "2026-11-23"),
    ("this week", "2026-11-16", "2026-11-23"),
    ("last week", "2026-11-09", "2026-11-16"),
    ("last-week", "2026-11-09", "2026-11-16"),
    ("this month", "2026-11-01", "2026-12-01"),
    ("Last Month", "2026-10-01", "2026-11-01"),
    ("last year", "2025-01-01", "2026-01-01"),
    ("2026-06", "2026-06-01", "2026-07-01"),
    ("2025-12", "2025-12-01", "2026-01-01"),
    ("2025", "2025-01-01", "2026-01-01"),
    ("june", "2026-06-01", "2026-07-01"),
    ("Jun", "2026-06-01", "2026-07-01"),
    ("november", "2026-11-01", "2026-12-01"),
    ("december", "2025-12-01", "2026-01-01"),  # the latest one that has begun
    ("sept 2024", "2024-09-01", "2024-10-01"),
    ("2026-Q2", "2026-04-01", "2026-07-01"),
    ("2025q4", "2025-10-01", "2026-01-01"),
    ("this quarter", "2026-10-01", "2027-01-01"),
    ("last quarter", "2026-07-01", "2026-10-01"),
]


@pytest.mark.parametrize(("bound", "text", "expected"), SPANS)
def test_spans(bound: str, text: str, expected: str) -> None:
    assert when.stamp(getattr(when, f"parse_{bound}")(text, NOW, BERLIN)) == expected


@pytest.mark.parametrize(("text", "begin", "end"), DAYS)
def test_spans_of_whole_days(text: str, begin: str, end: str) -> None:
    bounds = [when.parse_since(text, NOW, BERLIN), when.parse_until(text, NOW, BERLIN)]
    assert [f"{when.local(ms, BERLIN):%Y-%m-%d %H:%M}" for ms in bounds] == [f"{begin} 00:00", f"{end} 00:00"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "d7",
        "2026-13-01",
        "2026-13",
        "2026-W54",
        "2026-Q5",
        "202606",
        "soon",
        "marchish",
        "last june week",
        "7y",
        "-7d",
    ],
)
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid time: use 7d"):
        when.parse_since(text, NOW, BERLIN)


def test_zones() -> None:
    assert when.zone_name(BERLIN) == "Europe/Berlin"
    assert when.zone("utc") is when.UTC
    assert when.zone("EST5EDT") is not None
    assert when.zone_name(when.zone("<+08>-8")) == "<+08>-8"
    for name in ("Mars/Olympus", "../etc/passwd", "Europe", "UTC+24", "UTC-24:59"):
        with pytest.raises(ValueError, match="unknown zone"):
            when.zone(name)


@pytest.mark.parametrize(
    ("rule", "summer", "winter"),
    [
        ("UTC-8", "17:00", "17:00"),  # the sign is what is added to reach UTC
        ("GMT+3", "06:00", "06:00"),
        ("UTC0", "09:00", "09:00"),
        ("<+08>-8", "17:00", "17:00"),
        ("IST-5:30", "14:30", "14:30"),
        ("CST-8", "17:00", "17:00"),
        ("AST4ADT", "06:00", "05:00"),  # glibc's rule where none stands
        ("CET-1CEST,M3.5.0,M10.5.0/3", "11:00", "10:00"),
    ],
)
def test_posix_zones(rule: str, summer: str, winter: str) -> None:
    tz = when.zone(rule)
    times = ["2026-07-01T09:00:00Z", "2026-12-01T09:00:00Z"]
    assert [f"{when.local(when.moment(time), tz):%H:%M}" for time in times] == [summer, winter]
    assert when.bucket(when.moment(times[0]), "day", when.zone(when.zone_name(tz))) == "2026-07-01"


def test_the_zone_of_the_environment_may_be_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("TZ", ":/usr/share/zoneinfo/Europe/Berlin")
    assert when.zone_name(when.zone(None)) == "Europe/Berlin"
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("TZ", str(tmp_path / "pipe"))
    with pytest.raises(ValueError, match="is not a file of a zone"):
        when.zone(None)
    with pytest.raises(ValueError, match="unknown zone"):
        when.zone("/usr/share/zoneinfo/Europe/Berlin")  # a name in a client's text opens no file


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
