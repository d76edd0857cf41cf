"""What a percent was worth on public series of readings with tokens or costs beside them.

    python bench/worth_public.py claude_oauth_usage.csv claude_rolling_tokens.csv codex_rate_limits.csv codex_rate_limits_2.csv

The rows of Codex hold the tokens of each turn, priced here from the catalogue. The Claude file holds the cost of the last
five hours, which near a reset is the cost of that window: a piece for each window.
"""

from __future__ import annotations

import csv
import pathlib
import sys
from collections.abc import Iterable, Iterator

import meters  # it puts our library on the path
from meters import Row

from tokenops import events, jsonl, limit_carry, limit_percent, limit_pieces, limit_windows, pricing, when
from tokenops.limit_pieces import LAGS, Rise
from tokenops.limit_windows import MINUTE, Key

_NEAR_MS = 20 * MINUTE
# What is repeated is a reading of the same totals.
_COUNTS = (("input_tokens", "last_input"), ("cache_read_tokens", "last_cached"), ("output_tokens", "last_output"))


def turns(rows: Iterable[Row]) -> Iterator[events.Event]:
    """The turns of rows of Codex, each once."""
    last: dict[tuple[str, str], str] = {}
    for row in rows:
        session = row["user"], row["session"]
        if row["last_input"] and last.get(session) != row["total_tokens"]:
            last[session] = row["total_tokens"]
            counts = {name: int(float(row[field] or 0)) for name, field in _COUNTS}
            counts["input_tokens"] = max(counts["input_tokens"] - counts["cache_read_tokens"], 0)
            try:
                ts = when.canonical(row["ts"])
            except ValueError:
                continue
            labels = {"kind": "turn", "session_id": f"{row['user']}-{row['session']}", "client": "codex"}
            payer = {"provider": "openai", "account": row["user"], "model": row["model"], "turns": 1}
            yield {"ts": ts} | labels | payer | counts


def codex(tables: Iterable[list[Row]]) -> list[Rise]:
    """The rises of all users of Codex."""
    rows = [row for table in tables for row in table]
    readings = limit_windows.readings_of(meter for row in rows for meter in meters.codex(row))
    spends = limit_carry.spends(turns(rows), pricing.load())
    return list(limit_pieces.rises(limit_windows.series(readings), spends))


def claude(rows: Iterable[Row]) -> Iterator[Rise]:
    """A rise for each five-hour window with a cost near its reset."""
    last: dict[int, tuple[int, float, float]] = {}
    for row in rows:
        if row["5h_pct"] and row["w5h_cost"] and row["5h_resets"]:
            ts = when.canonical(row["commit_date"])
            resets = meters._moment(row["5h_resets"], ts)
            at = when.moment(ts)
            if resets and 0 < when.moment(resets) - at < _NEAR_MS:
                slot = round(when.moment(resets) / (5 * MINUTE))
                last[slot] = at, float(row["5h_pct"]), float(row["w5h_cost"])
    key = Key("anthropic", "", "five_hour", "")
    for slot, (at, percent, usd) in sorted(last.items()):
        resets_at = slot * 5 * MINUTE
        if percent < 100:
            costs = (usd,) * len(LAGS)
            yield Rise(key, 300, resets_at, resets_at - 300 * MINUTE, at, percent, costs, 0.0, 0.0, 1.0, 1, {})


def main() -> None:
    tables = {}
    for path in map(pathlib.Path, sys.argv[1:]):
        with path.open(newline="") as file:
            tables[path.name] = list(csv.DictReader(file))
    rises = codex(table for name, table in tables.items() if name.startswith("codex"))
    rises += claude(tables.get("claude_rolling_tokens.csv", []))
    now = max((rise.at for rise in rises), default=0)
    jsonl.write(limit_percent.rows(rises, now, limit_percent.FIELDS), sys.stdout.buffer)


if __name__ == "__main__":
    main()
