"""Answers what a session will take of a limit: which past runs are like it, rows for programs, and sentences for people.

Also the table of tok-backtest that scores these estimates. Pure.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenops import headroom, limit_estimate, limit_runs, limit_view, limit_windows, show, when
from tokenops.events import Event
from tokenops.headroom import State
from tokenops.limit_estimate import MEDIAN, OURS, SPREAD, Past, Scored
from tokenops.limit_runs import Labels, Part, Run
from tokenops.limit_windows import MINUTE, Series

ANY = "any"
FIELDS = ("project", "branch", "ticket", "client", "model")
NEEDED = limit_estimate.LEAST + limit_estimate.JUDGED
# The days of the past that count.
DAYS = 35


class Wrong(ValueError):
    """A kind that is not understood, or a session that is not in the log; with what to write instead."""


class Kind(NamedTuple):
    """Which runs count: their words for people, and whether one with some labels does."""

    text: str
    takes: Callable[[Labels], bool]


EVERY = Kind("any session", lambda _: True)


def kinds(text: str, parts: Sequence[Part], ticket: Callable[[str], str]) -> list[Kind]:
    """The kinds that a text means, the narrowest first: the first with enough runs is used. Raises Wrong.

    `any`; FIELD=VALUE; or the beginning of a session's id: sessions like it have its project and models, or one of these.
    `ticket`: a branch -> the ticket that its name states, "" if none.
    """
    name, sign, value = text.partition("=")
    if text == ANY:
        return [EVERY]
    if sign:
        if name not in FIELDS or not value:
            raise Wrong(
                f"{show.short_text(text)!r} is no kind of session; write {ANY}, {'=, '.join(FIELDS)}= or a session id"
            )
        return [_of_field(name, value, ticket)]
    named = {part.session: part.labels for part in parts if part.session.startswith(text)}
    if text in named:
        named = {text: named[text]}
    if len(named) != 1:
        which = "no session id begins" if not named else f"{len(named)} session ids begin"
        more = f"; write {ANY}, or {'=, '.join(FIELDS)}= with a name" if not named else "; give more characters"
        raise Wrong(f"{which} with {show.short_text(text)!r} in the last {DAYS} days{more}")
    return list(_like(next(iter(named.values()))))


def _of_field(name: str, value: str, ticket: Callable[[str], str]) -> Kind:
    checks: dict[str, Callable[[Labels], bool]] = {
        "project": lambda labels: value in (labels.project, labels.project_id, labels.project.rpartition("/")[2]),
        "branch": lambda labels: value == labels.branch,
        "ticket": lambda labels: value == ticket(labels.branch),
        "client": lambda labels: value == labels.client,
        "model": lambda labels: labels.family == limit_windows.family(value.lower()),
    }
    return Kind(f"{name} {value}", checks[name])


def of_project(project_id: str, project: str) -> list[Kind]:
    """The kinds of a session in a project: those of the project, or any."""
    return [Kind(f"project {project}", lambda labels: labels.project_id == project_id), EVERY]


def _like(own: Labels) -> Iterator[Kind]:
    """The kinds of a session that is known."""
    project, family = (own.project_id or own.project), own.family
    named, of = own.project or own.project_id, limit_windows.family(own.family)
    if project and family:
        yield Kind(
            f"project {named}, {of}",
            lambda labels: (labels.project_id or labels.project) == project and labels.family == family,
        )
    if project:
        yield Kind(f"project {named}", lambda labels: (labels.project_id or labels.project) == project)
    if family:
        yield Kind(of, lambda labels: labels.family == family)
    yield EVERY


# Rows.


def rows(
    states: Iterable[State],
    series: Sequence[Series],
    parts: Sequence[Part],
    chosen: Sequence[Kind],
    now: int,
    model: str = "",
) -> list[Event]:
    """A row for each window of a plan, of each account the one with the highest chance of a cutoff first.

    Keys: v, kind (estimate), provider, account, window, scope, like, runs, since, percent {p10, p50, p90} or null, used,
    resets_at, resets_in, p_cutoff or null, skill {runs, over_median, over_spread, coverage}, note (why nothing is said),
    as_of. `model`: the one that will be called: windows of other models are left out.
    """
    by_key = {each.key: each for each in series}
    result = []
    for state in states:
        each = by_key.get(state.key)
        if state.minutes and each is not None and headroom.applies(state, model):
            result.append(_row(state, each, parts, chosen, now))
    result.sort(key=lambda row: (row["provider"], row.get("account", ""), -(row["p_cutoff"] or 0.0)))
    return result


def _row(state: State, series: Series, parts: Sequence[Part], chosen: Sequence[Kind], now: int) -> Event:
    every = [run for run in limit_runs.runs(parts, series) if run.known_at <= now]
    kind, mine = chosen[-1], list[Run]()
    for kind in chosen:
        mine = [run for run in every if kind.takes(run.labels)]
        if len(mine) >= NEEDED:
            break
    event: Event = {"v": 1, "kind": "estimate", "provider": state.provider}
    event |= {name: value for name, value in (("account", state.account), ("scope", state.scope)) if value}
    event |= {"window": state.window, "like": kind.text, "runs": len(mine)}
    if mine:
        event["since"] = when.stamp(mine[0].start)
    is_open = state.used is not None and state.resets_at is not None and state.resets_at > now
    if is_open and state.resets_at is not None:
        event["used"] = round(state.likely or 0.0, 4)
        event |= {"resets_at": when.stamp(state.resets_at), "resets_in": when.duration(state.resets_at - now)}
    event |= {"percent": None, "p_cutoff": None}
    if len(mine) < NEEDED:
        return event | {"note": _too_few(kind, mine, every), "as_of": when.stamp(now)}
    past = Past(mine, series)
    judged = limit_estimate.skill(limit_estimate.replay(past))
    if judged is not None:
        event["skill"] = {"runs": judged.scored} | {
            name: round(value, 3) for name, value in zip(judged._fields[1:], judged[1:], strict=True)
        }
    minutes = max((state.resets_at - now) // MINUTE, 1) if is_open and state.resets_at is not None else None
    expected = limit_estimate.estimate(past, now, state.likely if is_open else None, minutes)
    if expected is None or not limit_estimate.is_shown(judged):
        return event | {"note": _no_skill(past, judged), "as_of": when.stamp(now)}
    event["percent"] = {name: round(value, 2) for name, value in zip(("p10", "p50", "p90"), expected.points, strict=True)}
    event["p_cutoff"] = None if expected.p_cutoff is None else round(expected.p_cutoff, 4)
    return event | {"as_of": when.stamp(now)}


def _too_few(kind: Kind, mine: Sequence[Run], every: Sequence[Run]) -> str:
    others = f"; {ANY} has {len(every)}" if len(every) >= NEEDED > len(mine) else ""
    return f"{show.plural(len(mine), 'past run')} of {kind.text} in {DAYS} days; an estimate needs {NEEDED}{others}"


def _no_skill(past: Past, judged: limit_estimate.Skill | None) -> str:
    """Why there is no estimate although there are runs."""
    if judged is None:
        return f"too few of the {len(past.runs)} past runs had {limit_estimate.LEAST} runs before them"
    baseline = "the median" if judged.over_median <= 0 else "the plain spread"
    return f"on {judged.scored} past runs an estimate was no better than {baseline} of all runs before"


# Words.


def sentences(rows: Sequence[Event], now: int, tz: datetime.tzinfo) -> Iterator[str]:
    """What is to be said of each window, in a line each."""
    for row in rows:
        title = f"{limit_view.account_name(row)}, {limit_view.window_name(row)}: "
        if row["percent"] is None:
            yield f"{title}no estimate: {row['note']}{_headroom(row, now, tz)}"
            continue
        low, middle, high = (_percent(row["percent"][point]) for point in ("p10", "p50", "p90"))
        like = f"sessions like this ({row['like']}, {row['runs']} runs)"
        text = f"{like} took {low} to {high}% of the window, half of them {middle}% or less"
        yield f"{title}{text}{_headroom(row, now, tz)}; chance of a cutoff {limit_view.chance(row['p_cutoff'])}"


def _percent(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 1 else f"{value:.0f}"


def _headroom(row: Event, now: int, tz: datetime.tzinfo) -> str:
    if "used" not in row:
        return "; no window is open, so a whole one is counted with"
    return f"; {max(1 - row['used'], 0):.0%} is left until {limit_view.moment(row['resets_at'], now, tz)}"


def page(
    now: int, tz: datetime.tzinfo, rows: Sequence[Event], shape: str, color: bool = False, verbose: bool = False
) -> str:
    """The sentences at a terminal; a table in Markdown."""
    if shape == "table":
        lines = (line for each in sentences(rows, now, tz) for line in show.wrap(show.safe(each), show.width(), "  "))
        return "".join(f"{line}\n" for line in lines)
    return _table(rows, shape, color, verbose)


def _table(rows: Sequence[Event], shape: str, color: bool, verbose: bool) -> str:

    def points(row: Event) -> str:
        three = row["percent"]
        return f"{_percent(three['p10'])} to {_percent(three['p90'])}%" if three else "unknown"

    columns = [
        show.Column("provider", [limit_view.account_name(row) for row in rows], False, 1),
        show.Column("window", [limit_view.window_name(row) for row in rows], False, 0),
        show.Column("like", [row["like"] for row in rows], False, 2),
        show.Column("runs", [str(row["runs"]) for row in rows], True, 2),
        show.Column("takes (80%)", [points(row) for row in rows], True, 0),
        show.Column("used", [f"{row['used']:.0%}" if "used" in row else "" for row in rows], True, 1),
        show.Column("cutoff", ["unknown" if row["p_cutoff"] is None else f"{row['p_cutoff']:.0%}" for row in rows], True, 0),
    ]
    notes = [f"{limit_view.window_name(row)}: {row['note']}" for row in rows if "note" in row]
    return show.table(columns, shape, color=color) + show.notes(notes, shape, color, verbose)


# The backtest.


def backtest(
    parts: Sequence[Part], series: Sequence[Series], provider: str | None = None, window: str | None = None
) -> list[Event]:
    """How good the estimates would have been: a row for each provider, window and method.

    Keys: kind (backtest), table (sessions), provider, window, of (sessions, bursts), method (estimate, median, spread),
    accounts, runs, shown (moments at which the estimate is shown), pinball and coverage at all scored moments; shown_pinball
    and shown_coverage at those; skill (of the estimate over the method) and shown_skill; for the estimate and
    the spread shown_brier of the chance that a cap of 10, 20, ... 100 % is reached before the reset.
    """
    groups: dict[tuple[str, str, str], list[tuple[int, list[Scored]]]] = {}
    for each in series:
        if provider in (None, each.key.provider) and window in (None, each.key.window):
            own = limit_runs.runs(parts, each)
            of = "sessions" if own else "bursts"
            runs = own or limit_runs.bursts(each)
            if runs:
                scored = limit_estimate.replay(Past(runs, each), limit_estimate.CAPS)
                groups.setdefault((each.key.provider, each.key.window, of), []).append((len(runs), scored))
    return [row for key, group in sorted(groups.items()) for row in _scores(key, group)]


def _scores(key: tuple[str, str, str], group: Sequence[tuple[int, list[Scored]]]) -> Iterator[Event]:
    every = [each for _, scored in group for each in scored]
    speaking = [each for each in every if each.is_shown]
    labels: Event = {"kind": "backtest", "table": "sessions", **dict(zip(("provider", "window", "of"), key, strict=True))}
    labels |= {
        "accounts": len(group),
        "runs": sum(count for count, _ in group),
        "scored": len(every),
        "shown": len(speaking),
    }
    for method in (OURS, MEDIAN, SPREAD):
        row = labels | {"method": method}
        for prefix, chosen in (("", every), ("shown_", speaking)):
            if chosen:
                ours, theirs = (sum(each.loss[name] for each in chosen) for name in (OURS, method))
                row[f"{prefix}pinball"] = round(theirs / len(chosen), 4)
                row[f"{prefix}coverage"] = round(sum(each.is_inside(method) for each in chosen) / len(chosen), 4)
                if method != OURS and theirs:
                    row[f"{prefix}skill"] = round(1 - ours / theirs, 4)
        chances = [chance for each in speaking for chance in each.chances]
        if chances and method != MEDIAN:
            name = "ours" if method == OURS else "plain"
            row["shown_brier"] = round(sum((getattr(each, name) - each.reached) ** 2 for each in chances) / len(chances), 5)
        yield row


_COLUMNS = (
    ("method", "method"),
    ("pinball", "pinball"),
    ("coverage", "coverage"),
    ("skill", "skill"),
    ("pinball, shown", "shown_pinball"),
    ("coverage, shown", "shown_coverage"),
    ("skill, shown", "shown_skill"),
    ("Brier, shown", "shown_brier"),
)


def backtest_tables(rows: Sequence[Event], shape: str, color: bool, verbose: bool = False) -> str:
    """A table for each provider and window."""
    groups: dict[tuple[str, str, str], list[Event]] = {}
    for row in rows:
        groups.setdefault((row["provider"], row["window"], row["of"]), []).append(row)
    texts = []
    for (provider, window, of), group in groups.items():
        first = group[0]
        head = f"{provider} {window}: {first['runs']} {of} of {first['accounts']} accounts; {first['scored']} had enough "
        head += f"before them, and at {first['shown']} of them an estimate is shown"
        columns = [
            show.Column(title, [_cell(row.get(field)) for row in group], field != "method", at)
            for at, (title, field) in enumerate(_COLUMNS)
        ]
        laid = show.table(columns, shape, color=color) if first["scored"] else ""
        texts.append(show.notes([head], shape, False, verbose=True) + laid)
    return "\n".join(texts)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
