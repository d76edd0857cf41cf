"""Says when the windows of plans open and close today, what of them lapses unused, and which banked resets expire.

At the present pace. Nothing is spent and nothing is redeemed. Pure.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tokenops import catalog, limit_carry, limit_pace, limit_view, limit_windows, show, when
from tokenops.events import Event
from tokenops.headroom import State
from tokenops.limit_carry import Piece
from tokenops.limit_windows import MINUTE, Key, Reading, Series

OPEN, CLOSED, BANKED = "open", "closed", "banked_reset"
# What a limit is usually used is learned from so much of the past, of which so much must have readings.
_USUAL_MS, _LEAST_MS = 14 * when.DAY, 2 * when.DAY
_HOUR = 60 * MINUTE


class Past(NamedTuple):
    """What a limit's future is guessed from: its readings, what was learned of it, and the moment and zone of today."""

    readings: Sequence[Reading]
    pieces: Mapping[Key, Sequence[Piece]]
    now: int
    tz: datetime.tzinfo


def rows(states: Iterable[State], past: Past) -> list[Event]:
    """A row for each window of a plan.

    Keys: v, kind (plan_next), provider, account, window, scope, state (open, closed), used, opened_at, resets_at, resets_in,
    used_per_hour, pace (recent, usual), likely_at_reset, runs_out_at, lapses, lapses_usd {p10, p50, p90}, then [{opens_at,
    resets_at}], as_of. What is unknown is left out.
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


def banked_rows(granted: Mapping[str, Sequence[str]], now: int) -> list[Event]:
    """A row for each banked reset that has not expired. `granted`: provider -> days (YYYY-MM-DD) on which it gave them.

    Keys: v, kind, provider, window (banked_reset), expires_at, expires_in, as_of. Raises ValueError.
    """
    rules = catalog.load("plans")["banked_resets"]
    result = []
    for provider, days in sorted(granted.items()):
        for day in sorted(days):
            expires = when.moment(f"{datetime.date.fromisoformat(day)}T00:00:00Z") + int(rules[provider]["days"]) * when.DAY
            if expires > now:
                event: Event = {"v": 1, "kind": "plan_next", "provider": provider, "window": BANKED}
                event |= {"expires_at": when.stamp(expires), "expires_in": when.duration(expires - now)}
                result.append(event | {"as_of": when.stamp(now)})
    return result


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
    if row["state"] == OPEN:
        resets = limit_view.moment(row["resets_at"], now, tz)
        yield f"  {row['used']:.0%} used; resets {resets}, in {row['resets_in']}"
        if "runs_out_at" in row:
            yield f"  at its {row['pace']} pace it runs out at {limit_view.moment(row['runs_out_at'], now, tz)}"
        elif "lapses" in row:
            usd = show.short_money(str(row["lapses_usd"]["p50"])) if "lapses_usd" in row else ""
            lapses = f"{row['lapses']:.0%} lapses" + (f", about {usd} at list price" if usd else "")
            yield f"  at its {row['pace']} pace {row['likely_at_reset']:.0%} is used by then: {lapses}"
    elif row["then"]:
        reset = limit_view.moment(row["then"][0]["resets_at"], now, tz)
        yield f"  no window is open; one that opens now, with a request, resets {reset}"
    else:
        yield "  no window is open, or its last reading is old: the next opens with a request"
    later = row["then"] if row["state"] == OPEN else row["then"][1:]
    spans = [" to ".join(limit_view.moment(each[end], now, tz) for end in ("opens_at", "resets_at")) for each in later]
    if spans:
        yield f"  then, if work goes on: {', '.join(spans)}"


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """The same as a table, for Markdown."""

    def cells(title: str, name: str, rank: int) -> show.Column:
        return show.Column(title, [str(row.get(name, "")) for row in rows], False, rank)

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
