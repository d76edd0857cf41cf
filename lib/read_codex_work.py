"""Counts the work in Codex's rollouts, in the same pass over a file in which its turns are read.

A round is a turn of Codex's own, named by its id. A fork's copy of its parent's lines is the parent's work and does not
count here. A prompt is in a rollout twice, as an item of the conversation and as an event, in either order; newer
versions (0.149 on) write the event as `item_completed`, and a script's commands as separate items.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from tokenops import events, jsonl, read_codex_context, read_codex_threads, read_lines, untrusted, when, work, work_prompts
from tokenops.read_contract import Intake

Raw = dict[str, Any]

_EXIT = re.compile(r"(?:^|\n)(?:Process exited with code|Exit code:?)\s+(-?\d+)", re.IGNORECASE)
_RUNNING = re.compile(r"Process running with session ID (\d+)")
_CALLS = ("function_call", "custom_tool_call", "local_shell_call", "tool_search_call", "web_search_call")
_ITEMS = read_codex_context.ITEMS | {"message", "function_call_output", "custom_tool_call_output", *_CALLS}
# How a line with an item goes on behind its time, up to the item's own type.
_ITEM = b'","type":"response_item","payload":{"type":"'
_NAME, _ITEM_NAMES = 38 + len(_ITEM), frozenset(name.encode() for name in _ITEMS) | {b""}
_EVENTS = frozenset(("user_message", "item_completed", "turn_aborted"))
_HEAD = 400  # of a result: its beginning shows whether it failed


def relevant(line: bytearray, at: int, stop: int) -> bool:
    """Whether a line could hold a turn or work, by its types."""
    if line.startswith(_ITEM, at + 38) and read_codex_threads.is_item(line, at):  # most lines
        return bytes(line[at + _NAME : line.find(b'"', at + _NAME, stop)]) in _ITEM_NAMES
    if read_codex_threads.relevant(line, at, stop):
        return True
    brace = line.find(b"{", at + 1, stop)
    kind = _type_in(line, at, brace)
    if kind == b"compacted":
        return True
    if kind not in (b"response_item", b"event_msg"):
        return False
    inner = line.find(b"{", brace + 1, stop)
    name = _type_in(line, brace, inner if inner >= 0 else stop)
    return name == b"" or name.decode(errors="replace") in (_ITEMS if kind == b"response_item" else _EVENTS)


def _type_in(line: bytearray, at: int, stop: int) -> bytes:
    start = line.find(b'"type":"', at, stop)
    return bytes(line[start + 8 : line.find(b'"', start + 8, stop)]) if start >= 0 else b""


def read(
    path: str, thread: read_codex_threads.Thread, cursor: read_lines.Cursor, buffer: bytearray, intake: Intake
) -> Iterator[events.Event]:
    """Take in one rollout from the cursor on: its turns into `thread`, its rounds as events at the end. Raises OSError."""
    rollout, contexts = Rollout(thread, cursor, intake), read_codex_context.Contexts(thread)
    with read_codex_threads.open_rollout(path) as file:
        for number, line in read_lines.lines(file, relevant, cursor, buffer):
            # A line that cannot be a turn is not reported as bad.
            turns = line[:1] != b"{" or line[-1:] != b"}" or read_codex_threads.relevant(line, 0, len(line))

            def on_bad_line(why: str, number: int = number, turns: bool = turns) -> None:
                if turns:
                    intake.on_bad_line(f"{path}:{number}", why)

            thread.line = number
            for raw in jsonl.parse(line, on_bad_line):
                if turns:
                    try:
                        thread.take(raw)
                    except events.BadRecord as error:
                        on_bad_line(f"{error}; skipped")
                rollout.take(raw, number)
                contexts.take(raw)
    attribution = intake.attribution(read_codex_threads.SOURCE, read_codex_threads.CLIENT, thread.cwd, "", thread.id)
    if thread.sidechain:
        attribution["sidechain"] = True
    yield from rollout.rounds.records(lambda session, side: attribution)


class Rollout:
    """Collects the rounds of one rollout, line by line."""

    def __init__(self, thread: read_codex_threads.Thread, cursor: read_lines.Cursor, intake: Intake) -> None:
        self.thread = thread
        midway = bool(cursor.offset) and "work" not in cursor.state
        self.rounds = work.Rounds(
            read_codex_threads.CLIENT, cursor.state, intake.options.salt, midway, intake.options.listen
        )
        self.state = self.rounds.state

    def take(self, raw: Raw, line: int) -> None:
        """Take in one line, after the thread did."""
        try:
            ts = when.canonical(raw["timestamp"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            return
        payload = raw.get("payload")
        payload = payload if type(payload) is dict else raw
        kind = payload.get("type")
        if raw.get("type") == "turn_context" or kind == "task_started":
            self.state["turn"] = payload.get("turn_id") or self.state.get("turn", "")
        if raw.get("type") in ("session_meta", "turn_context", "token_usage_record") or self._is_copy(ts):
            return
        if raw.get("type") == "compacted":
            if current := self._ongoing(ts, line):
                self.rounds.add_compaction(current)
        elif kind in _CALLS:
            self._call(payload, ts, line)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            self._result(payload, ts, line)
        elif payload.get("role") == "assistant":
            self._reply(payload, ts, line)
        elif kind == "item_completed":
            self._item(raw, payload, ts, line)
        elif (message := work_prompts.codex_message(raw, self.thread.sidechain)) is not None:
            self._user(message, kind or "message", ts, line)

    def _is_copy(self, ts: str) -> bool:
        """Whether a line is a copy of one of an ancestor's."""
        if self.thread.own or self.state.get("own"):
            self.state["own"] = True
            return False
        return self.thread.separated or when.moment(ts) - self.thread.began < read_codex_threads.BURST_MS

    def _ongoing(self, ts: str, line: int, opens: bool = False) -> Raw | None:
        """The round of the turn that is going on. It began when its id was made, which is the same in every copy."""
        turn = self.state.get("turn")
        born = untrusted.uuid_ms(turn)
        side = self.thread.sidechain
        if born is not None:
            return self.rounds.open_round(side, turn, when.stamp(born), self.thread.id)
        name = f"{self.thread.id}:{line}"
        return (
            self.rounds.open_round(side, name, ts, self.thread.id)
            if opens
            else self.rounds.ongoing(side, name, ts, self.thread.id)
        )

    def _user(self, message: work_prompts.Message, form: str, ts: str, line: int) -> None:
        if message.kind == work_prompts.INTERRUPTION:
            if current := self._ongoing(ts, line):
                work.add(current, "interruptions")
        elif message.kind in (work_prompts.HUMAN, work_prompts.SUBAGENT, work_prompts.SENTINEL) and self._is_first(
            message.text, form
        ):
            current = self._ongoing(ts, line, opens=True)
            if current is None:
                return
            if message.kind == work_prompts.HUMAN:
                self.rounds.add_prompt(current, ts, message.text, line)
            else:
                work.add(current, "subagents" if message.kind == work_prompts.SUBAGENT else "sentinels")

    def _is_first(self, text: str, form: str) -> bool:
        """Whether this is a prompt's first form: an item of the conversation, or an event."""
        event = form != "message"
        name = self.rounds.hash_of(text)
        seen = self.state["given"]
        if [name, not event] in seen:
            seen.remove([name, not event])
            return False
        seen.append([name, event])
        del seen[:-16]
        return True

    def _reply(self, payload: Raw, ts: str, line: int) -> None:
        text = work_prompts.text_of(payload.get("content"))
        current = self._ongoing(ts, line)
        if current is not None and text.strip():
            name = payload.get("id")
            # A reply before the last one of a turn accompanies work.
            calls = payload.get("phase") == "commentary"
            self.rounds.add_reply(current, ts, text, name if type(name) is str and name else f"{line}", line, calls)
            work.latest(current["times"], "last", ts)

    def _call(self, payload: Raw, ts: str, line: int) -> None:
        current = self._ongoing(ts, line)
        if current is None:
            return
        name, kind = payload.get("name"), payload.get("type")
        arguments: Any = payload.get("arguments", payload.get("input"))
        if kind == "local_shell_call":
            name, arguments = "local_shell", payload.get("action")
        elif kind in ("web_search_call", "tool_search_call"):
            name = str(kind).removesuffix("_call")
        if type(name) is not str:
            return
        space = payload.get("namespace")
        if type(space) is str and space.startswith("mcp__"):
            name = f"{space}__{name}"
        if type(arguments) is str and arguments[:1] == "{":
            try:
                arguments = orjson.loads(arguments)
            except ValueError:
                arguments = ""
        call = payload.get("call_id")
        arguments = arguments if type(arguments) in (dict, str) else {}
        if name == "write_stdin":  # into a running command: its end comes with the result of this call
            waiting, session = self.state["calls"], arguments.get("session_id") if type(arguments) is dict else None
            if type(call) is str and (ran := waiting.pop(f"session {session}", None)):
                waiting[call] = ran
            return
        self.rounds.add_call(current, ts, name, call if type(call) is str and kind != "web_search_call" else "", arguments)
        work.latest(current["times"], "last", ts)

    def _result(self, payload: Raw, ts: str, line: int) -> None:
        call = payload.get("call_id")
        current = self._ongoing(ts, line)
        if current is None or type(call) is not str:
            return
        text = output_of(payload.get("output"))
        waiting = self.state["calls"]
        if call not in waiting:
            return
        if running := _RUNNING.search(text[:_HEAD]):
            waiting[f"session {running[1]}"] = waiting.pop(call)
            return
        self.rounds.add_result(current, ts, call, len(text.encode(errors="replace")), failure_in(text[:_HEAD]))

    def _item(self, raw: Raw, payload: Raw, ts: str, line: int) -> None:
        item = payload.get("item")
        kind = item.get("type") if type(item) is dict else None
        if type(item) is not dict or (
            kind == "UserMessage" and (message := work_prompts.codex_message(raw, self.thread.sidechain)) is None
        ):
            return
        if kind == "UserMessage":
            self._user(message, "item_completed", ts, line)  # type: ignore[arg-type]
        elif (
            kind == "CommandExecution"
            and not str(item.get("id")).startswith("call_")
            and (current := self._ongoing(ts, line))
        ):
            # A script ran it: its call is the script's, this is the command's.
            name = str(item.get("id"))
            self.rounds.add_call(current, ts, "exec_command", name, item)
            failed = item.get("exit_code") not in (0, None) or item.get("status") == "failed"
            refused = item.get("status") == "declined"
            self.rounds.add_result(current, ts, name, 0, "tool_denials" if refused else "tool_failures" if failed else "")


def output_of(output: object) -> str:
    """The text of a tool's result: plain, as JSON with its exit code beside it, or in parts."""
    if type(output) is str:
        if output[:1] == "{":
            try:
                document = orjson.loads(output)
            except ValueError:
                return output
            if type(document) is dict and "output" in document:
                code = document.get("metadata", {}).get("exit_code") if type(document.get("metadata")) is dict else None
                return f"Exit code: {code}\n{document['output']}" if type(code) is int else str(document["output"])
        return output
    return work_prompts.text_of([output] if type(output) is dict else output)


def failure_in(text: str) -> str:
    """How a call failed, by the beginning of its result; "" if it did not."""
    bare = text.strip()
    if (failure := work.outcome(bare)) != "tool_failures":
        return failure
    code = _EXIT.search(text)
    if code is not None:
        return "tool_failures" if code[1] != "0" else ""
    return "tool_failures" if work.is_failure(bare) else ""
