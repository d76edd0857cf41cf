"""Finds the clients' directories and files on this machine, and the client that a file belongs to."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenops import read_lines, regular
from tokenops.read_clients import BY_NAME, CLIENTS, STREAMS, UNCOUNTED, Client, Uncounted

_HEAD = 1 << 18  # bytes by which a file is recognised
# Source -> its section of `vendor_usage` in config.yaml. The original's name for the stats cache was claude_code.
SECTIONS = {
    client.source: {"claude-code-stats-cache": "claude_code"}.get(client.source, client.source.replace("-", "_"))
    for client in CLIENTS
    if client not in STREAMS
}
ODD = read_lines.ODD
OnProblem = Callable[[str], None]


class NotFound(ValueError):
    """A directory or file that the user named does not exist, or holds no logs."""


def clients_without_counts(environment: Mapping[str, str], home: str) -> Iterator[Uncounted]:
    """The clients here that keep no counts."""
    for client in UNCOUNTED:
        if any(map(os.path.isdir, _expand(client.homes, environment, home))):
            yield client


def _expand(homes: Iterable[str], environment: Mapping[str, str], home: str) -> Iterator[str]:
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    data = environment.get("XDG_DATA_HOME") or os.path.join(home, ".local/share")
    for part in homes:
        if part.startswith("$"):
            yield part.replace("$XDG_CONFIG_HOME", config).replace("$XDG_DATA_HOME", data)
        else:
            yield os.path.normpath(os.path.join(home, part))


def settings(source: str, vendor_usage: object) -> Mapping[str, Any]:
    """The section of a source that is read in the configuration's `vendor_usage`."""
    section = vendor_usage.get(SECTIONS.get(source, ""), {}) if isinstance(vendor_usage, Mapping) else {}
    return section if isinstance(section, Mapping) else {}


def is_enabled(source: str, vendor_usage: object) -> bool:
    """Whether commands that read all sources read this one: unless it was switched off."""
    return settings(source, vendor_usage).get("enabled") is not False


def directories(client: Client, environment: Mapping[str, str], home: str) -> list[str]:
    """The client's directories that exist: those its variables list, else the usual ones. Raises NotFound."""
    named: dict[str | None, list[str]] = {}  # by the home they replace; None: all of them
    for variable, inner, *instead in client.variables:
        listed = [_client_directory(os.path.expanduser(part), inner) for part in _listed_paths(environment, variable)]
        existing = list(filter(os.path.exists, listed))
        if listed and not existing and instead != [""]:
            value = ",".join(_listed_paths(environment, variable))
            raise NotFound(f"{variable}={value}: no such directory; correct or unset the variable")
        if existing:
            named.setdefault(instead[0] if instead else None, existing)
    usual: list[str] = []
    for part, folder in zip(client.homes, _expand(client.homes, environment, home), strict=True):
        usual += named.get(part) or ([folder] if _holds(client, folder) else [])
    return list(_distinct([*named.get(None, usual), *named.get("", [])]))


def usual_folders(client: Client, environment: Mapping[str, str], home: str) -> list[str]:
    """Where a client's directory is looked for: those that its variables list, else the usual ones."""
    named = [os.path.expanduser(path) for variable, *_ in client.variables for path in _listed_paths(environment, variable)]
    return list(dict.fromkeys(named or _expand(client.homes, environment, home)))


def client_of(name: str) -> str:
    """The name in records of a client, which may also be given as tok-read's: `claude` is `claude-code`."""
    return BY_NAME[name].client if name in BY_NAME else name


def reader_name(name: str) -> str:
    """The name for tok-read of a client, which may also be given as in records: `claude-code` is `claude`."""
    return name if name in BY_NAME else next((client.name for client in CLIENTS if client.client == name), name)


def _listed_paths(environment: Mapping[str, str], variable: str) -> list[str]:
    return [part.strip() for part in environment.get(variable, "").split(",") if part.strip()]


def _client_directory(folder: str, inner: str) -> str:
    """The client's directory below one that a variable names, or that one itself if there is none below it."""
    below = os.path.join(folder, inner) if inner else folder
    return below if os.path.exists(below) else folder


def configured_directories(client: Client, environment: Mapping[str, str], vendor_usage: object) -> list[str]:
    """The client's directories at the root that the configuration names; none if a variable is set. Raises NotFound."""
    section = settings(client.source, vendor_usage)
    root = os.path.expanduser(str(section.get("root") or section.get("path") or ""))
    if not root or any(_listed_paths(environment, variable) for variable, *_ in client.variables):
        return []
    if not os.path.exists(root):
        raise NotFound(f"vendor_usage.{SECTIONS[client.source]}: {root}: no such file or directory; correct or remove it")
    return directories_below(client, root)


def directories_below(client: Client, root: str) -> list[str]:
    """The client's directories at a root that the user named: a home directory, or a directory of the client."""
    if os.path.isfile(root) or not client.homes:
        return [root]
    if inside := [folder for folder in _expand(client.homes, {}, root) if _holds(client, folder)]:
        return list(_distinct(inside))
    name = os.path.basename(os.path.normpath(root))
    if _holds(client, root) or any(name == mark for mark in client.marks if "*" not in mark):
        return [root]
    return []


def _holds(client: Client, folder: str) -> bool:
    for mark in client.marks:
        inner = os.path.join(glob.escape(folder), mark) if "*" in mark else os.path.join(folder, mark)
        if glob.glob(inner) if "*" in mark else os.path.exists(inner):
            return True
    return False


def _distinct(paths: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            yield path


def files(client: Client, folders: Iterable[str], on_problem: OnProblem = lambda why: None) -> list[str]:
    """The client's log files, each once. `on_problem` gets a sentence for each folder whose files cannot be listed."""
    paths: dict[str, None] = {}
    with read_lines.listing_problems() as problems:
        for folder in folders:
            if os.path.isfile(folder):
                paths[folder] = None
            else:
                paths.update(dict.fromkeys(client.reader().files(folder)))
    for folder, why in problems.items():
        on_problem(f"{folder}: {why}; its files are not read")
    return list(paths)


def caveat(client: Client, paths: Sequence[str]) -> str:
    """What the client's logs lack, if these files do; else ""."""
    return client.caveat if client.caveat and client.reader().lacks(paths) else ""


def hints(client: Client, folders: Iterable[str]) -> Iterator[str]:
    """What the user should know of a client's files that hold no counts."""
    for folder in folders:
        if os.path.isdir(folder):
            yield from client.reader().hints(folder)


def with_files(
    names: Iterable[str],
    roots: Iterable[str],
    environment: Mapping[str, str],
    home: str,
    on_problem: OnProblem = lambda why: None,
    vendor_usage: object = None,
) -> Iterator[tuple[Client, list[str]]]:
    """The chosen clients (no names: all) that have a directory, and their log files. Raises NotFound."""
    for client, folders in with_directories(names, roots, environment, home, on_problem, vendor_usage):
        yield client, files(client, folders, on_problem)


def with_directories(
    names: Iterable[str],
    roots: Iterable[str],
    environment: Mapping[str, str],
    home: str,
    on_problem: OnProblem = lambda why: None,
    vendor_usage: object = None,
) -> Iterator[tuple[Client, list[str]]]:
    """The chosen clients (no names: all) that have a directory, and their directories. Raises NotFound.

    If all are chosen, a wrong directory of one does not stop the others: `on_problem` gets it as a sentence. Those that
    the configuration's `vendor_usage` switches off are left out, or looked for at the root that it names.
    """
    chosen = list(dict.fromkeys(map(reader_name, names)))
    for name in chosen:
        if name != "all" and name not in BY_NAME:
            from tokenops import show

            instead = next((f"{name}: {client.instead}" for client in UNCOUNTED if client.name == name), "")
            hint = show.meant(name, BY_NAME)
            raise NotFound(instead or f"{name!r} is not a client; choose from {', '.join(BY_NAME)}, all{hint}")
    roots = list(roots)
    every = not chosen or "all" in chosen
    clients = [client for client in CLIENTS if roots or is_enabled(client.source, vendor_usage)]
    clients = clients if every else [BY_NAME[name] for name in chosen]
    if roots:
        yield from _at_roots(clients, roots, every)
        return
    for client in clients:
        try:
            folders = configured_directories(client, environment, vendor_usage) or directories(client, environment, home)
        except NotFound as error:
            if not every:
                raise
            on_problem(str(error))
            continue
        if folders:
            yield client, folders


def _at_roots(clients: list[Client], roots: list[str], every: bool) -> Iterator[tuple[Client, list[str]]]:
    """The clients with directories or files at roots that the user named. Raises NotFound."""
    missing = {root for root in roots if not os.path.exists(root)}
    if missing:
        raise NotFound(f"{sorted(missing)[0]}: no such file or directory; check --root")
    candidates = [client for client in clients if client.homes or not every]  # the others only if they are named
    owners = {}
    for root in roots:
        if os.path.isfile(root):
            owners[root] = clients if len(clients) == 1 else _owner(clients, root)
        else:
            owners[root] = [client for client in candidates if directories_below(client, root)]
    for client in clients:
        if folders := [folder for root in roots if client in owners[root] for folder in directories_below(client, root)]:
            yield client, folders
    for root in roots:
        if not owners[root] and os.path.isfile(root):
            raise NotFound(f"{root}: not recognised as any client's log; name the client: tok-read CLIENT --root {root}")
        if not owners[root]:
            marks = ", ".join(sorted({mark for client in clients for mark in (*client.marks, *client.homes)}))
            raise NotFound(f"{root}: holds no client's logs (looked for {marks}); check --root")


def streams(names: Iterable[str]) -> list[Client]:
    """The formats of those names (none: all) that can be read from standard input. Raises NotFound."""
    by_name = {client.name: client for client in STREAMS}
    chosen = [name for name in dict.fromkeys(names) if name != "all"]
    if wrong := [name for name in chosen if name not in by_name]:
        raise NotFound(f"{wrong[0]} -: standard input is read as {', '.join(by_name)}; to read files, leave - out")
    return [by_name[name] for name in chosen] or list(STREAMS)


def _owner(clients: Iterable[Client], path: str) -> list[Client]:
    """The client of a file, by its name and first bytes."""
    with open(path, "rb", opener=regular.opener) as file:
        head = file.read(_HEAD)
    return next(([client] for client in clients if client.reader().claims(path, head)), [])


def live_sizes(session: str, environment: Mapping[str, str], home: str, by_file: bool) -> dict[str, dict[str, Any]]:
    """Turn -> its chain, parent and sizes, read now from Claude Code's files of a session; nothing is kept. Raises OSError.

    Causes have the names of files that tools read and wrote, or of all programs that shells ran.
    """
    from tokenops import read_claude_context, read_context

    cause_of = read_context.file_cause if by_file else read_context.program_cause
    sizes: dict[str, dict[str, Any]] = {}
    for _, paths in with_files(("claude",), (), environment, home):
        for path in paths:
            folder, name = os.path.split(path)
            if name != f"{session}.jsonl" and f"/{session}/" not in f"{folder}/":
                continue
            for turn in read_claude_context.contexts_before(path, float("inf"), cause_of).turns.values():
                texts = {"turn": turn.name, "parent": turn.parent, "chain": turn.chain, "event": turn.event}
                texts = {field: text for field, text in texts.items() if text}
                sizes[turn.name] = {**texts, "entered": turn.entered, "produced": turn.produced}
    return sizes
