"""Builds tok-coach's reports from the log and renders them as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from tokenops import (
    coach,
    coach_models,
    coach_replies,
    coach_transcripts,
    datadir,
    pricing,
    readers,
    show,
    store,
    trace,
    trace_waste,
    workers,
)
from tokenops.coach_averages import Rules, Span
from tokenops.coach_transcripts import Talk
from tokenops.events import Event, Filter
from tokenops.show import Column


def prompts(report: Event, shape: str, color: bool) -> str:
    """The findings, the most expensive first, with remedies; then the numbers per project or session."""
    stats = report["turn_stats"]
    rows = report["findings"]
    projected = [row["projection"] for row in rows]
    columns = [
        Column("finding", [row["finding"] for row in rows], number=False),
        Column("prompts", [f"{row['count']:,} of {row['of']:,}" for row in rows]),
        Column("before", [_share(row["previous"]) for row in rows]),
        Column("tokens", [_count(projection["tokens"]) for projection in projected]),
        Column("list price", [_money(projection["cost_usd"]) for projection in projected]),
        Column("hours", [_hours(projection["hours"]) for projection in projected]),
        Column("a month", [_money((projection["per_month"] or {}).get("cost_usd")) for projection in projected]),
    ]
    parts = [_heading(report)]
    parts.append(show.table(columns, shape, color=color) if rows else "No costly habit was found.\n")
    parts += _advice(rows, stats)
    parts.append(show.table(_group_columns(report["groups"]), shape, color=color))
    return "\n".join(parts)


def _heading(report: Event) -> str:
    stats, prompts = report["turn_stats"], report["prompt_stats"]
    per = stats["per"]["prompt"]
    counts = f"{prompts['prompts']:,} prompts in {stats['sessions']:,} sessions, {stats['turns']:,} turns"
    spent = f"; {_count(per['tokens'])} tokens, {_money(per['cost_usd'])} a prompt" if per["tokens"] is not None else ""
    lasted = f", {per['seconds'] / 60:.1f} minutes to the next" if per["seconds"] else ""
    span = stats["span"]
    when = f"{span['since'][:16]} to {span['until'][:16]} UTC ({span['days']:g} days)"
    return f"{when}: {counts}{spent}{lasted}\n"


def _advice(rows: Iterable[Event], stats: Event) -> Iterable[str]:
    for row in rows:
        projection = row["projection"]
        per = stats["per"][projection["basis"]]
        if projection["units"] is None:
            sum_ = f"not projected: {projection['unknown']}"
        else:
            what = projection["basis"].replace("_", " ")
            sum_ = f"{projection['units']:,} x {_count(per['tokens'])} tokens, {_money(per['cost_usd'])} per {what}"
        yield f"{row['finding']}: {row['why']}.\n  {sum_}\n  Try: {row['remedy']}.\n" + "".join(
            f"    > {text}\n" for text in row.get("samples", ())
        )


def _group_columns(rows: Sequence[Event]) -> list[Column]:
    name = "project" if not rows or "project" in rows[0] else "session_id"
    columns = [Column(name.removesuffix("_id"), [str(row[name]) for row in rows], number=False)]
    for field in ("prompts", "acknowledgements", "corrections", "regenerations", "vague", "walls", "turns"):
        columns.append(Column(field, [show.count(row[field]) for row in rows]))
    columns.append(Column("list price", [_money(row["cost_usd"]) for row in rows]))
    return columns


def replies(report: Event, shape: str, color: bool) -> str:
    """A sentence on all replies, then a line per session."""
    rows = report["sessions"]

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    columns = [
        Column("session", [str(row["session_id"]) for row in rows], number=False),
        Column("language", [row["language"] or "unknown" for row in rows], number=False),
        Column("replies", [f"{row['replies']:,}" for row in rows]),
        Column("words", [f"{row['prose_words']:,}" for row in rows]),
        Column("articles", [percent(row["articles_share"]) for row in rows]),
        Column("filler", [percent(row["filler_share"]) for row in rows]),
        Column("narrating", [show.percent(row["narrating"], row["replies"]) for row in rows]),
        Column("repeated", [show.count(row["repeated_sentences"]) for row in rows]),
        Column("style", [row["style"] or "not judged" for row in rows], number=False),
    ]
    used, every = report["usage"], report["all"]
    written = "" if used["output_share"] is None else f"; output is {used['output_share']:.2%} of {used['tokens']:,} tokens"
    heading = f"{every['replies']:,} replies in {len(rows):,} sessions, {every['prose_words']:,} words of prose{written}\n"
    return heading + "\n" + show.table(columns, shape, color=color)


def _share(previous: Event | None) -> str:
    return "" if previous is None else f"{previous['share']:.0%}"


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _money(value: str | None) -> str:
    return "?" if value is None else show.money(value)


def _hours(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


# The clients whose transcripts show who wrote what.
CLIENTS = ("claude-code", "codex")
OnUnreadable = Callable[[str, OSError], None]


def talk(
    folder: str,
    home: tuple[Mapping[str, str], str],
    kind: str,
    span: Span,
    only: Filter,
    warn: Callable[[str], None] = lambda text: None,
    on_unreadable: OnUnreadable = lambda path, error: None,
    progress: workers.Progress = workers.SILENT,
) -> Talk:
    """The prompts or replies of a span. `home`: the environment and the home directory. Raises readers.NotFound."""
    sources = list(readers.with_files(coach_transcripts.CLIENTS, (), *home, warn))
    return coach_transcripts.talk(
        sources, kind, span, only, datadir.salt(folder), store.labels(folder), on_unreadable, progress
    )


def turns_and_rounds(folder: str, since: str, until: str, only: Filter) -> Iterator[Event]:
    """Turns and rounds of the clients whose transcripts are read."""
    for line in store.cat(folder, since, until, only._replace(kinds=("turn", "work"))):
        record = orjson.loads(line)
        if record.get("client") in CLIENTS:
            yield record


def prompt_report(
    folder: str,
    talk: Talk,
    span: Span,
    only: Filter,
    rules: Rules,
    catalogue: pricing.Catalogue,
    by: str = "project",
    samples: int = 0,
) -> Event:
    """The report on prompts."""
    records = turns_and_rounds(folder, span.previous.since, span.until, only)
    return coach.report(talk, records, span, by, rules, catalogue, samples)


def reply_report(folder: str, talk: Talk, span: Span, only: Filter, rules: Rules) -> Event:
    """The report on replies."""
    turns = [record for record in turns_and_rounds(folder, span.since, span.until, only) if record["kind"] == "turn"]
    report: Event = {"v": 1, "kind": "coach", "report": "replies", "span": span._asdict() | {"days": span.days}}
    return report | coach_replies.report(talk, turns, rules)


def waste(
    folder: str,
    span: Span,
    only: Filter,
    rules: Mapping[str, float],
    catalogue: pricing.Catalogue,
    limits: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Event], list[Event]]:
    """The findings of a span's sessions: their sums by name, and each of them, the most expensive first."""
    lines = store.cat(folder, span.since, span.until, only._replace(kinds=("turn", "work")))
    findings = trace.waste(map(orjson.loads, lines), catalogue, rules, limits)
    return trace_waste.summary(findings), findings


def models(
    folder: str, span: Span, only: Filter, rules: Mapping[str, float], catalogue: pricing.Catalogue, now: str
) -> list[Event]:
    """What cheaper models of the same provider would have cost."""
    turns: Iterable[Event] = map(orjson.loads, store.cat(folder, span.since, span.until, only._replace(kinds=("turn",))))
    return coach_models.rows(turns, catalogue, rules, now)
