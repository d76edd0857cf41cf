"""Shows one session turn by turn: context, cache, cost, gap and what was done, with the findings at their turns."""

from __future__ import annotations

import bisect
from collections.abc import Container, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tokenops import costs, pricing, show, store, trace_waste, when
from tokenops.events import Event
from tokenops.trace_steps import WRITES, Step, steps


class Unknown(ValueError):
    """No session, or more than one, matches a name."""


def session(folder: str, name: str, among: Container[str] | None = None) -> tuple[str, list[Event]]:
    """The only session whose id begins with `name`, and its records; `among`: the days to read. Raises Unknown, OSError."""
    by_session: dict[str, list[Event]] = {}
    for record in store.with_value(folder, "session_id", name, is_prefix=True, among=among):
        if record.get("session_id", "").startswith(name):
            by_session.setdefault(record["session_id"], []).append(record)
    if not by_session:
        raise Unknown(f"no session id begins with {name!r}; tok-cost --by session lists them")
    if len(by_session) > 1 and name not in by_session:
        some = ", ".join([*sorted(by_session)[:4], *(["..."] if len(by_session) > 4 else [])])
        raise Unknown(f"{len(by_session)} sessions begin with {name!r}: {some}; give more characters")
    chosen = name if name in by_session else next(iter(by_session))
    return chosen, by_session[chosen]


def rows(
    records: Iterable[Event],
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    limits: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Event], list[Event]]:
    """A record per turn, and the session's findings."""
    events = list(records)
    turns = steps((event for event in events if event["kind"] == "turn"), catalogue)
    rounds = sorted((event for event in events if event["kind"] == "work"), key=lambda event: event["ts"])
    findings = trace_waste.findings(turns, rounds, rules, limits)
    expired = {step.turn["id"]: (lost, more) for step, lost, more in trace_waste.expiries(turns)}
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
        if step.turn["id"] in expired:
            lost, more = expired[step.turn["id"]]
            notes.append({"finding": "cache_expiry", "tokens": lost, "cost_usd": None if more is None else _plain(more)})
        if limit is not None and step.context > limit.peak:
            notes.append({"finding": "oversized_context", "tokens": int(step.context - limit.peak)})
        result.append(row | ({"findings": notes} if notes else {}))
    return result, findings


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


def table(name: str, rows: Sequence[Event], findings: Sequence[Event], shape: str, color: bool) -> str:
    """A session for people: its turns, their total, and its findings."""
    sums = total(rows)
    columns = [
        show.Column("", [str(row["n"]) for row in rows]),
        show.Column("began", [row["ts"][5:19].replace("T", " ") for row in rows], number=False),
        show.Column("after", [_gap(row["gap_s"]) for row in rows]),
        show.Column("model", [_model(row) for row in rows], number=False),
        show.Column("context", [show.count(row["context_tokens"]) for row in rows]),
        show.Column("cache hit", [show.percent(row.get("cache_read_tokens", 0), row["context_tokens"]) for row in rows]),
        show.Column("output", [show.count(row.get("output_tokens", 0)) for row in rows]),
        show.Column("list price", [show.money(row["cost_usd"]) or "unknown" for row in rows]),
        show.Column("", [_notes_text(row) for row in rows], number=False),
    ]
    unpriced = len(rows) - sums.get("turns", 0)
    lines = [f"{show.safe(name)}: {len(rows)} turns, {show.money(sums.get('cost_usd', '0'))} at list price"]
    lines[0] += f", {unpriced} without a price" if unpriced else ""
    body = show.table(columns, shape, color=color) + "\n".join(lines) + "\n"
    return body + ("\n" + trace_waste.table(findings, shape, color) if findings else "")


def _model(row: Event) -> str:
    return ("> " if row.get("sidechain") else "") + (row["model"] or "unknown")


def _gap(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f}s" if seconds < 120 else f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"


def _notes_text(row: Event) -> str:
    done = row.get("round", {})
    words = [f"{done[name]} {text}" for name, text in _WORDS.items() if done.get(name)]
    words += [trace_waste.KINDS[finding["finding"]].title for finding in row.get("findings", ())]
    return ", ".join(words)


_WORDS = {"edits": "edits", "command_calls": "commands", "tool_failures": "failed"}


def sessions(records: Iterable[Event]) -> dict[str, tuple[list[Event], list[Event]]]:
    """Session -> its turns and its rounds; records without a session are left out."""
    by_session: dict[str, tuple[list[Event], list[Event]]] = {}
    for record in records:
        name = record.get("session_id")
        if name and record["kind"] in ("turn", "work"):
            by_session.setdefault(name, ([], []))[record["kind"] == "work"].append(record)
    return by_session


def waste(
    records: Iterable[Event],
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    limits: Sequence[Mapping[str, Any]] = (),
) -> list[Event]:
    """The findings of all sessions in some records, the most expensive first."""
    findings = []
    for turns, rounds in sessions(records).values():
        findings += trace_waste.findings(steps(turns, catalogue), rounds, rules, limits)
    return sorted(findings, key=trace_waste.dearest)
