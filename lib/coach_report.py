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
    events,
    pricing,
    readers,
    show,
    store,
    trace,
    trace_waste,
)
from tokenops.coach_averages import Rules, Span
from tokenops.coach_transcripts import Talk
from tokenops.events import Event, Filter
from tokenops.show import Column


def prompts(made: Event, shape: str, color: bool) -> str:
    """Findings, the costliest first, with what helps; then the same per project or session."""
    stats = made["turn_stats"]
    rows = made["findings"]
    projected = [row["projection"] for row in rows]
    columns = [
        Column("finding", [row["finding"] for row in rows], number=False),
        Column("prompts", [f"{row['count']:,} of {row['of']:,}" for row in rows]),
        Column("before", [_share(row["previous"]) for row in rows]),
        Column("tokens", [_count(one["tokens"]) for one in projected]),
        Column("list price", [_money(one["cost_usd"]) for one in projected]),
        Column("hours", [_hours(one["hours"]) for one in projected]),
        Column("a month", [_money((one["per_month"] or {}).get("cost_usd")) for one in projected]),
    ]
    if shape == "csv":
        return show.table(columns, shape)
    parts = [_heading(made)]
    parts.append(show.table(columns, shape, color=color) if rows else "No habit that stands out.\n")
    parts += _advice(rows, stats)
    parts.append(show.table(_grouped(made["groups"]), shape, color=color))
    return "\n".join(parts)


def _heading(made: Event) -> str:
    stats, told = made["turn_stats"], made["prompt_stats"]
    per = stats["per"]["prompt"]
    said = f"{told['prompts']:,} prompts in {stats['sessions']:,} sessions, {stats['turns']:,} turns"
    spent = f"; {_count(per['tokens'])} tokens, {_money(per['cost_usd'])} a prompt" if per["tokens"] is not None else ""
    lasted = f", {per['seconds'] / 60:.1f} minutes to the next" if per["seconds"] else ""
    span = stats["span"]
    when = f"{span['since'][:16]} to {span['until'][:16]} UTC ({span['days']:g} days)"
    return f"{when}: {said}{spent}{lasted}\n"


def _advice(rows: Iterable[Event], stats: Event) -> Iterable[str]:
    for row in rows:
        one = row["projection"]
        per = stats["per"][one["basis"]]
        if one["units"] is None:
            sum_ = f"not projected: {one['unknown']}"
        else:
            what = one["basis"].replace("_", " ")
            sum_ = f"{one['units']:,} x {_count(per['tokens'])} tokens, {_money(per['cost_usd'])} per {what}"
        yield f"{row['finding']}: {row['why']}.\n  {sum_}\n  Try: {row['remedy']}.\n" + "".join(
            f"    > {text}\n" for text in row.get("samples", ())
        )


def _grouped(rows: Sequence[Event]) -> list[Column]:
    name = "project" if not rows or "project" in rows[0] else "session_id"
    columns = [Column(name.removesuffix("_id"), [str(row[name]) for row in rows], number=False)]
    for field in ("prompts", "acknowledgements", "corrections", "regenerations", "vague", "walls", "turns"):
        columns.append(Column(field, [show.count(row[field]) for row in rows]))
    columns.append(Column("list price", [_money(row["cost_usd"]) for row in rows]))
    return columns


def replies(made: Event, shape: str, color: bool) -> str:
    """All replies in a sentence, then a line per session."""
    rows = made["sessions"]

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
        Column("said twice", [show.count(row["repeated_sentences"]) for row in rows]),
        Column("style", [row["style"] or "not told" for row in rows], number=False),
    ]
    if shape == "csv":
        return show.table(columns, shape)
    used, every = made["usage"], made["all"]
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


# The clients whose transcripts tell who wrote what.
CLIENTS = ("claude-code", "codex")
Unread = Callable[[str, OSError], None]


def heard(
    folder: str,
    place: tuple[Mapping[str, str], str],
    kind: str,
    span: Span,
    wanted: Filter,
    note: Callable[[str], None] = lambda text: None,
    unread: Unread = lambda path, error: None,
    told: Callable[[int], None] = lambda size: None,
) -> Talk:
    """What was said in a span; `place`: the environment and the home directory. Raises readers.NotFound."""
    found = list(readers.found(coach_transcripts.CLIENTS, (), *place, note))
    return coach_transcripts.talk(found, kind, span, wanted, datadir.salt(folder), store.labels(folder), unread, told)


def logged(folder: str, since: str, until: str, wanted: Filter) -> Iterator[Event]:
    """Turns and rounds of the clients whose transcripts are read."""
    for line in store.cat(folder, since, until, wanted._replace(kinds=("turn", "work"))):
        record = orjson.loads(line)
        if record.get("client") in CLIENTS:
            yield record


def prompt_report(
    folder: str,
    talk: Talk,
    span: Span,
    wanted: Filter,
    rules: Rules,
    catalogue: pricing.Catalogue,
    by: str = "project",
    samples: int = 0,
) -> Event:
    """The report on what was asked."""
    records = logged(folder, span.before.since, span.until, wanted)
    return coach.report(talk, records, span, by, rules, catalogue, samples)


def reply_report(folder: str, talk: Talk, span: Span, wanted: Filter, rules: Rules) -> Event:
    """The report on what was answered."""
    turns = [record for record in logged(folder, span.since, span.until, wanted) if record["kind"] == "turn"]
    made: Event = {"v": 1, "kind": "coach", "report": "replies", "span": span._asdict() | {"days": span.days}}
    return made | coach_replies.report(talk, turns, rules)


def wasted(
    folder: str,
    span: Span,
    wanted: Filter,
    rules: Mapping[str, float],
    catalogue: pricing.Catalogue,
    given: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Event], list[Event]]:
    """The findings of a span's sessions added up by what they are, and each of them, dearest first."""
    lines = store.cat(folder, span.since, span.until, wanted._replace(kinds=("turn", "work")))
    found = trace.wasted(map(orjson.loads, lines), catalogue, rules, given)
    return trace_waste.summary(found), found


def models(
    folder: str, span: Span, wanted: Filter, rules: Mapping[str, float], catalogue: pricing.Catalogue, now: str
) -> list[Event]:
    """What a cheaper model of the same provider would have cost."""
    turns: Iterable[Event] = map(orjson.loads, store.cat(folder, span.since, span.until, wanted._replace(kinds=("turn",))))
    return coach_models.rows(turns, catalogue, rules, now)


def asked(given: Mapping[str, Any]) -> Filter:
    """The filter that arguments of these names mean."""
    return events.Filter(None, given.get("client"), given.get("project"), session=given.get("session"))
