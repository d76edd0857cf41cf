"""Whole commands, timed fairly: in turn with their rivals, medians of many runs, memory of all processes together."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Figure(NamedTuple):
    """Medians of some runs: seconds on the clock and on the processors, peak memory of all processes in MB."""

    wall: float
    cpu: float
    memory: float
    runs: int


def once(line: str, env: Mapping[str, str], watched: bool = False) -> tuple[float, float, float]:
    """Wall seconds, processor seconds, and (if watched) peak proportional memory of the process group in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    process = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", line],
        env=dict(env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    if watched:
        watcher.start()
    process.wait()
    wall = time.perf_counter() - begun
    if watched:
        watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak[0]


def _watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    """Sum of the proportional set sizes, 50 times a second. Linux only; elsewhere it stays 0."""
    while process.poll() is None:
        total = 0
        for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
            try:
                if name.isdigit() and os.getpgid(int(name)) == process.pid:
                    with open(f"/proc/{name}/smaps_rollup", encoding="ascii") as file:
                        total += next(int(text.split()[1]) for text in file if text.startswith("Pss:"))
            except (OSError, StopIteration, ValueError):
                continue
        peak[0] = max(peak[0], total / 1024)
        time.sleep(0.02)


def compared(commands: Mapping[str, str], env: Mapping[str, str], runs: int = 7) -> dict[str, Figure]:
    """Figures of several commands, run in turn: A B C A B C ..., after one round that is not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    memory = {name: once(line, env, watched=True)[2] for name, line in commands.items()}
    for _ in range(runs):
        for name, line in commands.items():
            times[name].append(once(line, env)[:2])
    return {
        name: Figure(statistics.median(w for w, _ in seen), statistics.median(c for _, c in seen), memory[name], runs)
        for name, seen in times.items()
    }


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(titles) + " |", "|" + "|".join("---" for _ in titles) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
