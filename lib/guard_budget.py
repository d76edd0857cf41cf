"""What a session has cost so far: its own transcript and its subagents' taken in, then the log asked."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tokenops import costs, pricing, read_clients, rollup, store, sync, when

# No session is older.
_SPAN_MS = 30 * when.DAY


def spent(folder: str, said: Mapping[str, Any], catalogue: pricing.Catalogue, now: int) -> Decimal:
    """Dollars at list price, of what has a price. Raises OSError."""
    session, transcript = str(said.get("session_id")), str(said.get("transcript_path") or "")
    paths = [path for path in (transcript, *_subagents(transcript)) if path and os.path.isfile(path)]
    if paths:
        sync.run(folder, [(read_clients.BY_NAME["claude"], paths)], jobs=1, partial=True)
    sums = rollup.Rollup(rollup.Plan((), when.UTC, catalogue))
    for record in store.holding(folder, f'"session_id":"{session}"', when.stamp(now - _SPAN_MS)):
        if record["kind"] == "turn":
            sums.add(record)
    rows = costs.priced(sums.rows(), catalogue)
    return Decimal(costs.total_of(rows).get("cost_usd", "0"))


def _subagents(transcript: str) -> list[str]:
    """The transcripts of a session's subagents, which lie in a folder of its name."""
    return sorted(glob.glob(os.path.join(glob.escape(transcript.removesuffix(".jsonl")), "subagents", "*.jsonl")))
