"""Measure the figures of docs/performance.md and write them there.

    python bench/run.py [--mib 1024] [--runs 7] [SECTION...]

Generates the logs it reads (below bench/out, which is not committed), installs the rival with npm, and replaces the tables
between the markers in docs/performance.md. Without npm the rival is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import datetime
import gc
import json
import os
import pathlib
import platform
import random
import re
import shutil
import socket
import stat
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import dash_load
import hostile
import make_clients
import make_logs
import ten
import timing
import top_load

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "out"
PAGE = ROOT / "docs" / "performance.md"
RIVAL = "ccusage@20.0.24"


def environment(home: pathlib.Path) -> dict[str, str]:
    """Our commands first, a home of the bench's own, UTC."""
    path = os.pathsep.join((str(ROOT / "bin"), os.path.dirname(sys.executable), os.environ.get("PATH", "")))
    kept = {name: os.environ[name] for name in ("LANG", "npm_config_registry") if name in os.environ}
    return kept | {"PATH": path, "HOME": str(home), "TZ": "UTC", "XDG_CACHE_HOME": str(OUT / "cache")}


def rival() -> str:
    """The native binary of ccusage, or "" where npm cannot bring it."""
    folder = OUT / "rival"
    if shutil.which("npm") is None:
        return ""
    if not (folder / "node_modules").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), RIVAL], check=False, capture_output=True
        )
    for path in folder.glob("node_modules/@ccusage/*/bin/ccusage"):
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)
    return ""


def logs(mib: int) -> pathlib.Path:
    """A home with that much of Claude Code's logs."""
    home = OUT / f"home-{mib}"
    if not (home / "done").exists():
        shutil.rmtree(home, ignore_errors=True)
        found = make_logs.write(home, mib * 2**20, 1)
        (home / "done").write_text(repr(found))
    return home


def read(chosen: argparse.Namespace) -> str:
    """The whole pipe over 1 GiB of Claude Code's logs, beside ccusage."""
    home = logs(chosen.mib)
    commands = {
        "`tok-read claude \\| tok-rollup --by month,model \\| tok-cost --json`": "tok-read claude | tok-rollup --by month,model | tok-cost --json"
    }
    if binary := rival():
        commands[f"`ccusage claude monthly --offline --json` ({RIVAL}, native)"] = (
            f"{binary} claude monthly --offline --json"
        )
    figures = timing.compared(commands, environment(home), chosen.runs)
    rows = [[name, f"{f.wall:.2f} s", f"{f.cpu:.2f} s", f"{f.memory:.0f} MB"] for name, f in figures.items()]
    said = "" if binary else "\nNot compared with ccusage: npm could not install it.\n"
    size = ast.literal_eval((home / "done").read_text())
    intro = f"Logs: {size['files']:,} files, {size['lines']:,} lines, {size['bytes'] / 1e9:.2f} GB.\n\n"
    return intro + timing.table(["command", "wall", "CPU", "memory"], rows) + said


def start(chosen: argparse.Namespace) -> str:
    """--help of every command, and the shortest useful run of each filter."""
    one = OUT / "one.jsonl"
    one.parent.mkdir(parents=True, exist_ok=True)
    one.write_text(
        '{"v":1,"ts":"2026-11-01T12:00:00.000Z","kind":"turn","id":"x","provider":"anthropic","model":"claude-opus-5","turns":1,"output_tokens":9}\n'
    )
    names = sorted(path.name for path in (ROOT / "bin").glob("tok*") if path.is_file())
    commands = {"`python3 -c pass`": "python3 -c pass"} | {f"`{name}`": f"{name} --help" for name in names}
    commands |= {"`tok-rollup` on one line": f"tok-rollup {one}", "`tok-cost` on one line": f"tok-cost {one}"}
    (OUT / "empty").mkdir(exist_ok=True)
    figures = timing.compared(commands, environment(OUT / "empty"), chosen.runs * 3)
    return timing.table(["`--help`, or as written", "ms"], [[name, f"{f.wall * 1000:.0f}"] for name, f in figures.items()])


def price(chosen: argparse.Namespace) -> str:
    """A million turns in memory, of every provider, tier and date, priced one by one and as a group."""
    sys.path.insert(0, str(ROOT / "bin"))
    from tokenops import pricing, rollup, when

    catalogue = pricing.load()
    rng = random.Random(1)
    models = [(p, m) for p, body in catalogue.providers.items() for m in body["models"]]
    kinds = []
    for number in range(10_000):
        provider, model = rng.choice(models)
        at = when.stamp(1_751_328_000_000 + rng.randrange(44_000_000) * 1000)
        event = {"v": 1, "ts": at, "kind": "turn", "id": str(number), "provider": provider, "model": model, "turns": 1}
        event |= {
            "input_tokens": rng.randrange(300_000),
            "cache_read_tokens": rng.randrange(300_000),
            "output_tokens": rng.randrange(9000),
        }
        if rng.random() < 0.1:
            event["tier"] = rng.choice(["batch", "priority", "fast"])
        kinds.append(event)
    events = [{**kinds[n % 10_000], "id": n} for n in range(1_000_000)]
    gc.disable()
    rows = []
    for name, work in (
        ("the rate of each turn", lambda: [catalogue.rate_of(event) for event in events]),
        (
            "sums by month and model, each row priced",
            lambda: list(
                rollup.merge_rows(
                    rollup.roll_up(events, rollup.Grouping(("month", "model"), when.UTC, catalogue), print), catalogue
                )
            ),
        ),
    ):
        begun = time.perf_counter()
        work()
        rows.append([name, f"{time.perf_counter() - begun:.2f} us"])
    return timing.table(["pricing a million turns (once)", "per turn"], rows)


def sync(chosen: argparse.Namespace) -> str:
    """Runs of tok-sync over the same gigabyte: the first, one that finds nothing new, one that finds one turn."""
    home = logs(chosen.mib)
    log = OUT / "log-sync"
    env = environment(home) | {"TOKENOPS_HOME": str(log)}
    shutil.rmtree(log, ignore_errors=True)
    first = timing.once("tok-sync", env, watched=True)
    commands = {"`python3 -c pass`": "python3 -c pass", "`tok-sync`, nothing new": "tok-sync"}
    if binary := rival():
        commands[f"`ccusage claude daily --offline --json` ({RIVAL}, native)"] = f"{binary} claude daily --offline --json"
    figures = timing.compared(commands, env, chosen.runs)
    rows = [["`tok-sync`, first run (once)", f"{first[0]:.2f} s", f"{first[2]:.0f} MB"]]
    rows += [[name, f"{f.wall:.3f} s", f"{f.memory:.0f} MB"] for name, f in figures.items()]
    path = max((home / ".claude/projects").rglob("*.jsonl"), key=lambda path: path.stat().st_size)
    size = path.stat().st_size
    line = path.read_bytes().splitlines()[-1] + b"\n"
    try:
        with path.open("ab") as file:
            file.write(line)
        said = subprocess.run(
            ["strace", "-f", "-y", "-e", "trace=read", "tok-sync"], env=env, capture_output=True, check=False
        )
        read = sum(int(n) for n in re.findall(rf"{re.escape(str(path))}>.*= (\d+)$", said.stderr.decode(), re.MULTILINE))
    except FileNotFoundError:
        read = -1
    finally:
        os.truncate(path, size)
    how = f"{read:,} bytes (strace)" if read >= 0 else "(not measured, strace is missing)"
    note = f"One line of {len(line):,} bytes was appended to a file of {size:,} bytes. `tok-sync` then read {how} of that file.\n"
    return timing.table(["command", "wall", "memory"], rows) + f"\n{note}"


KINDS = {"turn": "turns", "usage": "totals", "meter": "readings"}


def every_client(turns: int) -> tuple[pathlib.Path, dict[str, list[int]]]:
    """A home with that many turns of each client, and how many files and bytes each has."""
    home = OUT / f"home-clients-{turns}"
    if not (home / "done").exists():
        shutil.rmtree(home, ignore_errors=True)
        (home / "done").write_text(json.dumps(make_clients.write(home, turns, 1)))
    sizes: dict[str, list[int]] = json.loads((home / "done").read_text())
    return home, sizes


def kinds_of(line: str, env: dict[str, str]) -> collections.Counter[str]:
    """How many records of each kind a command gives."""
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, check=False)
    return collections.Counter(str(json.loads(record)["kind"]) for record in done.stdout.splitlines())


def clients(chosen: argparse.Namespace) -> str:
    """Each client's logs alone, then those of all."""
    home, sizes = every_client(20_000)
    log = OUT / "log-clients"
    env = environment(home) | {"TOKENOPS_HOME": str(log)}
    shutil.rmtree(log, ignore_errors=True)
    figures = timing.compared({name: f"tok-read {name}" for name in sizes}, env, chosen.runs)
    rows = []
    for name, f in figures.items():
        size, found = sizes[name][1], kinds_of(f"tok-read {name}", env)
        says = ", ".join(f"{found[kind]:,} {word}" for kind, word in KINDS.items() if found[kind])
        cost = f"{f.cpu / found.total() * 1e6:,.0f} us" if found.total() > 100 else "-"
        rows.append([f"`{name}`", f"{size / 1e6:,.1f} MB", says, f"{f.wall:.2f} s", cost, f"{f.memory:.0f} MB"])
    columns = ["client", "logs", "records", "wall", "CPU per record", "memory"]
    first = timing.once("tok-sync", env, watched=True)
    whole = timing.compared({"`tok-read all`": "tok-read all", "`tok-sync`, nothing new": "tok-sync"}, env, chosen.runs)
    last = [["`tok-sync`, first run (once)", f"{first[0]:.2f} s", f"{first[1]:.2f} s", f"{first[2]:.0f} MB"]]
    last += [[name, f"{f.wall:.2f} s", f"{f.cpu:.2f} s", f"{f.memory:.0f} MB"] for name, f in whole.items()]
    together = timing.table(["all clients", "wall", "CPU", "memory"], last)
    return f"{timing.table(columns, rows)}\n{together}"


NOW = "2026-11-22T12:00:00Z"
HOOK = {"session_id": "s1", "hook_event_name": "PreToolUse", "tool_name": "Read", "tool_input": {"file_path": "/etc/hosts"}}
AFTER = {"hook_event_name": "PostToolUse", "tool_name": "Bash", "tool_input": {"command": "make"}}


def year(chosen: argparse.Namespace) -> str:
    """A log of a million turns over a year."""
    log = OUT / "log-year"
    home = OUT / "empty"
    home.mkdir(exist_ok=True)
    env = environment(home) | {"TOKENOPS_HOME": str(log), "TOKENOPS_NOW": NOW}
    if not (log / "done").exists():
        shutil.rmtree(log, ignore_errors=True)
        with subprocess.Popen(["tok-log", "append"], env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin
            make_logs.write_year(process.stdin, NOW)
        (log / "done").touch(mode=0o600)
    pipe = "tok-cat --since 365d | tok-rollup --by month,model | tok-cost"
    short = "tok-cost --log --since 365d --by month,model"
    shutil.rmtree(log / "summaries", ignore_errors=True)
    make = timing.once("tok-sync", env, watched=True)
    commands = {
        f"`{pipe}`".replace("|", "\\|"): pipe,
        f"`{short}`": short,
        "`tok-cost --log --today`": "tok-cost --log --today",
    }
    figures = timing.compared(commands, env, chosen.runs)
    answers = [
        subprocess.run(["bash", "-c", f"{line} | jq -S 'del(.as_of)'"], env=env, capture_output=True, check=False).stdout
        for line in (pipe, short)
    ]
    rows = [[name, f"{f.wall:.2f} s", f"{f.memory:.0f} MB"] for name, f in figures.items()]
    rows.append(["`tok-sync`, writing all summaries (once)", f"{make[0]:.2f} s", f"{make[2]:.0f} MB"])
    same = "The first two results are identical" if answers[0] == answers[1] and answers[0] else "THE RESULTS DIFFER"
    return timing.table(["command", "wall", "memory"], rows) + f"\n{same}.\n"


def ten_million(chosen: argparse.Namespace) -> str:
    """A log of ten million turns over three years, by two machines. It takes 7 GB of disk."""
    log, home = OUT / "log-ten", OUT / "empty"
    home.mkdir(parents=True, exist_ok=True)
    env = environment(home) | {"TOKENOPS_HOME": str(log), "TOKENOPS_NOW": NOW}
    rows = []
    if not (log / "done").exists():
        shutil.rmtree(log, ignore_errors=True)
        ten.write(log / "events", NOW)
        first = timing.once("tok-sync", env, watched=True)
        rows.append(["`tok-sync`, writing all summaries (once)", *ten.cells(*first)])
        (log / "done").touch(mode=0o600)
    figures = timing.compared({f"`{line}`": line for line in ten.COMMANDS}, env, min(chosen.runs, 5))
    rows += [[name, *ten.cells(f.wall, f.cpu, f.memory)] for name, f in figures.items()]
    return timing.table(["command", "wall", "CPU", "memory"], rows)


def budget(chosen: argparse.Namespace) -> str:
    """Headroom out of a log of a million turns and ten thousand meters, beside a gigabyte of the client's own logs."""
    year(argparse.Namespace(runs=1))
    log, home = OUT / "log-budget", logs(chosen.mib)
    env = environment(home) | {"TOKENOPS_HOME": str(log), "TOKENOPS_NOW": NOW}
    if not (log / "done").exists():
        shutil.rmtree(log, ignore_errors=True)
        shutil.copytree(OUT / "log-year", log)
        (log / "done").unlink()
        with subprocess.Popen(["tok-log", "append"], env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin
            make_logs.write_meters(process.stdin, NOW)
        timing.once("tok-sync", env)
        (log / "done").touch(mode=0o600)
    said = {
        "session_id": "s1",
        "transcript_path": str(next(home.glob(".claude/projects/*/*.jsonl"))),
        "model": {"id": "claude-opus-4-8", "display_name": "Opus 4.8"},
        "rate_limits": {"five_hour": {"used_percentage": 40, "resets_at": 1_795_356_000}},
    }
    status = f"tok-statusline <<<'{json.dumps(said)}'"
    at_once = f"for n in {{1..20}}; do {status} & done; wait"

    def just_synced() -> None:
        os.utime(log / "synced")

    def long_ago() -> None:
        os.utime(log / "synced", (0, 0))

    def stale() -> None:
        (log / "statusline.json").unlink(missing_ok=True)

    rows = []
    for name, line, before in (
        ("`tok-budget`, log synced in the last two seconds", "tok-budget --json", just_synced),
        ("`tok-budget`, importing first", "tok-budget --json", long_ago),
        ("`tok-burn`, log synced in the last two seconds", "tok-burn --log --json", just_synced),
        ("`tok-burn`, importing first", "tok-burn --log --json", long_ago),
        ("`tok-burn --hours 168`, importing first", "tok-burn --log --json --hours 168", long_ago),
        ("`tok-statusline`, warm", status, just_synced),
        ("`tok-statusline`, cold", status, stale),
        ("20 `tok-statusline` at once, total", at_once, stale),
        ("`tok-guard hook`, a Read", f"tok-guard hook <<<'{json.dumps(HOOK)}'", just_synced),
        ("`tok-guard hook`, after a call of Bash", f"tok-guard hook <<<'{json.dumps(HOOK | AFTER)}'", just_synced),
        ("`python -c pass`", "python -c pass", just_synced),
    ):
        timing.once(line, env)
        times = []
        for _ in range(3 * chosen.runs):
            before()
            times.append(1000 * timing.once(line, env)[0])
        times.sort()
        rows.append([name, f"{statistics.median(times):.0f} ms", f"{times[-1]:.0f} ms"])
    return timing.table(["command", "median", "slowest"], rows) + "\n" + _agent(env, chosen.runs)


def _agent(env: dict[str, str], runs: int) -> str:
    """The same by tok-mcp."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    for _ in range(min(runs, 5)):
        (OUT / "log-budget/synced").touch()
        done = subprocess.run([sys.executable, ROOT / "bench/agent_load.py"], env=env, capture_output=True, check=True)
        for name, value in json.loads(done.stdout).items():
            found[name].append(value)
    told = {name: statistics.median(values) for name, values in found.items()}
    rows = [
        ["first answer, including start", f"{told['first']:,.0f} ms"],
        ["median of 500 consecutive answers", f"{told['p50']:.1f} ms"],
        ["99th percentile", f"{told['p99']:.1f} ms"],
        ["slowest", f"{told['slowest']:.0f} ms"],
        ["answer after two idle seconds", f"{told['apart']:.0f} ms"],
        ["200 at once, total", f"{told['at_once']:,.0f} ms"],
    ]
    return timing.table(["`tok-mcp`, session_budget", "time"], rows)


class Running:
    """Processes that are ended at the end, each by its own id."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, core: int, line: list[str], **given: Any) -> subprocess.Popen[bytes]:
        """A process on one processor."""
        pinned = ["taskset", "-c", str(core), *line] if shutil.which("taskset") else line
        process = subprocess.Popen(
            pinned, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **given
        )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End them all."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def dash(chosen: argparse.Namespace) -> str:
    """The dashboard of a log of a million turns, beside a gigabyte of the client's own logs."""
    log, home = OUT / "log-dash", logs(chosen.mib)
    env = environment(home) | {"TOKENOPS_HOME": str(log), "TOKENOPS_NOW": NOW}
    if not (log / "done").exists():
        if not (OUT / "log-budget/done").exists():
            budget(argparse.Namespace(runs=1, mib=chosen.mib))
        shutil.rmtree(log, ignore_errors=True)
        shutil.copytree(OUT / "log-budget", log)
        shutil.rmtree(log / "summaries")
        timing.once("tok-sync", env)
    with dash_load.running(env, log, NOW) as server:
        rows = dash_load.answers(server, env, chosen.runs)
        paints = [dash_load.painted(server, env, grows) or "no chromium here" for grows in (False, True)]
        size = dash_load.weight(server)
    told = [
        ["start until the first page is ready", f"{server.ready_s:.1f} s"],
        ["first paint after following a link", paints[0]],
        ["the same, just after a new turn", paints[1]],
    ]
    told.append(["sent for it: page, style, script", size])
    columns = ["answer", "after a new turn", "of that computing", "unchanged", "computing", "bytes sent"]
    return timing.table(columns, rows) + "\n" + timing.table(["in Chromium", ""], told)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def answers(port: int, seconds: float) -> bool:
    """Whether somebody listens there within a time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.1)
    return False


def installed(package: str, command: str) -> str:
    """A rival's command, in an environment of its own; "" where it cannot be had."""
    folder = ROOT / ".venv-rivals" / command
    path = folder / "bin" / command
    if not path.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, package], check=False)
    return str(path) if path.exists() else ""


def peers(vendor: int, running: Running) -> dict[str, tuple[int, str]]:
    """Each proxy that can be had here, running on the second processor: its port, and the path to ask."""
    folder = OUT / "peers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made: dict[str, tuple[int, str]] = {}
    env = environment(folder / "home")
    config = folder / "home/.config/tokenops/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"providers:\n  openai: http://127.0.0.1:{vendor}\n")
    port = free_port()
    running.start(1, [str(ROOT / "bin/tok-proxy"), "--port", str(port)], env=env | {"TOKENOPS_HOME": str(folder / "log")})
    made["tok-proxy"] = (port, "/openai/v1/chat/completions")
    if nginx := shutil.which("nginx") or shutil.which("/usr/sbin/nginx"):
        port = free_port()
        (folder / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;\n"
            "events {} http { access_log off; upstream vendor { server 127.0.0.1:%d; keepalive 64; }\n"
            "server { listen 127.0.0.1:%d; location / { proxy_pass http://vendor; proxy_http_version 1.1;\n"
            'proxy_set_header Connection ""; proxy_buffering off; keepalive_requests 1000000; } } }\n' % (vendor, port)
        )
        running.start(1, [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")])
        made["nginx (no metering)"] = (port, "/v1/chat/completions")
    if mitmdump := installed("mitmproxy", "mitmdump"):
        port = free_port()
        line = [mitmdump, "-q", "--mode", f"reverse:http://127.0.0.1:{vendor}", "-p", str(port)]
        running.start(1, [*line, "--set", f"confdir={folder}/mitm", "--set", "stream_large_bodies=1"])
        made["mitmproxy, reverse"] = (port, "/v1/chat/completions")
    if litellm := installed("litellm[proxy]==1.106.2", "litellm"):
        port = free_port()
        model = {"model": "openai/gpt-5.4", "api_base": f"http://127.0.0.1:{vendor}/v1", "api_key": "sk-bench"}
        (folder / "litellm.yaml").write_text(
            json.dumps({"model_list": [{"model_name": "gpt-5.4", "litellm_params": model}]})
        )
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
        quiet["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # loopback only, and nothing behind it
        line = [litellm, "--config", str(folder / "litellm.yaml"), "--port", str(port), "--host", "127.0.0.1"]
        running.start(1, line, env=os.environ | quiet)
        made["LiteLLM's proxy"] = (port, "/v1/chat/completions")
    return {name: there for name, there in made.items() if answers(there[0], 60)}


def proxied(chosen: argparse.Namespace) -> str:
    """What a proxy adds: the vendor and the clients on one processor, the proxy on the other."""
    running = Running()
    vendor = free_port()
    tool = str(ROOT / "bench/proxy_load.py")
    try:
        running.start(0, [sys.executable, tool, "serve", str(vendor)])
        if not answers(vendor, 10):
            raise SystemExit("the vendor did not start")
        asked = {"direct": (vendor, "/v1/chat/completions")} | peers(vendor, running)

        def measure(what: str, port: int, path: str) -> dict[str, float]:
            line = ["taskset", "-c", "0"] if shutil.which("taskset") else []
            done = subprocess.run([*line, sys.executable, tool, what, str(port), path], capture_output=True, check=False)
            found: dict[str, float] = json.loads(done.stdout) if done.returncode == 0 else {}
            return found

        figures: dict[str, dict[str, list[float]]] = {name: collections.defaultdict(list) for name in asked}
        for _ in range(min(chosen.runs, 5)):
            for what in ("latency", "events", "load"):
                for name, (port, path) in asked.items():
                    for key, value in measure(what, port, path).items():
                        figures[name][f"{what} {key}"].append(value)
    finally:
        running.stop()
    medians = {name: {key: statistics.median(values) for key, values in each.items()} for name, each in figures.items()}
    direct, rows = medians["direct"], []
    for name, found in medians.items():
        cells = []
        for key in ("latency p50", "latency p99", "events p50", "events p99"):
            value = found.get(key)
            less = 0.0 if name == "direct" else direct[key]
            cells.append("failed" if value is None else f"{'' if name == 'direct' else '+'}{value - less:.2f} ms")
        rate = found.get("load requests")
        rows.append([name, *cells, "failed" if rate is None else f"{rate:,.0f}"])
    columns = ["", "request p50", "request p99", "event p50", "event p99", "requests/s"]
    return timing.table(columns, rows)


def context(chosen: argparse.Namespace) -> str:
    """A session of a thousand turns in a log of sixty days with 4,000 turns each, all with their sizes."""
    log, home = OUT / "log-context", OUT / "empty"
    home.mkdir(parents=True, exist_ok=True)
    env = environment(home) | {"TOKENOPS_HOME": str(log), "TOKENOPS_NOW": NOW}
    if not (log / "done").exists():
        shutil.rmtree(log, ignore_errors=True)
        with subprocess.Popen(["tok-log", "append"], env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin
            make_logs.write_contexts(process.stdin, NOW, days=60, turns=4000, longest=1000)
        timing.once("tok-sync", env)  # writes the summaries
        (log / "done").touch(mode=0o600)
    name = make_logs.LONGEST_SESSION
    commands = {f"`tok-context {name[:8]}`": f"tok-context {name[:8]}", "`tok-context`": "tok-context"}
    commands |= {f"`tok-trace {name[:8]}`": f"tok-trace {name[:8]}", "`tok-context --since 7d`": "tok-context --since 7d"}
    figures = timing.compared(commands, env, chosen.runs)
    rows = [[line, f"{1000 * f.cpu:.0f} ms", f"{f.memory:.0f} MB"] for line, f in figures.items()]
    return timing.table(["command", "CPU", "memory"], rows)


def live(chosen: argparse.Namespace) -> str:
    """tok-top's processor time, idle and beside sessions at work."""
    rows = [
        [name, f"{share.percent:.1f} %", f"{share.megabytes:.0f} MB"]
        for name, share in top_load.shares(top_load.SESSIONS, top_load.SECONDS, top_load.FILES).items()
    ]
    return timing.table(["tok-top", "of one processor", "memory"], rows)


SECTIONS: dict[str, Callable[[argparse.Namespace], str]] = {
    "read": read,
    "start": start,
    "price": price,
    "sync": sync,
    "clients": clients,
    "year": year,
    "ten": ten_million,
    "budget": budget,
    "context": context,
    "live": live,
    "dash": dash,
    "proxy": proxied,
    "hostile": lambda chosen: timing.table(hostile.COLUMNS, hostile.rows()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the figures of docs/performance.md")
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=7)
    chosen = parser.parse_args()
    page = PAGE.read_text()
    machine = f"{platform.system()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    for name in chosen.sections or SECTIONS:
        found = f"{datetime.date.today()}, {machine}.\n\n{SECTIONS[name](chosen)}"
        print(f"## {name}\n\n{found}")
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = pattern.sub(lambda match, text=found: f"{match[1]}{text}{match[2]}", page)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
