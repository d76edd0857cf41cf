"""Prices of routers and resellers: their own published ones, never those of the vendor whose model it is; else the reason."""

from __future__ import annotations

import re

import pytest

from conftest import Json, Run, lines, objects
from tokenops import price_names, pricing

CATALOGUE = pricing.load()
M = 1_000_000
ROUTERS = ("openrouter", "together", "fireworks", "vercel", "github", "opencode-go")


def event(provider: str, model: str, **counts: int) -> Json:
    return {"v": 1, "ts": "2026-11-28T12:00:00.000Z", "kind": "turn", "id": "t1", "provider": provider, "model": model, "turns": 1} | counts  # fmt: skip


def price(provider: str, model: str, **counts: int) -> str:
    made = event(provider, model, **counts)
    rate = CATALOGUE.rate_of(made)
    if isinstance(rate, pricing.Unpriced):
        return rate.reason
    cost = pricing.cost_of(rate, made)
    return pricing.plain(cost.usd) if isinstance(cost, pricing.Cost) else cost.reason


# Worked out by hand from what the routers' price lists said, as two public tables had them on 2026-12-01.
@pytest.mark.parametrize(
    ("provider", "model", "counts", "usd"),
    [
        ("openrouter", "anthropic/claude-opus-5.5", {"input_tokens": M, "output_tokens": M}, "24"),
        ("openrouter", "Anthropic/Claude-Opus-5.5", {"cache_read_tokens": M, "cache_write_tokens": M}, "5.2"),
        ("openrouter", "openrouter/anthropic/claude-opus-5.5", {"input_tokens": M}, "4"),
        ("openrouter", "anthropic/claude-opus-5.5-20260921", {"output_tokens": M}, "20"),
        ("openrouter", "openai/gpt-6.1-sol", {"input_tokens": 272_000}, "0.544"),
        ("openrouter", "openai/gpt-6.1-sol", {"input_tokens": 272_001, "output_tokens": 1000}, "1.103004"),
        ("openrouter", "qwen/qwen3.8-max-0902", {"input_tokens": M, "output_tokens": M}, "8"),
        ("together", "deepseek-ai/DeepSeek-V4-Pro-0813", {"input_tokens": M, "output_tokens": M}, "5.28"),
        ("fireworks", "accounts/fireworks/models/glm-5p3", {"input_tokens": M, "output_tokens": M}, "5.8"),
        ("fireworks", "fireworks_ai/accounts/fireworks/models/glm-5p3", {"cache_read_tokens": M}, "0.26"),
        ("fireworks", "accounts/fireworks/routers/glm-5p3-fast", {"input_tokens": M}, "2.1"),
        ("vercel", "anthropic/claude-sonnet-4.5", {"input_tokens": M, "output_tokens": M}, "18"),
        ("github", "claude-opus-5.5", {"input_tokens": M, "cache_write_tokens": M, "output_tokens": M}, "29"),
        ("github", "claude-haiku-5.5", {"input_tokens": 100_001}, "0.0500005"),
        ("opencode-go", "deepseek-v4.1-flash", {"input_tokens": M, "output_tokens": M}, "1.5"),
    ],
)
def test_what_a_router_publishes(provider: str, model: str, counts: dict[str, int], usd: str) -> None:
    assert price(provider, model, **counts) == usd


@pytest.mark.parametrize(
    ("provider", "model", "why"),
    [
        ("openrouter", "anthropic/claude-opus-99", "openrouter sets its own prices; add an override"),
        ("openrouter", "claude-opus-5-5", "openrouter sets its own prices; add an override"),
        ("openrouter", "anthropic/claude-opus-5.5:nitro", "openrouter sets its own prices; add an override"),
        ("openrouter", "moonshotai/kimi-k3", "OpenRouter listed moonshotai/kimi-k3 at 0.239 to 3 for input"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "the sources disagree about"),
        ("together", "claude-opus-5-5", "together sets its own prices; add an override"),
        ("fireworks", "accounts/fireworks/models/deepseek-v4-pro", "the sources disagree about deepseek-v4-pro"),
        ("fireworks", "kimi-k99", "fireworks sets its own prices; add an override"),
        ("vercel", "anthropic/claude-opus-5.5", "vercel sets its own prices; add an override"),
        ("github", "claude-opus-99", "no price is known for 'claude-opus-99' at github"),
        ("opencode", "claude-opus-5-5", "opencode Zen sets its own prices"),
        ("litellm", "claude-opus-5-5", "litellm sets its own prices; add an override"),
    ],
)
def test_what_no_source_has_stays_unpriced_with_the_reason(provider: str, model: str, why: str, run: Run) -> None:
    assert why in price(provider, model, output_tokens=M)
    (told,) = objects(run(f"tok-price show '{model}' --provider {provider} --json", status=1).stdout)
    assert why in told["unpriced"]
    (row,) = objects(run("tok-cost --by none --json", lines([event(provider, model, output_tokens=M)])).stdout)
    assert "cost_usd" not in row and why in row["unpriced"][0]["reason"]
    assert (
        why[:40] in run("tok-price explain", lines([event(provider, model, output_tokens=M)]), status=None).stdout.decode()
    )


@pytest.mark.parametrize("provider", ROUTERS)
def test_each_price_says_who_said_so_and_one_table_is_never_high(provider: str) -> None:
    body = CATALOGUE.providers[provider]
    assert len(body["models"]) > 20
    for model, rows in body["models"].items():
        for row in rows:
            read = [body["sources"][key] for key in row["src"]]
            assert read and all(re.fullmatch(r"2026-\d\d-\d\d", str(one["captured"])) for one in read), model
            assert len(read) > 1 or row["confidence"] != "high", model
            assert row["confidence"] in ("high", "medium", "low"), model


def test_what_clients_call_them() -> None:
    words = {"github-copilot": "github", "copilot": "github", "opencode": "opencode", "opencode-go": "opencode-go"}
    words |= {
        "vercel-ai-gateway": "vercel",
        "togetherai": "together",
        "fireworks-ai": "fireworks",
        "openrouter": "openrouter",
    }
    assert {word: price_names.biller(word) for word in words} == words


def test_what_opencode_worked_out_for_zen_counts_as_its_own(run: Run) -> None:
    """Zen and opencode are of one maker; its figure is shown as the client's, not as ours and not as billed."""
    made = event("opencode", "claude-opus-5-5", output_tokens=M) | {"cost_usd": "19.5", "cost_source": "client"}
    (row,) = objects(run("tok-cost --by none --json", lines([made])).stdout)
    assert (row["cost_usd"], row["cost_source"]) == ("19.5", "client")


def test_copilot_is_also_counted_in_its_own_unit(run: Run) -> None:
    """GitHub counts AI credits, of one cent each: 4 dollars for a million tokens are 400."""
    listed = event("github", "claude-opus-5.5", input_tokens=M)
    billed = event("github", "gpt-5.4", output_tokens=5) | {"id": "t2", "cost_usd": "0.0125", "cost_source": "reported"}
    other = event("anthropic", "claude-opus-5-5", input_tokens=M) | {"id": "t3"}
    rows = {
        row["provider"]: row for row in objects(run("tok-cost --by provider --json", lines([listed, billed, other])).stdout)
    }
    assert (rows["github"]["cost_usd"], rows["github"]["credits"], rows["github"]["credits_unit"]) == (
        "4.0125",
        "401.25",
        "AI credits",
    )
    assert "credits" not in rows["anthropic"]
    assert b"github: 401 AI credits" in run("tok-cost --by provider --table", lines([listed, billed, other])).stdout
    shown = run("tok-price explain --table", lines([listed, billed])).stdout.decode()
    assert "400 AI credits" in shown and "1.25 AI credits" in shown


def test_a_bill_of_the_router_comes_before_its_list(run: Run) -> None:
    made = event("openrouter", "anthropic/claude-opus-5.5", output_tokens=M) | {"cost_usd": "17", "cost_source": "reported"}
    (row,) = objects(run("tok-cost --by none --json", lines([made])).stdout)
    assert (row["cost_usd"], row["cost_source"]) == ("17", "reported")
