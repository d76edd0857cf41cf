"""Answers what Claude Code's settings cost, and whether a setting that was changed has helped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tokenops.answers import OPEN, ignore, thresholds

if TYPE_CHECKING:
    from tokenops.coach_setup import Advice, Applied, MemoryFile
    from tokenops.events import Event, Filter
    from tokenops.jsonl import OnBadLine
    from tokenops.session import Log

# Files that Claude Code puts into each context: the user's, and those of a project (code.claude.com/docs/en/memory, 2026-11).
_USERS, _PROJECTS = "CLAUDE.md", ("CLAUDE.md", "CLAUDE.local.md", os.path.join(".claude", "CLAUDE.md"))
_MOST = 4 << 20  # no file of settings or memory is larger


def advice(
    log: Log, since: str, until: str, only: Filter, environment: Mapping[str, str], home: str, on_bad_line: OnBadLine = ignore
) -> list[Advice]:
    """What the settings cost in a span, the dearest first."""
    from tokenops import answers_context, coach_setup, context, guard_install, store

    watch = coach_setup.Setup(log.catalogue(), thresholds(log.settings)["setup"])
    chosen = answers_context.chosen(log, answers_context.Query(since=since, until=until, only=only), on_bad_line)
    for share in context.shares(chosen.turns, chosen.records):
        if chosen.takes(share.turn):
            watch.add(share)
    settings = guard_install.settings_path(environment, home)
    folder = os.path.dirname(settings)
    own = os.path.join(folder if environment.get("CLAUDE_CONFIG_DIR") else home, ".claude.json")
    paths = store.project_paths(log.folder)
    files = {project: list(_memory(folder, path)) for project, path in paths.items()}
    from tokenops import projects

    names = projects.labels(paths)
    servers = coach_setup.always_loaded(_document(own), own, _document(settings), settings)
    every = [
        *watch.caches(settings),
        *watch.efforts(settings),
        *watch.memory(files, lambda project: names.get(project, "")),
        *watch.servers(servers),
    ]
    return sorted(every, key=lambda each: (each.usd is None, -(each.usd or 0)))


def _memory(folder: str, project: str) -> Iterator[MemoryFile]:
    """The memory files of the user and of a project that are there."""
    from tokenops.coach_setup import MemoryFile

    for path in (os.path.join(folder, _USERS), *(os.path.join(project, name) for name in _PROJECTS)):
        text, changed = _text(path)
        if text:
            yield MemoryFile(path, len(text), changed)


def _text(path: str) -> tuple[str, int]:
    """The text of a small file, and when it was changed (ms); "" if it cannot be read."""
    from tokenops import regular

    try:
        with open(path, "rb", opener=regular.opener) as file:
            status = os.fstat(file.fileno())
            data = file.read(_MOST + 1)
    except OSError:
        return "", 0
    return ("" if len(data) > _MOST else data.decode(errors="replace")), status.st_mtime_ns // 1_000_000


def _document(path: str) -> Any:
    """A settings file's content; None if it is not JSON."""
    from tokenops import jsonc

    text, _ = _text(path)
    try:
        return None if jsonc.is_empty(text) else jsonc.document(text).data
    except (ValueError, RecursionError):
        return None


def verdicts(log: Log, applied: Iterable[Applied]) -> list[Event]:
    """What came of settings that were changed."""
    import orjson

    from tokenops import coach_setup, store, when

    rows = []
    for each in applied:
        begin = when.stamp(when.moment(each.at) - 14 * when.DAY)
        lines = (line for line in store.scan(log.folder, begin, OPEN) if store.kind_of(line) == b"turn")
        rows.append(coach_setup.verdict(map(orjson.loads, lines), each, log.catalogue(), when.stamp(log.now)))
    return rows
