"""Counts the work in Claude Code's transcripts, in the same pass over a file in which its turns are read.

A line without a turn is examined as bytes first: most lines are tool results, of which only the call's id, the size and
the word `is_error` matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from tokenops import (
    events,
    jsonl,
    read_claude_context,
    read_claude_session,
    read_claude_turns,
    read_lines,
    regular,
    when,
    work,
    work_language,
    work_prompts,
)
from tokenops.events import Event

Raw = dict[str, Any]

_CALL = b'"tool_use_id":"'
_FAILED = b'"is_error":true'
_RESULT = b'"toolUseResult":'
_ROLE = b'"role":"user"'
_STAMP = b'"timestamp":"'
# Bytes. A result's block is short except for its content; so are the parts of a line before and after its message.
_HEAD, _FOOT, _NEAR = 400, 300, 2000
_NONE: list[Any] = []
_USER = b'"message":{"role":"user",'
_ANSWER = b'"message":{"model":'
_MASKED = re.compile(r"REDACTED|[\s\[\]<>*]")
# Lines of these types can hold work; the others (progress, snapshots, summaries, ...) are never parsed.
_KINDS = (b"assistant", b"user", b"queue-operation", b"attachment", b"system", b"tool_result", b"api-request", b"cost-state")

# Of these only lines that hold a mark.
_MARKED = {b"attachment": b'"queued_command"', b"system": b'"compact_boundary"'}


def read(turns: read_claude_turns.Turns, path: str, cursor: read_lines.Cursor) -> Iterator[Event]:
    """Take in one file from its cursor on: its turns into `turns`, its rounds as events at the end. Raises OSError."""
    intake = turns.intake
    session = read_claude_session.Session(path, cursor, intake)
    midway = bool(cursor.offset) and "work" not in cursor.state
    rounds = work.Rounds(read_claude_turns.CLIENT, cursor.state, intake.options.salt, midway, intake.options.listen)
    contexts = read_claude_context.Contexts(path, cursor, turns.light)
    transcript = Transcript(rounds, session, turns.buffer, contexts)
    loads, take_usual, take, take_context = orjson.loads, turns.take_usual, transcript.take, contexts.take
    with open(path, "rb", buffering=0, opener=regular.opener) as file:
        for number, line in read_lines.lines(file, transcript.relevant, cursor, turns.buffer):
            raw = None
            try:
                raw = loads(line)
                if raw["type"] == "assistant":
                    done = take_usual(raw, session)
                elif "message" not in raw and turns.take_note(raw, line, session):
                    continue
                else:
                    done = True
            except (ValueError, LookupError, TypeError, AttributeError):
                done = False
            if not done and _may_be_turn(raw, line):
                turns.take(line, f"{path}:{number}", session)
            if type(raw) is dict:
                take(raw, number, line)
                take_context(raw)
            else:
                for part in jsonl.parse(line, lambda why: None):
                    take(part, number, line)
                    take_context(part)
    contexts.close(cursor)
    turns.close(session, cursor)
    yield from rounds.records(transcript.attribution)
    yield from contexts.records(turns)


def _may_be_turn(raw: object, line: bytearray) -> bool:
    """Whether a line that is not a usual turn could be a turn; a line that cannot be one is not reported as bad."""
    if type(raw) is dict and raw.get("type") == "assistant":
        return True
    return read_claude_turns.relevant(line, 0, len(line)) or line[:1] != b"{" or line[-1:] != b"}"


class Transcript:
    """Collects the rounds of one transcript, line by line."""

    def __init__(
        self,
        rounds: work.Rounds,
        session: read_claude_session.Session,
        buffer: bytearray,
        contexts: read_claude_context.Contexts,
    ) -> None:
        self.rounds, self.session, self.buffer, self.contexts = rounds, session, buffer, contexts
        self.state = rounds.state
        self.open: dict[str, Raw] = self.state["open"]
        self.calls: dict[str, list[Any]] = self.state["calls"]
        self.texts: dict[str, str] = {}  # of what waits in the queue, for a listener
        self.blocks: dict[tuple[str, bool], Raw] = {}
        # The first working directory of each session, of lines that hold no turn too.
        self.roots: dict[str, str] = self.state.setdefault("roots", {})
        self.last: object = self  # the session of the line before, if its directory is known

    def attribution(self, session: str, side: bool) -> Raw:
        """The attribution block of a round."""
        block = self.blocks.get((session, side))
        if block is None:
            root, folder = self.roots.get(session, ""), self.session.folder
            source, client = read_claude_turns.SOURCE, read_claude_turns.CLIENT
            block = self.session.intake.attribution(source, client, root, folder, session)
            if side:
                block["sidechain"] = True
            self.blocks[session, side] = block
        return block

    def relevant(self, line: bytearray, at: int, stop: int) -> bool:
        """Whether a line could hold a turn or work. Good results of tools are taken in here, without a copy of the line.

        Keys before the first nested brace are at the top level. A line that is not in the buffer may be incomplete.
        """
        find = line.find
        brace = find(b"{", at + 1, stop)
        if brace >= 0 and line.startswith(_USER, brace - 10):
            return not self._result(line, at, brace, stop)
        if brace >= 0 and line.startswith(_ANSWER, brace - 10):
            return True
        kind = find(b'"type":"', at, brace if brace >= 0 else stop)
        if kind < 0:
            return True
        name = bytes(line[kind + 8 : find(b'"', kind + 8, kind + 40)])
        if name == b"user":
            return not self._result(line, at, find(_ROLE, at, find(_CALL, at, stop)), stop)
        mark = _MARKED.get(name)
        if name in _KINDS and (mark is None or find(mark, kind, stop) >= 0):
            return True
        if line is self.buffer:
            if name == b"attachment":
                self.contexts.take_line(line[at:stop])
            else:
                self.contexts.pass_over(line, at, stop)
        return False

    def _result(self, line: bytearray, at: int, role: int, stop: int) -> bool:
        """Take in a tool's good result; False for any other line. `role`: where its message begins, or less than 0."""
        find = line.find
        call = find(_CALL, role, stop) if role >= 0 and line is self.buffer else -1
        if call < 0:
            return False
        # If the line holds one result, what the client shows of it follows the message.
        end = line.rfind(_RESULT, call, stop)
        if end < 0:
            end = stop
            if find(_CALL, call + 15, stop) >= 0:
                return False
        name = line[call + 15 : find(b'"', call + 15, stop)].decode(errors="replace")
        if self._add_result(line, at, role, call, end, name):
            self.contexts.take_result(line, at, (role - (line[role] != 123), call, end, stop), name)
            return True
        return False

    def _add_result(self, line: bytearray, at: int, role: int, call: int, end: int, name: str) -> bool:
        """Count a tool's good result; False for one that has to be looked at more closely."""
        waiting = self.calls.get(name)
        if waiting is None:
            return True  # a copy, or of a call that is not known
        if self._is_failure(line, at, role, call, end):
            return False
        ts = ""
        if waiting[0] == "edit":  # when it was made matters; of the keys behind the message that is the line's own
            stamp = line.rfind(_STAMP, max(call, end - _NEAR), end) + len(_STAMP)
            ts = line[stamp : stamp + 24].decode(errors="replace")
            if stamp < len(_STAMP) or not _is_time(ts):
                return False
        current = self.open.get("side" if waiting[1] else "main")
        if current is not None:
            self.rounds.touched[current["id"]] = current
            self.rounds.add_result(current, ts, name, end - at)
        return current is not None

    def _is_failure(self, line: bytearray, at: int, role: int, call: int, end: int) -> bool:
        """Whether a result is marked as failed; the mark is near its beginning or near its end.

        If the end of its block is found, at the only brace nearby, only a few bytes are searched.
        """
        head, foot = min(at + _NEAR, end), max(at, end - _NEAR)
        last = line.rfind(b"}]}", call, end)
        if last > foot and line.find(b"}", foot, last) < 0:
            at, head, foot = role, min(role + _HEAD, end), max(role, last - _FOOT)
        return line.find(_FAILED, at, head) >= 0 or line.find(_FAILED, foot, end) >= 0

    def take(self, raw: Raw, line: int, data: bytearray) -> None:
        """Take in one line."""
        kind = raw.get("type")
        message: Any = raw.get("message")
        texts, calls = parts_of(message.get("content")) if kind == "assistant" and type(message) is dict else (_NONE, _NONE)
        if kind == "assistant" and not texts and not calls:
            return  # it only thinks
        try:
            ts = when.canonical(raw["timestamp"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            return  # without a time it belongs to no hour
        session: Any = read_claude_session.owner_of(raw)
        if session != self.last:
            session = self._session(raw, session)
        side = raw.get("isSidechain") is True
        if kind == "assistant":
            current = self._ongoing(raw, ts, session, side)
            if current is not None and "requestSessionId" in raw:
                current["session"] = session  # a fork's copy; its prompt's line does not say so
            if current is not None and message.get("model") != "<synthetic>" and raw.get("isApiErrorMessage") is not True:
                self._answer(current, ts, message.get("id"), texts, calls, line)
        elif kind == "queue-operation":
            self._queue(raw, ts, line)
        elif kind == "system":
            if raw.get("subtype") == "compact_boundary" and (current := self._ongoing(raw, ts, session, side)):
                self.rounds.add_compaction(current)
        else:
            sent = work_prompts.claude_message(raw)
            if sent is not None:
                self._user(raw, sent, ts, session, side, line, data)

    def _session(self, raw: Raw, session: Any) -> str:
        """The session of a line; its first working directory is remembered."""
        if type(session) is not str or not 0 < len(session) <= events.LONGEST:
            session = self.session.stem
        if session not in self.roots and type(cwd := raw.get("cwd")) is str and cwd:
            self.roots[session] = self.session.root_of(cwd)
        if session in self.roots:  # else a later line may name it
            self.last = session
        return str(session)

    def _ongoing(self, raw: Raw, ts: str, session: str, side: bool) -> Raw | None:
        current = self.open.get("side" if side else "main")
        if current is None:
            return self.rounds.ongoing(side, name_of(raw, ts, session), ts, session)
        self.rounds.touched[current["id"]] = current
        return current

    def _user(
        self, raw: Raw, message: work_prompts.Message, ts: str, session: str, side: bool, line: int, data: bytearray
    ) -> None:
        """A line in the role of the user."""
        rounds = self.rounds
        if message.kind == work_prompts.TOOL_RESULT:
            self._results(raw, ts, session, size_of(data))
        elif raw.get("type") == "attachment":
            if (
                message.kind == work_prompts.HUMAN
                and (current := self._ongoing(raw, ts, session, side))
                and self._is_new(message.text)
            ):
                work.add(current, "queued")
                rounds.add_prompt(current, ts, message.text, line)
        elif message.kind in _OPENING or raw.get("planContent"):
            self._opens(raw, message, ts, session, side and message.kind != work_prompts.HUMAN, line)
        elif (count := _COUNTED.get(message.kind)) and (current := self._ongoing(raw, ts, session, side)):
            work.add(current, count)

    def _opens(self, raw: Raw, message: work_prompts.Message, ts: str, session: str, side: bool, line: int) -> None:
        """A line that begins a round: a prompt, a slash command, an accepted plan, what a loop or another agent sends."""
        if message.kind == work_prompts.COMMAND_ECHO and "<bash-input>" in work_prompts.text_of(_content(raw))[:40]:
            return  # a command of the user's own, which asks the agent nothing
        name = name_of(raw, ts, session)
        before = self.open.get("side" if side else "main")
        if before is not None and before["id"] == name:
            return  # the line is a repetition
        current = self.rounds.open_round(side, name, ts, session)
        if message.kind != work_prompts.HUMAN:
            work.add(current, _OPENING.get(message.kind, "plans_accepted"))
            return
        above = raw.get("parentUuid")
        if above and above == self.state.get("parent"):
            work.add(current, "rewinds")  # of two prompts after the same line the first was taken back
        self.state["parent"] = above if type(above) is str and len(above) < 100 else ""
        self.rounds.add_prompt(current, ts, message.text, line)

    def _answer(self, current: Raw, ts: str, message: object, texts: list[str], calls: list[Raw], line: int) -> None:
        """What the agent wrote and did in one line."""
        if texts:
            text = texts[0] if len(texts) == 1 else "\n".join(texts)
            self.rounds.add_reply(current, ts, text, message if type(message) is str else "", line, bool(calls))
        for part in calls:
            tool, call, arguments = part.get("name"), part.get("id"), part.get("input")
            if type(tool) is str:
                self.rounds.add_call(
                    current, ts, tool, call if type(call) is str else "", arguments if type(arguments) is dict else {}
                )
        times = current["times"]
        if ts > times.get("last", ""):
            times["last"] = ts

    def _results(self, raw: Raw, ts: str, session: str, size: int) -> None:
        """The results of tools in one line. A result of an unknown call is ignored."""
        content = _content(raw)
        results = [part for part in content if type(part) is dict and "tool_use_id" in part] if type(content) is list else []
        for part in results:
            call = part["tool_use_id"]
            waiting = self.calls.get(call) if type(call) is str else None
            current = self._ongoing(raw, ts, session, waiting[1]) if waiting else None
            if current is not None:
                self.rounds.add_result(current, ts, call, size // len(results), _outcome(raw, part))

    def _queue(self, raw: Raw, ts: str, line: int) -> None:
        """Prompts queued while the agent works.

        One that is removed was given to the agent at once, and is recorded nowhere else.
        """
        queue = self.state.setdefault("queue", [])
        operation = raw.get("operation")
        if operation == "enqueue":
            message = work_prompts.claude_message(raw) or work_prompts.Message(work_prompts.EMPTY)
            human = message.kind == work_prompts.HUMAN
            name = self.rounds.hash_of(message.text) if human else ""
            queue.append([name, len(message.text), list(work_language.traits(message.text)) if human else [], ts, line])
            if human and self.rounds.listen:
                self.texts[name] = message.text
            if len(queue) > 64:
                del queue[0]
        elif operation == "popAll":
            queue[:] = [item for item in queue if not item[0]]  # back into the editor
        elif operation == "dequeue" and queue:
            del queue[0]  # it becomes a line of its own
        elif operation == "remove" and queue:
            name, size, traits, queued_at, began = queue.pop(0)
            current = self.open.get("main")
            if name and current and self._is_first(name):
                self.rounds.touched[current["id"]] = current
                work.add(current, "queued")
                self.rounds.add_prompt(current, queued_at, self.texts.pop(name, ""), began, (size, traits))

    def _is_new(self, text: str) -> bool:
        return self._is_first(self.rounds.hash_of(text))

    def _is_first(self, name: str) -> bool:
        """Whether this is a prompt's first form: removed from the queue, or attached to the conversation."""
        seen = self.state["given"]
        if name in seen:
            seen.remove(name)
            return False
        seen.append(name)
        del seen[:-16]
        return True


_OPENING = {
    work_prompts.HUMAN: "prompts",
    work_prompts.SUBAGENT: "subagents",
    work_prompts.COMMAND_ECHO: "slash_commands",
    work_prompts.SENTINEL: "sentinels",
}
_COUNTED = {
    work_prompts.INTERRUPTION: "interruptions",
    work_prompts.COMPACTION: "summaries",
    work_prompts.NOTIFICATION: "notifications",
}


def _is_time(text: str) -> bool:
    try:
        return when.canonical(text) == text
    except ValueError:
        return False


def _content(raw: Raw) -> object:
    message = raw.get("message")
    return message.get("content") if type(message) is dict else None


def _outcome(raw: Raw, part: Raw) -> str:
    """How the call of a result failed; "" if it did not."""
    if part.get("is_error") is not True:
        return ""
    return "tool_denials" if raw.get("toolDenialKind") else work.outcome(work_prompts.text_of(part.get("content")).strip())


def parts_of(content: object) -> tuple[list[str], list[Raw]]:
    """The texts and the calls of tools in an answer's content."""
    texts: list[str] = []
    calls: list[Raw] = []
    if type(content) is list:
        for part in content:
            kind = part.get("type") if type(part) is dict else None
            if kind == "tool_use":
                calls.append(part)
            elif kind == "text" and type(text := part.get("text")) is str and text and not text.isspace():
                texts.append(text)
    elif type(content) is str and content.strip():
        texts.append(content)
    return texts, calls


def size_of(line: bytearray) -> int:
    """The bytes of a line that the agent is given: Claude Code writes what it shows of a result once more behind it."""
    whole = line.rfind(_RESULT)
    return whole if whole > 0 else len(line)


def name_of(raw: Raw, ts: str, session: str) -> str:
    """The identity of the round that a line begins: its uuid, or that of the line that it is a copy of.

    If it is masked or missing, its session and time.
    """
    fork = raw.get("forkedFrom")
    for value in (fork.get("messageUuid") if type(fork) is dict else None, raw.get("uuid")):
        if type(value) is str and value and not _MASKED.search(value) and len(value) < 100:
            return value
    return f"{session[:100]}:{ts}"
