"""What the proxy may save, where the user asked for it: nothing here is on by default, and nothing changes a meaning.

An answer that was given before, to the same caller, for the same bytes; another model by the user's own rules; usage
asked for on behalf of a client that would not.
"""

from __future__ import annotations

import collections
import fnmatch
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import http1, untrusted
from tokenops.config import Unusable


class Rule(NamedTuple):
    """Use another model where little headroom is left (or always, where no bound is given)."""

    model: str  # a pattern: * and ?
    use: str
    headroom_below: float | None


class Options(NamedTuple):
    """What is on."""

    cache: bool = False
    ttl_s: int = 600
    entries: int = 1024
    entry_bytes: int = 4 << 20
    bytes: int = 64 << 20
    include_usage: bool = False
    rules: tuple[Rule, ...] = ()

    @property
    def any(self) -> bool:
        """Whether a request needs to be looked at before it is sent on."""
        return self.cache or self.include_usage or bool(self.rules)


def options(given: object) -> Options:
    """The settings under `proxy:` of the configuration. Raises Unusable."""
    if given is None:
        return Options()
    if not isinstance(given, Mapping):
        raise Unusable("proxy", "expected keys and values")
    cache = given.get("cache") or {}
    if cache is True:
        cache = {"enabled": True}
    if not isinstance(cache, Mapping):
        raise Unusable("proxy.cache", "expected `enabled: true`, and bounds")
    found: dict[str, Any] = {"cache": cache.get("enabled") is True, "include_usage": given.get("include_usage") is True}
    for key in ("ttl_s", "entries", "entry_bytes", "bytes"):
        if (value := cache.get(key)) is not None:
            if type(value) is not int or value < 1:
                raise Unusable(f"proxy.cache.{key}", f"{value!r} is not a whole number of 1 or more")
            found[key] = value
    return Options(**found, rules=tuple(map(_rule, untrusted.items(given.get("routes")))))


def _rule(given: object) -> Rule:
    said = given if isinstance(given, Mapping) else {}
    model, use, below = said.get("model"), said.get("use"), said.get("headroom_below")
    if not isinstance(model, str) or not isinstance(use, str) or not model or not use:
        raise Unusable("proxy.routes", "each needs `model` (a pattern) and `use` (a model)")
    try:
        share = None if below is None else float(str(below))
    except ValueError:
        share = -1.0
    if share is not None and not 0 < share <= 1:
        raise Unusable("proxy.routes", f"headroom_below is {below!r}", "expected a fraction such as 0.2")
    return Rule(model, use, share)


# Which headers say who asks. A cached answer never leaves its caller.
_IDENTITY = (
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"cookie",
    b"openai-organization",
    b"openai-project",
)
# Which headers besides may change an answer.
_SHAPING = (b"accept", b"accept-encoding", b"anthropic-version", b"anthropic-beta", b"openai-beta", b"content-type")


def key_of(upstream: str, head: http1.Request, path: bytes, body: bytes) -> bytes:
    """What must be the same for two requests to be the same."""
    made = hashlib.blake2b(digest_size=32)
    parts = [upstream.encode(), head.method, path]
    for low, _, value in head.headers:
        if low in _IDENTITY or low in _SHAPING:
            parts += [low, value]
    for part in (*parts, body):
        made.update(len(part).to_bytes(8, "big"))
        made.update(part)
    return made.digest()


def deterministic(path: bytes, said: untrusted.Raw) -> bool:
    """Whether the same request may be expected to have the same answer: vectors, and temperature 0; no tools that look
    at the world, nothing that is stored at the vendor."""
    plain = path.partition(b"?")[0]
    if plain.endswith((b"/embeddings", b"/embed", b":embedContent", b":batchEmbedContents")):
        return True
    if said.get("store") is True or said.get("previous_response_id") or said.get("conversation") or said.get("background"):
        return False
    if any(
        "type" in tool and tool["type"] not in ("function", "custom")
        for tool in map(untrusted.mapping, untrusted.items(said.get("tools")))
    ):
        return False
    config = untrusted.mapping(said.get("generationConfig"))
    temperature = config.get("temperature", said.get("temperature"))
    return type(temperature) in (int, float) and temperature == 0


class Kept(NamedTuple):
    """An answer that may be given again."""

    until: int
    head: http1.Response
    body: bytes
    tokens: int


class Cache:
    """Answers, the one used longest ago given up first."""

    def __init__(self, bounds: Options) -> None:
        self.bounds = bounds
        self.kept: collections.OrderedDict[bytes, Kept] = collections.OrderedDict()
        self.size = 0

    def get(self, key: bytes, now: int) -> Kept | None:
        """The answer to a request that was asked before."""
        found = self.kept.get(key)
        if found is None:
            return None
        if now >= found.until:
            self._drop(key)
            return None
        self.kept.move_to_end(key)
        return found

    def put(self, key: bytes, head: http1.Response, body: bytes, tokens: int, now: int) -> None:
        """Keep an answer. Cookies are the first caller's, and not kept."""
        if head.status != 200 or len(body) > self.bounds.entry_bytes:
            return
        self._drop(key)
        named = (*_PER_ANSWER, b"set-cookie", b"content-length", b"transfer-encoding", b"connection", b"trailer")
        headers = [one for one in http1.end_to_end(head.headers) if one[0] not in named]
        self.kept[key] = Kept(now + self.bounds.ttl_s * 1000, head._replace(headers=headers), body, tokens)
        self.size += len(body)
        while self.size > self.bounds.bytes or len(self.kept) > self.bounds.entries:
            self._drop(next(iter(self.kept)))

    def _drop(self, key: bytes) -> None:
        if (gone := self.kept.pop(key, None)) is not None:
            self.size -= len(gone.body)


_PER_ANSWER = (b"date", b"age")

_MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')


def rerouted(body: bytes, said: untrusted.Raw, rules: tuple[Rule, ...], headroom: float | None) -> tuple[bytes, str] | None:
    """The body with another model's name and nothing else changed, and that name; None where no rule applies."""
    model = said.get("model")
    if not isinstance(model, str):
        return None
    for rule in rules:
        if fnmatch.fnmatchcase(model, rule.model) and rule.use != model:
            if rule.headroom_below is not None and (headroom is None or headroom >= rule.headroom_below):
                continue
            for found in _MODEL.finditer(body):
                made = body[: found.start(1)] + orjson.dumps(rule.use)[1:-1] + body[found.end(1) :]
                try:
                    changed = orjson.loads(made)
                except ValueError:
                    continue
                if changed == {**said, "model": rule.use}:  # and not a "model" further in
                    return made, rule.use
            return None
    return None


def asking_for_usage(path: bytes, body: bytes, said: untrusted.Raw) -> bytes | None:
    """The body of a stream's request with usage asked for; None where that is no use or was decided by the client."""
    if not path.partition(b"?")[0].endswith(b"/completions") or said.get("stream") is not True or "stream_options" in said:
        return None
    at = body.rstrip().rfind(b"}")
    return body[:at] + b',"stream_options":{"include_usage":true}' + body[at:]


class WithoutUsage:
    """A stream of server-sent events without the one that carries usage and nothing else."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The events that are whole by now."""
        self.rest += data
        kept = []
        while (found := _EVENT_END.search(self.rest)) is not None:
            event, self.rest = self.rest[: found.end()], self.rest[found.end() :]
            if not _only_usage(event):
                kept.append(event)
        return b"".join(kept)

    def finish(self) -> bytes:
        """What is left."""
        rest, self.rest = self.rest, b""
        return b"" if _only_usage(rest) else rest


_EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")


def _only_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
    try:
        said = orjson.loads(data)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("choices") == [] and isinstance(said.get("usage"), dict)
