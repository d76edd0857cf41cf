"""Finds the project of a session: the git repository around its first working directory, or that directory.

An event carries the directory's basename and a short salted hash of its path, never the path. Projects with one
basename are distinguished by their parent directories.
"""

from __future__ import annotations

import functools
import ntpath
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokenops import events, fields, light, regular

LONGEST_NAME = 255  # as the log takes it
_LONGEST_PATH = 4096
_UNPRINTABLE = light.pattern("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PUNCTUATION = light.pattern(r"[^A-Za-z0-9]")
_WINDOWS = light.pattern(r"[A-Za-z]:[\\/]|\\\\")


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


_VERBATIM = light.pattern(r"(?:[\\/]{2}[?.]|[\\/]\?\?)[\\/](?:(?=[A-Za-z]:)|(UNC)[\\/])", re.IGNORECASE)
_DRIVE = light.pattern(r"([A-Za-z]):(?:[\\/]+|\Z)")
_MOUNTED = light.pattern(r"/+(?:mnt|cygdrive)/+([A-Za-z])(?:/+|\Z)")
_LINUX = light.pattern(r"[\\/]{2}(?:wsl\$|wsl\.localhost)[\\/][^\\/]+", re.IGNORECASE)
_PRIVATE = light.pattern(r"/private(?=/(?:tmp|var|etc)(?:/|\Z))")
_URI = light.pattern(r"(?:file://(?:localhost)?|vscode-remote://wsl(?:\+|%2b)[^/]+)(?=/)", re.IGNORECASE)
_URI_DRIVE = light.pattern(r"/(?=[A-Za-z]:(?:/|\Z))")


def spelling(path: str) -> str:
    """One spelling for all that name one folder: of Windows, of Linux in Windows (WSL), and of macOS.

    `c:\\a`, `\\\\?\\C:\\a` and `/mnt/c/a` are `C:\\a`; `\\\\wsl$\\Ubuntu\\a` is `/a`; `\\\\?\\UNC\\srv\\a` is
    `\\\\srv\\a`; `/private/tmp` is `/tmp`; `file:///c%3A/a` is `C:\\a`; `vscode-remote://wsl+Ubuntu/a` is `/a`.
    Half characters become "?".
    """
    path = path.encode(errors="replace").decode()
    if uri := _URI.match(path):
        import urllib.parse  # editors' sessions alone need it

        path = _URI_DRIVE.sub("", urllib.parse.unquote(path[uri.end() :], errors="replace"), count=1)
    if verbatim := _VERBATIM.match(path):
        path = ("\\\\" if verbatim[1] else "") + path[verbatim.end() :]
    if linux := _LINUX.match(path):
        path = path[linux.end() :].replace("\\", "/") or "/"
    if drive := _DRIVE.match(path) or _MOUNTED.match(path):
        return f"{drive[1].upper()}:{ntpath.normpath(chr(92) + path[drive.end() :])}"
    if path.startswith("\\\\"):
        return ntpath.normpath(path).rstrip("\\")
    if not path.startswith("/"):
        return path
    return _PRIVATE.sub("", posixpath.normpath(path).replace("//", "/", 1), count=1)


def canonical(path: str) -> str:
    """Where a folder is on this machine, links followed; its spelling if it is not here."""
    named = spelling(path)
    here = path
    if drive := _DRIVE.match(named):
        here = f"/mnt/{drive[1].lower()}/{named[3:].replace(chr(92), '/')}"
    elif named.startswith("/"):
        here = named
    return os.path.realpath(here) if os.path.isabs(here) and os.path.isdir(here) else named


_WORKTREE = light.pattern(r"(?P<root>.+?)[\\/]\.claude[\\/]worktrees[\\/][^\\/]+(?:[\\/]|\Z)")
_CODEX_WORKTREE = light.pattern(r".+?[\\/]\.codex[\\/]worktrees[\\/][^\\/]+[\\/](?P<name>[^\\/]+)")


def repository(path: str, roots: Mapping[str, str], salt: bytes) -> str:
    """The root of the git repository around a directory that still exists, else the directory itself.

    A linked worktree counts as its main repository, also after it was removed: if an earlier run knew the root (`roots`:
    hash of a directory -> root), or if it is where clients put their worktrees.
    """
    at = path
    while os.path.isabs(at) and os.path.isdir(path):
        marker = os.path.join(at, ".git")
        if os.path.isdir(marker):
            return at
        if os.path.isfile(marker):
            return _main_worktree(marker) or _main_submodule(marker) or at
        above = os.path.dirname(at)
        if above == at:
            break
        at = above
    root = roots.get(hash_path(path, salt), path)
    if root != path:
        return root
    if worktree := _WORKTREE.match(path):
        return worktree["root"]
    if worktree := _CODEX_WORKTREE.match(path):
        same = {root for root in roots.values() if split_path(root)[-1:] == [worktree["name"]]}
        return same.pop() if len(same) == 1 else worktree[0]
    return path


def _main_worktree(marker: str) -> str:
    """The repository whose worktree has this file `.git`; "" if it is not the file of a worktree that a repository lists.

    The file's text alone is not believed: it may come out of an archive and name the repository of another project.
    """
    gitdir = _path_in(marker, "gitdir:")
    if os.path.basename(os.path.dirname(gitdir)) != "worktrees":
        return ""
    listed, common = _path_in(os.path.join(gitdir, "gitdir")), _path_in(os.path.join(gitdir, "commondir"))
    if not common or not _is_same(common, os.path.dirname(os.path.dirname(gitdir))) or not _is_same(listed, marker):
        return ""
    name = os.path.basename(common)
    if name.startswith("."):  # `.git`, or a bare repository such as `.bare`
        return os.path.dirname(common)
    return _submodule_of(common) or common


def _submodule_of(common: str) -> str:
    """The folder of a submodule whose repository is `.git/modules/NAME` of another; "" if it is not one."""
    inside, marker, name = common.rpartition("/.git/modules/")
    folder = os.path.join(inside, name)
    return folder if marker and _is_same(_path_in(os.path.join(folder, ".git"), "gitdir:"), common) else ""


def _main_submodule(marker: str) -> str:
    """The submodule of the main repository, for the file `.git` of the same submodule in a worktree; "" for others."""
    folder = os.path.dirname(marker)
    at, above = folder, os.path.dirname(folder)
    while above != at:
        at, above = above, os.path.dirname(above)
        outer = os.path.join(at, ".git")
        if os.path.lexists(outer):
            main = _main_worktree(outer) if os.path.isfile(outer) else ""
            gitdir, inside = _path_in(marker, "gitdir:"), os.path.join(_path_in(outer, "gitdir:"), "modules", "")
            return os.path.join(main, os.path.relpath(folder, at)) if main and gitdir.startswith(inside) else ""
    return ""


def _path_in(path: str, prefix: str = "") -> str:
    """The absolute path that a small file of git holds, relative to its folder; "" if it holds none."""
    try:
        with open(path, encoding="utf-8", opener=regular.opener) as file:
            text = file.read(_LONGEST_PATH + 1)
    except (OSError, UnicodeDecodeError):
        return ""
    if len(text) > _LONGEST_PATH or not text.startswith(prefix) or "\0" in text:
        return ""
    return os.path.realpath(os.path.join(os.path.dirname(path), text.removeprefix(prefix).strip()))


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def hash_path(path: str, salt: bytes) -> str:
    """A short hash of a path that cannot be looked up without the salt."""
    return light.blake2b(path.encode(errors="replace"), key=salt[:64], digest_size=6).hexdigest()


_HASH = light.pattern(r"[0-9a-f]{12}\Z")
_NOT_IN_PATHS = light.pattern(r"[\x00-\x1f\x7f\ud800-\udfff]")


def is_path_of(key: object, path: object) -> bool:
    """Whether two values of a file can be a project's id and its path."""
    if type(key) is not str or type(path) is not str or not _HASH.match(key):
        return False
    return 0 < len(path) <= _LONGEST_PATH and not _NOT_IN_PATHS.search(path)


def label(path: str, depth: int = 1) -> str:
    """The last `depth` parts of a path, as a name: without control characters, and of a name's length."""
    name = "/".join(split_path(path)[-depth:]) or path
    if len(name) > len(".git") and name.endswith(".git"):
        name = name.removesuffix(".git")  # a bare repository
    name = _UNPRINTABLE.sub("?", name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def _whole_characters(name: str) -> str:
    """A name with "?" in the place of bytes of a path that are not UTF-8, and of half characters."""
    return name if name.isascii() else name.encode(errors="replace").decode()


def labels(paths: Mapping[str, str]) -> dict[str, str]:
    """A name for each project (id -> path): its basename, with as many parents as tell it from the others."""
    names = {path: label(path) for path in paths.values()}
    for depth in range(2, 40):
        shared = _shared_names(names.values())
        if not shared:
            break
        names = {path: label(path, depth) if name in shared else name for path, name in names.items()}
    return {key: names[path] for key, path in paths.items()}


def _shared_names(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


class ProjectResolver:
    """Finds the projects of sessions in one run, and remembers their paths."""

    def __init__(self, salt: bytes, roots: Mapping[str, str] | None = None) -> None:
        self.salt = salt
        self.roots = roots or {}  # `paths` of earlier runs
        self.paths: dict[str, str] = {}  # id of a project, or of a directory in it, -> path of the project
        self._roots: dict[str, str] = {}  # directory -> its repository
        self._blocks: dict[tuple[str, ...], dict[str, Any]] = {}

    def attribution(self, source: str, client: str, root: str, folder: str, session: str) -> dict[str, Any]:
        """The attribution block of a session. `folder` names the project if no working directory is known."""
        names = (source, client, root, folder, session)
        block = self._blocks.get(names)
        if block is None:
            block = self._blocks[names] = self._block(*names)
        return block.copy()

    def _block(self, source: str, client: str, root: str, folder: str, session: str) -> dict[str, Any]:
        block: dict[str, Any] = {"source": source}
        if source in events.REVISIONS:
            block["revision"] = events.REVISIONS[source]
        block["client"] = client
        path = self._repository(root) if root else folder.encode(errors="replace").decode()
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
        root = self._roots.get(directory)
        if root is None:
            here = canonical(directory)
            root = spelling(repository(here, self.roots, self.salt))
            self._roots[directory] = root
            named = spelling(here)
            if named != root:
                self.paths[hash_path(named, self.salt)] = root  # for when a worktree is gone
        return root


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
