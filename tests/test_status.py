"""The doctor: each thing that can be wrong is named, with a command that mends it."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from conftest import Json, Run, claude, lines, objects, put
from tokenops import (
    config,
    doctor,
    events,
    jsonl,
    limit_budget,
    limit_log,
    pricing,
    status,
    store,
    store_upkeep,
    tools,
    when,
)

NOW = "2026-11-21T09:30:00.000Z"
ENV = {"TOKENOPS_NOW": NOW}


def told(run: Run, status: int | None = None, **env: str) -> Json:
    (found,) = objects(run("tok-status --json", env=ENV | env, status=status).stdout)
    return found


def ids(rows: list[Json]) -> list[str]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("prefix", "first"),
    [
        ("/home/ada/.local/share/pipx/venvs/tokenops", "pipx"),
        ("/home/ada/.local/share/uv/tools/tokenops", "uv"),
        ("/home/ada/uv/venv", "pip"),
        ("/usr", "pip"),
    ],
)
def test_a_newer_version_is_got_by_who_installed_this_one(prefix: str, first: str) -> None:
    assert doctor.upgrade(prefix).split()[0] == first


def test_nothing_here(run: Run) -> None:
    found = told(run, 1)
    assert (found["state"], ids(found["blockers"])) == ("not_configured", ["nothing_found"])
    for part in ("sources", "signals", "proxy", "log"):
        assert found[part].keys() == {"error", "hint"}, part
    shown = run("tok-status --table", env=ENV, status=1).stdout.decode()
    assert shown.startswith("not configured") and "no client's logs were found (looked for claude-code, codex" in shown


def test_calls_of_our_own_tools_are_no_usage(run: Run, environment: dict[str, str]) -> None:
    """An install that has only been asked, never used, is still not configured."""
    logged(environment, tools.ping("tokenops_status", when.moment(NOW) - 60_000, 1))
    found = told(run, 1)
    assert (found["state"], ids(found["blockers"])) == ("not_configured", ["nothing_found"])
    assert [(row["source"], row["plane"], row["ping"]) for row in found["sources"]] == [("mcp", "mcp", 1)]


def test_each_source_names_its_plane(run: Run, environment: dict[str, str]) -> None:
    logged(
        environment, turn(), turn(id="msg_2", source="proxy", status=200), meter(0.4), tools.ping("t", when.moment(NOW), 1)
    )
    planes = {row["source"]: row["plane"] for row in told(run, None)["sources"]}
    assert planes == {
        "claude-code-jsonl": "passive", "claude-code-statusline": "passive", "mcp": "mcp", "proxy": "proxy"}  # fmt: skip


def test_the_signal_as_a_whole_is_that_of_the_least_reliable_plan(run: Run, environment: dict[str, str]) -> None:
    assert told(run, 1)["signal_quality"]["level"] == "low"
    logged(environment, turn(), meter(0.4))
    found = told(run, 0)
    assert found["signal_quality"] == found["signals"][0]["signal_quality"] and found["signal_quality"]["level"] == "high"
    shown = run("tok-status --table", env=ENV).stdout.decode()
    assert "the limits shown are reliable: Claude Code's status line, read 5 minutes ago; use" in shown
    run("tok-plan set openai gpt-plus")
    assert told(run, 0)["signal_quality"]["level"] == "low"


def test_nothing_is_advised_where_nothing_is_to_be_done(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A price that came into force as announced needs no upgrade while the prices are new; the report says so, no more."""
    logged(environment, turn())
    captured = max(found["captured"] for found in pricing.load().providers["gemini"]["sources"].values())
    soon = {"TOKENOPS_NOW": f"{captured}T12:00:00Z"}
    found = told(run, None, **soon)
    assert found["prices"]["scheduled_due"] == [] and "gemini" not in found["prices"]["older_than_30_days"]
    assert "in force since" not in run("tok-status --table", env=ENV | soon, status=None).stdout.decode()
    due = ("gemini", "gemini-9", captured)
    monkeypatch.setattr(pricing, "due_changes", lambda catalogue, now: [due])
    prices = doctor._prices(environment["TOKENOPS_HOME"], when.moment(soon["TOKENOPS_NOW"]))
    assert [row["model"] for row in prices["scheduled_due"]] == ["gemini-9"]
    parts = found | {"prices": prices | {"older_than_30_days": []}}
    settings = config.Config({}, "", [])
    assert not any("upgrade" in row["do"] for row in doctor._next_actions(parts, settings))
    parts["prices"]["older_than_30_days"] = ["gemini"]
    advised = [row for row in doctor._next_actions(parts, settings) if "upgrade" in row["do"]]
    assert ["gemini-9" in row["what"] for row in advised] == [False, True]


def test_what_a_server_keeps_of_days_changes_nothing(environment: dict[str, str]) -> None:
    at, memory = when.moment(NOW), limit_log.memory()
    rules = config.thresholds(config.Config({}, "", []))
    passed = {"source": "proxy", "status": 200}
    days = [
        turn(id=f"m{day}-{n}", ts=f"2026-11-{day:02d}T23:59:0{n}.000Z", **passed) for day in range(12, 21) for n in range(3)
    ]
    folder = logged(environment, *days, meter(0.4))
    for number in range(3):
        now = at + number * 60_000
        assert list(status.proxy_rows(folder, now, memory)) == list(status.proxy_rows(folder, now))
        assert doctor.sources(folder, now, memory) == doctor.sources(folder, now)
        args = folder, now, rules, {}, pricing.load
        assert limit_budget.budget_rows(*args, memory=memory) == limit_budget.budget_rows(*args)
        store.append(folder, [jsonl.line_of(meter(0.4 + 0.1 * number, 4 - number))])
        # A new turn, one of another source of an old day, and a second sighting of a turn, a day later.
        logged(
            environment,
            turn(id=f"new{number}", **passed, errors=1),
            turn(id=f"old{number}", ts=days[4]["ts"], source="kimi"),
        )
        logged(environment, {**days[5], "ts": "2026-11-14T00:00:00.500Z", "usage": "partial", "usage_reason": "cut"})
    assert status.proxy_rows(folder, at, memory).__next__()["turns"] > 20


def test_problems_of_days_that_a_server_keeps_are_those_of_the_files(environment: dict[str, str]) -> None:
    """A line in the usual form is looked at briefly: what is wrong with its day or its id counts all the same."""
    folder = logged(environment, *(turn(id=f"m{n}", ts=f"2026-11-{day}T10:00:00.000Z") for n, day in enumerate((19, 20))))
    memory, path = limit_log.memory(), pathlib.Path(folder, "events/2026-11-20.jsonl")
    usual = [
        jsonl.line_of(turn(id="m9", ts="2026-11-19T10:00:00.000Z")),
        jsonl.line_of({**meter(0.4), "id": "m1", "ts": "2026-11-20T11:00:00.000Z"}),
        b'{"kind":"turn","id":"m8","v":1,"ts":"2026-11-20T10:00:00.000Z","turns":-1}\n',
        b'{"v":1,"ts":"2026',
    ]
    wanted: list[str] = []
    words = ("is not of that day", "another record of kind turn has its id", "turns is", "a torn line")
    for line, problem in zip(usual, words, strict=True):
        with path.open("ab") as file:
            file.write(line)
        wanted.append(problem)
        for again in range(2):
            kept = list(store_upkeep.verify_days(folder, ("2026-11-19", "2026-11-20"), memory))
            assert kept == list(store_upkeep.verify_days(folder, ("2026-11-19", "2026-11-20"))), again
        assert len(kept) == len(wanted) and all(word in each.problem for word, each in zip(wanted, kept, strict=True))


SHOWING = ("tok-init --detect", "tok-cost", "tok-log verify", "tok-price show", "tok-status", "tok-plan catalog", "edit ")


@pytest.mark.parametrize("what", ["plan", "unpriced", "torn", "config", "silent"])
def test_next_actions_are_commands_that_change_something(what: str, run: Run, environment: dict[str, str]) -> None:
    folder = logged(environment, turn(model="no-such-model-9" if what == "unpriced" else "claude-opus-4-8"))
    if what == "torn":
        with pathlib.Path(folder, "events/2026-11-21.jsonl").open("ab") as file:
            file.write(b'{"v":1,"ts":"2026')
    if what == "config":
        put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", b"plan: {}\n")
    if what == "silent":
        run("tok-plan set openai gpt-plus")
    actions = told(run, None)["next_actions"]
    assert actions and not [action["do"] for action in actions if action["do"].startswith(SHOWING)]


def test_logs_that_were_never_taken_in(run: Run, environment: dict[str, str]) -> None:
    put(
        pathlib.Path(environment["HOME"]) / ".claude/projects/p/s.jsonl",
        lines([claude("msg_1", ts="2026-11-20T09:00:00.000Z")]),
    )
    found = told(run, 0)
    assert found["state"] == "degraded" and ids(found["next_actions"])[0] == "run_sync"
    (mine,) = (row for row in found["clients"] if row["files"])
    assert mine["client"] == "claude-code" and mine["newest"]
    run("tok-sync")
    found = told(run, 0)
    assert "run_sync" not in ids(found["next_actions"]) and "record_statusline" in ids(found["next_actions"])
    assert [(row["source"], row["turn"]) for row in found["sources"]] == [("claude-code-jsonl", 1)]


def logged(environment: dict[str, str], *records: Json) -> str:
    folder = environment["TOKENOPS_HOME"]
    store.append(folder, map(jsonl.line_of, records))
    return folder


def turn(**more: object) -> Json:
    about = {
        "id": "msg_1",
        "kind": "turn",
        "source": "claude-code-jsonl",
        "provider": "anthropic",
        "model": "claude-opus-4-8",
    }
    return {"v": 1, "ts": "2026-11-21T09:00:00.000Z", **about, "turns": 1, "output_tokens": 7, **more}


def meter(used: float, minutes: int = 5) -> Json:
    at = when.moment(NOW)
    about = {"window": "five_hour", "window_minutes": 300, "resets_at": when.stamp(at + 3_600_000)}
    return events.meter("claude-code-statusline", "anthropic", when.stamp(at - minutes * 60_000), used=used, **about)


def test_signals_of_plans(run: Run, environment: dict[str, str]) -> None:
    logged(environment, turn(), meter(0.4))
    run("tok-plan set anthropic claude-max-20x")
    run("tok-plan set openai gpt-plus")
    found = told(run, 0)
    rows = {row["provider"]: row for row in found["signals"]}
    assert (rows["anthropic"]["headroom_pct"], rows["anthropic"]["signal_quality"]["level"]) == (60, "high")
    assert "headroom_pct" not in rows["openai"] and rows["openai"]["signal_quality"]["source"] == "mcp_tool_pings"
    action = next(row for row in found["next_actions"] if row["id"] == "read_meters")
    assert "openai" in action["what"] and "anthropic" not in action["what"]
    run("tok-plan unset anthropic")
    shown = run("tok-status --table", env={"TOKENOPS_NOW": NOW}, status=None).stdout.decode()
    assert "no reading yet" in shown and "tool_pings" not in shown and "own tools" not in shown


def test_after_the_status_line_is_set_up_only_claude_code_is_missing(run: Run, environment: dict[str, str]) -> None:
    logged(environment, turn())
    put(pathlib.Path(environment["HOME"]) / ".claude/settings.json", b"{}")
    run("tok-plan set anthropic claude-max-20x")
    assert next(row for row in told(run, 0)["next_actions"] if row["id"] == "read_meters")["do"] == "tok-init"
    run("tok-init --yes --host claude-code")
    action = next(row for row in told(run, 0)["next_actions"] if row["id"] == "read_meters")
    assert action["do"] == "claude" and "until Claude Code shows its status line again" in action["what"]


@pytest.mark.parametrize(
    ("what", "identifier"),
    [("unpriced", "price_models"), ("torn", "verify_log"), ("config", "mend_config"), ("prices", "mend_prices")],
)
def test_what_is_wrong_is_named(what: str, identifier: str, run: Run, environment: dict[str, str]) -> None:
    folder = logged(environment, turn(model="no-such-model-9" if what == "unpriced" else "claude-opus-4-8"))
    if what == "torn":
        with pathlib.Path(folder, "events/2026-11-21.jsonl").open("ab") as file:
            file.write(b'{"v":1,"ts":"2026')
    if what == "config":
        put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", b"plan: {}\n")
    more = {"TOKENOPS_PRICING_PATH": put(pathlib.Path(folder, "mine.yaml"), b"models: [")} if what == "prices" else {}
    found = told(run, None, **{name: str(value) for name, value in more.items()})
    assert found["state"] == "degraded" and identifier in ids(found["next_actions"])


def test_a_place_that_does_not_exist_blocks(run: Run, environment: dict[str, str]) -> None:
    logged(environment, turn())
    found = told(run, 1, CODEX_HOME="/nowhere")
    assert (found["state"], ids(found["blockers"])) == ("not_ready", ["client_not_found"])


def test_wiring(run: Run, environment: dict[str, str]) -> None:
    settings = pathlib.Path(environment["HOME"]) / ".claude/settings.json"
    put(settings, json.dumps({"statusLine": {"type": "command", "command": "tok-statusline --wrap mine"}}).encode())
    urls = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:7878/anthropic", "OPENAI_BASE_URL": "https://api.openai.com/v1"}
    found = told(run, None, **urls)["wiring"]
    assert found["statusline"] == {"set": True, "ours": True} and found["proxy"]["base_urls"] == ["ANTHROPIC_BASE_URL"]
    assert found["cron"].keys() <= {"tok-sync", "tok-poll", "error", "hint"}
    put(settings, b"{ not json")
    assert told(run)["wiring"]["statusline"] == {"set": False, "ours": False}


def test_it_changes_nothing_and_holds_no_secret(run: Run, environment: dict[str, str]) -> None:
    logged(environment, turn(), meter(0.4))
    told(run)
    folder = pathlib.Path(environment["TOKENOPS_HOME"], "events")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    secret = "sk-ant-oat01-0123456789abcdef"
    done = run(
        "tok-status --json",
        env=ENV | {"ANTHROPIC_API_KEY": secret, "ANTHROPIC_BASE_URL": f"http://{secret}@x:7878"},
        status=None,
    )
    assert secret.encode() not in done.stdout + done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not here")
def test_every_next_action_has_the_same_three_fields(run: Run) -> None:
    for row in [*told(run, 1)["blockers"], *told(run, 1)["next_actions"]]:
        assert row.keys() == {"id", "what", "do"} and all(row.values())
