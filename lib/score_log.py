"""The scorecard of a span of the log."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from tokenops import costs, events, pricing, projects, rollup, scorecard, store, store_summaries, when
from tokenops.events import Event


def rows(
    folder: str,
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    now: int,
    span: tuple[int, int],
    tz: datetime.tzinfo,
    by: str = "none",
    compare: bool = False,
    wanted: events.Filter = events.EVERY,
) -> list[Event]:
    """A card per group; with `compare` beside the span of the same length before. Raises OSError."""
    since, until = span
    found = _cards(folder, catalogue, rules, now, (since, until), tz, by, wanted)
    if by == "none" and not found:
        found = {"": scorecard.graded_card(scorecard.measures([], [], []), rules)}
    before = _cards(folder, catalogue, rules, now, (2 * since - until, since), tz, by, wanted) if compare else {}
    made = []
    for name, card in found.items():
        row: Event = {"v": 1, "kind": "score", "by": by, "group": name or None}
        row |= {"from": when.stamp(since), "to": when.stamp(until)}
        made.append(row | (scorecard.compared(card, before.get(name)) if compare else card))
    return made


def _cards(
    folder: str,
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    now: int,
    span: tuple[int, int],
    tz: datetime.tzinfo,
    by: str,
    wanted: events.Filter,
) -> dict[str, Event]:
    since, until = map(when.stamp, span)
    buckets = when.Buckets("week", tz)
    fields = ("week",) if by == "week" else (by,) if by != "none" else ()
    plan = rollup.Plan(tuple(dict.fromkeys((*fields, "project", "session"))), tz, catalogue)
    turns = costs.priced(store_summaries.rows(folder, plan, now, since, until, wanted), catalogue)
    names = store.labels(folder)

    def of(kind: str) -> list[Event]:
        found = (projects.relabelled(one, names) for one in store.of_kind(folder, kind, since) if one["ts"] < until)
        return [one for one in found if wanted.takes(one)]

    return scorecard.cards(turns, of("work"), of("saving"), rules, scorecard.key_of(by, buckets.of))
