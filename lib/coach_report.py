"""Builds tok-coach's reports from the log and renders them as tables."""

from __future__ import annotations

import functools
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
    store_days,
    store_sessions,
    trace,
    trace_waste,
    workers,
)
from tokenops.coach_averages import Rules, Span
from tokenops.coach_transcripts import Talk
from tokenops.events import Event, Filter
from tokenops.jsonl import OnBadLine, ignore_line
from tokenops.show import Column


def prompts(report: Event, shape: str, color: bool, verbose: bool = False) -> str:
    """The findings, the most expensive first, with remedies; then the numbers per project or session."""
    stats = report["turn_stats"]
    rows = report["findings"]
    projected = [row["projection"] for row in rows]
    columns = [
        Column("finding", [row["finding"] for row in rows], False, 0),
        Column("prompts", [f"{row['count']:,} of {row['of']:,}" for row in rows], True, 1),
        Column("before", [_share(row["previous"]) for row in rows], True, 4),
        _tokens("tokens", [projection["tokens"] for projection in projected], 3),
        show.amounts("list price", [projection["cost_usd"] for projection in projected], heading="price"),
        Column("hours", [_hours(projection["hours"]) for projection in projected], True, 3),
        show.amounts("a month", [(projection["per_month"] or {}).get("cost_usd") for projection in projected], rank=2),
    ]
    parts = [_text(_heading(report), shape)]
    parts.append(show.table(columns, shape, color=color) if rows else "No costly habit was found.\n")
    parts += _advice(rows, stats, shape)
    parts.append(show.table(_group_columns(report["groups"]), shape, color=color))
    if unpriced := stats["unpriced_turns"]:
        parts.append(
            show.notes([f"+ the costs lack {show.plural(unpriced, 'turn')} without a price"], shape, color, verbose)
        )
    return "\n".join(parts)


def _text(text: str, shape: str, indent: str = "") -> str:
    """A text in lines that fit the terminal."""
    most = show.width() if shape == "table" else None
    return "".join(f"{line}\n" for line in show.wrap(indent + text, most, indent))


def _heading(report: Event) -> str:
    stats, prompts = report["turn_stats"], report["prompt_stats"]
    per = stats["per"]["prompt"]
    counts = ", ".join(
        show.plural(number, noun)
        for number, noun in ((prompts["prompts"], "prompt"), (stats["sessions"], "session"), (stats["turns"], "turn"))
    )
    plus = "+" if stats["unpriced_turns"] else ""
    spent = (
        f"; {_count(per['tokens'])} tokens, {_money(per['cost_usd'])}{plus} a prompt" if per["tokens"] is not None else ""
    )
    lasted = f", {per['seconds'] / 60:.1f} minutes to the next" if per["seconds"] else ""
    span = stats["span"]
    since, until = (span[name][:16].replace("T", " ") for name in ("since", "until"))
    days = f"{since} to {until} UTC ({span['days']:g} days)"
    return f"{days}: {counts}{spent}{lasted}"


def _advice(rows: Iterable[Event], stats: Event, shape: str) -> Iterable[str]:
    for row in rows:
        projection = row["projection"]
        per = stats["per"][projection["basis"]]
        if projection["units"] is None:
            sum_ = f"not projected: {projection['unknown']}"
        else:
            what = projection["basis"].replace("_", " ")
            sum_ = f"{projection['units']:,} x {_count(per['tokens'])} tokens, {_money(per['cost_usd'])} per {what}"
        lines = [_text(f"{row['finding']}: {row['why']}.", shape), _text(sum_, shape, "  ")]
        lines.append(_text(f"Try: {row['remedy']}.", shape, "  "))
        yield "".join([*lines, *(_text(f"> {text}", shape, "    ") for text in row.get("samples", ()))])


def _group_columns(rows: Sequence[Event]) -> list[Column]:
    name = "project" if not rows or "project" in rows[0] else "session_id"
    names = [str(row[name]) for row in rows]
    short = show.short_ids(names) if name == "session_id" else {}
    columns = [Column(name.removesuffix("_id"), [short.get(text, text) for text in names], False, 0)]
    for at, field in enumerate(("prompts", "acknowledgements", "corrections", "regenerations", "vague", "walls", "turns")):
        columns.append(show.counts(field, [row[field] for row in rows], 1 + at % 6, _HEADINGS.get(field, "")))
    costs = [row["cost_usd"] if row["turns"] else "" for row in rows]
    return [*columns, show.amounts("list price", costs, [row["unpriced_turns"] > 0 for row in rows], heading="price")]


_HEADINGS = {"acknowledgements": "acks", "corrections": "corr.", "regenerations": "again"}


def replies(report: Event, shape: str, color: bool, verbose: bool = False) -> str:
    """A sentence on all replies, then a line per session."""
    rows = report["sessions"]

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    names = [str(row["session_id"]) for row in rows]
    short = show.short_ids(names)
    columns = [
        Column("session", [short[name] for name in names], False, 0),
        Column("language", [row["language"] or "unknown" for row in rows], False, 4),
        show.counts("replies", [row["replies"] for row in rows], 1),
        show.counts("words", [row["prose_words"] for row in rows], 1),
        Column("articles", [percent(row["articles_share"]) for row in rows], True, 3),
        Column("filler", [percent(row["filler_share"]) for row in rows], True, 2),
        Column("narrating", [show.percent(row["narrating"], row["replies"]) for row in rows], True, 3),
        show.counts("repeated", [row["repeated_sentences"] for row in rows], 3),
        Column("style", [row["style"] or "not judged" for row in rows], False, 0),
    ]
    used, every = report["usage"], report["all"]
    written = "" if used["output_share"] is None else f"; output is {used['output_share']:.2%} of {used['tokens']:,} tokens"
    heading = f"{every['replies']:,} replies in {show.plural(len(rows), 'session')}, {every['prose_words']:,} words of prose"
    return _text(heading + written, shape) + "\n" + show.table(columns, shape, color=color)


def _share(previous: Event | None) -> str:
    return "" if previous is None else f"{previous['share']:.0%}"


def _tokens(title: str, values: Sequence[int | None], rank: int) -> Column:
    cells, short = (["unknown" if value is None else text(value) for value in values] for text in (_count, show.compact))
    return Column(title, cells, rank=rank, short=short)


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _money(value: str | None) -> str:
    return "unknown" if value is None else show.money(value)


def _hours(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


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


def turns_and_rounds(folder: str, span: Span, only: Filter, on_bad_line: OnBadLine = ignore_line) -> Iterator[Event]:
    """Turns and rounds of the clients whose transcripts are read."""
    for line in store.cat(folder, span.since, span.until, only._replace(kinds=("turn", "work")), on_bad_line):
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
    on_bad_line: OnBadLine = ignore_line,
) -> Event:
    """The report on prompts."""
    records = turns_and_rounds(folder, span._replace(since=span.previous.since), only, on_bad_line)
    return coach.report(talk, records, span, by, rules, catalogue, samples)


def reply_report(
    folder: str, talk: Talk, span: Span, only: Filter, rules: Rules, on_bad_line: OnBadLine = ignore_line
) -> Event:
    """The report on replies."""
    turns = [record for record in turns_and_rounds(folder, span, only, on_bad_line) if record["kind"] == "turn"]
    report: Event = {"v": 1, "kind": "coach", "report": "replies", "span": span._asdict() | {"days": span.days}}
    return report | coach_replies.report(talk, turns, rules)


# So far back are turns before a span read, for caches that broke at its beginning.
_DAYS_BEFORE = 1


def waste(
    folder: str,
    span: Span,
    only: Filter,
    rules: Mapping[str, float],
    catalogue: pricing.Catalogue,
    limits: Sequence[Mapping[str, Any]] = (),
    on_bad_line: OnBadLine = ignore_line,
    progress: workers.Progress = workers.SILENT,
) -> tuple[list[Event], list[Event]]:
    """The findings of a span's sessions: their sums by name, and each of them, the most expensive first."""
    lines = _lines(folder, span, only._replace(kinds=("turn", "work", "context")), on_bad_line, progress)
    ancestors = functools.partial(store_sessions.ancestors, folder, days=_DAYS_BEFORE)
    findings = trace.waste(map(orjson.loads, lines), catalogue, rules, limits, ancestors)
    return trace_waste.summary(findings), findings


def _lines(folder: str, span: Span, only: Filter, on_bad_line: OnBadLine, progress: workers.Progress) -> Iterator[bytes]:
    """The lines of a span that a filter takes."""
    if progress.wants_total:
        days = store_days.files_of(folder)
        progress.expect(sum(sum(files[::2]) for day, files in days.items() if span.since[:10] <= day <= span.until[:10]))
    for line in store.cat(folder, span.since, span.until, only, on_bad_line):
        progress(len(line))
        yield line


def models(
    folder: str,
    span: Span,
    only: Filter,
    rules: Mapping[str, float],
    catalogue: pricing.Catalogue,
    now: str,
    on_bad_line: OnBadLine = ignore_line,
    progress: workers.Progress = workers.SILENT,
) -> list[Event]:
    """What cheaper models of the same provider would have cost."""
    lines = _lines(folder, span, only._replace(kinds=("turn",)), on_bad_line, progress)
    return coach_models.rows(map(orjson.loads, lines), catalogue, rules, now)
