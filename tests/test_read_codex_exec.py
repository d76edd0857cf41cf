"""What `codex exec --json` prints."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Json, Run, codex_count, codex_meta, codex_model, lines, objects, put
from tokenops import events, read_clients, read_codex_exec, sync_gather

THREAD = "0196f0aa-0000-7000-8000-00000000000a"  # its first 48 bits are the time it began
BEGAN = "2025-05-21T02:26:35.136Z"
OTHER = "5f0c9a3e-1111-4222-8333-a1b2c3d4e5f6"


def started(thread: str = THREAD) -> Json:
    return {"type": "thread.started", "thread_id": thread}


def completed(sent: int = 1200, cached: int = 200, got: int = 50, thought: int = 10, wrote: int = 0, **given: Any) -> Json:
    counts = {"input_tokens": sent, "cached_input_tokens": cached, "cache_write_input_tokens": wrote}
    counts |= {"output_tokens": got, "reasoning_output_tokens": thought}
    return {"type": "turn.completed", "usage": counts} | given


def item(text: str = "the answer") -> Json:
    return {"type": "item.completed", "item": {"id": "item_0", "type": "agent_message", "text": text}}


def steps(home: pathlib.Path) -> Iterator[None]:
    """Two threads one after the other, the first resumed; an old stream of wrapped events."""
    path = home / "run.jsonl"
    put(path, started(), {"type": "turn.started"}, item())
    yield
    with path.open("ab") as file:
        file.write(lines([completed()]))
        file.flush()
        yield
        file.write(lines([started(), completed(2400, 700, 90, 15), started("0196f0ab-0000-7000-8000-00000000000b")]))
        file.write(lines([completed(7, 0, 3, 0)]))
    yield
    put(
        home / "old.jsonl",
        {
            "id": "0",
            "msg": {"type": "session_configured", "session_id": "0196f0ac-0000-7000-8000-00000000000c", "model": "gpt-5"},
        },
        {"id": "1", "msg": {"type": "agent_message", "message": "the answer"}},
        {"id": "2", "msg": {"type": "token_count", "info": {"total_token_usage": {"input_tokens": 11, "output_tokens": 2}}}},
    )
    yield


def read(tmp_path: pathlib.Path, *parts: Json | bytes, name: str = "run.jsonl") -> list[events.Event]:
    path = put(tmp_path / name, *parts)
    batch = sync_gather.gather(read_clients.BY_NAME["codex-exec"], [str(path)], 1)
    assert not batch.rejected and not batch.unread
    return list(sync_gather.in_order([batch]))


NAMES = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


def counts(event: events.Event) -> tuple[int, ...]:
    return tuple(event.get(name, 0) for name in NAMES)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([started(), item(), completed()], {(1000, 200, 0, 50, 10)}),
        # Each says all that the thread used so far.
        ([started(), completed(), completed(2400, 700, 90, 15)], {(1700, 700, 0, 90, 15)}),
        # A resumed thread goes on from its totals, another has its own.
        (
            [started(), completed(), started(), completed(2400, 700, 90, 15), started(OTHER), completed(7, 0, 3, 0)],
            {(1700, 700, 0, 90, 15), (7, 0, 0, 3, 0)},
        ),
        # Totals that began anew stand beside those before.
        ([started(), completed(), completed(300, 0, 5, 0)], {(1000, 200, 0, 50, 10), (300, 0, 0, 5, 0)}),
        # Cached and written are parts of the input, reasoning one of the output.
        ([started(), completed(1000, 600, 50, 90, 300)], {(100, 600, 300, 50, 50)}),
        ([started(), completed(1000, 2000, 50, 0, 300)], {(0, 1000, 0, 50, 0)}),
        # A turn that failed says nothing.
        ([started(), completed(), {"type": "turn.failed", "error": {"message": "the words"}}], {(1000, 200, 0, 50, 10)}),
        ([started(), completed(0, 0, 0, 0)], set()),
        # Other names and other places.
        ([started(), {"type": "turn.completed", "data": {"usage": {"prompt_tokens": 9, "completion_tokens": 4}}}], {(9, 0, 0, 4, 0)}),
        ([started(), {"type": "turn.completed", "response": {"usage": {"input": 9, "cached_tokens": 5, "output": 4}}}], {(4, 5, 0, 4, 0)}),
        # Until September 2025 each request said its own.
        (
            [{"msg": {"type": "token_count", "input_tokens": 9, "output_tokens": 4}}] * 2,
            {(18, 0, 0, 8, 0)},
        ),
        (
            [{"msg": {"type": "session_configured", "session_id": OTHER}}]
            + [{"msg": {"type": "token_count", "input_tokens": 9, "output_tokens": 4}}] * 2,
            {(18, 0, 0, 8, 0)},
        ),
        ([started(), {"msg": {"type": "token_count", "info": None, "rate_limits": {}}}], set()),
    ],
)  # fmt: skip
def test_what_a_stream_comes_to(given: list[Json], wanted: set[tuple[int, ...]], tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, *given)
    assert {counts(event) for event in found} == wanted
    assert all((event["kind"], event["covers"]) == ("usage", "session") for event in found)


def test_parts_make_the_total(tmp_path: pathlib.Path) -> None:
    for sent, cached, got, thought, wrote in ((1200, 200, 50, 10, 0), (1200, 200, 50, 10, 900), (1200, 1200, 50, 50, 9)):
        (event,) = read(tmp_path, started(), completed(sent, cached, got, thought, wrote))
        assert events.token_sum(event) == sent + got


def test_who_when_and_which(tmp_path: pathlib.Path) -> None:
    (event,) = read(tmp_path, started(), completed())
    assert event["ts"] == BEGAN
    assert (event["id"], event["session_id"]) == (f"usage:codex:{THREAD}:unknown", THREAD)
    assert (event["client"], event["model"]) == ("codex", "unknown")
    assert "provider" not in event and "turns" not in event
    path = put(tmp_path / "run.jsonl", started(OTHER), completed())
    os.utime(path, (1_790_000_000, 1_790_000_000))
    (event,) = sync_gather.in_order([sync_gather.gather(read_clients.BY_NAME["codex-exec"], [str(path)], 1)])
    assert event["ts"] == "2026-09-21T14:13:20.000Z"  # when the file was written, where nothing else tells
    (event,) = read(tmp_path, started(OTHER), completed(timestamp="2026-05-02T10:00:09Z"))
    assert event["ts"] != "2026-05-02T10:00:09.000Z"  # the thread's beginning, as far as it is known
    configured = {"type": "session_configured", "session_id": OTHER, "model": "gpt-5.4", "cwd": "/home/ada/orchard"}
    (event,) = read(tmp_path, {"msg": configured}, completed())
    assert (event["model"], event["provider"], event["project"]) == ("gpt-5.4", "openai", "orchard")


def test_streams_of_one_thread_are_one(tmp_path: pathlib.Path) -> None:
    """Whatever the order of the files: the larger totals are the later."""
    paths = [str(put(tmp_path / f"{n}.jsonl", started(), completed(1200 * n, 200 * n, 50 * n))) for n in (3, 1, 2)]
    (event,) = sync_gather.in_order([sync_gather.gather(read_clients.BY_NAME["codex-exec"], paths, 1)])
    assert counts(event) == (3000, 600, 0, 150, 10)


def test_a_rollout_of_the_thread_stands_instead(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    home = pathlib.Path(environment["HOME"])
    rollout = [codex_meta(THREAD), codex_model("gpt-5.4"), codex_count((1200, 200, 50, 10), (1200, 200, 50, 10))]
    put(home / f".codex/sessions/2026/05/02/rollout-2026-05-02T10-00-00-{THREAD}.jsonl", *rollout)
    put(tmp_path / "run.jsonl", started(), completed(), started(OTHER), completed(7, 0, 3, 0))
    run("tok-sync codex; tok-sync codex-exec --root run.jsonl")
    rows = objects(run("tok-cat | tok-rollup --by session").stdout)
    assert {row["session_id"]: (row.get("model"), row["input_tokens"]) for row in rows} == {
        THREAD: ("gpt-5.4", 1000),
        OTHER: ("unknown", 7),
    }


def test_bad_counts_and_words(run: Run, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "run.jsonl", started(), item("secret words"), completed(-1), b"ERROR secret words\n", completed())
    done = run("tok-read --root run.jsonl", status=1)
    assert [counts(event) for event in objects(done.stdout)] == [(1000, 200, 0, 50, 10)]
    assert done.stderr.decode().splitlines() == [
        "tok-read: run.jsonl:3: input_tokens is a negative number; expected a count; skipped",
        "tok-read: run.jsonl:4: not JSON; it and later lines like it are skipped",
    ]


def test_what_is_a_line_of_a_stream() -> None:
    for line in (started(), completed(), item(), {"id": "1", "msg": {"type": "task_started"}}):
        assert read_codex_exec.takes(line)
    for other in (codex_meta("t"), {"type": "result"}, {"msg": "words"}, {}):
        assert not read_codex_exec.takes(other)
