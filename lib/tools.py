"""Lists the tools that an agent can call: what each takes and returns, and the command that prints the same.

A tool returns the same records as its command, in one object, and a text for people. The protocol is in agent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import events, fields, plans, show, when
from tokenops import tools_answers as answer
from tokenops.session import BadRequest, Session
from tokenops.tools_answers import Answer, Json

# No text that a tool takes is longer; errors may repeat it.
LONGEST_ARGUMENT = 500
# An answer is reused for as long as the log counts as synced.
FRESH_S = 2.0


class Tool(NamedTuple):
    """One tool. `takes` and `gives` are the properties of JSON Schemas; `command` is the command that prints the same."""

    name: str
    purpose: str
    takes: Json
    gives: Json
    answer: Callable[[Session, Json], Answer]
    command: str
    changes: bool = False
    needs: tuple[str, ...] = ()
    always: bool = False  # shown to the model even if its host defers tools

    @property
    def input_schema(self) -> Json:
        """The schema of its arguments."""
        schema: Json = {"type": "object", "properties": self.takes, "additionalProperties": False}
        return schema | ({"required": list(self.needs)} if self.needs else {})

    @property
    def output_schema(self) -> Json:
        """The schema of its answer."""
        return {"type": "object", "properties": self.gives, "required": list(self.gives)}


# Parameters of the original TokenOps that have no meaning here, and what there is instead.
ORIGINAL = {
    "horizon_days": "the forecast covers the coming hours, and each limit up to its reset; leave it out",
    "provider": "it cannot be narrowed to a provider; leave it out, or group by provider",
    "workflow_id": "it cannot be narrowed to a workflow; leave it out, or ask for that workflow's trace",
    "agent_id": "narrow it by client and project instead",
    "include_demo": "demo data has a log of its own; leave it out",
}
_KINDS = {"string": str, "integer": int, "boolean": bool}


def arguments(tool: Tool, args: Mapping[str, Any]) -> Json:
    """Arguments as the tool takes them. Raises BadRequest, which names the nearest known argument for an unknown one."""
    accepted: Json = {}
    for name, value in args.items():
        if name not in tool.takes and name in ORIGINAL:
            raise BadRequest(f"{tool.name} takes no {name}: {ORIGINAL[name]}")
        if name not in tool.takes:
            nearest = f"; did you mean {show.nearest(name[:80], tool.takes)!r}?" if tool.takes else "; it takes none"
            raise BadRequest(f"{tool.name} takes no argument {show.short_text(name)!r}{nearest}")
        if value is not None:
            accepted[name] = _argument(tool.takes[name], name, value)
    for name in tool.needs:
        if name not in accepted:
            raise BadRequest(f"{tool.name} needs {name!r}: {tool.takes[name]['description']}")
    return accepted


def _argument(schema: Json, name: str, value: Any) -> Any:
    kind = schema["type"]
    if isinstance(value, str) and len(value) > LONGEST_ARGUMENT:
        raise BadRequest(f"{name} has {len(value):,} characters; give at most {LONGEST_ARGUMENT:,}")
    if kind == "integer" and isinstance(value, str) and value.isdecimal():
        value = int(value)  # some hosts write all arguments as text
    if not isinstance(value, _KINDS[kind]) or (kind == "integer" and isinstance(value, bool)):
        raise BadRequest(f"{name} is {str(value)[:40]!r}; expected {'a' if kind != 'integer' else 'an'} {kind}")
    if "enum" in schema and value not in schema["enum"]:
        raise BadRequest(f"{name} is {show.short_text(str(value))!r}; choose from {', '.join(schema['enum'])}")
    if kind == "integer" and not schema.get("minimum", 0) <= value <= schema.get("maximum", value):
        bounds = f"{schema.get('minimum', 0)} to {schema.get('maximum', 'any number')}"
        raise BadRequest(f"{name} is {show.short_text(str(value))}; give {bounds}")
    return value


class ToolCache:
    """Answers calls, the same one not twice within two seconds."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self.session = session
        self.clock = clock
        self.answers: dict[bytes, tuple[float, Answer]] = {}

    def call(self, tool: Tool, args: Mapping[str, Any]) -> Answer:
        """The answer to a call. Raises session.Fault, OSError."""
        accepted = arguments(tool, args)
        key = orjson.dumps([tool.name, accepted], option=orjson.OPT_SORT_KEYS)
        now = self.clock()
        if tool.changes:
            self.answers.clear()
            return tool.answer(self.session, accepted)
        cached = self.answers.get(key)
        if cached is None or now - cached[0] >= FRESH_S:
            cached = (now, tool.answer(self.session, accepted))
            self.answers = {name: item for name, item in self.answers.items() if now - item[0] < FRESH_S} | {key: cached}
        return cached[1]


def ping(tool: str, now: int, number: int) -> events.Event:
    """A call as a record: activity, never usage."""
    event = {"v": events.VERSION, "ts": when.stamp(now), "kind": "ping", "id": f"ping:{events.digest(tool, now, number)}"}
    return event | {"source": "mcp", "tool": tool}


def _help(session: Session, args: Json) -> Answer:
    rows = [{"name": tool.name, "about": tool.purpose, "command": tool.command} for tool in TOOLS.values()]
    return Answer({"tools": rows}, "  \n".join(f"{row['name']}: {row['about']}" for row in rows) + "\n")


_SINCE = {"type": "string", "description": "7d, 24h, today, last week, 2026-06, 2026-11-01 (default: this month)"}
_UNTIL = {"type": "string", "description": "the same forms; a date includes its day"}
_BY = {
    "type": "string",
    "description": "project, session, agent, client, provider, model, machine, user, subagent, skill, plugin, "
    "mcp_server, mcp_tool, effort, branch, hour, day, week, month, none",
}
_ONLY = {name: {"type": "string"} for name in ("project", "model", "client", *events.OWNER)}
_ROWS: Json = {"type": "array", "items": {"type": "object"}}
_TEXT: Json = {"type": "string"}
_MAYBE: Json = {"type": ["string", "null"]}
_PROVIDER = {"type": "string", "description": "anthropic, openai, github, ..."}
_MODEL = {"type": "string", "description": "the model about to be called"}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": 50}
_SPAN = {"since": _SINCE, "until": _UNTIL}

_COACHED: Json = {
    "since": {"type": "string", "description": "default 7d"},
    "until": _TEXT,
    "project": _TEXT,
    "session": _TEXT,
}
_PROMPTS: Json = {"report": _TEXT, "findings": _ROWS, "turn_stats": {"type": "object"}}
_REPLIES: Json = {"report": _TEXT, "all": {"type": "object"}, "sessions": _ROWS}

_TABLE = (
    Tool(
        "tokenops_session_budget",
        "Call in mid-task, before long or parallel work and every few minutes within it: what is left of the plan before "
        "the cutoff, and one action to branch on: continue, slow_down, switch_model or wait_for_reset.",
        {"provider": _PROVIDER, "model": _MODEL},
        {"budgets": _ROWS, "next_actions": {"type": "array", "items": _TEXT}, "signal_quality": {"type": "object"}},
        answer.budget,
        "tok-budget",
        always=True,
    ),
    Tool(
        "tokenops_plan_headroom",
        "Call when your user asks what is left of a plan this week or month, and whether it will last.",
        {"provider": _PROVIDER},
        {"reports": _ROWS, "signal_quality": {"type": "object"}},
        answer.plan_headroom,
        "tok-plan headroom",
    ),
    Tool(
        "tokenops_burn_rate",
        "Call to see how fast tokens, money and limits were used, hour by hour, with a sparkline.",
        {"hours": {"type": "integer", "minimum": 1, "maximum": 168, "description": "default 24"}, "provider": _PROVIDER},
        {"buckets": _ROWS, "summary": {"type": "object"}},
        answer.burn_rate,
        "tok-burn --log",
    ),
    Tool(
        "tokenops_status",
        "Call once at the start, or when a number looks wrong: what is read, how far to trust it, what blocks, and the "
        "exact commands your user can run for better data.",
        {},
        {"state": _TEXT, "signal_quality": {"type": "object"}, "blockers": _ROWS, "next_actions": _ROWS, "clients": _ROWS},
        answer.status,
        "tok-status",
    ),
    Tool(
        "tokenops_data_sources",
        "Call to see which sources the numbers come from, on which plane (passive, mcp, proxy), how much each gave in 30 "
        "days, and when it last reported.",
        {},
        {"sources": _ROWS, "clients": _ROWS},
        answer.data_sources,
        "tok-status",
    ),
    Tool(
        "tokenops_spend_summary",
        "Call when asked what was spent: turns, tokens, cost at list price, what plans covered, what caches saved.",
        {**_SPAN, **_ONLY},
        {"rows": _ROWS, "total": {"type": "object"}, "plan_value": _ROWS, "from": _TEXT, "to": _TEXT, "as_of": _MAYBE},
        answer.spend_summary,
        "tok-cost --log --by none",
    ),
    Tool(
        "tokenops_coach_prompts",
        "Call when asked how to prompt better: habits in your user's prompts, what they cost, and what would help.",
        _COACHED,
        _PROMPTS,
        answer.coach_prompts,
        "tok-coach prompts",
    ),
    Tool(
        "tokenops_forecast",
        "The chance that each plan's binding window runs out before its reset, when, and what an hour will use.",
        {"provider": _PROVIDER, "model": _MODEL},
        {"forecasts": _ROWS, "signal_quality": {"type": "object"}},
        answer.forecast,
        "tok-budget",
    ),
    Tool(
        "tokenops_spend_by",
        "What was spent, by project, session, model, day or other fields.",
        {"by": _BY, **_SPAN, **_ONLY},
        {"rows": _ROWS, "total": {"type": "object"}, "plan_value": _ROWS, "from": _TEXT, "to": _TEXT, "as_of": _MAYBE},
        answer.spend_by,
        "tok-cost --log",
    ),
    Tool(
        "tokenops_top_consumers",
        "What cost most.",
        {"by": _BY, "limit": _LIMIT, **_SPAN},
        {"rows": _ROWS, "as_of": _MAYBE},
        answer.top_consumers,
        "tok-cost --log",
    ),
    Tool(
        "tokenops_sessions",
        "The latest sessions with their cost.",
        {"limit": _LIMIT, **_SPAN},
        {"rows": _ROWS, "as_of": _MAYBE},
        answer.sessions,
        "tok-cost --log --by session,project",
    ),
    Tool(
        "tokenops_cache_stats",
        "How much of the prompts was read from caches.",
        {"by": _BY, **_SPAN},
        {"rows": _ROWS, "as_of": _MAYBE},
        answer.cache_stats,
        "tok-cost --log --by model",
    ),
    Tool(
        "tokenops_pricing_show",
        "What a model costs, since when, in which tiers, and the source of the price.",
        {
            "model": {"type": "string", "description": "as a log shows it"},
            "provider": _PROVIDER,
            "at": {"type": "string", "description": "2026-11-01, 7d (default: now)"},
        },
        {"prices": _ROWS},
        answer.pricing_show,
        "tok-price show",
        needs=("model",),
    ),
    Tool("tokenops_plan_list", "The plans that are set.", {}, {"plans": _ROWS}, answer.plan_list, "tok-plan list"),
    Tool(
        "tokenops_plan_set",
        "Set your user's plan; ask them first. Names: the resource tokenops://plans.",
        {"provider": _PROVIDER, "plan": {"type": "string", "description": "claude-max-20x, gpt-plus, ..."}},
        {"plans": _ROWS},
        answer.plan_set,
        "tok-plan set",
        changes=True,
        needs=("provider", "plan"),
    ),
    Tool(
        "tokenops_provider_list",
        "Where the proxy sends requests.",
        {},
        {"providers": _ROWS},
        answer.provider_list,
        "tok-provider list",
    ),
    Tool(
        "tokenops_provider_set",
        "Restore the built-in address of a provider (no url), or set another if your user's config.yaml allows it.",
        {"provider": _PROVIDER, "url": {"type": "string", "description": "https://...; default: the built-in address"}},
        {"providers": _ROWS},
        answer.provider_set,
        "tok-provider set",
        changes=True,
        needs=("provider",),
    ),
    Tool(
        "tokenops_task_start",
        "Open a task: what is spent in this project until tokenops_task_done is counted as its cost.",
        {"title": {"type": "string", "description": "a few words; stored"}, "session": _TEXT},
        {"task": _TEXT},
        answer.task_start,
        "tok-task start",
        changes=True,
    ),
    Tool(
        "tokenops_task_done",
        "End a task, and see what it used.",
        {"task": {"type": "string", "description": "default: the one of this project opened last"}},
        {"task": _TEXT, "metrics": {"type": "object"}},
        answer.task_done,
        "tok-task done",
        changes=True,
    ),
    Tool(
        "tokenops_task_list",
        "Tasks and what they used.",
        {"since": {"type": "string", "description": "default 30d"}},
        {"tasks": _ROWS},
        answer.task_list,
        "tok-task list --metrics --since 30d",
    ),
    Tool(
        "tokenops_scorecard",
        "Eight KPIs of how agents are used, graded A to F, each with what it was counted from.",
        {
            "since": {"type": "string", "description": "default 7d"},
            "by": {"type": "string", "enum": ["none", "project", "agent", "client", "week"]},
        },
        {"cards": _ROWS},
        answer.scorecard,
        "tok-score",
    ),
    Tool(
        "tokenops_coach_replies",
        "How agents' replies read: filler, narration, repetition, and whether they drop words that their language needs.",
        _COACHED,
        _REPLIES,
        answer.coach_replies,
        "tok-coach replies",
    ),
    Tool(
        "tokenops_waste",
        "Where tokens went to waste, what it cost, and what helps.",
        {**_COACHED, "limit": _LIMIT},
        {"waste": _ROWS, "findings": _ROWS},
        answer.waste,
        "tok-coach waste",
    ),
    Tool(
        "tokenops_cheaper_models",
        "Which cheaper models of the same provider could have served simple turns, and what that would have saved, by "
        "today's price table.",
        {**_COACHED, "limit": _LIMIT},
        {"models": _ROWS},
        answer.cheaper_models,
        "tok-coach models",
    ),
    Tool(
        "tokenops_workflow_trace",
        "One session turn by turn, with its waste at each turn.",
        {"session": {"type": "string", "description": "a session's id, or its beginning"}},
        {"session": _TEXT, "steps": _ROWS, "findings": _ROWS},
        answer.workflow_trace,
        "tok-trace",
        needs=("session",),
    ),
    Tool(
        "tokenops_context",
        "What fills a session's context and what each part has cost so far, with the cache breaks: what to drop, compact or "
        "hand to a subagent now.",
        {
            "session": {"type": "string", "description": "a session's id, or its beginning (default: the latest)"},
            "by": {"type": "string", "enum": ["cause", "tool", "command", "server", "segment"]},
            "limit": _LIMIT,
        },
        {"rows": _ROWS, "total": {"type": "object"}, "breaks": _ROWS},
        answer.context_causes,
        "tok-context",
    ),
    Tool(
        "tokenops_dashboard",
        "Call when your user wants to see usage on a page: a link that opens the dashboard once, or what to run first.",
        {},
        {"url": _MAYBE, "until": _MAYBE, "hint": _TEXT},
        answer.dashboard,
        "tok-dash url",
        changes=True,
    ),
    Tool(
        "tokenops_help",
        "All tools, each with the command that prints the same.",
        {},
        {"tools": _ROWS},
        _help,
        "tok-mcp --help",
    ),
)
TOOLS = {tool.name: tool for tool in _TABLE}
# A list of tools costs context in every session: few are shown unless more are asked for.
DEFAULT = ("session_budget", "plan_headroom", "burn_rate", "status", "spend_summary")


def selection(text: str) -> list[Tool]:
    """The tools of `default`, `all`, or names with or without their prefix, separated by commas. Raises BadRequest."""
    if text == "all":
        return list(TOOLS.values())
    tools = []
    for name in DEFAULT if text == "default" else filter(None, (part.strip() for part in text.split(","))):
        tool = TOOLS.get(f"tokenops_{name.removeprefix('tokenops_')}")
        if tool is None:
            nearest = show.nearest(f"tokenops_{name}", TOOLS)
            raise BadRequest(f"there is no tool {show.short_text(name)!r}; the nearest is {nearest!r}")
        tools.append(tool)
    if not tools:
        raise BadRequest("name at least one tool, or write default or all")
    return list({tool.name: tool for tool in tools}.values())


# Resources.


def resources() -> dict[str, tuple[str, Callable[[], Json]]]:
    """Address -> what it is, and its content."""
    return {
        "tokenops://plans": ("Every plan in the catalogue: windows, price, source", _catalogue_of_plans),
        "tokenops://schema/event": ("The fields of a record of the log", fields.schema),
    }


def _catalogue_of_plans() -> Json:
    return {"plans": [plans.row(plan) for plan in plans.all_plans().values()]}
