"""Keeps the paths of the log's projects by project_id, so that two projects of one name can be told apart."""

from __future__ import annotations

import os
from collections.abc import Mapping

import orjson

from tokenops import datadir, projects


def labels(folder: str) -> dict[str, str]:
    """project_id -> name, of the projects whose basename is not enough to tell them apart."""
    paths = project_paths(folder)
    return {key: name for key, name in projects.labels(paths).items() if name != projects.label(paths[key])}


def project_paths(folder: str) -> dict[str, str]:
    """project_id -> path, of the projects that a log's directory knows; none if it is a file or cannot be read."""
    paths = datadir.read_json(projects_file(folder)) if os.path.isdir(folder) else None
    entries = paths.items() if type(paths) is dict else ()
    return {key: path for key, path in entries if projects.is_path_of(key, path)}


def remember_projects(folder: str, paths: Mapping[str, str], patience: float = datadir.PATIENCE_S) -> None:
    """Keep the paths of projects (by project_id), so that two of one name can be told apart. Raises OSError.

    What cannot be an id and a path is left out: the projects of another log may be imported.
    """
    sound = {key: path for key, path in paths.items() if projects.is_path_of(key, path)}
    if not sound.items() <= project_paths(folder).items():
        with datadir.lock(folder, patience=patience):
            content = orjson.dumps(project_paths(folder) | sound, option=orjson.OPT_SORT_KEYS)
            datadir.replace(projects_file(folder), content)


def projects_file(folder: str) -> str:
    """Where the paths of projects are kept."""
    return os.path.join(folder, "projects.json")
