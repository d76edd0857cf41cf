"""Works out what Claude Code's settings cost: time to live, effort, memory files, MCP servers, from the user's own turns.

Each advice says what it rests on: `measured` (counted in the log), `computed` (the same turns at the other setting) or
`estimated` (from a file's size). Nothing here judges whether the work would have been as good.

The settings are Claude Code's own: `promptCacheTtl` and `subagentPromptCacheTtl` (2.1.243 and later), `effortLevel`,
`alwaysLoad` of an MCP server, `ENABLE_TOOL_SEARCH` (code.claude.com/docs/en, read in November 2026).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import context, context_costs, events, pricing, show, untrusted, when
from tokenops.context import Shares
from tokenops.events import Event

CLIENT = "claude-code"
SHORT, HOUR = "cache_write_tokens", "cache_write_1h_tokens"
MINUTE_MS = 60_000
WEEK_MS = 7 * when.DAY
EFFORTS = ("low", "medium", "high", "xhigh", "max")
# Of prose in a memory file; growths of contexts on public transcripts have a median of 2.8 (November 2026).
CHARACTERS_PER_TOKEN = 3


class Advice(NamedTuple):
    """One thing that a setting costs. `tokens`, `usd`: in a week. `key`: the setting that changes it, with its value."""

    subject: str  # cache, effort, memory, mcp
    finding: str
    basis: str  # measured, computed, estimated
    tokens: int
    usd: Decimal | None
    remedy: str
    project: str = ""
    path: str = ""
    key: tuple[str, ...] = ()
    value: Any = None


class MemoryFile(NamedTuple):
    """A file that Claude Code puts into each session's context: size in characters, and when it was last changed (ms)."""

    path: str
    characters: int
    changed: int


class Server(NamedTuple):
    """An MCP server whose tools are in each context from the start: where that is set."""

    name: str
    path: str
    key: tuple[str, ...]
    value: Any


class _Lives:
    """What the writes to the cache cost, and would have cost with the other time to live, of main chains or subagents."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {SHORT: 0, HOUR: 0}
        self.extra = {SHORT: Decimal(0), HOUR: Decimal(0)}  # of all turns with this time to live, beyond what was paid
        self.pauses = 0  # after which only the longer one helps


class Setup:
    """Watches shares, in the order of `context.shares`, and gives advice on what they show."""

    def __init__(self, catalogue: pricing.Catalogue, rules: Mapping[str, float]) -> None:
        self._catalogue, self._rules = catalogue, rules
        self._lives = {False: _Lives(), True: _Lives()}
        self._last: dict[Any, int] = {}
        self._efforts: dict[tuple[str, str], list[int]] = {}  # model and effort -> output of each turn
        self._rates: dict[str, pricing.Rate] = {}
        self._firsts: dict[str, list[tuple[int, int]]] = {}  # project -> when each session began, and the size of its base
        self._bills: dict[str, context_costs.Bill] = {}
        self._bases: dict[str, list[int]] = {}
        self.used: set[str] = set()  # MCP servers
        self.sessions: set[Any] = set()
        self.first, self.last = "9", ""

    def add(self, share: Shares) -> None:
        """Take in one turn's shares."""
        turn = share.turn
        if turn.get("client") != CLIENT or not turn.get("turns"):
            return
        self.first, self.last = min(self.first, turn["ts"]), max(self.last, turn["ts"])
        self.sessions.add(turn.get("session_id"))
        self._use(share)
        rate = self._catalogue.rate_of(turn)
        if isinstance(rate, pricing.Rate):
            self._live(share, rate)
            if "effort" in turn:
                self._efforts.setdefault((turn["model"], turn["effort"]), []).append(turn.get("output_tokens", 0))
                self._rates[turn["model"]] = rate
        if turn.get("sidechain"):
            return
        project = turn.get("project_id", "")
        if share.parent is None:
            self._firsts.setdefault(project, []).append((when.moment(turn["ts"]), events.context_size(turn)))
        self._bills.setdefault(project, context_costs.Bill(self._catalogue)).add(share)
        self._bases.setdefault(project, []).append(share.base)

    def _use(self, share: Shares) -> None:
        record = share.record or {}
        if server := share.turn.get("mcp_server"):
            self.used.add(server)
        for name in (*record.get("entered", ()), *record.get("produced", ())):
            tool = name.partition(" ")[2]
            if tool.startswith("mcp__"):
                self.used.add(tool.split("__")[1])

    def _live(self, share: Shares, rate: pricing.Rate) -> None:
        """Compare what a turn's writes cost with either time to live."""
        turn, lives = share.turn, self._lives[bool(share.turn.get("sidechain"))]
        chain = turn.get("session_id"), (share.record or {}).get("chain"), bool(turn.get("sidechain"))
        at = when.moment(turn["ts"])
        gap = at - self._last.get(chain, at)
        self._last[chain] = max(at, self._last.get(chain, 0))
        short, hour, read = turn.get(SHORT, 0), turn.get(HOUR, 0), turn.get(context.READ, 0)
        paused = 5 * MINUTE_MS < gap <= 60 * MINUTE_MS and share.parent is not None
        lives.now[SHORT] += short
        lives.now[HOUR] += hour
        # With an hour: what was written again after a pause would have been read.
        again = share.rewriting.get(SHORT, 0) if paused else 0
        with_hour = {context.READ: again, HOUR: short - again}
        # With five minutes: what was read after a pause would have been written again.
        with_short = {SHORT: hour + (read if paused and hour else 0)}
        lives.pauses += bool(again) or bool(paused and hour and read)
        lives.extra[HOUR] += _difference(rate, with_hour, {SHORT: short})
        lives.extra[SHORT] += _difference(rate, with_short, {HOUR: hour, context.READ: read if paused and hour else 0})

    @property
    def weeks(self) -> Decimal:
        """How many weeks the turns span; a week at least, so that a day is never taken for one."""
        if not self.last:
            return Decimal(1)
        return max(Decimal(when.moment(self.last) - when.moment(self.first)) / WEEK_MS, Decimal(1))

    def caches(self, settings: str) -> Iterator[Advice]:
        """Which time to live would have been cheaper, for main chains and for subagents."""
        for subagents, lives in self._lives.items():
            now = HOUR if lives.now[HOUR] > lives.now[SHORT] else SHORT
            other = SHORT if now == HOUR else HOUR
            saved = -lives.extra[other] / self.weeks
            if not lives.now[now] or saved < Decimal(str(self._rules["least_usd"])):
                continue
            names = {SHORT: "5m", HOUR: "1h"}
            subject = "subagents' caches" if subagents else "caches"
            why = (
                f"{show.plural(lives.pauses, 'pause')} of 5 to 60 minutes"
                if other == HOUR
                else "few pauses need the longer one"
            )
            yield Advice(
                "cache",
                f"{subject} live {names[now]}; with {names[other]} the same turns cost less: {why}",
                "computed",
                round(lives.now[now] / self.weeks),
                saved,
                f"set {'subagentPromptCacheTtl' if subagents else 'promptCacheTtl'} to {names[other]}",
                path=settings,
                key=("subagentPromptCacheTtl" if subagents else "promptCacheTtl",),
                value=names[other],
            )

    def efforts(self, settings: str) -> Iterator[Advice]:
        """How much more a turn writes at a high effort than at the next lower one of the same model."""
        for (model, effort), outputs in sorted(self._efforts.items()):
            lower = [
                name
                for name in EFFORTS[: EFFORTS.index(effort) if effort in EFFORTS else 0]
                if len(self._efforts.get((model, name), ())) >= self._rules["least_turns"]
            ]
            if not lower or len(outputs) < self._rules["least_turns"]:
                continue
            less = self._efforts[model, lower[-1]]
            more = statistics.fmean(outputs) - statistics.fmean(less)
            extra = round(max(more, 0) * len(outputs))
            usd = _difference(self._rates[model], {context.OUTPUT: extra}, {}) / self.weeks
            if usd < Decimal(str(self._rules["least_usd"])):
                continue
            times = statistics.fmean(outputs) / max(statistics.fmean(less), 1)
            yield Advice(
                "effort",
                f"{model} at {effort} writes {times:.1f} times as much a turn as at {lower[-1]}",
                "measured",
                round(extra / self.weeks),
                usd,
                f"set effortLevel to {lower[-1]}, and raise it for hard work",
                path=settings,
                key=("effortLevel",),
                value=lower[-1],
            )

    def memory(self, files: Mapping[str, Sequence[MemoryFile]], names: Callable[[str], str]) -> Iterator[Advice]:
        """What long memory files cost. `files`: those of each project."""
        for project, each in files.items():
            bill, bases = self._bills.get(project), self._bases.get(project)
            base = bill.lines().get(context.BASE) if bill else None
            if base is None or not bases or not any(bases):
                continue
            for file in each:
                tokens, basis = self._tokens(project, file)
                if tokens < self._rules["memory_tokens"]:
                    continue
                paid = sum(base.tokens.values())
                whole = tokens * len(bases)
                usd = base.usd * whole / paid / self.weeks if base.usd is not None and paid else None
                if usd is not None and usd < Decimal(str(self._rules["least_usd"])):
                    continue
                turns = show.plural(len(bases), "turn")
                yield Advice(
                    "memory",
                    f"{os.path.basename(file.path)}: {show.compact(tokens)} tokens in each of {turns}",
                    basis,
                    round(whole / self.weeks),
                    usd,
                    "shorten it; we never change its text",
                    project=names(project),
                    path=file.path,
                )

    def _tokens(self, project: str, file: MemoryFile) -> tuple[int, str]:
        """A memory file's tokens: by how much sessions' bases grew when it was changed, else by its size."""
        least = int(self._rules["least_sessions"])
        before = [size for at, size in self._firsts.get(project, ()) if at < file.changed]
        after = [size for at, size in self._firsts.get(project, ()) if at >= file.changed]
        estimated = file.characters // CHARACTERS_PER_TOKEN
        if len(before) >= least and len(after) >= least:
            grown = round(statistics.median(after) - statistics.median(before))
            if 0 < grown <= file.characters:
                return grown, "measured"
        return estimated, "estimated"

    def servers(self, always: Iterable[Server]) -> Iterator[Advice]:
        """MCP servers whose tools are always in the context and that no turn used."""
        for server in always:
            if server.name in self.used or not self.sessions:
                continue
            yield Advice(
                "mcp",
                f"{server.name} is in the context of each of {show.plural(len(self.sessions), 'session')}, and none used it",
                "measured",
                0,
                None,
                "load its tools when they are needed; tok-context --wire shows their size",
                path=server.path,
                key=server.key,
                value=server.value,
            )


def _difference(rate: pricing.Rate, counts: Mapping[str, int], paid: Mapping[str, int]) -> Decimal:
    """What some counts would cost beyond what was paid; 0 if a price is missing."""
    would, did = pricing.cost_of(rate, counts), pricing.cost_of(rate, paid)
    if isinstance(would, pricing.Cost) and isinstance(did, pricing.Cost):
        return would.usd - did.usd
    return Decimal(0)


def always_loaded(config: object, path: str, settings: object, settings_path: str) -> Iterator[Server]:
    """The servers of Claude Code's own configuration that are in each context from the start."""
    document = untrusted.mapping(config)
    search = untrusted.mapping(untrusted.mapping(settings).get("env")).get("ENABLE_TOOL_SEARCH")
    everything = str(search).casefold() in ("false", "0")
    groups = [((), document), *((("projects", name), value) for name, value in _items(document.get("projects")))]
    for keys, holder in groups:
        for name, server in _items(untrusted.mapping(holder).get("mcpServers")):
            path_in = (*keys, "mcpServers", name, "alwaysLoad")
            if untrusted.mapping(server).get("alwaysLoad") is True:
                yield Server(name, path, path_in, False)
            elif everything:
                yield Server(name, settings_path, ("env", "ENABLE_TOOL_SEARCH"), "true")


def _items(value: object) -> list[tuple[str, Any]]:
    return [(key, each) for key, each in untrusted.mapping(value).items() if isinstance(key, str)]


def row(advice: Advice) -> Event:
    """Advice as a record for programs."""
    record: Event = {"v": events.VERSION, "kind": "setup", "subject": advice.subject, "project": advice.project}
    record |= {"finding": advice.finding, "basis": advice.basis, "tokens_per_week": advice.tokens}
    record["usd_per_week"] = None if advice.usd is None else pricing.plain(advice.usd.quantize(Decimal("0.000001")))
    record |= {"remedy": advice.remedy, "path": advice.path, "key": ".".join(advice.key), "value": advice.value}
    return {name: value for name, value in record.items() if value not in ("", None)}


class Applied(NamedTuple):
    """A setting that was changed, and when (a canonical time)."""

    key: str
    value: str
    at: str


def verdict(turns: Iterable[Event], applied: Applied, catalogue: pricing.Catalogue, now: str) -> Event:
    """A setting's effect as before and after, over two spans of one length; not a proof, for the work changed too."""
    span = min(when.moment(now) - when.moment(applied.at), 14 * when.DAY)
    begin, end = when.stamp(when.moment(applied.at) - span), when.stamp(when.moment(applied.at) + span)
    sums: dict[str, list[Any]] = {"before": [Decimal(0), 0], "after": [Decimal(0), 0]}
    for turn in turns:
        if turn.get("client") == CLIENT and begin <= turn["ts"] < end and turn.get("turns"):
            rate = catalogue.rate_of(turn)
            cost = pricing.cost_of(rate, turn) if isinstance(rate, pricing.Rate) else None
            if isinstance(cost, pricing.Cost):
                side = sums["before" if turn["ts"] < applied.at else "after"]
                side[0] += cost.usd
                side[1] += turn["turns"]
    record: Event = {
        "v": events.VERSION,
        "kind": "verdict",
        "key": applied.key,
        "value": applied.value,
        "applied_at": applied.at,
    }
    for name, (usd, count) in sums.items():
        record[f"{name}_turns"] = count
        record[f"{name}_usd_per_turn"] = pricing.plain((usd / count).quantize(Decimal("0.000001"))) if count else None
    return record


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """Advice and verdicts for people."""
    advice = [row for row in rows if row["kind"] == "setup"]
    verdicts = [row for row in rows if row["kind"] == "verdict"]
    columns = [
        show.Column("finding", [row["finding"] for row in advice], False, 0),
        show.Column("project", [row.get("project", "") for row in advice], False, 4),
        show.counts("tokens a week", [row["tokens_per_week"] for row in advice], 3, "tokens"),
        show.amounts("a week", [row["usd_per_week"] for row in advice]),
        show.Column("basis", [row["basis"] for row in advice], False, 3),
        show.Column("what to do", [row["remedy"] for row in advice], False, 1),
    ]
    notes = [*map(_verdict_text, verdicts), *([NOTE] if advice else [])]
    laid = show.table(columns, shape, color=color) if advice else ""
    return laid + show.notes(notes, shape, color, verbose or bool(verdicts))


NOTE = (
    "At list price, of your own turns; whether the work would have been as good is not judged here. --apply changes settings"
)


def _verdict_text(row: Event) -> str:
    before, after = (row[f"{name}_usd_per_turn"] for name in ("before", "after"))
    if before is None or after is None:
        return f"{row['key']} = {row['value']} since {row['applied_at'][:10]}: not enough turns to compare yet"
    counts = f"({show.count(row['before_turns'])} and {show.count(row['after_turns'])} turns)"
    return (
        f"{row['key']} = {row['value']} since {row['applied_at'][:10]}: {show.money(before)} a turn before, "
        f"{show.money(after)} after {counts}; before and after, not a proof"
    )
