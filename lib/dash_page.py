"""Makes the dashboard's page as HTML, readable without a script, served or as a file of its own.

The script only fetches the page again and replaces what changed. There is no inline style and no inline script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Callable

from tokenops import (
    chart_svg,
    chart_text,
    dash_charts,
    dash_findings,
    dash_headroom,
    dash_limits,
    dash_query,
    dash_rhythm,
    dash_steps,
    dash_tables,
    dash_turn,
    dash_view,
    when,
)
from tokenops.dash_html import Html, join, tag
from tokenops.dash_sheet import Sheet
from tokenops.dash_view import EMPTY, LOADING, Page, Story, View

SPANS = {"today": "Today", "24h": "24 h", "7d": "7 d", "30d": "30 d", "90d": "90 d", "365d": "1 y", "all": "All"}
_FOLDER = os.path.join(os.path.dirname(__file__), "page")
SCHEME = "light dark"


@functools.cache
def asset(name: str) -> bytes:
    """A file of the page: page.css (with the charts' own), page.js or icon.svg. Raises OSError."""
    with open(os.path.join(_FOLDER, name), "rb") as file:
        content = file.read()
    return content + chart_svg.css().encode() if name == "page.css" else content


@functools.cache
def version(name: str) -> str:
    """A name for a file's content, so that a browser may keep it for good."""
    return hashlib.blake2b(asset(name), digest_size=8).hexdigest()


def page(view: Page, etag: str = "") -> bytes:
    """The page as tok-dash serves it."""
    is_pending = isinstance(view, View) and any("pending" in part for part in view.parts.values())
    head = (
        tag("link", rel="stylesheet", href=f"/dashboard/page.css?v={version('page.css')}"),
        tag("link", rel="icon", href=_icon(), type="image/svg+xml"),
        tag("script", type="module", src=f"/dashboard/page.js?v={version('page.js')}"),
        tag("noscript", tag("meta", http_equiv="refresh", content="3")) if view.state == LOADING or is_pending else None,
    )
    return _document(view, head, True, etag)


def _icon() -> str:
    """The icon as an address of its own: browsers ask for one each time the page's address changes."""
    return f"data:image/svg+xml;base64,{base64.b64encode(asset('icon.svg')).decode()}"


def standalone(view: View) -> bytes:
    """The page as a file that loads nothing: its own policy forbids that."""
    style = asset("page.css").decode()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = (
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="referrer", content="no-referrer"),
        tag("style", Html(style)),
    )
    return _document(view, head, False, "")


def _document(view: Page, head: tuple[Html | None, ...], live: bool, etag: str) -> bytes:
    meta = (
        tag("meta", charset="utf-8"),
        tag("title", _title(view)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content=SCHEME),
        tag("meta", name="etag", content=etag) if etag else None,
    )
    skip = tag("a", "Skip to the numbers", href="#main", class_="away skip")
    main = tag("main", *_sections(view, live), id="main", data_state=view.state)
    body = tag("body", skip if live else None, _header(view, live), main, _footer(view, live), dash_headroom.pattern())
    return f"<!doctype html>\n{tag('html', tag('head', *meta, *head), body, lang='en')}\n".encode()


def _title(view: Page) -> str:
    if isinstance(view, Story):
        return dash_steps.title(view)
    rows = view.budgets if isinstance(view.budgets, list) else []
    uses = [
        dash_headroom.likely_use(reading)
        for row in rows
        for reading in row["windows"]
        if row["headroom_pct"] is not None and reading["window"] == row["binding_window"]
    ]
    return f"{chart_text.percent(max(uses))} used - TokenOps" if uses else "TokenOps"


# Above.


def _header(view: Page, live: bool) -> Html:
    brand = tag("h1", Html(asset("icon.svg").decode()), "TokenOps")
    if isinstance(view, Story):
        return tag("header", tag("div", brand, _status(view, live), class_="brand"), class_="top")
    if live:
        return tag("header", tag("div", brand, _status(view, live), class_="brand"), _filters(view), class_="top")
    parts = [dash_tables.span_name(view), *(f"{name} {value}" for name, value in _active_filters(view))]
    return tag("header", tag("div", brand, _status(view, live), class_="brand"), tag("p", "; ".join(parts)), class_="top")


def _status(view: Page, live: bool) -> Html:
    """When the log was last synced. The script shows here when it cannot fetch the page."""
    seen = view.as_of if view.as_of else when.stamp(view.now)
    local = when.local(when.moment(seen), view.tz)
    day = "" if live and local.date() == when.local(view.now, view.tz).date() else f"{local:%Y-%m-%d} "
    time = tag("time", f"{day}{local:%H:%M:%S}", datetime=seen)
    zone = f" {when.zone_name(view.tz)}"
    text = join("as of ", time, zone) if view.as_of else join("never synced; ", time, zone)
    message = tag("span", id="message", role="status") if live else None
    return tag("p", tag("span", class_="lamp"), tag("span", text, id="as-of"), message, id="status")


def _active_filters(view: View) -> list[tuple[str, str]]:
    ask = view.ask
    return [(name, value) for name in dash_query.FILTERS if (value := getattr(ask, name))]


def _filters(view: View) -> Html:
    """A form that works without the script, which sends it after each change."""
    ask = view.ask
    spans = SPANS if view.since in SPANS else {**SPANS, view.since: dash_tables.span_name(view)}
    pills = [
        tag("label", tag("input", type="radio", name="since", value=since, checked=since == view.since), tag("span", name))
        for since, name in spans.items()
    ]
    choices = view.spent.choices
    names = dash_query.with_several(ask, choices)
    selects = [_select(name, getattr(ask, name), list(choices.get(name, ()))) for name in names]
    hidden = [
        tag("input", type="hidden", name=name, value=value)
        for name, value in (("until", ask.until), ("part", ask.part), ("sort", ask.sort), ("rows", ask.rows))
        if value
    ]
    clear = None
    if _active_filters(view) or ask.until or ask.part:
        clear = tag(
            "a",
            "Clear",
            href=dash_query.address(ask, until="", part="", **dict.fromkeys(dash_query.FILTERS, "")),
            class_="clear",
        )
    return tag(
        "form",
        tag("fieldset", tag("legend", "Span", class_="away"), *pills, class_="pills"),
        *selects,
        *hidden,
        tag("button", "Apply", type="submit"),
        clear,
        id="filters",
        method="get",
        action="/dashboard",
        aria_label="What is shown",
    )


def _select(name: str, chosen: str, values: list[str]) -> Html:
    choices = sorted({*values, chosen} - {""})
    options = [tag("option", f"All {name}s", value="", selected=not chosen)]
    options += [tag("option", value, value=value, selected=value == chosen) for value in choices]
    label = tag("span", name.capitalize(), class_="away")
    return tag("label", label, tag("select", *options, name=name), class_="set" if chosen else None)


# Between.


def _sections(view: Page, live: bool) -> list[Html | None]:
    if isinstance(view, Story):
        sections = dash_turn.sections(view) if view.explained is not None else dash_steps.sections(view)
        return [dash_steps.path(view), _warnings(view), *sections]
    spent = view.spent
    if view.state == LOADING and live:
        return [
            _blank(
                "Reading your agents' logs for the first time",
                "Numbers appear here once the first import finishes.",
                busy=True,
            )
        ]
    if view.state in (LOADING, EMPTY):
        return [
            _warnings(view),
            _blank("The log is empty", "If agents have run on this machine, these commands show what is missing:", *_FIRST),
            dash_headroom.section(view),
        ]
    drawn = functools.partial(_section_of, view, live)
    sections = [
        dash_steps.path(view) if live else None,
        _warnings(view),
        dash_tables.worth(view),
        drawn("headroom", lambda: dash_headroom.section(view)),
    ]
    if spent.empty:
        return [*sections, _nothing(view, live), dash_tables.tasks(view, live)]
    sections.append(drawn("tiles", lambda: dash_tables.tiles(view)))
    if not spent.total:
        return [*sections, _blank("Nothing matches", "No turn of this span has all that is chosen together.")]
    return [
        *sections,
        drawn("charts", lambda: dash_charts.section(view, live)),
        drawn("breakdown", lambda: dash_tables.breakdown(view, live)),
        drawn("sessions", lambda: dash_tables.sessions(view, live)),
        dash_rhythm.section(view, live),
        dash_limits.section(view, live),
        dash_tables.tasks(view, live),
        dash_findings.scorecard_section(view),
        dash_findings.findings_section(view, live),
        tag("section", *dash_tables.notes(spent), class_="notes", aria_label="Notes"),
    ]


def _section_of(view: View, live: bool, name: str, draw: Callable[[], Html | None]) -> Html | None:
    """A section that depends on the numbers of a view only: drawn once for all pages that show them."""
    if view.drawn is None:
        return draw()
    name = f"{name} {live}"
    if name not in view.drawn:
        view.drawn[name] = draw()
    section: Html | None = view.drawn[name]
    return section


_FIRST = ("tok-init --detect", "tok-sync", "tok-status")


def _blank(title: str, text: str, *commands: str, busy: bool = False) -> Html:
    """The card for an empty page, with what to do about it."""
    steps = dash_headroom.steps(*commands) if commands else None
    return tag("section", tag("h2", title), tag("p", text), steps, class_="card blank", aria_busy="true" if busy else None)


def _nothing(view: View, live: bool) -> Html:
    """The card for a span without records: when the last one was."""
    text = f"The last day in the log is {view.last_day}."
    link = tag("a", "Show the last 12 months", href=dash_query.address(view.ask, since="365d", until="")) if live else None
    return tag(
        "section",
        tag("h2", f"Nothing in this span ({dash_tables.span_name(view)})"),
        tag("p", text, " ", link),
        class_="card blank",
    )


def _warnings(view: Page) -> Html | None:
    """What a reader must know first."""
    paragraphs = []
    if view.demo:
        paragraphs.append(
            tag("p", "This log holds demo data (tok-init --demo). ", tag("code", "tok-init --no-demo"), " removes it.")
        )
    if not view.as_of and view.state != LOADING:
        paragraphs.append(
            tag("p", "The log was never synced. ", tag("code", "tok-sync"), " does it, and prints what is wrong.")
        )
    if dash_view.is_stale(view):
        paragraphs.append(
            tag(
                "p",
                "The log is out of date: it was last synced at ",
                _when(view),
                ". ",
                tag("code", "tok-sync"),
                " prints why.",
            )
        )
    return tag("div", *paragraphs, class_="notices", role="note") if paragraphs else None


def _when(view: Page) -> Html:
    local = when.local(when.moment(view.as_of), view.tz)
    return tag("time", f"{local:%Y-%m-%d %H:%M}", datetime=view.as_of)


# The tables that slow parts are drawn from.
SLOW_TABLES = frozenset(("week", "calendar", "limits-table", "waste-table"))


def sheets(view: Page) -> list[Sheet]:
    """The tables of a page, for CSV."""
    if isinstance(view, Story):
        return dash_turn.sheets(view) if view.explained is not None else dash_steps.sheets(view)
    waste = view.parts.get(dash_findings.FINDINGS, {})
    return [
        dash_charts.numbers_sheet(view),
        *(dash_tables.breakdown_sheet(view, name, True) for name in dash_tables.BREAKDOWN),
        dash_tables.session_sheet(view, True),
        *dash_rhythm.sheets(view),
        dash_limits.sheet(view),
        dash_tables.task_sheet(view),
        dash_findings.findings_sheet(waste.get("waste", ())),
    ]


# Below.


def _footer(view: Page, live: bool) -> Html:
    parts = [
        "Costs are list prices; usage that a plan covers is shown at the price of the API, not at what you pay. "
        "Unknown values are shown as unknown, and are in no sum. ",
        "A number looks wrong? ",
        tag("code", "tok-status"),
        ".",
    ]
    keys = (
        tag(
            "p",
            "In a chart, use the left and right arrows, Home and End. The page refreshes every 15 seconds.",
            class_="keys",
        )
        if live
        else None
    )
    return tag("footer", tag("p", *parts), keys, tag("p", f"TokenOps {view.version}"))


# The page's own style needs the token, so a refusal has its own. Its policy names this very text.
_REFUSAL_STYLE = (
    ":root{color-scheme:light dark;font:16px/1.6 ui-sans-serif,system-ui,sans-serif}body{max-width:38rem;margin:12vh auto;"
    "padding:0 1.2rem}h1{font-size:1.35rem;line-height:1.3}code{display:inline-block;padding:.15rem .5rem;border-radius:6px;"
    "background:#8882;font:.95em ui-monospace,Menlo,Consolas,monospace}li{margin:.5rem 0}"
    "html{background:#f4f5f8;color:#1d2129}a{color:#24508f}@media(prefers-color-scheme:dark){html{background:#0d0f13;"
    "color:#e8eaee}a{color:#8db7f0}}"
)
REFUSAL_HASH = base64.b64encode(hashlib.sha256(_REFUSAL_STYLE.encode()).digest()).decode()


def refusal(status: int, error: str, hint: str, again: bool = False) -> bytes:
    """A page that says why there is no other. `again`: it requests the page once more by itself."""
    meta = (
        tag("meta", charset="utf-8"),
        tag("title", f"{status} - TokenOps"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content=SCHEME),
        tag("meta", http_equiv="refresh", content="0") if again else None,
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(_REFUSAL_STYLE)),
    )
    inner = _how_to_enter() if status == 401 else (tag("h1", error), tag("p", hint), _way_back(status))
    body = tag("body", tag("main", *inner))
    return f"<!doctype html>\n{tag('html', tag('head', *meta), body, lang='en')}\n".encode()


def _way_back(status: int) -> Html | None:
    """From a page that does not exist to one that does."""
    return tag("p", tag("a", "Open the dashboard", href=dash_query.PAGE)) if status in (400, 404) else None


def _how_to_enter() -> tuple[Html, ...]:
    """What to do without a session: for somebody who followed a bookmark, or whose link has been used."""
    steps = (
        tag("li", "In a terminal on the machine that runs the dashboard, run ", tag("code", "tok-dash url")),
        tag("li", "Open the link that it prints. It works once, within ten minutes."),
        tag("li", "Then this address works in this browser for a day, and longer while a page is open."),
    )
    why = (
        "The dashboard shows what your agents cost, so it opens only for you. This browser has no session, or it has ended."
    )
    return tag("h1", "This page needs a link from your terminal"), tag("p", why), tag("ol", *steps)
