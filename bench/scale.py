"""A day of a company at one thousandth of its size, against the sizing on paper in docs/scaling.md.

    python bench/scale.py [--developers 10] [--turns 500] [--runs 48]

Each of ten developers has a log of their own, into which a working day's turns come in ten-minute pieces; after each
piece tok-ship sends what is new, as cron would, to a ClickHouse server on loopback that this starts (clickhouse-server on
the path; without one the rows are only counted). Prints what was sent, what is stored and how long questions take, and
the same a thousand times over. Writes the table between the markers of docs/scaling.md with --write.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from decimal import Decimal
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bin")]

import engines  # noqa: E402
import timing  # noqa: E402

PAGE = ROOT / "docs" / "scaling.md"
MODELS = [("anthropic", "claude-opus-4-6"), ("anthropic", "claude-sonnet-4-6"), ("openai", "gpt-5.5")]


def turn(rng: random.Random, who: int, number: int, minute: int) -> dict[str, Any]:
    """One turn as a client's reader makes it: random ids, which is what does not compress."""
    provider, model = rng.choice(MODELS)
    session = f"{who:08x}-{number // 40:04x}-4000-8000-{rng.getrandbits(16):012x}"[:36]
    agent = f"claude-code:project-{(who + number // 40) % 9}"
    ts = f"2026-11-20T{8 + minute // 60:02d}:{minute % 60:02d}:{rng.randrange(60):02d}.{rng.randrange(1000):03d}Z"
    found = {"v": 1, "ts": ts, "kind": "turn", "id": f"msg_{rng.getrandbits(96):024x}", "source": "claude-code-jsonl"}
    found |= {"client": "claude-code", "project": agent[12:], "project_id": f"{who * 7919:012x}", "agent_id": agent}
    found |= {"workflow_id": f"{agent}:{session}", "session_id": session, "provider": provider, "model": model, "turns": 1}
    found |= {"input_tokens": rng.randrange(1, 2000), "cache_read_tokens": rng.randrange(200_000)}
    return found | {"cache_write_tokens": rng.randrange(9000), "output_tokens": rng.randrange(1, 3000)}


class Wire(engines.Receiver):
    """Counts what is sent, and hands it on to a server."""

    def __init__(self, server: str) -> None:
        self.server_url = server
        self.bytes = self.inserts = self.rows_seen = 0
        super().__init__(self._on)

    def _on(self, asked: engines.Asked) -> engines.Reply:
        if "INSERT" in asked.query.get("query", [""])[0]:
            self.bytes += int(asked.headers["content-length"])
            self.inserts += 1
            self.rows_seen += asked.body.count(b"\n")
        self.asked.clear()
        self.taken.clear()
        if self.server_url:
            query = urllib.request.quote(asked.query.get("query", [""])[0])  # type: ignore[attr-defined]
            urllib.request.urlopen(f"{self.server_url}?query={query}", data=asked.body).read()
        return engines.Reply()


def ran(line: list[str], env: dict[str, str], given: bytes = b"") -> bytes:
    """A command's output."""
    return subprocess.run(line, env=env, input=given, capture_output=True, check=True).stdout


def measured(chosen: argparse.Namespace, folder: pathlib.Path, server: engines.Engine | None) -> dict[str, float]:
    """One day, shipped piece by piece."""
    wire = Wire(server.url if server else "")
    path = os.pathsep.join((str(ROOT / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]))
    base = {"PATH": path, "HOME": str(folder), "TZ": "UTC", "XDG_CACHE_HOME": str(folder / "cache")}
    if server:
        ran(["tok-ship", wire.url, "--setup"], base | {"TOKENOPS_HOME": str(folder / "0")})
    rng, spent, counts = random.Random(1), 0.0, [0] * chosen.developers
    later: list[list[dict[str, Any]]] = [[] for _ in counts]
    for run in range(chosen.runs):
        for who in range(chosen.developers):
            env = base | {"TOKENOPS_HOME": str(folder / str(who))}
            upto = chosen.turns * (run + 1) // chosen.runs
            new = [turn(rng, who, n, run * 600 // chosen.runs) for n in range(counts[who], upto)]
            counts[who] = upto
            # One turn in twenty is seen a second time, a piece later and with more output: it was read while it grew.
            given, later[who] = new + later[who], [{**one, "output_tokens": 3001} for one in new if rng.random() < 0.05]
            ran(["tok-log", "append"], env, b"".join(json.dumps(one).encode() + b"\n" for one in given))
            begun = time.perf_counter()
            ran(["tok-ship", wire.url], env)
            spent += time.perf_counter() - begun
    found: dict[str, float] = {"inserts": wire.inserts, "rows": wire.rows_seen, "wire": wire.bytes}
    found["ship"] = spent / chosen.runs / chosen.developers
    if server:
        found |= stored(server, base, folder, chosen.developers)
    wire.close()
    return found


def stored(server: engines.Engine, base: dict[str, str], folder: pathlib.Path, developers: int) -> dict[str, float]:
    """What the server holds, whether its numbers are ours, and how long its answers take."""
    server.ask("OPTIMIZE TABLE tokenops_events FINAL")
    (size,) = server.ask(
        "SELECT sum(bytes) AS b, sum(rows) AS r FROM system.parts WHERE active AND table = 'tokenops_events'"
    )
    begun = time.perf_counter()
    (there,) = server.ask("SELECT sum(turns) AS t, toString(sum(priced_usd)) AS usd FROM tokenops_counted")
    took = time.perf_counter() - begun
    turns, usd = 0, Decimal(0)
    for who in range(developers):
        env = base | {"TOKENOPS_HOME": str(folder / str(who))}
        (row,) = map(json.loads, ran(["bash", "-c", "tok-cat | tok-rollup --by none | tok-cost --json"], env).splitlines())
        turns, usd = turns + row["turns"], usd + Decimal(row["cost_usd"])
    if (int(there["t"]), Decimal(there["usd"])) != (turns, usd):
        raise SystemExit(f"THE NUMBERS DIFFER: {there} there, {turns} turns and {usd} here")
    return {"disk": float(size["b"]), "held": float(size["r"]), "join": took, "turns": turns}


def table(found: dict[str, float], chosen: argparse.Namespace) -> str:
    """What was measured, a thousand times as much, and what the paper says."""
    many = 10_000 / chosen.developers
    turns = chosen.turns * 10_000
    rows = [
        ["turns a day", f"{found.get('turns', 0):,.0f}", f"{found.get('turns', 0) * many:,.0f}", f"{turns:,}"],
        ["rows sent", f"{found['rows']:,.0f}", f"{found['rows'] * many:,.0f}", f"{turns * 1.05:,.0f}"],
        ["inserts a day", f"{found['inserts']:,.0f}", f"{found['inserts'] * many:,.0f}", f"{chosen.runs * 10_000:,}"],
        [
            "on the wire",
            f"{found['wire'] / 1e6:.1f} MB",
            f"{found['wire'] * many / 1e9:.2f} GB",
            f"{turns * 1.05 * 300 / 1e9:.2f} GB",
        ],
    ]
    if "disk" in found:
        disk = found["disk"]
        rows.append(["on disk", f"{disk / 1e6:.1f} MB", f"{disk * many / 1e9:.2f} GB", f"{turns * 1.05 * 200 / 1e9:.2f} GB"])
        rows.append(["the join of the day", f"{found['join']:.2f} s", "", ""])
    rows.append(["a run of tok-ship", f"{found['ship'] * 1000:.0f} ms", "", ""])
    return timing.table([f"{chosen.developers} developers, one day", "measured", f"times {many:,.0f}", "on paper"], rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, usual in (("developers", 10), ("turns", 500), ("runs", 48)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tokenops-scale-"))
    try:
        with contextlib.ExitStack() as stack:
            engine = None
            if engines.SERVER:
                running = engines.server(folder / "server")
                engine = next(running)
                stack.callback(lambda: next(running, None))
            text = table(measured(chosen, folder, engine), chosen)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if chosen.write:
        head, _, rest = PAGE.read_text().partition("<!-- scale -->\n")
        PAGE.write_text(f"{head}<!-- scale -->\n{text}{rest[rest.index('<!-- end -->') :]}")


if __name__ == "__main__":
    main()
