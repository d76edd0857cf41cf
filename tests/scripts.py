"""Transcripts as the clients write them, made line by line: who says what, and what the agent does."""

from __future__ import annotations

import datetime
import json
import pathlib
import random
import uuid
from collections.abc import Callable
from typing import Any

from conftest import Json, lines
from tokenops import sync

NONE = uuid.UUID(int=0)


class Claude:
    """A transcript of Claude Code. Each line comes some seconds after the one before it."""

    def __init__(
        self, session: str = "s1", start: str = "2026-03-02T09:00:00", cwd: str = "/home/ada/app", **given: Any
    ) -> None:
        self.session, self.cwd, self.given = session, cwd, given
        self.now = datetime.datetime.fromisoformat(start)
        self.lines: list[Json] = []
        self.number = 0

    def line(self, seconds: float = 10, **given: Any) -> Json:
        """One line of any sort."""
        self.now += datetime.timedelta(seconds=seconds)
        self.number += 1
        name = str(uuid.uuid5(NONE, f"{self.session}/{self.number}"))
        made: Json = {
            "parentUuid": self.lines[-1].get("uuid") if self.lines else None,
            "isSidechain": False,
            "cwd": self.cwd,
            "sessionId": self.session,
            "version": "2.1.200",
        }
        made |= given | self.given
        made |= {"uuid": name, "timestamp": self.now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.now.microsecond // 1000:03d}Z"}
        self.lines.append(made)
        return made

    def human(self, text: str, seconds: float = 30, **given: Any) -> Json:
        """What a person types."""
        return self.line(seconds, type="user", message={"role": "user", "content": text}, **given)

    def says(self, text: str, message: str = "", seconds: float = 5, **given: Any) -> Json:
        """What the agent writes."""
        return self._answer([{"type": "text", "text": text}], message, seconds, **given)

    def calls(self, tool: str, seconds: float = 5, message: str = "", **given: Any) -> str:
        """A tool that the agent calls; the call's id."""
        call = f"toolu_{self.session}_{self.number}"
        self._answer([{"type": "tool_use", "id": call, "name": tool, "input": given}], message, seconds)
        return call

    def result(self, call: str, text: str = "done", error: bool = False, seconds: float = 2, **given: Any) -> Json:
        """What the tool gives."""
        part: Json = {"tool_use_id": call, "type": "tool_result", "content": text}
        if error:
            part["is_error"] = True
        message = {"role": "user", "content": [part]}
        return self.line(seconds, message=message, type="user", toolUseResult={"stdout": text, **given})

    def does(self, tool: str, text: str = "done", error: bool = False, **given: Any) -> None:
        """A call and its result."""
        self.result(self.calls(tool, **given), text, error)

    def _answer(self, content: list[Json], message: str, seconds: float, **given: Any) -> Json:
        usage = {
            "input_tokens": 10,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 20_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 200,
            "service_tier": "standard",
        }
        body = {
            "model": "claude-opus-4-6",
            "id": message or f"msg_{self.session}x{self.number}",
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": None,
            "usage": usage,
        }
        return self.line(seconds, message=body, type="assistant", requestId=f"req_{self.number}", **given)

    def bytes(self) -> bytes:
        """The file."""
        return lines(self.lines)


class Codex:
    """A rollout of Codex CLI."""

    def __init__(self, start: str = "2026-06-01T09:00:00", **meta: Any) -> None:
        self.now = datetime.datetime.fromisoformat(start)
        self.lines: list[Json] = []
        self.number = 0
        self.thread = thread = self.name()
        given = {"id": thread, "cwd": "/home/ada/app", "source": "cli", "model_provider": "openai", "cli_version": "0.140.0"}
        self.line("session_meta", given | meta, 0)

    def line(self, kind: str, payload: Json, seconds: float = 5) -> None:
        """One line of any sort."""
        self.now += datetime.timedelta(seconds=seconds)
        stamp = self.now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.now.microsecond // 1000:03d}Z"
        self.lines.append({"timestamp": stamp, "type": kind, "payload": payload})

    def name(self) -> str:
        """A UUID of version 7, which says when it was made."""
        ms = int(self.now.replace(tzinfo=datetime.UTC).timestamp() * 1000)
        self.number += 1
        return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7000-8000-{self.number:012x}"

    def turn(self) -> str:
        """A turn begins; its id."""
        self.now += datetime.timedelta(seconds=1)
        name = self.name()
        self.line("event_msg", {"type": "task_started", "turn_id": name}, 0)
        self.line("turn_context", {"turn_id": name, "cwd": "/home/ada/app", "model": "gpt-5.4"}, 0)
        return name

    def human(self, text: str, event_first: bool = False, form: str = "user_message") -> None:
        """What a person types: it stands there twice."""
        item: Json = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        event: Json = {"type": "user_message", "message": text}
        if form == "item_completed":
            event = {"type": form, "item": {"type": "UserMessage", "id": "i", "content": [{"type": "text", "text": text}]}}
        both = [("response_item", item), ("event_msg", event)]
        for kind, payload in reversed(both) if event_first else both:
            self.line(kind, payload, 20 if payload is both[event_first][1] else 0)

    def says(self, text: str) -> None:
        """What the agent writes: twice, too."""
        self.line("event_msg", {"type": "agent_message", "message": text})
        content = [{"type": "output_text", "text": text}]
        self.line("response_item", {"type": "message", "role": "assistant", "content": content}, 0)

    def runs(self, command: str, output: str = "", code: int | None = 0, call: str = "") -> str:
        """A command, and its result unless there is none yet."""
        self.number += 1
        call = call or f"call_{self.thread[-4:]}_{self.number}"
        arguments = json.dumps({"cmd": command, "workdir": "/home/ada/app"})
        self.line(
            "response_item", {"type": "function_call", "name": "exec_command", "arguments": arguments, "call_id": call}
        )
        if code is not None:
            self.gives(call, f"Chunk ID: abc\nWall time: 0.1 seconds\nProcess exited with code {code}\nOutput:\n{output}")
        return call

    def gives(self, call: str, output: str) -> None:
        """The result of a call."""
        self.line("response_item", {"type": "function_call_output", "call_id": call, "output": output}, 1)

    def bytes(self) -> bytes:
        """The file."""
        return lines(self.lines)


def new_log(folder: pathlib.Path, name: str = "log") -> pathlib.Path:
    """The directory of a log, with a salt that is always the same."""
    log = folder / name
    log.mkdir(mode=0o700)
    (log / "salt").write_text("ab" * 24)
    return log


def in_pieces(
    rng: random.Random, content: bytes, path: pathlib.Path, sources: Callable[[], list[Any]]
) -> tuple[pathlib.Path, pathlib.Path]:
    """Two logs of one file: of one that grew piece by piece and was read each time, and of the whole one."""
    folder = next(above for above in path.parents if above.name == "home").parent
    log, whole = new_log(folder, "grown"), new_log(folder, "whole")
    path.parent.mkdir(parents=True)
    cuts = sorted(rng.sample(range(len(content)), rng.choice([2, 9, 40])))
    for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        with path.open("ab") as file:
            file.write(content[begin:end])
        sync.run(str(log), sources(), jobs=1)
    sync.run(str(whole), sources(), jobs=2)
    return log, whole
