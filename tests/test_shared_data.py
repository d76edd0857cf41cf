"""Real logs that nobody here wrote, with what a correct tool must find in them."""

from __future__ import annotations

import json

import pytest
from test_homes import by_model

from conftest import SHARED, Run, needs_shared

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
