"""Says when the windows of plans open and close today, what of them lapses unused, and which banked resets expire.

At the present pace. Nothing is spent and nothing is redeemed. Pure.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenops import catalog, limit_carry, limit_pace, limit_view, limit_windows, plans_dated, show, when
from tokenops.events import Event
from tokenops.headroom import State
from tokenops.limit_carry import Piece
from tokenops.limit_windows import MINUTE, Key, Reading, Series
from tokenops.plans import Plan

OPEN, CLOSED, BANKED, ANNOUNCED = "open", "closed", "banked_reset", "announced"
# What vendors announced is told so many days before.
AHEAD_DAYS = 30
# What a limit is usually used is learned from so much of the past, of which so much must have readings.
_USUAL_MS, _LEAST_MS = 14 * when.DAY, 2 * when.DAY
_HOUR = 60 * MINUTE


class Past(NamedTuple):
    """What a limit's future is guessed from: its readings, what was learned of it, and the moment and zone of today."""

    readings: Sequence[Reading]
    pieces: Mapping[Key, Sequence[Piece]]
    now: int
    tz: datetime.tzinfo
    plans: Mapping[str, Plan] = {}  # provider -> the plan in force, with its windows as they are now


def rows(states: Iterable[State], past: Past) -> list[Event]:
    """A row for each window of a plan.

    Keys: v, kind (plan_next), provider, account, window, scope, state (open, closed), used, opened_at, resets_at, resets_in,
    used_per_hour, pace (recent, usual), likely_at_reset, runs_out_at, lapses, lapses_usd {p10, p50, p90}, limit, unit, base
    and flex (the parts of a limit, where the vendor publishes them), lapses_units, if_reset_now (when it would be reset
    after a reset that is paid for now, which begins it anew), then [{opens_at, resets_at}], as_of. What is
    unknown is left out.
    """
    series = {each.key: each for each in limit_windows.series(past.readings)}
    paces = limit_pace.paces(past.readings, past.now)
    timed = (state for state in states if state.minutes)
    return [_row(state, series.get(state.key), paces.get(state.key), past) for state in timed]


def _row(state: State, series: Series | None, pace: limit_pace.Pace | None, past: Past) -> Event:
    event: Event = {"v": 1, "kind": "plan_next", "provider": state.provider}
    event |= {name: value for name, value in (("account", state.account), ("scope", state.scope)) if value}
    event["window"] = state.window
    length = (state.minutes or 0) * MINUTE
    is_open = state.used is not None and state.resets_at is not None and state.resets_at > past.now
    event["state"] = OPEN if is_open else CLOSED
    if is_open and state.resets_at is not None:
        event |= {"used": round(state.likely or 0.0, 4), "opened_at": when.stamp(state.resets_at - length)}
        event |= {"resets_at": when.stamp(state.resets_at), "resets_in": when.duration(state.resets_at - past.now)}
        event |= _outlook(state, series, pace, past)
        event |= _allotment(state, event.get("lapses"), past)
        if catalog.load("plans")["banked_resets"].get(state.provider, {}).get("anchors") == state.window:
            event["if_reset_now"] = when.stamp(past.now + length)
    event["then"] = list(_later(event, state.resets_at if is_open else None, length, past))
    return event | {"as_of": when.stamp(past.now)}


def _outlook(state: State, series: Series | None, pace: limit_pace.Pace | None, past: Past) -> Event:
    """What becomes of an open window at its pace of late or, in a window of more than a day, at its usual pace."""
    is_long = (state.minutes or 0) > limit_pace.LONG_MINUTES
    usual = _usual(series, past.now) if series is not None and (is_long or pace is None) else None
    rate, name = (usual, "usual") if usual is not None else (pace.per_hour if pace else None, "recent")
    if rate is None or state.resets_at is None:
        return {}
    used, hours = state.likely or 0.0, (state.resets_at - past.now) / _HOUR
    likely = used + rate * hours
    event: Event = {"used_per_hour": round(rate, 5), "pace": name, "likely_at_reset": round(min(likely, 1.0), 4)}
    if likely > 1 > used:
        event["runs_out_at"] = when.stamp(past.now + round((1 - used) / rate * _HOUR))
    event["lapses"] = round(max(1 - likely, 0.0), 4)
    room = limit_carry.room(past.pieces.get(state.key, ()), event["lapses"])
    if room is not None:
        event["lapses_usd"] = {name: float(f"{usd:.3g}") for name, usd in zip(("p10", "p50", "p90"), room.usd, strict=True)}
    return event


def _allotment(state: State, lapses: float | None, past: Past) -> Event:
    """The published limit of a window in its unit, with its parts, and how much of that lapses."""
    plan = past.plans.get(state.provider)
    windows = plan.windows if plan else ()
    window = next((each for each in windows if each["window"] == state.window and each.get("scope", "") == state.scope), {})
    event = {name: window[name] for name in ("limit", "unit", "base", "flex") if name in window}
    if lapses is not None and "limit" in event:
        event["lapses_units"] = round(lapses * window["limit"])
    return event


def announced_rows(providers: Iterable[str], now: int) -> list[Event]:
    """A row for each change of a window that its vendor announced for the next 30 days.

    Keys: v, kind, provider, window, state (announced), plans (only these), at (the day), what (begins, ends), factor, limit
    or suspended, as_of.
    """
    today, last = when.stamp(now)[:10], when.stamp(now + AHEAD_DAYS * when.DAY)[:10]
    return [
        {"v": 1, "kind": "plan_next", "provider": provider, "state": ANNOUNCED} | change | {"as_of": when.stamp(now)}
        for provider in sorted(providers)
        for change in plans_dated.coming(provider, today, last)
    ]


def _usual(series: Series, now: int) -> float | None:
    """The share used per hour over the last two weeks, nights included; None with too few readings."""
    since = now - _USUAL_MS
    rise, first = 0.0, now
    for window in series.windows:
        points = [point for point in window.points if since <= point.at <= now]
        if points:
            first = min(first, points[0].at)
            # What was used before the first reading belongs to it where the window began within the span.
            rise += points[-1].used - (points[0].used if window.starts_at < since else 0.0)
    return rise * _HOUR / (now - first) if now - first >= _LEAST_MS else None


def _later(event: Event, resets_at: int | None, length: int, past: Past) -> Iterator[Event]:
    """The windows after the open one until the day ends, if work goes on; a window opens with its first request."""
    midnight = when.parse_until("today", past.now, past.tz)
    opens = resets_at if resets_at is not None else past.now
    while length and length <= when.DAY and opens < midnight:
        yield {"opens_at": when.stamp(opens), "resets_at": when.stamp(opens + length)}
        opens += length


def banked_rows(expiries: Mapping[str, Sequence[str]], now: int) -> list[Event]:
    """A row for each banked reset that has not expired. `expiries`: provider -> the days (YYYY-MM-DD) on which they do.

    Keys: v, kind, provider, window (banked_reset), expires_at, expires_in, as_of.
    """
    result = []
    for provider, days in sorted(expiries.items()):
        for day in sorted(days):
            expires = when.moment(f"{day}T00:00:00Z")
            if expires > now:
                event: Event = {"v": 1, "kind": "plan_next", "provider": provider, "window": BANKED}
                event |= {"expires_at": when.stamp(expires), "expires_in": when.duration(expires - now)}
                result.append(event | {"as_of": when.stamp(now)})
    return result


def expiry(provider: str, granted: str) -> str:
    """The day on which a banked reset expires that was given on a day (YYYY-MM-DD). Raises ValueError, KeyError."""
    days = int(catalog.load("plans")["banked_resets"][provider]["days"])
    return (datetime.date.fromisoformat(granted) + datetime.timedelta(days)).isoformat()


# Words.


def text(rows: Sequence[Event], now: int, tz: datetime.tzinfo, width: int | None, color: bool) -> str:
    """What comes next, for people: some lines for each window."""
    shown: list[str] = []
    for row in rows:
        title = f"{limit_view.account_name(row)}, {_name(row)}"
        shown.append(show.paint(show.safe(title), "bold", color))
        shown += [line for sentence in sentences(row, now, tz) for line in show.wrap(show.safe(sentence), width, "  ")]
    return "".join(f"{line}\n" for line in shown)


def _name(row: Event) -> str:
    return "banked reset" if row["window"] == BANKED else limit_view.window_name(row)


def sentences(row: Event, now: int, tz: datetime.tzinfo) -> Iterator[str]:
    """What is to be said of a window."""
    if row["window"] == BANKED:
        yield f"  expires {limit_view.moment(row['expires_at'], now, tz)}, in {row['expires_in']}, and lapses then"
        return
    if row["state"] == ANNOUNCED:
        yield f"  {announcement(row)}"
        return
    if row["state"] == OPEN:
        resets = limit_view.moment(row["resets_at"], now, tz)
        yield f"  {row['used']:.0%} used; resets {resets}, in {row['resets_in']}"
        if "runs_out_at" in row:
            yield f"  at its {row['pace']} pace it runs out at {limit_view.moment(row['runs_out_at'], now, tz)}"
        elif "lapses" in row:
            lapses = f"{row['lapses']:.0%} lapses{_worth(row)}"
            yield f"  at its {row['pace']} pace {row['likely_at_reset']:.0%} is used by then: {lapses}"
    elif row["then"]:
        reset = limit_view.moment(row["then"][0]["resets_at"], now, tz)
        yield f"  no window is open; one that opens now, with a request, resets {reset}"
    else:
        yield "  no window is open, or its last reading is old: the next opens with a request"
    later = row["then"] if row["state"] == OPEN else row["then"][1:]
    if "if_reset_now" in row:
        anew = limit_view.moment(row["if_reset_now"], now, tz)
        yield f"  a reset that is paid for now would begin it anew, so that it resets {anew}"
    spans = [" to ".join(limit_view.moment(each[end], now, tz) for end in ("opens_at", "resets_at")) for each in later]
    if spans:
        yield f"  then, if work goes on: {', '.join(spans)}"


def _worth(row: Event) -> str:
    """What lapses, in the unit of the limit or in dollars."""
    if "lapses_units" in row:
        parts = f" ({row['base']:,} base and {row['flex']:,} flex)" if "flex" in row else ""
        return f", about {row['lapses_units']:,} of {row['limit']:,} {row['unit']}{parts}"
    usd = show.short_money(str(row["lapses_usd"]["p50"])) if "lapses_usd" in row else ""
    return f", about {usd} at list price" if usd else ""


def announcement(row: Event) -> str:
    """What a vendor announced, in a sentence: `announced: from 14 Sep a percent buys 17% less`."""
    day = limit_view.moment(f"{row['at']}T00:00:00Z", when.moment(row["as_of"]), datetime.UTC)
    begins = row["what"] == "begins"
    if "factor" in row:
        factor = row["factor"] if begins else 1 / row["factor"]
        text = f"a percent buys {abs(factor - 1):.0%} {'more' if factor > 1 else 'less'}"
    elif "limit" in row:
        text = f"the limit of {row['limit']:,.0f} {'begins' if begins else 'ends'}"
    else:
        text = f"it is {'suspended' if begins else 'in force again'}"
    return f"announced: from {day} {text}" + (f" ({', '.join(row['plans'])})" if "plans" in row else "")


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """The same as a table, for Markdown."""

    def cells(title: str, name: str, rank: int) -> show.Column:
        return show.Column(title, [str(row.get(name, "")) for row in rows], False, rank)

    rows = [row for row in rows if row.get("state") != ANNOUNCED]
    columns = [
        show.Column("provider", [limit_view.account_name(row) for row in rows], False, 0),
        show.Column("window", [_name(row) for row in rows], False, 0),
        show.Column("used", [f"{row['used']:.0%}" if "used" in row else "" for row in rows], True, 0),
        cells("resets", "resets_at", 1),
        cells("runs out", "runs_out_at", 1),
        show.Column("lapses", [f"{row['lapses']:.0%}" if "lapses" in row else "" for row in rows], True, 0),
        cells("expires", "expires_at", 1),
    ]
    return show.table(columns, shape, color=color)
