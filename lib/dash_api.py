"""Answers the dashboard's API: each address is a tool, with its parameters, and returns the JSON of that tool.

A part that is not available is {error, hint} with status 503. A new address is a line of ROUTES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from tokenops import answers_work, dash_spend, tools
from tokenops.dash_query import Ask
from tokenops.dash_view import Gatherer
from tokenops.session import BadRequest, Fault, NotFound, Session

Json = dict[str, Any]
ROOT = "/api/"


class Unavailable(Fault):
    """A part that is not available: a sentence, and what to do."""

    def __init__(self, error: str, hint: str) -> None:
        super().__init__(error)
        self.hint = hint


class Route(NamedTuple):
    """An address: its tool, the default arguments, and what is added to the tool's answer."""

    tool: str
    defaults: Json
    more: Callable[[Gatherer], Json] | None = None


def _outlook(gatherer: Gatherer) -> Json:
    """What the coming hours are likely to cost; no command prints it."""
    spent = gatherer.view(Ask(since="24h")).spent
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


def exists(path: str) -> bool:
    """Whether there is something at a path below /api/."""
    return path in ROUTES or (path.startswith(_WORKFLOW) and len(path) > len(_WORKFLOW))


def answer(gatherer: Gatherer, path: str, query: Mapping[str, str]) -> Json:
    """The JSON of a path below /api/. Raises BadRequest, NotFound, Unavailable, OSError."""
    if path.startswith(_WORKFLOW):
        if query:
            raise BadRequest(f"a workflow takes no parameters, such as {next(iter(query))[:40]!r}")
        return workflow(gatherer.session, unquote(path[len(_WORKFLOW) :]))
    route, query = ROUTES[path], _by_of_the_original(path, query)
    tool = tools.TOOLS[route.tool]
    query = _agent_of_the_original(query, tool)
    try:
        args = tools.arguments(tool, {**route.defaults, **{name: value for name, value in query.items() if value}})
        value = tool.answer(gatherer.session, args).value
    except BadRequest:
        raise
    except Fault as fault:
        raise Unavailable(str(fault), f"run {tool.command} to see the same") from None
    return value | route.more(gatherer) if route.more else value


def _by_of_the_original(path: str, query: Mapping[str, str]) -> Mapping[str, str]:
    """A query in which the original's `bucket=day&group=model` is `by=day,model`."""
    if not path.startswith("spend/series") or not query.keys() & {"bucket", "group"}:
        return query
    if "by" in query:
        raise BadRequest("give by, or bucket and group, not both")
    by = [(query.get("bucket") or "hour").lower(), *filter(None, [query.get("group", "").lower().removesuffix("_id")])]
    return {name: value for name, value in query.items() if name not in ("bucket", "group")} | {"by": ",".join(by)}


def _agent_of_the_original(query: Mapping[str, str], tool: tools.Tool) -> Mapping[str, str]:
    """A query in which the original's `agent_id=codex:app` is `client=codex` and `project=app`."""
    client, colon, project = query.get("agent_id", "").partition(":")
    if not colon or "agent_id" in tool.takes or not {"client", "project"} <= tool.takes.keys():
        return query
    if query.keys() & {"client", "project"}:
        raise BadRequest("give agent_id, or client and project, not both")
    return {name: value for name, value in query.items() if name != "agent_id"} | {"client": client, "project": project}


def workflow(session: Session, workflow_id: str) -> Json:
    """One workflow turn by turn, as tok-trace prints it. Raises NotFound, Fault."""
    log = session.log()
    try:
        name, steps, findings, _ = answers_work.workflow(log, workflow_id)
    except NotFound as fault:
        raise NotFound(f"{fault}; /api/workflows lists them") from None
    value = {"workflow_id": workflow_id, "session": name, "steps": steps, "findings": findings}
    return value | {"as_of": log.as_of or None}
