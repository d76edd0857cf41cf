"""What other requests wait while a vendor answers with bombs, depth or drips: tok-proxy before a vendor on loopback.

    python bench/hostile.py

Each attack runs by itself beside requests of two kilobytes, one after another. A row has their p50 and p99, the slowest, the
proxy's memory at its highest so far, whether every byte of the hostile answers arrived, and what was written of them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20
AT_ONCE = 4  # hostile answers at the same time
SECONDS = 3.0  # of ordinary requests beside each attack, at least
PLAIN = json.dumps(
    {"id": "x", "model": "gpt-5.4", "text": "x" * 1900, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
).encode()


def packed(piece: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(piece) for _ in range(times)) + packer.flush()


Attack = tuple[str, str, bytes, float]  # content type, encoding, bytes, and the pause between 16 pieces of them
SSE, DOCUMENT = "text/event-stream", "application/json"
ATTACKS: dict[str, Callable[[], Attack]] = {
    "16 MiB of audio, which nobody counts": lambda: ("audio/mpeg", "", b"x" * (16 * MIB), 0),
    "gzip, 66 MiB of small events": lambda: (SSE, "gzip", packed(b'data: {"type":"ping"}\n\n' * 10_000, 300), 0),
    "gzip, 64 MiB without an event's end": lambda: (SSE, "gzip", packed(b"data:\n" * 10_000, 1100), 0),
    "gzip, 64 MiB of blanks": lambda: (DOCUMENT, "gzip", packed(b" " * MIB, 64), 0),
    "gzip, 256 MiB of zeros": lambda: (DOCUMENT, "gzip", packed(b"0" * MIB, 256), 0),
    "gzip, 9 MiB of counts": lambda: (SSE, "gzip", packed(b'data: {"usage":{"prompt_tokens":7}}\n\n' * 1000, 250), 0),
    "16 MiB of SSE without an event's end": lambda: (SSE, "", b"data:\n" * (16 * MIB // 6), 0),
    "16 MiB of lone CR": lambda: (SSE, "", b"\r" * (16 * MIB), 0),
    "8 MiB of nested arrays": lambda: (DOCUMENT, "", b"[" * (8 * MIB), 0),
    "a type nested 1,000 deep": lambda: (SSE, "", b'data: {"type":' + b"[" * 1000 + b"]" * 1000 + b"}\n\n", 0),
    "a stream that drips": lambda: (SSE, "", b'data: {"choices":[]}\n\n' * 16, 0.15),
}
if importlib.util.find_spec("brotli"):
    ATTACKS["brotli, 64 MiB of one line"] = lambda: (SSE, "br", __import__("brotli").compress(b"data: x\n" * (8 * MIB)), 0)


def serve() -> None:
    """The vendor: prints its port, and answers the path of each attack, and all others with two kilobytes."""
    attack_of = functools.cache(lambda number: list(ATTACKS.values())[number - 1]())
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    print(listener.getsockname()[1], flush=True)

    def answer(connection: socket.socket) -> None:
        with connection:
            request = connection.recv(1 << 16)
            while not request.endswith(b"{}"):
                request += connection.recv(1 << 16)
            number = re.search(rb"/hostile/(\d+)", request)
            plain = ("application/json", "", PLAIN, 0.0)
            kind, encoding, body, pause = attack_of(int(number[1])) if number else plain
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n" + (f"Content-Encoding: {encoding}\r\n" if encoding else "")
            connection.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            step = -(-len(body) // 16) if pause else len(body)
            for at in range(0, len(body), step):
                connection.sendall(body[at : at + step])
                time.sleep(pause)

    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def ask(port: int, path: str) -> tuple[int, int, float]:
    """The stated and the real length of an answer's body, and how long it took in ms."""
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + b"{}")
        first = connection.recv(1 << 16)
        stated = re.search(rb"Content-Length: (\d+)", first)
        got = len(first) - first.index(b"\r\n\r\n") - 4
        while data := connection.recv(1 << 18):
            got += len(data)
    return int(stated[1]) if stated else -1, got, (time.perf_counter() - begun) * 1000


def attack(port: int, number: int) -> None:
    """Fetch hostile answers, all at once; prints whether all of each came."""
    whole: list[bool] = []

    def one() -> None:
        stated, got, _ = ask(port, f"/openai/v1/hostile/{number}")
        whole.append(stated == got)

    threads = [threading.Thread(target=one) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("yes" if whole == [True] * AT_ONCE else "NO")


def beside(port: int, other: subprocess.Popen[bytes] | None) -> list[float]:
    """How long ordinary requests take, one after another, while another process is at work."""
    until, taken = time.perf_counter() + SECONDS, []
    while time.perf_counter() < until or (other is not None and other.poll() is None):
        taken.append(ask(port, "/openai/v1/plain")[2])
    return sorted(taken)


def rows() -> list[list[str]]:
    """A row for the undisturbed run, and one for each attack."""
    table = []
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        vendor = stack.enter_context(subprocess.Popen([*OWN, "serve"], stdout=subprocess.PIPE))
        stack.callback(vendor.kill)
        assert vendor.stdout is not None
        vendor_port = int(vendor.stdout.readline())
        config = pathlib.Path(home, ".config/tokenops/config.yaml")
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"providers": {"openai": f"http://127.0.0.1:{vendor_port}"}}))
        environment = {"PATH": os.environ["PATH"], "HOME": home, "TZ": "UTC", "TOKENOPS_HOME": f"{home}/log"}
        command = [sys.executable, str(ROOT / "bin/tok-proxy"), "--port", "0"]
        proxy = stack.enter_context(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
        stack.callback(proxy.terminate)
        assert proxy.stderr is not None
        port = int(proxy.stderr.readline().split(b"http://127.0.0.1:")[1].split(b";")[0])
        for number, name in enumerate(["undisturbed", *ATTACKS]):
            if number:
                ask(vendor_port, f"/hostile/{number}")  # the vendor makes it now, and not while others wait
            line = [*OWN, "attack", str(port), str(number)]
            other = subprocess.Popen(line, stdout=subprocess.PIPE) if number else None
            taken = beside(port, other)
            passed = other.communicate()[0].decode().strip() if other is not None else ""
            status = pathlib.Path(f"/proc/{proxy.pid}/status").read_text()
            peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
            times = (taken[len(taken) // 2], taken[int(len(taken) * 0.99)], taken[-1])
            row = [name, *(f"{each:.1f} ms" for each in times), f"{peak:.0f} MB", passed]
            table.append([*row, written(pathlib.Path(home, "log"), number)])
            print(" | ".join(table[-1]), file=sys.stderr, flush=True)
    return table


def written(log: pathlib.Path, number: int) -> str:
    """What the log says of an attack's answers, once they are written."""
    if not number:
        return ""
    lines: list[dict[str, str]] = []
    for _ in range(100):
        every = [json.loads(line) for path in log.glob("events/*.jsonl") for line in path.read_bytes().splitlines()]
        lines = [line for line in every if line.get("path") == f"/v1/hostile/{number}"]
        if len(lines) >= AT_ONCE:
            break
        time.sleep(0.1)
    return ", ".join(sorted({f"{line.get('usage', 'exact')}: {line.get('usage_reason', '')}" for line in lines}))


COLUMNS = [f"{AT_ONCE} hostile answers at once", "p50", "p99", "slowest", "memory", "every byte passed", "recorded as"]

OWN = [sys.executable, str(pathlib.Path(__file__).resolve())]

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["attack", port, number]:
            attack(int(port), int(number))
        case _:
            print(" | ".join(COLUMNS), file=sys.stderr)
            rows()
