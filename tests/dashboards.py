"""Dashboards for tests: a site without sockets, a running tok-dash, and what stands on a page."""

from __future__ import annotations

import contextlib
import html.parser
import http.client
import os
import pathlib
import random
import socket
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from conftest import MOST, ROOT, Json
from tokenops import access, config, dash, dash_view, events, http1, jsonl, pricing, session, store, when

NOW = "2026-11-21T09:30:00.000Z"
AT = when.moment(NOW)
PORT = 7879
HOSTS = access.hosts(PORT)


def turn(number: int, minutes: float, **more: Any) -> Json:
    """A turn so many minutes ago."""
    project = f"p{number % 3}"
    about = {
        "kind": "turn",
        "id": f"msg_{number}",
        "source": "claude-code-jsonl",
        "client": "claude-code",
        "project": project,
        "agent_id": f"claude-code:{project}",
        "workflow_id": f"claude-code:{project}:s{number % 5}",
        "session_id": f"s{number % 5}",
        "provider": "anthropic",
        "model": ("claude-opus-4-8", "claude-haiku-4-5")[number % 2],
        "turns": 1,
    }
    if number % 4 == 0:
        about["skill"] = f"skill-{number % 3}"
    counts = {"input_tokens": 10 + number, "cache_read_tokens": 5000, "cache_write_tokens": 101, "output_tokens": 7 * number}
    return {"v": 1, "ts": when.stamp(AT - round(minutes * 60_000)), **about, **counts, **more}


def broken_session(turns: int, breaks: Iterable[int], session: str) -> list[Json]:
    """A session with a turn a minute of which each reads all before it from the cache, but for the `breaks`, before which
    an hour passed: these write it all again."""
    records, size, minutes = [], 20_000, 9000.0
    for number in range(1, turns + 1):
        minutes -= 61 if number in breaks else 1
        read, write = (0, size) if number == 1 or number in breaks else (size, 400)
        size += 400
        counts = {"input_tokens": 0, "cache_read_tokens": read, "cache_write_tokens": write, "output_tokens": 30}
        about = {"id": f"{session}_{number}", "session_id": session, "model": "claude-opus-4-8", "skill": None}
        record = turn(0, minutes, **about, **counts)
        records.append({key: value for key, value in record.items() if value})
    return records


def meter(used: float, minutes: int = 5, resets: int = 60, **more: Any) -> Json:
    """A reading of Claude's five hours, so many minutes ago."""
    about: Json = {"window": "five_hour", "window_minutes": 300, "resets_at": when.stamp(AT + resets * 60_000), **more}
    return events.meter("claude-code-statusline", "anthropic", when.stamp(AT - minutes * 60_000), used=used, **about)


def log(folder: str, *records: Json) -> None:
    """Write records into a log that was synced at that moment."""
    store.append(folder, map(jsonl.line_of, records))
    (pathlib.Path(folder) / "synced").touch()
    os.utime(pathlib.Path(folder) / "synced", (AT / 1000, AT / 1000))


class Clock:
    """A clock that tests set."""

    def __init__(self, now: int = AT) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def site(folder: str, environment: dict[str, str], clock: Clock | None = None, alone: bool = True) -> dash.Site:
    """A dashboard without sockets, at a moment."""
    os.makedirs(folder, exist_ok=True)
    clock = clock or Clock()
    given = config.load(environment, environment["HOME"])
    source = session.Session(folder, environment, environment["HOME"], lambda: AT, lambda: given, pricing.load, lambda: "")
    made = dash.Site(folder, dash_view.Gatherer(source, list), clock, alone)
    made.hosts = HOSTS
    return made


class Said(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, list[str]]
    body: bytes
    wait_ms: int

    def one(self, name: str) -> str:
        """The only value of a header, "" for none."""
        (found,) = self.headers.get(name, [""])
        return found

    @property
    def cookie(self) -> str:
        """The cookie that it sets."""
        first = self.headers.get("set-cookie", [""])[0]
        return first.partition(";")[0]


def ask(made: dash.Site, target: str, method: str = "GET", host: str | None = f"127.0.0.1:{PORT}", **headers: str) -> Said:
    """Ask a site. Names of headers are written with underscores."""
    lines = [f"{method} {target} HTTP/1.1"] + ([f"Host: {host}"] if host is not None else [])
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = http1.request("\r\n".join([*lines, "", ""]).encode("latin-1")) if host is not None else None
    if head is None:  # only HTTP/1.0 may leave it out
        head = http1.request("\r\n".join([lines[0].replace("1.1", "1.0"), *lines[1:], "", ""]).encode("latin-1"))
    reply = made.answer(head)
    found: dict[str, list[str]] = {}
    for low, _, value in reply.headers:
        found.setdefault(low.decode(), []).append(value.decode())
    return Said(reply.status, found, reply.body, reply.wait_ms)


class Page(html.parser.HTMLParser):
    """What stands on a page: the text and value of each `data` element, below the keys that it stands in."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.data: dict[str, list[tuple[str, str]]] = {}
        self.text: dict[str, str] = {}
        self.value: str | None = None
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        if tag not in ("meta", "link", "input", "br"):
            self.open.append((tag, about.get("data-key") or about.get("id") or ""))
        if tag == "data":
            self.value = about["value"]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _, key in self.open:
            if key:
                self.text[key] = self.text.get(key, "") + data
                if self.value is not None and self.open[-1][0] == "data":
                    self.data.setdefault(key, []).append((self.value, data))
        self.value = None


class Dash:
    """A running tok-dash (or tok-proxy --dash)."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], folder: pathlib.Path) -> None:
        self.port, self.process, self.folder, self.now = port, process, folder, AT

    @property
    def token(self) -> str:
        """Its token."""
        return (self.folder / access.TOKEN).read_text().strip()

    def get(self, path: str, method: str = "GET", bearer: bool = True, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=MOST)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if bearer:
            given["Authorization"] = f"Bearer {self.token}"
        connection.request(method, path, headers=given)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def quiet_port() -> int:
    """A port that is free, and stays so while nobody listens there: below those that a system gives by itself."""
    draw = random.Random(os.getpid())
    while True:
        port = draw.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def running(environment: dict[str, str], *options: str, command: str = "tok-dash", **env: str) -> Iterator[Dash]:
    """A dashboard while the block runs."""
    process = subprocess.Popen(
        [str(ROOT / "bin" / command), "--port", "0", *options], env=environment | env, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        line = b""
        while b"serving http" not in line:
            line = process.stderr.readline()
            assert line, "it ended"
        port = int(line.split(b"http://127.0.0.1:")[1].split(b"/")[0])
        yield Dash(port, process, pathlib.Path(environment["TOKENOPS_HOME"]))
    finally:
        process.terminate()
        try:
            process.wait(MOST)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
