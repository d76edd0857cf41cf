"""Reads the journals of Mistral Vibe's sessions and returns turns.

A session is a folder `unified/<session>` with a journal in segments and `meta.json`. A request's result is a line
`action_result` with its `usage`: `input_tokens` includes what came from the cache. The same counts stand again in
`core_input`, and as sums in `projection_delta`. Results have no time; the input before a result, which set it off, has
one. No line names a model: `meta.json` has the session's. (Seen in Mistral Vibe 3.0.2 on 2026-11-29; times as other
readers of these journals know them, November 2026.)

Vibe keeps the two newest segments and removes the others with their results. What the session has used in all stands in
`generations/<number>/projection-state.json` as `tokenUsage`, of which also the two newest are kept. So what these sums
hold beyond the turns is a remainder, and of a session without any turn they are its total. (`_RETAINED_GENERATIONS` of
the package's `_storage.py`, and a run beside a vendor's ledger, Mistral Vibe 3.0.2 on 2026-12-01.)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from tokenops import events, jsonl, read_lines, read_records, untrusted, when
from tokenops.read_contract import FileReader, Intake

SOURCE = "mistral-vibe"
CLIENT = "mistral-vibe"

_SESSIONS = os.path.join("logs", "session")
_RELEVANT = read_lines.containing(b'"action_result"', b'"core_input"')
_SUMS = "projection-state.json"
_RESULT_NAMES = ("input_tokens", "output_tokens", "cached_input_tokens", "total_tokens")
_SUMS_NAMES = ("inputTokens", "outputTokens", "cachedInputTokens", "totalTokens")


class Session(NamedTuple):
    """What is kept beside a session's journal."""

    name: str = ""
    root: str = ""
    branch: str = ""
    model: str = ""
    began: str = ""
    parent: str = ""
    children: tuple[str, ...] = ()


def files(home: str) -> Iterator[str]:
    """The segments and the sums of a Vibe home, of its folder of sessions, or of one session."""
    candidates = (os.path.join(home, _SESSIONS, "unified"), os.path.join(home, "unified"), home)
    for path in read_lines.walk(next(filter(os.path.isdir, candidates), home)):
        if _is_segment(path) or _is_sums(path):
            yield path


def _is_segment(path: str) -> bool:
    return path.endswith(".jsonl") and os.path.basename(os.path.dirname(path)) == "journal"


def _is_sums(path: str) -> bool:
    folder, name = os.path.split(path)
    return name == _SUMS and os.path.basename(os.path.dirname(folder)) == "generations"


def claims(path: str, head: bytes) -> bool:
    """Whether a file is a segment of a journal, or has a session's sums."""
    if os.path.basename(path) == _SUMS:
        return b'"projection_state_version"' in head
    return path.endswith(".jsonl") and b'"recovery_journal_record_version"' in head


def hints(home: str) -> Iterator[str]:
    """What to know of sessions that were kept in another form."""
    folder = os.path.join(home, _SESSIONS)
    try:
        older = sum(name.startswith("session_") for name in os.listdir(folder))
    except OSError:
        return
    if older:
        yield f"{folder}: {older} sessions of Mistral Vibe before version 3 are not read: they keep no requests"


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of one segment from the cursor on, or what a session's sums say. Raises OSError, BadRecord.

    With new turns come the sums of their session again: what they hold beyond its turns is less now.
    """
    above = os.path.dirname(os.path.dirname(path))
    folder = os.path.dirname(above) if os.path.basename(path) == _SUMS else above
    session = meta(folder)
    name = session.name or os.path.basename(folder)
    session = session._replace(name=name)
    attribution = intake.attribution(SOURCE, CLIENT, session.root, "", name)
    if session.parent and name in meta(os.path.join(os.path.dirname(folder), session.parent)).children:
        attribution["sidechain"] = True
    if os.path.basename(path) == _SUMS:
        intake.location = path
        yield from _sums(path, cursor, session, attribution, intake)
        return
    for location, turn in _turns(path, cursor, session, attribution, intake.on_bad_line):
        intake.location = location
        yield turn
    if intake.options.whole_sums:
        for other in _paths_in(folder, "generations"):
            with contextlib.suppress(OSError, events.BadRecord):  # reported when it is read itself
                yield from _sums(os.path.join(other, _SUMS), read_lines.Cursor(), session, attribution, intake)


def _turns(
    path: str, cursor: read_lines.Cursor, session: Session, attribution: untrusted.Raw, on_bad_line: jsonl.OnBadLine
) -> Iterator[tuple[str, events.Event]]:
    """Location and turn of each result with counts in a segment. Raises OSError."""
    for location, line in read_lines.records(path, cursor, _RELEVANT, on_bad_line):
        payload = untrusted.mapping(line.get("payload"))
        if line.get("type") == "core_input":
            cursor.state["sent"] = _time_of(payload) or cursor.state.get("sent", "")
        if line.get("type") != "action_result":
            continue
        result = untrusted.mapping(payload.get("result"))
        try:
            counts = counts_of(untrusted.mapping(untrusted.mapping(result.get("result")).get("usage")))
        except events.BadRecord as error:
            on_bad_line(location, f"{error}; skipped")
            continue
        if not counts:  # of a tool, or of a request that failed
            continue
        action = untrusted.identity(payload.get("action_id")) or untrusted.identity(result.get("action_id"))
        yield (
            location,
            read_records.turn(
                cursor.state.get("sent") or session.began or _file_time(path),
                f"{CLIENT}:{session.name}:{action or untrusted.identity(line.get('sequence')) or events.digest(counts)}",
                attribution,
                session.model,
                counts,
                "",
                session.name,
                branch=session.branch,
            ),
        )


def _sums(
    path: str, cursor: read_lines.Cursor, session: Session, attribution: untrusted.Raw, intake: Intake
) -> Iterator[events.Event]:
    """What a session used up to the time of its sums: as its total, or beyond its turns. Raises OSError, BadRecord.

    If `tok-sync` reads, both, without subtracting: only the log knows the turns that were read before Vibe removed them.
    Whoever reads on without a log gets none: nobody knows what was read before.
    """
    value = untrusted.mapping(untrusted.mapping(read_lines.document(path, cursor).get("snapshot")).get("session"))
    usage = untrusted.mapping(value.get("tokenUsage"))
    counts = counts_of(usage, _SUMS_NAMES)
    if not counts or (intake.options.resumable and not intake.options.whole_sums):
        return
    changed = untrusted.moment(value.get("updatedAt"), "updatedAt")
    began = session.began or untrusted.moment(value.get("createdAt"), "createdAt")
    whole, name, turns = sum(counts.values()), session.name, list[events.Event]()
    if not intake.options.whole_sums:
        turns = _turns_left(os.path.dirname(os.path.dirname(os.path.dirname(path))), session, attribution)
    rest = read_records.aggregate(
        changed,
        f"remainder:{CLIENT}:{name}:{changed}",
        attribution,
        session.model,
        read_records.counts_beyond(counts, (turn for turn in turns if turn["ts"] <= changed)),
        covers=events.REMAINDER,
        total_tokens=whole,
        branch=session.branch,
    )
    if intake.options.whole_sums or (turns and events.token_sum(rest)):
        yield rest
    if not turns:
        identity = f"usage:{CLIENT}:{name}"
        yield read_records.aggregate(
            began, identity, attribution, session.model, counts, observed_at=changed, branch=session.branch
        )


def _turns_left(folder: str, session: Session, attribution: untrusted.Raw) -> list[events.Event]:
    """The turns in the segments that a session still has."""
    turns: dict[str, events.Event] = {}
    for path in filter(_is_segment, _paths_in(folder, "journal")):
        with contextlib.suppress(OSError):
            rows = _turns(path, read_lines.Cursor(), session, attribution, lambda location, why: None)
            turns |= {turn["id"]: turn for _, turn in rows}
    return list(turns.values())


def _paths_in(folder: str, kind: str) -> list[str]:
    """The paths in one of a session's folders, in order of name; none if it cannot be listed."""
    try:
        return [os.path.join(folder, kind, name) for name in sorted(os.listdir(os.path.join(folder, kind)))]
    except OSError:
        return []


def counts_of(usage: untrusted.Raw, names: tuple[str, str, str, str] = _RESULT_NAMES) -> dict[str, int]:
    """The record's disjoint counts; none for what is no request. Raises BadRecord.

    `names`: of the input, the output, what of the input came from the cache, and the total.
    """
    sent, output, read_, total = (untrusted.count(usage, name) for name in names)
    if not sent and not output and total:
        raise events.BadRecord("only a total is given, so input and output are unknown")
    return read_records.counts_of(sent, read_, 0, output)


def meta(folder: str) -> Session:
    """What is kept beside a session's journal; nothing if that is missing or damaged."""
    try:
        value = read_lines.document(os.path.join(folder, "meta.json"), read_lines.Cursor())
    except (OSError, events.BadRecord):
        return Session()
    config, parent = untrusted.mapping(value.get("config")), untrusted.identity(value.get("parent_session_id"))
    try:
        began = untrusted.moment(value.get("start_time"), "start_time")
    except events.BadRecord:
        began = ""
    children = untrusted.items(value.get("child_sessions"))
    return Session(
        untrusted.identity(value.get("session_id")),
        untrusted.path(untrusted.mapping(value.get("environment")).get("working_directory"))
        or untrusted.path(value.get("origin_directory")),
        untrusted.tag(value.get("git_branch")),
        untrusted.text(config.get("model_name")) or untrusted.text(config.get("active_model")),
        began,
        parent if os.path.basename(parent) == parent else "",
        tuple(untrusted.identity(untrusted.mapping(child).get("session_id") or child) for child in children),
    )


def _time_of(payload: untrusted.Raw) -> str:
    """The time of an input; "" if it has none."""
    determinism = untrusted.mapping(untrusted.mapping(payload.get("input")).get("determinism"))
    try:
        return untrusted.moment(determinism.get("time_unix_ms"))
    except events.BadRecord:
        return ""


def _file_time(path: str) -> str:
    return when.stamp(max(os.stat(path).st_mtime_ns // 1_000_000, 0))


class Journals(FileReader):
    """Journals lose their oldest segments, so the log has turns that the files no longer have."""

    whole_sums = True


READER = Journals(SOURCE, CLIENT, files, claims, read, hints)
