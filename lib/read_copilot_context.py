"""Measures what entered the context of each turn in the events of Copilot CLI's sessions.

A request's counts are an event of their own (`session.usage_record`, seen in 1.0.102), and its answer follows under the
same id. The turn is the database's row of that call, which has the same counts: so both have one name. The events of a
subagent are in its parent's file and name it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenops import events, read_context, read_copilot_otel, untrusted, when
from tokenops.read_contract import Intake
from tokenops.read_copilot_otel import CLIENT, SOURCE

Raw = untrusted.Raw
USAGE = b"session.usage_record"
# What matters from the first usage on: what is before it is the base.
MESSAGES = (b"user.message", b"tool.execution_complete", b"session.compaction_complete")
_NAMES, _WAITING = 200, 20  # calls of which equal ones are told apart, calls whose answer may follow
_DAY_MS = 86_400_000


def records(line: Raw, state: dict[str, Any], intake: Intake) -> Iterator[events.Event]:
    """The record of the turn whose answer a line is. Raises BadRecord."""
    data = untrusted.mapping(line.get("data"))
    if line.get("type") == "session.usage_record":
        _note_usage(untrusted.mapping(data.get("usage")), line, state)
    elif "context" in state:
        agent = untrusted.identity(line.get("agentId")) or untrusted.identity(data.get("parentToolCallId"))
        context = read_context.line_of(state["context"], agent, CLIENT)
        waiting = state["waiting"].pop(untrusted.identity(data.get("apiCallId")), None)
        if line.get("type") != "assistant.message":
            _add_input(str(line.get("type")), data, context)
        elif waiting:
            attribution = intake.attribution(SOURCE, CLIENT, state.get("root", ""), "", state["session"])
            turn: events.Event = {"id": waiting[0], "ts": waiting[1], **attribution} | ({"sidechain": True} if agent else {})
            context.begin(turn["id"])
            _add_output(data, context)
            yield context.record(turn, read_context.label(agent))


def _note_usage(usage: Raw, line: Raw, state: dict[str, Any]) -> None:
    """Keep the name and the beginning of a call, as its row in the database has them. Raises BadRecord."""
    sent, answered = untrusted.count(usage, "inputTokens"), untrusted.count(usage, "outputTokens")
    session = state.get("session", "")
    if not session or not sent + answered:
        return
    state.setdefault("context", {})
    names = state.setdefault("names", {})
    name = untrusted.occurrence_name(names, read_copilot_otel.name_of(session, sent, answered))
    begun, took = when.moment(untrusted.moment(line.get("timestamp"))), usage.get("duration")
    if isinstance(took, (int, float)) and 0 <= took < _DAY_MS:
        begun -= int(took)
    waiting = state.setdefault("waiting", {})
    if call := untrusted.identity(usage.get("apiCallId")):
        waiting[call] = [name, when.stamp(begun)]
    for kept, most in ((names, _NAMES), (waiting, _WAITING)):
        while len(kept) > most:
            del kept[next(iter(kept))]


def _add_input(kind: str, data: Raw, context: read_context.Line) -> None:
    """Take in what an event gives to the model."""
    if kind == "user.message":
        size = read_context.text_size(data.get("transformedContent")) or read_context.text_size(data.get("content"))
        context.add_input(read_context.PROMPT, size)
    elif kind == "tool.execution_complete":
        result, error = untrusted.mapping(data.get("result")), untrusted.mapping(data.get("error"))
        size = read_context.text_size(result.get("content")) or read_context.text_size(error.get("message"))
        context.add_result(untrusted.identity(data.get("toolCallId")), "", size)
    elif kind == "session.compaction_complete" and data.get("success") is not False:
        context.condense(read_context.text_size(data.get("summaryContent")))


def _add_output(data: Raw, context: read_context.Line) -> None:
    """Take in what the model wrote."""
    context.add_output(read_context.REPLY, read_context.text_size(data.get("content")))
    context.add_output(read_context.THINKING, read_context.text_size(data.get("reasoningText")))
    for call in map(untrusted.mapping, untrusted.items(data.get("toolRequests"))):
        context.add_call(call.get("name"), call.get("arguments"), identity=untrusted.identity(call.get("toolCallId")))
