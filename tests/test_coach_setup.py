"""What settings cost: computed by hand here from the same turns, and changed only after a yes."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest

from conftest import Json, Run, objects
from tokenops import datadir, events, jsonl, projects, store, when

NOW = {"TOKENOPS_NOW": "2026-11-20T12:00:00Z"}
START = when.moment("2026-11-10T09:00:00.000Z")
OPUS = "claude-opus-4-6"  # 5 and 25 dollars a million; a cache's write 6.25 and, for an hour, 10; its read .50


def turn(minute: float, session: str = "s", number: int = 0, **more: Any) -> Json:
    record: Json = {"v": events.VERSION, "ts": when.stamp(START + round(minute * 60_000)), "kind": "turn"}
    record |= {"id": f"msg_{session}_{minute}_{number}", "turns": 1, "client": "claude-code", "source": "claude-code-jsonl"}
    return record | {"provider": "anthropic", "model": OPUS, "session_id": session} | more


def record_of(turn: Json, parent: Json | None = None, **more: Any) -> Json:
    record: Json = {
        "v": events.VERSION,
        "ts": turn["ts"],
        "kind": "context",
        "id": f"context:{turn['id']}",
        "turn": turn["id"],
    }
    record |= {"client": "claude-code", "source": "claude-code-jsonl", "session_id": turn["session_id"], **more}
    return record | ({"parent": parent["id"]} if parent else {})


def chain(*turns: Json) -> list[Json]:
    """Turns of one chain with their records."""
    records = [record_of(each, turns[at - 1] if at else None, entered={"prompt": 100}) for at, each in enumerate(turns)]
    return [*turns, *records]


def advice(run: Run, environment: dict[str, str], records: list[Json], options: str = "") -> list[Json]:
    store.append(environment["TOKENOPS_HOME"], [jsonl.line_of(record) for record in records])
    return objects(run(f"tok-coach setup --json {options}", env=NOW, status=None).stdout)


def test_the_longer_life_of_a_cache(run: Run, environment: dict[str, str]) -> None:
    """A pause of ten minutes: a million tokens are written again that an hour's cache would still have had."""
    turns = [turn(0, cache_write_tokens=1_000_000), turn(10, cache_write_tokens=1_010_000)]
    (row,) = advice(run, environment, chain(*turns))
    # Paid: 6.25 + 6.3125. With an hour: 10, and 0.50 for what is read, and 0.10 for 10,000 new tokens.
    assert (row["subject"], row["key"], row["value"]) == ("cache", "promptCacheTtl", "1h")
    assert float(row["usd_per_week"]) == pytest.approx(6.25 + 6.3125 - 10 - 0.5 - 0.1)
    assert row["basis"] == "computed" and "1 pause" in row["finding"]


def test_the_shorter_life_of_subagents_caches(run: Run, environment: dict[str, str]) -> None:
    turns = [
        turn(0, cache_write_1h_tokens=1_000_000, sidechain=True),
        turn(1, cache_write_1h_tokens=10_000, cache_read_tokens=1_000_000, sidechain=True),
    ]
    (row,) = advice(run, environment, chain(*turns))
    assert (row["key"], row["value"]) == ("subagentPromptCacheTtl", "5m")
    assert float(row["usd_per_week"]) == pytest.approx(1.01 * (10 - 6.25))


def test_where_an_hour_is_worth_its_price_nothing_is_said(run: Run, environment: dict[str, str]) -> None:
    turns = [
        turn(0, cache_write_1h_tokens=1_000_000),
        turn(30, cache_write_1h_tokens=10_000, cache_read_tokens=1_000_000),
    ]
    # The price of five minutes would have been 6.25, and 6.25 again after the pause.
    assert advice(run, environment, chain(*turns)) == []


def test_effort(run: Run, environment: dict[str, str]) -> None:
    low = [turn(at, f"l{at}", effort="medium", output_tokens=1000) for at in range(30)]
    high = [turn(at, f"h{at}", effort="xhigh", output_tokens=3000) for at in range(40)]
    few = [turn(at, f"m{at}", effort="max", output_tokens=90_000) for at in range(3)]
    (row,) = advice(run, environment, [*low, *high, *few])
    assert (row["subject"], row["key"], row["value"]) == ("effort", "effortLevel", "medium")
    assert row["tokens_per_week"] == 80_000 and float(row["usd_per_week"]) == pytest.approx(2.0)
    assert "3.0 times as much" in row["finding"]


def test_memory_files(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """By how much the base grew when a file was changed; without enough sessions on either side, by its size."""
    folder, home = environment["TOKENOPS_HOME"], pathlib.Path(environment["HOME"])
    app = tmp_path / "app"
    app.mkdir()
    datadir.ensure_folder(folder)
    project = projects.hash_path(str(app), datadir.salt(folder, make=True))
    store.remember_projects(folder, {project: str(app)})
    (app / "CLAUDE.md").write_text("x" * 60_000)
    changed = START + 4 * 60_000
    os.utime(app / "CLAUDE.md", ns=(changed * 1_000_000,) * 2)
    (home / ".claude").mkdir()
    (home / ".claude/CLAUDE.md").write_text("x" * 9_000)
    os.utime(home / ".claude/CLAUDE.md", ns=(START * 1_000_000,) * 2)
    more: Json = {"project_id": project, "project": "app"}
    records = [
        record for at in range(8) for record in chain(turn(at, f"s{at}", input_tokens=10_000 if at < 4 else 25_000, **more))
    ]
    rows = {pathlib.Path(row["path"]).parent.name: row for row in advice(run, environment, records)}
    assert set(rows) == {"app"}  # the other's 3,000 tokens cost less than is worth saying
    row = rows["app"]
    assert (row["basis"], row["tokens_per_week"]) == ("measured", 8 * 15_000)
    assert float(row["usd_per_week"]) == pytest.approx(8 * 15_000 * 5 / 1e6) and "key" not in row


def settings(environment: dict[str, str], name: str, value: object) -> pathlib.Path:
    path = pathlib.Path(environment["HOME"]) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2))
    return path


def test_servers_that_nobody_uses(run: Run, environment: dict[str, str]) -> None:
    servers = {
        "idle": {"command": "x", "alwaysLoad": True},
        "busy": {"command": "x", "alwaysLoad": True},
        "lazy": {"command": "x"},
    }
    settings(
        environment, ".claude.json", {"mcpServers": servers, "projects": {"/w": {"mcpServers": {"tagged": servers["idle"]}}}}
    )
    one, two = turn(0, input_tokens=5), turn(1, input_tokens=5, mcp_server="tagged")
    rows = advice(run, environment, [one, two, record_of(one), record_of(two, one, entered={"result mcp__busy__list": 9})])
    assert [(row["key"], row["value"], row.get("usd_per_week")) for row in rows] == [
        ("mcpServers.idle.alwaysLoad", False, None)
    ]


def test_nothing_is_changed_without_a_yes(run: Run, environment: dict[str, str]) -> None:
    path = settings(environment, ".claude/settings.json", {"model": "opus"})
    before = path.read_bytes()
    records = chain(turn(0, cache_write_tokens=1_000_000), turn(10, cache_write_tokens=1_010_000))
    advice(run, environment, records)
    said = run("tok-coach setup --apply", env=NOW, status=2).stderr.decode()
    assert "give --yes" in said and path.read_bytes() == before


def test_a_change_its_verdict_and_its_undo(run: Run, environment: dict[str, str]) -> None:
    path = settings(environment, ".claude/settings.json", {"model": "opus"})
    before = path.read_bytes()
    advice(run, environment, chain(turn(0, cache_write_tokens=1_000_000), turn(10, cache_write_tokens=1_010_000)))
    done = run("tok-coach setup --apply --yes", env={"TOKENOPS_NOW": "2026-11-10T10:00:00Z"}).stderr.decode()
    assert "promptCacheTtl" in done and json.loads(path.read_text()) == {"model": "opus", "promptCacheTtl": "1h"}
    store.append(
        environment["TOKENOPS_HOME"], [jsonl.line_of(turn(120 + at, "later", input_tokens=200_000)) for at in range(4)]
    )
    (row,) = [
        each for each in objects(run("tok-coach setup --json", env=NOW, status=None).stdout) if each["kind"] == "verdict"
    ]
    assert (row["key"], row["applied_at"]) == ("promptCacheTtl", "2026-11-10T10:00:00.000Z")
    assert (row["before_turns"], row["before_usd_per_turn"]) == (2, "6.28125")
    assert (row["after_turns"], row["after_usd_per_turn"]) == (4, "1")
    assert "not a proof" in run("tok-coach setup --table", env=NOW, status=None).stdout.decode()
    run("tok-init --undo")
    assert path.read_bytes() == before
    assert not [
        each for each in objects(run("tok-coach setup --json", env=NOW, status=None).stdout) if each["kind"] == "verdict"
    ]


def test_damaged_settings_are_no_reason_to_stop(run: Run, environment: dict[str, str]) -> None:
    path = settings(environment, ".claude/settings.json", {})
    path.write_text('{"model": ')
    advice(run, environment, chain(turn(0, cache_write_tokens=1_000_000), turn(10, cache_write_tokens=1_010_000)))
    said = run("tok-coach setup --apply --yes", env=NOW).stderr.decode()
    assert "nothing was changed" in said and path.read_text() == '{"model": '
