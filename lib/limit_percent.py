"""Reports what one percent of each limit is worth: rows for programs, and a table with sentences for people."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Iterator, Sequence

from tokenops import chart_text, limit_view, limit_worth, plans_dated, show, when
from tokenops.events import Event
from tokenops.limit_pieces import Rise
from tokenops.limit_windows import Key
from tokenops.limit_worth import Interval, Worth

# What rows can be grouped by.
FIELDS = ("window", "model")
MONTH_MINUTES = 365.25 / 12 * 1440
_DIGITS = 4
# A month is bounded by the longest window of those that rose lately, if it is longer than a day.
_RECENT_MS, _LONG_MINUTES = 30 * when.DAY, 1441
# Why a limit does not bound a month, as in the rows, and as people read it.
SHORTER, SHORT, OLD = "a_longer_limit", "no_longer_limit", "no_recent_rise"
_NO_MONTH = {
    SHORTER: "a longer limit of the account is used up first",
    SHORT: "a limit of a day or less begins with use, so nobody knows how often it does in a month",
    OLD: f"it did not rise in the last {_RECENT_MS // when.DAY} days",
}
# A change that is so near to what the vendor announced is probably that.
_NEAR_MS = 7 * when.DAY
# A change that is larger than this share is not worth a number.
_SMALL = 0.5


def rows(rises: Iterable[Rise], now: int, by: Sequence[str] = FIELDS[:1]) -> list[Event]:
    """A row for each limit or, `by` model, for each family of models that enough of its pieces are nearly all of.

    Keys: v, kind (plan_worth), provider, account, window, scope, model, usd_per_percent {p10, p50, p90} or null, pieces,
    days, since, window_usd and month_usd (as usd_per_percent), no_month (why there is no month_usd), unseen_share,
    changes [{at, factor, p10, p90, announced}], least_change, weights {cache_read, output, FAMILY: {p10, p50, p90}},
    weights_relative_to, as_of, note. `rises`: in order of time.
    """
    groups: dict[Key, list[Rise]] = {}
    for rise in rises:
        groups.setdefault(rise.key, []).append(rise)
    longest: dict[tuple[str, str], int] = {}
    for key, group in groups.items():
        # The windows of an earlier plan rise no more.
        if group[-1].at > now - _RECENT_MS and group[-1].minutes >= _LONG_MINUTES:
            longest[key[:2]] = max(longest.get(key[:2], 0), group[-1].minutes)
    result = []
    for key, group in sorted(groups.items()):
        no_month = _no_month(group[-1], longest.get(key[:2], 0), now)
        names = sorted({name for rise in group for name in rise.families}) if "model" in by else []
        worths: list[tuple[str, Worth | None]] = [(name, limit_worth.worth(group, name)) for name in names]
        worths = [pair for pair in worths if pair[1]]
        for name, worth in worths or [("", limit_worth.worth(group))]:
            result.append(row(key, name, group, worth, now, no_month))
    return result


def _no_month(last: Rise, longest: int, now: int) -> str:
    """Why a limit does not bound a month, from its last rise and the account's longest window in minutes; "" if it does."""
    if last.at <= now - _RECENT_MS:
        return OLD
    if last.minutes < longest:
        return SHORTER
    return "" if longest else SHORT


def row(key: Key, model: str, rises: Sequence[Rise], worth: Worth | None, now: int, no_month: str) -> Event:
    """The row of one limit and family. `no_month`: why the limit does not bound a month, "" if it does."""
    event: Event = {"v": 1, "kind": "plan_worth", "provider": key.provider}
    event |= {name: value for name, value in (("account", key.account), ("scope", key.scope), ("model", model)) if value}
    event["window"] = key.window
    if worth is None:
        return event | {"usd_per_percent": None, "pieces": 0, "as_of": when.stamp(now), "note": _lacking(rises)}
    event["usd_per_percent"] = _json(worth.usd_per_percent)
    event |= {"pieces": worth.pieces, "days": worth.days, "since": when.stamp(worth.since)}
    event["window_usd"] = _json(worth.usd_per_percent, 100)
    if no_month:
        event["no_month"] = no_month
    else:
        event["month_usd"] = _json(worth.usd_per_percent, 100 * MONTH_MINUTES / rises[-1].minutes)
    event["unseen_share"] = round(worth.unseen_share, 3)
    event["changes"] = [_change(key, change) for change in worth.changes]
    event["least_change"] = round(worth.least_change, 3)
    if worth.weights:
        event["weights"] = {name: _json(Interval(*points), digits=3) for name, points in worth.weights.items()}
        event["weights_relative_to"] = f"input, {worth.main}"
    return event | {"as_of": when.stamp(now)}


def _change(key: Key, change: limit_worth.Change) -> Event:
    event: Event = {"at": when.stamp(change.at)}
    event |= {name: round(value, 3) for name, value in zip(("p10", "factor", "p90"), change.factor, strict=True)}
    for each in plans_dated.announcements(key.provider):
        if each.factor is None or each.window != key.window:
            continue
        if abs(when.moment(f"{each.since}T00:00:00Z") - change.at) <= _NEAR_MS:
            event["announced"] = {"from": each.since, "factor": each.factor}
    return event


def _json(interval: Interval, times: float = 1.0, digits: int = _DIGITS) -> Event:
    return {name: float(f"{value * times:.{digits}g}") for name, value in interval._asdict().items()}


def _lacking(rises: Sequence[Rise]) -> str:
    """Why nothing can be computed yet, and what would help."""
    whole = sum(rise.percent for rise in rises)
    unpriced = sum(rise.percent for rise in rises if rise.usd is None)
    quiet = sum(rise.percent for rise in rises if rise.usd is not None and not any(rise.usd))
    if unpriced > whole / 2:
        return "most of its use was by models without a price: see tok-price"
    if quiet > whole / 2:
        return "most of its use was elsewhere, or by clients whose logs are not imported: see tok-status"
    return f"too few readings beside local turns: it needs {limit_worth.FEWEST} rises of {limit_worth.LEAST:g}%"


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """Worths for people: a line each, then a sentence for each on changes, or on why there is no value."""
    columns = [
        show.Column("provider", [limit_view.account_name(row) for row in rows], False, 1),
        show.Column("window", [_name(row) for row in rows], False, 0),
        show.Column("1%", [_usd(row, "usd_per_percent", "p50") for row in rows], True, 0),
        show.Column("80% likely between", [_span(row, "usd_per_percent") for row in rows], True, 1, heading="80% likely"),
        show.Column("whole window", [_usd(row, "window_usd", "p50") for row in rows], True, 0, heading="window"),
        show.Column("a month", [_month(row, shape) for row in rows], True, 2),
        show.Column("used elsewhere", [_share(row) for row in rows], True, 3, heading="elsewhere"),
        show.Column("pieces", [str(row["pieces"]) for row in rows], True, 4),
    ]
    text = show.table(columns, shape, color=color)
    if shape == "csv":
        return text
    most = show.width() if shape == "table" else None
    several = len({limit_view.account_name(row) for row in rows}) > 1
    names = [f"{limit_view.account_name(row)} " if several else "" for row in rows]
    texts = [show.safe(name + sentence(row)) for name, row in zip(names, rows, strict=True)]
    texts += _month_notes(rows)
    lines = [line for text in texts for line in show.wrap(text, most, "  ")]
    return text + "".join(f"{line}\n" for line in lines)


def sentence(row: Event) -> str:
    """What changed, in a sentence: `weekly limit: since 14 Sep a percent buys 17% less (80% likely: 11 to 22%)`."""
    name = _name(row)
    if row["usd_per_percent"] is None:
        return f"{name}: unknown; {row['note']}"
    if not row["changes"]:
        least = row["least_change"]
        seen = f"a change of {least:.0%} or more" if least < _SMALL else "only a very large change"
        return f"{name}: unchanged since {_day(row['since'])}; {seen} would show within a week of use"
    return f"{name}: " + "; ".join(_changes(row["changes"]))


def _changes(changes: Sequence[Event]) -> Iterator[str]:
    for change in changes:
        less = change["factor"] < 1
        low, high = sorted(abs(1 - change[end]) * 100 for end in ("p10", "p90"))
        yield (
            f"since {_day(change['at'])} a percent buys {abs(1 - change['factor']):.0%} {'less' if less else 'more'} "
            f"(80% likely: {low:.0f} to {high:.0f}%{_announcement(change)})"
        )


def _announcement(change: Event) -> str:
    entry = change.get("announced")
    return f"; the vendor announced {entry['factor'] - 1:+.0%} from {_day(entry['from'] + 'T00:00:00Z')}" if entry else ""


def _day(stamp: str) -> str:
    return chart_text.day_name(when.moment(stamp), datetime.UTC).split(maxsplit=1)[1]


def _name(row: Event) -> str:
    return ", ".join(filter(None, (limit_view.window_name(row), row.get("model"))))


def _usd(row: Event, field: str, point: str) -> str:
    value = row.get(field)
    return _money(value[point]) if value else "unknown"


def _month(row: Event, shape: str) -> str:
    """What a month buys; "-" where the limit does not bound it."""
    return ("" if shape == "csv" else "-") if "no_month" in row else _usd(row, "month_usd", "p50")


def _month_notes(rows: Sequence[Event]) -> Iterator[str]:
    """One note that says why some limits have no month."""
    reasons = {row["no_month"]: row for row in reversed(rows) if "no_month" in row}
    if reasons:
        parts = (f"{limit_view.window_name(row)}: {_NO_MONTH[reason]}" for reason, row in reversed(reasons.items()))
        yield show.safe(f'a month is "-" where it cannot be said ({"; ".join(parts)})')


def _money(value: float) -> str:
    """Dollars with three digits that count, and cents below a hundred: $0.0361, $3.61, $36.10, $361."""
    digits = max(2 - math.floor(math.log10(value)), 0) if value > 0 else 0
    return f"${value:,.{2 if digits == 1 else digits}f}"


def _span(row: Event, field: str) -> str:
    return f"{_usd(row, field, 'p10')} to {_usd(row, field, 'p90')}" if row.get(field) else ""


def _share(row: Event) -> str:
    return f"{row['unseen_share']:.0%}" if "unseen_share" in row else ""


def fields(by: str) -> list[str]:
    """`window,model` -> its fields, window always among them. Raises ValueError."""
    names = [name.strip() for name in by.split(",") if name.strip()]
    if unknown := [name for name in names if name not in FIELDS]:
        raise ValueError(f"--by {unknown[0]}: expected {' or '.join(FIELDS)}")
    return [name for name in FIELDS if name in ("window", *names)]
