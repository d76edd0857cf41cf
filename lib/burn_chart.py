"""What tok-burn draws: tokens and money per bucket by class, and below them each limit as its vendor saw it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from tokenops import burn_buckets, burn_table, costs, plots, pricing, when
from tokenops.burn import Burn
from tokenops.burn_buckets import HOUR_MS, Span, Taken
from tokenops.chart_panels import Bar, Bars, Line, Lines
from tokenops.events import Event

# What a bar is made of, from below, and the fields of each part.
# What a bar is made of, from below, and the fields of each part.
PARTS = {
    "cache read": ("cache_read_tokens",),
    "cache write": costs.WRITES,
    "input": ("input_tokens",),
    "output": ("output_tokens",),
}


def picture(found: Burn) -> str:
    """The chart as SVG."""
    asked, total = found.ask.span, found.total
    per = {"15min": "quarter of an hour"}.get(asked.by, asked.by)
    money = _by_class(asked, found.found, found.catalogue)
    names = [*PARTS, *(["other"] if any("other" in one for one in money.values()) else [])]
    spent, priced = [], []
    for at, (start, end, partial, sums) in enumerate(found.buckets):
        parts = None if sums is None else [sum(sums.get(field, 0) for field in fields) for fields in PARTS.values()]
        spent.append(Bar(start, end, parts, partial))
        costing = (
            None if sums is None or "cost_usd" not in sums else [float(money.get(at, {}).get(name, 0)) for name in names]
        )
        priced.append(Bar(start, end, costing, partial))
    panels: list[Bars | Lines] = [
        Bars(f"Tokens per {per}", tuple(PARTS), spent),
        Bars(f"L{total['cost_basis'][1:]} per {per}", names, priced, "usd", 120),
    ]
    panels += [Lines(f"{one.name}, used", [Line(one.name, one.points)], "percent", 72, top=1.0) for one in found.limits]
    return plots.chart(_title(asked), (asked.edges[0], asked.edges[-1]), asked.tz, panels, _subtitle(asked, total))


def _title(asked: Span) -> str:
    hours = round((asked.now - asked.edges[0]) / HOUR_MS)
    return f"Spent in the last {hours} hours" if hours <= 48 else f"Spent in the last {round(hours / 24)} days"


def _subtitle(asked: Span, total: Event) -> str:
    said = [f"{burn_table.amount(total['tokens'])} tokens{burn_table.dollars(total['cost_usd'])}"]
    if total["now"]:
        said.append(f"now {burn_table.rate_text(total['now'])}")
    return "; ".join([*said, f"{when.local(asked.now, asked.tz):%Y-%m-%d %H:%M}, {when.zone_name(asked.tz)}"])


def _by_class(asked: Span, found: Taken, catalogue: pricing.Catalogue) -> dict[int, dict[str, Decimal]]:
    """Number of a bucket -> what its parts cost; "other": billed per request, or stated by the vendor as a whole."""
    sums: dict[int, dict[str, Decimal]] = {}
    for row in found.rows:
        if (number := burn_buckets.number(row, asked)) < 0:
            continue
        held = sums.setdefault(number, {})
        for name, amount in _amounts(row, catalogue):
            held[name] = held.get(name, pricing.ZERO) + amount
    return sums


def _amounts(row: Event, catalogue: pricing.Catalogue) -> Iterator[tuple[str, Decimal]]:
    if "cost_usd" in row:
        yield "other", Decimal(row["cost_usd"])
        return
    rate = catalogue.rate_of(row)
    cost = pricing.cost_of(rate, row) if isinstance(rate, pricing.Rate) else rate
    for field, _, _, amount in cost.lines if isinstance(cost, pricing.Cost) else ():
        yield next((name for name, fields in PARTS.items() if field in fields), _part(field)), amount


def _part(field: str) -> str:
    """The class that a part of it, billed at its own price, belongs to."""
    return "output" if "output" in field or field == "reasoning_tokens" else "input" if "input" in field else "other"
