"""Limits of money or tokens that the user set: how much of each is used, and where its period will end.

Periods are days, weeks from Monday and months of the machine's zone. What is to come is drawn from the user's own last
four weeks, the same weekday first; with less than a week of past there is no forecast. Only what has a price counts.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from tokenops import config, costs, events, plans, pricing, rollup, show, store_summaries, when
from tokenops.config import Unusable
from tokenops.events import Event

WINDOWS = ("daily", "weekly", "monthly")
LEVELS = ("ok", "warn", "critical", "over")
# A threshold that was told is told again only after use fell this far below it.
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
    """What was spent within an hour, by one group of turns; the first of them at a moment. `unpriced` turns cost nothing."""

    at: int
    provider: str
    fields: dict[str, str]
    usd: Decimal
    tokens: int
    unpriced: int


def from_settings(settings: config.Config) -> list[Budget]:
    """The budgets of the configuration. Raises Unusable."""
    given = settings.get("budgets") or []
    if not isinstance(given, list):
        raise Unusable(f"{settings.path}: budgets", "expected a list of {name, window, limit_usd}")
    rules = config.thresholds(settings)["spend"] if given else {}
    return [_budget(one, number, settings.path, rules) for number, one in enumerate(given, 1)]


def _budget(given: Any, number: int, path: str, rules: Mapping[str, float]) -> Budget:
    place = f"{path}: budgets, the {number}{['st', 'nd', 'rd'][number - 1] if number < 4 else 'th'}"
    if not isinstance(given, Mapping):
        raise Unusable(place, "expected {name, window, limit_usd}")
    if unknown := [key for key in given if key not in _KEYS]:
        raise Unusable(place, f"unknown key {unknown[0]!r}", f"choose from {', '.join(_KEYS)}")
    window, basis = given.get("window", "monthly"), given.get("basis", "spend")
    if window not in WINDOWS or basis not in ("spend", "equivalent"):
        raise Unusable(place, f"window is one of {', '.join(WINDOWS)}, basis one of spend, equivalent")
    usd, tokens = (
        _number(given.get("limit_usd"), place, "limit_usd"),
        _number(given.get("limit_tokens"), place, "limit_tokens"),
    )
    if (usd is None) == (tokens is None):
        raise Unusable(place, "give limit_usd or limit_tokens")
    warn, critical = (_number(given.get(key, rules[key]), place, key) for key in ("warn_at", "crit_at"))
    if warn is None or critical is None or not 0 < warn <= critical:
        raise Unusable(place, "warn_at and crit_at are shares, the first not above the second")
    only = {key: str(given[key]) for key in _NAMED if given.get(key)}
    whole = None if tokens is None else int(tokens)
    return Budget(
        str(given.get("name") or f"budget {number}"), window, usd, whole, float(warn), float(critical), only, basis
    )


def _number(given: Any, place: str, key: str) -> Decimal | None:
    if given is None:
        return None
    try:
        value = Decimal(str(given))
    except InvalidOperation:
        value = Decimal(-1)
    if not 0 < value < Decimal(10) ** 15:
        raise Unusable(place, f"{key} is {given!r}", "expected a number above 0")
    return value


_FIELDS = {"project": "project", "agent_id": "agent", "workflow_id": "workflow"}


def hours(folder: str, wanted: Sequence[Budget], catalogue: pricing.Catalogue, now: int, tz: datetime.tzinfo) -> list[Hour]:
    """What the log says was spent, hour by hour, as far back as any budget or forecast needs. Raises OSError."""
    first = min((begin(one.window, now, tz) for one in wanted), default=now)
    since = min(first, now - (LEARNED_DAYS + 1) * when.DAY)
    fields = ["hour", "provider", *(_FIELDS[key] for key in _FIELDS if any(key in one.only for one in wanted))]
    plan = rollup.Grouping(tuple(fields), tz, catalogue)
    found = []
    for row in costs.price_rows(store_summaries.rows(folder, plan, now, when.stamp(since)), catalogue):
        named = {key: str(row.get(key, "")) for key in _NAMED}
        usd, unpriced = Decimal(row.get("cost_usd", "0")), sum(one.get("turns", 0) for one in row.get("unpriced", ()))
        at = when.moment(row["from"])
        found.append(Hour(at, row.get("provider", ""), named, usd, events.token_sum(row), unpriced))
    return found


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
    wanted: Iterable[Budget], found: Sequence[Hour], settings: config.Config, now: int, tz: datetime.tzinfo
) -> list[Event]:
    """A record per budget. Raises Unusable."""
    return [_row(one, _mine(one, found, settings, tz), now, tz) for one in wanted]


def _mine(limit: Budget, found: Sequence[Hour], settings: config.Config, tz: datetime.tzinfo) -> list[Hour]:
    """The hours that count in a budget."""
    kept = [one for one in found if all(one.fields.get(key) == value for key, value in limit.only.items())]
    if limit.basis == "equivalent" or limit.usd is None:
        return kept
    covered: dict[str, Mapping[str, str]] = {}
    made = []
    for one in kept:
        day = when.bucket(one.at, "day", tz)
        if day not in covered:
            covered[day] = plans.covering_plans(settings, day)
        if one.provider not in covered[day]:
            made.append(one)
    return made


def _row(limit: Budget, mine: Sequence[Hour], now: int, tz: datetime.tzinfo) -> Event:
    since, until = begin(limit.window, now, tz), end(limit.window, now, tz)
    within = [one for one in mine if since <= one.at < until]
    made: Event = {"v": 1, "kind": "spend_budget", "name": limit.name, "window": limit.window} | limit.only
    made |= {"basis": limit.basis, "from": when.stamp(since), "to": when.stamp(until), "as_of": when.stamp(now)}
    if limit.usd is not None:
        used: Decimal | int = sum((one.usd for one in within), Decimal(0))
        bound: Decimal | int = limit.usd
        made |= {"limit_usd": pricing.plain(limit.usd), "used_usd": pricing.plain(Decimal(used))}
        if unpriced := sum(one.unpriced for one in within):
            made["unpriced_turns"] = unpriced
    else:
        used, bound = sum(one.tokens for one in within), limit.tokens or 1
        made |= {"limit_tokens": limit.tokens, "used_tokens": used}
    share = float(Decimal(used) / Decimal(bound))
    made["share"] = round(share, 4)
    made["forecast"] = forecast(limit, mine, float(used), float(bound), now, tz)
    made["level"] = level(limit, share, made["forecast"])
    return made


def level(limit: Budget, share: float, expected: Event | None) -> str:
    """ok, warn (also where the budget is more likely to be exceeded than not), critical, over."""
    if share >= 1:
        return "over"
    if share >= limit.critical:
        return "critical"
    likely = expected is not None and expected["p_exceed"] >= LIKELY
    return "warn" if share >= limit.warn or likely else "ok"


def forecast(limit: Budget, mine: Sequence[Hour], used: float, bound: float, now: int, tz: datetime.tzinfo) -> Event | None:
    """What the period will have used at its end: the middle 80 % of what the past says; None with too little past."""
    today = when.local(now, tz).date()
    hour = when.local(now, tz).hour
    full: dict[datetime.date, float] = {}
    after: dict[datetime.date, float] = {}
    first = min((when.local(one.at, tz).date() for one in mine), default=today)
    start = max(first, today - datetime.timedelta(LEARNED_DAYS))
    for number in range((today - start).days):
        full[start + datetime.timedelta(number)] = after[start + datetime.timedelta(number)] = 0.0
    for one in mine:
        at = when.local(one.at, tz)
        if at.date() in full:
            amount = float(one.usd) if limit.usd is not None else float(one.tokens)
            full[at.date()] += amount
            after[at.date()] += amount if at.hour > hour else 0.0
    if len(full) < FEWEST_DAYS:
        return None
    days = (when.local(end(limit.window, now, tz) - 1, tz).date() - today).days
    coming = [today + datetime.timedelta(number) for number in range(1, days + 1)]
    draw = random.Random(f"{limit.name} {today}")
    pools = {day: _pools(day, full) for day in (today, *coming)}
    totals = sorted(
        used + after[_like(*pools[today], draw)] + sum(full[_like(*pools[day], draw)] for day in coming)
        for _ in range(DRAWS)
    )
    made = {name: round(totals[int(q * (DRAWS - 1))], 6) for name, q in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))}
    return made | {"p_exceed": round(sum(one >= bound for one in totals) / DRAWS, 4), "learned_days": len(full)}


Days = Sequence[datetime.date]


def _pools(day: datetime.date, known: Iterable[datetime.date]) -> tuple[Days, Days]:
    """Of the past days those of a day's weekday, and those of its kind (week or weekend), or all where there is none."""
    past = list(known)
    alike = [one for one in past if (one.weekday() < 5) == (day.weekday() < 5)]
    return [one for one in past if one.weekday() == day.weekday()], alike or past


def _like(same: Days, alike: Days, draw: random.Random) -> datetime.date:
    """A past day for one to come: the same weekday three times of four, else any of its kind."""
    pool = same if same and draw.random() < 0.75 else alike
    return pool[draw.randrange(len(pool))]


def due(
    told: Mapping[str, Any], found: Sequence[Event], thresholds: Mapping[str, Budget]
) -> tuple[list[Event], dict[str, Any]]:
    """The budgets whose level is to be told now, and what is remembered: once per level and period, latched.

    A level is forgotten, and so told again, only after the share fell five points below its threshold.
    """
    news: list[Event] = []
    kept: dict[str, Any] = {}
    for row in found:
        rank, before = LEVELS.index(row["level"]), _last_rank(told.get(row["name"]), row["from"])
        if rank > before:
            news.append(row)
            before = rank
        elif rank < before and _has_eased(row, before, thresholds[row["name"]]):
            before = rank
        kept[row["name"]] = {"from": row["from"], "rank": before}
    return news, kept


def _has_eased(row: Event, rank: int, limit: Budget) -> bool:
    """Whether what was told of a budget is clearly over: a forecast that wavers about the middle is not."""
    wavers = rank == 1 and row["forecast"] is not None and row["forecast"]["p_exceed"] >= LIKELY - 3 * HYSTERESIS
    return not wavers and row["share"] < _threshold(limit, rank) - HYSTERESIS


def _last_rank(held: object, since: str) -> int:
    """The level that was told of a budget in this period."""
    rank = held.get("rank") if isinstance(held, dict) and held.get("from") == since else 0
    return rank if type(rank) is int and 0 <= rank < len(LEVELS) else 0


def _threshold(limit: Budget, rank: int) -> float:
    return (0.0, limit.warn, limit.critical, 1.0)[rank]


def table(found: Sequence[Event], shape: str, color: bool) -> str:
    """Budgets for people."""

    def amount(row: Event, name: str) -> str:
        return show.money(row[f"{name}_usd"]) if f"{name}_usd" in row else show.count(row[f"{name}_tokens"])

    def expected(row: Event) -> str:
        told = row["forecast"]
        if told is None:
            return "too little past"
        if "limit_usd" in row:
            return f"{show.money(str(told['p10']))} to {show.money(str(told['p90']))}"
        return f"{show.count(round(told['p10']))} to {show.count(round(told['p90']))}"

    columns = [
        show.Column("budget", [row["name"] for row in found], number=False),
        show.Column("window", [row["window"] for row in found], number=False),
        show.Column("used", [amount(row, "used") for row in found]),
        show.Column("of", [amount(row, "limit") for row in found]),
        show.Column("", [f"{row['share']:.0%}" for row in found]),
        show.Column("at its end", [expected(row) for row in found]),
        show.Column("level", [row["level"] for row in found], number=False),
    ]
    unpriced = [(row["name"], row["unpriced_turns"]) for row in found if "unpriced_turns" in row]
    said = [f"{name}: {turns} turns have no price and are not in it\n" for name, turns in unpriced]
    return show.table(columns, shape, color=color) + "".join(said)
