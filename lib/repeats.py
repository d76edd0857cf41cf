"""Texts that say the same, or nearly: groups of them, in time that grows with the number of texts.

Two texts are near when they share most of their shingles (runs of three words, or of four characters where words are not
set apart). Only texts that share a rare shingle are compared, so that what everybody writes compares nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tokenops import work_language

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
