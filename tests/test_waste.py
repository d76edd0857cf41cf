"""Waste: nothing is found in a clean session, everything in a wasteful one, and what it cost is what the turns cost."""

from __future__ import annotations

import collections
import itertools
import os
import pathlib
import pty
import re
import subprocess
from decimal import Decimal
from typing import Any

import orjson
import pytest
from homes import Home
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT, Json, Run, lines, objects, put, until_closed
from tokenops import catalog, coach_models, config, jsonl, pricing, store, trace, trace_waste, when
from tokenops.trace_waste import steps

AT = when.moment("2026-11-21T09:00:00.000Z")
NOW = {"TOKENOPS_NOW": "2026-11-21T12:00:00Z"}
RULES = config.thresholds(config.Config({}, "", []))["waste"]
CATALOGUE = pricing.load()


def turn(minutes: float, read: int = 50_000, write: int = 1000, output: int = 400, side: bool = False, **more: Any) -> Json:
    about = {
        "kind": "turn",
        "id": f"msg_{minutes}_{side}",
        "source": "claude-code-jsonl",
        "client": "claude-code",
        "project": "p",
    }
    about |= {"session_id": "s1", "workflow_id": "claude-code:p:s1", "provider": "anthropic", "model": "claude-opus-4-8"}
    counts = {"input_tokens": 10, "cache_read_tokens": read, "cache_write_tokens": write, "output_tokens": output}
    made = {"v": 1, "ts": when.stamp(AT + round(minutes * 60_000)), **about, "turns": 1, **counts, **more}
    return made | ({"sidechain": True} if side else {})


def work(minutes: float, **counts: int) -> Json:
    about = {"kind": "work", "id": f"work:{minutes}", "session_id": "s1", "project": "p", "client": "claude-code"}
    return {"v": 1, "ts": when.stamp(AT + round(minutes * 60_000)), **about, "counts": counts, "times": {}}


def found(turns: list[Json], rounds: list[Json] | None = None, **given: Any) -> dict[str, Json]:
    made = trace_waste.findings(steps(turns, CATALOGUE), rounds or [], RULES, **given)
    return {one["finding"]: one for one in made}


def test_a_clean_session() -> None:
    turns = [turn(n, 40_000 + 1000 * n, 1000) for n in range(60)]
    rounds = [work(n, tool_results=5, result_bytes=20_000, largest_result_bytes=9000, repeated_reads=0) for n in range(20)]
    assert found(turns, rounds) == {}
    assert found([]) == {}


def test_a_wasteful_session() -> None:
    turns = [turn(n, 950_000 * (n % 2), 10_000) for n in range(8)]  # grows by 950,000 four times, and is too long
    turns += [turn(60, 0, 940_000)]  # after 53 minutes the cache is gone
    turns += [turn(61 + n, 200_000, 100_000, side=True) for n in range(40)]
    turns += [turn(120 + n, 10, 10, 9000, reasoning_tokens=8900) for n in range(60)]
    turns += [turn(200, 60_000, 0), turn(201, 0, 60_000)]  # a cache that breaks without a pause
    turns = [{**one, "output_tokens": one["output_tokens"] if one.get("reasoning_tokens") else 1} for one in turns]
    rounds = [
        work(
            1,
            tool_results=10,
            result_bytes=100_000,
            repeated_reads=5,
            repeated_commands=10,
            retries=3,
            largest_result_bytes=400_000,
        )
    ]
    assert found(turns, rounds).keys() == trace_waste.KINDS.keys()


def test_what_an_expired_cache_cost() -> None:
    """50,000 tokens are written again at 6.25 instead of read at 0.50 per million: 0.2875."""
    turns = [turn(0, 50_000, 0), turn(7, 0, 50_000), turn(8, 50_000, 0)]
    one = found(turns)["cache_expiry"]
    # 50,010 tokens of context were lost; those that were paid anew were input (10) and writes (50,000).
    assert one["turns"] == 1 and one["tokens"] == 50_010
    paid = (Decimal("0.00005") + Decimal("0.3125")) * 50_010 / 50_010
    assert Decimal(one["cost_usd"]) == pytest.approx(paid - Decimal("0.025005"), abs=Decimal("0.000001"))
    assert one["evidence"] == {"pauses_minutes": [7], "longest_minutes": 7}


EXPIRY: list[tuple[str, list[Json], bool]] = [
    ("within five minutes", [turn(0, 50_000, 0), turn(4.9, 0, 50_000)], False),
    ("kept for an hour", [turn(0, 50_000, 0, cache_write_1h_tokens=9), turn(50, 0, 50_000)], False),
    ("and no longer", [turn(0, 50_000, 0, cache_write_1h_tokens=9), turn(61, 0, 50_000)], True),
    ("it was read all the same", [turn(0, 50_000, 0), turn(30, 50_000, 0)], False),
    ("compacted meanwhile", [turn(0, 50_000, 0), turn(30, 0, 2000)], False),
    ("subagents in between", [turn(0, 50_000, 0), turn(4, 9000, 0, side=True), turn(8, 0, 50_000)], True),
    ("OpenAI keeps it for half an hour", [turn(0, 50_000, 0, provider="openai", model="gpt-5.5"), turn(29, 0, 0, input_tokens=50_000, provider="openai", model="gpt-5.5")], False),
    ("and no longer", [turn(0, 50_000, 0, provider="openai", model="gpt-5.5"), turn(31, 0, 0, input_tokens=50_000, provider="openai", model="gpt-5.5")], True),
]  # fmt: skip


@pytest.mark.parametrize(("what", "turns", "expired"), EXPIRY, ids=[f"{n} {case[0]}" for n, case in enumerate(EXPIRY)])
def test_when_a_cache_expired(what: str, turns: list[Json], expired: bool) -> None:
    assert ("cache_expiry" in found(turns)) == expired


def test_a_cache_that_breaks_without_a_pause_is_a_finding_with_its_reasons() -> None:
    turns = [
        turn(0, 0, 50_000),
        turn(1, 0, 50_100, model="claude-sonnet-4-6"),
        turn(2, 0, 50_200, model="claude-sonnet-4-6"),
    ]
    one = found(turns)["cache_break"]
    assert (one["turns"], one["tokens"]) == (2, 100_120)
    assert one["evidence"] == {"reasons": {"model": 1, "unknown": 1}}


def test_a_break_is_the_same_in_all_answers(run: Run, tmp_path: pathlib.Path) -> None:
    """tok-context, tok-trace and tok-coach: of a fork, whose parent's session lies a day before."""
    first = [turn(0, 0, 50_000), turn(1, 0, 50_100, model="claude-sonnet-4-6")]
    fork = {**turn(60 * 20, 0, 50_200, model="claude-sonnet-4-6"), "session_id": "s2", "workflow_id": "claude-code:p:s2"}
    record = {"v": 1, "ts": fork["ts"], "kind": "context", "id": f"context:{fork['id']}", "session_id": "s2"}
    record |= {"turn": fork["id"], "parent": first[1]["id"], "entered": {"prompt": 5}}
    for day in ("2026-11-21", "2026-11-22"):
        some = [each for each in (*first, fork, record) if each["ts"].startswith(day)]
        put(tmp_path / f"log/events/{day}.jsonl", lines(some))
    env = {"TOKENOPS_NOW": "2026-11-22T12:00:00Z"}
    (mine,) = objects(run("tok-context s2 --breaks", env=env).stdout)
    noted = [step for step in objects(run("tok-trace s2", env=env).stdout) if step["kind"] == "step"]
    waste = objects(run("tok-coach waste --since 2026-11-22", env=env).stdout)
    assert (mine["reason"], mine["tokens"]) == ("idle", 50_110)
    assert [note["tokens"] for note in noted[0]["findings"]] == [50_110]
    assert Decimal(noted[0]["findings"][0]["cost_usd"]) == Decimal(mine["cost_usd"]).quantize(Decimal("0.000001"))
    assert [(each["finding"], each["tokens"]) for each in waste if each["kind"] == "finding"] == [("cache_expiry", 50_110)]


def test_an_unpriced_turn_makes_a_cost_unknown_and_no_guess() -> None:
    turns = [turn(0, 50_000, 0, model="no-such-model"), turn(9, 0, 50_000, model="no-such-model")]
    one = found(turns)["cache_expiry"]
    assert one["cost_usd"] is None and one["tokens"] == 50_010


def test_limits_are_the_clients_and_the_users() -> None:
    long = [turn(n, 300_000, 0) for n in range(10)]
    assert "oversized_context" not in found(long)
    assert "oversized_context" in found([{**one, "client": "codex"} for one in long])
    assert "oversized_context" in found([{**one, "client": "pi"} for one in long])
    mine = [{"workflow_prefix": "claude-code:", "max_context_tokens": 200_000}]
    one = found(long, limits=mine)["oversized_context"]
    assert (one["turns"], one["tokens"], one["evidence"]) == (
        10,
        1_000_100,
        {"peak_tokens": 300_010, "limit_tokens": 200_000},
    )
    assert Decimal(one["cost_usd"]) == Decimal("0.50005")


TURNS = st.lists(st.builds(turn, st.floats(0, 3000), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**5), st.booleans()), max_size=30)  # fmt: skip


@given(TURNS)
def test_no_finding_costs_more_than_the_session(turns: list[Json]) -> None:
    unique = list({one["id"]: one for one in turns}.values())
    made = steps(unique, CATALOGUE)
    whole = sum((step.usd or Decimal(0) for step in made), Decimal(0))
    for one in trace_waste.findings(made, [], RULES):
        assert one["finding"] == "runaway_growth" or Decimal(one["cost_usd"] or 0) <= whole + Decimal("0.000001")
        assert one["turns"] <= len(made) and (one["tokens"] or 0) >= 0


def test_every_current_model_has_a_price() -> None:
    for provider, names in catalog.load("current")["current"].items():
        for name in names:
            asked = {"provider": provider, "model": name, "ts": "2026-11-22T00:00:00.000Z"}
            assert isinstance(CATALOGUE.rate_of(asked), pricing.Rate), name


def test_cheaper_models_of_the_same_provider() -> None:
    turns = [turn(n, 20_000, 500, 200) for n in range(10)] + [turn(20 + n, 90_000, 500, 900) for n in range(10)]
    turns += [
        turn(40, 90_000, 500, 900, side=True),
        turn(50, model="no-such-model"),
        turn(51, cost_usd="1", cost_source="reported"),
    ]
    rows = {row["class"]: row for row in coach_models.rows(turns, CATALOGUE, RULES, "2026-11-22T00:00:00.000Z")}
    assert rows.keys() == {"short", "subagent", "other"} and rows["short"]["turns"] == 10
    for row in rows.values():
        names = [one["model"] for one in row["alternatives"]]
        assert names and all(name.startswith("claude-") and name != row["model"] for name in names)
        for one in row["alternatives"]:
            assert Decimal(one["saved_usd"]) + Decimal(one["cost_usd"]) == pytest.approx(
                Decimal(row["cost_usd"]), abs=Decimal("0.000002")
            )
            rate = CATALOGUE.rate_of({"provider": "anthropic", "model": one["model"], "ts": "2026-11-22T00:00:00.000Z"})
            assert isinstance(rate, pricing.Rate)
            cost = pricing.cost_of(rate, row)
            assert isinstance(cost, pricing.Cost) and cost.usd == pytest.approx(
                Decimal(one["cost_usd"]), abs=Decimal("0.000001")
            )
        saved = [Decimal(one["saved_usd"]) for one in row["alternatives"]]
        assert saved == sorted(saved) and saved[0] > 0


def test_a_limit_counts_in_each_format(run: Run, environment: dict[str, str]) -> None:
    turns = [turn(n, 20_000, 500, 200) for n in range(10)] + [turn(20 + n, 90_000, 500, 900) for n in range(10)]
    store.append(environment["TOKENOPS_HOME"], map(jsonl.line_of, turns))
    every = objects(run("tok-coach models --json", env=NOW).stdout)
    assert len(every) > 1 and objects(run("tok-coach models --limit 1 --json", env=NOW).stdout) == every[:1]
    assert run("tok-coach models --limit 1 --csv", env=NOW).stdout.count(b"\n") == 2


def test_a_session_turn_by_turn(run: Run, environment: dict[str, str]) -> None:
    turns = [turn(0, 50_000, 0), turn(7, 0, 50_000), turn(8, 50_000, 0, side=True), turn(9, 50_000, 100)]
    others = [{**turn(1), "id": "msg_x", "session_id": "s2"}, {**turn(1), "id": "msg_y", "session_id": "t"}]
    rounds = [work(-1, prompts=1, edits=2, command_calls=3), work(6, prompts=1, tool_failures=1)]
    store.append(environment["TOKENOPS_HOME"], map(jsonl.line_of, [*turns, *others, *rounds]))
    told = objects(run("tok-trace s1 --json", env=NOW).stdout)
    made, wasted = [row for row in told if row["kind"] == "step"], [row for row in told if row["kind"] == "finding"]
    assert [row["gap_s"] for row in made] == [None, 420.0, None, 120.0]
    assert [row["context_tokens"] for row in made] == [50_010, 50_010, 50_010, 50_110]
    assert made[0]["round"] == {"prompts": 1, "edits": 2, "command_calls": 3} and made[1]["round"]["tool_failures"] == 1
    assert [one["finding"] for one in made[1]["findings"]] == ["cache_expiry"] and "findings" not in made[3]
    assert [(one["finding"], one["in_turns"]) for one in wasted] == [("cache_expiry", [2])]
    spent = sum(Decimal(row["cost_usd"]) for row in made)
    (cost,) = objects(
        run("tok-cost --log --by session --since 30d --json | jq -c 'select(.session_id == \"s1\")'", env=NOW).stdout
    )
    assert spent == Decimal(cost["cost_usd"])
    assert objects(run("tok-trace t --json", env=NOW).stdout)[0]["id"] == "msg_y"
    shown = run("tok-trace s1 --table", env=NOW).stdout.decode()
    assert re.search(r"cache expired while idle +2 +1 ", shown), "the finding names its turn"
    assert "cache expired while idle, 1 failed" in shown, "what was wrong comes first"
    assert "> claude-opus-4-8" in shown and "4 turns" in shown
    assert b"2 sessions begin with 's': s1, s2" in run("tok-trace s", env=NOW, status=2).stderr
    assert b"no session id begins with 'q'" in run("tok-trace q", env=NOW, status=2).stderr


def test_a_long_session_at_a_terminal_shows_its_findings_and_the_most_expensive_turns(
    run: Run, environment: dict[str, str]
) -> None:
    """A screen of it, in order of time; a pipe and --all show every turn."""
    turns = [turn(n, 60_000 if n in (3, 50) else 100, 50_000) for n in range(60)]
    store.append(environment["TOKENOPS_HOME"], map(jsonl.line_of, turns))

    def shown(options: str) -> list[str]:
        leader, follower = pty.openpty()
        space = environment | NOW | {"LINES": "24", "COLUMNS": "100", "TERM": "dumb"}
        with subprocess.Popen([ROOT / "bin/tok-trace", "s1", *options.split()], stdout=follower, env=space):
            os.close(follower)
            return until_closed(leader).decode().replace("\r", "").splitlines()

    few, every = shown(""), shown("--all")
    piped = run("tok-trace s1 --table", env=NOW | {"COLUMNS": "100"}).stdout.decode()
    assert len(few) <= 24 and len(every) >= 60 and every == piped.splitlines()
    assert few[0].startswith("finding ") and every[0].startswith("finding ")
    numbers = [int(line.split()[0]) for line in few if line[:3].strip().isdecimal()]
    assert {4, 51} < set(numbers) and numbers == sorted(numbers)
    assert any("(--all shows them); in all 60 turns" in line for line in few)


def test_expired_caches_of_weeks_equal_another_count(run: Run, environment: dict[str, str], weeks: Home) -> None:
    """The same by other means: plain dictionaries, floats, and the prices of the models that occur, written down here."""
    prices = {"claude-opus-4-6": (5, 0.5, 6.25, 10), "claude-sonnet-4-6": (3, 0.3, 3.75, 6), "claude-opus-4-5-20251101": (5, 0.5, 6.25, 10), "claude-haiku-4-5-20251001": (1, 0.1, 1.25, 2), "claude-sonnet-4-5-20250929": (3, 0.3, 3.75, 6)}  # fmt: skip
    run("tok-sync claude", env={"HOME": str(weeks.root)}, status=None)
    lines = list(store.scan(environment["TOKENOPS_HOME"]))
    sessions: dict[str, list[Json]] = collections.defaultdict(list)
    for event in map(orjson.loads, lines):
        if event["kind"] == "turn" and not event.get("sidechain") and event.get("turns") and event.get("session_id"):
            sessions[event["session_id"]].append(event)
    count = tokens = 0
    usd = 0.0
    for turns in sessions.values():
        turns.sort(key=lambda one: (one["ts"], one["id"]))
        minutes = 5
        for before, after in itertools.pairwise(turns):
            minutes = (
                720
                if before.get("cache_write_12h_tokens")
                else max(minutes, 60)
                if before.get("cache_write_1h_tokens")
                else minutes
            )
            contexts = [sum(one.get(name, 0) for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")) for one in (before, after)]  # fmt: skip
            read = after.get("cache_read_tokens", 0)
            pause = (when.moment(after["ts"]) - when.moment(before["ts"])) / 60_000
            lost = min(contexts) - read
            if pause <= minutes or read >= contexts[0] / 2 or lost <= 0 or contexts[1] == read:
                continue
            count, tokens = count + 1, tokens + lost
            if after["model"] in prices:
                p_in, p_read, p_write, p_hour = prices[after["model"]]
                paid, left = -lost * p_read, lost  # writes for an hour stand first, then others, then input
                for name, price in (("cache_write_1h", p_hour), ("cache_write", p_write), ("input", p_in)):
                    part = min(left, after.get(f"{name}_tokens", 0))
                    paid, left = paid + part * price, left - part
                usd += max(paid, 0) / 1e6
    mine = [
        one
        for turns, _ in trace.sessions(map(orjson.loads, lines)).values()
        for one in trace_waste.expiries(steps(turns, CATALOGUE))
    ]
    assert count > 10 and (len(mine), sum(lost for _, lost, _ in mine)) == (count, tokens)
    assert float(sum((more or 0 for step, _, more in mine if step.turn["model"] in prices), Decimal(0))) == pytest.approx(
        usd, rel=1e-6
    )


@pytest.mark.parametrize("estimated", [(False, False), (True, False), (True, True)])
def test_a_sum_with_an_estimate_is_an_estimate(estimated: tuple[bool, bool]) -> None:
    findings: list[Json] = [
        {"finding": "tool_result_floods", "turns": 1, "tokens": 1000, "cost_usd": None}
        | ({"tokens_estimated": True} if each else {})
        for each in estimated
    ]
    sums = trace_waste.summary(findings)
    assert [row.get("tokens_estimated", False) for row in sums] == [any(estimated)]
    assert ("~2,000" in trace_waste.table(sums, "table", False)) is any(estimated)
