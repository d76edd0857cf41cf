"""How TokenOps is tied into this machine: cron, Claude Code's status line, base URLs that lead to the proxy.

Only looks, and only here: nothing is started, and nobody is asked but this machine's own ports.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from urllib.parse import urlsplit

from tokenops import datadir, untrusted
from tokenops.events import Event

PROXY_PORT = 7878
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def cron() -> Event:
    """Whether the user's crontab runs tok-sync and tok-poll."""
    if shutil.which("crontab") is None:
        return {"error": "there is no crontab here", "hint": "run tok-sync by whatever runs commands at intervals here"}
    try:
        done = subprocess.run(
            ["crontab", "-l"], stdin=subprocess.DEVNULL, capture_output=True, timeout=2, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return {"error": "crontab -l does not answer", "hint": "run crontab -l and see what it says"}
    lines = [line for line in done.stdout.splitlines() if not line.lstrip().startswith("#")]
    return {name: any(name in line for line in lines) for name in ("tok-sync", "tok-poll")}


def statusline(environment: Mapping[str, str], home_dir: str) -> Event:
    """What Claude Code runs for its status line: ours, another's, or none."""
    folders = [name for name in environment.get("CLAUDE_CONFIG_DIR", "").split(",") if name]
    for folder in folders or [os.path.join(home_dir, ".claude")]:
        found = untrusted.mapping(datadir.read_json(os.path.join(os.path.expanduser(folder), "settings.json")))
        command = untrusted.text(untrusted.mapping(found.get("statusLine")).get("command"), 4000)
        if command:
            return {"set": True, "ours": "tok-statusline" in command}
    return {"set": False, "ours": False}


def base_urls(environment: Mapping[str, str]) -> list[str]:
    """The names of environment variables by which clients are led to a proxy on this machine."""
    found = []
    for name, value in environment.items():
        if name.endswith(("_BASE_URL", "_API_BASE", "_ENDPOINT", "_HOST")):
            with contextlib.suppress(ValueError):
                parts = urlsplit(value if "//" in value else f"//{value}")
                if parts.hostname in _LOOPBACK and parts.port == PROXY_PORT:
                    found.append(name)
    return sorted(found)


def answers(port: int = PROXY_PORT, seconds: float = 0.2) -> bool:
    """Whether something listens on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), seconds):
            return True
    except OSError:
        return False


def proxy(environment: Mapping[str, str]) -> Event:
    """Whether the proxy is up, and which base URLs lead to it."""
    return {"listens": answers(), "port": PROXY_PORT, "base_urls": base_urls(environment)}
