"""What must hold after a soak. Each check is a sentence, whether it holds, and what was seen."""

from __future__ import annotations

import collections
import datetime
import statistics
import zoneinfo
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from soak_clock import HOUR
from soak_ledger import CLASSES, Ledger, Turn, cost, key_of, tally
from soak_parts import Sample

Json = dict[str, Any]
# The proxy writes at most so long after an answer ended; who kills it may lose that much (docs/proxy.md).
BEHIND_S = 1.0
# No answer takes longer, whatever the clock says meanwhile.
MOST_MS = 60_000


class Check(NamedTuple):
    """One thing that must hold."""

    what: str
    holds: bool
    seen: str


def check(what: str, wrong: Sequence[str], seen: str) -> Check:
    """A check that holds where nothing is wrong."""
    told = "; ".join(" ".join(one.split()) for one in wrong[:4])
    return Check(what, not wrong, f"{len(wrong)} wrong: {told}" if wrong else seen)


class Book(NamedTuple):
    """The ledger beside the log: what each turn was found as, and what is wrong with it."""

    found: list[tuple[Turn, Json]]
    missing: list[str]
    doubled: list[str]
    changed: list[str]
    strangers: list[str]
    excused: int  # not in the log, because the proxy was killed when they ended


def compared(ledger: Ledger, records: Iterable[Json], kills: Sequence[tuple[float, float]]) -> Book:
    """Each turn that was spent, and its record."""
    held: dict[tuple[Any, ...], list[Json]] = collections.defaultdict(list)
    for one in records:
        client = "sdk" if one.get("session_id", "").startswith("sdk-") else one["client"]
        held[key_of(client, one.get("session_id", ""), one["id"], one)].append(one)
    excused = [turn for turn in ledger.turns if turn.state != "maybe" and turn.key not in held and _excused(turn, kills)]
    book = Book([], [], [], [], [], len(excused))
    for turn in ledger.turns:
        several = held.pop(turn.key, [])
        label = f"{turn.name} ({turn.client}, {turn.state})"
        if not several:
            if turn.state != "maybe" and not _excused(turn, kills):
                book.missing.append(label)
            continue
        if len(several) > 1:
            book.doubled.append(label)
        if why := fault(turn, several[0]):
            book.changed.append(f"{label}: {why}")
        book.found.append((turn, several[0]))
    for several in held.values():
        book.strangers.extend(f"{one['id']} of {one.get('session_id')}" for one in several if not one.get("errors"))
    return book


def _excused(turn: Turn, kills: Sequence[tuple[float, float]]) -> bool:
    """Whether nothing but a proxy that was killed at that moment knew of a turn."""
    return turn.wired and not turn.logged and any(turn.until_s > t - BEHIND_S and turn.from_s < up for t, up in kills)


def fault(turn: Turn, one: Json) -> str:
    """What a record says that is not so."""
    first = {name: n for name, n in turn.counts.items() if name != "output_tokens"} | {"output_tokens": 1}
    known: dict[str, list[Json]] = {
        "whole": [turn.counts],
        "cut": [first],
        "cut, unknown": [{}],
        "left": [first, turn.counts],  # the proxy may have had all of it before it knew that the client left
        "left, unknown": [{}, turn.counts],
        "error": [{}],
        "maybe": [{}, first, turn.counts],
    }
    if all(tally(one) != tally(counts) for counts in known[turn.state]):
        return f"counts {tally(one)}"
    if one.get("model") != turn.model and turn.state not in ("error", "maybe"):
        return f"model {one.get('model')}"
    if (turn.state == "error") != bool(one.get("errors")) and turn.state != "maybe":
        return "an error, or none"
    if turn.state == "whole" and one.get("usage"):
        return f"usage {one['usage']}"
    if any(not 0 <= one.get(name, 0) <= MOST_MS for name in ("latency_ms", "ttft_ms")):
        return f"latency {one.get('latency_ms')}, ttft {one.get('ttft_ms')}"
    at = int(datetime.datetime.fromisoformat(one["ts"]).timestamp() * 1000)
    if turn.begun and (at < turn.begun - 2 * HOUR - 60_000 or at > (turn.told or turn.done or at)):
        return f"time {one['ts']}"
    return ""


def sums(found: Iterable[tuple[Turn, Json]]) -> dict[str, list[int]]:
    """Model -> turns and classes, of the ledger. What nobody told the counts of has none."""
    made: dict[str, list[int]] = collections.defaultdict(lambda: [0] * (1 + len(CLASSES)))
    for turn, one in found:
        if not one.get("errors"):
            counts = turn.counts if turn.state == "whole" else one
            made[one["model"]] = [a + b for a, b in zip(made[one["model"]], (1, *tally(counts)), strict=True)]
    return dict(made)


def bills(found: Iterable[tuple[Turn, Json]]) -> dict[str, Decimal]:
    """Model -> dollars, of the ledger."""
    made: dict[str, Decimal] = collections.defaultdict(Decimal)
    for turn, one in found:
        if not one.get("errors"):
            made[one["model"]] += cost(one["model"], turn.counts if turn.state == "whole" else one)
    return dict(made)


def rows(said: Iterable[Json], by: str) -> tuple[dict[str, list[int]], dict[str, Decimal]]:
    """The same of what tok-cost says: turns and classes, and dollars, by a field."""
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0] * (1 + len(CLASSES)))
    dollars: dict[str, Decimal] = collections.defaultdict(Decimal)
    for row in said:
        name = str(row.get(by, ""))
        counts[name] = [a + b for a, b in zip(counts[name], (row.get("turns", 0), *tally(row)), strict=True)]
        dollars[name] += Decimal(row.get("cost_usd", "0"))
    drop = [name for name, several in counts.items() if not several[0]]  # errors only
    return {k: v for k, v in counts.items() if k not in drop}, {k: v for k, v in dollars.items() if k not in drop}


def by_time(found: Iterable[tuple[Turn, Json]], unit: str, zone: str) -> tuple[dict[str, list[int]], dict[str, Decimal]]:
    """Hour or day of a zone -> turns, classes and dollars, of the ledger; the moment is the record's."""
    tz = zoneinfo.ZoneInfo(zone)
    groups: dict[str, list[tuple[Turn, Json]]] = collections.defaultdict(list)
    for turn, one in found:
        at = datetime.datetime.fromisoformat(one["ts"]).astimezone(tz)
        label = (
            f"{at:%Y-%m-%d}"
            if unit == "day"
            else at.replace(minute=0, second=0, microsecond=0).isoformat()[:16] + at.isoformat()[-6:]
        )
        groups[label].append((turn, one))
    counts = {
        label: [sum(column) for column in zip(*sums(several).values(), strict=True)] for label, several in groups.items()
    }
    dollars = {label: sum(bills(several).values(), Decimal(0)) for label, several in groups.items()}
    return {k: v for k, v in counts.items() if v}, {k: dollars[k] for k in dollars if counts[k]}


def differences(expected: Json, found: Json) -> list[str]:
    """Where two tables are not the same."""
    return [
        f"{k}: {expected.get(k)} expected, {found.get(k)} found"
        for k in sorted(expected.keys() | found.keys())
        if expected.get(k) != found.get(k)
    ]


class Trend(NamedTuple):
    """How something went over the last life of a process, its warming up left out."""

    first: float  # median of the first quarter
    last: float  # and of the last
    slope: float  # per minute, least squares
    minutes: float


def trend(samples: Sequence[Sample], name: str, warm_s: float) -> Trend | None:
    """The trend of a field; None where the last life was too short to tell."""
    life = [one for one in samples if one.life == samples[-1].life] if samples else []
    life = [one for one in life if one.at >= life[0].at + warm_s]
    if len(life) < 12:
        return None
    xs, ys = [one.at / 60 for one in life], [float(getattr(one, name)) for one in life]
    quarter = len(life) // 4
    return Trend(
        statistics.median(ys[:quarter]),
        statistics.median(ys[-quarter:]),
        statistics.linear_regression(xs, ys).slope,
        xs[-1] - xs[0],
    )
