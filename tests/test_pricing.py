"""Prices: exact to the last digit, or unpriced with a reason; never a neighbour's."""

from __future__ import annotations

import ast
import csv
import pathlib
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import compare_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import DATA, ROOT, SHARED, Json, Run, lines, needs_shared, objects
from tokenops import catalog, price_cards, price_names, pricing, rollup, when

CATALOGUE = pricing.load()
M = 1_000_000


def cost(
    provider: str | None, model: str, at: str = "2026-11-21T12:00:00.000Z", catalogue: Any = CATALOGUE, **given_keys: Any
) -> Any:
    """A turn's cost as text, or the reason why it has none."""
    event: Json = {
        "v": 1,
        "ts": at,
        "kind": "turn",
        "id": "x",
        "turns": 1,
        "model": model,
        "provider": provider,
    } | given_keys
    event = {key: value for key, value in event.items() if value is not None}
    (row,) = rollup.merge_rows(rollup.roll_up([event], rollup.Grouping((), when.UTC, catalogue), print), catalogue)
    return row["unpriced"][0]["reason"] if "unpriced" in row else row["cost_usd"]


GOLDEN = compare_prices.cases(DATA / "golden_costs.csv")
_BY_OTHERS = SHARED / "golden_costs.csv"


def worked_out(how: str) -> Fraction:
    """Arithmetic as it stands in the tables: products added up, a division, and no rounding."""

    def value(node: ast.AST) -> Fraction:
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            return (
                left + right
                if isinstance(node.op, ast.Add)
                else left * right
                if isinstance(node.op, ast.Mult)
                else left / right
            )
        assert isinstance(node, ast.Constant)
        return Fraction(ast.get_source_segment(how, node) or "")

    return value(ast.parse(how, mode="eval").body)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['model']}-{case['date']}")
def test_golden_costs(case: Json) -> None:
    """Worked out by hand: the arithmetic stands in the table, and is checked too."""
    check_cost(case)
    how = case["how"].partition(";")[0].strip()
    assert not how or Fraction(case["usd"]) == worked_out(how)


@needs_shared
@pytest.mark.parametrize(
    "case",
    compare_prices.cases(_BY_OTHERS) if SHARED.is_dir() else [],
    ids=lambda case: f"{case['model']}-{case['date']}",
)
def test_golden_costs_of_others(case: Json) -> None:
    check_cost(case)


def check_cost(case: Json) -> None:
    """A case costs what its table says, or has no price."""
    event = compare_prices.event_of(case, 1)
    (row,) = rollup.merge_rows(rollup.roll_up([event], rollup.Grouping((), when.UTC, CATALOGUE), print), CATALOGUE)
    if case["usd"].replace(".", "").isdigit():
        assert Decimal(row["cost_usd"]) == Decimal(case["usd"]), case["how"]
    else:
        assert "unpriced" in row


def check_rates(provider: str, model: str, day: str, rates: Iterable[tuple[str, str, int]]) -> int:
    """So many tokens of a class cost what a list says; how many prices that were."""
    checked = 0
    for field, rate, count in rates:
        if rate:
            said = cost(provider, model, f"{day}T12:00:00.000Z", requests=0, **{field: count})
            assert Decimal(said) == Decimal(rate) * count / M, (provider, model, field)
            checked += 1
    return checked


def test_list_prices() -> None:
    checked = 0
    for row in csv.DictReader((DATA / "prices.csv").open(newline="")):
        names = ("input", "cache_read", "cache_write", "cache_write_1h", "output")
        rates = [(f"{name}_tokens", row[name], 1000) for name in names]
        long = int(row["long_from"] or 0)
        rates += [("input_tokens", row["long_input"], long), ("cache_read_tokens", row["long_cache_read"], long)]
        if long:
            rates.append(("input_tokens", row["input"], long - 1))
        checked += check_rates(row["provider"], row["model"], row["day"], rates)
    assert checked > 180


@needs_shared
def test_every_listed_price_of_high_confidence() -> None:
    checked = 0
    with open(SHARED / "prices.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] != "agreed" or "confidence=high" not in row["other"]:
                continue
            # The long-context rate of Sonnet 4.5 is a dated record.
            day = "2026-02-01" if row["model"].startswith("claude-sonnet-4-5") else "2026-11-21"
            listed = [
                ("input_tokens", row["input"], 1000),
                ("output_tokens", row["output"] if Decimal(row["output"] or 0) else "", 1000),
                ("cache_read_tokens", row["cache_read"], 1000),
                ("cache_write_tokens", row["cache_write_5m"], 1000),
                ("cache_write_1h_tokens", row["cache_write_1h"], 1000),
            ]
            if row["context_tier_threshold"]:
                step = int(row["context_tier_threshold"].lstrip(">=")) + (row["provider"] != "xai")
                listed += [("input_tokens", row["input_above"], step), ("cache_read_tokens", row["cache_read_above"], step)]
            checked += check_rates(row["provider"], row["model"], day, listed)
    assert checked > 500


def test_all_models_of_all_providers_are_there() -> None:
    counts = {
        name: len(body["models"]) + len(body["aliases"]) + len(body["unpriced"])
        for name, body in CATALOGUE.providers.items()
    }
    assert set(counts) == {
        "openrouter",
        "together",
        "fireworks",
        "vercel",
        "github",
        "opencode-go",
        "anthropic",
        "openai",
        "gemini",
        "mistral",
        "groq",
        "deepseek",
        "xai",
        "perplexity",
        "cerebras",
        "cohere",
        "alibaba",
        "minimax",
        "moonshot",
        "xiaomi",
        "zai",
    }
    assert sum(counts.values()) >= 430


def test_every_interval_says_where_it_comes_from() -> None:
    for body in CATALOGUE.providers.values():
        for source in body["sources"].values():
            assert source["url"].startswith("https://")
            assert when.canonical(str(source["captured"]) + "T00:00:00Z")
        for model, card in body["models"].items():
            for interval in card:
                assert interval["src"], model
                assert set(interval["src"]) <= set(body["sources"]), model
                assert interval["confidence"] in ("high", "medium", "low"), model


def test_no_name_means_two_rows_and_no_pattern_is_built_in() -> None:
    for provider, body in CATALOGUE.providers.items():
        assert not set(body["models"]) & set(body["aliases"])
        for name in (*body["models"], *body["aliases"]):
            assert "*" not in name
            found = CATALOGUE.find(provider, name)
            assert isinstance(found, pricing.Lookup)
            assert found.name == f"{provider}/{name}"
        for alias, targets in body["aliases"].items():
            for target in targets:
                assert target["to"] in body["models"], (provider, alias)


def test_no_cached_token_costs_more_than_a_fresh_one() -> None:
    for body in CATALOGUE.providers.values():
        for model, card in body["models"].items():
            for interval in card:
                for tier in interval["tiers"].values():
                    for block in (
                        tier["rates"],
                        *({**tier["rates"], **s["rates"]} for s in (*tier["above"], *tier["windows"])),
                    ):
                        read = block.get("cache_read")
                        if read not in (None, price_cards.SAME) and block["input"] is not None:
                            assert Decimal(read) <= Decimal(block["input"]), model


# Each mistake of the public record (counters, routers and price tables got these wrong in the field), as a case.
MISTAKES: list[tuple[str, str, str | None, str, str, Json, str]] = [
    ("cached tokens are no fresh ones", "openai", None, "gpt-5", "2026-02-01", {"input_tokens": M // 10, "cache_read_tokens": 9 * M // 10}, "0.2375"),
    ("1-hour writes are not 5-minute writes", "anthropic", None, "claude-opus-4-8", "2026-07-01", {"cache_write_tokens": M, "cache_write_1h_tokens": M}, "16.25"),
    ("1-hour writes of Haiku 3.5", "anthropic", None, "claude-3-5-haiku-20241022", "2025-08-01", {"cache_write_1h_tokens": M}, "1.6"),
    ("no discount on cached tokens of a pro model", "openai", None, "gpt-5.5-pro", "2026-06-01", {"cache_read_tokens": 100_000}, "3"),
    ("a model without a write price is not free to write", "openai", None, "gpt-5.5", "2026-06-01", {"cache_write_tokens": M // 10}, "0.5"),
    ("mini is not its elder", "openai", None, "gpt-5.4-mini", "2026-06-01", {"output_tokens": M}, "4.5"),
    ("dated mini", "openai", None, "gpt-4o-mini-2024-07-18", "2026-06-01", {"input_tokens": M}, "0.15"),
    ("gpt-4.1 is not gpt-4", "openai", None, "gpt-4.1", "2026-06-01", {"input_tokens": M}, "2"),
    ("o1-mini is not o1", "openai", None, "o1-mini-2024-09-12", "2025-03-01", {"output_tokens": M}, "4.4"),
    ("an old snapshot keeps its price", "openai", None, "gpt-4o-2024-05-13", "2026-02-01", {"output_tokens": M}, "15"),
    ("reasoning is inside output", "openai", None, "gpt-5", "2026-02-01", {"output_tokens": M, "reasoning_tokens": 800_000}, "10"),
    ("thoughts are output", "gemini", None, "gemini-2.5-pro", "2026-02-01", {"output_tokens": 8150, "reasoning_tokens": 8000}, "0.0815"),
    ("a part of another price: reasoning", "perplexity", None, "sonar-deep-research", "2026-05-01", {"output_tokens": 3 * M, "reasoning_tokens": M}, "19"),
    ("citations", "perplexity", None, "sonar-deep-research", "2026-05-01", {"citation_tokens": M, "web_searches": 30}, "2.15"),
    ("the whole request moves", "openai", None, "gpt-5.6-sol", "2026-08-25", {"input_tokens": 270_540, "cache_read_tokens": 7936, "output_tokens": 630}, "2.1895688"),
    ("exactly at a step that is `gt`", "openai", None, "gpt-5.4", "2026-06-01", {"input_tokens": 100_000, "cache_read_tokens": 172_000}, "0.293"),
    ("exactly at a step that is `ge`", "xai", None, "grok-4.3", "2026-08-18", {"input_tokens": 200_000}, "0.5"),
    ("one below it", "xai", None, "grok-4.3", "2026-08-18", {"input_tokens": 199_999}, "0.24999875"),
    ("cache writes are prompt", "anthropic", None, "claude-haiku-5-5", "2026-11-01", {"input_tokens": 1, "cache_write_tokens": 100_000}, "0.0625005"),
    ("a premium that ended", "anthropic", None, "claude-opus-4-6", "2026-03-20", {"input_tokens": 250_000}, "1.25"),
    ("and while it lasted", "anthropic", None, "claude-opus-4-6", "2026-03-12", {"input_tokens": 250_000}, "2.5"),
    ("the day before a cut", "anthropic", None, "claude-sonnet-5-5", "2026-10-06", {"cache_read_tokens": M}, "0.2"),
    ("the day of it", "anthropic", None, "claude-sonnet-5-5", "2026-10-07", {"cache_read_tokens": M}, "0.1"),
    ("a rise that was cancelled", "anthropic", None, "claude-sonnet-5", "2026-09-02", {"input_tokens": M}, "2"),
    ("a rise to come", "gemini", None, "gemini-3.6-flash", "2027-01-02", {"input_tokens": M}, "1.5"),
    ("a launch price", "gemini", None, "gemini-3.6-flash", "2026-08-01", {"input_tokens": M}, "1.5"),
    ("a day's peak", "deepseek", None, "deepseek-flash", "2026-11-18T07:00", {"input_tokens": M}, "0.3"),
    ("its end is outside", "deepseek", None, "deepseek-flash", "2026-11-18T04:00", {"input_tokens": M}, "0.15"),
    ("no peak on a Saturday", "deepseek", None, "deepseek-flash", "2026-11-21T02:00", {"input_tokens": M}, "0.15"),
    ("but one before the weekend rule", "deepseek", None, "deepseek-v4-pro", "2026-08-22T02:00", {"input_tokens": M}, "1.32"),
    ("no peak on National Day", "deepseek", None, "deepseek-flash", "2026-10-01T02:00", {"input_tokens": M}, "0.15"),
    ("a night's discount of 2025", "deepseek", None, "deepseek-reasoner", "2025-03-01T23:59", {"output_tokens": M}, "0.55"),
    ("after midnight too", "deepseek", None, "deepseek-reasoner", "2025-03-01T00:29", {"output_tokens": M}, "0.55"),
    ("and not after", "deepseek", None, "deepseek-reasoner", "2025-03-01T00:30", {"output_tokens": M}, "2.19"),
    ("an alias that moved", "mistral", None, "mistral-large-latest", "2025-12-01", {"input_tokens": M}, "2"),
    ("to where it moved", "mistral", None, "mistral-large-latest", "2025-12-02", {"input_tokens": M}, "0.5"),
    ("a retired name billed as its successor", "xai", None, "grok-4", "2026-06-10", {"input_tokens": 10_000}, "0.0125"),
    ("batch halves cache classes too", "anthropic", "batch", "claude-opus-5-5", "2026-11-01", {"cache_read_tokens": M // 10, "cache_write_1h_tokens": M}, "4.01"),
    ("batch with a published rounding", "openai", "batch", "gpt-5.4", "2026-10-20", {"cache_read_tokens": M // 10}, "0.013"),
    ("batch that leaves cached tokens alone", "gemini", "batch", "gemini-2.5-pro", "2026-11-01", {"cache_read_tokens": M // 10}, "0.0125"),
    ("fast is priority", "openai", "fast", "gpt-6.1-sol", "2026-10-20", {"input_tokens": M // 10}, "0.4"),
    ("priority does not exist in long context up to GPT-5.5", "openai", "priority", "gpt-5.5", "2026-10-20", {"input_tokens": M}, "10"),
    ("priority in long context", "openai", "priority", "gpt-6-astra", "2026-11-24", {"input_tokens": 300_000, "output_tokens": 10_000}, "13.5"),
    ("fast in long context, earlier interval too", "openai", "fast", "gpt-5.6-luna", "2026-07-01", {"input_tokens": M}, "4"),
    ("ultrafast in long context", "openai", "ultrafast", "gpt-6.1-sol", "2026-11-24", {"input_tokens": 300_000, "cache_write_12h_tokens": M}, "67.2"),
    ("priority at the step", "openai", "priority", "gpt-6-luna", "2026-11-24", {"input_tokens": 272_000}, "0.0544"),
    ("six times fast, once", "anthropic", "fast", "claude-opus-4-6", "2026-04-01", {"output_tokens": M}, "150"),
    ("fine-tuned is not its base", "openai", None, "ft:gpt-4.1-2025-04-14:acme::x", "2026-02-01", {"input_tokens": M}, "3"),
    ("fine-tuned, cached", "openai", None, "ft:gpt-4o-2024-11-20:acme::x", "2026-02-01", {"cache_read_tokens": M}, "1.875"),
    ("a unit slip of a thousand", "cohere", None, "embed-multilingual-light-v3.0", "2026-11-01", {"input_tokens": M}, "0.1"),
    ("audio beside text", "openai", None, "gpt-audio", "2026-11-01", {"input_tokens": 2 * M, "audio_input_tokens": M}, "34.5"),
    ("images out", "gemini", None, "gemini-3-pro-image", "2026-11-01", {"output_tokens": 2 * M, "image_output_tokens": M}, "132"),
    ("web searches, not multiplied by a tier", "anthropic", "batch", "claude-opus-5-5", "2026-11-01", {"web_searches": 3}, "0.03"),
    ("precision", "openai", None, "gpt-6-luna", "2026-10-20", {"input_tokens": 1, "output_tokens": 1}, "0.0000006"),
]  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case[0])
def test_mistakes_seen_in_the_wild(case: Any) -> None:
    _, provider, tier, model, at, counts, usd = case
    ts = when.canonical(at + (":00Z" if "T" in at else "T12:00:00Z"))
    assert cost(provider, model, ts, tier=tier, **counts) == usd


PLACES = [
    ("openai", "gpt-6.1-sol", "eu", "0.22"),
    ("openai", "gpt-4o", "eu", "0.25"),
    ("anthropic", "claude-opus-4-6", "us", "0.55"),
    ("anthropic", "claude-opus-4-5", "us", "0.5"),
    ("anthropic", "claude-opus-4-6", "mars", "anthropic/claude-opus-4-6 has no published price for mars processing"),
    ("bedrock", "us.anthropic.claude-opus-4-6-v1:0", None, "0.55"),
    ("bedrock", "anthropic.claude-opus-4-6-v1", None, "0.55"),
    ("bedrock", "global.anthropic.claude-opus-4-6-v1:0", None, "0.5"),
    ("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0", None, "0.3"),
    ("bedrock", "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-opus-4-6-v1:0", None, "0.55"),
    ("bedrock", "us-gov.anthropic.claude-opus-4-6-v1:0", None, "0.6"),
    ("bedrock", "bedrock/us-gov.anthropic.claude-opus-4-6-v1:0", "us", "0.6"),
    (
        "bedrock",
        "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0",
        None,
        "0.36",
    ),
    ("bedrock", "bedrock/us-east-1/anthropic.claude-opus-4-6-v1:0", None, "0.55"),
    ("bedrock", "bedrock_mantle/anthropic.claude-opus-5-5", None, "0.44"),
    ("bedrock", "bedrock_mantle/us-gov-west-1/anthropic.claude-opus-5-5", None, "0.48"),
    ("bedrock", "bedrock/us-gov-east-1/claude-sonnet-4-5-20250929-v1:0", None, "0.36"),
    ("bedrock", "bedrock/claude_platform/claude-opus-5-5", None, "0.4"),
    ("bedrock", "bedrock/converse/global.anthropic.claude-opus-5-5", None, "0.4"),
    ("vertex", "projects/p/locations/global/publishers/anthropic/models/claude-opus-5-5", None, "0.4"),
    ("vertex", "projects/p/locations/us-east5/publishers/anthropic/models/claude-opus-5-5", None, "0.44"),
    ("azure", "claude-opus-5-5", None, "0.4"),
    ("bedrock", "us-gov.amazon.nova-pro-v1:0", None, "no price is known for 'us-gov.amazon.nova-pro-v1:0' at bedrock"),
    ("bedrock", "amazon.nova-pro-v1:0", None, "no price is known for 'amazon.nova-pro-v1:0' at bedrock"),
    ("vertex", "publishers/anthropic/models/claude-opus-4-6@20260205", None, "0.5"),
    ("vertex", "gemini-2.5-pro", None, "0.125"),
    ("azure", "azure/eu/gpt-4o", None, "0.275"),
    ("azure", "azure/gpt-4o", None, "0.25"),
    ("azure", "our-deployment", None, "no price is known for 'our-deployment' at azure"),
]


@pytest.mark.parametrize(("provider", "model", "geo", "usd"), PLACES)
def test_places_and_clouds(provider: str, model: str, geo: str | None, usd: str) -> None:
    assert cost(provider, model, geo=geo, input_tokens=100_000) == usd


# Worked out by hand from LiteLLM 1.110.2 and genai-prices 0.2.3, read on 2026-12-01.
LATER_MODELS = [
    ("zai", "glm-5.3[1m]", {"input_tokens": 1000, "cache_read_tokens": 10_000, "output_tokens": 100}, "0.00444"),
    ("zai", "GLM-4.5-Air", {"input_tokens": 1000, "output_tokens": 100}, "0.00031"),
    ("moonshot", "kimi-k3", {"cache_write_tokens": 1000, "cache_write_1h_tokens": 1000}, "0.009"),
    ("minimax", "MiniMax-M3", {"input_tokens": 512_000}, "0.1536"),
    ("minimax", "MiniMax-M3", {"input_tokens": 512_001}, "0.3072006"),
    ("alibaba", "qwen3-coder-plus", {"input_tokens": 32_000, "output_tokens": 100}, "0.0325"),
    ("alibaba", "qwen3-coder-plus", {"input_tokens": 32_001, "output_tokens": 100}, "0.0585018"),
    ("alibaba", "qwen3-coder-plus", {"cache_read_tokens": 256_001, "output_tokens": 100}, "0.1596006"),
    ("xiaomi", "mimo-v2.6-pro", {"cache_read_tokens": 1_000_000, "output_tokens": 1000}, "0.00447"),
    ("deepseek", "deepseek-v4-flash-vision-exp", {"input_tokens": 1000, "output_tokens": 100}, "0.00021"),
    ("gemini", "gemma-4-31b-it", {"input_tokens": 1000, "output_tokens": 100}, "0"),
    ("zhipuai", "glm-5.3", {"output_tokens": 1}, "no prices are known for zhipuai; add an override"),
    ("zhipu", "glm-5.3", {"output_tokens": 1}, "bigmodel.cn bills in yuan: no dollar price is published; add an override"),
]


@pytest.mark.parametrize(("provider", "model", "counts", "usd"), LATER_MODELS)
def test_later_models(provider: str, model: str, counts: Json, usd: str) -> None:
    assert cost(provider, model, **counts) == usd


def test_a_step_down_in_time_of_glm_flash() -> None:
    """The launch price ended at midnight in Beijing."""
    assert cost("zai", "glm-5.3-flash", "2026-09-09T15:59:59.999Z", input_tokens=M) == "0.075"
    assert cost("zai", "glm-5.3-flash", "2026-09-09T16:00:00.000Z", input_tokens=M) == "0.15"


@pytest.mark.parametrize(
    ("word", "provider"),
    [("zhipuai-coding-plan", "zhipu"), ("z.ai", "zai"), ("kimi-for-coding", "moonshot"), ("xiaomi-mimo", "xiaomi")],
)
def test_what_clients_call_the_newer_vendors(word: str, provider: str) -> None:
    assert price_names.biller(word) == provider


REASONS = [
    ("moonshot", "kimi-for-coding", {}, CATALOGUE.providers["moonshot"]["unpriced"]["kimi-for-coding"]),
    ("openai", "gpt-5.7", {}, "no price is known for 'gpt-5.7' at openai"),
    ("openai", "unknown", {}, "the client recorded no model"),
    (None, "gpt-5.5", {}, "no provider is known for 'gpt-5.5'; add an override"),
    ("openrouter", "openai/gpt-99", {}, "openrouter sets its own prices; add an override"),
    ("ollama", "llama4", {}, "no prices are known for ollama; add an override"),
    (
        "anthropic",
        "claude-opus-5-5",
        {"tier": "priority"},
        "anthropic/claude-opus-5-5 has no published price in tier priority",
    ),
    ("cohere", "command-a-plus-05-2026", {}, "open weights, sold as Model Vault hours: no price per token is published"),
    ("deepseek", "deepseek-chat", {}, "no price is known for deepseek/deepseek-chat on 2026-11-21"),
    (
        "anthropic",
        "claude-opus-4-7",
        {"tier": "fast"},
        "anthropic/claude-opus-4-7@2026-07-24T00:00 has no published price in tier fast",
    ),
]


@pytest.mark.parametrize(("provider", "model", "more", "why"), REASONS)
def test_unpriced_says_why(provider: str | None, model: str, more: Json, why: str) -> None:
    assert cost(provider, model, output_tokens=5, **more).replace("@2026-07-24T00:00", "") == why.replace(
        "@2026-07-24T00:00", ""
    )


def test_free_variants_and_synthetic_lines_cost_nothing() -> None:
    assert cost("openrouter", "z-ai/glm-5:free", output_tokens=5) == "0"
    assert cost("anthropic", "<synthetic>", output_tokens=0) == "0"
    assert (
        cost("anthropic", "claude-opus-5:free", output_tokens=5) == "no price is known for 'claude-opus-5:free' at anthropic"
    )


def test_notes_say_what_was_assumed(run: Run) -> None:
    base = {"v": 1, "ts": "2026-11-21T12:00:00.000Z", "kind": "turn", "turns": 1, "output_tokens": 5}
    made = [
        base | {"id": "a", "provider": "openai", "model": "gpt-5.5", "cache_write_tokens": 5},
        base | {"id": "b", "provider": "vertex", "model": "claude-opus-5"},
        base | {"id": "c", "provider": "perplexity", "model": "sonar-pro"},
        base | {"id": "d", "provider": "openai", "model": "gpt-4.1", "web_searches": 1},
    ]
    (row,) = objects(run("tok-cost --by none", lines(made)).stdout)
    assert row["notes"] == [
        "no price is published for web searches: not billed",
        "no price is published for cache_write: billed as input",
        "the search context was not recorded: assumed low",
        "the region was not recorded: assumed global processing",
    ]
    assert "note: the region was not recorded" in run("tok-cost --by none --table -v", lines(made)).stdout.decode()


def test_a_request_fee_is_due_once_per_turn() -> None:
    assert cost("perplexity", "sonar-pro", search_context="medium", output_tokens=500, input_tokens=1000) == "0.0205"
    assert cost("perplexity", "sonar-pro", search_context="high", requests=3) == "0.042"


# ---- names


def variants() -> list[tuple[str, str, str, str]]:
    """(provider, mangled name, provider and name it must cost as): 500 and more, made by rule from real rows."""
    made = []
    for provider in ("anthropic", "openai", "gemini", "xai", "mistral"):
        for model in CATALOGUE.providers[provider]["models"]:
            if model == "<synthetic>" or model.startswith("ft:"):
                continue
            shapes = [model.upper(), f"  {model} ", f"{provider}/{model}", f"openrouter/{provider}/{model}"]
            if provider == "anthropic" and not model[-8:].isdigit():
                shapes += [
                    f"{model}[1m]",
                    f"{model}-20260101",
                    f"{model}@20260101",
                    f"{model}-thinking",
                    f"anthropic/{model}",
                ]
            if provider == "anthropic":
                dotted = (
                    model.replace("-4-5", "-4.5").replace("-4-6", "-4.6").replace("-5-5", "-5.5").replace("-4-8", "-4.8")
                )
                shapes += [dotted, f"global.anthropic.{model}-v1:0", f"publishers/anthropic/models/{model}"]
            if (
                provider == "openai"
                and model.startswith(("gpt-5", "gpt-6", "o3", "o4"))
                and "latest" not in model
                and "api" not in model
            ):
                shapes += [f"{model}-high", f"{model}-xhigh", f"{model}-2026-02-01"]
            if provider == "gemini":
                shapes += [f"models/{model}", f"google/{model}"]
            made += [(provider, shape, provider, model) for shape in shapes]
    return made


def test_mangled_names_cost_what_their_model_costs() -> None:
    listed = variants()
    assert len(listed) >= 500
    counts = {"input_tokens": 7, "cache_read_tokens": 11, "output_tokens": 13}
    for provider, name, owner, model in listed:
        assert cost(provider, name, "2026-04-01T12:00:00.000Z", **counts) == cost(
            owner, model, "2026-04-01T12:00:00.000Z", **counts
        ), name


INVENTED = [
    ("anthropic", ["claude-opus-4-9", "claude-opus-6", "claude-opus-5-5-1", "claude-sonnet-4-7", "claude-haiku-5", "claude-opus", "claude", "claude-fable-5-3", "claude-opus-4-6-mini", "claude-opus-4-6-lite", "opus-4-6", "xclaude-opus-4-6", "claude-opus-4-60", "claude-opus-5-pro", "claude-instant-1.2", "claude-opus-4-6-20269999", "claude-opus-4-62026"]),
    ("openai", ["gpt-5.7", "gpt-5.5-mini", "gpt-5.5-turbo", "gpt-7", "gpt-6", "gpt-5-ultra-mini", "gpt-4o-ultra", "gpt-4o-max", "o5", "o3-max-pro", "gpt-5.2-codex-max", "gpt-5.2-codex-mini", "gpt-oss-120b", "gpt-5.4-codex", "gpt-4.1-pro", "gpt-4o-realtime", "my-gpt-5", "gpt", "o1-high-mini", "ft:gpt-5.5:acme::x", "gpt-5-2", "gpt-55", "aide-gpt-5"]),
    ("gemini", ["gemini-3.9-flash", "gemini-2.5-flash-lite-image", "gemini-2.5", "gemini-4", "gemini-2.5-pro-live", "gemini-1.5-flash-16b", "gemini-4-argon-lite", "gemma-4"]),
    ("mistral", ["mistral-large-5", "mistral-huge-latest", "codestral", "mistral-small-latest-x", "mistral-medium-2601"]),
    ("xai", ["grok-5", "grok-4.8", "grok-4-heavy", "grok", "grok-4.20-mini"]),
    ("deepseek", ["deepseek-v5", "deepseek-coder-2", "deepseek-v4", "deepseek-v4-flash-lite"]),
    ("groq", ["openai/gpt-oss-240b", "llama-3.3-70b", "llama-3.1-8b"]),
    ("cohere", ["command-r-99-2030", "command-b", "embed-v5"]),
    ("perplexity", ["sonar-ultra", "sonar-reasoning-max-pro"]),
    ("cerebras", ["gpt-oss-20b", "qwen-3-235b"]),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "model"), [(p, m) for p, models in INVENTED for m in models])
def test_invented_names_are_unknown_with_a_reason(provider: str, model: str) -> None:
    assert (
        cost(provider, model, "2026-11-01T12:00:00.000Z", output_tokens=5)
        == f"no price is known for {model!r} at {provider}"
    )


def test_no_vendor_prices_another_vendors_model() -> None:
    for provider, body in CATALOGUE.providers.items():
        for other, theirs in CATALOGUE.providers.items():
            for model in theirs["models"]:
                if other != provider and model not in body["models"] and model not in body["aliases"]:
                    found = CATALOGUE.find(provider, model)
                    assert isinstance(found, pricing.Unpriced) or found.name.startswith(f"{provider}/"), (provider, model)


@given(st.text(max_size=40))
def test_any_name_is_read_without_a_crash(text: str) -> None:
    readings = list(price_names.readings(text))
    assert readings[0].model == text.strip().lower()
    assert price_names.provider_of(text) is not None


# ---- overrides


@pytest.fixture
def overridden(run: Run, tmp_path: pathlib.Path) -> Any:
    """Cost of a turn under a file of overrides, through the real command."""

    def priced(text: str, status: int | None = None, **event: Any) -> Any:
        (tmp_path / "mine.yaml").write_text(text)
        base = {"v": 1, "ts": "2026-11-21T12:00:00.000Z", "kind": "turn", "id": "x", "turns": 1, "output_tokens": 1_000_000}
        done = run(
            "tok-cost --by none",
            lines([base | event]),
            status=status,
            env={"TOKENOPS_PRICING_PATH": str(tmp_path / "mine.yaml")},
        )
        if not done.stdout:
            return done.stderr.decode()
        (row,) = objects(done.stdout)
        return row["unpriced"][0]["reason"] if "unpriced" in row else row["cost_usd"]

    return priced


MINE = """
schema: 1
providers:
  openrouter:
    models:
      "z-ai/*": {prices: [{input: "1", output: "2"}]}
      "z-ai/glm-5*": {prices: [{input: "1", output: "3"}]}
      "z-ai/glm-5-air": {prices: [{input: "1", output: "4"}]}
      "z-ai/glm-5-old": {remove: true}
  anthropic:
    models:
      claude-opus-5-5: {prices: [{input: "1", output: "7"}]}
      claude-haiku-4-5: {remove: true}
      claude-new: {prices: [{input: "1", output: "8", until: 2026-01-01T00:00:00Z}, {input: "1", output: "9", from: 2026-01-01T00:00:00Z}]}
      "alias-of-mine": {prices: [{input: "0", output: "0"}]}
  azure:
    aliases: {our-gpt: [{to: gpt-5.5}]}
  "*":
    models:
      aide-gpt-5: {prices: [{input: "1", output: "5"}]}
"""
OVERRIDES = [
    ({"provider": "openrouter", "model": "z-ai/glm-4"}, "2"),
    ({"provider": "openrouter", "model": "z-ai/glm-5.1"}, "3"),
    ({"provider": "openrouter", "model": "Z-AI/GLM-5-Air"}, "4"),
    ({"provider": "openrouter", "model": "z-ai/glm-5-old"}, "openrouter z-ai/glm-5-old is removed by your override"),
    ({"provider": "openrouter", "model": "qwen/q"}, "openrouter sets its own prices; add an override"),
    ({"provider": "anthropic", "model": "claude-opus-5-5"}, "7"),
    ({"provider": "anthropic", "model": "claude-opus-5-5[1m]"}, "7"),
    (
        {"provider": "anthropic", "model": "claude-opus-5-5", "tier": "batch"},
        "override/anthropic/claude-opus-5-5 has no published price in tier batch",
    ),
    ({"provider": "anthropic", "model": "claude-opus-5"}, "25"),
    ({"provider": "anthropic", "model": "claude-haiku-4-5"}, "anthropic claude-haiku-4-5 is removed by your override"),
    ({"provider": "anthropic", "model": "claude-new"}, "9"),
    ({"provider": "anthropic", "model": "claude-new", "ts": "2025-12-31T23:59:59.999Z"}, "8"),
    ({"provider": "anthropic", "model": "claude-opus-5", "request_model": "alias-of-mine"}, "0"),
    ({"provider": "anthropic", "model": "alias-of-mine", "request_model": "claude-new"}, "9"),
    ({"provider": "azure", "model": "our-gpt"}, "30"),
    ({"model": "aide-gpt-5"}, "5"),
    ({"provider": "anthropic", "model": "claude-opus-5", "cost_usd": "0.5", "cost_source": "reported"}, "0.5"),
]


@pytest.mark.parametrize(("event", "expected"), OVERRIDES)
def test_overrides(event: Json, expected: str, overridden: Any) -> None:
    assert overridden(MINE, **event) == expected


def test_the_example_can_be_copied(overridden: Any) -> None:
    example = (ROOT / "docs/examples/pricing-override.yaml").read_text()
    assert overridden(example, provider="openrouter", model="anthropic/claude-sonnet-5.5") == "10.55"
    assert overridden(example, provider="anthropic", model="claude-opus-5-5") == "17"
    assert overridden(example, provider="ollama", model="llama4:70b") == "0"
    assert overridden(example, provider="anthropic", model="claude-opus-5") == "25"


MALFORMED = [
    ("providers: {x: {models: {a: {prices: [{input: free}]}}}}", ":1: providers.x.models.a.prices.0.input: 'free' is not a price; write a decimal number of USD such as \"2.50\""),
    ("providers:\n  x:\n    models:\n      a:\n        prices:\n          - inptu: 1\n", ":6: providers.x.models.a.prices.0.inptu: unknown key 'inptu'; the nearest known is 'input'"),
    ("providers:\n  x:\n    models:\n      a: {prices: []}\n", ":4: providers.x.models.a: `prices` is missing; give a list with at least one interval"),
    ("providers:\n  x:\n    modles: {}\n", ":3: providers.x.modles: unknown key 'modles'; the nearest known is 'models'"),
    ("providers:\n  x: [1\n", "; correct the line"),
    ("providers: {x: {models: {a: {prices: [{input: 1}, {input: 2}]}}}}", ":1: providers.x.models.a.prices: two intervals overlap at the beginning; give the earlier an `until`"),
    ("providers: {x: {models: {a: {prices: [{output: 1}]}}}}", ":1: providers.x.models.a.prices.0: `input` is missing; every interval needs a price for it"),
    ("providers: {x: {models: {a: {prices: [{input: 1, from: soon}]}}}}", ":1: providers.x.models.a.prices.0.from: 'soon' is not a time; write 2026-10-07T00:00:00Z"),
    ("providers: {x: {models: {a: {prices: [{input: -1}]}}}}", ":1: providers.x.models.a.prices.0.input: -1 is not a price; write a decimal number of USD such as \"2.50\""),
    ("providers: {x: {models: {a: {prices: [{input: 1e3}]}}}}", "is not a price"),
    ("providers: {x: {}, x: {}}", ":1: the key 'x' appears twice; correct the line"),
    ("- 1\n", ":1: expected keys and values, found ['1']" ),
    ("currency: EUR\nproviders: {}\n", ":1: currency: 'EUR' is not supported; give prices in USD per million tokens"),
    ("providers: {x: {models: {a: {prices: [{input: 1, above: [{op: lt, tokens: 5}]}]}}}}", "`above` needs `op: gt` or `op: ge`, and `tokens`, a whole number"),
    ("providers: {x: {models: {a: {prices: [{input: 1, windows: [{hours: ['9-12'], input: 2}]}]}}}}", "'9-12' is not a span of hours; write \"09:00-12:00\""),
    ("providers: {x: {models: {a: {prices: [{input: 1, windows: [{tz: Mars, input: 2}]}]}}}}", "unknown zone 'Mars'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), MALFORMED)
def test_a_malformed_file_is_an_error_with_line_and_remedy(text: str, why: str, overridden: Any) -> None:
    said = overridden(text, status=2, provider="x", model="a")
    assert why.replace("['1']", "[1]") in said
    assert said.startswith("tok-cost: ")
    assert "mine.yaml:" in said
    assert said.count("\n") == 1


def test_the_path_may_stand_in_the_configuration(run: Run, environment: dict[str, str]) -> None:
    folder = pathlib.Path(environment["HOME"]) / ".config/tokenops"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text('providers: {x: {models: {a: {prices: [{input: "0", output: "6"}]}}}}')
    (folder / "config.yaml").write_text("pricing: {path: mine.yaml, pth: 1}\nprincing: {}\n")
    event = {
        "v": 1,
        "ts": "2026-11-21T12:00:00.000Z",
        "kind": "turn",
        "id": "x",
        "turns": 1,
        "output_tokens": M,
        "provider": "x",
        "model": "a",
    }
    done = run("tok-cost --by none", lines([event]))
    assert objects(done.stdout)[0]["cost_usd"] == "6"
    assert done.stderr.decode().splitlines() == [
        f"tok-cost: {folder}/config.yaml:1: unknown key 'pth' is ignored; the nearest known is 'path'",
        f"tok-cost: {folder}/config.yaml:2: unknown key 'princing' is ignored; the nearest known is 'pricing'",
    ]
    (folder / "config.yaml").write_text("pricing: {path: gone.yaml}\n")
    done = run("tok-cost", status=2)
    assert (
        done.stderr.decode()
        == f"tok-cost: {folder}/gone.yaml: No such file or directory; check the path (pricing.path, TOKENOPS_PRICING_PATH)\n"
    )
    (folder / "config.yaml").write_text("pricing: [\n")
    assert f"{folder}/config.yaml:2:" in run("tok-cost", status=2).stderr.decode()


# ---- the compiled copy


def test_the_compiled_copy_is_only_a_copy(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fresh = pricing.load()
    (copy,) = (tmp_path / "tokenops").glob("pricing-*.json")
    again = pricing.load()
    assert (again.digest, again.providers) == (fresh.digest, fresh.providers)
    assert fresh.digest in copy.name
    copy.write_bytes(b"{torn")
    assert pricing.load().providers == fresh.providers
    other = tmp_path / "mine.yaml"
    other.write_text("providers: {}\n")
    assert pricing.load(str(other)).digest != fresh.digest
    assert len(list((tmp_path / "tokenops").glob("pricing-*.json"))) == 1


def test_yaml_keeps_prices_as_text() -> None:
    assert catalog.parse(b"a: 3.10\nb: 2026-10-07\nc: 12\n", "x") == {"a": "3.10", "b": "2026-10-07", "c": 12}
