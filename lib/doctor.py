"""Reports what makes numbers unreliable, with a command for each problem.

A part that fails is `{error, hint}`; the others are still reported. Blockers and next actions have identifiers that do
not change, and a command that can be pasted.
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
import pathlib
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenops import (
    __version__,
    answers,
    catalog,
    config,
    datadir,
    events,
    price_installed,
    pricing,
    pull_sources,
    show,
    status,
    store,
    store_days,
    store_upkeep,
    when,
)
from tokenops.events import Event
from tokenops.session import Fault, Log
from tokenops.store_days import Recent

# How far back to look for sources and unpriced models.
SPAN_MS = 30 * when.DAY
# A client that wrote so long after the log was last synced was not read.
STALE_MS = 2 * when.DAY
# Prices that were not checked for longer than this may have changed.
OLD_PRICES_MS = 30 * when.DAY


def report(log: Log, environment: Mapping[str, str], home: str) -> Event:
    """The whole report: state, blockers, next_actions, and the parts: clients, sources, signals, proxy, unpriced, ..."""
    folder, now, settings = log.folder, log.now, log.settings
    clients = list(status.passive(environment, home, settings.get("vendor_usage")))
    proxied = list(status.proxy_rows(folder, now, log.memory))
    machines, unpriced = _spent_lately(log)
    summary: Event = {"v": 1, "kind": "status", "version": __version__, "as_of": when.stamp(now)}
    parts: Event = {
        "clients": clients,
        "sources": sources(folder, now, log.memory) or {"error": "the log is empty", "hint": "tok-sync"},
        "signals": _signals(log),
        "proxy": proxied or _no_proxy(),
        "unpriced": unpriced,
        "machines": machines,
        "log": _log(folder, log.memory),
        "prices": _prices(folder, now),
        "wiring": {
            "cron": status.cron(),
            "statusline": status.statusline(environment, home),
            "proxy": status.proxy(environment),
        },
    }
    if settings.get("sync") is not None:
        parts["pulled"] = _other_machines(log)
    blockers = list(_blockers(parts, settings, folder))
    actions = list(_next_actions(parts, settings))
    summary["state"] = _state(parts, blockers, actions)
    summary["signal_quality"] = signal_quality(parts["signals"])
    return summary | {"blockers": blockers, "next_actions": actions} | parts


def sources(folder: str, now: int, memory: Recent | None = None) -> list[Event]:
    """What each source gave in the last thirty days: how many records of each kind, and when the newest began.

    `memory` keeps the days whose files do not change; of the others, only what was appended is read again.
    """
    rows: dict[str, Event] = {}
    files = store_days.files_of(folder, when.stamp(now - SPAN_MS)[:10], when.stamp(now)[:10])
    for day, identity in files.items():

        def read(day: str = day) -> list[_Source]:
            return _SourcesOfDay(folder, day).sources()

        if memory is None:
            of_day = read()
        elif day < store_days.first_open(now):
            of_day = memory.get(("sources", day), identity, read)
        else:
            of_day = memory.get(("open sources", day), folder, functools.partial(_SourcesOfDay, folder, day)).sources()
        for source, newest, kinds in of_day:
            # A source's plane is how its records come here.
            plane = source if source in ("proxy", "mcp") else "passive"
            row = rows.setdefault(source, {"source": source, "plane": plane, "newest": ""})
            row["newest"] = max(row["newest"], newest)
            for kind, count in kinds.items():
                row[kind] = row.get(kind, 0) + count
    return [rows[name] for name in sorted(rows)]


# A source, when its newest record began, and how many of each kind it gave.
_Source = tuple[str, str, collections.Counter[str]]


class _SourcesOfDay:
    """The sources of a day, whose files are read once, and then only as far as they have grown."""

    def __init__(self, folder: str, day: str) -> None:
        self.appended = store_days.Appended(folder, day)
        self.newest: dict[str, str] = {}
        self.kinds: dict[str, collections.Counter[str]] = {}
        self.seen: set[tuple[str, str, str]] = set()

    def __len__(self) -> int:
        """Its weight in a memory: it grows, and only two days are open."""
        return 0

    def sources(self) -> list[_Source]:
        """Each source. Raises OSError."""
        is_anew, data = self.appended.lines()
        if is_anew:
            self.newest, self.kinds, self.seen = {}, {}, set()
        for identity, line in store_days.sightings(data):
            ts, kind, source = store.header(line)
            name = source or "unknown"
            self.newest[name] = max(self.newest.get(name, ""), ts)
            if (kind, name, identity) not in self.seen:
                self.seen.add((kind, name, identity))
                self.kinds.setdefault(name, collections.Counter())[kind] += 1
        return [(name, self.newest[name], self.kinds[name]) for name in self.newest]


def signal_quality(signals: Any) -> Event:
    """How far the numbers on limits can be trusted as a whole: that of the plan with the least reliable reading."""
    if not isinstance(signals, list):
        return {"level": "low", "source": "none", "caveat": signals["error"]}
    least = min((row["signal_quality"] for row in signals), key=lambda quality: _LEVELS.index(quality["level"]))
    return {name: least[name] for name in ("level", "source", "caveat")}


_LEVELS = ("low", "medium", "high")


def _signals(log: Log) -> Any:
    """How far each provider's headroom can be trusted."""
    try:
        rows = answers.budget(log).rows
    except (Fault, OSError) as error:
        return {"error": str(error), "hint": "correct it, and run tok-status again"}
    if not rows:
        return {"error": "no plan is set and no limit was read", "hint": "tok-plan catalog"}
    names = ("provider", "account", "headroom_pct", "recommended_action", "signal_quality", "observed_at", "next_actions")
    return [{name: row[name] for name in names if row.get(name) is not None} for row in rows]


def _no_proxy() -> Event:
    return {"error": "tok-proxy has seen no requests for seven days", "hint": 'tok-proxy & eval "$(tok-provider env)"'}


def _spent_lately(log: Log) -> tuple[Any, Any]:
    """Of the last thirty days the machines with their last turns, and the models that have no price, with the reason."""
    try:
        # From a midnight on: what a part of a day adds up to is kept by nobody.
        first = f"{when.stamp(log.now - SPAN_MS)[:10]}T00:00:00.000Z"
        rows = answers.spend(log, events.OWNER, first, when.stamp(log.now)).rows
    except (Fault, OSError) as error:
        part = {"error": str(error), "hint": "correct that file of prices (pricing.path)"}
        return part, part
    names = ("machine", "user", "turns")
    machines = [{name: row[name] for name in names if name in row} | {"newest": row["to"]} for row in rows]
    machines.sort(key=lambda row: row["newest"], reverse=True)
    models: dict[tuple[str, ...], Event] = {}
    for model in (model for row in rows for model in row.get("unpriced", ())):
        same = models.setdefault(tuple(str(model.get(name)) for name in ("provider", "model", "reason")), {})
        counts = {name: same.get(name, 0) + model[name] for name in ("turns", "tokens") if name in model}
        same |= model | counts
    return machines, list(models.values())


def _other_machines(log: Log) -> Any:
    """The sources of other machines, and when each was read last."""
    try:
        return list(pull_sources.rows(log.folder, pull_sources.settings(log.settings).sources))
    except config.Unusable as error:
        return {"error": str(error), "hint": _edit(log.settings.path)}


def _log(folder: str, memory: Recent | None) -> Event:
    """The log's place, size and age, and what is wrong with its last two days."""
    if not os.path.isdir(folder):
        return {"error": "there is no log yet", "hint": "tok-sync"}
    days = store.days(folder)
    part: Event = {"folder": folder, "days": len(days), "bytes": store.size(folder), "writable": os.access(folder, os.W_OK)}
    synced = datadir.last_sync(folder)
    if synced is not None:
        part["synced_at"] = when.stamp(synced)
    if days:
        part |= {"first_day": days[0], "last_day": days[-1]}
    try:
        problems = [*store_upkeep.lax_folders(folder), *store_upkeep.verify_days(folder, days[-2:], memory)]
    except OSError as error:
        problems = [store_upkeep.Finding(error.filename or folder, f"cannot be read: {error.strerror}", "tok-log verify")]
    if problems:
        part["problems"] = [
            {"place": problem.location, "error": problem.problem, "hint": problem.remedy} for problem in problems
        ]
    return part


def _prices(folder: str, now: int) -> Event:
    """Which catalogue is in force, when its prices were read, and the scheduled changes that have come since."""
    captured: dict[str, str] = {}
    part: Event = {}
    try:
        entry, catalogue = price_installed.state(folder).in_force, pricing.load(log_folder=folder)
    except (catalog.Malformed, OSError) as error:
        entry, catalogue, part["error"] = None, pricing.load(), str(error)
    part["catalogue"] = "built_in" if entry is None else f"{entry.name} {entry.serial}"
    if entry is not None:
        part |= {"published": entry.published, "in_force_since": entry.since}
    for provider, owner in catalogue.providers.items():
        captured[provider] = max((str(source.get("captured", "")) for source in owner["sources"].values()), default="")
    captures = {provider: day for provider, day in captured.items() if day}
    oldest = min(captures.values(), default="")
    old = sorted(name for name, day in captures.items() if when.moment(f"{day}T00:00:00Z") < now - OLD_PRICES_MS)
    due = [
        {"provider": name, "model": model, "from": day}
        for name, model, day in pricing.due_changes(catalogue, when.stamp(now))
    ]
    part |= {"oldest_capture": oldest, "newest_capture": max(captures.values(), default="")}
    return part | {"older_than_30_days": old, "scheduled_due": due}


def _blockers(parts: Event, settings: config.Config, folder: str) -> Iterable[Event]:
    """What prevents any correct number."""
    log = parts["log"]
    if "error" not in log and not log["writable"]:
        yield _action("log_unwritable", f"{folder} cannot be written", f"chmod u+rwx {folder}")
    for client in parts["clients"]:
        if client["files"] == 0 and client["source"] != "none" and "blocker" in client:
            yield _action("client_not_found", f"{client['client']}: {client['blocker']}", "tok-status --table")
    if _nothing(parts):
        yield _action("nothing_found", "no client has written logs here, and the log is empty", "tok-init --detect")


def _nothing(parts: Event) -> bool:
    """Whether there is no usage to report: no client's files, and no record but of calls of our own tools."""
    rows = parts["sources"] if isinstance(parts["sources"], list) else ()
    return not any(client["files"] for client in parts["clients"]) and not any(row.keys() & _USAGE for row in rows)


_USAGE = frozenset(events.KINDS) - {"ping"}


def _about_machines(parts: Event) -> Iterable[Event]:
    """What to do if there are several machines, and turns of which it is not known where they were stored."""
    rows = parts["machines"] if isinstance(parts["machines"], list) else []
    turns = sum(row.get("turns", 0) for row in rows if "machine" not in row)
    if turns and len({row["machine"] for row in rows if "machine" in row}) > 1:
        what = f"the machine of {show.plural(turns, 'turn')} of the last 30 days is not known; adopt them if it is this one"
        yield _action("adopt", what, "tok-log adopt")


def _next_actions(parts: Event, settings: config.Config) -> Iterable[Event]:
    """What would make the numbers better, most useful first."""
    log, clients = parts["log"], [item for item in parts["clients"] if item["files"]]
    if "error" in log and clients:
        yield _action("run_sync", "the clients' logs were never imported", "tok-sync")
    elif clients and _behind(clients, log):
        yield _action("run_sync", "clients have written logs since the last sync", "tok-sync")
    if log.get("problems"):
        yield _action("verify_log", log["problems"][0]["error"], "tok-log compact")
    yield from _about_signals(parts)
    if isinstance(parts["unpriced"], list) and parts["unpriced"]:
        names = sorted({str(item.get("model", "unknown")) for item in parts["unpriced"]})
        path = os.path.join(os.path.dirname(settings.path), "prices.yaml")
        do = f"mkdir -p {shlex.quote(os.path.dirname(path))} && tok-price override init {shlex.quote(path)}"
        yield _action("price_models", f"{len(names)} models have no price: {', '.join(map(show.safe, names[:5]))}", do)
    elif isinstance(parts["unpriced"], dict):
        installed = "error" in parts["prices"]
        yield _action(
            "mend_prices", parts["unpriced"]["error"], "tok-price update --back" if installed else _edit(settings.path)
        )
    yield from _about_machines(parts)
    for row in parts["proxy"] if isinstance(parts["proxy"], list) else ():
        for advice in row.get("advice", ()):
            yield _action("read_usage", f"{row['provider']}: some answers have no known usage", advice)
    cron = parts["wiring"]["cron"]
    if clients and not cron.get("tok-sync") and "error" not in cron:
        line = "(crontab -l; echo '*/5 * * * * tok-sync >/dev/null 2>&1') | crontab -"
        yield _action("schedule_sync", "clients delete their logs after some weeks, and no cron job runs tok-sync", line)
    if parts["prices"]["older_than_30_days"]:
        old = ", ".join(parts["prices"]["older_than_30_days"][:5])
        newer, do = "a newer version has newer ones", upgrade(sys.prefix)
        if settings.get("pricing", "update", "url"):
            newer, do = "your catalogue may be newer", "tok-price update"
        yield _action("update_prices", f"prices older than 30 days: {old}; {newer}", do)
        # Before that there is hardly a newer version, and nothing to do.
        if due := _due_models(parts["prices"]):
            yield _action("look_at_prices", f"announced price changes that were not checked since: {due}", do)
    if settings.warnings:
        yield _action("mend_config", settings.warnings[0], _edit(settings.path))


def _due_models(prices: Event) -> str:
    """The models whose announced price has come into force since it was read, in words; "" for none."""
    return ", ".join(sorted({item["model"] for item in prices["scheduled_due"]})[:5])


def _edit(path: str) -> str:
    return f"${{EDITOR:-vi}} {shlex.quote(path)}"


def upgrade(prefix: str) -> str:
    """How a newer version is got, by whoever made the environment that this one runs in."""
    parts = pathlib.PurePath(prefix).parts
    if "pipx" in parts:
        return "pipx upgrade tokenops"
    if ("uv", "tools") in itertools.pairwise(parts):
        return "uv tool upgrade tokenops"
    return "pip install --upgrade tokenops"


def _about_signals(parts: Event) -> Iterable[Event]:
    clients = {item["client"] for item in parts["clients"] if item["files"]}
    signals, statusline = parts["signals"], parts["wiring"]["statusline"]
    providers = {item["provider"] for item in signals if "headroom_pct" in item} if isinstance(signals, list) else set()
    if isinstance(signals, dict):
        yield _action("set_plan", signals["error"], "tok-init")
    elif silent := sorted({item["provider"] for item in signals} - providers):
        ways = [way for item in signals if item["provider"] in silent for way in item.get("next_actions", ())]
        do = next((way for way in ways if way.startswith(("tok-init", "tok-poll enable"))), "tok-init")
        what = f"no reading of {', '.join(silent)}: headroom is unknown"
        if silent == ["anthropic"] and statusline["ours"]:
            what, do = f"{what} until Claude Code shows its status line again", "claude"
        yield _action("read_meters", what, do.replace(" --detect", ""))
    if "claude-code" in clients and not statusline["ours"]:
        how = "tok-init --yes" if not statusline["set"] else "tok-init"
        yield _action("record_statusline", "Claude Code's status line could record its plan's limits", how)


def _behind(clients: Sequence[Event], log: Event) -> bool:
    newest = max((client.get("newest", "") for client in clients), default="")
    synced = log.get("synced_at", "")
    return not synced or (newest > synced and when.moment(newest) - when.moment(synced) > STALE_MS)


def _action(name: str, what: str, do: str) -> Event:
    return {"id": name, "what": what, "do": do}


_WEIGHTY = ("run_sync", "verify_log", "price_models", "mend_prices", "mend_config")


def _state(parts: Event, blockers: Sequence[Event], actions: Sequence[Event]) -> str:
    """not_configured: there is nothing to read. not_ready: something blocks. degraded: something is wrong or missing."""
    if _nothing(parts):
        return "not_configured"
    if blockers:
        return "not_ready"
    return "degraded" if any(action["id"] in _WEIGHTY for action in actions) else "ready"


def rows(report: Event) -> list[Event]:
    """The report as one row for each part of it: what to do, clients, providers behind the proxy, sources, plans."""
    parts = ("blockers", "next_actions", "clients", "proxy", "sources", "pulled", "machines", "signals")
    return [{"part": name} | row for name in parts if isinstance(report.get(name), list) for row in report[name]]


# Where readings of limits come from, and how far they can be trusted, in words.
_SOURCES = {
    "statusline": "Claude Code's status line",
    "vendor_usage_api": "the vendor's own answer",
    "vendor_client": "asked through the vendor's client",
    "vendor_web": "the vendor's web page",
    "proxy_traffic": "answers that tok-proxy passed",
    "client_files": "the clients' files",
    "client_logs": "the clients' logs",
}
_RELIABLE = {"high": "reliable", "medium": "somewhat old", "low": "uncertain"}
_STATE_STYLES = {"ready": "good", "degraded": "warn", "not_ready": "bad", "not_configured": "bad"}


def table(report: Event, shape: str, color: bool, verbose: bool = False) -> str:
    """The report for people: what blocks and what to do first, then the parts."""
    now = when.moment(report["as_of"])
    texts = [_heading(report, shape, color), status.table(report["clients"], shape, color, now, verbose)]
    if isinstance(report["proxy"], list):
        texts.append(status.proxied_table(report["proxy"], shape, color, now))
    if isinstance(report["sources"], list):
        texts.append(status.sources_table(report["sources"], shape, color, now))
    if isinstance(report.get("pulled"), list) and report["pulled"]:
        texts.append(status.pulled_table(report["pulled"], shape, color, now))
    if isinstance(report["machines"], list) and len(report["machines"]) > 1:
        texts.append(status.machines_table(report["machines"], shape, color, now))
    if isinstance(report["signals"], list):
        texts.append(status.signals_table(report["signals"], shape, color))
    log, prices = report["log"], report["prices"]
    lines = []
    if "error" not in log:
        lines.append(f"log: {log['folder']}, {show.plural(log['days'], 'day')}, {log['bytes'] / 1e6:,.1f} MB")
    which = (
        ""
        if prices["catalogue"] == "built_in"
        else f"{prices['catalogue']}, in force since {prices['in_force_since'][:10]}, "
    )
    lines.append(f"prices: {which}read {prices['oldest_capture']} to {prices['newest_capture']}")
    if due := _due_models(prices):
        lines.append(f"announced before and in force since, not checked again: the price of {due}")
    return "\n".join([*texts, show.notes(lines, shape, color, verbose=True)])


def _heading(report: Event, shape: str, color: bool) -> str:
    """The state, and each thing to do with its command on a line of its own, whole, so that it can be pasted."""
    quality, state, day, clock = report["signal_quality"], report["state"], report["as_of"][:10], report["as_of"][11:16]
    text = f"{show.paint(state.replace('_', ' '), _STATE_STYLES[state], color)}, as of {day} {clock} UTC\n"
    if quality["source"] not in ("none", "mcp_tool_pings"):  # without a plan or a reading, what is to be done says so
        source = _SOURCES.get(quality["source"], quality["source"].replace("_", " "))
        text += show.notes(
            [f"the limits shown are {_RELIABLE[quality['level']]}: {source}, {quality['caveat']}"], shape, color, True
        )
    for key, title in (("blockers", "blocks"), ("next_actions", "to do")):
        for item in report[key]:
            text += show.notes([f"{title}: {item['what']}"], shape, False, verbose=True) + f"    {show.safe(item['do'])}\n"
    return text
