"""Renders the results of tok-price: check, lint, snapshot, and one model's price, for programs and for people."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tokenops import price_cards, price_causes, price_check, price_names, price_tables, pricing, show
from tokenops.price_check import DIFFERS, MISSING, ONLY_OURS, Finding
from tokenops.price_files import Fault
from tokenops.price_tables import Data, SnapshotError, Table


def rows(texts: Mapping[str, bytes], tables: Sequence[Table]) -> tuple[list[Data], list[Data]]:
    """Each difference of some price files to the tables, with its cause; and each table's totals."""
    catalogue = pricing.from_texts(texts)
    causes = price_causes.known_causes()
    records: list[Data] = []
    totals = []
    for table in tables:
        compared = price_check.compare(catalogue, table)
        mine = [row(finding, price_causes.cause_of(finding, tables, causes)) for finding in compared.findings]
        total: Data = {"v": 1, "kind": "price_check_total", "table": table.name, "captured": table.details["captured"]}
        total |= {"models": compared.models, "agreed": compared.agreed} | price_check.counts(compared.findings)
        total["unexplained"] = sum("cause" not in finding for finding in mine)
        totals.append(total)
        records += mine
    return records, totals


def row(finding: Finding, cause: price_causes.Cause | None) -> Data:
    """A finding as a record for programs."""
    record: Data = {"v": 1, "kind": "price_check", "table": finding.table.name, "verdict": finding.verdict}
    record |= {"provider": finding.provider, "model": finding.model}
    if finding.field:
        record |= {"field": finding.field, "at": finding.at, "ours": finding.ours or None, "theirs": finding.theirs or None}
    if cause is not None:
        record |= {"cause": cause.name, "why": cause.why} | ({"url": cause.url} if cause.url else {})
    return record


def text(rows: Sequence[Data], totals: Sequence[Data], every: bool, shape: str, color: bool, verbose: bool = False) -> str:
    """The check for people: unexplained differences, or all, and the totals."""
    shown = [record for record in rows if every or "cause" not in record]
    parts = [_findings(shown, shape, color)] if shown else []
    return "\n".join([*parts, _causes(rows, shape, color), show.notes(map(_total, totals), shape, color, verbose=True)])


def _findings(rows: Sequence[Data], shape: str, color: bool) -> str:
    ranks = {"table": 3, "verdict": 1, "provider": 2, "model": 0, "field": 1, "ours": 0, "theirs": 0, "cause": 4, "why": 5}
    cells = {name: [str(record.get(name) or "") for record in rows] for name in ranks}
    columns = [show.Column(name, cells[name], name in ("ours", "theirs"), ranks[name]) for name in ranks]
    return show.table(columns, shape, color=color)


def _causes(rows: Iterable[Data], shape: str, color: bool) -> str:
    """How many findings of each verdict have each cause."""
    counted = collections.Counter((record.get("cause", "unexplained"), record["verdict"]) for record in rows)
    causes = sorted({cause for cause, _ in counted})
    columns = [show.Column("cause", causes, False, 0)]
    columns += [
        show.counts(verdict.replace("_", " "), [counted[cause, verdict] for cause in causes])
        for verdict in (DIFFERS, MISSING, ONLY_OURS)
    ]
    return show.table(columns, shape, color=color)


def _total(total: Mapping[str, object]) -> str:
    return (
        f"{total['table']} of {total['captured']}: {total['agreed']:,} prices of {total['models']:,} models agree, "
        f"{total['unexplained']:,} differences are not explained"
    )


def faults_text(faults: Sequence[Fault], files: int) -> str:
    """What lint found, for people."""
    if not faults:
        return f"{files} files checked: no problem\n"
    return "".join(
        f"{fault.location}: {fault.level}: {fault.model + ': ' if fault.model else ''}{fault.what}\n" for fault in faults
    )


def snapshot_changes(source: str, before: Table | None, details: Data, models: dict[str, list[Data]]) -> list[Data]:
    """What a new snapshot changes. Raises SnapshotError if it cannot be one."""
    head: Data = {"v": 1, "kind": "price_snapshot", "source": source, "package": details["package"]}
    head |= {"version": details["version"], "models": sum(map(len, models.values()))}
    if before is not None:
        was = head["version_before"] = before.details["version"]
        if _numbers(details["version"]) < _numbers(was):
            raise SnapshotError(
                f"{details['package']} {details['version']} is older than the snapshot's {was}; the snapshot is unchanged"
            )
    for why in price_tables.faults(models, before):
        raise SnapshotError(f"{details['package']} {details['version']}: {why}; the snapshot is unchanged")
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
    for record in rows:
        if record["kind"] == "price_snapshot":
            was = f", was {record['version_before']}" if "version_before" in record else ""
            lines.append(f"{record['package']} {record['version']}{was}: {record['models']:,} models")
        else:
            lines.append(f"  {record['provider']} {record['model']}: {record['change']}")
    return "\n".join([*lines, *(["nothing was written"] if dry_run else [])]) + "\n"


_RATES = ("input", "cache_read", "cache_write", "cache_write_1h", "cache_write_12h", "output")


def price_record(catalogue: pricing.Catalogue, provider: str, model: str, ts: str) -> Data:
    """The price of a model's name at a moment, where it is from and how the name led there; or why there is none."""
    record: Data = {"v": 1, "kind": "price", "asked": model, "at": ts}
    provider = provider or price_names.provider_of(model)
    if provider:
        record["provider"] = provider
    lookup = catalogue.find(provider, model)
    if isinstance(lookup, pricing.Unpriced):
        return record | {"unpriced": lookup.reason} | _nearest(catalogue, provider, model)
    record |= {"row": lookup.name, "matched_by": " ".join(match_reason(catalogue, lookup, provider, model))}
    row = next((row for row in lookup.rows if row.get("from", "") <= ts < row.get("until", "9")), None)
    if row is None:
        return record | {"unpriced": f"no price is known for {lookup.name} on {ts[:10]}"} | _history(lookup)
    return record | interval(row, lookup, ts) | _retirement(catalogue, lookup) | _history(lookup)


def match_reason(catalogue: pricing.Catalogue, lookup: pricing.Lookup, provider: str, model: str) -> Iterator[str]:
    """How a name led to its rows, in a few words."""
    name, owner = lookup.reading.model, lookup.name.partition("/")[0]
    if lookup.name.startswith("override/"):
        yield "an override:"
        name = lookup.name.split("/", 2)[2]
    yield "the name itself" if name == model.strip().lower() else f"read as {name}"
    targets = catalogue.providers.get(owner, {}).get("aliases", {}).get(name)
    if targets:
        yield f"an alias of {', then '.join(target['to'] for target in targets)}"
    if owner != provider and owner in catalogue.providers:
        yield f"sold by {provider} at the prices of {owner}"


def _nearest(catalogue: pricing.Catalogue, provider: str, model: str) -> Data:
    """The nearest model name, as a hint only."""
    body = catalogue.providers.get(provider)
    nearest = show.nearest(model.lower(), (*body["models"], *body["aliases"])) if body else ""
    return {"nearest_known": nearest} if nearest else {}


def _retirement(catalogue: pricing.Catalogue, lookup: pricing.Lookup) -> Data:
    owner, _, name = lookup.name.partition("/")
    day = catalogue.providers.get(owner, {}).get("retired", {}).get(name)
    return {"retired": day} if day else {}


def _history(lookup: pricing.Lookup) -> Data:
    """The intervals of the model's prices."""
    if len(lookup.rows) < 2:
        return {}
    return {
        "intervals": [{name: row[name] for name in ("from", "until", "scheduled") if name in row} for row in lookup.rows]
    }


def interval(row: Data, lookup: pricing.Lookup, ts: str) -> Data:
    """One interval as a record: everything that can decide a price, as of a moment."""
    record: Data = {name: row[name] for name in ("from", "until", "scheduled") if row.get(name)}
    base = row["tiers"][""]
    record["rates"] = base["rates"]
    if base["above"]:
        record["above"] = base["above"]
    if windows := [window for window in base["windows"] if window.get("from", "") <= ts < window.get("until", "9")]:
        record["windows"] = windows
    tiers = {tier: block["rates"] for tier, block in row["tiers"].items() if tier}
    record |= {"tiers": tiers} if tiers else {}
    record |= {name: row[name] for name in ("geo", *price_cards.FEES, "confidence", "note") if row.get(name)}
    record["sources"] = [{"id": key} | source(lookup.sources.get(key, {})) for key in row.get("src", ())]
    return record


def source(details: Data) -> Data:
    """A source as a record."""
    return {name: str(details[name]) for name in ("url", "captured", "kind") if name in details}


def price_list(catalogue: pricing.Catalogue, provider: str, ts: str) -> Iterator[Data]:
    """Every model with a price at a moment, by provider, and each alias with what it means then."""
    for owner in sorted(catalogue.providers):
        body = catalogue.providers[owner]
        if provider not in ("", owner):
            continue
        for model in (*body["models"], *body["aliases"]):
            lookup = catalogue.find(owner, model)
            rows = lookup.rows if isinstance(lookup, pricing.Lookup) else []
            row = next((row for row in rows if row.get("from", "") <= ts < row.get("until", "9")), None)
            if row is None or not isinstance(lookup, pricing.Lookup):
                continue
            record: Data = {"v": 1, "kind": "price", "provider": owner, "model": model}
            record |= {name: row[name] for name in ("from", "until") if row.get(name)}
            record["rates"] = row["tiers"][""]["rates"]
            record["confidence"] = row.get("confidence", "")
            captured = [str(body["sources"].get(key, {}).get("captured", "")) for key in row.get("src", ())]
            record["captured"] = max(captured, default="")
            if model in body["aliases"]:
                record["alias_of"] = [target["to"] for target in body["aliases"][model]]
            yield record | ({"retired": body["retired"][model]} if model in body["retired"] else {})


# What the list can be ordered by.
ORDERS: show.Orders = {name: lambda row, name=name: _number(row["rates"], name) for name in _RATES} | {
    "provider": lambda row: row["provider"],
    "model": lambda row: row["model"],
}


def _number(rates: Data, name: str) -> float | None:
    text = _price(rates, name)
    return float(text) if text else None


def table(rows: Sequence[Data], shape: str, color: bool, verbose: bool = False) -> str:
    """The list for people: USD per million tokens."""

    def column(name: str, rank: int, heading: str = "") -> show.Column:
        return show.Column(name.replace("_", " "), [_price(row["rates"], name) for row in rows], rank=rank, heading=heading)

    def texts(name: str, rank: int) -> show.Column:
        return show.Column(name, [str(row.get(name, ""))[:10] if rank > 4 else row[name] for row in rows], False, rank)

    columns = [texts("provider", 4), texts("model", 0), column("input", 0), column("cache_read", 1, "read")]
    columns += [column("cache_write", 2, "write"), column("cache_write_1h", 3, "write 1h"), column("cache_write_12h", 4)]
    columns += [column("output", 0), texts("from", 6), texts("retired", 5), texts("confidence", 7), texts("captured", 8)]
    return show.table(columns, shape, color=color)


def _price(rates: Data, name: str) -> str:
    value = rates.get(name)
    return str(rates["input"] if value == price_cards.SAME else value or "")


def text_of_price(record: Data) -> str:
    """One price for people."""
    head = f"{record['asked']}" + (f", billed by {record['provider']}" if "provider" in record else "")
    lines = [f"{head}, at {record['at'][:16].replace('T', ' ')} UTC"]
    if "matched_by" in record:
        lines.append(f"  row         {record['row']}: {record['matched_by']}")
    if "unpriced" in record:
        lines.append(f"  no price    {record['unpriced']}")
        if "nearest_known" in record:
            lines.append(f"  nearest     {record['nearest_known']} (a hint only; it is not used as a price)")
        return "\n".join(lines) + "\n"
    ends = record.get("until", "")[:10] or "further notice"
    lines.append(f"  in force    {record.get('from', '')[:10] or 'from the beginning'} to {ends}")
    lines += _rate_lines("per million", record["rates"], record["rates"])
    for step in record.get("above", ()):
        sign = ">" if step["op"] == "gt" else ">="
        lines += _rate_lines(f"{sign} {step['tokens']:,}", step["rates"], record["rates"])
    for window in record.get("windows", ()):
        lines += _rate_lines(window["name"], window["rates"], record["rates"])
        lines.append(f"              {_hours(window)}")
    for tier, rates in record.get("tiers", {}).items():
        lines += _rate_lines(tier, rates, rates)
    lines += [f"  {name:<11} x {factor}" for name, factor in record.get("geo", {}).items()]
    lines += [f"  {name:<11} {record[name]} per thousand" for name in price_cards.FEES if name in record]
    for source in record["sources"]:
        lines.append(f"  source      {source.get('url', source['id'])}, read {source.get('captured', 'at an unknown time')}")
    lines += [f"  {name:<11} {record[name]}" for name in ("confidence", "retired", "note") if name in record]
    spans = [f"{source.get('from', '')[:10] or 'beginning'}" for source in record.get("intervals", ())]
    return "\n".join([*lines, *([f"  changes     {', '.join(spans)}"] if spans else [])]) + "\n"


def _rate_lines(title: str, rates: Data, base: Data) -> list[str]:
    shown = []
    for name, value in rates.items():
        price_text = (
            "not published (billed as input)" if value is None else "as input" if value == price_cards.SAME else f"${value}"
        )
        shown.append(f"{name} {price_text}")
    return [f"  {title:<11} {', '.join(shown)}"]


def _hours(window: Data) -> str:
    spans = ", ".join(f"{a // 60:02d}:{a % 60:02d}-{b // 60:02d}:{b % 60:02d}" for a, b in window["hours"])
    days = "every day" if len(window["days"]) == 7 else "on days " + ", ".join(map(str, window["days"]))
    free = f", not on {window['except']}" if window["except"] else ""
    return f"{spans} {window['tz']}, {days}{free}"


# So many reasons and changes are shown one by one at a terminal; JSON has all.
MOST_SHOWN = 20
_RESULTS = {
    "installed": "installed, in force from now on",
    "unchanged": "in force already",
    "held": "not installed: look at what follows, then add --force if it is right",
    "refused": "not installed",
    "not_installed": "not installed: --dry-run",
}


def update_text(rows: Sequence[Data]) -> str:
    """What an update of the catalogue did, for people."""
    row, *changed = rows
    lines = [f"{row['catalogue']} {row['serial']} of {row['published'][:10]}: {_RESULTS[row['result']]}"]
    lines.append(f"  confirmed by {row['verified']}")
    lines += _some([f"  {why}" for name in ("refused", "held") for why in row.get(name, ())])
    lines += _some([f"  {change['provider']} {change['model']}: {change['change']}" for change in changed])
    return "\n".join(lines) + "\n"


def _some(lines: list[str]) -> list[str]:
    left = len(lines) - MOST_SHOWN
    return lines if left <= 0 else [*lines[:MOST_SHOWN], f"  and {left:,} more: --json shows all"]


def standing_text(row: Data) -> str:
    """Which catalogue is in force, for people."""
    if row["catalogue"] == "built_in":
        lines = ["the prices that came with TokenOps are in force"]
    else:
        lines = [
            f"{row['catalogue']} {row['serial']} of {row['published'][:10]} is in force since {row['in_force_since'][:10]}"
        ]
        lines.append(f"  from         {row['url']}, confirmed by {row['verified']}")
        lines.append(f"  replaces     {', '.join(row['providers'])}")
    if row["before"]:
        lines.append(f"  before it    {', '.join(entry.replace('built_in', 'built in') for entry in row['before'])}")
    return "\n".join(lines) + "\n"
