"""Computes tokens, money and percent of each limit per hour: now, on average, and against the day before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import (
    burn_buckets,
    chart_text,
    costs,
    events,
    limit_log,
    limit_pace,
    limit_windows,
    pricing,
    rollup,
    show,
    store,
    store_summaries,
    when,
)
from tokenops.burn_buckets import DAY_HOURS, HOUR_MS, Bucket, Span, Sums
from tokenops.events import Event
from tokenops.limit_pace import Limit

# A rate per hour from fewer minutes would be a guess.
FEWEST_MINUTES = 15
# Longer than any week that can be reported, and than any month.
WEEK_MS, MONTH_MS = 9 * when.DAY, 35 * when.DAY
WEEK_MINUTES = 10_080
# The fields that say which window a reading is of.
WHICH = ("provider", "account", "window", "scope")


class Query(NamedTuple):
    """What to report: a span, a filter of records, a provider ("": all), and what plans cover (provider -> plan)."""

    span: Span
    only: events.Filter
    provider: str
    covered: Mapping[str, str]

    @property
    def takes(self) -> Callable[[Event], bool] | None:
        """Whether a record counts; None if all do."""
        if self.only == events.EVERY and not self.provider:
            return None
        return lambda record: self.only.takes(record) and self.provider in ("", record.get("provider"))


class Burn(NamedTuple):
    """The report: sums, buckets, limits, and the summary (`total`)."""

    query: Query
    catalogue: pricing.Catalogue
    sums: Sums
    buckets: list[Bucket]
    limits: list[Limit]
    total: Event

    def records(self) -> list[Event]:
        """A record for each bucket."""
        return [record(bucket, number, self.limits) for number, bucket in enumerate(self.buckets)]


def of_log(
    folder: str, query: Query, catalogue: pricing.Catalogue, until: int, on_bad_line: Callable[[str, str], None]
) -> Burn:
    """The report on the log, which is complete until a moment. Raises OSError."""
    grouping = rollup.Grouping((query.span.unit,), query.span.tz, catalogue)
    since, now = query.span.log_since, query.span.now
    days = store.days(folder)
    records = store_summaries.records(folder, grouping, now, since, when.stamp(now), on_bad_line)
    sums = burn_buckets.sums_of(records, query.span, catalogue, query.takes, lambda why: on_bad_line(folder, why))
    complete_since = 0 if days and days[0] < since[:10] else when.moment(sums.first) if sums.first else now
    return _burn(query, catalogue, sums, (complete_since, until), _readings(folder, now))


def _readings(folder: str, now: int) -> list[limit_windows.Reading]:
    """The latest readings of each window: of nine days, or of 35 if a window is longer than a week."""
    memory = limit_log.memory()
    readings = limit_log.readings(folder, now - WEEK_MS, now, memory)
    if any(reading.minutes > WEEK_MINUTES for reading in readings):
        return limit_log.readings(folder, now - MONTH_MS, now, memory)
    return readings


def of_stream(
    records: Iterable[Event], query: Query, catalogue: pricing.Catalogue, on_bad_record: Callable[[str], None]
) -> Burn:
    """The report on some events; before the first of them all is unknown. Raises rollup.UsageError for rows."""
    sums = burn_buckets.sums_of(_events(records), query.span, catalogue, query.takes, on_bad_record)
    complete_since = when.moment(sums.first) if sums.first else query.span.now
    return _burn(query, catalogue, sums, (complete_since, query.span.now), limit_windows.readings_of(sums.meters))


def _events(records: Iterable[Event]) -> Iterator[Event]:
    for record in records:
        if record.get("kind") == "row":
            raise rollup.UsageError("rows have no time of day; give tok-burn events, as tok-read and tok-cat write them")
        yield record


def _burn(
    query: Query,
    catalogue: pricing.Catalogue,
    sums: Sums,
    complete: tuple[int, int],
    readings: Sequence[limit_windows.Reading],
) -> Burn:
    buckets = burn_buckets.buckets(query.span, sums, catalogue, complete)
    limits = limit_pace.limits(readings, query.span.edges, query.span.now, query.provider, query.only.model or "")
    total = summary(query, sums, buckets, catalogue, complete[0])
    total["windows"] = [limit.state for limit in limits]
    return Burn(query, catalogue, sums, buckets, limits, total)


def tokens(spent: Event | None) -> int | None:
    """All tokens of a bucket."""
    return None if spent is None else events.token_sum(spent)


def record(bucket: Bucket, number: int, limits: Sequence[Limit]) -> Event:
    """A bucket as a record for programs: 0 is written out, null is unknown. A limit without a reading is left out."""
    row: Event = {"v": 1, "kind": "burn", "ts": when.stamp(bucket.start), "until": when.stamp(bucket.end)}
    if bucket.partial:
        row["partial"] = True
    read = [limit for limit in limits if number in limit.rises]
    if read:
        row["windows"] = [
            {name: limit.state[name] for name in WHICH if name in limit.state} | {"used_rise": limit.rises[number]}
            for limit in read
        ]
    if bucket.spent is None:
        return row | {"turns": None, "tokens": None, "cost_usd": None}
    row |= {"turns": bucket.spent.get("turns", 0), "tokens": tokens(bucket.spent)}
    row |= {name: bucket.spent.get(name, 0) for name in events.TOKENS}
    row["cost_usd"] = bucket.spent.get("cost_usd")
    return row | {name: bucket.spent[name] for name in ("cost_source", "unpriced") if name in bucket.spent}


def summary(query: Query, sums: Sums, buckets: Sequence[Bucket], catalogue: pricing.Catalogue, complete_since: int) -> Event:
    """The sums of the span, the rate now and on average, and how the last day compares with the one before."""
    span = query.span
    spent = [bucket.spent for bucket in buckets if bucket.spent is not None]
    total = costs.total_of(spent) if spent else {}
    row: Event = {"v": 1, "kind": "burn_summary", "from": when.stamp(span.edges[0]), "to": when.stamp(span.now)}
    row |= {"tz": when.zone_name(span.tz), "by": span.by, "turns": total.get("turns", 0) if spent else None}
    row |= {"tokens": events.token_sum(total) if spent else None}
    row |= {name: total.get(name, 0) for name in events.TOKENS if spent}
    row["cost_usd"] = total.get("cost_usd")
    row["now"] = _now(span, sums, catalogue, complete_since)
    row["mean_active"] = _mean(span, sums, buckets)
    row["trend"] = _trend(span, sums, complete_since)
    row["cost_basis"] = basis([unit for unit in sums.rows if burn_buckets.number(unit, span) >= 0], query.covered)
    row["sparkline"] = chart_text.sparkline(tokens(bucket.spent) for bucket in buckets)
    if sums.totals:
        row["session_totals"] = _totals(sums.totals, catalogue)
    return row


def _now(span: Span, sums: Sums, catalogue: pricing.Catalogue, complete_since: int) -> Event | None:
    """The rate of the last hour, or since the log begins if that is later."""
    return rate(sums.recent, catalogue, min((span.now - complete_since) // 60_000, 60))


def rate(recent: Sequence[Event], catalogue: pricing.Catalogue, minutes: int) -> Event | None:
    """Tokens and money per hour, from the rows of the last `minutes`; None if those are too few."""
    if minutes < FEWEST_MINUTES:
        return None
    total = costs.total_of(costs.price_rows(recent, catalogue))
    return {"minutes": minutes, "turns": total.get("turns", 0)} | _per_hour(
        events.token_sum(total), _money(total, bool(recent)), Decimal(minutes) / 60
    )


def _mean(span: Span, sums: Sums, buckets: Sequence[Bucket]) -> Event | None:
    """The mean of the hours that had turns, in complete buckets."""
    whole = [bucket for bucket in buckets if bucket.spent is not None and not bucket.partial]
    spans = [(bucket.start, bucket.end) for bucket in whole]
    hours = {at // HOUR_MS for at in _active(span, sums) if any(start <= at < end for start, end in spans)}
    if not hours:
        return None
    total = costs.total_of([bucket.spent for bucket in whole if bucket.spent])
    return {"active_hours": len(hours)} | _per_hour(events.token_sum(total), _money(total, True), Decimal(len(hours)))


def _active(span: Span, sums: Sums) -> Iterator[int]:
    return (burn_buckets.moment(row, span) for row in sums.rows if row.get("turns"))


def _money(total: Event, spent: bool) -> Decimal | None:
    """What was spent, None if it has no price."""
    return Decimal(total["cost_usd"]) if "cost_usd" in total else None if spent else Decimal(0)


def _per_hour(count: int, money: Decimal | None, hours: Decimal) -> Event:
    rate = None if money is None else pricing.plain((money / hours).quantize(Decimal("0.000001")))
    return {"tokens_per_hour": round(count / hours), "cost_usd_per_hour": rate}


def _trend(span: Span, sums: Sums, complete_since: int) -> Event | None:
    """The tokens of the last 24 whole hours over those of the 24 before; None if those are unknown, or 0."""
    end = span.hour
    middle, start = end - DAY_HOURS * HOUR_MS, end - 2 * DAY_HOURS * HOUR_MS
    if complete_since > start:
        return None
    halves = [0, 0]
    for row in sums.rows:
        at = burn_buckets.moment(row, span)
        if start <= at < end:
            halves[at >= middle] += events.token_sum(row)
    before, after = halves
    return {"ratio": round(after / before, 4), "tokens": after, "tokens_before": before} if before else None


def _totals(totals: list[Event], catalogue: pricing.Catalogue) -> Event:
    """What sessions reported as a whole, or beyond their turns. It has no hour, so it is in no bucket."""
    grouping = rollup.Grouping((), when.UTC, catalogue)
    total = costs.total_of(costs.price_rows(rollup.roll_up(totals, grouping, lambda why: None), catalogue))
    row: dict[str, Any] = {"sessions": len({event.get("session_id") for event in totals}), "tokens": events.token_sum(total)}
    if beyond := total.get(rollup.BEYOND):
        row |= {rollup.BEYOND: beyond}
    return row | {"cost_usd": total.get("cost_usd"), "note": _UNKNOWN_HOURS + (_NO_LINE.format(beyond) if beyond else "")}


_UNKNOWN_HOURS = "their hours are unknown, so they are in no bucket"
_NO_LINE = "; {:,} of these tokens are of requests that leave no line in a log, such as compaction"


def basis(rows: Sequence[Event], covered: Mapping[str, str]) -> str:
    """What the amounts mean: usage that a plan covers is shown at what the API would have charged."""
    providers = {str(row.get("provider")) for row in rows}
    return "list price (API-equivalent)" if providers & covered.keys() else "list price"


def table(burn: Burn, shape: str, color: bool) -> str:
    """Buckets for people: those with use."""
    limits, span, now = burn.limits, burn.query.span, when.moment(burn.total["to"])
    shown = [
        (at, row) for at, row in enumerate(burn.records()) if row["tokens"] or any(limit.rises.get(at) for limit in limits)
    ]

    def counts(title: str, rank: int, *names: str, heading: str = "") -> show.Column:
        sums = [None if row["tokens"] is None else sum(row[name] for name in names) for _, row in shown]
        return show.counts(title, sums, rank, heading)

    if not shown:
        return ""
    marks = [when.short_time(when.moment(row["ts"]), span.tz, now) + " *" * bool(row.get("partial")) for _, row in shown]
    columns = [
        show.Column("from", marks, False, 0),
        counts("turns", 5, "turns"),
        counts("input", 7, "input_tokens"),
        counts("cache read", 9, "cache_read_tokens", heading="read"),
        counts("cache write", 8, *costs.WRITES, heading="write"),
        counts("output", 6, "output_tokens"),
        counts("tokens", 1, "tokens"),
        show.amounts("list price", *_prices([row for _, row in shown]), heading="price"),
    ]
    for limit in limits:
        rises = [limit.rises.get(at) for at, _ in shown]
        cells = ["" if rise is None else f"+{chart_text.percent(rise)}" for rise in rises]
        columns.append(show.Column(_name(limit.state), cells, True, 2, heading=when.window_text(limit.state["window"])))
    return show.table(columns, shape, color=color)


def _prices(rows: Sequence[Event]) -> tuple[list[str | None], list[bool]]:
    """The price of each bucket, and whether some of it has none."""
    prices = [row["cost_usd"] or (None if row.get("unpriced") else "") if row["tokens"] else "" for row in rows]
    return prices, ["unpriced" in row for row in rows]


def notes(burn: Burn) -> Iterator[str]:
    """What the table cannot show, one line each."""
    total, limits = burn.total, burn.limits
    yield f"tokens  {total['sparkline']}  {amount(total['tokens'])} in all{dollars(total['cost_usd'])}"
    if now := total["now"]:
        yield f"now     {rate_text(now)} (last {now['minutes']} minutes)"
    if mean := total["mean_active"]:
        yield f"mean    {rate_text(mean)} in {show.plural(mean['active_hours'], 'active hour')}"
    if trend := total["trend"]:
        yield f"trend   {trend['ratio']:.2f} times the 24 hours before"
    for limit in limits:
        yield f"limit   {_name(limit.state)}: {_limit(limit.state)}"
    if "session_totals" in total:
        more = total["session_totals"]
        what = f"{amount(more['tokens'])} tokens{dollars(more['cost_usd'])} of {show.plural(more['sessions'], 'session')}"
        yield f"also {what}: {more['note']}"
    if unknown := sum(bucket.spent is None for bucket in burn.buckets):
        yield f"{unknown} of {len(burn.buckets)} are unknown: the log has no data for them"
    yield f"prices: {total['cost_basis']}"


def remarks(burn: Burn, verbose: bool) -> Iterator[str]:
    """How far the numbers can be trusted, the most important first."""
    yield from (f"+ {note}" for note in unpriced_notes(burn, verbose))
    if any(bucket.partial for bucket in burn.buckets):
        yield "* incomplete: not over yet, or the log begins or ends in it"
    if any("at_this_pace" in limit.state for limit in burn.limits):
        yield f"at this pace: {limit_pace.STRAIGHT}"


def _name(state: Event) -> str:
    """A limit for people."""
    return f"{state['provider']} {when.window_text(state['window'], state.get('scope', ''))}"


def unpriced_notes(burn: Burn, each: bool) -> Iterator[str]:
    """A sentence for each model without a price, or one for all."""
    return costs.unpriced_notes([bucket.spent for bucket in burn.buckets if bucket.spent is not None], each)


def _limit(state: Event) -> str:
    """A window's state for people."""
    parts = ["reset since it was last read" if state.get("used") is None else f"{chart_text.percent(state['used'])} used"]
    if state.get("used_per_hour") is not None:
        parts.append(f"{chart_text.percent(state['used_per_hour'])} an hour lately")
    straight = state.get("at_this_pace")
    if straight:
        out = (
            f"it runs out in {straight['runs_out_in']}" if straight["runs_out_before_reset"] else "it lasts until the reset"
        )
        parts.append(f"at this pace {out}")
    if "resets_in" in state and state.get("used") is not None:
        parts.append(f"resets in {state['resets_in']}")
    return ", ".join(parts)


def amount(count: int | None) -> str:
    """A count for people."""
    return "unknown" if count is None else f"{count:,}"


def dollars(cost: str | None) -> str:
    """The cost after a comma; "" if it is unknown."""
    return f", {show.money(cost)}" if cost is not None else ""


def rate_text(rate: Event) -> str:
    """A rate for people."""
    cost = rate["cost_usd_per_hour"]
    return f"{rate['tokens_per_hour']:,} tokens an hour" + (f", {show.money(cost)} an hour" if cost is not None else "")
