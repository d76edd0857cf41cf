"""Decides where requests go and who may make them, and builds the heads of requests and answers.

A request goes to a provider, to the dashboard's site, to the proxy's own endpoints, or nowhere. The providers are the
catalogue's, changed and extended by the user's configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import orjson

from tokenops import catalog, config, credentials, http1, machines, proxy_parts, proxy_savings, show, when
from tokenops.http1 import Headers, Request, Response
from tokenops.proxy_exchange import Upstream


class Reply(NamedTuple):
    """An answer of the site: status, headers but for the connection's, content, and how long it is delayed."""

    status: int
    headers: http1.Headers
    body: bytes
    wait_ms: int = 0


class Site(Protocol):
    """What is served beside the providers: the dashboard."""

    def owns(self, path: bytes) -> bool:
        """Whether a path is the site's to answer."""
        ...

    def answer(self, head: http1.Request) -> Reply:
        """The answer to a request."""
        ...

    def rest(self) -> bool:
        """Do one piece of spare work; returns whether there is more."""
        ...


class Local:
    """The server's own endpoints, which anybody may ask."""

    def __init__(self, version: str, clock: Callable[[], float], name: str = "tok-proxy") -> None:
        self.version, self.clock, self.name = version, clock, name
        self.started = clock()
        self.draining = False

    def answer(self, method: bytes, path: bytes) -> tuple[int, bytes, bytes] | None:
        """Status, content type and body; None for a path that is none of them."""
        payload: dict[str, Any]
        status = 200
        if path == b"/healthz":
            payload = {
                "status": "ok",
                "started_at": when.stamp(int(self.started * 1000)),
                "uptime_s": int(self.clock() - self.started),
            }
        elif path == b"/readyz":
            status = 503 if self.draining else 200
            payload = {"status": "draining" if self.draining else "ready"}
        elif path == b"/version":
            payload = {"name": self.name, "version": self.version}
        else:
            return None
        if method not in (b"GET", b"HEAD"):
            status, payload = 405, {"error": "only GET and HEAD are supported here", "hint": "use GET"}
        return status, b"application/json", orjson.dumps(payload) + b"\n"


class Settings(NamedTuple):
    """What all connections share. `headroom` is the least that is known to be left at a provider, None if unknown."""

    upstreams: Mapping[bytes, Upstream]
    hosts: frozenset[str]  # names that a Host header may give
    salt: bytes
    local: Callable[[bytes, bytes], tuple[int, bytes, bytes] | None]  # method, path -> status, content type, body
    number: Callable[[], int]  # the next exchange's number
    options: proxy_savings.Options = proxy_savings.Options()
    cache: proxy_savings.Cache | None = None
    headroom: Callable[[str], float | None] = lambda provider: None
    site: Site | None = None
    chains: proxy_parts.Chains | None = None
    owner: machines.Owner = machines.NOBODY  # the machine and the user of all events


# The name that is announced on this machine's own interface. It leads to the server's own endpoints and the dashboard.
OWN_NAME = "tokenops.local"


def route(target: bytes, upstreams: Mapping[bytes, Upstream]) -> tuple[Upstream, bytes, bytes] | None:
    """The provider that a request's first segment names, the path without it, and what to ask the provider for.

    None if it names no provider.
    """
    if not target.startswith(b"/"):
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    prefix, _, _ = target[1:].partition(b"?")[0].partition(b"/")
    upstream = upstreams.get(prefix)
    if upstream is None:
        return None
    path = target[1 + len(prefix) :]
    path = path if path.startswith(b"/") else b"/" + path
    # Some SDKs append the provider's own base path to any base URL that they are given.
    base = upstream.base if not path.startswith(upstream.base + b"/") else b""
    return upstream, path, base + path


def path_of(target: bytes) -> bytes:
    """The path that a request names, as it stands; that of a whole address too."""
    if not target.startswith(b"/") and b"://" in target:
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return target.partition(b"?")[0]


def refusal(head: http1.Request, hosts: frozenset[str]) -> tuple[int, str, str] | None:
    """Status, error and hint for a request that is refused; None for one that may be sent on."""
    if head.method in (b"CONNECT", b"TRACE"):
        return 405, f"{head.method.decode()} is not supported", "use the proxy as a base URL, not as an HTTP proxy"
    names = [*http1.values(head.headers, b"host")]
    if not head.target.startswith((b"/", b"*")):
        names.append(head.target.partition(b"://")[2].partition(b"/")[0])
    for host in names:
        if _host_name(host) not in hosts:
            return (
                403,
                "the Host header does not name this proxy",
                "call it by 127.0.0.1 or localhost, or name the host with --host",
            )
    for origin in http1.values(head.headers, b"origin"):
        if _host_name(origin.partition(b"://")[2]) not in hosts:
            return _FROM_A_PAGE
    for name, harmless in _FETCHES.items():
        if any(value.lower() not in harmless for value in http1.values(head.headers, name)):
            return _FROM_A_PAGE
    return None


_FROM_A_PAGE = (403, "requests from web pages and their navigations are refused", "call the proxy from a program")
# What browsers say of a request, and programs do not (W3C Fetch Metadata): who makes it, how, and what for.
_FETCHES = {
    b"sec-fetch-site": (b"same-origin", b"none"),
    b"sec-fetch-mode": (b"cors", b"same-origin"),
    b"sec-fetch-dest": (b"empty",),
}


def is_browser(head: Request) -> bool:
    """Whether a browser makes the request."""
    return bool(http1.values(head.headers, b"sec-fetch-site"))


# With these a browser runs nothing of an answer, and shows it to no page of another site.
_HARMLESS = [
    http1.field(b"Content-Security-Policy", b"sandbox; default-src 'none'"),
    http1.field(b"X-Content-Type-Options", b"nosniff"),
    http1.field(b"Cross-Origin-Resource-Policy", b"same-origin"),
]


def harmless(head: Response) -> Response:
    """An answer's head as a browser may get it from an origin that is not the vendor's alone: without cookies, too."""
    fields = [entry for entry in head.headers if entry[0] != b"set-cookie"]
    return head._replace(headers=[*fields, *_HARMLESS])


def unknown(upstreams: Mapping[bytes, Upstream]) -> tuple[int, str, str]:
    """Status, error and hint for a request that names no provider."""
    names = ", ".join(sorted(f"/{name.decode()}/" for name in upstreams))
    return 404, "no provider has this path", f"begin the path with one of {names}"


def _host_name(host: bytes) -> str:
    """The name in a Host: without its port and brackets, in lower case."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


# The table of providers.

_LONGEST_URL = 2000


def upstream_of(name: str, url: str, bills: str | None = None) -> Upstream:
    """The upstream at a URL. Raises ValueError with a sentence."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > _LONGEST_URL:
        raise ValueError(
            f"{name}: {show.short_text(url)!a} is not a URL: it is too long, or has a space or another character that a URL "
            "cannot have; write such a character percent-encoded"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name}: {url!r} is not an http or https URL")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{name}: a provider's URL has a host and a path, nothing else")
    tls = parts.scheme == "https"
    try:
        port = parts.port or (443 if tls else 80)
    except ValueError:
        raise ValueError(f"{name}: {url!r} has no valid port") from None
    return Upstream(name, parts.hostname, port, tls, parts.path.rstrip("/").encode(), name if bills is None else bills)


def in_clear(upstream: Upstream) -> bool:
    """Whether keys and prompts would cross the network unencrypted on their way to an upstream."""
    return not upstream.tls and not credentials.is_this_machine(upstream.host)


def url_of(upstream: Upstream) -> str:
    """An upstream's URL."""
    scheme, host = "https" if upstream.tls else "http", f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    port = "" if upstream.port == (443 if upstream.tls else 80) else f":{upstream.port}"
    return f"{scheme}://{host}{port}{upstream.base.decode()}"


def detours(upstreams: Mapping[str, Upstream]) -> Iterator[str]:
    """A sentence for each provider that does not lead to its vendor, or leads there unencrypted."""
    for name, upstream in sorted(upstreams.items()):
        preset = presets().get(name)
        if preset and url_of(upstream) != url_of(upstream_of(name, preset["url"])):
            yield f"{name} leads to {url_of(upstream)}, not to its vendor; to restore it: tok-provider set {name}"
        if in_clear(upstream):
            yield f"keys and prompts for {name} go to {upstream.host} unencrypted; use an https address if there is one"


def set_provider(settings: config.Config, name: str, url: str | None, insecure: bool = False) -> None:
    """Write where requests for a provider go; without a URL, restore the built-in address.

    Raises ValueError for an address that cannot be used, and for plain http to another machine unless `insecure`.
    """
    check_name(name)
    if url is None:
        if name not in presets():
            raise ValueError(f"{name} is not built in; give its address: tok-provider set {name} URL")
    elif in_clear(upstream_of(name, url)) and not insecure:
        raise ValueError(
            f"{name}: {url} would send keys and prompts unencrypted; use https, or add --insecure to tok-provider set"
        )
    config.set_key(settings, "providers", name, url)


def presets() -> dict[str, Any]:
    """The catalogue's providers, by name."""
    entries: dict[str, Any] = catalog.load("providers")["upstreams"]
    return entries


def table(settings: config.Config) -> dict[str, Upstream]:
    """Every provider by name. Raises config.Unusable."""
    upstreams = {name: upstream_of(name, entry["url"], entry.get("bills")) for name, entry in presets().items()}
    configured = settings.get("providers") or {}
    if not isinstance(configured, Mapping):
        raise config.Unusable(f"{settings.path}: providers", "expected names with URLs")
    for name, value in configured.items():
        url = value.get("url", value.get("base_url")) if isinstance(value, Mapping) else value
        preset = presets().get(name)
        try:
            upstreams[str(name)] = upstream_of(check_name(str(name)), str(url), preset.get("bills") if preset else None)
        except ValueError as error:
            raise config.Unusable(f"{settings.path}: providers", str(error)) from None
    return upstreams


def provider_rows(settings: config.Config) -> list[dict[str, Any]]:
    """A row for each provider, for `tok-provider list`. Raises config.Unusable."""
    configured = settings.get("providers") or {}
    rows = []
    for name, upstream in sorted(table(settings).items()):
        row = {"v": 1, "kind": "provider", "provider": name, "path": f"/{name}/"}
        row |= {"url": url_of(upstream), "set_by": "config" if name in configured else "built-in"}
        rows.append(row)
    return rows


def providers_table(rows: list[dict[str, Any]], shape: str, color: bool, verbose: bool = False) -> str:
    """The rows for people."""
    ranks = {"provider": 0, "path": 2, "url": 1, "set_by": 3}
    columns = [show.Column(name.replace("_", " "), [row[name] for row in rows], False, ranks[name]) for name in ranks]
    return show.table(columns, shape, color=color)


def environment(settings: config.Config, base: str) -> str:
    """Lines for a shell, and for clients that read no variable. Raises config.Unusable."""
    upstreams = table(settings)
    lines = ['# The variables that SDKs and clients read; eval "$(tok-provider env)" sets them.\n']
    for name, preset in presets().items():
        if "env" in preset and name in upstreams:
            lines.append(f"export {preset['env']}={base}/{name}{preset['path']}\n")
    return "".join(lines) + _CLIENTS.replace("<proxy>", base)


# Verified with the clients named in docs/proxy.md, November 2026.
_CLIENTS = """
# Claude Code; its login passes through untouched:
#   alias claude='ANTHROPIC_BASE_URL=<proxy>/anthropic claude'
# Codex with an API key, and with a ChatGPT login (~/.codex/config.toml):
#   openai_base_url = "<proxy>/openai/v1"
#   chatgpt_base_url = "<proxy>/chatgpt"
# opencode (opencode.json); unlike others it needs /v1 for Anthropic too:
#   {"provider": {"anthropic": {"options": {"baseURL": "<proxy>/anthropic/v1"}},
#                 "openai": {"options": {"baseURL": "<proxy>/openai/v1"}}}}
# Mistral's SDK reads no variable:      Mistral(server_url="<proxy>/mistral")
# Any vendor with OpenAI's API:         OpenAI(base_url="<proxy>/NAME/v1"), NAME: deepseek, xai, perplexity, openrouter,
#                                       vercel, litellm, lmstudio, ...
# A provider that is not listed: tok-provider set NAME URL, or openrouter, which serves most models.
"""


def check_name(name: str) -> str:
    """A name that can be the first segment of a path. Raises ValueError."""
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name in RESERVED:
        raise ValueError(f"{name!r} cannot be a provider's name; use letters, digits, - and _")
    return name


RESERVED = ("healthz", "readyz", "version", "dashboard", "api", "v1", "mcp")


# How an answer's body reaches the client: as it came, framing included; in chunks of the proxy's own; or its content
# alone, up to the end of the connection.
UNTOUCHED, CHUNKED, CONTENT = "untouched", "chunked", "content"


def passage_of(version: tuple[int, int], kind: str, without_usage: bool) -> str:
    """How a body of this framing passes to a client of this version; one of HTTP/1.0 does not know chunks."""
    if version < (1, 1) and (kind == http1.CHUNKED or without_usage):
        return CONTENT
    return CHUNKED if without_usage else UNTOUCHED


def to_upstream(head: Request, target: bytes, upstream: Upstream) -> bytes:
    """The head of a request as its upstream gets it."""
    name = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    host = name if upstream.port == (443 if upstream.tls else 80) else f"{name}:{upstream.port}"
    headers = [http1.field(b"Host", host.encode())]
    headers += [
        entry for entry in http1.end_to_end(head.headers) if entry[0] != b"host" and not entry[0].startswith(b"x-tokenops-")
    ]
    if b"websocket" in http1.items(head.headers, b"upgrade"):
        # Without the extension the frames are not compressed, and can be metered.
        headers = [entry for entry in headers if entry[0] != b"sec-websocket-extensions"]
        headers += [http1.field(b"Connection", b"Upgrade"), http1.field(b"Upgrade", b"websocket")]
    return http1.head_of(b"%b %b HTTP/1.1" % (head.method, target), headers)


def to_client(head: Response, how: str, keeps: bool, version: tuple[int, int]) -> bytes:
    """The head of an upstream's answer as the client gets it."""
    headers = http1.end_to_end(head.headers)
    if how != UNTOUCHED:
        headers = [entry for entry in headers if entry[0] not in (b"transfer-encoding", b"content-length")]
    if how == CHUNKED:
        headers.append(http1.field(b"Transfer-Encoding", b"chunked"))
    if not keeps:
        headers.append(http1.field(b"Connection", b"close"))
    elif version < (1, 1):
        headers.append(http1.field(b"Connection", b"keep-alive"))
    return http1.head_of(b"HTTP/1.1 %d %b" % (head.status, head.reason), headers)


def from_cache(head: Response, length: int, keeps: bool) -> bytes:
    """The head of an answer that was given before."""
    headers = [*head.headers, http1.field(b"Content-Length", b"%d" % length)]
    headers.append(http1.field(b"X-Tokenops-Cache-Status", b"hit"))
    if not keeps:
        headers.append(http1.field(b"Connection", b"close"))
    return http1.head_of(b"HTTP/1.1 200 " + head.reason, headers)


def own_answer(status: int, fields: Headers, content: bytes, keeps: bool, method: bytes = b"") -> bytes:
    """An answer of the proxy's own, head and content."""
    headers = [*fields]
    if status != 304:  # the length of what is not sent would be a guess
        headers.append(http1.field(b"Content-Length", b"%d" % len(content)))
    if not keeps:
        headers.append(http1.field(b"Connection", b"close"))
    head = http1.head_of(b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"")), headers)
    return head if status == 304 or method == b"HEAD" else head + content


def error_answer(status: int, error: str, hint: str, method: bytes = b"") -> bytes:
    """An answer of the proxy's own that says what is wrong and what to do; the connection closes after it."""
    content = orjson.dumps({"error": error, "hint": hint}) + b"\n"
    return own_answer(status, [http1.field(b"Content-Type", b"application/json")], content, False, method)


def is_stream(head: Response) -> bool:
    """Whether an answer is a stream of events that is not compressed."""
    kind = next(iter(http1.values(head.headers, b"content-type")), b"")
    return kind.startswith(b"text/event-stream") and not http1.values(head.headers, b"content-encoding")


_REASONS = {
    200: b"OK",
    303: b"See Other",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
