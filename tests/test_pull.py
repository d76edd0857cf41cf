"""Pulling from folders: another log, published parts, and home directories; each turn once, whatever comes first."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
from machines import FOLDER, Fleet, machine_of, rows, session, turns, unstamped

from conftest import ROOT, Run, claude, lines, objects, put


def test_another_log_is_pulled_once(run: Run, fleet: Fleet) -> None:
    there, here = fleet("there"), fleet("here")
    session(there, "s1", 0, 40)
    run("tok-sync", env=there)
    [first] = rows(run, f"tok-sync --from {there['TOKENOPS_HOME']}", here)
    assert (first["source"], first["from"], first["files_read"], first["events"]) == (
        "tokenops",
        there["TOKENOPS_HOME"],
        1,
        40,
    )
    [again] = rows(run, f"tok-sync --from {there['TOKENOPS_HOME']}/events", here)
    assert again["events"] == 0
    session(there, "s1", 40, 43)
    run("tok-sync", env=there)
    [third] = rows(run, f"tok-sync --from {there['TOKENOPS_HOME']}", here)
    size = (pathlib.Path(there["TOKENOPS_HOME"]) / "events/2026-03-01.jsonl").stat().st_size
    assert third["events"] == 3
    assert 0 < third["bytes_read"] < size / 2  # only what was appended
    assert set(machine_of(run, here).values()) == {"there"}
    assert unstamped(run, here) == unstamped(run, there)


def test_compaction_there_changes_nothing_here(run: Run, fleet: Fleet) -> None:
    there, here = fleet("there"), fleet("here")
    session(there, "s1", 0, 200)
    run("tok-sync", env=there)
    run(f"tok-sync --from {there['TOKENOPS_HOME']}", env=here)
    before = turns(run, here)
    run("tok-log compact --gzip", env=there)
    [row] = rows(run, f"tok-sync --from {there['TOKENOPS_HOME']}", here)
    assert (row["events"], row["rejected"]) == (0, 0)
    assert turns(run, here) == before


def test_a_home_is_read_as_its_machine(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    there, here = fleet("there"), fleet("here")
    session(there, "s1", 0, 5)
    session(here, "s2", 0, 5)
    run("tok-sync", env=here)
    mounted = tmp_path / "desk"
    shutil.copytree(there["HOME"], mounted)
    [row] = rows(run, f"tok-sync --from {mounted}", here)
    assert (row["source"], row["from"], row["events"]) == ("claude-code-jsonl", str(mounted), 5)
    assert sorted(machine_of(run, here).values()) == ["desk"] * 5 + ["here"] * 5
    assert rows(run, f"tok-sync --from {mounted} --machine other", here)[0]["events"] == 0
    other = fleet("third")
    run(f"tok-sync --from {mounted} --machine laptop", env=other)
    assert set(machine_of(run, other).values()) == {"laptop"}


def test_a_home_that_moves_and_goes_away(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    """A home that is mounted elsewhere is the same; one that is not mounted is away, and its cursors stay."""
    there, here = fleet("there"), fleet("here")
    path = session(there, "s1", 0, 5)
    home = pathlib.Path(there["HOME"])
    run(f"tok-sync --from {home}", env=here)
    [state] = (pathlib.Path(here["TOKENOPS_HOME"]) / "sources").iterdir()
    kept = (state / "cursors.json").read_bytes()
    home.rename(tmp_path / "away")
    done = run(f"tok-sync --from {home}", env=here, status=2)
    assert f"{home}: " in done.stderr.decode()
    home.mkdir()  # where it is mounted
    assert "holds no client" in run(f"tok-sync --from {home}", env=here, status=2).stderr.decode()
    assert (state / "cursors.json").read_bytes() == kept
    home.rmdir()
    (tmp_path / "away").rename(home)
    session(there, "s1", 5, 6)
    [row] = rows(run, f"tok-sync --from {home}", here)
    assert (row["events"], row["bytes_read"]) == (
        1,
        path.stat().st_size * 1 // 6 // 10 * 10 + row["bytes_read"] % 10,
    ) or row["events"] == 1
    assert row["bytes_read"] < path.stat().st_size / 2


def test_links_out_of_a_home_are_not_that_machines(run: Run, fleet: Fleet) -> None:
    there, here = fleet("there"), fleet("here")
    session(there, "s1", 0, 3)
    mine = session(here, "s2", 0, 3)
    (pathlib.Path(there["HOME"]) / FOLDER / "s2.jsonl").symlink_to(mine)
    done = run(f"tok-sync --from {there['HOME']}", env=here, status=1)
    assert "lead out of it" in done.stderr.decode()
    assert {turn["session_id"] for turn in turns(run, here)} == {"s1"}


def test_parts_are_published_and_pulled(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    one, two, here = fleet("one"), fleet("two"), fleet("here")
    shared = tmp_path / "shared"
    for env, name in ((one, "s1"), (two, "s2"), (here, "s3")):
        session(env, name, 0, 20)
        run(f"tok-sync --to {shared}", env=env)
    assert len(list(shared.iterdir())) == 3
    for env in (one, two, here):
        rows(run, f"tok-sync --from {shared}", env)
        rows(run, f"tok-sync --from {shared} --to {shared}", env)
    assert sorted(machine_of(run, here).values()) == ["here"] * 20 + ["one"] * 20 + ["two"] * 20
    assert unstamped(run, one) == unstamped(run, two) == unstamped(run, here)
    # What was pulled is not published again: each part holds its own machine's events.
    for folder in shared.iterdir():
        held = {
            json.loads(line)["machine"]
            for path in folder.glob("*.gz")
            for line in gzip.decompress(path.read_bytes()).splitlines()
        }
        assert held == {json.loads((folder / "part.json").read_text())["machines"][0]}


def test_a_part_grows_at_its_end(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    one, here = fleet("one"), fleet("here")
    shared = tmp_path / "shared"
    session(one, "s1", 0, 20)
    run(f"tok-sync --to {shared}", env=one)
    [path] = shared.glob("*/*.gz")
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    session(one, "s1", 20, 25)
    [_, row] = rows(run, f"tok-sync --to {shared}", one)
    assert (row["kind"], row["days_written"]) == ("published", 1)
    assert path.read_bytes().startswith(before)
    assert len(path.read_bytes()) > len(before)
    unchanged = path.read_bytes()
    assert rows(run, f"tok-sync --to {shared}", one)[1]["days_written"] == 0
    # Cut off, as by a crash, or replaced by a program for synchronising: the day is written anew.
    path.write_bytes(unchanged[:-7])
    run(f"tok-sync --to {shared}", env=one)
    run(f"tok-sync --from {shared}", env=here)
    assert len(turns(run, here)) == 25
    run("tok-log compact --gzip", env=one)
    run(f"tok-sync --to {shared}", env=one)
    assert rows(run, f"tok-sync --from {shared}", here)[0]["events"] == 0
    assert len(turns(run, here)) == 25


def test_copies_and_torn_files_of_a_synchronised_folder(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    one, here = fleet("one"), fleet("here")
    shared = tmp_path / "shared"
    session(one, "s1", 0, 400)
    run(f"tok-sync --to {shared}", env=one)
    [folder] = shared.iterdir()
    paths = sorted(folder.glob("*.gz"))
    whole = paths[0].read_bytes()
    # Two halves of a day, as conflict copies, and the file that is being received.
    paths[0].with_name("2026-03-01.jsonl.sync-conflict-20260301-101010-ABCDEFG.gz").write_bytes(whole)
    paths[1].with_name("2026-03-02.jsonl (ada's conflicted copy 2026-03-02).gz").write_bytes(paths[1].read_bytes())
    paths[0].write_bytes(whole[: len(whole) // 2])
    paths[1].unlink()
    (folder / ".syncthing.2026-03-01.jsonl.gz.tmp").write_bytes(whole[:50])
    done = run(f"tok-sync --from {shared}", env=here, status=1)
    assert "incomplete archive" in done.stderr.decode()
    assert len(turns(run, here)) == 400
    assert run(f"tok-sync --from {shared}", env=here).stderr == b""  # once
    paths[0].write_bytes(whole)
    assert rows(run, f"tok-sync --from {shared}", here)[0]["events"] == 0


def test_hostile_parts(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    """Bombs, links, devices, long lines and unknown fields lose themselves only."""
    one, here = fleet("one"), fleet("here")
    shared = tmp_path / "shared"
    session(one, "s1", 0, 4)
    run(f"tok-sync --to {shared}", env=one)
    [folder] = shared.iterdir()
    secret = put(tmp_path / "secret.jsonl", claude("msg_secret"))
    (folder / "2026-03-05.jsonl").symlink_to(secret)
    os.mkfifo(folder / "2026-03-06.jsonl")
    good = json.loads(gzip.decompress(next(folder.glob("*.gz")).read_bytes()).splitlines()[0])
    good.pop("context", None)
    bad = [
        {**good, "id": "a", "prompt": "PROMPT-SENTINEL"},
        {**good, "id": "b", "machine": "x\x1b[2J"},
        {**good, "id": "c", "project": "w" * 5000},
        {**good, "id": "d", "v": 2},
        {**good, "id": "e", "turns": -1},
        {**good, "id": "fine"},
    ]
    (folder / "2026-03-07.jsonl").write_bytes(
        lines(bad) + b"[" * 10_000 + b"\n" + b"\0" * 500 + b"\n" + lines([{**good, "id": "fine2"}])
    )
    (folder / "2026-03-08.jsonl.gz").write_bytes(gzip.compress(b" " * (200 << 20)))
    done = run(f"tok-sync --from {shared} -v", env=here, status=1)
    assert b"PROMPT-SENTINEL" not in done.stderr + done.stdout
    assert b"\x1b" not in done.stderr
    assert {turn["id"] for turn in turns(run, here)} == {f"msg_s1_{n}" for n in range(4)} | {"fine", "fine2"}
    for path in pathlib.Path(here["TOKENOPS_HOME"]).rglob("*"):
        assert not path.is_file() or b"PROMPT-SENTINEL" not in path.read_bytes()


def test_the_configuration_names_sources(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    there, here, third = fleet("there"), fleet("here"), fleet("third")
    for env, name in ((there, "s1"), (here, "s2"), (third, "s3")):
        session(env, name, 0, 6)
    run("tok-sync", env=there)
    gone = tmp_path / "gone"
    sources = [there["TOKENOPS_HOME"], {"source": third["HOME"], "machine": "box"}, str(gone)]
    put(
        pathlib.Path(here["HOME"]) / ".config/tokenops/config.yaml", {"sync": {"from": sources, "to": str(tmp_path / "out")}}
    )
    done = run("tok-sync", env=here)
    assert f"{gone}: " in done.stderr.decode()
    assert done.stderr.decode().count("\n") == 1
    got = objects(done.stdout)
    assert [row.get("from") for row in got if row["kind"] == "sync"] == [None, there["TOKENOPS_HOME"], third["HOME"]]
    assert sorted(machine_of(run, here).values()) == ["box"] * 6 + ["here"] * 6 + ["there"] * 6
    assert run("tok-sync", env=here).stderr == b""  # it is known by now that one is away
    status = json.loads(run("tok-status --json", env=here, status=None).stdout)
    assert [row["state"] for row in status["pulled"]] == ["ok", "ok", "away"]
    assert status["pulled"][2]["away_since"]
    gone.mkdir()
    shutil.copytree(third["HOME"], gone, dirs_exist_ok=True)
    run("tok-sync", env=here)
    status = json.loads(run("tok-status --json", env=here, status=None).stdout)
    assert [row["state"] for row in status["pulled"]] == ["ok", "ok", "ok"]


@pytest.mark.parametrize(
    "name",
    ["ssh:-oProxyCommand=touch", "ssh:a b", "ssh:a;b", "ssh:$(x)", "docker:-v", "docker:a/b", "wsl:a b", "ssh:", "ssh:a\nb"],
)
def test_names_that_are_no_machine(run: Run, fleet: Fleet, name: str) -> None:
    done = subprocess.run(["tok-sync", "--from", name], env=fleet("here"), capture_output=True, check=False)
    assert done.returncode == 2
    assert b"is not the name of a machine" in done.stderr


def test_a_machine_that_changed_name_still_publishes_its_own(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    one, here = fleet("one"), fleet("here")
    shared = tmp_path / "shared"
    session(one, "s1", 0, 4)
    run(f"tok-sync --to {shared}", env=one)
    renamed = one | {"TOKENOPS_MACHINE": "uno"}
    session(one, "s1", 4, 6)
    run(f"tok-sync --to {shared}", env=renamed)
    assert len(list(shared.iterdir())) == 1
    run(f"tok-sync --from {shared}", env=here)
    assert sorted(machine_of(run, here).values()) == ["one"] * 4 + ["uno"] * 2


def test_a_machine_that_changed_name_before_it_published(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    """Twice, and for the second time into another folder: what it recorded is its own; what it pulled is not."""
    one, two, here = fleet("one"), fleet("two"), fleet("here")
    session(two, "s2", 0, 3)
    run(f"tok-sync --to {tmp_path / 'first'}", env=two)
    for number, name in enumerate(("one", "uno", "eins")):
        session(one, "s1", number * 2, number * 2 + 2)
        run("tok-sync", env=one | {"TOKENOPS_MACHINE": name})
    eins = one | {"TOKENOPS_MACHINE": "eins"}
    run(f"tok-sync --from {tmp_path / 'first'}", env=eins)
    for folder in ("first", "second"):
        run(f"tok-sync --to {tmp_path / folder}", env=eins)
    run(f"tok-sync --from {tmp_path / 'second'}", env=here)
    assert sorted(machine_of(run, here).values()) == ["eins"] * 2 + ["one"] * 2 + ["uno"] * 2


def test_damage_here_does_not_reach_the_part(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    """The published copy of a day whose archive was damaged stays as it is, until the archive is whole again."""
    one, here = fleet("one"), fleet("here")
    session(one, "s1", 0, 30)
    run(f"tok-sync --to {tmp_path / 'shared'}", env=one)
    run("tok-log compact --gzip", env=one)
    run(f"tok-sync --to {tmp_path / 'shared'}", env=one)
    (day,) = (pathlib.Path(one["TOKENOPS_HOME"]) / "events").iterdir()
    whole = day.read_bytes()
    for length in (len(whole) // 2, 100):
        day.write_bytes(whole[:length])
        assert rows(run, f"tok-sync --to {tmp_path / 'shared'}", one)[-1]["lines"] == 0
    run(f"tok-sync --from {tmp_path / 'shared'}", env=here)
    assert len(turns(run, here)) == 30
    day.write_bytes(whole)
    assert rows(run, f"tok-sync --to {tmp_path / 'shared'}", one)[-1]["lines"] == 30


@pytest.mark.parametrize("form", ["part", "log", "home"])
def test_a_backfill_brings_back_what_the_log_lost(run: Run, fleet: Fleet, tmp_path: pathlib.Path, form: str) -> None:
    """Pruned, or forgotten by a rule that was lifted, while nothing changed where it comes from."""
    there, here = fleet("there"), fleet("here")
    session(there, "s1", 0, 6)
    if form != "home":
        run(f"tok-sync --to {tmp_path / 'parts'}", env=there)
    source = {"part": tmp_path / "parts", "log": there["TOKENOPS_HOME"], "home": there["HOME"]}[form]
    run(f"tok-sync --from {source}", env=here)
    before = turns(run, here)
    for steps in (["prune --before 2026-04-01"], ["forget --session s1 --yes", "forget --undo 1"]):
        for step in steps:
            run(f"tok-log {step}", env=here)
        run(f"tok-sync --from {source} --backfill --dry-run", env=here)
        assert turns(run, here) == []
        run(f"tok-sync --from {source} --backfill", env=here)
        assert turns(run, here) == before and len(before) == 6
        assert sum(row["events"] for row in rows(run, f"tok-sync --from {source} --backfill", here)) == 0


def test_nothing_is_published_through_a_link(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    one = fleet("one")
    shared, victim = tmp_path / "shared", put(tmp_path / "victim", b"mine\n")
    session(one, "s1", 0, 4)
    run(f"tok-sync --to {shared}", env=one)
    [path] = shared.glob("*/*.gz")
    path.unlink()
    path.symlink_to(victim)
    session(one, "s1", 4, 6)
    run(f"tok-sync --to {shared}", env=one)
    assert victim.read_bytes() == b"mine\n"
    assert not path.is_symlink()
    folder, elsewhere = path.parent, tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    before = sorted((item.name, item.read_bytes()) for item in elsewhere.iterdir())
    session(one, "s1", 6, 8)
    done = run(f"tok-sync --to {shared}", env=one, status=2)
    assert "nothing is written through one" in done.stderr.decode()
    assert sorted((item.name, item.read_bytes()) for item in elsewhere.iterdir()) == before


@pytest.mark.parametrize("program", ["age", "gpg"])
def test_parts_are_encrypted(run: Run, fleet: Fleet, tmp_path: pathlib.Path, program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"there is no {program} here")
    one, here = fleet("one"), fleet("here")
    shared = tmp_path / "shared"
    if program == "age":
        subprocess.run(["age-keygen", "-o", tmp_path / "key"], check=True, capture_output=True)
        encrypt = {
            "age": subprocess.run(["age-keygen", "-y", tmp_path / "key"], check=True, capture_output=True)
            .stdout.decode()
            .strip()
        }
        decrypt = {"age": str(tmp_path / "key")}
    else:
        keys = tempfile.mkdtemp(dir="/tmp")  # the path of gpg's socket must be short
        for env in (one, here):
            env["GNUPGHOME"] = keys
        make = ["gpg", "--batch", "--passphrase", "", "--quick-gen-key", "ada@example.org", "default", "default"]
        subprocess.run(make, env=one, check=True, capture_output=True)
        encrypt, decrypt = {"gpg": "ada@example.org"}, {}
    try:
        session(one, "s1", 0, 100)
        run(f"tok-sync --to {shared}", env=one)
        assert list(shared.glob("*/*.jsonl.gz"))
        put(pathlib.Path(one["HOME"]) / ".config/tokenops/config.yaml", {"sync": {"encrypt": encrypt}})
        session(one, "s1", 100, 110)
        run(f"tok-sync --to {shared}", env=one)
        assert not list(shared.glob("*/*.jsonl.gz"))  # what was published before is encrypted now
        assert len(list(shared.glob(f"*/*.jsonl.gz.{program}"))) == 2
        if program == "age":
            done = run(f"tok-sync --from {shared}", env=here, status=None)
            assert "sync.decrypt" in done.stderr.decode()
            assert turns(run, here) == []
        settings = {"sync": {"decrypt": decrypt}} if decrypt else {}
        put(pathlib.Path(here["HOME"]) / ".config/tokenops/config.yaml", settings)
        run(f"tok-sync --from {shared}", env=here)
        assert unstamped(run, here) == unstamped(run, one)
        damaged = next(shared.glob(f"*/*.{program}"))
        damaged.write_bytes(damaged.read_bytes()[:-40] + b"\0" * 40)
        done = run(f"tok-sync --from {shared}", env=here, status=None)
        assert f"{program} cannot decrypt it" in done.stderr.decode()
        assert len(turns(run, here)) == 110
    finally:
        if program == "gpg":
            subprocess.run(["gpgconf", "--kill", "all"], env=one, check=False)
            shutil.rmtree(keys)


@pytest.mark.parametrize(
    ("source", "program", "before"),
    [("docker:dev-box", "docker", "exec -i dev-box"), ("wsl:Ubuntu-24.04", "wsl.exe", "-d Ubuntu-24.04 --exec")],
)
def test_containers(run: Run, fleet: Fleet, tmp_path: pathlib.Path, source: str, program: str, before: str) -> None:
    """The program gets the container and our script; here it runs that in another home."""
    there, here = fleet("there"), fleet("here")
    script = f'[ "${{*%% sh -c*}}" = "{before}" ] || exit 9\nwhile [ "$1" != sh ]; do shift; done\n'
    own = f"env HOME={there['HOME']} TOKENOPS_HOME={there['TOKENOPS_HOME']}"
    put(tmp_path / "tools" / program, f'#!/bin/sh\n{script}exec {own} "$@"\n'.encode()).chmod(0o755)
    here["PATH"] = f"{tmp_path}/tools:{here['PATH']}"
    session(there, "s1", 0, 5)
    [row] = rows(run, f"tok-sync --from {source}", here)
    assert (row["from"], row["events"]) == (source, 5)
    assert set(machine_of(run, here).values()) == {source.partition(":")[2]}
    run("tok-sync", env=there)
    [row] = rows(run, f"tok-sync --from {source}", here)
    assert (row["source"], row["events"]) == ("tokenops", 0)


def test_a_container_without_its_program(run: Run, fleet: Fleet, tmp_path: pathlib.Path) -> None:
    done = run(
        "tok-sync --from wsl:Ubuntu",
        env=fleet("here") | {"PATH": f"{ROOT}/bin:{os.path.dirname(sys.executable)}:/bin"},
        status=2,
    )
    assert "there is no program wsl.exe on the PATH" in done.stderr.decode()
