"""Other programs, and directories that hold hostile ones: nothing that lies in the working directory is run."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys

import pytest

from conftest import MOST, ROOT, claude, eventually, put
from tokenops import datadir, https, price_snapshot, price_tables, programs
from tokenops.etiquette import Message, Trouble

COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("tok*") if path.is_file())
MODULES = [
    "orjson",
    "yaml",
    "tabulate",
    "httpx",
    "json",
    "sitecustomize",
    "usercustomize",
    "dateutil",
    "tokenops",
    "mcp",
    "pip",
    "encodings",
    "subprocess",
    "argparse",
    "zstandard",
    "brotli",
    "pyarrow",
    "backports",
    "compression",
    "readline",
    "tomllib",
    "sqlite3",
    "zoneinfo",
    "tzdata",
]
PROGRAMS = [
    "git",
    "crontab",
    "zstd",
    "codex",
    "python3",
    "python",
    "sh",
    "tok-sync",
    "tok-guard",
    "claude",
    "pager",
    "less",
    "uname",
]
FOLDER = ".claude/projects/-home-ada-app"


@pytest.fixture
def hostile(tmp_path: pathlib.Path, environment: dict[str, str]) -> pathlib.Path:
    """A directory with a module and a program of every name, each of which leaves a file with its name in ../ran."""
    folder = tmp_path / "hostile"
    ran = tmp_path / "ran"
    ran.mkdir()
    for name in MODULES:
        code = f"open({str(ran / name)!r}, 'w')\n".encode()
        put(folder / f"{name}/__init__.py", code)
        put(folder / f"{name}/__main__.py", code)
        put(folder / f"{name}.py", code)
    for name in PROGRAMS:
        put(folder / name, f"#!/bin/bash\n: >{ran}/program-{name}\n".encode()).chmod(0o755)
        put(folder / "bin" / name, f"#!/bin/bash\n: >{ran}/program-{name}\n".encode()).chmod(0o755)
    put(folder / ".git/HEAD", b"ref: refs/heads/main\n")
    put(folder / ".git/config", f"[core]\n\tfsmonitor = {folder}/git\n\tpager = {folder}/pager\n".encode())
    put(
        pathlib.Path(environment["HOME"]) / FOLDER / "s1.jsonl",
        *(claude(f"msg_{number}", cwd=str(folder)) for number in (1, 2)),
    )
    environment["PATH"] = os.pathsep.join(("", ".", "bin", environment["PATH"], "", "bin/"))
    return folder


def ran(hostile: pathlib.Path) -> list[str]:
    return sorted(path.name for path in (hostile.parent / "ran").iterdir())


def call(
    hostile: pathlib.Path, environment: dict[str, str], command: str, given: bytes = b"{}"
) -> subprocess.CompletedProcess[bytes]:
    name, *arguments = command.split()
    return subprocess.run(
        [sys.executable, ROOT / "bin" / name, *arguments],
        cwd=hostile,
        env=environment,
        input=given,
        capture_output=True,
        timeout=MOST,
        check=False,
    )


RUNS = [
    "tok-sync",
    "tok-sync --jobs 2",
    "tok-read --jobs 2",
    "tok-cost --log --by project --table",
    "tok-cost --log --reconcile",
    "tok-burn --log --table",
    "tok-budget --table",
    "tok-budget --notify true",
    "tok-plan --table",
    "tok-status --table",
    "tok-init --detect --json",
    "tok-price lint --against HEAD",
    "tok-price check",
    "tok-price snapshot --dry-run",
    "tok-task start here",
    "tok-task list --table",
    "tok-coach waste",
    "tok-coach prompts",
    "tok-trace s1",
    "tok-score",
    "tok-guard install",
    "tok-guard hook",
    "tok-statusline",
    "tok-poll enable codex",
    "tok-poll --jitter 0 --timeout 1 --force",
    "tok-dash --html -",
    "tok-ship ./out",
    "tok-mcp",
]  # fmt: skip


@pytest.mark.parametrize("command", [f"{name} --help" for name in COMMANDS] + RUNS)
def test_nothing_of_the_working_directory_is_run(command: str, hostile: pathlib.Path, environment: dict[str, str]) -> None:
    environment |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    done = call(hostile, environment, command)
    assert b"Traceback" not in done.stderr
    assert ran(hostile) == [], done.stderr.decode()


@pytest.mark.parametrize("line", ["python3 -m pip", "git status", "bin/less"])
def test_the_directory_is_hostile(line: str, hostile: pathlib.Path, environment: dict[str, str]) -> None:
    """Else the test above proves nothing."""
    subprocess.run(["bash", "-c", line], cwd=hostile, env=environment, check=False)
    assert len(ran(hostile)) >= 1


def test_pip_ignores_the_variables_of_python(
    hostile: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PYTHONPATH", str(hostile))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(price_tables.SnapshotError, match="pip download litellm"):
        price_snapshot.download(price_snapshot.ENGINES[0], str(tmp_path))
    assert ran(hostile) == []


@pytest.mark.parametrize("command", ["codex", "./codex", "bin/codex", "../hostile/codex"])
def test_a_client_that_is_only_in_the_working_directory(
    command: str, hostile: pathlib.Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    client = https.Client([command, "app-server"], environment, str(hostile), MOST)
    with pytest.raises(Trouble, match=r"no absolute entry of PATH leads to it; set vendor_usage\.codex\.command"):
        client(Message("initialize", {}, 1))
    client.close()
    assert ran(hostile) == []


def test_a_first_import_of_the_dashboard(hostile: pathlib.Path, environment: dict[str, str]) -> None:
    """tok-dash runs tok-sync, whose first line asks PATH for python3."""
    environment["PATH"] = os.pathsep.join(("", "bin", environment["PATH"]))
    process = subprocess.Popen(
        [sys.executable, ROOT / "bin/tok-dash", "--port", "0"], cwd=hostile, env=environment, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        address = next(word for line in process.stderr for word in line.decode().split() if word.startswith("http://"))
        subprocess.run(["curl", "-s", "-o", os.devnull, address], check=False, timeout=MOST)
        eventually(lambda: datadir.last_sync(environment["TOKENOPS_HOME"]) is not None)
    finally:
        process.terminate()
        process.communicate(timeout=MOST)
    assert ran(hostile) == []


PATHS = [
    (None, "/bin:/usr/bin"),
    ("", "/bin:/usr/bin"),
    (":", "/bin:/usr/bin"),
    (".:bin:../x", "/bin:/usr/bin"),
    (":/a:", "/a"),
    ("/a::./b:/c", "/a:/c"),
    ("/a b:~/bin:/c", "/a b:/c"),
]


@pytest.mark.parametrize(("path", "wanted"), PATHS)
def test_only_absolute_entries_of_a_path_count(path: str | None, wanted: str) -> None:
    assert programs.safe_path(path) == wanted


def test_programs_are_files_that_may_be_run(tmp_path: pathlib.Path) -> None:
    for name, mode in (("a/tool", 0o644), ("b/tool", 0o755)):
        put(tmp_path / name, b"#!/bin/sh\n").chmod(mode)
    (tmp_path / "c/tool").mkdir(parents=True)
    path = f"{tmp_path}/c:{tmp_path}/a:{tmp_path}/b"
    assert programs.path_of("tool", path) == f"{tmp_path}/b/tool"
    assert programs.path_of("tool", f"{tmp_path}/a:b") == ""
    assert programs.path_of(f"{tmp_path}/b/tool", "") == f"{tmp_path}/b/tool"
    assert programs.path_of("./tool", path) == programs.path_of("b/tool", path) == ""


def test_a_program_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError, match="did not end within"):
        programs.run(["sleep", "60"], 0.1)
    with pytest.raises(FileNotFoundError):
        programs.run(["no-such-program"], 1)


def starts(tree: ast.AST) -> list[int]:
    """The lines that start a program with another function than those of `programs`."""
    risky = {"run", "call", "check_call", "check_output", "Popen", "system", "popen", "which", "create_subprocess_exec"}
    risky |= {"create_subprocess_shell", "execv", "execve", "execvp", "execvpe", "execlp", "posix_spawn", "posix_spawnp"}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("subprocess", "os", "shutil", "asyncio")
        and (node.func.attr in risky - {"run"} or (node.func.attr == "run" and node.func.value.id == "subprocess"))
    ]


# Where a program is started elsewhere, each with a path that `programs` made safe.
STARTS = {"programs": 3, "https": 1, "cli_dash": 2, "cli_guard": 2, "cli_child": 1, "read_packed": 1}


def test_programs_are_started_in_one_place() -> None:
    files = [*(ROOT / "lib").glob("*.py"), *(path for path in (ROOT / "bin").glob("tok*") if path.is_file())]
    counts = {path.stem: len(starts(ast.parse(path.read_text(encoding="utf-8")))) for path in files}
    assert {name: count for name, count in counts.items() if count} == STARTS


@pytest.mark.parametrize("call", ["run(['true'], 60, text=text).status", "run_shell('exec true', text, 60)[1]"])
def test_a_program_that_does_not_read_its_input_ends_nobody(call: str) -> None:
    """Where an own end of a pipe that closes ends the process in silence, as in each command."""
    code = f"""import signal
from tokenops import programs
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
text = bytes(10_000_000)
assert programs.{call} == 0
assert signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL
print("here")"""
    path = os.pathsep.join([str(ROOT / "bin"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"here\n", b"")
