"""Turns a record into a row for other engines: flat, priced, and with what they need to join copies as we do.

The join of two sightings (joins.join) is a maximum of total orders, so a row carries its rank in each of them as text
that compares byte by byte. Then any engine with a max-by aggregate joins in one GROUP BY id: the earliest ts, the usage
block of the greatest `usage_rank`, the attribution block of the greatest `attribution_rank`, the price of the greatest
(`usage_rank`, `price_rank`): a price belongs to the counts that it was computed from.

Machine and user are salted hashes unless they are named for shipping; a project named like the user's login is hashed, too.
Kinds that hold people's words (task) never become rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from tokenops import events, joins, machines, pricing, projects, rollup, when
from tokenops.events import Event

Row = dict[str, Any]

# Kinds that are shipped. `same` says that an id is another sighting's of the turn that `alias` names.
KINDS = ("turn", "usage", "meter")
SAME = "same"

_TEXTS = ("source", "client", "project", "project_id", "account", "agent_id", "workflow_id", "session_id")
_USAGE_TEXTS = ("search_context", "tier", "geo", "usage", "usage_reason", "covers")
# Every column and its type: text, flag, count, money (Decimal(38,18)), real. Empty text, 0 and false where not
# known; a real is null then, since a limit of which nothing is used is a reading.
COLUMNS: dict[str, str] = {
    **dict.fromkeys(("kind", "id", "ts", "alias", "machine", "user"), "text"),
    **dict.fromkeys(_TEXTS, "text"),
    "sidechain": "flag",
    **dict.fromkeys(events.TAGS, "text"),
    "provider": "text",
    "provider_inferred": "flag",
    "model": "text",
    "request_model": "text",
    **dict.fromkeys(events.SUMS, "count"),
    **dict.fromkeys(_USAGE_TEXTS, "text"),
    "cost_usd": "money",
    "cost_source": "text",
    "priced_usd": "money",
    "priced_from": "text",
    "unpriced": "text",
    "catalogue": "text",
    "status": "text",
    "error": "text",
    "latency_ms": "count",
    "ttft_ms": "count",
    "window": "text",
    "used": "real",
    "resets_at": "text",
    "rest": "text",
    "usage_rank": "text",
    "attribution_rank": "text",
    "price_rank": "text",
}
# What is not the record's own.
ADDED = (
    "machine",
    "user",
    "priced_usd",
    "priced_from",
    "unpriced",
    "catalogue",
    "usage_rank",
    "attribution_rank",
    "price_rank",
)
_OWN = frozenset(COLUMNS) - frozenset(ADDED) - {"rest"}
_NUMBERS: dict[str, type | tuple[type, ...]] = {"count": int, "real": (int, float), "flag": bool, "text": str}
_LEFT_OUT = frozenset((*events.SUMS, "sidechain", "provider_inferred"))  # if they are zero
# Most digits behind the point that engines keep.
SCALE = 18
_LAST_MS = 10**13


class Unshippable(ValueError):
    """A record that cannot be a row: why."""


class Owner(NamedTuple):
    """The owner of rows: its machine and user as they are shipped.

    `logins` are names that identify the user; `salt` is the secret to hash them with. `names` are those that records give
    this machine, and its user; of other machines and users the names are shipped only if `ships_names`.
    """

    machine: str
    user: str
    logins: frozenset[str] = frozenset()
    salt: bytes = b""
    names: machines.Owner = machines.NOBODY
    ships_names: bool = False

    def names_for(self, event: Event) -> tuple[str, str]:
        """Machine and user of a record as they are shipped: the record's own if it has them, else the shipper's.

        A record of another machine without a user has none: it is not known.
        """
        machine, user = machines.owner_of(event)
        is_ours = machine in ("", self.names.machine)
        shipped = self.machine if is_ours else self._shipped_name("machine", machine)
        if user in ("", self.names.user):
            return shipped, self.user if is_ours or user else ""
        return shipped, self._shipped_name("user", user)

    def _shipped_name(self, what: str, name: str) -> str:
        return name if self.ships_names else identity(f"{what}:{name}", self.salt)


def identity(name: str, salt: bytes) -> str:
    """A hash that distinguishes machines or users without naming them."""
    return f"h:{projects.hash_path(name, salt)}"


class Priced(NamedTuple):
    """What tok-cost counts for a record: an amount and its source, or why there is none."""

    usd: Decimal = pricing.ZERO
    source: str = ""
    unpriced: str = ""


def price_of(event: Event, catalogue: pricing.Catalogue) -> Priced:
    """What a record adds to tok-cost's total. Account totals and readings add nothing."""
    if event["kind"] != "turn" and not rollup.is_counted(event):
        return Priced()
    rate = catalogue.card(event).rate_of(event)
    if "cost_usd" in event and (event.get("cost_source") != rollup.CLIENT or isinstance(rate, pricing.Unpriced)):
        return Priced(Decimal(event["cost_usd"]), event.get("cost_source", "reported"))
    if isinstance(rate, pricing.Rate) and rate.request is not None and "requests" not in event:
        event = {**event, "requests": event.get("turns", 0)}  # each turn is a request that costs a fee
    cost = pricing.cost_of(rate, event) if isinstance(rate, pricing.Rate) else rate
    if isinstance(cost, pricing.Unpriced):
        return Priced(unpriced=cost.reason)
    return Priced(cost.usd, "estimated")


def columns(tags: Collection[str]) -> dict[str, str]:
    """The columns of a target that gets these tags. Others are neither sent nor expected there."""
    return {name: kind for name, kind in COLUMNS.items() if name not in events.TAGS or name in tags}


def row_of(event: Event, catalogue: pricing.Catalogue, owner: Owner, at: int, tags: Collection[str] = events.TAGS) -> Row:
    """The row of a record; `at`: when it is priced; `tags`: those that the target gets. Raises Unshippable."""
    if event.get("kind") not in KINDS:
        raise Unshippable(f"records of kind {event.get('kind')} are not shipped")
    stays = {*_LEFT_OUT, *events.OWNER, *(name for name in events.TAGS if name not in tags)}
    machine, user = owner.names_for(event)
    named = without_login(event, owner)
    event = {name: value for name, value in named.items() if name not in stays or (value and name in _LEFT_OUT)}
    price = price_of(event, catalogue)
    row = {name: value for name, value in event.items() if name in _OWN and _fits(name, value)}
    rest = {name: value for name, value in event.items() if name not in row and name != "v"}
    if "cost_usd" in row:
        row["cost_usd"] = _money(row["cost_usd"])
    row |= {"machine": machine, "user": user}
    if price.source:
        row |= {"priced_usd": _money(price.usd), "priced_from": price.source}
    if price.unpriced:
        row["unpriced"] = price.unpriced
    if price.source == "estimated" or price.unpriced:
        row["catalogue"] = catalogue.digest
    if rest:
        row["rest"] = events.order_of(rest).decode()
    return row | ranks(event, at)


def _fits(name: str, value: object) -> bool:
    kind = COLUMNS[name]
    if kind == "money":
        return True
    return isinstance(value, _NUMBERS[kind]) and (kind == "flag" or type(value) is not bool)


def _money(value: Decimal | str) -> Decimal:
    amount = Decimal(value)
    exponent = amount.normalize().as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -SCALE or amount.adjusted() >= 38 - SCALE:
        raise Unshippable(f"{amount} has more digits than Decimal(38,{SCALE}) holds")
    return amount


def ranks(event: Event, at: int) -> Row:
    """A record's place in each total order that decides a join, as text."""
    if event["kind"] == "turn":
        usage, attribution = joins.usage_of(event), joins.attribution_of(event)
        state, revision, certainty, model, ours, output, cost, total, apart, order, last = joins.usage_rank(usage)
        first = f"{state}{revision}{certainty}{model:d}{ours:d}{output:018d}{cost:d}{total:018d}{apart:018d}"
        first += f"{order.decode()}{last}"
        revision, own, strong, order = joins.attribution_rank(attribution)
        second = f"{revision}{own:d}{strong:d}{order.decode()}"
    else:
        order = events.order_of({**event, "ts": ""})
        first = second = f"{event.get('observed_at', ''):24}{events.token_sum(event):018d}{order.decode()}"
    # Of the prices of the same counts that of the earliest time, and of those the latest made.
    price = f"{_LAST_MS - when.moment(event['ts']):014d}{at:014d}"
    return {"usage_rank": first, "attribution_rank": second, "price_rank": price}


def without_login(event: Event, owner: Owner) -> Event:
    """The record without the user's login in its project's name (a session begun in the home directory)."""
    project = event.get("project", "")
    parts = project.split("/") if isinstance(project, str) else []
    if owner.logins.isdisjoint(parts):
        return event
    hidden = "/".join(identity(part, owner.salt) if part in owner.logins else part for part in parts)
    changed = {**event, "project": hidden}
    for name in ("agent_id", "workflow_id"):
        if isinstance(event.get(name), str):
            changed[name] = event[name].replace(f":{project}", f":{hidden}", 1)
    return changed


def same_row(name: str, other: str, ts: str, owner: Owner) -> Row:
    """The row that takes an id out of the count: the turn is counted as `other`."""
    return {"kind": SAME, "id": name, "ts": ts, "alias": other, "machine": owner.machine, "user": owner.user}


def event_of(row: Mapping[str, Any]) -> Event:
    """The record that a row was made of."""
    event: Event = {"v": events.VERSION}
    for name, value in row.items():
        if name in _OWN and value not in ("", 0, None, False):
            event[name] = pricing.plain(Decimal(value)) if name == "cost_usd" else value
    if row.get("used") == 0:
        event["used"] = row["used"]  # nothing used is a reading
    if row.get("rest"):
        event |= orjson.loads(row["rest"])
    return events.arrange(event)


def line_of(row: Row, bare: bool = False) -> bytes:
    """A row as a line of JSON; amounts as text, or `bare` as numbers with all their digits."""
    fields = dict(row)
    for name in ("cost_usd", "priced_usd"):
        if name in fields:
            text = pricing.plain(fields[name])
            fields[name] = orjson.Fragment(text) if bare else text
    return orjson.dumps(fields) + b"\n"


def content_of(row: Row) -> bytes:
    """The content of a row: all fields but when it was priced, and by which catalogue."""
    return orjson.dumps(
        {
            name: pricing.plain(value) if type(value) is Decimal else value
            for name, value in row.items()
            if name not in _WHEN
        },
        option=orjson.OPT_SORT_KEYS,
    )


_WHEN = ("price_rank", "catalogue")


def field_rows(rows: list[Row]) -> Iterator[Row]:
    """Which fields some rows hold: in how many of them, and an example of each."""
    for name in COLUMNS:
        values = [row[name] for row in rows if name in row]
        if values:
            example = pricing.plain(values[0]) if type(values[0]) is Decimal else values[0]
            yield {"v": 1, "kind": "leaves", "field": name, "rows": len(values), "example": example}
