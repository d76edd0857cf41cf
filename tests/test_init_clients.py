"""Real clients read what tok-init writes for them, and start tok-mcp. `make clients` installs what is run here."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest
from test_clients import COMMANDS, needs

from conftest import MOST, ROOT, Run, objects, put

MCP = f"{ROOT}/bin/tok-mcp"


def command(name: str, arguments: list[str], environment: dict[str, str], cwd: pathlib.Path) -> str:
    """What a client prints; some say all on stderr."""
    path = os.pathsep.join((str(COMMANDS), environment["PATH"], os.path.dirname(os.popen("command -v node").read().strip())))
    done = subprocess.run(
        [str(COMMANDS / name), *arguments],
        env=environment | {"PATH": path},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=5 * MOST,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()[-1500:]
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("name", "file", "content", "says"),
    [
        pytest.param("codex", ".codex/config.toml", b"# mine\n", f"tokenops  {MCP}", marks=needs("codex")),
        pytest.param(
            "opencode",
            ".config/opencode/opencode.jsonc",
            b'{"theme": "x", /* mine */}\n',
            "connected",
            marks=needs("opencode"),
        ),
        pytest.param("gemini", ".gemini/settings.json", b"{}\n", f"tokenops: {MCP}", marks=needs("gemini")),
    ],
)
def test_a_host_knows_the_server(
    name: str, file: str, content: bytes, says: str, run: Run, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    home = pathlib.Path(environment["HOME"])
    put(home / file, content)
    rows = objects(run("tok-init --yes --json").stdout)
    assert [row["state"] for row in rows if row["about"] == "change"] == ["written"]
    listed = command(name, ["mcp", "list"], environment, tmp_path)
    assert "tokenops" in listed and says in listed
    assert all(row["done"] for row in objects(run("tok-init --undo --json").stdout))
    assert b"tok-mcp" not in (home / file).read_bytes() and (b"mine" in content) == (b"mine" in (home / file).read_bytes())


@needs("claude")
def test_claude_code_takes_the_line(run: Run, environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    (pathlib.Path(environment["HOME"]) / ".claude").mkdir()

    def told() -> list[tuple[str, str]]:
        rows = objects(run("tok-init --detect --json").stdout)
        return [(row["state"], row["text"]) for row in rows if row["about"] == "mcp" and row["format"] == "shell"]

    [(state, line)] = told()
    assert state == "missing"
    command("claude", line.split()[1:], environment, tmp_path)
    assert told()[0][0] == "present"
    assert MCP in command("claude", ["mcp", "list"], environment, tmp_path)
