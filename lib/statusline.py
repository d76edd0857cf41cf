"""Turns the JSON that Claude Code gives its status line into meter readings and one line of text, also for other bars.

The costly part (today's cost, and tok-budget's answer for the model) is computed by one process for all sessions, every few
seconds and after a new reading; the others print its result. Only the session's own transcript is imported.
"""

from __future__ import annotations

import datetime
import html
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenops import (
    chart_text,
    datadir,
    headroom,
    jsonl,
    light,
    limit_view,
    limit_windows,
    machines,
    show,
    store,
    untrusted,
    when,
    wire_limits,
)
from tokenops.config import Unusable
from tokenops.events import Event

if TYPE_CHECKING:
    from tokenops.pricing import Catalogue

CACHE, LOCK = "statusline.json", "statusline.lock"
# The last values of each session, in a file and under a lock of their own, because sessions write them at any time.
SESSIONS, SESSIONS_LOCK = "statusline-sessions.json", "statusline-sessions.lock"
FRESH_MS, OLD_MS = 5_000, 60_000
SOURCE = "claude-code-statusline"
_KEPT_MS = 2 * when.DAY  # of sessions
_PATIENCE_S = 5.0  # with a lock: Claude Code waits for its line
PROVIDER = "anthropic"
BAR = 8  # columns of a bar
FORMAT = (
    "{model} | {context} context | ${session} session | ${today} today"
    " | {color}{window} {bar} {used}{mark} used{end}, resets in {resets_in} | {color}{action}{end}{rest}"
)
# For other programs, which give us no session.
FORMAT_ELSEWHERE = "{color}{limit}{end} \u00b7 ${today} today"
_FIELD = re.compile(r"\{([a-z_]+)\}")


def last_summary(folder: str) -> dict[str, Any]:
    """What was computed last for all sessions; {} if nothing was."""
    summary = datadir.kept_json(os.path.join(folder, CACHE))
    return summary if isinstance(summary, dict) else {}


def write(folder: str, summary: Mapping[str, Any]) -> None:
    """Write what was computed for all sessions. Raises OSError."""
    datadir.keep_json(os.path.join(datadir.ensure_folder(folder), CACHE), summary)


def news(payload: untrusted.Raw, sessions: Mapping[str, Any], now: int) -> tuple[list[Event], dict[str, Any]]:
    """The new readings of a session, its cost if that changed, and the last values of all sessions.

    An idle session repeats old numbers, which must not count as fresh ones.
    """
    session = light.blake2b(str(payload.get("session_id")).encode(), digest_size=8).hexdigest()
    previous = untrusted.mapping(sessions.get(session))
    readings = list(wire_limits.status_line(payload, when.stamp(now)))
    numbers = [[reading["window"], reading["used"], reading.get("resets_at")] for reading in readings]
    if numbers == previous.get("told"):
        readings = []
    cost = untrusted.usd(untrusted.mapping(payload.get("cost")).get("total_cost_usd"))
    before = untrusted.usd(previous.get("cost"))
    number = previous.get("run")
    run = (number if type(number) is int else 0) + bool(cost and before and Decimal(cost) < Decimal(before))
    estimates = estimate(payload, cost, run, now) if cost != before else []
    if not readings and not estimates:
        return [], dict(sessions)
    recent = {name: entry for name, entry in sessions.items() if untrusted.mapping(entry).get("at", 0) > now - _KEPT_MS}
    entry = {"at": now, "told": numbers or previous.get("told"), "cost": cost or before, "run": run}
    return [*readings, *estimates], {**recent, session: entry}


def estimate(payload: untrusted.Raw, cost: str, run: int, now: int) -> list[Event]:
    """Claude Code's own estimate of a session's cost so far, for tok-cost --reconcile; it is never added to anything.

    One record per day and session; the last one counts. A total that falls begins another run.
    """
    session, at = untrusted.identity(payload.get("session_id")), when.stamp(now)
    if not session or not cost:
        return []
    event: Event = {"v": 1, "ts": f"{at[:10]}T00:00:00.000Z", "kind": "usage"}
    event |= {"id": f"usage:{SOURCE}:{session}:{run}:{at[:10]}", "source": SOURCE, "client": "claude-code"}
    event |= {"session_id": session, "covers": "estimate", "cost_usd": cost, "cost_source": "client", "observed_at": at}
    return [event]


def record(folder: str, payload: untrusted.Raw, now: int, owner: Callable[[], machines.Owner]) -> bool:
    """Write a session's new readings to the log; whether there were any. Raises OSError.

    `owner` gives whose they are: most runs need not read the settings for it.
    """
    path = os.path.join(folder, SESSIONS)
    if not news(payload, untrusted.mapping(datadir.kept_json(path)), now)[0]:
        return False
    with datadir.lock(folder, SESSIONS_LOCK, patience=_PATIENCE_S):
        readings, sessions = news(payload, untrusted.mapping(datadir.kept_json(path)), now)
        store.append(folder, map(jsonl.line_of, readings), durable=False, patience=_PATIENCE_S, owner=owner())
        datadir.keep_json(path, sessions)
    return any(record["kind"] == "meter" for record in readings)


# What all sessions share: today's cost, and what is left for each model that is at work.


def fresh_rows(shared: Mapping[str, Any], key: str, now: int, age: int) -> list[Event] | None:
    """The budget rows that were computed for a model not longer ago than so many milliseconds; None if there are none."""
    try:
        at, rows = shared["limits"][key]
        return list(rows) if 0 <= now - at <= age else None  # a clock that was set back: it is still to come
    except (TypeError, LookupError, ValueError):
        return None


def with_rows(shared: Mapping[str, Any], key: str, rows: list[Event], today: str, now: int, is_news: bool) -> dict[str, Any]:
    """What is shared, with the rows of a model. `is_news`: a new reading has come, which those of others lack."""
    others = {} if is_news else untrusted.mapping(shared.get("limits"))
    recent = {name: entry for name, entry in others.items() if fresh_rows(shared, name, now, FRESH_MS) is not None}
    return {"today": today, "limits": {**recent, key: [now, rows]}}


def unrecorded_rows(
    folder: str,
    readings: Iterable[Event],
    now: int,
    rules: Mapping[str, Any],
    model: str,
    catalogue: Callable[[], Catalogue],
) -> list[Event]:
    """The budget rows with readings that are not in the log."""
    from tokenops import limit_budget

    own = limit_windows.readings_of(readings)
    try:
        return limit_budget.budget_rows(folder, now, rules, {}, catalogue, PROVIDER, model, more=own)
    except OSError:  # without the log
        return limit_budget.budgets(headroom.states(own, now), now, rules, model, providers=[PROVIDER])


def row_of(
    rows: Sequence[Event], readings: Sequence[Event], now: int, rules: Mapping[str, Any], model: str = ""
) -> Event | None:
    """The row of the account that a session's readings are about, recognised by the resets of its windows.

    If no row is of that account, because another login's readings are newer, it is made of the session's readings alone.
    Without readings it is the most urgent row.
    """
    own = [
        reading
        for reading in limit_windows.readings_of(readings)
        if reading.resets_at is not None and reading.resets_at > now
    ]
    resets = {(reading.key.window, reading.resets_at or 0) for reading in own}
    mine = [
        row
        for row in rows
        if any(
            name == window["window"] and abs(when.moment(window["resets_at"]) - at) < headroom.SAME_MS
            for window in row["windows"]
            if "resets_at" in window
            for name, at in resets
        )
    ]
    if own and not mine:
        from tokenops import limit_budget

        mine = limit_budget.budgets(headroom.states(own, now), now, rules, model)
    return limit_view.urgent(mine or list(rows))


# The line.


def fields(payload: untrusted.Raw, row: Event | None, today: str, now: int, tz: datetime.tzinfo) -> dict[str, str]:
    """The values of a template's fields. `row`: what is left, as tok-budget shows it."""
    model = untrusted.mapping(payload.get("model"))
    cost = untrusted.mapping(payload.get("cost")).get("total_cost_usd")
    context = untrusted.mapping(payload.get("context_window")).get("used_percentage")
    return {
        "model": untrusted.text(model.get("display_name")) or untrusted.text(model.get("id")) or "unknown model",
        "session": f"{cost:.2f}" if isinstance(cost, (int, float)) else "?",
        "today": today or "?",
        "context": f"{context:.0f}%" if isinstance(context, (int, float)) else "?",
        **_limit_fields(row, now, tz),
        "project": os.path.basename(
            untrusted.path(untrusted.mapping(payload.get("workspace")).get("project_dir"))
            or untrusted.path(payload.get("cwd"))
        ),
    }


def _limit_fields(row: Event | None, now: int, tz: datetime.tzinfo) -> dict[str, str]:
    bound = limit_view.binding(row) if row else None
    used = limit_view.percent(bound, row) if bound and row else None
    text = "no limit known" if row is None else f"{limit_view.account_name(row)}: no reading"
    if row and bound:
        name = limit_view.window_name(bound).replace(" limit", "", 1)
        bar = limit_view.bar(bound, row, BAR, False)
        number = f"{used}%{limit_view.doubt(bound, row)}"
        words = limit_view.outlook(bound, row, now, tz)
        text = f"{limit_view.account_name(row)} {name} {bar} {number} {words}".rstrip()
    return {
        "provider": limit_view.account_name(row) if row else "",
        "window": limit_view.window_name(bound) if bound else "limits",
        "bar": limit_view.bar(bound, row, BAR, False) if bound and row else chart_text.gauge(None, BAR),
        "used": "unknown" if used is None else f"{used}%",
        "mark": limit_view.doubt(bound, row) if bound and row else "",
        "rest": "" if row is None or row["recommended_action"] == headroom.CONTINUE else f", {row['headroom_pct']}% left",
        "left": "unknown" if row is None or row["headroom_pct"] is None else f"{row['headroom_pct']}%",
        "resets_in": (row["window_resets_in"] if row else None) or "?",
        "resets_at": limit_view.moment(bound["resets_at"], now, tz) if bound and "resets_at" in bound else "?",
        "outlook": limit_view.outlook(bound, row, now, tz) if bound and row else "unknown",
        "action": str(row["recommended_action"]).replace("_", " ") if row else headroom.CONTINUE,
        "limit": text,
    }


def style_of(row: Event | None) -> str:
    """The style of a row's action: good, warn or bad; "" if nothing is known."""
    return headroom.STYLES[row["recommended_action"]] if row and limit_view.binding(row) else ""


class Target(NamedTuple):
    """A program that shows the line: how a field is escaped for it, and what begins and ends a colour there."""

    escape: Callable[[str], str]
    begin: Callable[[str], str]
    end: str


_ANSI = {"good": "32", "warn": "33", "bad": "31"}
_NAMED = {"good": "green", "warn": "yellow", "bad": "red"}
_HEX = {"good": "#2da44e", "warn": "#bf8700", "bad": "#cf222e"}
CLAUDE, PLAIN = "claude-code", "plain"


def _same(text: str) -> str:
    return text


def _none(style: str) -> str:
    return ""


def _without(characters: Mapping[str, str]) -> Callable[[str], str]:
    table = str.maketrans(dict(characters))
    return lambda text: text.translate(table)


# tmux: styles in its status line, since 1.9. polybar: formatting tags. xbar and SwiftBar: parameters behind a bar. Bash
# expands $ and ` in a prompt, which starship makes of the line. Markup of waybar (Pango) is escaped as HTML. 2026-11.
TARGETS = {
    CLAUDE: Target(_same, lambda style: f"\x1b[{_ANSI[style]}m", "\x1b[0m"),
    PLAIN: Target(_same, _none, ""),
    "tmux": Target(lambda text: text.replace("#", "##"), lambda style: f"#[fg={_NAMED[style]}]", "#[default]"),
    "polybar": Target(lambda text: text.replace("%{", "% {"), lambda style: f"%{{F{_HEX[style]}}}", "%{F-}"),
    "waybar": Target(lambda text: html.escape(text, quote=False), _none, ""),
    "i3blocks": Target(_same, _none, ""),
    "xbar": Target(_without({"|": "\u00a6"}), _none, ""),
    "swiftbar": Target(_without({"|": "\u00a6"}), _none, ""),
    "starship": Target(_without({"$": "USD ", "`": "'", "\\": "/"}), _none, ""),
}


def line(template: str, values: Mapping[str, str], target: str = CLAUDE, style: str = "", color: bool = True) -> str:
    """A template with its fields filled, as a target takes it. It may colour the line; a field cannot.

    `style`: of the action, which {color} and {end} enclose. Raises Unusable for an unknown field.
    """
    spec = TARGETS[target]
    marks = {"color": spec.begin(style), "end": spec.end} if style and color and spec.end else {"color": "", "end": ""}
    if unknown := [name for name in _FIELD.findall(template) if name not in values and name not in marks]:
        raise Unusable("", f"{{{unknown[0]}}} is not a field", f"choose from {', '.join((*values, *marks))}")

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return marks[name] if name in marks else spec.escape(show.safe(values[name]))

    # What stands in the template itself is a money sign for a prompt, too.
    text = _FIELD.sub(value, spec.escape(template) if target == "starship" else template)
    return _output(target, text, values, style)


def _output(target: str, text: str, values: Mapping[str, str], style: str) -> str:
    if target in ("xbar", "swiftbar"):
        color = f" color={_HEX[style]}" if style else ""
        return f"{text} |{color} emojize=false{' symbolize=false' if target == 'swiftbar' else ''}"
    if target == "i3blocks":
        short = f"{values['provider']} {values['used']}".strip()
        return jsonl.value_text(
            {"full_text": text, "short_text": show.safe(short)} | ({"color": _HEX[style]} if style else {})
        )
    if target == "waybar":
        used = values["used"].removesuffix("%")
        row = {"text": text, "tooltip": html.escape(show.safe(f"{values['limit']}; {values['action']}"), quote=False)}
        row |= {"class": style or "unknown"}
        return jsonl.value_text(row | ({"percentage": min(int(used), 100)} if used.isdecimal() else {}))
    return text
