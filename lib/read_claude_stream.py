"""Reads what `claude -p --output-format stream-json` (or `json`) prints and returns turns or totals.

A message's lines have the output count at the answer's start; only `--include-partial-messages` gives the final one.
The `result` line has the process's use per model, subagents and helpers included. So a session's messages are its turns
if they agree with its result, or if there is none; else the result's totals replace them, as aggregates.

The totals continue from result to result of a process. Up to Claude Code 2.1.276 a resumed session began at zero; since
2.1.277 it continues the totals of the process before it (its type declarations, and anthropics/claude-code issue 83239,
as of November 2026). A forked session continues its source's totals, and nothing in the stream shows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tokenops import events, read_claude_turns, read_grok, read_lines, read_records, untrusted, when, wire_claude
from tokenops.read_contract import FileReader, Intake, StreamFormat

SOURCE = "claude-stream"
CLIENT = "claude-code"

RELEVANT = read_lines.containing(b'"usage"', b'"modelUsage"', b'"init"')
_KINDS = ("system", "assistant", "user", "result", "stream_event", "rate_limit_event")
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")
# Since then a resumed process takes the totals of those before it up.
_GOES_ON = (2, 1, 277)

Counts = dict[str, int]
_LONG = "cacheCreationEphemeral1hInputTokens"  # of a model in a result, since a version after 2.1.197
# Grok Build (1.0.41, 2026-11) prints the same kind of stream; its list of tools tells.
_GROK, _GROK_TOOLS = read_grok.CLIENT, frozenset(("run_terminal_command", "spawn_subagent", "search_replace"))
_TOTALS = (
    ("input_tokens", "inputTokens"),
    ("cache_read_tokens", "cacheReadInputTokens"),
    ("cache_write_tokens", "cacheCreationInputTokens"),
    ("output_tokens", "outputTokens"),
)
_AT_ONCE = ("input_tokens", "cache_read_tokens", "cache_write_tokens")  # a message's first line has them
_CLOUDS = ("bedrock", "vertex", "foundry")


def takes(line: untrusted.Raw) -> bool:
    """Whether an object is a line of such a stream."""
    kind = line.get("type")
    return kind in _KINDS and ("session_id" in line or (kind == "result" and "total_cost_usd" in line))


def claims(path: str, head: bytes) -> bool:
    """Whether a file is such a stream, or a result alone."""
    plain = head.replace(b" ", b"")
    marks = (b'"type":"stream_event"', b'"subtype":"init"', b'"parent_tool_use_id"', b'"modelUsage"', b'"total_cost_usd"')
    return b'"session_id"' in plain and any(mark in plain for mark in marks)


def files(folder: str) -> Iterator[str]:
    """The streams below a folder."""
    yield from read_lines.files_claimed(folder, claims)


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The turns of a stream that was kept in a file, or the totals in their place. Raises OSError.

    A result decides on the lines before it, so that a file which grew is read from its beginning.
    """
    cursor.offset = cursor.number = 0
    written = when.stamp(os.stat(path).st_mtime_ns // 1_000_000)
    stream = Stream(intake, lambda: written)
    for location, line in read_lines.values(path, cursor, RELEVANT, intake.on_bad_line):
        yield from stream.take(line, location)
    yield from stream.rest()


class Message(NamedTuple):
    """One answer: its turn, the turns of other models that took part in it, and where it was seen first."""

    turns: list[events.Event]
    location: str


@dataclass
class Run:
    """A process: the usage in its last result, and the messages before it."""

    name: str  # "" where the session's later processes go on from its totals
    location: str = ""
    totals: dict[str, Counts] = field(default_factory=dict)
    more: dict[str, dict[str, Any]] = field(default_factory=dict)  # per model: searches, reasoning, cost, who bills
    long: Counts = field(default_factory=dict)  # per model: writes to the long cache, if no message has them
    messages: dict[str, Message] = field(default_factory=dict)

    def agrees(self, ended: set[str]) -> bool:
        """Whether the turns say all: they add up to the totals, or what is more was used before.

        That is so where the end of each message is known, and its model's totals are those of a session that goes on.
        """
        by_model = {model: _plain(counts) for model, counts in sums(self.messages).items()}
        if not self.messages or by_model == self.totals:
            return bool(self.messages)
        if self.name or not self.messages.keys() <= ended:
            return False
        return all(model in self.totals and _exceeds(self.totals[model], counts) for model, counts in by_model.items())

    def add_details(self, usage: dict[str, Any]) -> None:
        """Take in a result's `usage` if its model is clear: the cache's classes, tier and region."""
        wrote = [model for model, counts in self.totals.items() if counts["cache_write_tokens"]]
        if len(wrote) == 1:
            long = untrusted.count(untrusted.mapping(usage.get("cache_creation")), "ephemeral_1h_input_tokens")
            self.long[wrote[0]] = self.long.get(wrote[0], 0) + long
        if len(self.totals) == 1:
            (model,) = self.totals
            block = read_claude_turns.usage_block(usage, model, {}, "")
            self.more[model] |= {name: block[name] for name in ("tier", "geo") if name in block}


class Session:
    """One session in a stream."""

    def __init__(self, name: str, began: str) -> None:
        self.name, self.began, self.client = name, began, CLIENT
        self.cwd = self.model = ""
        self.version: tuple[int, ...] = ()
        self.runs: list[Run] = []
        self.open: dict[str, Message] = {}  # the messages since the last result
        self.ended = False  # by a result, whatever it states
        self.final: set[str] = set()  # messages with all their counts: the last ones were streamed
        self.results: set[str] = set()
        self.copies: dict[str, int] = {}


class Stream:
    """The lines so far. `now` gives the time of a line that has none."""

    def __init__(self, intake: Intake, now: Callable[[], str]) -> None:
        self.intake, self.now = intake, now
        self.sessions: dict[str, Session] = {}
        self.last = ""
        self.partial: dict[tuple[str, str], tuple[untrusted.Raw, dict[str, Any]]] = {}  # the message that is being streamed

    def take(self, line: untrusted.Raw, location: str) -> Iterator[events.Event]:
        """Take in a line. Gives nothing before the end."""
        try:
            if line.get("type") in _KINDS and "sessionId" not in line:  # else it is a transcript's
                self._take(line, location)
        except events.BadRecord as error:
            self.intake.on_bad_line(location, f"{error}; skipped")
        return iter(())

    def _take(self, line: untrusted.Raw, location: str) -> None:
        name = self.last = untrusted.identity(line.get("session_id")) or self.last
        ts = untrusted.moment(line["timestamp"]) if line.get("timestamp") is not None else self.now()
        session = self.sessions.setdefault(name, Session(name, ts))
        session.began = min(session.began, ts)
        kind = line["type"]
        if kind == "system":
            session.cwd = session.cwd or untrusted.path(line.get("cwd"))
            if "claude_code_version" not in line and set(map(str, untrusted.items(line.get("tools")))) >= _GROK_TOOLS:
                session.client = _GROK
            session.model = untrusted.text(line.get("model")) or session.model
            if version := _VERSION.match(untrusted.text(line.get("claude_code_version"))):
                session.version = tuple(map(int, version.groups()))
        elif kind == "assistant":
            self._message(session, line, untrusted.mapping(line.get("message")), ts, location)
        elif kind == "stream_event":
            self._take_partial(session, line, untrusted.mapping(line.get("event")), ts, location)
        elif kind == "result":
            self._result(session, line, location)

    def _take_partial(self, session: Session, line: untrusted.Raw, event: untrusted.Raw, ts: str, location: str) -> None:
        """A message's beginning, and its later counts, which are all cumulative; of the cache's only the sum comes again."""
        key = (session.name, repr(line.get("parent_tool_use_id")))
        if event.get("type") == "message_start":
            message = untrusted.mapping(event.get("message"))
            self.partial[key] = (message, dict(untrusted.mapping(message.get("usage"))))
        elif event.get("type") == "message_delta" and key in self.partial:
            self.partial[key][1].update({k: v for k, v in untrusted.mapping(event.get("usage")).items() if v is not None})
        else:
            return
        message, usage = self.partial[key]
        name = self._message(session, line, {**message, "usage": usage}, ts, location)
        if event.get("type") == "message_delta":
            session.final.add(name)

    def _message(self, session: Session, line: untrusted.Raw, message: untrusted.Raw, ts: str, location: str) -> str:
        """Take in what is known of a message now; its identity."""
        usage, model = message.get("usage"), untrusted.text(message.get("model")) or "unknown"
        if not isinstance(usage, dict) or model == "<synthetic>":
            return ""
        parts = wire_claude.parts_of(usage, model)
        for _, counts in parts:
            for key in counts:
                untrusted.count(counts, key)
        name = read_claude_turns.identity({"requestId": line.get("request_id"), "uuid": line.get("uuid")}, dict(message))
        if not untrusted.identity(name):
            name = untrusted.occurrence_name(
                session.copies, f"{session.client}:{events.digest(session.name, model, repr(parts))}"
            )
        attribution = self.intake.attribution(SOURCE, session.client, session.cwd, "", session.name)
        if line.get("parent_tool_use_id") is not None:
            attribution["sidechain"] = True
        arriving = []
        for number, (served, counts) in enumerate(parts):
            block = read_claude_turns.usage_block(usage, untrusted.text(served) or "unknown", counts, name)
            if session.client != CLIENT:
                block = read_grok.with_biller(block)
            arriving.append(read_claude_turns.turn(ts, f"{name}#{number}" if number else name, attribution, block))
        seen = next((run.messages[name] for run in session.runs if name in run.messages), session.open.get(name))
        if seen is None:
            session.open[name] = Message(arriving, location)
            session.ended = False
            return name
        seen.turns[:] = read_claude_turns.join_turns(seen.turns, arriving)
        return name

    def _result(self, session: Session, line: untrusted.Raw, location: str) -> None:
        """Take in what a process reports that it used so far."""
        mark = untrusted.identity(line.get("uuid")) or events.digest(repr(sorted(line.items(), key=lambda item: item[0])))
        if mark in session.results:
            return  # the same line again, of a stream that was kept twice
        usage = dict(untrusted.mapping(line.get("usage")))
        stated = _plain(wire_claude.counts_of(usage))
        totals, more = totals_of(untrusted.mapping(line.get("modelUsage")))
        session.results.add(mark)
        session.ended = True
        last = session.runs[-1] if session.runs else None
        if not totals:  # versions of 2025 state one result's main loop only, and where they crashed zeros
            if not session.open and any(untrusted.count(stated, name) for name in stated):
                model = session.model or "unknown"
                cost = _cost(line.get("total_cost_usd")) if last is None else {}
                session.runs.append(Run(events.digest(mark), location, {model: stated}, {model: {**cost}}))
                session.runs[-1].add_details(usage)
            return
        between = _sum(map(_plain, sums(session.open).values())) if session.open else stated
        if last is None or not goes_on(last.totals, totals, between):
            again = last is None and session.name and _carried_on(session, line)
            last = Run("" if again else events.digest(next(iter(session.open), mark)))
            session.runs.append(last)
        last.location, last.totals, last.more = location, totals, more
        if session.open:
            last.messages |= session.open
            session.open = {}
        else:
            last.add_details(usage)

    def rest(self) -> Iterator[events.Event]:
        """What the whole stream comes to."""
        for session in self.sessions.values():
            if session.open and not session.ended and self.intake.options.resumable:
                self.intake.on_bad_line(next(iter(session.open.values())).location, _WAITS)
            elif all(run.agrees(session.final) for run in session.runs):
                for messages in (*(run.messages for run in session.runs), session.open):
                    for message in messages.values():
                        self.intake.location = message.location
                        yield from filter(read_claude_turns.has_usage, message.turns)
            else:
                yield from self._aggregates(session)

    def _aggregates(self, session: Session) -> Iterator[events.Event]:
        """The totals of each process, and what came after the last of them."""
        for run in session.runs:
            late = session.open if run is session.runs[-1] else {}
            after = sums(late)
            for model in sorted(run.totals.keys() | after.keys()):
                turns = [t for m in (run.messages | late).values() for t in m.turns if t["model"] == model]
                counts = _sum((run.totals.get(model, {}), _plain(after.get(model, {}))))
                self.intake.location = run.location
                yield self._aggregate(session, run, model, counts, turns)

    def _aggregate(self, session: Session, run: Run, model: str, counts: Counts, turns: list[events.Event]) -> events.Event:
        more = dict(run.more.get(model, {}))
        long = more.pop("long", None)
        if long is None:
            long = run.long.get(model, 0) + sum(turn.get("cache_write_1h_tokens", 0) for turn in turns)
        else:  # of the process up to its result; the turns after it come on top
            late = session.open.values() if run is session.runs[-1] else ()
            long += sum(t.get("cache_write_1h_tokens", 0) for m in late for t in m.turns if t["model"] == model)
        long = min(long, counts["cache_write_tokens"])
        counts |= {"cache_write_tokens": counts["cache_write_tokens"] - long, "cache_write_1h_tokens": long}
        counts |= {"turns": len(turns), "reasoning_tokens": min(more.pop("reasoning_tokens", 0), counts["output_tokens"])}
        for name in ("tier", "geo") if turns else ():
            served = {turn.get(name, "") for turn in turns}
            more[name] = served.pop() if len(served) == 1 else ""
        provider = more.pop("provider", "") or ("anthropic" if model.startswith("claude-") else "")
        name = ":".join(filter(None, ("usage", session.client, session.name, run.name, model)))
        attribution = self.intake.attribution(SOURCE, session.client, session.cwd, "", session.name)
        # No observed_at: of two running totals the larger is the later one, and a copied file's time means nothing.
        total = read_records.aggregate(session.began, name, attribution, model, counts, provider, **more)
        return total if session.client == CLIENT else read_grok.with_biller(total)


_WAITS = (
    "this session has no result line yet, so it is not imported; if it was cut off, import it as it is: "
    "tok-read claude-stream --root FILE | tok-log append"
)


def _carried_on(session: Session, line: untrusted.Raw) -> bool:
    """Whether a resumed process would go on from these totals: by its version, else by the fields of its results."""
    if session.version:
        return session.version >= _GOES_ON
    used = untrusted.mapping(line.get("modelUsage")).values()
    return any("costBasis" in usage for usage in used if isinstance(usage, dict))  # since 2.1.246


def totals_of(used: untrusted.Raw) -> tuple[dict[str, Counts], dict[str, dict[str, Any]]]:
    """The counts per model in a result's `modelUsage`, and its other fields. Models with zeros only are left out.

    Raises BadRecord.
    """
    totals: dict[str, Counts] = {}
    more: dict[str, dict[str, Any]] = {}
    for key, value in used.items():
        entry = untrusted.mapping(value)
        counts = {ours: untrusted.count(entry, theirs) for ours, theirs in _TOTALS}
        if not any(counts.values()):
            continue
        model = untrusted.text(key.removesuffix("[1m]")) or "unknown"
        if model in totals:  # with and without the long context
            totals[model] = _sum((totals[model], counts))
            more[model].pop("cost_usd", None)
            more[model].pop("long", None)
            continue
        totals[model] = counts
        cloud = untrusted.text(entry.get("provider"))
        more[model] = {
            "web_searches": untrusted.count(entry, "webSearchRequests"),
            "reasoning_tokens": untrusted.count(entry, "thinkingTokens"),
            **({"provider": cloud} if cloud in _CLOUDS else {}),
            **({"long": untrusted.count(entry, _LONG)} if _LONG in entry else {}),
            **(_cost(entry.get("costUSD")) if entry.get("costBasis") != "unknown" else {}),
        }
    return totals, more


def _cost(value: object) -> dict[str, str]:
    cost = untrusted.usd(value)
    return {"cost_usd": cost, "cost_source": "client"} if cost else {}


def goes_on(before: dict[str, Counts], after: dict[str, Counts], between: Counts) -> bool:
    """Whether totals are later ones of the same process, which is known to have used so much between."""
    if any(after.get(model, {}).get(name, 0) < count for model, counts in before.items() for name, count in counts.items()):
        return False
    had, have = _sum(before.values()), _sum(after.values())
    return all(have.get(name, 0) - had.get(name, 0) >= between.get(name, 0) for name in _AT_ONCE)


def _exceeds(more: Counts, less: Counts) -> bool:
    return more != less and all(more[name] >= count for name, count in less.items())


def sums(messages: dict[str, Message]) -> dict[str, Counts]:
    """What messages add up to, per model, each class of cache writes apart."""
    by_model: dict[str, Counts] = {}
    for message in messages.values():
        for turn in message.turns:
            counts = {name: turn[name] for name in events.TOKENS if name in turn}
            if counts:
                by_model[turn["model"]] = _sum((by_model.get(turn["model"], {}), counts))
    return by_model


def _plain(counts: Counts) -> Counts:
    """Counts as a result states them: cache writes in one."""
    wrote = counts.get("cache_write_tokens", 0) + counts.get("cache_write_1h_tokens", 0)
    return {name: wrote if name == "cache_write_tokens" else counts.get(name, 0) for name, _ in _TOTALS}


def _sum(several: Iterable[Counts]) -> Counts:
    sums: Counts = {}
    for counts in several:
        for name, count in counts.items():
            sums[name] = sums.get(name, 0) + count
    return sums


READER = FileReader(SOURCE, CLIENT, files, claims, read, stream=StreamFormat(RELEVANT, takes, Stream))
