"""tok-sync: each byte once, whatever happens to the files between two runs; and the reporters that read the log."""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import subprocess
from typing import Any

import pytest
from soak_clock import Clock

from conftest import (
    MOST,
    ROOT,
    SHARED,
    Json,
    Run,
    claude,
    codex_count,
    codex_meta,
    codex_model,
    lines,
    needs_shared,
    objects,
    put,
    some_of,
)
from tokenops import events, read_clients, store, sync, workers

FOLDER = ".claude/projects/-home-ada-app"
ROLLOUT = ".codex/sessions/2026/05/02/rollout-2026-05-02T10-00-00-{}.jsonl"
A, B = "019aa0c4-2c00-7000-8000-00000000000a", "019aa0c4-2c00-7000-8000-00000000000b"


@pytest.fixture
def home(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["HOME"])


@pytest.fixture
def log(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["TOKENOPS_HOME"])


def told(run: Run, options: str = "", status: int = 0) -> dict[str, Json]:
    return {row["source"].removesuffix("-jsonl"): row for row in objects(run(f"tok-sync {options}", status=status).stdout)}


def in_log(run: Run) -> list[Json]:
    """What the log says of usage; what it says of work has tests of its own."""
    return [event for event in objects(run("tok-cat").stdout) if event["kind"] not in ("work", "context")]


def read_now(run: Run) -> list[Json]:
    return objects(run("tok-read").stdout)


def differing(a: list[Json], b: list[Json]) -> list[str]:
    """What only one of two lists holds."""
    first, second = ({json.dumps(x, sort_keys=True) for x in some} for some in (a, b))
    assert len(first) == len(a) and len(second) == len(b)
    return sorted(f"only the log: {x}" for x in first - second) + sorted(f"only read: {x}" for x in second - first)


def test_only_what_was_appended_is_read(run: Run, home: pathlib.Path) -> None:
    path = put(home / FOLDER / "s1.jsonl", *(claude(f"msg_{n}") for n in range(50)))
    size = path.stat().st_size
    first = told(run)["claude-code"]
    assert (first["files"], first["files_read"], first["bytes_read"], first["events"]) == (1, 1, size, 50)
    again = told(run)["claude-code"]
    assert (again["files_read"], again["files_unchanged"], again["bytes_read"], again["events"]) == (0, 1, 0, 0)
    more = lines([claude("msg_new")])
    with path.open("ab") as file:
        file.write(more)
    third = told(run)["claude-code"]
    assert (third["files_read"], third["bytes_read"], third["events"]) == (1, len(more), 1)
    assert len(in_log(run)) == 51


def test_a_tail_is_no_line_until_it_is_whole(run: Run, home: pathlib.Path) -> None:
    whole = lines([claude("msg_1")])
    path = put(home / FOLDER / "s1.jsonl", whole[:-20])
    told(run)
    assert in_log(run) == []
    path.write_bytes(whole)
    told(run)
    assert [event["id"] for event in in_log(run)] == ["msg_1"]


def rewritten(path: pathlib.Path) -> None:
    path.write_bytes(lines([claude("msg_x", 70), claude("msg_y", 80), claude("msg_z", 90)]))


def replaced(path: pathlib.Path) -> None:
    rewritten(path.with_name("new"))
    path.with_name("new").rename(path)


def truncated(path: pathlib.Path) -> None:
    os.truncate(path, 0)
    with path.open("ab") as file:
        file.write(lines([claude("msg_x", 70)]))


def rotated(path: pathlib.Path) -> None:
    path.rename(path.with_name("s0.jsonl"))
    rewritten(path)


def same_size(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"msg_2", b"msg_7"))


def moved(path: pathlib.Path) -> None:
    (path.parent.parent / "-home-ada-app2").mkdir()
    path.rename(path.parent.parent / "-home-ada-app2" / path.name)


def deleted(path: pathlib.Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [rewritten, replaced, truncated, rotated, same_size, moved, deleted])
def test_whatever_becomes_of_a_file_nothing_is_lost_and_nothing_counted_twice(
    change: object, run: Run, home: pathlib.Path
) -> None:
    path = put(home / FOLDER / "s1.jsonl", *(claude(f"msg_{n}", 10 + n) for n in range(3)))
    told(run)
    before = {event["id"]: event["output_tokens"] for event in in_log(run)}
    change(path)  # type: ignore[operator]
    told(run)
    now = {event["id"]: event["output_tokens"] for event in objects(run("tok-read", status=None).stdout)}
    assert {event["id"]: event["output_tokens"] for event in in_log(run)} == before | now
    if change is moved:
        assert told(run)["claude-code"]["files_read"] == 0


def grown(home: pathlib.Path, files: dict[str, bytes], rng: random.Random, cuts: int, run: Run) -> None:
    """Write files a piece at a time, cut anywhere, with a run of tok-sync after each.

    A fork begins when its parent is whole.
    """
    at = dict.fromkeys(files, 0)
    parents = {name: set(kin(content)[1:]) for name, content in files.items()}
    owners = {kin(content)[0]: name for name, content in files.items()}
    for _ in range(len(files) * cuts * 3):
        for name, content in files.items():
            if any(at[owners[one]] < len(files[owners[one]]) for one in parents[name] & set(owners) if owners[one] != name):
                continue
            end = min(len(content), at[name] + rng.randrange(1, 2 + 2 * len(content) // cuts))
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            with (home / name).open("ab") as file:
                file.write(content[at[name] : end])
            at[name] = end
        assert run("tok-sync", status=None).returncode in (0, 1)
        if all(at[name] == len(content) for name, content in files.items()):
            return
    raise AssertionError("the files never became whole")


def kin(content: bytes) -> list[str]:
    """The thread of a rollout, and those it names as its parents."""
    payload = json.loads(content.split(b"\n", 1)[0]).get("payload") or {}
    source = payload.get("source")
    spawn = source.get("subagent", {}) if isinstance(source, dict) else {}
    spawn = spawn.get("thread_spawn", {}) if isinstance(spawn, dict) else {}
    parents = (payload.get("forked_from_id"), payload.get("parent_thread_id"), spawn.get("parent_thread_id"))
    return [str(payload.get("id")), *(one for one in parents if one and one != payload.get("id"))]


def codex_family() -> dict[str, bytes]:
    """A thread whose model is named late, a fork of it, and a second that repeats totals."""
    parent = [codex_meta(A), codex_count((100, 0, 10, 0), (100, 0, 10, 0), "2026-05-02T10:00:05.000Z"), codex_count((250, 90, 30, 5), (150, 90, 20, 5), "2026-05-02T10:00:09.000Z"), codex_model("gpt-5.4"), codex_count((400, 190, 40, 5), (150, 100, 10, 0), "2026-05-02T10:01:09.000Z")]  # fmt: skip
    copy = [{**line, "timestamp": "2026-05-02T10:05:00.100Z"} for line in parent[1:]]
    fork = [codex_meta(B, forked_from_id=A, at="2026-05-02T10:05:00.000Z"), *copy, codex_count((400, 190, 40, 5), None, "2026-05-02T10:06:00.000Z"), codex_count((900, 490, 90, 15), (500, 300, 50, 10), "2026-05-02T10:06:30.000Z")]  # fmt: skip
    return {ROLLOUT.format(A): lines(parent), ROLLOUT.format(B): lines(fork)}


def claude_family() -> dict[str, bytes]:
    partial = [claude(f"msg_{n}", output, ts=f"2026-03-01T09:00:{n:02d}.000Z") for n in range(9) for output in (1, 5, 40)]
    fork = [dict(line, sessionId="s2") for line in partial[:12]] + [claude("msg_fork", sessionId="s2")]
    side = [claude("msg_side", isSidechain=True), claude("msg_3", 7, isSidechain=True)]
    return {
        f"{FOLDER}/s1.jsonl": lines(partial),
        f"{FOLDER}/s2.jsonl": lines(fork),
        f"{FOLDER}/s1/subagents/agent-1.jsonl": lines(side),
    }


@pytest.mark.parametrize("seed", some_of(range(6), 2))
def test_growing_logs_give_what_one_reading_gives(seed: int, run: Run, home: pathlib.Path) -> None:
    rng = random.Random(seed)
    grown(home, codex_family() | claude_family(), rng, 3 + seed, run)
    assert not differing(in_log(run), read_now(run))
    run("tok-log verify")


@needs_shared
@pytest.mark.parametrize(
    "name",
    some_of(["home", "archived-fork-33ce-3869", "harness-smoke", "live-fork-4d90-52bf", "missing-parent-siblings"], 2),
)
def test_growing_real_logs(name: str, run: Run, home: pathlib.Path) -> None:
    root, client = (SHARED / name, "claude codex") if name == "home" else (SHARED / "codex-forks" / name / "codex-home", "")
    folders = (".claude/projects", ".codex/sessions") if name == "home" else ("",)
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*.jsonl"))]
    assert paths
    below = "" if name == "home" else ".codex/"
    files = {f"{below}{path.relative_to(root)}": path.read_bytes() for path in paths}
    grown(home, files, random.Random(name), 4, run)
    assert not differing(in_log(run), objects(run(f"tok-read {client}", status=None).stdout))


def test_a_model_named_late_is_filled_in(run: Run, home: pathlib.Path) -> None:
    path = put(home / ROLLOUT.format(A), codex_meta(A), codex_count((100, 0, 10, 0), (100, 0, 10, 0)))
    told(run)
    assert [event["model"] for event in in_log(run)] == ["unknown"]
    with path.open("ab") as file:
        file.write(lines([codex_model("gpt-5.4")]))
    told(run)
    assert [event["model"] for event in in_log(run)] == ["gpt-5.4"]


def test_a_dry_run_writes_nothing(run: Run, home: pathlib.Path, log: pathlib.Path) -> None:
    put(home / FOLDER / "s1.jsonl", claude("msg_1"))
    assert told(run, "--dry-run")["claude-code"]["events"] == 1
    assert [path.name for path in log.iterdir()] == ["sync.lock"]
    assert told(run)["claude-code"]["events"] == 1


def test_backfill_adds_only_what_the_log_does_not_say(run: Run, home: pathlib.Path, log: pathlib.Path) -> None:
    put(home / FOLDER / "s1.jsonl", *(claude(f"msg_{n}") for n in range(5)))
    told(run)
    before = in_log(run)
    assert told(run, "--backfill")["claude-code"]["events"] == 0
    shutil.rmtree(log / "events")
    assert told(run, "--backfill")["claude-code"]["events"] == 5
    assert in_log(run) == before


def test_backfill_completes_what_an_earlier_version_stored(
    run: Run, home: pathlib.Path, log: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Tags of files that still exist; a turn whose file is gone stays as it was, and so do other places' cursors."""
    turns = [claude(f"msg_{n}", uuid=f"u{n}", gitBranch="main", effort="low") for n in range(4)]
    put(home / FOLDER / "s1.jsonl", *turns[:2])
    put(home / FOLDER / "gone.jsonl", turns[2] | {"sessionId": "s2"})
    put(tmp_path / "other" / FOLDER / "s3.jsonl", turns[3])
    told(run)
    told(run, "--root other")
    for path in (log / "events").iterdir():
        bare = [
            {key: value for key, value in event.items() if key not in events.TAGS} for event in objects(path.read_bytes())
        ]
        put(path, lines(bare))
    (home / FOLDER / "gone.jsonl").unlink()
    for option, completed, sentence in (
        ("--dry-run", 2, "0 records would be added, 2 records would be completed"),
        ("", 2, "0 records added, 2 records completed"),
        ("", 0, "the log has all that these files hold"),
    ):
        done = run(f"tok-sync --json --backfill {option}")
        (row,) = [row for row in objects(done.stdout) if row["source"] == "claude-code-jsonl"]
        assert (row["events"], row["completed"]) == (completed, completed)
        assert sentence in done.stderr.decode()
    rows = objects(run("tok-cost --log --since all --by branch,effort --json").stdout)
    assert [(row.get("branch"), row.get("effort"), row["turns"]) for row in rows] == [("main", "low", 2), (None, None, 2)]
    assert told(run, "--root other")["claude-code"]["files_read"] == 0


def test_an_interrupted_backfill_keeps_what_it_did(home: pathlib.Path, log: pathlib.Path, monkeypatch: Any) -> None:
    """It writes piece by piece; files that it did not come to keep their cursors."""
    for number in range(3):
        put(home / FOLDER / f"s{number}.jsonl", claude(f"msg_{number}", sessionId=f"s{number}", gitBranch="main"))
    paths = sorted(map(str, (home / FOLDER).glob("*.jsonl")))
    client = next(client for client in read_clients.CLIENTS if client.source == "claude-code-jsonl")
    folder = str(log)
    sync.run(folder, [(client, paths)])
    shutil.rmtree(log / "events")
    before = (log / "cursors.json").read_bytes()
    monkeypatch.setattr(sync, "PIECE", 1)

    class Interrupted(workers.Progress):
        files = 0

        def __call__(self, size: int) -> None:
            self.files += 1
            if self.files == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync.run(folder, [(client, paths)], backfill=True, jobs=1, progress=Interrupted())
    assert sum(store.kind_of(line) == b"turn" for line in store.cat(folder)) == 1
    assert (log / "cursors.json").read_bytes() == before
    (outcome,) = sync.run(folder, [(client, paths)], backfill=True) or ()
    assert (outcome.events, outcome.completed) == (2, 0)
    assert (log / "cursors.json").read_bytes() == before


def test_unreadable_cursors_mean_reading_again(run: Run, home: pathlib.Path, log: pathlib.Path) -> None:
    put(home / FOLDER / "s1.jsonl", *(claude(f"msg_{n}") for n in range(5)))
    told(run)
    before = in_log(run)
    for content in (b"", b"{}", b'{"v":9}', b"[1]", b'{"v":1,"sources":{"claude-code-jsonl":{"x":[1]}}}', b"\xff"):
        (log / "cursors.json").write_bytes(content)
        told(run)
        assert in_log(run) == before


def test_other_places_keep_their_cursors(run: Run, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    put(home / FOLDER / "s1.jsonl", claude("msg_1"))
    put(tmp_path / "other" / FOLDER / "s2.jsonl", claude("msg_2"))
    told(run)
    assert told(run, "--root other")["claude-code"]["events"] == 1
    assert told(run)["claude-code"]["files_read"] == 0
    assert told(run, "--root other")["claude-code"]["files_read"] == 0


def test_what_is_rejected_is_said_once_and_the_rest_is_taken(run: Run, home: pathlib.Path) -> None:
    path = put(home / FOLDER / "s1.jsonl", claude("msg_1"), b'{"type":"assistant", nonsense\n', claude("msg_2"))
    done = run("tok-sync", status=1)
    assert done.stderr.decode().startswith(f"tok-sync: {path}:2: not JSON")
    assert objects(done.stdout)[0]["rejected"] == 1
    assert len(in_log(run)) == 2
    run("tok-sync")


def test_the_second_of_two_runs_leaves_it_to_the_first(run: Run, home: pathlib.Path, log: pathlib.Path) -> None:
    put(home / FOLDER / "s1.jsonl", claude("msg_1"))
    log.mkdir(mode=0o700)
    done = run("exec 9>$TOKENOPS_HOME/sync.lock; flock 9; tok-sync 9>&-")
    assert b"another tok-sync is running" in done.stderr
    assert in_log(run) == []


def test_reading_shows_two_projects_of_one_name_apart(run: Run, home: pathlib.Path) -> None:
    put(home / ".claude/projects/-home-ada-a-app/s1.jsonl", claude("msg_1", cwd="/home/ada/a/app"))
    told(run)
    assert {event["project"] for event in in_log(run)} == {"app"}
    put(home / ".claude/projects/-home-ada-b-app/s2.jsonl", claude("msg_2", cwd="/home/ada/b/app", sessionId="s2"))
    told(run)
    assert sorted(event["project"] for event in in_log(run)) == ["a/app", "b/app"]
    assert not differing(in_log(run), read_now(run))
    assert len(objects(run("tok-cat --kind turn --project app").stdout)) == 2
    assert [event["id"] for event in objects(run("tok-cat --kind turn --project a/app").stdout)] == ["msg_1"]


NOW = {"TOKENOPS_NOW": "2026-03-20T12:00:00Z"}


def test_reporters_take_in_what_is_new_first(run: Run, home: pathlib.Path, still: Clock) -> None:
    path = put(home / FOLDER / "s1.jsonl", claude("msg_1"))
    (row,) = objects(run("tok-cost --log", env=NOW).stdout)
    assert (row["turns"], row["as_of"]) == (1, "2026-03-20T12:00:00.000Z")
    with path.open("ab") as file:
        file.write(lines([claude("msg_2")]))
    still.jump(1999)
    assert objects(run("tok-cost --log", env=NOW).stdout)[0]["turns"] == 1  # somebody looked within two seconds
    still.jump(1)
    assert objects(run("tok-cost --log", env=NOW).stdout)[0]["turns"] == 2


def test_reporters_read_no_more_than_their_budget_allows(run: Run, home: pathlib.Path, still: Clock) -> None:
    put(home / FOLDER / "s1.jsonl", claude("msg_1"))
    run("tok-cost --log", env=NOW)
    for n in (2, 3):
        put(home / FOLDER / f"s{n}.jsonl", *(claude(f"msg_{n}_{k}", m_content="x" * 2**20) for k in range(5)))
    still.jump(3000)
    done = run("tok-cost --log", env=NOW)
    assert objects(done.stdout)[0]["turns"] == 6
    assert objects(done.stdout)[0]["as_of"] == "2026-11-21T09:30:00.000Z"  # when all was read last
    assert done.stderr == b"tok-cost: 5 MiB of the clients' logs are not imported yet; run tok-sync\n"
    run("tok-sync")
    assert objects(run("tok-cost --log", env=NOW).stdout)[0]["turns"] == 11


def test_what_a_report_covers(run: Run, home: pathlib.Path) -> None:
    times = ["2026-02-28T23:30:00.000Z", "2026-03-01T00:30:00.000Z", "2026-03-20T09:00:00.000Z"]
    put(home / FOLDER / "s1.jsonl", *(claude(f"msg_{n}", ts=ts) for n, ts in enumerate(times)))
    for options, turns in (
        ("", 2), ("--tz Europe/Berlin", 3), ("--today", 1), ("--since 365d", 3), ("--since 2026-02-28 --until 2026-02-28", 1),
    ):  # fmt: skip
        assert objects(run(f"tok-cost --log --by none {options}", env=NOW).stdout)[0]["turns"] == turns, options
    for options, turns in (("--project app", 2), ("--client claude-code", 2), ("--model claude-opus-4-6", 2)):
        assert objects(run(f"tok-cost --log --by none {options}", env=NOW).stdout)[0]["turns"] == turns
        assert (
            objects(run(f"tok-cat | tok-cost --by none --since 2026-03-01 {options}", env=NOW).stdout)[0]["turns"] == turns
        )
    assert run("tok-cost --log --project nobody", env=NOW).stdout == b""
    assert b"give --project to tok-read" in run("tok-cat | tok-rollup --by day | tok-cost --project app", status=2).stderr
    heading = run("tok-cost --log --table", env=NOW).stdout.decode().splitlines()[0]
    assert heading.startswith("1 Mar to now, UTC, as of ") and heading.endswith(
        "; earlier usage, from 2026-02-28 on: --since all"
    )
    assert b"--today is a span of its own" in run("tok-cost --log --today --since 7d", status=2).stderr


def test_a_log_that_cannot_be_written_is_said(run: Run, home: pathlib.Path) -> None:
    put(home / FOLDER / "s1.jsonl", claude("msg_1"))
    done = run("tok-sync", status=2, env={"TOKENOPS_HOME": "/dev/null/log"})
    assert done.stderr.count(b"\n") == 1 and b"Traceback" not in done.stderr


def test_following(home: pathlib.Path, environment: dict[str, str]) -> None:
    path = put(home / FOLDER / "s1.jsonl", claude("msg_1", 1), claude("msg_1", 5))
    rollout = put(home / ROLLOUT.format(A), codex_meta(A), codex_model("gpt-5.4"))
    process = subprocess.Popen([ROOT / "bin/tok-read", "--follow"], env=environment, stdout=subprocess.PIPE)
    assert process.stdout
    try:
        with path.open("ab") as file:
            file.write(lines([claude("msg_1", 40), claude("msg_2", 3, ts="2026-03-01T09:00:05.000Z")]))
        first = json.loads(process.stdout.readline())
        assert (first["id"], first["output_tokens"]) == ("msg_1", 40)  # its session has gone on
        with rollout.open("ab") as file:
            file.write(
                lines(
                    [
                        codex_count((9, 0, 1, 0), (9, 0, 1, 0)),
                        codex_count((19, 0, 2, 0), (10, 0, 1, 0), "2026-05-02T10:00:10.000Z"),
                    ]
                )
            )
        assert json.loads(process.stdout.readline())["client"] == "codex"
    finally:
        process.terminate()
        process.wait(MOST)


def test_explaining(run: Run, home: pathlib.Path) -> None:
    put(home / FOLDER / "s1.jsonl", claude("msg_1", 3), claude("msg_1", 40, ts="2026-03-01T09:00:02.000Z"))
    put(home / FOLDER / "s2.jsonl", claude("msg_1", 40, sessionId="s2", isSidechain=True))
    for name, content in codex_family().items():
        put(home / name, content)
    told(run)
    (found,) = objects(run("tok-log explain msg_1").stdout)
    verdicts = {pathlib.Path(one["place"]).name: one["verdict"] for one in found["sightings"]}
    assert verdicts["s1.jsonl:1"] == "its counts are not used: another copy has the larger output"
    assert verdicts["s1.jsonl:2"].startswith("its counts are used; another copy began earlier")
    assert verdicts["s2.jsonl:1"].startswith(
        "a copy with the same counts; its project and session are not used: another copy is from the main chain"
    )
    assert verdicts["2026-03-01.jsonl:1"] == "a copy with the same counts"
    total = sum(float(line["usd"]) for line in found["cost_lines"])
    assert f"{total:.10f}".rstrip("0") == found["cost_usd"]
    (copied,) = objects(run(f"tok-log explain codex:{A}:0:400-190-40-5").stdout)
    assert [one["verdict"] for one in copied["sightings"]] == [
        "its counts are used", "a fork's copy of its parent's row; the parent's row counts", "a copy with the same counts",
    ]  # fmt: skip
    assert [one["place"].rpartition(":")[2] for one in copied["sightings"]][:2] == ["5", "5"]
    text = run("tok-log explain msg_1 --table").stdout.decode()
    assert "~/.claude/projects/-home-ada-app/s1.jsonl:2" in text and "total $" in text
    assert b"it is neither in the log nor in a client's files" in run("tok-log explain msg_9", status=2).stderr
