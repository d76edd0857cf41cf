"""Reads OpenTelemetry exports of Claude Code, Codex and Gemini CLI and returns turns or totals.

OTLP as JSON, a request to a line or pretty-printed (what a collector's file exporter writes), and the records that
Gemini CLI writes to `telemetry.outfile`. Prompts and answers may be beside the counts; only the attributes named here
are read.

- Codex (`codex.sse_event`) and Gemini CLI (`gemini_cli.api_response`): a turn for each request, matched with the
  client's own log by session and counts.
- Claude Code (`claude_code.api_request`): its transcripts hold other counts (placeholders) under other ids, so each
  request is an aggregate, which counts only if its session has no turn. `claude_code.token.usage` sums the same
  requests as a separate source; only one source of a session's aggregates counts.
- Spans repeat the events and are ignored.

Sources: Claude Code's monitoring page; Codex source, otel/src/events/session_telemetry.rs; Gemini CLI source,
packages/core/src/telemetry/types.ts and file-exporters.ts; all as of November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tokenops import (
    events,
    read_claude_turns,
    read_codex_threads,
    read_codex_totals,
    read_gemini,
    read_lines,
    read_records,
    untrusted,
    when,
)
from tokenops.read_contract import FileReader, Intake, StreamFormat

SOURCE = "otel"
METRICS = "otel-metrics"
CLIENT = ""  # each record has its own

RELEVANT = read_lines.containing(
    b"api_request", b"response.completed", b"gemini_cli.api_response", b"claude_code.token.usage"
)
_OURS = (b"claude_code.", b"codex.", b"gemini_cli.")
_SIGNALS = ("resourceLogs", "resourceMetrics", "resourceSpans")
_CLAUDE = (
    ("input_tokens", "input_tokens"),
    ("cache_read_tokens", "cache_read_tokens"),
    ("cache_creation_tokens", "cache_write_tokens"),
    ("output_tokens", "output_tokens"),
)
_TYPES = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cacheRead": "cache_read_tokens",
    "cacheCreation": "cache_write_tokens",
}
_DELTA = (1, "AGGREGATION_TEMPORALITY_DELTA")

Attributes = dict[str, Any]


def takes(line: untrusted.Raw) -> bool:
    """Whether an object is an export, or a record of one."""
    return any(name in line for name in _SIGNALS) or (
        isinstance(line.get("attributes"), dict) and ("hrTime" in line or "resource" in line)
    )


def claims(path: str, head: bytes) -> bool:
    """Whether a file is an export in which one of our clients has its say."""
    shaped = any(f'"{name}"'.encode() in head for name in (*_SIGNALS, "hrTime"))
    return shaped and any(name in head for name in _OURS)


def files(folder: str) -> Iterator[str]:
    """The exports below a folder."""
    yield from read_lines.files_claimed(folder, claims)


def read(path: str, cursor: read_lines.Cursor, intake: Intake) -> Iterator[events.Event]:
    """The requests in a file from the cursor on. Raises OSError."""
    stream = Stream(intake, lambda: "")
    for location, line in read_lines.values(path, cursor, RELEVANT, intake.on_bad_line):
        yield from stream.take(line, location)


class Nameless(events.BadRecord):
    """A record without its session."""


class Stream:
    """Exports, one after another. Every record has its own time."""

    def __init__(self, intake: Intake, now: Callable[[], str]) -> None:
        self.intake = intake
        self.nameless = False

    def take(self, line: untrusted.Raw, location: str) -> Iterator[events.Event]:
        """The requests in one export, or one record."""
        for make in self._records(line):
            try:
                event = make()
            except Nameless as error:
                if not self.nameless:  # if one lacks it, all do
                    self.intake.on_bad_line(location, f"{error}; all such records are skipped")
                self.nameless = True
                continue
            except events.BadRecord as error:
                self.intake.on_bad_line(location, f"{error}; skipped")
                continue
            if event is not None:
                self.intake.location = location
                yield event

    def rest(self) -> Iterator[events.Event]:
        """Nothing: each record is complete in itself."""
        return iter(())

    def _records(self, line: untrusted.Raw) -> Iterator[Callable[[], events.Event | None]]:
        for shared, record in _inner(line, "resourceLogs", "scopeLogs", "logRecords"):
            yield lambda shared=shared, record=record: self._log(shared | attributes(record), record)  # type: ignore[misc]
        for shared, metric in _inner(line, "resourceMetrics", "scopeMetrics", "metrics"):
            if metric.get("name") == "claude_code.token.usage":
                total = untrusted.mapping(metric.get("sum"))
                delta = total.get("aggregationTemporality") in _DELTA
                for point in map(untrusted.mapping, untrusted.items(total.get("dataPoints"))):
                    yield lambda shared=shared, point=point, delta=delta: self._point(  # type: ignore[misc]
                        shared | attributes(point), point, delta
                    )
        if isinstance(line.get("attributes"), dict):
            yield lambda: self._log(dict(line["attributes"]), line)

    def _log(self, attributes: Attributes, record: untrusted.Raw) -> events.Event | None:
        """The request of a log record, if it has one."""
        names = (
            attributes.get("event.name"),
            record.get("eventName"),
            untrusted.mapping(record.get("body")).get("stringValue"),
        )
        if "claude_code.api_request" in names or (
            attributes.get("event.name") == "api_request" and attributes.get("service.name") == "claude-code"
        ):
            return self._claude(attributes, record)
        if (
            "codex.sse_event" in names
            and attributes.get("event.kind") == "response.completed"
            and "input_token_count" in attributes
        ):
            return self._codex(attributes, record)
        if "gemini_cli.api_response" in names:
            return self._gemini(attributes, record)
        return None

    def _claude(self, attributes: Attributes, record: untrusted.Raw) -> events.Event | None:
        counts = {ours: _count(attributes, theirs) for theirs, ours in _CLAUDE}
        if not any(counts.values()):
            return None
        session, ts = _session(attributes, "session.id"), _began(attributes, record)
        request = untrusted.identity(attributes.get("request_id")) or untrusted.identity(attributes.get("client_request_id"))
        model = untrusted.text(attributes.get("model"))
        request = request or events.digest(ts, model, counts, untrusted.text(attributes.get("event.sequence")) or "")
        cost = untrusted.usd(attributes.get("cost_usd"))
        return read_records.aggregate(
            ts,
            f"usage:{read_claude_turns.CLIENT}:{session}:{request}",
            self.intake.attribution(SOURCE, read_claude_turns.CLIENT, "", "", session),
            model,
            {"turns": 1, **counts},
            "anthropic" if model.startswith("claude-") else "",
            tier="fast" if attributes.get("speed") == "fast" else "",
            cost_usd=cost,
            cost_source="client" if cost else "",
        )

    def _codex(self, attributes: Attributes, record: untrusted.Raw) -> events.Event | None:
        names = ("input_token_count", "cached_token_count", "output_token_count", "reasoning_token_count")
        sent, cached, output, reasoning = (_count(attributes, name) for name in names)
        counts = read_codex_totals.counts_of((sent, cached, output, reasoning, 0))
        return self._turn(
            read_codex_threads.CLIENT,
            _session(attributes, "conversation.id"),
            counts,
            attributes,
            record,
            tier=read_codex_threads.tier_of(attributes.get("service_tier")),
        )

    def _gemini(self, attributes: Attributes, record: untrusted.Raw) -> events.Event | None:
        names = ("input", "output", "thoughts", "tool", "total")
        tokens = {name: _count(attributes, f"{name}_token_count") for name in names}
        counts = read_gemini.counts_of(tokens | {"cached": _count(attributes, "cached_content_token_count")})
        provider = "vertex" if attributes.get("auth_type") == "vertex-ai" else "gemini"
        return self._turn(read_gemini.CLIENT, _session(attributes, "session.id"), counts, attributes, record, provider)

    def _turn(
        self,
        client: str,
        session: str,
        counts: untrusted.Raw,
        attributes: Attributes,
        record: untrusted.Raw,
        provider: str = "",
        **more: str,
    ) -> events.Event | None:
        if not counts:
            return None
        ts, model = _began(attributes, record), untrusted.text(attributes.get("model"))
        name = f"{SOURCE}:{client}:{session}:{events.digest(ts, model, counts, untrusted.text(attributes.get('prompt_id')))}"
        attribution = self.intake.attribution(SOURCE, client, "", "", session)
        return read_records.turn(ts, name, attribution, model, counts, provider, session, **more)

    def _point(self, attributes: Attributes, point: untrusted.Raw, delta: bool) -> events.Event | None:
        """One series of the token counter: a span's own tokens, or all since the process began."""
        value = point.get("asInt", point.get("asDouble"))
        kind = _TYPES.get(str(attributes.get("type")))
        count = _count({"value": value}, "value")
        if kind is None or not count:
            return None
        session, model = _session(attributes, "session.id"), untrusted.text(attributes.get("model"))
        begun = point.get("startTimeUnixNano") or point.get("timeUnixNano")
        # A series is known by its attributes; the name of the point is a hash of them.
        series = events.digest(repr(sorted(attributes.items())), str(begun), str(point.get("timeUnixNano")) if delta else "")
        return read_records.aggregate(
            untrusted.moment(begun, "startTimeUnixNano"),
            f"usage:{read_claude_turns.CLIENT}:{session}:{series}",
            self.intake.attribution(METRICS, read_claude_turns.CLIENT, "", "", session),
            model,
            {kind: count},
            "anthropic" if model.startswith("claude-") else "",
            tier="fast" if attributes.get("speed") == "fast" else "",
        )


def _inner(line: untrusted.Raw, *names: str) -> Iterator[tuple[Attributes, untrusted.Raw]]:
    """Each record of an export, with its resource's attributes."""
    outer, middle, inner = names
    for resource in map(untrusted.mapping, untrusted.items(line.get(outer))):
        shared = attributes(untrusted.mapping(resource.get("resource")))
        for scope in map(untrusted.mapping, untrusted.items(resource.get(middle))):
            for record in map(untrusted.mapping, untrusted.items(scope.get(inner))):
                yield shared, record


def attributes(record: untrusted.Raw) -> Attributes:
    """An OTLP record's attributes of a simple kind."""
    values: Attributes = {}
    for item in map(untrusted.mapping, untrusted.items(record.get("attributes"))):
        value = untrusted.mapping(item.get("value"))
        for kind in ("stringValue", "intValue", "doubleValue", "boolValue"):
            if kind in value and isinstance(item.get("key"), str):
                values[item["key"]] = value[kind]
    return values


def _count(attributes: Attributes, name: str) -> int:
    """A count that may be written as digits, as OTLP writes whole numbers. Raises BadRecord."""
    value = attributes.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return untrusted.count({name: value}, name)


def _session(attributes: Attributes, name: str) -> str:
    """The session: without it the request could be counted twice, here and in the session's own log. Raises BadRecord."""
    if session := untrusted.identity(attributes.get(name)):
        return session
    raise Nameless(
        f"no {name}, so its requests cannot be matched with its session's own log; set OTEL_METRICS_INCLUDE_SESSION_ID=true"
    )


def _began(attributes: Attributes, record: untrusted.Raw) -> str:
    """When a request began: a record is written when it ended, and may say how long it took. Raises BadRecord."""
    value = attributes.get("event.timestamp") or next(
        (record[key] for key in ("timeUnixNano", "observedTimeUnixNano") if record.get(key) not in (None, "0", 0)), None
    )
    pair = record.get("hrTime")
    if value is None and isinstance(pair, list) and len(pair) == 2:
        value = untrusted.count({"s": pair[0]}, "s") * 1000 + untrusted.count({"ns": pair[1]}, "ns") // 1_000_000
    ended = when.moment(untrusted.moment(value, "event.timestamp"))
    try:
        took = float(attributes.get("duration_ms", 0))
    except (ValueError, TypeError, OverflowError):
        took = 0
    return when.stamp(ended - int(took)) if 0 < took < when.DAY and took < ended else when.stamp(ended)


READER = FileReader(SOURCE, CLIENT, files, claims, read, stream=StreamFormat(RELEVANT, takes, Stream))
