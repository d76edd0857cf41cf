"""Parses HTTP/1.1 messages strictly: heads, framing and chunks (RFC 9110 and 9112, June 2022). No sockets, no clock.

Anything that two programs could read differently is refused, since that is how requests are smuggled: bare CR or LF,
blanks before a colon, folded lines, a length beside a transfer coding, two lengths, odd chunk sizes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_HEAD = 64 << 10
MOST_HEADERS = 200
MOST_TRAILER = 16 << 10
_MOST_SIZE_LINE = 4 << 10

Headers = list[tuple[bytes, bytes, bytes]]  # name in lower case, name and value as they came; in order

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEADER = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n")
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r\n")
_STATUS = re.compile(rb"HTTP/(\d)\.(\d) (\d{3})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_NOT_A_LINE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")

# How a body ends.
NONE, LENGTH, CHUNKED, CLOSE = "none", "length", "chunked", "close"


class BadMessage(ValueError):
    """A message that is refused. `status` is the server's answer to it; a gateway answers 502 to a bad response."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Request(NamedTuple):
    """The head of a request."""

    method: bytes
    target: bytes
    version: tuple[int, int]
    headers: Headers


class Response(NamedTuple):
    """The head of a response."""

    status: int
    reason: bytes
    version: tuple[int, int]
    headers: Headers


def field(name: bytes, value: bytes) -> tuple[bytes, bytes, bytes]:
    """A header field."""
    return name.lower(), name, value


def values(headers: Headers, name: bytes) -> list[bytes]:
    """All values of a header; `name` in lower case."""
    return [value for low, _, value in headers if low == name]


def items(headers: Headers, name: bytes) -> list[bytes]:
    """The members of a header that is a comma list, in lower case."""
    lines = values(headers, name)
    return [item for value in lines for part in value.split(b",") if (item := part.strip().lower())] if lines else []


def find_head(buffer: bytearray, start: int = 0) -> int:
    """Where the first head ends (the byte after its blank line), -1 if it is not complete yet. Raises BadMessage.

    Up to two empty lines before it are skipped; then the head begins at `leading_blank`.
    """
    end = buffer.find(b"\r\n\r\n", start)
    if (len(buffer) if end < 0 else end) > MOST_HEAD:
        raise BadMessage(431, f"a head of more than {MOST_HEAD >> 10} KiB")
    if end < 0 and _NOT_A_LINE.search(buffer, 0, len(buffer) - buffer.endswith(b"\r")):  # a last CR awaits its LF
        raise BadMessage(400, "a line of the head does not end with CR LF")
    return end + 4 if end >= 0 else -1


def leading_blank(buffer: bytearray) -> int:
    """How many bytes of empty lines stand before a request (RFC 9112 2.2 asks to ignore at least one)."""
    at = 0
    while at < 4 and buffer[at : at + 2] == b"\r\n":
        at += 2
    return at


def request(head: bytes) -> Request:
    """The request in a head. Raises BadMessage."""
    first = _REQUEST.match(head)
    if first is None:
        if head.startswith(b"PRI * HTTP/2.0\r\n"):
            raise BadMessage(505, "HTTP/2 is not supported; use HTTP/1.1")
        raise BadMessage(400, "not an HTTP/1.1 request line")
    method, target, major, minor = first.groups()
    if major != b"1":
        raise BadMessage(505, "only HTTP/1.1 and 1.0 are supported")
    version = (1, 0) if minor == b"0" else (1, 1)
    parsed = Request(method, target, version, _headers(head, first.end()))
    hosts = values(parsed.headers, b"host")
    if len(hosts) > 1 or (not hosts and version == (1, 1)):
        raise BadMessage(400, "not exactly one Host header")
    return parsed


def response(head: bytes) -> Response:
    """The response in a head. Raises BadMessage."""
    first = _STATUS.match(head)
    if first is None:
        raise BadMessage(502, "not an HTTP/1.1 status line")
    major, minor, status, reason = first.groups()
    if major != b"1" or not 100 <= int(status) <= 999:
        raise BadMessage(502, "not an HTTP/1.1 status line")
    return Response(int(status), reason or b"", (1, 0) if minor == b"0" else (1, 1), _headers(head, first.end()))


def _headers(head: bytes, at: int) -> Headers:
    """The header fields from a place in a head on, to its blank line. Raises BadMessage."""
    fields: Headers = []
    last = len(head) - 2
    match = _HEADER.match
    while at < last:
        line_match = match(head, at)
        if line_match is None:
            line = head[at : head.find(b"\r\n", at)]
            why = "a folded line" if line[:1] in (b" ", b"\t") else "a line that is not `name: value`"
            raise BadMessage(400, f"header field {len(fields) + 1}: {why}")
        name, value = line_match.groups()
        fields.append((name.lower(), name, value))
        at = line_match.end()
        if len(fields) > MOST_HEADERS:
            raise BadMessage(431, f"more than {MOST_HEADERS} header fields")
    return fields


def _coding(headers: Headers, version: tuple[int, int]) -> bool:
    """Whether a body is chunked. Raises BadMessage for any other transfer coding, and for one beside a length."""
    lines = values(headers, b"transfer-encoding")
    if not lines:
        return False
    codings = [coding.strip(b" \t").lower() for value in lines for coding in value.split(b",")]
    if b"" in codings:
        raise BadMessage(400, "an empty Transfer-Encoding")
    if version < (1, 1):
        raise BadMessage(400, "Transfer-Encoding in HTTP/1.0")
    if values(headers, b"content-length"):
        raise BadMessage(400, "both Transfer-Encoding and Content-Length")
    if codings != [b"chunked"]:
        if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
            raise BadMessage(400, "chunked is not the last transfer coding, once")
        raise BadMessage(501, "a transfer coding besides chunked")
    return True


def _length(headers: Headers) -> int | None:
    """The declared length; None if there is none. Raises BadMessage."""
    lengths = values(headers, b"content-length")
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.match(lengths[0]):  # a repeated one may not be sent on (RFC 9110 8.6)
        raise BadMessage(400, "the body's length is not a single number")
    return int(lengths[0])


def request_body(head: Request) -> tuple[str, int]:
    """How a request's body ends: NONE, LENGTH and how long, or CHUNKED. Raises BadMessage."""
    if _coding(head.headers, head.version):
        return CHUNKED, 0
    length = _length(head.headers)
    return (LENGTH, length) if length else (NONE, 0)


def response_body(method: bytes, head: Response) -> tuple[str, int]:
    """How a response's body ends, CLOSE if only the end of the connection shows it. Raises BadMessage."""
    try:
        if method == b"HEAD" or head.status < 200 or head.status in (204, 304):
            return NONE, 0
        if _coding(head.headers, head.version):
            return CHUNKED, 0
        length = _length(head.headers)
    except BadMessage as error:
        raise BadMessage(502, str(error)) from None
    if length is None:
        return CLOSE, 0
    return (LENGTH, length) if length else (NONE, 0)


def keeps_open(version: tuple[int, int], headers: Headers) -> bool:
    """Whether the sender keeps the connection open."""
    options = items(headers, b"connection")
    if b"close" in options:
        return False
    return version >= (1, 1) or b"keep-alive" in options


class Piece(NamedTuple):
    """The part of a body in one stretch of bytes."""

    used: int  # bytes that belong to the body, its framing included
    data: list[bytes]  # its content
    done: bool


class Body:
    """A body that arrives in pieces. Bytes after its end are not used. Raises BadMessage if the framing is broken."""

    def __init__(self, kind: str, length: int = 0) -> None:
        self.kind, self.left = kind, length
        self.done = kind == NONE
        self._state = "size"
        self._line = b""  # an unfinished line of the framing
        self._trailer = 0

    def feed(self, data: bytes) -> Piece:
        """Add bytes."""
        if self.done:
            return Piece(0, [], True)
        if self.kind == LENGTH:
            part = data if len(data) <= self.left else data[: self.left]
            self.left -= len(part)
            self.done = not self.left
            return Piece(len(part), [part] if part else [], self.done)
        if self.kind == CLOSE:
            return Piece(len(data), [data] if data else [], False)
        return self._chunks(data)

    def end(self) -> bool:
        """The connection ended: whether the body is whole."""
        if self.kind == CLOSE:
            self.done = True
        return self.done

    def _chunks(self, data: bytes) -> Piece:
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            if self._state == "data":
                part = data[at : at + self.left]
                pieces.append(part)
                self.left -= len(part)
                at += len(part)
                if not self.left:
                    self._state = "after"
                continue
            line, at = self._to_line(data, at)
            if line is None:
                break
            self._take(line)
        return Piece(at, pieces, self.done)

    def _to_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """A line of the framing with its end, and the place after it; None if it is not complete yet."""
        stop = data.find(b"\n", at) + 1
        part = data[at : stop or len(data)]
        line = self._line + part
        if len(line) > _MOST_SIZE_LINE:
            raise BadMessage(400, "a chunk's head is too long")
        if not stop:
            self._line = line
            self._check_line(line)
            return None, len(data)
        self._line = b""
        return line, stop

    def _check_line(self, line: bytes) -> None:
        """Raise BadMessage if the beginning of a line cannot become a valid one."""
        if (self._state == "after" and not b"\r\n".startswith(line)) or _NOT_A_LINE.search(line[:-1]):
            raise BadMessage(400, "chunk framing is broken")
        if self._state == "size" and not re.match(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*(?:;[^\r\n]*)?)?\r?\Z", line):
            raise BadMessage(400, "not a chunk size")

    def _take(self, line: bytes) -> None:
        if not line.endswith(b"\r\n") or _NOT_A_LINE.search(line):
            raise BadMessage(400, "a line of the chunk framing does not end with CR LF")
        if self._state == "after":
            if line != b"\r\n":
                raise BadMessage(400, "a chunk is longer than it says")
            self._state = "size"
        elif self._state == "size":
            size = _CHUNK.match(line)
            if size is None or size.end() != len(line):
                raise BadMessage(400, "not a chunk size")
            self.left = int(size[1], 16)
            self._state = "data" if self.left else "trailer"
        elif line == b"\r\n":
            self.done = True
        else:
            self._trailer += len(line)
            if self._trailer > MOST_TRAILER:
                raise BadMessage(431, "trailers are too long")
            if _HEADER.fullmatch(line) is None:
                raise BadMessage(400, "a trailer that is not `name: value`")


def head_of(first: bytes, headers: Headers) -> bytes:
    """The bytes of a head."""
    parts = [first]
    for _, name, value in headers:
        parts += (b"\r\n", name, b": ", value)  # a quarter less work than a formatted line for each
    parts.append(b"\r\n\r\n")
    return b"".join(parts)


# What one connection says to the next is not passed on (RFC 9110 7.6.1).
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"te",
        b"upgrade",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
    )
)
# Fields that a Connection header cannot remove, since the next hop needs them.
_KEPT = frozenset((b"host", b"authorization", b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"))


def end_to_end(headers: Headers) -> Headers:
    """The fields that are passed on, as they came. Transfer-Encoding stays: bodies pass with their framing."""
    named = items(headers, b"connection")
    dropped = HOP_BY_HOP.union(named) - _KEPT if named else HOP_BY_HOP
    return [header for header in headers if header[0] not in dropped]
