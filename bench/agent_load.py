"""How quickly tok-mcp answers: the first answer after a start, later ones one after another, and many at once.

    python bench/agent_load.py

Prints milliseconds as JSON. The log is that of the environment.
"""

from __future__ import annotations

import json
import os
import statistics
import time

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

TOOL = "tokenops_session_budget"
CALLS, AT_ONCE = 500, 200


async def measured() -> dict[str, float]:
    """The figures of one server."""
    begun = time.perf_counter()
    async with Client(stdio_client(StdioServerParameters(command="tok-mcp", env=dict(os.environ)))) as client:
        times: list[float] = []

        async def call() -> None:
            start = time.perf_counter()
            answer = await client.call_tool(TOOL, {})
            assert not answer.is_error
            times.append(1000 * (time.perf_counter() - start))

        await call()
        found = {"first": 1000 * (time.perf_counter() - begun)}
        times.clear()
        for _ in range(CALLS):
            await call()
        times.sort()
        found |= {"p50": statistics.median(times), "p99": times[CALLS * 99 // 100], "slowest": times[-1]}
        start = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(call)
        found["at_once"] = 1000 * (time.perf_counter() - start)
        # Some seconds apart each answer is worked out anew.
        apart = []
        for _ in range(5):
            await anyio.sleep(2.1)
            times.clear()
            await call()
            apart += times
        return found | {"apart": statistics.median(apart)}


if __name__ == "__main__":
    print(json.dumps(anyio.run(measured)))
