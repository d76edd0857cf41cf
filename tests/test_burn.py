"""tok-burn: what was spent when, what is not known, and how fast limits are used up by their vendors' own account."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import xml.etree.ElementTree as ET
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, examples, lines, objects
from tokenops import burn_buckets, events, limit_pace, limit_windows, store, when
from tokenops.jsonl import line_of
from tokenops.limit_windows import Point, Series, Window

NOW = "2026-11-20T15:25:00.000Z"
AT = when.moment(NOW)
ENV = {"TOKENOPS_NOW": NOW}
MINUTE, HOUR = 60_000, 3_600_000
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"]


def turn(number: int, ago: float, **given: Any) -> Json:
    """A turn so many hours ago; 7 tokens out, 11 in, 13 read, 17 + 19 written."""
    made: Json = {
        "v": 1,
        "ts": when.stamp(AT - round(ago * HOUR)),
        "kind": "turn",
        "id": f"t{number}",
        "source": "claude-code-jsonl",
    }
    made |= {
        "client": "claude-code",
        "project": "app",
        "session_id": "s1",
        "provider": "anthropic",
        "model": "claude-opus-4-6",
        "turns": 1,
    }
    made |= {
        "input_tokens": 11,
        "cache_read_tokens": 13,
        "cache_write_tokens": 17,
        "cache_write_1h_tokens": 19,
        "output_tokens": 7,
    }
    return events.arrange(made | given)


def meter(
    used: float, ago: float, resets_in: float = 2, window: str = "five_hour", source: str = "proxy", **given: Any
) -> Json:
    """A reading so many hours ago, of a window that is reset in so many."""
    length = {"five_hour": 300, "weekly": 10_080}[window]
    resets = when.stamp(AT + round(resets_in * HOUR))
    about = {"window": window, "window_minutes": length, "used": used, "resets_at": resets} | given
    return events.meter(source, about.pop("provider", "anthropic"), when.stamp(AT - round(ago * HOUR)), **about)


def kept(environment: dict[str, str], *records: Json) -> None:
    store.append(environment["TOKENOPS_HOME"], map(line_of, records))


def burnt(run: Run, options: str = "", status: int = 0, given: bytes | None = None, **env: str) -> tuple[list[Json], Json]:
    """The buckets and the summary."""
    source = "--log" if given is None else ""
    *rows, total = objects(run(f"tok-burn {source} {options}", given or b"", status=status, env=ENV | env).stdout)
    assert all(row["kind"] == "burn" for row in rows) and total["kind"] == "burn_summary"
    return rows, total


def at(rows: list[Json], ts: str) -> Json:
    (row,) = [row for row in rows if row["ts"] == ts]
    return row


def test_hours_with_and_without_turns(run: Run, environment: dict[str, str]) -> None:
    kept(environment, turn(1, 70), turn(2, 20.1), turn(3, 20.2), turn(4, 0.1), turn(5, 2.9, output_tokens=1007))
    rows, total = burnt(run)
    assert (
        len(rows) == 25 and rows[0]["ts"] == "2026-11-19T15:00:00.000Z" and rows[-1]["until"] == "2026-11-20T16:00:00.000Z"
    )
    assert all(one["until"] == other["ts"] for one, other in pairwise(rows))
    two = at(rows, "2026-11-19T19:00:00.000Z")
    assert {name: two[name] for name in events.TOKENS} == {
        "input_tokens": 22, "cache_read_tokens": 26, "cache_write_tokens": 34, "cache_write_1h_tokens": 38, "cache_write_12h_tokens": 0,
        "output_tokens": 14}  # fmt: skip
    assert (two["turns"], two["tokens"]) == (2, 134)
    # Nothing was spent in an hour that the log covers: 0, and it says so.
    none = at(rows, "2026-11-20T03:00:00.000Z")
    assert (none["turns"], none["tokens"], none["cost_usd"], none["output_tokens"]) == (0, 0, "0", 0)
    assert [row["ts"] for row in rows if row.get("partial")] == ["2026-11-20T15:00:00.000Z"]
    assert (total["turns"], total["tokens"]) == (4, 4 * 67 + 1000)
    assert len(total["sparkline"]) == 25
    assert [number for number, block in enumerate(total["sparkline"]) if block != "▁"] == [4, 21, 24]


def test_what_the_log_does_not_know_is_null(run: Run, environment: dict[str, str]) -> None:
    kept(environment, turn(1, 3.1), turn(2, 1))
    rows, total = burnt(run)
    first = at(rows, "2026-11-20T12:00:00.000Z")
    before = [row for row in rows if row["ts"] < first["ts"]]
    assert first["partial"] and first["tokens"] == 67
    assert len(before) == 21 and all(
        row["tokens"] is None and row["turns"] is None and row["cost_usd"] is None for row in before
    )
    assert all("input_tokens" not in row and "partial" not in row for row in before)
    assert at(rows, "2026-11-20T13:00:00.000Z")["tokens"] == 0
    assert total["sparkline"] == "·" * 21 + "█▁█▁"
    assert total["trend"] is None
    shown = run("tok-burn --log --table", env=ENV).stdout.decode()
    assert "21 of 25 are unknown: the log has no data for them" in shown and "trend" not in shown


def test_an_empty_log_knows_nothing(run: Run) -> None:
    rows, total = burnt(run)
    assert {row["tokens"] for row in rows} == {None}
    assert {total[name] for name in ("tokens", "turns", "cost_usd", "now", "mean_active", "trend")} == {None}
    assert "unknown in all" in run("tok-burn --log --table", env=ENV).stdout.decode()
    assert ET.fromstring(run("tok-burn --log --svg -", env=ENV).stdout) is not None


def test_rates(run: Run, environment: dict[str, str]) -> None:
    every = [turn(0, 60)]
    every += [turn(10 + n, 0.2 + 0.1 * n) for n in range(3)]  # in the last hour
    every += [turn(20 + n, 1.1) for n in range(5)]  # between 14:00 and 15:00, not in the last hour
    every += [turn(30 + n, 5) for n in range(7)]  # 10:25
    every += [turn(40 + n, 26) for n in range(4)]  # the day before
    kept(environment, *every)
    rows, total = burnt(run)
    # 15:01 and 15:07 and 15:13 lie in the hour that is not over: it is no whole hour, and in no mean.
    assert total["now"] == {"minutes": 60, "turns": 3, "tokens_per_hour": 3 * 67, "cost_usd_per_hour": "0.001598"}
    assert total["mean_active"]["active_hours"] == 2 and total["mean_active"]["tokens_per_hour"] == 6 * 67
    assert total["trend"] == {"ratio": 3.0, "tokens": 12 * 67, "tokens_before": 4 * 67}
    # 11 x 5 + 13 x .5 + 17 x 6.25 + 19 x 10 + 7 x 25, per million
    each = Decimal("532.75") / 1_000_000
    assert Decimal(total["cost_usd"]) == 15 * each and total["cost_basis"] == "list price"
    assert Decimal(at(rows, "2026-11-20T10:00:00.000Z")["cost_usd"]) == 7 * each
    shown = run("tok-burn --log --table", env=ENV).stdout.decode()
    assert "now     201 tokens an hour" in shown and "402 tokens an hour" in shown and "in 2 active hours" in shown
    assert "trend   3.00 times the 24 hours before" in shown


def test_a_young_log_has_the_rate_of_what_there_is(run: Run, environment: dict[str, str]) -> None:
    kept(environment, turn(1, 0.5))
    assert burnt(run)[1]["now"] == {"minutes": 30, "turns": 1, "tokens_per_hour": 134, "cost_usd_per_hour": "0.001066"}
    assert burnt(run, TOKENOPS_NOW=when.stamp(AT - 20 * MINUTE))[1]["now"] is None


def test_a_stream_says_what_the_log_says(run: Run, environment: dict[str, str]) -> None:
    kept(
        environment,
        *(
            turn(n, 0.37 * n + 0.01, project="ab"[n % 2], model=["claude-opus-4-6", "claude-haiku-4-5"][n % 3 == 0])
            for n in range(500)
        ),
    )
    kept(environment, *(meter(round(0.01 * n, 2), 3 - n / 10) for n in range(20)))
    for options, filtered in (
        ("", ""),
        ("--hours 168", ""),
        ("--hours 30 --by 15min", ""),
        ("--hours 168 --by day --tz Asia/Kathmandu", ""),
        ("", "--project a"),
        ("--hours 99", "--model claude-haiku-4-5"),
    ):
        rows, total = burnt(run, f"{options} {filtered}")
        assert burnt(run, f"{options} {filtered}")[0] == rows  # summaries made, then kept
        piped, other = burnt(run, f"{options} {filtered}", given=run("tok-cat", env=ENV).stdout)
        assert piped == rows
        assert {**total, "as_of": ""} == {**other, "as_of": ""}
        (cost,) = objects(run(f"tok-cost --log --by none --since {rows[0]['ts']} {filtered}", env=ENV).stdout)
        assert (cost["turns"], cost["cost_usd"]) == (total["turns"], total["cost_usd"])


def test_hours_are_those_of_tok_cost(run: Run, environment: dict[str, str]) -> None:
    kept(environment, *(turn(n, 0.61 * n + 0.01) for n in range(300)))
    for zone in ZONES:
        rows, _ = burnt(run, f"--hours 168 --tz {zone}")
        costs = objects(run(f"tok-cost --log --by hour --since {rows[0]['ts']} --tz {zone}", env=ENV).stdout)
        spent = {when.stamp(when.moment(row["bucket"])): (row["turns"], row["cost_usd"]) for row in costs}
        assert spent == {row["ts"]: (row["turns"], row["cost_usd"]) for row in rows if row["turns"]}


def test_only_what_is_asked_for(run: Run, environment: dict[str, str]) -> None:
    kept(
        environment,
        turn(1, 60),
        turn(2, 2),
        turn(3, 2, provider="openai", model="gpt-5.4"),
        turn(4, 2, client="codex"),
        meter(0.1, 2.5),
        meter(0.2, 2),
    )
    kept(environment, meter(0.1, 2.5, provider="openai"), meter(0.2, 2, provider="openai"))
    assert burnt(run)[1]["turns"] == 3
    rows, total = burnt(run, "--provider openai")
    assert total["turns"] == 1 and [one["provider"] for one in total["windows"]] == ["openai"]
    assert at(rows, "2026-11-20T13:00:00.000Z")["windows"] == [
        {"provider": "openai", "window": "five_hour", "used_rise": 0.1}
    ]
    assert burnt(run, "--client codex")[1]["turns"] == 1
    assert burnt(run, "--project other")[1]["tokens"] == 0


def usage(name: str, ago: float, **given: Any) -> Json:
    made = {
        "v": 1,
        "ts": when.stamp(AT - round(ago * HOUR)),
        "kind": "usage",
        "id": name,
        "source": "droid",
        "covers": "session",
        "client": "droid",
    }
    return made | {"session_id": name, "provider": "anthropic", "model": "claude-opus-4-6", "output_tokens": 5000} | given


def test_what_has_no_hour_is_in_none(run: Run, environment: dict[str, str]) -> None:
    pings = [
        {"v": 1, "ts": when.stamp(AT - n * MINUTE), "kind": "ping", "id": f"p{n}", "tool": "tokenops_burn_rate"}
        for n in range(20)
    ]
    account = usage("u2", 2, covers="account", source="vendor-usage-anthropic")
    kept(environment, turn(1, 60), turn(2, 2), usage("u1", 2), account, usage("s1", 2), *pings)
    rows, total = burnt(run)
    assert total["tokens"] == sum(row["tokens"] for row in rows) == 67
    assert {name: total["session_totals"][name] for name in ("sessions", "tokens", "cost_usd")} == {
        "sessions": 1, "tokens": 5000, "cost_usd": "0.125"}  # fmt: skip
    (cost,) = objects(run(f"tok-cost --log --by none --since {rows[0]['ts']}", env=ENV).stdout)
    assert Decimal(cost["cost_usd"]) == Decimal(total["cost_usd"]) + Decimal("0.125")
    assert "also 5,000 tokens, $0.13 of 1 session" in run("tok-burn --log --table", env=ENV).stdout.decode()


def test_asking_changes_nothing(run: Run, environment: dict[str, str]) -> None:
    kept(environment, turn(1, 60), turn(2, 2), meter(0.1, 2), meter(0.2, 1))
    first = burnt(run)
    run("for n in 1 2 3 4 5; do tok-burn --log >/dev/null; done", env=ENV)
    again = burnt(run)
    assert (first[0], {**first[1], "as_of": ""}) == (again[0], {**again[1], "as_of": ""})


def test_a_model_without_a_price_is_not_free(run: Run, environment: dict[str, str]) -> None:
    kept(environment, turn(1, 60), turn(2, 2, model="claude-opus-9"), turn(3, 5))
    rows, total = burnt(run)
    row = at(rows, "2026-11-20T13:00:00.000Z")
    assert row["cost_usd"] is None and row["tokens"] == 67 and row["unpriced"][0]["model"] == "claude-opus-9"
    assert total["tokens"] == 134
    shown = run("tok-burn --log --table -v", env=ENV).stdout.decode()
    assert "unpriced: anthropic claude-opus-9: 1 turn, 67 tokens" in shown and "unknown" in shown
    done = run("tok-burn --log --csv", env=ENV)
    assert done.stderr.startswith(b"tok-burn: the sums lack 1 turn of models without a price: claude-opus-9")
    rows = [row for row in csv.DictReader(io.StringIO(done.stdout.decode())) if row["ts"] == "2026-11-20T13:00:00.000Z"]
    assert [(row["turns"], row["tokens"], row["cost_usd"]) for row in rows] == [("1", "67", "")]
    run("tok-burn --log --strict", env=ENV, status=1)
    picture = run("tok-burn --log --svg -", env=ENV).stdout.decode()
    assert (
        "List price per hour: Fri 20 Nov 10:00: $0.00053" in picture
        and "Fri 20 Nov 13:00 to Fri 20 Nov 14:00 unknown" in picture
    )


def test_what_a_plan_covers_is_said(run: Run, environment: dict[str, str]) -> None:
    kept(environment, turn(1, 2))
    run("tok-plan set openai gpt-plus")
    assert burnt(run)[1]["cost_basis"] == "list price"
    run("tok-plan set anthropic claude-max-5x")
    assert burnt(run)[1]["cost_basis"] == "list price (API-equivalent)"
    assert "prices: list price (API-equivalent)" in run("tok-burn --log --table", env=ENV).stdout.decode()
    assert "List price (API-equivalent) per hour" in run("tok-burn --log --svg -", env=ENV).stdout.decode()


def test_limits_as_their_vendors_see_them(run: Run, environment: dict[str, str]) -> None:
    """A window that ended at 12:25 and one that is open since; what rose is told, what nobody read is not."""
    old = [meter(used, ago, -3) for used, ago in ((0.3, 7.5), (0.41, 6.3), (0.47, 6.2), (0.47, 4.2))]
    new = [meter(used, ago, 2) for used, ago in ((0.05, 2.3), (0.12, 1.2), (0.13, 0.6), (0.3, 0.1))]
    kept(environment, turn(1, 60), *old, *new, meter(0.5, 1, 50, "weekly"))
    rows, total = burnt(run)
    rises = {row["ts"][11:13]: row["windows"][0]["used_rise"] for row in rows if "windows" in row}
    # The first window began at 07:25 and was read at 07:55: what it shows was used in that hour.
    assert rises == {"07": 0.3, "09": 0.17, "11": 0.0, "13": 0.05, "14": 0.08, "15": 0.17}
    five, week = total["windows"]
    assert (five["window"], five["used"], five["used_per_hour"], five["pace_minutes"]) == ("five_hour", 0.3, 0.18, 60)
    # 70 percent at 18 an hour last for 3h53m: the reset, in two hours, comes before that.
    assert five["at_this_pace"]["runs_out_before_reset"] is False and "runs_out_at" not in five["at_this_pace"]
    # The week was read once: there is no pace.
    assert (week["window"], week["used"], week["used_per_hour"]) == ("weekly", 0.5, None) and "at_this_pace" not in week
    shown = run("tok-burn --log --table", env=ENV).stdout.decode()
    assert (
        "+17%" in shown and "30% used, 18% an hour lately, at this pace it lasts until the reset, resets in 2h00m" in shown
    )
    assert "tok-budget has a tested forecast" in run("tok-burn --log --table -v", env=ENV).stdout.decode()


def test_what_is_left_at_this_pace(run: Run, environment: dict[str, str]) -> None:
    kept(environment, turn(1, 60), meter(0.3, 1.5, 3), meter(0.6, 0.9, 3), meter(0.8, 0.1, 3))
    (one,) = burnt(run)[1]["windows"]
    assert one["used_per_hour"] == 0.5
    assert one["at_this_pace"]["runs_out_before_reset"] and one["at_this_pace"]["runs_out_in"] == "24m"
    assert one["at_this_pace"]["runs_out_at"] == when.stamp(AT + 24 * MINUTE)
    assert "at this pace it runs out in 24m" in run("tok-burn --log --table", env=ENV).stdout.decode()


@pytest.mark.parametrize(
    "readings",
    [
        [meter(0.3, 4.5, 0.5)],  # read once, long ago
        [meter(0.3, 8, -3), meter(0.5, 7, -3)],  # reset since
        [meter(0.3, 0.3, 2)],  # read for the first time, long after its beginning
    ],
)
def test_no_pace_where_too_little_was_read(run: Run, environment: dict[str, str], readings: list[Json]) -> None:
    kept(environment, turn(1, 60), *readings)
    for one in burnt(run)[1]["windows"]:
        assert one["used_per_hour"] is None and "at_this_pace" not in one


def series(polled: bool, *found: tuple[float, list[tuple[float, float]]]) -> Series:
    """Windows of five hours: when each is reset (hours), and its readings."""
    made = [
        Window(round(end * HOUR), 300, tuple(Point(round(seen * HOUR), used) for seen, used in readings))
        for end, readings in found
    ]
    return Series(limit_windows.Key("p", "", "five_hour", ""), tuple(made), polled)


EDGES = [hour * HOUR for hour in range(11)]
RISES: list[tuple[str, Series, dict[int, float | None]]] = [
    ("two readings of one hour", series(False, (5, [(0.2, 0.0), (0.4, 0.25), (0.9, 0.5)])), {0: 0.5}),
    ("a rest before a reading is a rest", series(False, (5, [(0.2, 0.25), (3.5, 0.5)])), {0: 0.25, 3: 0.25}),
    ("a poller's silence is not", series(True, (5, [(0.2, 0.25), (3.5, 0.5)])), {0: 0.25, 3: None}),
    ("a short one is", series(True, (5, [(0.9, 0.25), (1.1, 0.5)])), {0: 0.25, 1: 0.25}),
    ("nothing was used while it was silent", series(True, (5, [(0.2, 0.25), (3.5, 0.25)])), {0: 0.25, 3: 0.0}),
    ("the first reading ever of a window begun long before", series(False, (6, [(4.5, 0.25), (4.75, 0.5)])), {4: None}),
    ("that of a later one", series(False, (5, [(0.5, 0.5)]), (10, [(7.5, 0.25)])), {0: 0.5, 7: 0.25}),
    ("polled", series(True, (5, [(0.5, 0.5)]), (10, [(7.5, 0.25)])), {0: 0.5, 7: None}),
    ("two windows in one hour", series(True, (5.5, [(5.25, 0.5), (5.4, 0.75)]), (10.5, [(5.6, 0.125)])), {5: None}),
    ("both read in time", series(True, (5.5, [(4.9, 0.5), (5.1, 0.75)]), (10.5, [(5.6, 0.125)])), {4: None, 5: 0.375}),
    ("outside of all", series(False, (15, [(12.0, 0.5)])), {}),
]


@pytest.mark.parametrize(("what", "one", "expected"), RISES, ids=[case[0] for case in RISES])
def test_rises(what: str, one: Series, expected: dict[int, float | None]) -> None:
    assert limit_pace.rises(one, EDGES) == expected


@pytest.mark.parametrize(
    ("one", "now", "expected"),
    [
        (series(False, (5, [(0.5, 0.1), (1.5, 0.2), (2.0, 0.5)])), 2.5, limit_pace.Pace(0.3, 60)),
        # Of a client's own readings silence is rest, of a poller's it is not.
        (series(True, (5, [(0.5, 0.1), (1.5, 0.2), (2.0, 0.5)])), 2.5, limit_pace.Pace(0.6, 30)),
        (series(False, (5, [(0.5, 0.1)])), 0.75, limit_pace.Pace(0.1 / 0.75, 45)),
        (series(False, (5, [(0.5, 0.1), (0.6, 0.2)])), 1.7, None),
        (series(False, (5, [(3.5, 0.4), (3.6, 0.5)])), 3.65, None),
        (series(False, (5, [(4.5, 0.4)])), 5.5, None),
    ],
)
def test_paces(one: Series, now: float, expected: limit_pace.Pace | None) -> None:
    found = limit_pace.pace(one, round(now * HOUR))
    assert (found is None) == (expected is None)
    if found and expected:
        assert (round(found.per_hour, 9), found.minutes) == (round(expected.per_hour, 9), expected.minutes)


READINGS = st.lists(
    st.builds(
        lambda used, ago, resets, source: meter(used, ago, resets, source=source),
        st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.2]),
        st.integers(0, 300).map(lambda n: n / 10),
        st.sampled_from([-20.0, -3.0, 2.0, 4.5]),
        st.sampled_from(["proxy", "codex-jsonl", "vendor-usage-anthropic"]),
    ),
    max_size=12,
)


@given(READINGS)
def test_no_rise_is_below_nothing_and_none_is_made_up(readings: list[Json]) -> None:
    asked = burn_buckets.span(AT, 24, "hour", when.UTC)
    read = {at // HOUR * HOUR for one in readings if (at := when.moment(one["ts"])) is not None}
    for limit in limit_pace.limits(limit_windows.readings_of(readings), asked.edges, AT):
        assert all(rise >= 0 and asked.edges[at] in read for at, rise in limit.rises.items())
        assert sum(limit.rises.values()) <= 1.2 * 4 + 1e-9
        json.dumps(limit.state, allow_nan=False)


@examples(60)
@given(
    st.integers(when.moment("2026-01-01T00:00:00Z"), when.moment("2027-01-01T00:00:00Z")),
    st.integers(1, 168),
    st.sampled_from([*burn_buckets.BY]),
    st.sampled_from(ZONES),
)
def test_buckets_are_those_of_the_local_clock(now: int, hours: int, by: str, zone: str) -> None:
    tz = when.zone(zone)
    edges = burn_buckets.span(now, hours, by, tz).edges
    assert edges[0] <= now - hours * HOUR and edges[-2] < now <= edges[-1]
    named = when.Buckets(burn_buckets.BY[by], tz)
    labels = [named.label_of(when.stamp(edge)) for edge in edges]
    assert len(set(labels)) == len(labels)
    for (edge, end), label in zip(pairwise(edges), labels, strict=False):
        assert named.label_of(when.stamp(end - 1)) == label != named.label_of(when.stamp(edge - 1))


@pytest.mark.parametrize(("now", "hours"), [("2026-03-29T22:00:00Z", 23), ("2026-10-25T23:00:00Z", 25)])
def test_a_day_may_have_other_than_24_hours(now: str, hours: int) -> None:
    edges = burn_buckets.span(when.moment(now), 20, "day", when.zone("Europe/Berlin")).edges
    assert [(end - start) // HOUR for start, end in pairwise(edges)] == [hours]


def test_a_picture_is_written_whole(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    kept(environment, turn(1, 60), turn(2, 2, project="<&"), meter(0.3, 4), meter(0.6, 3), meter(0.1, 1, 3))
    done = run("tok-burn --log --svg burn.svg", env=ENV)
    root = ET.fromstring((tmp_path / "burn.svg").read_bytes())
    headings = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Tokens per hour", "List price per hour", "anthropic five_hour, used", "Spent in the last 24 hours"} <= set(
        headings
    )
    assert len(objects(done.stdout)) == 26
    assert run("tok-burn --log --svg -", env=ENV).stdout == (tmp_path / "burn.svg").read_bytes()
    assert b"Is a directory; name a file" in run("tok-burn --log --svg /", env=ENV, status=2).stderr
    assert (
        b"no/x.svg: No such file or directory; check the path"
        in run("tok-burn --log --svg no/x.svg", env=ENV, status=2).stderr
    )


@pytest.mark.parametrize(
    ("options", "given", "says"),
    [
        ("--hours 0", b"", "'0' must be a whole number, 1 or more"),
        ("--hours 169", b"", "--hours 169 is more than a week: give 1 to 168, or ask tok-cost --by hour"),
        ("--by week", b"", "argument --by: invalid choice: 'week'"),
        ("--tz Mars", b"", "--tz: unknown zone 'Mars'"),
        ("", lines([{"v": 1, "kind": "row", "by": []}]), "rows have no time of day; give tok-burn events"),
    ],
)
def test_what_is_refused(run: Run, options: str, given: bytes, says: str) -> None:
    done = run(f"tok-burn {options}", given, status=2)
    assert says in done.stderr.decode() and done.stdout == b"" and done.stderr.count(b"\n") == 1


def test_lines_that_are_no_records_are_said_and_skipped(run: Run) -> None:
    given = lines([turn(1, 2)]) + b"no json\n" + lines([turn(1, 2), {**turn(2, 2), "output_tokens": "many"}, turn(3, 1)])
    done = run("tok-burn --json -v", given, status=1, env=ENV)
    total = objects(done.stdout)[-1]
    assert (total["turns"], total["tokens"]) == (2, 134)
    assert [line.split(b": ")[1] for line in done.stderr.splitlines()] == [b"stdin:2", b"stdin:3", b"stdin:4"]


def test_times_of_any_form_and_none(run: Run) -> None:
    given = lines(
        [
            turn(1, 30),
            {**turn(2, 2), "ts": "2026-11-20T14:25:00+01:00"},
            {**turn(3, 2), "ts": 5},
            {**turn(4, 2), "ts": "noon"},
        ]
    )
    done = run("tok-burn --json -v", given, status=1, env=ENV)
    *rows, total = objects(done.stdout)
    assert total["turns"] == 1 and at(rows, "2026-11-20T13:00:00.000Z")["turns"] == 1
    assert [line.split(b": ")[1] for line in done.stderr.splitlines()] == [b"stdin:3", b"stdin:4"]


def test_readings_alone_say_nothing_of_tokens(run: Run) -> None:
    rows, total = burnt(run, given=lines([meter(0.1, 2.2), meter(0.2, 1.2)]))
    assert total["tokens"] is None and {row["tokens"] for row in rows} == {None}
    assert at(rows, "2026-11-20T14:00:00.000Z")["windows"] == [
        {"provider": "anthropic", "window": "five_hour", "used_rise": 0.1}
    ]


def test_tables_of_all_shapes(run: Run, environment: dict[str, str]) -> None:
    kept(environment, turn(1, 60), turn(2, 2), turn(3, 0.1))
    table = run("tok-burn --log --table", env=ENV).stdout.decode().splitlines()
    assert [line[:14].strip() for line in table[2:4]] == ["20 Nov 13:00", "20 Nov 15:00 *"]
    rows = list(csv.DictReader(io.StringIO(run("tok-burn --log --csv", env=ENV).stdout.decode())))
    assert len(rows) == 25 and rows[0].keys() >= {"ts", "until", "turns", "tokens", *events.TOKENS, "cost_usd"}
    assert run("tok-burn --log --markdown", env=ENV).stdout.startswith(b"| from ")
    found = defaultdict(int)
    for row in rows:
        found[row["turns"], row["tokens"], row["cost_usd"]] += 1
    assert found == {("0", "0", "0"): 23, ("1", "67", "0.00053275"): 2}
