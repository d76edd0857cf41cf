"""The tools as an MCP server: protocol, schemas and errors are the SDK's; what is said is tools.py's.

Importing this takes most of a second, so only bin/tok-mcp does. Answers are worked out one after another on a thread of
their own, so that the protocol goes on meanwhile.
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
from mcp.server.mcpserver.tools import Tool as Served
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from tokenops import __version__, tools

INSTRUCTIONS = (
    "TokenOps counts what AI coding agents spend and says how much of a plan is left. Call tokenops_session_budget before "
    "long or parallel work and every few minutes within it, and branch on recommended_action."
)


class Arguments(FuncMetadata):
    """Arguments as they were given: tools.checked judges them, in sentences that name the nearest known argument."""

    def validate_arguments(self, arguments_to_validate: dict[str, Any]) -> dict[str, Any]:
        """All of them, under one name."""
        return {"given": arguments_to_validate}


def served(tool: tools.Tool, desk: tools.Desk, called: Callable[[str], None], limiter: anyio.CapacityLimiter) -> Served:
    """One of our tools as the SDK serves it."""

    def asked(given: dict[str, Any]) -> tools.Answer:
        try:
            return desk.ask(tool, given)
        finally:
            called(tool.name)  # it may have to wait for whoever writes to the log; the protocol does not

    async def answer(given: dict[str, Any]) -> CallToolResult:
        try:
            found = await anyio.to_thread.run_sync(functools.partial(asked, given), limiter=limiter)
        except tools.Failed as error:
            raise ToolError(str(error)) from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise ToolError(f"{place}{error.strerror}; run tok-status to see what is wrong") from None
        said = [found.text, orjson.dumps(found.found).decode()]
        return CallToolResult(content=[TextContent(type="text", text=one) for one in said], structured_content=found.found)

    hints = ToolAnnotations(
        read_only_hint=not tool.changes, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    return Served(
        fn=answer,
        name=tool.name,
        title=None,
        context_kwarg=None,
        description=tool.about,
        parameters=tool.input_schema,
        fn_metadata=Arguments(arg_model=ArgModelBase, output_schema=tool.output_schema),
        is_async=True,
        annotations=hints,
    )


def server(chosen: Iterable[tools.Tool], desk: tools.Desk, called: Callable[[str], None]) -> MCPServer[Any]:
    """A server of some tools; `called` is told each tool's name once it was answered."""
    limiter = anyio.CapacityLimiter(1)
    made = [served(tool, desk, called, limiter) for tool in chosen]
    return MCPServer(
        "tokenops",
        instructions=INSTRUCTIONS,
        version=__version__,
        tools=made,
        resources=list(_resources()),
        log_level="ERROR",
    )


def _resources() -> Iterable[FunctionResource]:
    for address, (about, content) in tools.resources().items():
        yield FunctionResource(
            uri=address, name=address, description=about, mime_type="application/json", fn=functools.partial(_text, content)
        )


def _text(content: Callable[[], Mapping[str, Any]]) -> str:
    return json.dumps(content(), ensure_ascii=False)
