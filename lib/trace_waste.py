"""Puts a session's turns in order and finds where it wastes tokens: evidence, remedy and, where it can be, the cost.

Costs are at list price, turn by turn at the rates in force. Tokens that no client counted (of results that are too
long) are estimated from bytes and marked. Waste below the thresholds is not a finding.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import context_breaks, events, pricing, show, when
from tokenops.context_breaks import Break
from tokenops.events import Event

WRITES = ("cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")


class Step(NamedTuple):
    """One turn of a session. `gap`: milliseconds since the turn before it in its chain (main or side), None of the first."""

    turn: Event
    at: int
    side: bool
    context: int
    read: int
    gap: int | None
    catalogue: pricing.Catalogue

    @property
    def rate(self) -> pricing.Rate | None:
        """The price in force; looked up only if a cost is needed."""
        rate = self.catalogue.rate_of(self.turn)
        return rate if isinstance(rate, pricing.Rate) else None

    @property
    def usd(self) -> Decimal | None:
        """What it cost; None if that is unknown."""
        if self.turn.get("cost_source") == "reported":
            return Decimal(self.turn["cost_usd"])
        return price(self, **{name: self.turn[name] for name in events.SUMS if name in self.turn})

    @property
    def fresh(self) -> int:
        """Prompt tokens that were not read from a cache."""
        return self.context - self.read


def steps(turns: Iterable[Event], catalogue: pricing.Catalogue) -> list[Step]:
    """The turns of one session, in order of time. Failed calls are left out."""
    steps: list[Step] = []
    last: dict[bool, int] = {}
    answered = (turn for turn in turns if turn.get("turns"))
    for turn in sorted(answered, key=lambda turn: (turn["ts"], turn["id"])):
        at, side = when.moment(turn["ts"]), bool(turn.get("sidechain"))
        context = events.context_size(turn)
        gap = at - last[side] if side in last else None
        last[side] = at
        steps.append(Step(turn, at, side, context, turn.get("cache_read_tokens", 0), gap, catalogue))
    return steps


def total_cost(steps: Iterable[Step]) -> Decimal | None:
    """The cost of some turns; None if one has no price. Turns of one rate are priced together, as in all other sums."""
    total = Decimal(0)
    groups: dict[int, tuple[Step, dict[str, int]]] = {}
    for step in steps:
        if step.turn.get("cost_source") == "reported":
            total = pricing.add(total, Decimal(step.turn["cost_usd"]))
            continue
        rate = step.rate
        if rate is None:
            return None
        _, sums = groups.setdefault(id(rate), (step, {}))
        for name in events.SUMS:
            if name in step.turn:
                sums[name] = sums.get(name, 0) + step.turn[name]
    for step, sums in groups.values():
        cost = price(step, **sums)
        if cost is None:
            return None
        total = pricing.add(total, cost)
    return total


def price(step: Step, **counts: int) -> Decimal | None:
    """The cost of some counts at the price of a turn; None if it has no price."""
    rate = step.rate
    cost = pricing.cost_of(rate, counts) if rate is not None else None
    return cost.usd if isinstance(cost, pricing.Cost) else None


# Bytes of a tool's result per token: an estimate.
BYTES = 4
_CENT = Decimal("0.000001")


class Kind(NamedTuple):
    """A way of wasting tokens: its title, the same in at most 16 letters, and its remedy."""

    title: str
    short: str
    remedy: str


KINDS = {
    "oversized_context": Kind(
        "oversized context",
        "large context",
        "run /compact or start a new session earlier: every turn sends the whole context again",
    ),
    "runaway_growth": Kind(
        "runaway growth",
        "runaway growth",
        "ask for parts of files and short outputs; give long searches to a subagent",
    ),
    "cache_expiry": Kind(
        "cache expired while idle",
        "cache expired",
        "finish or run /compact before a long pause: afterwards the context is written to the cache again at full price",
    ),
    "cache_break": Kind(
        "cache broke without a pause",
        "cache broke",
        "keep model, effort, tools and MCP servers the same within a session; tok-context --breaks gives each reason",
    ),
    "repeated_reads": Kind("files read again", "files read again", "tok-guard install --mode active; name line ranges"),
    "repeated_commands": Kind(
        "commands run again",
        "commands rerun",
        "let one command print everything that is needed; run tests after several edits",
    ),
    "retry_loops": Kind(
        "failing commands retried", "failures retried", "after the second failure, stop and explain the error"
    ),
    "subagent_overhead": Kind(
        "mostly subagents",
        "mostly subagents",
        "each subagent reads its own context: give it a small task, or a cheaper model",
    ),
    "tool_result_floods": Kind(
        "floods of tool output",
        "tool floods",
        "use head, tail, grep or a line range: every later turn reads what a tool printed",
    ),
    "thinking_share": Kind("mostly thinking", "mostly thinking", "use a lower reasoning effort for simple work"),
}


class ContextLimits(NamedTuple):
    """The context size and growth above which a session wastes tokens."""

    peak: float
    growth: float


def context_limits(
    client: str, workflow: str, rules: Mapping[str, float], limits: Sequence[Mapping[str, Any]] = ()
) -> ContextLimits:
    """The limits of a client's sessions. `limits`: coaching.context_limits of the configuration; the first match counts."""
    for limit in limits:
        if workflow.startswith(str(limit.get("workflow_prefix", "\0"))):
            return ContextLimits(
                float(limit.get("max_context_tokens") or rules["peak_tokens"]),
                float(limit.get("context_growth_limit_tokens") or rules["growth_tokens"]),
            )
    return ContextLimits(*(rules.get(f"{name}_{client}", rules[name]) for name in ("peak_tokens", "growth_tokens")))


def findings(
    steps: Sequence[Step],
    rounds: Sequence[Event],
    rules: Mapping[str, float],
    limits: Sequence[Mapping[str, Any]] = (),
    breaks: Sequence[Break] | None = None,
) -> list[Event]:
    """What a session wasted, the most expensive first. `rounds`: its work events; `breaks`: its cache breaks, if known."""
    if not steps:
        return []
    turn = steps[0].turn
    bounds = context_limits(turn.get("client", ""), turn.get("workflow_id", ""), rules, limits)
    candidates = [
        *_contexts(steps, bounds),
        *_breaks(breaks_of(steps) if breaks is None else breaks),
        *_subagents(steps, rules),
        *_thinking(steps, rules),
        *_rounds(rounds, rules),
    ]
    least = Decimal(str(rules["least_usd"]))
    kept = [finding for finding in candidates if finding["cost_usd"] is None or Decimal(finding["cost_usd"]) >= least]
    names = ("client", "project", "session_id", "workflow_id")
    labels = {name: turn[name] for name in names if name in turn}
    return sorted(({"v": 1, "kind": "finding"} | finding | labels for finding in kept), key=dearest)


def dearest(finding: Event) -> tuple[Decimal, int]:
    """The order of findings: by cost, then by tokens, the largest first."""
    return -Decimal(finding["cost_usd"] or 0), -(finding["tokens"] or 0)


def _finding(
    name: str, turns: int, tokens: int | None, usd: Decimal | None, estimated: bool = False, **evidence: Any
) -> Event:
    row: Event = {"finding": name, "title": KINDS[name].title, "turns": turns, "tokens": tokens}
    row["cost_usd"] = None if usd is None else pricing.plain(usd.quantize(_CENT))
    if estimated:
        row["tokens_estimated"] = True
    return row | {"evidence": evidence, "remedy": KINDS[name].remedy}


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """A sum; None if one of the amounts is unknown."""
    total = Decimal(0)
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total


def _contexts(steps: Sequence[Step], bounds: ContextLimits) -> Iterator[Event]:
    over = [step for step in steps if step.context > bounds.peak]
    if over:
        excess = [int(step.context - bounds.peak) for step in over]
        usd = _sum(price(step, cache_read_tokens=tokens) for step, tokens in zip(over, excess, strict=True))
        peak = max(step.context for step in over)
        yield _finding("oversized_context", len(over), sum(excess), usd, peak_tokens=peak, limit_tokens=int(bounds.peak))
    main = [step for step in steps if not step.side]
    grown = [max(b.context - a.context, 0) for a, b in itertools.pairwise(main)]
    if sum(grown) > bounds.growth:
        excess_tokens = int(sum(grown) - bounds.growth)
        usd = price(main[-1], cache_write_tokens=excess_tokens)
        rose = sum(1 for growth in grown if growth)
        yield _finding("runaway_growth", rose, excess_tokens, usd, grown_tokens=sum(grown), limit_tokens=int(bounds.growth))


def breaks_of(
    steps: Sequence[Step], records: Mapping[str, Event] | None = None, ancestors: Mapping[str, Event] | None = None
) -> list[Break]:
    """The cache breaks at some turns. `records`: of kind context, by turn; `ancestors`: turns before a fork."""
    if not steps:
        return []
    turns = {step.turn["id"]: step.turn for step in steps}
    every = context_breaks.of_turns({**(ancestors or {}), **turns}, records or {}, steps[0].catalogue)
    return [each for each in every if each.turn["id"] in turns]


def expiries(steps: Sequence[Step]) -> list[tuple[Step, int, Decimal | None]]:
    """The turns whose cache had expired in a pause: the turn, the tokens, and the extra cost over reading them."""
    by_id = {step.turn["id"]: step for step in steps}
    return [(by_id[each.turn["id"]], each.tokens, each.usd) for each in breaks_of(steps) if each.reason == IDLE]


IDLE = "idle"


def _breaks(breaks: Sequence[Break]) -> Iterator[Event]:
    """Two findings: caches that expired in a pause, and all others that broke."""
    idle = [each for each in breaks if each.reason == IDLE]
    others = [each for each in breaks if each.reason != IDLE]
    if idle:
        pauses = [each.gap // 60_000 for each in idle]
        tokens, usd = sum(each.tokens for each in idle), _sum(each.usd for each in idle)
        yield _finding("cache_expiry", len(idle), tokens, usd, pauses_minutes=pauses[:20], longest_minutes=max(pauses))
    if others:
        reasons = dict(collections.Counter(each.reason for each in others).most_common())
        tokens = sum(each.tokens for each in others)
        yield _finding("cache_break", len(others), tokens, _sum(each.usd for each in others), reasons=reasons)


def _subagents(steps: Sequence[Step], rules: Mapping[str, float]) -> Iterator[Event]:
    side = [step for step in steps if step.side]
    part, whole = (total_cost(side), total_cost(steps)) if side else (None, None)
    if part is not None and whole and float(part / whole) >= rules["subagent_share"]:
        tokens = sum(step.context for step in side)
        yield _finding("subagent_overhead", len(side), tokens, part, share=round(float(part / whole), 4))


def _thinking(steps: Sequence[Step], rules: Mapping[str, float]) -> Iterator[Event]:
    thought = [step for step in steps if step.turn.get("reasoning_tokens")]
    tokens = sum(step.turn["reasoning_tokens"] for step in thought)
    output = sum(step.turn.get("output_tokens", 0) for step in steps)
    if output and tokens >= rules["thinking_tokens"] and tokens / output >= rules["thinking_share"]:
        usd = _sum(price(step, output_tokens=step.turn["reasoning_tokens"]) for step in thought)
        yield _finding("thinking_share", len(thought), tokens, usd, share=round(tokens / output, 4), output_tokens=output)


def _rounds(rounds: Sequence[Event], rules: Mapping[str, float]) -> Iterator[Event]:
    """Findings from work events. Tokens are the repetitions times the mean result, in bytes over four."""
    counts: dict[str, int] = {}
    for round_ in rounds:
        for name, value in round_["counts"].items():
            counts[name] = counts.get(name, 0) + value
    results = counts.get("tool_results", 0)
    mean = counts.get("result_bytes", 0) / results if results else 0.0
    for name, count in _REPEATED.items():
        met = counts.get(count, 0)
        if met and met >= rules[count]:
            where = sum(1 for round_ in rounds if round_["counts"].get(count))
            tokens = round(met * mean / BYTES)
            yield _finding(name, where, tokens, None, True, **{count: met}, mean_result_bytes=round(mean))
    largest = [round_["counts"].get("largest_result_bytes", 0) for round_ in rounds]
    floods = [size for size in largest if size >= rules["result_bytes"]]
    if floods:
        yield _finding("tool_result_floods", len(floods), sum(floods) // BYTES, None, True, largest_bytes=max(floods))


_REPEATED = {"repeated_reads": "repeated_reads", "repeated_commands": "repeated_commands", "retry_loops": "retries"}


def summary(findings: Iterable[Event]) -> list[Event]:
    """Findings added up by name, the most expensive first; the cost is that of the findings that have one."""
    groups: dict[str, list[Event]] = {}
    for finding in findings:
        groups.setdefault(finding["finding"], []).append(finding)
    rows = []
    for name, group in groups.items():
        costs = [Decimal(finding["cost_usd"]) for finding in group if finding["cost_usd"] is not None]
        row: Event = {"v": 1, "kind": "waste", "finding": name, "title": KINDS[name].title, "sessions": len(group)}
        row |= {
            "turns": sum(finding["turns"] for finding in group),
            "tokens": sum(finding["tokens"] or 0 for finding in group),
        }
        row["cost_usd"] = pricing.plain(sum(costs, Decimal(0))) if costs else None
        if any(finding.get("tokens_estimated") for finding in group):
            row["tokens_estimated"] = True
        rows.append(row | {"remedy": KINDS[name].remedy})
    return sorted(rows, key=dearest)


# What the sums of findings, and findings, can be ordered by.
ORDERS: show.Orders = {
    "price": lambda row: None if row["cost_usd"] is None else Decimal(row["cost_usd"]),
    "tokens": lambda row: row["tokens"] or 0,
    "turns": lambda row: row["turns"],
    "name": lambda row: row["title"],
}


def cost_of(findings: Iterable[Event]) -> str | None:
    """What some findings cost; None if no cost is known."""
    amounts = [Decimal(finding["cost_usd"]) for finding in findings if finding["cost_usd"] is not None]
    return pricing.plain(sum(amounts, Decimal(0))) if amounts else None


# So many turns of a finding are named.
_NAMED = 4


def _numbers(turns: Sequence[int]) -> str:
    """The numbers of turns, for people: 3, 14, 15; the first of many."""
    more = len(turns) - _NAMED
    return ", ".join(map(str, turns[:_NAMED])) + (f" and {more} more" if more > 0 else "")


def table(rows: Sequence[Event], shape: str, color: bool, remedies: bool = True) -> str:
    """Findings, or their sums, for people; the remedies below."""
    sums = bool(rows) and rows[0]["kind"] == "waste"
    short = [KINDS[row["finding"]].short for row in rows]
    columns = [show.Column("finding", [row["title"] for row in rows], False, 0, short, prose=sums)]
    if sums:
        columns.append(show.counts("sessions", [row["sessions"] for row in rows], 2))
    elif not all("in_turns" in row for row in rows):  # all of one session, whose turns are listed
        ids = show.short_ids(row.get("session_id", "") for row in rows)
        columns.append(show.Column("session", [ids[row.get("session_id", "")] for row in rows], False, 0))
        columns.append(show.Column("project", [row.get("project", "") for row in rows], False, 1))
    else:
        columns.append(show.Column("in turns", [_numbers(row["in_turns"]) for row in rows], False, 0))
    estimated = ["~" if row.get("tokens_estimated") else "" for row in rows]
    tokens, tokens_short = (
        [mark + text(row["tokens"] or 0) for mark, row in zip(estimated, rows, strict=True)]
        for text in (show.count, show.compact)
    )
    columns += [
        show.counts("turns", [row["turns"] for row in rows], 3),
        show.Column("tokens", tokens, rank=2, short=tokens_short),
        show.amounts("list price", [row["cost_usd"] for row in rows], heading="price"),
    ]
    advice = (f"{row['title']}: {row['remedy']}" for row in rows) if remedies else ()
    laid, notes = show.table(columns, shape, color=color), show.notes(advice, shape, False, verbose=True)
    return f"{laid}\n{notes}" if notes else laid
