"""Renders what tok-init finds and does as text: what is here, what was changed, and what is left to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tokenops import read_clients, setup_hosts, show
from tokenops.events import Event
from tokenops.setup import MISSING, OTHER, PRESENT

# So many next steps are shown without -v.
STEPS = 3

_STATES = {
    PRESENT: "is set up already",
    OTHER: "is set up differently; it is left as it is",
}


def report(rows: Sequence[Event], home: str, shape: str = "table", color: bool = False) -> str:
    """Everything, in the order in which to do it."""
    return "\n".join([clients_text(rows, home, shape, color), *_rest(rows, home)])


def clients_text(rows: Sequence[Event], home: str, shape: str = "table", color: bool = False) -> str:
    """What is here."""
    return "\n".join([*_clients(rows, home, shape, color), *_plans(rows, shape, color)])


def outcome_text(rows: Sequence[Event], home: str, width: int | None = None) -> str:
    """What was changed, in lines of a width."""
    lines = "".join(_changes(rows, home)).splitlines()
    return "".join(f"{part}\n" for line in lines for part in show.wrap(line, width, "  "))


def left_text(rows: Sequence[Event], home: str) -> str:
    """All that is left to do."""
    return "\n".join(_rest(rows, home))


def steps_text(rows: Sequence[Event], after_questions: bool = False, width: int | None = None) -> str:
    """The first things to do next; why stands above a command if both are wider than a width."""
    steps = list(next_steps(rows, after_questions))[:STEPS]
    most = max(len(text) for text, _ in steps)
    if width is None or all(most + len(why) + 8 <= width for _, why in steps):
        return "Next:\n" + "".join(f"    {text:{most}}  # {why}\n" for text, why in steps)
    return "Next:\n" + "".join(f"    # {why}:\n    {text}\n" for text, why in steps)


def next_steps(rows: Sequence[Event], after_questions: bool = False) -> Iterator[tuple[str, str]]:
    """Commands to run next and why, the most useful first. `after_questions`: about plans and the schedule, too."""
    if not any(row["logs"] for row in _rows_about(rows, "client")):
        yield "tok-init --demo", "no client has written logs here; create sample data to try the commands"
    open_plans = [row for row in _rows_about(rows, "plan") if row["commands"] and "set" not in row]
    likely = [row for row in open_plans if row["confidence"] != "unknown"]
    if after_questions:
        pass
    elif likely:
        yield likely[0]["commands"][0], f"{likely[0]['provider']}'s plan, if it is yours"
    elif open_plans and not any("set" in row for row in _rows_about(rows, "plan")):
        yield "tok-plan catalog", "if you pay for a plan: find its name, then tok-plan set"
    for row in _rows_about(rows, "mcp"):
        if row.get("format") == "shell" and row["state"] == MISSING:
            yield row["text"].strip(), "let Claude Code ask what is left"
    if not after_questions and not any(row["about"] == "cron" and row.get("state") == PRESENT for row in rows):
        yield "tok-init", "import every ten minutes, before clients delete their logs"
    yield "tok-budget", "what is left of your limits"
    yield "tok-dash", "the dashboard"
    yield "tok-status", "what is recorded, and what is missing"


def short(path: str, home: str) -> str:
    """A path with ~ for the home directory."""
    return f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path


def _rows_about(rows: Iterable[Event], subject: str) -> list[Event]:
    return [row for row in rows if row["about"] == subject]


def _clients(rows: Sequence[Event], home: str, shape: str, color: bool) -> Iterator[str]:
    here = _rows_about(rows, "client")
    if here:
        columns = [
            show.Column("found", [row["display"] for row in here], number=False),
            show.Column("where", [", ".join(short(path, home) for path in row["places"]) for row in here], number=False),
            show.Column("logs", ["tok-sync reads them" if row["logs"] else "none here" for row in here], number=False),
        ]
        notes = (f"{row['display']}: {row['note']}" for row in here if "note" in row)
        yield show.table(columns, shape, color=color) + show.notes(notes, shape, False, verbose=True)
    else:
        hosts = ", ".join(host.display for host in setup_hosts.HOSTS)
        count = len({client.client for client in read_clients.CLIENTS if client.homes})
        texts = (
            f"No client was found. Looked for {hosts}, and for the logs of {count} clients (docs/clients.md).",
            "For logs in another directory, run tok-sync --root DIR. For clients without logs and for your own programs, "
            "use tok-proxy.",
            "To prepare a host that is not installed yet, run tok-init --host NAME.",
        )
        yield show.notes(texts, shape, False, verbose=True)
    keys = _rows_about(rows, "key")
    if keys:
        names = ", ".join(f"{row['name']} ({row['provider']})" for row in keys)
        text = f"API keys in the environment: {names}. Use with a key is billed per token; no plan covers it."
        yield show.notes([text], shape, False, verbose=True)


def _plans(rows: Sequence[Event], shape: str, color: bool) -> Iterator[str]:
    here = _rows_about(rows, "plan")
    if here:
        columns = [
            show.Column("provider", [row["provider"] for row in here], number=False),
            show.Column("plan set", [row.get("set", "none") for row in here], number=False),
            show.Column("found", list(map(_plan_text, here)), number=False, prose=True),
            show.Column("according to", ["; ".join(map(_hint_text, row["said"])) for row in here], number=False, prose=True),
        ]
        yield show.table(columns, shape, color=color)


def _plan_text(row: Event) -> str:
    if not row["plans"]:
        return "no plan to set"
    if row["confidence"] == "unknown":
        return "unknown: no file here names it"
    return f"{' or '.join(row['plans'])} ({row['confidence']})"


def _hint_text(hint: Event) -> str:
    return f"{hint['source']}: {hint['says']}"


def _commands(rows: Sequence[Event]) -> Iterator[str]:
    lines = _rows_about(rows, "command")
    if not lines:
        return
    width = max(len(row["text"]) for row in lines)
    parts, last = ["Run:\n"], ""
    for row in lines:
        choice = row.get("choice", "")
        if choice != last:
            parts.append(f"    # {row['why']}:\n" if choice else "    # then:\n")
        parts.append(f"    {row['text']}\n" if choice else f"    {row['text']:{width}}  # {row['why']}\n")
        last = choice
    yield "".join(parts)


def _indent(block: str) -> str:
    return "".join(f"    {line}\n" for line in block.splitlines())


def _block(row: Event, title: str) -> str:
    """One thing to paste, and where; or why not."""
    if row["state"] == PRESENT:
        return f"{title}: {_STATES[PRESENT]}\n"
    note = f" ({row['note']})" if "note" in row else ""
    return f"{title}{note}:\n{_indent(row['text'])}" if "text" in row else f"{title}{note}\n"


def _changes(rows: Sequence[Event], home: str) -> Iterator[str]:
    lines = []
    for row in _rows_about(rows, "change"):
        copy = f" (backup: {short(row['backup'], home)})" if row.get("backup") else ""
        note = f": {row['note']}" if "note" in row else ""
        file = "" if row["file"].endswith(":") else f", {short(row['file'], home)}"
        lines.append(f"{row['state']}: {row['title']}{file}{copy}{note}\n")
    yield "".join(lines) or "There was nothing to change.\n"


def _servers(rows: Sequence[Event], home: str) -> Iterator[str]:
    entries = _rows_about(rows, "mcp")
    if entries:
        blocks = []
        for row in entries:
            file = f", {short(row['file'], home)}" if "file" in row else ""
            blocks.append(_block(row, f"{setup_hosts.BY_NAME[row['host']].display}{file}"))
        yield "To let agents ask what is left (tok-mcp --help):\n\n" + "\n".join(blocks)


def _line(rows: Sequence[Event], home: str) -> Iterator[str]:
    for row in _rows_about(rows, "statusline"):
        yield _block(row, f"Claude Code's status line, which records its limits, {short(row['file'], home)}")


def _rest(rows: Sequence[Event], home: str) -> Iterator[str]:
    yield from (*_commands(rows), *_servers(rows, home), *_line(rows, home))
    for row in _rows_about(rows, "cron"):
        if row.get("state") != PRESENT:
            yield f"Import every ten minutes, before clients delete their logs ({row['note']}):\n{_indent(row['text'])}"
    for row in _rows_about(rows, "proxy"):
        yield f"Use the proxy {row['note']}:\n{_indent(row['text'])}"
    if any(row["about"] == "offer" for row in rows):
        yield "tok-init (without --detect) can make these changes: it shows each one, asks, and can undo it.\n"
