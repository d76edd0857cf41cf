"""HTTP/1.1 out of bytes: tables of cases, and h11 as the oracle for whatever fuzzing makes up."""

from __future__ import annotations

import random
import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from tokenops import http1

Read = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]  # method, target, headers, body


def read(data: bytes, sizes: list[int] | None = None) -> tuple[Read | None, str]:
    """A request out of pieces: the whole of it, or None and why it is refused ("" where more is needed)."""
    buffer = bytearray()
    head: http1.Request | None = None
    body = http1.Body(http1.NONE)
    got = b""
    pieces = []
    for size in [*(sizes or []), len(data) or 1]:
        pieces.append(data[:size])
        data = data[size:]
    try:
        for piece in pieces:
            buffer += piece
            if head is None:
                del buffer[: http1.leading_blank(buffer)]
                end = http1.find_head(buffer)
                if end < 0:
                    continue
                head = http1.request(bytes(buffer[:end]))
                del buffer[:end]
                body = http1.Body(*http1.request_body(head))
            used, content, _ = body.feed(bytes(buffer))
            del buffer[:used]
            got += b"".join(content)
    except http1.BadMessage as error:
        return None, str(error)
    if head is None or not body.done:
        return None, ""
    return (head.method, head.target, once([(low, value) for low, _, value in head.headers]), got), ""


def once(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields, a repeated length and the case of a coding aside, which h11 tidies."""
    tidy = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in headers]
    return [one for at, one in enumerate(tidy) if one[0] != b"content-length" or one not in tidy[:at]]


def oracle(data: bytes) -> tuple[Read | None, str]:
    """The same by h11."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=http1.MOST_HEAD)
    try:
        connection.receive_data(data)
        head, got = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return None, ""
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                got += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return (
                    bytes(head.method),
                    bytes(head.target),
                    once([(bytes(a), bytes(b)) for a, b in head.headers]),
                    got,
                ), ""
            else:
                return None, "closed"
    except h11.RemoteProtocolError as error:
        return None, str(error)


HEAD = b"POST /v1/x?a=1 HTTP/1.1\r\nHost: h\r\n"
GOOD = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    HEAD + b"Content-Length: 5\r\n\r\nhello",
    HEAD + b"content-length:5\r\nX-A: \r\nX-B:\tb c\t\r\n\r\nhello",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\nhel\r\n0002\r\nlo\r\n0\r\nT: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
]


@pytest.mark.parametrize("data", GOOD)
def test_what_is_taken(data: bytes) -> None:
    found, why = read(data)
    assert found is not None, why
    assert found == oracle(data)[0]
    for size in (1, 2, 3, 7):
        assert read(data, [size] * (len(data) // size))[0] == found


# What is refused, with what, and whether h11 refuses it too: where it does not, the difference is meant.
BAD = [
    (b"GET / HTTP/1.1\nHost: h\n\n", 400, False),  # bare LF: two readers may disagree where the head ends
    (b"GET / HTTP/1.1\r\nHost: h\r\nA: 1\rB: 2\r\n\r\n", 400, True),
    (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\x00c\r\n\r\n", 400, True),
    (b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400, True),
    (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400, False),  # folded
    (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400, True),
    (b"GET / HTTP/1.1\r\n\r\n", 400, True),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, True),
    (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400, True),
    (b"GET /\r\nHost: h\r\n\r\n", 400, True),
    (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, False),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, False),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, True),  # TLS
    (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, False),  # smuggling
    (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, True),
    (HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, False),  # RFC 9110 8.6
    (HEAD + b"Content-Length: 5, 5\r\n\r\nhello", 400, False),
    (HEAD + b"Content-Length: +5\r\n\r\nhello", 400, True),
    (HEAD + b"Content-Length: 0x5\r\n\r\nhello", 400, True),
    (HEAD + b"Content-Length: -5\r\n\r\nhello", 400, True),
    (HEAD + b"Content-Length:\r\n\r\nhello", 400, True),
    (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, True),
    (HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, True),
    (HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, True),
    (HEAD + b"Transfer-Encoding:\r\n\r\n", 400, True),
    (HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, True),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, False),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", 400, True),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400, True),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5_0\r\nhello\r\n0\r\n\r\n", 400, True),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", 400, True),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400, True),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n", 400, False),  # beyond 64 bits
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n", 400, True),
    (b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * http1.MOST_HEAD + b"\r\n\r\n", 431, False),
    (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431, False),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status", "both"), BAD)
def test_what_is_refused(data: bytes, status: int, both: bool) -> None:
    with pytest.raises(http1.BadMessage) as raised:
        buffer = bytearray(data)
        end = http1.find_head(buffer)
        assert end > 0
        http1.Body(*http1.request_body(http1.request(data[:end]))).feed(data[end:])
    assert raised.value.status == status
    assert read(data)[1]
    if both:
        assert oracle(data)[1]


def meant(data: bytes) -> bool:
    """Whether ours may refuse what h11 takes: control characters, bare LF, folded lines, a length beside a coding, a repeated length, a coding in HTTP/1.0, blanks
    before a chunk's extension that are none, another version, and more header fields than anyone sends."""
    head, _, _ = data.partition(b"\r\n\r\n")
    low = head.lower()
    return (
        bool(re.search(rb"\r(?!\n)|(?<!\r)\n|[\0-\x08\x0b\x0c\x0e-\x1f\x7f]", data))
        or b"\n " in data
        or b"\n\t" in data
        or (b"transfer-encoding" in low and b"content-length" in low)
        or (b"transfer-encoding" in low and b"HTTP/1.0" in head)
        or not re.match(rb"(?:\r\n)*[^\r\n]* HTTP/1\.[01]\r", data)
        or b"," in low.partition(b"content-length")[2].partition(b"\r")[0]
        or low.count(b"content-length") > 1
    )


@examples(400)
@given(chance=st.randoms(use_true_random=False), noise=st.binary(max_size=8))
def test_h11_agrees_on_what_is_made_up(chance: random.Random, noise: bytes) -> None:
    data = bytearray(chance.choice(GOOD + [one for one, _, _ in BAD if len(one) < 1000]))
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(data) + 1)
        edit = chance.random()
        if edit < 0.3:
            data[at : at + chance.randint(0, 3)] = noise
        elif edit < 0.6:
            del data[at : at + chance.randint(1, 4)]
        elif edit < 0.9:
            piece = chance.choice(
                (b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"0", b"chunked", b";", b"\0", b"Host: x\r\n")
            )
            data[at:at] = piece
        else:
            data += chance.choice(GOOD)
    sent = bytes(data)
    ours, why = read(sent)
    theirs, also = oracle(sent)
    if ours is not None and theirs is not None:
        assert ours == theirs
    elif ours is not None:
        assert looser(sent), (sent, also)
    elif theirs is not None and why:
        assert meant(sent), (sent, why)
    assert read(sent, [chance.randint(1, 40) for _ in range(12)])[0] == ours


def looser(data: bytes) -> bool:
    """Whether ours may take what h11 refuses: empty lines before a request (RFC 9112 2.2), and a blank between a chunk's
    size and its extension (7.1.1: a recipient has to parse it)."""
    return data.startswith(b"\r\n") or re.search(rb"\r\n[0-9A-Fa-f]+[ \t]+;", data) is not None


RESPONSES = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"GET", (http1.LENGTH, 3)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"HEAD", (http1.NONE, 0)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", (http1.NONE, 0)),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"GET", (http1.NONE, 0)),
    (b"HTTP/1.1 100 Continue\r\n\r\n", b"POST", (http1.NONE, 0)),
    (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", (http1.CHUNKED, 0)),
    (b"HTTP/1.0 200 OK\r\n\r\n", b"GET", (http1.CLOSE, 0)),
    (b"HTTP/1.1 200 OK\r\n\r\n", b"GET", (http1.CLOSE, 0)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET", (http1.NONE, 0)),
]


@pytest.mark.parametrize(("data", "method", "body"), RESPONSES)
def test_how_a_response_ends(data: bytes, method: bytes, body: tuple[str, int]) -> None:
    assert http1.response_body(method, http1.response(data)) == body


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_a_response_that_is_refused(data: bytes) -> None:
    with pytest.raises(http1.BadMessage) as raised:
        http1.response_body(b"GET", http1.response(data))
    assert raised.value.status == 502


def test_what_is_passed_on() -> None:
    headers = [
        (b"Host", b"h"),
        (b"Connection", b"keep-alive, X-Mine, Authorization"),
        (b"Keep-Alive", b"5"),
        (b"X-Mine", b"1"),
        (b"Authorization", b"Bearer sk"),
        (b"TE", b"trailers"),
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
    ]
    passed = http1.end_to_end([http1.field(*one) for one in headers])
    assert [one[1:] for one in passed] == [
        (b"Host", b"h"),
        (b"Authorization", b"Bearer sk"),
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
    ]


def test_an_end_in_the_middle() -> None:
    assert not http1.Body(http1.LENGTH, 5).end()
    assert not http1.Body(http1.CHUNKED).end()
    assert http1.Body(http1.CLOSE).end()
