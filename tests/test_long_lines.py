"""Lines of any length on standard input: bounded in memory, named, and the lines beside them count."""

from __future__ import annotations

import io

import pytest

from conftest import Json, Run, lines, objects, some_of
from tokenops import jsonl

# 200 MB without a line end, in 700 MB of address space at most.
LONG = "{ printf '{\"a\":\"'; head -c 200000000 /dev/zero | tr '\\0' x; echo '\"}'; cat; }"
BOUND = "ulimit -v 700000;"
TURN: Json = {"v": 1, "kind": "turn", "id": "t1", "ts": "2026-11-20T10:00:00.000Z", "turns": 1, "source": "test"} | {
    "provider": "anthropic",
    "model": "claude-opus-4-6",
    "output_tokens": 7,
}


@pytest.mark.parametrize(
    "command",
    some_of(["tok-log append", "tok-rollup", "tok-cost --json", "tok-read -", "tok-burn --json", "tok-backtest --json"], 3),
)
def test_a_line_of_200_mb(run: Run, command: str) -> None:
    given = lines([TURN])
    done = run(f"{LONG} | ({BOUND} {command})", given, status=1, env={"TOKENOPS_NOW": "2026-11-20T10:30:00Z"})
    assert done.stderr.decode().splitlines()[0].endswith("stdin:1: a line of more than 64 MiB; skipped")
    if command == "tok-log append":
        assert done.stdout == b"t1\n"
    elif command not in ("tok-backtest --json", "tok-read -"):
        assert sum(row.get("turns", 0) for row in objects(done.stdout) if row.get("kind") in ("turn", "row")) >= 1 or (
            command == "tok-burn --json" and b'"output_tokens":7' in done.stdout
        )


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_any_pieces_give_the_same_lines(monkeypatch: pytest.MonkeyPatch, size: int, end: bytes) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_INPUT", 9)
    text = b"{}\n\n123456789\n1234567890\n\nab\n" + b"x" * 30 + b"\n{}" + end
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    got = [pair for batch in jsonl.batches(pieces, "f") for pair in batch]
    skipped = jsonl.too_long(9)
    wanted = [b"{}", b"", b"123456789", skipped, b"", b"ab", skipped, b"{}"]
    assert got == [(f"f:{number}", line) for number, line in enumerate(wanted, 1)]


def test_lines_of_a_stream_have_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_INPUT", 9)
    stream = io.BytesIO(b"{}\n12345678\n1234567890\nab\n" + b"x" * 18 + b"\nlast")
    skipped = jsonl.too_long(9)
    assert list(jsonl.bounded_lines(stream)) == [b"{}\n", b"12345678\n", skipped, b"ab\n", skipped, b"last"]
    assert list(jsonl.bounded_lines(io.BytesIO(b"x" * 30))) == [skipped]
