"""What plans cover and caches save: sums stay exact however they are added up, and what nobody knows is not claimed."""

from __future__ import annotations

import itertools
import pathlib
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, examples, lines, objects
from tokenops import costs, coverage, jsonl, plans, pricing, rollup, store, store_summaries, when

CATALOGUE = pricing.load()
NOW = when.moment("2026-11-20T00:00:00Z")
ZONES = ["UTC", "Asia/Kathmandu", "America/Los_Angeles"]
MAX, PLUS = "claude-max-20x", "gpt-plus"


def binding(plan: str, since: str = "", account: str = "") -> plans.Binding:
    return plans.Binding(plans.find(plan).provider, plan, since, account)


def turn(number: int, ts: str = "2026-11-10T12:00:00.000Z", **more: Any) -> Json:
    base = {"v": 1, "ts": ts, "kind": "turn", "id": f"t{number}", "client": "claude-code", "project": f"p{number % 3}"}
    base |= {"session_id": f"s{number % 5}", "provider": "anthropic", "model": "claude-opus-5-5", "turns": 1}
    base |= {"input_tokens": 1009 + number, "output_tokens": 103, "cache_read_tokens": 7001, "cache_write_tokens": 401}
    return {key: value for key, value in (base | more).items() if value is not None}


def covers(bound: list[plans.Binding], one: Json, zone: str = "UTC") -> str:
    return str(coverage.Coverage(bound, when.zone(zone)).mark(one)["covered_by"])


CASES: list[tuple[str, list[plans.Binding], Json, str]] = [
    ("its own client", [binding(MAX)], turn(1), MAX),
    ("another client", [binding(MAX)], turn(1, client="opencode"), ""),
    ("another client with a login", [binding(MAX)], turn(1, client="opencode", credential="oauth"), MAX),
    ("its own client with a key", [binding(MAX)], turn(1, credential="api_key"), ""),
    ("nobody says which client", [binding(MAX)], turn(1, client=None), MAX),
    ("another provider", [binding(MAX)], turn(1, provider="bedrock"), ""),
    ("before the first day", [binding(MAX, "2026-11-11")], turn(1), ""),
    ("on the first day", [binding(MAX, "2026-11-10")], turn(1), MAX),
    ("the later of two", [binding("claude-pro"), binding(MAX, "2026-11-10")], turn(1), MAX),
    ("the earlier of two", [binding("claude-pro"), binding(MAX, "2026-11-11")], turn(1), "claude-pro"),
    ("another account", [binding(MAX, account="aa")], turn(1, account="bb"), ""),
    ("its own account", [binding(MAX, account="aa")], turn(1, account="aa"), MAX),
    ("an account that nobody knows", [binding(MAX, account="aa")], turn(1), MAX),
    ("two accounts", [binding(MAX, account="aa"), binding("claude-pro", account="bb")], turn(1), f"{MAX}, claude-pro"),
    ("a login of a provider without a plan", [binding(PLUS)], turn(1, credential="oauth"), "login"),
    ("a provider without a plan", [binding(PLUS)], turn(1), ""),
    ("a client's own plan, for any model", [binding("copilot-pro")], turn(1, client="copilot-cli"), "copilot-pro"),
    ("what Cursor charged", [binding("cursor-pro")], turn(1, client="cursor", cost_usd="0.1", cost_source="reported"), ""),
    ("what Cursor did not charge", [binding("cursor-pro")], turn(1, client="cursor"), "cursor-pro"),
    ("what the vendor reported of a plan's client", [binding("copilot-pro")], turn(1, client="copilot-cli", cost_usd="0.1", cost_source="reported"), "copilot-pro"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "bound", "one", "wanted"), CASES, ids=[one[0] for one in CASES])
def test_what_covers_a_turn(what: str, bound: list[plans.Binding], one: Json, wanted: str) -> None:
    assert covers(bound, one) == wanted


def test_a_plan_begins_at_local_midnight() -> None:
    bound = [binding(MAX, "2026-11-10")]
    for zone, first in (("UTC", "T00:00"), ("Asia/Kathmandu", "T18:15"), ("America/Los_Angeles", "T08:00")):
        day = "2026-11-09" if zone.startswith("Asia") else "2026-11-10"
        assert covers(bound, turn(1, f"{day}{first}:00.000Z"), zone) == MAX
        before = when.stamp(when.moment(f"{day}{first}:00.000Z") - 1)
        assert covers(bound, turn(1, before), zone) == ""


def test_rows_are_told_only_where_all_their_turns_are_covered_alike() -> None:
    cover = coverage.Coverage([binding(MAX, "2026-11-10")], when.UTC)
    row = {"kind": "row", "by": ["client", "account", "credential"], "from": "2026-11-09T23:59:00.000Z"}
    row |= {"to": "2026-11-10T00:01:00.000Z", "client": "claude-code", "provider": "anthropic"}
    assert "covered_by" not in cover.mark(row)
    assert cover.mark(row | {"from": "2026-11-10T00:00:00.000Z"})["covered_by"] == MAX
    assert "covered_by" not in cover.mark(row | {"from": "2026-11-10T00:00:00.000Z", "by": ["client"]})


TURNS = st.lists(
    st.builds(
        turn,
        st.integers(0, 10**6),
        st.integers(0, 400).map(lambda n: when.stamp(when.moment("2026-11-07T12:00:00Z") + n * 17 * 60_000)),
        client=st.sampled_from(["claude-code", "codex", "opencode", None]),
        credential=st.sampled_from([None, None, "oauth", "api_key"]),
        provider=st.sampled_from(["anthropic", "openai", "bedrock"]),
        model=st.sampled_from(["claude-opus-5-5", "claude-haiku-4-5", "gpt-5.5", "who"]),
        cache_read_tokens=st.integers(0, 10**6),
        cache_write_1h_tokens=st.integers(0, 10**5),
        cost_usd=st.sampled_from([None, None, None, "0.125"]),
    ).map(lambda one: one | ({"cost_source": "reported"} if "cost_usd" in one else {})),
    max_size=25,
    unique_by=lambda one: one["id"],
)
BOUND = [binding("claude-pro"), binding(MAX, "2026-11-09"), binding(PLUS, "2026-11-10")]
MONEY = ("cost_usd", "plan_covered_usd", "metered_usd", "cache_saved_usd")


def money(total: Json) -> list[Decimal]:
    return [Decimal(total.get(name, "0")) for name in MONEY]


@examples(60)
@given(TURNS, st.sampled_from(ZONES))
def test_however_it_is_added_up_the_parts_make_the_total(found: list[Json], zone: str) -> None:
    tz = when.zone(zone)
    cover = coverage.Coverage(BOUND, tz)
    each = [costs.rows([one], rollup.Grouping((), tz, CATALOGUE), True, print, cover.mark)[0] for one in found]
    wanted = [sum((Decimal(row.get(name, "0")) for row in each), Decimal(0)) for name in MONEY]
    for by in ((), ("project",), ("session", "model"), ("day",), ("hour", "client"), ("month", "provider")):
        rows = costs.rows(found, rollup.Grouping(by, tz, CATALOGUE), True, print, cover.mark)
        for row in rows:
            if "cost_usd" in row:
                assert Decimal(row["plan_covered_usd"]) + Decimal(row["metered_usd"]) == Decimal(row["cost_usd"])
                assert sum(map(Decimal, row.get("covered_by", {}).values())) == Decimal(row["plan_covered_usd"])
                assert coverage.GROUP not in row["by"]
        assert money(costs.total_of(rows)) == wanted
    plain = costs.rows(found, rollup.Grouping(("day",), tz, CATALOGUE), True, print)
    assert money(costs.total_of(plain))[0] == wanted[0] and money(costs.total_of(plain))[3] == wanted[3]


@pytest.mark.parametrize("zone", ZONES)
def test_the_summaries_of_the_log_say_the_same(zone: str, tmp_path: pathlib.Path) -> None:
    """Closed days answer from sums, also where a plan begins in mid-day of UTC."""
    draw = random.Random(7)
    made = [
        turn(
            n,
            when.stamp(when.moment("2026-11-06T00:00:00Z") + draw.randrange(10 * 96) * 900_000 + draw.randrange(900_000)),
            client=draw.choice(["claude-code", "codex", "opencode"]),
            credential=draw.choice([None, None, "oauth", "api_key"]),
            provider=draw.choice(["anthropic", "openai"]),
        )
        for n in range(300)
    ]
    folder = str(tmp_path)
    store.append(folder, map(jsonl.line_of, made))
    tz = when.zone(zone)
    cover = coverage.Coverage(BOUND, tz)
    for by in ((), ("day",), ("month", "model"), ("project",)):
        plan = rollup.Grouping(by, tz, CATALOGUE)
        wanted = costs.total_of(costs.rows(made, plan, True, print, cover.mark))
        for _ in range(2):  # made, and kept
            rows = costs.price_rows(store_summaries.rows(folder, plan, NOW, cover=cover), CATALOGUE)
            assert costs.total_of(rows) == wanted | {"by": rows[0]["by"]}
    assert {"cost_usd", "plan_covered_usd", "metered_usd", "covered_by", "cache_saved_usd", "prices_read"} <= wanted.keys()


def test_what_a_cache_saved_is_the_price_of_uncached_input_less_what_was_paid() -> None:
    def saved(**counts: int) -> str | None:
        one = turn(1, input_tokens=0, cache_read_tokens=0, cache_write_tokens=0) | counts
        (row,) = costs.rows([one], rollup.Grouping((), when.UTC, CATALOGUE), True, print)
        return row.get("cache_saved_usd")

    million = 1_000_000
    assert saved() is None
    assert saved(cache_read_tokens=million) == "3.8"  # 4 - 0.2
    assert saved(cache_write_tokens=million) == "-1"  # 4 - 5
    assert saved(cache_write_1h_tokens=million) == "-4"
    assert saved(cache_read_tokens=million, cache_write_tokens=million) == "2.8"
    assert saved(cache_write_12h_tokens=million) == "0"  # billed as input, and said so


def test_nothing_is_told_without_a_plan_or_of_rows_from_elsewhere(run: Run) -> None:
    made = lines([turn(1), turn(2)])
    for line in ("tok-cost --by none", "tok-rollup --by day | tok-cost"):
        assert not {"plan_covered_usd", "metered_usd", "covered_by"} & objects(run(line, made).stdout)[0].keys()
    run(f"tok-plan set anthropic {MAX}")
    (row,) = objects(run("tok-cost --by none", made).stdout)
    assert (
        row["plan_covered_usd"] == row["cost_usd"]
        and row["metered_usd"] == "0"
        and row["covered_by"] == {MAX: row["cost_usd"]}
    )
    (row,) = objects(run("tok-rollup --by day | tok-cost", made).stdout)
    assert "plan_covered_usd" not in row


def test_the_table_says_what_plans_are_worth(run: Run) -> None:
    counts = {"input_tokens": 1_000_000, "output_tokens": 0, "cache_read_tokens": 1_000_000, "cache_write_tokens": 0}
    records = [turn(1, **counts), turn(2, client="opencode", **counts), turn(3, credential="api_key", **counts)]
    run(f"tok-plan set anthropic {MAX} --from 2026-11-01; tok-log append", lines(records))
    env = {"TOKENOPS_NOW": "2026-11-20T12:00:00Z"}
    shown = run("tok-cost --log --table -v", env=env).stdout.decode().splitlines()
    total = objects(run("tok-cost --log --by none", env=env).stdout)[0]
    assert (
        f"covered by {MAX}: $4.20 at list price, the plan costs $200.00 a month: 0.032 times its price for 20 days" in shown
    )
    assert "metered: $8.40" in shown
    assert "saved by caches: $11.40, compared with the price of uncached input" in shown
    assert f"prices: the oldest was checked on {total['prices_read']}" in shown
    assert (total["plan_covered_usd"], total["metered_usd"], total["cost_usd"]) == ("4.2", "8.4", "12.6")


def test_beside_its_price() -> None:
    cover = coverage.Coverage([binding("claude-pro"), binding(MAX, "2026-11-09")], when.UTC)
    found = [turn(n, f"2026-11-{6 + n:02d}T12:00:00.000Z") for n in range(6)]
    total = costs.total_of(costs.rows(found, rollup.Grouping((), when.UTC, CATALOGUE), True, print, cover.mark))
    told = coverage.plan_worth(total, cover, "2026-11-06T00:00:00.000Z", "2026-11-12T00:00:00.000Z", when.UTC)
    assert [(one["plan"], one["plan_usd_per_month"], one.get("days")) for one in told] == [
        (MAX, "200", 3),
        ("claude-pro", "20", None),
    ], "since when the first plan was paid is not known"
    assert not coverage.times_its_price(told[1] | {"covered_usd": "500"})
    assert sum(Decimal(one["covered_usd"]) for one in told) == Decimal(total["plan_covered_usd"])
    unpriced = coverage.plan_worth(
        {"covered_by": {"login": "1"}}, cover, "2026-11-06T00:00:00.000Z", "2026-11-07T00:00:00.000Z", when.UTC
    )
    assert unpriced == [{"plan": "login", "covered_usd": "1"}]
    assert list(itertools.islice(coverage.notes({}, []), 1)) == []
