"""Serves the tools over MCP: the SDK provides protocol, schemas and errors; `tools` provides the answers.

Importing this takes most of a second, so only bin/tok-mcp does. Answers are computed one after another on another
thread, so the protocol never waits. The SDK drops what is under way when its input ends; here the input ends only when
every request in it is answered.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import re
import sys
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import orjson
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resources import FunctionResource
from mcp.server.mcpserver.tools import Tool as SdkTool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, ContentBlock, TextContent, ToolAnnotations

from tokenops import __version__, jsonl, show, tools
from tokenops.session import Fault
from tokenops.tools_answers import Answer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

INSTRUCTIONS = (
    "TokenOps counts what AI coding agents spend and reports how much of a plan is left. Call tokenops_session_budget "
    "before long or parallel work and every few minutes within it, and branch on recommended_action."
)


class Arguments(FuncMetadata):
    """Arguments as they came: tools.arguments checks them, with errors that name the nearest valid argument."""

    def validate_arguments(self, arguments_to_validate: dict[str, Any]) -> dict[str, Any]:
        """All of them, under one name."""
        return {"args": arguments_to_validate}


def sdk_tool(
    tool: tools.Tool, cache: tools.ToolCache, on_call: Callable[[str], None], limiter: anyio.CapacityLimiter
) -> SdkTool:
    """One of our tools as the SDK serves it."""

    def call(args: dict[str, Any]) -> Answer:
        try:
            return cache.call(tool, args)
        finally:
            on_call(tool.name)  # it may have to wait for another writer of the log; the protocol does not

    async def answer(args: dict[str, Any]) -> CallToolResult:
        try:
            value, text = await anyio.to_thread.run_sync(functools.partial(call, args), limiter=limiter)
        except Fault as fault:
            raise ToolError(str(fault)) from None
        except OSError as error:
            path = f"{error.filename}: " if error.filename else ""
            raise ToolError(f"{path}{error.strerror}; run tok-status to see what is wrong") from None
        content: list[ContentBlock] = [TextContent(type="text", text=part) for part in (text, orjson.dumps(value).decode())]
        return CallToolResult(content=content, structured_content=value)

    hints = ToolAnnotations(
        read_only_hint=not tool.changes, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    return SdkTool(
        fn=answer,
        name=tool.name,
        title=None,
        context_kwarg=None,
        description=tool.purpose,
        parameters=tool.input_schema,
        fn_metadata=Arguments(arg_model=ArgModelBase, output_schema=tool.output_schema),
        is_async=True,
        annotations=hints,
        # Claude Code 2.1.332 keeps other tools from its model until the model searches for them (seen on 2026-11-29).
        meta={"anthropic/alwaysLoad": True} if tool.always else None,
    )


def server(selection: Iterable[tools.Tool], cache: tools.ToolCache, on_call: Callable[[str], None]) -> MCPServer[Any]:
    """A server of some tools; `on_call` is called with each tool's name after its answer."""
    limiter = anyio.CapacityLimiter(1)
    return MCPServer(
        "tokenops",
        instructions=INSTRUCTIONS,
        version=__version__,
        tools=[sdk_tool(tool, cache, on_call, limiter) for tool in selection],
        resources=list(_resources()),
        log_level="ERROR",
    )


# The process's stdin and stdout.

# How long requests that are under way may take after the end of the input.
LAST_ANSWERS_S = 60.0
# Texts in a request that the SDK repeats in its errors are cut to this length, in lines that could hold longer ones.
_LONGEST_NAME, _LONG_LINE = 200, 1000


class Pending:
    """The requests that were read and not answered yet."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._changed = threading.Condition()

    def take(self, message: Mapping[str, Any]) -> None:
        """A message of the client: a request waits for its answer; one that is cancelled gets none."""
        with self._changed:
            if "method" in message and "id" in message:
                self._ids.add(repr(message["id"]))
            elif message.get("method") == "notifications/cancelled" and isinstance(message.get("params"), dict):
                self._ids.discard(repr(message["params"].get("requestId")))
                self._changed.notify_all()

    def answer(self, message: Mapping[str, Any]) -> None:
        """A message of the server: an answer, if it has an id and no method."""
        if "id" in message and "method" not in message:
            with self._changed:
                self._ids.discard(repr(message["id"]))
                self._changed.notify_all()

    def give_up(self) -> None:
        """No answer can be written any more."""
        with self._changed:
            self._ids.clear()
            self._changed.notify_all()

    def wait(self, seconds: float) -> int:
        """Waits until every request is answered; how many are not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._ids, seconds)
            return len(self._ids)


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


_ID = re.compile(rb'"id"\s*:\s*(\d{1,15}|"[^"\\]{1,100}")')
Refusal = tuple[Any, int, str]  # the id, JSON-RPC's code, and why


def refusal(line: bytes) -> Refusal | None:
    """Why a line is no request that the SDK answers; it would drop it, and the client would wait for ever."""
    try:
        message = orjson.loads(line)
    except ValueError:
        mark = _ID.search(line[:_LONG_LINE])
        return (orjson.loads(mark[1]) if mark else None), -32700, "the line is not valid JSON"
    if not isinstance(message, dict):
        return None, -32600, "expected one object per line; batches are not supported"
    if "method" not in message:
        return None
    method, params = message["method"], message.get("params")
    if "id" in message and _id_of(message) is None:
        return None, -32600, "id is neither text nor a whole number"
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str):
        return _id_of(message), -32600, 'expected jsonrpc "2.0" and a method'
    if params is not None and not isinstance(params, dict):
        return _id_of(message), -32602, "params is not an object"
    if method == "prompts/get" and "id" in message:
        return _id_of(message), -32602, "this server has no prompts"
    return None


def _id_of(message: object) -> str | int | None:
    identity = message.get("id") if isinstance(message, dict) else None
    return identity if type(identity) in (str, int) else None


def _waits(line: bytes) -> bool:
    """Whether a client may wait for an answer to a line: one with an id, or a batch."""
    return b'"id"' in line


def bounded_line(line: bytes) -> bytes:
    """A request's line, in which no name that an error would repeat is longer than some hundred characters."""
    if len(line) <= _LONG_LINE:
        return line
    try:
        message = json.loads(line)  # unlike orjson it keeps whole numbers of any size
    except (ValueError, RecursionError):
        return line
    if not isinstance(message, dict):
        return line
    params = message.get("params")
    for holder, name in ((message, "method"), (params, "name"), (params, "uri")):
        if isinstance(holder, dict) and isinstance(holder.get(name), str):
            holder[name] = show.short_text(holder[name], _LONGEST_NAME)
    return json.dumps(message).encode() + b"\n"


class Input(io.RawIOBase):
    """Lines of a descriptor. The end comes only when every request in them is answered, or after a minute."""

    def __init__(
        self, fd: int, pending: Pending, on_unanswered: Callable[[int], None], on_refusal: Callable[[Refusal], None]
    ) -> None:
        self._file = os.fdopen(fd, "rb")
        self._pending, self._on_unanswered, self._on_refusal = pending, on_unanswered, on_refusal
        self._rest = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Some bytes of the next line; 0 at the end."""
        if not self._rest:
            line = self._next_line()
            if not line:
                if unanswered := self._pending.wait(LAST_ANSWERS_S):
                    self._on_unanswered(unanswered)
                return 0
            self._pending.take(_message(line))
            # The last line may have no end, and the reader would wait for one.
            self._rest = bounded_line(line if line.endswith(b"\n") else line + b"\n")
        view = memoryview(buffer).cast("B")
        part, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(part)] = part
        return len(part)

    def _next_line(self) -> bytes:
        """The next line that is the SDK's to answer; b"" at the end."""
        while line := self._file.readline():
            line = line.removeprefix(jsonl.BOM)
            if not line.strip() or not (why := refusal(line)):
                return line
            if _waits(line):
                self._on_refusal(why)
        return b""


class Output(io.RawIOBase):
    """Writes lines to a descriptor and notes which requests they answer."""

    def __init__(self, fd: int, pending: Pending) -> None:
        self._file, self._pending, self._line = os.fdopen(fd, "wb", buffering=0), pending, b""
        self._lock = threading.Lock()  # of the two that write: the SDK, and the reader of requests that it refuses
        self._waiting: list[bytes] = []  # refusals that came in the middle of a line

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Writes some bytes. Raises OSError."""
        with self._lock:
            try:
                count = self._file.write(data) or 0
            except OSError:
                self._pending.give_up()
                raise
            *lines, self._line = (self._line + bytes(data)[:count]).split(b"\n")
            self._write_refusals()
        for line in lines:
            self._pending.answer(_message(line))
        return count

    def send_error(self, why: Refusal) -> None:
        """Answers a request with an error, between two lines."""
        error = {"jsonrpc": "2.0", "id": why[0], "error": {"code": why[1], "message": why[2]}}
        with self._lock:
            self._waiting.append(jsonl.line_of(error))
            self._write_refusals()

    def _write_refusals(self) -> None:
        while self._waiting and not self._line:
            rest = self._waiting.pop(0)
            with contextlib.suppress(OSError):  # the SDK's next answer finds out, too
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]


def serve(server: MCPServer[Any], on_unanswered: Callable[[int], None]) -> None:
    """Serves the process's stdin and stdout until the input ends. `on_unanswered`: how many requests had no answer.

    What handlers print goes to stderr, and they read nothing: only the protocol uses the two descriptors. Raises
    BrokenPipeError if nobody reads the answers.
    """
    pending = Pending()
    out = Output(os.dup(1), pending)
    lines = Input(os.dup(0), pending, on_unanswered, out.send_error)
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
    standard, is_broken = (sys.stdin, sys.stdout), False
    # The SDK serves the buffers of these two.
    sys.stdin = types.SimpleNamespace(buffer=io.BufferedReader(lines))
    sys.stdout = types.SimpleNamespace(buffer=io.BufferedWriter(out))
    try:
        server.run("stdio")
    except BaseExceptionGroup as group:
        if group.split((OSError, anyio.BrokenResourceError))[1] is not None:
            raise
        is_broken = True
    finally:
        sys.stdin, sys.stdout = standard
    if is_broken:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _resources() -> Iterable[FunctionResource]:
    for address, (description, content) in tools.resources().items():
        text = functools.partial(_text, content)
        yield FunctionResource(uri=address, name=address, description=description, mime_type="application/json", fn=text)


def _text(content: Callable[[], Mapping[str, Any]]) -> str:
    return json.dumps(content(), ensure_ascii=False)
