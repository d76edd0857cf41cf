"""Saves requests and tokens, if the user has switched it on: a cache, other models by rule, usage in streams.

All is off by default, and nothing changes a request's meaning: the same answer to the same caller for the same bytes;
another model by the user's own rules; usage requested if the client did not ask.
"""

from __future__ import annotations

import collections
import fnmatch
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import config, http1, untrusted
from tokenops.proxy_exchange import Exchange


class Rule(NamedTuple):
    """Use another model while little headroom is left (or always, if no bound is given)."""

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


def options(section: object) -> Options:
    """The settings under `proxy:` of the configuration. Raises config.Unusable."""
    if section is None:
        return Options()
    if not isinstance(section, Mapping):
        raise config.Unusable("proxy", "expected keys and values")
    cache = section.get("cache") or {}
    if cache is True:
        cache = {"enabled": True}
    if not isinstance(cache, Mapping):
        raise config.Unusable("proxy.cache", "expected `enabled: true`, and bounds")
    values: dict[str, Any] = {"cache": cache.get("enabled") is True, "include_usage": section.get("include_usage") is True}
    values |= {key: _bound(key, value) for key in _BOUNDS if (value := cache.get(key)) is not None}
    return Options(**values, rules=tuple(map(_rule, untrusted.items(section.get("routes")))))


_BOUNDS = ("ttl_s", "entries", "entry_bytes", "bytes")


def _bound(key: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise config.Unusable(f"proxy.cache.{key}", f"{value!r} is not a whole number of 1 or more")
    return value


def _rule(entry: object) -> Rule:
    rule = entry if isinstance(entry, Mapping) else {}
    model, use, below = rule.get("model"), rule.get("use"), rule.get("headroom_below")
    if not isinstance(model, str) or not isinstance(use, str) or not model or not use:
        raise config.Unusable("proxy.routes", "each needs `model` (a pattern) and `use` (a model)")
    try:
        share = None if below is None else float(str(below))
    except ValueError:
        share = -1.0
    if share is not None and not 0 < share <= 1:
        raise config.Unusable("proxy.routes", f"headroom_below is {below!r}", "expected a fraction such as 0.2")
    return Rule(model, use, share)


# Headers that identify the caller. A cached answer never goes to another caller.
_IDENTITY = (
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"cookie",
    b"openai-organization",
    b"openai-project",
)
# Headers that may change an answer besides.
_SHAPING = (b"accept", b"accept-encoding", b"anthropic-version", b"anthropic-beta", b"openai-beta", b"content-type")
# Headers of an answer that are of no use to the next caller, or not for it.
_NOT_CACHED = (
    b"date",
    b"age",
    b"set-cookie",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"trailer",
)


def key_of(upstream: str, head: http1.Request, path: bytes, body: bytes) -> bytes:
    """What must be the same for two requests to be the same."""
    digest = hashlib.blake2b(digest_size=32)
    parts = [upstream.encode(), head.method, path]
    for low, _, value in head.headers:
        if low in _IDENTITY or low in _SHAPING:
            parts += [low, value]
    for part in (*parts, body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def deterministic(path: bytes, payload: untrusted.Raw) -> bool:
    """Whether the same request may be expected to have the same answer: vectors, and temperature 0; no tools that look
    at the world, nothing that is stored at the vendor."""
    plain = path.partition(b"?")[0]
    if plain.endswith((b"/embeddings", b"/embed", b":embedContent", b":batchEmbedContents")):
        return True
    stored = ("previous_response_id", "conversation", "background")
    if payload.get("store") is True or any(payload.get(name) for name in stored):
        return False
    tools = map(untrusted.mapping, untrusted.items(payload.get("tools")))
    if any("type" in tool and tool["type"] not in ("function", "custom") for tool in tools):
        return False
    settings = untrusted.mapping(payload.get("generationConfig"))
    temperature = settings.get("temperature", payload.get("temperature"))
    return type(temperature) in (int, float) and temperature == 0


class Entry(NamedTuple):
    """An answer that may be given again."""

    until: int
    head: http1.Response
    body: bytes
    tokens: int


class Cache:
    """Answers; the one used longest ago is dropped first."""

    def __init__(self, bounds: Options) -> None:
        self.bounds = bounds
        self.entries: collections.OrderedDict[bytes, Entry] = collections.OrderedDict()
        self.size = 0

    def find(self, exchange: Exchange, head: http1.Request, body: bytes, now: int) -> tuple[bytes, Entry | None]:
        """The key under which to keep a request's answer ("": nowhere), and the answer that is there.

        The client's own `X-Tokenops-Cache: bypass` or `refresh` comes first.
        """
        wish = next(iter(http1.values(head.headers, b"x-tokenops-cache")), b"").lower()
        if wish == b"bypass" or not deterministic(exchange.path, exchange.payload):
            return b"", None
        key = key_of(exchange.upstream.name, head, exchange.path, body)
        return key, self.get(key, now) if wish != b"refresh" else None

    def get(self, key: bytes, now: int) -> Entry | None:
        """The answer to a request that was asked before."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if now >= entry.until:
            self._drop(key)
            return None
        self.entries.move_to_end(key)
        return entry

    def add(self, key: bytes, head: http1.Response, body: bytes, tokens: int, now: int) -> None:
        """Keep an answer. Cookies are the first caller's, and not kept."""
        if head.status != 200 or len(body) > self.bounds.entry_bytes:
            return
        self._drop(key)
        headers = [entry for entry in http1.end_to_end(head.headers) if entry[0] not in _NOT_CACHED]
        self.entries[key] = Entry(now + self.bounds.ttl_s * 1000, head._replace(headers=headers), body, tokens)
        self.size += len(body)
        while self.size > self.bounds.bytes or len(self.entries) > self.bounds.entries:
            self._drop(next(iter(self.entries)))

    def _drop(self, key: bytes) -> None:
        if (entry := self.entries.pop(key, None)) is not None:
            self.size -= len(entry.body)


class Changes(NamedTuple):
    """A request as the user's settings change it, and what of the answer has to be undone."""

    head: http1.Request
    body: bytes
    model: str = ""  # the one put in the place of the client's
    without_usage: bool = False  # take out of the answer the usage that the client did not ask for


def changes(settings: Options, exchange: Exchange, head: http1.Request, body: bytes, headroom: float | None) -> Changes:
    """What becomes of a request. `headroom`: the least that is known to be left at its provider."""
    changed, model, without_usage, payload = body, "", False, exchange.payload
    if settings.rules and (route := reroute(changed, payload, settings.rules, headroom)):
        changed, model = route
    if settings.include_usage and (extended := with_usage(exchange.path, changed, payload)) is not None:
        changed, without_usage = extended, True
    if changed is not body:
        dropped = (b"content-length", b"accept-encoding") if without_usage else (b"content-length",)
        headers = [entry for entry in head.headers if entry[0] not in dropped]
        head = head._replace(headers=[*headers, http1.field(b"Content-Length", b"%d" % len(changed))])
    return Changes(head, changed, model, without_usage)


_MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')


def reroute(
    body: bytes, payload: untrusted.Raw, rules: tuple[Rule, ...], headroom: float | None
) -> tuple[bytes, str] | None:
    """The body with another model's name and nothing else changed, and that name; None if no rule applies."""
    model = payload.get("model")
    if not isinstance(model, str):
        return None
    for rule in rules:
        if fnmatch.fnmatchcase(model, rule.model) and rule.use != model:
            if rule.headroom_below is not None and (headroom is None or headroom >= rule.headroom_below):
                continue
            for match in _MODEL.finditer(body):
                changed = body[: match.start(1)] + orjson.dumps(rule.use)[1:-1] + body[match.end(1) :]
                try:
                    meaning = orjson.loads(changed)
                except ValueError:
                    continue
                if meaning == {**payload, "model": rule.use}:  # and not a "model" further in
                    return changed, rule.use
            return None
    return None


def with_usage(path: bytes, body: bytes, payload: untrusted.Raw) -> bytes | None:
    """The body of a stream's request with usage asked for; None if that is of no use or the client has decided itself."""
    plain = path.partition(b"?")[0]
    if not plain.endswith(b"/completions") or payload.get("stream") is not True or "stream_options" in payload:
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
        passed = []
        while (end := _EVENT_END.search(self.rest)) is not None:
            event, self.rest = self.rest[: end.end()], self.rest[end.end() :]
            if not _only_usage(event):
                passed.append(event)
        return b"".join(passed)

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
        payload = orjson.loads(data)
    except ValueError:
        return False
    return isinstance(payload, dict) and payload.get("choices") == [] and isinstance(payload.get("usage"), dict)
