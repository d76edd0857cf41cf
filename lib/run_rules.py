"""Decides whether a run that ended at a limit is resumed, and keeps the ledger of what tok-run did.

The rules are strict, for nobody watches: at most so many resumes, once per reset, never after another failure, never past a
cap of money, and never while the next call would be billed beyond the plan. The ledger is a file of JSON Lines in the log's
folder, to which lines are only added. It holds no text: no prompt, no reply, no argument.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from tokenops import datadir, headroom, limit_wait, regular, run_logs, show, when
from tokenops.events import Event
from tokenops.limit_wait import Verdict

LEDGER = "runs.jsonl"
# Resets that differ by less are one: vendors compute them anew for each answer.
SAME_MS = 5 * 60_000
# So much of the ledger's end is read: some ten thousand lines.
_TAIL = 4 << 20


class Rules(NamedTuple):
    """What the user allows. `max_usd` None: no cap. `at_most` and `margin` in milliseconds."""

    most: int = 5
    max_usd: Decimal | None = None
    allow_extra: bool = False
    at_most: int = 12 * 3_600_000
    margin: int = 120_000


class Cost(NamedTuple):
    """What a session has cost at list price, and how many of its turns have no price."""

    usd: Decimal
    unpriced: int = 0


def objection(ending: run_logs.Ending, resets: Sequence[int | None], resumes: int, rules: Rules) -> str:
    """Why a run is not resumed, "" if nothing speaks against waiting. `resets`: those after which it was resumed before."""
    if ending.state == run_logs.UNREADABLE:
        return f"its log cannot be read: {ending.why}"
    if ending.state != run_logs.LIMIT:
        return f"it did not end at a limit ({ending.why})"
    if resumes >= rules.most:
        return f"it was resumed {show.plural(resumes, 'time')} already, which is --most"
    if any(is_same(reset, ending.resets_at) for reset in resets):
        return "it was resumed after this reset before, and the vendor refused it again"
    return ""


def is_same(reset: int | None, other: int | None) -> bool:
    """Whether two resets are one. Of two unknown ones nobody can tell, so they are."""
    if reset is None or other is None:
        return reset is other
    return abs(reset - other) < SAME_MS


def objection_to_cost(cost: Cost, rules: Rules) -> str:
    """Why a session is not resumed for what it has cost; "" if it may go on. A cost that is not known is not below a cap."""
    if rules.max_usd is None:
        return ""
    if cost.unpriced:
        return f"{show.plural(cost.unpriced, 'turn')} of it have no price, so --max-usd cannot be kept"
    if cost.usd >= rules.max_usd:
        return f"the session has cost ${cost.usd:.2f} at list price, and --max-usd is ${rules.max_usd:.2f}"
    return ""


# Until there is room.


def is_confirmed(rows: Sequence[Event], since: int) -> bool:
    """Whether a reading that is newer than a refusal shows room."""
    return any(
        row.get("observed_at")
        and when.moment(row["observed_at"]) > since
        and row["recommended_action"] != headroom.WAIT
        and (row["headroom_pct"] or 0) > 0
        for row in rows
    )


def verdict(ending: run_logs.Ending, rows: Sequence[Event], now: int, end: int, rules: Rules) -> Verdict:
    """Whether to wait on: by the readings (`rows`), and at least until the reset that the refusal named.

    `end`: until when one waits at most. UNKNOWN: the refusal named no reset, and no reading shows room.
    """
    by_rows = limit_wait.verdict(rows, now, 0, end, rules.margin)
    is_refusal = by_rows.state in (limit_wait.WAITING, limit_wait.TOO_LONG)
    if (is_refusal and by_rows.resets_at is not None) or (not is_refusal and is_confirmed(rows, ending.at)):
        return by_rows
    if ending.resets_at is None or (is_refusal and now >= ending.resets_at + rules.margin):
        # Only a reading can tell, and it may not come.
        return by_rows if is_refusal and now < end else by_rows._replace(state=limit_wait.UNKNOWN)
    ready = ending.resets_at + rules.margin
    if now >= ready:
        return Verdict(limit_wait.ROOM, by_rows.provider, ending.window, resets_at=ending.resets_at)
    state = limit_wait.TOO_LONG if ready > end else limit_wait.WAITING
    wake = min(ready, now + limit_wait.LOOK_MS)
    return Verdict(state, by_rows.provider, ending.window, resets_at=ending.resets_at, wake=wake)


def objection_to_extra(ending: run_logs.Ending, rows: Sequence[Event], rules: Rules) -> str:
    """Why the next call may be billed beyond the plan; "" if it will not, or may."""
    if not ending.extra or rules.allow_extra or is_confirmed(rows, ending.at):
        return ""
    return "the account pays for use beyond its plan and no reading shows that the plan has room; --allow-extra resumes it"


# The choice before the first start.


def roomiest(candidates: Sequence[tuple[str, Event | None]]) -> str:
    """The name with the most room, the first of several. `candidates`: names, each with its budget row, if there is one.

    A name without a reading comes after those with room, and before those whose limit is used up.
    """

    def room(candidate: tuple[str, Event | None]) -> tuple[int, int]:
        row = candidate[1]
        if row is None or row["headroom_pct"] is None:
            return 1, 0
        return (0 if row["recommended_action"] in (headroom.WAIT, headroom.SWITCH_MODEL) else 2), row["headroom_pct"]

    return max(candidates, key=room)[0]


# The ledger.


def append(folder: str, record: Mapping[str, Any]) -> None:
    """Add a line to the ledger, durably. Raises OSError."""
    path = os.path.join(datadir.ensure_folder(folder), LEDGER)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        datadir.write(fd, orjson.dumps({"v": 1, "kind": "run", **record}) + b"\n", durable=True)
    finally:
        os.close(fd)


def resumed_after(folder: str, client: str, session: str) -> list[int | None]:
    """The resets after which a session was resumed, by this run or earlier ones. Raises OSError."""
    path = os.path.join(folder, LEDGER)
    try:
        with open(path, "rb", opener=regular.opener) as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL, 0))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    resets: list[int | None] = []
    for line in lines:
        try:
            record = orjson.loads(line)
            if record["event"] == "resumed" and (record["client"], record["session_id"]) == (client, session):
                resets.append(when.moment(record["resets_at"]) if record.get("resets_at") else None)
        except (ValueError, KeyError, TypeError):  # the first line is cut, and the last may be
            continue
    return resets
