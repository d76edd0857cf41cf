"""What is left of each plan: budget rows for agents, and a report per plan for people.

No vendor says how many tokens a plan holds, so none is said here. What no meter tells is null, and `note` says what would
tell it. The window that binds, its share and its reset are those of tok-budget: both ask `budget`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import (
    costs,
    events,
    headroom,
    limit_carry,
    limit_forecast,
    limit_meters,
    limit_pace,
    limit_windows,
    plans,
    pricing,
    rollup,
    show,
    store,
    store_summaries,
    when,
)
from tokenops.events import Event
from tokenops.headroom import Window
from tokenops.limit_windows import Key, Seen
from tokenops.plans import Binding, Plan
from tokenops.pricing import Catalogue
from tokenops.store_days import Recent

# No window is longer than a month.
SPAN_MS = 35 * when.DAY
# How much of the past a forecast is learned from; more costs time, and tells little more.
LEARNED_MS = 14 * when.DAY


def budget_rows(
    folder: str,
    now: int,
    rules: Mapping[str, Any],
    plans: Iterable[str],
    catalogue: Callable[[], Catalogue],
    provider: str = "",
    model: str = "",
    memory: Recent | None = None,
) -> list[Event]:
    """An answer per provider and account that has a plan (`plans`) or a reading, or of one provider only.

    Raises OSError, and what `catalogue` raises: it is asked only where turns followed a reading.
    """
    readings = limit_meters.readings(folder, now - SPAN_MS, now, memory)
    if provider:
        readings, plans = [one for one in readings if one.key.provider == provider], [provider]
    found = carried(folder, headroom.windows(readings, now), catalogue, now)
    return headroom.budgets(found, now, rules, model, forecasts(readings, found, now, model), plans)


def carried(folder: str, found: list[Window], catalogue: Callable[[], Catalogue], now: int) -> list[Window]:
    """Windows with what local turns added since they were read. Raises OSError."""
    read = [one.observed_at for one in found if one.used is not None and one.observed_at > now - limit_carry.OLDEST_MS]
    turns = list(limit_carry.turns_since(folder, min(read), now)) if read else []
    if not turns:
        return found
    prices = catalogue()
    spent = limit_carry.spent_between(turns, prices, [one.observed_at for one in found])
    return limit_carry.carried(found, spent, limit_carry.learned(folder, prices, now), now)


def forecasts(readings: Iterable[Seen], found: Iterable[Window], now: int, model: str = "") -> dict[Any, Event]:
    """The forecast of the window that binds, of each account."""
    binding = headroom.binding_keys(found, model)
    return limit_forecast.forecasts([one for one in readings if one.at >= now - LEARNED_MS], now, binding) if binding else {}


LOW, MEDIUM, HIGH, UNKNOWN = "low", "medium", "high", "unknown"
_RISKS = (LOW, MEDIUM, HIGH)
# What is advised of the window that binds is the least that the risk can be.
_ADVISED = {headroom.CONTINUE: LOW, headroom.SLOW_DOWN: MEDIUM, headroom.SWITCH_MODEL: HIGH, headroom.WAIT: HIGH}
NO_TOKENS = "its vendor says no number of tokens, only shares of its windows"


class Longest(NamedTuple):
    """The longest window that was read: its record, how many days it lasts at its pace, and whether that is to its reset."""

    row: Event
    days: float | None
    lasts: bool | None


def plan_rows(
    folder: str,
    bound: Sequence[Binding],
    now: int,
    tz: datetime.tzinfo,
    rules: Mapping[str, Any],
    catalogue: pricing.Catalogue,
    provider: str = "",
    memory: Recent | None = None,
) -> list[Event]:
    """A report for each plan in force now and account of it, of one provider or of all. Raises OSError."""
    today = when.bucket(now, "day", tz)
    providers = sorted({one.provider for one in bound if provider in ("", one.provider)})
    held = {name: plans.in_force(list(bound), name, today) for name in providers}
    names, memory = [name for name in providers if held[name]], memory or limit_meters.memory()
    told = budget_rows(folder, now, rules, names, lambda: catalogue, provider, memory=memory)
    paces = limit_pace.paces(limit_meters.readings(folder, now - SPAN_MS, now, memory), now)
    made = []
    for name in providers:
        pairs = list(_accounts(held[name], [row for row in told if row["provider"] == name], now, rules))
        spent = _spent(folder, held[name][0], now, tz, catalogue) if len(pairs) == 1 else None
        made += [report(one, row, spent, paces, now, rules["plan"]) for one, row in pairs]
    return made


def _accounts(
    held: Sequence[Binding], told: Sequence[Event], now: int, rules: Mapping[str, Any]
) -> Iterator[tuple[Binding, Event]]:
    """Each plan in force with the budget of each account that it is of: of the one it names, or of those no other names."""
    others = {one.account for one in held if one.account}
    for one in held:
        mine = [row for row in told if _account(row) == one.account or (not one.account and _account(row) not in others)]
        if not mine:  # of an account that nobody has read yet nothing is known
            unread = {"account": one.account} if one.account else {}
            mine = [row | unread for row in headroom.budgets([], now, rules, providers=[one.provider])]
        for row in mine:
            yield one, row


def _account(told: Event) -> str:
    return str(told.get("account", ""))


def _spent(folder: str, held: Binding, now: int, tz: datetime.tzinfo, catalogue: pricing.Catalogue) -> Event:
    """What the log says of a plan's provider since the month began, or the plan, or the log."""
    asked = when.stamp(when.parse_since(max(f"{when.bucket(now, 'month', tz)}-01", held.since), now, tz))
    days = store.days(folder)
    since = max(asked, f"{days[0]}T00:00:00.000Z") if days else asked
    rolled = store_summaries.rows(folder, rollup.Grouping(("provider",), tz, catalogue), now, since, when.stamp(now))
    row = next((row for row in costs.price_rows(rolled, catalogue) if row.get("provider") == held.provider), {})
    return row | {"since": since, "young": since > asked}


def report(
    one: Binding,
    told: Event,
    spent: Event | None,
    paces: Mapping[Key, limit_pace.Pace],
    now: int,
    rules: Mapping[str, float],
) -> Event:
    """One plan of one account. `told`: its budget; `spent`: what the log says of it, None where accounts share it."""
    plan = plans.all_plans()[one.plan]
    binding, longest = _binding(told), _longest(told, paces, now)
    made: Event = {
        "v": 1,
        "kind": "plan_headroom",
        "provider": plan.provider,
        "plan_name": plan.name,
        "display": plan.display,
    }
    if "account" in told:
        made["account"] = told["account"]
    made |= {"quota_tokens": None, **_consumed(spent), **_days(longest)}
    made |= {"overage_risk": risk(told, binding, longest, rules), **_window(told, binding, plan)}
    made |= {"signal_quality": told["signal_quality"], "note": "; ".join(_notes(told, binding, longest, spent))}
    return made


def _consumed(spent: Event | None) -> Event:
    """What was used this month; a log that holds nothing of it does not say that it was nothing."""
    if not spent or not spent.get("turns"):
        return dict.fromkeys(("consumed_tokens", "consumed_cost_usd", "consumed_since"))
    tokens, cost = events.token_sum(spent), spent.get("cost_usd")
    return {"consumed_tokens": tokens, "consumed_cost_usd": cost, "consumed_since": spent["since"]}


def _days(longest: Longest | None) -> Event:
    if longest is None:
        return dict.fromkeys(("consumed_pct", "consumed_window", "headroom_days", "lasts_until_reset"))
    share = {"consumed_pct": _percent(longest.row), "consumed_window": longest.row["window"]}
    return share | {"headroom_days": longest.days, "lasts_until_reset": longest.lasts}


def _window(told: Event, binding: Event | None, plan: Plan) -> Event:
    """The window that binds; how much of a published size is used its vendor tells as a share only."""
    published = next((one for one in plan.windows if one["window"] == told["binding_window"] and "limit" in one), {})
    about = {
        "window": told["binding_window"],
        "window_duration": _length(binding.get("window_minutes")) if binding else None,
    }
    about |= {"window_cap": published.get("limit"), "window_unit": published.get("unit"), "window_consumed": None}
    about |= {
        "window_pct": _percent(binding) if binding else None,
        "window_resets_at": binding.get("resets_at") if binding else None,
    }
    return about | {"window_resets_in": told["window_resets_in"]}


def _read(told: Event) -> list[Event]:
    """The windows that count for every model and were read since they began."""
    return [
        row
        for row in told["windows"]
        if row["used"] is not None and row["window"] != "credits" and limit_windows.applies(row.get("scope", ""), "")
    ]


def _binding(told: Event) -> Event | None:
    """The window that tok-budget calls the one that binds."""
    named = (row for row in _read(told) if row["window"] == told["binding_window"])
    return max(named, key=lambda row: (row.get("status") == "rejected", _share(row)), default=None)


def _share(row: Event) -> float:
    """What is used of a window, with what local turns added to the reading: what tok-budget's headroom is made of."""
    return float(row["carried"]["used"]["p50"] if "carried" in row else row["used"])


def _percent(row: Event) -> float:
    return round(100 * _share(row), 2)


def _length(minutes: int | None) -> str | None:
    """How long a window is: 5h, 7d, 30d."""
    if not minutes:
        return None
    return f"{minutes // 1440}d" if minutes % 1440 == 0 else f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


def _longest(told: Event, paces: Mapping[Key, limit_pace.Pace], now: int) -> Longest | None:
    """The longest window, and how long it lasts."""
    row = max((row for row in _read(told) if "window_minutes" in row), key=lambda row: row["window_minutes"], default=None)
    if row is None:
        return None
    lately = paces.get(Key(told["provider"], told.get("account", ""), row["window"], row.get("scope", "")))
    if row["headroom"] == 0:
        return Longest(row, 0.0, False)
    if lately is None or lately.per_hour <= 0:
        return Longest(row, None, None if lately is None else True)
    hours = row["headroom"] / lately.per_hour
    resets = when.moment(row["resets_at"]) if "resets_at" in row else None
    return Longest(row, round(hours / 24, 1), None if resets is None else now + hours * 3_600_000 >= resets)


def risk(told: Event, binding: Event | None, longest: Longest | None, rules: Mapping[str, float]) -> str:
    """How likely work is stopped before a reset: low, medium, high, or unknown where nothing was read.

    The forecast of the window that binds decides, or how much of it is used where there is none. A longest window that
    does not last until its reset at its pace is at least medium. What tok-budget advises is never below.
    """
    if binding is None:
        return UNKNOWN
    forecast = told.get("forecast")
    if forecast and not forecast.get("few_data"):
        found = _level(forecast["p_cutoff"], rules["p_medium"], rules["p_high"])
    else:
        found = _level(_share(binding), rules["medium"], rules["high"])
    straight = MEDIUM if longest and longest.lasts is False else LOW
    return max(found, straight, _ADVISED[told["recommended_action"]], key=_RISKS.index)


def _level(value: float, medium: float, high: float) -> str:
    return HIGH if value >= high else MEDIUM if value >= medium else LOW


def _notes(told: Event, binding: Event | None, longest: Longest | None, spent: Event | None) -> Iterator[str]:
    """Why something is null, and what would tell it; and what else is nearly used up."""
    yield f"quota_tokens: {NO_TOKENS}"
    if spent is None:
        yield "consumed_tokens: several accounts share this provider, and the log does not say whose a turn is"
    elif not spent.get("turns"):
        yield f"consumed_tokens: the log holds no turn of {told['provider']} this month: no proof that there was none"
    elif spent["young"]:
        yield f"consumed_tokens: since {spent['since'][:10]}, when the log begins"
    if spent and spent.get("unpriced"):
        yield "consumed_cost_usd: some of it has no price (tok-cost says what)"
    if binding is None:
        yield "windows: no reading: " + ", then ".join(told["next_actions"])
    elif longest:
        yield f"headroom_days: {_lasting(longest)}"
    for row in told["windows"]:
        if row["used"] is not None and row not in _read(told):
            yield f"{' '.join(filter(None, (row['window'], row.get('scope'))))}: {int(row['headroom'] * 100 + 1e-9)}% left"


def _lasting(longest: Longest) -> str:
    window = longest.row["window"]
    if longest.days is None:
        return f"{'nothing was used' if longest.lasts else 'too little was read'} of the {window} window lately"
    until = {True: "which is after its reset", False: "before its reset", None: "its reset is not known"}[longest.lasts]
    return f"until the {window} window is used up at the pace of late, {until}"


def table(made: Sequence[Event], shape: str, color: bool) -> str:
    """Plans for people; that no vendor says a number of tokens is not said again and again."""

    def cells(title: str, of: Callable[[Event], Any], number: bool = True) -> show.Column:
        found = [of(row) for row in made]
        return show.Column(title, ["unknown" if value is None else str(value) for value in found], number)

    columns = [
        cells("provider", lambda row: " ".join(filter(None, (row["provider"], row.get("account")))), False),
        cells("plan", lambda row: row["display"], False),
        cells("window", lambda row: row["window"], False),
        cells("used", lambda row: None if row["window_pct"] is None else f"{row['window_pct']:.0f}%"),
        cells("resets in", lambda row: row["window_resets_in"]),
        cells("days left", lambda row: row["headroom_days"]),
        cells("risk", lambda row: row["overage_risk"], False),
        cells("tokens this month", lambda row: None if row["consumed_tokens"] is None else f"{row['consumed_tokens']:,}"),
        cells("list price", lambda row: show.money(row["consumed_cost_usd"]) or None),
    ]
    said = [f"{row['plan_name']}: {note}\n" for row in made for note in row["note"].split("; ")[1:] if shape != "csv"]
    return show.table(columns, shape, color=color) + "".join(said)
