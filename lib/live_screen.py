"""Lays out tok-top's screen, and decides what a key does: a snapshot, a view and a size in, styled lines or a new view out.

Pure: no terminal and no clock. Lines hold the styles of `show.paint`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import chart_text, events, limit_view, live_sessions, pricing, show, when
from tokenops.live_sessions import MINUTE, Row, Snapshot

# A session is active for so long after its last turn, and shown dim when it was quiet for some minutes.
ACTIVE_MS, QUIET_MS = 30 * MINUTE, 5 * MINUTE
SESSIONS, HELP, FILTER, TRACE = "sessions", "help", "filter", "trace"
QUIT, OPEN = "quit", "open"
SORTS = ("activity", "cost", "rate", "context", "project")
_MOST_LIMITS = 6
_HELP_MOST = 40  # lines of the help in a narrow terminal


class View(NamedTuple):
    """What the user chose. `selected` is a session's id; `text` the session that is open, from line `top`."""

    mode: str = SESSIONS
    sort: str = SORTS[0]
    is_reversed: bool = False
    filter: str = ""
    all: bool = False
    is_paused: bool = False
    selected: str = ""
    text: tuple[str, ...] = ()
    top: int = 0
    note: str = ""


# What is shown.


def active(snapshot: Snapshot) -> list[Row]:
    """The sessions that are active now."""
    return [row for row in snapshot.rows if snapshot.now - row.last <= ACTIVE_MS]


def rows(snapshot: Snapshot, view: View) -> list[Row]:
    """The sessions that the view shows, in its order."""
    word = view.filter.casefold()
    chosen = list(snapshot.rows) if view.all else active(snapshot)
    if word:
        chosen = [row for row in chosen if any(word in part.casefold() for part in row[:5])]
    keys: dict[str, Callable[[Row], Any]] = {
        "activity": lambda row: -row.last,
        "cost": lambda row: -(row.usd or Decimal(-1)),
        "rate": lambda row: -row.per_minute,
        "context": lambda row: -row.context,
        "project": lambda row: row.project.casefold(),
    }
    key = keys[view.sort]
    return sorted(chosen, key=lambda row: (key(row), row.session), reverse=view.is_reversed)


def lines(snapshot: Snapshot, view: View, width: int, height: int) -> list[str]:
    """The screen: at most `height` lines of at most `width` columns."""
    if width < 40 or height < 6:
        return [show.shorten("tok-top needs 40x6 or more", width)][:height]
    if view.mode == HELP:
        return _screen(_help(width), view, width, height, "up, down: scroll  other keys: back")
    if view.mode == TRACE:
        return _screen(view.text, view, width, height, "up, down: scroll  q: back")
    head = _head(snapshot, view, width, height)
    foot = _foot(view, width)
    return head + _body(snapshot, view, width, height - len(head) - 1) + [foot]


def _screen(text: Sequence[str], view: View, width: int, height: int, keys: str) -> list[str]:
    """A text that is scrolled, above a line of keys."""
    room = height - 1
    top = min(view.top, max(len(text) - room, 0))
    shown = [show.shorten(line, width) if show.text_width(line) > width else line for line in text[top : top + room]]
    position = f"  {top + 1}-{top + len(shown)} of {len(text)}" if len(text) > room else ""
    return [*shown, *[""] * (room - len(shown)), show.paint(show.shorten(keys + position, width), "dim")]


def _head(snapshot: Snapshot, view: View, width: int, height: int) -> list[str]:
    """The first line, limits and burn: at most half of the screen."""
    out = [_title(snapshot, view, width)]
    if snapshot.state != live_sessions.READY:
        return [*out, ""]
    room = max(min(height // 2 - 3, _MOST_LIMITS), 1)
    limits = limit_view.brief(snapshot.budgets, width, True, snapshot.now, snapshot.tz)
    out += limits if len(limits) <= room else [*limits[: room - 1], _dim(f"and {len(limits) - room + 1} more", width)]
    out.append(_burn(snapshot, width))
    if height >= 12:
        out.append("")
    return out


def _title(snapshot: Snapshot, view: View, width: int) -> str:
    count = len(active(snapshot))
    parts = [f"{count} active session{'' if count == 1 else 's'}"]
    if snapshot.today is not None:
        today = snapshot.today
        parts.append(f"today {_money(today.get('cost_usd'), bool(today.get('unpriced')))}")
        parts.append(f"{show.compact(events.token_sum(today))} tokens")
        parts.append(f"{today.get('turns', 0):,} turns")
    parts.insert(0, f"tok-top {chart_text.clock(snapshot.now, snapshot.tz)}")
    if view.is_paused:
        parts.insert(1, "PAUSED")
    while len(parts) > 2 and len("  ".join(parts)) > width:
        parts.pop()
    return show.paint(show.shorten("  ".join(parts), width), "bold")


def _burn(snapshot: Snapshot, width: int) -> str:
    """The tokens of the last hours, as many as there is room for, and what the last hour cost."""
    usd, rate = show.money(pricing.plain(snapshot.hour)), show.compact(snapshot.per_minute)
    text = f" {usd} in the last hour, {rate} tokens/min now" if width >= 80 else f" {usd}/h, {rate} tokens/min"
    if width < 40:
        return show.shorten(text.strip(), width)
    slots = snapshot.slots[-max(min(width - len(text) - 10, len(snapshot.slots)), 6) :]
    hours = len(slots) * live_sessions.SLOT_MINUTES // 60
    name = f"burn {hours} h " if hours else "burn "
    chart = chart_text.sparkline([tokens for tokens, _ in slots])
    left = width - len(name) - len(chart)
    return name + show.paint(chart, "accent") + show.shorten(text, max(left, 0))


def _body(snapshot: Snapshot, view: View, width: int, height: int) -> list[str]:
    """The table of sessions, or why there is none; exactly `height` lines."""
    shown = rows(snapshot, view)
    if not shown:
        text = [line for part in _nothing(snapshot, view) for line in show.wrap(show.safe(part), width)]
        return (text + [""] * height)[:height]
    at = next((at for at, row in enumerate(shown) if row.session == view.selected), 0)
    room = max(height - 1, 1)
    top = min(max(at - room + 1, 0), max(len(shown) - room, 0))
    part = shown[top : top + room]
    table = show.table_lines(_columns(snapshot, part), width)
    body = [_row_line(row, line, row is shown[at], snapshot.now, width) for row, line in zip(part, table[1:], strict=True)]
    return ([table[0], *body] + [""] * height)[:height]


def _row_line(row: Row, line: str, is_selected: bool, now: int, width: int) -> str:
    text = show.plain(line)
    if is_selected:
        return show.paint(text + " " * (width - show.text_width(text)), "reverse")
    return show.paint(text, "dim" if now - row.last > QUIET_MS else "")


def _columns(snapshot: Snapshot, part: Sequence[Row]) -> list[show.Column]:
    texts = [
        ("project", [row.project or "unknown" for row in part], 0),
        ("branch", [row.branch for row in part], 5),
        ("client", [row.client for row in part], 4),
        ("model", [row.model for row in part], 2),
    ]
    numbers = [
        ("context", [show.compact(row.context) for row in part], 1),
        ("tok/min", [show.compact(row.per_minute) if row.per_minute else "" for row in part], 2),
        ("cost", [_money(None if row.usd is None else pricing.plain(row.usd), row.unpriced > 0) for row in part], 0),
        ("cache", ["" if row.cache_hit is None else f"{row.cache_hit:.0%}" for row in part], 3),
        ("age", [when.duration(row.last - row.began, True, False) for row in part], 6),
        ("idle", [when.duration(snapshot.now - row.last, True, False) for row in part], 1),
    ]
    columns = [show.Column(title, cells, False, rank) for title, cells, rank in texts if any(cells)]
    return columns + [show.Column(title, cells, True, rank) for title, cells, rank in numbers]


def _money(usd: str | None, is_partial: bool) -> str:
    """An amount; with a "+" if some of it has no price, "?" if nothing has one."""
    return "?" if usd is None and is_partial else f"{show.money(usd or '0')}{'+' if is_partial else ''}"


def _nothing(snapshot: Snapshot, view: View) -> list[str]:
    """Why no session is shown, and what to do."""
    if snapshot.state == live_sessions.LOADING:
        return ["Importing your clients' logs for the first time. Sessions appear here when that has ended."]
    if snapshot.state == live_sessions.EMPTY:
        return [
            "No usage of any client was found on this machine.",
            "Run an agent, and its session appears here. tok-status shows where TokenOps looked; tok-init sets it up.",
        ]
    if view.filter and (view.all or active(snapshot)):
        return [f"No session matches {view.filter!r}. Press Esc to show all."]
    if not snapshot.rows:
        day = snapshot.last_day
        return [
            f"No session since yesterday; the last day in the log is {day}.",
            f"Run an agent, and its session appears here. tok-cost --log --by session --since {day} shows that day's.",
        ]
    last = max(snapshot.rows, key=lambda row: row.last)
    age = when.duration(snapshot.now - last.last, True, False)
    return [
        f"No session was active in the last {ACTIVE_MS // MINUTE} minutes. The last one was in {last.project or 'unknown'}, "
        f"{age} ago.",
        "Press a to show all sessions since yesterday.",
    ]


def _dim(text: str, width: int) -> str:
    return show.paint(show.shorten(text, width), "dim")


def _foot(view: View, width: int) -> str:
    if view.mode == FILTER:
        return show.paint(show.shorten(f"filter: {show.safe(view.filter)}_   Enter: keep  Esc: all", width), "accent")
    if view.note:
        return show.paint(show.shorten(show.safe(view.note), width), "warn")
    keys = [f"s sort ({view.sort})", f"/ filter{f' ({show.safe(view.filter)})' if view.filter else ''}", "enter open"]
    keys += ["space pause", "a active" if view.all else "a all", "? help", "q quit"]
    while len(keys) > 2 and len("  ".join(keys)) > width:
        keys.pop(2 if len(keys) > 4 else 0)
    return _dim("  ".join(keys), width)


def _help(width: int) -> list[str]:
    keys = [
        ("up, down", "select a session; also k, j, PgUp, PgDn, Home and End"),
        ("Enter", "open it: its turns, costs and waste, as tok-trace"),
        ("s, r", f"sort by the next of {', '.join(SORTS)}; reverse the order"),
        ("/", "show only sessions that hold a text; Esc shows all"),
        ("a", "show all sessions since yesterday, or the active ones"),
        ("space", "pause, or go on"),
        ("q", "quit; Ctrl-C too"),
        ("", ""),
        ("active", f"had a turn in the last {ACTIVE_MS // MINUTE} minutes; dim after {QUIET_MS // MINUTE}"),
        ("bars", "what is used of a limit; lighter: expected within an hour"),
        ("context", "prompt tokens of the last turn"),
        ("tok/min", f"tokens a minute in the last {live_sessions.RATE_MINUTES} minutes"),
        ("cost", "list price of all its turns; +: a part has no price"),
        ("cache", "share of its prompts that was read from a cache"),
        ("age, idle", "first to last turn; since the last turn"),
    ]
    column = max(len(key) for key, _ in keys) + 2
    lines = []
    for key, text in keys:
        parts = show.wrap(text, width - column) or [""]
        lines += [show.paint(f"{key:{column}}", "bold") + parts[0], *(" " * column + part for part in parts[1:])]
    return lines


# What a key does.

_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -10, "pgdn": 10, "home": -(1 << 30), "end": 1 << 30}


def press(view: View, key: str, snapshot: Snapshot, height: int) -> tuple[View, str]:
    """The view after a key, and what is to be done: quit, open (the selected session), or "".

    `key`: a character, or up, down, pgup, pgdn, home, end, enter, escape, backspace, interrupt.
    """
    if key == "interrupt":
        return view, QUIT
    view = view._replace(note="")
    if view.mode == FILTER:
        return _type(view, key), ""
    if view.mode in (HELP, TRACE):
        if key in _MOVES:
            step = _MOVES[key] if abs(_MOVES[key]) in (1, 1 << 30) else (height - 2) * (1 if _MOVES[key] > 0 else -1)
            length = len(view.text) if view.mode == TRACE else _HELP_MOST
            return view._replace(top=min(max(view.top + step, 0), max(length - height + 1, 0))), ""
        if view.mode == HELP:
            return view._replace(mode=SESSIONS, top=0), ""
        return (view._replace(mode=SESSIONS, text=(), top=0), "") if key in ("q", "escape", "backspace") else (view, "")
    if key in _MOVES:
        return _move(view, _MOVES[key], snapshot), ""
    return _command(view, key, snapshot)


def _command(view: View, key: str, snapshot: Snapshot) -> tuple[View, str]:
    if key == "q":
        return view, QUIT
    if key == "enter":
        shown = rows(snapshot, view)
        chosen = view.selected if any(row.session == view.selected for row in shown) else shown[0].session if shown else ""
        return view._replace(selected=chosen), OPEN if chosen else ""
    changes = {
        "s": {"sort": SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)]},
        "r": {"is_reversed": not view.is_reversed},
        "a": {"all": not view.all},
        " ": {"is_paused": not view.is_paused},
        "p": {"is_paused": not view.is_paused},
        "/": {"mode": FILTER},
        "?": {"mode": HELP, "top": 0},
        "h": {"mode": HELP, "top": 0},
        "escape": {"filter": ""},
    }
    return view._replace(**changes.get(key, {})), ""  # type: ignore[arg-type]


def _type(view: View, key: str) -> View:
    """The filter after a key."""
    if key == "enter":
        return view._replace(mode=SESSIONS)
    if key == "escape":
        return view._replace(mode=SESSIONS, filter="")
    if key == "backspace":
        return view._replace(filter=view.filter[:-1])
    return view._replace(filter=view.filter + key) if len(key) == 1 and key.isprintable() else view


def _move(view: View, step: int, snapshot: Snapshot) -> View:
    """The view with another session selected."""
    names = [row.session for row in rows(snapshot, view)]
    if not names:
        return view
    at = names.index(view.selected) if view.selected in names else 0
    return view._replace(selected=names[min(max(at + step, 0), len(names) - 1)])
