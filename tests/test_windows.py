"""Readings of limit windows: what is one window, what is stale, and what stays unknown."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from users import series_of

from tokenops import events, limit_windows, read_codex, when, wire_limits
from tokenops.limit_windows import MINUTE, Key, Point, Series

START = when.moment("2026-11-02T00:00:00Z")
HOUR = 60 * MINUTE
SOURCE = "codex-jsonl"


def meter(at: float, used: float | None, resets: float | None, source: str = SOURCE, **more: Any) -> events.Event:
    """A reading `at` hours after the start, of a window that resets so many hours after it."""
    moment = None if resets is None else when.stamp(START + round(resets * HOUR))
    given = {"window": "five_hour", "window_minutes": 300, "used": used, "resets_at": moment, **more}
    return events.meter(source, given.pop("provider", "openai"), when.stamp(START + round(at * HOUR)), **given)


def shown(series: list[Series]) -> dict[str, list[list[tuple[float, float]]]]:
    """Window's name and account -> its windows' readings, in hours and percent."""
    return {
        f"{one.key.window}{one.key.scope and ' ' + one.key.scope}{one.key.account and ' ' + one.key.account}": [
            [(round((reading.at - START) / HOUR, 2), round(100 * reading.used, 2)) for reading in window.points]
            for window in one.windows
        ]
        for one in series
    }


CASES: dict[str, tuple[list[events.Event], dict[str, list[list[tuple[float, float]]]]]] = {
    "one window": ([meter(1, 0.1, 5), meter(2, 0.2, 5)], {"five_hour": [[(1, 10), (2, 20)]]}),
    "the next window starts anew": ([meter(1, 0.4, 5), meter(6, 0.1, 10)], {"five_hour": [[(1, 40)], [(6, 10)]]}),
    "jittering resets": ([meter(1, 0.1, 5), meter(2, 0.2, 5.001), meter(3, 0.3, 4.95)], {"five_hour": [[(1, 10), (2, 20), (3, 30)]]}),
    "five minutes are another window": ([meter(1, 0.1, 5), meter(1, 0.2, 5 + 5 / 60)], {"five_hour": [[(1, 10)], [(1, 20)]]}),
    "stale after its reset": ([meter(1, 0.3, 5), meter(5, 0.4, 5), meter(6, 0.5, 5)], {"five_hour": [[(1, 30)]]}),
    "a renamed slot is told by its length": ([meter(1, 0.1, 100, window="primary", window_minutes=10_080)], {"weekly": [[(1, 10)]]}),
    "299 minutes are five hours": ([meter(1, 0.1, 5, window="", window_minutes=299)], {"five_hour": [[(1, 10)]]}),
    "43,200 minutes are a month": ([meter(1, 0.1, 500, window="primary", window_minutes=43_200)], {"monthly": [[(1, 10)]]}),
    "a model's window is its own": (
        [meter(1, 0.1, 100, window="weekly", window_minutes=10_080), meter(1, 0.3, 100, window="weekly_opus", window_minutes=10_080, scope="opus")],
        {"weekly": [[(1, 10)]], "weekly_opus opus": [[(1, 30)]]},
    ),
    "no five-hour window": ([meter(1, 0.1, 100, window="weekly", window_minutes=10_080)], {"weekly": [[(1, 10)]]}),
    "missing is unknown": ([meter(1, None, 5), meter(2, 0.2, 5)], {"five_hour": [[(2, 20)]]}),
    "an absent window is nothing": ([meter(1, None, None)], {}),
    "refused is used up": ([meter(1, 0.9, 5), meter(2, None, 5, status="rejected")], {"five_hour": [[(1, 90), (2, 100)]]}),
    "refused, of no known window": ([events.meter("claude-code-jsonl", "anthropic", when.stamp(START), status="rejected")], {}),
    "a share may exceed 1": ([meter(1, 1.05, 5)], {"five_hour": [[(1, 105)]]}),
    "accounts are not mixed": (
        [meter(1, 0.8, 5, account="a"), meter(2, 0.1, 5, account="b"), meter(3, 0.9, 5, account="a")],
        {"five_hour a": [[(1, 80), (3, 90)]], "five_hour b": [[(2, 10)]]},
    ),
    "an idle session repeats an old number": (
        [meter(1, 0.1, 5), meter(2, 0.3, 5), meter(2.5, 0.1, 5), meter(3, 0.3, 5)],
        {"five_hour": [[(1, 10), (2, 30), (3, 30)]]},
    ),
    "a status line's repetition is no reading": (
        [meter(at, used, 5, "claude-code-statusline") for at, used in ((1, 0.1), (1.5, 0.1), (2, 0.1), (3, 0.2))],
        {"five_hour": [[(1, 10), (3, 20)]]},
    ),
    "a run that outlives its reset was repeated all along": (
        [meter(at, 0.3, 5) for at in (1, 2, 3, 4, 5.5, 6)],
        {"five_hour": [[(1, 30)]]},
    ),
    "of one moment the highest counts": ([meter(1, 0.1, 5), meter(1, 0.2, 5, "proxy")], {"five_hour": [[(1, 20)]]}),
    "without a reset, in the only window open": ([meter(1, 0.1, 5), meter(2, 0.2, None)], {"five_hour": [[(1, 10), (2, 20)]]}),
    "without a reset, below what was used": ([meter(1, 0.1, 5), meter(2, 0.0, None)], {"five_hour": [[(1, 10)]]}),
    "without a reset, outside of any": ([meter(1, 0.1, 5), meter(6, 0.2, None)], {"five_hour": [[(1, 10)]]}),
    "a reset that is further off than the window is long is not believed": ([meter(1, 0.1, 25), meter(2, 0.2, 5), meter(3, 0.3, 29)], {"five_hour": [[(2, 20), (3, 30)]]}),
    "a month of 31 days": ([meter(0, 0.1, 743.9, window="monthly", window_minutes=43_200)], {"monthly": [[(0, 10)]]}),
    "a key's rate is no plan": ([meter(1, 0.5, 1.01, window="requests_per_minute", window_minutes=1), meter(1, 0.5, 24, window="tokens_per_day", window_minutes=1440)], {}),
    "no sense": ([meter(1, -0.1, 5), meter(1, float("nan"), 5), meter(1, 0.1, 5, window_minutes=-3), meter(1, 0.2, 5, window="x", window_minutes=None)], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_readings_mean(name: str) -> None:
    readings, expected = CASES[name]
    assert shown(series_of(readings)) == expected
    assert shown(series_of(reversed(readings))) == expected


UNITS = {
    "headers, a fraction": list(
        wire_limits.readings("anthropic", {"anthropic-ratelimit-unified-5h-utilization": "0.42", "anthropic-ratelimit-unified-5h-reset": str((START + 5 * HOUR) // 1000)}, when.stamp(START + HOUR))
    ),
    "headers, percent": list(
        wire_limits.readings("openai", {"x-codex-primary-used-percent": "42", "x-codex-primary-window-minutes": "300", "x-codex-primary-reset-after-seconds": "14400"}, when.stamp(START + HOUR))
    ),
    "a rollout, percent and seconds from now": list(
        read_codex.meters_of({"primary": {"used_percent": 42.0, "window_minutes": 299, "resets_in_seconds": 14_400}}, when.stamp(START + HOUR), "openai")
    ),
    "a rollout, renamed slot and a moment": list(
        read_codex.meters_of({"secondary": {"used_percent": 42, "window_minutes": 300, "resets_at": (START + 5 * HOUR) // 1000}}, when.stamp(START + HOUR), "openai")
    ),
    "headers, a fraction and RFC 3339": list(
        wire_limits.readings("anthropic", {"anthropic-ratelimit-unified-5h-utilization": "0.42", "anthropic-ratelimit-unified-5h-reset": "2026-11-02T05:00:00Z"}, when.stamp(START + HOUR))
    ),
    "headers, percent and milliseconds": list(
        wire_limits.readings("openai", {"x-codex-primary-used-percent": "42.0", "x-codex-primary-window-minutes": "300", "x-codex-primary-reset-at": str(START + 5 * HOUR)}, when.stamp(START + HOUR))
    ),
    "a status line, percent and seconds": list(
        wire_limits.status_line({"rate_limits": {"five_hour": {"used_percentage": 42, "resets_at": (START + 5 * HOUR) // 1000}}}, when.stamp(START + HOUR))
    ),
    "a status line, percent and ISO": list(
        wire_limits.status_line({"rate_limits": {"five_hour": {"used_percentage": 42.0, "resets_at": "2026-11-02T05:00:00+00:00"}, "seven_day": None}}, when.stamp(START + HOUR))
    ),
    "Anthropic's report, percent and ISO": list(
        wire_limits.anthropic_usage({"five_hour": {"utilization": 42.0, "resets_at": "2026-11-02T05:00:00.000000+00:00"}, "seven_day": None, "seven_day_opus": {"utilization": None}}, "claude-code-usage-cache", when.stamp(START + HOUR))
    ),
    "Anthropic's report, a list": list(
        wire_limits.anthropic_usage({"limits": [{"kind": "session", "percent": 42, "resets_at": "2026-11-02T00:00:00-05:00"}]}, "claude-code-usage-cache", when.stamp(START + HOUR))
    ),
    "an event of a stream": list(
        wire_limits.quota_event({"type": "codex.rate_limits", "rate_limits": {"primary": {"used_percent": 42, "window_minutes": 300, "reset_after_seconds": 14_400}, "secondary": None}}, when.stamp(START + HOUR))
    ),
}  # fmt: skip


def seen(
    at: float, account: str, resets: float | None, provider: str = "anthropic", window: str = "five_hour"
) -> limit_windows.Reading:
    moment = None if resets is None else START + round(resets * HOUR)
    return limit_windows.Reading(
        Key(provider, account, window, ""), 300, START + round(at * HOUR), 0.1, moment, "", SOURCE, ""
    )


WHOSE: list[tuple[str, list[limit_windows.Reading], list[str]]] = [
    ("nobody is named", [seen(1, "", 5), seen(6, "", 10)], ["", ""]),
    ("the same reset is the same account", [seen(1, "a", 5), seen(2, "", 5.01)], ["a", "a"]),
    ("and then all of the only account", [seen(1, "", 4), seen(2, "a", 9), seen(3, "", 9)], ["a", "a", "a"]),
    ("no reset was met", [seen(1, "a", 5), seen(2, "", 4)], ["a", ""]),
    ("of two accounts by their resets", [seen(1, "a", 5), seen(1, "b", 4), seen(2, "", 5), seen(2, "", 4), seen(2, "", 3)], ["a", "b", "a", "b", ""]),
    ("another window tells nothing", [seen(1, "a", 5, window="weekly"), seen(2, "", 5)], ["a", ""]),
    ("nor another provider", [seen(1, "a", 5, "openai"), seen(2, "", 5)], ["a", ""]),
    ("without a reset", [seen(1, "a", 5), seen(2, "", None)], ["a", ""]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "found", "expected"), WHOSE, ids=[case[0] for case in WHOSE])
def test_whose_a_reading_is(what: str, found: list[limit_windows.Reading], expected: list[str]) -> None:
    assert [one.key.account for one in limit_windows.with_accounts(found)] == expected
    assert [one._replace(key=FIVE) for one in limit_windows.with_accounts(found)] == [
        one._replace(key=FIVE) for one in found
    ]


FIVE = Key("", "", "", "")


@pytest.mark.parametrize("name", UNITS)
def test_units_of_all_sources_come_to_the_same(name: str) -> None:
    (one,) = series_of(UNITS[name])
    (window,) = one.windows
    assert (one.key.window, window.resets_at, window.points) == (
        "five_hour",
        START + 5 * HOUR,
        (Point(START + HOUR, 0.42),),
    )


def test_which_window_is_open() -> None:
    (one,) = series_of([meter(1, 0.4, 5), meter(6, 0.1, 10)])
    assert limit_windows.open_window(one, START) is None
    assert limit_windows.open_window(one, START + 2 * HOUR) == one.windows[0]
    assert limit_windows.open_window(one, START + 5 * HOUR) is None  # reset, and the next is not read yet: unknown, not 0
    assert limit_windows.open_window(one, START + 7 * HOUR) == one.windows[1]


def test_a_longer_window_at_its_limit_freezes_a_shorter() -> None:
    weekly = {"window": "weekly", "window_minutes": 10_080}
    found = series_of(
        [
            meter(1, 0.4, 5),
            meter(1, 0.99, 50, **weekly),
            meter(2, 1.0, 50, **weekly),
            meter(1, 1.0, 50, account="b", **weekly),
        ]
    )
    short = next(one for one in found if one.key.window == "five_hour")
    assert limit_windows.frozen_spans(short, found) == [(START + 2 * HOUR, START + 50 * HOUR)]
    assert limit_windows.frozen_spans(next(one for one in found if one.key.window == "weekly"), found) == []


def test_polls_and_what_comes_with_use() -> None:
    assert [one.polled for one in series_of([meter(1, 0.1, 5, "vendor-usage-anthropic")])] == [True]
    assert [one.polled for one in series_of([meter(1, 0.1, 5, "vendor-x"), meter(2, 0.2, 5)])] == [False]


READINGS = st.lists(
    st.builds(
        meter,
        st.floats(0, 20),
        st.one_of(st.none(), st.floats(0, 1.2)),
        st.one_of(st.none(), st.sampled_from([5, 5.01, 4.99, 10, 10.02, 15, 20])),
        st.sampled_from([SOURCE, "proxy", "claude-code-statusline"]),
        account=st.sampled_from([None, "a", "b"]),
    ),
    max_size=40,
)


@given(READINGS, st.randoms(use_true_random=False))
def test_laws(readings: list[events.Event], shuffle: random.Random) -> None:
    found = series_of(readings)
    for one in found:
        ends = [window.resets_at for window in one.windows]
        assert all(b - a > 0 for a, b in itertools.pairwise(ends))
        for window in one.windows:
            times = [reading.at for reading in window.points]
            used = [reading.used for reading in window.points]
            assert times == sorted(set(times)) and used == sorted(used)
            assert times and times[-1] < window.resets_at + limit_windows.JITTER_MS
    given_used = {reading["used"] for reading in readings if "used" in reading}
    assert {reading.used for one in found for window in one.windows for reading in window.points} <= given_used
    mixed = list(readings)
    shuffle.shuffle(mixed)
    assert series_of(mixed) == found
    # What one account does is nothing to another.
    alone = series_of(reading for reading in readings if reading.get("account") == "a")
    assert [one for one in found if one.key.account == "a"] == alone


@given(st.lists(st.integers(0, 10**7), max_size=30))
def test_resets_of_a_group_lie_within_five_minutes(moments: list[int]) -> None:
    found = limit_windows.canonical_resets(moments)
    assert found.keys() == set(moments)
    for at, same in found.items():
        assert abs(at - same) < limit_windows.JITTER_MS
        assert found[same] == same


def test_key_is_what_budgets_are_by() -> None:
    (one,) = series_of([meter(1, 0.1, 5, account="a")])
    assert one.key == Key("openai", "a", "five_hour", "")
