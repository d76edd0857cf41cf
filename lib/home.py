"""TokenOps's own directories and the small files in them."""

from __future__ import annotations

import os


def data() -> str:
    """The directory of the log: $TOKENOPS_HOME, else $XDG_DATA_HOME/tokenops."""
    given = os.environ.get("TOKENOPS_HOME")
    if given:
        return given
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "tokenops")


def salt() -> bytes:
    """The secret that project and account hashes are made with; empty until the log exists."""
    try:
        with open(os.path.join(data(), "salt"), "rb") as file:
            return file.read().strip()
    except OSError:
        return b""
