"""What is on this machine, and what would make its numbers better: rows for tok-init, and the changes that it offers.

Nothing here writes. Every row is a record (kind setup) whose `about` says what of: client, key, plan, command, mcp,
statusline, cron, proxy. A row with `text` is to be run or pasted as it stands.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenops import (
    catalog,
    config,
    credentials,
    plans,
    read_clients,
    readers,
    setup_changes,
    setup_hosts,
    setup_plans,
    show,
)
from tokenops.events import Event
from tokenops.setup_changes import Change
from tokenops.setup_hosts import Host, System

# What became of an entry that a host should have.
MISSING, PRESENT, OTHER, REFUSED = "missing", "present", "other", "refused"


def _row(about: str, **given: Any) -> Event:
    return {
        "v": 1,
        "kind": "setup",
        "about": about,
        **{key: value for key, value in given.items() if value not in ("", None)},
    }


def everything(
    system: System, settings: config.Config, names: Sequence[str], now: int, today: str
) -> tuple[list[Event], list[Change]]:
    """What is on this machine, and the changes that would be made. `names`: of hosts, or none for those here.

    Raises config.Unusable.
    """
    rows = [*clients_here(system), *keys_here(system.environment)]
    rows += plans_here(system, settings, rows, now)
    told = list(servers(system, names))
    if any(host.name == "claude-code" for host in chosen(system, names)):
        told.append(status_line(system))
    wanted = [*plan_changes(rows, settings, today), *(change for _, change in told if change)]
    rows += [*commands(rows), *(row for row, _ in told), schedule(system, settings), proxies(system, names)]
    return rows, wanted


def offer(change: Change, about: str) -> Event:
    """A change as a record."""
    return _row(about, host=change.host, title=change.title, file=change.path)


def is_left(row: Event) -> bool:
    """Whether a row says something that is still to be done by hand when the changes are made."""
    ours = row["about"] == "mcp" and row.get("format") == "shell" and row["state"] == MISSING
    return ours or row["about"] in ("command", "cron") or row.get("state") == REFUSED


def chosen(system: System, names: Sequence[str]) -> list[Host]:
    """The hosts that are here, or those that are named."""
    if names:
        return [setup_hosts.BY_NAME[name] for name in names]
    return [host for host in setup_hosts.HOSTS if setup_hosts.found(host, system) or setup_hosts.program(host, system)]


def clients_here(system: System) -> Iterator[Event]:
    """A row for each host and client that is here: where, and whether its logs are read."""
    logs: dict[str, list[str]] = {}
    for client in read_clients.CLIENTS:
        if client not in read_clients.STREAMS and client.name not in ("stats-cache", "claude-usage"):
            try:
                logs.setdefault(client.client, []).extend(readers.directories(client, system.environment, system.home))
            except readers.NotFound as error:
                yield _row("client", client=client.client, display=client.client, logs=[], note=str(error))
    instead = {one.name: one.instead for one in readers.clients_without_counts(system.environment, system.home)}
    for host in chosen(system, ()):
        where = setup_hosts.found(host, system) or [setup_hosts.program(host, system)]
        note = instead.pop(host.client, "") or host.note
        yield _row(
            "client",
            client=host.client,
            host=host.name,
            display=host.display,
            places=where,
            logs=logs.pop(host.client, []),
            note=note,
        )
    for name, places in logs.items():
        if places:
            yield _row("client", client=name, display=name, places=places, logs=places)
    for name, why in instead.items():
        yield _row("client", client=name, display=name, places=[], logs=[], note=why)


def keys_here(environment: Mapping[str, str]) -> Iterator[Event]:
    """A row for each environment variable that holds an API key. Its value is not looked at."""
    for provider, names in catalog.load("setup")["keys"].items():
        for name in names:
            if name in environment:
                yield _row("key", provider=provider, name=name)


def plans_here(system: System, settings: config.Config, found: Iterable[Event], now: int) -> Iterator[Event]:
    """A row for each provider whose plan somebody here may have. Raises config.Unusable."""
    here = {row["client"] for row in found if row["about"] == "client"}
    here |= {host.plans for host in setup_hosts.HOSTS if host.plans and host.client in here}
    said: dict[str, list[setup_plans.Hint]] = {}
    for hint in setup_plans.hints(system, now):
        said.setdefault(hint.provider, []).append(hint)
    bound = plans.bindings(settings)
    aliases = {name for name, about in catalog.load("plans")["plans"].items() if "same_as" in about}
    known = [plan for plan in plans.all_plans().values() if plan.name not in aliases]
    for provider in dict.fromkeys(plan.provider for plan in known):
        mine = [plan.name for plan in known if plan.provider == provider]
        choices = [plan.name for plan in known if plan.provider == provider and here.intersection(plan.clients)]
        if provider in said or choices:
            have = [one.plan for one in bound if one.provider == provider]
            yield _plan(provider, said.get(provider, []), choices or mine, have)


def _plan(provider: str, said: list[setup_plans.Hint], choices: list[str], have: list[str]) -> Event:
    """The row of one provider's plan: `have` is what is set, the newest last."""
    best = said[0].confidence if said else ""
    named = list(dict.fromkeys(one.plan for one in said if one.confidence == best))
    if best == setup_plans.EXACT and len(named) > 1:
        best, named = setup_plans.LIKELY, [name for name in named if name]
    row = _row("plan", provider=provider, set=have[-1] if have else "", confidence=best or "unknown")
    row["said"] = [{"source": one.source, "says": one.says} for one in said]
    if best and named == [""]:
        return row | {"plans": [], "commands": []}  # a key, or a plan without limits that are known
    wanted = named if best else choices
    commands = [f"tok-plan set {provider} {name}" for name in wanted if name not in have[-1:]]
    return row | {"plans": wanted, "commands": [] if have and (not best or have[-1] in wanted) else commands}


def servers(system: System, names: Sequence[str]) -> Iterator[tuple[Event, Change | None]]:
    """For each host, how it is told of tok-mcp; and the change that would tell it, where a program may."""
    for host in chosen(system, names):
        if host.name == "claude-code":
            yield from _claude_code(system)
        path = setup_hosts.config_file(host, system)
        if path:
            yield _server(host, system, path)
        elif host.name in names and host.name != "claude-code":
            yield _row("mcp", host=host.name, state=OTHER, note=host.note), None


def _claude_code(system: System) -> Iterator[tuple[Event, Change | None]]:
    command = system.command("tok-mcp")
    state = MISSING
    for path in setup_plans.account_files(system):
        if setup_hosts.registered(setup_plans.listed(path, "mcpServers"))[0]:
            state = PRESENT
    line = f"claude mcp add --scope user {setup_hosts.SERVER} -- {shlex.quote(command)}\n"
    note = "its own command has to add it: it rewrites .claude.json, where it stands, all the time"
    yield _row("mcp", host="claude-code", format="shell", state=state, text=line, note=note), None
    shown = setup_changes.snippet(
        "json", ("mcpServers", setup_hosts.SERVER), {"command": "tok-mcp"}
    )  # a path of ours is nobody else's
    note = "instead, for one project and all who work on it"
    yield _row("mcp", host="claude-code", file=".mcp.json", format="json", state=state, text=shown, note=note), None


def _server(host: Host, system: System, path: str) -> tuple[Event, Change | None]:
    wanted = setup_hosts.entry(host, system, path)
    section: tuple[str, ...] = (host.section,)
    row = _row("mcp", host=host.name, file=path, format=host.form, state=MISSING)
    try:
        given = setup_changes.data(host.form, setup_changes.text_of(setup_changes.content(path)))
        section = setup_hosts.section(host, given)
        name, there = setup_hosts.registered(setup_changes.value_at(given, section))
        if name:
            row["state"] = PRESENT if there == wanted or name != setup_hosts.SERVER else OTHER
    except (setup_changes.Refused, OSError) as error:
        row |= {"state": REFUSED, "note": _why(error)}
    row["text"] = setup_changes.snippet(host.form, (*section, setup_hosts.SERVER), wanted)
    if row["state"] == OTHER:
        row["note"] = f"{'.'.join((*section, setup_hosts.SERVER))} is there already and is another one; it is left alone"
    title = f"{host.display}: the MCP server {setup_hosts.SERVER}"
    change = Change("mcp", host.name, title, path, host.form, (*section, setup_hosts.SERVER), wanted)
    return row, change if row["state"] == MISSING else None


def _why(error: Exception) -> str:
    reason = error if isinstance(error, setup_changes.Refused) else f"cannot be read: {error}"
    return f"it {reason}; mend it, or paste this by hand"


def status_line(system: System) -> tuple[Event, Change | None]:
    """Claude Code's status line, and the change that makes it ours; one that is there is wrapped, never lost."""
    host = setup_hosts.BY_NAME["claude-code"]
    places = setup_hosts.found(host, system) or list(setup_hosts.homes(host, system))
    path = os.path.join(places[0], "settings.json")
    ours = shlex.quote(system.command("tok-statusline"))
    wanted: dict[str, Any] = {"type": "command", "command": ours}
    row = _row("statusline", host=host.name, file=path, format="json", state=MISSING)
    place: tuple[str, ...] = ("statusLine",)
    value: Any = wanted
    try:
        there = setup_changes.value_at(setup_changes.data("json", setup_changes.text_of(setup_changes.content(path))), place)
        command = there.get("command") if isinstance(there, dict) else None
        if isinstance(command, str) and "tok-statusline" in command:
            row["state"] = PRESENT
        elif isinstance(command, str):
            place, value = ("statusLine", "command"), f"{ours} --wrap {shlex.quote(command)}"
            wanted = {**wanted, "command": value}
        elif there is not None:
            row |= {"state": REFUSED, "note": "it has a statusLine of another form; set it by hand"}
    except (setup_changes.Refused, OSError) as error:
        row |= {"state": REFUSED, "note": _why(error)}
    if credentials.redact(wanted["command"]) == wanted["command"]:
        row["text"] = setup_changes.snippet("json", ("statusLine",), wanted)
    else:
        row["note"] = (
            "its command holds what looks like a secret, so it is not shown; tok-init wraps it where you let it write"
        )
    change = Change(
        "statusline", host.name, "Claude Code: the status line, which records its limits", path, "json", place, value
    )
    return row, change if row["state"] == MISSING else None


def plan_changes(rows: Iterable[Event], settings: config.Config, today: str) -> Iterator[Change]:
    """A change for each plan that is known exactly, of providers that have none set. Raises config.Unusable."""
    for row in rows:
        if row["about"] == "plan" and row["confidence"] == setup_plans.EXACT and row["plans"] and "set" not in row:
            plan = plans.find(row["plans"][0])
            value = plans.with_binding([], plans.new_binding([], plan, None, "", today))
            title = f"the plan of {row['provider']}: {plan.name}"
            yield Change("plan", "", title, settings.path, "yaml", ("plans", plan.provider), value)


def schedule(system: System, settings: config.Config) -> Event:
    """The lines of a crontab."""
    lines = [f"*/10 * * * *  {_cron(system.command('tok-sync'))} >/dev/null\n"]
    sources = settings.get("vendor_usage") or {}
    asked = [about["section"] for about in catalog.load("pollers")["pollers"].values()]
    if any(isinstance(sources.get(name), Mapping) and sources[name].get("enabled") is True for name in asked):
        lines.append(f"*/5 * * * *  {_cron(system.command('tok-poll'))} >/dev/null\n")
    return _row("cron", format="crontab", text="".join(lines), note="add it with: crontab -e")


def _cron(command: str) -> str:
    """A command for a crontab, where % is the end of a line."""
    return shlex.quote(command).replace("%", "\\%")


def proxies(system: System, names: Sequence[str]) -> Event:
    """The lines for a shell that point what is here at the proxy."""
    lines = [f"{shlex.quote(system.command('tok-proxy'))} &  # it runs until it is stopped\n"]
    for host in chosen(system, names):
        lines += [f"{line.replace('{base}', setup_hosts.BASE)}\n" for line in host.proxy]
    lines.append(f'# all SDKs started in this shell:  eval "$({shlex.quote(system.command("tok-provider"))} env)"\n')
    return _row("proxy", format="shell", text="".join(lines), note="where you want the vendors' own counts (docs/proxy.md)")


def commands(rows: Sequence[Event]) -> Iterator[Event]:
    """What to run, in order. Of those with the same `choice`, one."""
    for row in rows:
        if row["about"] == "plan":
            yield from _plan_commands(row)
    if any(row["about"] == "client" and row["logs"] for row in rows):
        yield _row("command", text="tok-sync", why="take the clients' logs into the log of your own")
        yield _row("command", text="tok-cost --log", why="what this month came to, at list price")
        yield _row("command", text="tok-budget", why="what is left of your plans")
    else:
        yield _row("command", text="tok-init --demo", why="made-up data to try the commands on")
    yield _row("command", text="tok-status", why="what is known from where, and what is missing")


def _plan_commands(row: Event) -> Iterator[Event]:
    provider, sure = row["provider"], row["confidence"]
    for line in row["commands"]:
        if "set" in row:
            yield _row("command", text=line, why=f"only if {provider}'s plan is no longer {row['set']}: its client says so")
        elif len(row["commands"]) > 1:
            yield _row("command", text=line, why=f"{provider}: one of these, if you have one", choice=provider)
        else:
            yield _row(
                "command",
                text=line,
                why=f"{provider}'s plan" if sure == setup_plans.EXACT else f"{provider}'s plan, if it is yours",
            )


_STATES = {
    PRESENT: "is there already",
    OTHER: "is there already, and is another one: it is left alone",
}


def report(rows: Sequence[Event], home: str, shape: str = "table", color: bool = False) -> str:
    """Everything, in the order in which one would do it."""
    return "\n".join([clients_text(rows, home, shape, color), *_rest(rows, home)])


def clients_text(rows: Sequence[Event], home: str, shape: str = "table", color: bool = False) -> str:
    """What is here."""
    return "\n".join([*_clients(rows, home, shape, color), *_plans(rows, shape, color)])


def outcome_text(rows: Sequence[Event], home: str) -> str:
    """What became of the changes, and what is left to do."""
    return "\n".join([*_changes(rows, home), *_rest(rows, home)])


def short(path: str, home: str) -> str:
    """A path as people write it."""
    return f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path


def _rows_about(rows: Iterable[Event], about: str) -> list[Event]:
    return [row for row in rows if row["about"] == about]


def _clients(rows: Sequence[Event], home: str, shape: str, color: bool) -> Iterator[str]:
    here = _rows_about(rows, "client")
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
    keys = _rows_about(rows, "key")
    if keys:
        names = ", ".join(f"{row['name']} ({row['provider']})" for row in keys)
        yield f"API keys in the environment: {names}. What runs on a key is billed per token; no plan covers it.\n"


def _plans(rows: Sequence[Event], shape: str, color: bool) -> Iterator[str]:
    here = _rows_about(rows, "plan")
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
    lines = _rows_about(rows, "command")
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
    if row["state"] == PRESENT:
        return f"{title}: {_STATES[PRESENT]}\n"
    note = f" ({row['note']})" if "note" in row else ""
    return f"{title}{note}:\n{_indented(row['text'])}" if "text" in row else f"{title}{note}\n"


def _changes(rows: Sequence[Event], home: str) -> Iterator[str]:
    told = []
    for row in _rows_about(rows, "change"):
        copy = f" (as it was: {short(row['backup'], home)})" if row.get("backup") else ""
        note = f": {row['note']}" if "note" in row else ""
        told.append(f"{row['state']}: {row['title']}, {short(row['file'], home)}{copy}{note}\n")
    yield "".join(told) or "There was nothing to change.\n"


def _servers(rows: Sequence[Event], home: str) -> Iterator[str]:
    given = _rows_about(rows, "mcp")
    if given:
        blocks = []
        for row in given:
            place = f", {short(row['file'], home)}" if "file" in row else ""
            blocks.append(_block(row, f"{setup_hosts.BY_NAME[row['host']].display}{place}"))
        yield "So that agents can ask what is left (tok-mcp --help):\n\n" + "\n".join(blocks)


def _line(rows: Sequence[Event], home: str) -> Iterator[str]:
    for row in _rows_about(rows, "statusline"):
        yield _block(row, f"Claude Code's status line, which records its limits, {short(row['file'], home)}")


def _rest(rows: Sequence[Event], home: str) -> Iterator[str]:
    yield from (*_commands(rows), *_servers(rows, home), *_line(rows, home))
    for row in _rows_about(rows, "cron"):
        yield f"Every ten minutes, before clients delete their logs ({row['note']}):\n{_indented(row['text'])}"
    for row in _rows_about(rows, "proxy"):
        yield f"Through the proxy, {row['note']}:\n{_indented(row['text'])}"
    if any(row["about"] == "offer" for row in rows):
        yield "tok-init (without --detect) makes these changes itself: it shows each of them, asks, and can undo it.\n"
