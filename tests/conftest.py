"""What every test may use: our commands as processes, and lines as the clients write them."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from soak_clock import Clock
from starter import PATH, Starter, understood

from tokenops import fields, joins

ROOT = pathlib.Path(__file__).resolve().parent.parent

pytest_plugins = ["homes", "machines", "proxies", "vendors"]
DATA = ROOT / "tests/data"  # small tables of our own
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data does not exist here")

# Property tests try the same examples in every run: a test gives the same answer on every machine. `make fuzz` tries
# other ones each time, TOKENOPS_ROUNDS times as many. No example is judged by how long it took.
ROUNDS = int(os.environ.get("TOKENOPS_ROUNDS", "1"))
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.register_profile("test", _UNTIMED, derandomize=True, database=None)
# Said outright, since hypothesis takes its defaults from a profile of its own where a build service is at work.
settings.register_profile("fuzz", _UNTIMED, derandomize=False, max_examples=100 * ROUNDS, print_blob=True)
# A quarter of them, for a second interpreter.
settings.register_profile("brief", settings.get_profile("test"), max_examples=25)
PROFILE = os.environ.get("TOKENOPS_HYPOTHESIS", "test")
settings.load_profile(PROFILE)

# How many seconds anything that must come may take: long, for a machine that is busy with other things. A test waits for
# what it needs and never for a time; only what must not come is given up earlier, by a limit of its own.
MOST = 120.0

# A shell starts a job in the background with interrupts ignored, and every process that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

T = TypeVar("T")
Json = dict[str, Any]
Run = Callable[..., subprocess.CompletedProcess[bytes]]


# The machine's name: none, so that what is stored can be compared with what was given; test_machines stamps.
STAMP = os.environ.get("TOKENOPS_TEST_MACHINE", "")
# What a record may say of where it was stored; a property test's sightings have one, both or neither.
OWNERS = {"machine": st.sampled_from(["desk", "laptop", "é", "z"]), "user": st.sampled_from(["ada", "bob"])}


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The compiled catalogue lands in a directory of the run's own."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    """An empty home, UTC, and our commands first on the path."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "PATH": PATH,
        "HOME": str(home),
        "TZ": "UTC",
        "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"],
        "TOKENOPS_HOME": str(tmp_path / "log"),
        "LC_ALL": "C.UTF-8",
        "TOKENOPS_MACHINE": STAMP,
    }


@pytest.fixture
def still(environment: dict[str, str], tmp_path: pathlib.Path) -> Iterator[Clock]:
    """A wall clock that stands at 2026-11-21T09:30 until the test sets it; every command of the test sees it."""
    made = Clock(tmp_path / "clock", 1_795_253_400_000, 0)
    environment |= made.environment()
    yield made
    made.held.close()


@pytest.fixture(scope="session")
def starters() -> Iterator[list[Starter]]:
    """Those that start our commands and are at rest."""
    resting: list[Starter] = []
    yield resting
    for starter in resting:
        starter.close()


@pytest.fixture
def run(environment: dict[str, str], tmp_path: pathlib.Path, starters: list[Starter]) -> Run:
    """Run a line of shell with our commands on the path, in an empty directory."""

    def ran(
        line: str, given: bytes = b"", status: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        whole = environment | (env or {})
        if stages := understood(line, whole):
            starter = starters.pop() if starters else Starter()
            done = starter.run(stages, given, str(tmp_path), whole, 5 * MOST)
            starters.append(starter)  # where it failed, another takes its place
        else:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", line],
                input=given,
                capture_output=True,
                cwd=tmp_path,
                env=whole,
                timeout=5 * MOST,
                check=False,
            )
        if status is not None:
            assert done.returncode == status, (done.returncode, done.stderr.decode(), done.stdout.decode()[:2000])
        return done

    return ran


def examples(count: int) -> settings:
    """How many examples a property test tries, where 100 are too few or too many."""
    return settings(max_examples=-(-count // 4) if PROFILE == "brief" else count * ROUNDS)


def until_closed(leader: int) -> bytes:
    """All that a program writes to the terminal whose leader this is, which is closed then."""
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # how Linux says that the last follower was closed
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    return seen


def some_of(cases: Iterable[T], every: int) -> list[T]:
    """One in so many of a long table's cases; all of them where TOKENOPS_ROUNDS asks for more (`make soak`)."""
    return list(cases)[:: every if ROUNDS == 1 else 1]


def eventually(condition: Callable[[], T]) -> T:
    """What a condition gives once that is true; it is asked again and again."""
    until = time.monotonic() + MOST
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.005)
    return found


def unread(pipe: int) -> int:
    """How many bytes of a pipe nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def objects(data: bytes) -> list[Json]:
    """JSON Lines -> objects."""
    return [json.loads(line) for line in data.splitlines()]


def lines(records: Iterable[Json]) -> bytes:
    """Objects -> JSON Lines, as the clients write them."""
    return b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records)


def put(path: pathlib.Path, *parts: bytes | Json) -> pathlib.Path:
    """Write a file of lines, given as bytes or as objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(part if isinstance(part, bytes) else lines([part]) for part in parts))
    return path


def claude(identity: str | None = "msg_1", output: object = 7, ts: str = "2026-03-01T09:00:00.000Z", **given: Any) -> Json:
    """A transcript line of Claude Code. Keys of `usage` start with u_, those of `message` with m_."""
    usage: Json = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 5000,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100},
        "output_tokens": output,
        "service_tier": "standard",
    }
    message: Json = {
        "model": "claude-opus-4-6",
        "id": identity,
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "x" * 300}],
        "stop_reason": None,
    }
    line: Json = {
        "parentUuid": None,
        "isSidechain": False,
        "cwd": "/home/ada/app",
        "sessionId": "s1",
        "version": "2.1.80",
        "message": message,
        "requestId": "req_1",
        "type": "assistant",
        "uuid": "u1",
        "timestamp": ts,
    }
    for key, value in given.items():
        target = usage if key.startswith("u_") else message if key.startswith("m_") else line
        name = key[2:] if target is not line else key
        if value is ...:
            target.pop(name, None)
        else:
            target[name] = value
    message["usage"] = given.get("m_usage", usage)
    return line


def codex_meta(thread: str, **payload: Any) -> Json:
    """A rollout's first line."""
    given = {"id": thread, "cwd": "/home/ada/app", "model_provider": "openai", "source": "cli", **payload}
    return {"timestamp": payload.pop("at", "2026-05-02T10:00:00.000Z"), "type": "session_meta", "payload": given}


def codex_model(model: str, **payload: Any) -> Json:
    """A line that sets the model."""
    return {"timestamp": "2026-05-02T10:00:01.000Z", "type": "turn_context", "payload": {"model": model, **payload}}


def codex_count(
    total: tuple[int, int, int, int] | None,
    last: tuple[int, int, int, int] | None,
    ts: str = "2026-05-02T10:00:09.000Z",
    **payload: Any,
) -> Json:
    """A token_count line: input (cached inside), cached, output (reasoning inside), reasoning."""

    def usage(counts: tuple[int, int, int, int]) -> Json:
        names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
        return dict(zip(names, counts, strict=True)) | {"total_tokens": counts[0] + counts[2]}

    info = {}
    if total is not None:
        info["total_token_usage"] = usage(total)
    if last is not None:
        info["last_token_usage"] = usage(last)
    return {"timestamp": ts, "type": "event_msg", "payload": {"type": "token_count", "info": info or None, **payload}}


def totals(events: Iterable[Json]) -> Json:
    """Sums over turns, in the order of the record."""
    names = ("turns", "input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens")
    turns = [event for event in events if event["kind"] == "turn"]
    return {name: sum(event.get(name, 0) for event in turns) for name in names}


def joins_by_the_laws(a: Json, b: Json, c: Json) -> None:
    """Whether three sightings of one thing join in any order, grouping and number to one record that the log takes."""
    join = joins.join
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(join(a, b), b) == join(a, b)
    assert not fields.fault(join(a, b))
