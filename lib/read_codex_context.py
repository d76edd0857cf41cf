"""Measures what entered the context of each turn of Codex's rollouts, in the same pass as its turns.

A rollout holds the conversation's items in order. What the model writes belongs to the response whose counts come next; what
it is given (prompts, results of tools) belongs to the response that begins after it. Reasoning is left out: it is encrypted,
and the counts say how many tokens it took.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from tokenops import read_context, work_prompts
from tokenops.events import Event
from tokenops.read_codex_owners import Owned
from tokenops.read_codex_threads import CLIENT, Row, Thread
from tokenops.read_context import Sizes

Raw = dict[str, Any]

# Of response_item, beside those that count as work.
ITEMS = frozenset(("tool_search_output", "agent_message"))
_CALLS = frozenset(
    ("function_call", "custom_tool_call", "local_shell_call", "tool_search_call", "web_search_call", "image_generation_call")
)
_RESULTS = frozenset(("function_call_output", "custom_tool_call_output", "tool_search_output"))
_WAITING = 64  # calls that wait for a result


class Contexts:
    """The contexts of one thread, line by line. All that lasts is in the thread, plain data for a cursor."""

    def __init__(self, thread: Thread) -> None:
        self.thread, self.state = thread, thread.sizes
        self.rows = len(thread.rows)

    def take(self, raw: Raw) -> None:
        """Take in one line, after the thread did."""
        payload = raw.get("payload")
        if type(payload) is not dict:
            return
        kind, item = raw.get("type"), payload.get("type")
        if kind == "response_item" and type(item) is str:
            if not self._is_inherited(raw):
                self._item(payload, item)
        elif kind == "compacted":
            size = read_context.leaves_size(payload.get("replacement_history")) or read_context.text_size(
                payload.get("message")
            )
            self.state.update({"given": {read_context.SUMMARY: size} if size else {}, "compaction": 1})
            self.state.pop("response", None)
        elif kind == "session_meta" and "version" not in self.state:
            self.state["version"] = read_context.label(payload.get("cli_version"))
            if type(start := payload.get("subagent_history_start_ordinal")) is int:
                self.state["start"] = start
        if len(self.thread.rows) > self.rows:
            for row in self.thread.rows[self.rows :]:
                self._close(row)
            self.rows = len(self.thread.rows)

    def _is_inherited(self, raw: Raw) -> bool:
        """Whether a subagent's file has a line only because its parent's conversation is where it begins (0.171)."""
        ordinal = raw.get("ordinal")
        return type(ordinal) is int and ordinal < self.state.get("start", 0)

    def _item(self, payload: Raw, item: str) -> None:
        if item in _CALLS:
            self._call(payload, item)
        elif item in _RESULTS:
            call = payload.get("call_id")
            cause = self.state.get("calls", {}).pop(call, "") if type(call) is str else ""
            output = payload.get("output", payload.get("tools"))
            _add_parts(self._input(), output, read_context.result_cause(cause))
        elif item == "message" and payload.get("role") == "assistant":
            read_context.add(self._output(), read_context.REPLY, len(work_prompts.text_of(payload.get("content"))))
        elif item in ("message", "agent_message"):
            # An agent's message is a subagent's task, else what a subagent answers.
            is_answer = item == "agent_message" and not self.thread.sidechain
            cause = read_context.ATTACHMENT if is_answer else read_context.PROMPT
            _add_parts(self._input(), payload.get("content"), cause)

    def _input(self) -> Sizes:
        """What the next response is given."""
        sizes: Sizes = self.state.setdefault("given", {})
        return sizes

    def _output(self) -> Sizes:
        """What the response that is going on has written."""
        if "response" not in self.state:
            self.state["response"] = {"entered": self.state.pop("given", {}), "produced": {}}
        sizes: Sizes = self.state["response"]["produced"]
        return sizes

    def _call(self, payload: Raw, item: str) -> None:
        name, arguments = payload.get("name"), payload.get("arguments", payload.get("input"))
        if item == "local_shell_call":
            name, arguments = "local_shell", payload.get("action")
        elif item not in ("function_call", "custom_tool_call"):
            name, arguments = item.removesuffix("_call"), payload.get("action", payload.get("arguments"))
        space = payload.get("namespace")
        if type(space) is str and space.startswith("mcp__"):
            name = f"{space}__{name}"
        if type(arguments) is str and arguments[:1] == "{":
            with contextlib.suppress(ValueError):
                arguments = orjson.loads(arguments)
        cause = read_context.call_cause(CLIENT, name, arguments)
        size = len(arguments) if type(arguments) is str else read_context.json_size(arguments)
        read_context.add(self._output(), cause, size)
        call = payload.get("call_id")
        if type(call) is str and len(call) < 100 and item != "web_search_call":
            calls = self.state.setdefault("calls", {})
            calls[call] = cause
            if len(calls) > _WAITING:
                del calls[next(iter(calls))]

    def _close(self, row: Row) -> None:
        """A response ended, if a row has counts: it gets what it was given and what it wrote."""
        if not row.counts or row.beyond or row.context is not None:
            return
        if row.paired:  # its count stands before it, and was closed
            for other in self.thread.rows:
                if other.context and not other.counts and (other.epoch, other.totals) == (row.epoch, row.totals):
                    row.context, other.context = other.context, None
                    return
        response = self.state.pop("response", None) or {"entered": self.state.pop("given", {}), "produced": {}}
        row.context = {name: sizes for name, sizes in response.items() if sizes}
        if self.state.pop("compaction", 0):
            row.context["event"] = read_context.COMPACTION


def link(thread: Thread, every: Iterable[Owned], before: Thread) -> None:
    """Give each turn of a thread the identity of the one before it: of a fork's first own turn that of the copied turn.

    `before`: the thread as it was before a last line without its end.
    """
    for owned in every:
        row = owned.row
        if row.context is not None:
            row.context.setdefault("parent", thread.previous if thread.previous != owned.name else "")
            thread.previous = owned.name
            if row.line <= before.line:
                before.previous = owned.name


def record(thread: Thread, owned: Owned, turn: Event) -> Iterator[Event]:
    """The record of a turn, if its row has a context."""
    context = owned.row.context
    if context is not None:
        sizes = context.get("parent", ""), context.get("entered", {}), context.get("produced", {})
        chain = thread.id if thread.sidechain else ""
        version = thread.sizes.get("version", "") if thread.parent or not context.get("parent") else ""
        attribution = read_context.attribution_of(turn)
        yield read_context.record(turn["ts"], turn["id"], attribution, *sizes, chain, context.get("event", ""), "", version)


def _add_parts(sizes: Sizes, content: object, cause: str) -> None:
    """Texts and images of a message or of a result."""
    if type(content) is str:
        read_context.add(sizes, cause, len(content))
    elif type(content) is list:
        for part in content:
            _add_parts(sizes, part, cause)
    elif type(content) is dict:
        if type(image := content.get("image_url")) is str:
            read_context.add(sizes, read_context.IMAGE, read_context.image_size(image))
        elif "text" in content:
            read_context.add(sizes, cause, read_context.text_size(content["text"]))
        elif content.get("type") != "input_image":
            read_context.add(sizes, cause, read_context.leaves_size([content[key] for key in content if key != "type"]))
