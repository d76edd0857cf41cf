"""The command contract, with real processes: streams, signals, exit status, one line per failure."""

from __future__ import annotations

import os
import pathlib
import pty
import signal
import subprocess

import pytest

from conftest import MOST, ROOT, Json, Run, claude, eventually, lines, objects, put, unread, until_closed

COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("tok*") if path.is_file())
FOLDER = ".claude/projects/-home-ada-app"


def turn(number: int, **given: object) -> Json:
    base = {"v": 1, "ts": "2026-11-01T12:00:00.000Z", "kind": "turn", "id": f"t{number}", "turns": 1, "project": "app"}
    return base | {"provider": "anthropic", "model": "claude-opus-4-6", "output_tokens": 7} | given


@pytest.fixture
def home(environment: dict[str, str]) -> pathlib.Path:
    """A home with three turns."""
    path = pathlib.Path(environment["HOME"])
    put(path / FOLDER / "s1.jsonl", *(claude(f"msg_{n}") for n in range(3)))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_the_docstring(command: str, run: Run) -> None:
    source = (ROOT / "bin" / command).read_text()
    text = source.split('"""')[1].strip()
    for option in ("--help", "-h"):
        done = run(f"{command} {option}")
        shown = done.stdout.decode()
        lines = shown.splitlines()
        [at] = [at for at, line in enumerate(lines) if line.startswith("  --help, --version")]
        rest = at + 1 if lines[at].endswith("print this text, or the version") else at + 2
        assert lines[rest - 1].endswith("print this text, or the version") and max(map(len, lines)) <= 80
        assert "\n".join((*lines[:at], *lines[rest:])) == text or "\n".join((*lines[:at], *lines[rest + 1 :])) == text
        assert done.stderr == b""
    assert text.startswith(f"{command} - ")
    assert "Exit status:" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_version_and_usage(command: str, run: Run) -> None:
    assert run(f"{command} --version").stdout.decode().startswith(f"{command} ")
    done = run(f"{command} --no-such-option", status=2)
    assert done.stderr.decode() == f"{command}: unrecognized arguments: --no-such-option; see {command} --help\n"


@pytest.mark.parametrize("command", ["tok-read", "tok-rollup", "tok-cost", "tok-burn"])
def test_a_full_disk(command: str, run: Run, home: pathlib.Path) -> None:
    done = run(f"{command} > /dev/full", lines([turn(n) for n in range(9)]), status=2)
    last = done.stderr.decode().splitlines()[-1]
    assert last == f"{command}: cannot write: No space left on device; make room and run it again"


@pytest.mark.parametrize("command", ["tok-read", "tok-rollup", "tok-cost", "tok-burn"])
def test_a_closed_stdout(command: str, run: Run, home: pathlib.Path) -> None:
    done = run(f"{command} >&-", lines([turn(1)]), status=2)
    assert done.stderr.decode().count("\n") == 1
    assert b"Traceback" not in done.stderr


def test_a_closed_stdin(run: Run) -> None:
    done = run("tok-rollup <&-", status=2)
    assert b"Traceback" not in done.stderr
    assert done.stderr.decode().startswith("tok-rollup: stdin is closed; name a file")


@pytest.mark.parametrize(
    ("command", "status"),
    [("tok-statusline", 2), ("tok-poll enable claude-max", 2), ("tok-poll enable openrouter --key -", 2), ("tok-mcp", 0),
     ("tok-init", 0), ("tok-guard hook", 0)],
)  # fmt: skip
def test_a_closed_stdin_is_an_empty_one(command: str, status: int, run: Run) -> None:
    closed, empty = (run(f"{command} {stdin}", status=None) for stdin in ("<&-", "</dev/null"))
    assert (closed.returncode, closed.stdout, closed.stderr) == (empty.returncode, empty.stdout, empty.stderr)
    assert closed.returncode == status and b"Traceback" not in closed.stderr


def test_a_reader_that_leaves(run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"])
    put(path / FOLDER / "s1.jsonl", *(claude(f"msg_{n}") for n in range(2000)))
    done = run("tok-read | head -1", status=141)
    assert len(objects(done.stdout)) == 1
    assert done.stderr == b""


def test_ctrl_c_is_silent(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    end, given = os.pipe()
    process = subprocess.Popen(
        ["tok-rollup"],
        env=environment,
        stdin=end,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        executable=ROOT / "bin/tok-rollup",
    )
    os.write(given, lines([turn(1)]))
    eventually(lambda: not unread(end))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=MOST)
    os.close(end)
    os.close(given)
    assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")


def test_unreadable_inputs(run: Run, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "events.jsonl", turn(1))
    for name, why in (("none.jsonl", "No such file or directory; check the path"), (".", "Is a directory; name a file")):
        done = run(f"tok-rollup --by none events.jsonl {name}", status=2)
        assert done.stderr.decode() == f"tok-rollup: {name}: {why}\n"
        assert objects(done.stdout)[0]["turns"] == 1


def test_no_permission(run: Run, home: pathlib.Path) -> None:
    secret = put(home / FOLDER / "s2.jsonl", claude("msg_9"))
    secret.chmod(0)
    # To root nothing is forbidden, until it drops the capabilities that say so.
    caps = "-dac_override,-dac_read_search"
    prefix = f"setpriv --bounding-set {caps} --inh-caps {caps} " if os.geteuid() == 0 else ""
    done = run(f"{prefix}tok-read", status=2)
    assert len(objects(done.stdout)) == 3
    assert done.stderr.decode() == f"tok-read: {secret}: Permission denied; change its permissions, or run as its owner\n"


def test_no_logs_at_all(run: Run) -> None:
    done = run("tok-read", status=1)
    assert done.stdout == b""
    assert done.stderr.decode() == "tok-read: no client logs were found; name their directory with --root DIR\n"


def test_roots_that_are_no_logs(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("tok-read --root empty", status=2)
    assert "empty: holds no client's logs" in done.stderr.decode()
    done = run("tok-read --root nowhere", status=2)
    assert "nowhere: no such file or directory; check --root" in done.stderr.decode()
    done = run("tok-read copilot9", status=2)
    assert "'copilot9' is not a client; choose from claude, codex" in done.stderr.decode()


def test_unknown_zones_and_times(run: Run, home: pathlib.Path) -> None:
    for options, why in (
        ("--tz Mars/Olympus", "--tz: unknown zone 'Mars/Olympus': use an IANA name such as Europe/Berlin"),
        (
            "--since someday",
            "--since: 'someday' is not a valid time: use 7d, 24h, today, last week, june, 2026-06, 2026-W26, 2026-11-01 or "
            "2026-11-01T09:30:00Z",
        ),
        ("--since 2026-02-01 --until 2026-01-01", "--since is not before --until; swap them"),
        ("--jobs 0", "argument --jobs: '0' must be a whole number, 1 or more; see tok-read --help"),
    ):
        done = run(f"tok-read {options}", status=2)
        assert done.stderr.decode() == f"tok-read: {why}\n"


def test_spans_hold_the_whole_last_day(run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"])
    times = ["2026-10-25T21:59:59.999Z", "2026-10-24T22:00:00.000Z", "2026-10-25T22:59:59.999Z", "2026-10-25T23:00:00.000Z"]
    put(path / FOLDER / "s1.jsonl", *(claude(f"msg_{n}", ts=ts) for n, ts in enumerate(times)))
    done = run("tok-read --since 2026-10-25 --until 2026-10-25 --tz Europe/Berlin")
    assert [event["id"] for event in objects(done.stdout)] == ["msg_1", "msg_0", "msg_2"]


def test_unknown_models_are_listed_and_never_cost_nothing(run: Run) -> None:
    made = lines([turn(1), turn(2, model="claude-opus-4-9"), turn(3, model="claude-opus-4-9"), turn(4, provider=None)])
    done = run("tok-cost --by none --strict", made, status=1)
    (row,) = objects(done.stdout)
    assert row["cost_usd"] == "0.000175"
    assert row["unpriced"] == [
        {
            "model": "claude-opus-4-6",
            "reason": "no provider is known for 'claude-opus-4-6'; add an override",
            "turns": 1,
            "tokens": 7,
        },
        {
            "provider": "anthropic",
            "model": "claude-opus-4-9",
            "reason": "no price is known for 'claude-opus-4-9' at anthropic",
            "turns": 2,
            "tokens": 14,
        },
    ]
    table = run("tok-cost --by none --table -v", made).stdout.decode()
    assert "unpriced: anthropic claude-opus-4-9: 2 turns, 14 tokens: no price is known for" in table
    only = run("tok-cost --by none", lines([turn(1, model="claude-opus-4-9")]))
    assert "cost_usd" not in objects(only.stdout)[0]


def test_reported_costs_win_and_are_labelled(run: Run) -> None:
    made = lines(
        [
            turn(1),
            turn(2, cost_usd="0.25", cost_source="reported"),
            turn(3, model="who", cost_usd="0.5", cost_source="reported"),
        ]
    )
    (row,) = objects(run("tok-cost --by none", made).stdout)
    assert (row["cost_usd"], row["cost_source"]) == ("0.750175", "estimated+reported")
    assert "estimated+reported" in run("tok-cost --by none --table", made).stdout.decode()


def test_shapes(run: Run) -> None:
    made = lines([turn(1, cache_read_tokens=93), turn(2, project="b|c", input_tokens=1000)])
    shown = run("tok-cost --csv", made).stdout.decode().splitlines()
    assert [",".join(line.split(",")[:11]) for line in shown] == [
        "project,turns,input_tokens,cache_read_tokens,cache_write_tokens,cache_write_1h_tokens,cache_write_12h_tokens,"
        "output_tokens,tokens,cache_hit_ratio,cost_usd",
        "app,1,0,93,0,0,0,7,100,1.0,0.0002215",
        "b|c,1,1000,0,0,0,0,7,1007,0.0,0.005175",
    ]
    markdown = run("tok-cost --markdown", made).stdout.decode().splitlines()
    assert markdown[0].startswith("| project ")
    assert "b\\|c" in markdown[2]  # the dearest first
    assert "total" in markdown[4]
    ratio = [row["cache_hit_ratio"] for row in objects(run("tok-cost --json", made).stdout)]
    assert ratio == [1.0, 0.0]
    assert run("tok-cost --color always --table", made).stdout.startswith(b"\x1b[1m")
    assert b"\x1b" not in run("tok-cost --table", made).stdout


def test_rows_keep_their_groups_and_can_be_grouped_anew(run: Run) -> None:
    made = lines([turn(1), turn(2, ts="2026-11-02T12:00:00.000Z")])
    assert [row["bucket"] for row in objects(run("tok-rollup --by day | tok-cost", made).stdout)] == [
        "2026-11-01",
        "2026-11-02",
    ]
    assert [row["turns"] for row in objects(run("tok-rollup --by day | tok-cost --by month", made).stdout)] == [2]
    done = run("tok-rollup --by day | tok-cost --since 2026-11-02", made, status=2)
    assert b"--since and --until cut events, not rows" in done.stderr
    (row,) = objects(run("tok-cost --by none --since 2026-11-02", made).stdout)
    assert row["turns"] == 1


def test_a_terminal_gets_a_table_and_a_pipe_gets_json(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    events = put(tmp_path / "e.jsonl", turn(1))

    def shown(**env: str) -> bytes:
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [ROOT / "bin/tok-cost", str(events)], env=environment | env, stdout=follower, stderr=subprocess.PIPE
        )
        os.close(follower)
        seen = until_closed(leader)
        assert process.wait(MOST) == 0
        return seen

    assert b"list price" in shown(TERM="xterm")
    assert b"\x1b[1m" in shown(TERM="xterm")
    assert b"\x1b" not in shown(TERM="dumb")
    assert b"\x1b" not in shown(TERM="xterm", NO_COLOR="1")


def test_nothing_is_written_by_reading(run: Run, home: pathlib.Path) -> None:
    before = sorted(home.rglob("*"))
    run("tok-read | tok-cost")
    assert sorted(home.rglob("*")) == before


def test_an_unwritable_cache_is_no_failure(run: Run, home: pathlib.Path) -> None:
    assert run("tok-read | tok-cost", env={"XDG_CACHE_HOME": "/dev/null/x"}).stdout == run("tok-read | tok-cost").stdout


def test_no_prompt_text_in_events(run: Run, environment: dict[str, str]) -> None:
    path = pathlib.Path(environment["HOME"])
    secret = "the-words-of-the-prompt"
    put(
        path / FOLDER / "s1.jsonl",
        claude("msg_1", m_content=[{"type": "text", "text": secret * 20}]),
        b'{"torn": "' + secret.encode() + b"\n",
    )
    done = run("tok-read", status=1)
    assert secret.encode() not in done.stdout + done.stderr


BLOCKED_IMPORT = """
import os, time
with open(os.environ["STARTED"], "w"):
    time.sleep(60)
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_is_silent_while_a_command_still_imports(
    environment: dict[str, str], tmp_path: pathlib.Path, name: str
) -> None:
    put(tmp_path / "first/orjson.py", BLOCKED_IMPORT.encode())
    os.mkfifo(tmp_path / "started")
    environment |= {"PYTHONPATH": str(tmp_path / "first"), "STARTED": str(tmp_path / "started")}
    process = subprocess.Popen(
        [ROOT / "bin" / name], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with open(tmp_path / "started", "rb"):  # waits for the import
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=MOST)
    assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")
