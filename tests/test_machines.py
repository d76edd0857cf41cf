"""Machine and user of every event: stamped once, where the event was first stored, and by nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from typing import Any

import pytest
from engines import Receiver
from hypothesis import given
from hypothesis import strategies as st
from proxies import USAGE, Start, ask, post
from upstream import Upstream, plain

from conftest import Json, Run, claude, examples, lines, objects, put
from tokenops import (
    config,
    dash_query,
    datadir,
    etiquette,
    events,
    fields,
    joins,
    jsonl,
    machines,
    projects,
    store,
    store_files,
    store_salt,
    sync,
)

DAY = "2026-11-01"
NOW = "2026-11-21T09:30:00.000Z"
DESK = {"TOKENOPS_MACHINE": "desk", "TOKENOPS_USER": "ada"}
HOST = os.uname().nodename.partition(".")[0]


@pytest.fixture(autouse=True)
def unnamed(environment: dict[str, str]) -> None:
    """Without a name the machine has its host's."""
    del environment["TOKENOPS_MACHINE"]


def turn(name: str, ts: str = f"{DAY}T12:00:00.000Z", **more: Any) -> Json:
    about = {"source": "claude-code-jsonl", "client": "claude-code", "provider": "anthropic", "model": "claude-opus-4-6"}
    return {"v": 1, "ts": ts, "kind": "turn", "id": name, **about, "turns": 1, "output_tokens": 7, **more}


def owners(run: Run, options: str = "") -> dict[str, tuple[str | None, str | None]]:
    """Machine and user of each event of the log."""
    return {
        event["id"]: (event.get("machine"), event.get("user"))
        for event in objects(run(f"tok-cat --kind all {options}").stdout)
    }


def settings(**keys: object) -> config.Config:
    return config.Config(dict(keys), "config.yaml", [])


# -- names

NAMES: list[tuple[str, Json, dict[str, str], tuple[str, str]]] = [
    ("the host's", {}, {}, (HOST, "")),
    ("the user's", {"machine": "desk", "user": "ada"}, {}, ("desk", "ada")),
    ("those of tok-ship", {"ship": {"machine": "build-7", "user": "ada"}}, {}, ("build-7", "ada")),
    ("the user's before those of tok-ship", {"machine": "desk", "ship": {"machine": "build-7"}}, {}, ("desk", "")),
    ("the environment's first", {"machine": "desk", "user": "bob"}, DESK | {"TOKENOPS_MACHINE": "box"}, ("box", "ada")),
    ("none at all", {"machine": ""}, {}, ("", "")),
    ("none at all here", {"machine": "desk"}, {"TOKENOPS_MACHINE": ""}, ("", "")),
    ("a number", {"machine": 7}, {}, ("7", "")),
    ("of any language", {"machine": "Büro 2"}, {}, ("Büro 2", "")),
]


@pytest.mark.parametrize(("what", "keys", "variables", "expected"), NAMES, ids=[case[0] for case in NAMES])
def test_names(what: str, keys: Json, variables: dict[str, str], expected: tuple[str, str]) -> None:
    assert machines.here(settings(**keys), variables) == expected


@pytest.mark.parametrize("name", ["", " x", "a\nb", "a\x1b[2J", "a\u202eb", "x" * 101, True, ["a"], None])
def test_a_name_that_no_event_can_have(name: object, run: Run, environment: dict[str, str]) -> None:
    assert fields.name_fault(name)
    if name is None or name == "":
        return
    path = put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", json.dumps({"machine": name}).encode())
    done = run("tok-log append", lines([turn("a")]), status=2)
    assert done.stderr.startswith(f"tok-log: {path}: machine: it ".encode()) and b"write a short name" in done.stderr
    assert done.stdout == b"" and b"\x1b" not in done.stderr
    whole = turn("a") | {"machine": name}
    assert fields.fault(whole).startswith("machine ")
    assert b":1: machine " in run("tok-log append", lines([whole]), status=1, env=DESK).stderr


def test_a_machine_is_not_called_unknown(run: Run) -> None:
    assert b"TOKENOPS_MACHINE: it is 'unknown'" in run("tok-sync", status=2, env={"TOKENOPS_MACHINE": "unknown"}).stderr


# -- the stamp

LINE = st.fixed_dictionaries(
    {"v": st.just(1), "ts": st.just(f"{DAY}T12:00:00.000Z"), "kind": st.sampled_from(events.KINDS)},
    optional={
        "id": st.sampled_from(["msg_1", 'q"\\', ',"machine":"x"']),
        "alias": st.sampled_from(["codex:s:1:2:3:4:5", "é"]),
        "revision": st.integers(1, 3),
        "project": st.sampled_from(['","machine":"x', "p", ""]),
        "project_id": st.sampled_from(["p1", "0123456789ab", '0123456789a"', "\\"]),
        "times": st.dictionaries(st.sampled_from(["project_id", "last"]), st.just(f"{DAY}T12:00:00.000Z")),
        "account": st.just("a"),
        "counts": st.dictionaries(st.sampled_from(["machine", "user"]), st.integers(0, 1)),
        "sidechain": st.just(True),
        "user": st.just("carl"),
        "machine": st.just("elsewhere"),
    },
)


@examples(200)
@given(LINE, st.randoms(use_true_random=False), st.sampled_from(["", "ada"]))
def test_a_stamp_adds_two_fields_in_their_place_and_nothing_else(event: Json, order: Any, user: str) -> None:
    owner = machines.Owner('a "b"', user)
    shuffled = list(event.items())
    order.shuffle(shuffled)
    expected = {"machine": 'a "b"'} | ({"user": user} if user else {}) | event if "machine" not in event else event
    for line in map(jsonl.line_of, (events.arrange(event), dict(shuffled))):
        stamped = machines.stamp(line, owner)
        assert json.loads(stamped) == expected
        assert machines.stamp(stamped, machines.Owner("another")) == stamped  # once
        assert machines.stamp(line, machines.NOBODY) == line
    assert machines.stamp(jsonl.line_of(events.arrange(event)), owner) == jsonl.line_of(events.arrange(expected))


@pytest.mark.parametrize("line", [b"", b"\n", b"nonsense\n", b"[1]\n", b"{\n", b'{"v":1,"ts":"'])
def test_what_is_no_event_is_not_stamped(line: bytes) -> None:
    assert machines.stamp(line, machines.Owner("desk")) == line


def test_a_stamped_line_is_in_the_usual_form(run: Run, environment: dict[str, str]) -> None:
    """Readers match such lines without parsing them."""
    run("tok-log append", lines([turn("a", project="p", project_id="1", session_id="s")]), env=DESK)
    (line,) = pathlib.Path(environment["TOKENOPS_HOME"], f"events/{DAY}.jsonl").read_bytes().splitlines(keepends=True)
    assert store_files.match_usual(line) is not None
    assert b'"project_id":"1","machine":"desk","user":"ada","session_id":"s"' in line
    assert objects(run("tok-log verify --json").stdout) == []


# -- every writer stamps


def test_every_kind_that_is_appended(run: Run) -> None:
    base: Json = {"v": 1, "ts": f"{DAY}T12:00:00.000Z"}
    more: dict[str, Json] = {"work": {"counts": {}, "times": {}}, "context": {"turn": "turn", "entered": {"prompt": 1}}}
    made = [base | {"kind": kind, "id": kind} | more.get(kind, {}) for kind in events.KINDS]
    run("tok-log append", lines(made), env=DESK)
    assert owners(run) == dict.fromkeys(events.KINDS, ("desk", "ada"))
    assert {event["id"] for event in objects(run("tok-cat --kind all").stdout)} == set(events.KINDS)


def transcript(environment: dict[str, str], *records: Json, name: str = "s1") -> pathlib.Path:
    return put(pathlib.Path(environment["HOME"]) / f".claude/projects/-a/{name}.jsonl", *records)


def test_what_this_machine_reads(run: Run, environment: dict[str, str]) -> None:
    transcript(environment, claude("msg_1", ts=NOW), claude("msg_2", ts=NOW))
    run("tok-sync", env=DESK)
    assert {"msg_1", "msg_2", "context:msg_1"} <= owners(run).keys() and set(owners(run).values()) == {("desk", "ada")}
    # A turn and its context share a line, as without a stamp.
    files = pathlib.Path(environment["TOKENOPS_HOME"], "events")
    assert sum(path.read_bytes().count(b'"machine"') for path in files.glob("*")) == 2


def test_what_reports_and_hooks_read(run: Run, environment: dict[str, str]) -> None:
    path = transcript(environment, claude("msg_1", ts=NOW))
    about = {"session_id": "s1", "transcript_path": str(path), "model": {"id": "claude-opus-4-8"}}
    limits = {"five_hour": {"used_percentage": 20, "resets_at": 1_795_262_400}}
    run("tok-statusline", json.dumps(about | {"rate_limits": limits}).encode(), env=DESK | {"TOKENOPS_NOW": NOW})
    assert len(owners(run)) >= 2 and set(owners(run).values()) == {("desk", "ada")}
    transcript(environment, claude("msg_2", ts=NOW), name="s2")
    run("tok-cost --log --json", env={"TOKENOPS_MACHINE": "late", "TOKENOPS_NOW": NOW})
    assert owners(run)["msg_2"] == ("late", None)
    run("tok-task start x", env=DESK)
    run("tok-task done", env=DESK)
    tasks = objects(run("tok-cat --kind task").stdout)
    assert [(event["machine"], event["user"]) for event in tasks] == [("desk", "ada")] * 2


def test_what_passes_the_proxy(start: Start, vendor: Upstream, environment: dict[str, str]) -> None:
    vendor.script = plain(USAGE)
    environment |= DESK
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"})
    assert ask(proxy.port, post("/openai/v1/chat/completions", b'{"model":"gpt-5.4"}', "Connection: close")).endswith(USAGE)
    (event,) = proxy.events(1)
    assert (event["machine"], event["user"]) == ("desk", "ada")


# -- and nobody else


def test_what_comes_from_elsewhere_keeps_its_stamp_or_has_none(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "other.jsonl", turn("a", machine="box", user="bob"), turn("b"))
    for _ in range(2):
        run("tok-log import other.jsonl", env=DESK)
        assert owners(run) == {"a": ("box", "bob"), "b": (None, None)}
    (done,) = objects(run("tok-log import --machine old --user carl other.jsonl", env=DESK).stdout)
    assert (done["events"], done["added"]) == (2, 1)
    assert owners(run) == {"a": ("box", "bob"), "b": ("old", "carl")}
    (done,) = objects(run("tok-log import --machine old --user carl other.jsonl", env=DESK).stdout)
    assert done["added"] == 0
    assert b"--machine: it has characters" in run("tok-log import --machine 'a\tb' other.jsonl", status=2).stderr
    # An event whose own machine is known is of that, and not of ours.
    run("tok-log append", lines([turn("c", machine="box"), turn("d", user="bob")]), env=DESK)
    assert (owners(run)["c"], owners(run)["d"]) == (("box", None), ("desk", "bob"))


def test_the_smallest_name_stays_in_whatever_order(run: Run, tmp_path: pathlib.Path) -> None:
    """Two machines that read one shared folder: both logs come to the same."""
    for name in ("desk", "box"):
        put(tmp_path / f"{name}.jsonl", turn("a", machine=name))
    logs = []
    for order in (("desk", "box"), ("box", "desk")):
        home = {"TOKENOPS_HOME": str(tmp_path / "-".join(order))}
        for name in order:
            run(f"tok-log import {name}.jsonl; tok-log compact", env=home)
        logs.append(pathlib.Path(home["TOKENOPS_HOME"], f"events/{DAY}.jsonl").read_bytes())
    assert logs[0] == logs[1] and json.loads(logs[0])["machine"] == "box"


# -- once


def test_a_later_name_stamps_nothing_anew(run: Run, environment: dict[str, str]) -> None:
    """Nor is a turn stored a second time because it would be stamped otherwise."""
    path = transcript(environment, claude("msg_1", 3, ts=NOW))
    run("tok-sync", env={"TOKENOPS_MACHINE": "old"})
    log = pathlib.Path(environment["TOKENOPS_HOME"], f"events/{NOW[:10]}.jsonl")
    before = log.read_bytes()
    for name in ("new", "a"):
        done = objects(run("tok-sync --backfill --json", env={"TOKENOPS_MACHINE": name}).stdout)
        assert sum(row["events"] + row["contexts"] + row["completed"] for row in done) == 0
        assert log.read_bytes() == before
    # What is read again and says more says it of the same machine.
    path.write_bytes(lines([claude("msg_1", 9, ts=NOW), claude("msg_2", ts=NOW)]))
    run("tok-sync --backfill", env={"TOKENOPS_MACHINE": "a"})
    assert {name: machine for name, (machine, _) in owners(run).items() if name.startswith("msg")} == {
        "msg_1": "old",
        "msg_2": "a",
    }
    (first, _) = objects(run("tok-cat").stdout)
    assert first["output_tokens"] == 9


def test_a_log_from_before_is_not_stamped_by_a_backfill(run: Run, environment: dict[str, str]) -> None:
    transcript(environment, claude("msg_1", ts=NOW), claude("msg_2", ts=NOW))
    run("tok-read claude > all.jsonl; tok-log import all.jsonl")
    assert set(owners(run).values()) == {(None, None)}
    run("tok-sync --backfill", env=DESK)
    assert {machine for name, (machine, _) in owners(run).items() if name.startswith("msg")} == {None}


def test_an_older_identity_keeps_its_stamp(tmp_path: pathlib.Path) -> None:
    """A new revision of a reader may give a turn another identity, and name the old one."""
    folder, base = str(tmp_path / "log"), turn("older", source="codex-jsonl", client="codex", session_id="s")
    store.append(folder, [jsonl.line_of(base)], owner=machines.Owner("old"))
    again = jsonl.line_of(events.arrange(base | {"id": "newer", "alias": "older", "revision": 2}))
    (line,), _ = store.new_lines(folder, [again], machines.Owner("a"))
    assert json.loads(line)["machine"] == "old"


@examples(30)
@given(st.integers(1, 5), st.integers(0, 4), st.booleans())
def test_bit_by_bit_gives_what_all_at_once_gives(
    tmp_path_factory: pytest.TempPathFactory, turns: int, cut: int, renamed: bool
) -> None:
    """Also the stamps, if the machine was not renamed in between; else the first one stays for what was there."""
    from tokenops import read_clients, store_upkeep

    folder = tmp_path_factory.mktemp("bits")
    records = [claude(f"msg_{number}", output, ts=NOW) for number in range(turns) for output in (1, 8)]
    client, path = read_clients.BY_NAME["claude"], folder / "s1.jsonl"
    contents = []
    for parts in ((records[:cut], records), (records,)):
        shutil.rmtree(folder / "log", ignore_errors=True)
        put(folder / "log/salt", b"the same for both")
        for name, part in zip(("m", "z" if renamed else "m"), parts, strict=False):
            path.write_bytes(lines(part))
            sync.run(str(folder / "log"), [(client, [str(path)])], jobs=1, owner=machines.Owner(name))
        list(store_upkeep.compact(str(folder / "log"), "2026-12-01"))
        contents.append([json.loads(line) for line in store.cat(str(folder / "log"))])
    bits, whole = contents
    assert [event | {"machine": ""} for event in bits] == [event | {"machine": ""} for event in whole]
    assert {event["machine"] for event in whole if event["kind"] == "turn"} == {"m"}
    for event in bits:
        is_first = event["id"].removeprefix("context:") in {record["message"]["id"] for record in records[:cut]}
        assert event["machine"] == ("m" if is_first or not renamed else "z")


def test_log_and_wire_are_one_turn_as_before(tmp_path: pathlib.Path) -> None:
    """A client whose log and wire share no id: each sighting has a stamp, of this machine or of two."""
    counts = {"input_tokens": 5, "output_tokens": 3}
    alias = events.alias_of("codex", "s", counts)
    passive = turn("codex:s:0:1", source="codex-jsonl", client="codex", session_id="s", alias=alias, **counts)
    wire = turn("resp_1", source="proxy", client="codex", session_id="s", alias=alias, status=200, **counts)
    for number, names in enumerate((("m", "m"), ("m", "z"), ("z", "m"))):
        folder = str(tmp_path / str(number))
        for event, name in zip((passive, wire), names, strict=True):
            store.append(folder, [jsonl.line_of(events.arrange(event))], owner=machines.Owner(name))
        (line,) = store.cat(folder)
        assert json.loads(line)["machine"] == "m"
    assert joins.join(passive | {"machine": "m"}, passive) == events.arrange(passive | {"machine": "m"})


# -- a log from before


def test_adoption_names_the_machine_of_what_names_none(
    run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    days = [turn("a"), turn("b", "2026-11-02T12:00:00.000Z"), turn("c", "2026-11-03T12:00:00.000Z", machine="box")]
    put(tmp_path / "e.jsonl", *days, {**turn("context:a"), "kind": "context", "turn": "a", "entered": {"prompt": 3}})
    run("tok-log import e.jsonl; tok-log compact --gzip")
    files = {path: path.read_bytes() for path in pathlib.Path(environment["TOKENOPS_HOME"], "events").glob("*")}
    done = run("tok-log adopt --dry-run --table", env=DESK)
    assert done.stdout == b"3 events of 2 days would be of desk\n"
    assert {path: path.read_bytes() for path in files} == files
    rows = objects(run("tok-log adopt --json", env=DESK).stdout)
    assert [(row["day"], row["events"], row["machine"], row["user"]) for row in rows] == [
        (DAY, 2, "desk", "ada"),
        ("2026-11-02", 1, "desk", "ada"),
    ]
    assert owners(run) == {"a": ("desk", "ada"), "context:a": ("desk", "ada"), "b": ("desk", "ada"), "c": ("box", None)}
    after = {path: path.read_bytes() for path in files}
    assert sorted(path.name for path in after if after[path] != files[path]) == [f"{DAY}.jsonl.gz", "2026-11-02.jsonl.gz"]
    assert objects(run("tok-log adopt --machine other --json").stdout) == []  # once
    assert {path: path.read_bytes() for path in files} == after
    assert objects(run("tok-log verify --json").stdout) == []


def test_adoption_and_compaction_in_either_order(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """A turn of which one sighting names its machine is that machine's, though another one names none."""
    put(tmp_path / "e.jsonl", turn("a"), turn("b", output_tokens=3))
    put(tmp_path / "f.jsonl", turn("a", machine="z", output_tokens=9), turn("b"))
    contents = []
    for number, order in enumerate(("tok-log adopt; tok-log compact", "tok-log compact; tok-log adopt")):
        home = DESK | {"TOKENOPS_HOME": str(tmp_path / str(number))}
        run(f"tok-log import e.jsonl f.jsonl; {order}", env=home)
        contents.append(pathlib.Path(home["TOKENOPS_HOME"], f"events/{DAY}.jsonl").read_bytes())
    assert contents[0] == contents[1]
    assert [json.loads(line)["machine"] for line in contents[0].splitlines()] == ["z", "desk"]


def test_adoption_needs_a_name(run: Run) -> None:
    assert b"give --machine NAME" in run("tok-log adopt", env={"TOKENOPS_MACHINE": ""}, status=2).stderr
    assert b"--user: " in run("tok-log adopt --user ada", env=DESK, status=2).stderr


# -- tok-ship


def shipped(run: Run, environment: dict[str, str], **keys: object) -> list[Json]:
    """The rows that a target is sent under some configuration."""
    put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", json.dumps(keys).encode())
    receiver = Receiver()
    try:
        run(f"tok-ship {receiver.url} --backfill")
        data = b"".join(asked.body for asked in receiver.asked)
        if not keys:
            assert not any(f'"{name}'.encode() in data for name in ("box", "bob", "carl", HOST))
        return sorted(receiver.rows(), key=lambda row: str(row["id"]))
    finally:
        receiver.close()


def test_a_name_leaves_only_where_it_was_given_for_that(
    run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Each row is of the record's own machine, by name if that was named for it, else by a hash."""
    meter = events.meter("proxy", "anthropic", NOW, window="weekly", used=0.5) | {"id": "m", "machine": "box", "user": "bob"}
    put(tmp_path / "e.jsonl", turn("b", machine="box", user="bob"), turn("c", machine="box"), turn("d"), meter)
    run("tok-log append", lines([turn("a")]))
    run("tok-log append", lines([turn("e", user="carl")]))
    run("tok-log import e.jsonl")

    def names(rows: list[Json]) -> dict[str, tuple[str, str]]:
        return {row["id"]: (row["machine"], row.get("user", "")) for row in rows}

    unnamed = shipped(run, environment)
    hashes = names(unnamed)
    assert all(name.startswith("h:") for pair in hashes.values() for name in pair if name)
    assert hashes["a"] == hashes["d"]  # where it is not known, the machine and the user that ship it, as before
    assert hashes["b"][0] == hashes["c"][0] != hashes["a"][0] and hashes["c"][1] == "" != hashes["b"][1]
    assert hashes["m"] == hashes["b"] and hashes["e"][0] == hashes["a"][0] and hashes["e"][1] != hashes["a"][1]
    assert not any("machine" in row.get("rest", "") for row in unnamed)
    for keys in ({"machine": HOST, "user": "ada"}, {"ship": {"machine": HOST, "user": "ada"}}):
        named = names(shipped(run, environment, **keys))
        assert named == hashes | {"a": (HOST, "ada"), "d": (HOST, "ada"), "e": (HOST, hashes["e"][1])}
    every = names(shipped(run, environment, ship={"names": True}))
    assert (every["b"], every["c"], every["e"][1]) == (("box", "bob"), ("box", ""), "carl")
    assert every["a"] == hashes["a"]
    put(pathlib.Path(environment["HOME"]) / ".config/tokenops/config.yaml", b"ship: {names: 7}\n")
    assert b"ship.names: expected true or false" in run("tok-ship http://127.0.0.1:1/", status=2).stderr


# -- reports

THREE = (
    turn("a", f"{NOW[:10]}T08:00:00.000Z", machine="laptop", user="ada", session_id="s1", project="p"),
    turn("b", f"{NOW[:10]}T09:00:00.000Z", machine="box", session_id="s2", project="p", output_tokens=9),
    turn("c", "2026-11-10T09:00:00.000Z", session_id="s3", project="p"),  # a closed day: a summary
)


def test_reports_are_by_machine_and_user(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "e.jsonl", *THREE)
    run("tok-log import e.jsonl")
    env = {"TOKENOPS_NOW": NOW}
    for command in ("tok-cost --log --since 2026-11 --by machine,user --json", "tok-cat | tok-rollup --by machine,user"):
        rows = objects(run(command, env=env).stdout)
        assert {(row.get("machine"), row.get("user"), row["turns"]) for row in rows} == {
            ("laptop", "ada", 1),
            ("box", None, 1),
            (None, None, 1),
        }
    table = run("tok-cost --log --since 2026-11 --by machine --table", env=env).stdout.decode()
    assert {"box", "laptop", "unknown"} <= {line.split()[0] for line in table.splitlines() if line.split()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--machine laptop", "a"),
        ("--machine box", "b"),
        ("--machine unknown", "c"),
        ("--user ada", "a"),
        ("--user unknown", "bc"),
        ("--user ada --machine box", ""),
    ],
)
def test_filters(options: str, expected: str, run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "e.jsonl", *THREE)
    run("tok-log import e.jsonl")
    env = {"TOKENOPS_NOW": NOW}
    assert "".join(sorted(event["id"] for event in objects(run(f"tok-cat {options}", env=env).stdout))) == expected
    for command in ("tok-cost --log --since all", "tok-cat | tok-cost"):
        rows = objects(run(f"{command} --by session --json {options}", env=env).stdout)
        assert sorted(row["session_id"] for row in rows) == [{"a": "s1", "b": "s2", "c": "s3"}[name] for name in expected]
    rows = objects(run(f"tok-burn --log --hours 24 --json {options}", env=env).stdout)
    tokens = sum(row.get("output_tokens", 0) for row in rows if row["kind"] == "burn")
    assert tokens == sum({"a": 7, "b": 9, "c": 0}[name] for name in expected)


def test_a_mistyped_name_is_answered_with_the_nearest(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "e.jsonl", *THREE)
    run("tok-log import e.jsonl")
    env = {"TOKENOPS_NOW": NOW}
    for command in ("tok-cat", "tok-cost --log --since all", "tok-burn --log"):
        done = run(f"{command} --machine laptpo", env=env)
        assert b"no machine 'laptpo'; did you mean laptop?" in done.stderr, command
    assert b"no user 'adda'; did you mean ada?" in run("tok-cost --log --user adda", env=env).stderr
    done = run("tok-cost --log --by machines", env=env, status=2)
    assert b"did you mean 'machine'?" in done.stderr or b"did you mean machine?" in done.stderr
    done = run("tok-cat | tok-rollup | tok-cost --machine box", env=env, status=2)
    assert b"these rows are not by machine; give --machine to tok-read or tok-cat" in done.stderr


def test_status_lists_machines_if_there_are_several(run: Run, tmp_path: pathlib.Path) -> None:
    env = {"TOKENOPS_NOW": NOW}
    run("tok-log append", lines([turn("z", f"{NOW[:10]}T07:00:00.000Z", machine="laptop")]))
    assert b"machine, 30 days" not in run("tok-status --table", env=env, status=None).stdout
    put(tmp_path / "e.jsonl", *THREE)
    run("tok-log import e.jsonl")
    (report,) = objects(run("tok-status --json", env=env, status=None).stdout)
    assert [(row.get("machine"), row.get("user"), row["newest"][8:16]) for row in report["machines"]] == [
        ("box", None, "21T09:00"),
        ("laptop", "ada", "21T08:00"),
        ("laptop", None, "21T07:00"),
        (None, None, "10T09:00"),
    ]
    assert [action["do"] for action in report["next_actions"] if action["id"] == "adopt"] == ["tok-log adopt"]
    assert "machine, 30 days" in run("tok-status --table", env=env, status=None).stdout.decode()
    run("tok-log adopt", env=DESK)
    (report,) = objects(run("tok-status --json", env=env, status=None).stdout)
    assert "adopt" not in {action["id"] for action in report["next_actions"]}


def test_the_dashboard_is_by_machine_if_there_are_several(run: Run, tmp_path: pathlib.Path) -> None:
    env = {"TOKENOPS_NOW": NOW}
    one, other = dash_query.Ask(), dash_query.Ask(machine="box")
    assert dash_query.with_several(one, {"machine": ["box"], "user": ["unknown"]}) == ["client", "project", "model"]
    assert "machine" not in dash_query.stacks(one, {"machine": ["box"]})
    assert "machine" in dash_query.stacks(one, {"machine": ["box", "unknown"]})
    assert dash_query.with_several(other, {})[3:] == ["machine"] and other.only == events.Filter(machine="box")
    put(tmp_path / "e.jsonl", *THREE)
    run("tok-log import e.jsonl")
    page = run("tok-dash --html - --since 30d --stack machine", env=env).stdout.decode()
    assert "Cost per day by machine" in page and all(f">{name}<" in page for name in ("box", "laptop"))
    page = run("tok-dash --html - --since 30d --machine box", env=env).stdout.decode()
    assert ">s2</code>" in page and ">s1</code>" not in page
    assert "Nothing matches" in run("tok-dash --html - --since 30d --machine boxx", env=env).stdout.decode()


# -- one salt


def project_ids(run: Run, env: dict[str, str]) -> set[str]:
    return {event["project_id"] for event in objects(run("tok-cat --kind all", env=env).stdout) if "project_id" in event}


def test_two_machines_give_one_project_one_id(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    owner = {"oauthAccount": {"organizationUuid": "0b1c2d3e-0000-4000-8000-000000000001"}}
    put(pathlib.Path(environment["HOME"]) / ".claude/.claude.json", owner)
    transcript(environment, claude("msg_1", ts=NOW), claude("msg_2", ts="2026-11-01T09:00:00.000Z"))
    logs = [{"TOKENOPS_HOME": str(tmp_path / name)} | DESK for name in ("one", "other")]
    for env in logs:
        run("tok-sync; tok-log compact --gzip", env=env)
    ids = [project_ids(run, env) for env in logs]
    assert len(ids[0] | ids[1]) == 2
    account = projects.hash_path(owner["oauthAccount"]["organizationUuid"], (tmp_path / "other/salt").read_bytes())
    reading = events.meter("proxy", "anthropic", NOW, window="weekly", used=0.5, account=account)
    stranger = turn("x", project="q", project_id="0123456789ab", account="ba9876543210")
    run("tok-log append", lines([reading, stranger]), env=logs[1])
    run(f"tok-log pair --export {tmp_path}/salt", env=logs[0])
    assert (tmp_path / "salt").stat().st_mode & 0o777 == 0o600
    done = run("tok-log pair salt --json", env=logs[1])
    (report,) = objects(done.stdout)
    assert (report["days"], report["replaced"], report["projects"], report["accounts"]) == (2, 3, 1, 1)
    assert b"restart tok-proxy" in done.stderr
    assert project_ids(run, logs[1]) == ids[0] | {"0123456789ab"}
    (meter,) = objects(run("tok-cat --kind meter", env=logs[1]).stdout)
    assert meter["account"] == projects.hash_path(
        owner["oauthAccount"]["organizationUuid"], (tmp_path / "one/salt").read_bytes()
    )
    # It is done once; files that are read again say the same; and the log is sound.
    files = {path: path.read_bytes() for path in (tmp_path / "other").rglob("events/*")}
    (report,) = objects(run("tok-log pair --json -", (tmp_path / "salt").read_bytes(), env=logs[1]).stdout)
    assert (report["days"], report["replaced"]) == (0, 0)
    rows = objects(run("tok-sync --backfill --json", env=logs[1]).stdout)
    assert sum(row["events"] + row["rounds"] + row["contexts"] + row["completed"] for row in rows) == 0
    assert {path: path.read_bytes() for path in files} == files
    assert objects(run("tok-log verify --json", env=logs[1]).stdout) == []
    # An import says nothing that is not there but the other machine's.
    (report,) = objects(run("tok-log import one", env=logs[1]).stdout)
    assert report["added"] == 0


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_pairing_that_was_interrupted_is_finished_by_the_next(
    steps: int, run: Run, environment: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file was the last that was written."""
    transcript(environment, *(claude(f"msg_{day}", ts=f"2026-11-0{day}T09:00:00.000Z") for day in (1, 2, 3)))
    run("tok-sync", env=DESK)
    folder, salt = environment["TOKENOPS_HOME"], b"a" * 48
    replace, left = datadir.replace, iter(range(steps))

    def replace_or_stop(path: str, content: bytes, *more: Any) -> None:
        if next(left, None) is None:
            raise OSError(28, "stopped", path)
        replace(path, content, *more)

    monkeypatch.setattr(datadir, "replace", replace_or_stop)
    with contextlib.suppress(OSError):
        store_salt.pair(folder, salt)
    monkeypatch.undo()
    paired = store_salt.pair(folder, salt)
    assert (paired.projects, paired.directories) == (0, 0)
    paths = store.project_paths(folder)
    assert paths and all(key == projects.hash_path(path, salt) for key, path in paths.items())
    assert project_ids(run, {}) <= paths.keys()
    assert store_salt.pair(folder, salt).replaced == 0
    assert len(datadir.salts(folder)) == 2 and datadir.first_salt(folder) == datadir.salts(folder)[0] != salt


def test_a_salt_is_a_secret(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    run("tok-log append", lines([turn("a")]), env=DESK)
    path = tmp_path / "salt"
    run("tok-log pair --export salt")
    salt = path.read_bytes().strip()
    assert run("tok-log pair --export -").stdout.strip() == salt
    assert b"exists already" in run("tok-log pair --export salt", status=2).stderr
    for content in (b"", b"short\n", b"two words of twenty\n", b"x" * 4096):
        done = run("tok-log pair -", content, status=2)
        assert b"it is not a salt" in done.stderr and b"two words" not in done.stderr
    path.chmod(0o644)
    assert b"others may read it; chmod 600" in run("tok-log pair salt", status=2).stderr
    assert b"name the file" in run("tok-log pair", status=2).stderr
    for line in ("tok-log verify -v", "tok-status --json", "tok-log explain a"):
        done = run(line, status=None)
        assert salt not in done.stdout + done.stderr


def test_a_vendors_report_has_one_id_whatever_the_salt(tmp_path: pathlib.Path) -> None:
    """Else a bucket that is read again after a pairing would count twice."""
    folder = str(tmp_path)
    first = datadir.salt(folder, make=True)
    store_salt.pair(folder, b"b" * 48)
    now = datadir.salt(folder), datadir.first_salt(folder)
    assert now == (b"b" * 48, first)
    values: Any = {"source": "vendor-usage-anthropic", "url": "", "secret": "", "now": 0, "version": "", "options": {}}
    before, after = (etiquette.Ask(**values, rules={}, marks={}, salt=salt, first_salt=first) for salt in (first, b"b" * 48))
    assert before.account("org") != after.account("org")
    assert before.lasting_account("org") == after.lasting_account("org") == before.account("org")


def test_what_was_forgotten_does_not_come_back_through_a_pairing(run: Run, environment: dict[str, str]) -> None:
    """A rule names a project by an id that cannot be made anew, and sessions by hashes of the log's first salt."""
    transcript(environment, claude("msg_1", ts=NOW))
    transcript(environment, claude("msg_2", ts=NOW, sessionId="s2", cwd="/home/ada/other"), name="s2")
    env = DESK | {"TOKENOPS_NOW": "2026-11-21T10:00:00.000Z"}
    run("tok-sync; tok-log forget --session s1 --yes", env=env)
    run("tok-log pair -", b"a" * 48, env=env)
    run("tok-sync --backfill", env=env)
    assert [event["id"] for event in objects(run("tok-cat", env=env).stdout)] == ["msg_2"]
    run("tok-log forget --project other --yes", env=env)
    salt = run("tok-log pair --export -", env=env).stdout
    done = run("tok-log pair -", b"b" * 48, env=env, status=2)
    assert b"of tok-log forget name projects" in done.stderr and b"--undo N" in done.stderr
    assert run("tok-log pair --export -", env=env).stdout == salt
    run("tok-sync --backfill", env=env)
    assert objects(run("tok-cat", env=env).stdout) == []
