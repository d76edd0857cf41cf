"""The four wires that the rig's vendor speaks: what a request asks, and the bytes of an answer, a stream or a refusal.

Messages (Anthropic), Responses and Chat Completions (OpenAI), and Gemini, as their vendors document them (2026-11).
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from conftest import Json

TEXT = "I go on."
CALLS = ("tool_use", "function_call", "custom_tool_call")
RESULTS = ("function_call_output", "custom_tool_call_output")
REFUSALS = {429: "rate_limit_error", 529: "overloaded_error"}


class Step(NamedTuple):
    """One answer: the tool it calls, if any, and what the request that it answers was for."""

    tool: str = ""
    arguments: Json | str = ""  # a text for a tool that takes a program; AGENT is the agent that was spawned last
    namespace: str = ""
    labels: Json | None = None
    thought: str = ""
    refused: int = 0  # a status that is answered once, before the answer itself
    hangs: bool = False  # the stream stops after its first words


class Question(NamedTuple):
    """A request, whatever its wire: its messages have parts as those of Messages do."""

    model: str
    messages: list[Json]
    tools: frozenset[str]  # the names of those that it offers
    effort: str | None
    streams: bool
    body: Json


class Reply(NamedTuple):
    """An answer: as one object, or as events of a stream, of which the first few hold its first words."""

    whole: Json
    events: list[bytes]
    first: int


class Wire(NamedTuple):
    """A protocol."""

    name: str
    paths: re.Pattern[str]
    question: Callable[[Json, str], Question]
    stated: Callable[[Counter[str]], Counter[str]]  # counts -> those that this wire can state
    reply: Callable[[Question, Step, Counter[str]], Reply]
    refusal: Callable[[int], Json]


def event(value: Json, named: bool = True) -> bytes:
    """An event of a stream."""
    name = b"event: " + value["type"].encode() + b"\n" if named else b""
    return name + b"data: " + json.dumps(value).encode() + b"\n\n"


def parts(message: Json) -> list[Json]:
    """The parts of a message. An item of Responses may itself be a call or a result."""
    content = message.get("content", [message])
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def offered(body: Json) -> frozenset[str]:
    """The names of the tools that a request offers."""
    names = set()
    for tool in body.get("tools") or ():
        for declared in tool.get("functionDeclarations") or [tool.get("function", tool)]:
            names.add(declared.get("name") or declared.get("type", ""))
    return frozenset(names)


def _id(prefix: str, length: int = 24) -> str:
    return prefix + uuid.uuid4().hex[:length]


# Messages


def _messages_question(body: Json, _: str) -> Question:
    effort = body.get("output_config", {}).get("effort")
    return Question(body["model"], body["messages"], offered(body), effort, bool(body.get("stream")), body)


def _messages_stated(counts: Counter[str]) -> Counter[str]:
    return counts


def _messages_blocks(step: Step) -> Iterator[tuple[Json, Json, list[Json]]]:
    """Each block as it begins, as it is whole, and the deltas between the two."""
    if step.thought:
        thought = {"thinking": step.thought, "signature": "c2ln" * 20}
        deltas = [{"type": f"{name}_delta", name: value} for name, value in thought.items()]
        yield {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking", **thought}, deltas
    yield {"type": "text", "text": ""}, {"type": "text", "text": TEXT}, [{"type": "text_delta", "text": TEXT}]
    if step.tool:
        call = {"type": "tool_use", "id": _id("toolu_"), "name": step.tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(step.arguments)}
        yield call, call | {"input": step.arguments}, [delta]


def _messages_reply(question: Question, step: Step, counts: Counter[str]) -> Reply:
    usage = {
        "input_tokens": counts["input"],
        "cache_read_input_tokens": counts["cache_read"],
        "cache_creation_input_tokens": counts["cache_write"] + counts["cache_write_1h"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts["cache_write"],
            "ephemeral_1h_input_tokens": counts["cache_write_1h"],
        },
        "output_tokens": 1,
        "service_tier": "standard",
    }
    output = {"output_tokens": counts["output"], "output_tokens_details": {"thinking_tokens": counts["reasoning"]}}
    start = {"id": _id("msg_", 32), "type": "message", "role": "assistant", "model": question.model, "content": [],
             "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
    reason = {"stop_reason": "tool_use" if step.tool else "end_turn", "stop_sequence": None}
    events, blocks = [event({"type": "message_start", "message": start})], list(_messages_blocks(step))
    for index, (block, _, deltas) in enumerate(blocks):
        events.append(event({"type": "content_block_start", "index": index, "content_block": block}))
        events += [event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas]
        events.append(event({"type": "content_block_stop", "index": index}))
    events.append(event({"type": "message_delta", "delta": reason, "usage": usage | output}))
    events.append(event({"type": "message_stop"}))
    whole = start | reason | {"content": [block for _, block, _ in blocks], "usage": usage | output}
    return Reply(whole, events, 3)


def _messages_refusal(status: int) -> Json:
    return {"type": "error", "error": {"type": REFUSALS[status], "message": "This would exceed your rate limit."}}


# Responses


def _responses_question(body: Json, _: str) -> Question:
    items = body["input"]
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    effort = (body.get("reasoning") or {}).get("effort")
    return Question(body["model"], items, offered(body), effort, bool(body.get("stream")), body)


def _responses_stated(counts: Counter[str]) -> Counter[str]:
    counts["cache_write"] += counts.pop("cache_write_1h")
    return counts


def _agent_of(body: Json) -> str:
    """The agent that a conversation of Codex spawned last."""
    return (["", *re.findall(r'agent_id\\": *\\"([\w-]+)', json.dumps(body["input"]))])[-1]


def _called(step: Step, agent: str) -> Json:
    """A call of a tool, as Responses has it."""
    call = {"call_id": _id("call_", 20), "name": step.tool, "status": "completed"}
    if step.namespace:
        call["namespace"] = step.namespace
    if isinstance(step.arguments, str):
        return call | {"type": "custom_tool_call", "id": _id("ctc_", 32), "input": step.arguments}
    arguments = json.dumps(step.arguments).replace("AGENT", agent)
    return call | {"type": "function_call", "id": _id("fc_", 32), "arguments": arguments}


def _responses_items(step: Step, body: Json) -> Iterator[Json]:
    if step.thought:
        summary = [{"type": "summary_text", "text": step.thought}]
        yield {"type": "reasoning", "id": _id("rs_"), "summary": summary, "encrypted_content": "ZW5j"}
    said = [{"type": "output_text", "text": TEXT, "annotations": []}]
    yield {"type": "message", "id": _id("msg_", 32), "role": "assistant", "status": "completed", "content": said}
    if step.tool:
        yield _called(step, _agent_of(body))


def _responses_deltas(item: Json) -> Iterator[Json]:
    """What a stream says of an item between its beginning and its end."""
    own = {"item_id": item["id"]}
    if item["type"] == "message":
        text = {"content_index": 0, "logprobs": []}
        empty = {"type": "output_text", "text": "", "annotations": []}
        yield own | {"type": "response.content_part.added", "content_index": 0, "part": empty}
        yield own | text | {"type": "response.output_text.delta", "delta": TEXT}
        yield own | text | {"type": "response.output_text.done", "text": TEXT}
        yield own | {"type": "response.content_part.done", "content_index": 0, "part": item["content"][0]}
    elif item["type"] == "reasoning":
        own |= {"summary_index": 0}
        thought = item["summary"][0]["text"]
        yield own | {"type": "response.reasoning_summary_part.added", "part": {"type": "summary_text", "text": ""}}
        yield own | {"type": "response.reasoning_summary_text.delta", "delta": thought}
        yield own | {"type": "response.reasoning_summary_text.done", "text": thought}
        yield own | {"type": "response.reasoning_summary_part.done", "part": item["summary"][0]}
    elif item["type"] == "function_call":
        yield own | {"type": "response.function_call_arguments.delta", "delta": item["arguments"]}
        yield own | {"type": "response.function_call_arguments.done", "arguments": item["arguments"]}


def _responses_reply(question: Question, step: Step, counts: Counter[str]) -> Reply:
    prompt = counts["input"] + counts["cache_read"] + counts["cache_write"]
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": counts["cache_read"], "cache_write_tokens": counts["cache_write"]},
        "output_tokens": counts["output"],
        "output_tokens_details": {"reasoning_tokens": counts["reasoning"]},
        "total_tokens": prompt + counts["output"],
    }
    items = list(_responses_items(step, question.body))
    whole = {"id": _id("resp_", 32), "object": "response", "created_at": int(time.time()), "status": "completed",
             "model": question.model, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
             "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1, "top_p": 1,
             "output": items, "usage": usage}  # fmt: skip
    begun = whole | {"status": "in_progress", "usage": None, "output": []}
    said: list[Json] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(items):
        hollow = {"content": [], "summary": [], "arguments": ""}
        bare = item | {key: value for key, value in hollow.items() if key in item} | {"status": "in_progress"}
        for value in (
            {"type": "response.output_item.added", "item": bare},
            *_responses_deltas(item),
            {"type": "response.output_item.done", "item": item},
        ):
            said.append(value | {"output_index": index})
    said.append({"type": "response.completed", "response": whole})
    events = [event(value | {"sequence_number": number}) for number, value in enumerate(said)]
    return Reply(whole, events, 4)


def _openai_refusal(status: int) -> Json:
    return {
        "error": {"message": "Rate limit reached. Please try again in 1s.", "type": "tokens", "code": "rate_limit_exceeded"}
    }


# Chat Completions


def _chat_message(message: Json) -> Json:
    """A message of Chat with the parts of Messages."""
    if message["role"] == "tool":
        return {"role": "user", "content": [{"type": "tool_result", "content": message["content"]}]}
    if message.get("tool_calls"):
        calls = [{"type": "tool_use"} for _ in message["tool_calls"]]
        return {"role": "assistant", "content": [*parts({"content": message.get("content")}), *calls]}
    return message


def _chat_question(body: Json, _: str) -> Question:
    messages = [_chat_message(message) for message in body["messages"]]
    tools, effort = offered(body), body.get("reasoning_effort")
    return Question(body["model"], messages, tools, effort, bool(body.get("stream")), body)


def _unwritten(counts: Counter[str]) -> Counter[str]:
    """A vendor whose caches are written for nothing states it as input."""
    counts["input"] += counts.pop("cache_write") + counts.pop("cache_write_1h")
    return counts


def _chat_reply(question: Question, step: Step, counts: Counter[str]) -> Reply:
    prompt = counts["input"] + counts["cache_read"]
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": counts["output"],
        "total_tokens": prompt + counts["output"],
        "prompt_tokens_details": {"cached_tokens": counts["cache_read"]},
        "completion_tokens_details": {"reasoning_tokens": counts["reasoning"]},
    }
    message: Json = {"role": "assistant", "content": TEXT}
    if step.thought:
        message["reasoning_content"] = step.thought
    if step.tool:
        function = {"name": step.tool, "arguments": json.dumps(step.arguments)}
        message["tool_calls"] = [{"id": _id("call_", 20), "type": "function", "function": function}]
    end = "tool_calls" if step.tool else "stop"
    head = {"id": _id("chatcmpl-", 32), "created": int(time.time()), "model": question.model}
    choice = {"index": 0, "message": message, "finish_reason": end}
    whole = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": step.thought}] if step.thought else []
    deltas += [{"content": TEXT}]
    deltas += [{"tool_calls": [call | {"index": 0}]} for call in message.get("tool_calls", ())]
    choices: list[list[Json]] = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": end}])
    head |= {"object": "chat.completion.chunk"}
    chunks: list[Json] = [head | {"choices": listed} for listed in choices]
    if (question.body.get("stream_options") or {}).get("include_usage"):
        chunks.append(head | {"choices": [], "usage": usage})
    return Reply(whole, [*(event(chunk, named=False) for chunk in chunks), b"data: [DONE]\n\n"], 3 if step.thought else 2)


# Gemini


def _gemini_question(body: Json, target: str) -> Question:
    model = target.rpartition("/")[2].partition(":")[0]
    contents = body["contents"]
    messages = []
    for content in [contents] if isinstance(contents, dict) else contents:
        found: list[Json] = []
        for part in content["parts"]:
            if "functionCall" in part:
                found.append({"type": "tool_use"})
            elif "functionResponse" in part:
                found.append({"type": "tool_result", "content": json.dumps(part["functionResponse"])})
            elif "text" in part and not part.get("thought"):
                found.append({"type": "text", "text": part["text"]})
        messages.append({"role": "assistant" if content.get("role") == "model" else "user", "content": found})
    effort = body.get("generationConfig", {}).get("thinkingConfig", {}).get("thinkingLevel")
    return Question(model, messages, offered(body), effort, ":stream" in target, body)


def _gemini_reply(question: Question, step: Step, counts: Counter[str]) -> Reply:
    usage = {
        "promptTokenCount": counts["input"] + counts["cache_read"],
        "cachedContentTokenCount": counts["cache_read"],
        "candidatesTokenCount": counts["output"] - counts["reasoning"],
        "thoughtsTokenCount": counts["reasoning"],
        "totalTokenCount": counts["input"] + counts["cache_read"] + counts["output"],
    }
    said: list[Json] = [{"text": step.thought, "thought": True}] if step.thought else []
    said += [{"text": TEXT}]
    if step.tool:
        call = {"name": step.tool, "args": step.arguments, "id": _id("call_", 10)}
        said += [{"functionCall": call, "thoughtSignature": "c2ln"}]
    else:
        said += [{"text": "\n"}]  # the final counts come with a part of their own
    head = {"responseId": _id("", 22), "modelVersion": question.model, "usageMetadata": usage}

    def answer(parts: list[Json], end: bool) -> Json:
        reason = {"finishReason": "STOP"} if end else {}
        return head | {"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, **reason}]}

    begun = {key: usage[key] for key in ("promptTokenCount", "cachedContentTokenCount")}
    begun["totalTokenCount"] = usage["promptTokenCount"]
    events = []
    for index, part in enumerate(said):
        end = index == len(said) - 1
        events.append(event(answer([part], end) | ({} if end else {"usageMetadata": begun}), named=False))
    return Reply(answer(said, True), events, 1)


def _gemini_refusal(status: int) -> Json:
    wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
    return {"error": {"code": status, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED", "details": [wait]}}


WIRES = (
    Wire("messages", re.compile(r"/messages$"), _messages_question, _messages_stated, _messages_reply, _messages_refusal),
    Wire("responses", re.compile(r"/responses$"), _responses_question, _responses_stated, _responses_reply, _openai_refusal),
    Wire("chat", re.compile(r"/chat/completions$"), _chat_question, _unwritten, _chat_reply, _openai_refusal),
    Wire("gemini", re.compile(r":(streamG|g)enerateContent$"), _gemini_question, _unwritten, _gemini_reply, _gemini_refusal),
)
