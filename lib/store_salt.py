"""Gives a log another log's salt, so that one project or account has one id in both.

    salt     the secret with which paths and accounts are hashed now
    salts    each secret that the log had, the first one first; only after a pairing

An id can be made anew only from the path or the name that it is the hash of. Both files are written before the first day is,
so a pairing that was interrupted is finished by the same command; a second one finds nothing to do.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import orjson

from tokenops import config, datadir, projects, regular, store_files, store_projects, store_rules

# As `datadir.salt` makes them, and what people may have put there.
_SALT = re.compile(rb"[!-~]{16,128}\Z")
_ID = re.compile(rb'("(project_id|account)"\s*:\s*")([0-9a-f]{12})(?=")')


class Paired(NamedTuple):
    """What a pairing did: days rewritten, ids replaced in them, and what stays as it is because it cannot be made anew.

    `projects` and `accounts` count ids in events; `directories` those of directories that were in a project once, such as
    removed worktrees; `damaged` are the archives that could not be read.
    """

    days: int
    replaced: int
    projects: int
    accounts: int
    directories: int
    damaged: tuple[str, ...]


def secret_of(content: bytes) -> bytes:
    """The salt in the content of a file. Raises ValueError, which does not quote it."""
    salt = content.strip()
    if not _SALT.match(salt):
        raise ValueError("it is not a salt; write one with tok-log pair --export on the other machine")
    return salt


def pair(folder: str, salt: bytes, names: Iterable[str] = ()) -> Paired:
    """Give a log this salt, and its events the ids that it makes. `names`: of vendors' accounts. Raises Unusable, OSError.

    The caller holds the lock of tok-sync, which reads the salt when it begins.
    """
    with datadir.lock(folder):
        current = datadir.salt(folder)
        if current != salt:
            _check_rules(folder)
            salts = [*datadir.salts(folder), *([current] if current else []), salt]
            datadir.replace(os.path.join(folder, datadir.SALTS), b"".join(each + b"\n" for each in dict.fromkeys(salts)))
            datadir.replace(os.path.join(folder, "salt"), salt)
        older = [each for each in datadir.salts(folder) if each != salt]
        paths = store_projects.project_paths(folder)
        new_ids = {
            projects.hash_path(name, old): projects.hash_path(name, salt)
            for old in older
            for name in {*paths.values(), *names}
        }
        # Both ids have the path until all days are rewritten.
        _write_projects(folder, paths | {new_ids[key]: path for key, path in paths.items() if key in new_ids})
    current_ids = {*new_ids.values(), *(projects.hash_path(name, salt) for name in {*paths.values(), *names})}
    days = replaced = 0
    unknown: dict[bytes, set[bytes]] = {b"project_id": set(), b"account": set()}
    damaged: list[str] = []
    for name in [day.name for day in store_files.days(folder)]:
        with datadir.lock(folder):
            paths_of_day = [path for day in store_files.days(folder, name, name) for path in day.paths]
            count = sum(_rewrite(path, new_ids, current_ids, unknown, damaged) for path in paths_of_day)
        days, replaced = days + bool(count), replaced + count
    with datadir.lock(folder):
        left = {key: path for key, path in store_projects.project_paths(folder).items() if key not in new_ids}
        _write_projects(folder, left)
    directories = sum(key != projects.hash_path(path, salt) for key, path in left.items())
    counts = (len(unknown[b"project_id"]), len(unknown[b"account"]), directories)
    return Paired(days, replaced, *counts, tuple(damaged))


def _check_rules(folder: str) -> None:
    """Refuse if what was forgotten would come back: the path of a forgotten project is forgotten, too. Raises Unusable."""
    numbers = [str(rule.number) for rule in store_rules.load(folder).rules if rule.projects]
    if numbers:
        why = f"rules {', '.join(numbers)} of tok-log forget name projects by ids that cannot be made anew"
        remedy = "lift them (tok-log forget --undo N), pair, and forget these projects again"
        raise config.Unusable(os.path.join(folder, store_rules.FILE), why, remedy)


def _write_projects(folder: str, paths: Mapping[str, str]) -> None:
    if paths != store_projects.project_paths(folder):
        datadir.replace(store_projects.projects_file(folder), orjson.dumps(paths, option=orjson.OPT_SORT_KEYS))


def _rewrite(
    path: str, new_ids: Mapping[str, str], current_ids: set[str], unknown: Mapping[bytes, set[bytes]], damaged: list[str]
) -> int:
    """Replace the ids in a file of a day; how many. Those that are neither old nor current are added to the unknown ones."""
    count = 0

    def replacement(match: re.Match[bytes]) -> bytes:
        nonlocal count
        name = match[3].decode()
        if name in new_ids:
            count += 1
            return match[1] + new_ids[name].encode()
        if name not in current_ids:
            unknown[match[2]].add(match[3])
        return match[0]

    is_packed = path.endswith(".gz")
    with open(path, "rb", opener=regular.opener) as file:
        content = file.read()
    try:
        before = gzip.decompress(content) if is_packed else content
    except store_files.DAMAGED:
        damaged.append(path)
        return 0
    after = _ID.sub(replacement, before)
    if count:
        datadir.replace(path, gzip.compress(after, 6, mtime=0) if is_packed else after)
    return count
