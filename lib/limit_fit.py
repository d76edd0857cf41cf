"""Replays the last month of turns on the windows of each plan: how often they would have been cut off, and for how long.

A window is of known size if the vendor publishes it in dollars, if the account's own past tells what a percent of it is
worth (limit_worth.py), or if the catalogue says how many times another plan's window it is. A plan with a window of unknown
size cannot be judged. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tokenops import catalog, limit_next, limit_view, show, when
from tokenops.events import Event
from tokenops.limit_windows import MINUTE
from tokenops.limit_worth import Interval
from tokenops.plans import Plan

FITS, TIGHT, SMALL, UNKNOWN = "fits", "tight", "too_small", "cannot_tell"
LEARNED, MULTIPLE, PUBLISHED = "learned", "multiple", "published"
DAYS = 30
# With fewer days of use a month says nothing of the next.
FEWEST_DAYS = 7
# A plan is tight with at least so many cutoffs in a month, and too small with so many hours without work.
_TIGHT, _SMALL_HOURS = 1, 10.0


class Use(NamedTuple):
    """A turn: when, and what it cost at list price."""

    at: int
    usd: float


class Size(NamedTuple):
    """What a whole window buys, in dollars at list price, and where that is from."""

    usd: Interval
    source: str


class Cutoffs(NamedTuple):
    """How often use met a limit, and for how many hours in all work had to wait."""

    times: int
    hours: float


Sizes = Mapping[tuple[str, str], Size]  # plan, window -> its size


def sizes(plan: Plan, learned: Sizes, catalogue: Mapping[str, Plan]) -> dict[str, Size]:
    """The size of each of a plan's windows that is known, by window. `learned`: of plans that the user has."""
    multiples = catalog.load("plans")["multiples"]
    result: dict[str, Size] = {}
    for window in plan.windows:
        name = str(window["window"])
        if (plan.name, name) in learned:
            result[name] = learned[plan.name, name]
        elif window.get("unit") in _DOLLARS:
            usd = float(window["limit"]) * _DOLLARS[window["unit"]]
            result[name] = Size(Interval(usd, usd, usd), PUBLISHED)
        else:
            mine = multiples.get(plan.name, {}).get(name)
            other = next(
                (
                    (times[name], learned[key])
                    for key in learned
                    if key[1] == name and catalogue[key[0]].provider == plan.provider
                    for times in [multiples.get(key[0], {})]
                    if name in times
                ),
                None,
            )
            if mine is not None and other is not None:
                factor = float(mine) / float(other[0])
                result[name] = Size(Interval(*(factor * usd for usd in other[1].usd)), MULTIPLE)
    return result


# Units of published limits, in dollars (docs.github.com: an AI credit is $0.01, October 2026).
_DOLLARS = {"AI credits": 0.01, "AI credits per seat": 0.01}


def replay(uses: Sequence[Use], windows: Sequence[tuple[int, float]]) -> Cutoffs:
    """What would have become of turns, in order of time, under limits of (minutes, dollars) that hold together.

    A window opens with the first turn after the last one ended. From the moment at which one is used up until its reset,
    turns wait: they are not lost, but done at the reset, and count there.
    """
    limits = [[minutes * MINUTE, usd, -1, 0.0] for minutes, usd in windows]  # length, size, end, used
    count, waiting, clock = 0, 0, 0
    for use in uses:
        at = max(use.at, clock)
        for limit in limits:
            if at >= limit[2]:
                limit[2], limit[3] = at + limit[0], 0.0
        full = [limit for limit in limits if limit[3] + use.usd > limit[1] and limit[3] > 0]
        if full:
            count += 1
            until = int(max(limit[2] for limit in full))
            waiting += until - at
            at = until
            for limit in limits:
                if at >= limit[2]:
                    limit[2], limit[3] = at + limit[0], 0.0
        clock = at
        for limit in limits:
            limit[3] += use.usd
    return Cutoffs(count, waiting / (60 * MINUTE))


def rows(
    provider: str,
    plans: Iterable[Plan],
    uses: Sequence[Use],
    learned: Sizes,
    catalogue: Mapping[str, Plan],
    current: str,
    now: int,
) -> list[Event]:
    """A row for each plan of a provider, the cheapest first, with a recommendation if one can be made.

    Keys: v, kind (plan_fit), provider, plan, display, usd, current, verdict (fits, tight, too_small, cannot_tell), windows
    [{window, usd {p10, p50, p90}, source}], cutoffs and hours_cut {p10, p50, p90}, list_price_usd, days, recommended, sure,
    announced (as `announcements` adds it), note, as_of. `uses`: of the last month, in order of time; `current`: the plan
    that the user has, "" if none.
    """
    result = [_row(provider, plan, uses, sizes(plan, learned, catalogue), plan.name == current, now) for plan in plans]
    result.sort(key=lambda row: (float(row["usd"]) if "usd" in row else 1e9, row["plan"]))
    fitting = [row for row in result if row["verdict"] == FITS and "usd" in row]
    if fitting:
        best = fitting[0]
        # Sure, if even the smallest size that is likely fits, and every cheaper plan could be judged.
        cheaper = result[: result.index(best)]
        best |= {"recommended": True}
        best["sure"] = best["cutoffs"]["p90"] < _TIGHT and all(row["verdict"] != UNKNOWN for row in cheaper)
    return result


def times(size: Size, factor: float) -> Size:
    """A size that buys so many times as much."""
    return size._replace(usd=Interval(*(factor * usd for usd in size.usd)))


def announcements(plan: str, changes: Sequence[Event], now: int) -> Event:
    """What of some announced changes (plans_dated.coming) concerns a plan; empty if nothing does."""
    mine = [change for change in changes if plan in change.get("plans", [plan])]
    return {"announced": [change | {"as_of": when.stamp(now)} for change in mine]} if mine else {}


def learned_size(worth: Event) -> Size:
    """What a whole window buys, from a row of limit_worth; use elsewhere takes its share of it."""
    left = 1 - worth["unseen_share"]
    return Size(Interval(*(left * worth["window_usd"][point] for point in ("p10", "p50", "p90"))), LEARNED)


def _row(provider: str, plan: Plan, uses: Sequence[Use], sizes: Mapping[str, Size], is_current: bool, now: int) -> Event:
    days = len({use.at // when.DAY for use in uses})
    event: Event = {"v": 1, "kind": "plan_fit", "provider": provider, "plan": plan.name, "display": plan.display}
    event |= {"usd": plan.usd} if plan.usd else {}
    event |= {"current": True} if is_current else {}
    windows = [window for window in plan.windows if not window.get("scope")]
    missing = [str(window["window"]) for window in windows if window["window"] not in sizes]
    event["windows"] = [
        {"window": name, "usd": {point: round(usd, 2) for point, usd in size.usd._asdict().items()}, "source": size.source}
        for name, size in sizes.items()
    ]
    event |= {"list_price_usd": round(sum(use.usd for use in uses), 2), "days": days, "as_of": when.stamp(now)}
    if not windows or missing or days < FEWEST_DAYS:
        return event | {"verdict": UNKNOWN, "note": _reason(missing, days)}
    # The smallest size gives the most cutoffs: the points of cutoffs are in order of their number.
    trials = [
        replay(uses, [(int(window["minutes"]), getattr(sizes[window["window"]].usd, point)) for window in windows])
        for point in ("p90", "p50", "p10")
    ]
    names = ("p10", "p50", "p90")
    event["cutoffs"] = {name: trial.times for name, trial in zip(names, trials, strict=True)}
    event["hours_cut"] = {name: round(trial.hours, 1) for name, trial in zip(names, trials, strict=True)}
    middle = trials[1]
    event["verdict"] = FITS if middle.times < _TIGHT else SMALL if middle.hours >= _SMALL_HOURS else TIGHT
    if scoped := [str(window["scope"]) for window in plan.windows if window.get("scope")]:
        event["note"] = f"its limit on {', '.join(scoped)} is not judged"
    return event


def _reason(missing: Sequence[str], days: int) -> str:
    if missing:
        return f"the size of its {' and '.join(when.window_text(name) for name in missing)} is neither published nor learned"
    if days < FEWEST_DAYS:
        return f"only {show.plural(days, 'day')} of use in the last {DAYS}: {FEWEST_DAYS} are needed"
    return "it has no windows"


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """Plans for people, with what speaks for the recommendation."""
    styles = {FITS: "good", TIGHT: "warn", SMALL: "bad", UNKNOWN: "dim"}
    columns = [
        show.Column("provider", [limit_view.vendor(row["provider"]) for row in rows], False, 2),
        show.Column(
            "plan", [row["display"] + (" (yours)" if row.get("current") else "") for row in rows], False, 0, prose=True
        ),
        show.Column("USD a month", [row.get("usd", "") for row in rows], True, 0, heading="USD"),
        show.Column("verdict", [row["verdict"].replace("_", " ") for row in rows], False, 0)._replace(
            styles=[styles[row["verdict"]] for row in rows]
        ),
        show.Column("cutoffs", [_span(row, "cutoffs") for row in rows], True, 1),
        show.Column("hours waiting", [_span(row, "hours_cut") for row in rows], True, 2, heading="hours"),
    ]
    notes = [_advice(row) for row in rows if row.get("recommended")]
    notes += [f"{row['plan']}: {row['note']}" for row in rows if "note" in row]
    notes += list(dict.fromkeys(_counting_note(change) for row in rows for change in row.get("announced", ())))
    if not any(row.get("recommended") for row in rows):
        notes.insert(0, "cannot tell which plan fits: no plan of known size would have been without cutoffs")
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose)


def _counting_note(change: Event) -> str:
    return f"{when.window_text(change['window'])}, {limit_next.announcement(change)}; this is counted"


def _advice(row: Event) -> str:
    doubt = "" if row["sure"] else "; not sure: a cheaper plan cannot be judged, or its size is uncertain"
    return f"{row['display']} is the cheapest that would have been without cutoffs in the last {DAYS} days{doubt}"


def _span(row: Event, field: str) -> str:
    if field not in row:
        return "cannot tell"
    low, high = row[field]["p10"], row[field]["p90"]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
