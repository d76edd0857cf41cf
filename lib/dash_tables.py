"""Draws the numbers of the page: tiles, and tables of models, projects, sessions and tasks.

Each number is a `data` element whose value is exact, as the commands print it in JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from urllib.parse import urlencode

from tokenops import costs, coverage, dash_html, dash_query, events, show, when
from tokenops.dash_html import Html, tag
from tokenops.dash_spend import Spent
from tokenops.dash_view import View
from tokenops.events import Event

MOST_ROWS, MOST_SESSIONS = 6, 10
UNKNOWN = "unknown"


def address(view: View, **changed: str) -> str:
    """The page's address with something else asked; what is not asked is left out."""
    asked_for = view.ask._asdict() | changed
    usual = dash_query.Ask()._asdict()
    query = urlencode({name: value for name, value in asked_for.items() if value != usual[name]})
    return f"/dashboard?{query}" if query else "/dashboard"


def money(row: Event) -> Html:
    """What something cost; `unknown` if nothing in it has a price, with a + if something has none."""
    cost, unpriced = row.get("cost_usd"), bool(row.get("unpriced"))
    if cost is None:
        return tag("data", UNKNOWN if unpriced else "$0.00", value="" if unpriced else "0")
    more = tag("abbr", "+", title="plus usage without a price") if unpriced else None
    return tag("span", tag("data", show.money(cost), value=cost), more)


def plain_money(row: Event) -> str:
    """The same without HTML."""
    return show.money(row.get("cost_usd")) or (UNKNOWN if row.get("unpriced") else "$0.00")


def count(value: int) -> Html:
    """A count in full."""
    return tag("data", f"{value:,}", value=value)


def short(value: int) -> Html:
    """A large count in few characters; in full when pointed at."""
    return tag("data", show.compact(value), value=value, title=f"{value:,}")


def ratio(row: Event) -> Html:
    """A cache hit ratio, as tok-cost prints it."""
    shown = show.percent(row.get("cache_read_tokens", 0), events.context_size(row))
    return tag("data", shown or UNKNOWN, value=row.get("cache_hit_ratio", ""))


def span_name(view: View) -> str:
    """The span for people."""
    since, until = view.ask.since, view.ask.until
    names = {"today": "today", "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days", "90d": "last 90 days"}
    name = names.get(since, "last 12 months" if since == "365d" else f"since {since}")
    return f"{name}, until {until}" if until else name


# Tiles.


def tiles(view: View, spent: Spent) -> Html:
    """The most important numbers."""
    total = spent.total
    all_tiles = [
        _tile("today", "Cost today", money(spent.today), *_midnight(spent)),
        _tile("span", f"Cost, {span_name(view)}", money(total), spent.basis),
        _burn(spent.lately),
        _tile("cache", "Prompt cache", Html(f"<small>Cache hit:</small> {ratio(total)}"), *_prompt(total)),
        _tile("turns", "Turns", count(total.get("turns", 0)), short(events.token_sum(total)), " tokens"),
        _unpriced_tile(total),
        *(_worth(value, spent) for value in spent.worth),
    ]
    return tag("section", tag("dl", *all_tiles, class_="tiles"), aria_label="Key numbers", id="tiles")


def _tile(key: str, name: str, value: Html, *notes: object, kind: str = "") -> Html:
    sub = tag("dd", *notes, class_="sub") if notes else None
    return tag(
        "div", tag("dt", name), tag("dd", value, class_="value"), sub, class_=f"card tile {kind}".strip(), data_key=key
    )


def _midnight(spent: Spent) -> tuple[object, ...]:
    forecast = spent.at_midnight
    if forecast is None:
        return ("at list price",)
    low, high = forecast["cost_usd"]["p10"], forecast["cost_usd"]["p90"]
    begin = (tag("data", show.money(low), value=low), " to ") if show.money(low) != show.money(high) else ()
    return (*begin, tag("data", show.money(high), value=high), " likely by midnight")


def _burn(lately: Event | None) -> Html:
    if lately is None:
        return _tile("burn", "Burn", tag("data", UNKNOWN, value=""), "the log is younger than 15 minutes")
    cost = lately["cost_usd_per_hour"]
    value = tag("data", UNKNOWN if cost is None else show.money(cost), value="" if cost is None else cost)
    notes = (short(lately["tokens_per_hour"]), f" tokens an hour, last {lately['minutes']} minutes")
    return _tile("burn", "Burn", Html(f"{value}<small>/h</small>"), *notes)


def _prompt(total: Event) -> tuple[object, ...]:
    size = events.context_size(total)
    return ("of ", short(size), " prompt tokens") if size else ("no prompt was sent",)


def _worth(value: Event, spent: Spent) -> Html:
    """What a plan covered, its price, and what it did not cover."""
    name = "Covered by a login" if value["plan"] == coverage.UNNAMED else f"Covered by {value['plan']}"
    usd, monthly, metered = value["covered_usd"], value.get("plan_usd_per_month"), spent.total.get("metered_usd", "0")
    notes: list[object] = ["at list price"]
    if monthly:
        notes += ["; the plan costs ", tag("data", show.money(monthly), value=monthly), " a month"]
    notes += ["; metered: ", tag("data", show.money(metered), value=metered)]
    return _tile(f"worth {value['plan']}", name, tag("data", show.money(usd), value=usd), *notes)


def _unpriced_tile(total: Event) -> Html:
    missing = total.get("unpriced", ())
    if not missing:
        return _tile("unpriced", "Unpriced", tag("data", "none", value=0), "every turn has a price")
    turns = sum(model["turns"] for model in missing)
    names = ", ".join(sorted({str(model.get("model", UNKNOWN)) for model in missing}))
    value = Html(f"{count(turns)} <small>turns</small>")
    return _tile("unpriced", "Unpriced", value, f"no known price for {names}: in no cost here", kind="warned")


# Tables.

Column = tuple[str, str]  # heading and class; text in brackets gets its own line


def table(caption: str, columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[object]]], key: str) -> Html:
    """A table that scrolls if it is too wide. Rows have a key, by which the script finds them."""
    head = tag("tr", *(tag("th", *_heading(name), scope="col", class_=kind or None) for name, kind in columns))
    body = [
        tag(
            "tr",
            *(
                tag("th", cell, scope="row", class_=kind or None) if at == 0 else tag("td", cell, class_=kind or None)
                for at, (cell, (_, kind)) in enumerate(zip(cells, columns, strict=True))
            ),
            data_key=name,
        )
        for name, cells in rows
    ]
    inner = tag("table", tag("caption", caption, class_="away"), tag("thead", head), tag("tbody", *body))
    return tag("div", inner, class_="scroll", id=key, tabindex=0, role="region", aria_label=caption)


def _basis(spent: Spent) -> str:
    return spent.basis[:1].upper() + spent.basis[1:]


def _heading(name: str) -> Iterator[object]:
    plain, bracket, more = name.partition(" (")
    yield plain
    if bracket:
        yield tag("small", f" ({more}")


def breakdown(view: View, spent: Spent, linked: bool) -> Html:
    """What cost most, by model and by project."""
    cards = [_dearest(view, spent, name, linked) for name in ("model", "project")]
    if len(spent.by["client"]) > 1:
        cards.append(_dearest(view, spent, "client", linked))
    kind = "pair three" if len(cards) > 2 else "pair"
    return tag("section", *cards, class_=kind, aria_label="Where it went", id="breakdown")


def _dearest(view: View, spent: Spent, name: str, linked: bool) -> Html:
    rows = spent.by[name]
    most = max((Decimal(row.get("cost_usd", "0")) for row in rows), default=Decimal(0))
    table_rows = []
    for row in rows[:MOST_ROWS]:
        label = str(row.get(name, UNKNOWN))
        share = float(Decimal(row.get("cost_usd", "0")) / most) if most else 0.0
        is_named = name in row and linked
        shown: object = tag("a", label, href=address(view, **{name: label}), title=f"only {label}") if is_named else label
        cell = (tag("span", shown, class_="cut"), dash_html.bar([(0.0, share, "s1")], height=6))
        table_rows.append((label, (Html("".join(map(str, cell))), count(row.get("turns", 0)), ratio(row), money(row))))
    columns = ((name.capitalize(), "bars"), ("Turns", "n"), ("Cache hit", "n some"), (_basis(spent), "n"))
    left = len(rows) - MOST_ROWS
    more = tag("p", f"and {left} more: ", tag("code", f"tok-cost --log --by {name}"), class_="sub") if left > 0 else None
    title = tag("h2", f"By {name}")
    return tag("div", title, table(f"What cost most, by {name}", columns, table_rows, f"by-{name}"), more, class_="card")


def sessions(view: View, spent: Spent) -> Html:
    """The sessions that cost most."""
    columns = (
        ("Project", ""),
        ("Session", "some"),
        ("Client", "some"),
        ("Last turn", "n"),
        ("Turns", "n"),
        ("Tokens", "n some"),
        ("Cache hit", "n some"),
        (_basis(spent), "n"),
    )
    rows = []
    for row in spent.sessions[:MOST_SESSIONS]:
        name = str(row.get("session_id", UNKNOWN))
        cells = (
            tag("span", str(row.get("project", UNKNOWN)), class_="cut"),
            tag("code", name[:8], title=name),
            str(row.get("client", UNKNOWN)),
            _moment(row["to"], view),
            count(row.get("turns", 0)),
            short(events.token_sum(row)),
            ratio(row),
            money(row),
        )
        rows.append((f"{row.get('client')} {name} {row.get('project')}", cells))
    title = tag("h2", "Top sessions", " ", tag("small", f"{len(spent.sessions):,} in all"))
    body = table("The sessions that cost most", columns, rows, "top-sessions")
    return tag("section", tag("div", title, body, class_="card"), id="sessions", aria_label="Top sessions")


def tasks(view: View) -> Html | None:
    """The newest tasks."""
    if not view.tasks:
        return None
    columns = (
        ("Task", ""),
        ("Project", "some"),
        ("Began", "n"),
        ("Took", "n some"),
        ("Turns", "n"),
        ("Tokens", "n some"),
        ("Cost", "n"),
    )
    rows = []
    for row in view.tasks:
        took: Event = row["metrics"]
        open_mark = "" if row["ended_at"] else tag("span", "open", class_="badge go")
        cells = (
            tag("span", row.get("title") or row["task"], " ", open_mark, class_="cut"),
            str(row.get("project", UNKNOWN)),
            _moment(row["started_at"], view),
            tag("data", duration(took["duration_s"]), value=took["duration_s"]),
            count(took["turns"]),
            short(events.token_sum(took)),
            money(took),
        )
        rows.append((row["task"], cells))
    title = tag("h2", "Tasks", " ", tag("small", "opened in the last 30 days"))
    body = table("The newest tasks", columns, rows, "newest-tasks")
    return tag("section", tag("div", title, body, class_="card"), id="tasks", aria_label="Tasks")


def _moment(text: str, view: View) -> Html:
    """A moment in the reader's zone: the time of today, the day of others."""
    at = when.moment(text)
    local, today = when.local(at, view.tz), when.local(view.now, view.tz)
    same = local.date() == today.date()
    shown = f"{local:%H:%M}" if same else f"{local.day} {local:%b}" if local.year == today.year else f"{local:%Y-%m-%d}"
    return tag("time", shown, datetime=text, title=f"{local:%Y-%m-%d %H:%M}")


def duration(seconds: int) -> str:
    """A length of time for people."""
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"


def notes(spent: Spent) -> Iterator[Html]:
    """What a table cannot show."""
    for line in (*costs.unpriced_notes([spent.total]), *costs.notes([spent.total]), *coverage.notes(spent.total, ())):
        yield tag("p", line, class_="sub note")
