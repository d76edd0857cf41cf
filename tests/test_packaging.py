"""What is shipped, what starts fast, and whether the tree is what it says."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import textwrap
import tomllib

import pytest

from conftest import ROOT, Run
from tokenops import light

COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("tok*") if path.is_file())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Third-party modules that a command may import, and what a plain run of it does import.
ALLOWED = {name: {"orjson"} for name in COMMANDS}
ALLOWED["tok-mcp"] = {"orjson", "mcp"}
THIRD_PARTY = {"orjson", "yaml", "tabulate", "dateutil", "httpx", "mcp", "wcwidth"}


def test_every_command_is_shipped() -> None:
    assert PROJECT["tool"]["setuptools"]["script-files"] == [f"bin/{name}" for name in COMMANDS]
    for name in COMMANDS:
        assert os.access(ROOT / "bin" / name, os.X_OK)


def test_a_checkout_finds_the_package_and_the_package_its_data() -> None:
    assert (ROOT / "bin/tokenops").readlink() == pathlib.Path("../lib")
    assert (ROOT / "lib/catalog").readlink() == pathlib.Path("../catalog")


def test_run_time_dependencies_are_the_six() -> None:
    names = sorted(text.split(">")[0] for text in PROJECT["project"]["dependencies"])
    assert names == ["PyYAML", "httpx", "mcp", "orjson", "python-dateutil", "tabulate"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_start_imports(command: str, run: Run) -> None:
    """A run on one line of input; the compiled catalogue is there already."""
    targets = {"tok-rollup": "/dev/null", "tok-cost": "/dev/null", "tok-log": "verify"}
    target = (targets | dict.fromkeys(("tok-proxy", "tok-dash"), "--port 99999")).get(command, "")
    run(f"{command} {target}", status=None)
    done = run(f"{sys.executable} -X importtime {ROOT}/bin/{command} {target}", status=None)
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.decode().splitlines() if "|" in line}
    assert imported & THIRD_PARTY == ALLOWED[command]
    done = run(f"{sys.executable} -X importtime {ROOT}/bin/{command} --help")
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.decode().splitlines() if "|" in line}
    assert imported.isdisjoint({"argparse", "inspect"})


def test_a_pattern_is_compiled_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, really = [], re.compile
    monkeypatch.setattr(re, "compile", lambda *args: (compiled.append(args), really(*args))[1])
    pattern, other = light.pattern(r"(\d+)[a-z]", re.IGNORECASE), light.pattern(rb"\d")
    assert compiled == []
    assert [match[1] for match in map(pattern.match, ("12A", "7b", "x")) if match] == ["12", "7"]
    assert (pattern.sub("-", "1a2b"), pattern.groups, other.findall(b"1a2")) == ("--", 1, [b"1", b"2"])
    assert set(compiled) == {(r"(\d+)[a-z]", re.IGNORECASE), (rb"\d", 0)}


def test_what_stands_for_inspect_has_all_that_it_has() -> None:
    """As a command runs: what was imported with it, and what imports it later."""
    text = """
        import sys
        sys.argv[0] = "tok-x"
        import tokenops, orjson, dataclasses, inspect
        assert "ast" not in sys.modules and not hasattr(inspect, "__path__")
        @dataclasses.dataclass
        class Point:
            x: int
        assert Point.__doc__ == "Point(x: int)"
        from inspect import isfunction
        assert isfunction(lambda: 0) and inspect.isfunction is isfunction
        import inspect as again
        assert again is sys.modules["inspect"] and again.isfunction is isfunction
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], cwd=ROOT / "bin", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nothing_names_a_place_of_this_machine() -> None:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode().split("\0")
    forbidden = ("/" + "work/", "/" + "farm/", "/" + "root/")
    for name in filter(None, files):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            assert not any(word.encode() in text for word in forbidden), name


def test_the_sizes_of_the_packages_add_up() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/sizes.py"], capture_output=True, check=False)
    if done.returncode:  # this environment has no TokenOps in it
        assert b"run it with the Python of its environment" in done.stderr
        return
    *rows, total = [line.split("MB") for line in done.stdout.decode().splitlines()]
    assert float(total[0]) == pytest.approx(sum(float(row[0]) for row in rows), abs=1) and len(rows) == 8
    assert any(row[1].split()[0] == "mcp" for row in rows[:2])
