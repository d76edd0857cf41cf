"""Odd entries in clients' folders: each is reported, none waits, stops other files, or is believed."""

from __future__ import annotations

import os
import pathlib
import socket
import sqlite3
from collections.abc import Callable

import pytest

from conftest import Json, Run, claude, lines, objects, put, some_of
from tokenops import catalog, jsonl, price_tables, read_lines, regular, ship_folder, ship_outbox, sync_gather
from tokenops.events import BadRecord
from tokenops.read_clients import BY_NAME

FOLDER = ".claude/projects/-home-ada-app"
USUAL = claude("msg_good", sessionId="s0")


def pipe(path: pathlib.Path) -> None:
    os.mkfifo(path)


def link_to_itself(path: pathlib.Path) -> None:
    path.symlink_to(path.name)


def bound_socket(path: pathlib.Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def device(path: pathlib.Path) -> None:
    path.symlink_to("/dev/zero")


ODD = [pipe, link_to_itself, bound_socket, device]
# Client and the name of a file that it would read, in folders that are listed in different ways.
PLACES = [
    ("claude", ".claude/projects/-x/odd.jsonl"),
    ("codex", ".codex/sessions/2026/11/20/rollout-2026-11-20T10-00-00-00000000-0000-7000-8000-000000000009.jsonl"),
    ("opencode", ".local/share/opencode/opencode.db"),
    ("opencode", ".local/share/opencode/storage/message/ses_1/msg_1.json"),
    ("gemini", ".gemini/tmp/app/chats/session-2026-11-20T10-00-aaaaaaaa.json"),
    ("goose", ".local/share/goose/sessions/sessions.db"),
    ("hermes", ".hermes/state.db"),
    ("amp", ".local/share/amp/threads/T-1.json"),
]


@pytest.mark.parametrize(("make", "client", "name"), some_of([(make, *place) for place in PLACES for make in ODD], 3))
def test_an_odd_entry_stops_nothing(run: Run, environment: dict[str, str], make: object, client: str, name: str) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / FOLDER / "s0.jsonl", USUAL)
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)  # type: ignore[operator]
    for _ in range(2):
        done = run("tok-sync", status=None)
        assert done.returncode in (0, 1), done.stderr
        assert b"Traceback" not in done.stderr and b"report it" not in done.stderr
        assert done.returncode == 0 or os.path.basename(name).encode() in done.stderr
    assert [event["id"] for event in objects(run("tok-cat").stdout) if event["kind"] == "turn"] == ["msg_good"]
    assert run("tok-status --json", status=None).returncode in (0, 1)


def test_what_is_not_a_file_is_named_by_its_kind(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / FOLDER / "s0.jsonl", USUAL)
    os.mkfifo(home / FOLDER / "odd.jsonl")
    link_to_itself(home / FOLDER / "self.jsonl")
    (home / FOLDER / "gone.jsonl").symlink_to("nowhere")  # clients remove files that links lead to
    for command in ("tok-read", "tok-sync"):
        done = run(command, status=1)
        assert f"{home / FOLDER}/odd.jsonl: a pipe, expected a regular file; it is not read" in done.stderr.decode()
        assert f"{home / FOLDER}/self.jsonl: Too many levels of symbolic links; it is not read" in done.stderr.decode()
        assert b"gone.jsonl" not in done.stderr


def test_links_out_of_a_folder_are_not_followed(tmp_path: pathlib.Path) -> None:
    put(tmp_path / "home/logs/inside/a.jsonl", USUAL)
    put(tmp_path / "elsewhere/b.jsonl", USUAL)
    put(tmp_path / "home/c.jsonl", USUAL)
    for name, target in (("root", "/"), ("up", ".."), ("proc", "/proc"), ("other", tmp_path / "elsewhere"), ("loop", ".")):
        (tmp_path / "home/logs" / name).symlink_to(target)
    with read_lines.listing_problems() as problems:
        paths = list(read_lines.walk(str(tmp_path / "home/logs")))
    assert [os.path.relpath(path, tmp_path / "home/logs") for path in paths] == ["inside/a.jsonl", "other/b.jsonl"]
    assert sorted(os.path.basename(folder) for folder in problems) == ["proc", "root", "up"]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a/x.jsonl", USUAL)
    put(tmp_path / "b/y.jsonl", USUAL)
    (tmp_path / "a").chmod(0)
    with read_lines.listing_problems() as problems:
        paths = [os.path.basename(path) for path in read_lines.walk(str(tmp_path))]
    (tmp_path / "a").chmod(0o700)
    if os.geteuid() == 0:
        pytest.skip("root may enter every folder")
    assert paths == ["y.jsonl"] and list(problems) == [str(tmp_path / "a")]


@pytest.mark.parametrize("make", ODD[:1] + ODD[2:])
def test_only_regular_files_are_opened(tmp_path: pathlib.Path, make: object) -> None:
    make(tmp_path / "odd")  # type: ignore[operator]
    with pytest.raises(OSError), open(tmp_path / "odd", "rb", opener=regular.opener):
        pass
    put(tmp_path / "usual", b"text")
    with open(tmp_path / "usual", "rb", opener=regular.opener) as file:
        assert file.read() == b"text"
    with pytest.raises(IsADirectoryError), open(tmp_path, "rb", opener=regular.opener):
        pass


def test_a_sparse_file_is_bounded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_lines, "LONGEST_LINE", 4 << 20)
    monkeypatch.setattr(read_lines, "MOST_DOCUMENT", 4 << 20)
    path = tmp_path / "s.jsonl"
    put(path, USUAL)
    with path.open("r+b") as file:
        file.truncate(64 << 20)
    batch = sync_gather.gather(BY_NAME["claude"], [str(path)], 1)
    assert [entry[1] for entry in batch.entries] == ["msg_good"]
    assert batch.rejected == [(f"{path}:2", "a line of more than 4 MiB; skipped")]
    with path.open("ab") as file:
        file.write(b"\n" + lines([claude("msg_behind", sessionId="s0")]))
    batch = sync_gather.gather(BY_NAME["claude"], [str(path)], 1)
    assert sorted(entry[1] for entry in batch.entries) == ["msg_behind", "msg_good"]
    with pytest.raises(BadRecord, match="larger than 4 MiB"):
        read_lines.content(str(path))


@pytest.mark.parametrize("client", ["goose", "hermes", "copilot"])
def test_a_view_without_an_end_is_refused(run: Run, environment: dict[str, str], client: str) -> None:
    name, table = {
        "goose": (".local/share/goose/sessions/sessions.db", "sessions"),
        "hermes": (".hermes/state.db", "sessions"),
        "copilot": (".copilot/session-store.db", "assistant_usage_events"),
    }[client]
    path = pathlib.Path(environment["HOME"]) / name
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as made:
        endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id"
        fields = (
            "'x' AS session_id, 1 AS created_at, 1 AS started_at, 1 AS updated_at, 1 AS input_tokens, 1 AS output_tokens"
        )
        made.execute(f"CREATE VIEW {table} AS {endless}, {fields} FROM n")
    done = run(f"tok-read {client}", status=1)
    assert f"{path}: {table} is a view where a table was expected; skipped".encode() in done.stderr


def test_half_a_character_stops_nothing(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    half = b"\\ud83c"
    line = lines([claude("msg_1", cwd="/home/ada/treeX", sessionId="sX")]).replace(b"X", half)
    put(home / FOLDER / "s0.jsonl", USUAL, line)
    name = os.path.join(os.fsencode(home / FOLDER), b"caf\xe9.jsonl")
    with open(name, "wb") as file:
        file.write(lines([claude("msg_2", sessionId="s2")]))
    for more in (b"msg_3", b"msg_4"):
        assert run("tok-sync").stderr == b""
        with open(name, "ab") as file:
            file.write(lines([claude(more.decode(), sessionId="s2")]))
    run("tok-sync")
    events = [event for event in objects(run("tok-cat").stdout) if event["kind"] == "turn"]
    assert {event["id"]: event["project"] for event in events}["msg_1"] == "tree?"
    assert sorted(event["id"] for event in events) == ["msg_1", "msg_2", "msg_3", "msg_4", "msg_good"]
    cursors = (pathlib.Path(environment["TOKENOPS_HOME"]) / "cursors.json").read_bytes()
    assert run("tok-sync --json").stdout.count(b'"files_read":0') >= 1  # the cursor of that file is kept too
    assert b"\\udce9" in cursors


@pytest.mark.parametrize("command", ["tok-trace", "tok-log explain", "tok-task show", "tok-cost --log --project"])
@pytest.mark.parametrize("octal", [r"a\355\240\274b", r"caf\351"])
def test_an_argument_that_is_not_text_is_not_found(run: Run, environment: dict[str, str], command: str, octal: str) -> None:
    put(pathlib.Path(environment["HOME"]) / FOLDER / "s0.jsonl", USUAL)
    done = run(f"""{command} "$(printf '{octal}')" """, status=None)
    assert done.returncode in (0, 1, 2) and b"Traceback" not in done.stderr and b"report it" not in done.stderr
    assert not objects(done.stdout) or command == "tok-cost --log --project"


WHOLE: Json = {"type": "b", "n": {"x": [1, {"y": 2}]}}


@pytest.mark.parametrize(
    ("torn", "count"),
    [
        (b'{"a":"text', 1),
        (b'{"a":"text\\', 1),
        (b'{"a":1,"bc', 1),
        (b'{"a":1,"bc"', 1),
        (b'{"type":1,"bc":', 1),
        (b'{"type":1,"bc":{"x":1},', 1),
        (b'{"a":"text\\u12', 1),
        (b'{"a":fal', 1),
        (b'{"a":1,"b":"x{"a":"y', 1),  # torn twice
        (b'{"a":1,"bc":12', 1),
        (b'{"a":{"b":[{"c":1},{"d":"', 1),
        (b"{", 1),
        (b'{"whole":1}{"a":"text', 2),
    ],
)
def test_whole_records_behind_a_torn_one_count(torn: bytes, count: int) -> None:
    for behind in (1, 2):
        records, why = jsonl.objects(torn + lines([WHOLE]).strip() * behind)
        assert records[-behind:] == [WHOLE] * behind and len(records) == count - 1 + behind
        assert why.startswith("not JSON (") and why.endswith("; skipped")


@pytest.mark.parametrize(
    "line", [b'{"a":{"b":1},"c":', b'{"a":{"b":1}', b'{"a":[{"b":1},{"c":2}', b"[1,2", b"null", b'x{"a":1}']
)
def test_no_part_of_a_torn_record_counts(line: bytes) -> None:
    records, why = jsonl.objects(line)
    assert records == [] and why.endswith("skipped")


def test_nested_values_are_refused_without_being_quoted(run: Run, environment: dict[str, str]) -> None:
    home = pathlib.Path(environment["HOME"])
    deep = b"[" * 1005 + b"]" * 1005
    bad = lines([claude("msg_bad", sessionId="s0", ts="DEEP")]).replace(b'"DEEP"', deep)
    put(home / FOLDER / "s0.jsonl", USUAL, bad, claude("msg_after", sessionId="s0"))
    done = run("tok-sync", status=1)
    assert f"{home / FOLDER}/s0.jsonl:2: timestamp is an array; expected a time" in done.stderr.decode()
    assert b"[[[" not in done.stderr
    assert sorted(event["id"] for event in objects(run("tok-cat --kind turn").stdout)) == ["msg_after", "msg_good"]


@pytest.mark.parametrize("make", [pipe, device, bound_socket])
def test_odd_files_of_our_own_make_nobody_wait(make: Callable[[pathlib.Path], None], tmp_path: pathlib.Path) -> None:
    """What tok-ship, tok-price and the catalogue read."""
    box = ship_outbox.Outbox(str(tmp_path / "log"), "target", "")
    box.add_acknowledged("2026-11-20", [b"x" * 10])
    for name in ("2026-11-21", ship_outbox.REFUSED):
        make(pathlib.Path(box.folder) / name)
    with pytest.raises(OSError):
        box.acknowledged_digests("2026-11-21")
    with pytest.raises(OSError):
        box.add_acknowledged("2026-11-21", [b"x" * 10])
    with pytest.raises(OSError):
        box.add_refused([])
    store_ = ship_folder.Folder(str(tmp_path), "machine", "jsonl")
    path = pathlib.Path(store_.path_of("2026-11-20"))
    path.parent.mkdir()
    make(path)
    with pytest.raises(OSError):
        store_.read("2026-11-20")
    (tmp_path / "snapshots").mkdir()
    make(tmp_path / "snapshots/genai.json")
    with pytest.raises(OSError):
        price_tables.load(str(tmp_path), "genai")
    (tmp_path / "pricing").mkdir()
    make(tmp_path / "pricing/odd.yaml")
    with pytest.raises(OSError):
        catalog.sources("pricing/*.yaml", str(tmp_path))
