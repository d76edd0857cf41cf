"""Measures the parts of a request to a model, in the order in which caches read them: tools, system prompt, messages.

A part is a name, a size in characters and a keyed hash. Nothing else is kept of a request: no text leaves this module.
Sizes are Unicode code points of canonical JSON. An image counts as 6,000, as in docs/context.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from tokenops import light, untrusted
from tokenops.untrusted import Raw

# Paths of requests that have such parts, of whatever vendor. (Vendors' API references, November 2026.)
_HAVE_PARTS = re.compile(rb"/(?:messages|chat/completions|responses|api/chat)\Z|:(?:stream)?[gG]enerateContent\Z|/invoke\b")
# So much is done at once, in a millisecond or two: bytes that are hashed, and a part as so many more.
_SLICE, _EACH = 256 << 10, 2048
LEAST = 2048  # bytes of a body; vendors cache no prompts of fewer than some 1,000 tokens
# So many tools, blocks of the system prompt and messages are parts; those beyond are one part.
MOST_PARTS = 4096
_MOST_INNER = 1000  # blocks of a tool's result that are looked at one by one
_IMAGE = 6000
_IMAGES = frozenset(("image", "input_image", "image_url"))
# What a request sets beside its text and is a part of what caches compare.
_SETTINGS = ("tool_choice", "toolConfig", "tool_config", "thinking", "response_format", "text", "output_format")
_TOOL = re.compile(r"[!-~]{1,128}\Z")
OTHER = "other"
# Claude Code sends a line of its own in this block, another one each time; the vendor takes it out.
_UNSENT = "x-anthropic-billing-header"
_SYSTEM = ("system", "developer")
_ROLES = {"assistant": "assistant", "model": "assistant", "tool": "tool", "function": "tool", "system": "system"}
_ROLES |= {"developer": "system"}


class Part(NamedTuple):
    """One part of a request. `name`: a tool's, else ""."""

    name: str
    size: int
    digest: bytes


class Request:
    """The parts of one request. `first`: the number of the first message, counted from 1 as in the body."""

    def __init__(self) -> None:
        self.tools: list[Part] = []
        self.system: list[Part] = []
        self.settings = Part("", 0, b"")
        self.messages: list[Part] = []
        self.first = 1
        self.sizes: dict[str, int] = {}  # "tools", "system", "settings", "messages user", ..., "images"

    @property
    def count(self) -> int:
        """How many parts there are."""
        return len(self.tools) + len(self.system) + len(self.messages)

    def digest(self) -> str:
        """A short name for its tools; "" if it has none."""
        joined = b"".join(part.digest for part in self.tools)
        return light.blake2b(joined, digest_size=8).hexdigest() if joined else ""


def has_parts(path: bytes) -> bool:
    """Whether requests to a path, without its query, are of tools, system prompt and messages."""
    return _HAVE_PARTS.search(path) is not None


class Measure:
    """Measures a request's body, slice by slice; `request` is whole after the last one."""

    def __init__(self, payload: Raw, key: bytes) -> None:
        self.request = Request()
        self._payload, self._key = payload, key[:64]
        self._since = 0  # how much was hashed since the last slice

    def slices(self) -> Iterator[None]:
        """Do the work; yields between its slices."""
        payload, self._payload = self._payload, {}
        request = self.request
        messages = _messages(payload)
        for value in _tools(payload):
            self._add(request.tools, "tools", value, _tool_name(value))
            yield from self._pause()
        system = _system(payload)
        leading = 0 if system else _leading(messages)
        for block in [*system, *messages[:leading]]:
            self._add(request.system, "system", block)
            yield from self._pause()
        settings = {name: payload[name] for name in _SETTINGS if payload.get(name) is not None}
        if settings:
            whole: list[Part] = []
            self._add(whole, "settings", settings)
            request.settings = whole[0]
        request.first = leading + 1
        for message in messages[leading:]:
            yield from self._message(message)

    def _pause(self) -> Iterator[None]:
        if self._since > _SLICE:
            self._since = 0
            yield

    def _add(self, parts: list[Part], name: str, value: Any, tool: str = "") -> None:
        data = b"" if _is_unsent(value) else _bytes_of(_plain(value))
        size = _points(data)
        self._keep(parts, Part(tool, size, self._hash(data)))
        self._count(name, size)

    def _message(self, message: Any) -> Iterator[None]:
        """Add a message: its hash is that of its blocks, each of which counts for whoever wrote it."""
        value = _marked_off(message)
        name = next((name for name in ("content", "parts") if type(untrusted.mapping(value).get(name)) is list), "")
        blocks = value[name] if name else []
        head = _bytes_of({key: item for key, item in value.items() if key != name} if name else value)
        role = _role(untrusted.mapping(value))
        size, digest = _points(head), light.blake2b(key=self._key, digest_size=8)
        self._update(digest, head)
        if name:  # what the list itself adds to the message's canonical JSON
            size += len(f'"{name}":[]') + max(len(blocks) - 1, 0) + (len(value) > 1)
        self._count(f"messages {role}", size)
        for raw in blocks:
            block = _plain(raw)
            data = _bytes_of(block)
            points, images = _points(data), 0
            for image in _images(block):
                points -= min(_points(_bytes_of(image)), points)
                images += _IMAGE
            self._count(f"messages {_block_role(block, role)}", points)
            self._count("images", images)
            size += points + images
            self._update(digest, data)
            yield from self._pause()
        self._keep(self.request.messages, Part("", size, digest.digest()))
        yield from self._pause()

    def _keep(self, parts: list[Part], part: Part) -> None:
        if len(parts) < MOST_PARTS:
            parts.append(part)
        else:
            last = parts[-1]
            parts[-1] = Part(OTHER if part.name else "", last.size + part.size, self._hash(last.digest, part.digest))

    def _count(self, name: str, size: int) -> None:
        if size:
            self.request.sizes[name] = self.request.sizes.get(name, 0) + size

    def _hash(self, *pieces: bytes) -> bytes:
        digest = light.blake2b(key=self._key, digest_size=8)
        for piece in pieces:
            self._update(digest, piece)
        return digest.digest()

    def _update(self, digest: light.blake2b, piece: bytes) -> None:
        digest.update(b"%d:" % len(piece))
        digest.update(piece)
        self._since += len(piece) + _EACH


def _bytes_of(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _points(data: bytes) -> int:
    """Unicode code points of some UTF-8."""
    return len(data) if data.isascii() else len(data.decode())


def _messages(payload: Raw) -> list[Any]:
    value = next((payload[name] for name in ("messages", "input", "contents") if name in payload), None)
    return [{"role": "user", "content": value}] if type(value) is str else untrusted.items(value)


def _system(payload: Raw) -> list[Any]:
    """The blocks of a system prompt that has a place of its own."""
    names = ("system", "instructions", "systemInstruction", "system_instruction")
    value = next((payload[name] for name in names if payload.get(name)), None)
    if type(value) is dict:
        value = value.get("parts", value)
    return value if type(value) is list else [] if value is None else [value]


def _leading(messages: list[Any]) -> int:
    """How many messages at the front are the system prompt."""
    count = 0
    while count < len(messages) and untrusted.mapping(messages[count]).get("role") in _SYSTEM:
        count += 1
    return count


def _tools(payload: Raw) -> Iterator[Any]:
    """The tools, each once: those of Gemini's lists and of Codex's name spaces singly, the space before their names."""
    for tool in untrusted.items(payload.get("tools")):
        raw = untrusted.mapping(tool)
        listed = next((raw[name] for name in _LISTS if type(raw.get(name)) is list), None)
        if listed is None:
            yield tool
            continue
        space = untrusted.text(raw.get("name"), 128) if raw.get("type") == "namespace" else ""
        for inner in listed:
            name = _tool_name(inner)
            yield inner if not space or type(inner) is not dict else {**inner, "name": f"{space}__{name}"}


_LISTS = ("functionDeclarations", "function_declarations", "tools")


def _tool_name(tool: Any) -> str:
    raw = untrusted.mapping(tool)
    named = (raw.get("name"), untrusted.mapping(raw.get("function")).get("name"), raw.get("server_label"))
    name = next((name for name in (*named, raw.get("mcp_server_name"), raw.get("type")) if type(name) is str), None)
    if name is None:  # Gemini's own tools are keys, as in {"googleSearch": {}}
        name = next(iter(raw), "")
    return name if _TOOL.match(name) else OTHER


def _is_unsent(block: Any) -> bool:
    text = untrusted.mapping(block).get("text")
    return type(text) is str and text.startswith(_UNSENT)


def _plain(value: Any) -> Any:
    """A message, block or tool as caches compare it: without marks for the cache, and a text as a block of its own."""
    copy = _marked_off(value)
    content = copy.get("content") if type(copy) is dict else None
    if type(content) is list and len(content) <= _MOST_INNER:
        return {**copy, "content": [_plain(item) for item in content]}
    return copy


def _marked_off(value: Any) -> Any:
    """The same, but for the blocks in it."""
    if type(value) is not dict:
        return value
    is_text = type(value.get("content")) is str and "role" in value
    if "cache_control" not in value and not is_text:
        return value
    copy = {key: item for key, item in value.items() if key != "cache_control"}
    return {**copy, "content": [{"type": "text", "text": copy["content"]}]} if is_text else copy


def _role(message: Raw) -> str:
    """Who wrote a message: user, assistant, tool or system."""
    if type(role := message.get("role")) is str:
        return _ROLES.get(role, "user")
    kind = message.get("type")
    if type(kind) is not str:
        return "user"
    return "tool" if kind.endswith("_output") else "assistant" if kind.endswith("_call") or kind == "reasoning" else "user"


def _block_role(block: Any, role: str) -> str:
    raw = untrusted.mapping(block)
    return "tool" if raw.get("type") == "tool_result" or "functionResponse" in raw else role


def _images(block: Any) -> list[Any]:
    """The images in a block, or in the tool's result that it is."""
    raw = untrusted.mapping(block)
    if raw.get("type") in _IMAGES or "inlineData" in raw or "inline_data" in raw:
        return [block]
    inside = untrusted.items(raw.get("content"))[:_MOST_INNER]
    return [inner for inner in inside if untrusted.mapping(inner).get("type") in _IMAGES]
