"""Answers Claude Code's hooks: repeated reads of unchanged files, and sessions over their budget.

A read is a repeat if the same agent of the same session has read all its lines since it was last compacted, and the file
has not changed. Only reads that succeeded count. If anything here fails, the agent goes on.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tokenops import datadir, events, light, machines, untrusted, when
from tokenops.events import Event

if TYPE_CHECKING:
    from tokenops.pricing import Catalogue

OBSERVE, ACTIVE = "observe", "active"
MODES = (OBSERVE, ACTIVE)
SOURCE = "tok-guard"
# Lines that Claude Code's Read returns without a limit (the description of its tool, 2.1.197).
LINES = 2000
# Characters per token of code and prose: only for saved tokens, which are marked as estimated.
CHARACTERS = 4
_KEPT_MS = 3 * when.DAY
_MOST_PATHS = 5000
_PATIENCE_S = 5.0  # with a lock: the agent waits for the answer

Ranges = list[list[int]]


class Stat(NamedTuple):
    """What of a file changes when the file changes."""

    mtime: int
    size: int
    inode: int


def stat(path: str) -> Stat | None:
    """A file's size, time and inode; None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Stat(status.st_mtime_ns, status.st_size, status.st_ino)


def lines_of(read: Mapping[str, Any]) -> list[int] | None:
    """First and last line that a Read requests; None for pages of a document."""
    if read.get("pages") is not None:
        return None
    first, count = read.get("offset"), read.get("limit")
    start = first if type(first) is int and first > 0 else 1
    return [start, start + (count if type(count) is int and count > 0 else LINES) - 1]


def joined_ranges(ranges: Ranges) -> Ranges:
    """Ranges of lines in order, adjacent ones joined."""
    joined: Ranges = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1] + 1:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return joined


def is_covered(lines: Sequence[int], ranges: Ranges) -> bool:
    """Whether every line was read before."""
    return any(start <= lines[0] and lines[1] <= end for start, end in joined_ranges(ranges))


class Response(NamedTuple):
    """A hook's answer for Claude Code (empty: none), the session's new state, and records for the log."""

    answer: dict[str, Any]
    state: dict[str, Any]
    records: tuple[Event, ...] = ()


def fresh(now: int) -> dict[str, Any]:
    """The state of a new session."""
    return {"at": now, "reads": {}, "counts": {}, "spared": [], "said": 0.0}


def usable(state: object) -> bool:
    """Whether a value read from a file is a complete state."""
    if not isinstance(state, dict):
        return False
    kinds: dict[str, tuple[type, ...]] = {"at": (int,), "reads": (dict,), "counts": (dict,), "spared": (list,)}
    kinds["said"] = (int, float)
    if not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
        return False
    reads = all(
        isinstance(entry, dict)
        and "ranges" in entry
        and all(_are_numbers(lines, 2) for name in ("ranges", "denied") for lines in untrusted.items(entry.get(name, [])))
        and all(type(entry.get(name, 0)) is int for name in ("size", "lines"))
        for entry in state["reads"].values()
    )
    return reads and all(isinstance(item, list) and item and _are_numbers(item[1:], 3) for item in state["spared"])


def _are_numbers(value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(number) is int for number in value)


def key_of(payload: Mapping[str, Any], salt: bytes) -> str:
    """The name of a file for one agent of a session: a salted hash, so that no path is stored."""
    path = untrusted.text(untrusted.mapping(payload.get("tool_input")).get("file_path"), 4096)
    agent = untrusted.text(payload.get("agent_id"), 200)
    text = f"{agent}\0{os.path.realpath(os.path.join(untrusted.text(payload.get('cwd'), 4096), path))}"
    return light.blake2b(text.encode(errors="replace"), key=salt[:64], digest_size=8).hexdigest() if path else ""


def response(payload: Mapping[str, Any], state: dict[str, Any], mode: str, salt: bytes, now: int) -> Response:
    """The answer to one hook."""
    event, tool = payload.get("hook_event_name"), payload.get("tool_name")
    state = {**state, "at": now}
    if event == "PreToolUse" and tool == "Read":
        return _before_read(payload, state, mode, salt)
    if event == "PostToolUse" and tool == "Read":
        return Response({}, _after_read(payload, state, salt))
    if event == "PreCompact" or (event == "SessionStart" and payload.get("source") != "startup"):
        return Response({}, {**state, "reads": {}})  # the agent no longer sees what it read
    if event in ("Stop", "SubagentStop", "SessionEnd"):
        return _saving(payload, state, now)
    return Response({}, state)


def _file(payload: Mapping[str, Any]) -> str:
    path = untrusted.text(untrusted.mapping(payload.get("tool_input")).get("file_path"), 4096)
    return os.path.join(untrusted.text(payload.get("cwd"), 4096), path)


def _before_read(payload: Mapping[str, Any], state: dict[str, Any], mode: str, salt: bytes) -> Response:
    """Allow or deny a Read. A Read that was denied is allowed if the agent requests any of its lines again."""
    key, lines = key_of(payload, salt), lines_of(untrusted.mapping(payload.get("tool_input")))
    state = _with_count(state, "reads")
    entry = state["reads"].get(key)
    if not key or entry is None:
        return Response({}, state)
    if lines is None or entry.get("stat") != list(stat(_file(payload)) or ()):
        return Response({}, _with_count(state, "changed"))
    if not is_covered(lines, entry["ranges"]):
        return Response({}, _with_count(state, "other_lines"))
    if any(_overlap(lines, denied) for denied in entry.get("denied", ())):
        # It no longer sees the file: what it was denied was not saved, and what it read before does not count.
        spared = [denied for denied in state["spared"] if denied[0] != key or not _overlap(lines, denied[1:3])]
        reads = {name: read for name, read in state["reads"].items() if name != key}
        return Response({}, {**_with_count(state, "insisted"), "reads": reads, "spared": spared})
    state = _with_count(state, "redundant")
    if mode != ACTIVE:
        return Response({}, state)
    state = _with_read(state, key, {**entry, "denied": [*entry.get("denied", ()), lines]})
    return Response(_denial(lines), {**state, "spared": [*state["spared"], [key, *lines, _size_of(lines, entry)]]})


def _overlap(lines: Sequence[int], others: Sequence[int]) -> bool:
    return lines[0] <= others[1] and others[0] <= lines[1]


def _size_of(lines: Sequence[int], entry: Mapping[str, Any]) -> int:
    """How many characters these lines would have given, at most: their share of the last read of the file."""
    size, count, requested = int(entry.get("size", 0)), int(entry.get("lines", 0)), lines[1] - lines[0] + 1
    return size * requested // count if requested < count else size


def _denial(lines: Sequence[int]) -> dict[str, Any]:
    reason = (
        f"Lines {lines[0]} to {lines[1]} of this file were read before in this session, and it has not changed since: "
        "use what you have. Read it again if you no longer see it."
    )
    output = {"hookEventName": "PreToolUse", "permissionDecision": "deny", "permissionDecisionReason": reason}
    return {"hookSpecificOutput": output}


def _after_read(payload: Mapping[str, Any], state: dict[str, Any], salt: bytes) -> dict[str, Any]:
    """The state with the lines that a Read returned."""
    key, lines, now = key_of(payload, salt), lines_of(untrusted.mapping(payload.get("tool_input"))), stat(_file(payload))
    if not key or lines is None or now is None or len(state["reads"]) >= _MOST_PATHS:
        return state
    entry = state["reads"].get(key, {})
    ranges = entry.get("ranges", []) if entry.get("stat") == list(now) else []
    size = len(orjson.dumps(payload.get("tool_response"), default=str)) if "tool_response" in payload else now.size
    number = untrusted.mapping(untrusted.mapping(payload.get("tool_response")).get("file")).get("numLines")
    count = number if type(number) is int and number > 0 else lines[1] - lines[0] + 1
    read = {"stat": list(now), "ranges": joined_ranges([*ranges, lines]), "size": size, "lines": count}
    return _with_read(state, key, read)


def _with_read(state: dict[str, Any], key: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {**state, "reads": {**state["reads"], key: {name: value for name, value in entry.items() if value is not None}}}


def _with_count(state: dict[str, Any], name: str) -> dict[str, Any]:
    return {**state, "counts": {**state["counts"], name: state["counts"].get(name, 0) + 1}}


def _saving(payload: Mapping[str, Any], state: dict[str, Any], now: int) -> Response:
    """At the end of a turn: the agent went on without the lines that it was denied, so those are saved."""
    session = untrusted.text(payload.get("session_id"), 200)
    sizes = [denied[-1] for denied in state["spared"] if isinstance(denied, list) and denied and isinstance(denied[-1], int)]
    if not sizes:
        return Response({}, {**state, "spared": []})
    record: Event = {"v": events.VERSION, "ts": when.stamp(now), "kind": "saving"}
    record["id"] = f"saving:{events.digest(SOURCE, session, now, sizes)}"
    record |= {"source": SOURCE, "client": "claude-code"} | ({"session_id": session} if session else {})
    record |= {"saved_tokens": sum(sizes) // CHARACTERS, "by": "read_guard"}
    state = {**state, "spared": [], "counts": {**state["counts"], "spared": state["counts"].get("spared", 0) + len(sizes)}}
    return Response({}, state, (record,))


def notice(spent: float, rules: Mapping[str, float], last: float) -> tuple[str, float]:
    """A sentence for the user when the session passes a further share of its budget (else ""), and the last such share.

    The shares are those of the thresholds, then each further whole budget.
    """
    budget = rules["session_usd"]
    share = spent / budget if budget > 0 else 0.0
    shares = (notice for notice in (rules["first_notice"], rules["second_notice"]) if notice <= share)
    reached = float(int(share)) if share >= 1 else max(shares, default=0.0)
    if reached <= last:
        return "", last
    sentence = f"This session has used ${spent:.2f} at list price, {share:.0%} of its ${budget:.0f}"
    advice = (
        "every turn reads its context again: run /compact, or start a new session"
        if reached < 1
        else ("start a new session for the next task, or run /compact to make this one cheaper")
    )
    return f"{sentence}; {advice}. (tok-guard)", reached


# The state of each session, in a file of its own.


def state_path(folder: str, session: str) -> str:
    """The path of a session's state."""
    name = light.blake2b(session.encode(errors="replace"), digest_size=8).hexdigest()
    return os.path.join(folder, "guard", f"{name}.json")


def sums_path(folder: str, session: str) -> str:
    """The path of a session's sums (guard_sums); of no session ("") those of the account, for those without."""
    return state_path(folder, session).removesuffix(".json") + ".sums"


def sums(folder: str, session: str) -> Mapping[str, Any]:
    """What was worked out for a session's hooks, or for the account; empty if nothing was."""
    kept = datadir.kept_json(sums_path(folder, session))
    return untrusted.mapping(kept or datadir.kept_json(sums_path(folder, "")))


LIFT = "lifted.json"


def lifted_until(folder: str) -> int:
    """Until when nothing is stopped (milliseconds); 0 if nothing was lifted."""
    return untrusted.count(untrusted.mapping(datadir.kept_json(os.path.join(folder, "guard", LIFT))), "until")


def lift(folder: str, until: int) -> None:
    """Stop nothing until a moment. Raises OSError."""
    datadir.ensure_folder(os.path.join(folder, "guard"))
    datadir.keep_json(os.path.join(folder, "guard", LIFT), {"until": until}, durable=True)


def load(path: str, now: int) -> dict[str, Any]:
    """A session's state; a new one if it cannot be read."""
    state = datadir.kept_json(path)
    return state if usable(state) else fresh(now)


# Of a hook's event and what is remembered of the session: the answer, and what to remember.
Hear = Callable[[Mapping[str, Any], object], tuple[dict[str, Any], dict[str, Any]]]


def act(
    folder: str,
    payload: Mapping[str, Any],
    mode: str,
    now: int,
    salt: bytes,
    save: Callable[[Sequence[Event]], None],
    hear: Hear | None = None,
) -> dict[str, Any]:
    """Answer one hook and store the new state; one hook of a session at a time. Raises OSError.

    `hear` answers what is not a repeated read (guard_watch).
    """
    path = state_path(folder, untrusted.text(payload.get("session_id"), 200))
    datadir.ensure_folder(os.path.dirname(path))
    with datadir.lock(os.path.dirname(path), f"{os.path.basename(path)}.lock", patience=_PATIENCE_S):
        answered = response(payload, load(path, now), mode, salt, now)
        if hear is not None and not answered.answer:
            answer, memory = hear(payload, answered.state.get("heard"))
            answered = answered._replace(answer=answer, state={**answered.state, "heard": memory})
        datadir.keep_json(path, answered.state)
    if answered.records:
        save(answered.records)
    return answered.answer


def budget_notice(folder: str, session: str, spent: Decimal, rules: Mapping[str, float], now: int) -> str:
    """The notice about a session's budget, once for each share; "" if there is none. Raises OSError."""
    path = state_path(folder, session)
    with datadir.lock(os.path.dirname(path), f"{os.path.basename(path)}.lock", patience=_PATIENCE_S):
        state = load(path, now)
        text, reached = notice(float(spent), rules, float(state["said"]))
        if text:
            datadir.keep_json(path, {**state, "said": reached})
    return text


def forget_old(folder: str, now: int) -> int:
    """Delete the state of sessions without a hook in the last days, and return how many."""
    at, gone = os.path.join(folder, "guard"), 0
    try:
        names = os.listdir(at)
    except FileNotFoundError:
        return 0
    for name in names:
        path = os.path.join(at, name)
        try:
            if os.stat(path).st_mtime * 1000 < now - _KEPT_MS:
                os.unlink(path)
                gone += 1
        except OSError:
            continue
    return gone


def stats(folder: str) -> Event:
    """The counts of all sessions that still have a state."""
    counts: dict[str, int] = {}
    sessions = 0
    at = os.path.join(folder, "guard")
    for name in sorted(os.listdir(at)) if os.path.isdir(at) else ():
        state = datadir.kept_json(os.path.join(at, name)) if name.endswith(".json") and name != LIFT else None
        if isinstance(state, dict) and usable(state):
            sessions += 1
            for key, value in state["counts"].items():
                counts[key] = counts.get(key, 0) + (value if isinstance(value, int) else 0)
    names = ("reads", "redundant", "insisted", "other_lines", "changed", "spared")
    return {"v": 1, "kind": "guard", "sessions": sessions} | {name: counts.get(name, 0) for name in names}


# No session is older.
_SPAN_MS = 30 * when.DAY


ZERO = Decimal(0)


def session_cost(
    folder: str, payload: Mapping[str, Any], catalogue: Catalogue, now: int, owner: machines.Owner = machines.NOBODY
) -> Decimal:
    """A session's cost so far in dollars at list price, without turns that have no price. Raises OSError."""
    session, transcript = str(payload.get("session_id")), str(payload.get("transcript_path") or "")
    return cost_of_session(folder, session, ("claude", transcript), catalogue, now, owner)[0]


def cost_of_session(
    folder: str,
    session: str,
    log: tuple[str, str],
    catalogue: Catalogue,
    now: int,
    owner: machines.Owner = machines.NOBODY,
) -> tuple[Decimal, int]:
    """A session's cost so far in dollars at list price, and how many of its turns have no price. Raises OSError."""
    total, unpriced = session_total(folder, session, log, catalogue, now, owner=owner)
    return Decimal(total.get("cost_usd", "0")), unpriced


def session_total(
    folder: str,
    session: str,
    log: tuple[str, str],
    catalogue: Catalogue,
    now: int,
    subagents: bool = False,
    owner: machines.Owner = machines.NOBODY,
) -> tuple[Event, int]:
    """The sums of a session so far, priced, and how many of its turns have no price; `subagents`: of those alone.

    `log`: the reader's name of the client, and the session's file ("": none). That and the transcripts of its subagents are
    imported first, of that `owner`. Python imports are lazy: most hooks need none. Raises OSError.
    """
    from tokenops import costs, read_clients, rollup, store, sync

    client, transcript = log
    paths = [path for path in (transcript, *_subagents(transcript)) if path and os.path.isfile(path)]
    if paths:
        sync.run(folder, [(read_clients.BY_NAME[client], paths)], jobs=1, partial=True, owner=owner)
    sums = rollup.Rollup(rollup.Grouping((), when.UTC, catalogue))
    for record in store.with_value(folder, "session_id", session, when.stamp(now - _SPAN_MS)):
        if record["kind"] == "turn" and (record.get("sidechain") or not subagents):
            sums.add(record)
    rows = costs.price_rows(sums.rows(), catalogue)
    return costs.total_of(rows), sum(item["turns"] for row in rows for item in row.get("unpriced", ()))


def _subagents(transcript: str) -> list[str]:
    """The transcripts of a session's subagents, below a folder of its name; those of workflows have folders of their own."""
    folder = os.path.join(glob.escape(transcript.removesuffix(".jsonl")), "subagents")
    return sorted(glob.glob(os.path.join(folder, "**", "*.jsonl"), recursive=True))
