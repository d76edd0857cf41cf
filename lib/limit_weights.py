"""Learns what a limit counts: how much more or less than their list prices cache reads, output and families of models weigh.

Pieces whose dollars went to different things rise differently. Their logarithms are fitted by weights for each class and
family (Gauss-Newton, with weak prior knowledge that prices are right), each against the other pieces of the same days, so
that a change of the worth itself is no weight. Pieces far above the others, where use was elsewhere, count little. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tokenops import when
from tokenops.limit_pieces import Piece

READS, OUTPUT = "cache_read", "output"
# What is thought of a weight without data: it is its price, give or take this, as a logarithm.
_PRIOR = 0.7
# Pieces are compared within so many days; a weight is learned by so many rounds; with fewer pieces there are none.
_DAYS, _ROUNDS, _FEWEST = 7, 8, 25
# No weight is more than this, up or down, as a logarithm.
_MOST = 2.5
# A weight is worth telling if its error, as a logarithm, is at most this.
_SURE = 0.4
# A family needs this share of the cost for a weight of its own.
_SHARE = 0.05


class Weights(NamedTuple):
    """Logarithms of the weights of classes and families, relative to fresh input of the main family; and their errors."""

    main: str
    logs: Mapping[str, float]
    errors: Mapping[str, float]

    def of_piece(self, piece: Piece) -> float:
        """The dollars of a piece, weighed."""
        weighed, shares = _weight_of(piece, self.logs)
        return piece.usd * weighed if shares is not None else piece.usd

    def sure(self) -> dict[str, tuple[float, float, float]]:
        """The weights that the data can tell: name -> the 10, 50 and 90 % points."""
        return {
            name: (math.exp(log - 1.28 * error), math.exp(log), math.exp(log + 1.28 * error))
            for name, log in self.logs.items()
            for error in [self.errors[name]]
            if error <= _SURE
        }


PRICES = Weights("", {}, {})


def _weight_of(piece: Piece, logs: Mapping[str, float]) -> tuple[float, dict[str, float] | None]:
    """The weight of a piece's dollar, and the share that each weight has in it; None without parts."""
    whole = weighed = 0.0
    shares: dict[str, float] = {}
    for family, (usd, reads, output) in piece.parts.items():
        base = logs.get(family, 0.0)
        whole += usd
        for name, cost in (("", usd - reads - output), (READS, reads), (OUTPUT, output)):
            part = cost * math.exp(base + logs.get(name, 0.0))
            weighed += part
            for each in (name, family):
                shares[each] = shares.get(each, 0.0) + part
    if whole <= 0 or weighed <= 0:
        return 1.0, None
    return weighed / whole, {name: part / weighed for name, part in shares.items()}


def weights(pieces: Sequence[Piece]) -> Weights:
    """What the pieces of one limit teach, in order of time; list prices if they are few."""
    usd: dict[str, float] = {}
    for piece in pieces:
        for family, (cost, *_) in piece.parts.items():
            usd[family] = usd.get(family, 0.0) + cost
    if len(pieces) < _FEWEST or not usd:
        return PRICES
    main = max(sorted(usd), key=usd.__getitem__)
    whole = sum(usd.values())
    names = [READS, OUTPUT, *sorted(name for name in usd if name != main and usd[name] >= _SHARE * whole)]
    values = [0.0] * len(names)
    errors = [_PRIOR] * len(names)
    for _ in range(_ROUNDS):
        values, errors = _round(pieces, names, values)
    return Weights(main, dict(zip(names, values, strict=True)), dict(zip(names, errors, strict=True)))


def _round(pieces: Sequence[Piece], names: Sequence[str], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Better values from some values, and their errors."""
    logs = dict(zip(names, values, strict=True))
    groups: dict[int, list[tuple[float, float, list[float]]]] = {}  # log ratio, error, shares
    for piece in pieces:
        weighed, shares = _weight_of(piece, logs)
        if shares is not None:
            distance = math.log(piece.percent / piece.usd / weighed)
            row = [shares.get(name, 0.0) for name in names]
            groups.setdefault(piece.at // (_DAYS * when.DAY), []).append((distance, piece.error / piece.percent, row))
    centred = [item for group in groups.values() if len(group) > 2 for item in _centre(group)]
    if not centred:
        return list(values), [_PRIOR] * len(names)
    spread = 1.48 * _median([abs(distance) for distance, *_ in centred]) + 0.02
    count = len(names)
    matrix = [[0.0] * count for _ in names]
    right = [0.0] * count
    for distance, error, row in centred:
        width = math.hypot(spread, error)
        # What lies far off counts little; above, where use elsewhere is likely, still less.
        weight = 1 / (1 + (distance / width / (1.5 if distance > 0 else 2.5)) ** 2) ** 2 / width**2
        for i, share in enumerate(row):
            right[i] += weight * share * distance
            for j, other in enumerate(row):
                matrix[i][j] += weight * share * other
    # Pieces of a session are alike: they teach about a third of what they would alone.
    for i in range(count):
        right[i] = right[i] / _ALIKE - values[i] / _PRIOR**2
        for j in range(count):
            matrix[i][j] /= _ALIKE
        matrix[i][i] += 1 / _PRIOR**2
    inverse = _inverse(matrix)
    steps = [sum(a * b for a, b in zip(line, right, strict=True)) for line in inverse]
    better = [max(-_MOST, min(_MOST, value + max(-1.0, min(1.0, step)))) for value, step in zip(values, steps, strict=True)]
    return better, [math.sqrt(max(inverse[i][i], 0.0)) for i in range(count)]


_ALIKE = 3.0


def _centre(group: Sequence[tuple[float, float, list[float]]]) -> list[tuple[float, float, list[float]]]:
    """Pieces of the same days, relative to their middle."""
    middle = _median([distance for distance, *_ in group])
    near = [row for distance, _, row in group if abs(distance - middle) < 0.5] or [row for *_, row in group]
    means = [sum(column) / len(near) for column in zip(*near, strict=True)]
    return [
        (distance - middle, error, [share - mean for share, mean in zip(row, means, strict=True)])
        for distance, error, row in group
    ]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """The inverse of a small positive definite matrix (Gauss-Jordan)."""
    count = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(count))] for i, row in enumerate(matrix)]
    for i in range(count):
        pivot = rows[i][i]
        rows[i] = [value / pivot for value in rows[i]]
        for j in range(count):
            if j != i:
                factor = rows[j][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[count:] for row in rows]
