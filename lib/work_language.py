"""Recognises a text's language, and prompts that only say "go on", that reject an answer, or that name nothing.

The lists are in catalog/words.yaml. Nothing is guessed beyond them: a prompt in a language without a list is
`unjudged`, never counted as a good one. Lengths are in characters; signals without words work in every language.
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
# A rejection comes at once: in one of the first clauses, after interjections at most.
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
    rejections: tuple[str, ...]
    again: tuple[str, ...]
    articles: frozenset[str]
    filler: frozenset[str]
    narration: tuple[str, ...]
    auxiliary: frozenset[str]
    compressed: tuple[float, float] | None  # shares of articles and of auxiliaries below which prose was compressed


@functools.cache
def lists() -> tuple[Lists, ...]:
    """The lists of every language."""
    return tuple(_lists(name, data) for name, data in catalog.load("words")["languages"].items())


@functools.cache
def _interjection() -> re.Pattern[str]:
    words = sorted(map(re.escape, catalog.load("words")["interjections"]), key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(words)})(?:[\s,.:;、，…-]+|(?<=[^\x00-\x7f]))", re.IGNORECASE)


def _lists(name: str, data: dict[str, Any]) -> Lists:
    def words(key: str) -> frozenset[str]:
        return frozenset(data.get(key, ()))

    limits = data.get("compressed")
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
        (float(limits["articles"]), float(limits["auxiliary"])) if limits else None,
    )


@functools.cache
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern of several. Compiling takes milliseconds, so only what is needed is."""
    return re.compile("|".join(f"(?:{phrase})" for phrase in phrases), re.IGNORECASE)


def _clauses(text: str) -> list[str]:
    """What the first clauses of a text are without the interjections before them; before an "and no" they are two."""
    clauses = []
    for clause in _CLAUSES.split(text, _FIRST)[:_FIRST]:
        bare = clause.lstrip(_LEAD)
        clauses.append(bare)
        for _ in range(_INTERJECTIONS):
            lead = _interjection().match(bare)
            if lead is None or lead.end() == len(bare):
                break
            bare = bare[lead.end() :].lstrip(_LEAD)
            clauses.append(bare)
    return clauses


def normal(text: str) -> str:
    """A text for comparing: case folded, blanks merged, and anything but letters and digits taken off its ends."""
    return _EDGES.sub("", _BLANKS.sub(" ", text.replace("’", "'").casefold()))


def words(text: str) -> list[str]:
    """The words of a text, case folded; of scripts without blanks their runs."""
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]


def weight(text: str) -> int:
    """A text's length in characters; one of a script without blanks counts as three."""
    return len(text) + 2 * len(_UNSPACED.findall(text)) if _UNSPACED.search(text) else len(text)


def language_of(text: str) -> str:
    """The language of a text; "" if there is no list for it, or the text is too short."""
    if not text.isascii() and (languages := _of_script(text)):
        return languages[0].name
    count = Counter(words(text))
    signs = {language.name: sum(count[word] for word in language.function) for language in lists() if language.function}
    best = max(signs, key=lambda name: signs[name])
    # A third of running text are function words. A tenth is enough; if two languages have the same share, neither counts.
    if signs[best] * 10 < count.total() or not signs[best]:
        return ""
    return "" if sorted(signs.values())[-2] == signs[best] else best


def traits(text: str) -> Traits:
    """A prompt's traits: those of WORDED and UNWORDED that apply, and `unjudged` if no list knows its words."""
    bare = text.strip()
    names = _unworded_traits(bare)
    plain = normal(bare) if len(bare) <= BRIEF else ""
    every = _every()
    if plain in every.acknowledge or (plain and _acknowledges(plain)):
        names.append("acknowledgement")
        if plain in every.goes_on:
            names.append("continuation")
        return tuple(names)
    if plain in every.vague:
        names.append("vague")
        return tuple(names)
    head = bare[: 4 * BRIEF].replace("’", "'")
    spoken = frozenset(_WORD.findall(head.casefold()))
    script = _of_script(head)
    candidates = (
        [] if every.cues.isdisjoint(spoken) else [language for language in lists() if not language.cues.isdisjoint(spoken)]
    )
    candidates += script
    clauses = _clauses(head) if candidates else []
    if any(_pattern(language.rejections).match(clause) for language in candidates for clause in clauses):
        names.append("correction")
    elif any(_pattern(language.again).match(clause) for language in candidates for clause in clauses):
        names.append("regeneration")
    elif every.function.isdisjoint(spoken) and len(spoken) >= _SURE and not script:
        names.append("unjudged")
    return tuple(names)


class Every(NamedTuple):
    """The lists of all languages together: a prompt is too short to recognise its language first."""

    acknowledge: frozenset[str]
    goes_on: frozenset[str]
    vague: frozenset[str]
    cues: frozenset[str]
    function: frozenset[str]


@functools.cache
def _every() -> Every:
    def union(*names: str) -> frozenset[str]:
        return frozenset(word for language in lists() for name in names for word in getattr(language, name))

    return Every(union("acknowledge", "phrases"), union("goes_on"), union("vague"), union("cues"), union("function"))


def _of_script(text: str) -> list[Lists]:
    """The languages of the script that a good part of a text is in."""
    if text.isascii() or len(_UNSPACED.findall(text)) * 50 < len(text):
        return []
    letters = 0
    for script, pattern in _SCRIPTS:
        if count := len(pattern.findall(text)):
            letters = letters or sum(map(len, _WORD.findall(text))) or 1
            if count / letters > (0.05 if script == "kana" else 0.2):
                return [language for language in lists() if language.script == script]
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


def _unworded_traits(text: str) -> list[str]:
    """Signals that hold in every language."""
    size = len(text) if text.isascii() or len(text) > BRIEF else weight(text)
    names = []
    if 0 < size <= 2:
        names.append("choice")  # an answer out of a list that the agent gave
    elif 2 < size <= SHORT:
        names.append("short")
    elif SHORT < size <= BRIEF and "\n" not in text and _reference().search(text) is None:
        names.append("unreferenced")
    elif len(text) > WALL:
        names.append("wall")
    if text.endswith(("?", "？")):
        names.append("question")
    return names


def _acknowledges(plain: str) -> bool:
    """Whether the words of a whole prompt say no more than "go on" together, in one language."""
    parts = plain.split()
    if not 1 < len(parts) <= 6:
        return False
    bare = [_EDGES.sub("", word) for word in parts]
    return any(
        any(word in language.acknowledge for word in bare)
        and all(word in language.acknowledge or word in language.beside for word in bare if word)
        for language in lists()
    )
