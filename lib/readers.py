"""Where the clients' files lie on this machine, and whose file a file is."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tokenops.read_clients import BY_NAME, CLIENTS, STREAMS, UNCOUNTED, Client, Uncounted

_HEAD = 1 << 18  # of a file that is known by its look
# Source -> its section of `vendor_usage` in config.yaml. The original's name for the stats cache was claude_code.
SECTIONS = {
    client.source: {"claude-code-stats-cache": "claude_code"}.get(client.source, client.source.replace("-", "_"))
    for client in CLIENTS
    if client not in STREAMS
}


class NotFound(ValueError):
    """A place that was named and is not there, or holds no logs."""


def uncounted(environment: Mapping[str, str], home: str) -> Iterator[Uncounted]:
    """The clients here that keep no counts."""
    for client in UNCOUNTED:
        if any(map(os.path.isdir, _expanded(client.homes, environment, home))):
            yield client


def _expanded(homes: Iterable[str], environment: Mapping[str, str], home: str) -> Iterator[str]:
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    data = environment.get("XDG_DATA_HOME") or os.path.join(home, ".local/share")
    for part in homes:
        if part.startswith("$"):
            yield part.replace("$XDG_CONFIG_HOME", config).replace("$XDG_DATA_HOME", data)
        else:
            yield os.path.normpath(os.path.join(home, part))


def settings(source: str, vendor_usage: object) -> Mapping[str, Any]:
    """What `vendor_usage` of the configuration says of a source that is read."""
    about = vendor_usage.get(SECTIONS.get(source, ""), {}) if isinstance(vendor_usage, Mapping) else {}
    return about if isinstance(about, Mapping) else {}


def enabled(source: str, vendor_usage: object) -> bool:
    """Whether a source is read by those who read all: unless it was switched off."""
    return settings(source, vendor_usage).get("enabled") is not False


def places(client: Client, environment: Mapping[str, str], home: str) -> list[str]:
    """The client's directories that exist: those its variables list, else the usual ones. Raises NotFound."""
    named: dict[str | None, list[str]] = {}  # by the home they stand for; None: for all of them
    for variable, inner, *instead in client.variables:
        found = [_within(os.path.expanduser(part), inner) for part in _listed(environment, variable)]
        there = list(filter(os.path.exists, found))
        if found and not there and instead != [""]:
            listed = ",".join(_listed(environment, variable))
            raise NotFound(f"{variable}={listed}: no such directory; mend or unset the variable")
        if there:
            named.setdefault(instead[0] if instead else None, there)
    usual: list[str] = []
    for part, place in zip(client.homes, _expanded(client.homes, environment, home), strict=True):
        usual += named.get(part) or ([place] if _holds(client, place) else [])
    return list(_once([*named.get(None, usual), *named.get("", [])]))


def _listed(environment: Mapping[str, str], variable: str) -> list[str]:
    return [part.strip() for part in environment.get(variable, "").split(",") if part.strip()]


def _within(place: str, inner: str) -> str:
    """The client's directory below a place that a variable names, or the place where it is that directory itself."""
    below = os.path.join(place, inner) if inner else place
    return below if os.path.exists(below) else place


def configured(client: Client, environment: Mapping[str, str], vendor_usage: object) -> list[str]:
    """The client's directories at the root that the configuration names, where no variable names one. Raises NotFound."""
    about = settings(client.source, vendor_usage)
    root = os.path.expanduser(str(about.get("root") or about.get("path") or ""))
    if not root or any(_listed(environment, variable) for variable, *_ in client.variables):
        return []
    if not os.path.exists(root):
        raise NotFound(f"vendor_usage.{SECTIONS[client.source]}: {root}: no such file or directory; mend or remove it")
    return below(client, root)


def below(client: Client, root: str) -> list[str]:
    """The client's directories at a root that the user named: a home directory, or a directory of the client."""
    if os.path.isfile(root) or not client.homes:
        return [root]
    found = [place for place in _expanded(client.homes, {}, root) if _holds(client, place)]
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
    for folder in folders:
        if os.path.isdir(folder):
            yield from client.reader().hints(folder)


Tell = Callable[[str], None]


def found(
    names: Iterable[str],
    roots: Iterable[str],
    environment: Mapping[str, str],
    home: str,
    tell: Tell = lambda why: None,
    vendor_usage: object = None,
) -> Iterator[tuple[Client, list[str]]]:
    """The clients asked for (none: all) that have a place, and their log files. Raises NotFound."""
    for client, folders in located(names, roots, environment, home, tell, vendor_usage):
        yield client, files(client, folders)


def located(
    names: Iterable[str],
    roots: Iterable[str],
    environment: Mapping[str, str],
    home: str,
    tell: Tell = lambda why: None,
    vendor_usage: object = None,
) -> Iterator[tuple[Client, list[str]]]:
    """The clients asked for (none: all) that have a place, and their directories. Raises NotFound.

    Where all are asked for, a place of one that is wrong does not stop the others: `tell` is told of it; and those that
    the configuration's `vendor_usage` switches off are left out, or looked for at the root that it names.
    """
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name != "all" and name not in BY_NAME:
            instead = next((f"{name}: {one.instead}" for one in UNCOUNTED if one.name == name), "")
            raise NotFound(instead or f"no client {name!r}; choose from {', '.join(BY_NAME)}, all")
    roots = list(roots)
    every = not chosen or "all" in chosen
    clients = [one for one in CLIENTS if roots or enabled(one.source, vendor_usage)]
    clients = clients if every else [BY_NAME[name] for name in chosen]
    missing = {root for root in roots if not os.path.exists(root)}
    if missing:
        raise NotFound(f"{sorted(missing)[0]}: no such file or directory; check --root")
    placed = [one for one in clients if one.homes or not every]
    held = {root: [one for one in placed if below(one, root)] for root in roots if not os.path.isfile(root)}
    held |= {root: clients if len(clients) == 1 else _owner(clients, root) for root in roots if os.path.isfile(root)}
    for client in clients:
        if roots:
            folders = [place for root in roots if client in held[root] for place in below(client, root)]
        else:
            try:
                folders = configured(client, environment, vendor_usage) or places(client, environment, home)
            except NotFound as error:
                if not every:
                    raise
                tell(str(error))
                continue
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


def streams(names: Iterable[str]) -> list[Client]:
    """The formats of those names (none: all) that can be read from standard input. Raises NotFound."""
    known = {client.name: client for client in STREAMS}
    chosen = [name for name in dict.fromkeys(names) if name != "all"]
    if wrong := [name for name in chosen if name not in known]:
        raise NotFound(f"{wrong[0]} -: standard input is read as {', '.join(known)}; leave - out to read files")
    return [known[name] for name in chosen] or list(STREAMS)


def _owner(clients: Iterable[Client], path: str) -> list[Client]:
    """The client whose file this is, by its look."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    for client in clients:
        if client.reader().claims(path, head):
            return [client]
    return []
