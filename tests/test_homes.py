"""Nine weeks of four clients' logs, made up with all that real ones do: what was used is counted once, however it is asked."""

from __future__ import annotations

import collections
from decimal import Decimal

import pytest
from homes import Home, Truth

from conftest import Run, objects

NAMES = {
    "turns": "turns",
    "input": "input_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
}
GROUPINGS = (
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
)


def by_model(rows: bytes) -> Truth:
    """Rows by client and model -> their sums."""
    found: Truth = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    for row in objects(rows):
        found[row["client"]][row["model"]].update({ours: row.get(theirs, 0) for ours, theirs in NAMES.items()})
    return found


@pytest.fixture
def env(weeks: Home) -> dict[str, str]:
    return {"HOME": str(weeks.root)}


def test_what_was_used_is_counted_once(weeks: Home, env: dict[str, str], run: Run) -> None:
    found = by_model(run("tok-read all | tok-rollup --by client,model", status=1, env=env).stdout)  # some lines are torn
    assert found == weeks.truth
    assert len(found) == 4 and sum(counts["turns"] for models in found.values() for counts in models.values()) > 400


def test_workers_change_nothing(env: dict[str, str], run: Run) -> None:
    one = run("tok-read all -v --jobs 1", status=1, env=env)
    for jobs in (2, 7):
        many = run(f"tok-read all -v --jobs {jobs}", status=1, env=env)
        assert many.stdout == one.stdout
        assert sorted(many.stderr.splitlines()) == sorted(one.stderr.splitlines()) != []


def test_every_grouping_has_the_same_total(env: dict[str, str], run: Run) -> None:
    events = run("tok-read all", status=1, env=env).stdout
    sums = set()
    for by in GROUPINGS:
        rows = objects(run(f"tok-cost --by {by} --tz Asia/Kathmandu", events).stdout)
        money = sum(Decimal(row["cost_usd"]) for row in rows)
        sums.add((money, *(sum(row.get(name, 0) for row in rows) for name in NAMES.values())))
    assert len(sums) == 1
