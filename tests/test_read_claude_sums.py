"""What Claude Code's own sums hold beyond its lines: in one reading, in pieces, over forks and several files."""

from __future__ import annotations

import itertools
import pathlib
import shutil
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, claude, examples, lines, objects, put
from tokenops import joins, pricing, read_clients, rollup, store, sync, when

FOLDER = pathlib.PurePath(".claude/projects/-home-ada-app")
FIELDS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "web_searches",
)
MODEL = "claude-opus-5-5"
VERSION = "2.1.332"


def answer(name: str, minute: int, session: str = "s1", **given: Any) -> Json:
    """A line of an answer: 3 input, 5,000 read, 100 written for an hour, 7 output."""
    ts = f"2026-11-29T{10 + minute // 60}:{minute % 60:02d}:00.000Z"
    return claude(
        name, 7, ts, **{"m_model": MODEL, "m_stop_reason": "end_turn", "version": VERSION, "sessionId": session} | given
    )


def note(minute: int, session: str = "s1") -> Json:
    """A line of another type, which only has a time."""
    ts = f"2026-11-29T{10 + minute // 60}:{minute % 60:02d}:30.000Z"
    return {"type": "system", "subtype": "turn_duration", "sessionId": session, "timestamp": ts, "version": VERSION}


CATALOGUE = pricing.load()


def stated(
    session: str = "s1", model: str = MODEL, counts: tuple[int, ...] = (3, 5000, 0, 100, 7, 0, 0), **more: Json
) -> Json:
    """A line with the session's sums, in the order of FIELDS."""
    sent, read, short, long, got, thought, searches = counts
    usage = {
        "inputTokens": sent,
        "outputTokens": got,
        "thinkingTokens": thought,
        "cacheReadInputTokens": read,
        "cacheCreationInputTokens": short + long,
        "cacheCreationEphemeral5mInputTokens": short,
        "cacheCreationEphemeral1hInputTokens": long,
        "webSearchRequests": searches,
        "costUSD": 0.1,
    }
    return {
        "type": "cost-state",
        "sessionId": session,
        "totalCostUSD": 0.1,
        "startTime": 1,
        "modelUsage": {model: usage, **more},
    }


def times(count: int, *more: int) -> tuple[int, ...]:
    """The counts of so many answers, and more."""
    return tuple(count * one + other for one, other in itertools.zip_longest((3, 5000, 0, 100, 7, 0, 0), more, fillvalue=0))


def beyond(found: list[Json]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Session, model and counts of each remainder."""
    return sorted(
        (event["session_id"], event["model"], tuple(event.get(name, 0) for name in FIELDS))
        for event in found
        if event.get("covers") == "remainder"
    )


def test_what_no_line_has_is_one_record_per_model(run: Run, environment: dict[str, str]) -> None:
    """A compaction and a title: the sums of the last line count, at the time of the line before it."""
    home = pathlib.Path(environment["HOME"])
    haiku = stated(model="claude-haiku-4-5", counts=(40, 0, 0, 0, 9, 2, 1))["modelUsage"]
    transcript = [
        answer("msg_1", 0),
        stated(counts=times(1, 50)),
        answer("msg_2", 5),
        note(6),
        stated(counts=times(2, 70, 1160, 3, 2, 400), **haiku),
    ]
    put(home / FOLDER / "s1.jsonl", *transcript)
    found = objects(run("tok-read claude").stdout)
    assert [event["kind"] for event in found] == ["turn", "turn", "usage", "usage"]
    assert {event["ts"] for event in found[2:]} == {"2026-11-29T10:06:30.000Z"}
    assert beyond(found) == [("s1", "claude-haiku-4-5", (40, 0, 0, 0, 9, 2, 1)), ("s1", MODEL, (70, 1160, 3, 2, 400, 0, 0))]
    assert all(
        event["provider"] == "anthropic" and "provider_inferred" not in event for event in found if event["model"] == MODEL
    )
    (row,) = objects(run("tok-read claude | tok-cost --by none --json").stdout)
    assert (row["input_tokens"], row["turns"], row["remainder_tokens"]) == (2 * 3 + 110, 2, 70 + 1160 + 3 + 2 + 400 + 49)


SENT = {"type": "api-request", "id": "r0", "sessionId": "s1", "timestamp": "2026-11-29T10:00:40.000Z", "params": {}}
ABORTED = answer("msg_0", 1, m_stop_reason=None, isAbortedMidStream=True, requestRef="r0")
SUBAGENT = answer("msg_sub", 1, isSidechain=True, agentId="x")
DATED = answer("msg_1", 0, m_model="claude-haiku-4-5-20251001", requestedModel="claude-haiku-4-5")
WITHOUT_CLASSES = stated(counts=times(1, 5, 0, 4))
del WITHOUT_CLASSES["modelUsage"][MODEL]["cacheCreationEphemeral5mInputTokens"]
del WITHOUT_CLASSES["modelUsage"][MODEL]["cacheCreationEphemeral1hInputTokens"]


@pytest.mark.parametrize(
    ("transcript", "expected"),
    [
        pytest.param([answer("msg_1", 0), stated(counts=times(1))], [], id="nothing beyond the lines"),
        pytest.param([answer("msg_1", 0), answer("msg_1", 0, uuid="u2"), stated(counts=times(1, 1))], [(1, 0, 0, 0, 0, 0, 0)], id="two lines of one answer"),
        pytest.param([DATED, stated(model="claude-haiku-4-5", counts=times(1, 2))], [(2, 0, 0, 0, 0, 0, 0)], id="the sums name the model asked for"),
        pytest.param([answer("msg_1", 0), stated(model=f"{MODEL}[1m]", counts=times(1, 2))], [(2, 0, 0, 0, 0, 0, 0)], id="the mark of a large context"),
        pytest.param([answer("msg_1", 0), WITHOUT_CLASSES], [(5, 0, 4, 0, 0, 0, 0)], id="writes without classes"),
        pytest.param([answer("msg_0", 0, version="2.1.197"), answer("msg_1", 1), stated(counts=times(1, 2))], [(2, 0, 0, 0, 0, 0, 0)], id="begun by a version without sums"),
        pytest.param([answer("msg_0", 0), answer("msg_1", 1), stated(counts=times(1)), answer("msg_2", 2), stated(counts=times(2, 9))], [(9, 0, 0, 0, 0, 0, 0)], id="sums that began later"),
        pytest.param([answer("msg_1", 0), stated(counts=times(1, 2)), answer("msg_2", 1)], [(2, 0, 0, 0, 0, 0, 0)], id="killed in the turn after"),
        pytest.param([note(0), SENT, stated(counts=(0,) * 7), ABORTED, answer("msg_1", 2), stated(counts=times(1, 6))], [(6, 0, 0, 0, 0, 0, 0)], id="an aborted answer after the sums, which never have it"),
    ],
)  # fmt: skip
def test_the_rest(transcript: list[Json], expected: list[tuple[int, ...]], run: Run, environment: dict[str, str]) -> None:
    put(pathlib.Path(environment["HOME"]) / FOLDER / "s1.jsonl", *transcript)
    assert [counts for _, _, counts in beyond(objects(run("tok-read claude").stdout))] == expected


def fork(source: str, *of: Json, branch: bool = False, name: str = "s2") -> list[Json]:
    """The copies that a fork's file begins with."""
    more: Json = {"forkedFrom": {"sessionId": source, "messageUuid": "u1"}} if branch else {}
    return [{**line, "sessionId": name, "requestSessionId": source, **more} for line in of]


@pytest.mark.parametrize("name", ["s2", "a2"])
@pytest.mark.parametrize("branch", [False, True])
def test_a_fork_begins_with_its_sources_sums_and_a_branch_with_none(
    name: str, branch: bool, run: Run, environment: dict[str, str]
) -> None:
    home = pathlib.Path(environment["HOME"])
    first, own = answer("msg_1", 0), answer("msg_2", 60, name)
    source = [first, stated(counts=times(1, 70))]
    mine = times(1, 5) if branch else times(2, 75)
    put(home / FOLDER / f"{name}.jsonl", *fork("s1", first, branch=branch, name=name), own, stated(name, counts=mine))
    alone = objects(run("tok-read claude").stdout)
    # Without the source it is unknown what the fork's sums began with.
    assert [counts[0] for _, _, counts in beyond(alone)] == ([5] if branch else [])
    put(home / FOLDER / "s1.jsonl", *source, answer("msg_3", 90), stated(counts=times(2, 99)))
    found = objects(run("tok-read claude").stdout)
    owners = {event["id"]: event["session_id"] for event in found if event["kind"] == "turn"}
    assert owners == {"msg_1": "s1", "msg_2": name, "msg_3": "s1"}
    assert {session: counts[0] for session, _, counts in beyond(found)} == {"s1": 99, name: 5}


def test_subagents_of_a_session_are_lines_of_it(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / FOLDER / "s1.jsonl", answer("msg_1", 0), stated(counts=times(3, 4)))
    put(home / FOLDER / "s1/subagents/agent-x.jsonl", SUBAGENT)
    put(
        home / FOLDER / "s1/subagents/workflows/wf_1/agent-y.jsonl",
        {**SUBAGENT, "message": {**SUBAGENT["message"], "id": "msg_w"}},
    )
    for options in ("", "--jobs 3"):
        assert [counts[0] for _, _, counts in beyond(objects(run(f"tok-read claude {options}").stdout))] == [4]


def test_absurd_sums_are_reported_and_not_counted(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    path = put(home / FOLDER / "s1.jsonl", answer("msg_1", 0), stated(counts=times(1, -9)))
    ended = run("tok-read claude", status=1)
    assert f"{path}:2" in ended.stderr.decode()
    assert beyond(objects(ended.stdout)) == []


def test_every_report_counts_and_names_it(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / FOLDER / "s1.jsonl", answer("msg_1", 0), note(1), stated(counts=times(1, 70)))
    table = run("tok-read claude | tok-cost --table").stdout.decode()
    assert "70 tokens" in table and "leave no line" in table
    run("tok-sync")
    run("tok-sync --backfill")
    (row,) = objects(run("tok-cost --log --since 2026-11-01 --json").stdout)
    assert (row["input_tokens"], row["remainder_tokens"]) == (73, 70)
    (row,) = objects(run("tok-cat | tok-rollup --by session,project | tok-rollup --by project").stdout)
    assert row["remainder_tokens"] == 70


# The pieces in which files are seen: any order of files, any cut, a sync after each.
TRANSCRIPTS: dict[str, bytes] = {
    "s1.jsonl": lines(
        [
            answer("msg_1", 0),
            note(1),
            stated(counts=times(2, 10)),
            answer("msg_2", 10),
            answer("msg_2", 10, uuid="u3"),
            note(11),
            stated(counts=times(4, 30)),
            answer("msg_3", 20),
            note(21),
        ]
    ),
    "s1/subagents/agent-x.jsonl": lines([SUBAGENT, answer("msg_sub2", 9, isSidechain=True, agentId="x")]),
    "s2.jsonl": lines(
        [
            *fork("s1", answer("msg_1", 0)),
            answer("msg_9", 12, "s2"),
            stated("s2", counts=times(3, 15)),
            answer("msg_8", 13, "s2"),
        ]
    ),
}


def session_sums(found: list[Json]) -> list[tuple[object, ...]]:
    grouping = rollup.Grouping(("session",), when.UTC, CATALOGUE)
    sums = rollup.Rollup(grouping)
    for event in found:
        assert not sums.add(event)
    return sorted(
        (row["session_id"], *(row.get(name, 0) for name in ("turns", *FIELDS, "remainder_tokens"))) for row in sums.rows()
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    home = tmp_path_factory.mktemp("whole")
    sums = session_sums(imported(home, [(name, len(data)) for name, data in TRANSCRIPTS.items()][-1:], TRANSCRIPTS))
    assert [(session, row[-1]) for session, *row in sums] == [("s1", 30), ("s2", 5)]
    return sums


def imported(home: pathlib.Path, pieces: list[tuple[str, int]], files: dict[str, bytes]) -> list[Json]:
    """The log after a sync behind each piece; at last all files are there."""
    shutil.rmtree(home, ignore_errors=True)
    folder, log = home / FOLDER, str(home / "tokenops")
    (client,) = (client for client in read_clients.CLIENTS if client.name == "claude")
    lengths: dict[str, int] = {}
    for name, length in [*pieces, *((name, len(data)) for name, data in files.items())]:
        for other, most in (
            {"s1.jsonl": len(files["s1.jsonl"]), name: length}.items() if name == "s2.jsonl" else ((name, length),)
        ):
            lengths[other] = max(most, lengths.get(other, 0))  # a fork is made of a whole file
            put(folder / other, files[other][: lengths[other]])
        if (name, length) in pieces or name == list(files)[-1]:
            paths = [str(path) for path in sorted(folder.rglob("*.jsonl"))]
            assert sync.run(log, [(client, paths)], jobs=1) is not None
    return [event for line in store.scan(log) if (event := orjson.loads(line))["kind"] not in ("work", "context")]


PIECES = st.lists(
    st.sampled_from(sorted(TRANSCRIPTS)).flatmap(
        lambda name: st.tuples(st.just(name), st.integers(0, len(TRANSCRIPTS[name])))
    ),
    max_size=6,
)


@given(pieces=PIECES)
@examples(40)
def test_any_pieces_give_what_one_reading_gives(
    pieces: list[tuple[str, int]], whole: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.getbasetemp() / "pieces"
    assert session_sums(imported(home, pieces, TRANSCRIPTS)) == whole


COUNT = st.integers(0, 3)


@st.composite
def remainder(draw: st.DrawFn) -> Json:
    event: Json = {
        "v": 1,
        "ts": f"2026-11-29T10:0{draw(COUNT)}:00.000Z",
        "kind": "usage",
        "id": "remainder:1",
        "session_id": "s1",
    }
    event |= {"model": draw(st.sampled_from(("a", "b"))), "input_tokens": draw(COUNT), "total_tokens": draw(COUNT)}
    return event | {"covers": draw(st.sampled_from(("remainder", "remainder", "session")))}


@given(a=remainder(), b=remainder(), c=remainder())
@examples(300)
def test_the_join_of_remainders_has_an_order(a: Json, b: Json, c: Json) -> None:
    join = joins.join
    if any(event["covers"] == "remainder" for event in (a, b, c)):
        assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, b) == join(b, a)
    assert join(a, a) == a


@given(st.lists(remainder(), max_size=6), st.randoms(use_true_random=False))
@examples(200)
def test_the_latest_per_session_and_model_counts_in_any_order(found: list[Json], random: Any) -> None:
    found = [{**event, "covers": "remainder", "id": f"r:{n}"} for n, event in enumerate(found)]
    shuffled = random.sample(found, len(found))
    assert session_sums(shuffled) == session_sums(found)
    expected = {
        model: max((event for event in found if event["model"] == model), key=joins.remainder_rank)
        for model in {event["model"] for event in found}
    }
    assert sum(row[1 + 1] for row in session_sums(found)) == sum(event["input_tokens"] for event in expected.values())


def test_a_comparison_with_the_clients_total_has_it_too(run: Run, environment: dict[str, str]) -> None:
    """What `claude -p` says that a session cost includes the requests without a line."""
    home = pathlib.Path(environment["HOME"])
    put(home / FOLDER / "s1.jsonl", answer("msg_1", 0), note(1), stated(counts=times(1, 1_000_000)))
    total = {"v": 1, "ts": "2026-11-29T10:00:00.000Z", "kind": "usage", "id": "usage:1", "source": "claude-stream"}
    total |= {"client": "claude-code", "session_id": "s1", "covers": "session", "provider": "anthropic", "model": MODEL}
    counts = dict(zip(FIELDS, times(1, 1_000_000), strict=True))
    put(home / "total.jsonl", total | counts | {"cost_usd": "9", "cost_source": "client"})
    (row,) = objects(run(f"tok-read claude | cat - {home}/total.jsonl | tok-cost --reconcile --json", status=None).stdout)
    assert (row["input_tokens"], row["remainder_tokens"], row["turns"]) == (1_000_003, 1_000_000, 1)
    assert "counts" not in {cause["name"] for cause in row.get("causes", ())}


def test_a_day_and_a_month_and_the_summaries_of_closed_days_agree(run: Run, environment: dict[str, str]) -> None:
    """Rolled up by session and then by project, by day and then by month, or from the log: the same sums."""
    home = pathlib.Path(environment["HOME"])
    put(
        home / FOLDER / "s1.jsonl",
        answer("msg_1", 0),
        stated(counts=times(1, 10)),
        answer("msg_2", 70),
        note(71),
        stated(counts=times(2, 30)),
    )
    put(home / FOLDER / "s2.jsonl", answer("msg_3", 0, "s2"), note(5, "s2"), stated("s2", counts=times(1, 4)))
    run("tok-sync")
    direct = run("tok-read claude | tok-rollup --by month,project").stdout
    for line in (
        "--by day,project | tok-rollup --by month,project",
        "--by month,session,project | tok-rollup --by month,project",
    ):
        assert run(f"tok-read claude | tok-rollup {line}").stdout == direct
    (row,) = objects(direct)
    assert (row["turns"], row["remainder_tokens"], row["input_tokens"]) == (3, 34, 9 + 34)
    later = {"TOKENOPS_NOW": "2026-12-20T00:00:00.000Z"}
    (logged,) = objects(run("tok-cost --log --by project --since 2026-11-01 --json", env=later).stdout)
    assert {name: logged[name] for name in ("turns", "remainder_tokens", *FIELDS) if name in row} == {
        name: row[name] for name in ("turns", "remainder_tokens", *FIELDS) if name in row
    }
    priced = objects(run("tok-read claude | tok-cost --by none --json").stdout)
    assert logged["cost_usd"] == priced[0]["cost_usd"]


def test_what_the_proxy_saw_is_not_counted_again(run: Run, environment: dict[str, str]) -> None:
    """A title's request leaves no line, and is a turn of the log if it passed the proxy; so does one with a line."""
    home = pathlib.Path(environment["HOME"])
    wire = {"v": 1, "ts": "2026-11-29T10:00:10.000Z", "kind": "turn", "id": "msg_title", "source": "proxy", "turns": 1}
    wire |= {"client": "claude-code", "session_id": "s1", "provider": "anthropic", "model": MODEL, "status": 200}
    seen = [wire | {"input_tokens": 20, "output_tokens": 5}, wire | {"id": "msg_1", "input_tokens": 3, "output_tokens": 7}]
    run("tok-log append", lines([*seen, wire | {"id": "msg_other", "session_id": "s9", "input_tokens": 900}]))
    put(home / FOLDER / "s1.jsonl", answer("msg_1", 0), note(1), stated(counts=times(1, 70, 0, 0, 0, 5)))
    for command in ("tok-sync", "tok-sync --backfill"):
        run(command)
        found = [event for event in objects(run("tok-cat").stdout) if event.get("session_id") == "s1"]
        assert [(session, counts[0], counts[4]) for session, _, counts in beyond(found)] == [("s1", 50, 0)]
        assert (
            sum(row[2] for row in session_sums([event for event in found if event["kind"] not in ("work", "context")]))
            == 3 + 20 + 50
        )
