"""Sums of whole months give what adding up the records gives, and follow the log."""

from __future__ import annotations

import itertools
import pathlib
import random
import shutil

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, examples
from tokenops import coverage, events, joins, jsonl, plans, pricing, rollup, store, store_days, store_summaries, when

CATALOGUE = pricing.load()
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati", "Pacific/Pago_Pago"]
NOW = when.moment("2026-06-01T12:00:00Z")
FIRST = when.moment("2026-02-26T00:00:00Z")
DAYS = 90
MODELS = [("anthropic", "claude-opus-4-6"), ("openai", "gpt-5.4"), (None, "unknown")]
GROUPINGS = [("month",), (), ("model", "month"), ("machine",), ("project", "user"), ("agent",), ("day",), ("session",)]


def plain(rows: list[Json]) -> list[bytes]:
    return [orjson.dumps(row, option=orjson.OPT_SORT_KEYS) for row in rows]


def turn(draw: random.Random, number: int, at: int) -> Json:
    project, session = draw.choice(["app", "web"]), draw.choice([f"s{at // when.DAY}", "long", None])
    provider, model = draw.choice(MODELS)
    one: Json = {"v": 1, "kind": "turn", "id": f"t{number}", "source": "test", "client": "claude-code", "model": model}
    one |= {"project": project, "agent_id": f"claude-code:{project}", "turns": 1, "ts": when.stamp(at)}
    one |= {"input_tokens": draw.randrange(1, 300_000), "output_tokens": draw.randrange(1, 999)}
    one |= {"session_id": session, "workflow_id": f"claude-code:{project}:{session}"} if session else {}
    one |= {"provider": provider} if provider else {}
    one |= {"machine": draw.choice(["ada", "borg"])} if draw.randrange(4) else {}
    one |= {"cost_usd": "0.125", "cost_source": "reported"} if draw.randrange(9) == 0 else {}
    return events.arrange(one)


def total(number: int, at: int, session: str | None, covers: str = events.SESSION) -> Json:
    one: Json = {"v": 1, "kind": "usage", "id": f"u{number}", "source": "droid", "client": "droid", "ts": when.stamp(at)}
    one |= {"covers": covers, "output_tokens": 5} | ({"session_id": session} if session else {})
    return events.arrange(one)


def three_months(seed: int, totals: int) -> list[Json]:
    """Turns of three months, some without a session, one session in all of them; and totals of sessions."""
    draw = random.Random(seed)
    made = [turn(draw, number, FIRST + draw.randrange(DAYS * when.DAY)) for number in range(600)]
    for number in range(totals):
        at = FIRST + draw.randrange(DAYS * when.DAY)
        session = draw.choice(["long", "other", f"s{at // when.DAY}", f"s{at // when.DAY - 40}", None])
        made.append(total(number, at, session, draw.choice([events.SESSION, events.SESSION, events.REMAINDER])))
    return made


@examples(12)
@given(st.integers(0, 10**6), st.sampled_from([0, 0, 1, 2, 6]), st.sampled_from(ZONES))
def test_months_change_no_row(tmp_path: pathlib.Path, seed: int, totals: int, zone: str) -> None:
    """Whatever is asked: any span, zone, filter, plans that begin within a month, and totals that count or do not."""
    folder, tz = str(tmp_path / "log"), when.zone(zone)
    shutil.rmtree(folder, ignore_errors=True)
    made = three_months(seed, totals)
    store.append(folder, map(jsonl.line_of, made))
    every, past = list(joins.join_all(made)), store_summaries.Past(folder)
    assert store_summaries.refresh(folder, CATALOGUE, NOW)
    spans = [("", "9"), ("2026-03-02T00:00:00.000Z", "2026-05-31T00:00:00.000Z"), ("2026-03-02T00:00:00.001Z", "9")]
    filters = [events.EVERY, events.Filter(project="app"), events.Filter(model="gpt-5.4"), events.Filter(session="long")]
    cover = coverage.Coverage([plans.Binding("anthropic", "claude-pro", "2026-04-11", "")], tz)
    questions = list(itertools.product(GROUPINGS, spans, filters, (None, cover)))
    for by, (since, until), only, covers in random.Random(seed).sample(questions, 24):
        plan = rollup.Grouping(by, tz, CATALOGUE)
        inside = [event for event in every if since <= event["ts"] < until and only.takes(event)]
        marked = [covers.mark(event) for event in inside] if covers else inside
        expected = rollup.roll_up(marked, plan._replace(by=(*by, coverage.GROUP)) if covers else plan, print)
        for kept in (None, past):
            found = store_summaries.rows(folder, plan, NOW, since, until, only, cover=covers, past=kept)
            assert plain(found) == plain(expected), (by, since, until, only)


@pytest.mark.parametrize("unit", ["month", ""])
def test_a_report_by_month_reads_no_day_within_a_month(tmp_path: pathlib.Path, unit: str) -> None:
    folder = str(tmp_path / "log")
    store.append(folder, map(jsonl.line_of, three_months(1, 0)))
    store_summaries.refresh(folder, CATALOGUE, NOW)
    plan = rollup.Grouping((unit,) if unit else (), when.UTC, CATALOGUE)
    before = store_summaries.rows(folder, plan, NOW)
    (sums,) = pathlib.Path(folder, "summaries").glob("sums.*")
    shutil.rmtree(sums)
    assert store_summaries.rows(folder, plan, NOW) == before
    made_again = {path.name[:10] for path in sums.iterdir()}  # those that had to be read
    assert {"2026-03-01", "2026-03-31", "2026-04-01"} <= made_again
    assert not {day for day in made_again if "2026-03-02" <= day <= "2026-03-30" or "2026-04-02" <= day <= "2026-04-29"}


def test_months_follow_the_log(tmp_path: pathlib.Path) -> None:
    """A late turn, a total elsewhere, a day that had no file, days that are deleted, and damage."""
    folder, tz = str(tmp_path / "log"), when.UTC
    made = [event for event in three_months(2, 0) if not event["ts"].startswith("2026-03-15")]
    store.append(folder, map(jsonl.line_of, made))

    def turns() -> int:
        return sum(
            row.get("turns", 0) for row in store_summaries.rows(folder, rollup.Grouping(("month",), tz, CATALOGUE), NOW)
        )

    def output() -> int:
        return sum(
            row.get("output_tokens", 0) for row in store_summaries.rows(folder, rollup.Grouping((), tz, CATALOGUE), NOW)
        )

    assert turns() == len(made)
    late = turn(random.Random(3), 9000, when.moment("2026-03-15T12:00:00Z"))
    store.append(folder, [jsonl.line_of(late)])
    assert turns() == len(made) + 1
    tokens = output()
    for number, (session, counts) in enumerate([("long", 0), ("elsewhere", 5)]):
        store.append(folder, [jsonl.line_of(total(number, when.moment("2026-05-20T12:00:00Z"), session))])
        tokens += counts
        assert output() == tokens
    for path in pathlib.Path(folder, "summaries").glob("months.*/*.json"):
        path.write_bytes(path.read_bytes()[:-9] if path.name > "2026-04" else b"{}\n")
    assert (turns(), output()) == (len(made) + 1, tokens)
    for path in store_days.paths_of(folder, "2026-03-15"):
        pathlib.Path(path).unlink()
    assert not list(pathlib.Path(folder, "summaries").rglob("2026-03.json"))
    pathlib.Path(folder, "events/2026-03-15.jsonl").unlink()
    assert turns() == len(made)
