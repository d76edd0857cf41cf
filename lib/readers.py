"""The table of clients, where their files lie, and how a run over all of them becomes one stream of events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from tokenops import read_claude, read_codex


class Client(NamedTuple):
    """One client's place in the table."""

    name: str  # as given to tok-read
    client: str  # as in the record
    source: str
    variable: str  # environment variable that lists its directories
    homes: tuple[str, ...]  # below the home directory
    marks: tuple[str, ...]  # what a directory of this client holds
    files: Callable[[str], Iterator[str]]
    caveat: str = ""


CLIENTS = (
    Client(
        "claude",
        read_claude.CLIENT,
        read_claude.SOURCE,
        "CLAUDE_CONFIG_DIR",
        ("$XDG_CONFIG_HOME/claude", ".claude"),
        ("projects",),
        read_claude.files,
        "in many versions it writes placeholders for input and output tokens (0, 1, or the count when the answer began), so "
        "both can be far too low; its cache counts are right. They are shown as recorded: only the wire has the true ones.",
    ),
    Client(
        "codex",
        read_codex.CLIENT,
        read_codex.SOURCE,
        "CODEX_HOME",
        (".codex",),
        ("sessions", "archived_sessions"),
        read_codex.files,
    ),
)
BY_NAME = {client.name: client for client in CLIENTS}


class NotFound(ValueError):
    """A place that was named and is not there, or holds no logs."""


def places(client: Client, environment: Mapping[str, str], home: str) -> list[str]:
    """The client's directories that exist: those its variable lists, else the usual ones. Raises NotFound."""
    listed = [part.strip() for part in environment.get(client.variable, "").split(",") if part.strip()]
    if listed:
        found = [place for place in _once(os.path.expanduser(part) for part in listed) if os.path.isdir(place)]
        if not found:
            raise NotFound(f"{client.variable}={','.join(listed)}: no such directory; mend or unset the variable")
        return found
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    usual = (os.path.join(home, part.replace("$XDG_CONFIG_HOME", config)) for part in client.homes)
    return [place for place in _once(usual) if any(os.path.isdir(os.path.join(place, mark)) for mark in client.marks)]


def below(client: Client, root: str) -> list[str]:
    """The client's directories at a root that the user named: a home directory, or a directory of the client."""
    if os.path.isfile(root):
        return [root]
    homes = [os.path.join(root, part.replace("$XDG_CONFIG_HOME", ".config")) for part in client.homes]
    found = [place for place in homes if _holds(client, place)]
    if found:
        return list(_once(found))
    if _holds(client, root) or os.path.basename(os.path.normpath(root)) in client.marks:
        return [root]
    return []


def _holds(client: Client, place: str) -> bool:
    return any(os.path.isdir(os.path.join(place, mark)) for mark in client.marks)


def _once(paths: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            yield path


def files(client: Client, folders: Iterable[str]) -> list[str]:
    """The client's log files, each once."""
    found: dict[str, None] = {}
    for folder in folders:
        if os.path.isfile(folder):
            found[folder] = None
        else:
            found.update(dict.fromkeys(client.files(folder)))
    return list(found)


def found(
    names: Iterable[str], roots: Iterable[str], environment: Mapping[str, str], home: str
) -> Iterator[tuple[Client, list[str]]]:
    """The clients asked for (none: all) that have a place, and their log files. Raises NotFound."""
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name != "all" and name not in BY_NAME:
            raise NotFound(f"no client {name!r}; choose from {', '.join(BY_NAME)}, all")
    roots = list(roots)
    clients = CLIENTS if not chosen or "all" in chosen else [BY_NAME[name] for name in chosen]
    missing = {root for root in roots if not os.path.exists(root)}
    if missing:
        raise NotFound(f"{sorted(missing)[0]}: no such file or directory; check --root")
    held: set[str] = set()
    for client in clients:
        folders = []
        for root in roots:
            if there := below(client, root):
                held.add(root)
                folders += there
        if not roots:
            folders = places(client, environment, home)
        if folders:
            yield client, files(client, folders)
    if unused := [root for root in roots if root not in held]:
        marks = ", ".join(sorted({mark for client in clients for mark in client.marks}))
        raise NotFound(f"{unused[0]}: holds no client's logs (looked for {marks}, .claude, .codex); check --root")
