"""Finds the usage that one answer states in its JSON objects.

One answer is one object, or many in a stream. The shape of a usage object shows what its counts mean, whatever the
vendor; if the same names mean different things, the reported total decides. Sources: recorded traffic of twenty vendors
(2024 to 2026) and their API references as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from tokenops import events, untrusted, wire_claude

Raw = untrusted.Raw


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


class Answer:
    """What the objects of one exchange say that it used. A later one of an id replaces an earlier: all are cumulative."""

    def __init__(self, provider: str = "") -> None:
        self.provider = provider
        self.id = self.model = self.tier = ""  # as the first objects say, for answers that do not repeat them
        self.error = ""  # the vendor's own name of an error that came inside an answer
        self.limits: list[Raw] = []  # quota events in the stream
        self.refused: Raw = {}  # the numbers of an error about a limit that is reached
        self._transcriber = "unknown"
        self._anthropic: dict[str, Any] = {}
        self._usages: dict[str, list[Usage]] = {}

    def take(self, value: object) -> None:
        """Take in one object (or an array of them). Raises nothing: values of another shape are ignored."""
        if isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    self._take(item)
        elif isinstance(value, dict):
            self._take(value)

    def _take(self, payload: Raw) -> None:
        kind = payload.get("type") or payload.get("event_type") or ""
        if kind == "codex.rate_limits":
            self.limits.append(payload)
            return
        if isinstance(payload.get("session"), dict):
            self._session(payload["session"])
            return
        holder = _holder(payload, str(kind))
        self._note(holder)
        if "error" in payload or kind in ("error", "response.failed"):
            self._fault(payload, holder)
        try:
            self._usage(payload, holder, str(kind))
        except events.BadRecord as error:
            self._usages[self._name(holder)] = [
                Usage(self._name(holder), self.model, {}, state="unknown", reason=str(error))
            ]

    def _note(self, holder: Raw) -> None:
        self.id = self.id or self._name(holder)
        self.model = self.model or _model(holder)
        self.tier = tier_of(holder.get("service_tier")) or self.tier

    def _session(self, session: Raw) -> None:
        """A realtime session names the models it uses: one that answers, and one that transcribes speech."""
        self.model = untrusted.text(session.get("model")) or self.model
        listening = untrusted.mapping(
            untrusted.mapping(untrusted.mapping(session.get("audio")).get("input")).get("transcription")
        )
        older = untrusted.mapping(session.get("input_audio_transcription"))
        self._transcriber = untrusted.text(listening.get("model")) or untrusted.text(older.get("model")) or self._transcriber

    def _name(self, holder: Raw) -> str:
        for key in ("id", "responseId", "generation_id", "response_id"):
            if name := untrusted.identity(holder.get(key)):
                return name
        return ""

    def _fault(self, payload: Raw, holder: Raw) -> None:
        error = holder.get("error") or payload.get("error")
        details = untrusted.mapping(error)
        name = next(
            (untrusted.text(details.get(key)) for key in ("type", "code", "status") if untrusted.text(details.get(key))), ""
        )
        if error or payload.get("type") == "error":
            self.error = name or "error"
        if name == "usage_limit_reached":
            self.refused = {
                key: details[key] for key in ("type", "plan_type", "resets_at", "resets_in_seconds") if key in details
            }

    def _usage(self, payload: Raw, holder: Raw, kind: str) -> None:
        if kind == "message_start" or (kind == "message_delta" and isinstance(payload.get("usage"), dict)):
            update = untrusted.mapping((holder if kind == "message_start" else payload).get("usage"))
            self._anthropic |= {key: value for key, value in update.items() if value is not None}
            self._keep(anthropic(self._anthropic, self.id, self.model))
            return
        if kind.startswith("thread.run.step"):
            return  # the run repeats what its steps used
        usage = holder.get("usage")
        if not isinstance(usage, dict):
            usage = untrusted.mapping(holder.get("x_groq")).get("usage")
        if not usage and isinstance(payload.get("usage"), dict):  # beside the response (xAI's realtime), or an item's
            usage = payload["usage"]
        name, model = self._name(holder) or self.id, _model(holder) or self.model
        if kind.endswith("input_audio_transcription.completed"):
            name, model = untrusted.identity(payload.get("item_id")), self._transcriber
        tier = tier_of(holder.get("service_tier")) or self.tier
        if isinstance(usage, dict) and usage:
            if _is_anthropic(holder, usage):
                usages = anthropic(usage, name, model)
                if isinstance(payload.get("result"), dict):
                    usages = [each._replace(tier="batch") for each in usages]
                self._keep(usages)
            else:
                self._keep([openai(usage, name, model, tier, self.provider, holder)])
        elif isinstance(holder.get("usageMetadata"), dict):
            if holder.get("expireTime") is None:  # a stored cache has a size, and generates nothing
                self._keep([gemini(untrusted.mapping(holder["usageMetadata"]), name, model)])
        elif isinstance(holder.get("meta"), dict) and ("billed_units" in holder["meta"] or "tokens" in holder["meta"]):
            self._keep([cohere(holder["meta"], name, model)])
        elif "eval_count" in holder or "prompt_eval_count" in holder:
            self._keep([ollama(holder, model)])
        elif isinstance(holder.get("stats"), dict) and "total_output_tokens" in holder["stats"]:
            self._keep([lmstudio(untrusted.mapping(holder["stats"]), name, model)])

    def _keep(self, usages: list[Usage]) -> None:
        if usages[0].id:  # an answer may say its name only after its first counts
            self._usages.pop("", None)
        self._usages[usages[0].id] = usages

    def usages(self) -> list[Usage]:
        """What was used, one item per answer and model; empty if no usage was reported."""
        return [usage for several in self._usages.values() for usage in several]


def _holder(payload: Raw, kind: str) -> Raw:
    """The object that holds the id, the model and the usage of an answer."""
    for key in ("message", "response", "interaction"):
        inner = payload.get(key)
        if isinstance(inner, dict) and kind:
            body = inner.get("body")
            return body if isinstance(body, dict) else inner
    if kind == "message-end" and isinstance(payload.get("delta"), dict):
        return {"id": payload.get("id"), **payload["delta"]}
    if kind == "chat.end" and isinstance(payload.get("result"), dict):
        return untrusted.mapping(payload["result"])
    if "custom_id" in payload:  # a line of a batch's results
        inner = untrusted.mapping(untrusted.mapping(payload.get("result")).get("message")) or untrusted.mapping(
            untrusted.mapping(payload.get("response")).get("body")
        )
        return inner or payload
    return payload


def _model(holder: Raw) -> str:
    named = (
        untrusted.text(holder.get("model"))
        or untrusted.text(holder.get("modelVersion"))
        or untrusted.text(holder.get("model_instance_id"))
    )
    return named.removeprefix("models/")


def tier_of(value: object) -> str:
    """A served tier; "" for the ordinary one."""
    name = str(value).lower() if isinstance(value, str) else ""
    return "" if name in _ORDINARY else untrusted.text(name, 24)


_ORDINARY = ("", "standard", "default", "auto", "on_demand", "ondemand", "unspecified", "not_available", "none")


def _is_anthropic(holder: Raw, usage: Raw) -> bool:
    if "prompt_tokens" in usage or "input_tokens" not in usage:
        return False
    return holder.get("type") == "message" or "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage


def anthropic(usage: Raw, name: str, model: str) -> list[Usage]:
    """A Messages answer: the message's own model first, then what iterations of other models used. Raises BadRecord."""
    if usage.get("input_tokens") is None and usage.get("output_tokens") is None:
        return [Usage(name, model, {}, state="unknown", reason="no counts in the answer")]
    tier = "fast" if usage.get("speed") == "fast" else tier_of(usage.get("service_tier"))
    geo = wire_claude.label_of(usage.get("inference_geo"))
    first, *others = wire_claude.parts_of(usage, model)  # type: ignore[arg-type]
    usages = [Usage(name, model, first[1], tier, geo)]
    for number, (served, counts) in enumerate(others, 1):
        usages.append(Usage(f"{name}#{number}" if name else "", served, counts, tier, geo))
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
    tier = tier_of(usage.get("serviceTier")) or tier_of(_TRAFFIC.get(str(usage.get("trafficType")), ""))
    return Usage(name, model, _counts(counts), tier)


_TRAFFIC = {"ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex", "PROVISIONED_THROUGHPUT": "provisioned"}


def _modality(usage: Raw, key: str, name: str) -> int:
    return sum(
        untrusted.count(item, "tokenCount")
        for item in map(untrusted.mapping, untrusted.items(usage.get(key)))
        if item.get("modality") == name
    )


def cohere(meta: Raw, name: str, model: str) -> Usage:
    """Cohere's meta (v1) and usage (v2): `tokens` is what the model saw, cached inside; else what was billed."""
    tokens, billed = untrusted.mapping(meta.get("tokens")), untrusted.mapping(meta.get("billed_units"))
    source = tokens or billed
    sent = untrusted.count(source, "input_tokens")
    cached = min(untrusted.count(meta, "cached_tokens"), sent) if tokens else 0
    counts = {
        "input_tokens": sent - cached,
        "cache_read_tokens": cached,
        "output_tokens": untrusted.count(source, "output_tokens"),
        "reasoning_tokens": untrusted.count(source, "reasoning_tokens"),
        "image_input_tokens": min(untrusted.count(source, "image_tokens"), sent),
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


def openai(usage: Raw, name: str, model: str, tier: str = "", provider: str = "", holder: Raw | None = None) -> Usage:
    """A usage object of OpenAI's names or of one that is like them. Raises BadRecord."""
    if "tokens" in usage or "billed_units" in usage:
        return cohere(usage, name, model)
    if usage.get("type") == "duration":
        return Usage(name, model, {}, tier, state="partial", reason="billed by the second, not by tokens")
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
    return {name: count for name, count in counts.items() if count}


# What a line must hold for it to say anything about usage: the rest of a stream is never parsed.
TELLING = re.compile(
    rb'"usage(?:Metadata)?"\s*:\s*\{|eval_count"|"error"|message_start"|"rate_limits"|"stats"\s*:\s*\{|"meta"\s*:\s*\{'
)


def in_part(head: bytes, tail: bytes) -> Iterator[Raw]:
    """The usage in the two ends of one huge object. Quotes inside texts are escaped, so a key in the bytes is a real key."""
    head_fields: dict[str, Any] = {}
    for key, value in re.findall(
        rb'"(id|model|modelVersion|responseId|service_tier|type|object)"\s*:\s*"([^"\\]{1,200})"', head
    ):
        head_fields.setdefault(key.decode(), value.decode(errors="replace"))
    for match in reversed(list(_USAGE_KEY.finditer(tail))):
        if (value := _object_at(tail, match.end())) is not None:
            yield {**head_fields, match[1].decode(): value}
            return


_USAGE_KEY = re.compile(rb'"(usage|usageMetadata)"\s*:\s*(?=\{)')


def _object_at(data: bytes, at: int) -> Any:
    import json

    try:
        return json.JSONDecoder().raw_decode(data[at : at + 20_000].decode(errors="replace"))[0]
    except ValueError:
        return None
