"""Finds habits in prompts and what they cost: repeated texts, and findings ranked with the numbers behind them.

No text comes out of here unless samples are asked for, and those without secrets.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tokenops import credentials, events, pricing, when, work, work_language
from tokenops.coach_averages import Asked, Rules, Span, money, projection, turn_stats
from tokenops.coach_transcripts import Talk
from tokenops.events import Event
from tokenops.work import Utterance

# Of each text so many of its rarest shingles are looked up, each in so many texts at most.
_RARE, _MOST = 6, 40
# Texts with fewer shingles are told by being equal: half of so few says nothing.
_LEAST = 3


def groups(texts: Sequence[str], share: float) -> list[list[int]]:
    """Numbers of the texts that are equal, or have at least this share of their shingles in common; two and more."""
    above = list(range(len(texts)))

    def root(at: int) -> int:
        while above[at] != at:
            above[at] = above[above[at]]
            at = above[at]
        return at

    plain = [work_language.normal(text) for text in texts]
    first: dict[str, int] = {}
    for at, text in enumerate(plain):
        above[at] = first.setdefault(text, at)
    several = sorted(set(first.values()))
    shingled = {at: shingles(plain[at]) for at in several}
    for one, other in _candidates(shingled):
        if root(one) != root(other) and _alike(shingled[one], shingled[other]) >= share:
            above[max(root(one), root(other))] = min(root(one), root(other))
    found: dict[int, list[int]] = {}
    for at in range(len(texts)):
        if plain[at]:
            found.setdefault(root(at), []).append(at)
    return [members for members in found.values() if len(members) > 1]


def shingles(text: str) -> frozenset[str]:
    """The runs of three words in a text, or of four characters where there are few words to its length."""
    parts = text.split()
    if len(parts) * 12 < len(text):
        return frozenset(text[at : at + 4] for at in range(max(len(text) - 3, 0)))
    return frozenset(" ".join(parts[at : at + 3]) for at in range(max(len(parts) - 2, 0)))


def _candidates(shingled: dict[int, frozenset[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of texts that share a rare shingle."""
    often = Counter(shingle for found in shingled.values() for shingle in found)
    where: dict[str, list[int]] = {}
    for at, found in shingled.items():
        if len(found) < _LEAST:
            continue
        met: set[int] = set()
        shared = (shingle for shingle in found if often[shingle] > 1)
        for shingle in sorted(shared, key=lambda one: (often[one], one))[:_RARE]:
            held = where.setdefault(shingle, [])
            met.update(held)
            if len(held) < _MOST:
                held.append(at)
        yield from ((other, at) for other in sorted(met))


def _alike(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


# A habit -> how one speaks of it, and what helps. `units` says what one occurrence is projected at.
ADVICE = {
    "acknowledgements": (
        "turn",
        "prompts that only say go on: each is one more request that sends the whole context again, after a wait",
        "say in the prompt what may be done without asking, allow the safe commands, and let it go on until it is done",
    ),
    "corrections": (
        "prompt",
        "prompts that reject what was done: at most the work of one prompt each was for nothing",
        "name the file, the expected result and what must not change before the first attempt; ask for a plan first",
    ),
    "regenerations": (
        "prompt",
        "prompts that ask for the same again: at most the work of one prompt each was done twice",
        "say what was wrong with the first attempt instead of asking for another one like it",
    ),
    "vague": (
        "prompt",
        "prompts that name neither what nor where; counted are those after which it had to be asked or corrected",
        "name the file and the change that is wanted",
    ),
    "missing_context": (
        "turn",
        "sessions that begin without a file, a name or an example to start from; counted is the longer search, as measured",
        "name where to look (@file, an error's text, a function) in the first prompt",
    ),
    "repeated": (
        "prompt",
        "the same or nearly the same prompt again; counted are those in one session, where the first did not do it",
        "put what is asked for again and again into a slash command, a skill or the project's instructions",
    ),
    "walls": (
        "context_token",
        "long pasted texts: every later request of the session sends them again",
        "save it to a file and name the file, or paste the part that matters",
    ),
}
LENGTHS = (0, 20, 80, 200, 1000, 4000)
_TRAITS = {"corrections": "correction", "regenerations": "regeneration", "vague": "vague"}


def asked(talk: Talk, rules: Rules) -> list[Asked]:
    """The prompts of a talk, each with what came after it."""
    sessions: dict[str, list[Utterance]] = {}
    for one in talk.said:
        sessions.setdefault(one.session, []).append(one)
    found = []
    for several in sessions.values():
        for at, one in enumerate(several):
            then = several[at + 1] if at + 1 < len(several) else None
            found.append(Asked(one, then, *_pauses(one, then, talk, rules)))
    return sorted(found, key=lambda one: (one.heard.ts, one.heard.session))


def _pauses(one: Utterance, then: Utterance | None, talk: Talk, rules: Rules) -> tuple[float | None, float | None]:
    """How long a prompt lasted until the next, and how long the next waited for its writer; None where nobody was there."""
    held = talk.rounds.get(one.round)
    last = held.get("times", {}).get("last") if held else None
    if then is None or last is None or then.round == one.round:
        return None, None
    waited = (when.moment(then.ts) - when.moment(max(last, one.ts))) / 1000
    if not 0 <= waited <= rules["idle_minutes"] * 60:
        return None, None
    return (when.moment(then.ts) - when.moment(one.ts)) / 1000, waited


def loops(found: Iterable[Asked], rules: Rules) -> set[tuple[str, str]]:
    """Session and text of the prompts that a loop sent: "continue", again and again."""
    often = Counter(
        (one.heard.session, one.heard.text.strip().casefold()) for one in found if "continuation" in one.heard.traits
    )
    return {key for key, times in often.items() if times > rules["loop_times"]}


Found = tuple[str, list[Utterance], int, "int | None", str]  # habit, its prompts, out of how many, units, why there are none


def habits(found: Sequence[Asked], talk: Talk, turns: Sequence[Event], rules: Rules) -> list[Found]:
    """The prompts of every habit that is one, by the thresholds."""
    looped = loops(found, rules)
    typed = [one for one in found if (one.heard.session, one.heard.text.strip().casefold()) not in looped]
    count = len(typed)
    if count < rules["least_prompts"]:
        return []
    made: list[Found] = []

    def share(habit: str, met: list[Utterance], out_of: int, units: int | None, why: str = "") -> None:
        if len(met) >= rules["least_count"] and len(met) / max(out_of, 1) >= rules[f"{habit}_share"]:
            made.append((habit, met, out_of, units, why))

    nods = [one.heard for one in typed if "acknowledgement" in one.heard.traits]
    share("acknowledgements", nods, count, len(nods))
    for habit, trait in _TRAITS.items():
        met = [one for one in typed if trait in one.heard.traits]
        units = len(met) if habit != "vague" else sum(_followed_up(one) for one in met)
        share(habit, [one.heard for one in met], count, units)
    first = [one.heard for one in typed if "first" in one.heard.traits]
    bare = [one for one in first if "unreferenced" in one.traits]
    share("missing_context", bare, len(first), *_search(first, bare, talk, rules))
    walls = [one.heard for one in typed if "wall" in one.heard.traits]
    share("walls", walls, count, sum(_carried(one, turns, rules) for one in walls))
    made += _repeated(typed, rules)
    return made


def _followed_up(one: Asked) -> bool:
    """Whether a prompt had to be asked about, or corrected."""
    return one.then is not None and not {"asked", "correction", "regeneration"}.isdisjoint(one.then.traits)


def _search(first: list[Utterance], bare: list[Utterance], talk: Talk, rules: Rules) -> tuple[int | None, str]:
    """How many calls longer the search took in all where nothing was named, against where something was; measured."""

    def searched(ones: Iterable[Utterance]) -> list[int]:
        counts = [talk.rounds[one.round]["counts"] for one in ones if one.round in talk.rounds]
        return [held.get("read_calls", 0) + held.get("search_calls", 0) for held in counts]

    named = searched(one for one in first if one not in bare)
    unnamed = searched(bare)
    if min(len(named), len(unnamed)) < rules["least_measured"]:
        return None, f"fewer than {rules['least_measured']:.0f} sessions of each kind to compare"
    longer = statistics.mean(unnamed) - statistics.mean(named)
    return (
        (round(longer * len(bare)), "") if longer > 0 else (None, "the search took no longer than where something was named")
    )


def _carried(one: Utterance, turns: Sequence[Event], rules: Rules) -> int:
    """The tokens of a pasted text, times the later turns of its session that sent it again."""
    later = sum(
        1 for turn in turns if turn.get("session_id") == one.session and turn["ts"] > one.ts and not turn.get("sidechain")
    )
    return round(len(one.text) / rules["characters_per_token"]) * max(later - 1, 0)


def _repeated(typed: Sequence[Asked], rules: Rules) -> list[Found]:
    """Prompts that were written several times, but for nods and answers out of a list."""
    plain = [one.heard for one in typed if {"acknowledgement", "choice"}.isdisjoint(one.heard.traits)]
    again: list[Utterance] = []
    inside = 0
    for members in groups([one.text for one in plain], rules["near_share"]):
        if len(members) >= rules["repeated_times"]:
            again += [plain[at] for at in members[1:]]
            # A word such as "commit" is said again because there is something new to commit.
            sessions = Counter(plain[at].session for at in members if "short" not in plain[at].traits)
            inside += sum(times - 1 for times in sessions.values())
    if len(again) < rules["least_count"]:
        return []
    return [("repeated", again, len(typed), inside, "")]


def findings(made: Iterable[Found], stats: Event, trend: Callable[[str], Event | None], samples: int) -> list[Event]:
    """The habits as findings, the costliest first."""
    rows = []
    for habit, met, out_of, units, why in made:
        basis, told, remedy = ADVICE[habit]
        row: Event = {"finding": habit, "count": len(met), "of": out_of, "share": round(len(met) / max(out_of, 1), 4)}
        row |= {"why": told, "remedy": remedy, "projection": projection(units, basis, stats, why), "previous": trend(habit)}
        if habit == "acknowledgements":
            row["after_a_question"] = sum("asked" in one.traits for one in met)
        row["evidence"] = [{"session_id": one.session, "ts": one.ts} for one in met[-5:]]
        if samples:
            row["samples"] = list(dict.fromkeys(credentials.sample(one.text) for one in reversed(met)))[:samples]
        rows.append(row)
    return sorted(rows, key=_weight)


def _weight(row: Event) -> tuple[Any, ...]:
    made = row["projection"]
    return (-Decimal(made["cost_usd"] or 0), -(made["tokens"] or 0), -(made["hours"] or 0), -row["count"], row["finding"])


def trend(before: Mapping[str, int]) -> Callable[[str], Event | None]:
    """What the log says of a habit in the span before: its count and share, None where it says nothing."""

    def of(habit: str) -> Event | None:
        prompts = before.get("prompts", 0)
        if not prompts or habit not in ("acknowledgements", "corrections", "regenerations", "vague", "walls"):
            return None
        count = before.get(habit, 0)
        return {"count": count, "of": prompts, "share": round(count / prompts, 4)}

    return of


def prompt_stats(found: Sequence[Asked], rules: Rules) -> Event:
    """Lengths in characters, and how many prompts there are of each kind."""
    sizes = sorted(len(one.heard.text) for one in found)
    classes = Counter(trait for one in found for trait in one.heard.traits)
    bounds = zip(LENGTHS, (*LENGTHS[1:], None), strict=True)
    made: Event = {"prompts": len(found), "loop_prompts": _looped(found, rules)}
    made["characters"] = {
        "total": sum(sizes),
        "median": statistics.median(sizes) if sizes else None,
        "longest": sizes[-1] if sizes else None,
    }
    made["lengths"] = [
        {"from": low, "below": high, "prompts": sum(low <= size and (high is None or size < high) for size in sizes)}
        for low, high in bounds
    ]
    made["kinds"] = dict(sorted(classes.items()))
    return made


def _looped(found: Sequence[Asked], rules: Rules) -> int:
    looped = loops(found, rules)
    return sum((one.heard.session, one.heard.text.strip().casefold()) in looped for one in found)


def report(
    talk: Talk,
    records: Iterable[Event],
    span: Span,
    by: str,
    rules: Rules,
    catalogue: pricing.Catalogue,
    samples: int = 0,
) -> Event:
    """Findings and averages of the prompts of a span. `records`: the log's, of this span and of the one before it."""
    turns, rounds = [], []
    for record in records:
        if record["kind"] == "turn" and record["ts"] >= span.since:
            turns.append(record)
        elif record["kind"] == "work" and record["ts"] < span.since and not record.get("sidechain"):
            rounds.append(record)
    found = asked(talk, rules)
    stats = turn_stats(turns, found, span, rules, catalogue)
    before = work.totals_by(rounds, lambda event: "").get("", {})
    made = findings(habits(found, talk, turns, rules), stats, trend(before), samples)
    return {
        "v": 1,
        "kind": "coach",
        "report": "prompts",
        "findings": made,
        "turn_stats": stats,
        "prompt_stats": prompt_stats(found, rules),
        "previous": {"since": span.before.since, "until": span.before.until, "prompts": before.get("prompts", 0)},
        "groups": grouped(found, turns, talk, by, catalogue),
    }


def grouped(
    found: Sequence[Asked], turns: Sequence[Event], talk: Talk, by: str, catalogue: pricing.Catalogue
) -> list[Event]:
    """The same per project or per session: prompts of each kind, and what their turns cost."""
    held: dict[str, list[Asked]] = {}
    for one in found:
        held.setdefault(talk.project(one.heard) if by == "project" else one.heard.session, []).append(one)
    field = "project" if by == "project" else "session_id"
    spent: dict[str, list[Event]] = {}
    for turn in turns:
        spent.setdefault(str(turn.get(field, "unknown")), []).append(turn)
    rows = []
    for name, several in held.items():
        mine = spent.get(name, [])
        paid = [money(turn, catalogue) for turn in mine]
        row: Event = {field: name, "prompts": len(several), "turns": len(mine), "tokens": sum(map(events.token_sum, mine))}
        row["cost_usd"] = (
            None if None in paid or not paid else pricing.plain(sum((one[0] for one in paid if one), pricing.ZERO))
        )
        row["characters"] = statistics.median(len(one.heard.text) for one in several)
        for habit, trait in {"acknowledgements": "acknowledgement", **_TRAITS, "walls": "wall"}.items():
            row[habit] = sum(trait in one.heard.traits for one in several)
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["prompts"], row[field]))
