"""Finds the project of a session: the git repository around its first working directory, or that directory.

An event carries the directory's basename and a short salted hash of its path, never the path. Projects with one
basename are distinguished by their parent directories.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokenops import events, fields

_PUNCTUATION = re.compile(r"[^A-Za-z0-9]")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def split_path(path: str) -> list[str]:
    """The parts of an absolute path of this or another system, root left out."""
    return [part for part in re.split(r"[\\/]" if _WINDOWS.match(path) else "/", path) if part]


@functools.lru_cache(4096)
def ancestor_encoded(path: str, folder: str) -> str:
    """The directory at or above `path` whose name, with all punctuation made "-", is `folder`; "" if none is."""
    while folder and len(path) >= len(folder):
        if _PUNCTUATION.sub("-", path) == folder:
            return path
        path = path[: max(path.rfind("/"), path.rfind("\\"), 0)]
    return ""


def repository(path: str) -> str:
    """The root of the git repository around a directory that still exists, else the directory itself.

    A linked worktree counts as its main repository.
    """
    at = path
    while os.path.isabs(at):
        marker = os.path.join(at, ".git")
        if os.path.isdir(marker):
            return at
        if os.path.isfile(marker):
            return _main_worktree(marker) or at
        above = os.path.dirname(at)
        if above == at or not os.path.isdir(path):
            break
        at = above
    return path


def _main_worktree(marker: str) -> str:
    try:
        with open(marker, encoding="utf-8") as file:
            text = file.read(4096)
    except (OSError, UnicodeDecodeError):
        return ""
    root, marker_text, _ = text.removeprefix("gitdir:").strip().partition("/.git/worktrees/")
    return root if marker_text and os.path.isabs(root) else ""


def hash_path(path: str, salt: bytes) -> str:
    """A short hash of a path that cannot be looked up without the salt."""
    return hashlib.blake2b(path.encode(errors="replace"), key=salt[:64], digest_size=6).hexdigest()


_HASH = re.compile(r"[0-9a-f]{12}\Z")
_NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def is_path_of(key: object, path: object) -> bool:
    """Whether two values of a file can be a project's id and its path."""
    if type(key) is not str or type(path) is not str or not _HASH.match(key):
        return False
    return 0 < len(path) <= _LONGEST_PATH and not _NOT_IN_PATHS.search(path)


_LONGEST_PATH = 4096


def label(path: str, depth: int = 1) -> str:
    """The last `depth` parts of a path."""
    return "/".join(split_path(path)[-depth:]) or path


def _whole_characters(name: str) -> str:
    """A name with "?" in the place of bytes of a path that are not UTF-8, and of half characters."""
    return name if name.isascii() else name.encode(errors="replace").decode()


def labels(paths: Mapping[str, str]) -> dict[str, str]:
    """A name for each project (id -> path): its basename, with as many parents as tell it from the others."""
    names = {key: label(path) for key, path in paths.items()}
    for depth in range(2, 40):
        shared = _shared_names(names.values())
        if not shared:
            break
        names = {key: label(paths[key], depth) if name in shared else name for key, name in names.items()}
    return names


def _shared_names(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


class ProjectResolver:
    """Finds the projects of sessions in one run, and remembers their paths."""

    def __init__(self, salt: bytes) -> None:
        self.salt = salt
        self.paths: dict[str, str] = {}
        self._roots: dict[str, str] = {}  # directory -> its repository

    def attribution(self, source: str, client: str, root: str, folder: str, session: str) -> dict[str, Any]:
        """The attribution block of a session. `folder` names the project if no working directory is known."""
        block: dict[str, Any] = {"source": source}
        if source in events.REVISIONS:
            block["revision"] = events.REVISIONS[source]
        block["client"] = client
        path = self._repository(root) if root else folder
        agent = client
        if path:
            key = hash_path(path, self.salt)
            self.paths[key] = path
            block["project"] = fields.fit("project", _whole_characters(label(path)))
            block["project_id"] = key
            agent = f"{client}:{block['project']}"
        block["agent_id"] = agent
        if session:
            session = fields.fit("session_id", session)
            block["workflow_id"] = f"{agent}:{session}"
            block["session_id"] = session
        return block

    def _repository(self, directory: str) -> str:
        if directory not in self._roots:
            self._roots[directory] = repository(directory)
        return self._roots[directory]


def relabel(event: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The event with its project's name as in `names` (by project_id), in the ids made of it too."""
    name = names.get(event.get("project_id", ""))
    if name is None or name == event.get("project"):
        return event
    agent = f"{event['client']}:{name}"
    changed = {**event, "project": name, "agent_id": agent}
    if "session_id" in event:
        changed["workflow_id"] = f"{agent}:{event['session_id']}"
    return changed
