"""Works out what Claude Code's own sums of a session hold beyond the lines of its transcripts.

Some requests leave no line: compaction, titles, side questions, the model call inside WebSearch, refusals, broken
streams. Since a version after 2.1.197 a transcript states the session's sums per model in `cost-state` lines, which have
them (Claude Code 2.1.332, run on 2026-11-29). The last one counts. What it has beyond the lines is one `usage` record per
session and model with `covers: remainder`.

Each file's part of the lines' sums is kept with its cursor, so a file may be read in pieces, and the files of a session
by different workers.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from tokenops import events, read_records, regular, untrusted, when
from tokenops.read_contract import Files, Share

Raw = dict[str, Any]
Counts = list[int]  # in the order of COUNTED
Attribution = Callable[[str, str, str], Raw]  # the block of a transcript's path, first working directory and session

KEY = "sums"  # of the parser's state
COUNTED = (*read_records.LIGHT_COUNTS, "web_searches")
_THEIRS = (
    "inputTokens",
    "cacheReadInputTokens",
    "",
    "cacheCreationEphemeral1hInputTokens",
    "thinkingTokens",
    "outputTokens",
    "webSearchRequests",
)
_WRITTEN, _WRITTEN_1H, _REASONING, _OUTPUT = 2, 3, 4, 5
_ZEROS = [0] * len(COUNTED)
# Messages of which a later piece of the file may hold another line.
_RECENT = 4
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
_WITHOUT_SUMS = (2, 1, 197)
_NEAR = 1 << 18  # bytes before a statement in which the time of the line before it is looked for first


def is_summed(version: object) -> bool:
    """Whether a version's lines can be in a session's sums. A line without a version may be."""
    return type(version) is not str or _is_summed(version)


@functools.lru_cache(1024)
def _is_summed(version: str) -> bool:
    parts = _VERSION.match(version)
    return parts is None or tuple(map(int, parts.groups())) > _WITHOUT_SUMS


def model_key(model: object) -> str:
    """The name that a session's sums give a model: the one that was asked for, without the mark of a large context."""
    return untrusted.text(model).removesuffix("[1m]")


class Sums:
    """What one transcript holds for its sessions' sums. All of it is in `state`, which is kept with the cursor."""

    def __init__(self, state: Raw | None) -> None:
        # turns: session -> model -> counts of its lines here. recent: id -> session, model, counts, of the last messages.
        # served: model -> the fields that say who served it. stated: session -> see `take_sums`.
        # source: the session that this file was forked from. branch: its sums begin with 0. own: its own first turn.
        # sent: the last requests before the last sums.
        self.state: Raw = state or {"turns": {}, "recent": {}, "served": {}, "stated": {}}

    def add(self, turn: events.Event, model: str) -> None:
        """Count a turn that this file's own session made."""
        session, counts = turn.get("session_id", ""), [turn.get(name, 0) for name in COUNTED]
        recent = self.state["recent"]
        before = recent.pop(turn["id"], None)
        if before is not None:  # another line of a message that an earlier piece of the file began
            if before[2][_OUTPUT] > counts[_OUTPUT]:
                counts = before[2]
            self._add(before[0], before[1], [-count for count in before[2]])
        self._add(session, model, counts)
        self.state["served"][model] = {key: turn[key] for key in ("provider", "provider_inferred", "model") if key in turn}
        recent[turn["id"]] = [session, model, counts]
        for name in list(recent)[:-_RECENT]:
            del recent[name]

    def _add(self, session: str, model: str, counts: Counts) -> None:
        models = self.state["turns"].setdefault(session, {})
        models[model] = plus(models.get(model, _ZEROS), counts)

    def note_fork(self, source: str, is_branch: bool) -> None:
        """Note that lines of another session were copied here. The sums of a `/branch` begin with 0."""
        self.state["source"], self.state["branch"] = source, is_branch

    def note_turn(self, ts: str) -> None:
        """Note a turn that this file's own session made."""
        self.state.setdefault("own", ts)

    def are_needed(self) -> bool:
        """Whether anything was counted or stated, or the file is a fork, so that its next piece needs the state."""
        return bool(self.state["turns"] or self.state["stated"] or "source" in self.state)

    def take_sums(self, raw: Raw, roots: Mapping[str, str]) -> str:
        """Take in a `cost-state` line: the sums that the client states, and the lines' sums at that place. Raises BadRecord.

        The session. The sums' time, and what a fork's sums began with, come with `close`.
        """
        session = untrusted.identity(raw.get("sessionId"))
        models = {model_key(name): stated_counts(usage) for name, usage in untrusted.mapping(raw.get("modelUsage")).items()}
        before = self.state["stated"].get(session) or {"models": {}, "base": {}, "told": {}}
        lines = dict(self.state["turns"].get(session, {}))
        # Sums that are less than the lines when a model first appears began later than these lines.
        first = {model: counts for model, counts in models.items() if model not in before["models"]}
        base = before["base"] | {model: _less_than(counts, lines.get(model, _ZEROS)) for model, counts in first.items()}
        stated = {"models": models, "lines": lines, "base": base, "root": roots.get(session, ""), "ts": ""}
        if "source" in self.state and not self.state["branch"]:
            stated["first"] = before.get("first") if before["models"] else [models, lines]
        self.state["stated"][session] = stated | {"told": before["told"]}
        return session

    def close(self, path: str, lines: Mapping[str, bytes], end: int) -> None:
        """Complete what was stated, with the time of the last line before it that has one. Raises OSError.

        `lines`: by session, the lines that state sums; they begin at `end` or before. A fork's sums begin with those that
        its source had stated before the fork's first turn, the last that the first sums of the fork can contain.
        """
        for session, line in lines.items():
            self.state["stated"][session]["ts"] = _time_of(path, line, end + len(line) + 1) or self.state.get("own", "")
        for stated in self.state["stated"].values():
            if stated.get("first"):
                models, lines_then = stated["first"]
                sources = stated_before(path, self.state["source"], self.state.get("own", "9"))
                if sources is not None:
                    stated["base"] |= next((sums for sums in reversed(sources) if _contain(models, lines_then, sums)), {})
                    stated["first"] = None


def _contain(models: Mapping[str, Counts], lines: Mapping[str, Counts], base: Mapping[str, Counts]) -> bool:
    """Whether sums can be those of some lines and more."""
    return all(
        model in models and not any(_less_than(models[model], plus(counts, lines.get(model, _ZEROS))))
        for model, counts in base.items()
    )


def _less_than(stated: Counts, lines: Counts) -> Counts:
    """By how much sums are less than lines, as a negative number; 0 for the other counts."""
    return [min(0, total - count) for total, count in zip(stated, _in_classes_of(stated, lines), strict=True)]


def _in_classes_of(stated: Counts, lines: Counts) -> Counts:
    """The lines' counts; with writes as one count if the sums give one."""
    if stated[_WRITTEN_1H] or not lines[_WRITTEN_1H]:
        return lines
    return [*lines[:_WRITTEN], lines[_WRITTEN] + lines[_WRITTEN_1H], 0, *lines[_WRITTEN_1H + 1 :]]


def plus(counts: Counts, more: Counts) -> Counts:
    """The sum of two lists of counts."""
    return [a + b for a, b in zip(counts, more, strict=True)]


def stated_counts(usage: object) -> Counts:
    """The counts of one model in a session's sums. Raises BadRecord.

    Without the classes of cache writes all of them are of the base class.
    """
    stated = untrusted.mapping(usage)
    counts = [untrusted.count(stated, name) if name else 0 for name in _THEIRS]
    written = untrusted.count(stated, "cacheCreationInputTokens")
    short = untrusted.count(stated, "cacheCreationEphemeral5mInputTokens")
    counts[_WRITTEN] = max(short, written - counts[_WRITTEN_1H])
    return counts


def stated_before(path: str, session: str, moment: str) -> list[dict[str, Counts]] | None:
    """All sums that another session's transcript, beside this one, states before a moment; None if it is not there."""
    source = os.path.join(os.path.dirname(path), f"{session}.jsonl")
    if os.path.basename(session) != session or not os.path.isfile(source):
        return None
    try:
        with open(source, "rb", opener=regular.opener) as file:
            data = file.read()
    except OSError:
        return None
    sums: list[dict[str, Counts]] = []
    at = data.find(b'"cost-state"')
    while at >= 0:
        start, stop = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
        line = data[start : stop if stop >= 0 else len(data)]
        try:
            raw = orjson.loads(line)
            if raw["type"] == "cost-state" and _time_before(data, start) <= moment:
                sums.append({model_key(name): stated_counts(usage) for name, usage in raw["modelUsage"].items()})
        except (ValueError, LookupError, TypeError, AttributeError):
            pass  # a line of another type, or a damaged one
        at = data.find(b'"cost-state"', start + len(line))
    return sums


def _time_of(path: str, line: bytes, end: int) -> str:
    """The time of the last line with one before a line of a file, at most at `end`; "" if there is none. Raises OSError."""
    with open(path, "rb", opener=regular.opener) as file:
        size = _NEAR + len(line)
        while True:
            begin = max(0, end - size)
            file.seek(begin)
            data = file.read(end - begin)
            at = data.rfind(line)
            ts = _time_before(data, at) if at >= 0 else ""
            if ts or not begin:
                return ts
            size *= 8


def _time_before(data: bytes, at: int) -> str:
    """The time of the last line with one before a place; "" if there is none. A line that is cut is left out."""
    while at > 0:
        start = data.rfind(b"\n", 0, at - 1) + 1
        line = data[start : at - 1]
        if b'"timestamp"' in line:
            try:
                return when.canonical(orjson.loads(line)["timestamp"])
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
                pass
        at = start
    return ""


def remainders(shares: Iterable[Share], files: Files, attribution: Attribution) -> tuple[list[events.Event], dict[str, Raw]]:
    """A record per session and model of which something was read, and per transcript what to add to the parser's state.

    A record without counts takes back what one before it said.
    """
    records: list[events.Event] = []
    states: dict[str, Raw] = {}
    parts: dict[str, Raw] = {}
    for share in shares:
        parts |= share["parts"]
    transcripts = {transcript_of(path) for path in parts}
    beside: dict[str, list[str]] = {}
    for path in files.paths if parts else ():
        if (transcript := transcript_of(path)) != path and transcript in transcripts:
            beside.setdefault(transcript, []).append(path)
    for path in sorted(transcripts):
        own = parts.get(path) or files.state(path).get(KEY) or {}
        for session, stated in own.get("stated", {}).items():
            if stated.get("first") or not stated["ts"]:
                continue  # what a fork's sums began with is unknown
            others = [parts.get(other) or files.state(other).get(KEY) or {} for other in beside.get(path, ())]
            who = attribution(path, stated["root"], session)
            for model, counts in _beyond_lines(session, stated, others):
                news, before = [stated["ts"], counts], stated["told"].get(model)
                if news != before and (before or any(counts)):
                    records.append(_record(session, model, stated, counts, own["served"].get(model), who))
                    states[path] = {KEY: own}
                    stated["told"][model] = news
    return records, states


def _beyond_lines(session: str, stated: Raw, others: list[Raw]) -> Iterator[tuple[str, Counts]]:
    for model, total in stated["models"].items():
        lines = stated["lines"].get(model, _ZEROS)
        for other in others:
            lines = plus(lines, other.get("turns", {}).get(session, {}).get(model, _ZEROS))
        before = plus(_in_classes_of(total, lines), stated["base"].get(model, _ZEROS))
        counts = [max(0, most - count) for most, count in zip(total, before, strict=True)]
        counts[_REASONING] = min(counts[_REASONING], counts[_OUTPUT])
        yield model, counts


def _record(session: str, model: str, stated: Raw, counts: Counts, served: Raw | None, attribution: Raw) -> events.Event:
    """The record of what one model's sums hold beyond the lines; `total_tokens` is all that they hold."""
    ts = stated["ts"]
    identity = f"remainder:{attribution['client']}:{session}:{model}:{ts}"
    total = sum(stated["models"][model][at] for at, name in enumerate(COUNTED) if name in events.TOKENS)
    by_name: Raw = dict(zip(COUNTED, counts, strict=True))
    event = read_records.aggregate(ts, identity, attribution, model, by_name, covers=events.REMAINDER, total_tokens=total)
    if served:
        event.pop("provider_inferred", None)
    return events.arrange(event | (served or {}))


def transcript_of(path: str) -> str:
    """The transcript of the session that a file belongs to: subagents' files lie in a folder beside it."""
    before, marker, _ = path.partition("/subagents/")
    return f"{before}.jsonl" if marker else path
