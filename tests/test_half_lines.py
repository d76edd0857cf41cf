"""Files that are read while a client writes them, or after a crash: half lines, joined lines, zeros, and files that are rewritten."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import random
import shutil

import pytest

from conftest import Json, claude, codex_count, codex_meta, codex_model, lines, put
from tokenops import jsonl, read_clients, readers, store, sync

CLIENTS = [read_clients.BY_NAME[name] for name in ("claude", "codex", "gemini", "copilot", "qwen", "kimi", "pi", "openclaw")]
WHOLE: Json = {"type": "b", "n": {"x": [1, {"y": 2}]}}


def kept(log: pathlib.Path) -> dict[str, Json]:
    """The records of a log by id; of what is beyond a session's turns only the latest counts, and is not compared."""
    records = [json.loads(line) for line in store.scan(str(log))]
    return {record["id"]: record for record in records if record.get("covers") != "remainder"}


def imported(log: pathlib.Path, client: read_clients.Client, paths: list[str]) -> list[tuple[str, str]]:
    """Import what is new; what was rejected."""
    log.mkdir(exist_ok=True)
    (log / "salt").write_bytes(b"s" * 32)
    outcomes = sync.run(str(log), [(client, paths)], jobs=1)
    assert outcomes is not None
    return outcomes[0].rejected


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_last_line_without_its_end_is_completed_later(client: read_clients.Client, tmp_path: pathlib.Path) -> None:
    home, draw = tmp_path / "home", random.Random(3)
    home.mkdir()
    for _ in importlib.import_module(f"test_{client.module}").steps(home):
        pass
    paths = readers.files(client, readers.directories_below(client, str(home)))
    imported(tmp_path / "whole", client, paths)
    whole = kept(tmp_path / "whole")
    assert whole
    for path in (pathlib.Path(path) for path in paths if path.endswith(".jsonl")):
        data = path.read_bytes()
        if any(path.stem[-36:] in other.read_text() for other in home.rglob("*.jsonl") if other != path):
            continue  # nobody forks what is not written yet
        ends = [at for at, byte in enumerate(data) if byte == ord("}")]
        for number, at in enumerate(sorted(draw.sample(ends, min(len(ends), 6)))):  # after a brace a line may look whole
            log = tmp_path / f"{path.name}-{number}"
            path.write_bytes(data[: at + 1])
            assert imported(log, client, paths) == []
            path.write_bytes(data)
            os.utime(path, (1.7e9 + number, 1.7e9 + number))
            assert imported(log, client, paths) == []
            assert kept(log) == whole
            shutil.rmtree(log)


def test_a_count_without_totals_at_the_end_of_a_file_counts_once(tmp_path: pathlib.Path) -> None:
    counts = lines([codex_count(None, (9000, 6000, 400, 150)), codex_count(None, (12500, 9200, 920, 460))])
    head = lines([codex_meta("t1"), codex_model("gpt-5.5")])
    path = tmp_path / "rollout-a.jsonl"
    for more in (head, counts[: counts.index(b"\n")], counts[counts.index(b"\n") : -1], b"\n"):
        with path.open("ab") as file:
            file.write(more)
        imported(tmp_path / "log", read_clients.BY_NAME["codex"], [str(path)])
    assert sorted(record["output_tokens"] for record in kept(tmp_path / "log").values()) == [400, 920]


@pytest.mark.parametrize("change", ["in place", "behind a new file"])
def test_a_file_that_changed_and_grew_is_read_from_its_beginning(change: str, tmp_path: pathlib.Path) -> None:
    first, second = claude("msg_1", 10, uuid="u1"), claude("msg_2", 20, uuid="u2")
    path = put(tmp_path / "s1.jsonl", first, second)
    imported(tmp_path / "log", read_clients.BY_NAME["claude"], [str(path)])
    new = path if change == "in place" else tmp_path / "new"
    put(new, lines([first]).replace(b"msg_1", b"msg_7"), second, claude("msg_3", 30, uuid="u3"))
    new.replace(path)
    imported(tmp_path / "log", read_clients.BY_NAME["claude"], [str(path)])
    assert sorted(kept(tmp_path / "log")) == ["msg_1", "msg_2", "msg_3", "msg_7"]


@pytest.mark.parametrize("between", [b"\0", b"\0\0\0\0\0", b"\xef\xbb\xbf", b" \r", b"\0\r \0"])
@pytest.mark.parametrize("torn", [b"", b'{"a":"te', b'{"a":nu', b'{"a":12', b'{"a":"\\', b'{"a":[1,2', b'{"a":{"b":tru'])
def test_what_a_crash_leaves_between_two_records(torn: bytes, between: bytes) -> None:
    whole = lines([WHOLE]).strip()
    records, why = jsonl.objects(whole + between + torn + between + whole + between)
    assert records == [WHOLE, WHOLE] and bool(why) == bool(torn)


@pytest.mark.parametrize("cut", range(1, len(lines([WHOLE])) - 1))
def test_half_a_line_is_known_from_a_torn_one(cut: int) -> None:
    half = lines([WHOLE])[:cut]
    assert jsonl.is_half(half)
    assert not jsonl.is_half(half + b'x"{"torn') and not jsonl.is_half(lines([WHOLE]))
