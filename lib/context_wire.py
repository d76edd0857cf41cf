"""Makes rows and a table of what one request was made of, as tok-proxy saw it: tools by server, system prompt, messages."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenops import chart_text, context, context_breaks, context_report, events, show, when
from tokenops.events import Event
from tokenops.show import Column

TOOLS = "tools"
_MCP, _TOOL = "mcp__", "tool "
# Part -> what it is called; also their order, which is that of a prompt.
_NAMES = {
    TOOLS: "tools",
    "system": "system prompt",
    "settings": "settings",
    "messages system": "messages: system",
    "messages user": "messages: user",
    "messages assistant": "messages: model",
    "messages tool": "messages: tool results",
    "images": "images",
}


class Composition(NamedTuple):
    """What a request was made of: a row per part in the order of a prompt, and the total."""

    rows: list[Event]
    total: Event


def composition(turn: Event, record: Event, sizes: Mapping[str, int], by_tool: bool) -> Composition:
    """What a turn's request was made of, tools by server or singly. `sizes`: those of its tools, if they are known.

    Tokens are an estimate: the turn's prompt tokens, shared by size.
    """
    parts = list(_parts(record["parts"], sizes, by_tool))
    whole, prompt = sum(record["parts"].values()), events.context_size(turn)
    tokens = context.apportion(prompt, [("", part["chars"]) for part in parts]) if whole and prompt else []
    rows = []
    for at, part in enumerate(parts):
        row = {"v": 1, "kind": "context_part", **part}
        if tokens:
            row["estimated_tokens"] = tokens[at][1]
        rows.append(row | {"share": round(part["chars"] / whole, 4) if whole else 0})
    total: Event = {"v": 1, "kind": "context_request", "turn": turn["id"], "chars": whole, "prompt_tokens": prompt}
    names = ("ts", "session_id", "client", "project", "provider", "model", *events.CONTEXT)
    total |= {name: turn[name] for name in names if name in turn}
    return Composition(rows, total | {name: record[name] for name in ("prefix", "changed") if name in record})


def _parts(parts: Mapping[str, int], sizes: Mapping[str, int], by_tool: bool) -> Iterator[Event]:
    for part in sorted(parts, key=lambda name: (list(_NAMES).index(name) if name in _NAMES else len(_NAMES), name)):
        if part != TOOLS or not sizes:
            yield {"part": part, "chars": parts[part]}
            continue
        groups: dict[str | None, list[tuple[str, int]]] = {}
        for name, size in sizes.items():
            tool = name.removeprefix(_TOOL)
            groups.setdefault(_server(tool), []).append((tool, size))
        for server in sorted(
            groups, key=lambda name: (name is not None, -sum(size for _, size in groups[name]), name or "")
        ):
            label = {"server": server} if server is not None else {}
            if by_tool:
                for tool, size in sorted(groups[server], key=lambda item: (-item[1], item[0])):
                    yield {"part": TOOLS, **label, "tool": tool, "chars": size}
            else:
                tools = groups[server]
                yield {"part": TOOLS, **label, "tools": len(tools), "chars": sum(size for _, size in tools)}


def _server(tool: str) -> str | None:
    """The MCP server that a tool's name states; None for the client's own tools."""
    server, _, name = tool.removeprefix(_MCP).partition("__")
    return server if tool.startswith(_MCP) and name else None


# For people.


def _label(row: Event) -> str:
    if row["part"] != TOOLS:
        return _NAMES.get(row["part"], str(row["part"]))
    if "tool" in row:
        tool = row["tool"].removeprefix(f"{_MCP}{row['server']}__") if "server" in row else row["tool"]
        return f"{row['server']}: {tool}" if "server" in row else f"tool {tool}"
    if "tools" not in row:
        return _NAMES[TOOLS]
    return f"tools of {row['server']} (MCP)" if "server" in row else "tools of the client"


_SHORT = {"tools of the client": "own tools", "messages: tool results": "tool results"}


def _short(row: Event) -> str:
    """What a part is called where there is little room."""
    if "server" in row and "tool" not in row:
        return f"MCP {row['server']}"
    label = _label(row)
    return _SHORT.get(label, label)


_BAR = 10


def table(result: Composition, shape: str, color: bool, rest: Sequence[Event] = ()) -> str:
    """The parts for people, in the order of the prompt. `rest`: rows only in the sums."""
    rows, total = result.rows, result.total
    shares = [row["share"] for row in rows]
    more = [{"chars": sum(row["chars"] for row in rest), "estimated_tokens": _tokens(rest)}] if rest else []
    body = [*rows, *more, {"chars": total["chars"], "estimated_tokens": total["prompt_tokens"]}]
    names = [*map(_label, rows), *([f"and {len(rest)} more"] if rest else []), "total"]
    blank = [""] * (len(body) - len(rows))
    columns = [
        Column("part", names, False, 0, [*map(_short, rows), *names[len(rows) :]]),
        show.counts("tools", [*(row.get("tools") for row in rows), *(None for _ in blank)], 4),
        show.counts("characters", [row["chars"] for row in body], 2, "chars"),
        show.counts("est. tokens", [row.get("estimated_tokens") for row in body], 1, "tokens"),
        Column("share", [*map(chart_text.percent, shares), *blank], rank=0),
        Column(
            "",
            [*(chart_text.gauge(share, _BAR) for share in shares), *blank],
            False,
            3,
            styles=["accent"] * len(rows) + blank,
        ),
    ]
    if shape != "table":
        del columns[5]
    if not any("tools" in row for row in rows):
        del columns[1]
    return show.table(columns, shape, totals=True, color=color)


def _tokens(rows: Sequence[Event]) -> int:
    return sum(row.get("estimated_tokens", 0) for row in rows)


def heading(total: Event, began: str) -> str:
    """What the table is of."""
    session = f"session {total['session_id'][:8]}, " if "session_id" in total else ""
    paid = f"{show.compact(total['prompt_tokens'])} prompt tokens" if total["prompt_tokens"] else "prompt tokens unknown"
    read = total.get("cache_read_tokens", 0)
    if total["prompt_tokens"]:
        paid += f", {chart_text.percent(read / total['prompt_tokens'])} read from the cache"
    return f"{session}request of {began} to {total.get('model', 'unknown')}: {paid}"


def sentence(total: Event) -> str:
    """How the request differs from the one before; "" if it was compared with none."""
    if "prefix" not in total:
        return ""
    same = f"{show.compact(total['prefix'])} of {show.compact(total['chars'])} characters"
    if "changed" not in total:
        return f"It begins with all of the request before: the first {same} are the same."
    what = context_breaks.part_in_words(total["changed"])
    return f"Since the request before: {what}. The first {same} are the same; a cache holds no more."


def text(
    result: Composition,
    shape: str,
    color: bool,
    rest: Sequence[Event],
    breaks: Sequence[Event],
    tz: datetime.tzinfo,
    now: int,
) -> str:
    """All that is shown of a request: its parts, how it differs from the one before, and its session's cache breaks."""
    began = when.short_time(when.moment(result.total["ts"]), tz, now).strip()
    lines = [heading(result.total, began), table(result, shape, color, rest)]
    parts = [show.notes(lines[:1], shape, False, verbose=True), "\n", lines[1]]
    if words := sentence(result.total):
        parts.append(show.notes([words], shape, color, verbose=True))
    if breaks:
        parts += ["\n", context_report.break_table(breaks, shape, color, tz, now)]
    return "".join(parts)
