"""Long work shows how far it is, at a terminal only, and an interrupted import keeps what it has done."""

from __future__ import annotations

import os
import pathlib
import pty
import select
import signal
import subprocess
import sys

import pytest
from homes import Home

from conftest import MOST, ROOT, claude, put
from tokenops import cli_progress, read_clients, readers, store, sync, workers

GB = 10**9


@pytest.mark.parametrize(
    ("done", "total", "seconds", "unit", "shown"),
    [
        (0, 4 * GB, 1, "bytes", "reading   0 %  0 MB of 4.0 GB"),
        (GB, 4 * GB, 10, "bytes", "reading  25 %  1.0 GB of 4.0 GB  30 s left"),
        (3, 120, 3, "moments", "reading   2 %  3 moments of 120 moments  2 min left"),
        (1, 5000, 1, "", "reading   0 %  1 of 5,000  1 h 23 min left"),
        (999, 1000, 10, "", "reading  99 %  999 of 1,000  0 s left"),
        (1200, 1000, 10, "", "reading  100 %  1,000 of 1,000  0 s left"),
        (12_345_678, 0, 10, "bytes", "reading  12 MB"),
    ],
)
def test_what_the_line_says(done: int, total: int, seconds: float, unit: str, shown: str) -> None:
    assert cli_progress.text("reading", done, total, seconds, unit, bar=False) == shown


def test_a_bar_where_there_is_room() -> None:
    assert cli_progress.text("reading", 1, 2, 3, "", bar=True) == "reading  ████████░░░░░░░░  50 %  1 of 2  3 s left"


# Works for as long as it takes until the line is on the terminal, then says so and waits.
WORK = """
import sys
from tokenops import cli

def main(argv):
    with cli.progress("reading", *argv) as progress:
        progress.expect(1000)
        progress(250)
        while progress.wants_total and not progress.shown:
            progress(0)
        print("ready", flush=True)
        sys.stdin.readline()
        cli.say("a message")
        progress(750)
    print("done")
    return 0

cli.run(main)
"""


class Terminal:
    """A process whose standard error is a terminal, the one that it can be interrupted from."""

    def __init__(self, environment: dict[str, str], tmp_path: pathlib.Path, *arguments: str) -> None:
        self.leader, follower = pty.openpty()
        script = put(tmp_path / "tok-x", WORK.encode())
        self.process = subprocess.Popen(
            [sys.executable, script, *arguments],
            env=environment | {"PYTHONPATH": str(ROOT / "bin"), "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=follower,
        )
        os.close(follower)

    def rest(self) -> tuple[str, str, int]:
        """What it wrote to the terminal and to standard output until its end, and its status."""
        out = self.process.communicate(timeout=MOST)[0]
        shown = b""
        while select.select([self.leader], [], [], 0)[0]:
            try:
                shown += os.read(self.leader, 65536)
            except OSError:
                break
        os.close(self.leader)
        return shown.decode(), out.decode(), self.process.returncode


def test_a_line_that_leaves_nothing_behind(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    terminal = Terminal(environment, tmp_path)
    assert terminal.process.stdin is not None
    terminal.process.stdin.write(b"\n")
    shown, out, status = terminal.rest()
    assert (out, status) == ("ready\ndone\n", 0)
    line, erased, message, *rest = shown.split("\r")[1:]
    assert line.startswith("tok-x: reading  ████") and "25 %  250 MB" not in line and " left" in line
    assert erased == " " * len(line) and message == "tok-x: a message"
    assert all(not text.strip() or "100 %" in text for text in rest) and not rest[-1].strip()


@pytest.mark.parametrize("kept", ["what was done is kept", ""])
def test_an_interruption(environment: dict[str, str], tmp_path: pathlib.Path, kept: str) -> None:
    terminal = Terminal(environment, tmp_path, kept)
    assert terminal.process.stdout is not None and terminal.process.stdout.readline() == b"ready\n"
    terminal.process.send_signal(signal.SIGINT)
    shown, _, status = terminal.rest()
    assert status == -signal.SIGINT
    after = shown.replace("\r\n", "\n").rpartition("\r")[2]
    assert after == (f"tok-x: interrupted; {kept}\n" if kept else "")
    assert "Traceback" not in shown


def test_nothing_is_shown_in_a_file(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    script = put(tmp_path / "tok-x", WORK.encode())
    done = subprocess.run(
        [sys.executable, script],
        env=environment | {"PYTHONPATH": str(ROOT / "bin")},
        input=b"\n",
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"ready\ndone\n", b"tok-x: a message\n")


class Stop(workers.Progress):
    """Interrupts a run when so many files are read."""

    def __init__(self, files: int) -> None:
        self.left = files

    def __call__(self, size: int) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupted_import_keeps_what_it_has_done(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, log = pathlib.Path(environment["HOME"]) / ".claude/projects/-x", environment["TOKENOPS_HOME"]
    paths = [str(put(folder / f"s{n}.jsonl", claude(f"msg_{n}"))) for n in range(5)]
    for n, path in enumerate(paths):
        os.utime(path, (n, n))
    sources = [(read_clients.BY_NAME["claude"], paths)]
    monkeypatch.setattr(sync, "PIECE", 2 * os.stat(paths[0]).st_size)
    with pytest.raises(KeyboardInterrupt):
        sync.run(log, sources, jobs=1, progress=Stop(3))

    def ids() -> list[str]:
        return sorted(line.partition(b'"id":"')[2].partition(b'"')[0].decode() for line in store.scan(log))

    assert ids() == ["msg_3", "msg_4"]  # the newest, of the piece that was complete
    [outcome] = sync.run(log, sources, jobs=1) or [None]
    assert outcome is not None and (outcome.read, outcome.events, outcome.left) == (3, 3, 0)
    assert ids() == [f"msg_{n}" for n in range(5)]
    assert sync.unread_size(log, sources) == 0


def test_a_file_that_stays_unreadable_ends_no_import(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, log = pathlib.Path(environment["HOME"]) / ".claude/projects/-x", environment["TOKENOPS_HOME"]
    paths = [str(put(folder / f"s{n}.jsonl", claude(f"msg_{n}"))) for n in range(3)]
    pathlib.Path(paths[1]).unlink()
    pathlib.Path(paths[1]).mkdir()
    os.utime(paths[1], (2**32, 2**32))
    monkeypatch.setattr(sync, "PIECE", 1)
    [outcome] = sync.run(log, [(read_clients.BY_NAME["claude"], paths)], jobs=1) or [None]
    assert outcome is not None and outcome.events == 2 and len(outcome.unread) <= 1


def test_pieces_give_the_same_log(weeks: Home, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = []
    for name, piece in (("whole", 1 << 40), ("pieces", 1)):
        log = tmp_path / name
        put(log / "salt", b"00" * 24)
        monkeypatch.setattr(sync, "PIECE", piece)
        outcomes = sync.run(str(log), readers.with_files((), (), {}, str(weeks.root)), jobs=1)
        logs.append(
            (list(store.cat(str(log))), [(one.files, one.read, one.bytes, sorted(one.rejected)) for one in outcomes or ()])
        )
    assert logs[0] == logs[1] and logs[0][0]
