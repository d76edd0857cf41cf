"""Finds the usage that one answer states in its JSON objects.

One answer is one object, or the many of a stream; `wire_shapes` turns the usage objects in them into counts. Values of
another shape are ignored, and what cannot be read makes the counts partial or unknown, with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenops import events, untrusted, wire_shapes

Raw = untrusted.Raw
Usage = wire_shapes.Usage
tier_of = wire_shapes.tier_of
CUT_SHORT = "the answer was cut short"
# Of one array so many items are looked at, the last ones, and of quota events the latest.
_MOST_ITEMS, _MOST_LIMITS = 10_000, 100
# Of a batch's results so many answers are counted, and of a single answer so many names that it gives itself.
MOST_RESULTS, MOST_NAMES = 100_000, 100
# What is kept of a usage object that comes in parts.
_IN_PARTS = frozenset(
    (
        *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "output_tokens"),
        *("output_tokens_details", "server_tool_use", "service_tier", "inference_geo", "iterations", "speed"),
    )
)


class Answer:
    """What the objects of one exchange say that it used. A later one of an id replaces an earlier: all are cumulative.

    `most`: so many ids are counted.
    """

    def __init__(self, provider: str = "", most: int = MOST_RESULTS) -> None:
        self.provider, self.most = provider, most
        self.id = self.model = self.tier = ""  # as the first objects say, for answers that do not repeat them
        self.error = ""  # the vendor's own name of an error that came inside an answer
        self.limits: list[Raw] = []  # quota events in the stream
        self.refused: Raw = {}  # the numbers of an error about a limit that is reached
        self.taken = 0  # objects
        self.refused_why = ""  # why something in the answer was not read
        self._incomplete = ""  # why the counts so far are not the last ones
        self._ended = False  # the answer said why it ends; counts may follow
        self._transcriber = "unknown"
        self._anthropic: dict[str, Any] = {}
        self._has_delta = False  # a message's counts came after its start
        self._usages: dict[str, list[Usage]] = {}
        self._latest = ""  # the key of the usage that came last

    def take(self, value: object) -> None:
        """Take in one object (or an array of them). Raises nothing: values of another shape are ignored."""
        for item in value[-_MOST_ITEMS:] if isinstance(value, list) else (value,):
            self.taken += 1
            if isinstance(item, dict):
                self._take(item)

    def skip_part(self, why: str, is_telling: bool) -> None:
        """Note that a part of the answer was not read, and whether it could have held counts."""
        self.refused_why = self.refused_why or why
        if is_telling:
            self._incomplete = why

    def _take(self, payload: Raw) -> None:
        kind = untrusted.text(payload.get("type")) or untrusted.text(payload.get("event_type"))
        if kind == "codex.rate_limits":
            self.limits = [*self.limits[1 - _MOST_LIMITS :], payload]
            return
        if isinstance(payload.get("session"), dict):
            self._session(payload["session"])
            return
        holder = _holder(payload, kind)
        self._note(holder, kind)
        if error := _error_in(payload, holder, kind):
            self._fault(error)
        try:
            self._usage(payload, holder, kind)
        except events.BadRecord as error:
            name = self._name(holder)
            self._keep([Usage(name, self.model, {}, state="unknown", reason=str(error))])

    def _note(self, holder: Raw, kind: str) -> None:
        self.id = self.id or self._name(holder)
        self.model = self.model or _model(holder)
        self.tier = tier_of(holder.get("service_tier")) or self.tier
        if _ends(holder) or (kind == "message_stop" and self._has_delta):
            self._end()

    def _end(self) -> None:
        """Note that the answer is whole, even if its last counts are still to come."""
        self._ended = True
        if self._incomplete == CUT_SHORT:
            self._incomplete = ""

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

    def _fault(self, error: object) -> None:
        details = untrusted.mapping(error)
        names = [untrusted.text(details.get(key)) for key in ("type", "code", "status")]
        name = next((name for name in names if name not in ("", "error")), "")
        self.error = name or "error"
        if not self.refused_why:
            self._incomplete = f"the answer broke off with an error: {self.error}"
        if name == "usage_limit_reached":
            self.refused = {
                key: details[key] for key in ("type", "plan_type", "resets_at", "resets_in_seconds") if key in details
            }

    def _usage(self, payload: Raw, holder: Raw, kind: str) -> None:
        if kind == "message_start" or (kind == "message_delta" and isinstance(payload.get("usage"), dict)):
            update = untrusted.mapping((holder if kind == "message_start" else payload).get("usage"))
            self._anthropic |= {key: update[key] for key in _IN_PARTS & update.keys() if update[key] is not None}
            # What a start says of the output is a placeholder; the delta that says why the answer ends has the counts.
            self._has_delta = kind == "message_delta"
            is_open = not untrusted.mapping(payload.get("delta")).get("stop_reason")
            self._keep(wire_shapes.anthropic(self._anthropic, self.id, self.model), is_open)
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
                usages = wire_shapes.anthropic(usage, name, model)
                if isinstance(payload.get("result"), dict):
                    usages = [each._replace(tier="batch") for each in usages]
                self._keep(usages)
            else:
                self._keep([wire_shapes.openai(usage, name, model, tier, self.provider, holder)], _is_open(holder, kind))
        elif isinstance(holder.get("usageMetadata"), dict):
            if holder.get("expireTime") is None:  # a stored cache has a size, and generates nothing
                self._keep([wire_shapes.gemini(holder["usageMetadata"], name, model)], _is_open(holder, kind))
        elif isinstance(holder.get("meta"), dict) and ("billed_units" in holder["meta"] or "tokens" in holder["meta"]):
            self._keep([wire_shapes.cohere(holder["meta"], name, model)])
        elif "eval_count" in holder or "prompt_eval_count" in holder:
            self._keep([wire_shapes.ollama(holder, model)], _is_open(holder, kind))
        elif isinstance(holder.get("stats"), dict) and "total_output_tokens" in holder["stats"]:
            self._keep([wire_shapes.lmstudio(holder["stats"], name, model)])

    def _keep(self, usages: list[Usage], is_open: bool = False) -> None:
        """Keep what one answer used; `is_open`: the stream has not said its last word."""
        name = usages[0].id
        if len(self._usages) >= self.most and name not in self._usages:
            self.skip_part(f"more than {self.most:,} answers in one", True)
            return
        if name:  # an answer may say its name only after its first counts
            self._usages.pop("", None)
        self._usages[name], self._latest = usages, name
        if not self.refused_why:
            self._incomplete = CUT_SHORT if is_open and not self._ended else ""

    def usages(self) -> list[Usage]:
        """What was used, one item per answer and model; empty if no usage was reported."""
        usages = [usage for several in self._usages.values() for usage in several]
        if not self._incomplete:
            return usages
        latest = self._usages.get(self._latest, [])
        return [self._partial(usage) if usage in latest else usage for usage in usages]

    def _partial(self, usage: Usage) -> Usage:
        return usage if usage.state else usage._replace(state="partial", reason=self._incomplete)

    def take_usages(self) -> list[Usage]:
        """What was used since the last call: for connections with answer after answer."""
        usages = self.usages()
        self._usages.clear()
        self._incomplete, self._ended = "", False
        return usages


def _is_open(holder: Raw, kind: str) -> bool:
    """Whether a piece of a stream has counts so far, and the answer goes on."""
    if _ends(holder):
        return False
    if holder.get("done") is False or holder.get("status") in _UNDER_WAY or kind.endswith(_BEGINS):
        return True
    if holder.get("object") == "chat.completion.chunk" or untrusted.items(holder.get("candidates")):
        return True
    choices = [untrusted.mapping(choice) for choice in untrusted.items(holder.get("choices"))[:_MOST_ITEMS]]
    if any("delta" in choice or ("message" not in choice and "finish_reason" in choice) for choice in choices):
        return True
    return "modelVersion" in holder and not {"candidates", "promptFeedback"} & holder.keys()


_UNDER_WAY = ("queued", "in_progress")
_BEGINS = (".created", ".queued", ".in_progress", ".start", ".started")


def _ends(holder: Raw) -> bool:
    """Whether a piece of a stream says that its answer is whole: why it ends."""
    if holder.get("object") == "chat.completion.done" or holder.get("done") is True:
        return True
    pieces = untrusted.items(holder.get("choices")) or untrusted.items(holder.get("candidates"))
    pieces = [untrusted.mapping(piece) for piece in pieces[:_MOST_ITEMS]]
    return any(piece.get("finish_reason") or piece.get("finishReason") for piece in pieces)


def _error_in(payload: Raw, holder: Raw, kind: str) -> object:
    """What an object says of an error that ended its answer; None if it says nothing of one."""
    if error := holder.get("error") or payload.get("error"):
        return error
    if kind in ("error", "conversation.response.error"):
        return {"code": payload.get("code")}
    if payload.get("object") == "error":
        return payload
    if several := untrusted.items(payload.get("errors")):
        return several[0] or "error"
    for piece in [holder, *map(untrusted.mapping, untrusted.items(holder.get("choices"))[:_MOST_ITEMS])]:
        if error := piece.get("error"):
            return error
        if untrusted.text(piece.get("finish_reason")).lower().startswith("error"):
            return "error"
    if holder.get("status") == "failed" or kind == "response.failed":
        return untrusted.mapping(holder.get("status_details")).get("error") or {"code": "failed"}
    return None


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


def _is_anthropic(holder: Raw, usage: Raw) -> bool:
    if "prompt_tokens" in usage or "input_tokens" not in usage:
        return False
    return holder.get("type") == "message" or "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage


# What a line must hold for it to say anything about usage, or that an answer ends: the rest of a stream is never parsed.
TELLING = re.compile(
    rb'"usage(?:Metadata)?"\s*:\s*\{|eval_count"|"(?:conversation\.response\.)?errors?"|event:[ \t]*error|'
    rb'message_st(?:art|op)"|"rate_limits"|"stats"\s*:\s*\{|"meta"\s*:\s*\{|"finish_?[rR]eason"\s*:\s*"'
)


def in_part(head: bytes, tail: bytes) -> Iterator[Raw]:
    """The usage in the two ends of one huge object. Quotes inside texts are escaped, so a key in the bytes is a real key."""
    head_fields: dict[str, Any] = {}
    for key, value in re.findall(
        rb'"(id|model|modelVersion|responseId|service_tier|type|object)"\s*:\s*"([^"\\]{1,200})"', head
    ):
        head_fields.setdefault(key.decode(), value.decode(errors="replace"))
    for match in list(_USAGE_KEY.finditer(tail))[: -_MOST_TRIED - 1 : -1]:
        if (value := _object_at(tail, match.end())) is not None:
            yield {**head_fields, match[1].decode(): value}
            return


_USAGE_KEY = re.compile(rb'"(usage|usageMetadata|meta)"\s*:\s*(?=\{)')
_MOST_TRIED = 20


def _object_at(data: bytes, at: int) -> Any:
    try:
        value = json.JSONDecoder().raw_decode(data[at : at + 20_000].decode(errors="replace"))[0]
    except (ValueError, RecursionError):
        return None
    return None if untrusted.is_too_deep(value) else value
