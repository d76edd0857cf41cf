"""Prices rows and renders them, with totals and notes, for the reports."""

from __future__ import annotations

import datetime
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal

from tokenops import catalog, events, pricing, rollup, show, when
from tokenops.events import Event

WRITES = ("cache_write_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens")


def select(records: Iterable[Event], since: str, until: str, only: events.Filter = events.EVERY) -> Iterator[Event]:
    """The records that began in a span and that a filter takes. Raises rollup.UsageError for rows, which cannot be cut."""
    if (since, until, only) == ("", "9", events.EVERY):
        yield from records
        return
    fields = [name for name in ("client", "project", "model", *events.OWNER) if getattr(only, name)]
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
    stream, coarse = iter(records), None
    first = next(stream, None)
    if first is not None:
        stream = itertools.chain((first,), stream)
        if first.get("kind") == "row" and not is_regrouped:
            unit = next((name for name in first["by"] if name in when.UNITS), "")
            tz = when.zone(first["tz"]) if unit else grouping.tz
            grouping = grouping._replace(by=tuple(first["by"]), tz=tz)
        elif first.get("kind") != "row":
            grouping, coarse = grouping._replace(by=with_witnesses(grouping.by)), grouping
        if mark is not None and first.get("kind") != "row":
            grouping = grouping._replace(by=(*grouping.by, rollup.COVERED))
            stream = map(mark, stream)
    rolled = rollup.roll_up(stream, grouping, on_bad_record)
    return price_rows(without_witnesses(rolled, coarse) if coarse else rolled, grouping.catalogue)


def with_witnesses(by: tuple[str, ...]) -> tuple[str, ...]:
    """Fields to sum by, and what shows whether a client's version states tags, if there is a tag among them."""
    return tuple(dict.fromkeys((*by, "client", "effort"))) if _TAGS & {*by} else by


def without_witnesses(rolled: list[Event], grouping: rollup.Grouping) -> list[Event]:
    """Rows by `with_witnesses`, summed by less; those without a tag have the turns of versions that would have stated it."""
    tags = _TAGS & {*grouping.by}
    if not tags or not rolled:
        return rolled
    for row in rolled:
        if "effort" in row and _STATED_BY.get(row.get("client", ""), frozenset()) >= tags - row.keys() > frozenset():
            row[rollup.STATING] = row.get("turns", 0)
    by = tuple(name for name in rolled[0]["by"] if name in grouping.by or name == rollup.COVERED)
    return rollup.roll_up(rolled, grouping._replace(by=by), lambda why: None)


_TAGS = frozenset(events.TAGS)
# Client -> what its versions that state an effort state too, if there is such a thing.
_STATED_BY = {"claude-code": _TAGS - {"effort"}, "codex": frozenset(("subagent", "branch"))}
UNMARKED = "unmarked"
TAG_NAMES = {"mcp_server": "MCP server", "mcp_tool": "MCP tool"}


def price_rows(rolled: Iterable[Event], catalogue: pricing.Catalogue) -> list[Event]:
    """One row per group, with its cost and its cache hit ratio."""
    return [_with_credits(_with_ratio(row)) for row in rollup.merge_rows(rolled, catalogue)]


def credits_of(provider: str, usd: str) -> Event:
    """`credits`: an amount in the unit in which its vendor counts, such as GitHub's AI credits; empty if that is dollars."""
    own = catalog.load("providers")["credits"].get(provider)
    if own is None:
        return {}
    return {"credits": pricing.plain(Decimal(usd) * Decimal(own["per_usd"])), "credits_unit": own["unit"]}


def _with_credits(row: Event) -> Event:
    """A row by provider also in the provider's own unit."""
    if "cost_usd" in row and "provider" in row:
        row |= credits_of(row["provider"], row["cost_usd"])
    return row


def _with_ratio(row: Event) -> Event:
    read, prompt = row.get("cache_read_tokens", 0), events.context_size(row)
    if prompt:
        row["cache_hit_ratio"] = round(read / prompt, 4)
    return row


def _cost(row: Event) -> tuple[Decimal, int]:
    return Decimal(row.get("cost_usd", "0")), events.token_sum(row)


def _ratio(row: Event) -> float | None:
    ratio: float | None = row.get("cache_hit_ratio")
    return ratio


def _cache_writes(row: Event) -> int:
    return sum(row.get(name, 0) for name in WRITES)


# What the rows of a report can be ordered by.
ORDERS: show.Orders = {
    "price": _cost,
    "tokens": events.token_sum,
    "turns": lambda row: row.get("turns", 0),
    "input": lambda row: row.get("input_tokens", 0),
    "cache_read": lambda row: row.get("cache_read_tokens", 0),
    "cache_write": _cache_writes,
    "output": lambda row: row.get("output_tokens", 0),
    "cache_hit": _ratio,
    "began": lambda row: when.moment(row["from"]),
    "ended": lambda row: when.moment(row["to"]),
    "name": lambda row: " ".join(label_of(row, name) for name in row["by"]),
}


def is_by_time(rows: Sequence[Event]) -> bool:
    """Whether rows are of hours, days, weeks or months: their table ends with the newest."""
    return any("bucket" in row for row in rows)


def dearest(rows: Sequence[Event]) -> list[Event]:
    """Rows as a table shows them: by time if they have one, and within it the dearest first."""
    return sorted(sorted(rows, key=_cost, reverse=True), key=lambda row: str(row.get("bucket", "")))


def table(
    rows: Sequence[Event],
    shape: str,
    color: bool,
    rest: Sequence[Event] = (),
    tz: datetime.tzinfo | None = None,
) -> str:
    """The rows and their total. `rest`: rows that are only in the sums; `tz`: of the time that sessions began."""
    every = [*rows, *rest]
    extra = [_sum(rest)] if rest else []
    body = [*rows, *extra, *([_sum(every)] if len(every) > 1 else [])]
    labels = [f"and {len(rest):,} more"] * len(extra) + ["total"] * (len(every) > 1)
    columns = [*_group_columns(rows, labels, tz), *_number_columns(body)]
    if rest:
        styles = ["dim" if at == len(rows) else "" for at in range(len(body))]
        columns = [column._replace(styles=styles) for column in columns]
    return show.table(columns, shape, totals=len(every) > 1, color=color)


def _sum(rows: Sequence[Event]) -> Event:
    """The sum of rows, with what of them has no price."""
    unpriced = [item for row in rows for item in row.get("unpriced", ())]
    return total_of(list(rows)) | ({"unpriced": unpriced} if unpriced else {})


def _group_columns(rows: Sequence[Event], labels: Sequence[str], tz: datetime.tzinfo | None) -> Iterator[show.Column]:
    """What the rows are by, with the labels of the sums; sessions are named by a beginning, and described."""
    by = list(rows[0]["by"]) if rows else ["project"]
    names = [*by, *(name for name in ("project", "client") if "session" in by and name not in by)]
    short = show.short_ids(str(row["session_id"]) for row in rows if "session_id" in row) if "session" in by else {}
    for at, name in enumerate(names):
        cells = [label_of(row, name) for row in rows]
        cells = [short.get(cell, cell) for cell in cells] if name == "session" else cells
        sums = labels if at == 0 else [""] * len(labels)
        models = show.short_models(cells) if name == "model" else {}
        shorter = [*(models[cell] for cell in cells), *sums] if models else ()
        yield show.Column(name, [*cells, *sums], False, 0 if name in by else 2 * at, shorter)
        if name == "session":
            zone, now = tz or when.zone(None), max(when.moment(row["to"]) for row in rows)
            began = [when.short_time(when.moment(row["from"]), zone, now) for row in rows]
            yield show.Column("began", [*began, *[""] * len(labels)], False, 3)


def _number_columns(body: Sequence[Event]) -> Iterator[show.Column]:
    yield show.counts("turns", [row.get("turns") for row in body], 4)
    yield show.counts("input", [row.get("input_tokens") for row in body], 6)
    yield show.counts("cache read", [row.get("cache_read_tokens") for row in body], 8, "read")
    yield show.counts("cache write", [_cache_writes(row) for row in body], 7, "write")
    yield show.counts("output", [row.get("output_tokens") for row in body], 5)
    hits = [show.percent(row.get("cache_read_tokens", 0), events.context_size(row)) for row in body]
    yield show.Column("cache hit", hits, rank=3, heading="hit")
    yield show.counts("tokens", [events.token_sum(row) for row in body], 1)
    prices = [row.get("cost_usd") or (None if row.get("unpriced") else "") for row in body]
    yield show.amounts("list price", prices, ["unpriced" in row for row in body], heading="price")
    if any("vendor_sum_usd" in row for row in body):  # beside our own, never added
        yield show.amounts("vendor's sum", [row.get("vendor_sum_usd", "") for row in body], rank=1)
    sources = [row.get("cost_source", "") for row in body]
    if any(source not in ("", "estimated") for source in sources):
        yield show.Column("price from", sources, number=False, rank=9)


def label_of(row: Event, name: str) -> str:
    """What a row is the sum of, in one of its fields."""
    if name in rollup.FIELDS:
        return str(row.get(rollup.FIELDS[name], UNMARKED if name in _TAGS else "unknown"))
    return str(row.get("bucket", ""))


def csv(rows: Sequence[Event]) -> str:
    """Rows as CSV, exact: what they are by first, and every count, 0 too."""
    result = []
    for row in rows:
        first = {name: row.get(name, "") for name in (rollup.FIELDS.get(name, "bucket") for name in row["by"])}
        first |= {name: row.get(name, 0) for name in ("turns", *events.TOKENS)} | {"tokens": events.token_sum(row)}
        first |= {name: row.get(name, "") for name in ("cache_hit_ratio", "cost_usd", "cost_source", "unpriced")}
        result.append(first | {name: value for name, value in row.items() if name not in first})
    return show.records(result, "csv")


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
    for row in rows:
        if "credits" in row:
            yield f"note: {row['provider']}: {show.digits(float(row['credits']))} {row['credits_unit']}"
    for note in dict.fromkeys(note for row in rows for note in row.get("notes", ())):
        yield f"note: {note}"


def tag_notes(rows: Sequence[Event]) -> Iterator[str]:
    """What it means that rows by a tag have none."""
    for tag in [name for name in (rows[0]["by"] if rows else ()) if name in _TAGS]:
        unmarked = [row for row in rows if tag not in row]
        if turns := sum(row.get("turns", 0) for row in unmarked):
            yield _unmarked_note(tag, turns, sum(row.get(rollup.STATING, 0) for row in unmarked))


def _unmarked_note(tag: str, turns: int, stating: int) -> str:
    """What it means that turns have no tag: there was none, or their client does not state any."""
    name = TAG_NAMES.get(tag, tag)
    if not stating:
        return f"note: unmarked: the client, or its version, does not state the {name}"
    if stating == turns:
        return f"note: unmarked turns had no {name}"
    share = show.percent(stating, turns)
    return f"note: {share} of the unmarked turns had no {name}; of the others it is unknown, their client does not state it"


def unpriced_notes(rows: Sequence[Event], each: bool = True) -> Iterator[str]:
    """A sentence for each model without a price, over all rows; else one for all of them."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        for item in row.get("unpriced", ()):
            key = (item.get("provider", "unknown provider"), item.get("model", "unknown"), item["reason"])
            counts = sums.setdefault(key, [0, 0])
            counts[0] += item["turns"]
            counts[1] += item["tokens"]
    if sums and not each:
        turns = sum(turns for turns, _ in sums.values())
        models = ", ".join(dict.fromkeys(model for _, model, _ in sorted(sums)))
        yield f"the sums lack {show.plural(turns, 'turn')} of models without a price: {models}"
        return
    for (provider, model, reason), (turns, tokens) in sorted(sums.items()):
        yield show.safe(f"unpriced: {provider} {model}: {show.plural(turns, 'turn')}, {tokens:,} tokens: {reason}")
