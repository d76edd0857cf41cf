"""Which turns a cheaper model of the same provider would have cost less: the same tokens at other prices.

Models are chosen from the catalogue as it is now, by what the user's own mix of tokens would have cost. Whether such a
model would have done as well is not judged here; turns are told apart by how plain they look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from tokenops import catalog, events, pricing, show
from tokenops.events import Event

# What a turn is, and why a cheaper model may do for it.
CLASSES = {
    "short": "little context and a short answer",
    "subagent": "a subagent's turn",
    "other": "everything else",
}
MOST = 3
_CENT = Decimal("0.000001")


def class_of(turn: Event, rules: Mapping[str, float]) -> str:
    """How plain a turn looks."""
    output, context = turn.get("output_tokens", 0), events.context_size(turn)
    if output <= rules["short_output"] and context <= rules["short_context"]:
        return "short"
    return "subagent" if turn.get("sidechain") else "other"


def rows(
    turns: Iterable[Event], catalogue: pricing.Catalogue, rules: Mapping[str, float], now: str, most: int = MOST
) -> list[Event]:
    """A record per model and class that a cheaper model exists for, what would have been saved most first."""
    sums: dict[tuple[str, str, str], Event] = {}
    for turn in turns:
        if not turn.get("turns") or turn.get("cost_source") == "reported":
            continue
        key = (turn.get("provider", ""), turn.get("model", ""), class_of(turn, rules))
        held = sums.setdefault(key, {"cost": Decimal(0), "unpriced": False})
        rate = catalogue.rate_of(turn)
        cost = pricing.cost_of(rate, turn) if isinstance(rate, pricing.Rate) else None
        if not isinstance(cost, pricing.Cost):
            held["unpriced"] = True
            continue
        held["cost"] += cost.usd
        for name in events.SUMS:
            if turn.get(name):
                held[name] = held.get(name, 0) + turn[name]
    found = []
    for (provider, model, kind), held in sums.items():
        if not held["unpriced"] and held["cost"]:
            others = cheaper(provider, model, held, catalogue, now)[:most]
            if others:
                found.append(_row(provider, model, kind, held, others))
    return sorted(found, key=lambda row: -Decimal(row["alternatives"][0]["saved_usd"]))


def cheaper(provider: str, model: str, counts: Event, catalogue: pricing.Catalogue, now: str) -> list[tuple[str, Decimal]]:
    """The provider's current models that would have cost less for these tokens, with what; the dearest of them first.

    The nearest in price is the likeliest to be able to do the same.
    """
    sums = {name: counts.get(name, 0) for name in events.SUMS}
    found = []
    for name in current(provider, catalogue):
        rate = catalogue.rate_of({"provider": provider, "model": name, "ts": now, "turns": 1})
        cost = pricing.cost_of(rate, sums) if name != model and isinstance(rate, pricing.Rate) else None
        if isinstance(cost, pricing.Cost) and cost.usd < counts["cost"]:
            found.append((name, cost.usd))
    return sorted(found, key=lambda one: (-one[1], one[0]))


def current(provider: str, catalogue: pricing.Catalogue) -> Sequence[str]:
    """The models of a provider that one may switch to."""
    listed = catalog.load("current")["current"].get(provider)
    owner = catalogue.providers.get(provider)
    known: Sequence[str] = listed if listed is not None else list(owner["models"]) if owner else ()
    return known


def _row(provider: str, model: str, kind: str, held: Event, others: Sequence[tuple[str, Decimal]]) -> Event:
    made: Event = {"v": 1, "kind": "model", "provider": provider, "model": model, "class": kind, "why": CLASSES[kind]}
    made |= {name: held[name] for name in ("turns", *events.TOKENS) if name in held}
    made["cost_usd"] = _plain(held["cost"])
    made["alternatives"] = [
        {"model": name, "cost_usd": _plain(usd), "saved_usd": _plain(held["cost"] - usd)} for name, usd in others
    ]
    return made


def _plain(amount: Decimal) -> str:
    return pricing.plain(amount.quantize(_CENT))


def table(found: Sequence[Event], shape: str, color: bool) -> str:
    """The rows for people: the nearest and the cheapest alternative."""

    def told(row: Event, at: int) -> str:
        one = row["alternatives"][at]
        return f"{one['model']} {show.money(one['cost_usd'])}"

    columns = [
        show.Column("model", [row["model"] for row in found], number=False),
        show.Column("turns that are", [row["class"] for row in found], number=False),
        show.Column("turns", [show.count(row["turns"]) for row in found]),
        show.Column("list price", [show.money(row["cost_usd"]) for row in found]),
        show.Column("the next cheaper", [told(row, 0) for row in found], number=False),
        show.Column("a cheaper one", [told(row, -1) if len(row["alternatives"]) > 1 else "" for row in found], number=False),
    ]
    note = "The same tokens at other prices; whether such a model would have done as well is not judged here.\n"
    return show.table(columns, shape, color=color) + note
