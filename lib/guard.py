"""Answers Claude Code's hooks: repeated reads of unchanged files, and sessions over their budget.

A re-read is redundant where every line asked for was given before, to the same agent of the same session, since it was
last compacted, and the file has not changed. Only reads that succeeded count. Whatever goes wrong, the agent goes on.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tokenops import datadir, events, untrusted, when
from tokenops.events import Event

if TYPE_CHECKING:
    from tokenops.pricing import Catalogue

OBSERVE, ACTIVE = "observe", "active"
MODES = (OBSERVE, ACTIVE)
SOURCE = "tok-guard"
# Lines that Claude Code's Read gives where no limit is asked for (its tool's description, 2.1.197).
LINES = 2000
# Characters per token of code and prose: only for how much was spared, and said to be estimated.
CHARACTERS = 4
_KEPT_MS = 3 * when.DAY
_MOST_PATHS = 5000

Ranges = list[list[int]]


class Stat(NamedTuple):
    """A file as it is: enough to tell that it changed."""

    mtime: int
    size: int
    inode: int


def stat(path: str) -> Stat | None:
    """A file's marks, None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Stat(found.st_mtime_ns, found.st_size, found.st_ino)


def lines_of(given: Mapping[str, Any]) -> list[int] | None:
    """First and last line that a Read asks for; None for pages of a document, which are no lines."""
    if given.get("pages") is not None:
        return None
    first, count = given.get("offset"), given.get("limit")
    start = first if type(first) is int and first > 0 else 1
    return [start, start + (count if type(count) is int and count > 0 else LINES) - 1]


def merged(ranges: Ranges) -> Ranges:
    """Ranges of lines in order, those that touch as one."""
    made: Ranges = []
    for start, end in sorted(ranges):
        if made and start <= made[-1][1] + 1:
            made[-1][1] = max(made[-1][1], end)
        else:
            made.append([start, end])
    return made


def covered(asked: Sequence[int], known: Ranges) -> bool:
    """Whether every line was given before."""
    return any(start <= asked[0] and asked[1] <= end for start, end in merged(known))


class Told(NamedTuple):
    """A hook's answer for Claude Code (empty: nothing to say), what is remembered, and what happened."""

    answer: dict[str, Any]
    state: dict[str, Any]
    happened: tuple[Event, ...] = ()


def fresh(now: int) -> dict[str, Any]:
    """The state of a session that nothing is known of."""
    return {"at": now, "reads": {}, "counts": {}, "spared": [], "said": 0.0}


def usable(state: object) -> bool:
    """Whether a state is one, whatever became of its file."""
    if not isinstance(state, dict):
        return False
    kinds: dict[str, tuple[type, ...]] = {"at": (int,), "reads": (dict,), "counts": (dict,), "spared": (list,)}
    kinds["said"] = (int, float)
    return all(isinstance(state.get(name), kind) for name, kind in kinds.items()) and all(
        isinstance(one, dict) and isinstance(one.get("ranges"), list) for one in state["reads"].values()
    )


def key_of(said: Mapping[str, Any], salt: bytes) -> str:
    """A file as this agent of this session knows it: a hash, since paths are nobody's business."""
    path = untrusted.text(untrusted.mapping(said.get("tool_input")).get("file_path"), 4096)
    agent = untrusted.text(said.get("agent_id"), 200)
    text = f"{agent}\0{os.path.realpath(os.path.join(untrusted.text(said.get('cwd'), 4096), path))}"
    return hashlib.blake2b(text.encode(errors="replace"), key=salt[:64], digest_size=8).hexdigest() if path else ""


def heard(said: Mapping[str, Any], state: dict[str, Any], mode: str, salt: bytes, now: int) -> Told:
    """The answer to one hook."""
    event, tool = said.get("hook_event_name"), said.get("tool_name")
    state = {**state, "at": now}
    if event == "PreToolUse" and tool == "Read":
        return _asked(said, state, mode, salt)
    if event == "PostToolUse" and tool == "Read":
        return Told({}, _given(said, state, salt))
    if event == "PreCompact" or (event == "SessionStart" and said.get("source") != "startup"):
        return Told({}, {**state, "reads": {}})  # what was read is no longer there to be seen
    if event in ("Stop", "SubagentStop", "SessionEnd"):
        return _spared(said, state, now)
    return Told({}, state)


def _file(said: Mapping[str, Any]) -> str:
    path = untrusted.text(untrusted.mapping(said.get("tool_input")).get("file_path"), 4096)
    return os.path.join(untrusted.text(said.get("cwd"), 4096), path)


def _asked(said: Mapping[str, Any], state: dict[str, Any], mode: str, salt: bytes) -> Told:
    """Whether to let a Read happen. One that is asked for again after it was denied is let through."""
    key, asked = key_of(said, salt), lines_of(untrusted.mapping(said.get("tool_input")))
    state = _counted(state, "reads")
    known = state["reads"].get(key)
    if not key or known is None:
        return Told({}, state)
    if asked is None or known.get("stat") != list(stat(_file(said)) or ()):
        return Told({}, _counted(state, "changed"))
    if not covered(asked, known["ranges"]):
        return Told({}, _counted(state, "other_lines"))
    if known.get("denied") == asked:
        state = _counted(state, "insisted")
        spared = [one for one in state["spared"] if one != [key, *asked, known.get("size", 0)]]
        return Told({}, _with(state, key, {**known, "denied": None}) | {"spared": spared})
    state = _counted(state, "redundant")
    if mode != ACTIVE:
        return Told({}, state)
    size = known.get("size", 0)
    state = _with(state, key, {**known, "denied": asked})
    return Told(_denial(asked), {**state, "spared": [*state["spared"], [key, *asked, size]]})


def _denial(asked: Sequence[int]) -> dict[str, Any]:
    reason = (
        f"Lines {asked[0]} to {asked[1]} of this file were read before in this session, and it has not changed since: "
        "use what you have. Ask again if you cannot see it any more."
    )
    told = {"hookEventName": "PreToolUse", "permissionDecision": "deny", "permissionDecisionReason": reason}
    return {"hookSpecificOutput": told}


def _given(said: Mapping[str, Any], state: dict[str, Any], salt: bytes) -> dict[str, Any]:
    """Remember what a Read gave."""
    key, asked, now = key_of(said, salt), lines_of(untrusted.mapping(said.get("tool_input"))), stat(_file(said))
    if not key or asked is None or now is None or len(state["reads"]) >= _MOST_PATHS:
        return state
    known = state["reads"].get(key, {})
    ranges = known.get("ranges", []) if known.get("stat") == list(now) else []
    size = len(orjson.dumps(said.get("tool_response"), default=str)) if "tool_response" in said else now.size
    return _with(state, key, {"stat": list(now), "ranges": merged([*ranges, asked]), "size": size})


def _with(state: dict[str, Any], key: str, about: dict[str, Any]) -> dict[str, Any]:
    return {**state, "reads": {**state["reads"], key: {name: value for name, value in about.items() if value is not None}}}


def _counted(state: dict[str, Any], name: str) -> dict[str, Any]:
    return {**state, "counts": {**state["counts"], name: state["counts"].get(name, 0) + 1}}


def _spared(said: Mapping[str, Any], state: dict[str, Any], now: int) -> Told:
    """The agent went on without what it was denied: that much was spared."""
    session = untrusted.text(said.get("session_id"), 200)
    sizes = [one[-1] for one in state["spared"] if isinstance(one, list) and one and isinstance(one[-1], int)]
    if not sizes:
        return Told({}, {**state, "spared": []})
    made: Event = {"v": events.VERSION, "ts": when.stamp(now), "kind": "saving"}
    made["id"] = f"saving:{events.digest(SOURCE, session, now, sizes)}"
    made |= {"source": SOURCE, "client": "claude-code"} | ({"session_id": session} if session else {})
    made |= {"saved_tokens": sum(sizes) // CHARACTERS, "by": "read_guard"}
    state = {**state, "spared": [], "counts": {**state["counts"], "spared": state["counts"].get("spared", 0) + len(sizes)}}
    return Told({}, state, (made,))


def nudge(spent: float, rules: Mapping[str, float], said: float) -> tuple[str, float]:
    """A sentence for the user once a further share of the budget is used ("" otherwise), and the share said last.

    Shares are those of the thresholds, then each further whole budget.
    """
    budget = rules["session_usd"]
    share = spent / budget if budget > 0 else 0.0
    notices = (notice for notice in (rules["first_notice"], rules["second_notice"]) if notice <= share)
    reached = float(int(share)) if share >= 1 else max(notices, default=0.0)
    if reached <= said:
        return "", said
    told = f"This session has used ${spent:.2f} at list price, {share:.0%} of its ${budget:.0f}"
    advice = (
        "its context is read anew with every turn: /compact, or begin a fresh one"
        if reached < 1
        else ("begin a fresh session for what comes next; /compact keeps this one cheaper")
    )
    return f"{told}; {advice}. (tok-guard)", reached


# What is remembered of each session, in a file of its own.


def place(folder: str, session: str) -> str:
    """Where a session's state lies."""
    name = hashlib.blake2b(session.encode(errors="replace"), digest_size=8).hexdigest()
    return os.path.join(folder, "guard", f"{name}.json")


def load(path: str, now: int) -> dict[str, Any]:
    """A session's state; a fresh one where it cannot be read."""
    found = datadir.read_json(path)
    return found if usable(found) else fresh(now)


def act(
    folder: str, said: Mapping[str, Any], mode: str, now: int, salt: bytes, save: Callable[[Sequence[Event]], None]
) -> dict[str, Any]:
    """Answer one hook and remember what it told; one of a session at a time. Raises OSError."""
    path = place(folder, untrusted.text(said.get("session_id"), 200))
    datadir.made(os.path.dirname(path))
    with datadir.locked(os.path.dirname(path), f"{os.path.basename(path)}.lock"):
        told = heard(said, load(path, now), mode, salt, now)
        datadir.replace(path, orjson.dumps(told.state), durable=False)
    if told.happened:
        save(told.happened)
    return told.answer


def told(folder: str, session: str, spent: Decimal, rules: Mapping[str, float], now: int) -> str:
    """What is to be said of a session's budget, once for each step; "" where nothing is. Raises OSError."""
    path = place(folder, session)
    with datadir.locked(os.path.dirname(path), f"{os.path.basename(path)}.lock"):
        state = load(path, now)
        text, reached = nudge(float(spent), rules, float(state["said"]))
        if text:
            datadir.replace(path, orjson.dumps({**state, "said": reached}), durable=False)
    return text


def tidied(folder: str, now: int) -> int:
    """Forget the sessions that were heard of last some days ago; how many."""
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
    """What was counted in all sessions that are remembered."""
    counts: dict[str, int] = {}
    sessions = 0
    at = os.path.join(folder, "guard")
    for name in sorted(os.listdir(at)) if os.path.isdir(at) else ():
        found = datadir.read_json(os.path.join(at, name)) if name.endswith(".json") else None
        if isinstance(found, dict) and usable(found):
            sessions += 1
            for key, value in found["counts"].items():
                counts[key] = counts.get(key, 0) + (value if isinstance(value, int) else 0)
    names = ("reads", "redundant", "insisted", "other_lines", "changed", "spared")
    return {"v": 1, "kind": "guard", "sessions": sessions} | {name: counts.get(name, 0) for name in names}


# No session is older.
_SPAN_MS = 30 * when.DAY


def session_cost(folder: str, said: Mapping[str, Any], catalogue: Catalogue, now: int) -> Decimal:
    """Dollars at list price that a session cost so far, of what has a price. Raises OSError.

    Its own transcript and its subagents' are imported first. The imports are lazy: most calls of the hook need none.
    """
    from tokenops import costs, read_clients, rollup, store, sync

    session, transcript = str(said.get("session_id")), str(said.get("transcript_path") or "")
    paths = [path for path in (transcript, *_subagents(transcript)) if path and os.path.isfile(path)]
    if paths:
        sync.run(folder, [(read_clients.BY_NAME["claude"], paths)], jobs=1, partial=True)
    sums = rollup.Rollup(rollup.Plan((), when.UTC, catalogue))
    for record in store.with_value(folder, "session_id", session, when.stamp(now - _SPAN_MS)):
        if record["kind"] == "turn":
            sums.add(record)
    rows = costs.priced(sums.rows(), catalogue)
    return Decimal(costs.total_of(rows).get("cost_usd", "0"))


def _subagents(transcript: str) -> list[str]:
    """The transcripts of a session's subagents, which lie in a folder of its name."""
    return sorted(glob.glob(os.path.join(glob.escape(transcript.removesuffix(".jsonl")), "subagents", "*.jsonl")))
