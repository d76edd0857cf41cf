"""Summaries give what adding up the log gives; and all reports over one span, in any zone, have one total."""

from __future__ import annotations

import itertools
import pathlib
import random
import shutil
from decimal import Decimal

import orjson
import pytest
from homes import Home
from hypothesis import given
from hypothesis import strategies as st

from conftest import OWNERS, ROOT, Json, Run, eventually, examples, objects
from tokenops import costs, coverage, events, joins, jsonl, plans, pricing, rollup, store, store_summaries, when

CATALOGUE = pricing.load()
# +05:45; a change of the clock by an hour and by half an hour; a day that does not exist (Apia, 2011) is too old.
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Kiritimati"]
UNITS = (
    "day",
    "week",
    "month",
    "hour",
    "session",
    "project",
    "model",
    "client",
    "agent",
    "workflow",
    "provider",
    "skill",
    "branch",
)
# Around midnight of several zones, on the days of 23 and 25 hours, and inside them.
TIMES = [
    "2026-03-28T22:59:59.999Z", "2026-03-28T23:00:00.000Z", "2026-03-29T00:59:59.999Z", "2026-03-29T01:00:00.000Z",
    "2026-03-29T21:59:59.999Z", "2026-03-29T22:00:00.000Z", "2026-10-24T22:00:00.000Z", "2026-10-25T00:30:00.000Z",
    "2026-10-25T01:30:00.000Z", "2026-10-25T22:59:59.999Z", "2026-10-25T23:00:00.000Z", "2026-10-31T23:59:59.999Z",
    "2026-11-01T00:00:00.000Z", "2026-10-31T18:14:59.999Z", "2026-10-31T18:15:00.000Z", "2026-12-31T23:59:59.999Z",
    "2026-04-04T14:59:59.999Z", "2026-04-04T15:00:00.000Z", "2026-10-03T15:29:59.999Z", "2026-10-03T15:30:00.000Z",
]  # fmt: skip
MODELS = [("anthropic", "claude-opus-4-6"), ("openai", "gpt-5.4"), ("deepseek", "deepseek-v4-pro"), (None, "unknown")]
NOW = when.moment("2027-02-01T12:00:00Z")


@st.composite
def sightings(draw: st.DrawFn) -> list[Json]:
    made = []
    for number in range(draw(st.integers(1, 25))):
        provider, model = draw(st.sampled_from(MODELS))
        project = draw(st.sampled_from(["app", "web"]))
        session = draw(st.sampled_from(["s1", "s2", "s3"]))
        turn: Json = {"v": 1, "kind": "turn", "id": f"t{number}", "source": "test", "client": "c", "project": project}
        turn |= {"agent_id": f"c:{project}", "workflow_id": f"c:{project}:{session}", "session_id": session, "model": model}
        turn |= {"turns": 1, "input_tokens": draw(st.integers(1, 300_000)), "output_tokens": draw(st.integers(1, 999))}
        if provider:
            turn["provider"] = provider
        if draw(st.integers(0, 9)) == 0:
            turn |= {"cost_usd": "0.123", "cost_source": "reported"}
        for name in events.TAGS:
            if draw(st.integers(0, 3)) == 0:
                turn[name] = draw(st.sampled_from(["a", "b"]))
        turn |= draw(st.fixed_dictionaries({}, optional=OWNERS))
        for ts in draw(st.lists(st.sampled_from(TIMES), min_size=1, max_size=2)):
            made.append({**turn, "ts": ts})
    for number in range(draw(st.integers(0, 2))):
        usage = {
            "v": 1,
            "ts": draw(st.sampled_from(TIMES)),
            "kind": "usage",
            "id": f"u{number}",
            "source": "droid",
            "client": "c",
        }
        made.append(usage | {"covers": "session", "session_id": draw(st.sampled_from(["s3", "s9"])), "output_tokens": 5})
    return [events.arrange(one) for one in made]


def same_day(made: list[Json]) -> list[Json]:
    """Sightings of one turn at most a day apart, as they are in life."""
    first: dict[str, int] = {}
    kept = []
    for one in made:
        at = when.moment(one["ts"])
        if abs(first.setdefault(one["id"], at) - at) < when.DAY:
            kept.append(one)
    return kept


def totals(rows: list[Json]) -> tuple[dict[str, int], Decimal]:
    counts = {name: sum(row.get(name, 0) for row in rows) for name in events.SUMS}
    return counts, sum((Decimal(row["cost_usd"]) for row in rows if "cost_usd" in row), Decimal(0))


def plain(rows: list[Json]) -> list[bytes]:
    return [orjson.dumps(row, option=orjson.OPT_SORT_KEYS) for row in rows]


@examples(60)
@given(sightings(), st.sampled_from(ZONES), st.lists(st.sampled_from(TIMES), max_size=2))
def test_every_grouping_has_the_same_total_and_summaries_change_nothing(
    tmp_path: pathlib.Path, made: list[Json], zone: str, bounds: list[str]
) -> None:
    made = same_day(made)
    folder = str(tmp_path / "log")
    shutil.rmtree(folder, ignore_errors=True)
    store.append(folder, map(jsonl.line_of, made))
    since, until = sorted(bounds) if len(bounds) == 2 else ("", "9")
    if since == until:
        until = "9"
    inside = [event for event in joins.join_all(made) if since <= event["ts"] < until]
    assert [orjson.loads(line) for line in store.cat(folder, since, until)] == inside
    found = []
    for by in [(unit,) for unit in UNITS] + [
        ("skill",),
        ("skill", "hour"),
        ("machine", "day"),
        ("user", "month"),
        ("machine", "user", "skill"),
    ]:
        plan = rollup.Grouping(by, when.zone(zone), CATALOGUE)
        expected = rollup.roll_up(inside, plan, print)
        for _ in range(2):  # made, then kept
            assert plain(store_summaries.rows(folder, plan, NOW, since, until)) == plain(expected)
        found.append(totals(costs.price_rows(expected, CATALOGUE)))
    assert all(one == found[0] for one in found)
    plan = rollup.Grouping(("machine",), when.zone(zone), CATALOGUE)
    for only in (events.Filter(machine="desk"), events.Filter(machine=events.UNKNOWN), events.Filter(user="ada")):
        expected = rollup.roll_up(filter(only.takes, inside), plan, print)
        assert plain(store_summaries.rows(folder, plan, NOW, since, until, only)) == plain(expected)


def test_summaries_follow_the_log(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "log")
    plan = rollup.Grouping((), when.UTC, CATALOGUE)
    probe = tmp_path / "probe"

    def day_of(day: str) -> pathlib.Path:
        return pathlib.Path(folder, "events", f"{day}.jsonl")

    def turns() -> int:
        return sum(row["turns"] for row in store_summaries.rows(folder, plan, NOW))

    def add(name: str, day: str) -> None:
        one = {"v": 1, "ts": f"{day}T23:59:59.999Z", "kind": "turn", "id": name, "turns": 1, "output_tokens": 1}
        store.append(folder, [jsonl.line_of(one)])
        eventually(lambda: (probe.touch(), probe.stat().st_mtime_ns > day_of(day).stat().st_mtime_ns)[1])  # times are coarse

    add("a", "2026-03-01")
    assert (turns(), store_summaries.refresh(folder, CATALOGUE, NOW), turns()) == (1, 0, 1)
    add("b", "2026-03-01")
    assert (turns(), turns()) == (2, 2)
    add("a", "2026-03-02")  # a second sighting, after midnight
    assert turns() == 2
    add("c", "2026-03-03")
    assert store_summaries.refresh(folder, CATALOGUE, NOW) == 2  # the day, and the one before it
    assert store_summaries.refresh(folder, CATALOGUE, NOW) == 0
    assert turns() == 3
    for path in pathlib.Path(folder, "summaries").rglob("*.json"):
        path.write_bytes(path.read_bytes()[:-9])
    assert turns() == 3
    shutil.rmtree(f"{folder}/summaries")
    assert turns() == 3
    shutil.rmtree(f"{folder}/summaries")
    pathlib.Path(folder, "summaries").touch()  # so none can be kept
    assert turns() == 3


def test_yesterday_is_not_closed(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "log")
    for day in ("2026-03-08", "2026-03-09", "2026-03-10"):
        one = {"v": 1, "ts": f"{day}T12:00:00.000Z", "kind": "turn", "id": day, "turns": 1}
        store.append(folder, [jsonl.line_of(one)])
    assert store_summaries.refresh(folder, CATALOGUE, when.moment("2026-03-10T13:00:00Z")) == 1


def test_weeks_of_logs_have_one_total_in_every_zone_and_grouping(run: Run, weeks: Home, environment: dict[str, str]) -> None:
    folder = environment["TOKENOPS_HOME"]
    run("tok-sync", status=1, env={"HOME": str(weeks.root)})
    every = [orjson.loads(line) for line in store.cat(folder)]
    assert len(every) > 400
    rng = random.Random(1)
    times = sorted(event["ts"] for event in every)
    spans = [("", "9"), *(tuple(sorted(rng.sample(times, 2))) for _ in range(4))]
    for (since, until), zone in itertools.product(spans, ZONES):
        inside = [event for event in every if since <= event["ts"] < until]
        found = []
        for unit in UNITS:
            plan = rollup.Grouping((unit,), when.zone(zone), CATALOGUE)
            rows = store_summaries.rows(folder, plan, NOW, since, until)
            assert plain(rows) == plain(rollup.roll_up(inside, plan, print))
            found.append(totals(costs.price_rows(rows, CATALOGUE)))
        assert all(one == found[0] for one in found)


def test_the_pipe_and_the_log_say_the_same(run: Run) -> None:
    env = {"HOME": str(ROOT / "docs/examples/home"), "TOKENOPS_NOW": "2026-11-30T00:00:00Z"}
    run("tok-sync", env=env)
    log = objects(run("tok-cost --log --since 365d --by month,model", env=env).stdout)
    pipe = objects(run("tok-cat --since 365d | tok-rollup --by month,model | tok-cost", env=env).stdout)
    for row in log:
        assert row.pop("as_of")
    assert log == pipe


def busy_days(draw: random.Random) -> list[Json]:
    """Four days of 30 turns in each of some hours, and a session total, until noon of the last day."""
    made = []
    for number in range(1200):
        at = when.moment("2026-11-17T20:00:00Z") + (number // 30) * 7_200_000 + draw.randrange(3_600_000)
        project, session = draw.choice(["app", "web"]), draw.choice(["s1", "s2"])
        provider, model = draw.choice(MODELS[:3])
        turn: Json = {"v": 1, "kind": "turn", "id": f"t{number}", "source": "test", "client": "claude-code"}
        turn |= {"project": project, "agent_id": f"claude-code:{project}", "workflow_id": f"claude-code:{project}:{session}"}
        turn |= {"session_id": session, "provider": provider, "model": model, "turns": 1, "ts": when.stamp(at)}
        turn |= {"input_tokens": draw.randrange(1, 300_000), "output_tokens": draw.randrange(1, 999)}
        turn |= {"skill": "a"} if draw.randrange(3) == 0 else {}
        made.append(turn)
    usage: Json = {"v": 1, "ts": "2026-11-20T08:30:00.000Z", "kind": "usage", "id": "u1", "source": "droid"}
    usage |= {"client": "droid", "covers": "session", "session_id": "s9", "output_tokens": 5}
    return [events.arrange(event) for event in (*made, usage)]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns"])
def test_what_a_server_keeps_changes_no_row(tmp_path: pathlib.Path, zone: str) -> None:
    """Asked again and again, in any order, while turns of this hour, of earlier hours and of closed days come."""
    folder, tz, draw = str(tmp_path / "log"), when.zone(zone), random.Random(zone)
    made = busy_days(draw)
    now = when.moment("2026-11-21T12:00:00Z")
    late = [made.pop(at) for at in (1150, 1100, 900, 600, 300, 20)]
    store.append(folder, map(jsonl.line_of, made))
    past = store_summaries.Past(folder)
    cover = coverage.Coverage([plans.Binding("anthropic", "claude-pro", "2026-11-20", "")], tz)
    spans = [("", "9"), ("2026-11-19T07:40:12.345Z", "9"), ("2026-11-20T03:00:00.000Z", "2026-11-21T00:10:00.000Z"),
             ("2026-11-18T05:00:00.000Z", "2026-11-19T05:30:00.000Z"), ("2026-11-21T01:15:00.000Z", "9")]  # fmt: skip
    for turn in (None, *late):
        if turn is not None:
            store.append(folder, [jsonl.line_of(turn), jsonl.line_of(turn | {"id": turn["id"] + "x", "output_tokens": 7})])
        questions = list(itertools.product(spans, [(), ("hour",), ("day", "project"), ("skill", "session")]))
        for (since, until), by in draw.sample(questions, len(questions) // 2):
            plan, args = rollup.Grouping(by, tz, CATALOGUE), (since, until, events.Filter(None, None, "app", None))
            for covers in (None, cover):
                mine = store_summaries.rows(folder, plan, now, *args, cover=covers, past=past)
                assert plain(mine) == plain(store_summaries.rows(folder, plan, now, *args, cover=covers))
    assert len(past.sums.values) > 20 and past.closed.values and past.events.values
