"""Our figures beside those of others: what clients estimate, what routers bill, what vendors report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenops import claims, reconcile_prices, reconcile_sessions, reconcile_vendors, when
from tokenops.claims import Ask, Books, Pair
from tokenops.events import Event


def pairs(records: Iterable[Event], ask: Ask) -> list[Pair]:
    """Every comparison of a span, in order of source, day and model. Events from before the span count towards sessions."""
    books = claims.opened(records)
    found = [
        *of_turns(books, ask),
        *reconcile_sessions.of_totals(books, ask),
        *reconcile_sessions.of_estimates(books, ask),
        *reconcile_vendors.of_reports(books, ask),
    ]
    return sorted(found, key=lambda one: (one.source, one.day, sorted(one.about.items())))


def of_turns(books: Books, ask: Ask) -> Iterator[Pair]:
    """Turns that came with an amount: by day, client and model."""
    groups: dict[tuple[str, ...], list[Event]] = {}
    names = ("client", "provider", "model")
    for turn in books.turns:
        if "cost_usd" in turn and ask.since <= turn["ts"] < ask.until:
            whose = turn.get("client") or "unknown"
            source = str(turn.get("provider")) if turn.get("cost_source") == "reported" else whose
            key = (source, claims.day_of(turn["ts"], ask.tz), *(str(turn.get(name, "")) for name in names))
            groups.setdefault(key, []).append(turn)
    for (source, day, *about), turns in groups.items():
        ours, theirs, causes = reconcile_prices.compared(turns, ask.catalogue)
        known: dict[str, str] = dict(zip(names, about, strict=True))
        counts = {"turns": sum(turn.get("turns", 0) for turn in turns)}
        yield Pair(source, day, when.zone_name(ask.tz), known, ours, theirs, causes, counts)
