"""Answers each question about the log once; commands, tools and pages only render what these functions return.

Inputs are plain values, session.Log above all. Expected failures are raised as session.Fault or OSError. Imports are
lazy: a command loads only what its question needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenops import config, events
from tokenops.session import BadRequest, Fault, Log

if TYPE_CHECKING:
    import datetime

    from tokenops import budgets, burn, burn_buckets, limit_windows, plans, reconcile_pairs
    from tokenops.coverage import Coverage
    from tokenops.events import Event, Filter
    from tokenops.pricing import Catalogue

    Thresholds = dict[str, dict[str, float]]

# The end of a span that goes on: later than any time.
OPEN = "9"
# The beginning of a span that holds all of the log.
ALL = "all"


def ignore(*what: object) -> None:
    """The default for bad lines: nothing."""


# Spans.


def bounds(since: str | None, until: str | None, now: int, tz: datetime.tzinfo, prefix: str = "") -> tuple[str, str]:
    """Two texts, such as 7d and 2026-11-01, as canonical times; "" (also for ALL) and OPEN for None.

    `prefix`: of the names in errors.

    Raises BadRequest.
    """
    from tokenops import when

    times = ["", OPEN]
    for at, (name, text, parse) in enumerate((("since", since, when.parse_since), ("until", until, when.parse_until))):
        try:
            if text is not None and (name, text) != ("since", ALL):
                times[at] = when.stamp(parse(text, now, tz))
        except (ValueError, OverflowError) as error:
            raise BadRequest(f"{prefix}{name}: {error}") from None
    if times[0] >= times[1]:
        raise BadRequest(f"{prefix}since is not before {prefix}until; swap them")
    return times[0], times[1]


def first_moment(since: str, log: Log) -> str:
    """A span's first bound; of one without a start, the first day of the log, or a day ago if there is none."""
    from tokenops import store, when

    days = [] if since else store.days(log.folder)
    return since or (f"{days[0]}T00:00:00.000Z" if days else when.stamp(log.now - when.DAY))


def month_start(now: int, tz: datetime.tzinfo) -> str:
    """The first day of the month, as YYYY-MM-DD: the default start of a span of spending."""
    from tokenops import when

    return f"{when.bucket(now, 'month', tz)}-01"


def end(until: str, now: int) -> str:
    """Where a span ends: now, if it goes on."""
    from tokenops import when

    return when.stamp(now) if until == OPEN else until


def thresholds(settings: config.Config) -> Thresholds:
    """What decides about advice and grades, by section."""
    try:
        return config.thresholds(settings)
    except config.Unusable as error:
        raise Fault(str(error)) from None


def bindings(settings: config.Config) -> list[plans.Binding]:
    """The plans that the user has set. Raises Fault."""
    from tokenops import plans

    try:
        return plans.bindings(settings)
    except config.Unusable as error:
        raise Fault(str(error)) from None


def _as_of(rows: list[Event], log: Log) -> list[Event]:
    """Rows, each with when the log was last synced, unless it never was."""
    return [{**row, "as_of": log.as_of} for row in rows] if log.as_of else rows


# What is left.


class Budget(NamedTuple):
    """What is left of each provider's limits: a row per provider and account, the plans that are set, the thresholds."""

    rows: list[Event]
    bound: list[plans.Binding]
    thresholds: Thresholds

    def plan_names(self, log: Log) -> dict[str, str]:
        """Provider -> the names for people of its plans in force."""
        from tokenops import plans, when

        today, catalogue = when.bucket(log.now, "day", log.tz), plans.all_plans()
        providers = dict.fromkeys(binding.provider for binding in self.bound if binding.since <= today)
        return {
            provider: ", ".join(
                dict.fromkeys(catalogue[each.plan].display for each in plans.in_force(self.bound, provider, today))
            )
            for provider in providers
        }

    @property
    def signal_quality(self) -> dict[str, str]:
        """How far the row can be trusted that is trusted least."""
        from tokenops import headroom

        return headroom.least_trusted((row["signal_quality"] for row in self.rows), self.thresholds["freshness"])

    @property
    def forecasts(self) -> list[Event]:
        """The chance that each row's binding window runs out before its reset."""
        names = ("account", "headroom_pct", "recommended_action", "signal_quality", "forecast")
        return [
            {"provider": row["provider"], "window": row["binding_window"]}
            | {name: row[name] for name in names if name in row}
            for row in self.rows
        ]


def budget(log: Log, provider: str = "", model: str = "", more: Iterable[limit_windows.Reading] = ()) -> Budget:
    """What is left of each limit, and what to do, of one provider or of all.

    `model`: about to be called; `more`: readings that are not in the log.
    """
    from tokenops import limit_budget, plans, when

    rules, bound = thresholds(log.settings), bindings(log.settings)
    names = plans.of_providers(bound, when.bucket(log.now, "day", log.tz))
    rows = limit_budget.budget_rows(log.folder, log.now, rules, names, log.catalogue, provider, model, log.memory, more)
    return Budget(_as_of(rows, log), bound, rules)


def limit_history(log: Log, since: int, until: int) -> list[limit_windows.Series]:
    """How much of each limit was used over time, by its windows, in a span of milliseconds."""
    from tokenops import limit_log, limit_windows

    return limit_windows.series(limit_log.readings(log.folder, since, until, log.memory))


def plan_headroom(log: Log, provider: str = "") -> list[Event]:
    """What is left of each plan in force, and whether it will last; a row per plan."""
    from tokenops import limit_plans

    rules, bound = thresholds(log.settings), bindings(log.settings)
    rows = limit_plans.plan_rows(log.folder, bound, log.now, log.tz, rules, log.catalogue(), provider, log.memory)
    return [row | {"as_of": log.as_of} for row in rows]


def plans_set(settings: config.Config) -> list[dict[str, Any]]:
    """The plans that the user has set, a row each."""
    from tokenops import plans

    return [plans.binding_row(binding) for binding in bindings(settings)]


def set_plan(
    settings: config.Config, words: Sequence[str], now: int, tz: datetime.tzinfo, since: str | None, account: str = ""
) -> tuple[str, str]:
    """Write a plan, by its provider, name, or both, to the configuration; its provider, and what is set since when."""
    from tokenops import plans, when

    try:
        plan, bound = plans.resolve(words), plans.bindings(settings)
        first = None if since is None else plans.first_day(since, now, tz)
        binding = plans.new_binding(bound, plan, first, account, when.bucket(now, "day", tz))
        config.set_key(settings, "plans", plan.provider, plans.with_binding(bound, binding))
        return plan.provider, plans.set_text(plan, binding.since, since is not None)
    except (config.Unusable, config.Unchangeable) as error:
        raise Fault(str(error)) from None


def unset_plan(settings: config.Config, provider: str) -> None:
    """Remove a provider's plans from the configuration."""
    try:
        config.set_key(settings, "plans", provider, None)
    except config.Unchangeable as error:
        raise Fault(str(error)) from None


class Budgets(NamedTuple):
    """The user's own budgets, and how much of each is spent, a row each."""

    limits: list[budgets.Budget]
    rows: list[Event]


def own_budgets(log: Log, provider: str = "") -> Budgets:
    """How much of the user's own budgets is spent, of one provider or of all."""
    from tokenops import budgets

    try:
        limits = [limit for limit in budgets.from_settings(log.settings) if provider in ("", limit.only.get("provider"))]
        hours = budgets.hours(log.folder, limits, log.catalogue(), log.now, log.tz)
        rows = budgets.rows(limits, hours, log.settings, log.now, log.tz)
    except config.Unusable as error:
        raise Fault(str(error)) from None
    return Budgets(limits, _as_of(rows, log))


# What was spent.


class Spend(NamedTuple):
    """What was spent: rows with their cost, their total, what plans covered of it, and the span."""

    rows: list[Event]
    total: Event
    plan_value: list[Event]
    since: str
    until: str

    def latest(self, count: int) -> list[Event]:
        """The rows that went on last."""
        return sorted(self.rows, key=lambda row: str(row["to"]), reverse=True)[:count]

    def dearest(self, count: int) -> list[Event]:
        """The rows that cost most."""
        from decimal import Decimal

        def rank(row: Event) -> tuple[Decimal, int]:
            return Decimal(row.get("cost_usd", "0")), events.token_sum(row)

        return sorted(self.rows, key=rank, reverse=True)[:count]

    @property
    def cache_stats(self) -> list[Event]:
        """How much of the prompts was read from caches: of each row its groups and the counts of its prompts."""
        counts = ("from", "to", "turns", "input_tokens", "cache_read_tokens", *events.CONTEXT[2:], "cache_hit_ratio")
        return [{name: value for name, value in row.items() if name in (*counts, *groups(row))} for row in self.rows]


def groups(row: Event) -> list[str]:
    """The fields that a row is the sum of."""
    from tokenops import rollup

    return [rollup.FIELDS.get(name, "bucket") for name in row["by"]]


def fields(by: str) -> tuple[str, ...]:
    """The fields of a text such as project,day; none of "none". Raises BadRequest."""
    from tokenops import rollup

    try:
        return rollup.fields(by)
    except rollup.UsageError as error:
        raise BadRequest(str(error)) from None


def spend(
    log: Log,
    by: tuple[str, ...] = (),
    since: str = "",
    until: str = OPEN,
    only: Filter = events.EVERY,
    cover: Coverage | None = None,
    on_bad_line: Callable[[str, str], None] = ignore,
) -> Spend:
    """What was spent in a span of the log, by some fields. `cover`: what the user's plans cover."""
    from tokenops import costs, rollup, store_summaries

    plan = rollup.Grouping(by, log.tz, log.catalogue())
    finer = plan._replace(by=costs.with_witnesses(by))
    rolled = store_summaries.rows(log.folder, finer, log.now, since, until, only, on_bad_line, cover, log.past)
    return spend_of_rows(costs.without_witnesses(rolled, plan), log, since, until, cover)


def spend_of_records(
    records: Iterable[Event],
    catalogue: Catalogue,
    tz: datetime.tzinfo,
    by: tuple[str, ...],
    regroup: bool = True,
    since: str = "",
    until: str = OPEN,
    only: Filter = events.EVERY,
    cover: Coverage | None = None,
    on_bad_record: Callable[[str], None] = ignore,
) -> Spend:
    """What was spent according to some records, by some fields. `regroup`: also rows, which have groups already."""
    from tokenops import costs, rollup

    plan = rollup.Grouping(by, tz, catalogue)
    try:
        inside = costs.select(records, since, until, only)
        rows = costs.rows(inside, plan, regroup, on_bad_record, cover.mark if cover else None)
    except rollup.UsageError as error:
        raise BadRequest(str(error)) from None
    first = since or min((row["from"] for row in rows), default="")
    last = until if until != OPEN else max((row["to"] for row in rows), default="")
    return _spend(rows, first, last, tz, cover)


def spend_of_rows(rolled: Iterable[Event], log: Log, since: str, until: str, cover: Coverage | None) -> Spend:
    """What was spent according to rows of a span of the log that were added up before. `cover`: what marked them."""
    from tokenops import costs

    rows = costs.price_rows(rolled, log.catalogue())
    first = since or min((row["from"] for row in rows), default="")
    return _spend(rows, first, end(until, log.now), log.tz, cover)


def _spend(rows: list[Event], since: str, until: str, tz: datetime.tzinfo, cover: Coverage | None) -> Spend:
    from tokenops import costs

    total, value = costs.total_of(rows), []
    if cover and since and until:
        from tokenops import coverage

        value = coverage.plan_worth(total, cover, since, until, tz)
    return Spend(rows, total, value, since, until)


def with_vendor_sums(log: Log, spent: Spend) -> Spend:
    """Rows by provider, each with `vendor_sum_usd`: what the vendor itself reports for API keys in the span (tok-poll).

    It may include turns that are counted here, so it is in no total. A provider without turns here gets a row.
    """
    import functools
    from decimal import Decimal

    import orjson

    from tokenops import joins, pricing, store

    reports: dict[str, Event] = {}
    for line in store.scan(log.folder, spent.since, spent.until):
        if store.kind_of(line) == b"usage":
            event = orjson.loads(line)
            if event.get("covers") == "account" and event.get("cost_source") == "reported" and "cost_usd" in event:
                earlier = reports.get(event["id"])
                reports[event["id"]] = joins.join(earlier, event) if earlier else event
    rows = {row.get("provider"): row for row in spent.rows}
    for provider in sorted({str(event["provider"]) for event in reports.values() if "provider" in event}):
        mine = [event for event in reports.values() if event.get("provider") == provider]
        span = {"from": min(event["ts"] for event in mine), "to": max(event["ts"] for event in mine)}
        row = rows.setdefault(provider, {"v": 1, "kind": "row", "by": ["provider"], "provider": provider} | span)
        amounts = [Decimal(event["cost_usd"]) for event in mine]
        row["vendor_sum_usd"] = pricing.plain(functools.reduce(pricing.add, amounts, pricing.ZERO))
    return spent._replace(rows=list(rows.values()))


def spent_today(log: Log) -> str:
    """What today cost so far at list price, in dollars: with a "+" if some of it has no price, "?" if nothing has one."""
    from tokenops import show, when

    spent = spend(log, (), when.stamp(when.parse_since("today", log.now, log.tz)), when.stamp(log.now))
    usd = spent.total.get("cost_usd", "" if spent.rows else "0")
    if not usd:
        return "?"
    more = "+" if any(row.get("unpriced") for row in spent.rows) else ""
    return show.money(usd).removeprefix("$") + more


def burn_rate(
    log: Log,
    span: burn_buckets.Span,
    only: Filter = events.EVERY,
    provider: str = "",
    complete_until: int | None = None,
    on_bad_line: Callable[[str, str], None] = ignore,
) -> burn.Burn:
    """How fast tokens, money and limits were used. `complete_until`: the log lacks nothing before it (default: now)."""
    from tokenops import burn

    query = burn.Query(span, only, provider, _covered_today(log))
    until = log.now if complete_until is None else complete_until
    rate = burn.of_log(log.folder, query, log.catalogue(), until, on_bad_line)
    rate.total["as_of"] = log.as_of
    return rate


def burn_rate_of_records(
    records: Iterable[Event],
    log: Log,
    span: burn_buckets.Span,
    only: Filter = events.EVERY,
    provider: str = "",
    on_bad_record: Callable[[str], None] = ignore,
) -> burn.Burn:
    """The same for some events alone; the log is not read."""
    from tokenops import burn, rollup

    try:
        query = burn.Query(span, only, provider, _covered_today(log))
        return burn.of_stream(records, query, log.catalogue(), on_bad_record)
    except rollup.UsageError as error:
        raise BadRequest(str(error)) from None


def _covered_today(log: Log) -> dict[str, str]:
    """Provider -> the plans that cover its turns today."""
    from tokenops import plans, when

    try:
        return plans.covering_plans(log.settings, when.bucket(log.now, "day", when.zone(None)))
    except config.Unusable as error:
        raise Fault(str(error)) from None


def comparison(
    records: Iterable[Event],
    since: str,
    until: str,
    tz: datetime.tzinfo,
    catalogue: Catalogue,
    cover: Coverage | None = None,
) -> list[reconcile_pairs.Pair]:
    """Our costs compared with those of clients and vendors, by day and model."""
    from tokenops import reconcile, reconcile_pairs

    return reconcile.pairs(records, reconcile_pairs.Query(since, until, tz, catalogue, cover))


def records_to_compare(
    folder: str, since: str, until: str, on_bad_line: Callable[[str, str], None] = ignore
) -> Iterator[Event]:
    """The records of the log that a comparison of a span needs: some that lie before it, and a day after it."""
    import orjson

    from tokenops import reconcile_pairs, store, when

    first = when.stamp(when.moment(since) - reconcile_pairs.BEFORE_MS) if since else ""
    last = until if until == OPEN else when.stamp(when.moment(until) + when.DAY)
    return map(orjson.loads, store.scan(folder, first, last, on_bad_line))
