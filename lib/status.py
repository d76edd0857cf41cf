"""Lists the clients and logs found on this machine, how TokenOps is wired into it, and what logs lack."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import orjson

from tokenops import datadir, events, headroom, programs, read_clients, readers, show, store, store_days, untrusted, when
from tokenops.events import Event
from tokenops.store_days import Recent


def passive(environment: Mapping[str, str], home: str, vendor_usage: object = None) -> Iterator[Event]:
    """A row for each client in the table, found or not; then those on this machine that record no counts."""
    for client in read_clients.CLIENTS:
        if client in read_clients.STREAMS:
            continue  # read only if it is named
        row: Event = {"v": 1, "kind": "status", "plane": "passive", "client": client.client, "source": client.source}
        try:
            locations = readers.directories(client, environment, home)
        except readers.NotFound as error:
            yield row | {"places": [], "files": 0, "blocker": str(error)}
            continue
        files = readers.files(client, locations)
        row |= {"places": locations, "files": len(files)}
        if times := [time for path in files for time in _change_times(path)]:
            row["newest"] = when.stamp(int(max(times) * 1000))
        if files and (caveat := readers.caveat(client, files)):
            row["caveat"] = caveat
        hints = list(readers.hints(client, locations))
        if locations and not readers.is_enabled(client.source, vendor_usage):
            hints.append(f"tok-sync leaves it out: tok-poll enable {client.source} switches it on")
        if hints:
            row["hints"] = hints
        yield row
    for other in readers.clients_without_counts(environment, home):
        row = {
            "v": 1,
            "kind": "status",
            "plane": "passive",
            "client": other.name,
            "source": "none",
            "places": [],
            "files": 0,
        }
        yield row | {"blocker": other.instead}


# What to do about answers without usage, by the reason that the proxy recorded.
_ADVICE = {
    "no usage in the answer": "the vendor was not asked for it: set stream_options.include_usage in the client, or "
    "proxy.include_usage: true in config.yaml",
    "encoding br": "answers came in an encoding that cannot be decoded here: pip install brotli next to TokenOps",
    "encoding zstd": "answers came in an encoding that cannot be decoded here: run TokenOps with Python 3.14",
}
SPAN_MS = 7 * when.DAY


def _change_times(path: str) -> Iterator[float]:
    """When a file was changed; nothing for what cannot be looked at, such as a link to itself."""
    with contextlib.suppress(OSError):
        yield os.stat(path).st_mtime


# A turn that passed the proxy: when, its provider, turns, errors, and why its usage is unknown ("" if it is known).
_Passed = tuple[str, str, int, int, str]


def _proxied_turns(folder: str, since: str, until: str) -> list[_Passed]:
    """What passed the proxy in a span."""
    first, last = (when.stamp(when.moment(at) + more)[:10] for at, more in ((since, -when.DAY), (until, when.DAY)))
    if not store.has_turn_with(folder, "status", first, last):
        return []  # most have no proxy, and joining sightings takes ten times as long as looking
    turns = []
    for line in store.scan(folder, since, until):
        if not store.has_field(line, "status") or store.kind_of(line) != b"turn":
            continue  # only what passed the proxy has a status
        event = orjson.loads(line)
        reason = event.get("usage_reason", "unknown") if "usage" in event else ""
        counts = event.get("turns", 0), event.get("errors", 0)
        turns.append((event["ts"], event.get("provider", "unknown"), *counts, reason))
    return turns


def _turns_lately(folder: str, now: int, memory: Recent | None) -> Iterator[_Passed]:
    """What passed the proxy in the last seven days. `memory` keeps the days whose files do not change."""
    since, until = when.stamp(now - SPAN_MS), when.stamp(now)
    if memory is None:
        yield from _proxied_turns(folder, since, until)
        return
    files = store_days.files_of(folder, when.stamp(now - SPAN_MS - when.DAY)[:10], when.stamp(now + when.DAY)[:10])
    for day in (day for day in files if since[:10] <= day <= until[:10]):
        read = functools.partial(_proxied_turns, folder, f"{day}T00:00:00.000Z", store_days.midnight_after(day))
        for turn in memory.get(("passed the proxy", day), store_days.key_of(day, files), read):
            if since <= turn[0] < until:
                yield turn


def proxy_rows(folder: str, now: int, memory: Recent | None = None) -> Iterator[Event]:
    """A row for each provider whose answers the proxy passed in the last seven days, with those of unknown usage."""
    rows: dict[str, Event] = {}
    unknown: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for ts, provider, turns, errors, reason in _turns_lately(folder, now, memory):
        row = rows.setdefault(
            provider, {"v": 1, "kind": "status", "plane": "proxy", "provider": provider, "turns": 0, "errors": 0}
        )
        row["turns"] += turns
        row["errors"] += errors
        row["newest"] = max(row.get("newest", ""), ts)
        if reason:
            unknown[provider][reason] += 1
    for provider, row in sorted(rows.items()):
        if unknown[provider]:
            row["unknown"] = dict(unknown[provider].most_common())
            row["advice"] = [_ADVICE[reason] for reason in row["unknown"] if reason in _ADVICE]
        yield row


def proxied_table(rows: list[Event], shape: str, color: bool, now: int) -> str:
    """What passed the proxy, for people; what is unknown of it below."""
    columns = [show.Column("by proxy, 7 days", [row["provider"] for row in rows], False, 0)]
    columns += [show.counts(name, [row[name] for row in rows]) for name in ("turns", "errors")]
    columns.append(show.counts("usage unknown", [sum(row.get("unknown", {}).values()) for row in rows], heading="unknown"))
    columns.append(_newest(rows, now))
    unknown = [
        f"{row['provider']}: {show.plural(count, 'answer')}, {reason}"
        for row in rows
        for reason, count in row.get("unknown", {}).items()
    ]
    advice = [text for row in rows for text in row.get("advice", ())]
    return show.table(columns, shape, color=color) + show.notes([*unknown, *advice], shape, color, verbose=True)


def _newest(rows: Sequence[Event], now: int) -> show.Column:
    """When the newest record or file was."""
    newest = [row.get("newest", "") for row in rows]
    return show.Column("newest", [when.ago(when.moment(ts), now) if ts else "" for ts in newest], False, 2)


def sources_table(rows: list[Event], shape: str, color: bool, now: int) -> str:
    """What each source gave, for people."""
    kinds = [kind for kind in events.KINDS if any(kind in row for row in rows)]
    columns = [show.Column("source, 30 days", [row["source"] for row in rows], False, 0)]
    columns.append(show.Column("plane", [row["plane"] for row in rows], False, 4))
    columns += [show.counts(f"{kind}s", [row.get(kind, 0) for row in rows], 1 if kind == "turn" else 3) for kind in kinds]
    return show.table([*columns, _newest(rows, now)], shape, color=color)


_STATE_STYLES = {"ok": "good", "away": "warn"}


def pulled_table(rows: list[Event], shape: str, color: bool, now: int) -> str:
    """The sources of other machines, for people; below them why one is away."""
    states = [row["state"] for row in rows]
    synced = [row.get("synced_at", "") for row in rows]
    columns = [
        show.Column("pulled from", [row["source"] for row in rows], False, 0),
        show.Column("machine", [row["machine"] for row in rows], False, 3),
        show.Column("state", states, False, 0)._replace(styles=[_STATE_STYLES.get(state, "") for state in states]),
        show.Column("read", [when.ago(when.moment(ts), now) if ts else "never" for ts in synced], False, 1),
    ]
    notes = [f"{row['source']}: {row['why']}" for row in rows if "why" in row]
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose=True)


def machines_table(rows: list[Event], shape: str, color: bool, now: int) -> str:
    """The machines with turns, and their users if they are named, the one at work last first."""
    columns = [show.Column("machine, 30 days", [row.get("machine", events.UNKNOWN) for row in rows], False, 0)]
    if any("user" in row for row in rows):
        columns.append(show.Column("user", [row.get("user", events.UNKNOWN) for row in rows], False, 3))
    columns += [show.counts("turns", [row.get("turns", 0) for row in rows], 1), _newest(rows, now)]
    return show.table(columns, shape, color=color)


_LEVEL_STYLES = {"high": "good", "medium": "warn", "low": "bad"}


def signals_table(rows: list[Event], shape: str, color: bool) -> str:
    """How far headroom can be trusted, for people."""
    signals = [row["signal_quality"] for row in rows]
    left = [row.get("headroom_pct") for row in rows]
    actions = [row["recommended_action"] for row in rows]
    columns = [
        show.Column("plan of", [row["provider"] for row in rows], False, 0),
        show.Column("left", ["unknown" if percent is None else f"{percent}%" for percent in left], True, 0),
        show.Column("action", [action.replace("_", " ") for action in actions], False, 0)._replace(
            styles=[headroom.STYLES[action] for action in actions]
        ),
        show.Column("signal", [signal["level"] for signal in signals], False, 1)._replace(
            styles=[_LEVEL_STYLES.get(signal["level"], "") for signal in signals]
        ),
        show.Column("from", [_source_text(signal["source"], shape) for signal in signals], False, 2),
    ]
    return show.table(columns, shape, color=color)


def _source_text(source: str, shape: str) -> str:
    """Where a reading is from; people read that there is none."""
    return "no reading yet" if source == "mcp_tool_pings" and shape == "table" else source


def table(rows: list[Event], shape: str, color: bool, now: int, verbose: bool = False) -> str:
    """The clients that were found or are blocked, for people, with caveats below."""
    listed = [row for row in rows if row["places"] or "blocker" in row]
    if not listed:
        names = ", ".join(dict.fromkeys(row["client"] for row in rows))
        return show.notes([f"no client's logs were found (looked for {names})"], shape, False, verbose=True)
    rows = listed
    columns = [
        show.Column("client", [row["client"] for row in rows], False, 0),
        show.Column("logs", [", ".join(row["places"]) or "none found" for row in rows], False, 1),
        show.counts("files", [row["files"] for row in rows], 0),
        _newest(rows, now),
    ]
    notes = [f"{row['client']}: {row[key]}" for key in ("blocker", "caveat") for row in rows if key in row]
    notes += [f"{row['client']}: {hint}" for row in rows for hint in row.get("hints", ())]
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose)


PROXY_PORT = 7878
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def cron() -> Event:
    """Whether the user's crontab runs tok-sync and tok-poll."""
    try:
        ended = programs.run(["crontab", "-l"], 2)
    except FileNotFoundError:
        return {
            "error": "this machine has no crontab",
            "hint": "schedule tok-sync with this machine's scheduler",
        }
    except OSError:
        return {"error": "crontab -l did not end", "hint": "run crontab -l to see why"}
    text = ended.out.decode(errors="replace")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return {name: any(name in line for line in lines) for name in ("tok-sync", "tok-poll")}


def statusline(environment: Mapping[str, str], home_dir: str) -> Event:
    """What Claude Code runs for its status line: ours, another's, or none."""
    folders = [name for name in environment.get("CLAUDE_CONFIG_DIR", "").split(",") if name]
    for folder in folders or [os.path.join(home_dir, ".claude")]:
        settings = untrusted.mapping(datadir.read_json(os.path.join(os.path.expanduser(folder), "settings.json")))
        command = untrusted.text(untrusted.mapping(settings.get("statusLine")).get("command"), 4000)
        if command:
            return {"set": True, "ours": "tok-statusline" in command}
    return {"set": False, "ours": False}


def base_urls(environment: Mapping[str, str]) -> list[str]:
    """The names of environment variables by which clients are led to a proxy on this machine."""
    names = []
    for name, value in environment.items():
        if name.endswith(("_BASE_URL", "_API_BASE", "_ENDPOINT", "_HOST")):
            with contextlib.suppress(ValueError):
                parts = urlsplit(value if "//" in value else f"//{value}")
                if parts.hostname in _LOOPBACK and parts.port == PROXY_PORT:
                    names.append(name)
    return sorted(names)


def answers(port: int = PROXY_PORT, seconds: float = 0.2) -> bool:
    """Whether something listens on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), seconds):
            return True
    except OSError:
        return False


def proxy(environment: Mapping[str, str]) -> Event:
    """Whether the proxy is up, and which base URLs lead to it."""
    return {"listens": answers(), "port": PROXY_PORT, "base_urls": base_urls(environment)}
