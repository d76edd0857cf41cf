"""Prices rows and renders them, with totals and notes, for the reports."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import BinaryIO

from tokenops import events, jsonl, pricing, rollup, show, when
from tokenops.events import Event

WRITES = ("cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")


def select(records: Iterable[Event], since: str, until: str, only: events.Filter = events.EVERY) -> Iterator[Event]:
    """The records that began in a span and that a filter takes. Raises rollup.UsageError for rows, which cannot be cut."""
    if (since, until, only) == ("", "9", events.EVERY):
        yield from records
        return
    fields = [name for name in ("client", "project", "model") if getattr(only, name)]
    for record in records:
        if record.get("kind") == "row":
            if since or until != "9":
                raise rollup.UsageError("--since and --until cut events, not rows; give them to tok-read or tok-cat")
            if missing := [name for name in fields if name not in (*record["by"], "model")]:
                raise rollup.UsageError(f"these rows are not by {missing[0]}; give --{missing[0]} to tok-read or tok-cat")
        elif not since <= str(record.get("ts", "")) < until:
            continue
        if only.takes(record):
            yield record


def rows(
    records: Iterable[Event],
    grouping: rollup.Grouping,
    is_regrouped: bool,
    on_bad_record: Callable[[str], None],
    mark: Callable[[Event], Event] | None = None,
) -> list[Event]:
    """One row per group with its cost. Rows keep their own groups unless `is_regrouped`. Raises rollup.UsageError.

    `mark` adds what covers an event. A stream that begins with a row is not marked, since other logs' rows do not name it.
    """
    stream = iter(records)
    first = next(stream, None)
    if first is not None:
        stream = itertools.chain((first,), stream)
        if first.get("kind") == "row" and not is_regrouped:
            unit = next((name for name in first["by"] if name in when.UNITS), "")
            tz = when.zone(first["tz"]) if unit else grouping.tz
            grouping = grouping._replace(by=tuple(first["by"]), tz=tz)
        if mark is not None and first.get("kind") != "row":
            grouping = grouping._replace(by=(*grouping.by, rollup.COVERED))
            stream = map(mark, stream)
    return price_rows(rollup.roll_up(stream, grouping, on_bad_record), grouping.catalogue)


def price_rows(rolled: Iterable[Event], catalogue: pricing.Catalogue) -> list[Event]:
    """One row per group, with its cost and its cache hit ratio."""
    return [_with_ratio(row) for row in rollup.merge_rows(rolled, catalogue)]


def _with_ratio(row: Event) -> Event:
    read, prompt = row.get("cache_read_tokens", 0), events.context_size(row)
    if prompt:
        row["cache_hit_ratio"] = round(read / prompt, 4)
    return row


def write(rows: Iterable[Event], out: BinaryIO) -> None:
    """JSON Lines."""
    jsonl.write(rows, out)


def table(rows: list[Event], shape: str, color: bool) -> str:
    """The rows and their total, for people. Markdown and terminal tables end with a total, CSV does not."""
    by = rows[0]["by"] if rows else ["project"]
    total = total_of(rows)
    body = rows if shape == "csv" or len(rows) < 2 else [*rows, total]
    groups = [show.Column(name, [_group(row, name, total) for row in body], number=False) for name in by]
    plain = shape == "csv"

    def tokens(title: str, *names: str) -> show.Column:
        sums = [sum(row.get(name, 0) for name in names) for row in body]
        return show.Column(title, [str(value) if plain else show.count(value) for value in sums])

    columns = [
        *groups,
        tokens("turns", "turns"),
        tokens("input", "input_tokens"),
        tokens("cache read", "cache_read_tokens"),
        tokens("cache write", *WRITES),
        tokens("output", "output_tokens"),
        show.Column("cache hit", [show.percent(row.get("cache_read_tokens", 0), events.context_size(row)) for row in body]),
        show.Column("list price", [row.get("cost_usd", "") if plain else show.money(row.get("cost_usd")) for row in body]),
    ]
    if any("vendor_sum_usd" in row for row in body):  # beside our own, never added
        columns.append(_vendor_sums(body, plain))
    sources = [row.get("cost_source", "") for row in body]
    if any(source not in ("", "estimated") for source in sources):
        columns.append(show.Column("price from", sources, number=False))
    return show.table(columns, shape, totals=len(body) > len(rows), color=color)


def _vendor_sums(rows: Sequence[Event], plain: bool) -> show.Column:
    amounts = [row.get("vendor_sum_usd", "") for row in rows]
    return show.Column("vendor's sum", amounts if plain else [show.money(usd or None) for usd in amounts])


def _group(row: Event, name: str, total: Event) -> str:
    if row is total:
        return "total" if name == total["by"][0] else ""
    if name in rollup.FIELDS:
        return str(row.get(rollup.FIELDS[name], "unknown"))
    return str(row.get("bucket", ""))


def total_of(rows: list[Event]) -> Event:
    """The sum of all rows."""
    total: Event = {"kind": "total", "by": rows[0]["by"] if rows else []}
    money = pricing.ZERO
    for row in rows:
        for field in rollup.SUMS:
            if field in row:
                total[field] = total.get(field, 0) + row[field]
        if "cost_usd" in row:
            money = pricing.add(money, Decimal(row["cost_usd"]))
            total["cost_usd"] = pricing.plain(money)
    return total | _worth(rows)


# Amounts shown beside the cost. What plans covered and what was metered is shown only if all rows state it.
_BESIDE = ("cache_saved_usd", "plan_covered_usd", "metered_usd")


def _worth(rows: Sequence[Event]) -> Event:
    """What plans covered and caches saved in all rows, and the day on which the oldest of their prices was read."""
    worth: Event = {}
    for name in _BESIDE:
        amounts = [Decimal(row[name]) for row in rows if name in row]
        if amounts and (name == "cache_saved_usd" or all(name in row for row in rows if "cost_usd" in row)):
            worth[name] = pricing.plain(functools.reduce(pricing.add, amounts, pricing.ZERO))
    covered: dict[str, Decimal] = {}
    for row in rows:
        for plan, usd in row.get("covered_by", {}).items():
            covered[plan] = pricing.add(covered.get(plan, pricing.ZERO), Decimal(usd))
    if covered and "plan_covered_usd" in worth:
        worth["covered_by"] = {plan: pricing.plain(usd) for plan, usd in sorted(covered.items())}
    read = min((row["prices_read"] for row in rows if "prices_read" in row), default="")
    return worth | ({"prices_read": read} if read else {})


def notes(rows: list[Event]) -> Iterator[str]:
    """Remarks about the sums and the prices, each once."""
    if beyond := sum(row.get(rollup.BEYOND, 0) for row in rows):
        yield f"note: {beyond:,} tokens are from clients' own sums: requests that leave no line in a log, such as compaction"
    for note in dict.fromkeys(note for row in rows for note in row.get("notes", ())):
        yield f"note: {note}"


def unpriced_notes(rows: list[Event]) -> Iterator[str]:
    """A sentence for each model without a price, over all rows."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        for item in row.get("unpriced", ()):
            key = (item.get("provider", "unknown provider"), item.get("model", "unknown"), item["reason"])
            counts = sums.setdefault(key, [0, 0])
            counts[0] += item["turns"]
            counts[1] += item["tokens"]
    for (provider, model, reason), (turns, tokens) in sorted(sums.items()):
        yield show.safe(f"unpriced: {provider} {model}: {turns:,} turns, {tokens:,} tokens: {reason}")
