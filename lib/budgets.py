"""Reports on the user's own budgets of money or tokens: what is used, and a forecast for the end of the period.

Periods are days, weeks from Monday and months in the machine's zone. The forecast draws days from the user's last four
weeks, preferably of the same weekday; with less than a week of history there is none. Turns without a price do not count.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from tokenops import config, costs, events, limit_view, plans, pricing, rollup, show, store_summaries, when
from tokenops.config import Unusable
from tokenops.events import Event

WINDOWS = ("daily", "weekly", "monthly")
LEVELS = ("ok", "warn", "critical", "over")
# A threshold is reported again only after use fell this far below it.
HYSTERESIS = 0.05
# A budget that is more likely to be exceeded than not is a warning.
LIKELY = 0.5
LEARNED_DAYS, FEWEST_DAYS, DRAWS = 28, 7, 500
_NAMED = ("project", "provider", "agent_id", "workflow_id")
_KEYS = ("name", "window", "limit_usd", "limit_tokens", "warn_at", "crit_at", "basis", *_NAMED)


class Budget(NamedTuple):
    """One budget. One of `usd` and `tokens` is set; `basis` spend: what plans cover is left out; equivalent: all counts."""

    name: str
    window: str
    usd: Decimal | None
    tokens: int | None
    warn: float
    critical: float
    only: dict[str, str]  # field of a row -> value
    basis: str


class Hour(NamedTuple):
    """What one group of turns spent within an hour, which begins at a moment. `unpriced` turns add no cost."""

    at: int
    provider: str
    fields: dict[str, str]
    usd: Decimal
    tokens: int
    unpriced: int


def from_settings(settings: config.Config) -> list[Budget]:
    """The budgets of the configuration. Raises Unusable."""
    entries = settings.get("budgets") or []
    if not isinstance(entries, list):
        raise Unusable(f"{settings.path}: budgets", "expected a list of {name, window, limit_usd}")
    rules = config.thresholds(settings)["spend"] if entries else {}
    return [_budget(entry, number, settings.path, rules) for number, entry in enumerate(entries, 1)]


def _budget(entry: Any, number: int, path: str, rules: Mapping[str, float]) -> Budget:
    location = f"{path}: budgets, the {number}{['st', 'nd', 'rd'][number - 1] if number < 4 else 'th'}"
    if not isinstance(entry, Mapping):
        raise Unusable(location, "expected {name, window, limit_usd}")
    if unknown := [key for key in entry if key not in _KEYS]:
        raise Unusable(location, f"unknown key {unknown[0]!r}", f"choose from {', '.join(_KEYS)}")
    window, basis = entry.get("window", "monthly"), entry.get("basis", "spend")
    if window not in WINDOWS or basis not in ("spend", "equivalent"):
        raise Unusable(location, f"window is one of {', '.join(WINDOWS)}, basis one of spend, equivalent")
    usd, tokens = (
        _number(entry.get("limit_usd"), location, "limit_usd"),
        _number(entry.get("limit_tokens"), location, "limit_tokens"),
    )
    if (usd is None) == (tokens is None):
        raise Unusable(location, "give limit_usd or limit_tokens")
    warn, critical = (_number(entry.get(key, rules[key]), location, key) for key in ("warn_at", "crit_at"))
    if warn is None or critical is None or not 0 < warn <= critical:
        raise Unusable(location, "warn_at and crit_at are shares, the first not above the second")
    only = {key: str(entry[key]) for key in _NAMED if entry.get(key)}
    whole = None if tokens is None else int(tokens)
    return Budget(
        str(entry.get("name") or f"budget {number}"), window, usd, whole, float(warn), float(critical), only, basis
    )


def _number(entry: Any, location: str, key: str) -> Decimal | None:
    if entry is None:
        return None
    try:
        value = Decimal(str(entry))
    except InvalidOperation:
        value = Decimal(-1)
    if not 0 < value < Decimal(10) ** 15:
        raise Unusable(location, f"{key} is {entry!r}", "expected a number above 0")
    return value


_FIELDS = {"project": "project", "agent_id": "agent", "workflow_id": "workflow"}


def hours(folder: str, budgets: Sequence[Budget], catalogue: pricing.Catalogue, now: int, tz: datetime.tzinfo) -> list[Hour]:
    """What was spent, hour by hour, as far back as any budget or forecast needs. Raises OSError."""
    first = min((begin(budget.window, now, tz) for budget in budgets), default=now)
    since = min(first, now - (LEARNED_DAYS + 1) * when.DAY)
    fields = ["hour", "provider", *(_FIELDS[key] for key in _FIELDS if any(key in budget.only for budget in budgets))]
    grouping = rollup.Grouping(tuple(fields), tz, catalogue)
    result = []
    for row in costs.price_rows(store_summaries.rows(folder, grouping, now, when.stamp(since)), catalogue):
        named = {key: str(row.get(key, "")) for key in _NAMED}
        usd, unpriced = Decimal(row.get("cost_usd", "0")), sum(part.get("turns", 0) for part in row.get("unpriced", ()))
        at = when.moment(row["from"])
        result.append(Hour(at, row.get("provider", ""), named, usd, events.token_sum(row), unpriced))
    return result


def begin(window: str, now: int, tz: datetime.tzinfo) -> int:
    """When the period that holds a moment began."""
    day = when.local(now, tz).date()
    if window == "weekly":
        day -= datetime.timedelta(day.weekday())
    elif window == "monthly":
        day = day.replace(day=1)
    return when.parse_since(day.isoformat(), now, tz)


def end(window: str, now: int, tz: datetime.tzinfo) -> int:
    """When the period that holds a moment ends."""
    day = when.local(begin(window, now, tz), tz).date()
    if window == "monthly":
        following = (day.replace(day=28) + datetime.timedelta(4)).replace(day=1)
    else:
        following = day + datetime.timedelta(7 if window == "weekly" else 1)
    return when.parse_since(following.isoformat(), now, tz)


def rows(
    budgets: Iterable[Budget], hours: Sequence[Hour], settings: config.Config, now: int, tz: datetime.tzinfo
) -> list[Event]:
    """A record per budget. Raises Unusable."""
    return [_row(budget, _mine(budget, hours, settings, tz), now, tz) for budget in budgets]


def _mine(budget: Budget, hours: Sequence[Hour], settings: config.Config, tz: datetime.tzinfo) -> list[Hour]:
    """The hours that count in a budget."""
    kept = [hour for hour in hours if all(hour.fields.get(key) == value for key, value in budget.only.items())]
    if budget.basis == "equivalent" or budget.usd is None:
        return kept
    covered: dict[str, Mapping[str, str]] = {}
    uncovered = []
    for hour in kept:
        day = when.bucket(hour.at, "day", tz)
        if day not in covered:
            covered[day] = plans.covering_plans(settings, day)
        if hour.provider not in covered[day]:
            uncovered.append(hour)
    return uncovered


def _row(budget: Budget, mine: Sequence[Hour], now: int, tz: datetime.tzinfo) -> Event:
    since, until = begin(budget.window, now, tz), end(budget.window, now, tz)
    within = [hour for hour in mine if since <= hour.at < until]
    row: Event = {"v": 1, "kind": "spend_budget", "name": budget.name, "window": budget.window} | budget.only
    row |= {"basis": budget.basis, "from": when.stamp(since), "to": when.stamp(until), "as_of": when.stamp(now)}
    if budget.usd is not None:
        used: Decimal | int = sum((hour.usd for hour in within), Decimal(0))
        bound: Decimal | int = budget.usd
        row |= {"limit_usd": pricing.plain(budget.usd), "used_usd": pricing.plain(Decimal(used))}
        if unpriced := sum(hour.unpriced for hour in within):
            row["unpriced_turns"] = unpriced
    else:
        used, bound = sum(hour.tokens for hour in within), budget.tokens or 1
        row |= {"limit_tokens": budget.tokens, "used_tokens": used}
    share = float(Decimal(used) / Decimal(bound))
    row["share"] = round(share, 4)
    row["forecast"] = forecast(budget, mine, float(used), float(bound), now, tz)
    row["level"] = level(budget, share, row["forecast"])
    return row


def level(budget: Budget, share: float, expected: Event | None) -> str:
    """ok, warn (also if the budget will more likely than not be exceeded), critical, over."""
    if share >= 1:
        return "over"
    if share >= budget.critical:
        return "critical"
    likely = expected is not None and expected["p_exceed"] >= LIKELY
    return "warn" if share >= budget.warn or likely else "ok"


def forecast(budget: Budget, mine: Sequence[Hour], used: float, bound: float, now: int, tz: datetime.tzinfo) -> Event | None:
    """Use at the end of the period: the middle 80 % of what the past predicts; None with too little history."""
    today = when.local(now, tz).date()
    hour = when.local(now, tz).hour
    full: dict[datetime.date, float] = {}
    after: dict[datetime.date, float] = {}
    first = min((when.local(spent.at, tz).date() for spent in mine), default=today)
    start = max(first, today - datetime.timedelta(LEARNED_DAYS))
    for number in range((today - start).days):
        full[start + datetime.timedelta(number)] = after[start + datetime.timedelta(number)] = 0.0
    for spent in mine:
        at = when.local(spent.at, tz)
        if at.date() in full:
            amount = float(spent.usd) if budget.usd is not None else float(spent.tokens)
            full[at.date()] += amount
            after[at.date()] += amount if at.hour > hour else 0.0
    if len(full) < FEWEST_DAYS:
        return None
    days = (when.local(end(budget.window, now, tz) - 1, tz).date() - today).days
    coming = [today + datetime.timedelta(number) for number in range(1, days + 1)]
    draw = random.Random(f"{budget.name} {today}")
    pools = {day: _pools(day, full) for day in (today, *coming)}
    totals = sorted(
        used + after[_like(*pools[today], draw)] + sum(full[_like(*pools[day], draw)] for day in coming)
        for _ in range(DRAWS)
    )
    row = {name: round(totals[int(q * (DRAWS - 1))], 6) for name, q in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))}
    return row | {"p_exceed": round(sum(total >= bound for total in totals) / DRAWS, 4), "learned_days": len(full)}


Days = Sequence[datetime.date]


def _pools(day: datetime.date, days: Iterable[datetime.date]) -> tuple[Days, Days]:
    """The past days of the same weekday, and those of the same kind (week or weekend), or all if there is none."""
    past = list(days)
    alike = [past_day for past_day in past if (past_day.weekday() < 5) == (day.weekday() < 5)]
    return [past_day for past_day in past if past_day.weekday() == day.weekday()], alike or past


def _like(same: Days, alike: Days, draw: random.Random) -> datetime.date:
    """A past day that stands for a coming one: three times of four of the same weekday, else any of its kind."""
    days = same if same and draw.random() < 0.75 else alike
    return days[draw.randrange(len(days))]


def due(
    state: Mapping[str, Any], rows: Sequence[Event], thresholds: Mapping[str, Budget]
) -> tuple[list[Event], dict[str, Any]]:
    """The budgets whose level is to be reported now, and the new state: each level once per period.

    A level is reported again only after the share fell five points below its threshold.
    """
    news: list[Event] = []
    kept: dict[str, Any] = {}
    for row in rows:
        rank, before = LEVELS.index(row["level"]), _last_rank(state.get(row["name"]), row["from"])
        if rank > before:
            news.append(row)
            before = rank
        elif rank < before and _has_eased(row, before, thresholds[row["name"]]):
            before = rank
        kept[row["name"]] = {"from": row["from"], "rank": before}
    return news, kept


def _has_eased(row: Event, rank: int, budget: Budget) -> bool:
    """Whether a reported level is clearly over; a forecast that stays close to one half is not."""
    wavers = rank == 1 and row["forecast"] is not None and row["forecast"]["p_exceed"] >= LIKELY - 3 * HYSTERESIS
    return not wavers and row["share"] < _threshold(budget, rank) - HYSTERESIS


def _last_rank(entry: object, since: str) -> int:
    """The level that was reported of a budget in this period."""
    rank = entry.get("rank") if isinstance(entry, dict) and entry.get("from") == since else 0
    return rank if type(rank) is int and 0 <= rank < len(LEVELS) else 0


def _threshold(budget: Budget, rank: int) -> float:
    return (0.0, budget.warn, budget.critical, 1.0)[rank]


_STYLES = dict(zip(LEVELS, ("good", "warn", "bad", "bad"), strict=True))


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """Budgets for people."""
    styles = [_STYLES[row["level"]] for row in rows]
    columns = [
        show.Column("budget", [row["name"] for row in rows], False, 0),
        show.Column("window", [row["window"] for row in rows], False, 3),
        _amounts("used", rows, "used", 1),
        _amounts("of", rows, "limit", 2),
        show.Column("share", [f"{row['share']:.0%}" for row in rows], True, 0, styles=styles),
        show.Column("at its end", [_at_end(row, show.money, show.count) for row in rows], True, 4)._replace(
            short=[_at_end(row, show.short_money, show.compact) for row in rows]
        ),
        show.Column("level", [row["level"] for row in rows], False, 0, styles=styles),
    ]
    unpriced = [(row["name"], row["unpriced_turns"]) for row in rows if "unpriced_turns" in row]
    notes = [f"{name}: {show.plural(turns, 'turn')} without a price, not included" for name, turns in unpriced]
    ahead = "" if shape == "csv" else show.notes(filter(None, map(_ahead, rows)), shape, False, verbose=True)
    return show.table(columns, shape, color=color) + ahead + show.notes(notes, shape, color, verbose)


def _ahead(row: Event) -> str:
    """What a budget's forecast says, in words."""
    forecast = row["forecast"]
    if forecast is None or row["share"] >= 1:
        return ""
    limit = show.money(row["limit_usd"]) if "limit_usd" in row else f"{show.count(row['limit_tokens'])} tokens"
    chance = limit_view.chance(forecast["p_exceed"])
    return f"{row['name']}: {chance} likely to reach {limit} before its period ends"


def _amounts(title: str, rows: Sequence[Event], name: str, rank: int) -> show.Column:
    """Amounts of money or of tokens."""
    usd, tokens = [row.get(f"{name}_usd") for row in rows], [row.get(f"{name}_tokens") for row in rows]
    marks = ["+" if name == "used" and "unpriced_turns" in row else "" for row in rows]
    cells, short = (
        [money(a) + mark if a is not None else number(b or 0) for a, b, mark in zip(usd, tokens, marks, strict=True)]
        for money, number in ((show.money, show.count), (show.short_money, show.compact))
    )
    return show.Column(title, cells, rank=rank, short=short)


def _at_end(row: Event, money: Callable[[str], str], number: Callable[[int], str]) -> str:
    forecast = row["forecast"]
    if forecast is None:
        return "too little history"
    if "limit_usd" in row:
        return f"{money(str(forecast['p10']))} to {money(str(forecast['p90']))}"
    return f"{number(round(forecast['p10']))} to {number(round(forecast['p90']))}"
