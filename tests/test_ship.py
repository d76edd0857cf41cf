"""tok-ship: what leaves arrives once in effect, whatever happens on the way; and nothing else leaves."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest
from engines import Asked, Engine, Receiver, Reply
from hypothesis import given
from hypothesis import strategies as st

from conftest import MOST, ROOT, Json, Run, eventually, examples, lines, objects, put
from tokenops import catalog, etiquette, events, joins, pricing, rollup, ship, ship_clickhouse, ship_rows, when

NOBODY = ship_rows.Owner("m", "u")


def turn(number: int, **given: object) -> Json:
    base: Json = {
        "v": 1,
        "ts": f"2026-11-0{number % 5 + 1}T12:00:{number % 60:02d}.000Z",
        "kind": "turn",
        "id": f"msg_{number}",
    }
    base |= {
        "source": "claude-code-jsonl",
        "client": "claude-code",
        "project": f"p{number % 3}",
        "session_id": f"s{number % 7}",
    }
    base |= {"provider": "anthropic", "model": "claude-opus-4-6", "turns": 1, "input_tokens": number, "output_tokens": 7}
    return base | given


def append(run: Run, *records: Json) -> None:
    run("tok-log append", lines(records))


def joined(rows: list[Json]) -> list[Json]:
    """What some rows come to: the join that the engines do, done with ours."""
    gone = {row["id"] for row in rows if row["kind"] == "same"}
    return list(joins.join_all(ship_rows.event_of(row) for row in rows if row["kind"] != "same" and row["id"] not in gone))


COST = "tok-rollup --by month,model,project | tok-cost --json"


def same_as_here(run: Run, rows: list[Json]) -> int:
    """The turns of some rows, which come to what the log comes to."""
    here = objects(run(f"tok-cat | {COST}").stdout)
    there = objects(run(COST, lines(joined(rows))).stdout)
    assert there == here
    return sum(row.get("turns", 0) for row in here)


@pytest.fixture
def target() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_what_arrives_is_what_is_here_and_only_once(run: Run, target: Receiver) -> None:
    append(run, *(turn(n) for n in range(101)), {**turn(0), "kind": "ping", "id": "ping"}, meter())
    (told,) = objects(run(f"tok-ship {target.url} --batch 10").stdout)
    assert (told["rows"], told["refused"], told["status"], told["to"]) == (102, 0, "ok", "clickhouse")
    assert same_as_here(run, target.rows()) == 101
    assert max(len(asked.rows()) for asked in target.asked) == 10
    assert {asked.headers["content-encoding"] for asked in target.asked} == {"gzip"}
    assert sum(Decimal(str(row["priced_usd"])) for row in target.rows() if "priced_usd" in row) == Decimal("0.042925")
    before = len(target.asked)
    assert objects(run(f"tok-ship {target.url}").stdout)[0]["rows"] == 0
    append(run, turn(7, id="new"), turn(3))
    assert objects(run(f"tok-ship {target.url}").stdout)[0]["rows"] == 1
    assert len(target.asked) == before + 1
    assert run("tok-log verify").stdout == b""
    (told,) = objects(run(f"tok-ship {target.url} --backfill").stdout)
    assert told["rows"] == 103
    assert same_as_here(run, target.rows()) == 102


def meter() -> Json:
    about = {"window": "weekly", "window_minutes": 10080, "used": 0, "observed_at": "2026-11-03T08:00:00.000Z"}
    return {"v": 1, "ts": "2026-11-03T08:00:00.000Z", "kind": "meter", "id": "meter:1", "provider": "openai"} | about


def test_days_that_are_compacted_packed_pruned_and_late(run: Run, target: Receiver, environment: dict[str, str]) -> None:
    ship = f"tok-ship {target.url}"
    append(run, *(turn(n) for n in range(50)))
    run(ship)
    append(run, *(turn(n, output_tokens=90 + n) for n in range(0, 50, 7)))  # second sightings that know more
    assert objects(run(ship).stdout)[0]["rows"] == 8
    assert same_as_here(run, target.rows()) == 50
    run("tok-log compact --gzip", env={"TOKENOPS_NOW": "2026-12-01T00:00:00Z"})
    assert objects(run(ship).stdout)[0]["rows"] == 0
    append(run, turn(2, id="late"), turn(4, ts="2026-11-06T00:00:01.000Z"), turn(5, ts="2026-10-31T23:59:59.000Z"))
    # A late event of a packed day; a sighting after midnight, which changes nothing; and one before it.
    assert objects(run(ship).stdout)[0]["rows"] == 2
    assert same_as_here(run, target.rows()) == 51
    here = run(f"tok-cat | {COST}").stdout
    run("tok-log prune --before 2026-11-03")
    assert objects(run(ship).stdout)[0]["rows"] == 0
    append(run, turn(1, id="after-pruning"))
    assert objects(run(ship).stdout)[0]["rows"] == 1
    there = run(COST, lines(event for event in joined(target.rows()) if event["id"] != "after-pruning"))
    assert objects(there.stdout) == objects(here)


@pytest.mark.parametrize("order", [("log", "wire"), ("wire", "log")])
def test_a_turn_that_two_planes_saw_is_counted_once(order: tuple[str, str], run: Run, target: Receiver) -> None:
    alias = "codex:s1:1000:500:0:40:0"
    counts = {"input_tokens": 1000, "cache_read_tokens": 500, "output_tokens": 40, "alias": alias, "client": "codex"}
    seen = {
        "log": turn(1, id="codex:s1:1", source="codex-jsonl", provider="openai", model="gpt-5.5", **counts),
        "wire": turn(1, id="resp_1", source="proxy", provider="openai", model="gpt-5.5", **counts),
    }
    ship = f"tok-ship {target.url}"
    append(run, seen[order[0]])
    run(ship)
    append(run, seen[order[1]])
    run(ship)
    assert same_as_here(run, target.rows()) == 1
    run("tok-log compact")
    run(ship)
    assert same_as_here(run, target.rows()) == 1
    other = {"TOKENOPS_HOME": "other"}  # a machine that saw them the other way round
    run("tok-log append", lines([seen[order[1]], seen[order[0]]]), env=other)
    run(ship, env=other)
    assert same_as_here(run, target.rows()) == 1


def test_another_price_sends_what_it_changes(run: Run, target: Receiver, tmp_path: pathlib.Path) -> None:
    append(run, *(turn(n) for n in range(20)), *(turn(n, model="claude-sonnet-4-6") for n in range(20, 23)))
    ship = f"tok-ship {target.url}"
    run(ship)
    (tmp_path / "mine.yaml").write_text(
        "schema: 1\nproviders:\n  anthropic:\n    models:\n      claude-sonnet-4-6:\n        prices:\n"
        '          - {input: "7", cache_read: "1", cache_write: "8", output: "70"}\n'
    )
    env = {"TOKENOPS_PRICING_PATH": str(tmp_path / "mine.yaml")}
    assert objects(run(ship, env=env).stdout)[0]["rows"] == 3
    assert objects(run(ship, env=env).stdout)[0]["rows"] == 0


def flaky(*replies: Reply) -> Receiver:
    """A target that answers so, one after the other, and then well."""
    left = list(replies)
    return Receiver(lambda asked: left.pop(0) if left else Reply())


def test_trouble_on_the_way(run: Run) -> None:
    append(run, *(turn(n) for n in range(60)))
    late = ("Retry-After", "0")
    receiver = flaky(Reply(503, headers=(late,)), Reply(200, held=True), Reply(0, taken=True))
    (told,) = objects(run(f"tok-ship {receiver.url} --timeout 1 --batch 25").stdout)
    assert (told["status"], told["rows"]) == ("ok", 60)
    assert len(receiver.rows()) > 60  # what was in doubt came twice
    assert same_as_here(run, receiver.rows()) == 60
    receiver.close()


def test_a_target_that_is_down_is_left_alone_for_a_while(run: Run) -> None:
    append(run, *(turn(n) for n in range(9)))
    receiver = flaky(*[Reply(500)] * 99)
    ship = f"tok-ship {receiver.url} --patience 0"
    done = run(ship, status=1, env={"TOKENOPS_NOW": "2026-11-21T10:00:00Z"})
    assert objects(done.stdout)[0]["status"] == "failing"
    assert "it has a problem (500); the rest is sent with the next run" in done.stderr.decode()
    asked = len(receiver.asked)
    done = run(ship, status=1, env={"TOKENOPS_NOW": "2026-11-21T10:00:30Z"})
    assert "left alone for a while" in done.stderr.decode()
    assert len(receiver.asked) == asked
    receiver.answer = lambda asked: Reply()
    assert objects(run(ship, env={"TOKENOPS_NOW": "2026-11-21T10:01:30Z"}).stdout)[0]["rows"] == 9
    receiver.close()
    endless = Receiver(lambda asked: Reply(200, b"x" * (9 << 20)))
    done = run(f"tok-ship {endless.url} --patience 0", status=1)
    assert "its answer is larger than 8 MiB" in done.stderr.decode()
    endless.close()
    done = run("tok-ship http://127.0.0.1:9/ --patience 0", status=1)
    assert "it cannot be reached (ConnectError)" in done.stderr.decode()


def test_bad_rows_are_put_aside_and_the_rest_goes_on(run: Run, tmp_path: pathlib.Path) -> None:
    append(run, *(turn(n) for n in range(64)))
    bad = {"msg_5", "msg_33", "msg_34"}
    receiver = Receiver(lambda asked: Reply(400, SECRET) if bad & {row["id"] for row in asked.rows()} else Reply())
    done = run(f"tok-ship {receiver.url}", status=1)
    assert (objects(done.stdout)[0]["rows"], objects(done.stdout)[0]["refused"]) == (61, 3)
    assert SECRET not in done.stdout + done.stderr
    (kept,) = (tmp_path / "log/ship").glob("*/refused.jsonl")
    assert {line["row"]["id"] for line in objects(kept.read_bytes())} == bad
    assert kept.stat().st_mode & 0o777 == 0o600
    assert objects(run(f"tok-ship {receiver.url}").stdout)[0]["rows"] == 0
    receiver.answer = lambda asked: Reply(400)
    done = run(f"tok-ship {receiver.url} --backfill", status=1)
    assert "for every row: check the address and its tables" in done.stderr.decode()
    receiver.close()


SECRET = b"Code: 27, e.displayText() = DB::Exception: Cannot parse input near the-words-of-somebody"


def test_a_credential_is_never_shown_and_a_refused_one_is_not_tried_again(
    run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    append(run, turn(1))
    receiver = flaky(Reply(401), Reply(401))
    config = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    about = f'{{url: "{receiver.url}", user: ada, password: "env:CH_PASSWORD"}}'
    put(config, f"ship:\n  machine: build-7\n  user: ada\n  targets:\n    team: {about}\n".encode())
    env = {"CH_PASSWORD": "hunter-two"}
    done = run("tok-ship team", status=1, env=env)
    assert "it refused the credential (401)" in done.stderr.decode()
    assert "it refused this credential; change it" in run("tok-ship team", status=1, env=env).stderr.decode()
    assert len(receiver.asked) == 1
    receiver.answer = lambda asked: Reply()
    done = run("tok-ship team", env={"CH_PASSWORD": "hunter-three"})
    assert receiver.asked[-1].headers["x-clickhouse-user"] == "ada"
    assert receiver.asked[-1].headers["x-clickhouse-key"] == "hunter-three"
    assert {(row["machine"], row["user"]) for row in receiver.rows()} == {("build-7", "ada")}
    for path in (tmp_path / "log").rglob("*"):
        assert path.is_dir() or b"hunter" not in path.read_bytes()
    assert b"hunter" not in done.stdout + done.stderr
    for line, why in (
        ("tok-ship http://ada:pw@127.0.0.1:1/", "holds a user or a password"),
        ("tok-ship nobody", "no target 'nobody' in ship.targets; the nearest known is 'team'"),
        ("tok-ship team", "the environment variable CH_PASSWORD is not set"),
        ("tok-ship", "name a target"),
        ("tok-ship ftp://127.0.0.1/", "expected http or https"),
    ):
        assert why in run(line, status=2).stderr.decode()
    put(config, b"ship: {targets: {team: {url: 'http://clickhouse.example:1/', password: 'env:HOME'}}}\n")
    assert b"would send a password or a token unencrypted; use https" in run("tok-ship team", status=2).stderr
    put(config, b"ship: {targets: {team: {url: 'http://127.0.0.1:1/', password: hunter-two}}}\n")
    done = run("tok-ship team", status=2)
    assert b"a secret in clear; give env:NAME or file:PATH" in done.stderr
    assert b"hunter" not in done.stderr
    receiver.close()


def test_only_one_process_ships_to_a_target(run: Run, environment: dict[str, str]) -> None:
    append(run, turn(1))
    receiver = Receiver(lambda asked: Reply(held=True))
    line = [ROOT / "bin/tok-ship", receiver.url, "--timeout", str(MOST)]
    first = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE)
    eventually(lambda: receiver.asked)
    done = run(f"tok-ship {receiver.url}")
    assert b"another tok-ship is sending to" in done.stderr
    receiver.let_go.set()
    assert first.communicate(timeout=MOST)[0]
    assert len(receiver.asked) == 1
    receiver.close()


def killed_again_and_again(
    environment: dict[str, str], receiver: Receiver | Engine, kills: int, more: tuple[str, ...] = ()
) -> None:
    """Start shippers and kill them at random moments; let a last one finish."""
    rng = random.Random(kills)
    command = [str(ROOT / "bin/tok-ship"), receiver.url, "--kind", "clickhouse", "--now", *more]
    asked = receiver.asked if isinstance(receiver, Receiver) else []
    for _ in range(kills):
        before = len(asked)
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            until = time.monotonic() + MOST
            while (
                isinstance(receiver, Receiver)
                and len(asked) == before
                and process.poll() is None
                and time.monotonic() < until
            ):
                time.sleep(0.002)
            time.sleep(rng.random() * (0.08 if isinstance(receiver, Receiver) else 0.6))
            process.send_signal(signal.SIGKILL)
    subprocess.run(command, env=environment, check=True, capture_output=True)


def test_a_shipper_that_is_killed_again_and_again(run: Run, environment: dict[str, str], target: Receiver) -> None:
    append(run, *(turn(n) for n in range(3000)))
    killed_again_and_again(environment, target, 8, ("--batch", "50"))
    assert same_as_here(run, target.rows()) == 3000
    assert len(target.asked) >= 60


def test_a_crash_between_arrival_and_memory(run: Run, target: Receiver, tmp_path: pathlib.Path) -> None:
    append(run, *(turn(n) for n in range(30)))
    run(f"tok-ship {target.url}")
    (box,) = (tmp_path / "log/ship").iterdir()
    (box / "state.json").unlink()
    day = box / "2026-11-02"
    day.write_bytes(day.read_bytes()[:-13])  # torn in the middle of the digest before the last
    assert objects(run(f"tok-ship {target.url}").stdout)[0]["rows"] == 2
    assert objects(run(f"tok-ship {target.url}").stdout)[0]["rows"] == 0
    assert same_as_here(run, target.rows()) == 30


def test_nothing_leaves_that_says_who_it_is(
    run: Run, environment: dict[str, str], target: Receiver, tmp_path: pathlib.Path
) -> None:
    home = tmp_path / "augusta"
    home.mkdir()
    env = {"HOME": str(home)}
    at_home = {"project": "augusta", "agent_id": "claude-code:augusta", "workflow_id": "claude-code:augusta:s1"}
    task = {
        "v": 1,
        "ts": "2026-11-03T08:00:00.000Z",
        "kind": "task",
        "id": "t",
        "task": "t",
        "event": "start",
        "title": "secret plan",
    }
    append(run, turn(1, **at_home), turn(2), task)
    dry = objects(run(f"tok-ship {target.url} --dry-run", env=env).stdout)
    assert not target.asked
    run(f"tok-ship {target.url}", env=env)
    sent = b"".join(asked.body for asked in target.asked)
    for word in (b"augusta", b"secret", os.uname().nodename.encode() + b'"', str(tmp_path).encode()):
        assert word not in sent
    rows = target.rows()
    assert {row["field"]: row["rows"] for row in dry} == {
        name: sum(name in row for row in rows) for name in ship_rows.COLUMNS if any(name in row for row in rows)
    }
    for row in dry:
        if row["field"] not in ("price_rank", "priced_usd"):
            assert row["example"] in [one.get(row["field"]) for one in rows]
    assert all(row["user"].startswith("h:") and row["machine"].startswith("h:") for row in rows)
    table = run(f"tok-ship {target.url} --dry-run --backfill --table", env=env).stdout.decode()
    assert "2 rows would go to http://127.0.0.1:" in table


def test_records_of_a_pipe(run: Run, target: Receiver, tmp_path: pathlib.Path) -> None:
    given = [*(turn(n) for n in range(12)), turn(3, output_tokens=900), {**turn(1), "kind": "row"}]
    done = run(f"tok-ship {target.url} -", lines(given), status=1)
    assert objects(done.stdout)[0]["rows"] == 13
    assert "records of kind row are not shipped" in done.stderr.decode()
    assert sum(event["output_tokens"] for event in joined(target.rows())) == 11 * 7 + 900
    run(f"tok-ship {tmp_path}/lake -", lines(given[:-1]))
    assert sum(row["output_tokens"] for row in lake(tmp_path)) == 11 * 7 + 900


def lake(folder: pathlib.Path) -> list[Json]:
    found = sorted((folder / "lake").glob("date=*/*.jsonl.gz"))
    return [row for path in found for row in objects(gzip.decompress(path.read_bytes()))]


def test_a_folder_holds_each_turn_once(run: Run, tmp_path: pathlib.Path) -> None:
    ship = "tok-ship ./lake --format jsonl"
    append(run, *(turn(n) for n in range(40)))
    assert objects(run(ship).stdout)[0]["rows"] == 40
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").rglob("*.gz")}
    assert sorted(path.parent.name for path in files) == [f"date=2026-11-0{n}" for n in range(1, 6)]
    run("tok-log compact --gzip", env={"TOKENOPS_NOW": "2026-12-01T00:00:00Z"})
    assert objects(run(ship).stdout)[0]["rows"] == 0
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").rglob("*.gz")}
    append(run, turn(3, output_tokens=80), turn(99, id="late"))
    run(ship)
    rows = lake(tmp_path)
    assert len(rows) == len({row["id"] for row in rows}) == 41
    assert same_as_here(run, rows) == 41
    assert sum(Decimal(row["priced_usd"]) for row in rows) == sum(
        Decimal(row["cost_usd"]) for row in objects(run(f"tok-cat | {COST}").stdout)
    )
    run("tok-log prune --before 2026-11-09")
    append(run, turn(1, id="after"))
    run(ship)
    assert len(lake(tmp_path)) == 42  # what was pruned here stays there


def test_a_folder_joins_what_it_held_with_another_plane(run: Run, tmp_path: pathlib.Path) -> None:
    more = {"alias": "codex:s1:9:0:0:7:0", "client": "codex"}
    append(run, turn(1, id="resp_9", source="proxy", **more))
    run("tok-ship ./lake")
    append(run, turn(1, id="codex:s1:9", source="codex-jsonl", **more))
    run("tok-ship ./lake")
    assert [row["id"] for row in lake(tmp_path)] == ["codex:s1:9"]
    done = run("tok-ship ./lake --format parquet", status=None, env={"PYTHONPATH": ""})
    if done.returncode:
        assert "Parquet needs pyarrow: install tokenops[parquet], or use format jsonl" in done.stderr.decode()


# -- tags

TAGGED: Json = {name: f"a {name}" for name in events.TAGS}


def set_target(environment: dict[str, str], url: object, entry: str) -> None:
    config = pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"ship: {{targets: {{team: {{url: '{url}', {entry}}}}}}}\n")


@pytest.mark.parametrize("kind", ["clickhouse", "otlp"])
def test_tags_are_sent_only_to_a_target_that_lists_them(kind: str, run: Run, environment: dict[str, str]) -> None:
    """Not in another field either, and neither in the list of columns. If it lists more, rows are sent again."""
    target = Receiver()
    append(run, turn(1, **TAGGED))
    for listed, told in (("", 1), ("tags: [skill, branch]", 1), ("tags: [skill, branch]", 0)):
        set_target(environment, target.url, f"kind: {kind}, {listed}")
        begun = len(target.asked)
        assert objects(run("tok-ship team").stdout)[0]["rows"] == told
        came = b"".join(asked.body + repr(asked.query).encode() for asked in target.asked[begun:])
        sent = {name for name in events.TAGS if TAGGED[name].encode() in came}
        assert sent == ({"skill", "branch"} if told and listed else set())
        assert all((name in sent) or (name.encode() not in came) for name in events.TAGS if name != "skill")
    if kind == "otlp":
        (attributes,) = [one["attributes"] for one in records_of(target)[1:]]
        named = {each["key"]: each["value"].get("stringValue") for each in attributes}
        assert (named["tokenops.skill"], named["vcs.ref.head.name"]) == ("a skill", "a branch")
    target.close()


def test_a_folder_gets_the_tags_that_its_entry_lists(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    append(run, turn(1, **TAGGED))
    for listed in ([], ["effort"], [*events.TAGS], []):
        set_target(environment, tmp_path / "lake", f"tags: [{', '.join(listed)}]")
        run("tok-ship team")
        (row,) = lake(tmp_path)
        assert {name for name in events.TAGS if name in row} == set(listed)
        assert "rest" not in row


@pytest.mark.parametrize("entry", ["tags: all", "tags: [skills]", "tags: {skill: true}", "tags: [7]"])
def test_a_list_of_tags_that_is_none_is_named(entry: str, run: Run, environment: dict[str, str]) -> None:
    set_target(environment, "http://127.0.0.1:9/", entry)
    done = run("tok-ship team --dry-run", status=2).stderr.decode()
    assert "ship.targets.team.tags" in done
    assert "list some of subagent, skill, plugin, mcp_server, mcp_tool, effort, branch" in done


# -- laws

NAMES = st.sampled_from(["claude-opus-4-6", "gpt-5.5", "claude-sonnet-4-6", "nobodys-model", "unknown", "sonar-pro"])
COUNTS = st.sampled_from([0, 0, 1, 7, 250_000])
TURNS = st.fixed_dictionaries(
    {
        "ts": st.sampled_from(["2026-11-01T23:59:59.999Z", "2026-11-02T00:00:00.000Z"]),
        "source": st.sampled_from(["claude-code-jsonl", "proxy", "otel"]),
        "project": st.sampled_from(["a", "b"]),
        "provider": st.sampled_from(["anthropic", "openai", "perplexity"]),
        "model": NAMES,
        "input_tokens": COUNTS,
        "output_tokens": COUNTS,
        "cache_read_tokens": COUNTS,
    },
    optional={
        "sidechain": st.just(True),
        "usage": st.sampled_from(["unknown", "partial"]),
        "cost_usd": st.sampled_from(["0.25", "12.000000000000000001"]),
        "cost_source": st.sampled_from(["reported", "client"]),
        "tier": st.sampled_from(["batch", "flex"]),
        "skill": st.sampled_from(["review", "deploy"]),
        "effort": st.just("high"),
        "latency_ms": st.sampled_from([9, 120]),
        "status": st.just(200),
    },
)
CATALOGUE = pricing.load()


def event(given: Json, number: int = 1) -> Json:
    made = {"v": 1, "kind": "turn", "id": f"m{number}", "turns": 1} | {key: value for key, value in given.items() if value}
    if "cost_usd" not in made:
        made.pop("cost_source", None)
    if made.get("source") in events.REVISIONS:
        made["revision"] = events.REVISIONS[made["source"]]
    return events.arrange(made)


@examples(300)
@given(TURNS, TURNS)
def test_ranks_as_text_decide_as_the_join_does(one: Json, other: Json) -> None:
    a, b = (ship_rows.row_of(event(given), CATALOGUE, NOBODY, 1) for given in (one, other))
    both = joins.join(event(one), event(other))
    won = ship_rows.event_of(max(a, b, key=lambda row: str(row["usage_rank"])))
    named = ship_rows.event_of(max(a, b, key=lambda row: str(row["attribution_rank"])))
    assert {k: won.get(k) for k in events.USAGE} == {k: both.get(k) for k in events.USAGE}
    assert {k: named.get(k) for k in events.ATTRIBUTION} == {k: both.get(k) for k in events.ATTRIBUTION}
    assert min(a["ts"], b["ts"]) == both["ts"]


@examples(300)
@given(TURNS)
def test_a_row_gives_its_record_back(given: Json) -> None:
    row = ship_rows.row_of(event(given), CATALOGUE, NOBODY, 1)
    assert ship_rows.event_of(row) == event(given)
    assert ship_rows.event_of(json.loads(ship_rows.line_of(row))) == event(given)
    bare = json.loads(ship_rows.line_of(row, bare=True), parse_float=Decimal)
    assert bare.get("priced_usd", 0) == row.get("priced_usd", 0)
    assert set(row) <= set(ship_rows.COLUMNS)


@examples(100)
@given(st.lists(TURNS, max_size=12))
def test_prices_of_rows_add_up_to_tok_cost(given: list[Json]) -> None:
    made = [event(one, number) for number, one in enumerate(given)]
    plan = rollup.Grouping((), when.zone("UTC"), CATALOGUE)
    rows = list(rollup.merge_rows(rollup.roll_up(made, plan, pytest.fail), CATALOGUE))
    shipped = [ship_rows.row_of(one, CATALOGUE, NOBODY, 1) for one in made]
    total = sum((row["priced_usd"] for row in shipped if "priced_usd" in row), Decimal(0))
    assert pricing.plain(total) == pricing.plain(sum((Decimal(row.get("cost_usd", "0")) for row in rows), Decimal(0)))
    unpriced = sum(item["turns"] for row in rows for item in row.get("unpriced", ()))
    assert unpriced == sum("unpriced" in row for row in shipped)


def test_a_price_with_too_many_digits_is_no_row() -> None:
    with pytest.raises(ship_rows.Unshippable, match="more digits"):
        ship_rows.row_of(event({"ts": "2026-11-01T00:00:00.000Z", "cost_usd": "1e-19"}), CATALOGUE, NOBODY, 1)


def test_the_tables_have_the_rows_columns() -> None:
    text = (pathlib.Path(catalog.FOLDER) / "clickhouse.sql").read_text()
    table = next(ship_clickhouse.statements(text)).partition("(\n")[2].partition("arrived")[0]
    kinds = {"text": "String", "flag": "UInt8", "count": "UInt64", "money": "Decimal(38, 18)", "real": "Nullable(Float64)"}
    found = dict(
        part.split(None, 1) for part in table.replace("(38, 18)", "(38 18)").replace("\n", " ").split(",") if part.strip()
    )
    assert {name: kind.strip().replace("(38 18)", "(38, 18)") for name, kind in found.items()} == {
        name: kinds[kind] for name, kind in ship_rows.COLUMNS.items()
    }


# -- OpenTelemetry


def test_otlp_shapes(run: Run) -> None:
    receiver = Receiver()
    append(run, *(turn(n, cache_read_tokens=10) for n in range(31)), turn(40, model="gpt-5.5", provider="openai"), meter())
    ship = f"tok-ship {receiver.url} --kind otlp"
    run(ship)
    first = sums_of(receiver)
    assert first["gen_ai.client.inference.usage.input_tokens"] == sum(range(31)) + 310 + 40
    assert first["gen_ai.client.inference.usage.output_tokens"] == 32 * 7
    assert first["tokenops.turns"] == 32
    assert len(records_of(receiver)) == 33
    run(ship)  # says the same sums again
    assert sums_of(receiver) == first
    assert len(records_of(receiver)) == 33
    append(run, turn(3, output_tokens=107, cache_read_tokens=10))
    run("tok-log compact --gzip", env={"TOKENOPS_NOW": "2026-12-01T00:00:00Z"})
    run("tok-log prune --before 2026-11-02")
    run(ship)
    assert sums_of(receiver)["gen_ai.client.inference.usage.output_tokens"] == 32 * 7 + 100
    receiver.close()


def sums_of(receiver: Receiver) -> dict[str, int]:
    """The sums of the last export of metrics."""
    export = next(json.loads(asked.body) for asked in reversed(receiver.taken) if asked.path == "/v1/metrics")
    metrics = export["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    return {
        metric["name"]: sum(int(point["asInt"]) for point in metric["sum"]["dataPoints"] if "asInt" in point)
        for metric in metrics
        if "sum" in metric
    }


def records_of(receiver: Receiver) -> list[Json]:
    exports = [json.loads(asked.body) for asked in receiver.taken if asked.path == "/v1/logs"]
    return [one for export in exports for one in export["resourceLogs"][0]["scopeLogs"][0]["logRecords"]]


def test_otlp_that_is_taken_in_part_is_not_sent_again(run: Run) -> None:
    def answer(asked: Asked) -> Reply:
        body = b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"no"}}'
        return Reply(200, body if asked.path.endswith("logs") else b"{}")

    receiver = Receiver(answer)
    append(run, *(turn(n) for n in range(4)))
    done = run(f"tok-ship {receiver.url}v1 --kind otlp", status=1)
    assert objects(done.stdout)[0]["refused"] == 4
    assert objects(run(f"tok-ship {receiver.url}v1 --kind otlp").stdout)[0]["rows"] == 0
    assert {asked.path for asked in receiver.asked} == {"/v1/logs", "/v1/metrics"}
    receiver.close()


def test_waiting_for_a_silent_target_uses_up_the_patience() -> None:
    """A target that never answers costs its time limit once, not once per try."""
    now, sent = [0], []

    def send() -> None:
        sent.append(now[0])
        now[0] += 60_000
        raise etiquette.Trouble(etiquette.FAILING, "no answer within 60 s")

    def pause(seconds: float) -> None:
        now[0] += int(seconds * 1000)

    runtime = ship.Runtime(lambda: now[0], pause, lambda: 0.0, lambda *_: etiquette.Answer(200, {}, b""), 60_000)
    with pytest.raises(etiquette.Trouble):
        ship.retry(send, runtime)
    assert sent == [0]
