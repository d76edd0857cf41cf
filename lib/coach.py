"""Finds costly habits in prompts, such as repeated texts, and ranks them with the numbers behind them.

No text leaves this module except samples, if they are requested, with secrets masked.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import credentials, events, pricing, when, work, work_language
from tokenops.coach_averages import Prompt, Rules, Span, money, projection, turn_stats
from tokenops.coach_transcripts import Talk
from tokenops.events import Event
from tokenops.work import Utterance

# How many of its rarest shingles each text is looked up by, and in how many texts each of them at most.
_RARE, _MOST = 6, 40
# Texts with fewer shingles must be equal: half of so few proves nothing.
_LEAST = 3


def groups(texts: Sequence[str], share: float) -> list[list[int]]:
    """The texts, by number, that are equal or share at least this part of their shingles; groups of two or more."""
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
    for left, right in _candidates(shingled):
        if root(left) != root(right) and _alike(shingled[left], shingled[right]) >= share:
            above[max(root(left), root(right))] = min(root(left), root(right))
    members_by_root: dict[int, list[int]] = {}
    for at in range(len(texts)):
        if plain[at]:
            members_by_root.setdefault(root(at), []).append(at)
    return [members for members in members_by_root.values() if len(members) > 1]


def shingles(text: str) -> frozenset[str]:
    """The runs of three words in a text, or of four characters if it has few words for its length."""
    parts = text.split()
    if len(parts) * 12 < len(text):
        return frozenset(text[at : at + 4] for at in range(max(len(text) - 3, 0)))
    return frozenset(" ".join(parts[at : at + 3]) for at in range(max(len(parts) - 2, 0)))


def _candidates(shingled: dict[int, frozenset[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of texts that share a rare shingle."""
    often = Counter(shingle for found_shingles in shingled.values() for shingle in found_shingles)
    where: dict[str, list[int]] = {}
    for at, found_shingles in shingled.items():
        if len(found_shingles) < _LEAST:
            continue
        met: set[int] = set()
        shared = (shingle for shingle in found_shingles if often[shingle] > 1)
        for shingle in sorted(shared, key=lambda shingle: (often[shingle], shingle))[:_RARE]:
            holders = where.setdefault(shingle, [])
            met.update(holders)
            if len(holders) < _MOST:
                holders.append(at)
        yield from ((other, at) for other in sorted(met))


def _alike(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right)


# Habit -> what one occurrence is projected at, why it costs, and what helps.
ADVICE = {
    "acknowledgements": (
        "turn",
        "prompts that only say go on: each is one more request that sends the whole context again, after a wait",
        "say in the prompt what the agent may do without asking, and allow the safe commands",
    ),
    "corrections": (
        "prompt",
        "prompts that reject the result: each wasted at most the work of one prompt",
        "before the first attempt, name the file, the expected result and what must not change; ask for a plan first",
    ),
    "regenerations": (
        "prompt",
        "prompts that ask for the same again: each repeats at most the work of one prompt",
        "say what was wrong with the first attempt instead of asking for another one",
    ),
    "vague": (
        "prompt",
        "prompts that name neither the change nor the place; only those that led to a question or a correction count",
        "name the file and the change",
    ),
    "missing_context": (
        "turn",
        "sessions that begin without a file, a name or an example; the measured extra search counts",
        "in the first prompt, name where to look (@file, an error message, a function)",
    ),
    "repeated": (
        "prompt",
        "the same or nearly the same prompt again; only repetitions within one session count",
        "put requests that you repeat into a slash command, a skill or the project's instructions",
    ),
    "walls": (
        "context_token",
        "long pasted texts, which every later request of the session sends again",
        "save the text to a file and name the file, or paste only the part that matters",
    ),
}
LENGTHS = (0, 20, 80, 200, 1000, 4000)
_TRAITS = {"corrections": "correction", "regenerations": "regeneration", "vague": "vague"}


def prompts_of(talk: Talk, rules: Rules) -> list[Prompt]:
    """The prompts of a span, each with the one after it in its session."""
    sessions: dict[str, list[Utterance]] = {}
    for utterance in talk.utterances:
        sessions.setdefault(utterance.session, []).append(utterance)
    prompts = []
    for utterances in sessions.values():
        for at, utterance in enumerate(utterances):
            following = utterances[at + 1] if at + 1 < len(utterances) else None
            prompts.append(Prompt(utterance, following, *_pauses(utterance, following, talk, rules)))
    return sorted(prompts, key=lambda prompt: (prompt.utterance.ts, prompt.utterance.session))


def _pauses(
    utterance: Utterance, following: Utterance | None, talk: Talk, rules: Rules
) -> tuple[float | None, float | None]:
    """Seconds from a prompt to the next, and from the agent's last reply to it; None if nobody was at the keyboard."""
    round_ = talk.rounds.get(utterance.round)
    last = round_.get("times", {}).get("last") if round_ else None
    if following is None or last is None or following.round == utterance.round:
        return None, None
    waited = (when.moment(following.ts) - when.moment(max(last, utterance.ts))) / 1000
    if not 0 <= waited <= rules["idle_minutes"] * 60:
        return None, None
    return (when.moment(following.ts) - when.moment(utterance.ts)) / 1000, waited


def loops(prompts: Iterable[Prompt], rules: Rules) -> set[tuple[str, str]]:
    """Session and text of the prompts that a loop sent: "continue", again and again."""
    often = Counter(prompt.key for prompt in prompts if "continuation" in prompt.utterance.traits)
    return {key for key, times in often.items() if times > rules["loop_times"]}


class Habit(NamedTuple):
    """A habit: its name, its prompts, out of how many, and the units of its projection (None: unknown, and why)."""

    name: str
    prompts: list[Utterance]
    out_of: int
    units: int | None
    why: str = ""


def habits(prompts: Sequence[Prompt], talk: Talk, turns: Sequence[Event], rules: Rules) -> list[Habit]:
    """The habits that exceed the thresholds."""
    looped = loops(prompts, rules)
    typed = [prompt for prompt in prompts if prompt.key not in looped]
    count = len(typed)
    if count < rules["least_prompts"]:
        return []
    result: list[Habit] = []

    def share(habit: str, met: list[Utterance], out_of: int, units: int | None, why: str = "") -> None:
        if len(met) >= rules["least_count"] and len(met) / max(out_of, 1) >= rules[f"{habit}_share"]:
            result.append(Habit(habit, met, out_of, units, why))

    nods = [prompt.utterance for prompt in typed if "acknowledgement" in prompt.utterance.traits]
    share("acknowledgements", nods, count, len(nods))
    for habit, trait in _TRAITS.items():
        met = [prompt for prompt in typed if trait in prompt.utterance.traits]
        units = len(met) if habit != "vague" else sum(_followed_up(prompt) for prompt in met)
        share(habit, [prompt.utterance for prompt in met], count, units)
    first = [prompt.utterance for prompt in typed if "first" in prompt.utterance.traits]
    bare = [prompt for prompt in first if "unreferenced" in prompt.traits]
    share("missing_context", bare, len(first), *_search(first, bare, talk, rules))
    walls = [prompt.utterance for prompt in typed if "wall" in prompt.utterance.traits]
    share("walls", walls, count, sum(_resent_tokens(prompt, turns, rules) for prompt in walls))
    result += _repetitions(typed, rules)
    return result


def _followed_up(prompt: Prompt) -> bool:
    """Whether the agent had to ask about a prompt, or it had to be corrected."""
    return prompt.following is not None and not {"asked", "correction", "regeneration"}.isdisjoint(prompt.following.traits)


def _search(first: list[Utterance], bare: list[Utterance], talk: Talk, rules: Rules) -> tuple[int | None, str]:
    """How many more calls the search took in sessions whose first prompt named nothing; None if that cannot be measured."""

    def search_calls(group: Iterable[Utterance]) -> list[int]:
        counts = [talk.rounds[prompt.round]["counts"] for prompt in group if prompt.round in talk.rounds]
        return [counts_of_round.get("read_calls", 0) + counts_of_round.get("search_calls", 0) for counts_of_round in counts]

    named = search_calls(prompt for prompt in first if prompt not in bare)
    unnamed = search_calls(bare)
    if min(len(named), len(unnamed)) < rules["least_measured"]:
        return None, f"fewer than {rules['least_measured']:.0f} sessions of each kind to compare"
    longer = statistics.mean(unnamed) - statistics.mean(named)
    return (
        (round(longer * len(bare)), "")
        if longer > 0
        else (None, "the search took no longer than in sessions that named something")
    )


def _resent_tokens(wall: Utterance, turns: Sequence[Event], rules: Rules) -> int:
    """The tokens of a pasted text, times the later turns of its session that sent it again."""
    later = sum(
        1 for turn in turns if turn.get("session_id") == wall.session and turn["ts"] > wall.ts and not turn.get("sidechain")
    )
    return round(len(wall.text) / rules["characters_per_token"]) * max(later - 1, 0)


def _repetitions(typed: Sequence[Prompt], rules: Rules) -> list[Habit]:
    """Prompts that were written several times, without acknowledgements and choices from a list."""
    plain = [prompt.utterance for prompt in typed if {"acknowledgement", "choice"}.isdisjoint(prompt.utterance.traits)]
    again: list[Utterance] = []
    inside = 0
    for members in groups([prompt.text for prompt in plain], rules["near_share"]):
        if len(members) >= rules["repeated_times"]:
            again += [plain[at] for at in members[1:]]
            # A word such as "commit" is repeated because there is something new to commit.
            sessions = Counter(plain[at].session for at in members if "short" not in plain[at].traits)
            inside += sum(times - 1 for times in sessions.values())
    if len(again) < rules["least_count"]:
        return []
    return [Habit("repeated", again, len(typed), inside)]


def findings(habits: Iterable[Habit], stats: Event, trend: Callable[[str], Event | None], samples: int) -> list[Event]:
    """The habits as findings, the most expensive first."""
    rows = []
    for habit, met, out_of, units, why in habits:
        basis, reason, remedy = ADVICE[habit]
        row: Event = {"finding": habit, "count": len(met), "of": out_of, "share": round(len(met) / max(out_of, 1), 4)}
        row |= {
            "why": reason,
            "remedy": remedy,
            "projection": projection(units, basis, stats, why),
            "previous": trend(habit),
        }
        if habit == "acknowledgements":
            row["after_a_question"] = sum("asked" in prompt.traits for prompt in met)
        row["evidence"] = [{"session_id": prompt.session, "ts": prompt.ts} for prompt in met[-5:]]
        if samples:
            row["samples"] = list(dict.fromkeys(credentials.sample(prompt.text) for prompt in reversed(met)))[:samples]
        rows.append(row)
    return sorted(rows, key=_weight)


def _weight(row: Event) -> tuple[Any, ...]:
    projected = row["projection"]
    return (
        -Decimal(projected["cost_usd"] or 0),
        -(projected["tokens"] or 0),
        -(projected["hours"] or 0),
        -row["count"],
        row["finding"],
    )


def trend(before: Mapping[str, int]) -> Callable[[str], Event | None]:
    """A function from a habit to its count and share in the span before; None if the log does not hold them."""

    def previous(habit: str) -> Event | None:
        prompts = before.get("prompts", 0)
        if not prompts or habit not in ("acknowledgements", "corrections", "regenerations", "vague", "walls"):
            return None
        count = before.get(habit, 0)
        return {"count": count, "of": prompts, "share": round(count / prompts, 4)}

    return previous


def prompt_stats(prompts: Sequence[Prompt], rules: Rules) -> Event:
    """Lengths in characters, and how many prompts there are of each kind."""
    sizes = sorted(len(prompt.utterance.text) for prompt in prompts)
    classes = Counter(trait for prompt in prompts for trait in prompt.utterance.traits)
    bounds = zip(LENGTHS, (*LENGTHS[1:], None), strict=True)
    row: Event = {"prompts": len(prompts), "loop_prompts": _loop_prompts(prompts, rules)}
    row["characters"] = {
        "total": sum(sizes),
        "median": statistics.median(sizes) if sizes else None,
        "longest": sizes[-1] if sizes else None,
    }
    row["lengths"] = [
        {"from": low, "below": high, "prompts": sum(low <= size and (high is None or size < high) for size in sizes)}
        for low, high in bounds
    ]
    row["kinds"] = dict(sorted(classes.items()))
    return row


def _loop_prompts(prompts: Sequence[Prompt], rules: Rules) -> int:
    looped = loops(prompts, rules)
    return sum(prompt.key in looped for prompt in prompts)


def report(
    talk: Talk,
    records: Iterable[Event],
    span: Span,
    by: str,
    rules: Rules,
    catalogue: pricing.Catalogue,
    samples: int = 0,
) -> Event:
    """Findings and averages of the prompts of a span. `records`: the log's, of this span and of the one before."""
    turns, rounds = [], []
    for record in records:
        if record["kind"] == "turn" and record["ts"] >= span.since:
            turns.append(record)
        elif record["kind"] == "work" and record["ts"] < span.since and not record.get("sidechain"):
            rounds.append(record)
    prompts = prompts_of(talk, rules)
    stats = turn_stats(turns, prompts, span, rules, catalogue)
    before = work.totals_by(rounds, lambda event: "").get("", {})
    rows = findings(habits(prompts, talk, turns, rules), stats, trend(before), samples)
    return {
        "v": 1,
        "kind": "coach",
        "report": "prompts",
        "findings": rows,
        "turn_stats": stats,
        "prompt_stats": prompt_stats(prompts, rules),
        "previous": {"since": span.previous.since, "until": span.previous.until, "prompts": before.get("prompts", 0)},
        "groups": group_rows(prompts, turns, talk, by, catalogue),
    }


def group_rows(
    prompts: Sequence[Prompt], turns: Sequence[Event], talk: Talk, by: str, catalogue: pricing.Catalogue
) -> list[Event]:
    """Prompts of each kind and the cost of their turns, per project or per session."""
    by_group: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_group.setdefault(talk.project(prompt.utterance) if by == "project" else prompt.utterance.session, []).append(
            prompt
        )
    field = "project" if by == "project" else "session_id"
    spent: dict[str, list[Event]] = {}
    for turn in turns:
        spent.setdefault(str(turn.get(field, "unknown")), []).append(turn)
    rows = []
    for name, several in by_group.items():
        mine = spent.get(name, [])
        paid = [money(turn, catalogue) for turn in mine]
        row: Event = {field: name, "prompts": len(several), "turns": len(mine), "tokens": sum(map(events.token_sum, mine))}
        costs = [cost[0] for cost in paid if cost is not None]
        row["cost_usd"] = pricing.plain(sum(costs, pricing.ZERO)) if costs else None
        row["unpriced_turns"] = len(paid) - len(costs)
        row["characters"] = statistics.median(len(prompt.utterance.text) for prompt in several)
        for habit, trait in {"acknowledgements": "acknowledgement", **_TRAITS, "walls": "wall"}.items():
            row[habit] = sum(trait in prompt.utterance.traits for prompt in several)
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["prompts"], row[field]))
