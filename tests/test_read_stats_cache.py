"""Claude Code's stats-cache.json: sums to compare with, which change no total."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, claude, objects, put
from tokenops import events, read_lines, read_stats_cache
from tokenops.read_contract import Intake

OPUS, HAIKU = "claude-opus-4-6", "claude-haiku-4-5-20251001"
DAYS = [
    {"date": "2026-03-01", "tokensByModel": {OPUS: 29812, HAIKU: 7}},
    {"date": "2026-03-02", "tokensByModel": {OPUS: 267663}},
]
LIFETIME = {"inputTokens": 719026, "outputTokens": 37932, "cacheReadInputTokens": 1485904683,
            "cacheCreationInputTokens": 64919693, "webSearchRequests": 3, "costUSD": 0, "contextWindow": 0}  # fmt: skip


def stats(**more: Any) -> bytes:
    made: Json = {
        "version": 1,
        "lastComputedDate": "2026-03-02",
        "dailyActivity": [{"date": "2026-03-01", "messageCount": 9}],
    }
    made |= {"dailyModelTokens": DAYS, "modelUsage": {OPUS: LIFETIME}, "totalSessions": 2, "hourCounts": {"9": 2}}
    made |= {"longestSession": {"sessionId": "secret"}, "firstSessionDate": "2026-02-19T05:37:24.798Z"} | more
    return json.dumps(made).encode()


def place(home: pathlib.Path) -> pathlib.Path:
    return home / ".claude/stats-cache.json"


def steps(home: pathlib.Path) -> Iterator[None]:
    """The file gets a day."""
    put(place(home), stats(dailyModelTokens=DAYS[:1]))
    yield
    put(place(home), stats())
    yield


def read(home: pathlib.Path, content: bytes) -> tuple[list[events.Event], list[str]]:
    path, rejected = put(place(home), content), list[str]()
    take = lambda place, why: rejected.append(f"{place.partition('.json:')[2]}: {why}")  # noqa: E731
    return list(read_stats_cache.read(str(path), read_lines.Cursor(), Intake(on_bad_line=take))), rejected


def test_a_record_per_day_and_model(tmp_path: pathlib.Path) -> None:
    found, rejected = read(tmp_path, stats())
    assert [(event["ts"][:10], event["model"], event["total_tokens"]) for event in found] == [
        ("2026-03-01", OPUS, 29812), ("2026-03-01", HAIKU, 7), ("2026-03-02", OPUS, 267663),
    ]  # fmt: skip
    assert not rejected and len({event["id"] for event in found}) == 3
    day = found[0]
    assert (day["kind"], day["covers"], day["usage"], day["until"]) == (
        "usage",
        "account",
        "partial",
        "2026-03-02T00:00:00.000Z",
    )
    assert (day["source"], day["client"], day["agent_id"]) == ("claude-code-stats-cache", "claude-code", "claude-code")
    assert not day.keys() & set(events.SUMS), "which part of the sum is input is unknown"
    assert 0 < len(day["caveat"]) <= events.LONGEST


def test_a_record_per_model_where_no_days_are_given(tmp_path: pathlib.Path) -> None:
    [total], rejected = read(tmp_path, stats(dailyModelTokens=[]))
    assert not rejected
    assert (total["id"], total["covers"]) == (f"usage:claude-code:stats-cache:{OPUS}", "account")
    assert (total["ts"], total["until"]) == ("2026-02-19T05:37:24.798Z", "2026-03-03T00:00:00.000Z")
    assert {name: total[name] for name in total.keys() & set(events.SUMS)} == {
        "input_tokens": 719026, "output_tokens": 37932, "cache_read_tokens": 1485904683,
        "cache_write_tokens": 64919693, "web_searches": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("day", "why"),
    [
        ({"date": "2026-03-01", "tokensByModel": {OPUS: "many"}}, "dailyModelTokens[0]: tokens is a string; expected a count; skipped"),
        ({"date": "2026-03-01", "tokensByModel": {OPUS: -3}}, "dailyModelTokens[0]: tokens is a negative number; expected a count; skipped"),
        ({"date": "2026-02-30", "tokensByModel": {OPUS: 3}}, "dailyModelTokens[0]: date is a string; expected a time; skipped"),
        ({"date": "secret", "tokensByModel": {OPUS: 3}}, "dailyModelTokens[0]: date is not a day; skipped"),
        ({"tokensByModel": {OPUS: 3}}, "dailyModelTokens[0]: date is not a day; skipped"),
        ({"date": None, "tokensByModel": {OPUS: 3}}, "dailyModelTokens[0]: date is not a day; skipped"),
        ({"date": "2026-03-01", "tokensByModel": {"": 3}}, "dailyModelTokens[0]: a model without a name; skipped"),
        ({"date": "2026-03-01", "tokensByModel": {OPUS: 0}}, ""),
        ({"date": "2026-03-01", "tokensByModel": [3]}, ""),
        ("a day", ""),
    ],
)  # fmt: skip
def test_a_bad_day_leaves_the_others(day: Any, why: str, tmp_path: pathlib.Path) -> None:
    found, rejected = read(tmp_path, stats(dailyModelTokens=[day, DAYS[1]]))
    assert [event["total_tokens"] for event in found] == [267663]
    assert rejected == ([why] if why else [])


def test_it_changes_no_total(run: Run, environment: dict[str, str]) -> None:
    """Transcripts and the cache of them together give what the transcripts give."""
    home = pathlib.Path(environment["HOME"])
    put(home / ".claude/projects/-home-ada-app/s1.jsonl", claude("msg_1"), claude("msg_2", ts="2026-03-02T09:00:00.000Z"))
    reports = ("tok-read | tok-rollup --by day", "tok-read | tok-cost --json --by model", "tok-cat | tok-rollup --by model",
               "tok-cost --log --since 2026-01-01 --json")  # fmt: skip

    def told() -> list[Json]:
        run("tok-sync")
        rows = [row for line in reports for row in objects(run(line).stdout)]
        return [{key: value for key, value in row.items() if key != "as_of"} for row in rows]

    before = told()
    put(place(home), stats())
    assert told() == before and len(before) >= len(reports)
    kept = [event for event in objects(run("tok-cat").stdout) if event["kind"] == "usage"]
    assert sorted(event["total_tokens"] for event in kept) == [7, 29812, 267663]
    assert len(objects(run("tok-read stats-cache").stdout)) == 3


def test_a_file_written_each_day_adds_only_the_new_day(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    added = []
    for _ in steps(home):
        [outcome] = objects(run("tok-sync --json").stdout)
        added.append(outcome["events"])
    put(place(home), stats(lastComputedDate="2026-03-03", totalSessions=3))
    added.append(objects(run("tok-sync --json").stdout)[0]["events"])
    assert added == [2, 1, 0]


@pytest.mark.parametrize("below", ["", "/projects"])
def test_it_lies_where_claude_code_does(below: str, run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "away/stats-cache.json", stats())
    put(tmp_path / "away/projects/-home-ada-app/s1.jsonl", claude("msg_1"))
    found = objects(run("tok-read", env={"CLAUDE_CONFIG_DIR": f"{tmp_path}/away{below}"}).stdout)
    assert sorted({event["source"] for event in found}) == ["claude-code-jsonl", "claude-code-stats-cache"]


def test_another_document_is_refused(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "stats-cache.json", {"version": 1})
    done = run("tok-read stats-cache --root stats-cache.json", status=1)
    assert b"not a stats cache of Claude Code: it has neither dailyModelTokens nor modelUsage; skipped" in done.stderr
