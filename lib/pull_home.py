"""Reads the clients' files in a home directory of another machine that this one can see, as that machine's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from tokenops import machines, pull_log, pull_sources, readers, sync, sync_origin
from tokenops.read_clients import Client
from tokenops.workers import SILENT

OnProblem = Callable[[str], None]


def run(target: pull_log.Target, source: pull_sources.Source, on_problem: OnProblem) -> list[sync.Outcome] | None:
    """Import what is new in a home directory; None if another run is at it. Raises readers.NotFound, OSError, WorkerDied."""
    root = source.target
    sources = [
        (client, inside(root, paths, on_problem)) for client, paths in readers.with_files((), (root,), {}, root, on_problem)
    ]
    return import_files(target, source, sync_origin.Origin(target.folder, root), sources)


def import_files(
    target: pull_log.Target,
    source: pull_sources.Source,
    origin: sync_origin.Origin,
    sources: Iterable[tuple[Client, list[str]]],
) -> list[sync.Outcome] | None:
    """Import what is new in some clients' files, stamped with the source's machine. Raises OSError, WorkerDied."""
    owner = machines.Owner(source.machine)
    return sync.run(target.log, sources, target.backfill, target.dry, 1, SILENT, None, True, owner=owner, origin=origin)


def inside(root: str, paths: Iterable[str], on_problem: OnProblem) -> list[str]:
    """The files that lie below a home directory, links followed: others are not that machine's, but this one's."""
    real = os.path.join(os.path.realpath(root), "")
    here, outside = [], 0
    for path in paths:
        if os.path.realpath(path).startswith(real):
            here.append(path)
        else:
            outside += 1
    if outside:
        on_problem(f"{root}: links lead out of it to {outside} files; they are not read")
    return here
