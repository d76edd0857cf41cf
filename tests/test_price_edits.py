"""Edits of the catalogue: sixty and more wrong ones are caught, thirty right ones pass.

Among the wrong ones are the mistakes of the public record: what counters, routers and price tables got wrong in the
field. An edit is judged as a maintainer would: tok-price lint against the state before it, then tok-price check.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import pytest

from tokenops import price_causes, price_check, price_files, price_history, price_tables, pricing

BEFORE = price_files.texts()
TODAY = "2026-12-01"
PAGE = '  page-now: {url: "https://vendor.example/pricing", captured: 2026-12-01, kind: vendor page}\n'


class Edit(NamedTuple):
    what: str
    file: str
    at: str  # a line that stands before it
    old: str
    new: str
    source: bool = False  # the vendor's page was read, and is named
    today: str = TODAY


def edited(one: Edit) -> dict[str, bytes]:
    """The files after an edit."""
    name = f"pricing/{one.file}.yaml"
    text = BEFORE[name].decode()
    if one.source:
        text = text.replace("sources:\n", f"sources:\n{PAGE}", 1)
    start = text.index(one.at) + len(one.at) if one.at else 0
    assert one.old in text[start:], one
    return {**BEFORE, name: (text[:start] + text[start:].replace(one.old, one.new, 1)).encode()}


def of_its_file(one: Edit, texts: dict[str, bytes]) -> dict[str, bytes]:
    """The file that an edit is in, and who the providers are; the others are as they were."""
    return {key: texts[key] for key in (f"pricing/{one.file}.yaml", "providers.yaml")}


def held(one: Edit) -> list[str]:
    """What lint says of an edit."""
    faults = price_history.all_faults(of_its_file(one, edited(one)), of_its_file(one, BEFORE), one.today)
    return [f"{fault.level}: {fault.what}" for fault in faults]


@functools.cache
def tables() -> list[price_tables.Table]:
    return price_tables.tables()


def unexplained(one: Edit) -> list[str]:
    """What check says of an edit and cannot explain."""
    catalogue, known = pricing.from_texts(of_its_file(one, edited(one))), price_causes.known_causes()
    return [
        f"{table.source} {found.model} {found.field}: {found.ours} against {found.theirs}"
        for table in tables()
        for found in price_check.compare(catalogue, table).findings
        if price_causes.cause_of(found, tables(), known) is None
    ]


def interval(begins: str, src: str = "page-now", **rates: Any) -> str:
    """An interval in the layout of the files, to stand after the one before it."""
    more = rates.pop("more", "")
    lines = [f"      - from: {begins}", *(f'        {name}: "{value}"' for name, value in rates.items())]
    return "\n".join(
        [*lines, f"        src: [{src}]", "        confidence: high", *([f"        {more}"] if more else []), ""]
    )


OPUS = '      - input: "4"\n        cache_read: "0.2"\n        cache_write: "5"\n        cache_write_1h: "8"\n        output: "20"\n        src: [litellm, genai, modelsdev]\n        confidence: high\n'

FLASH = """      - until: 2027-01-01T00:00:00Z
        input: "0.75"
        cache_read: "0.075"
        output: "3.75"
        src: [litellm, genai, modelsdev]
        confidence: high
      - from: 2027-01-01T00:00:00Z
        scheduled: true
        input: "1.5"
        cache_read: "0.15"
        output: "7.5"
        src: [litellm, genai, modelsdev]
        confidence: high
"""


def ended(day: str) -> str:
    """Claude Opus 5.5's interval, closed."""
    return OPUS.replace("      - input", f"      - until: {day}\n        input")


def cut(begins: str, factor: int = 2, **more: Any) -> str:
    """Claude Opus 5.5 at another price from a day on."""
    rates = {"input": 4, "cache_read": 0.2, "cache_write": 5, "cache_write_1h": 8, "output": 20}
    return ended(begins) + interval(begins, **{name: f"{value / factor:g}" for name, value in rates.items()}, **more)


E = Edit
WRONG = [
    # The public record.
    E("15/75 where 5/25 is right, by a plausible correction", "anthropic", "  claude-opus-4-8:", 'input: "5"', 'input: "15"'),
    E("the same as a price change", "anthropic", "  claude-opus-5-5:\n", OPUS, ended("2026-11-01T00:00:00Z") + interval("2026-11-01T00:00:00Z", "litellm, genai", input=15, cache_read=1.5, cache_write=18.75, cache_write_1h=30, output=75)),
    E("1-hour writes at the 5-minute rate", "anthropic", "  claude-opus-5:", 'cache_write_1h: "10"', 'cache_write_1h: "6.25"'),
    E("one flat 1-hour price for a generation", "anthropic", "  claude-3-opus-20240229:", 'cache_write_1h: "30"', 'cache_write_1h: "6"'),
    E("Haiku 3.5's 1-hour writes at Opus's", "anthropic", "  claude-3-5-haiku-20241022:", 'cache_write_1h: "1.6"', 'cache_write_1h: "6"'),
    E("no discount guessed to be half", "openai", "  gpt-5.5-pro:", "cache_read: same_as_input", 'cache_read: "15"'),
    E("cache reads free", "anthropic", "  claude-sonnet-5:", 'cache_read: "0.2"', 'cache_read: "0"'),
    E("cache reads at full price", "openai", "  gpt-5.4-mini:", 'cache_read: "0.075"', 'cache_read: "0.75"'),
    E("cache reads guessed to be a tenth", "openai", "  gpt-4.1:", 'cache_read: "0.5"', 'cache_read: "0.2"'),
    E("a mini at its big brother's price", "openai", "  gpt-5.4-mini:", 'input: "0.75"', 'input: "2.5"'),
    E("gpt-4.1 as gpt-4, by its prefix", "openai", "  gpt-4.1:", 'input: "2"', 'input: "30"'),
    E("a dated mini as the full model", "openai", "  gpt-4o-mini-2024-07-18:", 'input: "0.15"', 'input: "2.5"'),
    E("a snapshot merged into its alias", "openai", "  gpt-4o-2024-05-13:", 'input: "5"', 'input: "2.5"'),
    E("the 8b as the flash whose name it contains", "gemini", "  gemini-1.5-flash-8b:", 'input: "0.0375"', 'input: "0.075"'),
    E("o1-mini as o1", "openai", "  o1-mini:", 'input: "1.1"', 'input: "15"'),
    E("o1-pro as o1", "openai", "  o1-pro:", 'input: "150"', 'input: "15"'),
    E("a pro as the model without", "perplexity", "  sonar-reasoning-pro:", 'output: "8"', 'output: "5"'),
    E("flash-lite as flash", "gemini", "  gemini-2.5-flash-lite:", 'output: "0.4"', 'output: "2.5"'),
    E("grok mini as grok", "xai", "  grok-3-mini:\n", 'input: "0.3"', 'input: "3"'),
    E("the long prompt's step left out", "gemini", "  gemini-2.5-pro:", '        above:\n          - {op: gt, tokens: 200000, input: "2.5", output: "15", cache_read: "0.25"}\n', ""),
    E("an inclusive step made exclusive", "xai", "  grok-4.7:", "op: ge", "op: gt"),
    E("an exclusive step made inclusive", "openai", "  gpt-5.5:", "op: gt", "op: ge"),
    E("a step in thousands", "openai", "  gpt-5.5:", "tokens: 272000", "tokens: 272"),
    E("a step at another length", "openai", "  gpt-5.5:", "tokens: 272000", "tokens: 200000"),
    E("long prompts cheaper than short ones", "openai", "  gpt-5.5:", 'input: "10"', 'input: "1"'),
    E("a retired premium kept for ever", "anthropic", "  claude-sonnet-4-5:", '        output: "15"\n        src: [litellm, genai, modelsdev]\n        confidence: high\n  claude-sonnet-4-5-2', '        output: "15"\n        above:\n          - {op: gt, tokens: 200000, input: "6", output: "22.5"}\n        src: [litellm, genai, modelsdev]\n        confidence: high\n  claude-sonnet-4-5-2'),
    E("a premium of the past forgotten", "anthropic", "  claude-sonnet-4-20250514:", '        above:\n          - {op: gt, tokens: 200000, input: "6", output: "22.5", cache_read: "0.6", cache_write: "7.5", cache_write_1h: "12"}\n', ""),
    E("100,000 times too much", "mistral", "  mistral-large-2512:", 'input: "0.5"', 'input: "50000"'),
    E("1,000 times too much", "cohere", "  embed-multilingual-light-v3.0:", 'input: "0.1"', 'input: "100"'),
    E("per token instead of per million", "anthropic", "  claude-opus-5-5:", 'input: "4"', 'input: "0.000004"'),
    E("per thousand instead of per million", "anthropic", "  claude-opus-5-5:", 'input: "4"', 'input: "0.004"'),
    E("cents instead of dollars", "anthropic", "  claude-haiku-4-5:", 'output: "5"', 'output: "500"'),
    E("a search instead of a thousand", "anthropic", "defaults:", 'web_search: "10"', 'web_search: "0.01"'),
    E("ten thousand searches", "gemini", "  gemini-3.8-flash:", 'web_search: "14"', 'web_search: "14000"'),
    E("the surcharge of a region lost", "anthropic", "  claude-opus-5-5:", 'geo: {us: "1.1"', 'geo: {us: "0.1"'),
    E("a region eleven times as dear", "anthropic", "  claude-opus-5-5:", 'regional: "1.1"', 'regional: "11"'),
    E("fast mode cheaper than the ordinary", "anthropic", "  claude-opus-5-5:", 'fast: {factor: "2"}', 'fast: {factor: "0.2"}'),
    E("fast mode at the old factor", "anthropic", "  claude-opus-5-5:", 'fast: {factor: "2"}', 'fast: {factor: "6"}'),
    E("batch dearer than the ordinary", "anthropic", "defaults:", 'batch: {factor: "0.5"}', 'batch: {factor: "2"}'),
    E("batch at a twentieth", "mistral", "defaults:", 'batch: {factor: "0.5"}', 'batch: {factor: "0.05"}'),
    E("priority cheaper than the ordinary", "gemini", "  gemini-3.8-flash:", 'priority: {factor: "1.8"}', 'priority: {factor: "0.8"}'),
    E("an unknown tier", "gemini", "  gemini-3.8-flash:", "priority:", "turbo:"),
    E("an unknown model for nothing", "xai", "models:\n", "  grok-4.7:", '  grok-5:\n    prices:\n      - input: "0"\n        cache_read: "0"\n        output: "0"\n        src: [litellm, genai]\n        confidence: high\n  grok-4.7:'),
    E("open weights for nothing", "cohere", "models:\n", "  command-a-03-2025:", '  command-a-plus-05-2026:\n    prices:\n      - input: "0"\n        cache_read: same_as_input\n        output: "0"\n        src: [litellm, modelsdev]\n        confidence: high\n  command-a-03-2025:'),
    E("a promotion taken for the price", "mistral", "  labs-devstral-small-2512:", 'input: "0.1"', 'input: "0"'),
    E("a planned rise that was cancelled", "anthropic", "  claude-sonnet-5:\n", '      - input: "2"\n        cache_read: "0.2"\n        cache_write: "2.5"\n        cache_write_1h: "4"\n        output: "10"\n', '      - until: 2026-09-01T00:00:00Z\n        input: "2"\n        cache_read: "0.2"\n        cache_write: "2.5"\n        cache_write_1h: "4"\n        output: "10"\n        src: [litellm, genai]\n        confidence: high\n      - from: 2026-09-01T00:00:00Z\n        input: "3"\n        cache_read: "0.3"\n        cache_write: "3.75"\n        cache_write_1h: "6"\n        output: "15"\n'),
    E("a launch price rewritten in place", "gemini", "  gemini-3.6-flash:", 'input: "1.5"', 'input: "0.75"'),
    E("today's cached rate before the cut", "openai", "  o3:\n", 'cache_read: "2.5"', 'cache_read: "0.5"'),
    E("a cut dated back", "anthropic", "  claude-sonnet-5-5:", 'cache_read: "0.2"', 'cache_read: "0.1"'),
    E("peak also at weekends", "deepseek", "  deepseek-v4-pro:", "days: [1, 2, 3, 4, 5], hours", "days: [1, 2, 3, 4, 5, 6, 7], hours"),
    E("peak always", "deepseek", "  deepseek-flash:", '        input: "0.15"', '        input: "0.3"'),
    E("peak cheaper than off-peak", "deepseek", "  deepseek-flash:", 'from: 2026-08-22T16:00:00Z, input: "0.3"', 'from: 2026-08-22T16:00:00Z, input: "0.03"'),
    E("a retired name's last price kept in force", "deepseek", "  deepseek-chat:", "        until: 2026-07-24T15:59:00Z\n", ""),
    E("-latest led back to the model it left", "mistral", "  mistral-large-latest:", "{to: mistral-large-2512, from", "{to: mistral-large-2411, from"),
    E("an image's price for text", "gemini", "  gemini-3-pro-image:", 'output: "12"', 'output: "120"'),
    E("a discount of last year", "gemini", "  gemini-2.5-pro:", 'cache_read: "0.125"', 'cache_read: "0.31"'),
    E("the neighbour's cached rate", "xai", "  grok-4.5:", 'cache_read: "0.3"', 'cache_read: "0.5"'),
    E("an old price never cut", "mistral", "  open-mistral-nemo:", 'input: "0.15"', 'input: "0.3"'),
    # Slips of the hand.
    E("input and output swapped", "openai", "  gpt-5.5:", '- input: "5"\n        cache_read: "0.5"\n        output: "30"', '- input: "30"\n        cache_read: "0.5"\n        output: "5"'),
    E("the cache's classes swapped", "anthropic", "  claude-opus-5:", 'cache_write: "6.25"\n        cache_write_1h: "10"', 'cache_write: "10"\n        cache_write_1h: "6.25"'),
    E("12 hours cheaper than 30 minutes", "openai", "  gpt-6-sol:", 'cache_write_12h: "5"', 'cache_write_12h: "0.5"'),
    E("a class forgotten", "anthropic", "  claude-opus-5:", '        cache_write_1h: "10"\n', ""),
    E("a negative price", "groq", "  llama-3.1-8b-instant:", 'input: "0.05"', 'input: "-0.05"'),
    E("no number", "groq", "  llama-3.1-8b-instant:", 'input: "0.05"', "input: .nan"),
    E("another currency", "deepseek", "", "currency: USD", "currency: CNY"),
    E("another unit", "deepseek", "", "unit: per_million_tokens", "unit: per_thousand_tokens"),
    E("an unknown key", "groq", "  llama-3.1-8b-instant:", "cache_read:", "chache_read:"),
    E("a key twice", "groq", "  llama-3.1-8b-instant:", '      - input: "0.05"', '      - input: "0.05"\n        input: "0.06"'),
    E("intervals that overlap", "mistral", "  mistral-large-4:", "until: 2026-10-29", "until: 2026-10-30"),
    E("a gap between intervals", "mistral", "  mistral-large-4:", "until: 2026-10-29", "until: 2026-10-28"),
    E("an end before the beginning", "mistral", "  mistral-large-4:", "until: 2026-10-29", "until: 2026-10-19"),
    E("an end, and nothing after it", "anthropic", "  claude-opus-5-5:\n", OPUS, ended("2026-12-08T00:00:00Z")),
    E("a rise of four times without a word", "anthropic", "  claude-opus-5-5:\n", OPUS, cut("2026-12-01T00:00:00Z", 4), source=True),
    E("a change that nobody read", "anthropic", "  claude-opus-5-5:\n", OPUS, cut("2026-12-01T00:00:00Z").replace("page-now", "litellm, genai")),
    E("a change dated before it was last read as unchanged", "anthropic", "  claude-opus-5-5:\n", OPUS, cut("2026-10-01T00:00:00Z"), source=True),
    E("a change in the future without saying so", "anthropic", "  claude-opus-5-5:\n", OPUS, cut("2026-12-24T00:00:00Z"), source=True),
    E("an interval put before those that were there", "mistral", "  mistral-large-4:\n    prices:\n", "      - until: 2026-10-20T00:00:00Z\n", '      - until: 2026-10-01T00:00:00Z\n        input: "0.5"\n        cache_read: "0.05"\n        output: "1.5"\n        src: [litellm, genai]\n        confidence: high\n      - from: 2026-10-01T00:00:00Z\n        until: 2026-10-20T00:00:00Z\n'),
    E("a scheduled change that has come, and was not looked at", "gemini", "  gemini-3.8-flash:", 'input: "1.5"', 'input: "1.5"', today="2027-01-02"),
    E("a cancelled change without a word", "gemini", "  gemini-3.8-flash:", '      - from: 2027-01-01T00:00:00Z\n        scheduled: true\n        input: "1.5"\n        cache_read: "0.15"\n        output: "7.5"\n        src: [litellm, genai, modelsdev]\n        confidence: high\n', ""),
    E("an alias of an alias", "openai", "aliases:\n", "{to: gpt-5.6-sol}", "{to: codex-mini}"),
    E("an alias of nothing", "openai", "aliases:\n", "{to: gpt-5.6-sol}", "{to: gpt-5.6-sun}"),
    E("two aliases in a circle", "xai", "  grok-4-latest:\n", "    - {to: grok-4}\n", "    - {to: grok-4-newest}\n  grok-4-newest:\n    - {to: grok-4-latest}\n"),
    E("an alias that is a model too", "xai", "aliases:\n", "  grok-4-fast:\n", "  grok-4:\n    - {to: grok-3}\n  grok-4-fast:\n"),
    E("an alias with a gap", "mistral", "  mistral-medium-latest:", "until: 2026-06-16", "until: 2026-06-06"),
    E("an alias led elsewhere without a word", "gemini", "  gemini-flash-latest:\n", "    - {to: gemini-3.8-flash, from: 2026-09-30T00:00:00Z}\n", "    - {to: gemini-3.8-flash, from: 2026-09-30T00:00:00Z, until: 2026-12-01T00:00:00Z}\n    - {to: gemini-3.5-flash, from: 2026-12-01T00:00:00Z}\n"),
    E("a pattern", "anthropic", "models:\n", "  claude-fable-5:\n", '  "claude-fable-5*":\n'),
    E("a row gone", "groq", "models:\n", '  gemma2-9b-it:\n    prices:\n      - input: "0.2"\n        cache_read: same_as_input\n        output: "0.2"\n        src: [litellm, genai]\n        confidence: medium\n', ""),
    E("a source that is not there", "anthropic", "  claude-opus-5-5:", "src: [litellm, genai, modelsdev]", "src: [litellm, genei]"),
    E("no source", "anthropic", "  claude-opus-5-5:", "        src: [litellm, genai, modelsdev]\n", ""),
    E("a source without an address", "anthropic", "sources:\n", 'url: "https://github.com/BerriAI', 'url: "github.com/BerriAI'),
    E("a source read tomorrow", "anthropic", "sources:\n", "captured: 2026-11-21", "captured: 2026-12-02"),
    E("a source read earlier than it was", "anthropic", "sources:\n", "captured: 2026-11-21", "captured: 2026-10-21"),
    E("sure with one source", "anthropic", "  claude-fable-5-2:", "confidence: medium", "confidence: high"),
    E("past holidays changed", "deepseek", "holidays:", "2026-10-05, ", ""),
]  # fmt: skip
RIGHT = [
    E("a price cut from today on, as the vendor's page says", "anthropic", "  claude-opus-5-5:\n", OPUS, cut("2026-12-01T00:00:00Z"), source=True),
    E("a price cut announced for next week", "anthropic", "  claude-opus-5-5:\n", OPUS, cut("2026-12-08T00:00:00Z", more="scheduled: true"), source=True),
    E("a rise of a third", "anthropic", "  claude-opus-5-5:\n", OPUS, ended("2026-12-01T00:00:00Z") + interval("2026-12-01T00:00:00Z", input=5, cache_read=0.25, cache_write=6.25, cache_write_1h=10, output=25), source=True),
    E("a cut to a quarter, with the reason", "anthropic", "  claude-opus-5-5:\n", OPUS, cut("2026-12-01T00:00:00Z", 4, more='note: "announced on the vendor page of 2026-12-01"'), source=True),
    E("a new model by the vendor's page", "anthropic", "models:\n", "  claude-opus-5-5:\n", "  claude-opus-6:\n    prices:\n" + interval("2026-12-01T00:00:00Z", input=4, cache_read=0.2, cache_write=5, cache_write_1h=8, output=20) + "  claude-opus-5-5:\n", source=True),
    E("a new model by two tables", "mistral", "models:\n", "  mistral-large-4:\n", '  mistral-large-5:\n    prices:\n      - input: "0.7"\n        cache_read: "0.07"\n        output: "2.1"\n        src: [litellm, genai]\n        confidence: high\n  mistral-large-4:\n'),
    E("a new model by one table, not sure", "mistral", "models:\n", "  mistral-large-4:\n", '  mistral-vibe-cli-next:\n    prices:\n      - input: "0.15"\n        cache_read: "0.015"\n        output: "0.6"\n        src: [litellm]\n        confidence: medium\n  mistral-large-4:\n'),
    E("a new model with a step", "openai", "models:\n", "  gpt-6.2-astra:\n", '  gpt-7-sol:\n    prices:\n      - input: "2"\n        cache_read: "0.1"\n        output: "10"\n        above:\n          - {op: gt, tokens: 272000, input: "4", output: "15", cache_read: "0.2"}\n        src: [page-now]\n        confidence: high\n  gpt-6.2-astra:\n', source=True),
    E("a new model with tiers", "gemini", "models:\n", "  gemini-4-argon:\n", '  gemini-5-flash:\n    tiers: {batch: {factor: "0.5"}, priority: {factor: "1.8"}}\n    web_search: "14"\n    prices:\n      - input: "1"\n        cache_read: "0.1"\n        output: "5"\n        src: [page-now]\n        confidence: high\n  gemini-4-argon:\n', source=True),
    E("a new model that is free, with the reason", "groq", "models:\n", "  llama-3.1-8b-instant:\n", '  allam-3:\n    prices:\n      - input: "0"\n        cache_read: "0"\n        output: "0"\n        src: [page-now]\n        confidence: high\n        note: "a preview; the vendor bills nothing until it ends"\n  llama-3.1-8b-instant:\n', source=True),
    E("a model with odd ratios, with the reason", "anthropic", "models:\n", "  claude-opus-5-5:\n", "  claude-novella-1:\n    prices:\n" + interval("2026-12-01T00:00:00Z", input=4, cache_read=1, cache_write=5, cache_write_1h=8, output=12, more='note: "output is three times input on the vendor page"') + "  claude-opus-5-5:\n", source=True),
    E("a new alias", "openai", "aliases:\n", "  gpt-5.6:\n", "  gpt-6.1:\n    - {to: gpt-6.1-sol}\n  gpt-5.6:\n"),
    E("a name that is led elsewhere from a day on, with the reason", "gemini", "  gemini-flash-latest:\n", "    - {to: gemini-3.8-flash, from: 2026-09-30T00:00:00Z}\n", '    - {to: gemini-3.8-flash, from: 2026-09-30T00:00:00Z, until: 2026-12-08T00:00:00Z}\n    - {to: gemini-4-argon, from: 2026-12-08T00:00:00Z, note: "the vendor says so in its list of models"}\n'),
    E("an alias in the layout of many targets", "xai", "  grok-4-latest:\n", "    - {to: grok-4}\n", '    - {to: grok-4, until: 2026-12-08T00:00:00Z}\n    - {to: grok-4.7, from: 2026-12-08T00:00:00Z, note: "moved with the page of 2026-12-01"}\n'),
    E("a retirement announced", "anthropic", "  claude-opus-4-6:\n", "    tiers:\n", "    retired: 2027-02-05\n    tiers:\n"),
    E("a retirement carried out", "groq", "  gemma2-9b-it:\n", "    prices:\n", "    retired: 2026-11-20\n    prices:\n"),
    E("a scheduled change put off, with the reason", "gemini", "  gemini-3.8-flash:", FLASH, FLASH.replace("2027-01-01", "2027-02-01").replace("        input: \"1.5\"", "        note: put off, says the page of 2026-12-01\n        input: \"1.5\"")),
    E("a scheduled change cancelled, with the reason", "gemini", "  gemini-3.8-flash:", FLASH, FLASH[: FLASH.index("      - from")].replace("      - until: 2027-01-01T00:00:00Z\n        input", "      - note: the rise was cancelled, says the page of 2026-12-01\n        input")),
    E("a note", "anthropic", "  claude-opus-5:\n", "        confidence: high\n", '        confidence: high\n        note: "the page was read again on 2026-12-01"\n'),
    E("doubt", "anthropic", "  claude-opus-5:\n", "        confidence: high\n", "        confidence: medium\n"),
    E("a second source, and sure now", "anthropic", "  claude-fable-5-2:\n", "        src: [genai]\n        confidence: medium\n", "        src: [genai, page-now]\n        confidence: high\n", source=True),
    E("a source read again", "anthropic", "sources:\n", "captured: 2026-11-21", "captured: 2026-12-01"),
    E("a new source", "perplexity", "", "models:\n", "models:\n", source=True),
    E("a price written with more zeros", "anthropic", "  claude-opus-5-5:", 'cache_read: "0.2"', 'cache_read: "0.20"'),
    E("the same price without quotes", "anthropic", "  claude-opus-5-5:", 'input: "4"', "input: 4"),
    E("a comment", "mistral", "models:\n", "  mistral-large-4:\n", "  # raised for nine days in October 2026\n  mistral-large-4:\n"),
    E("a wrong price of the past put right, and marked", "deepseek", "  deepseek-reasoner:", '        input: "0.56"\n        cache_read: "0.07"\n        output: "1.68"\n', '        input: "0.56"\n        cache_read: "0.07"\n        output: "1.70"\n        correction: true\n'),
    E("a tier of the past put right, and marked", "anthropic", "  claude-opus-4-7:", 'tiers: {fast: {factor: "6"}}\n', 'tiers: {fast: {factor: "5"}}\n        correction: true\n'),
    E("a region that had no price so far", "openai", "defaults:", 'regional: "1.1"}', 'regional: "1.1", us-gov: "1.3"}'),
    E("a reason why a model has no price", "cohere", "unpriced:\n", "  command-a-plus", '  north-1: "sold by the seat: no price per token is published"\n  command-a-plus'),
    E("the holidays of next year", "deepseek", "holidays:", "2027-01-01]", "2027-01-01, 2027-02-06, 2027-02-08]"),
    E("another page to look at by hand", "xai", "", "https://docs.x.ai/docs/models\"  # where", "https://docs.x.ai/docs/pricing\"  # where"),
    E("an interval without a discount said so", "groq", "  gemma2-9b-it:", "cache_read: same_as_input", "cache_read: same_as_input  # none"),
]  # fmt: skip


def test_there_are_enough() -> None:
    assert len(WRONG) >= 60
    assert len(RIGHT) >= 30
    assert len({one.what for one in (*WRONG, *RIGHT)}) == len(WRONG) + len(RIGHT)


@pytest.mark.parametrize("one", WRONG, ids=lambda one: one.what)
def test_a_wrong_edit_is_caught(one: Edit) -> None:
    assert held(one) or unexplained(one)


@pytest.mark.parametrize("one", RIGHT, ids=lambda one: one.what)
def test_a_right_edit_passes(one: Edit) -> None:
    assert (held(one), unexplained(one)) == ([], [])


def test_a_scheduled_change_that_came_passes_once_it_was_looked_at() -> None:
    """Without `scheduled`, on the day after it."""
    name = "pricing/gemini.yaml"
    files = {key: BEFORE[key] for key in (name, "providers.yaml")}
    after = {**files, name: BEFORE[name].replace(b"        scheduled: true\n", b"")}
    assert price_history.all_faults(files, files, "2027-01-02") and after != files
    assert price_history.all_faults(after, files, "2027-01-02") == []


def test_the_catalogue_as_it_stands_passes() -> None:
    assert price_history.all_faults(BEFORE, BEFORE, TODAY) == []
