"""Draws the page of a session, turn by turn, and the way from all projects to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from tokenops import (
    chart_panels,
    context_report,
    costs,
    dash_findings,
    dash_html,
    dash_query,
    dash_sheet,
    dash_tables,
    show,
    trace,
    when,
)
from tokenops.answers_context import Causes
from tokenops.chart_panels import Bar, Bars
from tokenops.dash_html import Hint, Html, join, tag
from tokenops.dash_sheet import Column, Sheet
from tokenops.dash_view import Page, Story
from tokenops.events import Event

# What a prompt is made of, from below, and the fields that add up to each.
CONTEXT = {
    "cache read": ("cache_read_tokens",),
    "cache write": costs.WRITES,
    "input": ("input_tokens",),
}
# More bars than this cannot be told apart: each then stands for several turns.
MOST_BARS = 250
MOST_TURNS = 100
MOST_CAUSES = 15
TURNS = "turns-table"
HEIGHT = 150
# What was done in a round, in words: one, several.
_DONE = {
    "prompts": ("prompt", "prompts"),
    "tool_calls": ("tool call", "tool calls"),
    "edits": ("edit", "edits"),
    "command_calls": ("command", "commands"),
    "tool_failures": ("failed", "failed"),
    "repeated_reads": ("file read again", "files read again"),
    "repeated_commands": ("command run again", "commands run again"),
    "retries": ("retry", "retries"),
    "destructive": ("destructive command", "destructive commands"),
    "compactions": ("compaction", "compactions"),
}


def title(story: Story) -> str:
    """The page's title."""
    step = step_of(story)
    turn = f"turn {step['n']} - " if step else "turn - " if story.ask.turn else ""
    return (
        f"{turn}session {_short(story.trace.session)} - {story.trace.labels.get('project', dash_tables.UNKNOWN)} - TokenOps"
    )


def _short(name: str) -> str:
    """A session's name where there is little room: the beginning of a UUID, or all of a short one."""
    return name if len(name) <= dash_tables.LONGEST else name[: dash_tables.SHORT]


def step_of(story: Story) -> Event | None:
    """The turn that the page is about."""
    return next((step for step in story.trace.steps if step["id"] == story.ask.turn), None) if story.ask.turn else None


def path(page: Page) -> Html | None:
    """The way from all projects to what is shown, each level a link; None on the page of all projects."""
    ask = page.ask
    overview = {"session": "", "turn": "", "files": "", "sort": "", "rows": ""}
    links: list[tuple[str, str]] = [("All projects", dash_query.address(ask, **overview, project=""))]
    if isinstance(page, Story):
        name = str(page.trace.labels.get("project", dash_tables.UNKNOWN))
        links.append((name, dash_query.address(ask, **overview, project=name)))
        session = dash_query.address(ask, session=page.trace.session, turn="", files="")
        links.append((f"session {_short(page.trace.session)}", session))
        if ask.turn:
            step = step_of(page)
            links.append((f"turn {step['n']}" if step else "turn", ""))
    elif ask.project:
        links.append((ask.project, ""))
    else:
        return None
    *above, here = links
    items = [tag("li", tag("a", text, href=href)) for text, href in above]
    return tag(
        "nav", tag("ol", *items, tag("li", tag("span", here[0], aria_current="page"))), class_="path", aria_label="Path"
    )


def round_of(story: Story, step: Event) -> tuple[Event, Event]:
    """What was done in the round that a turn belongs to, and the turn that it began with."""
    for other in reversed(story.trace.steps[: step["n"]]):
        if "round" in other and bool(other.get("sidechain")) == bool(step.get("sidechain")):
            return other["round"], other
    return {}, step


# A session.


def sections(story: Story) -> list[Html | None]:
    """The page of a session."""
    if not story.trace.steps:
        text = "The log has no finished turn of this session."
        return [tag("section", tag("h2", "No turns"), tag("p", text), class_="card blank")]
    title = tag("h2", "Turns", " ", tag("small", f"{len(story.trace.steps):,} in all"))
    turns = dash_tables.card(turn_sheet(story), story, True, title)
    findings = None
    if story.trace.findings:
        body = dash_tables.card(
            dash_findings.findings_sheet(story.trace.findings), story, True, tag("h2", "Where tokens went to waste")
        )
        findings = tag("section", body, id="findings", aria_label="Findings")
    causes = story.causes
    return [
        _heading(story),
        _tiles(story),
        tag("section", _context(story), _cost(story), class_="pair charts", id="charts", aria_label="Turn by turn"),
        tag("section", _by_cause(story, causes), id="prompts", aria_label="Prompt by cause") if causes else None,
        _causes(story),
        findings,
        tag("section", turns, id="turns", aria_label="Turns"),
    ]


def _heading(story: Story) -> Html:
    labels, steps = story.trace.labels, story.trace.steps
    first, last = (when.local(when.moment(step["ts"]), story.tz) for step in (steps[0], steps[-1]))
    span = f"{first:%Y-%m-%d %H:%M} to {f'{last:%H:%M}' if first.date() == last.date() else f'{last:%Y-%m-%d %H:%M}'}"
    parts = [labels.get("client", dash_tables.UNKNOWN), *_models(steps)]
    name = tag("h2", "Session ", tag("code", story.trace.session))
    return tag("header", name, tag("p", ", ".join(parts), "; ", span, class_="sub"), class_="about")


def _models(steps: Sequence[Event]) -> list[str]:
    return list(dict.fromkeys(str(step["model"] or dash_tables.UNKNOWN) for step in steps))


def _tiles(story: Story) -> Html:
    """The sums of the session."""
    steps = story.trace.steps
    sums, unpriced = trace.total(steps), sum(step["cost_usd"] is None for step in steps)
    cost: Event = {"unpriced": [1] if unpriced else []} | ({"cost_usd": sums["cost_usd"]} if "cost_usd" in sums else {})
    notes = f"at list price; {unpriced:,} turns without a price" if unpriced else "at list price"
    read, context = (sum(step.get(name, 0) for step in steps) for name in ("cache_read_tokens", "context_tokens"))
    output = sum(step.get("output_tokens", 0) for step in steps)
    peak = max(steps, key=lambda step: int(step["context_tokens"]))
    done: Event = {}
    for step in steps:
        for name, value in step.get("round", {}).items():
            done[name] = done.get(name, 0) + value
    seconds = (when.moment(steps[-1]["ts"]) - when.moment(steps[0]["ts"])) // 1000
    tile = dash_tables.tile
    every = [
        tile("cost", "Cost", dash_tables.money(cost), notes),
        tile("turns", "Turns", dash_tables.count(len(steps)), "in ", when.duration(1000 * seconds, seconds=True)),
        tile("tokens", "Tokens", dash_tables.short(context + output), dash_tables.short(output), " of them output"),
        tile(
            "cache",
            "Cache hit",
            tag("data", show.percent(read, context) or dash_tables.UNKNOWN, value=read),
            "of all prompts",
        ),
        tile("peak", "Largest context", dash_tables.short(peak["context_tokens"]), "at ", _link(story, peak)),
        tile(
            "work",
            "Tool calls",
            dash_tables.count(done.get("tool_calls", 0)),
            done_text(done, ("tool_calls",)) or "no counts",
        ),
    ]
    return tag("section", tag("dl", *every, class_="tiles"), aria_label="Key numbers", id="tiles")


def _link(story: Story, step: Event) -> Html:
    return tag("a", f"turn {step['n']}", href=address(story, step))


def address(story: Story, step: Event) -> str:
    """The address of a turn."""
    return dash_query.address(story.ask, session=story.trace.session, turn=step["id"], files="")


def done_text(done: Event, without: Sequence[str] = ()) -> str:
    """What was done, in words."""
    counts = [(done[name], words) for name, words in _DONE.items() if done.get(name) and name not in without]
    return ", ".join(f"{count:,} {words[count != 1]}" for count, words in counts)


def _turns_per_bar(story: Story) -> int:
    return -(-len(story.trace.steps) // MOST_BARS)


class _Span(NamedTuple):
    """One bar: from and to by the number of turns, the turn of the largest size, and all of its turns."""

    start: int
    end: int
    step: Event
    steps: Sequence[Event]


def _spans(story: Story, size: Callable[[Event], Decimal]) -> list[_Span]:
    """The bars of a chart, each of a turn, or of several."""
    steps, each = story.trace.steps, _turns_per_bar(story)
    runs = [steps[at : at + each] for at in range(0, len(steps), each)]
    return [_Span(run[0]["n"], run[-1]["n"] + 1, max(run, key=size), run) for run in runs]


def _context(story: Story) -> Html:
    """The size of each prompt, by what it is made of."""
    bars, hints = [], []
    spans = _spans(story, lambda step: Decimal(step["context_tokens"]))
    for start, end, step, run in spans:
        parts = [sum(step.get(name, 0) for name in names) for names in CONTEXT.values()]
        bars.append(Bar(start, end, parts))
        lines = [f"turn {step['n']}: {step['context_tokens']:,} tokens", *_broke(step, run), *_part_lines(CONTEXT, parts)]
        hints.append(Hint(start, end, lines, address(story, step)))
    panel = Bars("Context per turn", tuple(CONTEXT), bars, "", HEIGHT)
    flags = _flags(spans)
    legend = dash_html.legend("chart-context", tuple(CONTEXT), flags="cache break" if flags else "")
    return _figure(story, "context", "Context per turn", panel, hints, legend, flags)


def _by_cause(story: Story, causes: Causes) -> Html:
    """The size of each prompt, by the causes that took most of all prompts, with the cache breaks in words."""
    sums: Counter[str] = Counter()
    for prompt in causes.prompts.values():
        sums.update(prompt)
    named = [cause for cause, _ in sums.most_common(chart_panels.MOST_PARTS - 1)]
    names = [context_report.plain_name({"cause": cause}, "cause") for cause in named] + ["other"] * (len(sums) > len(named))
    bars, hints = [], []
    spans = _spans(story, lambda step: Decimal(step["context_tokens"]))
    for start, end, step, run in spans:
        prompt = causes.prompts.get(step["id"], {})
        parts = [prompt.get(cause, 0) for cause in named]
        parts += [sum(prompt.values()) - sum(parts)] * (len(names) > len(named))
        bars.append(Bar(start, end, parts))
        size = f"{sum(parts):,} tokens" if any(parts) else "no prompt"
        lines = [f"turn {step['n']}: {size}", *_broke(step, run), *_part_lines(names, parts)]
        hints.append(Hint(start, end, lines, address(story, step)))
    panel = Bars("Prompt by cause", tuple(names), bars, "", HEIGHT)
    flags = _flags(spans)
    legend = dash_html.legend("chart-causes", tuple(names), flags="cache break" if flags else "")
    return _figure(story, "causes", "Prompt by cause", panel, hints, legend, flags)


def _breaks(step: Event) -> list[Event]:
    """The cache breaks at a turn."""
    return [each for each in step.get("findings", ()) if "reason" in each]


def _flags(spans: Sequence[_Span]) -> list[tuple[int, int]]:
    """The bars in which a cache broke."""
    return [(span.start, span.end) for span in spans if any(map(_breaks, span.steps))]


def _part_lines(names: Iterable[str], parts: Sequence[int]) -> list[str]:
    """The parts of a bar in words, a line each, without those that are 0."""
    return [f"{name} {value:,}" for name, value in zip(names, parts, strict=True) if value]


def _broke(shown: Event, steps: Sequence[Event]) -> Iterator[str]:
    """The cache breaks of a bar in words, with what each cost beyond reading the tokens; of another turn with its number."""
    for step in steps:
        for each in _breaks(step):
            turn = "" if step is shown else f"turn {step['n']}: "
            usd = f" for {show.money(each['cost_usd'])} more" if each.get("cost_usd") else ""
            yield f"{turn}{trace.finding_title(each)}, {each['tokens']:,} tokens paid again{usd}"


def _cost(story: Story) -> Html:
    """What each turn cost."""
    bars, hints = [], []
    for start, end, step, _ in _spans(story, lambda step: Decimal(step["cost_usd"] or 0)):
        usd = step["cost_usd"]
        bars.append(Bar(start, end, None if usd is None else [float(usd)]))
        lines = (f"turn {step['n']}: {show.money(usd) or dash_tables.UNKNOWN}",)
        hints.append(Hint(start, end, lines, address(story, step)))
    panel = Bars("Cost per turn", ("cost",), bars, "usd", HEIGHT)
    return _figure(story, "cost", "Cost per turn", panel, hints, tag("p", "list price", class_="sub"))


def causes_sheet(causes: Causes) -> Sheet:
    """What filled the context of the session, and what each part cost."""

    def count_column(kind: str, heading: str, class_: str = "n") -> Column:
        name = f"{kind}_tokens"
        return Column(
            name, heading, lambda row: row[name], lambda row: dash_tables.short(row[name]) if row[name] else "", class_
        )

    columns = (
        Column("cause", "Cause", lambda row: row["cause"], lambda row: context_report.plain_name(row, "cause")),
        Column("cost_usd", "List price", _exact_cost, _step_cost, "n"),
        count_column("entering", "Entered"),
        count_column("carrying", "Carried"),
        count_column("rewriting", "Paid again", "n some"),
        count_column("producing", "Output", "n some"),
        Column("turns", "Turns", lambda row: row["turns"], lambda row: dash_tables.count(row["turns"]), "n some"),
    )
    name = "What filled the context"
    return Sheet("causes-table", name, columns, causes.rows, lambda row: str(row["cause"]), MOST_CAUSES)


def _causes(story: Story) -> Html | None:
    """The panel about the context by cause, with its dearest part in words, and the cache breaks."""
    causes = story.causes
    if causes is None or not causes.rows:
        return None
    title = tag("h2", "What filled the context", " ", tag("small", context_report.shares_text(causes.total)))
    sentences = context_report.sentences(context_report.Sums(causes.rows, causes.total))
    words = [tag("p", text.partition("; --breaks")[0].rstrip(".") + ".", class_="sub") for text in sentences]
    body = dash_tables.card(causes_sheet(causes), story, True, tag("div", title, *words))
    return tag("section", body, id="causes", aria_label="Causes of prompt tokens")


def _figure(
    story: Story,
    name: str,
    heading: str,
    panel: Bars,
    hints: Sequence[Hint],
    note: Html,
    flags: Sequence[tuple[int, int]] = (),
) -> Html:
    count, each = len(story.trace.steps), _turns_per_bar(story)
    if each > 1:
        note = tag("div", note, tag("p", f"each bar is the largest of {each} turns", class_="sub"))
    most = chart_panels.value_text(max(sum(chart_panels.heights(bar)) for bar in panel.bars), panel.unit)
    label = f"{heading}, {count:,} turns, at most {most}"
    if flags:
        label += f", with a flag at each cache break, {sum(len(_breaks(step)) for step in story.trace.steps):,} in all"
    span = (1, count + 1)
    chart = dash_html.chart(f"chart-{name}", panel, span, story.tz, -1, label, hints, is_numbered=True, flags=flags)
    head = tag("header", tag("h2", heading), dash_sheet.csv_link(TURNS, heading, story.ask, True), note)
    return tag("figure", head, chart, class_="card chart", data_key=name)


def turn_sheet(story: Story) -> Sheet:
    """The turns of a session; each leads to its explanation."""

    def count_column(name: str, heading: str, names: Sequence[str], kind: str = "n") -> Column:
        def value(step: Event) -> int:
            return sum(step.get(field, 0) for field in names)

        return Column(name, heading, value, lambda step: dash_tables.short(value(step)) if value(step) else "", kind)

    model = dash_tables.text_column("model", "Model", kind="some")
    columns = (
        Column("n", "Turn", lambda step: step["n"], lambda step: _number(story, step)),
        dash_tables.moment_column("began", "Began", "ts", story)._replace(cell=lambda step: _began(step, story)),
        Column("id", "Id", lambda step: step["id"]),
        Column("gap_s", "After", lambda step: step["gap_s"], _gap, "n some"),
        model if len(_models(story.trace.steps)) > 1 else model._replace(cell=None),  # the heading names a single one
        count_column("context_tokens", "Context", ("context_tokens",)),
        count_column("input_tokens", "Input", ("input_tokens",), "n some"),
        count_column("cache_read_tokens", "Cache read", ("cache_read_tokens",), "n some"),
        count_column("cache_write_tokens", "Cache write", costs.WRITES, "n some"),
        count_column("output_tokens", "Output", ("output_tokens",)),
        Column("tool_calls", "Tools", lambda step: step.get("round", {}).get("tool_calls"), _tools, "some"),
        Column("cost_usd", "List price", _exact_cost, _step_cost, "n"),
    )
    return Sheet(
        "turns-table", "The turns of the session", columns, story.trace.steps, lambda step: str(step["id"]), MOST_TURNS
    )


def _exact_cost(step: Event) -> Decimal | None:
    return None if step["cost_usd"] is None else Decimal(step["cost_usd"])


def _step_cost(step: Event) -> Html:
    return dash_tables.money({"unpriced": [1]} if step["cost_usd"] is None else {"cost_usd": step["cost_usd"]})


def _number(story: Story, step: Event) -> Html:
    side = tag("small", " side", title="of a subagent or a side question") if step.get("sidechain") else None
    return join(
        tag("a", step["n"], href=address(story, step), aria_label=f"turn {step['n']}: where its numbers come from"), side
    )


def _began(step: Event, story: Story) -> Html:
    local = when.local(when.moment(step["ts"]), story.tz)
    return tag("time", f"{local:%H:%M:%S}", datetime=step["ts"], title=f"{local:%Y-%m-%d %H:%M:%S}")


def _gap(step: Event) -> object:
    return "" if step["gap_s"] is None else when.duration(round(1000 * step["gap_s"]), seconds=True)


def _tools(step: Event) -> Html:
    """What was done in the round that begins with a turn, and what it wasted."""
    notes = [tag("span", done_text(step["round"], ("prompts",)), class_="cut")] if step.get("round") else []
    notes += [tag("span", trace.finding_title(finding), class_="badge slow") for finding in step.get("findings", ())]
    return join(*notes)


def sheets(story: Story) -> list[Sheet]:
    """The tables of the page, for CSV."""
    every = [causes_sheet(story.causes)] if story.causes else []
    return [turn_sheet(story), *every, dash_findings.findings_sheet(story.trace.findings)]
