"""The etiquette of asking vendors, without asking any."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vendors import NOW

from tokenops import etiquette
from tokenops.etiquette import Answer, State, Trouble

MINUTE, HOUR = etiquette.MINUTE, etiquette.HOUR
LIMITED = Trouble(etiquette.LIMITED, "429")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("", 0),
        ("1.5", 1.5),
        ("-3", 0),
        ("nan", 0),
        ("inf", 86_400),
        ("99999999", 86_400),
        ("Sat, 21 Nov 2026 09:40:00 GMT", 600),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 0),
        ("soon", 0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    assert etiquette.retry_ms({"retry-after": text}, NOW) == seconds * 1000


def test_github_says_403_and_a_moment() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW // 1000 + 1200)}
    with pytest.raises(Trouble) as caught:
        etiquette.object_of(Answer(403, headers, b"{}"), NOW)
    assert (caught.value.kind, caught.value.retry_ms) == (etiquette.LIMITED, 1_200_000)
    for left in ({"x-ratelimit-remaining": "59"}, {"x-ratelimit-reset": "soon"}):
        with pytest.raises(Trouble) as caught:
            etiquette.object_of(Answer(403, headers | left, b"{}"), NOW)
        assert caught.value.kind == etiquette.REFUSED


STATUSES = [
    (401, b"{}", etiquette.REFUSED, "refused the credential"),
    (403, b'{"error": "sentinel-words"}', etiquette.REFUSED, "refused the credential"),
    (403, b"<html>Just a moment... sentinel-words", etiquette.REFUSED, "accepts browsers only"),
    (429, b"", etiquette.LIMITED, "too many requests"),
    (500, b"<html>sentinel-words", etiquette.FAILING, "has a problem (500)"),
    (503, b"", etiquette.FAILING, "has a problem (503)"),
    (408, b"", etiquette.FAILING, "has a problem (408)"),
    (302, b"", etiquette.CHANGED, "redirected (302)"),
    (404, b"", etiquette.CHANGED, "status 404"),
    (400, b"sentinel-words", etiquette.CHANGED, "status 400"),
    (200, b" \n<!doctype html>sentinel-words", etiquette.CHANGED, "a web page"),
    (200, b'{"a": "sentinel-wor', etiquette.FAILING, "19 bytes came that are not complete JSON"),
    (200, b"", etiquette.FAILING, "0 bytes came"),
    (200, b"[1]", etiquette.CHANGED, "not an object"),
]


@pytest.mark.parametrize(("status", "body", "kind", "why"), STATUSES)
def test_what_an_answer_means(status: int, body: bytes, kind: str, why: str) -> None:
    with pytest.raises(Trouble) as caught:
        etiquette.object_of(Answer(status, {}, body), NOW)
    assert caught.value.kind == kind and why in caught.value.why
    assert "sentinel" not in str(caught.value)


def test_an_object() -> None:
    assert etiquette.object_of(Answer(200, {}, b'{"a": 1}'), NOW) == {"a": 1}


def limited(state: State, now: int, retry_s: int = 0) -> State:
    return etiquette.after_trouble(state, now, Trouble(etiquette.LIMITED, "429", retry_s * 1000), "f", {})


def test_429_doubles_from_a_quarter_of_an_hour_to_two_hours() -> None:
    state, waits = State(), []
    for _ in range(6):
        state = limited(state, NOW)
        waits.append((state.wait_until - NOW) // MINUTE)
    assert waits == [15, 30, 60, 120, 120, 120]


@pytest.mark.parametrize(
    ("retry_s", "minutes"), [(0, 15), (60, 15), (1800, 30), (7999, 7999 / 60), (51_811, 51_811 / 60), (86_400, 1440)]
)
def test_retry_after_is_honoured_and_0_is_no_permission(retry_s: int, minutes: float) -> None:
    assert limited(State(), NOW, retry_s).wait_until - NOW == minutes * MINUTE


def test_failures_double_from_a_minute_to_an_hour() -> None:
    state, waits = State(), []
    for _ in range(9):
        state = etiquette.after_trouble(state, NOW, Trouble(etiquette.FAILING, "500"), "f", {})
        waits.append((state.wait_until - NOW) // MINUTE)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_success_forgets_what_went_wrong_but_says_when() -> None:
    state = etiquette.after_answer(limited(etiquette.after_request(State(marks={"m": 1}), NOW), NOW), NOW + 1, {"n": 2})
    assert (state.limited, state.failures, state.wait_until, state.status) == (0, 0, 0, "ok")
    assert (state.why, state.why_at, state.ok_at, state.marks) == ("429", NOW, NOW + 1, {"m": 1, "n": 2})


INTERVAL = 5 * MINUTE
ASKED = State(at=NOW)
REFUSED = etiquette.after_trouble(ASKED, NOW, Trouble(etiquette.REFUSED, "401"), "f1", {})
DUE = [
    ("never asked", State(), NOW, "f1", False, ("", 7_500)),
    ("just asked", ASKED, NOW + MINUTE, "f1", False, (etiquette.NOT_DUE, 0)),
    ("just asked, forced", ASKED, NOW + MINUTE, "f1", True, ("", 0)),
    ("due", ASKED, NOW + INTERVAL, "f1", False, ("", 7_500)),
    ("a little early: it waits for its second", ASKED, NOW + INTERVAL - 4_000, "f1", False, ("", 4_000)),
    ("too early", ASKED, NOW + INTERVAL - 16_000, "f1", False, (etiquette.NOT_DUE, 0)),
    ("told to wait", limited(ASKED, NOW), NOW + 14 * MINUTE, "f1", False, (etiquette.WAITING, 0)),
    ("told to wait, forced", limited(ASKED, NOW), NOW + 14 * MINUTE, "f1", True, (etiquette.WAITING, 0)),
    ("waited", limited(ASKED, NOW), NOW + 15 * MINUTE, "f1", False, ("", 7_500)),
    ("refused", REFUSED, NOW + 99 * HOUR, "f1", True, (etiquette.STOPPED, 0)),
    ("refused, another credential", REFUSED, NOW + HOUR, "f2", False, ("", 7_500)),
    ("a wait of a year, made up", State(at=NOW, wait_until=NOW * 2), NOW + 25 * HOUR, "f1", False, ("", 7_500)),
]


@pytest.mark.parametrize(("what", "state", "now", "fingerprint", "force", "expected"), DUE, ids=[case[0] for case in DUE])
def test_due(what: str, state: State, now: int, fingerprint: str, force: bool, expected: tuple[str, int]) -> None:
    assert tuple(etiquette.due(state, now, INTERVAL, fingerprint, 15_000, 0.5, force)) == expected


def test_cron_keeps_its_second() -> None:
    """Every five minutes means every five minutes, not every ten: chance decides once."""
    state, at = State(), []
    for run in range(20):
        now = NOW + run * INTERVAL
        found = etiquette.due(state, now, INTERVAL, "f", 15_000, (run * 7 % 10) / 10)
        assert not found.status
        state = etiquette.after_answer(etiquette.after_request(state, now + found.pause_ms), now + found.pause_ms, {})
        at.append(state.at)
    gaps = {later - earlier for earlier, later in itertools.pairwise(at)}
    assert min(gaps) >= INTERVAL and max(gaps) <= INTERVAL + 15_000


def test_a_clock_that_was_set_back_does_not_block_for_ever() -> None:
    state = limited(State(at=NOW, ok_at=NOW - HOUR), NOW)
    year = 365 * 24 * HOUR
    back = etiquette.with_clock_set_back(state, NOW - year)
    assert (back.at, back.wait_until) == (NOW - year, NOW - year + 15 * MINUTE)
    assert etiquette.due(back, NOW - year + 16 * MINUTE, INTERVAL, "f", 0, 0.0).status == ""
    assert etiquette.with_clock_set_back(back, NOW - year + HOUR) == back
    assert etiquette.with_clock_set_back(state, NOW - 1000) == state  # clocks step


TROUBLES = st.sampled_from((etiquette.LIMITED, etiquette.FAILING, etiquette.CHANGED))


@given(st.lists(st.tuples(TROUBLES, st.integers(0, 10**9), st.integers(0, 10**8)), max_size=20))
def test_every_wait_ends_within_a_day_and_is_at_least_a_minute(met: list[tuple[str, int, int]]) -> None:
    state, now = State(), NOW
    for kind, retry, step in met:
        now += step
        state = etiquette.after_trouble(
            etiquette.after_request(state, now), now, Trouble(kind, "x", min(retry, 24 * HOUR)), "f", {}
        )
        assert MINUTE <= state.wait_until - now <= 24 * HOUR
        assert etiquette.due(state, now, INTERVAL, "f", 0, 0.0, force=True).status == etiquette.WAITING
        assert etiquette.due(state, now + 24 * HOUR, INTERVAL, "f", 0, 0.0).status == ""


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_a_state_of_any_json_is_a_state(value: object) -> None:
    assert isinstance(etiquette.state_of(value), State)
    assert isinstance(etiquette.state_of(dict.fromkeys(State._fields, value)), State)


def test_a_state_survives_its_file() -> None:
    state = limited(etiquette.after_request(State(marks={"m": 1}), NOW), NOW)
    assert etiquette.state_of(state._asdict()) == state


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("300s", 300), ("300", 300), ("1h30m", 5400), ("5m0s", 300), ("", 0), ("0", 0), ("0s", 0)],
)
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert etiquette.parse_duration(text) == seconds * 1000


@pytest.mark.parametrize("text", ["5 minutes", "m5", "1.5h", "-5m", "5M"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid duration"):
        etiquette.parse_duration(text)
