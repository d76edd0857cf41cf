"""The three laws of rolling up, grouping, and what is refused."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, examples, lines, objects
from tokenops import events, pricing, rollup, when

CATALOGUE = pricing.load()
ZONES = [when.UTC, when.zone("Europe/Berlin"), when.zone("Asia/Kathmandu")]
# Dates around price changes, tiers, clocks; sizes around context steps; models of every kind of card.
TIMES = [
    "2025-08-11T23:59:59.999Z",
    "2026-03-12T23:59:59.999Z",
    "2026-03-13T00:00:00.000Z",
    "2026-03-29T00:59:59.999Z",
    "2026-03-29T01:00:00.000Z",
    "2026-08-18T02:00:00.000Z",
    "2026-08-18T04:00:00.000Z",
    "2026-08-29T02:00:00.000Z",
    "2026-10-06T23:59:59.999Z",
    "2026-10-25T00:30:00.000Z",
    "2026-10-25T01:30:00.000Z",
    "2026-12-31T23:59:59.999Z",
]
MODELS = [
    ("anthropic", "claude-opus-4-6"),
    ("anthropic", "claude-sonnet-5-5"),
    ("anthropic", "claude-sonnet-4-5-20250929"),
    ("anthropic", "claude-haiku-5-5"),
    ("openai", "gpt-5.6-sol"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-audio"),
    ("gemini", "gemini-4-argon"),
    ("deepseek", "deepseek-v4-pro"),
    ("xai", "grok-4.3"),
    ("perplexity", "sonar-pro"),
    ("openrouter", "z/unknown"),
    (None, "unknown"),
]
COUNT = st.sampled_from([0, 0, 1, 7, 99_991, 100_003, 272_000])


@st.composite
def turns(draw: st.DrawFn) -> list[Json]:
    made = []
    for number in range(draw(st.integers(1, 9))):
        provider, model = draw(st.sampled_from(MODELS))
        session = draw(st.sampled_from(["s1", "s2"]))
        turn: Json = {
            "v": 1,
            "ts": draw(st.sampled_from(TIMES)),
            "kind": "turn",
            "id": f"t{number}",
            "turns": 1,
            "model": model,
        }
        turn |= {
            "client": "codex",
            "session_id": session,
            "project": {"s1": "app", "s2": "site"}[session],
            "agent_id": {"s1": "codex:app", "s2": "codex:site"}[session],
            "workflow_id": f"codex:{session}",
        }
        optional: Json = {
            "provider": provider,
            "tier": draw(st.sampled_from([None, None, "batch", "fast", "priority"])),
            "geo": draw(st.sampled_from([None, None, "us", "eu", "mars"])),
            "search_context": draw(st.sampled_from([None, "low", "high"])),
            "cost_usd": draw(st.sampled_from([None, None, None, "0.000123456789"])),
            **{name: draw(st.sampled_from([None, None, "a", "b"])) for name in (*events.OWNER, *events.TAGS)},
        }
        for name in (*events.TOKENS, "reasoning_tokens", "audio_input_tokens", "web_searches", "requests"):
            optional[name] = draw(COUNT) if name in events.TOKENS else draw(st.sampled_from([0, 0, 3]))
        # A part is never more than what it is a part of.
        for part, whole in (("reasoning_tokens", "output_tokens"), ("audio_input_tokens", "input_tokens")):
            optional[part] = min(optional[part], optional[whole])
        made.append(turn | {key: value for key, value in optional.items() if value})
    return made


def rolled(records: list[Json], by: str, tz: datetime.tzinfo) -> list[Json]:
    refused: list[str] = []
    rows = rollup.roll_up(records, rollup.Grouping(rollup.fields(by), tz, CATALOGUE), refused.append)
    assert not refused
    return rows


def priced(rows: list[Json]) -> list[Json]:
    return list(rollup.merge_rows(rows, CATALOGUE))


def money(rows: list[Json]) -> Any:
    total = pricing.ZERO
    for row in priced(rows):
        total = pricing.add(total, pricing.Decimal(row.get("cost_usd", "0")))
    return total


CHAINS = [
    ("hour", "day"),
    ("hour,model", "month"),
    ("day", "month"),
    ("day,session,project", "week,project"),
    ("day,project,session", "month,project"),
    ("session", "none"),
    ("session", "project"),
    ("session", "client"),
    ("session", "agent,workflow"),
    ("day,session", "week,agent"),
    ("hour,client", "day,model"),
    ("week", "none"),
    ("model", "provider"),
    ("day", "day"),
    ("day,skill,effort", "month,effort"),
    ("session,branch", "branch"),
    ("session,subagent,mcp_server,mcp_tool", "mcp_server"),
    ("plugin,model", "plugin"),
    ("skill", "none"),
    ("machine", "none"),
    ("day,machine,user", "month,user"),
    ("session,machine", "machine,project"),
]


@examples(120)
@given(turns(), st.sampled_from(CHAINS), st.sampled_from(ZONES))
def test_rolling_up_twice_equals_rolling_up_once(made: list[Json], chain: tuple[str, str], tz: datetime.tzinfo) -> None:
    fine, coarse = chain
    assert rolled(rolled(made, fine, tz), coarse, tz) == rolled(made, coarse, tz)


@examples(120)
@given(turns(), st.sampled_from(ZONES))
def test_a_session_of_two_projects_loses_neither(made: list[Json], tz: datetime.tzinfo) -> None:
    """Not even where the session does not determine the project: the rows by session are kept apart."""
    moved = [turn | {"project": f"p{number % 2}"} if number % 3 else turn for number, turn in enumerate(made)]
    assert rolled(rolled(moved, "session", tz), "project", tz) == rolled(moved, "project", tz)


@examples(120)
@given(turns(), st.sampled_from(ZONES))
def test_pricing_commutes_with_rolling_up(made: list[Json], tz: datetime.tzinfo) -> None:
    one_by_one = pricing.ZERO
    for turn in made:
        one_by_one = pricing.add(one_by_one, money(rolled([turn], "none", tz)))
    for by in ("none", "day", "month,model", "hour,project", "session", "provider,client"):
        rows = rolled(made, by, tz)
        assert money(rows) == one_by_one
        assert money(rolled(rows, "none", tz)) == one_by_one
        for field in events.SUMS:
            if field != "requests":
                assert sum(row.get(field, 0) for row in rows) == sum(turn.get(field, 0) for turn in made)


@examples(60)
@given(turns(), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(made: list[Json], rng: Any) -> None:
    shuffled = rng.sample(made, len(made))
    assert rolled(shuffled, "day,model", when.UTC) == rolled(made, "day,model", when.UTC)


def turn(number: int = 1, **given_keys: Any) -> Json:
    base = {
        "v": 1,
        "ts": "2026-11-01T12:00:00.000Z",
        "kind": "turn",
        "id": f"t{number}",
        "client": "claude-code",
        "project": "app",
    }
    return (
        base
        | {"session_id": "s1", "provider": "anthropic", "model": "claude-opus-4-6", "turns": 1, "output_tokens": 7}
        | given_keys
    )


def test_rows_as_a_pipe(run: Run) -> None:
    made = lines([turn(1), turn(2, ts="2026-11-02T12:00:00.000Z", project="b"), turn(3, project="b")])
    by_day = run("tok-rollup --by day,project", made).stdout
    assert [(r["bucket"], r["project"], r["turns"], r["output_tokens"]) for r in objects(by_day)] == [
        ("2026-11-01", "app", 1, 7),
        ("2026-11-01", "b", 1, 7),
        ("2026-11-02", "b", 1, 7),
    ]
    assert run("tok-rollup --by month,project", by_day).stdout == run("tok-rollup --by month,project", made).stdout
    (row,) = objects(run("tok-rollup --by none", made).stdout)
    assert row | {"catalogue": "-"} == {
        "v": 1,
        "kind": "row",
        "by": [],
        "from": "2026-11-01T12:00:00.000Z",
        "to": "2026-11-02T12:00:00.000Z",
        "provider": "anthropic",
        "model": "claude-opus-4-6",
        "rate": "anthropic/claude-opus-4-6@2026-03-13T00:00",
        "catalogue": "-",
        "turns": 3,
        "output_tokens": 21,
    }
    (merged,) = objects(run("tok-rollup --by none --merge", made).stdout)
    assert (merged["cost_usd"], merged["cost_source"]) == ("0.000525", "estimated")


REFUSED = [
    ("--by shoe", "--by shoe: no such field; choose from agent,"),
    ("--by hour,day", "give one unit of time"),
    ("--by hour", "rows by day cannot be rolled up by hour"),
    ("--by session", "these rows are by day: they cannot be rolled up by session"),
    ("--by day --tz Europe/Berlin", "these rows are in the zone UTC: give --tz UTC"),
    ("--tz Mars/Olympus", "--tz: unknown zone 'Mars/Olympus'"),
    ("--bye", "unrecognized arguments: --bye"),
]


@pytest.mark.parametrize(("options", "why"), REFUSED)
def test_questions_that_cannot_be_answered(options: str, why: str, run: Run) -> None:
    rows = run("tok-rollup --by day", lines([turn()])).stdout
    done = run(f"tok-rollup {options}", rows, status=2)
    assert done.stdout == b""
    assert why in done.stderr.decode()
    assert done.stderr.decode().count("\n") == 1


def test_a_repeated_turn_counts_once_and_is_said(run: Run) -> None:
    done = run("tok-rollup --by none", lines([turn(1), turn(2), turn(1)]), status=1)
    assert objects(done.stdout)[0]["turns"] == 2
    assert (
        done.stderr.decode()
        == "tok-rollup: stdin:3: the turn t1 appeared before and is counted once; tok-log import joins copies\n"
    )


def test_a_session_total_counts_only_where_the_session_has_no_turn(run: Run) -> None:
    def total(session: str, covers: str = "session") -> Json:
        made = turn(9, kind="usage", covers=covers, session_id=session, output_tokens=1000)
        return made | {"id": f"u:{session}:{covers}"}

    given_events = [total("s1"), total("s2"), total("s3", "account"), turn(1)]
    rows = objects(run("tok-rollup --by session", lines(given_events)).stdout)
    assert [(row["session_id"], row["output_tokens"]) for row in rows] == [("s1", 7), ("s2", 1000)]


def test_of_a_sessions_totals_one_source_counts(run: Run) -> None:
    """Several sources add the same requests up: the one that has more of them stands."""

    def total(name: str, source: str, output: int, session: str | None = "s2") -> Json:
        made = turn(9, kind="usage", covers="session", session_id=session, output_tokens=output, source=source, id=name)
        return {key: value for key, value in made.items() if value is not None}

    same = [total("a", "otel", 3), total("b", "otel", 4), total("c", "claude-stream", 6)]
    for given_events in (same, same[::-1]):
        (row,) = objects(run("tok-rollup --by none", lines(given_events)).stdout)
        assert row["output_tokens"] == 7
    more = [*same, total("d", "otel-metrics", 7), total("e", "stream", 5, None), total("f", "otel", 5, None)]
    rows = objects(run("tok-rollup --by session,model", lines(more)).stdout)
    assert [(row.get("session_id"), row["output_tokens"], row["turns"]) for row in rows] == [("s2", 7, 2), (None, 10, 2)]
    # Nor is there anything to add up where a turn is known.
    rows = objects(run("tok-rollup --by session", lines([*same, turn(1, session_id="s2")])).stdout)
    assert [row["output_tokens"] for row in rows] == [7]


ABSURD_COSTS = ("1e400", "-1e13", "1e-400", "NaN", "Infinity")
BROKEN = [
    (turn(kind="usage", covers="session", output_tokens="many"), "output_tokens is 'many', not a count"),
    ({"kind": "turn"}, "not a record of kind turn: 'id'; skipped"),
    (turn(output_tokens="many"), "output_tokens is 'many', not a count"),
    (turn(ts=None), "not a record of kind turn"),
    (turn(output_tokens=1.5), "output_tokens is 1.5, not a count"),
    *((turn(cost_usd=cost, cost_source="reported"), "cost_usd is out of range; skipped") for cost in ABSURD_COSTS),
]


@pytest.mark.parametrize(("record", "why"), BROKEN)
def test_broken_records_are_rejected_alone(record: Json, why: str, run: Run) -> None:
    priced = run(
        "tok-cost --by none", lines([turn(1), record | ({"id": "x"} if "id" in record else {}), turn(2)]), status=None
    )
    assert priced.returncode == 1 and b"Traceback" not in priced.stderr
    done = run("tok-rollup --by none", lines([turn(1), record | ({"id": "x"} if "id" in record else {}), turn(2)]), status=1)
    assert objects(done.stdout)[0]["output_tokens"] == 14
    assert f"stdin:2: {why}" in done.stderr.decode() or why in done.stderr.decode()


def test_a_clients_own_estimate_counts_only_where_there_is_no_price(run: Run) -> None:
    turn = {"v": 1, "kind": "turn", "ts": "2026-05-01T10:00:00.000Z", "turns": 1, "input_tokens": 1_000_000}
    stated = {"cost_usd": "9", "cost_source": "client"}
    priced = turn | {"id": "a", "provider": "anthropic", "model": "claude-sonnet-4-5"} | stated
    unpriced = turn | {"id": "b", "provider": "somebody", "model": "theirs"} | stated
    reported = turn | {"id": "c", "provider": "somebody", "model": "theirs", "cost_usd": "2", "cost_source": "reported"}
    rows = run("tok-rollup --by model,day", lines([priced, unpriced, reported])).stdout
    found = {(row["model"], row.get("cost_source")): row.get("cost_usd") for row in objects(rows)}
    assert found == {("claude-sonnet-4-5", None): None, ("theirs", "client"): "9", ("theirs", "reported"): "2"}
    again = objects(run("tok-rollup --by model", rows).stdout)
    assert sorted((row.get("cost_source", ""), row.get("cost_usd")) for row in again) == [
        ("", None),
        ("client", "9"),
        ("reported", "2"),
    ]
    costs = {row["model"]: (row["cost_usd"], row["cost_source"]) for row in objects(run("tok-cost --by model", rows).stdout)}
    assert costs == {"claude-sonnet-4-5": ("3", "estimated"), "theirs": ("11", "client+reported")}
