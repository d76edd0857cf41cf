"""Plans: what is published of them, and which the user has since when."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, examples, objects
from tokenops import config, events, limit_budget, limit_plans, plans, pricing, store, when
from tokenops.jsonl import line_of

NAMES = (
    "claude-max-5x", "claude-max-20x", "claude-pro", "claude-code-max", "claude-code-pro", "claude-max", "gpt-plus", "gpt-pro", "gpt-team",
    "codex-plus", "copilot-individual", "copilot-business", "cursor-pro", "cursor-business", "gemini-ai-premium", "mistral-le-chat-pro",
)  # fmt: skip


def written(environment: dict[str, str]) -> Any:
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_old_is_known(name: str) -> None:
    assert plans.find(name).display


def test_the_catalogue_is_sourced_and_makes_no_number_up() -> None:
    for plan in plans.all_plans().values():
        assert plan.source and all(url.startswith("https://") for url in plan.source), plan.name
        assert re.fullmatch(r"(\d+(\.\d+)?)?", plan.usd)
        for window in plan.windows:
            assert set(window) <= {"window", "minutes", "scope", "limit", "unit", "resets", "base", "flex"}
            assert "base" not in window or window["base"] + window["flex"] == window["limit"]
            assert ("limit" in window) == ("unit" in window)
    # Anthropic publishes no amounts, and its largest plan has no five-hour window.
    assert not any(
        "limit" in window for plan in plans.all_plans().values() if plan.provider == "anthropic" for window in plan.windows
    )
    assert [window["window"] for window in plans.find("claude-max-20x").windows] == ["weekly", "weekly_fable"]


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
        "anthropic": [{"plan": "claude-max-20x"}, {"plan": "claude-pro", "from": "2026-11-20", "set": "2026-11-20"}],
    }
    assert path.read_text().startswith("# mine\n")


MONDAY, TUESDAY = {"TOKENOPS_NOW": "2026-11-23T12:00:00Z"}, {"TOKENOPS_NOW": "2026-11-24T12:00:00Z"}


def test_a_plan_corrected_on_the_same_day_replaces_the_wrong_one(run: Run) -> None:
    """Setting prints what is set then."""
    run("tok-plan set anthropic claude-pro", env=MONDAY)
    (row,) = objects(run("tok-plan set anthropic claude-max-5x", env=MONDAY).stdout)
    assert (row["plan"], "from" in row) == ("claude-max-5x", False), "the first plan applies to all time, corrected or not"
    rows = objects(run("tok-plan set anthropic claude-max-20x", env=TUESDAY).stdout)
    assert [(row["plan"], row.get("from")) for row in rows] == [("claude-max-5x", None), ("claude-max-20x", "2026-11-24")]
    rows = objects(run("tok-plan set anthropic claude-team", env=TUESDAY).stdout)
    assert [(row["plan"], row.get("from")) for row in rows] == [("claude-max-5x", None), ("claude-team", "2026-11-24")]
    rows = objects(run("tok-plan set anthropic claude-pro --account a1", env=TUESDAY).stdout)
    assert len(rows) == 3, "another account has a plan of its own"
    assert objects(run("tok-plan", env=TUESDAY).stdout) == rows


def test_setting_says_since_when_and_the_same_plan_again_moves_its_first_day(run: Run) -> None:
    """A plan in force that is set again stays as it is; with --from it begins then, and never twice."""

    def starts(line: str, env: Json = TUESDAY) -> tuple[list[tuple[str, str | None]], str]:
        done = run(f"tok-plan set {line}", env=env)
        return [(row["plan"], row.get("from")) for row in objects(done.stdout)], done.stderr.decode()

    rows, text = starts("anthropic claude-pro", MONDAY)
    hint = "tok-plan set anthropic claude-pro --from DAY"
    assert text == f"tok-plan: Claude Pro is set for all your history; if you got it later: {hint}\n"
    assert rows == starts("anthropic claude-pro")[0] == [("claude-pro", None)]
    assert starts("anthropic claude-pro --from 2026-10")[0] == [("claude-pro", "2026-10-01")]
    env = {"TOKENOPS_NOW": "2026-11-25T12:00:00Z"}
    rows, text = starts("anthropic claude-team", env)
    assert rows == [("claude-pro", "2026-10-01"), ("claude-team", "2026-11-25")] and "from 2026-11-25 on; if you had" in text
    rows, text = starts("anthropic claude-team --from yesterday")
    assert rows == [("claude-pro", "2026-10-01"), ("claude-team", "2026-11-23")] and text.endswith("from 2026-11-23 on\n")
    assert starts("anthropic claude-pro --from all")[0] == [("claude-pro", None), ("claude-team", "2026-11-23")]
    assert starts("anthropic claude-pro --from today")[0][1:] == [
        ("claude-team", "2026-11-23"),
        ("claude-pro", "2026-11-24"),
    ]


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
    ("words", "name"),
    [
        ("max5", "claude-max-5x"),
        ("Claude Max 5x", "claude-max-5x"),
        ("anthropic max 20x", "claude-max-20x"),
        ("anthropic pro", "claude-pro"),
        ("openai pro", "gpt-pro"),
        ("openai pro 5x", "gpt-pro-5x"),
        ("ChatGPT Plus", "gpt-plus"),
        ("github pro+", "copilot-pro-plus"),
        ("github pro", "copilot-pro"),
        ("cursor ultra", "cursor-ultra"),
        ("claude-max", "claude-max-20x"),
        ("codex-plus", "codex-plus"),
    ],
)
def test_a_plan_is_entered_by_words_that_only_it_has(words: str, name: str) -> None:
    assert plans.resolve(words.split()).name == name


def test_every_plan_is_entered_by_its_name_and_by_its_provider_and_name() -> None:
    for name, plan in plans.all_plans().items():
        assert plans.resolve([name]).name == plans.resolve([plan.provider, name]).name == name


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("set anthropic claude-max-21x", "the nearest known is 'claude-max-20x'"),
        ("set openai claude-pro", "claude-pro is a plan of anthropic; run tok-plan set anthropic claude-pro"),
        ("set anthropic", "no plan of anthropic is named; choose from claude-pro, claude-max-5x, "),
        ("set anthropic max", "'anthropic max' fits several plans; choose from claude-max-5x, claude-max-20x"),
        ("set pro", "'pro' fits several plans; choose from claude-pro, gpt-pro, "),
        ("unset anthropic claude-pro", "tok-plan unset takes one PROVIDER"),
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


NOW = "2026-11-21T09:30:00.000Z"
AT = when.moment(NOW)
ENV = {"TOKENOPS_NOW": NOW}
FIELDS = {
    "plan_name", "display", "provider", "quota_tokens", "consumed_tokens", "consumed_pct", "headroom_days", "overage_risk", "window_duration",
    "window_cap", "window_unit", "window_consumed", "window_pct", "window_resets_at", "window_resets_in", "signal_quality", "note",
}  # fmt: skip


def reading(used: float | None, hours: float, window: str = "weekly", resets_in: float = 60, **given: Any) -> Json:
    """A reading so many hours ago, of a window that is reset in so many."""
    minutes = {"five_hour": 300, "weekly": 10_080, "weekly_fable": 10_080, "monthly": 43_200}[window]
    about: Json = {
        "window": window,
        "window_minutes": minutes,
        "used": used,
        "resets_at": when.stamp(AT + round(resets_in * 3_600_000)),
    }
    about |= given
    return events.meter(
        about.pop("source", "proxy"), about.pop("provider", "anthropic"), when.stamp(AT - round(hours * 3_600_000)), **about
    )


def turn(name: str, ts: str, **given: Any) -> Json:
    made = {
        "v": 1,
        "ts": ts,
        "kind": "turn",
        "id": name,
        "turns": 1,
        "provider": "anthropic",
        "model": "claude-opus-4-6",
        "output_tokens": 1000,
    }
    return made | given


def left(run: Run, options: str = "", **env: str) -> list[Json]:
    return objects(run(f"tok-plan headroom {options}", env=ENV | env).stdout)


def kept(environment: dict[str, str], *records: Json) -> None:
    store.append(environment["TOKENOPS_HOME"], map(line_of, records))


def test_headroom_of_a_plan(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-max-5x")
    kept(
        environment,
        turn("a", "2026-10-31T23:59:59.999Z"),
        turn("b", "2026-11-01T00:00:00.000Z"),
        turn("c", "2026-11-20T09:00:00.000Z"),
    )
    kept(environment, turn("d", "2026-11-20T09:00:00.000Z", provider="openai", model="gpt-5.4"))
    kept(environment, *(reading(*one) for one in ((0.25, 30), (0.3, 25), (0.5, 1))), reading(0.4, 0.5, "five_hour", 2))
    [row] = left(run)
    assert set(row) >= FIELDS and row["kind"] == "plan_headroom"
    assert (row["plan_name"], row["provider"], row["display"]) == (
        "claude-max-5x",
        "anthropic",
        "Claude Max (until October 2026 Max 5x)",
    )
    # Two turns of this month and this provider.
    assert (row["consumed_tokens"], row["consumed_cost_usd"], row["consumed_since"]) == (
        2000,
        "0.05",
        "2026-11-01T00:00:00.000Z",
    )
    assert (row["window"], row["window_duration"], row["window_pct"], row["window_resets_in"]) == (
        "weekly",
        "7d",
        50.0,
        "2d12h",
    )
    assert row["window_resets_at"] == "2026-11-23T21:30:00.000Z"
    # 20 percent a day, and 50 are left: two days and a half, which is when the week is over.
    assert (row["consumed_pct"], row["consumed_window"], row["headroom_days"]) == (50.0, "weekly", 2.5)
    assert row["lasts_until_reset"] is True
    assert row["overage_risk"] == "low" and row["signal_quality"]["source"] == "proxy_traffic"
    # What no vendor says is not made up.
    assert {row[name] for name in ("quota_tokens", "window_cap", "window_unit", "window_consumed")} == {None}
    assert "quota_tokens: the vendor publishes shares of its windows" in row["note"]
    shown = run("tok-plan headroom --table", env=ENV).stdout.decode()
    assert "50%" in shown and "2d12h" in shown and "2.5" in shown and "$0.05" in shown


def test_what_nobody_read_is_null_and_says_what_would_tell(run: Run) -> None:
    for line in ("anthropic claude-max-20x", "openai gpt-plus", "github copilot-business", "cursor cursor-pro"):
        run(f"tok-plan set {line}")
    rows = left(run)
    assert [row["provider"] for row in rows] == ["anthropic", "cursor", "github", "openai"]
    for row in rows:
        known = {"v", "kind", "provider", "plan_name", "display", "overage_risk", "signal_quality", "note", "as_of"}
        assert {name for name, value in row.items() if value is not None} == known
        assert row["overage_risk"] == "unknown" and row["signal_quality"]["level"] == "low"
        assert (
            "no current reading: " in row["note"]
            and "tok-sync" not in row["note"]
            and "there may be some elsewhere" in row["note"]
        )
    assert "unknown" in run("tok-plan headroom --table", env=ENV).stdout.decode()
    assert [row["provider"] for row in left(run, "openai")] == ["openai"]


def test_headroom_without_a_plan(run: Run) -> None:
    assert run("tok-plan headroom", status=1).stderr == b"tok-plan: no plan is set: tok-plan set PROVIDER PLAN\n"
    run("tok-plan set openai gpt-plus")
    assert b"no plan of anthropic is set: tok-plan set anthropic PLAN" in run("tok-plan headroom anthropic", status=1).stderr


def test_a_published_cap_is_told_with_its_unit(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set github copilot-pro")
    kept(
        environment,
        reading(0.42, 1, "monthly", 200, provider="github", scope="premium_interactions", source="vendor-usage-github"),
    )
    [row] = left(run)
    assert (row["window_cap"], row["window_unit"], row["window_pct"], row["window_duration"]) == (
        1500,
        "AI credits",
        42.0,
        "30d",
    )
    assert row["window_consumed"] is None and row["signal_quality"]["source"] == "vendor_usage_api"


def test_after_its_reset_nothing_is_known(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-pro")
    kept(environment, reading(0.9, 20, "five_hour", -16))
    [row] = left(run)
    assert row["window_pct"] is None and row["window_resets_at"] is None and row["overage_risk"] == "unknown"


def test_two_accounts_are_two_reports(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-pro")
    run("tok-plan set anthropic claude-team --account work")
    kept(
        environment, turn("a", "2026-11-20T09:00:00.000Z"), reading(0.2, 1, account="home"), reading(0.9, 1, account="work")
    )
    rows = {row["account"]: row for row in left(run)}
    assert {account: (row["plan_name"], row["window_pct"]) for account, row in rows.items()} == {
        "home": ("claude-pro", 20.0), "work": ("claude-team", 90.0)}  # fmt: skip
    # Nobody knows whose the turn was.
    assert all(
        row["consumed_tokens"] is None and "several accounts share this provider" in row["note"] for row in rows.values()
    )
    run("tok-plan set anthropic claude-max-5x --account third")
    assert {row["account"]: row["window_pct"] for row in left(run)} == {"home": 20.0, "work": 90.0, "third": None}


def test_a_plan_of_this_month_counts_from_its_first_day(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-pro")
    run("tok-plan set anthropic claude-max-5x --from 2026-11-10")
    kept(
        environment,
        turn("0", "2026-10-09T12:00:00.000Z"),
        turn("a", "2026-11-09T12:00:00.000Z"),
        turn("b", "2026-11-10T12:00:00.000Z"),
    )
    [row] = left(run)
    assert (row["plan_name"], row["consumed_tokens"], row["consumed_since"]) == (
        "claude-max-5x",
        1000,
        "2026-11-10T00:00:00.000Z",
    )
    [row] = left(run, TOKENOPS_NOW="2026-11-09T20:00:00.000Z")
    assert (row["plan_name"], row["consumed_tokens"]) == ("claude-pro", 1000)


def test_a_log_younger_than_the_month_says_so(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-pro")
    kept(environment, turn("a", "2026-11-19T12:00:00.000Z"), turn("b", "2026-11-20T12:00:00.000Z", model="claude-opus-99"))
    [row] = left(run)
    assert (row["consumed_tokens"], row["consumed_since"]) == (2000, "2026-11-19T00:00:00.000Z")
    assert "since 2026-11-19, when the log begins" in row["note"] and "part of it has no price" in row["note"]


RISKS: list[tuple[str, list[Json], str]] = [
    ("little used", [reading(0.59, 1)], "low"),
    ("more", [reading(0.6, 1)], "medium"),
    ("most", [reading(0.8, 1)], "high"),
    ("refused", [reading(0.1, 1, status="rejected")], "high"),
    ("the short window binds", [reading(0.1, 1), reading(0.85, 0.5, "five_hour", 2)], "high"),
    ("the long one is consulted", [reading(0.85, 1), reading(0.1, 0.5, "five_hour", 2)], "high"),
    ("a week that does not last", [reading(0.1, 25), reading(0.4, 1)], "medium"),
    ("one that does", [reading(0.3, 25), reading(0.4, 1)], "low"),
    ("only one model's", [reading(0.99, 1, "weekly_fable", scope="fable"), reading(0.2, 1)], "low"),
    ("only one model's was read", [reading(0.99, 1, "weekly_fable", scope="fable")], "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "readings", "expected"), RISKS, ids=[case[0] for case in RISKS])
def test_risk(what: str, readings: list[Json], expected: str, run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-max-5x")
    kept(environment, *readings)
    [row] = left(run)
    assert row["overage_risk"] == expected
    if any(one.get("scope") for one in readings):
        assert "weekly_fable fable: 1% left" in row["note"]


def test_the_users_own_thresholds_of_risk(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-max-5x")
    kept(environment, reading(0.6, 1))
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    path.write_text(path.read_text() + "thresholds: {plan: {medium: 0.7}}\n")
    assert left(run)[0]["overage_risk"] == "low"


def forecast(p: float, few: bool = False) -> Json:
    return {"p_cutoff": p, "few_data": few}


@pytest.mark.parametrize(
    ("used", "expected", "advised", "told"),
    [
        (0.9, forecast(0.05), "continue", "low"),
        (0.3, forecast(0.3), "continue", "medium"),
        (0.3, forecast(0.6), "continue", "high"),
        (0.9, forecast(0.05, few=True), "continue", "high"),
        # What is advised of the window is never contradicted.
        (0.3, forecast(0.05), "slow_down", "medium"),
        (0.3, forecast(0.05), "wait_for_reset", "high"),
        (0.3, None, "switch_model", "high"),
    ],
)
def test_the_forecast_decides_where_there_is_one(used: float, expected: Json | None, advised: str, told: str) -> None:
    window = {"window": "weekly", "window_minutes": 10_080, "used": used, "headroom": 1 - used}
    budget = {"provider": "anthropic", "windows": [window], "binding_window": "weekly", "recommended_action": advised}
    rules = config.thresholds(config.Config({}, "", []))["plan"]
    assert limit_plans.risk(budget | ({"forecast": expected} if expected else {}), window, None, rules) == told


READINGS = st.lists(
    st.builds(
        lambda used, hours, window, resets, provider, account: reading(
            used, hours, window, resets, provider=provider, **({"account": account} if account else {})
        ),
        st.sampled_from([0.0, 0.123, 0.5, 0.81, 0.975, 1.2]),
        st.integers(0, 400).map(lambda n: n / 10),
        st.sampled_from(["five_hour", "weekly", "monthly"]),
        st.sampled_from([-30.0, 1.5, 4.0, 100.0]),
        st.sampled_from(["anthropic", "openai"]),
        st.sampled_from(["", "a", "b"]),
    ),
    max_size=10,
)


@examples(60)
@given(READINGS)
def test_it_never_disagrees_with_tok_budget(tmp_path: pathlib.Path, readings: list[Json]) -> None:
    folder = str(tmp_path / "log")
    shutil.rmtree(folder, ignore_errors=True)
    store.append(folder, map(line_of, readings))
    rules = config.thresholds(config.Config({}, "", []))
    bound = [plans.Binding("anthropic", "claude-max-5x", "", ""), plans.Binding("openai", "gpt-plus", "", "")]
    prices = pricing.load()
    told = {
        (row["provider"], row.get("account")): row
        for row in limit_budget.budget_rows(
            folder, AT, rules, {"anthropic": "claude-max-5x", "openai": "gpt-plus"}, lambda: prices
        )
    }
    made = limit_plans.plan_rows(folder, bound, AT, when.UTC, rules, prices)
    assert {(row["provider"], row.get("account")) for row in made} == set(told)
    for row in made:
        json.dumps(row, allow_nan=False)
        asked = told[row["provider"], row.get("account")]
        percent = row["window_pct"]
        assert asked["headroom_pct"] == (None if percent is None else int(max(100 - percent, 0) + 1e-9))
        assert row["window"] == asked["binding_window"] and row["window_resets_in"] == asked["window_resets_in"]
        assert row["signal_quality"] == asked["signal_quality"]
        least = {"continue": "low", "slow_down": "medium"}.get(asked["recommended_action"], "high")
        assert ["unknown", "low", "medium", "high"].index(row["overage_risk"]) >= (percent is not None) * [
            "unknown",
            "low",
            "medium",
            "high",
        ].index(least)


def test_the_commands_agree(run: Run, environment: dict[str, str]) -> None:
    run("tok-plan set anthropic claude-max-5x")
    kept(environment, *(reading(*one) for one in ((0.25, 30), (0.3, 25), (0.525, 1))), reading(0.41, 0.5, "five_hour", 2))
    kept(environment, *(turn(f"t{n}", when.stamp(AT - n * 700_000)) for n in range(200)))
    [row], [told] = left(run), objects(run("tok-budget", env=ENV).stdout)
    assert told["headroom_pct"] == int(100 - row["window_pct"]) and told["window_resets_in"] == row["window_resets_in"]
    assert told["signal_quality"] == row["signal_quality"]


def test_a_link_to_the_configuration_stays_one(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    target = tmp_path / "dotfiles/config.yaml"
    target.parent.mkdir()
    target.write_text("# mine\n")
    path = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    run("tok-plan set anthropic claude-pro")
    assert path.is_symlink() and target.read_text().startswith("# mine\n") and "claude-pro" in target.read_text()
