"""The table of clients, where their files lie, and how a run over all of them becomes one stream of events.

A client's module `read_*` has SOURCE, CLIENT, `files(home)`, which gives the files of one of its directories, and
`read(path, cursor, places, reject)`, which gives the events that a file holds from the cursor on. It may have
`claims(path, head)`: whether a file is one of this client's, by its name and first bytes, and `hints(home)`: sentences
about files that hold no counts. A new client is such a module and a line in CLIENTS.
"""

from __future__ import annotations

import glob
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import NamedTuple


class Client(NamedTuple):
    """One client's place in the table."""

    name: str  # as given to tok-read
    client: str  # as in the record
    source: str
    module: str  # of this package; imported when there is something to read
    variables: tuple[tuple[str, str], ...]  # environment variable, and where below the directory it names the files lie
    homes: tuple[str, ...]  # below the home directory; $XDG_CONFIG_HOME and $XDG_DATA_HOME may begin one
    marks: tuple[str, ...]  # what a directory of this client holds; * stands for any characters
    gives: str = "turns"  # or what it adds up instead
    caveat: str = ""

    def reader(self) -> ModuleType:
        """The module that reads this client."""
        return importlib.import_module(f"tokenops.{self.module}")


_HEAD = 1 << 18

CLIENTS = (
    Client(
        "claude",
        "claude-code",
        "claude-code-jsonl",
        "read_claude",
        (("CLAUDE_CONFIG_DIR", ""),),
        ("$XDG_CONFIG_HOME/claude", ".claude"),
        ("projects",),
        caveat="in many versions it writes placeholders for input and output tokens (0, 1, or the count when the answer "
        "began), so both can be far too low; its cache counts are right. They are shown as recorded: only the wire has "
        "the true ones.",
    ),
    Client(
        "codex",
        "codex",
        "codex-jsonl",
        "read_codex",
        (("CODEX_HOME", ""),),
        (".codex",),
        ("sessions", "archived_sessions"),
    ),
    Client(
        "gemini",
        "gemini-cli",
        "gemini-cli",
        "read_gemini",
        (("GEMINI_DATA_DIR", ""), ("GEMINI_CLI_HOME", ".gemini")),
        (".gemini",),
        ("tmp",),
    ),
)
BY_NAME = {client.name: client for client in CLIENTS}


class NotFound(ValueError):
    """A place that was named and is not there, or holds no logs."""


def places(client: Client, environment: Mapping[str, str], home: str) -> list[str]:
    """The client's directories that exist: those its variable lists, else the usual ones. Raises NotFound."""
    for variable, inner in client.variables:
        listed = [part.strip() for part in environment.get(variable, "").split(",") if part.strip()]
        if listed:
            found = list(_once(filter(os.path.exists, (_within(os.path.expanduser(part), inner) for part in listed))))
            if not found:
                raise NotFound(f"{variable}={','.join(listed)}: no such directory; mend or unset the variable")
            return found
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    data = environment.get("XDG_DATA_HOME") or os.path.join(home, ".local/share")
    return [place for place in _once(_usual(client, home, config, data)) if _holds(client, place)]


def _within(place: str, inner: str) -> str:
    """The client's directory below a place that a variable names, or the place where it is that directory itself."""
    below = os.path.join(place, inner) if inner else place
    return below if os.path.exists(below) else place


def _usual(client: Client, home: str, config: str, data: str) -> Iterator[str]:
    for part in client.homes:
        yield os.path.join(home, part.replace("$XDG_CONFIG_HOME", config).replace("$XDG_DATA_HOME", data))


def below(client: Client, root: str) -> list[str]:
    """The client's directories at a root that the user named: a home directory, or a directory of the client."""
    if os.path.isfile(root):
        return [root]
    found = [place for place in _usual(client, root, ".config", ".local/share") if _holds(client, place)]
    if found:
        return list(_once(found))
    name = os.path.basename(os.path.normpath(root))
    if _holds(client, root) or any(name == mark for mark in client.marks if "*" not in mark):
        return [root]
    return []


def _holds(client: Client, place: str) -> bool:
    for mark in client.marks:
        inner = os.path.join(glob.escape(place), mark) if "*" in mark else os.path.join(place, mark)
        if glob.glob(inner) if "*" in mark else os.path.exists(inner):
            return True
    return False


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
            found.update(dict.fromkeys(client.reader().files(folder)))
    return list(found)


def hints(client: Client, folders: Iterable[str]) -> Iterator[str]:
    """What the user should know of a client's files that hold no counts."""
    tell = getattr(client.reader(), "hints", None)
    if tell is not None:
        for folder in folders:
            if os.path.isdir(folder):
                yield from tell(folder)


def found(
    names: Iterable[str], roots: Iterable[str], environment: Mapping[str, str], home: str
) -> Iterator[tuple[Client, list[str]]]:
    """The clients asked for (none: all) that have a place, and their log files. Raises NotFound."""
    for client, folders in located(names, roots, environment, home):
        yield client, files(client, folders)


def located(
    names: Iterable[str], roots: Iterable[str], environment: Mapping[str, str], home: str
) -> Iterator[tuple[Client, list[str]]]:
    """The clients asked for (none: all) that have a place, and their directories. Raises NotFound."""
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name != "all" and name not in BY_NAME:
            raise NotFound(f"no client {name!r}; choose from {', '.join(BY_NAME)}, all")
    roots = list(roots)
    clients = list(CLIENTS) if not chosen or "all" in chosen else [BY_NAME[name] for name in chosen]
    missing = {root for root in roots if not os.path.exists(root)}
    if missing:
        raise NotFound(f"{sorted(missing)[0]}: no such file or directory; check --root")
    held = {root: [one for one in clients if below(one, root)] for root in roots if not os.path.isfile(root)}
    held |= {root: clients if len(clients) == 1 else _owner(clients, root) for root in roots if os.path.isfile(root)}
    for client in clients:
        if roots:
            folders = [place for root in roots if client in held[root] for place in below(client, root)]
        else:
            folders = places(client, environment, home)
        if folders:
            yield client, folders
    for root in roots:
        if not held[root] and os.path.isfile(root):
            raise NotFound(
                f"{root}: no client's log that is known by its look; name the client: tok-read CLIENT --root {root}"
            )
        if not held[root]:
            looked = ", ".join(sorted({mark for client in clients for mark in (*client.marks, *client.homes)}))
            raise NotFound(f"{root}: holds no client's logs (looked for {looked}); check --root")


def _owner(clients: Iterable[Client], path: str) -> list[Client]:
    """The client whose file this is, by its look."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    for client in clients:
        claims = getattr(client.reader(), "claims", None)
        if claims is not None and claims(path, head):
            return [client]
    return []
