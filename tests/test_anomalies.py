"""Hours that are not as usual: found whoever made them, and not in a life that only has a rhythm."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, examples, objects
from tokenops import burn_anomalies, jsonl, store, when
from tokenops.burn_anomalies import HOUR_MS, Part

UTC = when.zone("UTC")
NOW = when.moment("2026-11-18T12:30:00.000Z")
LAST = NOW // HOUR_MS * HOUR_MS


def part(
    hours: float, tokens: int, project: str = "p", model: str = "m", session: str = "s", usd: float | None = 1.0
) -> Part:
    """What was spent so many hours before the last full hour."""
    return Part(LAST - round(hours) * HOUR_MS, {"project": project, "model": model, "session_id": session}, tokens, usd)


def rhythm(seed: int, days: int = 40, weekend: bool = False) -> list[Part]:
    """Somebody who works from nine to five, at a pace that varies, with coffee at random and free days."""
    draw, made = random.Random(seed), []
    for hours in range(1, days * 24):
        at = when.local(LAST - hours * HOUR_MS, UTC)
        if 9 <= at.hour < 17 and (weekend or at.weekday() < 5) and draw.random() < 0.9:
            made.append(part(hours, round(100_000 * draw.lognormvariate(0, 0.4))))
    return made


def hours_of(parts: list[Part], hours: int = 24) -> list[str]:
    rows, why = burn_anomalies.anomalies(parts, NOW, UTC, hours)
    assert not why
    return [row["ts"] for row in rows]


@pytest.mark.parametrize("seed", range(8))
def test_a_rhythm_is_nothing_unusual(seed: int) -> None:
    """Eight people for a week each: at most one false alarm a week."""
    assert len(hours_of(rhythm(seed), 168)) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_night_at_full_speed_is(seed: int) -> None:
    parts = [*rhythm(seed), part(9, 400_000, "runaway", session="loop")]
    (row,) = burn_anomalies.anomalies(parts, NOW, UTC, 24)[0]
    assert row["ts"] == when.stamp(LAST - 9 * HOUR_MS) and row["usual_tokens"] == 0 and row["tokens"] == 400_000
    assert {(one["field"], one["value"]) for one in row["because"]} >= {("project", "runaway"), ("session_id", "loop")}
    assert row["cost_usd"] == "1" and row["judged_by_hours"] == 12


def test_ten_times_the_usual_in_working_hours_is() -> None:
    parts = [one for one in rhythm(3) if one.at != LAST - 2 * HOUR_MS] + [
        part(2, 50_000),
        part(2, 1_500_000, model="other", usd=None),
    ]
    (row,) = burn_anomalies.anomalies(parts, NOW, UTC, 24)[0]
    assert (
        row["because"][0]["share_of_excess"] >= 0.9
        and {"field": "model", "value": "other"}.items() <= row["because"][1].items()
    )
    assert (row["cost_usd"], row["unpriced_tokens"]) == ("1", 1_500_000)  # what has a price is not blanked


def test_an_anomaly_does_not_hide_the_next() -> None:
    parts = [*rhythm(1), *(part(9 + 7 * 24 * week, 400_000) for week in range(2))]
    assert hours_of(parts) == [when.stamp(LAST - 9 * HOUR_MS)]


def test_what_is_usual_on_saturdays_is_not_on_wednesdays() -> None:
    late = [
        part(9 + 24 * day, 400_000) for day in range(40) if when.local(LAST - (9 + 24 * day) * HOUR_MS, UTC).weekday() == 5
    ]
    assert hours_of([*rhythm(2), *late], 168) == []
    assert hours_of([*rhythm(2), *late, part(9, 400_000)]) == [when.stamp(LAST - 9 * HOUR_MS)]


def test_the_hour_that_is_not_over_is_not_judged() -> None:
    assert hours_of([*rhythm(2), part(0, 10**9)]) == []


def test_too_little_past_is_said() -> None:
    rows, why = burn_anomalies.anomalies(rhythm(1, days=14), NOW, UTC, 24)
    assert rows == [] and "less than 14 days" in why
    assert burn_anomalies.anomalies([], NOW, UTC, 24)[1]


@examples(50)
@given(
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 10**7), st.sampled_from("pq")), max_size=60), st.integers(1, 168)
)
def test_whatever_was_spent(given: list[tuple[int, int, str]], hours: int) -> None:
    parts = [part(hours, tokens, project) for hours, tokens, project in given]
    rows, _ = burn_anomalies.anomalies(parts, NOW, UTC, hours)
    for row in rows:
        assert row["tokens"] > row["usual_tokens"] >= 0 and row["score"] >= burn_anomalies.SCORE
        assert LAST - hours * HOUR_MS <= when.moment(row["ts"]) < LAST
        assert all(0.5 <= one["share_of_excess"] <= 1 and one["tokens"] <= row["tokens"] for one in row["because"])


def test_from_the_log(run: Run, environment: dict[str, str]) -> None:
    def turn(number: int, one: Part) -> Json:
        about = {"kind": "turn", "id": f"msg_{number}", "source": "claude-code-jsonl", "client": "claude-code", "turns": 1}
        about |= one.fields | {"provider": "anthropic", "model": "claude-opus-4-8", "output_tokens": one.tokens}
        return {"v": 1, "ts": when.stamp(one.at + 60_000), **about}

    parts = [*rhythm(4), part(9, 400_000, "runaway")]
    env = {"TOKENOPS_NOW": when.stamp(NOW)}
    assert b"not judged: the log begins less than 14 days" in run("tok-burn --anomalies", env=env).stderr
    store.append(environment["TOKENOPS_HOME"], [jsonl.line_of(turn(number, one)) for number, one in enumerate(parts)])
    (row,) = objects(run("tok-burn --anomalies --json", env=env).stdout)
    assert row["tokens"] == 400_000 and row["cost_usd"] == "10" and row["because"][0]["value"] == "runaway"
    assert b"project runaway" in run("tok-burn --anomalies --table", env=env).stdout
    assert b"nothing unusual in the last 3 hours" in run("tok-burn --anomalies --hours 3", env=env).stderr
