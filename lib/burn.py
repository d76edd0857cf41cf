"""Tokens, money and percent of each limit per hour: now, on average, and beside the day before, with tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import (
    burn_buckets,
    chart_text,
    costs,
    events,
    limit_meters,
    limit_pace,
    limit_windows,
    pricing,
    rollup,
    show,
    store,
    store_summaries,
    when,
)
from tokenops.burn_buckets import DAY_HOURS, HOUR_MS, Bucket, Span, Taken
from tokenops.events import Event
from tokenops.limit_pace import Limit

# With less than this behind it a rate per hour is a guess.
FEWEST_MINUTES = 15
# Longer than any week that is asked for, and than any month.
WEEK_MS, MONTH_MS = 9 * when.DAY, 35 * when.DAY
WEEK_MINUTES = 10_080
# Which window a reading is of.
WHICH = ("provider", "account", "window", "scope")


class Ask(NamedTuple):
    """The span, the records that are wanted, and what plans cover (provider -> plan)."""

    span: Span
    wanted: events.Filter
    provider: str
    covered: Mapping[str, str]

    @property
    def takes(self) -> Callable[[Event], bool] | None:
        """Whether a record is wanted; None where all are."""
        if self.wanted == events.EVERY and not self.provider:
            return None
        return lambda record: self.wanted.takes(record) and self.provider in ("", record.get("provider"))


class Burn(NamedTuple):
    """All that was found."""

    ask: Ask
    catalogue: pricing.Catalogue
    found: Taken
    buckets: list[Bucket]
    limits: list[Limit]
    total: Event

    def records(self) -> list[Event]:
        """A record for each bucket."""
        return [record(one, number, self.limits) for number, one in enumerate(self.buckets)]


def of_log(folder: str, ask: Ask, catalogue: pricing.Catalogue, until: int, refuse: Callable[[str, str], None]) -> Burn:
    """What the log says, which knows all until a moment. Raises OSError."""
    plan = rollup.Plan((ask.span.unit,), ask.span.tz, catalogue)
    since, now = ask.span.since, ask.span.now
    days = store.days(folder)
    records = store_summaries.records(folder, plan, now, since, when.stamp(now), refuse)
    found = burn_buckets.taken(records, ask.span, catalogue, ask.takes, lambda why: refuse(folder, why))
    known = 0 if days and days[0].name < since[:10] else when.moment(found.first) if found.first else now
    return _burn(ask, catalogue, found, (known, until), _readings(folder, now))


def _readings(folder: str, now: int) -> list[limit_windows.Seen]:
    """All readings of the windows that were read lately; only those of a month make it worth reading one."""
    found = limit_meters.readings(folder, now - WEEK_MS, now)
    if any(one.minutes > WEEK_MINUTES for one in found):
        return limit_meters.readings(folder, now - MONTH_MS, now)
    return found


def of_stream(records: Iterable[Event], ask: Ask, catalogue: pricing.Catalogue, refuse: Callable[[str], None]) -> Burn:
    """What some events say; before the first of them nothing is known. Raises rollup.Usage for rows."""
    found = burn_buckets.taken(_events(records), ask.span, catalogue, ask.takes, refuse)
    known = when.moment(found.first) if found.first else ask.span.now
    return _burn(ask, catalogue, found, (known, ask.span.now), limit_windows.seen(found.meters))


def _events(records: Iterable[Event]) -> Iterator[Event]:
    for one in records:
        if one.get("kind") == "row":
            raise rollup.Usage("rows have no time of day; give tok-burn events, as tok-read and tok-cat write them")
        yield one


def _burn(
    ask: Ask, catalogue: pricing.Catalogue, found: Taken, known: tuple[int, int], readings: Sequence[limit_windows.Seen]
) -> Burn:
    made = burn_buckets.buckets(ask.span, found, catalogue, known)
    limits = limit_pace.limits(readings, ask.span.edges, ask.span.now, ask.provider, ask.wanted.model or "")
    total = summary(ask, found, made, catalogue, known[0])
    total["windows"] = [one.state for one in limits]
    return Burn(ask, catalogue, found, made, limits, total)


def tokens(spent: Event | None) -> int | None:
    """All tokens of a bucket."""
    return None if spent is None else events.token_sum(spent)


def record(bucket: Bucket, number: int, limits: Sequence[Limit]) -> Event:
    """A bucket as a record for programs: 0 is spelled out, and null is unknown. A limit nobody read is left out."""
    made: Event = {"v": 1, "kind": "burn", "ts": when.stamp(bucket.start), "until": when.stamp(bucket.end)}
    if bucket.partial:
        made["partial"] = True
    read = [one for one in limits if number in one.rises]
    if read:
        made["windows"] = [
            {name: one.state[name] for name in WHICH if name in one.state} | {"used_rise": one.rises[number]} for one in read
        ]
    if bucket.spent is None:
        return made | {"turns": None, "tokens": None, "cost_usd": None}
    made |= {"turns": bucket.spent.get("turns", 0), "tokens": tokens(bucket.spent)}
    made |= {name: bucket.spent.get(name, 0) for name in events.TOKENS}
    made["cost_usd"] = bucket.spent.get("cost_usd")
    return made | {name: bucket.spent[name] for name in ("cost_source", "unpriced") if name in bucket.spent}


def summary(ask: Ask, found: Taken, made: Sequence[Bucket], catalogue: pricing.Catalogue, known: int) -> Event:
    """All of the span, how fast it goes now and went on average, and how that compares to the day before."""
    asked = ask.span
    spent = [bucket.spent for bucket in made if bucket.spent is not None]
    total = costs.total_of(spent) if spent else {}
    row: Event = {"v": 1, "kind": "burn_summary", "from": when.stamp(asked.edges[0]), "to": when.stamp(asked.now)}
    row |= {"tz": when.zone_name(asked.tz), "by": asked.by, "turns": total.get("turns", 0) if spent else None}
    row |= {"tokens": events.token_sum(total) if spent else None}
    row |= {name: total.get(name, 0) for name in events.TOKENS if spent}
    row["cost_usd"] = total.get("cost_usd")
    row["now"] = _now(asked, found, catalogue, known)
    row["mean_active"] = _mean(asked, found, made)
    row["trend"] = _trend(asked, found, known)
    row["cost_basis"] = basis([one for one in found.rows if burn_buckets.number(one, asked) >= 0], ask.covered)
    row["sparkline"] = chart_text.sparkline(tokens(bucket.spent) for bucket in made)
    if found.totals:
        row["session_totals"] = _totals(found.totals, catalogue)
    return row


def _now(asked: Span, found: Taken, catalogue: pricing.Catalogue, known: int) -> Event | None:
    """The last hour; where the log is younger, what there is of it."""
    return rate(found.recent, catalogue, min((asked.now - known) // 60_000, 60))


def rate(recent: Sequence[Event], catalogue: pricing.Catalogue, minutes: int) -> Event | None:
    """How fast it goes, out of the rows of the last so many minutes; None where those are too few."""
    if minutes < FEWEST_MINUTES:
        return None
    total = costs.total_of(costs.priced(recent, catalogue))
    return {"minutes": minutes, "turns": total.get("turns", 0)} | _per_hour(
        events.token_sum(total), _money(total, bool(recent)), Decimal(minutes) / 60
    )


def _mean(asked: Span, found: Taken, made: Sequence[Bucket]) -> Event | None:
    """Over the hours that had turns, of the buckets that are whole."""
    whole = [bucket for bucket in made if bucket.spent is not None and not bucket.partial]
    spans = [(bucket.start, bucket.end) for bucket in whole]
    hours = {at // HOUR_MS for at in _active(asked, found) if any(start <= at < end for start, end in spans)}
    if not hours:
        return None
    total = costs.total_of([bucket.spent for bucket in whole if bucket.spent])
    return {"active_hours": len(hours)} | _per_hour(events.token_sum(total), _money(total, True), Decimal(len(hours)))


def _active(asked: Span, found: Taken) -> Iterator[int]:
    return (burn_buckets.moment(row, asked) for row in found.rows if row.get("turns"))


def _money(total: Event, spent: bool) -> Decimal | None:
    """What was spent, None where it has no price."""
    return Decimal(total["cost_usd"]) if "cost_usd" in total else None if spent else Decimal(0)


def _per_hour(count: int, money: Decimal | None, hours: Decimal) -> Event:
    rate = None if money is None else pricing.plain((money / hours).quantize(Decimal("0.000001")))
    return {"tokens_per_hour": round(count / hours), "cost_usd_per_hour": rate}


def _trend(asked: Span, found: Taken, known: int) -> Event | None:
    """The tokens of the last 24 whole hours over those of the 24 before; None where those are not known, or none."""
    end = asked.hour
    middle, start = end - DAY_HOURS * HOUR_MS, end - 2 * DAY_HOURS * HOUR_MS
    if known > start:
        return None
    sums = [0, 0]
    for row in found.rows:
        at = burn_buckets.moment(row, asked)
        if start <= at < end:
            sums[at >= middle] += events.token_sum(row)
    return {"ratio": round(sums[1] / sums[0], 4), "tokens": sums[1], "tokens_before": sums[0]} if sums[0] else None


def _totals(found: list[Event], catalogue: pricing.Catalogue) -> Event:
    """What sessions reported as a whole: it has no hour, so it is in no bucket."""
    plan = rollup.Plan((), when.UTC, catalogue)
    total = costs.total_of(costs.priced(rollup.rolled(found, plan, lambda why: None), catalogue))
    made: dict[str, Any] = {"sessions": len({event.get("session_id") for event in found}), "tokens": events.token_sum(total)}
    return made | {"cost_usd": total.get("cost_usd"), "note": "no hour is known of these: they are in no bucket"}


def basis(rows: Sequence[Event], covered: Mapping[str, str]) -> str:
    """What the amounts are: what plans cover costs nothing more, and is shown as what it would have cost on the API."""
    providers = {str(row.get("provider")) for row in rows}
    return "list price (API-equivalent)" if providers & covered.keys() else "list price"


def table(burn: Burn, shape: str, color: bool) -> str:
    """Buckets for people: on a terminal those in which something was spent, in CSV all."""
    made, limits, asked = burn.records(), burn.limits, burn.ask.span
    shown = [
        (at, row)
        for at, row in enumerate(made)
        if shape == "csv" or row["tokens"] or any(one.rises.get(at) for one in limits)
    ]
    plain = shape == "csv"

    def counts(title: str, *names: str) -> show.Column:
        sums = [None if row["tokens"] is None else sum(row[name] for name in names) for _, row in shown]
        return show.Column(title, ["" if value is None else str(value) if plain else show.count(value) for value in sums])

    moments = [row["ts"] if plain else f"{when.local(when.moment(row['ts']), asked.tz):%Y-%m-%d %H:%M}" for _, row in shown]
    marks = [
        f"{moment}{' *' if row.get('partial') and not plain else ''}"
        for moment, (_, row) in zip(moments, shown, strict=True)
    ]
    columns = [
        show.Column("from", marks, number=False),
        counts("turns", "turns"),
        counts("input", "input_tokens"),
        counts("cache read", "cache_read_tokens"),
        counts("cache write", *costs.WRITES),
        counts("output", "output_tokens"),
        show.Column("list price", [_price(row, plain) for _, row in shown]),
    ]
    for one in limits:
        rises = [one.rises.get(at) for at, _ in shown]
        columns.append(show.Column(f"{one.name} used", ["" if rise is None else _rise(rise, plain) for rise in rises]))
    return show.table(columns, shape, color=color)


def _price(row: Event, plain: bool) -> str:
    return str(row["cost_usd"] or "") if plain else show.money(row["cost_usd"]) if row["tokens"] else ""


def _rise(rise: float, plain: bool) -> str:
    return str(rise) if plain else f"+{chart_text.percent(rise)}"


def said(burn: Burn) -> Iterator[str]:
    """What a table cannot show, a line each."""
    made, total, limits = burn.buckets, burn.total, burn.limits
    yield f"tokens  {total['sparkline']}  {amount(total['tokens'])} in all{dollars(total['cost_usd'])}"
    if now := total["now"]:
        yield f"now     {rate_text(now)} (last {now['minutes']} minutes)"
    if mean := total["mean_active"]:
        hours = mean["active_hours"]
        yield f"mean    {rate_text(mean)} in {hours} active hour{'s' * (hours != 1)}"
    if trend := total["trend"]:
        yield f"trend   {trend['ratio']:.2f} times the 24 hours before"
    for one in limits:
        yield f"limit   {one.name}: {_limit(one.state)}"
    if any("at_this_pace" in one.state for one in limits):
        yield f"at this pace: {limit_pace.STRAIGHT}"
    if any(bucket.partial for bucket in made):
        yield "* not all of it: it is not over yet, or the log begins or ends in it"
    if unknown := sum(bucket.spent is None for bucket in made):
        yield f"{unknown} of {len(made)} are unknown: the log does not know of them"
    yield from unpriced(burn)
    if "session_totals" in total:
        more = total["session_totals"]
        what = f"{amount(more['tokens'])} tokens{dollars(more['cost_usd'])} of {more['sessions']} sessions"
        yield f"besides {what}: {more['note']}"
    yield f"prices: {total['cost_basis']}"


def unpriced(burn: Burn) -> Iterator[str]:
    """A sentence for each model without a price."""
    return costs.unpriced([bucket.spent for bucket in burn.buckets if bucket.spent is not None])


def _limit(one: Event) -> str:
    """How a window stands, for people."""
    parts = ["reset since it was last read" if one.get("used") is None else f"{chart_text.percent(one['used'])} used"]
    if one.get("used_per_hour") is not None:
        parts.append(f"{chart_text.percent(one['used_per_hour'])} an hour lately")
    straight = one.get("at_this_pace")
    if straight:
        out = f"gone in {straight['runs_out_in']}" if straight["runs_out_before_reset"] else "it lasts until its reset"
        parts.append(f"at this pace {out}")
    if "resets_in" in one and one.get("used") is not None:
        parts.append(f"resets in {one['resets_in']}")
    return ", ".join(parts)


def amount(count: int | None) -> str:
    """A count for people."""
    return "unknown" if count is None else f"{count:,}"


def dollars(cost: str | None) -> str:
    """What it cost, after a comma; nothing where that is unknown."""
    return f", {show.money(cost)}" if cost is not None else ""


def rate_text(found: Event) -> str:
    """How fast something goes, for people."""
    cost = found["cost_usd_per_hour"]
    return f"{found['tokens_per_hour']:,} tokens an hour" + (f", {show.money(cost)} an hour" if cost is not None else "")
