"""Real logs that nobody here wrote, with what a correct tool must find in them."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from test_homes import by_model

from conftest import SHARED, Run, needs_shared
from tokenops import answers, answers_context, config, context, context_costs, events, pricing, session, store_sessions, when

# What the expected figures lack: a rollout whose totals moved by one request more than its `last`.
BEYOND = {"codex": {"gpt-5.5": {"turns": 1, "input": 399, "cache_read": 87936, "output": 69}}}
FAMILIES = ("archived-fork-33ce-3869", "harness-smoke", "live-fork-4d90-52bf", "missing-parent-siblings")


@needs_shared
@pytest.mark.parametrize("name", ["home", *FAMILIES])
def test_real_logs(name: str, run: Run) -> None:
    """Four clients' logs of a year, and families of Codex threads that were forked."""
    if name == "home":
        line, key = f"tok-read all --root {SHARED}/home", "home"
        expected = json.loads((SHARED / "home.expected.json").read_text())
    else:
        line, key = f"tok-read codex --root {SHARED}/codex-forks/{name}/codex-home", "codex-forks"
        expected = {"codex": json.loads((SHARED / f"{key}.expected.json").read_text())[name]}
    found = by_model(run(f"{line} | tok-rollup --by client,model", status=None, env={"HOME": str(SHARED / "home")}).stdout)
    assert set(found) == set(expected)
    for client, models in expected.items():
        assert set(found[client]) == set(models)
        for model, counts in models.items():
            beyond = BEYOND.get(client, {}).get(model, {}) if name == "home" else {}
            right = {key: value + beyond.get(key, 0) for key, value in counts.items()}
            assert {name: found[client][model][name] for name in right} == right, model


@needs_shared
def test_causes_of_real_logs_add_up(run: Run, environment: dict[str, str]) -> None:
    """Turn by turn, session by session and in all; and their shares are those that were counted by other means.

    Those of the main chains of Claude Code: facts about the same logs, counted without this program, within a point or so.
    """
    run("tok-sync", env={"HOME": str(SHARED / "home")}, status=None)
    folder, catalogue = environment["TOKENOPS_HOME"], pricing.load()
    log = session.Log(folder, when.moment("2026-11-21T12:00:00Z"), config.Config({}, "", []), lambda: catalogue, when.UTC)
    records = store_sessions.of_span(folder, "", "9", answers_context.KINDS)
    turns = {record["id"]: record for record in records if record["kind"] == "turn"}
    main = context_costs.Bill(catalogue, lambda cause: cause.partition("|")[0])
    contexts = context.by_turn(record for record in records if record["kind"] == "context")
    sized = [turn for turn in turns.values() if turn["client"] in ("claude-code", "codex")]
    assert len(sized) > 4900 and sum(turn["id"] not in contexts for turn in sized) <= 1
    both = context_costs.Bill(catalogue)
    for share in context.shares(turns, contexts):
        sums: dict[str, int] = {}
        for part in share.parts:
            sums[part.name] = sums.get(part.name, 0) + sum(part.tokens.values())
        assert sums == {name: share.turn[name] for name in events.TOKENS if share.turn.get(name)}
        if share.turn["client"] == "claude-code" and not share.turn.get("sidechain"):
            main.add(share)
        if share.turn["client"] in ("claude-code", "codex"):
            both.add(share)
    for by in ("cause", "tool", "command", "server"):
        rows, total, *_ = answers_context.causes(log, answers_context.Query(by=by))
        spent = answers.spend(log).total
        assert sum(Decimal(row["cost_usd"] or 0) for row in rows) == Decimal(total["cost_usd"]) == Decimal(spent["cost_usd"])
        assert {name: total[name] for name in events.TOKENS if name in total} == {
            name: spent[name] for name in events.TOKENS if name in spent
        }
    kinds = context.KINDS[:3]
    lines = main.lines()
    prompt = {kind: sum(line.tokens.get(kind, 0) for line in lines.values()) for kind in kinds}
    cost = {name: sum((line.costs.get(kind, Decimal(0)) for kind in kinds), Decimal(0)) for name, line in lines.items()}
    whole, paid = sum(prompt.values()), sum(cost.values())
    assert [round(100 * prompt[kind] / whole) for kind in kinds] == [96, 2, 2]
    assert "unexplained" not in lines or sum(lines["unexplained"].tokens.get(kind, 0) for kind in kinds) < whole / 50
    every = {name: sum(line.tokens.values()) for name, line in both.lines().items()}
    assert every.get("unexplained", 0) < sum(every.values()) / 100
    for name, share_of_cost in (("base", 52), ("result Read", 17), ("result Bash", 11), ("reply", 2), ("call Bash", 2)):
        assert abs(100 * cost[name] / paid - share_of_cost) < Decimal("1.5"), name
