"""Finds what is on this machine and what would improve its numbers: rows for tok-init, their text, and changes.

Nothing here writes. Every row is a record (kind setup) whose `about` names its subject: client, key, plan, command,
mcp, statusline, cron, proxy. The user runs or pastes a row's `text` as it is.
"""

from __future__ import annotations

import os
import re
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
    setup_schedule,
    setup_texts,
)
from tokenops.events import Event
from tokenops.setup_changes import Change
from tokenops.setup_hosts import Host, System

# The state of an entry that a host should have.
MISSING, PRESENT, OTHER, REFUSED = "missing", "present", "other", "refused"


def _row(subject: str, **fields: Any) -> Event:
    row: Event = {"v": 1, "kind": "setup", "about": subject}
    return row | {key: value for key, value in fields.items() if value not in ("", None)}


def everything(
    system: System, settings: config.Config, names: Sequence[str], now: int, today: str
) -> tuple[list[Event], list[Change]]:
    """What is on this machine, and the changes that would be made. `names`: of hosts, or none for those here.

    Raises config.Unusable.
    """
    rows = [*clients_here(system), *keys_here(system.environment)]
    rows += plans_here(system, settings, rows, now)
    offers = list(servers(system, names))
    if any(host.name == "claude-code" for host in selected_hosts(system, names)):
        offers.append(status_line(system))
    changes = [*plan_changes(rows, settings, today), *(change for _, change in offers if change)]
    rows += [*commands(rows), *(row for row, _ in offers), schedule(system, settings), proxies(system, names)]
    return rows, changes


def change_row(change: Change, subject: str) -> Event:
    """A change as a record."""
    return _row(subject, host=change.host, title=change.title, file=change.path)


def is_left(row: Event) -> bool:
    """Whether a row is still to be done by hand after the changes."""
    ours = row["about"] == "mcp" and row.get("format") == "shell" and row["state"] == MISSING
    cron = row["about"] == "cron" and row.get("state") != PRESENT
    return ours or cron or row["about"] == "command" or row.get("state") == REFUSED


def more_changes(system: System, settings: config.Config, names: Sequence[str], kind: str) -> Iterator[Change]:
    """The changes that only a person or --all asks for. `kind`: of the schedule, "" for what this machine has."""
    claude = any(host.name == "claude-code" for host in selected_hosts(system, names))
    if claude:
        yield from claude_server(system)
        yield from hooks(system)
    yield from setup_schedule.changes(system, kind, polls(settings))
    yield from aliases(system, names)


def selected_hosts(system: System, names: Sequence[str]) -> list[Host]:
    """The hosts that are here, or those that are named."""
    if names:
        return [setup_hosts.BY_NAME[name] for name in names]
    return [host for host in setup_hosts.HOSTS if setup_hosts.is_here(host, system)]


def clients_here(system: System) -> Iterator[Event]:
    """A row for each host and client that is here: where, and whether its logs are read."""
    logs: dict[str, list[str]] = {}
    for client in read_clients.CLIENTS:
        if client not in read_clients.STREAMS and client.name not in ("stats-cache", "claude-usage"):
            try:
                logs.setdefault(client.client, []).extend(readers.directories(client, system.environment, system.home))
            except readers.NotFound as error:
                yield _row("client", client=client.client, display=client.client, logs=[], note=str(error))
    instead = {client.name: client.instead for client in readers.clients_without_counts(system.environment, system.home)}
    for host in selected_hosts(system, ()):
        where = setup_hosts.existing_homes(host, system) or [setup_hosts.program(host, system)]
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
    for name, folders in logs.items():
        if folders:
            yield _row("client", client=name, display=name, places=folders, logs=folders)
    for name, why in instead.items():
        yield _row("client", client=name, display=name, places=[], logs=[], note=why)


def keys_here(environment: Mapping[str, str]) -> Iterator[Event]:
    """A row for each environment variable that holds an API key. Its value is not looked at."""
    for provider, names in catalog.load("setup")["keys"].items():
        for name in names:
            if name in environment:
                yield _row("key", provider=provider, name=name)


def plans_here(system: System, settings: config.Config, rows: Iterable[Event], now: int) -> Iterator[Event]:
    """A row for each provider that may have a plan with the user. Raises config.Unusable."""
    here = {row["client"] for row in rows if row["about"] == "client"}
    here |= {host.plans for host in setup_hosts.HOSTS if host.plans and host.client in here}
    hints: dict[str, list[setup_plans.Hint]] = {}
    for hint in setup_plans.hints(system, now):
        hints.setdefault(hint.provider, []).append(hint)
    bindings = plans.bindings(settings)
    offered = plans.current_plans()
    for provider in dict.fromkeys(plan.provider for plan in offered):
        own = [plan.name for plan in offered if plan.provider == provider]
        choices = [plan.name for plan in offered if plan.provider == provider and here.intersection(plan.clients)]
        if provider in hints or choices:
            bound = [binding.plan for binding in bindings if binding.provider == provider]
            yield _plan(provider, hints.get(provider, []), choices or own, bound)


def _plan(provider: str, hints: list[setup_plans.Hint], choices: list[str], bound: list[str]) -> Event:
    """The row of one provider's plan: `bound` is what is set, the newest last."""
    best = hints[0].confidence if hints else ""
    named = list(dict.fromkeys(hint.plan for hint in hints if hint.confidence == best))
    if best == setup_plans.EXACT and len(named) > 1:
        best, named = setup_plans.LIKELY, [name for name in named if name]
    row = _row("plan", provider=provider, set=bound[-1] if bound else "", confidence=best or "unknown")
    row["said"] = [{"source": hint.source, "says": hint.says} for hint in hints]
    if best and named == [""]:
        return row | {"plans": [], "commands": []}  # a key, or a plan without limits that are known
    candidates = named if best else choices
    commands = [f"tok-plan set {provider} {name}" for name in candidates if name not in bound[-1:]]
    settled = bound and (not best or bound[-1] in candidates)
    return row | {"plans": candidates, "commands": [] if settled else commands}


def servers(system: System, names: Sequence[str]) -> Iterator[tuple[Event, Change | None]]:
    """For each host, how to add tok-mcp to it, and the change that adds it, if a program may."""
    for host in selected_hosts(system, names):
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
        if setup_hosts.server_entry(setup_plans.object_in(path, "mcpServers"))[0]:
            state = PRESENT
    line = f"claude mcp add --scope user {setup_hosts.SERVER} -- {shlex.quote(command)}\n"
    note = "use its own command; Claude Code rewrites .claude.json all the time"
    yield _row("mcp", host="claude-code", format="shell", state=state, text=line, note=note), None
    # Without a path: the file is shared, and paths differ between machines.
    text = setup_texts.snippet("json", ("mcpServers", setup_hosts.SERVER), {"command": "tok-mcp"})
    note = "instead, for one project and everyone who works on it"
    yield _row("mcp", host="claude-code", file=".mcp.json", format="json", state=state, text=text, note=note), None


def _server(host: Host, system: System, path: str) -> tuple[Event, Change | None]:
    entry = setup_hosts.entry(host, system, path)
    section: tuple[str, ...] = (host.section,)
    row = _row("mcp", host=host.name, file=path, format=host.form, state=MISSING)
    try:
        document = setup_texts.parse(host.form, setup_changes.text_of(setup_changes.content(path)))
        section = setup_hosts.section(host, document)
        name, present = setup_hosts.server_entry(setup_texts.value_at(document, section))
        if name:
            row["state"] = PRESENT if present == entry or name != setup_hosts.SERVER else OTHER
    except (setup_texts.Unchangeable, OSError) as error:
        row |= {"state": REFUSED, "note": _why(error)}
    row["text"] = setup_texts.snippet(host.form, (*section, setup_hosts.SERVER), entry)
    if row["state"] == OTHER:
        row["note"] = f"{'.'.join((*section, setup_hosts.SERVER))} has another value; it is left as it is"
    title = f"{host.display}: the MCP server {setup_hosts.SERVER}"
    change = Change("mcp", host.name, title, path, host.form, (*section, setup_hosts.SERVER), entry)
    return row, change if row["state"] == MISSING else None


def _why(error: Exception) -> str:
    reason = error if isinstance(error, setup_texts.Unchangeable) else f"cannot be read: {error}"
    return f"it {reason}; correct it, or paste this by hand"


def _claude_settings(system: System) -> str:
    host = setup_hosts.BY_NAME["claude-code"]
    homes = setup_hosts.existing_homes(host, system) or list(setup_hosts.homes(host, system))
    return os.path.join(homes[0], "settings.json")


def status_line(system: System) -> tuple[Event, Change | None]:
    """Claude Code's status line, and the change that makes it ours; an existing one is wrapped, never lost."""
    host = setup_hosts.BY_NAME["claude-code"]
    path = _claude_settings(system)
    command = shlex.quote(system.command("tok-statusline"))
    entry: dict[str, Any] = {"type": "command", "command": command}
    row = _row("statusline", host=host.name, file=path, format="json", state=MISSING)
    keys: tuple[str, ...] = ("statusLine",)
    value: Any = entry
    try:
        document = setup_texts.parse("json", setup_changes.text_of(setup_changes.content(path)))
        present = setup_texts.value_at(document, keys)
        wrapped = present.get("command") if isinstance(present, dict) else None
        if isinstance(wrapped, str) and "tok-statusline" in wrapped:
            row["state"] = PRESENT
        elif isinstance(wrapped, str):
            keys, value = ("statusLine", "command"), f"{command} --wrap {shlex.quote(wrapped)}"
            entry = {**entry, "command": value}
        elif present is not None:
            row |= {"state": REFUSED, "note": "its statusLine has another form; set it by hand"}
    except (setup_texts.Unchangeable, OSError) as error:
        row |= {"state": REFUSED, "note": _why(error)}
    if credentials.redact(entry["command"]) == entry["command"]:
        row["text"] = setup_texts.snippet("json", ("statusLine",), entry)
    else:
        row["note"] = "its command may hold a secret, so it is not shown; tok-init wraps it if you let it write"
    title = "Claude Code: the status line, which records its limits"
    change = Change("statusline", host.name, title, path, "json", keys, value)
    return row, change if row["state"] == MISSING else None


def plan_changes(rows: Iterable[Event], settings: config.Config, today: str) -> Iterator[Change]:
    """A change for each plan that is known exactly, if its provider has none set. Raises config.Unusable."""
    for row in rows:
        if row["about"] == "plan" and row["confidence"] == setup_plans.EXACT and row["plans"] and "set" not in row:
            yield plan_change(row["plans"][0], settings, today)


def plan_change(name: str, settings: config.Config, today: str) -> Change:
    """The change that sets a plan. Raises config.Unusable."""
    plan = plans.find(name)
    value = plans.with_binding([], plans.new_binding([], plan, None, "", today))
    title = f"the plan of {plan.provider}: {plan.name}, for all your history (tok-plan set --from dates it)"
    return Change("plan", "", title, settings.path, "yaml", ("plans", plan.provider), value)


def polls(settings: config.Config) -> bool:
    """Whether a vendor is asked for its own meters (tok-poll)."""
    sources = settings.get("vendor_usage") or {}
    sections = [poller["section"] for poller in catalog.load("pollers")["pollers"].values()]
    return any(isinstance(sources.get(name), Mapping) and sources[name].get("enabled") is True for name in sections)


def schedule(system: System, settings: config.Config) -> Event:
    """The lines of a crontab, and whether something imports regularly already."""
    text = setup_schedule.crontab_lines(system, polls(settings))
    state = PRESENT if setup_schedule.schedule_here(system) else ""
    return _row("cron", format="crontab", state=state, text=text, note="add it with: crontab -e")


def claude_server(system: System) -> Iterator[Change]:
    """Claude Code's own command adds its server: Claude Code rewrites .claude.json all the time."""
    files = list(setup_plans.account_files(system))
    servers_here = [setup_plans.object_in(path, "mcpServers") for path in files]
    if not files or any(setup_hosts.server_entry(entries)[0] for entries in servers_here):
        return
    if setup_hosts.program(setup_hosts.BY_NAME["claude-code"], system):
        path = next(filter(os.path.exists, files), files[0])
        title = f"Claude Code: the MCP server {setup_hosts.SERVER}, added by its own command"
        keys = ("mcpServers", setup_hosts.SERVER)
        yield Change("mcp", "claude-code", title, path, "claude", keys, system.command("tok-mcp"))


def hooks(system: System) -> Iterator[Change]:
    """Claude Code's hooks, if ours are not there."""
    path = _claude_settings(system)
    try:
        if setup_texts.parse("hooks", setup_changes.text_of(setup_changes.content(path))):
            return
    except (setup_texts.Unchangeable, OSError):
        pass  # the change says why it cannot be made
    command = f"{shlex.quote(system.command('tok-guard'))} hook"
    title = "Claude Code: hooks that warn before a limit, count repeated reads and watch the cost (tok-guard)"
    yield Change("hooks", "claude-code", title, path, "hooks", (setup_texts.ENTRY,), command)


def aliases(system: System, names: Sequence[str]) -> Iterator[Change]:
    """Functions of the shell that send clients through the proxy while it runs."""
    path, fish = setup_schedule.shell_file(system)
    clients = [(host.program, name) for host in selected_hosts(system, names) for name in _base_url(host, system)]
    if not path or not clients:
        return
    text = "".join(setup_schedule.alias(program, *name, fish) for program, name in clients)
    try:
        if setup_texts.parse("lines", setup_changes.text_of(setup_changes.content(path))):
            return
    except (setup_texts.Unchangeable, OSError):
        pass
    title = f"the shell: {', '.join(program for program, _ in clients)} through tok-proxy, while it runs"
    yield Change("alias", "", title, path, "lines", (setup_texts.ENTRY,), text)


def _base_url(host: Host, system: System) -> Iterator[tuple[str, str]]:
    """The variable that sends a host's program to the proxy, and its value; for a login or a key that is here."""
    match = re.match(r"alias \w+='(\w+)=(\S+) \w+'", host.proxy[0]) if host.proxy else None
    needs_key = bool(match) and "API key" in host.proxy[0]
    if match and (not needs_key or any(row["provider"] == "gemini" for row in keys_here(system.environment))):
        yield match[1], match[2].replace("{base}", setup_hosts.BASE)


def proxies(system: System, names: Sequence[str]) -> Event:
    """The lines for a shell that send the clients here through the proxy."""
    lines = [f"{shlex.quote(system.command('tok-proxy'))} &  # it runs until it is stopped\n"]
    for host in selected_hosts(system, names):
        lines += [f"{line.replace('{base}', setup_hosts.BASE)}\n" for line in host.proxy]
    lines.append(f'# all SDKs started in this shell:  eval "$({shlex.quote(system.command("tok-provider"))} env)"\n')
    return _row("proxy", format="shell", text="".join(lines), note="if you want the vendors' own counts (docs/proxy.md)")


def commands(rows: Sequence[Event]) -> Iterator[Event]:
    """The commands to run, in order; of those with the same `choice`, one."""
    for row in rows:
        if row["about"] == "plan":
            yield from _plan_commands(row)
    if any(row["about"] == "client" and row["logs"] for row in rows):
        yield _row("command", text="tok-sync", why="import the clients' logs")
        yield _row("command", text="tok-cost --log", why="show this month's cost at list price")
        yield _row("command", text="tok-budget", why="show what is left of your plans")
    else:
        yield _row("command", text="tok-init --demo", why="create demo data to try the commands")
    yield _row("command", text="tok-status", why="show what is recorded and what is missing")


def _plan_commands(row: Event) -> Iterator[Event]:
    provider, sure = row["provider"], row["confidence"]
    for line in row["commands"]:
        if "set" in row:
            yield _row(
                "command", text=line, why=f"only if {provider}'s plan is no longer {row['set']}; its client names this one"
            )
        elif len(row["commands"]) > 1:
            yield _row("command", text=line, why=f"{provider}: one of these, if you have one", choice=provider)
        else:
            yield _row(
                "command",
                text=line,
                why=f"{provider}'s plan" if sure == setup_plans.EXACT else f"{provider}'s plan, if it is yours",
            )
