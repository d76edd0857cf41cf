"""How pip, build and uv build this project: setuptools, on a copy of the sources.

In the copy lie the man pages and completions made of the manuals. Its files have one time (SOURCE_DATE_EPOCH, else the
day of the release) and one of two modes, so the same sources give the same bytes, whoever builds them, where and when;
and nothing is left in the tree. An editable install is built in place, without man pages and completions.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping

from setuptools import build_meta
from version import ROOT, moment, version

_FILES = (".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md")
_FOLDERS = (".ci", "bench", "bin", "catalog", "docs", "lib", "tests", "tools")
_SOURCES = (*_FILES, "THIRD_PARTY_NOTICES", "pyproject.toml", *_FOLDERS)

Settings = Mapping[str, object] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Nothing beyond what pyproject.toml names; so do the other two."""
    return []


get_requires_for_build_sdist = get_requires_for_build_editable = get_requires_for_build_wheel


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """The wheel's metadata alone."""
    place = os.path.abspath(metadata_directory)
    with _copy():
        return str(build_meta.prepare_metadata_for_build_wheel(place))


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """The wheel: the package, its data, the commands, man pages and completions."""
    place = os.path.abspath(wheel_directory)
    with _copy() as folder:
        _share(folder)
        return str(build_meta.build_wheel(place))


def build_editable(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """A wheel that points at this tree."""
    before = set(ROOT.iterdir())
    try:
        return str(build_meta.build_editable(wheel_directory))
    finally:
        for left in set(ROOT.glob("*.egg-info")) - before:
            shutil.rmtree(left)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Everything that is in the repository (links as links), and PKG-INFO."""
    name = f"tokenops-{version()}"
    path = os.path.join(os.path.abspath(sdist_directory), f"{name}.tar.gz")
    with _copy() as folder, tempfile.TemporaryDirectory() as about:
        made = build_meta.prepare_metadata_for_build_wheel(about)
        for left in folder.glob("*.egg-info"):
            shutil.rmtree(left)
        shutil.copyfile(pathlib.Path(about, made, "METADATA"), folder / "PKG-INFO")
        with (
            open(path, "wb") as file,
            gzip.GzipFile("", "wb", 9, file, mtime=moment()) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(folder, name, filter=_nobodys)
    return f"{name}.tar.gz"


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry of an archive that does not say who packed it, and when. (Entries come sorted by name.)"""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = moment()
    entry.mode = 0o777 if entry.issym() else 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


@contextlib.contextmanager
def _copy() -> Iterator[pathlib.Path]:
    """A copy of the sources, as the working directory while the block runs."""
    os.environ["SOURCE_DATE_EPOCH"] = str(moment())
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as beside:
        folder = pathlib.Path(beside, "tokenops")
        folder.mkdir()
        left_out = shutil.ignore_patterns("__pycache__", ".*_cache", "*.pyc", "out")
        for name in _SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=left_out)
            else:
                shutil.copyfile(ROOT / name, folder / name)
        for path in filter(lambda path: not path.is_symlink(), folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        before = os.getcwd()
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def _share(folder: pathlib.Path) -> None:
    """Put man pages and completions into a copy, as [tool.setuptools.data-files] wants them."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "XDG_CACHE_HOME": cache, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONSAFEPATH", None)  # pipx sets it; a script then does not find the modules beside it
        subprocess.run([sys.executable, "tools/share.py", "share"], cwd=folder, env=environment, check=True)
