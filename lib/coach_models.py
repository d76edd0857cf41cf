"""Prices the same turns at the provider's cheaper models: the same tokens at other prices.

The cheaper models are the catalogue's current ones, ordered by what the user's own mix of tokens would have cost. It
does not judge whether such a model would have done as well; it only groups turns by how simple they look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from tokenops import catalog, events, pricing, show
from tokenops.events import Event

# Class of turns -> why a cheaper model may do for them.
CLASSES = {
    "short": "little context and a short answer",
    "subagent": "a subagent's turn",
    "other": "everything else",
}
MOST = 3
_CENT = Decimal("0.000001")


def class_of(turn: Event, rules: Mapping[str, float]) -> str:
    """The class of a turn: how simple it looks."""
    output, context = turn.get("output_tokens", 0), events.context_size(turn)
    if output <= rules["short_output"] and context <= rules["short_context"]:
        return "short"
    return "subagent" if turn.get("sidechain") else "other"


def rows(
    turns: Iterable[Event], catalogue: pricing.Catalogue, rules: Mapping[str, float], now: str, most: int = MOST
) -> list[Event]:
    """A record per model and class with a cheaper model, the largest saving first."""
    sums: dict[tuple[str, str, str], Event] = {}
    for turn in turns:
        if not turn.get("turns") or turn.get("cost_source") == "reported":
            continue
        key = (turn.get("provider", ""), turn.get("model", ""), class_of(turn, rules))
        sums_of_class = sums.setdefault(key, {"cost": Decimal(0)})
        rate = catalogue.rate_of(turn)
        cost = pricing.cost_of(rate, turn) if isinstance(rate, pricing.Rate) else None
        if not isinstance(cost, pricing.Cost):
            continue  # the others are compared
        sums_of_class["cost"] += cost.usd
        for name in events.SUMS:
            if turn.get(name):
                sums_of_class[name] = sums_of_class.get(name, 0) + turn[name]
    result = []
    for (provider, model, kind), sums_of_class in sums.items():
        if sums_of_class["cost"]:
            others = cheaper(provider, model, sums_of_class, catalogue, now)[:most]
            if others:
                result.append(_row(provider, model, kind, sums_of_class, others))
    return sorted(result, key=lambda row: -Decimal(row["alternatives"][0]["saved_usd"]))


def cheaper(provider: str, model: str, counts: Event, catalogue: pricing.Catalogue, now: str) -> list[tuple[str, Decimal]]:
    """The provider's current models that would have cost less for these tokens, and their costs; the highest first.

    The model nearest in price is the most likely to do the same work.
    """
    sums = {name: counts.get(name, 0) for name in events.SUMS}
    cheaper_models = []
    for name in current_models(provider, catalogue):
        rate = catalogue.rate_of({"provider": provider, "model": name, "ts": now, "turns": 1})
        cost = pricing.cost_of(rate, sums) if name != model and isinstance(rate, pricing.Rate) else None
        if isinstance(cost, pricing.Cost) and cost.usd < counts["cost"]:
            cheaper_models.append((name, cost.usd))
    return sorted(cheaper_models, key=lambda model: (-model[1], model[0]))


def current_models(provider: str, catalogue: pricing.Catalogue) -> Sequence[str]:
    """The provider's models that can replace another."""
    listed = catalog.load("current")["current"].get(provider)
    owner = catalogue.providers.get(provider)
    models: Sequence[str] = listed if listed is not None else list(owner["models"]) if owner else ()
    return models


def _row(provider: str, model: str, kind: str, sums: Event, others: Sequence[tuple[str, Decimal]]) -> Event:
    row: Event = {"v": 1, "kind": "model", "provider": provider, "model": model, "class": kind, "why": CLASSES[kind]}
    row |= {name: sums[name] for name in ("turns", *events.TOKENS) if name in sums}
    row["cost_usd"] = _plain(sums["cost"])
    row["alternatives"] = [
        {"model": name, "cost_usd": _plain(usd), "saved_usd": _plain(sums["cost"] - usd)} for name, usd in others
    ]
    return row


def _plain(amount: Decimal) -> str:
    return pricing.plain(amount.quantize(_CENT))


# What the comparisons can be ordered by: by what would be saved, unless another is asked for.
ORDERS: show.Orders = {
    "saved": lambda row: Decimal(row["alternatives"][0]["saved_usd"]),
    "price": lambda row: Decimal(row["cost_usd"]),
    "turns": lambda row: row["turns"],
    "tokens": events.token_sum,
    "name": lambda row: row["model"],
}
NOTE = "The same tokens at other prices; whether such a model would have done as well is not judged here."


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """The rows for people: the nearest and the cheapest alternative."""

    def others(at: int) -> list[Event]:
        return [row["alternatives"][at] if at == 0 or len(row["alternatives"]) > 1 else {} for row in rows]

    near, cheap = others(0), others(-1)
    columns = [
        show.Column("model", [row["model"] for row in rows], False, 0),
        show.Column("turns that are", [row["class"] for row in rows], False, 2, heading="class"),
        show.counts("turns", [row["turns"] for row in rows], 4),
        show.counts("tokens", [events.token_sum(row) for row in rows], 5),
        show.amounts("list price", [row["cost_usd"] for row in rows], heading="price"),
        show.Column("the next cheaper", [other["model"] for other in near], False, 1, heading="next cheaper"),
        show.amounts("costs", [other["cost_usd"] for other in near], rank=1),
        show.Column("a cheaper one", [other.get("model", "") for other in cheap], False, 3, heading="cheapest"),
        show.amounts("costs", [other.get("cost_usd", "") for other in cheap], rank=3),
    ]
    return show.table(columns, shape, color=color) + show.notes([NOTE], shape, color, verbose)
