"""Compares a vendor's reports of usage and cost with our log, per UTC day and model.

A third amount, the vendor's counts at our prices, splits the difference: from our amount to it only the counts differ,
from it to the vendor's amount only the prices. Usage that a plan covers is left out, as in vendors' reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from tokenops import coverage, events, pricing, reconcile_pairs, when
from tokenops.events import Event
from tokenops.reconcile_pairs import Books, Cause, Pair, Query

# Vendors bill in cents and report fractions of them.
_CENT = Decimal("0.01")
# A day's report may still grow for so long after its end.
_SETTLES_MS = 6 * 3_600_000


class Side(NamedTuple):
    """One day and model: our turns, those that a plan covers, and what the vendor reports."""

    turns: list[Event]
    covered: list[Event]
    usage: list[Event]
    costs: list[Event]


Sides = dict[tuple[str, str, str], Side]  # source, day, model


def of_reports(books: Books, query: Query) -> Iterator[Pair]:
    """A comparison for each day and model of a vendor that reports."""
    reporting = {str(report["source"]) for report in books.reports}
    for source in sorted(reporting):
        sides = _sides(books, query, source)
        parts = {key: _counts_part(side, query) for key, side in sides.items()}
        for key in sorted(sides):
            if sides[key].usage or sides[key].costs:
                yield _pair(key, sides, parts, books, query)


def _sides(books: Books, query: Query, source: str) -> Sides:
    provider = reconcile_pairs.vendors()[source]
    sides: Sides = {}
    named = {
        _day(report)
        for report in books.reports
        if report["source"] == source and "cost_usd" in report and not report.get("model")
    }

    def side(day: str, model: str) -> Side:
        return sides.setdefault((source, day, "" if day in named else model), Side([], [], [], []))

    for report in _widest(
        report for report in books.reports if report["source"] == source and query.since <= report["ts"] < query.until
    ):
        target = side(_day(report), _model(report, provider, query.catalogue))
        (target.costs if "cost_usd" in report else target.usage).append(report)
    days = {day for _, day, _ in sides}
    # A report of one client's use has what plans cover, too.
    client = next(
        (str(report["client"]) for report in books.reports if report["source"] == source and "client" in report), ""
    )
    for turn in books.own:
        if client and turn.get("client") != client:
            continue
        if turn.get("provider") == provider and turn["ts"][:10] in days and query.since <= turn["ts"] < query.until:
            target = side(turn["ts"][:10], _model(turn, provider, query.catalogue))
            (target.turns if client or not _is_covered(turn, query) else target.covered).append(turn)
    return sides


def _day(event: Event) -> str:
    return str(event["ts"])[:10]


def _widest(reports: Iterable[Event]) -> Iterator[Event]:
    """The reports of each day in the bucket width with most data: a day that was reported in two widths counts once."""
    widths: dict[str, dict[str, list[Event]]] = {}
    for report in reports:
        if "cost_usd" in report:
            yield report
        else:
            widths.setdefault(_day(report), {}).setdefault(str(report.get("bucket")), []).append(report)
    for by_width in widths.values():
        yield from max(by_width.values(), key=lambda rows: (sum(map(events.token_sum, rows)), len(rows)))


def _model(event: Event, provider: str, catalogue: pricing.Catalogue) -> str:
    """A model under the name that both sides share: that of the catalogue, if it has one."""
    name = str(event.get("model", ""))
    match = catalogue.find(provider, name) if name else None
    return match.name.partition("/")[2] if isinstance(match, pricing.Lookup) else name


def _is_covered(turn: Event, query: Query) -> bool:
    if query.cover is not None:
        return query.cover.plan_of(turn, turn["ts"]) != coverage.METERED
    return turn.get("credential") == coverage.LOGIN


class Part(NamedTuple):
    """The cost of our turns, how many of them have no price, and the vendor's counts at our prices (None: unknown)."""

    ours: Decimal
    missing: int
    at_ours: Decimal | None


def _counts_part(side: Side, query: Query) -> Part:
    ours, missing = reconcile_pairs.total(side.turns, query.catalogue)
    priced, unpriced = reconcile_pairs.total(side.usage, query.catalogue)
    return Part(ours, missing, priced if side.usage and not unpriced else None)


def _pair(
    key: tuple[str, str, str], sides: Sides, parts: Mapping[tuple[str, str, str], Part], books: Books, query: Query
) -> Pair:
    source, day, model = key
    side, part = sides[key], parts[key]
    stated = sum((Decimal(report["cost_usd"]) for report in side.costs), pricing.ZERO) if side.costs else None
    theirs = part.at_ours if stated is None else stated
    causes: list[Cause] = []
    if part.at_ours is not None:
        causes += _counts(key, sides, parts, books, query)
        if stated is not None:
            causes += _prices(side, part.at_ours, stated, query)
    elif theirs is None:
        causes.append(Cause("unpriced", pricing.ZERO, "the vendor counts usage of a model that has no price here"))
    elif difference := theirs - part.ours:
        causes += _unknown(side, part, difference)
    labels = {"provider": reconcile_pairs.vendors()[source], "model": model}
    counts = {f"ours_{name}": value for name, value in _tokens(side.turns).items()}
    counts |= {f"theirs_{name}": value for name, value in _tokens(side.usage).items()}
    priced = len(side.turns) > part.missing or not side.turns
    return Pair(
        source,
        day,
        "UTC",
        labels,
        part.ours if priced else None,
        theirs,
        tuple(causes),
        counts,
        "our prices" if stated is None else "reported",
    )


def _tokens(rows: Iterable[Event]) -> dict[str, int]:
    rows = list(rows)
    return {"tokens": sum(map(events.token_sum, rows))} if rows else {}


def _unknown(side: Side, part: Part, difference: Decimal) -> Iterator[Cause]:
    """The cause if the vendor's amount is known, but its counts are not or have no price here."""
    if part.missing:
        yield Cause("unpriced", difference, f"{part.missing} of our turns have no price")
    elif side.usage:
        yield Cause("unpriced", difference, "the vendor counts usage of a model that has no price here")
    elif abs(difference) <= _CENT:
        yield Cause("rounding", difference, "less than a cent")
    elif not side.turns and not side.covered:
        reason = "the log has no turn of this day and model: another machine or key"
        yield Cause("other_machine", difference, reason, certain=False)


def _prices(side: Side, at_ours: Decimal, stated: Decimal, query: Query) -> Iterator[Cause]:
    """From the vendor's counts at our prices to the vendor's amount."""
    difference = stated - at_ours
    if not difference:
        return
    if abs(difference) <= _CENT:
        yield Cause("rounding", difference, "less than a cent")
        return
    dearer, _ = reconcile_pairs.total(_long(side.usage), query.catalogue)
    if any(query.catalogue.card(report).sized for report in side.usage) and at_ours < stated <= dearer:
        reason = "a report does not say how long each prompt was: its counts are priced at the base rate"
        yield Cause("aggregate_only", difference, reason, certain=False)
        return
    plain, _ = reconcile_pairs.total(({**report, "tier": "", "geo": ""} for report in side.usage), query.catalogue)
    if abs(plain - stated) <= _CENT:
        yield Cause("tier", difference, "the vendor's amount is that of the standard tier")
    elif difference < 0:
        yield Cause(
            "discount", difference, "the vendor bills less than its list price: credits or a contract", certain=False
        )


def _long(usage: Iterable[Event]) -> Iterator[Event]:
    """Aggregates as if each were one prompt, which gives the highest possible cost."""
    return ({**report, "kind": "turn"} for report in usage)


def _counts(
    key: tuple[str, str, str], sides: Sides, parts: Mapping[tuple[str, str, str], Part], books: Books, query: Query
) -> Iterator[Cause]:
    """From our amount to the vendor's counts at our prices."""
    side, part = sides[key], parts[key]
    assert part.at_ours is not None
    difference = part.at_ours - part.ours
    if not difference:
        return
    if part.missing:
        yield Cause("unpriced", difference, f"{part.missing} of our turns have no price")
    elif reconcile_pairs.same(part.ours, part.at_ours):
        yield Cause("rounding", difference, "floating-point noise in a sum")
    elif _same_tokens(side):
        name = (
            "aggregate_only"
            if all(turn.get("tier") == report.get("tier") for turn in side.turns for report in side.usage)
            else "tier"
        )
        reasons = {
            "tier": "the same counts, which the vendor says it served in another tier",
            "aggregate_only": "the same counts; a report does not say how long each prompt was, nor at what hour",
        }
        yield Cause(name, difference, reasons[name])
    elif plan := _plan(side, difference, query):
        yield plan
    elif neighbour := _neighbour(key, parts, difference):
        yield Cause(
            "zone",
            difference,
            f"{neighbour} differs by about the same amount in the other direction: requests near midnight UTC",
        )
    else:
        yield _elsewhere(key[1], side, difference, books)


def _same_tokens(side: Side) -> bool:
    """Whether both sides have the same counts, class by class."""
    return all(
        sum(turn.get(name, 0) for turn in side.turns) == sum(turn.get(name, 0) for turn in side.usage)
        for name in events.TOKENS
    )


def _plan(side: Side, difference: Decimal, query: Query) -> Cause | None:
    """The cause if the vendor bills turns that we take for a plan's."""
    covered, _ = reconcile_pairs.total(side.covered, query.catalogue)
    if covered and reconcile_pairs.same(covered, difference):
        return Cause("plan", difference, "the vendor billed turns that your plan would cover: they used an API key")
    return None


def _neighbour(key: tuple[str, str, str], parts: Mapping[tuple[str, str, str], Part], difference: Decimal) -> str:
    """The day before or after, if the vendor's counts differ there by the same amount in the other direction; else ""."""
    source, day, model = key
    for step in (-1, 1):
        other = when.stamp(when.moment(f"{day}T00:00:00Z") + step * when.DAY)[:10]
        part = parts.get((source, other, model))
        if part and part.at_ours is not None and reconcile_pairs.same(part.at_ours - part.ours, -difference):
            return other
    return ""


def _elsewhere(day: str, side: Side, difference: Decimal, books: Books) -> Cause:
    """The cause if one side has requests that the other lacks."""
    seen = max((str(report.get("observed_at", "")) for report in side.usage), default="")
    ends = max((str(report.get("until", "")) for report in side.usage), default="")
    if difference < 0:
        if seen and ends and when.moment(seen) < when.moment(ends) + _SETTLES_MS:
            return Cause(
                "open", difference, f"the report was read at {seen[:16]}, before the day was settled", certain=False
            )
        return Cause("other_account", difference, "turns of another account, or of a plan that is not set", certain=False)
    if books.first[:10] > day:
        return Cause(
            "deleted_log", difference, f"the log begins on {books.first[:10]}: earlier turns were deleted or never read"
        )
    if any(turn.get("usage") in ("unknown", "partial") for turn in side.turns):
        return Cause("unknown_usage", difference, "some of our turns have unknown counts", certain=False)
    return Cause(
        "other_machine", difference, "requests that this log does not hold: another machine, key or client", certain=False
    )
