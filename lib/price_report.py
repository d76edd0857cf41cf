"""Renders the results of tok-price: check, lint, snapshot, and one model's price, for programs and for people."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tokenops import price_cards, price_causes, price_check, price_files, price_names, price_tables, pricing, show
from tokenops.price_check import DIFFERS, MISSING, ONLY_OURS, Finding
from tokenops.price_files import Fault
from tokenops.price_tables import Data, SnapshotError, Table


def rows(folder: str, tables: Sequence[Table]) -> tuple[list[Data], list[Data]]:
    """Each finding of a catalogue beside the tables, with its cause; and each table's sums. Raises catalog.Malformed."""
    catalogue = pricing.from_texts(price_files.texts(folder))
    known = price_causes.known_causes()
    found: list[Data] = []
    totals = []
    for table in tables:
        compared = price_check.compare(catalogue, table)
        mine = [row(one, price_causes.cause_of(one, tables, known)) for one in compared.findings]
        total: Data = {"v": 1, "kind": "price_check_total", "table": table.name, "captured": table.about["captured"]}
        total |= {"models": compared.models, "agreed": compared.agreed} | price_check.counts(compared.findings)
        total["unexplained"] = sum("cause" not in one for one in mine)
        totals.append(total)
        found += mine
    return found, totals


def row(one: Finding, cause: price_causes.Cause | None) -> Data:
    """A finding as a record for programs."""
    made: Data = {"v": 1, "kind": "price_check", "table": one.table.name, "verdict": one.verdict}
    made |= {"provider": one.provider, "model": one.model}
    if one.field:
        made |= {"field": one.field, "at": one.at, "ours": one.ours or None, "theirs": one.theirs or None}
    if cause is not None:
        made |= {"cause": cause.name, "why": cause.why} | ({"url": cause.url} if cause.url else {})
    return made


def text(rows: Sequence[Data], totals: Sequence[Data], every: bool, shape: str, color: bool) -> str:
    """The check for people: what is not explained, all of it if asked for, and the sums."""
    told = [one for one in rows if every or "cause" not in one]
    parts = [_findings(told, shape, color)] if told else []
    if shape != "csv":
        parts.append(_causes(rows, shape, color))
        parts += [_total(one) for one in totals]
    return "\n".join(parts)


def _findings(rows: Sequence[Data], shape: str, color: bool) -> str:
    names = ("table", "verdict", "provider", "model", "field", "ours", "theirs", "cause", "why")
    cells = {name: [str(one.get(name) or "") for one in rows] for name in names}
    return show.table(
        [show.Column(name, cells[name], number=name in ("ours", "theirs")) for name in names], shape, color=color
    )


def _causes(rows: Iterable[Data], shape: str, color: bool) -> str:
    """How many findings of each verdict have each cause."""
    counted = collections.Counter((one.get("cause", "unexplained"), one["verdict"]) for one in rows)
    causes = sorted({cause for cause, _ in counted})
    columns = [show.Column("cause", causes, number=False)]
    columns += [
        show.Column(verdict.replace("_", " "), [show.count(counted[cause, verdict]) for cause in causes])
        for verdict in (DIFFERS, MISSING, ONLY_OURS)
    ]
    return show.table(columns, shape, color=color)


def _total(one: Mapping[str, object]) -> str:
    return (
        f"{one['table']} of {one['captured']}: {one['agreed']:,} prices of {one['models']:,} models agree, "
        f"{one['unexplained']:,} differences are not explained\n"
    )


def faults_text(faults: Sequence[Fault], files: int) -> str:
    """What lint found, for people."""
    if not faults:
        return f"nothing is wrong with {files} files\n"
    return "".join(f"{one.place}: {one.level}: {one.model + ': ' if one.model else ''}{one.what}\n" for one in faults)


def snapshot_changes(source: str, before: Table | None, about: Data, models: dict[str, list[Data]]) -> list[Data]:
    """What a new snapshot changes. Raises SnapshotError where it cannot be one."""
    head: Data = {"v": 1, "kind": "price_snapshot", "source": source, "package": about["package"]}
    head |= {"version": about["version"], "models": sum(map(len, models.values()))}
    if before is not None:
        was = head["version_before"] = before.about["version"]
        if _numbers(about["version"]) < _numbers(was):
            raise SnapshotError(
                f"{about['package']} {about['version']} is older than the snapshot's {was}; the snapshot stays"
            )
    for why in price_tables.faults(models, before):
        raise SnapshotError(f"{about['package']} {about['version']}: {why}; the snapshot stays as it is")
    return [head, *(_changes(head, before, models) if before else ())]


def _changes(head: Data, before: Table, models: dict[str, list[Data]]) -> Iterator[Data]:
    for provider, model, what in price_tables.changes(before, models):
        yield {"v": 1, "kind": "price_snapshot_change", "source": head["source"], "provider": provider} | {
            "model": model,
            "change": what,
        }


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def snapshot_text(rows: Sequence[Data], dry_run: bool) -> str:
    """What a new snapshot changes, for people."""
    lines = []
    for one in rows:
        if one["kind"] == "price_snapshot":
            was = f", was {one['version_before']}" if "version_before" in one else ""
            lines.append(f"{one['package']} {one['version']}{was}: {one['models']:,} models")
        else:
            lines.append(f"  {one['provider']} {one['model']}: {one['change']}")
    return "\n".join([*lines, *(["nothing was written"] if dry_run else [])]) + "\n"


_RATES = ("input", "cache_read", "cache_write", "cache_write_1h", "cache_write_12h", "output")


def price_record(catalogue: pricing.Catalogue, provider: str, model: str, ts: str) -> Data:
    """The price of a model's name at a moment, where it is from and how the name led there; or why there is none."""
    told: Data = {"v": 1, "kind": "price", "asked": model, "at": ts}
    provider = provider or price_names.provider_of(model)
    if provider:
        told["provider"] = provider
    found = catalogue.find(provider, model)
    if isinstance(found, pricing.Unpriced):
        return told | {"unpriced": found.reason} | _nearest(catalogue, provider, model)
    told |= {"row": found.name, "matched_by": " ".join(match_reason(catalogue, found, provider, model))}
    row = next((row for row in found.rows if row.get("from", "") <= ts < row.get("until", "9")), None)
    if row is None:
        return told | {"unpriced": f"no price of {found.name} is known for {ts[:10]}"} | _history(found)
    return told | interval(row, found, ts) | _retired(catalogue, found) | _history(found)


def match_reason(catalogue: pricing.Catalogue, found: pricing.Lookup, provider: str, model: str) -> Iterator[str]:
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
    found = show.nearest(model.lower(), (*body["models"], *body["aliases"])) if body else ""
    return {"nearest_known": found} if found else {}


def _retired(catalogue: pricing.Catalogue, found: pricing.Lookup) -> Data:
    owner, _, name = found.name.partition("/")
    day = catalogue.providers.get(owner, {}).get("retired", {}).get(name)
    return {"retired": day} if day else {}


def _history(found: pricing.Lookup) -> Data:
    """Since when each price of the model holds."""
    if len(found.rows) < 2:
        return {}
    return {"intervals": [{name: row[name] for name in ("from", "until", "scheduled") if name in row} for row in found.rows]}


def interval(row: Data, found: pricing.Lookup, ts: str) -> Data:
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


def price_list(catalogue: pricing.Catalogue, provider: str, ts: str) -> Iterator[Data]:
    """Every model with a price at a moment, by provider, and each alias with what it means then."""
    for owner in sorted(catalogue.providers):
        body = catalogue.providers[owner]
        if provider not in ("", owner):
            continue
        for model in (*body["models"], *body["aliases"]):
            found = catalogue.find(owner, model)
            rows = found.rows if isinstance(found, pricing.Lookup) else []
            row = next((row for row in rows if row.get("from", "") <= ts < row.get("until", "9")), None)
            if row is None or not isinstance(found, pricing.Lookup):
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
