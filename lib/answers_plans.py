"""Answers what plans are worth: what a percent of each limit buys, which windows open and close, which plan would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tokenops import answers
from tokenops.session import BadRequest, Fault, Log

if TYPE_CHECKING:
    from tokenops import limit_ahead, limit_runs
    from tokenops.events import Event
    from tokenops.pricing import Catalogue


def worth(
    log: Log, provider: str = "", by: str = "window", progress: Callable[[int, int], None] = answers.ignore
) -> list[Event]:
    """What one percent of each limit is worth at list price, of one provider or of all; rows as limit_percent makes them.

    `progress` is called with how many of how many days are read. Raises BadRequest, OSError.
    """
    from tokenops import limit_log, limit_percent

    try:
        fields = limit_percent.fields(by)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    rises = limit_log.rises(log.folder, log.catalogue(), log.now, progress)
    rows = limit_percent.rows((rise for rise in rises if provider in ("", rise.key.provider)), log.now, fields)
    return [row | {"as_of": log.as_of} if log.as_of else row for row in rows]


def upcoming(log: Log, provider: str = "") -> list[Event]:
    """When windows open and close today at this pace, what lapses, and which banked resets expire. Raises OSError, Fault."""
    from tokenops import limit_budget, limit_log, limit_next, plans, plans_dated, when

    limits = limit_budget.limits(log.folder, log.now, log.catalogue, provider, log.memory)
    pieces = limit_log.past_pieces(log.folder, log.now, log.memory)
    today = when.bucket(log.now, "day", log.tz)
    mine = plans.of_providers(answers.bindings(log.settings), today)
    catalogue = plans.all_plans()
    now = {name: plans_dated.on_day(catalogue[plan], today) for name, plan in mine.items()}
    rows = limit_next.rows(limits.states, limit_next.Past(limits.readings, pieces, log.now, log.tz, now))
    providers = {row["provider"] for row in rows} | {name for name in mine if provider in ("", name)}
    announced = [row for row in limit_next.announced_rows(providers, log.now) if _is_mine(row, mine)]
    expiries = {name: days for name, days in _banked_resets(log).items() if provider in ("", name)}
    return rows + announced + limit_next.banked_rows(expiries, log.now)


def _is_mine(row: Event, mine: dict[str, str]) -> bool:
    """Whether an announcement may concern the user: it names no plan, or theirs, or no plan is set."""
    return "plans" not in row or mine.get(row["provider"], row["plans"][0]) in row["plans"]


def _banked_resets(log: Log) -> dict[str, list[str]]:
    """Provider -> the days on which resets expire that are not used, from the configuration. Raises Fault.

    An entry is the day on which a reset was given, or {expires: DAY} where the vendor shows that.
    """
    import datetime

    from tokenops import catalog, limit_next

    entries = log.settings.get("banked_resets") or {}
    rules = catalog.load("plans")["banked_resets"]
    where = f"{log.settings.path}: banked_resets"
    if not isinstance(entries, dict):
        raise Fault(f"{where}: expected providers with lists of days")
    result: dict[str, list[str]] = {}
    for provider, days in entries.items():
        if provider not in rules:
            raise Fault(f"{where}: {provider} has no banked resets; expected {', '.join(rules)}")
        for day in days if isinstance(days, list) else [days]:
            try:
                if isinstance(day, dict):
                    expires = datetime.date.fromisoformat(str(day["expires"])).isoformat()
                else:
                    expires = limit_next.expiry(provider, str(day))
            except (ValueError, KeyError, OverflowError):
                why = "expected days such as 2026-11-20, on which it was given, or {expires: 2026-12-20}"
                raise Fault(f"{where}.{provider}: {why}") from None
            result.setdefault(provider, []).append(expires)
    return result


def fit(log: Log, provider: str = "", progress: Callable[[int, int], None] = answers.ignore) -> list[Event]:
    """How each plan would have served the last 30 days, of one provider or of each with a plan that is set or learned.

    Raises OSError, Fault.
    """
    from tokenops import limit_fit, limit_log, limit_next, plans, plans_dated, when

    catalogue = plans.all_plans()
    bound = answers.bindings(log.settings)
    mine = plans.of_providers(bound, when.bucket(log.now, "day", log.tz))
    worths = worth(log, provider, "window", progress)
    spends = limit_log.spends_of_span(log.folder, log.catalogue(), log.now - limit_fit.DAYS * when.DAY, log.now)
    names = sorted({*mine, *(row["provider"] for row in worths)} if not provider else {provider})
    result: list[Event] = []
    for name in names:
        rows = [row for row in worths if row["provider"] == name and row["usd_per_percent"] and not row.get("scope")]
        accounts = {row.get("account", "") for row in rows}
        learned = {}
        if name in mine and len(accounts) == 1:
            learned = {(mine[name], row["window"]): limit_fit.learned_size(row) for row in rows}
        uses = [limit_fit.Use(spend.at, float(spend.usd)) for spend in spends if spend.provider == name and spend.usd]
        # What is announced for the next month counts: the question is which plan fits then.
        last = when.stamp(log.now + limit_next.AHEAD_DAYS * when.DAY)[:10]
        changes = plans_dated.coming(name, when.stamp(log.now)[:10], last)
        offered = [plans_dated.on_day(plan, last) for plan in plans.current_plans() if plan.provider == name]
        learned = {key: limit_fit.times(size, plans_dated.factor(changes, *key)) for key, size in learned.items()}
        rows = limit_fit.rows(name, offered, uses, learned, catalogue, mine.get(name, ""), log.now)
        result += [row | limit_fit.announcements(row["plan"], changes, log.now) for row in rows]
    return result


def estimate(
    log: Log,
    text: str,
    directory: str = "",
    provider: str = "",
    model: str = "",
    progress: Callable[[int, int], None] = answers.ignore,
) -> list[Event]:
    """What a session like some past ones will take of each limit; rows as limit_ahead makes them.

    `text`: a kind or the beginning of a session's id; "": the project around a directory. Raises BadRequest, Fault, OSError.
    """
    from tokenops import limit_ahead, limit_budget, limit_log, limit_windows, tasks, when

    parts = limit_log.run_parts(log.folder, log.catalogue(), log.now - limit_ahead.DAYS * when.DAY, log.now, progress)
    if text:
        kinds = _kinds(log, text, parts)
    else:
        here = tasks.project_of(log.folder, directory)
        kinds = limit_ahead.of_project(here.get("project_id", ""), here.get("project", ""))
    limits = limit_budget.limits(log.folder, log.now, log.catalogue, provider, log.memory)
    rows = limit_ahead.rows(limits.states, limit_windows.series(limits.readings), parts, kinds, log.now, model)
    return [row | {"as_of": log.as_of} if log.as_of else row for row in rows]


def _kinds(log: Log, text: str, parts: list[limit_runs.Part]) -> list[limit_ahead.Kind]:
    from tokenops import answers_work, limit_ahead

    pattern = answers_work.ticket_pattern(log)

    def ticket(branch: str) -> str:
        match = pattern.search(branch)
        return (match[1 if pattern.groups else 0] or "") if match else ""

    try:
        return limit_ahead.kinds(text, parts, ticket)
    except limit_ahead.Wrong as error:
        raise BadRequest(str(error)) from None


def estimates_of_log(
    log: Log, provider: str | None, window: str | None, progress: Callable[[int, int], None] = answers.ignore
) -> list[Event]:
    """How good the estimates of all sessions of the log would have been; rows as limit_ahead makes them. Raises OSError."""
    from tokenops import limit_ahead, limit_log, limit_windows, store, when

    first = next(iter(store.days(log.folder)), "")
    since = when.moment(f"{first}T00:00:00Z") if first else log.now
    parts = limit_log.run_parts(log.folder, log.catalogue(), since, log.now, progress)
    series = limit_windows.series(limit_log.readings(log.folder, since, log.now))
    return limit_ahead.backtest(parts, series, provider, window)


def estimates_of_records(
    records: Iterable[Event], catalogue: Catalogue, provider: str | None, window: str | None
) -> list[Event]:
    """The same of records: meters and, if there are any, turns."""
    from tokenops import limit_ahead, limit_runs

    parts, series = limit_runs.of_records(records, catalogue)
    return limit_ahead.backtest(parts, series, provider, window)
