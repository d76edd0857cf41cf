"""Draws the scorecard and the waste findings as sections of the page."""

from __future__ import annotations

from tokenops import answers, answers_work, dash_headroom, dash_tables
from tokenops.dash_html import Html, tag
from tokenops.dash_view import View
from tokenops.events import Event
from tokenops.session import Fault, Session

SCORECARD, SCORECARD_SPAN = "scorecard", "last 7 days"
_GOOD = {"A": "go", "B": "go", "C": "slow", "D": "stop", "F": "stop"}


def latest_card(session: Session) -> Event:
    """The card of the last seven days. Raises Fault, OSError."""
    log = session.log()
    cards = answers_work.score(log, answers.bounds(answers_work.WEEK, None, log.now, log.tz)[0])
    if not cards:
        raise Fault("there was no activity in the last seven days")
    return cards[0]


def scorecard_section(view: View) -> Html | None:
    """The scorecard; None if it was not computed."""
    card = view.parts.get(SCORECARD)
    if card is None:
        return None
    title = tag("h2", "Scorecard", " ", tag("small", SCORECARD_SPAN))
    if "error" in card:
        body: Html = dash_headroom.notice(card)
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
    counted = f"{kpi['numerator']:,} / {kpi['denominator']:,}" if kpi["denominator"] else ""
    why = [part for part in (counted, kpi.get("why", "")) if part]
    return tag(
        "li",
        tag("span", kpi["title"], class_="name"),
        tag("b", tag("data", shown, value="" if value is None else value)),
        _grade(kpi["grade"]) if kpi["grade"] else None,
        tag("span", "; ".join(why), class_="sub"),
        data_key=name,
    )


FINDINGS, FINDINGS_SPAN = "findings", "last 7 days"


def latest_findings(session: Session) -> Event:
    """The kinds of waste with their sums. Raises Fault, OSError."""
    log = session.log()
    return {"waste": answers_work.waste(log, answers.bounds(answers_work.WEEK, None, log.now, log.tz)[0]).sums}


def findings_section(view: View) -> Html | None:
    """The findings, each with its remedy; None if there are none."""
    part = view.parts.get(FINDINGS)
    if part is None or ("error" not in part and not part["waste"]):
        return None
    if "error" in part:
        body: Html = dash_headroom.notice(part)
    else:
        columns = (("Finding", ""), ("Sessions", "n some"), ("Turns", "n"), ("Tokens", "n"), ("Cost", "n"))
        rows = [(row["finding"], _cells(row)) for row in part["waste"]]
        body = dash_tables.table("Where tokens went to waste", columns, rows, "waste-table")
    title = tag("h2", "Findings", " ", tag("small", f"{FINDINGS_SPAN}; each session: ", tag("code", "tok-coach waste")))
    return tag("section", tag("div", title, body, class_="card"), id=FINDINGS, aria_label="Findings")


def _cells(row: Event) -> tuple[object, ...]:
    name = row["title"]
    cost = row.get("cost_usd")
    return (
        tag("span", tag("b", f"{name[:1].upper()}{name[1:]}"), tag("span", row["remedy"], class_="sub"), class_="finding"),
        dash_tables.count(row["sessions"]),
        dash_tables.count(row["turns"]),
        dash_tables.short(row["tokens"]),
        tag("data", dash_tables.UNKNOWN, value="") if cost is None else dash_tables.money({"cost_usd": cost}),
    )
