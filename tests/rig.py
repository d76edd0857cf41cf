"""A vendor that keeps a ledger: it answers real clients by a script, and writes down what it charged for what.

A prompt names its script: `[[work]]`. The step that is answered is the number of the model's calls of tools after that
mark, so the vendor needs no memory of a conversation, and a subagent's prompt can name a script of its own. A request
without tools may be none of a script's: clients ask so for a title or a summary. Nor is what comes after its last answer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import Counter
from typing import NamedTuple

from rig_wires import CALLS, RESULTS, WIRES, Question, Step, parts
from upstream import Asked, Upstream, Writer, chunk, head, plain, stream

from conftest import Json

MARK = re.compile(r"\[\[(\w+)\]\]")
CLASSES = ("input", "cache_read", "cache_write", "cache_write_1h", "output", "reasoning")
NOTHING = plain(b'{"type":"error","error":{"type":"not_found_error","message":"none"}}', status=404)
# What a client may ask for beside answers: whether the vendor is there, and which models it has.
MODELS = ("gpt-5.4", "gpt-5.4-mini", "claude-opus-4-8", "claude-sonnet-4-6", "gemini-2.5-pro", "gemini-2.5-flash")


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
        self.refused: Counter[str] = Counter()  # how often a script's step was refused
        self.hanging = 0  # streams that stopped in the middle
        self.let_go = False  # end them
        self.hours = True  # whether caches are written for an hour, too
        self.aside = ""  # a pattern of requests outside the conversation: names of their tools, and their last text
        self.bare = True  # whether a request without tools may be one of a script: Codex states some elsewhere

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
        if not self.hours:
            counts["cache_write"] += counts["cache_write_1h"]
            counts["cache_write_1h"] = 0
        self.charges.append(Charge(model, labels, counts, sizes))
        return counts

    async def answer(self, asked: Asked, writer: Writer) -> None:
        """Answer a request of any kind."""
        target = asked.head.target.decode().partition("?")[0]
        method = asked.head.method.decode()
        if method == "CONNECT":
            self.outside.append(target)
            return await plain(b"{}", status=403)(asked, writer)
        wire = next((wire for wire in WIRES if method == "POST" and wire.paths.search(target)), None)
        if wire is None:
            self.others.append(f"{method} {target}")
            listed = [{"id": model, "object": "model", "type": "model", "created": 1, "owned_by": "x"} for model in MODELS]
            models = plain(json.dumps({"object": "list", "data": listed}).encode())
            return await (models if method == "GET" and target.endswith("/models") else NOTHING)(asked, writer)
        question = wire.question(json.loads(asked.body), target)
        script, calls, step = self.step(question)
        if step.refused and not self.refused[f"{script} {calls}"]:
            self.refused[f"{script} {calls}"] += 1
            body = json.dumps(wire.refusal(step.refused)).encode()
            return await plain(body, ("retry-after", "1"), status=step.refused)(asked, writer)
        labels = self.labels | (step.labels or {}) | ({"effort": question.effort} if question.effort else {})
        counts = self.charge(f"{script} {self.labels}", question.model, labels, entered(question.messages))
        reply = wire.reply(question, step, wire.stated(counts))
        if step.hangs:
            return await self.hang(reply.events[: reply.first], writer)
        if question.streams:
            return await stream(*reply.events, pause=0)(asked, writer)
        return await plain(json.dumps(reply.whole).encode())(asked, writer)

    async def hang(self, events: list[bytes], writer: Writer) -> None:
        """Begin a stream, and say no more until the other side goes away or the test lets go."""
        writer.write(head(200, ("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")))
        writer.write(b"".join(map(chunk, events)))
        await writer.drain()
        self.hanging += 1
        reader: asyncio.StreamReader = writer.reader  # type: ignore[attr-defined]
        while not self.let_go and not reader.at_eof() and reader.exception() is None:
            await asyncio.sleep(0.02)
        writer.close()

    def step(self, question: Question) -> tuple[str, int, Step]:
        """The script that a request is in, how many tools it has called since, and the step that is next."""
        script, calls, over = "", 0, False
        for message in question.messages:
            for part in parts(message):
                marks = [] if own(message) else MARK.findall(text_of(part))
                if marks:
                    script, calls, over = marks[-1], 0, False
                elif part.get("type") in CALLS:
                    calls, over = calls + 1, False
                else:
                    over |= own(message) and bool(part.get("text"))  # it answered without a call: the script is done
        last = " ".join([*sorted(question.tools), *map(text_of, parts(question.messages[-1]))])
        apart = (not question.tools and not self.bare) or bool(self.aside and re.search(self.aside, last))
        steps = () if over or apart else self.scripts.get(script, ())
        return script, calls, steps[calls] if calls < len(steps) else Step(labels={"script": "none"})


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
