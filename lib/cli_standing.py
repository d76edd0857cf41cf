"""Shows on one screen where the user stands. It renders what answers_standing returns and judges nothing."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence

from tokenops import chart_text, coverage, limit_view, plans, show, when
from tokenops.answers_standing import EMPTY, OLD, Blocks, Standing
from tokenops.events import Event
from tokenops.session import Log

USUAL_WIDTH = 80
# Projects and sessions stand side by side from this width on.
SIDE_BY_SIDE = 76
MOST_LIMITS = 6


def screen(standing: Standing, log: Log, color: bool) -> str:
    """The whole screen, as many rows of it as the terminal has lines for."""
    width, height = min(show.width() or USUAL_WIDTH, 120), show.height()
    build = _empty if standing.state == EMPTY else _sections
    count = 10
    lines = build(standing, log, width, count, color)
    while count > 1 and len(lines) >= height:  # the prompt takes the last line
        count -= 1
        lines = build(standing, log, width, count, color)
    return "".join(f"{line}\n" for line in lines)


def _sections(standing: Standing, log: Log, width: int, count: int, color: bool) -> list[str]:
    blocks = [_spans(standing, width, color), _limits(standing, log, width, color)]
    blocks += [_dearest(standing, log, width, count, color), [*_worth(standing, width), *_next(standing, width, color)]]
    lines = _heading(standing, log, width, color)
    for block in blocks:
        lines += ["", *block] if block else []
    return lines


def _heading(standing: Standing, log: Log, width: int, color: bool) -> list[str]:
    now = when.local(log.now, log.tz)
    title = f"{chart_text.day_name(log.now, log.tz)} {now:%H:%M}, {when.zone_name(log.tz)}"
    lines = [show.paint(show.shorten(title, width), "dim", color)]
    if standing.state == OLD:
        last = standing.spans[0]["name"]
        text = f"No usage this month. The last was on {last}; that day and its month are shown."
        lines += [show.paint(line, "warn", color) for line in show.wrap(text, width)]
    return lines


def _spans(standing: Standing, width: int, color: bool) -> list[str]:
    """A line for the day and one for the month: the list price, what plans covered, turns and tokens."""
    names = [_span_name(span["name"]) for span in standing.spans]
    amounts = [_amount(span) for span in standing.spans]
    left, right = max(map(len, names)), max(map(len, amounts))
    lines = []
    for span, name, amount in zip(standing.spans, names, amounts, strict=True):
        head = f"{name:{left}}  {amount:>{right}}"
        turns = show.plural(span["turns"], "turn") if span["turns"] < 1000 else f"{show.compact(span['turns'])} turns"
        parts = [turns, f"{show.compact(span['tokens'])} tokens"]
        if "plan_covered_usd" in span:
            metered = show.money(span.get("metered_usd", "0"))
            parts.insert(0, f"plans covered {show.money(span['plan_covered_usd'])}, {metered} is pay-per-token")
        while parts and show.text_width(f"{head}  {', '.join(parts)}") > width:
            parts.pop()
        rest = f"  {', '.join(parts)}" if parts else ""
        lines.append(f"{name:{left}}  {show.paint(amount.rjust(right), 'bold', color)}{rest}")
    return lines


def _span_name(name: str) -> str:
    if len(name) == len("2026-06"):
        return f"{datetime.date.fromisoformat(f'{name}-01'):%B %Y}"
    return name


def _amount(row: Event) -> str:
    """What a row cost: with a "+" if some of it has no price, "no price" if nothing has one."""
    lacks = bool(row.get("unpriced") or row.get("unpriced_turns"))
    if "cost_usd" not in row:
        return "no price" if lacks else "$0"
    return show.money(row["cost_usd"]) + ("+" if lacks else "")


def _limits(standing: Standing, log: Log, width: int, color: bool) -> list[str]:
    """A bar for each window with a current reading, and a line for each plan without one."""
    rows = []
    for row in standing.budget.rows:
        windows = [window for window in row["windows"] if window.get("used") is not None]
        rows.append(row | {"windows": windows})
    current = [row for row in rows if row["windows"]]
    lines = limit_view.brief(current, width, color, log.now, log.tz) if current else []
    if len(lines) > MOST_LIMITS:
        lines = [*lines[: MOST_LIMITS - 1], f"{len(lines) - MOST_LIMITS + 1} more: tok limits"]
    silent = ", ".join(limit_view.account_name(row) for row in rows if not row["windows"])
    if silent:
        lines.append(show.paint(show.shorten(f"limits of {silent}: no current reading (tok limits)", width), "dim", color))
    return lines


def _dearest(standing: Standing, log: Log, width: int, count: int, color: bool) -> list[str]:
    """The most expensive projects and sessions of the month, side by side where they fit."""
    half = (width - 3) // 2 if width >= SIDE_BY_SIDE else width
    left = _list("projects", standing.projects, standing.listed_of["projects"], half, count, color, _project)
    right = _list(
        "sessions", standing.sessions, standing.listed_of["sessions"], half, count, color, lambda row: _session(row, log)
    )
    if half == width:
        return [*left, "", *right] if right else left
    rows = max(len(left), len(right))
    return [
        a + " " * (half + 3 - show.text_width(show.plain(a))) + b if b else a
        for a, b in zip(left + [""] * (rows - len(left)), right + [""] * (rows - len(right)), strict=True)
    ]


def _list(
    title: str,
    rows: Sequence[Event],
    total: int,
    width: int,
    count: int,
    color: bool,
    names: Callable[[Event], Sequence[str]],
) -> list[str]:
    """A heading, and a row each: the first name that fits, else the last one cut, and the cost at the right."""
    if not rows:
        return []
    listed = rows[:count]
    amounts = [_amount(row) for row in listed]
    room = max(map(len, amounts))
    more = f", {len(listed)} of {total}" if total > len(listed) else ""
    lines = [show.paint(show.shorten(f"most expensive {title}{more}", width), "bold", color)]
    for row, amount in zip(listed, amounts, strict=True):
        texts = list(map(show.safe, names(row)))
        text = next((text for text in texts if show.text_width(text) <= width - room - 2), texts[-1])
        text = show.shorten(text, width - room - 2)
        lines.append(text + " " * (width - room - show.text_width(text)) + amount.rjust(room))
    return lines


def _project(row: Event) -> list[str]:
    return [str(row.get("project", "unknown"))]


def _session(row: Event, log: Log) -> list[str]:
    """A session: the beginning of its id, when it began, its project and client; and the same without the client."""
    began = when.local(when.moment(row["from"]), log.tz)
    project = str(row.get("project", "")).rpartition("/")[2]
    parts = (str(row.get("short_id", "unknown")), f"{began:%d %b}", project)
    short = " ".join(filter(None, parts))
    return [f"{short} {row['client']}", short] if row.get("client") else [short]


def _worth(standing: Standing, width: int) -> list[str]:
    """What each plan was worth in the month."""
    catalogue = plans.all_plans()
    lines = []
    for row in standing.plans:
        name = catalogue[row["plan"]].display if row["plan"] in catalogue else row["plan"]
        if row["plan"] == coverage.UNNAMED:
            name = "a login whose plan is not set"
        text = f"{name} was worth {show.money(row['covered_usd'])} at list price this month"
        if standing.state == OLD:
            text = text.replace("this month", "in that month")
        if "plan_usd_per_month" in row:
            text += f"; it costs {show.money(row['plan_usd_per_month']).removesuffix('.00')} a month"
        lines += show.wrap(show.safe(text), width)
    return lines


def _next(standing: Standing, width: int, color: bool) -> list[str]:
    """One next step."""
    do, what = standing.advice["do"], standing.advice["what"]
    lines = show.wrap(f"next: {do}  ({what})", width, "  ")
    return [show.paint(line, "accent", color) for line in lines]


def _empty(standing: Standing, log: Log, width: int, count: int, color: bool) -> list[str]:
    """Where was looked for usage, and what to do."""
    del log
    home = os.path.expanduser("~")
    lines = [show.paint("No usage of coding agents was found.", "bold", color)]
    lines += ["", *show.wrap("TokenOps reads the logs that these clients write. It looked in:", width)]
    most = 2 * count
    ranked = sorted(standing.folders, key=lambda row: not row["existing"])
    names = max((len(row["client"]) for row in ranked), default=0)
    for row in ranked[:most]:
        paths = ", ".join(_short(path, home) for path in (row["existing"] or row["places"])[:2])
        note = " (exists, without usage)" if row["existing"] else ""
        lines.append(show.shorten(show.safe(f"  {row['client']:{names}}  {paths}{note}"), width))
    if len(ranked) > most:
        lines.append(f"  and for {len(ranked) - most} other clients")
    lines += ["", *show.wrap("Use one of them, then run tok again. Logs elsewhere: tok sync --root DIR", width), ""]
    return lines + _next(standing, width, color)


def _short(path: str, home: str) -> str:
    return f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path


# Five-hour windows.


def blocks(rows: Sequence[Event], log: Log, shape: str, color: bool) -> str:
    """The windows in order of time; the open one says when it is reset."""
    began = [when.short_time(when.moment(row["from"]), log.tz, log.now) for row in rows]
    ends = [f"{when.local(when.moment(row['to']), log.tz):%H:%M}{' open' * row['is_active']}" for row in rows]
    columns = [
        show.Column("limit", [limit_view.account_name(row) for row in rows], number=False, rank=0),
        show.Column("began", began, number=False, rank=0),
        show.Column("reset", ends, number=False, rank=0),
        show.Column("used", [chart_text.percent(row["used"]) for row in rows], rank=0),
        show.counts("turns", [row["turns"] for row in rows], 2),
        show.counts("tokens", [row["tokens"] for row in rows], 1),
        show.amounts("list price", [row.get("cost_usd", "") for row in rows], ["unpriced" in row for row in rows]),
    ]
    return show.table(columns, shape, color=color)


def no_blocks(answer: Blocks, active: bool) -> str:
    """Why no window is shown."""
    if answer.rows and active:
        return "no 5-hour window is open; tok blocks lists the last ones"
    if answer.last_read:
        return (
            f"no 5-hour window in this span; the last was read on {answer.last_read}: tok blocks --since {answer.last_read}"
        )
    return (
        "no 5-hour window was read, and only the vendor knows when one begins; tok init sets up the status line, which "
        "records them; tok cost --by hour shows the hours"
    )
