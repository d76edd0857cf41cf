"""What words tell of a text: its language, and whether a prompt is no more than "go on", rejects, or names nothing.

The lists are in catalog/words.yaml. What no list can tell is not told: a prompt in a language without one is `unjudged`,
never taken for a good one. Lengths are in characters, and signals that need no words hold in every language.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Any, NamedTuple

from tokenops import catalog

Traits = tuple[str, ...]

# A word with its inner apostrophes and hyphens; a run of the scripts that set none apart.
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\u0e00-\u0e7f]")
_SCRIPTS = (
    ("kana", re.compile(r"[\u3040-\u30ff]")),
    ("hangul", re.compile(r"[\uac00-\ud7af]")),
    ("han", re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")),
)
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_BLANKS = re.compile(r"\s+")
_CLAUSES = re.compile(r"[.!?\n。！？]+")
_LEAD = " \t\r\"'(*_>,;:、，…-"
# Whoever rejects says so at once: in one of the first clauses, after interjections at most.
_FIRST, _INTERJECTIONS = 3, 3
# At most so long, as the eye counts them (a character of the scripts without blanks weighs three), a prompt is short.
SHORT, BRIEF, WALL = 15, 120, 4000
# So many words without one that sentences of a listed language have, and it is in none of them.
_SURE = 4


class Lists(NamedTuple):
    """The lists of one language, ready to be matched."""

    name: str
    script: str
    function: frozenset[str]
    acknowledge: frozenset[str]
    beside: frozenset[str]
    phrases: frozenset[str]
    goes_on: frozenset[str]
    vague: frozenset[str]
    cues: frozenset[str]
    reject: tuple[str, ...]
    again: tuple[str, ...]
    articles: frozenset[str]
    filler: frozenset[str]
    narration: tuple[str, ...]
    auxiliary: frozenset[str]
    compressed: tuple[float, float] | None  # shares of articles and of auxiliaries below which prose was compressed


@functools.cache
def lists() -> tuple[Lists, ...]:
    """The lists of every language."""
    return tuple(_lists(name, one) for name, one in catalog.load("words")["languages"].items())


@functools.cache
def _interjection() -> re.Pattern[str]:
    found = sorted(map(re.escape, catalog.load("words")["interjections"]), key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(found)})(?:[\s,.:;、，…-]+|(?<=[^\x00-\x7f]))", re.IGNORECASE)


def _lists(name: str, data: dict[str, Any]) -> Lists:
    def words(key: str) -> frozenset[str]:
        return frozenset(data.get(key, ()))

    cut = data.get("compressed")
    return Lists(
        name,
        data.get("script", ""),
        words("function"),
        words("acknowledge"),
        words("with"),
        words("phrases"),
        words("continue"),
        words("vague"),
        words("cues"),
        tuple(data.get("reject", ())),
        tuple(data.get("again", ())),
        words("articles"),
        words("filler"),
        tuple(data.get("narration", ())),
        words("auxiliary"),
        (float(cut["articles"]), float(cut["auxiliary"])) if cut else None,
    )


@functools.cache
def _pattern(given: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern of several. Compiling takes milliseconds, so only what is needed is."""
    return re.compile("|".join(f"(?:{one})" for one in given), re.IGNORECASE)


def _clauses(text: str) -> list[str]:
    """What the first clauses of a text are without the interjections before them; before an "and no" they are two."""
    found = []
    for clause in _CLAUSES.split(text, _FIRST)[:_FIRST]:
        bare = clause.lstrip(_LEAD)
        found.append(bare)
        for _ in range(_INTERJECTIONS):
            lead = _interjection().match(bare)
            if lead is None or lead.end() == len(bare):
                break
            bare = bare[lead.end() :].lstrip(_LEAD)
            found.append(bare)
    return found


def normal(text: str) -> str:
    """A text for comparing: case folded, blanks made one, what is no letter or digit taken off its ends."""
    return _EDGES.sub("", _BLANKS.sub(" ", text.replace("’", "'").casefold()))


def words(text: str) -> list[str]:
    """The words of a text, case folded; of scripts without blanks their runs."""
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]


def weight(text: str) -> int:
    """A text's length in characters, where one of a script without blanks weighs as much as three others."""
    return len(text) + 2 * len(_UNSPACED.findall(text)) if _UNSPACED.search(text) else len(text)


def known(text: str) -> str:
    """The language of a text, "" where it is none of those that there are lists for, or too little to tell."""
    if not text.isascii() and (found := _of_script(text)):
        return found[0].name
    count = Counter(words(text))
    signs = {one.name: sum(count[word] for word in one.function) for one in lists() if one.function}
    best = max(signs, key=lambda name: signs[name])
    # A third of running text are function words; a tenth is a sign, and two languages of one sign tell nothing.
    if signs[best] * 10 < count.total() or not signs[best]:
        return ""
    return "" if sorted(signs.values())[-2] == signs[best] else best


def traits(text: str) -> Traits:
    """What a prompt is like: the names of WORDED and of UNWORDED that hold, and `unjudged` where no list knows it."""
    given = text.strip()
    found = _unworded(given)
    plain = normal(given) if len(given) <= BRIEF else ""
    every = _every()
    if plain in every.acknowledge or (plain and _acknowledges(plain)):
        found.append("acknowledgement")
        if plain in every.goes_on:
            found.append("continuation")
        return tuple(found)
    if plain in every.vague:
        found.append("vague")
        return tuple(found)
    head = given[: 4 * BRIEF].replace("’", "'")
    said = frozenset(_WORD.findall(head.casefold()))
    script = _of_script(head)
    asked = [] if every.cues.isdisjoint(said) else [one for one in lists() if not one.cues.isdisjoint(said)]
    asked += script
    clauses = _clauses(head) if asked else []
    if any(_pattern(one.reject).match(clause) for one in asked for clause in clauses):
        found.append("correction")
    elif any(_pattern(one.again).match(clause) for one in asked for clause in clauses):
        found.append("regeneration")
    elif every.function.isdisjoint(said) and len(said) >= _SURE and not script:
        found.append("unjudged")
    return tuple(found)


class Every(NamedTuple):
    """What the lists of all languages have together: a prompt is too short for its language to be told first."""

    acknowledge: frozenset[str]
    goes_on: frozenset[str]
    vague: frozenset[str]
    cues: frozenset[str]
    function: frozenset[str]


@functools.cache
def _every() -> Every:
    def union(*names: str) -> frozenset[str]:
        return frozenset(word for one in lists() for name in names for word in getattr(one, name))

    return Every(union("acknowledge", "phrases"), union("goes_on"), union("vague"), union("cues"), union("function"))


def _of_script(text: str) -> list[Lists]:
    """The languages whose script a good part of a text is in."""
    if text.isascii() or len(_UNSPACED.findall(text)) * 50 < len(text):
        return []
    letters = 0
    for script, pattern in _SCRIPTS:
        if found := len(pattern.findall(text)):
            letters = letters or sum(map(len, _WORD.findall(text))) or 1
            if found / letters > (0.05 if script == "kana" else 0.2):
                return [one for one in lists() if one.script == script]
    return []


WORDED = ("acknowledgement", "continuation", "vague", "correction", "regeneration")
UNWORDED = ("choice", "short", "unreferenced", "question", "wall")


@functools.cache
def _reference() -> re.Pattern[str]:
    """What a prompt points at: a path, a file, a URL, code, an inner capital, a mention, an issue, a quotation."""
    return re.compile(
        r"[\w~.@-]*[/\\][\w./\\-]+|\b[\w-]+\.[A-Za-z][A-Za-z0-9]{0,5}\b|`[^`]+`|\b\w+\(\)|\b[a-z]+[A-Z]\w*|\b\w+_\w+|(?<!\w)[@#]\w+"
        r"|[\"“”«»「」『』][^\"“”«»「」『』]{2,}|\b\w*\d\w*\b|\b[A-Z]{3,}\b"
    )


def _unworded(text: str) -> list[str]:
    """Signals that hold in every language."""
    size = len(text) if text.isascii() or len(text) > BRIEF else weight(text)
    found = []
    if 0 < size <= 2:
        found.append("choice")  # an answer out of a list that the agent gave
    elif 2 < size <= SHORT:
        found.append("short")
    elif SHORT < size <= BRIEF and "\n" not in text and _reference().search(text) is None:
        found.append("unreferenced")
    elif len(text) > WALL:
        found.append("wall")
    if text.endswith(("?", "？")):
        found.append("question")
    return found


def _acknowledges(plain: str) -> bool:
    """Whether the words of a whole prompt say no more than "go on" together, in one language."""
    given = plain.split()
    if not 1 < len(given) <= 6:
        return False
    bare = [_EDGES.sub("", word) for word in given]
    return any(
        any(word in one.acknowledge for word in bare)
        and all(word in one.acknowledge or word in one.beside for word in bare if word)
        for one in lists()
    )
