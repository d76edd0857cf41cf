"""A reconciliation for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenops import pricing, show
from tokenops.claims import Pair


def table(pairs: Sequence[Pair], shape: str, color: bool) -> str:
    """The comparisons, and a total for each source that is compared with."""
    rows = [_cells(one) for one in pairs]
    titles = ("with", "day", "model or session", "ours", "theirs", "difference", "unexplained", "because")
    numbers = {"ours", "theirs", "difference", "unexplained"}
    columns = [show.Column(title, [row[at] for row in rows], number=title in numbers) for at, title in enumerate(titles)]
    text = show.table(columns, shape, color=color)
    return text if shape == "csv" else text + "".join(f"{line}\n" for line in (*_totals(pairs), *_reasons(pairs)))


def _cells(one: Pair) -> tuple[str, ...]:
    name = one.about.get("model") or one.about.get("session_id") or "all"
    ours, theirs = (None if value is None else pricing.plain(value) for value in (one.ours, one.theirs))
    money = [ours, theirs, *map(pricing.plain, (one.difference, one.unexplained))]
    causes = ", ".join(dict.fromkeys(cause.name for cause in one.causes))
    shown = [show.money(value) or "unpriced" for value in money]
    return (one.source, one.day, name, *shown, causes if one.difference else "equal")


def _totals(pairs: Sequence[Pair]) -> Iterator[str]:
    for source in dict.fromkeys(one.source for one in pairs):
        mine = [one for one in pairs if one.source == source]
        ours = sum((one.ours or pricing.ZERO for one in mine), pricing.ZERO)
        theirs = sum((one.theirs or pricing.ZERO for one in mine), pricing.ZERO)
        left = sum((one.unexplained for one in mine), pricing.ZERO)
        shown = (show.money(pricing.plain(value)) for value in (ours, theirs, left))
        yield "{}: ours {}, theirs {}, unexplained {}".format(source, *shown)


def _reasons(pairs: Sequence[Pair]) -> Iterator[str]:
    """Each reason once, with how often it was met."""
    counted: dict[tuple[str, str, bool], int] = {}
    for cause in (cause for one in pairs for cause in one.causes):
        key = (cause.name, cause.why, cause.certain)
        counted[key] = counted.get(key, 0) + 1
    for (name, why, certain), times in counted.items():
        yield f"{name}{'' if certain else ' (likely)'}: {why} ({times})"
