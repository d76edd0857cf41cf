"""The bars of the dashboard's charts: what was spent in each bucket of a span, and what it is stacked of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokenops import costs, dash_query, events, rollup, when
from tokenops.dash_query import Span
from tokenops.events import Event

CLASSES = {
    "cache read": ("cache_read_tokens",),
    "cache write": costs.WRITES,
    "input": ("input_tokens",),
    "output": ("output_tokens",),
}
# Names of a stack that stand alone; the others are one part.
MOST_NAMES = 5


class Part(NamedTuple):
    """A bar: from when to when, whether all of it, and what was spent (a row of tok-cost); None where nothing is known."""

    start: int
    end: int
    partial: bool
    spent: Event | None
    stack: Sequence[int]


def priced(rows: Iterable[Event], by: tuple[str, ...], plan: rollup.Plan) -> list[Event]:
    """The rows of tok-cost by some fields, out of finer ones."""
    return costs.priced(rollup.rolled(rows, plan._replace(by=covered(by, plan)), lambda why: None), plan.catalogue)


def covered(by: tuple[str, ...], plan: rollup.Plan) -> tuple[str, ...]:
    """Fields to sum by, and what covers a turn, where that is known."""
    return (*by, rollup.COVERED) if rollup.COVERED in plan.by else by


def parts(
    rows: Sequence[Event], about: Span, plan: rollup.Plan, known: int, now: int, stack: str
) -> tuple[list[str], list[Part]]:
    """The names of what bars are stacked of, and the bars. `known`: since when the log knows all."""
    spent = {row["bucket"]: row for row in priced(rows, (about.unit,), plan)}
    if stack == "class":
        names, shares = list(CLASSES), {label: _classes(row) for label, row in spent.items()}
    else:
        names, shares = named(rollup.rolled(rows, plan._replace(by=(about.unit, stack)), lambda why: None), stack)
    found = []
    for start, end in itertools.pairwise(dash_query.edges(about.since, about.until, about.unit, plan.tz)):
        label = when.bucket(start, about.unit, plan.tz)
        row = spent.get(label)
        if row is None and end > known:
            row = {"by": [about.unit], "bucket": label, "cost_usd": "0"}
        partial = row is not None and (start < max(about.since, known) or end > min(about.until, now))
        found.append(Part(start, end, partial, row, shares.get(label, [0] * len(names))))
    return names, found


def _classes(row: Event) -> list[int]:
    return [sum(row.get(name, 0) for name in names) for names in CLASSES.values()]


def named(rolled: Sequence[Event], stack: str) -> tuple[list[str], dict[str, list[int]]]:
    """The names that took most tokens, the others as one; and what each took in each bucket."""
    sums: dict[str, int] = {}
    for row in rolled:
        name = str(row.get(stack, "unknown"))
        sums[name] = sums.get(name, 0) + events.token_sum(row)
    order = sorted(sums, key=lambda name: (-sums[name], name))
    names = order if len(order) <= MOST_NAMES + 1 else [*order[:MOST_NAMES], f"{len(order) - MOST_NAMES} others"]
    places = {name: min(at, len(names) - 1) for at, name in enumerate(order)}
    shares: dict[str, list[int]] = {}
    for row in rolled:
        held = shares.setdefault(row["bucket"], [0] * len(names))
        held[places[str(row.get(stack, "unknown"))]] += events.token_sum(row)
    return names, shares
