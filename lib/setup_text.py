"""The rows of tok-init for people: what was found, what to run, what to paste where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tokenops import read_clients, setup, setup_hosts, show
from tokenops.events import Event

_STATES = {
    setup.PRESENT: "is there already",
    setup.OTHER: "is there already, and is another one: it is left alone",
}


def text(rows: Sequence[Event], home: str, shape: str = "table", color: bool = False) -> str:
    """Everything, in the order in which one would do it."""
    return "\n".join([found(rows, home, shape, color), *_rest(rows, home)])


def found(rows: Sequence[Event], home: str, shape: str = "table", color: bool = False) -> str:
    """What is here."""
    return "\n".join([*_found(rows, home, shape, color), *_plans(rows, shape, color)])


def left(rows: Sequence[Event], home: str) -> str:
    """What became of the changes, and what is left to do."""
    return "\n".join([*_changes(rows, home), *_rest(rows, home)])


def short(path: str, home: str) -> str:
    """A path as people write it."""
    return f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path


def _of(rows: Iterable[Event], about: str) -> list[Event]:
    return [row for row in rows if row["about"] == about]


def _found(rows: Sequence[Event], home: str, shape: str, color: bool) -> Iterator[str]:
    here = _of(rows, "client")
    if here:
        columns = [
            show.Column("found", [row["display"] for row in here], number=False),
            show.Column("where", [", ".join(short(path, home) for path in row["places"]) for row in here], number=False),
            show.Column("logs", ["tok-sync reads them" if row["logs"] else "none here" for row in here], number=False),
        ]
        notes = "".join(f"{row['display']}: {row['note']}\n" for row in here if "note" in row)
        yield show.table(columns, shape, color=color) + notes
    else:
        looked = ", ".join(host.display for host in setup_hosts.HOSTS)
        count = len({client.client for client in read_clients.CLIENTS if client.homes})
        yield (
            f"No client was found. Looked for {looked}, and for the logs of {count} clients (docs/clients.md).\n\n"
            "Logs that lie elsewhere: tok-sync --root DIR. What keeps no logs, and programs of your own: tok-proxy.\n"
            "What a host that is still to come will want: tok-init --host NAME.\n"
        )
    keys = _of(rows, "key")
    if keys:
        names = ", ".join(f"{row['name']} ({row['provider']})" for row in keys)
        yield f"API keys in the environment: {names}. What runs on a key is billed per token; no plan covers it.\n"


def _plans(rows: Sequence[Event], shape: str, color: bool) -> Iterator[str]:
    here = _of(rows, "plan")
    if here:
        columns = [
            show.Column("provider", [row["provider"] for row in here], number=False),
            show.Column("plan set", [row.get("set", "none") for row in here], number=False),
            show.Column("found", [_known(row) for row in here], number=False),
            show.Column("according to", ["; ".join(map(_said, row["said"])) for row in here], number=False),
        ]
        yield show.table(columns, shape, color=color)


def _known(row: Event) -> str:
    if not row["plans"]:
        return "no plan to set"
    named = " or ".join(row["plans"]) if row["confidence"] != "unknown" else "unknown: no file here names it"
    return f"{named} ({row['confidence']})" if row["confidence"] != "unknown" else named


def _said(one: Event) -> str:
    return f"{one['source']}: {one['says']}"


def _commands(rows: Sequence[Event]) -> Iterator[str]:
    lines = _of(rows, "command")
    if not lines:
        return
    width = max(len(row["text"]) for row in lines)
    made, last = ["Run:\n"], ""
    for row in lines:
        choice = row.get("choice", "")
        if choice != last:
            made.append(f"    # {row['why']}:\n" if choice else "    # then:\n")
        made.append(f"    {row['text']}\n" if choice else f"    {row['text']:{width}}  # {row['why']}\n")
        last = choice
    yield "".join(made)


def _indented(block: str) -> str:
    return "".join(f"    {line}\n" for line in block.splitlines())


def _block(row: Event, title: str) -> str:
    """One thing to paste: where, and what; or why not."""
    if row["state"] == setup.PRESENT:
        return f"{title}: {_STATES[setup.PRESENT]}\n"
    note = f" ({row['note']})" if "note" in row else ""
    return f"{title}{note}:\n{_indented(row['text'])}" if "text" in row else f"{title}{note}\n"


def _changes(rows: Sequence[Event], home: str) -> Iterator[str]:
    told = []
    for row in _of(rows, "change"):
        copy = f" (as it was: {short(row['backup'], home)})" if row.get("backup") else ""
        note = f": {row['note']}" if "note" in row else ""
        told.append(f"{row['state']}: {row['title']}, {short(row['file'], home)}{copy}{note}\n")
    yield "".join(told) or "There was nothing to change.\n"


def _servers(rows: Sequence[Event], home: str) -> Iterator[str]:
    given = _of(rows, "mcp")
    if given:
        blocks = []
        for row in given:
            place = f", {short(row['file'], home)}" if "file" in row else ""
            blocks.append(_block(row, f"{setup_hosts.BY_NAME[row['host']].display}{place}"))
        yield "So that agents can ask what is left (tok-mcp --help):\n\n" + "\n".join(blocks)


def _line(rows: Sequence[Event], home: str) -> Iterator[str]:
    for row in _of(rows, "statusline"):
        yield _block(row, f"Claude Code's status line, which records its limits, {short(row['file'], home)}")


def _rest(rows: Sequence[Event], home: str) -> Iterator[str]:
    yield from (*_commands(rows), *_servers(rows, home), *_line(rows, home))
    for row in _of(rows, "cron"):
        yield f"Every ten minutes, before clients delete their logs ({row['note']}):\n{_indented(row['text'])}"
    for row in _of(rows, "proxy"):
        yield f"Through the proxy, {row['note']}:\n{_indented(row['text'])}"
    if any(row["about"] == "offer" for row in rows):
        yield "tok-init (without --detect) makes these changes itself: it shows each of them, asks, and can undo it.\n"
