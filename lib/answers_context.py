"""Answers what filled a context, by cause, with its cache breaks, and what the settings behind it cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from tokenops import answers_work, events
from tokenops.answers import OPEN, ignore, thresholds
from tokenops.session import Fault, Log

if TYPE_CHECKING:
    from tokenops import context
    from tokenops.coach_setup import Advice, MemoryFile
    from tokenops.context_wire import Composition
    from tokenops.events import Event, Filter
    from tokenops.jsonl import OnBadLine

# The kinds of records that the answer is made of.
KINDS = ("turn", "context", "usage")


# Files that Claude Code puts into each context: the user's, and those of a project (code.claude.com, 2026-11).
_USERS, _PROJECTS = "CLAUDE.md", ("CLAUDE.md", "CLAUDE.local.md", os.path.join(".claude", "CLAUDE.md"))
_MOST = 4 << 20  # no file of settings or memory is larger


class Query(NamedTuple):
    """What is asked: a session (the beginning of its id), or a span. `by` is one of context_report.STORED, or FILE."""

    session: str = ""
    since: str = ""
    until: str = OPEN
    only: Filter = events.EVERY
    by: str = "cause"
    live: Files | None = None  # read the session's own files now
    by_turn: bool = False  # also state the prompt of each turn


class Files(NamedTuple):
    """Where the clients' files are."""

    environment: Mapping[str, str]
    home: str


class Causes(NamedTuple):
    """What filled the context: a row per cause, the dearest first, their total, and the cache breaks by time.

    `prompts`: of each turn the tokens of its prompt by cause, if they were asked for.
    """

    rows: list[Event]
    total: Event
    breaks: list[Event]
    prompts: Mapping[str, Mapping[str, int]] = {}


def causes(log: Log, query: Query, on_bad_line: OnBadLine = ignore) -> Causes:
    """What filled the context of a session, or of all turns of a span. Raises BadRequest, Fault."""
    from tokenops import context, context_breaks, context_costs, context_report

    chosen = choice(log, query, on_bad_line)
    if query.live is not None:
        _add_live(chosen, query.live, query.by == context_report.FILE)
    bill = context_costs.Bill(log.catalogue(), context_report.label_of(query.by))
    watch = context_breaks.Breaks(log.catalogue())
    apart = context_report.LEAST_SEGMENT if query.by == context_report.SEGMENT else 0
    turns, breaks, last = [], [], None
    prompts: dict[str, Mapping[str, int]] = {}
    for share in context.shares(chosen.turns, chosen.records, apart):
        met = watch.at(share)
        if chosen.takes(share.turn):
            turns.append(share.turn)
            bill.add(share)
            if query.by_turn:
                prompts[share.turn["id"]] = context_report.prompt_of(share)
            if not share.turn.get("sidechain") and share.turn.get("turns") and (last is None or _is_later(share, last)):
                last = share
            breaks += [context_report.break_row(met)] if met is not None else []
    for rest in _rests(chosen, {turn.get("session_id") for turn in turns}):
        turns.append(rest)
        bill.add(context.shares_of_total(rest))
    rows, total = context_report.sums(bill, query.by, turns)
    if apart:
        _place_segments(rows, turns, last)
    total |= context_report.break_sums(breaks) | _labels(log, chosen, turns)
    return Causes(rows, total, sorted(breaks, key=lambda row: (row["ts"], row["turn"])), prompts)


def _is_later(share: context.Shares, other: context.Shares) -> bool:
    return _time(share.turn) > _time(other.turn)


def _place_segments(rows: list[Event], turns: list[Event], last: context.Shares | None) -> None:
    """Note of each segment the number of its turn, as tok-trace counts, and whether the last turn's prompt still has it."""
    from tokenops import context

    answered = sorted((turn for turn in turns if turn.get("turns") and turn["kind"] == "turn"), key=_time)
    numbers = {turn["id"]: number for number, turn in enumerate(answered, 1)}
    prompt = [part for part in last.parts if part.kind != context.PRODUCING] if last else ()
    present = {context.segment_of(cause) for part in prompt for cause in part.tokens}
    live = {(name.partition("|")[0], turn) for name, turn in present if turn}
    for row in rows:
        if row["segment"] is not None:
            if row["segment"] in numbers:
                row["n"] = numbers[row["segment"]]
            row["in_context"] = (row["cause"], row["segment"]) in live


def _time(turn: Event) -> tuple[str, str]:
    return turn["ts"], turn["id"]


def _add_live(chosen: Chosen, files: Files, by_file: bool) -> None:
    """Put what the client's own files say now in the place of stored sizes. Raises Fault."""
    from tokenops import readers

    try:
        sizes = readers.live_sizes(chosen.session, *files, by_file)
    except readers.NotFound as error:
        raise Fault(str(error)) from None
    turns = chosen.turns.keys() & sizes.keys()
    if not turns:
        raise Fault("Claude Code's own files of this session are not here; leave out --live and --by file")
    for name in turns:
        chosen.records[name] = chosen.records.get(name, {}) | sizes[name]


def request(log: Log, session: str = "", turn: str = "", by_tool: bool = False) -> Composition | None:
    """What the last request of a session was made of, or that of one turn, as tok-proxy saw it; None if it saw none.

    `session` and `turn`: the beginnings of their ids; without a session, that of the last request. Raises BadRequest.
    """
    from tokenops import context, context_wire, store_sessions

    name = session or store_sessions.latest_on_wire(log.folder)
    if not name:
        return None
    _, records = answers_work.session_records(log, name)
    turns = {record["id"]: record for record in records if record["kind"] == "turn"}
    seen = context.by_turn(record for record in records if record["kind"] == "context")
    requests = [
        each for each in seen.values() if "parts" in each and each["turn"] in turns and each["turn"].startswith(turn)
    ]
    if not requests:
        return None
    last = max(requests, key=lambda each: (turns[each["turn"]]["ts"], each["turn"]))
    tables = (each["tools"] for each in seen.values() if "tools" in each and each["toolset"] == last.get("toolset"))
    sizes: dict[str, int] = last.get("tools") or next(tables, {})
    return context_wire.composition(turns[last["turn"]], last, sizes, by_tool)


def latest_session(log: Log, only: Filter = events.EVERY) -> str:
    """The session of the last turn that a filter takes; "" if there is none."""
    from tokenops import store, store_sessions

    return store_sessions.latest(log.folder, only, store.labels(log.folder))


def _labels(log: Log, chosen: Chosen, turns: list[Event]) -> Event:
    """What the total says of its turns: their sessions, their span, and as of when."""
    labels: Event = {"sessions": len({turn.get("session_id") for turn in turns})}
    if chosen.session and turns:
        last = max(turns, key=_time)
        labels |= {name: last[name] for name in ("session_id", "client", "project") if name in last}
    if turns:
        labels |= {"from": min(turn["ts"] for turn in turns), "to": max(turn["ts"] for turn in turns)}
    return labels | ({"as_of": log.as_of} if log.as_of else {})


class Chosen(NamedTuple):
    """Turns with all their ancestors, their records of kind context, totals of sessions, and which of them are asked for."""

    session: str
    turns: dict[str, Event]
    records: dict[str, Event]
    totals: list[Event]
    takes: Callable[[Event], bool]


def _rests(chosen: Chosen, sessions: set[str | None]) -> Iterator[Event]:
    """The totals of sessions that count beside the turns, as in all other sums."""
    if not chosen.totals:
        return
    from tokenops import rollup

    sums = rollup.Totals()
    for total in chosen.totals:
        if rollup.is_counted(total) and chosen.takes(total):
            sums.add(total)
    yield from sums.take(sessions)


def choice(log: Log, query: Query, on_bad_line: OnBadLine) -> Chosen:
    """The turns that are asked for, their ancestors, and the records of both. Raises BadRequest, Fault."""
    from tokenops import store, store_sessions

    labels, session = store.labels(log.folder), ""
    if query.session:
        session, records = answers_work.session_records(log, query.session)
    else:
        records = store_sessions.of_span(log.folder, query.since, query.until, KINDS, on_bad_line)

    def takes(record: Event) -> bool:
        inside = record.get("session_id") == session if session else query.since <= record["ts"] < query.until
        return inside and query.only.takes(record)

    chosen = Chosen(session, {}, {}, [], takes)
    _add(chosen, records, labels)
    if not session and query.since:
        _add(chosen, _earlier(log, chosen, query.since), labels)
    _add(chosen, store_sessions.ancestors(log.folder, [*chosen.turns.values(), *chosen.records.values()]), labels)
    return chosen


def _add(chosen: Chosen, records: Iterable[Event], labels: Mapping[str, str]) -> None:
    from tokenops import context, projects

    for record in records:
        if record["kind"] == "turn":
            chosen.turns.setdefault(record["id"], projects.relabel(record, labels))
        elif record["kind"] == "context":
            context.add(chosen.records, record)
        elif record["kind"] == "usage":
            chosen.totals.append(projects.relabel(record, labels))


def _missing(chosen: Chosen) -> dict[str, Event]:
    """Parent -> a turn that names it, of parents that were not read."""
    return {
        record["parent"]: chosen.turns[name]
        for name, record in chosen.records.items()
        if record.get("parent") and record["parent"] not in chosen.turns and name in chosen.turns
    }


def _earlier(log: Log, chosen: Chosen, since: str) -> list[Event]:
    """What the sessions of a span had before it, where a turn's parent lies there."""
    from tokenops import store_sessions

    sessions = {str(turn["session_id"]) for turn in _missing(chosen).values() if "session_id" in turn}
    if not sessions:
        return []
    days = answers_work.session_days(log)
    among = {day for session in sessions for day in days.days_of(session) if day <= since[:10]}
    records = store_sessions.of_sessions(log.folder, sessions, among)
    return [record for record in records if record["ts"] < since and record["kind"] != "usage"]


def advice(
    log: Log,
    since: str,
    until: str,
    only: Filter,
    environment: Mapping[str, str],
    home: str,
    on_bad_line: OnBadLine = ignore,
) -> list[Advice]:
    """What the settings cost in a span, the dearest first."""
    from tokenops import coach_setup, context, guard_install, projects, store

    watch = coach_setup.Setup(log.catalogue(), thresholds(log.settings)["setup"])
    chosen = choice(log, Query(since=since, until=until, only=only), on_bad_line)
    for share in context.shares(chosen.turns, chosen.records):
        if chosen.takes(share.turn):
            watch.add(share)
    settings = guard_install.settings_path(environment, home)
    folder = os.path.dirname(settings)
    config = os.path.join(folder if environment.get("CLAUDE_CONFIG_DIR") else home, ".claude.json")
    paths = store.project_paths(log.folder)
    files = {project: list(_memory(folder, path)) for project, path in paths.items()}
    names = projects.labels(paths)
    servers = coach_setup.always_loaded(
        guard_install.settings_in(config), config, guard_install.settings_in(settings), settings
    )
    every = [
        *watch.caches(settings),
        *watch.efforts(settings),
        *watch.memory(files, lambda project: names.get(project, "")),
        *watch.servers(servers),
    ]
    return sorted(every, key=lambda each: (each.usd is None, -(each.usd or 0)))


def _memory(folder: str, project: str) -> Iterator[MemoryFile]:
    """The memory files of the user and of a project that are there."""
    from tokenops.coach_setup import MemoryFile

    for path in (os.path.join(folder, _USERS), *(os.path.join(project, name) for name in _PROJECTS)):
        text, changed = _text(path)
        if text:
            yield MemoryFile(path, len(text), changed)


def _text(path: str) -> tuple[str, int]:
    """The text of a small file, and when it was changed (ms); "" if it cannot be read."""
    from tokenops import regular

    try:
        with open(path, "rb", opener=regular.opener) as file:
            status = os.fstat(file.fileno())
            data = file.read(_MOST + 1)
    except OSError:
        return "", 0
    return ("" if len(data) > _MOST else data.decode(errors="replace")), status.st_mtime_ns // 1_000_000


def verdicts(log: Log, settings: Iterable[tuple[str, str, str]]) -> list[Event]:
    """What came of settings that were changed: key, value, and since when."""
    import orjson

    from tokenops import coach_setup, store, when

    rows = []
    for key, value, at in settings:
        begin = when.stamp(when.moment(at) - 14 * when.DAY)
        turns = (orjson.loads(line) for line in store.scan(log.folder, begin, OPEN) if store.kind_of(line) == b"turn")
        applied = coach_setup.Applied(key, value, at)
        rows.append(coach_setup.verdict(turns, applied, log.catalogue(), when.stamp(log.now)))
    return rows
