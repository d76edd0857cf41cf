"""Findings on the page: where tokens went to waste in the last seven days, as tok-coach waste says it."""

from __future__ import annotations

from tokenops import dash_headroom, dash_tables
from tokenops.dash_view import View
from tokenops.events import Event
from tokenops.markup import Html, tag
from tokenops.tools import Session

FINDINGS, FINDINGS_SPAN = "findings", "last 7 days"


def latest_findings(session: Session) -> Event:
    """The kinds of waste with their sums. Raises tools.Failed, OSError."""
    from tokenops import tools

    return {"waste": tools.TOOLS["tokenops_waste"].answer(session, {}).found["waste"]}


def findings_section(view: View) -> Html | None:
    """What was found, each with what helps; nothing where nothing was."""
    told = view.parts.get(FINDINGS)
    if told is None or ("error" not in told and not told["waste"]):
        return None
    if "error" in told:
        body: Html = dash_headroom.notice(told)
    else:
        columns = (("Finding", ""), ("Sessions", "n some"), ("Turns", "n"), ("Tokens", "n"), ("Cost", "n"))
        rows = [(row["finding"], _cells(row)) for row in told["waste"]]
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
