"""What tok-burn says to people: a table of what was spent when, and a line for each thing that a table cannot show."""

from __future__ import annotations

from collections.abc import Iterator

from tokenops import chart_text, costs, limit_pace, show, when
from tokenops.burn import Burn
from tokenops.events import Event


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
