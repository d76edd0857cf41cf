"""Shows one session turn by turn: context, cache, cost, gap and what was done, with the findings at their turns."""

from __future__ import annotations

import bisect
import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tokenops import context, context_breaks, costs, pricing, show, trace_waste, when
from tokenops.context_breaks import Break
from tokenops.events import Event
from tokenops.trace_waste import WRITES, Step, steps


def rows(
    records: Iterable[Event],
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    limits: Sequence[Mapping[str, Any]] = (),
    ancestors: Iterable[Event] = (),
) -> tuple[list[Event], list[Event]]:
    """A record per turn, and the session's findings. `ancestors`: records of the sessions that it was forked from."""
    events, others = list(records), list(ancestors)
    turns = steps((event for event in events if event["kind"] == "turn"), catalogue)
    rounds = sorted((event for event in events if event["kind"] == "work"), key=lambda event: event["ts"])
    sizes = context.by_turn(event for event in (*others, *events) if event["kind"] == "context")
    older = {event["id"]: event for event in others if event["kind"] == "turn"}
    breaks = trace_waste.breaks_of(turns, sizes, older)
    findings = trace_waste.findings(turns, rounds, rules, limits, breaks)
    broken = {each.turn["id"]: each for each in breaks}
    limit = (
        trace_waste.context_limits(turns[0].turn.get("client", ""), turns[0].turn.get("workflow_id", ""), rules, limits)
        if turns
        else None
    )
    rounds_by_turn = _rounds_by_turn(turns, rounds)
    result = []
    for number, step in enumerate(turns, 1):
        row = _row(number, step)
        if (done := rounds_by_turn.get(step.turn["id"])) is not None:
            row["round"] = done
        notes = []
        if (each := broken.get(step.turn["id"])) is not None:
            notes.append(_break_note(each))
        if limit is not None and step.context > limit.peak:
            notes.append({"finding": "oversized_context", "tokens": int(step.context - limit.peak)})
        result.append(row | ({"findings": notes} if notes else {}))
    for finding in findings:
        finding["in_turns"] = _turns_of(finding["finding"], result, rules)
    return result, findings


def _break_note(each: Break) -> Event:
    name = "cache_expiry" if each.reason == trace_waste.IDLE else "cache_break"
    usd = None if each.usd is None else _plain(each.usd)
    finding = {"finding": name, "tokens": each.tokens, "cost_usd": usd, "reason": each.reason}
    return finding | ({"part": each.part} if each.part else {})


# A finding made of the counts of rounds -> the count.
_ROUND_COUNTS = {
    "repeated_reads": "repeated_reads",
    "repeated_commands": "repeated_commands",
    "retry_loops": "retries",
    "tool_result_floods": "largest_result_bytes",
}
# Of the turns in which a context grew, so many are named.
_MOST_GROWN = 5


def _turns_of(finding: str, rows: Sequence[Event], rules: Mapping[str, float]) -> list[int]:
    """The numbers of the turns that a finding is about; of a round, its first turn."""
    if finding == "runaway_growth":
        main = [row for row in rows if not row.get("sidechain")]
        grown = [(b["context_tokens"] - a["context_tokens"], b["n"]) for a, b in itertools.pairwise(main)]
        return sorted(number for growth, number in sorted(grown, reverse=True)[:_MOST_GROWN] if growth > 0)
    if finding in _ROUND_COUNTS:
        least = rules["result_bytes"] if finding == "tool_result_floods" else 1
        return [row["n"] for row in rows if row.get("round", {}).get(_ROUND_COUNTS[finding], 0) >= least]
    field = {"subagent_overhead": "sidechain", "thinking_share": "reasoning_tokens"}.get(finding)
    if field:
        return [row["n"] for row in rows if row.get(field)]
    return [row["n"] for row in rows if any(note["finding"] == finding for note in row.get("findings", ()))]


def _plain(amount: Decimal) -> str:
    return pricing.plain(amount.quantize(Decimal("0.000001")))


def _row(number: int, step: Step) -> Event:
    turn = step.turn
    row: Event = {"v": 1, "kind": "step", "n": number, "id": turn["id"], "ts": turn["ts"], "model": turn.get("model")}
    if step.side:
        row["sidechain"] = True
    row["gap_s"] = None if step.gap is None else round(step.gap / 1000, 1)
    row["context_tokens"] = step.context
    row |= {name: turn[name] for name in ("input_tokens", "cache_read_tokens", *WRITES, "output_tokens") if turn.get(name)}
    if turn.get("reasoning_tokens"):
        row["reasoning_tokens"] = turn["reasoning_tokens"]
    row["cache_hit_ratio"] = round(step.read / step.context, 4) if step.context else None
    row["cost_usd"] = None if step.usd is None else pricing.plain(step.usd)
    return row


def _rounds_by_turn(steps: Sequence[Step], rounds: Sequence[Event]) -> dict[str, Event]:
    """Turn id -> the counts of its round, at the first turn of each round."""
    result: dict[str, Event] = {}
    for side in (False, True):
        mine = [round_ for round_ in rounds if bool(round_.get("sidechain")) == side]
        starts = [when.moment(round_["ts"]) for round_ in mine]
        seen = set()
        for step in steps:
            at = bisect.bisect_right(starts, step.at) - 1
            if step.side == side and at >= 0 and at not in seen:
                seen.add(at)
                result[step.turn["id"]] = {name: value for name, value in mine[at]["counts"].items() if name in _SHOWN}
    return result


_SHOWN = (
    "prompts",
    "tool_calls",
    "tool_failures",
    "edits",
    "command_calls",
    "repeated_reads",
    "repeated_commands",
    "retries",
    "destructive",
    "compactions",
    "largest_result_bytes",
)


def total(rows: Sequence[Event]) -> Event:
    """The sum of the turns that have a price."""
    return costs.total_of([{**row, "by": [], "turns": 1} for row in rows if row["cost_usd"] is not None])


# What a session's turns can be ordered by.
ORDERS: show.Orders = {
    "price": lambda row: None if row["cost_usd"] is None else Decimal(row["cost_usd"]),
    "context": lambda row: row["context_tokens"],
    "tokens": lambda row: row["context_tokens"] + row.get("output_tokens", 0),
    "output": lambda row: row.get("output_tokens", 0),
    "cache_hit": lambda row: row["cache_hit_ratio"],
    "after": lambda row: row["gap_s"],
    "began": lambda row: when.moment(row["ts"]),
}


def dearest(rows: list[Event]) -> list[Event]:
    """The turns, the most expensive first."""
    return show.by_order(rows, "price", ORDERS)


def table(
    name: str,
    rows: Sequence[Event],
    findings: Sequence[Event],
    shape: str,
    color: bool,
    verbose: bool = False,
    rest: Sequence[Event] = (),
    tz: datetime.tzinfo | None = None,
) -> str:
    """A session for people: its findings, its turns and their total. `rest`: turns that are only in the total."""
    every = [*rows, *rest]
    sums = total(every)
    zone, now = tz or when.zone(None), max((when.moment(row["ts"]) for row in every), default=0)
    models = [_model(row) for row in rows]
    # One model in all turns stands below, and leaves the room to what was done.
    one_model = models[0] if len(set(models)) == 1 and len(models) > 1 else ""
    columns = [
        show.Column("", [str(row["n"]) for row in rows], rank=0),
        show.Column("began", [when.short_time(when.moment(row["ts"]), zone, now) for row in rows], False, 3),
        show.Column("after", [_gap(row["gap_s"]) for row in rows], rank=4),
        show.Column("model", [""] * len(models) if one_model else models, False, 2),
        show.counts("context", [row["context_tokens"] for row in rows], 1),
        show.Column(
            "cache hit",
            [show.percent(row.get("cache_read_tokens", 0), row["context_tokens"]) for row in rows],
            rank=2,
            heading="hit",
        ),
        show.counts("output", [row.get("output_tokens", 0) for row in rows], 4),
        show.amounts("list price", [row["cost_usd"] for row in rows], heading="price"),
        show.Column(
            "done", [_notes_text(row) for row in rows], False, 1, [_notes_text(row, True) for row in rows], prose=True
        ),
    ]
    unpriced = len(every) - sums.get("turns", 0)
    line = f"{show.plural(len(every), 'turn')}, {show.money(sums.get('cost_usd', '0'))}{'+' * bool(unpriced)} at list price"
    line += f", {unpriced} without a price" if unpriced else ""
    line += f"; {one_model}" if one_model else ""
    if rest:
        line = f"{show.more(len(rest), total(rest).get('cost_usd'))} (--all shows them); in all {line}"
    above = trace_waste.table(findings, shape, color) + "\n" if findings else ""
    return above + show.table(columns, shape, color=color) + show.notes([f"{name}: {line}"], shape, False, verbose=True)


def _model(row: Event) -> str:
    return ("> " if row.get("sidechain") else "") + (row["model"] or "unknown")


def _gap(seconds: float | None) -> str:
    return "" if seconds is None else when.duration(round(1000 * seconds), seconds=True)


def _notes_text(row: Event, is_short: bool = False) -> str:
    """What was wrong with a turn, and what its round did; `is_short`: in fewer letters."""
    done = row.get("round", {})
    words = [finding_title(finding, is_short) for finding in row.get("findings", ())]
    nouns = {"edits": "edit", "command_calls": "cmd" if is_short else "command"}
    words += [show.plural(done[name], noun) for name, noun in nouns.items() if done.get(name)]
    words += [f"{done['tool_failures']} failed"] if done.get("tool_failures") else []
    return ", ".join(words)


# Titles of findings in fewer letters.
_REASONS = {
    "tools_or_system": "tools or prompt changed",
    "settings": "settings changed",
    "unchanged": "prompt unchanged",
    "unknown": "",
}


def finding_title(finding: Event, is_short: bool = False) -> str:
    """What is shown of a finding at its turn; of a break also the reason."""
    if finding["finding"] == "cache_break" and is_short:
        reason = _REASONS.get(finding["reason"], context_breaks.REASONS[finding["reason"]])
        return f"cache broke: {reason}" if reason else "cache broke"
    if finding["finding"] == "cache_break":
        return f"cache broke: {context_breaks.reason_text(finding['reason'], finding.get('part', ''))}"
    kind = trace_waste.KINDS[finding["finding"]]
    return kind.short if is_short else kind.title


def sessions(records: Iterable[Event]) -> dict[str, tuple[list[Event], list[Event]]]:
    """Session -> its turns and its rounds; records without a session are left out."""
    by_session: dict[str, tuple[list[Event], list[Event]]] = {}
    for record in records:
        name = record.get("session_id")
        if name and record["kind"] in ("turn", "work"):
            by_session.setdefault(name, ([], []))[record["kind"] == "work"].append(record)
    return by_session


# What of a record of kind context the cache breaks depend on.
_OF_CHAINS = ("ts", "kind", "id", "turn", "parent", "chain", "event", "miss", "version", "entered", "produced")


def waste(
    records: Iterable[Event],
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    limits: Sequence[Mapping[str, Any]] = (),
    ancestors: Callable[[Sequence[Event]], Iterable[Event]] = lambda records: (),
) -> list[Event]:
    """The findings of all sessions in some records, the most expensive first.

    `ancestors`: finds the records of turns before these, which some of them name as their parents.
    """
    chains: list[Event] = []  # all that a cache break depends on

    def tap() -> Iterator[Event]:
        for record in records:
            if record["kind"] == "turn":
                chains.append(record)
            elif record["kind"] == "context":
                chains.append({name: record[name] for name in _OF_CHAINS if name in record})
                continue
            yield record

    by_session = sessions(tap())
    chains[:0] = ancestors(chains)
    turns = {record["id"]: record for record in chains if record["kind"] == "turn"}
    sizes = context.by_turn(record for record in chains if record["kind"] == "context")
    breaks: dict[str, list[Break]] = {}
    for each in context_breaks.of_turns(turns, sizes, catalogue):
        breaks.setdefault(each.turn.get("session_id", ""), []).append(each)
    findings = []
    for name, (mine, rounds) in by_session.items():
        own = {turn["id"] for turn in mine}
        broken = [each for each in breaks.get(name, ()) if each.turn["id"] in own]
        findings += trace_waste.findings(steps(mine, catalogue), rounds, rules, limits, broken)
    return sorted(findings, key=trace_waste.dearest)
