"""Compares our figures with those of clients, routers and vendors, per day and model, and names the causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from tokenops import events, pricing, reconcile_pairs, reconcile_vendors, show, when
from tokenops.events import Event
from tokenops.reconcile_pairs import Books, Cause, Pair, Query

_UNLOGGED = "Claude Code's total counts requests that its transcripts leave out (titles, summaries), and final output counts"


def of_totals(books: Books, query: Query) -> Iterator[Pair]:
    """A session's total per model, against its turns, or against its own counts at our prices if it has no turns."""
    turns = _by_session(books.own)
    for total in books.totals:
        if not query.since <= total["ts"] < query.until:
            continue
        session, model = str(total.get("session_id", "")), str(total.get("model", ""))
        labels = {name: str(total.get(name, "")) for name in ("client", "provider", "model", "session_id")}
        head = (str(total.get("source")), reconcile_pairs.day_of(total["ts"], query.tz), when.zone_name(query.tz), labels)
        mine = [turn for turn in turns.get(session, ()) if turn.get("model") == model]
        theirs = Decimal(total["cost_usd"])
        if session in turns:
            yield _beside_turns(head, mine, total, theirs, query)
        else:
            ours, theirs, causes = reconcile_pairs.comparison([total], query.catalogue)
            yield Pair(*head, ours, theirs, causes, reconcile_pairs.counts_of([total]))


def _by_session(turns: Iterable[Event]) -> dict[str, list[Event]]:
    by_session: dict[str, list[Event]] = {}
    for turn in turns:
        if turn.get("session_id"):
            by_session.setdefault(str(turn["session_id"]), []).append(turn)
    return by_session


def _beside_turns(
    head: tuple[str, str, str, dict[str, str]], mine: Sequence[Event], total: Event, theirs: Decimal, query: Query
) -> Pair:
    """A total against the session's own turns: how much comes from counts, and how much from prices."""
    ours, missing = reconcile_pairs.total(mine, query.catalogue)
    causes: list[Cause] = []
    at_ours = reconcile_pairs.list_price(total, query.catalogue)
    if at_ours is not None:
        if (more := at_ours - ours) and events.token_sum(total) != sum(map(events.token_sum, mine)):
            causes.append(Cause("counts", more, "the client's total has other counts than the turns of the log"))
        elif more:
            reason = "a session's total does not say how long each prompt was, nor in which tier it was served"
            causes.append(Cause("aggregate_only", more, reason))
        if cause := reconcile_pairs.why(total, at_ours, theirs, query.catalogue):
            causes.append(cause)
    elif missing or not mine:
        causes.append(Cause("unpriced", theirs - ours, "the model has no price here"))
    return Pair(*head, ours if len(mine) > missing else None, theirs, tuple(causes), reconcile_pairs.counts_of(mine))


def of_estimates(books: Books, query: Query) -> Iterator[Pair]:
    """The rise of a session's cost between two readings, a day apart at most, against the turns in between."""
    turns = _by_session(books.own)
    readings: dict[tuple[str, str], list[Event]] = {}
    for reading in books.estimates:
        run = str(reading["id"]).rsplit(":", 2)[-2]
        readings.setdefault((str(reading.get("session_id")), run), []).append(reading)
    for session, run in sorted(readings):
        before, since = pricing.ZERO, _began(session, run, readings)
        for reading in sorted(readings[session, run], key=lambda event: str(event["observed_at"])):
            now, seen = Decimal(reading["cost_usd"]), str(reading["observed_at"])
            begun = [turn for turn in turns.get(session, ()) if since < turn["ts"] <= seen]
            rose = now - before if now >= before else now
            before, since = now, seen
            if query.since <= seen < query.until:
                yield _session(reading, begun, rose, session in turns, query)


def _began(session: str, run: str, readings: dict[tuple[str, str], list[Event]]) -> str:
    """When a run of the total began: with the session, or with the last reading of the run before."""
    earlier = [
        str(reading["observed_at"])
        for (name, other), group in readings.items()
        if name == session
        for reading in group
        if other < run
    ]
    return max(earlier, default="")


def _session(reading: Event, turns: Sequence[Event], theirs: Decimal, is_logged: bool, query: Query) -> Pair:
    ours, missing = reconcile_pairs.total(turns, query.catalogue)
    difference = theirs - ours
    causes: list[Cause] = []
    if not is_logged and theirs:
        causes.append(
            Cause("deleted_log", theirs, "the log has no turn of this session: its transcript was deleted or not read")
        )
    elif missing:
        causes.append(Cause("unpriced", difference, f"{missing} of its turns have no price here"))
    elif difference and reconcile_pairs.same(ours, theirs):
        causes.append(Cause("rounding", difference, "floating-point noise in the other figure"))
    elif difference > 0:
        causes.append(Cause("not_in_transcripts", difference, _UNLOGGED, certain=False))
    elif difference < 0:
        reason = (
            "its total restarted with a process (before 2.1.277 a resumed session starts at zero), or leaves out subagents"
        )
        causes.append(Cause("resumed", difference, reason, certain=False))
    labels = {"client": str(reading.get("client", "")), "session_id": str(reading.get("session_id", ""))}
    day = reconcile_pairs.day_of(str(reading["observed_at"]), query.tz)
    priced = len(turns) > missing
    zone = when.zone_name(query.tz)
    return Pair(
        str(reading["source"]),
        day,
        zone,
        labels,
        ours if priced or not turns else None,
        theirs,
        tuple(causes),
        reconcile_pairs.counts_of(turns),
    )


def pairs(records: Iterable[Event], query: Query) -> list[Pair]:
    """Every comparison of a span, in order of source, day and model. Earlier events count towards sessions."""
    books = reconcile_pairs.books(records)
    comparisons = [
        *of_turns(books, query),
        *of_totals(books, query),
        *of_estimates(books, query),
        *reconcile_vendors.of_reports(books, query),
    ]
    return sorted(comparisons, key=lambda pair: (pair.source, pair.day, sorted(pair.labels.items())))


def of_turns(books: Books, query: Query) -> Iterator[Pair]:
    """Turns that came with an amount: by day, client and model."""
    groups: dict[tuple[str, ...], list[Event]] = {}
    names = ("client", "provider", "model")
    for turn in books.turns:
        if "cost_usd" in turn and query.since <= turn["ts"] < query.until:
            client = turn.get("client") or "unknown"
            source = str(turn.get("provider")) if turn.get("cost_source") == "reported" else client
            key = (source, reconcile_pairs.day_of(turn["ts"], query.tz), *(str(turn.get(name, "")) for name in names))
            groups.setdefault(key, []).append(turn)
    for (source, day, *values), turns in groups.items():
        ours, theirs, causes = reconcile_pairs.comparison(turns, query.catalogue)
        labels: dict[str, str] = dict(zip(names, values, strict=True))
        counts = {"turns": sum(turn.get("turns", 0) for turn in turns)}
        yield Pair(source, day, when.zone_name(query.tz), labels, ours, theirs, causes, counts)


def table(pairs: Sequence[Pair], shape: str, color: bool, verbose: bool = False) -> str:
    """The comparisons, and a total for each source."""
    rows = [_cells(pair) for pair in pairs]
    ranks = {
        "with": 2,
        "day": 1,
        "model or session": 0,
        "ours": 1,
        "theirs": 1,
        "difference": 0,
        "unexplained": 2,
        "because": 3,
    }
    numbers = {"ours", "theirs", "difference", "unexplained"}
    styles = ["bad" if pair.unexplained_usd else "" for pair in pairs]
    columns = [
        show.Column(
            title, [row[at] for row in rows], title in numbers, ranks[title], styles=styles if title == "unexplained" else ()
        )
        for at, title in enumerate(ranks)
    ]
    laid = show.table(columns, shape, color=color) + show.notes(_totals(pairs), shape, color, verbose=True)
    return laid + show.notes(_reasons(pairs), shape, color, verbose)


def _cells(pair: Pair) -> tuple[str, ...]:
    name = pair.labels.get("model") or pair.labels.get("session_id") or "all"
    ours, theirs = (None if value is None else pricing.plain(value) for value in (pair.ours, pair.theirs))
    money = [ours, theirs, *map(pricing.plain, (pair.difference, pair.unexplained_usd))]
    causes = ", ".join(dict.fromkeys(cause.name for cause in pair.causes))
    shown = [show.money(value) or "unpriced" for value in money]
    return (pair.source, pair.day, name, *shown, causes if pair.difference else "equal")


def _totals(pairs: Sequence[Pair]) -> Iterator[str]:
    for source in dict.fromkeys(pair.source for pair in pairs):
        mine = [pair for pair in pairs if pair.source == source]
        ours = sum((pair.ours or pricing.ZERO for pair in mine), pricing.ZERO)
        theirs = sum((pair.theirs or pricing.ZERO for pair in mine), pricing.ZERO)
        left = sum((pair.unexplained_usd for pair in mine), pricing.ZERO)
        shown = (show.money(pricing.plain(value)) for value in (ours, theirs, left))
        yield "{}: ours {}, theirs {}, unexplained {}".format(source, *shown)


def _reasons(pairs: Sequence[Pair]) -> Iterator[str]:
    """Each reason once, with the number of times."""
    counted: dict[tuple[str, str, bool], int] = {}
    for cause in (cause for pair in pairs for cause in pair.causes):
        key = (cause.name, cause.why, cause.certain)
        counted[key] = counted.get(key, 0) + 1
    for (name, why, certain), times in counted.items():
        yield f"{name}{'' if certain else ' (likely)'}: {why} ({times})"
