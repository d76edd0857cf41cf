"""Clocks that are set back or forward while programs run, locks that are held, disks that fill up: what the soak found."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pathlib
import select
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from dashboards import AT, site
from dashboards import ask as asked_of
from dashboards import turn as turn_at
from proxies import USAGE, Start, ask, post
from soak_clock import HOUR, Clock
from upstream import Asked, Upstream, Writer, plain

from conftest import MOST, Run, claude, lines, objects, put
from tokenops import access, cli_dash, events, jsonl, proxy_writer, read_clients, store, store_days, sync, when, workers

FOLDER = ".claude/projects/-home-ada-app"
LATER = 7200


@pytest.fixture
def clock(environment: dict[str, str], tmp_path: pathlib.Path) -> Iterator[Clock]:
    """A clock that every command of this test sees."""
    made = Clock(tmp_path / "clock", when.moment("2026-11-21T09:30:00Z"), 1)
    environment |= made.environment()
    yield made
    made.held.close()


@pytest.mark.parametrize("hours", [1, -2])
def test_what_an_answer_took_is_true_whatever_the_clock_does(
    start: Start, vendor: Upstream, clock: Clock, hours: int
) -> None:
    async def script(asked: Asked, writer: Writer) -> None:
        await asyncio.sleep(0.05)
        clock.jump(hours * HOUR)
        await plain(USAGE)(asked, writer)
        await writer.drain()

    vendor.script = script
    proxy = start({"openai": f"http://127.0.0.1:{vendor.port}"})
    for _ in range(2):
        ask(proxy.port, post("/openai/v1/chat/completions", b"{}", "Connection: close"))
    found = proxy.events(2)
    assert all(40 < one["ttft_ms"] <= one["latency_ms"] < HOUR / 2 for one in found), found
    health = json.loads(ask(proxy.port, b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").partition(b"\r\n\r\n")[2])
    assert 0 <= health["uptime_s"] < 1800
    times = [when.moment(one["ts"]) for one in found]
    assert abs(times[1] - times[0] - hours * HOUR) < HOUR / 2  # the second began after the clock was set


def test_after_the_clock_was_set_back_reporters_still_take_in_what_is_new(
    run: Run, environment: dict[str, str], clock: Clock
) -> None:
    path = put(pathlib.Path(environment["HOME"]) / FOLDER / "s1.jsonl", claude("msg_1"))
    run("tok-sync")
    with path.open("ab") as file:
        file.write(lines([claude("msg_2")]))
    clock.jump(-2 * HOUR)
    # While this stands still, an import may take as long as it needs.
    found = run("tok-cost --log --since 2026-01-01", env={"TOKENOPS_NOW": "2026-11-21T07:30:00Z"}).stdout
    assert objects(found)[0]["turns"] == 2
    synced = (pathlib.Path(environment["TOKENOPS_HOME"]) / "synced").stat().st_mtime * 1000
    assert synced <= clock.now() < synced + HOUR


def test_after_the_clock_was_set_back_the_status_line_is_worked_out_anew(run: Run, environment: dict[str, str]) -> None:
    def said(now: str) -> str:
        given = b'{"session_id": "s1", "model": {"id": "claude-opus-4-6"}}'
        return run("tok-statusline --format '{today}'", given, env={"TOKENOPS_NOW": now}).stdout.decode().strip()

    assert said("2026-03-02T11:00:00Z") == "0.00"
    turn = claude("msg_1", 1_000_000, "2026-03-02T08:30:00.000Z")
    put(pathlib.Path(environment["HOME"]) / FOLDER / "s1.jsonl", turn)
    run("tok-sync")
    assert float(said("2026-03-02T09:00:00Z")) > 1


def test_after_the_clock_was_set_back_a_page_that_is_opened_shows_what_is_new(
    run: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    folder = environment["TOKENOPS_HOME"]
    run("tok-sync", status=1)
    os.utime(pathlib.Path(folder) / "synced", (time.time() + LATER,) * 2)
    put(pathlib.Path(environment["HOME"]) / FOLDER / "s1.jsonl", claude("msg_1"))
    cli_dash.Intake(folder, "").before_answer(True)
    assert [json.loads(line)["id"] for line in store.scan(folder)] == ["msg_1"]


def test_after_the_clock_was_set_back_guesses_are_answered_as_before(folder: str, environment: dict[str, str]) -> None:
    throttle = access.Throttle()
    waits = [throttle.wait_ms(AT) for _ in range(60)]
    assert waits[-1] is None
    wait = throttle.wait_ms(AT - 2 * HOUR)
    assert wait is not None and 0 < wait <= throttle.MOST_MS
    assert asked_of(site(folder, environment), "/api/budget", authorization="Bearer wrong").status == 401


@pytest.fixture
def folder(environment: dict[str, str]) -> str:
    store.append(environment["TOKENOPS_HOME"], [])
    return environment["TOKENOPS_HOME"]


def test_whoever_holds_the_log_does_not_hold_up_the_protocol(folder: str, environment: dict[str, str]) -> None:
    """A process that was suspended in the middle of a write holds the lock; the host's ping is answered meanwhile."""
    about: dict[str, Any] = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    with subprocess.Popen(["tok-mcp"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout

        def send(**message: Any) -> None:
            assert process.stdin
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            process.stdin.flush()

        def heard() -> Any:
            assert process.stdout and select.select([process.stdout], [], [], MOST)[0]
            return json.loads(process.stdout.readline()).get("id")

        send(id=1, method="initialize", params=about)
        assert heard() == 1
        send(method="notifications/initialized")
        call = {"name": "tokenops_plan_headroom", "arguments": {}}
        send(id=2, method="tools/call", params=call)
        assert heard() == 2
        with (pathlib.Path(folder) / "lock").open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            send(id=3, method="tools/call", params=call)
            send(id=4, method="ping")
            assert heard() == 4
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert heard() == 3
        process.stdin.close()
        assert process.wait(MOST) == 0


def test_lines_of_a_write_that_failed_are_not_taken_for_those_that_came_after(tmp_path: pathlib.Path) -> None:
    """A full disk: a batch is half written, read, taken back; then another one is longer."""
    folder, first = str(tmp_path), when.stamp(AT - when.DAY)[:10]
    made = [jsonl.line_of(events.arrange(turn_at(number, 5))) for number in range(30)]
    store.append(folder, made[:3])
    open_days = store_days.OpenDays(folder)
    assert len(open_days.events(first)) == 3
    path = os.path.join(folder, "events", f"{store.days(folder)[-1]}.jsonl")
    size = os.path.getsize(path)
    with open(path, "ab") as file:
        file.write(b"".join(made[3:9]))
    open_days.events(first)
    os.truncate(path, size)
    store.append(folder, made[9:])
    found = {one["id"] for one in open_days.events(first)}
    assert found == {json.loads(line)["id"] for line in store.scan(folder)}


def test_what_fits_neither_memory_nor_a_file_is_counted_as_lost(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_writer, "_MOST_WAITING", 10)  # bytes
    monkeypatch.setattr(proxy_writer, "FLUSH_S", 0.01)
    said: list[str] = []
    log = tmp_path / "log"
    log.write_text("in the way")

    async def main() -> None:
        writer = proxy_writer.Writer(str(log), said.append)
        writer.add([turn_at(number, 5) for number in range(25)])
        while not said:
            await asyncio.sleep(0.01)
        log.unlink()
        await asyncio.sleep(0)
        assert writer.timer is not None
        writer.timer.cancel()
        writer.timer = None
        writer._flush()
        while len(said) < 2:
            await asyncio.sleep(0.01)
        await writer.close()

    asyncio.run(asyncio.wait_for(main(), MOST))
    assert "events are kept in memory" in said[0]
    # The older half goes where neither memory nor a file has room.
    assert said[1] == "the log can be written again; 12 events did not fit anywhere and are lost"
    assert len(list(store.scan(str(log)))) == 13


def test_a_file_that_is_gone_before_it_is_read_is_nothing_to_notice(environment: dict[str, str]) -> None:
    """Clients move and delete their files at any moment, also between our listing and our reading."""
    folder = pathlib.Path(environment["HOME"]) / FOLDER
    paths = [put(folder / f"s{n}.jsonl", claude(f"msg_{n}")) for n in range(3)]

    class Told(workers.Progress):
        def __call__(self, size: int) -> None:
            for path in paths[1:]:
                path.unlink(missing_ok=True)

    [outcome] = sync.run(
        environment["TOKENOPS_HOME"],
        [(read_clients.BY_NAME["claude"], list(map(str, paths)))],
        jobs=1,
        progress=Told(),
    ) or [None]
    assert outcome is not None and outcome.unread == [] and outcome.events == 1
    assert [json.loads(line)["id"] for line in store.scan(environment["TOKENOPS_HOME"])] == ["msg_0"]
