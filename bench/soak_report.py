"""The end of a soak: the log read back, every check, and the table."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import sys
import time
from decimal import Decimal
from typing import Any, Protocol

import soak_checks
import timing
from soak_checks import Book, Check, check
from soak_clock import Clock
from soak_load import HOURLY, Load
from soak_parts import Browser, Commands, Server, quantiles, traced, undisturbed

Json = dict[str, Any]
SINCE = ("--since", "2026-10-01")
# Flat: what may be added to the first quarter's median (after the warming up) by the last quarter. Descriptors come and go
# with connections; what counts is that in the end, when all have left, there are as many as before the first came.
MORE_DESCRIPTORS = 12
# Python's heap has its high-water mark: over a log that does not change tok-mcp goes from 71 to 86 MB in the first 600 calls
# and to 87 MB in the next 3,000; the dashboard holds the records of the days that are open, at a few kilobytes each.
MORE_MB = {"tok-proxy": 6.0, "tok-mcp": 10.0, "tok-dash": 16.0}


class Soak(Protocol):
    """What of a run the report looks at."""

    clock: Clock
    commands: Commands
    env: dict[str, str]
    faults: list[str]
    filled: list[tuple[float, float]]
    ports: dict[str, int]
    seconds: float
    servers: dict[str, Server]
    times: float
    told: str
    wrong: list[str]


def objects(data: bytes) -> list[Json]:
    return [json.loads(line) for line in data.splitlines()]


async def told(soak: Soak, load: Load, ran: float) -> int:
    """Check everything, print the table; the exit status."""
    load.wire.close()
    left = time.monotonic()
    checks = await read_back(soak, load)
    checks += flat(soak)
    checks.append(await settled(soak, left + 30))
    checks.append(await healthy(soak))
    checks += await ended(soak)
    checks.insert(0, happened(soak, load))
    text = page(soak, load, ran, checks)
    soak.told = text
    print(text)
    bad = [one for one in checks if not one.holds]
    for one in bad:
        print(f"soak: FAILED: {one.what}: {one.seen}", file=sys.stderr)
    return int(bool(bad))


async def read_back(soak: Soak, load: Load) -> list[Check]:
    """The log, beside the ledger."""
    run = soak.commands.run
    await asyncio.sleep(6)  # the proxy tries every five seconds to write what it kept
    for _ in range(2):
        await run("tok-sync")
    records = objects((await run("tok-cat", allowed=(0, 1))).out)
    kills = soak.servers["tok-proxy"].down
    turns = [one for one in records if one["kind"] == "turn"]
    book = soak_checks.compared(load.ledger, turns, kills)
    checks = [
        check("no turn is missing", book.missing, f"{len(book.found):,} of {len(load.ledger.turns):,}{_excuses(book, load)}"),
        check("no turn is stored twice", book.doubled + _twice(records), f"{len(records):,} records and ids"),
        check("counts, model, state and time are exact", book.changed, f"{len(book.found):,} compared"),
        check("no turn is invented", book.strangers, "0"),
        check("the proxy passed every byte unchanged", load.wire.wrong + load.vendor.wrong, f"{load.wire.asked:,} requests, {load.wire.compared:,} bytes of answers"),
    ]  # fmt: skip
    checks += await totals(soak, load, book)
    checks += await lived(soak, load)
    checks.append(await verified(soak))
    wrong = soak.commands.wrong + load.wrong + soak.wrong + [w for b in load.browsers for w in b.wrong]
    wrong += [f"tok-mcp: {why}" for at, why in load.agent.failed if not any(a <= at <= b + 2 for a, b in soak.filled)]
    ran = sum(n.total() for n in soak.commands.statuses.values())
    checks.append(check("no traceback, undocumented status or failed answer", wrong, f"{ran:,} commands"))
    return checks


def _excuses(book: Book, load: Load) -> str:
    """Those of which nobody can know."""
    maybe = sum(turn.state == "maybe" for turn in load.ledger.turns)
    said = f"; {maybe} were cut off when the proxy was killed" if maybe else ""
    return said + (f"; {book.excused} ended in the second before and are in no client's log" if book.excused else "")


def _twice(records: list[Json]) -> list[str]:
    known: set[str] = set()
    return [one["id"] for one in records if one["id"] in known or known.add(one["id"])]  # type: ignore[func-returns-value]


async def totals(soak: Soak, load: Load, book: Book) -> list[Check]:
    """Sums by model, by hour and by day, of a pipe and of the log's summaries, beside sums made here."""
    run = soak.commands.run
    env = soak.env
    pipe = await asyncio.create_subprocess_exec(
        "bash", "-o", "pipefail", "-c", "tok-cat | tok-rollup --by model | tok-cost --json",
        env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    piped = objects((await pipe.communicate())[0])
    counts, dollars = soak_checks.sums(book.found), soak_checks.bills(book.found)
    checks = []
    for name, said in (
        ("tok-cat | tok-rollup | tok-cost", piped),
        ("tok-cost --log", objects((await run("tok-cost", "--log", "--by", "model", *SINCE, "--json", allowed=(0, 1))).out)),
    ):
        have = soak_checks.rows(said, "model")
        wrong = soak_checks.differences(counts, have[0]) + soak_checks.differences(dollars, have[1])
        checks.append(
            check(
                f"`{name}`: tokens and dollars per model",
                wrong,
                f"${sum(dollars.values(), Decimal(0)):,.2f}, exact",
            )
        )
    for unit in ("hour", "day"):
        said = objects((await run("tok-cost", "--log", "--by", unit, *SINCE, "--json", allowed=(0, 1))).out)
        want, have = soak_checks.by_time(book.found, unit, soak.env["TZ"]), soak_checks.rows(said, "bucket")
        wrong = soak_checks.differences(want[0], have[0]) + soak_checks.differences(want[1], have[1])
        checks.append(check(f"the same by {unit} in {soak.env['TZ']}, end of summer time", wrong, f"{len(want[0])} {unit}s"))
    return checks


async def lived(soak: Soak, load: Load) -> list[Check]:
    """What the processes that lived through it all say, beside what a new one says."""
    since = f"?since={SINCE[1]}"
    fresh = objects((await soak.commands.run("tok-cost", "--log", "--by", "none", *SINCE, "--json", allowed=(0, 1))).out)
    counts, dollars = soak_checks.rows(fresh, "nothing")
    _, _, body = await load.browsers[1].get(f"/api/spend/summary{since}")
    agent = await load.agent.call("tokenops_spend_summary", since=SINCE[1])
    checks = []
    for name, said in (("tok-dash", json.loads(body)), ("tok-mcp", agent)):
        have = soak_checks.rows(_rows(said), "nothing")
        wrong = soak_checks.differences(counts, have[0]) + soak_checks.differences(dollars, have[1])
        checks.append(
            check(
                f"{name} agrees with a new process",
                wrong,
                f"{sum(c[0] for c in counts.values()):,} turns",
            )
        )
    return checks


def _rows(said: Json) -> list[Json]:
    """The rows of an answer."""
    return next(
        (value for value in said.values() if isinstance(value, list) and value and isinstance(value[0], dict)), [said]
    )


async def verified(soak: Soak) -> Check:
    """tok-log verify, after compaction moved what kills tore."""
    before = objects((await soak.commands.run("tok-log", "verify", "--json", allowed=(0, 1))).out)
    torn = [
        one for one in before if "torn" in one["problem"] or "not JSON" in one["problem"] or "half-written" in one["problem"]
    ]
    await soak.commands.run("tok-log", "compact", allowed=(0, 1))
    after = objects((await soak.commands.run("tok-log", "verify", "--json", allowed=(0, 1))).out)
    wrong = [f"{one['place']}: {one['problem']}" for one in [*(one for one in before if one not in torn), *after]]
    wrong = [one for one in wrong if "half-written" not in one]  # younger than a minute: the next run removes it
    return check("tok-log verify is clean after compact", wrong, f"before: {len(torn)} damaged lines or files")


def flat(soak: Soak) -> list[Check]:
    """Descriptors and memory of the last life of each server."""
    wrong, seen = [], []
    for name, server in soak.servers.items():
        warm = min(60.0, soak.seconds / 6)
        for what, most in (("descriptors", float(MORE_DESCRIPTORS)), ("resident", MORE_MB[name])):
            found = soak_checks.trend(server.samples, what, warm)
            if found is None:
                wrong.append(f"{name}: too few looks at it")
                continue
            word = "descriptors" if what == "descriptors" else "MB"
            seen.append(f"{name} {found.first:.0f} to {found.last:.0f} {word}")
            if found.last > found.first + most:
                wrong.append(seen[-1])
    return [check("descriptors and memory are flat after a minute", wrong, "; ".join(seen))]


async def healthy(soak: Soak) -> Check:
    """How long they run does not depend on what the clock was set to."""
    wrong = []
    for name, port in soak.ports.items():
        said = json.loads((await Browser(port, {}).get("/healthz"))[2])
        ran = time.monotonic() - soak.servers[name].began
        if said["status"] != "ok" or abs(said["uptime_s"] - ran) > 5:
            wrong.append(f"{name}: {said} after {ran:.0f} s")
    return check("health and uptime are right", wrong, "/healthz")


async def settled(soak: Soak, until: float) -> Check:
    """Once nobody is connected any more, and the pool of upstream connections is over (20 s)."""
    seen: dict[str, tuple[int, int]] = {}
    while True:
        for name, server in soak.servers.items():
            before = server.samples[0].descriptors
            server.sample(time.monotonic())
            seen[name] = (before, server.samples[-1].descriptors)
        more = [f"{name}: {a} before, {b} after" for name, (a, b) in seen.items() if b > a + 1]
        if not more or time.monotonic() > until:
            break
        await asyncio.sleep(1)
    said = "; ".join(f"{name} {a} before, {b} after" for name, (a, b) in seen.items())
    return check("descriptors are closed after all clients left", more, said)


async def ended(soak: Soak) -> list[Check]:
    """Asked to end, each server does, with status 0, and said nothing that nobody expects."""
    wrong = []
    for name, server in soak.servers.items():
        if name == "tok-mcp" and server.process and server.process.stdin:
            server.process.stdin.close()
            status: int | None = await asyncio.wait_for(server.process.wait(), 30)
        else:
            status = await server.end(signal.SIGTERM)
        said = server.errors.read_text(errors="replace")
        if status != 0 or traced(said):
            wrong.append(f"{name}: status {status}: {said[-400:]}")
    return [check("servers exit with status 0, no traceback", wrong, "three servers")]


def happened(soak: Soak, load: Load) -> Check:
    """That what was to go wrong did: or the rest would say nothing."""
    said = soak.servers["tok-proxy"].errors.read_text(errors="replace")
    wrong = (
        []
        if "events are kept in memory" in said and "can be written again" in said
        else ["the proxy never found the disk full"]
    )
    statuses = soak.commands.statuses["tok-sync"]
    if not statuses[-signal.SIGKILL]:
        wrong.append("no tok-sync was killed")
    kept = sum(turn.wired and any(a < turn.until_s < b for a, b in soak.filled) for turn in load.ledger.turns)
    seen = (
        f"{len(soak.faults)} faults; tok-sync killed {statuses[-signal.SIGKILL]} times; {kept} turns while the disk was full"
    )
    return check("every planned fault happened", wrong, f"{seen}; {load.deleted} files deleted after reading")


def page(soak: Soak, load: Load, ran: float, checks: list[Check]) -> str:
    """The section of docs/performance.md."""
    machine = f"{platform.system()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    lines = [f"{time.strftime('%Y-%m-%d')}, {machine}: {soak.clock.rate * ran / 3600:.1f} hours in {ran:.0f} s.\n"]
    rows = []
    for name, hourly in HOURLY.items():
        done = load.done.get(name, 0)
        rows.append(
            [name, f"{hourly:,.0f}", f"{hourly * soak.times / 3600:.2f}", f"{done:,}", f"{done / ran * 3600 / hourly:.0f}"]
        )
    lines.append(timing.table(["request", "per hour, heavy user", "target per second", "done", "times a heavy user"], rows))
    still = {name: server.still for name, server in soak.servers.items()}
    pages, same = (
        undisturbed([took for browser in load.browsers for took in browser.times.get(status, [])], still["tok-dash"])
        for status in (200, 304)
    )
    rows = [["added by tok-proxy to the first byte", quantiles(undisturbed(load.wire.added, still["tok-proxy"]))]]
    rows += [[f"`{name}`", quantiles(soak.commands.times[name])] for name in ("tok-statusline", "tok-budget", "tok-sync")]
    rows += [
        ["tok-mcp", quantiles(undisturbed(load.agent.times, still["tok-mcp"]))],
        ["tok-dash, after a new turn", quantiles(pages)],
        ["tok-dash, unchanged", quantiles(same)],
    ]
    lines.append(timing.table(["latency under this load", "p50 / p99"], rows))
    held = [[one.what.replace("|", "\\|"), "yes" if one.holds else "NO", one.seen.replace("|", "\\|")] for one in checks]
    lines.append(timing.table(["check", "holds", "details"], held))
    said = [f"    {count:5d}  {text}" for text, count in soak.commands.said.most_common(12)]
    print("\n".join(["soak: said by commands:", *said]), file=sys.stderr)
    return "\n".join(lines)
