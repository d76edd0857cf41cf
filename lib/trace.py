"""One session turn by turn: context, cache, cost, gap and what was done, with the findings in place."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tokenops import costs, pricing, show, store, trace_waste, when
from tokenops.events import Event
from tokenops.trace_steps import WRITES, Step, steps


class Unknown(ValueError):
    """No session, or several, of that name."""


def session(folder: str, name: str) -> tuple[str, list[Event]]:
    """The one session whose id begins so, and its records. Raises Unknown, OSError."""
    found: dict[str, list[Event]] = {}
    for record in store.with_value(folder, "session_id", name, is_prefix=True):
        if record.get("session_id", "").startswith(name):
            found.setdefault(record["session_id"], []).append(record)
    if not found:
        raise Unknown(f"no session of the log begins with {name!r}; tok-cost --by session lists them")
    if len(found) > 1 and name not in found:
        some = ", ".join(sorted(found)[:4])
        raise Unknown(
            f"{len(found)} sessions begin with {name!r}: {some}{', ...' if len(found) > 4 else ''}; give more of it"
        )
    chosen = name if name in found else next(iter(found))
    return chosen, found[chosen]


def rows(
    records: Iterable[Event],
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    given: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Event], list[Event]]:
    """A record per turn, and the session's findings."""
    held = list(records)
    made = steps((one for one in held if one["kind"] == "turn"), catalogue)
    rounds = sorted((one for one in held if one["kind"] == "work"), key=lambda one: one["ts"])
    found = trace_waste.findings(made, rounds, rules, given)
    expired = {step.turn["id"]: (lost, more) for step, lost, more in trace_waste.expiries(made)}
    limit = (
        trace_waste.limits(made[0].turn.get("client", ""), made[0].turn.get("workflow_id", ""), rules, given)
        if made
        else None
    )
    places = _placed(made, rounds)
    told = []
    for number, step in enumerate(made, 1):
        row = _row(number, step)
        if (done := places.get(step.turn["id"])) is not None:
            row["round"] = done
        notes = []
        if step.turn["id"] in expired:
            lost, more = expired[step.turn["id"]]
            notes.append({"finding": "cache_expiry", "tokens": lost, "cost_usd": None if more is None else _plain(more)})
        if limit is not None and step.context > limit.peak:
            notes.append({"finding": "oversized_context", "tokens": int(step.context - limit.peak)})
        told.append(row | ({"findings": notes} if notes else {}))
    return told, found


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


def _placed(made: Sequence[Step], rounds: Sequence[Event]) -> dict[str, Event]:
    """Turn -> the counts of the round that its chain was in; of several turns of a round the first has them."""
    found: dict[str, Event] = {}
    for side in (False, True):
        mine = [one for one in rounds if bool(one.get("sidechain")) == side]
        starts = [when.moment(one["ts"]) for one in mine]
        seen = set()
        for step in made:
            at = bisect.bisect_right(starts, step.at) - 1
            if step.side == side and at >= 0 and at not in seen:
                seen.add(at)
                found[step.turn["id"]] = {name: value for name, value in mine[at]["counts"].items() if name in _SHOWN}
    return found


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


def table(name: str, told: Sequence[Event], found: Sequence[Event], shape: str, color: bool) -> str:
    """A session for people: its turns, their sum, and its findings."""
    sums = costs.total_of([{**row, "by": [], "turns": 1} for row in told if row["cost_usd"] is not None])
    columns = [
        show.Column("", [str(row["n"]) for row in told]),
        show.Column("began", [row["ts"][5:19].replace("T", " ") for row in told], number=False),
        show.Column("after", [_gap(row["gap_s"]) for row in told]),
        show.Column("model", [_model(row) for row in told], number=False),
        show.Column("context", [show.count(row["context_tokens"]) for row in told]),
        show.Column("cache hit", [show.percent(row.get("cache_read_tokens", 0), row["context_tokens"]) for row in told]),
        show.Column("output", [show.count(row.get("output_tokens", 0)) for row in told]),
        show.Column("list price", [show.money(row["cost_usd"]) or "unknown" for row in told]),
        show.Column("", [_said(row) for row in told], number=False),
    ]
    unpriced = sum(row["cost_usd"] is None for row in told)
    lines = [f"{name}: {len(told)} turns, {show.money(sums.get('cost_usd', '0'))} at list price"]
    lines[0] += f", {unpriced} without a price" if unpriced else ""
    body = show.table(columns, shape, color=color) + "\n".join(lines) + "\n"
    return body + ("\n" + trace_waste.table(found, shape, color) if found else "")


def _model(row: Event) -> str:
    return ("> " if row.get("sidechain") else "") + (row["model"] or "unknown")


def _gap(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f}s" if seconds < 120 else f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"


def _said(row: Event) -> str:
    done = row.get("round", {})
    words = [f"{done[name]} {text}" for name, text in _WORDS.items() if done.get(name)]
    words += [trace_waste.KINDS[one["finding"]].title for one in row.get("findings", ())]
    return ", ".join(words)


_WORDS = {"edits": "edits", "command_calls": "commands", "tool_failures": "failed"}


def sessions(records: Iterable[Event]) -> dict[str, tuple[list[Event], list[Event]]]:
    """Session -> its turns and its rounds; what names no session is left out."""
    found: dict[str, tuple[list[Event], list[Event]]] = {}
    for record in records:
        name = record.get("session_id")
        if name and record["kind"] in ("turn", "work"):
            found.setdefault(name, ([], []))[record["kind"] == "work"].append(record)
    return found


def wasted(
    records: Iterable[Event],
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    given: Sequence[Mapping[str, Any]] = (),
) -> list[Event]:
    """The findings of all sessions of some records, dearest first."""
    found = []
    for turns, rounds in sessions(records).values():
        found += trace_waste.findings(steps(turns, catalogue), rounds, rules, given)
    return sorted(found, key=trace_waste.dearest)
