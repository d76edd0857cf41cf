"""What tok-init finds and says: right and complete on any machine, never a secret, and every line of it works."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import sqlite3
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from homes import Home

from conftest import ROOT, Json, Run, claude, objects, put
from tokenops import config, setup, setup_hosts, setup_plans, setup_report, when

NOW = when.moment("2026-11-22T08:00:00Z")
ENV = {"TOKENOPS_NOW": "2026-11-22T08:00:00Z"}
SECRET = "SENTINEL-9f8e7d6c5b4a3f2e1d0c9b8a7f6e5d4c"


@pytest.fixture
def home(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"])


def system(
    home: pathlib.Path, platform: str = "linux", windows: tuple[str, ...] = (), **environment: str
) -> setup_hosts.System:
    return setup_hosts.System(str(home), environment, platform, windows, "/opt/tok/bin")


def about(rows: list[Json], what: str) -> list[Json]:
    return [row for row in rows if row["about"] == what]


def detected(run: Run, options: str = "", **env: str) -> list[Json]:
    return objects(run(f"tok-init --detect --json {options}", env=ENV | env).stdout)


def checked(row: Json) -> Any:
    """What a snippet says to its host; a shell's and a crontab's only has to be understood."""
    text = row["text"]
    if row["format"] == "json":
        return json.loads(text)
    if row["format"] == "toml":
        return tomllib.loads(text)
    lines = text.splitlines()
    if row["format"] == "crontab":
        assert all(re.match(r"(\*/\d+ \*|\* \*) \* \* \*  \S", line) for line in lines)
        text = "\n".join(line.split("  ", 1)[1] for line in lines)
    subprocess.run(["sh", "-n"], input=text.encode(), check=True)
    return lines


def test_an_empty_home(run: Run, home: pathlib.Path, environment: dict[str, str]) -> None:
    rows = detected(run)
    assert not about(rows, "client") and not about(rows, "plan") and not about(rows, "mcp")
    assert [row["text"] for row in about(rows, "command")] == ["tok-init --demo", "tok-status"]
    for row in about(rows, "cron") + about(rows, "proxy"):
        checked(row)
    shown = run("tok-init --detect --table", env=ENV).stdout.decode()
    assert "No client was found. Looked for Claude Code, Claude Desktop, Codex" in shown
    assert "tok-sync --root DIR" in shown and "tok-init --demo" in shown and "offers" not in shown
    assert not list(home.iterdir()) and not pathlib.Path(environment["TOKENOPS_HOME"]).exists()


def test_a_home_that_was_worked_in(run: Run, tmp_path: pathlib.Path, weeks: Home) -> None:
    env = {
        "HOME": str(weeks.root),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    rows = detected(run, **env)
    assert {row["client"]: bool(row["logs"]) for row in about(rows, "client")} == dict.fromkeys(
        ("claude-code", "codex", "gemini-cli", "copilot-cli"), True
    )
    plans = {row["provider"]: row for row in about(rows, "plan")}
    assert set(plans) == {"anthropic", "openai", "github", "gemini"}
    assert (plans["openai"]["confidence"], plans["openai"]["plans"]) == ("likely", ["gpt-pro"])
    assert (
        plans["anthropic"]["confidence"] == "unknown"
        and "tok-plan set anthropic claude-pro" in plans["anthropic"]["commands"]
    )
    assert {row["host"] for row in about(rows, "mcp")} == {"claude-code", "codex", "gemini-cli", "copilot-cli"}
    assert len(about(rows, "statusline")) == 1
    for row in rows:
        if "format" in row:
            checked(row)
    commands = [row["text"] for row in about(rows, "command")]
    assert commands[-4:] == ["tok-sync", "tok-cost --log", "tok-budget", "tok-status"]
    for line in commands:
        done = run(line, env=ENV | env, status=None)
        assert done.returncode != 2 and b"Traceback" not in done.stderr, (line, done.stderr)
    assert {row["provider"]: row["set"] for row in about(detected(run, **env), "plan")}["openai"] == "gpt-pro"


@pytest.mark.parametrize("name", list(setup_hosts.BY_NAME))
def test_every_host_on_request(name: str, run: Run) -> None:
    rows = detected(run, f"--host {name}")
    given = about(rows, "mcp")
    assert given and all(row["host"] == name for row in given)
    for row in given:
        if "text" not in row:
            assert name in ("chatgpt", "copilot-vscode") and row["note"]
        elif row["format"] == "shell":
            assert checked(row)[0] == f"claude mcp add --scope user tokenops -- {ROOT}/bin/tok-mcp"
        else:
            found = checked(row)
            section = {"codex": "mcp_servers", "opencode": "mcp", "vscode": "servers"}.get(name, "mcpServers")
            command = found[section]["tokenops"]["command"]
            assert command in (f"{ROOT}/bin/tok-mcp", [f"{ROOT}/bin/tok-mcp"], "tok-mcp")


def test_the_manual_names_every_host(run: Run) -> None:
    manual = run("tok-init --help").stdout.decode()
    listed = re.search(r"--host NAME +(.*?):", manual, re.DOTALL)
    assert listed and listed[1].replace("\n", " ").split() == [
        *(f"{name}," for name in list(setup_hosts.BY_NAME)[:-1]),
        "vscode",
    ]
    assert b"invalid choice" in run("tok-init --host emacs", status=2).stderr


def folders(home: pathlib.Path, *names: str) -> None:
    for name in names:
        (home / name).mkdir(parents=True)


def test_where_things_lie_on_each_system(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    mac, linux, windows = tmp_path / "mac", tmp_path / "linux", tmp_path / "c" / "Users" / "ada"
    folders(
        mac,
        "Library/Application Support/Claude",
        "Library/Application Support/Code/User",
        "Library/Application Support/com.openai.chat",
    )
    folders(linux, ".config/Claude", ".config/Code - Insiders/User/globalStorage/github.copilot-chat", ".gemini/antigravity")
    folders(windows, "AppData/Roaming/Claude")

    def files(this: setup_hosts.System) -> dict[str, str]:
        return {host.name: setup_hosts.config_file(host, this) for host in setup.selected_hosts(this, ())}

    support = f"{mac}/Library/Application Support"
    assert files(system(mac, "darwin")) == {
        "claude-desktop": f"{support}/Claude/claude_desktop_config.json", "chatgpt": "", "vscode": f"{support}/Code/User/mcp.json"
    }  # fmt: skip
    # A folder of Antigravity's is no Gemini CLI.
    assert files(system(linux)) == {
        "claude-desktop": f"{linux}/.config/Claude/claude_desktop_config.json",
        "copilot-vscode": "",
        "vscode": f"{linux}/.config/Code - Insiders/User/mcp.json",
    }
    here = system(home, "linux", (str(windows),), WSL_DISTRO_NAME="Debian")
    path = f"{windows}/AppData/Roaming/Claude/claude_desktop_config.json"
    assert files(here) == {"claude-desktop": path}
    desktop = setup_hosts.BY_NAME["claude-desktop"]
    assert setup_hosts.entry(desktop, here, path) == {
        "command": "wsl.exe", "args": ["-d", "Debian", "--exec", "/opt/tok/bin/tok-mcp"]
    }  # fmt: skip
    assert (
        setup_hosts.config_file(desktop, system(home, "darwin"))
        == f"{home}/Library/Application Support/Claude/claude_desktop_config.json"
    )
    assert setup_hosts.config_file(desktop, system(home)) == f"{home}/.config/Claude/claude_desktop_config.json"


def test_variables_name_other_places(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folders(tmp_path, "codex", "gem/.gemini/tmp", "conf/opencode", "claude")
    this = system(
        home, CODEX_HOME=f"{tmp_path}/codex", GEMINI_CLI_HOME=f"{tmp_path}/gem", XDG_CONFIG_HOME=f"{tmp_path}/conf",
        CLAUDE_CONFIG_DIR=f"{tmp_path}/claude",
    )  # fmt: skip
    assert [host.name for host in setup.selected_hosts(this, ())] == ["claude-code", "codex", "opencode", "gemini-cli"]
    assert setup_hosts.config_file(setup_hosts.BY_NAME["codex"], this) == f"{tmp_path}/codex/config.toml"
    assert setup_hosts.config_file(setup_hosts.BY_NAME["gemini-cli"], this) == f"{tmp_path}/gem/.gemini/settings.json"
    assert setup.status_line(this)[0]["file"] == f"{tmp_path}/claude/settings.json"


def test_a_program_that_never_ran(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "bin/opencode", b"#!/bin/sh\n").chmod(0o755)
    [row] = [row for row in setup.clients_here(system(home, PATH=f"{tmp_path}/bin")) if row["about"] == "client"]
    assert (row["display"], row["places"], row["logs"]) == ("opencode", [f"{tmp_path}/bin/opencode"], [])


# What the clients' files say of plans.


def account(**given: str) -> Json:
    return {"oauthAccount": {"emailAddress": f"{SECRET}@example.org", **given}}


def token(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJh.{payload}.{SECRET}"


AUTH = "https://api.openai.com/auth"


def rollout(plan: str, at: str = "2026-11-20T10:00:00.000Z") -> Json:
    limits = {"plan_type": plan, "primary": {"used_percent": 3.0}}
    return {"timestamp": at, "type": "event_msg", "payload": {"type": "token_count", "info": None, "rate_limits": limits}}


ROLLOUT = ".codex/sessions/2026/11/20/rollout-2026-11-20T10-00-00-a.jsonl"
OLD = ".codex/sessions/2026/08/01/rollout-2026-08-01T10-00-00-a.jsonl"
CREDENTIALS = ".claude/.credentials.json"


@pytest.mark.parametrize(
    ("files", "provider", "confidence", "plans"),
    [
        ({".claude.json": account(organizationType="claude_max", organizationRateLimitTier="default_claude_max_20x")}, "anthropic", "exact", ["claude-max-20x"]),
        ({".claude.json": account(organizationType="claude_max", organizationRateLimitTier="default_claude_max_5x")}, "anthropic", "exact", ["claude-max-5x"]),
        ({".claude.json": account(organizationRateLimitTier="v2_default_claude_max_20x")}, "anthropic", "exact", ["claude-max-20x"]),
        # A personal tier inside of a team is the team's plan.
        ({".claude.json": account(organizationType="claude_team", userRateLimitTier="default_claude_max_5x")}, "anthropic", "exact", ["claude-team"]),
        ({".claude.json": account(organizationType="claude_pro", organizationRateLimitTier="default_claude_ai")}, "anthropic", "exact", ["claude-pro"]),
        ({".claude.json": account(organizationType="claude_enterprise")}, "anthropic", "exact", ["claude-enterprise"]),
        ({".claude.json": account(organizationType="claude_free")}, "anthropic", "exact", []),
        # Max of an unknown size, a tier that free and paid accounts share, words that nobody knows: unknown, all are offered.
        ({".claude.json": account(organizationType="claude_max")}, "anthropic", "unknown", None),
        ({".claude.json": account(organizationRateLimitTier="default_claude_ai")}, "anthropic", "unknown", None),
        ({".claude.json": account(organizationType="claude_galaxy", organizationRateLimitTier="default_claude_max_20x")}, "anthropic", "unknown", None),
        ({CREDENTIALS: {"claudeAiOauth": {"accessToken": SECRET, "subscriptionType": "pro", "rateLimitTier": "default_claude_ai"}}}, "anthropic", "exact", ["claude-pro"]),
        # Two files that disagree: one of them is old.
        ({".claude.json": account(organizationType="claude_pro"), CREDENTIALS: {"claudeAiOauth": {"subscriptionType": "max", "rateLimitTier": "default_claude_max_5x"}}},
         "anthropic", "likely", ["claude-pro", "claude-max-5x"]),
        ({".claude.json": b"{torn", ".claude/projects/-a/s.jsonl": claude()}, "anthropic", "unknown", None),
        ({ROLLOUT: rollout("plus")}, "openai", "exact", ["gpt-plus"]),
        ({ROLLOUT: rollout("prolite")}, "openai", "exact", ["gpt-pro-5x"]),
        ({ROLLOUT: rollout("pro"), OLD: rollout("plus", "2026-08-01T10:00:00Z")}, "openai", "exact", ["gpt-pro"]),
        ({OLD: rollout("plus", "2026-08-01T10:00:00Z")}, "openai", "likely", ["gpt-plus"]),
        ({ROLLOUT: rollout("free")}, "openai", "exact", []),
        ({ROLLOUT: rollout("quorum")}, "openai", "unknown", None),
        ({".codex/auth.json": {"auth_mode": "chatgpt", "tokens": {"id_token": token(**{AUTH: {"chatgpt_plan_type": "plus"}}, email=SECRET), "access_token": SECRET}}},
         "openai", "likely", ["gpt-plus"]),
        ({".codex/auth.json": {"auth_mode": "apikey", "OPENAI_API_KEY": SECRET}}, "openai", "exact", []),
        ({".codex/auth.json": {"tokens": {"id_token": "a.b.c"}}}, "openai", "unknown", None),
        ({".gemini/settings.json": {"security": {"auth": {"selectedType": "gemini-api-key"}}}}, "gemini", "exact", []),
        ({".gemini/settings.json": {"security": {"auth": {"selectedType": "oauth-personal"}}}}, "gemini", "unknown", ["gemini-standard", "gemini-enterprise"]),
        ({".local/share/opencode/auth.json": {"openai": {"type": "oauth", "access": SECRET}}}, "openai", "unknown", None),
    ],
)  # fmt: skip
def test_what_files_say_of_plans(
    files: dict[str, Json | bytes], provider: str, confidence: str, plans: list[str] | None, home: pathlib.Path
) -> None:
    for name, content in files.items():
        put(home / name, content)
    row = plan_rows(home)[provider]
    assert row["confidence"] == confidence
    assert row["plans"] == plans if plans is not None else len(row["plans"]) > 2
    assert row["commands"] == [f"tok-plan set {provider} {name}" for name in row["plans"]]
    assert SECRET not in repr(row)


def plan_rows(home: pathlib.Path, given: str = "") -> dict[str, Json]:
    this = system(home)
    found = config.Config({"plans": {"anthropic": given}} if given else {}, "config.yaml", [])
    return {row["provider"]: row for row in setup.plans_here(this, found, list(setup.clients_here(this)), NOW)}


def test_what_is_set_already(home: pathlib.Path) -> None:
    put(home / ".claude.json", account(organizationType="claude_pro"))
    put(home / ".claude/projects/-a/s.jsonl", claude())
    assert plan_rows(home, "claude-pro")["anthropic"]["commands"] == []
    row = plan_rows(home, "claude-max-5x")["anthropic"]
    assert (row["set"], row["commands"]) == ("claude-max-5x", ["tok-plan set anthropic claude-pro"])
    [command] = [one for one in setup.commands([row]) if one["text"].startswith("tok-plan")]
    assert command["why"].startswith("only if anthropic's plan is no longer claude-max-5x")
    assert not list(setup.plan_changes([row], config.Config({}, "config.yaml", []), "2026-11-22"))
    (home / ".claude.json").unlink()
    assert plan_rows(home, "claude-team")["anthropic"]["commands"] == []


def membership(home: pathlib.Path, value: str | bytes) -> None:
    path = home / ".config/Cursor/User/globalStorage/state.vscdb"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE ItemTable (key TEXT UNIQUE, value BLOB)")
        rows = [
            ("cursorAuth/accessToken", SECRET),
            ("cursorAuth/stripeMembershipType", value),
            ("cursorAuth/cachedEmail", SECRET),
        ]
        database.executemany("INSERT INTO ItemTable VALUES (?, ?)", rows)
    database.close()


@pytest.mark.parametrize(
    ("value", "plans"), [("pro", ["cursor-pro"]), (b'"pro_plus"', ["cursor-pro-plus"]), ("free_trial", None)]
)
def test_cursor_is_only_ever_likely(value: str | bytes, plans: list[str] | None, home: pathlib.Path) -> None:
    membership(home, value)
    row = plan_rows(home)["cursor"]
    assert row["confidence"] == ("likely" if plans else "unknown") and (row["plans"] == plans or len(row["plans"]) == 5)
    assert SECRET not in repr(row)


def test_a_damaged_state_of_cursor_is_no_hint(home: pathlib.Path) -> None:
    put(home / ".config/Cursor/User/globalStorage/state.vscdb", b"SQLite format 3\0 and then nonsense")
    assert plan_rows(home)["cursor"]["said"] == []


def test_the_newest_rollout_counts_whatever_its_file_is_called(home: pathlib.Path) -> None:
    put(home / ROLLOUT, rollout("plus"))
    put(
        home / OLD,
        rollout("plus", "2026-08-01T10:00:00Z"),
        b"x" * 2_000_000 + b"\n",
        rollout("pro", "2026-11-21T10:00:00Z"),
        b'{"plan_type":"torn',
    )
    assert [hint.plan for hint in setup_plans.codex(system(home), NOW)] == ["gpt-pro"]


# Names of keys, never their values.


def test_keys_by_name_only(run: Run) -> None:
    rows = detected(run, OPENAI_API_KEY=SECRET, AWS_BEARER_TOKEN_BEDROCK=SECRET, GEMINI_API_KEY="")
    assert [(row["provider"], row["name"]) for row in about(rows, "key")] == [
        ("openai", "OPENAI_API_KEY"),
        ("gemini", "GEMINI_API_KEY"),
        ("bedrock", "AWS_BEARER_TOKEN_BEDROCK"),
    ]
    shown = run("tok-init --detect --table", env=ENV | {"OPENAI_API_KEY": SECRET}).stdout.decode()
    assert "OPENAI_API_KEY (openai)" in shown and SECRET not in shown


def secrets(home: pathlib.Path) -> None:
    """A home in which a secret stands wherever one may."""
    put(
        home / ".claude.json",
        account(organizationType="claude_pro") | {"mcpServers": {"x": {"env": {"K": SECRET}}}, "primaryApiKey": SECRET},
    )
    put(home / CREDENTIALS, {"claudeAiOauth": {"accessToken": SECRET, "refreshToken": SECRET, "subscriptionType": "pro"}})
    line = {"type": "command", "command": f"curl -H 'Authorization: Bearer {SECRET}' http://x"}
    put(
        home / ".claude/settings.json",
        json.dumps({"env": {"ANTHROPIC_API_KEY": SECRET}, "statusLine": line}, indent=1).encode(),
    )
    put(
        home / ".codex/auth.json",
        {"OPENAI_API_KEY": SECRET, "tokens": {"id_token": token(email=SECRET), "refresh_token": SECRET}},
    )
    put(home / ".codex/config.toml", f'api_key = "{SECRET}"\n# {SECRET}\n[mcp_servers.x]\nenv = {{K = "{SECRET}"}}'.encode())
    put(
        home / ".cursor/mcp.json",
        b"{\n  // " + SECRET.encode() + b'\n  "mcpServers": {"x": {"env": {"K": "' + SECRET.encode() + b'"}}}\n}',
    )
    put(home / ".gemini/settings.json", {"apiKey": SECRET, "list": [SECRET]})
    put(home / ".local/share/opencode/auth.json", {"openai": {"type": "api", "key": SECRET}, SECRET: {"type": "oauth"}})
    put(home / ".config/opencode/opencode.json", f'{{"provider": {{"x": {{"apiKey": "{SECRET}"}}}}, torn'.encode())
    put(home / ".config/tokenops/config.yaml", f"vendor_usage: # {SECRET}\n  openrouter:\n    api_key: {SECRET}".encode())
    membership(home, "pro")


def test_no_secret_is_shown_or_kept(run: Run, home: pathlib.Path, environment: dict[str, str]) -> None:
    secrets(home)
    env = ENV | {"OPENAI_API_KEY": SECRET, "ANTHROPIC_API_KEY": SECRET}
    seen = b""
    for line in (
        "--detect --json",
        "--detect --table",
        "--yes --table",
        "--yes --json",
        "--undo --json",
        "--yes --json",
        "--undo --table",
    ):
        done = run(f"tok-init {line}", env=env, status=None)
        assert done.returncode in (0, 1) and b"Traceback" not in done.stderr
        seen += done.stdout + done.stderr
    assert b"claude-pro" in seen and b"[secret]" in seen and b"so it is not shown" in seen
    assert SECRET.encode() not in seen and SECRET[:20].encode() not in seen
    run("tok-init --yes", env=env, status=None)
    kept = b"".join(path.read_bytes() for path in pathlib.Path(environment["TOKENOPS_HOME"]).rglob("*") if path.is_file())
    assert b"statusLine" in kept and SECRET.encode() not in kept


# What stands there already.


def servers(home: pathlib.Path, **more: Any) -> Iterator[tuple[Json, Any]]:
    return setup.servers(system(home, **more), ())


@pytest.mark.parametrize(
    ("name", "content", "state"),
    [
        (".cursor/mcp.json", {"mcpServers": {"tokenops": {"command": "/opt/tok/bin/tok-mcp"}}}, "present"),
        (".cursor/mcp.json", {"mcpServers": {"mine": {"command": "/else/tok-mcp", "args": ["--tools", "all"]}}}, "present"),
        (".cursor/mcp.json", {"mcpServers": {"mine": {"command": "uvx", "args": ["x", "tok-mcp"]}}}, "present"),
        (".cursor/mcp.json", {"mcpServers": {"tokenops": {"command": "/opt/tok/bin/tok-mcp", "args": ["--tools", "all"]}}}, "other"),
        (".cursor/mcp.json", {"mcpServers": {"other": {"url": "http://x"}, "odd": 7}}, "missing"),
        (".cursor/mcp.json", b'{"mcpServers": {', "refused"),
        (".codex/config.toml", b'[mcp_servers.tokenops]\ncommand = "/opt/tok/bin/tok-mcp"\n', "present"),
        (".codex/config.toml", b"[mcp_servers", "refused"),
        (".config/opencode/opencode.jsonc", b'{"mcp": {"tok": {"command": ["x/tok-mcp"]}}}', "present"),
        (".config/opencode/opencode.json", b'{"mcp": {"servers": {"tok": {"command": ["x/tok-mcp"]}}}}', "present"),
        (".gemini/settings.json", b"", "missing"),
    ],
)  # fmt: skip
def test_states(name: str, content: Json | bytes, state: str, home: pathlib.Path) -> None:
    put(home / name, content)
    [(row, change)] = list(servers(home))
    assert row["state"] == state and (change is None) == (state != "missing")
    assert ("note" in row) == (state in ("other", "refused"))
    if state == "refused":
        assert (
            row["note"].startswith("it is not valid ")
            and "correct it, or paste this by hand" in row["note"]
            and "text" in row
        )


def test_opencode_in_both_its_forms(home: pathlib.Path) -> None:
    put(home / ".config/opencode/opencode.json", {"mcp": {"servers": {}}})
    [(row, change)] = list(servers(home))
    assert (
        change.keys == ("mcp", "servers", "tokenops")
        and json.loads(row["text"])["mcp"]["servers"]["tokenops"]["type"] == "local"
    )
    put(
        home / ".config/opencode/opencode.jsonc",
        {"mcp": {"servers": {"type": "local", "command": ["a server of that name"]}}},
    )
    [(row, change)] = list(servers(home))
    assert change.keys == ("mcp", "tokenops") and row["file"].endswith("opencode.jsonc")


def test_claude_code_keeps_its_own_list(home: pathlib.Path) -> None:
    put(home / ".claude.json", {"mcpServers": {"t": {"command": "/x/tok-mcp"}}})
    (home / ".claude").mkdir()
    rows = [row for row, change in servers(home) if change is None]
    assert [row["state"] for row in rows] == ["present", "present"]


@pytest.mark.parametrize(
    ("content", "state", "value"),
    [
        (None, "missing", {"type": "command", "command": "/opt/tok/bin/tok-statusline"}),
        (b"{}", "missing", {"type": "command", "command": "/opt/tok/bin/tok-statusline"}),
        ({"statusLine": {"type": "command", "command": "~/line.sh 'a'"}}, "missing", "/opt/tok/bin/tok-statusline --wrap '~/line.sh '\"'\"'a'\"'\"''"),
        ({"statusLine": {"type": "command", "command": "x/tok-statusline --format '{model}'"}}, "present", None),
        ({"statusLine": "x"}, "refused", None),
        (b"{", "refused", None),
    ],
)  # fmt: skip
def test_the_status_line(content: Json | bytes | None, state: str, value: object, home: pathlib.Path) -> None:
    (home / ".claude").mkdir()
    if content is not None:
        put(home / ".claude/settings.json", content)
    row, change = setup.status_line(system(home))
    assert row["state"] == state and (change.value if change else None) == value
    assert "tok-statusline" in json.loads(row["text"])["statusLine"]["command"]


def test_odd_paths_are_quoted(home: pathlib.Path) -> None:
    (home / ".claude").mkdir()
    this = setup_hosts.System(str(home), {}, "linux", (), "/opt/my 100% tools")
    row = setup.schedule(this, config.Config({"vendor_usage": {"codex": {"enabled": True}}}, "", []))
    assert row["text"].splitlines() == [
        "*/10 * * * *  '/opt/my 100\\% tools/tok-sync' >/dev/null",
        "*/5 * * * *  '/opt/my 100\\% tools/tok-poll' >/dev/null",
    ]
    for given in (row, setup.proxies(this, ()), *(one for one, _ in setup.servers(this, ())), setup.status_line(this)[0]):
        checked(given)
    assert setup.status_line(this)[1].value["command"] == "'/opt/my 100% tools/tok-statusline'"


def test_cron_asks_vendors_only_where_somebody_enabled_it() -> None:
    for given in ({}, {"vendor_usage": {"codex": {"enabled": False}, "opencode": {"enabled": True}, "cursor": 7}}):
        assert "tok-poll" not in setup.schedule(system(pathlib.Path("/h")), config.Config(given, "", []))["text"]


def test_without_a_terminal_it_only_tells(run: Run, home: pathlib.Path) -> None:
    put(home / ".claude.json", account(organizationType="claude_pro"))
    (home / ".cursor").mkdir()
    before = sorted(home.rglob("*"))
    done = run("tok-init", env=ENV)
    assert (
        done.stderr
        == b"tok-init: nothing was written: no terminal to ask at; --yes or --all writes, --dry-run shows the changes\n"
    )
    assert {row["about"] for row in objects(done.stdout)} >= {"client", "plan", "mcp", "offer"}
    assert sorted(home.rglob("*")) == before
    assert run("tok-init --detect", env=ENV).stderr == b""


def test_what_was_just_answered_is_no_next_step_and_long_lines_are_broken() -> None:
    plan = {"about": "plan", "provider": "openai", "commands": ["tok-plan set openai gpt-pro"], "confidence": "likely"}
    rows = [{"about": "client", "logs": True}, plan]
    assert "tok-plan set openai gpt-pro" in setup_report.steps_text(rows)
    assert "tok-plan" not in setup_report.steps_text(
        rows, after_questions=True
    ) and "tok-init" not in setup_report.steps_text(rows, True)
    wide, narrow = (setup_report.steps_text(rows, width=width) for width in (200, 60))
    assert "# openai's plan, if it is yours\n" in wide and max(map(len, narrow.splitlines())) <= 68
    assert "    # openai's plan, if it is yours:\n    tok-plan set openai gpt-pro\n" in narrow
