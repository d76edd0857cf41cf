"""zstd files: what is in them, bounded, and never half; and Codex's rollouts that became such files."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from conftest import Run, codex_count, codex_meta, codex_model, objects, put
from tokenops import events, read_packed

pytestmark = pytest.mark.skipif(not shutil.which("zstd"), reason="the program zstd is not here")


def pack(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """A zstd file of some content."""
    packed = subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True).stdout
    return put(path, packed)


def test_all_frames_of_a_file_are_its_content(tmp_path: pathlib.Path) -> None:
    content = b"".join(b"%d\n" % n for n in range(400_000))
    path = pack(tmp_path / "a.zst", content)
    assert b"".join(read_packed.pieces(str(path))) == content
    path.write_bytes(path.read_bytes() * 2)
    assert list(read_packed.lines(str(path)))[-1] == b"399999\n"
    with read_packed.Unpacked(str(path)) as file:
        assert file.read(4) == b"0\n1\n"  # and the rest is not unpacked


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"no archive", lambda data: data[:9] + b"x" * 40])
def test_a_damaged_file_is_said_to_be_damaged(damage: object, tmp_path: pathlib.Path) -> None:
    path = pack(tmp_path / "a.zst", b"".join(b"%d\n" % n for n in range(9000)))
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(events.BadRecord, match="damaged"):
        list(read_packed.pieces(str(path)))


@pytest.mark.parametrize(("limit", "content"), [("MOST", b"\n" * 9_000_000), ("MOST_LINE", b"a" * 9_000_000)])
def test_what_unpacks_to_too_much_is_rejected(
    limit: str, content: bytes, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "a.zst", content)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(read_packed, limit, 4_000_000)
    with pytest.raises(events.BadRecord, match="unpacks to more"):
        list(read_packed.pieces(str(path)))


A = (9000, 6000, 400, 150)
LINES = [codex_meta("t1"), codex_model("gpt-5.5"), codex_count(A, A)]


@pytest.fixture
def rollout(environment: dict[str, str]) -> pathlib.Path:
    return put(pathlib.Path(environment["HOME"]) / ".codex/sessions/2026/05/02/rollout-a.jsonl", *LINES)


def compress(path: pathlib.Path) -> None:
    """Do what Codex does with a rollout that is a week old."""
    subprocess.run(["zstd", "-q", "--rm", path], check=True)


def test_a_rollout_that_was_read_before_it_was_compressed_adds_nothing(
    rollout: pathlib.Path, run: Run, environment: dict[str, str]
) -> None:
    run("tok-sync")
    (day,) = pathlib.Path(environment["TOKENOPS_HOME"], "events").iterdir()
    before = day.read_bytes()
    compress(rollout)
    (outcome,) = objects(run("tok-sync --json").stdout)
    assert (outcome["files_read"], outcome["events"], day.read_bytes()) == (1, 0, before)
    (outcome,) = objects(run("tok-sync --json").stdout)
    assert outcome["files_read"] == 0


def test_a_compressed_parent_serves_its_forks_and_the_plain_file_counts_if_both_are_there(
    rollout: pathlib.Path, run: Run
) -> None:
    def turns() -> list[tuple[str, str]]:
        return [(e["session_id"], e["id"]) for e in objects(run("tok-read codex").stdout) if e["kind"] == "turn"]

    plain = rollout.read_bytes()
    compress(rollout)
    run("tok-sync")
    own = codex_count((18_000, 12_000, 800, 300), A, "2026-05-02T11:00:30.000Z")
    copy = {**codex_count(A, A), "timestamp": "2026-05-02T11:00:00.000Z"}
    head = [codex_meta("t2", forked_from_id="t1", at="2026-05-02T11:00:00.000Z"), codex_model("gpt-5.5")]
    put(rollout.with_name("rollout-b.jsonl"), *head, copy, own)
    expected = [("t1", "codex:t1:0:9000-6000-400-150"), ("t2", "codex:t2:0:18000-12000-800-300")]
    assert turns() == expected
    run("tok-sync")
    assert sum(event["kind"] == "turn" for event in objects(run("tok-cat").stdout)) == 2
    rollout.write_bytes(plain)
    assert turns() == expected
    assert b"codex:t1:0:9000-6000-400-150" in run(f"tok-read --root {rollout}.zst").stdout


def test_a_damaged_rollout_is_reported_and_stops_no_other(rollout: pathlib.Path, run: Run) -> None:
    compress(rollout)
    packed = rollout.with_name("rollout-a.jsonl.zst")
    packed.write_bytes(packed.read_bytes()[:-2])
    put(rollout.with_name("rollout-b.jsonl"), codex_meta("t2"), codex_model("gpt-5.5"), codex_count(A, A))
    done = run("tok-read codex", status=1)
    assert [e["session_id"] for e in objects(done.stdout) if e["kind"] == "turn"] == ["t2"]
    assert done.stderr.decode() == f"tok-read: {packed}: cannot be unpacked (damaged, or not a zstd file); skipped\n"
