"""Eight KPIs of a span of the log, each with what it was counted from, graded where there is enough data.

Nothing is made up: what cannot be measured is null, and says what would make it measurable. The overall grade is the
middle one of those given, the worse of two middles, and there is none of fewer than three. docs/score.md has the
definitions.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import costs, events, pricing, projects, rollup, show, store, store_summaries, when
from tokenops.events import Event

GRADES = "ABCDF"
# Grades that are needed for an overall one.
FEWEST = 3


class Kpi(NamedTuple):
    """One of the eight: its name in the thresholds, what it is of, and which way is better."""

    name: str
    title: str
    unit: str
    lower: bool
    least: str  # the threshold of how many observations make a grade
    missing: str  # what would make it measurable


KPIS = (
    Kpi("fvt", "first value time", "s", True, "least_sessions", "sessions of Claude Code or Codex: tok-sync"),
    Kpi("teu", "token efficiency uplift", "%", False, "least_turns", "something that saves tokens: tok-guard install"),
    Kpi("sac", "spend attribution completeness", "%", False, "least_turns", "turns with a price: tok-sync"),
    Kpi("chr", "cache hit ratio", "%", False, "least_turns", "turns: tok-sync"),
    Kpi("cgr", "confirmation gate rate", "%", True, "least_prompts", "prompts of Claude Code or Codex: tok-sync"),
    Kpi("rgr", "regenerate rate", "%", True, "least_prompts", "prompts of Claude Code or Codex: tok-sync"),
    Kpi("tcs", "tool success rate", "%", False, "least_calls", "tool results of Claude Code or Codex: tok-sync"),
    Kpi("dar", "destructive action rate", "%", True, "least_calls", "commands run by Claude Code or Codex: tok-sync"),
)


class Measure(NamedTuple):
    """A number and what it came from; `value` None: it cannot be told."""

    value: float | None
    numerator: float
    denominator: float
    observations: int


UNKNOWN = Measure(None, 0, 0, 0)


def _percent(part: float, whole: float, observations: int) -> Measure:
    return Measure(100 * part / whole, part, whole, observations) if whole else UNKNOWN


def measures(rows: Sequence[Event], rounds: Sequence[Event], savings: Iterable[Event]) -> dict[str, Measure]:
    """Each KPI's number. `rows`: priced sums of turns by session; `rounds`: work events; `savings`: what was spared."""
    counts = _summed(rounds)
    turns = sum(row.get("turns", 0) for row in rows)
    context = sum(events.context_size(row) for row in rows)
    saved = [one.get("saved_tokens", 0) for one in savings]
    judged = counts.get("tool_results", 0) - counts.get("tool_denials", 0) - counts.get("tool_cancels", 0)
    failed = counts.get("tool_failures", 0)
    prompts = counts.get("prompts", 0) - _loops(rounds)
    again = counts.get("corrections", 0) + counts.get("regenerations", 0)
    ran = counts.get("command_calls", 0)
    return {
        "fvt": first_value(rounds),
        "teu": _percent(sum(saved), context + sum(saved), turns) if saved else UNKNOWN,
        "sac": _attributed(rows),
        "chr": _percent(sum(row.get("cache_read_tokens", 0) for row in rows), context, turns),
        "cgr": _percent(counts.get("acknowledgements", 0), prompts, prompts),
        "rgr": _percent(again, prompts, prompts),
        "tcs": _percent(judged - failed, judged, judged),
        "dar": _percent(counts.get("destructive", 0), ran, ran),
    }


def _summed(rounds: Iterable[Event]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for one in rounds:
        for name, value in one["counts"].items():
            sums[name] = sums.get(name, 0) + value
    return sums


# So many prompts that only say "go on" in one session are a loop at work, not somebody at a gate.
LOOP = 5


def _loops(rounds: Iterable[Event]) -> int:
    """The prompts of loops that run by themselves."""
    sessions: dict[str, int] = {}
    for one in rounds:
        if told := one["counts"].get("continuations", 0):
            sessions[one.get("session_id", "")] = sessions.get(one.get("session_id", ""), 0) + told
    return sum(count for count in sessions.values() if count > LOOP)


def first_value(rounds: Iterable[Event]) -> Measure:
    """The middle of the seconds from a session's first prompt to its first edit, command or answer."""
    prompts: dict[str, str] = {}
    values: dict[str, list[str]] = {}
    for one in rounds:
        if one.get("sidechain"):
            continue
        session, times = one.get("session_id", ""), one.get("times", {})
        if "prompt" in times:
            prompts[session] = min(prompts.get(session, "9"), times["prompt"])
        values.setdefault(session, []).extend(times[name] for name in ("reply", "edit", "command") if name in times)
    waits = []
    for session, began in prompts.items():
        after = min((ts for ts in values.get(session, ()) if ts >= began), default=None)
        if after is not None:
            waits.append((when.moment(after) - when.moment(began)) / 1000)
    if not waits:
        return UNKNOWN
    waits.sort()
    middle = len(waits) // 2
    value = waits[middle] if len(waits) % 2 else (waits[middle - 1] + waits[middle]) / 2
    return Measure(value, sum(waits), len(waits), len(waits))


def _attributed(rows: Iterable[Event]) -> Measure:
    """The share of the cost that a project and a session are known for. Unpriced turns weigh nothing."""
    known = whole = Decimal(0)
    turns = 0
    for row in rows:
        cost = Decimal(row.get("cost_usd", "0"))
        whole += cost
        turns += row.get("turns", 0)
        if row.get("project") and row.get("session_id"):
            known += cost
    return _percent(float(known), float(whole), turns)


def grade(kpi: Kpi, value: float, rules: Mapping[str, float]) -> str:
    """The grade of a value: the best whose threshold it reaches."""
    for letter in GRADES[:-1]:
        cut = rules.get(f"{kpi.name}_{letter.lower()}")
        if cut is not None and (value <= cut if kpi.lower else value >= cut):
            return letter
    return GRADES[-1]


def graded_card(found: Mapping[str, Measure], rules: Mapping[str, float]) -> Event:
    """The eight KPIs and the overall grade, as a record."""
    made: Event = {}
    for kpi in KPIS:
        measure = found[kpi.name]
        row: Event = {"title": kpi.title, "unit": kpi.unit, "value": None, "grade": None}
        row |= {"numerator": _plain(measure.numerator), "denominator": _plain(measure.denominator)}
        row["observations"] = measure.observations
        row["thresholds"] = {
            letter: rules[f"{kpi.name}_{letter.lower()}"] for letter in GRADES if f"{kpi.name}_{letter.lower()}" in rules
        }
        row["better"] = "lower" if kpi.lower else "higher"
        if measure.value is None:
            row["why"] = f"not measurable yet; it needs {kpi.missing}"
        else:
            row["value"] = round(measure.value, 2)
            least = int(rules[kpi.least])
            if measure.observations >= least:
                row["grade"] = grade(kpi, measure.value, rules)
            else:
                row["why"] = f"{measure.observations} observations; a grade needs {least}"
        made[kpi.name] = row
    return {"overall_grade": overall(row["grade"] for row in made.values()), "kpis": made}


def overall(grades: Iterable[str | None]) -> str | None:
    """The middle grade, the worse of two middles; None of fewer than three."""
    given = sorted((one for one in grades if one), key=GRADES.index)
    return given[len(given) // 2] if len(given) >= FEWEST else None


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 6)


BY = ("none", "project", "agent", "client", "week")
_FIELD = {"project": "project", "agent": "agent_id", "client": "client"}


def key_of(by: str, week: Callable[[str], str]) -> Callable[[Event], str]:
    """A function from a record or row to its group."""
    if by == "none":
        return lambda record: ""
    if by == "week":
        return lambda record: str(record.get("bucket") or week(record["ts"]))
    return lambda record: str(record.get(_FIELD[by], "unknown"))


def cards(
    rows: Iterable[Event],
    rounds: Iterable[Event],
    savings: Iterable[Event],
    rules: Mapping[str, float],
    key: Callable[[Event], str],
) -> dict[str, Event]:
    """Group -> its card, in order of the groups."""
    groups: dict[str, tuple[list[Event], list[Event], list[Event]]] = {}
    for at, found in enumerate((rows, rounds, savings)):
        for one in found:
            groups.setdefault(key(one), ([], [], []))[at].append(one)
    return {name: graded_card(measures(*groups[name]), rules) for name in sorted(groups)}


def compared(now: Event, before: Event | None) -> Event:
    """A card with, of each KPI, its value in the span before and whether it got better; unknown where either is."""
    for name, row in now["kpis"].items():
        old = before["kpis"][name] if before else {"value": None, "grade": None}
        row["before"] = {"value": old["value"], "grade": old["grade"]}
        if row["value"] is not None and old["value"] is not None:
            change = row["value"] - old["value"]
            row["change"] = round(change, 2)
            row["better_than_before"] = None if not change else (change < 0) == (row["better"] == "lower")
    return now


def table(rows: Sequence[Event], shape: str, color: bool) -> str:
    """Cards for people: a line for each KPI."""
    lines = [(row, name, kpi) for row in rows for name, kpi in row["kpis"].items()]
    whose = [str(row.get("group") or "") for row, _, _ in lines]
    columns = [show.Column(rows[0]["by"], whose, number=False)] if any(whose) else []
    columns += [
        show.Column("", [name.upper() for _, name, _ in lines], number=False),
        show.Column("", [kpi["title"] for _, _, kpi in lines], number=False),
        show.Column("value", [_shown(kpi) for _, _, kpi in lines]),
        show.Column("grade", [kpi["grade"] or "n/a" for _, _, kpi in lines], number=False),
        show.Column(
            "from", [f"{kpi['numerator']:,} / {kpi['denominator']:,}" if kpi["denominator"] else "" for _, _, kpi in lines]
        ),
    ]
    if any("before" in kpi for _, _, kpi in lines):
        columns.append(show.Column("before", [_before(kpi) for _, _, kpi in lines]))
    columns.append(show.Column("", [kpi.get("why", "") for _, _, kpi in lines], number=False))
    told = [f"{row.get('group') or 'overall'}: {row['overall_grade'] or 'n/a, too little is measurable'}\n" for row in rows]
    return show.table(columns, shape, color=color) + "".join(told)


def _counted(kpi: Mapping[str, Any]) -> str:
    return f"{kpi['numerator']:,} / {kpi['denominator']:,}" if kpi["denominator"] else ""


def _shown(kpi: Mapping[str, Any]) -> str:
    value = kpi["value"]
    if value is None:
        return "n/a"
    return f"{value:,.0f} s" if kpi["unit"] == "s" else f"{value:,.2f}%"


def _before(kpi: Mapping[str, Any]) -> str:
    value = kpi["before"]["value"]
    return _shown({**kpi, "value": value})


def rows(
    folder: str,
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    now: int,
    span: tuple[int, int],
    tz: datetime.tzinfo,
    by: str = "none",
    compare: bool = False,
    wanted: events.Filter = events.EVERY,
) -> list[Event]:
    """A card per group; with `compare` beside the span of the same length before. Raises OSError."""
    since, until = span
    found = _cards(folder, catalogue, rules, now, (since, until), tz, by, wanted)
    if by == "none" and not found:
        found = {"": graded_card(measures([], [], []), rules)}
    before = _cards(folder, catalogue, rules, now, (2 * since - until, since), tz, by, wanted) if compare else {}
    made = []
    for name, card in found.items():
        row: Event = {"v": 1, "kind": "score", "by": by, "group": name or None}
        row |= {"from": when.stamp(since), "to": when.stamp(until)}
        made.append(row | (compared(card, before.get(name)) if compare else card))
    return made


def _cards(
    folder: str,
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    now: int,
    span: tuple[int, int],
    tz: datetime.tzinfo,
    by: str,
    wanted: events.Filter,
) -> dict[str, Event]:
    since, until = map(when.stamp, span)
    buckets = when.Buckets("week", tz)
    fields = ("week",) if by == "week" else (by,) if by != "none" else ()
    plan = rollup.Plan(tuple(dict.fromkeys((*fields, "project", "session"))), tz, catalogue)
    turns = costs.priced(store_summaries.rows(folder, plan, now, since, until, wanted), catalogue)
    names = store.labels(folder)

    def of(kind: str) -> list[Event]:
        found = (projects.relabelled(one, names) for one in store.of_kind(folder, kind, since) if one["ts"] < until)
        return [one for one in found if wanted.takes(one)]

    return cards(turns, of("work"), of("saving"), rules, key_of(by, buckets.of))
