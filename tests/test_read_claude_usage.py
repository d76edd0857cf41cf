"""Claude Code's cache of its subscription's usage."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, objects, put
from tokenops import wire_limits

FETCHED = 1_795_253_400_000  # 2026-11-21T09:30:00Z
NOW = "2026-11-21T09:30:00.000Z"


def usage(five: Any = 42.0, weekly: Any = 7, **more: Any) -> Json:
    """A report, as the vendor writes it."""
    resets = {"five_hour": "2026-11-21T12:00:00.556309+00:00", "seven_day": "2026-11-25T04:00:00.000000+00:00"}
    given = {"five_hour": five, "seven_day": weekly}
    body: Json = {key: {"utilization": value, "resets_at": resets[key]} for key, value in given.items() if value is not None}
    return body | {"seven_day_opus": None, "seven_day_sonnet": None} | more


def cache(home: pathlib.Path, fetched: object = FETCHED, **given: Any) -> None:
    document = {
        "numStartups": 4,
        "projects": {"/home/ada/secret-project": {"history": ["secret words"]}},
        "oauthAccount": {
            "organizationUuid": "org-1",
            "emailAddress": "ada@example.org",
            "organizationRateLimitTier": "default_claude_max_5x",
        },
        "cachedUsageUtilization": {"fetchedAtMs": fetched, "accountUuid": "acc-1", "utilization": usage(**given)},
    }
    put(home / ".claude.json", json.dumps(document).encode())


def steps(home: pathlib.Path) -> Iterator[None]:
    """A cache that is refreshed."""
    cache(home)
    yield
    cache(home, FETCHED + 600_000, five=45.0)
    yield


def test_the_readings(run: Run, environment: dict[str, str]) -> None:
    fable = {
        "kind": "weekly_scoped",
        "percent": 33,
        "resets_at": "2026-11-25T04:00:00Z",
        "scope": {"model": {"id": None, "display_name": "Claude Fable"}},
    }
    cache(
        pathlib.Path(environment["HOME"]), limits=[fable, {"kind": "session", "percent": 40}, {"kind": "new", "percent": 9}]
    )
    done = run("tok-read claude-usage")
    found = sorted(objects(done.stdout), key=lambda meter: str(meter["window"]))
    assert [(meter["window"], meter["used"], meter["resets_at"][:16], meter.get("scope")) for meter in found] == [
        ("five_hour", 0.42, "2026-11-21T12:00", None),
        ("weekly", 0.07, "2026-11-25T04:00", None),
        ("weekly_fable", 0.33, "2026-11-25T04:00", "fable"),
    ]
    assert {(meter["observed_at"], meter["plan"], meter["provider"]) for meter in found} == {
        (NOW, "default_claude_max_5x", "anthropic")
    }
    assert b"secret" not in done.stdout and b"ada" not in done.stdout and b"org-1" not in done.stdout


CASES: list[tuple[Json, list[tuple[str, float, str | None]]]] = [
    (usage(five=None), [("weekly", 0.07, None)]),  # a plan without a five-hour window: absent, not 0
    ({"five_hour": None, "seven_day": None}, []),
    ({"five_hour": {"utilization": None, "resets_at": None}}, []),
    ({"five_hour": {"utilization": 0.0, "resets_at": None}}, [("five_hour", 0.0, None)]),  # not begun
    ({"five_hour": {"utilization": 105.5}}, [("five_hour", 1.055, None)]),
    ({"five_hour": {"utilization": 12, "locked_reason": "fraud_check"}}, [("five_hour", 0.12, "rejected")]),
    ({"five_hour": {"utilization": "12"}}, []),
    ({"spend": {"percent": 50, "enabled": True}}, [("credits", 0.5, None)]),
    ({"extra_usage": {"utilization": 50, "is_enabled": False}}, []),
    ({"limits": [{"kind": "weekly_scoped", "percent": 5, "scope": None}, {"kind": "weekly_all", "percent": 8}]}, [("weekly", 0.08, None)]),
    ({"five_hour": {"utilization": 10}, "limits": [{"kind": "session", "percent": 20}]}, [("five_hour", 0.2, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), CASES)
def test_shapes(body: Json, expected: list[tuple[str, float, str | None]]) -> None:
    found = list(wire_limits.anthropic_usage(body, "x", NOW))
    assert [(meter["window"], meter["used"], meter.get("status")) for meter in found] == expected


def test_a_file_without_the_cache_says_nothing(run: Run, environment: dict[str, str]) -> None:
    put(pathlib.Path(environment["HOME"]) / ".claude.json", b'{"numStartups": 1}')
    done = run("tok-read claude-usage")
    assert not done.stdout and not done.stderr


def test_what_the_status_line_is_given() -> None:
    said = {
        "rate_limits": {
            "five_hour": {"used_percentage": 23.5, "resets_at": 1_795_262_400},
            "seven_day": {"used_percentage": 105, "resets_at": "2026-11-25T04:00:00Z"},
        }
    }
    found = list(wire_limits.status_line(said, NOW))
    assert [(meter["window"], meter["used"], meter["resets_at"]) for meter in found] == [
        ("five_hour", 0.235, "2026-11-21T12:00:00.000Z"), ("weekly", 1.05, "2026-11-25T04:00:00.000Z")]  # fmt: skip
    assert (
        list(wire_limits.status_line({"rate_limits": {"five_hour": {}}}, NOW))
        == list(wire_limits.status_line({}, NOW))
        == []
    )
