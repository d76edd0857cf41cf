"""Where a session's tokens go to waste: findings, each with its evidence, its cost where that can be told, and a remedy.

Costs are at list price, worked out turn by turn at the rates in force; tokens that were never counted (of results that
were too long) are estimated from bytes, and say so. What stays below the thresholds is no finding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import catalog, pricing, show
from tokenops.events import Event
from tokenops.trace_steps import WRITES, Step, price, spent

# Bytes of a tool's result per token: an estimate.
BYTES = 4
_CENT = Decimal("0.000001")


class Kind(NamedTuple):
    """A way of wasting tokens: how one speaks of it, and what helps."""

    title: str
    remedy: str


KINDS = {
    "oversized_context": Kind(
        "oversized context", "/compact or begin a fresh session before the context is that long: every turn sends it again"
    ),
    "runaway_growth": Kind("runaway growth", "ask for parts of files and short outputs; leave long searches to a subagent"),
    "cache_expiry": Kind(
        "cache expired while idle", "finish or /compact before a long pause: what was cached is written again at full price"
    ),
    "repeated_reads": Kind("files read again", "tok-guard install --mode active; name line ranges"),
    "repeated_commands": Kind("commands run again", "let one command say all that is needed; run tests after several edits"),
    "retry_loops": Kind("failing commands retried", "stop after the second failure and say what the error means"),
    "subagent_overhead": Kind(
        "mostly subagents", "each subagent reads a context of its own: give it a small task, or a cheaper model"
    ),
    "tool_result_floods": Kind(
        "floods of tool output", "head, tail, grep or a line range: what a tool prints is read in every later turn"
    ),
    "thinking_share": Kind("mostly thinking", "a lower reasoning effort for plain work"),
}


class Limits(NamedTuple):
    """What a session may reach before it is said, by its client."""

    peak: float
    growth: float


def limits(client: str, workflow: str, rules: Mapping[str, float], given: Sequence[Mapping[str, Any]] = ()) -> Limits:
    """The limits of a client; `given`: coaching.context_limits of the configuration, the first that fits."""
    for one in given:
        if workflow.startswith(str(one.get("workflow_prefix", "\0"))):
            return Limits(
                float(one.get("max_context_tokens") or rules["peak_tokens"]),
                float(one.get("context_growth_limit_tokens") or rules["growth_tokens"]),
            )
    return Limits(*(rules.get(f"{name}_{client}", rules[name]) for name in ("peak_tokens", "growth_tokens")))


def findings(
    steps: Sequence[Step],
    rounds: Sequence[Event],
    rules: Mapping[str, float],
    given: Sequence[Mapping[str, Any]] = (),
) -> list[Event]:
    """What a session wasted, dearest first. `rounds`: its work events."""
    if not steps:
        return []
    about = steps[0].turn
    bounds = limits(about.get("client", ""), about.get("workflow_id", ""), rules, given)
    made = [
        *_contexts(steps, bounds),
        *_expiries(steps),
        *_subagents(steps, rules),
        *_thinking(steps, rules),
        *_rounds(rounds, rules),
    ]
    least = Decimal(str(rules["least_usd"]))
    kept = [one for one in made if one["cost_usd"] is None or Decimal(one["cost_usd"]) >= least]
    names = ("client", "project", "session_id", "workflow_id")
    whose = {name: about[name] for name in names if name in about}
    return sorted(({"v": 1, "kind": "finding"} | one | whose for one in kept), key=dearest)


def dearest(one: Event) -> tuple[Decimal, int]:
    """The order of findings: what costs most first, then what has most tokens."""
    return -Decimal(one["cost_usd"] or 0), -(one["tokens"] or 0)


def _finding(
    name: str, turns: int, tokens: int | None, usd: Decimal | None, estimated: bool = False, **evidence: Any
) -> Event:
    made: Event = {"finding": name, "title": KINDS[name].title, "turns": turns, "tokens": tokens}
    made["cost_usd"] = None if usd is None else pricing.plain(usd.quantize(_CENT))
    if estimated:
        made["tokens_estimated"] = True
    return made | {"evidence": evidence, "remedy": KINDS[name].remedy}


def _added(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """A sum; None where one is unknown."""
    total = Decimal(0)
    for one in amounts:
        if one is None:
            return None
        total += one
    return total


def _contexts(steps: Sequence[Step], bounds: Limits) -> Iterator[Event]:
    over = [step for step in steps if step.context > bounds.peak]
    if over:
        excess = [int(step.context - bounds.peak) for step in over]
        usd = _added(price(step, cache_read_tokens=tokens) for step, tokens in zip(over, excess, strict=True))
        peak = max(step.context for step in over)
        yield _finding("oversized_context", len(over), sum(excess), usd, peak_tokens=peak, limit_tokens=int(bounds.peak))
    main = [step for step in steps if not step.side]
    grown = [max(b.context - a.context, 0) for a, b in itertools.pairwise(main)]
    if sum(grown) > bounds.growth:
        excess_tokens = int(sum(grown) - bounds.growth)
        usd = price(main[-1], cache_write_tokens=excess_tokens)
        rose = sum(1 for one in grown if one)
        yield _finding("runaway_growth", rose, excess_tokens, usd, grown_tokens=sum(grown), limit_tokens=int(bounds.growth))


_HOUR = 60


def ttl(steps: Sequence[Step], at: int) -> int:
    """The longest time for which what a session wrote to a cache by a step is kept, in minutes."""
    for step in steps[: at + 1]:
        if step.turn.get("cache_write_12h_tokens"):
            return 12 * _HOUR
        if step.turn.get("cache_write_1h_tokens"):
            return _HOUR
    kept = catalog.load("caches")
    minutes: int = kept["minutes"].get(steps[at].turn.get("provider", ""), kept["least"])
    return minutes


def expiries(steps: Sequence[Step]) -> list[tuple[Step, int, Decimal | None]]:
    """The turns after a pause that found their cache gone: the turn, how many tokens, and what that cost more than reading.

    Only the main chain: of several subagents nobody knows which turn follows which.
    """
    main = [step for step in steps if not step.side]
    least = catalog.load("caches")["least"] * 60_000
    found = []
    for at, (before, after) in enumerate(itertools.pairwise(main)):
        if after.gap is None or after.gap <= least or after.gap <= ttl(main, at) * 60_000:
            continue
        lost = min(before.context, after.context) - after.read
        if after.read < before.context / 2 and lost > 0 and after.fresh:
            found.append((after, lost, _more(after, lost)))
    return found


def _more(step: Step, lost: int) -> Decimal | None:
    """What tokens that were paid as they were in a turn cost more than reading them from a cache."""
    counts = {name: step.turn.get(name, 0) for name in ("input_tokens", *WRITES)}
    paid, read = price(step, **counts), price(step, cache_read_tokens=lost)
    if paid is None or read is None:
        return None
    more: Decimal = paid * lost / sum(counts.values()) - read
    return max(more, Decimal(0))


def _expiries(steps: Sequence[Step]) -> Iterator[Event]:
    found = expiries(steps)
    if found:
        usd = _added(more for _, _, more in found)
        pauses = [(step.gap or 0) // 60_000 for step, _, _ in found]
        tokens = sum(lost for _, lost, _ in found)
        yield _finding("cache_expiry", len(found), tokens, usd, pauses_minutes=pauses[:20], longest_minutes=max(pauses))


def _subagents(steps: Sequence[Step], rules: Mapping[str, float]) -> Iterator[Event]:
    side = [step for step in steps if step.side]
    part, whole = (spent(side), spent(steps)) if side else (None, None)
    if part is not None and whole and float(part / whole) >= rules["subagent_share"]:
        tokens = sum(step.context for step in side)
        yield _finding("subagent_overhead", len(side), tokens, part, share=round(float(part / whole), 4))


def _thinking(steps: Sequence[Step], rules: Mapping[str, float]) -> Iterator[Event]:
    thought = [step for step in steps if step.turn.get("reasoning_tokens")]
    tokens = sum(step.turn["reasoning_tokens"] for step in thought)
    output = sum(step.turn.get("output_tokens", 0) for step in steps)
    if output and tokens >= rules["thinking_tokens"] and tokens / output >= rules["thinking_share"]:
        usd = _added(price(step, output_tokens=step.turn["reasoning_tokens"]) for step in thought)
        yield _finding("thinking_share", len(thought), tokens, usd, share=round(tokens / output, 4), output_tokens=output)


def _rounds(rounds: Sequence[Event], rules: Mapping[str, float]) -> Iterator[Event]:
    """What work events tell. Tokens are the number of repetitions times the mean result, in bytes over four."""
    counts: dict[str, int] = {}
    for one in rounds:
        for name, value in one["counts"].items():
            counts[name] = counts.get(name, 0) + value
    results = counts.get("tool_results", 0)
    mean = counts.get("result_bytes", 0) / results if results else 0.0
    for name, count in _REPEATED.items():
        met = counts.get(count, 0)
        if met and met >= rules[count]:
            where = sum(1 for one in rounds if one["counts"].get(count))
            tokens = round(met * mean / BYTES)
            yield _finding(name, where, tokens, None, True, **{count: met}, mean_result_bytes=round(mean))
    largest = [one["counts"].get("largest_result_bytes", 0) for one in rounds]
    floods = [size for size in largest if size >= rules["result_bytes"]]
    if floods:
        yield _finding("tool_result_floods", len(floods), sum(floods) // BYTES, None, True, largest_bytes=max(floods))


_REPEATED = {"repeated_reads": "repeated_reads", "repeated_commands": "repeated_commands", "retry_loops": "retries"}


def summary(found: Iterable[Event]) -> list[Event]:
    """Findings added up by what they are, dearest first; a cost that is unknown somewhere is told of the others."""
    groups: dict[str, list[Event]] = {}
    for one in found:
        groups.setdefault(one["finding"], []).append(one)
    made = []
    for name, ones in groups.items():
        known = [Decimal(one["cost_usd"]) for one in ones if one["cost_usd"] is not None]
        row: Event = {"v": 1, "kind": "waste", "finding": name, "title": KINDS[name].title, "sessions": len(ones)}
        row |= {"turns": sum(one["turns"] for one in ones), "tokens": sum(one["tokens"] or 0 for one in ones)}
        row["cost_usd"] = pricing.plain(sum(known, Decimal(0))) if known else None
        made.append(row | {"remedy": KINDS[name].remedy})
    return sorted(made, key=dearest)


def table(rows: Sequence[Event], shape: str, color: bool, remedies: bool = True) -> str:
    """Findings, or their sums, for people; what helps below."""
    sums = bool(rows) and rows[0]["kind"] == "waste"
    columns = [show.Column("finding", [one["title"] for one in rows], number=False)]
    if sums:
        columns.append(show.Column("sessions", [show.count(one["sessions"]) for one in rows]))
    else:
        columns.append(show.Column("session", [one.get("session_id", "")[:13] for one in rows], number=False))
        columns.append(show.Column("project", [one.get("project", "") for one in rows], number=False))
    tokens = [("~" if one.get("tokens_estimated") else "") + show.count(one["tokens"] or 0) for one in rows]
    columns += [
        show.Column("turns", [show.count(one["turns"]) for one in rows]),
        show.Column("tokens", tokens),
        show.Column("list price", [show.money(one["cost_usd"]) or "unknown" for one in rows]),
    ]
    said = dict.fromkeys(f"{one['title']}: {one['remedy']}\n" for one in rows) if remedies else {}
    return show.table(columns, shape, color=color) + ("\n" + "".join(said) if said else "")
