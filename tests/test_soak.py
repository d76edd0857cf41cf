"""The soak's own judgement: what is lost, doubled, changed or made up is told; what is as it should be is not."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
import soak_checks
from soak_ledger import Ledger
from soak_parts import Sample

Json = dict[str, Any]


def made() -> tuple[Ledger, list[Json]]:
    """A ledger, and records that agree with it."""
    ledger = Ledger(random.Random(1))
    records = []
    for number in range(40):
        client = ("claude-code", "codex", "sdk")[number % 3]
        turn = ledger.turn(client, f"{'sdk' if client == 'sdk' else 's'}-{number}", "gpt-5.4", 5000 + number)
        turn.name, turn.wired, turn.logged = f"id{number}", client == "sdk", client != "sdk"
        turn.begun = turn.told = 1_792_872_000_000 + number * 60_000
        turn.from_s, turn.until_s = float(number), number + 0.5
        at = f"2026-10-24T20:{number:02d}:00.000Z"
        about = {"kind": "turn", "ts": at, "id": turn.name, "client": client, "session_id": turn.session}
        records.append({"v": 1, **about, "model": turn.model, "turns": 1, **turn.counts})
    return ledger, records


def test_what_agrees_agrees() -> None:
    ledger, records = made()
    book = soak_checks.compared(ledger, records, [])
    assert len(book.found) == 40
    assert not any((book.missing, book.doubled, book.changed, book.strangers, book.excused))
    counts, dollars = soak_checks.sums(book.found), soak_checks.bills(book.found)
    row = {"model": "gpt-5.4", "turns": 40, **dict(zip(soak_checks.CLASSES, counts["gpt-5.4"][1:], strict=True))}
    said = soak_checks.rows([row | {"cost_usd": str(dollars["gpt-5.4"])}], "model")
    assert not soak_checks.differences(counts, said[0]) and not soak_checks.differences(dollars, said[1])
    assert soak_checks.differences(dollars, {"gpt-5.4": dollars["gpt-5.4"] + Decimal("0.000001")})
    assert sum(row[0] for row in soak_checks.by_time(book.found, "hour", "Europe/Berlin")[0].values()) == 40


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_wrong_is_told(number: int) -> None:
    ledger, records = made()
    one = records[number]
    less = {**one, "output_tokens": one["output_tokens"] - 1}
    assert soak_checks.compared(ledger, [r for r in records if r is not one], []).missing
    assert soak_checks.compared(ledger, [*records, dict(one)], []).doubled
    assert soak_checks.compared(
        ledger, [*records, {**one, "id": "other", "session_id": "x", "client": "codex"}], []
    ).strangers
    for wrong in ({"latency_ms": -7_199_000}, {"model": "gpt-5"}, {"usage": "partial"}, {"ts": "2026-10-25T20:00:00.000Z"}):
        assert soak_checks.compared(ledger, [r if r is not one else {**one, **wrong} for r in records], []).changed, wrong
    book = soak_checks.compared(ledger, [r if r is not one else less for r in records], [])
    assert book.changed or book.missing


def test_a_kill_excuses_only_what_ended_at_that_moment_and_stands_nowhere_else() -> None:
    ledger, records = made()
    for gone, excused in ((2, True), (5, False), (0, False)):
        rest = [r for r in records if r is not records[gone]]
        book = soak_checks.compared(ledger, rest, [(3.0, 3.2)])
        assert (book.excused == 1 and not book.missing) == excused, gone


def test_what_grows_is_told() -> None:
    samples = [Sample(float(n), 1, 9 + n // 30, 50.0 + n / 20, 3) for n in range(240)]
    found = soak_checks.trend(samples, "resident", 60)
    assert found is not None and found.slope == pytest.approx(3.0) and found.last - found.first > 6
    assert soak_checks.trend(samples[:20], "resident", 60) is None
