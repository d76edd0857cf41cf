"""The log: what is durable, what a crash leaves, how sightings become one turn, what verify finds."""

from __future__ import annotations

import functools
import gzip
import itertools
import os
import pathlib
import random
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import MOST, ROOT, Json, Run, examples, lines, objects, put
from tokenops import events, joins, jsonl, store, store_files, store_upkeep, when

DAY = "2026-11-01"
NOW = when.moment("2026-11-20T12:00:00Z")


def turn(name: str, ts: str = f"{DAY}T12:00:00.000Z", **given_: Any) -> Json:
    base: Json = {"v": 1, "ts": ts, "kind": "turn", "id": name, "source": "claude-code-jsonl", "client": "claude-code"}
    base |= {"provider": "anthropic", "model": "claude-opus-4-6", "turns": 1, "output_tokens": 7}
    return events.arrange(base | given_)


@pytest.fixture
def log(environment: dict[str, str]) -> pathlib.Path:
    return pathlib.Path(environment["TOKENOPS_HOME"])


def ids(data: bytes) -> list[str]:
    return [event["id"] for event in objects(data)]


def test_an_id_is_printed_once_its_event_is_in_the_log(run: Run, log: pathlib.Path) -> None:
    done = run("tok-log append", lines([turn("a"), turn("b", "2026-11-02T00:00:00.000Z"), turn("c")]))
    assert done.stdout == b"a\nb\nc\n"
    assert ids((log / f"events/{DAY}.jsonl").read_bytes()) == ["a", "c"]
    assert ids(run("tok-cat").stdout) == ["a", "c", "b"]
    assert stat.S_IMODE(log.stat().st_mode) == stat.S_IMODE((log / "events").stat().st_mode) == 0o700
    assert stat.S_IMODE((log / f"events/{DAY}.jsonl").stat().st_mode) == 0o600


def test_a_slow_writer_is_answered_line_by_line(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [ROOT / "bin/tok-log", "append"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    for name in ("a", "b"):
        process.stdin.write(lines([turn(name)]))
        process.stdin.flush()
        assert process.stdout.readline() == name.encode() + b"\n"
    process.stdin.close()
    assert process.wait(MOST) == 0


SECRET = "please rewrite my diary " * 30


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (turn("x", prompt="hello"), "the field 'prompt' is not known for kind turn; leave it out"),
        (turn("x", model=SECRET), "model has more than 200 characters; longer text is not stored"),
        (turn("x", error=SECRET), "error has more than 200 characters; longer text is not stored"),
        (turn("x", kind="row"), "kind is not known; expected one of turn, usage,"),
        (turn("x", kind=SECRET), "kind is not known; expected one of"),
        (turn("x", output_tokens=-1), "output_tokens is a negative number; expected a count"),
        (turn("x", output_tokens=1.5), "output_tokens is a number with a fraction; expected a count"),
        (turn("x", model={"a": SECRET}), "expected text"),
        (turn("x", tier=["a"]), "tier is an array; expected text"),
        (turn("x", sidechain="yes"), "sidechain is a string; expected true or false"),
        (turn("x", ts="yesterday"), "ts is a string; expected a time such as"),
        (turn("x", ts="2026-11-01T12:00:00Z"), "expected a time such as 2026-11-21T09:30:00.120Z"),
        (turn("x", ts="../../../xT12:00:00.000Z"), "expected a time such as"),
        (turn("x", cost_usd=0.5), "cost_usd is a number with a fraction; expected a decimal number as text"),
        (turn("x", cost_usd="1e9"), "expected a decimal number as text"),
        (turn(""), "id is missing"),
        (turn("x", v=2), "v is another version; this program writes version 1"),
        ({"v": 1, "ts": f"{DAY}T12:00:00.000Z", "kind": "work", "id": "w", "counts": {"a": [SECRET]}}, "counts is an object; expected an object of counts"),
    ],
)  # fmt: skip
def test_what_the_log_does_not_take(record: Json, why: str, run: Run, log: pathlib.Path) -> None:
    done = run("tok-log append", lines([turn("before"), record, turn("after")]), status=1)
    assert done.stdout == b"before\nafter\n"
    assert done.stderr.decode().startswith("tok-log: stdin:2: ")
    assert why in done.stderr.decode()
    assert b"diary" not in done.stderr
    assert ids(run("tok-cat").stdout) == ["after", "before"]
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in log.rglob("*") if path.is_file())


def test_a_torn_line_is_set_apart_and_skipped(run: Run, log: pathlib.Path) -> None:
    run("tok-log append", lines([turn("a")]))
    with (log / f"events/{DAY}.jsonl").open("ab") as file:
        file.write(lines([turn("torn")])[:90])
    assert ids(run("tok-cat").stdout) == ["a"]  # a tail is no line yet
    run("tok-log append", lines([turn("b")]))
    done = run("tok-cat", status=1)
    assert ids(done.stdout) == ["a", "b"]
    assert b"1 line of the log could not be read" in done.stderr
    assert b"\x1b[31m" in run("tok-log verify --table --color always", status=1).stdout
    (finding,) = objects(run("tok-log verify", status=1).stdout)
    assert (finding["place"], finding["problem"]) == (f"{log}/events/{DAY}.jsonl:2", "not JSON")
    run("tok-log compact")
    assert (log / f"rejected/{DAY}.txt").read_bytes() == lines([turn("torn")])[:90] + b"\n"
    assert ids(run("tok-cat").stdout) == ["a", "b"]
    run("tok-log verify")


def full(prefix: str, run: Run, many: bytes) -> subprocess.CompletedProcess[bytes]:
    return run(f"{prefix} tok-log append", many, status=None)


def test_a_file_size_limit_in_mid_append_then_room(run: Run, log: pathlib.Path) -> None:
    run("tok-log append", lines([turn("first")]))
    many = [turn(f"t{n}") for n in range(1000)]
    done = full("ulimit -f 64;", run, lines(many))
    assert done.returncode == 2
    assert b"File too large" in done.stderr and done.stderr.count(b"\n") == 1
    acknowledged = done.stdout.decode().split()
    run("tok-log verify")
    assert set(acknowledged) <= set(ids(run("tok-cat").stdout))
    assert run("tok-log append", lines(many)).stdout.count(b"\n") == 1000
    assert sorted(ids(run("tok-cat").stdout)) == sorted(["first", *(f"t{n}" for n in range(1000))])


def test_a_full_disk_in_mid_append_then_room(run: Run, tmp_path: pathlib.Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk of his own")
    put(tmp_path / "many.jsonl", *(turn(f"t{n}") for n in range(3000)))
    (tmp_path / "disk").mkdir()
    script = f"""
        mount -t tmpfs -o size=256k tmpfs {tmp_path}/disk || exit 77
        export TOKENOPS_HOME={tmp_path}/disk/log
        head -100 many.jsonl | tok-log append > acks1 || exit 1
        tok-log append many.jsonl > acks2; [ $? = 2 ] || exit 2
        tok-log verify || exit 3
        cat acks1 acks2 | sort -u > acks; tok-cat | jq -r .id | sort > have
        [ -z "$(comm -23 acks have)" ] || exit 4
        mount -o remount,size=16m {tmp_path}/disk || exit 77
        tok-log append many.jsonl | wc -l > acks3
        tok-log verify || exit 5
        tok-cat | jq -r .id | sort | uniq -c | awk '{{print $1}}' | sort | uniq -c > counted
    """
    put(tmp_path / "script.sh", script.encode())
    done = run("unshare -rm bash script.sh", status=None)
    if done.returncode == 77 or b"jq: command not found" in done.stderr:
        pytest.skip("this machine lets nobody mount a small disk of his own, or has no jq")
    assert done.returncode == 0, done.stderr
    assert b"No space left on device" in done.stderr
    assert (tmp_path / "acks3").read_text().strip() == "3000"
    assert (tmp_path / "counted").read_text().split() == ["3000", "1"]


def test_a_turn_sighted_on_both_sides_of_midnight_is_one_of_the_day_it_began(run: Run, log: pathlib.Path) -> None:
    late = turn("m", f"{DAY}T23:59:59.999Z", output_tokens=3)
    later = turn("m", "2026-11-02T00:00:00.001Z", output_tokens=9)
    run("tok-log append", lines([later, late, turn("n", "2026-11-02T00:00:00.000Z")]))
    for span, expected in (("", {"m": 9, "n": 7}), (f"--until {DAY}", {"m": 9}), ("--since 2026-11-02", {"n": 7})):
        assert {e["id"]: e["output_tokens"] for e in objects(run(f"tok-cat {span}").stdout)} == expected
    run("tok-log compact")
    assert ids(run(f"tok-cat --until {DAY}").stdout) == ["m"]


@pytest.mark.parametrize("wire_at", [f"{DAY}T23:59:58.000Z", "2026-11-02T00:00:09.000Z"])
def test_a_turn_of_log_and_wire_without_a_common_id_is_one(wire_at: str, run: Run) -> None:
    log_side = turn("codex:t:0:9", f"{DAY}T23:59:59.000Z", alias="codex:s:9", source="codex-jsonl", project="app")
    wire = turn("resp_1", wire_at, alias="codex:s:9", source="proxy", latency_ms=12)
    twin = turn("codex:t:0:10", f"{DAY}T23:59:59.500Z", alias="codex:s:9", source="codex-jsonl", project="app")
    for order in ([log_side, wire, twin], [wire, log_side, twin], [twin, wire, log_side]):
        run("rm -rf $TOKENOPS_HOME; tok-log append", lines(order))
        found = objects(run("tok-cat").stdout)
        assert len(found) == 2
        assert [event.get("latency_ms") for event in found].count(12) == 1
        assert {event["project"] for event in found} == {"app"}


def test_one_sighting_of_each_plane_is_a_turn() -> None:
    """Twins in the log, on the wire and in the client's telemetry, in any order: two turns."""
    made = [
        turn(f"{source}:{n}", f"{DAY}T12:00:0{n}.000Z", alias="codex:s:9", source=source)
        for source in ("codex-jsonl", "proxy", "otel")
        for n in range(2)
    ]
    for order in itertools.permutations(made):
        records = store.DayRecords()
        for event in order:
            records.add(event["id"], jsonl.line_of(events.arrange(event)))
        found = [orjson.loads(line) for line in records.lines.values()]
        assert [event["source"] for event in found] == ["codex-jsonl"] * 2
        assert [event["ts"] for event in found].count(f"{DAY}T12:00:00.000Z") > 0
        assert all(event["id"] in records for event in made)


def test_files_outside_the_span_are_not_opened(run: Run, log: pathlib.Path) -> None:
    run("tok-log append", lines([turn("a", f"2026-11-0{day}T12:00:00.000Z") | {"id": f"d{day}"} for day in range(1, 8)]))
    for day in (1, 2, 6, 7):
        path = log / f"events/2026-11-0{day}.jsonl"
        path.unlink()
        path.mkdir()  # opening it would fail
    assert ids(run("tok-cat --since 2026-11-04 --until 2026-11-04").stdout) == ["d4"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_is_seen_wherever_it_stands(packed: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_files, "_PIECE", 16)
    path = tmp_path / f"{DAY}.jsonl{'.gz' if packed else ''}"
    day = store_files.Day(DAY, (str(path),))
    for before in range(40):
        data = b"." * before + b"needle" + b"." * 20
        path.write_bytes(gzip.compress(data) if packed else data)
        assert store_files.has_any(day, [b"thread", b"needle"])
        assert not store_files.has_any(day, [b"needles", b"needle.x"])
    path.write_bytes(gzip.compress(b"needle" * 99)[:20])
    assert not store_files.has_any(day, [b"thread"])
    path.unlink()
    assert not store_files.has_any(day, [b"needle"])


def test_filters(run: Run) -> None:
    made = [
        turn("a", project="x/app", project_id="1", session_id="s1"),
        turn("b", project="app", session_id="s2", model="claude-haiku-5-5"),
        turn("c", client="codex", project="web"),
        {"v": 1, "ts": f"{DAY}T13:00:00.000Z", "kind": "ping", "id": "p", "tool": "tokenops_status"},
    ]
    run("tok-log append", lines(made))
    for options, expected in (
        ("--project app", "ab"), ("--project x/app", "a"), ("--session s2", "b"), ("--client codex", "c"),
        ("--model claude-haiku-5-5", "b"), ("--kind ping", "p"), ("--kind ping,turn --client claude-code", "ab"),
    ):  # fmt: skip
        assert "".join(ids(run(f"tok-cat {options}").stdout)) == expected, options
    assert b"--kind pong: no such kind; choose from turn" in run("tok-cat --kind pong", status=2).stderr


# Sightings of few turns near midnight, in every constellation.
SIGHTING = st.builds(
    lambda name, ts, output, source, side: turn(name, ts, output_tokens=output, source=source, **side),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(
        [f"{DAY}T23:59:59.999Z", f"{DAY}T12:00:00.000Z", "2026-11-02T00:00:00.000Z", "2026-11-02T12:00:00.000Z"]
    ),
    st.integers(1, 3),
    st.sampled_from(["claude-code-jsonl", "proxy"]),
    st.sampled_from(
        [{}, {"sidechain": True}, {"latency_ms": 5}, {"usage": "unknown"}, {"machine": "a"}, {"machine": "b", "user": "u"}]
    ),
)


def contents(folder: str) -> list[bytes]:
    return sorted(store.cat(folder))


@examples(120)
@given(st.lists(SIGHTING, min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_import_in_any_order_and_any_number_of_times_gives_the_same_log(
    tmp_path: pathlib.Path, made: list[Json], rng: random.Random
) -> None:
    expected = sorted(map(jsonl.line_of, functools.reduce(lambda a, _: a, [list(joins.join_all(made))])))
    for attempt in ("1", "2"):
        folder = str(tmp_path / attempt)
        shutil.rmtree(folder, ignore_errors=True)
        shuffled = [*made, *rng.sample(made, len(made) // 2)]
        rng.shuffle(shuffled)
        cut = rng.randrange(len(shuffled) + 1)
        for part in (shuffled[:cut], shuffled[cut:], shuffled):
            store.append(folder, store.new_lines(folder, map(jsonl.line_of, part))[0])
        assert contents(folder) == expected
        assert store.new_lines(folder, map(jsonl.line_of, shuffled)) == ([], 0)
        list(store_upkeep.compact(folder, "2026-11-02", rng.random() < 0.5))
        assert contents(folder) == expected


def test_import_of_another_log(run: Run, log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    run("tok-log append", lines([turn("a"), turn("b", output_tokens=9)]), env={"TOKENOPS_HOME": str(other)})
    run("tok-log append", lines([turn("b"), turn("c", "2026-11-03T12:00:00.000Z")]))
    for _ in range(2):
        done = run("tok-log import other; tok-log import --table other/events")
        assert b"2 events read, 0 added" in done.stdout
    assert {e["id"]: e["output_tokens"] for e in objects(run("tok-cat").stdout)} == {"a": 7, "b": 9, "c": 7}
    put(tmp_path / "e.jsonl", turn("d"), b"nonsense\n", turn("e", prompt="x"))
    done = run("tok-log import -v e.jsonl", status=1)
    assert objects(done.stdout) == [{"v": 1, "kind": "import", "events": 1, "added": 1}]
    assert [text.split(": ")[1] for text in done.stderr.decode().splitlines()] == ["e.jsonl:2", "e.jsonl:3"]
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(lines([turn("f")])))
    assert objects(run("tok-log import f.jsonl.gz").stdout)[0]["added"] == 1
    assert b"no such file or directory" in run("tok-log import nowhere", status=2).stderr


def test_compaction_packs_closed_days_and_late_events_go_beside_them(run: Run, log: pathlib.Path) -> None:
    run("tok-log append", lines([turn("a"), turn("a", output_tokens=8), turn("b"), turn("z", "2026-11-20T11:00:00.000Z")]))
    before = run("tok-cat").stdout
    env = {"TOKENOPS_NOW": "2026-11-20T12:00:00Z"}
    done = objects(run("tok-log compact --gzip", env=env).stdout)
    assert [(one["day"], one["before"], one["after"]) for one in done] == [(DAY, 3, 2)]
    assert sorted(os.listdir(log / "events")) == [f"{DAY}.jsonl.gz", "2026-11-20.jsonl"]
    assert run("tok-cat").stdout == before
    run("tok-log append", lines([turn("late")]))
    assert ids(run(f"tok-cat --until {DAY}").stdout) == ["a", "b", "late"]
    assert objects(run("tok-log compact --gzip", env=env).stdout)[0]["after"] == 3
    assert objects(run("tok-log compact --gzip", env=env).stdout) == []
    run("tok-log verify", env=env)


def test_pruning(run: Run, log: pathlib.Path) -> None:
    run("tok-log append", lines([turn("a"), turn("b", "2026-11-09T12:00:00.000Z")]))
    dry = run("tok-log prune --before 2026-11-05 --dry-run --table").stdout.decode()
    assert dry.startswith("1 days before 2026-11-05, ") and dry.endswith(" bytes: would be deleted\n")
    assert ids(run("tok-cat").stdout) == ["a", "b"]
    run("tok-log prune --before 2026-11-05")
    assert ids(run("tok-cat").stdout) == ["b"]
    assert b"name the first day to keep" in run("tok-log prune", status=2).stderr


def damage_torn(log: pathlib.Path) -> None:
    with (log / f"events/{DAY}.jsonl").open("ab") as file:
        file.write(b'{"v":1,"ts"')


def damage_zeros(log: pathlib.Path) -> None:
    path = log / f"events/{DAY}.jsonl"
    path.write_bytes(b"\0" * 512 + b"\n" + path.read_bytes())


def damage_archive(log: pathlib.Path) -> None:
    damage_with("2026-11-03.jsonl.gz", b"")(log)
    (log / "events/2026-11-03.jsonl.gz").write_bytes(
        gzip.compress(lines([turn(f"g{n}", "2026-11-03T12:00:00.000Z") for n in range(500)]))[:-20]
    )


def damage_checksum(log: pathlib.Path) -> None:
    data = bytearray(gzip.compress(lines([turn("g", "2026-11-03T12:00:00.000Z")])))
    data[-6] ^= 255
    damage_with("2026-11-03.jsonl.gz", bytes(data))(log)


def damage_with(name: str, *records: Json | bytes) -> Callable[[pathlib.Path], None]:
    def done(log: pathlib.Path) -> None:
        put(log / "events" / name, *records).chmod(0o600)

    return done


def damage_mode(log: pathlib.Path) -> None:
    (log / f"events/{DAY}.jsonl").chmod(0o644)


def damage_folder_mode(log: pathlib.Path) -> None:
    log.chmod(0o755)


def damage_cursors(log: pathlib.Path) -> None:
    (log / "cursors.json").write_bytes(b'{"v":1,')


def damage_projects(log: pathlib.Path) -> None:
    (log / "projects.json").write_bytes(b"[]")


def damage_salt(log: pathlib.Path) -> None:
    (log / "salt").unlink()


def damage_other_salt(log: pathlib.Path) -> None:
    (log / "salt").write_bytes(b"0" * 48)


def damage_leftover(log: pathlib.Path) -> None:
    path = log / f"events/{DAY}.jsonl.4711"
    path.write_bytes(b"half")
    path.chmod(0o600)
    os.utime(path, (1, 1))


def damage_emptied(log: pathlib.Path) -> None:
    shutil.rmtree(log / "events")


DAMAGE: list[tuple[Callable[[pathlib.Path], None], str, str, str]] = [
    (damage_torn, f"events/{DAY}.jsonl:2", "a torn line", "tok-log compact"),
    (damage_zeros, f"events/{DAY}.jsonl:1", "zero bytes, probably from a failing disk", "tok-log compact"),
    (damage_archive, "events/2026-11-03.jsonl.gz", "a damaged archive", "tok-sync --backfill"),
    (damage_checksum, "events/2026-11-03.jsonl.gz", "a damaged archive", "tok-sync --backfill"),
    (damage_with("2026-11-04.jsonl", turn("w")), "events/2026-11-04.jsonl:1", f"its time {DAY}T12:00:00.000Z is not of that day", "tok-log compact"),
    (damage_with("2026-11-04.jsonl", b'["a"]\n'), "events/2026-11-04.jsonl:1", "expected a JSON object, found an array", "tok-log compact"),
    (damage_with("2026-11-04.jsonl", turn("w", "2026-11-04T12:00:00.000Z", v=2)), "events/2026-11-04.jsonl:1", "version 2 of the record", "upgrade"),
    (damage_with("2026-11-04.jsonl", turn("w", "2026-11-04T12:00:00.000Z", prompt="x")), "events/2026-11-04.jsonl:1", "the field 'prompt' is not known", "restore the file"),
    (damage_with("2026-11-04.jsonl", turn("w", "2026-11-04T12:00:00.000Z", turns=-1)), "events/2026-11-04.jsonl:1", "turns is a negative number", "tok-log compact"),
    (damage_with("2026-11-04.jsonl", turn("w", "2026-11-04T12:00:00.000Z"), {"v": 1, "ts": "2026-11-04T12:00:00.000Z", "kind": "ping", "id": "w"}), "events/2026-11-04.jsonl:2", "another record of kind turn has its id", "the program that writes both"),
    (damage_with("2027-11-04.jsonl", turn("w", "2027-11-04T12:00:00.000Z")), "events/2027-11-04.jsonl", "in the future", "clock"),
    (damage_with("notes.jsonl", turn("w")), "events/notes.jsonl", "not a day of the log", "tok-log import"),
    (damage_leftover, f"events/{DAY}.jsonl.4711", "an incomplete file, left by a crash", "tok-log compact"),
    (damage_mode, f"events/{DAY}.jsonl", "mode 0644: others may read it", "chmod 600"),
    (damage_folder_mode, "", "mode 0755: others may read it", "chmod 700"),
    (damage_cursors, "cursors.json", "damaged", "tok-sync"),
    (damage_projects, "projects.json", "not JSON", "delete it"),
    (damage_salt, "salt", "missing or empty", "restore it"),
    (damage_other_salt, "salt", "is not the salt", "restore it"),
    (damage_emptied, "", "the log is empty, but the clients' files are marked as read", "tok-sync --backfill"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "place", "problem", "remedy"), DAMAGE, ids=[f"{n}-{d[2][:30]}" for n, d in enumerate(DAMAGE)]
)
def test_verify_finds_damage_and_says_what_to_do(
    damage: Callable[[pathlib.Path], None], place: str, problem: str, remedy: str, run: Run, log: pathlib.Path
) -> None:
    run("tok-sync", env={"HOME": str(ROOT / "docs/examples/home")})
    env = {"TOKENOPS_NOW": "2026-11-20T12:00:00Z"}
    run("tok-log append", lines([turn("a")]))
    run("tok-log verify", env=env)
    damage(log)
    found = objects(run("tok-log verify", status=1, env=env).stdout)
    assert {one["place"].removeprefix(f"{log}/").removeprefix(str(log)).partition(":")[0] for one in found} == {
        place.partition(":")[0]
    }
    assert found[0]["problem"].startswith(problem) or problem in found[0]["problem"]
    assert remedy in found[0]["remedy"]
    if ":" in place:
        assert found[0]["place"].endswith(place)
    if "tok-log compact" in remedy:
        run("tok-log compact", env=env)
        assert objects(run("tok-log verify", env=env).stdout) == []


def test_verify_without_a_log(run: Run) -> None:
    assert b"there is no log; run tok-sync" in run("tok-log verify --table", status=1).stdout


def test_readers_and_compaction_at_once_see_everything(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "log")
    store.append(folder, (jsonl.line_of(turn(f"t{n}", f"2026-11-{1 + n % 9:02d}T12:00:00.000Z")) for n in range(900)))
    child = os.fork()
    if child == 0:
        for _ in range(30):
            list(store_upkeep.compact(folder, "2026-11-20", True))
            store.append(folder, [jsonl.line_of(turn(f"t{n}", f"2026-11-{1 + n % 9:02d}T12:00:00.000Z")) for n in range(9)])
            list(store_upkeep.compact(folder, "2026-11-20", False))
        os._exit(0)
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        assert len(list(store.cat(folder))) == 900


OLDER = turn(
    "codex:t:0:9-0-5-0",
    alias="codex:t:9:0:0:5:0",
    source="codex-jsonl",
    client="codex",
    session_id="t",
    input_tokens=9,
    output_tokens=5,
)
NEWER = {**OLDER, "id": "resp_1", "alias": OLDER["id"], "revision": 2, "ts": f"{DAY}T11:00:00.000Z"}
WIRE = {**OLDER, "id": "resp_1", "source": "proxy", "latency_ms": 9, "ts": f"{DAY}T10:59:00.000Z"}
EXPORT = {**OLDER, "id": "otel:1", "source": "otel", "ts": f"{DAY}T12:30:00.000Z"}


@pytest.mark.parametrize("others", [(), (WIRE,), (EXPORT,), (WIRE, EXPORT)])
def test_a_turn_stands_under_its_newer_identity_in_whatever_order_its_sightings_come(others: tuple[Json, ...]) -> None:
    def joined(sightings: Iterable[Json]) -> list[bytes]:
        records = store.DayRecords()
        for event in sightings:
            records.add(str(event["id"]), jsonl.line_of(events.arrange(event)))
        assert OLDER["id"] in records
        return sorted(records.lines.values())

    results = {tuple(joined(order)) for order in itertools.permutations((OLDER, NEWER, *others))}
    assert len(results) == 1
    (line,) = results.pop()
    record = orjson.loads(line)
    assert record["id"] == "resp_1"
    fresh = joined((NEWER, *others))
    assert [line] == fresh
