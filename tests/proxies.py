"""A running tok-proxy, for tests, and how to talk to it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from upstream import Upstream

from conftest import MOST, ROOT, Json, eventually, objects
from tokenops import store_folded


class Proxy:
    """A running tok-proxy."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
        self.port, self.process, self.log = port, process, log

    def events(self, count: int | None = None, kind: str = "turn") -> list[Json]:
        """The events written so far; waits for so many."""

        def found() -> list[Json]:
            data = b"".join(path.read_bytes() for path in sorted(self.log.glob("events/*.jsonl")))
            whole = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
            records = objects(b"".join(part for line in whole for part in store_folded.unfold(line)))
            return [event for event in records if event["kind"] == kind]

        return eventually(lambda: events if len(events := found()) >= count else None) if count else found()

    def connect(self) -> socket.socket:
        """A connection to it."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=MOST)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


Start = Callable[..., Proxy]


@pytest.fixture
def vendor() -> Iterator[Upstream]:
    with Upstream().running() as server:
        yield server


@pytest.fixture
def start(environment: dict[str, str], tmp_path: pathlib.Path) -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []

    def started(providers: dict[str, str], *options: str, **settings: Any) -> Proxy:
        config = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"providers": providers, **settings}))
        process = subprocess.Popen(
            [str(ROOT / "bin/tok-proxy"), "--port", "0", *options], env=environment, stderr=subprocess.PIPE, cwd=tmp_path
        )
        running.append(process)
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        assert "listening on" in line, line
        port = int(line.split("http://127.0.0.1:")[1].split(";")[0])
        return Proxy(port, process, pathlib.Path(environment["TOKENOPS_HOME"]))

    yield started
    for process in running:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(MOST)
            process.kill()
        process.wait()


@pytest.fixture
def proxy(start: Start, vendor: Upstream) -> Proxy:
    return start(dict.fromkeys(("openai", "anthropic", "gemini", "ollama"), f"http://127.0.0.1:{vendor.port}"))


def received(connection: socket.socket, until: bytes = b"", most: float = MOST) -> bytes:
    """What comes until the other side closes, or until these bytes stand at its end."""
    connection.settimeout(most)
    found = bytearray()
    with contextlib.suppress(TimeoutError, ConnectionError):
        while data := connection.recv(1 << 18):
            found += data
            if until and found.endswith(until):
                break
    return bytes(found)


def ask(port: int, data: bytes, until: bytes = b"") -> bytes:
    """Send bytes on a new connection, and what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=MOST) as connection:
        connection.sendall(data)
        return received(connection, until)


def post(path: str, body: bytes = b'{"model":"gpt-5.4"}', *headers: str, host: str = "127.0.0.1") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        *headers,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


USAGE = b'{"id":"chatcmpl-1","model":"gpt-5.4-2026-03-05","usage":{"prompt_tokens":15,"completion_tokens":7,"total_tokens":22,"prompt_tokens_details":{"cached_tokens":5}}}'
EVENTS = [
    b'data: {"id":"chatcmpl-2","model":"gpt-5.4","choices":[{"delta":{"content":"a"}}]}\n\n',
    b'data: {"id":"chatcmpl-2","model":"gpt-5.4","choices":[],"usage":{"prompt_tokens":15,"completion_tokens":7}}\n\n',
    b"data: [DONE]\n\n",
]
