"""Makes the heads that the proxy sends: to upstreams, to clients, and of its own answers. Pure functions."""

from __future__ import annotations

import orjson

from tokenops import http1
from tokenops.http1 import Headers, Request, Response
from tokenops.proxy_exchange import Upstream

# How an answer's body reaches the client: as it came, framing included; in chunks of the proxy's own; or its content
# alone, up to the end of the connection.
UNTOUCHED, CHUNKED, CONTENT = "untouched", "chunked", "content"


def passage(version: tuple[int, int], kind: str, without_usage: bool) -> str:
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


def own(status: int, fields: Headers, content: bytes, keeps: bool, method: bytes = b"") -> bytes:
    """An answer of the proxy's own, head and content."""
    headers = [*fields]
    if status != 304:  # the length of what is not sent would be a guess
        headers.append(http1.field(b"Content-Length", b"%d" % len(content)))
    if not keeps:
        headers.append(http1.field(b"Connection", b"close"))
    head = http1.head_of(b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"")), headers)
    return head if status == 304 or method == b"HEAD" else head + content


def refusal(status: int, error: str, hint: str, method: bytes = b"") -> bytes:
    """An answer of the proxy's own that says what is wrong and what to do; the connection closes after it."""
    content = orjson.dumps({"error": error, "hint": hint}) + b"\n"
    return own(status, [http1.field(b"Content-Type", b"application/json")], content, False, method)


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
