"""Turns differences to other tables into a patch of the price files, for a person to review.

Nothing here writes a catalogue. A price goes in if two tables agree on it against us, and a model if two tables list
it. Prices from one table only, and prices that `price_lint` holds, go in only if a person vouches for them with the
vendor's page. Prices that it refuses never go in.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenops import price_cards, price_causes, price_check, price_files, price_history, price_lint, price_tables, pricing
from tokenops.price_check import DIFFERS, MISSING, Finding
from tokenops.price_files import HELD, REFUSED, Texts
from tokenops.price_tables import Data, Table

IN, OUT = "proposed", "refused"


class Change(NamedTuple):
    """A change of one model: its prices by key (class, class>tokens), and the tables that have them.

    `new`: it is not listed yet; `to`: it is another name of a model that is. `more`: lines of its own keys.
    """

    provider: str
    model: str
    prices: Mapping[str, str]
    tables: tuple[Table, ...]
    new: bool
    to: str = ""
    more: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """The decision on a change, and why."""

    verdict: str  # proposed, held, refused
    change: Change
    why: str

    def row(self) -> Data:
        """The same as a record for programs."""
        change = self.change
        record: Data = {
            "v": 1,
            "kind": "price_change",
            "verdict": self.verdict,
            "provider": change.provider,
            "model": change.model,
        }
        record |= {"prices": dict(change.prices), "tables": [table.name for table in change.tables], "new_model": change.new}
        record |= {"alias_of": change.to} if change.to else {}
        return record | ({"why": self.why} if self.why else {})


def changes(catalogue: pricing.Catalogue, tables: Sequence[Table]) -> Iterator[Change]:
    """The changes, by model, from unexplained differences to today's tables."""
    causes = price_causes.known_causes()
    differing: dict[tuple[str, str], dict[str, dict[str, list[Table]]]] = {}
    missing: dict[tuple[str, str], None] = {}
    for table in tables:
        for finding in price_check.compare(catalogue, table).findings:
            if finding.at[:10] != table.details["captured"] or price_causes.cause_of(finding, tables, causes):
                continue
            if finding.verdict == MISSING and not finding.field:
                missing[finding.provider, finding.model] = None
            elif finding.verdict in (DIFFERS, MISSING) and finding.lookup is not None and is_standard_price(finding.field):
                row = _current(catalogue, finding)
                differing.setdefault((finding.provider, row), {}).setdefault(finding.field, {}).setdefault(
                    finding.theirs, []
                ).append(table)
    for (provider, model), fields in differing.items():
        yield from _price_changes(provider, model, fields)
    for provider, model in missing:
        if change := _new_model(catalogue, provider, model, tables):
            yield change


def is_standard_price(field: str) -> bool:
    """Whether a key is a price of the standard tier, which can be patched."""
    return "/" not in field and price_check.class_of(field) in price_cards.CLASSES


def _current(catalogue: pricing.Catalogue, finding: Finding) -> str:
    """The model whose interval is in force; the target of an alias."""
    assert finding.lookup is not None
    owner, _, name = finding.lookup.name.partition("/")
    targets = catalogue.providers[owner]["aliases"].get(name, ())
    return next((to["to"] for to in targets if to.get("from", "") <= finding.at < to.get("until", "9")), name)


def _price_changes(provider: str, model: str, fields: Mapping[str, Mapping[str, list[Table]]]) -> Iterator[Change]:
    """One change of a model, of the prices on which the most tables agree."""
    by_table: dict[tuple[str, ...], dict[str, str]] = {}
    for field, values in fields.items():
        value, agreeing = max(values.items(), key=lambda item: len({table.source for table in item[1]}))
        by_table.setdefault(tuple(sorted({table.source for table in agreeing})), {})[field] = value
    by_source = {table.source: table for values in fields.values() for agreeing in values.values() for table in agreeing}
    for sources, prices in by_table.items():
        yield Change(provider, model, prices, tuple(by_source[name] for name in sources), False)


def _new_model(catalogue: pricing.Catalogue, provider: str, model: str, tables: Sequence[Table]) -> Change | None:
    """A model that we do not list: what the tables that know it agree on."""
    rates: dict[str, str] = {}
    listing, rows, retires = [], [], ""
    for table in tables:
        row = price_tables.find(table, provider, model)
        if row is None:
            continue
        listing.append(table)
        rows.append(str(row["id"]))
        retires = retires or row.get("retires", "")
        for key, value in price_tables.rates_at(row, f"{table.details['captured']}T12:00:00.000Z").items():
            if rates.setdefault(key, value) != value and key in ("input", "output"):
                return None
    rates = {key: value for key, value in rates.items() if rates.get(_whole(key)) != value}
    if target := _same(catalogue, provider, model, rows, rates, f"{listing[0].details['captured']}T12:00:00.000Z"):
        return Change(
            provider,
            model,
            {key: value for key, value in rates.items() if is_standard_price(key)},
            tuple(listing),
            True,
            target,
        )
    more = _tiers(rates)
    if retires:
        more = (f"retired: {retires}", *more)
    if (fee := rates.get("web_search")) and is_fee(fee):
        more = (*more, f'web_search: "{fee}"')
    prices = {key: value for key, value in rates.items() if is_standard_price(key)}
    return Change(provider, model, prices, tuple(listing), True, "", more)


def _whole(key: str) -> str:
    """The key of the class that a part belongs to; a part with the same price needs no price of its own."""
    name = price_check.class_of(key)
    return key.replace(name, price_check.WHOLE[name]) if name in price_check.WHOLE and name != "cache_read" else ""


def _same(
    catalogue: pricing.Catalogue, provider: str, model: str, rows: Sequence[str], rates: Mapping[str, str], at: str
) -> str:
    """Our model that a table takes the name for, if our price is the one in the tables."""
    for row in rows:
        lookup = catalogue.find(provider, row) if row != model else None
        if not isinstance(lookup, pricing.Lookup):
            continue
        engine = price_check.Engine(lookup)
        if all(engine.price(key, at) == value for key, value in rates.items() if is_standard_price(key)):
            name = lookup.name.partition("/")[2]
            targets = catalogue.providers[provider]["aliases"].get(name)
            return str(targets[-1]["to"]) if targets else name
    return ""


def is_fee(text: str) -> bool:
    """Whether there is a fee for searches."""
    return text not in ("", "0")


def _tiers(rates: Mapping[str, str]) -> tuple[str, ...]:
    """The tiers that tables list, as lines of YAML."""
    tiers: dict[str, dict[str, str]] = {}
    for key, value in rates.items():
        tier, _, name = key.rpartition("/")
        if tier and ">" not in name and name in price_cards.CLASSES:
            tiers.setdefault(tier, {})[name] = value
    if "priority" in tiers:
        tiers.pop("fast", None)  # its name since autumn 2026
    if not tiers:
        return ()
    lines = []
    for tier in sorted(tiers):
        prices = ", ".join(f'{name}: "{tiers[tier][name]}"' for name in price_cards.CLASSES if name in tiers[tier])
        lines.append(f"  {tier}: {{{prices}{', aliases: [fast]' if tier == 'priority' else ''}}}")
    return ("tiers:", *lines)


def patch(
    texts: Texts, proposals: Iterable[Change], today: str, begins: str = "", vouched: Mapping[str, str] | None = None
) -> tuple[dict[str, bytes], list[Verdict]]:
    """The files with every change that may go in, and the decision on each. `vouched`: PROVIDER/MODEL -> a page."""
    patched, verdicts = dict(texts), []
    for change in proposals:
        url = (vouched or {}).get(f"{change.provider}/{change.model}", "")
        try:
            name, text = _edit(patched, change, today, begins, url)
        except price_files.ByHand as error:
            verdicts.append(Verdict(HELD, change, str(error)))
            continue
        verdict = _judge(change, patched, {**patched, name: text}, today, url)
        verdicts.append(verdict)
        if verdict.verdict == IN:
            patched[name] = text
    return patched, verdicts


def _judge(change: Change, before: Texts, after: Texts, today: str, url: str) -> Verdict:
    """Whether a change may go in."""
    rules = price_lint.rules()
    before_faults = {(fault.model, fault.what) for fault in price_lint.faults(before, rules, today)}
    after_faults = price_lint.faults(after, rules, today) + price_history.faults(after, before, rules, today)
    faults = [fault for fault in after_faults if (fault.model, fault.what) not in before_faults]
    for level in (REFUSED, HELD):
        if why := "; ".join(dict.fromkeys(fault.what for fault in faults if fault.level == level)):
            if level == HELD and url:
                continue
            return Verdict(OUT if level == REFUSED else HELD, change, why)
    if len({table.source for table in change.tables}) < 2 and not url:
        return Verdict(HELD, change, f"only {change.tables[0].name} has it; a second source or the vendor's page is needed")
    return Verdict(IN, change, "")


def _edit(texts: Texts, change: Change, today: str, begins: str, url: str) -> tuple[str, bytes]:
    """A provider's file with one change. Raises price_files.ByHand."""
    name = next((candidate for candidate in texts if candidate == f"pricing/{change.provider}.yaml"), "")
    if not name:
        raise price_files.ByHand(f"{change.provider} has no price file; write one")
    text = texts[name].decode()
    src = []
    for table in change.tables:
        key = f"{table.source}-{table.details['captured']}"
        kind = f"prices of {table.name}"
        text = price_files.with_source(text, key, _URLS[table.source], table.details["captured"], kind)
        src.append(key)
    if url:
        text = price_files.with_source(text, f"vendor-{today}", url, today, "vendor page")
        src.append(f"vendor-{today}")
    confidence = "high" if len(src) > 1 else "medium"
    if change.to:
        return name, price_files.with_alias(texts[name].decode(), change.model, change.to).encode()
    if not change.new:
        note = f"see the vendor's page: {url}" if url else ""
        first = f"{begins or max(table.details['captured'] for table in change.tables)}T00:00:00Z"
        return name, price_files.append_interval(text, change.model, first, change.prices, src, confidence, note).encode()
    rates = {key: value for key, value in change.prices.items() if ">" not in key}
    rates.setdefault("cache_read", price_cards.SAME)
    steps: dict[int, dict[str, str]] = {}
    op = price_lint.rules()["ops"].get(change.provider, price_lint.rules()["ops"]["*"])
    for key, value in change.prices.items():
        if ">" in key:
            tokens = int(key.partition(">")[2])
            steps.setdefault(tokens + (op == "ge" and tokens % 1000 == 999), {})[key.partition(">")[0]] = value
    return name, price_files.with_model(text, change.model, rates, steps, src, confidence, change.more, op).encode()


_URLS = {
    "litellm": "https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json",
    "genai": "https://github.com/pydantic/genai-prices/tree/main/prices",
}


def diff(before: Texts, after: Texts) -> str:
    """The patch, to be applied at the top of the project."""
    lines: list[str] = []
    for name in sorted(after):
        old, new = (texts.get(name, b"").decode().splitlines(keepends=True) for texts in (before, after))
        lines += difflib.unified_diff(old, new, f"a/catalog/{name}", f"b/catalog/{name}")
    return "".join(lines)
