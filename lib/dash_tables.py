"""Draws the numbers of the page: tiles, and tables of models, projects, sessions and tasks.

Each number is a `data` element whose value is exact, as the commands print it in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from tokenops import costs, coverage, dash_html, dash_query, dash_sheet, events, plans, show, when
from tokenops.dash_html import Html, join, tag
from tokenops.dash_sheet import Column, Sheet
from tokenops.dash_spend import Spent
from tokenops.dash_view import Page, View
from tokenops.events import Event

MOST_ROWS, MOST_SESSIONS = 6, 10
UNKNOWN = "unknown"


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
    since, until = view.since, view.ask.until
    names = {
        "all": "all of the log",
        "today": "today",
        "24h": "last 24 hours",
        "7d": "last 7 days",
        "30d": "last 30 days",
        "90d": "last 90 days",
    }
    name = names.get(since, "last 12 months" if since == "365d" else f"since {since}")
    if until:
        return (
            f"on {since}" if since == until else f"{since} to {until}" if since[:1].isdigit() else f"{name}, until {until}"
        )
    return name


# Tiles.


def tiles(view: View) -> Html:
    """The most important numbers."""
    spent = view.spent
    total, before = spent.total, spent.before or {}
    cost_before = exact_cost(before) if spent.before is not None else None
    turns_before = before.get("turns", 0) if spent.before is not None else None
    by_bucket = [part.spent for part in spent.bars]
    amounts = [None if row is None or "cost_usd" not in row else float(row["cost_usd"]) for row in by_bucket]
    counts = [None if row is None else float(row.get("turns", 0)) for row in by_bucket]
    hits = [row["cache_hit_ratio"] for row in by_bucket if row is not None and "cache_hit_ratio" in row]
    cost_change = _change(view, exact_cost(total), cost_before, show_money)
    turn_change = _change(view, total.get("turns", 0), turns_before, "{:,}".format)
    hit_change = _points(view, total.get("cache_hit_ratio"), before.get("cache_hit_ratio"))
    hit, tokens = Html(f"<small>Cache hit:</small> {ratio(total)}"), (short(events.token_sum(total)), " tokens")
    turns = count(total.get("turns", 0))
    is_today = view.since == "today" and not view.ask.until
    notes = _midnight(spent) if is_today and spent.at_midnight else (spent.basis,)
    all_tiles = [
        tile("span", f"Cost, {span_name(view)}", money(total), *notes, change=cost_change, spark=amounts),
        tile("turns", "Turns", turns, *tokens, change=turn_change, spark=counts),
        tile("cache", "Prompt cache", hit, *_prompt(total), change=hit_change, spark=hits),
        None if is_today else tile("today", "Cost today", money(spent.today), *_midnight(spent)),
        _burn(spent.lately),
        _unpriced_tile(total),
    ]
    return tag("section", tag("dl", *all_tiles, class_="tiles"), aria_label="Key numbers", id="tiles")


def tile(
    key: str,
    name: str,
    value: Html,
    *notes: object,
    kind: str = "",
    change: Html | None = None,
    spark: Sequence[float | None] = (),
) -> Html:
    """A number with its name, what there is to know about it, how it changed, and its course."""
    sub = tag("dd", *notes, class_="sub") if notes else None
    drawn = tag("dd", dash_html.spark(spark), class_="course") if len(spark) > 1 else None
    parts = (
        tag("dt", name),
        tag("dd", value, class_="value"),
        tag("dd", change, class_="sub") if change else None,
        sub,
        drawn,
    )
    return tag("div", *parts, class_=f"card tile {kind}".strip(), data_key=key)


def show_money(value: Decimal | float) -> str:
    """An amount for people."""
    return show.money(str(value))


def before_name(view: View) -> str:
    """When the span before was, as the end of a sentence."""
    if view.since == "today" and not view.ask.until:
        return "yesterday by this time"
    days = (view.spent.span.until - view.spent.span.since) / when.DAY
    return f"in the {days:,.0f} days before" if days >= 1.5 else f"in the {days * 24:,.0f} hours before"


def _change(
    view: View, value: Decimal | float | None, before: Decimal | float | None, say: Callable[[Decimal | float], str]
) -> Html | None:
    """How much more or less than in the span before; None if that is unknown."""
    if value is None or before is None or (not value and not before):
        return None
    name = before_name(view)
    title = f"{say(before)} {name}"
    if not before:
        return tag("span", f"nothing {name}", class_="change", title=title)
    times = float(value) / float(before)
    if times >= 10:
        return _arrow(True, f"from {say(before)}", name, title)
    much = f"{abs(times - 1):.0%}"
    return _arrow(None if much == "0%" else times > 1, f"{much} {'more' if times > 1 else 'less'} than", name, title)


def _points(view: View, value: float | None, before: float | None) -> Html | None:
    """By how many percentage points a share changed."""
    if value is None or before is None:
        return None
    points, name = 100 * (value - before), before_name(view)
    more = None if abs(points) < 0.05 else points > 0
    text = f"{abs(points):.1f} points {'more' if points > 0 else 'less'} than"
    return _arrow(more, text, name, f"{100 * before:.1f}% {name}")


def _arrow(more: bool | None, text: str, name: str, title: str) -> Html:
    """A change in words, with its direction (None: there is none), and when the span before was."""
    if more is None:
        return tag("span", f"as {name}", class_="change", title=title)
    mark = tag("span", "\u25b2" if more else "\u25bc", aria_hidden="true")
    return tag("span", mark, f" {text} {name}", class_="change", title=title)


def _midnight(spent: Spent) -> tuple[object, ...]:
    forecast = spent.at_midnight
    if forecast is None:
        return ("at list price",)
    low, high = forecast["cost_usd"]["p10"], forecast["cost_usd"]["p90"]
    begin = (tag("data", show.money(low), value=low), " to ") if show.money(low) != show.money(high) else ()
    return (*begin, tag("data", show.money(high), value=high), " likely by midnight")


def _burn(lately: Event | None) -> Html:
    if lately is None:
        return tile("burn", "Burn", tag("data", UNKNOWN, value=""), "the log is younger than 15 minutes")
    cost = lately["cost_usd_per_hour"]
    value = tag("data", UNKNOWN if cost is None else show.money(cost), value="" if cost is None else cost)
    notes = (short(lately["tokens_per_hour"]), f" tokens an hour, last {lately['minutes']} minutes")
    return tile("burn", "Burn", Html(f"{value}<small>/h</small>"), *notes)


def _prompt(total: Event) -> tuple[object, ...]:
    size = events.context_size(total)
    return ("of ", short(size), " prompt tokens") if size else ("no prompt was sent",)


def worth(view: View) -> Html | None:
    """What the plans were worth: the headline where a plan covers something."""
    if not view.spent.worth:
        return None
    cards = [_worth(value, view) for value in view.spent.worth]
    metered = view.spent.total.get("metered_usd", "0")  # of all of them, so it is said once
    rest = tag("p", "pay-per-token usage: ", tag("data", show.money(metered), value=metered), class_="sub", id="metered")
    return tag("section", *cards, rest, class_="headline", id="worth", aria_label="What your plans were worth")


def _worth(value: Event, view: View) -> Html:
    """What a plan covered, and its price."""
    parts = [plans.all_plans().get(name) for name in value["plan"].split(", ")]
    names = " and ".join(plan.display for plan in parts if plan) or value["plan"]
    usd, monthly = value["covered_usd"], value.get("plan_usd_per_month")
    is_login = value["plan"] == coverage.UNNAMED
    what = "covered by a login whose plan is not set" if is_login else f"of usage covered by {names}"
    notes: list[object] = ["at list price"]
    if monthly:
        notes += [
            "; the plan costs ",
            tag("data", show.money(monthly), value=monthly),
            " a month",
            coverage.times_its_price(value),
        ]
    big = tag("p", tag("data", show.money(usd), value=usd, class_="number"), f" {what}, {span_name(view)}", class_="big")
    return tag("div", big, tag("p", *notes, class_="sub"), class_="card worth", data_key=f"worth {value['plan']}")


def _unpriced_tile(total: Event) -> Html:
    missing = total.get("unpriced", ())
    if not missing:
        return tile("unpriced", "Unpriced", tag("data", "none", value=0), "every turn has a price")
    turns = sum(model["turns"] for model in missing)
    names = ", ".join(sorted({str(model.get("model", UNKNOWN)) for model in missing}))
    value = Html(f"{count(turns)} <small>turns</small>")
    return tile("unpriced", "Unpriced", value, f"no known price for {names}: in no cost here", kind="warned")


# Tables.


def turns_column() -> Column:
    """How many turns."""
    return Column("turns", "Turns", lambda row: int(row.get("turns", 0)), lambda row: count(row.get("turns", 0)), "n")


def tokens_column() -> Column:
    """All tokens, in few characters."""
    return Column("tokens", "Tokens", events.token_sum, lambda row: short(events.token_sum(row)), "n some")


def hit_column() -> Column:
    """How much of the prompts was read from caches."""
    return Column("cache_hit", "Cache hit", lambda row: row.get("cache_hit_ratio"), ratio, "n some")


def cost_column(title: str) -> Column:
    """What it cost."""
    return Column("cost_usd", title, exact_cost, money, "n")


def exact_cost(row: Event) -> Decimal | None:
    """What something cost, for sorting and for CSV; None if nothing in it has a price."""
    usd = row.get("cost_usd", None if row.get("unpriced") else "0")
    return None if usd is None else Decimal(usd)


def text_column(name: str, title: str, field: str = "", kind: str = "") -> Column:
    """A name, cut where it is too long."""
    key = field or name
    return Column(
        name,
        title,
        lambda row: str(row.get(key, "")),
        lambda row: tag("span", str(row.get(key, UNKNOWN)), class_="cut"),
        kind,
    )


def moment_column(name: str, title: str, field: str, view: Page, kind: str = "n") -> Column:
    """A moment, in the reader's zone."""
    return Column(name, title, lambda row: str(row[field]), lambda row: moment(row[field], view), kind)


def basis(spent: Spent) -> str:
    """What costs are: the heading of their column."""
    return spent.basis[:1].upper() + spent.basis[1:]


def card(sheet: Sheet, view: Page, live: bool, title: Html, more: Html | None = None) -> Html:
    """A table below its heading, with its CSV and a way to its other rows."""
    head = tag("header", title, dash_sheet.csv_link(sheet.name, sheet.caption, view.ask, live and bool(sheet.rows)))
    rest = dash_sheet.more_link(sheet, view.ask, live) or more
    return tag("div", head, dash_sheet.table(sheet, view.ask, live), rest, class_="card")


BREAKDOWN = ("model", "project", "client")


def breakdown_sheet(view: View, name: str, live: bool) -> Sheet:
    """What cost most, by model, project or client."""
    rows = view.spent.by[name]
    most = max((exact_cost(row) or Decimal(0) for row in rows), default=Decimal(0))

    def cell(row: Event) -> Html:
        label = str(row.get(name, UNKNOWN))
        share = float((exact_cost(row) or Decimal(0)) / most) if most else 0.0
        href = dash_query.address(view.ask, **{name: label}, rows="") if name in row and live else None
        parts = (tag("span", label, class_="cut"), dash_html.bar([(0.0, share, "s0")], height=6))
        return tag("a", *parts, href=href, title=f"only {label}", class_="whole") if href else join(*parts)

    columns = (
        Column(name, name.capitalize(), lambda row: str(row.get(name, "")), cell, "bars"),
        turns_column(),
        Column("tokens", "Tokens", events.token_sum),
        hit_column(),
        cost_column(basis(view.spent)),
    )
    return Sheet(
        f"by-{name}", f"What cost most, by {name}", columns, rows, lambda row: str(row.get(name, UNKNOWN)), MOST_ROWS
    )


def breakdown(view: View, live: bool) -> Html:
    """What cost most, by model and by project."""
    names = [name for name in BREAKDOWN if name != "client" or len(view.spent.by["client"]) > 1]
    cards = [card(breakdown_sheet(view, name, live), view, live, tag("h2", f"By {name}")) for name in names]
    kind = "pair three" if len(cards) > 2 else "pair"
    return tag("section", *cards, class_=kind, aria_label="Where it went", id="breakdown")


SHORT, LONGEST = 8, 24


def short_length(names: Sequence[str]) -> int:
    """How many first characters tell names apart, as tok-trace takes them; between 8 and 24."""
    different = len(set(names))
    return next((size for size in range(SHORT, LONGEST) if len({name[:size] for name in names}) == different), LONGEST)


def session_sheet(view: View, live: bool) -> Sheet:
    """The sessions that cost most; each leads to its turns."""

    def name(row: Event) -> str:
        return str(row.get("session_id", UNKNOWN))

    length = short_length([name(row) for row in view.spent.sessions[: dash_query.MOST_ROWS]])

    def link(row: Event) -> Html:
        short_name = tag("code", name(row)[:length])
        if not live or "session_id" not in row:
            return tag("span", short_name, title=name(row))
        href = dash_query.address(view.ask, session=name(row), sort="", rows="")
        return tag("a", short_name, href=href, title=f"{name(row)}: turn by turn")

    columns = (
        Column("session", "Session", name, link),
        text_column("project", "Project"),
        text_column("client", "Client", kind="some"),
        moment_column("last_turn", "Last turn", "to", view, "n some"),
        turns_column(),
        tokens_column(),
        hit_column(),
        cost_column(basis(view.spent)),
    )
    most = MOST_SESSIONS if not view.ask.project else 3 * MOST_SESSIONS
    caption = "The sessions that cost most"
    return Sheet(
        "top-sessions",
        caption,
        columns,
        view.spent.sessions,
        lambda row: f"{row.get('client')} {name(row)} {row.get('project')}",
        most,
    )


def sessions(view: View, live: bool) -> Html:
    """The sessions that cost most."""
    title = tag("h2", "Sessions", " ", tag("small", f"{len(view.spent.sessions):,} in all"))
    return tag("section", card(session_sheet(view, live), view, live, title), id="sessions", aria_label="Sessions")


def task_sheet(view: View) -> Sheet:
    """The newest tasks."""

    def took(row: Event) -> Event:
        metrics: Event = row["metrics"]
        return metrics

    def title(row: Event) -> Html:
        open_mark = "" if row["ended_at"] else tag("span", "open", class_="badge go")
        return tag("span", row.get("title") or row["task"], " ", open_mark, class_="cut")

    columns = (
        Column("task", "Task", lambda row: str(row.get("title") or row["task"]), title),
        text_column("project", "Project", kind="some"),
        moment_column("began", "Began", "started_at", view),
        Column(
            "seconds",
            "Took",
            lambda row: took(row)["duration_s"],
            lambda row: tag(
                "data", when.duration(1000 * took(row)["duration_s"], seconds=True), value=took(row)["duration_s"]
            ),
            "n some",
        ),
        *(_part_column(column, took) for column in (turns_column(), tokens_column(), cost_column("Cost"))),
    )
    return Sheet("newest-tasks", "The newest tasks", columns, view.tasks, lambda row: str(row["task"]))


def _part_column(column: Column, part: Callable[[Event], Event]) -> Column:
    """A column about a part of its rows."""
    cell = column.cell or column.value
    return column._replace(value=lambda row: column.value(part(row)), cell=lambda row: cell(part(row)))


def tasks(view: View, live: bool) -> Html | None:
    """The newest tasks."""
    if not view.tasks:
        return None
    title = tag("h2", "Tasks", " ", tag("small", "opened in the last 30 days"))
    return tag("section", card(task_sheet(view), view, live, title), id="tasks", aria_label="Tasks")


def moment(text: str, view: Page) -> Html:
    """A moment in the reader's zone: the time of today, the day of others."""
    at = when.moment(text)
    local, today = when.local(at, view.tz), when.local(view.now, view.tz)
    same = local.date() == today.date()
    shown = f"{local:%H:%M}" if same else f"{local.day} {local:%b}" if local.year == today.year else f"{local:%Y-%m-%d}"
    return tag("time", shown, datetime=text, title=f"{local:%Y-%m-%d %H:%M}")


def notes(spent: Spent) -> Iterator[Html]:
    """What a table cannot show."""
    for line in (*costs.unpriced_notes([spent.total]), *costs.notes([spent.total]), *coverage.notes(spent.total, ())):
        yield tag("p", line, class_="sub note")
