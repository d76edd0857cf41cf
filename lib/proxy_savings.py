"""Saves requests and tokens, if the user has switched it on: a cache, other models by rule, usage in streams.

All is off by default, and nothing changes a request's meaning: the same answer to the same caller for the same bytes;
another model by the user's own rules; usage requested if the client did not ask.
"""

from __future__ import annotations

import collections
import contextlib
import fnmatch
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from tokenops import config, events, http1, light, proxy_request, untrusted
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


# Headers of a request that neither say who asks nor change the answer. All others (keys, accounts, organisations, tenants,
# versions) are part of what makes two requests the same, those that nobody here knows as well: a cached answer never goes to
# another caller.
_NOISE = frozenset(
    (
        *(b"host", b"user-agent", b"content-length", b"date", b"connection", b"expect", b"priority", b"origin", b"referer"),
        *(b"traceparent", b"tracestate", b"baggage", b"x-request-id", b"x-client-request-id", b"idempotency-key"),
        *(name.encode() for name in proxy_request.SESSIONS),
    )
)
_NOISE_BEGINS = (b"x-stainless-", b"x-tokenops-", b"sec-fetch-", b"x-codex-turn-")
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
    digest = light.blake2b(digest_size=32)
    parts = [upstream.encode(), head.method, path]
    for low, _, value in head.headers:
        if low not in _NOISE and not low.startswith(_NOISE_BEGINS):
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
                    meaning = untrusted.json_value(changed)
                except events.BadRecord:
                    continue
                if meaning == {**payload, "model": rule.use}:  # and not a "model" further in
                    return changed, rule.use
            return None
    return None


def with_usage(path: bytes, body: bytes, payload: untrusted.Raw) -> bytes | None:
    """The body of a stream's request with usage asked for; None if that is of no use or the client has decided itself."""
    plain = path.partition(b"?")[0]
    if not plain.endswith(b"/completions") or payload.get("stream") is not True:
        return None
    ours = {"include_usage": True}
    options = payload.get("stream_options")
    if "stream_options" not in payload:
        at = body.rstrip().rfind(b"}")
        return body[:at] + b',"stream_options":' + orjson.dumps(ours) + body[at:]
    if options is not None and (not isinstance(options, dict) or options.get("include_usage") is not None):
        return None
    meaning = {**payload, "stream_options": {**(options or {}), **ours}}
    for match in _STREAM_OPTIONS.finditer(body):
        changed = body[: match.start(1)] + orjson.dumps(meaning["stream_options"]) + body[match.end(1) :]
        with contextlib.suppress(events.BadRecord):
            if untrusted.json_value(changed) == meaning:  # and not the same words further in
                return changed
    return None


# The client's own options: null, or an object without objects in it.
_STREAM_OPTIONS = re.compile(rb'"stream_options"\s*:\s*(null|\{[^{}]*\})')


class WithoutUsage:
    """A stream of server-sent events without the one that carries usage and nothing else.

    An event is held back until it is whole, up to MOST_HELD; one that carries nothing else than usage is far smaller.
    """

    MOST_HELD = 64 << 10

    def __init__(self) -> None:
        self.rest = bytearray()
        self.searched = 0  # bytes of the rest that hold no event's end
        self.passing = False  # in the middle of an event that is too large to be held back

    def feed(self, data: bytes) -> bytes:
        """The events that are whole by now."""
        self.rest += data
        passed = []
        at = 0
        while (end := _EVENT_END.search(self.rest, max(at, self.searched - 3))) is not None:
            event = bytes(self.rest[at : end.end()])
            if self.passing or not _only_usage(event):
                passed.append(event)
            at, self.passing, self.searched = end.end(), False, 0
        del self.rest[:at]
        if len(self.rest) > self.MOST_HELD:
            # The last bytes may be half of an event's end.
            passed.append(bytes(self.rest[:-3]))
            del self.rest[:-3]
            self.passing = True
        self.searched = len(self.rest)
        return b"".join(passed)

    def finish(self) -> bytes:
        """What is left."""
        rest = bytes(self.rest)
        self.rest.clear()
        return b"" if not self.passing and _only_usage(rest) else rest


_EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")


def _only_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
    try:
        payload = untrusted.json_value(data)
    except events.BadRecord:
        return False
    return isinstance(payload, dict) and payload.get("choices") == [] and isinstance(payload.get("usage"), dict)
