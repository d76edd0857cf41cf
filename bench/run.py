"""Measure what docs/performance.md states, and write it there.

    python bench/run.py [--mib 1024] [--runs 7] [SECTION...]

Generates the logs it reads (below bench/out, which is not committed), fetches the rival it is measured against with
npm, and replaces the tables between the markers in docs/performance.md. Without npm the rival is left out and said so.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import os
import pathlib
import platform
import random
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable

import make_logs
import timing

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
    size = (home / "done").read_text()
    said = "" if binary else "\nThe rival is missing: npm could not bring it.\n"
    return f"Logs: {size}.\n\n" + timing.table(["command", "wall", "processors", "memory"], rows) + said


def start(chosen: argparse.Namespace) -> str:
    """--help of every command, and the shortest useful run of each filter."""
    one = OUT / "one.jsonl"
    one.parent.mkdir(parents=True, exist_ok=True)
    one.write_text(
        '{"v":1,"ts":"2026-11-01T12:00:00.000Z","kind":"turn","id":"x","provider":"anthropic","model":"claude-opus-5","turns":1,"output_tokens":9}\n'
    )
    names = sorted(path.name for path in (ROOT / "bin").glob("tok-*"))
    commands = {"`python3 -c pass`": "python3 -c pass"} | {f"`{name} --help`": f"{name} --help" for name in names}
    commands |= {"`tok-rollup` on one line": f"tok-rollup {one}", "`tok-cost` on one line": f"tok-cost {one}"}
    (OUT / "empty").mkdir(exist_ok=True)
    figures = timing.compared(commands, environment(OUT / "empty"), chosen.runs * 3)
    return timing.table(["command", "wall"], [[name, f"{f.wall * 1000:.0f} ms"] for name, f in figures.items()])


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
        ("the rate of each", lambda: [catalogue.rate_of(event) for event in events]),
        (
            "summed by month and model, and every row's cost",
            lambda: list(
                rollup.merged(rollup.rolled(events, rollup.Plan(("month", "model"), when.UTC, catalogue), print), catalogue)
            ),
        ),
    ):
        begun = time.perf_counter()
        work()
        rows.append([name, f"{time.perf_counter() - begun:.2f} us"])
    return timing.table(["a million turns", "per turn"], rows)


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
    rows = [["`tok-sync`, the first (once)", f"{first[0]:.2f} s", f"{first[2]:.0f} MB"]]
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
    how = f"{read:,} bytes (strace)" if read >= 0 else "not measured: strace is missing"
    note = f"After one appended line of {len(line):,} bytes, `tok-sync` read of that file, {size:,} bytes long: {how}.\n"
    return timing.table(["command", "wall", "memory"], rows) + f"\n{note}"


NOW = "2026-11-22T12:00:00Z"


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
    rows.append(["`tok-sync`, making all summaries (once)", f"{make[0]:.2f} s", f"{make[2]:.0f} MB"])
    same = (
        "The first two answers are equal to the last digit"
        if answers[0] == answers[1] and answers[0]
        else "THE ANSWERS DIFFER"
    )
    return timing.table(["command", "wall", "memory"], rows) + f"\n{same}.\n"


SECTIONS: dict[str, Callable[[argparse.Namespace], str]] = {
    "read": read,
    "start": start,
    "price": price,
    "sync": sync,
    "year": year,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="measure docs/performance.md anew")
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=7)
    chosen = parser.parse_args()
    page = PAGE.read_text()
    machine = f"{platform.system()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    for name in chosen.sections or SECTIONS:
        found = f"Measured {datetime.date.today()} on {machine}; medians of {chosen.runs} runs in turn.\n\n{SECTIONS[name](chosen)}"
        print(f"## {name}\n\n{found}")
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = pattern.sub(lambda match, text=found: f"{match[1]}{text}{match[2]}", page)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
