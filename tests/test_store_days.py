"""What is derived from days: kept for as long as it is true, within bounds, and never believed when it is damaged."""

from __future__ import annotations

import gzip
import os
import pathlib
from typing import Any

import pytest

from tokenops import jsonl, store, store_days
from tokenops.store_days import Derived, Position, Recent

DAY = "2026-11-20"


def turn(number: int, ts: str = f"{DAY}T12:00:00.000Z") -> bytes:
    return jsonl.line_of({"v": 1, "ts": ts, "kind": "turn", "id": f"msg_{number}", "source": "test", "turns": 1})


def accept(key: Any) -> bool:
    return bool(key == [1])


def test_data_of_a_day_is_found_under_its_key_only(tmp_path: pathlib.Path) -> None:
    derived = Derived(str(tmp_path), "sums", "1", "prices")
    assert derived.load(DAY, accept) is None
    derived.save(DAY, [1], {"a": 1}, {"b": 2})
    assert derived.load(DAY, accept) == ([1], {"a": 1})
    assert derived.load(DAY, accept, 1) == ([1], {"b": 2})
    assert derived.load(DAY, accept, 2) is None
    assert derived.load(DAY, lambda key: key == [2]) is None
    assert derived.load("2026-11-21", accept) is None
    assert Derived(str(tmp_path), "sums", "1", "other").load(DAY, accept) is None
    (path,) = store_days.paths_of(str(tmp_path), DAY)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert list(derived.saved_at()) == [DAY]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[1]\n", b"[1]\n{", b"\xff\n\xff", b"\0" * 40, b"null\nnull"])
def test_damaged_data_counts_as_absent(content: bytes, tmp_path: pathlib.Path) -> None:
    derived = Derived(str(tmp_path), "sums", "1")
    derived.save(DAY, [1], {"a": 1})
    path = pathlib.Path(derived.folder, f"{DAY}.json")
    path.write_bytes(content)
    assert derived.load(DAY, accept) is None
    path.unlink()
    path.mkdir()
    assert derived.load(DAY, accept) is None
    derived.save(DAY, [1], {"a": 1})  # cannot be written, and nothing is raised


def test_only_data_of_the_same_kind_gives_way(tmp_path: pathlib.Path) -> None:
    """A new format replaces the old one at once, new prices when asked; other kinds stay as they are."""
    folder = str(tmp_path)
    for name in ("sums.1.prices", "sums.2.prices", "meters.1", "3.1.of-an-older-version"):
        (tmp_path / "summaries" / name).mkdir(parents=True)
    derived = Derived(folder, "sums", "2", "dearer")
    derived.save(DAY, [1], 0)
    assert sorted(os.listdir(tmp_path / "summaries")) == ["meters.1", "sums.2.dearer", "sums.2.prices"]
    derived.remove_others()
    assert sorted(os.listdir(tmp_path / "summaries")) == ["meters.1", "sums.2.dearer"]


def test_a_value_is_made_again_only_under_another_key() -> None:
    recent, made = Recent(10), 0

    def make() -> int:
        nonlocal made
        made += 1
        return made

    assert [recent.get("a", key, make) for key in (1, 1, 2, 2, 1)] == [1, 1, 2, 2, 3]


def test_memory_is_bounded_and_a_pass_that_does_not_fit_keeps_its_first_values() -> None:
    recent = Recent(10, len)
    made: list[int] = []

    def ask(name: int, size: int = 3) -> None:
        recent.get(name, "", lambda: made.append(name) or [0] * size)  # type: ignore[func-returns-value]
        assert sum(len(value) for _, value, _ in recent.values.values()) == recent.size <= 10

    for _ in range(3):
        recent.begin()
        for name in range(6):  # 18 in all
            ask(name)
    assert made == [0, 1, 2, 3, 4, 5, *(3, 4, 5) * 2]
    recent.begin()
    ask(9, 4)  # those of the last pass make room, the oldest first
    assert made[-1] == 9 and list(recent.values) == [1, 2, 9]
    ask(10, 99)  # never fits
    assert 10 not in recent.values


def test_only_what_a_file_grew_by_is_read(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "day.jsonl")
    pathlib.Path(path).write_bytes(turn(1) + turn(2)[:20])
    position, data = store_days.lines_after(path, Position()) or (Position(), b"")
    assert data == turn(1)  # the second is still being written
    pathlib.Path(path).write_bytes(turn(1) + turn(2) + turn(3))
    position, data = store_days.lines_after(path, position) or (Position(), b"")
    assert data == turn(2) + turn(3)
    assert store_days.lines_after(path, position) == (position, b"")
    os.truncate(path, len(turn(1)))  # a write that failed is taken back
    assert store_days.lines_after(path, position) is None
    pathlib.Path(path).write_bytes(turn(1) + turn(4) + turn(5) + turn(6))  # and others came
    assert store_days.lines_after(path, position) is None
    packed = f"{path}.gz"
    pathlib.Path(packed).write_bytes(gzip.compress(turn(7)))
    position, data = store_days.lines_after(packed, Position()) or (Position(), b"")
    assert data == turn(7) and store_days.lines_after(packed, position) == (position, b"")
    os.truncate(packed, 9)
    assert store_days.lines_after(packed, Position()) == (Position(os.stat(packed).st_ino, 9, position.tail[:18]), b"")


def test_a_days_key_changes_with_its_files_and_its_neighbours(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path)
    store.append(folder, [turn(1)])
    before = store_days.key_of(DAY, store_days.files_of(folder))
    stamp = store_days.stamps_of(folder)[DAY]
    store.append(folder, [turn(2, "2026-11-23T00:00:00.000Z")])
    assert store_days.key_of(DAY, store_days.files_of(folder)) == before
    store.append(folder, [turn(1, "2026-11-21T00:00:00.000Z")])
    between = store_days.key_of(DAY, store_days.files_of(folder))
    assert between != before and store_days.stamps_of(folder)[DAY] == stamp
    store.append(folder, [turn(3)])
    assert store_days.key_of(DAY, store_days.files_of(folder)) != between
    assert store_days.stamps_of(folder)[DAY] != stamp


def test_a_header_is_read_without_parsing() -> None:
    assert store.header(turn(1)) == (f"{DAY}T12:00:00.000Z", "turn", "test")
    plain = jsonl.line_of({"v": 1, "ts": f"{DAY}T12:00:00.000Z", "kind": "ping", "id": '"source":"x"', "tool": "t"})
    assert store.header(plain) == (f"{DAY}T12:00:00.000Z", "ping", "")
    assert store.kind_of(plain) == b"ping"
    assert store.has_field(plain, "tool") and not store.has_field(plain, "status")
