"""What tok-price's check, lint and snapshot say to programs and to people."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tokenops import price_causes, price_check, price_files, price_tables, pricing, show
from tokenops.price_check import DIFFERS, MISSING, ONLY_OURS, Finding
from tokenops.price_files import Fault
from tokenops.price_tables import Data, Table, Unusable


def rows(folder: str, tables: Sequence[Table]) -> tuple[list[Data], list[Data]]:
    """Each finding of a catalogue beside the tables, with its cause; and each table's sums. Raises catalog.Malformed."""
    catalogue = pricing.of_texts(price_files.texts(folder))
    known = price_causes.known()
    found: list[Data] = []
    totals = []
    for table in tables:
        compared = price_check.compared(catalogue, table)
        mine = [row(one, price_causes.of(one, tables, known)) for one in compared.findings]
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


def renewed(source: str, before: Table | None, about: Data, models: dict[str, list[Data]]) -> list[Data]:
    """What a new snapshot changes. Raises Unusable where it cannot be one."""
    head: Data = {"v": 1, "kind": "price_snapshot", "source": source, "package": about["package"]}
    head |= {"version": about["version"], "models": sum(map(len, models.values()))}
    if before is not None:
        was = head["version_before"] = before.about["version"]
        if _numbers(about["version"]) < _numbers(was):
            raise Unusable(f"{about['package']} {about['version']} is older than the snapshot's {was}; the snapshot stays")
    for why in price_tables.faults(models, before):
        raise Unusable(f"{about['package']} {about['version']}: {why}; the snapshot stays as it is")
    return [head, *(_changes(head, before, models) if before else ())]


def _changes(head: Data, before: Table, models: dict[str, list[Data]]) -> Iterator[Data]:
    for provider, model, what in price_tables.changes(before, models):
        yield {"v": 1, "kind": "price_snapshot_change", "source": head["source"], "provider": provider} | {
            "model": model,
            "change": what,
        }


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def renewed_text(rows: Sequence[Data], dry_run: bool) -> str:
    """What a new snapshot changes, for people."""
    lines = []
    for one in rows:
        if one["kind"] == "price_snapshot":
            was = f", was {one['version_before']}" if "version_before" in one else ""
            lines.append(f"{one['package']} {one['version']}{was}: {one['models']:,} models")
        else:
            lines.append(f"  {one['provider']} {one['model']}: {one['change']}")
    return "\n".join([*lines, *(["nothing was written"] if dry_run else [])]) + "\n"
