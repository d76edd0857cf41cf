"""Our figures beside others': sums exact, and each difference explained, on constructed claims and on real logs."""

from __future__ import annotations

import collections
import csv
import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from homes import Home

from conftest import Json, Run, lines, objects
from tokenops import coverage, events, plans, pricing, reconcile, reconcile_pairs, when

CATALOGUE = pricing.load()
M = 1_000_000
OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-4-5"
DAY = "2026-11-10"


def turn(number: int, at: str = f"{DAY}T12:00:00.000Z", **more: Any) -> Json:
    base = {"v": 1, "ts": at, "kind": "turn", "id": f"t{number}", "client": "opencode", "session_id": "s1", "turns": 1}
    base |= {"provider": "anthropic", "model": OPUS, "input_tokens": 1009, "output_tokens": 103}
    return {key: value for key, value in (base | more).items() if value is not None}


def usd(event: Json) -> Decimal:
    """What an event costs at our prices."""
    found = reconcile_pairs.list_price(event, CATALOGUE)
    assert found is not None
    return found


def claimed(event: Json, amount: Decimal | str, source: str = "client") -> Json:
    return {**event, "cost_usd": pricing.plain(Decimal(amount)), "cost_source": source}


def report(model: str, day: str = DAY, source: str = "anthropic", **more: Any) -> Json:
    """A row of a vendor's report of usage, or (with cost_usd) of cost."""
    base: Json = {"v": 1, "ts": f"{day}T00:00:00.000Z", "kind": "usage", "source": f"vendor-usage-{source}"}
    base |= {"covers": "account", "provider": source, "model": model, "bucket": "1d"}
    base |= {"until": when.stamp(when.moment(f"{day}T00:00:00Z") + when.DAY), "observed_at": "2026-11-20T00:00:00.000Z"}
    base |= more
    return {"id": f"usage:{events.digest(sorted(map(str, base.items())))}"} | {
        k: v for k, v in base.items() if v is not None
    }


def reports(turns: Iterable[Json], source: str = "anthropic") -> list[Json]:
    """What a vendor would report of some turns, exactly: usage and cost per day, model, tier and place."""
    groups: dict[tuple[str, ...], list[Json]] = collections.defaultdict(list)
    for one in turns:
        groups[one["ts"][:10], one["model"], one.get("tier", ""), one.get("geo", "")].append(one)
    found = []
    for (day, model, tier, geo), mine in groups.items():
        counts = {name: sum(one.get(name, 0) for one in mine) for name in (*events.TOKENS, "web_searches")}
        said = {"tier": tier, "geo": geo, **counts}
        found.append(report(model, day, source, **{key: value for key, value in said.items() if value}))
        cost = pricing.plain(sum((usd(one) for one in mine), Decimal(0)))
        found.append(report(model, day, source, cost_usd=cost, cost_source="reported", tier=tier or None, geo=geo or None))
    return found


def compared(
    records: Sequence[Json], bound: Sequence[plans.Binding] = (), since: str = "2026-11-01", tz: Any = when.UTC
) -> list[reconcile_pairs.Pair]:
    """The comparisons of some events, each of which adds up."""
    cover = coverage.Coverage(bound, tz) if bound else None
    ask = reconcile_pairs.Query(f"{since}T00:00:00.000Z", "2026-12-01T00:00:00.000Z", tz, CATALOGUE, cover)
    found = reconcile.pairs(records, ask)
    for one in found:
        assert one.difference == sum((cause.usd for cause in one.causes), Decimal(0)) + one.unexplained_usd
    return found


def causes(pair: reconcile_pairs.Pair) -> list[str]:
    return [cause.name for cause in pair.causes]


# Turns that came with an amount of somebody else's.

CHEAP = turn(1, input_tokens=300_009, model="gpt-5.5", provider="openai")
CLAIMS: list[tuple[str, Json, Any, list[str]]] = [
    ("the same", turn(1), usd, []),
    ("binary noise", turn(1), lambda one: usd(one) * Decimal("1.0000000001"), ["rounding"]),
    ("no price here", turn(1, model="claude-opus-4-9"), lambda one: Decimal("0.5"), ["unpriced"]),
    ("fast as ordinary", turn(1, tier="fast"), lambda one: usd({**one, "tier": ""}), ["tier"]),
    ("the surcharge forgotten", turn(1, geo="us"), lambda one: usd({**one, "geo": ""}), ["tier"]),
    ("both forgotten", turn(1, geo="us", tier="fast"), lambda one: usd({**one, "geo": "", "tier": ""}), ["tier"]),
    ("a long prompt as a short one", CHEAP, lambda one: usd({**one, "kind": "usage"}), ["tier"]),
    ("1-hour writes as 5-minute writes", turn(1, cache_write_1h_tokens=5003), lambda one: usd({**one, "cache_write_1h_tokens": 0, "cache_write_tokens": 5003}), ["cache_class"]),
    ("cached tokens counted twice", turn(1, cache_read_tokens=70_001), lambda one: usd({**one, "input_tokens": 71_010}), ["cache_class"]),
    ("cached tokens for nothing", turn(1, cache_read_tokens=70_001), lambda one: usd({**one, "cache_read_tokens": 0}), ["cache_class"]),
    ("cached tokens as input", turn(1, cache_read_tokens=70_001), lambda one: usd({**one, "cache_read_tokens": 0, "input_tokens": 71_010}), ["cache_class"]),
    ("reasoning counted twice", turn(1, reasoning_tokens=59), lambda one: usd({**one, "output_tokens": 162}), ["reasoning"]),
    ("reasoning forgotten", turn(1, reasoning_tokens=59), lambda one: usd({**one, "output_tokens": 44}), ["reasoning"]),
    ("searches forgotten", turn(1, web_searches=3), lambda one: usd({**one, "web_searches": 0}), ["fees"]),
    ("the price of another time", turn(1, model="claude-sonnet-5-5", cache_read_tokens=70_001), lambda one: usd({**one, "ts": "2026-10-01T00:00:00.000Z"}), ["dated"]),
    ("the peak's price", turn(1, provider="deepseek", model="deepseek-v4-pro"), lambda one: usd({**one, "ts": f"{DAY}T02:00:00.000Z"}), ["time_of_day"]),
    ("something else", turn(1), lambda one: usd(one) * 7, []),
]  # fmt: skip


@pytest.mark.parametrize(("what", "one", "amount", "wanted"), CLAIMS, ids=[one[0] for one in CLAIMS])
def test_a_claim_of_a_turn(what: str, one: Json, amount: Any, wanted: list[str]) -> None:
    (pair,) = compared([claimed(one, amount(one))])
    assert causes(pair) == wanted
    assert pair.source == "opencode" and pair.day == DAY
    assert (pair.unexplained_usd == 0) is (what != "something else")
    assert pair.ours is None if what == "no price here" else pair.ours == usd(one)


def test_claims_add_up_by_day_and_model() -> None:
    mine = [turn(n, f"2026-11-{10 + n % 3}T23:30:00.000Z", output_tokens=101 * n) for n in range(1, 14)]
    mine += [turn(n, model=SONNET, output_tokens=211 * n) for n in range(20, 27)]
    found = compared([claimed(one, usd(one) + Decimal("0.25") * (one["model"] == SONNET)) for one in mine])
    assert sum((one.ours or 0 for one in found), Decimal(0)) == sum(map(usd, mine))
    assert [(one.day, one.labels["model"], one.counts["turns"]) for one in found] == [
        (DAY, OPUS, 4), (DAY, SONNET, 7), ("2026-11-11", OPUS, 5), ("2026-11-12", OPUS, 4),
    ]  # fmt: skip
    assert [one.unexplained_usd for one in found] == [0, Decimal("1.75"), 0, 0]
    berlin = compared([claimed(one, usd(one)) for one in mine], tz=when.zone("Europe/Berlin"))
    assert {one.day for one in berlin if one.labels["model"] == OPUS} == {"2026-11-11", "2026-11-12", "2026-11-13"}


def test_what_a_router_bills_is_compared_with_the_list() -> None:
    one = turn(1, provider="openrouter", model="anthropic/claude-opus-99", client="aider")
    (pair,) = compared([claimed(one, "0.0123", "reported")])
    assert (pair.source, causes(pair), pair.ours) == ("openrouter", ["unpriced"], None)
    assert "sets its own prices" in pair.causes[0].why


# Sessions.


def total(session: str = "s9", amount: Decimal | str = "1", **more: Any) -> Json:
    base = {"v": 1, "ts": f"{DAY}T12:00:00.000Z", "kind": "usage", "id": f"usage:{session}", "source": "claude-stream"}
    base |= {"client": "claude-code", "session_id": session, "provider": "anthropic", "model": OPUS, "covers": "session"}
    return claimed(base | {"input_tokens": 1009, "output_tokens": 103} | more, amount)


def test_a_sessions_total_beside_its_own_counts() -> None:
    (pair,) = compared([total(amount=usd(total()))])
    assert (causes(pair), pair.unexplained_usd, pair.labels["session_id"]) == ([], 0, "s9")
    long = total(model="gpt-5.5", provider="openai", input_tokens=900_001)
    (pair,) = compared([claimed(long, usd({**long, "kind": "turn"}))])
    assert causes(pair) == ["aggregate_only"] and not pair.causes[0].certain
    (pair,) = compared([claimed(total(), usd(total()) * 3)])
    assert causes(pair) == [] and pair.unexplained_usd == usd(total()) * 2


def test_a_sessions_total_beside_its_turns() -> None:
    mine = [turn(n, session_id="s9", output_tokens=50) for n in (1, 2)]
    both = {name: sum(one[name] for one in mine) for name in ("input_tokens", "output_tokens")}
    (pair,) = compared([*mine, total(amount=sum(map(usd, mine)), **both)])
    assert (causes(pair), pair.difference) == ([], 0)
    more = {**both, "output_tokens": 170}
    (pair,) = compared([*mine, claimed(total(**more), usd(total(**more)))])
    assert causes(pair) == ["counts"] and pair.unexplained_usd == 0 and pair.difference == Decimal(70 * 20) / M
    (pair,) = compared([*mine, claimed(total(**more), usd(total(**more)) + Decimal("0.5"))])
    assert causes(pair) == ["counts"] and pair.unexplained_usd == Decimal("0.5")


def said(cost: str, at: str, session: str = "s1", run: int = 0) -> Json:
    """What the status line told of a session."""
    event: Json = {"v": 1, "ts": f"{at[:10]}T00:00:00.000Z", "kind": "usage", "source": "claude-code-statusline"}
    event |= {"id": f"usage:claude-code-statusline:{session}:{run}:{at[:10]}", "client": "claude-code", "covers": "estimate"}
    return event | {"session_id": session, "cost_usd": cost, "cost_source": "client", "observed_at": at}


def test_the_status_lines_total_of_a_session_day_by_day() -> None:
    mine = [turn(n, f"2026-11-{10 + n}T09:00:00.000Z", output_tokens=1000 * n) for n in range(3)]
    sums = [sum(map(usd, mine[: n + 1]), Decimal(0)) for n in range(3)]
    told = [said(pricing.plain(sums[n]), f"2026-11-{10 + n}T18:00:00.000Z") for n in range(3)]
    found = compared([*mine, *told])
    assert [(one.day, one.ours, one.difference, causes(one)) for one in found] == [
        (f"2026-11-{10 + n}", usd(mine[n]), 0, []) for n in range(3)
    ]
    # A span from the second day on: the first day's readings still count towards the session.
    assert [one.day for one in compared([*mine, *told], since="2026-11-11")] == ["2026-11-11", "2026-11-12"]
    assert all(one.difference == 0 for one in compared([*mine, *told], since="2026-11-11"))


@pytest.mark.parametrize(
    ("records", "wanted", "difference"),
    [
        ([turn(1), said("1", f"{DAY}T18:00:00.000Z")], ["not_in_transcripts"], "0.993904"),
        ([turn(1), said("0.001", f"{DAY}T18:00:00.000Z")], ["resumed"], "-0.005096"),
        ([said("1", f"{DAY}T18:00:00.000Z", "gone")], ["deleted_log"], "1"),
        ([turn(1, model="claude-opus-4-9"), said("1", f"{DAY}T18:00:00.000Z")], ["unpriced"], "1"),
        ([turn(1), turn(2, f"{DAY}T19:00:00.000Z"), said("0.006096", f"{DAY}T18:00:00.000Z")], [], "0"),
        ([turn(1), said("0.0060960001", f"{DAY}T18:00:00.000Z")], ["rounding"], "0.0000000001"),
    ],
)
def test_what_a_status_line_may_say_otherwise(records: list[Json], wanted: list[str], difference: str) -> None:
    (pair,) = compared(records)
    assert (causes(pair), pair.difference, pair.unexplained_usd) == (wanted, Decimal(difference), 0)


def test_a_total_that_began_anew_is_another_run() -> None:
    mine = [turn(1, f"{DAY}T09:00:00.000Z"), turn(2, f"{DAY}T11:00:00.000Z")]
    cost = pricing.plain(usd(mine[0]))
    found = compared([*mine, said(cost, f"{DAY}T10:00:00.000Z"), said(cost, f"{DAY}T12:00:00.000Z", run=1)])
    assert [(one.ours, one.difference) for one in found] == [(usd(mine[0]), 0)] * 2


def test_an_estimate_is_never_added(run: Run) -> None:
    records = [turn(1), said("7.5", f"{DAY}T18:00:00.000Z"), total("s9", "3")]
    (row,) = objects(run("tok-cost --by none", lines(records)).stdout)
    assert Decimal(row["cost_usd"]) == usd(turn(1)) + usd(total())


def test_the_status_line_records_what_a_session_cost(run: Run) -> None:
    def shown(cost: float, at: str) -> None:
        given = {"session_id": "s1", "model": {"id": OPUS}, "cost": {"total_cost_usd": cost}}
        run("tok-statusline", json.dumps(given).encode(), env={"TOKENOPS_NOW": at})

    for cost, at in ((0.1, "T09:00"), (0.1, "T09:01"), (0.25, "T10:00"), (0.05, "T11:00"), (0.0, "T12:00")):
        shown(cost, f"{DAY}{at}:00.000Z")
    shown(0.07, "2026-11-11T09:00:00.000Z")
    kept = objects(run("tok-cat --kind usage").stdout)
    assert [(one["id"][-12:], one["cost_usd"], one["observed_at"][:16]) for one in kept] == [
        (f"0:{DAY}", "0.25", f"{DAY}T10:00"), (f"1:{DAY}", "0.05", f"{DAY}T11:00"), ("1:2026-11-11", "0.07", "2026-11-11T09:00"),
    ]  # fmt: skip
    assert all(one["covers"] == "estimate" for one in kept)
    assert run("tok-cost --log --by none --since 2026-11-01", env={"TOKENOPS_NOW": "2026-11-12T00:00:00Z"}).stdout == b""


# Vendors' reports.

MINE = [turn(n, f"2026-11-{10 + n % 3}T{5 + n}:00:00.000Z", output_tokens=97 * n + 1) for n in range(1, 8)]
NONE: list[plans.Binding] = []


def moved(records: list[Json], name: str, count: int, **match: str) -> list[Json]:
    """Records with some more of a count in the first report of usage that matches."""
    made = [dict(one) for one in records]
    one = next(
        r for r in made if r["kind"] == "usage" and "cost_usd" not in r and all(r.get(k) == v for k, v in match.items())
    )
    one[name] = one.get(name, 0) + count
    return made


def priced(records: list[Json]) -> list[Json]:
    """The same with the cost report's amounts those of the usage report."""
    usage = {(one["ts"], one["model"]): usd(one) for one in records if one["kind"] == "usage" and "cost_usd" not in one}
    return [
        one | {"cost_usd": pricing.plain(usage[one["ts"], one["model"]])}
        if one["kind"] == "usage" and "cost_usd" in one
        else one
        for one in records
    ]


def test_a_vendors_report_that_agrees() -> None:
    found = compared([*MINE, *reports(MINE)])
    assert [(one.day, one.difference, causes(one)) for one in found] == [
        (day, 0, []) for day in ("2026-11-10", "2026-11-11", "2026-11-12")
    ]
    assert sum((one.ours or 0 for one in found), Decimal(0)) == sum(map(usd, MINE))
    # Counts alone, at our prices.
    usage = [one for one in reports(MINE) if "cost_usd" not in one]
    assert {(one.difference, one.basis) for one in compared([*MINE, *usage])} == {(0, "our prices")}


VENDOR: list[tuple[str, list[Json], list[plans.Binding], dict[str, list[str]]]] = [
    ("another machine", [*MINE, *priced(moved(reports(MINE), "output_tokens", 50_021, ts=f"{DAY}T00:00:00.000Z"))], NONE, {DAY: ["other_machine"]}),
    ("a machine of its own", [*MINE, *reports([*MINE, turn(99, model=SONNET)])], NONE, {DAY: ["other_machine"]}),
    ("a log that begins later", [*MINE, *reports([*MINE, turn(99, "2026-11-05T12:00:00.000Z")])], NONE, {"2026-11-05": ["deleted_log"]}),
    ("a day that is not settled", [*MINE, *priced([one | {"observed_at": "2026-11-13T01:00:00.000Z"} for one in moved(reports(MINE), "output_tokens", -53, ts="2026-11-12T00:00:00.000Z")])], NONE, {"2026-11-12": ["open"]}),
    ("an account that is not ours", [*MINE, *priced(moved(reports(MINE), "output_tokens", -53))], NONE, {"2026-11-11": ["other_account"]}),
    ("near midnight", [*MINE, *reports([one if one["id"] != "t1" else {**one, "ts": "2026-11-10T23:59:00.000Z"} for one in MINE])], NONE, {"2026-11-10": ["zone"], "2026-11-11": ["zone"]}),
    ("another tier", [*[{**one, "tier": "batch"} for one in MINE], *reports(MINE)], NONE, {day: ["tier"] for day in ("2026-11-10", "2026-11-11", "2026-11-12")}),
    ("counts nobody saw", [*MINE, turn(9, usage="unknown", input_tokens=None, output_tokens=None), *priced(moved(reports(MINE), "output_tokens", 53, ts=f"{DAY}T00:00:00.000Z"))], NONE, {DAY: ["unknown_usage"]}),
    ("a model without a price", [turn(1, model="claude-opus-4-9"), report("claude-opus-4-9", input_tokens=1009, output_tokens=103), report("claude-opus-4-9", cost_usd="0.5", cost_source="reported")], NONE, {DAY: ["unpriced"]}),
    ("a plan's turns are in no report", [turn(99, client="claude-code"), *MINE, *reports(MINE)], [plans.Binding("anthropic", "claude-max-20x", "", "")], {}),
    ("a plan's turns that ran on a key", [turn(99, client="claude-code"), *MINE, *reports([turn(99), *MINE])], [plans.Binding("anthropic", "claude-max-20x", "", "")], {DAY: ["plan"]}),
    ("a login without a plan is in no report", [turn(99, credential="oauth"), *MINE, *reports(MINE)], NONE, {}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "records", "bound", "wanted"), VENDOR, ids=[one[0] for one in VENDOR])
def test_what_a_vendor_may_report_otherwise(
    what: str, records: list[Json], bound: list[plans.Binding], wanted: dict[str, list[str]]
) -> None:
    found = compared(records, bound)
    assert {one.day: causes(one) for one in found if one.causes} == wanted
    assert all(one.unexplained_usd == 0 for one in found)


def test_prices_and_counts_are_told_apart() -> None:
    """Twice the counts, and half the price: two causes whose sum is the difference."""
    mine = [turn(1, output_tokens=500_009)]
    twice = [report(OPUS, input_tokens=2018, output_tokens=1_000_018)]
    (pair,) = compared([*mine, *twice, report(OPUS, cost_usd="10", cost_source="reported")])
    assert causes(pair) == ["other_machine", "discount"] and pair.unexplained_usd == 0
    assert pair.causes[0].usd == usd(mine[0]) and pair.difference == 10 - usd(mine[0])


def test_a_report_cannot_know_how_long_prompts_were() -> None:
    long = [turn(n, model="gpt-5.5", provider="openai", input_tokens=300_007) for n in (1, 2)]
    (pair,) = compared([*long, *reports(long, "openai")])
    assert pair.difference == 0 and pair.unexplained_usd == 0
    assert causes(pair) == ["aggregate_only", "aggregate_only"]  # there and back: our sum is exact, theirs too
    assert pair.causes[0].usd == -pair.causes[1].usd


def test_amounts_without_a_model_are_compared_by_the_day() -> None:
    mine = [*MINE, turn(20, model=SONNET)]
    day = [one for one in mine if one["ts"].startswith(DAY)]
    stated = report("", cost_usd=pricing.plain(sum(map(usd, day), Decimal(0))), cost_source="reported") | {"model": ""}
    (pair,) = compared([*mine, stated])
    assert (pair.labels["model"], pair.difference) == ("", 0)


def test_a_day_that_was_asked_for_in_two_widths_counts_once() -> None:
    hours = [{**one, "bucket": "1h", "id": f"{one['id']}h"} for one in reports(MINE) if "cost_usd" not in one]
    assert all(one.difference == 0 for one in compared([*MINE, *reports(MINE), *hours]))


def test_weeks_of_logs_and_the_reports_that_they_would_give(run: Run, weeks: Home) -> None:
    """The vendor's report of the very same turns agrees to the last digit; without a model's turns it is another machine."""
    real = {"HOME": str(weeks.root), "TOKENOPS_NOW": "2026-07-18T21:00:00Z"}
    run("tok-sync claude codex", env=real, status=None)
    turns = [
        one
        for one in objects(run("tok-cat --kind turn", env=real).stdout)
        if reconcile_pairs.list_price(one, CATALOGUE) is not None
    ]
    anthropic = [one for one in turns if one.get("provider") == "anthropic"]
    assert len(anthropic) > 300
    found = compared([*turns, *reports(anthropic)], since="2025-01-01")
    assert len(found) > 20
    assert sum((one.ours or 0 for one in found), Decimal(0)) == sum(map(usd, anthropic))
    assert all(one.difference == 0 and one.unexplained_usd == 0 for one in found)
    gone = [one for one in turns if one.get("model") != "claude-opus-4-6"]
    short = compared([*gone, *reports(anthropic)], since="2025-01-01")
    assert {cause for one in short if one.difference for cause in causes(one)} <= {"other_machine", "deleted_log"}
    missing = sum((one.difference for one in short), Decimal(0))
    assert missing == sum((usd(one) for one in anthropic if one["model"] == "claude-opus-4-6"), Decimal(0)) > 0
    # Through the real command, with the reports in the log.
    run("tok-log append", lines(reports(anthropic)))
    done = run("tok-cost --reconcile --log --since 2025-01-01", env=real, status=None)  # some lines are torn
    rows = objects(done.stdout)
    assert {row["difference_usd"] for row in rows} == {"0"} and len(rows) == len(found)
    table = run("tok-cost --reconcile --log --since 2025-01-01 --table", env=real, status=None).stdout.decode()
    assert "vendor-usage-anthropic: ours $" in table and "unexplained $0.00" in table


def test_the_command(run: Run) -> None:
    given = lines([claimed(turn(1), usd(turn(1)) * 2), claimed(turn(2, tier="fast"), usd(turn(2)))])
    done = run("tok-cost --reconcile", given, status=1)
    (row,) = objects(done.stdout)
    assert (row["with"], row["ours_usd"], row["theirs_usd"]) == ("opencode", "0.018288", "0.018288")
    assert row["difference_usd"] == "0" and row["unexplained_usd"] == "0.006096"
    alone = run("tok-cost --reconcile", lines([claimed(turn(1), usd(turn(1)) * 2)]), status=1)
    assert objects(alone.stdout)[0]["unexplained_usd"] == "0.006096"
    table = run("tok-cost --reconcile --table", given, status=1).stdout.decode()
    assert "tier: they bill the tier fast at the standard price (1)" in table
    (cells,) = csv.DictReader(run("tok-cost --reconcile --csv", given, status=1).stdout.decode().splitlines())
    assert (cells["with"], cells["ours_usd"], cells["unexplained_usd"]) == ("opencode", "0.018288", "0.006096")
    assert "compares by day and model" in run("tok-cost --reconcile --by day", given, status=2).stderr.decode()
    assert b"no other cost figures" in run("tok-cost --reconcile --table", lines([turn(1)])).stderr
