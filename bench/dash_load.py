"""What the dashboard takes: its answers, one after another, while the log grows and while it does not."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = {
    "the page": "/dashboard?since=24h",
    "the page, 7 days": "/dashboard?since=7d",
    "the page, 30 days": "/dashboard?since=30d",
    "the page, a year": "/dashboard?since=365d",
    "a session": "/dashboard?session=bench",
    "`/api/budget`": "/api/budget",
    "`/api/spend/summary`": "/api/spend/summary",
    "`/api/status`": "/api/status",
}
# After an answer the server takes in what is new; the next reader comes later.
PAUSE_S = 0.5
# After so long it has done all that waited; nobody opens a page every second.
AT_REST_S = 5


class Server:
    """A running tok-dash."""

    def __init__(self, port: int, log: pathlib.Path, now: str, ready_s: float, process: int) -> None:
        self.port, self.log, self.now, self.ready_s, self.process = port, log, now, ready_s, process
        self.number = time.time_ns()

    def cpu_ms(self) -> float:
        """How long the server has computed, in milliseconds; other work on the machine does not count. 0 where unknown."""
        with contextlib.suppress(OSError):
            threads = pathlib.Path(f"/proc/{self.process}/task").glob("*/schedstat")
            return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6
        return 0.0

    def get(self, path: str, etag: str = "") -> tuple[float, int, str]:
        """Milliseconds, bytes and name of an answer, as a browser asks for it."""
        token = (self.log / "dash.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/html", "Accept-Encoding": "gzip"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.connect()
        begun = time.perf_counter()
        connection.request("GET", path, headers=headers | ({"If-None-Match": etag} if etag else {}))
        answer = connection.getresponse()
        size = len(answer.read())
        took = 1000 * (time.perf_counter() - begun)
        connection.close()
        if answer.status not in (200, 304):
            raise SystemExit(f"{path}: {answer.status}")
        return took, size, answer.getheader("ETag") or ""

    def body(self, path: str) -> bytes:
        """An answer as it is."""
        token = (self.log / "dash.token").read_text().strip()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept": "text/html"})
            return connection.getresponse().read()

    def grow(self, env: dict[str, str]) -> None:
        """One more turn, a second ago."""
        self.number += 1
        about = {
            "v": 1,
            "ts": f"{self.now[:17]}{self.number % 60:02d}.000Z",
            "kind": "turn",
            "id": f"msg_bench{self.number}",
        }
        about |= {"source": "claude-code-jsonl", "client": "claude-code", "project": "project-1", "session_id": "bench"}
        about |= {"provider": "anthropic", "model": "claude-opus-4-6", "turns": 1, "input_tokens": 3, "output_tokens": 70}
        line = json.dumps(about).encode() + b"\n"
        subprocess.run(["tok-log", "append"], input=line, env=env, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def running(env: dict[str, str], log: pathlib.Path, now: str) -> Iterator[Server]:
    """A tok-dash that has gathered its first page."""
    begun = time.perf_counter()
    process = subprocess.Popen([str(ROOT / "bin/tok-dash"), "--port", "0"], env=env, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        port = int(process.stderr.readline().split(b"http://127.0.0.1:")[1].split(b"/")[0])
        server = Server(port, log, now, 0.0, process.pid)
        server.get("/dashboard")  # waits for what is gathered at the start
        server.ready_s = time.perf_counter() - begun
        time.sleep(2 * PAUSE_S)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def answers(server: Server, env: dict[str, str], runs: int) -> list[list[str]]:
    """A row for each page, after the log has grown and where nothing has changed: its time, and what of that is computing."""
    rows = []
    for name, path in PAGES.items():
        etag = at_rest(server, path)
        fresh, cpu, same, same_cpu, size = [], [], [], [], 0
        for _ in range(runs):
            time.sleep(PAUSE_S)
            server.grow(env)
            before = server.cpu_ms()
            took, size, etag = server.get(path, etag)
            cpu.append(server.cpu_ms() - before)
            fresh.append(took)
            time.sleep(PAUSE_S)
            before = server.cpu_ms()
            took, _, etag = server.get(path, etag)
            same_cpu.append(server.cpu_ms() - before)
            same.append(took)
        after = [f"{statistics.median(fresh):.0f} ms", f"{statistics.median(cpu):.0f} ms"]
        rows.append([name, *after, *(f"{statistics.median(times):.1f} ms" for times in (same, same_cpu)), f"{size:,}"])
    return rows


def at_rest(server: Server, path: str) -> str:
    """The name of a page's answer, when its slow parts are there, and nothing waits to be computed anew."""
    etag, before = server.get(path)[2], ""
    while etag != before or b"data-pending" in server.body(path):
        time.sleep(2 * PAUSE_S)
        before, etag = etag, server.get(path, etag)[2]
    return etag


def painted(server: Server, env: dict[str, str], grows: bool) -> str:
    """When Chromium first paints something, from the click on a link on; "" where there is none. `grows`: the log, before."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return ""
    if not chromium:
        return ""
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(5):
            time.sleep(AT_REST_S)
            if grows:
                server.grow(env)
            link = subprocess.run(["tok-dash", "url"], env=env, capture_output=True, check=True).stdout.decode().split()[0]
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(link)
            page.wait_for_timeout(500)
            times.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"))
            page.close()
        browser.close()
    return f"{statistics.median(times):.0f} ms"


def weight(server: Server) -> str:
    """What the page weighs with all that it asks for, packed and plain."""
    packed = sum(server.get(path)[1] for path in ("/dashboard", "/dashboard/page.css", "/dashboard/page.js"))
    plain = sum(len(server.body(path)) for path in ("/dashboard", "/dashboard/page.css", "/dashboard/page.js"))
    return f"{packed:,} bytes ({plain:,} unpacked)"


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    with running(dict(os.environ), folder, os.environ["TOKENOPS_NOW"]) as found:
        for row in answers(found, dict(os.environ), 25):
            print(" | ".join(row))
        print([painted(found, dict(os.environ), grows) for grows in (False, True)], weight(found), f"{found.ready_s:.1f} s")
