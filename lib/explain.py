"""Explains one number: every sighting of its record, what the join took from each, and its cost line by line."""

from __future__ import annotations

import functools
import os
from collections.abc import Container, Iterable, Iterator, Sequence

from tokenops import costs, events, joins, pricing, read_clients, read_contract, rollup, show, store
from tokenops.events import Event


def explanation(
    identity: str,
    folder: str,
    sources: Iterable[tuple[read_clients.Client, Sequence[str]]],
    catalogue: pricing.Catalogue,
    among: Container[str] | None = None,
) -> Event | None:
    """The explanation of one record; None if it is neither in the log (`among` some of its days) nor in a client's files.

    Keys: id, record (joined), sightings (place, in: client or log, verdict, counts), cost_lines, cost_usd or unpriced.
    """
    identity = identity.encode(errors="replace").decode()  # a record has "?" where an argument is not text
    clients = list(_in_files(identity, sources))
    sightings = [*clients, *_in_log(identity, folder, among)]
    if not sightings:
        return None
    counted = [event for _, event, why in sightings if not why]
    # If the original is gone, its copies count.
    joined = functools.reduce(joins.join, counted or [event for _, event, _ in sightings])
    result: Event = {"v": 1, "kind": "explanation", "id": identity, "record": joined}
    result["sightings"] = list(_verdicts(sightings, joined, len(clients)))
    if joined["kind"] == "turn":
        result |= cost_fields(joined, catalogue)
    return result


Seen = tuple[str, Event, str]


def _in_files(identity: str, sources: Iterable[tuple[read_clients.Client, Sequence[str]]]) -> Iterator[Seen]:
    intake = read_contract.Intake()
    for client, paths in sources:
        for path, event, why in client.reader().sightings(paths, identity, intake):
            event.pop("project_id", None)  # a hash without the salt
            yield path, event, why


def _in_log(identity: str, folder: str, among: Container[str] | None) -> Iterator[Seen]:
    for location, event in store.sightings_of(folder, identity, among):
        yield location, event, ""


def _verdicts(sightings: list[Seen], joined: Event, clients: int) -> Iterator[Event]:
    """Each sighting with its verdict; the first `clients` of them are in clients' files, the others in the log."""
    usage, attribution = joins.usage_of(joined), joins.attribution_of(joined)
    taken = False
    for at, (location, event, why) in enumerate(sightings):
        verdict = why or "unchanged"
        if not why and event["kind"] == "turn":
            verdict = "; ".join(_verdict(event, usage, attribution, joined["ts"], taken))
            taken = taken or _same(joins.usage_of(event), usage)
        yield {
            "place": location,
            "in": "client" if at < clients else "log",
            "source": event.get("source"),
            "ts": event["ts"],
            "verdict": verdict,
        } | {name: event[name] for name in ("model", *events.SUMS) if name in event}


def _verdict(event: Event, usage: Event, attribution: Event, began: str, taken: bool) -> Iterator[str]:
    mine = joins.usage_of(event)
    if _same(mine, usage):
        yield "a copy with the same counts" if taken else "its counts are used"
    else:
        yield f"its counts are not used: {_reason(mine, usage)}"
    ours, theirs = ({**block, "project_id": None} for block in (joins.attribution_of(event), attribution))
    if ours != theirs:
        ranks = zip(joins.attribution_rank(ours), joins.attribution_rank(theirs), joins.ATTRIBUTION_RANKS, strict=True)
        yield f"its project and session are not used: {next((name for a, b, name in ranks if a != b), '')}"
    if event["ts"] != began:
        yield f"another copy began earlier ({began})"


def _same(a: Event, b: Event) -> bool:
    apart = dict.fromkeys(("sidechain", "source", "revision"))
    return a | apart == b | apart


def _reason(lost: Event, won: Event) -> str:
    for a, b, name in zip(joins.usage_rank(lost), joins.usage_rank(won), joins.USAGE_RANKS, strict=True):
        if a != b:
            return name
    return "the same"


def cost_record(event: Event, catalogue: pricing.Catalogue) -> Event:
    """What one record cost, as a record for programs; of a row its rate counts, of an event its moment and its size."""
    names = ("id", "ts", "provider", "model", "request_model", "tier", "geo", "search_context")
    return {"v": 1, "kind": "cost"} | {name: event[name] for name in names if name in event} | cost_fields(event, catalogue)


def cost_fields(event: Event, catalogue: pricing.Catalogue) -> Event:
    """What the record cost: reported, or line by line at the rate in force, or why it has no price."""
    rate = catalogue.rate_of(event)
    if "cost_usd" in event and (event.get("cost_source") != rollup.CLIENT or isinstance(rate, pricing.Unpriced)):
        reported = {"cost_usd": event["cost_usd"], "cost_source": event.get("cost_source", "reported")}
        return reported | costs.credits_of(event.get("provider", ""), event["cost_usd"])
    cost = pricing.cost_of(rate, event) if isinstance(rate, pricing.Rate) else rate
    if isinstance(cost, pricing.Unpriced):
        return {"unpriced": cost.reason}
    assert isinstance(rate, pricing.Rate)
    lines = [
        {
            "class": name,
            "count": count,
            "rate": price,
            "per": 1000 if name in _FEES else 1_000_000,
            "usd": pricing.plain(usd),
        }
        for name, count, price, usd in cost.lines
    ]
    fields: Event = {"rate": rate.name, "rate_sources": list(rate.source), "cost_lines": lines}
    fields |= {name: value for name, value in (("captured", rate.captured), ("confidence", rate.confidence)) if value}
    fields |= {"cost_usd": pricing.plain(cost.usd), "cost_source": "estimated", "catalogue": catalogue.digest}
    fields |= costs.credits_of(event.get("provider", ""), fields["cost_usd"])
    return fields | ({"notes": list(cost.notes)} if cost.notes else {})


_FEES = ("web_searches", "requests")


def text(explanation: Event) -> str:
    """The explanation for people."""
    record = explanation["record"]
    shown = ("kind", "ts", "source", "agent_id", "session_id", "provider", "model", "tier", "geo", "usage")
    names = (show.safe(f"  {name:<12} {record[name]}") for name in shown if name in record)
    parts = [show.safe(explanation["id"]), *names, "", "seen in"]
    home = os.path.expanduser("~")
    for sighting in explanation["sightings"]:
        counts = ", ".join(
            f"{name.removesuffix('_tokens')} {sighting[name]:,}" for name in events.TOKENS if name in sighting
        )
        location = sighting["place"]
        if sighting["in"] == "log":
            location = f"the log, {store.place_in_log(location)}"
        elif location.startswith(f"{home}/"):
            location = f"~{location.removeprefix(home)}"
        parts += [f"  {location}", f"    {counts or 'no counts'}: {sighting['verdict']}"]
    if any(name in explanation for name in ("cost_lines", "unpriced", "cost_usd")):
        parts += ["", *cost_lines(explanation)]
    return "\n".join(parts)


def cost_text(cost: Event) -> str:
    """The cost of a record for people, under the record's name."""
    heading = f"{cost['id']}, {cost['ts'][:19]}, {cost.get('model', 'unknown model')}"
    return "\n".join([show.safe(heading), *cost_lines(cost)]) + "\n\n"


def cost_lines(cost: Event) -> Iterator[str]:
    """What a record cost, class by class, for people."""
    if "cost_lines" in cost:
        yield f"cost at {cost['rate']} (list price)"
        cells = [
            [line["class"], f"{line['count']:,}", f"x ${line['rate']}", f"/ {line['per']:,}", f"= ${line['usd']}"]
            for line in cost["cost_lines"]
        ]
        widths = [max(len(row[at]) for row in cells) for at in range(5)] if cells else []
        for row in cells:
            yield "  " + " ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        yield from (f"  total ${cost['cost_usd']}", *(f"  source: {url}" for url in cost["rate_sources"]))
        if "captured" in cost:
            yield f"  read last on {cost['captured']}, confidence {cost.get('confidence', 'unknown')}"
        yield from (f"  note: {note}" for note in cost.get("notes", ()))
    elif "unpriced" in cost:
        yield f"no cost: {cost['unpriced']}"
    else:
        who = "the client estimated" if cost["cost_source"] == rollup.CLIENT else "the vendor reported"
        yield f"cost ${cost['cost_usd']}, as {who} it"
    if "credits" in cost:
        yield f"  in the vendor's own unit: {cost['credits']} {cost['credits_unit']}"
