"""Finds the runs of sessions, and how many percent of each limit rose with their turns.

A run is a session without a long rest: one that is taken up again after two hours is another run. What a reading rose is
divided among the sessions that had turns since the reading before, by what these cost, so sessions beside each other do not
count twice. Where turns do not say which session they belong to, bursts of use stand for sessions. Pure.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenops import limit_carry, limit_windows
from tokenops.events import Event
from tokenops.limit_carry import Spend
from tokenops.limit_windows import MINUTE, Key, Series
from tokenops.pricing import Catalogue

# A session that rests so long is another run afterwards; so a run is known to be over as long after its end.
REST_MS = 120 * MINUTE
# A meter may be so far behind: Codex states a turn's use with the next line, which may hold no turn (limit_pieces.LAGS).
LAG_MS = 5 * MINUTE
# A burst ends where nothing was used for so long.
IDLE_MS = 30 * MINUTE


class Labels(NamedTuple):
    """What is known of a session before it runs. `family`: of the models of most of its turns."""

    client: str = ""
    project: str = ""
    project_id: str = ""
    branch: str = ""
    family: str = ""


class Part(NamedTuple):
    """A run, or the part of one that lies in one day. `shares`: percent of each limit that rose with its turns."""

    session: str
    provider: str
    account: str
    start: int
    end: int
    labels: Labels
    shares: Mapping[Key, float]


class Run(NamedTuple):
    """One run, as one limit saw it: the percent that rose with its turns. `known_at`: since when it is known to be over."""

    session: str
    start: int
    end: int
    percent: float
    labels: Labels
    known_at: int


Owner = tuple[str, str, str]  # session, provider, account


def parts(turns: Sequence[Event], spends: Sequence[Spend], series: Sequence[Series], since: int) -> list[Part]:
    """The parts of runs whose turns began after `since`, or in which a reading rose after it.

    `spends`: of the same turns. Both reach back a day before `since`: a reading may rise long after the turn.
    """
    spans: dict[Owner, list[list[int]]] = {}
    for spend in spends:
        own = spans.setdefault((spend.session, spend.provider, spend.account), [])
        if own and spend.at - own[-1][1] < REST_MS:
            own[-1][1] = spend.at
        else:
            own.append([spend.at, spend.at])
    shares: dict[tuple[Owner, int], dict[Key, float]] = {}
    for each in series:
        accounts = len({other.key.account for other in series if other.key.provider == each.key.provider})
        counted = limit_carry.spends_of(spends, each.key, accounts)
        for spend in counted:
            if spend.at >= since:
                shares.setdefault(_span_of(spend, spans), {}).setdefault(each.key, 0.0)
        for spend, percent in _shares(each, counted, since):
            own_shares = shares.setdefault(_span_of(spend, spans), {})
            own_shares[each.key] = own_shares.get(each.key, 0.0) + percent
    labels = _labels(turns)
    result = []
    for owner, own in spans.items():
        for number, (start, end) in enumerate(own):
            rose = shares.get((owner, number), {})
            if owner[0] and (end >= since or any(rose.values())):
                result.append(Part(*owner, start, end, labels.get(owner[0], Labels()), rose))
    return sorted(result, key=_order)


def _order(part: Part) -> tuple[int, int, str, str, str]:
    return part.start, part.end, *part[:3]


def _span_of(spend: Spend, spans: Mapping[Owner, list[list[int]]]) -> tuple[Owner, int]:
    """The owner of a turn, and the number of the span in which it lies."""
    owner = spend.session, spend.provider, spend.account
    return owner, bisect.bisect_right(spans[owner], spend.at, key=_start) - 1


def _start(span: Sequence[int]) -> int:
    return span[0]


def rises(series: Series, since: int = 0) -> Iterator[tuple[int, int, float]]:
    """How far the readings of a limit rose after `since`, in percent: from which moment, up to which, how far.

    What a window had used when it was read first counts if it began after some other reading.
    """
    points = sorted(
        (point.at, window.resets_at, window.starts_at, point.used) for window in series.windows for point in window.points
    )
    last: dict[int, tuple[int, float]] = {}
    before: int | None = None
    for at, resets_at, starts_at, used in points:
        if resets_at in last:
            start, low = last[resets_at]
        elif before is None or starts_at < points[0][0]:
            start, low = at, used
        else:
            start, low = max(starts_at, before), 0.0
        last[resets_at] = at, used
        before = at
        if at >= since and used > low:
            yield start, at, 100 * (used - low)


def _shares(series: Series, counted: Sequence[Spend], since: int) -> Iterator[tuple[Spend, float]]:
    """The turns with the percent that each is answerable for; a rise without any local turn is nobody's."""
    times = [spend.at for spend in counted]
    for start, at, percent in rises(series, since):
        last = bisect.bisect_right(times, at)
        between = counted[bisect.bisect_right(times, start) : last]
        if not between and last and times[last - 1] >= at - LAG_MS:
            between = counted[last - 1 : last]
        whole = sum(float(spend.usd or 0) for spend in between)
        is_priced = whole > 0 and all(spend.usd is not None for spend in between)
        for spend in between:
            yield spend, percent * (float(spend.usd or 0) / whole if is_priced else 1 / len(between))


def _labels(turns: Iterable[Event]) -> dict[str, Labels]:
    counts: dict[str, dict[str, int]] = {}
    labels: dict[str, Labels] = {}
    for turn in turns:
        session = turn.get("session_id", "")
        before = labels.get(session, Labels())
        names = ("client", "project", "project_id", "branch")
        texts = (turn.get(name) or getattr(before, name) for name in names)
        labels[session] = Labels(*texts)
        family = limit_windows.family(turn.get("model", "").lower())
        own = counts.setdefault(session, {})
        own[family] = own.get(family, 0) + 1
    return {name: each._replace(family=max(counts[name], key=counts[name].__getitem__)) for name, each in labels.items()}


def runs(every: Iterable[Part], series: Series) -> list[Run]:
    """The runs that counted in a limit, in order of their starts, with parts of several days joined.

    A run after which its window was not read is left out: what it used is unknown.
    """
    last: dict[Owner, int] = {}
    whole: list[Part] = []
    for part in sorted(every, key=_order):
        if part.provider != series.key.provider or series.key not in part.shares:
            continue
        at = last.get(part[:3])
        if at is not None and part.start - whole[at].end < REST_MS:
            before = whole[at]
            share = before.shares[series.key] + part.shares[series.key]
            whole[at] = part._replace(start=before.start, end=max(before.end, part.end), shares={series.key: share})
        else:
            last[part[:3]] = len(whole)
            whole.append(part)
    read = [
        Run(part.session, part.start, part.end, part.shares[series.key], part.labels, max(read_at, part.end + REST_MS))
        for part in whole
        if (read_at := _next_reading(series, part.end)) is not None
    ]
    return sorted(read, key=lambda run: (run.start, run.end, run.session))


def _next_reading(series: Series, at: int) -> int | None:
    """When a window that was open at a moment was read then or next; None if it was not."""
    opened = (window for window in series.windows if window.starts_at <= at <= window.resets_at)
    return min((point.at for window in opened for point in window.points if point.at >= at), default=None)


def bursts(series: Series) -> list[Run]:
    """Stretches of use without a rest of half an hour, in place of runs."""
    result: list[Run] = []
    for start, at, percent in rises(series):
        if result and start - result[-1].end < IDLE_MS:
            result[-1] = result[-1]._replace(end=at, percent=result[-1].percent + percent, known_at=at + IDLE_MS)
        else:
            result.append(Run("", start, at, percent, Labels(), at + IDLE_MS))
    return result


def of_records(records: Iterable[Event], catalogue: Catalogue) -> tuple[list[Part], list[Series]]:
    """The parts of runs and the limits in a stream of records; without turns that name a session no parts."""
    turns: list[Event] = []
    meters: list[Event] = []
    for record in records:
        if record.get("kind") == "turn" and record.get("session_id"):
            turns.append(record)
        elif record.get("kind") == "meter":
            meters.append(record)
    series = limit_windows.series(limit_windows.readings_of(meters))
    return (parts(turns, limit_carry.spends(turns, catalogue), series, 0) if turns else []), series


def pack(every: Iterable[Part]) -> list[list[Any]]:
    """Parts as JSON."""
    return [[*part[:5], list(part.labels), [[*key, share] for key, share in part.shares.items()]] for part in every]


def unpack(rows: Iterable[Sequence[Any]]) -> list[Part]:
    """The parts that were packed. Raises TypeError, ValueError, LookupError."""
    return [
        Part(row[0], row[1], row[2], row[3], row[4], Labels(*row[5]), {Key(*cell[:4]): float(cell[4]) for cell in row[6]})
        for row in rows
    ]
