"""Turns usage objects, of each shape that vendors give them, into counts.

The shape of a usage object tells what its counts mean, whatever the vendor; if the same names mean different things, the
reported total decides. Sources: recorded traffic of twenty vendors (2024 to 2026) and their API references as of November
2026. Whatever cannot be right raises BadRecord: a count that is negative, no whole number, or beyond 2^53.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from tokenops import events, fields, untrusted, wire_claude

Raw = untrusted.Raw
# Of a list in a usage object (modalities, servers' tools) so many items are looked at; recorded ones have up to five.
_MOST_ITEMS = 1000


class Usage(NamedTuple):
    """What one answer used. `counts` are the record's, disjoint and without zeros."""

    id: str
    model: str
    counts: dict[str, int]
    tier: str = ""
    geo: str = ""
    cost_usd: str = ""
    cost_source: str = ""
    search_context: str = ""
    state: str = ""  # of the counts: "" known, "partial" or "unknown"
    reason: str = ""  # why they are not known


def tier_of(value: object) -> str:
    """A served tier; "" for the ordinary one."""
    name = str(value).lower() if isinstance(value, str) else ""
    return "" if name in _ORDINARY else untrusted.text(name, 24)


_ORDINARY = ("", "standard", "default", "auto", "on_demand", "ondemand", "unspecified", "not_available", "none")


def anthropic(usage: Raw, name: str, model: str) -> list[Usage]:
    """A Messages answer: the message's own model first, then what iterations of other models used. Raises BadRecord."""
    if usage.get("input_tokens") is None and usage.get("output_tokens") is None:
        return [Usage(name, model, {}, state="unknown", reason="no counts in the answer")]
    tier = "fast" if usage.get("speed") == "fast" else tier_of(usage.get("service_tier"))
    geo = wire_claude.label_of(usage.get("inference_geo"))
    first, *others = wire_claude.parts_of(usage, model)  # type: ignore[arg-type]
    usages = [Usage(name, model, _counts(first[1]), tier, geo)]
    for number, (served, counts) in enumerate(others, 1):
        usages.append(Usage(f"{name}#{number}" if name else "", untrusted.text(served), _counts(counts), tier, geo))
    return usages


def gemini(usage: Raw, name: str, model: str) -> Usage:
    """Gemini's usageMetadata: the prompt includes cached tokens but not tool prompts; candidates do not include thoughts."""
    sent, cached = untrusted.count(usage, "promptTokenCount"), untrusted.count(usage, "cachedContentTokenCount")
    tool, thoughts = untrusted.count(usage, "toolUsePromptTokenCount"), untrusted.count(usage, "thoughtsTokenCount")
    got, total = (
        untrusted.count(usage, "candidatesTokenCount", "responseTokenCount"),
        untrusted.count(usage, "totalTokenCount"),
    )
    inside = thoughts and total == sent + got + tool  # live sessions
    counts = {
        "input_tokens": max(sent - cached, 0) + tool,
        "cache_read_tokens": cached,
        "output_tokens": got if inside else got + thoughts,
        "reasoning_tokens": min(thoughts, got) if inside else thoughts,
        "audio_input_tokens": _modality(usage, "promptTokensDetails", "AUDIO"),
        "image_input_tokens": _modality(usage, "promptTokensDetails", "IMAGE"),
        "audio_output_tokens": _modality(usage, "candidatesTokensDetails", "AUDIO")
        or _modality(usage, "responseTokensDetails", "AUDIO"),
        "image_output_tokens": _modality(usage, "candidatesTokensDetails", "IMAGE"),
    }
    tier = tier_of(usage.get("serviceTier")) or _TRAFFIC.get(untrusted.text(usage.get("trafficType")), "")
    return Usage(name, model, _counts(counts), tier)


_TRAFFIC = {"ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex", "PROVISIONED_THROUGHPUT": "provisioned"}


def _modality(usage: Raw, key: str, name: str) -> int:
    return sum(
        untrusted.count(item, "tokenCount")
        for item in map(untrusted.mapping, untrusted.items(usage.get(key))[:_MOST_ITEMS])
        if item.get("modality") == name
    )


def cohere(meta: Raw, name: str, model: str) -> Usage:
    """Cohere's meta (v1) and usage (v2): `billed_units` is what is paid for, `tokens` what the model saw.

    What the model sees beyond the units (Cohere's own preamble, and tools) costs nothing: recorded answers have 44 units
    of 1,476 tokens. `cached_tokens` are some of the tokens, and make the units no cheaper.
    """
    tokens, billed = untrusted.mapping(meta.get("tokens")), untrusted.mapping(meta.get("billed_units"))
    saw, sent = untrusted.count(tokens, "input_tokens"), untrusted.count(billed, "input_tokens")
    if billed.get("input_tokens") is None:
        sent = saw
    cached = min(untrusted.count(meta, "cached_tokens"), sent) if sent == saw else 0
    got = untrusted.count(billed if billed.get("output_tokens") is not None else tokens, "output_tokens")
    counts = {
        "input_tokens": sent - cached,
        "cache_read_tokens": cached,
        "output_tokens": got,
        "reasoning_tokens": min(untrusted.count(tokens, "reasoning_tokens"), got),
        "image_input_tokens": min(untrusted.count(tokens or billed, "image_tokens"), sent),
        "requests": untrusted.count(billed, "search_units"),
    }
    return Usage(name, model, _counts(counts))


def ollama(holder: Raw, model: str) -> Usage:
    """Ollama's native answer. It leaves a count of 0 out, and a prompt that was cached whole has one."""
    counts = {
        "input_tokens": untrusted.count(holder, "prompt_eval_count"),
        "output_tokens": untrusted.count(holder, "eval_count"),
    }
    missing = [key for key in ("prompt_eval_count", "eval_count") if holder.get(key) is None]
    reason = f"{' and '.join(missing)} left out" if missing else ""
    return Usage("", model, _counts(counts), state="partial" if missing else "", reason=reason)


def lmstudio(stats: Raw, name: str, model: str) -> Usage:
    """LM Studio's native answer."""
    counts = {
        "input_tokens": untrusted.count(stats, "input_tokens"),
        "output_tokens": untrusted.count(stats, "total_output_tokens"),
        "reasoning_tokens": untrusted.count(stats, "reasoning_output_tokens"),
    }
    return Usage(name, model, _counts(counts))


_INSIDE = ("prompt_tokens_details", "input_tokens_details", "input_token_details", "prompt_token_details")
_OUTSIDE = ("completion_tokens_details", "output_tokens_details", "output_token_details", "completion_token_details")
_INPUT = ("prompt_tokens", "input_tokens", "inputTokens", "total_input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens", "outputTokens", "total_output_tokens")
_CACHED = (
    *("cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "cache_read_input_tokens"),
    *("total_cached_tokens", "cacheReadInputTokens"),
)
_WRITTEN = ("cache_creation_input_tokens", "cacheWriteInputTokens")
_REASONING = ("reasoning_tokens", "total_thought_tokens")
BY_THE_SECOND = "billed by the second, not by tokens"


def openai(usage: Raw, name: str, model: str, tier: str = "", provider: str = "", holder: Raw | None = None) -> Usage:
    """A usage object of OpenAI's names or of one that is like them. Raises BadRecord."""
    if "tokens" in usage or "billed_units" in usage:
        return cohere(usage, name, model)
    if usage.get("type") == "duration":
        return Usage(name, model, {}, tier, state="partial", reason=BY_THE_SECOND)
    inside, outside = (untrusted.mapping(_first(usage, *keys)) for keys in (_INSIDE, _OUTSIDE))
    cached = untrusted.count(inside, "cached_tokens") or untrusted.count(usage, *_CACHED)
    written = untrusted.count(inside, "cache_write_tokens") or untrusted.count(usage, *_WRITTEN)
    parts = _Parts(
        untrusted.count(usage, *_INPUT) + (cached + written if "inputTokens" in usage else 0),  # Bedrock's converse
        untrusted.count(usage, *_OUTPUT),
        untrusted.count(outside, "reasoning_tokens") or untrusted.count(usage, *_REASONING),
    )
    audio, tool = untrusted.count(inside, "audio_tokens"), untrusted.count(usage, "total_tool_use_tokens")
    total = untrusted.count(usage, "total_tokens", "totalTokens")
    (sent, got, thought), reason = _complete(parts, total, audio, tool, provider)
    if "deep-research" in model and (provider == "perplexity" or thought > got):  # its reasoning stands beside the output
        got += thought
    if usage.get("prompt_audio_seconds"):  # Mistral
        reason = reason or BY_THE_SECOND
    cached = min(cached, sent)
    written = min(written, sent - cached)
    counts = {
        "input_tokens": sent - cached - written,
        "cache_read_tokens": cached,
        "cache_write_tokens": written,
        "output_tokens": got,
        "reasoning_tokens": thought,
        "audio_input_tokens": min(audio, sent),
        "image_input_tokens": min(untrusted.count(inside, "image_tokens"), sent),
        "audio_output_tokens": min(untrusted.count(outside, "audio_tokens"), got),
        "image_output_tokens": min(untrusted.count(outside, "image_tokens"), got),
        "citation_tokens": untrusted.count(usage, "citation_tokens"),
        "web_searches": _searches(usage, holder or {}),
    }
    cost, source = _cost(usage)
    context = untrusted.text(usage.get("search_context_size"), 24)
    tier = tier or tier_of(usage.get("service_tier"))
    return Usage(name, model, _counts(counts), tier, "", cost, source, context, "partial" if reason else "", reason)


class _Parts(NamedTuple):
    """Input, output and reasoning, as they are reported."""

    sent: int
    got: int
    thought: int


def _complete(parts: _Parts, total: int, audio: int, tool: int, provider: str) -> tuple[_Parts, str]:
    """The parts with what the reported total has beyond them, and why they are only part of it ("" if they are not).

    Vendors leave different things out of the parts; the size of the gap tells which.
    """
    sent, got, thought = parts
    if not sent and not got and total:  # embeddings and rerankings may say no more
        return _Parts(total, got, thought), ""
    gap = max(total - sent - got, 0)
    if not gap:
        return parts, ""
    if gap in (audio, tool):  # Mistral's audio, Gemini's tool prompts
        return _Parts(sent + gap, got, thought), ""
    if tool and gap == tool + thought:
        return _Parts(sent + tool, got + thought, thought), ""
    if gap == thought:  # xAI's chat, Gemini's interactions
        return _Parts(sent, got + gap, thought), ""
    if not thought and provider in ("gemini", "vertex"):  # its compatible path hides thinking in the total
        return _Parts(sent, got + gap, gap), ""
    return parts, f"the reported total is {gap} above its parts"


def _first(payload: Raw, *keys: str) -> object:
    return next((payload[key] for key in keys if payload.get(key) is not None), None)


def _searches(usage: Raw, holder: Raw) -> int:
    """Searches that are billed one by one."""
    tools = untrusted.mapping(_first(usage, "server_tool_use", "server_tool_use_details", "server_side_tool_usage_details"))
    counted = sum(untrusted.count(tools, key) for key in ("web_search_requests", "web_search_calls", "x_search_calls"))
    counted = counted or untrusted.count(usage, "num_search_queries")
    if counted:
        return counted
    # OpenAI lists them as items of the answer; opening a page of the results is free.
    calls = [
        item
        for item in map(untrusted.mapping, untrusted.items(holder.get("output")))
        if item.get("type") == "web_search_call"
    ]
    return sum(untrusted.mapping(item.get("action")).get("type", "search") == "search" for item in calls)


def _cost(usage: Raw) -> tuple[str, str]:
    """What the vendor itself reports that it charged, in dollars."""
    ticks = usage.get("cost_in_usd_ticks")
    if type(ticks) is int and ticks > 0:  # xAI: ten thousand million to the dollar
        return untrusted.usd(Decimal(ticks) / 10**10), "reported"
    cost = usage.get("cost")
    if isinstance(cost, dict):
        paid = untrusted.usd(cost.get("total_cost"))
    elif usage.get("is_byok") is True:  # with the user's own key, OpenRouter's cost is its fee alone
        upstream = untrusted.usd(untrusted.mapping(usage.get("cost_details")).get("upstream_inference_cost"))
        fee = untrusted.usd(cost)
        paid = untrusted.usd(Decimal(upstream or 0) + Decimal(fee or 0)) if upstream else ""
    else:
        paid = untrusted.usd(cost)
    return (paid, "reported") if paid else ("", "")


def _counts(counts: dict[str, int]) -> dict[str, int]:
    """The counts that are not 0. Raises BadRecord for a sum that is too large to be exact."""
    for name, count in counts.items():
        if count >= fields.MOST:
            raise events.BadRecord(f"{name} is {count}; expected a count")
    return {name: count for name, count in counts.items() if count}
