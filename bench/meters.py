"""Public limit readings (CSV) -> meters, as tok-backtest reads them.

    python bench/meters.py claude_oauth_usage.csv claude_rolling_tokens.csv codex_rate_limits.csv | tok-backtest

The rolling file repeats the poller's last answer; where the poller's own file holds that time, its rows add nothing.
"""

from __future__ import annotations

import csv
import datetime
import pathlib
import sys
from collections.abc import Iterable, Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bin"))

from tokenops import events, jsonl, read_codex, when

Row = dict[str, str]
_MST = datetime.timezone(datetime.timedelta(hours=-7))
_SLOTS = (("five_hour", 300, "five_hour", "5h"), ("weekly", 10_080, "seven_day", "7d"))


def meters(paths: Iterable[str | pathlib.Path]) -> Iterator[events.Event]:
    """The meters of all files."""
    tables = {pathlib.Path(path).name: list(csv.DictReader(open(path, newline=""))) for path in paths}  # noqa: SIM115
    polled = tables.get("claude_oauth_usage.csv", [])
    for row in polled:
        yield from claude(row, row["fetched_at"], 2)
    first = min((datetime.datetime.fromisoformat(row["fetched_at"]) for row in polled), default=None)
    for row in tables.get("claude_rolling_tokens.csv", []):
        if first is None or datetime.datetime.fromisoformat(row["commit_date"]) < first:
            yield from claude(row, row["commit_date"], 3)
    for name, table in tables.items():
        if name.startswith("codex"):
            for row in table:
                yield from codex(row)


def claude(row: Row, at: str, names: int) -> Iterator[events.Event]:
    """The two windows of one poll."""
    ts = when.canonical(at) if "T" in at else at
    for slot in _SLOTS:
        name = slot[names]
        used, resets = row[f"{name}_pct"], row.get(f"{name}_resets_at") or row.get(f"{name}_resets") or ""
        if used:
            yield events.meter(
                "vendor-usage-anthropic",
                "anthropic",
                ts,
                window=slot[0],
                window_minutes=slot[1],
                used=round(float(used) / 100, 6),
                resets_at=_moment(resets, ts),
            )


def _moment(text: str, ts: str) -> str | None:
    """A reset as RFC 3339, or as `Feb 20 09:00 AM MST`."""
    if "T" in text and text[0].isdigit():
        return when.canonical(text)
    if not text.endswith("MST"):
        return None
    at = datetime.datetime.strptime(f"{ts[:4]} {text[:-4]}", "%Y %b %d %I:%M %p")
    return when.canonical(at.replace(tzinfo=_MST).isoformat())


def codex(row: Row) -> Iterator[events.Event]:
    """The two windows of one token_count line, through the reader of Codex's own files."""

    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    limits = {"plan_type": row["plan"] or None}
    slots = {
        slot: {
            "used_percent": number(f"{slot}_pct"),
            "window_minutes": number(f"{slot}_window_min"),
            "resets_at": number(f"{slot}_resets_at"),
            "resets_in_seconds": number(f"{slot}_resets_in_s"),
        }
        for slot in ("primary", "secondary")
    }
    try:
        ts = when.canonical(row["ts"])
    except ValueError:
        return
    for meter in read_codex.meters_of(limits | slots, ts, "openai"):
        yield meter | {"account": row["user"]}


if __name__ == "__main__":
    jsonl.write(meters(sys.argv[1:]), sys.stdout.buffer)
