"""The dashboard's API: each address is a tool, with its parameters, and gives the JSON of the command that the tool is.

A part that cannot be told is `Off`: {error, hint} with status 503. A new one is a line of ROUTES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from tokenops import config, dash_spend, events, projects, store, tools
from tokenops.dash_query import Ask
from tokenops.dash_view import Gatherer
from tokenops.tools import Json, Session

ROOT = "/api/"


class Off(Exception):
    """A part that cannot be told: a sentence, and what to do."""

    def __init__(self, error: str, hint: str) -> None:
        super().__init__(error)
        self.hint = hint


class Missing(ValueError):
    """Something that is asked for by name and is not in the log."""


class Route(NamedTuple):
    """An address: the tool that it is, what is asked where nothing else is, and what is added to its answer."""

    tool: str
    usual: Json
    more: Callable[[Gatherer], Json] | None = None


def _outlook(gatherer: Gatherer) -> Json:
    """What the coming hours are likely to cost; no command says it."""
    spent = gatherer.view(Ask()).spent
    return {"spend": {"method": dash_spend.METHOD, "hours": list(spent.expected), "today": spent.at_midnight}}


ROUTES = {
    "spend/summary": Route("tokenops_spend_summary", {}),
    "spend/series": Route("tokenops_spend_by", {"by": "hour", "since": "24h"}),
    "spend/forecast": Route("tokenops_forecast", {}, _outlook),
    "spend/cache_stats": Route("tokenops_cache_stats", {}),
    "budget": Route("tokenops_session_budget", {}),
    "workflows": Route("tokenops_spend_by", {"by": "workflow"}),
    "sessions": Route("tokenops_sessions", {}),
    "tasks": Route("tokenops_task_list", {}),
    "scorecard": Route("tokenops_scorecard", {}),
    "coach": Route("tokenops_coach_prompts", {}),
    "coach/replies": Route("tokenops_coach_replies", {}),
    "coach/waste": Route("tokenops_waste", {}),
    "status": Route("tokenops_status", {}),
}
_WORKFLOW = "workflows/"


def known(path: str) -> bool:
    """Whether there is something at a path below /api/."""
    return path in ROUTES or (path.startswith(_WORKFLOW) and len(path) > len(_WORKFLOW))


def answer(gatherer: Gatherer, path: str, query: Mapping[str, str]) -> Json:
    """What a path below /api/ gives. Raises tools.Failed (a bad parameter), Missing, Off, OSError."""
    if path.startswith(_WORKFLOW):
        if query:
            raise tools.Failed(f"a workflow takes no parameter, such as {next(iter(query))[:40]!r}")
        return workflow(gatherer.session, unquote(path[len(_WORKFLOW) :]))
    route = ROUTES[path]
    tool = tools.TOOLS[route.tool]
    given = {name: value for name, value in query.items() if value}
    checked = tools.checked(tool, {**route.usual, **given})
    try:
        found = tool.answer(gatherer.session, checked).found
    except tools.Failed as error:
        if given:
            raise
        # Nothing was asked that could be wrong: it is the part that cannot be told.
        raise Off(str(error), f"run {tool.command} to see the same") from None
    return found | route.more(gatherer) if route.more else found


def workflow(session: Session, name: str) -> Json:
    """One workflow turn by turn, as tok-trace tells it. Raises Missing, tools.Failed."""
    from tokenops import trace

    as_of, settings = session.catch_up(), session.settings()
    try:
        rules = config.thresholds(settings)["waste"]
    except config.Unusable as error:
        raise Off(str(error), f"mend it in {settings.path}") from None
    try:
        full, records = trace.session(session.folder, name.rpartition(":")[2])
    except trace.Unknown:
        full, records = "", []
    names = store.labels(session.folder)
    mine = [one for one in records if projects.relabelled(one, names).get("workflow_id") == name]
    if not mine:
        raise Missing(f"no workflow {name[: events.LONGEST]!r}; /api/workflows lists them")
    steps, findings = trace.rows(mine, session.catalogue(), rules, settings.get("coaching", "context_limits") or ())
    return {"workflow_id": name, "session": full, "steps": steps, "findings": findings, "as_of": as_of or None}
