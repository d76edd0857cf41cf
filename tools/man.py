"""Man pages of all commands, made of their manuals: python tools/man.py DIRECTORY (make man)."""

from __future__ import annotations

import datetime
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bin"))

from tokenops import __version__, manual  # noqa: E402


def pages() -> dict[str, str]:
    """The page of each command, by its file's name."""
    found = {path: manual.of_source(path.read_text()) for path in sorted((ROOT / "bin").glob("tok-*"))}
    names = [one.name for one in found.values() if one]
    made = {}
    for path, one in found.items():
        if one:
            date = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date()
            made[f"{one.name}.1"] = manual.page(one, names, __version__, date.isoformat())
    return made


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1]) / "man1"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)
