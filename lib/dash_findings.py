"""Draws the scorecard and the waste findings as sections of the page."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from tokenops import answers, answers_work, dash_headroom, dash_tables, scorecard
from tokenops.dash_html import Html, tag
from tokenops.dash_query import Ask
from tokenops.dash_sheet import Column, Sheet
from tokenops.dash_view import View
from tokenops.events import Event
from tokenops.session import Fault, Session

SCORECARD = "scorecard"
_GOOD = {"A": "go", "B": "go", "C": "slow", "D": "stop", "F": "stop"}


def card_of(session: Session, ask: Ask) -> Event:
    """The card of a span. Raises Fault, OSError."""
    log = session.log(fresh=False)
    since, until = answers.bounds(ask.since, ask.until or None, log.now, log.tz)
    cards = answers_work.score(log, since, until, only=ask.only)
    if not cards:
        raise Fault("there was no activity in this span")
    return cards[0]


def scorecard_section(view: View) -> Html | None:
    """The scorecard; None if it was not computed."""
    card = view.parts.get(SCORECARD)
    if card is None:
        return None
    title = tag("h2", "Scorecard", " ", tag("small", dash_tables.span_name(view)))
    if "pending" in card:
        body: Html = dash_headroom.pending()
    elif "error" in card:
        body = dash_headroom.notice(card)
    else:
        body = tag("ul", *(_kpi(name, kpi) for name, kpi in card["kpis"].items()), class_="kpis")
        overall = card["overall_grade"]
        grade = _grade(overall) if overall else tag("small", "no overall grade: too little is measurable yet")
        title = tag("header", title, grade)
    return tag("section", tag("div", title, body, class_="card"), id=SCORECARD, aria_label="Scorecard")


def _grade(letter: str) -> Html:
    return tag("data", letter, value=letter, class_=f"badge {_GOOD[letter]}", title=f"grade {letter}")


def _kpi(name: str, kpi: Event) -> Html:
    """One number: its value, its grade, and what it was counted from or what it needs."""
    value = kpi["value"]
    shown = dash_tables.UNKNOWN if value is None else f"{value:,.0f} s" if kpi["unit"] == "s" else f"{value:,.2f}%"
    why = [part for part in (scorecard.ratio_text(name, kpi), kpi.get("why", "")) if part]
    return tag(
        "li",
        tag("span", kpi["title"], class_="name"),
        tag("b", tag("data", shown, value="" if value is None else value)),
        _grade(kpi["grade"]) if kpi["grade"] else None,
        tag("span", "; ".join(why), class_="sub"),
        data_key=name,
    )


FINDINGS, FINDINGS_SPAN = "findings", "last 7 days"


def latest_findings(session: Session, ask: Ask) -> Event:
    """The kinds of waste with their sums, of the last days whatever is asked for. Raises Fault, OSError."""
    log = session.log(fresh=False)
    since = answers.bounds(answers_work.WEEK, None, log.now, log.tz)[0]
    return {"waste": answers_work.waste(log, since, only=ask.only).sums}


def findings_section(view: View, live: bool) -> Html | None:
    """The findings, each with its remedy; None if there are none."""
    part = view.parts.get(FINDINGS)
    if part is None or (not part.keys() & {"error", "pending"} and not part["waste"]):
        return None
    title = tag("h2", "Findings", " ", tag("small", f"{FINDINGS_SPAN}; each session: ", tag("code", "tok-coach waste")))
    if "error" in part or "pending" in part:
        text = dash_headroom.pending() if "pending" in part else dash_headroom.notice(part)
        body = tag("div", title, text, class_="card")
    else:
        body = dash_tables.card(findings_sheet(part["waste"]), view, live, title)
    return tag("section", body, id=FINDINGS, aria_label="Findings")


def findings_sheet(rows: Sequence[Event]) -> Sheet:
    """Where tokens went to waste, by kind; a finding of a single session has no number of sessions."""
    columns = [
        Column("finding", "Finding", lambda row: str(row["finding"]), _title),
        Column(
            "sessions", "Sessions", lambda row: row["sessions"], lambda row: dash_tables.count(row["sessions"]), "n some"
        ),
        Column("turns", "Turns", lambda row: row["turns"], lambda row: dash_tables.count(row["turns"]), "n"),
        Column("tokens", "Tokens", lambda row: row["tokens"], _tokens, "n"),
        Column(
            "cost_usd", "Cost", lambda row: None if row.get("cost_usd") is None else Decimal(row["cost_usd"]), _cost, "n"
        ),
    ]
    if not all("sessions" in row for row in rows):
        del columns[1]
    return Sheet("waste-table", "Where tokens went to waste", columns, rows, lambda row: str(row["finding"]))


def _title(row: Event) -> Html:
    name = row["title"]
    words = (tag("b", f"{name[:1].upper()}{name[1:]}"), tag("span", row["remedy"], class_="sub"))
    return tag("span", *words, class_="finding")


def _tokens(row: Event) -> Html:
    if row["tokens"] is None:
        return tag("data", dash_tables.UNKNOWN, value="")
    short = dash_tables.short(row["tokens"])
    return tag("span", "~", short) if row.get("tokens_estimated") else short


def _cost(row: Event) -> Html:
    usd = row.get("cost_usd")
    return tag("data", dash_tables.UNKNOWN, value="") if usd is None else dash_tables.money({"cost_usd": usd})
