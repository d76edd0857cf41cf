"""Shows at a terminal what is left of each limit: a bar per window, the forecast in words, and the action with its reason.

It renders the rows of answers.budget and judges nothing. Shares are what is used, as the forecast gives them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence

from tokenops import chart_text, headroom, show, when
from tokenops.events import Event

_VENDORS = {"openai": "OpenAI", "github": "GitHub", "xai": "xAI", "openrouter": "OpenRouter"}
_USUAL, _NARROWEST, _WIDEST = 80, 8, 24  # columns of a terminal that does not tell, and of a bar
_INDENT = "  "


# Names and numbers for people.


def vendor(name: str) -> str:
    """A provider's name for people."""
    return _VENDORS.get(name, name[:1].upper() + name[1:])


def account_name(row: Event) -> str:
    """A provider with its account, if it has several: `Anthropic 1f2e3d4c`."""
    return " ".join(filter(None, (vendor(row["provider"]), str(row.get("account", ""))[:8])))


def window_name(window: Event) -> str:
    """A window's name for people: `5 h limit`, `weekly limit, opus`."""
    return when.window_text(str(window["window"]), str(window.get("scope", "")))


def moment(text: str, now: int, tz: datetime.tzinfo) -> str:
    """A moment of the record as local time: 18:00, Tue 09:00 within six days, else Tue 9 Dec."""
    at = when.moment(text)
    days = (when.local(at, tz).date() - when.local(now, tz).date()).days
    if days == 0:
        return chart_text.clock(at, tz)
    day = chart_text.day_name(at, tz)
    return f"{day.split()[0]} {chart_text.clock(at, tz)}" if 0 < days < 7 else day


def share(window: Event) -> float | None:
    """The share that is probably used of a window, with local turns since its reading; None if it is unknown."""
    if window.get("used") is None:
        return None
    return float(window["carried"]["used"]["p50"] if "carried" in window else window["used"])


def percent(window: Event, row: Event) -> int | None:
    """The percent used of a window, as whole as headroom_pct, which it complements."""
    used = share(window)
    if used is None:
        return None
    if used > 1:
        return int(used * 100)
    left = row["headroom_pct"] if window.get("binds") else int(window["headroom"] * 100 + 1e-9)
    return 100 - int(left)


def doubt(window: Event, row: Event) -> str:
    """A question mark behind a number that is hardly to be trusted."""
    return "?" if window.get("binds") and row["signal_quality"]["level"] == "low" else ""


def binding(row: Event) -> Event | None:
    """The window of a row that binds; None if nothing is known."""
    return next((window for window in row["windows"] if window.get("binds")), None)


def urgent(rows: Sequence[Event]) -> Event | None:
    """The row that is most urgent: its action decides, then how little is left. None without rows."""
    order = list(headroom.STYLES)

    def rank(row: Event) -> tuple[int, int]:
        left = row["headroom_pct"]
        return order.index(row["recommended_action"]), -101 if left is None else -int(left)

    return max(rows, key=rank, default=None)


# Sentences.


def outlook(window: Event, row: Event, now: int, tz: datetime.tzinfo) -> str:
    """What becomes of a window, in a few words: `likely out by 16:40`, `lasts until reset 18:00`."""
    if window.get("used") is None:
        return f"{_last(window)} {_age(window, now)}, now unknown" if "last_used" in window else "unknown since its reset"
    resets = moment(window["resets_at"], now, tz) if "resets_at" in window else ""
    if row["reason"] in (headroom.REFUSED, headroom.USED_UP) and window.get("binds"):
        return f"used up until {resets}" if resets else "used up"
    forecast = window.get("forecast") or (row.get("forecast") if window.get("binds") else None)
    if forecast and is_told(forecast) and "p_cutoff" in forecast:
        p, out = forecast["p_cutoff"], forecast.get("cutoff_at", {}).get("p50")
        if p >= 0.5 and out:
            return f"likely out by {moment(out, now, tz)}"
        if p >= 0.1:
            return f"{chance(p)} likely out before {resets}"
        return f"lasts until reset {resets}"
    return f"resets {resets}" if resets else ""


def is_told(forecast: Event) -> bool:
    """Whether people are told a forecast: from little data only if it raises an alarm."""
    return not forecast.get("few_data") or forecast.get("p_cutoff", 0) >= 0.3


def forecast_text(forecast: Event) -> str:
    """In words: `30% likely to run out before its reset; in an hour 61 to 88% used (80% likely)`."""
    if not is_told(forecast) or "p_cutoff" not in forecast:
        return "too little is known of this account yet for a forecast"
    text = f"{chance(forecast['p_cutoff'])} likely to run out before its reset"
    text += " (from little data)" if forecast.get("few_data") else ""
    band = forecast.get("used_in_an_hour", {})
    if "p10" in band and "p90" in band:
        low, high = (round(100 * band[name]) for name in ("p10", "p90"))
        text += f"; in an hour {f'{low}%' if low == high else f'{low} to {high}%'} used (80% likely)"
    return text


def room_text(row: Event) -> str:
    """What is left in money and turns: `room for $12 to $20 at list price, or 90 to 160 turns`; "" if unknown."""
    if "headroom_usd" not in row:
        return ""
    usd, turns = row["headroom_usd"], row["headroom_turns"]
    money = " to ".join(show.short_money(str(usd[end])) for end in ("p10", "p90"))
    return f"room for {money} at list price, or {turns['p10']:,} to {turns['p90']:,} turns (80% likely)"


def chance(p: float) -> str:
    """A chance for people: no more certain than a forecast can be."""
    return "less than 1%" if p < 0.01 else "over 99%" if p > 0.99 else f"{100 * p:.0f}%"


def action_text(row: Event, now: int, tz: datetime.tzinfo) -> str:
    """The action with its reason: `slow down: 45% likely to run out within the hour`."""
    bound, action = binding(row), row["recommended_action"].replace("_", " ")
    if bound is None:
        old = [window for window in row["windows"] if "last_used" in window]
        if not old:
            return f"{action}: nothing is known of this plan's limits"
        last = max(old, key=lambda window: str(window["observed_at"]))
        return (
            f"{action}: not known now; the last reading is old: {_last(last)} of the {window_name(last)}, {_age(last, now)}"
        )
    if "switch_to" in row:
        action += f" to {row['switch_to']}, which has room"
    elif row["recommended_action"] == headroom.WAIT and "resets_at" in bound:
        action += f" at {moment(bound['resets_at'], now, tz)}"
    name = window_name(bound)
    soon = row.get("forecast", {}).get("p_within_minutes", {}).get("60")
    reasons = {
        headroom.REFUSED: f"the vendor refused a request, the {name} is used up",
        headroom.USED_UP: f"the {name} is used up ({percent(bound, row)}%)",
        headroom.MOSTLY_USED: f"{percent(bound, row)}% of the {name} is used",
        headroom.LIKELY_SOON: f"the {name} is {chance(soon or 0)} likely to run out within the hour",
        headroom.LIKELY_EARLY: f"the {name} is {chance(row.get('forecast', {}).get('p_cutoff', 0))} likely to run out early",
        headroom.ROOM: f"the {name} has room",
    }
    return f"{action}: {reasons[row['reason']]}"


def room_elsewhere(row: Event, rows: Sequence[Event]) -> str:
    """Which other accounts may go on, if this one may not; "" if none is known to."""
    if row["recommended_action"] == headroom.CONTINUE:
        return ""
    free = [
        f"{account_name(other)} ({window_name(bound)} {percent(bound, other)}% used)"
        for other in rows
        if other is not row and other["recommended_action"] == headroom.CONTINUE and (bound := binding(other))
    ]
    return f"room elsewhere: {', '.join(free)}" if free else ""


# Bars and lines.


def bar(window: Event, row: Event, width: int, color: bool) -> str:
    """A bar of what is used, coloured by what the window advises; the band of the forecast for the next hour follows."""
    used = share(window)
    style = "dim" if used is None else headroom.STYLES[window["action"]]
    forecast = row.get("forecast", {}) if window.get("binds") else {}
    ahead = None if forecast.get("few_data") else forecast.get("used_in_an_hour", {}).get("p90")
    filled, band, rest = chart_text.gauge_parts(used, width, ahead)
    return show.paint(filled, style, color) + show.paint(band, style, color) + show.paint(rest, "dim", color)


def brief(rows: Sequence[Event], width: int | None, color: bool, now: int, tz: datetime.tzinfo) -> list[str]:
    """A line for each window: name, bar, percent used, and what becomes of it."""
    width = width or _USUAL
    windows = [(window, row) for row in rows for window in row["windows"]]
    names = [f"{account_name(row)} {window_name(window).replace(' limit', '', 1)}" for window, row in windows]
    words = [outlook(window, row, now, tz) for window, row in windows]
    label = min(max(map(show.text_width, names), default=0), max(width // 3, 12))
    left = width - label - len("  ") - len(" 100%  ")
    bar_width = min(max(left - max(map(len, words), default=0), _NARROWEST), _WIDEST)
    lines = []
    for name, text, (window, row) in zip(names, words, windows, strict=True):
        used = percent(window, row)
        number = "   ?" if used is None else f"{used:3d}%{doubt(window, row) or ' '}"
        style = headroom.STYLES[window["action"]] if window.get("binds") and window["action"] != headroom.CONTINUE else ""
        end = show.paint(show.shorten(text, max(left - bar_width, 0)), style, color)
        lines.append(f"{_cell(name, label)}  {bar(window, row, bar_width, color)} {number:5} {end}".rstrip())
    return lines + [show.shorten(f"{account_name(row)}: no reading yet", width) for row in rows if not row["windows"]]


def lines(
    rows: Sequence[Event],
    width: int | None,
    color: bool,
    now: int,
    tz: datetime.tzinfo,
    plans: Mapping[str, str] | None = None,
) -> list[str]:
    """Everything of each account: its windows, the forecast, the action with its reason, and how far to trust it.

    `plans`: provider -> the names of the plans in force. No line is wider than `width`; None: 80 columns.
    """
    width = width or _USUAL
    every = [window for row in rows for window in row["windows"]]
    label = min(max((show.text_width(window_name(window)) for window in every), default=0), max(width // 3, 12))
    states = {id(window): _states(window, row, now, tz) for row in rows for window in row["windows"]}
    # The longest state of each window that leaves room for the bars, which are alike.
    left = width - len(_INDENT) - label - 4
    rooms = [left - max(map(len, column)) for column in zip(*states.values(), strict=True)]
    at = next((at for at, room in enumerate(rooms) if room >= _NARROWEST), 2)
    bar_width = min(max(rooms[at], 4), _WIDEST) if rooms else 0
    shown: list[str] = []
    for row in rows:
        plan = (plans or {}).get(row["provider"], "")
        title = ", ".join(filter(None, (account_name(row), plan)))
        shown += [""] if shown else []
        shown.append(show.paint(show.shorten(show.safe(title), width), "bold", color))
        style = headroom.STYLES[row["recommended_action"]] if binding(row) else "dim"
        shown += _sentence_lines(action_text(row, now, tz), width, style, color)
        for window in row["windows"]:
            name = _cell(window_name(window), label)
            state = show.shorten(states[id(window)][at], max(left - bar_width, 0))
            shown.append(f"{_INDENT}{name}  {bar(window, row, bar_width, color)}  {state}".rstrip())
            if window.get("binds") and row.get("forecast"):
                shown += _sentence_lines(forecast_text(row["forecast"]), width, "", color, _INDENT + " " * (label + 2))
            if window.get("binds") and (text := room_text(row)):
                shown += _sentence_lines(text, width, "", color, _INDENT + " " * (label + 2))
        if elsewhere := room_elsewhere(row, rows):
            shown += _sentence_lines(elsewhere, width, "good", color)
        shown += [line for note in _notes(row) for line in _sentence_lines(note, width, "dim", color)]
    return shown


def _states(window: Event, row: Event, now: int, tz: datetime.tzinfo) -> tuple[str, str, str]:
    """How much of a window is used and when it is reset, in long, shorter and short."""
    used = percent(window, row)
    if used is None:
        if "last_used" not in window:
            return "unknown: reset since it was last read", "unknown since its reset", "unknown"
        old = f"{_last(window)} {_age(window, now)}"
        return f"old: {old}, and reset since; now unknown", f"old: {old}, reset since", "unknown"
    resets = f", resets {moment(window['resets_at'], now, tz)}" if "resets_at" in window else ""
    more = f", in {window['resets_in']}" if "resets_in" in window else ""
    return f"{used}% used{resets}{more}", f"{used}% used{resets}", f"{used}% used"


def _last(window: Event) -> str:
    """What was read last of a window that has been reset since."""
    return f"{round(100 * window['last_used'])}%"


def _age(window: Event, now: int) -> str:
    return when.ago(when.moment(window["observed_at"]), now)


def _cell(name: str, width: int) -> str:
    text = show.shorten(show.safe(name), width)
    return text + " " * (width - show.text_width(text))


def _notes(row: Event) -> Iterator[str]:
    """How far the number can be trusted, and what would make it better."""
    if binding(row) is not None:
        signal = row["signal_quality"]
        yield f"low trust: {signal['caveat']}" if signal["level"] == "low" else str(signal["caveat"])
    yield from (f"next: {text}" for text in row["next_actions"])


def _sentence_lines(text: str, width: int, style: str, color: bool, indent: str = _INDENT) -> list[str]:
    """A sentence in lines that fit, indented."""
    if width - len(indent) < 30:
        indent = _INDENT
    return [indent + show.paint(part, style, color) for part in show.wrap(show.safe(text), max(width - len(indent), 10))]


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """Budgets as a table, for Markdown: a line per window, with the action at the window that binds."""
    lines = [(window, row) for row in rows for window in row["windows"] or [{}]]
    actions = [row["recommended_action"] if window.get("binds") or not window else "" for window, row in lines]
    seen = [window.get("observed_at", "") for window, _ in lines]
    ages = [
        when.ago(when.moment(ts), when.moment(row["as_of"])) if ts else "" for ts, (_, row) in zip(seen, lines, strict=True)
    ]
    turns = [f" + {show.plural(window['carried']['turns'], 'turn')}" if "carried" in window else "" for window, _ in lines]
    columns = [
        show.Column("provider", [account_name(row) for _, row in lines], False, 0),
        show.Column("window", [window_name(window) if window else "unknown" for window, _ in lines], False, 0),
        show.Column("used", ["unknown" if (used := percent(*line)) is None else f"{used}%" for line in lines], True, 0),
        show.Column("resets in", [window.get("resets_in", "") for window, _ in lines], False, 2),
        show.Column("action", [action.replace("_", " ") for action in actions], False, 1),
        show.Column("seen", [age + more for age, more in zip(ages, turns, strict=True)], False, 3),
        show.Column("by", [window.get("source", "") for window, _ in lines], False, 4),
    ]
    notes = [f"{account_name(row)}: {note}" for row in rows for note in _notes(row)]
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose)
