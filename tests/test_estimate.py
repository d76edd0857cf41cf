"""What a session will take of a limit (tok-budget --for), from made-up histories, and how that is scored."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Iterable, Sequence

import pytest

from conftest import Json, Run, lines, objects
from tokenops import headroom, limit_ahead, limit_carry, limit_estimate, limit_runs, limit_windows, pricing, when
from tokenops.limit_estimate import Past
from tokenops.limit_runs import Labels
from tokenops.limit_runs import Run as Stretch
from tokenops.limit_windows import MINUTE, Key, Reading, Series

AT = when.moment("2026-11-01T00:00:00.000Z")
HOUR = 60 * MINUTE
KEY = Key("anthropic", "", "five_hour", "")
MODEL = "claude-opus-5"


def turn(minute: float, session: str, usd: str | None = "1", **more: str) -> Json:
    event: Json = {"v": 1, "kind": "turn", "ts": when.stamp(AT + round(minute * MINUTE)), "source": "test", "turns": 1}
    event |= {"id": f"{session}-{minute}", "client": "claude-code", "provider": "anthropic", "model": MODEL}
    event |= {"session_id": session, "project": "shop", "project_id": "p1"}
    price = {"cost_usd": usd, "cost_source": "reported"} if usd is not None else {"usage": "unknown"}
    return event | price | more


def meter(minute: float, percent: float, resets: float = 300, window: str = "five_hour") -> Json:
    event: Json = {"v": 1, "kind": "meter", "ts": when.stamp(AT + round(minute * MINUTE)), "source": "proxy"}
    event |= {"id": f"m{minute}-{window}", "provider": "anthropic", "window": window, "used": percent / 100}
    return event | {"observed_at": event["ts"], "resets_at": when.stamp(AT + round(resets * MINUTE))}


def parted(records: Iterable[Json]) -> tuple[list[limit_runs.Part], list[Series]]:
    return limit_runs.of_records(records, pricing.load())


def taken(records: Sequence[Json]) -> dict[str, list[float]]:
    """Session -> the percent of each of its runs."""
    parts, series = parted(records)
    result: dict[str, list[float]] = {}
    for run in limit_runs.runs(parts, series[0]):
        result.setdefault(run.session, []).append(round(run.percent, 3))
    return result


@pytest.mark.parametrize(
    ("what", "records", "expected"),
    [
        ("one session", [meter(0, 1), turn(1, "a"), meter(2, 5), turn(3, "a"), meter(4, 9)], {"a": [8]}),
        (
            "two beside each other share a rise by cost",
            [meter(0, 0), turn(1, "a", "3"), turn(2, "b", "1"), meter(3, 8)],
            {"a": [6], "b": [2]},
        ),
        (
            "without a price each turn counts alike",
            [meter(0, 0), turn(1, "a", None), turn(1.5, "a", "9"), turn(2, "b", "9"), meter(3, 9)],
            {"a": [6], "b": [3]},
        ),
        (
            "a rise without a turn is use elsewhere",
            [meter(0, 0), turn(1, "a"), meter(2, 2), meter(60, 50), turn(61, "a"), meter(62, 53)],
            {"a": [5]},
        ),
        ("a meter that is a line late", [meter(0, 0), turn(1, "a"), meter(1, 0), meter(2, 4)], {"a": [4]}),
        (
            "a session that rested for two hours is two runs",
            [meter(0, 0), turn(1, "a"), meter(2, 4), turn(121, "a"), meter(122, 7)],
            {"a": [4, 3]},
        ),
        (
            "a run over a reset counts in both windows",
            [meter(0, 0), turn(290, "a"), meter(291, 4), turn(310, "a"), meter(311, 7, 610)],
            {"a": [11]},
        ),
        ("a run that was not read is left out", [meter(0, 0), turn(1, "a"), meter(2, 4), turn(90, "b")], {"a": [4]}),
        (
            "a window that was already used when it was read first",
            [meter(0, 40), turn(1, "a"), meter(2, 43)],
            {"a": [3]},
        ),
    ],
)
def test_what_a_session_took(what: str, records: list[Json], expected: dict[str, list[float]]) -> None:
    assert taken(records) == expected


def test_days_joined_give_the_same_runs() -> None:
    """Parts of single days, of which each sees the day before, add up to what one reading of all gives."""
    records = [meter(0, 0, 10_080, "weekly")]
    for number in range(60):  # one session works around midnight, with rests of at most an hour
        records += [turn(20 + 60 * number, "a"), meter(30 + 60 * number, number + 1, 10_080, "weekly")]
    turns, readings = ([each for each in records if each["kind"] == kind] for kind in ("turn", "meter"))
    parts, whole = [], limit_windows.series(limit_windows.readings_of(readings))
    for day in range(3):
        begin, end = AT + day * when.DAY, AT + (day + 1) * when.DAY
        seen = [each for each in turns if begin - when.DAY <= when.moment(each["ts"]) < end]
        read = [each for each in readings if begin - when.DAY <= when.moment(each["ts"]) < end]
        series = limit_windows.series(limit_windows.readings_of(read))
        parts += limit_runs.parts(seen, limit_carry.spends(seen, pricing.load()), series, begin)
    again = limit_runs.unpack(json.loads(json.dumps(limit_runs.pack(parts))))
    assert again == parts
    (run,) = limit_runs.runs(again, whole[0])
    assert run.percent == pytest.approx(60) and run.end - run.start == 59 * HOUR


def test_bursts_stand_for_sessions_where_turns_name_none() -> None:
    series = limit_windows.series(
        limit_windows.readings_of([meter(0, 0), meter(10, 2), meter(20, 3), meter(90, 3), meter(95, 9)])
    )
    assert [(run.percent, run.session) for run in limit_runs.bursts(series[0])] == [
        (pytest.approx(3), ""),
        (pytest.approx(6), ""),
    ]


# Estimates.


def history(sizes: Sequence[float], gap_hours: float = 6.0) -> tuple[list[Stretch], Series]:
    """Runs that took so many percent in an hour each, every six hours, with their readings."""
    runs, readings = [], []
    for number, percent in enumerate(sizes):
        start = AT + round(number * gap_hours * HOUR)
        runs.append(
            Stretch(f"s{number}", start, start + HOUR, percent, Labels(project="shop", family="opus"), start + 3 * HOUR)
        )
        for step in range(5):
            at, used = start + step * HOUR // 4, percent * step / 400
            readings.append(Reading(KEY, 300, at, used, start + 300 * MINUTE, "", "proxy", ""))
    return runs, limit_windows.series(readings)[0]


def later(runs: Sequence[Stretch]) -> int:
    return runs[-1].start + 6 * HOUR


def growing(seed: int, count: int = 60) -> list[float]:
    """Sizes that drift: the latest say more of the next than all do."""
    draw = random.Random(seed)
    return [round(min(max(2 * 1.03**number * draw.lognormvariate(0, 0.3), 0.5), 90), 1) for number in range(count)]


def test_a_drifting_past_is_shown_and_better_than_the_plain_spread() -> None:
    runs, series = history(growing(3))
    past = Past(runs, series)
    scored = limit_estimate.replay(past)
    judged = limit_estimate.skill(scored)
    assert judged is not None and judged.over_spread > 0.05 and judged.over_median > 0.2
    assert limit_estimate.is_shown(judged) and sum(each.is_shown for each in scored) > len(scored) / 2
    expected = limit_estimate.estimate(past, later(runs), 0.2, 200)
    assert expected is not None
    low, middle, high = expected.points
    assert low < middle < high
    assert middle > sorted(run.percent for run in runs)[len(runs) // 2]  # more than the plain median of a growing past


def test_runs_that_all_took_the_same_need_no_estimate() -> None:
    runs, series = history([5.0] * 30)
    judged = limit_estimate.skill(limit_estimate.replay(Past(runs, series)))
    assert judged is not None and not limit_estimate.is_shown(judged)


def test_nothing_of_the_future_is_used() -> None:
    sizes = growing(5, 40)
    runs, series = history(sizes)
    before, after = Past(runs[:30], series), Past(runs, series)
    at = runs[29].known_at
    assert limit_estimate.points(after, at - 1) != limit_estimate.points(after, at)  # not before it is known to be over
    assert limit_estimate.points(before, at) == limit_estimate.points(after, at)
    whole = {each.at: each for each in limit_estimate.replay(after, (50,))}
    for each in limit_estimate.replay(before, (50,)):
        assert whole[each.at] == each


def test_too_few_runs_say_nothing() -> None:
    runs, series = history([5.0] * 4)
    assert limit_estimate.points(Past(runs, series), later(runs)) is None
    assert limit_estimate.estimate(Past(runs, series), later(runs), 0.1, 100) is None
    assert limit_estimate.skill([]) is None and not limit_estimate.is_shown(None)


def chance(sizes: Sequence[float], used: float | None, minutes: int | None) -> float:
    runs, series = history(sizes)
    expected = limit_estimate.estimate(Past(runs, series), later(runs), used, minutes)
    assert expected is not None and expected.p_cutoff is not None
    return expected.p_cutoff


def test_the_chance_of_a_cutoff() -> None:
    half = [10.0, 30.0] * 10
    assert chance(half, 0.0, 300) < 0.05  # 0 of 20 reach a whole window, and no chance is 0
    assert 0.3 < chance(half, 0.8, 300) < 0.7  # every other run takes the 20 % that are left
    assert chance(half, 0.95, 300) > 0.95
    assert chance(half, 0.95, 5) < 0.5  # the reset comes in five minutes, before most of it is used
    assert chance(half, 1.0, 300) == 1.0
    assert chance(half, None, None) == chance(half, 0.0, 300)  # no window is open: a whole one


# Kinds.

HERE = Labels("claude-code", "shop", "p1", "ABC-7-basket", "opus")
THERE = Labels("codex", "team/site", "p2", "main", "gpt-6")
PARTS = [
    limit_runs.Part("0123abcd", "anthropic", "", AT, AT, HERE, {}),
    limit_runs.Part("0199ffff", "openai", "", AT, AT, THERE, {}),
]


@pytest.mark.parametrize(
    ("text", "texts", "here", "there"),
    [
        ("any", ["any session"], True, True),
        ("project=shop", ["project shop"], True, False),
        ("project=site", ["project site"], False, True),
        ("branch=main", ["branch main"], False, True),
        ("ticket=ABC-7", ["ticket ABC-7"], True, False),
        ("client=codex", ["client codex"], False, True),
        ("model=claude-opus-5", ["model claude-opus-5"], True, False),
        ("0123", ["project shop, opus", "project shop", "opus", "any session"], True, False),
    ],
)
def test_kinds(text: str, texts: list[str], here: bool, there: bool) -> None:
    kinds = limit_ahead.kinds(text, PARTS, lambda branch: "ABC-7" if branch.startswith("ABC-7") else "")
    assert [kind.text for kind in kinds] == texts
    assert (kinds[0].takes(HERE), kinds[0].takes(THERE)) == (here, there)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour=red", "is no kind of session; write any, project="),
        ("project=", "is no kind of session"),
        ("shop", "no session id begins with 'shop' in the last 35 days; write any, or project="),
        ("01", "2 session ids begin with '01' in the last 35 days; give more characters"),
    ],
)
def test_kinds_that_are_not_understood(text: str, words: str) -> None:
    with pytest.raises(limit_ahead.Wrong, match=r".") as error:
        limit_ahead.kinds(text, PARTS, str)
    assert words in str(error.value)


def rows(sizes: Sequence[float], kind: str = "any") -> list[Json]:
    """The rows of an account whose runs took so many percent; the present window is a fifth used."""
    runs, series = history(sizes)
    now = later(runs)
    parts = [
        limit_runs.Part(run.session, "anthropic", "", run.start, run.end, run.labels, {KEY: run.percent}) for run in runs
    ]
    state = headroom.State("anthropic", "", "five_hour", 300, "", 0.2, now + 2 * HOUR, now, "", "proxy", "")
    return limit_ahead.rows([state], [series], parts, limit_ahead.kinds(kind, parts, str), now)


def test_a_row_that_speaks_and_its_sentence() -> None:
    (row,) = rows(growing(3))
    assert row["percent"]["p10"] <= row["percent"]["p50"] <= row["percent"]["p90"] and 0 < row["p_cutoff"] < 1
    assert (row["like"], row["runs"], row["used"], row["resets_in"]) == ("any session", 60, 0.2, "2h00m")
    assert row["skill"]["over_spread"] >= 0 and "note" not in row
    now = when.moment(row["as_of"])
    (sentence,) = limit_ahead.sentences([row], now, when.zone("UTC"))
    assert sentence.startswith("Anthropic, 5 h limit: sessions like this (any session, 60 runs) took ")
    assert "80% is left until " in sentence and "chance of a cutoff " in sentence
    markdown = limit_ahead.page(now, when.zone("UTC"), [row], "markdown")
    assert "any session" in markdown


@pytest.mark.parametrize(
    ("sizes", "kind", "words"),
    [
        ([5.0] * 30, "any", "no better than the median of all runs before"),
        (growing(3), "project=other", "0 past runs of project other in 35 days; an estimate needs 10; any has 60"),
        ([5.0] * 6, "any", "6 past runs of any session in 35 days; an estimate needs 10"),
    ],
)
def test_a_row_that_is_silent_says_why(sizes: list[float], kind: str, words: str) -> None:
    (row,) = rows(sizes, kind)
    assert row["percent"] is None and row["p_cutoff"] is None and words in row["note"]
    (sentence,) = limit_ahead.sentences([row], when.moment(row["as_of"]), when.zone("UTC"))
    assert "no estimate: " in sentence and "80% is left" in sentence


@pytest.mark.parametrize(("count", "like"), [(12, "project shop"), (4, "any session")])
def test_a_project_with_too_few_runs_falls_back_on_all_and_says_so(count: int, like: str) -> None:
    runs, series = history(growing(3))
    labels = [Labels(project_id="p1" if number < count else "p2") for number in range(len(runs))]
    parts = [
        limit_runs.Part(run.session, "anthropic", "", run.start, run.end, label, {KEY: run.percent})
        for run, label in zip(runs, labels, strict=True)
    ]
    now = later(runs)
    state = headroom.State("anthropic", "", "five_hour", 300, "", 0.2, now + 2 * HOUR, now, "", "proxy", "")
    (row,) = limit_ahead.rows([state], [series], parts, limit_ahead.of_project("p1", "shop"), now)
    assert (row["like"], row["runs"]) == (like, count if count >= limit_ahead.NEEDED else len(runs))


def test_windows_of_other_models_are_left_out() -> None:
    runs, series = history(growing(3))
    fable = series._replace(key=KEY._replace(window="weekly_fable", scope="fable"))
    now = later(runs)
    state = headroom.State("anthropic", "", "weekly_fable", 10_080, "fable", 0.2, now + HOUR, now, "", "proxy", "")
    windows = [
        [row["window"] for row in limit_ahead.rows([state], [fable], [], [limit_ahead.EVERY], now, model)]
        for model in ("claude-fable-1", MODEL)
    ]
    assert windows == [["weekly_fable"], []]


# Commands.


def stream() -> bytes:
    """Forty sessions of a growing size in 20 days, and a session that has begun in a new window."""
    records: list[Json] = []
    for number, percent in enumerate(growing(3, 40)):
        minute = 12 * 60 * number
        for step in range(4):
            at, resets = minute + 10 * step, minute + 300
            records.append(turn(at, f"{number:08x}", "1", branch=f"ABC-{number % 2}"))
            records.append(meter(at + 1, round(percent * (step + 1) / 4, 1), resets))
    return lines(records)


def test_the_commands(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    now = {"TOKENOPS_NOW": when.stamp(AT + (12 * 60 * 39 + 60) * MINUTE)}
    run("tok-budget --for any --require-signal", status=1, env=now)
    run("tok-log append >/dev/null", stream())
    (row,) = objects(run("tok-budget --for any", status=None, env=now).stdout)
    assert (row["kind"], row["window"], row["runs"]) == ("estimate", "five_hour", 39)  # the last may still go on
    assert row["percent"] is not None and 0 < row["p_cutoff"] < 1
    (again,) = objects(run("tok-budget --for any", status=None, env=now).stdout)  # from what was kept of closed days
    assert {**again, "as_of": ""} == {**row, "as_of": ""}
    (ticket,) = objects(run("tok-task estimate ticket=ABC-1", status=None, env=now).stdout)
    assert (ticket["like"], ticket["runs"]) == ("ticket ABC-1", 19)
    (one,) = objects(run("tok-budget --for 00000010", status=None, env=now).stdout)
    assert one["like"] == "project shop, opus"
    text = run("tok-budget --for any --table", status=None, env=now).stdout.decode()
    assert "sessions like this (any session, 39 runs) took " in text
    assert b"no session id begins" in run("tok-budget --for zz", status=2, env=now).stderr
    assert b"name one kind" in run("tok-task estimate a b", status=2, env=now).stderr
    assert run("tok-budget --for any -q", status=None, env=now).stdout == b""


def test_the_backtest_of_sessions(run: Run) -> None:
    every = objects(run("tok-backtest --sessions", stream()).stdout)
    assert {row["method"] for row in every} == {"estimate", "median", "spread"}
    assert {(row["table"], row["of"], row["runs"], row["scored"]) for row in every} == {("sessions", "sessions", 40, 35)}
    ours, median, spread = every
    assert ours["pinball"] < spread["pinball"] < median["pinball"] and 0 < ours["shown"] <= 35
    assert spread["skill"] == pytest.approx(1 - ours["pinball"] / spread["pinball"], abs=0.001)
    assert 0.5 < ours["coverage"] <= 1 and "shown_brier" in ours
    meters_only = b"".join(line + b"\n" for line in stream().splitlines() if b'"meter"' in line)
    assert {row["of"] for row in objects(run("tok-backtest --sessions", meters_only).stdout)} == {"bursts"}
    assert b"shown" in run("tok-backtest --sessions --table", stream()).stdout
    run("tok-backtest --sessions --provider openai", stream(), status=1)
