"""Serves the tools over MCP: the SDK provides protocol, schemas and errors; `tools` provides the answers.

Importing this takes most of a second, so only bin/tok-mcp does. Answers are computed one after another on another
thread, so the protocol never waits.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio
import anyio.to_thread
import orjson
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resources import FunctionResource
from mcp.server.mcpserver.tools import Tool as SdkTool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, ContentBlock, TextContent, ToolAnnotations

from tokenops import __version__, tools
from tokenops.session import Fault
from tokenops.tools_answers import Answer

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


def _resources() -> Iterable[FunctionResource]:
    for address, (description, content) in tools.resources().items():
        text = functools.partial(_text, content)
        yield FunctionResource(uri=address, name=address, description=description, mime_type="application/json", fn=text)


def _text(content: Callable[[], Mapping[str, Any]]) -> str:
    return json.dumps(content(), ensure_ascii=False)
