"""Reads what `codex exec --json` prints and returns a total per thread.

`turn.completed` has the totals of the thread, not the turn, earlier processes included (Codex source,
exec/src/event_processor_with_jsonl_output.rs, as of November 2026). A turn is many requests, so these are aggregates;
if the thread has a rollout, its turns count instead. No line names the model, except in versions of 2025.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from tokenops import events, read_codex_totals, read_lines, read_records, untrusted, when
from tokenops.read_contract import FileReader, Intake, StreamFormat

SOURCE = "codex-exec"
CLIENT = "codex"

RELEVANT = read_lines.containing(b'"thread.started"', b'"turn.completed"', b'"token_count"', b'"session_configured"')
_KINDS = (
    "thread.started",
    "turn.started",
    "turn.completed",
    "turn.failed",
    "item.started",
    "item.updated",
    "item.completed",
)
_NAMES = (
    ("input_tokens", "prompt_tokens", "input"),
    ("cached_input_tokens", "cache_read_input_tokens", "cached_tokens"),
    ("output_tokens", "completion_tokens", "output"),
    ("reasoning_output_tokens", "reasoning_tokens"),
    ("cache_write_input_tokens",),
)


def takes(line: untrusted.Raw) -> bool:
    """Whether an object is a line of such a stream."""
    return line.get("type") in _KINDS or isinstance(untrusted.mapping(line.get("msg")).get("type"), str)


def claims(path: str, head: bytes) -> bool:
    """Whether a file is such a stream."""
    plain = head.replace(b" ", b"")
    return any(mark in plain for mark in (b'"type":"thread.started"', b'"type":"turn.completed"', b'"msg":{"type":"'))


def files(folder: str) -> Iterator[str]:
    """The streams below a folder."""
    yield from read_lines.files_claimed(folder, claims)


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The threads' totals in a stream that was kept in a file, from the cursor on. Raises OSError."""
    written = when.stamp(os.stat(path).st_mtime_ns // 1_000_000)
    stream = Stream(intake, lambda: written, cursor.state)
    for location, line in read_lines.values(path, cursor, RELEVANT, intake.on_bad_line):
        stream.state = cursor.state
        yield from stream.take(line, location)


class Stream:
    """The thread of the last lines. `now` gives the time of a line that has none."""

    def __init__(
        self,
        intake: Intake,
        now: Callable[[], str],
        state: dict[str, Any] | None = None,
    ) -> None:
        self.intake, self.now = intake, now
        # thread, began, cwd, model, provider; used: its totals; name: of these totals
        self.state: dict[str, Any] = {} if state is None else state

    def take(self, line: untrusted.Raw, location: str) -> Iterator[events.Event]:
        """The totals that a line states."""
        try:
            total = self._event(line)
        except events.BadRecord as error:
            self.intake.on_bad_line(location, f"{error}; skipped")
            return
        if total is not None:
            self.intake.location = location
            yield total

    def rest(self) -> Iterator[events.Event]:
        """Nothing: each line is complete in itself."""
        return iter(())

    def _event(self, line: untrusted.Raw) -> events.Event | None:
        message = untrusted.mapping(line.get("msg"))  # versions of 2025 wrapped each event
        kind = message.get("type") or line.get("type")
        if kind in ("thread.started", "session_configured"):
            self._begin(message or line, self._ts(line))
        elif kind == "token_count":
            if "info" in message:
                used = totals_of(untrusted.mapping(untrusted.mapping(message["info"]).get("total_token_usage")))
            else:  # until September 2025 one request's own counts
                used = _sum(self.state.get("used"), totals_of(message))
            return self._total(used, self._ts(line))
        elif kind == "turn.completed":
            holders = (line, *(untrusted.mapping(line.get(key)) for key in ("data", "result", "response")))
            usage = next((holder["usage"] for holder in holders if isinstance(holder.get("usage"), dict)), None)
            if usage is not None:
                return self._total(totals_of(usage), self._ts(line))
        return None

    def _begin(self, line: untrusted.Raw, ts: str) -> None:
        name = untrusted.identity(line.get("thread_id", line.get("session_id")))
        if name and name == self.state.get("thread"):
            return  # resumed: the totals go on
        born = untrusted.uuid_ms(name)
        began = when.stamp(born) if born and born < 1 << 42 else ts
        self.state.clear()
        self.state |= {"thread": name, "began": began, "cwd": untrusted.path(line.get("cwd"))}
        self.state |= {"model": untrusted.text(line.get("model")), "provider": untrusted.text(line.get("model_provider_id"))}

    def _ts(self, line: untrusted.Raw) -> str:
        value = next((line[key] for key in ("timestamp", "created_at", "createdAt") if line.get(key) is not None), None)
        return self.now() if value is None else untrusted.moment(value)

    def _total(self, used: read_codex_totals.Totals, ts: str) -> events.Event | None:
        """A thread's totals; if they began anew, they are kept beside the earlier ones."""
        if not any(used):
            return None
        state = self.state
        before = state.get("used")
        if before and any(now < then for now, then in zip(used, before, strict=True)):
            state["name"] = f"{state['name']}:{events.digest(*used)}"[-200:]
        state["used"] = list(used)
        thread, model = state.get("thread", ""), state.get("model", "")
        name = state.setdefault("name", thread or events.digest(*used))
        attribution = self.intake.attribution(SOURCE, CLIENT, state.get("cwd", ""), "", thread)
        # No observed_at: of two readings of running totals the larger is the later.
        return read_records.aggregate(
            state.setdefault("began", ts),
            f"usage:{CLIENT}:{name}:{model or 'unknown'}",
            attribution,
            model,
            read_codex_totals.counts_of(used),
            state.get("provider", ""),
        )


def totals_of(usage: untrusted.Raw) -> read_codex_totals.Totals:
    """Input, cached, output, reasoning and written of a usage object. Raises BadRecord."""
    sent, cached, output, reasoning, wrote = (untrusted.count(usage, *names) for names in _NAMES)
    return sent, cached, output, reasoning, wrote


def _sum(before: list[int] | None, more: read_codex_totals.Totals) -> read_codex_totals.Totals:
    if not before:
        return more
    a, b, c, d, e = before
    return read_codex_totals.add((a, b, c, d, e), more)


READER = FileReader(SOURCE, CLIENT, files, claims, read, stream=StreamFormat(RELEVANT, takes, Stream))
