"""The map of lib/: its families from the ground up, and the part of docs/architecture.md that is made from it.

    python tools/house.py           write that part anew
    python tools/house.py --print   print it

tests/test_house.py holds the tree to this map.
"""

from __future__ import annotations

import ast
import functools
import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- made by tools/house.py: begin -->\n", "<!-- made by tools/house.py: end -->\n"


class Family(NamedTuple):
    """A group of modules on one floor of the house.

    `faces` are the modules without the prefix: every family above may import them. `prefixes` name the rooms behind them.
    `doors` are the rooms that other families, or commands, may import as well; the list may only shrink.
    """

    name: str
    about: str
    faces: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    doors: tuple[str, ...] = ()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# From the ground up: a module imports from its own family and from those before it.
FAMILIES = (
    Family(
        "base",
        "time, JSON lines, the record, configuration, and other things that every family needs",
        _words(
            "light when jsonl regular events fields joins machines datadir catalog config show workers programs projects "
            "signing untrusted credentials etiquette https http1 jsonc"
        ),
        ("show_",),
    ),
    Family(
        "wire",
        "what the bytes of vendors' answers mean",
        (),
        ("wire_",),
        _words("wire_body wire_claude wire_limits wire_parts wire_usage"),
    ),
    Family(
        "price",
        "the catalogue of prices: reading, checking and editing it",
        ("pricing",),
        ("price_",),
        _words(
            "price_fetch price_files price_history price_installed price_names price_override price_propose price_report "
            "price_snapshot price_tables price_update"
        ),
    ),
    Family(
        "sum",
        "adding up, pricing and comparing with plans",
        _words("rollup costs plans coverage"),
        ("rollup_", "plans_"),
        ("plans_dated",),
    ),
    Family(
        "store",
        "the log on disk",
        ("store",),
        ("store_",),
        _words(
            "store_cursors store_days store_forget store_parts store_public store_rules store_salt store_sessions "
            "store_summaries store_upkeep store_waiting"
        ),
    ),
    Family(
        "work",
        "what agents did, as counts per prompt",
        ("work",),
        ("work_",),
        _words("work_language work_prompts"),
    ),
    Family(
        "read",
        "one reader per client: its files to events",
        ("readers",),
        ("read_",),
        _words("read_acp read_claude_turns read_clients read_contract read_lines read_records read_sqlite"),
    ),
    Family(
        "sync",
        "what is new in the clients' files, into the log",
        ("sync",),
        ("sync_",),
        _words("sync_follow sync_gather sync_origin"),
    ),
    Family(
        "pull",
        "what is new on other machines, into the log, and this machine's part to others",
        ("pull",),
        ("pull_",),
        ("pull_sources",),
    ),
    Family("chart", "charts as text and as SVG", (), ("chart_",), _words("chart_panels chart_svg chart_text")),
    Family(
        "limit",
        "how much of a limit is left, and what to do",
        _words("headroom budgets statusline"),
        ("limit_",),
        _words(
            "limit_ahead limit_backtest limit_budget limit_fit limit_forecast limit_log limit_next limit_notice limit_pace "
            "limit_percent limit_plans limit_runs limit_scores limit_view limit_wait"
        )
        + _words("limit_windows"),
    ),
    Family(
        "report",
        "spending per hour, and our figures beside others'",
        _words("burn reconcile"),
        ("burn_", "reconcile_"),
        _words("burn_anomalies burn_buckets burn_chart reconcile_pairs"),
    ),
    Family(
        "coach",
        "sessions turn by turn, what filled their context, waste, habits, tasks, scores and hooks",
        _words("coach context trace scorecard tasks guard"),
        ("coach_", "context_", "trace_", "tasks_", "guard_"),
        _words(
            "coach_averages coach_models coach_report coach_setup coach_transcripts context_breaks context_costs "
            "context_report context_wire guard_install guard_sums guard_watch tasks_commits tasks_git trace_waste"
        ),
    ),
    Family(
        "run",
        "running agents, and resuming them after a limit",
        (),
        ("run_",),
        _words("run_agents run_logs run_rules"),
    ),
    Family("poll", "asking vendors for their own meters", ("poll",), ("poll_",), _words("poll_sources")),
    Family(
        "proxy",
        "the passthrough proxy",
        ("proxy",),
        ("proxy_",),
        _words("proxy_parts proxy_routes proxy_savings proxy_server"),
    ),
    Family(
        "ship",
        "sending events to other engines",
        ("ship",),
        ("ship_",),
        _words("ship_folder ship_outbox ship_rows ship_targets"),
    ),
    Family(
        "setup",
        "what is on this machine, and setting it up",
        ("setup",),
        ("setup_",),
        _words("setup_changes setup_demo setup_hosts setup_questions setup_report setup_schedule setup_texts"),
    ),
    Family(
        "serve",
        "one answer per question, for commands, agents and pages",
        _words("session answers tools agent doctor status explain access"),
        ("answers_", "tools_"),
        _words("answers_absence answers_context answers_plans answers_standing answers_work"),
    ),
    Family("dash", "the dashboard", ("dash",), ("dash_",), ()),
    Family(
        "edge",
        "the process: arguments, exit status, signals, manuals",
        _words("cli manual"),
        ("cli_",),
        _words("cli_acp cli_dash cli_guard cli_log cli_run cli_standing cli_wait cli_words"),
    ),
    Family("live", "tok-top's screen", (), ("live_",), _words("live_screen live_sessions live_terminal")),
)
FLOOR = {family.name: at for at, family in enumerate(FAMILIES)}


def family_of(module: str) -> Family | None:
    """The family of a module: by face, else by prefix. None where it has none."""
    for family in FAMILIES:
        if module in family.faces:
            return family
    for family in FAMILIES:
        if any(module.startswith(prefix) for prefix in family.prefixes):
            return family
    return None


def modules() -> list[str]:
    """The modules of lib/, in order of name."""
    return sorted(path.stem for path in (ROOT / "lib").glob("*.py") if path.stem != "__init__")


@functools.cache
def nodes(path: pathlib.Path) -> tuple[ast.AST, ...]:
    """All nodes of a file of Python, its module first."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    """The modules of lib/ that a file imports anywhere in it, each with its line."""
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module == "tokenops":
            for alias in node.names:
                if not alias.name.startswith("__"):
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokenops."):
            yield str(node.module).split(".")[1], node.lineno


def first_sentence(module: str) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    tree = nodes(ROOT / f"lib/{module}.py")[0]
    text = (ast.get_docstring(tree) if isinstance(tree, ast.Module) else None) or ""
    return " ".join(text.split("\n\n", maxsplit=1)[0].split()).split(". ")[0].rstrip(".")


def picture() -> str:
    """The families as floors, the highest first."""
    width = max(len(family.name) for family in FAMILIES)
    lines = []
    for family in reversed(FAMILIES):
        rooms = [module for module in modules() if family_of(module) is family and module not in family.faces]
        faces = " ".join(family.faces) or "-"
        lines.append(f"    {family.name:{width}}  {faces}" + (f"  + {len(rooms)} behind" if rooms else ""))
    return "\n".join(lines) + "\n"


def page() -> str:
    """The generated part of docs/architecture.md."""
    parts = [BEGIN, "\n", picture(), "\n"]
    for family in FAMILIES:
        own = [module for module in modules() if family_of(module) is family]
        parts += [f"### {family.name}: {family.about}\n\n", "| module | what it does |\n|---|---|\n"]
        for module in [*(name for name in family.faces if name in own), *(name for name in own if name not in family.faces)]:
            mark, sentence = "**" if module in family.faces else "", first_sentence(module).replace("|", "\\|")
            parts.append(f"| {mark}`{module}`{mark} | {sentence} |\n")
        parts.append("\n")
    return "".join(parts) + END


def main() -> int:
    """Write the part, or print it."""
    if "--print" in sys.argv[1:]:
        sys.stdout.write(page())
        return 0
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + page() + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
