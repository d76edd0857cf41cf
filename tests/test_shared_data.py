"""Real logs that nobody here wrote, with what a correct tool must find in them."""

from __future__ import annotations

import collections
import json
from typing import Any

import pytest

from conftest import SHARED, Run, needs_shared, objects

NAMES = {
    "turns": "turns",
    "input": "input_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
}


def summed(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    found: Any = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    for row in rows:
        found[row["client"]][row["model"]].update({ours: row.get(theirs, 0) for ours, theirs in NAMES.items()})
    return found


def agrees(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for model, counts in expected.items():
        assert {name: found[model][name] for name in counts} == counts, model


@needs_shared
@pytest.mark.parametrize("client", ["claude-code", "codex", "gemini-cli", "copilot-cli"])
def test_the_home_of_real_logs(client: str, run: Run) -> None:
    done = run("tok-read all | tok-rollup --by client,model", status=None, env={"HOME": str(SHARED / "home")})
    expected = json.loads((SHARED / "home.expected.json").read_text())
    agrees(summed(objects(done.stdout))[client], expected[client])


@needs_shared
@pytest.mark.parametrize(
    "family", ["archived-fork-33ce-3869", "harness-smoke", "live-fork-4d90-52bf", "missing-parent-siblings"]
)
def test_fork_families(family: str, run: Run) -> None:
    done = run(f"tok-read codex --root {SHARED}/codex-forks/{family}/codex-home | tok-rollup --by client,model")
    expected = json.loads((SHARED / "codex-forks.expected.json").read_text())
    agrees(summed(objects(done.stdout))["codex"], expected[family])


@needs_shared
def test_workers_change_nothing(run: Run) -> None:
    one = run("tok-read all --jobs 1", status=1, env={"HOME": str(SHARED / "home")})
    for jobs in (2, 7):
        many = run(f"tok-read all --jobs {jobs}", status=1, env={"HOME": str(SHARED / "home")})
        assert many.stdout == one.stdout
        assert sorted(many.stderr.splitlines()) == sorted(one.stderr.splitlines())


@needs_shared
def test_every_grouping_has_the_same_total(run: Run) -> None:
    events = run("tok-read all", status=1, env={"HOME": str(SHARED / "home")}).stdout
    sums = set()
    for by in (
        "none",
        "hour",
        "day",
        "week",
        "month",
        "session",
        "project",
        "agent",
        "workflow",
        "client",
        "model",
        "provider",
    ):
        rows = objects(run(f"tok-cost --by {by} --tz Asia/Kathmandu", events, status=1).stdout)
        from decimal import Decimal

        money = sum(Decimal(row.get("cost_usd", "0")) for row in rows)
        sums.add((money, *(sum(row.get(name, 0) for row in rows) for name in NAMES.values())))
    assert len(sums) == 1
