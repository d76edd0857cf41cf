"""Simulated accounts of bench/worth.py as logs, for tests of what a percent is worth and of plans."""

from __future__ import annotations

import sys
from typing import NamedTuple

from conftest import ROOT, Json
from tokenops import events, jsonl, when

sys.path.insert(0, str(ROOT / "bench"))
import worth


class Logged(NamedTuple):
    """An account, its log as records, and the moment at which it ends."""

    account: worth.Account
    log: bytes
    end: int


def account(seed: int, days: int) -> Logged:
    """An account that is little used elsewhere."""
    made_up = worth.account(seed, days, {}, worth.Habits(elsewhere=0.2))
    turns: list[Json] = [
        {"v": 1, "kind": "turn", "id": f"t{number}", "ts": when.stamp(spend.at), "source": "test", "client": "claude-code"}
        | {"provider": "anthropic", "model": spend.model, "turns": 1, "cost_usd": str(spend.usd), "cost_source": "reported"}
        for number, spend in enumerate(made_up.spends)
    ]
    meters = [
        events.meter("proxy", "anthropic", when.stamp(reading.at), window="five_hour", window_minutes=300)
        | {"used": reading.used, "resets_at": when.stamp(reading.resets_at or 0)}
        for reading in made_up.readings
    ]
    return Logged(made_up, b"".join(map(jsonl.line_of, [*turns, *meters])), worth.START + days * when.DAY)
