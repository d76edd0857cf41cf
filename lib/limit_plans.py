"""Reports per plan, for people: how much is used this month, how long the rest lasts, and the risk of a cutoff.

It is made from budget rows (limit_budget), so both agree. No vendor publishes a plan's number of tokens. A value that no
meter reports is null, and `note` says how to get it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import (
    costs,
    events,
    headroom,
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
from tokenops.limit_budget import budgets, forecasts, limits
from tokenops.limit_windows import Key
from tokenops.plans import Binding, Plan
from tokenops.store_days import Recent

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
    limits_now = limits(folder, now, lambda: catalogue, provider, memory, providers=providers)
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
        old = [row for row in budget["windows"] if "last_used" in row]
        last = "".join(
            f", the last, {round(100 * row['last_used'])}% of {row['window']}, was on {row['observed_at'][:10]}"
            for row in sorted(old, key=lambda row: str(row["observed_at"]))[-1:]
        )
        yield f"windows: no current reading{last}: " + ", then ".join(budget["next_actions"])
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
