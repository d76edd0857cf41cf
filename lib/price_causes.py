"""Explains why another price table differs from ours, by the numbers or by a list of known differences.

An explanation by numbers counts only if one table alone differs from us. If the tables agree with each other, we are
probably wrong, and only an entry of catalog/price_causes.yaml that names both values explains it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import catalog, price_check, price_tables, when
from tokenops.price_check import DIFFERS, MISSING, ONLY_OURS, STEP, Engine, Finding
from tokenops.price_tables import Table

# A vendor's page that was read so recently may be ahead of a table.
_LAG_MS = 45 * when.DAY


class Cause(NamedTuple):
    """One word, a sentence, and the page that shows it ("" for none)."""

    name: str
    why: str
    url: str = ""


def cause_of(finding: Finding, tables: Sequence[Table], entries: Sequence[Mapping[str, Any]]) -> Cause | None:
    """Why a finding differs; None if that is not known."""
    if written := _known_cause(finding, entries):
        return written
    if finding.verdict == ONLY_OURS:
        return _only_ours(finding, tables)
    if not finding.field:
        return _why_unlisted(finding, tables)
    assert finding.lookup is not None
    engine = Engine(finding.lookup)
    if finding.verdict == DIFFERS and _against_us(finding, tables):
        return _ahead(finding)
    return next(filter(None, (explain(finding, engine) for explain in _TOLD)), None)


def known_causes() -> list[Mapping[str, Any]]:
    """The known differences (catalog/price_causes.yaml)."""
    entries: list[Mapping[str, Any]] = catalog.load("price_causes")["known"]
    return entries


def _known_cause(finding: Finding, entries: Sequence[Mapping[str, Any]]) -> Cause | None:
    """The known cause of exactly this difference."""
    for entry in entries:
        if (
            finding.table.source in entry["tables"]
            and entry["provider"] in (finding.provider, "*")
            and _matches(finding.model, entry.get("models", ["*"]))
            and _matches_values(finding, entry)
        ):
            return Cause(entry["cause"], entry["why"], entry["url"])
    return None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _matches_values(finding: Finding, entry: Mapping[str, Any]) -> bool:
    """Whether an entry names these values; an entry for whole models may name modes."""
    fields = entry.get("fields")
    if not fields:
        modes = entry.get("modes")
        return finding.verdict == MISSING and not finding.field and (not modes or (finding.row or {}).get("mode") in modes)
    for pattern, (ours, theirs) in fields.items():
        if finding.field and fnmatch.fnmatchcase(finding.field, pattern) and theirs in ("*", finding.theirs):
            return bool(finding.ours == ours)
    return False


def _against_us(finding: Finding, tables: Sequence[Table]) -> bool:
    """Whether another table has the same price as this one."""
    for other in tables:
        if other.source == finding.table.source or (
            other.source == "litellm" and finding.at[:10] != other.details["captured"]
        ):
            continue
        row = price_tables.find(other, finding.provider, finding.model)
        price = price_tables.rates_at(row, finding.at).get(finding.field) if row else None
        if price is not None and price_check.plain(price) == finding.theirs:
            return True
    return False


# Causes that the numbers of one price show.


def _ahead(finding: Finding, engine: Engine | None = None) -> Cause | None:
    """We know a change that is newer than the table."""
    captured = str(finding.table.details["captured"])
    if finding.at[:10] > captured:
        return Cause("newer", f"it is about {finding.at[:10]}; the table was read on {captured}")
    row = _row_at(finding, finding.at)
    began = str(row.get("from", ""))[:10] if row else ""
    if row is None or not began or when.moment(f"{captured}T00:00:00Z") - when.moment(f"{began}T00:00:00Z") > _LAG_MS:
        return None
    for key in row.get("src", ()):
        source = (finding.lookup.sources if finding.lookup else {}).get(key, {})
        if str(source.get("kind", "")).startswith("vendor") and str(source.get("captured", "")) >= began:
            return Cause(
                "newer", f"the vendor changed it on {began}, as read on {source['captured']}", str(source.get("url", ""))
            )
    return None


def _row_at(finding: Finding, ts: str) -> dict[str, Any] | None:
    rows = finding.lookup.rows if finding.lookup else []
    return next((row for row in rows if row.get("from", "") <= ts < row.get("until", "9")), None)


def _outside(finding: Finding, engine: Engine) -> Cause | None:
    """We have no price for that day."""
    assert finding.lookup is not None
    if finding.field == STEP or _row_at(finding, finding.at) is not None:
        return None
    begins = min(row.get("from", "") for row in finding.lookup.rows)
    if finding.at < begins:
        return Cause("not_yet", f"our record begins on {begins[:10]}; the table does not date its price")
    ends = max(row.get("until", "9") for row in finding.lookup.rows)
    return Cause("retired", f"it could not be called after {ends[:10]}; the table keeps its last price")


def _other_date(finding: Finding, engine: Engine) -> Cause | None:
    """The table's price is our price for another time."""
    if finding.field == STEP:
        return _other_date_of_step(finding, engine)
    for begins, ends, ts in _spans(finding):
        if engine.price(finding.field, ts) == finding.theirs and not begins <= finding.at < ends:
            return Cause("dated", f"that is our price {_span(begins, ends)}; the table does not date it so")
    return None


def _other_date_of_step(finding: Finding, engine: Engine) -> Cause | None:
    """The table's steps are ours for another time."""
    for begins, ends, ts in _spans(finding):
        if price_check.round_steps(engine.steps(ts)) == finding.theirs and not begins <= finding.at < ends:
            return Cause("dated", f"that is our price {_span(begins, ends)}; the table does not date it so")
    return None


def _spans(finding: Finding) -> Iterator[tuple[str, str, str]]:
    """Each interval, and a moment in it."""
    for row in finding.lookup.rows if finding.lookup else ():
        begins, ends = row.get("from", ""), row.get("until", "9")
        yield begins, ends, begins or (when.stamp(when.moment(ends) - 1) if ends != "9" else finding.at)


def _span(begins: str, ends: str) -> str:
    return " ".join(filter(None, (f"from {begins[:10]}" if begins else "", f"until {ends[:10]}" if ends != "9" else "")))


def _time_of_day(finding: Finding, engine: Engine) -> Cause | None:
    """The table's price is ours for another time of the day or week."""
    row = _row_at(finding, finding.at)
    if row is None or not row["tiers"][""]["windows"]:
        return None
    day = when.moment(finding.at[:10] + "T00:00:00Z")
    for hour in range(-7 * 24, 24):
        ts = when.stamp(day + hour * 3_600_000)
        if _row_at(finding, ts) is row and engine.price(finding.field, ts) == finding.theirs:
            return Cause(
                "time_of_day", "that is our price at another time of day; the table's hours, weekdays or holidays differ"
            )
    return None


def _tier(finding: Finding, engine: Engine) -> Cause | None:
    """The table's price is ours for another tier, or for a prompt of another length."""
    tier, _, rest = finding.field.rpartition("/")
    name, _, step = rest.partition(">")
    if tier and engine.price(rest, finding.at) == finding.theirs:
        return Cause("tier", f"that is our standard price; the table does not know the {tier} rate")
    if step and engine.price(f"{tier}/{name}" if tier else name, finding.at) == finding.theirs:
        return Cause("tier", "that is our price of a short prompt; the table has no step there")
    return None


def _unit(finding: Finding, engine: Engine) -> Cause | None:
    if finding.verdict != DIFFERS or finding.field == STEP or not Decimal(finding.ours) or not Decimal(finding.theirs):
        return None
    if power := power_of_ten(Decimal(finding.theirs) / Decimal(finding.ours)):
        return Cause("unit_slip", f"it is off by a factor of 10^{power}")
    return None


def power_of_ten(ratio: Decimal) -> int:
    """The power of ten that a ratio is within 5 % of, if it is one by which units are confused; else 0."""
    for power in (3, 5, 6):
        for exponent in (power, -power):
            if abs(ratio / Decimal(10) ** exponent - 1) <= Decimal("0.05"):
                return exponent
    return 0


def _rounding(finding: Finding, engine: Engine) -> Cause | None:
    if finding.verdict != DIFFERS or finding.field == STEP:
        return None
    ours, theirs = Decimal(finding.ours), Decimal(finding.theirs)
    short = theirs.as_tuple().exponent
    if abs(ours - theirs) * 50 <= ours and isinstance(short, int) and abs(ours - theirs) < Decimal(1).scaleb(short):
        return Cause("rounding", f"it is {finding.ours}, shown with fewer digits")
    return None


_MODALITIES = {"output": ("image_output", "audio_output"), "input": ("image_input", "audio_input")}


def _modality(finding: Finding, engine: Engine) -> Cause | None:
    """The price of images or sound in place of that of text, or the other way round."""
    name = price_check.class_of(finding.field)
    whole = name.partition("_")[2]
    for other in (*_MODALITIES.get(name, ()), *((whole,) if whole in _MODALITIES else ())):
        if engine.price(finding.field.replace(name, other), finding.at) == finding.theirs:
            return Cause("modality", f"that is our price of {other}")
    return None


def _cache_class(finding: Finding, engine: Engine) -> Cause | None:
    """The price of one class of the cache under another's name."""
    name = price_check.class_of(finding.field)
    if not name.startswith("cache_"):
        return None
    for other in ("cache_read", "cache_write", "cache_write_1h", "cache_write_12h"):
        if other != name and engine.price(finding.field.replace(name, other), finding.at) == finding.theirs:
            return Cause("cache_class", f"that is our price of {other}, under the name of another class")
    return None


def _placeholder(finding: Finding, engine: Engine) -> Cause | None:
    if finding.verdict == MISSING and finding.theirs == "0":
        return Cause("placeholder", "a 0 where nothing is billed: the vendor has no such price")
    return None


_TOLD: tuple[Callable[[Finding, Engine], Cause | None], ...] = (
    _ahead,
    _outside,
    _placeholder,
    _other_date,
    _time_of_day,
    _tier,
    _unit,
    _rounding,
    _modality,
    _cache_class,
)


# Whole models.


def _why_unlisted(finding: Finding, tables: Sequence[Table]) -> Cause | None:
    """Why we do not list a model that a table does."""
    row = finding.row or {}
    captured = str(finding.table.details["captured"])
    if row.get("retires", "9") <= captured:
        return Cause("retired", f"retired on {row['retires']}, before anything here was recorded")
    rates = price_tables.rates_at(row, captured)
    if all(Decimal(rates.get(name, "0")) == 0 for name in ("input", "output")):
        return Cause("free", "listed at 0: free, or not sold by the token")
    if not any(
        price_tables.find(other, finding.provider, finding.model) for other in tables if other.source != finding.table.source
    ):
        return Cause("one_source", "only this table lists it; a row needs two sources, or the vendor's own page")
    return None


def _only_ours(finding: Finding, tables: Sequence[Table]) -> Cause | None:
    """Why we have what a table does not; None for a price that no table has though two list the model."""
    if not finding.field:
        return Cause("not_listed", "the table has no such model (tables drop what is retired, and lag behind what is new)")
    others = [(table, price_tables.find(table, finding.provider, finding.model)) for table in tables]
    rows = [(table, row) for table, row in others if table.source != finding.table.source and row is not None]
    if rows and not any(finding.field in price_tables.rates_at(row, finding.at) for _, row in rows):
        return None
    return Cause("not_stated", "the table lists the model without this price" + ("; another states it" if rows else ""))
