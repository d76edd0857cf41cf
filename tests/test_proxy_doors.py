"""Who and what the proxy holds out against: web pages, too many connections, a log that cannot be written, an end that waits."""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess

import pytest
from proxies import USAGE, Proxy, Start, ask, post
from upstream import Upstream, plain

from conftest import MOST, ROOT, Json, Run, eventually, lines, objects
from tokenops import access, http1, proxy_request, proxy_room, proxy_savings, proxy_writer

PAGE = (("Content-Type", "text/html"), ("Set-Cookie", "tokenops_dash=x; Path=/api"))


def get(path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]).encode()


# Browsers.


@pytest.mark.parametrize(
    "headers",
    [
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
        ("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
        ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"),
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"),
        ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"),
        ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"),
        ("Sec-Fetch-Mode: websocket",),
        ("Origin: http://evil.example",),
    ],
)
def test_no_web_page_reaches_a_vendor(headers: tuple[str, ...], proxy: Proxy, vendor: Upstream) -> None:
    for request in (
        get("/openai/page", *headers),
        post("/openai/v1/chat/completions", b"{}", "Connection: close", *headers),
    ):
        assert ask(proxy.port, request).startswith(b"HTTP/1.1 403 ")
    assert not vendor.asked


def test_programs_that_name_a_mode_are_served(proxy: Proxy, vendor: Upstream) -> None:
    """Node's fetch sends `sec-fetch-mode: cors`, and nothing else of that kind. Nothing is added to its answer."""
    vendor.script = plain(USAGE, ("Set-Cookie", "a=b"))
    answer = ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close", "Sec-Fetch-Mode: cors"))
    assert answer.startswith(b"HTTP/1.1 200 ") and b"Set-Cookie: a=b" in answer and b"Content-Security" not in answer


def test_beside_the_dashboard_no_answer_can_run(start: Start, vendor: Upstream) -> None:
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"}, "--dash")
    vendor.script = plain(b"<script>1</script>", *PAGE)
    answer = ask(proxy.port, get("/openai/page"))
    head = answer.partition(b"\r\n\r\n")[0]
    assert b"Content-Security-Policy: sandbox" in head and b"nosniff" in head and b"Set-Cookie" not in head
    assert answer.endswith(b"<script>1</script>")


def test_the_own_endpoints_answer_by_the_announced_name(proxy: Proxy, vendor: Upstream) -> None:
    for path in ("/healthz", "/readyz", "/version"):
        assert ask(proxy.port, get(path, host=f"tokenops.local:{proxy.port}")).startswith(b"HTTP/1.1 200 ")
        assert ask(proxy.port, get(path, host="evil.example")).startswith(b"HTTP/1.1 403 ")
    assert ask(proxy.port, get("/openai/v1/models", host="tokenops.local")).startswith(b"HTTP/1.1 403 ")


def test_mdns_is_for_the_dashboard(run: Run) -> None:
    assert b"add --dash" in run("tok-proxy --mdns", status=2).stderr


def test_a_new_token_ends_the_links_of_the_old_one(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "log")
    link = access.ticket(folder, 1000)
    other = access.ticket(folder, 1000)
    assert access.redeem(folder, other, 2000)
    access.rotate(folder)
    assert not access.redeem(folder, link, 2000)


# The cache.


def test_a_cached_answer_never_goes_to_another_account() -> None:
    def key(*headers: tuple[bytes, bytes]) -> bytes:
        fields = [http1.field(name, value) for name, value in ((b"Host", b"h"), *headers)]
        return proxy_savings.key_of("openai", http1.Request(b"POST", b"/x", (1, 1), fields), b"/x", b"{}")

    plain_key = key()
    for name in (
        b"Authorization",
        b"ChatGPT-Account-Id",
        b"OpenAI-Organization",
        b"X-Tenant",
        b"X-Org-Id",
        b"Cookie",
        b"anything",
    ):
        assert len({plain_key, key((name, b"one")), key((name, b"two"))}) == 3, name
    for name in (b"User-Agent", b"X-Stainless-Retry-Count", b"traceparent", b"Content-Length", b"session_id"):
        assert key((name, b"one")) == key((name, b"two")) == plain_key, name


def test_what_is_remembered_by_foreign_names_has_a_bound() -> None:
    before = proxy_request._caller.cache_info().maxsize
    assert before is not None and before <= 1000
    for number in range(2 * before):
        proxy_request.caller(f"agent{number}/1" + "x" * 60_000)
    assert proxy_request._caller.cache_info().currsize <= before


# Connections.


def test_more_connections_than_files_allow(start: Start, vendor: Upstream) -> None:
    """One more gets 503, in one line on stderr; those that end make room again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = pathlib.Path("/proc/self/limits").exists()
    assert limited
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"})
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)  # it is ours to look at
    held: list[socket.socket] = []
    with subprocess.Popen(
        ["/bin/sh", "-c", f"ulimit -n 120; exec {ROOT}/bin/tok-proxy --port 0"],
        env={**os.environ, "HOME": str(proxy.log.parent), "TOKENOPS_HOME": str(proxy.log.parent / "other")},
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            port = int(first.split(b"http://127.0.0.1:")[1].split(b";")[0])
            most = (120 - proxy_room.RESERVE) // 2
            held = [socket.create_connection(("127.0.0.1", port), timeout=MOST) for _ in range(most)]
            refused = [ask(port, get("/version")) for _ in range(5)]
            assert all(answer.startswith(b"HTTP/1.1 503 ") and b"ulimit -n" in answer for answer in refused)
            held.pop().close()
            assert eventually(lambda: ask(port, get("/version")).startswith(b"HTTP/1.1 200 "))
        finally:
            for each in held:
                each.close()
            process.terminate()
            said = process.stderr.read() if process.stderr is not None else b""
    assert said.count(b"clients are connected") == 1 and b"Traceback" not in said
    assert (soft, hard) == resource.getrlimit(resource.RLIMIT_NOFILE)


# The log.


def test_while_another_process_holds_the_lock(start: Start, vendor: Upstream, environment: Json) -> None:
    """Events wait; SIGTERM ends the proxy all the same; the next one writes what waited."""
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"})
    vendor.script = plain(USAGE)
    fd = os.open(proxy.log / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close")).endswith(USAGE)
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.process.wait(MOST) == 0
        assert proxy.process.stderr is not None
        said = proxy.process.stderr.read().decode()
        assert re.search(r"1 events are in waiting/", said) and "Traceback" not in said
        assert not proxy.events()
    finally:
        os.close(fd)
    again = start({"openai": f"http://127.0.0.1:{vendor.port}"})
    assert [turn["id"] for turn in again.events(1)] == ["chatcmpl-1"]
    assert eventually(lambda: not os.listdir(proxy.log / proxy_writer.WAITING))


def test_what_waits_has_a_bound(tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    writer = proxy_writer.Writer(str(tmp_path), said.append)
    record = {
        "v": 1,
        "ts": "2026-11-21T09:30:00.000Z",
        "kind": "turn",
        "id": "t",
        "source": "proxy",
        "client": "c",
        "turns": 1,
    }
    line = lines([record | {"path": "/" + "x" * 150}])
    writer.unwritten = [line] * ((20 << 20) // len(line))
    count = len(writer.unwritten)
    writer._bound()
    assert not writer.unwritten and writer.spilled
    [path] = (tmp_path / proxy_writer.WAITING).iterdir()
    assert len(objects(path.read_bytes())) == count and path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    (tmp_path / proxy_writer.WAITING).rmdir()
    (tmp_path / proxy_writer.WAITING).write_text("no folder")
    writer.unwritten = [line] * count
    writer._bound()
    assert len(writer.unwritten) + writer.lost == count and writer.lost
    writer.thread.shutdown()


def test_the_names_of_windows_have_a_bound(tmp_path: pathlib.Path) -> None:
    writer = proxy_writer.Writer(str(tmp_path), lambda text: None)
    for number in range(3000):
        meter = {
            "v": 1,
            "ts": "2026-11-21T09:30:00.000Z",
            "kind": "meter",
            "id": f"m{number}",
            "source": "proxy",
            "provider": "openai",
        }
        writer._is_news(
            meter
            | {
                "window": "weekly",
                "window_minutes": 10_080,
                "scope": f"s{number}",
                "used": 0.5,
                "observed_at": "2026-11-21T09:30:00.000Z",
            }
        )
    assert len(writer.meters) <= 1000 and len(writer.used) <= 1000
    writer.thread.shutdown()


@pytest.mark.parametrize(
    ("agent", "client"),
    [
        ("claude-cli/2.1.332 (external, cli)", "claude-code"),
        ("claude-cli/0.24.4 (external, cli)", "qwen-code"),
        ("QwenCode/0.24.4 (linux; x64)", "qwen-code"),
        ("codex_exec/0.171.0 (Linux)", "codex"),
        ("kimi-code-cli/2.1.0", "kimi-cli"),
        ("Kilo-Code/7.7.7 ai-sdk/provider-utils/4.0.27 runtime/bun/1.3.14", "kilo"),
        ("factory-cli/0.225.2", "droid"),
        ("grok-shell/1.0.41 (linux; x86_64)", "grok-build"),
        ("something-else", "something-else"),
        ("", ""),
    ],
)
def test_the_caller_is_named_by_its_user_agent(agent: str, client: str) -> None:
    """Qwen Code borrows Claude Code's name at Anthropic's API, with a version of its own."""
    assert proxy_request.caller(agent) == client


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"user-agent": "OpenAI/JS 5.20.1", "x-initiator": "agent"}, "copilot-cli"),
        ({"user-agent": "GitHubCopilotChat/0.40", "x-initiator": "user"}, "copilot-vscode"),
        ({"user-agent": "OpenAI/JS 5.20.1"}, "openai"),
        ({"user-agent": "python-httpx/0.28.1", "x-affinity": "e854d1ee"}, "mistral-vibe"),
        ({"user-agent": "python-httpx/0.28.1"}, "python-httpx"),
        ({"user-agent": "another/1", "x-affinity": "e854d1ee"}, "another"),
        ({}, ""),
    ],
)
def test_clients_are_known_by_what_else_their_requests_state(headers: dict[str, str], client: str) -> None:
    """Their User-Agent is that of an SDK. Copilot CLI states who initiated a request, Vibe its session."""
    assert proxy_request.client_of(headers) == client
