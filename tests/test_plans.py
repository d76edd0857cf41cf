"""Plans: what is published of them, and which the user has since when."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml

from conftest import Run, objects
from tokenops import config, plans

NAMES = (
    "claude-max-5x", "claude-max-20x", "claude-pro", "claude-code-max", "claude-code-pro", "claude-max", "gpt-plus", "gpt-pro", "gpt-team",
    "codex-plus", "copilot-individual", "copilot-business", "cursor-pro", "cursor-business", "gemini-ai-premium", "mistral-le-chat-pro",
)  # fmt: skip


def written(environment: dict[str, str]) -> Any:
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_old_is_known(name: str) -> None:
    assert plans.named(name).display


def test_the_catalogue_is_sourced_and_makes_no_number_up() -> None:
    for plan in plans.known().values():
        assert plan.source and all(url.startswith("https://") for url in plan.source), plan.name
        assert re.fullmatch(r"(\d+(\.\d+)?)?", plan.usd)
        for window in plan.windows:
            assert set(window) <= {"window", "minutes", "scope", "limit", "unit", "resets"}
            assert ("limit" in window) == ("unit" in window)
    # Anthropic publishes no amounts, and its largest plan has no five-hour window.
    assert not any(
        "limit" in window for plan in plans.known().values() if plan.provider == "anthropic" for window in plan.windows
    )
    assert [window["window"] for window in plans.named("claude-max-20x").windows] == ["weekly", "weekly_fable"]


def test_the_four_lines_of_old(run: Run, environment: dict[str, str]) -> None:
    for line in ("anthropic claude-max-20x", "openai gpt-plus", "github copilot-business", "cursor cursor-pro"):
        run(f"tok-plan set {line}")
    rows = objects(run("tok-plan list").stdout)
    assert [(row["provider"], row["plan"]) for row in rows] == [
        ("anthropic", "claude-max-20x"), ("cursor", "cursor-pro"), ("github", "copilot-business"), ("openai", "gpt-plus")]  # fmt: skip
    run("tok-plan unset cursor")
    assert set(written(environment)["plans"]) == {"anthropic", "openai", "github"}
    assert "Claude Ultra" in run("tok-plan --table").stdout.decode()


def test_a_plan_of_old_in_the_old_form(run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# mine\nplans:\n  anthropic: claude-max # of old\n  openai: gpt-team\n")
    assert [row["plan"] for row in objects(run("tok-plan").stdout)] == ["claude-max-20x", "gpt-business"]
    run("tok-plan set anthropic claude-pro", env={"TOKENOPS_NOW": "2026-11-20T12:00:00Z"})
    assert written(environment)["plans"] == {
        "openai": "gpt-team",
        "anthropic": [{"plan": "claude-max-20x"}, {"plan": "claude-pro", "from": "2026-11-20"}],
    }
    assert path.read_text().startswith("# mine\n")


def test_bindings_are_dated(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-pro")
    run("tok-plan set anthropic claude-max-5x --from 2026-05-01")
    run("tok-plan set anthropic claude-max-20x --from 2026-09-01")
    run("tok-plan set anthropic claude-team --account a1b2")
    settings = config.load({}, environment["HOME"])
    bound = plans.bindings(settings)

    def on(day: str, account: str = "") -> set[str]:
        return {one.plan for one in plans.in_force(bound, "anthropic", day, account)}

    assert on("2026-01-01", "x") == {"claude-pro"}
    assert on("2026-05-01", "x") == {"claude-max-5x"}
    assert on("2026-12-31", "x") == {"claude-max-20x"}
    assert on("2026-12-31", "a1b2") == {"claude-max-20x", "claude-team"}
    assert on("2026-12-31") == {"claude-max-20x", "claude-team"}
    assert plans.in_force(bound, "openai", "2026-01-01") == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("set anthropic claude-max-21x", "the nearest known is 'claude-max-20x'"),
        ("set openai claude-pro", "claude-pro is a plan of anthropic: tok-plan set anthropic claude-pro"),
        ("set anthropic", "name what to set: tok-plan set PROVIDER PLAN"),
        ("set", "name what to set: tok-plan set PROVIDER PLAN"),
        ("set anthropic claude-pro --from soon", "expected a day such as"),
    ],
)
def test_what_is_refused(line: str, says: str, run: Run, environment: dict[str, str]) -> None:
    assert says in run(f"tok-plan {line}", status=2).stderr.decode()
    assert written(environment) is None


def test_nothing_bound_says_what_to_do(run: Run) -> None:
    assert "tok-plan set PROVIDER PLAN" in run("tok-plan", status=1).stderr.decode()
    assert {row["provider"] for row in objects(run("tok-plan catalog github").stdout)} == {"github"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("plans: [a]\n", "expected providers with plans"),
        ("plans: {anthropic: nothing-known}\n", "no plan 'nothing-known'"),
        ("plans: {openai: claude-pro}\n", "claude-pro is a plan of anthropic"),
        ("plans: {anthropic: [{plan: claude-pro, from: yesterday}]}\n", "expected a day"),
    ],
)
def test_a_configuration_that_makes_no_sense(text: str, says: str, run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert says in run("tok-plan", status=2).stderr.decode()
