"""Finds the calls of Copilot CLI in the telemetry that it exports if the user switched that on.

One JSON object per line: spans and logs with flat `attributes`. Four kinds describe the same call: a chat span, the log
of an inference, the log of an agent's turn, and the span of an agent's whole work, which repeats the sums of its chat
spans. Only the first kind that a trace has is counted (exports of versions 1.0.80 and 1.0.91, as published in August
and November 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import events, read_lines, read_records, untrusted, when
from tokenops.read_contract import Intake

SOURCE = "copilot-cli"
CLIENT = "copilot-cli"

RELEVANT = b'"gen_ai.usage.'
_KEPT = 200  # traces and contents remembered: their spans are exported within minutes
_SLACK_MS = 1000
_SESSIONS = ("gen_ai.conversation.id", "copilot_chat.session_id", "copilot_chat.chat_session_id", "session.id")
_OTHERS = ("github.copilot.interaction_id", "gen_ai.response.id")
_LOGS = {"gen_ai.client.inference.operation.details": 2, "copilot_chat.agent.turn": 3}
_SPANS = {"chat": 1, "invoke_agent": 4}


class Elsewhere(NamedTuple):
    """A session in the other stores: when the first call in the database ended, and its directory."""

    since: int | None = None
    root: str = ""


class Call(NamedTuple):
    """One span or log."""

    rank: int
    traces: list[str]  # the trace, and the response's id: either may be all that two sightings share
    span: str
    session: str
    models: tuple[str, str]  # that answered, that was asked
    sent: int  # cached input included
    answered: int
    counts: dict[str, int]


def turns(
    line: untrusted.Raw, cursor: read_lines.Cursor, intake: Intake, lookup: Callable[[str], Elsewhere]
) -> Iterator[events.Event]:
    """The turn that a line is, if it is one. Raises BadRecord."""
    attributes = untrusted.mapping(line.get("attributes"))
    rank = rank_of(line, attributes)
    call = call_of(line, attributes, rank) if rank else None
    if call is None:
        return
    traces: dict[str, list[Any]] = cursor.state.setdefault("traces", {})
    first, model, session = next((traces[name] for name in call.traces if name in traces), (rank, "", ""))
    session = call.session or session or _first(attributes, _OTHERS) or "".join(call.traces[:1])
    answered, requested = call.models
    model = answered or requested or model
    traces.update({name: [min(first, rank), model, session] for name in call.traces})
    _drop_oldest(traces)
    if first < rank:
        return
    elsewhere = lookup(session)
    ended = when.moment(_time(line, "endTime", "hrTime", "timestamp", "startTime"))
    if elsewhere.since is not None and ended >= elsewhere.since - _SLACK_MS:
        return  # the database has each call, this file sums up those of subagents
    attribution = intake.attribution(SOURCE, CLIENT, elsewhere.root, "", session)
    if attributes.get("github.copilot.initiator") == "sub-agent":
        attribution["sidechain"] = True
    seen: dict[str, dict[str, list[str]]] = cursor.state.setdefault("seen", {})
    cost = untrusted.usd(dollars(attributes.get("github.copilot.nano_aiu")))
    yield read_records.turn(
        _time(line, "startTime", "endTime", "hrTime", "timestamp"),
        _numbered_name(seen, call, name_of(session, call.sent, call.answered)),
        attribution,
        model,
        call.counts,
        cost and "github-copilot",
        session,
        request_model=requested if requested != model else "",
        cost_usd=cost,
        cost_source=cost and "reported",
    )


def rank_of(line: untrusted.Raw, attributes: untrusted.Raw) -> int:
    """Which of the four kinds a line is, the best being 1; 0 for none."""
    event = untrusted.text(attributes.get("event.name"))
    if event:
        return _LOGS.get(event, 0)
    operation = untrusted.text(attributes.get("gen_ai.operation.name")) or untrusted.text(line.get("name")).partition(" ")[0]
    return _SPANS.get(operation, 0)


def call_of(line: untrusted.Raw, attributes: untrusted.Raw, rank: int) -> Call | None:
    """The call in a line; None if it has no counts. Raises BadRecord."""
    usage = {
        key.removeprefix("gen_ai.usage."): value for key, value in attributes.items() if key.startswith("gen_ai.usage.")
    }
    sent, answered = untrusted.count(usage, "input_tokens"), untrusted.count(usage, "output_tokens")
    counts = counts_of(
        sent,
        answered,
        untrusted.count(usage, "cache_read.input_tokens", "cache_read_input_tokens"),
        untrusted.count(usage, "cache_creation.input_tokens", "cache_write.input_tokens", "cache_creation_input_tokens"),
        untrusted.count(usage, "reasoning.output_tokens", "reasoning_tokens"),
        untrusted.count(usage, "total_tokens"),
    )
    if not counts:
        return None
    return Call(
        rank,
        [
            name
            for name in (untrusted.identity(line.get("traceId")), untrusted.identity(attributes.get("gen_ai.response.id")))
            if name
        ],
        untrusted.identity(line.get("spanId")),
        _first(attributes, _SESSIONS),
        (untrusted.text(attributes.get("gen_ai.response.model")), untrusted.text(attributes.get("gen_ai.request.model"))),
        sent,
        answered,
        counts,
    )


def counts_of(sent: int, answered: int, read: int, written: int, reasoning: int, total: int = 0) -> dict[str, int]:
    """The record's disjoint counts; none for a call that used nothing. Raises BadRecord.

    What the cache gave and took is part of the input, reasoning is part of the output: so do the totals of all three
    stores add up. A total, or parts larger than the whole, say otherwise.
    """
    if not any((sent, answered, read, written, reasoning)) and total:
        raise events.BadRecord("only a total is given, so input and output are unknown")
    cached = read + written
    inside = cached <= sent and (not cached or total != sent + cached + answered)
    output = answered if reasoning <= answered else answered + reasoning
    counts = {
        "input_tokens": sent - cached if inside else sent,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": output,
        "reasoning_tokens": reasoning,
    }
    return {name: count for name, count in counts.items() if count}


def name_of(session: str, sent: int, answered: int) -> str:
    """A call's name, the same in the database and in the telemetry, which share no id of calls."""
    return f"copilot-cli:{session}:{events.digest(sent, answered)}"


def dollars(nano: object) -> object:
    """Billionths of AI units (credits, of a cent each) as dollars."""
    return Decimal(str(nano)).scaleb(-11) if type(nano) in (int, float) else ""


def _numbered_name(seen: dict[str, dict[str, list[str]]], call: Call, name: str) -> str:
    """The name, numbered after equal calls before; a span that is exported again, and its log, keep their number."""
    spans = seen.setdefault(name, {}).setdefault(str(call.rank), [])
    _drop_oldest(seen)
    if not call.span or call.span not in spans:
        spans.append(call.span)
        return _nth(name, len(spans))
    return _nth(name, spans.index(call.span) + 1)


def _nth(name: str, number: int) -> str:
    return name if number == 1 else f"{name}:{number}"


def _drop_oldest(entries: dict[str, Any]) -> None:
    while len(entries) > _KEPT:
        del entries[next(iter(entries))]


def _first(attributes: untrusted.Raw, keys: tuple[str, ...]) -> str:
    return next((name for key in keys if (name := untrusted.identity(attributes.get(key)))), "")


def _time(line: untrusted.Raw, *keys: str) -> str:
    """The first time that a line has, in seconds and nanoseconds or as one value. Raises BadRecord."""
    key = next((key for key in keys if line.get(key) is not None), keys[0])
    value = line.get(key)
    if isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value):
        return untrusted.moment(value[0] * 1000 + value[1] // 1_000_000, key)
    return untrusted.moment(value, key)
