"""Computes eight KPIs of a span of the log, each with its numerator and denominator, and grades them.

A KPI that cannot be measured is null and names the data it needs. A grade needs enough observations. The overall grade
is the median (of two middle grades, the worse) and needs at least three. docs/score.md has the definitions.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import costs, events, pricing, projects, rollup, show, store, store_summaries, when
from tokenops.events import Event
from tokenops.jsonl import OnBadLine, ignore_line

GRADES = "ABCDF"
# How many grades an overall grade needs.
FEWEST = 3


class Kpi(NamedTuple):
    """One KPI: its name in the thresholds, its title and unit, and which direction is better."""

    name: str
    title: str
    unit: str
    lower: bool
    least: str  # the threshold that says how many observations a grade needs
    missing: str  # what would make it measurable


KPIS = (
    Kpi("fvt", "first value time", "s", True, "least_sessions", "sessions of Claude Code or Codex"),
    Kpi("teu", "token efficiency uplift", "%", False, "least_turns", "something that saves tokens: tok-guard install"),
    Kpi("sac", "spend attribution completeness", "%", False, "least_turns", "turns with a price"),
    Kpi("chr", "cache hit ratio", "%", False, "least_turns", "turns"),
    Kpi("cgr", "confirmation gate rate", "%", True, "least_prompts", "prompts of Claude Code or Codex"),
    Kpi("rgr", "regenerate rate", "%", True, "least_prompts", "prompts of Claude Code or Codex"),
    Kpi("tcs", "tool success rate", "%", False, "least_calls", "tool results of Claude Code or Codex"),
    Kpi("dar", "destructive action rate", "%", True, "least_calls", "commands run by Claude Code or Codex"),
)


class Measure(NamedTuple):
    """A number and what it was computed from; `value` None: not measurable."""

    value: float | None
    numerator: float
    denominator: float
    observations: int


UNKNOWN = Measure(None, 0, 0, 0)


def _percent(part: float, whole: float, observations: int) -> Measure:
    return Measure(100 * part / whole, part, whole, observations) if whole else UNKNOWN


def measures(
    rows: Sequence[Event], rounds: Sequence[Event], savings: Iterable[Event], rules: Mapping[str, float]
) -> dict[str, Measure]:
    """Each KPI's number. `rows`: priced sums of turns by session; `rounds`: work events; `savings`: saving events."""
    counts = _count_sums(rounds)
    turns = sum(row.get("turns", 0) for row in rows)
    context = sum(events.context_size(row) for row in rows)
    saved = [saving.get("saved_tokens", 0) for saving in savings]
    judged = counts.get("tool_results", 0) - counts.get("tool_denials", 0) - counts.get("tool_cancels", 0)
    failed = counts.get("tool_failures", 0)
    loop_prompts, loop_acknowledgements = _loops(rounds, rules["loop_times"])
    prompts = counts.get("prompts", 0) - loop_prompts
    acknowledgements = counts.get("acknowledgements", 0) - loop_acknowledgements
    again = counts.get("corrections", 0) + counts.get("regenerations", 0)
    ran = counts.get("command_calls", 0)
    return {
        "fvt": first_value(rounds),
        "teu": _percent(sum(saved), context + sum(saved), turns) if saved else UNKNOWN,
        "sac": _attribution(rows),
        "chr": _percent(sum(row.get("cache_read_tokens", 0) for row in rows), context, turns),
        "cgr": _percent(acknowledgements, prompts, prompts),
        "rgr": _percent(again, prompts, prompts),
        "tcs": _percent(judged - failed, judged, judged),
        "dar": _percent(counts.get("destructive", 0), ran, ran),
    }


def _count_sums(rounds: Iterable[Event]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for round_ in rounds:
        for name, value in round_["counts"].items():
            sums[name] = sums.get(name, 0) + value
    return sums


def _loops(rounds: Iterable[Event], most: float) -> tuple[int, int]:
    """The number of prompts that loops sent, in sessions with more than `most` that only say "go on", and how many of
    these are acknowledgements too.
    """
    sessions: dict[str, tuple[int, int]] = {}
    for round_ in rounds:
        if count := round_["counts"].get("continuations", 0):
            prompts, acknowledgements = sessions.get(round_.get("session_id", ""), (0, 0))
            both = min(count, round_["counts"].get("acknowledgements", 0))
            sessions[round_.get("session_id", "")] = (prompts + count, acknowledgements + both)
    loops = [counts for counts in sessions.values() if counts[0] > most]
    return sum(prompts for prompts, _ in loops), sum(acknowledgements for _, acknowledgements in loops)


def first_value(rounds: Iterable[Event]) -> Measure:
    """The median of the seconds from a session's first prompt to its first edit, command or answer."""
    prompts: dict[str, str] = {}
    values: dict[str, list[str]] = {}
    for round_ in rounds:
        if round_.get("sidechain"):
            continue
        session, times = round_.get("session_id", ""), round_.get("times", {})
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


def _attribution(rows: Iterable[Event]) -> Measure:
    """The share of the cost with a known project and session. Unpriced turns weigh nothing."""
    attributed = whole = Decimal(0)
    turns = 0
    for row in rows:
        cost = Decimal(row.get("cost_usd", "0"))
        whole += cost
        turns += row.get("turns", 0)
        if row.get("project") and row.get("session_id"):
            attributed += cost
    return _percent(float(attributed), float(whole), turns)


def grade(kpi: Kpi, value: float, rules: Mapping[str, float]) -> str:
    """The grade of a value: the best one whose threshold it reaches."""
    for letter in GRADES[:-1]:
        cut = rules.get(f"{kpi.name}_{letter.lower()}")
        if cut is not None and (value <= cut if kpi.lower else value >= cut):
            return letter
    return GRADES[-1]


def graded_card(measures: Mapping[str, Measure], rules: Mapping[str, float]) -> Event:
    """The eight KPIs and the overall grade, as a record."""
    kpis: Event = {}
    for kpi in KPIS:
        measure = measures[kpi.name]
        row: Event = {"title": kpi.title, "unit": kpi.unit, "value": None, "grade": None}
        row |= {"numerator": _plain(measure.numerator), "denominator": _plain(measure.denominator)}
        row["observations"] = measure.observations
        row["thresholds"] = {
            letter: rules[f"{kpi.name}_{letter.lower()}"] for letter in GRADES if f"{kpi.name}_{letter.lower()}" in rules
        }
        row["better"] = "lower" if kpi.lower else "higher"
        if measure.value is None:
            row["why"] = f"{_UNKNOWN}needs {kpi.missing}"
        else:
            row["value"] = round(measure.value, 2)
            least = int(rules[kpi.least])
            if measure.observations >= least:
                row["grade"] = grade(kpi, measure.value, rules)
            else:
                row["why"] = f"{measure.observations} observations; a grade needs {least}"
        kpis[kpi.name] = row
    return {"overall_grade": overall(row["grade"] for row in kpis.values()), "kpis": kpis}


def overall(grades: Iterable[str | None]) -> str | None:
    """The median grade, the worse of two medians; None if there are fewer than three."""
    ordered = sorted((grade for grade in grades if grade), key=GRADES.index)
    return ordered[len(ordered) // 2] if len(ordered) >= FEWEST else None


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
    for at, records in enumerate((rows, rounds, savings)):
        for record in records:
            groups.setdefault(key(record), ([], [], []))[at].append(record)
    return {name: graded_card(measures(*groups[name], rules), rules) for name in sorted(groups)}


def comparison(now: Event, before: Event | None) -> Event:
    """A card with each KPI's value in the span before and whether it got better; unknown if either value is."""
    for name, row in now["kpis"].items():
        old = before["kpis"][name] if before else {"value": None, "grade": None}
        row["before"] = {"value": old["value"], "grade": old["grade"]}
        if row["value"] is not None and old["value"] is not None:
            change = row["value"] - old["value"]
            row["change"] = round(change, 2)
            row["better_than_before"] = None if not change else (change < 0) == (row["better"] == "lower")
    return now


# A KPI's reason begins so where its value and its grade are n/a, which says the same.
_UNKNOWN = "not measurable yet; it "
_GRADE_STYLES = {"A": "good", "B": "good", "C": "warn", "D": "bad", "F": "bad"}


def table(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """Cards for people: a line for each KPI."""
    lines = [(row, name, kpi) for row in rows for name, kpi in row["kpis"].items()]
    groups = [str(row.get("group") or "") for row, _, _ in lines]
    grades = [kpi["grade"] or "n/a" for _, _, kpi in lines]
    columns = [show.Column(rows[0]["by"], groups, False, 0)] if any(groups) else []
    columns += [
        show.Column("KPI", [name.upper() for _, name, _ in lines], False, 0),
        show.Column("name", [kpi["title"] for _, _, kpi in lines], False, 2, prose=True),
        show.Column("value", [_value_text(kpi) for _, _, kpi in lines], True, 0),
        show.Column("grade", grades, False, 0, styles=[_GRADE_STYLES.get(grade, "dim") for grade in grades]),
        show.Column("from", [ratio_text(name, kpi, shape) for _, name, kpi in lines], True, 3),
    ]
    if any("before" in kpi for _, _, kpi in lines):
        better = [_CHANGES[kpi.get("better_than_before")] for _, _, kpi in lines]
        columns.append(show.Column("before", [_before_text(kpi) for _, _, kpi in lines], True, 1))
        columns.append(show.Column("change", [word for word, _ in better], False, 1, styles=[style for _, style in better]))
    whys = [kpi.get("why", "").removeprefix(_UNKNOWN if shape == "table" else "") for _, _, kpi in lines]
    columns.append(show.Column("note", whys, False, 4, prose=True))
    overall = "".join(_overall(row, shape, color) for row in rows)
    return show.table(columns, shape, color=color) + overall


def _overall(row: Event, shape: str, color: bool) -> str:
    """A card's grade in a line."""
    grade = row["overall_grade"] or "n/a, too little is measurable"
    most = show.width() if shape == "table" else None
    name = show.safe(row.get("group") or "overall")
    name = name if most is None else show.shorten(name, most - len(grade) - 2)
    return f"{name}: {show.paint(grade, _GRADE_STYLES.get(grade, ''), color)}\n"


# A word, and how it is painted, by whether a value is better than in the span before.
_CHANGES = {True: ("better", "good"), False: ("worse", "bad"), None: ("", "")}


def ratio_text(name: str, kpi: Mapping[str, Any], shape: str = "table") -> str:
    """What a KPI's number was computed from, "" for nothing: `25 / 231`, `$17.39 / $17.39`, `median of 23 sessions`.

    In CSV the exact numbers, without units.
    """
    if kpi["denominator"] and shape != "csv":
        if kpi["unit"] == "s":
            return f"median of {show.plural(kpi['denominator'], 'session')}"
        if name == "sac":
            return " / ".join(show.money(str(kpi[part])) for part in ("numerator", "denominator"))
    return f"{kpi['numerator']:,} / {kpi['denominator']:,}" if kpi["denominator"] else ""


def _value_text(kpi: Mapping[str, Any]) -> str:
    value = kpi["value"]
    if value is None:
        return "n/a"
    return f"{value:,.0f} s" if kpi["unit"] == "s" else f"{value:,.2f}%"


def _before_text(kpi: Mapping[str, Any]) -> str:
    value = kpi["before"]["value"]
    return _value_text({**kpi, "value": value})


def rows(
    folder: str,
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    now: int,
    span: tuple[int, int],
    tz: datetime.tzinfo,
    by: str = "none",
    compare: bool = False,
    only: events.Filter = events.EVERY,
    on_bad_line: OnBadLine = ignore_line,
) -> list[Event]:
    """A card per group; with `compare` also the values of the span of the same length before. Raises OSError."""
    since, until = span
    cards = _cards(folder, catalogue, rules, now, (since, until), tz, by, only, on_bad_line)
    if by == "none" and not cards:
        cards = {"": graded_card(measures([], [], [], rules), rules)}
    previous = _cards(folder, catalogue, rules, now, (2 * since - until, since), tz, by, only) if compare else {}
    result = []
    for name, card in cards.items():
        row: Event = {"v": 1, "kind": "score", "by": by, "group": name or None}
        row |= {"from": when.stamp(since), "to": when.stamp(until)}
        result.append(row | (comparison(card, previous.get(name)) if compare else card))
    return result


def _cards(
    folder: str,
    catalogue: pricing.Catalogue,
    rules: Mapping[str, float],
    now: int,
    span: tuple[int, int],
    tz: datetime.tzinfo,
    by: str,
    only: events.Filter,
    on_bad_line: OnBadLine = ignore_line,
) -> dict[str, Event]:
    since, until = map(when.stamp, span)
    buckets = when.Buckets("week", tz)
    fields = ("week",) if by == "week" else (by,) if by != "none" else ()
    grouping = rollup.Grouping(tuple(dict.fromkeys((*fields, "project", "session"))), tz, catalogue)
    turns = costs.price_rows(store_summaries.rows(folder, grouping, now, since, until, only, on_bad_line), catalogue)
    names = store.labels(folder)

    def of_kind(kind: str) -> list[Event]:
        records = (projects.relabel(record, names) for record in store.of_kind(folder, kind, since) if record["ts"] < until)
        return [record for record in records if only.takes(record)]

    return cards(turns, of_kind("work"), of_kind("saving"), rules, key_of(by, buckets.label_of))
