"""What holds for the reader of every client in the table.

Each client's own test module has `steps(home)`, which writes a sample of all that the client writes, where it writes
it, and yields whenever a reader might come by. Everything here grows, breaks and mixes those samples.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import pathlib
import random
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Json, Run, examples, objects
from tokenops import (
    events,
    fields,
    joins,
    read_clients,
    read_lines,
    read_records,
    read_sqlite,
    readers,
    store,
    sync,
    sync_gather,
)
from tokenops.read_contract import Options

CLIENTS = read_clients.CLIENTS
each = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
QUICK = examples(20)  # of each of the readers, which share most of their code
# Now, and not inside a property test: these modules have property tests of their own, and Hypothesis refuses nested ones.
SAMPLES = {client.name: importlib.import_module(f"test_{client.module}") for client in CLIENTS}


def test_mypy_sees_the_reader_of_every_client() -> None:
    """The table imports by name, so the names that mypy is shown have to be those of the table."""
    tree = ast.parse(pathlib.Path(read_clients.__file__).read_text())
    (shown,) = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "MODULES"
    ]
    assert isinstance(shown, ast.Tuple)
    assert [ast.unparse(name) for name in shown.elts] == [client.module for client in CLIENTS]


def steps(client: read_clients.Client, home: pathlib.Path) -> Iterator[None]:
    """The sample of a client, step by step."""
    found: Iterator[None] = SAMPLES[client.name].steps(home)
    return found


def sample(client: read_clients.Client, home: pathlib.Path) -> None:
    """The whole sample of a client."""
    for _ in steps(client, home):
        pass


def located(client: read_clients.Client, home: pathlib.Path) -> list[str]:
    """The client's files in a sample home; a client without a place of its own gets all files there are."""
    if client.homes:
        return readers.files(client, readers.directories_below(client, str(home)))
    return sorted(str(path) for path in home.rglob("*") if path.is_file())


def shown(found: list[events.Event]) -> dict[str, Json]:
    """Events by id, without what hashes the paths of the test's own folders."""
    return {event["id"]: {k: v for k, v in event.items() if k != "project_id"} for event in found}


def gathered(client: read_clients.Client, paths: list[str], jobs: int = 1) -> sync_gather.Batch:
    """All that some files hold, work included."""
    cursors = {path: read_lines.Cursor() for path in paths}
    batch = sync_gather.read(client.reader(), cursors, Options(b"salt", work=True), jobs)
    assert not batch.unread
    return batch


def read(client: read_clients.Client, home: pathlib.Path) -> tuple[dict[str, Json], list[tuple[str, str]]]:
    """All events of a home at once, and what was rejected."""
    batch = gathered(client, located(client, home))
    return shown(list(sync_gather.in_order([batch]))), batch.rejected


@each
def test_a_sample_is_read(client: read_clients.Client, tmp_path: pathlib.Path) -> None:
    sample(client, tmp_path)
    found, rejected = read(client, tmp_path)
    assert found and not rejected
    reader = client.reader()
    assert (client.source, client.client) == (reader.source, reader.client)
    for event in found.values():
        assert not fields.fault(event), fields.fault(event)
        assert client.client in ("", event["client"])  # an export may be of any client
        assert event["kind"] in ("turn", "usage", "meter", "work", "context")
        assert event.get("reasoning_tokens", 0) <= event.get("output_tokens", 0)


@each
def test_reading_what_is_new_gives_what_reading_all_gives(client: read_clients.Client, tmp_path: pathlib.Path) -> None:
    home, log = tmp_path / "home", str(tmp_path / "log")
    home.mkdir()
    for _ in steps(client, home):
        sync.run(log, [(client, located(client, home))])
    sync.run(log, [(client, located(client, home))])
    kept = shown([json.loads(line) for line in store.scan(log, context=True)])
    whole = read(client, home)[0]
    if client.gives.startswith("readings"):  # the log keeps those that the file no longer has; their names hold the salt
        told = {(event["window"], event["used"], event["observed_at"]) for event in kept.values()}
        assert {(event["window"], event["used"], event["observed_at"]) for event in whole.values()} < told
    else:
        assert kept == whole


@each
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_second_run_adds_nothing(client: read_clients.Client, jobs: int, tmp_path: pathlib.Path) -> None:
    home, log = tmp_path / "home", str(tmp_path / "log")
    home.mkdir()
    sample(client, home)
    first = sync.run(log, [(client, located(client, home))], jobs=jobs)
    assert shown([json.loads(line) for line in store.scan(log, context=True)]) == read(client, home)[
        0
    ] or client.gives.startswith("readings")
    again = sync.run(log, [(client, located(client, home))])
    assert first and again and first[0].events and not again[0].events and not again[0].read
    whole = sync.run(log, [(client, located(client, home))], backfill=True)
    assert whole and not whole[0].events


@each
def test_any_order_of_files_and_any_number_of_workers(client: read_clients.Client, tmp_path: pathlib.Path) -> None:
    sample(client, tmp_path)
    paths = located(client, tmp_path)
    wanted = shown(list(sync_gather.in_order([gathered(client, paths)])))
    for seed in range(4):
        random.Random(seed).shuffle(paths)
        assert shown(list(sync_gather.in_order([gathered(client, paths, 1 + seed)]))) == wanted


@each
def test_a_file_is_known_by_its_look(client: read_clients.Client, tmp_path: pathlib.Path) -> None:
    sample(client, tmp_path)
    for path in located(client, tmp_path):
        [(owner, _)] = readers.with_directories([], [path], {}, str(tmp_path))
        assert owner == client, path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def survive(client: read_clients.Client, path: pathlib.Path, cursor: read_lines.Cursor | None = None) -> list[events.Event]:
    """Read one file, and move the cursor: no line may surprise its reader, and the log takes every record."""
    options = Options(b"salt", resumable=cursor is not None, work=True)
    batch = sync_gather.read(client.reader(), {str(path): cursor or read_lines.Cursor()}, options, 1)
    if cursor is not None:
        cursor.offset, cursor.number, cursor.state, *_ = batch.positions[str(path)]
    assert not [why for _, why in batch.rejected if "please report" in why]
    found = [read_records.record(entry) for entry in batch.entries]
    assert not list(filter(None, map(fields.fault, found)))
    return found


@contextlib.contextmanager
def copied(path: str, home: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file in a copy of its home."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(home, folder, dirs_exist_ok=True)
        yield pathlib.Path(folder) / pathlib.Path(path).relative_to(home)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[read_clients.Client], pathlib.Path]:
    made: dict[str, pathlib.Path] = {}

    def home(client: read_clients.Client) -> pathlib.Path:
        if client.name not in made:
            made[client.name] = tmp_path_factory.mktemp(client.name)
            sample(client, made[client.name])
        return made[client.name]

    return home


Homes = Callable[[read_clients.Client], pathlib.Path]


@each
@QUICK
@given(data=st.binary(max_size=200), random_=st.randoms(use_true_random=False))
def test_any_bytes(client: read_clients.Client, homes: Homes, data: bytes, random_: random.Random) -> None:
    home = homes(client)
    with copied(random_.choice(located(client, home)), home) as path:
        whole = path.read_bytes()
        at, end = sorted((random_.randint(0, len(whole)), random_.randint(0, len(whole))))
        path.write_bytes(random_.choice([data, whole[:at] + data + whole[at:], whole[:at] + data + whole[end:], whole[:at]]))
        survive(client, path)


def changed(value: Any, random_: random.Random, other: Any) -> Any:
    """A JSON value with one thing somewhere in it replaced or left out."""
    if isinstance(value, (dict, list)) and value and random_.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = random_.choice(keys)
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        if random_.random() < 0.2:
            del copy[key]
        else:
            copy[key] = changed(copy[key], random_, other)
        return copy
    return other


@each
@QUICK
@given(other=JSON, random_=st.randoms(use_true_random=False))
def test_any_json(client: read_clients.Client, homes: Homes, other: Any, random_: random.Random) -> None:
    home = homes(client)
    paths = [path for path in located(client, home) if not read_sqlite.is_database(path)]
    if not paths:
        return
    with copied(random_.choice(paths), home) as path:
        text = path.read_text()
        try:
            path.write_text(json.dumps(changed(json.loads(text), random_, other)))
        except ValueError:
            lines = text.splitlines()
            at = random_.randrange(len(lines))
            with contextlib.suppress(ValueError):
                lines[at] = json.dumps(changed(json.loads(lines[at]), random_, other))
            path.write_text("\n".join(lines) + "\n")
        survive(client, path)


def with_value(value: Any, name: str, other: Any) -> Any:
    """A JSON value in which every name or count of that key is another one."""
    if isinstance(value, dict):
        return {
            key: other if key == name and type(inner) is type(other) else with_value(inner, name, other)
            for key, inner in value.items()
        }
    return [with_value(inner, name, other) for inner in value] if isinstance(value, list) else value


@each
@pytest.mark.parametrize("other", ["x" * 1000, 1 << 53, (1 << 63) - 1], ids=["long", "2^53", "2^63"])
def test_every_name_too_long_and_every_count_too_large(client: read_clients.Client, homes: Homes, other: Any) -> None:
    home = homes(client)
    for source in (path for path in located(client, home) if path.endswith((".jsonl", ".json"))):
        text = pathlib.Path(source).read_text()
        whole: list[Any] = []
        with contextlib.suppress(ValueError):
            whole = [json.loads(text)] if source.endswith(".json") else [json.loads(line) for line in text.splitlines()]
        for name in sorted(set(re.findall(r'"(\w+)": ?', text))):
            changed = [with_value(line, name, other) for line in whole]
            if changed != whole:
                with copied(source, home) as path:
                    path.write_text("".join(f"{json.dumps(line)}\n" for line in changed))
                    survive(client, path)


@each
@QUICK
@given(data=st.binary(max_size=60).filter(lambda data: b"\n" not in data), random_=st.randoms(use_true_random=False))
def test_a_bad_line_changes_no_other(client: read_clients.Client, homes: Homes, data: bytes, random_: random.Random) -> None:
    home = homes(client)
    paths = [path for path in located(client, home) if path.endswith((".jsonl", ".csv"))]
    if not paths:
        return
    with copied(random_.choice(paths), home) as path:
        wanted = survive(client, path)
        lines = path.read_bytes().splitlines(keepends=True)
        lines.insert(random_.randint(1, len(lines)), b"\x00{" + data + b"\n")
        path.write_bytes(b"".join(lines))
        assert shown(survive(client, path)) == shown(wanted)


@each
@QUICK
@given(random_=st.randoms(use_true_random=False))
def test_any_split_of_lines(client: read_clients.Client, homes: Homes, random_: random.Random) -> None:
    home = homes(client)
    paths = [path for path in located(client, home) if path.endswith(".jsonl")]
    if not paths:
        return
    with copied(random_.choice(paths), home) as path:
        whole, cursor, found = path.read_bytes(), read_lines.Cursor(), {}
        wanted: dict[str, events.Event] = {}
        for event in survive(client, path):
            wanted[event["id"]] = joins.join(wanted[event["id"]], event) if event["id"] in wanted else event
        for cut in (*sorted(random_.sample(range(len(whole)), min(4, len(whole)))), len(whole)):
            path.write_bytes(whole[:cut])
            cursor = read_lines.Cursor(cursor.offset, cursor.number, json.loads(json.dumps(cursor.state)))
            for event in survive(client, path, cursor):
                found[event["id"]] = joins.join(found[event["id"]], event) if event["id"] in found else event
        assert shown(list(found.values())) == shown(list(wanted.values()))


@each
@QUICK
@given(value=st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
       random_=st.randoms(use_true_random=False))  # fmt: skip
def test_a_database_of_another_version(
    client: read_clients.Client, homes: Homes, value: Any, random_: random.Random
) -> None:
    home = homes(client)
    paths = [path for path in located(client, home) if read_sqlite.is_database(path)]
    if not paths:
        return
    with copied(random_.choice(paths), home) as path:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            table = random_.choice(tables)
            column = random_.choice([row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')])
            with contextlib.suppress(sqlite3.Error):  # a key cannot be dropped
                connection.execute(
                    random_.choice(
                        [
                            f'DROP TABLE "{table}"',
                            f'ALTER TABLE "{table}" DROP COLUMN "{column}"',
                            f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "renamed"',
                            f'ALTER TABLE "{table}" RENAME TO "renamed"',
                        ]
                    )
                )
            with contextlib.suppress(sqlite3.Error, OverflowError):
                connection.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))
            connection.commit()
        survive(client, path)


def test_one_broken_client_stops_no_other(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    expected = {}
    for client in CLIENTS:
        if client.homes:
            sample(client, home)
    for client in CLIENTS:
        if client.homes:
            expected[client.name] = {event["id"] for event in objects(run(f"tok-read {client.name}", status=None).stdout)}
    whole = {event["id"] for event in objects(run("tok-read all", status=None).stdout)}
    assert whole == set().union(*expected.values())
    for client in CLIENTS:
        kept = {path: pathlib.Path(path).read_bytes() for path in (located(client, home) if client.homes else ())}
        for path in kept:
            pathlib.Path(path).write_bytes(b"\xff{ broken" * 100)
        done = run("tok-read all", status=None)
        assert done.returncode in (0, 1) and b"Traceback" not in done.stderr and b"please report" not in done.stderr
        found = {event["id"] for event in objects(done.stdout)}
        for other, ids in expected.items():
            if other != client.name and not shares(other, client.name):
                assert ids <= found, (client.name, other)
        for path, data in kept.items():
            pathlib.Path(path).write_bytes(data)
    gone = run("tok-read all", status=1, env={"CODEX_HOME": "/nowhere"})
    assert b"CODEX_HOME=/nowhere: no such directory" in gone.stderr
    assert {event["id"] for event in objects(gone.stdout)} == whole - expected["codex"]


def shares(one: str, other: str) -> bool:
    """Whether two clients' samples hold the same sessions."""
    return {one, other} == {"pi", "openclaw"}


def test_a_client_without_counts_is_named_with_what_to_do(run: Run, environment: dict[str, str]) -> None:
    done = run("tok-read windsurf", status=2)
    assert "holds no token counts" in done.stderr.decode() or "hold no token counts" in done.stderr.decode()
    assert "tok-proxy" in done.stderr.decode()
    (pathlib.Path(environment["HOME"]) / ".codeium/windsurf").mkdir(parents=True)
    (told,) = objects(run("tok-status", status=1).stdout)
    assert any(row["client"] == "windsurf" and "tok-proxy" in row["blocker"] for row in told["clients"])


def test_entries_of_one_time_and_id_are_in_order_all_the_same() -> None:
    same = [("2026-03-01", "a", {"kind": "turn"}), ("2026-03-01", "a", {"kind": "work"})]
    assert read_records.by_time([*same, ("2026-02-01", "b", {})])[1:] == same
