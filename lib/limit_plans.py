"""Reports what is left: a budget row per account for agents, and a report per plan for people.

A budget is made in one pass: the log is read once, readings become states, local turns carry them forward, the binding
window's forecast is added, and headroom.py judges. The plan report is made from the same budget rows, so both agree. No
vendor publishes a plan's number of tokens. A value that no meter reports is null, and `note` says how to get it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import (
    catalog,
    costs,
    events,
    headroom,
    limit_carry,
    limit_forecast,
    limit_log,
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
from tokenops.headroom import State
from tokenops.limit_windows import Key, Reading
from tokenops.plans import Binding, Plan
from tokenops.pricing import Catalogue
from tokenops.store_days import Recent

# No window is longer than a month.
SPAN_MS = 35 * when.DAY
# A forecast learns from so much of the past; more takes longer and hardly improves it.
LEARNED_MS = 14 * when.DAY


class Limits(NamedTuple):
    """What the log says of limits: the readings, and each window as it is now, with local turns since its reading."""

    readings: list[Reading]
    states: list[State]


def limits(
    folder: str, now: int, catalogue: Callable[[], Catalogue], provider: str = "", memory: Recent | None = None
) -> Limits:
    """The limits of one provider or of all. Everything that a budget takes from the log is read here.

    Raises OSError, and what `catalogue` raises: it is called only if turns followed a reading.
    """
    readings = limit_log.readings(folder, now - SPAN_MS, now, memory)
    if provider:
        readings = [reading for reading in readings if reading.key.provider == provider]
    states = headroom.states(readings, now)
    since = limit_carry.oldest(states, now)
    if since is None:
        return Limits(readings, states)
    cuts = [state.observed_at for state in states]
    spends, rates = limit_log.spends_since(folder, since, now, catalogue, cuts)
    return Limits(readings, limit_carry.carried_forward(states, spends, rates, now))


def budget_rows(
    folder: str,
    now: int,
    thresholds: Mapping[str, Any],
    providers: Iterable[str],
    catalogue: Callable[[], Catalogue],
    provider: str = "",
    model: str = "",
    memory: Recent | None = None,
) -> list[Event]:
    """What is left and what to do: a row per provider and account, of one `provider` or of all. Raises as `limits` does.

    `providers`: those with a plan, which get a row even without a reading; `model`: the one that is called next.
    `thresholds`: as config.thresholds returns them. Keys of a row: v, kind (budget), provider, account, headroom_pct (0 to
    100 or null), window_resets_in, recommended_action (continue, slow_down, switch_model, wait_for_reset), reason (as in
    headroom), switch_to (a family of models), signal_quality {level, source, caveat}, binding_window, windows [{window,
    scope, used, headroom, resets_at, action, binds, ...}], forecast, observed_at, as_of, next_actions.
    """
    limits_now = limits(folder, now, catalogue, provider, memory)
    expected = forecasts(limits_now, now, model)
    return budgets(limits_now.states, now, thresholds, model, expected, [provider] if provider else providers)


def forecasts(limits: Limits, now: int, model: str = "") -> dict[Key, Event]:
    """The forecast of the window that binds, of each account."""
    bound = [headroom.binding(states, model) for states in headroom.by_account(limits.states).values()]
    since = {state.key: (state.likely or 0.0) - (state.used or 0.0) for state in bound if state is not None}
    if not since:
        return {}
    return limit_forecast.forecasts([reading for reading in limits.readings if reading.at >= now - LEARNED_MS], now, since)


def budgets(
    states: Sequence[State],
    now: int,
    thresholds: Mapping[str, Any],
    model: str = "",
    forecasts: Mapping[Key, Event] | None = None,
    providers: Iterable[str] = (),
) -> list[Event]:
    """The rows of budget_rows, from states and forecasts."""
    accounts = headroom.by_account(states)
    for provider in providers:
        if not any(key[0] == provider for key in accounts):
            accounts[provider, ""] = []
    return [_budget(key, group, now, thresholds, model, forecasts or {}) for key, group in sorted(accounts.items())]


def _budget(
    account: tuple[str, str],
    states: Sequence[State],
    now: int,
    thresholds: Mapping[str, Any],
    model: str,
    forecasts: Mapping[Key, Event],
) -> Event:
    judged = headroom.judge(account[0], states, now, thresholds, model, forecasts)
    bound = judged.bound
    row: Event = {"v": 1, "kind": "budget", "provider": account[0]}
    if account[1]:
        row["account"] = account[1]
    row["headroom_pct"] = None if bound is None or bound.headroom is None else int(bound.headroom * 100 + 1e-9)
    row["window_resets_in"] = headroom.duration(bound.resets_at - now) if bound and bound.resets_at else None
    row["recommended_action"] = judged.action
    row["reason"] = judged.reason
    if judged.switch_to:
        row["switch_to"] = judged.switch_to
    row["signal_quality"] = judged.signal
    row["binding_window"] = bound.window if bound else None
    row["windows"] = [_window_row(state, judged, now, thresholds) for state in states]
    if judged.forecast:
        row["forecast"] = judged.forecast
    if bound is not None:
        row["observed_at"] = when.stamp(bound.observed_at)
    row["as_of"] = when.stamp(now)
    row["next_actions"] = next_actions(account[0], bound, now, thresholds["freshness"])
    return row


def _window_row(state: State, judged: headroom.Judgement, now: int, thresholds: Mapping[str, Any]) -> Event:
    """A window with what it advises by itself: the window that binds the action, any other by its share alone."""
    row = headroom.row(state, now)
    if state.used is None:
        return row
    if state is judged.bound:
        return row | {"action": judged.action, "binds": True}
    return row | {"action": headroom.action(state, None, thresholds["budget"], False)[0]}


def next_actions(provider: str, bound: State | None, now: int, freshness: Mapping[str, float]) -> list[str]:
    """What would make the answer better."""
    actions = catalog.load("limits")["next_actions"]
    reading = actions.get(provider, actions["other"])
    if bound is None:
        return [reading, "tok-sync"]
    if (now - bound.observed_at) / 60_000 > freshness["stale"]:
        return ["tok-sync", reading]
    return []


# Plans.

LOW, MEDIUM, HIGH, UNKNOWN = "low", "medium", "high", "unknown"
_RISKS = (LOW, MEDIUM, HIGH)
# The risk is never below what the action of the binding window implies.
_ADVISED = {headroom.CONTINUE: LOW, headroom.SLOW_DOWN: MEDIUM, headroom.SWITCH_MODEL: HIGH, headroom.WAIT: HIGH}
NO_TOKENS = "the vendor publishes shares of its windows, not a number of tokens"


class Longest(NamedTuple):
    """The longest window that was read: its record, how many days it lasts at its pace, and whether until its reset."""

    row: Event
    days: float | None
    lasts: bool | None


def plan_rows(
    folder: str,
    bound: Sequence[Binding],
    now: int,
    tz: datetime.tzinfo,
    thresholds: Mapping[str, Any],
    catalogue: pricing.Catalogue,
    provider: str = "",
    memory: Recent | None = None,
) -> list[Event]:
    """A report per plan in force and account, of one provider or of all. Raises OSError."""
    today = when.bucket(now, "day", tz)
    providers = sorted({binding.provider for binding in bound if provider in ("", binding.provider)})
    in_force = {name: plans.in_force(list(bound), name, today) for name in providers}
    limits_now = limits(folder, now, lambda: catalogue, provider, memory)
    with_plan = [provider] if provider else [name for name in providers if in_force[name]]
    rows = budgets(limits_now.states, now, thresholds, "", forecasts(limits_now, now), with_plan)
    paces = limit_pace.paces(limits_now.readings, now)
    reports = []
    for name in providers:
        mine = [row for row in rows if row["provider"] == name]
        pairs = list(_budgets_of_plans(in_force[name], mine, now, thresholds))
        spent = _month_spend(folder, in_force[name][0], now, tz, catalogue) if len(pairs) == 1 else None
        reports += [report(binding, row, spent, paces, now, thresholds["plan"]) for binding, row in pairs]
    return reports


def _budgets_of_plans(
    in_force: Sequence[Binding], rows: Sequence[Event], now: int, thresholds: Mapping[str, Any]
) -> Iterator[tuple[Binding, Event]]:
    """Each plan in force with the budget of each of its accounts: the one that it names, or all that no plan names."""
    others = {binding.account for binding in in_force if binding.account}
    for binding in in_force:
        own = [row for row in rows if _is_account_of(binding, str(row.get("account", "")), others)]
        if not own:  # nothing is known of an account without a reading
            unread = {"account": binding.account} if binding.account else {}
            own = [row | unread for row in budgets([], now, thresholds, providers=[binding.provider])]
        for row in own:
            yield binding, row


def _is_account_of(binding: Binding, account: str, others: set[str]) -> bool:
    return account == binding.account or (not binding.account and account not in others)


def _month_spend(folder: str, binding: Binding, now: int, tz: datetime.tzinfo, catalogue: pricing.Catalogue) -> Event:
    """What the log holds of a plan's provider since the month, the plan or the log began, whichever came last."""
    begin = when.stamp(when.parse_since(max(f"{when.bucket(now, 'month', tz)}-01", binding.since), now, tz))
    days = store.days(folder)
    since = max(begin, f"{days[0]}T00:00:00.000Z") if days else begin
    rolled = store_summaries.rows(folder, rollup.Grouping(("provider",), tz, catalogue), now, since, when.stamp(now))
    row = next((row for row in costs.price_rows(rolled, catalogue) if row.get("provider") == binding.provider), {})
    return row | {"since": since, "young": since > begin}


def report(
    binding: Binding,
    budget: Event,
    spent: Event | None,
    paces: Mapping[Key, limit_pace.Pace],
    now: int,
    rules: Mapping[str, float],
) -> Event:
    """One plan of one account. `budget`: its budget row; `spent`: what the log holds of it, None if accounts share it."""
    plan = plans.all_plans()[binding.plan]
    bound, longest = _binding(budget), _longest(budget, paces, now)
    row: Event = {
        "v": 1,
        "kind": "plan_headroom",
        "provider": plan.provider,
        "plan_name": plan.name,
        "display": plan.display,
    }
    if "account" in budget:
        row["account"] = budget["account"]
    row |= {"quota_tokens": None, **_month_use(spent), **_days(longest)}
    row |= {"overage_risk": risk(budget, bound, longest, rules), **_window(budget, bound, plan)}
    row |= {"signal_quality": budget["signal_quality"], "note": "; ".join(_notes(budget, bound, longest, spent))}
    return row


def _month_use(spent: Event | None) -> Event:
    """What was used this month; null if the log holds no turn, which does not prove that there was none."""
    if not spent or not spent.get("turns"):
        return dict.fromkeys(("consumed_tokens", "consumed_cost_usd", "consumed_since"))
    tokens, cost = events.token_sum(spent), spent.get("cost_usd")
    return {"consumed_tokens": tokens, "consumed_cost_usd": cost, "consumed_since": spent["since"]}


def _days(longest: Longest | None) -> Event:
    if longest is None:
        return dict.fromkeys(("consumed_pct", "consumed_window", "headroom_days", "lasts_until_reset"))
    share = {"consumed_pct": _percent(longest.row), "consumed_window": longest.row["window"]}
    return share | {"headroom_days": longest.days, "lasts_until_reset": longest.lasts}


def _window(budget: Event, bound: Event | None, plan: Plan) -> Event:
    """The window that binds. Vendors report its use as a share, also if they publish its size."""
    published = next(
        (window for window in plan.windows if window["window"] == budget["binding_window"] and "limit" in window), {}
    )
    row = {
        "window": budget["binding_window"],
        "window_duration": _length(bound.get("window_minutes")) if bound else None,
    }
    row |= {"window_cap": published.get("limit"), "window_unit": published.get("unit"), "window_consumed": None}
    row |= {
        "window_pct": _percent(bound) if bound else None,
        "window_resets_at": bound.get("resets_at") if bound else None,
    }
    return row | {"window_resets_in": budget["window_resets_in"]}


def _read_windows(budget: Event) -> list[Event]:
    """The windows that count for every model and have a reading since they began."""
    return [
        row
        for row in budget["windows"]
        if row["used"] is not None and row["window"] != "credits" and limit_windows.applies(row.get("scope", ""), "")
    ]


def _binding(budget: Event) -> Event | None:
    """The record of the budget's binding window."""
    named = (row for row in _read_windows(budget) if row["window"] == budget["binding_window"])
    return max(named, key=lambda row: (row.get("status") == "rejected", _share(row)), default=None)


def _share(row: Event) -> float:
    """The share that is used of a window, with local turns since the reading, as in headroom_pct."""
    return float(row["carried"]["used"]["p50"] if "carried" in row else row["used"])


def _percent(row: Event) -> float:
    return round(100 * _share(row), 2)


def _length(minutes: int | None) -> str | None:
    """The length of a window: 5h, 7d, 30d."""
    if not minutes:
        return None
    return f"{minutes // 1440}d" if minutes % 1440 == 0 else f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


def _longest(budget: Event, paces: Mapping[Key, limit_pace.Pace], now: int) -> Longest | None:
    """The longest window, and how long it lasts."""
    row = max(
        (row for row in _read_windows(budget) if "window_minutes" in row),
        key=lambda row: row["window_minutes"],
        default=None,
    )
    if row is None:
        return None
    pace = paces.get(Key(budget["provider"], budget.get("account", ""), row["window"], row.get("scope", "")))
    if row["headroom"] == 0:
        return Longest(row, 0.0, False)
    if pace is None or pace.per_hour <= 0:
        return Longest(row, None, None if pace is None else True)
    hours = row["headroom"] / pace.per_hour
    resets = when.moment(row["resets_at"]) if "resets_at" in row else None
    return Longest(row, round(hours / 24, 1), None if resets is None else now + hours * 3_600_000 >= resets)


def risk(budget: Event, bound: Event | None, longest: Longest | None, rules: Mapping[str, float]) -> str:
    """The risk of a cutoff before a reset: low, medium, high, or unknown without a reading.

    The forecast of the window that binds decides, or its used share if there is none. If the longest window does not last
    until its reset at its pace, the risk is at least medium, and it is never below what the action implies.
    """
    if bound is None:
        return UNKNOWN
    forecast = budget.get("forecast")
    if forecast and not forecast.get("few_data"):
        level = _level(forecast["p_cutoff"], rules["p_medium"], rules["p_high"])
    else:
        level = _level(_share(bound), rules["medium"], rules["high"])
    straight = MEDIUM if longest and longest.lasts is False else LOW
    return max(level, straight, _ADVISED[budget["recommended_action"]], key=_RISKS.index)


def _level(value: float, medium: float, high: float) -> str:
    return HIGH if value >= high else MEDIUM if value >= medium else LOW


def _notes(budget: Event, bound: Event | None, longest: Longest | None, spent: Event | None) -> Iterator[str]:
    """Why a value is null and how to get it, and what is left of windows that do not count for every model."""
    yield f"quota_tokens: {NO_TOKENS}"
    if spent is None:
        yield "consumed_tokens: several accounts share this provider, and turns do not name theirs"
    elif not spent.get("turns"):
        yield f"consumed_tokens: no turn of {budget['provider']} in the log this month; there may be some elsewhere"
    elif spent["young"]:
        yield f"consumed_tokens: since {spent['since'][:10]}, when the log begins"
    if spent and spent.get("unpriced"):
        yield "consumed_cost_usd: part of it has no price (see tok-cost)"
    if bound is None:
        yield "windows: no reading: " + ", then ".join(budget["next_actions"])
    elif longest:
        yield f"headroom_days: {_lasting(longest)}"
    for row in budget["windows"]:
        if row["used"] is not None and row not in _read_windows(budget):
            yield f"{' '.join(filter(None, (row['window'], row.get('scope'))))}: {int(row['headroom'] * 100 + 1e-9)}% left"


def _lasting(longest: Longest) -> str:
    window = longest.row["window"]
    if longest.days is None:
        return f"{'no recent use' if longest.lasts else 'too few recent readings'} of the {window} window"
    until = {True: "which is after its reset", False: "before its reset", None: "its reset is unknown"}[longest.lasts]
    return f"days until the {window} limit runs out at the recent rate, {until}"


_RISK_STYLES = {LOW: "good", MEDIUM: "warn", HIGH: "bad", UNKNOWN: ""}


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """Plans for people, without the note on quota_tokens, which is the same for every plan."""

    def cells(title: str, value_of: Callable[[Event], Any], rank: int, number: bool = False) -> show.Column:
        values = [value_of(row) for row in rows]
        return show.Column(title, ["unknown" if value is None else str(value) for value in values], number, rank)

    columns = [
        cells("provider", lambda row: " ".join(filter(None, (row["provider"], row.get("account")))), 3),
        cells("plan", lambda row: row["display"], 0),
        cells("window", lambda row: None if row["window"] is None else when.window_text(row["window"]), 1),
        cells("used", lambda row: None if row["window_pct"] is None else f"{row['window_pct']:.0f}%", 0, True),
        cells("resets in", lambda row: row["window_resets_in"], 2),
        cells("days left", lambda row: row["headroom_days"], 3, True),
        cells("risk", lambda row: row["overage_risk"], 0)._replace(
            styles=[_RISK_STYLES[row["overage_risk"]] for row in rows]
        ),
        show.counts("tokens this month", [row["consumed_tokens"] for row in rows], 4, "tokens"),
        show.amounts("list price", [row["consumed_cost_usd"] for row in rows], heading="price"),
    ]
    notes = [f"{row['plan_name']}: {note}" for row in rows for note in row["note"].split("; ")[1:]]
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose)
