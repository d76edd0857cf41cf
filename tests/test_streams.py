"""JSON objects however they are laid out, and what comes down a pipe: `tok-read -`."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import signal
import subprocess
from typing import Any

import pytest
import test_read_claude_stream as stream
import test_read_codex_exec as thread
import test_read_otel as export
from hypothesis import given
from hypothesis import strategies as st

from conftest import MOST, ROOT, Json, Run, claude, eventually, examples, lines, objects, put, totals, unread
from tokenops import read_clients, read_lines, sync_gather
from tokenops.read_contract import Intake


def values(data: bytes, needle: bytes = b"") -> tuple[list[tuple[str, Json]], list[tuple[str, str]]]:
    """Objects with their places, and what was rejected."""
    rejected: list[tuple[str, str]] = []
    found = read_lines.Values("f", read_lines.containing(needle), lambda place, why: rejected.append((place, why)))
    made = [one for line in data.splitlines(keepends=True) for one in found.take(line)]
    found.close()
    return made, rejected


NEVER, NO = "a value that was never closed; skipped", "not JSON; it and later lines like it are skipped"


@pytest.mark.parametrize(
    ("data", "found", "rejected"),
    [
        (b'{"a":1}\n{"a":2}\n', [("f:1", 1), ("f:2", 2)], []),
        (b'{\n  "a": 1\n}\n{\n\t"a": [\n{}\n]\n}\n', [("f:1", 1), ("f:6", None)], [("f:4", NEVER), ("f:7", NO)]),
        (b'{\n  "a": {\n    "b": 1\n  }\n}\n', [("f:1", {"b": 1})], []),
        (b'[{"a":1},{"a":2},3]\n', [("f:1[0]", 1), ("f:1[1]", 2)], []),
        (b'[\n  {"a": 1},\n  {\n    "a": 2\n  }\n]\n{"a":3}\n', [("f:1[0]", 1), ("f:1[1]", 2), ("f:7", 3)], []),
        (b'{"a":1}{"a":2}\n', [("f:1", 1), ("f:1", 2)], []),
        (b'\xef\xbb\xbf{"a":1}\r\n  {"a":2}\t\n\n\x00\x00{"a":3}', [("f:1", 1), ("f:2", 2), ("f:4", 3)], []),
        (b'\xef\xbb\xbf{\r\n  "a": 1\r\n}\r\n', [("f:1", 1)], []),
        # A program's other output is told once, however long it is.
        (b'Warning: x\nand y\n\nz\n{"a":1}\nagain\n', [("f:5", 1)], [("f:1", NO), ("f:6", NO)]),
        (b'{\n  "torn"\n{"a":1}\n', [("f:3", 1)], [("f:1", NEVER)]),
        (b'{\n  "open": 1\n', [], [("f:1", NEVER)]),
        (b"\x00{\n", [], [("f:1", NO)]),
        (b"  {\n", [], [("f:1", NO)]),
        (b'{\n  "a": 1\n]\n', [], [("f:1", "not JSON (Expecting ',' delimiter, at byte 0 of 11); skipped")]),
        (b'{"a":1]}\n', [], [("f:1", "not JSON (Expecting ',' delimiter, at byte 0 of 8); skipped")]),
        (b"[}]\n", [], [("f:1", "not JSON (Expecting value, at byte 0 of 8); skipped")]),
        (b'[1],"":5,"x":[2]\n', [], []),
        (b"3\n", [], [("f:1", NO)]),
    ],
)
def test_values(data: bytes, found: list[tuple[str, Any]], rejected: list[tuple[str, str]]) -> None:
    made, told = values(data)
    assert [(place, value.get("a")) for place, value in made] == found
    assert told == rejected


def test_what_is_not_wanted_is_not_parsed() -> None:
    assert values(b'{"a":}\n[{"a":}]\n{\n"a":\n}\n{"b":1}\n', b'"b"') == ([("f:6", {"b": 1})], [])


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@examples(100)
@given(
    st.lists(
        st.tuples(st.dictionaries(st.text(max_size=5), VALUE, max_size=3), st.sampled_from([None, 1, "\t"]), st.booleans())
    )
)
def test_any_layout_gives_the_same(given_values: list[tuple[Json, Any, bool]]) -> None:
    text = "".join(json.dumps([value] if listed else value, indent=indent) + "\n" for value, indent, listed in given_values)
    made, rejected = values(text.encode(errors="replace"))
    wanted = [json.loads(json.dumps(value).encode(errors="replace")) for value, _, _ in given_values]
    assert ([value for _, value in made], rejected) == (wanted, [])


@examples(60)
@given(cut=st.integers(0, 2000), data=st.data())
def test_a_file_read_in_any_two_parts_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, cut: int, data: st.DataObject
) -> None:
    whole = b'{"a":0}\n{\n  "a": 1\n}\nnoise\n[\n {"a": 2},\n {"a": 3}\n]\n{"a":4}\n{"a":\n}\n'
    path = tmp_path_factory.mktemp("f") / "f.json"
    cursor, found = read_lines.Cursor(), {}
    for end in (min(cut, len(whole)), data.draw(st.integers(0, len(whole))), len(whole)):
        path.write_bytes(whole[: max(end, cursor.offset)])
        for place, value in read_lines.values(str(path), cursor, read_lines.containing(b"a"), lambda place, why: None):
            found[place] = value["a"]
    assert list(found.values()) == [0, 1, 2, 3, 4]


MIXED = [
    stream.init(),
    thread.started(),
    *stream.streamed("msg_a", 4),
    thread.completed(),
    export.logs(export.completed("t9"), service="codex_cli_rs"),
    stream.result(),
    thread.completed(2400, 700, 90, 15),
]


def test_formats_may_be_mixed(run: Run, tmp_path: pathlib.Path) -> None:
    made = lines(MIXED) + json.dumps(export.logs(export.request("req_1", "s9")), indent=2).encode() + b"\n"
    found = objects(run("tok-read -", made).stdout)
    assert [(event["source"], event["session_id"], event["kind"]) for event in found] == [
        ("codex-exec", thread.THREAD, "usage"),
        ("otel", "s9", "usage"),
        ("claude-stream", "s1", "turn"),
        ("otel", "t9", "turn"),
    ]
    assert found[0]["output_tokens"] == 90
    # The same as from a file, but for the times of what says none.
    for name in ("claude-stream", "codex-exec", "otel"):
        put(tmp_path / "mixed.jsonl", made)
        from_file = objects(run(f"tok-read {name} --root mixed.jsonl").stdout)
        from_pipe = objects(run(f"tok-read {name} -", made).stdout)
        assert from_file == from_pipe == [event for event in found if event["source"] == name]
    assert objects(run("cat mixed.jsonl | tok-read - all").stdout) == found


def test_down_to_the_money(run: Run) -> None:
    rows = objects(run("tok-read - | tok-cost --by none", lines([stream.init(), stream.said("m"), stream.result()])).stdout)
    assert [row["cost_usd"] for row in rows] == ["0.0429702"]  # what Claude Code worked out itself, to the last digit


def test_times_are_those_of_reading_where_none_is_said(run: Run) -> None:
    given_lines = lines([stream.init(), stream.said("m", at=None)])
    (event,) = objects(run("tok-read -", given_lines, env={"TOKENOPS_NOW": "2026-11-21T09:30:00Z"}).stdout)
    assert event["ts"] == "2026-11-21T09:30:00.000Z"
    assert not run("tok-read - --until 2026-11-20", given_lines, env={"TOKENOPS_NOW": "2026-11-21T09:30:00Z"}).stdout


@pytest.mark.parametrize("given_bytes", [b"", b"\n", b'{"type":"other"}\n', lines([claude("m1")]), b'{"usage":1}\n'])
def test_nothing_that_is_known(given_bytes: bytes, run: Run) -> None:
    done = run("tok-read -", given_bytes, status=1)
    assert done.stdout == b""
    assert done.stderr.decode() == (
        "tok-read: standard input holds no known format; pipe in the output of claude -p or codex exec, or an OTLP export\n"
    )


def test_what_is_told(run: Run) -> None:
    done = run("tok-read -", b"Execution error\n" + lines([stream.init(), stream.said("m", u_sent=-1)]), status=1)
    assert done.stderr.decode().splitlines() == [
        "tok-read: stdin:1: not JSON; it and later lines like it are skipped",
        "tok-read: stdin:3: usage.input_tokens is a negative number; expected a count; skipped",
    ]
    done = run("tok-read -", b"no logs\n", status=1)
    assert done.stderr.decode().count("\n") == 2


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            "tok-read codex -",
            "codex -: standard input is read as claude-stream, codex-exec, otel; to read files, leave - out",
        ),
        ("tok-read - --root x", "- is standard input; leave out --root and --follow"),
        ("tok-read - --follow", "- is standard input; leave out --root and --follow"),
        ("tok-read - <&-", "stdin is closed; name a file"),
    ],
)
def test_what_standard_input_is_not(line: str, why: str, run: Run) -> None:
    done = run(line, status=2)
    assert (done.stdout, done.stderr.decode()) == (b"", f"tok-read: {why}\n")


def test_a_reader_that_leaves(run: Run) -> None:
    made = [stream.init(), *(stream.said(f"m{n}") for n in range(3000))]
    done = run("tok-read - | head -1", lines(made), status=141)
    assert (len(objects(done.stdout)), done.stderr) == (1, b"")


def started(environment: dict[str, str], **given_streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([ROOT / "bin/tok-read", "-"], env=environment, stdout=subprocess.PIPE, **given_streams)


def test_ctrl_c_is_silent(environment: dict[str, str]) -> None:
    end, given = os.pipe()
    process = started(environment, stdin=end, stderr=subprocess.PIPE)
    os.write(given, lines([stream.init(), stream.said("m")]))
    eventually(lambda: not unread(end))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=MOST)
    os.close(end)
    os.close(given)
    assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")


def test_a_terminal_is_read_until_its_end(environment: dict[str, str]) -> None:
    leader, follower = pty.openpty()
    process = started(environment, stdin=follower, stderr=subprocess.DEVNULL)
    os.close(follower)
    os.write(leader, lines([stream.said("m")]) + b"\x04")
    out, _ = process.communicate(timeout=MOST)
    os.close(leader)
    assert (process.returncode, [event["id"] for event in objects(out)]) == (0, ["m"])


def test_memory_is_that_of_the_events() -> None:
    """A long stream of deltas, and of others' lines, leaves nothing behind."""
    delta = {"type": "stream_event", "event": {"type": "content_block_delta"}, "session_id": "s1", "text": "x" * 2000}
    held = []

    def given_lines() -> Any:
        yield from (json.dumps(one).encode() + b"\n" for one in (stream.init(), stream.said("m")))
        for n in range(20_000):
            yield json.dumps(delta).encode() + b"\n"
            if n % 5000 == 0:
                held.append(resident())

    def resident() -> int:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1])

    if not pathlib.Path("/proc/self/statm").exists():
        pytest.skip("this system does not say how much memory is used")
    batch, known = sync_gather.read_stream(given_lines(), read_clients.STREAMS, b"", lambda: stream.AT)
    assert known and totals(sync_gather.in_order([batch]))["turns"] == 1
    assert (held[-1] - held[1]) * os.sysconf("SC_PAGE_SIZE") < 4 << 20


def test_every_stream_format_has_one_shape() -> None:
    for client in read_clients.STREAMS:
        form = client.reader().stream
        assert form is not None
        opened = form.open(Intake(), lambda: stream.AT)
        assert [list(opened.take({"type": "x"}, "f:1")), list(opened.rest())] == [[], []]
        assert form.takes({}) is False
