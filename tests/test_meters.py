"""The readings that are kept beside the log: whatever happens to either, they say what the log says."""

from __future__ import annotations

import contextlib
import gzip
import os
import pathlib
import random

import orjson
import pytest

from tokenops import datadir, events, jsonl, limit_log, limit_windows, store, store_days, store_upkeep, when

NOW = when.moment("2026-11-21T09:30:00.000Z")
SPAN = (NOW - 9 * when.DAY, NOW)


def line(draw: random.Random) -> bytes:
    """A meter, or a turn, of the last days."""
    ts = when.stamp(NOW - draw.randrange(5 * when.DAY))
    if draw.random() < 0.5:
        return jsonl.line_of({"v": 1, "ts": ts, "id": f"msg_{draw.random()}", "kind": "turn", "output_tokens": 7})
    about = {"window": "five_hour", "window_minutes": 300, "resets_at": when.stamp(NOW + draw.randrange(5) * 60_000)}
    made = events.meter(draw.choice(["proxy", "codex-jsonl"]), "openai", ts, used=draw.randrange(100) / 100, **about)
    return jsonl.line_of(made)


def said(folder: str) -> set[limit_windows.Reading]:
    """Every reading that stands in the log, found by reading all of it."""
    found = []
    for path in pathlib.Path(folder, "events").glob("*"):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for line in content[: content.rfind(b"\n") + 1].splitlines():
            with contextlib.suppress(ValueError):  # torn
                found.append(orjson.loads(line))
    return set(limit_windows.readings_of(found))


def kept(folder: str) -> list[pathlib.Path]:
    return sorted(pathlib.Path(folder, "summaries").glob("meters.*/*.json"))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_they_say_what_the_log_says(
    seed: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, folder = random.Random(seed), str(tmp_path)
    monkeypatch.setattr(store_days, "SLACK", draw.choice([0, 500, 1 << 17]))
    for _ in range(30):
        done = draw.random()
        if done < 0.5:
            store.append(folder, [line(draw) for _ in range(draw.randrange(1, 9))], durable=False)
        elif done < 0.6:
            list(store_upkeep.compact(folder, when.stamp(NOW)[:10], pack=draw.random() < 0.5))
        elif done < 0.7 and (found := kept(folder)):
            path = draw.choice(found)
            path.write_bytes(draw.choice([b"", b"{", b"[]", b'{"x":[1,2]}\n[]', path.read_bytes()[:-9]]))
        elif done < 0.75 and (found := kept(folder)):
            draw.choice(found).unlink()
        elif done < 0.8:
            for path in pathlib.Path(folder, "events").glob("*.jsonl"):
                with path.open("ab") as file:  # a line that is still being written
                    file.write(line(draw)[: draw.randrange(1, 60)])
        assert set(limit_log.readings(folder, *SPAN)) == said(folder)


def test_what_is_kept_is_not_read_again(tmp_path: pathlib.Path) -> None:
    folder, draw = str(tmp_path), random.Random(1)
    store.append(folder, [line(draw) for _ in range(99)], durable=False)
    first = limit_log.readings(folder, *SPAN)
    stamps = [path.stat().st_mtime_ns for path in kept(folder)]
    assert stamps and limit_log.readings(folder, *SPAN) == first
    assert [path.stat().st_mtime_ns for path in kept(folder)] == stamps
    for path in kept(folder):
        path.chmod(0o400)
        key, packed = path.read_bytes().splitlines(keepends=True)
        keys, rows = datadir.unseal(packed)
        path.write_bytes(key + datadir.seal(orjson.dumps([keys, [[0, 0, 0.123, None], *rows]])))
    assert 0.123 not in {one.used for one in limit_log.readings(folder, *SPAN)}  # outside of the span
    assert 0.123 in {one.used for one in limit_log.readings(folder, 0, NOW)}  # it is what was kept that is read


def test_a_file_that_was_replaced_is_read_anew(tmp_path: pathlib.Path) -> None:
    folder, draw = str(tmp_path), random.Random(2)
    store.append(folder, [line(draw) for _ in range(50)], durable=False)
    limit_log.readings(folder, *SPAN)
    for path in list(pathlib.Path(folder, "events").iterdir()):
        content = path.read_bytes()
        (beside := path.with_suffix(".new")).write_bytes(content.replace(b'"used":0.', b'"used":1.') + content)
        os.replace(beside, path)
    assert set(limit_log.readings(folder, *SPAN)) == said(folder)


def test_what_is_kept_is_private_and_small(tmp_path: pathlib.Path) -> None:
    folder, draw = str(tmp_path), random.Random(3)
    store.append(folder, [line(draw) for _ in range(200)] * 3, durable=False)
    limit_log.readings(folder, *SPAN)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept(folder))
    assert sum(path.stat().st_size for path in kept(folder)) < 15_000


def test_a_server_reads_a_day_again_only_when_it_changed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, draw, memory = str(tmp_path), random.Random(4), limit_log.memory()
    store.append(folder, [line(draw) for _ in range(99)], durable=False)
    first = limit_log.readings(folder, *SPAN, memory)
    opened: list[str] = []
    real = store_days.lines_after
    monkeypatch.setattr(store_days, "lines_after", lambda path, position: (opened.append(path), real(path, position))[1])
    assert limit_log.readings(folder, *SPAN, memory) == first and not opened
    store.append(folder, [line(draw)] * 2, durable=False)
    assert set(limit_log.readings(folder, *SPAN, memory)) == said(folder)
    assert len(opened) == 1
