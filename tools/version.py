"""Which version this tree is of, and the day on which CHANGELOG.md says that it was released."""

from __future__ import annotations

import datetime
import os
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_SECTION = re.compile(r"^## (\d\S*) \((\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)


def version(root: pathlib.Path = ROOT) -> str:
    """The version, as lib/__init__.py has it."""
    found = _VERSION.search((root / "lib/__init__.py").read_text())
    if not found:
        raise ValueError("lib/__init__.py: no __version__")
    return found[1]


def released(root: pathlib.Path = ROOT) -> datetime.date | None:
    """The day of this version's section, `## 1.2.3 (2026-11-22)`; None while there is no such section."""
    days = dict(_SECTION.findall((root / "CHANGELOG.md").read_text()))
    day = days.get(version(root))
    return datetime.date.fromisoformat(day) if day else None


def moment(root: pathlib.Path = ROOT) -> int:
    """The time that files of this version bear, in seconds: SOURCE_DATE_EPOCH, else the day of its release, else now."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    day = released(root)
    now = datetime.datetime.now(datetime.UTC)
    return int(datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp() if day else now.timestamp())
