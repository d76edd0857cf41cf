"""What was really spent: the generator's own book, which the log is compared with in the end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Json = dict[str, Any]

CLASSES = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens")
# Dollars per million tokens in the order of CLASSES: prices of nobody's, so that no catalogue can be right by chance.
PRICES = {
    ("anthropic", "claude-opus-4-6"): ("5.03", "0.51", "6.29", "10.07", "25.13"),
    ("anthropic", "claude-haiku-4-5"): ("1.01", "0.11", "1.27", "2.03", "5.03"),
    ("openai", "gpt-5.4"): ("2.51", "0.26", "2.51", "2.51", "15.01"),
    ("openai", "gpt-5.4-mini"): ("0.73", "0.07", "0.73", "0.73", "4.51"),
}
CLAUDE = [model for provider, model in PRICES if provider == "anthropic"]
GPT = [model for provider, model in PRICES if provider == "openai"]
PROVIDER = {model: provider for provider, model in PRICES}


@dataclass
class Turn:
    """One request and its answer, as the generator knows it."""

    number: int
    client: str  # claude-code, codex, sdk
    session: str
    model: str
    counts: dict[str, int]
    name: str = ""  # the vendor's id, where log and wire share one
    state: str = "whole"  # whole; cut: only its beginning was told; unknown: no counts were told; error; maybe: nobody knows
    logged: bool = False  # a client wrote it down
    wired: bool = False  # it passed the proxy
    begun: int = 0  # on the injected clock
    told: int = 0  # the earliest time that a transcript gives it
    done: int = 0
    from_s: float = 0.0  # on a clock that only goes forward
    until_s: float = 0.0

    @property
    def key(self) -> tuple[Any, ...]:
        """How its record is found."""
        return key_of(self.client, self.session, self.name, self.counts)


def key_of(client: str, session: str, name: str, counts: Json) -> tuple[Any, ...]:
    """The vendor's id; of Codex the thread and the counts; what only the proxy saw is told by its session."""
    if client == "claude-code":
        return (client, name)
    return (client, session, *tally(counts)) if client == "codex" else (client, session)


def tally(counts: Json) -> tuple[int, ...]:
    """The classes, in order."""
    return tuple(counts.get(name, 0) for name in CLASSES)


def cost(model: str, counts: Json) -> Decimal:
    """What counts cost, worked out with nothing of the product's."""
    prices = map(Decimal, PRICES[PROVIDER[model], model])
    return sum((price * counts.get(name, 0) for price, name in zip(prices, CLASSES, strict=True)), Decimal(0)) / 1_000_000


def override() -> Json:
    """The prices as a file of one's own."""
    providers: Json = {}
    for (provider, model), prices in PRICES.items():
        row = dict(zip(("input", "cache_read", "cache_write", "cache_write_1h", "output"), prices, strict=True))
        providers.setdefault(provider, {"models": {}})["models"][model] = {"prices": [row]}
    return {"schema": 1, "providers": providers}


@dataclass
class Ledger:
    """Every turn there was."""

    rng: random.Random
    turns: list[Turn] = field(default_factory=list)

    def turn(self, client: str, session: str, model: str, context: int) -> Turn:
        """A new turn with counts of its own."""
        fresh, write, output = (self.rng.randrange(1, most) for most in (400, 4000, 2500))
        counts = {"input_tokens": fresh, "cache_read_tokens": context, "output_tokens": output}
        if PROVIDER[model] == "anthropic":
            counts[self.rng.choice(("cache_write_tokens", "cache_write_1h_tokens"))] = write
        else:
            counts["input_tokens"] += write
        made = Turn(len(self.turns), client, session, model, {name: n for name, n in counts.items() if n})
        self.turns.append(made)
        return made

    def seeds(self, days: list[str], each: int) -> Iterator[Json]:
        """Turns of days gone by, as events; they stand in the ledger too."""
        for day in days:
            for number in range(each):
                turn = self.turn("claude-code", f"seed-{day}", self.rng.choice(CLAUDE), self.rng.randrange(200_000))
                turn.name, turn.logged = f"msg_seed{day}{number:05d}", True
                second = number * 86_000 // each
                at = f"{day}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.000Z"
                about: Json = {
                    "source": "claude-code-jsonl",
                    "client": "claude-code",
                    "project": "past",
                    "session_id": turn.session,
                }
                about |= {"provider": "anthropic", "model": turn.model, "turns": 1}
                yield {"v": 1, "ts": at, "kind": "turn", "id": turn.name, **about, **turn.counts}
