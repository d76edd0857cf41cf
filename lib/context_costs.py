"""Adds up shares of turns by label, and prices them: the causes' costs add up to what tok-cost says, to the last digit.

Tokens are added up per rate before they are priced, since cost is proportional to every count. Only what is not (a cost
that the vendor reported, and classes of which a part has a price of its own) is shared turn by turn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_DOWN, Decimal
from typing import NamedTuple

from tokenops import context, pricing
from tokenops.context import Counts, Part, Shares
from tokenops.events import Event

# A label and how its tokens were paid. Fees are paid in no way of tokens.
Item = tuple[str, str]
FEE = "fee"
# A share of a cost that is not proportional has so many decimals; what is left over goes to the largest share.
_STEP = Decimal("1e-12")
_THOUGHT = "reasoning_tokens"
# Parts of a class that may have a price of their own. Of which cause they are is unknown.
_OTHER_PARTS = ("audio_input_tokens", "image_input_tokens", "audio_output_tokens", "image_output_tokens")
# So many sets of causes are kept before their turns are counted by label: most turns have the causes of others.
_WAITING = 100
_NONE: frozenset[str] = frozenset()
_FEES = ("web_searches", "requests", "citation_tokens")


class Line(NamedTuple):
    """What one label took: tokens and cost by kind, turns, and how many of the tokens have no price."""

    tokens: Counts
    costs: dict[str, Decimal]
    turns: int
    unpriced: int

    @property
    def usd(self) -> Decimal | None:
        """Its cost; None if nothing of it has a price."""
        return total(self.costs.values()) if self.costs or not self.unpriced else None


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum of some amounts."""
    return functools.reduce(pricing.add, amounts, pricing.ZERO)


class _Group:
    """Turns of one rate. `tokens`: of each kind and class by cause. `counts`: what decides the fees."""

    def __init__(self, rate: pricing.Rate | None) -> None:
        self.rate = rate
        self.counts: Counts = {}
        self.tokens: dict[tuple[str, str], Counts] = {}
        rates = rate.rates if rate is not None else {}
        self.thinks = bool(rates.get("reasoning"))  # thinking has a price of its own
        self.uneven = [name for name in _OTHER_PARTS if rates.get(name.removesuffix("_tokens")) is not None]

    def is_uneven(self, turn: Event) -> bool:
        """Whether tokens of one class have different prices, other than thinking."""
        if self.thinks and turn.get(_THOUGHT, 0) > turn.get(context.OUTPUT, 0):
            return True
        return any(turn.get(name) for name in self.uneven)

    def add(self, parts: Iterable[Part]) -> None:
        """Add a turn's parts."""
        for kind, name, tokens in parts:
            sums = self.tokens.get((kind, name))
            if sums is None:
                sums = self.tokens[kind, name] = {}
            for cause, count in tokens.items():
                sums[cause] = sums.get(cause, 0) + count

    def costs(self, tokens: Mapping[tuple[str, str], Counts]) -> dict[Item, Decimal] | None:
        """The cost of each label and kind; None if there is no price. `tokens`: as in the group, but by label."""
        if self.rate is None:
            return None
        counts = dict(self.counts)
        for (_, name), sums in tokens.items():
            counts[name] = counts.get(name, 0) + sum(sums.values())
        counts[context.OUTPUT] = counts.get(context.OUTPUT, 0) + counts.get(_THOUGHT, 0)
        if isinstance(pricing.cost_of(self.rate, counts), pricing.Unpriced):
            return None
        result: dict[Item, Decimal] = {}
        for (kind, name), sums in tokens.items():
            for label, count in sums.items():
                item = label, kind
                result[item] = pricing.add(result.get(item, pricing.ZERO), _amount(self.rate, name, count) or pricing.ZERO)
        if fees := _amount_of(self.rate, self.counts):
            result[context.FEES, FEE] = fees
        return result


def _amount(rate: pricing.Rate, name: str, count: int) -> Decimal | None:
    """What some tokens of a class cost; None if that is unknown."""
    return _amount_of(rate, {name: count, context.OUTPUT: count} if name == _THOUGHT else {name: count})


def _amount_of(rate: pricing.Rate, counts: Mapping[str, int]) -> Decimal | None:
    cost = pricing.cost_of(rate, counts)
    return cost.usd if isinstance(cost, pricing.Cost) else None


class Bill:
    """The sums so far. `label_of`: the label of a cause, by which rows are made."""

    def __init__(self, catalogue: pricing.Catalogue, label_of: Callable[[str], str] = str) -> None:
        self.turns = 0
        self._catalogue = catalogue
        self._label_of = functools.cache(label_of)
        self._turns: Counts = {}
        self._waiting: dict[frozenset[str], int] = {}  # turns by their causes, which are not in `_turns` yet
        self._groups: dict[str, _Group] = {}
        self._shared = _Group(None)  # turns whose cost is not proportional
        self._money: dict[Item, Decimal] = {}  # theirs

    def add(self, share: Shares) -> None:
        """Add the shares of one turn, or of a session's total."""
        turn, parts = share.turn, share.parts
        if turns := turn.get("turns"):
            self.turns += turns
            causes = _NONE.union(*[part.tokens for part in parts])
            self._waiting[causes] = self._waiting.get(causes, 0) + turns
            if len(self._waiting) > _WAITING:
                self._count_turns()
        group = self._group_of(self._catalogue.rate_of(turn))
        rate = group.rate
        fees = _fees(turn, rate)
        if "cost_usd" in turn and (rate is None or turn.get("cost_source") != "client"):
            self._share_out(Decimal(turn["cost_usd"]), parts, rate, fees)
        elif rate is not None and group.is_uneven(turn):
            self._share_out(_amount_of(rate, {**turn, **fees}), parts, rate, fees)
        else:
            group.add(_with_thinking(parts) if group.thinks and turn.get(_THOUGHT) else parts)
            for field, count in fees.items():
                group.counts[field] = group.counts.get(field, 0) + count

    def _count_turns(self) -> None:
        for causes, turns in self._waiting.items():
            for label in set(map(self._label_of, causes)):
                self._turns[label] = self._turns.get(label, 0) + turns
        self._waiting.clear()

    def _group_of(self, lookup: pricing.Rate | pricing.Unpriced) -> _Group:
        rate = lookup if isinstance(lookup, pricing.Rate) else None
        name = rate.name if rate is not None else ""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(rate)
        return group

    def _by_label(self, tokens: Mapping[str, int]) -> Counts:
        result: Counts = {}
        for cause, count in tokens.items():
            label = self._label_of(cause)
            result[label] = result.get(label, 0) + count
        return result

    def _share_out(self, usd: Decimal | None, parts: list[Part], rate: pricing.Rate | None, fees: Counts) -> None:
        """Share a turn's cost by what its parts cost at list price, or by tokens if that is unknown."""
        if usd is None:
            self._groups.setdefault("", _Group(None)).add(parts)
            return
        self._shared.add(parts)
        weights: dict[Item, Decimal] = {}
        for part in parts:
            for label, count in self._by_label(part.tokens).items():
                weight = _amount(rate, part.name, count) if rate is not None else None
                item = label, part.kind
                weights[item] = weights.get(item, pricing.ZERO) + (Decimal(count) if weight is None else weight)
        if rate is not None and (paid := _amount_of(rate, fees)):
            weights[context.FEES, FEE] = paid
        for item, share in spread(usd, weights or {(context.FEES, FEE): Decimal(1)}).items():
            self._money[item] = pricing.add(self._money.get(item, pricing.ZERO), share)

    def lines(self) -> dict[str, Line]:
        """Label -> what it took. The tokens add up to the turns' tokens, and the costs to their cost."""
        self._count_turns()
        tokens: dict[str, Counts] = {}
        costs: dict[str, dict[str, Decimal]] = {}
        unpriced: Counts = {}

        def pay(item: Item, usd: Decimal) -> None:
            label, kind = item
            mine = costs.setdefault(label, {})
            mine[kind] = pricing.add(mine.get(kind, pricing.ZERO), usd)

        for item, usd in self._money.items():
            pay(item, usd)
        for group in (*self._groups.values(), self._shared):
            by_label = {key: self._by_label(sums) for key, sums in group.tokens.items()}
            amounts = group.costs(by_label)
            for item, usd in (amounts or {}).items():
                pay(item, usd)
            for (kind, _), sums in by_label.items():
                for label, count in sums.items():
                    kinds = tokens.setdefault(label, {})
                    kinds[kind] = kinds.get(kind, 0) + count
                    if amounts is None and group is not self._shared:
                        unpriced[label] = unpriced.get(label, 0) + count
        labels = dict.fromkeys((*tokens, *costs))
        return {
            label: Line(tokens.get(label, {}), costs.get(label, {}), self._turns.get(label, 0), unpriced.get(label, 0))
            for label in labels
        }


def _fees(turn: Event, rate: pricing.Rate | None) -> Counts:
    """What a turn pays for beside tokens. A request with a fee of its own counts as one if nothing else is said."""
    fees = {name: turn[name] for name in _FEES if turn.get(name)}
    if rate is not None and rate.request is not None and "requests" not in turn and "cost_usd" not in turn:
        fees["requests"] = turn.get("turns", 0)
    return fees


def _with_thinking(parts: Iterable[Part]) -> list[Part]:
    """Parts in which counted thinking is a class of its own, as it has a price of its own."""
    result = []
    for part in parts:
        thinking = part.tokens.get(context.THINKING, 0) if part.kind == context.PRODUCING else 0
        others = {label: count for label, count in part.tokens.items() if label != context.THINKING or not thinking}
        result.append(part._replace(tokens=others))
        if thinking:
            result.append(Part(part.kind, _THOUGHT, {context.THINKING: thinking}))
    return result


def spread(amount: Decimal, weights: Mapping[Item, Decimal]) -> dict[Item, Decimal]:
    """An amount in shares by weight; what rounding leaves over goes to the largest. They add up to the amount."""
    whole = total(weights.values())
    if not whole:
        weights = dict.fromkeys(weights, Decimal(1))
        whole = Decimal(len(weights))
    shares = {item: (amount * weight / whole).quantize(_STEP, ROUND_DOWN) for item, weight in weights.items()}
    largest = max(weights, key=lambda item: (weights[item], item))
    shares[largest] = pricing.add(shares[largest], pricing.add(amount, total(shares.values()).copy_negate()))
    return shares
