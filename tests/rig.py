"""A vendor that keeps a ledger: it answers real clients by a script, and writes down what it charged for what.

A prompt names its script: `[[work]]`. The step that is answered is the number of the model's calls of tools after that
mark, so the vendor needs no memory of a conversation, and a subagent's prompt can name a script of its own.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from upstream import Asked, Upstream, Writer, plain, stream

from conftest import Json

MARK = re.compile(r"\[\[(\w+)\]\]")
TEXT = "I go on."
CALLS = ("tool_use", "function_call", "custom_tool_call")
RESULTS = ("function_call_output", "custom_tool_call_output")
CLASSES = ("input", "cache_read", "cache_write", "cache_write_1h", "output", "reasoning")


class Step(NamedTuple):
    """One answer: the tool it calls, if any, and what the request that it answers was for."""

    tool: str = ""
    arguments: Json | str = ""  # a text for a tool that takes a program; AGENT is the agent that was spawned last
    namespace: str = ""
    labels: Json | None = None


class Charge(NamedTuple):
    """A row of the ledger."""

    model: str
    labels: Json
    counts: Counter[str]
    entered: Counter[str]  # characters of the request after the model's own last message: results, and other texts


class Ledger:
    """What was charged, in order, and what else was asked for."""

    def __init__(self, scripts: dict[str, tuple[Step, ...]]) -> None:
        self.scripts = scripts
        self.labels: Json = {}  # of each request from now on
        self.charges: list[Charge] = []
        self.others: list[str] = []
        self.outside: list[str] = []  # hosts that a client wanted to reach beyond the vendor
        self.prompts: dict[str, int] = {}  # tokens of each conversation so far

    def sums(self, label: str) -> dict[str, Counter[str]]:
        """The tokens by class of each value of a label, and how many requests."""
        found: dict[str, Counter[str]] = {}
        for charge in self.charges:
            found.setdefault(charge.labels.get(label, "unmarked"), Counter()).update(charge.counts, turns=1)
        return found

    def charge(self, conversation: str, model: str, labels: Json, sizes: Counter[str]) -> Counter[str]:
        """Counts that no other request has: a prompt that grows, most of it read from a cache."""
        number = len(self.charges) + 1
        counts = Counter(
            cache_read=self.prompts.get(conversation, 0),
            cache_write=4001 + 17 * number,
            cache_write_1h=503 + 5 * number,
            input=11 + number,
            output=203 + 3 * number,
            reasoning=41 + number,
        )
        self.prompts[conversation] = sum(counts[name] for name in CLASSES[:4])
        self.charges.append(Charge(model, labels, counts, sizes))
        return counts

    async def answer(self, asked: Asked, writer: Writer) -> None:
        """Answer a request of any kind."""
        target = asked.head.target.decode().partition("?")[0]
        method = asked.head.method.decode()
        if method == "CONNECT":
            self.outside.append(target)
            await plain(b"{}", status=403)(asked, writer)
        elif method == "POST" and target.endswith("/messages"):
            await stream(*self.message(json.loads(asked.body)), pause=0)(asked, writer)
        elif method == "POST" and target.endswith("/responses"):
            await stream(*self.response(json.loads(asked.body)), pause=0)(asked, writer)
        else:
            self.others.append(f"{method} {target}")
            await plain(b'{"type":"error","error":{"type":"not_found_error","message":"none"}}', status=404)(asked, writer)

    def step(self, messages: list[Json], model: str, effort: str | None) -> tuple[Step, Counter[str]]:
        """The step that is next after some messages, and what it costs."""
        script, calls = "", 0
        for part in itertools.chain.from_iterable(map(parts, messages)):
            marks = MARK.findall(text_of(part))
            script, calls = (marks[-1], 0) if marks else (script, calls + (part.get("type") in CALLS))
        steps = self.scripts.get(script, ())
        step = steps[calls] if calls < len(steps) else Step(labels={"script": "none"})
        labels = self.labels | (step.labels or {}) | ({"effort": effort} if effort else {})
        return step, self.charge(f"{script} {self.labels}", model, labels, entered(messages))

    def message(self, request: Json) -> Iterator[bytes]:
        """A streamed answer of Anthropic's Messages."""
        step, counts = self.step(request["messages"], request["model"], request.get("output_config", {}).get("effort"))
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
        start = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": request["model"], "content": [],
                 "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
        yield event({"type": "message_start", "message": start})
        blocks: list[tuple[Json, Json]] = [({"type": "text", "text": ""}, {"type": "text_delta", "text": TEXT})]
        if step.tool:
            call = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": step.tool, "input": {}}
            blocks.append((call, {"type": "input_json_delta", "partial_json": json.dumps(step.arguments)}))
        for index, (block, delta) in enumerate(blocks):
            yield event({"type": "content_block_start", "index": index, "content_block": block})
            yield event({"type": "content_block_delta", "index": index, "delta": delta})
            yield event({"type": "content_block_stop", "index": index})
        output = {"output_tokens": counts["output"], "output_tokens_details": {"thinking_tokens": counts["reasoning"]}}
        reason = {"stop_reason": "tool_use" if step.tool else "end_turn", "stop_sequence": None}
        yield event({"type": "message_delta", "delta": reason, "usage": usage | output})
        yield event({"type": "message_stop"})

    def response(self, request: Json) -> Iterator[bytes]:
        """A streamed answer of OpenAI's Responses."""
        step, counts = self.step(request["input"], request["model"], (request.get("reasoning") or {}).get("effort"))
        counts["cache_write"] += counts.pop("cache_write_1h")
        prompt = counts["input"] + counts["cache_read"] + counts["cache_write"]
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": counts["cache_read"], "cache_write_tokens": counts["cache_write"]},
            "output_tokens": counts["output"],
            "output_tokens_details": {"reasoning_tokens": counts["reasoning"]},
            "total_tokens": prompt + counts["output"],
        }
        said = [{"type": "output_text", "text": TEXT, "annotations": []}]
        items: list[Json] = [
            {"type": "message", "id": f"msg_{uuid.uuid4().hex}", "role": "assistant", "status": "completed", "content": said}
        ]
        if step.tool:
            items.append(called(step, agent_of(request)))
        whole = {"id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": 1, "status": "completed", "model": request["model"],
                 "error": None, "incomplete_details": None, "output": items, "usage": usage}  # fmt: skip
        number = itertools.count()
        yield event({"type": "response.created", "sequence_number": next(number),
                     "response": whole | {"status": "in_progress", "usage": None, "output": []}})  # fmt: skip
        for index, item in enumerate(items):
            yield event(
                {"type": "response.output_item.added", "sequence_number": next(number), "output_index": index, "item": item}
            )
            yield event(
                {"type": "response.output_item.done", "sequence_number": next(number), "output_index": index, "item": item}
            )
        yield event({"type": "response.completed", "sequence_number": next(number), "response": whole})


def parts(message: Json) -> list[Json]:
    """The parts of a message. An item of Responses may itself be a call or a result."""
    content = message.get("content", [message])
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_of(part: Json) -> str:
    """A part's text, or what an agent of Codex asks another: a real vendor encrypts that."""
    text: str = part.get("text") or part.get("encrypted_content") or ""
    return text


def entered(messages: list[Json]) -> Counter[str]:
    """How many characters stand after the model's own last message: results of tools, and other texts."""
    sizes: Counter[str] = Counter()
    for message in itertools.takewhile(lambda message: not own(message), reversed(messages)):
        for part in parts(message):
            result = part.get("output") if part.get("type") in RESULTS else part.get("content")
            texts = [part] if result is None else parts({"content": result})
            sizes["other" if result is None else "result"] += sum(map(len, map(text_of, texts)))
    return sizes


def own(message: Json) -> bool:
    """Whether a message is the model's."""
    return message.get("role") == "assistant" or message.get("type") in (*CALLS, "reasoning")


def agent_of(request: Json) -> str:
    """The agent that a conversation of Codex spawned last."""
    return (["", *re.findall(r'agent_id\\": *\\"([\w-]+)', json.dumps(request["input"]))])[-1]


def called(step: Step, agent: str) -> Json:
    """A call of a tool, as Responses has it."""
    call = {"call_id": f"call_{uuid.uuid4().hex[:20]}", "name": step.tool, "status": "completed"}
    if step.namespace:
        call["namespace"] = step.namespace
    if isinstance(step.arguments, str):
        return call | {"type": "custom_tool_call", "id": f"ctc_{uuid.uuid4().hex}", "input": step.arguments}
    arguments = json.dumps(step.arguments).replace("AGENT", agent)
    return call | {"type": "function_call", "id": f"fc_{uuid.uuid4().hex}", "arguments": arguments}


def event(value: Json) -> bytes:
    """An event of a stream."""
    return b"event: " + value["type"].encode() + b"\ndata: " + json.dumps(value).encode() + b"\n\n"


# A server of MCP over its standard streams, with one tool.
SERVER = """
import json, sys
TOOL = {"name": "tally", "description": "Counts letters", "inputSchema": {"type": "object", "properties": {"word": {"type": "string"}}}}
for line in sys.stdin:
    call = json.loads(line)
    if "id" not in call:
        continue
    answers = {
        "initialize": {"protocolVersion": call.get("params", {}).get("protocolVersion"), "capabilities": {"tools": {}},
                       "serverInfo": {"name": "tiny", "version": "1"}},
        "tools/list": {"tools": [TOOL]},
        "tools/call": {"content": [{"type": "text", "text": "3"}]},
        "ping": {},
    }
    more = {"result": answers[call["method"]]} if call["method"] in answers else {"error": {"code": -32601, "message": "unknown"}}
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"]} | more), flush=True)
"""


def serve(upstream: Upstream, scripts: dict[str, tuple[Step, ...]]) -> Ledger:
    """Let a vendor answer by scripts; its ledger."""
    ledger = Ledger(scripts)
    upstream.script = ledger.answer
    return ledger
