"""Reads and changes what other programs keep: the crontab, Claude Code's MCP servers, timers of systemd and launchd.

Each is asked for with its own program, found by `programs` and run without a shell. Nothing here decides or records.
"""

from __future__ import annotations

import os

from tokenops import programs, setup_hosts

# In the place of a path: the user's crontab, which only the program crontab may read and write.
CRONTAB = "crontab:"
CLAUDE = ("claude", "mcp")
TIMER, SERVICE, AGENT = "tokenops.timer", "tokenops.service", "org.tokenops.sync"
_SECONDS = 60.0


class Failed(OSError):
    """A program that did not do what it was asked for; the message is the end of a sentence about its file."""


def _run(*command: str, text: bytes = b"") -> bytes:
    try:
        ended = programs.run(list(command), _SECONDS, text=text)
    except OSError as error:
        raise Failed(error.errno, f"is kept by the program {command[0]}: {error.strerror}") from None
    if ended.status:
        why = (ended.err or ended.out).decode(errors="replace").strip().split("\n")[-1][:200]
        raise Failed(0, f"was not changed: {' '.join(command[:3])} ended with {ended.status}{f' ({why})' if why else ''}")
    return ended.out


def is_here(name: str, path: str | None) -> bool:
    """Whether a program is on the path."""
    return bool(programs.path_of(name, path))


def crontab() -> bytes | None:
    """The user's crontab; None if there is none. Raises Failed."""
    try:
        ended = programs.run(["crontab", "-l"], _SECONDS)
    except OSError as error:
        raise Failed(error.errno, f"is kept by the program crontab: {error.strerror}") from None
    if ended.status == 0:
        return ended.out
    if b"no crontab" in ended.err.lower():
        return None
    why = ended.err.decode(errors="replace").strip().split("\n")[-1][:200]
    raise Failed(0, f"cannot be read: crontab -l ended with {ended.status}{f' ({why})' if why else ''}")


def replace_crontab(before: bytes | None, after: bytes | None) -> None:
    """Write the crontab (None: remove it) if it still is as it was before. Raises Failed."""
    if crontab() != before:
        raise Failed(0, "was just changed by another program")
    if after is None:
        _run("crontab", "-r")
    else:
        _run("crontab", "-", text=after)
    if crontab() != after:
        raise Failed(0, "is not as it was written; look at it with crontab -l")


def add_server(command: str) -> None:
    """Have Claude Code add tok-mcp for all of the user's projects. Raises Failed."""
    _run(*CLAUDE, "add", "--scope", "user", setup_hosts.SERVER, "--", command)


def remove_server() -> None:
    """Have Claude Code remove tok-mcp. Raises Failed."""
    _run(*CLAUDE, "remove", "--scope", "user", setup_hosts.SERVER)


def start(service: str, path: str) -> None:
    """Start the timer that a file describes. Raises Failed."""
    if service == "systemd":
        _run("systemctl", "--user", "daemon-reload")
        _run("systemctl", "--user", "enable", "--now", TIMER)
    elif service == "launchd":
        _run("launchctl", "bootstrap", f"gui/{os.getuid()}", path)


def stop(service: str) -> None:
    """Stop such a timer, before its file goes. Raises Failed."""
    if service == "systemd":
        _run("systemctl", "--user", "disable", "--now", TIMER)
    elif service == "launchd":
        _run("launchctl", "bootout", f"gui/{os.getuid()}/{AGENT}")


def forget(service: str) -> None:
    """Have systemd notice that files are gone. Raises Failed."""
    if service == "systemd":
        _run("systemctl", "--user", "daemon-reload")
