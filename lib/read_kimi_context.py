"""Measures what entered the context of each turn in the sessions of Kimi CLI and Kimi Code.

kimi-cli writes a step's texts and calls before the status with its counts, kimi-code after its `usage.record`. Results come
after their calls, in the next request. (kimi-cli source, wire/types.py; Kimi Code 2.1, protocol 1.5, as it runs.)
"""

from __future__ import annotations

from typing import Any

import orjson

from tokenops import read_context, read_lines, untrusted
from tokenops.events import Event

Raw = untrusted.Raw
RELEVANT = read_lines.containing(
    *(b'"StatusUpdate"', b'"StepBegin"', b'"usage.record"', b'"llm.request"', b'"context.'),
    *(b'"TurnBegin"', b'"SteerInput"', b'"ContentPart"', b'"ToolCall"', b'"ToolResult"', b'"CompactionEnd"'),
)
_WAITING = ("ts", "id", "source", "revision", "client", "project", "project_id", "session_id", "sidechain")


class Contexts:
    """The chat of a file, and those of subagents whose events are in it. All that lasts is in `state`."""

    def __init__(self, state: dict[str, Any], client: str, chain: str) -> None:
        self.state, self.client, self.chain = state, client, read_context.label(chain)

    def _line(self, agent: str = "") -> read_context.Line:
        return read_context.line_of(self.state, agent, self.client)

    def take_message(self, message: Raw, agent: str) -> None:
        """kimi-cli: what an event gives to the model, or what the model wrote."""
        line, payload = self._line(agent), untrusted.mapping(message.get("payload"))
        match message.get("type"):
            case "TurnBegin" | "SteerInput":
                _add_prompt(line, payload.get("user_input"))
            case "StepBegin":
                line.state["open"] = False
            case "CompactionEnd":  # its summary is not in the file
                line.condense(0)
            case "ContentPart":
                _add_part(_open(line), payload)
            case "ToolCall":
                function, identity = untrusted.mapping(payload.get("function")), untrusted.identity(payload.get("id"))
                _open(line).add_call(function.get("name"), _arguments(function.get("arguments")), identity=identity)
            case "ToolResult":
                value = untrusted.mapping(payload.get("return_value"))
                size = read_context.text_size(value.get("message"))
                _add_result(line, payload.get("tool_call_id"), value.get("output"), size)

    def answer(self, turn: Event, agent: str) -> Event:
        """kimi-cli: the record of the turn that a status ends."""
        line = _open(self._line(agent))
        line.state["open"] = False
        return line.record(turn, self.chain or read_context.label(agent))

    def take_line(self, line: Raw) -> Event:
        """kimi-code: what a line gives to the model, or what the model wrote. The record of a step that ends."""
        context, kind = self._line(), line.get("type")
        if kind == "context.append_loop_event":
            return self._take_event(context, untrusted.mapping(line.get("event")))
        if kind == "context.append_message":
            message = untrusted.mapping(line.get("message"))
            if message.get("role") == "user":
                if untrusted.mapping(message.get("origin")).get("kind") == "user":
                    context.state["prompts"] = context.state.get("prompts", 0) + 1
                    context.mark(str(context.state["prompts"]))
                _add_prompt(context, message.get("content"))
        elif kind == "context.apply_compaction":
            context.condense(read_context.text_size(line.get("contextSummary") or line.get("summary")))
        elif kind == "context.clear":
            context.restart("")
        elif kind == "context.undo":
            left = max(context.state.get("prompts", 0) - untrusted.count(line, "count"), 0)
            context.state["prompts"] = left
            context.follow(str(left + 1))
        return {}

    def _take_event(self, context: read_context.Line, event: Raw) -> Event:
        answers = "waiting" in context.state
        match event.get("type"):
            case "content.part" if answers:
                _add_part(context, untrusted.mapping(event.get("part")))
            case "tool.call" if answers:
                identity = untrusted.identity(event.get("toolCallId"))
                context.add_call(event.get("name"), _arguments(event.get("args")), identity=identity)
            case "tool.result":
                result = untrusted.mapping(event.get("result"))
                _add_result(context, event.get("toolCallId"), result.get("output"), 0)
            case "step.end":
                return self.finish()
        return {}

    def begin(self, turn: Event) -> None:
        """kimi-code: a turn whose texts and calls follow."""
        context = self._line()
        context.begin(turn["id"])
        context.state["turn"] = turn["id"]
        context.state["waiting"] = {name: turn[name] for name in _WAITING if name in turn}

    def finish(self) -> Event:
        """kimi-code: the record of the turn that is not yet finished; nothing if there is none."""
        context = self._line()
        turn = context.state.pop("waiting", None)
        return context.record(turn, self.chain) if turn else {}


def _open(line: read_context.Line) -> read_context.Line:
    """Begin a step's answer, if it has not begun."""
    if not line.state.get("open"):
        number = line.state.get("steps", 0) + 1
        line.begin(str(number))
        line.state.update(open=True, steps=number)
    return line


def _add_prompt(line: read_context.Line, content: object) -> None:
    line.add_input(read_context.PROMPT, _text_size(content))
    _add_images(line, content)


def _add_result(line: read_context.Line, call: object, output: object, size: int) -> None:
    line.add_result(untrusted.identity(call), "", size + _text_size(output))
    _add_images(line, output)


def _add_part(line: read_context.Line, part: Raw) -> None:
    """Take in a part of what the model wrote."""
    line.add_output(read_context.REPLY, read_context.text_size(part.get("text")))
    line.add_output(read_context.THINKING, read_context.text_size(part.get("think")))


def _text_size(content: object) -> int:
    """The size of a text, whole or in parts."""
    parts = map(untrusted.mapping, untrusted.items(content))
    return read_context.text_size(content) + sum(read_context.text_size(part.get("text")) for part in parts)


def _add_images(line: read_context.Line, content: object) -> None:
    for part in map(untrusted.mapping, untrusted.items(content)):
        if image := untrusted.mapping(part.get("image_url") or part.get("imageUrl")):
            line.add_input(read_context.IMAGE, read_context.image_size(image.get("url")))


def _arguments(value: object) -> Any:
    """A call's arguments, which may be the text of an object."""
    try:
        return orjson.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
