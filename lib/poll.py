"""Runs one poll of a source (lock, ask, log, remember) and reports the state of each source.

Events are on the disk before a mark moves, so a crash makes us read again, and identity makes that harmless. Two processes
never ask one source at once. What goes wrong never takes away what was read before.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping

import orjson

from tokenops import (
    config,
    credentials,
    datadir,
    etiquette,
    events,
    https,
    jsonl,
    limit_log,
    poll_sources,
    projects,
    readers,
    show,
    store,
    when,
)
from tokenops.etiquette import Ask, Results, State, Trouble
from tokenops.poll_sources import Edge, Settings, Wanted

# Nothing was asked because ...
BUSY, OFF, FRESH = "busy", "off", "fresh"
# What is no reason to do anything.
QUIET = (etiquette.OK, etiquette.NOT_DUE, etiquette.WAITING, BUSY, FRESH)
# Sources that say by themselves what an endpoint of last resort would say.
_PASSIVE = ("proxy", "claude-code-statusline", "claude-code-usage-cache")


def run(folder: str, set_: Settings, edge: Edge, wanted: Wanted) -> events.Event:
    """One run of one source, as a record; `begun` is true where a trouble is new. Raises OSError."""
    name = set_.poller.name
    if not wanted.checking and not set_.enabled:
        return _row(set_, OFF, "it is not enabled", f"tok-poll enable {name}")
    if not wanted.checking and set_.poller.consent and not set_.consented:
        return _row(set_, poll_sources.UNCONSENTED, "nobody has agreed to what it does", f"tok-poll enable {name} says what")
    with datadir.lock(folder, f"poll.{name}.lock", wait=False) as mine:
        if not mine:
            return _row(set_, BUSY, "another tok-poll is asking it")
        return _run(folder, set_, edge, wanted)


def _run(folder: str, set_: Settings, edge: Edge, wanted: Wanted) -> events.Event:
    """The same, while nobody else can."""
    name, now = set_.poller.name, edge.clock()
    salt = datadir.salt(folder, make=True)
    known = poll_sources.states(folder).get(name, State())
    state = etiquette.with_clock_set_back(known, now)
    if state != known:
        poll_sources.remember(folder, name, state)
    try:
        key = poll_sources.credential(set_, edge, salt, now, wanted)
    except credentials.Missing as error:
        return _without(folder, set_, state, error, now)
    forced = wanted.force or wanted.checking or wanted.since is not None
    tried = state._replace(stopped="") if wanted.checking else state
    due = etiquette.due(tried, now, set_.interval_ms, key.fingerprint, edge.jitter_ms, edge.draw(), forced)
    if due.status:
        return _not_now(set_, state, due.status)
    if name == "anthropic-oauth" and not forced and _said(folder, key, salt, now):
        return _row(set_, FRESH, "other sources have said it within half an hour")
    if due.pause_ms:
        edge.pause(due.pause_ms / 1000)
    return _asked(folder, set_, edge, wanted, state, key, salt)


def _asked(
    folder: str, set_: Settings, edge: Edge, wanted: Wanted, state: State, key: credentials.Credential, salt: bytes
) -> events.Event:
    """Ask, write what was found to the log, remember what came of it."""
    poller, now, found = set_.poller, edge.clock(), Results()
    about = (poller.source, set_.url, key.secret, now, edge.version, salt, set_.options, poll_sources.rules(), state.marks)
    ask = Ask(*about, key.owner, key.plan, wanted.since, wanted.checking)
    before, state = state.status, etiquette.after_request(state, now)
    poll_sources.remember(folder, poller.name, state)
    trouble, count = _carried(set_, edge, ask, found)
    fresh = news(folder, found.events)
    store.append(folder, map(jsonl.line_of, fresh))
    now = edge.clock()
    if trouble is None:
        state = etiquette.after_answer(state, now, found.marks)
    else:
        state = etiquette.after_trouble(state, now, trouble, key.fingerprint, found.marks)
    poll_sources.remember(folder, poller.name, state)
    made = _row(set_, state.status, state.why if trouble else "", _todo(set_, trouble), _next(set_, state, key))
    made |= {"asked": count, "readings": len(found.events), "new": len(fresh)}
    if found.notices:
        made["notices"] = found.notices
    if trouble is not None and before != state.status:
        made["begun"] = True
    return made


def _carried(set_: Settings, edge: Edge, ask: Ask, found: Results) -> tuple[Trouble | None, int]:
    """Carry a poller's requests out; what went wrong, and how many requests there were."""
    asker: https.Web | https.Client
    if set_.url:
        asker = https.Web(edge.timeout)
    else:
        asker = https.Client(command(set_, edge), edge.environment, edge.home, edge.timeout)
    try:
        etiquette.run_steps(set_.poller.steps()(ask, found), asker)
        return None, asker.count
    except Trouble as trouble:
        return trouble, asker.count
    finally:
        asker.close()


def command(set_: Settings, edge: Edge) -> list[str]:
    """What starts the app-server of Codex: the configured command, or the one on the path."""
    if set_.command:
        return [*map(os.path.expanduser, shlex.split(set_.command)), "app-server"]
    return [shutil.which("codex", path=edge.environment.get("PATH")) or "codex", "app-server"]


def _without(folder: str, set_: Settings, state: State, error: credentials.Missing, now: int) -> events.Event:
    """The record of a run that had no credential."""
    made = _row(set_, error.status, str(error))
    if state.status != error.status:
        made["begun"] = True
        poll_sources.remember(folder, set_.poller.name, state._replace(status=error.status, why=str(error), why_at=now))
    return made


def _not_now(set_: Settings, state: State, status: str) -> events.Event:
    """The record of a run that asked nothing."""
    if status == etiquette.STOPPED:
        return _row(set_, status, state.why, f"tok-poll enable {set_.poller.name} tries again, with another credential")
    return _row(
        set_, status, state.why if status == etiquette.WAITING else "", "", etiquette.due_at(state, set_.interval_ms)
    )


def _next(set_: Settings, state: State, key: credentials.Credential) -> int:
    return 0 if state.stopped == key.fingerprint else etiquette.due_at(state, set_.interval_ms)


def _todo(set_: Settings, trouble: Trouble | None) -> str:
    """What the user can do about a trouble."""
    if trouble is None or trouble.kind in (etiquette.LIMITED, etiquette.FAILING):
        return ""
    if trouble.kind == etiquette.CHANGED:
        return "look for a newer TokenOps; tok-proxy and the clients' own files go on without it"
    return f"it is left alone until the credential is another one: tok-poll enable {set_.poller.name}"


def _row(set_: Settings, status: str, why: str = "", todo: str = "", next_due: int = 0) -> events.Event:
    """What came of one source, as a record for programs."""
    told = {"why": why, "todo": todo, "next_due": when.stamp(next_due) if next_due else ""}
    made: events.Event = {"v": 1, "kind": "poll", "source": set_.poller.name, "status": status}
    return made | {key: value for key, value in told.items() if value}


def news(folder: str, found: Iterable[events.Event]) -> list[events.Event]:
    """The events that say what the log does not say yet: a bucket that did not change is not written again."""
    wanted = {event["id"]: event for event in found}
    days = [event["ts"] for event in wanted.values() if event["kind"] == "usage"]
    if days:
        for line in store.scan(folder, min(days), when.stamp(when.moment(max(days)) + 1)):
            if store.kind_of(line) == b"usage":
                known = orjson.loads(line)
                if known["id"] in wanted and _same(known, wanted[known["id"]]):
                    del wanted[known["id"]]
    return list(wanted.values())


def _same(known: events.Event, found: events.Event) -> bool:
    return {**known, "observed_at": ""} == {**found, "observed_at": ""}


def _said(folder: str, key: credentials.Credential, salt: bytes, now: int) -> bool:
    """Whether a source that needs no token has told of this account's plan lately."""
    mine = projects.hash_path(key.owner, salt) if key.owner else ""
    since = now - poll_sources.rules()["passive_minutes"] * etiquette.MINUTE
    return any(
        one.key.provider == "anthropic" and one.source in _PASSIVE and one.key.account in ("", mine or one.key.account)
        for one in limit_log.readings(folder, since, now)
    )


def statuses(folder: str, given: config.Config, names: Iterable[str], edge: Edge) -> Iterator[events.Event]:
    """What is set, found and remembered of sources. Raises config.Unusable.

    Files that hold credentials are opened only where a source is enabled.
    """
    remembered, table = poll_sources.states(folder), poll_sources.known()
    count = _readings(folder, edge.clock())
    for name in names:
        if name in readers.SECTIONS:
            switched = readers.is_enabled(name, given.get("vendor_usage"))
            yield {"v": 1, "kind": "poller", "source": name, "enabled": switched, "read_by": "tok-sync"}
            continue
        set_, state = (
            poll_sources.settings(given, table.get(name) or poll_sources.named(name)),
            remembered.get(name, State()),
        )
        made: events.Event = {"v": 1, "kind": "poller", "source": name, "enabled": set_.enabled}
        made |= {"interval_s": set_.interval_ms // 1000, "gives": set_.poller.gives}
        if set_.enabled:
            made |= _enabled(folder, set_, state, edge)
        made |= {key: when.stamp(at) for key, at in (("last_success", state.ok_at), ("last_error_at", state.why_at)) if at}
        if state.why:
            made["last_error"] = state.why
        yield made | {"readings_24h": count.get(set_.poller.source, 0), "caveat": set_.poller.caveat}


def _enabled(folder: str, set_: Settings, state: State, edge: Edge) -> events.Event:
    """How an enabled source stands."""
    now, made = edge.clock(), events.Event()
    if set_.warnings:
        made["warnings"] = list(set_.warnings)
    if set_.poller.consent and not set_.consented:
        return made | {"status": poll_sources.UNCONSENTED}
    try:
        key = poll_sources.credential(set_, edge, datadir.salt(folder), now)
    except credentials.Missing as error:
        return made | {"status": error.status, "why": str(error)}
    made["credential"] = key.where
    if state.stopped and state.stopped == key.fingerprint:
        return made | {"status": etiquette.STOPPED}
    made["status"] = state.status or "never_asked"
    return made | {"next_due": when.stamp(max(etiquette.due_at(state, set_.interval_ms), now))}


def _readings(folder: str, now: int) -> dict[str, int]:
    """How many readings of each polled source the log holds that were taken in the last 24 hours."""
    since, found = when.stamp(now - when.DAY), dict[str, int]()
    for line in store.scan(folder, when.stamp(now - 3 * when.DAY), when.stamp(now + when.DAY)):
        if store.header(line).source.startswith("vendor-"):
            event = orjson.loads(line)
            if str(event.get("observed_at", event["ts"])) >= since:
                found[event["source"]] = found.get(event["source"], 0) + 1
    return found


def table(rows: list[events.Event], shape: str, color: bool) -> str:
    """Rows of `status` for people."""
    told = {"never_asked": "never asked", poll_sources.UNCONSENTED: "nobody agreed"}
    columns = [
        show.Column("source", [row["source"] for row in rows], number=False),
        show.Column("enabled", ["yes" if row["enabled"] else "no" for row in rows], number=False),
        show.Column("credential", [row.get("credential", "") for row in rows], number=False),
        show.Column("status", [_status(row, told) for row in rows], number=False),
        show.Column("last success", [_minute(row.get("last_success", "")) for row in rows], number=False),
        show.Column("next due", [_minute(row.get("next_due", "")) for row in rows], number=False),
        show.Column("readings, 24 h", [show.count(row.get("readings_24h", 0)) for row in rows]),
    ]
    said = [f"{row['source']}: {text}\n" for row in rows for text in (*row.get("warnings", ()), *_why(row))]
    if len(rows) == 1 and "caveat" in rows[0]:
        said.append(f"{rows[0]['caveat']}\n")
    return show.table(columns, shape, color=color) + ("" if shape == "csv" else "".join(said))


def _status(row: events.Event, told: Mapping[str, str]) -> str:
    if "read_by" in row:
        return f"read by {row['read_by']}"
    return told.get(row.get("status", ""), row.get("status", "").replace("_", " "))


def _why(row: events.Event) -> Iterator[str]:
    if "why" in row:
        yield row["why"]
    elif row["enabled"] and row.get("last_error"):
        yield f"{row['last_error']} ({_minute(row['last_error_at'])})"


def _minute(stamp: str) -> str:
    return f"{stamp[:16]}Z" if stamp else ""


def answers(rows: list[events.Event], shape: str, color: bool) -> str:
    """Rows of a run for people."""
    columns = [
        show.Column("source", [row["source"] for row in rows], number=False),
        show.Column("status", [row["status"].replace("_", " ") for row in rows], number=False),
        show.Column("asked", [show.count(row.get("asked", 0)) for row in rows]),
        show.Column("readings", [show.count(row.get("readings", 0)) for row in rows]),
        show.Column("new", [show.count(row.get("new", 0)) for row in rows]),
        show.Column("next due", [_minute(row.get("next_due", "")) for row in rows], number=False),
    ]
    said = [f"{row['source']}: {text}\n" for row in rows for text in _told(row)]
    return show.table(columns, shape, color=color) + ("" if shape == "csv" else "".join(said))


def _told(row: events.Event) -> Iterator[str]:
    if "why" in row:
        yield row["why"]
    if "todo" in row:
        yield row["todo"]
    yield from row.get("notices", ())
