"""What is shipped, what starts fast, and whether the tree is what it says."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest

from conftest import ROOT, Run

COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("tok-*"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Third-party modules that a command may import, and what a plain run of it does import.
ALLOWED = {name: {"orjson"} for name in COMMANDS}
ALLOWED["tok-mcp"] = {"orjson", "mcp"}
THIRD_PARTY = {"orjson", "yaml", "tabulate", "dateutil", "httpx", "mcp", "wcwidth"}
# The order of modules: each imports only from those before it.
LAYERS = [
    "__init__", "when", "jsonl", "events", "datadir", "catalog", "price_names", "price_cards", "pricing", "config", "projects", "read_lines", "workers", "untrusted", "read_sqlite", "read_claude", "read_codex", "work_prompts", "work_language", "work_shell", "work", "work_claude", "work_codex", "read_opencode", "read_kilo", "read_gemini", "read_copilot_otel", "read_copilot", "read_qwen", "read_kimi", "read_pi", "read_openclaw", "read_amp", "read_droid", "read_goose", "read_hermes", "read_cursor", "read_stats_cache", "wire_limits", "read_claude_usage", "read_claude_stream", "read_codex_exec", "read_otel", "read_clients", "readers", "sync_gather", "rollup", "show", "price_tables", "price_snapshot", "price_check", "price_causes", "price_lint", "price_history", "price_files", "price_propose", "price_report", "price_override", "chart_text", "chart_svg", "chart_panels", "costs", "plans", "coverage", "store", "limit_windows", "limit_meters", "limit_forecast", "limit_backtest", "limit_scores", "headroom", "statusline", "reconcile_pairs", "reconcile_vendors", "reconcile", "sync", "sync_follow", "store_summaries", "burn_buckets", "limit_pace", "burn", "burn_chart", "burn_anomalies", "limit_carry", "budgets", "limit_plans", "store_upkeep", "redaction", "coach_transcripts", "coach_averages", "coach", "coach_replies", "explain", "status", "doctor", "scorecard", "trace_steps", "trace_waste", "trace", "coach_models", "coach_report", "tasks", "guard", "jsonc", "guard_install", "etiquette", "credentials", "poll_reports", "poll_codex", "poll_anthropic", "poll_openai", "poll_openrouter", "poll_copilot", "poll_cursor", "https", "poll_sources", "poll", "ship_rows", "ship_outbox", "ship_targets", "ship_clickhouse", "ship_folder", "ship_otlp", "ship", "setup_hosts", "setup_plans", "setup_edits", "setup_changes", "setup", "setup_text", "setup_demo", "manual", "wire_usage", "wire_body", "http1", "proxy_websocket", "proxy_savings", "proxy_exchange", "proxy", "proxy_server", "proxy_routes", "access", "tools", "agent", "dash_html", "dash_query", "dash_sums", "dash_spend", "dash_cache", "dash_view", "dash_headroom", "dash_tables", "dash_charts", "dash_findings", "dash_page", "dash_api", "dash", "cli", "cli_dash",
]  # fmt: skip


def test_every_command_is_shipped() -> None:
    assert PROJECT["tool"]["setuptools"]["script-files"] == [f"bin/{name}" for name in COMMANDS]
    for name in COMMANDS:
        assert os.access(ROOT / "bin" / name, os.X_OK)


def test_a_checkout_finds_the_package_and_the_package_its_data() -> None:
    assert (ROOT / "bin/tokenops").readlink() == pathlib.Path("../lib")
    assert (ROOT / "lib/catalog").readlink() == pathlib.Path("../catalog")


def test_run_time_dependencies_are_the_six() -> None:
    names = sorted(text.split(">")[0] for text in PROJECT["project"]["dependencies"])
    assert names == ["PyYAML", "httpx", "mcp", "orjson", "python-dateutil", "tabulate"]


def test_modules_import_downwards_only() -> None:
    found = {path.stem for path in (ROOT / "lib").glob("*.py")}
    assert found == set(LAYERS)
    for path in (ROOT / "lib").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokenops"):
                names = (
                    [node.module.removeprefix("tokenops.")] if node.module != "tokenops" else [a.name for a in node.names]
                )  # type: ignore[union-attr]
                for name in names:
                    if name in LAYERS:
                        assert LAYERS.index(name) < LAYERS.index(path.stem), f"{path.stem} imports {name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_start_imports(command: str, run: Run) -> None:
    """A run on one line of input; the compiled catalogue is there already."""
    targets = {"tok-rollup": "/dev/null", "tok-cost": "/dev/null", "tok-log": "verify"}
    target = (targets | dict.fromkeys(("tok-proxy", "tok-dash"), "--port 99999")).get(command, "")
    run(f"{command} {target}", status=None)
    done = run(f"{sys.executable} -X importtime {ROOT}/bin/{command} {target}", status=None)
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.decode().splitlines() if "|" in line}
    assert imported & THIRD_PARTY == ALLOWED[command]
    done = run(f"{sys.executable} -X importtime {ROOT}/bin/{command} --help")
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.decode().splitlines() if "|" in line}
    assert "argparse" not in imported


def test_nothing_names_a_place_of_this_machine() -> None:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode().split("\0")
    forbidden = ("/" + "work/", "/" + "farm/", "/" + "root/")
    for name in filter(None, files):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            assert not any(word.encode() in text for word in forbidden), name
