"""Engines that tok-ship sends to, for tests: ClickHouse's server, chdb behind HTTP, and a target that misbehaves."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import MOST

SERVER = shutil.which("clickhouse-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
needs_server = pytest.mark.skipif(SERVER is None, reason="no clickhouse-server on the path (Debian: apt-get install it)")

CONFIG = """<yandex>
  <logger><level>error</level><log>{at}/log</log><errorlog>{at}/errors</errorlog></logger>
  <http_port>{http}</http_port><tcp_port>{tcp}</tcp_port><listen_host>127.0.0.1</listen_host>
  <path>{at}/data/</path><tmp_path>{at}/tmp/</tmp_path><format_schema_path>{at}/formats/</format_schema_path>
  <user_files_path>{at}/files/</user_files_path><users_config>users.xml</users_config>
  <default_profile>default</default_profile><default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size><timezone>UTC</timezone>
</yandex>
"""
USERS = """<yandex>
  <profiles><default/></profiles><quotas><default/></quotas>
  <users>
    <default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default>
    <writer><password>s3cret-word</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></writer>
  </users>
</yandex>
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Engine:
    """Something that speaks ClickHouse's HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query; whole numbers as numbers, amounts as text."""
        asked = f"{query} FORMAT JSONEachRow" if query.lstrip().upper().startswith("SELECT") else query
        try:
            with urllib.request.urlopen(self.url, data=asked.encode(), timeout=120) as answer:
                return [json.loads(line, parse_float=str) for line in answer.read().splitlines()]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:2000]) from None


def server(folder: pathlib.Path) -> Iterator[Engine]:
    """A server of its own on loopback."""
    for name in ("data", "tmp", "formats", "files"):
        (folder / name).mkdir(parents=True)
    http = free_port()
    (folder / "config.xml").write_text(CONFIG.format(at=folder, http=http, tcp=free_port()))
    (folder / "users.xml").write_text(USERS)
    command = [str(SERVER), f"--config-file={folder}/config.xml"]
    with open(folder / "out", "wb") as out, subprocess.Popen(command, cwd=folder, stdout=out, stderr=out) as process:
        engine = Engine(f"http://127.0.0.1:{http}/")
        try:
            for _ in range(200):
                try:
                    engine.ask("SELECT 1 AS one")
                    break
                except OSError:
                    assert process.poll() is None, (folder / "out").read_text()[-2000:]
                    time.sleep(0.1)
            yield engine
        finally:
            process.terminate()
            try:
                process.wait(MOST)
            except subprocess.TimeoutExpired:
                process.kill()


class Asked(NamedTuple):
    """A request as it arrived, its body unpacked."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]


class Reply(NamedTuple):
    """What to answer; a status of 0 hangs up instead.

    `taken`: what came is taken, whatever the answer (None: if that is 2xx). `held`: no answer before the test lets go.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    taken: bool | None = None
    held: bool = False


class Receiver:
    """A target on loopback. `answer` decides; what was taken (2xx) is in `taken`, everything that came in `asked`."""

    def __init__(self, answer: Callable[[Asked], Reply] | None = None) -> None:
        self.asked: list[Asked] = []
        self.taken: list[Asked] = []
        self.answer = answer or (lambda asked: Reply())
        self.lock = threading.Lock()
        self.let_go = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                parts = urlsplit(self.path)
                named = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(parts.path, parse_qs(parts.query), named, body)
                with outer.lock:
                    outer.asked.append(asked)
                    reply = outer.answer(asked)
                    if 200 <= reply.status < 300 if reply.taken is None else reply.taken:
                        outer.taken.append(asked)
                if reply.held:
                    outer.let_go.wait()
                if not reply.status:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in (*reply.headers, ("Content-Length", str(len(reply.body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # shippers are killed on purpose

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def rows(self) -> list[dict[str, Any]]:
        """All rows that arrived, copies included."""
        return [row for asked in self.taken for row in asked.rows()]

    def close(self) -> None:
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()


class Chdb(Receiver):
    """The current engine, in this process, behind HTTP."""

    def __init__(self, folder: pathlib.Path) -> None:
        from chdb import session  # type: ignore[import-not-found, unused-ignore]

        self.session = session.Session(str(folder))
        super().__init__(self._ran)

    def _ran(self, asked: Asked) -> Reply:
        query = asked.query.get("query", [""])[0].encode()
        try:
            done = self.session.query((query + b"\n" + asked.body if query else asked.body).decode())
        except Exception as error:  # the engine's own
            return Reply(500, str(error).encode())
        return Reply(200, str(done).encode() if done is not None else b"")
