"""Draws the page of one turn: where its cost and its counts come from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal

from tokenops import dash_query, dash_sheet, dash_steps, dash_tables, events, rollup, show, store, trace_waste, when
from tokenops.dash_html import Html, join, tag
from tokenops.dash_sheet import Column, Sheet
from tokenops.dash_view import Story
from tokenops.events import Event


def sections(story: Story) -> list[Html | None]:
    """The page of a turn."""
    explained = story.explained or {}
    return [_turn_heading(story), _turn_tiles(story), _price(story, explained), _sightings(story, explained)]


def _turn_heading(story: Story) -> Html:
    step, record = dash_steps.step_of(story), (story.explained or {})["record"]
    local = when.local(when.moment(record["ts"]), story.tz)
    parts = [f"{local:%Y-%m-%d %H:%M:%S}", record.get("provider", ""), record.get("model", dash_tables.UNKNOWN)]
    parts += [f"{name} {record[name]}" for name in ("tier", "geo") if name in record]
    heading = tag("h2", f"Turn {step['n']} " if step else "Turn ", tag("code", story.ask.turn))
    line = tag("p", ", ".join(filter(None, parts)), class_="sub")
    return tag("header", tag("div", heading, line), _neighbours(story, step), class_="about")


def _neighbours(story: Story, step: Event | None) -> Html | None:
    """The turns before and after."""
    if step is None:
        return None
    steps, at = story.trace.steps, step["n"] - 1
    before = tag("a", "\u2190 turn before", href=dash_steps.address(story, steps[at - 1]), rel="prev") if at else None
    after = (
        tag("a", "turn after \u2192", href=dash_steps.address(story, steps[at + 1]), rel="next")
        if at + 1 < len(steps)
        else None
    )
    return tag("p", before, " ", after, class_="steps-nav")


def _turn_tiles(story: Story) -> Html:
    record, explained, step = (story.explained or {})["record"], story.explained or {}, dash_steps.step_of(story)
    cost: Event = {"cost_usd": explained["cost_usd"]} if "cost_usd" in explained else {"unpriced": [1]}
    context, read = events.context_size(record), record.get("cache_read_tokens", 0)
    tile = dash_tables.tile
    every = [
        tile("cost", "Cost", dash_tables.money(cost), _source(explained)),
        tile(
            "context",
            "Context",
            dash_tables.count(context),
            f"{show.percent(read, context) or 'nothing'} read from the cache",
        ),
        tile("output", "Output", dash_tables.count(record.get("output_tokens", 0)), _thinking(record)),
    ]
    if step is not None:
        counts, first = dash_steps.round_of(story, step)
        done, *others = dash_steps.done_text(counts).split(", ")
        where = "" if first is step else f"in the round since turn {first['n']}"
        notes = ", ".join(filter(None, [*others, where]))
        gap = "first turn" if step["gap_s"] is None else when.duration(round(1000 * step["gap_s"]), seconds=True)
        every.append(tile("gap", "After the turn before", tag("span", gap)))
        every.append(tile("work", "Done in this round", tag("span", done or "nothing counted"), notes))
        for finding in step.get("findings", ()):
            usd = finding.get("cost_usd")
            extra = f"; {show.money(usd)} more than necessary" if usd else ""
            kind = trace_waste.KINDS[finding["finding"]]
            value = tag("span", f"{finding['tokens']:,}", tag("small", " tokens"))
            every.append(tile(finding["finding"], kind.title.capitalize(), value, f"{kind.remedy}{extra}", kind="warned"))
    return tag("section", tag("dl", *every, class_="tiles"), aria_label="Key numbers", id="tiles")


def _thinking(record: Event) -> str:
    return f"{record['reasoning_tokens']:,} of them reasoning" if record.get("reasoning_tokens") else "tokens"


def _source(explained: Event) -> str:
    """Where a cost comes from, in a few words."""
    if "cost_lines" in explained:
        return "list price, computed below"
    if "cost_usd" in explained:
        return "as the client estimated it" if explained.get("cost_source") == rollup.CLIENT else "as the vendor reported it"
    return str(explained.get("unpriced", "without a price"))


def price_sheet(explained: Event) -> Sheet:
    """What a turn cost, class by class."""
    columns = (
        Column(
            "class",
            "Class",
            lambda line: line["class"],
            lambda line: str(line["class"]).removesuffix("_tokens").replace("_", " "),
        ),
        Column("count", "Count", lambda line: line["count"], lambda line: dash_tables.count(line["count"]), "n"),
        Column("rate", "Rate", lambda line: Decimal(line["rate"]), _rate, "n"),
        Column("per", "Per", lambda line: line["per"]),
        Column("usd", "Cost", lambda line: Decimal(line["usd"]), _exact_usd, "n"),
    )
    return Sheet(
        "price-table",
        "What the turn cost, line by line",
        columns,
        explained.get("cost_lines", ()),
        lambda line: str(line["class"]),
    )


def _rate(line: Event) -> Html:
    per = "1M" if line["per"] == 1_000_000 else f"{line['per']:,}"
    return join(tag("data", f"${line['rate']}", value=line["rate"]), tag("small", f" per {per}"))


def _exact_usd(line: Event) -> Html:
    return tag("data", f"${line['usd']}", value=line["usd"])


def _price(story: Story, explained: Event) -> Html:
    """Where the cost comes from."""
    lines = [tag("p", text, class_="sub") for text in explained.get("notes", ())]
    if "cost_lines" in explained:
        sheet = price_sheet(explained)
        total = tag(
            "p",
            "Total ",
            tag("b", tag("data", f"${explained['cost_usd']}", value=explained["cost_usd"])),
            ", to the last digit",
            class_="total",
        )
        body = join(dash_sheet.table(sheet, story.ask, True), total)
        head = tag(
            "header", tag("h2", "Where the cost comes from"), dash_sheet.csv_link(sheet.name, sheet.caption, story.ask, True)
        )
        lines = [*_rate_source(explained), *lines]
    else:
        body, head = tag("p", _sentence(explained)), tag("h2", "Where the cost comes from")
    command = tag("p", "The same: ", tag("code", f"tok-price explain {story.ask.turn}"), class_="sub")
    return tag(
        "section", tag("div", head, body, *lines, command, class_="card"), id="price", aria_label="Where the cost comes from"
    )


def _sentence(explained: Event) -> str:
    if "cost_usd" in explained:
        return f"${explained['cost_usd']}, {_source(explained)}."
    return f"No cost: {explained.get('unpriced', 'this record is not a turn')}."


def _rate_source(explained: Event) -> Iterator[Html]:
    """Whose price it is, and when it was read."""
    parts = [f"Price of {explained['rate']}"]
    parts += [f"last read on {explained['captured']}"] if "captured" in explained else []
    parts += [f"confidence {explained['confidence']}"] if "confidence" in explained else []
    yield tag("p", ", ".join(parts), class_="sub")
    for url in explained["rate_sources"]:
        is_link = str(url).startswith("https://")
        link = tag("a", url, href=url, rel="noopener noreferrer", target="_blank") if is_link else url
        yield tag("p", link, class_="sub")


def sightings_sheet(explained: Event) -> Sheet:
    """Each place where the turn was seen, and what was taken from it."""
    rows = [{**seen, "number": number} for number, seen in enumerate(explained.get("sightings", ()), 1)]

    def tokens(seen: Event) -> str:
        counts = (
            f"{name.removesuffix('_tokens').replace('_', ' ')} {seen[name]:,}" for name in events.TOKENS if name in seen
        )
        return ", ".join(counts) or "no counts"

    columns = (
        Column("place", "Seen in", _location, lambda seen: tag("span", _location(seen), class_="place")),
        Column(
            "source", "Source", lambda seen: str(seen.get("source", "")), lambda seen: str(seen.get("source", "")), "some"
        ),
        Column("counts", "Counts", tokens, tokens),
        Column("verdict", "Used for the number", lambda seen: seen["verdict"], lambda seen: seen["verdict"]),
    )
    return Sheet("sightings-table", "Where the turn was seen", columns, rows, lambda seen: str(seen["number"]))


def _location(seen: Event) -> str:
    """A place, shorter than its path."""
    if seen["in"] == "log":
        return f"the log, {store.place_in_log(seen['place'])}"
    home = os.path.expanduser("~")
    return f"~{seen['place'].removeprefix(home)}" if seen["place"].startswith(f"{home}/") else str(seen["place"])


def _sightings(story: Story, explained: Event) -> Html:
    """Where the counts come from."""
    sheet = sightings_sheet(explained)
    head = tag(
        "header", tag("h2", "Where the counts come from"), dash_sheet.csv_link(sheet.name, sheet.caption, story.ask, True)
    )
    more = None
    if not story.ask.files:
        href = dash_query.address(story.ask, files="yes")
        more = tag("p", tag("a", "Look in the clients' own files too", href=href), " (reads all of them)", class_="sub")
    command = tag("p", "The same: ", tag("code", f"tok-log explain {story.ask.turn}"), class_="sub")
    body = tag("div", head, dash_sheet.table(sheet, story.ask, True), more, command, class_="card")
    return tag("section", body, id="sightings", aria_label="Where the counts come from")


def sheets(story: Story) -> list[Sheet]:
    """The tables of the page, for CSV."""
    explained = story.explained or {}
    return [price_sheet(explained), sightings_sheet(explained)]
