"""Keeps the cursors of client files of another machine, by their paths below its home directory.

The home may be mounted elsewhere the next time. Or only copies of files that have changed are here, which are removed again:
then a list says which files there are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from tokenops import datadir, store_cursors
from tokenops.store_cursors import FileState

Cursors = dict[str, dict[str, FileState]]


class Origin(NamedTuple):
    """Client files of another machine: where the cursors of these are kept, and what these are relative to.

    `listed`: the files, relative as well, that exist there but perhaps not here; None if all of them are here.
    """

    folder: str
    root: str
    listed: frozenset[str] | None = None

    def load(self) -> dict[str, dict[str, FileState]]:
        """The cursors, by source and by path on this machine. Of a copied file the inode is the copy's."""
        cursors = store_cursors.load(self.folder)
        return {
            source: {self.path(name): self._here(name, file) for name, file in files.items()}
            for source, files in cursors.items()
        }

    def save(self, cursors: Mapping[str, Mapping[str, FileState]]) -> None:
        """Keep the cursors. Raises OSError."""
        relative = {
            source: {os.path.relpath(path, self.root): file for path, file in files.items()}
            for source, files in cursors.items()
        }
        store_cursors.save(datadir.ensure_folder(self.folder), relative)

    def exists(self, path: str) -> bool:
        """Whether a file still exists there."""
        return os.path.exists(path) if self.listed is None else os.path.relpath(path, self.root) in self.listed

    def path(self, name: str) -> str:
        """The path here of a file there."""
        return os.path.join(self.root, name)

    def _here(self, name: str, file: FileState) -> FileState:
        if self.listed is None:
            return file
        try:
            return file._replace(inode=os.stat(self.path(name)).st_ino)
        except OSError:
            return file
