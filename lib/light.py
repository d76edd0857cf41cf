"""Two parts of the standard library at a price that a command can pay at each start.

A regular expression takes 0.1 to 1 ms to compile, and most runs use few of them. All of hashlib loads OpenSSL, in 2 ms.
"""

from __future__ import annotations

import re
from _blake2 import blake2b  # the function that hashlib has
from typing import Any, AnyStr, cast

__all__ = ["blake2b", "pattern"]


class _Late:
    """Stands for a regular expression until one of its attributes is used, and has that attribute from then on."""

    def __init__(self, text: Any, flags: int) -> None:
        self._source = text, flags

    def __getattr__(self, name: str) -> Any:
        value = getattr(re.compile(*self._source), name)
        setattr(self, name, value)
        return value


def pattern(text: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """A regular expression that is compiled when it is first used, by one of its own methods."""
    return cast("re.Pattern[AnyStr]", _Late(text, flags))
