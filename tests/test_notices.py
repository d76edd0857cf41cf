"""What a user is told about the windows of plans: once each, and again only after a reset."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, examples, lines, objects
from tokenops import headroom, limit_notice, when

NOW = when.moment("2026-11-21T09:30:00.000Z")
HOUR = 3_600_000


def row(used: float | None, resets: int = 2 * HOUR, action: str = "", reason: str = headroom.ROOM, **more: Any) -> Json:
    action = action or (headroom.WAIT if used is not None and used >= 1 else headroom.CONTINUE)
    window: Json = {
        "window": "five_hour",
        "binds": True,
        "action": action,
        "used": used,
        "resets_at": when.stamp(NOW + resets),
    }
    budget: Json = {"provider": "anthropic", "headroom_pct": None if used is None else round(100 - 100 * used)}
    return budget | {"recommended_action": action, "reason": reason, "windows": [window | more]}


def told(*rows: tuple[int, Json]) -> list[str]:
    """The events of a history: minutes from now, and the row then."""
    memory: dict[str, Any] = {}
    events = []
    for minutes, each in rows:
        notices, memory = limit_notice.due(json.loads(json.dumps(memory)), [each], NOW + minutes * 60_000)
        events += [notice["event"] for _, notice in notices]
    return events


LIKELY = row(0.6, action=headroom.SLOW_DOWN, reason=headroom.LIKELY_SOON)
HISTORIES: list[tuple[str, list[tuple[int, Json]], list[str]]] = [
    ("little used", [(0, row(0.3)), (5, row(0.5))], []),
    ("each threshold once", [(0, row(0.81)), (5, row(0.82)), (9, row(0.93)), (10, row(0.95))], ["threshold", "threshold"]),
    ("two at once are one", [(0, row(0.95))], ["threshold"]),
    ("used up", [(0, row(0.5)), (5, row(1.0)), (6, row(1.0))], ["threshold"]),
    ("refused below a hundred percent", [(0, row(0.9)), (5, row(0.92, action=headroom.WAIT))], ["threshold", "threshold"]),
    ("a forecast, once", [(0, LIKELY), (5, LIKELY)], ["forecast"]),
    ("a forecast and a threshold are one", [(0, row(0.85, action=headroom.SLOW_DOWN, reason=headroom.LIKELY_SOON))], ["threshold"]),
    ("a reset in time", [(0, row(0.9)), (130, row(0.1, 7 * HOUR))], ["threshold", "reset"]),
    ("a reset that nobody waits for", [(0, row(0.4)), (130, row(0.1, 7 * HOUR))], []),
    ("room again", [(0, row(1.0)), (130, row(0.0, 7 * HOUR))], ["threshold", "room_again"]),
    ("room again, not read yet", [(0, row(1.0)), (130, row(None))], ["threshold", "room_again"]),
    ("not read, before its reset", [(0, row(1.0)), (60, row(None))], ["threshold"]),
    ("given back before its time", [(0, row(0.9)), (30, row(0.2, 5 * HOUR))], ["threshold", "unexpected_reset"]),
    ("given back, the reset stays", [(0, row(0.9)), (30, row(0.5))], ["threshold", "unexpected_reset"]),
    ("out, and given back", [(0, row(1.0)), (30, row(0.5))], ["threshold", "room_again"]),
    ("a small correction", [(0, row(0.9)), (30, row(0.88))], ["threshold"]),
    ("a reset that is rounded otherwise", [(0, row(0.9)), (1, row(0.9, 2 * HOUR + 60_000))], ["threshold"]),
    ("and again in the next window", [(0, row(0.9)), (130, row(0.9, 7 * HOUR))], ["threshold", "reset", "threshold"]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "rows", "events"), HISTORIES, ids=[case[0] for case in HISTORIES])
def test_histories(what: str, rows: list[tuple[int, Json]], events: list[str]) -> None:
    assert told(*rows) == events


@examples(60)
@given(st.lists(st.sampled_from((0.1, 0.79, 0.8, 0.9, 0.97, 1.0)), max_size=20))
def test_a_window_that_only_fills_tells_each_share_once(shares: list[float]) -> None:
    rows = [(at, row(used)) for at, used in enumerate(sorted(shares))]
    assert len(told(*rows)) <= len(limit_notice.SHARES)
    assert told(*rows, *rows[-1:]) == told(*rows)


@pytest.mark.parametrize("entry", [None, [], [1, 2], ["x", 0, 0, False, False], {"a": 1}, [0, 0, 0, 1, False]])
def test_damaged_memory_is_none(entry: object) -> None:
    notices, _ = limit_notice.due({"anthropic||five_hour|": entry}, [row(0.85)], NOW)
    assert [notice["event"] for _, notice in notices] == ["threshold"]


def reading(used: float, at: str) -> Json:
    record: Json = {
        "v": 1,
        "ts": at,
        "kind": "meter",
        "id": f"meter:{at}",
        "source": "claude-statusline",
        "client": "claude-code",
    }
    record |= {"provider": "anthropic", "window": "five_hour", "window_minutes": 300, "used": used, "observed_at": at}
    return record | {"resets_at": "2026-11-21T11:00:00.000Z"}


def test_the_command(run: Run) -> None:
    env = {"TOKENOPS_NOW": "2026-11-21T09:30:00Z"}
    run("tok-log append", lines([reading(0.92, "2026-11-21T09:29:00.000Z")]))
    failing = run("tok-budget -q --notify 'cat > first; false'", env=env, status=None)
    assert b"runs again for Anthropic, 5 h limit: 92% used; resets 11:00 the next time" in failing.stderr
    for _ in range(2):
        run("tok-budget -q --notify 'cat >> notices'", env=env, status=None)
    (notice,) = objects(run("cat notices").stdout)
    assert (notice["event"], notice["provider"], notice["used"]) == ("threshold", "anthropic", 0.92)
    assert notice["text"] == "Anthropic, 5 h limit: 92% used; resets 11:00"
    later = {"TOKENOPS_NOW": "2026-11-21T11:10:00Z"}
    run("tok-log append", lines([reading(0.01, "2026-11-21T11:09:00.000Z") | {"resets_at": "2026-11-21T16:00:00.000Z"}]))
    run("tok-budget -q --notify 'cat >> notices'", env=later, status=None)
    assert objects(run("cat notices").stdout)[1]["text"] == "Anthropic, 5 h limit: was reset, 1% used"
