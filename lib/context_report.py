"""Makes rows of what filled a context, by cause, tool, command, server or file, and of cache breaks; and tables of both."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from tokenops import chart_text, context, context_breaks, context_costs, events, pricing, show, when
from tokenops.context import KINDS
from tokenops.context_breaks import Break
from tokenops.events import Event
from tokenops.show import Column

CAUSE, TOOL, COMMAND, SERVER = STORED = ("cause", "tool", "command", "server")
FILE = "file"  # only while the client's own files are read
SEGMENT = "segment"  # only of one session: what entered at one turn with so many tokens or more
LEAST_SEGMENT = 1000
BY = (*STORED, SEGMENT, FILE)
# Before a label that is a tool's, command's, server's or file's name, so that no such name is taken for a cause.
_MARK = "\t"
_MCP = "mcp__"
_USES = ("call ", "result ")


def label_of(by: str) -> Callable[[str], str]:
    """The label of a cause, such as `result Bash|npm test`, in rows by a field."""
    return functools.partial(_LABELS[by])


def _of_cause(cause: str) -> str:
    return cause.partition("|")[0]


def _of_tool(cause: str) -> str:
    """Calls and results of a tool together."""
    name = _of_cause(cause)
    return _MARK + name.partition(" ")[2] if name.startswith(_USES) else name


def _of_command(cause: str) -> str:
    """Calls and results of a shell's command together; what runs no command stays apart by cause."""
    name, _, command = cause.partition("|")
    return _MARK + command if command else name


def _of_server(cause: str) -> str:
    """Calls and results of all tools of an MCP server together; other tools stay apart by cause."""
    name = _of_cause(cause)
    server = name.partition(f" {_MCP}")[2].partition("__")[0] if name.startswith(_USES) else ""
    return _MARK + server if server else name


def _of_segment(cause: str) -> str:
    """Large segments one by one, with the command of a shell's; all else by cause."""
    name, turn = context.segment_of(cause)
    return f"{_MARK}{cause}" if turn else _of_cause(name)


_LABELS = {
    SEGMENT: _of_segment,
    CAUSE: _of_cause,
    TOOL: _of_tool,
    COMMAND: _of_command,
    SERVER: _of_server,
    FILE: _of_command,
}


def prompt_of(share: context.Shares) -> dict[str, int]:
    """The tokens of a turn's prompt by cause, however they were paid."""
    sums: dict[str, int] = {}
    for part in share.parts:
        for cause, count in part.tokens.items() if part.kind != context.PRODUCING else ():
            label = _of_cause(cause)
            sums[label] = sums.get(label, 0) + count
    return sums


class Sums(NamedTuple):
    """Rows, the dearest first, and their total."""

    rows: list[Event]
    total: Event


def sums(bill: context_costs.Bill, by: str, turns: Iterable[Event]) -> Sums:
    """What each label took, and the sums of all. `turns`: those in the bill, whose recorded classes the total states."""
    lines = bill.lines()
    rows = [_row(label, line, by) for label, line in lines.items()]
    total = {"v": 1, "kind": "context_total", "by": by, **_counts(lines.values(), bill.turns)}
    for turn in turns:
        for name in events.TOKENS:
            if turn.get(name):
                total[name] = total.get(name, 0) + turn[name]
    return Sums(sorted(rows, key=_dearest, reverse=True), total)


def _row(label: str, line: context_costs.Line, by: str) -> Event:
    name = label.removeprefix(_MARK)
    if by == SEGMENT:
        name, turn = context.segment_of(name)
        command = name.partition("|")[2]
        segment: Event = {"v": 1, "kind": "context", "cause": _of_cause(name), "segment": turn or None}
        return segment | ({"command": command} if command else {}) | _counts([line], line.turns)
    row: Event = {"v": 1, "kind": "context", "cause": name}
    if by != CAUSE:
        row[by] = name if label.startswith(_MARK) else None
    return row | _counts([line], line.turns)


def _counts(lines: Iterable[context_costs.Line], turns: int) -> Event:
    """Tokens and costs by kind, of one line or of all."""
    every = list(lines)
    row: Event = {f"{kind}_tokens": sum(line.tokens.get(kind, 0) for line in every) for kind in KINDS}
    amounts = [line.usd for line in every if line.usd is not None]
    row["cost_usd"] = pricing.plain(context_costs.total(amounts)) if amounts or not every else None
    for kind in KINDS:
        costs = [line.costs[kind] for line in every if kind in line.costs]
        if costs:
            row[f"{kind}_usd"] = pricing.plain(context_costs.total(costs))
    row["turns"] = turns
    if unpriced := sum(line.unpriced for line in every):
        row["unpriced_tokens"] = unpriced
    return row


def _usd(row: Event) -> Decimal:
    return Decimal(row["cost_usd"] or 0)


def _tokens(row: Event) -> int:
    return sum(row[f"{kind}_tokens"] for kind in KINDS)


def _dearest(row: Event) -> tuple[Decimal, int, str]:
    return _usd(row), _tokens(row), row["cause"]


# What rows can be ordered by.
ORDERS: show.Orders = {
    "price": lambda row: None if row["cost_usd"] is None else _usd(row),
    "tokens": _tokens,
    **{kind: functools.partial(lambda kind, row: row[f"{kind}_tokens"], kind) for kind in KINDS},
    "turns": lambda row: row["turns"],
    "name": lambda row: row["cause"],
}


BREAK_ORDERS: show.Orders = {
    "price": lambda row: None if row["cost_usd"] is None else _usd(row),
    "tokens": lambda row: row["tokens"],
    "began": lambda row: when.moment(row["ts"]),
    "pause": lambda row: row["gap_s"],
    "reason": lambda row: row["reason"],
}


def break_row(met: Break) -> Event:
    """A cache break as a record."""
    names = ("session_id", "client", "project", "model")
    row: Event = {"v": 1, "kind": "cache_break", "ts": met.turn["ts"], "turn": met.turn["id"]}
    row |= {name: met.turn[name] for name in names if name in met.turn}
    row |= {"reason": met.reason, "tokens": met.tokens}
    row["cost_usd"] = None if met.usd is None else pricing.plain(met.usd)
    row["gap_s"] = round(met.gap / 1000, 1)
    return row | {name: text for name, text in (("client_reason", met.stated), ("part", met.part)) if text}


def break_sums(breaks: Sequence[Event]) -> Event:
    """What the total states about cache breaks: how many, of how many tokens, and what they cost beyond reading them."""
    usd = [Decimal(row["cost_usd"]) for row in breaks if row["cost_usd"] is not None]
    sums = {"cache_breaks": len(breaks), "break_tokens": sum(row["tokens"] for row in breaks)}
    return sums | {"break_usd": pricing.plain(context_costs.total(usd)) if usd or not breaks else None}


# For people.

_PLAIN = {
    context.BASE: "base: tools, system",
    "prompt": "prompts",
    context.REPLY: "replies",
    "attachment": "attachments",
    "image": "images",
    context.SUMMARY: "summaries",
}
# On a terminal that is narrower, rows have the names of the causes: cut, they still show whether they are calls or results.
_NARROW = 72
# From this width on there is room for the number of turns.
_WIDE = 100


def plain_name(row: Event, by: str) -> str:
    """What a row is of, in plain words."""
    cause: str = row["cause"]
    if by == SEGMENT and row[SEGMENT] is not None:
        what = f"{row['command']} ({cause})" if "command" in row else plain_name(row, CAUSE)
        return f"{what}, turn {row['n']}" if "n" in row else what
    if by not in (CAUSE, SEGMENT) and row.get(by) is not None:
        return _tool(cause) if by == TOOL else cause
    for use, noun in (("call ", "calls"), ("result ", "results")):
        if cause.startswith(use):
            rest = "small " if by == SEGMENT and row[SEGMENT] is None else ""  # those that are no segments of their own
            return f"{rest}{_tool(cause.removeprefix(use))} {noun}"
    return _PLAIN.get(cause, cause)


def _tool(name: str) -> str:
    """A tool's name; an MCP server's as server: tool."""
    server, _, tool = name.removeprefix(_MCP).partition("__")
    return f"{server}: {tool}" if name.startswith(_MCP) and tool else name


def table(sums: Sums, shape: str, color: bool, rest: Sequence[Event] = ()) -> str:
    """Rows for people, the dearest first, with a bar of each one's share of the cost. `rest`: rows only in the sums."""
    rows, total, by = sums.rows, sums.total, sums.total["by"]
    whole = _usd(total)
    body = [*rows, *([_rest(rest)] if rest else []), total]
    labels = [f"and {len(rest)} more"] * bool(rest) + ["total"]
    width = (show.width() if shape == "table" else None) or _WIDE
    names = [*_names(rows, by, width), *labels]
    parts = [float(_usd(row) / whole) if whole else 0.0 for row in body[:-1]]
    percents = [chart_text.percent(part) if part else "" for part in parts]
    most = max(map(len, percents), default=0)
    bars, short = (
        [f"{chart_text.gauge(part, size)} {text:>{most}}" for part, text in zip(parts, percents, strict=True)]
        for size in (_BAR, _BAR // 2)
    )
    columns = [
        Column(by, names, False, 0, styles=["dim" if at == len(rows) and rest else "" for at in range(len(body))]),
        show.amounts(
            "list price", [row["cost_usd"] for row in body], ["unpriced_tokens" in row for row in body], 0, "price"
        ),
        Column(
            "share", [*(bars if shape == "table" else percents), ""], False, 3, [*short, ""], [*("accent" for _ in bars), ""]
        ),
        show.counts("entered", [row["entering_tokens"] for row in body], 2),
        show.counts("carried", [row["carrying_tokens"] for row in body], 1),
        show.counts("rewritten", [row["rewriting_tokens"] for row in body], 4, "again"),
        show.counts("output", [row["producing_tokens"] for row in body], 5),
    ]
    if width >= _WIDE:
        columns.append(show.counts("turns", [row["turns"] for row in body], 6))
    return show.table(columns, shape, totals=True, color=color)


def _names(rows: Sequence[Event], by: str, width: int) -> list[str]:
    """What the rows of a table are of. Files are named below the folder that they share; of long paths the end is shown."""
    names = [row["cause"] if width < _NARROW and by != SEGMENT else plain_name(row, by) for row in rows]
    if by != FILE:
        return names
    files = [row["cause"] for row in rows if row.get(FILE) is not None]
    folder = (
        os.path.commonpath([os.path.dirname(name) for name in files]) if all(map(os.path.isabs, files)) and files else ""
    )
    most = max(width // 2 - 10, 20)
    for at, row in enumerate(rows):
        if row.get(FILE) is not None:
            name = row["cause"].removeprefix(folder).removeprefix("/") if len(folder) > 1 else row["cause"]
            names[at] = name if len(name) <= most else f"…{name[1 - most :]}"
    return names


def text(
    rows: Sequence[Event], total: Event, rest: Sequence[Event], shape: str, color: bool, tz: datetime.tzinfo, now: int
) -> str:
    """All of it for people: what it is of, the rows, and what they say in words. `rest`: rows only in the sums."""
    sums = Sums(list(rows), total)
    head = show.notes([heading(total, tz, now)], shape, False, verbose=True)
    return f"{head}\n{table(sums, shape, color, rest)}" + show.notes(sentences(sums), shape, color, verbose=True)


_BAR = 10


def _rest(rows: Sequence[Event]) -> Event:
    sums: Event = {f"{kind}_tokens": sum(row[f"{kind}_tokens"] for row in rows) for kind in KINDS}
    amounts = [_usd(row) for row in rows if row["cost_usd"] is not None]
    sums |= {"cost_usd": pricing.plain(context_costs.total(amounts)) if amounts else None, "turns": 0}
    return sums | ({"unpriced_tokens": 1} if any("unpriced_tokens" in row for row in rows) else {})


def sentences(sums: Sums) -> list[str]:
    """What the table says, in plain words: the dearest cause that one can do something about, and the cache breaks."""
    total, by = sums.total, sums.total["by"]
    result = _segment_sentence(sums.rows) if by == SEGMENT else []
    fixed = (context.BASE, context.REPLY, context.THINKING, context.UNLOGGED, context.FEES, context.UNEXPLAINED)
    row = next((row for row in sums.rows if row["cause"] not in fixed and row["entering_tokens"]), None)
    if by != SEGMENT and row is not None and row["cost_usd"] is not None:
        times = round((row["carrying_tokens"] + row["rewriting_tokens"]) / row["entering_tokens"])
        carried = f" and were carried {show.plural(times, 'time')}" if times else ""
        name = plain_name(row, by)
        name = f"{name[0].upper()}{name[1:]}" if name in _PLAIN.values() else name
        entered = f"{name} entered with {show.compact(row['entering_tokens'])} tokens{carried}"
        result.append(f"{entered}: {show.money(row['cost_usd'])}.")
    if total.get("cache_breaks"):
        more = f", {show.money(total['break_usd'])} more than reading them" if total["break_usd"] else ""
        count = show.plural(total["cache_breaks"], "cache break")
        result.append(f"{count} paid {show.compact(total['break_tokens'])} tokens again{more}; --breaks lists them.")
    if total.get("unpriced_tokens"):
        result.append(f"+ {show.compact(total['unpriced_tokens'])} tokens are of models without a price.")
    return result


def _segment_sentence(rows: Sequence[Event]) -> list[str]:
    """What the dearest segment cost, and how much of that by being carried."""
    row = next((row for row in rows if row[SEGMENT] is not None and row["cost_usd"] is not None), None)
    if row is None:
        return []
    where = "is still sent with every turn" if row.get("in_context") else "is no longer in the context"
    carried = f", {show.money(row['carrying_usd'])} of it by being carried" if "carrying_usd" in row else ""
    size = show.compact(row["entering_tokens"] or row["carrying_tokens"])
    return [f"{plain_name(row, SEGMENT)}: {size} tokens, cost {show.money(row['cost_usd'])}{carried}; it {where}."]


def heading(total: Event, tz: datetime.tzinfo, now: int) -> str:
    """What the table is of, and how its prompt tokens were paid."""
    words = [show.plural(total["turns"], "turn")]
    if "session_id" in total:
        words.insert(0, f"session {total['session_id'][:8]}, {total.get('project', 'unknown')}")
    else:
        words.append(show.plural(total["sessions"], "session"))
    if "from" in total:
        words.append(f"since {when.short_time(when.moment(total['from']), tz, now).strip()}")
    return f"{', '.join(words)}; {shares_text(total)}"


def shares_text(total: Event) -> str:
    """How prompt tokens were paid: 2% entered, 96% carried, 2% paid again."""
    prompt = sum(total[f"{kind}_tokens"] for kind in KINDS[:3])
    if not prompt:
        return "no prompt tokens"
    carried, entered, again = (chart_text.percent(total[f"{kind}_tokens"] / prompt) for kind in KINDS[:3])
    return f"{show.compact(prompt)} prompt tokens: {carried} carried, {entered} entered, {again} paid again"


def break_table(rows: Sequence[Event], shape: str, color: bool, tz: datetime.tzinfo, now: int) -> str:
    """Cache breaks for people."""
    short = show.short_ids(row.get("session_id", "") for row in rows)
    columns = [
        Column("began", [when.short_time(when.moment(row["ts"]), tz, now) for row in rows], False, 2),
        Column("session", [short[row.get("session_id", "")] for row in rows], False, 3),
        Column("model", [row.get("model", "unknown") for row in rows], False, 5),
        Column("pause", [_pause(row["gap_s"]) for row in rows], rank=4),
        show.counts("tokens", [row["tokens"] for row in rows], 1),
        show.amounts("extra cost", [row["cost_usd"] for row in rows], heading="extra"),
        Column("reason", [reason_text(row) for row in rows], False, 0, prose=True),
    ]
    if len({row.get("model") for row in rows}) == 1 and shape == "table":
        del columns[2]
    if len(short) == 1 and shape == "table":
        del columns[1]
    return show.table(columns, shape, color=color)


def reasons_text(rows: Sequence[Event], shape: str, color: bool) -> str:
    """For people, what all breaks cost by reason, the most expensive first."""
    by_reason: dict[str, list[Event]] = {}
    for row in rows:
        by_reason.setdefault(context_breaks.REASONS[row["reason"]], []).append(row)
    sums = {reason: sum(map(_usd, alike), Decimal(0)) for reason, alike in by_reason.items()}
    ranked = sorted(sums, key=lambda reason: -sums[reason])
    parts = [f"{reason}, {show.money(pricing.plain(sums[reason]))} ({len(by_reason[reason])})" for reason in ranked]
    if len(parts) < 2 or shape != "table":
        return ""
    whole = show.money(pricing.plain(sum(sums.values(), Decimal(0))))
    text = f"{len(rows)} cache breaks cost {whole} more than reading them: {'; '.join(parts)}"
    return show.notes([text], shape, color, verbose=True)


def reason_text(row: Event) -> str:
    """Why a cache broke, in plain words."""
    return context_breaks.reason_text(row["reason"], row.get("part", ""), row.get("client_reason", ""))


def _pause(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds < 120 else f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"
