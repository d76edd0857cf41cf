"""Renders each answer as a tool returns it: an object that fits the tool's schema, and Markdown for people."""

from __future__ import annotations

import os
import shlex
import time
from typing import Any, NamedTuple

from tokenops import answers, answers_work, config, credentials, events, headroom, show, when
from tokenops.session import BadRequest, Fault, Log, Session, plan_coverage

Json = dict[str, Any]


class Answer(NamedTuple):
    """What a tool returns: an object that fits the tool's schema, and the same for people in Markdown."""

    value: Json
    text: str


def _lines(lines: list[str]) -> str:
    return "  \n".join(lines) + "\n"


# What is left.


def budget(session: Session, args: Json) -> Answer:
    """What is left of each limit, with one action to branch on."""
    budget = answers.budget(session.log(), args.get("provider", ""), args.get("model", ""))
    value = {"budgets": budget.rows, "next_actions": [] if budget.rows else ["tok-init --detect"]}
    return Answer(value | {"signal_quality": budget.signal_quality}, _gauges(budget.rows))


_COLOURS = {headroom.CONTINUE: "\U0001f7e9", headroom.SLOW_DOWN: "\U0001f7e8"}
_RED, _EMPTY = "\U0001f7e5", "⬜"


def gauge(percent: int | None, action: str, width: int = 10) -> str:
    """Squares, coloured by what to do: what is left of a window. Unknown is a row of question marks."""
    if percent is None:
        return "❔" * width
    full = max(round(percent * width / 100), 0 if action == headroom.CONTINUE else 1)  # red at the end, not blank
    return _COLOURS.get(action, _RED) * full + _EMPTY * (width - full)


def _gauges(rows: list[events.Event]) -> str:
    if not rows:
        return "No plan is set and no vendor's reading was found. Run `tok-init --detect` to see what is here.\n"
    lines = []
    for row in rows:
        left, action = row["headroom_pct"], row["recommended_action"]
        share = "headroom unknown" if left is None else f"{left} % of {row['binding_window']} left"
        resets = f", resets in {row['window_resets_in']}" if row["window_resets_in"] else ""
        switch = f" to {row['switch_to']}" if "switch_to" in row else ""
        signal = row["signal_quality"]
        lines += [
            f"{gauge(left, action)} **{row['provider']}**: {share}{resets}. **{action}**{switch}",
            f"signal {signal['level']} ({signal['source']}): {signal['caveat']}",
        ]
        if room := row.get("elsewhere"):
            lines.append(f"room elsewhere: {room['client'] or room['provider']}, {room['headroom']:.0%} left")
        lines += [f"next: `{text}`" if text.startswith("tok-") else f"next: {text}" for text in row["next_actions"]]
    return _lines(lines)


def forecast(session: Session, args: Json) -> Answer:
    """The chance that each plan's binding window runs out before its reset."""
    budget = answers.budget(session.log(), args.get("provider", ""), args.get("model", ""))
    rows = budget.forecasts
    lines = [f"**{row['provider']}** {row['window'] or ''}: {_chance(row.get('forecast'))}" for row in rows]
    return Answer({"forecasts": rows, "signal_quality": budget.signal_quality}, _lines(lines))


def _chance(forecast: events.Event | None) -> str:
    if not forecast:
        return "no forecast: no reading of an open window"
    doubt = " (there is little data for this account yet)" if forecast["few_data"] else ""
    return f"runs out before its reset with a chance of {forecast['p_cutoff']:.0%}{doubt}"


def plan_headroom(session: Session, args: Json) -> Answer:
    """What is left of each plan, and whether it will last."""
    from tokenops import limit_plans

    rows = answers.plan_headroom(session.log(), args.get("provider", ""))
    signal = headroom.least_trusted((row["signal_quality"] for row in rows), {})
    if not rows:
        hint = {"reports": [], "error": "no plan is set", "hint": "tok-init --detect", "signal_quality": signal}
        return Answer(hint, "No plan is set: `tok-init --detect`.\n")
    return Answer({"reports": rows, "signal_quality": signal}, limit_plans.table(rows, "markdown", False))


def burn_rate(session: Session, args: Json) -> Answer:
    """How fast tokens, money and limits were used, hour by hour."""
    from tokenops import burn, burn_buckets

    log = session.log()
    span = burn_buckets.span(log.now, args.get("hours", 24), "hour", log.tz)
    rate = answers.burn_rate(log, span, provider=args.get("provider", ""))
    lines = [f"`{rate.total['sparkline']}` tokens per hour, {span.by}", *burn.notes(rate)]
    return Answer({"buckets": rate.records(), "summary": rate.total}, _lines(lines))


def plan_list(session: Session, args: Json) -> Answer:
    """The plans that are set."""
    rows = answers.plans_set(session.settings())
    lines = [f"{row['provider']}: {row['plan']}" for row in rows] or ["No plan is set: `tok-plan set PROVIDER PLAN`."]
    return Answer({"plans": rows}, _lines(lines))


def plan_set(session: Session, args: Json) -> Answer:
    """Set a plan; the plans that are set after that."""
    words = [args["provider"], args["plan"]]
    _, text = answers.set_plan(session.settings(), words, session.now(), when.zone(None), None)
    answer = plan_list(session, {})
    return answer._replace(text=f"{text}\n\n{answer.text}")


# What was spent.


def _client(args: Json) -> str | None:
    """The client that arguments name, as in records: `claude` is claude-code."""
    from tokenops import readers

    return readers.client_of(args["client"]) if "client" in args else None


def _spend_query(log: Log, args: Json) -> tuple[str, str, events.Filter]:
    """The span and filter that arguments name: this month, if they name no beginning."""
    since, until = answers.bounds(args.get("since"), args.get("until"), log.now, log.tz)
    first = since if "since" in args else answers.month_start(log.now, log.tz)
    owner = {name: args.get(name) for name in events.OWNER}
    return first, until, events.Filter(None, _client(args), args.get("project"), args.get("model"), **owner)


def _spend(session: Session, args: Json, by: str) -> tuple[answers.Spend, str]:
    """What was spent in the span of the arguments, and when the log was last synced."""
    log = session.log()
    cover = plan_coverage(log.settings, log.tz)
    return answers.spend(log, answers.fields(args.get("by", by)), *_spend_query(log, args), cover), log.as_of


def _why_empty(session: Session, args: Json) -> str:
    """Why nothing was spent: the nearest name that exists, or the last day with usage."""
    from tokenops import answers_absence

    log = session.log(fresh=False)
    why = answers_absence.of_log(log, *_spend_query(log, args), option="since") or "no usage in this span"
    return f"Nothing was spent: {why}.\n"


def _rows(rows: list[events.Event], as_of: str, text: str) -> Answer:
    return Answer({"rows": rows, "as_of": as_of or None}, text)


def spend_summary(session: Session, args: Json, by: str = "none") -> Answer:
    """Turns, tokens and cost at list price, what plans covered and what caches saved."""
    from tokenops import costs, coverage

    spent, as_of = _spend(session, args, by)
    if args.get("by", by) == "provider" and not args.keys() & {"client", "project", "model", *events.OWNER}:
        spent = answers.with_vendor_sums(session.log(fresh=False), spent)
    value: Json = {"rows": spent.rows, "total": spent.total, "plan_value": spent.plan_value}
    value |= {"from": spent.since, "to": spent.until, "as_of": as_of or None}
    if not spent.rows:
        return Answer(value, _why_empty(session, args))
    notes = _lines([*costs.tag_notes(spent.rows), *costs.notes(spent.rows), *coverage.notes(spent.total, spent.plan_value)])
    return Answer(value, f"{costs.table(spent.rows, 'markdown', False)}\n{notes}")


def spend_by(session: Session, args: Json) -> Answer:
    """What was spent, by project unless other fields are given."""
    return spend_summary(session, args, "project")


def _table(rows: list[events.Event]) -> str:
    """Rows as a table, with remarks below."""
    from tokenops import costs

    notes = [*costs.tag_notes(rows), *costs.notes(rows)]
    return costs.table(rows, "markdown", False) + (f"\n{_lines(notes)}" if notes else "")


def sessions(session: Session, args: Json) -> Answer:
    """The latest sessions with their cost."""
    spent, as_of = _spend(session, args, "session,project")
    rows = spent.latest(args.get("limit", 20))
    return _rows(rows, as_of, _table(rows) if rows else _why_empty(session, args))


def top_consumers(session: Session, args: Json) -> Answer:
    """What cost most."""
    spent, as_of = _spend(session, args, "project")
    rows = spent.dearest(args.get("limit", 5))
    return _rows(rows, as_of, _table(rows) if rows else _why_empty(session, args))


def cache_stats(session: Session, args: Json) -> Answer:
    """How much of the prompts was read from caches."""
    from tokenops import costs

    spent, as_of = _spend(session, args, "model")
    lines = []
    for row in spent.rows:
        name = " ".join(costs.label_of(row, name) for name in row["by"]) or "all"
        ratio = show.percent(row.get("cache_read_tokens", 0), events.context_size(row))
        lines.append(f"{name}: cache hit {ratio or 'unknown'}")
    return _rows(spent.cache_stats, as_of, _lines(lines))


def pricing_show(session: Session, args: Json) -> Answer:
    """What a model costs, since when, and the source of the price."""
    from tokenops import price_report

    now = session.now()
    at = now
    if "at" in args:
        try:
            at = when.parse_since(args["at"], now, when.zone(None))
        except (ValueError, OverflowError) as error:
            raise BadRequest(f"at: {error}") from None
    price = price_report.price_record(session.catalogue(), args.get("provider", ""), args["model"], when.stamp(at))
    return Answer({"prices": [price]}, price_report.text_of_price(price))


# How agents were used.

Span = tuple[Log, str, str, events.Filter]


def _span(session: Session, args: Json) -> Span:
    """The log, and the span and filter that arguments name: the last week, if they name none."""
    log = session.log()
    since, until = answers.bounds(args.get("since", answers_work.WEEK), args.get("until"), log.now, log.tz)
    only = events.Filter(None, _client(args), args.get("project"), session=args.get("session"))
    return log, since, until, only


def scorecard(session: Session, args: Json) -> Answer:
    """The KPIs, graded."""
    from tokenops import scorecard

    log, since, until, _ = _span(session, args)
    rows = answers_work.score(log, since, until, args.get("by", "none"))
    return Answer({"cards": rows}, scorecard.table(rows, "markdown", False) if rows else "Nothing in this span.\n")


def waste(session: Session, args: Json) -> Answer:
    """Where tokens went to waste."""
    from tokenops import trace_waste

    result = answers_work.waste(*_span(session, args))
    text = (
        trace_waste.table(result.sums, "markdown", False)
        if result.sums
        else "No waste was found in the sessions of this span.\n"
    )
    return Answer({"waste": result.sums, "findings": result.findings[: args.get("limit", 10)]}, text)


def cheaper_models(session: Session, args: Json) -> Answer:
    """What the same tokens would have cost at cheaper models of the same provider, by today's price table."""
    from tokenops import coach_models

    rows = answers_work.cheaper_models(*_span(session, args))[: args.get("limit", 10)]
    text = coach_models.table(rows, "markdown", False) if rows else "No cheaper model for the turns of this span.\n"
    return Answer({"models": rows}, text)


def coach_prompts(session: Session, args: Json) -> Answer:
    """Habits in the user's prompts."""
    from tokenops import coach_report

    transcripts = answers_work.Transcripts(session.environment, session.home)
    report = answers_work.prompts(*_span(session, args), transcripts).report
    return Answer(report, coach_report.prompts(report, "markdown", False))


def coach_replies(session: Session, args: Json) -> Answer:
    """How agents' replies read."""
    from tokenops import coach_report

    transcripts = answers_work.Transcripts(session.environment, session.home)
    report = answers_work.replies(*_span(session, args), transcripts).report
    return Answer(report, coach_report.replies(report, "markdown", False))


def workflow_trace(session: Session, args: Json) -> Answer:
    """One session turn by turn."""
    from tokenops import trace

    name, steps, findings, _ = answers_work.trace(session.log(), args["session"])
    text = trace.table(name, steps, findings, "markdown", False)
    return Answer({"session": name, "steps": steps, "findings": findings}, text)


def context_causes(session: Session, args: Json) -> Answer:
    """What fills the context of a session, the latest one if none is named."""
    from tokenops import answers_context, context_report

    log = session.log()
    name = args.get("session") or answers_context.latest_session(log)
    if not name:
        raise Fault("the log has no session; run tok-status to see what is read")
    result, most = (
        answers_context.causes(log, answers_context.Query(name, by=args.get("by", "cause"))),
        args.get("limit", 10),
    )
    text = context_report.text(result.rows[:most], result.total, result.rows[most:], "markdown", False, log.tz, log.now)
    return Answer({"rows": result.rows[:most], "total": result.total, "breaks": result.breaks[-most:]}, text)


def task_start(session: Session, args: Json) -> Answer:
    """Open a task."""
    title, name = args.get("title", ""), args.get("session", "")
    name = answers_work.start_task(session.folder, os.getcwd(), session.now(), title, name, session.owner())
    return Answer({"task": name}, f"Task {name} is open; end it with tokenops_task_done.\n")


def task_done(session: Session, args: Json) -> Answer:
    """End a task; what it took."""
    from tokenops import tasks

    name = answers_work.finish_task(session.folder, os.getcwd(), session.now(), args.get("task", ""), session.owner())
    (row,) = answers_work.tasks(session.log(), name)
    return Answer({"task": name, "metrics": row["metrics"]}, tasks.table([row], "markdown", False))


def task_list(session: Session, args: Json) -> Answer:
    """Tasks and what they took."""
    from tokenops import tasks

    log = session.log()
    since, _ = answers.bounds(args.get("since", "30d"), None, log.now, log.tz)
    rows = answers_work.tasks(log, since=since)
    return Answer({"tasks": rows}, tasks.table(rows, "markdown", False) if rows else "No task in this span.\n")


# Where the numbers come from.


def status(session: Session, args: Json) -> Answer:
    """What is read, how far to trust it, and what blocks."""
    from tokenops import doctor

    report = doctor.report(session.log(fresh=False), session.environment, session.home)
    quality = report["signal_quality"]
    lines = [f"**{report['state']}**", f"signal {quality['level']} ({quality['source']}): {quality['caveat']}"]
    lines += [f"{each['what']}: `{each['do']}`" for each in (*report["blockers"], *report["next_actions"])]
    return Answer(report, _lines(lines))


def data_sources(session: Session, args: Json) -> Answer:
    """Which sources the numbers come from."""
    from tokenops import doctor, status

    session.catch_up()
    rows = doctor.sources(session.folder, session.now(), session.memory)
    clients = [row for row in status.passive(session.environment, session.home) if row["files"] or "blocker" in row]
    lines = [f"{row['source']} ({row['plane']}): {row.get('turn', 0):,} turns, newest {row['newest']}" for row in rows]
    return Answer({"sources": rows, "clients": clients}, _lines(lines or ["The log is empty: run `tok-sync`."]))


def provider_list(session: Session, args: Json) -> Answer:
    """Where the proxy sends requests."""
    from tokenops import proxy_routes

    try:
        rows = proxy_routes.provider_rows(session.settings())
    except config.Unusable as error:
        raise Fault(str(error)) from None
    return Answer({"providers": rows}, _lines([f"{row['path']} {row['url']}" for row in rows]))


def provider_set(session: Session, args: Json) -> Answer:
    """Set where the proxy sends a provider's requests, with their keys; the providers after that.

    An agent may restore a built-in address. For any other the user must have said so in config.yaml (`mcp.set_providers`),
    which no tool writes.
    """
    from tokenops import proxy_routes

    settings, name, url = session.settings(), args["provider"], args.get("url")
    try:
        if url is not None:
            proxy_routes.upstream_of(proxy_routes.check_name(name), url)
    except ValueError as error:
        raise Fault(str(error)) from None
    if url is not None and settings.get("mcp", "set_providers") is not True:
        command = shlex.join(["tok-provider", "set", name, url])
        raise Fault(
            f"an agent may not choose where requests and their keys go; ask your user to run {command}, or to set "
            "mcp.set_providers: true in config.yaml"
        )
    try:
        proxy_routes.set_provider(settings, name, url)
    except ValueError as error:
        raise Fault(str(error)) from None
    return provider_list(session, {})


MDNS_NAME = "tokenops.local"


def named_address(url: str, name: str = MDNS_NAME) -> str:
    """A dashboard's address with a name, if that resolves to this machine and the dashboard answers to it; else as it is.

    Takes at most a second.
    """
    import http.client
    import socket
    import threading
    from urllib.parse import urlsplit

    port, accepted = urlsplit(url).port, []

    def probe() -> None:
        try:
            if all(credentials.is_this_machine(str(entry[4][0])) for entry in socket.getaddrinfo(name, port)):
                connection = http.client.HTTPConnection(name, port, timeout=0.5)
                connection.request(
                    "GET", "/api/status"
                )  # without the token: 401, and 403 if the name is not the dashboard's
                accepted.append(connection.getresponse().status == 401)
        except (OSError, ValueError, http.client.HTTPException):
            return

    thread = threading.Thread(target=probe, daemon=True)  # a resolver may take longer than the tool may
    thread.start()
    thread.join(1)
    return f"http://{name}:{port}" if any(accepted) else url


def dashboard(session: Session, args: Json) -> Answer:
    """A link that opens the dashboard once."""
    from tokenops import access

    running = access.running(session.folder)
    if not running:
        hint = "ask your user to run tok-dash, or tok-proxy --dash, then call this again"
        return Answer({"url": None, "until": None, "hint": hint}, f"No dashboard runs: {hint}.\n")
    # The clock of the process that will redeem it: a ticket is not good at any other time.
    url, until = access.link(session.folder, named_address(running[0].url), time.time_ns() // 1_000_000)
    hint = "opens the page once; pass it to your user unchanged"
    return Answer({"url": url, "until": until, "hint": hint}, f"{url}\nIt opens the dashboard once, until {until}.\n")
