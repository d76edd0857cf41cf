"""How real clients are run: with an empty home, against a vendor on loopback, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

import rig
from proxies import Proxy
from test_clients import COMMANDS
from upstream import Upstream

from conftest import MOST, ROOT, Json, objects, put


def program(name: str) -> str:
    """A client's program, or a command of ours that runs a client."""
    own = ROOT / ".venv-clients" / name / "bin" / name  # of Python: each has an environment of its own
    return str(next((path for path in (COMMANDS / name, own) if path.exists()), name))


def started(
    arguments: list[str],
    environment: dict[str, str],
    vendor: Upstream,
    where: pathlib.Path,
    streams: bool = False,
    **more: str,
) -> subprocess.Popen[bytes]:
    """A client at work. What it asks of others comes to the vendor too. `streams`: it can be written to."""
    node = os.path.dirname(os.popen("command -v node").read().strip())
    variables = environment | more | {
        "PATH": os.pathsep.join((str(COMMANDS), environment["PATH"], node)),
        "HTTPS_PROXY": f"http://127.0.0.1:{vendor.port}",
        "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    return subprocess.Popen(
        [program(arguments[0]), *arguments[1:]], env=variables, cwd=where, stdin=subprocess.PIPE if streams else subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[bytes], check: bool = True) -> bytes:
    """What a client prints until it ends. All that it started ends with it."""
    try:
        printed, wrong = process.communicate(timeout=5 * MOST)  # OpenClaw takes a minute for a prompt beside other work
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0 or not check, (wrong.decode()[-1500:], printed.decode()[-1500:])
    return printed


def sweep(home: str, keep: int = 0) -> None:
    """End what clients of a home left running: some start a server that outlives them. `keep`: a process of ours."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != keep and f"HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def command(arguments: list[str], environment: dict[str, str], vendor: Upstream, where: pathlib.Path, **more: str) -> bytes:
    """What a client prints that runs to its end."""
    return ended(started(arguments, environment, vendor, where, **more))


def repository(where: pathlib.Path) -> pathlib.Path:
    """A repository with one commit, on the branch main."""
    where.mkdir()
    git(where, "init", "--quiet", "--initial-branch=main")
    git(
        where, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--allow-empty", "--message=Begin"
    )
    return where


def git(where: pathlib.Path, *arguments: str) -> None:
    subprocess.run(
        ["git", *arguments], cwd=where, check=True, timeout=MOST, env={"PATH": os.environ["PATH"], "HOME": str(where)}
    )


def base(vendor: Upstream, proxy: Proxy | None, provider: str) -> str:
    """Where a client asks."""
    return f"http://127.0.0.1:{proxy.port}/{provider}" if proxy else f"http://127.0.0.1:{vendor.port}"


def claude(
    prompt: str,
    options: list[str],
    environment: dict[str, str],
    vendor: Upstream,
    where: pathlib.Path,
    proxy: Proxy | None = None,
    within: Sequence[str] = (),
    login: str = "ANTHROPIC_API_KEY",
) -> list[Json]:
    """What Claude Code says of each run; of several `within` a command of ours. `login`: a key, or a plan's token."""
    settings = {
        "ANTHROPIC_BASE_URL": base(vendor, proxy, "anthropic"), login: "sk-ant-x", "DISABLE_TELEMETRY": "1", "IS_SANDBOX": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "ENABLE_TOOL_SEARCH": "false",
    }  # fmt: skip
    always = ["--model", "claude-opus-4-8", "--dangerously-skip-permissions", "--output-format", "json"]
    printed = command([*within, "claude", "-p", prompt, *always, *options], environment, vendor, where, **settings)
    return objects(printed)


def codex(
    prompt: list[str],
    options: list[str],
    environment: dict[str, str],
    vendor: Upstream,
    where: pathlib.Path,
    proxy: Proxy | None = None,
    within: Sequence[str] = (),
) -> str:
    """The thread that Codex worked in."""
    server = put(where.parent / "server.py", rig.SERVER.encode())
    config = f"""\
        model_provider = "rig"
        check_for_update_on_startup = false
        [model_providers.rig]
        name = "rig"
        base_url = "{base(vendor, proxy, "openai")}/v1"
        env_key = "KEY"
        wire_api = "responses"
        [mcp_servers.tiny]
        command = "{sys.executable}"
        args = ["{server}"]
        [analytics]
        enabled = false
        [otel]
        metrics_exporter = "none"
        [features]
        plugins = false
        remote_plugin = false
        apps = false
        """
    put(pathlib.Path(environment["HOME"]) / ".codex/config.toml", config.encode())
    always = ["--json", "--dangerously-bypass-approvals-and-sandbox"]
    printed = command([*within, "codex", "exec", *always, *options, *prompt], environment, vendor, where, KEY="sk-x")
    thread: str = objects(printed)[0]["thread_id"]
    return thread
