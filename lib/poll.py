"""Runs one poll of a source (lock, ask, log, remember) and reports the state of each source.

Events are on disk before a mark moves. After a crash they are read again, and their ids make that harmless. Two
processes never ask one source at once. A failure removes no earlier reading.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator

import orjson

from tokenops import (
    config,
    credentials,
    datadir,
    etiquette,
    events,
    fields,
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
from tokenops.poll_sources import Purpose, Runtime, Settings

# Nothing was asked because another run is asking, the source is not enabled, or other sources gave a recent reading.
BUSY, OFF, FRESH = "busy", "off", "fresh"
# No reason to do anything.
QUIET = (etiquette.OK, etiquette.NOT_DUE, etiquette.WAITING, BUSY, FRESH)
# Sources that report without a request what an endpoint of last resort would report.
_PASSIVE = ("proxy", "claude-code-statusline", "claude-code-usage-cache")


def run(folder: str, source: Settings, runtime: Runtime, purpose: Purpose) -> events.Event:
    """Run one poll of a source; returns its record, with `begun` if a failure is new. Raises OSError."""
    name = source.poller.name
    if not purpose.checking and not source.enabled:
        return _row(source, OFF, "it is not enabled", f"tok-poll enable {name}")
    if not purpose.checking and source.poller.consent and not source.consented:
        why = "you have not agreed to what it does"
        return _row(source, poll_sources.UNCONSENTED, why, f"tok-poll enable {name} explains it and asks")
    with datadir.lock(folder, f"poll.{name}.lock", wait=False) as locked:
        if not locked:
            return _row(source, BUSY, "another tok-poll is asking it")
        return _run_locked(folder, source, runtime, purpose)


def _run_locked(folder: str, source: Settings, runtime: Runtime, purpose: Purpose) -> events.Event:
    name, now = source.poller.name, runtime.clock()
    salt = datadir.salt(folder, make=True)
    remembered = poll_sources.states(folder).get(name, State())
    state = etiquette.with_clock_set_back(remembered, now)
    if state != remembered:
        poll_sources.remember(folder, name, state)
    try:
        key = poll_sources.credential(source, runtime, salt, now, purpose)
    except credentials.Missing as error:
        return _without_credential(folder, source, state, error, now)
    forced = purpose.force or purpose.checking or purpose.since is not None
    tried = state._replace(stopped="") if purpose.checking else state
    due = etiquette.due(tried, now, source.interval_ms, key.fingerprint, runtime.jitter_ms, runtime.draw(), forced)
    if due.status:
        return _not_due(source, state, due.status)
    if name == "anthropic-oauth" and not forced and _has_passive_reading(folder, key, salt, now):
        return _row(source, FRESH, "another source gave a reading within half an hour")
    if due.pause_ms:
        runtime.pause(due.pause_ms / 1000)
    return _poll(folder, source, runtime, purpose, state, key, salt)


def _poll(
    folder: str, source: Settings, runtime: Runtime, purpose: Purpose, state: State, key: credentials.Credential, salt: bytes
) -> events.Event:
    """Ask, write the results to the log, and remember how it ended."""
    poller, now, results = source.poller, runtime.clock(), Results()
    ask = Ask(
        source=poller.source,
        url=source.url,
        secret=key.secret,
        now=now,
        version=runtime.version,
        salt=salt,
        options=source.options,
        rules=poll_sources.rules(),
        marks=state.marks,
        owner=key.owner,
        plan=key.plan,
        since=purpose.since,
        checking=purpose.checking,
        first_salt=datadir.first_salt(folder),
    )
    before, state = state.status, etiquette.after_request(state, now)
    poll_sources.remember(folder, poller.name, state)
    trouble, count = _ask(source, runtime, ask, results)
    fresh = news(folder, _sound(results))
    store.append(folder, map(jsonl.line_of, fresh), owner=runtime.owner)
    now = runtime.clock()
    if trouble is None:
        state = etiquette.after_answer(state, now, results.marks)
    else:
        state = etiquette.after_trouble(state, now, trouble, key.fingerprint, results.marks)
    poll_sources.remember(folder, poller.name, state)
    next_due = 0 if state.stopped == key.fingerprint else etiquette.due_at(state, source.interval_ms)
    row = _row(source, state.status, state.why if trouble else "", _remedy(source, trouble), next_due)
    row |= {"asked": count, "readings": len(results.events), "new": len(fresh)}
    if results.notices:
        row["notices"] = results.notices
    if trouble is not None and before != state.status:
        row["begun"] = True
    return row


def _sound(results: Results) -> list[events.Event]:
    """The events of a run that the log accepts; a notice says how many it does not."""
    sound = [event for event in results.events if not fields.fault(event)]
    if len(sound) < len(results.events):
        results.notices.append(f"{len(results.events) - len(sound)} readings hold values that cannot be right; skipped")
    return sound


def _ask(source: Settings, runtime: Runtime, ask: Ask, results: Results) -> tuple[Trouble | None, int]:
    """Carry out a poller's requests; what went wrong, and how many requests there were."""
    from tokenops import https  # with its subprocess 8 ms, which --help and a run with nothing due need not pay

    name = source.poller.name
    asker: https.Web | https.Client
    if source.url:
        asker = https.Web(runtime.timeout)
    else:
        asker = https.Client(command(source, runtime), runtime.environment, runtime.home, runtime.timeout)
    trouble = None
    try:
        if isinstance(asker, https.Web):
            etiquette.run_steps(poll_sources.web_poller(name)(ask, results), asker)
        else:
            etiquette.run_steps(poll_sources.client_poller(name)(ask, results), asker)
    except Trouble as error:
        trouble = error
    finally:
        asker.close()
    return trouble, asker.count


def command(source: Settings, runtime: Runtime) -> list[str]:
    """The command that starts the app-server of Codex: the configured one, or the one on the path."""
    if source.command:
        return [*map(os.path.expanduser, shlex.split(source.command)), "app-server"]
    return ["codex", "app-server"]


def _without_credential(folder: str, source: Settings, state: State, error: credentials.Missing, now: int) -> events.Event:
    row = _row(source, error.status, str(error))
    if state.status != error.status:
        row["begun"] = True
        poll_sources.remember(folder, source.poller.name, state._replace(status=error.status, why=str(error), why_at=now))
    return row


def _not_due(source: Settings, state: State, status: str) -> events.Event:
    if status == etiquette.STOPPED:
        remedy = f"tok-poll enable {source.poller.name} tries again, with another credential"
        return _row(source, status, state.why, remedy)
    why = state.why if status == etiquette.WAITING else ""
    return _row(source, status, why, "", etiquette.due_at(state, source.interval_ms))


def _remedy(source: Settings, trouble: Trouble | None) -> str:
    """What the user can do."""
    if trouble is None or trouble.kind in (etiquette.LIMITED, etiquette.FAILING):
        return ""
    if trouble.kind == etiquette.CHANGED:
        return "look for a newer TokenOps; tok-proxy and the clients' own files work without this source"
    return f"it is not asked again until you change the credential: tok-poll enable {source.poller.name}"


def _row(source: Settings, status: str, why: str = "", todo: str = "", next_due: int = 0) -> events.Event:
    """The record of a run."""
    more = {"why": why, "todo": todo, "next_due": when.stamp(next_due) if next_due else ""}
    row: events.Event = {"v": 1, "kind": "poll", "source": source.poller.name, "status": status}
    return row | {key: value for key, value in more.items() if value}


def news(folder: str, polled: Iterable[events.Event]) -> list[events.Event]:
    """The events that the log does not hold yet: a bucket that did not change is not written again."""
    fresh = {event["id"]: event for event in polled}
    days = [event["ts"] for event in fresh.values() if event["kind"] == "usage"]
    if days:
        for line in store.scan(folder, min(days), when.stamp(when.moment(max(days)) + 1)):
            if store.kind_of(line) == b"usage":
                stored = orjson.loads(line)
                if stored["id"] in fresh and _says_the_same(stored, fresh[stored["id"]]):
                    del fresh[stored["id"]]
    return list(fresh.values())


def _says_the_same(first: events.Event, second: events.Event) -> bool:
    return {**first, "observed_at": ""} == {**second, "observed_at": ""}


def _has_passive_reading(folder: str, key: credentials.Credential, salt: bytes, now: int) -> bool:
    """Whether a source that needs no token gave a reading of this account's plan lately."""
    mine = projects.hash_path(key.owner, salt) if key.owner else ""
    since = now - poll_sources.rules()["passive_minutes"] * etiquette.MINUTE
    return any(
        reading.key.provider == "anthropic"
        and reading.source in _PASSIVE
        and reading.key.account in ("", mine or reading.key.account)
        for reading in limit_log.readings(folder, since, now)
    )


def statuses(folder: str, configuration: config.Config, names: Iterable[str], runtime: Runtime) -> Iterator[events.Event]:
    """A record per source: its settings, its credential and its last run. Raises config.Unusable.

    Files that hold credentials are opened only if a source is enabled.
    """
    remembered, table = poll_sources.states(folder), poll_sources.pollers()
    count = _readings(folder, runtime.clock())
    for name in names:
        if name in readers.SECTIONS:
            enabled = readers.is_enabled(name, configuration.get("vendor_usage"))
            yield {"v": 1, "kind": "poller", "source": name, "enabled": enabled, "read_by": "tok-sync"}
            continue
        poller, state = table.get(name) or poll_sources.poller_of(name), remembered.get(name, State())
        source = poll_sources.settings(configuration, poller)
        row: events.Event = {"v": 1, "kind": "poller", "source": name, "enabled": source.enabled}
        row |= {"interval_s": source.interval_ms // 1000, "gives": poller.gives}
        if source.enabled:
            row |= _standing(folder, source, state, runtime)
        row |= {key: when.stamp(at) for key, at in (("last_success", state.ok_at), ("last_error_at", state.why_at)) if at}
        if state.why:
            row["last_error"] = state.why
        yield row | {"readings_24h": count.get(poller.source, 0), "caveat": poller.caveat}


def _standing(folder: str, source: Settings, state: State, runtime: Runtime) -> events.Event:
    """Credential, status and next request of an enabled source."""
    now, row = runtime.clock(), events.Event()
    if source.warnings:
        row["warnings"] = list(source.warnings)
    if source.poller.consent and not source.consented:
        return row | {"status": poll_sources.UNCONSENTED}
    try:
        key = poll_sources.credential(source, runtime, datadir.salt(folder), now)
    except credentials.Missing as error:
        return row | {"status": error.status, "why": str(error)}
    row["credential"] = key.where
    if state.stopped and state.stopped == key.fingerprint:
        return row | {"status": etiquette.STOPPED}
    row["status"] = state.status or "never_asked"
    return row | {"next_due": when.stamp(max(etiquette.due_at(state, source.interval_ms), now))}


def _readings(folder: str, now: int) -> dict[str, int]:
    """How many readings of each polled source the log holds that were taken in the last 24 hours."""
    since, count = when.stamp(now - when.DAY), dict[str, int]()
    for line in store.scan(folder, when.stamp(now - 3 * when.DAY), when.stamp(now + when.DAY)):
        if store.header(line).source.startswith("vendor-"):
            event = orjson.loads(line)
            if str(event.get("observed_at", event["ts"])) >= since:
                count[event["source"]] = count.get(event["source"], 0) + 1
    return count


_STATUSES = {"never_asked": "never asked", poll_sources.UNCONSENTED: "not agreed to"}


def status_table(rows: list[events.Event], shape: str, color: bool, now: int, verbose: bool = False) -> str:
    """The records of `statuses` for people."""
    enabled = ["yes" if row["enabled"] else "no" for row in rows]
    columns = [
        show.Column("source", [row["source"] for row in rows], False, 0),
        show.Column("enabled", enabled, False, 1, styles=["good" if row["enabled"] else "" for row in rows]),
        show.Column("credential", [row.get("credential", "") for row in rows], False, 4),
        show.Column("status", list(map(_status, rows)), False, 0, styles=list(map(_style, rows))),
        show.Column("last success", [_ago(row.get("last_success", ""), now) for row in rows], False, 2),
        show.Column("next due", [_due(row.get("next_due", ""), now) for row in rows], False, 3),
        show.counts("readings, 24 h", [row.get("readings_24h", 0) for row in rows], 3, "readings"),
    ]
    notes = [f"{row['source']}: {text}" for row in rows for text in (*row.get("warnings", ()), *_why(row, now))]
    if len(rows) == 1 and "caveat" in rows[0]:
        notes.append(rows[0]["caveat"])
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose or len(rows) == 1)


def _style(row: events.Event) -> str:
    """How a status is painted: what worked, and what did not."""
    status = row.get("status", "")
    return "good" if status == etiquette.OK else "" if status in (*QUIET, *_STATUSES, "") else "bad"


def _status(row: events.Event) -> str:
    if "read_by" in row:
        return f"read by {row['read_by']}"
    status = str(row.get("status", ""))
    return _STATUSES.get(status, status.replace("_", " "))


def _why(row: events.Event, now: int) -> Iterator[str]:
    if "why" in row:
        yield row["why"]
    elif row["enabled"] and row.get("last_error"):
        yield f"{row['last_error']} ({_ago(row['last_error_at'], now)})"


def _ago(stamp: str, now: int) -> str:
    return when.ago(when.moment(stamp), now) if stamp else ""


def _due(stamp: str, now: int) -> str:
    """How soon a moment comes."""
    return f"in {max(when.moment(stamp) - now + 59_999, 0) // 60_000} min" if stamp else ""


def run_table(rows: list[events.Event], shape: str, color: bool, now: int, verbose: bool = False) -> str:
    """The records of a run for people."""
    columns = [
        show.Column("source", [row["source"] for row in rows], False, 0),
        show.Column("status", [row["status"].replace("_", " ") for row in rows], False, 0, styles=list(map(_style, rows))),
        show.counts("asked", [row.get("asked", 0) for row in rows], 3),
        show.counts("readings", [row.get("readings", 0) for row in rows], 1),
        show.counts("new", [row.get("new", 0) for row in rows], 2),
        show.Column("next due", [_due(row.get("next_due", ""), now) for row in rows], False, 2),
    ]
    notes = [f"{row['source']}: {text}" for row in rows for text in _notes(row)]
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose=True)


def _notes(row: events.Event) -> Iterator[str]:
    if "why" in row:
        yield row["why"]
    if "todo" in row:
        yield row["todo"]
    yield from row.get("notices", ())
