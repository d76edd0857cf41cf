"""Decides which turns a flat-rate plan covers and which are metered.

The decision is made for each report and never stored. A plan covers its own clients' turns from its first day on, and
turns that the proxy saw with a login, but never turns with an API key. Other turns are metered. Reports show the list
price of covered turns next to the plan's price.
"""

from __future__ import annotations

import bisect
import datetime
from collections.abc import Iterator, Sequence
from decimal import Decimal

from tokenops import catalog, plans, pricing, show, when
from tokenops.events import Event
from tokenops.plans import Binding

# The kind of a request's credential, which the proxy recognises by its form.
LOGIN, KEY = "oauth", "api_key"
# Covered by a plan that is not set.
UNNAMED = "login"
METERED = ""
# The name of the group in rows, and their field.
GROUP, FIELD = "covered", "covered_by"


class Coverage:
    """What the user's plans cover, at any moment."""

    def __init__(self, bound: Sequence[Binding], tz: datetime.tzinfo) -> None:
        self.bound = list(bound)
        days = sorted({binding.since for binding in bound if binding.since})
        self.edges = [when.stamp(when.parse_since(day, 0, tz)) for day in days]
        # Between two edges nothing changes: any day there tells which plans are in force.
        self._days = ["0000-00-00", *days]
        self._known = plans.all_plans()
        self._charged = frozenset(catalog.load("plans")["charged"])
        self._found: dict[tuple[object, ...], str] = {}

    def mark(self, record: Event) -> Event:
        """An event or a row with `covered_by`: the plan, "" if it is metered; without it if that is not known."""
        if record.get("kind") == "row":
            by = {"by": [*record["by"], GROUP]}
            plan = self._of_row(record)
            return record | by | ({} if plan is None else {FIELD: plan})
        return {**record, FIELD: self.plan_of(record, str(record.get("ts", "")))}

    def _of_row(self, row: Event) -> str | None:
        """What covers all turns of a row; None if some may differ from others."""
        if not {"client", "credential", "account"} <= set(row["by"]):
            return None
        first = f"{row['bucket']}:00.000Z" if when.QUARTER in row["by"] else str(row["from"])
        last = first if when.QUARTER in row["by"] else str(row["to"])
        if bisect.bisect_right(self.edges, first) != bisect.bisect_right(self.edges, last):
            return None
        return self.plan_of(row, first)

    def plan_of(self, record: Event, ts: str) -> str:
        """The plan that covers a turn of that moment; "" if it is metered."""
        get = record.get
        at = bisect.bisect_right(self.edges, ts)
        charged = get("cost_source") == "reported" and get("client") in self._charged
        key = (at, get("provider"), get("client"), get("account"), get("credential"), charged)
        plan = self._found.get(key)
        if plan is None:
            plan = self._found[key] = METERED if charged else self._decide(record, self._days[at])
        return plan

    def _decide(self, record: Event, day: str) -> str:
        credential = record.get("credential")
        if credential == KEY:
            return METERED
        for provider in dict.fromkeys(binding.provider for binding in self.bound):
            covering = [
                binding
                for binding in plans.in_force(self.bound, provider, day, record.get("account") or "")
                if self._takes(binding, record, credential == LOGIN)
            ]
            if covering:
                return ", ".join(sorted({binding.plan for binding in covering}))
        return UNNAMED if credential == LOGIN else METERED

    def _takes(self, binding: Binding, record: Event, login: bool) -> bool:
        """Whether a plan covers turns like this one."""
        plan = self._known[binding.plan]
        client = record.get("client") or "unknown"
        sold = plan.provider in catalog.load("providers")["families"]  # else it is a client's own plan, for any model
        if sold and record.get("provider") != plan.provider:
            return False
        own = not sold and record.get("provider") == plan.provider  # whoever used it, such as opencode with Copilot
        return own or client in plan.clients or (sold and (login or client == "unknown" or not plan.clients))


def plan_worth(total: Event, cover: Coverage, since: str, until: str, tz: datetime.tzinfo) -> list[Event]:
    """For each plan that covered something: what that would have cost, the plan's price, and its days in force.

    `total` is that of rows with `covered_by`; the days are those of the span, also those that lie in it only partly.
    A plan that was set without a first day has no `days`: it covers all turns, but since when it was paid is not known.
    """
    rows = []
    for name, usd in sorted((total.get(FIELD) or {}).items()):
        row: Event = {"plan": name, "covered_usd": usd}
        parts = [plan for part in name.split(", ") if (plan := plans.all_plans().get(part))]
        if parts and all(plan.usd for plan in parts):
            row["plan_usd_per_month"] = pricing.plain(sum((Decimal(plan.usd) for plan in parts), Decimal(0)))
        starts = [_start(cover, parts, day) for day in _days(since, until, tz)]
        rows.append(row | ({"days": sum(map(bool, starts))} if parts and "" not in starts else {}))
    return rows


def _days(since: str, until: str, tz: datetime.tzinfo) -> Iterator[str]:
    """The local days of a span."""
    day = when.local(when.moment(since), tz).date()
    last = when.local(when.moment(until) - 1, tz).date()
    while day <= last:
        yield day.isoformat()
        day += datetime.timedelta(1)


def _start(cover: Coverage, bound: Sequence[plans.Plan], day: str) -> str | None:
    """The first day of the plans in force on a day, "" if one has none; None if they are not in force."""
    in_force = [binding for plan in bound for binding in plans.in_force(cover.bound, plan.provider, day)]
    names = {plan.name for plan in bound}
    return min((binding.since for binding in in_force if binding.plan in names), default=None)


def notes(total: Event, worth: Sequence[Event]) -> Iterator[str]:
    """What plans covered, what was metered, what caches saved, and how old the prices are: a sentence each."""
    yield from plan_notes(total, worth)
    yield from price_notes(total)


# Of fewer days a ratio to the price says little.
LEAST_DAYS = 7


def times_its_price(worth: Event) -> str:
    """How often a plan has paid for itself in the days of the span in which it was in force; "" if that is not known."""
    monthly, days = float(worth.get("plan_usd_per_month", 0)), worth.get("days", 0)
    if days < LEAST_DAYS or not monthly:
        return ""
    return f": {show.digits(float(worth['covered_usd']) / (monthly * days / 30))} times its price for {days} days"


def plan_notes(total: Event, worth: Sequence[Event]) -> Iterator[str]:
    """What plans covered, and what was metered."""
    for plan in worth:
        costs = ""
        if "plan_usd_per_month" in plan:
            costs = f", the plan costs {show.money(plan['plan_usd_per_month'])} a month{times_its_price(plan)}"
        name = "a login whose plan is not set" if plan["plan"] == UNNAMED else plan["plan"]
        yield f"covered by {name}: {show.money(plan['covered_usd'])} at list price{costs}"
    if worth:
        yield f"metered: {show.money(total.get('metered_usd', '0'))}"


def price_notes(total: Event) -> Iterator[str]:
    """What caches saved, and how old the prices are."""
    if "cache_saved_usd" in total:
        yield f"saved by caches: {show.money(total['cache_saved_usd'])}, compared with the price of uncached input"
    if "prices_read" in total:
        yield f"prices: the oldest was checked on {total['prices_read']}"
