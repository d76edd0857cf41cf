"""Adds up events into rows: sums per group, kept apart wherever the price differs.

Three laws (property tests): rolling up by day and then by month equals rolling up by month; pricing commutes with
rolling up, to the last digit; and rolling up by session and then by project, client, agent or workflow equals rolling up
by that. So a row holds turns of one rate only: one provider, model, tier, geo, context tier and dated interval; and a row
by session also has the session's project, client, agent and workflow.
"""

from __future__ import annotations

import datetime
import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import events, pricing, rollup_totals, when
from tokenops.events import Event

# What --by takes -> the record's field.
FIELDS = {
    "agent": "agent_id",
    "project": "project",
    "session": "session_id",
    "workflow": "workflow_id",
    "client": "client",
    "provider": "provider",
    "model": "model",
    **{name: name for name in events.OWNER},
    **{name: name for name in events.TAGS},
}
# What a session determines: rows by session have these too, and can be rolled up by them.
OF_SESSION = ("project", "client", "agent", "workflow")
BY = (*FIELDS, *when.UNITS, "none")
is_counted, BEYOND, Totals = rollup_totals.is_counted, rollup_totals.BEYOND, rollup_totals.Totals
# Of a row without a tag: the turns of clients in versions that would have stated it (costs.count_stating).
STATING = "stating_turns"
SUMS = (*events.SUMS, BEYOND, STATING)
# Summaries are also kept by these.
_FIELDS = FIELDS | {name: name for name in ("project_id", "account", "credential")}
# Which plan covers a turn is decided for each report (coverage) and is not a field of the record.
COVERED = "covered"
_FIELDS[COVERED] = "covered_by"
_UNITS = (when.QUARTER, *when.UNITS)


class UsageError(ValueError):
    """A grouping that the records do not allow: a sentence with the remedy."""


class Grouping(NamedTuple):
    """What to group by, in which zone, at which prices."""

    by: tuple[str, ...]
    tz: datetime.tzinfo
    catalogue: pricing.Catalogue

    @property
    def unit(self) -> str:
        """The unit of time among the fields, or ""."""
        return next((name for name in self.by if name in _UNITS), "")


def fields(text: str) -> tuple[str, ...]:
    """The fields of `--by a,b`. Raises UsageError."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in BY:
            from tokenops import show

            other = "; tok-context shows what each tool cost" if name in ("tool", "tools") else show.meant(name, BY)
            raise UsageError(f"--by {name}: no such field; choose from {', '.join(BY)}{other}")
    if sum(name in when.UNITS for name in names) > 1:
        raise UsageError(f"--by {text}: give one unit of time, the finest; roll the result up again for the others")
    return tuple(name for name in names if name != "none")


class Group:
    """One row while it is added up."""

    __slots__ = ("example", "first", "last", "money", "sums")

    def __init__(self, example: Event) -> None:
        self.example = example
        self.first, self.last = "9", ""
        self.sums: dict[str, int] = dict.fromkeys(SUMS, 0)
        self.money: Decimal | None = None

    def span(self, first: str, last: str) -> None:
        """Widen to hold these times."""
        self.first, self.last = min(self.first, first), max(self.last, last)

    def pay(self, cost: Decimal) -> None:
        """Add a reported cost."""
        self.money = pricing.add(self.money or pricing.ZERO, cost)


def _reported_cost(event: Event) -> Decimal:
    """The cost that a record states. Raises ArithmeticError if it is out of range."""
    cost = Decimal(event["cost_usd"])
    if not cost.is_finite() or (cost and not -30 < cost.adjusted() <= 12):
        raise ArithmeticError("cost_usd is out of range")
    return cost


class Cell:
    """The sums of one group's turns of one shape."""

    __slots__ = ("fee", "first", "group", "last", "sums")

    def __init__(self, group: Group, count: int, fee: bool) -> None:
        self.group = group
        self.fee = fee  # each turn is a request with a fee, but has no count of requests
        self.first, self.last = "9", ""
        self.sums = [0] * count


class Shape:
    """The records that have the same keys in the same order: which are counts and which are groups is looked up once.

    A million turns have a few dozen shapes.
    """

    def __init__(self, keys: tuple[str, ...], by: list[str], kept: tuple[str, ...]) -> None:
        self.counted = [key for key in keys if key in _SUMMED]
        self.counts = _getter(self.counted)
        self.group_key = _getter([key for key in dict.fromkeys((*by, *kept)) if key in keys])
        self.reported = "cost_usd" in keys
        self.sourced = "cost_source" in keys
        # grouping -> its prices, and (bucket, rate) or bucket alone -> its cell
        self.cells: dict[tuple[Any, ...], tuple[pricing.Card, dict[Any, Cell]]] = {}


def _getter(keys: list[str]) -> Callable[[Event], tuple[Any, ...]]:
    if not keys:
        return lambda event: ()
    if len(keys) == 1:
        (key,) = keys
        return lambda event: (event[key],)
    return operator.itemgetter(*keys)


class Rollup:
    """Sums of the events seen so far."""

    def __init__(self, grouping: Grouping) -> None:
        self.grouping = grouping
        self.groups: dict[tuple[Any, ...], Group] = {}
        self._seen: set[int] = set()
        self._sessions: set[Any] = set()
        self._totals = rollup_totals.Totals()
        self._unit = grouping.unit
        self._buckets = when.Buckets(self._unit, grouping.tz) if self._unit else None
        names = dict.fromkeys((*grouping.by, *(OF_SESSION if "session" in grouping.by else ())))
        self._by = [_FIELDS[name] for name in names if name in _FIELDS]
        self._kept = grouping.catalogue.kept
        self._shapes: dict[tuple[str, ...], Shape] = {}

    def add(self, event: Event) -> str:
        """Add one event or row. Returns why it could not be added, or "".

        Raises UsageError if the grouping is wrong, and KeyError, TypeError or ValueError if the record is.
        """
        kind = event.get("kind")
        if kind == "turn":
            identity = hash(event["id"])
            if identity in self._seen:
                return f"the turn {event['id']} appeared before and is counted once; tok-log import joins copies"
            self._sum(event)
            self._seen.add(identity)
            self._sessions.add(event.get("session_id"))
        elif kind == "row":
            self._sum_row(event)
        elif is_counted(event):
            for field in _SUMMED & event.keys():
                if type(event[field]) is not int:
                    raise TypeError(f"{field} is {event[field]!r}, not a count")
            self._totals.add(event)
        return ""

    def _sum(self, event: Event) -> None:
        keys = tuple(event)
        shape = self._shapes.get(keys)
        if shape is None:
            shape = self._shapes[keys] = Shape(keys, self._by, self._kept)
        group_key = shape.group_key(event)
        entry = shape.cells.get(group_key)
        if entry is None:
            entry = shape.cells[group_key] = (self.grouping.catalogue.card(event), {})
        card, cells = entry
        if shape.sourced and event["cost_source"] == CLIENT:
            self._sum_estimated(event, card)
            return
        ts = event["ts"]
        buckets = self._buckets
        bucket = "" if buckets is None else buckets[ts[:13]] or buckets.label_of(ts)
        # If only the time decides, the bucket alone is the key of the cell.
        choice = None if card.only is not None or shape.reported else card.rate_of(event)
        slot = bucket if choice is None else (bucket, choice.name)
        cost = _reported_cost(event) if shape.reported else pricing.ZERO
        cell = cells.get(slot)
        if cell is None:
            rate = card.only if choice is None else choice
            fee = isinstance(rate, pricing.Rate) and rate.request is not None and "requests" not in shape.counted
            cell = cells[slot] = Cell(self._group(event, bucket, rate), len(shape.counted), fee and not shape.reported)
        sums = cell.sums
        for at, value in enumerate(shape.counts(event)):
            if type(value) is not int:
                for before in range(at):
                    sums[before] -= event[shape.counted[before]]
                raise TypeError(f"{shape.counted[at]} is {value!r}, not a count")
            sums[at] += value
        if ts < cell.first:
            cell.first = ts
        if ts > cell.last:
            cell.last = ts
        if shape.reported:
            cell.group.pay(cost)

    def _sum_estimated(self, event: Event, card: pricing.Card) -> None:
        """Add a turn with its client's estimate of its cost, which counts only if the catalogue has no price."""
        if isinstance(card.rate_of(event), pricing.Rate):
            self._sum({key: value for key, value in event.items() if key not in ("cost_usd", "cost_source")})
            return
        cost, ts, buckets = _reported_cost(event), event["ts"], self._buckets
        group = self._group(event, "" if buckets is None else buckets[ts[:13]] or buckets.label_of(ts), None)
        group.span(ts, ts)
        group.pay(cost)
        for field in _SUMMED & event.keys():
            group.sums[field] += event[field]

    def _group(self, event: Event, bucket: str, rate: pricing.Rate | pricing.Unpriced | None) -> Group:
        get = event.get
        name = _stated_rate(event) if "cost_usd" in event or rate is None else rate.name
        key = (bucket, *[get(field) for field in self._by], tuple([get(field) for field in self._kept]), name)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(event)
        return group

    def _settle(self) -> None:
        """Add the sums of the cells to their groups."""
        for shape in self._shapes.values():
            for _, cells in shape.cells.values():
                for cell in cells.values():
                    cell.group.span(cell.first, cell.last)
                    for field, value in zip(shape.counted, cell.sums, strict=True):
                        cell.group.sums[field] += value
                        if cell.fee and field == "turns":
                            cell.group.sums["requests"] += value
            shape.cells.clear()

    def _sum_row(self, row: Event) -> None:
        bucket = self._row_bucket(row)
        cost = _reported_cost(row) if "cost_usd" in row else pricing.ZERO
        theirs = (*row["by"], *(OF_SESSION if "session" in row["by"] else ()))
        for name in self.grouping.by:
            if name in _FIELDS and name not in theirs and _FIELDS[name] not in self._kept:
                raise UsageError(f"these rows are by {','.join(row['by']) or 'none'}: they cannot be rolled up by {name}")
        name = row.get("rate") or (_stated_rate(row) if "cost_usd" in row else f"{pricing.NO_RATE}{row.get('unpriced', '')}")
        key = (bucket, *[row.get(field) for field in self._by], tuple(row.get(field) for field in self._kept), name)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(row)
        group.span(row["from"], row["to"])
        self._sessions.add(row.get("session_id"))
        for field in _SUMMED:
            if field in row:
                group.sums[field] += row[field]
        if "cost_usd" in row:
            group.pay(cost)

    def _row_bucket(self, row: Event) -> str:
        unit = self._unit
        if not unit:
            return ""
        theirs = next((name for name in row["by"] if name in _UNITS), "")
        if not theirs:
            raise UsageError(f"these rows are by {','.join(row['by']) or 'none'}: they cannot be rolled up by {unit}")
        if theirs == when.QUARTER and self._buckets is not None:
            return self._buckets.label_of(f"{row['bucket']}:00.000Z")
        if row.get("tz") != when.zone_name(self.grouping.tz):
            raise UsageError(
                f"these rows are in the zone {row.get('tz')}: give --tz {row.get('tz')}, or roll the events up again"
            )
        try:
            return when.coarser_label(row["bucket"], theirs, unit)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def take(self, record: Event, on_bad_record: Callable[[str], None]) -> None:
        """Add one event or row; what is neither is reported to `on_bad_record`. Raises UsageError."""
        try:
            why = self.add(record)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, UsageError):
                raise
            why = f"not a record of kind {record.get('kind')}: {error}; skipped"
        if why:
            on_bad_record(why)

    def totals(self) -> list[Event]:
        """The session totals that count so far, instead of turns or beyond them. Those returned here are not in the rows."""
        return self._totals.take(self._sessions)

    def rows(self) -> Iterator[Event]:
        """The rows so far, in order of bucket, group, price."""
        for event in self.totals():
            self._sum(event)
        self._settle()
        for key in sorted(self.groups, key=_order):
            yield self._row(key, self.groups[key])

    def _row(self, key: tuple[Any, ...], group: Group) -> Event:
        grouping, example = self.grouping, group.example
        row: Event = {"v": events.VERSION, "kind": "row", "by": list(grouping.by)}
        if grouping.unit:
            row |= {"bucket": key[0], "tz": when.zone_name(grouping.tz)}
        row |= {"from": group.first, "to": group.last}
        row |= {field: example[field] for field in self._by if field in example}
        row |= {field: example[field] for field in self._kept if field in example}
        name = key[-1]
        if name.startswith(pricing.NO_RATE):
            row["unpriced"] = name.removeprefix(pricing.NO_RATE)
        elif name not in (_REPORTED, _ESTIMATED):
            row["rate"] = name
        row["catalogue"] = grouping.catalogue.digest
        row |= {field: value for field, value in group.sums.items() if value}
        if group.money is not None:
            row |= {"cost_usd": pricing.plain(group.money), "cost_source": CLIENT if name == _ESTIMATED else "reported"}
        return row


def roll_up(records: Iterable[Event], grouping: Grouping, on_bad_record: Callable[[str], None]) -> list[Event]:
    """The rows of a stream of events and rows. A record that is neither is reported. Raises UsageError."""
    sums = Rollup(grouping)
    for record in records:
        sums.take(record, on_bad_record)
    return list(sums.rows())


def _stated_rate(event: Event) -> str:
    """The name of the rate, in a group's key, of a record that states its cost."""
    return _ESTIMATED if event.get("cost_source") == CLIENT else _REPORTED


CLIENT = "client"  # the source of a cost that the client worked out itself
_REPORTED, _ESTIMATED = "", " client"
_SUMMED = frozenset(SUMS)


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A sort key for groups, with missing values last."""
    bucket, *group, priced, name = key
    return (bucket, *((value is None, str(value)) for value in (*group, *priced, name)))


def merge_rows(rows: Iterable[Event], catalogue: pricing.Catalogue) -> Iterator[Event]:
    """One row per group, with its cost. Turns without a price are in `unpriced`, remarks in `notes`."""
    groups: dict[tuple[Any, ...], Event] = {}
    for row in rows:
        key = (row.get("bucket"), *(row.get(FIELDS[name]) for name in row["by"] if name in FIELDS))
        group = groups.get(key)
        if group is None:
            group = groups[key] = {
                name: row[name] for name in ("v", "kind", "by", "bucket", "tz", "from", "to") if name in row
            }
            kept = (*row["by"], *(OF_SESSION if "session" in row["by"] else ()))
            group |= {FIELDS[name]: row[FIELDS[name]] for name in kept if name in FIELDS and FIELDS[name] in row}
            group["by"] = [name for name in row["by"] if name != COVERED]
            group["cost"] = pricing.ZERO
        group["from"], group["to"] = min(group["from"], row["from"]), max(group["to"], row["to"])
        for field in SUMS:
            if field in row:
                group[field] = group.get(field, 0) + row[field]
        _price(group, row, catalogue)
    for group in groups.values():
        yield _finish(group, catalogue)


def _price(group: Event, row: Event, catalogue: pricing.Catalogue) -> None:
    """Add a row's cost to its group's."""
    if row.get("cost_source") in ("reported", CLIENT):
        _add_cost(group, row, Decimal(row["cost_usd"]))
        group.setdefault("sources", set()).add(row["cost_source"])
        return
    rate = catalogue.rate_of(row)
    cost = pricing.cost_of(rate, row) if isinstance(rate, pricing.Rate) else rate
    if isinstance(cost, pricing.Unpriced):
        missing = group.setdefault("unpriced", {}).setdefault((row.get("provider"), row.get("model"), cost.reason), [0, 0])
        missing[0] += row.get("turns", 0)
        missing[1] += events.token_sum(row)
        return
    _add_cost(group, row, cost.usd)
    group.setdefault("sources", set()).add("estimated")
    group.setdefault("notes", {}).update(dict.fromkeys(cost.notes))
    assert isinstance(rate, pricing.Rate)
    saved = pricing.saved_by_cache(rate, row)
    if saved is not None:
        group["saved"] = pricing.add(group.get("saved", pricing.ZERO), saved)
    if rate.captured:
        group["prices_read"] = min(group.get("prices_read", "9"), rate.captured)


def _add_cost(group: Event, row: Event, usd: Decimal) -> None:
    """Add an amount to a group's cost, and to that of the plan that covers it, if rows name it."""
    group["cost"] = pricing.add(group["cost"], usd)
    if COVERED in row["by"]:
        split = group.setdefault("split", {})
        split[row.get("covered_by")] = pricing.add(split.get(row.get("covered_by"), pricing.ZERO), usd)


def _finish(group: Event, catalogue: pricing.Catalogue) -> Event:
    cost = group.pop("cost")
    sources, unpriced, notes = group.pop("sources", set()), group.pop("unpriced", {}), group.pop("notes", {})
    saved, read, split = group.pop("saved", None), group.pop("prices_read", ""), group.pop("split", {})
    row = {name: value for name, value in group.items() if value or name not in SUMS}
    row["catalogue"] = catalogue.digest
    if sources:
        row["cost_usd"] = pricing.plain(cost)
        row["cost_source"] = "+".join(sorted(sources))
    if split and None not in split:
        row |= _split_amounts(split)
    if saved is not None:
        row["cache_saved_usd"] = pricing.plain(saved)
    if read:
        row["prices_read"] = read
    if unpriced:
        row["unpriced"] = [
            {name: value for name, value in zip(_UNPRICED, (*key, *sums), strict=True) if value is not None}
            for key, sums in sorted(unpriced.items(), key=lambda item: tuple(map(str, item[0])))
        ]
    if notes:
        row["notes"] = list(notes)
    return row


def _split_amounts(split: dict[str, Decimal]) -> Event:
    """What plans cover and what is metered, which add up to the cost."""
    plans = {name: usd for name, usd in sorted(split.items()) if name}
    covered = functools.reduce(pricing.add, plans.values(), pricing.ZERO)
    amounts: Event = {"plan_covered_usd": pricing.plain(covered), "metered_usd": pricing.plain(split.get("", pricing.ZERO))}
    return amounts | ({"covered_by": {name: pricing.plain(usd) for name, usd in plans.items()}} if plans else {})


_UNPRICED = ("provider", "model", "reason", "turns", "tokens")
