"""Answers what vendors announced about the windows of plans and when it holds, and checks what the catalogue says of plans.

An announcement has dates: a window buys more or less from a day on, has another limit until a day, or does not hold for a
while. Nothing here reads a clock. The facts are in catalog/plans.yaml.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import catalog, light
from tokenops.plans import Plan

_DAY = light.pattern(r"\d{4}-\d{2}-\d{2}\Z")
_MONTH = light.pattern(r"\d{4}-\d{2}\Z")
# What an announcement says, one of these.
SAYS = ("factor", "limit", "suspended")
_KNOWN = {"window", "plans", "from", "until", "captured", "source", "doubt", *SAYS}


class Announcement(NamedTuple):
    """What a vendor announced of a window. `plans` (): of all; `since` "": unknown when it began; `until` "": still so."""

    window: str
    plans: tuple[str, ...]
    since: str
    until: str
    factor: float | None
    limit: float | None
    suspended: bool
    source: tuple[str, ...]

    def holds(self, day: str) -> bool:
        """Whether it holds on a day (YYYY-MM-DD)."""
        return self.since <= day and (not self.until or day < self.until)

    def concerns(self, plan: str, window: str) -> bool:
        """Whether it is about a window of a plan."""
        return window == self.window and (not self.plans or plan in self.plans)


def announcements(provider: str) -> list[Announcement]:
    """What a provider announced, in order of its first days."""
    entries = catalog.load("plans")["announced"].get(provider, ())
    return sorted(map(_announcement, entries), key=lambda each: (each.since, each.window, each.plans))


def _announcement(entry: Mapping[str, Any]) -> Announcement:
    factor, limit = (None if entry.get(name) is None else float(entry[name]) for name in ("factor", "limit"))
    days = str(entry.get("from") or ""), str(entry.get("until") or "")
    named = tuple(map(str, entry.get("plans") or ()))
    return Announcement(
        entry["window"], named, *days, factor, limit, bool(entry.get("suspended")), tuple(map(str, entry["source"]))
    )


def on_day(plan: Plan, day: str) -> Plan:
    """A plan with its windows as they are on a day: without those that are suspended, and with the limits of that day."""
    mine = [each for each in announcements(plan.provider) if each.holds(day)]
    windows = []
    for window in plan.windows:
        own = [each for each in mine if each.concerns(plan.name, window["window"])]
        limits = [each.limit for each in own if each.limit is not None]
        if not any(each.suspended for each in own):
            windows.append({**window, "limit": limits[-1]} if limits else window)
    return plan._replace(windows=tuple(windows))


def coming(provider: str, first: str, last: str) -> list[dict[str, Any]]:
    """What begins or ends after one day and up to another, by announcement, in order of time.

    Keys: window, plans, at (the day), what (begins, ends), and factor, limit or suspended. The end of one that another
    follows on the same day is left out: the other says what changes.
    """
    every = announcements(provider)
    result = []
    for each in every:
        says = {"factor": each.factor, "limit": each.limit, "suspended": each.suspended or None}
        content = {name: value for name, value in says.items() if value is not None}
        row = {"window": each.window, **({"plans": list(each.plans)} if each.plans else {})}
        if first < each.since <= last:
            result.append(row | {"at": each.since, "what": "begins"} | content)
        if first < each.until <= last and not any(_follows(other, each) for other in every):
            result.append(row | {"at": each.until, "what": "ends"} | content)
    return sorted(result, key=lambda row: (row["at"], row["window"]))


def _follows(other: Announcement, earlier: Announcement) -> bool:
    return other.since == earlier.until and other.window == earlier.window and other.plans == earlier.plans


def factor(changes: Sequence[Mapping[str, Any]], plan: str, window: str) -> float:
    """How many times as much a window of a plan buys after some changes, as `coming` gives them."""
    result = 1.0
    for change in changes:
        if change.get("factor") and change["window"] == window and plan in change.get("plans", [plan]):
            result *= change["factor"] if change["what"] == "begins" else 1 / change["factor"]
    return result


# The check.


def faults(data: Mapping[str, Any], today: str) -> list[str]:
    """What is wrong in a catalogue of plans, each in a sentence that names the place and what to write instead."""
    return [*_plan_faults(data), *_announcement_faults(data, today), *_banked_faults(data, today)]


def _plan_faults(data: Mapping[str, Any]) -> Iterator[str]:
    plans = data["plans"]
    for name, plan in plans.items():
        if "same_as" in plan:
            if plan["same_as"] not in plans:
                yield f"plans.{name}: same_as names {plan['same_as']!r}, which is no plan; name one of the file"
            continue
        if not plan.get("source"):
            yield f"plans.{name}: source is missing; name the pages that say so"
        for window in plan.get("windows", ()):
            where = f"plans.{name}, window {window.get('window')!r}"
            if not isinstance(window.get("minutes"), int) or window["minutes"] <= 0:
                yield f"{where}: minutes is {window.get('minutes')!r}; write the length of the window in whole minutes"
            if ("limit" in window) != ("unit" in window):
                yield f"{where}: limit and unit belong together; write both, or neither"
            if ("base" in window) != ("flex" in window):
                yield f"{where}: base and flex belong together; write both, or neither"
            elif "base" in window and window["base"] + window["flex"] != window.get("limit"):
                yield f"{where}: base {window['base']} and flex {window['flex']} do not add up to the limit; correct one"
    for name, target in data.get("aliases", {}).items():
        if target not in plans:
            yield f"aliases.{name}: {target!r} is no plan; name one of the file"
        elif name in plans:
            yield f"aliases.{name}: a plan has this name; remove the alias"


def _announcement_faults(data: Mapping[str, Any], today: str) -> Iterator[str]:
    plans = data["plans"]
    for provider, entries in data["announced"].items():
        names = {name for name, plan in plans.items() if plan.get("provider") == provider}
        windows = {window["window"] for name in names for window in plans[name].get("windows", ())}
        for number, entry in enumerate(entries, 1):
            where = f"announced.{provider}, entry {number}"
            if unknown := sorted(entry.keys() - _KNOWN):
                yield f"{where}: {unknown[0]!r} is not known; write {', '.join(sorted(_KNOWN))}"
            if entry.get("window") not in windows:
                yield f"{where}: no plan of {provider} has a window {entry.get('window')!r}"
            if sum(name in entry for name in SAYS) != 1:
                yield f"{where}: it must say one of {', '.join(SAYS)}"
            if other := sorted(set(entry.get("plans") or ()) - names):
                yield f"{where}: {other[0]!r} is no plan of {provider}"
            yield from _date_faults(where, entry)
            yield from _origin_faults(where, entry, today)
        yield from _overlaps(provider, entries)


def _date_faults(where: str, entry: Mapping[str, Any]) -> Iterator[str]:
    first, last = (entry.get(name) for name in ("from", "until"))
    if not first and not last:
        yield f"{where}: it has no dates; write from, until or both"
    for name, day in (("from", first), ("until", last)):
        if day and not _is_day(day):
            yield f"{where}: {name} is {day!r}; write a day such as 2026-09-14, in quotes"
            return
    if first and last and last <= first:
        yield f"{where}: it ends on {last}, before it begins; correct from or until"
    if not last and entry.get("suspended"):
        yield f"{where}: a window that is suspended without an end is no window; write until, or remove it from the plan"


def _is_day(day: object) -> bool:
    try:
        return isinstance(day, str) and bool(_DAY.match(day)) and bool(datetime.date.fromisoformat(day))
    except ValueError:
        return False


def _origin_faults(where: str, entry: Mapping[str, Any], today: str) -> Iterator[str]:
    captured = entry.get("captured")
    if not entry.get("source"):
        yield f"{where}: source is missing; name the pages that say so"
    if not isinstance(captured, str) or not (_MONTH.match(captured) or _is_day(captured)):
        yield f"{where}: captured is {captured!r}; write the month or day on which the source was read, such as 2026-09"
    elif captured > today:
        yield f"{where}: captured is {captured}, which is in the future"


def _overlaps(provider: str, entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Two announcements of the same kind about one window must not hold at once: nobody could say which counts."""
    for number, entry in enumerate(entries, 1):
        for later, other in enumerate(entries[number:], number + 1):
            plans = set(entry.get("plans") or ()), set(other.get("plans") or ())
            is_same = entry.get("window") == other.get("window") and (not all(plans) or bool(plans[0] & plans[1]))
            says = [{name for name in SAYS if name in each} for each in (entry, other)]
            spans = [(str(each.get("from") or ""), str(each.get("until") or "9")) for each in (entry, other)]
            # A factor without an end is a change for good: the next one starts from it.
            good = any("factor" in each and not each.get("until") for each in (entry, other))
            if is_same and says[0] == says[1] and not good and spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]:
                yield f"announced.{provider}, entries {number} and {later}: both hold at once; correct their dates"


def _banked_faults(data: Mapping[str, Any], today: str) -> Iterator[str]:
    for provider, entry in data["banked_resets"].items():
        where = f"banked_resets.{provider}"
        if not isinstance(entry.get("days"), int) or entry["days"] <= 0:
            yield f"{where}: days is {entry.get('days')!r}; write how many whole days a reset lasts"
        plans = [plan for plan in data["plans"].values() if plan.get("provider") == provider]
        if entry.get("anchors") not in {None, *(window["window"] for plan in plans for window in plan.get("windows", ()))}:
            yield f"{where}: anchors names {entry['anchors']!r}, which no plan of {provider} has"
        yield from _origin_faults(where, entry, today)
