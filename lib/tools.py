"""The tools that an agent can call: what each takes, what it gives, and the command whose face it is.

A tool gives the very records of its command, in one object, and a line of text for whoever reads. Nothing here knows
the protocol: bin/tok-mcp serves the table.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import config, coverage, events, headroom, plans, pricing, rollup, show, when

Json = dict[str, Any]
# An answer is given again for as long as the log counts as synced.
FRESH_S = 2.0


class Failed(ValueError):
    """A call that cannot be answered: a sentence with what to do instead."""


class Answer(NamedTuple):
    """What a tool found: an object that fits the tool's schema, and the same for people in Markdown."""

    found: Json
    text: str


class Session(NamedTuple):
    """What tools work with; functions are called anew for each answer."""

    folder: str
    environment: Mapping[str, str]
    home: str
    now: Callable[[], int]
    settings: Callable[[], config.Config]
    catalogue: Callable[[], pricing.Catalogue]
    catch_up: Callable[[], str]  # take in what is new; as of when the log is known, "" if nobody knows


class Tool(NamedTuple):
    """One tool. `takes` and `gives` are the properties of JSON Schemas; `command` is the command that says the same."""

    name: str
    about: str
    takes: Json
    gives: Json
    answer: Callable[[Session, Json], Answer]
    command: str
    changes: bool = False
    needs: tuple[str, ...] = ()

    @property
    def input_schema(self) -> Json:
        """The schema of its arguments."""
        made: Json = {"type": "object", "properties": self.takes, "additionalProperties": False}
        return made | ({"required": list(self.needs)} if self.needs else {})

    @property
    def output_schema(self) -> Json:
        """The schema of what it gives."""
        return {"type": "object", "properties": self.gives, "required": list(self.gives)}


_KINDS = {"string": str, "integer": int, "boolean": bool}


def checked(tool: Tool, given: Mapping[str, Any]) -> Json:
    """Arguments that the tool takes. Raises Failed: an unknown name is told with the nearest known one."""
    made: Json = {}
    for name, value in given.items():
        if name not in tool.takes:
            known = f"; did you mean {show.nearest(name, tool.takes)!r}?" if tool.takes else "; it takes none"
            raise Failed(f"{tool.name} takes no argument {name!r}{known}")
        if value is not None:
            made[name] = _checked(tool.takes[name], name, value)
    for name in tool.needs:
        if name not in made:
            raise Failed(f"{tool.name} needs {name!r}: {tool.takes[name]['description']}")
    return made


def _checked(schema: Json, name: str, value: Any) -> Any:
    kind = schema["type"]
    if kind == "integer" and isinstance(value, str) and value.isdecimal():
        value = int(value)  # some hosts write all arguments as text
    if not isinstance(value, _KINDS[kind]) or (kind == "integer" and isinstance(value, bool)):
        raise Failed(f"{name} is {str(value)[:40]!r}; expected {'a' if kind != 'integer' else 'an'} {kind}")
    if "enum" in schema and value not in schema["enum"]:
        raise Failed(f"{name} is {value!r}; choose from {', '.join(schema['enum'])}")
    if kind == "integer" and not schema.get("minimum", 0) <= value <= schema.get("maximum", value):
        raise Failed(f"{name} is {value}; give {schema.get('minimum', 0)} to {schema.get('maximum', 'any number')}")
    return value


class Desk:
    """Answers calls, the same one not twice within two seconds."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self.session = session
        self.clock = clock
        self.known: dict[bytes, tuple[float, Answer]] = {}

    def ask(self, tool: Tool, given: Mapping[str, Any]) -> Answer:
        """The answer to a call. Raises Failed, OSError."""
        taken = checked(tool, given)
        key = orjson.dumps([tool.name, taken], option=orjson.OPT_SORT_KEYS)
        now = self.clock()
        if tool.changes:
            self.known.clear()
            return tool.answer(self.session, taken)
        found = self.known.get(key)
        if found is None or now - found[0] >= FRESH_S:
            found = (now, tool.answer(self.session, taken))
            self.known = {name: held for name, held in self.known.items() if now - held[0] < FRESH_S} | {key: found}
        return found[1]


def ping(tool: str, now: int, number: int) -> events.Event:
    """A call as a record: activity, never usage."""
    made = {"v": events.VERSION, "ts": when.stamp(now), "kind": "ping", "id": f"ping:{events.digest(tool, now, number)}"}
    return made | {"source": "mcp", "tool": tool}


# What is left.


def _budget(session: Session, given: Json) -> Answer:
    from tokenops import limit_plans

    as_of = session.catch_up()
    settings = session.settings()
    try:
        rules = config.thresholds(settings)
        bound = {one.provider for one in plans.bindings(settings)}
    except config.Unusable as error:
        raise Failed(str(error)) from None
    asked = given.get("provider", ""), given.get("model", "")
    rows = limit_plans.budget_rows(session.folder, session.now(), rules, bound, session.catalogue, *asked)
    rows = [{**row, "as_of": as_of or row["as_of"]} for row in rows]
    return Answer({"budgets": rows, "next_actions": [] if rows else ["tok-init --detect"]}, _gauges(rows))


_COLOURS = {headroom.CONTINUE: "\U0001f7e9", headroom.SLOW_DOWN: "\U0001f7e8"}
_RED, _EMPTY = "\U0001f7e5", "⬜"


def gauge(percent: int | None, action: str, width: int = 10) -> str:
    """Squares, coloured by what to do: what is left of a window. Unknown is a row of question marks."""
    if percent is None:
        return "❔" * width
    full = round(percent * width / 100)
    return _COLOURS.get(action, _RED) * full + _EMPTY * (width - full)


def _gauges(rows: list[events.Event]) -> str:
    if not rows:
        return "No plan is set and no vendor's reading was found. Run `tok-init --detect` to see what is here.\n"
    lines = []
    for row in rows:
        left, action = row["headroom_pct"], row["recommended_action"]
        told = "headroom unknown" if left is None else f"{left} % of {row['binding_window']} left"
        resets = f", resets in {row['window_resets_in']}" if row["window_resets_in"] else ""
        switch = f" to {row['switch_to']}" if "switch_to" in row else ""
        signal = row["signal_quality"]
        lines += [
            f"{gauge(left, action)} **{row['provider']}**: {told}{resets}. **{action}**{switch}",
            f"signal {signal['level']} ({signal['source']}): {signal['caveat']}",
        ]
        lines += [f"next: `{text}`" if text.startswith("tok-") else f"next: {text}" for text in row["next_actions"]]
    return "  \n".join(lines) + "\n"


def _forecast(session: Session, given: Json) -> Answer:
    found = _budget(session, given).found["budgets"]
    rows = [
        {"provider": row["provider"], "window": row["binding_window"]}
        | {name: row[name] for name in ("account", "headroom_pct", "recommended_action", "forecast") if name in row}
        for row in found
    ]
    told = [f"**{row['provider']}** {row['window'] or ''}: {_chance(row.get('forecast'))}" for row in rows]
    return Answer({"forecasts": rows}, "  \n".join(told) + "\n")


def _chance(forecast: events.Event | None) -> str:
    if not forecast:
        return "no forecast: nothing is known of an open window"
    doubt = " (little is known of this account yet)" if forecast["few_data"] else ""
    return f"runs out before its reset with a chance of {forecast['p_cutoff']:.0%}{doubt}"


def _plan_headroom(session: Session, given: Json) -> Answer:
    from tokenops import limit_plans

    as_of, settings = session.catch_up(), session.settings()
    try:
        rules, bound = config.thresholds(settings), plans.bindings(settings)
        tz = when.zone(None)
        rows = limit_plans.plan_rows(
            session.folder, bound, session.now(), tz, rules, session.catalogue(), given.get("provider", "")
        )
    except config.Unusable as error:
        raise Failed(str(error)) from None
    rows = [row | {"as_of": as_of} for row in rows]
    if not rows:
        return Answer(
            {"reports": [], "error": "no plan is set", "hint": "tok-init --detect"}, "No plan is set: `tok-init --detect`.\n"
        )
    return Answer({"reports": rows}, limit_plans.table(rows, "markdown", False))


def _burn_rate(session: Session, given: Json) -> Answer:
    from tokenops import burn, burn_buckets

    as_of, now, tz = session.catch_up(), session.now(), when.zone(None)
    try:
        covered = plans.covering(session.settings(), when.bucket(now, "day", tz))
    except config.Unusable as error:
        raise Failed(str(error)) from None
    span = burn_buckets.span(now, given.get("hours", 24), "hour", tz)
    ask = burn.Ask(span, events.EVERY, given.get("provider", ""), covered)
    found = burn.of_log(session.folder, ask, session.catalogue(), now, lambda place, why: None)
    found.total["as_of"] = as_of
    text = [f"`{found.total['sparkline']}` tokens per hour, {span.by}", *burn.notes(found)]
    return Answer({"buckets": found.records(), "summary": found.total}, "  \n".join(text) + "\n")


# What was spent.

SINCE = {"type": "string", "description": "7d, 24h, today, 2026-11-01 (default: this month)"}
UNTIL = {"type": "string", "description": "likewise; a date includes its day"}
_BY = {"type": "string", "description": "project, session, agent, client, provider, model, hour, day, week, month, none"}
_ONLY = {name: {"type": "string"} for name in ("project", "model", "client")}


def _spend(session: Session, given: Json, by: str = "none") -> Answer:
    from tokenops import costs, store_summaries

    as_of, now, tz = session.catch_up(), session.now(), when.zone(None)
    try:
        plan = rollup.Plan(rollup.fields(given.get("by", by)), tz, session.catalogue())
        begin = when.since(given.get("since") or f"{when.bucket(now, 'month', tz)}-01", now, tz)
        end = when.until(given["until"], now, tz) if "until" in given else now
    except (ValueError, OverflowError) as error:
        raise Failed(f"{error}; see tok-cost --help") from None
    wanted = events.Filter(None, given.get("client"), given.get("project"), given.get("model"))
    last = when.stamp(end) if "until" in given else "9"
    cover = _cover(session, tz)
    rolled = store_summaries.rows(session.folder, plan, now, when.stamp(begin), last, wanted, cover=cover)
    rows = costs.priced(rolled, plan.catalogue)
    total = costs.total_of(rows)
    worth = coverage.beside(total, cover, when.stamp(begin), when.stamp(end), tz) if cover else []
    found: Json = {"rows": rows, "total": total, "plan_value": worth}
    found |= {"from": when.stamp(begin), "to": when.stamp(end), "as_of": as_of or None}
    if not rows:
        return Answer(found, "Nothing was spent in this span.\n")
    told = "  \n".join(coverage.notes(total, worth))
    return Answer(found, f"{costs.table(rows, 'markdown', False)}\n{told}\n")


def _cover(session: Session, tz: datetime.tzinfo) -> coverage.Coverage | None:
    """What the user's plans cover; None where none is set. Raises Failed."""
    try:
        bound = plans.bindings(session.settings())
    except config.Unusable as error:
        raise Failed(str(error)) from None
    return coverage.Coverage(bound, tz) if bound else None


def _spend_by(session: Session, given: Json) -> Answer:
    return _spend(session, given, "project")


def _sessions(session: Session, given: Json) -> Answer:
    from tokenops import costs

    found = _spend(session, given, "session,project").found
    rows = sorted(found["rows"], key=lambda row: str(row["to"]), reverse=True)[: given.get("limit", 20)]
    text = costs.table(rows, "markdown", False) if rows else "No session in this span.\n"
    return Answer({"rows": rows, "as_of": found["as_of"]}, text)


def _top(session: Session, given: Json) -> Answer:
    from decimal import Decimal

    from tokenops import costs

    found = _spend(session, given, "project").found
    order = sorted(found["rows"], key=lambda row: (Decimal(row.get("cost_usd", "0")), events.token_sum(row)), reverse=True)
    rows = order[: given.get("limit", 5)]
    return Answer({"rows": rows, "as_of": found["as_of"]}, costs.table(rows, "markdown", False) if rows else "Nothing.\n")


_CACHE = ("from", "to", "turns", "input_tokens", "cache_read_tokens", *events.CONTEXT[2:], "cache_hit_ratio")


def _cache_stats(session: Session, given: Json) -> Answer:
    found = _spend(session, given, "model").found
    rows = [{name: value for name, value in row.items() if name in (*_CACHE, *_named(row))} for row in found["rows"]]
    names = [" ".join(str(row.get(name, "unknown")) for name in _named(row)) or "all" for row in found["rows"]]
    ratios = [show.percent(row.get("cache_read_tokens", 0), events.context_size(row)) for row in rows]
    told = [f"{name}: cache hit {ratio or 'unknown'}" for name, ratio in zip(names, ratios, strict=True)]
    return Answer({"rows": rows, "as_of": found["as_of"]}, "  \n".join(told) + "\n")


def _named(row: events.Event) -> list[str]:
    return [rollup.FIELDS.get(name, "bucket") for name in row["by"]]


# What is known, and what is set.


def _pricing_show(session: Session, given: Json) -> Answer:
    from tokenops import price_report

    now, tz = session.now(), when.zone(None)
    try:
        at = when.stamp(when.since(given["at"], now, tz) if "at" in given else now)
    except (ValueError, OverflowError) as error:
        raise Failed(str(error)) from None
    told = price_report.one(session.catalogue(), given.get("provider", ""), given["model"], at)
    return Answer({"prices": [told]}, price_report.text_of_price(told))


def _status(session: Session, given: Json) -> Answer:
    from tokenops import doctor

    told = doctor.report(
        session.folder, session.now(), session.environment, session.home, session.settings(), session.catalogue
    )
    lines = [f"**{told['state']}**"]
    lines += [f"{one['what']}: `{one['do']}`" for one in (*told["blockers"], *told["next_actions"])]
    return Answer(told, "  \n".join(lines) + "\n")


def _data_sources(session: Session, given: Json) -> Answer:
    from tokenops import doctor, status

    session.catch_up()
    found = doctor.sources(session.folder, session.now())
    rows = [f"{row['source']}: {row.get('turn', 0):,} turns, newest {row['newest']}" for row in found]
    here = status.passive(session.environment, session.home)
    clients = [row for row in here if row["files"] or "blocker" in row]
    text = "  \n".join(rows) or "The log is empty: run `tok-sync`."
    return Answer({"sources": found, "clients": clients}, text + "\n")


def _plan_list(session: Session, given: Json) -> Answer:
    try:
        rows = [plans.bound_row(one) for one in plans.bindings(session.settings())]
    except config.Unusable as error:
        raise Failed(str(error)) from None
    text = (
        "  \n".join(f"{row['provider']}: {row['plan']}" for row in rows) or "No plan is set: `tok-plan set PROVIDER PLAN`."
    )
    return Answer({"plans": rows}, text + "\n")


def _plan_set(session: Session, given: Json) -> Answer:
    settings = session.settings()
    try:
        plans.bind(settings, given["provider"], given["plan"], when.bucket(session.now(), "day", when.zone(None)))
    except (config.Unusable, config.Unchangeable) as error:
        raise Failed(str(error)) from None
    return _plan_list(session, {})


def _task_start(session: Session, given: Json) -> Answer:
    from tokenops import tasks

    try:
        name = tasks.start(session.folder, os.getcwd(), session.now(), given.get("title", ""), given.get("session", ""))
    except config.Unusable as error:
        raise Failed(str(error)) from None
    return Answer({"task": name}, f"Task {name} is open; end it with tokenops_task_done.\n")


def _task_done(session: Session, given: Json) -> Answer:
    from tokenops import tasks

    try:
        name = tasks.finish(session.folder, os.getcwd(), session.now(), given.get("task", ""))
    except config.Unusable as error:
        raise Failed(str(error)) from None
    session.catch_up()
    (row,) = tasks.listed(session.folder, session.now(), session.catalogue, name)
    return Answer({"task": name, "metrics": row["metrics"]}, tasks.table([row], "markdown", False))


def _task_list(session: Session, given: Json) -> Answer:
    from tokenops import tasks

    now, tz = session.now(), when.zone(None)
    session.catch_up()
    try:
        since = when.stamp(when.since(given.get("since", "30d"), now, tz))
    except (ValueError, OverflowError) as error:
        raise Failed(str(error)) from None
    rows = tasks.listed(session.folder, now, session.catalogue, since=since)
    return Answer({"tasks": rows}, tasks.table(rows, "markdown", False) if rows else "No task in this span.\n")


def _scorecard(session: Session, given: Json) -> Answer:
    from tokenops import scorecard

    session.catch_up()
    now, tz = session.now(), when.zone(None)
    try:
        rules = config.thresholds(session.settings())["score"]
        since = when.since(given.get("since", "7d"), now, tz)
    except (config.Unusable, ValueError, OverflowError) as error:
        raise Failed(str(error)) from None
    by = given.get("by", "none")
    rows = scorecard.rows(session.folder, session.catalogue(), rules, now, (since, now), tz, by)
    return Answer({"cards": rows}, scorecard.table(rows, "markdown", False) if rows else "Nothing in this span.\n")


def _coached(session: Session, given: Json) -> tuple[Any, events.Filter, dict[str, dict[str, float]]]:
    """Span, filter and thresholds of a report by tok-coach. Raises Failed."""
    from tokenops import coach_averages, coach_report

    session.catch_up()
    now, tz = session.now(), when.zone(None)
    try:
        rules = config.thresholds(session.settings())
        since = when.stamp(when.since(given.get("since", "7d"), now, tz))
        until = when.stamp(when.until(given["until"], now, tz)) if "until" in given else when.stamp(now)
    except (config.Unusable, ValueError, OverflowError) as error:
        raise Failed(str(error)) from None
    return coach_averages.Span(since, until), coach_report.asked(given), rules


def _coach(session: Session, given: Json, kind: str) -> Answer:
    from tokenops import coach_report, coach_transcripts, readers

    span, wanted, rules = _coached(session, given)
    place = session.environment, session.home
    said = coach_transcripts.PROMPT if kind == "prompts" else coach_transcripts.REPLY
    try:
        talk = coach_report.heard(session.folder, place, said, span, wanted)
    except readers.NotFound as error:
        raise Failed(str(error)) from None
    if kind == "prompts":
        made = coach_report.prompt_report(session.folder, talk, span, wanted, rules["coaching"], session.catalogue())
        return Answer(made, coach_report.prompts(made, "markdown", False))
    made = coach_report.reply_report(session.folder, talk, span, wanted, rules["coaching"])
    return Answer(made, coach_report.replies(made, "markdown", False))


def _coach_prompts(session: Session, given: Json) -> Answer:
    return _coach(session, given, "prompts")


def _coach_replies(session: Session, given: Json) -> Answer:
    return _coach(session, given, "replies")


def _waste(session: Session, given: Json) -> Answer:
    from tokenops import coach_report, trace_waste

    span, wanted, rules = _coached(session, given)
    limits = session.settings().get("coaching", "context_limits") or ()
    sums, found = coach_report.wasted(session.folder, span, wanted, rules["waste"], session.catalogue(), limits)
    text = trace_waste.table(sums, "markdown", False) if sums else "Nothing was found in the sessions of this span.\n"
    return Answer({"waste": sums, "findings": found[: given.get("limit", 10)]}, text)


def _trace(session: Session, given: Json) -> Answer:
    from tokenops import trace

    session.catch_up()
    try:
        rules = config.thresholds(session.settings())["waste"]
        name, records = trace.session(session.folder, given["session"])
    except (config.Unusable, trace.Unknown) as error:
        raise Failed(str(error)) from None
    limits = session.settings().get("coaching", "context_limits") or ()
    told, found = trace.rows(records, session.catalogue(), rules, limits)
    return Answer({"session": name, "steps": told, "findings": found}, trace.table(name, told, found, "markdown", False))


def _dashboard(session: Session, given: Json) -> Answer:
    from tokenops import access

    found = access.running(session.folder)
    if not found:
        hint = "ask your user to run tok-dash, or tok-proxy --dash, then call this again"
        return Answer({"url": None, "until": None, "hint": hint}, f"No dashboard runs: {hint}.\n")
    # The clock of the process that will redeem it: a ticket is not good at any other time.
    url, until = access.link(session.folder, found[0].url, time.time_ns() // 1_000_000)
    hint = "opens the page once; give it to your user as it is"
    return Answer({"url": url, "until": until, "hint": hint}, f"{url}\nIt opens the dashboard once, until {until}.\n")


def _provider_list(session: Session, given: Json) -> Answer:
    from tokenops import proxy_routes

    try:
        rows = proxy_routes.rows(session.settings())
    except config.Unusable as error:
        raise Failed(str(error)) from None
    return Answer({"providers": rows}, "  \n".join(f"{row['path']} {row['url']}" for row in rows) + "\n")


def _provider_set(session: Session, given: Json) -> Answer:
    from tokenops import proxy_routes

    try:
        proxy_routes.upstream(given["provider"], given["url"])
        config.change(session.settings(), "providers", given["provider"], given["url"])
    except (ValueError, config.Unchangeable) as error:
        raise Failed(str(error)) from None
    return _provider_list(session, {})


def _help(session: Session, given: Json) -> Answer:
    rows = [{"name": tool.name, "about": tool.about, "command": tool.command} for tool in TOOLS.values()]
    return Answer({"tools": rows}, "  \n".join(f"{row['name']}: {row['about']}" for row in rows) + "\n")


_ROWS: Json = {"type": "array", "items": {"type": "object"}}
_TEXT: Json = {"type": "string"}
_MAYBE: Json = {"type": ["string", "null"]}
_PROVIDER = {"type": "string", "description": "anthropic, openai, github, ..."}
_MODEL = {"type": "string", "description": "the model about to be called"}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": 50}
_SPAN = {"since": SINCE, "until": UNTIL}

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
        {"budgets": _ROWS, "next_actions": {"type": "array", "items": _TEXT}},
        _budget,
        "tok-budget",
    ),
    Tool(
        "tokenops_plan_headroom",
        "Call when your user asks what is left of a plan this week or month, and whether it will last.",
        {"provider": _PROVIDER},
        {"reports": _ROWS},
        _plan_headroom,
        "tok-plan headroom",
    ),
    Tool(
        "tokenops_burn_rate",
        "Call to see how fast tokens, money and limits were used, hour by hour, with a sparkline.",
        {"hours": {"type": "integer", "minimum": 1, "maximum": 168, "description": "default 24"}, "provider": _PROVIDER},
        {"buckets": _ROWS, "summary": {"type": "object"}},
        _burn_rate,
        "tok-burn --log",
    ),
    Tool(
        "tokenops_status",
        "Call once at the start, or when a number looks wrong: what is read, how far to trust it, what blocks, and the "
        "exact commands your user can run for better data.",
        {},
        {"state": _TEXT, "blockers": _ROWS, "next_actions": _ROWS, "clients": _ROWS},
        _status,
        "tok-status",
    ),
    Tool(
        "tokenops_data_sources",
        "Call to see which sources the numbers come from, how much each gave in 30 days, and when it was last heard.",
        {},
        {"sources": _ROWS, "clients": _ROWS},
        _data_sources,
        "tok-status",
    ),
    Tool(
        "tokenops_spend_summary",
        "Call when asked what was spent: turns, tokens, cost at list price, what plans covered, what caches saved.",
        {**_SPAN, **_ONLY},
        {"rows": _ROWS, "total": {"type": "object"}, "plan_value": _ROWS, "from": _TEXT, "to": _TEXT, "as_of": _MAYBE},
        _spend,
        "tok-cost --log --by none",
    ),
    Tool(
        "tokenops_coach_prompts",
        "Call when asked how to prompt better: habits in your user's prompts, what they cost, and what would help.",
        _COACHED,
        _PROMPTS,
        _coach_prompts,
        "tok-coach prompts",
    ),
    Tool(
        "tokenops_forecast",
        "The chance that each plan's binding window runs out before its reset, when, and what an hour will use.",
        {"provider": _PROVIDER, "model": _MODEL},
        {"forecasts": _ROWS},
        _forecast,
        "tok-budget",
    ),
    Tool(
        "tokenops_spend_by",
        "What was spent, by project, session, model, day or other fields.",
        {"by": _BY, **_SPAN, **_ONLY},
        {"rows": _ROWS, "total": {"type": "object"}, "plan_value": _ROWS, "from": _TEXT, "to": _TEXT, "as_of": _MAYBE},
        _spend_by,
        "tok-cost --log",
    ),
    Tool(
        "tokenops_top_consumers",
        "What cost most.",
        {"by": _BY, "limit": _LIMIT, **_SPAN},
        {"rows": _ROWS, "as_of": _MAYBE},
        _top,
        "tok-cost --log",
    ),
    Tool(
        "tokenops_sessions",
        "The latest sessions with their cost.",
        {"limit": _LIMIT, **_SPAN},
        {"rows": _ROWS, "as_of": _MAYBE},
        _sessions,
        "tok-cost --log --by session,project",
    ),
    Tool(
        "tokenops_cache_stats",
        "How much of the prompts was read from caches.",
        {"by": _BY, **_SPAN},
        {"rows": _ROWS, "as_of": _MAYBE},
        _cache_stats,
        "tok-cost --log --by model",
    ),
    Tool(
        "tokenops_pricing_show",
        "What a model costs, since when, in which tiers, and who says so.",
        {
            "model": {"type": "string", "description": "as a log shows it"},
            "provider": _PROVIDER,
            "at": {"type": "string", "description": "2026-11-01, 7d (default: now)"},
        },
        {"prices": _ROWS},
        _pricing_show,
        "tok-price show",
        needs=("model",),
    ),
    Tool("tokenops_plan_list", "The plans that are set.", {}, {"plans": _ROWS}, _plan_list, "tok-plan list"),
    Tool(
        "tokenops_plan_set",
        "Set your user's plan; ask them first. Names: the resource tokenops://plans.",
        {"provider": _PROVIDER, "plan": {"type": "string", "description": "claude-max-20x, gpt-plus, ..."}},
        {"plans": _ROWS},
        _plan_set,
        "tok-plan set",
        changes=True,
        needs=("provider", "plan"),
    ),
    Tool(
        "tokenops_provider_list",
        "Where the proxy sends requests.",
        {},
        {"providers": _ROWS},
        _provider_list,
        "tok-provider list",
    ),
    Tool(
        "tokenops_provider_set",
        "Set where the proxy sends a provider's requests; ask your user first.",
        {"provider": _PROVIDER, "url": {"type": "string", "description": "https://..."}},
        {"providers": _ROWS},
        _provider_set,
        "tok-provider set",
        changes=True,
        needs=("provider", "url"),
    ),
    Tool(
        "tokenops_task_start",
        "Open a task: what is spent in this project until tokenops_task_done is counted as its cost.",
        {"title": {"type": "string", "description": "a few words; stored"}, "session": _TEXT},
        {"task": _TEXT},
        _task_start,
        "tok-task start",
        changes=True,
    ),
    Tool(
        "tokenops_task_done",
        "End a task, and see what it took.",
        {"task": {"type": "string", "description": "default: the one of this project opened last"}},
        {"task": _TEXT, "metrics": {"type": "object"}},
        _task_done,
        "tok-task done",
        changes=True,
    ),
    Tool(
        "tokenops_task_list",
        "Tasks and what they took.",
        {"since": {"type": "string", "description": "default 30d"}},
        {"tasks": _ROWS},
        _task_list,
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
        _scorecard,
        "tok-score",
    ),
    Tool(
        "tokenops_coach_replies",
        "How agents' replies read: filler, narration, repetition, and whether they leave out what their language needs.",
        _COACHED,
        _REPLIES,
        _coach_replies,
        "tok-coach replies",
    ),
    Tool(
        "tokenops_waste",
        "Where tokens went to waste, what it cost, and what helps.",
        {**_COACHED, "limit": _LIMIT},
        {"waste": _ROWS, "findings": _ROWS},
        _waste,
        "tok-coach waste",
    ),
    Tool(
        "tokenops_workflow_trace",
        "One session turn by turn, with what it wasted in place.",
        {"session": {"type": "string", "description": "a session's id, or its beginning"}},
        {"session": _TEXT, "steps": _ROWS, "findings": _ROWS},
        _trace,
        "tok-trace",
        needs=("session",),
    ),
    Tool(
        "tokenops_dashboard",
        "Call when your user wants to see usage on a page: a link that opens the dashboard once, or what to run first.",
        {},
        {"url": _MAYBE, "until": _MAYBE, "hint": _TEXT},
        _dashboard,
        "tok-dash url",
        changes=True,
    ),
    Tool("tokenops_help", "All tools, and the command whose face each is.", {}, {"tools": _ROWS}, _help, "tok-mcp --help"),
)
TOOLS = {tool.name: tool for tool in _TABLE}
# A list of tools costs context in every session: few are shown unless more are asked for.
DEFAULT = ("session_budget", "plan_headroom", "burn_rate", "status", "data_sources", "spend_summary", "coach_prompts")


def chosen(text: str) -> list[Tool]:
    """The tools of `default`, `all`, or names with or without their prefix, separated by commas. Raises Failed."""
    if text == "all":
        return list(TOOLS.values())
    found = []
    for name in DEFAULT if text == "default" else filter(None, (part.strip() for part in text.split(","))):
        tool = TOOLS.get(f"tokenops_{name.removeprefix('tokenops_')}")
        if tool is None:
            raise Failed(f"there is no tool {name!r}; the nearest is {show.nearest(f'tokenops_{name}', TOOLS)!r}")
        found.append(tool)
    if not found:
        raise Failed("name at least one tool, or give default or all")
    return list({tool.name: tool for tool in found}.values())


# What can be read beside the tools.


def resources() -> dict[str, tuple[str, Callable[[], Json]]]:
    """Address -> what it is, and its content."""
    return {
        "tokenops://plans": ("Every plan that is known: windows, price, source", _catalogue_of_plans),
        "tokenops://schema/event": ("The fields of a record of the log", events.schema),
    }


def _catalogue_of_plans() -> Json:
    return {"plans": [plans.row(plan) for plan in plans.known().values()]}
