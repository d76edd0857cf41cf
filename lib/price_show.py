"""What the catalogue holds, for people and programs: one model's price, all of them, and what a record cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tokenops import price_cards, price_names, pricing, show

Data = dict[str, Any]
_RATES = ("input", "cache_read", "cache_write", "cache_write_1h", "cache_write_12h", "output")


def one(catalogue: pricing.Catalogue, provider: str, model: str, ts: str) -> Data:
    """The price of a model's name at a moment, where it is from and how the name led there; or why there is none."""
    told: Data = {"v": 1, "kind": "price", "asked": model, "at": ts}
    provider = provider or price_names.provider_of(model)
    if provider:
        told["provider"] = provider
    found = catalogue.find(provider, model)
    if isinstance(found, pricing.Unpriced):
        return told | {"unpriced": found.reason} | _nearest(catalogue, provider, model)
    told |= {"row": found.name, "matched_by": " ".join(matched(catalogue, found, provider, model))}
    row = next((row for row in found.rows if row.get("from", "") <= ts < row.get("until", "9")), None)
    if row is None:
        return told | {"unpriced": f"no price of {found.name} is known for {ts[:10]}"} | _history(found)
    return told | interval(row, found, ts) | _retired(catalogue, found) | _history(found)


def matched(catalogue: pricing.Catalogue, found: pricing.Found, provider: str, model: str) -> Iterator[str]:
    """How a name led to its rows, in a few words."""
    name, owner = found.reading.model, found.name.partition("/")[0]
    if found.name.startswith("override/"):
        yield "an override:"
        name = found.name.split("/", 2)[2]
    yield "the name itself" if name == model.strip().lower() else f"read as {name}"
    targets = catalogue.providers.get(owner, {}).get("aliases", {}).get(name)
    if targets:
        yield f"an alias of {', then '.join(target['to'] for target in targets)}"
    if owner != provider and owner in catalogue.providers:
        yield f"sold by {provider} at the prices of {owner}"


def _nearest(catalogue: pricing.Catalogue, provider: str, model: str) -> Data:
    """A hint, never a price."""
    body = catalogue.providers.get(provider)
    found = price_cards.nearest(model.lower(), (*body["models"], *body["aliases"])) if body else ""
    return {"nearest_known": found} if found else {}


def _retired(catalogue: pricing.Catalogue, found: pricing.Found) -> Data:
    owner, _, name = found.name.partition("/")
    day = catalogue.providers.get(owner, {}).get("retired", {}).get(name)
    return {"retired": day} if day else {}


def _history(found: pricing.Found) -> Data:
    """Since when each price of the model holds."""
    if len(found.rows) < 2:
        return {}
    return {"intervals": [{name: row[name] for name in ("from", "until", "scheduled") if name in row} for row in found.rows]}


def interval(row: Data, found: pricing.Found, ts: str) -> Data:
    """One interval as a record: everything that can decide a price, as of a moment."""
    told: Data = {name: row[name] for name in ("from", "until", "scheduled") if row.get(name)}
    base = row["tiers"][""]
    told["rates"] = base["rates"]
    if base["above"]:
        told["above"] = base["above"]
    if windows := [one for one in base["windows"] if one.get("from", "") <= ts < one.get("until", "9")]:
        told["windows"] = windows
    tiers = {tier: block["rates"] for tier, block in row["tiers"].items() if tier}
    told |= {"tiers": tiers} if tiers else {}
    told |= {name: row[name] for name in ("geo", *price_cards.FEES, "confidence", "note") if row.get(name)}
    told["sources"] = [{"id": key} | source(found.sources.get(key, {})) for key in row.get("src", ())]
    return told


def source(about: Data) -> Data:
    """What a source says of itself."""
    return {name: str(about[name]) for name in ("url", "captured", "kind") if name in about}


def listed(catalogue: pricing.Catalogue, provider: str, ts: str) -> Iterator[Data]:
    """Every model with a price at a moment, by provider, and each alias with what it means then."""
    for owner in sorted(catalogue.providers):
        body = catalogue.providers[owner]
        if provider not in ("", owner):
            continue
        for model in (*body["models"], *body["aliases"]):
            found = catalogue.find(owner, model)
            rows = found.rows if isinstance(found, pricing.Found) else []
            row = next((row for row in rows if row.get("from", "") <= ts < row.get("until", "9")), None)
            if row is None or not isinstance(found, pricing.Found):
                continue
            told: Data = {"v": 1, "kind": "price", "provider": owner, "model": model}
            told |= {name: row[name] for name in ("from", "until") if row.get(name)}
            told["rates"] = row["tiers"][""]["rates"]
            told["confidence"] = row.get("confidence", "")
            captured = [str(body["sources"].get(key, {}).get("captured", "")) for key in row.get("src", ())]
            told["captured"] = max(captured, default="")
            if model in body["aliases"]:
                told["alias_of"] = [target["to"] for target in body["aliases"][model]]
            yield told | ({"retired": body["retired"][model]} if model in body["retired"] else {})


def table(rows: Iterable[Data], shape: str, color: bool) -> str:
    """The list for people: USD per million tokens."""
    rows = list(rows)

    def column(title: str, name: str) -> show.Column:
        return show.Column(title, [_price(row["rates"], name) for row in rows])

    columns = [show.Column(name, [row[name] for row in rows], number=False) for name in ("provider", "model")]
    columns += [column(name.replace("_", " "), name) for name in _RATES]
    columns += [
        show.Column(name, [str(row.get(name, ""))[:10] for row in rows], number=False) for name in ("from", "retired")
    ]
    columns += [show.Column(name, [row[name] for row in rows], number=False) for name in ("confidence", "captured")]
    return show.table(columns, shape, color=color)


def _price(rates: Data, name: str) -> str:
    value = rates.get(name)
    return str(rates["input"] if value == price_cards.SAME else value or "")


def text_of_price(told: Data) -> str:
    """One price for people."""
    head = f"{told['asked']}" + (f", billed by {told['provider']}" if "provider" in told else "")
    lines = [f"{head}, at {told['at'][:16].replace('T', ' ')} UTC"]
    if "matched_by" in told:
        lines.append(f"  row         {told['row']}: {told['matched_by']}")
    if "unpriced" in told:
        lines.append(f"  no price    {told['unpriced']}")
        if "nearest_known" in told:
            lines.append(f"  nearest     {told['nearest_known']} (a hint; nothing is priced by it)")
        return "\n".join(lines) + "\n"
    ends = told.get("until", "")[:10] or "further notice"
    lines.append(f"  in force    {told.get('from', '')[:10] or 'from the beginning'} to {ends}")
    lines += _rate_lines("per million", told["rates"], told["rates"])
    for step in told.get("above", ()):
        sign = ">" if step["op"] == "gt" else ">="
        lines += _rate_lines(f"{sign} {step['tokens']:,}", step["rates"], told["rates"])
    for window in told.get("windows", ()):
        lines += _rate_lines(window["name"], window["rates"], told["rates"])
        lines.append(f"              {_hours(window)}")
    for tier, rates in told.get("tiers", {}).items():
        lines += _rate_lines(tier, rates, rates)
    lines += [f"  {name:<11} x {factor}" for name, factor in told.get("geo", {}).items()]
    lines += [f"  {name:<11} {told[name]} per thousand" for name in price_cards.FEES if name in told]
    for one in told["sources"]:
        lines.append(f"  source      {one.get('url', one['id'])}, read {one.get('captured', 'at no known time')}")
    lines += [f"  {name:<11} {told[name]}" for name in ("confidence", "retired", "note") if name in told]
    spans = [f"{one.get('from', '')[:10] or 'beginning'}" for one in told.get("intervals", ())]
    return "\n".join([*lines, *([f"  changes     {', '.join(spans)}"] if spans else [])]) + "\n"


def _rate_lines(title: str, rates: Data, base: Data) -> list[str]:
    shown = []
    for name, value in rates.items():
        known = (
            "not published (billed as input)" if value is None else "as input" if value == price_cards.SAME else f"${value}"
        )
        shown.append(f"{name} {known}")
    return [f"  {title:<11} {', '.join(shown)}"]


def _hours(window: Data) -> str:
    spans = ", ".join(f"{a // 60:02d}:{a % 60:02d}-{b // 60:02d}:{b % 60:02d}" for a, b in window["hours"])
    days = "every day" if len(window["days"]) == 7 else "on days " + ", ".join(map(str, window["days"]))
    free = f", not on {window['except']}" if window["except"] else ""
    return f"{spans} {window['tz']}, {days}{free}"
